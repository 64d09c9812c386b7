//! What is wrong in a set of objects: ranges, references, conflicts.

use std::collections::{BTreeMap, BTreeSet};

use api::convert::items::check_item;
use ipnet::Ipv4Net;
use model::Bytes;
use model::desired::{PortName, Protocol};
use serde::{Deserialize, Serialize};

use super::compile::{DEFAULT_SUBNET, addresses, targets, with_tag};
use super::spec::{
    AddressSpec, AppSpec, DatastoreSpec, DeviceSpec, ImageSpec, NetworkSpec, NetworkType, Spec,
    VolumeSpec,
};
use super::{DEFAULT, Key, Kind, LOCAL, Objects, apps};

/// Something wrong with an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Flaw {
    /// Which object.
    pub key: Key,
    /// Which field, as a path from the top of the document.
    pub field: String,
    /// What is wrong with it.
    pub text: String,
    /// It refers to an object that does not exist; it heals when that comes.
    pub missing: bool,
}

impl std::fmt::Display for Flaw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}: {}", self.key, self.field, self.text)
    }
}

/// Everything wrong in these objects, in the order of their keys.
pub fn check(objects: &Objects) -> Vec<Flaw> {
    let mut found = Found { objects, flaws: Vec::new() };
    for (key, object) in objects {
        match &object.spec {
            Spec::Device(spec) => found.device(key, spec),
            Spec::Datastore(spec) => found.datastore(key, spec),
            Spec::Image(spec) => found.image(key, spec),
            Spec::Volume(spec) => found.volume(key, spec),
            Spec::Network(spec) => found.network(key, spec),
            Spec::App(spec) => found.app(key, spec),
        }
    }
    for key in objects.keys().filter(|k| k.kind == Kind::Device) {
        found.shared_ports(key);
        found.overlaps(key);
    }
    found.flaws
}

/// EVE's own minimum for IPv6; devices refuse less.
const MTU_MIN: u16 = 1280;
/// Less does not hold a process.
const MEMORY_MIN: Bytes = Bytes::mib(4);

struct Found<'a> {
    objects: &'a Objects,
    flaws: Vec<Flaw>,
}

impl Found<'_> {
    fn say(&mut self, key: &Key, field: impl Into<String>, text: impl Into<String>) {
        let (field, text) = (field.into(), text.into());
        self.flaws.push(Flaw { key: key.clone(), field, text, missing: false });
    }

    /// Says so if the object that `field` names does not exist.
    fn refer(&mut self, key: &Key, field: impl Into<String>, kind: Kind, name: &str) {
        let to = Key::new(kind, name);
        let built_in = matches!((kind, name), (Kind::Datastore, LOCAL) | (Kind::Network, DEFAULT));
        if built_in || self.objects.contains_key(&to) {
            return;
        }
        let have: Vec<&str> =
            self.objects.keys().filter(|k| k.kind == kind).map(|k| k.name.as_str()).collect();
        let have = if have.is_empty() { "there is none".into() } else { have.join(", ") };
        let text = format!("there is no {to} (known: {have})");
        self.flaws.push(Flaw { key: key.clone(), field: field.into(), text, missing: true });
    }

    fn device(&mut self, key: &Key, spec: &DeviceSpec) {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        if spec.soft_serial.len() > 256 || !spec.soft_serial.chars().all(plain) {
            self.say(key, "spec.soft_serial", "use up to 256 letters, digits, `-` and `_`");
        }
        if spec.serial.len() > 256 {
            self.say(key, "spec.serial", "is longer than 256 bytes");
        }
        let serials = [("serial", &spec.serial), ("soft_serial", &spec.soft_serial)];
        for (other, object) in self.objects.range(..key.clone()) {
            let Spec::Device(theirs) = &object.spec else { continue };
            for (field, mine) in serials {
                if !mine.is_empty() && [&theirs.serial, &theirs.soft_serial].contains(&mine) {
                    let text = format!("{mine:?} is already that of {other}");
                    self.say(key, format!("spec.{field}"), text);
                }
            }
        }
        let mut labels = BTreeSet::new();
        for (at, port) in spec.ports.iter().enumerate() {
            let field = |name: &str| format!("spec.ports[{at}].{name}");
            if PortName::new(&port.name).is_none() {
                self.say(key, field("name"), "use 1 to 64 letters, digits, `.`, `_` and `-`");
            }
            if !labels.insert(&port.name) {
                self.say(key, field("name"), format!("there are two ports {}", port.name));
            }
            if ["all", "uplink", "freeuplink"].contains(&port.name.as_str()) {
                self.say(key, field("name"), format!("{} is reserved", port.name));
            }
            self.mtu(key, field("mtu"), port.mtu);
            match &port.address {
                AddressSpec::Static { fixed } => {
                    let outside = |g: &std::net::Ipv4Addr| !fixed.address.contains(g);
                    if fixed.gateway.as_ref().is_some_and(outside) {
                        let text = format!("lies outside {}", fixed.address.trunc());
                        self.say(key, field("address.static.gateway"), text);
                    }
                }
                AddressSpec::None if port.management => {
                    self.say(key, field("address"), "a management port needs an address");
                }
                AddressSpec::None | AddressSpec::Dhcp => {}
            }
        }
        for (name, value) in &spec.settings {
            if let Err(text) = check_item(name, value) {
                self.say(key, format!("spec.settings.{name}"), text);
            }
        }
        if !spec.ports.is_empty() && !spec.ports.iter().any(|p| p.management) {
            self.say(key, "spec.ports", "no port is a management port: the node would be cut off");
        }
    }

    fn datastore(&mut self, key: &Key, spec: &DatastoreSpec) {
        if spec.host.is_empty() || spec.host.contains(['/', ' ', '@']) {
            let text =
                format!("{:?} is no host; write HOST or HOST:PORT, without a scheme", spec.host);
            self.say(key, "spec.host", text);
        }
    }

    fn image(&mut self, key: &Key, spec: &ImageSpec) {
        for name in &spec.datastore.0 {
            self.refer(key, "spec.datastore", Kind::Datastore, name);
        }
        if spec.datastore.0.is_empty() {
            self.say(key, "spec.datastore", "names no datastore");
        }
        if spec.path.is_empty() || spec.path.contains("://") {
            self.say(key, "spec.path", "write the path in the datastore, as in `hello:latest`");
        }
    }

    fn volume(&mut self, key: &Key, spec: &VolumeSpec) {
        match &spec.image {
            Some(image) => self.refer(key, "spec.image", Kind::Image, image),
            None if spec.size.is_none_or(|s| s.0.0 == 0) => {
                self.say(key, "spec.size", "an empty volume needs a size");
            }
            None => {}
        }
    }

    fn network(&mut self, key: &Key, spec: &NetworkSpec) {
        self.mtu(key, "spec.mtu".into(), spec.mtu);
        if !spec.port.is_empty() && PortName::new(&spec.port).is_none() {
            self.say(key, "spec.port", format!("{:?} is no label of a port", spec.port));
        }
        match (spec.kind, spec.subnet) {
            (NetworkType::Switch, Some(_)) => {
                self.say(key, "spec.subnet", "a switch network has no addresses of its own");
            }
            (NetworkType::Switch, None) => {}
            (NetworkType::Local, None) => {
                self.say(key, "spec.subnet", "a local network needs a subnet, as in 10.1.0.0/24");
            }
            (NetworkType::Local, Some(subnet)) => self.subnet(key, spec, subnet),
        }
    }

    fn subnet(&mut self, key: &Key, spec: &NetworkSpec, subnet: Ipv4Net) {
        if subnet.prefix_len() > 30 || subnet.prefix_len() < 8 {
            let text = format!("{subnet}: use a prefix length from 8 to 30");
            return self.say(key, "spec.subnet", text);
        }
        let (gateway, range) = addresses(subnet.trunc(), spec);
        let inside = |a: std::net::Ipv4Addr| {
            subnet.contains(&a) && a != subnet.network() && a != subnet.broadcast()
        };
        if !inside(gateway) {
            self.say(key, "spec.gateway", format!("{gateway} is no host of {}", subnet.trunc()));
        }
        if !inside(range.start) || !inside(range.end) || range.start > range.end {
            let text =
                format!("{} to {} is no range of {}", range.start, range.end, subnet.trunc());
            self.say(key, "spec.dhcp", text);
        }
        if (range.start..=range.end).contains(&gateway) {
            self.say(key, "spec.dhcp", format!("holds the gateway, {gateway}"));
        }
    }

    fn app(&mut self, key: &Key, spec: &AppSpec) {
        if spec.device.0.is_empty() {
            self.say(key, "spec.device", "names no device; \"*\" is every device");
        }
        for name in spec.device.0.iter().filter(|n| *n != "*") {
            self.refer(key, "spec.device", Kind::Device, name);
        }
        if !self.objects.contains_key(&Key::new(Kind::Image, &spec.image)) {
            self.refer(key, "spec.datastore", Kind::Datastore, &spec.datastore);
            if !is_reference(&with_tag(&spec.image)) {
                let text = format!("{:?} is no `repository:tag`", spec.image);
                self.say(key, "spec.image", text);
            }
        }
        if spec.cpus == 0 {
            self.say(key, "spec.cpus", "an app needs at least 1 processor");
        }
        if spec.memory.0 < MEMORY_MIN {
            self.say(key, "spec.memory", format!("an app needs at least {MEMORY_MIN}"));
        }
        for (at, used) in spec.network.iter().enumerate() {
            let name = used.name();
            self.refer(key, format!("spec.network[{at}]"), Kind::Network, name);
            let subnet = match self.objects.get(&Key::new(Kind::Network, name)).map(|o| &o.spec) {
                Some(Spec::Network(network)) => network.subnet,
                None if name == DEFAULT => Some(DEFAULT_SUBNET),
                _ => None,
            };
            if let (Some(address), Some(subnet)) = (used.address(), subnet)
                && !subnet.contains(&address)
            {
                let text = format!("{address} lies outside {subnet}");
                self.say(key, format!("spec.network[{at}].address"), text);
            }
        }
        if !spec.ports.is_empty() && spec.network.iter().next().is_none() {
            self.say(key, "spec.ports", "an app without a network has no ports");
        }
        let mut mounts = BTreeSet::new();
        for (at, used) in spec.volumes.iter().enumerate() {
            self.refer(key, format!("spec.volumes[{at}].volume"), Kind::Volume, &used.volume);
            let field = format!("spec.volumes[{at}].mount");
            let odd = |part: &str| part.is_empty() || part == ".." || part == ".";
            if !used.mount.starts_with('/') || used.mount[1..].split('/').any(odd) {
                self.say(key, &field, format!("{:?} is no folder below /", used.mount));
            }
            if !mounts.insert(&used.mount) {
                self.say(key, &field, format!("two volumes at {}", used.mount));
            }
        }
        for name in spec.environment.keys() {
            if name.is_empty() || name.contains(['=', '\0']) {
                self.say(key, "spec.environment", format!("{name:?} is no name of a variable"));
            }
        }
    }

    fn mtu(&mut self, key: &Key, field: String, mtu: Option<u16>) {
        if mtu.is_some_and(|mtu| mtu < MTU_MIN) {
            self.say(key, field, format!("use {MTU_MIN} to 65535"));
        }
    }

    /// One port of a node leads to one app.
    fn shared_ports(&mut self, device: &Key) {
        let mut taken: BTreeMap<(bool, u16), &Key> = BTreeMap::new();
        for (object, app) in apps(self.objects).filter(|(_, app)| targets(app, &device.name)) {
            for (at, map) in app.ports.iter().enumerate() {
                let edge = (map.protocol == Protocol::Udp, map.edge);
                if let Some(first) = taken.insert(edge, &object.key) {
                    let text = format!("port {} of {device} already leads to {first}", map.edge);
                    self.flaws.push(Flaw {
                        key: object.key.clone(),
                        field: format!("spec.ports[{at}]"),
                        text,
                        missing: false,
                    });
                }
            }
        }
    }

    /// Networks of one node may not share addresses.
    fn overlaps(&mut self, device: &Key) {
        let mut used: BTreeMap<&str, Ipv4Net> = BTreeMap::new();
        for (_, app) in apps(self.objects).filter(|(_, app)| targets(app, &device.name)) {
            for name in app.network.iter().map(super::NetworkUse::name) {
                let spec = self.objects.get(&Key::new(Kind::Network, name)).map(|o| &o.spec);
                let subnet = match spec {
                    Some(Spec::Network(network)) => network.subnet,
                    _ if name == DEFAULT => Some(DEFAULT_SUBNET),
                    _ => None,
                };
                used.extend(subnet.map(|s| (name, s)));
            }
        }
        let all: Vec<(&str, Ipv4Net)> = used.into_iter().collect();
        for (at, (name, subnet)) in all.iter().enumerate() {
            for (other, theirs) in &all[..at] {
                if subnet.contains(theirs) || theirs.contains(subnet) {
                    let text = format!("shares addresses with Network {other} on {device}");
                    self.say(&Key::new(Kind::Network, *name), "spec.subnet", text);
                }
            }
        }
    }
}

/// Whether a text is `repository:tag` or `repository@sha256:…` (OCI distribution spec, names).
fn is_reference(text: &str) -> bool {
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
