//! The bootstrap file: a node's first config, on its CONFIG partition, for places where the network
//! must be set up before the controller can be reached.
//!
//! The controller signs an `EdgeDevConfig` (not a `ConfigResponse`) and adds its certificates, so
//! that the node can verify it offline with its root certificate. Of the config only what is needed
//! to reach the controller counts ([`SECTIONS`]). Nothing in it can be sealed, as the node is not
//! known yet: a Wi-Fi password in it can be read by whoever has the file. Facts: `spec/api.md` §12.

use model::desired::Device;
use model::{Bytes, DeviceId, Diagnose, Diagnosis, Digest, UnixMillis, Who};

use crate::certs::{self, CertsError, Need};
use crate::convert::config::{self, ConfigError};
use crate::envelope::{Received, Refusal, Sender, signature};
use crate::identity::{KeyError, sha256};
use crate::pb::auth::{AuthBody, AuthContainer};
use crate::pb::certs::{ZCertType, ZControllerCert};
use crate::pb::config::{BootstrapConfig, EdgeDevConfig};
use crate::wire::{self, WireError};

/// The CONFIG partition has 5 MiB; a config of ports takes some kilobytes.
pub const FILE_MAX: Bytes = Bytes::mib(1);

/// The fields of `EdgeDevConfig` that count.
pub const SECTIONS: [&str; 7] = [
    "networks",
    "configItems",
    "systemAdapterList",
    "deviceIoList",
    "vlans",
    "bonds",
    "config_timestamp",
];

/// A bootstrap file that is believed.
#[derive(Debug, Clone, PartialEq)]
pub struct Bootstrap {
    /// The sections that count, and nothing else.
    pub config: EdgeDevConfig,
    /// Whether the file had more, which is left out.
    pub had_more: bool,
    /// SHA-256 of the signed payload: a node applies the same one once.
    pub digest: Digest,
}

/// Makes the file. Of `config` only what counts is written. `controller` is the payload of `/certs`
/// ([`certs::publish`]); its certificates for key exchange are left out, there is nothing to seal.
pub fn write(
    config: &EdgeDevConfig,
    sender: &Sender<'_>,
    controller: &[u8],
) -> Result<Vec<u8>, BootstrapError> {
    let payload = wire::encode(&honoured(config.clone()));
    let set: ZControllerCert = wire::decode(controller, crate::limits::CERTS)?;
    let exchange = i32::from(ZCertType::CertTypeControllerEcdhExchange);
    let signed = signature(&payload, sender)?;
    Ok(wire::encode(&BootstrapConfig {
        signed_config: Some(AuthContainer {
            protected_payload: Some(AuthBody { payload }),
            ..signed
        }),
        controller_certs: set.certs.into_iter().filter(|c| c.r#type != exchange).collect(),
    }))
}

/// Reads and verifies a file: its certificates against the root at the time `now`, its signature
/// against them.
pub fn open(file: &[u8], root_pem: &[u8], now: UnixMillis) -> Result<Bootstrap, BootstrapError> {
    let file: BootstrapConfig = wire::decode(file, FILE_MAX)?;
    let container = file.signed_config.ok_or(BootstrapError::Unsigned)?;
    if container.cipher_data.is_some() {
        return Err(BootstrapError::Encrypted);
    }
    let set = wire::encode(&ZControllerCert { certs: file.controller_certs });
    let controller = certs::check(&set, root_pem, now, Need::SigningOnly)?;
    let received = Received::within(container);
    let payload = received.verify(controller.signer())?;
    let whole: EdgeDevConfig = wire::decode(payload, FILE_MAX)?;
    let config = honoured(whole.clone());
    Ok(Bootstrap { had_more: config != whole, config, digest: sha256(payload) })
}

impl Bootstrap {
    /// What a node makes of it: ports and settings. It is not made for one node, so its id is nil.
    pub fn device(&self) -> Result<Device, ConfigError> {
        let own = DeviceId::new(uuid::Uuid::nil());
        let mut told = self.config.clone();
        told.id.get_or_insert_default().uuid = own.to_string();
        config::read(&told, own)
    }
}

fn honoured(config: EdgeDevConfig) -> EdgeDevConfig {
    EdgeDevConfig {
        networks: config.networks,
        config_items: config.config_items,
        system_adapter_list: config.system_adapter_list,
        device_io_list: config.device_io_list,
        vlans: config.vlans,
        bonds: config.bonds,
        config_timestamp: config.config_timestamp,
        ..EdgeDevConfig::default()
    }
}

/// A file that cannot be made or is not believed.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// Not the message it should be, or too long.
    #[error("cannot read the bootstrap file")]
    Wire(#[from] WireError),
    /// It could not be signed.
    #[error("cannot sign the bootstrap file")]
    Sign(#[from] KeyError),
    /// It has no config.
    #[error("BootstrapConfig.signed_config is missing")]
    Unsigned,
    /// Its config is encrypted.
    #[error("BootstrapConfig.signed_config is encrypted; a node that is not known cannot open it")]
    Encrypted,
    /// The certificates in it are not those of the node's controller.
    #[error("BootstrapConfig.controller_certs are not believed")]
    Certs(#[from] CertsError),
    /// Someone else signed it, or it was changed.
    #[error("BootstrapConfig.signed_config is not the controller's")]
    Refused(#[from] Refusal),
}

impl Diagnose for BootstrapError {
    fn diagnose(&self) -> Diagnosis {
        match self {
            Self::Certs(e) => e.diagnose(),
            Self::Sign(e) => e.diagnose(),
            _ => Diagnosis::of(Who::Operator, "put the bootstrap file onto CONFIG once more"),
        }
    }
}
