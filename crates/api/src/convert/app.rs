//! Apps: `AppInstanceConfig`, `VmConfig`, `NetworkAdapter`, `ACE`.

use std::net::IpAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;
use model::Bytes;
use model::desired::{
    Action, App, AppInterface, AppOptions, Direction, Match, Metadata, PortName, Protocol, Rule,
    Snapshot, SnapshotWhen, Snapshots, UserData, Virtualization, VolumeRef, environment,
    is_cloud_init,
};

use super::content::generation;
use super::hardware::{number, vlan_id, word};
use super::machine;
use super::ports::optional_address;
use super::refuse::{Rejected, id, no, wrong};
use super::secret::{Opener, Sealer};
use super::{mac_from, mac_text};
use crate::pb::common::EncryptionBlock;
use crate::pb::config::{
    Ace, AceAction, AceDirection, AceMatch, AppInstanceConfig, AppRuntimeType, InstanceOpsCmd,
    MetaDataType, NetworkAdapter, SnapshotConfig, SnapshotDesc, SnapshotType, UuiDandVersion,
    VmMode, VolumeRef as PbVolumeRef,
};

/// User data may have so many bytes (EVE's limit for one app's description).
const USER_DATA_MAX: usize = 65_535;

const METADATA: [(Metadata, MetaDataType); 4] = [
    (Metadata::Drive, MetaDataType::MetaDataDrive),
    (Metadata::None, MetaDataType::MetaDataNone),
    (Metadata::OpenStack, MetaDataType::MetaDataOpenStack),
    (Metadata::Multipart, MetaDataType::MetaDataDriveMultipart),
];

const SNAPSHOTS: [(SnapshotWhen, SnapshotType); 2] =
    [(SnapshotWhen::Update, SnapshotType::AppUpdate), (SnapshotWhen::Now, SnapshotType::Immediate)];

/// Reads an app.
pub(super) fn read(p: &AppInstanceConfig, opener: &mut Opener<'_, '_>) -> Result<App, Rejected> {
    let named =
        p.uuidandversion.as_ref().ok_or_else(|| wrong("uuidandversion", "it is missing"))?;
    let machine =
        p.fixedresources.as_ref().ok_or_else(|| wrong("fixedresources", "it is missing"))?;
    let virtualization = match VmMode::try_from(machine.virtualization_mode) {
        Ok(VmMode::Nohyper) => Virtualization::Container,
        Ok(VmMode::Pv | VmMode::Hvm | VmMode::Fml | VmMode::Legacy) => Virtualization::Vm,
        _ => {
            let got = machine.virtualization_mode;
            return Err(no("fixedresources.virtualizationMode", got, "a known mode"));
        }
    };
    let (environment, user_data) = user_data(p, virtualization, opener)?;
    let counter = |c: &Option<InstanceOpsCmd>| c.as_ref().map_or(0, |c| c.counter);
    let options = AppOptions {
        profiles: p.profile_list.clone(),
        metadata: word(&METADATA, p.meta_data_type)
            .ok_or_else(|| no("metaDataType", p.meta_data_type, "0 to 3"))?,
        cloud_init_version: p.cloud_init_version,
        remote_console: p.remote_console,
        stats_address: p.collect_stats_ip_addr.clone(),
        service: p.service,
        docker: p.runtime_type == i32::from(AppRuntimeType::Docker),
        snapshots: p.snapshot.as_ref().map(snapshots).transpose()?,
    };
    if options.service && virtualization != Virtualization::Container {
        return Err(wrong("service", "only a container (virtualizationMode 4) can be one"));
    }
    Ok(App {
        id: id("uuidandversion.uuid", &named.uuid)?,
        version: named.version.clone(),
        name: p.displayname.clone(),
        activate: p.activate,
        vcpus: u8::try_from(machine.vcpus)
            .ok()
            .filter(|n| *n > 0)
            .ok_or_else(|| no("fixedresources.vcpus", machine.vcpus, "1 to 255"))?,
        // The wire counts KiB.
        memory: match machine.memory {
            0 => return Err(wrong("fixedresources.memory", "it is missing")),
            kib => Bytes::kib(kib.into()),
        },
        virtualization,
        volumes: p.volume_ref_list.iter().map(volume).collect::<Result<_, _>>()?,
        interfaces: p
            .interfaces
            .iter()
            .enumerate()
            .map(|(at, i)| interface(i).map_err(|why| why.within(format_args!("interfaces[{at}]"))))
            .collect::<Result<_, _>>()?,
        restart: counter(&p.restart),
        purge: counter(&p.purge),
        environment,
        user_data,
        start_delay: Duration::from_secs(p.start_delay_in_seconds.into()),
        disable_logs: machine.disable_logs,
        machine: machine::read(machine, &p.vm_resolution)?,
        hardware: p
            .adapters
            .iter()
            .enumerate()
            .map(|(at, a)| {
                machine::adapter(a).map_err(|why| why.within(format_args!("adapters[{at}]")))
            })
            .collect::<Result<_, _>>()?,
        options,
    })
}

fn snapshots(p: &SnapshotConfig) -> Result<Snapshots, Rejected> {
    let one = |s: &SnapshotDesc| {
        let when = word(&SNAPSHOTS, s.r#type).ok_or_else(|| {
            no("snapshot.snapshots.type", s.r#type, "APP_UPDATE (1) or IMMEDIATE (2)")
        })?;
        if s.id.is_empty() {
            return Err(wrong("snapshot.snapshots.id", "it is missing"));
        }
        Ok(Snapshot { id: s.id.clone(), when })
    };
    Ok(Snapshots {
        max: p.max_snapshots,
        wanted: p.snapshots.iter().map(one).collect::<Result<_, _>>()?,
        active: p.active_snapshot.clone(),
        rollback: p.rollback_cmd.as_ref().map_or(0, |c| c.counter),
    })
}

/// The environment of a container, or user data that is none: text of a virtual machine, or what
/// cloud-init understands.
fn user_data(
    p: &AppInstanceConfig,
    virtualization: Virtualization,
    opener: &mut Opener<'_, '_>,
) -> Result<(Vec<String>, Option<UserData>), Rejected> {
    let (field, encoded, sealed) = match opener.block("cipherData", p.cipher_data.as_ref())? {
        Some(block) if !block.protected_user_data.is_empty() => {
            ("cipherData.protectedUserData", block.protected_user_data, true)
        }
        _ => ("userData", p.user_data.clone(), false),
    };
    if encoded.len() > USER_DATA_MAX {
        return Err(no(field, format_args!("{} bytes", encoded.len()), "65535 bytes or less"));
    }
    let text = STANDARD
        .decode(encoded.trim())
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| wrong(field, "it is not base64 of a text"))?;
    if text.is_empty() {
        return Ok((Vec::new(), None));
    }
    if virtualization == Virtualization::Container && !sealed && !is_cloud_init(&text) {
        let environment = environment(&text).map_err(|line| no(field, line, "a line KEY=VALUE"))?;
        return Ok((environment, None));
    }
    let data = if sealed { UserData::Sealed(text.into()) } else { UserData::Plain(text) };
    Ok((Vec::new(), Some(data)))
}

fn volume(p: &PbVolumeRef) -> Result<VolumeRef, Rejected> {
    Ok(VolumeRef {
        volume: id("volumeRefList.uuid", &p.uuid)?,
        generation: generation("volumeRefList.generationCount", p.generation_count)?,
        mount: p.mount_dir.clone(),
    })
}

fn interface(p: &NetworkAdapter) -> Result<AppInterface, Rejected> {
    let mac = match p.mac_address.as_str() {
        "" => None,
        text => Some(
            mac_from(text)
                .filter(|mac| mac[0] & 1 == 0)
                .ok_or_else(|| no("macAddress", text, "the hardware address of one card"))?,
        ),
    };
    let access_vlan = match p.access_vlan_id {
        0 => None,
        id => Some(vlan_id("access_vlan_id", id)?),
    };
    Ok(AppInterface {
        name: p.name.clone(),
        network: id("networkId", &p.network_id)?,
        mac,
        address: optional_address("addr", &p.addr)?,
        rules: p
            .acls
            .iter()
            .enumerate()
            .map(|(at, ace)| rule(ace).map_err(|why| why.within(format_args!("acls[{at}]"))))
            .collect::<Result<_, _>>()?,
        access_vlan,
        discover: p.allow_to_discover,
        order: p.interface_order,
    })
}

fn rule(p: &Ace) -> Result<Rule, Rejected> {
    let matches = p.matches.iter().map(condition).collect::<Result<Vec<_>, _>>()?;
    let direction = match AceDirection::try_from(p.dir) {
        Ok(AceDirection::Both) => Direction::Both,
        Ok(AceDirection::Ingress) => Direction::Ingress,
        Ok(AceDirection::Egress) => Direction::Egress,
        Err(_) => return Err(no("dir", p.dir, "BOTH (0), INGRESS (1) or EGRESS (2)")),
    };
    let action = match p.actions.as_slice() {
        [] => Action::Allow,
        [one] => action(one)?,
        [_, _, ..] => return Err(wrong("actions", "a rule has one action at most")),
    };

    let has = |is: fn(&Match) -> bool| matches.iter().any(is);
    let with_ports = has(|m| matches!(m, Match::Protocol(Protocol::Tcp | Protocol::Udp)));
    if has(|m| matches!(m, Match::LocalPort(_) | Match::RemotePort(_))) && !with_ports {
        return Err(wrong("matches", "a port needs protocol tcp or udp beside it"));
    }
    let mapped = matches!(action, Action::PortMap { .. });
    if mapped && !has(|m| matches!(m, Match::LocalPort(_))) {
        return Err(wrong("matches", "a port map needs lport, the port at the node's edge"));
    }
    Ok(Rule { id: p.id, matches, action, direction })
}

fn condition(p: &AceMatch) -> Result<Match, Rejected> {
    let value = p.value.trim();
    let bad = |want| no(format_args!("matches.{}", p.r#type), value, want);
    let port = || value.parse::<u16>().ok().filter(|p| *p > 0).ok_or_else(|| bad("a port"));
    match p.r#type.as_str() {
        "ip" => {
            // A bare address is a subnet of its own.
            let net = value.parse::<IpNet>().ok();
            let net = net.or_else(|| value.parse::<IpAddr>().ok().map(IpNet::from));
            net.map(Match::Ip).ok_or_else(|| bad("an address or a subnet"))
        }
        "host" if value.is_empty() => Err(bad("a host name")),
        "host" => Ok(Match::Host(value.to_owned())),
        "protocol" => match value.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Match::Protocol(Protocol::Tcp)),
            "udp" => Ok(Match::Protocol(Protocol::Udp)),
            "icmp" => Ok(Match::Protocol(Protocol::Icmp)),
            _ => Err(bad("tcp, udp or icmp")),
        },
        "lport" => port().map(Match::LocalPort),
        "fport" => port().map(Match::RemotePort),
        "adapter" => PortName::new(value).map(Match::Adapter).ok_or_else(|| bad("a port name")),
        other => Err(no("matches.type", other, "ip, host, protocol, lport, fport or adapter")),
    }
}

fn action(p: &AceAction) -> Result<Action, Rejected> {
    match (p.drop, p.limit, p.portmap) {
        (false, false, false) => Ok(Action::Allow),
        (true, false, false) => Ok(Action::Drop),
        (false, true, false) => {
            let per = match p.limitunit.trim_start_matches('/') {
                "s" | "sec" | "second" => Duration::from_secs(1),
                "m" | "min" | "minute" => Duration::from_secs(60),
                "h" | "hour" => Duration::from_secs(3600),
                "d" | "day" => Duration::from_secs(86_400),
                other => return Err(no("actions.limitunit", other, "s, m, h or d")),
            };
            if p.limitrate == 0 {
                return Err(no("actions.limitrate", 0, "a rate"));
            }
            Ok(Action::Limit { rate: p.limitrate, per, burst: p.limitburst })
        }
        (false, false, true) => match u16::try_from(p.app_port) {
            Ok(app_port @ 1..) => Ok(Action::PortMap { app_port }),
            _ => Err(no("actions.appPort", p.app_port, "a port")),
        },
        _ => Err(wrong("actions", "a rule has one action at most")),
    }
}

pub(super) fn write(app: &App, sealer: &mut Sealer<'_, '_>) -> AppInstanceConfig {
    // Always there: the first counter a node sees is only noted, so one that comes late is lost.
    let counter = |counter| Some(InstanceOpsCmd { counter, ops_time: String::new() });
    let plain = match &app.user_data {
        None => app.environment.join("\n"),
        Some(data) => data.text().to_owned(),
    };
    let mut user_data = STANDARD.encode(plain);
    let mut cipher_data = None;
    if matches!(app.user_data, Some(UserData::Sealed(_))) {
        let block =
            EncryptionBlock { protected_user_data: user_data.clone(), ..Default::default() };
        cipher_data = sealer.block(&block);
    }
    if cipher_data.is_some() {
        user_data.clear();
    }
    let options = &app.options;
    let runtime = if options.docker { AppRuntimeType::Docker } else { AppRuntimeType::Unspecified };
    AppInstanceConfig {
        uuidandversion: Some(UuiDandVersion {
            uuid: app.id.to_string(),
            version: app.version.clone(),
        }),
        displayname: app.name.clone(),
        fixedresources: Some(machine::write(app)),
        activate: app.activate,
        interfaces: app.interfaces.iter().map(write_interface).collect(),
        adapters: app.hardware.iter().map(machine::write_adapter).collect(),
        restart: counter(app.restart),
        purge: counter(app.purge),
        user_data,
        remote_console: options.remote_console,
        cipher_data,
        collect_stats_ip_addr: options.stats_address.clone(),
        volume_ref_list: app
            .volumes
            .iter()
            .map(|v| PbVolumeRef {
                uuid: v.volume.to_string(),
                generation_count: i64::try_from(v.generation).unwrap_or(i64::MAX),
                mount_dir: v.mount.clone(),
            })
            .collect(),
        meta_data_type: number(&METADATA, &options.metadata),
        profile_list: options.profiles.clone(),
        start_delay_in_seconds: u32::try_from(app.start_delay.as_secs()).unwrap_or(u32::MAX),
        service: options.service,
        cloud_init_version: options.cloud_init_version,
        snapshot: options.snapshots.as_ref().map(|s| SnapshotConfig {
            active_snapshot: s.active.clone(),
            rollback_cmd: counter(s.rollback),
            max_snapshots: s.max,
            snapshots: s
                .wanted
                .iter()
                .map(|w| SnapshotDesc { id: w.id.clone(), r#type: number(&SNAPSHOTS, &w.when) })
                .collect(),
        }),
        vm_resolution: app.machine.resolution.clone(),
        runtime_type: runtime.into(),
        ..AppInstanceConfig::default()
    }
}

fn write_interface(interface: &AppInterface) -> NetworkAdapter {
    NetworkAdapter {
        name: interface.name.clone(),
        network_id: interface.network.to_string(),
        addr: interface.address.map(|a| a.to_string()).unwrap_or_default(),
        mac_address: interface.mac.map(mac_text).unwrap_or_default(),
        acls: interface.rules.iter().map(write_rule).collect(),
        access_vlan_id: interface.access_vlan.unwrap_or_default().into(),
        allow_to_discover: interface.discover,
        interface_order: interface.order,
        ..NetworkAdapter::default()
    }
}

fn write_rule(rule: &Rule) -> Ace {
    let matches = rule.matches.iter().map(|m| {
        let (kind, value) = match m {
            Match::Ip(net) => ("ip", net.to_string()),
            Match::Host(name) => ("host", name.clone()),
            Match::Protocol(Protocol::Tcp) => ("protocol", "tcp".to_owned()),
            Match::Protocol(Protocol::Udp) => ("protocol", "udp".to_owned()),
            Match::Protocol(Protocol::Icmp) => ("protocol", "icmp".to_owned()),
            Match::LocalPort(port) => ("lport", port.to_string()),
            Match::RemotePort(port) => ("fport", port.to_string()),
            Match::Adapter(port) => ("adapter", port.to_string()),
        };
        AceMatch { r#type: kind.to_owned(), value }
    });
    let action = match &rule.action {
        Action::Allow => None,
        Action::Drop => Some(AceAction { drop: true, ..AceAction::default() }),
        Action::Limit { rate, per, burst } => Some(AceAction {
            limit: true,
            limitrate: *rate,
            limitunit: match per.as_secs() {
                0..60 => "s",
                60..3600 => "m",
                3600..86_400 => "h",
                _ => "d",
            }
            .to_owned(),
            limitburst: *burst,
            ..AceAction::default()
        }),
        Action::PortMap { app_port } => {
            Some(AceAction { portmap: true, app_port: (*app_port).into(), ..AceAction::default() })
        }
    };
    let dir = match rule.direction {
        Direction::Both => AceDirection::Both,
        Direction::Ingress => AceDirection::Ingress,
        Direction::Egress => AceDirection::Egress,
    };
    Ace {
        matches: matches.collect(),
        actions: action.into_iter().collect(),
        id: rule.id,
        dir: dir.into(),
        ..Ace::default()
    }
}
