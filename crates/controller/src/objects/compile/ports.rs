//! What a node is made of and reached by: hardware, VLANs, bonds, ports.

use std::collections::{BTreeMap, BTreeSet};

use model::desired::{
    AccessPoint, Addressing, Bearer, Bond, BondMonitor, Cellular, CellularProbe, Device, Hardware,
    HardwareKind, Link, Port, PortAccess, PortName, PortOptions, StaticAddress, Usage,
    VirtualFunctions, Vlan, WifiNetwork,
};

use super::Compiling;
use crate::objects::spec::{
    AccessPointSpec, AddressSpec, BearerSpec, BondSpec, CellularSpec, DeviceSpec, HardwareSpec,
    IoSpec, PortSpec, VlanSpec, WifiSpec,
};

/// Hardware, VLANs, bonds and ports of a node. Labels that are none are left out; `check` names
/// them.
pub(super) fn ports(
    compiling: &mut Compiling<'_>,
    spec: &DeviceSpec,
    model: Option<&HardwareSpec>,
) {
    let told = &mut *compiling.told;
    if let Some(model) = model {
        told.product.manufacturer.clone_from(&model.manufacturer);
        told.product.name.clone_from(&model.product);
        told.hardware = model.io.iter().map(piece).collect();
    }
    told.bonds = spec.bonds.iter().filter_map(bond).map(|b| (b.label.clone(), b)).collect();
    told.vlans = spec.vlans.iter().filter_map(vlan).map(|v| (v.label.clone(), v)).collect();
    if model.is_none() {
        // Bonds and VLANs of a box that nobody described stand on Ethernet cards of their name.
        let below = spec.bonds.iter().flat_map(|b| b.members.iter());
        let below: BTreeSet<&String> = below.chain(spec.vlans.iter().map(|v| &v.below)).collect();
        let cards = below.into_iter().filter(|l| !is_layer(told, l)).filter_map(|label| {
            let name = PortName::new(label)?;
            Some(wire(name).card())
        });
        let cards: Vec<Hardware> = cards.collect();
        told.hardware.extend(cards);
    }
    for spec in &spec.ports {
        let Some(port) = port(compiling, spec) else { continue };
        let told = &mut *compiling.told;
        let known = told.hardware.iter().any(|h| h.label == port.below());
        if model.is_none() && !known && !is_layer(told, port.below()) {
            told.hardware.push(port.card());
        }
        if let Some(access) = &spec.access {
            let identity = access.identity.clone().unwrap_or_else(|| told.name.clone());
            let label = port.name.to_string();
            let access =
                PortAccess { port: label.clone(), identity, enrolment: access.enrolment.clone() };
            told.port_access.insert(label, access);
        }
        told.ports.insert(port.name.clone(), port);
    }
    let used: BTreeSet<String> =
        compiling.told.port_access.values().map(|a| a.enrolment.clone()).collect();
    for name in used {
        compiling.enrolment(&name);
    }
}

fn is_layer(told: &Device, label: &str) -> bool {
    told.bonds.keys().chain(told.vlans.keys()).any(|l| l.as_str() == label)
}

fn wire(name: PortName) -> Port {
    Port {
        interface: name.to_string(),
        name,
        management: false,
        cost: 0,
        addressing: Addressing::None,
        mtu: None,
        below: String::new(),
        link: Link::Ethernet,
        options: PortOptions::default(),
    }
}

fn piece(io: &IoSpec) -> Hardware {
    let places = [
        ("ifname", &io.interface),
        ("pcilong", &io.pci),
        ("usbaddr", &io.usb),
        ("usbproduct", &io.usb_product),
        ("serial", &io.serial),
        ("irq", &io.irq),
        ("ioports", &io.ioports),
    ];
    let said = |(key, value): (&str, &Option<String>)| Some((key.to_owned(), value.clone()?));
    Hardware {
        label: io.label.clone(),
        physical: io.physical.clone().unwrap_or_else(|| io.label.clone()),
        kind: io.kind,
        addresses: places.into_iter().filter_map(said).collect(),
        group: io.group.clone().unwrap_or_else(|| io.label.clone()),
        parent_group: io.parent.clone(),
        usage: io.usage,
        attributes: io.attributes.clone(),
        functions: io.functions.map(|count| VirtualFunctions { count, functions: Vec::new() }),
    }
}

fn bond(spec: &BondSpec) -> Option<Bond> {
    let mii = spec.mii.as_ref().map(|m| BondMonitor::Mii {
        interval_ms: m.interval_ms,
        up_delay_ms: m.up_delay_ms,
        down_delay_ms: m.down_delay_ms,
    });
    let arp = spec
        .arp
        .as_ref()
        .map(|a| BondMonitor::Arp { interval_ms: a.interval_ms, targets: a.targets.clone() });
    Some(Bond {
        label: PortName::new(&spec.name)?,
        interface: spec.interface.clone().unwrap_or_else(|| spec.name.clone()),
        members: spec.members.clone(),
        mode: spec.mode,
        monitor: mii.or(arp),
        lacp: spec.lacp,
    })
}

fn vlan(spec: &VlanSpec) -> Option<Vlan> {
    Some(Vlan {
        label: PortName::new(&spec.name)?,
        interface: spec.interface.clone().unwrap_or_else(|| spec.name.clone()),
        below: spec.below.clone(),
        id: spec.id,
    })
}

fn port(compiling: &Compiling<'_>, spec: &PortSpec) -> Option<Port> {
    let told = &*compiling.told;
    let name = PortName::new(&spec.name)?;
    let below = spec.below.as_deref().unwrap_or(&spec.name);
    let bond = told.bonds.values().find(|b| b.label.as_str() == below);
    let vlan = told.vlans.values().find(|v| v.label.as_str() == below);
    let piece = told.hardware.iter().find(|h| h.label == below && h.usage != Usage::Disabled);
    let kind = piece.map(|p| p.kind);
    let link = if vlan.is_some() {
        Link::Vlan
    } else if bond.is_some() {
        Link::Bond
    } else if kind == Some(HardwareKind::Wwan) || (kind.is_none() && spec.cellular.is_some()) {
        Link::Cellular(cellular(compiling, spec.cellular.as_ref()))
    } else if kind == Some(HardwareKind::Wlan) || (kind.is_none() && !spec.wifi.is_empty()) {
        Link::Wifi(spec.wifi.iter().map(|w| wifi(compiling, w)).collect())
    } else {
        Link::Ethernet
    };
    // What lies below has a name already; what a person says must be the same.
    let lower = bond
        .map(|b| b.interface.clone())
        .or_else(|| vlan.map(|v| v.interface.clone()))
        .or_else(|| piece.map(|p| p.addresses.get("ifname").cloned().unwrap_or_default()));
    let addressing = match &spec.address {
        AddressSpec::Dhcp => Addressing::Dhcp,
        AddressSpec::None => Addressing::None,
        AddressSpec::Static { fixed } => Addressing::Static(StaticAddress {
            address: fixed.address,
            gateway: fixed.gateway,
            dns: fixed.dns.clone(),
            ntp: fixed.ntp.clone(),
        }),
    };
    let dhcp = addressing == Addressing::Dhcp;
    Some(Port {
        interface: lower
            .unwrap_or_else(|| spec.interface.clone().unwrap_or_else(|| below.to_owned())),
        below: if below == spec.name { String::new() } else { below.to_owned() },
        name,
        management: spec.management,
        cost: spec.cost,
        addressing,
        mtu: spec.mtu,
        link,
        options: PortOptions {
            family: spec.family,
            domain: spec.domain.clone(),
            dns: if dhcp { spec.dns.clone() } else { Vec::new() },
            ntp: if dhcp { spec.ntp.clone() } else { Vec::new() },
            ignore: spec.ignore,
            proxy: spec.proxy.clone().filter(|p| *p != model::desired::Proxy::default()),
            alias: spec.alias.clone(),
            shared_labels: spec.shared_labels.clone(),
            local_changes: spec.local_changes,
        },
    })
}

fn wifi(compiling: &Compiling<'_>, spec: &WifiSpec) -> WifiNetwork {
    WifiNetwork {
        ssid: spec.ssid.clone(),
        scheme: spec.scheme,
        identity: compiling.text(spec.identity.as_ref()),
        password: spec.password.as_ref().and_then(|s| compiling.secret(s)),
        priority: spec.priority,
    }
}

fn cellular(compiling: &Compiling<'_>, spec: Option<&CellularSpec>) -> Cellular {
    let Some(spec) = spec else { return Cellular::default() };
    let point = |p: &AccessPointSpec| {
        let own = BearerSpec {
            apn: p.apn.clone(),
            auth: p.auth,
            user: p.user.clone(),
            password: p.password.clone(),
            ip: p.ip,
        };
        let attach = p.attach.as_ref().map(|b| bearer(compiling, b));
        AccessPoint {
            sim_slot: p.sim_slot,
            bearer: bearer(compiling, &own),
            attach: attach.filter(|b| *b != Bearer::default()),
            networks: p.networks.clone(),
            forbid_roaming: p.forbid_roaming,
            technologies: p.technologies.clone(),
        }
    };
    Cellular {
        probe: if spec.no_probe {
            Some(CellularProbe::Off)
        } else {
            spec.probe.clone().map(CellularProbe::Custom)
        },
        location: spec.location,
        access_points: spec.access_points.iter().map(point).collect(),
        sim_slot: spec.sim_slot,
    }
}

fn bearer(compiling: &Compiling<'_>, spec: &BearerSpec) -> Bearer {
    Bearer {
        apn: spec.apn.clone(),
        auth: spec.auth,
        user: compiling.text(spec.user.as_ref()),
        password: spec.password.as_ref().and_then(|s| compiling.secret(s)),
        ip: spec.ip,
    }
}

/// What lies below each port of a node, by the port's label: for checks.
pub(in crate::objects) fn lower_labels(spec: &DeviceSpec) -> BTreeMap<&str, &str> {
    spec.ports
        .iter()
        .map(|p| (p.name.as_str(), p.below.as_deref().unwrap_or(p.name.as_str())))
        .collect()
}
