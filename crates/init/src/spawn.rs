//! Starting one service with exactly the rights that `services.toml` gives it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use model::services::{Class, Spec};
use rustix::process::{Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::failure::{Doing, Failure};
use crate::{cgroup, folders, notify};

const EVED: &str = "/usr/bin/eved";
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Starts a service. Its output goes to its log pipe.
pub(crate) fn start(spec: &Spec) -> Result<i32, Failure> {
    let name = spec.service.name();
    let cgroup = cgroup::of_service(spec.service, spec.memory)?;
    let log = open_log(spec).doing(|| format!("open the log pipe of {name}"))?;
    let errors = log.try_clone().doing(|| format!("open the log pipe of {name}"))?;
    let rights = Rights::of(spec).doing(|| format!("read the rights of {name}"))?;
    #[expect(
        clippy::disallowed_methods,
        reason = "init may not use host: it has a door of its own"
    )]
    let mut command = Command::new(EVED);
    command
        .arg(name)
        .env_clear()
        .env("PATH", PATH)
        .env("NOTIFY_SOCKET", notify::SOCKET)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors);
    if !spec.watchdog.is_zero() {
        command.env("WATCHDOG_USEC", spec.watchdog.as_micros().to_string());
    }
    // SAFETY: between fork and exec only system calls are made, through values made before; this
    // process has one thread, so even the allocator would be in order.
    #[expect(unsafe_code, reason = "what a process may do must be set before it is the service")]
    unsafe {
        command.pre_exec(move || rights.take_on(&cgroup));
    }
    let child = command.spawn().doing(|| format!("start {EVED} {name}"))?;
    // It is reaped by its number, with all others.
    Ok(i32::try_from(child.id()).unwrap_or_default())
}

/// The last lines in a service's log pipe: for the case that the one who reads them is not there.
pub(crate) fn last_words(spec: &Spec) -> Vec<String> {
    let Ok(mut pipe) = open_pipe(spec, true) else { return Vec::new() };
    let mut bytes = vec![0; 1 << 16];
    let length = pipe.read(&mut bytes).unwrap_or(0);
    let text = String::from_utf8_lossy(&bytes[..length]);
    let lines: Vec<String> = text.lines().map(|l| l.chars().take(400).collect()).collect();
    lines[lines.len().saturating_sub(6)..].to_vec()
}

/// The pipe for one start, by a description of its own: the service may make it non-blocking.
fn open_log(spec: &Spec) -> io::Result<File> {
    open_pipe(spec, false)
}

fn open_pipe(spec: &Spec, read: bool) -> io::Result<File> {
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    OpenOptions::new()
        .read(read)
        .write(!read)
        // PID 1 holds both ends, so neither waits for the other.
        .custom_flags(nonblocking)
        .open(folders::log_pipe(spec.service))
}

/// Opens a log pipe for good, so that nothing written is lost while its reader restarts.
pub(crate) fn hold_pipe(spec: &Spec) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(folders::log_pipe(spec.service))
}

/// What a process is before it becomes the service.
struct Rights {
    uid: u32,
    groups: Vec<rustix::process::Gid>,
    keep: CapabilitySet,
    all: bool,
    oom_score: &'static [u8],
}

impl Rights {
    fn of(spec: &Spec) -> io::Result<Rights> {
        let all = spec.rights.contains(&"ALL");
        let mut keep = CapabilitySet::empty();
        for name in spec.rights.iter().filter(|_| !all) {
            let plain = name.strip_prefix("CAP_").unwrap_or(name);
            keep |= CapabilitySet::from_name(plain)
                .ok_or_else(|| io::Error::other(format!("no capability is called {name}")))?;
        }
        Ok(Rights {
            uid: spec.uid,
            groups: spec.groups.iter().map(|g| rustix::process::Gid::from_raw(*g)).collect(),
            keep,
            all,
            oom_score: match spec.class {
                Class::Lifeline => b"-900",
                Class::Workload => b"-700",
            },
        })
    }

    fn take_on(&self, mut cgroup: &File) -> io::Result<()> {
        cgroup.write_all(b"0")?;
        rustix::process::setsid()?;
        // PID 1 takes its signals from a file; who it starts takes them as usual.
        nix::sys::signal::SigSet::empty().thread_set_mask()?;
        OpenOptions::new()
            .write(true)
            .open("/proc/self/oom_score_adj")?
            .write_all(self.oom_score)?;
        let limit = |n| Rlimit { current: Some(n), maximum: Some(n) };
        rustix::process::setrlimit(Resource::Core, limit(0))?;
        rustix::process::setrlimit(Resource::Nofile, limit(8192))?;
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        if self.all {
            return Ok(()); // a keeper of containers gives rights away itself
        }
        for cap in CapabilitySet::all().difference(self.keep).iter() {
            match rustix::thread::remove_capability_from_bounding_set(cap) {
                // One that this kernel does not know is not there to be dropped.
                Ok(()) | Err(rustix::io::Errno::INVAL) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        let uid = rustix::process::Uid::from_raw(self.uid);
        let gid = rustix::process::Gid::from_raw(self.uid);
        rustix::thread::set_keep_capabilities(true)?;
        rustix::thread::set_thread_groups(&self.groups)?;
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid)?;
        let sets =
            CapabilitySets { effective: self.keep, permitted: self.keep, inheritable: self.keep };
        rustix::thread::set_capabilities(None, sets)?;
        for cap in self.keep.iter() {
            rustix::thread::configure_capability_in_ambient_set(cap, true)?;
        }
        rustix::thread::set_no_new_privs(true)?;
        Ok(())
    }
}

/// Starts this very program for a task of its own, without a service's limits.
pub(crate) fn start_self(args: &[&str]) -> Result<i32, Failure> {
    #[expect(
        clippy::disallowed_methods,
        reason = "init may not use host: it has a door of its own"
    )]
    let mut command = Command::new("/proc/self/exe");
    command.args(args).env_clear().env("PATH", PATH).stdin(Stdio::null());
    let child = command.spawn().doing(|| format!("start eve-init {}", args.join(" ")))?;
    Ok(i32::try_from(child.id()).unwrap_or_default())
}

/// A short wait, or until one of these has something to read.
pub(crate) fn wait_for(fds: &[&dyn AsFd], patience: std::time::Duration) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut polled: Vec<PollFd<'_>> =
        fds.iter().map(|fd| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)).collect();
    let wait = Timespec::try_from(patience).ok();
    let _ = poll(&mut polled, wait.as_ref());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_right_in_services_toml_is_a_capability() {
        for spec in model::services::ALL {
            let rights = Rights::of(spec).unwrap();
            assert_eq!(rights.all, spec.rights == ["ALL"], "{:?}", spec.service);
        }
    }
}
