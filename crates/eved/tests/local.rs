//! What someone near the node may change without the controller: a local profile server, and a local
//! operator console.

mod common;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use api::loc;
use api::lps::{self, Answer as Said, AppAction, AppCommand, Call, DeviceAction, DeviceCommand};
use api::lps::{Named, Told, signal};
use api::pb::config::{EdgeDevConfig, LocConfig, NetworkInstanceConfig};
use api::pb::profile::NetworkPortConfig;
use common::scripted::{Answer, SIGNING, Scripted, config, empty, golden, sign, told, vector};
use common::{Node, eventually};
use host::topics::{Table, Writer};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use model::desired::Addressing;
use model::reported::{AppNetworkStatus, Vif};
use model::services::Service;
use model::topic::{
    AppNetworks, Controller, DesiredApps, DesiredPorts, DesiredVolumes, LocalPowers, Only,
};
use tokio::net::TcpListener;

/// Of this machine, and not the one that everything else listens on.
const AT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);
const TOKEN: &str = "lps-token";
/// Everything is asked for as often as it may be.
const FAST: &[(&str, &str)] = &[
    ("timer.config.interval", "5"),
    ("timer.lps.profile.interval", "3"),
    ("timer.lps.radio.interval", "3"),
    ("timer.lps.appinfo.interval", "3"),
    ("timer.lps.appbootinfo.interval", "3"),
    ("timer.lps.devinfo.interval", "3"),
    ("timer.lps.network.interval", "3"),
];

/// Path and body.
type Asked = (String, Vec<u8>);
type Says = BTreeMap<&'static str, (Said, &'static str)>;

/// A local profile server that says what it is told to, with a token each.
#[derive(Clone)]
struct Server {
    port: u16,
    says: Arc<Mutex<Says>>,
    asked: Arc<Mutex<Vec<Asked>>>,
    signal: Arc<Mutex<String>>,
}

impl Server {
    async fn start() -> Server {
        let listener = TcpListener::bind((AT, 0)).await.unwrap();
        let server = Server {
            port: listener.local_addr().unwrap().port(),
            says: Arc::default(),
            asked: Arc::default(),
            signal: Arc::default(),
        };
        let all = server.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let server = all.clone();
                tokio::spawn(async move {
                    let serve = service_fn(move |request| server.clone().answer(request));
                    let http = hyper::server::conn::http1::Builder::new();
                    let _ = http.serve_connection(TokioIo::new(tcp), serve).await;
                });
            }
        });
        server
    }

    async fn answer(
        self,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect().await.map(|b| b.to_bytes()).unwrap_or_default();
        self.asked.lock().unwrap().push((path.clone(), body.to_vec()));
        let said = self.says.lock().unwrap().get(path.as_str()).cloned();
        let (status, body) = match said {
            Some((said, token)) => said.to_body(token),
            None if path == "/api/v1/signal" => {
                let line = std::mem::take(&mut *self.signal.lock().unwrap());
                (200, line.into_bytes())
            }
            None => (204, Vec::new()),
        };
        Ok(Response::builder().status(status).body(Full::new(Bytes::from(body))).unwrap())
    }

    fn say(&self, call: Call, said: Said, token: &'static str) {
        self.says.lock().unwrap().insert(call.path(), (said, token));
    }

    /// What was told with a call, the oldest first.
    fn told(&self, call: Call) -> Vec<Told> {
        let all = self.asked.lock().unwrap();
        let bodies = all.iter().filter(|(path, _)| path == call.path());
        bodies.map(|(_, body)| lps::read_request(call, body).unwrap()).collect()
    }
}

/// A config with one app, and this server in a local network of the node.
fn with_server(port: u16, items: &[(&str, &str)]) -> EdgeDevConfig {
    let mut config = told("container-app");
    config.config_items = empty(0, items).config_items;
    config.local_profile_server = format!("{AT}:{port}");
    config.profile_server_token = TOKEN.to_owned();
    for adapter in &mut config.system_adapter_list {
        adapter.allow_local_modifications = true;
    }
    let app = config.apps.first_mut().unwrap();
    app.fixedresources.as_mut().unwrap().virtualization_mode = 4;
    app.profile_list = vec!["day".to_owned()];
    config
}

/// As `eved netinst` would say once the server's app has its address.
fn has_an_address(node: &Node, network: &NetworkInstanceConfig) {
    let id = model::Id::new(uuid::Uuid::from_bytes([5; 16]));
    let vif = Vif {
        name: String::new(),
        network: network.uuidandversion.as_ref().unwrap().uuid.parse().unwrap(),
        host_interface: String::new(),
        app_interface: String::new(),
        mac: [0; 6],
        address: Some(AT),
    };
    let status = AppNetworkStatus {
        id,
        namespace: String::new(),
        dns: Vec::new(),
        ready: true,
        vifs: vec![vif],
        problem: None,
    };
    let mut writer = Writer::<AppNetworks>::open(&node.roots()).unwrap();
    writer.publish(Table::<AppNetworks>::from([(id, status)])).unwrap();
}

/// A controller, its node with a server beside it, and the server.
async fn beside(items: &[(&str, &str)]) -> (Scripted, Node, Server) {
    let server = Server::start().await;
    let config_told = with_server(server.port, items);
    let network = config_told.network_instances[0].clone();
    let payload = config("h1", config_told);
    let scripted = Scripted::start(move |asked| {
        (asked.path == "{id}/config").then(|| Answer::Signed(payload.clone(), SIGNING))
    })
    .await;
    let node = scripted.node();
    has_an_address(&node, &network);
    (scripted, node, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_profile_server_is_obeyed_by_its_token_alone() {
    if golden().is_none() {
        return;
    }
    let (scripted, node, server) = beside(FAST).await;
    server.say(Call::LocalProfile, Said::Profile("night".to_owned()), "another token");
    let services = node.start(&[Service::Onboard, Service::Config]);
    let runs = || node.table::<DesiredApps>().into_values().next().map(|app| app.activate);
    eventually("the app", || runs().filter(|r| *r)).await;
    // All of them were asked for, and none of what came counts.
    for call in [Call::Radio, Call::AppInfo, Call::AppBootInfo, Call::DevInfo, Call::Network] {
        eventually(call.path(), || (!server.told(call).is_empty()).then_some(())).await;
    }
    eventually("the profile, twice", || (server.told(Call::LocalProfile).len() >= 2).then_some(()))
        .await;
    assert_eq!(runs(), Some(true));

    server.say(Call::LocalProfile, Said::Profile("night".to_owned()), TOKEN);
    eventually("the app at rest", || runs().filter(|r| !*r)).await;
    let local = eventually("the profile in the status", || {
        Some(node.get::<Controller>(&Only)?.standing.local_profile).filter(|p| !p.is_empty())
    })
    .await;
    assert_eq!(local, "night");

    // It holds over a reboot without a controller and without a server.
    drop(services);
    node.reboot();
    scripted.rule(|_| Some(Answer::Status(503)));
    let _services = node.start(&[Service::Onboard, Service::Config]);
    eventually("the app at rest again", || runs().filter(|r| !*r)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_of_a_local_profile_server_are_done_once() {
    if golden().is_none() {
        return;
    }
    let (scripted, node, server) = beside(FAST).await;
    let services = node.start(&[Service::Onboard, Service::Config]);
    let app = || node.table::<DesiredApps>().into_values().next();
    let before = eventually("the app", app).await;
    let generation = || node.table::<DesiredVolumes>().into_values().next().unwrap().generation;
    let old = generation();
    let purge = |timestamp| {
        let app = Named::Id(before.id.to_string());
        Said::Apps(vec![AppCommand { app, timestamp, action: AppAction::Purge }])
    };
    server.say(Call::AppInfo, purge(5), TOKEN);
    eventually("the purge", || app().filter(|a| a.purge == before.purge + 1)).await;
    assert_eq!(generation(), old + 1);
    let asked = server.told(Call::AppInfo).len();
    eventually("the command again, twice", || {
        (server.told(Call::AppInfo).len() >= asked + 2).then_some(())
    })
    .await;
    assert_eq!(app().unwrap().purge, before.purge + 1);

    let command = DeviceCommand { timestamp: 9, action: DeviceAction::Reboot };
    server.say(Call::DevInfo, Said::Device(Some(command)), TOKEN);
    let power = eventually("the reboot", || node.get::<LocalPowers>(&Only)).await;
    assert!(!power.off);

    drop(services);
    node.reboot();
    let network = with_server(0, &[]).network_instances[0].clone();
    has_an_address(&node, &network);
    let asked = server.told(Call::DevInfo).len();
    let _services = node.start(&[Service::Onboard, Service::Config]);
    eventually("the command to the node again, twice", || {
        (server.told(Call::DevInfo).len() >= asked + 2).then_some(())
    })
    .await;
    assert_eq!(node.get::<LocalPowers>(&Only), None);
    assert_eq!(app().unwrap().purge, before.purge + 1);
    // The server hears that it was done.
    let last = server.told(Call::DevInfo).pop();
    let Some(Told::Device(info)) = last else { panic!("{last:?}") };
    assert_eq!(info.last_cmd_timestamp, 9);
    drop(scripted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_profile_server_sets_up_ports_until_it_has_no_such_call() {
    if golden().is_none() {
        return;
    }
    let items: Vec<_> = FAST.iter().copied().filter(|(k, _)| !k.contains("network")).collect();
    let (_scripted, node, server) = beside(&items).await;
    let port = NetworkPortConfig {
        logical_label: "eth0".into(),
        ip_addresses: vec!["192.0.2.7/24".into()],
        gateways: vec!["192.0.2.1".into()],
        ..Default::default()
    };
    let stranger = NetworkPortConfig { logical_label: "eth9".into(), ..port.clone() };
    server.say(Call::Network, Said::Ports(vec![port, stranger]), TOKEN);
    let _services = node.start(&[Service::Onboard, Service::Config]);
    let addressing = || Some(node.table::<DesiredPorts>().into_values().next()?.addressing);
    eventually("the fixed address", || addressing().filter(|a| matches!(a, Addressing::Static(_))))
        .await;

    // The next poll would be in a minute; a signal brings it at once.
    server.say(Call::Network, Said::NotThere, TOKEN);
    *server.signal.lock().unwrap() = signal::line(&[Call::Network]);
    eventually("the controller's word", || addressing().filter(|a| *a == Addressing::Dhcp)).await;
    let told = server.told(Call::Network);
    assert!(told.len() <= 4, "an hour between questions: {} were asked", told.len());
    let Some(Told::Network(info)) = told.last() else { panic!("{told:?}") };
    let local = info.local_config.as_ref().unwrap();
    assert!(local.ports[0].config_applied && !local.ports[1].config_applied);
    assert!(local.error_message.contains("eth9"), "{}", local.error_message);
}

/// A config in which only the time and the settings say which one it is, and a console.
fn beside_console(seconds: i64, port: u16) -> EdgeDevConfig {
    let mut config = with_server(0, &[("timer.config.interval", "5")]);
    config.local_profile_server.clear();
    config.config_timestamp.as_mut().unwrap().seconds = seconds;
    config.loc_config =
        Some(LocConfig { loc_url: format!("https://localhost:{port}"), ..Default::default() });
    config
}

/// As the controller makes it for a console, so that only this node can read it.
fn sealed(payload: &[u8], node: &Node) -> Vec<u8> {
    use api::cipher::{ExchangeKey, Sealer};
    let zcert = |name: &str| {
        let pem = vector(&format!("pki/{name}.cert.pem"));
        pem.strip_suffix(b"\n").unwrap_or(&pem).to_vec()
    };
    let key = ExchangeKey::from_pem(&vector("pki/controller-ecdh.key.pem")).unwrap();
    let controller = api::Certificate::from_pem(&zcert("controller-ecdh")).unwrap();
    let device = std::fs::read(node.persist().join("certs/ecdh.cert.pem")).unwrap();
    let device = api::Certificate::from_pem(&device).unwrap();
    let sealer = Sealer::new(&key, &controller, &device, "loc").unwrap();
    let signing = vector(&format!("pki/{SIGNING}.key.pem"));
    let (signing, cert) = (api::SigningKey::from_pem(&signing).unwrap(), zcert(SIGNING));
    let sender = api::Sender::controller(&signing, &cert);
    loc::protect(payload, &sender, Some((&sealer, [3; 16]))).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_console_stands_in_for_the_controller_until_that_is_back() {
    if golden().is_none() {
        return;
    }
    let console = Scripted::start(|_| Some(Answer::Status(503))).await;
    let first = config("h1", beside_console(1000, console.port()));
    let scripted = Scripted::start(move |asked| {
        (asked.path == "{id}/config").then(|| Answer::Signed(first.clone(), SIGNING))
    })
    .await;
    let node = scripted.node();
    let services = node.start(&[Service::Onboard, Service::Config]);
    let made = || {
        let made = node.get::<Controller>(&Only)?.config_timestamp?;
        node.table::<DesiredApps>().into_values().next().map(|app| (made.0 / 1000, app))
    };
    let (_, before) = eventually("the config", || made().filter(|(at, _)| *at == 1000)).await;
    assert_eq!(console.asked("{id}/compound-config").len(), 0);

    // The controller is gone. The console has a newer config, and a command of its own, which has no
    // number: the recorded one has none either.
    let payload = config("h2", beside_console(2000, console.port()));
    let body = |timestamp, protected: &[u8]| {
        let app = Named::Id(before.id.to_string());
        let command = AppCommand { app, timestamp: 0, action: AppAction::Restart };
        let commands = loc::Commands { apps: vec![command], ..Default::default() };
        loc::Compound::new(timestamp, Some(protected), commands).unwrap().to_body()
    };
    let said = body(77, &sealed(&payload, &node));
    console.rule(move |asked| {
        (asked.path == "{id}/compound-config").then(|| Answer::Body(said.clone()))
    });
    scripted.rule(|_| Some(Answer::Status(503)));
    let (_, app) =
        eventually("the console's config", || made().filter(|(at, _)| *at == 2000)).await;
    assert_eq!(app.restart, before.restart + 1);
    eventually("metrics or info at the console", || {
        (!console.asked("{id}/info").is_empty()).then_some(())
    })
    .await;
    eventually("the command acknowledged", || {
        let asked = console.asked("{id}/compound-config");
        let last = loc::Request::from_payload(&asked.last()?.payload).unwrap();
        (last.last_command == 77 && last.config.hash == "h2").then_some(())
    })
    .await;
    let status = node.get::<Controller>(&Only).unwrap();
    assert!(status.problem.is_some() && made().unwrap().1.restart == before.restart + 1);

    // What the console gave counts after a reboot without anybody, and the command is done.
    drop(services);
    node.reboot();
    console.rule(|_| Some(Answer::Status(503)));
    let _services = node.start(&[Service::Onboard, Service::Config]);
    let (_, app) = eventually("what was saved", || made().filter(|(at, _)| *at == 2000)).await;
    assert_eq!(app.restart, before.restart + 1);

    // An older one, or one that the console made itself, is none.
    for protected in [
        sign(&config("h0", beside_console(1500, console.port())), SIGNING),
        sign(&config("h9", beside_console(9000, console.port())), common::scripted::NEXT),
    ] {
        let said = body(77, &protected);
        console.rule(move |asked| {
            (asked.path == "{id}/compound-config").then(|| Answer::Body(said.clone()))
        });
        let asked = console.asked("{id}/compound-config").len();
        eventually("the console asked, twice", || {
            (console.asked("{id}/compound-config").len() >= asked + 2).then_some(())
        })
        .await;
        assert_eq!(made().map(|(at, _)| at), Some(2000));
    }

    // The controller is back, and the console is not asked any more.
    let third = config("h3", beside_console(3000, console.port()));
    scripted.rule(move |asked| {
        (asked.path == "{id}/config").then(|| Answer::Signed(third.clone(), SIGNING))
    });
    eventually("the controller's config", || made().filter(|(at, _)| *at == 3000)).await;
    eventually("info at the controller", || {
        (!scripted.asked("{id}/info").is_empty()).then_some(())
    })
    .await;
    let problem = || node.get::<Controller>(&Only).map(|c| c.problem);
    eventually("no trouble", || problem().filter(Option::is_none)).await;
}
