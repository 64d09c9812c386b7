//! Sends metrics: counters and gauges, at their interval, without a second try (EVE API, metrics).

use std::path::PathBuf;
use std::sync::Arc;

use api::convert::metrics::{self, Measured};
use device::config::pace::Pace;
use host::topics::{Reader, Roots};
use host::usage;
use model::reported::Resources;
use model::topic::{
    AppNetworks, Apps, Boots, LogState, NetworkInstances, Only, Ports, ResourceUse, VolumeUse,
    Volumes,
};
use model::{Bytes, DeviceId, chain};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::InForce;
use crate::link::{Link, well};

/// Sends until it is aborted.
pub(super) async fn tell(
    roots: Roots,
    persist: PathBuf,
    own: DeviceId,
    link: Arc<Link>,
    mut in_force: watch::Receiver<InForce>,
) {
    let counts = Counts::open(&roots, persist);
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
                    let measured = counts.read(&config, &resources, &link);
                    let payload = metrics::whole(own, host::clock::now(), &facts, &measured);
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

/// Where what is only counted is found.
struct Counts {
    persist: PathBuf,
    ports: Reader<Ports>,
    app_networks: Reader<AppNetworks>,
    instances: Reader<NetworkInstances>,
    volumes: Reader<Volumes>,
    volume_use: Reader<VolumeUse>,
}

impl Counts {
    fn open(roots: &Roots, persist: PathBuf) -> Counts {
        Counts {
            persist,
            ports: Reader::open(roots),
            app_networks: Reader::open(roots),
            instances: Reader::open(roots),
            volumes: Reader::open(roots),
            volume_use: Reader::open(roots),
        }
    }

    fn read(&self, config: &InForce, resources: &Resources, link: &Link) -> Measured {
        let pids = resources.services.iter().map(|service| service.pid);
        let disks = usage::disks();
        Measured {
            told: config.device.clone(),
            ports: self.ports.read().into_values().collect(),
            traffic: usage::traffic(),
            app_networks: self.app_networks.read(),
            instances: self.instances.read(),
            volumes: self.volumes.read(),
            volume_use: self.volume_use.read(),
            disks: disks.inspect_err(|e| tracing::debug!("{e}")).unwrap_or_default(),
            persist: usage::disk_of(&self.persist),
            // One that ended meanwhile is not told of.
            processes: pids.filter_map(|pid| Some((pid, usage::process(pid).ok()?))).collect(),
            calls: link.counted(),
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
