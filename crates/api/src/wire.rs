//! Protobuf bytes: the generated types, bounded decoding, and how much of what we read.
//!
//! Other crates do not know `prost`; they come and go through [`decode`] and [`encode`].

use model::{Bytes, Diagnose, Diagnosis, Who};
use prost::Message;

/// The generated types, a module a package.
#[expect(
    missing_docs,
    clippy::allow_attributes,
    clippy::doc_markdown,
    clippy::large_enum_variant,
    clippy::derive_partial_eq_without_eq,
    reason = "generated; what a field means stands in `proto/` and in the specification"
)]
pub mod pb {
    pub mod attest {
        include!(concat!(env!("OUT_DIR"), "/org.lfedge.eve.attest.rs"));
    }
    pub mod auth {
        include!(concat!(env!("OUT_DIR"), "/org.lfedge.eve.auth.rs"));
    }
    pub mod certs {
        include!(concat!(env!("OUT_DIR"), "/org.lfedge.eve.certs.rs"));
    }
    pub mod common {
        include!(concat!(env!("OUT_DIR"), "/org.lfedge.eve.common.rs"));
    }
    pub mod config {
        include!(concat!(env!("OUT_DIR"), "/org.lfedge.eve.config.rs"));
    }
    pub mod flowlog {
        include!(concat!(env!("OUT_DIR"), "/org.lfedge.eve.flowlog.rs"));
    }
    pub mod hardwarehealth {
        include!(concat!(env!("OUT_DIR"), "/org.lfedge.eve.hardwarehealth.rs"));
    }
    pub mod info {
        include!(concat!(env!("OUT_DIR"), "/org.lfedge.eve.info.rs"));
    }
    pub mod logs {
        include!(concat!(env!("OUT_DIR"), "/org.lfedge.eve.logs.rs"));
    }
    pub mod metrics {
        include!(concat!(env!("OUT_DIR"), "/org.lfedge.eve.metrics.rs"));
    }
    pub mod nestedappinstancemetrics {
        include!(concat!(env!("OUT_DIR"), "/org.lfedge.eve.nestedappinstancemetrics.rs"));
    }
    pub mod profile {
        include!(concat!(env!("OUT_DIR"), "/org.lfedge.eve.profile.rs"));
    }
    pub mod proxy {
        include!(concat!(env!("OUT_DIR"), "/org.lfedge.eve.proxy.rs"));
    }
    pub mod register {
        include!(concat!(env!("OUT_DIR"), "/org.lfedge.eve.register.rs"));
    }
    pub mod uuid {
        include!(concat!(env!("OUT_DIR"), "/org.lfedge.eve.uuid.rs"));
    }
}

/// How many bytes of each kind of body we read. The API negotiates none; these are above what
/// EVE and its controllers send.
pub mod limits {
    use model::Bytes;

    /// Certificates: tens of PEM texts.
    pub const CERTS: Bytes = Bytes::kib(256);
    /// Register and uuid: one certificate and a few short texts.
    pub const ONBOARDING: Bytes = Bytes::kib(64);
    /// A config: the specification asks devices to survive 10 MB.
    pub const CONFIG: Bytes = Bytes::mib(16);
    /// Attestation: the event log alone may be 63 KiB.
    pub const ATTEST: Bytes = Bytes::mib(1);
    /// Info: the hardware inventory and blob lists are the largest.
    pub const INFO: Bytes = Bytes::mib(4);
    /// Metrics of a node with many apps.
    pub const METRICS: Bytes = Bytes::mib(4);
    /// A log file: EVE's hard limit is 65,536 bytes, and the envelope adds a few hundred.
    pub const NEWLOGS: Bytes = Bytes::kib(256);
    /// What a log file may unpack to.
    pub const NEWLOGS_UNPACKED: Bytes = Bytes::mib(16);
}

/// Bytes that are not the message they should be.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// More than we read.
    #[error("{what} has {got}, more than {limit}")]
    TooLong {
        /// The message.
        what: &'static str,
        /// Its size.
        got: Bytes,
        /// What we read at most.
        limit: Bytes,
    },
    /// Not protobuf, or not this message.
    #[error("cannot decode {what}")]
    Decode {
        /// The message.
        what: &'static str,
        /// Why not.
        source: prost::DecodeError,
    },
}

impl Diagnose for WireError {
    fn diagnose(&self) -> Diagnosis {
        Diagnosis::of(Who::Developer, "find out what the sender put into the message")
    }
}

/// Reads a message. Unknown fields are ignored, as protobuf asks.
pub fn decode<M: Message + Default>(bytes: &[u8], limit: Bytes) -> Result<M, WireError> {
    let what = short_name::<M>();
    let got = Bytes(bytes.len() as u64);
    if got > limit {
        return Err(WireError::TooLong { what, got, limit });
    }
    M::decode(bytes).map_err(|source| WireError::Decode { what, source })
}

/// The bytes of a message: the same for the same message.
pub fn encode<M: Message>(message: &M) -> Vec<u8> {
    message.encode_to_vec()
}

/// `EdgeDevConfig` of `api::…::EdgeDevConfig`.
fn short_name<M>() -> &'static str {
    let name = std::any::type_name::<M>();
    name.rsplit("::").next().unwrap_or(name)
}
