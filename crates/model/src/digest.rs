//! SHA-256 digests, as OCI writes them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A SHA-256 digest. Printed as `sha256:` and 64 lower-case hexadecimal digits
/// (OCI image spec, descriptor.md).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

/// Why a text is no digest.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// Another algorithm than sha256.
    #[error("{0:?} is not a sha256 digest")]
    Algorithm(String),
    /// Not 64 hexadecimal digits.
    #[error("{0:?} is not 64 hexadecimal digits")]
    Hex(String),
}

impl Digest {
    /// The 64 digits without the algorithm.
    pub fn hex(&self) -> String {
        self.0.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// Reads 64 hexadecimal digits, of either case, without an algorithm in front.
    pub fn from_hex(hex: &str) -> Result<Digest, DigestError> {
        let bad = || DigestError::Hex(hex.chars().take(80).collect());
        if hex.len() != 64 || !hex.is_ascii() {
            return Err(bad());
        }
        let mut raw = [0; 32];
        for (byte, at) in raw.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&hex[at..at + 2], 16).map_err(|_| bad())?;
        }
        // from_str_radix takes a sign; a digest has none.
        if hex.contains(['+', '-']) { Err(bad()) } else { Ok(Digest(raw)) }
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(s: &str) -> Result<Self, DigestError> {
        match s.split_once(':') {
            Some(("sha256", hex)) => Digest::from_hex(hex),
            _ => Err(DigestError::Algorithm(s.chars().take(80).collect())),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_what_it_reads() {
        let text = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(text.parse::<Digest>().unwrap().to_string(), text);
    }

    #[test]
    fn refuses_what_is_none() {
        for bad in ["", "sha256:", "sha512:00", "sha256:zz", &format!("sha256:{}", "+f".repeat(32))]
        {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
