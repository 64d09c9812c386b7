//! The GUID partition table (UEFI specification 2.10, chapter 5): protective MBR, primary and
//! backup table, and EVE's A/B bits.
//!
//! Only tables of 128 entries of 128 bytes on sectors of 512 bytes, as every tool makes them; no
//! other sector size. What stands in sector 0 in front of the table belongs to it ([`Mbr`]) and is
//! kept when a table is read and written back.

use std::collections::BTreeMap;

use model::{Bytes, Sector512};
use uuid::Uuid;

use crate::Extent;
use crate::field::{le32, le64, put, take};
use crate::mbr::Mbr;

/// What [`Gpt::parse`] needs: protective MBR, header and entries at the start of the disk.
pub const HEAD: Bytes = Sector512(2 + ENTRY_SECTORS).bytes();
/// What [`Gpt::parse_backup`] needs: entries and header at the end of the disk.
pub const TAIL: Bytes = Sector512(1 + ENTRY_SECTORS).bytes();
/// Partitions start at multiples of this many sectors (1 MiB).
pub const ALIGNMENT: u64 = 2048;

const SECTOR: usize = 512;
const ENTRIES: u32 = 128;
const ENTRY_LENGTH: u32 = 128;
const ENTRY: usize = ENTRY_LENGTH as usize;
const ENTRY_SECTORS: u64 = 32;
const TABLE: usize = ENTRY * ENTRIES as usize;
const SIGNATURE: &[u8; 8] = b"EFI PART";
const REVISION: u32 = 0x0001_0000;
const HEADER_LENGTH: u32 = 92;
/// UTF-16 units in a partition's name.
const NAME_UNITS: usize = 36;

/// A partition table, and the disk it stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpt {
    disk: Uuid,
    sectors: u64,
    mbr: Mbr,
    partitions: BTreeMap<u32, Partition>,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Type GUID: what it is for.
    pub kind: Uuid,
    /// Its own GUID.
    pub id: Uuid,
    /// First sector.
    pub first: Sector512,
    /// Last sector; it belongs to the partition.
    pub last: Sector512,
    /// Attribute bits.
    pub attributes: Attributes,
    /// At most 36 UTF-16 units.
    pub name: String,
}

impl Partition {
    /// Where it starts, in bytes.
    pub fn offset(&self) -> Bytes {
        self.first.bytes()
    }

    /// How long it is.
    pub fn length(&self) -> Bytes {
        Sector512(self.last.0 - self.first.0 + 1).bytes()
    }
}

/// A partition's attribute bits. The upper 16 carry the state of an A/B slot: priority (4 bits),
/// tries left (4 bits), successful (1 bit).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes(pub u64);

impl Attributes {
    /// Nothing set; as an A/B state: not to be booted.
    pub const NONE: Attributes = Attributes(0);
    /// Legacy BIOS bootable.
    pub const LEGACY_BOOT: Attributes = Attributes(1 << 2);
    /// The slot that runs and is known to work.
    pub const ACTIVE: Attributes = Attributes::slot(2, 0, true);

    /// An A/B state. `priority` and `tries` up to 15; higher bits are dropped.
    pub const fn slot(priority: u8, tries: u8, successful: bool) -> Attributes {
        let state = (priority & 15) as u64 | ((tries & 15) as u64) << 4 | (successful as u64) << 8;
        Attributes(state << 48)
    }

    /// 0 to 15; the higher one boots.
    pub const fn priority(self) -> u8 {
        (self.0 >> 48 & 15) as u8
    }

    /// 0 to 15.
    pub const fn tries(self) -> u8 {
        (self.0 >> 52 & 15) as u8
    }

    /// Whether it ever proved itself.
    pub const fn successful(self) -> bool {
        self.0 >> 56 & 1 == 1
    }
}

/// Why bytes are no partition table that we take.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Fewer bytes than a table takes.
    #[error("a partition table takes {need}, got {got}")]
    Short {
        /// So many.
        need: Bytes,
        /// But so many came.
        got: Bytes,
    },
    /// There is no table at all.
    #[error("there is no GPT signature")]
    Signature,
    /// A checksum does not fit.
    #[error("the checksum of the GPT {what} is wrong")]
    Checksum {
        /// Header or entries.
        what: &'static str,
    },
    /// A value that we do not take.
    #[error("the GPT header field {field} is {value}")]
    Header {
        /// Which.
        field: &'static str,
        /// What it says.
        value: u64,
    },
    /// A partition that cannot be.
    #[error("partition {number} of the GPT")]
    Partition {
        /// Its number, from 1.
        number: u32,
        /// What is wrong with it.
        source: AddError,
    },
}

/// Why a partition does not fit into a table.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// Not 1 to 128.
    #[error("a partition number is 1 to 128, not {0}")]
    Number(u32),
    /// The number is taken.
    #[error("partition {0} exists already")]
    Taken(u32),
    /// It ends before it starts, or leaves the disk.
    #[error("sectors {first} to {last} do not lie in {from} to {to}")]
    Outside {
        /// First sector.
        first: u64,
        /// Last sector.
        last: u64,
        /// First sector that may be used.
        from: u64,
        /// Last sector that may be used.
        to: u64,
    },
    /// It shares sectors with another.
    #[error("it shares sectors with partition {0}")]
    Overlap(u32),
    /// The name has more than 36 UTF-16 units or a zero inside.
    #[error("the name {0:?} does not fit")]
    Name(String),
    /// There is not so much free in one piece.
    #[error("{need} are needed in one piece, the largest free one has {have}")]
    Full {
        /// Asked for.
        need: Bytes,
        /// The largest gap.
        have: Bytes,
    },
    /// The disk is too small to hold any table.
    #[error("a disk of {0} has no room for a partition table")]
    Disk(Bytes),
}

impl Gpt {
    /// An empty table. An odd rest of a sector at the end of the disk is not used.
    pub fn new(disk: Uuid, size: Bytes) -> Result<Gpt, AddError> {
        let sectors = size.0 / 512;
        // Both tables, the MBR, and at least one sector between.
        if sectors < 2 * (ENTRY_SECTORS + 1) + 2 {
            return Err(AddError::Disk(size));
        }
        Ok(Gpt { disk, sectors, mbr: Mbr::protective(sectors), partitions: BTreeMap::new() })
    }

    /// Reads the primary table. `head` holds at least the first [`HEAD`] bytes of the disk, `size`
    /// is the disk's size now: it may have grown since the table was written, and the table then
    /// has the new room free and moves its backup when it is written.
    pub fn parse(head: &[u8], size: Bytes) -> Result<Gpt, ParseError> {
        let head = bounded(head, HEAD)?;
        let table = Gpt::from_table(&head[SECTOR..2 * SECTOR], 1, &head[2 * SECTOR..], 2, size)?;
        Ok(table.guarded_by(Mbr::parse(head)))
    }

    /// Reads the backup table from the last [`TAIL`] bytes of the disk: what is left when power
    /// went while the primary was being written. What stood in sector 0 is not known from there:
    /// see [`Gpt::guarded_by`].
    pub fn parse_backup(tail: &[u8], size: Bytes) -> Result<Gpt, ParseError> {
        let tail = bounded(tail, TAIL)?;
        let last = (size.0 / 512).saturating_sub(1);
        let entries = last.saturating_sub(ENTRY_SECTORS);
        Gpt::from_table(&tail[TABLE..], last, &tail[..TABLE], entries, size)
    }

    fn from_table(
        header: &[u8],
        own_lba: u64,
        entries: &[u8],
        entries_lba: u64,
        size: Bytes,
    ) -> Result<Gpt, ParseError> {
        if !header.starts_with(SIGNATURE) {
            return Err(ParseError::Signature);
        }
        let short = || ParseError::Short { need: HEAD, got: Bytes(header.len() as u64) };
        let word = |at| le32(header, at).ok_or_else(short);
        let long = |at| le64(header, at).ok_or_else(short);

        let length = word(12)?;
        let covered =
            usize::try_from(length).ok().filter(|n| (HEADER_LENGTH as usize..=SECTOR).contains(n));
        let Some(covered) = covered else {
            return Err(ParseError::Header { field: "length", value: length.into() });
        };
        let mut summed = header[..covered].to_vec();
        summed[16..20].fill(0);
        if crc32fast::hash(&summed) != word(16)? {
            return Err(ParseError::Checksum { what: "header" });
        }
        let expect = |field, value: u64, want: u64| {
            if value == want { Ok(()) } else { Err(ParseError::Header { field, value }) }
        };
        expect("revision", word(8)?.into(), REVISION.into())?;
        expect("own sector", long(24)?, own_lba)?;
        expect("sector of the entries", long(72)?, entries_lba)?;
        expect("number of entries", word(80)?.into(), ENTRIES.into())?;
        expect("length of an entry", word(84)?.into(), ENTRY_LENGTH.into())?;
        if crc32fast::hash(entries) != word(88)? {
            return Err(ParseError::Checksum { what: "entries" });
        }
        let sum = |source| ParseError::Partition { number: 0, source };
        let disk = Uuid::from_bytes_le(take(header, 56).ok_or_else(short)?);
        let mut table = Gpt::new(disk, size).map_err(sum)?;
        // A disk that shrank has lost data; nothing may be written to it.
        let last_usable = long(48)?;
        if last_usable > table.usable().1 {
            return Err(ParseError::Header { field: "last usable sector", value: last_usable });
        }
        for (number, entry) in (1..).zip(entries.chunks_exact(ENTRY)) {
            if let Some(partition) = read_entry(entry) {
                table
                    .add(number, partition)
                    .map_err(|source| ParseError::Partition { number, source })?;
            }
        }
        Ok(table)
    }

    /// The same table behind this record, as it is on a disk of this size. `None` leaves the one
    /// that it has; a new table has a protective one.
    pub fn guarded_by(mut self, mbr: Option<Mbr>) -> Gpt {
        if let Some(mbr) = mbr {
            self.mbr = mbr.on(self.sectors);
        }
        self
    }

    /// The record in sector 0.
    pub fn mbr(&self) -> &Mbr {
        &self.mbr
    }

    /// The disk's GUID.
    pub fn disk(&self) -> Uuid {
        self.disk
    }

    /// The disk's size, in whole sectors.
    pub fn size(&self) -> Bytes {
        Sector512(self.sectors).bytes()
    }

    /// Partitions by number.
    pub fn partitions(&self) -> &BTreeMap<u32, Partition> {
        &self.partitions
    }

    /// The partition of this name; the lowest number if there are several.
    pub fn by_name(&self, name: &str) -> Option<(u32, &Partition)> {
        self.partitions.iter().find(|(_, p)| p.name == name).map(|(n, p)| (*n, p))
    }

    /// The first and the last sector that partitions may use.
    pub fn usable(&self) -> (u64, u64) {
        (2 + ENTRY_SECTORS, self.sectors - ENTRY_SECTORS - 2)
    }

    /// Changes a partition's attribute bits; returns those it had, `None` if there is no such
    /// partition.
    pub fn set_attributes(&mut self, number: u32, attributes: Attributes) -> Option<Attributes> {
        let partition = self.partitions.get_mut(&number)?;
        Some(std::mem::replace(&mut partition.attributes, attributes))
    }

    /// Adds a partition where it says.
    pub fn add(&mut self, number: u32, partition: Partition) -> Result<(), AddError> {
        if !(1..=ENTRIES).contains(&number) {
            return Err(AddError::Number(number));
        }
        if self.partitions.contains_key(&number) {
            return Err(AddError::Taken(number));
        }
        let (first, last) = (partition.first.0, partition.last.0);
        let (from, to) = self.usable();
        if first > last || first < from || last > to {
            return Err(AddError::Outside { first, last, from, to });
        }
        let shares = |other: &Partition| first <= other.last.0 && other.first.0 <= last;
        if let Some((other, _)) = self.partitions.iter().find(|(_, p)| shares(p)) {
            return Err(AddError::Overlap(*other));
        }
        let units = partition.name.encode_utf16().count();
        if units > NAME_UNITS || partition.name.contains('\0') {
            return Err(AddError::Name(partition.name));
        }
        self.partitions.insert(number, partition);
        Ok(())
    }

    /// Adds a partition of `length` (`None`: as much as there is) at the start of the largest free
    /// gap, aligned to [`ALIGNMENT`]. `partition` says all but the place.
    pub fn add_in_largest_gap(
        &mut self,
        number: u32,
        partition: Partition,
        length: Option<Bytes>,
    ) -> Result<&Partition, AddError> {
        let (first, last) = self.largest_gap();
        let have = Sector512((last + 1).saturating_sub(first)).bytes();
        let need = length.unwrap_or(have);
        let sectors = need.0.div_ceil(512);
        if sectors == 0 || need > have {
            return Err(AddError::Full { need, have });
        }
        let last = Sector512(first + sectors - 1);
        self.add(number, Partition { first: Sector512(first), last, ..partition })?;
        Ok(&self.partitions[&number])
    }

    /// First and last sector of the largest free piece, its start aligned; the first of equals.
    /// Empty (last before first) if the disk is full.
    fn largest_gap(&self) -> (u64, u64) {
        let (from, to) = self.usable();
        let mut taken: Vec<_> = self.partitions.values().map(|p| (p.first.0, p.last.0)).collect();
        taken.sort_unstable();
        taken.push((to + 1, to + 1));
        let mut best = (from, from - 1);
        let mut free = from;
        for (first, last) in taken {
            let aligned = free.next_multiple_of(ALIGNMENT);
            if first > aligned && first - aligned > (best.1 + 1) - best.0 {
                best = (aligned, first - 1);
            }
            free = last + 1;
        }
        best
    }

    /// The table as bytes, in an order that survives a power cut between any two writes: the whole
    /// backup, then the primary's entries, then sector 0 and the primary header. Sync after each.
    pub fn to_extents(&self) -> Vec<Extent<'static>> {
        let entries = self.entries();
        let last = self.sectors - 1;
        let mut backup = entries.clone();
        backup.extend(self.header(&entries, last, 1, last - ENTRY_SECTORS));
        let mut start = self.mbr.bytes().to_vec();
        start.extend(self.header(&entries, 1, last, 2));
        let at = |lba: u64, bytes: Vec<u8>| Extent { at: lba * 512, bytes: bytes.into() };
        vec![at(last - ENTRY_SECTORS, backup), at(2, entries), at(0, start)]
    }

    fn entries(&self) -> Vec<u8> {
        let mut table = vec![0; TABLE];
        for (number, partition) in &self.partitions {
            let entry = &mut table[(*number as usize - 1) * ENTRY..][..ENTRY];
            put(entry, 0, &partition.kind.to_bytes_le());
            put(entry, 16, &partition.id.to_bytes_le());
            put(entry, 32, &partition.first.0.to_le_bytes());
            put(entry, 40, &partition.last.0.to_le_bytes());
            put(entry, 48, &partition.attributes.0.to_le_bytes());
            for (place, unit) in entry[56..].chunks_exact_mut(2).zip(partition.name.encode_utf16())
            {
                place.copy_from_slice(&unit.to_le_bytes());
            }
        }
        table
    }

    fn header(&self, entries: &[u8], own: u64, other: u64, entries_at: u64) -> Vec<u8> {
        let (from, to) = self.usable();
        let mut header = vec![0; SECTOR];
        put(&mut header, 0, SIGNATURE);
        put(&mut header, 8, &REVISION.to_le_bytes());
        put(&mut header, 12, &HEADER_LENGTH.to_le_bytes());
        put(&mut header, 24, &own.to_le_bytes());
        put(&mut header, 32, &other.to_le_bytes());
        put(&mut header, 40, &from.to_le_bytes());
        put(&mut header, 48, &to.to_le_bytes());
        put(&mut header, 56, &self.disk.to_bytes_le());
        put(&mut header, 72, &entries_at.to_le_bytes());
        put(&mut header, 80, &ENTRIES.to_le_bytes());
        put(&mut header, 84, &ENTRY_LENGTH.to_le_bytes());
        put(&mut header, 88, &crc32fast::hash(entries).to_le_bytes());
        let sum = crc32fast::hash(&header[..HEADER_LENGTH as usize]);
        put(&mut header, 16, &sum.to_le_bytes());
        header
    }
}

fn bounded(bytes: &[u8], need: Bytes) -> Result<&[u8], ParseError> {
    usize::try_from(need.0)
        .ok()
        .and_then(|n| bytes.get(..n))
        .ok_or(ParseError::Short { need, got: Bytes(bytes.len() as u64) })
}

/// `None` if the entry is unused.
fn read_entry(entry: &[u8]) -> Option<Partition> {
    let kind = Uuid::from_bytes_le(take(entry, 0)?);
    let units = entry.get(56..ENTRY)?.chunks_exact(2).map(|u| u16::from_le_bytes([u[0], u[1]]));
    let units: Vec<u16> = units.take_while(|u| *u != 0).collect();
    (!kind.is_nil()).then_some(Partition {
        kind,
        id: Uuid::from_bytes_le(take(entry, 16)?),
        first: Sector512(le64(entry, 32)?),
        last: Sector512(le64(entry, 40)?),
        attributes: Attributes(le64(entry, 48)?),
        name: String::from_utf16_lossy(&units),
    })
}
