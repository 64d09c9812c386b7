//! The kernel's network as `device::netinst` sees it, and its changes.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use device::netinst::ops::{Inside, Kernel, Link, Op};
use host::net::{Namespace, NetError, Netlink, Route};
use ipnet::Ipv4Net;
use model::AppId;
use tokio::runtime::Handle;

/// Reads and changes.
#[derive(Debug)]
pub(super) struct Hands {
    netlink: Netlink,
    /// `/run/netns`
    namespaces: PathBuf,
}

/// Why something could not be changed.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandsError {
    #[error(transparent)]
    Net(#[from] NetError),
    #[error("there is no interface {0}")]
    NoLink(String),
    #[error("cannot make the folder {path}")]
    Folder { path: PathBuf, source: io::Error },
}

impl Hands {
    pub(super) fn new(namespaces: PathBuf) -> Result<Hands, NetError> {
        Ok(Hands { netlink: Netlink::connect()?, namespaces })
    }

    /// Everything that could be ours.
    pub(super) async fn read(&self) -> Result<Kernel, NetError> {
        let isolated = self.netlink.isolated().await?;
        let links = self.netlink.links().await?;
        let names: BTreeMap<u32, String> =
            links.iter().map(|link| (link.index, link.name.clone())).collect();
        let mut kernel = Kernel::default();
        for link in links {
            let bridge = link.controller.and_then(|index| names.get(&index).cloned());
            let isolated = isolated.contains(&link.index);
            kernel.links.insert(link.name.clone(), Link { bridge, isolated, ..plain(&link) });
        }
        let entries = fs::read_dir(&self.namespaces).into_iter().flatten().flatten();
        let apps = entries.filter_map(|e| e.file_name().to_str()?.parse::<AppId>().ok());
        for app in apps {
            match Namespace::open(&self.path(app)) {
                Ok(_) => drop(kernel.apps.insert(app, self.read_inside(app).await?)),
                // A name that a crash left behind.
                Err(_) => Namespace::remove(&self.path(app))?,
            }
        }
        Ok(kernel)
    }

    async fn read_inside(&self, app: AppId) -> Result<Inside, NetError> {
        let netlink = self.inside(app)?;
        let mut inside = Inside::default();
        let mut names = BTreeMap::new();
        for link in netlink.links().await? {
            names.insert(link.index, link.name.clone());
            inside.links.insert(link.name.clone(), plain(&link));
        }
        for route in netlink.routes().await? {
            if let (0, Some(gateway), Some(name)) =
                (route.to.prefix_len(), route.gateway, names.get(&route.index))
            {
                inside.defaults.insert((name.clone(), gateway, route.metric));
            }
        }
        Ok(inside)
    }

    /// Does one thing.
    pub(super) async fn execute(&self, op: &Op) -> Result<(), HandsError> {
        let node = &self.netlink;
        match op {
            Op::DelNamespace(app) => Namespace::remove(&self.path(*app))?,
            Op::DelLink(name) => match index(node, name).await {
                Ok(index) => node.remove(index).await?,
                Err(HandsError::NoLink(_)) => {} // it went with its other end
                Err(e) => return Err(e),
            },
            Op::AddBridge(bridge) => {
                node.add_bridge(&bridge.name, bridge.mac, bridge.mtu.into()).await?;
            }
            Op::AddNamespace(app) => {
                let dir = &self.namespaces;
                fs::create_dir_all(dir)
                    .map_err(|source| HandsError::Folder { path: dir.clone(), source })?;
                Namespace::open_or_make(&self.path(*app))?;
            }
            Op::AddPair(app, link) => {
                let inside = Namespace::open(&self.path(*app))?;
                let mtu = link.mtu.into();
                node.add_pair(&link.host, &link.inside, link.mac, mtu, &inside).await?;
            }
            Op::Join(name, bridge) => {
                node.set_controller(index(node, name).await?, index(node, bridge).await?).await?;
            }
            Op::Isolate(name) => node.isolate(index(node, name).await?).await?,
            Op::Up(app, name) => {
                let there = self.place(*app)?;
                there.up(index(&there, name).await?).await?;
            }
            Op::DelAddress(app, name, address) => {
                let there = self.place(*app)?;
                there.remove_address(index(&there, name).await?, *address).await?;
            }
            Op::AddAddress(app, name, address) => {
                let there = self.place(*app)?;
                there.add_address(index(&there, name).await?, *address).await?;
            }
            Op::DelDefault(app, name, gateway, metric) => {
                let there = self.inside(*app)?;
                let index = index(&there, name).await?;
                there.remove_route(&default_route(index, *gateway, *metric)).await?;
            }
            Op::AddDefault(app, name, gateway, metric) => {
                let there = self.inside(*app)?;
                let index = index(&there, name).await?;
                there.add_route(&default_route(index, *gateway, *metric)).await?;
            }
        }
        Ok(())
    }

    fn place(&self, app: Option<AppId>) -> Result<Netlink, NetError> {
        app.map_or_else(|| Ok(self.netlink.clone()), |app| self.inside(app))
    }

    fn inside(&self, app: AppId) -> Result<Netlink, NetError> {
        let runtime = Handle::current();
        Namespace::open(&self.path(app))?.enter(|| {
            let _here = runtime.enter();
            Netlink::connect()
        })?
    }

    fn path(&self, app: AppId) -> PathBuf {
        self.namespaces.join(app.to_string())
    }
}

fn plain(link: &host::net::Link) -> Link {
    Link {
        mac: link.mac,
        up: link.up,
        mtu: link.mtu,
        bridge: None,
        isolated: false,
        addresses: link.addresses.iter().copied().collect(),
    }
}

async fn index(netlink: &Netlink, name: &str) -> Result<u32, HandsError> {
    let links = netlink.links().await?;
    let found = links.into_iter().find(|link| link.name == name);
    found.map(|link| link.index).ok_or_else(|| HandsError::NoLink(name.to_owned()))
}

fn default_route(index: u32, gateway: std::net::Ipv4Addr, metric: u32) -> Route {
    Route { to: Ipv4Net::default(), index, gateway: Some(gateway), metric }
}
