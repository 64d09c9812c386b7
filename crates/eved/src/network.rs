//! `eved network`: the node's ports get addresses, routes and DNS, and say so in the topic `ports`.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use device::network::choice::{Rules, Seen, Source, Trial, Why, choose};
use device::network::dhcp::{Chance, Client, Event, Lease, Message, Reply};
use device::network::{self, Kernel, Op};
use host::net::{Changes, DatagramSocket, NetError, Netlink};
use host::topics::{Reader, Table, Watch, Writer};
use model::desired::{Addressing, Port, PortName};
use model::reported::{PortsAside, PortsFrom};
use model::topic::{
    Controller, DesiredPorts, DesiredProperties, Identities, Only, Ports, PortsSetAside,
};
use model::{Bytes, Diagnosis, Problem, Who};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::dhcp;
use crate::service::Context;

/// Heals what nobody told us of.
const RESYNC: Duration = Duration::from_secs(30);
/// The ports that last worked.
const SAVED: &str = "ports.json";
/// A table of ports takes a few hundred bytes a port.
const SAVED_MAX: Bytes = Bytes::mib(1);

pub(crate) async fn run(ctx: Context) -> anyhow::Result<()> {
    let mut changes = Changes::listen()?;
    let roots = ctx.roots();
    let desired = Reader::<DesiredPorts>::open(&roots);
    let controller = Reader::<Controller>::open(&roots);
    let watch = Watch::new(&[desired.dir(), controller.dir()])?;
    let (told, mut replies) = mpsc::channel(64);
    let mut keeper = Keeper {
        netlink: Netlink::connect()?,
        ports: Writer::open(&roots)?,
        set_aside: Writer::open(&roots)?,
        desired,
        controller,
        properties: Reader::open(&roots),
        identities: Reader::open(&roots),
        state: ctx.paths.persist.join("network"),
        resolv: resolv_folder(&ctx),
        clients: BTreeMap::new(),
        trial: Trial::default(),
        source: None,
        trouble: BTreeMap::new(),
        unsaved: None,
        started: Instant::now(),
        told,
    };
    keeper.loopback().await?;
    keeper.round().await?;
    ctx.ready();
    loop {
        tokio::select! {
            () = ctx.stopped() => return Ok(()),
            () = changes.changed() => {}
            changed = watch.changed() => changed?,
            Some((interface, reply)) = replies.recv() => keeper.answered(&interface, reply),
            () = tokio::time::sleep(keeper.pause()) => {}
        }
        keeper.round().await?;
    }
}

/// Where resolv.conf goes: a folder that is ours, to which /run/resolv.conf leads.
fn resolv_folder(ctx: &Context) -> PathBuf {
    ctx.paths.run.join("network")
}

struct Keeper {
    netlink: Netlink,
    ports: Writer<Ports>,
    set_aside: Writer<PortsSetAside>,
    desired: Reader<DesiredPorts>,
    controller: Reader<Controller>,
    properties: Reader<DesiredProperties>,
    identities: Reader<Identities>,
    state: PathBuf,
    resolv: PathBuf,
    /// By interface: every port that gets its address by DHCP and has a carrier.
    clients: BTreeMap<String, Listening>,
    trial: Trial,
    source: Option<Source>,
    /// What went wrong with an interface in the last round.
    trouble: BTreeMap<String, Problem>,
    /// What the disk did not take in the last round.
    unsaved: Option<String>,
    started: Instant,
    told: mpsc::Sender<(String, Reply)>,
}

/// A DHCP client and its ears, which are open only while it waits for an answer.
struct Listening {
    client: Client,
    mac: [u8; 6],
    index: u32,
    ears: Option<(Arc<DatagramSocket>, tokio::task::AbortHandle)>,
}

impl Keeper {
    /// Programs of the node talk to each other through it.
    async fn loopback(&self) -> Result<(), NetError> {
        let links = self.netlink.links().await?;
        match links.iter().find(|link| link.name == "lo") {
            Some(link) if !link.up => self.netlink.up(link.index).await,
            _ => Ok(()),
        }
    }

    /// Milliseconds on our clock.
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Until the next thing to do by ourselves.
    fn pause(&self) -> Duration {
        let wake = self.clients.values().map(|l| l.client.wake).min().unwrap_or(u64::MAX);
        let next = Duration::from_millis(wake.saturating_sub(self.now()));
        // A config on trial is judged by the clock.
        let trial = if self.trial.is_open() { Duration::from_secs(5) } else { RESYNC };
        next.min(trial).max(Duration::from_millis(5))
    }

    /// Looks at everything, changes what must change, publishes what is.
    async fn round(&mut self) -> anyhow::Result<()> {
        let kernel = self.kernel().await?.0;
        let ports = self.which_ports(&kernel);
        self.clients_for(&ports).await?;
        self.speak();

        let leases: BTreeMap<String, Lease> = self
            .clients
            .iter()
            .filter_map(|(name, l)| Some((name.clone(), l.client.lease()?.clone())))
            .collect();
        let (kernel, indexes) = self.kernel().await?;
        let ops = network::plan(&kernel, &ports, &leases);
        self.trouble.clear();
        for op in &ops {
            tracing::info!("{op:?}");
            if let Err(error) = self.apply(op, &indexes).await {
                self.note(op, &error);
            }
        }
        let kernel = if ops.is_empty() { kernel } else { self.kernel().await?.0 };
        self.publish(&kernel, &ports, &leases)
    }

    async fn kernel(&self) -> Result<(Kernel, BTreeMap<String, u32>), NetError> {
        let links = self.netlink.links().await?;
        let indexes: BTreeMap<String, u32> =
            links.iter().map(|l| (l.name.clone(), l.index)).collect();
        let name_of = |index| links.iter().find(|l| l.index == index).map(|l| l.name.clone());
        let routes = self.netlink.routes().await?.into_iter().filter_map(|route| {
            Some(network::Route {
                to: route.to,
                interface: name_of(route.index)?,
                gateway: route.gateway,
                metric: route.metric,
            })
        });
        let kernel = Kernel {
            routes: routes.collect(),
            links: links
                .iter()
                .map(|l| {
                    let link = network::Link {
                        mac: l.mac,
                        up: l.up,
                        carrier: l.carrier,
                        ethernet: l.ethernet,
                        mtu: l.mtu,
                        addresses: l.addresses.iter().copied().collect(),
                    };
                    (l.name.clone(), link)
                })
                .collect(),
        };
        Ok((kernel, indexes))
    }

    fn which_ports(&mut self, kernel: &Kernel) -> BTreeMap<PortName, Port> {
        let desired = self.desired.is_complete().then(|| self.desired.read());
        let saved = load(&self.state);
        let settings = self.properties.get(&Only).unwrap_or_default();
        let rules = Rules {
            test: settings.port_test_duration,
            again: settings.port_retry_interval,
            any_ethernet: settings.fallback_any_ethernet,
        };
        let seen = Seen {
            now: self.now(),
            desired: desired.as_ref(),
            saved: &saved,
            connected: network::connected(self.ports.table().values()),
            answered: self.controller.get(&Only).and_then(|c| c.standing.answered),
            expected: self.identities.get(&Only).is_some(),
        };
        let (trial, source) = choose(std::mem::take(&mut self.trial), &seen, &rules);
        self.trial = trial;
        if self.source != Some(source) {
            tracing::info!("ports come from: {source:?}");
            self.source = Some(source);
        }
        self.tell_set_aside(desired.as_ref(), source, &rules);
        match source {
            Source::Desired => desired.unwrap_or_default(),
            Source::Saved => saved,
            Source::LastResort => network::last_resort(kernel),
        }
    }

    /// Says which ports of the config are not used, and why.
    fn tell_set_aside(
        &mut self,
        desired: Option<&BTreeMap<PortName, Port>>,
        source: Source,
        rules: &Rules,
    ) {
        let row = self.trial.aside().zip(desired).map(|(aside, desired)| {
            let why = match aside.why {
                Why::NoAddress => {
                    let limit = rules.test.as_secs();
                    format!("no management port has a link and an address within {limit} s")
                }
                Why::NoAnswer => "the controller does not answer through these ports".to_owned(),
            };
            let ports: Vec<Port> = desired.values().cloned().collect();
            let before = self.set_aside.table().get(&Only);
            let at = before.filter(|b| b.why == why && b.ports == ports).map(|b| b.at);
            let used = match source {
                Source::Desired => PortsFrom::Controller,
                Source::Saved => PortsFrom::LastWorked,
                Source::LastResort => PortsFrom::LastResort,
            };
            PortsAside { ports, at: at.unwrap_or_else(host::clock::now), why, used }
        });
        if let Some(row) = &row
            && self.set_aside.table().is_empty()
        {
            tracing::warn!("the ports of the config are set aside: {}", row.why);
        }
        let rows = row.into_iter().map(|row| (Only, row)).collect::<Table<PortsSetAside>>();
        if let Err(error) = self.set_aside.publish(rows) {
            tracing::error!("{}", model::chain(&error));
        }
    }

    /// Makes sure that each port which needs one has a client, and nobody else.
    async fn clients_for(&mut self, ports: &BTreeMap<PortName, Port>) -> Result<(), NetError> {
        let links = self.netlink.links().await?;
        let now = self.now();
        let mut kept = BTreeMap::new();
        for port in ports.values().filter(|port| port.addressing == Addressing::Dhcp) {
            let Some(link) = links.iter().find(|link| link.name == port.interface) else {
                continue;
            };
            let Some(mac) = link.mac.filter(|_| link.carrier) else { continue };
            // Another card, or the cable was out: what the last network said is past.
            let known = self.clients.remove(&port.interface);
            let listening = known.filter(|l| l.index == link.index && l.mac == mac);
            kept.insert(
                port.interface.clone(),
                listening.unwrap_or_else(|| Listening {
                    client: Client::new(now, chance()),
                    mac,
                    index: link.index,
                    ears: None,
                }),
            );
        }
        self.clients = kept;
        Ok(())
    }

    /// Lets every client whose time has come say something.
    fn speak(&mut self) {
        let now = self.now();
        for (interface, listening) in &mut self.clients {
            let client = listening.client.clone();
            let (next, message) = client.step(now, &Event::Woken, chance());
            listening.client = next;
            listening.say(interface, message.as_ref(), &self.told);
        }
    }

    fn answered(&mut self, interface: &str, reply: Reply) {
        let now = self.now();
        let Some(listening) = self.clients.get_mut(interface) else { return };
        let had = listening.client.lease().cloned();
        let client = listening.client.clone();
        let (next, message) = client.step(now, &Event::Reply(reply), chance());
        listening.client = next;
        if let Some(lease) = listening.client.lease().filter(|lease| Some(*lease) != had.as_ref()) {
            let seconds = (lease.expires - now) / 1000;
            let (address, server) = (lease.address, lease.server);
            tracing::info!(interface, %address, %server, seconds, "lease");
        }
        listening.say(interface, message.as_ref(), &self.told);
    }

    async fn apply(&self, op: &Op, indexes: &BTreeMap<String, u32>) -> Result<(), NetError> {
        let index = |name: &String| indexes.get(name).copied().unwrap_or_default();
        let route = |r: &network::Route| host::net::Route {
            to: r.to,
            index: index(&r.interface),
            gateway: r.gateway,
            metric: r.metric,
        };
        match op {
            Op::Up(name) => self.netlink.up(index(name)).await,
            Op::Mtu(name, mtu) => self.netlink.set_mtu(index(name), *mtu).await,
            Op::AddAddress(name, address) => self.netlink.add_address(index(name), *address).await,
            Op::DelAddress(name, address) => {
                self.netlink.remove_address(index(name), *address).await
            }
            Op::AddRoute(r) => self.netlink.add_route(&route(r)).await,
            Op::DelRoute(r) => self.netlink.remove_route(&route(r)).await,
        }
    }

    fn note(&mut self, op: &Op, error: &NetError) {
        let interface = match op {
            Op::Up(name) | Op::Mtu(name, _) => name,
            Op::AddAddress(name, _) | Op::DelAddress(name, _) => name,
            Op::AddRoute(route) | Op::DelRoute(route) => &route.interface,
        };
        let text = model::chain(error);
        tracing::warn!(interface, "{text}");
        let diagnosis = Diagnosis::of(Who::Operator, "check the addressing of the port");
        let problem = Problem::new(text, diagnosis.retry_in(RESYNC), host::clock::now());
        self.trouble.insert(interface.clone(), problem);
    }

    fn publish(
        &mut self,
        kernel: &Kernel,
        ports: &BTreeMap<PortName, Port>,
        leases: &BTreeMap<String, Lease>,
    ) -> anyhow::Result<()> {
        let (now, wall) = (self.now(), host::clock::now());
        let table: Table<Ports> = ports
            .iter()
            .map(|(name, port)| {
                let interface = &port.interface;
                let (link, lease) = (kernel.links.get(interface), leases.get(interface));
                let trouble = self.trouble.get(interface);
                let mut status = network::status(port, link, lease, trouble, now, wall);
                self.keep_times(name, &mut status);
                (name.clone(), status)
            })
            .collect();
        let resolv = network::resolv_conf(table.values());
        let named = write_if_changed(&self.resolv, "resolv.conf", resolv.as_bytes());
        let kept = if self.trial.proven() { save(&self.state, ports) } else { Ok(()) };
        self.tell_unsaved(named.map_err(Into::into).and(kept));
        Ok(self.ports.publish(table)?)
    }

    /// A full disk must not take the network down too. The next round tries again.
    fn tell_unsaved(&mut self, saved: anyhow::Result<()>) {
        let why = saved.err().map(|e| format!("{e:#}"));
        if let Some(text) = why.as_ref().filter(|_| why != self.unsaved) {
            tracing::error!("{text}");
        }
        self.unsaved = why;
    }

    /// What did not change keeps the times it was reported with: a row that only ticks would wake
    /// up everybody.
    fn keep_times(&self, name: &PortName, status: &mut model::reported::PortStatus) {
        let Some(before) = self.ports.table().get(name) else { return };
        if let (Some(new), Some(old)) = (&mut status.problem, &before.problem)
            && new.text == old.text
        {
            new.since = old.since;
        }
        if let (Some(new), Some(old)) = (&mut status.lease, &before.lease)
            && new.expires.0.abs_diff(old.expires.0) < 5000
        {
            new.expires = old.expires;
        }
    }
}

impl Listening {
    /// Sends a message, with ears open before it goes out and closed when nothing is awaited.
    fn say(
        &mut self,
        interface: &str,
        message: Option<&Message>,
        told: &mpsc::Sender<(String, Reply)>,
    ) {
        if !self.client.listens() {
            self.deaf();
            return;
        }
        let Some(message) = message else { return };
        if let Err(error) = self.send(interface, message, told) {
            tracing::warn!(interface, "{}", model::chain(&error));
        }
    }

    fn send(
        &mut self,
        interface: &str,
        message: &Message,
        told: &mpsc::Sender<(String, Reply)>,
    ) -> Result<(), NetError> {
        let socket = match &self.ears {
            Some((socket, _)) => socket.clone(),
            None => self.listen(interface, told)?,
        };
        let bytes = dhcp::write_request(message, self.client.xid, self.mac);
        tracing::debug!(interface, ?message, "dhcp");
        match message {
            Message::Extend { address, server: Some(server) } => {
                let to = SocketAddrV4::new(*server, dhcp::SERVER_PORT);
                socket.send(*address, to, &bytes)
            }
            Message::Discover | Message::Request { .. } | Message::Extend { .. } => {
                socket.broadcast(dhcp::SERVER_PORT, &bytes)
            }
        }
    }

    fn listen(
        &mut self,
        interface: &str,
        told: &mpsc::Sender<(String, Reply)>,
    ) -> Result<Arc<DatagramSocket>, NetError> {
        let socket = Arc::new(DatagramSocket::open(self.index, dhcp::CLIENT_PORT)?);
        let (ears, told) = (socket.clone(), told.clone());
        let (interface, mac) = (interface.to_owned(), self.mac);
        let task = tokio::spawn(async move {
            while let Ok(bytes) = ears.receive().await {
                if let Some(reply) = dhcp::read_reply(&bytes, mac)
                    && told.send((interface.clone(), reply)).await.is_err()
                {
                    return;
                }
            }
        });
        self.ears = Some((socket.clone(), task.abort_handle()));
        Ok(socket)
    }

    fn deaf(&mut self) {
        if let Some((_, task)) = self.ears.take() {
            task.abort();
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.deaf();
    }
}

fn chance() -> Chance {
    let [a, b, c, d, ..] = *uuid::Uuid::new_v4().as_bytes();
    Chance(u32::from_ne_bytes([a, b, c, d]))
}

fn load(state: &Path) -> BTreeMap<PortName, Port> {
    let bytes = store::read_bounded(&state.join(SAVED), SAVED_MAX).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

fn save(state: &Path, ports: &BTreeMap<PortName, Port>) -> anyhow::Result<()> {
    Ok(write_if_changed(state, SAVED, &serde_json::to_vec_pretty(ports)?)?)
}

fn write_if_changed(folder: &Path, name: &str, body: &[u8]) -> Result<(), store::SaveError> {
    if store::read_bounded(&folder.join(name), SAVED_MAX).is_ok_and(|old| old == body) {
        return Ok(());
    }
    // If that fails, saving fails too, and names the folder.
    let _ = std::fs::create_dir_all(folder);
    store::save(folder, name, body)
}

#[cfg(test)]
mod tests;
