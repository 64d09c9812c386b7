//! Alerts and their rules.
//!
//! | Call | Does |
//! |---|---|
//! | GET `/alerts?open=true&limit=…` | alerts, newest first |
//! | POST `/alerts/{id}/ack` | says that somebody has seen one |
//! | GET `/alert-rules`; PUT, DELETE `/alert-rules/{name}` | rules; `secret` is only ever written |

use std::sync::Arc;

use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::rollouts::{By, json, named, said};
use super::{Failed, ROWS_DEFAULT, ROWS_MAX, failed};
use crate::alerts::{RuleSpec, parse_url};
use crate::db::{Alert, RuleRow};
use crate::fleet::Fleet;
use crate::rollout::calendar;

pub(super) fn routes() -> Router<Arc<Fleet>> {
    Router::new()
        .route("/alerts", get(alerts))
        .route("/alerts/{id}/ack", post(ack))
        .route("/alert-rules", get(rules))
        .route("/alert-rules/{name}", put(set_rule).delete(remove_rule))
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
    if !fleet.db.ack_alert(id, &by, fleet.now()).await? {
        let text = format!("there is no alert {id} that nobody has seen");
        return Err(failed(StatusCode::CONFLICT, text));
    }
    Ok(StatusCode::NO_CONTENT)
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
}

async fn rules(State(fleet): State<Arc<Fleet>>) -> Result<Json<Vec<NamedRule>>, Failed> {
    let rows = fleet.db.alert_rules().await?;
    let rule = |r: RuleRow| {
        let rule = serde_json::from_str(&r.spec).ok()?;
        Some(NamedRule { name: r.name, rule, has_secret: r.secret.is_some() })
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
) -> Result<StatusCode, Failed> {
    named(&name)?;
    let RuleToSet { rule, secret } = json(request).await?;
    let wrong = |field: &str, e: String| {
        failed(StatusCode::UNPROCESSABLE_ENTITY, format!("rule.{field}: {e}"))
    };
    calendar::query(&fleet.db, &rule.devices).await?.map_err(|e| wrong("match", e.to_string()))?;
    if let Some(url) = &rule.url {
        parse_url(url).map_err(|e| wrong("url", e.to_string()))?;
    }
    let spec = serde_json::to_string(&rule).map_err(|e| wrong("when", e.to_string()))?;
    let row = RuleRow { name: name.clone(), spec, secret: secret.map(String::into_bytes) };
    fleet.db.set_alert_rule(&row).await?;
    fleet.db.remember(&said(&fleet, &by, &format!("Alert rule {name}"), "set")).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn remove_rule(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
    By(by): By,
) -> Result<StatusCode, Failed> {
    fleet.db.remove_alert_rule(&name, fleet.now()).await?;
    fleet.db.remember(&said(&fleet, &by, &format!("Alert rule {name}"), "deleted")).await?;
    Ok(StatusCode::NO_CONTENT)
}
