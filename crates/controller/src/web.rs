//! Web pages (soon).
use crate::fleet::Fleet;
use axum::Router;
use std::sync::Arc;
use tokio::sync::watch;
pub(crate) fn routes(_stopped: watch::Receiver<bool>) -> Router<Arc<Fleet>> {
    Router::new()
}
