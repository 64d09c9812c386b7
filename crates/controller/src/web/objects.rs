//! Objects as they are written: a list, an editor with a check before anything changes, histories.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Form, Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Value, json};

use super::device_parts::summary;
use super::diff::diff;
use super::frame::{self, Page, Tone, empty, state, url, when};
use super::{Caller, Part, Trouble, answer, html as page_of, to};
use crate::access::guard::DryRun;
use crate::fleet::{Fleet, FleetError, How, Known};
use crate::objects::{Key, Kind, read, shown};
use crate::view::{Action, Applied};

/// Objects of one page.
const PAGE: usize = 200;
const VERSIONS: u32 = 100;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Which {
    q: String,
    kind: String,
}

pub(super) async fn list(
    State(fleet): State<Arc<Fleet>>,
    Query(which): Query<Which>,
    Query(part): Query<Part>,
    caller: Caller,
) -> Result<Response, Trouble> {
    let known = fleet.known();
    let now = fleet.now();
    let words = which.q.trim().to_lowercase();
    let found: Vec<_> = known
        .stored
        .values()
        .filter(|s| which.kind.is_empty() || s.object.key.kind.name() == which.kind)
        .filter(|s| words.is_empty() || s.object.key.name.contains(&words))
        .collect();
    let mut kinds = vec![(String::new(), "all kinds".to_owned())];
    // Groups, windows and rules have pages of their own.
    let listed = Kind::ALL.into_iter().filter(|k| !k.is_policy());
    kinds.extend(listed.map(|k| (k.name().to_owned(), k.name().to_owned())));
    let text =
        "What nodes are told is made of these. They are written as YAML, here or with eve apply.";
    let head = html! {
        (frame::head(&[], "Objects", text, &html! { @if frame::acts(&caller) { a.button.first href="/objects/new" { "Write one" } } }))
        form.filters role="search" action="/objects" data-filter="" {
            (frame::choice("kind", "kind", "Kind", &kinds, &which.kind))
            div.wide { label for="q" { "Search" } input #q name="q" type="search" value=(which.q) placeholder="name" autocomplete="off"; }
            button { "Show" }
        }
    };
    let body = html! {
        div.card {
            @if known.stored.is_empty() {
                (empty("There is no object yet", "Add a node, or deploy an app of the catalogue; both write objects.", Some(("/onboard", "Add a node"))))
            } @else if found.is_empty() { (empty("No object is so", "No name of this kind holds these words.", Some(("/objects", "Show all objects")))) }
            @else {
                div.scroll { table.stack {
                    thead { tr { th scope="col" { "Object" } th scope="col" { "Says" } th scope="col" { "Changed" } th.number scope="col" { "Version" } } }
                    tbody {
                        @for stored in found.iter().take(PAGE) {
                            @let key = &stored.object.key;
                            tr {
                                td data-of="" {
                                    span.soft { (key.kind) " " } a.name href={ "/objects/" (key.kind) "/" (key.name) } { (key.name) }
                                    @for flaw in known.flaws.iter().filter(|f| f.key == *key).take(3) { div.why { (flaw.field) ": " (flaw.text) } }
                                }
                                td data-of="Says" { (summary(&stored.object.spec)) }
                                td.tight data-of="Changed" { (when(now, stored.changed)) }
                                td.number data-of="Version" { (stored.object.generation) }
                            }
                        }
                    }
                } }
                @if found.len() > PAGE { p.soft { "The first " (PAGE) " of " (found.len()) "; search for the others." } }
            }
        }
    };
    let live = Some(url("/objects", &[("kind", &which.kind), ("q", &which.q)]));
    Ok(answer(
        &part,
        &Page { who: &caller, title: "Objects", way: "/objects", head, live, part: body },
    ))
}

/// An object as an operator writes it, without what nobody may see ([`shown`]).
pub(super) fn yaml(key: &Key, spec: &Value) -> Result<String, Trouble> {
    let spec = shown(key.kind, spec);
    let whole = json!({"kind": key.kind.name(), "name": key.name, "spec": spec});
    serde_saphyr::to_string(&whole).map_err(|e| Trouble::Own(format!("{key} as YAML: {e}")))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct NewOf {
    kind: String,
}

/// What a new object may look like.
fn example(kind: Kind) -> Option<&'static str> {
    Some(match kind.name() {
        "Device" => {
            "kind: Device\nname: edge-1\nspec:\n  serial: \"1234\"\n  settings:\n    timer.config.interval: 60\n"
        }
        "App" => {
            "kind: App\nname: hello\nspec:\n  device: edge-1\n  image: hello:latest\n  ports: [\"8080:80\"]\n  memory: 128MiB\n"
        }
        "Network" => "kind: Network\nname: plant\nspec:\n  type: local\n  subnet: 10.20.0.0/24\n",
        "Volume" => "kind: Volume\nname: data\nspec:\n  size: 1GiB\n",
        "Image" => "kind: Image\nname: hello\nspec:\n  path: hello:latest\n",
        "Datastore" => {
            "kind: Datastore\nname: docker-hub\nspec:\n  type: registry\n  host: registry-1.docker.io\n"
        }
        _ => return None,
    })
}

pub(super) async fn new(Query(of): Query<NewOf>, caller: Caller) -> Result<Response, Trouble> {
    let kind = of.kind.parse().unwrap_or(Kind::App);
    let plain = format!("kind: {kind}\nname: \nspec: {{}}\n");
    let text = example(kind).map_or(plain, str::to_owned);
    let ways = html! {
        p.soft {
            "Begin with: "
            @for kind in Kind::ALL.into_iter().filter(|k| !k.is_policy()) { a href={ "/objects/new?kind=" (kind) } { (kind) } " " }
        }
    };
    let title = format!("New {kind}");
    let page = editor(&caller, (&title, &text), &[], &ways, None);
    Ok(page_of(StatusCode::OK, page))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct From {
    /// A revision whose text is to be the start.
    from: String,
}

fn key(kind: &str, name: &str) -> Result<Key, Trouble> {
    Ok(Key::new(kind.parse::<Kind>().map_err(|_| Trouble::Missing)?, name))
}

pub(super) async fn edit(
    State(fleet): State<Arc<Fleet>>,
    Path((kind, name)): Path<(String, String)>,
    Query(From { from }): Query<From>,
    caller: Caller,
) -> Result<Response, Trouble> {
    let key = key(&kind, &name)?;
    let known = fleet.known();
    let stored = known.stored.get(&key);
    let generation = stored.map_or(0, |s| s.object.generation);
    let mut said = Markup::default();
    let text = match from.parse::<u64>() {
        Ok(revision) => {
            let versions = fleet.db.versions(&key, u64::MAX, VERSIONS).await?;
            let old = versions.iter().find(|v| v.revision == revision).ok_or(Trouble::Missing)?;
            said = html! { p.note.wait { "This is what " (key) " said " (when(fleet.now(), old.at)) ". Saving makes it say so again." } };
            yaml(&key, old.spec.as_ref().ok_or(Trouble::Missing)?)?
        }
        Err(_) => yaml(&key, &stored.ok_or(Trouble::Missing)?.written.value())?,
    };
    let flaws: Vec<_> = known.flaws.iter().filter(|f| f.key == key).collect();
    let said = html! {
        (said)
        @if !flaws.is_empty() { div.note.bad { b { "It has mistakes" } ul { @for f in flaws { li { (f.field) ": " (f.text) } } } } }
    };
    let page =
        editor(&caller, (&key.to_string(), &text), &[(key.clone(), generation)], &said, None);
    Ok(page_of(StatusCode::OK, page))
}

/// The editor. `looked` are the objects it began with, and their versions then.
fn editor(
    who: &Caller,
    (title, text): (&str, &str),
    looked: &[(Key, u64)],
    said: &Markup,
    line: Option<u64>,
) -> String {
    let own = looked.first().map(|(key, _)| key);
    let numbers: Vec<String> = (1..=text.lines().count().max(1)).map(|n| n.to_string()).collect();
    let actions = html! {
        @if let Some(key) = own {
            @match key.kind {
                Kind::Device => a.button href={ "/devices/" (key.name) } { "The node" },
                Kind::App => a.button href={ "/apps/" (key.name) } { "The app" },
                _ => {},
            }
            a.button href={ "/objects/" (key.kind) "/" (key.name) "/history" } { "History" }
            @if key.kind != Kind::Device && frame::acts(who) {
                details.menu {
                    summary { "Delete" }
                    div { form method="post" action={ "/objects/" (key.kind) "/" (key.name) "/delete" } {
                        p { "It goes from every node that has it. Refused while something refers to it." }
                        button.risky { "Delete " (key) }
                    } }
                }
            }
        }
    };
    let head = frame::head(&[("/objects", "Objects")], title, "", &actions);
    let part = html! {
        (said)
        form method=[frame::acts(who).then_some("post")] action="/objects/save" {
            @for (key, generation) in looked { input type="hidden" name="looked" value={ (key.kind) "/" (key.name) "/" (generation) }; }
            input type="hidden" name="title" value=(title);
            label for="text" { "YAML, one object or several" }
            div.editor {
                pre aria-hidden="true" { (numbers.join("\n")) }
                textarea #text name="text" spellcheck="false" autocapitalize="off" readonly[!frame::acts(who)] data-line=[line] { (text) }
            }
            @if frame::acts(who) { p.hint { "Tab leaves the field. What is wrong is told with its line before anything changes." }
            div.actions {
                button.first name="do" value="check" { "See what changes" }
                button name="do" value="save" { "Save" }
            } }
        }
    };
    Page { who, title, way: "/objects", head, live: None, part }.whole()
}

/// What the editor sends.
#[derive(Debug, Deserialize)]
pub(super) struct Edited {
    text: String,
    #[serde(default)]
    title: String,
    /// `Kind/name/generation` of what was looked at.
    #[serde(default)]
    looked: String,
    #[serde(default, rename = "do")]
    wish: String,
}

fn looked(text: &str) -> Option<(Key, u64)> {
    let mut parts = text.splitn(3, '/');
    let key = Key::new(parts.next()?.parse::<Kind>().ok()?, parts.next()?);
    Some((key, parts.next()?.parse().ok()?))
}

pub(super) async fn save(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
    Form(edited): Form<Edited>,
) -> Result<Response, Trouble> {
    // Browsers end lines by CR LF.
    let text = edited.text.replace("\r\n", "\n");
    let mut expected: Vec<(Key, u64)> = looked(&edited.looked).into_iter().collect();
    let dry_run = edited.wish != "save";
    let how = How { dry_run, expected: expected.clone(), ..How::default() };
    let known = fleet.known();
    let answer = match fleet.apply(&text, &how, &caller.name).await {
        Ok(applied) if !dry_run => {
            let first = applied.changes.first().map(|c| &c.key);
            Ok(to(&first.map_or_else(|| "/objects".to_owned(), place)))
        }
        Ok(applied) => {
            let said = outcome(&known, &applied, &text);
            Ok(page_of(
                StatusCode::OK,
                editor(&caller, (&edited.title, &text), &expected, &said, None),
            ))
        }
        Err(FleetError::Overtaken { key, found, .. }) => {
            let now = fleet.known();
            let theirs =
                now.stored.get(&key).map(|s| yaml(&key, &s.written.value())).transpose()?;
            let theirs = theirs.unwrap_or_default();
            let said = html! {
                div.note.wait role="alert" {
                    b { "Somebody else changed " (key) " meanwhile. " }
                    "Nothing was saved. Below: from what it says now to what you wrote. Take over by hand what you want to keep; saving again replaces the other's change."
                }
                div.card { (diff(&theirs, &text)) }
            };
            expected.iter_mut().filter(|(k, _)| *k == key).for_each(|(_, g)| *g = found);
            let page = editor(&caller, (&edited.title, &text), &expected, &said, None);
            Ok(page_of(StatusCode::CONFLICT, page))
        }
        Err(e) => {
            let line = line_of(&e.to_string());
            let said = refusal(e)?;
            let page = editor(&caller, (&edited.title, &text), &expected, &said, line);
            Ok(page_of(StatusCode::UNPROCESSABLE_ENTITY, page))
        }
    };
    answer.map(|response| DryRun::mark(response, dry_run))
}

/// Where an object is looked at after it was saved.
fn place(key: &Key) -> String {
    match key.kind {
        Kind::Device => format!("/devices/{}", key.name),
        Kind::App => format!("/apps/{}", key.name),
        Kind::Group | Kind::Window => "/groups".to_owned(),
        Kind::AlertRule => "/alerts/rules".to_owned(),
        _ => format!("/objects/{}/{}", key.kind, key.name),
    }
}

/// The line that an error names: `… line 3 …` or `3:5: …`.
fn line_of(error: &str) -> Option<u64> {
    let digits = |text: &str| {
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        text.get(..end).and_then(|d| d.parse::<u64>().ok())
    };
    if let Some((_, after)) = error.split_once("line ") {
        return digits(after);
    }
    let (first, after) = error.split_once(':')?;
    let column = digits(after.trim_start())?;
    (column > 0).then(|| first.rsplit(' ').next().and_then(digits)).flatten()
}

/// What documents would change, before they do.
pub(super) fn outcome(known: &Known, applied: &Applied, text: &str) -> Markup {
    let documents = read(text).unwrap_or_default();
    let written: BTreeMap<&Key, &Value> = documents.iter().map(|d| (&d.key, &d.written)).collect();
    let old = |key: &Key| known.stored.get(key).and_then(|s| yaml(key, &s.written.value()).ok());
    let new = |key: &Key| written.get(key).and_then(|spec| yaml(key, spec).ok());
    let changed = applied.changes.iter().any(|c| c.action != Action::Unchanged);
    html! {
        section.card aria-labelledby="outcome" {
            h2 #outcome { @if changed { "This would change" } @else { "Nothing would change" } }
            @for change in &applied.changes {
                @let tone = match change.action { Action::Created => Tone::Good, Action::Changed => Tone::Wait, Action::Removed => Tone::Bad, Action::Unchanged => Tone::Idle };
                h3 { (change.key) " " (state(tone, change.action.name())) }
                @if change.action != Action::Unchanged && change.key.kind == Kind::Secret { p.soft { "Its value is shown to nobody." } }
                @else if change.action != Action::Unchanged {
                    (diff(&old(&change.key).unwrap_or_default(), &new(&change.key).unwrap_or_default()))
                }
                @for note in &change.notes { p.soft { (note) } }
            }
            @if !applied.warnings.is_empty() {
                div.note.wait { b { "This may not be what you mean" } ul { @for f in &applied.warnings { li { (f) } } } }
            }
            @if !applied.missing.is_empty() {
                div.note.wait { b { "It refers to what is not there yet" } ul { @for f in &applied.missing { li { (f) } } } }
            }
        }
    }
}

/// Why documents were refused; what is our own fault is a page of its own.
pub(super) fn refusal(e: FleetError) -> Result<Markup, Trouble> {
    let reasons = match e {
        FleetError::Flawed(flaws) => flaws.iter().map(ToString::to_string).collect(),
        FleetError::Read(_)
        | FleetError::Used { .. }
        | FleetError::Exists(_)
        | FleetError::Overtaken { .. }
        | FleetError::NoObject(_)
        | FleetError::NoImage { .. } => vec![model::chain(&e)],
        e => return Err(e.into()),
    };
    Ok(html! {
        div.note.bad role="alert" {
            b { "Nothing was changed" }
            ul { @for reason in reasons { li { (reason) } } }
        }
    })
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Compared {
    new: String,
}

pub(super) async fn history(
    State(fleet): State<Arc<Fleet>>,
    Path((kind, name)): Path<(String, String)>,
    Query(Compared { new }): Query<Compared>,
    caller: Caller,
) -> Result<Response, Trouble> {
    let key = key(&kind, &name)?;
    let versions = fleet.db.versions(&key, u64::MAX, VERSIONS).await?;
    if versions.is_empty() && !fleet.known().stored.contains_key(&key) {
        return Err(Trouble::Missing);
    }
    let at = versions.iter().position(|v| v.revision.to_string() == new).unwrap_or(0);
    let text = |n: usize| -> Result<String, Trouble> {
        let spec = versions.get(n).and_then(|v| v.spec.as_ref());
        spec.map_or(Ok(String::new()), |spec| yaml(&key, spec))
    };
    let now = fleet.now();
    let own = format!("/objects/{}/{}", key.kind, key.name);
    let part = html! {
        @if let Some(version) = versions.get(at) {
            section.card {
                h2 { "What " (version.author) " changed " (when(now, version.at)) }
                @if key.kind == Kind::Secret { p.soft { "The values of secrets are shown to nobody, old ones neither." } }
                @else { (diff(&text(at + 1)?, &text(at)?)) }
                @if version.spec.is_some() && key.kind != Kind::Secret && frame::acts(&caller) { a.button href=(url(&own, &[("from", &version.revision.to_string())])) { "Edit from this version" } }
            }
        }
        section.card {
            h2 { "Versions" }
            @if versions.is_empty() { p.soft { "None since histories are kept." } }
            @else {
                div.scroll { table {
                    thead { tr { th scope="col" { "When" } th scope="col" { "By" } th scope="col" { "Version" } th scope="col" { span.hidden { "Compare" } } } }
                    tbody {
                        @for (n, version) in versions.iter().enumerate() {
                            tr {
                                td { (when(now, version.at)) }
                                td { (version.author) }
                                td { @if version.spec.is_some() { (version.generation) } @else { (state(Tone::Idle, "deleted")) } }
                                td.tight { a href=(url(&format!("{own}/history"), &[("new", &version.revision.to_string())])) aria-current=[(n == at).then_some("true")] { "What changed" } }
                            }
                        }
                    }
                } }
            }
        }
    };
    let title = format!("History of {key}");
    let crumbs = [("/objects", "Objects"), (own.as_str(), key.name.as_str())];
    let head = frame::head(&crumbs, &title, "", &Markup::default());
    let page = Page { who: &caller, title: &title, way: "/objects", head, live: None, part };
    Ok(page_of(StatusCode::OK, page.whole()))
}

pub(super) async fn delete(
    State(fleet): State<Arc<Fleet>>,
    Path((kind, name)): Path<(String, String)>,
    caller: Caller,
) -> Result<Response, Trouble> {
    let key = key(&kind, &name)?;
    fleet.delete(&key, false, &caller.name).await?;
    Ok(to(if key.kind == Kind::App { "/apps" } else { "/objects" }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_reads_back_as_it_was_written() {
        let spec = json!({"image": "a:1", "ports": ["8080:80"], "environment": {"a": "yes", "b": "1", "c": "x: {y}\n# z", "d": ""}});
        let key = Key::new(Kind::App, "n");
        let text = yaml(&key, &spec).unwrap();
        let documents = read(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        assert_eq!(documents[0].written, spec, "{text}");
        assert!(text.starts_with("kind: App\nname: "), "{text}");
    }

    #[test]
    fn errors_tell_their_line() {
        assert_eq!(line_of("no YAML: found at line 3 column 5"), Some(3));
        assert_eq!(line_of("12:7: App a: spec.ports: no"), Some(12));
        assert_eq!(line_of("App a: spec.image: 5 is no text"), None);
    }

    #[test]
    fn examples_are_objects() {
        for kind in Kind::ALL {
            if let Some(text) = example(kind) {
                assert_eq!(read(text).unwrap()[0].key.kind, kind);
            }
        }
    }

    #[test]
    fn what_was_looked_at_is_read_back() {
        assert_eq!(looked("App/a/7"), Some((Key::new(Kind::App, "a"), 7)));
        assert_eq!(looked("Appp/a/7"), None);
        assert_eq!(looked(""), None);
    }
}
