//! Objects that say how the fleet is run. No node is told of them: a change of one makes no config.

use serde::{Deserialize, Serialize};

use super::secret::TextOrSecret;

/// Devices that are named together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupSpec {
    /// Which devices, as a query over labels; it cannot name other groups.
    pub query: String,
    /// What it is for.
    #[serde(default)]
    pub note: String,
}

/// When some devices may be disturbed. Several windows of one device add up; a device that none
/// names may be disturbed at any time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowSpec {
    /// Which devices: a query over labels, as `group=NAME`.
    #[serde(rename = "match")]
    pub devices: String,
    /// The days on which it opens: `mon` … `sun`. Empty: every day.
    #[serde(default)]
    pub days: Vec<Day>,
    /// When it opens: `02:00`.
    pub from: String,
    /// How long it stays open, in minutes. Not said: 120.
    #[serde(default = "two_hours")]
    pub minutes: u32,
    /// The time zone: `Europe/Berlin`. Not said: UTC.
    #[serde(default = "utc")]
    pub zone: String,
}

fn two_hours() -> u32 {
    120
}

fn utc() -> String {
    "UTC".to_owned()
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Day {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

/// What a rule looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// A device has not been heard of for `minutes`.
    Silent,
    /// A device says that something is wrong, for `minutes`.
    Trouble,
    /// `/persist` of a device is full to `percent`.
    DiskFull,
    /// A device tried another base system, and went back to the one it had.
    UpdateFailed,
    /// A rollout stopped, paused by itself or rolled itself back.
    RolloutStopped,
    /// A device's last quote was not good.
    AttestationFailed,
    /// A certificate of a device or of this controller ends within `days`.
    CertificateEnds,
    /// This controller cannot write to its database or reach its object store, or both are slow, or
    /// messages of devices pile up, for `minutes`.
    ControllerTrouble,
}

impl When {
    /// All of them.
    pub const ALL: [When; 8] = [
        When::Silent,
        When::Trouble,
        When::DiskFull,
        When::UpdateFailed,
        When::RolloutStopped,
        When::AttestationFailed,
        When::CertificateEnds,
        When::ControllerTrouble,
    ];

    /// As rules write it.
    pub fn name(self) -> &'static str {
        match self {
            When::Silent => "silent",
            When::Trouble => "trouble",
            When::DiskFull => "disk_full",
            When::UpdateFailed => "update_failed",
            When::RolloutStopped => "rollout_stopped",
            When::AttestationFailed => "attestation_failed",
            When::CertificateEnds => "certificate_ends",
            When::ControllerTrouble => "controller_trouble",
        }
    }
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlertRuleSpec {
    /// What it looks at.
    pub when: When,
    /// Which devices, as a query over labels.
    #[serde(default = "everything", rename = "match")]
    pub devices: String,
    /// For how long something must be so; at most a year.
    #[serde(default = "ten")]
    pub minutes: u64,
    /// How full a disk may become: 1 to 100.
    #[serde(default = "ninety")]
    pub percent: u8,
    /// How long before its end a certificate is spoken of: 1 to 3660.
    #[serde(default = "thirty")]
    pub days: u32,
    /// Who is told: an `https` address that takes a POST. Not said: nobody, it is only listed.
    #[serde(default)]
    pub url: Option<String>,
    /// A certificate the webhook may present beyond the system's, PEM.
    #[serde(default)]
    pub trust: Option<String>,
    /// What calls of the webhook are signed with: the name of a secret. A text is kept, and shown to
    /// nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<TextOrSecret>,
}

fn everything() -> String {
    "*".to_owned()
}

fn ten() -> u64 {
    10
}

fn ninety() -> u8 {
    90
}

fn thirty() -> u32 {
    30
}
