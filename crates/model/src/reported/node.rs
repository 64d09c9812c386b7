//! The node itself.

use serde::{Deserialize, Serialize};

use crate::services::Service;
use crate::{Bytes, DeviceId, Problem, UnixMillis};

/// Who this node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Given by the controller.
    pub id: DeviceId,
    /// The controller that gave it: host and port.
    pub server: String,
    /// When.
    pub onboarded: UnixMillis,
}

/// How far onboarding is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Onboarding {
    /// The step being tried, or `Done`.
    pub step: OnboardingStep,
    /// Tries so far in this boot.
    pub tries: u32,
    /// Hardware serial number, as sent.
    pub serial: String,
    /// Soft serial number, as sent.
    pub soft_serial: String,
    /// What stands in the way.
    pub problem: Option<Problem>,
}

/// The steps of onboarding (EVE API, onboarding sequence).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnboardingStep {
    /// Waiting for a port with an address.
    Network,
    /// Fetching and checking the controller's certificates.
    Certs,
    /// Registering with the onboarding certificate.
    Register,
    /// Asking for our id.
    Uuid,
    /// We have an id.
    Done,
}

/// The controller, seen from the node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ControllerStatus {
    /// Host and port.
    pub server: String,
    /// When it last answered well. `None`: not in this boot.
    pub last_contact: Option<UnixMillis>,
    /// What stands in the way now.
    pub problem: Option<Problem>,
    /// Which config is in force.
    pub config: ConfigSource,
    /// When the config in force was made.
    pub config_timestamp: Option<UnixMillis>,
    /// Objects of it that were refused.
    pub refused: Vec<crate::desired::Refused>,
    /// The operator's name for this node, from the config in force; may be empty.
    #[serde(default)]
    pub node_name: String,
    /// The controller does not know the id we gave it: `eved onboard` asks for it again.
    #[serde(default)]
    pub forgotten: bool,
    /// What else is between it and us.
    #[serde(default)]
    pub standing: Standing,
}

/// How a node stands towards its controller, beyond the config.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// How far proving what we are is.
    pub attestation: Attestation,
    /// Why attestation fails, or why the controller has no certificate to seal secrets to.
    pub attestation_problem: Option<Problem>,
    /// Why no new config is put in force, settings and counters apart. Empty: it is.
    pub maintenance: Vec<Maintenance>,
    /// The profile that someone near the node chose; empty: nobody did.
    #[serde(default)]
    pub local_profile: String,
    /// Ports that someone near the node set up.
    #[serde(default)]
    pub local_ports: Vec<crate::desired::PortName>,
    /// Who wished the ports that are in force.
    #[serde(default)]
    pub ports_from: PortsFrom,
    /// The config's ports, if others are used for a while. Known to whoever reads [`PortsAside`].
    #[serde(default)]
    pub ports_aside: Option<PortsAside>,
    /// When the controller, or a console that stands in for it, last answered anything at all.
    #[serde(default)]
    pub answered: Option<UnixMillis>,
}

/// Ports of the config that cut the node off, and are not used for a while.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PortsAside {
    /// The ports.
    pub ports: Vec<crate::desired::Port>,
    /// Since when they are not used.
    pub at: UnixMillis,
    /// Why.
    pub why: String,
    /// Who wished those that are used.
    pub used: PortsFrom,
}

/// Who wishes the ports of a node, as far as it is said in the EVE API (`NetworkConfigOrigin`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortsFrom {
    /// The controller, or nobody.
    #[default]
    Controller,
    /// The bootstrap file on CONFIG: there was no config yet.
    Bootstrap,
    /// EVE's old files of ports on CONFIG: there was no config yet, and no bootstrap file.
    Override,
    /// An earlier config, under which the controller was reached.
    LastWorked,
    /// Nobody: every Ethernet interface is tried.
    LastResort,
}

/// How far attestation is (EVE API, attestation states, as far as a node without a TPM has them).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attestation {
    /// The controller did not ask for it in this boot.
    #[default]
    NotAsked,
    /// A nonce was asked for.
    NonceWait,
    /// A quote was sent.
    VerdictWait,
    /// It failed and begins anew after a while.
    RestartWait,
    /// The controller gave its token.
    Complete,
}

/// Why a node is in maintenance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Maintenance {
    /// The config says so, or the setting `maintenance.mode`.
    Requested,
}

/// What became of sealed secrets in this boot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretsOpened {
    /// So many were opened.
    pub opened: u64,
    /// When the last one was.
    pub last_opened: Option<UnixMillis>,
    /// So many were not, by reason.
    pub failed: std::collections::BTreeMap<SecretFailure, u64>,
    /// When the last one was not.
    pub last_failed: Option<UnixMillis>,
}

/// Why a sealed secret is not opened (EVE API, `CipherError`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretFailure {
    /// Its context, or a certificate that it names, is not known (yet).
    NotReady,
    /// It does not open to what it says.
    Decrypt,
    /// It opens to something else than secrets.
    Unreadable,
    /// It is half a block.
    NoData,
}

/// Where the config in force came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConfigSource {
    /// There is none.
    None,
    /// From the disk: saved in an earlier boot.
    Saved,
    /// From the controller, in this boot.
    Controller,
}

/// Why the node booted (EVE's boot reasons).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BootReason {
    /// The first time after the installation.
    First,
    /// Told by the controller.
    RebootCommand,
    /// Told to power off, and started again.
    PoweroffCommand,
    /// No controller for too long.
    Disconnect,
    /// A lifeline service kept dying.
    Fatal,
    /// Out of memory.
    OutOfMemory,
    /// A service was silent for too long.
    WatchdogHung,
    /// The kernel panicked.
    Kernel,
    /// The hardware watchdog fired.
    HardwareWatchdog,
    /// Power went away: nothing said why.
    PowerFail,
    /// We do not know.
    Unknown,
}

impl BootReason {
    /// All of them.
    pub const ALL: &[BootReason] = &[
        BootReason::First,
        BootReason::RebootCommand,
        BootReason::PoweroffCommand,
        BootReason::Disconnect,
        BootReason::Fatal,
        BootReason::OutOfMemory,
        BootReason::WatchdogHung,
        BootReason::Kernel,
        BootReason::HardwareWatchdog,
        BootReason::PowerFail,
        BootReason::Unknown,
    ];

    /// As it is written in JSON and in the files of [`crate::boot`].
    pub const fn name(self) -> &'static str {
        match self {
            BootReason::First => "first",
            BootReason::RebootCommand => "reboot_command",
            BootReason::PoweroffCommand => "poweroff_command",
            BootReason::Disconnect => "disconnect",
            BootReason::Fatal => "fatal",
            BootReason::OutOfMemory => "out_of_memory",
            BootReason::WatchdogHung => "watchdog_hung",
            BootReason::Kernel => "kernel",
            BootReason::HardwareWatchdog => "hardware_watchdog",
            BootReason::PowerFail => "power_fail",
            BootReason::Unknown => "unknown",
        }
    }

    /// Reads what [`BootReason::name`] writes.
    pub fn from_name(name: &str) -> Option<BootReason> {
        BootReason::ALL.iter().copied().find(|reason| reason.name() == name)
    }
}

/// This boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// Why it happened.
    pub reason: BootReason,
    /// More about why, in words.
    pub detail: String,
    /// How often the node has booted, this one included.
    pub count: u32,
    /// When the kernel started.
    pub started: UnixMillis,
    /// What came when, in order.
    pub timeline: Vec<TimelineMark>,
    /// The version of the running image (`/etc/eve-release`).
    pub version: String,
    /// The partition it runs from: IMGA or IMGB.
    pub slot: String,
}

/// A moment of the boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineMark {
    /// `init`, `services`, `network`, `onboarded`, `config`, `app <name>`.
    pub what: String,
    /// Milliseconds since the kernel started.
    pub at_ms: u64,
}

/// What the node's services use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Each service.
    pub services: Vec<ServiceUse>,
    /// The kernel's view of all memory.
    pub memory_total: Bytes,
    /// … and what is free for use.
    pub memory_available: Bytes,
    /// Processor time of the node since boot, in nanoseconds.
    pub cpu_ns: u64,
    /// Size of /persist.
    pub persist_total: Bytes,
    /// … and what is used of it.
    pub persist_used: Bytes,
}

/// What one service uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceUse {
    /// Which.
    pub service: Service,
    /// Its process.
    pub pid: u32,
    /// Proportional set size (smaps_rollup), its children included.
    pub pss: Bytes,
    /// Its peak, as far as seen.
    pub pss_peak: Bytes,
    /// How often it was started in this boot.
    pub starts: u32,
}

/// What `eved storage` found or made of /persist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Storage {
    /// The block device.
    pub device: String,
    /// Whether this boot created it.
    pub created: bool,
    /// What fsck did, in words; empty if it was clean.
    pub repaired: String,
}

/// What is known of the time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeState {
    /// When the node's clock was last known to be right. `None`: not in this boot.
    pub in_step: Option<UnixMillis>,
    /// The servers that are asked, in order.
    pub sources: Vec<TimeSource>,
}

/// A time server (NTP).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeSource {
    /// As the config or the network names it.
    pub name: String,
    /// Where it answered from last. `None`: it never did.
    pub address: Option<std::net::IpAddr>,
    /// At which address of ours.
    pub own: Option<std::net::IpAddr>,
    /// What is thought of it.
    pub state: TimeSourceState,
    /// The last eight tries: 1 is an answer, the newest is the lowest bit.
    pub reach: u8,
    /// Hops from a reference clock; 0: it never answered.
    pub stratum: u8,
    /// The last minute of the day has 61 (1) or 59 (2) seconds.
    pub leap: u8,
    /// What it follows.
    pub reference: String,
    /// When its own clock was last set.
    pub reference_set: Option<UnixMillis>,
    /// Log2 of the seconds between questions.
    pub poll: u8,
    /// So much our clock is behind its, in nanoseconds.
    pub offset_ns: i64,
    /// So long an answer is on its way, both ways together.
    pub delay_ns: i64,
    /// By so much its answers differ.
    pub jitter_ns: i64,
    /// Its way to the reference clock and back.
    pub root_delay_ns: i64,
    /// How far off it may be itself.
    pub root_dispersion_ns: i64,
}

/// What is thought of a time server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeSourceState {
    /// It does not answer.
    Unreachable,
    /// Most others disagree with it.
    Wrong,
    /// It could be followed.
    Candidate,
    /// The node's clock goes by it.
    Followed,
}

/// Queued, sent and dropped logs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogStatus {
    /// Files that wait for the controller.
    pub queued: u64,
    /// Files sent in this boot.
    pub sent: u64,
    /// Lines lost in this boot: bursts, disk quota.
    pub dropped_lines: u64,
    /// What stands in the way.
    pub problem: Option<Problem>,
    /// More about lines, files and calls.
    #[serde(default)]
    pub counts: super::LogCounts,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_reason_has_one_name_in_json_and_in_files() {
        for reason in BootReason::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.name());
            assert_eq!(BootReason::from_name(reason.name()), Some(*reason));
        }
        assert_eq!(BootReason::from_name("of a later version"), None);
    }
}
