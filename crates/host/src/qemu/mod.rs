//! Virtual machines on the machine of whoever builds or tests: QEMU with UEFI, a TPM in software,
//! disks, user-mode networks, a serial log and a debug port.
//!
//! [`Machine`] says what to run and becomes a command line by a pure function; [`Guest`] is one
//! that runs. Acceleration is never assumed: [`probe::accel`] runs a guest to find out. Nothing
//! here knows what the guest is.

mod disk;
mod error;
mod firmware;
mod forward;
mod guest;
mod machine;
pub mod probe;
mod qmp;
mod serial;
mod swtpm;

pub use disk::{blank, copy_sparse, grow, overlay};
pub use error::QemuError;
pub use firmware::Firmware;
pub use forward::{Forward, Page};
pub use guest::{Guest, PowerDown, start, start_detached};
pub use machine::{Accel, Disk, DiskFormat, Flash, Machine, Nic, Serial};
pub use qmp::Qmp;
pub use serial::{Line, SerialLog};
pub use swtpm::Swtpm;
