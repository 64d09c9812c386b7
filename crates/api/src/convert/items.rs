//! Settings: `configItems`, checked against the table of EVE's config properties.
//!
//! The table knows every key that EVE knows, so that only real mistakes are reported. A key that
//! steers nothing on this node is checked here and otherwise left alone: `device::settings` says so.

use std::collections::BTreeMap;
use std::time::Duration;

use model::desired::{LogLevel, OneLevel, Properties};
use model::{Bytes, Diagnosis, Problem, UnixMillis, Who};

/// What a value may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A whole number between these, both included.
    Int(u32, u32),
    /// `true` or `false`.
    Bool,
    /// `none`, or on or off.
    Tri,
    /// How grave a line of the log must be: logrus' or syslog's word, `all` or `none`.
    Level,
    /// One of these words, in large or small letters.
    Word(&'static [&'static str]),
    /// Any text.
    Text,
}

use Kind::{Bool, Int, Level, Text, Tri, Word};

const MAX: u32 = u32::MAX;

/// Every key, its values and its default (EVE's config properties). Keys of the form `agent.NAME.…` and
/// `debug.NAME.…` are known by [`known`].
const TABLE: &[(&str, Kind, &str)] = &[
    ("airgap.mode", Tri, "none"),
    ("app.allow.vnc", Bool, "false"),
    ("app.boot.order", Word(&["", "usb", "nousb"]), ""),
    ("app.enable.tcp.mss.clamping", Bool, "true"),
    ("app.fml.resolution", Text, ""),
    ("blob.download.max.retries", Int(1, 10), "5"),
    ("datastore.http.security.allowinsecureauth", Bool, "false"),
    ("debug.default.loglevel", Level, "info"),
    ("debug.default.remote.loglevel", Level, "info"),
    ("debug.disable.dhcp.all-ones.netmask", Bool, "false"),
    ("debug.enable.console", Bool, "true"),
    ("debug.enable.efi", Bool, "false"),
    ("debug.enable.ssh", Text, ""),
    ("debug.enable.usb", Bool, "true"),
    ("debug.enable.vga", Bool, "true"),
    ("debug.enable.vnc.shim.vm", Bool, "false"),
    ("debug.kernel.loglevel", Level, "info"),
    ("debug.kernel.remote.loglevel", Level, "info"),
    ("debug.qemu.gdb", Bool, "false"),
    ("debug.qemu.guest.core", Bool, "true"),
    ("debug.qemu.igpu.no.mmap", Bool, "false"),
    ("debug.qemu.pause.on.crash", Bool, "false"),
    ("debug.qemu.process.core", Bool, "true"),
    ("debug.qemu.process.core.guest.ram", Bool, "false"),
    ("debug.qemu.trace.events", Text, ""),
    ("debug.syslog.loglevel", Level, "info"),
    ("debug.syslog.remote.loglevel", Level, "info"),
    ("debug.tui.loglevel", Word(&["off", "error", "warn", "info", "debug", "trace"]), "info"),
    ("dhcp.enable.vendorclassid", Bool, "true"),
    ("diag.probe.remote.http.endpoint", Text, "www.google.com"),
    ("diag.probe.remote.https.endpoint", Text, "www.google.com"),
    ("drain.skip.k8sapinotreachable.timeout", Int(1, MAX), "300"),
    ("edgeview.authen.publickey", Text, ""),
    ("force.fallback.counter", Int(0, MAX), "0"),
    ("gogc.forced.growth.memory.MiB", Int(10, 1024), "50"),
    ("gogc.forced.growth.memory.percent", Int(5, 300), "20"),
    ("gogc.forced.interval.seconds", Int(0, 1000), "10"),
    ("gogc.memory.limit.bytes", Int(0, MAX), "0"),
    ("gogc.percent", Int(0, 500), "100"),
    ("goroutine.leak.detection.check.interval.minutes", Int(1, MAX), "1"),
    ("goroutine.leak.detection.check.window.minutes", Int(10, MAX), "10"),
    ("goroutine.leak.detection.cooldown.minutes", Int(1, MAX), "5"),
    ("goroutine.leak.detection.keep.stats.hours", Int(1, MAX), "24"),
    ("goroutine.leak.detection.threshold", Int(1, MAX), "5000"),
    ("igpu.gop", Text, ""),
    ("internal-memory-monitor.analyze.enabled", Bool, "true"),
    ("internal-memory-monitor.store.enabled", Bool, "true"),
    ("k3s.config.override", Text, ""),
    ("k3s.version", Text, ""),
    ("kubernetes.drain.allnodes.config.multiple", Int(1, 1000), "2"),
    ("kubernetes.drain.timeout", Int(1, MAX), "24"),
    ("kubernetes.vmi.deschedule.events", Text, ""),
    ("log.count.filenames", Text, ""),
    ("log.dedup.window.size", Int(0, MAX), "0"),
    ("log.filter.filenames", Text, ""),
    ("maintenance.mode", Tri, "none"),
    ("memory-monitor.enabled", Bool, "false"),
    ("memory.apps.ignore.check", Bool, "false"),
    ("memory.eve.limit.MiB", Int(0, MAX), "0"),
    ("memory.eve.limit.bytes", Int(0, MAX), "0"),
    ("memory.vmm.limit.MiB", Int(0, 1_073_741_824), "0"),
    ("msrv.prometheus.metrics.burst", Int(1, MAX), "10"),
    ("msrv.prometheus.metrics.idletimeout.seconds", Int(1, MAX), "240"),
    ("msrv.prometheus.metrics.rps", Int(1, MAX), "1"),
    ("netdump.downloader.http.with.fieldvalue", Bool, "false"),
    ("netdump.downloader.with.pcap", Bool, "false"),
    ("netdump.enable", Bool, "true"),
    ("netdump.topic.maxcount", Int(1, MAX), "10"),
    ("netdump.topic.postonboard.interval", Int(60, MAX), "86400"),
    ("netdump.topic.preonboard.interval", Int(60, MAX), "3600"),
    ("network.download.max.cost", Int(0, 255), "0"),
    ("network.fallback.any.eth", Tri, "disabled"),
    ("network.local.legacy.mac.address", Bool, "false"),
    ("network.switch.enable.arpsnoop", Bool, "true"),
    ("newlog.allow.fastupload", Bool, "false"),
    ("newlog.gzipfiles.ondisk.maxmegabytes", Int(10, MAX), "2048"),
    ("pnac.dhcp.reacquire.max.retries", Int(0, 8), "4"),
    ("process.cloud-init.multipart", Bool, "false"),
    ("scep.retry.interval", Int(60, 3600), "300"),
    ("storage.apps.ignore.disk.check", Bool, "false"),
    ("storage.dom0.disk.maxusagebytes", Int(104_857_600, MAX), "2147483648"),
    ("storage.dom0.disk.minusage.percent", Int(20, 80), "20"),
    ("storage.longhorn.disk.reserved.gigabytes", Int(0, 1_048_576), "2"),
    ("storage.longhorn.node-drain-policy", Text, "block-for-eviction-if-contains-last-replica"),
    ("storage.longhorn.snapshot.cron", Text, "0 0 * * *"),
    ("storage.zfs.reserved.percent", Int(1, 99), "20"),
    ("timer.appcontainer.stats.interval", Int(1, MAX), "300"),
    ("timer.boot.retry", Int(10, MAX), "600"),
    ("timer.cert.interval", Int(60, MAX), "86400"),
    ("timer.config.interval", Int(5, 86_400), "60"),
    ("timer.defer.content.delete", Int(0, 86_400), "0"),
    ("timer.deviceinfo.interval", Int(30, MAX), "600"),
    ("timer.dial.timeout", Int(0, 3600), "10"),
    ("timer.download.retry", Int(60, MAX), "600"),
    ("timer.download.stalled", Int(20, MAX), "600"),
    ("timer.gc.vdisk", Int(60, MAX), "3600"),
    ("timer.hardwarehealth.interval", Int(21_600, MAX), "43200"),
    ("timer.location.app.interval", Int(5, 3600), "20"),
    ("timer.location.cloud.interval", Int(300, MAX), "3600"),
    ("timer.lps.appbootinfo.interval", Int(3, 3600), "60"),
    ("timer.lps.appinfo.interval", Int(3, 3600), "60"),
    ("timer.lps.devinfo.interval", Int(3, 3600), "60"),
    ("timer.lps.network.interval", Int(3, 3600), "60"),
    ("timer.lps.profile.interval", Int(3, 3600), "60"),
    ("timer.lps.radio.interval", Int(3, 3600), "5"),
    ("timer.metric.diskscan.interval", Int(5, 3600), "300"),
    ("timer.metric.interval", Int(5, 3600), "60"),
    ("timer.ntpsources.interval", Int(60, MAX), "600"),
    ("timer.port.georedo", Int(60, MAX), "3600"),
    ("timer.port.georetry", Int(5, MAX), "600"),
    ("timer.port.testbetterinterval", Int(0, MAX), "600"),
    ("timer.port.testduration", Int(10, 3600), "30"),
    ("timer.port.testinterval", Int(300, 3600), "300"),
    ("timer.port.timeout", Int(0, 3600), "15"),
    ("timer.reboot.no.network", Int(120, MAX), "604800"),
    ("timer.send.timeout", Int(0, 3600), "120"),
    ("timer.test.baseimage.update", Int(30, 3600), "600"),
    ("timer.update.fallback.no.network", Int(60, MAX), "300"),
    ("timer.vault.ready.cutoff", Int(60, MAX), "300"),
    ("timer.vault.trim.cron", Text, "0 2 * * 6,0"),
    ("timer.vault.trim.max.secs", Int(0, MAX), "1800"),
    ("timer.zfs.pool.trim.cron", Text, "0 3 * * 6,0"),
    ("vector.config", Text, ""),
    ("vector.enabled", Bool, "true"),
    ("wwan.modem.recovery.reload.drivers", Bool, "false"),
    ("wwan.modem.recovery.restart.modemmanager", Bool, "false"),
    ("wwan.modem.recovery.watchdog", Bool, "false"),
    ("wwan.query.visible.providers", Bool, "false"),
];

/// A setting that nodes know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// Its key.
    pub key: &'static str,
    /// What its value may be.
    pub kind: Kind,
    /// What counts when nothing is said; times are seconds. `debug.enable.usb`, `.vga` and
    /// `.console` are false from the first contact with a controller on; 0 of `memory.eve.limit.…`
    /// stands for what the node has set aside.
    pub default: &'static str,
}

/// Every setting that nodes know, by key; log levels of single agents are not among them.
pub fn settings() -> impl Iterator<Item = Setting> {
    TABLE.iter().map(|(key, kind, default)| Setting { key, kind: *kind, default })
}

/// Settings from `items` (key and value as they came), complete: a key that is not there has its
/// default, one with a bad value keeps what it is in `previous`, and unknown or bad ones are in
/// `problems`, since `now` or since they first were.
pub fn properties(
    items: &BTreeMap<String, String>,
    previous: &Properties,
    now: UnixMillis,
) -> Properties {
    let mut settings = Properties::default();
    for (key, value) in items {
        match check(key, value) {
            Ok(value) => take(&mut settings, key, value),
            Err(text) => {
                keep(&mut settings, key, previous);
                let since = previous.problems.get(key).filter(|p| p.text == text);
                let since = since.map_or(now, |p| p.since);
                let advice = Diagnosis::of(Who::Operator, "correct the setting in the config");
                settings.problems.insert(key.clone(), Problem::new(text, advice, since));
            }
        }
    }
    settings
}

/// Whether a key and value would be taken, for a controller that checks before it sends. The error
/// says why not.
pub fn check_item(key: &str, value: &str) -> Result<(), String> {
    check(key, value).map(drop)
}

/// A checked value, as far as we look into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value {
    Int(u32),
    Bool(bool),
    /// `None`: the setting is `none`.
    Tri(Option<bool>),
    Level(LogLevel),
    Other,
}

fn check(key: &str, value: &str) -> Result<Value, String> {
    let kind = known(key).ok_or_else(|| "unknown key".to_owned())?;
    let value = value.trim();
    let shown = || value.chars().take(40).collect::<String>();
    match kind {
        Int(min, max) => match value.parse::<u32>() {
            Ok(n) if (min..=max).contains(&n) => Ok(Value::Int(n)),
            _ => Err(format!("{:?} is not {min} to {max}", shown())),
        },
        Bool => match value.to_ascii_lowercase().as_str() {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => Err(format!("{:?} is not true or false", shown())),
        },
        Tri => match value.to_ascii_lowercase().as_str() {
            "none" => Ok(Value::Tri(None)),
            "enabled" | "enable" | "on" => Ok(Value::Tri(Some(true))),
            "disabled" | "disable" | "off" => Ok(Value::Tri(Some(false))),
            _ => Err(format!("{:?} is not none, enabled or disabled", shown())),
        },
        Level => LogLevel::parse(value)
            .map(Value::Level)
            .ok_or_else(|| format!("{:?} is no level of a log", shown())),
        Word(words) if words.iter().any(|word| word.eq_ignore_ascii_case(value)) => {
            Ok(Value::Other)
        }
        Word(words) => {
            let words: Vec<&str> = words.iter().copied().filter(|w| !w.is_empty()).collect();
            Err(format!("{:?} is none of {}", shown(), words.join(", ")))
        }
        Text => Ok(Value::Other),
    }
}

fn known(key: &str) -> Option<Kind> {
    if let Ok(at) = TABLE.binary_search_by_key(&key, |(k, ..)| k) {
        return TABLE.get(at).map(|(_, kind, _)| *kind);
    }
    agent(key).map(|_| Level)
}

/// The agent whose log level a key sets, and whether it is that of what is sent:
/// `agent.NAME.debug.loglevel`, and `debug.NAME.loglevel` of old. `None`: it is no such key.
pub fn agent(key: &str) -> Option<(&str, bool)> {
    let agent = key.strip_prefix("agent.").or_else(|| key.strip_prefix("debug."))?;
    let (name, rest) = agent.split_once('.').filter(|(name, _)| !name.is_empty())?;
    match rest {
        "debug.loglevel" | "loglevel" => Some((name, false)),
        "debug.remote.loglevel" | "remote.loglevel" => Some((name, true)),
        _ => None,
    }
}

/// Where a setting is kept.
enum Slot<'a> {
    Seconds(&'a mut Duration),
    Mib(&'a mut Bytes),
    Flag(&'a mut bool),
    Level(&'a mut Option<LogLevel>),
}

/// `None`: this node has no use for it.
fn slot<'a>(settings: &'a mut Properties, key: &str) -> Option<Slot<'a>> {
    let local = &mut settings.local_periods;
    let levels = &mut settings.log_levels;
    Some(match key {
        "timer.config.interval" => Slot::Seconds(&mut settings.config_interval),
        "timer.metric.interval" => Slot::Seconds(&mut settings.metric_interval),
        "timer.deviceinfo.interval" => Slot::Seconds(&mut settings.device_info_interval),
        "timer.cert.interval" => Slot::Seconds(&mut settings.cert_interval),
        "timer.metric.diskscan.interval" => Slot::Seconds(&mut settings.disk_scan_interval),
        "timer.hardwarehealth.interval" => Slot::Seconds(&mut settings.hardware_health_interval),
        "timer.ntpsources.interval" => Slot::Seconds(&mut settings.ntp_sources_interval),
        "timer.lps.profile.interval" => Slot::Seconds(&mut local.profile),
        "timer.lps.appinfo.interval" => Slot::Seconds(&mut local.app_info),
        "timer.lps.devinfo.interval" => Slot::Seconds(&mut local.device_info),
        "timer.lps.network.interval" => Slot::Seconds(&mut local.network),
        "timer.lps.appbootinfo.interval" => Slot::Seconds(&mut local.app_boot_info),
        "timer.lps.radio.interval" => Slot::Seconds(&mut local.radio),
        "timer.send.timeout" => Slot::Seconds(&mut settings.send_timeout),
        "timer.dial.timeout" => Slot::Seconds(&mut settings.dial_timeout),
        "timer.reboot.no.network" => Slot::Seconds(&mut settings.reboot_no_network),
        "timer.port.testduration" => Slot::Seconds(&mut settings.port_test_duration),
        "timer.port.testbetterinterval" => Slot::Seconds(&mut settings.port_retry_interval),
        "network.fallback.any.eth" => Slot::Flag(&mut settings.fallback_any_ethernet),
        "timer.download.retry" => Slot::Seconds(&mut settings.download_retry),
        "timer.download.stalled" => Slot::Seconds(&mut settings.download_stalled),
        "timer.defer.content.delete" => Slot::Seconds(&mut settings.defer_content_delete),
        "timer.boot.retry" => Slot::Seconds(&mut settings.boot_retry),
        "newlog.allow.fastupload" => Slot::Flag(&mut settings.log_fast_upload),
        "newlog.gzipfiles.ondisk.maxmegabytes" => Slot::Mib(&mut settings.log_quota),
        _ => {
            let (name, sent) = agent(key)?;
            let one: &mut OneLevel = match name {
                "default" => &mut levels.services,
                "kernel" => &mut levels.kernel,
                // There is no syslog, and no user interface on the console.
                "syslog" | "tui" => return None,
                name => levels.by_service.entry(name.to_owned()).or_default(),
            };
            Slot::Level(if sent { &mut one.sent } else { &mut one.said })
        }
    })
}

fn take(settings: &mut Properties, key: &str, value: Value) {
    match (slot(settings, key), value) {
        (Some(Slot::Seconds(kept)), Value::Int(n)) => *kept = Duration::from_secs(n.into()),
        (Some(Slot::Mib(kept)), Value::Int(n)) => *kept = Bytes::mib(n.into()),
        (Some(Slot::Flag(kept)), Value::Bool(yes)) => *kept = yes,
        (Some(Slot::Flag(kept)), Value::Tri(tri)) => *kept = tri.unwrap_or_default(),
        (Some(Slot::Level(kept)), Value::Level(level)) => *kept = Some(level),
        _ => {}
    }
}

/// The other half of [`take`]: what a bad value leaves as it was.
fn keep(settings: &mut Properties, key: &str, previous: &Properties) {
    let mut previous = previous.clone();
    match (slot(settings, key), slot(&mut previous, key)) {
        (Some(Slot::Seconds(kept)), Some(Slot::Seconds(was))) => *kept = *was,
        (Some(Slot::Mib(kept)), Some(Slot::Mib(was))) => *kept = *was,
        (Some(Slot::Flag(kept)), Some(Slot::Flag(was))) => *kept = *was,
        (Some(Slot::Level(kept)), Some(Slot::Level(was))) => *kept = *was,
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(list: &[(&str, &str)]) -> BTreeMap<String, String> {
        list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn the_table_is_sorted() {
        assert!(TABLE.is_sorted_by_key(|(key, ..)| *key));
    }

    #[test]
    fn every_default_is_a_value_and_the_nodes_own() {
        for setting in settings() {
            let empty = setting.kind == Kind::Text && setting.default.is_empty();
            assert!(empty || check_item(setting.key, setting.default).is_ok(), "{}", setting.key);
        }
        let all = settings().map(|s| (s.key.to_owned(), s.default.to_owned())).collect();
        let mut got = properties(&all, &Properties::default(), UnixMillis(1));
        // Said is said, though it is the default.
        let info = OneLevel { said: Some(LogLevel::Info), sent: Some(LogLevel::Info) };
        assert_eq!((got.log_levels.services, got.log_levels.kernel), (info, info));
        got.log_levels = Default::default();
        assert_eq!(got, Properties::default());
    }

    #[test]
    fn log_levels_are_of_all_of_the_kernel_or_of_one() {
        let list = items(&[
            ("debug.default.loglevel", "Debug"),
            ("debug.kernel.remote.loglevel", "err"),
            ("agent.network.debug.remote.loglevel", "none"),
            ("debug.config.loglevel", "warn"),
            ("agent.health.debug.loglevel", "loud"),
        ]);
        let got = properties(&list, &Properties::default(), UnixMillis(1));
        let levels = &got.log_levels;
        assert_eq!(levels.said("network"), Some(LogLevel::Debug));
        assert_eq!(levels.said("config"), Some(LogLevel::Warning));
        assert_eq!(
            (levels.sent("network"), levels.sent("config")),
            (LogLevel::None, LogLevel::Info)
        );
        assert_eq!(levels.kernel.sent, Some(LogLevel::Error));
        let problem = &got.problems["agent.health.debug.loglevel"];
        assert_eq!(problem.text, "\"loud\" is no level of a log");
    }

    #[test]
    fn a_bad_value_of_any_kind_keeps_the_previous_one() {
        let good = items(&[
            ("network.fallback.any.eth", "enabled"),
            ("newlog.gzipfiles.ondisk.maxmegabytes", "77"),
            ("timer.lps.radio.interval", "9"),
            ("agent.log.debug.loglevel", "debug"),
        ]);
        let before = properties(&good, &Properties::default(), UnixMillis(1));
        assert!(before.fallback_any_ethernet);
        let bad = good.keys().map(|key| (key.clone(), "?".to_owned())).collect();
        let got = properties(&bad, &before, UnixMillis(2));
        assert_eq!(got.problems.len(), 4);
        assert_eq!(Properties { problems: BTreeMap::new(), ..got }, before);
    }

    #[test]
    fn without_items_all_is_default() {
        let previous = Properties { config_interval: Duration::from_secs(7), ..Default::default() };
        assert_eq!(properties(&items(&[]), &previous, UnixMillis(1)), Properties::default());
    }

    #[test]
    fn a_bad_value_keeps_the_previous_one_and_says_so() {
        let list = items(&[("timer.config.interval", "4"), ("newlog.allow.fastupload", "True")]);
        let previous = Properties { config_interval: Duration::from_secs(7), ..Default::default() };
        let got = properties(&list, &previous, UnixMillis(1));
        assert_eq!(got.config_interval, Duration::from_secs(7));
        assert!(got.log_fast_upload);
        let problem = &got.problems["timer.config.interval"];
        assert_eq!(problem.text, "\"4\" is not 5 to 86400");
        let later = properties(&list, &got, UnixMillis(9));
        assert_eq!(later, got, "the same problem is since the same time");
    }

    #[test]
    fn values_are_checked_by_kind() {
        for (key, value, good) in [
            ("timer.metric.interval", "3600", true),
            ("timer.metric.interval", "3601", false),
            ("timer.metric.interval", "-1", false),
            ("timer.metric.interval", "", false),
            ("debug.enable.usb", "yes", false),
            ("debug.tui.loglevel", "OFF", true),
            ("debug.tui.loglevel", "fatal", false),
            ("app.boot.order", "", true),
            ("app.boot.order", "nousb", true),
            ("app.boot.order", "cd", false),
            ("maintenance.mode", "off", true),
            ("maintenance.mode", "maybe", false),
            ("agent.zedagent.debug.loglevel", "debug", true),
            ("agent.zedagent.colour", "red", false),
            ("no.such.key", "1", false),
        ] {
            assert_eq!(check_item(key, value).is_ok(), good, "{key}={value}");
        }
    }
}
