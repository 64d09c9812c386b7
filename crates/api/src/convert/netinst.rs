//! Virtual networks: `NetworkInstanceConfig`.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use model::desired::{
    AccessPort, DhcpRange, DnsEntry, LocalNetwork, NetworkInstance, NetworkKind, NetworkOptions,
    PortName, PortSelector, RouteProbe, StaticRoute,
};

use super::hardware::vlan_id;
use super::ports::{addresses, mtu, optional_address};
use super::refuse::{Rejected, id, no, wrong};
use super::wireless::{probe, write_probe};
use crate::pb::common::{IpRange, Ipspec, PhyIoType, ZnetStaticDnsEntry};
use crate::pb::config::{
    Adapter, AddressType, IpRoute, NetworkInstanceConfig, PortProbe, SpanningTreeProtocol,
    UuiDandVersion, VlanAccessPort, ZNetworkInstType,
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
        "all" => Some(PortSelector::All),
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
        options: options(p)?,
    })
}

fn options(p: &NetworkInstanceConfig) -> Result<NetworkOptions, Rejected> {
    let access = |a: &VlanAccessPort| {
        Ok(AccessPort {
            vlan: vlan_id("vlan_access_ports.vlan_id", a.vlan_id)?,
            port: a.access_port.clone(),
        })
    };
    let routes = p
        .static_routes
        .iter()
        .enumerate()
        .map(|(at, r)| route(r).map_err(|why| why.within(format_args!("static_routes[{at}]"))));
    Ok(NetworkOptions {
        flow_log: !p.disable_flowlog,
        propagate_routes: p.propagate_connected_routes,
        routes: routes.collect::<Result<_, _>>()?,
        access_ports: p.vlan_access_ports.iter().map(access).collect::<Result<_, _>>()?,
        forward_lldp: p.forward_lldp,
        bpdu_guard: p.stp.as_ref().map(|s| s.ports_with_bpdu_guard.clone()).unwrap_or_default(),
    })
}

fn route(p: &IpRoute) -> Result<StaticRoute, Rejected> {
    let to = p
        .destination_network
        .parse()
        .map_err(|_| no("destination_network", &p.destination_network, "a subnet"))?;
    let gateway = match p.gateway.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|_| no("gateway", text, "an IP address"))?),
    };
    if gateway.is_none() && p.port.is_empty() {
        return Err(wrong("gateway", "a route needs a gateway or a port"));
    }
    let probe = match &p.probe {
        None => None,
        Some(p) => Some(RouteProbe {
            ping_gateway: p.enable_gw_ping,
            ping_max_cost: u8::try_from(p.gw_ping_max_cost)
                .map_err(|_| no("probe.gw_ping_max_cost", p.gw_ping_max_cost, "0 to 255"))?,
            custom: probe("probe.custom_probe", p.custom_probe.as_ref())?,
        }),
    };
    Ok(StaticRoute {
        to,
        gateway,
        port: p.port.clone(),
        probe,
        prefer_cheap: p.prefer_lower_cost,
        prefer_signal: p.prefer_stronger_wwan_signal,
    })
}

fn write_route(route: &StaticRoute) -> IpRoute {
    IpRoute {
        destination_network: route.to.to_string(),
        gateway: route.gateway.map(|g| g.to_string()).unwrap_or_default(),
        port: route.port.clone(),
        probe: route.probe.as_ref().map(|p| PortProbe {
            enable_gw_ping: p.ping_gateway,
            gw_ping_max_cost: p.ping_max_cost.into(),
            custom_probe: p.custom.as_ref().map(write_probe),
        }),
        prefer_lower_cost: route.prefer_cheap,
        prefer_stronger_wwan_signal: route.prefer_signal,
    }
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
            PortSelector::All => "all".to_owned(),
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
    let options = &network.options;
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
        stp: (!options.bpdu_guard.is_empty())
            .then(|| SpanningTreeProtocol { ports_with_bpdu_guard: options.bpdu_guard.clone() }),
        propagate_connected_routes: options.propagate_routes,
        static_routes: options.routes.iter().map(write_route).collect(),
        disable_flowlog: !options.flow_log,
        vlan_access_ports: options
            .access_ports
            .iter()
            .map(|a| VlanAccessPort { vlan_id: a.vlan.into(), access_port: a.port.clone() })
            .collect(),
        forward_lldp: options.forward_lldp,
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
