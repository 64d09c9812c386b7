//! The start of an image while it is read: what is missing or wrong is told with its format.

use std::io::{Read, Seek};

use model::Bytes;

use super::{Error, Format, HeaderError};
use crate::field::{le16, le32, le64};

/// The bytes of a header.
#[derive(Clone, Copy)]
pub(crate) struct Head<'a> {
    format: Format,
    bytes: &'a [u8],
}

impl<'a> Head<'a> {
    /// The first `need` bytes of an image.
    pub(crate) fn new(
        format: Format,
        bytes: &'a [u8],
        need: usize,
    ) -> Result<Head<'a>, HeaderError> {
        let got = Bytes(bytes.len() as u64);
        let short = HeaderError::Short { format, need: Bytes(need as u64), got };
        bytes.get(..need).map(|bytes| Head { format, bytes }).ok_or(short)
    }

    /// All of them.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// A number of 16 bits.
    pub(crate) fn half(&self, at: usize) -> Result<u16, HeaderError> {
        le16(self.bytes, at).ok_or_else(|| self.ends(at + 2))
    }

    /// A number of 32 bits.
    pub(crate) fn word(&self, at: usize) -> Result<u32, HeaderError> {
        le32(self.bytes, at).ok_or_else(|| self.ends(at + 4))
    }

    /// A number of 64 bits.
    pub(crate) fn long(&self, at: usize) -> Result<u64, HeaderError> {
        le64(self.bytes, at).ok_or_else(|| self.ends(at + 8))
    }

    /// Refuses a value that is not good.
    pub(crate) fn check(
        &self,
        field: &'static str,
        value: impl Into<u64>,
        good: bool,
    ) -> Result<(), HeaderError> {
        let bad = HeaderError::Field { format: self.format, field, value: value.into() };
        if good { Ok(()) } else { Err(bad) }
    }

    fn ends(&self, need: usize) -> HeaderError {
        let (need, got) = (Bytes(need as u64), Bytes(self.bytes.len() as u64));
        HeaderError::Short { format: self.format, need, got }
    }
}

/// At most `need` bytes from the start of an image.
pub(crate) fn read_head<F: Read + Seek>(
    file: &mut F,
    format: Format,
    need: usize,
) -> Result<Vec<u8>, Error> {
    let mut head = Vec::new();
    let read = Error::read(format, 0);
    file.rewind().map_err(&read)?;
    file.by_ref().take(need as u64).read_to_end(&mut head).map_err(&read)?;
    Ok(head)
}
