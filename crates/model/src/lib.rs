//! The words everything else is said in: ids, units, digests, diagnosis, what a node is told
//! ([`desired`]) and what it says of itself ([`reported`]), the topics its services share, and the
//! table of services.
//!
//! No input or output, no async, no wire formats. A type that only one crate needs lives there.

mod arch;
pub mod boot;
pub mod desired;
pub mod diagnosis;
mod digest;
mod id;
pub mod installer;
pub mod reported;
mod secret;
pub mod services;
mod time;
pub mod topic;
mod units;

pub use arch::Arch;
pub use diagnosis::{Diagnose, Diagnosis, Problem, Who, chain};
pub use digest::{Digest, DigestError};
pub use id::{
    AppId, ContentId, DatastoreId, DeviceId, Id, NetworkId, NetworkInstanceId, PatchId, VolumeId,
};
pub use secret::Secret;
pub use time::UnixMillis;
pub use units::{Bytes, Sector512};
