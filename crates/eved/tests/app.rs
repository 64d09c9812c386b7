//! `eved app` with real containers: crun, overlay, signals. Needs root, as on the node.

mod common;

use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use common::{Node, eventually};
use host::crun::{Crun, Known};
use host::topics::{Table, Writer};
use model::desired::{App, Virtualization, VolumeRef};
use model::reported::{AppState, AppStatus, VolumeKind, VolumeState, VolumeStatus};
use model::services::Service;
use model::topic::{Apps, DesiredApps, Volumes};
use model::{AppId, Bytes, VolumeId};

const VOLUME: &str = "00000000-0000-4000-8000-000000000040";
/// Says who it is, and what it may do; ends in its own words when it is asked to.
const SCRIPT: &str = "mount -t tmpfs x /srv 2>/dev/null && may=may || may=cannot; \
    echo x > /written; echo up $EVE_APP_NAME in $PWD as $(id -u), $may mount; \
    trap 'echo bye; exit 3' TERM; while :; do sleep 0.1; done";

fn app(id: AppId, restart: u32) -> App {
    let volume: VolumeId = VOLUME.parse().unwrap();
    App {
        id,
        version: "1".into(),
        name: "hello".into(),
        activate: true,
        vcpus: 1,
        memory: Bytes::mib(32),
        virtualization: Virtualization::Container,
        volumes: vec![VolumeRef { volume, generation: 0, mount: "/".into() }],
        interfaces: Vec::new(),
        restart,
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

/// A node whose other services are this test.
struct Stage {
    node: Node,
    /// Its own: tests run side by side, and a container's cgroup is named by it.
    id: AppId,
    desired: Writer<DesiredApps>,
    output: File,
    heard: String,
}

impl Stage {
    fn new() -> Stage {
        assert!(rustix::process::geteuid().is_root(), "this test makes containers: run it as root");
        let node = Node::bare();
        let lower = node.path("lower");
        for program in ["/bin/sh", "/bin/sleep", "/usr/bin/id", "/bin/mount"] {
            install(program, &lower);
        }
        for folder in ["etc", "srv"] {
            fs::create_dir_all(lower.join(folder)).unwrap();
        }
        let passwd = b"root:x:0:0::/:/bin/sh\nweb:x:33:33::/:/bin/sh\n";
        store::save(&lower.join("etc"), "passwd", passwd).unwrap();
        let writable = node.path("writable");
        for folder in ["upper", "work"] {
            fs::create_dir_all(writable.join(folder)).unwrap();
        }
        let text = |p: &Path| p.to_string_lossy().into_owned();
        let config = format!(
            r#"{{"config":{{"Cmd":["/bin/sh","-c",{}],"WorkingDir":"/srv"}}}}"#,
            serde_json::to_string(SCRIPT).unwrap()
        );
        let root = VolumeKind::Root {
            lower: text(&lower),
            writable: text(&writable),
            image_config: config,
        };
        let volume: VolumeId = VOLUME.parse().unwrap();
        let status = VolumeStatus {
            id: volume,
            generation: 0,
            name: "root".into(),
            state: VolumeState::Ready(root),
            problem: None,
        };
        let mut volumes = Writer::<Volumes>::open(&node.roots()).unwrap();
        volumes.publish(Table::<Volumes>::from([(volume, status)])).unwrap();
        let desired = Writer::open(&node.roots()).unwrap();
        let id = AppId::new(uuid::Uuid::new_v4());
        let pipe = node.path("run/eve/log").join(format!("app.{id}"));
        let output = host::crun::output_pipe(&pipe, 901).unwrap();
        Stage { node, id, desired, output, heard: String::new() }
    }

    fn want(&mut self, apps: &[App]) {
        self.desired.publish(apps.iter().map(|a| (a.id, a.clone())).collect()).unwrap();
    }

    async fn until(&self, what: &str, fits: impl Fn(&AppStatus) -> bool) -> AppStatus {
        eventually(what, || self.node.get::<Apps>(&self.id).filter(&fits)).await
    }

    async fn running(&self) -> AppStatus {
        self.until("a running app", |a| a.state == AppState::Running).await
    }

    /// Waits until the app said this.
    async fn hears(&mut self, text: &str) {
        for _ in 0..600 {
            self.listen();
            if self.heard.contains(text) {
                self.heard.clear();
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the app did not say {text:?} but {:?}", self.heard);
    }

    fn listen(&mut self) {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut buffer = [0; 4096];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        while poll(&mut [PollFd::from_borrowed_fd(self.output.as_fd(), PollFlags::IN)], Some(&now))
            .unwrap()
            > 0
        {
            let got = self.output.read(&mut buffer).unwrap();
            self.heard.push_str(&String::from_utf8_lossy(&buffer[..got]));
        }
    }

    fn crun(&self) -> Crun {
        Crun::new(self.node.path("run/crun"))
    }
}

impl Drop for Stage {
    /// Containers outlive the service; they must not outlive the test.
    fn drop(&mut self) {
        let _ = self.crun().kill(&self.id.to_string(), "KILL");
        let _ = self.crun().delete(&self.id.to_string());
    }
}

/// Copies a program of this machine with the libraries it needs.
fn install(program: &str, root: &Path) {
    let tool = host::process::Tool::Shell;
    let list = host::process::run(tool, &["-c", &format!("ldd {program} || true")]).unwrap();
    let list = String::from_utf8(list).unwrap();
    let libraries = list.split_whitespace().filter(|word| word.starts_with('/'));
    for path in std::iter::once(program).chain(libraries) {
        let to = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(path, &to).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_runs_is_adopted_restarted_and_stopped_with_the_node() {
    let mut stage = Stage::new();
    let id = stage.id.to_string();
    stage.want(&[app(stage.id, 1)]);
    let services = stage.node.start(&[Service::App]);
    stage.hears("up hello in /srv as 0, cannot mount").await;
    let first = stage.running().await;
    assert_eq!((first.starts, first.mounted.len(), first.problem), (1, 1, None));
    assert!(stage.node.path("writable/upper/written").exists());
    // The log's service may come, or come back, when the container has long had the pipe.
    let log = model::services::Service::Log.spec().uid;
    let pipe = fs::metadata(stage.node.path("run/eve/log").join(format!("app.{id}"))).unwrap();
    assert_eq!((pipe.gid(), pipe.mode() & 0o060), (log, 0o060));

    // The service dies; the app does not notice, and is not started a second time.
    drop(services);
    let services = stage.node.start(&[Service::App]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let adopted = stage.until("the adopted app", |a| a.starts == 0).await;
    assert_eq!(adopted.state, AppState::Running);
    assert_eq!(adopted.running_since, first.running_since);
    stage.listen();
    assert_eq!(stage.heard, "");

    // A counter restarts it.
    stage.want(&[app(stage.id, 2)]);
    stage.hears("bye\nup hello").await;
    assert_eq!(stage.running().await.restart, 2);

    // It dies and comes back.
    stage.crun().kill(&id, "KILL").unwrap();
    stage.hears("up hello").await;
    let again = stage.until("another start", |a| a.starts == 2).await;
    assert_eq!(again.restart, 2);

    // The node goes down: everything stops, nothing is forgotten.
    store::save(&stage.node.path("run/eve"), "power", b"reboot\n").unwrap();
    assert!(services.stop());
    stage.hears("bye").await;
    assert_eq!(stage.crun().look(&id).unwrap(), Known::Nothing);
    let memory = fs::read_to_string(stage.node.persist().join(format!("apps/{id}.json")));
    assert_eq!(memory.unwrap(), r#"{"version":"1","restart":2,"purge":0}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_cannot_start_says_why_and_one_that_leaves_is_cleared_away() {
    let mut stage = Stage::new();
    let id = stage.id.to_string();
    // A program that is not in the image.
    fs::remove_file(stage.node.path("lower/bin/sh")).unwrap();
    stage.want(&[app(stage.id, 1)]);
    let _services = stage.node.start(&[Service::App]);
    let broken = stage.until("a broken app", |a| a.state == AppState::Broken).await;
    let why = broken.problem.unwrap();
    assert!(why.text.contains("/bin/sh"), "{}", why.text);
    assert!(why.diagnosis.retry_in.is_some());
    assert!(
        !stage.node.path(format!("run/eve-apps/{id}")).exists(),
        "a failed start leaves nothing"
    );

    install("/bin/sh", &stage.node.path("lower"));
    stage.hears("up hello").await;
    stage.running().await;
    stage.want(&[]);
    eventually("the end", || stage.node.table::<Apps>().is_empty().then_some(())).await;
    assert_eq!(stage.crun().look(&id).unwrap(), Known::Nothing);
    assert!(!stage.node.persist().join(format!("apps/{id}.json")).exists());
}
