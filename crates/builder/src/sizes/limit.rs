//! How large a root file system may be, as `images/limits.toml` says.

use formats::layout::Profile;
use model::{Bytes, Diagnose, Diagnosis, Who};
use serde::Deserialize;

use super::Growth;

/// So many packages are named when an image is too large.
const NAMED: usize = 5;

/// The rules. The first that fits counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// In the order of the file.
    #[serde(default, rename = "limit")]
    rules: Vec<Rule>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    /// Hypervisors; `*` stands for any text. None: all.
    #[serde(default)]
    hv: Vec<String>,
    /// Platforms; `*` stands for any text. None: all.
    #[serde(default)]
    platform: Vec<String>,
    /// The most that the packed root file system may take.
    rootfs_mib: u64,
}

/// Why the rules cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the rules for sizes are wrong")]
pub struct LimitError(#[from] toml::de::Error);

/// An image is larger than it may be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the root file system takes {size}, {} more than the {limit} that it may have for {hv} on {platform}{}",
    Bytes(.size.0 - .limit.0),
    grown(.growth)
)]
pub struct TooLarge {
    /// What it takes.
    pub size: Bytes,
    /// What it may take.
    pub limit: Bytes,
    /// The hypervisor.
    pub hv: String,
    /// The platform.
    pub platform: String,
    /// What grew since the build before, the most first.
    pub growth: Vec<Growth>,
}

impl Diagnose for TooLarge {
    fn diagnose(&self) -> Diagnosis {
        Diagnosis::of(
            Who::Operator,
            "leave something out (`eve sizes` shows what takes how much), or raise the limit in \
             images/limits.toml",
        )
    }
}

/// A slot image is larger than the slots of a profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the slot image takes {size}, a slot of profile {profile} has {slot}: {} too much{}",
    Bytes(.size.0.saturating_sub(.slot.0)),
    grown(.growth)
)]
pub struct NoRoom {
    /// What it takes.
    pub size: Bytes,
    /// What a slot has.
    pub slot: Bytes,
    /// The profile.
    pub profile: &'static str,
    /// What grew since the build before, the most first.
    pub growth: Vec<Growth>,
}

impl Diagnose for NoRoom {
    fn diagnose(&self) -> Diagnosis {
        Diagnosis::of(Who::Operator, "leave packages out, or choose a profile with larger slots")
    }
}

/// Refuses a slot image that has no room in the slots of a profile. `growth` is asked only then.
pub fn check_room(
    profile: &Profile,
    size: Bytes,
    growth: impl FnOnce() -> Vec<Growth>,
) -> Result<(), NoRoom> {
    if profile.slot_grows || size <= profile.slot {
        return Ok(());
    }
    Err(NoRoom { size, slot: profile.slot, profile: profile.name, growth: growth() })
}

fn grown(growth: &[Growth]) -> String {
    let most = growth.iter().filter(|g| g.by() > 0).take(NAMED);
    let most: Vec<String> =
        most.map(|g| format!("{} by {}", g.name, Bytes(g.now.0 - g.before.0))).collect();
    if most.is_empty() { String::new() } else { format!("; most grew {}", most.join(", ")) }
}

impl Limits {
    /// Reads the rules.
    pub fn parse(text: &str) -> Result<Limits, LimitError> {
        Ok(toml::from_str(text)?)
    }

    /// The most that a root file system may take; `None`: no rule says.
    pub fn of(&self, hv: &str, platform: &str) -> Option<Bytes> {
        let fits = |patterns: &[String], word: &str| {
            let one = |p: &String| glob::Pattern::new(p).is_ok_and(|g| g.matches(word));
            patterns.is_empty() || patterns.iter().any(one)
        };
        let rule = self.rules.iter().find(|r| fits(&r.hv, hv) && fits(&r.platform, platform));
        rule.map(|r| Bytes::mib(r.rootfs_mib))
    }

    /// Refuses a root file system of this size if it may not be so large. `growth` is asked only
    /// then.
    pub fn check(
        &self,
        (hv, platform): (&str, &str),
        size: Bytes,
        growth: impl FnOnce() -> Vec<Growth>,
    ) -> Result<(), TooLarge> {
        match self.of(hv, platform) {
            Some(limit) if size > limit => Err(TooLarge {
                size,
                limit,
                hv: hv.to_owned(),
                platform: platform.to_owned(),
                growth: growth(),
            }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_image_without_room_says_how_much_it_lacks_and_what_grew() {
        let growth = || {
            let (before, now) = (Bytes::mib(1), Bytes::mib(41));
            vec![Growth { name: "eve/base".to_owned(), before, now }]
        };
        let refused = check_room(&Profile::SMALL, Bytes::mib(552), growth).unwrap_err();
        let want = "the slot image takes 552.0 MiB, a slot of profile small has 512.0 MiB: 40.0 MiB \
                    too much; most grew eve/base by 40.0 MiB";
        assert_eq!(refused.to_string(), want);
        assert_eq!(check_room(&Profile::SMALL, Bytes::mib(512), growth), Ok(()));
        assert_eq!(check_room(&Profile::EVE_2026, Bytes::gib(99), growth), Ok(()));
    }

    #[test]
    fn the_rules_of_the_repository_are_those_of_the_reference() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../images/limits.toml");
        let limits = Limits::parse(&std::fs::read_to_string(path).unwrap()).unwrap();
        for (hv, platform, mib) in [
            ("kvm", "generic", 290),
            ("xen", "rt", 290),
            ("mini", "generic", 290),
            ("k", "generic", 10240),
            ("kvm", "nvidia-jp6", 10240),
        ] {
            assert_eq!(limits.of(hv, platform), Some(Bytes::mib(mib)), "{hv} {platform}");
        }
    }

    #[test]
    fn what_is_too_large_says_by_how_much_and_who_grew() {
        let limits = Limits::parse("[[limit]]\nhv = ['kvm']\nrootfs_mib = 290\n").unwrap();
        let grow = |name: &str, before, now| Growth {
            name: name.to_owned(),
            before: Bytes::mib(before),
            now: Bytes::mib(now),
        };
        let growth = || vec![grow("eve/fw", 10, 18), grow("eve/x", 0, 1), grow("eve/y", 5, 1)];
        let refused = limits.check(("kvm", "generic"), Bytes::mib(292), growth).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the root file system takes 292.0 MiB, 2.0 MiB more than the 290.0 MiB that it may have for \
             kvm on generic; most grew eve/fw by 8.0 MiB, eve/x by 1.0 MiB"
        );
        limits.check(("kvm", "generic"), Bytes::mib(290), || panic!("not asked")).unwrap();
        limits.check(("k", "generic"), Bytes::gib(20), || panic!("no rule")).unwrap();
        assert!(Limits::parse("[[limit]]\nmib = 1\n").is_err());
    }
}
