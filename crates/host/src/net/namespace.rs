//! Network namespaces with a name: a file under /run/netns that keeps the namespace alive while no
//! process is in it, as `ip netns` does.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use super::NetError;

/// A network namespace.
#[derive(Debug)]
pub struct Namespace(File);

impl Namespace {
    /// Opens the namespace at `path`; makes it first if there is none.
    pub fn open_or_make(path: &Path) -> Result<Namespace, NetError> {
        if let Ok(namespace) = Namespace::open(path) {
            return Ok(namespace);
        }
        let fail = |source: io::Error| {
            NetError::new(format!("make network namespace {}", path.display()), source)
        };
        let _ =
            File::options().write(true).create(true).truncate(false).open(path).map_err(fail)?;
        on_thread(|| {
            // SAFETY: the thread is ours alone and ends right after; only its network changes.
            #[expect(unsafe_code, reason = "a namespace is made by leaving the old one")]
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
            mount_bind("/proc/thread-self/ns/net", path)
        })
        .map_err(fail)?;
        Namespace::open(path)
    }

    /// Opens the namespace at `path`.
    pub fn open(path: &Path) -> Result<Namespace, NetError> {
        let open = || -> io::Result<Namespace> {
            let file = File::open(path)?;
            // A name whose mount is gone (a reboot, a crash between two steps) is a plain file.
            const NSFS_MAGIC: i64 = 0x6e73_6673; // linux/magic.h
            let kind = rustix::fs::fstatfs(&file)?.f_type;
            if kind == NSFS_MAGIC {
                Ok(Namespace(file))
            } else {
                Err(io::Error::new(io::ErrorKind::NotFound, "there is no namespace behind it"))
            }
        };
        open().map_err(|e| NetError::new(format!("open network namespace {}", path.display()), e))
    }

    /// Takes the name away; the namespace goes with its last process. None is no error.
    pub fn remove(path: &Path) -> Result<(), NetError> {
        let _ = unmount(path, UnmountFlags::DETACH);
        match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(NetError::new(format!("remove network namespace {}", path.display()), e))
            }
            _ => Ok(()),
        }
    }

    /// Runs `act` on a thread inside the namespace. Sockets opened there stay there.
    pub fn enter<T: Send>(&self, act: impl FnOnce() -> T + Send) -> Result<T, NetError> {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                let kind = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(self.0.as_fd(), kind).map(|()| act())
            });
            match inside.join() {
                Ok(done) => done.map_err(|e| NetError::new("enter a network namespace", e)),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    pub(super) fn file(&self) -> &File {
        &self.0
    }
}

fn on_thread<T: Send>(act: impl FnOnce() -> rustix::io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| match scope.spawn(act).join() {
        Ok(done) => done.map_err(io::Error::from),
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
