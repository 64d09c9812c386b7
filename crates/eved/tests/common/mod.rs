//! A controller in this process, and a node whose services are processes of their own.

#![expect(dead_code, reason = "each test takes what it needs")]

pub(crate) mod scripted;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use controller::client::Client;
use controller::{Running, Settings, conf, serve};
use host::topics::{Reader, Roots, Table, Writer};
use model::Digest;
use model::desired::{Addressing, Port, PortName};
use model::reported::PortStatus;
use model::services::Service;
use model::topic::{Ports, Topic};

/// So long a test waits for what must come. A busy machine with two processors is slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// A controller with an image registry.
pub(crate) struct Fleet {
    dir: tempfile::TempDir,
    running: Option<Running>,
    port: u16,
}

impl Fleet {
    pub(crate) async fn start() -> Fleet {
        let dir = tempfile::tempdir().unwrap();
        store::Layout::create(dir.path().join("images")).unwrap();
        let mut fleet = Fleet { dir, running: None, port: 0 };
        fleet.again().await;
        fleet
    }

    /// Starts it under the address it had before, if it had one.
    pub(crate) async fn again(&mut self) {
        let settings = Settings {
            listen: ([127, 0, 0, 1], self.port).into(),
            registry: Some(self.dir.path().join("images")),
            ..Settings::new(self.data(), host::clock::now)
        };
        let running = serve(settings).await.unwrap();
        self.port = running.address.port();
        self.running = Some(running);
    }

    pub(crate) async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop().await;
        }
    }

    pub(crate) fn operator(&self) -> Client {
        Client::from_data(&self.data()).unwrap()
    }

    /// Puts another certificate for key exchange, and its key, in the place of the one it has. It is
    /// served from the next start on.
    pub(crate) fn change_exchange_key(&self) {
        use api::cipher::ExchangeKey;
        let pki = self.data().join("pki");
        let read = |name: &str| std::fs::read(pki.join(name)).unwrap();
        let issuer = api::SigningKey::from_pem(&read("intermediate.key.pem")).unwrap();
        let authority = api::Certificate::from_pem(&read("intermediate.cert.pem")).unwrap();
        let key = ExchangeKey::generate().unwrap();
        let now = host::clock::now();
        let made = api::exchange_certificate(&issuer, &authority, &key, now).unwrap();
        store::save(&pki, "ecdh.cert.pem", made.pem()).unwrap();
        store::save(&pki, "ecdh.key.pem", key.to_pem().unwrap().as_bytes()).unwrap();
    }

    /// Puts an image with one small program into the registry.
    pub(crate) fn image(&self, name: &str) -> Digest {
        use store::tarball::{Header, Kind, Time, Writer};
        let layout = store::Layout::open(self.dir.path().join("images")).unwrap();
        let mut tar = Writer::new(Vec::new());
        let time = Time::default();
        tar.header(&Header::new("bin/", Kind::Dir, 0o755, time)).unwrap();
        let mut file = Header::new("bin/web", Kind::File, 0o755, time);
        file.size = 5;
        tar.member(&file, b"#!web").unwrap();
        let tar = tar.finish().unwrap();
        let mut image = store::ImageBuilder::new(&layout, store::Platform::linux(architecture()));
        image.config().cmd = vec!["/bin/web".into()];
        image.layer(store::Compression::Gzip, |out| out.write_all(&tar)).unwrap();
        let target = image.finish().unwrap();
        layout.tag(name, &target).unwrap();
        target.digest
    }

    /// Changes one byte of the newest image's layer; what it is called, and what its bytes make now.
    pub(crate) fn spoil_a_layer(&self) -> (Digest, Digest) {
        let images = self.dir.path().join("images");
        let layout = store::Layout::open(&images).unwrap();
        let target = layout.target("hello:latest").unwrap();
        let layer = store::Image::read(&layout, &target).unwrap().manifest.layers[0].clone();
        let mut bytes = layout.read(&layer.digest, layer.size).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        store::save(&images.join("blobs/sha256"), &layer.digest.hex(), &bytes).unwrap();
        let Err(store::StoreError::Corrupt { got, .. }) = layout.check(&layer.digest) else {
            panic!("it is not spoilt")
        };
        (layer.digest, got)
    }

    /// Looks at the node, as the controller shows it, until it fits.
    pub(crate) async fn until(
        &self,
        what: &str,
        fits: impl Fn(&controller::view::Device) -> bool,
    ) -> controller::view::Device {
        let begun = tokio::time::Instant::now();
        loop {
            let shown = self.operator().device("edge-1").await.unwrap();
            if fits(&shown) {
                return shown;
            }
            assert!(begun.elapsed() < PATIENCE, "{what} is not shown in {PATIENCE:?}: {shown:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }
}

fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// The folders of a node.
pub(crate) struct Node {
    dir: tempfile::TempDir,
}

/// Services that run; killed when dropped, as by a power cut.
pub(crate) struct Services(Vec<Child>);

impl Services {
    /// Asks them to end, as PID 1 does, and waits; whether all ended well.
    pub(crate) fn stop(mut self) -> bool {
        use rustix::process::{Pid, Signal, kill_process};
        for child in &self.0 {
            let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).unwrap();
            kill_process(pid, Signal::TERM).unwrap();
        }
        self.0.iter_mut().all(|child| child.wait().unwrap().success())
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Node {
    /// A node that nobody made for a controller.
    pub(crate) fn bare() -> Node {
        let node = Node { dir: tempfile::tempdir().unwrap() };
        for folder in ["config", "run/eve/log", "persist/checkpoint", "persist/status"] {
            std::fs::create_dir_all(node.path(folder)).unwrap();
        }
        node
    }

    /// A node that was made for this fleet, and never booted.
    pub(crate) fn new(fleet: &Fleet) -> Node {
        let node = Node::bare();
        let server = format!("localhost:{}", fleet.port);
        for (name, bytes) in conf(&fleet.data(), &server, "soft-1").unwrap() {
            store::save(&node.path("config"), &name, &bytes).unwrap();
        }
        node
    }

    pub(crate) fn persist(&self) -> PathBuf {
        self.path("persist")
    }

    /// Starts services; what they say goes where `eved log` reads it.
    pub(crate) fn start(&self, services: &[Service]) -> Services {
        Services(services.iter().map(|s| self.start_one(*s)).collect())
    }

    fn start_one(&self, service: Service) -> Child {
        let pipe = self.path("run/eve/log").join(service.name());
        let us = rustix::process::getuid().as_raw();
        let said = host::crun::output_pipe(&pipe, us).unwrap();
        let mut command = self.command(service);
        command
            .env("EVE_RUN", self.path("run/eve"))
            .env("EVE_PERSIST", self.persist())
            .env("EVE_CONFIG", self.path("config"))
            .stdout(said)
            .stderr(Stdio::inherit());
        command.spawn().unwrap()
    }

    /// As an own program; `eved app` in a mount namespace without the half of a hybrid cgroup
    /// hierarchy that crun refuses to work with.
    #[expect(clippy::disallowed_methods, reason = "the program under test is no tool")]
    fn command(&self, service: Service) -> Command {
        let eved = env!("CARGO_BIN_EXE_eved");
        if service != Service::App {
            let mut command = Command::new(eved);
            command.arg(service.name());
            return command;
        }
        let hide = "umount /sys/fs/cgroup/unified 2>/dev/null; exec \"$0\" app";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", hide, eved]);
        command
    }

    /// Everything in memory is gone.
    pub(crate) fn reboot(&self) {
        std::fs::remove_dir_all(self.path("run")).unwrap();
        std::fs::create_dir_all(self.path("run/eve/log")).unwrap();
        self.has_a_port();
    }

    /// As `eved network` would say.
    pub(crate) fn has_a_port(&self) {
        let name = PortName::new("eth0").unwrap();
        let port = Port {
            name: name.clone(),
            interface: "eth0".into(),
            management: true,
            cost: 0,
            addressing: Addressing::Dhcp,
            mtu: None,
            below: String::new(),
            link: Default::default(),
            options: Default::default(),
        };
        let status = PortStatus {
            port,
            link: true,
            mac: None,
            addresses: vec!["10.0.2.15/24".parse().unwrap()],
            gateway: None,
            dns: Vec::new(),
            ntp: Vec::new(),
            domain: None,
            lease: None,
            test: None,
            problem: None,
        };
        let mut ports = Writer::<Ports>::open(&self.roots()).unwrap();
        ports.publish(Table::<Ports>::from([(name, status)])).unwrap();
    }

    pub(crate) fn get<T: Topic>(&self, key: &T::Key) -> Option<T::Value> {
        Reader::<T>::open(&self.roots()).get(key)
    }

    pub(crate) fn table<T: Topic>(&self) -> Table<T> {
        Reader::<T>::open(&self.roots()).read()
    }

    pub(crate) fn roots(&self) -> Roots {
        Roots { run: self.path("run/eve"), persist: self.path("persist/status") }
    }

    pub(crate) fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(below)
    }
}

/// Looks until it is there.
pub(crate) async fn eventually<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let begun = tokio::time::Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "{what} did not come in {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
