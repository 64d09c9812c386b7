//! `eved content`: downloads what apps need into the content store.
//!
//! `device::content` says what comes next for each content; this file asks registries, keeps
//! references (`content/<id>`, with what they were made for) and removes what nobody refers to.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use device::content::{self, Effect, Event, GARBAGE_AFTER, State};
use host::http::{Client, Resolver, Trust};
use host::registry::{Demands, FetchError, Name, Registry, WebFile, fetch_file};
use host::topics::{Reader, Table, Watch, Writer};
use model::desired::{Content, Datastore, DatastoreKind, ImageFormat, Properties};
use model::topic::{Contents, DesiredContents, DesiredDatastores, DesiredProperties, Only};
use model::{Bytes, ContentId, DatastoreId, Diagnose, Digest, chain};
use store::{Descriptor, Image, Layout, Platform, StoreError};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::chance::jitter;
use crate::service::Context;

/// Where no size is named: no app of an edge node is larger.
const SIZE_MAX: Bytes = Bytes::gib(256);
/// Read again even if nothing woke us.
const RESYNC: Duration = Duration::from_secs(60);
/// What a reference was made for, so that a changed wish is noticed.
const MADE_FOR: &str = "org.lfedge.eve.made-for";
const FILE: &str = "application/octet-stream";

pub(crate) async fn run(ctx: Context) -> anyhow::Result<()> {
    let roots = ctx.roots();
    let layout = Layout::create(ctx.paths.persist.join("content"))?;
    let swept = layout.sweep()?;
    if swept > 0 {
        tracing::info!(swept, "removed what an earlier run left unfinished");
    }
    let (told, mut events) = unbounded_channel();
    let mut keeper = Keeper {
        layout,
        root_pem: root_pem(&ctx),
        told,
        downloads: BTreeMap::new(),
        datastores: BTreeMap::new(),
        properties: Properties::default(),
        garbage: Some(Instant::now() + GARBAGE_AFTER),
    };
    let contents = Reader::<DesiredContents>::open(&roots);
    let datastores = Reader::<DesiredDatastores>::open(&roots);
    let mut statuses = Writer::<Contents>::open(&roots)?;
    let properties = Reader::<DesiredProperties>::open(&roots);
    let watch = Watch::new(&[contents.dir(), datastores.dir(), properties.dir()])?;
    ctx.ready();
    loop {
        if contents.is_complete() {
            keeper.datastores = datastores.read();
            keeper.properties = properties.get(&Only).unwrap_or_default();
            keeper.want(contents.read());
            statuses.publish(keeper.report())?;
        }
        let rings = keeper.next_alarm().unwrap_or_else(|| Instant::now() + RESYNC);
        tokio::select! {
            () = ctx.stopped() => return Ok(()),
            changed = watch.changed() => changed?,
            Some((id, event)) = events.recv() => keeper.happened(id, event),
            () = sleep_until(rings) => keeper.ring().await,
        }
    }
}

/// What the CONFIG partition has us trust; empty: nothing.
fn root_pem(ctx: &Context) -> String {
    let path = ctx.paths.config.join("root-certificate.pem");
    let pem = store::read_bounded(&path, Bytes::kib(64)).unwrap_or_default();
    String::from_utf8(pem).unwrap_or_default()
}

/// All downloads and what they need.
struct Keeper {
    layout: Layout,
    root_pem: String,
    told: UnboundedSender<(ContentId, Event)>,
    downloads: BTreeMap<ContentId, OneDownload>,
    datastores: BTreeMap<DatastoreId, Datastore>,
    properties: Properties,
    garbage: Option<Instant>,
}

struct OneDownload {
    content: Content,
    state: State,
    alarm: Option<Instant>,
    task: Option<JoinHandle<()>>,
}

impl Drop for OneDownload {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort(); // its blob is dropped with it and leaves nothing
        }
    }
}

impl Keeper {
    /// Compares the downloads with what is wanted.
    fn want(&mut self, wanted: Table<DesiredContents>) {
        let gone: Vec<ContentId> = self
            .downloads
            .iter()
            .filter(|(id, d)| wanted.get(id) != Some(&d.content))
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            self.downloads.remove(&id);
        }
        self.forget_references(&wanted);
        for (id, content) in wanted {
            let begin = match self.downloads.get(&id) {
                None => {
                    let found = self.find(&content);
                    let one =
                        OneDownload { content, state: State::default(), alarm: None, task: None };
                    self.downloads.insert(id, one);
                    found.unwrap_or(Event::Wanted)
                }
                // A datastore may have come.
                Some(one) if one.state.doing == content::Doing::NoDatastore => Event::Wanted,
                Some(_) => continue,
            };
            self.happened(id, begin);
        }
    }

    /// References of contents that the config does not have any more.
    fn forget_references(&mut self, wanted: &Table<DesiredContents>) {
        let known = self.layout.refs().unwrap_or_default();
        for old in known {
            let id = old.name.strip_prefix("content/").and_then(|id| id.parse().ok());
            if id.is_none_or(|id: ContentId| wanted.contains_key(&id)) {
                continue;
            }
            match self.layout.untag(&old.name) {
                Ok(_) => self.garbage = Some(Instant::now() + self.kept()),
                Err(e) => tracing::warn!("{}", chain(&e)),
            }
        }
    }

    /// What an earlier run left, if it was made for the same wish and is still whole.
    fn find(&self, content: &Content) -> Option<Event> {
        let target = self.layout.target(&reference(content.id)).ok()?;
        if target.annotations.get(MADE_FOR) != Some(&made_for(content)) {
            return None;
        }
        let size = if content.format == ImageFormat::Container {
            match Image::read(&self.layout, &target) {
                Ok(image) => image.manifest.stored_size(),
                Err(e) => {
                    tracing::warn!(content = %content.id, "fetched again: {}", chain(&e));
                    return None;
                }
            }
        } else {
            self.layout.has(&target.digest, Some(target.size)).then_some(target.size)?
        };
        Some(Event::Found { digest: target.digest, size })
    }

    fn happened(&mut self, id: ContentId, event: Event) {
        let Some(one) = self.downloads.get_mut(&id) else { return };
        if let Event::Failed(why) = &event {
            tracing::warn!(content = %id, name = one.content.name, "{}", why.text);
        }
        if let Event::Done { digest, size } = &event {
            tracing::info!(content = %id, name = one.content.name, %digest, "loaded {size}");
        }
        let find = |at: usize| self.datastores.get(one.content.datastores.get(at)?).cloned();
        let now = host::clock::now();
        let pauses = (self.properties.download_retry, jitter());
        let (state, effects) =
            content::step(one.state.clone(), event, &one.content, find, now, pauses);
        one.state = state;
        for effect in effects {
            match effect {
                Effect::Alarm(wait) => one.alarm = Some(Instant::now() + wait),
                Effect::Fetch(datastore) => {
                    let fetch = Fetch {
                        layout: self.layout.clone(),
                        root_pem: self.root_pem.clone(),
                        content: one.content.clone(),
                        datastore: *datastore,
                        told: self.told.clone(),
                    };
                    one.task = Some(tokio::spawn(fetch.run()));
                }
            }
        }
    }

    /// So long what nobody refers to is kept.
    fn kept(&self) -> Duration {
        self.properties.defer_content_delete.max(GARBAGE_AFTER)
    }

    fn report(&self) -> Table<Contents> {
        self.downloads.iter().map(|(id, d)| (*id, d.state.report(&d.content))).collect()
    }

    fn next_alarm(&self) -> Option<Instant> {
        let alarms = self.downloads.values().filter_map(|d| d.alarm);
        alarms.chain(self.garbage).chain([Instant::now() + RESYNC]).min()
    }

    async fn ring(&mut self) {
        let now = Instant::now();
        let due = |d: &OneDownload| d.alarm.is_some_and(|at| at <= now);
        let ids: Vec<ContentId> =
            self.downloads.iter().filter(|(_, d)| due(d)).map(|(id, _)| *id).collect();
        for id in ids {
            if let Some(one) = self.downloads.get_mut(&id) {
                one.alarm = None;
            }
            self.happened(id, Event::Alarm);
        }
        if self.garbage.is_some_and(|at| at <= now) {
            self.collect_garbage(now).await;
        }
    }

    /// Blobs of a running download have no reference yet, so garbage waits for it.
    async fn collect_garbage(&mut self, now: Instant) {
        let busy = |d: &OneDownload| d.task.as_ref().is_some_and(|t| !t.is_finished());
        if self.downloads.values().any(busy) {
            self.garbage = Some(now + GARBAGE_AFTER);
            return;
        }
        self.garbage = None;
        let layout = self.layout.clone();
        match tokio::task::spawn_blocking(move || layout.gc(&[])).await {
            Ok(Ok((0, _))) => {}
            Ok(Ok((blobs, size))) => tracing::info!(blobs, "removed {size} nobody refers to"),
            Ok(Err(e)) => tracing::warn!("cannot remove garbage: {}", chain(&e)),
            Err(e) => tracing::warn!("cannot remove garbage: {e}"),
        }
    }
}

/// One try at one datastore.
struct Fetch {
    layout: Layout,
    root_pem: String,
    content: Content,
    datastore: Datastore,
    told: UnboundedSender<(ContentId, Event)>,
}

impl Fetch {
    async fn run(self) {
        let event = match self.fetch().await {
            Ok((digest, size)) => Event::Done { digest, size },
            Err(why) => Event::Failed(why.problem(host::clock::now())),
        };
        // A closed queue means that the service ends.
        let _ = self.told.send((self.content.id, event));
    }

    async fn fetch(&self) -> Result<(Digest, Bytes), FetchError> {
        let pem = self.datastore.trust_pem.iter().cloned().chain([self.root_pem.clone()]);
        let trust = Trust { system: true, pem: pem.filter(|p| !p.trim().is_empty()).collect() };
        let client = Client::new(&trust, Resolver::default())?;
        let max = self.content.max_size.unwrap_or(SIZE_MAX);
        let last_told = Arc::new(AtomicU64::new(u64::MAX));
        let progress = |done: Bytes, total: Bytes| {
            let told = last_told.load(Ordering::Relaxed);
            let event = match told {
                u64::MAX => Event::Resolved { total },
                told if content::worth_telling(Bytes(told), done, total) => Event::Progress(done),
                _ => return,
            };
            last_told.store(done.0, Ordering::Relaxed);
            let _ = self.told.send((self.content.id, event));
        };
        let path = join(&self.datastore.prefix, &self.content.url);
        let (mut target, size) = match self.datastore.kind {
            DatastoreKind::Registry => {
                let login = self.datastore.credentials.clone();
                let registry = Registry::new(client, &self.datastore.host).known_as(login);
                let demands = Demands {
                    platform: Platform::linux(architecture()),
                    digest: self.content.sha256,
                    max,
                };
                let name = Name::parse(&path)?;
                registry.pull(&self.layout, &name, &demands, &progress).await?
            }
            kind => {
                let scheme = if kind == DatastoreKind::Http { "http" } else { "https" };
                let url = format!("{scheme}://{}/{path}", self.datastore.host);
                let told = |done: Bytes| progress(done, Bytes(0));
                let expected = self.content.sha256;
                let file = WebFile { url: &url, login: self.datastore.credentials.as_ref() };
                let (digest, size) =
                    fetch_file(&client, &self.layout, file, expected, max, &told).await?;
                (Descriptor::new(FILE, digest, size), size)
            }
        };
        target.annotations.insert(MADE_FOR.to_owned(), made_for(&self.content));
        self.layout.tag(&reference(self.content.id), &target).map_err(|source: StoreError| {
            FetchError::Store { what: self.content.name.clone(), source }
        })?;
        Ok((target.digest, size))
    }
}

fn reference(id: ContentId) -> String {
    format!("content/{id}")
}

/// What makes two wishes the same content.
fn made_for(content: &Content) -> String {
    let digest = content.sha256.map(|d| d.to_string()).unwrap_or_default();
    format!("{} {digest}", content.url)
}

fn join(prefix: &str, path: &str) -> String {
    let (prefix, path) = (prefix.trim_matches('/'), path.trim_start_matches('/'));
    if prefix.is_empty() { path.to_owned() } else { format!("{prefix}/{path}") }
}

/// This machine in Go's words, as images use them.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Opens the store that this service owns, to read.
pub(crate) fn open(persist: &Path) -> Result<Layout, StoreError> {
    Layout::open(persist.join("content"))
}
