//! Apps: what they are on one node.

use std::time::Duration;

use ipnet::Ipv4Net;
use model::desired::{
    Action, App, AppInterface, AppOptions, Assigned, Direction, HardwareKind, Machine, Match,
    Origin, PortName, Protocol, Rule, Snapshot, Snapshots, UserData, VirtualFunction,
    Virtualization, Vnc, Volume, VolumeRef, VolumeTarget,
};
use model::{Bytes, Id, Secret};

use super::{Compiling, content_of};
use crate::objects::spec::{AppSpec, AssignedSpec, NetworkUse, Outbound, RuleSpec, TextOrSecret};
use crate::objects::template::fnv;
use crate::objects::{Key, Kind, Object};

impl Compiling<'_> {
    /// Adds an app and what it needs. `mark` differs whenever a variable it uses has another value.
    pub(super) fn app(&mut self, object: &Object, app: &AppSpec, mark: u32) {
        let id = self.id(object.uid, "app");
        let root = self.id(object.uid, "root");
        let what = content_of(self.objects, app, object.pinned);
        let content = self.content(object.uid, &object.key.name, &app.image, &what);
        let (restart, purge) = self.target.added.get(&object.key).copied().unwrap_or_default();
        let purge = object.purge.wrapping_add(purge);
        let generation = u64::from(purge);
        self.told.volumes.insert(
            Id::new(root),
            Volume {
                id: Id::new(root),
                generation,
                name: format!("{}-root", object.key.name),
                origin: Origin::Content(Id::new(content)),
                max_size: Some(app.disk.0).filter(|b| b.0 > 0),
                readonly: false,
                clear_text: false,
                target: VolumeTarget::Disk,
            },
        );
        let mut volumes = vec![VolumeRef { volume: Id::new(root), generation, mount: "/".into() }];
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
            let (access_vlan, discover, order) = used.link();
            interfaces.push(AppInterface {
                name: format!("eth{at}"),
                network,
                mac: used.mac(),
                address: used.address(),
                rules: rules(app, used, at == 0),
                access_vlan,
                discover,
                order,
            });
        }
        let mut secrets = mark;
        for name in secret_names(app) {
            let generation = self.generation(Kind::Secret, name);
            depends += generation;
            secrets = secrets.wrapping_add(fnv(format!("{name} {generation}").as_bytes()));
        }
        // A device acts on any difference: other values of variables and secrets are one.
        let restart = object.restart.wrapping_add(restart).wrapping_add(secrets);
        let environment: Vec<String> =
            app.environment.iter().map(|(k, v)| format!("{k}={v}")).collect();
        // A virtual machine gets the lines as they are, as user data.
        let machine_reads = app.virtualization == Virtualization::Vm;
        let placement = &app.placement;
        let machine = app.vm.clone().unwrap_or_default();
        self.told.apps.insert(
            Id::new(id),
            App {
                id: Id::new(id),
                // What it depends on counts too: some devices look again at an app that failed for
                // want of a network only when the app's own bytes change. And a device says back
                // which version it has: a restored controller learns the counters from it.
                version: format!("{}.{depends}.{restart}.{purge}", object.generation),
                name: object.key.name.clone(),
                activate: app.active,
                vcpus: app.cpus,
                memory: whole_kib(app.memory.0),
                virtualization: app.virtualization,
                volumes,
                interfaces,
                restart,
                purge,
                environment: if machine_reads { Vec::new() } else { environment.clone() },
                user_data: if machine_reads && !environment.is_empty() {
                    Some(UserData::Plain(environment.join("\n")))
                } else {
                    self.user_data(app)
                },
                start_delay: Duration::from_secs(app.start_delay_seconds.into()),
                disable_logs: !app.logs,
                machine: Machine {
                    mode: machine.mode,
                    boot: machine.boot,
                    boot_order: machine.boot_order,
                    vnc: machine.vnc.as_ref().map(|vnc| Vnc {
                        display: vnc.display,
                        password: vnc.password.as_ref().and_then(|s| self.secret(s)),
                    }),
                    vnc_shim: placement.vnc_shim,
                    tpm: machine.tpm,
                    pin_cpus: placement.pin_cpus,
                    vmm_memory: placement.vmm_memory.map(|s| whole_kib(s.0)).filter(|b| b.0 > 0),
                    enforce_order: placement.enforce_order,
                    oem_licence: machine.oem_licence,
                    resolution: machine.resolution.clone(),
                },
                hardware: app.hardware.iter().map(|a| self.assigned(a)).collect(),
                options: AppOptions {
                    profiles: app.profiles.clone(),
                    metadata: app.metadata,
                    cloud_init_version: app.cloud_init_version,
                    remote_console: app.remote_console,
                    stats_address: app.stats_address.map(|a| a.to_string()).unwrap_or_default(),
                    service: app.service,
                    docker: app.docker,
                    snapshots: app.snapshots.as_ref().map(|s| Snapshots {
                        max: s.max,
                        wanted: s
                            .wanted
                            .iter()
                            .map(|w| Snapshot { id: w.id.clone(), when: w.when })
                            .collect(),
                        active: s.active.clone(),
                        rollback: s.rollback,
                    }),
                },
            },
        );
    }

    fn user_data(&self, app: &AppSpec) -> Option<UserData> {
        match app.user_data.as_ref()? {
            TextOrSecret::Text(text) => (!text.is_empty()).then(|| UserData::Plain(text.clone())),
            TextOrSecret::Secret(secret) => {
                self.secret(secret).filter(|s| *s != Secret::default()).map(UserData::Sealed)
            }
        }
    }

    /// The kind of hardware follows from the node's model where nothing is said.
    fn assigned(&self, spec: &AssignedSpec) -> Assigned {
        let mut hardware = self.told.hardware.iter();
        let found = hardware.find(|h| h.group == spec.name || h.label == spec.name);
        let kind = match (spec.kind, spec.function) {
            (Some(kind), _) => kind,
            (None, Some(_)) => HardwareKind::EthernetVf,
            (None, None) => found.map_or(HardwareKind::Other, |h| h.kind),
        };
        let function = spec.function.filter(|_| kind == HardwareKind::EthernetVf);
        let function = function.map(|index| VirtualFunction { index, mac: None, vlan: spec.vlan });
        Assigned { kind, name: spec.name.clone(), function, order: spec.order }
    }
}

/// The wire counts memory in KiB.
fn whole_kib(bytes: Bytes) -> Bytes {
    Bytes(bytes.0.div_ceil(1024).saturating_mul(1024))
}

/// The secrets that an app itself names.
fn secret_names(app: &AppSpec) -> impl Iterator<Item = &str> {
    let user_data = app.user_data.as_ref().and_then(TextOrSecret::secret);
    let vnc = app.vm.as_ref().and_then(|vm| vm.vnc.as_ref()?.password.as_ref());
    user_data.into_iter().chain(vnc).map(|s| s.secret.as_str())
}

fn rules(app: &AppSpec, used: &NetworkUse, first: bool) -> Vec<Rule> {
    let anywhere = Rule {
        id: 0,
        matches: vec![Match::Ip(Ipv4Net::default().into())],
        action: Action::Allow,
        direction: Direction::Both,
    };
    let outbound = (app.outbound == Outbound::Allow).then_some(anywhere);
    let maps = app.ports.iter().filter(|_| first).map(|map| Rule {
        id: 0,
        matches: vec![Match::Protocol(map.protocol), Match::LocalPort(map.edge)],
        action: Action::PortMap { app_port: map.app },
        direction: Direction::Both,
    });
    let stated = app.rules.iter().chain(used.rules()).map(rule);
    // The first rule that fits decides: what a person states comes before what is open to all.
    let all = stated.chain(outbound).chain(maps);
    all.zip(1..).map(|(rule, id)| Rule { id, ..rule }).collect()
}

fn rule(spec: &RuleSpec) -> Rule {
    let mut matches = Vec::new();
    matches.extend(spec.ip.map(Match::Ip));
    matches.extend(spec.host.clone().map(Match::Host));
    matches.extend(spec.protocol.map(Match::Protocol));
    matches.extend(spec.local_port.map(Match::LocalPort));
    matches.extend(spec.remote_port.map(Match::RemotePort));
    matches.extend(spec.adapter.as_deref().and_then(PortName::new).map(Match::Adapter));
    let action = match (spec.drop, spec.limit, spec.port_map) {
        (true, _, _) => Action::Drop,
        (_, Some(limit), _) => {
            Action::Limit { rate: limit.rate, per: limit.per.duration(), burst: limit.burst }
        }
        (_, _, Some(app_port)) => Action::PortMap { app_port },
        _ => Action::Allow,
    };
    Rule { id: 0, matches, action, direction: spec.direction.unwrap_or(Direction::Both) }
}

/// Ports of the node's edge that an app takes: protocol is UDP, number, field.
pub(in crate::objects) fn edges(app: &AppSpec) -> Vec<((bool, u16), String)> {
    let maps =
        app.ports.iter().enumerate().map(|(at, map)| {
            ((map.protocol == Protocol::Udp, map.edge), format!("spec.ports[{at}]"))
        });
    let own = app.rules.iter().enumerate().map(|(at, r)| (r, format!("spec.rules[{at}]")));
    let used = app.network.iter().enumerate().flat_map(|(at, n)| {
        n.rules()
            .iter()
            .enumerate()
            .map(move |(i, r)| (r, format!("spec.network[{at}].rules[{i}]")))
    });
    let stated = own.chain(used).filter_map(|(r, field)| {
        r.port_map?;
        Some(((r.protocol == Some(Protocol::Udp), r.local_port?), field))
    });
    maps.chain(stated).collect()
}
