//! Which devices are meant: one language for apps, groups, windows, rollouts, alert rules and the
//! list of nodes.
//!
//! Conditions are separated by commas, and all must hold: `site=berlin`, `tier!=lab`,
//! `tier in (a, b)`, `tier notin (a, b)`, `camera` (it is there), `!camera` (it is not). A `*` in a
//! value stands for anything; `*` alone is every device. What a device does not have is unequal to
//! everything.
//!
//! Where the fleet's groups are known ([`Query::parse`]), `group=NAME` is what the group says; the
//! labels of a device then have its name, too, as `name`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

/// The labels of a device.
pub(crate) type Labels = BTreeMap<String, String>;

/// What stands for a device's name among its labels.
pub(crate) const NAME: &str = "name";
/// Where a device stands, as [`coordinates`] reads it.
pub(crate) const LOCATION: &str = "location";
const GROUP: &str = "group";
const EVERYTHING: &str = "*";
/// A person writes no longer ones.
const TEXT_MAX: usize = 4096;

/// A query over labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query(Vec<Condition>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    In(String, BTreeSet<String>),
    NotIn(String, BTreeSet<String>),
    Has(String),
    HasNot(String),
    Group(String, Query),
}

/// Why a query was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// It says nothing; that must not mean everything.
    #[error("the query is empty; `*` is every device")]
    Empty,
    /// It is longer than 4096 bytes.
    #[error("the query is longer than {TEXT_MAX} bytes")]
    TooLong,
    /// A condition is none.
    #[error(
        "{0:?} is no condition; use k=v, k!=v, k in (a, b), k notin (a, b), k, !k; keys are \
         letters, digits, `-`, `_`, `.`, `/`"
    )]
    Condition(String),
    /// A group that is not there.
    #[error("there is no group {0:?}")]
    Group(String),
    /// A group's query names a group.
    #[error("it names the group {0:?}, and the query of a group cannot name another one")]
    Nested(String),
}

impl Query {
    /// Reads a query. `groups` are queries by name; they cannot name groups themselves.
    pub(crate) fn parse(
        text: &str,
        groups: &BTreeMap<String, String>,
    ) -> Result<Query, QueryError> {
        read(text, Some(groups))
    }

    /// Whether a device with these labels is meant.
    pub fn fits(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|condition| match condition {
            Condition::In(key, values) => labels.get(key).is_some_and(|l| is_one_of(l, values)),
            Condition::NotIn(key, values) => labels.get(key).is_none_or(|l| !is_one_of(l, values)),
            Condition::Has(key) => labels.contains_key(key),
            Condition::HasNot(key) => !labels.contains_key(key),
            Condition::Group(_, query) => query.fits(labels),
        })
    }

    /// The labels whose absence from everywhere would be strange: all but those that are not to be
    /// there.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|condition| match condition {
            Condition::In(key, _) | Condition::NotIn(key, _) | Condition::Has(key) => {
                Some(key.as_str())
            }
            Condition::HasNot(_) | Condition::Group(..) => None,
        })
    }

    /// Reads the query of a group.
    pub(crate) fn of_group(text: &str) -> Result<Query, QueryError> {
        Query::parse(text, &BTreeMap::new()).map_err(|e| match e {
            QueryError::Group(name) => QueryError::Nested(name),
            other => other,
        })
    }

    /// Whether it names this group.
    pub(crate) fn names_group(&self, name: &str) -> bool {
        self.0.iter().any(|c| matches!(c, Condition::Group(group, _) if group == name))
    }
}

/// Whether a text can be a label's key or value: 1 to 63 letters, digits, `-`, `_`, `.`, `/`.
pub(super) fn is_label(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    (1..=63).contains(&text.len()) && text.chars().all(plain)
}

/// Where something stands: degrees north (-90 to 90) and east (-180 to 180), as `52.52,13.40`.
pub(crate) fn coordinates(text: &str) -> Option<(f64, f64)> {
    let (north, east) = text.split_once(',')?;
    let (north, east): (f64, f64) = (north.trim().parse().ok()?, east.trim().parse().ok()?);
    ((-90.0..=90.0).contains(&north) && (-180.0..=180.0).contains(&east)).then_some((north, east))
}

fn is_one_of(label: &str, values: &BTreeSet<String>) -> bool {
    values.iter().any(|v| globbed(v, label))
}

/// Whether a text is of a pattern in which `*` stands for anything.
fn globbed(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    rest.ends_with(last)
}

/// Without the fleet's groups, `group` is a label as any other: apps are objects, and objects do not
/// know of groups.
impl FromStr for Query {
    type Err = QueryError;

    fn from_str(text: &str) -> Result<Query, QueryError> {
        read(text, None)
    }
}

fn read(text: &str, groups: Option<&BTreeMap<String, String>>) -> Result<Query, QueryError> {
    if text.len() > TEXT_MAX {
        return Err(QueryError::TooLong);
    }
    match text.trim() {
        "" => Err(QueryError::Empty),
        EVERYTHING => Ok(Query(Vec::new())),
        text => split(text)
            .into_iter()
            .map(|p| condition(p, groups))
            .collect::<Result<_, _>>()
            .map(Query),
    }
}

/// Splits at commas that stand in no parentheses.
fn split(text: &str) -> Vec<&str> {
    let (mut depth, mut from, mut parts) = (0_u32, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth = depth.saturating_add(1),
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(text.get(from..at).unwrap_or_default());
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text.get(from..).unwrap_or_default());
    parts
}

fn condition(
    text: &str,
    groups: Option<&BTreeMap<String, String>>,
) -> Result<Condition, QueryError> {
    let text = text.trim();
    let wrong = || QueryError::Condition(text.chars().take(60).collect());
    let key = |key: &str| {
        let plain = |c: char| c.is_alphanumeric() || "-_./".contains(c);
        let key = key.trim();
        let good = !key.is_empty() && key.chars().all(plain);
        if good { Ok(key.to_owned()) } else { Err(wrong()) }
    };
    let value = |text: &str| {
        let text = text.trim();
        let strange = |c: char| c.is_whitespace() || "=()!,".contains(c);
        let good = !text.is_empty() && !text.contains(strange);
        if good { Ok(text.to_owned()) } else { Err(wrong()) }
    };
    if let Some((head, list)) = text.split_once('(') {
        let list = list.strip_suffix(')').ok_or_else(wrong)?;
        let values = list.split(',').map(value).collect::<Result<_, _>>()?;
        let mut words = head.split_whitespace();
        return match (words.next(), words.next(), words.next()) {
            (Some(name), Some("in"), None) => Ok(Condition::In(key(name)?, values)),
            (Some(name), Some("notin"), None) => Ok(Condition::NotIn(key(name)?, values)),
            _ => Err(wrong()),
        };
    }
    if let Some((name, not)) = text.split_once("!=") {
        return Ok(Condition::NotIn(key(name)?, BTreeSet::from([value(not)?])));
    }
    if let Some((name, is)) = text.split_once('=') {
        // `==` means the same.
        let (name, is) = (key(name)?, value(is.strip_prefix('=').unwrap_or(is))?);
        let Some(groups) = groups.filter(|_| name == GROUP) else {
            return Ok(Condition::In(name, BTreeSet::from([is])));
        };
        let query = groups.get(&is).ok_or_else(|| QueryError::Group(is.clone()))?;
        let query = Query::of_group(query)?;
        return Ok(Condition::Group(is, query));
    }
    match text.strip_prefix('!') {
        Some(name) => key(name).map(Condition::HasNot),
        None => key(text).map(Condition::Has),
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = |v: &BTreeSet<String>| if v.len() == 1 { v.first().cloned() } else { None };
        let list = |v: &BTreeSet<String>| v.iter().cloned().collect::<Vec<_>>().join(", ");
        if self.0.is_empty() {
            f.write_str(EVERYTHING)?;
        }
        for (at, condition) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(", ")?;
            }
            match condition {
                Condition::In(k, v) => match one(v) {
                    Some(v) => write!(f, "{k}={v}")?,
                    None => write!(f, "{k} in ({})", list(v))?,
                },
                Condition::NotIn(k, v) => match one(v) {
                    Some(v) => write!(f, "{k}!={v}")?,
                    None => write!(f, "{k} notin ({})", list(v))?,
                },
                Condition::Has(k) => f.write_str(k)?,
                Condition::HasNot(k) => write!(f, "!{k}")?,
                Condition::Group(name, _) => write!(f, "{GROUP}={name}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn groups() -> BTreeMap<String, String> {
        BTreeMap::from([
            ("north".to_owned(), "site in (kiel, oslo)".to_owned()),
            ("ring".to_owned(), "group=north".to_owned()),
        ])
    }

    #[track_caller]
    fn check(query: &str, labels: &str, fits: bool) {
        let labels = labels.split_whitespace().filter_map(|l| l.split_once('='));
        let labels = labels.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        let read = Query::parse(query, &groups()).unwrap();
        assert_eq!(read.fits(&labels), fits, "{query}");
        let again = Query::parse(&read.to_string(), &groups());
        assert_eq!(again.unwrap(), read, "{query} reads back");
    }

    #[test]
    fn conditions_hold_together() {
        check("site=berlin", "site=berlin", true);
        check("site == berlin", "site=berlin", true);
        check("site=berlin", "site=bonn", false);
        check("site=berlin", "", false);
        check("site!=berlin", "", true);
        check("site != berlin", "site=berlin", false);
        check("tier in (a, b)", "tier=b", true);
        check("tier in (a,b)", "tier=c", false);
        check("tier in (a,b)", "", false);
        check("tier in(a)", "tier=a", true);
        check("tier notin (a,b)", "tier=c", true);
        check("tier notin (a,b)", "", true);
        check("lab", "lab=1", true);
        check("!lab", "lab=1", false);
        check("!lab", "site=x", true);
        check("site=berlin, tier in (a,b), !lab", "site=berlin tier=a", true);
        check("site=berlin, tier in (a,b), !lab", "site=berlin tier=a lab=x", false);
        check("*", "", true);
        check("group=north, tier=a", "site=oslo tier=a", true);
        check("group=north", "site=rome", false);
    }

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, name, want) in [
            ("edge-*", "edge-1", true),
            ("edge-*", "edg", false),
            ("*-1", "edge-1", true),
            ("e*g*1", "edge-1", true),
            ("e*g*1", "edge-2", false),
            ("edge", "edge-1", false),
            ("a*a", "a", false),
        ] {
            check(&format!("name={pattern}"), &format!("name={name}"), want);
        }
    }

    #[test]
    fn what_is_no_query_is_refused() {
        for (text, want) in [
            ("", "`*` is every device"),
            (" ", "`*` is every device"),
            ("a=b,", "\"\" is no condition"),
            ("a,,b", "\"\" is no condition"),
            ("a=", "no condition"),
            ("=b", "no condition"),
            ("a===b", "no condition"),
            ("a b", "no condition"),
            ("a=b or c", "no condition"),
            ("a in b", "no condition"),
            ("a in (b", "no condition"),
            ("a in (b, (c))", "no condition"),
            ("a)", "no condition"),
            ("a on (b)", "no condition"),
            ("in (a)", "no condition"),
            ("group=none", "no group \"none\""),
            ("group=ring", "it names the group \"north\""),
        ] {
            let error = Query::parse(text, &groups()).unwrap_err().to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
        assert_eq!("x".repeat(TEXT_MAX + 1).parse::<Query>(), Err(QueryError::TooLong));
    }

    #[test]
    fn where_nobody_knows_groups_group_is_a_label() {
        let read: Query = "group=north".parse().unwrap();
        assert!(read.fits(&Labels::from([("group".to_owned(), "north".to_owned())])));
        assert!(!read.names_group("north"));
        assert!(Query::parse("tier, group=north", &groups()).unwrap().names_group("north"));
    }

    #[test]
    fn coordinates_are_on_the_earth() {
        assert_eq!(coordinates("52.52,13.40"), Some((52.52, 13.4)));
        assert_eq!(coordinates("-33.9, 18"), Some((-33.9, 18.0)));
        for text in ["", "52", "91,0", "0,181", "NaN,0", "north,east", "1,2,3"] {
            assert_eq!(coordinates(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,60}", label in ".{0,20}") {
            if let Ok(query) = Query::parse(&text, &BTreeMap::new()) {
                query.fits(&BTreeMap::from([("a".to_owned(), label)]));
                prop_assert_eq!(Query::parse(&query.to_string(), &BTreeMap::new()), Ok(query));
            }
        }
    }
}
