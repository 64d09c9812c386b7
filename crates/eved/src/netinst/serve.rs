//! DHCP and DNS on the bridges: a task each, which read what to say from a value that the service
//! replaces when the config changes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use device::netinst::filter::learn;
use device::netinst::leases::{Answer, Guests, LEASE, Request, RequestKind, answer};
use device::netinst::names::{Kind, Reply};
use device::netinst::{Services, names};
use host::net::dns::{self, Decision, DnsServer, Policy};
use host::net::{NetError, apply_filter, udp_on};
use ipnet::Ipv4Net;
use model::{Diagnosis, NetworkInstanceId, Problem, UnixMillis, Who, chain};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::dhcp::{self, Given};

/// How long an answer of ours holds, in seconds.
const TTL_S: u32 = 600;
/// What was learned of a name holds for this long at least and at most: apps keep addresses longer
/// than they should.
const LEARNED_S: (u32, u32) = (600, 86_400);
/// So many addresses are remembered for rules by name.
const LEARNED_MAX: usize = 4096;
/// Before a server that failed is started again.
const AGAIN: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error(transparent)]
    Net(#[from] NetError),
    #[error("cannot hear DHCP clients on {bridge}")]
    Hear { bridge: String, source: io::Error },
}

/// The servers of all networks, and what they share.
#[derive(Debug, Default)]
pub(super) struct Servers {
    running: BTreeMap<NetworkInstanceId, Running>,
    shared: Arc<Shared>,
}

/// What servers tell the service.
#[derive(Debug, Default)]
pub(super) struct Shared {
    guests: Mutex<BTreeMap<NetworkInstanceId, Guests>>,
    /// By set and address, until when.
    learned: Mutex<BTreeMap<(String, Ipv4Addr), UnixMillis>>,
    trouble: Mutex<BTreeMap<(NetworkInstanceId, &'static str), Problem>>,
    news: Notify,
}

#[derive(Debug)]
struct Running {
    services: Arc<Mutex<Services>>,
    /// Dropped, they end.
    _tasks: JoinSet<()>,
}

impl Servers {
    pub(super) fn new(guests: BTreeMap<NetworkInstanceId, Guests>) -> Servers {
        let shared = Shared { guests: Mutex::new(guests), ..Shared::default() };
        Servers { running: BTreeMap::new(), shared: Arc::new(shared) }
    }

    /// Leases of those who are no apps.
    pub(super) fn guests(&self) -> BTreeMap<NetworkInstanceId, Guests> {
        lock(&self.shared.guests).clone()
    }

    /// Why a network's servers do not run, if they do not.
    pub(super) fn trouble(&self, network: NetworkInstanceId) -> Option<Problem> {
        let all = lock(&self.shared.trouble);
        all.iter().find(|((of, _), _)| *of == network).map(|(_, problem)| problem.clone())
    }

    /// Waits until there is a new lease or a new trouble.
    pub(super) async fn news(&self) {
        self.shared.news.notified().await;
    }

    /// Ends a network's servers: its bridge is about to be another.
    pub(super) fn stop(&mut self, network: NetworkInstanceId) {
        self.running.remove(&network);
    }

    /// Makes exactly these run.
    pub(super) fn run(&mut self, wanted: BTreeMap<NetworkInstanceId, Services>) {
        self.running.retain(|id, _| wanted.contains_key(id));
        lock(&self.shared.guests).retain(|id, _| wanted.contains_key(id));
        lock(&self.shared.trouble).retain(|(id, _), _| wanted.contains_key(id));
        for (id, services) in wanted {
            if let Some(running) = self.running.get(&id) {
                let same = {
                    let mut now = lock(&running.services);
                    let same = now.bridge == services.bridge
                        && now.dhcp.local.gateway == services.dhcp.local.gateway;
                    if same {
                        now.clone_from(&services);
                    }
                    same
                };
                if same {
                    continue;
                }
            }
            self.running.insert(id, Running::start(id, services, &self.shared));
        }
    }

    /// The batch that puts what was learned back into sets that were made anew. `None`: nothing.
    pub(super) fn learned(&self, sets: &BTreeSet<&str>, now: UnixMillis) -> Option<String> {
        let mut all = lock(&self.shared.learned);
        all.retain(|(set, _), until| *until > now && sets.contains(set.as_str()));
        let left = |until: &UnixMillis| u32::try_from(until.since(now).as_secs()).unwrap_or(1);
        let elements = all.iter().map(|((set, ip), until)| (set.as_str(), *ip, left(until).max(1)));
        (!all.is_empty()).then(|| learn(elements))
    }
}

impl Running {
    fn start(id: NetworkInstanceId, services: Services, shared: &Arc<Shared>) -> Running {
        let services = Arc::new(Mutex::new(services));
        let mut tasks = JoinSet::new();
        let (its, all) = (services.clone(), shared.clone());
        tasks.spawn(async move {
            loop {
                let failed = serve_dhcp(id, &its, &all).await;
                all.failed(id, "DHCP", &failed).await;
            }
        });
        let book = Arc::new(Book { services: services.clone(), shared: shared.clone() });
        let (its, all) = (services.clone(), shared.clone());
        tasks.spawn(async move {
            loop {
                let gateway = lock(&its).dhcp.local.gateway;
                match DnsServer::bind(gateway).await {
                    Ok(server) => {
                        all.works(id, "DNS");
                        server.serve(book.clone()).await;
                    }
                    Err(failed) => all.failed(id, "DNS", &failed.into()).await,
                }
            }
        });
        Running { services, _tasks: tasks }
    }
}

impl Shared {
    fn works(&self, id: NetworkInstanceId, what: &'static str) {
        if lock(&self.trouble).remove(&(id, what)).is_some() {
            self.news.notify_one();
        }
    }

    async fn failed(&self, id: NetworkInstanceId, what: &'static str, error: &ServeError) {
        let text = format!("{what} does not work: {}", chain(error));
        tracing::warn!("network {id}: {text}");
        let diagnosis = Diagnosis::of(Who::Developer, "report this").retry_in(AGAIN);
        let problem = Problem::new(text, diagnosis, host::clock::now());
        lock(&self.trouble).insert((id, what), problem);
        self.news.notify_one();
        tokio::time::sleep(AGAIN).await;
    }
}

/// Answers until the socket fails.
async fn serve_dhcp(id: NetworkInstanceId, services: &Mutex<Services>, all: &Shared) -> ServeError {
    let bridge = lock(services).bridge.clone();
    let socket = match udp_on(&bridge, dhcp::SERVER_PORT) {
        Ok(socket) => socket,
        Err(failed) => return failed.into(),
    };
    all.works(id, "DHCP");
    let mut buffer = [0_u8; 2048];
    loop {
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(got) => got,
            Err(source) => return ServeError::Hear { bridge, source },
        };
        let Some(asked) = dhcp::read_request(&buffer[..length]) else { continue };
        let kind = if asked.discover { RequestKind::Discover } else { RequestKind::Request };
        let request =
            Request { kind, mac: asked.mac, address: asked.address, server: asked.server };
        let table = lock(services).dhcp.clone();
        let said = {
            let mut guests = lock(&all.guests);
            let mine = guests.entry(id).or_default();
            let before = mine.clone();
            let (after, said) = answer(&table, before.clone(), &request, host::clock::now());
            mine.clone_from(&after);
            if matches!(said, Some(Answer::Ack(_))) && before != after {
                all.news.notify_one();
            }
            said
        };
        let Some(said) = said else { continue };
        let gateway = table.local.gateway;
        let given = match said {
            Answer::Nak => None,
            Answer::Offer(address) | Answer::Ack(address) => Some(Given {
                address: Ipv4Net::new(address, table.local.subnet.prefix_len()).unwrap_or_default(),
                server: gateway,
                gateway: table.routed.then_some(gateway),
                dns: vec![gateway],
                mtu: table.mtu,
                lease_s: u32::try_from(LEASE.as_secs()).unwrap_or(u32::MAX),
            }),
        };
        let reply = dhcp::write_reply(&asked, gateway, given.as_ref());
        // Who has no address yet hears what is said to all.
        let to = match client.ip() {
            IpAddr::V4(ip) if !ip.is_unspecified() && given.is_some() => client,
            _ => SocketAddr::from((Ipv4Addr::BROADCAST, dhcp::CLIENT_PORT)),
        };
        if let Err(e) = socket.send_to(&reply, to).await {
            tracing::debug!("DHCP answer to {to} by {bridge}: {e}");
        }
    }
}

/// A network's names.
struct Book {
    services: Arc<Mutex<Services>>,
    shared: Arc<Shared>,
}

impl Policy for Book {
    fn decide(&self, name: &str, kind: dns::Kind) -> Decision {
        let kind = match kind {
            dns::Kind::A => Kind::A,
            dns::Kind::Aaaa => Kind::Aaaa,
            dns::Kind::Other => Kind::Other,
        };
        let names: &names::Names = &lock(&self.services).names;
        match names.look_up(name, kind) {
            Reply::Known(addresses) => Decision::Known(addresses, TTL_S),
            Reply::Unknown => Decision::Unknown,
            Reply::Ask(sets) => Decision::Ask(names.upstream.clone(), sets),
        }
    }

    async fn learned(&self, sets: Vec<String>, addresses: Vec<Ipv4Addr>, seconds: u32) {
        let seconds = seconds.clamp(LEARNED_S.0, LEARNED_S.1);
        let now = host::clock::now();
        let until = now.after(Duration::from_secs(seconds.into()));
        {
            let mut all = lock(&self.shared.learned);
            all.retain(|_, until| *until > now);
            for set in &sets {
                for ip in &addresses {
                    if all.len() < LEARNED_MAX {
                        all.insert((set.clone(), *ip), until);
                    }
                }
            }
        }
        let pairs = sets.iter().flat_map(|set| addresses.iter().map(move |ip| (set, ip)));
        let batch = learn(pairs.map(|(set, ip)| (set.as_str(), *ip, seconds)));
        // The client hears the answer when its packets may pass.
        let done = tokio::task::spawn_blocking(move || apply_filter(batch.as_bytes())).await;
        if let Ok(Err(e)) = done {
            tracing::warn!("addresses of a name could not be let through: {}", chain(&e));
        }
    }
}

/// A value that a task left in the middle of a change is still a value.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
