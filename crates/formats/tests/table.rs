//! What a partition table promises to whoever changes one on a node.

use formats::gpt::{self, AddError, Attributes, Gpt, ParseError};
use formats::layout::{Profile, Role};
use model::{Bytes, Sector512};

fn head(table: &Gpt) -> Vec<u8> {
    let extents = table.to_extents();
    [&extents[2].bytes[..], &extents[1].bytes[..]].concat()
}

#[test]
fn ab_states_have_the_bits_of_the_reference() {
    for (state, bits) in [
        (Attributes::ACTIVE, 0x102),
        (Attributes::slot(3, 1, false), 0x13), // the next boot tries it once
        (Attributes::slot(3, 0, false), 0x3),  // its one try is under way
        (Attributes::NONE, 0),
    ] {
        assert_eq!(state.0 >> 48, bits);
    }
    let odd = Attributes::slot(7, 12, false);
    assert_eq!((odd.priority(), odd.tries(), odd.successful()), (7, 12, false));
}

#[test]
fn a_cut_between_any_two_writes_leaves_a_whole_table() {
    let old = Profile::SMALL.live().unwrap();
    let size = Bytes::gib(2);
    let mut new = Gpt::parse(&head(&old), size).unwrap();
    new.add_in_largest_gap(9, Role::Persist.partition(), None).unwrap();
    let mut disk = vec![0; usize::try_from(size.0).unwrap()];
    let apply = |disk: &mut Vec<u8>, extent: &formats::Extent<'_>| {
        let at = usize::try_from(extent.at).unwrap();
        disk[at..at + extent.bytes.len()].copy_from_slice(&extent.bytes);
    };
    old.to_extents().iter().for_each(|e| apply(&mut disk, e));
    let mut seen = Vec::new();
    for extent in &new.to_extents() {
        // Torn in the middle, then whole.
        let half = formats::Extent {
            at: extent.at,
            bytes: extent.bytes[..1100.min(extent.bytes.len() / 2)].into(),
        };
        for written in [&half, extent] {
            apply(&mut disk, written);
            let tail = &disk[disk.len() - usize::try_from(gpt::TAIL.0).unwrap()..];
            let table = Gpt::parse(&disk, size).or_else(|_| Gpt::parse_backup(tail, size)).unwrap();
            seen.push(table.partitions().len());
        }
    }
    assert_eq!(seen, [3, 3, 4, 4, 4, 4]);
}

#[test]
fn a_disk_that_shrank_is_refused() {
    let table = Profile::SMALL.live().unwrap();
    let smaller = Bytes(table.size().0 - 512);
    let refused = Gpt::parse(&head(&table), smaller);
    assert!(matches!(refused, Err(ParseError::Header { field: "last usable sector", .. })));
}

#[test]
fn partitions_may_not_meet_nor_leave_the_disk() {
    let mut table = Profile::SMALL.live().unwrap();
    let at = |first, last| gpt::Partition {
        first: Sector512(first),
        last: Sector512(last),
        ..Role::Persist.partition()
    };
    assert_eq!(table.add(9, at(133_000, 140_000)), Err(AddError::Overlap(1)));
    assert_eq!(table.add(1, at(1_191_936, 1_191_937)), Err(AddError::Taken(1)));
    assert_eq!(table.add(129, at(1_191_936, 1_191_937)), Err(AddError::Number(129)));
    assert!(matches!(table.add(9, at(33, 40)), Err(AddError::Outside { .. })));
    assert!(matches!(table.add(9, at(5000, 4000)), Err(AddError::Outside { .. })));
    let much = table.add_in_largest_gap(9, Role::Persist.partition(), Some(Bytes::gib(1)));
    assert!(matches!(much, Err(AddError::Full { .. })), "{much:?}");
}

proptest::proptest! {
    #[test]
    fn damage_never_panics_and_is_found(at in 512usize..17_408, byte: u8) {
        let table = Profile::SMALL.live().unwrap();
        let mut bytes = head(&table);
        let same = bytes[at] == byte;
        bytes[at] = byte;
        // The rest of the header's sector is covered by no checksum.
        let covered = !(512 + 92..1024).contains(&at);
        proptest::prop_assert_eq!(Gpt::parse(&bytes, table.size()).is_ok(), same || !covered);
    }
}
