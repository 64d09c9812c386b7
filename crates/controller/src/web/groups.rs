//! Groups of nodes, and the maintenance windows in which they may be disturbed.

use std::sync::Arc;

use axum::extract::{Form, Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::json;

use super::frame::{self, Page, Tone, acts, empty, press, state};
use super::{Caller, Trouble, html as page_of, to};
use crate::fleet::Fleet;
use crate::operator::{
    GroupSpec, all_groups, all_windows, delete_group, delete_window, put_group, put_window,
};
use crate::rollout::WindowSpec;

/// Names of a group's nodes that are listed.
const NAMES: usize = 8;

pub(super) async fn page(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
) -> Result<Response, Trouble> {
    let groups = all_groups(&fleet).await?;
    let windows = all_windows(&fleet).await?;
    let (now, may) = (fleet.now(), acts(&caller));
    let part = html! {
        section.card {
            h2 { "Groups" }
            @if groups.is_empty() { (empty("There is no group", "A group names a query over labels, for windows, rollouts and rules.", None)) }
            @else {
                div.scroll { table.stack {
                    thead { tr { th scope="col" { "Group" } th scope="col" { "Nodes with" } th.number scope="col" { "Nodes" } th scope="col" { "Which" } th scope="col" { span.hidden { "Act" } } } }
                    tbody { @for group in &groups { tr {
                        td data-of="" { b { (group.name) } @if !group.note.is_empty() { div.soft { (group.note) } } }
                        td data-of="Nodes with" { code { (group.query) } }
                        td.number data-of="Nodes" { (group.devices.len()) }
                        td data-of="Which" {
                            @for name in group.devices.iter().take(NAMES) { a href={ "/devices/" (name) } { (name) } " " }
                            @if group.devices.len() > NAMES { span.soft { "and " (group.devices.len() - NAMES) " more" } }
                        }
                        td.tight data-of="" { @if may { (press(&format!("/groups/{}/delete", group.name), "Delete", &group.name)) } }
                    } } }
                } }
            }
            @if may { (group_form()) }
        }
        section.card {
            h2 { "Maintenance windows" }
            @if windows.is_empty() { (empty("There is no window", "Nodes that no window names may be disturbed at any time.", None)) }
            @else {
                div.scroll { table.stack {
                    thead { tr { th scope="col" { "Window" } th scope="col" { "Nodes with" } th scope="col" { "Opens" } th scope="col" { "Now" } th scope="col" { span.hidden { "Act" } } } }
                    tbody { @for window in &windows {
                        @let days: Vec<String> = window.spec.days.iter().filter_map(|d| json!(d).as_str().map(str::to_owned)).collect();
                        tr {
                            td data-of="" { b { (window.name) } }
                            td data-of="Nodes with" { code { (window.spec.devices) } }
                            td data-of="Opens" {
                                @if days.is_empty() { "every day" } @else { (days.join(", ")) }
                                " at " (window.spec.from) " for " (window.spec.minutes) " min, " (window.spec.zone)
                            }
                            td.tight data-of="Now" {
                                @match (window.open_until, window.opens_at) {
                                    (Some(until), _) => { (state(Tone::Good, "open")) " until " (crate::words::time(until)) },
                                    (None, Some(at)) => { (state(Tone::Idle, "closed")) " opens " (crate::words::time(at)) },
                                    (None, None) => { (state(Tone::Bad, "never opens")) div.why { "It or its group cannot be read; it holds nobody." } },
                                }
                            }
                            td.tight data-of="" { @if may { (press(&format!("/windows/{}/delete", window.name), "Delete", &window.name)) } }
                        }
                    } }
                } }
            }
            @if may { (window_form()) }
        }
    };
    let words = "Which nodes belong together, and when changes may interrupt what runs on them.";
    let title = "Groups and windows";
    let head =
        frame::head(&[], title, words, &html! { span.soft { "It is " (crate::words::time(now)) } });
    let page = Page { who: &caller, title, way: "/groups", head, live: None, part };
    Ok(page_of(StatusCode::OK, page.whole()))
}

fn group_form() -> Markup {
    html! {
        h3 { "Add or change a group" }
        form.filters method="post" action="/groups" {
            div { label for="group" { "Name" } input #group name="name" required maxlength="63" autocomplete="off"; }
            div.wide { label for="query" { "Nodes with" } input #query name="query" required placeholder="site=berlin, tier" autocomplete="off"; }
            div.wide { label for="note" { "What it is for" } input #note name="note" autocomplete="off"; }
            button { "Set the group" }
        }
    }
}

fn window_form() -> Markup {
    html! {
        h3 { "Add or change a window" }
        form.filters method="post" action="/windows" {
            div { label for="window" { "Name" } input #window name="name" required maxlength="63" autocomplete="off"; }
            div.wide { label for="match" { "Nodes with" } input #match name="devices" required placeholder="group=shops" autocomplete="off"; }
            div { label for="days" { "Days (none: every day)" } input #days name="days" placeholder="mon, tue" size="12" autocomplete="off"; }
            div { label for="from" { "Opens at" } input #from name="from" required placeholder="02:00" size="6" autocomplete="off"; }
            div { label for="minutes" { "For minutes" } input #minutes name="minutes" type="number" min="1" max="10080" value="60" required; }
            div { label for="zone" { "Time zone" } input #zone name="zone" value="UTC" required size="14" autocomplete="off"; }
            button { "Set the window" }
        }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct NewGroup {
    name: String,
    query: String,
    #[serde(default)]
    note: String,
}

pub(super) async fn set_group(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
    Form(NewGroup { name, query, note }): Form<NewGroup>,
) -> Result<Response, Trouble> {
    put_group(&fleet, name.trim(), &GroupSpec { query, note }, &caller.name).await?;
    Ok(to("/groups"))
}

#[derive(Debug, Deserialize)]
pub(super) struct NewWindow {
    name: String,
    devices: String,
    #[serde(default)]
    days: String,
    from: String,
    minutes: u32,
    zone: String,
}

pub(super) async fn set_window(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
    Form(new): Form<NewWindow>,
) -> Result<Response, Trouble> {
    let days: Vec<String> = new.days.split(',').map(|d| d.trim().to_lowercase()).collect();
    let days: Vec<&String> = days.iter().filter(|d| !d.is_empty()).collect();
    let spec = json!({
        "match": new.devices.trim(), "days": days, "from": new.from.trim(),
        "minutes": new.minutes, "zone": new.zone.trim(),
    });
    let spec: WindowSpec =
        serde_json::from_value(spec).map_err(|e| Trouble::Refused(format!("days: {e}")))?;
    put_window(&fleet, new.name.trim(), &spec, &caller.name).await?;
    Ok(to("/groups"))
}

pub(super) async fn remove_group(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
    caller: Caller,
) -> Result<Response, Trouble> {
    delete_group(&fleet, &name, &caller.name).await?;
    Ok(to("/groups"))
}

pub(super) async fn remove_window(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
    caller: Caller,
) -> Result<Response, Trouble> {
    delete_window(&fleet, &name, &caller.name).await?;
    Ok(to("/groups"))
}
