//! Register and uuid: how a device becomes known and learns who it is.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::{DeviceId, Diagnose, Diagnosis, Who};

use crate::envelope::{SenderCertificateError, from_base64_pem};
use crate::identity::Certificate;
use crate::limits;
use crate::pb::register::ZRegisterMsg;
use crate::pb::uuid::UuidResponse;
use crate::wire::{self, WireError};

/// What a device says of itself when it registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Its certificate: what it signs with from now on.
    pub certificate: Certificate,
    /// The serial number of the hardware; may be empty.
    pub serial: String,
    /// The serial number made at installation: letters, digits, `_`, `-`, at most 256; may be
    /// empty.
    pub soft_serial: String,
}

/// The longest serial number (EVE's rule for soft serials).
const SERIAL_MAX: usize = 256;

impl Registration {
    /// The payload of `register`.
    pub fn to_payload(&self) -> Vec<u8> {
        wire::encode(&ZRegisterMsg {
            pem_cert: STANDARD.encode(self.certificate.pem()).into_bytes(),
            serial: self.serial.clone(),
            soft_serial: self.soft_serial.clone(),
            ..ZRegisterMsg::default()
        })
    }

    /// Reads the payload of `register`.
    pub fn from_payload(payload: &[u8]) -> Result<Registration, OnboardingError> {
        let message: ZRegisterMsg = wire::decode(payload, limits::ONBOARDING)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        let soft_serial = message.soft_serial.trim();
        if soft_serial.len() > SERIAL_MAX || !soft_serial.chars().all(plain) {
            return Err(OnboardingError::Serial { field: "softSerial" });
        }
        let serial = message.serial.trim();
        if serial.len() > SERIAL_MAX || serial.contains(char::is_control) {
            return Err(OnboardingError::Serial { field: "serial" });
        }
        Ok(Registration {
            certificate: from_base64_pem(&message.pem_cert)?,
            serial: serial.to_owned(),
            soft_serial: soft_serial.to_owned(),
        })
    }
}

/// The answer of `uuid`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Who the device is.
    pub id: DeviceId,
    /// Stands in for the maker the hardware names; may be empty.
    pub manufacturer: String,
    /// Stands in for the product the hardware names; may be empty.
    pub product: String,
}

impl Named {
    /// The payload of the answer.
    pub fn to_payload(&self) -> Vec<u8> {
        wire::encode(&UuidResponse {
            uuid: self.id.to_string(),
            manufacturer: self.manufacturer.clone(),
            product_name: self.product.clone(),
        })
    }

    /// Reads the payload of the answer.
    pub fn from_payload(payload: &[u8]) -> Result<Named, OnboardingError> {
        let message: UuidResponse = wire::decode(payload, limits::ONBOARDING)?;
        let uuid = message.uuid;
        let id: DeviceId = uuid.parse().map_err(|source| OnboardingError::Uuid { uuid, source })?;
        if id.raw().is_nil() {
            return Err(OnboardingError::NilUuid);
        }
        Ok(Named { id, manufacturer: message.manufacturer, product: message.product_name })
    }
}

/// A message of onboarding that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OnboardingError {
    /// Not the message it should be.
    #[error("cannot read the message")]
    Wire(#[from] WireError),
    /// `ZRegisterMsg.pemCert` is no certificate.
    #[error("ZRegisterMsg.pemCert is unusable")]
    Certificate(#[from] SenderCertificateError),
    /// A serial number with other characters, or too long.
    #[error("ZRegisterMsg.{field} is no serial number")]
    Serial {
        /// Which field.
        field: &'static str,
    },
    /// `UuidResponse.uuid` is none.
    #[error("UuidResponse.uuid {uuid:?} is no UUID")]
    Uuid {
        /// As on the wire.
        uuid: String,
        /// Why not.
        source: uuid::Error,
    },
    /// `UuidResponse.uuid` is all zeros.
    #[error("UuidResponse.uuid is all zeros")]
    NilUuid,
}

impl Diagnose for OnboardingError {
    fn diagnose(&self) -> Diagnosis {
        match self {
            Self::Wire(wire) => wire.diagnose(),
            Self::Certificate(certificate) => certificate.diagnose(),
            Self::Serial { .. } => Diagnosis::of(Who::Operator, "check the node's soft_serial"),
            Self::Uuid { .. } | Self::NilUuid => {
                Diagnosis::of(Who::Operator, "check what the controller knows of this node")
            }
        }
    }
}
