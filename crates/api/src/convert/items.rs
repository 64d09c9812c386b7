//! Settings: `configItems`, checked against the table of EVE's config properties.
//!
//! The table knows every key that EVE knows, so that only real mistakes are reported; a key that
//! has no meaning for this node is checked and otherwise left alone.

use std::collections::BTreeMap;
use std::time::Duration;

use model::desired::Properties;
use model::{Bytes, Diagnosis, Problem, UnixMillis, Who};

/// What a value may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A whole number between these, both included.
    Int(u32, u32),
    /// `true` or `false`.
    Bool,
    /// `none`, or on or off.
    Tri,
    /// Any text.
    Text,
}

use Kind::{Bool, Int, Text, Tri};

const MAX: u32 = u32::MAX;

/// Every key and its values (EVE's config properties). Keys of the form `agent.NAME.…` and
/// `debug.NAME.…` are known by [`known`].
const TABLE: &[(&str, Kind)] = &[
    ("airgap.mode", Tri),
    ("app.allow.vnc", Bool),
    ("app.boot.order", Text),
    ("app.enable.tcp.mss.clamping", Bool),
    ("app.fml.resolution", Text),
    ("blob.download.max.retries", Int(1, 10)),
    ("datastore.http.security.allowinsecureauth", Bool),
    ("debug.default.loglevel", Text),
    ("debug.default.remote.loglevel", Text),
    ("debug.disable.dhcp.all-ones.netmask", Bool),
    ("debug.enable.console", Bool),
    ("debug.enable.efi", Bool),
    ("debug.enable.ssh", Text),
    ("debug.enable.usb", Bool),
    ("debug.enable.vga", Bool),
    ("debug.enable.vnc.shim.vm", Bool),
    ("debug.kernel.loglevel", Text),
    ("debug.kernel.remote.loglevel", Text),
    ("debug.qemu.gdb", Bool),
    ("debug.qemu.guest.core", Bool),
    ("debug.qemu.igpu.no.mmap", Bool),
    ("debug.qemu.pause.on.crash", Bool),
    ("debug.qemu.process.core", Bool),
    ("debug.qemu.process.core.guest.ram", Bool),
    ("debug.qemu.trace.events", Text),
    ("debug.syslog.loglevel", Text),
    ("debug.syslog.remote.loglevel", Text),
    ("debug.tui.loglevel", Text),
    ("dhcp.enable.vendorclassid", Bool),
    ("diag.probe.remote.http.endpoint", Text),
    ("diag.probe.remote.https.endpoint", Text),
    ("drain.skip.k8sapinotreachable.timeout", Int(1, MAX)),
    ("edgeview.authen.publickey", Text),
    ("force.fallback.counter", Int(0, MAX)),
    ("gogc.forced.growth.memory.MiB", Int(10, 1024)),
    ("gogc.forced.growth.memory.percent", Int(5, 300)),
    ("gogc.forced.interval.seconds", Int(0, 1000)),
    ("gogc.memory.limit.bytes", Int(0, MAX)),
    ("gogc.percent", Int(0, 500)),
    ("goroutine.leak.detection.check.interval.minutes", Int(1, MAX)),
    ("goroutine.leak.detection.check.window.minutes", Int(10, MAX)),
    ("goroutine.leak.detection.cooldown.minutes", Int(1, MAX)),
    ("goroutine.leak.detection.keep.stats.hours", Int(1, MAX)),
    ("goroutine.leak.detection.threshold", Int(1, MAX)),
    ("igpu.gop", Text),
    ("internal-memory-monitor.analyze.enabled", Bool),
    ("internal-memory-monitor.store.enabled", Bool),
    ("k3s.config.override", Text),
    ("k3s.version", Text),
    ("kubernetes.drain.allnodes.config.multiple", Int(1, 1000)),
    ("kubernetes.drain.timeout", Int(1, MAX)),
    ("kubernetes.vmi.deschedule.events", Text),
    ("log.count.filenames", Text),
    ("log.dedup.window.size", Int(0, MAX)),
    ("log.filter.filenames", Text),
    ("maintenance.mode", Tri),
    ("memory-monitor.enabled", Bool),
    ("memory.apps.ignore.check", Bool),
    ("memory.eve.limit.MiB", Int(0, MAX)),
    ("memory.eve.limit.bytes", Int(0, MAX)),
    ("memory.vmm.limit.MiB", Int(0, 1_073_741_824)),
    ("msrv.prometheus.metrics.burst", Int(1, MAX)),
    ("msrv.prometheus.metrics.idletimeout.seconds", Int(1, MAX)),
    ("msrv.prometheus.metrics.rps", Int(1, MAX)),
    ("netdump.downloader.http.with.fieldvalue", Bool),
    ("netdump.downloader.with.pcap", Bool),
    ("netdump.enable", Bool),
    ("netdump.topic.maxcount", Int(1, MAX)),
    ("netdump.topic.postonboard.interval", Int(60, MAX)),
    ("netdump.topic.preonboard.interval", Int(60, MAX)),
    ("network.download.max.cost", Int(0, 255)),
    ("network.fallback.any.eth", Tri),
    ("network.local.legacy.mac.address", Bool),
    ("network.switch.enable.arpsnoop", Bool),
    ("newlog.allow.fastupload", Bool),
    ("newlog.gzipfiles.ondisk.maxmegabytes", Int(10, MAX)),
    ("pnac.dhcp.reacquire.max.retries", Int(0, 8)),
    ("process.cloud-init.multipart", Bool),
    ("scep.retry.interval", Int(60, 3600)),
    ("storage.apps.ignore.disk.check", Bool),
    ("storage.dom0.disk.maxusagebytes", Int(104_857_600, MAX)),
    ("storage.dom0.disk.minusage.percent", Int(20, 80)),
    ("storage.longhorn.disk.reserved.gigabytes", Int(0, 1_048_576)),
    ("storage.longhorn.node-drain-policy", Text),
    ("storage.longhorn.snapshot.cron", Text),
    ("storage.zfs.reserved.percent", Int(1, 99)),
    ("timer.appcontainer.stats.interval", Int(1, MAX)),
    ("timer.boot.retry", Int(10, MAX)),
    ("timer.cert.interval", Int(60, MAX)),
    ("timer.config.interval", Int(5, 86_400)),
    ("timer.defer.content.delete", Int(0, 86_400)),
    ("timer.deviceinfo.interval", Int(30, MAX)),
    ("timer.dial.timeout", Int(0, 3600)),
    ("timer.download.retry", Int(60, MAX)),
    ("timer.download.stalled", Int(20, MAX)),
    ("timer.gc.vdisk", Int(60, MAX)),
    ("timer.hardwarehealth.interval", Int(21_600, MAX)),
    ("timer.location.app.interval", Int(5, 3600)),
    ("timer.location.cloud.interval", Int(300, MAX)),
    ("timer.lps.appbootinfo.interval", Int(3, 3600)),
    ("timer.lps.appinfo.interval", Int(3, 3600)),
    ("timer.lps.devinfo.interval", Int(3, 3600)),
    ("timer.lps.network.interval", Int(3, 3600)),
    ("timer.lps.profile.interval", Int(3, 3600)),
    ("timer.lps.radio.interval", Int(3, 3600)),
    ("timer.metric.diskscan.interval", Int(5, 3600)),
    ("timer.metric.interval", Int(5, 3600)),
    ("timer.ntpsources.interval", Int(60, MAX)),
    ("timer.port.georedo", Int(60, MAX)),
    ("timer.port.georetry", Int(5, MAX)),
    ("timer.port.testbetterinterval", Int(0, MAX)),
    ("timer.port.testduration", Int(10, 3600)),
    ("timer.port.testinterval", Int(300, 3600)),
    ("timer.port.timeout", Int(0, 3600)),
    ("timer.reboot.no.network", Int(120, MAX)),
    ("timer.send.timeout", Int(0, 3600)),
    ("timer.test.baseimage.update", Int(30, 3600)),
    ("timer.update.fallback.no.network", Int(60, MAX)),
    ("timer.vault.ready.cutoff", Int(60, MAX)),
    ("timer.vault.trim.cron", Text),
    ("timer.vault.trim.max.secs", Int(0, MAX)),
    ("timer.zfs.pool.trim.cron", Text),
    ("vector.config", Text),
    ("vector.enabled", Bool),
    ("wwan.modem.recovery.reload.drivers", Bool),
    ("wwan.modem.recovery.restart.modemmanager", Bool),
    ("wwan.modem.recovery.watchdog", Bool),
    ("wwan.query.visible.providers", Bool),
];

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
            "none" | "enabled" | "enable" | "on" | "disabled" | "disable" | "off" => {
                Ok(Value::Other)
            }
            _ => Err(format!("{:?} is not none, enabled or disabled", shown())),
        },
        Text => Ok(Value::Other),
    }
}

fn known(key: &str) -> Option<Kind> {
    if let Ok(at) = TABLE.binary_search_by_key(&key, |(k, _)| k) {
        return Some(TABLE[at].1);
    }
    // Log levels per agent: `agent.NAME.debug.loglevel`, and `debug.NAME.loglevel` of old.
    let agent = key.strip_prefix("agent.").or_else(|| key.strip_prefix("debug."))?;
    let (name, rest) = agent.split_once('.')?;
    let level =
        ["debug.loglevel", "debug.remote.loglevel", "remote.loglevel", "loglevel"].contains(&rest);
    (!name.is_empty() && level).then_some(Text)
}

fn take(settings: &mut Properties, key: &str, value: Value) {
    let seconds = |n: u32| Duration::from_secs(n.into());
    match (key, value) {
        ("timer.config.interval", Value::Int(n)) => settings.config_interval = seconds(n),
        ("timer.metric.interval", Value::Int(n)) => settings.metric_interval = seconds(n),
        ("timer.deviceinfo.interval", Value::Int(n)) => settings.device_info_interval = seconds(n),
        ("timer.cert.interval", Value::Int(n)) => settings.cert_interval = seconds(n),
        ("timer.reboot.no.network", Value::Int(n)) => settings.reboot_no_network = seconds(n),
        ("newlog.allow.fastupload", Value::Bool(yes)) => settings.log_fast_upload = yes,
        ("newlog.gzipfiles.ondisk.maxmegabytes", Value::Int(n)) => {
            settings.log_quota = Bytes::mib(n.into());
        }
        _ => {}
    }
}

/// The other half of [`take`]: what a bad value leaves as it was.
fn keep(settings: &mut Properties, key: &str, previous: &Properties) {
    match key {
        "timer.config.interval" => settings.config_interval = previous.config_interval,
        "timer.metric.interval" => settings.metric_interval = previous.metric_interval,
        "timer.deviceinfo.interval" => {
            settings.device_info_interval = previous.device_info_interval;
        }
        "timer.cert.interval" => settings.cert_interval = previous.cert_interval,
        "timer.reboot.no.network" => settings.reboot_no_network = previous.reboot_no_network,
        "newlog.allow.fastupload" => settings.log_fast_upload = previous.log_fast_upload,
        "newlog.gzipfiles.ondisk.maxmegabytes" => settings.log_quota = previous.log_quota,
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
        assert!(TABLE.is_sorted_by_key(|(key, _)| *key));
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
