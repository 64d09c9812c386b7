//! The listener: one TLS port for nodes, operators, browsers and image pulls.
//!
//! Each connection gets a task of its own and a bound on every wait: the handshake, the headers, a
//! body. Nobody has all connections, and only so many requests are answered at once. Connections are
//! kept while there is room for others. It knows nothing of what is served.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use crate::access::guard::Peer;
use crate::access::limits::{Held, Hold, Limits};
use crate::linger::Linger;
use crate::listener::ACME_TLS;

/// Open files that are plenty.
const FILES_WANTED: u64 = 65_536;
/// What is under way at the end gets so long to finish.
const FAREWELL: Duration = Duration::from_secs(5);

/// Serves until `stop` says so, then lets what is under way finish.
pub(crate) async fn run(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    router: Router,
    limits: Limits,
    mut stop: watch::Receiver<bool>,
) {
    let acceptor = TlsAcceptor::from(tls);
    let most = limits.connections.min(files());
    let room = Arc::new(Semaphore::new(most));
    let requests = Arc::new(Semaphore::new(limits.requests));
    let held = Held::default();
    let mut serving = tokio::task::JoinSet::new();
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(e) => {
                // Out of file descriptors, most likely; others end and free some.
                tracing::warn!("cannot accept a connection: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        while serving.try_join_next().is_some() {}
        let spared = limits.spare_loopback && peer.ip().to_canonical().is_loopback();
        let most_of_one = if spared { usize::MAX } else { limits.connections_of_one };
        let Some(hold) = held.take(peer.ip(), most_of_one) else {
            tracing::debug!(%peer, "has too many connections");
            continue;
        };
        let (acceptor, stop) = (acceptor.clone(), stop.clone());
        let served = Served {
            router: router.clone(),
            requests: requests.clone(),
            peer: peer.ip(),
            hold,
            room: room.clone(),
            crowd: (most / 2, most_of_one / 2),
        };
        serving.spawn(async move {
            if let Err(e) = connection(stream, acceptor, served, limits, stop).await {
                tracing::debug!(%peer, "connection ended: {e}");
            }
            drop(permit);
        });
    }
    drop(listener);
    let all = async { while serving.join_next().await.is_some() {} };
    if tokio::time::timeout(FAREWELL, all).await.is_err() {
        serving.shutdown().await;
    }
}

/// What a connection is for.
struct Served {
    router: Router,
    requests: Arc<Semaphore>,
    peer: IpAddr,
    hold: Hold,
    room: Arc<Semaphore>,
    /// Connections from which on it is crowded: all that are free, those of one address.
    crowd: (usize, usize),
}

impl Served {
    /// Answers a request, if there is room.
    async fn answer(&self, mut request: Request<Incoming>) -> Result<Response, Infallible> {
        let Ok(_room) = self.requests.try_acquire() else {
            let soon = [(header::RETRY_AFTER, "1")];
            return Ok((StatusCode::SERVICE_UNAVAILABLE, soon, "busy; try again").into_response());
        };
        request.extensions_mut().insert(Peer(self.peer));
        let mut answer = TowerToHyperService::new(self.router.clone()).call(request).await?;
        // An idle connection must not keep another node out.
        if self.room.available_permits() < self.crowd.0 || self.hold.of_holder() > self.crowd.1 {
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(answer)
    }
}

async fn connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    served: Served,
    limits: Limits,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let tls = acceptor.accept(Linger::new(stream));
    let tls = tokio::time::timeout(limits.handshake, tls).await??;
    if tls.get_ref().1.alpn_protocol() == Some(ACME_TLS) {
        return Ok(()); // It has seen the certificate.
    }
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.headers).max_headers(64);
    let served = &served;
    let service = service_fn(move |request| served.answer(request));
    let serving = http.serve_connection(TokioIo::new(tls), service);
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        done = serving.as_mut() => return done.map_err(io::Error::other),
        _ = stop.wait_for(|stop| *stop) => serving.as_mut().graceful_shutdown(),
    }
    serving.await.map_err(io::Error::other)
}

/// Connections that the process may have open. Asks for as many files as it can get; a quarter of
/// them is for everything else.
fn files() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(FILES_WANTED).min(FILES_WANTED);
    if let Some(now) = limit.current.filter(|now| *now < most) {
        let wanted = Rlimit { current: Some(most), maximum: limit.maximum };
        match setrlimit(Resource::Nofile, wanted) {
            Ok(()) => limit = wanted,
            Err(e) => tracing::warn!("cannot have more than {now} files open: {e}"),
        }
    }
    let files = limit.current.unwrap_or(FILES_WANTED);
    usize::try_from(files / 4 * 3).unwrap_or(usize::MAX)
}

/// Opens the port.
pub(crate) async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}
