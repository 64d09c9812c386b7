//! Asks the local operator console, which stands in while the controller is not reached (EVE API,
//! local operator console).
//!
//! The config it hands out is the controller's, and is believed as that; its commands are its own and
//! nobody signed them.

use api::certs::ControllerCerts;
use api::convert::config as wire;
use api::envelope::Refusal;
use api::loc::{Compound, LocError, Request};
use model::{Bytes, Diagnosis, Problem, Who};

use super::checkpoint::Signers;
use super::fetch::{Eyes, Fetched, read};
use super::nearby::Kept;
use super::secrets::Secrets;
use crate::exchange::Exchange;
use crate::link::{CallError, Link, well};

const CALL: &str = "compound-config";
/// The config, and some room for commands.
const ANSWER_MAX: Bytes = Bytes(api::limits::CONFIG.0 + (1 << 20));

/// What a console said.
pub(super) struct Said {
    /// The config.
    pub(super) fetched: Fetched,
    /// Its own wishes.
    pub(super) compound: Compound,
    /// The controller's certificates, as the console has them, if they were needed.
    pub(super) certs: Option<(ControllerCerts, Vec<u8>)>,
}

/// Asks through `link`, which leads to the console. `last` is the timestamp of its last command.
pub(super) async fn ask(
    link: &Link,
    eyes: Eyes,
    signers: &Signers,
    asked: wire::Request,
    last: u64,
) -> Result<Said, CallError> {
    let have = asked.hash.clone();
    let payload = Request { last_command: last, config: asked }.to_payload();
    let answer = well(CALL, link.post(eyes.id, CALL, &payload, ANSWER_MAX).await?)?;
    let compound = Compound::open(&answer.body).map_err(meaningless)?;
    let now = host::clock::now();
    let ours = || Exchange::read(&eyes.certs, &link.certificate);
    let mut secrets = Secrets::new(ours(), &eyes.exchange, now);
    let mut certs = None;
    let mut opened = verify(&compound, &eyes, &secrets);
    if let Err(LocError::Refused(Refusal::UnknownSigner { .. })) = &opened {
        let (new, body) = link.certs(now).await?;
        if new.since() < signers.since() {
            let source = Box::new(Older);
            return Err(CallError::Answer { call: "certs", source });
        }
        // What was sealed with older ones still opens.
        let exchange = new.exchange().iter().chain(&eyes.exchange).cloned().collect();
        let eyes = Eyes { signer: new.signer().clone(), exchange, ..eyes.clone() };
        secrets = Secrets::new(ours(), &eyes.exchange, now);
        opened = verify(&compound, &eyes, &secrets);
        certs = Some((new, body));
    }
    let fetched = match opened.map_err(meaningless)? {
        None => Fetched::Unchanged,
        Some(payload) => {
            let body = compound.envelope(&payload).unwrap_or_default();
            read(body, &payload, eyes.id, &have, secrets)
        }
    };
    // Certificates that led nowhere are not kept.
    Ok(Said { fetched, compound, certs })
}

fn verify(
    compound: &Compound,
    eyes: &Eyes,
    secrets: &Secrets,
) -> Result<Option<Vec<u8>>, LocError> {
    match secrets.opener() {
        Ok(opener) => {
            Ok(compound.verify(&eyes.signer, opener)?.map(|payload| payload.expose().clone()))
        }
        // Without our key only what is not sealed can be read; that is said as not for us.
        Err(why) => {
            tracing::warn!("no key for what a console hands out: {why}");
            Err(LocError::NoContext)
        }
    }
}

fn meaningless(source: LocError) -> CallError {
    CallError::Answer { call: CALL, source: Box::new(source) }
}

#[derive(Debug, thiserror::Error)]
#[error("the console's signing certificate is older than the one known")]
struct Older;

impl Kept {
    /// Does what a console wants besides the config, once for each of its timestamps. A command
    /// without a number of its own has that of the whole.
    pub(super) fn console(&mut self, compound: &Compound, told: &model::desired::Device) {
        if compound.timestamp == 0 || compound.timestamp == self.console {
            return;
        }
        let number = |own: u64| if own == 0 { compound.timestamp } else { own };
        let mut commands = compound.commands.clone();
        for command in &mut commands.apps {
            command.timestamp = number(command.timestamp);
        }
        if let Some(command) = &mut commands.device {
            command.timestamp = number(command.timestamp);
        }
        self.apps(&commands.apps, told);
        self.device(commands.device.as_ref());
        if let Some(silence) = commands.radio_silence {
            self.silence = silence;
        }
        self.console = compound.timestamp;
    }
}

/// That the controller is silent, where that is expected.
pub(super) fn expected(since: model::UnixMillis) -> Problem {
    let advice = "nothing to do: airgap.mode says that only a console is reached";
    Problem::new("no controller, as expected", Diagnosis::of(Who::Nobody, advice), since)
}
