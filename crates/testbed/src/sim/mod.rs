//! Simulated devices: they speak the real protocol, down to the bytes on TLS, and hold next to
//! nothing in memory; a hundred thousand fit into one process.
//!
//! | Module | What |
//! |---|---|
//! | [`device`] | who a device is, what it knows and says |
//! | [`node`] | what it makes of its config, and how that fails when told to |
//! | [`report`] | info, metrics, logs, flow logs, hardware health |
//! | [`queue`] | what must arrive: tried again, or dropped |
//! | [`quote`] | a TPM as attestation sees one |
//! | [`keys`] | keys from a seed, certificates |
//! | [`line`](mod@line), [`http`] | how EVE sends; HTTP/1.1 over TLS |
//! | [`home`] | a real controller in the process of a test |
//! | [`load`] | many devices at once, and how long their requests take |
//! | [`proxy`] | answers, refuses or drops chosen requests between devices and a controller |
//!
//! Time is an argument everywhere, so that tests may let an hour go by.

pub mod device;
pub mod home;
pub mod http;
pub mod keys;
pub mod line;
pub mod load;
pub mod node;
pub mod proxy;
pub mod queue;
pub mod quote;
pub mod report;

pub use device::{Attested, Device, Flushed, Onboarded, Polled};
pub use home::Home;
pub use line::{Conf, Line, Mode, Way};
pub use node::{Failure, Node, Subject};
