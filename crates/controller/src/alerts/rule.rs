//! Rules: what is looked at, and who is told.

use std::collections::BTreeMap;

use super::{RuleSpec, webhook};
use crate::db::{DbError, RuleRow};
use crate::fleet::Fleet;
use crate::objects::{Key, Kind, NOT_SHOWN, Query, QueryError, Spec, TextOrSecret};
use crate::outbound::{self, OutboundError};
use crate::rollout::calendar;

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
    #[error(transparent)]
    Db(#[from] DbError),
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
pub(crate) async fn checked(
    fleet: &Fleet,
    name: &str,
    rule: &RuleSpec,
    secret: Option<String>,
) -> Result<RuleRow, RuleError> {
    check(rule, &calendar::queries(&fleet.db).await?)?;
    let mut rule = rule.clone();
    let mut secret = secret;
    match rule.secret.take() {
        Some(TextOrSecret::Text(text)) if text == NOT_SHOWN => {}
        Some(TextOrSecret::Text(text)) => secret = Some(text),
        named => rule.secret = named,
    }
    if let Some(TextOrSecret::Secret(named)) = &rule.secret {
        let key = Key::new(Kind::Secret, &named.secret);
        if !fleet.look(|known| known.objects.contains_key(&key)) {
            return Err(RuleError::Secret(named.secret.clone()));
        }
    } else if secret.is_none() {
        let all = fleet.db.alert_rules().await?;
        let had = all.into_iter().find(|row| row.name == name);
        rule.secret = had.and_then(|row| read(&row)).and_then(|spec| spec.secret);
    }
    let damaged = |e: serde_json::Error| DbError::Damaged {
        what: format!("alert rule {name}"),
        why: e.to_string(),
    };
    let spec = serde_json::to_string(&rule).map_err(damaged)?;
    Ok(RuleRow { name: name.to_owned(), spec, secret: secret.map(String::into_bytes) })
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

/// Tells a rule's webhook that this is a test, at once and once; an error says why it was not taken.
pub(crate) async fn test(row: &RuleRow) -> Result<String, String> {
    let spec: RuleSpec = serde_json::from_str(&row.spec)
        .map_err(|e| format!("this controller cannot read the rule {}: {e}", row.name))?;
    if spec.url.is_none() {
        return Err(format!("the rule {} has no webhook", row.name));
    }
    let body = serde_json::json!({ "id": 0, "state": "test", "rule": row.name }).to_string();
    let told = super::post(row, &spec, &body).await;
    told.map(|()| format!("the webhook of {} took it", row.name))
        .map_err(|e| format!("the webhook of {} did not take it: {e}", row.name))
}
