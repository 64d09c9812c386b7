//! `eved netinst`: networks of apps.
//!
//! `device::netinst` says what should be; this file compares it with the kernel at every wake-up and
//! changes what differs, so that start, change and repair are one path. What it finds of an earlier
//! run it keeps, if it is still wanted.

mod kernel;
mod serve;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use device::netinst::leases::{guests_from_bytes, guests_to_bytes};
use device::netinst::numbers::Numbers;
use device::netinst::ops::{For, Op, ops};
use device::netinst::{Inputs, Plan, plan};
use host::net::{Changes, NetError, apply_filter, set_knob};
use host::process::ToolError;
use host::topics::{Reader, Table, Watch, Writer};
use model::topic::{AppNetworks, DesiredApps, DesiredNetworkInstances, NetworkInstances, Ports};
use model::{Bytes, Diagnose, Diagnosis, Problem, Who, chain};
use tokio::time::sleep;

use crate::service::Context;

use kernel::{Hands, HandsError};
use serve::Servers;

/// Looked at again even if nothing woke us.
const RESYNC: Duration = Duration::from_secs(60);
/// … and sooner if something failed.
const AGAIN: Duration = Duration::from_secs(5);
/// Under /persist/netinst: numbers and addresses of networks and apps.
const NUMBERS: &str = "numbers.json";
/// Beside it: leases of those who are no apps.
const GUESTS: &str = "guests.json";
/// A few hundred apps take some 100 KiB.
const FILE_MAX: Bytes = Bytes::mib(4);

#[derive(Debug, thiserror::Error)]
enum NetinstError {
    #[error(transparent)]
    Save(#[from] store::SaveError),
    #[error(transparent)]
    Net(#[from] NetError),
    #[error(transparent)]
    Link(#[from] HandsError),
    #[error("cannot put the packet filter in force")]
    Filter(#[source] ToolError),
    #[error("the work was interrupted")]
    Interrupted,
}

impl Diagnose for NetinstError {
    fn diagnose(&self) -> Diagnosis {
        match self {
            Self::Save(e) if e.io().kind() == io::ErrorKind::StorageFull => {
                Diagnosis::of(Who::Operator, "free space on the node's disk, or give it more")
            }
            Self::Save(_) => Diagnosis::of(Who::Hardware, "check the node's disk"),
            Self::Net(_) | Self::Link(_) | Self::Filter(_) => {
                Diagnosis::of(Who::Developer, "report this with the node's logs")
            }
            Self::Interrupted => Diagnosis::of(Who::Nobody, "it is done again"),
        }
        .retry_in(AGAIN)
    }
}

pub(crate) async fn run(ctx: Context) -> anyhow::Result<()> {
    let roots = ctx.roots();
    let home = ctx.paths.persist.join("netinst");
    std::fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
    let (networks, apps, ports) = (
        Reader::<DesiredNetworkInstances>::open(&roots),
        Reader::<DesiredApps>::open(&roots),
        Reader::<Ports>::open(&roots),
    );
    // Beside /run/eve, where `ip netns` looks too.
    let namespaces = ctx.paths.run.with_file_name("netns");
    let mut keeper = Keeper {
        hands: Hands::new(namespaces.clone())?,
        namespaces: namespaces.to_string_lossy().into_owned(),
        numbers: load(&home, NUMBERS, Numbers::from_bytes),
        servers: Servers::new(load(&home, GUESTS, guests_from_bytes)),
        saved_guests: Vec::new(),
        home,
        filter: String::new(),
        statuses: (Writer::open(&roots)?, Writer::open(&roots)?),
    };
    let watch = Watch::new(&[networks.dir(), apps.dir(), ports.dir()])?;
    let mut changes = Changes::listen()?;
    ctx.ready();
    loop {
        let mut wait = RESYNC;
        // Without the whole config a network that is missing may only be late.
        if networks.is_complete() && apps.is_complete() {
            let wanted =
                Wanted { networks: networks.read(), apps: apps.read(), ports: ports.read() };
            match keeper.pass(&wanted).await {
                Ok(true) => {}
                Ok(false) => wait = AGAIN,
                Err(why) => {
                    tracing::warn!("{why:#}");
                    wait = AGAIN;
                }
            }
        }
        tokio::select! {
            () = ctx.stopped() => return Ok(()), // networks stay: apps are still there
            changed = watch.changed() => changed?,
            () = changes.changed() => {}
            () = keeper.servers.news() => {}
            () = sleep(wait) => {}
        }
    }
}

/// What was read for one pass.
struct Wanted {
    networks: Table<DesiredNetworkInstances>,
    apps: Table<DesiredApps>,
    ports: Table<Ports>,
}

struct Keeper {
    hands: Hands,
    namespaces: String,
    home: PathBuf,
    numbers: Numbers,
    servers: Servers,
    /// As they were saved last.
    saved_guests: Vec<u8>,
    /// The batch in force.
    filter: String,
    statuses: (Writer<NetworkInstances>, Writer<AppNetworks>),
}

impl Keeper {
    /// Makes everything as wanted, as far as it goes, and publishes what is. `false`: something
    /// has to be tried again.
    async fn pass(&mut self, wanted: &Wanted) -> anyhow::Result<bool> {
        let numbers = self.numbers.renewed(&wanted.networks, &wanted.apps);
        if numbers != self.numbers {
            // Durable before anybody sees them.
            store::save(&self.home, NUMBERS, &numbers.to_bytes())?;
            self.numbers = numbers;
        }
        let guests = self.servers.guests();
        let mut plan = plan(&Inputs {
            networks: &wanted.networks,
            apps: &wanted.apps,
            ports: &wanted.ports,
            numbers: &self.numbers,
            guests: &guests,
            namespaces: &self.namespaces,
            now: host::clock::now(),
        });
        let failed = match self.realize(&plan).await {
            Ok(failed) => failed,
            Err(why) => everybody(&plan, &why),
        };
        self.servers.run(plan.services.clone());
        for (whom, problem) in &failed {
            blame(&mut plan, *whom, problem);
        }
        self.save_guests();
        self.publish(plan)?;
        Ok(failed.is_empty())
    }

    /// Filter first: nothing is connected that is not guarded.
    async fn realize(&mut self, plan: &Plan) -> Result<BTreeMap<For, Problem>, NetinstError> {
        self.protect(plan).await?;
        self.build(plan).await
    }

    /// Puts the packet filter in force, if it changed.
    async fn protect(&mut self, plan: &Plan) -> Result<(), NetinstError> {
        let batch = plan.filter.batch();
        if batch == self.filter {
            return Ok(());
        }
        let sets: BTreeSet<&str> =
            plan.filter.tables.iter().flat_map(|t| &t.sets).map(String::as_str).collect();
        let learned = self.servers.learned(&sets, host::clock::now());
        self.filter.clear(); // until it is known to be in force
        apply(batch.clone()).await?;
        if let Some(learned) = learned {
            apply(learned).await?;
        }
        tracing::info!("packet filter renewed");
        self.filter = batch;
        Ok(())
    }

    /// Changes what differs. What fails for one stops neither the others nor what comes after.
    async fn build(&mut self, plan: &Plan) -> Result<BTreeMap<For, Problem>, NetinstError> {
        for (name, value) in
            [("net/ipv4/ip_forward", "1"), ("net/ipv4/conf/all/send_redirects", "0")]
        {
            set_knob(name, value)?;
        }
        let mut failed: BTreeMap<For, Problem> = BTreeMap::new();
        let mut fail = |whom: For, why: NetinstError| {
            tracing::warn!("{whom:?}: {}", chain(&why));
            failed.entry(whom).or_insert_with(|| why.problem(host::clock::now()));
        };
        for (whom, op) in ops(&self.hands.read().await?, plan) {
            if let (Op::AddBridge(_), For::Network(id)) = (&op, whom) {
                self.servers.stop(id);
            }
            match self.hands.execute(&op).await {
                Ok(()) => tracing::info!("{op:?}"),
                Err(why) => fail(whom, why.into()),
            }
        }
        for (id, bridge) in &plan.bridges {
            for (knob, value) in bridge_knobs(&bridge.name) {
                match set_knob(&knob, value) {
                    Err(why) if why.io().kind() != io::ErrorKind::NotFound => {
                        fail(For::Network(*id), why.into());
                    }
                    // The kernel may be one without IPv6.
                    _ => {}
                }
            }
        }
        Ok(failed)
    }

    fn save_guests(&mut self) {
        let bytes = guests_to_bytes(&self.servers.guests());
        if bytes != self.saved_guests {
            match store::save(&self.home, GUESTS, &bytes) {
                Ok(()) => self.saved_guests = bytes,
                // They know their addresses and will ask for them.
                Err(why) => tracing::warn!("leases are not saved: {}", chain(&why)),
            }
        }
    }

    fn publish(&mut self, mut plan: Plan) -> Result<(), host::topics::TopicError> {
        let (networks, apps) = &mut self.statuses;
        for (id, status) in &mut plan.networks {
            if status.active && status.problem.is_none() {
                status.problem = self.servers.trouble(*id);
            }
            let before = networks.table().get(id).and_then(|s| s.problem.as_ref());
            keep_since(&mut status.problem, before);
        }
        for (id, status) in &mut plan.app_networks {
            let before = apps.table().get(id).and_then(|s| s.problem.as_ref());
            keep_since(&mut status.problem, before);
        }
        networks.publish(plan.networks)?;
        apps.publish(plan.app_networks)
    }
}

/// The node answers ARP for all ports of the bridge, at once, and routes between them without
/// telling them of a shorter way. IPv6 is not for apps yet.
fn bridge_knobs(bridge: &str) -> [(String, &'static str); 4] {
    [
        (format!("net/ipv4/conf/{bridge}/proxy_arp_pvlan"), "1"),
        (format!("net/ipv4/neigh/{bridge}/proxy_delay"), "0"),
        (format!("net/ipv4/conf/{bridge}/send_redirects"), "0"),
        (format!("net/ipv6/conf/{bridge}/disable_ipv6"), "1"),
    ]
}

async fn apply(batch: String) -> Result<(), NetinstError> {
    let done = tokio::task::spawn_blocking(move || apply_filter(batch.as_bytes())).await;
    done.map_err(|_| NetinstError::Interrupted)?.map_err(NetinstError::Filter)
}

/// A failure that is everybody's.
fn everybody(plan: &Plan, why: &NetinstError) -> BTreeMap<For, Problem> {
    tracing::error!("{}", chain(why));
    let problem = why.problem(host::clock::now());
    let networks = plan.networks.keys().map(|id| For::Network(*id));
    let apps = plan.app_networks.keys().map(|id| For::App(*id));
    networks.chain(apps).map(|whom| (whom, problem.clone())).collect()
}

fn blame(plan: &mut Plan, whom: For, problem: &Problem) {
    match whom {
        For::Nobody => {}
        For::Network(id) => {
            if let Some(status) = plan.networks.get_mut(&id) {
                status.active = false;
                status.problem = Some(problem.clone());
            }
        }
        For::App(id) => {
            if let Some(status) = plan.app_networks.get_mut(&id) {
                status.ready = false;
                status.problem = Some(problem.clone());
            }
        }
    }
}

/// The same problem is as old as it was.
fn keep_since(now: &mut Option<Problem>, before: Option<&Problem>) {
    if let (Some(now), Some(before)) = (now, before)
        && now.text == before.text
    {
        now.since = before.since;
    }
}

fn load<T: Default>(
    home: &std::path::Path,
    name: &str,
    read: impl FnOnce(&[u8]) -> Result<T, serde_json::Error>,
) -> T {
    let path = home.join(name);
    let anew = |e: &dyn std::fmt::Display| {
        // Apps get other addresses; that is better than none.
        tracing::error!("{} cannot be read, starting anew: {e}", path.display());
        T::default()
    };
    match store::read_bounded(&path, FILE_MAX) {
        Ok(bytes) => read(&bytes).unwrap_or_else(|e| anew(&e)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => T::default(), // the first start
        Err(e) => anew(&e),
    }
}

#[cfg(test)]
mod tests;
