//! Which variant of a package an image takes, as EVE reads it off its version.

/// What the flags in a version say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Variant {
    /// For developers: `-dev`.
    pub dev: bool,
    /// With Kubernetes: `-k`.
    pub k: bool,
}

impl Variant {
    /// Reads a full version, as `0.0.0-main-0123abcd-dev-kvm-amd64`. The flags are the words behind
    /// the last run of eight hexadecimal digits; in a version without one, all of its words.
    pub fn of(version: &str) -> Variant {
        let flags = match last_hash(version) {
            Some(end) => &version[end..],
            None => version,
        };
        let has = |flag: &str| flags.split('-').any(|word| word == flag);
        Variant { dev: has("dev"), k: has("k") }
    }

    /// EVE's word for its pillar package of this variant.
    pub(super) fn pillar(self) -> &'static str {
        match (self.dev, self.k) {
            (false, false) => "PILLAR_TAG",
            (true, false) => "PILLAR_DEV_TAG",
            (false, true) => "PILLAR_K_TAG",
            (true, true) => "PILLAR_K_DEV_TAG",
        }
    }
}

/// Where the last eight hexadecimal digits in a row end.
fn last_hash(version: &str) -> Option<usize> {
    let bytes = version.as_bytes();
    (8..=bytes.len()).rev().find(|end| bytes[end - 8..*end].iter().all(u8::is_ascii_hexdigit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_stand_behind_the_commit() {
        for (version, dev, k) in [
            ("0.0.0-main-0123abcd-kvm-amd64", false, false),
            ("0.0.0-main-0123abcd-dev-kvm-amd64", true, false),
            ("0.0.0-main-0123abcd-k-amd64", false, true),
            ("0.0.0-main-0123abcd-dev-k-amd64", true, true),
            ("0.0.0-dev-0123abcd-kvm-amd64", false, false), // a branch of that name
            ("0.0.0-main-0123abcd-dirty-89abcdef-dev-kvm-amd64", true, false),
            ("0.0.0-main-0123abcd-dirty-2026-01-31.23.59-dev-kvm-amd64", true, false),
            ("12.0.0-lts-kvm-amd64", false, false),
            ("12.0.0-k-amd64", false, true),
            ("snapshot-dev-kvm-amd64", true, false),
            ("", false, false),
            ("é-dev", true, false),
        ] {
            assert_eq!(Variant::of(version), Variant { dev, k }, "{version}");
        }
    }
}
