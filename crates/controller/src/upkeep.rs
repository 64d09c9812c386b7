//! What has to be done with what is kept, from time to time; and whether we are well.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use tokio::sync::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use crate::fleet::Fleet;
use crate::retention::{self, Retention, Round};

/// Tags that others pushed are looked for so often.
const FOLLOW_EVERY: Duration = Duration::from_secs(1);
/// Whom other processes have heard since a restore is looked up so often: it may be a whole fleet.
const HEARD_EVERY: Duration = Duration::from_secs(10);
const AGE_EVERY: Duration = Duration::from_secs(60);
const SWEEP_EVERY: Duration = Duration::from_secs(600);
/// Who keeps house has the turn for so long.
const TURN: Duration = Duration::from_secs(300);
/// Whoever asks more often gets the last answer: anyone may ask.
const CHECK_EVERY: Duration = Duration::from_secs(1);
const CHECK_PATIENCE: Duration = Duration::from_secs(3);

/// Keeps house; ends never.
pub(crate) async fn keep(fleet: &Arc<Fleet>, retention: &Retention) {
    tokio::join!(follow(fleet), clean(fleet, retention));
}

async fn follow(fleet: &Fleet) {
    let mut follow = tokio::time::interval(FOLLOW_EVERY);
    let mut heard = tokio::time::interval(HEARD_EVERY);
    loop {
        let done = tokio::select! {
            _ = follow.tick() => fleet.registry().images().follow().await,
            _ = heard.tick() => fleet.restored.follow(&fleet.db).await,
        };
        if let Err(e) = done {
            tracing::error!("{}", model::chain(&e));
        }
    }
}

async fn clean(fleet: &Fleet, retention: &Retention) {
    let (holder, mut round) = (Uuid::new_v4().to_string(), Round::default());
    let begin = Instant::now() + AGE_EVERY;
    let mut age = tokio::time::interval_at(begin, AGE_EVERY);
    let mut sweep = tokio::time::interval_at(begin, SWEEP_EVERY);
    let images = fleet.registry().images();
    loop {
        let sweeps = tokio::select! {
            _ = age.tick() => false,
            _ = sweep.tick() => true,
        };
        match fleet.db.lease("upkeep", &holder, fleet.now(), TURN).await {
            Ok(true) => {}
            Ok(false) => continue,
            Err(e) => {
                tracing::error!("{}", model::chain(&e));
                continue;
            }
        }
        if sweeps {
            match retention::sweep(images, &mut round, fleet.now()).await {
                Ok(0) => {}
                Ok(gone) => tracing::info!("deleted {gone} objects that nothing refers to"),
                Err(e) => tracing::error!("{}", model::chain(&e)),
            }
            continue;
        }
        match retention::step(images, retention, &mut round, fleet.now()).await {
            Ok(0) => {}
            Ok(gone) => tracing::info!("deleted {gone} rows that are too old or too many"),
            Err(e) => tracing::error!("{}", model::chain(&e)),
        }
    }
}

/// `/healthz`: the process answers.
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// What `/readyz` said last.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ready(Arc<Mutex<Option<(Instant, bool)>>>);

/// `/readyz`: database and object store answer, too. Why not is in the log, not for everyone.
pub(crate) async fn readyz(
    State(fleet): State<Arc<Fleet>>,
    axum::Extension(ready): axum::Extension<Ready>,
) -> (StatusCode, &'static str) {
    let mut last = ready.0.lock().await;
    let good = match *last {
        Some((at, good)) if at.elapsed() < CHECK_EVERY => good,
        _ => check(&fleet).await,
    };
    *last = Some((Instant::now(), good));
    if good {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}

async fn check(fleet: &Fleet) -> bool {
    let all = async {
        let db = fleet.db.check().await.map_err(|e| model::chain(&e));
        db.and(fleet.registry().images().blobs.check().await.map_err(|e| model::chain(&e)))
    };
    match tokio::time::timeout(CHECK_PATIENCE, all).await {
        Ok(Ok(())) => true,
        Ok(Err(why)) => {
            tracing::error!("not ready: {why}");
            false
        }
        Err(_) => {
            tracing::error!("not ready: database or object store take longer than 3 s");
            false
        }
    }
}
