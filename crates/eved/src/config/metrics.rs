//! Sends metrics: counters and gauges, at their interval, without a second try (EVE API, metrics).

use std::sync::Arc;

use api::convert::metrics;
use device::config::pace::Pace;
use host::topics::{Reader, Roots};
use model::topic::{Apps, Boots, LogState, Only, ResourceUse};
use model::{Bytes, DeviceId, chain};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::InForce;
use crate::link::{Link, well};

/// Sends until it is aborted.
pub(super) async fn tell(
    roots: Roots,
    own: DeviceId,
    link: Arc<Link>,
    mut in_force: watch::Receiver<InForce>,
) {
    let (apps, boots) = (Reader::<Apps>::open(&roots), Reader::<Boots>::open(&roots));
    let (resources, logs) = (Reader::<ResourceUse>::open(&roots), Reader::<LogState>::open(&roots));
    let start = Instant::now();
    let mut pace = Pace::new(in_force.borrow().properties.metric_interval);
    loop {
        let config = in_force.borrow_and_update().clone();
        let wanted = config.properties.metric_interval;
        let due = start + pace.due(wanted);
        let to = config.console.as_ref().unwrap_or(&link);
        let reached = config.reached || config.console.is_some();
        if reached && Instant::now() >= due {
            // Who has nothing measured yet has nothing to tell.
            let delivered = match (resources.get(&Only), boots.get(&Only)) {
                (Some(resources), Some(boot)) => {
                    let apps: Vec<_> = apps.read().into_values().collect();
                    let facts = metrics::Facts {
                        resources: &resources,
                        boot: &boot,
                        apps: &apps,
                        logs: &logs.get(&Only).unwrap_or_default(),
                        config: &metrics::Taken {
                            received: config.received,
                            applied: config.applied,
                            secrets: config.secrets.clone(),
                        },
                    };
                    let payload = metrics::message(own, host::clock::now(), &facts);
                    send(to, own, &payload).await
                }
                _ => false,
            };
            pace = pace.sent(start.elapsed(), wanted, delivered);
            continue;
        }
        tokio::select! {
            changed = in_force.changed() => if changed.is_err() { return },
            () = sleep_until(due), if reached => {}
        }
    }
}

/// Whether they were taken. They are not sent again either way.
async fn send(link: &Link, own: DeviceId, payload: &[u8]) -> bool {
    let sent = link.post(own, "metrics", payload, Bytes::kib(64)).await;
    match sent.and_then(|answer| well("metrics", answer)) {
        Ok(_) => true,
        Err(e) => {
            tracing::warn!("metrics are not delivered: {}", chain(&e));
            false
        }
    }
}
