//! Radios and proxies of a port: `WirelessConfig`, `ProxyConfig`, connectivity probes.

use model::Secret;
use model::desired::{
    AccessPoint, Bearer, Cellular, CellularAuth, CellularIp, CellularProbe, Probe, ProbeMethod,
    Proxy, ProxyProtocol, ProxyServer, RadioTechnology, WifiNetwork, WifiScheme,
};

use super::hardware::{number, word};
use super::refuse::{Rejected, no, wrong};
use super::secret::{Opener, Sealer, text};
use crate::pb::common::{
    self as pb, CellularAuthProtocol, CellularIpType, ConnectivityProbe, ConnectivityProbeMethod,
    EncryptionBlock, ProbeEndpoint, ProxyConfig, ProxyProto, RadioAccessTechnology, WiFiKeyScheme,
    WirelessType,
};
use crate::pb::config::{
    CellularAccessPoint, CellularConfig, CellularConnectivityProbe, WifiConfig, WirelessConfig,
};

const SCHEMES: [(WifiScheme, WiFiKeyScheme); 3] = [
    (WifiScheme::Open, WiFiKeyScheme::SchemeNoop),
    (WifiScheme::WpaPsk, WiFiKeyScheme::Wpapsk),
    (WifiScheme::WpaEap, WiFiKeyScheme::Wpaeap),
];

const AUTHS: [(CellularAuth, CellularAuthProtocol); 4] = [
    (CellularAuth::None, CellularAuthProtocol::None),
    (CellularAuth::Pap, CellularAuthProtocol::Pap),
    (CellularAuth::Chap, CellularAuthProtocol::Chap),
    (CellularAuth::PapAndChap, CellularAuthProtocol::PapAndChap),
];

const CELLULAR_IPS: [(CellularIp, CellularIpType); 4] = [
    (CellularIp::Unspecified, CellularIpType::Unspecified),
    (CellularIp::V4, CellularIpType::Ipv4),
    (CellularIp::V4AndV6, CellularIpType::Ipv4AndIpv6),
    (CellularIp::V6, CellularIpType::Ipv6),
];

const TECHNOLOGIES: [(RadioTechnology, RadioAccessTechnology); 4] = [
    (RadioTechnology::Gsm, RadioAccessTechnology::Gsm),
    (RadioTechnology::Umts, RadioAccessTechnology::Umts),
    (RadioTechnology::Lte, RadioAccessTechnology::Lte),
    (RadioTechnology::Nr, RadioAccessTechnology::RadioAccessTechnology5gnr),
];

const PROXIES: [(ProxyProtocol, ProxyProto); 5] = [
    (ProxyProtocol::Http, ProxyProto::ProxyHttp),
    (ProxyProtocol::Https, ProxyProto::ProxyHttps),
    (ProxyProtocol::Socks, ProxyProto::ProxySocks),
    (ProxyProtocol::Ftp, ProxyProto::ProxyFtp),
    (ProxyProtocol::Other, ProxyProto::ProxyOther),
];

/// The wireless LANs of a network.
pub(super) fn read_wifi(
    wireless: Option<&WirelessConfig>,
    opener: &mut Opener<'_, '_>,
) -> Result<Vec<WifiNetwork>, Rejected> {
    let all = wireless.map(|w| w.wifi_cfg.as_slice()).unwrap_or_default();
    let one = |(at, p): (usize, &WifiConfig)| {
        wifi(p, opener).map_err(|why| why.within(format_args!("wireless.wifiCfg[{at}]")))
    };
    all.iter().enumerate().map(one).collect()
}

fn wifi(p: &WifiConfig, opener: &mut Opener<'_, '_>) -> Result<WifiNetwork, Rejected> {
    // IEEE 802.11: at most 32 bytes.
    if p.wifi_ssid.is_empty() || p.wifi_ssid.len() > 32 {
        return Err(no("wifiSSID", &p.wifi_ssid, "a name of 1 to 32 bytes"));
    }
    let (identity, password) = match opener.block("cipherData", p.cipher_data.as_ref())? {
        Some(block) => (Secret::some(&block.wifi_user_name), Secret::some(&block.wifi_password)),
        None => {
            let old = p.crypto.as_ref();
            let pick =
                |new: &str, old: Option<&String>| Secret::some(new).or_else(|| Secret::some(old?));
            (
                pick(&p.identity, old.map(|c| &c.identity)),
                pick(&p.password, old.map(|c| &c.password)),
            )
        }
    };
    let scheme =
        word(&SCHEMES, p.key_scheme).ok_or_else(|| no("keyScheme", p.key_scheme, "0 to 2"))?;
    Ok(WifiNetwork { ssid: p.wifi_ssid.clone(), scheme, identity, password, priority: p.priority })
}

pub(super) fn write_wifi(all: &[WifiNetwork], sealer: &mut Sealer<'_, '_>) -> WirelessConfig {
    let one = |network: &WifiNetwork| {
        let (identity, password) =
            (text(network.identity.as_ref()), text(network.password.as_ref()));
        let mut written = WifiConfig {
            wifi_ssid: network.ssid.clone(),
            key_scheme: number(&SCHEMES, &network.scheme),
            priority: network.priority,
            cipher_data: sealer.block(&EncryptionBlock {
                wifi_user_name: identity.clone(),
                wifi_password: password.clone(),
                ..EncryptionBlock::default()
            }),
            ..WifiConfig::default()
        };
        if written.cipher_data.is_none() {
            (written.identity, written.password) = (identity, password);
        }
        written
    };
    WirelessConfig {
        r#type: WirelessType::WiFi.into(),
        wifi_cfg: all.iter().map(one).collect(),
        ..WirelessConfig::default()
    }
}

/// The cellular network of a network config.
pub(super) fn read_cellular(
    wireless: Option<&WirelessConfig>,
    opener: &mut Opener<'_, '_>,
) -> Result<Cellular, Rejected> {
    let p = match wireless.map(|w| w.cellular_cfg.as_slice()).unwrap_or_default() {
        [] => return Ok(Cellular::default()),
        [one] => one,
        [_, _, ..] => return Err(wrong("wireless.cellularCfg", "there is more than one")),
    };
    let mut access_points = Vec::new();
    for (at, point) in p.access_points.iter().enumerate() {
        let point = access_point(point, opener)
            .map_err(|why| why.within(format_args!("wireless.cellularCfg.access_points[{at}]")))?;
        access_points.push(point);
    }
    // The older form: one name for all.
    if access_points.is_empty() && !p.apn.is_empty() {
        let bearer = Bearer { apn: p.apn.clone(), ..Bearer::default() };
        access_points.push(AccessPoint { bearer, ..AccessPoint::default() });
    }
    let read = match &p.probe {
        None => None,
        Some(p) if p.disable => Some(CellularProbe::Off),
        Some(p) => probe("wireless.cellularCfg.probe.custom_probe", p.custom_probe.as_ref())?
            .map(CellularProbe::Custom),
    };
    Ok(Cellular {
        probe: read,
        location: p.location_tracking,
        access_points,
        sim_slot: p.activated_sim_slot,
    })
}

fn access_point(
    p: &CellularAccessPoint,
    opener: &mut Opener<'_, '_>,
) -> Result<AccessPoint, Rejected> {
    let secrets = opener.block("cipher_data", p.cipher_data.as_ref())?.unwrap_or_default();
    let auth = |field, n| word(&AUTHS, n).ok_or_else(|| no(field, n, "0 to 3"));
    let ip = |field, n| word(&CELLULAR_IPS, n).ok_or_else(|| no(field, n, "0 to 3"));
    let attach = Bearer {
        apn: p.attach_apn.clone(),
        auth: auth("attach_auth_protocol", p.attach_auth_protocol)?,
        user: Secret::some(&secrets.cellular_net_attach_username),
        password: Secret::some(&secrets.cellular_net_attach_password),
        ip: ip("attach_ip_type", p.attach_ip_type)?,
    };
    let technologies = p
        .preferred_rats
        .iter()
        .map(|n| word(&TECHNOLOGIES, *n).ok_or_else(|| no("preferred_rats", n, "1 to 4")));
    Ok(AccessPoint {
        sim_slot: p.sim_slot,
        bearer: Bearer {
            apn: p.apn.clone(),
            auth: auth("auth_protocol", p.auth_protocol)?,
            user: Secret::some(&secrets.cellular_net_username),
            password: Secret::some(&secrets.cellular_net_password),
            ip: ip("ip_type", p.ip_type)?,
        },
        attach: (attach != Bearer::default()).then_some(attach),
        networks: p.preferred_plmns.clone(),
        forbid_roaming: p.forbid_roaming,
        technologies: technologies.collect::<Result<_, _>>()?,
    })
}

/// Passwords of access points have no clear form: without a seal they are left out.
pub(super) fn write_cellular(cellular: &Cellular, sealer: &mut Sealer<'_, '_>) -> WirelessConfig {
    let point = |p: &AccessPoint| {
        let none = Bearer::default();
        let attach = p.attach.as_ref().unwrap_or(&none);
        CellularAccessPoint {
            sim_slot: p.sim_slot,
            apn: p.bearer.apn.clone(),
            auth_protocol: number(&AUTHS, &p.bearer.auth),
            cipher_data: sealer.block(&EncryptionBlock {
                cellular_net_username: text(p.bearer.user.as_ref()),
                cellular_net_password: text(p.bearer.password.as_ref()),
                cellular_net_attach_username: text(attach.user.as_ref()),
                cellular_net_attach_password: text(attach.password.as_ref()),
                ..EncryptionBlock::default()
            }),
            preferred_plmns: p.networks.clone(),
            forbid_roaming: p.forbid_roaming,
            preferred_rats: p.technologies.iter().map(|t| number(&TECHNOLOGIES, t)).collect(),
            ip_type: number(&CELLULAR_IPS, &p.bearer.ip),
            attach_apn: attach.apn.clone(),
            attach_ip_type: number(&CELLULAR_IPS, &attach.ip),
            attach_auth_protocol: number(&AUTHS, &attach.auth),
        }
    };
    let probe = cellular.probe.as_ref().map(|p| match p {
        CellularProbe::Off => {
            CellularConnectivityProbe { disable: true, ..CellularConnectivityProbe::default() }
        }
        CellularProbe::Custom(probe) => CellularConnectivityProbe {
            custom_probe: Some(write_probe(probe)),
            ..CellularConnectivityProbe::default()
        },
    });
    WirelessConfig {
        r#type: WirelessType::Cellular.into(),
        cellular_cfg: vec![CellularConfig {
            probe,
            location_tracking: cellular.location,
            access_points: cellular.access_points.iter().map(point).collect(),
            activated_sim_slot: cellular.sim_slot,
            ..CellularConfig::default()
        }],
        ..WirelessConfig::default()
    }
}

/// What is to be reached; `None` if nothing is said.
pub(super) fn probe(field: &str, p: Option<&ConnectivityProbe>) -> Result<Option<Probe>, Rejected> {
    let Some(p) = p else { return Ok(None) };
    let method = match ConnectivityProbeMethod::try_from(p.probe_method) {
        Ok(ConnectivityProbeMethod::Unspecified) => return Ok(None),
        Ok(ConnectivityProbeMethod::Icmp) => ProbeMethod::Icmp,
        Ok(ConnectivityProbeMethod::Tcp) => ProbeMethod::Tcp,
        Err(_) => return Err(no(field, p.probe_method, "ICMP (1) or TCP (2)")),
    };
    let end = p.probe_endpoint.as_ref().filter(|e| !e.host.is_empty());
    let end = end.ok_or_else(|| wrong(field, "it has no host"))?;
    match u16::try_from(end.port) {
        Ok(port) if port > 0 || method == ProbeMethod::Icmp => {
            Ok(Some(Probe { method, host: end.host.clone(), port }))
        }
        _ => Err(no(field, end.port, "a port")),
    }
}

pub(super) fn write_probe(probe: &Probe) -> ConnectivityProbe {
    let method = match probe.method {
        ProbeMethod::Icmp => ConnectivityProbeMethod::Icmp,
        ProbeMethod::Tcp => ConnectivityProbeMethod::Tcp,
    };
    let end = ProbeEndpoint { host: probe.host.clone(), port: probe.port.into() };
    ConnectivityProbe { probe_method: method.into(), probe_endpoint: Some(end) }
}

/// `None` if it says nothing.
pub(super) fn read_proxy(p: Option<&ProxyConfig>) -> Result<Option<Proxy>, Rejected> {
    let Some(p) = p else { return Ok(None) };
    let server = |s: &pb::ProxyServer| {
        let protocol = word(&PROXIES, s.proto)
            .ok_or_else(|| no("entProxy.proxies.proto", s.proto, "0 to 3 or 255"))?;
        if s.server.is_empty() {
            return Err(wrong("entProxy.proxies.server", "it is missing"));
        }
        let port =
            u16::try_from(s.port).map_err(|_| no("entProxy.proxies.port", s.port, "a port"))?;
        Ok(ProxyServer { protocol, host: s.server.clone(), port })
    };
    let trust = p.proxy_cert_pem.iter().map(|pem| {
        String::from_utf8(pem.clone())
            .map_err(|_| wrong("entProxy.proxyCertPEM", "it is no PEM text"))
    });
    let proxy = Proxy {
        discover: p.network_proxy_enable,
        servers: p.proxies.iter().map(server).collect::<Result<_, _>>()?,
        exceptions: p.exceptions.clone(),
        pac: p.pacfile.clone(),
        url: p.network_proxy_url.clone(),
        trust: trust.collect::<Result<_, _>>()?,
    };
    Ok((proxy != Proxy::default()).then_some(proxy))
}

pub(super) fn write_proxy(proxy: &Proxy) -> ProxyConfig {
    ProxyConfig {
        network_proxy_enable: proxy.discover,
        proxies: proxy
            .servers
            .iter()
            .map(|s| pb::ProxyServer {
                proto: number(&PROXIES, &s.protocol),
                server: s.host.clone(),
                port: s.port.into(),
            })
            .collect(),
        exceptions: proxy.exceptions.clone(),
        pacfile: proxy.pac.clone(),
        network_proxy_url: proxy.url.clone(),
        proxy_cert_pem: proxy.trust.iter().map(|pem| pem.clone().into_bytes()).collect(),
    }
}
