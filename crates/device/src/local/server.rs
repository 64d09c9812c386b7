//! Where the local profile server is: an app of this node, in a local network of it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use model::desired::{LocalNetwork, NetworkInstance, NetworkKind};
use model::reported::AppNetworkStatus;
use model::{AppId, NetworkInstanceId};

/// Why it cannot be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    /// The text is no host with a port.
    #[error("local_profile_server: {0:?} is no host or host:port")]
    Address(String),
    /// Nobody has that name or address.
    #[error(
        "local_profile_server: {0} is neither the address of an app in a local network nor a name \
         in the DNS of one"
    )]
    Nobody(String),
}

/// Its address: that of an app in a local network, or what such a network's own DNS entries say.
/// `port` is the one that counts when the config names none.
pub fn server(
    address: &str,
    port: u16,
    instances: &BTreeMap<NetworkInstanceId, NetworkInstance>,
    apps: &BTreeMap<AppId, AppNetworkStatus>,
) -> Result<SocketAddrV4, Unreachable> {
    let bad = || Unreachable::Address(address.chars().take(128).collect());
    let (host, port) = match address.trim().rsplit_once(':') {
        None => (address.trim(), port),
        Some((host, port)) => (host, port.parse().map_err(|_| bad())?),
    };
    if host.is_empty() || host.contains([':', '/', '[']) || port == 0 {
        return Err(bad());
    }
    let locals = || {
        instances.values().filter(|i| i.activate).filter_map(|i| match &i.kind {
            NetworkKind::Local(local) => Some((i.id, local)),
            NetworkKind::Switch => None,
        })
    };
    let found = match host.parse::<Ipv4Addr>() {
        Ok(ip) => {
            let vifs = || apps.values().flat_map(|app| &app.vifs);
            let at = |id| vifs().any(|vif| vif.network == id && vif.address == Some(ip));
            locals().any(|(id, _)| at(id)).then_some(ip)
        }
        Err(_) => locals().find_map(|(_, local)| named(local, host)),
    };
    let ip = found.ok_or_else(|| Unreachable::Nobody(host.chars().take(128).collect()))?;
    Ok(SocketAddrV4::new(ip, port))
}

/// What the network's own DNS says of a name, as far as it leads into the network.
fn named(local: &LocalNetwork, host: &str) -> Option<Ipv4Addr> {
    let entries = local.hosts.iter().filter(|e| e.name.eq_ignore_ascii_case(host));
    entries.flat_map(|e| &e.addresses).find_map(|a| match a {
        IpAddr::V4(v4) if local.subnet.contains(v4) => Some(*v4),
        _ => None,
    })
}
