//! The rules of alerts: what they look at, whom they tell, and whether that works.

use std::sync::Arc;

use axum::extract::{Form, Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;

use super::frame::{self, Page, acts, choice, empty, press};
use super::{Caller, Trouble, alerts, html as page_of, to};
use crate::alerts::{RuleSpec, When};
use crate::fleet::Fleet;
use crate::operator::{delete_rule, put_rule, tested};
use crate::words::time;

/// What a rule looks at, for a choice.
fn what(when: When) -> &'static str {
    match when {
        When::Silent => "a node is not heard of",
        When::Trouble => "a node says that something is wrong",
        When::DiskFull => "a node's disk is nearly full",
        When::UpdateFailed => "a node went back from an update",
        When::RolloutStopped => "a rollout stopped by itself",
        When::AttestationFailed => "a node's last quote was not good",
        When::CertificateEnds => "a certificate ends soon",
        When::ControllerTrouble => "this controller is in trouble",
    }
}

fn looks_at(rule: &RuleSpec) -> String {
    let what = what(rule.when);
    match rule.when {
        When::Silent | When::Trouble | When::ControllerTrouble => {
            format!("{what} for {} min", rule.minutes)
        }
        When::DiskFull => format!("{what}: {} % or more", rule.percent),
        When::CertificateEnds => format!("{what}: within {} days", rule.days),
        When::UpdateFailed | When::RolloutStopped | When::AttestationFailed => what.to_owned(),
    }
}

pub(super) async fn page(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
) -> Result<Response, Trouble> {
    show(&fleet, &caller, StatusCode::OK, &Markup::default()).await
}

async fn show(
    fleet: &Fleet,
    caller: &Caller,
    status: StatusCode,
    said: &Markup,
) -> Result<Response, Trouble> {
    let (rules, untold) = (fleet.db.alert_rules().await?, fleet.db.untold().await?);
    let may = acts(caller);
    let part = html! {
        (alerts::tabs("/alerts/rules"))
        (said)
        div.card {
            @if rules.is_empty() { (empty("There is no rule", "Nothing raises alerts. A rule says what to look at, and whom to tell.", None)) }
            @else {
                div.scroll { table.stack {
                    thead { tr { th scope="col" { "Rule" } th scope="col" { "Raises an alert when" } th scope="col" { "Nodes with" } th scope="col" { "Tells" } th scope="col" { span.hidden { "Act" } } } }
                    tbody { @for row in &rules { tr {
                        td data-of="" { b { (row.name) } }
                        @match serde_json::from_str::<RuleSpec>(&row.spec) {
                            Ok(rule) => {
                                td data-of="When" { (looks_at(&rule)) }
                                td data-of="Nodes with" { @if rule.devices == "*" { "all" } @else { code { (rule.devices) } } }
                                td data-of="Tells" {
                                    @match &rule.url {
                                        Some(url) => { (host(url)) @if row.secret.is_some() { span.soft { ", signed" } } },
                                        None => span.soft { "nobody: it is only listed" },
                                    }
                                    @if let Some(untold) = untold.get(&row.name) {
                                        div.why { (untold.waiting) " not taken: " (untold.why) "; next try " (time(untold.again)) }
                                    }
                                }
                                td.tight data-of="" { @if may { div.actions {
                                    @if rule.url.is_some() { (press(&format!("/alerts/rules/{}/test", row.name), "Test", &row.name)) }
                                    (remove(&row.name))
                                } } }
                            },
                            Err(e) => {
                                td colspan="3" { div.why { "This controller cannot read it: " (e) } }
                                td.tight data-of="" { @if may { (remove(&row.name)) } }
                            },
                        }
                    } } }
                } }
            }
        }
        @if may { section.card { h2 { "Add or change a rule" } (form()) } }
    };
    let words = "What the controller looks at by itself, and which webhook is told when it begins and when it is over.";
    let head = frame::head(&[("/alerts", "Alerts")], "Rules", words, &Markup::default());
    let page = Page { who: caller, title: "Rules", way: "/alerts", head, live: None, part };
    Ok(page_of(status, page.whole()))
}

fn remove(name: &str) -> Markup {
    press(&format!("/alerts/rules/{name}/delete"), "Delete", name)
}

fn form() -> Markup {
    let all = When::ALL.map(|when| (when.name().to_owned(), what(when).to_owned()));
    html! {
        form method="post" action="/alerts/rules" {
            div.filters {
                div { label for="rule" { "Name" } input #rule name="name" required maxlength="63" autocomplete="off" placeholder="nodes-silent"; }
                (choice("when", "when", "Raise an alert when", &all, ""))
                div.wide { label for="match" { "Nodes with" } input #match name="devices" value="*" required autocomplete="off"; }
            }
            div.filters {
                div { label for="minutes" { "For minutes" } input #minutes name="minutes" type="number" min="0" max="527040" value="10" required; }
                div { label for="percent" { "Disk full, %" } input #percent name="percent" type="number" min="1" max="100" value="90" required; }
                div { label for="days" { "Days before a certificate ends" } input #days name="days" type="number" min="1" max="3660" value="30" required; }
            }
            div.filters {
                div.wide { label for="url" { "Webhook (https), if somebody is to be told" } input #url name="url" type="url" placeholder="https://hooks.example/…" autocomplete="off"; }
                div { label for="secret" { "Secret that signs it" } input #secret name="secret" type="password" autocomplete="new-password"; }
                button { "Set the rule" }
            }
        }
        p.hint { "Minutes, percent and days count only where the rule is about them. A rule that is changed without a secret keeps the one it has." }
    }
}

/// The paths of webhooks often hold what lets one write to them.
fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let authority = rest.get(..end).unwrap_or_default();
    authority.rsplit('@').next().unwrap_or_default()
}

#[derive(Deserialize)]
pub(super) struct NewRule {
    name: String,
    when: When,
    devices: String,
    minutes: u64,
    percent: u8,
    days: u32,
    #[serde(default)]
    url: String,
    #[serde(default)]
    secret: String,
}

pub(super) async fn set(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
    Form(new): Form<NewRule>,
) -> Result<Response, Trouble> {
    let rule = RuleSpec {
        when: new.when,
        devices: new.devices,
        minutes: new.minutes,
        percent: new.percent,
        days: new.days,
        url: Some(new.url.trim().to_owned()).filter(|u| !u.is_empty()),
        trust: None,
        secret: None,
    };
    let secret = Some(new.secret).filter(|s| !s.is_empty());
    put_rule(&fleet, new.name.trim(), &rule, secret, &caller.name).await?;
    Ok(to("/alerts/rules"))
}

pub(super) async fn test(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
    caller: Caller,
) -> Result<Response, Trouble> {
    let (status, tone, words) = match tested(&fleet, &name).await {
        Ok(words) => (StatusCode::OK, "good", words),
        Err(e) if [StatusCode::UNPROCESSABLE_ENTITY, StatusCode::BAD_GATEWAY].contains(&e.0) => {
            (e.0, "bad", e.1.error)
        }
        Err(e) => return Err(e.into()),
    };
    let said = html! { div class={ "note " (tone) } role="status" { (words) } };
    show(&fleet, &caller, status, &said).await
}

pub(super) async fn delete(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
    caller: Caller,
) -> Result<Response, Trouble> {
    delete_rule(&fleet, &name, &caller.name).await?;
    Ok(to("/alerts/rules"))
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
