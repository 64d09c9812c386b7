//! What a node tells a local profile server, and how such a server sets up ports.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use model::desired::{
    Addressing, App, BootOrder as Order, DhcpIgnore, Family, Link, Port, PortChange, PortName,
    StaticAddress,
};
use model::reported::{Boot, ControllerStatus, PortStatus};
use model::{DeviceId, UnixMillis};

use super::info::{AppFacts, app_errors, app_state, boot_reason, maintenance};
use super::ports::{addresses, mtu};
use super::refuse::{Rejected, no, wrong};
use super::{mac_text, to_timestamp};
use crate::lps::{AppBoot, Named, Told};
use crate::pb::common::{BootOrder, DhcpOptionsIgnore, NetworkConfigOrigin, PortConfigSource};
use crate::pb::info::ZDeviceState;
use crate::pb::profile::{
    AppBootInfo, AppBootInfoList, BootOrderSource, IpVersion, LocalAppInfo, LocalAppInfoList,
    LocalDevInfo, LocalNetworkConfigInfo, NetworkConfigTestingStatus, NetworkInfo,
    NetworkPortAddresses, NetworkPortConfig, NetworkPortStatus, RadioStatus, WirelessType,
};

/// A node's radios: it drives none, so they are silent as soon as they are told to be.
pub fn radio(silence: bool) -> Told {
    Told::Radio(RadioStatus { radio_silence: silence, ..RadioStatus::default() })
}

/// A node's apps, each with the timestamp of the last command to it that is done.
pub fn apps<'a>(at: UnixMillis, apps: impl IntoIterator<Item = (AppFacts<'a>, u64)>) -> Told {
    let apps_info = apps.into_iter().map(|(facts, last_cmd_timestamp)| LocalAppInfo {
        id: facts.status.id.to_string(),
        version: facts.status.version.clone(),
        name: facts.status.name.clone(),
        err: app_errors(at, &facts).into_iter().next(),
        state: app_state(&facts).into(),
        last_cmd_timestamp,
    });
    Told::Apps(LocalAppInfoList { apps_info: apps_info.collect() })
}

/// From what apps boot: by the server's wish if it has one, else by the config, else by `setting`,
/// which is the text of `app.boot.order`.
pub fn boots<'a>(
    apps: impl IntoIterator<Item = &'a App>,
    wishes: &[AppBoot],
    setting: &str,
) -> Told {
    let info = |app: &App| {
        let id = app.id.to_string();
        let wish = wishes.iter().find(|w| match &w.app {
            Named::Id(named) => named.eq_ignore_ascii_case(&id),
            Named::Name(named) => *named == app.name,
        });
        let by_setting = match setting {
            "usb" => Some(BootOrder::Usb),
            "nousb" => Some(BootOrder::Nousb),
            _ => None,
        };
        let (order, source) = match (wish.and_then(|w| w.usb), app.machine.boot_order) {
            (Some(true), _) => (BootOrder::Usb, BootOrderSource::Lps),
            (Some(false), _) => (BootOrder::Nousb, BootOrderSource::Lps),
            (None, Order::Usb) => (BootOrder::Usb, BootOrderSource::Controller),
            (None, Order::NoUsb) => (BootOrder::Nousb, BootOrderSource::Controller),
            (None, Order::Unspecified) => match by_setting {
                Some(order) => (order, BootOrderSource::DeviceProperty),
                None => (BootOrder::Unspecified, BootOrderSource::Unspecified),
            },
        };
        AppBootInfo {
            id,
            displayname: app.name.clone(),
            boot_order: order.into(),
            source: source.into(),
        }
    };
    Told::Boots(AppBootInfoList { apps_boot_info: apps.into_iter().map(info).collect() })
}

/// The node itself. `halting` says how far the apps are that someone near the node told to rest:
/// `None` if nobody did. `last` is the timestamp of the last command that is done.
pub fn device(
    own: DeviceId,
    boot: &Boot,
    controller: Option<&ControllerStatus>,
    halting: Option<bool>,
    last: u64,
) -> Told {
    let reasons = controller.map(|c| c.standing.maintenance.as_slice()).unwrap_or_default();
    let state = match halting {
        _ if !reasons.is_empty() => ZDeviceState::ZdeviceStateMaintenanceMode,
        // Apps are down and the node is on: that is what comes before a shutdown of it all.
        Some(true) => ZDeviceState::ZdeviceStatePreparedPoweroff,
        Some(false) => ZDeviceState::ZdeviceStatePreparingPoweroff,
        None => ZDeviceState::ZdeviceStateOnline,
    };
    Told::Device(LocalDevInfo {
        device_uuid: own.to_string(),
        state: state.into(),
        maintenance_mode_reasons: reasons.iter().map(|r| maintenance(*r).into()).collect(),
        boot_time: Some(to_timestamp(boot.started)),
        last_boot_reason: boot_reason(boot.reason).into(),
        last_cmd_timestamp: last,
    })
}

/// What became of the ports that a server set up.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Local {
    /// What counts of it.
    pub changes: BTreeMap<PortName, PortChange>,
    /// All of it as it came, with what is wrong.
    told: Vec<NetworkPortConfig>,
}

/// What `list` makes of `ports`, the controller's. A port that the controller does not give up, or
/// that is set up wrongly, stays the controller's; the others are changed.
pub fn changes(list: &[NetworkPortConfig], ports: &BTreeMap<PortName, Port>) -> Local {
    let mut local = Local::default();
    for config in list {
        // No password goes back to who sent it.
        let mut config = NetworkPortConfig { wireless_config: None, ..config.clone() };
        match change(&config, ports) {
            Ok((name, change)) if !local.changes.contains_key(&name) => {
                local.changes.insert(name, change);
                config.config_applied = true;
                config.error_message.clear();
            }
            Ok((name, _)) => {
                config.config_applied = false;
                config.error_message = format!("logical_label: {name} is set up twice");
            }
            Err(why) => {
                config.config_applied = false;
                config.error_message = why.text();
            }
        }
        local.told.push(config);
    }
    local
}

impl Local {
    /// What is wrong, port by port, for people.
    pub fn errors(&self) -> impl Iterator<Item = (&str, &str)> {
        let wrong = self.told.iter().filter(|c| !c.error_message.is_empty());
        wrong.map(|c| (c.logical_label.as_str(), c.error_message.as_str()))
    }
}

fn change(
    config: &NetworkPortConfig,
    ports: &BTreeMap<PortName, Port>,
) -> Result<(PortName, PortChange), Rejected> {
    let interface = config.port_addresses.as_ref().map(|a| a.interface_name.as_str());
    let interface = interface.unwrap_or_default();
    let port = match config.logical_label.as_str() {
        "" => ports.values().find(|p| p.interface == interface && !interface.is_empty()),
        label => ports.values().find(|p| p.name.as_str() == label),
    };
    let port = port.ok_or_else(|| {
        no("logical_label", &config.logical_label, "the label of a port of this node")
    })?;
    if !port.options.local_changes {
        return Err(wrong("logical_label", "the controller does not allow changes of this port"));
    }
    let kind = WirelessType::try_from(config.wireless_device_type);
    let fits = match port.link {
        Link::Cellular(_) => kind == Ok(WirelessType::Cellular),
        Link::Wifi(_) => kind == Ok(WirelessType::Wifi),
        Link::Ethernet | Link::Vlan | Link::Bond => kind == Ok(WirelessType::Unspecified),
    };
    if !fits {
        let got = config.wireless_device_type;
        return Err(no("wireless_device_type", got, "the kind of this port"));
    }
    let proxied = config.proxy_config.as_ref().is_some_and(|p| *p != Default::default());
    if proxied {
        return Err(wrong("proxy_config", "proxies are not supported yet"));
    }
    let family = match IpVersion::try_from(config.ip_version) {
        Ok(IpVersion::Unspecified) => port.options.family,
        Ok(IpVersion::DualStack) => Family::V4,
        Ok(IpVersion::Ipv4Only) => Family::V4Only,
        Ok(IpVersion::Ipv6Only) => {
            return Err(wrong("ip_version", "IP version 6 only is not supported yet"));
        }
        Err(_) => return Err(no("ip_version", config.ip_version, "a known IP version")),
    };
    let dns = addresses("dns_servers", &config.dns_servers)?;
    let mut change = PortChange {
        addressing: Addressing::Dhcp,
        mtu: mtu(config.mtu)?,
        family,
        domain: config.dns_domain.clone(),
        dns,
        ntp: config.ntp_servers.iter().filter(|n| !n.is_empty()).cloned().collect(),
        ignore: config.dhcp_options_ignore.as_ref().map(ignore).unwrap_or_default(),
    };
    if !config.use_dhcp {
        change.addressing = Addressing::Static(fixed(config, &change)?);
        (change.dns, change.ntp) = (Vec::new(), Vec::new());
    } else if config.without_default_route {
        return Err(wrong("without_default_route", "it goes with fixed addresses only yet"));
    }
    Ok((port.name.clone(), change))
}

fn fixed(config: &NetworkPortConfig, change: &PortChange) -> Result<StaticAddress, Rejected> {
    let nets = config.ip_addresses.iter().map(|t| {
        t.parse::<Ipv4Net>()
            .map_err(|_| no("ip_addresses", t, "an address of IP version 4 with its prefix length"))
    });
    let nets = nets.collect::<Result<Vec<_>, _>>()?;
    let [address] = nets.as_slice() else {
        return Err(no("ip_addresses", format!("{} addresses", nets.len()), "one"));
    };
    let gateways = config.gateways.iter().map(|t| {
        let gateway = t.parse::<Ipv4Addr>().ok().filter(|g| address.contains(g));
        gateway.ok_or_else(|| no("gateways", t, "an address in the port's subnet"))
    });
    let gateways = gateways.collect::<Result<Vec<_>, _>>()?;
    if gateways.len() > 1 {
        return Err(no("gateways", format!("{} gateways", gateways.len()), "one at most"));
    }
    let gateway = gateways.first().copied().filter(|_| !config.without_default_route);
    let (dns, ntp) = (change.dns.clone(), change.ntp.clone());
    Ok(StaticAddress { address: *address, gateway, dns, ntp })
}

fn ignore(ignore: &DhcpOptionsIgnore) -> DhcpIgnore {
    DhcpIgnore {
        ntp: ignore.ntp_server_exclusively,
        addresses: ignore.ip_addresses_exclusively,
        dns: ignore.dns_config_exclusively,
        gateways: ignore.gateways_exclusively,
    }
}

/// A node's ports: `told` by the controller, `local` by the server, `now` as they are. `made` is when
/// the controller's config was made.
pub fn network(
    told: &BTreeMap<PortName, Port>,
    local: &Local,
    now: &[PortStatus],
    made: Option<UnixMillis>,
) -> Told {
    let latest = told.values().map(|port| match local.changes.get(&port.name) {
        Some(change) => port_config(&change.of(port), None, NetworkConfigOrigin::Lps),
        None => port_config(port, made, NetworkConfigOrigin::Controller),
    });
    let tests: Vec<_> = now.iter().filter_map(|p| p.test.as_ref()).collect();
    let testing = (!tests.is_empty()).then(|| {
        let reachable = tests.iter().any(|t| t.failure.is_none());
        let failures = tests.iter().filter_map(|t| t.failure.as_deref()).filter(|_| !reachable);
        NetworkConfigTestingStatus {
            controller_reachable: reachable,
            connectivity_error: failures.collect::<Vec<_>>().join("; "),
            last_test_time: tests.iter().map(|t| t.at).max().map(to_timestamp),
            ..NetworkConfigTestingStatus::default()
        }
    });
    let errors: Vec<String> =
        local.errors().map(|(label, text)| format!("{label}: {text}")).collect();
    Told::Network(NetworkInfo {
        latest_config: latest.collect(),
        config_testing: testing,
        is_using_fallback_config: false,
        fallback_config: Vec::new(),
        local_config: (!local.told.is_empty()).then(|| LocalNetworkConfigInfo {
            ports: local.told.clone(),
            error_message: errors.join("; "),
        }),
        port_status: now.iter().map(port_status).collect(),
    })
}

fn port_config(
    port: &Port,
    made: Option<UnixMillis>,
    origin: NetworkConfigOrigin,
) -> NetworkPortConfig {
    let fixed = match &port.addressing {
        Addressing::Static(fixed) => Some(fixed),
        Addressing::Dhcp | Addressing::None => None,
    };
    let text = |list: &[IpAddr]| list.iter().map(ToString::to_string).collect();
    NetworkPortConfig {
        logical_label: port.name.to_string(),
        port_addresses: Some(NetworkPortAddresses {
            interface_name: port.interface.clone(),
            ..NetworkPortAddresses::default()
        }),
        config_applied: true,
        ip_version: match port.options.family {
            Family::V4 | Family::V6 => IpVersion::DualStack,
            Family::V4Only => IpVersion::Ipv4Only,
            Family::V6Only => IpVersion::Ipv6Only,
        }
        .into(),
        use_dhcp: port.addressing == Addressing::Dhcp,
        dhcp_options_ignore: Some(DhcpOptionsIgnore {
            ntp_server_exclusively: port.options.ignore.ntp,
            ip_addresses_exclusively: port.options.ignore.addresses,
            dns_config_exclusively: port.options.ignore.dns,
            gateways_exclusively: port.options.ignore.gateways,
        }),
        ip_addresses: fixed.iter().map(|f| f.address.to_string()).collect(),
        gateways: fixed.iter().filter_map(|f| f.gateway).map(|g| g.to_string()).collect(),
        dns_servers: fixed.map_or_else(|| text(&port.options.dns), |f| text(&f.dns)),
        dns_domain: port.options.domain.clone(),
        ntp_servers: fixed.map_or(&port.options.ntp, |f| &f.ntp).clone(),
        mtu: port.mtu.unwrap_or_default().into(),
        wireless_device_type: match port.link {
            Link::Cellular(_) => WirelessType::Cellular,
            Link::Wifi(_) => WirelessType::Wifi,
            Link::Ethernet | Link::Vlan | Link::Bond => WirelessType::Unspecified,
        }
        .into(),
        config_source: Some(PortConfigSource {
            origin: origin.into(),
            submitted_at: made.map(to_timestamp),
        }),
        local_modifications_allowed: port.options.local_changes,
        ..NetworkPortConfig::default()
    }
}

fn port_status(status: &PortStatus) -> NetworkPortStatus {
    NetworkPortStatus {
        logical_label: status.port.name.to_string(),
        interface_name: status.port.interface.clone(),
        link_up: status.link,
        mac_address: status.mac.map(mac_text).unwrap_or_default(),
        ip_addresses: status.addresses.iter().map(ToString::to_string).collect(),
        gateways: status.gateway.iter().map(ToString::to_string).collect(),
        dns_servers: status.dns.iter().map(ToString::to_string).collect(),
        dns_domain: status.domain.clone().unwrap_or_default(),
        ntp_servers: status.ntp.iter().map(ToString::to_string).collect(),
        mtu: status.port.mtu.unwrap_or_default().into(),
    }
}
