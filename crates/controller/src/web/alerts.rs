//! Alerts: what is wrong by the rules, who has seen it, and the rules.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;

use super::frame::{self, Page, Tone, acts, empty, state, url, when};
use super::{Caller, Part, Trouble, answer, to};
use crate::alerts::{RuleSpec, When};
use crate::db::Alert;
use crate::fleet::Fleet;

/// Alerts of one page.
const ALERTS: u32 = 200;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Which {
    /// `all`: with those that are over.
    show: String,
}

fn looks_at(rule: &RuleSpec) -> String {
    let minutes = rule.minutes;
    match rule.when {
        When::Silent => format!("a node is not heard of for {minutes} min"),
        When::Trouble => format!("a node says for {minutes} min that something is wrong"),
        When::RolloutStopped => "a rollout stopped by itself".to_owned(),
        When::AttestationFailed => "a node's last quote was not good".to_owned(),
    }
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
        div.counts data-say={ (open) " alerts open" } {
            a href="/alerts" aria-current=[(!whole).then_some("true")] { "open" }
            a href=(url("/alerts", &[("show", "all")])) aria-current=[whole.then_some("true")] { "all" }
        }
        div.card {
            @if alerts.is_empty() { (empty("Nothing is wrong by the rules", "What they find appears here as long as it lasts.", None)) }
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
        section.card {
            h2 { "Rules" }
            @if rules.is_empty() { p.soft { "None, so nothing raises alerts. " code { "PUT /api/operator/v1/alert-rules/NAME" } " makes one." } }
            @else {
                div.scroll { table.stack {
                    thead { tr { th scope="col" { "Rule" } th scope="col" { "Raises when" } th scope="col" { "Nodes" } th scope="col" { "Tells" } } }
                    tbody {
                        @for row in &rules {
                            tr {
                                td data-of="" { b { (row.name) } }
                                @match serde_json::from_str::<RuleSpec>(&row.spec) {
                                    Ok(rule) => {
                                        td data-of="Raises when" { (looks_at(&rule)) }
                                        td data-of="Nodes" { @if rule.devices == "*" { "all" } @else { code { (rule.devices) } } }
                                        td data-of="Tells" { @match &rule.url { Some(url) => (host(url)), None => { span.soft { "nobody, it is listed here" } } } }
                                    },
                                    Err(e) => td colspan="3" { div.why { "This controller cannot read it: " (e) } },
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

/// The paths of webhooks often hold what lets one write to them.
fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let authority = rest.get(..end).unwrap_or_default();
    authority.rsplit('@').next().unwrap_or_default()
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
    if !fleet.db.ack_alert(id, &caller.name, fleet.now()).await? {
        let why = format!("There is no alert {id} that nobody has seen.");
        return Err(Trouble::Refused(why));
    }
    Ok(to("/alerts"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_webhook_only_its_host_is_shown() {
        assert_eq!(host("https://hooks.example/services/T0/secret"), "hooks.example");
        assert_eq!(host("https://me:word@hooks.example:8443?key=1"), "hooks.example:8443");
        assert_eq!(host("nothing"), "nothing");
    }
}
