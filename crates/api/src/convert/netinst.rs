//! Virtual networks: `NetworkInstanceConfig`.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use model::desired::{
    DhcpRange, DnsEntry, LocalNetwork, NetworkInstance, NetworkKind, PortName, PortSelector,
};

use super::ports::{addresses, mtu, optional_address};
use super::refuse::{Rejected, id, no, wrong};
use crate::pb::common::{IpRange, Ipspec, PhyIoType, ZnetStaticDnsEntry};
use crate::pb::config::{
    Adapter, AddressType, NetworkInstanceConfig, UuiDandVersion, ZNetworkInstType,
};

/// A range is cut to so many addresses (EVE's rule).
const RANGE_MAX: u32 = 256;

pub(super) fn read(p: &NetworkInstanceConfig) -> Result<NetworkInstance, Rejected> {
    let named =
        p.uuidandversion.as_ref().ok_or_else(|| wrong("uuidandversion", "it is missing"))?;
    let kind = match ZNetworkInstType::try_from(p.inst_type) {
        Ok(ZNetworkInstType::ZnetInstLocal) => NetworkKind::Local(read_local(p)?),
        Ok(ZNetworkInstType::ZnetInstSwitch) => NetworkKind::Switch,
        _ => return Err(no("instType", p.inst_type, "switch (1) or local (2)")),
    };
    let port = match p.port.as_ref().map_or("", |a| a.name.as_str()) {
        "" => None,
        "uplink" => Some(PortSelector::Uplink),
        "freeuplink" => Some(PortSelector::FreeUplink),
        "all" => {
            return Err(wrong("port.name", "networks with several ports are not supported yet"));
        }
        name => Some(PortSelector::Port(
            PortName::new(name).ok_or_else(|| no("port.name", name, "a port name"))?,
        )),
    };
    Ok(NetworkInstance {
        id: id("uuidandversion.uuid", &named.uuid)?,
        name: p.displayname.clone(),
        activate: p.activate,
        kind,
        port,
        mtu: mtu(p.mtu)?,
    })
}

fn read_local(p: &NetworkInstanceConfig) -> Result<LocalNetwork, Rejected> {
    if ![AddressType::First.into(), AddressType::Ipv4.into()].contains(&p.ip_type) {
        return Err(no("ipType", p.ip_type, "IPV4 (1); others are not supported yet"));
    }
    let ip = p.ip.as_ref().ok_or_else(|| wrong("ip", "it is missing"))?;
    let subnet: Ipv4Net =
        ip.subnet.parse().map_err(|_| no("ip.subnet", &ip.subnet, "a subnet of IP version 4"))?;
    let gateway = optional_address("ip.gateway", &ip.gateway)?;
    let range = match &ip.dhcp_range {
        Some(r) => {
            let start = optional_address("ip.dhcpRange.start", &r.start)?;
            let end = optional_address("ip.dhcpRange.end", &r.end)?;
            match (start, end) {
                (Some(start), Some(end)) => Some(DhcpRange { start, end }),
                (None, None) => None,
                (None, Some(_)) => return Err(wrong("ip.dhcpRange.start", "it is missing")),
                (Some(_), None) => return Err(wrong("ip.dhcpRange.end", "it is missing")),
            }
        }
        None => None,
    };
    let subnet = subnet.trunc();
    let (gateway, range) = settle(subnet, gateway, range)?;
    let mut dns = addresses("ip.dns", &ip.dns)?;
    // The network's own DNS answers at the gateway: to ask it would be to ask itself.
    dns.retain(|server| *server != gateway);
    let hosts = p.dns.iter().map(|entry| {
        Ok(DnsEntry {
            name: entry.host_name.clone(),
            addresses: addresses("dns.Address", &entry.address)?,
        })
    });
    Ok(LocalNetwork { subnet, gateway, range, dns, hosts: hosts.collect::<Result<_, _>>()? })
}

/// Completes and checks the addressing of a local network (rules of EVE):
/// - a subnet has 4 addresses at least;
/// - the gateway is the first host unless said otherwise;
/// - a range that starts at the network's address or the gateway starts behind it, one that ends at
///   the broadcast address ends before it; otherwise the gateway must not be in it;
/// - without a range: all hosts behind the first two, of larger subnets the upper half; whatever
///   side of the gateway has more;
/// - never more than 256 addresses.
fn settle(
    subnet: Ipv4Net,
    gateway: Option<Ipv4Addr>,
    range: Option<DhcpRange>,
) -> Result<(Ipv4Addr, DhcpRange), Rejected> {
    let (first, last) = (subnet.network().to_bits(), subnet.broadcast().to_bits());
    if last - first < 3 {
        return Err(no("ip.subnet", subnet, "a subnet of at least 4 addresses"));
    }
    let gateway = gateway.map_or(first + 1, Ipv4Addr::to_bits);
    if !(first + 1..last).contains(&gateway) {
        return Err(no("ip.gateway", Ipv4Addr::from_bits(gateway), "a host in the subnet"));
    }
    let (start, end) = match range {
        Some(range) => {
            let (mut start, mut end) = (range.start.to_bits(), range.end.to_bits());
            for (field, at) in [("ip.dhcpRange.start", start), ("ip.dhcpRange.end", end)] {
                if !(first..=last).contains(&at) {
                    return Err(no(field, Ipv4Addr::from_bits(at), "an address in the subnet"));
                }
            }
            start += u32::from(start == first);
            start += u32::from(start == gateway);
            end -= u32::from(end == last);
            if start > end {
                return Err(wrong("ip.dhcpRange", "it holds no address"));
            }
            if (start..=end).contains(&gateway) {
                let gateway = Ipv4Addr::from_bits(gateway);
                return Err(no("ip.gateway", gateway, "outside the DHCP range"));
            }
            (start, end)
        }
        None => {
            let (size, hosts_end) = (last - first, last - 1);
            let from = if size >= RANGE_MAX { first + size / 2 + 1 } else { first + 2 };
            match gateway {
                g if g < from => (from, hosts_end),
                g if g - from > hosts_end - g => (from, g - 1),
                g if g == hosts_end => (first + 1, g - 1),
                g => (g + 1, hosts_end),
            }
        }
    };
    let end = end.min(start + (RANGE_MAX - 1));
    let range = DhcpRange { start: Ipv4Addr::from_bits(start), end: Ipv4Addr::from_bits(end) };
    Ok((Ipv4Addr::from_bits(gateway), range))
}

pub(super) fn write(network: &NetworkInstance) -> NetworkInstanceConfig {
    let (kind, ip_type, local) = match &network.kind {
        NetworkKind::Local(local) => {
            (ZNetworkInstType::ZnetInstLocal, AddressType::Ipv4, Some(local))
        }
        NetworkKind::Switch => (ZNetworkInstType::ZnetInstSwitch, AddressType::First, None),
    };
    let port = network.port.as_ref().map(|port| Adapter {
        r#type: PhyIoType::PhyIoNetEth.into(),
        name: match port {
            PortSelector::Uplink => "uplink".to_owned(),
            PortSelector::FreeUplink => "freeuplink".to_owned(),
            PortSelector::Port(name) => name.to_string(),
        },
        ..Adapter::default()
    });
    let ip = local.map(|local| Ipspec {
        subnet: local.subnet.to_string(),
        gateway: local.gateway.to_string(),
        dns: local.dns.iter().map(ToString::to_string).collect(),
        dhcp_range: Some(IpRange {
            start: local.range.start.to_string(),
            end: local.range.end.to_string(),
        }),
        ..Ipspec::default()
    });
    let hosts = local.map(|l| l.hosts.as_slice()).unwrap_or_default().iter();
    NetworkInstanceConfig {
        uuidandversion: Some(UuiDandVersion {
            uuid: network.id.to_string(),
            version: String::new(),
        }),
        displayname: network.name.clone(),
        inst_type: kind.into(),
        activate: network.activate,
        port,
        ip_type: ip_type.into(),
        ip,
        dns: hosts
            .map(|entry| ZnetStaticDnsEntry {
                host_name: entry.name.clone(),
                address: entry.addresses.iter().map(ToString::to_string).collect(),
            })
            .collect(),
        mtu: network.mtu.unwrap_or_default().into(),
        // It costs the node time and nobody here reads it.
        disable_flowlog: true,
        ..NetworkInstanceConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(subnet: &str, gateway: &str, range: &str, want: &str) {
        let range = range.split_once('-').map(|(start, end)| DhcpRange {
            start: start.parse().unwrap(),
            end: end.parse().unwrap(),
        });
        let gateway = (!gateway.is_empty()).then(|| gateway.parse().unwrap());
        let got = match settle(subnet.parse().unwrap(), gateway, range) {
            Ok((gateway, range)) => format!("{gateway} {}-{}", range.start, range.end),
            Err(why) => format!("{why:?}"),
        };
        assert!(got.contains(want), "{got} instead of {want}");
    }

    #[test]
    fn what_is_not_said_is_completed() {
        check("10.1.1.0/24", "", "", "10.1.1.1 10.1.1.2-10.1.1.254");
        check("10.1.1.0/30", "", "", "10.1.1.1 10.1.1.2-10.1.1.2");
        check("10.1.1.0/30", "10.1.1.2", "", "10.1.1.2 10.1.1.1-10.1.1.1");
        check("10.1.1.0/24", "10.1.1.254", "", "10.1.1.254 10.1.1.2-10.1.1.253");
        check("10.1.1.0/24", "10.1.1.9", "", "10.1.1.9 10.1.1.10-10.1.1.254");
        check("10.1.0.0/16", "", "", "10.1.0.1 10.1.128.0-10.1.128.255");
        check("0.0.0.0/0", "", "", "0.0.0.1 128.0.0.0-128.0.0.255");
    }

    #[test]
    fn ends_of_a_range_are_corrected() {
        check("10.1.1.0/24", "", "10.1.1.0-10.1.1.255", "10.1.1.1 10.1.1.2-10.1.1.254");
        check("10.1.1.0/24", "", "10.1.1.1-10.1.1.9", "10.1.1.1 10.1.1.2-10.1.1.9");
        check("10.1.0.0/16", "", "10.1.1.0-10.1.9.0", "10.1.0.1 10.1.1.0-10.1.1.255");
    }

    #[test]
    fn what_cannot_work_is_refused() {
        check("10.1.1.0/31", "", "", "ip.subnet");
        check("10.1.1.1/32", "", "", "ip.subnet");
        check("10.1.1.0/24", "10.1.2.1", "", "ip.gateway");
        check("10.1.1.0/24", "10.1.1.0", "", "ip.gateway");
        check("10.1.1.0/24", "10.1.1.255", "", "ip.gateway");
        check("10.1.1.0/24", "10.1.1.9", "10.1.1.2-10.1.1.99", "outside the DHCP range");
        check("10.1.1.0/24", "", "10.1.1.9-10.1.1.3", "holds no address");
        check("10.1.1.0/24", "", "10.1.1.9-10.1.2.3", "ip.dhcpRange.end");
        check("255.255.255.252/30", "", "255.255.255.255-255.255.255.255", "holds no address");
    }
}
