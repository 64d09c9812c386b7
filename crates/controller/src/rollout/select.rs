//! Which devices are meant: a query over labels and the name.
//!
//! Terms are separated by commas, and all must hold: `site=berlin`, `tier!=lab`, `tier in (a, b)`,
//! `tier notin (a, b)`, `camera` (it is there), `!camera` (it is not), `group=NAME`. `name` is a
//! label that every device has. A `*` in a value stands for anything; alone it means every device.

use std::collections::BTreeMap;

/// The labels of a device, with its name.
pub(crate) type Labels = BTreeMap<String, String>;

/// What stands for its name among the labels.
pub(crate) const NAME: &str = "name";
const GROUP: &str = "group";
/// A person writes no longer ones.
const TEXT_MAX: usize = 4096;

/// A query that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Query(Vec<Term>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Term {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Has(String),
    HasNot(String),
    Group(Query),
}

/// Why a query was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum QueryError {
    /// It says nothing; that must not mean everything.
    #[error("the query is empty; `*` is every device")]
    Empty,
    /// It is longer than [`TEXT_MAX`].
    #[error("the query is longer than {TEXT_MAX} bytes")]
    TooLong,
    /// A term is none.
    #[error("{0:?} is no term; write key=value, key!=value, key in (a, b), key, !key, group=name")]
    Term(String),
    /// A group that is not there, or that names groups itself.
    #[error("there is no group {0:?} here; a group cannot name another one")]
    Group(String),
}

impl Query {
    /// Reads a query. `groups` are queries by name.
    pub(crate) fn parse(
        text: &str,
        groups: &BTreeMap<String, String>,
    ) -> Result<Query, QueryError> {
        if text.len() > TEXT_MAX {
            return Err(QueryError::TooLong);
        }
        if text.trim() == "*" {
            return Ok(Query(Vec::new()));
        }
        if text.trim().is_empty() {
            return Err(QueryError::Empty);
        }
        split(text).into_iter().map(|t| term(t, groups)).collect::<Result<_, _>>().map(Query)
    }

    /// Whether a device is meant.
    pub(crate) fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|term| match term {
            Term::In(key, values) => labels.get(key).is_some_and(|l| is_one_of(l, values)),
            Term::NotIn(key, values) => labels.get(key).is_none_or(|l| !is_one_of(l, values)),
            Term::Has(key) => labels.contains_key(key),
            Term::HasNot(key) => !labels.contains_key(key),
            Term::Group(query) => query.matches(labels),
        })
    }
}

fn is_one_of(label: &str, values: &[String]) -> bool {
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

fn term(text: &str, groups: &BTreeMap<String, String>) -> Result<Term, QueryError> {
    let text = text.trim();
    let wrong = || QueryError::Term(text.to_owned());
    let key = |key: &str| {
        let plain = |c: char| c.is_alphanumeric() || "-_./".contains(c);
        let key = key.trim();
        let good = !key.is_empty() && key.chars().all(plain);
        if good { Ok(key.to_owned()) } else { Err(wrong()) }
    };
    if let Some((left, list)) = text.split_once('(') {
        let list = list.strip_suffix(')').ok_or_else(wrong)?;
        let values = list.split(',').map(value).collect::<Option<Vec<_>>>().ok_or_else(wrong)?;
        let left = left.trim_end();
        return if let Some(name) = left.strip_suffix(" notin") {
            Ok(Term::NotIn(key(name)?, values))
        } else if let Some(name) = left.strip_suffix(" in") {
            Ok(Term::In(key(name)?, values))
        } else {
            Err(wrong())
        };
    }
    if let Some((name, not)) = text.split_once("!=") {
        return Ok(Term::NotIn(key(name)?, vec![value(not).ok_or_else(wrong)?]));
    }
    if let Some((name, is)) = text.split_once('=') {
        let (name, is) = (key(name)?, value(is).ok_or_else(wrong)?);
        if name != GROUP {
            return Ok(Term::In(name, vec![is]));
        }
        let query = groups.get(&is).ok_or_else(|| QueryError::Group(is.clone()))?;
        return Query::parse(query, &BTreeMap::new()).map(Term::Group);
    }
    match text.strip_prefix('!') {
        Some(name) => key(name).map(Term::HasNot),
        None => key(text).map(Term::Has),
    }
}

fn value(text: &str) -> Option<String> {
    let text = text.trim();
    let good = !text.is_empty() && !text.contains(['=', '(', ')', '!', ',']);
    good.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(query: &str, labels: &str, want: bool) {
        let groups = BTreeMap::from([("north".to_owned(), "site in (kiel, oslo)".to_owned())]);
        let labels = labels.split_whitespace().filter_map(|l| l.split_once('='));
        let labels: Labels = labels.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        assert_eq!(Query::parse(query, &groups).unwrap().matches(&labels), want, "{query}");
    }

    #[test]
    fn all_terms_must_hold() {
        check("site=kiel", "site=kiel", true);
        check("site=kiel, tier=a", "site=kiel tier=b", false);
        check("site!=kiel", "site=oslo", true);
        check("site!=kiel", "", true);
        check("tier in (a, b)", "tier=b", true);
        check("tier notin (a,b), site", "tier=c site=x", true);
        check("tier in (a,b)", "", false);
        check("!lab", "site=x", true);
        check("!lab", "lab=1", false);
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
        let groups = BTreeMap::from([("a".to_owned(), "group=b".to_owned())]);
        for (text, want) in [
            ("", "`*` is every device"),
            ("a=b,", "is no term"),
            ("a in b", "is no term"),
            ("a in (b", "is no term"),
            ("=b", "is no term"),
            ("a==b", "is no term"),
            ("group=c", "no group \"c\""),
            ("group=a", "no group \"b\""),
        ] {
            let error = Query::parse(text, &groups).unwrap_err().to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,60}", label in ".{0,20}") {
            if let Ok(query) = Query::parse(&text, &BTreeMap::new()) {
                query.matches(&BTreeMap::from([("a".to_owned(), label)]));
            }
        }
    }
}
