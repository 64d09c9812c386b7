//! Where the wire ends: [`config`] makes `model::desired` of what a controller sends and the
//! reverse, [`info`] and [`metrics`] make messages of `model::reported`, [`view`] reads them back
//! for the controller, and [`attest`] knows both directions of attestation.
//!
//! One file knows one object on both sides. What a node cannot understand is refused by the name
//! of the wire's field, object by object; the rest goes on.

mod app;
pub mod attest;
pub mod config;
mod content;
mod enrol;
mod hardware;
pub mod info;
pub mod inventory;
pub mod items;
pub mod legacy;
pub mod local;
mod machine;
pub mod metrics;
mod netinst;
mod node;
mod patch;
mod ports;
mod refuse;
pub mod secret;
pub mod time;
pub mod view;
mod wireless;

use model::UnixMillis;
use prost_types::Timestamp;

/// A time of the wire; what lies before 1970 becomes 1970.
pub(crate) fn from_timestamp(t: &Timestamp) -> UnixMillis {
    let seconds = u64::try_from(t.seconds).unwrap_or(0);
    let millis = u64::try_from(t.nanos / 1_000_000).unwrap_or(0);
    UnixMillis(seconds.saturating_mul(1000).saturating_add(millis))
}

pub(crate) fn to_timestamp(t: UnixMillis) -> Timestamp {
    // Below a billion, and below 2^63 / 1000.
    let nanos = i32::try_from(t.0 % 1000 * 1_000_000).unwrap_or(0);
    Timestamp { seconds: i64::try_from(t.0 / 1000).unwrap_or(i64::MAX), nanos }
}

/// As networks write it: `02:16:3e:00:00:01`.
fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|b| format!("{b:02x}")).join(":")
}

/// `None` if the text is no hardware address; `:` and `-` are fine between the bytes.
fn mac_from(text: &str) -> Option<[u8; 6]> {
    let bytes: Vec<u8> = text
        .split([':', '-'])
        .map(|b| (b.len() == 2).then(|| u8::from_str_radix(b, 16).ok())?)
        .collect::<Option<_>>()?;
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses_print_what_they_read() {
        let text = "02:16:3e:00:ff:01";
        assert_eq!(mac_text(mac_from(text).unwrap()), text);
        for bad in
            ["", "02:16:3e:00:ff", "02:16:3e:00:ff:1", "02:16:3e:00:ff:01:02", "g0:0:0:0:0:0"]
        {
            assert_eq!(mac_from(bad), None, "{bad}");
        }
    }

    #[test]
    fn times_keep_their_milliseconds() {
        let time = UnixMillis(1_767_323_045_678);
        assert_eq!(from_timestamp(&to_timestamp(time)), time);
        assert_eq!(from_timestamp(&Timestamp { seconds: -5, nanos: -1 }), UnixMillis(0));
    }
}
