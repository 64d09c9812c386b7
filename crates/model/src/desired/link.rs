//! What lies below a port: hardware, VLANs, bonds, radios; and proxies in front of it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::Secret;
use crate::desired::PortName;
use crate::desired::network::Probe;

/// A piece of hardware that ports or apps may use (EVE API, `PhysicalIO`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardware {
    /// The label that others refer to.
    pub label: String,
    /// What stands on the box.
    pub physical: String,
    /// What it is.
    pub kind: HardwareKind,
    /// Where it is: `ifname`, `pcilong`, `usbaddr`, `usbproduct`, `serial`, `irq`, `ioports`; keys
    /// in small letters.
    pub addresses: BTreeMap<String, String>,
    /// All of a group go to one app together; empty: not to be given to apps.
    pub group: String,
    /// The group it hangs on, as a device on its controller; empty: none.
    pub parent_group: String,
    /// Who may use it.
    pub usage: Usage,
    /// Attributes for its driver.
    pub attributes: BTreeMap<String, String>,
    /// What it is divided into. `None`: it is not.
    pub functions: Option<VirtualFunctions>,
}

/// Kinds of hardware; the numbers of the wire stand in `api`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HardwareKind {
    /// An Ethernet card.
    Ethernet,
    /// A USB port with what hangs on it.
    Usb,
    /// A serial line.
    Com,
    /// Sound.
    Audio,
    /// A wireless LAN card.
    Wlan,
    /// A cellular modem.
    Wwan,
    /// A display.
    Hdmi,
    /// An NVMe disk.
    Nvme,
    /// A SATA disk.
    Sata,
    /// An Ethernet card that is divided into functions.
    EthernetPf,
    /// A function of such a card.
    EthernetVf,
    /// A USB controller.
    UsbController,
    /// A USB device.
    UsbDevice,
    /// A CAN bus.
    Can,
    /// A virtual CAN bus.
    Vcan,
    /// A logical CAN bus.
    Lcan,
    /// Anything else.
    Other,
}

impl HardwareKind {
    /// Whether it may carry a port of the node.
    pub fn is_network(self) -> bool {
        matches!(
            self,
            Self::Ethernet | Self::Wlan | Self::Wwan | Self::EthernetPf | Self::EthernetVf
        )
    }
}

/// Who may use a piece of hardware.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Usage {
    /// Nobody said.
    #[default]
    Unspecified,
    /// The node and apps.
    MgmtAndApps,
    /// Apps, several at once.
    Shared,
    /// One app.
    Dedicated,
    /// Nobody.
    Disabled,
    /// The node.
    MgmtOnly,
}

/// The functions a card is divided into.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VirtualFunctions {
    /// How many.
    pub count: u32,
    /// What is known of some; never more than `count`.
    pub functions: Vec<VirtualFunction>,
}

/// A function of a card.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtualFunction {
    /// Its number, below the count.
    pub index: u32,
    /// `None`: the driver's choice.
    pub mac: Option<[u8; 6]>,
    /// 1 to 4094. `None`: untagged.
    pub vlan: Option<u16>,
}

/// What kind of link a port is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Link {
    /// A wire.
    #[default]
    Ethernet,
    /// A wireless LAN, one of these.
    Wifi(Vec<WifiNetwork>),
    /// A cellular network.
    Cellular(Cellular),
    /// A VLAN, see [`super::Device::vlans`].
    Vlan,
    /// Several wires as one, see [`super::Device::bonds`].
    Bond,
}

/// A wireless LAN a port may join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WifiNetwork {
    /// Its name.
    pub ssid: String,
    /// How it is protected.
    pub scheme: WifiScheme,
    /// User, of WPA-EAP.
    pub identity: Option<Secret>,
    /// `None`: it needs none.
    pub password: Option<Secret>,
    /// The greatest that is there is joined.
    pub priority: i32,
}

/// How a wireless LAN is protected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WifiScheme {
    /// Not at all.
    Open,
    /// By one password for all.
    #[default]
    WpaPsk,
    /// By users.
    WpaEap,
}

/// A cellular network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cellular {
    /// How to find out whether it works. `None`: the node's own way.
    pub probe: Option<CellularProbe>,
    /// Whether the modem tells where it is.
    pub location: bool,
    /// Access points; at most one a SIM slot.
    pub access_points: Vec<AccessPoint>,
    /// The slot in use, from 1; 0: the first that has a card.
    pub sim_slot: u32,
}

/// How to find out whether a cellular network works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CellularProbe {
    /// Not at all.
    Off,
    /// So.
    Custom(Probe),
}

/// An access point of a cellular network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessPoint {
    /// For the card in this slot, from 1; 0: in any.
    pub sim_slot: u32,
    /// Its name (APN), who we are there, and the version of IP.
    pub bearer: Bearer,
    /// The same for the first attachment to the network. `None`: the modem's own way.
    pub attach: Option<Bearer>,
    /// Networks to prefer, as `MCC-MNC`.
    pub networks: Vec<String>,
    /// Whether foreign networks are not used.
    pub forbid_roaming: bool,
    /// Technologies to prefer, best first.
    pub technologies: Vec<RadioTechnology>,
}

/// A way into a cellular network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bearer {
    /// Name of the access point.
    pub apn: String,
    /// How the user proves who they are.
    pub auth: CellularAuth,
    /// `None`: none.
    pub user: Option<Secret>,
    /// `None`: none.
    pub password: Option<Secret>,
    /// Versions of IP.
    pub ip: CellularIp,
}

/// How a user of a cellular network proves who they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CellularAuth {
    /// Not at all.
    #[default]
    None,
    /// PAP.
    Pap,
    /// CHAP.
    Chap,
    /// Either.
    PapAndChap,
}

/// Versions of IP on a cellular network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CellularIp {
    /// The modem's choice.
    #[default]
    Unspecified,
    /// 4.
    V4,
    /// Both.
    V4AndV6,
    /// 6.
    V6,
}

/// Radio technologies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RadioTechnology {
    /// 2G.
    Gsm,
    /// 3G.
    Umts,
    /// 4G.
    Lte,
    /// 5G.
    #[serde(rename = "5g")]
    Nr,
}

/// A VLAN on hardware or on a bond.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vlan {
    /// Its label.
    pub label: PortName,
    /// The kernel's name of it, 1 to 15 bytes.
    pub interface: String,
    /// Label of hardware or of a bond.
    pub below: String,
    /// 1 to 4094.
    pub id: u16,
}

/// Several wires as one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bond {
    /// Its label.
    pub label: PortName,
    /// The kernel's name of it, 1 to 15 bytes, not `bond0`.
    pub interface: String,
    /// Labels of Ethernet hardware, at least one.
    pub members: Vec<String>,
    /// How they share the work.
    pub mode: BondMode,
    /// How to find out which of them works. `None`: not at all.
    pub monitor: Option<BondMonitor>,
    /// How often LACP speaks.
    pub lacp: LacpRate,
}

/// How the members of a bond share the work; the names are the kernel's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BondMode {
    /// One packet each in turn.
    #[serde(rename = "balance-rr")]
    BalanceRr,
    /// One works, the others wait.
    #[serde(rename = "active-backup")]
    ActiveBackup,
    /// By a hash of addresses.
    #[serde(rename = "balance-xor")]
    BalanceXor,
    /// All on all.
    #[serde(rename = "broadcast")]
    Broadcast,
    /// LACP.
    #[serde(rename = "802.3ad")]
    Lacp,
    /// By load when sending.
    #[serde(rename = "balance-tlb")]
    BalanceTlb,
    /// By load both ways.
    #[serde(rename = "balance-alb")]
    BalanceAlb,
}

/// How to find out which members of a bond work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BondMonitor {
    /// By the state of the wire.
    Mii {
        /// Looked at so often, in milliseconds.
        interval_ms: u32,
        /// A wire that came is used after so long, in milliseconds.
        #[serde(default)]
        up_delay_ms: u32,
        /// A wire that went is left after so long, in milliseconds.
        #[serde(default)]
        down_delay_ms: u32,
    },
    /// By asking neighbours.
    Arp {
        /// Asked so often, in milliseconds.
        interval_ms: u32,
        /// The neighbours.
        targets: Vec<IpAddr>,
    },
}

/// How often LACP speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LacpRate {
    /// The kernel's choice.
    #[default]
    Unspecified,
    /// Every 30 seconds.
    Slow,
    /// Every second.
    Fast,
}

/// Proxies between a port and the controller.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Proxy {
    /// Whether the network is asked where its proxy is (WPAD).
    pub discover: bool,
    /// Proxies by what they are for.
    pub servers: Vec<ProxyServer>,
    /// What is reached without them, separated by commas.
    pub exceptions: String,
    /// A proxy auto-config script, base64; empty: none.
    pub pac: String,
    /// Where such a script is, when it is discovered; empty: at `wpad.DOMAIN`.
    pub url: String,
    /// Certificates that they present, PEM.
    pub trust: Vec<String>,
}

/// A proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxyServer {
    /// What it is for.
    pub protocol: ProxyProtocol,
    /// Name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// What a proxy is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProxyProtocol {
    /// HTTP.
    Http,
    /// HTTPS.
    Https,
    /// SOCKS.
    Socks,
    /// FTP.
    Ftp,
    /// Anything else.
    Other,
}
