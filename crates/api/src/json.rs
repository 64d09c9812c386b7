//! Messages as JSON, by the mapping of protobuf (<https://protobuf.dev/programming-guides/json/>):
//! names in camel case, enums by name, bytes in base64, numbers of 64 bits as text.
//!
//! Read is what Go programs write, too: names as in the .proto files, enums as numbers.

use std::sync::LazyLock;

use model::{Bytes, Diagnose, Diagnosis, Who};
use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};

use crate::wire::WireError;

static POOL: LazyLock<Option<DescriptorPool>> = LazyLock::new(|| {
    let bytes = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.pb"));
    DescriptorPool::decode(bytes.as_slice()).ok()
});

/// Why a message could not be read or written as JSON.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// The text is not this message.
    #[error("this is no {what} in JSON")]
    Text {
        /// The message.
        what: &'static str,
        /// Why not, with line and column.
        source: serde_json::Error,
    },
    /// The bytes are not this message.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// Its description is not among ours.
    #[error("{0} has no description")]
    Unknown(&'static str),
}

impl Diagnose for JsonError {
    fn diagnose(&self) -> Diagnosis {
        match self {
            JsonError::Text { .. } => {
                Diagnosis::of(Who::Operator, "write the fields as the EVE API names them")
            }
            JsonError::Wire(e) => e.diagnose(),
            JsonError::Unknown(_) => Diagnosis::of(Who::Developer, "add it to `proto/`"),
        }
    }
}

fn description<M: Name>() -> Result<MessageDescriptor, JsonError> {
    let found = POOL.as_ref().and_then(|pool| pool.get_message_by_name(&M::full_name()));
    found.ok_or(JsonError::Unknown(M::NAME))
}

/// A message as JSON, on one line. Fields that are not set, and those we do not know, are left out.
pub fn write<M: Message + Name>(bytes: &[u8]) -> Result<String, JsonError> {
    let wrong = |source| WireError::Decode { what: M::NAME, source };
    let message = DynamicMessage::decode(description::<M>()?, bytes).map_err(wrong)?;
    serde_json::to_string(&message).map_err(|source| JsonError::Text { what: M::NAME, source })
}

/// The bytes of a message that is written in JSON. A field that the message does not have is an
/// error; so are more bytes than `limit`.
pub fn read<M: Message + Name>(text: &[u8], limit: Bytes) -> Result<Vec<u8>, JsonError> {
    let got = Bytes(text.len() as u64);
    if got > limit {
        return Err(WireError::TooLong { what: M::NAME, got, limit }.into());
    }
    let wrong = |source| JsonError::Text { what: M::NAME, source };
    let mut reader = serde_json::Deserializer::from_slice(text);
    let message = DynamicMessage::deserialize(description::<M>()?, &mut reader).map_err(wrong)?;
    reader.end().map_err(wrong)?;
    Ok(message.encode_to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;
    use crate::pb::config::EdgeDevConfig;
    use crate::wire::{decode, encode};

    #[test]
    fn both_spellings_are_read_and_one_is_written() {
        let go = br#"{"id": {"uuid": "a"}, "deviceIoList": [{"ptype": 1, "logicallabel": "eth0"}],
            "controllercert_confighash": "h", "maintenance_mode": true}"#;
        let proto = br#"{"id": {"uuid": "a"},
            "deviceIoList": [{"ptype": "PhyIoNetEth", "logicallabel": "eth0"}],
            "controllercertConfighash": "h", "maintenanceMode": true}"#;
        let one = read::<EdgeDevConfig>(go, limits::CONFIG).unwrap();
        assert_eq!(one, read::<EdgeDevConfig>(proto, limits::CONFIG).unwrap());
        let config: EdgeDevConfig = decode(&one, limits::CONFIG).unwrap();
        assert_eq!(config.device_io_list[0].logicallabel, "eth0");
        let text = write::<EdgeDevConfig>(&encode(&config)).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["deviceIoList"][0]["ptype"], "PhyIoNetEth");
        assert_eq!(value["maintenanceMode"], true);
        assert_eq!(read::<EdgeDevConfig>(text.as_bytes(), limits::CONFIG).unwrap(), one);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let refused =
            |text: &[u8]| model::chain(&read::<EdgeDevConfig>(text, limits::CONFIG).unwrap_err());
        assert!(refused(br#"{"aps": []}"#).contains("aps"));
        assert!(refused(br#"{"reboot": 1}"#).contains("line 1"));
        assert!(refused(b"{} {}").contains("trailing"));
        let long = vec![b' '; 11];
        assert!(matches!(
            read::<EdgeDevConfig>(&long, Bytes(10)),
            Err(JsonError::Wire(WireError::TooLong { .. }))
        ));
        assert!(write::<EdgeDevConfig>(&[0xff]).is_err());
    }
}
