//! The EVE API v2, both sides: messages, the signed envelope, certificates, log files, and the
//! conversion between the wire and `model`.
//!
//! Bytes and times come as arguments; nothing here opens a socket, reads a file or asks a clock.
//!
//! What a node does with an answer to `config`:
//!
//! ```no_run
//! # fn node(certs_body: &[u8], config_body: &[u8], root_pem: &[u8], now: model::UnixMillis)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! use api::{certs, envelope, limits};
//!
//! // Once, and again whenever `verify` says `UnknownSigner`:
//! let controller = certs::learn(certs_body, root_pem, now)?;
//!
//! let answer = envelope::open(config_body, limits::CONFIG)?;
//! let payload = answer.verify(controller.signer())?;
//! # Ok(())
//! # }
//! ```
//!
//! What a controller does with a request:
//!
//! ```no_run
//! # fn controller(body: &[u8], lookup: impl Fn(api::SenderHash) -> Option<api::Certificate>)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! use api::{Signer, envelope, limits};
//!
//! let request = envelope::open(body, limits::INFO)?;
//! let device = lookup(request.sender()?).ok_or("unknown device")?;
//! let payload = request.verify(&Signer::device(&device)?)?;
//! # Ok(())
//! # }
//! ```

pub mod bootstrap;
pub mod certs;
pub mod cipher;
pub mod convert;
mod cursor;
pub mod edgeview;
pub mod envelope;
pub mod eventlog;
mod identity;
#[cfg(feature = "json")]
pub mod json;
pub mod loc;
pub mod lps;
pub mod newlogs;
pub mod onboarding;
pub mod quote;
pub mod whole;
pub mod wire;

pub use envelope::{Sender, SenderHash, Signer};
pub use identity::{
    Certificate, CertificateError, Issuance, KeyError, SigningKey, begin_of, device_certificate,
    end_of, exchange_certificate, issuance_of, names_of,
};
pub use wire::{limits, pb};
