//! What is wrong with apps, and what those of one node cannot share.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use model::desired::{PortName, Protocol, Virtualization};

use super::{
    APP_MAX, AppSpec, DEFAULT, DEFAULT_SUBNET, Found, MEMORY_MIN, Object, RuleSpec, TextOrSecret,
    addresses, all_apps, edges, targets,
};
use crate::objects::spec::Spec;
use crate::objects::template::Node;
use crate::objects::{Key, Kind};

impl Found<'_> {
    pub(super) fn app(&mut self, key: &Key, spec: &AppSpec) {
        if spec.device.names.is_empty() && spec.device.matching.is_none() {
            self.say(key, "spec.device", "names no device; \"*\" is every device");
        }
        for name in spec.device.names.iter().filter(|n| *n != "*") {
            self.refer(key, "spec.device", Kind::Device, name);
        }
        self.source(key, &spec.image, &spec.datastore);
        if spec.cpus == 0 {
            self.say(key, "spec.cpus", "an app needs at least 1 processor");
        }
        // The wire counts KiB in 32 bits.
        let too_much = |b: model::Bytes| b.0.div_ceil(1024) > u64::from(u32::MAX);
        if spec.memory.0 < MEMORY_MIN {
            self.say(key, "spec.memory", format!("an app needs at least {MEMORY_MIN}"));
        } else if too_much(spec.memory.0) {
            self.say(key, "spec.memory", "is more than 4 TiB");
        }
        if spec.placement.vmm_memory.is_some_and(|m| too_much(m.0)) {
            self.say(key, "spec.placement.vmm_memory", "is more than 4 TiB");
        }
        for (at, used) in spec.network.iter().enumerate() {
            let name = used.name();
            self.refer(key, format!("spec.network[{at}]"), Kind::Network, name);
            if let (Some(address), Some(subnet)) = (used.address(), self.subnet_of(name)) {
                let not_a_host = address == subnet.network() || address == subnet.broadcast();
                let text = if !subnet.contains(&address) {
                    Some(format!("{address} lies outside {subnet}"))
                } else if not_a_host || self.gateway_of(name, subnet) == address {
                    Some(format!("{address} is the gateway of {subnet}, or no host of it"))
                } else {
                    None
                };
                if let Some(text) = text {
                    self.say(key, format!("spec.network[{at}].address"), text);
                }
            }
            let (vlan, _, _) = used.link();
            self.vlan(key, format!("spec.network[{at}].vlan"), vlan);
            if vlan.is_some() && self.subnet_of(name).is_some() {
                let text = format!("Network {name} is no switch");
                self.say(key, format!("spec.network[{at}].vlan"), text);
            }
            for (i, rule) in used.rules().iter().enumerate() {
                self.rule(key, &format!("spec.network[{at}].rules[{i}]"), rule);
            }
        }
        if !spec.ports.is_empty() && spec.network.iter().next().is_none() {
            self.say(key, "spec.ports", "an app without a network has no ports");
        }
        for (at, rule) in spec.rules.iter().enumerate() {
            self.rule(key, &format!("spec.rules[{at}]"), rule);
        }
        let (mut mounts, mut volumes) = (BTreeSet::new(), BTreeSet::new());
        for (at, used) in spec.volumes.iter().enumerate() {
            self.refer(key, format!("spec.volumes[{at}].volume"), Kind::Volume, &used.volume);
            let field = format!("spec.volumes[{at}].mount");
            let odd = |part: &str| part.is_empty() || part == ".." || part == ".";
            let below = used.mount.strip_prefix('/');
            if below.is_none_or(|path| path.split('/').any(odd)) {
                self.say(key, &field, format!("{:?} is no folder below /", used.mount));
            }
            if !mounts.insert(&used.mount) {
                self.say(key, &field, format!("two volumes at {}", used.mount));
            }
            if !volumes.insert(&used.volume) {
                let text = format!("{} is there already: an app has a volume once", used.volume);
                self.say(key, format!("spec.volumes[{at}].volume"), text);
            }
        }
        for (name, value) in &spec.environment {
            if name.is_empty() || name.contains(['=', '\0', '\n']) || name.trim() != name {
                self.say(key, "spec.environment", format!("{name:?} is no name of a variable"));
            } else if name.starts_with('#') || value.contains(['\0', '\n', '\r']) {
                // The wire has one variable a line, and comments.
                let text = "must be one line, and its name no comment";
                self.say(key, format!("spec.environment.{name}"), text);
            } else if value.trim_end() != value {
                let text = "ends with blanks, which a node does not see";
                self.say(key, format!("spec.environment.{name}"), text);
            }
        }
        self.user_data(key, spec);
        self.machine(key, spec);
    }

    fn user_data(&mut self, key: &Key, spec: &AppSpec) {
        self.text(key, "spec.user_data", spec.user_data.as_ref());
        if spec.user_data.is_some() && !spec.environment.is_empty() {
            let text = "an app has user_data or an environment: they travel in one place";
            self.say(key, "spec.user_data", text);
        }
        if let Some(TextOrSecret::Text(text)) = &spec.user_data
            && spec.virtualization == Virtualization::Container
            && !model::desired::is_cloud_init(text)
        {
            let text = "a container takes #cloud-config, a script, or a secret; KEY=VALUE belongs \
                        to environment";
            self.say(key, "spec.user_data", text);
        }
        if spec.cloud_init_version > 0 && spec.user_data.is_none() {
            self.say(key, "spec.cloud_init_version", "there is no user_data");
        }
        let data = match &spec.user_data {
            Some(TextOrSecret::Text(text)) => text.len(),
            Some(TextOrSecret::Secret(secret)) => self.length(secret).unwrap_or(0),
            None => spec.environment.iter().map(|(k, v)| k.len() + v.len() + 2).sum(),
        };
        let rest = serde_json::to_string(&(&spec.network, &spec.rules, &spec.ports));
        let size = data.div_ceil(3) * 4 + rest.map_or(0, |r| r.len());
        if size > APP_MAX {
            let text = format!(
                "with its rules it takes {size} bytes, and devices take {APP_MAX} of an app"
            );
            self.say(key, "spec.user_data", text);
        }
    }

    fn machine(&mut self, key: &Key, spec: &AppSpec) {
        let container = spec.virtualization == Virtualization::Container;
        if container && spec.vm.is_some() {
            self.say(key, "spec.vm", "a container has none; set virtualization: vm");
        }
        if spec.service && !container {
            self.say(key, "spec.service", "only a container can be one");
        }
        if let Some(vm) = &spec.vm {
            let resolution = vm.resolution.split_once('x');
            let number = |t: &str| t.parse::<u16>().is_ok_and(|n| n > 0);
            let fits = resolution.is_some_and(|(w, h)| number(w) && number(h));
            if !vm.resolution.is_empty() && !fits {
                self.say(key, "spec.vm.resolution", "write WIDTHxHEIGHT, as 1024x768");
            }
            if let Some(vnc) = &vm.vnc {
                // TCP ports 5900 to 5999 are for viewers.
                if vnc.display > 99 {
                    self.say(key, "spec.vm.vnc.display", "use 0 to 99");
                }
                self.secret(key, "spec.vm.vnc.password", vnc.password.as_ref());
            }
        }
        for (at, given) in spec.hardware.iter().enumerate() {
            let field = |name: &str| format!("spec.hardware[{at}].{name}");
            if given.name.is_empty() {
                self.say(key, field("name"), "is empty");
            }
            if given.vlan.is_some() && given.function.is_none() {
                self.say(key, field("vlan"), "only a function of a divided card has one");
            }
            self.vlan(key, field("vlan"), given.vlan);
        }
        if let Some(snapshots) = &spec.snapshots {
            let ids: BTreeSet<&String> = snapshots.wanted.iter().map(|s| &s.id).collect();
            if ids.len() < snapshots.wanted.len() || ids.iter().any(|id| id.is_empty()) {
                self.say(key, "spec.snapshots.wanted", "each needs an id of its own");
            }
            if snapshots.wanted.len() > snapshots.max as usize {
                let text = format!("{} are wanted", snapshots.wanted.len());
                self.say(key, "spec.snapshots.max", text);
            }
        }
        for (at, profile) in spec.profiles.iter().enumerate() {
            if profile.is_empty() {
                self.say(key, format!("spec.profiles[{at}]"), "is empty");
            }
        }
    }

    fn rule(&mut self, key: &Key, field: &str, rule: &RuleSpec) {
        let say = |found: &mut Self, name: &str, text: &str| {
            found.say(key, format!("{field}.{name}"), text);
        };
        let ports = rule.local_port.is_some() || rule.remote_port.is_some();
        if ports && !matches!(rule.protocol, Some(Protocol::Tcp | Protocol::Udp)) {
            say(self, "protocol", "a port needs protocol tcp or udp beside it");
        }
        for (name, port) in [
            ("local_port", rule.local_port),
            ("remote_port", rule.remote_port),
            ("port_map", rule.port_map),
        ] {
            if port == Some(0) {
                say(self, name, "use 1 to 65535");
            }
        }
        let actions = [rule.drop, rule.limit.is_some(), rule.port_map.is_some()];
        if actions.into_iter().filter(|a| *a).count() > 1 {
            say(self, "drop", "a rule has one of drop, limit and port_map");
        }
        if rule.port_map.is_some() && rule.local_port.is_none() {
            say(self, "local_port", "a port map needs the port at the node's edge");
        }
        if rule.limit.is_some_and(|l| l.rate == 0) {
            say(self, "limit.rate", "use 1 or more");
        }
        if rule.host.as_ref().is_some_and(|h| h.trim().is_empty() || h.trim() != h) {
            say(self, "host", "is no host name");
        }
        if rule.adapter.as_ref().is_some_and(|a| PortName::new(a).is_none()) {
            say(self, "adapter", "is no label of a port");
        }
        let silent = rule.ip.is_none()
            && rule.host.is_none()
            && rule.protocol.is_none()
            && rule.adapter.is_none();
        if silent {
            say(self, "ip", "a rule says what it is about: ip, host, protocol or adapter");
        }
    }

    /// The addresses of a network; `None` if it has none or does not exist.
    fn subnet_of(&self, name: &str) -> Option<Ipv4Net> {
        match self.objects.get(&Key::new(Kind::Network, name)).map(|o| &o.spec) {
            Some(Spec::Network(network)) => network.subnet,
            None if name == DEFAULT => Some(DEFAULT_SUBNET),
            _ => None,
        }
    }

    /// The address that nodes themselves have in a network with this subnet.
    fn gateway_of(&self, name: &str, subnet: Ipv4Net) -> Ipv4Addr {
        match self.objects.get(&Key::new(Kind::Network, name)).map(|o| &o.spec) {
            Some(Spec::Network(network)) => addresses(subnet.trunc(), network).0,
            _ => Ipv4Addr::from(u32::from(subnet.network()).saturating_add(1)),
        }
    }

    /// What the apps of one node cannot share, and what it lacks for them.
    pub(super) fn on_node(&mut self, node: &Node<'_>) {
        let device = &node.object.key;
        let here: Vec<(&Object, &AppSpec)> =
            all_apps(self.objects).filter(|(_, app)| targets(app, node)).collect();
        for (object, app) in &here {
            if self.with_variables.contains(&object.key) {
                self.flaws.extend(node.app(&object.key, app).2);
            }
            self.hardware_on(node, &object.key, app);
        }
        let mut used: BTreeMap<&str, Ipv4Net> = BTreeMap::new();
        for name in here.iter().flat_map(|(_, app)| app.network.iter()).map(|n| n.name()) {
            used.extend(self.subnet_of(name).map(|s| (name, s)));
        }
        let mut taken: BTreeMap<(bool, u16), &Key> = BTreeMap::new();
        for (object, app) in &here {
            for (edge, field) in edges(app) {
                let Some(first) = taken.insert(edge, &object.key) else { continue };
                let text = format!("port {} of {device} already leads to {first}", edge.1);
                self.say(&object.key, field, text);
            }
        }
        let mut addresses: BTreeMap<(&str, Ipv4Addr), &Key> = BTreeMap::new();
        for (object, app) in &here {
            for (at, used) in app.network.iter().enumerate() {
                let Some(address) = used.address() else { continue };
                let Some(first) = addresses.insert((used.name(), address), &object.key) else {
                    continue;
                };
                let text = format!("{address} on {device} is already that of {first}");
                self.say(&object.key, format!("spec.network[{at}].address"), text);
            }
        }
        let all: Vec<(&str, Ipv4Net)> = used.into_iter().collect();
        for (at, (name, subnet)) in all.iter().enumerate() {
            for (other, theirs) in all.iter().take(at) {
                if subnet.contains(theirs) || theirs.contains(subnet) {
                    let text = format!("shares addresses with Network {other} on {device}");
                    self.say(&Key::new(Kind::Network, *name), "spec.subnet", text);
                }
            }
        }
    }

    /// Hardware that an app gets must be in the node's model, and goes to one app.
    fn hardware_on(&mut self, node: &Node<'_>, key: &Key, app: &AppSpec) {
        if app.hardware.is_empty() {
            return;
        }
        let Some(name) = &node.spec.hardware else {
            let text = format!("{} has no hardware that could be given", node.object.key);
            return self.say(key, "spec.hardware", text);
        };
        let model = self.objects.get(&Key::new(Kind::Hardware, name)).map(|o| &o.spec);
        let Some(Spec::Hardware(model)) = model else { return };
        for (at, given) in app.hardware.iter().enumerate() {
            let group = |io: &crate::objects::IoSpec| io.group.clone().unwrap_or(io.label.clone());
            let there = model.io.iter().any(|io| group(io) == given.name || io.label == given.name);
            if !there {
                let text = format!("Hardware {name} has no group or label {}", given.name);
                self.say(key, format!("spec.hardware[{at}].name"), text);
            }
            let others = all_apps(self.objects).filter(|(o, a)| o.key < *key && targets(a, node));
            let shared = others.into_iter().find(|(_, a)| {
                a.hardware.iter().any(|g| g.name == given.name && g.function == given.function)
            });
            if let Some((other, _)) = shared {
                let text = format!("goes to {} on {} already", other.key, node.object.key);
                self.say(key, format!("spec.hardware[{at}].name"), text);
            }
        }
    }
}
