//! Tells the controller how things are: each object when it changes, the node also from time to
//! time.
//!
//! What is to be told is rendered from the topics each time something changes, with everything left
//! out that only counts up; `device::config::queue` compares it with what was delivered.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::convert::info::{self, AppFacts, DeviceFacts, Gone, Machine};
use api::convert::inventory;
use device::config::queue::{Message, Outcome, Queue};
use host::topics::{Reader, Roots, Table, Watch, WatchError};
use model::desired::{Device, ObjectKind, Refused};
use model::reported::{
    AppUse, Boot, BootReason, ControllerStatus, Inventory, PortStatus, VolumeStatus,
};
use model::topic::{
    AppNetworks, Apps, Boots, Contents, Controller, NetworkInstances, OnboardingState, Only, Ports,
    PortsSetAside, ResourceUse, VolumeUse, Volumes,
};
use model::{AppId, ContentId, DeviceId, NetworkInstanceId, UnixMillis, VolumeId, chain};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::InForce;
use crate::chance::jitter;
use crate::link::Link;

/// Several changes at once make one message.
const SETTLE: Duration = Duration::from_millis(300);
/// Read again even if nothing woke us.
const RESYNC: Duration = Duration::from_secs(60);

/// What can be told of; the order is that of telling (EVE API: apps first, then hardware).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    App(AppId),
    Hardware,
    Device,
    Network(NetworkInstanceId),
    Volume(VolumeId),
    Content(ContentId),
    Blobs,
}

/// Tells until it is aborted.
pub(super) async fn tell(
    roots: Roots,
    own: DeviceId,
    link: Arc<Link>,
    mut in_force: watch::Receiver<InForce>,
) {
    let topics = Topics::open(&roots);
    let watch = match topics.watch() {
        Ok(watch) => watch,
        Err(e) => return tracing::error!("nothing can be told to the controller: {e}"),
    };
    let mut queue: Queue<Key, Vec<u8>> = Queue::default();
    let mut epoch = None;
    let mut device_due = Instant::now();
    let mut inventory = Arc::new(host::inventory::look(Path::new("/")));
    let mut reached = false;
    let mut beside = false;
    loop {
        let config = in_force.borrow_and_update().clone();
        let now_reached = config.reached || config.console.is_some();
        if now_reached && !reached {
            queue.hurry();
        }
        reached = now_reached;
        // What a console was told the controller does not know, and the other way round.
        if std::mem::replace(&mut beside, config.console.is_some()) != config.console.is_some() {
            queue.tell_all_again();
        }
        let to = config.console.clone().unwrap_or_else(|| link.clone());
        let told = config.told.as_ref().map(|d| d.epoch);
        if epoch.is_some() && told.is_some() && epoch != told {
            tracing::info!("the controller wants to know everything again");
            queue.tell_all_again();
        }
        epoch = told.or(epoch);
        if Instant::now() >= device_due {
            queue.tell_again(&Key::Device);
            // What is plugged in and out is seen by and by.
            inventory = Arc::new(host::inventory::look(Path::new("/")));
            let interval = config.properties.device_info_interval;
            let wait = jitter().between(interval.mul_f64(0.8), interval.mul_f64(1.2));
            device_due = Instant::now() + wait;
        }
        let facts = topics.read(own, config, inventory.clone());
        queue.want(
            facts
                .keys()
                .into_iter()
                .filter_map(|k| Some((k, facts.render(k, UnixMillis(0))?)))
                .collect(),
        );

        let now = host::clock::now();
        if let Some((key, message)) = queue.next(now).filter(|_| reached) {
            let payload = match &message {
                Message::Is(_) => facts.render(key, now),
                Message::Gone => facts.gone(key, now),
            };
            let outcome = match payload {
                Some(payload) => send(&to, own, &payload).await,
                None => Outcome::Delivered, // there is nothing to say of its end
            };
            queue.done(&key, message, outcome, host::clock::now(), jitter());
            continue;
        }
        // Without the controller there is nothing to wake up for but its return.
        let pause = queue.wake().filter(|_| reached).map_or(RESYNC, |at| at.since(now));
        let wake =
            (Instant::now() + pause.min(RESYNC)).min(device_due.max(Instant::now() + SETTLE));
        tokio::select! {
            changed = watch.changed() => {
                if changed.is_err() {
                    return;
                }
                tokio::time::sleep(SETTLE).await;
            }
            changed = in_force.changed() => if changed.is_err() { return },
            () = sleep_until(wake) => {}
        }
    }
}

async fn send(link: &Link, own: DeviceId, payload: &[u8]) -> Outcome {
    match link.post(own, "info", payload, model::Bytes::kib(64)).await {
        Ok(answer) => {
            let outcome = Outcome::of_status(answer.status);
            if outcome != Outcome::Delivered {
                tracing::warn!(status = answer.status, "info is not taken: {outcome:?}");
            }
            outcome
        }
        Err(e) => {
            tracing::warn!("info is not delivered: {}", chain(&e));
            Outcome::Unreachable
        }
    }
}

/// Everything that info is made of.
struct Topics {
    apps: Reader<Apps>,
    networks: Reader<AppNetworks>,
    volumes: Reader<Volumes>,
    volume_use: Reader<VolumeUse>,
    contents: Reader<Contents>,
    instances: Reader<NetworkInstances>,
    ports: Reader<Ports>,
    controller: Reader<Controller>,
    boots: Reader<Boots>,
    resources: Reader<ResourceUse>,
    onboarding: Reader<OnboardingState>,
    set_aside: Reader<PortsSetAside>,
}

impl Topics {
    fn open(roots: &Roots) -> Topics {
        Topics {
            apps: Reader::open(roots),
            networks: Reader::open(roots),
            volumes: Reader::open(roots),
            volume_use: Reader::open(roots),
            contents: Reader::open(roots),
            instances: Reader::open(roots),
            ports: Reader::open(roots),
            controller: Reader::open(roots),
            boots: Reader::open(roots),
            resources: Reader::open(roots),
            onboarding: Reader::open(roots),
            set_aside: Reader::open(roots),
        }
    }

    fn watch(&self) -> Result<Watch, WatchError> {
        Watch::new(&[
            self.apps.dir(),
            self.networks.dir(),
            self.volumes.dir(),
            self.contents.dir(),
            self.instances.dir(),
            self.ports.dir(),
            self.controller.dir(),
            self.boots.dir(),
            self.set_aside.dir(),
        ])
    }

    fn read(&self, own: DeviceId, config: InForce, inventory: Arc<Inventory>) -> Facts {
        let resources = self.resources.get(&Only);
        let serial = self.onboarding.get(&Only).map(|o| o.serial).unwrap_or_default();
        Facts {
            own,
            apps: self.apps.read(),
            networks: self.networks.read(),
            volumes: self.volumes.read(),
            volume_use: self.volume_use.read(),
            contents: self.contents.read(),
            instances: self.instances.read(),
            ports: self.ports.read().into_values().map(still_port).collect(),
            controller: self.controller.get(&Only).map(|controller| {
                let mut controller = still_controller(controller);
                controller.standing.ports_aside = self.set_aside.get(&Only);
                if let Some(aside) = &controller.standing.ports_aside {
                    controller.standing.ports_from = aside.used;
                }
                controller
            }),
            boot: self.boots.get(&Only).unwrap_or_else(unknown_boot),
            machine: machine(serial, resources, &inventory),
            inventory,
            config,
        }
    }
}

/// The topics at one moment, without what only counts up.
struct Facts {
    own: DeviceId,
    apps: Table<Apps>,
    networks: Table<AppNetworks>,
    volumes: Table<Volumes>,
    volume_use: Table<VolumeUse>,
    contents: Table<Contents>,
    instances: Table<NetworkInstances>,
    ports: Vec<PortStatus>,
    controller: Option<ControllerStatus>,
    boot: Boot,
    machine: Machine,
    inventory: Arc<Inventory>,
    config: InForce,
}

impl Facts {
    fn device(&self) -> Option<&Device> {
        self.config.device.as_deref()
    }

    fn keys(&self) -> Vec<Key> {
        let refused = self.device().map(|d| d.refused.as_slice()).unwrap_or_default();
        let mut keys: Vec<Key> = refused.iter().filter_map(key_of).collect();
        keys.extend([Key::Hardware, Key::Device, Key::Blobs]);
        keys.extend(self.apps.keys().copied().map(Key::App));
        keys.extend(self.instances.keys().copied().map(Key::Network));
        keys.extend(self.volumes.keys().copied().map(Key::Volume));
        keys.extend(self.contents.keys().copied().map(Key::Content));
        keys
    }

    /// The message about an object; one that was refused is told as that.
    fn render(&self, key: Key, at: UnixMillis) -> Option<Vec<u8>> {
        let refused = || {
            let all = self.device()?.refused.iter();
            info::refused(self.own, at, all.into_iter().find(|r| key_of(r) == Some(key))?)
        };
        let found = match key {
            Key::Device => Some(self.render_device(at)?),
            Key::Hardware => Some(inventory::hardware(self.own, at, &self.inventory, &self.boot)),
            Key::Blobs => Some(inventory::blobs(self.own, at, self.contents.values())),
            Key::App(id) => self.apps.get(&id).map(|status| {
                let mut status = status.clone();
                status.used = AppUse::default();
                let none = BTreeMap::new();
                let facts = AppFacts {
                    status: &status,
                    network: self.networks.get(&id),
                    wanted_volumes: self.device().map_or(&none, |d| &d.volumes),
                    volumes: &self.volumes,
                    contents: &self.contents,
                };
                info::app(self.own, at, &facts)
            }),
            Key::Network(id) => self.instances.get(&id).map(|status| {
                let wanted = self.device().and_then(|d| d.network_instances.get(&id));
                info::network_instance(self.own, at, status, wanted, self.networks.values())
            }),
            Key::Volume(id) => self.volumes.get(&id).map(|status| {
                // Purges that the controller knows nothing of are not in the count it gave.
                let more = self.config.purged.get(&id).copied().unwrap_or_default();
                let generation = status.generation.wrapping_sub(more);
                let status = &VolumeStatus { generation, ..status.clone() };
                let wanted = self.device().and_then(|d| d.volumes.get(&id));
                let content = match wanted.map(|w| &w.origin) {
                    Some(model::desired::Origin::Content(c)) => self.contents.get(c),
                    _ => None,
                };
                info::volume(
                    self.own,
                    at,
                    status,
                    wanted,
                    content,
                    self.volume_use.get(&id).copied(),
                )
            }),
            Key::Content(id) => {
                self.contents.get(&id).map(|status| info::content(self.own, at, status))
            }
        };
        found.or_else(refused)
    }

    fn render_device(&self, at: UnixMillis) -> Option<Vec<u8>> {
        let none = BTreeMap::new();
        let facts = DeviceFacts {
            machine: &self.machine,
            boot: &self.boot,
            ports: &self.ports,
            controller: self.controller.as_ref()?,
            properties: &self.config.properties,
            items: self.device().map_or(&none, |d| &d.items),
            power: self.device().map(|d| d.power).unwrap_or_default(),
        };
        Some(info::device(self.own, at, &facts))
    }

    fn gone(&self, key: Key, at: UnixMillis) -> Option<Vec<u8>> {
        let object = match key {
            Key::App(id) => Gone::App(id),
            Key::Network(id) => Gone::NetworkInstance(id),
            Key::Volume(id) => Gone::Volume(id),
            Key::Content(id) => Gone::Content(id),
            Key::Device | Key::Hardware | Key::Blobs => return None,
        };
        Some(info::gone(self.own, at, object))
    }
}

/// What a refused object is told as. `None`: it has no id of its own, or no info.
fn key_of(refused: &Refused) -> Option<Key> {
    match refused.kind {
        ObjectKind::App => refused.id.parse().ok().map(Key::App),
        ObjectKind::NetworkInstance => refused.id.parse().ok().map(Key::Network),
        ObjectKind::Volume => refused.id.parse().ok().map(Key::Volume),
        ObjectKind::Content => refused.id.parse().ok().map(Key::Content),
        _ => None,
    }
}

/// A test that worked again is no news; a failed one is.
fn still_port(mut port: PortStatus) -> PortStatus {
    if let Some(test) = port.test.as_mut().filter(|t| t.failure.is_none()) {
        test.at = UnixMillis(0);
    }
    port.lease = None;
    port
}

fn still_controller(mut controller: ControllerStatus) -> ControllerStatus {
    controller.last_contact = None;
    // How long until the next try is no news.
    if let Some(problem) = &mut controller.standing.attestation_problem {
        problem.diagnosis.retry_in = None;
    }
    controller
}

/// Until `eved health` says more.
pub(super) fn unknown_boot() -> Boot {
    Boot {
        reason: BootReason::Unknown,
        detail: String::new(),
        count: 0,
        started: UnixMillis(0),
        timeline: Vec::new(),
        version: String::new(),
        slot: String::new(),
    }
}

fn machine(
    serial: String,
    resources: Option<model::reported::Resources>,
    inventory: &Inventory,
) -> Machine {
    let dmi = |name: &str| {
        let text = std::fs::read_to_string(format!("/sys/class/dmi/id/{name}"));
        text.unwrap_or_default().trim().chars().take(256).collect::<String>()
    };
    Machine {
        arch: std::env::consts::ARCH.to_owned(),
        cpus: std::thread::available_parallelism()
            .map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
        memory: resources.as_ref().map(|r| r.memory_total).unwrap_or_default(),
        storage: resources.as_ref().map(|r| r.persist_total).unwrap_or_default(),
        manufacturer: dmi("sys_vendor"),
        product: dmi("product_name"),
        serial,
        firmware_vendor: inventory.firmware_vendor.clone(),
        firmware_version: inventory.firmware_version.clone(),
        processor: inventory.processors.first().map(|p| p.model.clone()).unwrap_or_default(),
        watchdog: inventory.watchdog,
        virtualization: inventory.virtualization,
        io_virtualization: inventory.io_virtualization,
    }
}
