//! The folders of services: topics in /run/eve, state in /persist, log pipes. Each belongs to the
//! user of its service, so that the kernel keeps one from writing into another's.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::Path;

use model::services::{ALL, Service, Spec};

use crate::failure::{Doing, Failure};

/// Where log pipes are.
const LOG: &str = "/run/eve/log";

/// Folders that need no disk.
pub(crate) fn early() -> Result<(), Failure> {
    // Sticky: `health` puts its request for a reboot here, and may not touch what others put here.
    make(Path::new("/run/eve"), 0, Service::Health.spec().uid, 0o1775)?;
    make(Path::new(LOG), 0, 0, 0o755)?;
    make(Path::new("/run/eve-apps"), 0, 0, 0o711)?;
    make(Path::new("/run/netns"), Service::Netinst.spec().uid, 0, 0o755)?;
    for (topic, owner, persistent) in model::topic::ALL {
        if !persistent {
            let uid = owner.spec().uid;
            make(&Path::new("/run/eve").join(topic), uid, uid, 0o755)?;
        }
    }
    // The network's own folder, with the file that /etc/resolv.conf leads to: only its owner may
    // replace it.
    let network = Service::Network.spec().uid;
    make(Path::new("/run/eve/network"), network, network, 0o755)?;
    match std::os::unix::fs::symlink("/run/eve/network/resolv.conf", "/run/resolv.conf") {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.doing(|| "link /run/resolv.conf".to_owned()),
    }?;
    ALL.iter().try_for_each(|spec| pipe(spec.service))
}

/// Folders on /persist, once it is mounted.
pub(crate) fn on_persist() -> Result<(), Failure> {
    make(Path::new("/persist/status"), 0, 0, 0o755)?;
    for (topic, owner, persistent) in model::topic::ALL {
        if *persistent {
            let uid = owner.spec().uid;
            make(&Path::new("/persist/status").join(topic), uid, uid, 0o755)?;
        }
    }
    for spec in ALL {
        for folder in spec.state {
            make(&Path::new("/persist").join(folder), spec.uid, state_group(spec), 0o750)?;
        }
    }
    Ok(())
}

/// Who shares a group with others (that of the device key) lets them through its folder.
fn state_group(spec: &Spec) -> u32 {
    spec.groups.first().copied().unwrap_or(spec.uid)
}

/// The log pipe of a service: its reader is `log`, its writer gets it from us.
fn pipe(service: Service) -> Result<(), Failure> {
    let path = log_pipe(service);
    let reader = Service::Log.spec().uid;
    let create = || -> io::Result<()> {
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        match rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        chown(&path, Some(reader), Some(reader))
    };
    create().doing(|| format!("make pipe {path}"))
}

/// Where the log of a service goes.
pub(crate) fn log_pipe(service: Service) -> String {
    format!("{LOG}/{}", service.name())
}

fn make(path: &Path, uid: u32, gid: u32, mode: u32) -> Result<(), Failure> {
    let create = || -> io::Result<()> {
        match DirBuilder::new().mode(mode).create(path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
        // Said again for a folder of an earlier version, and past the umask.
        chown(path, Some(uid), Some(gid))?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    };
    create().doing(|| format!("make folder {}", path.display()))
}
