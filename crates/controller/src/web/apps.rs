//! Apps: all of them, and one with how it is on each of its nodes.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use maud::{Markup, html};
use model::UnixMillis;
use serde::Deserialize;

use super::frame::{self, Page, Tone, empty, state, tone_of, tone_of_app, url, when};
use super::summary::{AppSummary, Summaries};
use super::{Caller, Part, Trouble, answer, to};
use crate::db::StoredObject;
use crate::fleet::{Fleet, Known};
use crate::objects::{AppSpec, Key, Kind, Spec, node, targets};
use crate::reports;
use crate::view::DeviceState;

/// Nodes of an app on one page.
const PAGE: usize = 100;

/// An app on a node.
struct Place<'a> {
    device: &'a str,
    state: DeviceState,
    said: Option<AppSummary>,
}

/// What becomes of an app, counted.
#[derive(Default)]
struct Counts {
    all: usize,
    running: usize,
    broken: usize,
}

fn spec(stored: &StoredObject) -> Option<&AppSpec> {
    match &stored.object.spec {
        Spec::App(app) => Some(app),
        _ => None,
    }
}

/// The nodes of an app.
fn places<'a>(
    fleet: &Fleet,
    known: &'a Known,
    summaries: &Summaries,
    stored: &StoredObject,
) -> Vec<Place<'a>> {
    let Some(app) = spec(stored) else { return Vec::new() };
    let name = stored.object.key.name.as_str();
    let place = |device: &'a StoredObject| Place {
        device: &device.object.key.name,
        state: reports::liveness(fleet, known, device).0,
        said: summaries.look(|all| all.get(&device.object.uid)?.apps.get(name).cloned()),
    };
    if app.device.matching.is_none() && app.device.names.iter().all(|d| d != "*") {
        // Nodes that are named are few beside all there are.
        let named =
            app.device.names.iter().filter_map(|d| known.stored.get(&Key::new(Kind::Device, d)));
        let mut all: Vec<Place<'a>> = named.map(|d| place(d)).collect();
        all.sort_by_key(|p| p.device);
        return all;
    }
    let all = known
        .of_kind(Kind::Device)
        .filter(|d| node(&known.objects, &d.object).is_some_and(|node| targets(app, &node)));
    all.map(place).collect()
}

impl Counts {
    fn of(places: &[Place<'_>]) -> Counts {
        let mut counts = Counts { all: places.len(), ..Counts::default() };
        for said in places.iter().filter_map(|p| p.said.as_ref()) {
            counts.running += usize::from(said.running);
            counts.broken += usize::from(said.problem.is_some());
        }
        counts
    }

    fn tone(&self) -> Tone {
        match (self.broken, self.running) {
            (1.., _) => Tone::Bad,
            (_, running) if running == self.all && running > 0 => Tone::Good,
            _ if self.all == 0 => Tone::Idle,
            _ => Tone::Wait,
        }
    }

    fn words(&self) -> String {
        if self.all == 0 {
            return "on no node".to_owned();
        }
        let broken = match self.broken {
            0 => String::new(),
            n => format!(", {n} with a problem"),
        };
        format!("{} of {} run{broken}", self.running, self.all)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Which {
    q: String,
    page: String,
}

pub(super) async fn list(
    State(fleet): State<Arc<Fleet>>,
    Extension(summaries): Extension<Arc<Summaries>>,
    Query(which): Query<Which>,
    Query(part): Query<Part>,
    caller: Caller,
) -> Result<Response, Trouble> {
    summaries.follow(&fleet).await?;
    let known = fleet.known();
    let words = which.q.trim().to_lowercase();
    let all: Vec<&StoredObject> = known.of_kind(Kind::App).collect();
    let found: Vec<_> = all
        .iter()
        .filter(|s| {
            let image = spec(s).map_or("", |a| &a.image);
            s.object.key.name.contains(&words) || image.to_lowercase().contains(&words)
        })
        .map(|s| (*s, Counts::of(&places(&fleet, &known, &summaries, s))))
        .collect();
    let head = html! {
        (frame::head(&[], "Apps", "", &html! { @if frame::acts(&caller) { a.button.first href="/catalogue" { "Deploy an app" } a.button href="/objects/new?kind=App" { "Write one" } } }))
        @if !all.is_empty() {
            form.filters role="search" action="/apps" data-filter="" {
                div.wide { label for="q" { "Search" } input #q name="q" type="search" value=(which.q) placeholder="name or image" autocomplete="off"; }
                button { "Show" }
            }
        }
    };
    let now = fleet.now();
    let body = html! {
        div.card data-say={ (found.len()) " apps" } {
            @if all.is_empty() {
                (empty("There is no app yet", "The catalogue has some to begin with.", Some(("/catalogue", "Catalogue"))))
            } @else if found.is_empty() { (empty("No app is so", "No name and no image holds these words.", Some(("/apps", "Show all apps")))) }
            @else {
                div.scroll { table.stack {
                    thead { tr { th scope="col" { "App" } th scope="col" { "State" } th scope="col" { "Image" } th scope="col" { "Changed" } } }
                    tbody { @for (stored, counts) in &found { (row(stored, counts, &known, now)) } }
                } }
            }
        }
    };
    let live = Some(url("/apps", &[("q", &which.q)]));
    Ok(answer(&part, &Page { who: &caller, title: "Apps", way: "/apps", head, live, part: body }))
}

fn row(stored: &StoredObject, counts: &Counts, known: &Known, now: UnixMillis) -> Markup {
    let key = &stored.object.key;
    html! {
        tr {
            td data-of="" {
                a.name href={ "/apps/" (key.name) } { (key.name) }
                @for flaw in known.flaws.iter().filter(|f| f.key == *key).take(2) { div.why { (flaw.field) ": " (flaw.text) } }
            }
            td.tight data-of="State" { (state(counts.tone(), &counts.words())) }
            td data-of="Image" { code { (spec(stored).map_or("", |a| &a.image)) } }
            td.tight data-of="Changed" { (when(now, stored.changed)) }
        }
    }
}

pub(super) async fn one(
    State(fleet): State<Arc<Fleet>>,
    Extension(summaries): Extension<Arc<Summaries>>,
    Path(name): Path<String>,
    Query(which): Query<Which>,
    Query(part): Query<Part>,
    caller: Caller,
) -> Result<Response, Trouble> {
    summaries.follow(&fleet).await?;
    let known = fleet.known();
    let key = Key::new(Kind::App, &name);
    let stored = known.stored.get(&key).ok_or(Trouble::Missing)?;
    let app = spec(stored).ok_or(Trouble::Missing)?;
    let mut all = places(&fleet, &known, &summaries, stored);
    let counts = Counts::of(&all);
    // What needs somebody stands first.
    all.sort_by_key(|p| match &p.said {
        Some(said) if said.problem.is_some() => 0,
        Some(said) if said.running => 2,
        _ => 1,
    });
    let pages = all.len().div_ceil(PAGE).max(1);
    let page = which.page.parse::<usize>().unwrap_or(1).clamp(1, pages);
    let now = fleet.now();
    let actions = html! {
        a.button href={ "/objects/App/" (name) } { @if frame::acts(&caller) { "Edit" } @else { "Its object" } }
        @if frame::acts(&caller) { details.menu {
            summary { "Act" }
            div {
                form method="post" action={ "/apps/" (name) "/restart" } { p { "It stops and starts on " (all.len()) " nodes." } button { "Restart" } }
                form method="post" action={ "/apps/" (name) "/purge" } { p { "Its volumes are made anew: what it wrote is lost." } button.risky { "Restart with fresh volumes" } }
                form method="post" action={ "/objects/App/" (name) "/delete" } { p { "It is stopped and removed from its nodes." } button.risky { "Delete the app" } }
            }
        } }
    };
    let head = frame::head(&[("/apps", "Apps")], &name, "", &actions);
    let flaws: Vec<_> = known.flaws.iter().filter(|f| f.key == key).collect();
    let body = html! {
        p data-say={ (name) ": " (counts.words()) } { (state(counts.tone(), &counts.words())) }
        @if !flaws.is_empty() { div.note.bad { b { "Its object has mistakes" } ul { @for f in flaws { li { (f.field) ": " (f.text) } } } } }
        section.card { h2 { "What it is" } (facts(stored, app, now)) }
        section.card {
            h2 { "Where it is" }
            @if all.is_empty() { (empty("It is on no node", "Name nodes at its field device, or \"*\" for every node.", Some((&format!("/objects/App/{name}"), "Edit")))) }
            @else {
                div.scroll { table.stack {
                    thead { tr { th scope="col" { "Node" } th scope="col" { "App" } th scope="col" { "Since" } th scope="col" { "Node is" } th scope="col" { span.hidden { "Logs" } } } }
                    tbody { @for place in all.iter().skip((page - 1) * PAGE).take(PAGE) { (place_row(place, &name, now)) } }
                } }
                @if pages > 1 {
                    nav.pager aria-label="Pages" {
                        @if page > 1 { a.button href={ "?page=" (page - 1) } { "Before" } } @else { span {} }
                        span { "page " (page) " of " (pages) }
                        @if page < pages { a.button href={ "?page=" (page + 1) } { "Next" } } @else { span {} }
                    }
                }
            }
        }
    };
    let live = Some(url(&format!("/apps/{name}"), &[("page", &which.page)]));
    Ok(answer(&part, &Page { who: &caller, title: &name, way: "/apps", head, live, part: body }))
}

fn facts(stored: &StoredObject, app: &AppSpec, now: UnixMillis) -> Markup {
    html! {
        dl {
            dt { "Image" } dd { code { (app.image) } @if let Some(pinned) = stored.object.pinned { " " span.soft { "= " (pinned) } } }
            dt { "Takes" } dd { (app.memory.0) " of memory, " (app.cpus) " processors, " (app.disk.0) " of disk" }
            @if !app.ports.is_empty() { dt { "Ports" } dd { @for port in &app.ports { span.label { (port) } } } }
            dt { "Changed" } dd { (when(now, stored.changed)) ", version " (stored.object.generation) }
            dt { "Restarts asked for" } dd { (stored.object.restart) ", with fresh volumes " (stored.object.purge) }
        }
    }
}

fn place_row(place: &Place<'_>, app: &str, now: UnixMillis) -> Markup {
    html! {
        tr {
            td data-of="" { a.name href={ "/devices/" (place.device) } { (place.device) } }
            td data-of="App" {
                @if let Some(said) = &place.said {
                    (state(tone_of_app(&said.state, said.running, said.problem.is_some()), &said.state))
                    @if let Some(why) = &said.problem { div.why { (why) } }
                } @else { (state(Tone::Wait, "waiting for the node")) }
            }
            td.tight data-of="Since" { @if let Some(at) = place.said.as_ref().and_then(|s| s.since) { (when(now, at)) } }
            td.tight data-of="Node is" { (state(tone_of(place.state), place.state.name())) }
            td.tight data-of="" { a href=(url(&format!("/devices/{}/logs", place.device), &[("app", app)])) { "Logs" } }
        }
    }
}

pub(super) async fn restart(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
    caller: Caller,
) -> Result<Response, Trouble> {
    fleet.restart_app(&name, false, &caller.name).await?;
    Ok(to(&format!("/apps/{name}")))
}

pub(super) async fn purge(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
    caller: Caller,
) -> Result<Response, Trouble> {
    fleet.restart_app(&name, true, &caller.name).await?;
    Ok(to(&format!("/apps/{name}")))
}
