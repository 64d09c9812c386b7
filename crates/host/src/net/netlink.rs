//! Interfaces, addresses and routes through rtnetlink (rtnetlink(7)). IPv4 only, main table only.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;

use futures_util::{Stream, StreamExt, TryStreamExt};
use ipnet::Ipv4Net;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::{
    AddressMessageBuilder, Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth,
    MulticastGroup, RouteMessageBuilder,
};

use super::{Namespace, NetError};

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Hardware address.
    pub mac: Option<[u8; 6]>,
    /// Switched on.
    pub up: bool,
    /// Something is at the other end.
    pub carrier: bool,
    /// Ethernet hardware or what a hypervisor shows as such: no bridge, no virtual pair.
    pub ethernet: bool,
    /// The bridge it is a port of.
    pub controller: Option<u32>,
    /// What it carries at once.
    pub mtu: u32,
    /// IPv4 addresses.
    pub addresses: Vec<Ipv4Net>,
}

/// A route of the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where to; `0.0.0.0/0` is the default route.
    pub to: Ipv4Net,
    /// Through which interface.
    pub index: u32,
    /// By which neighbour.
    pub gateway: Option<Ipv4Addr>,
    /// Lower wins.
    pub metric: u32,
}

/// A connection to the kernel's network. It belongs to the namespace it was made in.
#[derive(Debug, Clone)]
pub struct Netlink {
    pub(super) handle: Handle,
}

/// Says that interfaces, addresses or routes changed.
pub struct Changes {
    messages: std::pin::Pin<Box<dyn Stream<Item = ()>>>,
}

impl std::fmt::Debug for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Changes")
    }
}

impl Changes {
    /// Listens from now on. Needs a tokio runtime.
    pub fn listen() -> Result<Changes, NetError> {
        let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv4Route];
        let (connection, _, messages) = rtnetlink::new_multicast_connection(&groups)
            .map_err(|e| NetError::new("listen to changes of the network", e))?;
        tokio::spawn(connection);
        Ok(Changes { messages: Box::pin(messages.map(|_| ())) })
    }

    /// Waits for a change; several within 20 ms are one.
    pub async fn changed(&mut self) {
        if self.messages.next().await.is_none() {
            // The connection is gone; the caller's own clock has to do.
            std::future::pending::<()>().await;
        }
        let quiet = std::time::Duration::from_millis(20);
        while let Ok(Some(())) = tokio::time::timeout(quiet, self.messages.next()).await {}
    }
}

impl Netlink {
    /// Connects to the network of the calling thread. Needs a tokio runtime.
    pub fn connect() -> Result<Netlink, NetError> {
        let (connection, handle, _) = rtnetlink::new_connection()
            .map_err(|e| NetError::new("open a netlink connection", e))?;
        tokio::spawn(connection);
        Ok(Netlink { handle })
    }

    /// Every interface with its addresses, by number.
    pub async fn links(&self) -> Result<Vec<Link>, NetError> {
        let fail = |e| error("list interfaces", e);
        let messages: Vec<LinkMessage> =
            self.handle.link().get().execute().try_collect().await.map_err(fail)?;
        let mut links: Vec<Link> = messages.iter().filter_map(link).collect();
        let mut addresses = Box::pin(self.handle.address().get().execute());
        let fail = |e| error("list addresses", e);
        while let Some(message) = addresses.try_next().await.map_err(fail)? {
            if message.header.family != AddressFamily::Inet {
                continue;
            }
            // On a point-to-point link IFA_ADDRESS is the other end; IFA_LOCAL is always ours.
            let own = message.attributes.iter().find_map(|a| match a {
                AddressAttribute::Local(std::net::IpAddr::V4(own)) => Some(*own),
                _ => None,
            });
            let net = own.and_then(|own| Ipv4Net::new(own, message.header.prefix_len).ok());
            let of = links.iter_mut().find(|link| link.index == message.header.index);
            if let (Some(net), Some(link)) = (net, of) {
                link.addresses.push(net);
            }
        }
        links.sort_by_key(|link| link.index);
        Ok(links)
    }

    /// The routes that a program or a person made; those that follow from addresses are left out.
    pub async fn routes(&self) -> Result<Vec<Route>, NetError> {
        let query = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let messages: Vec<RouteMessage> = self
            .handle
            .route()
            .get(query)
            .execute()
            .try_collect()
            .await
            .map_err(|e| error("list routes", e))?;
        Ok(messages.iter().filter_map(route).collect())
    }

    /// Switches an interface on.
    pub async fn up(&self, index: u32) -> Result<(), NetError> {
        self.set(index, |link| link.up(), "switch on").await
    }

    /// Sets what an interface carries at once.
    pub async fn set_mtu(&self, index: u32, mtu: u32) -> Result<(), NetError> {
        self.set(index, |link| link.mtu(mtu), "set the MTU of").await
    }

    /// Makes an interface a port of a bridge.
    pub async fn set_controller(&self, index: u32, bridge: u32) -> Result<(), NetError> {
        self.set(index, |link| link.controller(bridge), "add to its bridge").await
    }

    async fn set(
        &self,
        index: u32,
        change: impl FnOnce(LinkMessageBuilder<LinkUnspec>) -> LinkMessageBuilder<LinkUnspec>,
        doing: &str,
    ) -> Result<(), NetError> {
        let message = change(LinkUnspec::new_with_index(index)).build();
        let done = self.handle.link().set(message).execute().await;
        done.map_err(|e| error(&format!("{doing} interface {index}"), e))
    }

    /// Adds a bridge, switched on, that forwards at once (no spanning tree).
    pub async fn add_bridge(&self, name: &str, mac: [u8; 6], mtu: u32) -> Result<(), NetError> {
        let message =
            LinkBridge::new(name).address(mac.to_vec()).mtu(mtu).forward_delay(0).up().build();
        let done = self.handle.link().add(message).execute().await;
        done.map_err(|e| error(&format!("add bridge {name}"), e))
    }

    /// Adds a virtual pair: `name` here, and its other end `peer` with hardware address `mac` in
    /// another namespace.
    pub async fn add_pair(
        &self,
        name: &str,
        peer: &str,
        mac: [u8; 6],
        mtu: u32,
        namespace: &Namespace,
    ) -> Result<(), NetError> {
        let there = LinkMessageBuilder::<LinkUnspec>::new()
            .name(peer.to_owned())
            .address(mac.to_vec())
            .mtu(mtu)
            .setns_by_fd(namespace.file().as_raw_fd())
            .build();
        let message = LinkVeth::new(name, peer)
            .mtu(mtu)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(there)))
            .up()
            .build();
        let done = self.handle.link().add(message).execute().await;
        done.map_err(|e| error(&format!("add the pair {name} and {peer}"), e))
    }

    /// Removes an interface. One that is not there is no error.
    pub async fn remove(&self, index: u32) -> Result<(), NetError> {
        match self.handle.link().del(index).execute().await.map_err(to_io) {
            Err(e) if e.raw_os_error() == Some(19) => Ok(()), // ENODEV
            other => other.map_err(|e| NetError::new(format!("remove interface {index}"), e)),
        }
    }

    /// Gives an interface an address. One that it has is no error.
    pub async fn add_address(&self, index: u32, address: Ipv4Net) -> Result<(), NetError> {
        let (ip, prefix) = (address.addr().into(), address.prefix_len());
        let done = self.handle.address().add(index, ip, prefix).replace().execute().await;
        done.map_err(|e| error(&format!("add address {address} to interface {index}"), e))
    }

    /// Takes an address from an interface. One that is not there is no error.
    pub async fn remove_address(&self, index: u32, address: Ipv4Net) -> Result<(), NetError> {
        let message = AddressMessageBuilder::<Ipv4Addr>::new()
            .index(index)
            .address(address.addr(), address.prefix_len())
            .build();
        match self.handle.address().del(message).execute().await.map_err(to_io) {
            Err(e) if e.raw_os_error() == Some(99) => Ok(()), // EADDRNOTAVAIL
            other => other.map_err(|e| {
                NetError::new(format!("remove address {address} from interface {index}"), e)
            }),
        }
    }

    /// Adds a route, or replaces one of the same target and metric.
    pub async fn add_route(&self, route: &Route) -> Result<(), NetError> {
        let done = self.handle.route().add(message(route)).replace().execute().await;
        done.map_err(|e| error(&format!("add a route to {}", route.to), e))
    }

    /// Removes a route. One that is not there is no error.
    pub async fn remove_route(&self, route: &Route) -> Result<(), NetError> {
        match self.handle.route().del(message(route)).execute().await.map_err(to_io) {
            Err(e) if e.raw_os_error() == Some(3) => Ok(()), // ESRCH
            other => {
                other.map_err(|e| NetError::new(format!("remove the route to {}", route.to), e))
            }
        }
    }
}

fn message(route: &Route) -> RouteMessage {
    let scope = if route.gateway.is_some() { RouteScope::Universe } else { RouteScope::Link };
    let mut builder = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(route.to.addr(), route.to.prefix_len())
        .output_interface(route.index)
        .priority(route.metric)
        .protocol(RouteProtocol::Static)
        .scope(scope);
    if let Some(gateway) = route.gateway {
        // A gateway outside of the subnet is what some providers give out.
        builder = builder.gateway(gateway).onlink();
    }
    builder.build()
}

fn link(message: &LinkMessage) -> Option<Link> {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: None,
        up: message.header.flags.contains(LinkFlags::Up),
        carrier: message.header.flags.contains(LinkFlags::LowerUp),
        ethernet: message.header.link_layer_type == LinkLayerType::Ether,
        controller: None,
        mtu: 0,
        addresses: Vec::new(),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => name.clone_into(&mut link.name),
            LinkAttribute::Address(mac) => link.mac = mac.as_slice().try_into().ok(),
            LinkAttribute::Controller(index) => link.controller = Some(*index),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::LinkInfo(info) => {
                // Only what software made says of which kind it is.
                let made = |i: &LinkInfo| matches!(i, LinkInfo::Kind(kind) if *kind != InfoKind::Other(String::new()));
                link.ethernet &= !info.iter().any(made);
            }
            _ => {}
        }
    }
    (!link.name.is_empty()).then_some(link)
}

fn route(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    let ours = header.kind == RouteType::Unicast
        && header.address_family == AddressFamily::Inet
        && header.protocol != RouteProtocol::Kernel;
    if !ours {
        return None;
    }
    let mut route = Route { to: Ipv4Net::default(), index: 0, gateway: None, metric: 0 };
    let mut to = Ipv4Addr::UNSPECIFIED;
    let mut table = u32::from(header.table);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => to = *address,
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => route.gateway = Some(*address),
            RouteAttribute::Oif(index) => route.index = *index,
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::Table(number) => table = *number,
            _ => {}
        }
    }
    route.to = Ipv4Net::new(to, header.destination_prefix_length).ok()?;
    (table == u32::from(RouteHeader::RT_TABLE_MAIN) && route.index != 0).then_some(route)
}

pub(super) fn error(doing: &str, error: rtnetlink::Error) -> NetError {
    NetError::new(doing, to_io(error))
}

fn to_io(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other.to_string()),
    }
}
