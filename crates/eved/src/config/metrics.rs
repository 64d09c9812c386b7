//! Sends metrics: counters and gauges, at their interval, without a second try (EVE API, metrics).

use std::sync::Arc;

use api::convert::metrics;
use host::topics::{Reader, Roots};
use model::topic::{Apps, Boots, LogState, Only, ResourceUse};
use model::{Bytes, DeviceId, chain};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::InForce;
use crate::link::Link;

/// Sends until it is aborted.
pub(super) async fn tell(
    roots: Roots,
    own: DeviceId,
    link: Arc<Link>,
    mut in_force: watch::Receiver<InForce>,
) {
    let (apps, boots) = (Reader::<Apps>::open(&roots), Reader::<Boots>::open(&roots));
    let (resources, logs) = (Reader::<ResourceUse>::open(&roots), Reader::<LogState>::open(&roots));
    let mut last: Option<Instant> = None;
    loop {
        let config = in_force.borrow_and_update().clone();
        let due = last.map_or_else(Instant::now, |at| at + config.properties.metric_interval);
        if config.reached && Instant::now() >= due {
            last = Some(Instant::now());
            // Who has nothing measured yet has nothing to tell.
            if let (Some(resources), Some(boot)) = (resources.get(&Only), boots.get(&Only)) {
                let apps: Vec<_> = apps.read().into_values().collect();
                let logs = logs.get(&Only).unwrap_or_default();
                let facts =
                    metrics::Facts { resources: &resources, boot: &boot, apps: &apps, logs: &logs };
                let payload = metrics::message(own, host::clock::now(), &facts);
                send(&link, own, &payload).await;
            }
            continue;
        }
        tokio::select! {
            changed = in_force.changed() => if changed.is_err() { return },
            () = sleep_until(due), if config.reached => {}
        }
    }
}

async fn send(link: &Link, own: DeviceId, payload: &[u8]) {
    match link.post(own, "metrics", payload, Bytes::kib(64)).await {
        Ok(answer) if (200..300).contains(&answer.status) => {}
        Ok(answer) => tracing::warn!(status = answer.status, "metrics are not taken"),
        Err(e) => tracing::warn!("metrics are not delivered: {}", chain(&e)),
    }
}
