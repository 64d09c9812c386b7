//! Tells how memory and disks are: at first, then each `timer.hardwarehealth.interval`, without a
//! second try (EVE API, hardware health).

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::convert::inventory;
use device::config::pace::Pace;
use host::topics::{Reader, Roots};
use model::topic::{DiskSmarts, Only};
use model::{Bytes, DeviceId, chain};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::InForce;
use crate::link::{Link, well};

/// So long what disks say of themselves is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// Tells until it is aborted.
pub(super) async fn tell(
    roots: Roots,
    own: DeviceId,
    link: Arc<Link>,
    mut in_force: watch::Receiver<InForce>,
) {
    let smart = Reader::<DiskSmarts>::open(&roots);
    // What is told first is told for half a day.
    let asked = timeout(PATIENCE, async {
        while !smart.is_complete() {
            sleep(Duration::from_secs(1)).await;
        }
    });
    let _ = asked.await;
    let start = Instant::now();
    let mut pace = Pace::new(in_force.borrow().properties.hardware_health_interval);
    loop {
        let config = in_force.borrow_and_update().clone();
        let wanted = config.properties.hardware_health_interval;
        let due = start + pace.due(wanted);
        let to = config.console.as_ref().unwrap_or(&link);
        let reached = config.reached || config.console.is_some();
        if reached && Instant::now() >= due {
            let mut found = host::inventory::health(Path::new("/"));
            let said = smart.get(&Only).unwrap_or_default();
            for disk in &mut found.disks {
                if let Some(said) = said.iter().find(|s| s.disk == disk.name) {
                    disk.smart.clone_from(&said.attributes);
                    disk.trouble.clone_from(&said.trouble);
                }
            }
            let payload = inventory::health(own, host::clock::now(), &found);
            let sent = to.post(own, "hardwarehealth", &payload, Bytes::kib(64)).await;
            let delivered = match sent.and_then(|answer| well("hardwarehealth", answer)) {
                Ok(_) => true,
                Err(e) => {
                    tracing::warn!("the hardware's health is not delivered: {}", chain(&e));
                    false
                }
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
