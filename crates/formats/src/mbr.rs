//! The master boot record in sector 0: what stands in front of a GPT for whoever does not know one.
//!
//! A *protective* record has one entry of type 0xEE over the whole disk. A *hybrid* one names a few
//! partitions for old firmware and Windows, and guards only the table itself. Either may carry the
//! first piece of a boot loader. Partition tables without a GPT are not made here.

use crate::field::{le32, put};

/// Bytes of a record.
pub const LENGTH: usize = 512;
/// Bytes in front of the entries: code, and the signature of the disk in its last six.
pub const CODE: usize = 446;

/// Guards a GPT.
const GUARD: u8 = 0xEE;
const ENTRIES: usize = 4;
const ENTRY: usize = 16;
const MARK: [u8; 2] = [0x55, 0xAA];
/// The geometry that tools agree on where a disk has none.
const HEADS: u32 = 255;
const PER_TRACK: u32 = 63;

/// A master boot record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mbr([u8; LENGTH]);

/// A partition as a master boot record says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Whether a BIOS boots it.
    pub active: bool,
    /// Type: 0x0C is FAT32, 0x07 what Windows shows, 0xEE guards a GPT.
    pub kind: u8,
    /// First sector.
    pub first: u32,
    /// How many sectors.
    pub sectors: u32,
}

impl Mbr {
    /// One entry over a disk of so many sectors.
    pub fn protective(sectors: u64) -> Mbr {
        let mut mbr = Mbr::empty();
        let sectors = guarded(sectors);
        mbr.put_entry(0, Entry { active: false, kind: GUARD, first: 1, sectors });
        // As the UEFI specification has it: "beyond counting", however small the disk.
        put(&mut mbr.0, CODE + 5, &[0xFF; 3]);
        mbr
    }

    /// These entries, at most three, then one that guards the sectors in front of the first
    /// partition.
    pub fn hybrid(entries: &[Entry]) -> Mbr {
        let mut mbr = Mbr::empty();
        let shown = entries.iter().take(ENTRIES - 1);
        let first = shown.clone().map(|e| e.first).min().unwrap_or(2);
        for (place, entry) in shown.clone().enumerate() {
            mbr.put_entry(place, *entry);
        }
        let guard = Entry { active: false, kind: GUARD, first: 1, sectors: first - 1 };
        mbr.put_entry(shown.len(), guard);
        mbr
    }

    /// A record that guards a GPT; `None` if these bytes are none.
    pub fn parse(sector: &[u8]) -> Option<Mbr> {
        let mbr = Mbr(*sector.first_chunk::<LENGTH>()?);
        let guards = mbr.entries().iter().any(|e| e.kind == GUARD);
        (mbr.0.ends_with(&MARK) && guards).then_some(mbr)
    }

    /// The entries that are used, in their order.
    pub fn entries(&self) -> Vec<Entry> {
        let entries = self.0[CODE..LENGTH - 2].chunks_exact(ENTRY);
        entries
            .filter(|e| e[4] != 0)
            .map(|e| Entry {
                active: e[0] & 0x80 != 0,
                kind: e[4],
                first: le32(e, 8).unwrap_or(0),
                sectors: le32(e, 12).unwrap_or(0),
            })
            .collect()
    }

    /// The same record with this code in front of its entries.
    pub fn with_code(mut self, code: &[u8; CODE]) -> Mbr {
        put(&mut self.0, 0, code);
        self
    }

    /// The same record on a disk of so many sectors: an entry that guards the whole disk grows with
    /// it.
    pub fn on(mut self, sectors: u64) -> Mbr {
        if let [Entry { kind: GUARD, .. }] = self.entries()[..] {
            let at = (CODE..LENGTH).step_by(ENTRY).find(|at| self.0[at + 4] == GUARD);
            put(&mut self.0, at.unwrap_or(CODE) + 12, &guarded(sectors).to_le_bytes());
        }
        self
    }

    /// As it stands in sector 0.
    pub fn bytes(&self) -> &[u8; LENGTH] {
        &self.0
    }

    fn empty() -> Mbr {
        let mut bytes = [0; LENGTH];
        put(&mut bytes, LENGTH - 2, &MARK);
        Mbr(bytes)
    }

    fn put_entry(&mut self, place: usize, entry: Entry) {
        let at = CODE + place * ENTRY;
        let last = entry.first.saturating_add(entry.sectors.saturating_sub(1));
        self.0[at] = if entry.active { 0x80 } else { 0 };
        put(&mut self.0, at + 1, &cylinder_head_sector(entry.first));
        self.0[at + 4] = entry.kind;
        put(&mut self.0, at + 5, &cylinder_head_sector(last));
        put(&mut self.0, at + 8, &entry.first.to_le_bytes());
        put(&mut self.0, at + 12, &entry.sectors.to_le_bytes());
    }
}

/// What a guard over the whole disk says: all but sector 0, as far as 32 bits count.
fn guarded(sectors: u64) -> u32 {
    u32::try_from(sectors.saturating_sub(1)).unwrap_or(u32::MAX)
}

/// The address that firmware of the last century used; beyond 8 GiB it stays at the end.
fn cylinder_head_sector(sector: u32) -> [u8; 3] {
    let cylinder = sector / (HEADS * PER_TRACK);
    if cylinder > 1023 {
        return [0xFE, 0xFF, 0xFF];
    }
    let head = sector / PER_TRACK % HEADS;
    let in_track = sector % PER_TRACK + 1;
    let [low, high, ..] = cylinder.to_le_bytes();
    let [head, ..] = head.to_le_bytes();
    let [in_track, ..] = in_track.to_le_bytes();
    [head, in_track | high << 6, low]
}
