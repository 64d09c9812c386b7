//! Objects to what one node is told.
//!
//! References that point nowhere compile too, to ids that point nowhere: the node then says of the
//! one object what it lacks, and the others go on. [`super::check`] tells the operator the same.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;
use model::desired::{
    Action, Addressing, App, AppInterface, AppOptions, Content, Datastore, DatastoreKind, Device,
    DhcpRange, Direction, DnsEntry, ImageFormat, Link, LocalNetwork, Machine, Match,
    NetworkInstance, NetworkKind, NetworkOptions, Origin, Port, PortName, PortOptions,
    PortSelector, Power, Rule, StaticAddress, Volume, VolumeRef, VolumeTarget,
};
use model::{Bytes, Digest, Id, NetworkInstanceId};
use uuid::Uuid;

use super::spec::{
    AddressSpec, AppSpec, DatastoreSpec, NetworkSpec, NetworkType, Outbound, PortSpec, Spec,
};
use super::{DEFAULT, Key, Kind, LOCAL, Object, Objects, apps};

/// The subnet of the network that always exists.
pub(super) const DEFAULT_SUBNET: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 11, 12, 0), 24);

/// Whom to compile for, and what no object says.
#[derive(Debug, Clone)]
pub struct Target<'a> {
    /// The node's object.
    pub device: &'a Object,
    /// Names the controller; the id of its own registry derives from it.
    pub controller: Uuid,
    /// Host and port under which the node reaches the controller. `None`: not known yet; apps from
    /// the controller's registry then wait.
    pub host: Option<&'a str>,
    /// The controller's root certificate, PEM.
    pub root_pem: &'a str,
    /// Changes when the controller's certificates do.
    pub certs_hash: &'a str,
    /// Changes when the controller wants every status again.
    pub epoch: i64,
    /// How often a reboot was asked for.
    pub reboots: u32,
    /// How often it was asked to power off.
    pub shutdowns: u32,
}

/// Everything the node is told. The time stamp is left to whoever knows what was sent before.
pub fn compile(target: &Target<'_>, objects: &Objects) -> Device {
    let device = target.device;
    let mut told = Device::new(Id::new(device.uid));
    told.name = device.key.name.clone();
    told.epoch = target.epoch;
    told.controller_certs_hash = target.certs_hash.to_owned();
    told.power = Power { reboot: Some(target.reboots), shutdown: Some(target.shutdowns) };
    if let Spec::Device(spec) = &device.spec {
        told.ports = spec.ports.iter().filter_map(port).map(|p| (p.name.clone(), p)).collect();
        told.hardware = told.ports.values().map(Port::card).collect();
        told.items = spec.settings.clone();
    }
    for (object, app) in apps(objects).filter(|(_, app)| targets(app, &device.key.name)) {
        Compiling { target, objects, told: &mut told }.app(object, app);
    }
    told
}

/// Whether an app is to run on the node of this name.
pub fn targets(app: &AppSpec, device: &str) -> bool {
    app.device.0.iter().any(|d| d == device || d == "*")
}

/// The content an app's root is made of: datastores by name, path, format, digest, greatest size.
pub(crate) type ContentKey = (Vec<String>, String, ImageFormat, Option<Digest>, Option<Bytes>);

/// What an app runs, in terms that change exactly when its root must be made anew.
pub(crate) fn content_of(objects: &Objects, app: &AppSpec, pinned: Option<Digest>) -> ContentKey {
    image(objects, &app.image, &app.datastore, pinned)
}

/// Counters that must grow so that a change takes effect.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bumps {
    /// Stop and start.
    pub restart: bool,
    /// And make its volumes anew.
    pub purge: bool,
}

/// What a change of an app's spec asks for. Devices refuse a change of resources or volumes without
/// its counter (EVE API, apps).
pub fn bumps(old: &AppSpec, new: &AppSpec) -> Bumps {
    let purge = old.volumes != new.volumes || old.disk != new.disk;
    let restart = old.memory != new.memory
        || old.cpus != new.cpus
        || old.network != new.network
        || old.environment != new.environment
        || old.virtualization != new.virtualization;
    Bumps { restart, purge }
}

struct Compiling<'a> {
    target: &'a Target<'a>,
    objects: &'a Objects,
    told: &'a mut Device,
}

impl Compiling<'_> {
    fn app(&mut self, object: &Object, app: &AppSpec) {
        let id = self.id(object.uid, "app");
        let root = self.id(object.uid, "root");
        let what = content_of(self.objects, app, object.pinned);
        let content = self.content(object.uid, &object.key.name, &what);
        self.told.volumes.insert(
            Id::new(root),
            Volume {
                id: Id::new(root),
                generation: u64::from(object.purge),
                name: format!("{}-root", object.key.name),
                origin: Origin::Content(Id::new(content)),
                max_size: Some(app.disk.0),
                readonly: false,
                clear_text: false,
                target: VolumeTarget::Disk,
            },
        );
        let mut volumes = vec![VolumeRef {
            volume: Id::new(root),
            generation: u64::from(object.purge),
            mount: "/".into(),
        }];
        let mut depends = 0;
        for used in &app.volumes {
            let key = Key::new(Kind::Volume, &used.volume);
            let (volume, generation) = self.volume(&key);
            depends += generation;
            volumes.push(VolumeRef {
                volume: Id::new(volume),
                generation: 0,
                mount: used.mount.clone(),
            });
        }
        let mut interfaces = Vec::new();
        for (at, used) in app.network.iter().enumerate() {
            let (network, generation) = self.network(used.name());
            depends += generation;
            interfaces.push(AppInterface {
                name: format!("eth{at}"),
                network,
                mac: None,
                address: used.address(),
                rules: rules(app, at == 0),
                access_vlan: None,
                discover: false,
                order: 0,
            });
        }
        self.told.apps.insert(
            Id::new(id),
            App {
                id: Id::new(id),
                // What it depends on counts too: some devices look again at an app that failed for
                // want of a network only when the app's own bytes change.
                version: format!("{}.{depends}", object.generation),
                name: object.key.name.clone(),
                activate: app.active,
                vcpus: app.cpus,
                memory: app.memory.0,
                virtualization: app.virtualization,
                volumes,
                interfaces,
                restart: object.restart,
                purge: object.purge,
                environment: app.environment.iter().map(|(k, v)| format!("{k}={v}")).collect(),
                start_delay: Duration::from_secs(app.start_delay_seconds.into()),
                disable_logs: !app.logs,
                user_data: None,
                machine: Machine::default(),
                hardware: Vec::new(),
                options: AppOptions::default(),
            },
        );
    }

    /// The id of something that an object becomes on this node.
    fn id(&self, uid: Uuid, part: &str) -> Uuid {
        let mut name = self.target.device.uid.as_bytes().to_vec();
        name.extend_from_slice(part.as_bytes());
        Uuid::new_v5(&uid, &name)
    }

    fn content(&mut self, owner: Uuid, name: &str, what: &ContentKey) -> Uuid {
        let (datastores, path, format, sha256, max_size) = what;
        let id = self.id(owner, &format!("content {what:?}"));
        let datastores = datastores.iter().map(|d| Id::new(self.datastore(d))).collect();
        self.told.contents.insert(
            Id::new(id),
            Content {
                id: Id::new(id),
                name: name.to_owned(),
                datastores,
                url: path.clone(),
                format: *format,
                sha256: *sha256,
                max_size: *max_size,
                generation: 0,
                custom_metadata: String::new(),
            },
        );
        id
    }

    fn datastore(&mut self, name: &str) -> Uuid {
        let (id, datastore) = match self.objects.get(&Key::new(Kind::Datastore, name)) {
            Some(Object { uid, spec: Spec::Datastore(spec), .. }) => {
                (*uid, Some(stated(*uid, spec)))
            }
            _ if name == LOCAL => {
                let id = Uuid::new_v5(&self.target.controller, LOCAL.as_bytes());
                let host = self.target.host.map(|host| Datastore {
                    id: Id::new(id),
                    kind: DatastoreKind::Registry,
                    host: host.to_owned(),
                    prefix: String::new(),
                    trust_pem: vec![self.target.root_pem.to_owned()],
                    region: String::new(),
                    credentials: None,
                });
                (id, host)
            }
            _ => (self.missing(Kind::Datastore, name), None),
        };
        self.told.datastores.extend(datastore.map(|d| (d.id, d)));
        id
    }

    fn volume(&mut self, key: &Key) -> (Uuid, u64) {
        let Some(Object { uid, generation, pinned, spec: Spec::Volume(spec), .. }) =
            self.objects.get(key)
        else {
            return (self.missing(Kind::Volume, &key.name), 0);
        };
        let (uid, generation, pinned) = (*uid, *generation, *pinned);
        let id = self.id(uid, "volume");
        let origin = match &spec.image {
            None => Origin::Blank,
            Some(name) => {
                let what = image(self.objects, name, LOCAL, pinned);
                Origin::Content(Id::new(self.content(uid, &key.name, &what)))
            }
        };
        self.told.volumes.insert(
            Id::new(id),
            Volume {
                id: Id::new(id),
                generation: 0,
                name: key.name.clone(),
                origin,
                max_size: spec.size.map(|s| s.0),
                readonly: spec.readonly,
                clear_text: false,
                target: VolumeTarget::Disk,
            },
        );
        (id, generation)
    }

    fn network(&mut self, name: &str) -> (NetworkInstanceId, u64) {
        let (id, generation, spec) = match self.objects.get(&Key::new(Kind::Network, name)) {
            Some(Object { uid, generation, spec: Spec::Network(spec), .. }) => {
                (self.id(*uid, "network"), *generation, Some(spec.clone()))
            }
            _ if name == DEFAULT => {
                let id = self.id(self.target.controller, "default network");
                (id, 1, Some(default_network()))
            }
            _ => (self.missing(Kind::Network, name), 0, None),
        };
        if let Some(instance) = spec.and_then(|s| instance(Id::new(id), name, &s)) {
            self.told.network_instances.insert(Id::new(id), instance);
        }
        (Id::new(id), generation)
    }

    /// An id that points nowhere, always the same for the same name.
    fn missing(&self, kind: Kind, name: &str) -> Uuid {
        self.id(self.target.controller, &format!("missing {kind} {name}"))
    }
}

fn image(objects: &Objects, name: &str, datastore: &str, pinned: Option<Digest>) -> ContentKey {
    match objects.get(&Key::new(Kind::Image, name)) {
        Some(Object { spec: Spec::Image(image), .. }) => {
            let sha256 = image.sha256.map(|d| d.0).or(pinned);
            let max = image.max_size.map(|s| s.0);
            (image.datastore.0.clone(), image.path.clone(), image.format, sha256, max)
        }
        _ => {
            let path = with_tag(name);
            (vec![datastore.to_owned()], path, ImageFormat::Container, pinned, None)
        }
    }
}

/// A reference without a tag means `latest`.
pub(crate) fn with_tag(reference: &str) -> String {
    let last = reference.rsplit('/').next().unwrap_or(reference);
    if last.contains([':', '@']) { reference.to_owned() } else { format!("{reference}:latest") }
}

fn stated(id: Uuid, spec: &DatastoreSpec) -> Datastore {
    Datastore {
        id: Id::new(id),
        kind: spec.kind,
        host: spec.host.clone(),
        prefix: spec.path.trim_matches('/').to_owned(),
        trust_pem: spec.trust.clone(),
        region: String::new(),
        credentials: None,
    }
}

fn rules(app: &AppSpec, first: bool) -> Vec<Rule> {
    let anywhere = Rule {
        id: 1,
        matches: vec![Match::Ip(Ipv4Net::default().into())],
        action: Action::Allow,
        direction: Direction::Both,
    };
    let outbound = (app.outbound == Outbound::Allow).then_some(anywhere);
    let maps = app.ports.iter().filter(|_| first).zip(2..).map(|(map, id)| Rule {
        id,
        matches: vec![Match::Protocol(map.protocol), Match::LocalPort(map.edge)],
        action: Action::PortMap { app_port: map.app },
        direction: Direction::Both,
    });
    outbound.into_iter().chain(maps).collect()
}

fn port(spec: &PortSpec) -> Option<Port> {
    let name = PortName::new(&spec.name)?;
    let addressing = match &spec.address {
        AddressSpec::Dhcp => Addressing::Dhcp,
        AddressSpec::None => Addressing::None,
        AddressSpec::Static { fixed } => Addressing::Static(StaticAddress {
            address: fixed.address,
            gateway: fixed.gateway,
            dns: fixed.dns.clone(),
            ntp: fixed.ntp.clone(),
        }),
    };
    Some(Port {
        interface: spec.interface.clone().unwrap_or_else(|| spec.name.clone()),
        name,
        management: spec.management,
        cost: spec.cost,
        addressing,
        mtu: spec.mtu,
        below: String::new(),
        link: Link::Ethernet,
        options: PortOptions::default(),
    })
}

fn default_network() -> NetworkSpec {
    NetworkSpec {
        kind: NetworkType::Local,
        subnet: Some(DEFAULT_SUBNET),
        gateway: None,
        dhcp: None,
        dns: Vec::new(),
        hosts: BTreeMap::new(),
        port: "uplink".to_owned(),
        mtu: None,
    }
}

/// `None` for a local network without a subnet, which `check` refuses.
fn instance(id: NetworkInstanceId, name: &str, spec: &NetworkSpec) -> Option<NetworkInstance> {
    let kind = match spec.kind {
        NetworkType::Switch => NetworkKind::Switch,
        NetworkType::Local => {
            let subnet = spec.subnet?.trunc();
            let (gateway, range) = addresses(subnet, spec);
            NetworkKind::Local(LocalNetwork {
                subnet,
                gateway,
                range,
                dns: spec.dns.clone(),
                hosts: spec
                    .hosts
                    .iter()
                    .map(|(name, addresses)| DnsEntry {
                        name: name.clone(),
                        addresses: addresses.clone(),
                    })
                    .collect(),
            })
        }
    };
    let port = match spec.port.as_str() {
        "none" | "" => None,
        "uplink" => Some(PortSelector::Uplink),
        "freeuplink" => Some(PortSelector::FreeUplink),
        label => PortName::new(label).map(PortSelector::Port),
    };
    Some(NetworkInstance {
        id,
        name: name.to_owned(),
        activate: true,
        kind,
        port,
        mtu: spec.mtu,
        options: NetworkOptions::default(),
    })
}

/// The gateway (the first host if not said) and the range for apps (all behind the gateway, or all
/// before it where that is more).
pub(super) fn addresses(subnet: Ipv4Net, spec: &NetworkSpec) -> (Ipv4Addr, DhcpRange) {
    let first = u32::from(subnet.network()).saturating_add(1);
    let last = u32::from(subnet.broadcast()).saturating_sub(1);
    let gateway = spec.gateway.map_or(first, u32::from);
    let behind = (gateway.saturating_add(1), last);
    let before = (first, gateway.saturating_sub(1));
    let size = |(from, to): (u32, u32)| i64::from(to) - i64::from(from);
    let (start, end) = if size(behind) >= size(before) { behind } else { before };
    let range = spec
        .dhcp
        .map_or(DhcpRange { start: Ipv4Addr::from(start), end: Ipv4Addr::from(end) }, |d| {
            DhcpRange { start: d.start, end: d.end }
        });
    (Ipv4Addr::from(gateway), range)
}
