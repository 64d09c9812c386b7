//! The fleet as a list and as a map. Both are made of what is in memory.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Query, State};
use axum::response::Response;
use maud::{Markup, html};
use model::UnixMillis;
use serde::Deserialize;
use uuid::Uuid;

use super::frame::{self, Page, Tone, empty, tone_of, url, when_if};
use super::summary::{AppSummary, Summaries, Summary};
use super::{Caller, Part, Trouble, answer};
use crate::db::{DeviceRow, StoredObject};
use crate::fleet::{Fleet, Known};
use crate::objects::{
    self, AppSpec, Kind, LOCATION, Object, Query as Labels, QueryError, Spec, coordinates, node,
    targets,
};
use crate::reports;
use crate::rollout::calendar;
use crate::view::DeviceState;

/// Nodes of one page.
const PAGE: usize = 100;
/// Choices of a filter.
const CHOICES_MAX: usize = 200;
/// Nodes of a map that stand closer together than this are one dot; the map is 1000 wide.
const DOT: f64 = 18.0;

/// Which nodes, in which order.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Wish {
    /// Words in name, serial number, id, version or labels.
    q: String,
    /// `online`, `silent`, `registered`, `expected`, `problem`.
    state: String,
    /// A query over labels and groups: `site=berlin, tier in (a, b), !lab`.
    label: String,
    version: String,
    project: String,
    /// A column, with `-` in front from the end.
    sort: String,
    page: String,
}

impl Wish {
    fn url(&self, path: &str, with: &[(&str, &str)]) -> String {
        let get = |name: &str, own: &'_ str| -> String {
            with.iter().find(|(n, _)| *n == name).map_or(own, |(_, v)| v).to_owned()
        };
        let fields = [
            ("q", get("q", &self.q)),
            ("state", get("state", &self.state)),
            ("label", get("label", &self.label)),
            ("version", get("version", &self.version)),
            ("project", get("project", &self.project)),
            ("sort", get("sort", &self.sort)),
            ("page", get("page", &self.page)),
        ];
        let fields: Vec<(&str, &str)> = fields.iter().map(|(n, v)| (*n, v.as_str())).collect();
        url(path, &fields)
    }

    fn narrows(&self) -> bool {
        [&self.q, &self.state, &self.label, &self.version, &self.project]
            .iter()
            .any(|f| !f.trim().is_empty())
    }
}

/// A node, as the list shows it.
struct Row<'a> {
    known: &'a Known,
    stored: &'a StoredObject,
    device: Option<&'a DeviceRow>,
    state: DeviceState,
    seen: Option<UnixMillis>,
    summary: Option<&'a Summary>,
    /// Its apps, and what is said of them.
    apps: Vec<(&'a str, Option<&'a AppSummary>)>,
    flawed: bool,
}

impl<'a> Row<'a> {
    fn name(&self) -> &str {
        &self.stored.object.key.name
    }

    /// Its labels, with those of its template.
    fn labels(&self) -> BTreeMap<&'a str, Cow<'a, str>> {
        objects::labels(&self.known.objects, &self.stored.object)
    }

    /// Where it says it stands: the label `location`.
    fn location(&self) -> Option<(f64, f64)> {
        coordinates(self.labels().get(LOCATION)?)
    }

    fn version(&self) -> &str {
        self.summary.map_or("", |s| &s.version)
    }

    fn running(&self) -> usize {
        self.apps.iter().filter(|(_, said)| said.is_some_and(|a| a.running)).count()
    }

    fn problems(&self) -> Vec<String> {
        let mut all = Vec::new();
        if let Some(why) = self.device.and_then(|d| d.quarantine.as_ref()) {
            all.push(format!("quarantined: {why}"));
        }
        all.extend(self.summary.iter().flat_map(|s| s.problems.iter().cloned()));
        for (name, said) in &self.apps {
            if let Some(problem) = said.and_then(|s| s.problem.as_ref()) {
                all.push(format!("{name}: {problem}"));
            }
        }
        if self.flawed {
            all.push("its object has a mistake".to_owned());
        }
        all
    }

    fn troubled(&self) -> bool {
        self.flawed
            || self.device.is_some_and(|d| d.quarantine.is_some())
            || self.summary.is_some_and(|s| !s.problems.is_empty())
            || self.apps.iter().any(|(_, said)| said.is_some_and(|a| a.problem.is_some()))
    }
}

fn project(stored: &StoredObject) -> &str {
    match &stored.object.spec {
        Spec::Device(device) => device.project.as_deref().unwrap_or_default(),
        _ => "",
    }
}

/// What a filter over labels asks for. `None`: nothing.
async fn query(fleet: &Fleet, text: &str) -> Result<Option<Result<Labels, QueryError>>, Trouble> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    Ok(Some(calendar::query(&fleet.db, text).await?))
}

/// The names of apps, by how they find their nodes.
#[derive(Default)]
struct Apps<'a> {
    named: HashMap<&'a str, Vec<&'a str>>,
    everywhere: Vec<&'a str>,
    matching: Vec<(&'a str, &'a AppSpec)>,
}

impl<'a> Apps<'a> {
    fn of(known: &'a Known) -> Apps<'a> {
        let mut apps = Apps::default();
        for stored in known.of_kind(Kind::App) {
            let Spec::App(app) = &stored.object.spec else { continue };
            let name = stored.object.key.name.as_str();
            if app.device.names.iter().any(|d| d == "*") {
                apps.everywhere.push(name);
            } else if app.device.matching.is_some() {
                apps.matching.push((name, app));
            } else {
                for device in &app.device.names {
                    apps.named.entry(device.as_str()).or_default().push(name);
                }
            }
        }
        apps
    }

    fn on(&self, known: &Known, device: &Object) -> Vec<&'a str> {
        let named = self.named.get(device.key.name.as_str()).into_iter().flatten();
        let mut all: Vec<&'a str> = named.chain(&self.everywhere).copied().collect();
        // Labels may come from a template: only looked at if somebody asks for some.
        if !self.matching.is_empty()
            && let Some(node) = node(&known.objects, device)
        {
            let fitting = self.matching.iter().filter(|(_, app)| targets(app, &node));
            all.extend(fitting.map(|(name, _)| *name));
        }
        all
    }
}

fn rows<'a>(fleet: &Fleet, known: &'a Known, all: &'a HashMap<Uuid, Summary>) -> Vec<Row<'a>> {
    let flawed: HashSet<&str> = known
        .flaws
        .iter()
        .filter(|f| f.key.kind == Kind::Device)
        .map(|f| f.key.name.as_str())
        .collect();
    let apps_of = Apps::of(known);
    let row = |stored: &'a StoredObject| {
        let id = stored.object.uid;
        let name = stored.object.key.name.as_str();
        let (state, seen) = reports::liveness(fleet, known, stored);
        let summary = all.get(&id);
        let apps = apps_of.on(known, &stored.object);
        let apps = apps.into_iter().map(|app| (app, summary.and_then(|s| s.apps.get(app))));
        Row {
            known,
            stored,
            device: known.device(id),
            state,
            seen,
            summary,
            apps: apps.collect(),
            flawed: flawed.contains(name),
        }
    };
    known.of_kind(Kind::Device).map(row).collect()
}

/// Whether a text holds words; letter case does not count in ASCII. Asked for each node: it makes
/// no copy.
fn holds(text: &str, words: &str) -> bool {
    let (text, words) = (text.as_bytes(), words.as_bytes());
    words.is_empty() || text.windows(words.len()).any(|w| w.eq_ignore_ascii_case(words))
}

fn found(row: &Row<'_>, words: &str) -> bool {
    let label = |(key, value): (&str, Cow<'_, str>)| {
        holds(key, words)
            || holds(&value, words)
            || words.contains('=') && holds(&format!("{key}={value}"), words)
    };
    holds(row.name(), words)
        || holds(row.version(), words)
        || row.device.is_some_and(|d| holds(&d.serial, words) || holds(&d.soft_serial, words))
        || holds(row.stored.object.uid.hyphenated().encode_lower(&mut Uuid::encode_buffer()), words)
        || row.labels().into_iter().any(label)
}

fn wanted(row: &Row<'_>, wish: &Wish, words: &str, query: Option<&Labels>) -> bool {
    let state = match wish.state.as_str() {
        "" => true,
        "problem" => row.troubled(),
        state => row.state.name() == state,
    };
    state
        && (wish.version.is_empty() || row.version() == wish.version)
        && (wish.project.is_empty() || project(row.stored) == wish.project)
        && query.is_none_or(|query| query.fits(&calendar::labels(row.known, row.stored)))
        && (words.is_empty() || found(row, words))
}

/// They come by name, and stay so where nothing else tells them apart.
fn sort(rows: &mut [Row<'_>], column: &str) {
    let (column, back) = column.strip_prefix('-').map_or((column, false), |c| (c, true));
    match column {
        "state" => rows.sort_by_key(|r| r.state.name()),
        "seen" => rows.sort_by_key(|r| Reverse(r.seen)),
        "version" => rows.sort_by(|a, b| a.version().cmp(b.version())),
        "apps" => rows.sort_by_key(|r| (r.apps.len(), r.running())),
        "problems" => {
            rows.sort_by_cached_key(|r| (!r.troubled(), r.state != DeviceState::Silent));
        }
        _ => {}
    }
    if back {
        rows.reverse();
    }
}

/// How many nodes are how.
#[derive(Default)]
struct Counts {
    all: usize,
    online: usize,
    silent: usize,
    registered: usize,
    expected: usize,
    problems: usize,
}

impl Counts {
    fn of(rows: &[Row<'_>]) -> Counts {
        let mut counts = Counts { all: rows.len(), ..Counts::default() };
        for row in rows {
            match row.state {
                DeviceState::Online => counts.online += 1,
                DeviceState::Silent => counts.silent += 1,
                DeviceState::Registered => counts.registered += 1,
                DeviceState::Expected => counts.expected += 1,
            }
            counts.problems += usize::from(row.troubled());
        }
        counts
    }
}

pub(super) async fn list(
    State(fleet): State<Arc<Fleet>>,
    Extension(summaries): Extension<Arc<Summaries>>,
    Query(wish): Query<Wish>,
    Query(part): Query<Part>,
    caller: Caller,
) -> Result<Response, Trouble> {
    summaries.follow(&fleet).await?;
    let known = fleet.known();
    let now = fleet.now();
    let asked = query(&fleet, &wish.label).await?;
    let (head, body) = summaries.look(|all| {
        let rows = rows(&fleet, &known, all);
        let head = match part.wanted() {
            true => Markup::default(),
            false => list_head(&rows, &wish, &caller),
        };
        (head, list_part(rows, &wish, asked.as_ref(), now))
    });
    let live = Some(wish.url("/", &[]));
    Ok(answer(&part, &Page { who: &caller, title: "Fleet", way: "/", head, live, part: body }))
}

fn list_head(rows: &[Row<'_>], wish: &Wish, who: &Caller) -> Markup {
    let mut versions = BTreeSet::new();
    let mut projects = BTreeSet::new();
    for row in rows {
        if versions.len() < CHOICES_MAX && !row.version().is_empty() {
            versions.insert(row.version());
        }
        if projects.len() < CHOICES_MAX && !project(row.stored).is_empty() {
            projects.insert(project(row.stored));
        }
    }
    let choices = |any: &str, all: &BTreeSet<&str>| -> Vec<(String, String)> {
        let first = std::iter::once((String::new(), any.to_owned()));
        first.chain(all.iter().map(|v| ((*v).to_owned(), (*v).to_owned()))).collect()
    };
    let states = [
        ("", "any"),
        ("online", "online"),
        ("silent", "silent"),
        ("registered", "registered, not heard of since"),
        ("expected", "expected"),
        ("problem", "with a problem"),
    ];
    let states = states.map(|(v, t)| (v.to_owned(), t.to_owned()));
    html! {
        (frame::head(&[], "Fleet", "", &html! { @if frame::acts(who) { a.button.first href="/onboard" { "Add a node" } } }))
        @if !rows.is_empty() {
            form.filters role="search" action="/" data-filter="" {
                div.wide {
                    label for="q" { "Search" }
                    input #q name="q" type="search" value=(wish.q) placeholder="name, serial number, id, version, label" autocomplete="off";
                }
                (frame::choice("state", "state", "State", &states, &wish.state))
                div {
                    label for="label" { "Labels" }
                    input #label name="label" value=(wish.label) placeholder="site=berlin, group=shops" size="22" autocomplete="off";
                }
                @if versions.len() > 1 || !wish.version.is_empty() {
                    (frame::choice("version", "version", "Version", &choices("any", &versions), &wish.version))
                }
                @if !projects.is_empty() {
                    (frame::choice("project", "project", "Project", &choices("any", &projects), &wish.project))
                }
                input type="hidden" name="sort" value=(wish.sort);
                button { "Filter" }
            }
        }
    }
}

fn list_part(
    all: Vec<Row<'_>>,
    wish: &Wish,
    asked: Option<&Result<Labels, QueryError>>,
    now: UnixMillis,
) -> Markup {
    let counts = Counts::of(&all);
    if all.is_empty() {
        let text = "Say which node is to come, and write its configuration onto a stick or a disk.";
        return html! { div.card { (empty("There is no node yet", text, Some(("/onboard", "Add a node")))) } };
    }
    let words = wish.q.trim();
    let wanted_labels = asked.and_then(|q| q.as_ref().ok());
    let known = all.first().map(|row| row.known);
    let mut rows: Vec<Row<'_>> =
        all.into_iter().filter(|r| wanted(r, wish, words, wanted_labels)).collect();
    sort(&mut rows, &wish.sort);
    let found = rows.len();
    let pages = found.div_ceil(PAGE).max(1);
    let page = wish.page.parse::<usize>().unwrap_or(1).clamp(1, pages);
    let first = (page - 1) * PAGE;
    let say = format!(
        "{} of {} nodes online, {} silent, {} with problems",
        counts.online, counts.all, counts.silent, counts.problems
    );
    let tiles = [
        ("", counts.all, "nodes"),
        ("online", counts.online, "online"),
        ("silent", counts.silent, "silent"),
        ("registered", counts.registered, "not heard of since they registered"),
        ("expected", counts.expected, "expected"),
        ("problem", counts.problems, "with a problem"),
    ];
    html! {
        div.counts data-say=(say) {
            @for (state, n, name) in tiles {
                @if n > 0 || state.is_empty() || state == "online" {
                    a href=(wish.url("/", &[("state", state), ("page", "")])) aria-current=[(wish.state == state).then_some("true")] {
                        b { (n) } (name)
                    }
                }
            }
        }
        @if let Some(Err(why)) = asked { p.note.bad role="alert" { "Labels: " (why) ". All nodes are shown." } }
        div.card {
            @if rows.is_empty() {
                @let nobodys = wanted_labels.and_then(|q| Some(objects::unlabelled(&known?.objects, q, true)));
                @let why = nobodys.filter(|all| !all.is_empty()).map(|all| format!("Labels: {}.", all.join("; ")));
                (empty("No node is so", why.as_deref().unwrap_or("Nothing fits all filters together."), Some(("/", "Show all nodes"))))
            } @else {
                div.scroll { table.stack {
                    caption.hidden { "Nodes" }
                    thead { tr {
                        (column(wish, "name", "Name")) (column(wish, "state", "State"))
                        (column(wish, "seen", "Last heard of")) (column(wish, "version", "Version"))
                        (column(wish, "apps", "Apps")) (column(wish, "problems", "What is wrong"))
                    } }
                    tbody { @for row in rows.iter().skip(first).take(PAGE) { (device_row(row, now)) } }
                } }
                @if pages > 1 || wish.narrows() { (pager(wish, found, page, pages)) }
            }
        }
    }
}

fn column(wish: &Wish, name: &str, title: &str) -> Markup {
    let sorted = if wish.sort.is_empty() { "name" } else { &wish.sort };
    let (own, back) = (sorted.trim_start_matches('-') == name, sorted.starts_with('-'));
    let next = if own && !back { format!("-{name}") } else { name.to_owned() };
    let order = own.then_some(if back { "descending" } else { "ascending" });
    html! {
        th scope="col" aria-sort=[order] {
            a href=(wish.url("/", &[("sort", &next), ("page", "")])) {
                (title) @if own { span aria-hidden="true" { @if back { " ↑" } @else { " ↓" } } }
            }
        }
    }
}

fn device_row(row: &Row<'_>, now: UnixMillis) -> Markup {
    let problems = row.problems();
    html! {
        tr {
            td data-of="" {
                a.name href={ "/devices/" (row.name()) } { (row.name()) }
                // Where it stands is for the map.
                @let labels: Vec<_> = row.labels().into_iter().filter(|(k, _)| *k != LOCATION).collect();
                @if !labels.is_empty() {
                    div { @for (key, value) in labels.iter().take(4) { span.label { (key) "=" (value) } } }
                }
            }
            td.tight data-of="State" { (frame::state(tone_of(row.state), row.state.name())) }
            td.tight data-of="Heard of" { (when_if(now, row.seen)) }
            td data-of="Version" { @if row.version().is_empty() { span.soft { "–" } } @else { (row.version()) } }
            td.tight data-of="Apps" {
                @if row.apps.is_empty() { span.soft { "none" } }
                @else { (row.running()) " of " (row.apps.len()) " run" }
            }
            td data-of="Wrong" {
                @for problem in problems.iter().take(2) { div.why { (problem) } }
                @if problems.len() > 2 { div.soft { "and " (problems.len() - 2) " more" } }
            }
        }
    }
}

fn pager(wish: &Wish, found: usize, page: usize, pages: usize) -> Markup {
    let to = |n: usize| wish.url("/", &[("page", &n.to_string())]);
    html! {
        nav.pager aria-label="Pages" {
            @if page > 1 { a.button href=(to(page - 1)) rel="prev" { "Before" } } @else { span {} }
            span { (found) " nodes" @if pages > 1 { ", page " (page) " of " (pages) } }
            @if page < pages { a.button href=(to(page + 1)) rel="next" { "Next" } } @else { span {} }
        }
    }
}

pub(super) async fn map(
    State(fleet): State<Arc<Fleet>>,
    Extension(summaries): Extension<Arc<Summaries>>,
    Query(part): Query<Part>,
    caller: Caller,
) -> Result<Response, Trouble> {
    summaries.follow(&fleet).await?;
    let known = fleet.known();
    let body = summaries.look(|all| map_part(&rows(&fleet, &known, all)));
    let words = "Nodes with the label location: degrees north and east, as 52.52,13.40.";
    let head = frame::head(&[], "Map", words, &Markup::default());
    let live = Some("/map".to_owned());
    Ok(answer(&part, &Page { who: &caller, title: "Map", way: "/map", head, live, part: body }))
}

/// Nodes that stand so close together that a map shows one dot.
#[derive(Default)]
struct Dot<'a> {
    nodes: Vec<&'a Row<'a>>,
    place: (f64, f64),
    /// Whether they stand in one place.
    one_place: bool,
}

impl<'a> Dot<'a> {
    /// The worst of its nodes.
    fn tone(&self) -> Tone {
        let tones = self.nodes.iter().map(|row| match tone_of(row.state) {
            Tone::Good if row.troubled() => Tone::Wait,
            tone => tone,
        });
        let weight = |tone: &Tone| match tone {
            Tone::Idle => 0,
            Tone::Good => 1,
            Tone::Wait => 2,
            Tone::Bad => 3,
        };
        tones.max_by_key(weight).unwrap_or(Tone::Idle)
    }

    fn words(&self) -> String {
        if let [row] = self.nodes.as_slice() {
            return format!("{}: {}", row.name(), row.state.name());
        }
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for row in &self.nodes {
            *counts.entry(row.state.name()).or_default() += 1;
        }
        let counts: Vec<String> = counts.iter().map(|(s, n)| format!("{n} {s}")).collect();
        format!("{} nodes: {}", self.nodes.len(), counts.join(", "))
    }

    /// Where it leads: to its node, or to the list of those in its place.
    fn way(&self) -> Option<String> {
        match self.nodes.as_slice() {
            [row] => Some(format!("/devices/{}", row.name())),
            [row, ..] if self.one_place => {
                let labels = row.labels();
                Some(url("/", &[("q", &format!("{LOCATION}={}", labels.get(LOCATION)?))]))
            }
            _ => None,
        }
    }

    /// By area, up to a bound.
    fn radius(&self) -> f64 {
        let nodes = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        (6.0 + 1.5 * f64::from(nodes).ln()).min(DOT)
    }
}

fn map_part(rows: &[Row<'_>]) -> Markup {
    let places: Vec<(&Row<'_>, (f64, f64))> =
        rows.iter().filter_map(|r| Some((r, r.location()?))).collect();
    if places.is_empty() {
        let text =
            "Give devices a label, as labels: {location: \"52.52,13.40\"}, and they appear here.";
        return html! { div.card { (empty("No node says where it stands", text, Some(("/objects", "Objects")))) } };
    }
    let edge = |pick: fn(&(f64, f64)) -> f64, low: bool| {
        let all = places.iter().map(|(_, p)| pick(p));
        if low { all.fold(f64::MAX, f64::min) } else { all.fold(f64::MIN, f64::max) }
    };
    // Some room around; one node alone gets a few degrees.
    let grow = |low: f64, high: f64| {
        let room = ((high - low) * 0.08).max(1.5);
        (low - room, high + room)
    };
    let (south, north) = grow(edge(|p| p.0, true), edge(|p| p.0, false));
    let (west, east) = grow(edge(|p| p.1, true), edge(|p| p.1, false));
    // A degree east is shorter the further north it is.
    let shrink = ((south + north) / 2.0).to_radians().cos().max(0.2);
    let width = 1000.0;
    let height = (width * (north - south) / ((east - west) * shrink)).clamp(300.0, 900.0);
    let x = |degrees: f64| (degrees - west) / (east - west) * width;
    let y = |degrees: f64| (north - degrees) / (north - south) * height;
    let step = [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0]
        .into_iter()
        .find(|s| (east - west) / s <= 12.0)
        .unwrap_or(30.0);
    let lines = |low: f64, high: f64| {
        let first = (low / step).ceil() * step;
        (0..40_u8).map(move |n| first + f64::from(n) * step).take_while(move |d| *d < high)
    };
    let away = rows.len() - places.len();
    let mut dots: BTreeMap<(String, String), Dot<'_>> = BTreeMap::new();
    for (row, place) in &places {
        let cell = |at: f64| format!("{:04.0}", (at / DOT).floor());
        let dot = dots.entry((cell(y(place.0)), cell(x(place.1)))).or_insert_with(|| Dot {
            nodes: Vec::new(),
            place: *place,
            one_place: true,
        });
        dot.one_place &= dot.place == *place;
        dot.nodes.push(row);
    }
    html! {
        div.card {
            svg.map viewBox={ "0 0 " (width) " " (one(height)) } role="group" aria-label="Map of the nodes" {
                @for d in lines(west, east) {
                    line x1=(one(x(d))) x2=(one(x(d))) y1="0" y2=(one(height)) {}
                    text x=(one(x(d) + 3.0)) y=(one(height - 5.0)) { (degrees(d, "E", "W")) }
                }
                @for d in lines(south, north) {
                    line y1=(one(y(d))) y2=(one(y(d))) x1="0" x2=(width) {}
                    text x="4" y=(one(y(d) - 3.0)) { (degrees(d, "N", "S")) }
                }
                @for dot in dots.values() {
                    @let words = dot.words();
                    @let drawn = html! {
                        title { (words) }
                        circle class={ "dot is-" (dot.tone().class()) } cx=(one(x(dot.place.1))) cy=(one(y(dot.place.0))) r=(one(dot.radius())) {}
                    };
                    @match dot.way() {
                        Some(way) => a href=(way) aria-label=(words) { (drawn) },
                        None => g role="img" aria-label=(words) { (drawn) },
                    }
                }
            }
            p.soft {
                (frame::state(Tone::Good, "online")) " " (frame::state(Tone::Wait, "online with a problem, or registered")) " "
                (frame::state(Tone::Bad, "silent")) " " (frame::state(Tone::Idle, "expected"))
                " A larger dot is several nodes, in the colour of the worst."
                @if away > 0 { " " (away) @if away == 1 { " node does not say where it stands." } @else { " nodes do not say where they stand." } }
            }
        }
    }
}

fn degrees(degrees: f64, plus: &str, minus: &str) -> String {
    format!("{}° {}", degrees.abs(), if degrees < 0.0 { minus } else { plus })
}

/// A coordinate: tenths are fine enough.
pub(super) fn one(n: f64) -> String {
    format!("{n:.1}")
}
