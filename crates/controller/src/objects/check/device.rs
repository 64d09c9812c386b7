//! What is wrong with devices: ports, hardware, labels, and what two of one fleet cannot share.

use std::collections::{BTreeMap, BTreeSet};

use api::convert::items::check_item;
use model::desired::{HardwareKind, PortName, RESERVED_LABELS, Usage, WifiScheme};

use super::{Found, is_interface, is_label, is_variable};
use crate::objects::compile::lower_labels;
use crate::objects::query::{LOCATION, coordinates};
use crate::objects::spec::{
    AccessPointSpec, AddressSpec, DeviceSpec, HardwareSpec, PortSpec, Spec,
};
use crate::objects::template::Node;
use crate::objects::{Key, Kind};

/// What the kernel would not take for a bond of ours.
const BOND0: &str = "bond0";

impl Found<'_> {
    pub(super) fn device(&mut self, key: &Key, node: &Node<'_>) {
        let spec = &*node.spec;
        self.flaws.extend(node.flaws.iter().cloned());
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        if spec.soft_serial.len() > 256 || !spec.soft_serial.chars().all(plain) {
            self.say(key, "spec.soft_serial", "use up to 256 letters, digits, `-` and `_`");
        }
        if spec.serial.len() > 256 {
            self.say(key, "spec.serial", "is longer than 256 bytes");
        }
        for (kind, field, name) in [
            (Kind::Template, "spec.template", &spec.template),
            (Kind::Project, "spec.project", &spec.project),
            (Kind::Hardware, "spec.hardware", &spec.hardware),
            (Kind::BaseOs, "spec.base_os", &spec.base_os),
        ] {
            if let Some(name) = name {
                self.refer(key, field, kind, name);
            }
        }
        for (name, value) in &spec.labels {
            let stands = name == LOCATION && coordinates(value).is_some();
            if !is_label(name) || !(is_label(value) || stands) {
                let text = if name == LOCATION {
                    "write degrees north and east, as 52.52,13.40"
                } else {
                    "use 1 to 63 letters, digits, `-`, `_`, `.`, `/`"
                };
                self.say(key, format!("spec.labels.{name}"), text);
            }
        }
        for name in spec.variables.keys().filter(|n| !is_variable(n)) {
            let text = "use letters, digits, `_` and `-`";
            self.say(key, format!("spec.variables.{name}"), text);
        }
        let hardware = spec.hardware.as_ref().map(|name| Key::new(Kind::Hardware, name));
        let hardware = hardware.and_then(|key| match &self.objects.get(&key)?.spec {
            Spec::Hardware(hardware) => Some(hardware),
            _ => None,
        });
        // A model that does not exist yet says nothing of what its cards are called.
        let unknown = spec.hardware.is_some() && hardware.is_none();
        self.layers(key, spec, hardware, unknown);
        let mut labels = BTreeSet::new();
        for (at, port) in spec.ports.iter().enumerate() {
            if !labels.insert(&port.name) {
                let text = format!("there are two ports {}", port.name);
                self.say(key, format!("spec.ports[{at}].name"), text);
            }
            self.port(key, at, port, spec);
            if !unknown {
                self.below(key, at, port, spec, hardware);
            }
        }
        self.interfaces(key, spec, hardware);
        for (name, value) in &spec.settings {
            if let Err(text) = check_item(name, value) {
                self.say(key, format!("spec.settings.{name}"), text);
            }
        }
        if !spec.ports.is_empty() && !spec.ports.iter().any(|p| p.management) {
            self.say(key, "spec.ports", "no port is a management port: the node would be cut off");
        }
        if let Some(server) = &spec.local_profile_server {
            self.secret(key, "spec.local_profile_server.token", Some(&server.token));
            if server.address.is_empty() || server.address.contains(['/', ' ']) {
                let text = "write HOST or HOST:PORT";
                self.say(key, "spec.local_profile_server.address", text);
            }
        }
        if let Some(console) = &spec.local_console {
            if !["http://", "https://"].iter().any(|s| console.url.starts_with(s)) {
                self.say(key, "spec.local_console.url", "is no http or https URL");
            }
            for (at, name) in console.bundles.iter().enumerate() {
                let field = format!("spec.local_console.bundles[{at}]");
                self.refer(key, field, Kind::Datastore, name);
            }
        }
        self.pem(key, "spec.edge_view.dispatcher", &spec.edge_view.dispatcher);
    }

    /// Two devices cannot have one serial number.
    pub(super) fn serials(&mut self) {
        let mut taken: BTreeMap<&str, &Key> = BTreeMap::new();
        for (key, object) in self.objects {
            let Spec::Device(spec) = &object.spec else { continue };
            let mut mine = Vec::new();
            for (field, serial) in [("serial", &spec.serial), ("soft_serial", &spec.soft_serial)] {
                if serial.is_empty() {
                    continue;
                }
                if let Some(other) = taken.get(serial.as_str()) {
                    let text = format!("{serial:?} is already that of {other}");
                    self.say(key, format!("spec.{field}"), text);
                }
                mine.push(serial.as_str());
            }
            taken.extend(mine.into_iter().map(|s| (s, key)));
        }
    }

    fn port(&mut self, key: &Key, at: usize, port: &PortSpec, device: &DeviceSpec) {
        let field = |name: &str| format!("spec.ports[{at}].{name}");
        if PortName::new(&port.name).is_none() {
            self.say(key, field("name"), "use 1 to 64 letters, digits, `.`, `_` and `-`");
        }
        if RESERVED_LABELS.contains(&port.name.as_str()) {
            self.say(key, field("name"), format!("{} is reserved", port.name));
        }
        for label in &port.shared_labels {
            let taken = RESERVED_LABELS.contains(&label.as_str())
                || device.ports.iter().any(|p| p.name == *label);
            if taken || PortName::new(label).is_none() {
                let text = format!("{label:?} is reserved, or a port's name, or no label");
                self.say(key, field("shared_labels"), text);
            }
        }
        if let Some(name) = port.interface.as_ref().filter(|n| !is_interface(n)) {
            self.say(key, field("interface"), format!("{name:?} is no interface's name"));
        }
        self.mtu(key, field("mtu"), port.mtu);
        match &port.address {
            AddressSpec::Static { fixed } => {
                let subnet = fixed.address.trunc();
                let own = fixed.address.addr();
                // Subnets of two addresses have no others (RFC 3021).
                let all = subnet.prefix_len() < 31;
                let host = |a| !all || (a != subnet.network() && a != subnet.broadcast());
                if !host(own) || own.is_multicast() || own.is_loopback() || own.is_unspecified() {
                    let text = format!("{own} is no host of {subnet}");
                    self.say(key, field("address.static.address"), text);
                }
                match fixed.gateway {
                    Some(gateway) if !subnet.contains(&gateway) => {
                        let text = format!("lies outside {subnet}");
                        self.say(key, field("address.static.gateway"), text);
                    }
                    Some(gateway) if gateway == own || !host(gateway) => {
                        let text = format!("{gateway} is the port's own, or no host of {subnet}");
                        self.say(key, field("address.static.gateway"), text);
                    }
                    _ => {}
                }
            }
            AddressSpec::None if port.management => {
                self.say(key, field("address"), "a management port needs an address");
            }
            AddressSpec::None | AddressSpec::Dhcp => {}
        }
        if port.address != AddressSpec::Dhcp {
            for (name, said) in [("dns", !port.dns.is_empty()), ("ntp", !port.ntp.is_empty())] {
                if said {
                    self.say(key, field(name), "belongs under address.static without DHCP");
                }
            }
        }
        for (i, wifi) in port.wifi.iter().enumerate() {
            // IEEE 802.11: at most 32 bytes.
            if wifi.ssid.is_empty() || wifi.ssid.len() > 32 {
                self.say(key, field(&format!("wifi[{i}].ssid")), "use 1 to 32 bytes");
            }
            self.text(key, field(&format!("wifi[{i}].identity")), wifi.identity.as_ref());
            self.secret(key, field(&format!("wifi[{i}].password")), wifi.password.as_ref());
            if wifi.scheme != WifiScheme::Open && wifi.password.is_none() {
                let text = "a protected network needs a password; scheme: open has none";
                self.say(key, field(&format!("wifi[{i}].password")), text);
            }
            if wifi.scheme == WifiScheme::WpaEap && wifi.identity.is_none() {
                self.say(key, field(&format!("wifi[{i}].identity")), "wpa-eap needs a user");
            }
        }
        if let Some(cellular) = &port.cellular {
            self.probe(key, field("cellular.probe"), cellular.probe.as_ref());
            let mut slots = BTreeSet::new();
            for (i, point) in cellular.access_points.iter().enumerate() {
                let name = format!("cellular.access_points[{i}]");
                if !slots.insert(point.sim_slot) {
                    let text = format!("two access points for SIM slot {}", point.sim_slot);
                    self.say(key, field(&format!("{name}.sim_slot")), text);
                }
                self.access_point(key, &field(&name), point);
            }
        }
        if let Some(proxy) = &port.proxy {
            for (i, server) in proxy.servers.iter().enumerate() {
                if server.host.is_empty() || server.port == 0 {
                    let text = "a proxy needs a host and a port from 1 to 65535";
                    self.say(key, field(&format!("proxy.servers[{i}]")), text);
                }
            }
            self.pem(key, &field("proxy.trust"), &proxy.trust);
        }
        if let Some(access) = &port.access {
            self.refer(key, field("access.enrolment"), Kind::Enrolment, &access.enrolment);
        }
    }

    fn access_point(&mut self, key: &Key, field: &str, point: &AccessPointSpec) {
        self.text(key, format!("{field}.user"), point.user.as_ref());
        self.secret(key, format!("{field}.password"), point.password.as_ref());
        if let Some(attach) = &point.attach {
            self.text(key, format!("{field}.attach.user"), attach.user.as_ref());
            self.secret(key, format!("{field}.attach.password"), attach.password.as_ref());
        }
    }

    /// VLANs and bonds.
    fn layers(
        &mut self,
        key: &Key,
        spec: &DeviceSpec,
        hardware: Option<&HardwareSpec>,
        unknown: bool,
    ) {
        let card = |label: &str, ethernet: bool| {
            unknown
                || hardware.is_none_or(|h| {
                    let fits = |k: HardwareKind| {
                        if ethernet { k == HardwareKind::Ethernet } else { k.is_network() }
                    };
                    h.io.iter().any(|io| io.label == label && fits(io.kind))
                })
        };
        let mut labels: BTreeSet<&str> =
            hardware.iter().flat_map(|h| &h.io).map(|io| io.label.as_str()).collect();
        let mut members = BTreeSet::new();
        let lower = lower_labels(spec);
        for (at, bond) in spec.bonds.iter().enumerate() {
            let field = |name: &str| format!("spec.bonds[{at}].{name}");
            self.layer_name(key, field("name"), &bond.name, &mut labels);
            let interface = bond.interface.as_ref().unwrap_or(&bond.name);
            if interface == BOND0 || !is_interface(interface) {
                let text = format!("{interface:?} is no interface's name, or the kernel's own");
                self.say(key, field("interface"), text);
            }
            if bond.members.is_empty() {
                self.say(key, field("members"), "a bond needs a member");
            }
            if bond.mii.is_some() && bond.arp.is_some() {
                self.say(key, field("arp"), "a bond is watched by mii or by arp");
            }
            for member in &bond.members {
                if !card(member, true) || spec.vlans.iter().any(|v| v.name == *member) {
                    let text = format!("{member} is no Ethernet card");
                    self.say(key, field("members"), text);
                }
                if !members.insert(member) {
                    self.say(key, field("members"), format!("{member} is in two bonds"));
                }
                let port = spec.ports.iter().find(|p| lower.get(&*p.name) == Some(&&**member));
                if port.is_some_and(|p| p.address != AddressSpec::None || p.management) {
                    let text = format!("{member} has an address of its own");
                    self.say(key, field("members"), text);
                }
            }
        }
        let mut ids = BTreeSet::new();
        for (at, vlan) in spec.vlans.iter().enumerate() {
            let field = |name: &str| format!("spec.vlans[{at}].{name}");
            self.layer_name(key, field("name"), &vlan.name, &mut labels);
            self.vlan(key, field("id"), Some(vlan.id));
            let interface = vlan.interface.as_ref().unwrap_or(&vlan.name);
            if !is_interface(interface) {
                self.say(key, field("interface"), "is no interface's name");
            }
            let bond = spec.bonds.iter().any(|b| b.name == vlan.below);
            let vlan_below = spec.vlans.iter().any(|v| v.name == vlan.below);
            if vlan_below || (!bond && !card(&vlan.below, false)) {
                let text = format!("{:?} is no network card or bond", vlan.below);
                self.say(key, field("below"), text);
            }
            if PortName::new(&vlan.below).is_none() {
                self.say(key, field("below"), "is no label");
            }
            if !ids.insert((&vlan.below, vlan.id)) {
                self.say(key, field("id"), format!("two of {} on {}", vlan.id, vlan.below));
            }
            if members.contains(&vlan.below) {
                let text = format!("{} is in a bond; put the VLAN on that", vlan.below);
                self.say(key, field("below"), text);
            }
        }
    }

    /// Each port has a card, VLAN or bond to itself, and each of these an interface: devices refuse
    /// all ports if two collide.
    fn interfaces(&mut self, key: &Key, spec: &DeviceSpec, hardware: Option<&HardwareSpec>) {
        let cards = hardware.iter().flat_map(|h| &h.io);
        let mut named: BTreeMap<&str, (&str, &str)> = cards
            .filter_map(|io| Some((io.interface.as_deref()?, ("card", io.label.as_str()))))
            .collect();
        let bonds = spec.bonds.iter().map(|b| (&b.name, &b.interface)).enumerate();
        let vlans = spec.vlans.iter().map(|v| (&v.name, &v.interface)).enumerate();
        let bonds = bonds.map(|(at, layer)| ("bond", at, layer));
        for (kind, at, (name, interface)) in bonds.chain(vlans.map(|(at, l)| ("vlan", at, l))) {
            let called = interface.as_deref().unwrap_or(name);
            // Of the same label is said already that it has it twice.
            let other = named.insert(called, (kind, name)).filter(|(_, label)| label != name);
            if let Some((other, label)) = other {
                let text = format!("{called} is the interface of the {other} {label}");
                self.say(key, format!("spec.{kind}s[{at}].interface"), text);
            }
        }
        let mut used: BTreeMap<&str, &str> = BTreeMap::new();
        let mut called: BTreeMap<&str, &str> = BTreeMap::new();
        for (at, port) in spec.ports.iter().enumerate() {
            let below = port.below.as_deref().unwrap_or(&port.name);
            // Of the same name are the same port, of which is said enough.
            if let Some(other) = used.insert(below, &port.name).filter(|o| *o != port.name) {
                let text = format!("port {other} has {below} already");
                self.say(key, format!("spec.ports[{at}].below"), text);
            }
            let Some(interface) = port.interface.as_deref().filter(|_| hardware.is_none()) else {
                continue;
            };
            let other = called.insert(interface, &port.name).filter(|o| *o != port.name);
            if let Some(other) = other {
                let text = format!("port {other} has {interface} already");
                self.say(key, format!("spec.ports[{at}].interface"), text);
            }
        }
    }

    fn layer_name<'s>(
        &mut self,
        key: &Key,
        field: String,
        name: &'s str,
        labels: &mut BTreeSet<&'s str>,
    ) {
        if PortName::new(name).is_none() || RESERVED_LABELS.contains(&name) {
            self.say(key, &field, format!("{name:?} is reserved or no label"));
        }
        if !labels.insert(name) {
            self.say(key, &field, format!("{name} is the label of something else too"));
        }
    }

    /// What lies below a port is there, and is a network card.
    fn below(
        &mut self,
        key: &Key,
        at: usize,
        port: &PortSpec,
        device: &DeviceSpec,
        hardware: Option<&HardwareSpec>,
    ) {
        let below = port.below.as_deref().unwrap_or(&port.name);
        let field = |name: &str| format!("spec.ports[{at}].{name}");
        let layer = device.bonds.iter().any(|b| b.name == below)
            || device.vlans.iter().any(|v| v.name == below);
        if layer {
            return;
        }
        if PortName::new(below).is_none() && port.below.is_some() {
            self.say(key, field("below"), "is no label");
        }
        let Some(hardware) = hardware else {
            let name = port.interface.as_deref().unwrap_or(below);
            if port.interface.is_none() && !is_interface(name) {
                self.say(key, field("interface"), format!("{name:?} is no interface's name"));
            }
            return;
        };
        let Some(io) = hardware.io.iter().find(|io| io.label == below) else {
            let have: Vec<&str> = hardware.io.iter().map(|io| io.label.as_str()).collect();
            let text = format!("there is no hardware {below} (it has {})", have.join(", "));
            return self.say(key, field("below"), text);
        };
        if !io.kind.is_network() {
            self.say(key, field("below"), format!("{below} is no network card"));
        }
        if io.usage == Usage::Disabled {
            self.say(key, field("below"), format!("{below} is disabled"));
        }
        let same = port.interface.as_ref().is_none_or(|i| io.interface.as_ref() == Some(i));
        if !same {
            self.say(key, field("interface"), format!("{below} is called otherwise by its model"));
        }
        for (name, said, kind) in [
            ("wifi", !port.wifi.is_empty(), HardwareKind::Wlan),
            ("cellular", port.cellular.is_some(), HardwareKind::Wwan),
        ] {
            if said && io.kind != kind {
                self.say(key, field(name), format!("{below} is no such card"));
            }
        }
    }
}
