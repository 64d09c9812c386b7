//! Queries over labels: `site=berlin, tier in (a, b), !lab`.
//!
//! All conditions must hold; the words are those of label selectors elsewhere: `k=v`, `k!=v`,
//! `k in (…)`, `k notin (…)`, `k` (it is there), `!k` (it is not).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

/// A query over labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query(Vec<Condition>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    Is(String, String),
    IsNot(String, String),
    In(String, BTreeSet<String>),
    NotIn(String, BTreeSet<String>),
    Has(String),
    HasNot(String),
}

impl Query {
    /// Whether labels fit. What a node does not have is unequal to everything.
    pub fn fits(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|condition| match condition {
            Condition::Is(key, value) => labels.get(key) == Some(value),
            Condition::IsNot(key, value) => labels.get(key) != Some(value),
            Condition::In(key, values) => labels.get(key).is_some_and(|v| values.contains(v)),
            Condition::NotIn(key, values) => labels.get(key).is_none_or(|v| !values.contains(v)),
            Condition::Has(key) => labels.contains_key(key),
            Condition::HasNot(key) => !labels.contains_key(key),
        })
    }
}

/// Whether a text can be a label's key or value: 1 to 63 letters, digits, `-`, `_`, `.`, `/`.
pub(super) fn is_label(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    (1..=63).contains(&text.len()) && text.chars().all(plain)
}

impl FromStr for Query {
    type Err = String;

    fn from_str(text: &str) -> Result<Query, String> {
        let mut conditions = Vec::new();
        for part in parts(text)? {
            conditions.push(condition(part.trim()).map_err(|why| {
                let cut: String = part.trim().chars().take(60).collect();
                format!("query {cut:?}: {why}")
            })?);
        }
        Ok(Query(conditions))
    }
}

/// Splits at commas that stand outside parentheses.
fn parts(text: &str) -> Result<Vec<&str>, String> {
    let (mut parts, mut from, mut open) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            '(' if open => return Err("query: a ( within ( )".to_owned()),
            '(' => open = true,
            ')' if !open => return Err("query: a ) without (".to_owned()),
            ')' => open = false,
            ',' if !open => {
                parts.push(text.get(from..at).unwrap_or_default());
                from = at + 1;
            }
            _ => {}
        }
    }
    if open {
        return Err("query: a ( without )".to_owned());
    }
    parts.push(text.get(from..).unwrap_or_default());
    Ok(parts)
}

fn condition(part: &str) -> Result<Condition, String> {
    let label = |text: &str| {
        let text = text.trim();
        if is_label(text) {
            Ok(text.to_owned())
        } else {
            Err("use k=v, k!=v, k in (a, b), k notin (a, b), k or !k; keys and values are 1 to 63 \
                 letters, digits, `-`, `_`, `.`, `/`"
                .to_owned())
        }
    };
    if let Some((key, value)) = part.split_once("!=") {
        return Ok(Condition::IsNot(label(key)?, label(value)?));
    }
    if let Some((key, value)) = part.split_once('=') {
        // `==` means the same.
        return Ok(Condition::Is(label(key)?, label(value.trim_start_matches('='))?));
    }
    if let Some(key) = part.strip_prefix('!') {
        return Ok(Condition::HasNot(label(key)?));
    }
    let Some((head, list)) = part.split_once('(') else {
        return Ok(Condition::Has(label(part)?));
    };
    let list = list.trim_end().strip_suffix(')').unwrap_or(list);
    let values = list.split(',').map(label).collect::<Result<BTreeSet<_>, _>>()?;
    let mut words = head.split_whitespace();
    match (words.next(), words.next(), words.next()) {
        (Some(key), Some("in"), None) => Ok(Condition::In(label(key)?, values)),
        (Some(key), Some("notin"), None) => Ok(Condition::NotIn(label(key)?, values)),
        _ => label("(").map(Condition::Has),
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |v: &BTreeSet<String>| v.iter().cloned().collect::<Vec<_>>().join(", ");
        for (at, condition) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(", ")?;
            }
            match condition {
                Condition::Is(k, v) => write!(f, "{k}={v}")?,
                Condition::IsNot(k, v) => write!(f, "{k}!={v}")?,
                Condition::In(k, v) => write!(f, "{k} in ({})", list(v))?,
                Condition::NotIn(k, v) => write!(f, "{k} notin ({})", list(v))?,
                Condition::Has(k) => f.write_str(k)?,
                Condition::HasNot(k) => write!(f, "!{k}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(query: &str, labels: &str, fits: bool) {
        let labels = labels.split_whitespace().filter_map(|l| l.split_once('='));
        let labels = labels.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        let read: Query = query.parse().unwrap();
        assert_eq!(read.fits(&labels), fits, "{query}");
        assert_eq!(read.to_string().parse::<Query>().unwrap(), read, "{query} reads back");
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
        check("tier notin (a,b)", "tier=c", true);
        check("tier notin (a,b)", "", true);
        check("lab", "lab=1", true);
        check("!lab", "lab=1", false);
        check("site=berlin, tier in (a,b), !lab", "site=berlin tier=a", true);
        check("site=berlin, tier in (a,b), !lab", "site=berlin tier=a lab=x", false);
    }

    #[test]
    fn what_is_no_query_is_refused() {
        for text in ["", "a=", "=b", "a in b", "a in (b", "a)", "a on (b)", "a b", "a,,b", "in (a)"]
        {
            assert!(text.parse::<Query>().is_err(), "{text}");
        }
    }
}
