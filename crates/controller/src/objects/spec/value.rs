//! Values as they are written in documents.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use model::desired::Protocol;
use model::{Bytes, Digest};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The hardware address of one card: `02:16:3e:00:00:01`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Mac, String> {
        let byte = |b: &str| if b.len() == 2 { u8::from_str_radix(b, 16).ok() } else { None };
        let bytes: Option<Vec<u8>> = text.split(':').map(byte).collect();
        let bytes: Option<[u8; 6]> = bytes.and_then(|b| b.try_into().ok());
        // The lowest bit of the first byte marks a group of cards.
        bytes.filter(|b| b[0] & 1 == 0).map(Mac).ok_or_else(|| {
            format!("{text:?} is no hardware address of one card, as 02:16:3e:00:00:01")
        })
    }
}

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0.map(|b| format!("{b:02x}")).join(":"))
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A name or several.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Many(pub Vec<String>);

impl Serialize for Many {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => one.serialize(s),
            all => all.serialize(s),
        }
    }
}

impl<'de> Deserialize<'de> for Many {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected a name or a list of names")]
        enum Either {
            One(String),
            All(Vec<String>),
        }
        Ok(Many(match Either::deserialize(d)? {
            Either::One(one) => vec![one],
            Either::All(all) => all,
        }))
    }
}

/// A size: a number of bytes, or with a unit: `512KiB`, `128MiB`, `1GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub Bytes);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let bad =
            || format!("{text:?} is no size; write 512KiB, 128MiB, 1GiB or a number of bytes");
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let number: u64 = text[..digits].parse().map_err(|_| bad())?;
        let shift = match text[digits..].trim() {
            "" | "B" => 0,
            "KiB" | "Ki" | "K" => 10,
            "MiB" | "Mi" | "M" => 20,
            "GiB" | "Gi" | "G" => 30,
            "TiB" | "Ti" | "T" => 40,
            _ => return Err(bad()),
        };
        number.checked_mul(1 << shift).map(|n| Size(Bytes(n))).ok_or_else(bad)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let bytes = self.0.0;
        for (unit, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
            if bytes != 0 && bytes.is_multiple_of(1 << shift) {
                return s.collect_str(&format_args!("{}{unit}", bytes >> shift));
            }
        }
        s.serialize_u64(bytes)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        text_or_number(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A port of the node that leads to a port of an app: `8080:80`, `5353:53/udp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortMap {
    /// At the node's edge.
    pub edge: u16,
    /// In the app.
    pub app: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

impl FromStr for PortMap {
    type Err = String;

    fn from_str(text: &str) -> Result<PortMap, String> {
        let bad = || {
            format!(
                "{text:?} is no port map; write EDGE:APP or EDGE:APP/udp, ports from 1 to 65535"
            )
        };
        let (ports, protocol) = match text.split_once('/') {
            None | Some((_, "tcp")) => (text.trim_end_matches("/tcp"), Protocol::Tcp),
            Some((ports, "udp")) => (ports, Protocol::Udp),
            Some(_) => return Err(bad()),
        };
        let (edge, app) = ports.split_once(':').ok_or_else(bad)?;
        let port = |p: &str| p.trim().parse::<u16>().ok().filter(|p| *p > 0).ok_or_else(bad);
        Ok(PortMap { edge: port(edge)?, app: port(app)?, protocol })
    }
}

impl fmt::Display for PortMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.edge, self.app)?;
        if self.protocol == Protocol::Udp { f.write_str("/udp") } else { Ok(()) }
    }
}

impl Serialize for PortMap {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PortMap {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        text_or_number(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A digest with or without `sha256:` in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HexDigest(pub Digest);

impl Serialize for HexDigest {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(s)
    }
}

impl<'de> Deserialize<'de> for HexDigest {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let digest = Digest::from_hex(text.strip_prefix("sha256:").unwrap_or(&text));
        digest.map(HexDigest).map_err(serde::de::Error::custom)
    }
}

/// A text, or a number that YAML made of it.
pub(super) fn text_or_number<'de, D: Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a text or a number")]
    enum Either {
        Text(String),
        Number(u64),
    }
    Ok(match Either::deserialize(d)? {
        Either::Text(text) => text,
        Either::Number(number) => number.to_string(),
    })
}

/// Texts by key, where a number or a truth value counts as its text.
pub(super) fn scalars<'de, D: Deserializer<'de>>(
    d: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a text, a number, true or false")]
    enum Scalar {
        Text(String),
        Truth(bool),
        Number(serde_json::Number),
    }
    let map = BTreeMap::<String, Scalar>::deserialize(d)?;
    let text = |s| match s {
        Scalar::Text(text) => text,
        Scalar::Truth(truth) => truth.to_string(),
        Scalar::Number(number) => number.to_string(),
    };
    Ok(map.into_iter().map(|(k, v)| (k, text(v))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_a_unit() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("512KiB", Some(512 << 10)),
            ("1 GiB", Some(1 << 30)),
            ("64M", Some(64 << 20)),
        ] {
            assert_eq!(text.parse::<Size>().ok().map(|s| s.0.0), bytes, "{text}");
        }
        for text in ["", "MiB", "1.5GiB", "-1", "99999999999TiB", "1GB/s"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn port_maps_are_read_and_written_alike() {
        for text in ["8080:80", "53:5353/udp"] {
            assert_eq!(text.parse::<PortMap>().unwrap().to_string(), text);
        }
        assert_eq!("1:2/tcp".parse::<PortMap>().unwrap().to_string(), "1:2");
        for text in ["80", "0:80", "80:0", "80:65536", "80:80/sctp", "a:b", "1:2:3"] {
            assert!(text.parse::<PortMap>().is_err(), "{text}");
        }
    }
}
