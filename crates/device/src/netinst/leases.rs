//! Who gets which address by DHCP (RFC 2131), seen from the server.
//!
//! An app's interface has one address for good. Others on the network (what an app runs inside)
//! get what is free in the range, for an hour at a time.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::Ipv4Net;
use model::UnixMillis;
use model::desired::LocalNetwork;
use serde::{Deserialize, Serialize};

use super::numbers::free_address;

/// How long a lease is.
pub const LEASE: Duration = Duration::from_secs(3600);
/// How long an offer, or the refusal of an address, is remembered.
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
    /// Time servers.
    pub ntp: Vec<Ipv4Addr>,
    /// Addresses of apps.
    pub reserved: BTreeMap<Mac, Ipv4Addr>,
}

/// Leases of those who are no apps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guests {
    /// One a hardware address, one an IP address.
    pub held: Vec<Held>,
}

/// A lease of someone who is no app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Whose. `None`: nobody's; someone found the address in use.
    pub mac: Option<Mac>,
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
    /// Someone else has that address.
    Decline,
    /// I do not need that address any more.
    Release,
    /// I have an address; what else should I know?
    Inform,
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
    /// What else there is to know.
    Informed,
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
        RequestKind::Inform => (guests, Some(Answer::Informed)),
        RequestKind::Release => {
            guests.held.retain(|held| held.mac != Some(request.mac));
            (guests, None)
        }
        RequestKind::Decline => {
            // Whoever is no app may not take addresses out of use but the one it was given.
            let theirs = guests.held.iter_mut().find(|held| held.mac == Some(request.mac));
            if let Some(held) = theirs {
                *held = Held { mac: None, address: held.address, until: now.after(LEASE) };
            }
            (guests, None)
        }
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
        let theirs = self.held.iter().find(|held| held.mac == Some(request.mac));
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
        self.held.retain(|held| held.mac != Some(mac) && held.address != address);
        self.held.push(Held { mac: Some(mac), address, until });
    }
}

impl Dhcp {
    /// Routes a client should have: the way out, if there is one. The network itself follows from
    /// the mask.
    pub fn routes(&self) -> Vec<(Ipv4Net, Ipv4Addr)> {
        let default = (Ipv4Net::default(), self.local.gateway);
        if self.routed { vec![default] } else { Vec::new() }
    }
}

/// The addresses in a list that are IPv4.
pub(super) fn only_v4(all: &[IpAddr]) -> Vec<Ipv4Addr> {
    let v4 = |ip: &IpAddr| match ip {
        IpAddr::V4(v4) => Some(*v4),
        IpAddr::V6(_) => None,
    };
    all.iter().filter_map(v4).collect()
}
