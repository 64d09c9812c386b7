//! Installing a node onto a disk. Two programs do it, and both do exactly this: `eved install` on a
//! machine that was booted from an installer, and `eve install` on a workstation.
//!
//! ```text
//! /bits, live.raw or dist/… ─▶ Payload ─┐
//! sysfs, tables ─▶ look ─▶ device::install::plan ─▶ Work ─▶ carry_out ─▶ report
//! ```
//!
//! [`Work::new`] makes everything that will be written, so that what cannot be made is told before
//! anything is touched; [`Work::carry_out`] writes it in the order of the plan and reads it back.
//! What is decided is decided in `device`; how bytes get to a disk is `host`'s.

mod look;
#[cfg(feature = "images")]
mod packed;
mod payload;
mod report;
mod work;

pub use look::{LookError, disks, files_of, look_at, medium_files};
pub use payload::{Bios, Blob, Payload, PayloadError};
pub use report::{ReportError, save};
pub use work::{InstallError, Progress, Work};
