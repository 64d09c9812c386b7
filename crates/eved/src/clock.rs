//! `eved clock`: asks time servers, and sets the node's clock by them.
//!
//! `device::clock` judges; a clock that may not be set is told, and the servers are asked all the same.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use device::clock::{self, PATIENCE, PORT, Reply, Server, Unusable};
use host::http::{ResolveError, Resolver};
use host::topics::{Reader, Table, Watch, Writer};
use model::topic::{Clock, Only, Ports};
use model::{UnixMillis, chain};
use tokio::time::{Instant, sleep_until};

use crate::service::Context;

/// Without a port there is nobody to ask.
const RESYNC: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("cannot find it")]
    Resolve(#[from] ResolveError),
    #[error("it has no address")]
    NoAddress,
    #[error("no answer")]
    Net(#[from] std::io::Error),
    #[error(transparent)]
    Unusable(#[from] Unusable),
}

struct Asked {
    server: Server,
    tries: u32,
    next: Instant,
}

pub(crate) async fn run(ctx: Context) -> anyhow::Result<()> {
    let roots = ctx.roots();
    let ports = Reader::<Ports>::open(&roots);
    let watch = Watch::new(&[ports.dir()])?;
    let mut told = Writer::<Clock>::open(&roots)?;
    let mut all: Vec<Asked> = Vec::new();
    let mut in_step: Option<UnixMillis> = None;
    ctx.ready();
    loop {
        follow(&mut all, &clock::servers(&ports.read()));
        let now = Instant::now();
        for asked in all.iter_mut().filter(|asked| asked.next <= now) {
            tokio::select! {
                () = ctx.stopped() => return Ok(()),
                () = ask(asked) => {}
            }
        }
        in_step = set(&mut all).or(in_step);
        let servers: Vec<Server> = all.iter().map(|asked| asked.server.clone()).collect();
        let state = clock::report(&servers, &clock::judge(&servers), in_step);
        told.publish(Table::<Clock>::from([(Only, state)]))?;
        let next = all.iter().map(|asked| asked.next).min().unwrap_or(now + RESYNC);
        tokio::select! {
            () = ctx.stopped() => return Ok(()),
            changed = watch.changed() => changed?,
            () = sleep_until(next) => {}
        }
    }
}

/// Keeps what is known of servers that are still named.
fn follow(all: &mut Vec<Asked>, names: &[String]) {
    if all.iter().map(|asked| &asked.server.name).eq(names) {
        return;
    }
    tracing::info!("time servers: {}", names.join(", "));
    let mut before = std::mem::take(all);
    for name in names {
        let known = before.iter().position(|asked| asked.server.name == *name);
        all.push(match known {
            Some(at) => before.swap_remove(at),
            None => Asked { server: Server::new(name), tries: 0, next: Instant::now() },
        });
    }
}

async fn ask(asked: &mut Asked) {
    let was_silent = asked.server.reach == 0;
    match exchange(&mut asked.server).await {
        Ok(()) => asked.tries = 0,
        Err(why) => {
            // Once, not each minute.
            if asked.tries == 0 && (was_silent || asked.server.reach == 1) {
                tracing::warn!(server = asked.server.name, "no time: {}", chain(&why));
            }
            match why {
                AskError::Unusable(Unusable::Unwilling) => asked.server.unwilling(),
                _ => asked.server.silent(),
            }
            asked.tries = asked.tries.saturating_add(1);
        }
    }
    asked.next = Instant::now() + asked.server.pause(asked.tries);
}

async fn exchange(server: &mut Server) -> Result<(), AskError> {
    let named = server.name.parse::<SocketAddr>();
    let (addresses, port) = match named {
        Ok(at) => (vec![at.ip()], at.port()),
        Err(_) => (Resolver::default().resolve(&server.name).await?, PORT),
    };
    let v4 = addresses.iter().find(|a| a.is_ipv4()).or(addresses.first());
    let to = SocketAddr::new(*v4.ok_or(AskError::NoAddress)?, port);
    let [low, high] = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()].map(|u| u.as_u64_pair().1);
    let chance = low ^ high.rotate_left(32);
    let request = clock::request(chance);
    let begun = host::clock::nanos();
    let got = host::net::ask(to, &request, PATIENCE).await?;
    let spent = i64::try_from(got.spent.as_nanos()).unwrap_or(i64::MAX);
    let reply = Reply::read(&got.bytes, chance)?;
    let own: IpAddr = got.own;
    server.address = Some((to.ip(), own));
    server.answered(reply, begun, begun.saturating_add(spent));
    Ok(())
}

/// Sets our clock if it is off; when it is right now.
fn set(all: &mut [Asked]) -> Option<UnixMillis> {
    let servers: Vec<Server> = all.iter().map(|asked| asked.server.clone()).collect();
    let verdict = clock::judge(&servers);
    verdict.offset?;
    if let Some(by) = clock::step(&verdict) {
        if let Err(why) = host::clock::move_by(by) {
            tracing::error!("the clock is off and cannot be set: {why}");
            return None;
        }
        let seconds = by / 1_000_000_000;
        tracing::warn!(
            "the clock was set: it was off by {seconds} s and {} ms",
            by / 1_000_000 % 1000
        );
        all.iter_mut().for_each(|asked| asked.server.moved(by));
    }
    Some(host::clock::now())
}
