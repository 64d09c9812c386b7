//! Where things stand in a document: lines and columns of its fields.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;

/// A place in a text, both counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Line.
    pub line: u64,
    /// Column.
    pub column: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Places of the fields of one document, by path: `spec.ports[0]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places(BTreeMap<String, Place>);

impl Places {
    /// Where the field of this path stands, or the nearest around it that was written.
    pub fn find(&self, field: &str) -> Option<Place> {
        let mut path = field;
        loop {
            if let Some(place) = self.0.get(path) {
                return Some(*place);
            }
            match path.rfind(['.', '[']) {
                Some(at) => path = path.get(..at)?,
                None => return self.0.get("").copied(),
            }
        }
    }

    /// The same in front of an error: `LINE:COLUMN: `; empty if nothing is known.
    pub(super) fn text(&self, field: &str) -> String {
        self.find(field).map(|place| format!("{place}: ")).unwrap_or_default()
    }

    /// Takes a value and its places apart.
    pub(super) fn of(located: Spanned<Located>) -> (Value, Places) {
        let mut places = Places::default();
        let value = places.plain(String::new(), located);
        (value, places)
    }

    fn plain(&mut self, path: String, located: Spanned<Located>) -> Value {
        let at = &located.referenced;
        if at.line() > 0 {
            self.0.insert(path.clone(), Place { line: at.line(), column: at.column() });
        }
        match located.value {
            Located::Scalar(value) => value,
            Located::Sequence(all) => {
                let all = all.into_iter().enumerate();
                Value::Array(all.map(|(i, v)| self.plain(format!("{path}[{i}]"), v)).collect())
            }
            Located::Mapping(all) => {
                let mut map = Map::new();
                for (key, value) in all {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    let value = self.plain(path, value);
                    map.insert(key, value);
                }
                Value::Object(map)
            }
        }
    }
}

/// A value whose parts know where they stand.
#[derive(Debug)]
pub(super) enum Located {
    Scalar(Value),
    Sequence(Vec<Spanned<Located>>),
    Mapping(Vec<(String, Spanned<Located>)>),
}

impl<'de> Deserialize<'de> for Located {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Located;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Located, E> {
        Ok(Located::Scalar(Value::Bool(v)))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Located, E> {
        Ok(Located::Scalar(Value::Number(v.into())))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Located, E> {
        Ok(Located::Scalar(Value::Number(v.into())))
    }

    fn visit_f64<E>(self, v: f64) -> Result<Located, E> {
        // Infinity and what is no number are nothing JSON knows.
        Ok(Located::Scalar(Number::from_f64(v).map_or(Value::Null, Value::Number)))
    }

    fn visit_str<E>(self, v: &str) -> Result<Located, E> {
        Ok(Located::Scalar(Value::String(v.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Located, E> {
        Ok(Located::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Located, E> {
        Ok(Located::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Located, D::Error> {
        d.deserialize_any(Reader)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Located, A::Error> {
        let mut out = Vec::new();
        while let Some(one) = all.next_element()? {
            out.push(one);
        }
        Ok(Located::Sequence(out))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut all: A) -> Result<Located, A::Error> {
        let mut out = Vec::new();
        while let Some(one) = all.next_entry()? {
            out.push(one);
        }
        Ok(Located::Mapping(out))
    }
}
