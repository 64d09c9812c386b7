//! Ports: three lists of the wire (hardware, networks, adapters) are one table of ours.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use model::NetworkId;
use model::desired::{Addressing, Device, ObjectKind, Port, PortName, Refused, StaticAddress};
use uuid::Uuid;

use super::refuse::{Rejected, id, no, wrong};
use crate::pb::common::{DhcpType, Ipspec, NetworkType, PhyIoMemberUsage, PhyIoType};
use crate::pb::config::{EdgeDevConfig, NetworkConfig, PhysicalIo, SystemAdapter};

/// Ports by name. Adapters that cannot become one are added to `refused`.
pub(super) fn read(config: &EdgeDevConfig, refused: &mut Vec<Refused>) -> BTreeMap<PortName, Port> {
    // Controllers of old marked no adapter; all of them are for management then, and free.
    let old_style = !config.system_adapter_list.iter().any(|a| a.uplink);
    let mut ports = BTreeMap::new();
    for adapter in &config.system_adapter_list {
        match port(config, adapter, old_style) {
            Ok(port) if !ports.contains_key(&port.name) => {
                ports.insert(port.name.clone(), port);
            }
            Ok(_) => {
                refused.push(wrong("systemAdapterList.name", "another adapter has it too").of(
                    ObjectKind::Port,
                    &adapter.name,
                    &adapter.alias,
                ))
            }
            Err(why) => refused.push(why.of(ObjectKind::Port, &adapter.name, &adapter.alias)),
        }
    }
    ports
}

fn port(
    config: &EdgeDevConfig,
    adapter: &SystemAdapter,
    old_style: bool,
) -> Result<Port, Rejected> {
    let name = PortName::new(&adapter.name)
        .ok_or_else(|| no("systemAdapterList.name", &adapter.name, "a port name"))?;
    let management = adapter.uplink || old_style;
    let cost = if old_style { 0 } else { adapter.cost };
    let cost = u8::try_from(cost).map_err(|_| no("systemAdapterList.cost", cost, "0 to 255"))?;
    let interface = interface(config, adapter)?;
    let (addressing, mtu) = if adapter.network_uuid.is_empty() {
        if management {
            return Err(wrong(
                "systemAdapterList.networkUUID",
                "a management port needs a network",
            ));
        }
        (Addressing::None, None)
    } else {
        let wanted: NetworkId = id("systemAdapterList.networkUUID", &adapter.network_uuid)?;
        let network =
            config.networks.iter().find(|n| n.id.parse() == Ok(wanted)).ok_or_else(|| {
                no("systemAdapterList.networkUUID", &adapter.network_uuid, "the id of a network")
            })?;
        network_of(network, adapter, management)
            .map_err(|r| r.within(format_args!("networks[{}]", network.id)))?
    };
    Ok(Port { name, interface, management, cost, addressing, mtu })
}

/// The kernel's name of what lies below the adapter.
fn interface(config: &EdgeDevConfig, adapter: &SystemAdapter) -> Result<String, Rejected> {
    const FIELD: &str = "systemAdapterList.lowerLayerName";
    let below =
        if adapter.lower_layer_name.is_empty() { &adapter.name } else { &adapter.lower_layer_name };
    if config.vlans.iter().any(|v| v.logicallabel == *below)
        || config.bonds.iter().any(|b| b.logicallabel == *below)
    {
        return Err(wrong(FIELD, "VLANs and bonds are not supported yet"));
    }
    let mut found = config.device_io_list.iter().filter(|io| label(io) == below);
    let io = found.next().ok_or_else(|| no(FIELD, below, "the label of any hardware"))?;
    if found.next().is_some() {
        return Err(no(FIELD, below, "the label of one piece of hardware only"));
    }
    if io.ptype != i32::from(PhyIoType::PhyIoNetEth) {
        return Err(no(
            "deviceIoList.ptype",
            io.ptype,
            "Ethernet (1); others are not supported yet",
        ));
    }
    if io.usage == i32::from(PhyIoMemberUsage::PhyIoUsageDisabled) {
        return Err(wrong("deviceIoList.usage", "the hardware is disabled"));
    }
    let ifname = io.phyaddrs.iter().find(|(key, _)| key.eq_ignore_ascii_case("ifname"));
    let ifname = ifname.map(|(_, value)| value.as_str()).unwrap_or_default();
    // IFNAMSIZ is 16, the final zero included.
    let plain = |c: char| c.is_ascii_graphic() && c != '/';
    if (1..16).contains(&ifname.len()) && ifname.chars().all(plain) {
        Ok(ifname.to_owned())
    } else {
        Err(no("deviceIoList.phyaddrs.ifname", ifname, "the name of an interface"))
    }
}

fn label(io: &PhysicalIo) -> &String {
    if io.logicallabel.is_empty() { &io.phylabel } else { &io.logicallabel }
}

fn network_of(
    network: &NetworkConfig,
    adapter: &SystemAdapter,
    management: bool,
) -> Result<(Addressing, Option<u16>), Rejected> {
    let mtu = mtu(network.mtu)?;
    match NetworkType::try_from(network.r#type) {
        // V6 is a preference, not a restriction: the port may still use version 4.
        Ok(NetworkType::V4 | NetworkType::V4Only | NetworkType::V6) => {}
        Ok(NetworkType::Networktypenoop) if network.ip.is_none() && !management => {
            return Ok((Addressing::None, mtu));
        }
        Ok(NetworkType::Networktypenoop) => {}
        Ok(NetworkType::V6Only) => {
            return Err(wrong("type", "networks of IP version 6 only are not supported yet"));
        }
        _ => return Err(no("type", network.r#type, "a known network type")),
    }
    let ip = network.ip.as_ref().ok_or_else(|| wrong("ip", "it is missing"))?;
    let addressing = match DhcpType::try_from(ip.dhcp) {
        Ok(DhcpType::Client) => Addressing::Dhcp,
        Ok(DhcpType::Static) => Addressing::Static(static_address(ip, &adapter.addr)?),
        Ok(DhcpType::DhcpNone) if management => {
            return Err(wrong("ip.dhcp", "a management port needs an address"));
        }
        Ok(DhcpType::DhcpNone) => Addressing::None,
        _ => return Err(no("ip.dhcp", ip.dhcp, "Static (1), DHCPNone (2) or Client (4)")),
    };
    Ok((addressing, mtu))
}

fn static_address(ip: &Ipspec, address: &str) -> Result<StaticAddress, Rejected> {
    let subnet: Ipv4Net =
        ip.subnet.parse().map_err(|_| no("ip.subnet", &ip.subnet, "a subnet of IP version 4"))?;
    let own: Ipv4Addr = address
        .parse()
        .ok()
        .filter(|a| subnet.contains(a))
        .ok_or_else(|| no("systemAdapterList.addr", address, "an address in the subnet"))?;
    let address = Ipv4Net::new(own, subnet.prefix_len())
        .map_err(|_| no("ip.subnet", &ip.subnet, "a subnet"))?;
    let gateway = optional_address("ip.gateway", &ip.gateway)?;
    let ntp = std::iter::once(&ip.ntp).chain(&ip.more_ntp).filter(|n| !n.is_empty());
    Ok(StaticAddress {
        address,
        gateway,
        dns: addresses("ip.dns", &ip.dns)?,
        ntp: ntp.cloned().collect(),
    })
}

/// An address that may be left out.
pub(super) fn optional_address(field: &str, text: &str) -> Result<Option<Ipv4Addr>, Rejected> {
    match text {
        "" => Ok(None),
        text => match text.parse::<Ipv4Addr>() {
            Ok(address) if address.is_unspecified() => Ok(None),
            Ok(address) => Ok(Some(address)),
            Err(_) => Err(no(field, text, "an address of IP version 4")),
        },
    }
}

/// A list of addresses of either version.
pub(super) fn addresses(field: &str, list: &[String]) -> Result<Vec<IpAddr>, Rejected> {
    list.iter().map(|t| t.parse().map_err(|_| no(field, t, "an IP address"))).collect()
}

/// 0 means none; the others are those of EVE.
pub(super) fn mtu(mtu: u32) -> Result<Option<u16>, Rejected> {
    match u16::try_from(mtu) {
        Ok(0) => Ok(None),
        Ok(mtu @ 1280..) => Ok(Some(mtu)),
        _ => Err(no("mtu", mtu, "1280 to 65535")),
    }
}

/// Adds hardware, networks and adapters for the ports of `device`. Each port has a network of its
/// own, whose id follows from the device and the port.
pub(super) fn write(device: &Device, config: &mut EdgeDevConfig) {
    for port in device.ports.values() {
        let label = port.name.to_string();
        let network = Uuid::new_v5(&device.id.raw(), format!("network/{label}").as_bytes());
        config.device_io_list.push(PhysicalIo {
            ptype: PhyIoType::PhyIoNetEth.into(),
            phylabel: label.clone(),
            phyaddrs: [("ifname".to_owned(), port.interface.clone())].into(),
            logicallabel: label.clone(),
            assigngrp: label.clone(),
            usage: PhyIoMemberUsage::PhyIoUsageMgmtAndApps.into(),
            ..PhysicalIo::default()
        });
        let (dhcp, fixed) = match &port.addressing {
            Addressing::Dhcp => (DhcpType::Client, None),
            Addressing::Static(fixed) => (DhcpType::Static, Some(fixed)),
            Addressing::None => (DhcpType::DhcpNone, None),
        };
        let mut ip = Ipspec { dhcp: dhcp.into(), ..Ipspec::default() };
        if let Some(fixed) = fixed {
            let mut ntp = fixed.ntp.iter().cloned();
            ip.subnet = fixed.address.trunc().to_string();
            ip.gateway = fixed.gateway.map(|g| g.to_string()).unwrap_or_default();
            ip.dns = fixed.dns.iter().map(ToString::to_string).collect();
            ip.ntp = ntp.next().unwrap_or_default();
            ip.more_ntp = ntp.collect();
        }
        config.networks.push(NetworkConfig {
            id: network.to_string(),
            r#type: NetworkType::V4.into(),
            ip: Some(ip),
            mtu: port.mtu.unwrap_or_default().into(),
            ..NetworkConfig::default()
        });
        config.system_adapter_list.push(SystemAdapter {
            name: label.clone(),
            uplink: port.management,
            network_uuid: network.to_string(),
            addr: fixed.map(|f| f.address.addr().to_string()).unwrap_or_default(),
            lower_layer_name: label,
            cost: port.cost.into(),
            ..SystemAdapter::default()
        });
    }
}
