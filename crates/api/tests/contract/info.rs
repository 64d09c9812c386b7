//! Info and metrics: what a node says of itself is what a controller shows.

use std::collections::BTreeMap;
use std::time::Duration;

use api::convert::info::{self, AppFacts, DeviceFacts, Gone, Machine};
use api::convert::view::{self, Report};
use api::convert::{items, metrics};
use api::pb::info::{ZInfoApp, ZInfoMsg, ZInfoTypes, ZSwState, z_info_msg::InfoContent};
use api::{Certificate, Signer, envelope, limits, wire};
use expect_test::expect;
use model::desired::{
    Addressing, ObjectKind, Origin, Port, PortName, Power, Properties, Refused, Volume,
};
use model::reported::{
    AppNetworkStatus, AppState, AppStatus, AppUse, Boot, BootReason, ConfigSource, ContentState,
    ContentStatus, ControllerStatus, Lease, LogStatus, NetworkInstanceStatus, PortStatus, PortTest,
    Resources, ServiceUse, TimelineMark, Vif, VolumeKind, VolumeState, VolumeStatus,
};
use model::services::Service;
use model::{
    AppId, Bytes, ContentId, DeviceId, Diagnosis, Digest, NetworkInstanceId, Problem, UnixMillis,
    VolumeId, Who,
};

use crate::common::{T0, golden, vector};

fn own() -> DeviceId {
    "6ba7b810-9dad-41d1-80b4-00c04fd430c8".parse().unwrap()
}
fn content_id() -> ContentId {
    "00000000-0000-4000-8000-000000000030".parse().unwrap()
}
fn volume_id() -> VolumeId {
    "00000000-0000-4000-8000-000000000040".parse().unwrap()
}
fn network_id() -> NetworkInstanceId {
    "00000000-0000-4000-8000-000000000050".parse().unwrap()
}
fn app_id() -> AppId {
    "00000000-0000-4000-8000-000000000060".parse().unwrap()
}

fn problem(text: &str, who: Who) -> Problem {
    Problem::new(text, Diagnosis::of(who, "do it"), T0)
}

fn app_status(state: AppState) -> AppStatus {
    AppStatus {
        id: app_id(),
        version: "7".to_owned(),
        name: "web".to_owned(),
        disable_logs: false,
        state,
        running_since: Some(T0),
        starts: 1,
        restart: 0,
        purge: 0,
        volumes: vec![volume_id()],
        mounted: Vec::new(),
        used: AppUse { cpu_ns: 2_500_000_000, memory: Bytes::kib(1500) },
        problem: None,
    }
}

fn app_network() -> AppNetworkStatus {
    AppNetworkStatus {
        id: app_id(),
        namespace: String::new(),
        dns: Vec::new(),
        ready: true,
        vifs: vec![Vif {
            name: "indirect".to_owned(),
            network: network_id(),
            host_interface: "nbu1x1".to_owned(),
            app_interface: "eth0".to_owned(),
            mac: [2, 0x16, 0x3e, 0, 0, 1],
            address: Some([10, 11, 12, 2].into()),
        }],
        problem: None,
    }
}

fn wanted_volume() -> Volume {
    Volume {
        id: volume_id(),
        generation: 0,
        name: "root".to_owned(),
        origin: Origin::Content(content_id()),
        max_size: Some(Bytes::gib(1)),
        readonly: false,
        clear_text: false,
        target: Default::default(),
    }
}

fn volume_status(state: VolumeState) -> VolumeStatus {
    let name = "root".to_owned();
    VolumeStatus { id: volume_id(), generation: 0, name, state, problem: None }
}

fn content_status(state: ContentState) -> ContentStatus {
    ContentStatus { id: content_id(), name: "image".to_owned(), state, problem: None }
}

/// The tables around one app.
struct World {
    app: AppStatus,
    network: AppNetworkStatus,
    wanted: BTreeMap<VolumeId, Volume>,
    volumes: BTreeMap<VolumeId, VolumeStatus>,
    contents: BTreeMap<ContentId, ContentStatus>,
}

impl World {
    fn new(app: AppState, volume: VolumeState, content: ContentState) -> World {
        World {
            app: app_status(app),
            network: app_network(),
            wanted: [(volume_id(), wanted_volume())].into(),
            volumes: [(volume_id(), volume_status(volume))].into(),
            contents: [(content_id(), content_status(content))].into(),
        }
    }

    fn facts(&self) -> AppFacts<'_> {
        AppFacts {
            status: &self.app,
            network: Some(&self.network),
            wanted_volumes: &self.wanted,
            volumes: &self.volumes,
            contents: &self.contents,
        }
    }

    fn view(&self, at: UnixMillis) -> view::AppView {
        match view::info(&info::app(own(), at, &self.facts())).unwrap().report {
            Report::App(app) => app,
            other => panic!("{other:?}"),
        }
    }
}

fn loaded() -> ContentState {
    ContentState::Loaded { digest: Digest([1; 32]), size: Bytes(9) }
}

fn ready() -> VolumeState {
    VolumeState::Ready(VolumeKind::Folder { path: "/x".to_owned() })
}

#[test]
fn the_state_of_an_app_is_that_of_its_slowest_volume_until_it_is_installed() {
    use AppState::*;
    let now = Downloading { done: Bytes(1), total: Bytes(2) };
    use ContentState::{Downloading, Initial, Resolving, Verifying};
    for (app, volume, content, want) in [
        (AwaitingVolumes, VolumeState::AwaitingContent, Initial, ZSwState::Initial),
        (AwaitingVolumes, VolumeState::AwaitingContent, Resolving, ZSwState::ResolvingTag),
        (AwaitingVolumes, VolumeState::AwaitingContent, now, ZSwState::DownloadStarted),
        (AwaitingVolumes, VolumeState::AwaitingContent, Verifying, ZSwState::Verifying),
        (AwaitingVolumes, VolumeState::AwaitingContent, loaded(), ZSwState::Loaded),
        (AwaitingVolumes, VolumeState::Creating, loaded(), ZSwState::CreatingVolume),
        (AwaitingVolumes, ready(), loaded(), ZSwState::CreatedVolume),
        (Installed, ready(), loaded(), ZSwState::Installed),
        (AwaitingNetwork, ready(), loaded(), ZSwState::Awaitnetworkinstance),
        (StartDelayed, ready(), loaded(), ZSwState::StartDelayed),
        (Booting, ready(), loaded(), ZSwState::Booting),
        (Running, ready(), loaded(), ZSwState::Running),
        (Ended { status: 1, again: T0 }, ready(), loaded(), ZSwState::Halted),
        (Halting, ready(), loaded(), ZSwState::Halting),
        (Halted, ready(), loaded(), ZSwState::Halted),
        (Restarting, ready(), loaded(), ZSwState::Restarting),
        (Purging, ready(), loaded(), ZSwState::Purging),
        (Broken, ready(), loaded(), ZSwState::Error),
    ] {
        let world = World::new(app, volume, content);
        assert_eq!(info::app_state(&world.facts()), want, "{:?}", world.app.state);
    }
    let mut world = World::new(AwaitingVolumes, ready(), loaded());
    world.volumes.clear();
    assert_eq!(info::app_state(&world.facts()), ZSwState::Initial);
}

#[test]
fn an_app_is_shown_as_it_is() {
    let world = World::new(AppState::Running, ready(), loaded());
    let app = world.view(T0);
    assert_eq!(
        (app.state.as_str(), app.name.as_str(), app.version.as_str()),
        ("running", "web", "7")
    );
    assert_eq!(app.running_since, Some(T0));
    assert_eq!(app.interfaces[0].addresses, ["10.11.12.2"]);
    assert_eq!(app.interfaces[0].mac, "02:16:3e:00:00:01");
    assert!(app.interfaces[0].up);
    assert_eq!(app.errors, []);
}

#[test]
fn what_stands_in_the_way_of_an_app_is_named_with_its_object() {
    let mut world =
        World::new(AppState::AwaitingVolumes, VolumeState::AwaitingContent, ContentState::Initial);
    let content = world.contents.values_mut().next().unwrap();
    let mut away = problem("cannot reach the registry", Who::Network);
    away.diagnosis.retry_in = Some(Duration::from_secs(600));
    content.problem = Some(away);
    world.network.problem = Some(problem("no such network", Who::Operator));
    let hours = |n: u64| UnixMillis(T0.0 + n * 3_600_000);
    let lines = |at| {
        let line = |e: view::ErrorView| {
            format!("{} {} {:?} {}\n", e.severity, e.text, e.entities, e.retry)
        };
        world.view(at).errors.into_iter().map(line).collect::<String>()
    };
    expect![[r#"
        error no such network (operator: do it) [("app instance", "00000000-0000-4000-8000-000000000060", "web")] 
        notice cannot reach the registry (network: do it) [("content tree", "00000000-0000-4000-8000-000000000030", "image")] tried again in 10 min
    "#]]
    .assert_eq(&lines(hours(0)));
    assert!(lines(hours(2)).contains("warning cannot reach"));
    assert!(lines(hours(11)).contains("error cannot reach"));
}

#[test]
fn an_app_that_ended_says_so() {
    let again = UnixMillis(T0.0 + 10_000);
    let world = World::new(AppState::Ended { status: 137, again }, ready(), loaded());
    let [error] = &world.view(T0).errors[..] else { panic!() };
    assert_eq!(error.text, "the app ended with status 137");
    assert_eq!(
        (error.severity.as_str(), error.retry.as_str()),
        ("warning", "started again in 10 s")
    );
}

#[test]
fn the_end_of_an_object_is_its_id_alone() {
    for (object, kind, id) in [
        (Gone::App(app_id()), "app", app_id().to_string()),
        (Gone::NetworkInstance(network_id()), "network_instance", network_id().to_string()),
        (Gone::Volume(volume_id()), "volume", volume_id().to_string()),
        (Gone::Content(content_id()), "content", content_id().to_string()),
    ] {
        let got = view::info(&info::gone(own(), T0, object)).unwrap();
        assert_eq!(got.device, own());
        assert_eq!(got.report, Report::Gone { kind: kind.to_owned(), id });
    }
}

#[test]
fn refused_objects_are_shown_with_their_error() {
    let refused = |kind| Refused {
        kind,
        id: "not-a-uuid".to_owned(),
        name: "web".to_owned(),
        text: "field: why".to_owned(),
    };
    let view =
        |kind| view::info(&info::refused(own(), T0, &refused(kind)).unwrap()).unwrap().report;
    let Report::App(app) = view(ObjectKind::App) else { panic!() };
    assert_eq!((app.state.as_str(), app.errors[0].text.as_str()), ("error", "field: why"));
    assert_eq!(app.errors[0].entities[0].1, "not-a-uuid");
    let Report::NetworkInstance(network) = view(ObjectKind::NetworkInstance) else { panic!() };
    assert_eq!(network.errors[0].text, "field: why");
    let Report::Volume(volume) = view(ObjectKind::Volume) else { panic!() };
    assert_eq!(volume.error.unwrap().text, "field: why");
    let Report::Content(content) = view(ObjectKind::Content) else { panic!() };
    assert_eq!(content.error.unwrap().text, "field: why");
    assert!(info::refused(own(), T0, &refused(ObjectKind::Port)).is_none());
}

#[test]
fn networks_volumes_and_contents_are_shown_as_they_are() {
    let status = NetworkInstanceStatus {
        id: network_id(),
        name: "local".to_owned(),
        active: true,
        bridge: "bn3".to_owned(),
        port: PortName::new("eth0"),
        gateway: Some([10, 11, 12, 1].into()),
        leases: vec![Lease {
            app: Some(app_id()),
            mac: [2, 0, 0, 0, 0, 1],
            address: [10, 11, 12, 2].into(),
        }],
        problem: None,
    };
    let payload = info::network_instance(own(), T0, &status, None, [&app_network()]);
    let Report::NetworkInstance(network) = view::info(&payload).unwrap().report else { panic!() };
    assert!(network.active);
    assert_eq!((network.bridge.as_str(), network.gateway.as_str()), ("bn3", "10.11.12.1"));
    assert_eq!(network.ports, ["eth0"]);
    assert_eq!(network.leases, [("02:00:00:00:00:01".to_owned(), vec!["10.11.12.2".to_owned()])]);
    let raw: ZInfoMsg = wire::decode(&payload, limits::INFO).unwrap();
    let Some(InfoContent::Niinfo(raw)) = raw.info_content else { panic!() };
    assert_eq!((raw.bridge_num, raw.vifs[0].app_id.clone()), (3, app_id().to_string()));

    let half = content_status(ContentState::Downloading { done: Bytes(50), total: Bytes(200) });
    let volume = volume_status(VolumeState::AwaitingContent);
    let payload = info::volume(own(), T0, &volume, Some(&wanted_volume()), Some(&half), None);
    let Report::Volume(volume) = view::info(&payload).unwrap().report else { panic!() };
    assert_eq!((volume.state.as_str(), volume.progress), ("downloading", 25));
    let payload = info::content(own(), T0, &content_status(loaded()));
    let Report::Content(content) = view::info(&payload).unwrap().report else { panic!() };
    assert_eq!((content.state.as_str(), content.progress), ("loaded", 100));
    assert_eq!((content.sha256, content.size), ("01".repeat(32), Bytes(9)));
}

fn boot() -> Boot {
    let mark = |what: &str, at_ms| TimelineMark { what: what.to_owned(), at_ms };
    Boot {
        reason: BootReason::PowerFail,
        detail: "power went away".to_owned(),
        count: 4,
        started: T0,
        timeline: vec![mark("init", 900), mark("onboarded", 4000)],
        version: "0.1.0-abc".to_owned(),
        slot: "IMGA".to_owned(),
    }
}

fn port_status() -> PortStatus {
    PortStatus {
        port: Port {
            name: PortName::new("eth0").unwrap(),
            interface: "enp1s0".to_owned(),
            management: true,
            cost: 0,
            addressing: Addressing::Dhcp,
            mtu: None,
            below: String::new(),
            link: Default::default(),
            options: Default::default(),
        },
        link: true,
        mac: Some([2, 0, 0, 0, 0, 7]),
        addresses: vec!["192.0.2.10/24".parse().unwrap()],
        gateway: Some([192, 0, 2, 1].into()),
        dns: vec![],
        ntp: vec![],
        domain: None,
        lease: None,
        test: Some(PortTest { at: T0, failure: None }),
        problem: None,
    }
}

#[test]
fn a_node_is_shown_as_it_is() {
    let machine = Machine {
        arch: "x86_64".to_owned(),
        cpus: 2,
        memory: Bytes::gib(1),
        storage: Bytes::gib(4),
        manufacturer: "QEMU".to_owned(),
        product: "Q35".to_owned(),
        serial: "SN".to_owned(),
        ..Machine::default()
    };
    let port = port_status();
    let controller = ControllerStatus {
        server: "c".to_owned(),
        last_contact: Some(T0),
        problem: None,
        node_name: "gate".to_owned(),
        forgotten: false,
        standing: Default::default(),
        config: ConfigSource::Controller,
        config_timestamp: Some(T0),
        refused: vec![Refused {
            kind: ObjectKind::Port,
            id: "eth9".to_owned(),
            name: String::new(),
            text: "field: why".to_owned(),
        }],
    };
    let list: BTreeMap<String, String> =
        [("timer.config.interval", "4"), ("timer.metric.interval", "7")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into();
    let properties = items::properties(&list, &Properties::default(), T0);
    let facts = DeviceFacts {
        machine: &machine,
        boot: &boot(),
        ports: &[port],
        controller: &controller,
        properties: &properties,
        items: &list,
        power: Power { reboot: Some(3), shutdown: None },
    };
    let got = view::info(&info::device(own(), T0, &facts)).unwrap();
    assert_eq!((got.device, got.at), (own(), Some(T0)));
    let Report::Device(device) = got.report else { panic!() };
    assert_eq!((device.state.as_str(), device.arch.as_str(), device.cpus), ("online", "x86_64", 2));
    assert_eq!((device.memory, device.storage), (Bytes::gib(1), Bytes::gib(4)));
    assert_eq!((device.version.as_str(), device.slot.as_str()), ("0.1.0-abc", "IMGA"));
    assert_eq!((device.boot_reason.as_str(), device.boots), ("power fail", 4));
    assert_eq!((device.booted, device.config_timestamp), (Some(T0), Some(T0)));
    assert_eq!((device.reboot_counter, device.shutdown_counter), (3, 0));
    assert_eq!(device.ports[0].addresses, ["192.0.2.10"]);
    assert!(device.ports[0].up && device.ports[0].management && device.ports[0].error.is_none());
    assert_eq!(device.ports[1].error.as_ref().unwrap().text, "field: why");
    assert_eq!(device.port_error, "eth9: field: why");
    assert_eq!(device.items["timer.config.interval"].1, "\"4\" is not 5 to 86400");
    assert_eq!(device.items["timer.metric.interval"], ("7".to_owned(), String::new()));
}

#[test]
fn metrics_arrive_with_services_apps_and_timeline() {
    let resources = Resources {
        services: vec![ServiceUse {
            service: Service::Network,
            pid: 77,
            pss: Bytes(3_000_001),
            pss_peak: Bytes(4_000_001),
            starts: 2,
        }],
        memory_total: Bytes::mib(1024),
        memory_available: Bytes::mib(600),
        cpu_ns: 5_000_000_001,
        persist_total: Bytes::gib(2),
        persist_used: Bytes::mib(100),
    };
    let counts = Default::default();
    let logs = LogStatus { queued: 1, sent: 2, dropped_lines: 3, problem: None, counts };
    let apps = [app_status(AppState::Running)];
    let facts = metrics::Facts {
        resources: &resources,
        boot: &boot(),
        apps: &apps,
        logs: &logs,
        config: &Default::default(),
    };
    let got = view::metrics(&metrics::message(own(), T0, &facts)).unwrap();
    assert_eq!((got.device, got.at), (own(), Some(T0)));
    assert_eq!((got.memory_used, got.memory_available), (Bytes::mib(424), Bytes::mib(600)));
    assert_eq!(got.cpu_ns, 5_000_000_001);
    let [service] = &got.services[..] else { panic!() };
    assert_eq!((service.name.as_str(), service.pid, service.starts), ("network", 77, 2));
    assert_eq!((service.memory, service.memory_peak), (Bytes(3_000_001), Bytes(4_000_001)));
    let [app] = &got.apps[..] else { panic!() };
    assert_eq!((app.memory, app.cpu_ns), (Bytes::mib(2), 2_500_000_000));
    assert_eq!(got.timeline, [("init".to_owned(), 900), ("onboarded".to_owned(), 4000)]);
    assert_eq!(got.dropped_lines, 3);
}

/// What is measured arrives: of ports, apps, networks, volumes, disks, calls and log files.
#[test]
fn metrics_arrive_with_what_is_measured() {
    use model::reported::*;
    let way = |n| Way { bytes: Bytes(n), packets: n / 10, errors: n / 100, drops: n / 200 };
    let traffic = |n| Traffic { received: way(n), sent: way(2 * n) };
    let apps = [app_status(AppState::Running)];
    let app = apps[0].id;
    let vif = |host: &str| Vif {
        name: "eth".to_owned(),
        network: network_id(),
        host_interface: host.to_owned(),
        app_interface: "eth0".to_owned(),
        mac: [2; 6],
        address: None,
    };
    let network = AppNetworkStatus {
        id: app,
        namespace: String::new(),
        dns: Vec::new(),
        ready: true,
        vifs: vec![vif("nbu1x1"), vif("nbu2x1")],
        problem: None,
    };
    let instance = NetworkInstanceStatus {
        id: network_id(),
        name: "local".to_owned(),
        active: true,
        bridge: "bn1".to_owned(),
        port: None,
        gateway: None,
        leases: Vec::new(),
        problem: None,
    };
    let used = ServiceUse {
        service: Service::Network,
        pid: 77,
        pss: Bytes::mib(10),
        pss_peak: Bytes::mib(10),
        starts: 1,
    };
    let resources = Resources {
        services: vec![used],
        memory_total: Bytes::mib(1000),
        memory_available: Bytes::mib(600),
        cpu_ns: 0,
        persist_total: Bytes::gib(2),
        persist_used: Bytes::mib(100),
    };
    let process = ProcessUse {
        threads: 3,
        user_ms: 1500,
        system_ms: 500,
        started_ms: 1000,
        virtual_size: Bytes::mib(30),
    };
    let sda = DiskTraffic {
        device: "sda".to_owned(),
        size: Bytes::gib(3),
        read: Bytes::mib(5),
        reads: 6,
        written: Bytes::mib(7),
        writes: 8,
    };
    let mut calls = CallCounts::default();
    calls.note("https://c/info", 10, Some((201, 2)), std::time::Duration::from_millis(9), T0);
    let counts = LogCounts {
        too_many: 2,
        calls: [("eth0".to_owned(), calls.clone())].into(),
        ..Default::default()
    };
    let logs = LogStatus { queued: 1, sent: 2, dropped_lines: 3, problem: None, counts };
    let boot = boot();
    let facts = metrics::Facts {
        resources: &resources,
        boot: &boot,
        apps: &apps,
        logs: &logs,
        config: &Default::default(),
    };
    let state = VolumeState::Ready(VolumeKind::Folder { path: String::new() });
    let measured = metrics::Measured {
        told: None,
        ports: vec![port_status()],
        traffic: [("enp1s0", 1000), ("nbu1x1", 3000), ("nbu2x1", 5000), ("lo", 1)]
            .map(|(name, n)| (name.to_owned(), traffic(n)))
            .into(),
        app_networks: [(app, network)].into(),
        instances: [(network_id(), instance)].into(),
        volumes: [(volume_id(), volume_status(state))].into(),
        volume_use: [(volume_id(), Bytes::mib(9))].into(),
        disks: vec![sda.clone()],
        persist: Some(DiskTraffic { device: "sda9".to_owned(), ..sda }),
        processes: [(77, process)].into(),
        calls: [("eth0".to_owned(), calls)].into(),
    };
    let at = boot.started.after(std::time::Duration::from_secs(21));
    let payload = metrics::whole(own(), at, &facts, &measured);
    let got = view::metrics(&payload).unwrap();
    let [port] = &got.networks[..] else { panic!("{:?}", got.networks) };
    assert_eq!(
        (port.received, port.sent, port.errors, port.dropped),
        (Bytes(1000), Bytes(2000), 30, 15)
    );
    let [first, second] = &got.apps[0].networks[..] else { panic!() };
    assert_eq!((first.received, first.sent), (Bytes(6000), Bytes(3000)), "as the app has it");
    assert_eq!(second.sent, Bytes(5000));
    let [instance] = &got.instances[..] else { panic!() };
    assert_eq!(
        (instance.received, instance.sent),
        (Bytes(8000), Bytes(16_000)),
        "as the network has it"
    );
    assert_eq!((got.volumes[0].used, got.apps[0].disks[0].used), (Bytes::mib(9), Bytes::mib(9)));
    let [persist, disk] = &got.disks[..] else { panic!() };
    assert_eq!(
        (persist.name.as_str(), persist.total, persist.written),
        ("/persist", Bytes::gib(2), Bytes::mib(7))
    );
    assert_eq!((disk.name.as_str(), disk.total, disk.read), ("sda", Bytes::gib(3), Bytes::mib(5)));

    let message: api::pb::metrics::ZMetricMsg = wire::decode(&payload, limits::METRICS).unwrap();
    let process = &message.pr[0];
    assert_eq!((process.num_threads, process.user_time, process.system_time), (3, 1.5, 0.5));
    assert!((process.cpu_percent - 10.0).abs() < 1e-9, "{}", process.cpu_percent);
    let Some(api::pb::metrics::z_metric_msg::MetricContent::Dm(device)) = message.metric_content
    else {
        panic!()
    };
    let [calls] = &device.zedcloud[..] else { panic!("one port is one row") };
    assert_eq!((calls.if_name.as_str(), calls.success, calls.failures), ("eth0", 2, 0));
    assert_eq!(
        (calls.url_metrics[0].url.as_str(), calls.url_metrics[0].total_time_spent),
        ("https://c/info", 9)
    );
    assert_eq!(device.newlog.unwrap().too_many_request, 2);
}

/// The payload of a recorded message of the device.
fn recorded(name: &str) -> Vec<u8> {
    let device = Certificate::from_pem(&vector("pki/device.cert.pem")).unwrap();
    let body = vector(&format!("telemetry/{name}.AuthContainer.pb"));
    let body = envelope::open(&body, limits::INFO).unwrap();
    body.verify(&Signer::device(&device).unwrap()).unwrap().to_vec()
}

#[test]
fn recorded_messages_are_understood() {
    if !golden() {
        return;
    }
    let Report::Device(device) = view::info(&recorded("req-info-device")).unwrap().report else {
        panic!()
    };
    let registered = vector("envelope/zregistermsg.pb");
    let registered = api::onboarding::Registration::from_payload(&registered).unwrap();
    assert_eq!(device.serial, registered.serial);
    assert_eq!(device.version, "16.0.0-kvm-amd64");
    assert_eq!((device.memory, device.ports.len()), (Bytes::gib(8), 1));
    let Report::App(app) = view::info(&recorded("req-info-app")).unwrap().report else { panic!() };
    assert_eq!((app.name.as_str(), app.state.as_str()), ("nginx", "running"));
    let metrics = view::metrics(&recorded("req-metrics")).unwrap();
    assert_eq!((metrics.memory_used, metrics.cpu_ns), (Bytes::gib(1), 12_345_000_000_000));
}

#[test]
fn what_we_do_not_know_is_shown_by_number_and_of_no_device_refused() {
    let message = |dev_id: String| {
        let app = ZInfoApp { app_id: "x".to_owned(), state: 99, ..ZInfoApp::default() };
        wire::encode(&ZInfoMsg {
            ztype: ZInfoTypes::ZiApp.into(),
            dev_id,
            info_content: Some(InfoContent::Ainfo(app)),
            at_time_stamp: None,
        })
    };
    let Report::App(app) = view::info(&message(own().to_string())).unwrap().report else {
        panic!()
    };
    assert_eq!(app.state, "state 99");
    assert!(view::info(&message("nobody".to_owned())).is_err());
    let other = ZInfoMsg { ztype: 99, dev_id: own().to_string(), ..ZInfoMsg::default() };
    let other = view::info(&wire::encode(&other)).unwrap().report;
    assert_eq!(other, Report::Other { kind: "99".to_owned() });
}
