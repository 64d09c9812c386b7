//! Registrations. All that wait while one is being stored are stored together, so that one sync of
//! the disk serves many: after a power cut of a site, or when a fleet moves here, they come at once.

use std::sync::{Arc, Mutex, PoisonError};

use api::onboarding::Registration;
use model::{DeviceId, UnixMillis};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::change::{NewDevice, first, nobody, written};
use super::{Fleet, FleetError, Known};
use crate::admission::{Admission, Applicant, admit};
use crate::db::{Change, DeviceRow, StoredObject};
use crate::objects::{DeviceSpec, Key, Kind, Spec};

/// Registrations that are stored together.
const BATCH_MAX: usize = 64;

/// What became of a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Registered {
    /// It is a node of ours now.
    New,
    /// It was one.
    Already,
    /// Its serial number belongs to another certificate.
    Conflict,
    /// Nobody expects it.
    Unknown,
}

/// A node that asks to be taken in.
#[derive(Debug)]
struct Asking {
    what: Registration,
    /// What [`Fleet::onboarding`] said of the certificate it came with.
    onboard: Vec<u8>,
}

impl Asking {
    fn serials(&self) -> [&str; 2] {
        [&self.what.serial, &self.what.soft_serial].map(|s| s.trim())
    }

    /// Whether what becomes of one may depend on the other.
    fn meets(&self, other: &Asking) -> bool {
        let theirs = other.serials();
        self.what.certificate.digest() == other.what.certificate.digest()
            || self.serials().iter().any(|s| !s.is_empty() && theirs.contains(s))
    }
}

type Outcome = Result<Registered, FleetError>;

#[derive(Debug)]
struct Waiting {
    asking: Arc<Asking>,
    told: oneshot::Sender<Outcome>,
}

/// Nodes that wait to be taken in.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Vec<Waiting>>,
    /// Who holds it takes in all that wait.
    leading: tokio::sync::Mutex<()>,
}

impl Queue {
    fn put(&self, one: Waiting) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(one);
    }

    /// Those that can be decided on together, first come first served.
    fn take(&self) -> Vec<Waiting> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut batch: Vec<Waiting> = Vec::new();
        for one in std::mem::take(&mut *waiting) {
            // Who hung up asks again.
            if one.told.is_closed() {
                continue;
            }
            let alone = batch.iter().all(|other| !one.asking.meets(&other.asking));
            if alone && batch.len() < BATCH_MAX {
                batch.push(one);
            } else {
                waiting.push(one);
            }
        }
        batch
    }
}

impl Fleet {
    /// Takes a node in, if it may come. `onboard` is what [`Fleet::onboarding`] said.
    pub(crate) async fn register(&self, what: Registration, onboard: Vec<u8>) -> Outcome {
        let asking = Arc::new(Asking { what, onboard });
        'asked: loop {
            let (told, mut outcome) = oneshot::channel();
            self.applicants.put(Waiting { asking: asking.clone(), told });
            let _leads = self.applicants.leading.lock().await;
            loop {
                match outcome.try_recv() {
                    Ok(outcome) => return outcome,
                    Err(oneshot::error::TryRecvError::Empty) => self.take_in().await,
                    // Whose turn it was hung up meanwhile.
                    Err(oneshot::error::TryRecvError::Closed) => continue 'asked,
                }
            }
        }
    }

    /// Takes in the first that wait.
    async fn take_in(&self) {
        let (all, told): (Vec<_>, Vec<_>) =
            self.applicants.take().into_iter().map(|w| (w.asking, w.told)).unzip();
        let outcomes: Vec<Outcome> = match self.decide(&all).await {
            Ok(outcomes) => outcomes.into_iter().map(Ok).collect(),
            Err(e) if all.len() == 1 => vec![Err(e)],
            // One that cannot be stored must not keep the others out.
            Err(_) => {
                let mut outcomes = Vec::with_capacity(all.len());
                for one in &all {
                    let outcome = self.decide(std::slice::from_ref(one)).await;
                    outcomes
                        .push(outcome.map(|o| o.first().copied().unwrap_or(Registered::Unknown)));
                }
                outcomes
            }
        };
        for (outcome, told) in outcomes.into_iter().zip(told) {
            // Who asked may be gone; what was decided holds.
            let _ = told.send(outcome);
        }
    }

    /// Decides on nodes that do not meet, and stores it.
    async fn decide(&self, all: &[Arc<Asking>]) -> Result<Vec<Registered>, FleetError> {
        // Another process may have been told a moment ago that they may come.
        self.follow().await?;
        let now = self.now();
        let fresh: Vec<Uuid> = all.iter().map(|_| Uuid::new_v4()).collect();
        self.change(|known| {
            let mut change = Change::by("registration", now);
            let decided = all.iter().zip(&fresh);
            let outcomes = decided.map(|(a, id)| one(known, a, *id, now, &mut change)).collect();
            Ok((change, outcomes))
        })
        .await
    }
}

fn one(
    known: &Known,
    Asking { what, onboard }: &Asking,
    fresh: Uuid,
    now: UnixMillis,
    change: &mut Change,
) -> Registered {
    let digest = what.certificate.digest();
    let applicant = Applicant {
        cert_hash: &digest.0,
        serial: &what.serial,
        soft_serial: &what.soft_serial,
        onboard,
    };
    let rows = known.candidates(&digest, [&what.serial, &what.soft_serial]);
    let (id, before) = match admit(&rows, &known.open_serials(onboard), applicant) {
        Admission::Known(_) => return Registered::Already,
        Admission::Conflict(_) => return Registered::Conflict,
        Admission::Unknown => return Registered::Unknown,
        // One before it in this batch is that node: it came by the other serial number.
        Admission::Expected(row) if change.devices.iter().any(|d| d.id == row.id) => {
            return Registered::Conflict;
        }
        Admission::Expected(row) => (row.id, Some(row)),
        Admission::New => (fresh, None),
    };
    let mut named = known.object_of(id).map(|stored| stored.object.key.to_string());
    if before.is_none() {
        let new = new_device(known, id, what, change);
        named = Some(new.object.key.to_string());
        change.put.push(new);
    }
    change.devices.push(DeviceRow {
        serial: what.serial.clone(),
        soft_serial: what.soft_serial.clone(),
        wildcard: before.is_none(),
        cert_pem: Some(what.certificate.pem().to_vec()),
        cert_hash: Some(digest.0.to_vec()),
        registered: Some(now),
        onboard: onboard.clone(),
        gone: None,
        ..before.cloned().unwrap_or_else(|| nobody(id))
    });
    change.log(Some(id), named.unwrap_or_default(), "registered");
    Registered::New
}

fn new_device(known: &Known, id: Uuid, what: &Registration, change: &Change) -> StoredObject {
    let (serial, soft_serial) = (what.serial.clone(), what.soft_serial.clone());
    let new = NewDevice { serial, soft_serial, ..NewDevice::default() };
    let spec = DeviceSpec {
        serial: new.serial.clone(),
        soft_serial: new.soft_serial.clone(),
        ..DeviceSpec::default()
    };
    let short = Key::new(Kind::Device, format!("node-{}", DeviceId::new(id).short()));
    let taken = known.stored.contains_key(&short)
        || change.put.iter().any(|stored| stored.object.key == short);
    let key = if taken { Key::new(Kind::Device, format!("node-{id}")) } else { short };
    first(key, id, Spec::Device(spec), &written(&new), change.at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(serial: &str, soft_serial: &str) -> Asking {
        let dir = tempfile::tempdir().unwrap();
        let at = UnixMillis(1_700_000_000_000);
        let pki = crate::pki::Pki::open(dir.path(), &crate::pki::PkiFiles::default(), at).unwrap();
        let certificate = api::Certificate::from_pem(pki.onboard.cert_pem.as_bytes()).unwrap();
        let (serial, soft_serial) = (serial.to_owned(), soft_serial.to_owned());
        Asking { what: Registration { certificate, serial, soft_serial }, onboard: Vec::new() }
    }

    #[test]
    fn those_that_depend_on_each_other_wait_for_each_other() {
        let queue = Queue::default();
        let mut waiting = Vec::new();
        for (serial, soft) in [("a", "1"), ("b", ""), ("", "a"), ("c", ""), ("", "1"), ("", "")] {
            let (told, outcome) = oneshot::channel();
            waiting.push(outcome);
            queue.put(Waiting { asking: Arc::new(asking(serial, soft)), told });
        }
        let take = || {
            let batch = queue.take();
            let serials = batch.iter().map(|w| w.asking.serials().join("/"));
            serials.collect::<Vec<_>>()
        };
        assert_eq!(take(), ["a/1", "b/", "c/", "/"]);
        assert_eq!(take(), ["/a", "/1"]);
        assert!(take().is_empty());
        queue.put(Waiting { asking: Arc::new(asking("d", "")), told: oneshot::channel().0 });
        assert!(take().is_empty(), "nobody waits for it");
    }
}
