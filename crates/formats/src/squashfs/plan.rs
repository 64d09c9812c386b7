//! Which block holds what: decided from sizes and digests alone, before anything is read.
//!
//! Files as large as a block or larger get blocks of their own. Smaller ones share fragment blocks,
//! in groups along the order of the tree. A group ends when the next file does not fit, or, once it
//! is half full, behind a file whose digest says so: after a change, groups soon end at the same
//! files as before, and the blocks of all later groups are as they were.

use std::collections::HashMap;

use model::Digest;

/// What is known of a file's content.
#[derive(Debug, Clone, Copy)]
pub(super) struct About {
    pub size: u64,
    /// Known for all that are smaller than a block or as large as another file.
    pub digest: Option<Digest>,
}

/// What is written, one after the other.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// The blocks of this file.
    Blocks(usize),
    /// One block with these files.
    Group(Vec<usize>),
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub units: Vec<Unit>,
    /// For each file the earlier one that has the same content.
    pub same: Vec<Option<usize>>,
}

/// How many files are as large as this one.
pub(super) fn sizes(files: impl Iterator<Item = u64>) -> HashMap<u64, usize> {
    let mut count = HashMap::new();
    files.for_each(|size| *count.entry(size).or_default() += 1);
    count
}

pub(super) fn plan(files: &[About], block: u64) -> Plan {
    let mut plan = Plan::default();
    let mut first: HashMap<(u64, Digest), usize> = HashMap::new();
    let (mut group, mut filled) = (Vec::new(), 0);
    for (at, file) in files.iter().enumerate() {
        let known = file.digest.filter(|_| file.size > 0);
        let same = known.map(|digest| *first.entry((file.size, digest)).or_insert(at));
        let same = same.filter(|first| *first != at);
        plan.same.push(same);
        if same.is_some() || file.size == 0 {
            continue;
        }
        if file.size >= block {
            plan.units.push(Unit::Blocks(at));
            continue;
        }
        if filled + file.size > block {
            plan.units.push(Unit::Group(std::mem::take(&mut group)));
            filled = 0;
        }
        group.push(at);
        filled += file.size;
        if filled >= block / 2 && file.digest.is_some_and(|digest| ends_a_group(&digest)) {
            plan.units.push(Unit::Group(std::mem::take(&mut group)));
            filled = 0;
        }
    }
    if !group.is_empty() {
        plan.units.push(Unit::Group(group));
    }
    plan
}

/// One file in eight: rare enough for full groups, frequent enough for groups to fall in step.
fn ends_a_group(digest: &Digest) -> bool {
    digest.0[0].is_multiple_of(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: u64 = 131_072;

    fn about(name: usize, size: u64) -> About {
        let mut digest = [0; 32];
        // Any spread will do: the golden ratio's.
        let spread = (name as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        digest[..8].copy_from_slice(&spread.to_be_bytes());
        About { size, digest: Some(Digest(digest)) }
    }

    fn small(count: usize) -> Vec<About> {
        (0..count).map(|n| about(n, 500 + (n as u64 * 7919) % 9000)).collect()
    }

    fn groups(files: &[About]) -> Vec<Vec<[u8; 32]>> {
        let digest = |at: &usize| files[*at].digest.unwrap().0;
        let units = plan(files, BLOCK).units.into_iter();
        let groups = units.filter_map(|unit| match unit {
            Unit::Group(members) => Some(members.iter().map(digest).collect()),
            Unit::Blocks(_) => None,
        });
        groups.collect()
    }

    #[test]
    fn one_changed_file_disturbs_few_groups() {
        let before = small(5000);
        for changed in [0, 777, 2500, 4999] {
            let mut after = before.clone();
            after[changed] = about(9_999, 8000);
            let old = groups(&before);
            let new = groups(&after);
            let fresh = new.iter().filter(|group| !old.contains(group)).count();
            assert!((1..=8).contains(&fresh), "{fresh} of {} for {changed}", new.len());
        }
    }

    #[test]
    fn groups_are_well_filled_and_never_too_full() {
        let files = small(5000);
        let all: u64 = files.iter().map(|f| f.size).sum();
        let units = plan(&files, BLOCK).units;
        let mut members: Vec<usize> = Vec::new();
        for unit in &units {
            let Unit::Group(group) = unit else { panic!("{unit:?}") };
            assert!(group.iter().map(|at| files[*at].size).sum::<u64>() <= BLOCK);
            members.extend(group);
        }
        assert_eq!(members, (0..files.len()).collect::<Vec<_>>());
        let least = usize::try_from(all / BLOCK).unwrap();
        assert!(units.len() < least * 3 / 2, "{} groups, {least} if all were full", units.len());
    }

    #[test]
    fn equal_files_are_written_once_and_empty_ones_never() {
        let large = about(1, BLOCK);
        let files = [large, about(2, 5), about(3, 0), about(2, 5), large, about(3, 0)];
        let made = plan(&files, BLOCK);
        assert_eq!(made.units, [Unit::Blocks(0), Unit::Group(vec![1])]);
        assert_eq!(made.same, [None, None, None, Some(1), Some(0), None]);
    }
}
