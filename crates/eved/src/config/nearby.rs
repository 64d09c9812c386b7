//! What someone near the node changed: kept over reboots, and told to whoever puts a config in force.
//!
//! A command is on the disk as executed before anybody can see it. So it is never done twice; a power
//! cut just then loses it, and whoever gave it sees that by its timestamp.

use std::path::PathBuf;

use api::lps::{
    Answer, AppAction, AppBoot, AppCommand, Call, DeviceAction, DeviceCommand, Executed,
};
use api::pb::profile::NetworkPortConfig;
use device::local::{Overrides, meant};
use model::desired::{Device, LocalPower};
use model::{Bytes, chain};
use tokio::sync::watch;

/// In `/persist/checkpoint`.
const FILE: &str = "local";
/// Beside it: `LocalNetworkConfig` without its token.
const PORTS: &str = "local-ports";
const FILE_MAX: Bytes = Bytes::mib(4);
/// A longer name is none.
const PROFILE_MAX: usize = 255;

/// What is kept. Every version that was ever written loads.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(tag = "version")]
enum OnDisk {
    #[serde(rename = "1")]
    V1 {
        executed: Executed,
        overrides: Overrides,
        boots: Vec<AppBoot>,
        silence: bool,
        console: u64,
    },
}

/// What was changed.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Kept {
    /// Commands that are done or under way.
    pub(super) executed: Executed,
    /// What they and the server's wishes come to.
    pub(super) overrides: Overrides,
    /// From what apps are to boot.
    pub(super) boots: Vec<AppBoot>,
    /// Radios are to be silent.
    pub(super) silence: bool,
    /// Ports, as the server sets them up.
    pub(super) ports: Vec<NetworkPortConfig>,
    /// The timestamp of the last commands of a local operator console.
    pub(super) console: u64,
    /// To start anew or to switch off, in this boot.
    pub(super) power: Option<LocalPower>,
    /// The last command that nobody here can do.
    unable: u64,
}

/// The file and those who watch it. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Nearby {
    dir: PathBuf,
    kept: watch::Sender<Kept>,
}

impl Nearby {
    /// What an earlier boot kept in this folder; nothing if it is unreadable, which is told.
    pub(super) fn open(dir: PathBuf) -> Nearby {
        let read = |name: &str| match store::read_bounded(&dir.join(name), FILE_MAX) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => {
                tracing::warn!("what was changed nearby is lost: {name}: {e}");
                None
            }
            Ok(bytes) => Some(bytes),
        };
        let mut kept = Kept::default();
        match read(FILE).map(|bytes| serde_json::from_slice(&bytes)) {
            Some(Ok(OnDisk::V1 { executed, overrides, boots, silence, console })) => {
                kept = Kept { executed, overrides, boots, silence, console, ..kept };
            }
            Some(Err(e)) => tracing::warn!("what was changed nearby is lost: {FILE}: {e}"),
            None => {}
        }
        match read(PORTS).map(|bytes| Answer::read(Call::Network, 200, &bytes, "")) {
            Some(Ok(Answer::Ports(ports))) => kept.ports = ports,
            Some(Err(e)) => tracing::warn!("ports that were set up nearby are lost: {}", chain(&e)),
            _ => {}
        }
        Nearby { dir, kept: watch::Sender::new(kept) }
    }

    /// As it is now.
    pub(super) fn kept(&self) -> Kept {
        self.kept.borrow().clone()
    }

    /// To learn of changes.
    pub(super) fn watch(&self) -> watch::Receiver<Kept> {
        self.kept.subscribe()
    }

    /// Changes it: saved first, seen then. What cannot be saved is not done.
    pub(super) fn change(&self, change: impl FnOnce(&mut Kept)) {
        let before = self.kept();
        let mut after = before.clone();
        change(&mut after);
        if after == before {
            return;
        }
        if let Err(e) = self.save(&before, &after) {
            tracing::error!("what was changed nearby is not saved, and not done: {}", chain(&e));
            return;
        }
        self.kept.send_replace(after);
    }

    fn save(&self, before: &Kept, after: &Kept) -> Result<(), store::SaveError> {
        if before.ports != after.ports {
            let (_, bytes) = Answer::Ports(after.ports.clone()).to_body("");
            store::save(&self.dir, PORTS, &bytes)?;
        }
        let Kept { executed, overrides, boots, silence, console, .. } = after.clone();
        let disk = OnDisk::V1 { executed, overrides, boots, silence, console };
        store::save(&self.dir, FILE, &serde_json::to_vec(&disk).unwrap_or_default())
    }

    /// There is no local profile server any more: its wishes end. Commands that were done stay done.
    pub(super) fn forget_server(&self) {
        self.change(|kept| {
            kept.overrides.profile.clear();
            kept.boots.clear();
            kept.silence = false;
            kept.ports.clear();
        });
    }

    /// Takes what a local profile server said.
    pub(super) fn take(&self, call: Call, answer: Answer, told: &Device) {
        self.change(|kept| match answer {
            Answer::NoChange => {}
            Answer::NotThere => match call {
                Call::Network => kept.ports.clear(),
                Call::AppBootInfo => kept.boots.clear(),
                _ => {}
            },
            Answer::Profile(name) if name.len() > PROFILE_MAX => {
                tracing::warn!("LocalProfile.local_profile is longer than {PROFILE_MAX} bytes");
            }
            Answer::Profile(name) => {
                if name != kept.overrides.profile {
                    tracing::info!("local profile: {name:?}");
                }
                kept.overrides.profile = name;
            }
            Answer::Radio { silence } => kept.silence = silence,
            Answer::Apps(commands) => kept.apps(&commands, told),
            Answer::Boots(boots) => kept.boots = boots,
            Answer::Device(command) => kept.device(command.as_ref()),
            Answer::Ports(ports) => {
                // Passwords are not kept: there is no radio that would need them.
                let bare = |port| NetworkPortConfig { wireless_config: None, ..port };
                kept.ports = ports.into_iter().map(bare).collect();
            }
        });
    }
}

impl Kept {
    /// Does what is new among commands to apps.
    pub(super) fn apps(&mut self, commands: &[AppCommand], told: &Device) {
        for command in commands {
            let (id, name) = match &command.app {
                api::lps::Named::Id(id) => (id.as_str(), ""),
                api::lps::Named::Name(name) => ("", name.as_str()),
            };
            let Some(app) = meant(told, id, name) else { continue };
            let Some(action) = self.executed.app(&app.id.to_string(), command) else { continue };
            tracing::info!(app = app.name, "told nearby: {action:?}");
            let counts = self.overrides.counts.entry(app.id).or_default();
            match action {
                AppAction::Restart => counts.restart = counts.restart.wrapping_add(1),
                AppAction::Purge => counts.purge = counts.purge.wrapping_add(1),
            }
        }
    }

    /// Does what is new of a command to the node.
    pub(super) fn device(&mut self, command: Option<&DeviceCommand>) {
        let Some(command) = command else { return };
        if command.action == DeviceAction::CollectInfo {
            // It stays unanswered, so that nobody waits for a bundle that will not come.
            if std::mem::replace(&mut self.unable, command.timestamp) != command.timestamp {
                tracing::warn!("told nearby to collect information: that is not supported yet");
            }
            return;
        }
        let Some(action) = self.executed.device(command) else { return };
        tracing::warn!("told nearby: {action:?}");
        let timestamp = command.timestamp;
        match action {
            DeviceAction::Shutdown => self.overrides.halted = true,
            DeviceAction::PowerOff => self.power = Some(LocalPower { timestamp, off: true }),
            DeviceAction::Reboot => self.power = Some(LocalPower { timestamp, off: false }),
            DeviceAction::CollectInfo => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use api::lps::Named;
    use model::Id;

    use super::*;

    fn told() -> Device {
        Device::new(Id::new(uuid::Uuid::from_bytes([1; 16])))
    }

    fn reboot(timestamp: u64) -> Answer {
        Answer::Device(Some(DeviceCommand { timestamp, action: DeviceAction::Reboot }))
    }

    #[test]
    fn a_command_is_done_once_also_after_a_reboot() {
        let dir = tempfile::tempdir().unwrap();
        let nearby = Nearby::open(dir.path().to_owned());
        nearby.take(Call::DevInfo, reboot(7), &told());
        assert_eq!(nearby.kept().power, Some(LocalPower { timestamp: 7, off: false }));
        let nearby = Nearby::open(dir.path().to_owned());
        assert_eq!(nearby.kept().power, None);
        nearby.take(Call::DevInfo, reboot(7), &told());
        assert_eq!(nearby.kept().power, None);
        nearby.take(Call::DevInfo, reboot(3), &told());
        assert_eq!(nearby.kept().power, Some(LocalPower { timestamp: 3, off: false }));
    }

    #[test]
    fn a_command_that_cannot_be_saved_is_not_done() {
        let dir = tempfile::tempdir().unwrap();
        let nearby = Nearby::open(dir.path().join("missing"));
        nearby.take(Call::DevInfo, reboot(7), &told());
        assert_eq!(nearby.kept(), Kept::default());
    }

    #[test]
    fn what_a_server_wished_outlives_a_reboot_and_ends_with_the_server() {
        let dir = tempfile::tempdir().unwrap();
        let nearby = Nearby::open(dir.path().to_owned());
        let app = Named::Name("a".to_owned());
        nearby.take(Call::LocalProfile, Answer::Profile("night".to_owned()), &told());
        nearby.take(Call::Radio, Answer::Radio { silence: true }, &told());
        let boot = AppBoot { app, usb: Some(true) };
        nearby.take(Call::AppBootInfo, Answer::Boots(vec![boot]), &told());
        let port = NetworkPortConfig { logical_label: "eth0".into(), ..Default::default() };
        nearby.take(Call::Network, Answer::Ports(vec![port]), &told());
        let before = nearby.kept();
        let nearby = Nearby::open(dir.path().to_owned());
        assert_eq!(nearby.kept(), before);
        assert_eq!((before.overrides.profile.as_str(), before.silence), ("night", true));
        // No change is no change; what is not there is forgotten where the text says so.
        for call in Call::ALL {
            nearby.take(call, Answer::NoChange, &told());
        }
        assert_eq!(nearby.kept(), before);
        for call in Call::ALL {
            nearby.take(call, Answer::NotThere, &told());
        }
        let after = nearby.kept();
        assert!(after.ports.is_empty() && after.boots.is_empty());
        assert_eq!((after.overrides.profile.as_str(), after.silence), ("night", true));
        nearby.forget_server();
        assert_eq!(nearby.kept(), Kept::default());
    }
}
