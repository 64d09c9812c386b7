//! The pages of one node.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Form, Path, Query, State};
use axum::response::Response;
use maud::{Markup, html};
use model::{DeviceId, UnixMillis};
use serde::Deserialize;

use super::frame::{self, Page, acts, state, tone_of, url, when, when_if};
use super::{Caller, Part, Trouble, answer, charts, device_parts as parts, picture, to};
use crate::db::{DeviceRow, Event, LogFilter};
use crate::fleet::Fleet;
use crate::objects::{Key, Kind};
use crate::reports;
use crate::view::{Device, DeviceState};

/// Lines of a log on a page.
const LINES: u32 = 400;
const EVENTS: u32 = 200;
/// What charts show.
const SPAN: Duration = Duration::from_secs(24 * 3600);

/// The pages of a node: path below it, and name.
const TABS: [(&str, &str); 6] = [
    ("", "Overview"),
    ("/network", "Network"),
    ("/logs", "Logs"),
    ("/events", "Events"),
    ("/config", "Config"),
    ("/trust", "Trust"),
];

async fn find(fleet: &Fleet, name: &str) -> Result<Device, Trouble> {
    let mut device = reports::device(fleet, name).await?.ok_or(Trouble::Missing)?;
    device.apps.sort_by(|a, b| a.app.cmp(&b.app));
    device.networks.sort_by(|a, b| a.network.cmp(&b.network));
    Ok(device)
}

fn page(
    who: &Caller,
    device: &Device,
    tab: &str,
    extra: &Markup,
    part: &Part,
    live: String,
    body: Markup,
) -> Response {
    let name = &device.name;
    let head = html! {
        (frame::head(&[("/", "Fleet")], name, "", &parts::actions(device, who)))
        nav.tabs aria-label={ "Pages of " (name) } {
            // What the objects say is of all projects: its page is closed to who has some.
            @for (path, title) in TABS.iter().filter(|(p, _)| who.projects.all() || *p != "/config") {
                a href={ "/devices/" (name) (path) } aria-current=[(*path == tab).then_some("page")] { (title) }
            }
        }
        (extra)
    };
    answer(part, &Page { who, title: name, way: "/", head, live: Some(live), part: body })
}

/// How it is, in one line; the script says it aloud when it changes.
fn status(device: &Device, now: UnixMillis) -> Markup {
    let said = format!("{} is {}", device.name, device.state.name());
    let words = match device.state {
        DeviceState::Expected => "It has not registered yet.",
        DeviceState::Registered => "It has registered and said nothing since.",
        DeviceState::Online | DeviceState::Silent => "",
    };
    html! {
        p data-say=(said) {
            (state(tone_of(device.state), device.state.name())) " "
            @if !words.is_empty() { (words) }
            @else {
                "heard of " (when_if(now, device.seen))
                @if !device.version.is_empty() { ", runs " code { (device.version) } }
                @if !device.slot.is_empty() { " from " (device.slot) }
                @if let Some(boot) = &device.boot { @if let Some(at) = boot.at { ", booted " (when(now, at)) } }
                "."
            }
        }
    }
}

pub(super) async fn overview(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
    Query(part): Query<Part>,
    caller: Caller,
) -> Result<Response, Trouble> {
    let device = find(&fleet, &name).await?;
    let now = fleet.now();
    let id = device.id.raw();
    fleet.points.look(id, now);
    let since = UnixMillis(now.0.saturating_sub(u64::try_from(SPAN.as_millis()).unwrap_or(0)));
    let points = fleet.db.points(id, since).await?;
    let quarantine = fleet.look(|known| known.device(id).and_then(|d| d.quarantine.clone()));
    let body = html! {
        (status(&device, now))
        (parts::problems(&device, quarantine.as_deref()))
        @if device.state == DeviceState::Expected { (parts::how_to_come(&device, &caller)) }
        (parts::apps(&device, &caller, now))
        (parts::pending(&device))
        div.grid { (parts::facts(&device, now)) (parts::ports(&device)) }
        @if device.state != DeviceState::Expected {
            (charts::charts(&points, since, now))
            div.grid { (parts::usage(&device, now)) (parts::boot(&device, now)) }
        }
    };
    let live = format!("/devices/{}", device.name);
    Ok(page(&caller, &device, "", &Markup::default(), &part, live, body))
}

pub(super) async fn network(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
    Query(part): Query<Part>,
    caller: Caller,
) -> Result<Response, Trouble> {
    let device = find(&fleet, &name).await?;
    let body = html! {
        div.card.scroll tabindex="0" role="region" aria-label="Network of the node" { (picture::picture(&device, &fleet.known())) }
        (parts::networks(&device))
        (parts::ports(&device))
    };
    let live = format!("/devices/{}/network", device.name);
    Ok(page(&caller, &device, "/network", &Markup::default(), &part, live, body))
}

/// Which lines of which log.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WhichLogs {
    app: String,
    q: String,
}

pub(super) async fn logs(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
    Query(which): Query<WhichLogs>,
    Query(part): Query<Part>,
    caller: Caller,
) -> Result<Response, Trouble> {
    let device = find(&fleet, &name).await?;
    let app = match which.app.as_str() {
        "" => None,
        app => Some(device.apps.iter().find(|a| a.app == app).ok_or(Trouble::Missing)?),
    };
    let filter = LogFilter {
        device: device.id.raw(),
        app: app.map(|a| a.id.to_string()).unwrap_or_default(),
        after: 0,
        limit: LINES,
    };
    let found = crate::logs::lines(fleet.registry().images(), &filter, &which.q)
        .await
        .map_err(|e| Trouble::Own(model::chain(&e)))?;
    let mut whose = vec![(String::new(), "the node".to_owned())];
    whose.extend(device.apps.iter().map(|a| (a.app.clone(), format!("app {}", a.app))));
    let path = format!("/devices/{}/logs", device.name);
    let form = html! {
        form.filters role="search" action=(path) data-filter="" {
            (frame::choice("app", "app", "Log of", &whose, &which.app))
            div.wide {
                label for="q" { "Search" }
                input #q name="q" type="search" value=(which.q) placeholder="words in a line or its source" autocomplete="off";
            }
            button { "Show" }
        }
    };
    let live = url(&path, &[("app", &which.app), ("q", &which.q)]);
    let body = parts::log(&found, which.q.trim());
    Ok(page(&caller, &device, "/logs", &form, &part, live, body))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WhichEvents {
    q: String,
}

pub(super) async fn events(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
    Query(which): Query<WhichEvents>,
    Query(part): Query<Part>,
    caller: Caller,
) -> Result<Response, Trouble> {
    let device = find(&fleet, &name).await?;
    let id = Some(device.id.raw());
    let events = fleet.db.events_with(id, &which.q, u64::MAX, EVENTS).await?;
    let path = format!("/devices/{}/events", device.name);
    let form = html! {
        form.filters role="search" action=(path) data-filter="" {
            div.wide {
                label for="q" { "Search" }
                input #q name="q" type="search" value=(which.q) placeholder="words of an event" autocomplete="off";
            }
            button { "Show" }
        }
    };
    let now = fleet.now();
    let body = html! { div.card { (super::log::event_table(&events, |_: &Event| None, now)) } };
    Ok(page(&caller, &device, "/events", &form, &part, url(&path, &[("q", &which.q)]), body))
}

pub(super) async fn config(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
    Query(part): Query<Part>,
    caller: Caller,
) -> Result<Response, Trouble> {
    let device = find(&fleet, &name).await?;
    let known = fleet.known();
    let id = device.id.raw();
    let standing = fleet.db.standing(id).await?.map(|s| s.timestamp);
    let mut history = Vec::new();
    for key in parts::objects_of(&device, &known) {
        for version in fleet.db.versions(&key, u64::MAX, 10).await? {
            history.push((key.clone(), version));
        }
    }
    history.sort_by_key(|(_, v)| std::cmp::Reverse(v.revision));
    history.truncate(30);
    let now = fleet.now();
    let body = html! {
        (parts::standing(&device, standing, now))
        (parts::told(&device, &known))
        (parts::history(&history, now))
    };
    let live = format!("/devices/{}/config", device.name);
    Ok(page(&caller, &device, "/config", &Markup::default(), &part, live, body))
}

pub(super) async fn trust(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
    Query(part): Query<Part>,
    caller: Caller,
) -> Result<Response, Trouble> {
    let device = find(&fleet, &name).await?;
    let id = device.id.raw();
    let row = fleet.look(|known| known.device(id).cloned());
    let verdict = fleet.db.verdict(id).await?;
    let kinds = fleet.db.device_cert_kinds(id).await?;
    // What a node must prove is said for all projects.
    let accept = acts(&caller).then(|| format!("/devices/{}/accept", device.name));
    let now = fleet.now();
    let body = html! {
        (parts::certificates(row.as_ref(), &kinds, now))
        (parts::verdict(verdict.as_ref(), accept.as_deref(), now))
    };
    let live = format!("/devices/{}/trust", device.name);
    Ok(page(&caller, &device, "/trust", &Markup::default(), &part, live, body))
}

pub(super) async fn accept(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
    caller: Caller,
) -> Result<Response, Trouble> {
    fleet.accept(&name, &caller.name).await?;
    Ok(to(&format!("/devices/{name}/trust")))
}

pub(super) async fn restart(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
    caller: Caller,
) -> Result<Response, Trouble> {
    fleet.restart_device(&name, &caller.name).await?;
    Ok(to(&format!("/devices/{name}")))
}

pub(super) async fn power_off(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
    caller: Caller,
) -> Result<Response, Trouble> {
    let up = |row: &mut DeviceRow| row.shutdowns = row.shutdowns.saturating_add(1);
    fleet.change_device(&name, "shutdown asked for", &caller.name, up).await?;
    Ok(to(&format!("/devices/{name}")))
}

#[derive(Debug, Deserialize)]
pub(super) struct Reason {
    #[serde(default)]
    reason: String,
}

/// With a reason it is put into quarantine, without one it is let out.
pub(super) async fn quarantine(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
    caller: Caller,
    Form(Reason { reason }): Form<Reason>,
) -> Result<Response, Trouble> {
    let reason: String = reason.trim().chars().take(300).collect();
    let (action, value) = if reason.is_empty() {
        ("let out of quarantine".to_owned(), None)
    } else {
        (format!("put into quarantine: {reason}"), Some(reason))
    };
    fleet
        .change_device(&name, &action, &caller.name, |row| row.quarantine.clone_from(&value))
        .await?;
    Ok(to(&format!("/devices/{name}")))
}

#[derive(Debug, Deserialize)]
pub(super) struct Confirmed {
    #[serde(default)]
    name: String,
}

pub(super) async fn delete(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
    caller: Caller,
    Form(confirmed): Form<Confirmed>,
) -> Result<Response, Trouble> {
    let own = fleet.known().device_object(&name).map(|s| s.object.key.name.clone());
    let own = own.ok_or(Trouble::Missing)?;
    if confirmed.name.trim() != own {
        let why =
            format!("To delete the node, write its name: {own}. You wrote {:?}.", confirmed.name);
        return Err(Trouble::Refused(why));
    }
    fleet.delete(&Key::new(Kind::Device, &own), false, &caller.name).await?;
    Ok(to("/"))
}

/// The name of a node, for events that name only its id.
pub(super) fn name_of(fleet: &Fleet, id: DeviceId) -> Option<String> {
    fleet.look(|known| known.object_of(id.raw()).map(|s| s.object.key.name.clone()))
}
