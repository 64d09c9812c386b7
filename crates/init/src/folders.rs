//! The folders of services: topics in /run/eve, state in /persist, log pipes. Each belongs to the
//! user of its service, so that the kernel keeps one from writing into another's.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::Path;

use model::services::{ALL, Service, Spec};
use model::topic::Declared;

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
    topics(Path::new("/run/eve"), false)?;
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
    topics(Path::new("/persist/status"), true)?;
    for spec in ALL {
        for folder in spec.state {
            make(&Path::new("/persist").join(folder), spec.uid, state_group(spec), 0o750)?;
        }
    }
    Ok(())
}

/// The folders of the topics that outlive a reboot, or of the others.
fn topics(root: &Path, persistent: bool) -> Result<(), Failure> {
    for topic in model::topic::ALL.iter().filter(|t| t.persistent == persistent) {
        let (group, mode) = access(topic);
        make(&root.join(topic.name), topic.owner.spec().uid, group, mode)?;
    }
    Ok(())
}

/// Group and mode of a topic's folder: rows with opened secrets are for their one reader.
fn access(topic: &Declared) -> (u32, u32) {
    match topic.only_for {
        Some(reader) => (reader.spec().uid, 0o750),
        None => (topic.owner.spec().uid, 0o755),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opened_secrets_are_behind_a_folder_that_only_their_reader_enters() {
        let of = |name: &str| {
            let topic = model::topic::ALL.iter().find(|t| t.name == name).unwrap();
            access(topic)
        };
        assert_eq!(of("desired-datastores"), (Service::Content.spec().uid, 0o750));
        assert_eq!(of("desired-ports"), (Service::Network.spec().uid, 0o750));
        assert_eq!(of("desired-apps"), (Service::Netinst.spec().uid, 0o750));
        assert_eq!(of("properties"), (Service::Config.spec().uid, 0o755));
        // Each service is the one member of its group, so that a group is a reader.
        let members = |gid: u32| {
            ALL.iter().filter(move |s| s.uid == gid || s.groups.contains(&gid)).map(|s| s.service)
        };
        for topic in model::topic::ALL {
            let Some(reader) = topic.only_for else { continue };
            assert_eq!(members(reader.spec().uid).collect::<Vec<_>>(), [reader], "{}", topic.name);
        }
    }
}
