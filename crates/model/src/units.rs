//! Numbers with a unit.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A size in bytes.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Bytes(pub u64);

/// A position or length in sectors of 512 bytes. A disk with larger sectors needs another type.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Sector512(pub u64);

impl Bytes {
    /// `n` KiB.
    pub const fn kib(n: u64) -> Bytes {
        Bytes(n << 10)
    }

    /// `n` MiB.
    pub const fn mib(n: u64) -> Bytes {
        Bytes(n << 20)
    }

    /// `n` GiB.
    pub const fn gib(n: u64) -> Bytes {
        Bytes(n << 30)
    }

    /// `None` if this is not a whole number of sectors.
    pub const fn to_sectors(self) -> Option<Sector512> {
        if self.0.is_multiple_of(512) { Some(Sector512(self.0 / 512)) } else { None }
    }

    /// The next multiple of `step`.
    pub const fn round_up(self, step: Bytes) -> Bytes {
        Bytes(self.0.next_multiple_of(step.0))
    }
}

impl Sector512 {
    /// As bytes.
    pub const fn bytes(self) -> Bytes {
        Bytes(self.0 * 512)
    }
}

/// With one decimal in the largest fitting binary unit: `12.5 MiB`.
impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, shift) = match self.0 {
            0..1024 => return write!(f, "{} B", self.0),
            1024..0x10_0000 => ("KiB", 10),
            0x10_0000..0x4000_0000 => ("MiB", 20),
            _ => ("GiB", 30),
        };
        let tenths = (u128::from(self.0) * 10) >> shift;
        write!(f, "{}.{} {unit}", tenths / 10, tenths % 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well() {
        for (bytes, text) in
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (64 << 20, "64.0 MiB")]
        {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }
}
