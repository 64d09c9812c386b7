//! A fleet to look at: some sixty nodes in various states, all by the real device API.

use std::collections::BTreeMap;
use std::fmt::Write;

use api::convert::{info, metrics};
use hyper::StatusCode;
use model::desired::{Addressing, Device, Port, PortName, Power, Properties};
use model::reported::{
    AppNetworkStatus, AppState, AppStatus, AppUse, Boot, BootReason, ConfigSource,
    ControllerStatus, LogStatus, NetworkInstanceStatus, PortStatus, Resources, ServiceUse,
    TimelineMark, Vif,
};
use model::services::Service;
use model::{AppId, DeviceId, Diagnosis, Problem, Who};

use crate::common::{Home, Node, now, wait_ms};

/// What is hostile in every place where a node has a say.
pub(crate) const EVIL: &str = "\"><script>alert('x')</script><img src=x onerror=alert(1)>'";

/// Degrees north and east.
const PLACES: [(&str, f64, f64); 6] = [
    ("berlin", 52.52, 13.40),
    ("lyon", 45.76, 4.84),
    ("oslo", 59.91, 10.75),
    ("milan", 45.46, 9.19),
    ("warsaw", 52.23, 21.01),
    ("madrid", 40.42, -3.70),
];

pub(crate) struct Member {
    pub(crate) node: Node,
    pub(crate) id: DeviceId,
    pub(crate) told: Box<Device>,
}

fn objects(count: usize) -> String {
    let mut text = String::from(
        "kind: Datastore\nname: far\nspec: {type: registry, host: registry.example}\n---\n\
         kind: Network\nname: plant\nspec: {subnet: 10.20.0.0/24}\n---\n\
         kind: App\nname: gateway\nspec: {device: \"*\", image: \"gateway:2\", datastore: far, ports: [\"8080:80\", \"5353:53/udp\"], memory: 64MiB}\n---\n\
         kind: App\nname: vision\nspec: {device: [berlin-1, berlin-7, lyon-2], image: \"vision:1\", datastore: far, network: plant, outbound: deny, memory: 512MiB}\n---\n",
    );
    for n in 0..count {
        let (site, north, east) = PLACES[n % PLACES.len()];
        // Some stand in one place, some a little apart, and one does not say where.
        let apart = f64::from(u32::try_from(n / 18).unwrap()) * 0.8;
        let place = match n {
            59 => String::new(),
            _ => format!(", location: \"{:.2},{:.2}\"", north + apart, east - apart),
        };
        writeln!(
            text,
            "kind: Device\nname: {site}-{}\nspec: {{soft_serial: s{n}, labels: {{site: {site}{place}}}}}\n---",
            n + 1
        )
        .unwrap();
    }
    text
}

/// Fills a controller. Returns the first node, of which most is known.
pub(crate) async fn fill(home: &Home) -> Member {
    home.operator().apply(&objects(60), false).await.unwrap();
    // One has a day of figures behind it.
    let star = come(home, 0).await;
    for quarter in 0..96_u64 {
        star.say_metrics(quarter).await;
        wait_ms(900_000);
    }
    // Some went silent two hours ago, some registered and said nothing since.
    for n in [5, 11, 17, 23] {
        let silent = come(home, n).await;
        silent.say_device("0.9.4", false, None).await;
        silent.say_app("gateway", AppState::Running, None).await;
    }
    wait_ms(7_200_000);
    for n in 1..54 {
        if [5, 11, 17, 23].contains(&n) {
            continue;
        }
        let member = come(home, n).await;
        let old = n % 9 == 4;
        let evil = n == 30;
        member
            .say_device(if old { "0.9.4" } else { "1.0.0" }, n % 13 == 8, evil.then_some(EVIL))
            .await;
        let broken = n % 11 == 6;
        let why = if evil { EVIL } else { "registry.example has no gateway:2" };
        let problem = (broken || evil).then(|| problem(why));
        let state = if broken { AppState::Broken } else { AppState::Running };
        member.say_app("gateway", state, problem).await;
        if member.told.apps.len() > 1 {
            member.say_app("vision", AppState::AwaitingVolumes, None).await;
        }
    }
    star.say_device("1.0.0", false, None).await;
    star.say_app("gateway", AppState::Running, None).await;
    star.say_app(
        "vision",
        AppState::Broken,
        Some(problem("no space for its image: 512 MiB are asked for, 100 MiB are free")),
    )
    .await;
    star.say_networks().await;
    star.say_metrics(97).await;
    star.say_logs().await;
    star
}

fn problem(text: &str) -> Problem {
    Problem::new(text, Diagnosis::of(Who::Operator, "see to it"), now())
}

async fn come(home: &Home, n: usize) -> Member {
    let node = home.node(&format!("s{n}"));
    let id = node.onboard().await;
    let (_, told) = node.config(id, "", b"").await.unwrap().unwrap();
    Member { node, id, told }
}

fn boot(version: &str) -> Boot {
    let mark = |what: &str, at_ms| TimelineMark { what: what.into(), at_ms };
    Boot {
        reason: BootReason::PowerFail,
        detail: String::new(),
        count: 4,
        started: model::UnixMillis(now().0 - 3_700_000),
        timeline: vec![
            mark("init", 1_500),
            mark("network", 4_100),
            mark("onboarded", 8_200),
            mark("first app", 12_900),
        ],
        version: version.into(),
        slot: "IMGA".into(),
    }
}

impl Member {
    async fn send(&self, what: &str, payload: &[u8]) {
        let (status, why) = self.node.post(&format!("id/{}/{what}", self.id), payload).await;
        assert_eq!(status, StatusCode::CREATED, "{what}: {why:?}");
    }

    fn app(&self, name: &str) -> AppId {
        self.told.apps.values().find(|a| a.name == name).unwrap().id
    }

    /// Takes the newest config.
    pub(crate) async fn ask(&mut self) {
        let (_, told) = self.node.config(self.id, "", b"").await.unwrap().unwrap();
        self.told = told;
    }

    pub(crate) async fn say_device(&self, version: &str, down: bool, evil: Option<&str>) {
        let boot = boot(version);
        let port = |n: u8, link: bool| PortStatus {
            port: Port {
                name: PortName::new(&format!("eth{n}")).unwrap(),
                interface: format!("eth{n}"),
                management: n == 0,
                cost: 0,
                addressing: Addressing::Dhcp,
                mtu: None,
                below: String::new(),
                link: Default::default(),
                options: Default::default(),
            },
            link,
            mac: Some([2, 0, 0, 0, 0, n]),
            addresses: if link {
                vec![format!("192.168.{n}.15/24").parse().unwrap()]
            } else {
                Vec::new()
            },
            gateway: None,
            dns: Vec::new(),
            ntp: Vec::new(),
            domain: None,
            lease: None,
            test: None,
            problem: (!link).then(|| problem(evil.unwrap_or("no carrier"))),
        };
        let controller = ControllerStatus {
            server: "localhost".into(),
            last_contact: None,
            problem: None,
            config: ConfigSource::Controller,
            config_timestamp: self.told.timestamp,
            refused: Vec::new(),
            node_name: "edge".into(),
            forgotten: false,
            standing: model::reported::Standing::default(),
        };
        let machine = info::Machine {
            arch: "x86_64".into(),
            cpus: 4,
            manufacturer: evil.unwrap_or("Advantech").into(),
            ..info::Machine::default()
        };
        let facts = info::DeviceFacts {
            machine: &machine,
            boot: &boot,
            ports: &[port(0, true), port(1, !down && evil.is_none())],
            controller: &controller,
            properties: &Properties::default(),
            items: &BTreeMap::new(),
            power: Power { reboot: Some(0), shutdown: None },
        };
        self.send("info", &info::device(self.id, now(), &facts)).await;
    }

    pub(crate) async fn say_app(&self, name: &str, state: AppState, problem: Option<Problem>) {
        let id = self.app(name);
        let network = AppNetworkStatus {
            id,
            namespace: String::new(),
            dns: Vec::new(),
            ready: true,
            vifs: vec![Vif {
                name: "eth0".into(),
                network: *self.told.network_instances.keys().next().unwrap(),
                host_interface: "nbu1x1".into(),
                app_interface: "eth0".into(),
                mac: [2, 0, 0, 0, 0, 9],
                address: Some("10.11.12.2".parse().unwrap()),
            }],
            problem: None,
        };
        let facts = info::AppFacts {
            status: &status(id, name, state, problem),
            network: Some(&network),
            wanted_volumes: &BTreeMap::new(),
            volumes: &BTreeMap::new(),
            contents: &BTreeMap::new(),
        };
        self.send("info", &info::app(self.id, now(), &facts)).await;
    }

    async fn say_networks(&self) {
        for (id, wanted) in &self.told.network_instances {
            let status = NetworkInstanceStatus {
                id: *id,
                name: wanted.name.clone(),
                active: true,
                bridge: "bn1".into(),
                port: None,
                gateway: Some("10.11.12.1".parse().unwrap()),
                leases: Vec::new(),
                problem: None,
            };
            self.send("info", &info::network_instance(self.id, now(), &status, Some(wanted), []))
                .await;
        }
    }

    async fn say_metrics(&self, step: u64) {
        let service = |service, mib| ServiceUse {
            service,
            pid: 10,
            pss: model::Bytes::mib(mib),
            pss_peak: model::Bytes::mib(mib + 1),
            starts: 1,
        };
        // A curve that goes up and down: the same in each run.
        let wave = [0, 30, 70, 95, 110, 95, 60, 20][usize::try_from(step % 8).unwrap()];
        let resources = Resources {
            services: vec![
                service(Service::Config, 5),
                service(Service::Network, 3),
                service(Service::App, 9),
            ],
            memory_total: model::Bytes::mib(2048),
            memory_available: model::Bytes::mib(1500 - wave - step * 3),
            cpu_ns: (step * 900 + wave) * 400_000_000,
            persist_total: model::Bytes::gib(16),
            persist_used: model::Bytes::mib(3000 + step * 20),
        };
        let apps: Vec<AppStatus> = self
            .told
            .apps
            .values()
            .map(|a| status(a.id, &a.name, AppState::Running, None))
            .collect();
        let facts = metrics::Facts {
            resources: &resources,
            boot: &boot("1.0.0"),
            apps: &apps,
            logs: &LogStatus::default(),
            config: &Default::default(),
        };
        self.send("metrics", &metrics::message(self.id, now(), &facts)).await;
    }

    async fn say_logs(&self) {
        let entry = |n: u64| {
            let (severity, content) = match n % 12 {
                4 => ("warning", "clock is 120 ms behind its server"),
                7 => ("error", "cannot pull vision:1: no space left"),
                9 => ("info", EVIL),
                _ => ("info", "config asked for: not modified"),
            };
            api::newlogs::Entry {
                severity: severity.into(),
                source: ["config", "network", "content"][usize::try_from(n % 3).unwrap()].into(),
                content: content.into(),
                timestamp: api::newlogs::Stamp::from(model::UnixMillis(now().0 - 60_000 + n * 900)),
                ..api::newlogs::Entry::default()
            }
        };
        let entries: Vec<_> = (0..60).map(entry).collect();
        let about = api::newlogs::About::Device(api::newlogs::DeviceLog::default());
        for file in api::newlogs::pack(&entries, &about, now(), model::Bytes::kib(50)).unwrap() {
            self.send("newlogs", &file).await;
        }
    }
}

fn status(id: AppId, name: &str, state: AppState, problem: Option<Problem>) -> AppStatus {
    AppStatus {
        id,
        version: "1.0".into(),
        name: name.into(),
        running_since: (state == AppState::Running).then(now),
        disable_logs: false,
        state,
        starts: 1,
        restart: 0,
        purge: 0,
        volumes: Vec::new(),
        mounted: Vec::new(),
        used: AppUse { cpu_ns: 1, memory: model::Bytes::mib(90) },
        problem,
    }
}
