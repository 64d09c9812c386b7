//! What a node reports, as operators and web pages see it.

use std::collections::BTreeMap;

use crate::common::{Home, Node, device, now};
use api::convert::{info, metrics};
use bytes::Bytes;
use controller::view;
use hyper::{Method, StatusCode};
use model::desired::{Addressing, Port, PortName, Power, Properties};
use model::reported::{
    AppNetworkStatus, AppState, AppStatus, AppUse, Boot, BootReason, ConfigSource,
    ControllerStatus, LogStatus, NetworkInstanceStatus, PortStatus, Resources, ServiceUse,
    TimelineMark, Vif,
};
use model::services::Service;
use model::{AppId, DeviceId, Diagnosis, Problem, Who};

pub(crate) const APP: &str = "
kind: App
name: hello
spec: {device: edge-1, image: \"hello:1\", datastore: far, ports: [\"8080:80\"]}
---
kind: Datastore
name: far
spec: {type: registry, host: registry.example}
";

pub(crate) struct Story {
    pub(crate) home: Home,
    pub(crate) node: Node,
    pub(crate) id: DeviceId,
    pub(crate) told: model::desired::Device,
}

async fn onboarded() -> Story {
    let home = Home::start().await;
    let text = device("edge-1", "one") + APP;
    home.operator().apply(&text, false).await.unwrap();
    let node = home.node("one");
    let id = node.onboard().await;
    let (_, told) = node.config(id, "", b"").await.unwrap().unwrap();
    Story { home, node, id, told: *told }
}

impl Story {
    fn app(&self) -> AppId {
        *self.told.apps.keys().next().unwrap()
    }

    async fn info(&self, payload: &[u8]) {
        let (status, why) = self.node.post(&format!("id/{}/info", self.id), payload).await;
        assert_eq!(status, StatusCode::CREATED, "{why:?}");
    }

    pub(crate) async fn say_device(&self, reboots: u32) {
        let boot = boot();
        let name = PortName::new("eth0").unwrap();
        let port = PortStatus {
            port: Port {
                name,
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
            mac: Some([2, 0, 0, 0, 0, 1]),
            addresses: vec!["10.0.2.15/24".parse().unwrap()],
            gateway: None,
            dns: Vec::new(),
            ntp: Vec::new(),
            domain: None,
            lease: None,
            test: None,
            problem: None,
        };
        let controller = ControllerStatus {
            server: "localhost".into(),
            last_contact: None,
            problem: None,
            config: ConfigSource::Controller,
            config_timestamp: self.told.timestamp,
            refused: Vec::new(),
            node_name: "edge-1".into(),
            forgotten: false,
            standing: Default::default(),
        };
        let machine = info::Machine { arch: "x86_64".into(), cpus: 2, ..info::Machine::default() };
        let facts = info::DeviceFacts {
            machine: &machine,
            boot: &boot,
            ports: &[port],
            controller: &controller,
            properties: &Properties::default(),
            items: &BTreeMap::new(),
            power: Power { reboot: Some(reboots), shutdown: None },
        };
        self.info(&info::device(self.id, now(), &facts)).await;
    }

    async fn say_app(&self, state: AppState, problem: Option<Problem>) {
        let network = AppNetworkStatus {
            id: self.app(),
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
            status: &app_status(self.app(), state, problem),
            network: Some(&network),
            wanted_volumes: &BTreeMap::new(),
            volumes: &BTreeMap::new(),
            contents: &BTreeMap::new(),
        };
        self.info(&info::app(self.id, now(), &facts)).await;
    }

    async fn say_network(&self) {
        let (id, wanted) = self.told.network_instances.iter().next().unwrap();
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
        self.info(&info::network_instance(self.id, now(), &status, Some(wanted), [])).await;
    }

    async fn say_metrics(&self) {
        self.say_use(&[app_status(self.app(), AppState::Running, None)]).await;
    }

    /// Metrics with the versions of the apps that it was told last.
    pub(crate) async fn say_versions(&self) {
        let apps = self.told.apps.values().map(|app| AppStatus {
            version: app.version.clone(),
            ..app_status(app.id, AppState::Running, None)
        });
        self.say_use(&apps.collect::<Vec<_>>()).await;
    }

    async fn say_use(&self, apps: &[AppStatus]) {
        let service = |service, mib| ServiceUse {
            service,
            pid: 10,
            pss: model::Bytes::mib(mib),
            pss_peak: model::Bytes::mib(mib + 1),
            starts: 1,
        };
        let resources = Resources {
            services: vec![service(Service::Config, 5), service(Service::Network, 3)],
            memory_total: model::Bytes::mib(512),
            memory_available: model::Bytes::mib(400),
            cpu_ns: 1,
            persist_total: model::Bytes::gib(3),
            persist_used: model::Bytes::mib(100),
        };
        let facts = metrics::Facts {
            resources: &resources,
            boot: &boot(),
            apps,
            logs: &LogStatus::default(),
            config: &Default::default(),
        };
        let payload = metrics::message(self.id, now(), &facts);
        let path = format!("id/{}/metrics", self.id);
        assert_eq!(self.node.post(&path, &payload).await.0, StatusCode::CREATED);
    }

    async fn shown(&self) -> view::Device {
        self.home.operator().device("edge-1").await.unwrap()
    }
}

fn boot() -> Boot {
    Boot {
        reason: BootReason::PowerFail,
        detail: String::new(),
        count: 4,
        started: now(),
        timeline: vec![
            TimelineMark { what: "init".into(), at_ms: 1_500 },
            TimelineMark { what: "onboarded".into(), at_ms: 8_200 },
        ],
        version: "0.1.0-test".into(),
        slot: "IMGA".into(),
    }
}

fn app_status(id: AppId, state: AppState, problem: Option<Problem>) -> AppStatus {
    AppStatus {
        id,
        version: "1.0".into(),
        name: "hello".into(),
        running_since: (state == AppState::Running).then(now),
        disable_logs: false,
        state,
        starts: 1,
        restart: 0,
        purge: 0,
        volumes: Vec::new(),
        mounted: Vec::new(),
        used: AppUse { cpu_ns: 1, memory: model::Bytes::mib(9) },
        problem,
    }
}

#[tokio::test]
async fn a_node_is_shown_as_it_says() {
    let story = onboarded().await;
    let silent = story.shown().await;
    assert_eq!(silent.apps[0].state, "waiting for the node");
    story.say_device(0).await;
    story.say_app(AppState::Running, None).await;
    story.say_network().await;
    story.say_metrics().await;

    let shown = story.shown().await;
    assert_eq!((shown.version.as_str(), shown.slot.as_str()), ("0.1.0-test", "IMGA"));
    assert_eq!(shown.ports[0].name, "eth0");
    assert!(shown.ports[0].addresses[0].starts_with("10.0.2.15"));
    let boot = shown.boot.unwrap();
    assert_eq!((boot.count, boot.reason.as_str()), (4, "power fail"));
    let timeline = [("init".to_owned(), 1_500), ("onboarded".to_owned(), 8_200)];
    assert_eq!(boot.timeline, timeline);
    let usage = shown.usage.unwrap();
    assert_eq!(usage.services_total(), model::Bytes::mib(8));
    assert_eq!(usage.memory_total, model::Bytes::mib(512));
    let app = &shown.apps[0];
    assert!(app.running, "{app:?}");
    assert_eq!(app.ports, ["8080:80"]);
    assert_eq!(app.addresses, ["10.11.12.2"]);
    assert_eq!(shown.networks[0].state, "online");
    assert_eq!(shown.config_in_force, story.told.timestamp);
}

#[tokio::test]
async fn what_stands_in_the_way_of_an_app_is_told_and_its_changes_are_events() {
    let story = onboarded().await;
    let diagnosis = Diagnosis::of(Who::Operator, "make the image smaller");
    let problem = Problem::new("no space for its image", diagnosis, now());
    story.say_app(AppState::Broken, Some(problem)).await;
    let shown = story.shown().await;
    assert!(!shown.apps[0].running);
    assert!(shown.apps[0].problems[0].contains("no space for its image"), "{:?}", shown.apps);
    story.say_app(AppState::Running, None).await;
    story.say_app(AppState::Running, None).await;
    let events = story.home.operator().events(0, 100).await.unwrap();
    let told: Vec<&str> = events
        .iter()
        .filter(|e| e.device == Some(story.id) && e.object == "App hello")
        .map(|e| e.text.as_str())
        .collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(told[1], "running");

    story.info(&info::gone(story.id, now(), info::Gone::App(story.app()))).await;
    assert_eq!(story.shown().await.apps[0].state, "waiting for the node");
}

#[tokio::test]
async fn reports_outlive_the_controller_and_reboots_are_not_asked_for_twice() {
    let mut story = onboarded().await;
    // The node remembers more reboots than we do: we come from a backup.
    story.say_device(7).await;
    story.say_app(AppState::Running, None).await;
    story.home.again().await;
    story.node.port = story.home.port();
    assert!(story.shown().await.apps[0].running);
    let (_, told) = story.node.config(story.id, "", b"").await.unwrap().unwrap();
    assert_eq!(told.power.reboot, Some(7));
    story.home.operator().restart_device("edge-1").await.unwrap();
    let (_, told) = story.node.config(story.id, "", b"").await.unwrap().unwrap();
    assert_eq!(told.power.reboot, Some(8));
}

#[tokio::test]
async fn a_report_in_another_name_is_refused() {
    let story = onboarded().await;
    let other = DeviceId::new(uuid::Uuid::from_u128(7));
    let payload = info::gone(other, now(), info::Gone::App(story.app()));
    let (status, _) = story.node.post(&format!("id/{}/info", story.id), &payload).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
}

/// A browser: it keeps a cookie and says which site a form is of.
async fn browse(
    story: &Story,
    method: Method,
    path: &str,
    cookie: &str,
    origin: Option<&str>,
    body: &str,
) -> (StatusCode, hyper::HeaderMap, String) {
    let mut headers = vec![("cookie", cookie)];
    headers.extend(origin.map(|o| ("origin", o)));
    let body = Bytes::from(body.to_owned());
    let (status, headers, body) = story.node.http(method, path, &headers, body).await;
    (status, headers, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn pages_are_for_who_logged_in_and_forms_for_our_own_pages() {
    let story = onboarded().await;
    story.say_app(AppState::Running, None).await;
    let ours = format!("https://localhost:{}", story.node.port);
    for path in ["/", "/devices/edge-1", "/devices/edge-1/logs", "/live"] {
        let (status, headers, _) = browse(&story, Method::GET, path, "", None, "").await;
        assert_eq!(status, StatusCode::SEE_OTHER, "{path}");
        assert_eq!(headers["location"], "/login");
    }
    let wrong = browse(&story, Method::POST, "/login", "", Some(&ours), "token=guess").await;
    assert_eq!(wrong.0, StatusCode::UNAUTHORIZED);
    let token = story.home.running.as_ref().unwrap().first_token.clone().unwrap();
    let form = format!("token={token}");
    let foreign = Some("https://evil.example");
    assert_eq!(
        browse(&story, Method::POST, "/login", "", foreign, &form).await.0,
        StatusCode::FORBIDDEN
    );
    let (status, headers, _) = browse(&story, Method::POST, "/login", "", Some(&ours), &form).await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    let cookie = headers["set-cookie"].to_str().unwrap().to_owned();
    for flag in ["HttpOnly", "Secure", "SameSite=Strict"] {
        assert!(cookie.contains(flag), "{cookie}");
    }
    let cookie = cookie.split(';').next().unwrap();
    let (status, headers, page) = browse(&story, Method::GET, "/", cookie, None, "").await;
    assert_eq!(status, StatusCode::OK);
    assert!(headers["content-security-policy"].to_str().unwrap().contains("default-src 'none'"));
    assert!(page.contains("edge-1") && page.contains("1 of 1 run"), "{page}");
    let (_, _, page) = browse(&story, Method::GET, "/devices/edge-1", cookie, None, "").await;
    for text in ["edge-1", "hello", "running", "8080:80"] {
        assert!(page.contains(text), "{text} in {page}");
    }
    let (_, _, part) = browse(&story, Method::GET, "/?part=1", cookie, None, "").await;
    assert!(part.starts_with("<div class=\"counts\""), "{part}");
    for path in ["/devices/edge-1/logs", "/devices/edge-1/logs?app=hello", "/apps/hello"] {
        let (status, ..) = browse(&story, Method::GET, path, cookie, None, "").await;
        assert_eq!(status, StatusCode::OK, "{path}");
    }
    let path = "/apps/hello/restart";
    assert_eq!(
        browse(&story, Method::POST, path, cookie, foreign, "").await.0,
        StatusCode::FORBIDDEN
    );
    assert_eq!(
        browse(&story, Method::POST, path, cookie, Some(&ours), "").await.0,
        StatusCode::SEE_OTHER
    );
    assert_eq!(story.home.operator().app("hello").await.unwrap().restart, 1);
    browse(&story, Method::POST, "/logout", cookie, Some(&ours), "").await;
    assert_eq!(browse(&story, Method::GET, "/", cookie, None, "").await.0, StatusCode::SEE_OTHER);
}
