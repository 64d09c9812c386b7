//! Rules: what is looked at, and who is told.

use std::collections::BTreeMap;

use super::{RuleSpec, webhook};
use crate::db::{Policies, Policy, RuleRow};
use crate::fleet::{Fleet, Known, policies};
use crate::objects::{Key, Kind, NOT_SHOWN, Query, QueryError, Spec, TextOrSecret};
use crate::outbound::{self, OutboundError};

/// Minutes of a rule, at most: a year.
const MINUTES_MAX: u64 = 366 * 24 * 60;
/// Days of a rule, at most: ten years.
const DAYS_MAX: u32 = 3660;

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
    #[error("rule.trust: {0}")]
    Trust(OutboundError),
    #[error("rule.secret: there is no Secret {0}")]
    Secret(String),
}

/// Checks a rule; `groups` are queries by name.
pub(crate) fn check(rule: &RuleSpec, groups: &BTreeMap<String, String>) -> Result<(), RuleError> {
    Query::parse(&rule.devices, groups)?;
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
    if let Some(trust) = &rule.trust {
        outbound::certificates(trust.as_bytes()).map_err(RuleError::Trust)?;
    }
    Ok(())
}

/// Checks a rule and makes what is kept of it. Without a secret it keeps the one it has.
pub(crate) fn checked(
    known: &Known,
    policies: &Policies,
    key: &Key,
    (rule, secret): (&RuleSpec, Option<&str>),
) -> Result<Policy, RuleError> {
    check(rule, &policies::groups(policies))?;
    let mut rule = rule.clone();
    let mut secret = secret.map(|text| text.as_bytes().to_vec());
    match rule.secret.take() {
        Some(TextOrSecret::Text(text)) if text == NOT_SHOWN => {}
        Some(TextOrSecret::Text(text)) => secret = Some(text.into_bytes()),
        named => rule.secret = named,
    }
    if let Some(TextOrSecret::Secret(named)) = &rule.secret {
        // It has no other one beside it.
        if !known.objects.contains_key(&Key::new(Kind::Secret, &named.secret)) {
            return Err(RuleError::Secret(named.secret.clone()));
        }
    } else if secret.is_none()
        && let Some(Policy { spec: Spec::AlertRule(had), secret: kept }) = policies.get(key)
    {
        rule.secret.clone_from(&had.secret);
        secret.clone_from(kept);
    }
    Ok(Policy { spec: Spec::AlertRule(rule), secret })
}

fn read(row: &RuleRow) -> Option<RuleSpec> {
    serde_json::from_str(&row.spec).ok()
}

/// The rules with the values of the secrets that they name.
pub(crate) fn with_secrets(fleet: &Fleet, mut rules: Vec<RuleRow>) -> Vec<RuleRow> {
    for row in &mut rules {
        let Some(TextOrSecret::Secret(named)) = read(row).and_then(|spec| spec.secret) else {
            continue;
        };
        let key = Key::new(Kind::Secret, &named.secret);
        row.secret = fleet.look(|known| match known.objects.get(&key).map(|o| &o.spec) {
            Some(Spec::Secret(secret)) => Some(secret.value.reveal().as_bytes().to_vec()),
            _ => None,
        });
    }
    rules
}

/// Refuses to tell a webhook unsigned what is to be signed.
pub(super) fn signed(row: &RuleRow, spec: &RuleSpec) -> Result<(), webhook::WebhookError> {
    match &spec.secret {
        Some(TextOrSecret::Secret(named)) if row.secret.is_none() => {
            Err(webhook::WebhookError::Secret(named.secret.clone()))
        }
        _ => Ok(()),
    }
}

/// Why a webhook was not told that this is a test.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TestError {
    #[error("this controller cannot read the rule {0}: {1}")]
    Damaged(String, serde_json::Error),
    #[error("the rule {0} has no webhook; it needs a url")]
    NoWebhook(String),
    /// The other side is at fault.
    #[error("the webhook of {0} did not take it: {1}")]
    NotTaken(String, webhook::WebhookError),
}

/// Tells a rule's webhook that this is a test, at once and once.
pub(crate) async fn test(row: &RuleRow) -> Result<String, TestError> {
    let spec: RuleSpec =
        serde_json::from_str(&row.spec).map_err(|e| TestError::Damaged(row.name.clone(), e))?;
    if spec.url.is_none() {
        return Err(TestError::NoWebhook(row.name.clone()));
    }
    let body = serde_json::json!({ "id": 0, "state": "test", "rule": row.name }).to_string();
    let told = super::post(row, &spec, &body).await;
    told.map(|()| format!("the webhook of {} took it", row.name))
        .map_err(|e| TestError::NotTaken(row.name.clone(), e))
}
