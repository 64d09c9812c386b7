//! What a node says of everything it has, newest first of each.

use std::collections::BTreeMap;

use api::convert;
use api::convert::view::{
    AppView, ContentView, DeviceView, ErrorView, NetworkInstanceView, Report, VolumeView,
};
use model::UnixMillis;

use crate::db::InfoRow;

/// Something a node said, and when we heard of it.
#[derive(Debug, Clone)]
pub(crate) struct Heard<T> {
    pub(crate) at: UnixMillis,
    pub(crate) what: T,
}

/// What a node says, by id.
#[derive(Debug, Clone, Default)]
pub(crate) struct Said {
    pub(crate) device: Option<Heard<Box<DeviceView>>>,
    pub(crate) apps: BTreeMap<String, Heard<AppView>>,
    pub(crate) networks: BTreeMap<String, Heard<NetworkInstanceView>>,
    pub(crate) volumes: BTreeMap<String, Heard<VolumeView>>,
    pub(crate) contents: BTreeMap<String, Heard<ContentView>>,
}

/// Something that is wrong on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// As `App web`.
    pub(crate) subject: String,
    pub(crate) text: String,
    /// Since when, as the node says, or else when we first could have heard.
    pub(crate) since: UnixMillis,
}

impl Said {
    /// What messages cannot be read is left out: it was stored, and is an event of its own.
    pub(crate) fn read(rows: &[InfoRow]) -> Said {
        let mut said = Said::default();
        for row in rows {
            let Ok(info) = convert::view::info(&row.payload) else { continue };
            said.take(info.report, row.received);
        }
        said
    }

    fn take(&mut self, report: Report, at: UnixMillis) {
        match report {
            Report::Device(what) => self.device = Some(Heard { at, what }),
            Report::App(what) => {
                self.apps.insert(what.id.clone(), Heard { at, what });
            }
            Report::NetworkInstance(what) => {
                self.networks.insert(what.id.clone(), Heard { at, what });
            }
            Report::Volume(what) => {
                self.volumes.insert(what.id.clone(), Heard { at, what });
            }
            Report::Content(what) => {
                self.contents.insert(what.id.clone(), Heard { at, what });
            }
            Report::Gone { .. } | Report::Other { .. } | Report::More(_) => {}
        }
    }

    /// Everything that is wrong.
    pub(crate) fn troubles(&self) -> Vec<Trouble> {
        let mut all = Vec::new();
        let mut add =
            |subject: String, at: UnixMillis, errors: &mut dyn Iterator<Item = &ErrorView>| {
                for error in errors {
                    let since = error.since.unwrap_or(at);
                    all.push(Trouble { subject: subject.clone(), text: words(error), since });
                }
            };
        for heard in self.apps.values() {
            add(format!("App {}", heard.what.name), heard.at, &mut heard.what.errors.iter());
        }
        for heard in self.networks.values() {
            add(
                format!("network instance {}", heard.what.id),
                heard.at,
                &mut heard.what.errors.iter(),
            );
        }
        for heard in self.volumes.values() {
            add(format!("Volume {}", heard.what.name), heard.at, &mut heard.what.error.iter());
        }
        for heard in self.contents.values() {
            add(format!("Image {}", heard.what.name), heard.at, &mut heard.what.error.iter());
        }
        if let Some(device) = &self.device {
            for port in &device.what.ports {
                let name = if port.name.is_empty() { &port.interface } else { &port.name };
                add(format!("port {name}"), device.at, &mut port.error.iter());
            }
        }
        all
    }

    /// How far the image of an app has come, while it is on its way.
    pub(crate) fn progress(&self, app: &AppView) -> Option<u32> {
        let named = |c: &&Heard<ContentView>| c.what.name == app.name && c.what.progress > 0;
        self.contents.values().find(named).map(|c| c.what.progress)
    }
}

/// An error in words.
pub(crate) fn words(error: &ErrorView) -> String {
    if error.retry.is_empty() {
        error.text.clone()
    } else {
        format!("{} ({})", error.text, error.retry)
    }
}
