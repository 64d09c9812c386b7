//! Templates and variables: what a device says is completed by its template, and `{{ name }}` in a
//! text of its template, or of an app it runs, stands for a variable of the device.
//!
//! A name is letters, digits, `_` and `-`; double braces around anything else are left alone, since
//! other templates (cloud-init's) use them too. The variable `device` is the node's name.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;

use super::spec::{AppSpec, DeviceSpec, Spec};
use super::{Flaw, Key, Kind, Object, Objects};

/// The variable that is a node's name.
const DEVICE: &str = "device";

/// A device with its template in place.
#[derive(Debug, Clone)]
pub struct Node<'a> {
    /// Its object.
    pub object: &'a Object,
    /// All it says.
    pub spec: Cow<'a, DeviceSpec>,
    /// Its variables, with those of its template.
    pub variables: BTreeMap<String, String>,
    /// What is wrong with its template or variables.
    pub flaws: Vec<Flaw>,
}

/// The device of an object. `None`: it is none. What cannot be completed stays as it is written.
pub fn node<'a>(objects: &'a Objects, object: &'a Object) -> Option<Node<'a>> {
    let Spec::Device(own) = &object.spec else { return None };
    let mut node =
        Node { object, spec: Cow::Borrowed(own), variables: BTreeMap::new(), flaws: Vec::new() };
    let template = own.template.as_ref().map(|name| Key::new(Kind::Template, name));
    let template = template.as_ref().and_then(|key| Some((key, &**objects.get(key)?)));
    if let Some((key, Object { spec: Spec::Template(template), .. })) = template {
        node.variables.clone_from(&template.variables);
        node.variables.extend(own.variables.clone());
        node.variables.insert(DEVICE.to_owned(), object.key.name.clone());
        let mut value = template.device.clone();
        let mut used = Used { variables: &node.variables, unknown: Vec::new(), any: false };
        used.substitute(&mut value, &mut "device".to_owned());
        let unknown = std::mem::take(&mut used.unknown);
        for (field, name) in unknown {
            let text = format!("{key}: {field}: {}", node.no_variable(&name));
            node.flaw("spec.template", text);
        }
        match joined::<DeviceSpec>(value, own) {
            Ok(spec) => node.spec = Cow::Owned(spec),
            Err(why) => node.flaw("spec.template", format!("{key}: {why}")),
        }
    } else {
        node.variables.clone_from(&own.variables);
        node.variables.insert(DEVICE.to_owned(), object.key.name.clone());
    }
    Some(node)
}

/// The labels of a device as it has them with its template in place, by key: what [`node`] says of
/// them, without the rest, since queries ask a hundred thousand devices. Empty of what is no device.
pub(crate) fn labels<'a>(
    objects: &'a Objects,
    device: &'a Object,
) -> BTreeMap<&'a str, Cow<'a, str>> {
    let Spec::Device(own) = &device.spec else { return BTreeMap::new() };
    let mut all = BTreeMap::new();
    if let Some(name) = &own.template
        && let Some(template) = objects.get(&Key::new(Kind::Template, name))
        && let Spec::Template(template) = &template.spec
        && let Some(Value::Object(given)) = template.device.get("labels")
    {
        for (key, value) in given {
            let Some(text) = label(value, &template.variables, device, own) else {
                // A template that cannot be read gives nothing.
                all.clear();
                break;
            };
            all.insert(key.as_str(), text);
        }
    }
    all.extend(own.labels.iter().map(|(k, v)| (k.as_str(), Cow::Borrowed(v.as_str()))));
    all
}

/// A label of a template, as it is on a device. `None`: it is neither a text, a number nor a truth
/// value.
fn label<'a>(
    value: &'a Value,
    variables: &BTreeMap<String, String>,
    device: &Object,
    own: &DeviceSpec,
) -> Option<Cow<'a, str>> {
    match value {
        Value::String(text) if text.contains("{{") => {
            let mut variables = variables.clone();
            variables.extend(own.variables.clone());
            variables.insert(DEVICE.to_owned(), device.key.name.clone());
            let mut used = Used { variables: &variables, unknown: Vec::new(), any: false };
            Some(used.text(text, "").into())
        }
        Value::String(text) => Some(text.into()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string().into()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

impl Node<'_> {
    /// What an app says on this node. The second value differs whenever a variable that the app
    /// uses has another value; 0 if it uses none. The errors name the app's fields.
    pub fn app<'a>(&self, key: &Key, app: &'a AppSpec) -> (Cow<'a, AppSpec>, u32, Vec<Flaw>) {
        let whole = (Cow::Borrowed(app), 0, Vec::new());
        let Ok(mut value) = serde_json::to_value(app) else { return whole };
        let mut used = Used { variables: &self.variables, unknown: Vec::new(), any: false };
        used.substitute(&mut value, &mut "spec".to_owned());
        let flaw = |(field, name): (String, String)| {
            let text = self.no_variable(&name);
            Flaw { key: key.clone(), field, text, missing: false }
        };
        let flaws: Vec<Flaw> = used.unknown.drain(..).map(flaw).collect();
        if !used.any {
            return (Cow::Borrowed(app), 0, flaws);
        }
        let mark = fnv(value.to_string().as_bytes());
        match typed::<AppSpec>(value) {
            Ok(spec) => (Cow::Owned(spec), mark, flaws),
            Err(text) => {
                let text = format!("on {}: {text}", self.object.key);
                let flaw = Flaw { key: key.clone(), field: "spec".into(), text, missing: false };
                (Cow::Borrowed(app), 0, [flaws, vec![flaw]].concat())
            }
        }
    }

    fn no_variable(&self, name: &str) -> String {
        let known: Vec<&str> = self.variables.keys().map(String::as_str).collect();
        format!("{} has no variable {name} (it has {})", self.object.key, known.join(", "))
    }

    fn flaw(&mut self, field: &str, text: String) {
        let key = self.object.key.clone();
        self.flaws.push(Flaw { key, field: field.to_owned(), text, missing: false });
    }
}

struct Used<'a> {
    variables: &'a BTreeMap<String, String>,
    unknown: Vec<(String, String)>,
    any: bool,
}

impl Used<'_> {
    fn substitute(&mut self, value: &mut Value, path: &mut String) {
        let length = path.len();
        match value {
            Value::String(text) if text.contains("{{") => *text = self.text(text, path),
            Value::Array(all) => {
                for (at, one) in all.iter_mut().enumerate() {
                    path.push_str(&format!("[{at}]"));
                    self.substitute(one, path);
                    path.truncate(length);
                }
            }
            Value::Object(all) => {
                for (key, one) in all.iter_mut() {
                    path.push('.');
                    path.push_str(key);
                    self.substitute(one, path);
                    path.truncate(length);
                }
            }
            _ => {}
        }
    }

    fn text(&mut self, text: &str, path: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            out.push_str(before);
            let named = after.split_once("}}").map(|(name, tail)| (name.trim(), tail));
            match named.filter(|(name, _)| is_variable(name)) {
                Some((name, tail)) => {
                    match self.variables.get(name) {
                        Some(value) => {
                            self.any = true;
                            out.push_str(value);
                        }
                        None => self.unknown.push((path.to_owned(), name.to_owned())),
                    }
                    rest = tail;
                }
                None => {
                    out.push_str("{{");
                    rest = after;
                }
            }
        }
        out.push_str(rest);
        out
    }
}

/// Whether any text of an app may hold a variable.
pub(super) fn uses_variables(app: &AppSpec) -> bool {
    serde_json::to_string(app).is_ok_and(|text| text.contains("{{"))
}

/// Whether a text can name a variable.
pub(super) fn is_variable(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    (1..=63).contains(&name.len()) && name.chars().all(plain)
}

/// The template's fields under the device's own; maps are joined.
fn joined<T: DeserializeOwned>(template: Value, own: &DeviceSpec) -> Result<T, String> {
    let Value::Object(mut fields) = template else {
        return Err("device: it is no object".to_owned());
    };
    let said = serde_json::to_value(own).map_err(|e| e.to_string())?;
    let silent = serde_json::to_value(DeviceSpec::default()).map_err(|e| e.to_string())?;
    if let (Value::Object(said), Value::Object(silent)) = (said, silent) {
        for (name, value) in said {
            if silent.get(&name) == Some(&value) {
                continue;
            }
            match (fields.get_mut(&name), value) {
                (Some(Value::Object(under)), Value::Object(over))
                    if ["settings", "labels", "variables"].contains(&name.as_str()) =>
                {
                    under.extend(over);
                }
                (_, value) => {
                    fields.insert(name, value);
                }
            }
        }
    }
    typed(Value::Object(fields))
}

/// Reads a value; a text where a number or a truth value belongs counts as that, since variables
/// are texts.
fn typed<T: DeserializeOwned>(mut value: Value) -> Result<T, String> {
    loop {
        let error = match serde_path_to_error::deserialize::<_, T>(&value) {
            Ok(read) => return Ok(read),
            Err(error) => error,
        };
        let place = error.path().iter().try_fold(&mut value, |at, segment| match segment {
            Segment::Map { key } => at.get_mut(key),
            Segment::Seq { index } => at.get_mut(*index),
            _ => Some(at),
        });
        let scalar = match &place {
            Some(Value::String(text)) => match serde_json::from_str::<Value>(text) {
                Ok(scalar @ (Value::Number(_) | Value::Bool(_))) => Some(scalar),
                _ => None,
            },
            _ => None,
        };
        match (place, scalar) {
            // Each turn leaves one text less, so it ends.
            (Some(place), Some(scalar)) => *place = scalar,
            _ => return Err(format!("{}: {}", error.path(), error.inner())),
        }
    }
}

/// FNV-1a, 32 bits.
pub(super) fn fnv(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}
