//! Objects to what one node is told.
//!
//! References that point nowhere compile too, to ids that point nowhere: the node then says of the
//! one object what it lacks, and the others go on. [`super::check`] tells the operator the same.

mod apps;
mod ports;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use base64::Engine as _;
use ipnet::Ipv4Net;
use model::desired::{
    Artifact, ArtifactBody, BaseOs, Content, Credentials, Datastore, DatastoreKind, Device,
    DhcpRange, DnsEntry, EdgeView, Enrolment, ImageFormat, LocalConsole, LocalNetwork, LocalServer,
    NetworkInstance, NetworkKind, NetworkOptions, Origin, Owner, PatchEnvelope, PortName,
    PortSelector, Power, StaticRoute, Volume,
};
use model::{AppId, Bytes, Digest, Id, NetworkInstanceId, Secret};
use uuid::Uuid;

use super::spec::{
    AppSpec, DatastoreSpec, DeviceSpec, FileSpec, NetworkSpec, NetworkType, NetworkUse, PatchSpec,
    RouteSpec, SecretRef, Spec, TextOrSecret,
};
use super::template::{Node, node};
use super::{DEFAULT, Key, Kind, LOCAL, Object, Objects};
pub(super) use apps::edges;
pub(super) use ports::lower_labels;

/// The subnet of the network that always exists.
pub(super) const DEFAULT_SUBNET: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 11, 12, 0), 24);

/// Devices cut a range to so many addresses (EVE API, network instances).
const RANGE_MAX: u32 = 256;

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
    /// How often a power-off was asked for.
    pub shutdowns: u32,
    /// The password that opens the controller's own registry for the node. `None`: it is open to all.
    pub registry_password: Option<Secret>,
    /// The EdgeView session that is open. `None`: none.
    pub edge_view: Option<Session>,
    /// What is added to the counters of apps on this node.
    pub added: Added,
}

/// What is added to the counters of apps on one node, by app: restarts and purges. Devices act on any
/// difference and compare nothing else (EVE API, counters), so a counter may go round: what is added
/// may also take away.
pub type Added = BTreeMap<Key, (u32, u32)>;

/// An EdgeView session.
#[derive(Debug, Clone)]
pub struct Session {
    /// Its token, signed.
    pub token: Secret,
    /// Another one is another session.
    pub generation: u32,
}

/// Everything the node is told. The time stamp is left to whoever knows what was sent before.
pub fn compile(target: &Target<'_>, objects: &Objects) -> Device {
    let device = target.device;
    let mut told = Device::new(Id::new(device.uid));
    told.name = device.key.name.clone();
    told.epoch = target.epoch;
    told.controller_certs_hash = target.certs_hash.to_owned();
    told.power = Power { reboot: Some(target.reboots), shutdown: Some(target.shutdowns) };
    let Some(node) = node(objects, device) else { return told };
    let mut compiling = Compiling { target, objects, told: &mut told };
    compiling.own(&node.spec);
    for (object, app) in super::apps(objects).filter(|(_, app)| targets(app, &node)) {
        let (app, mark, _) = node.app(&object.key, app);
        compiling.app(object, &app, mark);
    }
    let patches = objects.range(Key::new(Kind::Patch, "")..);
    let patches = patches.map_while(|(_, o)| match &o.spec {
        Spec::Patch(spec) => Some((o, spec)),
        _ => None,
    });
    for (object, spec) in patches {
        compiling.patch(object, spec);
    }
    told
}

/// Whether an app is to run on a node.
pub fn targets(app: &AppSpec, node: &Node<'_>) -> bool {
    app.device.has(&node.object.key.name, &node.spec.labels)
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
    let purge = old.volumes != new.volumes || old.disk != new.disk || old.hardware != new.hardware;
    // The rules of a network act at once; the rest of it waits for a restart.
    let links = |app: &AppSpec| -> Vec<_> {
        let link = |n: &NetworkUse| (n.name().to_owned(), n.address(), n.mac(), n.link());
        app.network.iter().map(link).collect()
    };
    let restart = old.memory != new.memory
        || old.cpus != new.cpus
        || links(old) != links(new)
        || old.environment != new.environment
        || old.user_data != new.user_data
        || old.metadata != new.metadata
        || old.cloud_init_version != new.cloud_init_version
        || old.vm != new.vm
        || old.placement != new.placement
        || old.docker != new.docker
        || old.service != new.service
        || old.virtualization != new.virtualization;
    Bumps { restart, purge }
}

struct Compiling<'a> {
    target: &'a Target<'a>,
    objects: &'a Objects,
    told: &'a mut Device,
}

impl<'a> Compiling<'a> {
    fn object(&self, key: &Key) -> Option<&'a Object> {
        self.objects.get(key).map(|o| &**o)
    }

    /// The value of a secret. `None`: there is none of this name.
    fn secret(&self, named: &SecretRef) -> Option<Secret> {
        match self.object(&Key::new(Kind::Secret, &named.secret)).map(|o| &o.spec) {
            Some(Spec::Secret(secret)) => Some(secret.value.clone()),
            _ => None,
        }
    }

    /// A text that may be a secret. `None`: nothing is said, or there is none of this name.
    fn text(&self, text: Option<&TextOrSecret>) -> Option<Secret> {
        match text? {
            TextOrSecret::Text(text) => Secret::some(text),
            TextOrSecret::Secret(secret) => self.secret(secret),
        }
    }

    /// How often an object changed; 0 if there is none.
    fn generation(&self, kind: Kind, name: &str) -> u64 {
        self.object(&Key::new(kind, name)).map_or(0, |o| o.generation)
    }

    /// What the node is told of itself.
    fn own(&mut self, spec: &DeviceSpec) {
        let told = &mut *self.told;
        told.items.clone_from(&spec.settings);
        told.maintenance = spec.maintenance;
        told.profile.clone_from(&spec.profile);
        told.disks.clone_from(&spec.disks);
        if let Some(name) = &spec.project {
            let key = Key::new(Kind::Project, name);
            if let Some(Object { uid, spec: Spec::Project(project), .. }) = self.object(&key) {
                self.told.owner = Owner {
                    project: name.clone(),
                    project_id: uid.to_string(),
                    enterprise: project.enterprise.clone(),
                    enterprise_id: project.enterprise_id.clone(),
                };
            }
        }
        self.told.local_server = spec.local_profile_server.as_ref().map(|s| LocalServer {
            address: s.address.clone(),
            token: self.secret(&s.token).unwrap_or_default(),
        });
        self.told.local_console = spec.local_console.as_ref().map(|c| LocalConsole {
            url: c.url.clone(),
            bundles: c.bundles.iter().map(|d| Id::new(self.datastore(d))).collect(),
        });
        self.told.edge_view = self.target.edge_view.as_ref().map(|session| EdgeView {
            token: session.token.clone(),
            dispatcher_pem: spec.edge_view.dispatcher.clone(),
            device: spec.edge_view.device,
            apps: spec.edge_view.apps,
            external: spec.edge_view.external,
            generation: session.generation,
        });
        let model = spec.hardware.as_ref().map(|name| Key::new(Kind::Hardware, name));
        let model = model.and_then(|key| match &self.object(&key)?.spec {
            Spec::Hardware(hardware) => Some(hardware),
            _ => None,
        });
        ports::ports(self, spec, model);
        if let Some(name) = &spec.base_os {
            self.base_os(name);
        }
    }

    fn base_os(&mut self, name: &str) {
        let key = Key::new(Kind::BaseOs, name);
        let Some(Object { uid, restart, pinned, spec: Spec::BaseOs(spec), .. }) = self.object(&key)
        else {
            return;
        };
        let what = image(self.objects, &spec.image, &spec.datastore, *pinned);
        let content = Id::new(self.content(*uid, name, &spec.image, &what));
        self.told.base_os = Some(BaseOs {
            content,
            version: spec.version.clone(),
            activate: spec.active,
            retry: *restart,
        });
    }

    fn enrolment(&mut self, name: &str) {
        let key = Key::new(Kind::Enrolment, name);
        let Some(Object { spec: Spec::Enrolment(spec), .. }) = self.object(&key) else {
            return;
        };
        let enrolment = Enrolment {
            name: name.to_owned(),
            url: spec.url.clone(),
            via_controller: spec.via_controller,
            challenge: spec.challenge.as_ref().and_then(|s| self.secret(s)),
            ca_pem: spec.ca.clone(),
            request: spec.request.clone(),
        };
        self.told.enrolments.insert(name.to_owned(), enrolment);
    }

    /// Adds a patch if any of its apps runs here.
    fn patch(&mut self, object: &Object, spec: &PatchSpec) {
        let app = |name: &String| Some(self.object(&Key::new(Kind::App, name))?.uid);
        let apps = spec.apps.iter().filter_map(app).map(|uid| Id::new(self.id(uid, "app")));
        let apps: Vec<AppId> = apps.filter(|id| self.told.apps.contains_key(id)).collect();
        if apps.is_empty() {
            return;
        }
        let artifacts = spec.files.iter().filter_map(|file| self.artifact(file)).collect();
        let id = Id::new(self.id(object.uid, "patch"));
        let patch = PatchEnvelope {
            id,
            name: object.key.name.clone(),
            version: spec.version.clone(),
            activate: spec.active,
            artifacts,
            apps,
            created: None,
        };
        self.told.patches.insert(id, patch);
    }

    fn artifact(&mut self, file: &FileSpec) -> Option<Artifact> {
        let mut sealed = false;
        let body = match (&file.text, &file.base64, &file.volume) {
            (Some(TextOrSecret::Text(text)), _, _) => {
                ArtifactBody::Inline(text.clone().into_bytes())
            }
            (Some(TextOrSecret::Secret(secret)), _, _) => {
                sealed = true;
                ArtifactBody::Inline(self.secret(secret)?.reveal().as_bytes().to_vec())
            }
            (None, Some(text), _) => ArtifactBody::Inline(base64_bytes(text)?),
            (None, None, Some(name)) => {
                let (id, _) = self.volume(&Key::new(Kind::Volume, name));
                ArtifactBody::Volume { volume: Id::new(id), image: name.clone() }
            }
            (None, None, None) => return None,
        };
        let metadata = file.metadata.clone();
        let name = file.name.clone();
        Some(Artifact { file: name, body, file_metadata: None, metadata, sealed })
    }

    /// The id of something that an object becomes on this node.
    fn id(&self, uid: Uuid, part: &str) -> Uuid {
        let mut name = self.target.device.uid.as_bytes().to_vec();
        name.extend_from_slice(part.as_bytes());
        Uuid::new_v5(&uid, &name)
    }

    fn content(&mut self, owner: Uuid, name: &str, source: &str, what: &ContentKey) -> Uuid {
        let (datastores, path, format, sha256, max_size) = what;
        let custom_metadata = match self.object(&Key::new(Kind::Image, source)) {
            Some(Object { spec: Spec::Image(image), .. }) => image.metadata.clone(),
            _ => String::new(),
        };
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
                custom_metadata,
            },
        );
        id
    }

    fn datastore(&mut self, name: &str) -> Uuid {
        let (id, datastore) = match self.object(&Key::new(Kind::Datastore, name)) {
            Some(Object { uid, spec: Spec::Datastore(spec), .. }) => {
                (*uid, Some(self.stated(*uid, spec)))
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
                    credentials: self.target.registry_password.clone().map(|password| {
                        Credentials {
                            user: Secret::new(self.target.device.uid.to_string()),
                            password,
                        }
                    }),
                });
                (id, host)
            }
            _ => (self.missing(Kind::Datastore, name), None),
        };
        self.told.datastores.extend(datastore.map(|d| (d.id, d)));
        id
    }

    fn stated(&self, id: Uuid, spec: &DatastoreSpec) -> Datastore {
        let user = self.text(spec.user.as_ref());
        let password = spec.password.as_ref().and_then(|s| self.secret(s));
        let credentials =
            Credentials { user: user.unwrap_or_default(), password: password.unwrap_or_default() };
        let none = Credentials { user: Secret::default(), password: Secret::default() };
        Datastore {
            id: Id::new(id),
            kind: spec.kind,
            host: spec.host.trim_end_matches('/').to_owned(),
            prefix: spec.path.trim_matches('/').to_owned(),
            trust_pem: spec.trust.clone(),
            region: spec.region.clone(),
            credentials: (credentials != none).then_some(credentials),
        }
    }

    fn volume(&mut self, key: &Key) -> (Uuid, u64) {
        let Some(Object { uid, generation, pinned, spec: Spec::Volume(spec), .. }) =
            self.object(key)
        else {
            return (self.missing(Kind::Volume, &key.name), 0);
        };
        let (uid, generation, pinned) = (*uid, *generation, *pinned);
        let id = self.id(uid, "volume");
        let origin = match &spec.image {
            None => Origin::Blank,
            Some(name) => {
                let what = image(self.objects, name, LOCAL, pinned);
                Origin::Content(Id::new(self.content(uid, &key.name, name, &what)))
            }
        };
        self.told.volumes.insert(
            Id::new(id),
            Volume {
                id: Id::new(id),
                generation: 0,
                name: key.name.clone(),
                origin,
                max_size: spec.size.map(|s| s.0).filter(|b| b.0 > 0),
                readonly: spec.readonly,
                clear_text: spec.clear_text,
                target: spec.target,
            },
        );
        (id, generation)
    }

    fn network(&mut self, name: &str) -> (NetworkInstanceId, u64) {
        let (id, generation, spec) = match self.object(&Key::new(Kind::Network, name)) {
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
    match objects.get(&Key::new(Kind::Image, name)).map(|o| &**o) {
        Some(Object { spec: Spec::Image(image), .. }) => {
            let sha256 = image.sha256.map(|d| d.0).or(pinned);
            let max = image.max_size.map(|s| s.0).filter(|b| b.0 > 0);
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

/// The bytes of a base64 text; `None` if it is none.
pub(super) fn base64_bytes(text: &str) -> Option<Vec<u8>> {
    let text: String = text.split_whitespace().collect();
    base64::engine::general_purpose::STANDARD.decode(text).ok()
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
        active: true,
        flow_log: false,
        propagate_routes: false,
        routes: Vec::new(),
        access_ports: Vec::new(),
        forward_lldp: false,
        bpdu_guard: String::new(),
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
                // The network's own DNS answers at the gateway: to ask it would be to ask itself.
                dns: spec.dns.iter().filter(|d| **d != gateway).copied().collect(),
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
        "all" => Some(PortSelector::All),
        label => PortName::new(label).map(PortSelector::Port),
    };
    let route = |r: &RouteSpec| StaticRoute {
        to: r.to,
        gateway: r.gateway,
        port: r.port.clone(),
        probe: r.probe.clone(),
        prefer_cheap: r.prefer_cheap,
        prefer_signal: r.prefer_signal,
    };
    Some(NetworkInstance {
        id,
        name: name.to_owned(),
        activate: spec.active,
        kind,
        port,
        mtu: spec.mtu,
        options: NetworkOptions {
            flow_log: spec.flow_log,
            propagate_routes: spec.propagate_routes,
            routes: spec.routes.iter().map(route).collect(),
            access_ports: spec.access_ports.clone(),
            forward_lldp: spec.forward_lldp,
            bpdu_guard: spec.bpdu_guard.clone(),
        },
    })
}

/// The gateway (the first host if not said) and the range for apps (all behind the gateway, or all
/// before it where that is more); never more than [`RANGE_MAX`] addresses.
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
    let most = u32::from(range.start).saturating_add(RANGE_MAX - 1);
    let end = range.end.min(Ipv4Addr::from(most));
    (Ipv4Addr::from(gateway), DhcpRange { start: range.start, end })
}

/// Whether a text is `repository:tag` or `repository@sha256:…` (OCI distribution spec, names).
pub(super) fn is_reference(text: &str) -> bool {
    let (repository, tag) = match text.split_once('@') {
        Some((repository, digest)) => (repository, digest.parse::<model::Digest>().is_ok()),
        None => match text.rsplit_once(':') {
            Some((repository, tag)) => {
                let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
                (repository, (1..=128).contains(&tag.len()) && tag.chars().all(plain))
            }
            None => return false,
        },
    };
    let part = |p: &str| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
        !p.is_empty() && p.chars().all(plain) && p.starts_with(|c: char| c.is_ascii_alphanumeric())
    };
    tag && repository.len() <= 255 && repository.split('/').all(part)
}
