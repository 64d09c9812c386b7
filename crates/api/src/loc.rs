//! The local operator console (LOC): stands in where the controller cannot be reached.
//!
//! The config is still the controller's: signed by it, and optionally encrypted so that the console
//! cannot read it. The console adds commands of its own, which nobody signs. Facts: `spec/api.md`
//! §4 and §15.
//!
//! Three parties: a controller makes the config with [`protect`], a console wraps it with
//! [`Compound::to_body`], a node takes it apart with [`Compound::open`] and [`Compound::verify`].

use model::{Diagnose, Diagnosis, Who};

use crate::cipher::{CipherError, Context, INITIAL_VALUE_BYTES, Opener, Sealer, Secret};
use crate::convert::config;
use crate::envelope::{Received, Refusal, Sender, Signer, signature};
use crate::identity::KeyError;
use crate::limits;
use crate::lps::{AppCommand, DeviceCommand};
use crate::pb::auth::{AuthBody, AuthContainer};
use crate::pb::config::{CompoundEdgeDevConfig, CompoundEdgeDevConfigRequest, ConfigRequest};
use crate::pb::profile::{LocalAppCmdList, RadioConfig};
use crate::wire::{self, WireError};

/// What a node asks its console. It goes in an envelope that the node signed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// The timestamp of the last command of the console that was executed; zero before the first.
    pub last_command: u64,
    /// What it would ask the controller.
    pub config: config::Request,
}

impl Request {
    /// The payload of `compound-config`.
    pub fn to_payload(&self) -> Vec<u8> {
        let asked = ConfigRequest {
            config_hash: self.config.hash.clone(),
            integrity_token: self.config.integrity_token.clone(),
        };
        wire::encode(&CompoundEdgeDevConfigRequest {
            last_cmd_timestamp: self.last_command,
            cfg_req: Some(asked),
        })
    }

    /// Reads the payload of `compound-config`.
    pub fn from_payload(payload: &[u8]) -> Result<Request, WireError> {
        let request: CompoundEdgeDevConfigRequest = wire::decode(payload, limits::ONBOARDING)?;
        let asked = request.cfg_req.unwrap_or_default();
        let config =
            config::Request { hash: asked.config_hash, integrity_token: asked.integrity_token };
        Ok(Request { last_command: request.last_cmd_timestamp, config })
    }
}

/// Signs a config (a serialized `ConfigResponse`) for a console, which keeps the bytes and hands
/// them out. With `sealed`, only the node can read it; the initial value is random and never used
/// before.
///
/// The signature covers the plain payload either way.
pub fn protect(
    payload: &[u8],
    sender: &Sender<'_>,
    sealed: Option<(&Sealer, [u8; INITIAL_VALUE_BYTES])>,
) -> Result<Vec<u8>, LocError> {
    let signed = signature(payload, sender)?;
    let container = match sealed {
        None => {
            let protected_payload = Some(AuthBody { payload: payload.to_vec() });
            AuthContainer { protected_payload, ..signed }
        }
        Some((sealer, initial_value)) => AuthContainer {
            cipher_context: Some(sealer.context().to_wire()),
            cipher_data: Some(sealer.seal_bytes(payload, initial_value)?),
            ..signed
        },
    };
    Ok(wire::encode(&container))
}

/// What a console wants besides the config. Tokens, which a local profile server needs, are empty
/// here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Commands {
    /// To the node.
    pub device: Option<DeviceCommand>,
    /// To apps.
    pub apps: Vec<AppCommand>,
    /// Whether radios are to be silent. `None`: as it is.
    pub radio_silence: Option<bool>,
}

/// What a console answers: a body without an envelope.
#[derive(Debug, Clone, PartialEq)]
pub struct Compound {
    /// When the console made it, by its own count.
    pub timestamp: u64,
    /// The console's own wishes. Nobody signed them.
    pub commands: Commands,
    /// The config in its envelope. `None`: the console has none for the node.
    protected: Option<Received>,
}

impl Compound {
    /// A console's answer. `protected` are bytes that [`protect`] made.
    pub fn new(
        timestamp: u64,
        protected: Option<&[u8]>,
        commands: Commands,
    ) -> Result<Compound, LocError> {
        let read = |bytes| wire::decode::<AuthContainer>(bytes, limits::CONFIG);
        let protected = protected.map(read).transpose()?.map(Received::within);
        Ok(Compound { timestamp, commands, protected })
    }

    /// The body of the answer.
    pub fn to_body(&self) -> Vec<u8> {
        let Commands { device, apps, radio_silence } = &self.commands;
        let list = LocalAppCmdList {
            app_commands: apps.iter().map(AppCommand::to_wire).collect(),
            ..LocalAppCmdList::default()
        };
        wire::encode(&CompoundEdgeDevConfig {
            timestamp: self.timestamp,
            protected_config: self.protected.as_ref().map(|r| r.container().clone()),
            dev_cmd: device.as_ref().map(|command| command.to_wire("")),
            app_cmd_list: (!apps.is_empty()).then_some(list),
            radio_config: radio_silence
                .map(|radio_silence| RadioConfig { radio_silence, ..RadioConfig::default() }),
        })
    }

    /// Reads the body of an answer. The config in it is not verified yet.
    pub fn open(body: &[u8]) -> Result<Compound, LocError> {
        let answer: CompoundEdgeDevConfig = wire::decode(body, limits::CONFIG)?;
        let apps = answer.app_cmd_list.unwrap_or_default().app_commands;
        let commands = Commands {
            device: answer.dev_cmd.and_then(|command| DeviceCommand::from_wire(&command)),
            apps: apps.iter().filter_map(AppCommand::from_wire).collect(),
            radio_silence: answer.radio_config.map(|radio| radio.radio_silence),
        };
        let protected = answer.protected_config.map(Received::within);
        Ok(Compound { timestamp: answer.timestamp, commands, protected })
    }

    /// The payload of the config, a `ConfigResponse`, if `signer` made it; `None` if the console has
    /// none. The order of the checks is EVE's: who is meant, decryption, the signature.
    pub fn verify(
        &self,
        signer: &Signer,
        opener: &Opener,
    ) -> Result<Option<Secret<Vec<u8>>>, LocError> {
        let Some(received) = &self.protected else { return Ok(None) };
        received.names(signer)?;
        let container = received.container();
        let payload = match (&container.cipher_data, &container.cipher_context) {
            (None, _) => Secret::new(received.unverified_payload().to_vec()),
            (Some(_), _) if container.protected_payload.is_some() => return Err(LocError::Both),
            (Some(_), None) => return Err(LocError::NoContext),
            (Some(block), Some(context)) => opener.open_in(&Context::from_wire(context)?, block)?,
        };
        received.signs(payload.expose(), signer)?;
        Ok(Some(payload))
    }

    /// The config as an envelope of the controller, for who keeps it: with `payload`, which
    /// [`Compound::verify`] returned, in clear. Secrets in it stay sealed one by one.
    pub fn envelope(&self, payload: &[u8]) -> Option<Vec<u8>> {
        let container = self.protected.as_ref()?.container();
        Some(wire::encode(&AuthContainer {
            protected_payload: Some(AuthBody { payload: payload.to_vec() }),
            cipher_context: None,
            cipher_data: None,
            ..container.clone()
        }))
    }
}

/// Why a config for or from a console cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LocError {
    /// Not the message it should be.
    #[error("cannot read the message of the local operator console")]
    Wire(#[from] WireError),
    /// It could not be signed.
    #[error("cannot sign the config")]
    Sign(#[from] KeyError),
    /// It could not be sealed or opened.
    #[error("CompoundEdgeDevConfig.protected_config.cipherData is unusable")]
    Cipher(#[from] CipherError),
    /// It is not the controller's.
    #[error("CompoundEdgeDevConfig.protected_config is not the controller's")]
    Refused(#[from] Refusal),
    /// It is there twice: plain and encrypted.
    #[error("CompoundEdgeDevConfig.protected_config has a payload and cipherData")]
    Both,
    /// It does not say how it was encrypted.
    #[error("CompoundEdgeDevConfig.protected_config has cipherData without a cipherContext")]
    NoContext,
}

impl Diagnose for LocError {
    fn diagnose(&self) -> Diagnosis {
        match self {
            Self::Wire(e) => e.diagnose(),
            Self::Sign(e) => e.diagnose(),
            Self::Cipher(e) => e.diagnose(),
            Self::Refused(e) => e.diagnose(),
            Self::Both | Self::NoContext => {
                Diagnosis::of(Who::Operator, "give the console the config that the controller made")
            }
        }
    }
}
