//! What a change of its config means for a node, in words, before it gets it.

use std::collections::{BTreeMap, BTreeSet};

use model::desired::{App, Device, NetworkInstance, Origin, Volume};
use serde::{Deserialize, Serialize};

/// What happens to one thing on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consequence {
    /// As `App web`.
    pub subject: String,
    /// As `restarts: memory 128 MiB, not 64 MiB`.
    pub text: String,
    /// Whether something that works now is interrupted.
    pub disrupts: bool,
}

impl std::fmt::Display for Consequence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.subject, self.text)
    }
}

/// What happens when a node that was told `old` is told `new`. Empty if they say the same but for
/// their time stamps.
pub(crate) fn consequences(old: &Device, new: &Device) -> Vec<Consequence> {
    let mut found = Found(Vec::new());
    if old.power.reboot != new.power.reboot {
        found.add("device", "reboots", true);
    }
    if old.power.shutdown != new.power.shutdown {
        found.add("device", "powers off", true);
    }
    each(&old.ports, &new.ports, |name, before, after| {
        let subject = format!("port {name}");
        match (before, after) {
            (None, Some(_)) => found.add(&subject, "is configured", true),
            (Some(_), None) => found.add(&subject, "is no longer configured", true),
            _ => found.add(&subject, "is configured anew, and goes down for a moment", true),
        }
    });
    each(&old.network_instances, &new.network_instances, |_, before, after| {
        found.network(before, after);
    });
    each(&old.contents, &new.contents, |_, before, after| {
        if let (None, Some(content)) = (before, after) {
            found.add(&format!("Image {}", content.name), "is downloaded", false);
        }
    });
    each(&old.apps, &new.apps, |_, before, after| found.app(before, after, old, new));
    let apps = old.apps.values().chain(new.apps.values());
    let roots: BTreeSet<_> = apps.filter_map(|a| a.volumes.first()).map(|v| v.volume).collect();
    each(&old.volumes, &new.volumes, |_, before, after| {
        // The root of an app is spoken of with the app.
        let root = |v: &Volume| roots.contains(&v.id);
        match (before, after) {
            (None, Some(v)) if !root(v) => {
                found.add(&format!("Volume {}", v.name), "is made", false);
            }
            (Some(v), None) if !root(v) => {
                found.add(&format!("Volume {}", v.name), "is deleted with what is in it", true);
            }
            (Some(_), Some(v)) if !root(v) => {
                found.add(&format!("Volume {}", v.name), "is told anew", false);
            }
            _ => {}
        }
    });
    each(&old.items, &new.items, |key, before, after| {
        let subject = format!("setting {key}");
        match (before, after) {
            (_, Some(value)) => found.add(&subject, &format!("becomes {value}"), false),
            (Some(_), None) => found.add(&subject, "goes back to its default", false),
            (None, None) => {}
        }
    });
    let untimed = |d: &Device| Device { timestamp: None, ..d.clone() };
    if found.0.is_empty() && untimed(old) != untimed(new) {
        found.add("device", "is told something that touches nothing it runs", false);
    }
    found.0
}

/// Those keys whose values differ.
fn each<'a, K: Ord, V: PartialEq>(
    old: &'a BTreeMap<K, V>,
    new: &'a BTreeMap<K, V>,
    mut tell: impl FnMut(&'a K, Option<&'a V>, Option<&'a V>),
) {
    for (key, before) in old {
        let after = new.get(key);
        if after != Some(before) {
            tell(key, Some(before), after);
        }
    }
    for (key, after) in new.iter().filter(|(key, _)| !old.contains_key(key)) {
        tell(key, None, Some(after));
    }
}

struct Found(Vec<Consequence>);

impl Found {
    fn add(&mut self, subject: &str, text: &str, disrupts: bool) {
        self.0.push(Consequence { subject: subject.into(), text: text.into(), disrupts });
    }

    fn network(&mut self, before: Option<&NetworkInstance>, after: Option<&NetworkInstance>) {
        let Some(named) = after.or(before) else { return };
        let subject = format!("Network {}", named.name);
        match (before, after) {
            (None, _) => self.add(&subject, "is made", false),
            (_, None) => self.add(&subject, "is removed, with the connections of its apps", true),
            (Some(old), Some(new)) if old.kind != new.kind => {
                self.add(&subject, "is made anew: its addresses change", true);
            }
            _ => self.add(&subject, "is made anew", true),
        }
    }

    fn app(&mut self, before: Option<&App>, after: Option<&App>, old: &Device, new: &Device) {
        let Some(named) = after.or(before) else { return };
        let subject = format!("App {}", named.name);
        let (was, is) = match (before, after) {
            (None, Some(app)) => {
                let text = if app.activate { "starts" } else { "is prepared, and does not start" };
                return self.add(&subject, text, false);
            }
            (Some(app), None) => {
                let text = "stops and is removed, with what its root holds";
                return self.add(&subject, text, app.activate);
            }
            (Some(was), Some(is)) => (was, is),
            (None, None) => return,
        };
        let mut why = Vec::new();
        let mut differs = |what: &str, differs: bool| {
            if differs {
                why.push(what.to_owned());
            }
        };
        differs(&format!("memory {}, not {}", is.memory, was.memory), was.memory != is.memory);
        differs(&format!("{} processors, not {}", is.vcpus, was.vcpus), was.vcpus != is.vcpus);
        differs("another environment", was.environment != is.environment);
        differs("another way of virtualization", was.virtualization != is.virtualization);
        differs("other volumes", was.volumes != is.volumes && !same_mounts(was, is));
        differs("another image", image(was, old) != image(is, new));
        let networks = |app: &App| app.interfaces.iter().map(|i| (i.network, i.address)).collect();
        let (old_networks, new_networks): (Vec<_>, Vec<_>) = (networks(was), networks(is));
        differs("other networks", old_networks != new_networks);
        let rules = was.interfaces != is.interfaces && old_networks == new_networks;
        let why = if why.is_empty() { String::new() } else { format!(": {}", why.join(", ")) };
        match () {
            () if was.activate && !is.activate => self.add(&subject, "stops", true),
            () if !was.activate && is.activate => self.add(&subject, "starts", false),
            () if was.purge != is.purge => {
                let text = format!("restarts with fresh volumes, what it wrote is lost{why}");
                self.add(&subject, &text, is.activate);
            }
            () if was.restart != is.restart => {
                self.add(&subject, &format!("restarts{why}"), is.activate);
            }
            () if !why.is_empty() => self.add(&subject, &format!("is told anew{why}"), is.activate),
            () if rules => self.add(&subject, "gets other rules for its traffic", false),
            () => self.add(&subject, "is told anew, and goes on", false),
        }
    }
}

fn same_mounts(was: &App, is: &App) -> bool {
    let mounts = |app: &App| app.volumes.iter().map(|v| (v.volume, v.mount.clone())).collect();
    let (was, is): (Vec<_>, Vec<_>) = (mounts(was), mounts(is));
    was == is
}

/// What an app's root is made of.
fn image(app: &App, told: &Device) -> Option<String> {
    let root = told.volumes.get(&app.volumes.first()?.volume)?;
    let Origin::Content(content) = &root.origin else { return None };
    let content = told.contents.get(content)?;
    Some(format!("{} {:?}", content.url, content.sha256))
}
