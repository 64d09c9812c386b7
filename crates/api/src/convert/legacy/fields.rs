//! An object of JSON as Go reads it: names without regard to case, `null` as nothing.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde_json::Value;

use crate::convert::refuse::{Rejected, no, wrong};

/// So much of a foreign name is shown.
const SHOWN: usize = 80;

/// An object and the way to it.
pub(super) struct Fields<'a> {
    path: String,
    /// By name in lower case; those that are `null` are left out.
    by_name: BTreeMap<String, &'a Value>,
}

impl<'a> Fields<'a> {
    /// `path` leads to `value`; the file itself has an empty one.
    pub(super) fn of(path: String, value: &'a Value) -> Result<Fields<'a>, Rejected> {
        let shown = if path.is_empty() { "the file" } else { &path };
        let Value::Object(object) = value else {
            return Err(wrong(shown, "it is no object"));
        };
        let mut by_name = BTreeMap::new();
        for (name, value) in object.iter().filter(|(_, value)| !value.is_null()) {
            match by_name.entry(name.to_ascii_lowercase()) {
                Entry::Vacant(free) => {
                    free.insert(value);
                }
                Entry::Occupied(_) => {
                    let name = name.chars().take(SHOWN).collect::<String>();
                    return Err(wrong(join(&path, &name), "it is there twice"));
                }
            }
        }
        Ok(Fields { path, by_name })
    }

    /// The way to a field of this name.
    pub(super) fn path(&self, name: &str) -> String {
        join(&self.path, name)
    }

    /// What is wrong with one of its fields, seen from the file.
    pub(super) fn within(&self, why: Rejected) -> Rejected {
        why.within(&self.path)
    }

    fn value(&self, name: &str) -> Option<&'a Value> {
        self.by_name.get(&name.to_ascii_lowercase()).copied()
    }

    /// Empty if there is none.
    pub(super) fn text(&self, name: &str) -> Result<&'a str, Rejected> {
        let Some(value) = self.value(name) else { return Ok("") };
        value.as_str().ok_or_else(|| no(self.path(name), value, "a text"))
    }

    /// False if there is none.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Rejected> {
        let Some(value) = self.value(name) else { return Ok(false) };
        value.as_bool().ok_or_else(|| no(self.path(name), value, "true or false"))
    }

    /// 0 if there is none.
    pub(super) fn number(&self, name: &str, most: u32) -> Result<u32, Rejected> {
        let Some(value) = self.value(name) else { return Ok(0) };
        let number = value.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| *n <= most);
        number.ok_or_else(|| no(self.path(name), value, &format!("0 to {most}")))
    }

    /// The members of a list with the ways to them; none if there is no list.
    pub(super) fn list(&self, name: &str) -> Result<Vec<(String, &'a Value)>, Rejected> {
        let Some(value) = self.value(name) else { return Ok(Vec::new()) };
        let list = value.as_array().ok_or_else(|| no(self.path(name), value, "a list"))?;
        let path = self.path(name);
        Ok(list.iter().enumerate().map(|(at, v)| (format!("{path}[{at}]"), v)).collect())
    }

    /// The members of a list of texts with the ways to them.
    pub(super) fn texts(&self, name: &str) -> Result<Vec<(String, &'a str)>, Rejected> {
        let one = |(path, value): (String, &'a Value)| match value.as_str() {
            Some(text) => Ok((path, text)),
            None => Err(no(path, value, "a text")),
        };
        self.list(name)?.into_iter().map(one).collect()
    }

    /// An object within; `None` if there is none.
    pub(super) fn object(&self, name: &str) -> Result<Option<Fields<'a>>, Rejected> {
        self.value(name).map(|value| Fields::of(self.path(name), value)).transpose()
    }

    /// An object whose names are data: by these, the ways to what it holds.
    pub(super) fn map(&self, name: &str) -> Result<Vec<(&'a str, String, &'a Value)>, Rejected> {
        match self.value(name) {
            Some(value) => entries(&self.path(name), value),
            None => Ok(Vec::new()),
        }
    }
}

/// What an object holds whose names are data, by these, with the ways to it.
pub(super) fn entries<'a>(
    path: &str,
    object: &'a Value,
) -> Result<Vec<(&'a str, String, &'a Value)>, Rejected> {
    let map = object.as_object().ok_or_else(|| no(path, object, "an object"))?;
    let one = |(key, value): (&'a String, &'a Value)| {
        let shown = key.chars().take(SHOWN).collect::<String>();
        (key.as_str(), format!("{path}[{shown:?}]"), value)
    };
    Ok(map.iter().map(one).collect())
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}
