//! `eve-init`: PID 1 of the initrd and of the node, and the kernel's `modprobe`.
//!
//! The path of a boot, in the order of reading:
//!
//! 1. [`initrd`] loads the modules that the disk needs, finds the slot's partition ([`partition`]; an
//!    installer's may lie in an ISO, [`medium`]),
//!    opens it through dm-verity ([`verity`]) and becomes `/sbin/eve-init` of that image;
//! 2. [`node`] mounts the rest ([`mounts`]), copies the CONFIG partition ([`config`]), makes the
//!    folders and cgroups of the services, and then keeps the services of `services.toml` alive:
//!    [`supervise`] decides, [`spawn`] starts, [`notify`] listens, [`watchdog`] is fed;
//! 3. [`shutdown`] ends it all in order.
//!
//! What it will not do: decide anything about apps, networks or disks. Those are services.

mod cgroup;
mod cmdline;
mod config;
mod console;
mod failure;
mod folders;
mod initrd;
mod medium;
mod modules;
mod mounts;
mod node;
mod notify;
mod partition;
mod power;
mod shutdown;
mod spawn;
mod supervise;
mod uevent;
mod verity;
mod watchdog;

use std::path::Path;
use std::process::ExitCode;

/// The initrd has this file, and nothing else has.
const INITRD_MARK: &str = "/modules.list";

fn main() -> ExitCode {
    let mut args = std::env::args();
    let name = args.next().unwrap_or_default();
    let name = Path::new(&name).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let rest: Vec<String> = args.collect();
    match (name.as_str(), rest.first().map(String::as_str)) {
        ("modprobe", _) => modules::modprobe(&rest),
        (_, Some("load-modules")) => modules::load_for_devices(&rest[1..]),
        (_, Some("check-root")) => verity::check_root(),
        _ if std::process::id() != 1 => {
            eprintln!("eve-init is PID 1 of a node; nothing else calls it");
            ExitCode::from(2)
        }
        // If either returns, the kernel panics: that is how a node without a root stops.
        _ if Path::new(INITRD_MARK).exists() => initrd::run(),
        _ => node::run(),
    }
}
