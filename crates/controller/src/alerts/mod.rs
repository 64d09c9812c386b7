//! Alerts: rules look at the fleet, and webhooks are told what begins and what ends.
//!
//! What is wrong and what is open are values, and [`compare`] says what begins and what ends. What a
//! webhook is told is queued in the database together with the alert, and sent until it is taken:
//! at least once, with the alert's id.

mod webhook;

use std::collections::BTreeSet;
use std::time::Duration;

use model::UnixMillis;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::db::{Alert, DbError, RuleRow};
use crate::drift::said::Said;
use crate::fleet::Fleet;
use crate::objects::Kind;
use crate::rollout::calendar::{labels, queries};
use crate::rollout::drive;
use crate::rollout::select::Query;
use crate::words::time;

pub(crate) use webhook::parse as parse_url;

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

/// What a rule looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// A device has not been heard of for `minutes`.
    Silent,
    /// A device says that something is wrong, for `minutes`.
    Trouble,
    /// A rollout stopped, paused by itself or rolled itself back.
    RolloutStopped,
    /// A device's last quote was not good.
    AttestationFailed,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleSpec {
    /// What it looks at.
    pub when: When,
    /// Which devices, as a query over labels.
    #[serde(default = "everything", rename = "match")]
    pub devices: String,
    /// For how long something must be so.
    #[serde(default = "ten")]
    pub minutes: u64,
    /// Who is told: an `https` address that takes a POST. Not said: nobody, it is only listed.
    #[serde(default)]
    pub url: Option<String>,
    /// A certificate the webhook may present beyond the system's, PEM.
    #[serde(default)]
    pub trust: Option<String>,
}

fn everything() -> String {
    "*".to_owned()
}

fn ten() -> u64 {
    10
}

/// Something that is wrong, by a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    rule: String,
    subject: String,
    text: String,
}

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

/// Looks after alerts; ends never.
pub(crate) async fn keep(fleet: &Fleet) {
    let holder = Uuid::new_v4().to_string();
    loop {
        let began = tokio::time::Instant::now();
        if let Err(e) = tick(fleet, &holder).await {
            tracing::error!("alerts: {}", model::chain(&e));
        }
        tokio::time::sleep(TICK.max(began.elapsed().saturating_mul(SHARE))).await;
    }
}

async fn tick(fleet: &Fleet, holder: &str) -> Result<(), DbError> {
    let rules = fleet.db.alert_rules().await?;
    // Who has nothing to do writes nothing.
    if rules.is_empty() || !fleet.db.lease(LEASE, holder, fleet.now(), LEASE_TERM).await? {
        return Ok(());
    }
    let mut found = Vec::new();
    let groups = queries(&fleet.db).await?;
    for row in &rules {
        let Ok(spec) = serde_json::from_str::<RuleSpec>(&row.spec) else { continue };
        let Ok(query) = Query::parse(&spec.devices, &groups) else { continue };
        found.extend(look(fleet, &row.name, &spec, &query).await?);
    }
    let open = fleet.db.alerts(true, OPEN_MAX).await?;
    let now = fleet.now();
    let (begins, ends) = compare(&open, &found);
    for new in begins {
        let alert = Alert {
            id: 0,
            rule: new.rule.clone(),
            subject: new.subject.clone(),
            text: new.text.clone(),
            since: now,
            ended: None,
            acked_by: None,
            acked: None,
        };
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
        let url = spec.url.as_deref().unwrap_or_default();
        let secret = rule.secret.as_deref();
        match webhook::post(url, spec.trust.as_deref(), secret, &queued.body).await {
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

async fn look(
    fleet: &Fleet,
    rule: &str,
    spec: &RuleSpec,
    query: &Query,
) -> Result<Vec<Found>, DbError> {
    let found = |subject: String, text: String| Found { rule: rule.to_owned(), subject, text };
    let mut all = Vec::new();
    if spec.when == When::RolloutStopped {
        for row in fleet.db.rollouts(true).await? {
            let Ok(record) = drive::record(fleet, &row.name).await else { continue };
            let shown = record.shown(false);
            if shown.phase == "stopped" {
                all.push(found(format!("Rollout {}", row.name), shown.why));
            }
        }
        return Ok(all);
    }
    let now = fleet.now();
    let long_ago = |at: UnixMillis| now.since(at).as_secs() >= spec.minutes.saturating_mul(60);
    let known = fleet.known();
    let meant = known.of_kind(Kind::Device).filter(|s| query.matches(&labels(s)));
    for stored in meant {
        let id = stored.object.uid;
        let subject = stored.object.key.to_string();
        match spec.when {
            When::Silent => {
                if let Some(at) = fleet.last_seen(id).filter(|at| long_ago(*at)) {
                    all.push(found(subject, format!("not heard of since {}", time(at))));
                }
            }
            When::Trouble => {
                let said = Said::read(&fleet.db.infos(id).await?);
                let troubles = said.troubles();
                if let Some(first) = troubles.iter().find(|t| long_ago(t.since)) {
                    let since = time(first.since);
                    all.push(found(
                        subject,
                        format!("{}: {} since {since}", first.subject, first.text),
                    ));
                }
            }
            When::AttestationFailed => {
                let bad = fleet.db.verdict(id).await?.filter(|v| !v.good);
                all.extend(
                    bad.map(|v| {
                        found(subject, format!("its quote of {} was not good", time(v.at)))
                    }),
                );
            }
            When::RolloutStopped => {}
        }
    }
    Ok(all)
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
