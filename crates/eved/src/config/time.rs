//! Tells of time servers: each `timer.ntpsources.interval`, without a second try (EVE API, info).

use std::sync::Arc;

use api::convert::time;
use device::config::pace::Pace;
use host::topics::{Reader, Roots, Watch};
use model::topic::{Clock, Only};
use model::{Bytes, DeviceId, chain};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::InForce;
use crate::link::{Link, well};

/// Tells until it is aborted.
pub(super) async fn tell(
    roots: Roots,
    own: DeviceId,
    link: Arc<Link>,
    mut in_force: watch::Receiver<InForce>,
) {
    let clock = Reader::<Clock>::open(&roots);
    let changes = match Watch::new(&[clock.dir()]) {
        Ok(watch) => watch,
        Err(e) => return tracing::error!("time servers are not told of: {e}"),
    };
    let start = Instant::now();
    let mut pace = Pace::new(in_force.borrow().properties.ntp_sources_interval);
    loop {
        let config = in_force.borrow_and_update().clone();
        let wanted = config.properties.ntp_sources_interval;
        let due = start + pace.due(wanted);
        let to = config.console.as_ref().unwrap_or(&link);
        let reached = config.reached || config.console.is_some();
        // Who was not asked yet has nothing to say.
        let state = clock.get(&Only).filter(|s| s.sources.iter().any(|source| source.reach != 0));
        if reached
            && Instant::now() >= due
            && let Some(state) = &state
        {
            let payload = time::sources(own, host::clock::now(), state);
            let sent = to.post(own, "info", &payload, Bytes::kib(64)).await;
            let delivered = match sent.and_then(|answer| well("info", answer)) {
                Ok(_) => true,
                Err(e) => {
                    tracing::warn!("time servers are not told of: {}", chain(&e));
                    false
                }
            };
            pace = pace.sent(start.elapsed(), wanted, delivered);
            continue;
        }
        tokio::select! {
            changed = in_force.changed() => if changed.is_err() { return },
            changed = changes.changed(), if state.is_none() => if changed.is_err() { return },
            () = sleep_until(due), if reached && state.is_some() => {}
        }
    }
}
