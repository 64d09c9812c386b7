//! The token of EdgeView, a session in which a person looks into a node.
//!
//! It is a JSON web token (RFC 7515, RFC 7519) with the header `{"alg":"ES256","typ":"JWT"}` and no
//! other, signed with the controller's signing key: r and s, 32 bytes each, in base64url without
//! padding. A node opens a session only if the token is its controller's, is meant for it, and has
//! not run out. Facts: `spec/api.md` §13.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use model::{Bytes, DeviceId, Diagnose, Diagnosis, UnixMillis, Who};
use serde::{Deserialize, Serialize};

use crate::envelope::Signer;
use crate::identity::{KeyError, PublicKey, SigningKey};

/// The addresses and the nonce in a token take some hundred bytes.
pub const TOKEN_MAX: Bytes = Bytes::kib(8);
/// People who may look at the same time.
pub const INSTANCES: std::ops::RangeInclusive<u8> = 1..=5;

/// Written by hand: the order of its members is part of what is signed.
const HEADER: &str = r#"{"alg":"ES256","typ":"JWT"}"#;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    typ: String,
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Where node and person meet: `host:port`, and a path if there is one.
    #[serde(rename = "dep")]
    pub dispatcher: String,
    /// The node it is meant for: a UUID.
    #[serde(rename = "sub")]
    pub device: String,
    /// When it runs out, in seconds since 1970.
    #[serde(rename = "exp")]
    pub expires: u64,
    /// A nonce that both ends of the session know.
    #[serde(default)]
    pub key: String,
    /// How many people may look at the same time, 1 to 5.
    #[serde(rename = "num", default)]
    pub instances: u8,
    /// Whether what they say is encrypted with `key`.
    #[serde(rename = "enc", default)]
    pub encrypted: bool,
    /// How people prove who they are: 0 not at all, 1 by a certificate of the controller, 2 by an
    /// SSH key.
    #[serde(rename = "aut", default)]
    pub authentication: u8,
}

/// A token, signed with the controller's signing key.
pub fn issue(claims: &Claims, key: &SigningKey) -> Result<String, EdgeviewError> {
    sound(claims)?;
    let body = serde_json::to_vec(claims).map_err(|source| EdgeviewError::Claims { source })?;
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(HEADER), URL_SAFE_NO_PAD.encode(body));
    let signature = URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes())?);
    let token = format!("{signed}.{signature}");
    let got = Bytes(token.len() as u64);
    if got > TOKEN_MAX { Err(EdgeviewError::TooLong { got }) } else { Ok(token) }
}

/// What a token says, if the controller `signer` signed it, it is meant for `device`, and it is not
/// over at `now`.
pub fn verify(
    token: &str,
    signer: &Signer,
    device: DeviceId,
    now: UnixMillis,
) -> Result<Claims, EdgeviewError> {
    let got = Bytes(token.len() as u64);
    if got > TOKEN_MAX {
        return Err(EdgeviewError::TooLong { got });
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(EdgeviewError::Parts)?;
    let (header, claims) = signed.split_once('.').ok_or(EdgeviewError::Parts)?;
    let decode = |part, text: &str| {
        URL_SAFE_NO_PAD.decode(text).map_err(|source| EdgeviewError::Base64 { part, source })
    };
    let header: Header = serde_json::from_slice(&decode("header", header)?)
        .map_err(|source| EdgeviewError::Header { source })?;
    if header.alg != "ES256" || header.typ != "JWT" {
        let shown = |text: &str| text.chars().take(40).collect();
        return Err(EdgeviewError::Kind { alg: shown(&header.alg), typ: shown(&header.typ) });
    }
    let signature = decode("signature", signature)?;
    // ES256 is a matter of P-256 alone, whatever else a controller's key may be.
    let signs = matches!(signer.key(), PublicKey::P256(_))
        && signer.key().verifies(signed.as_bytes(), &signature);
    if !signs {
        return Err(EdgeviewError::Signature);
    }
    let claims: Claims = serde_json::from_slice(&decode("claims", claims)?)
        .map_err(|source| EdgeviewError::Claims { source })?;
    sound(&claims)?;
    if claims.device.parse() != Ok(device) {
        let got = claims.device.chars().take(40).collect();
        return Err(EdgeviewError::Device { got, own: device });
    }
    match Duration::from_secs(claims.expires).checked_sub(Duration::from_millis(now.0)) {
        Some(left) if !left.is_zero() => Ok(claims),
        _ => Err(EdgeviewError::Expired { at: claims.expires }),
    }
}

fn sound(claims: &Claims) -> Result<(), EdgeviewError> {
    if claims.dispatcher.trim().is_empty() {
        Err(EdgeviewError::Dispatcher)
    } else if !INSTANCES.contains(&claims.instances) {
        Err(EdgeviewError::Instances { got: claims.instances })
    } else if claims.authentication > 2 {
        Err(EdgeviewError::Authentication { got: claims.authentication })
    } else {
        Ok(())
    }
}

/// Why a token is none.
#[derive(Debug, thiserror::Error)]
pub enum EdgeviewError {
    /// Longer than any.
    #[error("edgeview.token of {got} is longer than {TOKEN_MAX}")]
    TooLong {
        /// Its size.
        got: Bytes,
    },
    /// Not three parts with dots between.
    #[error("edgeview.token does not have three parts")]
    Parts,
    /// A part is not base64url.
    #[error("the {part} of edgeview.token is not base64url")]
    Base64 {
        /// Which.
        part: &'static str,
        /// Why not.
        source: base64::DecodeError,
    },
    /// The header is not the two members it should be.
    #[error("the header of edgeview.token is not JSON of alg and typ alone")]
    Header {
        /// Why not.
        source: serde_json::Error,
    },
    /// Another algorithm.
    #[error("edgeview.token is a {typ:?} with {alg:?}, not a JWT with ES256")]
    Kind {
        /// The algorithm, cut.
        alg: String,
        /// The type, cut.
        typ: String,
    },
    /// Someone else signed it, or it was changed.
    #[error("edgeview.token is not signed by the controller")]
    Signature,
    /// The claims are not what they should be.
    #[error("the claims of edgeview.token are not JSON of dep, sub, exp, key, num, enc and aut")]
    Claims {
        /// Why not.
        source: serde_json::Error,
    },
    /// It names no meeting place.
    #[error("edgeview.token: dep is empty")]
    Dispatcher,
    /// More than there may be, or none.
    #[error("edgeview.token: num is {got}, not 1 to 5")]
    Instances {
        /// As it says.
        got: u8,
    },
    /// A way that does not exist.
    #[error("edgeview.token: aut is {got}, not 0 to 2")]
    Authentication {
        /// As it says.
        got: u8,
    },
    /// It is meant for another node.
    #[error("edgeview.token: sub is {got:?}, we are {own}")]
    Device {
        /// As it says, cut.
        got: String,
        /// Who we are.
        own: DeviceId,
    },
    /// It is over.
    #[error("edgeview.token: it ran out at {at} seconds since 1970")]
    Expired {
        /// When.
        at: u64,
    },
    /// It could not be signed.
    #[error("cannot sign the token")]
    Sign(#[from] KeyError),
}

impl Diagnose for EdgeviewError {
    fn diagnose(&self) -> Diagnosis {
        match self {
            Self::Expired { .. } => Diagnosis::of(Who::Operator, "start a new session"),
            Self::Sign(e) => e.diagnose(),
            _ => Diagnosis::of(Who::Operator, "let the controller make the token anew"),
        }
    }
}
