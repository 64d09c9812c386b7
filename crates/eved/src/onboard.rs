//! `eved onboard`: makes the device key once, and asks the controller who we are.
//!
//! `device::onboard` says which step comes next. The key is never replaced: a node whose key is lost
//! or damaged says so and waits for a person, since a new key would be a new node.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::certs::ControllerCerts;
use api::{Certificate, SigningKey};
use device::onboard::{self, Effect, Event, Facts, State};
use host::topics::{Reader, Table, Watch, Writer};
use model::reported::{Identity, Onboarding, OnboardingStep};
use model::topic::{Controller, Identities, OnboardingState, Only, Ports};
use model::{Bytes, Diagnose, Diagnosis, Problem, Who, chain};
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, sleep_until};

use crate::chance::jitter;
use crate::exchange::Exchange;
use crate::link::{CallError, DEVICE_CERTIFICATE, DEVICE_KEY, Link, Onboarder};
use crate::service::{Context, Paths};

/// A node without what it needs looks again this often.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Why there is no device key to use.
#[derive(Debug, thiserror::Error)]
enum KeyTrouble {
    #[error("the device key is gone although this node was known by it ({0} is still there)")]
    Lost(String),
    #[error("cannot make the device key")]
    Make(#[source] api::KeyError),
    #[error("cannot keep the device key")]
    Keep(#[from] store::StoreError),
    #[error("cannot prepare {path}")]
    Folder { path: String, source: io::Error },
    #[error(transparent)]
    Read(#[from] CallError),
}

impl Diagnose for KeyTrouble {
    fn diagnose(&self) -> Diagnosis {
        let advice = "restore /persist/certs, or wipe /persist to make this a new node";
        match self {
            Self::Lost(_) => Diagnosis::of(Who::Hardware, advice),
            Self::Make(_) => Diagnosis::of(Who::Nobody, "it is tried again").retry_in(LOOK_AGAIN),
            Self::Keep(_) | Self::Folder { .. } => {
                Diagnosis::of(Who::Hardware, "check the node's disk").retry_in(LOOK_AGAIN)
            }
            Self::Read(e) => e.diagnose().retry_in(LOOK_AGAIN),
        }
    }
}

pub(crate) async fn run(ctx: Context) -> anyhow::Result<()> {
    let roots = ctx.roots();
    let mut states = Writer::<OnboardingState>::open(&roots)?;
    ctx.ready();
    let opened = until_it_works(&ctx, &mut states, || Writer::<Identities>::open(&roots));
    let Some(mut identities) = opened.await? else {
        return Ok(()); // asked to end
    };
    let saved = identities.table().get(&Only).cloned();
    if let Err(why) = identities.finish() {
        tracing::error!("{}", chain(&why)); // publishing says it again
    }

    let known = saved.is_some();
    let prepared = until_it_works(&ctx, &mut states, || prepare(&ctx.paths, known));
    let Some((link, onboarder)) = prepared.await? else {
        return Ok(()); // asked to end
    };
    let facts = Facts {
        server: link.server.clone(),
        onboarding_certificate: onboarder.is_some(),
        serial: serial(&ctx.paths),
        soft_serial: read_line(&ctx.paths.config.join("soft_serial")),
    };
    let ports = Reader::<Ports>::open(&roots);
    let controller = Reader::<Controller>::open(&roots);
    let watch = Watch::new(&[ports.dir(), controller.dir()])?;
    let calls = Arc::new(Calls { link, onboarder, certs: Mutex::new(None), facts: facts.clone() });

    let (answers, mut answered) = mpsc::unbounded_channel();
    let mut state = State::new(&facts, saved);
    let mut alarm: Option<Instant> = None;
    let mut unsaved: Option<Identity> = None;
    let is_up = || {
        let ports = ports.read();
        calls.link.go_through(&ports);
        ports.values().any(|p| !p.addresses.is_empty())
    };
    let mut up = is_up();
    answers.send(Event::Network { up })?;
    loop {
        let mut told = state.report(&facts);
        // A disk that is full now may have room later: this service waits, it does not end.
        if let Some(identity) = &unsaved {
            match identities.publish(Table::<Identities>::from([(Only, identity.clone())])) {
                Ok(()) => unsaved = None,
                Err(why) => {
                    tracing::error!("who we are is not saved: {}", chain(&why));
                    let mut why = why.problem(host::clock::now());
                    why.diagnosis.retry_in = Some(LOOK_AGAIN);
                    told.problem.get_or_insert(why);
                }
            }
        }
        states.publish(Table::<OnboardingState>::from([(Only, told)]))?;
        let look = Instant::now() + LOOK_AGAIN;
        let rings = alarm.unwrap_or(look);
        let event = tokio::select! {
            () = ctx.stopped() => return Ok(()),
            Some(event) = answered.recv() => event,
            () = sleep_until(rings), if alarm.is_some() => { alarm = None; Event::Alarm }
            () = sleep_until(look), if unsaved.is_some() => continue,
            changed = watch.changed() => {
                changed?;
                let came_up = is_up() && !up;
                up = is_up();
                let forgotten = controller.get(&Only).is_some_and(|c| c.forgotten);
                match (came_up, forgotten) {
                    (true, _) => Event::Network { up: true },
                    (false, true) => Event::Forgotten,
                    (false, false) => continue,
                }
            }
        };
        let before = state.step;
        let (next, effects) = onboard::step(state, event, &facts, host::clock::now(), jitter());
        state = next;
        tell(before, &state);
        for effect in effects {
            match effect {
                Effect::Alarm(wait) => alarm = Some(Instant::now() + wait),
                Effect::Remember(identity) => {
                    tracing::info!(id = %identity.id, server = identity.server, "onboarded");
                    unsaved = Some(identity);
                }
                Effect::FetchCerts => calls.start(Call::Certs, &answers),
                Effect::Register => calls.start(Call::Register, &answers),
                Effect::AskUuid => calls.start(Call::Uuid, &answers),
            }
        }
    }
}

fn tell(before: OnboardingStep, now: &State) {
    if let Some(why) = &now.problem {
        tracing::warn!(step = ?now.step, failures = now.failures, "{}", why.text);
    } else if now.step != before {
        tracing::info!(step = ?now.step, "onboarding");
    }
}

/// The calls to the controller that onboarding makes.
struct Calls {
    link: Link,
    onboarder: Option<Onboarder>,
    certs: Mutex<Option<ControllerCerts>>,
    facts: Facts,
}

/// A call that is to be made.
#[derive(Debug, Clone, Copy)]
enum Call {
    Certs,
    Register,
    Uuid,
}

impl Calls {
    /// Makes a call beside the loop; its answer comes back as an event.
    fn start(self: &Arc<Self>, call: Call, answers: &mpsc::UnboundedSender<Event>) {
        let (calls, answers) = (self.clone(), answers.clone());
        tokio::spawn(async move {
            let event = match call {
                Call::Certs => calls.certs().await,
                Call::Register => calls.register().await,
                Call::Uuid => calls.uuid().await,
            };
            // A closed queue means that we are ending.
            let _ = answers.send(event);
        });
    }

    async fn certs(&self) -> Event {
        let fetched = self.link.certs(host::clock::now()).await;
        let mut known = self.certs.lock().await;
        Event::Certs(fetched.map(|(certs, _)| *known = Some(certs)).map_err(problem))
    }

    async fn register(&self) -> Event {
        let (serial, soft_serial) = (&self.facts.serial, &self.facts.soft_serial);
        let told = match &self.onboarder {
            Some(onboarder) => self.link.register(onboarder, serial, soft_serial).await,
            None => Ok(()),
        };
        Event::Registered(told.map_err(problem))
    }

    async fn uuid(&self) -> Event {
        let known = self.certs.lock().await;
        let Some(certs) = known.as_ref() else {
            let why = Diagnosis::of(Who::Developer, "report this");
            let text = "asked for an id before the certificates";
            return Event::Uuid(Err(Problem::new(text, why, host::clock::now())));
        };
        let (serial, soft_serial) = (&self.facts.serial, &self.facts.soft_serial);
        Event::Uuid(self.link.uuid(certs.signer(), serial, soft_serial).await.map_err(problem))
    }
}

fn problem(e: CallError) -> Problem {
    e.problem(host::clock::now())
}

/// Tries until it works, and tells what stands in the way. `None`: asked to end.
async fn until_it_works<T, E: Diagnose + 'static>(
    ctx: &Context,
    states: &mut Writer<OnboardingState>,
    work: impl Fn() -> Result<T, E>,
) -> anyhow::Result<Option<T>> {
    loop {
        let trouble = match work() {
            Ok(done) => return Ok(Some(done)),
            Err(trouble) => trouble,
        };
        tracing::error!("{}", chain(&trouble));
        let told = Onboarding {
            step: OnboardingStep::Network,
            tries: 0,
            serial: serial(&ctx.paths),
            soft_serial: String::new(),
            problem: Some(trouble.problem(host::clock::now())),
        };
        states.publish(Table::<OnboardingState>::from([(Only, told)]))?;
        tokio::select! {
            () = ctx.stopped() => return Ok(None),
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
}

/// The key and everything that names the controller.
fn prepare(paths: &Paths, known: bool) -> Result<(Link, Option<Onboarder>), KeyTrouble> {
    let (key, certificate) = device_key(paths, known)?;
    let dir = paths.persist.join("certs");
    // Without it there are no sealed secrets; whoever needs one says so. All else goes on.
    if let Err(why) = Exchange::of(&dir, &key, &certificate, host::clock::now()) {
        tracing::error!("{}", chain(&why));
    }
    let link = Link::new(paths, key, certificate)?;
    Ok((link, Onboarder::open(paths)?))
}

/// The device's key and certificate; made at the first start and never again.
fn device_key(paths: &Paths, known: bool) -> Result<(SigningKey, Certificate), KeyTrouble> {
    let dir = paths.persist.join("certs");
    open_to_key_users(&dir)
        .map_err(|source| KeyTrouble::Folder { path: dir.display().to_string(), source })?;
    let (key_at, certificate_at) = (dir.join(DEVICE_KEY), dir.join(DEVICE_CERTIFICATE));
    let key = if key_at.exists() {
        crate::link::read_key(&key_at)?
    } else if certificate_at.exists() {
        return Err(KeyTrouble::Lost(certificate_at.display().to_string()));
    } else if known {
        return Err(KeyTrouble::Lost("its identity".to_owned()));
    } else {
        let key = SigningKey::generate().map_err(KeyTrouble::Make)?;
        let pem = key.to_pem().map_err(KeyTrouble::Make)?;
        // On the disk before anyone can see it used; never readable by others, not even at first.
        store::save_with_mode(&dir, DEVICE_KEY, pem.as_bytes(), 0o640)?;
        tracing::info!("made the device key");
        key
    };
    if !certificate_at.exists() {
        let made = api::device_certificate(&key, host::clock::now()).map_err(KeyTrouble::Make)?;
        let saved = store::save(&dir, DEVICE_CERTIFICATE, made.pem());
        saved.map_err(store::StoreError::from)?;
    }
    let certificate = crate::link::read_certificate(&certificate_at)?;
    Ok((key, certificate))
}

/// Lets the group of key users into the folder, and nobody else; files made in it are the group's.
fn open_to_key_users(dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    match std::os::unix::fs::chown(dir, None, Some(model::services::KEY_GROUP)) {
        // A person who tries the service by hand is not in the group.
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            tracing::warn!("{} is not given to the group of key users: {e}", dir.display());
        }
        other => other?,
    }
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o2750))
}

/// The hardware's serial number: as `eve-init` found it (only root may read the firmware's tables),
/// else as far as we can see ourselves; empty if it has none.
fn serial(paths: &Paths) -> String {
    let found = read_line(&paths.run.join("serial"));
    if found.is_empty() { read_line(Path::new("/sys/class/dmi/id/product_serial")) } else { found }
}

/// The first line of a file of at most 64 KiB, trimmed, at most 256 characters; else empty.
fn read_line(path: &Path) -> String {
    let text = store::read_bounded(path, Bytes::kib(64)).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().next().unwrap_or_default().trim();
    line.chars().filter(|c| !c.is_control()).take(256).collect()
}

/// The identity that a controller gave, if it is this controller.
pub(crate) fn known_to(identity: Option<Identity>, server: &str) -> Option<Identity> {
    identity.filter(|i| i.server == server)
}
