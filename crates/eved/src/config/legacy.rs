//! EVE's old files on CONFIG: settings and ports of a node that never had a config.
//!
//! Nobody signed them, so that they count less than anything else: a bootstrap file or a saved config
//! is all that is looked at where there is one (EVE API, bootstrap and local overrides).

use std::io;
use std::path::PathBuf;

use api::convert::legacy::{self, LegacyError, LegacyPorts};
use model::desired::Device;
use model::{DeviceId, Diagnose, Diagnosis, UnixMillis, Who};

use super::first::Said;
use crate::service::Paths;

const ITEMS: &str = "GlobalConfig/global.json";
/// Of files that are equally new the later one here counts: what a stick brought.
const PORTS: [&str; 2] = ["DevicePortConfig/override.json", "DevicePortConfig/usb.json"];

/// Why an old file is not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum LegacyTrouble {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{file} is refused")]
    Refused { file: &'static str, source: LegacyError },
}

impl Diagnose for LegacyTrouble {
    fn diagnose(&self) -> Diagnosis {
        match self {
            Self::Read { source, .. } if source.kind() == io::ErrorKind::FileTooLarge => {
                Diagnosis::of(Who::Operator, "correct the file on CONFIG, or take it away")
            }
            Self::Read { .. } => Diagnosis::of(Who::Hardware, "check the disk with CONFIG"),
            Self::Refused { source, .. } => source.diagnose(),
        }
    }
}

/// What the files say.
pub(super) struct Legacy {
    /// Settings and ports of it count.
    pub(super) device: Device,
    /// A file says which ports there are.
    pub(super) has_ports: bool,
    /// Files that are not taken.
    pub(super) troubles: Vec<LegacyTrouble>,
}

/// Reads them. `None`: there are none, or they do not count here, which the log says.
pub(super) fn read(paths: &Paths, said: &mut Said) -> Option<Legacy> {
    let files = || [ITEMS].into_iter().chain(PORTS);
    let there = |file: &str| paths.config.join(file).exists();
    if let Some(newer) = newer(paths) {
        for file in files().filter(|file| there(file)) {
            tell(said, &format!("{file} is not read: {newer}"));
        }
        return None;
    }
    if !files().any(there) {
        return None;
    }
    let mut troubles = Vec::new();
    let mut device = Device::new(DeviceId::new(uuid::Uuid::nil()));
    match take(paths, ITEMS, legacy::items) {
        Ok(items) => device.items = items.unwrap_or_default(),
        Err(why) => troubles.push(why),
    }
    let mut newest: Option<(&str, LegacyPorts)> = None;
    for file in PORTS {
        match take(paths, file, legacy::ports) {
            Ok(Some(Some(ports))) => match &newest {
                Some((winner, before)) if age(before) > age(&ports) => {
                    tell(said, &format!("{file} is not used: {winner} is newer"));
                }
                before => {
                    if let Some((loser, _)) = before {
                        tell(said, &format!("{loser} is not used: {file} is newer, or as new"));
                    }
                    newest = Some((file, ports));
                }
            },
            Ok(None | Some(None)) => {}
            Err(why) => troubles.push(why),
        }
    }
    let has_ports = newest.is_some();
    if let Some((_, said)) = newest {
        device.timestamp = said.made;
        device.ports = said.ports;
        device.refused = said.refused;
    }
    device::able::limit(&mut device);
    Some(Legacy { device, has_ports, troubles })
}

fn tell(said: &mut Said, text: &str) {
    if said.is_news(text) {
        tracing::info!("{text}");
    }
}

/// Why the old files have had their time.
fn newer(paths: &Paths) -> Option<&'static str> {
    if paths.persist.join("checkpoint").join(super::checkpoint::CONFIG).exists() {
        return Some("a config was saved");
    }
    let bootstrap = paths.config.join(super::bootstrap::FILE).exists();
    bootstrap.then_some("there is a bootstrap-config.pb")
}

/// A file without a time is older than any with one.
fn age(ports: &LegacyPorts) -> UnixMillis {
    ports.made.unwrap_or(UnixMillis(0))
}

/// What a file says, if there is one.
fn take<T>(
    paths: &Paths,
    file: &'static str,
    read: impl Fn(&[u8]) -> Result<T, LegacyError>,
) -> Result<Option<T>, LegacyTrouble> {
    let path = paths.config.join(file);
    let bytes = match store::read_bounded(&path, legacy::FILE_MAX) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(LegacyTrouble::Read { path, source }),
        Ok(bytes) => bytes,
    };
    read(&bytes).map(Some).map_err(|source| LegacyTrouble::Refused { file, source })
}
