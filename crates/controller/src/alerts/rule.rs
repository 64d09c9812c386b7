//! Rules: what is looked at, and who is told.

use serde::{Deserialize, Serialize};

use super::webhook;
use crate::db::{DbError, RuleRow};
use crate::fleet::Fleet;
use crate::objects::QueryError;
use crate::rollout::calendar;

/// Minutes of a rule, at most: a year.
const MINUTES_MAX: u64 = 366 * 24 * 60;
/// Days of a rule, at most: ten years.
const DAYS_MAX: u32 = 3660;

/// What a rule looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// A device has not been heard of for `minutes`.
    Silent,
    /// A device says that something is wrong, for `minutes`.
    Trouble,
    /// `/persist` of a device is full to `percent`.
    DiskFull,
    /// A device tried another base system, and went back to the one it had.
    UpdateFailed,
    /// A rollout stopped, paused by itself or rolled itself back.
    RolloutStopped,
    /// A device's last quote was not good.
    AttestationFailed,
    /// A certificate of a device or of this controller ends within `days`.
    CertificateEnds,
    /// This controller cannot write to its database or reach its object store, or both are slow, or
    /// messages of devices pile up, for `minutes`.
    ControllerTrouble,
}

impl When {
    /// All of them.
    pub const ALL: [When; 8] = [
        When::Silent,
        When::Trouble,
        When::DiskFull,
        When::UpdateFailed,
        When::RolloutStopped,
        When::AttestationFailed,
        When::CertificateEnds,
        When::ControllerTrouble,
    ];

    /// As rules write it.
    pub fn name(self) -> &'static str {
        match self {
            When::Silent => "silent",
            When::Trouble => "trouble",
            When::DiskFull => "disk_full",
            When::UpdateFailed => "update_failed",
            When::RolloutStopped => "rollout_stopped",
            When::AttestationFailed => "attestation_failed",
            When::CertificateEnds => "certificate_ends",
            When::ControllerTrouble => "controller_trouble",
        }
    }
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
    /// For how long something must be so; at most a year.
    #[serde(default = "ten")]
    pub minutes: u64,
    /// How full a disk may become: 1 to 100.
    #[serde(default = "ninety")]
    pub percent: u8,
    /// How long before its end a certificate is spoken of: 1 to 3660.
    #[serde(default = "thirty")]
    pub days: u32,
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

fn ninety() -> u8 {
    90
}

fn thirty() -> u32 {
    30
}

/// Why a rule is refused; it names the field.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RuleError {
    #[error("rule.match: {0}")]
    Query(#[from] QueryError),
    #[error("rule.minutes: {0} is more than a year")]
    Minutes(u64),
    #[error("rule.percent: {0} is not from 1 to 100")]
    Percent(u8),
    #[error("rule.days: {0} is not from 1 to {DAYS_MAX}")]
    Days(u32),
    #[error("rule.url: {0}")]
    Url(webhook::WebhookError),
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Checks a rule and makes what is kept of it.
pub(crate) async fn checked(
    fleet: &Fleet,
    name: &str,
    rule: &RuleSpec,
    secret: Option<String>,
) -> Result<RuleRow, RuleError> {
    calendar::query(&fleet.db, &rule.devices).await??;
    if rule.minutes > MINUTES_MAX {
        return Err(RuleError::Minutes(rule.minutes));
    }
    if !(1..=100).contains(&rule.percent) {
        return Err(RuleError::Percent(rule.percent));
    }
    if !(1..=DAYS_MAX).contains(&rule.days) {
        return Err(RuleError::Days(rule.days));
    }
    if let Some(url) = &rule.url {
        webhook::parse(url).map_err(RuleError::Url)?;
    }
    let damaged = |e: serde_json::Error| DbError::Damaged {
        what: format!("alert rule {name}"),
        why: e.to_string(),
    };
    let spec = serde_json::to_string(rule).map_err(damaged)?;
    Ok(RuleRow { name: name.to_owned(), spec, secret: secret.map(String::into_bytes) })
}

/// Tells a rule's webhook that this is a test, at once and once; an error says why it was not taken.
pub(crate) async fn test(row: &RuleRow) -> Result<String, String> {
    let spec: RuleSpec = serde_json::from_str(&row.spec)
        .map_err(|e| format!("this controller cannot read the rule {}: {e}", row.name))?;
    let Some(url) = spec.url else {
        return Err(format!("the rule {} has no webhook", row.name));
    };
    let body = serde_json::json!({ "id": 0, "state": "test", "rule": row.name }).to_string();
    let told = webhook::post(&url, spec.trust.as_deref(), row.secret.as_deref(), &body).await;
    told.map(|()| format!("the webhook of {} took it", row.name))
        .map_err(|e| format!("the webhook of {} did not take it: {e}", row.name))
}
