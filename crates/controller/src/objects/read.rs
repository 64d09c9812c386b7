//! YAML or JSON documents to objects, with errors that name document, object and field.

use serde_json::{Map, Value};

use super::spec::Spec;
use super::{Key, Kind};

/// More than this is no set of objects that a person wrote.
pub(crate) const TEXT_MAX: usize = 1 << 20;
/// Names are labels: they become host names and parts of URLs.
const NAME_MAX: usize = 63;

/// A document: what an operator wants an object to say.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Which object.
    pub key: Key,
    /// What it says.
    pub spec: Spec,
    /// The same as it was written.
    pub written: Value,
}

/// Why documents could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The text is larger than [`TEXT_MAX`].
    #[error("the documents take {0} bytes, more than {TEXT_MAX}")]
    TooLong(usize),
    /// It is no YAML or JSON.
    #[error("the documents are no YAML or JSON: {0}")]
    Syntax(String),
    /// A document lacks what makes it one.
    #[error("document {number}: {text}")]
    Document {
        /// Counted from 1.
        number: usize,
        /// What is wrong.
        text: String,
    },
    /// A field of an object.
    #[error("{key}: {field}: {text}")]
    Field {
        /// Which object.
        key: Key,
        /// Which field, as a path from the top of the document.
        field: String,
        /// What is wrong with it.
        text: String,
    },
    /// The same object twice.
    #[error("{0} stands there twice")]
    Twice(Key),
}

/// Reads YAML documents (JSON is YAML), separated by `---`.
pub fn read(text: &str) -> Result<Vec<Document>, ReadError> {
    if text.len() > TEXT_MAX {
        return Err(ReadError::TooLong(text.len()));
    }
    // YAML 1.2: `y`, `no` and `on` are texts. A name may be `n`.
    let options = serde_saphyr::options! { strict_booleans: true };
    let values: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|e| ReadError::Syntax(e.to_string()))?;
    let mut documents = Vec::new();
    // A list of objects counts as that many documents; an empty document as none.
    let flat = values.into_iter().flat_map(|v| match v {
        Value::Array(all) => all,
        Value::Null => Vec::new(),
        one => vec![one],
    });
    for (at, value) in flat.enumerate() {
        let document = read_one(at + 1, value)?;
        if documents.iter().any(|d: &Document| d.key == document.key) {
            return Err(ReadError::Twice(document.key));
        }
        documents.push(document);
    }
    Ok(documents)
}

/// Reads the spec of an object.
pub fn read_spec(key: &Key, written: &Value) -> Result<Spec, ReadError> {
    fn typed<T: serde::de::DeserializeOwned>(key: &Key, value: &Value) -> Result<T, ReadError> {
        serde_path_to_error::deserialize(value).map_err(|e| {
            let path = e.path().to_string();
            let field = if path == "." { "spec".to_owned() } else { format!("spec.{path}") };
            ReadError::Field { key: key.clone(), field, text: e.into_inner().to_string() }
        })
    }
    Ok(match key.kind {
        Kind::Device => Spec::Device(typed(key, written)?),
        Kind::Datastore => Spec::Datastore(typed(key, written)?),
        Kind::Image => Spec::Image(typed(key, written)?),
        Kind::Volume => Spec::Volume(typed(key, written)?),
        Kind::Network => Spec::Network(typed(key, written)?),
        Kind::App => Spec::App(typed(key, written)?),
    })
}

/// Whether a text can name an object: 1 to 63 small letters, digits and `-`, no `-` at an end.
pub(crate) fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=NAME_MAX).contains(&text.len())
        && text.chars().all(plain)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn read_one(number: usize, value: Value) -> Result<Document, ReadError> {
    let wrong = |text: String| ReadError::Document { number, text };
    let Value::Object(mut fields) = value else {
        return Err(wrong("is no object with the keys kind, name and spec".into()));
    };
    let kind = text_field(&mut fields, "kind").map_err(wrong)?;
    let kind: Kind = kind.parse().map_err(|e| wrong(format!("kind: {e}")))?;
    let name = text_field(&mut fields, "name").map_err(wrong)?;
    if !is_name(&name) {
        return Err(wrong(format!(
            "name: {name:?} is no name; use 1 to {NAME_MAX} small letters, digits and `-`"
        )));
    }
    let key = Key { kind, name };
    let written = match fields.remove("spec") {
        None | Some(Value::Null) => Value::Object(Map::new()),
        Some(spec) => spec,
    };
    if let Some(unknown) = fields.keys().next() {
        return Err(ReadError::Field {
            key,
            field: unknown.clone(),
            text: format!("unknown key `{unknown}`, allowed are `kind`, `name`, `spec`"),
        });
    }
    let spec = read_spec(&key, &written)?;
    Ok(Document { key, spec, written })
}

fn text_field(fields: &mut Map<String, Value>, name: &str) -> Result<String, String> {
    match fields.remove(name) {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(format!("{name}: expected a text, found {other}")),
        None => Err(format!("lacks the key `{name}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::Many;

    #[track_caller]
    fn refused(text: &str, want: &str) {
        let error = read(text).expect_err(text).to_string();
        assert!(error.contains(want), "{error}\n  lacks {want}");
    }

    #[test]
    fn a_short_app_is_enough() {
        let text = "kind: App\nname: hello\nspec:\n  device: edge-1\n  image: hello:latest\n  ports: [\"8080:80\"]\n";
        let documents = read(text).unwrap();
        let Spec::App(app) = &documents[0].spec else { panic!("no app") };
        assert_eq!(app.device, Many(vec!["edge-1".into()]));
        assert_eq!(app.ports[0].to_string(), "8080:80");
        assert_eq!(app.network.iter().next().unwrap().name(), "default");
    }

    #[test]
    fn several_documents_json_and_empty_ones_are_read() {
        let text = "---\nkind: Network\nname: a\nspec: {subnet: 10.1.0.0/24}\n---\n\n---\n{\"kind\": \"Volume\", \"name\": \"b\", \"spec\": {\"size\": \"1GiB\"}}\n";
        let keys: Vec<_> = read(text).unwrap().into_iter().map(|d| d.key.to_string()).collect();
        assert_eq!(keys, ["Network a", "Volume b"]);
        assert!(read("").unwrap().is_empty());
    }

    #[test]
    fn an_error_names_object_field_and_what_is_allowed() {
        refused(
            "kind: App\nname: a\nspec: {image: x, prots: []}\n",
            "App a: spec.prots: unknown field `prots`, expected one of",
        );
        refused(
            "kind: App\nname: a\nspec: {image: x, ports: [80]}\n",
            "App a: spec.ports[0]: \"80\" is no port map",
        );
        refused("kind: App\nname: a\nspec: {}\n", "missing field `image`");
        refused(
            "kind: App\nname: a\nextra: 1\nspec: {image: x}\n",
            "unknown key `extra`, allowed are `kind`, `name`, `spec`",
        );
        refused(
            "kind: Appp\nname: a\n",
            "document 1: kind: \"Appp\" is no kind of object; there are Device, Datastore",
        );
        refused("kind: App\n", "document 1: lacks the key `name`");
        refused("kind: App\nname: A b\n", "is no name");
        refused(
            "kind: Volume\nname: v\n---\nkind: Volume\nname: v\n",
            "Volume v stands there twice",
        );
        refused("kind: [\n", "no YAML");
        refused("- 5\n", "document 1: is no object");
        refused("kind: Network\nname: n\nspec: {subnet: 10.1.0.0}\n", "Network n: spec.subnet:");
    }

    #[test]
    fn settings_may_be_numbers_and_truth_values() {
        let text = "kind: Device\nname: d\nspec: {settings: {timer.config.interval: 10, debug: true, x: y}}\n";
        let Spec::Device(device) = &read(text).unwrap()[0].spec else { panic!("no device") };
        let all: Vec<_> = device.settings.values().map(String::as_str).collect();
        assert_eq!(all, ["true", "10", "y"]);
    }
}
