//! The controller of a lab: a real one, in the process of the test.

use std::cell::OnceCell;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use builder::pkg;
use controller::client::{Client, ClientError};
use controller::{Running, Settings, view};
use model::Arch;
use tokio::runtime::Runtime;

/// How often it is asked about something that is awaited.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// A controller and the operator who talks to it.
#[derive(Debug)]
pub struct Site {
    runtime: Runtime,
    running: Option<Running>,
    client: Client,
    data: PathBuf,
    port: u16,
    hello: OnceCell<String>,
    /// What its nodes are.
    arch: Arch,
}

impl Site {
    /// Starts a controller with its data in `data`, on a free port of this machine. Its registry
    /// serves the packages that were built here.
    pub(crate) fn start(data: &Path, arch: Arch) -> anyhow::Result<Site> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("cannot start the controller's threads")?;
        let settings = settings(data, ([127, 0, 0, 1], 0).into(), Some(packages(arch).layout()));
        let running = runtime.block_on(controller::serve(settings))?;
        let port = running.address.port();
        let client = Client::from_data(data)?;
        let (data, running) = (data.to_owned(), Some(running));
        Ok(Site { runtime, running, client, data, port, hello: OnceCell::new(), arch })
    }

    /// What a node's CONFIG partition says to find this controller.
    pub fn conf(
        &self,
        soft_serial: &str,
    ) -> anyhow::Result<std::collections::BTreeMap<String, Vec<u8>>> {
        // As QEMU's user network shows this machine to guests.
        Ok(controller::conf(&self.data, &format!("10.0.2.2:{}", self.port), soft_serial)?)
    }

    /// Makes objects say what these YAML documents say; references may point nowhere.
    pub fn apply(&self, documents: &str) -> anyhow::Result<view::Applied> {
        Ok(self.ask(|client| client.apply(documents, true))?)
    }

    /// Declares a node and lets it ask for its config every few seconds and send its logs at once.
    pub fn declare(&self, name: &str, soft_serial: &str) -> anyhow::Result<()> {
        let document = format!(
            "{{kind: Device, name: {name}, spec: {{soft_serial: {soft_serial}, settings: \
             {{timer.config.interval: 5, newlog.allow.fastupload: \"true\"}}}}}}"
        );
        self.apply(&document).map(drop)
    }

    /// The name of the sample app's image in the registry; it is built if need be.
    pub fn hello(&self) -> anyhow::Result<&str> {
        if let Some(name) = self.hello.get() {
            return Ok(name);
        }
        let built = pkg::build(&["apps/hello".to_owned()], &packages(self.arch), &())?;
        let hello = built.get("apps/hello").context("apps/hello was not built")?;
        Ok(self.hello.get_or_init(|| hello.image.clone()))
    }

    /// A node as the controller knows it.
    pub fn device(&self, name: &str) -> anyhow::Result<view::Device> {
        Ok(self.ask(|client| client.device(name))?)
    }

    /// Waits until a node is as `is_so` wants it; `what` says how that is.
    pub fn wait_for(
        &self,
        name: &str,
        what: &str,
        limit: Duration,
        alive: &mut dyn FnMut() -> anyhow::Result<()>,
        is_so: impl Fn(&view::Device) -> bool,
    ) -> anyhow::Result<view::Device> {
        let until = Instant::now() + limit;
        loop {
            let device = self.device(name)?;
            if is_so(&device) {
                return Ok(device);
            }
            alive()?;
            if Instant::now() >= until {
                bail!(
                    "{name} was not {what} within {} s; the controller knows: {}",
                    limit.as_secs(),
                    serde_json::to_string_pretty(&device)?
                );
            }
            std::thread::sleep(ASK_EVERY);
        }
    }

    /// Any other call of an operator.
    pub fn ask<'a, F, T>(&'a self, call: impl FnOnce(&'a Client) -> F) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        self.runtime.block_on(call(&self.client))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            // A node that holds a connection open must not hold up the test.
            let _ = self.runtime.block_on(async {
                tokio::time::timeout(Duration::from_secs(5), running.stop()).await
            });
        }
    }
}

/// A controller on this machine with its data in `data`; its registry serves an OCI layout.
pub(crate) fn settings(data: &Path, listen: SocketAddr, registry: Option<PathBuf>) -> Settings {
    Settings { listen, registry, ..Settings::new(data.to_owned(), host::clock::now) }
}

/// How packages are built in this workspace.
fn packages(arch: Arch) -> pkg::Options {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    let root = root.unwrap_or(Path::new("."));
    pkg::Options { arch, ..pkg::Options::from_env(root) }
}
