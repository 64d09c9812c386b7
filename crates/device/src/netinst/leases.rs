//! Who gets which address by DHCP (RFC 2131), seen from the server.
//!
//! An app's interface has one address for good. Others on the network (what an app runs inside)
//! get what is free in the range, for an hour at a time.
//!
//! Not done: DECLINE, RELEASE and INFORM. What a guest gives up is free when its hour is over.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use model::desired::LocalNetwork;
use model::{NetworkInstanceId, UnixMillis};
use serde::{Deserialize, Serialize};

use super::numbers::free_address;

/// How long a lease is.
pub const LEASE: Duration = Duration::from_secs(3600);
/// How long an offer is remembered.
const SHORT: Duration = Duration::from_secs(60);

/// A hardware address.
pub type Mac = [u8; 6];

/// What one network's DHCP goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dhcp {
    /// The network.
    pub local: LocalNetwork,
    /// Whether it has a way out, so that the gateway leads somewhere.
    pub routed: bool,
    /// Largest packet.
    pub mtu: u16,
    /// Addresses of apps.
    pub reserved: BTreeMap<Mac, Ipv4Addr>,
}

/// Leases of those who are no apps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guests {
    /// One a hardware address, one an IP address.
    pub held: Vec<Held>,
}

/// The file of all guests. Every version that was ever written loads.
#[derive(Deserialize, Serialize)]
#[serde(tag = "version")]
enum Saved {
    #[serde(rename = "1")]
    V1 { networks: BTreeMap<NetworkInstanceId, Guests> },
}

/// Reads what [`guests_to_bytes`] wrote, of this version or an earlier one.
pub fn guests_from_bytes(
    bytes: &[u8],
) -> Result<BTreeMap<NetworkInstanceId, Guests>, serde_json::Error> {
    serde_json::from_slice(bytes).map(|Saved::V1 { networks }| networks)
}

/// The text of the file of guests.
pub fn guests_to_bytes(networks: &BTreeMap<NetworkInstanceId, Guests>) -> Vec<u8> {
    serde_json::to_vec_pretty(&Saved::V1 { networks: networks.clone() }).unwrap_or_default()
}

/// A lease of someone who is no app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Whose.
    pub mac: Mac,
    /// The address.
    pub address: Ipv4Addr,
    /// When it is free again.
    pub until: UnixMillis,
}

/// What a client says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Which message.
    pub kind: RequestKind,
    /// Its hardware address.
    pub mac: Mac,
    /// The address it would like (option 50), or has (`ciaddr`).
    pub address: Option<Ipv4Addr>,
    /// The server it means (option 54).
    pub server: Option<Ipv4Addr>,
}

/// Messages of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestKind {
    /// Who is there?
    Discover,
    /// I take, or keep, that address.
    Request,
}

/// What the server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// You may have this one.
    Offer(Ipv4Addr),
    /// It is yours.
    Ack(Ipv4Addr),
    /// It is not for you.
    Nak,
}

/// One message. `None`: nothing is said to it.
pub fn answer(
    dhcp: &Dhcp,
    guests: Guests,
    request: &Request,
    now: UnixMillis,
) -> (Guests, Option<Answer>) {
    let mut guests = guests;
    let apps = |ip: Ipv4Addr| dhcp.reserved.values().any(|reserved| *reserved == ip);
    guests.held.retain(|held| held.until > now && !apps(held.address));
    if request.server.is_some_and(|server| server != dhcp.local.gateway) {
        return (guests, None); // it chose another server
    }
    let own = dhcp.reserved.get(&request.mac).copied();
    match request.kind {
        RequestKind::Discover => {
            let Some(address) = own.or_else(|| guests.choose(dhcp, request)) else {
                return (guests, None);
            };
            if own.is_none() {
                guests.hold(request.mac, address, now.after(SHORT));
            }
            (guests, Some(Answer::Offer(address)))
        }
        RequestKind::Request => {
            let Some(address) = own.or_else(|| guests.choose(dhcp, request)) else {
                return (guests, Some(Answer::Nak));
            };
            if request.address.is_some_and(|wanted| wanted != address) {
                return (guests, Some(Answer::Nak));
            }
            if own.is_none() {
                guests.hold(request.mac, address, now.after(LEASE));
            }
            (guests, Some(Answer::Ack(address)))
        }
    }
}

impl Guests {
    /// What it has; else what it asks for, if that is free; else anything that is.
    fn choose(&self, dhcp: &Dhcp, request: &Request) -> Option<Ipv4Addr> {
        let theirs = self.held.iter().find(|held| held.mac == request.mac);
        if let Some(held) = theirs {
            return Some(held.address);
        }
        let taken = |ip: Ipv4Addr| {
            self.held.iter().any(|held| held.address == ip)
                || dhcp.reserved.values().any(|reserved| *reserved == ip)
        };
        let range = dhcp.local.range;
        let liked = request.address.filter(|ip| (range.start..=range.end).contains(ip));
        let liked = liked.filter(|ip| super::numbers::usable(&dhcp.local, *ip) && !taken(*ip));
        liked.or_else(|| free_address(&dhcp.local, taken))
    }

    fn hold(&mut self, mac: Mac, address: Ipv4Addr, until: UnixMillis) {
        self.held.retain(|held| held.mac != mac && held.address != address);
        self.held.push(Held { mac, address, until });
    }
}
