//! The service with a real kernel: an uplink, the node and its apps, each in a network namespace of
//! its own. Needs root.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::time::Instant;

use device::network::dhcp::{Message, ReplyKind};
use host::net::{Link, Namespace, Netlink};
use model::desired::{
    Action, Addressing, App, AppInterface, DhcpRange, Direction, DnsEntry, LocalNetwork, Match,
    NetworkInstance, NetworkKind, Port, PortName, PortSelector, Protocol, Rule, Virtualization,
};
use model::reported::{AppNetworkStatus, PortStatus};
use model::{AppId, Bytes, NetworkInstanceId};

use super::*;
use crate::dhcp::{CLIENT_PORT, SERVER_PORT, read_reply, write_request};

const UPLINK: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const PATIENCE: Duration = Duration::from_secs(20);
/// So long nothing must come for a packet to count as dropped.
const SILENCE: Duration = Duration::from_millis(600);

fn app_id(n: u32) -> AppId {
    format!("00000000-0000-4000-8000-0000000009{n:02}").parse().unwrap()
}

fn network_id() -> NetworkInstanceId {
    "00000000-0000-4000-8000-000000000800".parse().unwrap()
}

fn rule(matches: &[Match], action: Action) -> Rule {
    let mut matches = matches.to_vec();
    matches.insert(0, Match::Protocol(Protocol::Tcp));
    Rule { id: 1, matches, action, direction: Direction::Both }
}

fn app(n: u32, name: &str, rules: Vec<Rule>) -> App {
    App {
        id: app_id(n),
        version: "1".into(),
        name: name.into(),
        activate: true,
        vcpus: 1,
        memory: Bytes::mib(16),
        virtualization: Virtualization::Container,
        volumes: Vec::new(),
        interfaces: vec![AppInterface {
            name: "eth0".into(),
            network: network_id(),
            mac: None,
            address: None,
            rules,
            access_vlan: None,
            discover: false,
            order: 0,
        }],
        restart: 0,
        purge: 0,
        environment: Vec::new(),
        start_delay: Duration::ZERO,
        disable_logs: false,
        user_data: None,
        machine: Default::default(),
        hardware: Vec::new(),
        options: Default::default(),
    }
}

fn network() -> NetworkInstance {
    let local = LocalNetwork {
        subnet: "10.77.0.0/24".parse().unwrap(),
        gateway: GATEWAY,
        range: DhcpRange { start: Ipv4Addr::new(10, 77, 0, 2), end: Ipv4Addr::new(10, 77, 0, 9) },
        dns: Vec::new(),
        hosts: vec![DnsEntry { name: "db.local".into(), addresses: vec![[10, 77, 0, 200].into()] }],
    };
    NetworkInstance {
        id: network_id(),
        name: "net".into(),
        activate: true,
        kind: NetworkKind::Local(local),
        port: Some(PortSelector::Uplink),
        mtu: None,
        options: Default::default(),
    }
}

fn port() -> PortStatus {
    PortStatus {
        port: Port {
            name: PortName::new("uplink").unwrap(),
            interface: "eth0".into(),
            management: true,
            cost: 0,
            addressing: Addressing::Dhcp,
            mtu: None,
            below: String::new(),
            link: Default::default(),
            options: Default::default(),
        },
        link: true,
        mac: None,
        addresses: vec!["192.0.2.2/24".parse().unwrap()],
        gateway: Some(UPLINK),
        dns: vec![UPLINK.into()],
        ntp: Vec::new(),
        domain: None,
        lease: None,
        test: None,
        problem: None,
    }
}

/// Runs `act` on a runtime of its own inside a namespace.
fn inside<T: Send, F: Future<Output = T>>(
    namespace: &Namespace,
    act: impl FnOnce() -> F + Send,
) -> T {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(act())
    };
    namespace.enter(run).unwrap()
}

async fn ready(name: &str, address: &str) {
    let netlink = Netlink::connect().unwrap();
    for link in netlink.links().await.unwrap() {
        if link.name == name {
            netlink.add_address(link.index, address.parse().unwrap()).await.unwrap();
        }
        netlink.up(link.index).await.unwrap();
    }
}

fn links(namespace: &Namespace) -> Vec<Link> {
    inside(namespace, || async { Netlink::connect().unwrap().links().await.unwrap() })
}

/// The world around the service.
struct World {
    dir: tempfile::TempDir,
    node: Namespace,
    uplink: Namespace,
}

impl World {
    fn new() -> World {
        assert!(
            rustix::process::geteuid().is_root(),
            "this test makes network namespaces: run as root"
        );
        let dir = tempfile::tempdir().unwrap();
        let node = Namespace::open_or_make(&dir.path().join("node")).unwrap();
        let uplink = Namespace::open_or_make(&dir.path().join("uplink")).unwrap();
        inside(&node, || async {
            let netlink = Netlink::connect().unwrap();
            let mac = [2, 0, 0, 0, 7, 7];
            netlink.add_pair("eth0", "up0", mac, 1500, &uplink).await.unwrap();
            ready("eth0", "192.0.2.2/24").await;
        });
        inside(&uplink, || ready("up0", "192.0.2.1/24"));
        World { dir, node, uplink }
    }

    fn tell(&self, networks: &[NetworkInstance], apps: &[App]) {
        let (ctx, _) = Context::in_folder(model::services::Service::Netinst, self.dir.path());
        let roots = ctx.roots();
        let ports = Table::<Ports>::from([(port().port.name, port())]);
        Writer::<Ports>::open(&roots).unwrap().publish(ports).unwrap();
        let networks = networks.iter().map(|n| (n.id, n.clone())).collect();
        Writer::<DesiredNetworkInstances>::open(&roots).unwrap().publish(networks).unwrap();
        let apps = apps.iter().map(|a| (a.id, a.clone())).collect();
        Writer::<DesiredApps>::open(&roots).unwrap().publish(apps).unwrap();
    }

    /// Runs the service while `check` looks. A check that fails does not leave it running.
    fn while_it_runs(&self, check: impl FnOnce()) {
        let (ctx, stop) = Context::in_folder(model::services::Service::Netinst, self.dir.path());
        let (done, ended) = std::thread::scope(|scope| {
            let service = scope.spawn(|| inside(&self.node, || run(ctx)));
            let done = catch_unwind(AssertUnwindSafe(check));
            stop.send_replace(true);
            (done, service.join().unwrap())
        });
        if let Err(failure) = done {
            resume_unwind(failure);
        }
        ended.unwrap();
    }

    fn status(&self, n: u32) -> Option<AppNetworkStatus> {
        let (ctx, _) = Context::in_folder(model::services::Service::Netinst, self.dir.path());
        Reader::<AppNetworks>::open(&ctx.roots()).get(&app_id(n))
    }

    /// The namespace of an app, once its network is ready.
    fn app(&self, n: u32) -> (Namespace, AppNetworkStatus) {
        let status = eventually("the network of the app", || {
            let status = self.status(n)?;
            assert_eq!(status.problem, None);
            status.ready.then_some(status)
        });
        (Namespace::open(Path::new(&status.namespace)).unwrap(), status)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for folder in ["netns", ""] {
            let names = std::fs::read_dir(self.dir.path().join(folder)).into_iter().flatten();
            for name in names.flatten().filter(|n| n.file_type().is_ok_and(|t| t.is_file())) {
                let _ = Namespace::remove(&name.path());
            }
        }
    }
}

#[track_caller]
fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if let Some(seen) = look() {
            return seen;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("{what} did not come within {PATIENCE:?}");
}

fn listen(namespace: &Namespace, port: u16) -> TcpListener {
    namespace.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap()).unwrap()
}

/// What the listener sees of the caller, if the call comes through.
fn call(from: &Namespace, to: (Ipv4Addr, u16), listener: &TcpListener) -> Option<IpAddr> {
    let mut out =
        from.enter(|| TcpStream::connect_timeout(&SocketAddr::from(to), SILENCE)).unwrap().ok()?;
    let (mut heard, peer) = listener.accept().unwrap();
    out.write_all(b"hello").unwrap();
    let mut word = [0; 5];
    heard.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"hello");
    Some(peer.ip())
}

/// Whether a datagram with this sender arrives.
fn arrives(from: &Namespace, sender: Ipv4Addr, at: &UdpSocket) -> bool {
    let socket = from.enter(|| UdpSocket::bind((sender, 0)).unwrap()).unwrap();
    socket.send_to(b"hello", at.local_addr().unwrap()).unwrap();
    at.set_read_timeout(Some(SILENCE)).unwrap();
    at.recv(&mut [0; 16]).is_ok()
}

/// The addresses in the answer of the network's DNS to a question for A.
fn resolve(from: &Namespace, name: &str) -> Vec<Ipv4Addr> {
    let mut question = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(u8::try_from(label.len()).unwrap());
        question.extend(label.bytes());
    }
    question.extend([0, 0, 1, 0, 1]);
    let socket = from.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send_to(&question, (GATEWAY, 53)).unwrap();
    let mut buffer = [0; 512];
    let length = socket.recv(&mut buffer).unwrap();
    assert_eq!(buffer[..2], [0x12, 0x34]);
    // Every record we can get here is an address behind a pointer or a name: its last four bytes.
    match u16::from_be_bytes([buffer[6], buffer[7]]) {
        0 => Vec::new(),
        _ => {
            let last: [u8; 4] = buffer[length - 4..length].try_into().unwrap();
            vec![last.into()]
        }
    }
}

/// A DNS server that knows one address for everything.
fn answer_names(socket: &UdpSocket, stop: &std::sync::atomic::AtomicBool) {
    let mut buffer = [0; 512];
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
        match socket.recv_from(&mut buffer) {
            Ok((length, client)) => {
                let mut answer = buffer[..length].to_vec();
                answer[2] |= 0x80;
                answer[7] = 1;
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
                answer.extend(UPLINK.octets());
                socket.send_to(&answer, client).unwrap();
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(e) => panic!("{e}"),
        }
    }
}

#[test]
fn an_app_is_reached_goes_out_and_gets_no_further_than_its_rules() {
    let world = World::new();
    let ip = |net: &str| Match::Ip(net.parse().unwrap());
    let web = app(
        1,
        "web",
        vec![
            rule(&[Match::LocalPort(8080)], Action::PortMap { app_port: 80 }),
            rule(&[ip("192.0.2.1/32"), Match::RemotePort(9000)], Action::Allow),
            rule(&[Match::Host("example.org".into()), Match::RemotePort(9002)], Action::Allow),
            Rule {
                matches: vec![Match::Protocol(Protocol::Udp), Match::RemotePort(9003)],
                ..rule(&[], Action::Allow)
            },
            rule(&[ip("10.77.0.0/24"), Match::RemotePort(7000)], Action::Allow),
            rule(&[ip("10.77.0.0/24"), Match::RemotePort(7001)], Action::Allow),
        ],
    );
    let from_web = rule(&[ip("10.77.0.0/24"), Match::LocalPort(7000)], Action::Allow);
    world.tell(&[network()], &[web, app(2, "db", vec![from_web])]);
    let dns = world.uplink.enter(|| UdpSocket::bind((UPLINK, 53)).unwrap()).unwrap();
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| answer_names(&dns, &over));
        let checked = catch_unwind(AssertUnwindSafe(|| {
            world.while_it_runs(|| {
                let ((web, status), (db, db_status)) = (world.app(1), world.app(2));
                let address = status.vifs[0].address.unwrap();
                assert_eq!(status.dns, [GATEWAY]);

                let page = listen(&web, 80);
                let seen = call(&world.uplink, (NODE, 8080), &page);
                assert_eq!(seen, Some(UPLINK.into()), "a port map leads to the app");

                let server = listen(&world.uplink, 9000);
                let seen = call(&web, (UPLINK, 9000), &server);
                assert_eq!(seen, Some(NODE.into()), "who goes out hides behind the node");
                let server = listen(&world.uplink, 9001);
                assert_eq!(call(&web, (UPLINK, 9001), &server), None, "no rule, no way");

                assert_eq!(resolve(&web, "web"), [address]);
                assert_eq!(resolve(&web, "db.local"), [Ipv4Addr::new(10, 77, 0, 200)]);
                assert_eq!(resolve(&web, "wpad"), [] as [Ipv4Addr; 0]);
                let server = listen(&world.uplink, 9002);
                assert_eq!(call(&web, (UPLINK, 9002), &server), None, "a name is not known yet");
                assert_eq!(resolve(&web, "www.example.org"), [UPLINK]);
                let seen = call(&web, (UPLINK, 9002), &server);
                assert_eq!(seen, Some(NODE.into()), "a rule by name lets what DNS said pass");

                let other = db_status.vifs[0].address.unwrap();
                let seen = call(&web, (other, 7000), &listen(&db, 7000));
                assert_eq!(seen, Some(address.into()), "apps reach each other if both may");
                let closed = listen(&db, 7001);
                assert_eq!(call(&web, (other, 7001), &closed), None, "the receiver may not");

                let ear = world.uplink.enter(|| UdpSocket::bind((UPLINK, 9003)).unwrap()).unwrap();
                let stolen = format!("{address}/24");
                inside(&db, || ready("eth0", &stolen));
                assert!(!arrives(&db, address, &ear), "nobody speaks for another app");
                assert!(arrives(&web, address, &ear), "who it is may");

                let node = listen(&world.node, 22);
                assert_eq!(call(&world.uplink, (NODE, 22), &node), None, "the node is closed");
                assert_eq!(call(&web, (GATEWAY, 22), &node), None, "for apps too");
            });
        }));
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        if let Err(failure) = checked {
            resume_unwind(failure);
        }
    });
}

#[test]
fn dhcp_gives_an_app_the_address_that_it_has() {
    let world = World::new();
    world.tell(&[network()], &[app(1, "web", Vec::new())]);
    world.while_it_runs(|| {
        let (inside, status) = world.app(1);
        let vif = &status.vifs[0];
        let socket =
            inside.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, CLIENT_PORT)).unwrap());
        let socket = socket.unwrap();
        socket.set_broadcast(true).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let ask = |message: &Message, mac| {
            eventually("an answer of DHCP", || {
                let bytes = write_request(message, 42, mac);
                socket.send_to(&bytes, (Ipv4Addr::BROADCAST, SERVER_PORT)).unwrap();
                let mut buffer = [0; 2048];
                let length = socket.recv(&mut buffer).ok()?;
                read_reply(&buffer[..length], mac)
            })
        };
        let offer = ask(&Message::Discover, vif.mac);
        assert_eq!((offer.kind, Some(offer.address)), (ReplyKind::Offer, vif.address));
        let address = offer.address;
        let ack = ask(&Message::Request { address, server: GATEWAY }, vif.mac);
        assert_eq!((ack.kind, ack.address, ack.prefix), (ReplyKind::Ack, address, Some(24)));
        assert_eq!((ack.gateway, ack.dns), (Some(GATEWAY), vec![GATEWAY.into()]));

        let guest = [2, 0, 0, 0, 0, 99];
        let other = ask(&Message::Discover, guest).address;
        assert_ne!(other, address);
        ask(&Message::Request { address: other, server: GATEWAY }, guest);
        let saved = world.dir.path().join("persist/netinst").join(GUESTS);
        eventually("the guest's lease on the disk", || {
            let guests = guests_from_bytes(&std::fs::read(&saved).ok()?).ok()?;
            (guests.get(&network_id())?.held.first()?.address == other).then_some(())
        });
    });
}

#[test]
fn a_restart_keeps_what_is_there_and_what_nobody_wants_goes() {
    let world = World::new();
    let both = [app(1, "web", Vec::new()), app(2, "db", Vec::new())];
    world.tell(&[network()], &both);
    let ours = |world: &World| {
        let mut all: Vec<(String, u32)> =
            links(&world.node).into_iter().map(|l| (l.name, l.index)).collect();
        all.retain(|(name, _)| device::netinst::ops::is_ours(name));
        all
    };
    let mut before = Vec::new();
    world.while_it_runs(|| {
        world.app(1);
        world.app(2);
        before = ours(&world);
        assert_eq!(before.len(), 3);
    });
    assert_eq!(ours(&world), before, "networks outlive the service");
    let (ctx, _) = Context::in_folder(model::services::Service::Netinst, world.dir.path());
    world.tell(&[network()], &both[1..]);
    world.while_it_runs(|| {
        eventually("the end of an app's network", || world.status(1).is_none().then_some(()));
        let left = ours(&world);
        assert_eq!(left.len(), 2);
        assert!(left.iter().all(|link| before.contains(link)), "the others are not touched");
        world.tell(&[], &[]);
        let networks = Reader::<NetworkInstances>::open(&ctx.roots());
        eventually("the end of all", || {
            (world.status(2).is_none() && networks.read().is_empty()).then_some(())
        });
        assert_eq!(ours(&world), []);
        let names = std::fs::read_dir(world.dir.path().join("netns")).unwrap();
        assert_eq!(names.count(), 0);
    });
}
