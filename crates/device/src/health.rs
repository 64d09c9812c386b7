//! Why the node booted, and when it should boot again.
//!
//! PID 1 leaves the reason of an orderly end in a file; whatever ends a node otherwise leaves none. So
//! the reason of a boot is what the file says, else what the hardware or the kernel says, else a power
//! cut. The file is told once: what was told is kept in the [`Record`], which is saved before the
//! file is removed, and a file that the record knows already counts as removed.

use std::time::Duration;

use model::UnixMillis;
use model::desired::Power;
use model::reported::BootReason;
use serde::{Deserialize, Serialize};

/// What outlives a boot. Every version that was ever written loads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "version")]
enum OnDisk {
    #[serde(rename = "1")]
    V1 { count: u32, told: Option<UnixMillis>, power: Power },
}

/// What outlives a boot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "OnDisk", into = "OnDisk")]
pub struct Record {
    /// How often the node has booted.
    pub count: u32,
    /// When the reason file that was told last had been written.
    pub told: Option<UnixMillis>,
    /// The counters as last seen.
    pub power: Power,
}

impl From<OnDisk> for Record {
    fn from(disk: OnDisk) -> Record {
        let OnDisk::V1 { count, told, power } = disk;
        Record { count, told, power }
    }
}

impl From<Record> for OnDisk {
    fn from(Record { count, told, power }: Record) -> OnDisk {
        OnDisk::V1 { count, told, power }
    }
}

/// The file that PID 1 left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// When it was written.
    pub written: UnixMillis,
    /// The reason.
    pub reason: BootReason,
    /// More, in words.
    pub words: String,
}

/// What can be found out at the start of a boot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// What an earlier boot recorded. `None`: there was none.
    pub record: Option<Record>,
    /// What PID 1 left.
    pub left: Option<Left>,
    /// The hardware watchdog says that it reset the machine.
    pub watchdog_fired: bool,
    /// The kernel's last words of the boot before.
    pub kernel_panic: Option<String>,
}

/// The record of this boot, why it happened, and more about that in words.
pub fn boot(found: &Found) -> (Record, BootReason, String) {
    let old = found.record.unwrap_or_default();
    let left = found.left.as_ref().filter(|left| old.told != Some(left.written));
    let (reason, words) = match (left, &found.record) {
        (_, None) => (BootReason::First, "the first boot of this disk".to_owned()),
        (Some(left), _) => (left.reason, left.words.clone()),
        (None, _) if found.watchdog_fired => {
            (BootReason::HardwareWatchdog, "the hardware watchdog reset the machine".to_owned())
        }
        (None, _) => match &found.kernel_panic {
            Some(last) => (BootReason::Kernel, last.clone()),
            None => (BootReason::PowerFail, "the boot before ended without a word".to_owned()),
        },
    };
    let told = left.map_or(old.told, |left| Some(left.written));
    (Record { count: old.count.saturating_add(1), told, power: old.power }, reason, words)
}

/// What PID 1 is to be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Start anew.
    Reboot(BootReason),
    /// Stay off.
    PowerOff,
}

/// The counters to remember, and what a change of one asks for. What is seen for the first time asks
/// for nothing, so that a new node does not reboot at once; a counter may also go back (api: counters
/// are compared for difference).
pub fn power(seen: Power, want: Power) -> (Power, Option<Ask>) {
    let differs =
        |seen: Option<u32>, want: Option<u32>| seen.is_some() && want.is_some() && seen != want;
    let ask = if differs(seen.shutdown, want.shutdown) {
        Some(Ask::PowerOff)
    } else if differs(seen.reboot, want.reboot) {
        Some(Ask::Reboot(BootReason::RebootCommand))
    } else {
        None
    };
    (want, ask)
}

/// Whether the controller was silent for too long. A node without an identity waits for ever: nobody
/// expects it yet.
pub fn disconnected(onboarded: bool, silent: Duration, limit: Duration) -> bool {
    onboarded && silent > limit
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(written: u64, reason: BootReason) -> Option<Left> {
        Some(Left { written: UnixMillis(written), reason, words: "words".to_owned() })
    }

    #[test]
    fn the_reason_is_the_best_known() {
        let record = Some(Record { count: 7, ..Record::default() });
        let told = Some(Record { count: 7, told: Some(UnixMillis(5)), ..Record::default() });
        let file = left(5, BootReason::RebootCommand);
        let panic = Some("Kernel panic".to_owned());
        for (record, left, watchdog_fired, kernel_panic, reason) in [
            (None, None, true, None, BootReason::First),
            (record, None, false, None, BootReason::PowerFail),
            (record, None, true, None, BootReason::HardwareWatchdog),
            (record, None, false, panic.clone(), BootReason::Kernel),
            (record, file.clone(), true, panic, BootReason::RebootCommand),
            // Told already: the power went before the file could be removed, or after.
            (told, file, false, None, BootReason::PowerFail),
            (told, left(6, BootReason::Fatal), false, None, BootReason::Fatal),
        ] {
            let found = Found { record, left, watchdog_fired, kernel_panic };
            let (next, got, _) = boot(&found);
            assert_eq!(got, reason, "{found:?}");
            assert_eq!(next.count, record.map_or(1, |r| r.count + 1));
        }
    }

    #[test]
    fn a_power_cut_between_record_and_file_tells_no_reason_twice() {
        let file = left(5, BootReason::RebootCommand);
        for removed in [false, true] {
            let first = Found {
                record: Some(Record { count: 1, ..Record::default() }),
                left: file.clone(),
                ..Found::default()
            };
            let (record, reason, _) = boot(&first);
            assert_eq!(reason, BootReason::RebootCommand);
            let left = if removed { None } else { file.clone() };
            let again = Found { record: Some(record), left, ..Found::default() };
            assert_eq!(boot(&again).1, BootReason::PowerFail);
        }
    }

    #[test]
    fn counters_act_on_change_only() {
        let at = |reboot, shutdown| Power { reboot, shutdown };
        let reboot = Some(Ask::Reboot(BootReason::RebootCommand));
        for (seen, want, ask) in [
            (at(None, None), at(Some(4), None), None),
            (at(Some(4), None), at(Some(4), None), None),
            (at(Some(4), None), at(Some(5), None), reboot),
            (at(Some(5), None), at(Some(2), None), reboot),
            (at(Some(5), None), at(None, None), None),
            (at(Some(1), Some(1)), at(Some(2), Some(2)), Some(Ask::PowerOff)),
        ] {
            assert_eq!(power(seen, want), (want, ask));
        }
    }

    #[test]
    fn every_record_we_shipped_still_loads() {
        let v1 = r#"{"version":"1","count":3,"told":17,"power":{"reboot":2,"shutdown":null}}"#;
        let record: Record = serde_json::from_str(v1).unwrap();
        let power = Power { reboot: Some(2), shutdown: None };
        assert_eq!(record, Record { count: 3, told: Some(UnixMillis(17)), power });
        assert_eq!(serde_json::to_string(&record).unwrap(), v1);
    }

    #[test]
    fn only_a_known_node_minds_silence() {
        let (long, short) = (Duration::from_secs(9), Duration::from_secs(8));
        assert!(disconnected(true, long, short));
        assert!(!disconnected(false, long, short));
        assert!(!disconnected(true, short, long));
    }
}
