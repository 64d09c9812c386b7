//! The interfaces through which a server may be reached.
//!
//! The kernel goes by the cheapest default route whose link is up, also when nothing behind it
//! answers. So who gets no answer tries the other ports, one after the other, and the way that worked
//! is the first one for a while.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};

/// So long one address is tried one way, unless [`Ways::hurry`] says otherwise.
const DIAL: Duration = Duration::from_secs(10);
/// So long the way that worked is tried first; then the kernel's own has its chance again.
const FAITHFUL: Duration = Duration::from_secs(600);
/// A node has no more ports; each costs a caller as long as one may be tried.
const WAYS_MAX: usize = 4;

/// Names of interfaces, in the order in which they are tried; the first is the one that the kernel
/// goes through by itself. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Ways(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    ports: Vec<String>,
    worked: Option<(String, Instant)>,
    /// `None`: [`DIAL`].
    dial: Option<Duration>,
    /// `None`: the client's own.
    whole: Option<Duration>,
}

/// The address that was dialled last, and what became of it.
type Refused = (SocketAddr, io::Error);

impl Ways {
    /// Puts others in the place of those before.
    pub fn set(&self, ports: Vec<String>) {
        let mut known = self.known();
        known.worked = known.worked.take().filter(|(port, _)| ports.contains(port));
        known.ports = ports;
    }

    /// So long one address may be tried one way, and so long a whole small request may take; zero: as
    /// long as usual.
    pub fn hurry(&self, dial: Duration, whole: Duration) {
        let mut known = self.known();
        known.dial = Some(dial).filter(|d| !d.is_zero());
        known.whole = Some(whole).filter(|d| !d.is_zero());
    }

    /// The interface that requests go through now. `None`: nobody named any.
    pub fn in_use(&self) -> Option<String> {
        let known = self.known();
        let worked = known.worked.as_ref().map(|(port, _)| port.clone());
        worked.or_else(|| known.ports.first().cloned())
    }

    /// So long a whole small request may take. `None`: nobody said.
    pub(super) fn whole(&self) -> Option<Duration> {
        self.known().whole
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        // Plain values: whoever panicked in between left nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers the way that worked, from the first time on: else a way in use would never give the
    /// kernel's own its chance again.
    fn keep(&self, way: Option<String>, now: Instant) {
        let mut known = self.known();
        let before = known.worked.take();
        known.worked = way.map(|port| {
            let since = before.filter(|(last, _)| *last == port).map_or(now, |(_, since)| since);
            (port, since)
        });
    }

    /// What to try: `None` is the kernel's own way.
    fn order(&self, now: Instant) -> Vec<Option<String>> {
        let mut known = self.known();
        known.worked =
            known.worked.take().filter(|(_, since)| now.duration_since(*since) < FAITHFUL);
        let first = known.worked.as_ref().map(|(port, _)| port.clone());
        // The kernel's own way is that through the first port.
        let others = known.ports.iter().skip(1).filter(|port| Some(*port) != first.as_ref());
        let others = others.take(WAYS_MAX).cloned().map(Some);
        first.clone().map(Some).into_iter().chain([None]).chain(others).collect()
    }

    /// Dials the addresses, each way until one answers. `None`: there was nothing to dial.
    pub(super) async fn dial(&self, to: &[SocketAddr]) -> Option<Result<TcpStream, Refused>> {
        let mut last = None;
        let limit = self.known().dial.unwrap_or(DIAL);
        for way in self.order(Instant::now()) {
            for to in to {
                // No port leads to ourselves.
                if way.is_some() && to.ip().is_loopback() {
                    continue;
                }
                match connect(*to, way.as_deref(), limit).await {
                    Ok(stream) => {
                        self.keep(way, Instant::now());
                        return Some(Ok(stream));
                    }
                    // Somebody is there, and every other way leads to the same one.
                    Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
                        last = Some((*to, e));
                    }
                    Err(e) if last.is_none() || way.is_none() => last = Some((*to, e)),
                    Err(_) => {}
                }
            }
            let refused = |(_, e): &Refused| e.kind() == io::ErrorKind::ConnectionRefused;
            if last.as_ref().is_some_and(refused) {
                break;
            }
        }
        last.map(Err)
    }
}

async fn connect(to: SocketAddr, port: Option<&str>, limit: Duration) -> io::Result<TcpStream> {
    let dial = async {
        let Some(port) = port else { return TcpStream::connect(to).await };
        let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.bind_device(Some(port.as_bytes()))?;
        socket.connect(to).await
    };
    timeout(limit, dial).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(ways: &Ways, now: Instant) -> String {
        let shown = |way: Option<String>| way.unwrap_or_else(|| "kernel".to_owned());
        ways.order(now).into_iter().map(shown).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_way_that_worked_comes_first_for_a_while() {
        let (ways, now) = (Ways::default(), Instant::now());
        assert_eq!(order(&ways, now), "kernel");
        assert_eq!(ways.in_use(), None);
        ways.set(vec!["eth0".into()]);
        assert_eq!(order(&ways, now), "kernel", "one port is one way");
        assert_eq!(ways.in_use().as_deref(), Some("eth0"));
        ways.set(vec!["eth0".into(), "eth1".into(), "eth2".into()]);
        assert_eq!(order(&ways, now), "kernel eth1 eth2");
        ways.keep(Some("eth1".into()), now);
        assert_eq!(ways.in_use().as_deref(), Some("eth1"));
        assert_eq!(order(&ways.clone(), now), "eth1 kernel eth2");
        ways.keep(Some("eth1".into()), now + FAITHFUL / 2);
        assert_eq!(order(&ways, now + FAITHFUL), "kernel eth1 eth2", "also a way that is in use");
        ways.keep(Some("eth1".into()), now);
        ways.keep(None, now);
        assert_eq!(order(&ways, now), "kernel eth1 eth2", "the kernel's own works again");
        ways.keep(Some("eth1".into()), now);
        ways.set(vec!["eth0".into(), "eth2".into()]);
        assert_eq!(order(&ways, now), "kernel eth2", "a port that is gone is no way");
    }

    #[tokio::test]
    async fn who_refuses_was_reached_and_nothing_is_nothing() {
        let ways = Ways::default();
        ways.set(vec!["eth0".into(), "eth1".into()]);
        assert!(ways.dial(&[]).await.is_none());
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = closed.local_addr().unwrap();
        drop(closed);
        let (to, e) = ways.dial(&[at]).await.unwrap().unwrap_err();
        assert_eq!((to, e.kind()), (at, io::ErrorKind::ConnectionRefused));
    }
}
