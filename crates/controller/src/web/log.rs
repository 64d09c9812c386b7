//! What happened, who did what, and the controller itself.

use std::sync::Arc;

use axum::extract::{Form, Query, State};
use axum::response::Response;
use maud::{Markup, html};
use model::UnixMillis;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::frame::{self, Page, empty, url, when};
use super::{Caller, Part, Trouble, answer, device, to};
use crate::db::{Engine, Event};
use crate::fleet::Fleet;
use crate::objects::Kind;

/// Lines of one page.
const LINES: u32 = 200;
/// A serial number has no more letters.
const SERIAL_MAX: usize = 256;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Which {
    q: String,
    /// Only what came before this id.
    before: String,
}

impl Which {
    fn before(&self) -> u64 {
        self.before.parse().unwrap_or(u64::MAX)
    }
}

fn search(path: &str, words: &str, place: &str) -> Markup {
    html! {
        form.filters role="search" action=(path) data-filter="" {
            div.wide { label for="q" { "Search" } input #q name="q" type="search" value=(words) placeholder=(place) autocomplete="off"; }
            button { "Show" }
        }
    }
}

fn older(path: &str, which: &Which, last: Option<u64>, full: bool) -> Markup {
    html! {
        @if let Some(last) = last.filter(|_| full) {
            nav.pager aria-label="Pages" { span {} a.button href=(url(path, &[("q", &which.q), ("before", &last.to_string())])) { "Older" } }
        }
    }
}

fn is_full(lines: usize) -> bool {
    lines >= usize::try_from(LINES).unwrap_or(usize::MAX)
}

/// Events as a table; `name` tells the name of the node, where that is not clear already.
pub(super) fn event_table(
    events: &[Event],
    name: impl Fn(&Event) -> Option<String>,
    now: UnixMillis,
) -> Markup {
    html! {
        @if events.is_empty() { (empty("Nothing has happened yet", "Registrations, changes and new states of apps appear here.", None)) }
        @else {
            div.scroll { table {
                thead { tr { th scope="col" { "When" } th scope="col" { "What" } } }
                tbody {
                    @for event in events {
                        tr {
                            td.tight { (when(now, event.at)) }
                            td {
                                @if let Some(name) = name(event) { a href={ "/devices/" (name) } { (name) } ": " }
                                b { (event.object) } " " (event.text)
                            }
                        }
                    }
                }
            } }
        }
    }
}

pub(super) async fn events(
    State(fleet): State<Arc<Fleet>>,
    Query(which): Query<Which>,
    Query(part): Query<Part>,
    caller: Caller,
) -> Result<Response, Trouble> {
    let events = fleet.db.events_with(None, &which.q, which.before(), LINES).await?;
    let name = |e: &Event| device::name_of(&fleet, e.device?);
    let last = events.last().map(|e| e.id);
    let body = html! {
        div.card {
            (event_table(&events, name, fleet.now()))
            (older("/events", &which, last, is_full(events.len())))
        }
    };
    let head = html! { (frame::head(&[], "Events", "", &Markup::default())) (search("/events", &which.q, "app, node or what happened")) };
    let live = Some(url("/events", &[("q", &which.q), ("before", &which.before)]));
    Ok(answer(
        &part,
        &Page { who: &caller, title: "Events", way: "/events", head, live, part: body },
    ))
}

pub(super) async fn audit(
    State(fleet): State<Arc<Fleet>>,
    Query(which): Query<Which>,
    Query(part): Query<Part>,
    caller: Caller,
) -> Result<Response, Trouble> {
    let lines = fleet.db.audited(&which.q, which.before(), LINES).await?;
    let now = fleet.now();
    let body = html! {
        div.card {
            @if lines.is_empty() { (empty("No line is so", "Everything that people, programs and registrations change stands here.", None)) }
            @else {
                div.scroll { table.stack {
                    thead { tr { th scope="col" { "When" } th scope="col" { "Who" } th scope="col" { "Did" } th scope="col" { "To" } } }
                    tbody {
                        @for line in &lines {
                            tr {
                                td.tight data-of="When" { (when(now, line.at)) }
                                td.tight data-of="Who" { b { (line.author) } }
                                td data-of="Did" { (line.action) @if !line.detail.is_empty() { div.soft { (line.detail) } } }
                                td data-of="To" { (line.object) }
                            }
                        }
                    }
                } }
            }
            (older("/audit", &which, lines.last().map(|l| l.id), is_full(lines.len())))
        }
    };
    let words = "Who changed what. Nobody can change these lines.";
    let head = html! { (frame::head(&[], "Audit", words, &Markup::default())) (search("/audit", &which.q, "who, what or which object")) };
    let live = Some(url("/audit", &[("q", &which.q), ("before", &which.before)]));
    Ok(answer(&part, &Page { who: &caller, title: "Audit", way: "/audit", head, live, part: body }))
}

pub(super) async fn settings(
    State(fleet): State<Arc<Fleet>>,
    Query(part): Query<Part>,
    caller: Caller,
) -> Result<Response, Trouble> {
    let known = fleet.known();
    let images = fleet.registry().names().map_err(|e| Trouble::Own(model::chain(&e)))?;
    let database = match fleet.db.engine() {
        Engine::Sqlite => "SQLite, a file in the data folder",
        Engine::Postgres => "PostgreSQL",
    };
    let root = hex::encode(Sha256::digest(fleet.pki.root.cert_pem.as_bytes()));
    let body = html! {
        div.grid {
            section.card {
                h2 { "This controller" }
                dl {
                    dt { "Version" } dd { (env!("CARGO_PKG_VERSION")) }
                    dt { "Reached by" } dd { @for name in fleet.reached_by() { code { (name) } " " } }
                    dt { "Keeps its data in" } dd { (database) }
                    dt { "Nodes, objects" } dd { (known.of_kind(Kind::Device).count()) ", " (known.stored.len()) }
                    dt { "Changes so far" } dd { (known.revision) }
                    dt { "Root certificate" } dd { "PEM of SHA-256 " code { (root) } }
                }
            }
            section.card {
                h2 { "Images in its registry" }
                @if images.is_empty() { p.soft { "None. Put one in: " code { "eve pkg build DIR" } ", or start the controller with --images." } }
                @else { ul.plain { @for image in &images { li { code { (image) } } } } }
            }
        }
        section.card {
            h2 { "Serial numbers that may come without being expected" }
            @if known.serials.is_empty() { p.soft { "None: only nodes that were added may register." } }
            @else {
                table {
                    thead { tr { th scope="col" { "Serial number" } th scope="col" { span.hidden { "Remove" } } } }
                    tbody {
                        @for serial in known.serials.iter().filter(|s| !s.contains('\u{1f}')) {
                            tr {
                                td { code { (serial) } @if serial == "*" { " " b { "any node may register" } } }
                                td.tight { @if frame::acts(&caller) { form.inline method="post" action="/settings/serials" { input type="hidden" name="serial" value=(serial); button.risky name="do" value="remove" aria-label={ "Remove " (serial) } { "Remove" } } } }
                            }
                        }
                    }
                }
            }
        }
    };
    let head = html! {
        (frame::head(&[], "Settings", "", &Markup::default()))
        @if frame::acts(&caller) { form.filters method="post" action="/settings/serials" {
            div.wide { label for="serial" { "Let a serial number register (* is any)" } input #serial name="serial" maxlength="256" required autocomplete="off"; }
            button name="do" value="add" { "Allow" }
        } }
    };
    let live = Some("/settings".to_owned());
    Ok(answer(
        &part,
        &Page { who: &caller, title: "Settings", way: "/settings", head, live, part: body },
    ))
}

#[derive(Debug, Deserialize)]
pub(super) struct Serial {
    serial: String,
    #[serde(default, rename = "do")]
    wish: String,
}

pub(super) async fn serials(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
    Form(Serial { serial, wish }): Form<Serial>,
) -> Result<Response, Trouble> {
    let serial = serial.trim();
    if serial.is_empty() || serial.len() > SERIAL_MAX || serial.contains(char::is_control) {
        return Err(Trouble::Refused(format!("{serial:?} is no serial number.")));
    }
    fleet.allow_serial(serial, None, wish != "remove", &caller.name).await?;
    Ok(to("/settings"))
}
