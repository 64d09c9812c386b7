//! Which of the controller's certificates for key exchange a node keeps.
//!
//! Secrets in a config are sealed between one certificate of the node and one of the controller. A
//! controller that takes a new one publishes only that, while the config in force, or one that is
//! sealed anew by and by, still names the old. So an old one stays as long as something refers to
//! it; it was believed when it came.

use std::collections::{BTreeMap, BTreeSet};

/// So many old ones at most: a controller that changes them each day must not fill the disk.
pub const OLD_MAX: usize = 32;

/// What to keep: all that are published now, and of those known before the ones that are referred
/// to.
pub fn keep<K: Ord + Clone, V: Clone>(
    known: &BTreeMap<K, V>,
    published: &BTreeMap<K, V>,
    referred: &BTreeSet<K>,
) -> BTreeMap<K, V> {
    let old = known.iter().filter(|(k, _)| referred.contains(k) && !published.contains_key(k));
    let old = old.take(OLD_MAX).map(|(k, v)| (k.clone(), v.clone()));
    published.iter().map(|(k, v)| (k.clone(), v.clone())).chain(old).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(keys: &[u32]) -> BTreeMap<u32, ()> {
        keys.iter().map(|k| (*k, ())).collect()
    }

    #[test]
    fn an_old_one_stays_while_something_refers_to_it() {
        let (two, none) = (BTreeSet::from([1, 2]), BTreeSet::new());
        let first = keep(&set(&[]), &set(&[1]), &none);
        let both = keep(&first, &set(&[2]), &two);
        assert_eq!(both, set(&[1, 2]));
        // Published again and again, in whatever order: nothing is lost.
        assert_eq!(keep(&both, &set(&[2]), &two), both);
        assert_eq!(keep(&both, &set(&[3]), &two), set(&[1, 2, 3]));
        assert_eq!(keep(&both, &set(&[2]), &BTreeSet::from([2])), set(&[2]));
        assert_eq!(keep(&both, &set(&[2]), &none), set(&[2]));
    }

    #[test]
    fn a_controller_that_never_stops_changing_is_bounded() {
        let all: Vec<u32> = (0..1000).collect();
        let kept = keep(&set(&all), &set(&[2000]), &all.iter().copied().collect());
        assert_eq!(kept.len(), OLD_MAX + 1);
        assert!(kept.contains_key(&2000));
    }
}
