//! What nodes say of themselves in a few words each, kept in memory: lists of a hundred thousand
//! nodes are made without asking the database for each.
//!
//! It follows the table of info messages by the time they were received, whichever process took them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::convert::view::{self, AppView, DeviceView, Report};
use model::UnixMillis;
use uuid::Uuid;

use crate::db::{DbError, Told};
use crate::fleet::Fleet;

/// A message is received before its batch is stored: the last look may have been between the two.
const OVERLAP: Duration = Duration::from_secs(10);
/// Rows of one query.
const ROWS: u32 = 2_000;
/// Problems of one node in a list.
const PROBLEMS_MAX: usize = 8;

/// A node, as lists show it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) version: Arc<str>,
    /// What it says is wrong.
    pub(super) problems: Vec<String>,
    /// What it says of apps, by their names.
    pub(super) apps: BTreeMap<Arc<str>, AppSummary>,
}

/// An app on a node, as lists show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AppSummary {
    pub(super) state: Arc<str>,
    pub(super) running: bool,
    pub(super) since: Option<UnixMillis>,
    pub(super) problem: Option<String>,
}

/// All nodes that have said something.
#[derive(Debug, Default)]
pub(super) struct Summaries {
    known: Mutex<Known>,
    /// One look at the database at a time.
    following: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    upto: UnixMillis,
    all: HashMap<Uuid, Summary>,
    /// The same few words again and again.
    words: HashMap<String, Arc<str>>,
}

impl Summaries {
    /// Takes over what was said since the last look.
    pub(super) async fn follow(&self, fleet: &Fleet) -> Result<(), DbError> {
        let _one = self.following.lock().await;
        let upto = self.known.lock().unwrap_or_else(PoisonError::into_inner).upto;
        // The clock may have been set back since.
        let last = upto.min(fleet.now());
        let overlap = u64::try_from(OVERLAP.as_millis()).unwrap_or_default();
        let mut since = UnixMillis(last.0.saturating_sub(overlap));
        let mut rows = ROWS;
        loop {
            let news = fleet.db.told_since(since, rows).await?;
            let full = news.len() >= usize::try_from(rows).unwrap_or(usize::MAX);
            let reached = news.last().map_or(since, |n| n.received);
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            for told in &news {
                known.take(told);
            }
            known.upto = fleet.now();
            drop(known);
            if !full {
                return Ok(());
            }
            if reached == since {
                // So many in one millisecond.
                rows = rows.saturating_mul(2);
            }
            since = reached;
        }
    }

    /// Looks at all of them.
    pub(super) fn look<T>(&self, at: impl FnOnce(&HashMap<Uuid, Summary>) -> T) -> T {
        at(&self.known.lock().unwrap_or_else(PoisonError::into_inner).all)
    }
}

impl Known {
    fn take(&mut self, told: &Told) {
        let Ok(info) = view::info(&told.payload) else { return };
        match info.report {
            Report::Device(device) => self.take_device(told.device, &device),
            Report::App(app) => self.take_app(told.device, &app),
            _ => {}
        }
    }

    fn word(&mut self, text: &str) -> Arc<str> {
        let short: String = text.chars().take(100).collect();
        // Words that only one node ever says must not fill the memory.
        if self.words.len() > 10_000 {
            self.words.clear();
        }
        self.words.entry(short).or_insert_with_key(|t| Arc::from(t.as_str())).clone()
    }

    fn take_device(&mut self, id: Uuid, said: &DeviceView) {
        let version = self.word(&said.version);
        let mut problems = Vec::new();
        if !said.port_error.is_empty() {
            problems.push(format!("ports: {}", said.port_error));
        }
        let ports = said.ports.iter().filter_map(|p| Some((&p.name, p.error.as_ref()?)));
        problems.extend(ports.map(|(name, e)| format!("port {name}: {}", e.text)));
        let items = said.items.iter().filter(|(_, (_, error))| !error.is_empty());
        problems.extend(items.map(|(key, (_, error))| format!("setting {key}: {error}")));
        problems.truncate(PROBLEMS_MAX);
        let summary = self.all.entry(id).or_default();
        summary.version = version;
        summary.problems = problems;
    }

    fn take_app(&mut self, id: Uuid, said: &AppView) {
        let (name, state) = (self.word(&said.name), self.word(&said.state));
        let app = AppSummary {
            running: &*state == "running",
            state,
            since: said.running_since,
            problem: said.errors.first().map(|e| e.text.chars().take(300).collect()),
        };
        self.all.entry(id).or_default().apps.insert(name, app);
    }
}
