//! The tree of cgroups (version 2): `/eve/services/<service>` with a memory limit each, `/eve/apps`
//! for containers.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use model::Bytes;
use model::services::Service;

use crate::console;
use crate::failure::{Doing, Failure};

const ROOT: &str = "/sys/fs/cgroup";
const SERVICES: &str = "/sys/fs/cgroup/eve/services";
const CONTROLLERS: [&str; 5] = ["cpu", "memory", "pids", "io", "cpuset"];

/// Makes the upper part of the tree and passes the controllers down.
pub(crate) fn prepare() -> Result<(), Failure> {
    for folder in ["", "eve", "eve/services", "eve/apps"] {
        let path = Path::new(ROOT).join(folder);
        if !path.exists() {
            fs::create_dir(&path).doing(|| format!("make cgroup {}", path.display()))?;
        }
        for controller in CONTROLLERS {
            // One by one: a kernel without one of them still has the others.
            if let Err(error) = put(&path.join("cgroup.subtree_control"), &format!("+{controller}"))
            {
                console::note(format_args!("no {controller} limits in /{folder}: {error}"));
            }
        }
    }
    Ok(())
}

/// Makes the cgroup of a service, ends what an earlier run left in it, and opens the file through
/// which a process joins it.
pub(crate) fn of_service(service: Service, memory: Bytes) -> Result<File, Failure> {
    let path = folder(service);
    let make = || -> io::Result<File> {
        if path.exists() {
            put(&path.join("cgroup.kill"), "1")?;
        } else {
            fs::create_dir(&path)?;
        }
        put(&path.join("memory.max"), &memory.0.to_string())?;
        // All of it or nothing: half a service is worse than a restart.
        put(&path.join("memory.oom.group"), "1")?;
        File::options().write(true).open(path.join("cgroup.procs"))
    };
    make().doing(|| format!("make cgroup {}", path.display()))
}

/// How often the kernel killed in this cgroup for lack of memory.
pub(crate) fn out_of_memory_kills(service: Service) -> u64 {
    let events = fs::read_to_string(folder(service).join("memory.events")).unwrap_or_default();
    let count = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count.and_then(|n| n.trim().parse().ok()).unwrap_or(0)
}

fn folder(service: Service) -> PathBuf {
    Path::new(SERVICES).join(service.name())
}

fn put(path: &Path, text: &str) -> io::Result<()> {
    File::options().write(true).open(path)?.write_all(text.as_bytes())
}
