//! A simulated device: who it is, what it knows, and what it says to its controller.
//!
//! It holds its controller to the contract: an answer that a device could not use is an error here,
//! not a shrug. Refusals are results.

use std::cell::OnceCell;

use anyhow::{Context, bail, ensure};
use api::envelope::{self, Refusal, Sender};
use api::onboarding::{Named, Registration};
use api::pb::attest::{
    AttestStorageKeys, AttestStorageKeysResponseCode, AttestVersionInfo, AttestVersionType,
    AttestVolumeKey, AttestVolumeKeyType, ZAttestQuote, ZAttestReq, ZAttestReqType,
    ZAttestRespType, ZAttestResponse,
};
use api::pb::certs::{ZCert, ZCertAttr, ZCertType};
use api::pb::common::HashAlgorithm;
use api::pb::config::{ConfigRequest, ConfigResponse};
use api::{Certificate, SigningKey, limits, wire};
use model::UnixMillis;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::http::Answer;
use super::keys::{self, Use};
use super::line::{Line, Mode, call, is_good};
use super::node::{Node, Subject};
use super::queue::{Fate, Queue};
use super::quote::Tpm;
use super::report::{self, Speaker};

/// A device.
#[derive(Debug)]
pub struct Device {
    seed: u64,
    index: u32,
    serial: Box<str>,
    soft_serial: Box<str>,
    key: OnceCell<Box<SigningKey>>,
    certificate: Option<Box<Certificate>>,
    id: Option<Uuid>,
    hash: String,
    token: Vec<u8>,
    /// Seconds and nanoseconds of the config in force.
    timestamp: Option<(i64, i32)>,
    epoch: i64,
    keys: Vec<Vec<u8>>,
    requests: u32,
    turn: u32,
    queue: Queue<(u8, Subject)>,
    /// Its TPM, if it has one.
    pub tpm: Option<Box<Tpm>>,
    /// What it makes of its config.
    pub node: Node,
}

/// How onboarding went: the answers to register (if it was sent) and uuid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Onboarded {
    /// The status of register; `None` without an onboarding certificate.
    pub register: Option<u16>,
    /// The status of uuid: 200 and the device has a name.
    pub uuid: u16,
}

/// How an attestation went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attested {
    /// The quote is believed.
    Yes,
    /// It is not: code 2 (nonce), 3 (no certificate) or 4 (quote).
    Refused(i32),
    /// The request was refused with this status.
    Status(u16),
    /// The controller has other certificates than we knew; they were fetched.
    Lost,
}

/// How a poll went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Polled {
    /// The config in force is the newest.
    Unchanged,
    /// Another one is in force now.
    Applied,
    /// Refused with this status.
    Refused(u16),
    /// The controller has other certificates than we knew; they were fetched.
    Lost,
}

/// What became of queued messages in one pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flushed {
    /// They arrived.
    pub delivered: u32,
    /// They are tried again later.
    pub kept: u32,
    /// The controller does not want them.
    pub dropped: u32,
    /// Nobody answered, which ended the pass.
    pub unanswered: bool,
}

impl Device {
    /// A device that was never switched on. Its soft serial number is `SIM-<seed>-<index>`, the
    /// serial number the same in lower case.
    pub fn new(seed: u64, index: u32) -> Device {
        let soft_serial = format!("SIM-{seed}-{index}");
        Device {
            seed,
            index,
            serial: soft_serial.to_lowercase().into(),
            soft_serial: soft_serial.into(),
            key: OnceCell::new(),
            certificate: None,
            id: None,
            hash: String::new(),
            token: Vec::new(),
            timestamp: None,
            epoch: 0,
            keys: Vec::new(),
            requests: 0,
            turn: 0,
            queue: Queue::default(),
            tpm: None,
            node: Node::default(),
        }
    }

    /// With these serial numbers.
    pub fn with_serials(self, serial: &str, soft_serial: &str) -> Device {
        Device { serial: serial.into(), soft_serial: soft_serial.into(), ..self }
    }

    /// With a TPM that measured its boot.
    pub fn with_tpm(mut self) -> Device {
        self.tpm = Some(Box::new(Tpm::booted(&self.node.version)));
        self
    }

    /// With an identity that exists already: a key is put in the place of the one from the seed.
    pub fn with_identity(mut self, key: SigningKey, certificate: Certificate) -> Device {
        self.key = OnceCell::from(Box::new(key));
        self.certificate = Some(Box::new(certificate));
        self
    }

    /// Its id, once it knows.
    pub fn id(&self) -> Option<Uuid> {
        self.id
    }

    /// Its soft serial number.
    pub fn soft_serial(&self) -> &str {
        &self.soft_serial
    }

    /// Its serial number.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// Whether it has proved itself in this boot.
    pub fn attested(&self) -> bool {
        !self.token.is_empty()
    }

    /// The token of its last attestation; empty before one.
    pub fn token(&self) -> &[u8] {
        &self.token
    }

    /// Puts another token in the place of the one it was given.
    pub fn set_token(&mut self, token: &[u8]) {
        self.token = token.to_vec();
    }

    /// The hash of the config in force; empty before one.
    pub fn config_hash(&self) -> &str {
        &self.hash
    }

    /// The keys that the controller kept and has given back.
    pub fn returned_keys(&self) -> &[Vec<u8>] {
        &self.keys
    }

    /// Messages that wait to be delivered.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Its key.
    pub fn key(&self) -> anyhow::Result<&SigningKey> {
        if let Some(key) = self.key.get() {
            return Ok(key);
        }
        let made = Box::new(keys::key(self.seed, self.index, Use::Device)?);
        Ok(self.key.get_or_init(|| made))
    }

    /// Forgets the key until it is needed: memory of devices that are quiet.
    pub fn rest(&mut self) {
        if self.certificate.is_none() {
            return;
        }
        self.key.take();
    }

    /// Its certificate, made on the first call.
    pub fn certificate(&mut self, now: UnixMillis) -> anyhow::Result<&Certificate> {
        if self.certificate.is_none() {
            self.certificate = Some(Box::new(keys::own_certificate(self.key()?, now)?));
        }
        self.certificate.as_deref().context("there is no certificate")
    }

    /// The power goes and comes back: what is in memory only is gone.
    pub fn reboot(&mut self) {
        self.token.clear();
        self.hash.clear();
        self.timestamp = None;
        self.queue = Queue::default();
        self.node.reboot();
        self.node.tell_all();
    }

    /// Who speaks, for messages made by hand.
    pub fn say<T>(&self, now: UnixMillis, with: impl FnOnce(Speaker<'_>, &Node) -> T) -> T {
        let id = self.id.map(|id| id.to_string()).unwrap_or_default();
        let speaker = Speaker {
            id: &id,
            serial: &self.serial,
            tpm: self.tpm.is_some(),
            attested: self.attested(),
            at: now,
        };
        with(speaker, &self.node)
    }

    /// Signs a payload with the device key and posts it to `path` behind the base.
    pub async fn post(
        &mut self,
        line: &mut Line,
        path: &str,
        payload: &[u8],
        mode: Mode,
        now: UnixMillis,
    ) -> anyhow::Result<Answer> {
        self.certificate(now)?;
        let certificate = self.certificate.as_deref().context("there is no certificate")?;
        let body = envelope::sign(payload, &Sender::device(self.key()?, certificate))?;
        self.post_body(line, path, body, mode).await
    }

    /// Posts a body as it is.
    pub async fn post_body(
        &mut self,
        line: &mut Line,
        path: &str,
        body: Vec<u8>,
        mode: Mode,
    ) -> anyhow::Result<Answer> {
        let request = self.request_id();
        let serials = self.id.is_none().then_some((&*self.serial, &*self.soft_serial));
        let call = call("POST", path, &request, serials, body);
        Ok(line.send(&call, mode).await?)
    }

    /// The path of what it calls under its id.
    pub fn path(&self, rest: &str) -> anyhow::Result<String> {
        let id = self.id.context("the device has no id yet")?;
        Ok(format!("/id/{id}/{rest}"))
    }

    fn request_id(&mut self) -> String {
        self.requests += 1;
        let mut hash = Sha256::new();
        hash.update(self.seed.to_be_bytes());
        hash.update(self.index.to_be_bytes());
        hash.update(self.requests.to_be_bytes());
        let bytes = hash.finalize();
        let random = bytes.first_chunk::<16>().copied().unwrap_or_default();
        uuid::Builder::from_random_bytes(random).into_uuid().to_string()
    }

    /// Fetches the controller's certificates and checks them.
    pub async fn fetch_certs(&mut self, line: &mut Line, now: UnixMillis) -> anyhow::Result<u16> {
        let call = call("GET", "/certs", &self.request_id(), None, Vec::new());
        let answer = line.send(&call, Mode::EveryPort).await?;
        if answer.status == 200 {
            has_type(&answer)?;
            line.conf().learn(&answer.body, now).context("the controller's certificates")?;
        }
        Ok(answer.status)
    }

    /// The verified payload of an answer; `None` if it is signed by someone we do not know, in which
    /// case the certificates have been fetched again, once.
    async fn verified(
        &mut self,
        line: &mut Line,
        answer: &Answer,
        now: UnixMillis,
    ) -> anyhow::Result<Option<Vec<u8>>> {
        has_type(answer)?;
        let received = envelope::open(&answer.body, limits::CONFIG)?;
        let certs = line.conf().certs().context("the controller's certificates are not known")?;
        match received.verify(certs.signer()) {
            Ok(payload) => Ok(Some(payload.to_vec())),
            Err(Refusal::UnknownSigner { .. }) => {
                self.fetch_certs(line, now).await?;
                Ok(None)
            }
            Err(e) => Err(e).context("the controller's answer"),
        }
    }

    /// Registers with the onboarding certificate; the status.
    pub async fn register(&mut self, line: &mut Line, now: UnixMillis) -> anyhow::Result<u16> {
        let registration = Registration {
            certificate: self.certificate(now)?.clone(),
            serial: self.serial.to_string(),
            soft_serial: self.soft_serial.to_string(),
        };
        let conf = line.conf().clone();
        let (key, certificate) = conf.onboard().context("there is no onboarding certificate")?;
        let sender = Sender::onboarding(key, certificate);
        let body = envelope::sign(&registration.to_payload(), &sender)?;
        Ok(self.post_body(line, "/register", body, Mode::EveryPort).await?.status)
    }

    /// Asks who it is; the status. 200: it knows.
    pub async fn ask_uuid(&mut self, line: &mut Line, now: UnixMillis) -> anyhow::Result<u16> {
        let answer = self.post(line, "/uuid", &[], Mode::EveryPort, now).await?;
        if answer.status == 200
            && let Some(payload) = self.verified(line, &answer, now).await?
        {
            let id = Named::from_payload(&payload)?.id.raw();
            if self.id.replace(id).is_some_and(|old| old != id) {
                // Another name: everything starts anew.
                self.reboot();
            }
        }
        Ok(answer.status)
    }

    /// One attempt at onboarding, in EVE's order: certificates, register, uuid. Only uuid decides.
    pub async fn onboard(&mut self, line: &mut Line, now: UnixMillis) -> anyhow::Result<Onboarded> {
        if line.conf().certs().is_none() {
            let status = self.fetch_certs(line, now).await?;
            ensure!(status == 200, "the controller answers {status} to certs");
        }
        let register = match line.conf().onboard() {
            Some(_) => Some(self.register(line, now).await?),
            None => None,
        };
        let uuid = self.ask_uuid(line, now).await?;
        Ok(Onboarded { register, uuid })
    }

    /// Shows its key exchange and, with a TPM, its attestation certificate; the status.
    pub async fn show_certificates(
        &mut self,
        line: &mut Line,
        now: UnixMillis,
    ) -> anyhow::Result<u16> {
        let tpm = self.tpm.is_some();
        let mut certs = Vec::new();
        let mut uses = vec![(Use::Ecdh, ZCertType::CertTypeDeviceEcdhExchange)];
        if tpm {
            uses.push((Use::Attest, ZCertType::CertTypeDeviceRestrictedSigning));
        }
        for (what, kind) in uses {
            let key = keys::key(self.seed, self.index, what)?;
            let made = keys::certificate_by_device(self.key()?, &key, what, now)?;
            certs.push(ZCert {
                hash_algo: HashAlgorithm::Sha25616bytes.into(),
                cert_hash: Sha256::digest(made.pem()).get(..16).unwrap_or_default().to_vec(),
                r#type: kind.into(),
                cert: made.pem().to_vec(),
                attributes: Some(ZCertAttr { is_mutable: !tpm, is_tpm: tpm }),
                ..ZCert::default()
            });
        }
        self.show_these(line, certs, now).await
    }

    /// Shows certificates made elsewhere; the status.
    pub async fn show_these(
        &mut self,
        line: &mut Line,
        certs: Vec<ZCert>,
        now: UnixMillis,
    ) -> anyhow::Result<u16> {
        let mut message = ZAttestReq { certs, ..ZAttestReq::default() };
        message.set_req_type(ZAttestReqType::AttestReqCert);
        let path = self.path("attest")?;
        let answer =
            self.post(line, &path, &wire::encode(&message), Mode::FirstAnswer, now).await?;
        Ok(answer.status)
    }

    /// The private key for key exchange, for tests that open secrets.
    pub fn ecdh_key(&self) -> anyhow::Result<SigningKey> {
        keys::key(self.seed, self.index, Use::Ecdh)
    }

    async fn ask_attest(
        &mut self,
        line: &mut Line,
        message: &ZAttestReq,
        now: UnixMillis,
    ) -> anyhow::Result<Result<ZAttestResponse, Attested>> {
        let path = self.path("attest")?;
        let answer = self.post(line, &path, &wire::encode(message), Mode::FirstAnswer, now).await?;
        if !is_good(answer.status) {
            return Ok(Err(Attested::Status(answer.status)));
        }
        Ok(match self.verified(line, &answer, now).await? {
            Some(payload) => Ok(wire::decode(&payload, limits::ATTEST)?),
            None => Err(Attested::Lost),
        })
    }

    /// Asks for a nonce.
    pub async fn nonce(
        &mut self,
        line: &mut Line,
        now: UnixMillis,
    ) -> anyhow::Result<Result<Vec<u8>, Attested>> {
        let mut message = ZAttestReq::default();
        message.set_req_type(ZAttestReqType::AttestReqNonce);
        let answer = match self.ask_attest(line, &message, now).await? {
            Ok(answer) => answer,
            Err(other) => return Ok(Err(other)),
        };
        ensure!(answer.resp_type() == ZAttestRespType::AttestRespNonce, "this is no nonce");
        let nonce = answer.nonce.context("the answer has no nonce")?.nonce;
        ensure!((12..=32).contains(&nonce.len()), "a nonce of {} bytes", nonce.len());
        Ok(Ok(nonce))
    }

    /// What it would quote with a nonce: with a TPM its registers, without one nothing.
    pub fn quote(&self, nonce: &[u8]) -> anyhow::Result<ZAttestQuote> {
        let mut quote = match &self.tpm {
            Some(tpm) => tpm.quote(nonce, &keys::key(self.seed, self.index, Use::Attest)?)?,
            None => ZAttestQuote::default(),
        };
        let version = |kind: AttestVersionType, version: &str| AttestVersionInfo {
            version_type: kind.into(),
            version: version.to_owned(),
        };
        quote.versions = vec![
            version(AttestVersionType::Eve, &self.node.version),
            version(AttestVersionType::Firmware, "Simulated-1.0-01/01/2026"),
        ];
        Ok(quote)
    }

    /// Sends a quote and takes the token and the keys that come back.
    pub async fn send_quote(
        &mut self,
        line: &mut Line,
        quote: ZAttestQuote,
        now: UnixMillis,
    ) -> anyhow::Result<Attested> {
        let mut message = ZAttestReq { quote: Some(quote), ..ZAttestReq::default() };
        message.set_req_type(ZAttestReqType::AttestReqQuote);
        let answer = match self.ask_attest(line, &message, now).await? {
            Ok(answer) => answer,
            Err(other) => return Ok(other),
        };
        let verdict = answer.quote_resp.context("the answer to a quote has no verdict")?;
        if verdict.response != 1 {
            ensure!(verdict.integrity_token.is_empty(), "a refused quote got a token");
            ensure!(verdict.keys.is_empty(), "a refused quote got keys");
            return Ok(Attested::Refused(verdict.response));
        }
        ensure!(!verdict.integrity_token.is_empty(), "a good quote got no token");
        self.token = verdict.integrity_token;
        self.keys = verdict.keys.into_iter().map(|k| k.key).collect();
        Ok(Attested::Yes)
    }

    /// Nonce and quote.
    pub async fn attest(&mut self, line: &mut Line, now: UnixMillis) -> anyhow::Result<Attested> {
        let nonce = match self.nonce(line, now).await? {
            Ok(nonce) => nonce,
            Err(other) => return Ok(other),
        };
        let quote = self.quote(&nonce)?;
        self.send_quote(line, quote, now).await
    }

    /// Leaves a sealed key with the controller; whether it was taken.
    pub async fn store_key(
        &mut self,
        line: &mut Line,
        sealed: &[u8],
        now: UnixMillis,
    ) -> anyhow::Result<bool> {
        let key = AttestVolumeKey {
            key_type: AttestVolumeKeyType::Vsk.into(),
            key: sealed.to_vec(),
            ..AttestVolumeKey::default()
        };
        let keys = AttestStorageKeys { integrity_token: self.token.clone(), keys: vec![key] };
        let mut message = ZAttestReq { storage_keys: Some(keys), ..ZAttestReq::default() };
        message.set_req_type(ZAttestReqType::StoreKeys);
        match self.ask_attest(line, &message, now).await? {
            Ok(answer) => {
                let answer = answer.storage_keys_resp.context("the answer has no verdict")?;
                Ok(answer.response() == AttestStorageKeysResponseCode::Success)
            }
            Err(other) => bail!("keys cannot be stored: {other:?}"),
        }
    }

    /// Asks for its config and applies what comes.
    pub async fn poll(&mut self, line: &mut Line, now: UnixMillis) -> anyhow::Result<Polled> {
        let request =
            ConfigRequest { config_hash: self.hash.clone(), integrity_token: self.token.clone() };
        let path = self.path("config")?;
        let answer = self.post(line, &path, &wire::encode(&request), Mode::EveryPort, now).await?;
        match answer.status {
            304 => {
                ensure!(answer.body.is_empty(), "an answer 304 has a body");
                ensure!(!self.hash.is_empty(), "304, but the device has no config");
                Ok(Polled::Unchanged)
            }
            200 => match self.verified(line, &answer, now).await? {
                Some(payload) => {
                    let had = self.certificates_told();
                    let polled = self.apply(&payload)?;
                    // The first config says of which certificates we know already.
                    if had.is_some() && had != self.certificates_told() {
                        self.fetch_certs(line, now).await?;
                    }
                    Ok(polled)
                }
                None => Ok(Polled::Lost),
            },
            status => Ok(Polled::Refused(status)),
        }
    }

    /// What the config in force says of the controller's certificates; opaque.
    fn certificates_told(&self) -> Option<String> {
        self.node.told().map(|told| told.controllercert_confighash.clone())
    }

    fn apply(&mut self, payload: &[u8]) -> anyhow::Result<Polled> {
        let answer: ConfigResponse = wire::decode(payload, limits::CONFIG)?;
        ensure!(!answer.config_hash.is_empty(), "an empty configHash is never applied by EVE");
        if answer.config_hash == self.hash {
            return Ok(Polled::Unchanged);
        }
        let config = answer.config.context("another hash without a config makes EVE crash")?;
        let named = config.id.as_ref().map(|id| id.uuid.as_str()).unwrap_or_default();
        let own = self.id.map(|id| id.to_string()).unwrap_or_default();
        ensure!(named == own, "the config is for {named:?}, not for {own}");
        if let Some(at) = &config.config_timestamp {
            let at = (at.seconds, at.nanos);
            ensure!(
                self.timestamp.is_none_or(|had| had <= at),
                "the config of {at:?} is older than the one in force"
            );
            self.timestamp = Some(at);
        }
        for app in &config.apps {
            ensure!(
                app.fixedresources.is_some() && app.uuidandversion.is_some(),
                "the app {:?} without fixedresources makes EVE crash",
                app.displayname
            );
        }
        if config.controller_epoch != self.epoch {
            self.epoch = config.controller_epoch;
            self.node.tell_all();
        }
        self.hash = answer.config_hash;
        self.node.take(config);
        Ok(Polled::Applied)
    }

    /// Queues what is new and sends what is due. Device info that was not taken is made anew next
    /// time; all else is kept.
    pub async fn report(&mut self, line: &mut Line, now: UnixMillis) -> anyhow::Result<Flushed> {
        for subject in self.node.news() {
            let payload = self.say(now, |speaker, node| report::info(speaker, node, &subject));
            let order = u8::from(!matches!(subject, Subject::App(_)));
            self.queue.put((order, subject), payload);
        }
        self.flush(line, now).await
    }

    /// Queues an info message made by hand.
    pub fn queue_info(&mut self, subject: Subject, payload: Vec<u8>) {
        self.queue.put((1, subject), payload);
    }

    /// Sends what is queued and due.
    pub async fn flush(&mut self, line: &mut Line, now: UnixMillis) -> anyhow::Result<Flushed> {
        let mut flushed = Flushed::default();
        let mut after = None;
        let path = self.path("info")?;
        while let Some((key, payload)) = self.queue.next(now, after.as_ref()) {
            match self.post(line, &path, &payload, Mode::FirstAnswer, now).await {
                Ok(answer) => match self.queue.answered(&key, answer.status, now) {
                    Fate::Delivered => flushed.delivered += 1,
                    Fate::Kept => flushed.kept += 1,
                    Fate::Dropped => flushed.dropped += 1,
                },
                Err(_) => {
                    self.queue.unanswered(now);
                    flushed.unanswered = true;
                    break;
                }
            }
            after = Some(key);
        }
        Ok(flushed)
    }

    /// Sends metrics; the status.
    pub async fn send_metrics(&mut self, line: &mut Line, now: UnixMillis) -> anyhow::Result<u16> {
        self.turn += 1;
        let turn = self.turn;
        let payload = self.say(now, |speaker, node| report::metrics(speaker, node, turn));
        let path = self.path("metrics")?;
        Ok(self.post(line, &path, &payload, Mode::EveryPort, now).await?.status)
    }

    /// Sends a log file of its own; the status.
    pub async fn send_logs(
        &mut self,
        line: &mut Line,
        lines: &[&str],
        now: UnixMillis,
    ) -> anyhow::Result<u16> {
        let file = self.say(now, |speaker, node| report::log_file(speaker, node, lines))?;
        let path = self.path("newlogs")?;
        Ok(self.post(line, &path, &file, Mode::EveryPort, now).await?.status)
    }

    /// Sends a log file of an app; the status.
    pub async fn send_app_logs(
        &mut self,
        line: &mut Line,
        (app, name): (&str, &str),
        lines: &[&str],
        now: UnixMillis,
    ) -> anyhow::Result<u16> {
        let file = self.say(now, |speaker, _| report::app_log_file(speaker, name, lines))?;
        let path = self.path(&format!("apps/instanceid/{app}/newlogs"))?;
        Ok(self.post(line, &path, &file, Mode::EveryPort, now).await?.status)
    }

    /// Sends a flow log; the status.
    pub async fn send_flow_log(
        &mut self,
        line: &mut Line,
        (app, instance): (&str, &str),
        now: UnixMillis,
    ) -> anyhow::Result<u16> {
        let payload = self.say(now, |speaker, _| report::flow_log(speaker, app, instance));
        let path = self.path("flowlog")?;
        Ok(self.post(line, &path, &payload, Mode::FirstAnswer, now).await?.status)
    }

    /// Sends a hardware health report; the status.
    pub async fn send_hardware_health(
        &mut self,
        line: &mut Line,
        now: UnixMillis,
    ) -> anyhow::Result<u16> {
        let payload = self.say(now, |speaker, _| report::hardware_health(speaker));
        let path = self.path("hardwarehealth")?;
        Ok(self.post(line, &path, &payload, Mode::EveryPort, now).await?.status)
    }

    /// What a device does in a minute: onboards if it must, attests when asked, polls, goes on with
    /// its apps, reports. How the poll went.
    pub async fn round(&mut self, line: &mut Line, now: UnixMillis) -> anyhow::Result<Polled> {
        if self.id.is_none() {
            let went = self.onboard(line, now).await?;
            if self.id.is_none() {
                return Ok(Polled::Refused(went.uuid));
            }
            self.show_certificates(line, now).await?;
        }
        let mut polled = self.poll(line, now).await?;
        match polled {
            Polled::Refused(403) if self.attest(line, now).await? == Attested::Yes => {
                polled = self.poll(line, now).await?;
            }
            // The device may have been deleted: who are we now?
            Polled::Refused(400 | 404) => {
                self.ask_uuid(line, now).await?;
            }
            _ => {}
        }
        self.node.tick();
        self.report(line, now).await?;
        Ok(polled)
    }
}

/// A body without a type makes EVE try again.
fn has_type(answer: &Answer) -> anyhow::Result<()> {
    ensure!(
        answer.body.is_empty() || answer.content_type.is_some(),
        "an answer with a body has no Content-Type"
    );
    Ok(())
}
