//! `DevicePortConfig/override.json` and `usb.json`: ports, as EVE keeps them itself.
//!
//! ```json
//! {"Version": 1, "TimePriority": "2024-01-01T00:00:00Z", "Ports": [
//!     {"IfName": "eth0", "IsMgmt": true, "Dhcp": 1, "AddrSubnet": "10.0.0.2/24",
//!      "Gateway": "10.0.0.1", "DnsServers": ["10.0.0.1"]}]}
//! ```

use std::collections::BTreeMap;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipnet::Ipv4Net;
use model::UnixMillis;
use model::desired::{
    Addressing, DhcpIgnore, Family, Link, ObjectKind, Port, PortName, PortOptions, Proxy,
    ProxyProtocol, ProxyServer, RESERVED_LABELS, Refused, StaticAddress,
};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::fields::Fields;
use super::{LegacyError, json};
use crate::convert::hardware::interface_name;
use crate::convert::ports::{mtu, optional_address};
use crate::convert::refuse::{Rejected, no, wrong};

/// From this `Version` on a port says itself whether it is for management; before, each was.
const SAYS_MANAGEMENT: u32 = 1;

/// Ports that such a file gives a node.
#[derive(Debug, Clone, PartialEq)]
pub struct LegacyPorts {
    /// When they were made; of two files the newer counts. `None`: not said.
    pub made: Option<UnixMillis>,
    /// By name. One at least is for management; no two stand on one interface.
    pub ports: BTreeMap<PortName, Port>,
    /// Ports that were left out, each with the field that is to blame.
    pub refused: Vec<Refused>,
}

/// Reads the file. `None`: it says nothing of ports.
///
/// Each port is taken or refused for itself, but a file without any good port for management is
/// refused as a whole. What EVE notes beside a port for itself (tests, keys, `Free` of old) is passed
/// over.
pub fn ports(file: &[u8]) -> Result<Option<LegacyPorts>, LegacyError> {
    let Some(json) = json(file)? else { return Ok(None) };
    let file = Fields::of(String::new(), &json)?;
    let list = file.list("Ports")?;
    if list.is_empty() {
        return Ok(None);
    }
    let made = moment(&file)?;
    let all = list.into_iter().map(|(path, value)| Fields::of(path, value));
    let all = all.collect::<Result<Vec<_>, _>>()?;
    let mut file_says = FileSays {
        all_management: file.number("Version", u32::MAX)? < SAYS_MANAGEMENT,
        layers: false,
        labels: Vec::new(),
    };
    for fields in &all {
        file_says.layers |= fields.flag("IsL3Port")?;
        file_says.labels.push(label(fields)?);
    }
    let mut found = LegacyPorts { made, ports: BTreeMap::new(), refused: Vec::new() };
    for fields in &all {
        let alias = fields.text("Alias")?;
        let refused = match port(fields, &file_says) {
            Ok(port) => match found.ports.values().find(|p| p.interface == port.interface) {
                None if !found.ports.contains_key(&port.name) => {
                    found.ports.insert(port.name.clone(), port);
                    continue;
                }
                None => wrong(fields.path("Logicallabel"), "another port has it too"),
                Some(_) => wrong(fields.path("IfName"), "another port stands on it"),
            },
            Err(why) => why,
        };
        found.refused.push(refused.of(ObjectKind::Port, label(fields)?, alias));
    }
    if !found.ports.values().any(|port| port.management) {
        let why = found.refused.into_iter().next();
        let why = why.map_or_else(|| "IsMgmt: none has it".to_owned(), |r| r.text);
        return Err(LegacyError::NoManagement(why));
    }
    Ok(Some(found))
}

/// What of the file bears on each port.
struct FileSays<'a> {
    all_management: bool,
    /// Ports without an address of their own are told apart: some only carry others.
    layers: bool,
    /// Of all ports.
    labels: Vec<&'a str>,
}

fn moment(file: &Fields<'_>) -> Result<Option<UnixMillis>, Rejected> {
    const FIELD: &str = "TimePriority";
    let text = file.text(FIELD)?;
    if text.is_empty() {
        return Ok(None);
    }
    let at = OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|_| no(FIELD, text, "a time such as 2024-01-01T00:00:00Z"))?;
    // Go's zero time, long before ours, stands for none.
    let millis = u64::try_from(at.unix_timestamp_nanos() / 1_000_000);
    Ok(millis.ok().map(UnixMillis))
}

/// The name of a port; that of its interface when it has none.
fn label<'a>(fields: &Fields<'a>) -> Result<&'a str, Rejected> {
    match fields.text("Logicallabel")? {
        "" => fields.text("IfName"),
        label => Ok(label),
    }
}

fn port(fields: &Fields<'_>, file: &FileSays<'_>) -> Result<Port, Rejected> {
    let interface = interface_name(&fields.path("IfName"), fields.text("IfName")?)?;
    let name = label(fields)?;
    let name =
        PortName::new(name).ok_or_else(|| no(fields.path("Logicallabel"), name, "a port name"))?;
    wired(fields, file)?;
    let management = file.all_management || fields.flag("IsMgmt")?;
    let (addressing, dns, ntp) = addressing(fields, management)?;
    let alias = match fields.text("Alias")? {
        // What it was called before there were labels.
        "" => fields.text("Name")?,
        alias => alias,
    };
    Ok(Port {
        name,
        interface,
        management,
        cost: u8::try_from(fields.number("Cost", 255)?).unwrap_or(u8::MAX),
        mtu: mtu(fields.number("MTU", u32::MAX)?).map_err(|why| fields.within(why))?,
        addressing,
        below: String::new(),
        link: Link::Ethernet,
        options: PortOptions {
            family: family(fields)?,
            domain: fields.text("DomainName")?.to_owned(),
            dns,
            ntp,
            ignore: DhcpIgnore {
                ntp: fields.flag("IgnoreDhcpNtpServers")?,
                addresses: fields.flag("IgnoreDhcpIPAddresses")?,
                dns: fields.flag("IgnoreDhcpDNSConfig")?,
                gateways: fields.flag("IgnoreDhcpGateways")?,
            },
            proxy: proxy(fields)?,
            alias: alias.to_owned(),
            shared_labels: shared_labels(fields, file)?,
            local_changes: fields.flag("AllowLocalModifications")?,
        },
    })
}

/// Whoever wants more than wires writes a bootstrap file.
fn wired(fields: &Fields<'_>, file: &FileSays<'_>) -> Result<(), Rejected> {
    if fields.number("L2Type", u32::MAX)? != 0 {
        return Err(wrong(fields.path("L2Type"), "VLANs and bonds are not supported yet"));
    }
    if file.layers && !fields.flag("IsL3Port")? {
        let why = "it only carries a VLAN or is part of a bond, which are not supported yet";
        return Err(wrong(fields.path("IsL3Port"), why));
    }
    match fields.object("WirelessCfg")? {
        Some(radio) if radio.number("WType", u32::MAX)? != 0 => {
            Err(wrong(radio.path("WType"), "only wired ports are supported yet"))
        }
        _ => Ok(()),
    }
}

/// The numbers are EVE's own, not those of the API.
fn family(fields: &Fields<'_>) -> Result<Family, Rejected> {
    match fields.number("Type", u32::MAX)? {
        0 | 4 => Ok(Family::V4),
        6 => Ok(Family::V6),
        5 => Ok(Family::V4Only),
        7 => Ok(Family::V6Only),
        other => Err(no(fields.path("Type"), other, "0 or 4 to 7")),
    }
}

/// How a port gets its address, and the DNS and NTP servers beside those of DHCP.
fn addressing(
    fields: &Fields<'_>,
    management: bool,
) -> Result<(Addressing, Vec<IpAddr>, Vec<String>), Rejected> {
    let server = |(path, text): (String, &str)| {
        text.parse::<IpAddr>().map_err(|_| no(path, text, "an IP address"))
    };
    let dns = fields.texts("DnsServers")?.into_iter().map(server);
    let mut dns = dns.collect::<Result<Vec<_>, _>>()?;
    // Of old there was one.
    let mut ntp = vec![fields.text("NtpServer")?];
    ntp.extend(fields.texts("NTPServers")?.into_iter().map(|(_, text)| text));
    let ntp = ntp.into_iter().filter(|n| !n.is_empty()).map(str::to_owned).collect();
    match fields.number("Dhcp", u32::MAX)? {
        0 | 2 if management => {
            Err(wrong(fields.path("Dhcp"), "a management port needs an address"))
        }
        0 | 2 => Ok((Addressing::None, Vec::new(), Vec::new())),
        1 => {
            let subnet = fields.text("AddrSubnet")?;
            let address = subnet.parse::<Ipv4Net>().map_err(|_| {
                let want = "an address of IP version 4 with the length of its subnet";
                no(fields.path("AddrSubnet"), subnet, want)
            })?;
            let path = fields.path("Gateway");
            let gateway = optional_address(&path, fields.text("Gateway")?)?;
            if dns.is_empty() {
                dns.extend(gateway.map(IpAddr::V4));
            }
            let fixed = StaticAddress { address, gateway, dns, ntp };
            Ok((Addressing::Static(fixed), Vec::new(), Vec::new()))
        }
        4 => Ok((Addressing::Dhcp, dns, ntp)),
        other => Err(no(fields.path("Dhcp"), other, "static (1), none (0, 2) or client (4)")),
    }
}

/// Without those that every port has by itself.
fn shared_labels(fields: &Fields<'_>, file: &FileSays<'_>) -> Result<Vec<String>, Rejected> {
    let mut labels = Vec::new();
    for (path, text) in fields.texts("SharedLabels")? {
        if text.is_empty() || file.labels.contains(&text) {
            return Err(no(path, text, "a label of its own"));
        }
        if !RESERVED_LABELS.contains(&text) {
            labels.push(text.to_owned());
        }
    }
    Ok(labels)
}

fn proxy(fields: &Fields<'_>) -> Result<Option<Proxy>, Rejected> {
    let servers = fields.list("Proxies")?.into_iter();
    let servers = servers.map(|(path, value)| proxy_server(path, value));
    let trust = fields.texts("pubsub-large-ProxyCertPEM")?.into_iter().map(|(path, text)| {
        let bytes = STANDARD.decode(text).map_err(|_| wrong(&path, "it is no base64"))?;
        String::from_utf8(bytes).map_err(|_| wrong(path, "it is no PEM text"))
    });
    let proxy = Proxy {
        discover: fields.flag("NetworkProxyEnable")?,
        servers: servers.collect::<Result<_, _>>()?,
        exceptions: fields.text("Exceptions")?.to_owned(),
        pac: fields.text("Pacfile")?.to_owned(),
        url: fields.text("NetworkProxyURL")?.to_owned(),
        trust: trust.collect::<Result<_, _>>()?,
    };
    Ok((proxy != Proxy::default()).then_some(proxy))
}

fn proxy_server(path: String, value: &Value) -> Result<ProxyServer, Rejected> {
    let fields = Fields::of(path, value)?;
    let protocol = match fields.number("Type", u32::MAX)? {
        0 => ProxyProtocol::Http,
        1 => ProxyProtocol::Https,
        2 => ProxyProtocol::Socks,
        3 => ProxyProtocol::Ftp,
        255 => ProxyProtocol::Other,
        other => return Err(no(fields.path("Type"), other, "0 to 3 or 255")),
    };
    let host = fields.text("Server")?.to_owned();
    if host.is_empty() {
        return Err(wrong(fields.path("Server"), "it is missing"));
    }
    let port = u16::try_from(fields.number("Port", 65_535)?).unwrap_or(u16::MAX);
    Ok(ProxyServer { protocol, host, port })
}

#[cfg(test)]
mod tests;
