//! Installing a node: from what a person wants ([`wish`]) and what the machine has ([`disks`]) to a
//! plan ([`plan`]), or to a refusal that says what is needed and what is there.
//!
//! ```text
//! command line ─┐
//! answers ──────┴▶ Wish ─┐
//! disks and tables ──────┼▶ choose ─▶ plan ─▶ Step, Step, … table last
//! slot image, profile ───┘      └────────┴──▶ Refusal, and nothing is touched
//! ```
//!
//! The order of the steps is the protection: a disk that gets new partitions loses its old tables
//! before anything else and has the new one written when all else was read back, so that a cut-off
//! installation leaves a disk that does not boot at all. A disk that keeps something keeps its table
//! from beginning to end, and only its boot partition is closed while the rest is being written.
//!
//! It decides; `install` does.

mod conf;
mod disks;
mod plan;
mod refusal;
mod wish;

pub use conf::{Serial, config};
pub use disks::{Disk, Found, Transport, choose, recognize, to_nuke};
pub use plan::{DiskPlan, Payload, Plan, Range, Step, plan};
pub use refusal::Refusal;
pub use wish::{Nuke, Skip, Wish, WishError, read};

#[cfg(test)]
mod tests;
