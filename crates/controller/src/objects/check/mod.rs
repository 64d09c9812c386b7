//! What is wrong in a set of objects: ranges, references, conflicts.

mod apps;
mod device;

use std::collections::BTreeSet;

use ipnet::Ipv4Net;
use model::Bytes;
use model::desired::{INLINE_MAX, PortName};
use serde::{Deserialize, Serialize};

use super::compile::{
    DEFAULT_SUBNET, addresses, base64_bytes, edges, is_reference, targets, with_tag,
};
use super::query::is_label;
use super::read::NOT_SHOWN;
use super::spec::{
    AppSpec, BaseOsSpec, DatastoreSpec, EnrolmentSpec, HardwareSpec, ImageSpec, NetworkSpec,
    NetworkType, PatchSpec, RuleSpec, SecretRef, Spec, TemplateSpec, TextOrSecret, VolumeSpec,
};
use super::template::{Node, is_variable, node, uses_variables};
use super::{DEFAULT, Key, Kind, LOCAL, Object, Objects, apps as all_apps};

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
    let mut found = Found { objects, flaws: Vec::new(), with_variables: BTreeSet::new() };
    found.with_variables =
        all_apps(objects).filter(|(_, a)| uses_variables(a)).map(|(o, _)| &o.key).collect();
    found.serials();
    let nodes: Vec<Node<'_>> = objects.values().filter_map(|o| node(objects, o)).collect();
    for (key, object) in objects {
        match &object.spec {
            Spec::Device(_) => {
                // Devices come in the order of their keys on both sides.
                let at = nodes.binary_search_by(|n| n.object.key.cmp(key));
                if let Some(node) = at.ok().and_then(|at| nodes.get(at)) {
                    found.device(key, node);
                }
            }
            Spec::Datastore(spec) => found.datastore(key, spec),
            Spec::Image(spec) => found.image(key, spec),
            Spec::Volume(spec) => found.volume(key, spec),
            Spec::Network(spec) => found.network(key, spec),
            Spec::App(spec) => found.app(key, spec),
            Spec::Hardware(spec) => found.hardware(key, spec),
            Spec::BaseOs(spec) => found.base_os(key, spec),
            Spec::Secret(spec) => found.secret_value(key, spec.value.reveal()),
            Spec::Enrolment(spec) => found.enrolment(key, spec),
            Spec::Patch(spec) => found.patch(key, spec),
            // Policies are no objects of this set.
            Spec::Project(_) | Spec::Group(_) | Spec::Window(_) | Spec::AlertRule(_) => {}
            Spec::Template(spec) => found.template(key, spec),
        }
    }
    for node in &nodes {
        found.on_node(node);
    }
    found.flaws
}

/// EVE's own minimum for IPv6; devices refuse less.
const MTU_MIN: u16 = 1280;
/// Less does not hold a process.
const MEMORY_MIN: Bytes = Bytes::mib(4);
/// EVE refuses an app whose description is larger (EVE API, config exchange); user data grows by a
/// third in base64 and shares it with rules, environment and names.
const APP_MAX: usize = 65_535;
/// What EVE takes as the end of an SSID, a serial number and the like.
const TEXT_MAX: usize = 256;

struct Found<'a> {
    objects: &'a Objects,
    flaws: Vec<Flaw>,
    /// Apps with braces in some text: they differ from node to node.
    with_variables: BTreeSet<&'a Key>,
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

    /// Says so if a secret that `field` names does not exist.
    fn secret(&mut self, key: &Key, field: impl Into<String>, named: Option<&SecretRef>) {
        if let Some(named) = named {
            self.refer(key, field, Kind::Secret, &named.secret);
        }
    }

    fn text(&mut self, key: &Key, field: impl Into<String>, text: Option<&TextOrSecret>) {
        self.secret(key, field, text.and_then(TextOrSecret::secret));
    }

    fn pem(&mut self, key: &Key, field: &str, all: &[String]) {
        for (at, pem) in all.iter().enumerate() {
            if !pem.contains("-----BEGIN CERTIFICATE-----") {
                self.say(key, format!("{field}[{at}]"), "is no certificate in PEM");
            }
        }
    }

    fn vlan(&mut self, key: &Key, field: impl Into<String>, id: Option<u16>) {
        // IEEE 802.1Q reserves 0 and 4095.
        if id.is_some_and(|id| !(1..=4094).contains(&id)) {
            self.say(key, field, "use 1 to 4094");
        }
    }

    fn secret_value(&mut self, key: &Key, value: &str) {
        if value.is_empty() {
            self.say(key, "spec.value", "is empty");
        } else if value == NOT_SHOWN {
            let text = "is what is shown in place of the value; leave the secret out to keep it";
            self.say(key, "spec.value", text);
        } else if value.len() > APP_MAX {
            self.say(key, "spec.value", format!("is longer than {APP_MAX} bytes"));
        }
    }

    fn hardware(&mut self, key: &Key, spec: &HardwareSpec) {
        let mut labels = BTreeSet::new();
        for (at, io) in spec.io.iter().enumerate() {
            let field = |name: &str| format!("spec.io[{at}].{name}");
            if io.label.is_empty() || io.label.len() > TEXT_MAX {
                self.say(key, field("label"), format!("use 1 to {TEXT_MAX} bytes"));
            }
            if !labels.insert(&io.label) {
                self.say(key, field("label"), format!("there are two {}", io.label));
            }
            let network = io.kind.is_network();
            let modem = io.kind == model::desired::HardwareKind::Wwan;
            match &io.interface {
                Some(name) if !is_interface(name) => {
                    self.say(key, field("interface"), format!("{name:?} is no interface's name"));
                }
                None if network && !modem => {
                    self.say(key, field("interface"), "a network card needs its interface's name");
                }
                _ => {}
            }
            if io.pci.as_ref().is_some_and(|p| !is_pci(p)) {
                self.say(key, field("pci"), "is no place on a PCI bus, as 0000:00:1f.6");
            }
            if io.usb.as_ref().is_some_and(|u| !is_usb(u)) {
                self.say(key, field("usb"), "is no place on a USB bus, as 1:2 or 1:2.3");
            }
            if io.functions.is_some() && io.kind != model::desired::HardwareKind::EthernetPf {
                self.say(key, field("functions"), "only a card of type ethernet-pf is divided");
            }
            let groups = spec.io.iter().map(|o| o.group.as_deref().unwrap_or(&o.label));
            if !io.parent.is_empty() && !groups.into_iter().any(|g| g == io.parent) {
                self.say(key, field("parent"), format!("there is no group {}", io.parent));
            }
        }
    }

    fn base_os(&mut self, key: &Key, spec: &BaseOsSpec) {
        self.source(key, &spec.image, &spec.datastore);
        if spec.version.is_empty() || spec.version.len() > TEXT_MAX {
            self.say(key, "spec.version", "must be what the image says of itself");
        }
    }

    /// An image by name, or `repository:tag` in a datastore.
    fn source(&mut self, key: &Key, image: &str, datastore: &str) {
        if self.objects.contains_key(&Key::new(Kind::Image, image)) {
            return;
        }
        self.refer(key, "spec.datastore", Kind::Datastore, datastore);
        if !is_reference(&with_tag(image)) {
            self.say(key, "spec.image", format!("{image:?} is no `repository:tag`"));
        }
    }

    fn enrolment(&mut self, key: &Key, spec: &EnrolmentSpec) {
        if !["http://", "https://"].iter().any(|s| spec.url.starts_with(s)) {
            self.say(key, "spec.url", format!("{:?} is no http or https URL", spec.url));
        }
        if spec.request.renew_percent > 100 {
            self.say(key, "spec.request.renew_percent", "use 0 to 100");
        }
        self.secret(key, "spec.challenge", spec.challenge.as_ref());
        self.pem(key, "spec.ca", &spec.ca);
    }

    fn patch(&mut self, key: &Key, spec: &PatchSpec) {
        if spec.apps.is_empty() {
            self.say(key, "spec.apps", "names no app: nobody would get the files");
        }
        for (at, name) in spec.apps.iter().enumerate() {
            self.refer(key, format!("spec.apps[{at}]"), Kind::App, name);
        }
        let mut names = BTreeSet::new();
        for (at, file) in spec.files.iter().enumerate() {
            let field = |name: &str| format!("spec.files[{at}].{name}");
            if file.name.is_empty() || file.name.contains('/') || file.name.starts_with('.') {
                self.say(key, field("name"), format!("{:?} is no name of a file", file.name));
            }
            if !names.insert(&file.name) {
                self.say(key, field("name"), format!("there are two files {}", file.name));
            }
            let ways = [file.text.is_some(), file.base64.is_some(), file.volume.is_some()];
            if ways.into_iter().filter(|w| *w).count() != 1 {
                self.say(key, field("text"), "say one of text, base64 and volume");
            }
            self.text(key, field("text"), file.text.as_ref());
            let text = match &file.text {
                Some(TextOrSecret::Text(text)) => Some(text.len().div_ceil(3) * 4),
                Some(TextOrSecret::Secret(s)) => self.length(s).map(|n| n.div_ceil(3) * 4),
                None => None,
            };
            let bytes = file.base64.as_ref().map(|text| base64_bytes(text));
            if bytes == Some(None) {
                self.say(key, field("base64"), "is not base64");
            }
            let bytes = bytes.flatten().map(|b| b.len().div_ceil(3) * 4);
            if text.or(bytes).is_some_and(|n| n > INLINE_MAX) {
                let text = format!("takes more than {INLINE_MAX} bytes in base64; use a volume");
                self.say(key, field("text"), text);
            }
            if let Some(volume) = &file.volume {
                self.refer(key, field("volume"), Kind::Volume, volume);
            }
        }
    }

    /// How long a secret is; `None` if there is none of this name.
    fn length(&self, named: &SecretRef) -> Option<usize> {
        match &self.objects.get(&Key::new(Kind::Secret, &named.secret))?.spec {
            Spec::Secret(secret) => Some(secret.value.reveal().len()),
            _ => None,
        }
    }

    fn template(&mut self, key: &Key, spec: &TemplateSpec) {
        if !spec.device.is_object() {
            self.say(key, "spec.device", "is no object with the fields of a device's spec");
        }
        if spec.device.get("template").is_some() {
            self.say(key, "spec.device.template", "a template has none itself");
        }
        for path in ["/project", "/labels/project"] {
            if spec.device.pointer(path).is_some() {
                let text = "write it in each Device: its project decides who may change it";
                self.say(key, format!("spec.device{}", path.replace('/', ".")), text);
            }
        }
        for name in spec.variables.keys().filter(|n| !is_variable(n)) {
            let text = "use letters, digits, `_` and `-`";
            self.say(key, format!("spec.variables.{name}"), text);
        }
    }

    fn datastore(&mut self, key: &Key, spec: &DatastoreSpec) {
        let object_store = spec.kind.is_object_store();
        let odd = |c: char| !c.is_ascii_graphic() || "\"'<>\\^`{}|@".contains(c);
        if object_store {
            if spec.host.len() > 255 || spec.host.contains(odd) {
                let text = format!("{:?} is no endpoint; write a host or a URL", spec.host);
                self.say(key, "spec.host", text);
            }
        } else if spec.host.is_empty()
            || spec.host.contains(['/', ' ', '@'])
            || odd_host(&spec.host)
        {
            let text =
                format!("{:?} is no host; write HOST or HOST:PORT, without a scheme", spec.host);
            self.say(key, "spec.host", text);
        }
        if object_store && spec.path.trim_matches('/').is_empty() {
            self.say(key, "spec.path", "names no bucket or container");
        }
        if !spec.region.is_empty() && spec.kind != model::desired::DatastoreKind::S3 {
            self.say(key, "spec.region", "only s3 has regions");
        }
        self.text(key, "spec.user", spec.user.as_ref());
        self.secret(key, "spec.password", spec.password.as_ref());
        self.pem(key, "spec.trust", &spec.trust);
        let plain_http = spec.kind == model::desired::DatastoreKind::Http;
        if plain_http && spec.password.is_some() {
            let text = "a password over http could be read on the way; use https";
            self.say(key, "spec.password", text);
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
        let switch = spec.kind == NetworkType::Switch;
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
        let local_only = [
            ("gateway", spec.gateway.is_some()),
            ("dhcp", spec.dhcp.is_some()),
            ("dns", !spec.dns.is_empty()),
            ("hosts", !spec.hosts.is_empty()),
            ("routes", !spec.routes.is_empty()),
            ("propagate_routes", spec.propagate_routes),
        ];
        let switch_only = [
            ("access_ports", !spec.access_ports.is_empty()),
            ("forward_lldp", spec.forward_lldp),
            ("bpdu_guard", !spec.bpdu_guard.is_empty()),
        ];
        let (foreign, kind): (&[(&str, bool)], &str) =
            if switch { (&local_only, "switch") } else { (&switch_only, "local") };
        for (field, _) in foreign.iter().filter(|(_, said)| *said) {
            self.say(key, format!("spec.{field}"), format!("a {kind} network has none"));
        }
        for (at, port) in spec.access_ports.iter().enumerate() {
            self.vlan(key, format!("spec.access_ports[{at}].vlan"), Some(port.vlan));
        }
        for (at, route) in spec.routes.iter().enumerate() {
            let field = |name: &str| format!("spec.routes[{at}].{name}");
            if route.gateway.is_none() && route.port.is_empty() {
                self.say(key, field("gateway"), "a route needs a gateway or a port");
            }
            let v4 = route.to.addr().is_ipv4();
            if route.gateway.is_some_and(|g| g.is_ipv4() != v4) {
                self.say(key, field("gateway"), "is of another version of IP than the route");
            }
            let custom = route.probe.as_ref().and_then(|p| p.custom.as_ref());
            self.probe(key, field("probe.custom"), custom);
        }
        for (name, all) in &spec.hosts {
            if name.is_empty() || all.is_empty() {
                self.say(key, format!("spec.hosts.{name}"), "needs a name and an address");
            }
        }
    }

    fn probe(&mut self, key: &Key, field: String, probe: Option<&model::desired::Probe>) {
        let Some(probe) = probe else { return };
        if probe.host.is_empty() {
            self.say(key, format!("{field}.host"), "is empty");
        }
        if probe.method == model::desired::ProbeMethod::Tcp && probe.port == 0 {
            self.say(key, format!("{field}.port"), "use 1 to 65535");
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

    fn mtu(&mut self, key: &Key, field: String, mtu: Option<u16>) {
        if mtu.is_some_and(|mtu| mtu < MTU_MIN) {
            self.say(key, field, format!("use {MTU_MIN} to 65535"));
        }
    }
}

/// Whether a host holds anything that no host and port has.
fn odd_host(host: &str) -> bool {
    !host.chars().all(|c| c.is_ascii_alphanumeric() || ".-_:[]".contains(c)) || host.len() > 255
}

/// Whether a text is a PCI address: domain, bus, device, function in hexadecimal. Domains of VMD
/// controllers have more than four digits.
fn is_pci(text: &str) -> bool {
    let hex = |t: &str, digits: std::ops::RangeInclusive<usize>| {
        digits.contains(&t.len()) && t.chars().all(|c| c.is_ascii_hexdigit())
    };
    let parts = text.split_once(':').and_then(|(domain, rest)| {
        let (bus, rest) = rest.split_once(':')?;
        let (device, function) = rest.split_once('.')?;
        Some((domain, bus, device, function))
    });
    parts.is_some_and(|(domain, bus, device, function)| {
        hex(domain, 4..=8) && hex(bus, 2..=2) && hex(device, 2..=2) && hex(function, 1..=1)
    })
}

/// Whether a text is a USB bus and the ports that lead to a device.
fn is_usb(text: &str) -> bool {
    let number = |t: &str| t.len() <= 3 && t.parse::<u8>().is_ok();
    let parts = text.split_once(':');
    parts.is_some_and(|(bus, ports)| number(bus) && ports.split('.').all(number))
}

/// Whether a text can name an interface: IFNAMSIZ is 16, the final zero included.
fn is_interface(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_graphic() && c != '/';
    (1..16).contains(&name.len()) && name.chars().all(plain)
}
