//! Where /persist comes from: made in the free part of the disk on the first boot, checked and
//! mounted on all others, and never made anew because it merely looks odd.
//!
//! A power cut may come between any two steps. What protects against it is the order: the partition
//! is entered into the table as *unfinished* ([`UNFINISHED`], an attribute bit of the partition), then
//! gets its file system, then loses the mark. Only what is unfinished, or all zero, is formatted;
//! nothing is ever mounted before the mark is gone, so an unfinished partition holds no data.

use model::{Bytes, Diagnose, Diagnosis, Who};

/// The attribute bit of the GPT that says "its file system is still being made". Bits 48 to 63 belong
/// to the partition's type (UEFI 2.10, table 5.8), and this type is ours.
pub const UNFINISHED: u64 = 1 << 60;

/// The attribute bit of CONFIG that says "P3 has a disk of its own". An installer sets it; without it
/// the node would make a P3 beside its slots, or take that of a foreign disk.
pub const ELSEWHERE: u64 = 1 << 61;

/// Less room than this is no place for apps.
pub const PERSIST_MIN: Bytes = Bytes::mib(64);

/// What was found on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The size of the slot we run from.
    pub slot: Bytes,
    /// Whether the other slot's partition is there.
    pub other_slot: bool,
    /// The partition for /persist.
    pub persist: Persist,
    /// The largest free piece of the disk.
    pub free: Bytes,
}

/// The partition for /persist, as found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Persist {
    /// Not in the table.
    Missing,
    /// In the table, with the mark [`UNFINISHED`].
    Unfinished,
    /// Without the mark, all zero where a file system or a volume manager would have left a trace.
    Blank,
    /// Without the mark, ext4.
    Ext4,
    /// Without the mark, something else; in words.
    Other(String),
}

/// A step towards /persist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Enter the other slot and the partition, unfinished, into the table: one write.
    AddPartitions,
    /// Mark the partition as unfinished.
    MarkUnfinished,
    /// Make the file system. Nothing of what was there is kept.
    Format,
    /// Take the mark away.
    MarkFinished,
    /// Check the file system, and repair what can be repaired without loss.
    Check,
    /// Mount it.
    Mount,
}

/// Why there is no /persist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is not enough room.
    #[error("the disk has {free} free, and the other slot and /persist need at least {need}")]
    NoRoom {
        /// The largest free piece.
        free: Bytes,
        /// What is needed.
        need: Bytes,
    },
    /// P3 has a disk of its own, and that is not there, or nobody knows which it is.
    #[error("P3 has a disk of its own, and {} disks have one", .disks.len())]
    Elsewhere {
        /// Those that have one.
        disks: Vec<String>,
    },
    /// There is something we did not write.
    #[error("the partition P3 holds {what}, which is no ext4 file system; it is left as it is")]
    Foreign {
        /// What was found.
        what: String,
    },
}

impl Diagnose for Refused {
    fn diagnose(&self) -> Diagnosis {
        match self {
            Refused::NoRoom { .. } => Diagnosis::of(Who::Hardware, "use a larger disk"),
            Refused::Elsewhere { disks } if disks.is_empty() => {
                Diagnosis::of(Who::Hardware, "attach the disk with P3, and boot again")
            }
            Refused::Elsewhere { disks } => {
                let disks = disks.join(", ");
                Diagnosis::of(Who::Hardware, format!("leave one of {disks}, and boot again"))
            }
            Refused::Foreign { .. } => Diagnosis::of(
                Who::Operator,
                "save what is on it, then write zeroes over its first and last 8 MiB or delete it \
                 from the partition table, and boot again",
            ),
        }
    }
}

/// The steps from what is to a mounted /persist.
pub fn plan(seen: &Seen) -> Result<Vec<Op>, Refused> {
    use Op::{AddPartitions, Check, Format, MarkFinished, MarkUnfinished, Mount};
    match &seen.persist {
        Persist::Missing => {
            let slot = if seen.other_slot { Bytes(0) } else { seen.slot };
            let need = Bytes(slot.0.saturating_add(PERSIST_MIN.0));
            if seen.free < need {
                return Err(Refused::NoRoom { free: seen.free, need });
            }
            Ok(vec![AddPartitions, Format, MarkFinished, Mount])
        }
        Persist::Unfinished => Ok(vec![Format, MarkFinished, Mount]),
        Persist::Blank => Ok(vec![MarkUnfinished, Format, MarkFinished, Mount]),
        Persist::Ext4 => Ok(vec![Check, Mount]),
        Persist::Other(what) => Err(Refused::Foreign { what: what.clone() }),
    }
}

/// The disk of P3, of those besides the boot disk that have a P3.
pub fn elsewhere(mut disks: Vec<String>) -> Result<String, Refused> {
    match disks.pop() {
        Some(disk) if disks.is_empty() => Ok(disk),
        last => Err(Refused::Elsewhere { disks: disks.into_iter().chain(last).collect() }),
    }
}

/// Names what stands at the start of a partition that is not ours, for the operator.
pub fn describe(head: &[u8]) -> &'static str {
    let at = |offset: usize, magic: &[u8]| head.get(offset..offset + magic.len()) == Some(magic);
    // Offsets and magics: libblkid's documentation of super blocks.
    if at(0, b"XFSB") {
        "an XFS file system"
    } else if at(0, b"LUKS\xba\xbe") {
        "an encrypted volume (LUKS)"
    } else if at(0x10040, b"_BHRfS_M") {
        "a btrfs file system"
    } else if at(0, b"hsqs") {
        "a squashfs image"
    } else if at(510, b"\x55\xaa") {
        "a boot record or a FAT file system"
    } else if at(512, b"LABELONE") {
        "an LVM volume"
    } else {
        "unknown data"
    }
}

/// Whether a partition begins with an ext4 superblock: its magic, at its place (Linux,
/// Documentation/filesystems/ext4/super.rst).
pub fn is_ext4(head: &[u8]) -> bool {
    head.get(1024 + 56..1024 + 58) == Some(&[0x53, 0xef])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk as far as it matters here, with a power switch.
    #[derive(Debug, Clone)]
    struct Disk {
        partition: bool,
        marked: bool,
        content: &'static str,
        writes_left: u32,
    }

    impl Disk {
        fn seen(&self) -> Seen {
            let persist = match (self.partition, self.marked, self.content) {
                (false, ..) => Persist::Missing,
                (true, true, _) => Persist::Unfinished,
                (true, false, "zero") => Persist::Blank,
                (true, false, "ext4" | "ext4 with data") => Persist::Ext4,
                (true, false, other) => Persist::Other(other.to_owned()),
            };
            let gib = Bytes::gib(1);
            Seen { slot: Bytes::mib(512), other_slot: self.partition, persist, free: gib }
        }

        /// `false`: power went, possibly half-way through.
        fn apply(&mut self, op: Op) -> bool {
            if matches!(op, Op::Mount | Op::Check) {
                assert!(!self.marked, "an unfinished file system is mounted");
                return true;
            }
            if self.writes_left == 0 {
                if op == Op::Format {
                    assert_ne!(self.content, "ext4 with data", "data is gone");
                    self.content = "half a file system";
                }
                return false;
            }
            self.writes_left -= 1;
            match op {
                Op::AddPartitions => (self.partition, self.marked) = (true, true),
                Op::MarkUnfinished => self.marked = true,
                Op::Format => {
                    assert_ne!(self.content, "ext4 with data", "data is gone");
                    self.content = "ext4";
                }
                Op::MarkFinished => self.marked = false,
                Op::Check | Op::Mount => {}
            }
            true
        }
    }

    /// Boots, loses power before or in the n-th write, boots again; for every n, on a disk whose
    /// free part holds `before`.
    #[track_caller]
    fn survives_every_cut(partition: bool, before: &'static str) {
        for cut in 0.. {
            let mut disk = Disk { partition, marked: false, content: before, writes_left: cut };
            let done = plan(&disk.seen()).unwrap().into_iter().all(|op| disk.apply(op));
            disk.writes_left = u32::MAX;
            let again = plan(&disk.seen()).unwrap_or_else(|e| panic!("cut {cut}: {e}"));
            assert!(again.into_iter().all(|op| disk.apply(op)), "cut {cut}");
            assert_eq!((disk.marked, &disk.content[..4]), (false, "ext4"), "cut {cut}");
            if done {
                return;
            }
        }
    }

    #[test]
    fn a_first_boot_may_lose_power_before_any_write() {
        survives_every_cut(false, "zero");
        survives_every_cut(false, "what an earlier system left in the free part");
        survives_every_cut(true, "zero");
    }

    #[test]
    fn data_is_never_formatted() {
        survives_every_cut(true, "ext4 with data");
    }

    #[test]
    fn what_is_not_ours_is_refused_and_named() {
        let mut disk =
            Disk { partition: true, marked: false, content: describe(b"XFSB"), writes_left: 0 };
        let refused = plan(&disk.seen()).unwrap_err();
        assert!(refused.to_string().contains("XFS"), "{refused}");
        disk.content = describe(&[1; 4096]);
        assert!(plan(&disk.seen()).unwrap_err().to_string().contains("unknown data"));
    }

    #[test]
    fn of_several_disks_with_a_p3_none_is_taken() {
        let names = |all: &[&str]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(elsewhere(names(&["sdb"])), Ok("sdb".to_owned()));
        for others in [&[][..], &["sdb", "sdc"]] {
            let disks = names(others);
            assert_eq!(elsewhere(disks.clone()), Err(Refused::Elsewhere { disks }));
        }
    }

    #[test]
    fn a_disk_without_room_is_refused() {
        let seen = Seen {
            slot: Bytes::mib(512),
            other_slot: false,
            persist: Persist::Missing,
            free: Bytes::mib(512),
        };
        assert!(matches!(plan(&seen), Err(Refused::NoRoom { .. })));
    }
}
