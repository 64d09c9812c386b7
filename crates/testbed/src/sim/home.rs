//! A real controller in the process of a test, for simulated devices.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use controller::client::Client;
use controller::{Running, Settings};

use super::http::{Session, host_of};
use super::line::Conf;
use super::proxy::FaultProxy;

/// A controller with its data in a folder of its own.
#[derive(Debug)]
pub struct Home {
    data: tempfile::TempDir,
    running: Option<Running>,
    address: SocketAddr,
}

impl Home {
    /// Starts one on a free port of this machine.
    pub async fn start() -> anyhow::Result<Home> {
        let data = tempfile::tempdir()?;
        let settings = Settings::new(data.path().to_owned(), host::clock::now);
        let running = controller::serve(settings).await?;
        let address = running.address;
        Ok(Home { data, running: Some(running), address })
    }

    /// Stops it in an orderly way.
    pub async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop().await;
        }
    }

    /// Starts it again on the same port and with the same data.
    pub async fn again(&mut self) -> anyhow::Result<()> {
        let settings = Settings {
            listen: self.address,
            ..Settings::new(self.data.path().to_owned(), host::clock::now)
        };
        self.running = Some(controller::serve(settings).await?);
        Ok(())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its data folder.
    pub fn data(&self) -> &Path {
        self.data.path()
    }

    /// Its operator.
    pub fn operator(&self) -> anyhow::Result<Client> {
        Ok(Client::from_data(self.data.path())?)
    }

    /// The files of a CONFIG partition that leads to it.
    pub fn files(&self) -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
        let server = format!("localhost:{}", self.address.port());
        Ok(controller::conf(self.data.path(), &server, "")?)
    }

    /// What devices need to find it.
    pub fn conf(&self) -> anyhow::Result<Arc<Conf>> {
        Ok(Arc::new(Conf::from_files(&self.files()?, self.address, Session::Resumed)?))
    }

    /// A fault proxy in front of it, and what devices need to find that.
    pub async fn behind_proxy(&self) -> anyhow::Result<(FaultProxy, Arc<Conf>)> {
        let proxy = FaultProxy::start(Some(self.conf()?.endpoint())).await?;
        let mut files = self.files()?;
        let root = files.get_mut("root-certificate.pem").context("there is no root certificate")?;
        root.extend_from_slice(proxy.root_pem().as_bytes());
        let conf = Conf::from_files(&files, proxy.address(), Session::Resumed)?;
        Ok((proxy, Arc::new(conf)))
    }
}

/// What devices need to find the controller of a data folder on this machine, which runs or has run.
pub async fn conf_of(data: &Path, session: Session) -> anyhow::Result<Conf> {
    let endpoint = std::fs::read_to_string(data.join("endpoint"))
        .with_context(|| format!("{} has no endpoint", data.display()))?;
    let host = host_of(&endpoint)?;
    let mut addresses = tokio::net::lookup_host(host).await?;
    let address = addresses.find(SocketAddr::is_ipv4).context("the controller has no address")?;
    let files = controller::conf(data, host, "")?;
    Conf::from_files(&files, address, session)
}

/// Asks again and again until there is an answer; `what` is awaited.
pub async fn eventually<T, F>(
    what: &str,
    limit: Duration,
    mut ask: impl FnMut() -> F,
) -> anyhow::Result<T>
where
    F: Future<Output = Option<T>>,
{
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let late = || format!("{what} did not come within {} s", limit.as_secs());
    tokio::time::timeout(limit, asking).await.with_context(late)
}
