//! `eved config`: the controller's voice on the node, and the node's voice at the controller.
//!
//! `device::config` decides what to ask next; this file saves and publishes. [`fetch`] asks for the
//! config and verifies it, [`attest`] earns the token that goes with it. [`checkpoint`] keeps what must
//! outlive a reboot, [`desired`] publishes a config as topics, [`info`] and [`metrics`] tell what is,
//! [`announce`] hands over our certificate, [`secrets`] opens what is sealed to it, [`first`] stands in
//! until the first config ([`bootstrap`], [`legacy`]), [`profile`] talks with a local profile server and
//! [`console`] with a local operator console, [`nearby`] keeps what those changed.

mod announce;
mod attest;
mod bootstrap;
mod checkpoint;
mod console;
mod desired;
mod fetch;
mod first;
mod health;
mod info;
mod legacy;
mod metrics;
mod nearby;
mod profile;
mod secrets;
mod time;
#[cfg(test)]
mod vectors;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::Certificate;
use api::cipher::CertHash;
use api::convert::config as wire;
use device::config::{self, Alarm, Answer, Effect, Event, Moment, State, Summary};
use device::config::{exchange, floor};
use host::topics::{Reader, Table, Watch, Writer};
use model::desired::{Device, PortName, Properties};
use model::reported::{
    ControllerStatus, Identity, Maintenance, PortsFrom, SecretsOpened, Standing,
};
use model::topic::{Boots, Controller, Identities, Only, Ports};
use model::{DeviceId, Diagnose, Diagnosis, Problem, UnixMillis, VolumeId, Who, chain};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::chance::jitter;
use crate::config::checkpoint::{Checkpoint, Signers};
use crate::config::desired::Desired;
use crate::config::fetch::{Eyes, Fetched, fetch};
use crate::config::first::First;
use crate::config::nearby::Nearby;
use crate::config::secrets::Secrets;
use crate::exchange::Exchange;
use crate::link::{CallError, Link};
use crate::service::Context;

/// So long after new ports were wished the controller is asked through them.
const NEW_PORTS: Duration = Duration::from_secs(15);
/// A node without what it needs looks again this often.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

pub(crate) async fn run(ctx: Context) -> anyhow::Result<()> {
    let roots = ctx.roots();
    let mut writers =
        Writers { controller: Writer::open(&roots)?, desired: Desired::open(&roots)? };
    let identities = Reader::<Identities>::open(&roots);
    let watch = Watch::new(&[identities.dir()])?;
    ctx.ready();
    let mut first = None;
    let mut begun = false;
    let mut said = first::Said::default();
    loop {
        if !begun {
            (first, begun) = first::begin(&ctx.paths, &mut writers, &mut said);
        }
        let identity = identities.get(&Only);
        if let Some((identity, link)) = identity.and_then(|i| open(&ctx, &mut writers, i)) {
            let session = Session::new(&ctx, identity, link, &mut writers, first.as_ref());
            tokio::select! {
                () = ctx.stopped() => return Ok(()),
                ended = session.run(&ctx) => ended?,
                () = another_id(&watch, &identities) => {
                    tracing::info!("the controller gave us another id");
                    continue;
                }
            }
        }
        tokio::select! {
            () = ctx.stopped() => return Ok(()),
            changed = watch.changed() => changed?,
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
}

/// What this service owns.
struct Writers {
    controller: Writer<Controller>,
    desired: Desired,
}

/// The way to the controller that gave us this identity. `None`: what is wrong is in the status.
fn open(ctx: &Context, writers: &mut Writers, identity: Identity) -> Option<(Identity, Link)> {
    let link = match Link::open(&ctx.paths) {
        Ok(link) => link,
        Err(why) => {
            tracing::error!("{}", chain(&why));
            let mut status = status(&State::default(), &identity.server, None);
            status.problem = Some(why.problem(host::clock::now()));
            if let Err(e) = writers.controller.publish(Table::<Controller>::from([(Only, status)]))
            {
                tracing::error!("{}", chain(&e));
            }
            return None;
        }
    };
    // An identity of another controller is none here; `onboard` is at work on ours.
    crate::onboard::known_to(Some(identity), &link.server).map(|identity| (identity, link))
}

async fn another_id(watch: &Watch, identities: &Reader<Identities>) {
    let before = identities.get(&Only).map(|i| i.id);
    loop {
        if watch.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        let now = identities.get(&Only).map(|i| i.id);
        if now.is_some() && now != before {
            return;
        }
    }
}

/// The conversation with one controller as one node.
struct Session<'a> {
    id: DeviceId,
    link: Arc<Link>,
    checkpoint: Checkpoint,
    /// The folder with our keys.
    certs: PathBuf,
    writers: &'a mut Writers,
    state: State,
    properties: Properties,
    /// Whose signature we believe now.
    signers: Option<Signers>,
    /// The controller's certificates for key exchange: those published, and old ones in use.
    exchange: BTreeMap<CertHash, Certificate>,
    /// Those that the config in force refers to.
    referred: BTreeSet<CertHash>,
    /// Received and not applied yet: the envelope, and what it says.
    received: Option<Received>,
    /// Saved in an earlier boot and not applied yet.
    saved: Option<Box<Device>>,
    /// When the newest config ever in force was made.
    floor: floor::Record,
    /// In force, for those who tell of it.
    in_force: watch::Sender<InForce>,
    /// Why the controller has no certificate to seal secrets to, once that is known.
    unannounced: watch::Sender<Option<Problem>>,
    /// What someone near the node changed.
    nearby: Nearby,
    alarms: BTreeMap<Alarm, Instant>,
    /// When the controller, or its console, last answered anything at all.
    answered: Option<UnixMillis>,
    /// Other ports were wished than before, and nothing was asked since.
    new_ports: bool,
}

/// A config that came and is not applied yet.
struct Received {
    body: Vec<u8>,
    device: Box<Device>,
    referred: BTreeSet<CertHash>,
}

/// What the tellers need of the config in force.
#[derive(Debug, Clone, Default)]
struct InForce {
    /// As the controller told it.
    told: Option<Arc<Device>>,
    /// With what was changed near the node.
    device: Option<Arc<Device>>,
    /// By how much volumes' generations go beyond the controller's.
    purged: BTreeMap<VolumeId, u64>,
    /// Ports that are set up near the node.
    local_ports: Vec<PortName>,
    properties: Properties,
    /// Who wished the ports.
    ports_from: PortsFrom,
    /// The controller answers.
    reached: bool,
    /// The way to the console that stands in for it.
    console: Option<Arc<Link>>,
    /// When the last config came that we could read.
    received: Option<UnixMillis>,
    /// When one was last put in force.
    applied: Option<UnixMillis>,
    /// What became of sealed secrets.
    secrets: SecretsOpened,
}

/// A call to the controller.
enum Call {
    Certs,
    Config { hash: String, token: Option<Vec<u8>> },
    Console { hash: String, token: Option<Vec<u8>> },
    Nonce,
    Quote { version: String },
}

/// What came of a call. The bodies that go with the event travel beside it.
enum Came {
    Certs(Result<(api::certs::ControllerCerts, Vec<u8>), CallError>),
    Config(Result<Fetched, CallError>),
    Console(Box<Result<console::Said, CallError>>),
    Event(Event),
}

impl Came {
    /// Somebody was reached, whatever was said.
    fn is_answer(&self) -> bool {
        match self {
            Came::Certs(said) => said.as_ref().err().is_none_or(CallError::is_answer),
            Came::Config(said) => said.as_ref().err().is_none_or(CallError::is_answer),
            Came::Console(said) => said.as_ref().as_ref().err().is_none_or(CallError::is_answer),
            // What attestation comes to is known by then.
            Came::Event(_) => false,
        }
    }
}

impl<'a> Session<'a> {
    /// `first`: what counts until there is a config.
    fn new(
        ctx: &Context,
        identity: Identity,
        link: Link,
        writers: &'a mut Writers,
        first: Option<&First>,
    ) -> Session<'a> {
        let checkpoint = Checkpoint::open(ctx.paths.persist.join("checkpoint"));
        let signers = checkpoint.certs(&link);
        let exchange = checkpoint.exchange();
        let certs = ctx.paths.persist.join("certs");
        let ours = Exchange::read(&certs, &link.certificate);
        let known: Vec<Certificate> = exchange.values().cloned().collect();
        let mut secrets = Secrets::new(ours, &known, host::clock::now());
        let saved = checkpoint.config(&link, identity.id, &mut |c, b| secrets.open(c, b));
        let mut in_force = InForce { secrets: secrets.counted, ..InForce::default() };
        if let Some(first) = first.filter(|_| saved.is_none()) {
            in_force.device = Some(first.device.clone());
            in_force.properties = first.properties.clone();
            in_force.ports_from = first.ports_from;
        }
        let made = saved.as_ref().and_then(|s| s.timestamp);
        let floor = checkpoint.floor(&link.server, identity.id, made, &ctx.paths.config);
        link.obey(&in_force.properties);
        Session {
            id: identity.id,
            link: Arc::new(link),
            checkpoint,
            writers,
            state: State::default(),
            properties: in_force.properties.clone(),
            signers,
            exchange,
            referred: secrets.referred,
            certs,
            received: None,
            saved,
            floor,
            in_force: watch::Sender::new(in_force),
            unannounced: watch::Sender::default(),
            nearby: Nearby::open(ctx.paths.persist.join("checkpoint")),
            alarms: BTreeMap::new(),
            answered: None,
            new_ports: false,
        }
    }

    async fn run(mut self, ctx: &Context) -> anyhow::Result<()> {
        let roots = ctx.roots();
        let ports = Reader::<Ports>::open(&roots);
        let version = Reader::<Boots>::open(&roots);
        let watch = Watch::new(&[ports.dir()])?;
        let tellers = [
            tokio::spawn(profile::talk(
                roots.clone(),
                self.id,
                self.nearby.clone(),
                self.in_force.subscribe(),
            )),
            tokio::spawn(info::tell(
                roots.clone(),
                self.id,
                self.link.clone(),
                self.in_force.subscribe(),
            )),
            tokio::spawn(metrics::tell(
                roots.clone(),
                ctx.paths.persist.clone(),
                self.id,
                self.link.clone(),
                self.in_force.subscribe(),
            )),
            tokio::spawn(health::tell(
                roots.clone(),
                self.id,
                self.link.clone(),
                self.in_force.subscribe(),
            )),
            tokio::spawn(time::tell(
                roots.clone(),
                self.id,
                self.link.clone(),
                self.in_force.subscribe(),
            )),
            tokio::spawn(announce::tell(
                ctx.paths.persist.join("certs"),
                self.id,
                self.link.clone(),
                self.in_force.subscribe(),
                self.unannounced.clone(),
            )),
        ];
        let _tellers = AbortOnDrop(tellers);
        let mut announced = self.unannounced.subscribe();
        let mut changed_nearby = self.nearby.watch();

        let (told, mut answers) = mpsc::unbounded_channel();
        let link = self.link.clone();
        // The addresses that may lead to the controller.
        let look = || {
            let ports = ports.read();
            link.go_through(&ports);
            let ways = ports.into_values().filter(|p| p.port.management && !p.addresses.is_empty());
            ways.map(|p| (p.port.interface, p.addresses, p.gateway, p.dns)).collect::<Vec<_>>()
        };
        let mut ways = look();
        let saved = self.saved.as_deref().map(|d| summary(d, &self.properties));
        let floor = self.floor.newest;
        let mut event = Event::Started { certs: self.signers.is_some(), saved, floor };
        loop {
            let before = self.state.problem.as_ref().map(|p| p.text.clone());
            let at = Moment {
                me: self.id,
                properties: &self.properties,
                console: self.console().is_some(),
                now: host::clock::now(),
                jitter: jitter(),
            };
            let (state, effects) = config::step(std::mem::take(&mut self.state), event, at);
            self.state = state;
            self.tell_trouble(before);
            if effects.contains(&Effect::Apply) {
                // That somebody answered through the old ports must be known before there are new ones.
                self.publish()?;
            }
            let mut done = None;
            for effect in effects {
                match effect {
                    Effect::Apply => done = Some(Event::Applied(self.apply())),
                    Effect::ApplySaved => self.apply_saved(),
                    Effect::Alarm(kind, wait) => {
                        self.alarms.insert(kind, Instant::now() + wait);
                    }
                    Effect::FetchCerts => self.ask(Call::Certs, &told),
                    Effect::AskConfig { hash, token } => {
                        self.ask(Call::Config { hash, token }, &told);
                    }
                    Effect::AskConsole { hash, token } => {
                        self.ask(Call::Console { hash, token }, &told);
                    }
                    Effect::AskNonce => self.ask(Call::Nonce, &told),
                    // Without a TPM there is nothing to sign it with.
                    Effect::SendQuote { nonce: _ } => {
                        let version = version.get(&Only).map(|b| b.version).unwrap_or_default();
                        self.ask(Call::Quote { version }, &told);
                    }
                }
            }
            if let Some(done) = done {
                event = done;
                continue;
            }
            self.publish()?;
            self.try_new_ports();
            event = loop {
                let ring = self.alarms.iter().min_by_key(|(_, at)| **at).map(|(k, at)| (*k, *at));
                let rings = ring.map_or_else(|| Instant::now() + LOOK_AGAIN, |(_, at)| at);
                tokio::select! {
                    Some(came) = answers.recv() => break self.note(came),
                    Ok(()) = announced.changed() => self.publish()?,
                    Ok(()) = changed_nearby.changed() => {
                        self.change();
                        self.publish()?;
                        self.try_new_ports();
                    }
                    changed = watch.changed() => {
                        changed?;
                        let before = std::mem::replace(&mut ways, look());
                        if !ways.is_empty() && before.is_empty() {
                            break Event::NetworkUp;
                        } else if !ways.is_empty() && ways != before {
                            break Event::NetworkChanged;
                        }
                    }
                    () = sleep_until(rings) => if let Some((kind, _)) = ring {
                        self.alarms.remove(&kind);
                        break Event::Alarm(kind);
                    }
                }
            };
        }
    }

    /// Whether somebody answers through new ports must be known soon, however seldom configs are asked
    /// for: `eved network` waits for it.
    fn try_new_ports(&mut self) {
        if let Some(poll) = self.alarms.get_mut(&Alarm::Poll)
            && std::mem::take(&mut self.new_ports)
        {
            *poll = (*poll).min(Instant::now() + NEW_PORTS);
        }
    }

    /// Starts one call; what comes of it is told.
    fn ask(&self, call: Call, told: &mpsc::UnboundedSender<Came>) {
        let (id, link, told) = (self.id, self.link.clone(), told.clone());
        let signers = self.signers.clone();
        let (certs, exchange) = (self.certs.clone(), self.exchange.values().cloned().collect());
        let console = self.console().map(|url| link.console(&url));
        let last = self.nearby.kept().console;
        tokio::spawn(async move {
            let came = match (call, signers) {
                (Call::Config { hash, token }, Some(signers)) => {
                    let signer = signers.signer().clone();
                    let eyes = Eyes { id, signer, certs, exchange };
                    Came::Config(fetch(&link, &eyes, hash, token).await)
                }
                (Call::Console { hash, token }, Some(signers)) => match console {
                    Some(console) => {
                        let signer = signers.signer().clone();
                        let eyes = Eyes { id, signer, certs, exchange };
                        let integrity_token = token.unwrap_or_default();
                        let asked = wire::Request { hash, integrity_token };
                        let said = console::ask(&console, eyes, &signers, asked, last).await;
                        Came::Console(Box::new(said))
                    }
                    // The config that named it is gone meanwhile.
                    None => Came::Event(Event::Console(Answer::Unchanged)),
                },
                (Call::Nonce, Some(signers)) => Came::Event(Event::Nonce(
                    attest::nonce(&link, id, &signers).await.map_err(problem),
                )),
                (Call::Quote { version }, Some(signers)) => {
                    Came::Event(Event::Quote(attest::quote(&link, id, &signers, version).await))
                }
                // No answer is believed without certificates, so they come first.
                (Call::Certs, _)
                | (
                    Call::Config { .. } | Call::Console { .. } | Call::Nonce | Call::Quote { .. },
                    None,
                ) => Came::Certs(link.certs(host::clock::now()).await),
            };
            let _ = told.send(came); // closed: the session is over
        });
    }

    /// Takes what came of a call into our books, and tells it to the mind.
    fn note(&mut self, came: Came) -> Event {
        if came.is_answer() {
            self.answered = Some(host::clock::now());
        }
        match came {
            Came::Event(event) => event,
            Came::Certs(Err(e)) => Event::Certs(Err(problem(e))),
            Came::Certs(Ok((certs, body))) => {
                self.take_certs(certs, &body);
                Event::Certs(Ok(()))
            }
            Came::Config(Ok(fetched)) => Event::Config(self.take_config(fetched)),
            Came::Console(said) => Event::Console(self.take_console(*said)),
            Came::Config(Err(e)) => Event::Config(match e.status() {
                None if e.is_unverified() => {
                    self.link.count_unverified();
                    match e.wants_certificates() {
                        true => Answer::UnknownSigner(problem(e)),
                        false => Answer::Failed(problem(e)),
                    }
                }
                Some(403) => Answer::Forbidden,
                Some(400 | 404) => Answer::Unknown,
                _ if e.wants_certificates() => Answer::UnknownSigner(problem(e)),
                _ => Answer::Failed(problem(e)),
            }),
        }
    }

    fn take_certs(&mut self, certs: api::certs::ControllerCerts, body: &[u8]) {
        if let Err(e) = self.checkpoint.save_certs(self.signers.as_ref(), &certs, body) {
            tracing::error!("the controller's certificates are not saved: {}", chain(&e));
        }
        let signers = Signers::new(certs);
        let known = exchange::keep(&self.exchange, &signers.exchange(), &self.referred);
        if known != self.exchange {
            if let Err(e) = self.checkpoint.save_exchange(&known) {
                tracing::error!("certificates for secrets are not saved: {}", chain(&e));
            }
            self.exchange = known;
        }
        self.signers = Some(signers);
    }

    fn take_console(&mut self, said: Result<console::Said, CallError>) -> Answer {
        let said = match said {
            Ok(said) => said,
            Err(e) => {
                tracing::warn!("the local operator console is no help: {}", chain(&e));
                return Answer::Failed(problem(e));
            }
        };
        if let Some((certs, body)) = said.certs {
            self.take_certs(certs, &body);
        }
        let told = self.in_force.borrow().told.clone();
        if let Some(told) = told {
            self.nearby.change(|kept| kept.console(&said.compound, &told));
        }
        self.take_config(said.fetched)
    }

    fn take_config(&mut self, fetched: Fetched) -> Answer {
        match fetched {
            Fetched::Unchanged => Answer::Unchanged,
            Fetched::Unusable(why) => Answer::Unusable(why),
            Fetched::Config { body, hash, device, secrets } => {
                let wants_certs = secrets.wants_certs;
                let config = Summary { wants_certs, ..summary(&device, &self.properties) };
                self.in_force.send_modify(|f| {
                    f.received = Some(host::clock::now());
                    secrets::add(&mut f.secrets, &secrets.counted);
                });
                self.received = Some(Received { body, device, referred: secrets.referred });
                Answer::Config { hash, config: Some(config) }
            }
        }
    }

    /// Where the console is that may stand in for the controller.
    fn console(&self) -> Option<String> {
        let told = self.in_force.borrow().told.clone()?;
        let console = told.local_console.as_ref()?;
        Some(console.url.clone()).filter(|url| !url.trim().is_empty())
    }

    /// Whether nobody expects the controller to be reached.
    fn airgapped(&self) -> bool {
        let in_force = self.in_force.borrow();
        let setting = in_force.device.as_ref().and_then(|d| d.items.get("airgap.mode"));
        config::maintenance(false, setting.map(String::as_str))
    }

    /// Saved first: what the node does it must also do after a power cut. What is not saved is in
    /// force all the same: a full disk may be what this config makes an end of.
    fn apply(&mut self) -> Result<(), Problem> {
        let Some(Received { body, device, referred }) = self.received.take() else {
            return Ok(());
        };
        let saved = self.save(&body, device.timestamp);
        self.referred = referred;
        let published = self.put_in_force(device);
        saved.and(published)
    }

    /// The time goes first: it may be newer than the config beside it, but never older.
    fn save(&mut self, body: &[u8], made: Option<UnixMillis>) -> Result<(), Problem> {
        let saved = match self.floor.raised(made) {
            Some(raised) => {
                let saved = self.checkpoint.save_floor(&raised);
                self.floor = raised;
                saved
            }
            None => Ok(()),
        };
        let saved = saved.and_then(|()| self.checkpoint.save_config(body, self.signers.as_ref()));
        saved.map_err(|e| {
            tracing::error!("the config is not saved: {}", chain(&e));
            let advice = "free space on the node's disk, or check it";
            Problem::new(
                format!("the config is in force but not saved: {}", chain(&e)),
                Diagnosis::of(Who::Operator, advice),
                host::clock::now(),
            )
        })
    }

    fn apply_saved(&mut self) {
        if let Some(device) = self.saved.take() {
            tracing::info!("the controller is not reached: running the saved config");
            // What of it cannot be published now comes with the controller's config.
            let _ = self.put_in_force(device);
        }
    }

    fn put_in_force(&mut self, told: Box<Device>) -> Result<(), Problem> {
        let now = host::clock::now();
        self.properties = settings(&told.items, &self.properties, now);
        for refused in &told.refused {
            tracing::warn!(kind = ?refused.kind, id = refused.id, "refused: {}", refused.text);
        }
        tracing::info!(apps = told.apps.len(), source = ?self.state.source, "config in force");
        self.in_force.send_modify(|f| f.applied = Some(now));
        self.publish_device(Arc::new(*told))
    }

    /// Something was changed near the node: the config in force is another one.
    fn change(&mut self) {
        let told = self.in_force.borrow().told.clone();
        if let Some(told) = told {
            // It is published again with the next change; what is wrong is in the log.
            let _ = self.publish_device(told);
        }
    }

    /// Publishes a config with what was changed near the node.
    fn publish_device(&mut self, told: Arc<Device>) -> Result<(), Problem> {
        let kept = self.nearby.kept();
        let local = api::convert::local::changes(&kept.ports, &told.ports);
        let device = device::local::apply(&told, &kept.overrides, &local.changes);
        let desired = &mut self.writers.desired;
        let published = if in_maintenance(&device) {
            tracing::warn!("in maintenance: of the config only settings and counters count");
            desired.publish_settings(&device, &self.properties)
        } else {
            desired.publish(&device, &self.properties)
        };
        let published = published.and_then(|()| desired.publish_local_power(kept.power));
        self.link.obey(&self.properties);
        let ports_before = self.in_force.borrow().device.as_ref().map(|d| d.ports.clone());
        self.new_ports |= ports_before.as_ref() != Some(&device.ports);
        let (device, properties) = (Arc::new(device), self.properties.clone());
        self.in_force.send_modify(|f| {
            f.purged = device::local::purged(&told, &kept.overrides);
            f.local_ports = local.changes.keys().cloned().collect();
            f.told = Some(told);
            f.device = Some(device);
            f.properties = properties;
            f.ports_from = PortsFrom::Controller;
        });
        published.map_err(|e| {
            tracing::error!("{}", chain(&e));
            e.problem(host::clock::now())
        })
    }

    fn publish(&mut self) -> anyhow::Result<()> {
        let device = self.in_force.borrow().device.clone();
        let mut status = status(&self.state, &self.link.server, device.as_deref());
        let unannounced = self.unannounced.borrow().clone();
        status.standing.attestation_problem =
            self.state.attestation_problem.clone().or(unannounced);
        status.standing.local_profile = self.nearby.kept().overrides.profile;
        status.standing.local_ports = self.in_force.borrow().local_ports.clone();
        status.standing.ports_from = self.in_force.borrow().ports_from;
        status.standing.answered = self.answered;
        let reached = self.state.last_contact.is_some() && self.state.failures == 0;
        let stands_in = self.console().filter(|_| self.state.stands_in.is_some());
        if let Some(why) = &self.state.stands_in
            && self.airgapped()
        {
            // Who is reached is all that is expected to be.
            status.last_contact = Some(host::clock::now());
            status.problem = Some(console::expected(why.since));
        }
        let console = stands_in.map(|url| Arc::new(self.link.console(&url)));
        self.in_force.send_if_modified(|f| {
            let other = f.console.is_some() != console.is_some();
            if other {
                f.console = console;
            }
            (std::mem::replace(&mut f.reached, reached) != reached) | other
        });
        self.writers.controller.publish(Table::<Controller>::from([(Only, status)]))?;
        Ok(())
    }

    fn tell_trouble(&self, before: Option<String>) {
        match &self.state.problem {
            // Where nobody expects a controller its silence is no news.
            Some(why) if before.as_ref() != Some(&why.text) && self.airgapped() => {
                tracing::debug!("{}", why.text);
            }
            Some(why) if before.as_ref() != Some(&why.text) => tracing::warn!("{}", why.text),
            None if before.is_some() => tracing::info!("the controller answers again"),
            _ => {}
        }
    }
}

struct AbortOnDrop([tokio::task::JoinHandle<()>; 6]);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

fn status(state: &State, server: &str, device: Option<&Device>) -> ControllerStatus {
    ControllerStatus {
        server: server.to_owned(),
        last_contact: state.last_contact,
        problem: state.problem.clone(),
        config: state.source,
        config_timestamp: device.and_then(|d| d.timestamp),
        refused: device.map(|d| d.refused.clone()).unwrap_or_default(),
        node_name: device.map(|d| d.name.clone()).unwrap_or_default(),
        forgotten: state.forgotten,
        standing: Standing {
            attestation: state.attestation,
            attestation_problem: None,
            maintenance: match device {
                Some(device) if in_maintenance(device) => vec![Maintenance::Requested],
                _ => Vec::new(),
            },
            local_profile: String::new(),
            local_ports: Vec::new(),
            ports_from: PortsFrom::Controller,
            ports_aside: None,
            answered: None,
        },
    }
}

/// The settings in force, and of each that is not why.
fn settings(items: &BTreeMap<String, String>, before: &Properties, now: UnixMillis) -> Properties {
    let mut all = api::convert::items::properties(items, before, now);
    for (key, text) in device::settings::without_effect(items) {
        let since = before.problems.get(&key).filter(|p| p.text == text).map_or(now, |p| p.since);
        let advice = Diagnosis::of(Who::Operator, "take the setting out of the config");
        // A value that is no good is told as that.
        all.problems.entry(key).or_insert_with(|| Problem::new(text, advice, since));
    }
    all
}

fn in_maintenance(device: &Device) -> bool {
    let setting = device.items.get("maintenance.mode").map(String::as_str);
    config::maintenance(device.maintenance, setting)
}

/// What a config says of itself, to a node with these settings.
fn summary(device: &Device, properties: &Properties) -> Summary {
    let now = host::clock::now();
    let told = api::convert::items::properties(&device.items, properties, now);
    Summary {
        id: device.id,
        timestamp: device.timestamp,
        certs_hash: device.controller_certs_hash.clone(),
        interval: told.config_interval,
        wants_certs: false,
    }
}

fn problem(e: CallError) -> Problem {
    e.problem(host::clock::now())
}
