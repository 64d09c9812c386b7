//! The catalogue: what can be deployed by filling in a form. An entry is a file beside this one:
//! fields, and objects with `{{ field }}` in their texts.
//!
//! Values are put into texts that were read already, so that none can become anything but a text.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Form, Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value;

use super::frame::{self, Page};
use super::{Caller, Trouble, html as page_of, objects, to};
use crate::access::guard::DryRun;
use crate::fleet::{Fleet, How};
use crate::objects::Kind;

/// The entries: id and text.
const ENTRIES: [(&str, &str); 5] = [
    ("web-server", include_str!("catalogue/web-server.yml")),
    ("message-broker", include_str!("catalogue/message-broker.yml")),
    ("key-value-store", include_str!("catalogue/key-value-store.yml")),
    ("own-image", include_str!("catalogue/own-image.yml")),
    ("private-network", include_str!("catalogue/private-network.yml")),
];
/// Nodes offered in a form; more are written by name.
const DEVICES_MAX: usize = 1_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    title: String,
    about: String,
    fields: Vec<Field>,
    objects: Vec<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Field {
    name: String,
    label: String,
    #[serde(default)]
    default: String,
    #[serde(default)]
    hint: String,
    #[serde(default)]
    kind: FieldKind,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FieldKind {
    #[default]
    Text,
    /// The name of a node, or `*`.
    Device,
}

fn entry(id: &str) -> Result<Entry, Trouble> {
    let (_, text) = ENTRIES.iter().find(|(name, _)| *name == id).ok_or(Trouble::Missing)?;
    serde_saphyr::from_str(text).map_err(|e| Trouble::Own(format!("catalogue entry {id}: {e}")))
}

/// The objects with the fields filled in.
fn filled(entry: &Entry, values: &BTreeMap<String, String>) -> Vec<Value> {
    let mut objects = entry.objects.clone();
    for object in &mut objects {
        fill(object, values);
    }
    objects
}

fn fill(value: &mut Value, values: &BTreeMap<String, String>) {
    match value {
        Value::String(text) => *text = fill_text(text, values),
        Value::Array(all) => all.iter_mut().for_each(|v| fill(v, values)),
        Value::Object(fields) => fields.values_mut().for_each(|v| fill(v, values)),
        _ => {}
    }
}

/// One pass: what a value brings along is not filled again.
fn fill_text(text: &str, values: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((name, behind)) = after.split_once("}}") else { break };
        out.push_str(before);
        out.push_str(values.get(name.trim()).map_or("", String::as_str));
        rest = behind;
    }
    out + rest
}

pub(super) async fn list(caller: Caller) -> Result<Response, Trouble> {
    let mut entries = Vec::new();
    for (id, _) in ENTRIES {
        entries.push((id, entry(id)?));
    }
    let words = "Fill in a few fields and see what changes before it does.";
    let head = frame::head(
        &[],
        "Catalogue",
        words,
        &html! { @if frame::acts(&caller) { a.button href="/objects/new?kind=App" { "Write an app of your own" } } },
    );
    let part = html! {
        div.cards {
            @for (id, entry) in &entries {
                section.card {
                    h2 { (entry.title) }
                    p { (entry.about) }
                    @if frame::acts(&caller) { div { a.button href={ "/catalogue/" (id) } aria-label={ "Deploy: " (entry.title) } { "Deploy" } } }
                }
            }
        }
    };
    let page = Page { who: &caller, title: "Catalogue", way: "/catalogue", head, live: None, part };
    Ok(page_of(StatusCode::OK, page.whole()))
}

pub(super) async fn form(
    State(fleet): State<Arc<Fleet>>,
    Path(id): Path<String>,
    caller: Caller,
) -> Result<Response, Trouble> {
    let entry = entry(&id)?;
    let values = entry.fields.iter().map(|f| (f.name.clone(), f.default.clone())).collect();
    Ok(page_of(
        StatusCode::OK,
        form_page(&fleet, &caller, (&id, &entry), &values, &Markup::default()),
    ))
}

fn form_page(
    fleet: &Fleet,
    who: &Caller,
    (id, entry): (&str, &Entry),
    values: &BTreeMap<String, String>,
    outcome: &Markup,
) -> String {
    let known = fleet.known();
    let devices: Vec<&str> =
        known.of_kind(Kind::Device).take(DEVICES_MAX).map(|s| s.object.key.name.as_str()).collect();
    let value = |field: &Field| values.get(&field.name).map_or("", String::as_str).to_owned();
    let part = html! {
        (outcome)
        form.card method=[frame::acts(who).then_some("post")] action={ "/catalogue/" (id) } {
            @for field in &entry.fields {
                div.field {
                    label for={ "f-" (field.name) } { (field.label) }
                    @match field.kind {
                        FieldKind::Device => {
                            input id={ "f-" (field.name) } name=(field.name) list="devices" value=(value(field)) required autocomplete="off" aria-describedby={ "h-" (field.name) };
                            datalist #devices { option value="*" { "every node" } @for name in &devices { option value=(name) {} } }
                            p.hint id={ "h-" (field.name) } { "The name of a node, or * for every node" @if devices.is_empty() { ". There is none yet: the app waits for it" } }
                        },
                        FieldKind::Text => {
                            input id={ "f-" (field.name) } name=(field.name) value=(value(field)) required autocomplete="off" aria-describedby=[(!field.hint.is_empty()).then(|| format!("h-{}", field.name))];
                            @if !field.hint.is_empty() { p.hint id={ "h-" (field.name) } { (field.hint) } }
                        },
                    }
                }
            }
            @if frame::acts(who) { div.actions {
                button.first name="do" value="check" { "See what changes" }
                button name="do" value="deploy" { "Deploy" }
            } }
        }
    };
    let head =
        frame::head(&[("/catalogue", "Catalogue")], &entry.title, &entry.about, &Markup::default());
    Page { who, title: &entry.title, way: "/catalogue", head, live: None, part }.whole()
}

pub(super) async fn deploy(
    State(fleet): State<Arc<Fleet>>,
    Path(id): Path<String>,
    caller: Caller,
    Form(mut values): Form<BTreeMap<String, String>>,
) -> Result<Response, Trouble> {
    let entry = entry(&id)?;
    let wish = values.remove("do").unwrap_or_default();
    let values: BTreeMap<String, String> =
        values.into_iter().map(|(k, v)| (k, v.trim().to_owned())).collect();
    let objects = filled(&entry, &values);
    let documents = Value::Array(objects.clone()).to_string();
    let dry_run = wish != "deploy";
    let how = How { dry_run, allow_missing: true, ..How::default() };
    let known = fleet.known();
    let applied = fleet.apply(&documents, &how, &caller.name).await;
    let answer = match applied {
        Ok(_) if !dry_run => Ok(to(&after(&objects))),
        Ok(applied) => {
            let outcome = objects::outcome(&known, &applied, &documents);
            Ok(page_of(
                StatusCode::OK,
                form_page(&fleet, &caller, (&id, &entry), &values, &outcome),
            ))
        }
        Err(e) => {
            let outcome = objects::refusal(e)?;
            let text = form_page(&fleet, &caller, (&id, &entry), &values, &outcome);
            Ok(page_of(StatusCode::UNPROCESSABLE_ENTITY, text))
        }
    };
    answer.map(|response| DryRun::mark(response, dry_run))
}

/// Where what was deployed is looked at.
fn after(objects: &[Value]) -> String {
    let app = objects.iter().find(|o| o.get("kind").is_some_and(|k| k == "App"));
    match app.and_then(|o| o.get("name")).and_then(Value::as_str) {
        Some(name) => format!("/apps/{name}"),
        None => "/objects".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::{check, read};

    #[test]
    fn every_entry_fits_our_objects_with_its_defaults() {
        for (id, _) in ENTRIES {
            let entry = entry(id).unwrap_or_else(|_| panic!("{id}"));
            let mut values: BTreeMap<String, String> =
                entry.fields.iter().map(|f| (f.name.clone(), f.default.clone())).collect();
            for field in entry.fields.iter().filter(|f| f.kind == FieldKind::Device) {
                values.insert(field.name.clone(), "edge-1".to_owned());
            }
            let objects = filled(&entry, &values);
            let text = Value::Array(objects).to_string();
            assert!(!text.contains("{{"), "{id}: {text}");
            let documents = read(&text).unwrap_or_else(|e| panic!("{id}: {e}"));
            assert_eq!(documents.len(), entry.objects.len());
        }
        assert!(check(&BTreeMap::new()).is_empty());
    }

    #[test]
    fn values_stay_texts_whatever_they_hold() {
        let values = BTreeMap::from([("a".to_owned(), "x\", b: {{ a }}".to_owned())]);
        assert_eq!(fill_text("<{{ a }}>{{ b }}{{", &values), "<x\", b: {{ a }}>{{");
    }
}
