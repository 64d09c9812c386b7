//! Extended attributes: each set of them once, named by its number.

use std::collections::{BTreeMap, HashMap};

use super::meta::{Stream, Table};
use super::number::{NONE, XATTR_PREFIXES};
use super::pack::{PackError, Packer};
use super::write::WriteError;
use crate::tree::{Meta, show};

/// The longest value: Linux's `XATTR_SIZE_MAX`.
const VALUE_MAX: usize = 65_536;

type Set = BTreeMap<Vec<u8>, Vec<u8>>;

/// The sets of a tree.
#[derive(Debug, Default)]
pub(super) struct Xattrs<'t> {
    sets: Vec<&'t Set>,
    known: HashMap<&'t Set, u32>,
}

impl<'t> Xattrs<'t> {
    /// The number of a node's set. `None` if it has none.
    pub(super) fn number(
        &mut self,
        path: &[u8],
        meta: &'t Meta,
    ) -> Result<Option<u32>, WriteError> {
        let set = &meta.xattrs;
        if set.is_empty() {
            return Ok(None);
        }
        if let Some(number) = self.known.get(set) {
            return Ok(Some(*number));
        }
        for (name, value) in set {
            if split(name).is_none() {
                let what = format!("has the extended attribute {:?}", show(name));
                return Err(WriteError::node(path, what));
            }
            if value.len() > VALUE_MAX {
                let what = format!("has more than {VALUE_MAX} bytes in {:?}", show(name));
                return Err(WriteError::node(path, what));
            }
        }
        let number = u32::try_from(self.sets.len()).map_err(|_| PackError::Metadata)?;
        self.sets.push(set);
        self.known.insert(set, number);
        Ok(Some(number))
    }

    /// The tables as they stand in the image from `base`, and where the last one starts.
    pub(super) fn finish(
        self,
        base: u64,
        packer: &mut Packer,
    ) -> Result<(Vec<u8>, u64), PackError> {
        if self.sets.is_empty() {
            return Ok((Vec::new(), NONE));
        }
        let (mut values, mut sets) = (Stream::default(), Stream::default());
        for set in &self.sets {
            let place = values.place()?.reference();
            let mut bytes = Vec::new();
            for (name, value) in *set {
                let Some((prefix, rest)) = split(name) else { continue };
                let (rest_length, length) = (half(rest.len())?, word(value.len())?);
                bytes.extend(prefix.to_le_bytes());
                bytes.extend(rest_length.to_le_bytes());
                bytes.extend_from_slice(rest);
                bytes.extend(length.to_le_bytes());
                bytes.extend_from_slice(value);
            }
            values.push(&bytes, packer)?;
            sets.push(&place.to_le_bytes(), packer)?;
            sets.push(&word(set.len())?.to_le_bytes(), packer)?;
            sets.push(&word(bytes.len())?.to_le_bytes(), packer)?;
        }
        let (values, sets) = (values.finish(packer)?, sets.finish(packer)?);
        Ok(assemble(base, &values, &sets, word(self.sets.len())?))
    }
}

fn assemble(base: u64, values: &Table, sets: &Table, count: u32) -> (Vec<u8>, u64) {
    let sets_at = base + values.bytes.len() as u64;
    let head_at = sets_at + sets.bytes.len() as u64;
    let mut head = base.to_le_bytes().to_vec();
    head.extend(count.to_le_bytes());
    head.extend([0; 4]);
    ([&values.bytes[..], &sets.bytes, &head, &sets.index(sets_at)].concat(), head_at)
}

/// The number of a name's prefix, and the rest of the name.
fn split(name: &[u8]) -> Option<(u16, &[u8])> {
    let prefixes = (0u16..).zip(XATTR_PREFIXES);
    let mut found =
        prefixes.filter_map(|(number, prefix)| Some((number, name.strip_prefix(prefix)?)));
    found.next().filter(|(_, rest)| !rest.is_empty() && rest.len() < 256)
}

fn half(n: usize) -> Result<u16, PackError> {
    u16::try_from(n).map_err(|_| PackError::Metadata)
}

fn word(n: usize) -> Result<u32, PackError> {
    u32::try_from(n).map_err(|_| PackError::Metadata)
}
