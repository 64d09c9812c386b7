//! Talks with the local profile server, an app of this node that may change it without the
//! controller (EVE API, local profile server).
//!
//! `device::local` says where the server is and when to ask it what; [`Nearby`] keeps what it said.
//! Of the eight calls `location` is never made: there is nothing here that knows where the node is.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::time::Duration;

use api::convert::info::AppFacts;
use api::convert::local;
use api::lps::{self, Answer, Call, LpsError, Told, signal};
use device::local::{Heard, Rounds};
use host::http::{Client, HttpError, Method, Request, Resolver, Trust};
use host::topics::{Reader, Roots};
use model::desired::{Device, LocalPeriods};
use model::reported::{AppState, AppStatus};
use model::topic::{AppNetworks, Apps, Boots, Contents, Controller, Only, Ports, Volumes};
use model::{AppId, DeviceId, chain};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::InForce;
use super::nearby::Nearby;

/// A server that is not found is looked for again so often: apps get their addresses late.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// It is on this very machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// A silent stream of signals is taken for dead after so long.
const SILENCE: Duration = Duration::from_secs(600);

/// A server that was found.
struct Server {
    at: SocketAddrV4,
    rounds: Rounds<Call>,
    signals: mpsc::Receiver<Vec<Call>>,
    listener: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("the local profile server is not reached")]
    Http(#[from] HttpError),
    #[error("the local profile server took longer than {} s", PATIENCE.as_secs())]
    Slow,
    #[error("the local profile server's answer counts as none")]
    Answer(#[from] LpsError),
}

/// Talks until it is aborted.
pub(super) async fn talk(
    roots: Roots,
    own: DeviceId,
    nearby: Nearby,
    mut in_force: watch::Receiver<InForce>,
) {
    let client = match Client::new(&Trust::default(), Resolver::default()) {
        Ok(client) => client,
        Err(e) => return tracing::error!("no local profile server: {}", chain(&e)),
    };
    let mut books = Books::new(&roots, own, &nearby);
    let start = Instant::now();
    let mut server: Option<Server> = None;
    let mut trouble = String::new();
    loop {
        let config = in_force.borrow_and_update().clone();
        let Some(told) = config.told.clone() else {
            if in_force.changed().await.is_err() {
                return;
            }
            continue;
        };
        let mut now_trouble = String::new();
        let found = match &told.local_server {
            None => {
                nearby.forget_server();
                None
            }
            Some(named) => {
                let apps = books.networks.read();
                let at = device::local::server(
                    &named.address,
                    lps::PORT,
                    &told.network_instances,
                    &apps,
                );
                at.map_err(|e| now_trouble = e.to_string()).ok().map(|at| (at, named))
            }
        };
        if server.as_ref().map(|s| s.at) != found.map(|(at, _)| at) {
            server = found.map(|(at, _)| begin(&client, at, start.elapsed()));
        }
        let mut wake = Instant::now() + LOOK_AGAIN;
        if let (Some(server), Some((at, named))) = (&mut server, found) {
            if let Some(call) = server.rounds.next(start.elapsed()) {
                let asked = books.tell(call, &config, &told, &nearby);
                let heard = match ask(&client, at, call, &asked, named.token.reveal()).await {
                    Ok(answer) => {
                        let there = answer != Answer::NotThere;
                        nearby.take(call, answer, &told);
                        if there { Heard::Something } else { Heard::NotThere }
                    }
                    Err(e) => {
                        now_trouble = chain(&e);
                        Heard::Something
                    }
                };
                let period = period(call, &config.properties.local_periods);
                let periods = [period, call.slow_period()];
                server.rounds.done(call, heard, start.elapsed(), periods);
                say(&mut trouble, now_trouble);
                continue;
            }
            let due = server.rounds.wake().map(|due| start + due);
            wake = due.map_or(wake, |due| wake.min(due));
        } else {
            say(&mut trouble, now_trouble);
        }
        tokio::select! {
            changed = in_force.changed() => if changed.is_err() { return },
            Some(calls) = hear(server.as_mut()) => if let Some(server) = &mut server {
                server.rounds.hurry(&calls, start.elapsed());
            },
            () = sleep_until(wake) => {}
        }
    }
}

/// The next signal; never if there is no server.
async fn hear(server: Option<&mut Server>) -> Option<Vec<Call>> {
    match server {
        Some(server) => server.signals.recv().await,
        None => std::future::pending().await,
    }
}

/// A trouble is told when it comes or changes, not each time it is met.
fn say(before: &mut String, now: String) {
    if *before != now {
        if now.is_empty() {
            tracing::info!("the local profile server answers");
        } else {
            tracing::warn!("{now}");
        }
        *before = now;
    }
}

fn begin(client: &Client, at: SocketAddrV4, now: Duration) -> Server {
    tracing::info!("local profile server at {at}");
    let (sender, signals) = mpsc::channel(4);
    let listener = tokio::spawn(listen(client.clone(), at, sender));
    let calls = Call::ALL.into_iter().filter(|call| *call != Call::Location);
    Server { at, rounds: Rounds::new(calls, now), signals, listener }
}

/// Which setting says how often.
fn period(call: Call, periods: &LocalPeriods) -> Duration {
    match call {
        Call::LocalProfile => periods.profile,
        Call::Radio => periods.radio,
        Call::AppInfo => periods.app_info,
        Call::AppBootInfo => periods.app_boot_info,
        Call::DevInfo => periods.device_info,
        Call::Network => periods.network,
        Call::Location => call.period(), // never made
    }
}

async fn ask(
    client: &Client,
    at: SocketAddrV4,
    call: Call,
    told: &Told,
    token: &str,
) -> Result<Answer, Trouble> {
    let limit = usize::try_from(lps::BODY_MAX.0).unwrap_or(usize::MAX);
    let mut request = Request::get(format!("http://{at}{}", call.path()), limit);
    if call.method() == "POST" {
        request.method = Method::POST;
        request.body = told.to_body().into();
        request = request.header("content-type", "application/x-proto-binary");
    }
    let answer = timeout(PATIENCE, client.send(request)).await.map_err(|_| Trouble::Slow)??;
    Ok(Answer::read(call, answer.status, &answer.body, token)?)
}

/// Keeps the stream of signals open and passes on what it says.
async fn listen(client: Client, at: SocketAddrV4, to: mpsc::Sender<Vec<Call>>) {
    let mut failures = 0;
    let mut said = String::new();
    loop {
        failures += 1;
        let (not_there, why) = match stream(&client, at, &to, &mut failures).await {
            Ok(None) => (false, "it ended".to_owned()),
            Ok(Some(404)) => (true, String::new()),
            Ok(Some(status)) => (false, format!("status {status}")),
            Err(e) => (false, chain(&e)),
        };
        if why != said && !why.is_empty() {
            tracing::info!("no signals of the local profile server: {why}");
        }
        said = why;
        tokio::time::sleep(signal::reconnect(failures, not_there)).await;
    }
}

/// One stream to its end. A status other than 200 is returned.
async fn stream(
    client: &Client,
    at: SocketAddrV4,
    to: &mpsc::Sender<Vec<Call>>,
    failures: &mut u32,
) -> Result<Option<u16>, HttpError> {
    let request = Request::get(format!("http://{at}/api/v1/signal"), 0);
    let mut download = client.open(request).await?.patient(SILENCE);
    if download.status != 200 {
        return Ok(Some(download.status));
    }
    let mut lines = signal::Lines::default();
    let mut pace = signal::Pace::new(host::clock::now());
    while let Some(piece) = download.chunk().await? {
        *failures = 0;
        for line in lines.push(&piece) {
            match line {
                Ok(calls) if pace.lets(host::clock::now()) => {
                    // Whoever is full knows already that there is news.
                    let _ = to.try_send(calls);
                }
                Ok(_) => {}
                Err(e) => tracing::warn!("{}", chain(&e)),
            }
        }
    }
    Ok(None)
}

/// What the server is told of.
struct Books {
    own: DeviceId,
    apps: Reader<Apps>,
    networks: Reader<AppNetworks>,
    volumes: Reader<Volumes>,
    contents: Reader<Contents>,
    boots: Reader<Boots>,
    controller: Reader<Controller>,
    ports: Reader<Ports>,
    /// The last commands that are done, as far as seen.
    done: BTreeMap<AppId, u64>,
    device_done: u64,
}

impl Books {
    fn new(roots: &Roots, own: DeviceId, nearby: &Nearby) -> Books {
        Books {
            own,
            apps: Reader::open(roots),
            networks: Reader::open(roots),
            volumes: Reader::open(roots),
            contents: Reader::open(roots),
            boots: Reader::open(roots),
            controller: Reader::open(roots),
            ports: Reader::open(roots),
            done: BTreeMap::new(),
            // What was begun before this boot is done with it.
            device_done: nearby.kept().executed.device,
        }
    }

    fn tell(&mut self, call: Call, config: &InForce, told: &Device, nearby: &Nearby) -> Told {
        let kept = nearby.kept();
        let none = Device::new(self.own);
        let device = config.device.as_deref().unwrap_or(&none);
        match call {
            Call::LocalProfile | Call::Location => Told::Nothing,
            Call::Radio => local::radio(kept.silence),
            Call::AppInfo => {
                let (apps, networks) = (self.apps.read(), self.networks.read());
                let (volumes, contents) = (self.volumes.read(), self.contents.read());
                for (id, status) in &apps {
                    let last = kept.executed.apps.get(&id.to_string()).copied();
                    if let Some(last) = last.filter(|_| is_done(status, device)) {
                        self.done.insert(*id, last);
                    }
                }
                self.done.retain(|id, _| apps.contains_key(id));
                let facts = apps.iter().map(|(id, status)| {
                    let facts = AppFacts {
                        status,
                        network: networks.get(id),
                        wanted_volumes: &device.volumes,
                        volumes: &volumes,
                        contents: &contents,
                    };
                    (facts, self.done.get(id).copied().unwrap_or_default())
                });
                local::apps(host::clock::now(), facts)
            }
            Call::AppBootInfo => {
                let setting = device.items.get("app.boot.order");
                let setting = setting.map(String::as_str).unwrap_or_default();
                local::boots(device.apps.values(), &kept.boots, setting)
            }
            Call::DevInfo => {
                let resting = |s: &AppStatus| matches!(s.state, AppState::Halted);
                let down = self.apps.read().values().all(resting);
                let halting = kept.overrides.halted.then_some(down);
                if halting != Some(false) && kept.power.is_none() {
                    self.device_done = kept.executed.device;
                }
                let boot = self.boots.get(&Only).unwrap_or_else(super::info::unknown_boot);
                let controller = self.controller.get(&Only);
                let last = self.device_done;
                local::device(self.own, &boot, controller.as_ref(), halting, last)
            }
            Call::Network => {
                let changes = local::changes(&kept.ports, &told.ports);
                let now: Vec<_> = self.ports.read().into_values().collect();
                local::network(&told.ports, &changes, &now, told.timestamp)
            }
        }
    }
}

/// Whether an app has done all that its counters ask for.
fn is_done(status: &AppStatus, device: &Device) -> bool {
    let wanted = device.apps.get(&status.id);
    let counted = wanted.is_some_and(|w| (w.restart, w.purge) == (status.restart, status.purge));
    counted && !matches!(status.state, AppState::Restarting | AppState::Purging)
}
