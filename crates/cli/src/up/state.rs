//! The state folder of `eve up`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use host::detached::Detached;
use host::qemu::Accel;
use model::{Arch, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::out;

/// `state.json`: what was started, and what it was started from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    /// The layout of this file and of the folder.
    pub format: u32,
    /// What the node's processor is.
    #[serde(default = "amd64")]
    pub arch: Arch,
    /// When the node was powered on.
    pub started: UnixMillis,
    /// The image that the node's disk is a copy of.
    pub image: PathBuf,
    /// Tells that image from another at the same place.
    pub image_stamp: String,
    /// The size of its slot image, in bytes, if known.
    pub slot_bytes: Option<u64>,
    /// The node's soft serial number.
    pub serial: String,
    /// The port of this machine for the page.
    pub page_port: u16,
    /// The port of this machine for the controller.
    pub controller_port: u16,
    /// What runs the guest, and why.
    pub accel: Accel,
    /// … in words.
    pub accel_why: String,
    /// The controller, while it may run.
    pub controller: Option<Detached>,
    /// QEMU, while it may run.
    pub node: Option<Detached>,
    /// swtpm, while it may run.
    pub tpm: Option<Detached>,
    /// What came when in the last boot that was watched.
    pub timeline: Vec<Mark>,
}

/// Every node, before others could be chosen.
fn amd64() -> Arch {
    Arch::Amd64
}

/// A moment of a boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// What came.
    pub what: String,
    /// Milliseconds since power-on.
    pub at_ms: u64,
}

/// Changes when older files cannot be used any more.
pub(super) const FORMAT: u32 = 1;

const NAME: &str = "state.json";

impl State {
    /// Whether anything of it still runs.
    pub(super) fn runs(&self) -> bool {
        [&self.controller, &self.node, &self.tpm].into_iter().flatten().any(Detached::is_alive)
    }

    /// Whether controller and node both run.
    pub(super) fn is_up(&self) -> bool {
        [&self.controller, &self.node].iter().all(|p| p.as_ref().is_some_and(Detached::is_alive))
    }
}

/// The folder.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// The folder at `path`, made if need be, for its owner only: it holds keys.
    pub(super) fn open(path: &Path) -> anyhow::Result<Folder> {
        use std::os::unix::fs::DirBuilderExt;
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|e| {
            let text = format!("cannot create {}: {e}", path.display());
            out::advised(text, "name a folder that you may write to with --state")
        })?;
        let path = path.canonicalize().with_context(|| format!("cannot use {}", path.display()))?;
        Ok(Folder { path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Holds off another `eve up` or `eve down`; until the file is dropped.
    pub(super) fn lock(&self) -> anyhow::Result<File> {
        let path = self.path.join("lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(fs::TryLockError::WouldBlock) => Err(out::advised(
                format!("another `eve up` or `eve down` is at work in {}", self.path.display()),
                "wait for it, or use a folder of your own with --state",
            )),
            Err(fs::TryLockError::Error(e)) => {
                Err(e).with_context(|| format!("cannot lock {}", path.display()))
            }
        }
    }

    /// `None`: nothing was ever started here.
    pub(super) fn load(&self) -> anyhow::Result<Option<State>> {
        let path = self.path.join(NAME);
        let body = match fs::read(&path) {
            Ok(body) => body,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
        };
        let state: State = serde_json::from_slice(&body)
            .with_context(|| format!("{} is not what `eve up` writes", path.display()))?;
        if state.format != FORMAT {
            bail!(
                "{} is of format {}, this `eve` writes {FORMAT}: stop it with the `eve` that \
                 started it",
                path.display(),
                state.format
            );
        }
        Ok(Some(state))
    }

    pub(super) fn save(&self, state: &State) -> anyhow::Result<()> {
        Ok(store::save(&self.path, NAME, &serde_json::to_vec_pretty(state)?)?)
    }

    /// Removes everything but the lock.
    pub(super) fn clear(&self) -> anyhow::Result<()> {
        for dir in [self.node_dir(), self.controller_dir()] {
            if dir.exists() {
                let removed = fs::remove_dir_all(&dir);
                removed.with_context(|| format!("cannot remove {}", dir.display()))?;
            }
        }
        let _ = fs::remove_file(self.controller_log());
        Ok(store::remove(&self.path, NAME)?)
    }

    pub(super) fn controller_dir(&self) -> PathBuf {
        self.path.join("controller")
    }

    pub(super) fn controller_log(&self) -> PathBuf {
        self.path.join("controller.log")
    }

    pub(super) fn node_dir(&self) -> PathBuf {
        self.path.join("node")
    }

    pub(super) fn disk(&self) -> PathBuf {
        self.node_dir().join("disk.raw")
    }

    pub(super) fn serial_log(&self) -> PathBuf {
        self.node_dir().join("serial.log")
    }

    pub(super) fn qemu_log(&self) -> PathBuf {
        self.node_dir().join("qemu.log")
    }

    pub(super) fn qmp(&self) -> PathBuf {
        self.node_dir().join("qmp.sock")
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::up) fn example() -> State {
        State {
            arch: Arch::Amd64,
            format: FORMAT,
            started: UnixMillis(1),
            image: "/dist/live.raw".into(),
            image_stamp: "1".into(),
            slot_bytes: Some(63_000_000),
            serial: "demo-1".into(),
            page_port: 8080,
            controller_port: 8443,
            accel: Accel::Tcg,
            accel_why: "there is no /dev/kvm".into(),
            controller: None,
            node: None,
            tpm: None,
            timeline: vec![Mark { what: "kernel".into(), at_ms: 2500 }],
        }
    }

    #[test]
    fn what_was_saved_loads() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(&dir.path().join("a/b")).unwrap();
        assert_eq!(folder.load().unwrap(), None);
        folder.save(&example()).unwrap();
        assert_eq!(folder.load().unwrap(), Some(example()));
        folder.clear().unwrap();
        assert_eq!(folder.load().unwrap(), None);
    }

    #[test]
    fn the_state_of_another_version_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        folder.save(&State { format: FORMAT + 1, ..example() }).unwrap();
        assert!(folder.load().is_err());
    }

    #[test]
    fn two_at_once_do_not_go() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let held = folder.lock().unwrap();
        assert!(folder.lock().unwrap_err().to_string().contains("another `eve up`"));
        drop(held);
        folder.lock().unwrap();
    }

    #[test]
    fn a_process_that_is_not_ours_does_not_count_as_up() {
        let us = Detached::of(std::process::id()).unwrap();
        let stranger = Detached { started_ticks: us.started_ticks + 1, ..us.clone() };
        let up = State { controller: Some(us.clone()), node: Some(us.clone()), ..example() };
        assert!(up.is_up() && up.runs());
        let half = State { node: Some(stranger.clone()), ..up };
        assert!(!half.is_up() && half.runs());
        assert!(!State { controller: Some(stranger), ..example() }.runs());
    }
}
