//! The lab: nodes in QEMU, with UEFI, a network, a TPM if wanted, and a way in.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! let lab = testbed::Lab::new("hello")?;
//! let mut node = lab.boot(&testbed::Image::current()?)?;
//! node.onboard()?;
//! node.run_hello()?;
//! node.power_cut();
//! node.start()?;
//! assert_eq!(node.app("hello").get("/healthz")?.status, 200);
//! # Ok(())
//! # }
//! ```
//!
//! [`Lab::boot`] boots an image once and keeps what it was like when it was up; every later call
//! goes on from there in less than a second. [`Lab::cold_boot`] goes through the firmware. Nodes
//! talk to tests over the debug channel of the debug profile's images. Every wait has a limit, every node's
//! serial log stays in `target/lab/<test>/`, and a node that panics or finds its file system
//! corrupt fails the test at once, with the end of the log.
//!
//! The lab never runs on a mock: a kernel, a disk and a network, all emulated whole.
//!
//! [`sim`] is for what needs many devices and no node: simulated ones, which speak to a real
//! controller.

mod app;
mod converted;
mod debug;
mod device;
mod image;
mod installation;
mod lab;
mod postgres;
pub mod sim;
mod site;
mod snapshot;

pub use app::App;
pub use debug::Output;
pub use device::Device;
pub use image::Image;
pub use installation::{Installation, Medium, fill};
pub use lab::{Lab, Setup};
pub use postgres::Postgres;
pub use site::Site;
