//! The hands: what touches the kernel, the network, disks, other programs and the clock.
//!
//! They do as told and tell what came of it. Decisions live in `device` (node) and `builder`.

pub mod block;
pub mod clock;
pub mod crun;
pub mod debug_port;
pub mod detached;
pub mod disks;
pub mod efi;
pub mod http;
pub mod inventory;
pub mod kmsg;
pub mod net;
pub mod power;
pub mod process;
pub mod qemu;
pub mod registry;
pub mod smart;
pub mod sparse;
pub mod target;
pub mod topics;
pub mod usage;
