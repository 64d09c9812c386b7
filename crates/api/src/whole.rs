//! A config that somebody wrote whole, in the API's own words, instead of objects: checked, given to
//! one device, stamped.
//!
//! Its bytes are kept as they came, so that fields we do not know reach the device. Fields are set by
//! appending them: of a scalar field the last one counts, and a message is merged with the one before
//! (<https://protobuf.dev/programming-guides/encoding/>, last one wins).

use std::fmt;

use model::{DeviceId, Diagnose, Diagnosis, UnixMillis, Who};

use crate::convert::to_timestamp;
use crate::limits;
use crate::pb::config::{EdgeDevConfig, UuiDandVersion};
use crate::wire::{self, WireError};

/// Keys of length-delimited fields: number × 8 + 2, as a varint.
const CONFIG: &[u8] = &[0x0a];
const CONFIG_HASH: &[u8] = &[0x12];
/// `controllercert_confighash`, 22.
const CERTS_HASH: &[u8] = &[0xb2, 0x01];
/// `config_timestamp`, 40.
const TIMESTAMP: &[u8] = &[0xc2, 0x02];
/// `nanos` of a timestamp, said to be 0.
const NO_NANOS: &[u8] = &[0x10, 0x00];

/// A config for one device. It may hold passwords in clear, so it shows none of its bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Whole {
    /// An `EdgeDevConfig` that names the device and a version.
    pub bytes: Vec<u8>,
    /// Its `id.version`.
    pub version: String,
}

impl fmt::Debug for Whole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Whole").field("version", &self.version).finish_non_exhaustive()
    }
}

/// Why a config cannot be given to a device.
#[derive(Debug, thiserror::Error)]
pub enum WholeError {
    /// No bytes: the node would drop everything it runs, and nobody means that.
    #[error("the config is empty; one that is to say nothing says at least its id")]
    Empty,
    /// It is none.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// It names another device, or nothing that could be one.
    #[error("EdgeDevConfig.id.uuid is {got:?}, and this is for {own}")]
    Foreign {
        /// As on the wire.
        got: String,
        /// For whom it was given.
        own: DeviceId,
    },
    /// The last version is no number, and this one says none.
    #[error(
        "EdgeDevConfig.id.version is missing, and the last one, {last:?}, is no number to count on"
    )]
    Version {
        /// The last version.
        last: String,
    },
}

impl Diagnose for WholeError {
    fn diagnose(&self) -> Diagnosis {
        match self {
            WholeError::Wire(e) => e.diagnose(),
            WholeError::Foreign { .. } => {
                Diagnosis::of(Who::Operator, "write this device's id into id.uuid, or none")
            }
            WholeError::Empty => Diagnosis::of(Who::Operator, "look at what wrote it"),
            WholeError::Version { .. } => Diagnosis::of(Who::Operator, "write an id.version"),
        }
    }
}

impl Whole {
    /// Takes a config for a device. One without an id is given its id; one without a version, or
    /// with a number that is not above the last one, gets the next number.
    pub fn take(bytes: &[u8], own: DeviceId, last: Option<&Whole>) -> Result<Whole, WholeError> {
        if bytes.is_empty() {
            return Err(WholeError::Empty);
        }
        let config: EdgeDevConfig = wire::decode(bytes, limits::CONFIG)?;
        let said = config.id.unwrap_or_default();
        if !said.uuid.is_empty() && said.uuid.parse() != Ok(own) {
            return Err(WholeError::Foreign { got: said.uuid.chars().take(80).collect(), own });
        }
        if let Some(last) = last.filter(|l| l.bytes == bytes) {
            return Ok(last.clone());
        }
        let before = last.map_or("0", |l| l.version.as_str());
        let version = match (before.parse::<u64>(), said.version.parse::<u64>()) {
            (Ok(before), Ok(now)) if now <= before && last.is_some() => {
                before.saturating_add(1).to_string()
            }
            (Ok(before), _) if said.version.is_empty() => before.saturating_add(1).to_string(),
            _ if said.version.is_empty() => {
                return Err(WholeError::Version { last: before.to_owned() });
            }
            _ => said.version.clone(),
        };
        let mut bytes = bytes.to_vec();
        if said.uuid != own.to_string() || said.version != version {
            let id = UuiDandVersion { uuid: own.to_string(), version: version.clone() };
            bytes.extend(wire::encode(&EdgeDevConfig { id: Some(id), ..EdgeDevConfig::default() }));
        }
        Ok(Whole { bytes, version })
    }
}

/// The payload of the answer that tells a device this config: of this moment, under this hash, with
/// the hash of the controller's certificates in it.
pub fn answer(config: &[u8], at: UnixMillis, certs_hash: &str, hash: &str) -> Vec<u8> {
    let time = to_timestamp(at);
    let mut stamp = wire::encode(&time);
    if time.nanos == 0 {
        // Else those of the config as it came would stay.
        stamp.extend(NO_NANOS);
    }
    let mut config = config.to_vec();
    put(&mut config, TIMESTAMP, &stamp);
    put(&mut config, CERTS_HASH, certs_hash.as_bytes());
    let mut payload = Vec::with_capacity(config.len() + hash.len() + 16);
    put(&mut payload, CONFIG, &config);
    put(&mut payload, CONFIG_HASH, hash.as_bytes());
    payload
}

fn put(into: &mut Vec<u8>, key: &[u8], bytes: &[u8]) {
    into.extend(key);
    let mut length = bytes.len();
    while length >= 0x80 {
        into.push(u8::try_from(length & 0x7f).unwrap_or(0) | 0x80);
        length >>= 7;
    }
    into.push(u8::try_from(length).unwrap_or(0));
    into.extend(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::config::ConfigResponse;

    fn own() -> DeviceId {
        "f0e1d2c3-0000-4000-8000-000000000001".parse().unwrap()
    }

    fn config(uuid: &str, version: &str) -> Vec<u8> {
        let id = UuiDandVersion { uuid: uuid.into(), version: version.into() };
        let name = "edge".to_owned();
        wire::encode(&EdgeDevConfig { id: Some(id), device_name: name, ..EdgeDevConfig::default() })
    }

    #[test]
    fn versions_only_grow() {
        let take = |bytes: &[u8], last: Option<&Whole>| Whole::take(bytes, own(), last).unwrap();
        let first = take(&config("", ""), None);
        assert_eq!(first.version, "1");
        let read: EdgeDevConfig = wire::decode(&first.bytes, limits::CONFIG).unwrap();
        let id = read.id.unwrap();
        assert_eq!((id.uuid, id.version), (own().to_string(), "1".to_owned()));
        assert_eq!(read.device_name, "edge");
        assert!(!format!("{first:?}").contains("101, 100, 103, 101"), "it shows none of its bytes");
        let seventh = take(&config("", "7"), Some(&first));
        assert_eq!(seventh.version, "7");
        assert_eq!(take(&config("", "3"), Some(&seventh)).version, "8", "it does not go back");
        assert_eq!(take(&seventh.bytes, Some(&seventh)), seventh, "the same again is the same");
        let named = take(&config("", "blue"), Some(&seventh));
        assert_eq!(named.version, "blue", "who does not count is left alone");
        assert!(matches!(
            Whole::take(&config("", ""), own(), Some(&named)),
            Err(WholeError::Version { .. })
        ));
    }

    #[test]
    fn another_device_is_refused() {
        for uuid in ["f0e1d2c3-0000-4000-8000-000000000002", "edge-1"] {
            let refused = Whole::take(&config(uuid, "1"), own(), None).unwrap_err();
            assert!(refused.to_string().contains(uuid), "{refused}");
        }
        assert!(Whole::take(b"\xff", own(), None).is_err());
        assert!(matches!(Whole::take(b"", own(), None), Err(WholeError::Empty)));
    }

    #[test]
    fn an_answer_keeps_what_it_does_not_know() {
        // A field of number 1000, and a timestamp with nanoseconds.
        let mut bytes = config(&own().to_string(), "1");
        bytes.extend([0xc2, 0x3e, 0x02, b'h', b'i']);
        put(&mut bytes, TIMESTAMP, &[0x08, 0x05, 0x10, 0x07]);
        let whole = Whole::take(&bytes, own(), None).unwrap();
        assert_eq!(whole.bytes, bytes);
        let payload = answer(&whole.bytes, UnixMillis(9_000), "certs", "hash");
        let read: ConfigResponse = wire::decode(&payload, limits::CONFIG).unwrap();
        let config = read.config.unwrap();
        assert_eq!(read.config_hash, "hash");
        assert_eq!(config.controllercert_confighash, "certs");
        let at = config.config_timestamp.unwrap();
        assert_eq!((at.seconds, at.nanos), (9, 0));
        let unknown: &[u8] = &[0xc2, 0x3e, 0x02, b'h', b'i'];
        assert!(payload.windows(unknown.len()).any(|w| w == unknown));
        let name = "n".repeat(300);
        let long =
            wire::encode(&EdgeDevConfig { device_name: name.clone(), ..EdgeDevConfig::default() });
        let payload = answer(&long, UnixMillis(1), "c", "h");
        let read: ConfigResponse = wire::decode(&payload, limits::CONFIG).unwrap();
        assert_eq!(read.config.unwrap().device_name, name, "a length of more than one byte");
    }
}
