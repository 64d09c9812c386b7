//! What a node would do if it were told something else: differences in words, with their
//! consequence. Secrets are compared and never shown.

use std::collections::BTreeMap;
use std::fmt;

use model::desired::{App, Device, NetworkInstance, NetworkKind, Volume};
use serde::Serialize;

/// What a change does to the node, from the mildest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Consequence {
    /// Nothing stops.
    Live,
    /// Something is fetched first.
    Download,
    /// Something starts.
    Start,
    /// It is there after the app's next restart, and that is not asked for.
    NextRestart,
    /// An app restarts.
    Restart,
    /// An app loses what is on its volumes.
    Purge,
    /// Something stops, or is deleted.
    Stop,
    /// Apps lose their network for a moment, and may get other addresses.
    Renumber,
    /// The way to the controller changes: it is tried and, if it does not work, undone.
    Reconnect,
    /// The node reboots, with everything on it.
    Reboot,
}

impl Consequence {
    /// In a word or two.
    pub fn words(self) -> &'static str {
        match self {
            Consequence::Live => "takes effect at once",
            Consequence::Download => "is downloaded",
            Consequence::Start => "starts",
            Consequence::NextRestart => "waits for the next restart",
            Consequence::Restart => "restarts",
            Consequence::Purge => "restarts with fresh volumes",
            Consequence::Stop => "stops",
            Consequence::Renumber => "renumbers a network in use",
            Consequence::Reconnect => "changes the way to the controller",
            Consequence::Reboot => "reboots the node",
        }
    }
}

/// A difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What it is about: `app web`.
    pub about: String,
    /// What changes: `memory 256.0 MiB → 512.0 MiB`.
    pub text: String,
    /// What that does.
    pub consequence: Consequence,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.about, self.text, self.consequence.words())
    }
}

/// What `new` changes on a node that was told `old`: the node itself first, then its networks,
/// content and volumes, apps, patches; by name. Time stamps and the controller's own marks do not
/// count.
pub fn diff(old: &Device, new: &Device) -> Vec<Difference> {
    let mut found = Found(Vec::new());
    found.node(old, new);
    found.ports(old, new);
    found.networks(old, new);
    found.storage(old, new);
    found.apps(old, new);
    found.table("patch", &old.patches, &new.patches, |p| p.name.clone(), Consequence::Live);
    found.0
}

struct Found(Vec<Difference>);

impl Found {
    fn say(&mut self, about: impl Into<String>, text: impl Into<String>, what: Consequence) {
        let (about, text) = (about.into(), text.into());
        self.0.push(Difference { about, text, consequence: what });
    }

    /// Says so if two values differ, with both.
    fn field<T: PartialEq + fmt::Display>(
        &mut self,
        about: &str,
        field: &str,
        (old, new): (T, T),
        what: Consequence,
    ) {
        if old != new {
            self.say(about, format!("{field} {old} → {new}"), what);
        }
    }

    /// Says so if two values differ, without showing them.
    fn hidden<T: PartialEq>(
        &mut self,
        about: &str,
        field: &str,
        (old, new): (&T, &T),
        what: Consequence,
    ) {
        if old != new {
            self.say(about, format!("other {field}"), what);
        }
    }

    /// What comes, goes or changes in a table.
    fn table<K: Ord, V: PartialEq>(
        &mut self,
        kind: &str,
        old: &BTreeMap<K, V>,
        new: &BTreeMap<K, V>,
        name: impl Fn(&V) -> String,
        what: Consequence,
    ) {
        for (key, value) in old {
            let about = format!("{kind} {}", name(value));
            match new.get(key) {
                None => self.say(about, "removed", what),
                Some(now) if now != value => self.say(about, "changes", what),
                Some(_) => {}
            }
        }
        for (_, value) in new.iter().filter(|(k, _)| !old.contains_key(k)) {
            self.say(format!("{kind} {}", name(value)), "added", what);
        }
    }

    fn node(&mut self, old: &Device, new: &Device) {
        use Consequence::{Live, Reboot, Stop};
        const NODE: &str = "node";
        for (field, old, new, text) in [
            ("reboot", old.power.reboot, new.power.reboot, "a reboot is asked for"),
            ("shutdown", old.power.shutdown, new.power.shutdown, "a power-off is asked for"),
        ] {
            // The first counter that a node sees is only noted.
            if old.is_some() && new.is_some() && old != new {
                let what = if field == "reboot" { Reboot } else { Stop };
                self.say(NODE, text, what);
            }
        }
        if old.base_os != new.base_os {
            match (&old.base_os, &new.base_os) {
                (_, None) => self.say(NODE, "no base image is named any longer", Live),
                (before, Some(now)) => {
                    let from = before.as_ref().map_or("the one it has", |b| b.version.as_str());
                    let what = if now.activate { Reboot } else { Consequence::Download };
                    self.say(NODE, format!("base image {from} → {}", now.version), what);
                }
            }
        }
        if old.maintenance != new.maintenance {
            let text = if new.maintenance { "maintenance begins" } else { "maintenance ends" };
            self.say(NODE, text, Live);
        }
        let shown = |p: &str| if p.is_empty() { "none".to_owned() } else { p.to_owned() };
        self.field(NODE, "profile", (shown(&old.profile), shown(&new.profile)), Live);
        self.field(NODE, "name", (old.name.as_str(), new.name.as_str()), Live);
        self.hidden(NODE, "project", (&old.owner, &new.owner), Live);
        self.hidden(NODE, "local profile server", (&old.local_server, &new.local_server), Live);
        self.hidden(NODE, "local console", (&old.local_console, &new.local_console), Live);
        self.hidden(NODE, "EdgeView session", (&old.edge_view, &new.edge_view), Live);
        self.hidden(NODE, "disk layout", (&old.disks, &new.disks), Stop);
        for (key, value) in &old.items {
            match new.items.get(key) {
                None => self.say(format!("setting {key}"), "back to its default", Live),
                Some(now) => {
                    let about = format!("setting {key}");
                    self.field(&about, "value", (value.as_str(), now.as_str()), Live);
                }
            }
        }
        for (key, value) in new.items.iter().filter(|(k, _)| !old.items.contains_key(*k)) {
            self.say(format!("setting {key}"), format!("set to {value}"), Live);
        }
    }

    fn ports(&mut self, old: &Device, new: &Device) {
        use Consequence::{Live, Reconnect};
        let any = [old, new].iter().any(|d| d.ports.values().any(|p| p.management));
        let what = if any { Reconnect } else { Live };
        self.hidden("node", "hardware", (&old.hardware, &new.hardware), what);
        self.table("bond", &old.bonds, &new.bonds, |b| b.label.to_string(), what);
        self.table("VLAN", &old.vlans, &new.vlans, |v| v.label.to_string(), what);
        for (name, port) in &old.ports {
            let about = format!("port {name}");
            match new.ports.get(name) {
                None => self.say(about, "removed", if port.management { Reconnect } else { Live }),
                Some(now) if now != port => {
                    let what = if port.management || now.management { Reconnect } else { Live };
                    self.field(&about, "cost", (port.cost, now.cost), what);
                    self.hidden(&about, "address", (&port.addressing, &now.addressing), what);
                    let rest = |p: &model::desired::Port| {
                        let link = (p.link.clone(), p.interface.clone(), p.below.clone());
                        (link, p.mtu, p.management, p.options.clone())
                    };
                    self.hidden(&about, "network", (&rest(port), &rest(now)), what);
                }
                Some(_) => {}
            }
        }
        for (name, port) in new.ports.iter().filter(|(n, _)| !old.ports.contains_key(*n)) {
            let what = if port.management { Reconnect } else { Live };
            self.say(format!("port {name}"), "added", what);
        }
        self.hidden("node", "802.1X", (&old.port_access, &new.port_access), what);
        self.hidden("node", "enrolment", (&old.enrolments, &new.enrolments), Live);
    }

    fn networks(&mut self, old: &Device, new: &Device) {
        use Consequence::{Live, Renumber, Start, Stop};
        let used = |id| {
            let apps = old.apps.values().filter(|a| a.activate);
            apps.flat_map(|a| &a.interfaces).any(|i| i.network == id)
        };
        for (id, network) in &old.network_instances {
            let about = format!("network {}", network.name);
            let Some(now) = new.network_instances.get(id) else {
                self.say(about, "removed", Stop);
                continue;
            };
            if now == network {
                continue;
            }
            if now.activate != network.activate {
                let what = if now.activate { Start } else { Stop };
                self.say(about.as_str(), if now.activate { "active" } else { "inactive" }, what);
            }
            let what = if used(*id) { Renumber } else { Live };
            self.field(&about, "addresses", (numbers(network), numbers(now)), what);
            let way = |n: &NetworkInstance| (n.port.clone(), n.mtu);
            self.hidden(&about, "way out", (&way(network), &way(now)), Live);
            let names = |n: &NetworkInstance| match &n.kind {
                NetworkKind::Local(l) => Some((l.dns.clone(), l.hosts.clone())),
                NetworkKind::Switch => None,
            };
            self.hidden(&about, "DNS", (&names(network), &names(now)), Live);
            self.hidden(&about, "options", (&network.options, &now.options), Live);
        }
        let have = &old.network_instances;
        for (_, network) in new.network_instances.iter().filter(|(id, _)| !have.contains_key(id)) {
            self.say(format!("network {}", network.name), "added", Start);
        }
    }

    fn storage(&mut self, old: &Device, new: &Device) {
        use Consequence::{Download, Live, Stop};
        for (id, content) in &new.contents {
            if !old.contents.contains_key(id) {
                self.say(format!("image {}", content.name), content.url.as_str(), Download);
            }
        }
        self.hidden("node", "datastores", (&old.datastores, &new.datastores), Live);
        let shown =
            |v: &Volume| v.max_size.map_or("that of its image".to_owned(), |s| s.to_string());
        for (id, volume) in &old.volumes {
            let about = format!("volume {}", volume.name);
            match new.volumes.get(id) {
                None => self.say(about, "deleted with what is on it", Stop),
                Some(now) if now.generation != volume.generation => {
                    self.say(about, "made anew", Consequence::Purge);
                }
                Some(now) => self.field(&about, "size", (shown(volume), shown(now)), Live),
            }
        }
        for (_, volume) in new.volumes.iter().filter(|(id, _)| !old.volumes.contains_key(id)) {
            self.say(format!("volume {}", volume.name), "made", Live);
        }
    }

    fn apps(&mut self, old: &Device, new: &Device) {
        use Consequence::{Start, Stop};
        for (id, app) in &old.apps {
            let about = format!("app {}", app.name);
            match new.apps.get(id) {
                None => self.say(about, "removed", Stop),
                Some(now) if now != app || old.profile != new.profile => {
                    self.app(&about, (app, old), (now, new));
                }
                Some(_) => {}
            }
        }
        for (_, app) in new.apps.iter().filter(|(id, _)| !old.apps.contains_key(id)) {
            let runs = app.activate && app.in_profile(&new.profile);
            let what = if runs { Start } else { Consequence::Download };
            self.say(format!("app {}", app.name), "added", what);
        }
    }

    fn app(&mut self, about: &str, (old, before): (&App, &Device), (new, after): (&App, &Device)) {
        use Consequence::{Live, NextRestart, Purge, Restart, Start, Stop};
        let runs = |app: &App, device: &Device| app.activate && app.in_profile(&device.profile);
        match (runs(old, before), runs(new, after)) {
            (true, false) => self.say(about, "runs no longer", Stop),
            (false, true) => self.say(about, "runs", Start),
            _ => {}
        }
        let purged = old.purge != new.purge;
        let restarted = purged || old.restart != new.restart;
        let how = match (purged, restarted) {
            (true, _) => Purge,
            (false, true) => Restart,
            (false, false) => NextRestart,
        };
        self.field(about, "name", (old.name.as_str(), new.name.as_str()), Live);
        let said = self.0.len();
        self.field(about, "memory", (old.memory, new.memory), how);
        self.field(about, "processors", (old.vcpus, new.vcpus), how);
        self.hidden(about, "environment", (&old.environment, &new.environment), how);
        self.hidden(about, "user data", (&old.user_data, &new.user_data), how);
        self.hidden(about, "machine", (&old.machine, &new.machine), how);
        self.hidden(about, "way of running", (&old.virtualization, &new.virtualization), how);
        let links = |app: &App| -> Vec<_> {
            let rest = |i: &model::desired::AppInterface| {
                (i.name.clone(), i.network, i.mac, i.address, i.access_vlan, i.order)
            };
            app.interfaces.iter().map(rest).collect()
        };
        self.hidden(about, "interfaces", (&links(old), &links(new)), how);
        let places = |app: &App| -> Vec<_> {
            app.volumes.iter().map(|v| (v.volume, v.mount.clone())).collect()
        };
        let disks = if purged { Purge } else { NextRestart };
        self.hidden(about, "volumes", (&places(old), &places(new)), disks);
        self.hidden(about, "hardware", (&old.hardware, &new.hardware), disks);
        if restarted && self.0.len() == said {
            self.say(
                about,
                if purged { "a purge is asked for" } else { "a restart is asked for" },
                how,
            );
        }
        let rules = |app: &App| -> Vec<_> {
            app.interfaces.iter().map(|i| (i.rules.clone(), i.discover)).collect()
        };
        self.hidden(about, "access rules", (&rules(old), &rules(new)), Live);
        let rest = |app: &App| (app.start_delay, app.disable_logs, app.options.clone());
        self.hidden(about, "options", (&rest(old), &rest(new)), Live);
    }
}

/// The addressing of a network, in words.
fn numbers(network: &NetworkInstance) -> String {
    match &network.kind {
        NetworkKind::Switch => "switch".to_owned(),
        NetworkKind::Local(l) => {
            format!("{} ({}, {} to {})", l.subnet, l.gateway, l.range.start, l.range.end)
        }
    }
}
