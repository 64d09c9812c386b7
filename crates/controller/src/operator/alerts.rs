//! Alerts and their rules.
//!
//! | Call | Does |
//! |---|---|
//! | GET `/alerts?open=true&limit=…` | alerts, newest first |
//! | POST `/alerts/{id}/ack` | says that somebody has seen one |
//! | GET `/alert-rules`; PUT, DELETE `/alert-rules/{name}` | rules; `secret` is only ever written |
//! | POST `/alert-rules/{name}/test` | tells its webhook that this is a test |

use std::sync::Arc;

use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::rollouts::{By, absent, hinted, hints, json, named, said, set};
use super::{Failed, ROWS_DEFAULT, ROWS_MAX, failed};
use crate::alerts::{self, RuleError, RuleSpec, TestError};
use crate::db::{Alert, Policy, RuleRow, Untold};
use crate::fleet::Fleet;
use crate::objects::{Key, Kind, Spec};

pub(super) fn routes() -> Router<Arc<Fleet>> {
    Router::new()
        .route("/alerts", get(alerts))
        .route("/alerts/{id}/ack", post(ack))
        .route("/alert-rules", get(rules))
        .route("/alert-rules/{name}", put(set_rule).delete(remove_rule))
        .route("/alert-rules/{name}/test", post(test_rule))
}

#[derive(Debug, Deserialize)]
struct WhichAlerts {
    #[serde(default)]
    open: bool,
    limit: Option<u32>,
}

async fn alerts(
    State(fleet): State<Arc<Fleet>>,
    Query(which): Query<WhichAlerts>,
) -> Result<Json<Vec<Alert>>, Failed> {
    let limit = which.limit.unwrap_or(ROWS_DEFAULT).min(ROWS_MAX);
    Ok(Json(fleet.db.alerts(which.open, limit).await?))
}

async fn ack(
    State(fleet): State<Arc<Fleet>>,
    Path(id): Path<u64>,
    By(by): By,
) -> Result<StatusCode, Failed> {
    seen(&fleet, id, &by).await
}

/// A rule, for people and programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedRule {
    /// Its name.
    pub name: String,
    /// What it looks at, and who is told.
    pub rule: RuleSpec,
    /// Whether its webhook is signed with a secret.
    pub has_secret: bool,
    /// What its webhook does not take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untold: Option<Untold>,
}

async fn rules(State(fleet): State<Arc<Fleet>>) -> Result<Json<Vec<NamedRule>>, Failed> {
    let rows = fleet.db.alert_rules().await?;
    let mut untold = fleet.db.untold().await?;
    let rule = |r: RuleRow| {
        let rule: RuleSpec = serde_json::from_str(&r.spec).ok()?;
        let has_secret = r.secret.is_some() || rule.secret.is_some();
        let untold = untold.remove(&r.name);
        Some(NamedRule { name: r.name, rule, has_secret, untold })
    };
    Ok(Json(rows.into_iter().filter_map(rule).collect()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleToSet {
    rule: RuleSpec,
    #[serde(default)]
    secret: Option<String>,
}

async fn set_rule(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
    By(by): By,
    request: Request,
) -> Result<Response, Failed> {
    let RuleToSet { rule, secret } = json(request).await?;
    put_rule(&fleet, &name, &rule, secret, &by).await.map(hinted)
}

impl From<RuleError> for Failed {
    fn from(e: RuleError) -> Failed {
        failed(StatusCode::UNPROCESSABLE_ENTITY, e)
    }
}

/// Makes or changes a rule; without a secret it keeps the one it has. Tells what may not be meant in
/// it.
pub(crate) async fn put_rule(
    fleet: &Fleet,
    name: &str,
    rule: &RuleSpec,
    secret: Option<String>,
    by: &str,
) -> Result<Vec<String>, Failed> {
    named(name)?;
    let key = Key::new(Kind::AlertRule, name);
    set(fleet, &key, by, |known, policies| {
        Ok(Some(alerts::checked(known, policies, &key, (rule, secret.as_deref()))?))
    })
    .await?;
    hints(fleet, &key, &Policy { spec: Spec::AlertRule(rule.clone()), secret: None }).await
}

async fn remove_rule(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
    By(by): By,
) -> Result<StatusCode, Failed> {
    delete_rule(&fleet, &name, &by).await
}

/// Removes a rule and ends its alerts.
pub(crate) async fn delete_rule(fleet: &Fleet, name: &str, by: &str) -> Result<StatusCode, Failed> {
    if !fleet.db.alert_rules().await?.iter().any(|rule| rule.name == name) {
        return Err(absent("alert rule", name));
    }
    let said = said(fleet, by, &format!("Alert rule {name}"), "deleted");
    fleet.db.remove_alert_rule(name, &said).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn test_rule(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
) -> Result<Json<serde_json::Value>, Failed> {
    tested(&fleet, &name).await.map(|told| Json(serde_json::json!({ "told": told })))
}

/// Tells a rule's webhook that this is a test; in words, what became of it.
pub(crate) async fn tested(fleet: &Fleet, name: &str) -> Result<String, Failed> {
    let rules = alerts::with_secrets(fleet, fleet.db.alert_rules().await?);
    let row = rules.iter().find(|r| r.name == name);
    let told = alerts::test(row.ok_or_else(|| absent("alert rule", name))?).await;
    told.map_err(|why| {
        let status = match &why {
            TestError::NotTaken(_, e) if e.is_theirs() => StatusCode::BAD_GATEWAY,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        failed(status, why)
    })
}

/// Notes that somebody has seen an alert.
pub(crate) async fn seen(fleet: &Fleet, id: u64, by: &str) -> Result<StatusCode, Failed> {
    if !fleet.db.ack_alert(id, by, fleet.now()).await? {
        let text = format!("there is no alert {id} that nobody has seen");
        return Err(failed(StatusCode::CONFLICT, text));
    }
    Ok(StatusCode::NO_CONTENT)
}
