//! What this node makes of its settings: which it obeys, and which have no effect here and why.
//!
//! EVE takes every setting that it knows without a word, also one that steers nothing on the node. We
//! say so for each, in the same place where a bad value is told. A value that asks for what the node
//! does anyway is told of nowhere. Whoever teaches the node something takes its row out of [`FIXED`]
//! and names the key in [`OBEYED`].

use std::collections::BTreeMap;

use model::services;

/// Settings that are obeyed. Log levels of single services are, too (`agent.NAME.…`).
pub const OBEYED: &[&str] = &[
    "airgap.mode",
    "datastore.http.security.allowinsecureauth",
    "debug.default.loglevel",
    "debug.default.remote.loglevel",
    "debug.kernel.loglevel",
    "debug.kernel.remote.loglevel",
    "maintenance.mode",
    "network.fallback.any.eth",
    "newlog.allow.fastupload",
    "newlog.gzipfiles.ondisk.maxmegabytes",
    "timer.cert.interval",
    "timer.config.interval",
    "timer.defer.content.delete",
    "timer.deviceinfo.interval",
    "timer.dial.timeout",
    "timer.download.retry",
    "timer.hardwarehealth.interval",
    "timer.lps.appbootinfo.interval",
    "timer.lps.appinfo.interval",
    "timer.lps.devinfo.interval",
    "timer.lps.network.interval",
    "timer.lps.profile.interval",
    "timer.lps.radio.interval",
    "timer.metric.diskscan.interval",
    "timer.metric.interval",
    "timer.ntpsources.interval",
    "timer.port.testbetterinterval",
    "timer.port.testduration",
    "timer.reboot.no.network",
    "timer.send.timeout",
];

const NO_VM: &str = "there are no virtual machines yet";
const NO_CLUSTER: &str = "the node is never part of a cluster";
const NO_GO: &str = "no program here has a garbage collector";
const NO_UPDATE: &str = "the node does not update itself yet";
const NO_VAULT: &str = "there is no encrypted vault yet";
const NO_ZFS: &str = "there is no ZFS here";
const NO_NETDUMP: &str = "the network is not recorded";
const NO_CELLULAR: &str = "cellular modems are not supported yet";
const NO_PLACE: &str = "nothing here knows where the node is";
const NO_CHECK: &str = "apps are started whatever they ask for; the kernel keeps them to it";

/// Settings that nothing here asks for: the key, the value that fits what the node does, and why
/// another one has no effect.
pub const FIXED: &[(&str, &str, &str)] = &[
    ("app.allow.vnc", "false", NO_VM),
    ("app.boot.order", "", NO_VM),
    ("app.enable.tcp.mss.clamping", "false", "segment sizes of apps are left as they are"),
    ("app.fml.resolution", "", NO_VM),
    ("blob.download.max.retries", "", "a blob that is not whole is tried again for ever, slower"),
    ("debug.disable.dhcp.all-ones.netmask", "false", "EVE does not obey it any more either"),
    ("debug.enable.console", "false", "nobody can log in on the console"),
    ("debug.enable.efi", "false", NO_VM),
    ("debug.enable.ssh", "", "there is no ssh server"),
    ("debug.enable.usb", "true", "USB devices are not locked out yet"),
    ("debug.enable.vga", "true", "the screen is not switched off yet"),
    ("debug.enable.vnc.shim.vm", "false", NO_VM),
    ("debug.qemu.gdb", "false", NO_VM),
    ("debug.qemu.guest.core", "true", NO_VM),
    ("debug.qemu.igpu.no.mmap", "false", NO_VM),
    ("debug.qemu.pause.on.crash", "false", NO_VM),
    ("debug.qemu.process.core", "true", NO_VM),
    ("debug.qemu.process.core.guest.ram", "false", NO_VM),
    ("debug.qemu.trace.events", "", NO_VM),
    ("debug.syslog.loglevel", "info", "there is no syslog"),
    ("debug.syslog.remote.loglevel", "info", "there is no syslog"),
    ("debug.tui.loglevel", "info", "there is no user interface on the console"),
    ("dhcp.enable.vendorclassid", "false", "DHCP servers are not told a vendor class"),
    ("diag.probe.remote.http.endpoint", "www.google.com", "nothing but the controller is probed"),
    ("diag.probe.remote.https.endpoint", "www.google.com", "nothing but the controller is probed"),
    ("drain.skip.k8sapinotreachable.timeout", "300", NO_CLUSTER),
    ("edgeview.authen.publickey", "", "EdgeView is not supported yet"),
    ("force.fallback.counter", "0", NO_UPDATE),
    ("gogc.forced.growth.memory.MiB", "50", NO_GO),
    ("gogc.forced.growth.memory.percent", "20", NO_GO),
    ("gogc.forced.interval.seconds", "10", NO_GO),
    ("gogc.memory.limit.bytes", "0", NO_GO),
    ("gogc.percent", "100", NO_GO),
    ("goroutine.leak.detection.check.interval.minutes", "1", NO_GO),
    ("goroutine.leak.detection.check.window.minutes", "10", NO_GO),
    ("goroutine.leak.detection.cooldown.minutes", "5", NO_GO),
    ("goroutine.leak.detection.keep.stats.hours", "24", NO_GO),
    ("goroutine.leak.detection.threshold", "5000", NO_GO),
    ("igpu.gop", "", NO_VM),
    ("internal-memory-monitor.analyze.enabled", "false", "memory is measured, not analysed"),
    ("internal-memory-monitor.store.enabled", "false", "memory is measured, not analysed"),
    ("k3s.config.override", "", NO_CLUSTER),
    ("k3s.version", "", NO_CLUSTER),
    ("kubernetes.drain.allnodes.config.multiple", "2", NO_CLUSTER),
    ("kubernetes.drain.timeout", "24", NO_CLUSTER),
    ("kubernetes.vmi.deschedule.events", "", NO_CLUSTER),
    ("log.count.filenames", "", "lines are not counted by file"),
    ("log.dedup.window.size", "0", "lines that repeat are kept"),
    ("log.filter.filenames", "", "lines are not filtered by file"),
    ("memory-monitor.enabled", "false", "memory is measured, not analysed"),
    ("memory.apps.ignore.check", "true", NO_CHECK),
    ("memory.eve.limit.MiB", "0", NO_CHECK),
    ("memory.eve.limit.bytes", "0", NO_CHECK),
    ("memory.vmm.limit.MiB", "0", NO_VM),
    ("msrv.prometheus.metrics.burst", "10", "apps are not shown metrics yet"),
    ("msrv.prometheus.metrics.idletimeout.seconds", "240", "apps are not shown metrics yet"),
    ("msrv.prometheus.metrics.rps", "1", "apps are not shown metrics yet"),
    ("netdump.downloader.http.with.fieldvalue", "false", NO_NETDUMP),
    ("netdump.downloader.with.pcap", "false", NO_NETDUMP),
    ("netdump.enable", "false", NO_NETDUMP),
    ("netdump.topic.maxcount", "10", NO_NETDUMP),
    ("netdump.topic.postonboard.interval", "86400", NO_NETDUMP),
    ("netdump.topic.preonboard.interval", "3600", NO_NETDUMP),
    ("network.download.max.cost", "255", "downloads go by the cheapest port that is up"),
    (
        "network.local.legacy.mac.address",
        "false",
        "hardware addresses of apps are made one way only",
    ),
    ("network.switch.enable.arpsnoop", "false", "addresses in switch networks are not looked for"),
    ("pnac.dhcp.reacquire.max.retries", "4", "802.1X is not supported yet"),
    ("process.cloud-init.multipart", "false", NO_VM),
    ("scep.retry.interval", "300", "SCEP is not supported yet"),
    ("storage.apps.ignore.disk.check", "true", NO_CHECK),
    ("storage.dom0.disk.maxusagebytes", "2147483648", "no room is set aside for the node itself"),
    ("storage.dom0.disk.minusage.percent", "20", "no room is set aside for the node itself"),
    ("storage.longhorn.disk.reserved.gigabytes", "2", NO_CLUSTER),
    (
        "storage.longhorn.node-drain-policy",
        "block-for-eviction-if-contains-last-replica",
        NO_CLUSTER,
    ),
    ("storage.longhorn.snapshot.cron", "0 0 * * *", NO_CLUSTER),
    ("storage.zfs.reserved.percent", "20", NO_ZFS),
    ("timer.appcontainer.stats.interval", "300", "containers inside of apps are not looked at"),
    (
        "timer.boot.retry",
        "",
        "an app that ends is started again after 1 s, then ever later, to 300 s",
    ),
    ("timer.download.stalled", "", "a download that is silent for 60 s is tried again"),
    ("timer.gc.vdisk", "", "volumes that no config names are removed at once"),
    ("timer.location.app.interval", "20", NO_PLACE),
    ("timer.location.cloud.interval", "3600", NO_PLACE),
    ("timer.port.georedo", "3600", NO_PLACE),
    ("timer.port.georetry", "600", NO_PLACE),
    ("timer.port.testinterval", "300", "ports are watched all the time"),
    ("timer.port.timeout", "15", "ports are tested by the questions to the controller"),
    ("timer.test.baseimage.update", "600", NO_UPDATE),
    ("timer.update.fallback.no.network", "300", NO_UPDATE),
    ("timer.vault.ready.cutoff", "300", NO_VAULT),
    ("timer.vault.trim.cron", "0 2 * * 6,0", NO_VAULT),
    ("timer.vault.trim.max.secs", "1800", NO_VAULT),
    ("timer.zfs.pool.trim.cron", "0 3 * * 6,0", NO_ZFS),
    ("vector.config", "", "log lines are not transformed"),
    ("vector.enabled", "false", "log lines are not transformed"),
    ("wwan.modem.recovery.reload.drivers", "false", NO_CELLULAR),
    ("wwan.modem.recovery.restart.modemmanager", "false", NO_CELLULAR),
    ("wwan.modem.recovery.watchdog", "false", NO_CELLULAR),
    ("wwan.query.visible.providers", "false", NO_CELLULAR),
];

/// The settings among `items` (key and value as they came) that have no effect on this node, and why.
/// Keys that no node knows are none of ours.
pub fn without_effect(items: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let found = items.iter().filter_map(|(key, value)| Some((key.clone(), why(key, value)?)));
    found.map(|(key, why)| (key, format!("has no effect on this node: {why}"))).collect()
}

fn why(key: &str, value: &str) -> Option<String> {
    if let Ok(at) = FIXED.binary_search_by_key(&key, |(key, ..)| key) {
        let (_, does, why) = FIXED.get(at)?;
        return (!value.trim().eq_ignore_ascii_case(does)).then(|| (*why).to_owned());
    }
    if OBEYED.contains(&key) {
        return None;
    }
    let (_, rest) = key.split_once('.').filter(|(of, _)| ["agent", "debug"].contains(of))?;
    let (name, level) = rest.split_once('.')?;
    let ours = services::ALL.iter().any(|spec| spec.service.name() == name);
    (!ours && level.ends_with("loglevel")).then(|| {
        let names: Vec<&str> = services::ALL.iter().map(|spec| spec.service.name()).collect();
        format!("there is no service {name:?}, there are {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(key: &str, value: &str) -> Option<String> {
        without_effect(&BTreeMap::from([(key.to_owned(), value.to_owned())])).remove(key)
    }

    #[test]
    fn the_table_is_sorted_and_no_key_is_in_both() {
        assert!(FIXED.is_sorted_by_key(|(key, ..)| *key));
        assert!(OBEYED.is_sorted());
        assert!(FIXED.iter().all(|(key, ..)| !OBEYED.contains(key)));
    }

    #[test]
    fn who_asks_for_what_is_not_here_is_told_why() {
        let why = told("debug.enable.usb", "false").unwrap();
        assert_eq!(why, "has no effect on this node: USB devices are not locked out yet");
        assert_eq!(told("debug.enable.usb", " True"), None, "that is what the node does");
        assert_eq!(told("timer.config.interval", "5"), None, "it is obeyed");
        assert_eq!(told("no.such.key", "5"), None, "others tell of that");
    }

    #[test]
    fn levels_of_services_that_are_not_here_have_no_effect() {
        assert_eq!(told("agent.network.debug.loglevel", "debug"), None);
        let why = told("agent.zedagent.debug.loglevel", "debug").unwrap();
        assert!(why.contains("no service \"zedagent\", there are "), "{why}");
        assert!(why.contains(" network"), "{why}");
    }
}
