use model::Bytes;
use model::desired::AppInterface;

use super::*;

const VOLUME: &str = "00000000-0000-4000-8000-000000000040";

pub(crate) fn app() -> App {
    App {
        id: "00000000-0000-4000-8000-000000000060".parse().unwrap(),
        version: "1".into(),
        name: "hello".into(),
        activate: true,
        vcpus: 1,
        memory: Bytes::mib(64),
        virtualization: Virtualization::Container,
        volumes: vec![VolumeRef {
            volume: VOLUME.parse().unwrap(),
            generation: 0,
            mount: "/".into(),
        }],
        interfaces: vec![AppInterface {
            name: "eth0".into(),
            network: "00000000-0000-4000-8000-000000000050".parse().unwrap(),
            mac: None,
            address: None,
            rules: Vec::new(),
            access_vlan: None,
            discover: false,
            order: 0,
        }],
        restart: 3,
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

/// A node with one app, in memory: what is on its disk, and what runs.
struct Node {
    app: Option<App>,
    volumes: BTreeMap<VolumeId, VolumeStatus>,
    network: Option<AppNetworkStatus>,
    now: UnixMillis,
    booted: UnixMillis,
    node_stops: bool,
    disk: Option<Memory>,
    container: Container,
    state: State,
    /// What was done, in order.
    trace: Vec<String>,
    /// Power goes after so many writes and starts.
    cut: Option<usize>,
    deaf: bool,
}

impl Node {
    fn new() -> Node {
        let id = VOLUME.parse().unwrap();
        let root = VolumeKind::Root {
            lower: "/l".into(),
            writable: "/w".into(),
            image_config: "{}".into(),
        };
        let state = VolumeState::Ready(root);
        let volume = VolumeStatus { id, generation: 0, name: "root".into(), state, problem: None };
        let vif = model::reported::Vif {
            name: "eth0".into(),
            network: "00000000-0000-4000-8000-000000000050".parse().unwrap(),
            host_interface: "nbu1x1".into(),
            app_interface: "eth0".into(),
            mac: [2; 6],
            address: None,
        };
        let network = AppNetworkStatus {
            id: app().id,
            namespace: "/run/netns/x".into(),
            dns: Vec::new(),
            ready: true,
            vifs: vec![vif],
            problem: None,
        };
        Node {
            app: Some(app()),
            volumes: BTreeMap::from([(id, volume)]),
            network: Some(network),
            now: UnixMillis(1_000_000),
            booted: UnixMillis(1_000_000),
            node_stops: false,
            disk: None,
            container: Container::None,
            state: State::default(),
            trace: Vec::new(),
            cut: None,
            deaf: false,
        }
    }

    /// Decides and acts until nothing is left to do.
    fn settle(&mut self) -> Decision {
        for _ in 0..20 {
            let view = View {
                desired: self.app.as_ref(),
                memory: self.disk,
                container: &self.container,
                volumes: &self.volumes,
                network: self.network.as_ref(),
                node_stops: self.node_stops,
                now: self.now,
                uptime: self.now.since(self.booted),
            };
            let (state, decision) = decide(self.state.clone(), &view, Jitter(1.0));
            self.state = state;
            let Some(act) = decision.act.clone() else { return decision };
            if let Some(left) = &mut self.cut {
                if *left == 0 {
                    self.cut = None;
                    self.power_cut();
                    continue;
                }
                *left -= 1;
            }
            self.act(act);
        }
        panic!("it never comes to rest: {:?}", self.trace);
    }

    fn act(&mut self, act: Act) {
        self.trace.push(match &act {
            Act::Remember(m) => format!("remember {}/{}", m.restart, m.purge),
            other => format!("{other:?}").to_lowercase(),
        });
        match act {
            Act::Remember(memory) => self.disk = Some(memory),
            Act::Forget => self.disk = None,
            Act::Start => {
                let with = Box::new(self.app.clone().unwrap());
                self.container = Container::Running { with, since: self.now };
                self.state = self.state.clone().started();
            }
            Act::Term if self.deaf => {}
            Act::Term | Act::Kill => self.container = Container::Ended { status: 143 },
            Act::Clear => self.container = Container::None,
        }
    }

    fn power_cut(&mut self) {
        self.trace.push("power cut".into());
        self.container = Container::None;
        self.state = State::default();
        self.booted = self.now;
    }

    fn wait(&mut self, seconds: u64) {
        self.now = self.now.after(Duration::from_secs(seconds));
    }

    fn told(&mut self) -> String {
        std::mem::take(&mut self.trace).join(", ")
    }
}

#[test]
fn a_new_app_is_remembered_and_started() {
    let mut node = Node::new();
    assert_eq!(node.settle().state, Some(AppState::Running));
    assert_eq!(node.told(), "remember 3/0, start");
    assert_eq!(node.settle().act, None);
}

#[test]
fn a_changed_counter_restarts_once() {
    for (restart, purge, told) in [(4, 0, "4/0"), (2, 0, "2/0"), (3, 1, "3/1")] {
        let mut node = Node::new();
        node.settle();
        node.told();
        node.app = Some(App { restart, purge, ..app() });
        assert_eq!(node.settle().state, Some(AppState::Running));
        assert_eq!(node.told(), format!("term, clear, remember {told}, start"));
        node.settle();
        assert_eq!(node.told(), "");
    }
}

#[test]
fn counters_are_neither_lost_nor_done_twice_wherever_the_power_goes() {
    for cut in 0..8 {
        let mut node = Node::new();
        node.settle();
        node.told();
        node.app = Some(App { restart: 4, ..app() });
        node.cut = Some(cut);
        let at_rest = node.settle();
        let was_cut = node.cut.take().is_none();
        assert_eq!(at_rest.state, Some(AppState::Running), "cut {cut}");
        assert_eq!(node.disk, Some(Memory { restart: 4, purge: 0 }), "cut {cut}");
        node.power_cut();
        node.told();
        node.settle();
        assert_eq!(node.told(), "start", "cut {cut}: the counter is done");
        if !was_cut {
            return;
        }
    }
    panic!("there are more than 8 places to cut");
}

#[test]
fn an_app_that_ends_is_started_again_ever_slower() {
    let mut node = Node::new();
    node.settle();
    for wait in [1, 2, 4, 8] {
        node.container = Container::Ended { status: 1 };
        node.told();
        let decision = node.settle();
        let again = node.now.after(Duration::from_secs(wait));
        assert_eq!(decision.state, Some(AppState::Ended { status: 1, again }));
        assert_eq!((decision.wake, node.told().as_str()), (Some(again), "clear"));
        node.wait(wait);
        assert_eq!(node.settle().state, Some(AppState::Running));
    }
    assert_eq!(node.state.starts, 5);
    node.wait(HEALTHY.as_secs());
    node.settle();
    assert_eq!(node.state.failures, 0);
}

#[test]
fn a_deaf_app_is_killed_after_its_grace() {
    let mut node = Node::new();
    node.settle();
    node.told();
    node.deaf = true;
    node.app = Some(App { activate: false, ..app() });
    let decision = node.settle();
    assert_eq!(decision.state, Some(AppState::Halting));
    assert_eq!(decision.wake, Some(node.now.after(GRACE)));
    node.wait(9);
    assert_eq!(node.settle().act, None);
    node.wait(1);
    assert_eq!(node.settle().state, Some(AppState::Halted));
    assert_eq!(node.told(), "term, kill, clear");
}

#[test]
fn an_app_that_left_the_config_is_stopped_and_forgotten() {
    let mut node = Node::new();
    node.settle();
    node.told();
    node.app = None;
    let decision = node.settle();
    assert_eq!((decision.state, node.told().as_str()), (None, "term, clear, forget"));
}

#[test]
fn a_node_that_goes_down_stops_apps_and_forgets_nothing() {
    let mut node = Node::new();
    node.settle();
    node.told();
    node.node_stops = true;
    assert_eq!(node.settle().state, Some(AppState::Halted));
    assert_eq!(node.told(), "term, clear");
    node.app = None;
    node.settle();
    assert_eq!((node.told().as_str(), node.disk.is_some()), ("", true));
}

#[test]
fn what_is_missing_is_told_and_heals() {
    let mut node = Node::new();
    let volumes = std::mem::take(&mut node.volumes);
    let decision = node.settle();
    assert_eq!(decision.state, Some(AppState::AwaitingVolumes));
    assert!(decision.problem.unwrap().text.contains(VOLUME));
    node.volumes = volumes;
    let network = node.network.take();
    assert_eq!(node.settle().state, Some(AppState::AwaitingNetwork));
    let why = Problem::new("no such network", Diagnosis::of(Who::Operator, "x"), node.now);
    node.network =
        network.clone().map(|n| AppNetworkStatus { ready: false, problem: Some(why.clone()), ..n });
    assert_eq!(node.settle().problem, Some(why));
    node.network = network;
    assert_eq!(node.settle().state, Some(AppState::Running));
}

#[test]
fn a_running_app_is_not_touched_when_something_goes_missing() {
    let mut node = Node::new();
    node.settle();
    node.told();
    node.volumes.clear();
    node.network = None;
    assert_eq!(node.settle().state, Some(AppState::Running));
    assert_eq!(node.told(), "");
}

#[test]
fn a_change_that_needs_a_restart_is_told_and_waits() {
    let mut node = Node::new();
    node.settle();
    node.told();
    node.app = Some(App { memory: Bytes::mib(128), ..app() });
    let decision = node.settle();
    assert_eq!((decision.state, node.told().as_str()), (Some(AppState::Running), ""));
    assert!(decision.problem.unwrap().text.starts_with("memory changed"));
    let mut rules = app();
    rules.interfaces[0].rules.push(model::desired::Rule {
        id: 1,
        matches: Vec::new(),
        action: model::desired::Action::Allow,
        direction: model::desired::Direction::Both,
    });
    node.app = Some(rules);
    assert_eq!(node.settle().problem, None);
}

#[test]
fn a_start_delay_counts_from_the_boot() {
    let mut node = Node::new();
    node.app = Some(App { start_delay: Duration::from_secs(30), ..app() });
    let decision = node.settle();
    assert_eq!(decision.state, Some(AppState::StartDelayed));
    assert_eq!(decision.wake, Some(node.now.after(Duration::from_secs(30))));
    node.wait(30);
    assert_eq!(node.settle().state, Some(AppState::Running));
}

#[test]
fn a_service_that_starts_anew_adopts_what_runs() {
    let mut node = Node::new();
    node.settle();
    node.state = State::default();
    node.told();
    assert_eq!(node.settle().state, Some(AppState::Running));
    assert_eq!(node.told(), "");
}

#[test]
fn a_failed_start_is_told_with_its_next_try() {
    let mut node = Node::new();
    node.disk = Some(Memory { restart: 3, purge: 0 });
    let why = Problem::new("crun failed", Diagnosis::of(Who::Developer, "x"), node.now);
    node.state = node.state.clone().failed(why, node.now, Jitter(1.0));
    let decision = node.settle();
    assert_eq!(decision.state, Some(AppState::Broken));
    assert_eq!(decision.problem.unwrap().diagnosis.retry_in, Some(Duration::from_secs(1)));
    node.wait(1);
    assert_eq!(node.settle().state, Some(AppState::Running));
}

#[test]
fn what_was_saved_by_the_first_version_loads() {
    let text = r#"{"version":"1","restart":3,"purge":7}"#;
    let Saved::V1(memory) = serde_json::from_str(text).unwrap();
    assert_eq!(memory, Memory { restart: 3, purge: 7 });
    assert_eq!(serde_json::to_string(&Saved::V1(memory)).unwrap(), text);
}
