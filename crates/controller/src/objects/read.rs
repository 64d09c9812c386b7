//! YAML or JSON documents to objects, with errors that name document, object and field.

use serde_json::{Map, Value};

use super::places::{Located, Places};
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
    /// Where its fields stand in the text.
    pub places: Places,
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
    #[error("{place}document {number}: {text}")]
    Document {
        /// Counted from 1.
        number: usize,
        /// Where it stands: `LINE:COLUMN: `, or nothing.
        place: String,
        /// What is wrong.
        text: String,
    },
    /// A field of an object.
    #[error("{place}{key}: {field}: {text}")]
    Field {
        /// Where it stands: `LINE:COLUMN: `, or nothing.
        place: String,
        /// Which object.
        key: Key,
        /// Which field, as a path from the top of the document.
        field: String,
        /// What is wrong with it.
        text: String,
    },
    /// The same object twice.
    #[error("{place}{key} stands there twice")]
    Twice {
        /// Where it stands the second time: `LINE:COLUMN: `, or nothing.
        place: String,
        /// Which object.
        key: Key,
    },
}

/// Reads YAML documents (JSON is YAML), separated by `---`.
pub fn read(text: &str) -> Result<Vec<Document>, ReadError> {
    if text.len() > TEXT_MAX {
        return Err(ReadError::TooLong(text.len()));
    }
    // YAML 1.2: `y`, `no` and `on` are texts. A name may be `n`.
    let options = serde_saphyr::options! { strict_booleans: true };
    let values: Vec<serde_saphyr::Spanned<Located>> =
        serde_saphyr::from_multiple_with_options(text, options)
            .map_err(|e| ReadError::Syntax(e.to_string()))?;
    let mut documents: Vec<Document> = Vec::new();
    // A list of objects counts as that many documents; an empty document as none.
    let flat = values.into_iter().flat_map(|v| match v.value {
        Located::Sequence(all) => all,
        Located::Scalar(Value::Null) => Vec::new(),
        _ => vec![v],
    });
    for (at, value) in flat.enumerate() {
        let (value, places) = Places::of(value);
        let document = read_one(at + 1, value, places)?;
        if documents.iter().any(|d| d.key == document.key) {
            let place = document.places.text("name");
            return Err(ReadError::Twice { place, key: document.key });
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
            let (place, text) = (String::new(), in_words(e.into_inner().to_string()));
            ReadError::Field { place, key: key.clone(), field, text }
        })
    }
    Ok(match key.kind {
        Kind::Device => Spec::Device(typed(key, written)?),
        Kind::Datastore => Spec::Datastore(typed(key, written)?),
        Kind::Image => Spec::Image(typed(key, written)?),
        Kind::Volume => Spec::Volume(typed(key, written)?),
        Kind::Network => Spec::Network(typed(key, written)?),
        Kind::App => Spec::App(typed(key, written)?),
        Kind::Hardware => Spec::Hardware(typed(key, written)?),
        Kind::BaseOs => Spec::BaseOs(typed(key, written)?),
        Kind::Secret => match typed(key, written) {
            Ok(secret) => Spec::Secret(secret),
            // The words of the reader may quote what it found.
            Err(ReadError::Field { place, key, field, .. }) => {
                let text = "expected {value: TEXT}, and nothing else".to_owned();
                return Err(ReadError::Field { place, key, field, text });
            }
            Err(other) => return Err(other),
        },
        Kind::Enrolment => Spec::Enrolment(typed(key, written)?),
        Kind::Patch => Spec::Patch(typed(key, written)?),
        Kind::Project => Spec::Project(typed(key, written)?),
        Kind::Template => Spec::Template(typed(key, written)?),
        Kind::Group => Spec::Group(typed(key, written)?),
        Kind::Window => Spec::Window(typed(key, written)?),
        Kind::AlertRule => Spec::AlertRule(typed(key, written)?),
    })
}

/// What the reader says, in words of documents.
fn in_words(text: String) -> String {
    let Some((found, wanted)) = text.split_once(", expected ") else { return text };
    if wanted == "struct SecretRef" {
        // What was found may be the value itself.
        return "expected {secret: NAME}: a password stands in a Secret, and its name here"
            .to_owned();
    }
    let number = ["integer `", "floating point `", "boolean `"];
    let number = number.iter().any(|kind| found.starts_with(&format!("invalid type: {kind}")));
    match wanted {
        "a string" | "a borrowed string" if number => {
            format!("{text}; write it in quotes, as it would be read as another one else")
        }
        _ if wanted.starts_with("struct ") => format!("{found}, expected fields, as `name: value`"),
        _ => text,
    }
}

/// What is shown in place of a secret's value.
pub(crate) const NOT_SHOWN: &str = "(not shown)";

/// What an object says, as it was written: its fields as compact JSON, because a fleet keeps a
/// hundred thousand of these in memory.
#[derive(Clone, PartialEq, Eq)]
pub struct WrittenSpec(Box<str>);

impl WrittenSpec {
    /// The fields.
    pub fn value(&self) -> Value {
        // It was made of a value.
        serde_json::from_str(&self.0).unwrap_or_default()
    }
}

impl From<&Value> for WrittenSpec {
    fn from(value: &Value) -> WrittenSpec {
        WrittenSpec(value.to_string().into())
    }
}

/// Without the text: it may be a secret's.
impl std::fmt::Debug for WrittenSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WrittenSpec({} bytes)", self.0.len())
    }
}

/// What may be shown of a spec as it was written: everything but the value of a secret. A document
/// that says so keeps the value that is there.
pub fn shown(kind: Kind, written: &Value) -> Value {
    let mut written = written.clone();
    let hidden = Value::String(NOT_SHOWN.to_owned());
    match (kind, &mut written) {
        (Kind::Secret, Value::Object(fields)) => {
            fields.insert("value".to_owned(), hidden);
        }
        (Kind::AlertRule, Value::Object(fields)) => {
            if let Some(secret) = fields.get_mut("secret").filter(|s| s.is_string()) {
                *secret = hidden;
            }
        }
        _ => {}
    }
    written
}

/// Whether a text can name an object: 1 to 63 small letters, digits and `-`, no `-` at an end.
pub(crate) fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=NAME_MAX).contains(&text.len())
        && text.chars().all(plain)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn read_one(number: usize, value: Value, places: Places) -> Result<Document, ReadError> {
    let wrong = |text: String| {
        let field = text.split(':').next().unwrap_or_default();
        ReadError::Document { number, place: places.text(field), text }
    };
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
            place: places.text(unknown),
            key,
            field: unknown.clone(),
            text: format!("unknown key `{unknown}`, allowed are `kind`, `name`, `spec`"),
        });
    }
    let spec = read_spec(&key, &written).map_err(|e| match e {
        ReadError::Field { key, field, text, .. } => {
            // An unknown key is the field itself, and named in the text only.
            let unknown = text.strip_prefix("unknown field `").and_then(|t| t.split('`').next());
            let place = match unknown {
                Some(name) if !field.ends_with(name) => places.text(&format!("{field}.{name}")),
                _ => places.text(&field),
            };
            ReadError::Field { place, key, field, text }
        }
        other => other,
    })?;
    Ok(Document { key, spec, written, places })
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
        assert_eq!(app.device.names, ["edge-1"]);
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
        refused(
            "kind: Device\nname: d\nspec: {serial: 0012}\n",
            "Device d: spec.serial: invalid type: floating point `12.0`, expected a string; write it in quotes",
        );
        refused("kind: Device\nname: d\nspec: {serial: true}\n", "write it in quotes");
        refused("kind: Device\nname: d\nspec: edge\n", "expected fields, as `name: value`");
        let datastore = "kind: Datastore\nname: m\nspec: {type: https, password: hunter2}\n";
        refused(
            datastore,
            "Datastore m: spec.password: expected {secret: NAME}: a password stands",
        );
        assert!(!read(datastore).unwrap_err().to_string().contains("hunter2"));
    }

    #[test]
    fn settings_may_be_numbers_and_truth_values() {
        let text = "kind: Device\nname: d\nspec: {settings: {timer.config.interval: 10, debug: true, x: y}}\n";
        let Spec::Device(device) = &read(text).unwrap()[0].spec else { panic!("no device") };
        let all: Vec<_> = device.settings.values().map(String::as_str).collect();
        assert_eq!(all, ["true", "10", "y"]);
    }

    #[test]
    fn an_error_says_where_it_stands() {
        let text = "kind: Volume\nname: v\n---\nkind: App\nname: a\nspec:\n  image: x\n  ports:\n    - \"80\"\n";
        refused(text, "9:7: App a: spec.ports[0]:");
        refused("kind: App\nname: a\nspec:\n  image: x\n  prots: []\n", "5:");
        refused("kind: Volume\nname: v\n---\nkind: Volume\nname: v\n", "5:7: Volume v");
        refused("kind: Volume\nname: B d\n", "2:7: document 1: name:");
        refused("kind: App\nname: a\nextra: 1\nspec: {image: x}\n", "3:8: App a: extra:");
    }

    #[test]
    fn a_secret_is_shown_to_nobody() {
        let documents = read("kind: Secret\nname: s\nspec: {value: hunter2}\n").unwrap();
        assert!(!format!("{:?}", documents[0].spec).contains("hunter2"));
        let shown = shown(Kind::Secret, &documents[0].written).to_string();
        assert!(!shown.contains("hunter2"), "{shown}");
        let error = read("kind: Secret\nname: s\nspec: hunter2\n").unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
}
