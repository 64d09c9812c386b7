//! Ports: networks and adapters of the wire are one table of ours; what lies below them is read by
//! [`super::hardware`].

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use model::NetworkId;
use model::desired::{
    Addressing, Bond, Device, DhcpIgnore, Family, Hardware, HardwareKind, Link, ObjectKind, Port,
    PortName, PortOptions, RESERVED_LABELS, Refused, StaticAddress, Usage, Vlan,
};
use uuid::Uuid;

use super::hardware;
use super::refuse::{Rejected, id, no, wrong};
use super::secret::{Opener, Sealer};
use super::wireless::{
    read_cellular, read_proxy, read_wifi, write_cellular, write_proxy, write_wifi,
};
use crate::pb::common::{DhcpOptionsIgnore, DhcpType, Ipspec, NetworkType};
use crate::pb::config::{EdgeDevConfig, NetworkConfig, SystemAdapter};

/// What ports stand on.
#[derive(Clone, Copy)]
pub(super) struct Below<'a> {
    pub(super) hardware: &'a [Hardware],
    pub(super) vlans: &'a BTreeMap<PortName, Vlan>,
    pub(super) bonds: &'a BTreeMap<PortName, Bond>,
}

/// Ports by name. Adapters that cannot become one are added to `refused`.
pub(super) fn read(
    config: &EdgeDevConfig,
    below: Below<'_>,
    opener: &mut Opener<'_, '_>,
    refused: &mut Vec<Refused>,
) -> BTreeMap<PortName, Port> {
    // Controllers of old marked no adapter; all of them are for management then, and free.
    let old_style = !config.system_adapter_list.iter().any(|a| a.uplink);
    let mut ports = BTreeMap::new();
    for adapter in &config.system_adapter_list {
        match port(config, below, adapter, old_style, opener) {
            Ok(port) if !ports.contains_key(&port.name) => {
                ports.insert(port.name.clone(), port);
            }
            Ok(_) => {
                refused.push(wrong("systemAdapterList.name", "another adapter has it too").of(
                    ObjectKind::Port,
                    &adapter.name,
                    &adapter.alias,
                ));
            }
            Err(why) => refused.push(why.of(ObjectKind::Port, &adapter.name, &adapter.alias)),
        }
    }
    ports
}

fn port(
    config: &EdgeDevConfig,
    below: Below<'_>,
    adapter: &SystemAdapter,
    old_style: bool,
    opener: &mut Opener<'_, '_>,
) -> Result<Port, Rejected> {
    let name = PortName::new(&adapter.name)
        .ok_or_else(|| no("systemAdapterList.name", &adapter.name, "a port name"))?;
    let management = adapter.uplink || old_style;
    let cost = if old_style { 0 } else { adapter.cost };
    let cost = u8::try_from(cost).map_err(|_| no("systemAdapterList.cost", cost, "0 to 255"))?;
    for shared in &adapter.shared_labels {
        let taken = RESERVED_LABELS.contains(&shared.as_str())
            || config.system_adapter_list.iter().any(|a| a.name == *shared);
        if shared.is_empty() || taken {
            return Err(no("systemAdapterList.shared_labels", shared, "a label of its own"));
        }
    }
    let (interface, kind) = lower(below, adapter)?;
    let mut port = Port {
        name,
        interface,
        management,
        cost,
        addressing: Addressing::None,
        mtu: None,
        below: match adapter.lower_layer_name.as_str() {
            same if same == adapter.name => String::new(),
            other => other.to_owned(),
        },
        link: match kind {
            Lower::Wire => Link::Ethernet,
            Lower::Wifi => Link::Wifi(Vec::new()),
            Lower::Cellular => Link::Cellular(model::desired::Cellular::default()),
            Lower::Vlan => Link::Vlan,
            Lower::Bond => Link::Bond,
        },
        options: PortOptions {
            alias: adapter.alias.clone(),
            shared_labels: adapter.shared_labels.clone(),
            local_changes: adapter.allow_local_modifications,
            ..PortOptions::default()
        },
    };
    if adapter.network_uuid.is_empty() {
        if management {
            return Err(wrong(
                "systemAdapterList.networkUUID",
                "a management port needs a network",
            ));
        }
        return Ok(port);
    }
    let wanted: NetworkId = id("systemAdapterList.networkUUID", &adapter.network_uuid)?;
    let network = config.networks.iter().find(|n| n.id.parse() == Ok(wanted)).ok_or_else(|| {
        no("systemAdapterList.networkUUID", &adapter.network_uuid, "the id of a network")
    })?;
    network_of(network, adapter, &mut port, opener)
        .map_err(|r| r.within(format_args!("networks[{}]", network.id)))?;
    Ok(port)
}

/// What kind of thing lies below a port.
enum Lower {
    Wire,
    Wifi,
    Cellular,
    Vlan,
    Bond,
}

/// The kernel's name of what lies below the adapter, and what kind it is.
fn lower(below: Below<'_>, adapter: &SystemAdapter) -> Result<(String, Lower), Rejected> {
    const FIELD: &str = "systemAdapterList.lowerLayerName";
    let label =
        if adapter.lower_layer_name.is_empty() { &adapter.name } else { &adapter.lower_layer_name };
    let named = |l: &PortName| l.as_str() == label;
    let vlan = below.vlans.values().find(|v| named(&v.label));
    let bond = below.bonds.values().find(|b| named(&b.label));
    let mut found = below.hardware.iter().filter(|h| h.label == *label);
    let io = found.next();
    if usize::from(io.is_some()) + usize::from(vlan.is_some()) + usize::from(bond.is_some()) > 1
        || found.next().is_some()
    {
        return Err(no(FIELD, label, "the label of one piece of hardware only"));
    }
    if let Some(vlan) = vlan {
        return Ok((vlan.interface.clone(), Lower::Vlan));
    }
    if let Some(bond) = bond {
        return Ok((bond.interface.clone(), Lower::Bond));
    }
    let io = io.ok_or_else(|| no(FIELD, label, "the label of any hardware"))?;
    let kind = match io.kind {
        HardwareKind::Wlan => Lower::Wifi,
        HardwareKind::Wwan => Lower::Cellular,
        kind if kind.is_network() => Lower::Wire,
        other => {
            let number = hardware::kind_number(other);
            return Err(no("deviceIoList.ptype", number, "a network card"));
        }
    };
    if io.usage == Usage::Disabled {
        return Err(wrong("deviceIoList.usage", "the hardware is disabled"));
    }
    let ifname = io.addresses.get("ifname").map(String::as_str).unwrap_or_default();
    // A modem is often known by its place on a bus only.
    if matches!(kind, Lower::Cellular) && ifname.is_empty() {
        return Ok((String::new(), kind));
    }
    Ok((hardware::interface_name("deviceIoList.phyaddrs.ifname", ifname)?, kind))
}

fn network_of(
    network: &NetworkConfig,
    adapter: &SystemAdapter,
    port: &mut Port,
    opener: &mut Opener<'_, '_>,
) -> Result<(), Rejected> {
    port.mtu = mtu(network.mtu)?;
    match &mut port.link {
        Link::Wifi(all) => *all = read_wifi(network.wireless.as_ref(), opener)?,
        Link::Cellular(cellular) => *cellular = read_cellular(network.wireless.as_ref(), opener)?,
        Link::Ethernet | Link::Vlan | Link::Bond => {}
    }
    port.options.proxy = read_proxy(network.ent_proxy.as_ref())?;
    port.options.family = match NetworkType::try_from(network.r#type) {
        Ok(NetworkType::Networktypenoop) if network.ip.is_none() && !port.management => {
            return Ok(());
        }
        Ok(NetworkType::Networktypenoop | NetworkType::V4) => Family::V4,
        Ok(NetworkType::V6) => Family::V6,
        Ok(NetworkType::V4Only) => Family::V4Only,
        Ok(NetworkType::V6Only) => Family::V6Only,
        _ => return Err(no("type", network.r#type, "a known network type")),
    };
    let ip = network.ip.as_ref().ok_or_else(|| wrong("ip", "it is missing"))?;
    port.addressing = match DhcpType::try_from(ip.dhcp) {
        Ok(DhcpType::Client) => Addressing::Dhcp,
        Ok(DhcpType::Static) => Addressing::Static(static_address(ip, &adapter.addr)?),
        Ok(DhcpType::DhcpNone) if port.management => {
            return Err(wrong("ip.dhcp", "a management port needs an address"));
        }
        Ok(DhcpType::DhcpNone) => Addressing::None,
        _ => return Err(no("ip.dhcp", ip.dhcp, "Static (1), DHCPNone (2) or Client (4)")),
    };
    port.options.domain = ip.domain.clone();
    if let Some(ignore) = &ip.dhcp_options_ignore {
        port.options.ignore = DhcpIgnore {
            ntp: ignore.ntp_server_exclusively,
            addresses: ignore.ip_addresses_exclusively,
            dns: ignore.dns_config_exclusively,
            gateways: ignore.gateways_exclusively,
        };
    }
    if port.addressing == Addressing::Dhcp {
        port.options.dns = addresses("ip.dns", &ip.dns)?;
        port.options.ntp = ntp(ip);
    }
    Ok(())
}

fn ntp(ip: &Ipspec) -> Vec<String> {
    std::iter::once(&ip.ntp).chain(&ip.more_ntp).filter(|n| !n.is_empty()).cloned().collect()
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
    Ok(StaticAddress { address, gateway, dns: addresses("ip.dns", &ip.dns)?, ntp: ntp(ip) })
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

/// Adds hardware, VLANs, bonds, networks and adapters of `device`. Each port has a network of its
/// own, whose id follows from the device and the port. A wired port without hardware of its own
/// label gets an Ethernet card, so that a node without a model has ports at all.
pub(super) fn write(device: &Device, config: &mut EdgeDevConfig, sealer: &mut Sealer<'_, '_>) {
    config.device_io_list = device.hardware.iter().map(hardware::write).collect();
    config.vlans = device.vlans.values().map(hardware::write_vlan).collect();
    config.bonds = device.bonds.values().map(hardware::write_bond).collect();
    for port in device.ports.values() {
        let label = port.name.to_string();
        let below = port.below();
        let known = device.hardware.iter().any(|h| h.label == below)
            || device.vlans.keys().chain(device.bonds.keys()).any(|l| l.as_str() == below);
        if !known {
            config.device_io_list.push(hardware::write(&port.card()));
        }
        let network = Uuid::new_v5(&device.id.raw(), format!("network/{label}").as_bytes());
        config.networks.push(write_network(port, network, sealer));
        let fixed = match &port.addressing {
            Addressing::Static(fixed) => fixed.address.addr().to_string(),
            Addressing::Dhcp | Addressing::None => String::new(),
        };
        config.system_adapter_list.push(SystemAdapter {
            name: label,
            uplink: port.management,
            network_uuid: network.to_string(),
            addr: fixed,
            alias: port.options.alias.clone(),
            lower_layer_name: below.to_owned(),
            cost: port.cost.into(),
            shared_labels: port.options.shared_labels.clone(),
            allow_local_modifications: port.options.local_changes,
            ..SystemAdapter::default()
        });
    }
}

fn write_network(port: &Port, id: Uuid, sealer: &mut Sealer<'_, '_>) -> NetworkConfig {
    let options = &port.options;
    let mut ntp = options.ntp.iter();
    let mut dns = &options.dns;
    let mut ip = Ipspec { domain: options.domain.clone(), ..Ipspec::default() };
    ip.dhcp = match &port.addressing {
        Addressing::Dhcp => DhcpType::Client,
        Addressing::Static(fixed) => {
            (ntp, dns) = (fixed.ntp.iter(), &fixed.dns);
            ip.subnet = fixed.address.trunc().to_string();
            ip.gateway = fixed.gateway.map(|g| g.to_string()).unwrap_or_default();
            DhcpType::Static
        }
        Addressing::None => DhcpType::DhcpNone,
    }
    .into();
    if port.addressing != Addressing::None {
        ip.dns = dns.iter().map(ToString::to_string).collect();
        ip.ntp = ntp.next().cloned().unwrap_or_default();
        ip.more_ntp = ntp.cloned().collect();
    }
    if options.ignore != DhcpIgnore::default() {
        ip.dhcp_options_ignore = Some(DhcpOptionsIgnore {
            ntp_server_exclusively: options.ignore.ntp,
            ip_addresses_exclusively: options.ignore.addresses,
            dns_config_exclusively: options.ignore.dns,
            gateways_exclusively: options.ignore.gateways,
        });
    }
    let family = match options.family {
        Family::V4 => NetworkType::V4,
        Family::V6 => NetworkType::V6,
        Family::V4Only => NetworkType::V4Only,
        Family::V6Only => NetworkType::V6Only,
    };
    NetworkConfig {
        id: id.to_string(),
        r#type: family.into(),
        ip: Some(ip),
        ent_proxy: options.proxy.as_ref().map(write_proxy),
        wireless: match &port.link {
            Link::Wifi(all) => Some(write_wifi(all, sealer)),
            Link::Cellular(cellular) => Some(write_cellular(cellular, sealer)),
            Link::Ethernet | Link::Vlan | Link::Bond => None,
        },
        mtu: port.mtu.unwrap_or_default().into(),
        ..NetworkConfig::default()
    }
}
