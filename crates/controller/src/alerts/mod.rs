//! Alerts: rules look at the fleet, and webhooks are told what begins and what ends.
//!
//! What is wrong and what is open are values, and [`compare`] says what begins and what ends. What a
//! webhook is told is queued in the database together with the alert, and sent until it is taken:
//! at least once, with the alert's id.

mod look;
mod own;
mod rule;
mod webhook;

use std::collections::BTreeSet;
use std::time::Duration;

use model::UnixMillis;
use rustls_pki_types::CertificateDer;
use uuid::Uuid;

use crate::db::{Alert, DbError, RuleRow};
use crate::fleet::Fleet;
use crate::listener::Shown;
use crate::objects::Query;
use crate::rollout::calendar::queries;
use crate::words::time;
use look::{Found, Memory};

pub use crate::objects::{AlertRuleSpec as RuleSpec, When};
pub(crate) use rule::{RuleError, TestError, check, checked, test, with_secrets};

const LEASE: &str = "alerts";
const LEASE_TERM: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_secs(2);
/// A look takes at most this part of the time.
const SHARE: u32 = 8;
const OPEN_MAX: u32 = 100_000;
/// Sent in one round; each may take ten seconds.
const SENT_MAX: u32 = 4;
/// A webhook that does not answer is told again after so long, twice as long each time …
const AGAIN_MIN: Duration = Duration::from_secs(10);
/// … up to this.
const AGAIN_MAX: Duration = Duration::from_secs(3600);
/// After so many tries (three days) it is given up.
const TRIES: u32 = 80;

/// What begins and what ends, when this is open and that is wrong.
fn compare<'a>(open: &'a [Alert], found: &'a [Found]) -> (Vec<&'a Found>, Vec<&'a Alert>) {
    let had: BTreeSet<_> = open.iter().map(|a| (&a.rule, &a.subject)).collect();
    let has: BTreeSet<_> = found.iter().map(|f| (&f.rule, &f.subject)).collect();
    let begins = found.iter().filter(|f| !had.contains(&(&f.rule, &f.subject)));
    let ends = open.iter().filter(|a| !has.contains(&(&a.rule, &a.subject)));
    (begins.collect(), ends.collect())
}

/// When a webhook is told again after so many tries.
fn again(attempts: u32) -> Duration {
    AGAIN_MIN.saturating_mul(2_u32.saturating_pow(attempts.min(16))).min(AGAIN_MAX)
}

/// Looks after alerts; ends never. `shown`: the certificates that this controller shows.
pub(crate) async fn keep(fleet: &Fleet, shown: &Shown) {
    let holder = Uuid::new_v4().to_string();
    let (mut memory, mut last) = (Memory::default(), LastRules::default());
    loop {
        let began = tokio::time::Instant::now();
        let mut pause = TICK;
        let listener = shown.leaf();
        match tick(fleet, &holder, listener.as_ref(), &mut memory, &mut last).await {
            Ok(()) => {
                last.database_is_back(fleet.now()).await;
                pause = TICK.max(began.elapsed().saturating_mul(SHARE));
            }
            Err(e) => {
                tracing::error!("alerts: {}", model::chain(&e));
                last.database_is_gone(&e, fleet.now()).await;
            }
        }
        tokio::time::sleep(pause).await;
    }
}

async fn tick(
    fleet: &Fleet,
    holder: &str,
    listener: Option<&CertificateDer<'_>>,
    memory: &mut Memory,
    last: &mut LastRules,
) -> Result<(), DbError> {
    let rules = with_secrets(fleet, fleet.db.alert_rules().await?);
    last.rules.clone_from(&rules);
    // Who has nothing to do writes nothing.
    if rules.is_empty() || !fleet.db.lease(LEASE, holder, fleet.now(), LEASE_TERM).await? {
        return Ok(());
    }
    let spec = |row: &RuleRow| serde_json::from_str::<RuleSpec>(&row.spec).ok();
    if rules.iter().filter_map(spec).any(|s| s.when == When::ControllerTrouble) {
        let found = own::look(fleet).await;
        memory.own.take(found, fleet.now());
    }
    let mut found = Vec::new();
    let groups = queries(&fleet.db).await?;
    for row in &rules {
        let Some(spec) = spec(row) else { continue };
        let Ok(query) = Query::parse(&spec.devices, &groups) else { continue };
        found.extend(look::look(fleet, (&row.name, &spec), &query, listener, memory).await?);
    }
    let open = fleet.db.alerts(true, OPEN_MAX).await?;
    let now = fleet.now();
    let (begins, ends) = compare(&open, &found);
    for new in begins {
        let alert = raised(new, now);
        let told = has_webhook(&rules, &alert.rule);
        fleet.db.raise(&alert, |id| told.then(|| body(&Alert { id, ..alert.clone() }))).await?;
    }
    for over in ends {
        let ended = Alert { ended: Some(now), ..over.clone() };
        let body = has_webhook(&rules, &over.rule).then(|| body(&ended));
        fleet.db.end_alert(over, now, body.as_deref()).await?;
    }
    send(fleet, &rules).await
}

fn raised(found: &Found, now: UnixMillis) -> Alert {
    Alert {
        id: 0,
        rule: found.rule.clone(),
        subject: found.subject.clone(),
        text: found.text.clone(),
        since: now,
        ended: None,
        acked_by: None,
        acked: None,
    }
}

/// The rules as they were read last: without the database there are no alerts, but those who want
/// to know of the controller's trouble are told, once, that it is gone, and once that it is back.
/// These alerts are nowhere but there; their id is 0.
#[derive(Debug, Default)]
struct LastRules {
    rules: Vec<RuleRow>,
    gone: Option<Gone>,
}

#[derive(Debug)]
struct Gone {
    since: UnixMillis,
    /// Rules whose webhooks took it, and what they were told.
    told: Vec<Alert>,
}

impl LastRules {
    async fn database_is_gone(&mut self, e: &DbError, now: UnixMillis) {
        let gone = self.gone.get_or_insert(Gone { since: now, told: Vec::new() });
        for row in &self.rules {
            let Ok(spec) = serde_json::from_str::<RuleSpec>(&row.spec) else { continue };
            let due = now.since(gone.since).as_secs() >= spec.minutes.saturating_mul(60);
            let told = gone.told.iter().any(|alert| alert.rule == row.name);
            if spec.when != When::ControllerTrouble || spec.url.is_none() || !due || told {
                continue;
            }
            let found = Found {
                rule: row.name.clone(),
                subject: own::Part::Database.subject().to_owned(),
                text: model::chain(e),
            };
            let alert = raised(&found, gone.since);
            match post(row, &spec, &body(&alert)).await {
                Ok(()) => gone.told.push(alert),
                Err(e) => tracing::warn!(rule = row.name, "a webhook does not take an alert: {e}"),
            }
        }
    }

    async fn database_is_back(&mut self, now: UnixMillis) {
        let Some(gone) = self.gone.take() else { return };
        for alert in gone.told {
            let Some(row) = self.rules.iter().find(|r| r.name == alert.rule) else { continue };
            let Ok(spec) = serde_json::from_str::<RuleSpec>(&row.spec) else { continue };
            let ended = Alert { ended: Some(now), ..alert };
            if let Err(e) = post(row, &spec, &body(&ended)).await {
                tracing::warn!(rule = row.name, "a webhook does not take an alert: {e}");
            }
        }
    }
}

async fn post(row: &RuleRow, spec: &RuleSpec, body: &str) -> Result<(), webhook::WebhookError> {
    let url = spec.url.as_deref().unwrap_or_default();
    rule::signed(row, spec)?;
    webhook::post(url, spec.trust.as_deref(), row.secret.as_deref(), body).await
}

fn has_webhook(rules: &[RuleRow], name: &str) -> bool {
    let spec = rules.iter().find(|r| r.name == name).map(|r| r.spec.as_str());
    let spec = spec.and_then(|s| serde_json::from_str::<RuleSpec>(s).ok());
    spec.is_some_and(|s| s.url.is_some())
}

/// What a webhook is told.
fn body(alert: &Alert) -> String {
    let state = if alert.ended.is_some() { "ended" } else { "raised" };
    serde_json::json!({
        "id": alert.id,
        "state": state,
        "rule": alert.rule,
        "subject": alert.subject,
        "text": alert.text,
        "since": time(alert.since),
        "ended": alert.ended.map(time),
    })
    .to_string()
}

async fn send(fleet: &Fleet, rules: &[RuleRow]) -> Result<(), DbError> {
    for queued in fleet.db.queued(fleet.now(), SENT_MAX).await? {
        let rule = rules.iter().find(|r| r.name == queued.rule);
        let spec = rule.and_then(|r| serde_json::from_str::<RuleSpec>(&r.spec).ok());
        let Some((rule, spec)) = rule.zip(spec) else {
            fleet.db.unqueue(queued.id).await?;
            continue;
        };
        match post(rule, &spec, &queued.body).await {
            Ok(()) => fleet.db.unqueue(queued.id).await?,
            Err(e) if queued.attempts >= TRIES => {
                tracing::error!(rule = rule.name, "a webhook is given up: {e}");
                fleet.db.unqueue(queued.id).await?;
            }
            Err(e) => {
                tracing::warn!(rule = rule.name, "a webhook does not take an alert: {e}");
                let next = fleet.now().after(again(queued.attempts));
                fleet.db.requeue(queued.id, next, &e.to_string()).await?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_and_what_ends_is_told_once() {
        let found = |subject: &str| Found {
            rule: "r".into(),
            subject: subject.into(),
            text: "another text is no other alert".into(),
        };
        let alert = |id: u64, subject: &str| Alert {
            id,
            rule: "r".into(),
            subject: subject.into(),
            text: "x".into(),
            since: UnixMillis(1),
            ended: None,
            acked_by: None,
            acked: None,
        };
        let (open, wrong) = ([alert(1, "a"), alert(2, "b")], [found("b"), found("c")]);
        let (begins, ends) = compare(&open, &wrong);
        assert_eq!(begins, [&found("c")]);
        assert_eq!(ends, [&alert(1, "a")]);
    }

    #[test]
    fn who_does_not_answer_is_asked_less_and_less() {
        let waits: Vec<u64> = [0, 1, 2, 8, 9, u32::MAX].map(|n| again(n).as_secs()).to_vec();
        assert_eq!(waits, [10, 20, 40, 2560, 3600, 3600]);
    }
}
