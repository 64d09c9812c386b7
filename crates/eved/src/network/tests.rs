//! The service against a DHCP server of ours, over a virtual pair between two network namespaces.
//! Needs root.

use std::net::Ipv4Addr;

use host::net::Namespace;

use super::*;
use crate::dhcp::{Given, read_request, write_reply};

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);

/// Runs `act` on a runtime of its own inside a namespace.
fn inside<T: Send, F: std::future::Future<Output = T>>(
    namespace: &Namespace,
    act: impl FnOnce() -> F + Send,
) -> T {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(act())
    };
    namespace.enter(run).unwrap()
}

/// Answers like a server with one address to give, and stops after the first ACK.
async fn serve_once() -> Asked {
    tokio::time::timeout(Duration::from_secs(10), serve())
        .await
        .expect("nobody asks for an address")
}

async fn serve() -> Asked {
    let netlink = Netlink::connect().unwrap();
    let link = netlink.links().await.unwrap().into_iter().find(|l| l.name == "server0").unwrap();
    netlink.up(link.index).await.unwrap();
    let socket = DatagramSocket::open(link.index, dhcp::SERVER_PORT).unwrap();
    loop {
        let bytes = socket.receive().await.unwrap();
        let Some(asked) = read_request(&bytes) else { continue };
        let given = Given {
            address: "10.9.0.42/24".parse().unwrap(),
            server: SERVER,
            gateway: Some(SERVER),
            dns: vec![SERVER],
            mtu: 1400,
            lease_s: 600,
        };
        socket.broadcast(dhcp::CLIENT_PORT, &write_reply(&asked, SERVER, Some(&given))).unwrap();
        if !asked.discover {
            return Asked(asked.address, asked.server);
        }
    }
}

#[derive(Debug, PartialEq)]
struct Asked(Option<Ipv4Addr>, Option<Ipv4Addr>);

#[test]
fn a_port_gets_address_route_and_dns_from_a_server() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test makes network namespaces: run as root"
    );
    let dir = tempfile::tempdir().unwrap();
    let node = Namespace::open_or_make(&dir.path().join("node")).unwrap();
    let server = Namespace::open_or_make(&dir.path().join("server")).unwrap();
    inside(&node, || async {
        let netlink = Netlink::connect().unwrap();
        netlink.add_pair("eth0", "server0", [2, 0, 0, 0, 9, 1], 1500, &server).await.unwrap();
    });
    let (ctx, stop) = Context::in_folder(model::services::Service::Network, dir.path());
    let roots = ctx.roots();
    let name = PortName::new("uplink").unwrap();
    let port = Port {
        name: name.clone(),
        interface: "eth0".to_owned(),
        management: true,
        cost: 0,
        addressing: Addressing::Dhcp,
        mtu: None,
        below: String::new(),
        link: Default::default(),
        options: Default::default(),
    };
    let table = Table::<DesiredPorts>::from([(name.clone(), port)]);
    Writer::<DesiredPorts>::open(&roots).unwrap().publish(table).unwrap();

    // As `eved onboard` and `eved config` would say.
    let id = "6ba7b810-9dad-41d1-80b4-00c04fd430c8".parse().unwrap();
    let identity =
        model::reported::Identity { id, server: "c".to_owned(), onboarded: model::UnixMillis(1) };
    let identity = Table::<Identities>::from([(Only, identity)]);
    Writer::<Identities>::open(&roots).unwrap().publish(identity).unwrap();
    let answers = |at| {
        let standing = model::reported::Standing {
            answered: Some(model::UnixMillis(at)),
            ..Default::default()
        };
        let status = model::reported::ControllerStatus {
            server: "c".to_owned(),
            last_contact: None,
            problem: None,
            config: model::reported::ConfigSource::Controller,
            config_timestamp: None,
            refused: Vec::new(),
            node_name: String::new(),
            forgotten: false,
            standing,
        };
        let table = Table::<Controller>::from([(Only, status)]);
        Writer::<Controller>::open(&roots).unwrap().publish(table).unwrap();
    };
    answers(1);
    let saved = dir.path().join("persist/network/ports.json");

    // Nothing is asserted while the service runs: a failure must not leave it running.
    let (asked, status, routes, links, kept) = std::thread::scope(|scope| {
        let node = &node;
        let served = scope.spawn(|| inside(&server, serve_once));
        scope.spawn(move || inside(node, || async { run(ctx).await.unwrap() }));
        let asked = served.join();
        let reader = Reader::<Ports>::open(&roots);
        let status = (0..200).find_map(|_| {
            std::thread::sleep(Duration::from_millis(25));
            reader.get(&name).filter(|status| !status.addresses.is_empty())
        });
        let (routes, links) = inside(node, || async {
            let netlink = Netlink::connect().unwrap();
            (netlink.routes().await.unwrap(), netlink.links().await.unwrap())
        });
        let too_early = saved.exists();
        answers(2);
        let later = (0..200).any(|_| {
            std::thread::sleep(Duration::from_millis(25));
            saved.exists()
        });
        stop.send_replace(true);
        (asked, status, routes, links, (too_early, later))
    });
    let wanted = Asked(Some(Ipv4Addr::new(10, 9, 0, 42)), Some(SERVER));
    assert_eq!(asked.unwrap(), wanted, "what was offered is asked for, of who offered it");
    let status = status.expect("the port gets its address within five seconds");
    assert_eq!(status.addresses, ["10.9.0.42/24".parse().unwrap()]);
    assert_eq!(status.gateway, Some(SERVER));
    assert_eq!(status.lease.as_ref().map(|l| l.server), Some(SERVER));
    assert_eq!(routes.iter().map(|r| r.gateway).collect::<Vec<_>>(), [Some(SERVER)]);
    let eth0 = links.iter().find(|l| l.name == "eth0").unwrap();
    assert_eq!(eth0.mtu, 1400, "the server's MTU is taken");
    let resolv = dir.path().join("run/network/resolv.conf");
    assert_eq!(std::fs::read_to_string(resolv).unwrap(), "nameserver 10.9.0.1\n");
    assert_eq!(kept, (false, true), "ports are kept when somebody answered through them");
    Namespace::remove(&dir.path().join("node")).unwrap();
    Namespace::remove(&dir.path().join("server")).unwrap();
}

/// A server on a far address that answers `asked` times.
async fn answer(asked: usize) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("198.51.100.1:80").await.unwrap();
    for _ in 0..asked {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 1024];
        assert!(stream.read(&mut head).await.unwrap() > 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
    }
}

/// Gives an interface addresses and switches it on; its index.
async fn set_up(interface: &str, addresses: &[&str]) -> u32 {
    let netlink = Netlink::connect().unwrap();
    let link = netlink.links().await.unwrap().into_iter().find(|l| l.name == interface).unwrap();
    for address in addresses {
        netlink.add_address(link.index, address.parse().unwrap()).await.unwrap();
    }
    netlink.up(link.index).await.unwrap();
    link.index
}

#[test]
fn what_is_not_reached_through_the_cheapest_port_is_through_the_next() {
    use host::http::{Client, Request, Resolver, Trust, Ways};
    assert!(
        rustix::process::geteuid().is_root(),
        "this test makes network namespaces: run as root"
    );
    let dir = tempfile::tempdir().unwrap();
    let [node, hole, server] = ["node", "hole", "server"]
        .map(|name| Namespace::open_or_make(&dir.path().join(name)).unwrap());
    inside(&node, || async {
        let netlink = Netlink::connect().unwrap();
        netlink.add_pair("eth0", "far0", [2, 0, 0, 0, 9, 2], 1500, &hole).await.unwrap();
        netlink.add_pair("eth1", "far1", [2, 0, 0, 0, 9, 3], 1500, &server).await.unwrap();
    });
    // The gateway of the cheaper port is there, and what it is given goes nowhere.
    inside(&hole, || set_up("far0", &["10.9.2.1/24"]));
    inside(&server, || set_up("far1", &["10.9.3.1/24", "198.51.100.1/32"]));
    let asked = std::thread::scope(|scope| {
        let served = scope.spawn(|| inside(&server, || answer(2)));
        let asked = inside(&node, || async {
            let eth0 = set_up("eth0", &["10.9.2.2/24"]).await;
            let eth1 = set_up("eth1", &["10.9.3.2/24"]).await;
            let netlink = Netlink::connect().unwrap();
            for (index, gateway, metric) in [(eth0, "10.9.2.1", 10), (eth1, "10.9.3.1", 20)] {
                let (to, gateway) = ("0.0.0.0/0".parse().unwrap(), Some(gateway.parse().unwrap()));
                let route = host::net::Route { to, index, gateway, metric };
                netlink.add_route(&route).await.unwrap();
            }
            let ways = Ways::default();
            let trust = Trust::default();
            let client = Client::new(&trust, Resolver::default()).unwrap().with_ways(ways.clone());
            let ask = || client.send(Request::get("http://198.51.100.1/", 100));
            let alone = ask().await.map(|_| ());
            ways.set(vec!["eth0".to_owned(), "eth1".to_owned()]);
            let (first, begun) = (ask().await, std::time::Instant::now());
            (alone, first.map(|a| a.status), ask().await.map(|a| a.status), begun.elapsed())
        });
        served.join().unwrap();
        asked
    });
    let (alone, first, again, took) = asked;
    assert!(alone.is_err(), "the kernel goes by the cheapest port");
    assert_eq!((first.unwrap(), again.unwrap()), (200, 200));
    assert!(took < Duration::from_secs(5), "the way that worked is the first one then: {took:?}");
    for name in ["node", "hole", "server"] {
        Namespace::remove(&dir.path().join(name)).unwrap();
    }
}
