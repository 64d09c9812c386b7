//! The model of a node: `PhysicalIO`, `VlanAdapter`, `BondAdapter`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use model::desired::{
    Bond, BondMode, BondMonitor, Hardware, HardwareKind, LacpRate, ObjectKind, PortName, Refused,
    Usage, VirtualFunction, VirtualFunctions, Vlan,
};

use super::refuse::{Rejected, no, wrong};
use super::{mac_from, mac_text};
use crate::pb::common::{self as pb, PhyIoMemberUsage, PhyIoType};
use crate::pb::config::bond_adapter::Monitoring;
use crate::pb::config::{
    ArpMonitor, BondAdapter, EdgeDevConfig, EthVf, MiiMonitor, PhysicalIo, VfList, VlanAdapter,
};

/// Kinds and their numbers (EVE API, `PhyIoType`).
const KINDS: [(HardwareKind, PhyIoType); 17] = [
    (HardwareKind::Ethernet, PhyIoType::PhyIoNetEth),
    (HardwareKind::Usb, PhyIoType::PhyIoUsb),
    (HardwareKind::Com, PhyIoType::PhyIoCom),
    (HardwareKind::Audio, PhyIoType::PhyIoAudio),
    (HardwareKind::Wlan, PhyIoType::PhyIoNetWlan),
    (HardwareKind::Wwan, PhyIoType::PhyIoNetWwan),
    (HardwareKind::Hdmi, PhyIoType::PhyIoHdmi),
    (HardwareKind::Nvme, PhyIoType::PhyIoNvmeStorage),
    (HardwareKind::Sata, PhyIoType::PhyIoSataStorage),
    (HardwareKind::EthernetPf, PhyIoType::PhyIoNetEthPf),
    (HardwareKind::EthernetVf, PhyIoType::PhyIoNetEthVf),
    (HardwareKind::UsbController, PhyIoType::PhyIoUsbController),
    (HardwareKind::UsbDevice, PhyIoType::PhyIoUsbDevice),
    (HardwareKind::Can, PhyIoType::PhyIoCan),
    (HardwareKind::Vcan, PhyIoType::PhyIoVcan),
    (HardwareKind::Lcan, PhyIoType::PhyIoLcan),
    (HardwareKind::Other, PhyIoType::PhyIoOther),
];

const USAGES: [(Usage, PhyIoMemberUsage); 6] = [
    (Usage::Unspecified, PhyIoMemberUsage::PhyIoUsageNone),
    (Usage::MgmtAndApps, PhyIoMemberUsage::PhyIoUsageMgmtAndApps),
    (Usage::Shared, PhyIoMemberUsage::PhyIoUsageShared),
    (Usage::Dedicated, PhyIoMemberUsage::PhyIoUsageDedicated),
    (Usage::Disabled, PhyIoMemberUsage::PhyIoUsageDisabled),
    (Usage::MgmtOnly, PhyIoMemberUsage::PhyIoUsageMgmtOnly),
];

const MODES: [(BondMode, pb::BondMode); 7] = [
    (BondMode::BalanceRr, pb::BondMode::BalanceRr),
    (BondMode::ActiveBackup, pb::BondMode::ActiveBackup),
    (BondMode::BalanceXor, pb::BondMode::BalanceXor),
    (BondMode::Broadcast, pb::BondMode::Broadcast),
    (BondMode::Lacp, pb::BondMode::BondMode8023ad),
    (BondMode::BalanceTlb, pb::BondMode::BalanceTlb),
    (BondMode::BalanceAlb, pb::BondMode::BalanceAlb),
];

/// Our word for a number of the wire.
pub(super) fn word<T: Copy, W: Copy + Into<i32>>(table: &[(T, W)], number: i32) -> Option<T> {
    table.iter().find(|(_, w)| (*w).into() == number).map(|(t, _)| *t)
}

/// The wire's number for a word of ours; every table is complete.
pub(super) fn number<T: PartialEq, W: Copy + Into<i32>>(table: &[(T, W)], word: &T) -> i32 {
    table.iter().find(|(t, _)| t == word).map_or(0, |(_, w)| (*w).into())
}

pub(super) fn kind(field: &str, number: i32) -> Result<HardwareKind, Rejected> {
    word(&KINDS, number).ok_or_else(|| no(field, number, "a known kind of hardware"))
}

pub(super) fn kind_number(kind: HardwareKind) -> i32 {
    number(&KINDS, &kind)
}

/// The hardware that can be understood, in its order.
pub(super) fn read(config: &EdgeDevConfig, refused: &mut Vec<Refused>) -> Vec<Hardware> {
    let mut all = Vec::new();
    for io in &config.device_io_list {
        match piece(io) {
            Ok(piece) => all.push(piece),
            Err(why) => refused.push(why.of(ObjectKind::Hardware, label(io), &io.phylabel)),
        }
    }
    all
}

fn label(io: &PhysicalIo) -> &str {
    if io.logicallabel.is_empty() { &io.phylabel } else { &io.logicallabel }
}

fn piece(io: &PhysicalIo) -> Result<Hardware, Rejected> {
    let functions = match &io.vflist {
        None => None,
        Some(list) if list.data.len() > list.vf_count as usize => {
            let got = format_args!("{} functions", list.data.len());
            return Err(no("vflist.data", got, &format!("vf_count, {}, or fewer", list.vf_count)));
        }
        Some(list) => Some(VirtualFunctions {
            count: list.vf_count,
            functions: list.data.iter().map(function).collect::<Result<_, _>>()?,
        }),
    };
    if label(io).is_empty() {
        return Err(wrong("logicallabel", "it is missing, and phylabel too"));
    }
    let lower = |(k, v): (&String, &String)| (k.to_ascii_lowercase(), v.clone());
    Ok(Hardware {
        label: label(io).to_owned(),
        physical: io.phylabel.clone(),
        kind: kind("ptype", io.ptype)?,
        addresses: io.phyaddrs.iter().map(lower).collect(),
        group: io.assigngrp.clone(),
        parent_group: io.parentassigngrp.clone(),
        usage: word(&USAGES, io.usage).ok_or_else(|| no("usage", io.usage, "0 to 5"))?,
        attributes: io.cbattr.clone(),
        functions,
    })
}

/// One function of a divided card; also of an app's adapter.
pub(super) fn function(p: &EthVf) -> Result<VirtualFunction, Rejected> {
    let mac = match p.mac.as_str() {
        "" => None,
        text => Some(mac_from(text).ok_or_else(|| no("mac", text, "a hardware address"))?),
    };
    let vlan = match p.vlan_id {
        0 => None,
        id => Some(vlan_id("vlan_id", id)?),
    };
    Ok(VirtualFunction { index: p.index, mac, vlan })
}

pub(super) fn write_function(function: &VirtualFunction) -> EthVf {
    EthVf {
        index: function.index,
        mac: function.mac.map(mac_text).unwrap_or_default(),
        vlan_id: function.vlan.unwrap_or_default().into(),
    }
}

/// Ids of VLANs that can be used (IEEE 802.1Q: 0 and 4095 are reserved).
pub(super) fn vlan_id(field: &str, id: u32) -> Result<u16, Rejected> {
    match u16::try_from(id) {
        Ok(id @ 1..=4094) => Ok(id),
        _ => Err(no(field, id, "1 to 4094")),
    }
}

/// The name of an interface: IFNAMSIZ is 16, the final zero included.
pub(super) fn interface_name(field: &str, name: &str) -> Result<String, Rejected> {
    let plain = |c: char| c.is_ascii_graphic() && c != '/';
    if (1..16).contains(&name.len()) && name.chars().all(plain) {
        Ok(name.to_owned())
    } else {
        Err(no(field, name, "the name of an interface"))
    }
}

pub(super) fn write(hardware: &Hardware) -> PhysicalIo {
    PhysicalIo {
        ptype: number(&KINDS, &hardware.kind),
        phylabel: hardware.physical.clone(),
        phyaddrs: hardware.addresses.clone(),
        logicallabel: hardware.label.clone(),
        assigngrp: hardware.group.clone(),
        usage: number(&USAGES, &hardware.usage),
        cbattr: hardware.attributes.clone(),
        vflist: hardware.functions.as_ref().map(|f| VfList {
            vf_count: f.count,
            data: f.functions.iter().map(write_function).collect(),
        }),
        parentassigngrp: hardware.parent_group.clone(),
        ..PhysicalIo::default()
    }
}

/// Bonds by label.
pub(super) fn read_bonds(
    config: &EdgeDevConfig,
    hardware: &[Hardware],
    refused: &mut Vec<Refused>,
) -> BTreeMap<PortName, Bond> {
    let mut bonds = BTreeMap::new();
    let mut taken = BTreeSet::new();
    for p in &config.bonds {
        match bond(p, hardware, &mut taken) {
            Ok(bond) if !bonds.contains_key(&bond.label) => {
                bonds.insert(bond.label.clone(), bond);
            }
            Ok(_) => refused.push(twice(ObjectKind::Bond, &p.logicallabel)),
            Err(why) => refused.push(why.of(ObjectKind::Bond, &p.logicallabel, "")),
        }
    }
    bonds
}

fn twice(kind: ObjectKind, label: &str) -> Refused {
    wrong("logicallabel", "another object has it too").of(kind, label, "")
}

fn bond(
    p: &BondAdapter,
    hardware: &[Hardware],
    taken: &mut BTreeSet<String>,
) -> Result<Bond, Rejected> {
    let label = PortName::new(&p.logicallabel)
        .ok_or_else(|| no("logicallabel", &p.logicallabel, "a port name"))?;
    let name = if p.interface_name.is_empty() { &p.logicallabel } else { &p.interface_name };
    let interface = interface_name("interface_name", name)?;
    if interface == "bond0" {
        // The kernel makes one of that name by itself.
        return Err(wrong("interface_name", "bond0 is the kernel's own"));
    }
    if p.lower_layer_names.is_empty() {
        return Err(wrong("lower_layer_names", "it is empty"));
    }
    for member in &p.lower_layer_names {
        let ethernet =
            hardware.iter().any(|h| h.label == *member && h.kind == HardwareKind::Ethernet);
        if !ethernet {
            return Err(no("lower_layer_names", member, "the label of an Ethernet card"));
        }
        if !taken.insert(member.clone()) {
            return Err(wrong("lower_layer_names", format_args!("{member} is in two bonds")));
        }
    }
    let mode = word(&MODES, p.bond_mode).ok_or_else(|| no("bond_mode", p.bond_mode, "1 to 7"))?;
    let monitor = match &p.monitoring {
        None => None,
        Some(Monitoring::Mii(m)) => Some(BondMonitor::Mii {
            interval_ms: m.interval,
            up_delay_ms: m.updelay,
            down_delay_ms: m.downdelay,
        }),
        Some(Monitoring::Arp(m)) => {
            let targets = m
                .ip_targets
                .iter()
                .map(|t| t.parse::<IpAddr>().map_err(|_| no("arp.ip_targets", t, "an IP address")));
            Some(BondMonitor::Arp {
                interval_ms: m.interval,
                targets: targets.collect::<Result<_, _>>()?,
            })
        }
    };
    let lacp = match pb::LacpRate::try_from(p.lacp_rate) {
        Ok(pb::LacpRate::Unspecified) => LacpRate::Unspecified,
        Ok(pb::LacpRate::Slow) => LacpRate::Slow,
        Ok(pb::LacpRate::Fast) => LacpRate::Fast,
        Err(_) => return Err(no("lacp_rate", p.lacp_rate, "0 to 2")),
    };
    Ok(Bond { label, interface, members: p.lower_layer_names.clone(), mode, monitor, lacp })
}

pub(super) fn write_bond(bond: &Bond) -> BondAdapter {
    let monitoring = bond.monitor.as_ref().map(|m| match m {
        BondMonitor::Mii { interval_ms, up_delay_ms, down_delay_ms } => {
            Monitoring::Mii(MiiMonitor {
                interval: *interval_ms,
                updelay: *up_delay_ms,
                downdelay: *down_delay_ms,
            })
        }
        BondMonitor::Arp { interval_ms, targets } => Monitoring::Arp(ArpMonitor {
            interval: *interval_ms,
            ip_targets: targets.iter().map(ToString::to_string).collect(),
        }),
    });
    let lacp = match bond.lacp {
        LacpRate::Unspecified => pb::LacpRate::Unspecified,
        LacpRate::Slow => pb::LacpRate::Slow,
        LacpRate::Fast => pb::LacpRate::Fast,
    };
    BondAdapter {
        logicallabel: bond.label.to_string(),
        interface_name: bond.interface.clone(),
        lower_layer_names: bond.members.clone(),
        bond_mode: number(&MODES, &bond.mode),
        lacp_rate: lacp.into(),
        monitoring,
    }
}

/// VLANs by label.
pub(super) fn read_vlans(
    config: &EdgeDevConfig,
    hardware: &[Hardware],
    bonds: &BTreeMap<PortName, Bond>,
    refused: &mut Vec<Refused>,
) -> BTreeMap<PortName, Vlan> {
    let mut vlans: BTreeMap<PortName, Vlan> = BTreeMap::new();
    for p in &config.vlans {
        match vlan(p, hardware, bonds) {
            Ok(vlan) if vlans.values().any(|v| v.below == vlan.below && v.id == vlan.id) => {
                let why = wrong("vlan_id", format_args!("two of {} on {}", vlan.id, vlan.below));
                refused.push(why.of(ObjectKind::Vlan, &p.logicallabel, ""));
            }
            Ok(vlan) if !vlans.contains_key(&vlan.label) => {
                vlans.insert(vlan.label.clone(), vlan);
            }
            Ok(_) => refused.push(twice(ObjectKind::Vlan, &p.logicallabel)),
            Err(why) => refused.push(why.of(ObjectKind::Vlan, &p.logicallabel, "")),
        }
    }
    vlans
}

fn vlan(
    p: &VlanAdapter,
    hardware: &[Hardware],
    bonds: &BTreeMap<PortName, Bond>,
) -> Result<Vlan, Rejected> {
    let label = PortName::new(&p.logicallabel)
        .ok_or_else(|| no("logicallabel", &p.logicallabel, "a port name"))?;
    let name = if p.interface_name.is_empty() { &p.logicallabel } else { &p.interface_name };
    let below = &p.lower_layer_name;
    let on_card = hardware.iter().any(|h| h.label == *below && h.kind.is_network());
    let on_bond = bonds.keys().any(|b| b.as_str() == below);
    if !on_card && !on_bond {
        return Err(no("lower_layer_name", below, "the label of a network card or a bond"));
    }
    Ok(Vlan {
        label,
        interface: interface_name("interface_name", name)?,
        below: below.clone(),
        id: vlan_id("vlan_id", p.vlan_id)?,
    })
}

pub(super) fn write_vlan(vlan: &Vlan) -> VlanAdapter {
    VlanAdapter {
        logicallabel: vlan.label.to_string(),
        interface_name: vlan.interface.clone(),
        lower_layer_name: vlan.below.clone(),
        vlan_id: vlan.id.into(),
    }
}
