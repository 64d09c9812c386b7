//! What an operator writes to begin a rollout, and how it divides devices into waves.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::machine::Limits;
use crate::objects::Query;

/// A rollout as it is asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The change: YAML or JSON documents, as they would be applied.
    pub documents: String,
    /// The devices it may touch, as a query over labels. It is refused if it would touch others.
    #[serde(default = "everything", rename = "match")]
    pub devices: String,
    /// Its waves; what no wave takes comes last, in a wave of its own. Not said: one device, 10 %,
    /// 50 %, the rest.
    #[serde(default = "waves")]
    pub waves: Vec<Wave>,
    /// What a device must show before it counts as well.
    #[serde(default)]
    pub gate: Gate,
    /// So many devices may fail before it stops.
    #[serde(default)]
    pub max_failures: Share,
    /// Whether it takes the change back by itself when it stops.
    #[serde(default)]
    pub rollback: bool,
}

/// A wave: a number of devices, a share of all, or those that match a query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number of devices, a share as `10%`, or {match: QUERY}")]
pub enum Wave {
    /// So many.
    Size(Share),
    /// Those that match; devices of an earlier wave stay there.
    Match {
        /// The query.
        #[serde(rename = "match")]
        devices: String,
    },
}

/// A number, or a share of all devices of the rollout: `5`, `10%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// So many.
    Count(u32),
    /// So many of a hundred, 0 to 100.
    Percent(u8),
}

impl Default for Share {
    fn default() -> Share {
        Share::Count(0)
    }
}

impl Share {
    /// How many of `all`, rounded down.
    fn floor(self, all: usize) -> usize {
        match self {
            Share::Count(n) => usize::try_from(n).unwrap_or(usize::MAX).min(all),
            Share::Percent(p) => all.saturating_mul(usize::from(p)) / 100,
        }
    }

    /// How many of `all`, rounded up: a wave is not empty.
    fn ceil(self, all: usize) -> usize {
        match self {
            Share::Count(_) => self.floor(all),
            Share::Percent(p) => all.saturating_mul(usize::from(p)).div_ceil(100),
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Share::Count(n) => write!(f, "{n}"),
            Share::Percent(p) => write!(f, "{p}%"),
        }
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Share, String> {
        let wrong = || format!("{text:?} is no number of devices and no share; write 5 or 10%");
        match text.trim().strip_suffix('%') {
            Some(percent) => {
                let percent = percent.trim_end().parse().ok().filter(|p| *p <= 100);
                percent.map(Share::Percent).ok_or_else(wrong)
            }
            None => text.trim().parse().map(Share::Count).map_err(|_| wrong()),
        }
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Share::Count(n) => s.serialize_u32(*n),
            Share::Percent(_) => s.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Share, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected a number of devices or a share as `10%`")]
        enum Either {
            Count(u32),
            Text(String),
        }
        match Either::deserialize(d)? {
            Either::Count(n) => Ok(Share::Count(n)),
            Either::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

/// What a device must show, and how long it may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gate {
    /// The apps of the change run there.
    pub running: bool,
    /// It says nothing is wrong that was not wrong before.
    pub no_new_errors: bool,
    /// The version it must run, as it says.
    pub version: Option<String>,
    /// All must be well for so many seconds, without a break.
    pub steady_seconds: u64,
    /// What is wrong may be so for so many seconds before the device counts as failed.
    pub tolerate_seconds: u64,
    /// After so many minutes a device that is not well counts as failed.
    pub limit_minutes: u64,
}

impl Default for Gate {
    fn default() -> Gate {
        Gate {
            running: true,
            no_new_errors: true,
            version: None,
            steady_seconds: 120,
            tolerate_seconds: 120,
            limit_minutes: 60,
        }
    }
}

impl Gate {
    pub(crate) fn limits(&self) -> Limits {
        // A year is as good as for ever, and cannot overflow.
        let seconds = |n: u64| Duration::from_secs(n.min(366 * 86_400));
        Limits {
            steady: seconds(self.steady_seconds),
            tolerate: seconds(self.tolerate_seconds),
            limit: seconds(self.limit_minutes.saturating_mul(60)),
        }
    }
}

fn everything() -> String {
    "*".to_owned()
}

fn waves() -> Vec<Wave> {
    [Share::Count(1), Share::Percent(10), Share::Percent(50)].map(Wave::Size).to_vec()
}

impl Plan {
    /// How many of `all` devices may fail.
    pub(crate) fn allowed(&self, all: usize) -> usize {
        self.max_failures.floor(all)
    }
}

/// A wave whose query was understood.
#[derive(Debug, Clone)]
pub(crate) enum Wanted {
    Size(Share),
    Match(Query),
}

/// Divides devices into waves: for each the number of its wave, from 0, without holes. `matches` says
/// whether the device at an index is meant by a query.
pub(crate) fn divide(
    count: usize,
    waves: &[Wanted],
    matches: impl Fn(usize, &Query) -> bool,
) -> Vec<usize> {
    let mut wave_of: Vec<Option<usize>> = vec![None; count];
    let mut next = 0;
    for wave in waves {
        let free = (0..count).filter(|at| wave_of.get(*at).is_some_and(Option::is_none));
        let taken: Vec<usize> = match wave {
            Wanted::Size(share) => free.take(share.ceil(count)).collect(),
            Wanted::Match(query) => free.filter(|at| matches(*at, query)).collect(),
        };
        for at in &taken {
            if let Some(slot) = wave_of.get_mut(*at) {
                *slot = Some(next);
            }
        }
        // A wave without devices is none.
        next += usize::from(!taken.is_empty());
    }
    wave_of.into_iter().map(|wave| wave.unwrap_or(next)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sizes(count: usize, waves: &[&str]) -> Vec<usize> {
        let waves: Vec<Wanted> = waves.iter().map(|w| Wanted::Size(w.parse().unwrap())).collect();
        let of = divide(count, &waves, |_, _| false);
        let last = of.iter().max().map_or(0, |w| w + 1);
        (0..last).map(|wave| of.iter().filter(|w| **w == wave).count()).collect()
    }

    #[test]
    fn waves_are_counts_or_shares_of_all_and_the_rest_comes_last() {
        assert_eq!(sizes(50, &["1", "10%", "50%"]), [1, 5, 25, 19]);
        assert_eq!(sizes(3, &["1", "10%", "50%"]), [1, 1, 1]);
        assert_eq!(sizes(4, &["100%"]), [4]);
        assert_eq!(sizes(4, &[]), [4]);
        assert_eq!(sizes(4, &["0", "2"]), [2, 2]);
        assert!(sizes(0, &["1"]).is_empty());
    }

    #[test]
    fn a_wave_may_be_a_query() {
        let canary = Query::parse("canary", &Default::default()).unwrap();
        let waves = [Wanted::Match(canary), Wanted::Size(Share::Count(1))];
        assert_eq!(divide(4, &waves, |at, _| at == 2), [1, 2, 0, 2]);
    }

    #[test]
    fn a_plan_is_short_and_says_what_is_wrong() {
        let plan: Plan = serde_json::from_str(r#"{"documents": "x"}"#).unwrap();
        assert_eq!((plan.waves.len(), plan.allowed(50), plan.rollback), (3, 0, false));
        let text =
            r#"{"documents": "x", "waves": [1, "10%", {"match": "a=b"}], "max_failures": "5%"}"#;
        let plan: Plan = serde_json::from_str(text).unwrap();
        assert_eq!(plan.allowed(50), 2);
        let again: Plan = serde_json::from_str(&serde_json::to_string(&plan).unwrap()).unwrap();
        assert_eq!(again, plan);
        for (text, want) in [
            (r#"{"documents": "x", "max_failures": "101%"}"#, "no share"),
            (r#"{"documents": "x", "waves": [true]}"#, "a share as `10%`"),
            (r#"{"documents": "x", "gate": {"stedy_seconds": 1}}"#, "stedy_seconds"),
            ("{}", "documents"),
        ] {
            let error = serde_json::from_str::<Plan>(text).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
    }

    proptest! {
        #[test]
        fn every_device_is_in_one_wave_and_no_wave_is_empty(
            count in 0usize..200, waves in prop::collection::vec((0u32..20, 0u8..=100, any::<bool>()), 0..6),
        ) {
            let waves: Vec<Wanted> = waves
                .into_iter()
                .map(|(n, p, c)| Wanted::Size(if c { Share::Count(n) } else { Share::Percent(p) }))
                .collect();
            let of = divide(count, &waves, |_, _| false);
            prop_assert_eq!(of.len(), count);
            let last = of.iter().max().map_or(0, |w| w + 1);
            for wave in 0..last {
                prop_assert!(of.contains(&wave));
            }
        }
    }
}
