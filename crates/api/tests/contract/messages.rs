//! Every message of the API goes through its Rust type and comes out the same, whatever is in it.

use api::pb::auth::{AuthBody, AuthContainer};
use proptest::prelude::*;
use prost::{DecodeError, Message, Name};
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value,
};

/// Bytes to the Rust type and back.
pub(crate) type RoundTrip = fn(&[u8]) -> Result<Vec<u8>, DecodeError>;

fn entry<M: Message + Default + Name>() -> (String, RoundTrip) {
    (M::full_name(), |bytes| Ok(M::decode(bytes)?.encode_to_vec()))
}

/// All messages by their full names.
pub(crate) fn all() -> Vec<(String, RoundTrip)> {
    include!(concat!(env!("OUT_DIR"), "/messages.rs")).to_vec()
}

fn pool() -> DescriptorPool {
    let bytes = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.pb"));
    DescriptorPool::decode(bytes.as_slice()).unwrap()
}

/// Numbers that are no secret: the same seed, the same message (xorshift64*, Vigna 2016).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Small and large ones, of either sign.
    #[expect(clippy::cast_possible_truncation, reason = "any bits will do")]
    fn i32(&mut self) -> i32 {
        let bits = self.below(33);
        (self.next() >> (63 - bits.min(31))) as i32 ^ -i32::from(bits == 32)
    }

    fn i64(&mut self) -> i64 {
        let bits = self.below(64);
        (self.next() >> bits).cast_signed()
    }

    fn text(&mut self) -> String {
        let length = self.below(6);
        let letters = ['a', 'Z', '0', ' ', '\u{e9}', '\u{6f22}', '\u{1f600}', '\0', '"', '/'];
        (0..length).map(|_| letters[usize::try_from(self.below(10)).unwrap()]).collect()
    }

    fn value(&mut self, kind: &Kind, depth: u32) -> Value {
        match kind {
            Kind::Double => Value::F64(f64::from(self.i32()) / 3.0),
            Kind::Float => Value::F32(f32::from(self.next().to_le_bytes()[0]) / 3.0),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(self.i32()),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(self.i64()),
            Kind::Uint32 | Kind::Fixed32 => Value::U32(self.i32().cast_unsigned()),
            Kind::Uint64 | Kind::Fixed64 => Value::U64(self.i64().cast_unsigned()),
            Kind::Bool => Value::Bool(self.below(2) == 1),
            Kind::String => Value::String(self.text()),
            Kind::Bytes => Value::Bytes(self.text().into_bytes().into()),
            Kind::Message(message) => Value::Message(self.message(message, depth)),
            // A third of them is of a future version.
            Kind::Enum(values) => Value::EnumNumber(if self.below(3) == 0 {
                self.i32()
            } else {
                let count = values.values().len() as u64;
                let at = usize::try_from(self.below(count)).unwrap();
                values.values().nth(at).unwrap().number()
            }),
        }
    }

    fn field(&mut self, field: &FieldDescriptor, depth: u32) -> Value {
        let kind = field.kind();
        if field.is_map() {
            let Kind::Message(entry) = &kind else { panic!("a map of no entries") };
            let (key, value) = (entry.map_entry_key_field(), entry.map_entry_value_field());
            let pair = |chance: &mut Chance| {
                let key = match chance.value(&key.kind(), depth) {
                    Value::String(key) => MapKey::String(key),
                    Value::U32(key) => MapKey::U32(key),
                    Value::I32(key) => MapKey::I32(key),
                    Value::U64(key) => MapKey::U64(key),
                    other => panic!("a key {other:?}: write the test for it"),
                };
                (key, chance.value(&value.kind(), depth))
            };
            let count = self.below(3);
            return Value::Map((0..count).map(|_| pair(self)).collect());
        }
        if field.is_list() {
            let count = self.below(3);
            return Value::List((0..count).map(|_| self.value(&kind, depth)).collect());
        }
        self.value(&kind, depth)
    }

    fn message(&mut self, of: &MessageDescriptor, depth: u32) -> DynamicMessage {
        let mut message = DynamicMessage::new(of.clone());
        for field in of.fields() {
            let deep = matches!(field.kind(), Kind::Message(_)) && depth == 0;
            if !deep && self.below(4) > 0 {
                // Of a oneof the last one counts, as on the wire.
                let value = self.field(&field, depth.saturating_sub(1));
                message.set_field(&field, value);
            }
        }
        message
    }
}

#[test]
fn there_is_a_type_for_every_message() {
    let types: Vec<String> = all().into_iter().map(|(name, _)| name).collect();
    let pool = pool();
    let ours = pool.all_messages().filter(|m| !m.is_map_entry());
    let ours: Vec<MessageDescriptor> =
        ours.filter(|m| m.package_name().starts_with("org.lfedge.eve.")).collect();
    assert!(ours.len() > 300);
    assert_eq!(types.len(), ours.len());
    for message in ours {
        assert!(types.iter().any(|t| t == message.full_name()), "{}", message.full_name());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn every_message_comes_back_as_it_was(seed in 1..u64::MAX) {
        let (pool, mut chance) = (pool(), Chance(seed));
        for (name, through) in all() {
            let descriptor = pool.get_message_by_name(&name).unwrap();
            let bytes = chance.message(&descriptor, 4).encode_to_vec();
            // Read once, so that what is set to nothing and what is not set are the same.
            let read = |bytes: &[u8]| DynamicMessage::decode(descriptor.clone(), bytes).unwrap();
            let (sent, came) = (read(&bytes), read(&through(&bytes).unwrap()));
            prop_assert!(sent == came, "{}: {} became {}", name, sent, came);
        }
    }

    #[test]
    fn no_bytes_make_a_message_fall(bytes: Vec<u8>, seed in 1..u64::MAX, at: prop::sample::Index) {
        let (pool, mut chance) = (pool(), Chance(seed));
        for (name, through) in all() {
            let _ = through(&bytes);
            let descriptor = pool.get_message_by_name(&name).unwrap();
            let mut whole = chance.message(&descriptor, 2).encode_to_vec();
            if !whole.is_empty() {
                let at = at.index(whole.len());
                whole[at] = bytes.first().copied().unwrap_or(0xff);
                let _ = through(&whole);
                let _ = through(&whole[..at]);
            }
        }
    }
}

#[test]
fn a_field_of_a_future_version_harms_nothing_and_stays_in_what_was_received() {
    // Field 2000, a text: after all fields that there are.
    let new = [&[0x82, 0x7d, 3][..], b"new"].concat();
    for (name, through) in all() {
        assert_eq!(through(&new).unwrap(), b"", "{name}");
    }
    // A payload is kept, verified and stored as it came, with what is new in it.
    let payload = new.clone();
    let container = AuthContainer {
        protected_payload: Some(AuthBody { payload: payload.clone() }),
        ..AuthContainer::default()
    };
    let body = [api::wire::encode(&container), new].concat();
    let received = api::envelope::open(&body, api::limits::INFO).unwrap();
    assert_eq!(received.unverified_payload(), payload);
}
