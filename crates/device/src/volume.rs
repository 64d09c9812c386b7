//! Which volumes and unpacked images to make and to remove.
//!
//! A volume is identified by its id and generation: another generation is another volume. A
//! container's root is an unpacked image, shared and read-only, under a folder of its own for what
//! the app writes. What a volume was made of is written into it, so it needs its content no more.
//! Nothing is removed before the first whole config of this boot, nor while an app uses it.

use std::collections::{BTreeMap, BTreeSet};

use model::desired::{Origin, Volume};
use model::reported::{ContentState, ContentStatus};
use model::{ContentId, Diagnosis, Digest, Problem, UnixMillis, VolumeId, Who};

/// A volume's name on the disk: `<id>.<generation>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeKey {
    /// Its id.
    pub id: VolumeId,
    /// Its generation.
    pub generation: u64,
}

/// What is on the disk, whole.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Have {
    /// Finished volumes and the image each was made of (`None`: blank).
    pub volumes: BTreeMap<VolumeKey, Option<Digest>>,
    /// Unpacked images.
    pub images: BTreeSet<Digest>,
}

/// What is wanted and what stands around it.
#[derive(Debug)]
pub struct Want<'a> {
    /// Volumes of the config. `None`: no whole config yet, so nothing is superfluous.
    pub volumes: Option<&'a BTreeMap<VolumeId, Volume>>,
    /// How far the downloads are.
    pub contents: &'a BTreeMap<ContentId, ContentStatus>,
    /// Volumes that are mounted for apps now. `None`: not known yet.
    pub in_use: Option<&'a BTreeSet<VolumeKey>>,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Op {
    /// Remove a volume and all that was written to it.
    Remove(VolumeKey),
    /// Remove an unpacked image that no volume needs.
    RemoveImage(Digest),
    /// Unpack an image.
    Unpack(Digest),
    /// Make a volume; its image is unpacked.
    Create(VolumeKey, Option<Digest>),
}

/// Why a wanted volume is not there and is not being made.
#[derive(Debug, Clone, PartialEq)]
pub enum Lacks {
    /// Its content is on the way.
    Content,
    /// What must change first.
    Help(Problem),
}

/// What to do, in order, and which wanted volumes must wait.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Removals first: they free space.
    pub ops: Vec<Op>,
    /// Who waits, and for what.
    pub waiting: BTreeMap<VolumeId, Lacks>,
}

impl std::fmt::Display for VolumeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.id, self.generation)
    }
}

impl std::str::FromStr for VolumeKey {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        let (id, generation) = name.split_once('.').ok_or(())?;
        let key = VolumeKey {
            id: id.parse().map_err(drop)?,
            generation: generation.parse().map_err(drop)?,
        };
        // One name for one volume: no second spelling of the same numbers.
        if key.to_string() == name { Ok(key) } else { Err(()) }
    }
}

/// Compares what is with what is wanted.
pub fn plan(have: &Have, want: &Want<'_>, now: UnixMillis) -> Plan {
    let Some(wanted) = want.volumes else { return Plan::default() };
    let mut plan = Plan::default();
    let keys: BTreeSet<VolumeKey> =
        wanted.values().map(|v| VolumeKey { id: v.id, generation: v.generation }).collect();

    let mut needed = BTreeSet::new(); // images
    for (key, image) in &have.volumes {
        let superfluous = !keys.contains(key);
        if superfluous && want.in_use.is_some_and(|used| !used.contains(key)) {
            plan.ops.push(Op::Remove(*key));
        } else {
            needed.extend(*image);
        }
    }
    for volume in wanted.values() {
        let key = VolumeKey { id: volume.id, generation: volume.generation };
        if have.volumes.contains_key(&key) {
            continue;
        }
        match image_of(volume, want.contents, now) {
            Ok(image) => {
                if let Some(image) = image
                    && needed.insert(image)
                    && !have.images.contains(&image)
                {
                    plan.ops.push(Op::Unpack(image));
                }
                plan.ops.push(Op::Create(key, image));
            }
            Err(lacks) => {
                plan.waiting.insert(volume.id, lacks);
            }
        }
    }
    let unneeded = have.images.difference(&needed).copied().map(Op::RemoveImage);
    // An image may become needed when a download ends: those who wait might wait for it.
    if plan.waiting.is_empty() && want.in_use.is_some() {
        plan.ops.extend(unneeded);
    }
    plan.ops.sort_by_key(|op| match op {
        Op::Remove(_) => 0,
        Op::RemoveImage(_) => 1,
        Op::Unpack(_) | Op::Create(..) => 2,
    });
    plan
}

fn image_of(
    volume: &Volume,
    contents: &BTreeMap<ContentId, ContentStatus>,
    now: UnixMillis,
) -> Result<Option<Digest>, Lacks> {
    let Origin::Content(content) = volume.origin else { return Ok(None) };
    match contents.get(&content) {
        Some(ContentStatus { state: ContentState::Loaded { digest, .. }, .. }) => Ok(Some(*digest)),
        Some(_) => Err(Lacks::Content),
        None => {
            let text = format!("content {content} is not in the config");
            let why = Diagnosis::of(Who::Operator, "add the content tree, or name another");
            Err(Lacks::Help(Problem::new(text, why, now)))
        }
    }
}

#[cfg(test)]
mod tests {
    use model::Bytes;

    use super::*;

    const V: &str = "00000000-0000-4000-8000-000000000040";
    const C: &str = "00000000-0000-4000-8000-000000000030";
    const IMAGE: Digest = Digest([1; 32]);
    const OLD: Digest = Digest([2; 32]);

    fn volume(generation: u64) -> Volume {
        Volume {
            id: V.parse().unwrap(),
            generation,
            name: "root".into(),
            origin: Origin::Content(C.parse().unwrap()),
            max_size: None,
            readonly: false,
            clear_text: false,
            target: Default::default(),
        }
    }

    fn key(generation: u64) -> VolumeKey {
        VolumeKey { id: V.parse().unwrap(), generation }
    }

    fn contents(state: ContentState) -> BTreeMap<ContentId, ContentStatus> {
        let id = C.parse().unwrap();
        let status = ContentStatus { id, name: "c".into(), state, problem: None };
        BTreeMap::from([(id, status)])
    }

    fn loaded() -> BTreeMap<ContentId, ContentStatus> {
        contents(ContentState::Loaded { digest: IMAGE, size: Bytes(1) })
    }

    fn check(
        have: &Have,
        wanted: &[Volume],
        contents: &BTreeMap<ContentId, ContentStatus>,
        in_use: Option<&[VolumeKey]>,
        ops: &[Op],
    ) -> Plan {
        let volumes = wanted.iter().map(|v| (v.id, v.clone())).collect();
        let in_use = in_use.map(|used| used.iter().copied().collect::<BTreeSet<_>>());
        let want = Want { volumes: Some(&volumes), contents, in_use: in_use.as_ref() };
        let plan = plan(have, &want, UnixMillis(0));
        assert_eq!(plan.ops, ops);
        plan
    }

    fn have(generation: u64, image: Digest) -> Have {
        Have {
            volumes: BTreeMap::from([(key(generation), Some(image))]),
            images: BTreeSet::from([image]),
        }
    }

    #[test]
    fn unpacks_and_then_creates() {
        let ops = [Op::Unpack(IMAGE), Op::Create(key(0), Some(IMAGE))];
        check(&Have::default(), &[volume(0)], &loaded(), Some(&[]), &ops);
    }

    #[test]
    fn waits_for_content_and_says_when_there_is_none() {
        let resolving = contents(ContentState::Resolving);
        let plan = check(&Have::default(), &[volume(0)], &resolving, Some(&[]), &[]);
        assert_eq!(plan.waiting.values().collect::<Vec<_>>(), [&Lacks::Content]);
        let plan = check(&Have::default(), &[volume(0)], &BTreeMap::new(), Some(&[]), &[]);
        assert!(
            matches!(plan.waiting.values().next(), Some(Lacks::Help(why)) if why.text.contains(C))
        );
    }

    #[test]
    fn what_is_made_needs_its_content_no_more() {
        check(&have(0, OLD), &[volume(0)], &BTreeMap::new(), Some(&[key(0)]), &[]);
    }

    #[test]
    fn another_generation_is_another_volume_and_the_old_goes_when_nobody_uses_it() {
        let make = [Op::Unpack(IMAGE), Op::Create(key(1), Some(IMAGE))];
        check(&have(0, OLD), &[volume(1)], &loaded(), Some(&[key(0)]), &make);
        let both = [
            Op::Remove(key(0)),
            Op::RemoveImage(OLD),
            Op::Unpack(IMAGE),
            Op::Create(key(1), Some(IMAGE)),
        ];
        check(&have(0, OLD), &[volume(1)], &loaded(), Some(&[]), &both);
    }

    #[test]
    fn nothing_goes_before_we_know_the_config_and_the_apps() {
        check(&have(0, OLD), &[], &BTreeMap::new(), None, &[]);
        let nothing = BTreeMap::new();
        let want = Want { volumes: None, contents: &nothing, in_use: Some(&BTreeSet::new()) };
        assert_eq!(plan(&have(0, OLD), &want, UnixMillis(0)), Plan::default());
    }

    #[test]
    fn names_read_back_and_have_one_spelling() {
        assert_eq!(key(7).to_string().parse(), Ok(key(7)));
        for bad in ["", V, &format!("{V}.07"), &format!("{V}.x"), &format!("{V}.1.tmp")] {
            assert!(bad.parse::<VolumeKey>().is_err(), "{bad}");
        }
    }

    /// Applying a plan, cut off after any number of operations and planned anew, comes to rest at
    /// the same disk.
    #[test]
    fn cut_anywhere_it_comes_to_the_same_rest() {
        let wanted: BTreeMap<VolumeId, Volume> = BTreeMap::from([(volume(1).id, volume(1))]);
        let contents = loaded();
        let used = BTreeSet::new();
        let want = Want { volumes: Some(&wanted), contents: &contents, in_use: Some(&used) };
        for cut in 0..6 {
            let mut disk = have(0, OLD);
            for rest in [cut, usize::MAX, usize::MAX] {
                for op in plan(&disk, &want, UnixMillis(0)).ops.into_iter().take(rest) {
                    match op {
                        Op::Remove(key) => drop(disk.volumes.remove(&key)),
                        Op::RemoveImage(image) => drop(disk.images.remove(&image)),
                        Op::Unpack(image) => drop(disk.images.insert(image)),
                        Op::Create(key, image) => {
                            assert!(disk.images.contains(&image.unwrap()), "cut {cut}");
                            disk.volumes.insert(key, image);
                        }
                    }
                }
            }
            assert_eq!(disk, have(1, IMAGE), "cut {cut}");
        }
    }
}
