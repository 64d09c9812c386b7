//! What nodes say, kept and put into words for people.
//!
//! Messages are kept as they came; words are made of them when somebody asks. States that we do not
//! know are shown as their number: devices newer than this controller are normal.

use std::collections::BTreeMap;

use api::convert::view::{
    AppView, ContentView, DeviceView, ErrorView, Metrics, NetworkInstanceView, Report, VolumeView,
};
use api::{convert, limits};
use model::desired::NetworkKind;
use model::{Bytes, DeviceId, UnixMillis};
use uuid::Uuid;

use crate::db::{
    Blob, DbError, DeviceRow, InfoRow, Message, NewLog, Policy, StoredObject, Subject,
};
use crate::drift::liveness::patience;
use crate::fleet::{Fleet, Known, policies};
use crate::objects::{self, Key, Kind, Spec};
use crate::view;

/// An info message as it is to be kept, or that something is gone.
pub(crate) fn message(
    info: &convert::view::Info,
    received: UnixMillis,
    payload: bytes::Bytes,
    past: Option<Blob>,
) -> Message {
    if let Report::Gone { kind, id } = &info.report {
        return Message::Gone(Subject { kind: kind.clone(), id: bounded(id) });
    }
    // An app that came into another state is an event.
    let words = match &info.report {
        Report::App(app) => Some((format!("App {}", app.name), app_words(app))),
        _ => None,
    };
    let at = info.at.unwrap_or(received);
    Message::Info { subject: subject(&info.report), at, payload, past, words }
}

fn app_words(app: &AppView) -> String {
    let words = std::iter::once(app.state.clone()).chain(app.errors.iter().map(problem));
    words.collect::<Vec<_>>().join(": ")
}

fn subject(report: &Report) -> Subject {
    let (kind, id) = match report {
        Report::Device(_) => ("device", ""),
        Report::App(app) => ("app", app.id.as_str()),
        Report::NetworkInstance(network) => ("network_instance", network.id.as_str()),
        Report::Volume(volume) => ("volume", volume.id.as_str()),
        Report::Content(content) => ("content", content.id.as_str()),
        Report::Gone { kind, id } => (kind.as_str(), id.as_str()),
        Report::More(more) => more.subject(),
        Report::Other { kind } => (kind.as_str(), ""),
    };
    Subject { kind: bounded(kind), id: bounded(id) }
}

/// A name from outside becomes a key: it gets a bound.
fn bounded(text: &str) -> String {
    text.chars().take(100).collect()
}

/// The lines of a log file, or why it has none that we can read. A line that is no entry is told as
/// it stands there, at the time of the one before it.
pub(crate) fn read_logs(raw: &[u8]) -> Result<Vec<NewLog>, String> {
    let file = api::newlogs::unpack(raw, limits::NEWLOGS_UNPACKED).map_err(|e| model::chain(&e))?;
    let texts = file.text().split(|b| *b == b'\n').filter(|line| !line.trim_ascii().is_empty());
    let (mut lines, mut good, mut bad) = (Vec::new(), false, None);
    let mut at = file.created;
    for (entry, text) in file.entries().zip(texts) {
        lines.push(match entry {
            Ok(entry) => {
                (good, at) = (true, entry.timestamp.millis());
                let (severity, source, content) = (entry.severity, entry.source, entry.content);
                NewLog { at, severity, source, content }
            }
            Err(e) => {
                bad.get_or_insert(e);
                let content = String::from_utf8_lossy(text).into_owned();
                NewLog { at, severity: String::new(), source: String::new(), content }
            }
        });
    }
    match bad {
        Some(e) if !good => Err(model::chain(&e)),
        _ => Ok(lines),
    }
}

/// All nodes.
pub(crate) async fn devices(fleet: &Fleet) -> Result<Vec<view::Device>, DbError> {
    let known = fleet.known();
    let mut all = Vec::new();
    for stored in known.of_kind(Kind::Device) {
        all.push(of_device(fleet, &known, stored).await?);
    }
    Ok(all)
}

/// How many nodes are in each state, by its name.
pub(crate) fn states(fleet: &Fleet) -> BTreeMap<String, usize> {
    let known = fleet.known();
    let mut all = BTreeMap::new();
    for stored in known.of_kind(Kind::Device) {
        let (state, _) = liveness(fleet, &known, stored);
        *all.entry(state.name().to_owned()).or_default() += 1;
    }
    all
}

/// One node, by name or id.
pub(crate) async fn device(fleet: &Fleet, name: &str) -> Result<Option<view::Device>, DbError> {
    let known = fleet.known();
    match known.device_object(name) {
        Some(stored) => of_device(fleet, &known, stored).await.map(Some),
        None => Ok(None),
    }
}

/// All apps.
pub(crate) async fn apps(fleet: &Fleet) -> Result<Vec<view::App>, DbError> {
    let known = fleet.known();
    let devices = devices(fleet).await?;
    let apps = known.of_kind(Kind::App).map(|stored| {
        let object = &stored.object;
        let image = match &object.spec {
            Spec::App(app) => app.image.clone(),
            _ => String::new(),
        };
        let on = devices.iter().flat_map(|d| &d.apps).filter(|a| a.app == object.key.name);
        view::App {
            name: object.key.name.clone(),
            image,
            generation: object.generation,
            restart: object.restart,
            purge: object.purge,
            on: on.cloned().collect(),
            flaws: known.flaws.iter().filter(|f| f.key == object.key).cloned().collect(),
        }
    });
    Ok(apps.collect())
}

/// All networks: those of objects, and the one that always exists where it is in use.
pub(crate) async fn networks(fleet: &Fleet) -> Result<Vec<view::Network>, DbError> {
    let known = fleet.known();
    let mut all: BTreeMap<String, view::Network> = BTreeMap::new();
    for device in devices(fleet).await? {
        for network in device.networks {
            let entry = all.entry(network.network.clone()).or_insert_with(|| view::Network {
                name: network.network.clone(),
                kind: "local".to_owned(),
                subnet: None,
                on: Vec::new(),
                flaws: Vec::new(),
            });
            entry.on.push(network);
        }
    }
    for stored in known.of_kind(Kind::Network) {
        let key = &stored.object.key;
        let Spec::Network(spec) = &stored.object.spec else { continue };
        let on = all.remove(&key.name).map(|n| n.on).unwrap_or_default();
        let kind = match spec.kind {
            crate::objects::NetworkType::Local => "local",
            crate::objects::NetworkType::Switch => "switch",
        };
        let network = view::Network {
            name: key.name.clone(),
            kind: kind.to_owned(),
            subnet: spec.subnet.map(|s| s.to_string()),
            on,
            flaws: known.flaws.iter().filter(|f| f.key == *key).cloned().collect(),
        };
        all.insert(key.name.clone(), network);
    }
    Ok(all.into_values().collect())
}

/// All objects, as they were written.
pub(crate) fn objects(fleet: &Fleet) -> Vec<view::Object> {
    let known = fleet.known();
    let object = |stored: &StoredObject| view::Object {
        key: stored.object.key.clone(),
        generation: stored.object.generation,
        changed: stored.changed,
        spec: crate::objects::shown(stored.object.key.kind, &stored.written.value()),
        flaws: known.flaws.iter().filter(|f| f.key == stored.object.key).cloned().collect(),
    };
    known.stored.values().map(|s| object(s)).collect()
}

/// Groups, windows and alert rules as objects. Of those no generations are kept: 0.
pub(crate) async fn policy_objects(fleet: &Fleet) -> Result<Vec<view::Object>, DbError> {
    let all = fleet.db.policies().await?;
    let flaws = policies::flaws(&all, &fleet.known().objects);
    let object = |(key, policy): (&Key, &Policy)| view::Object {
        key: key.clone(),
        generation: 0,
        changed: UnixMillis(0),
        spec: policies::shown(policy),
        flaws: flaws.iter().filter(|f| f.key == *key).cloned().collect(),
    };
    Ok(all.iter().map(object).collect())
}

/// What is known of a node.
pub(crate) async fn of_device(
    fleet: &Fleet,
    known: &Known,
    stored: &StoredObject,
) -> Result<view::Device, DbError> {
    let id = stored.object.uid;
    let mut device = expected(fleet, known, stored);
    let mut reports = Reports::default();
    let mut done = (0, 0);
    for row in fleet.db.infos(id).await? {
        match report(&row) {
            Some(Report::Device(said)) => {
                done = (said.reboot_counter, said.shutdown_counter);
                say_device(&mut device, &said);
            }
            Some(other) => reports.take(other),
            None => {}
        }
    }
    if let Some(row) = known.device(id) {
        device.asked = asked(row, done);
    }
    if let Some(told) = fleet.compiled(known, id) {
        say_apps(&mut device, &told, known, &reports);
        say_networks(&mut device, &told, &reports);
    }
    say_pending(&mut device, &reports);
    if let Some(row) = fleet.db.metrics(id).await?
        && let Ok(metrics) = convert::view::metrics(&row.payload)
    {
        device.usage = Some(usage(&metrics, row.received));
        if let Some(boot) = &mut device.boot {
            boot.timeline = metrics.timeline;
        }
    }
    let refused = fleet.db.refused_logs(id).await?;
    if refused > 0 {
        device.problems.push(format!("{refused} of its log files could not be read"));
    }
    Ok(device)
}

/// Whether a node is there, and when it was last heard of.
pub(crate) fn liveness(
    fleet: &Fleet,
    known: &Known,
    stored: &StoredObject,
) -> (view::DeviceState, Option<UnixMillis>) {
    let id = stored.object.uid;
    let spec = match &stored.object.spec {
        Spec::Device(spec) => Some(spec),
        _ => None,
    };
    let seen = fleet.last_seen(id);
    let state = match (known.device(id).and_then(|r| r.registered), seen) {
        (None, _) => view::DeviceState::Expected,
        (Some(_), None) => view::DeviceState::Registered,
        (_, Some(at)) if fleet.now().since(at) <= patience(spec) => view::DeviceState::Online,
        _ => view::DeviceState::Silent,
    };
    (state, seen)
}

/// What we know of a node before it says anything of itself.
fn expected(fleet: &Fleet, known: &Known, stored: &StoredObject) -> view::Device {
    let key = &stored.object.key;
    let id = stored.object.uid;
    let row = known.device(id);
    let registered = row.and_then(|r| r.registered);
    let (state, seen) = liveness(fleet, known, stored);
    let flaws = known.flaws.iter().filter(|f| f.key == *key);
    let labels = objects::labels(&known.objects, &stored.object).into_iter();
    view::Device {
        id: DeviceId::new(id),
        name: key.name.clone(),
        state,
        seen,
        registered,
        serial: row.map(|r| r.serial.clone()).unwrap_or_default(),
        soft_serial: row.map(|r| r.soft_serial.clone()).unwrap_or_default(),
        certificate: row.and_then(|r| r.cert_hash.as_ref()).map(hex::encode),
        onboard_certificate: row.filter(|r| !r.onboard.is_empty()).map(|r| hex::encode(&r.onboard)),
        labels: labels.map(|(key, value)| (key.to_owned(), value.into_owned())).collect(),
        version: String::new(),
        slot: String::new(),
        config_in_force: None,
        config_given: known.given(id).map(|g| view::ConfigGiven {
            version: g.config.version.clone(),
            author: g.author.clone(),
            at: g.at,
        }),
        hardware: String::new(),
        boot: None,
        ports: Vec::new(),
        usage: None,
        apps: Vec::new(),
        networks: Vec::new(),
        pending: Vec::new(),
        problems: flaws
            .map(|f| format!("{}: {}", f.field, f.text))
            .chain(held_back(known, id))
            .collect(),
        asked: Vec::new(),
    }
}

/// What a node was asked to do that it has not said it did. `done`: how many reboots and shutdowns it
/// says that it was asked for.
fn asked(row: &DeviceRow, done: (u32, u32)) -> Vec<String> {
    let wishes = [("reboot", row.reboots, done.0), ("shutdown", row.shutdowns, done.1)];
    let open = wishes.into_iter().filter(|(_, wanted, done)| wanted > done);
    open.map(|(what, ..)| format!("a {what}: it has not said that it knows of it")).collect()
}

/// What a node is not told yet, and why.
fn held_back(known: &Known, id: Uuid) -> impl Iterator<Item = String> {
    let held = known.overlay(id).into_iter().flat_map(|o| o.values()).map(|h| &h.said);
    held.filter(|h| h.as_of.is_some()).map(|h| format!("{}: {}", h.key, h.why))
}

/// What a node says, by id.
#[derive(Default)]
struct Reports {
    apps: BTreeMap<String, AppView>,
    networks: BTreeMap<String, NetworkInstanceView>,
    volumes: Vec<VolumeView>,
    contents: Vec<ContentView>,
}

impl Reports {
    fn take(&mut self, report: Report) {
        match report {
            Report::App(app) => {
                self.apps.insert(app.id.clone(), app);
            }
            Report::NetworkInstance(network) => {
                self.networks.insert(network.id.clone(), network);
            }
            Report::Volume(volume) => self.volumes.push(volume),
            Report::Content(content) => self.contents.push(content),
            Report::Device(_) | Report::Gone { .. } | Report::More(_) | Report::Other { .. } => {}
        }
    }
}

fn report(row: &InfoRow) -> Option<Report> {
    convert::view::info(&row.payload).ok().map(|i| i.report)
}

fn say_device(device: &mut view::Device, said: &DeviceView) {
    device.version.clone_from(&said.version);
    device.slot.clone_from(&said.slot);
    let product = format!("{} {}", said.manufacturer, said.product);
    let parts = [
        product.trim().to_owned(),
        said.arch.clone(),
        if said.cpus > 0 { format!("{} processors", said.cpus) } else { String::new() },
    ];
    let parts: Vec<String> = parts.into_iter().filter(|p| !p.is_empty()).collect();
    device.hardware = parts.join(", ");
    let reason = [&said.boot_reason, &said.boot_detail].map(String::as_str);
    let reason: Vec<&str> = reason.into_iter().filter(|r| !r.is_empty()).collect();
    device.boot = Some(view::Boot {
        at: said.booted,
        reason: reason.join(": "),
        count: said.boots,
        timeline: Vec::new(),
    });
    device.config_in_force = said.config_timestamp;
    let ports = said.ports.iter().map(|port| view::Port {
        name: if port.name.is_empty() { port.interface.clone() } else { port.name.clone() },
        mac: port.mac.clone(),
        addresses: port.addresses.clone(),
        up: port.up,
        problem: port.error.as_ref().map(problem),
    });
    device.ports = ports.collect();
    if !said.port_error.is_empty() {
        device.problems.push(format!("ports: {}", said.port_error));
    }
    let refused = said.items.iter().filter(|(_, (_, error))| !error.is_empty());
    device.problems.extend(refused.map(|(key, (_, error))| format!("setting {key}: {error}")));
}

fn say_apps(
    device: &mut view::Device,
    told: &model::desired::Device,
    known: &Known,
    reports: &Reports,
) {
    for app in told.apps.values() {
        let report = reports.apps.get(&app.id.to_string());
        let key = crate::objects::Key::new(Kind::App, &app.name);
        let mut problems: Vec<String> =
            report.map(|r| r.errors.iter().map(problem).collect()).unwrap_or_default();
        let flaws = known.flaws.iter().filter(|f| f.key == key);
        problems.extend(flaws.map(|f| format!("{}: {}", f.field, f.text)));
        let ports = match known.objects.get(&key).map(|o| &o.spec) {
            Some(Spec::App(spec)) => spec.ports.iter().map(ToString::to_string).collect(),
            _ => Vec::new(),
        };
        let addresses = report.map(|r| r.interfaces.iter().flat_map(|i| i.addresses.clone()));
        device.apps.push(view::AppOnDevice {
            id: app.id,
            app: app.name.clone(),
            device: device.name.clone(),
            state: report.map_or_else(
                || "waiting for the node".to_owned(),
                |report| progress(report, reports),
            ),
            running: report.is_some_and(|r| r.state == RUNNING),
            since: report.and_then(|r| r.running_since),
            addresses: addresses.map(Iterator::collect).unwrap_or_default(),
            ports,
            problems,
        });
    }
}

/// As `api::convert::view` calls it.
const RUNNING: &str = "running";

/// The state of an app; while its image is on the way, how far that is.
fn progress(app: &AppView, reports: &Reports) -> String {
    let content = reports.contents.iter().find(|c| c.name == app.name);
    match content {
        Some(content) if app.state == "downloading" && content.progress > 0 => {
            format!("downloading {} %", content.progress)
        }
        _ if app.state.is_empty() => "unknown".to_owned(),
        _ => app.state.clone(),
    }
}

fn say_networks(device: &mut view::Device, told: &model::desired::Device, reports: &Reports) {
    for network in told.network_instances.values() {
        let report = reports.networks.get(&network.id.to_string());
        let state = match report {
            None => "waiting for the node",
            Some(r) if r.active => "online",
            Some(r) if !r.errors.is_empty() => "error",
            Some(_) => "starting",
        };
        let gateway = match &network.kind {
            NetworkKind::Local(local) => Some(local.gateway),
            NetworkKind::Switch => None,
        };
        let leases = report.into_iter().flat_map(|r| &r.leases);
        let leases = leases.flat_map(|(mac, all)| all.iter().map(|a| (mac.clone(), a.clone())));
        device.networks.push(view::NetworkOnDevice {
            network: network.name.clone(),
            device: device.name.clone(),
            state: state.to_owned(),
            gateway,
            leases: leases.collect(),
            problems: report.map(|r| r.errors.iter().map(problem).collect()).unwrap_or_default(),
        });
    }
}

fn say_pending(device: &mut view::Device, reports: &Reports) {
    let contents =
        reports.contents.iter().map(|c| ("image", &c.name, &c.state, c.progress, &c.error));
    let volumes =
        reports.volumes.iter().map(|v| ("volume", &v.name, &v.state, v.progress, &v.error));
    for (kind, name, state, progress, error) in contents.chain(volumes) {
        let ready =
            ["loaded", "created volume", "delivered", "installed"].contains(&state.as_str());
        if error.is_some() || !ready {
            device.pending.push(view::Pending {
                name: name.clone(),
                kind: kind.to_owned(),
                state: state.clone(),
                progress,
                problem: error.as_ref().map(problem),
            });
        }
    }
}

fn usage(said: &Metrics, at: UnixMillis) -> view::Usage {
    let mut usage = view::Usage {
        at,
        memory_used: said.memory_used,
        memory_total: Bytes(said.memory_used.0.saturating_add(said.memory_available.0)),
        ..view::Usage::default()
    };
    for service in &said.services {
        let sum = usage.services.entry(service.name.clone()).or_default();
        sum.0 = sum.0.saturating_add(service.memory.0);
    }
    usage.apps = said.apps.iter().map(|a| (a.name.clone(), a.memory)).collect();
    usage
}

fn problem(error: &ErrorView) -> String {
    if error.retry.is_empty() {
        error.text.clone()
    } else {
        format!("{} ({})", error.text, error.retry)
    }
}
