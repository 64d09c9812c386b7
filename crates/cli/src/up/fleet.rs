//! What `eve up` asks of its controller: starting it, its objects, how its node is.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use controller::client::Client;
use controller::objects::Kind;
use controller::view;
use host::detached::Detached;
use tokio::runtime::Runtime;

use super::node::PAGE_PORT;
use super::state::Folder;
use crate::out::{self, OrAdvise};

/// The node's name at the controller.
pub(super) const NODE: &str = "edge-1";

/// The app's name at the controller.
pub(super) const APP: &str = "hello";

/// It makes its keys and its database at the first start.
const CONTROLLER_START: Duration = Duration::from_secs(60);

/// The controller of this state folder, spoken to.
#[derive(Debug)]
pub(super) struct Fleet {
    client: Client,
    runtime: Runtime,
}

/// Starts the controller such that it outlives us: this program, as `eve controller serve`.
pub(super) fn start_controller(
    folder: &Folder,
    port: u16,
    registry: &Path,
) -> anyhow::Result<Detached> {
    let mut command = host::process::this_program().context("cannot find this program")?;
    command.args(["controller", "serve", "--listen", &format!("127.0.0.1:{port}")]);
    command.arg("--data").arg(folder.controller_dir());
    command.arg("--registry").arg(registry);
    Detached::spawn(command, &folder.controller_log()).context("cannot start the controller")
}

impl Fleet {
    /// Waits until the controller answers.
    pub(super) fn connect(folder: &Folder, controller: &Detached) -> anyhow::Result<Fleet> {
        let until = Instant::now() + CONTROLLER_START;
        loop {
            let tried = Fleet::open(folder);
            match tried {
                Ok(fleet) => return Ok(fleet),
                Err(_) if !controller.is_alive() => {
                    let said = super::node::tail(&folder.controller_log(), 5).join("\n  ");
                    bail!("the controller ended at once; it said:\n  {said}")
                }
                Err(e) if Instant::now() >= until => return Err(e),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// The controller, if it answers now.
    pub(super) fn open(folder: &Folder) -> anyhow::Result<Fleet> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = Client::from_data(&folder.controller_dir()).or_advise()?;
        let fleet = Fleet { client, runtime };
        fleet.runtime.block_on(fleet.client.controller()).or_advise()?;
        Ok(fleet)
    }

    /// The address of the web page.
    pub(super) fn url(&self) -> &str {
        self.client.url()
    }

    /// The node, as the controller knows it.
    pub(super) fn node(&self) -> anyhow::Result<view::Device> {
        self.runtime.block_on(self.client.device(NODE)).or_advise()
    }

    /// Forgets the node of an earlier disk. That it is not known is no error.
    pub(super) fn forget_node(&self) -> anyhow::Result<()> {
        let known = self.runtime.block_on(self.client.devices()).or_advise()?;
        if known.iter().any(|d| d.name == NODE) {
            let kind = Kind::Device.name();
            self.runtime.block_on(self.client.delete(kind, NODE, true)).or_advise()?;
        }
        Ok(())
    }

    /// Says what should be: one node, and the app on it.
    pub(super) fn apply(&self, serial: &str, image: &str) -> anyhow::Result<()> {
        let documents = objects(serial, image);
        self.runtime.block_on(self.client.apply(&documents, false)).or_advise()?;
        Ok(())
    }
}

/// The node asks for its config every few seconds and sends its logs at once, so that a person sees
/// changes come.
fn objects(serial: &str, image: &str) -> String {
    format!(
        "kind: Device\n\
         name: {NODE}\n\
         spec:\n\
         \x20 soft_serial: {serial}\n\
         \x20 settings:\n\
         \x20   timer.config.interval: 10\n\
         \x20   newlog.allow.fastupload: \"true\"\n\
         ---\n\
         kind: App\n\
         name: {APP}\n\
         spec:\n\
         \x20 device: {NODE}\n\
         \x20 image: {image}\n\
         \x20 memory: 64MiB\n\
         \x20 ports: [\"{PAGE_PORT}:80\"]\n"
    )
}

/// The token of the administrator, for the summary.
pub(super) fn token(folder: &Folder) -> Option<String> {
    let token = std::fs::read_to_string(folder.controller_dir().join("admin.token")).ok()?;
    Some(token.trim().to_owned())
}

/// The files for the node's CONFIG partition.
pub(super) fn conf(
    folder: &Folder,
    port: u16,
    serial: &str,
) -> anyhow::Result<std::collections::BTreeMap<String, Vec<u8>>> {
    // As QEMU's user network shows this machine to the guest.
    let server = format!("10.0.2.2:{port}");
    controller::conf(&folder.controller_dir(), &server, serial).or_advise()
}

/// How the app is, in a few words: for progress.
pub(super) fn words(node: &view::Device) -> String {
    let pending = node.pending.iter().map(|p| format!("{} {}: {}", p.kind, p.name, p.state));
    let apps = node.apps.iter().filter(|a| a.app == APP);
    let apps = apps.map(|a| {
        format!("{}: {}", a.app, [vec![a.state.clone()], a.problems.clone()].concat().join(", "))
    });
    let problems = node.problems.iter().cloned();
    apps.chain(pending).chain(problems).collect::<Vec<_>>().join("; ")
}

/// A failure to tell about: nothing is known of the app although the node is there.
pub(super) fn not_up(limit: Duration, last: &str) -> anyhow::Error {
    let last = if last.is_empty() { "nothing was heard of the app" } else { last };
    out::advised(
        format!("the page did not answer within {} s ({last})", limit.as_secs()),
        "look at the logs above; on a slow machine allow more time with --timeout",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_applied_is_well_formed() {
        let documents = controller::objects::read(&objects("demo-1", "eve/hello:0a1b")).unwrap();
        let names: Vec<String> = documents.iter().map(|d| d.key.to_string()).collect();
        assert_eq!(names, ["Device edge-1", "App hello"]);
    }
}
