//! Asks for the config, and reads an answer that is believed.

use std::path::PathBuf;

use api::convert::config as wire;
use api::{Certificate, Signer};
use model::desired::Device;
use model::{DeviceId, Diagnose, Problem};

use super::secrets::Secrets;
use crate::exchange::Exchange;
use crate::link::{CallError, Link, well};

/// What the answer to `config` says.
pub(super) enum Fetched {
    /// The node has it already.
    Unchanged,
    /// Another one: `body` is its envelope as it came, `hash` what to ask with from now on.
    Config { body: Vec<u8>, hash: String, device: Box<Device>, secrets: Box<Secrets> },
    /// It is the controller's, and no config of this node.
    Unusable(Problem),
}

/// What is needed to believe and read a config.
#[derive(Clone)]
pub(super) struct Eyes {
    pub(super) id: DeviceId,
    /// Who may sign it.
    pub(super) signer: Signer,
    /// The folder with our key for secrets.
    pub(super) certs: PathBuf,
    /// The controller's certificates for key exchange.
    pub(super) exchange: Vec<Certificate>,
}

/// Asks for what is newer than the config of this hash. `token` is that of the last attestation.
pub(super) async fn fetch(
    link: &Link,
    eyes: &Eyes,
    hash: String,
    token: Option<Vec<u8>>,
) -> Result<Fetched, CallError> {
    let limit = api::limits::CONFIG;
    let asked = wire::Request { hash, integrity_token: token.unwrap_or_default() };
    let answer = well("config", link.post(eyes.id, "config", &asked.to_payload(), limit).await?)?;
    if answer.status == 304 {
        return Ok(Fetched::Unchanged);
    }
    let ours = Exchange::read(&eyes.certs, &link.certificate);
    let secrets = Secrets::new(ours, &eyes.exchange, host::clock::now());
    judge(&answer.body, eyes.id, &asked.hash, &eyes.signer, secrets)
}

/// What a body of the answer to `config` says to node `id`, which has the config of hash `have`.
pub(super) fn judge(
    body: &[u8],
    id: DeviceId,
    have: &str,
    signer: &Signer,
    secrets: Secrets,
) -> Result<Fetched, CallError> {
    let payload = crate::link::verify("config", body, signer, api::limits::CONFIG)?;
    Ok(read(body.to_vec(), &payload, id, have, secrets))
}

/// The same of a payload that is believed; `body` is its envelope.
pub(super) fn read(
    body: Vec<u8>,
    payload: &[u8],
    id: DeviceId,
    have: &str,
    mut secrets: Secrets,
) -> Fetched {
    match wire::read_sealed_answer(payload, id, have, &mut |c, b| secrets.open(c, b)) {
        Ok(wire::Answer::Unchanged) => Fetched::Unchanged,
        Ok(wire::Answer::Changed { hash, mut device }) => {
            device::able::limit(&mut device);
            Fetched::Config { body, hash, device, secrets: Box::new(secrets) }
        }
        Err(e) => Fetched::Unusable(e.problem(host::clock::now())),
    }
}
