//! Containers, by way of `crun`: create, start, signal, look, delete; and what they need around
//! them: an overlay as root, a pipe for their output, word of their end.
//!
//! A container is detached: it outlives the service that started it. Its first process becomes our
//! child all the same ([`adopt_orphans`]), so that we see its exit status as long as we live.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use model::{Diagnose, Diagnosis, Who};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions};
use serde::Deserialize;
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};

use crate::process::{Tool, ToolError, run};

/// A log of `crun` is a line or two.
const LOG_MAX: u64 = 16 << 10;

/// The runtime, with the folder where it keeps what it knows of containers.
#[derive(Debug, Clone)]
pub struct Crun {
    state: PathBuf,
}

/// What the runtime knows of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// There is none.
    Nothing,
    /// Made, not started.
    Created,
    /// Its first process runs.
    Running {
        /// That process.
        pid: u32,
    },
    /// Its first process ended.
    Stopped,
}

/// Why something about a container did not work.
#[derive(Debug, thiserror::Error)]
pub enum CrunError {
    /// The program failed.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// The program failed and said why in its log.
    #[error("crun cannot {doing} {id}: {said}")]
    Failed {
        /// What it was to do.
        doing: &'static str,
        /// With which container.
        id: String,
        /// What it said.
        said: String,
    },
    /// It said something else than its documentation.
    #[error("crun says of {id} what we do not understand: {said}")]
    Strange {
        /// Of which container.
        id: String,
        /// What it said.
        said: String,
    },
    /// The operating system refused.
    #[error("cannot {doing} {path}")]
    Io {
        /// The operation.
        doing: &'static str,
        /// Its object.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Diagnose for CrunError {
    fn diagnose(&self) -> Diagnosis {
        match self {
            Self::Failed { .. } => {
                Diagnosis::of(Who::Operator, "check the app's image: its command, user and folders")
            }
            Self::Tool(_) | Self::Strange { .. } => {
                Diagnosis::of(Who::Developer, "report this with the node's log")
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Diagnosis::of(Who::Operator, "free space on the node's disk, or give it more")
            }
            Self::Io { .. } => Diagnosis::of(Who::Hardware, "check the node's disk and memory"),
        }
    }
}

#[derive(Deserialize)]
struct State {
    status: String,
    #[serde(default)]
    pid: u32,
}

impl Crun {
    /// Keeps state in this folder, which should not outlive a boot.
    pub fn new(state: impl Into<PathBuf>) -> Crun {
        Crun { state: state.into() }
    }

    /// Makes the container of a bundle (a folder with `config.json`). Its output goes to `output`.
    pub fn create(&self, id: &str, bundle: &Path, output: &File) -> Result<(), CrunError> {
        let log = bundle.join("crun.log");
        let _ = fs::remove_file(&log); // what an earlier try said
        let spawned = |source| ToolError::Spawn { tool: Tool::Crun, source };
        let copy = || output.try_clone().map(Stdio::from).map_err(spawned);
        let mut command = Tool::Crun.command();
        command
            .args(["--cgroup-manager=cgroupfs", "--log-format=text"])
            .arg("--root")
            .arg(&self.state)
            .arg("--log")
            .arg(&log)
            .args(["create", "--bundle"])
            .arg(bundle)
            .arg(id)
            .stdin(Stdio::null())
            // Not pipes of ours: the container keeps them open as long as it lives.
            .stdout(copy()?)
            .stderr(copy()?);
        let status = command.status().map_err(spawned)?;
        if status.success() {
            return Ok(());
        }
        let said = last_words(&log).unwrap_or_else(|| format!("it ended with {status}"));
        Err(CrunError::Failed { doing: "create", id: id.to_owned(), said })
    }

    /// Starts what was created.
    pub fn start(&self, id: &str) -> Result<(), CrunError> {
        self.run(&["start", id]).map(drop)
    }

    /// Sends a signal (`TERM`, `KILL`, …) to the first process.
    pub fn kill(&self, id: &str, signal: &str) -> Result<(), CrunError> {
        self.run(&["kill", id, signal]).map(drop)
    }

    /// Removes the container, whatever state it is in. One that is not there is no error.
    pub fn delete(&self, id: &str) -> Result<(), CrunError> {
        if self.known_to_disk(id) { self.run(&["delete", "--force", id]).map(drop) } else { Ok(()) }
    }

    /// What is known of it.
    pub fn look(&self, id: &str) -> Result<Known, CrunError> {
        if !self.known_to_disk(id) {
            return Ok(Known::Nothing);
        }
        let said = self.run(&["state", id])?;
        let strange = || CrunError::Strange {
            id: id.to_owned(),
            said: String::from_utf8_lossy(&said).chars().take(300).collect(),
        };
        let state: State = serde_json::from_slice(&said).map_err(|_| strange())?;
        match state.status.as_str() {
            "created" | "creating" => Ok(Known::Created),
            "running" | "paused" => Ok(Known::Running { pid: state.pid }),
            "stopped" => Ok(Known::Stopped),
            _ => Err(strange()),
        }
    }

    /// The ids of all containers.
    pub fn all(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.state).into_iter().flatten().flatten();
        let names = entries.filter_map(|e| e.file_name().into_string().ok());
        names.filter(|id| self.known_to_disk(id)).collect()
    }

    fn known_to_disk(&self, id: &str) -> bool {
        self.state.join(id).join("status").exists()
    }

    fn run(&self, args: &[&str]) -> Result<Vec<u8>, CrunError> {
        let root = self.state.to_string_lossy();
        let mut all = vec!["--cgroup-manager=cgroupfs", "--root", root.as_ref()];
        all.extend(args);
        Ok(run(Tool::Crun, &all)?)
    }
}

/// Makes us the parent of processes whose own parent ended, so that we learn their exit status.
pub fn adopt_orphans() -> io::Result<()> {
    let us = rustix::process::getpid();
    Ok(rustix::process::set_child_subreaper(Some(us))?)
}

/// Word of the end of one process.
#[derive(Debug)]
pub struct End {
    process: AsyncFd<OwnedFd>,
}

impl End {
    /// Watches a process.
    pub fn of(pid: u32) -> io::Result<End> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
        let fd = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK)?;
        // SAFETY: the AsyncFd owns the descriptor: it is open as long as it is registered.
        #[expect(unsafe_code, reason = "tokio's registration asks for it")]
        let process = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?;
        Ok(End { process })
    }

    /// Waits for it. The exit status; 128 and more for a signal; -1 if the process is not our child
    /// and nobody could see it.
    pub async fn status(&self) -> i32 {
        loop {
            let Ok(mut ready) = self.process.readable().await else { return -1 };
            let how = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
            let fd = self.process.get_ref().as_fd();
            match rustix::process::waitid(WaitId::PidFd(fd), how) {
                Ok(Some(status)) => {
                    let code = status.exit_status();
                    let signal = status.terminating_signal().map(|s| 128 + s);
                    return code.or(signal).unwrap_or(-1);
                }
                Ok(None) => ready.clear_ready_matching(Ready::READABLE),
                // Not our child: a descriptor that is readable says that it ended.
                Err(_) if ended(fd) => return -1,
                Err(_) => ready.clear_ready_matching(Ready::READABLE),
            }
        }
    }
}

/// Whether the process of this descriptor ended. A wake-up alone does not say so.
fn ended(process: BorrowedFd<'_>) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut polled = [PollFd::from_borrowed_fd(process, PollFlags::IN)];
    poll(&mut polled, Some(&now)).is_ok_and(|ready| ready > 0)
}

/// Mounts `lower` with everything that is written going to `upper`.
pub fn mount_overlay(
    lower: &Path,
    upper: &Path,
    work: &Path,
    target: &Path,
) -> Result<(), CrunError> {
    let failed = |source: rustix::io::Errno| CrunError::Io {
        doing: "mount an overlay on",
        path: target.to_owned(),
        source: source.into(),
    };
    let text = |p: &Path| p.to_string_lossy().into_owned();
    let options =
        format!("lowerdir={},upperdir={},workdir={}", text(lower), text(upper), text(work));
    let options = std::ffi::CString::new(options).map_err(|_| failed(rustix::io::Errno::INVAL))?;
    let flags = rustix::mount::MountFlags::NODEV;
    rustix::mount::mount("overlay", target, "overlay", flags, Some(options.as_c_str()))
        .map_err(failed)
}

/// Unmounts; a place where nothing is mounted is no error.
pub fn unmount(target: &Path) -> Result<(), CrunError> {
    match rustix::mount::unmount(target, rustix::mount::UnmountFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(()),
        Err(e) => Err(CrunError::Io { doing: "unmount", path: target.into(), source: e.into() }),
    }
}

/// Opens the pipe for a container's output, made if it is not there, to be read by the group
/// `reader`. It is opened for reading too, so that writing never fails because nobody reads now.
pub fn output_pipe(path: &Path, reader: u32) -> io::Result<File> {
    if !path.exists() {
        // It gets its name when the reader may open it.
        let new =
            path.with_file_name(format!(".{}", path.file_name().unwrap_or_default().display()));
        let _ = fs::remove_file(&new); // of a start that was cut short
        rustix::fs::mkfifoat(rustix::fs::CWD, &new, Mode::from_raw_mode(0o660))?;
        std::os::unix::fs::chown(&new, None, Some(reader))?;
        fs::set_permissions(&new, fs::Permissions::from_mode(0o660))?;
        fs::rename(&new, path)?;
    }
    OpenOptions::new().read(true).write(true).open(path)
}

/// Lets the reader open the pipe after [`Crun::create`], which gives it to the container's user and
/// group (so that an app may open `/dev/stdout`): the user stays, the group is the reader's.
pub fn share_pipe(path: &Path, reader: u32) -> io::Result<()> {
    std::os::unix::fs::chown(path, None, Some(reader))
}

/// Reads a file of a container's root, following links inside that root only. `None`: there is
/// none, or it is larger than `limit`, or no plain file.
pub fn read_inside(root: &Path, path: &str, limit: u64) -> Option<String> {
    let root = File::open(root).ok()?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let fd = rustix::fs::openat2(&root, path, flags, Mode::empty(), inside).ok()?;
    let mut file = File::from(fd);
    let meta = file.metadata().ok()?;
    if !meta.is_file() || meta.len() > limit {
        return None;
    }
    let mut text = Vec::new();
    file.by_ref().take(limit).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

fn last_words(log: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(log).ok()?.take(LOG_MAX).read_to_string(&mut text).ok()?;
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    (!lines.is_empty()).then(|| lines.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_a_container_is_never_one_of_the_node() {
        let dir = tempfile::tempdir().unwrap();
        let etc = dir.path().join("etc");
        fs::create_dir(&etc).unwrap();
        store::save(&etc, "real", b"root:x:0:0\n").unwrap();
        std::os::unix::fs::symlink("/etc/real", etc.join("passwd")).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", etc.join("outside")).unwrap();
        let read = |path: &str, limit| read_inside(dir.path(), path, limit);
        assert_eq!(read("/etc/passwd", 100).as_deref(), Some("root:x:0:0\n"));
        assert_eq!(read("etc/../../../etc/passwd", 100).as_deref(), Some("root:x:0:0\n"));
        assert_eq!(read("/etc/outside", 100), None);
        assert_eq!(read("/etc/passwd", 5), None);
        assert_eq!(read("/etc", 100), None);
    }

    #[tokio::test]
    #[expect(clippy::zombie_processes, reason = "`End` is what waits for it")]
    async fn the_end_of_a_child_is_seen_with_its_status() {
        for (script, want) in [("exit 7", 7), ("kill -9 $$", 137)] {
            let child = Tool::Shell.command().args(["-c", script]).spawn().unwrap();
            assert_eq!(End::of(child.id()).unwrap().status().await, want, "{script}");
        }
    }

    #[test]
    fn an_unknown_container_is_nothing_and_its_removal_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let crun = Crun::new(dir.path());
        assert_eq!(crun.look("none").unwrap(), Known::Nothing);
        crun.delete("none").unwrap();
        assert!(crun.all().is_empty());
    }
}
