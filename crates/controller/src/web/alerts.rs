//! Alerts: what is wrong by the rules, and who has seen it.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;

use super::frame::{self, Page, Tone, acts, empty, state, url, when};
use super::{Caller, Part, Trouble, answer, to};
use crate::db::Alert;
use crate::fleet::Fleet;
use crate::operator::seen_alert;

/// Alerts of one page.
const ALERTS: u32 = 200;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Which {
    /// `all`: with those that are over.
    show: String,
}

pub(super) async fn page(
    State(fleet): State<Arc<Fleet>>,
    Query(which): Query<Which>,
    Query(part): Query<Part>,
    caller: Caller,
) -> Result<Response, Trouble> {
    let whole = which.show == "all";
    let alerts = fleet.db.alerts(!whole, ALERTS).await?;
    let rules = fleet.db.alert_rules().await?;
    let open = alerts.iter().filter(|a| a.ended.is_none()).count();
    let now = fleet.now();
    let body = html! {
        div data-say={ (open) " alerts open" } { (tabs(if whole { "/alerts?show=all" } else { "/alerts" })) }
        div.card {
            @if rules.is_empty() { (empty("No rule looks at the fleet", "What rules find wrong appears here, and is told to a webhook of yours.", Some(("/alerts/rules", "Rules")))) }
            @else if alerts.is_empty() { (empty("Nothing is wrong by the rules", "What they find appears here as long as it lasts.", None)) }
            @else {
                div.scroll { table.stack {
                    thead { tr { th scope="col" { "About" } th scope="col" { "State" } th scope="col" { "What is wrong" } th scope="col" { "Since" } th scope="col" { "Seen" } } }
                    tbody {
                        @for alert in &alerts {
                            tr {
                                td data-of="" { (about(alert)) div.soft { "by rule " (alert.rule) } }
                                td.tight data-of="State" { @match alert.ended { None => (state(Tone::Bad, "open")), Some(at) => { (state(Tone::Idle, "over")) " " (when(now, at)) } } }
                                td data-of="Wrong" { (alert.text) }
                                td.tight data-of="Since" { (when(now, alert.since)) }
                                td.tight data-of="Seen" {
                                    @if let Some(by) = &alert.acked_by { "by " (by) @if let Some(at) = alert.acked { " " (when(now, at)) } }
                                    @else if acts(&caller) { form.inline method="post" action={ "/alerts/" (alert.id) "/ack" } { button aria-label={ "I have seen: " (alert.subject) } { "I have seen it" } } }
                                    @else { span.soft { "by nobody" } }
                                }
                            }
                        }
                    }
                } }
            }
        }
    };
    let words = "What rules find wrong, for as long as it lasts.";
    let head = frame::head(&[], "Alerts", words, &Markup::default());
    let live = Some(url("/alerts", &[("show", &which.show)]));
    Ok(answer(
        &part,
        &Page { who: &caller, title: "Alerts", way: "/alerts", head, live, part: body },
    ))
}

/// Alerts that are open, all of them, and the rules.
pub(super) fn tabs(now: &str) -> Markup {
    let all = [("/alerts", "Open"), ("/alerts?show=all", "All"), ("/alerts/rules", "Rules")];
    frame::tabs("Alerts", &all, now)
}

fn about(alert: &Alert) -> Markup {
    html! {
        @match alert.subject.split_once(' ') {
            Some(("Device", name)) => a.name href={ "/devices/" (name) } { (name) },
            Some(("Rollout", name)) => a.name href={ "/rollouts/" (name) } { "rollout " (name) },
            _ => b { (alert.subject) },
        }
    }
}

pub(super) async fn ack(
    State(fleet): State<Arc<Fleet>>,
    Path(id): Path<u64>,
    caller: Caller,
) -> Result<Response, Trouble> {
    seen_alert(&fleet, id, &caller.name).await?;
    Ok(to("/alerts"))
}
