//! Settings that a node obeys (EVE's config properties).

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Bytes, Problem};

/// Settings, complete and in range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Properties {
    /// `timer.config.interval`: how often the config is asked for.
    pub config_interval: Duration,
    /// `timer.metric.interval`: how often metrics are sent.
    pub metric_interval: Duration,
    /// `timer.deviceinfo.interval`: device info at least this often.
    pub device_info_interval: Duration,
    /// `timer.cert.interval`: how often the controller's certificates are asked for.
    pub cert_interval: Duration,
    /// `timer.metric.diskscan.interval`: how often volumes are measured.
    pub disk_scan_interval: Duration,
    /// `timer.hardwarehealth.interval`: how often memory and disks are told of.
    pub hardware_health_interval: Duration,
    /// `timer.ntpsources.interval`: how often time servers are told of.
    pub ntp_sources_interval: Duration,
    /// `timer.lps.….interval`: how often a local profile server is asked.
    pub local_periods: LocalPeriods,
    /// `timer.send.timeout`: so long a whole request to the controller may take; 0: the default.
    pub send_timeout: Duration,
    /// `timer.dial.timeout`: so long one address of the controller is tried; 0: the default.
    pub dial_timeout: Duration,
    /// `timer.reboot.no.network`: reboot after so long without a controller.
    pub reboot_no_network: Duration,
    /// `timer.port.testduration`: so long new ports may stay without a way out.
    pub port_test_duration: Duration,
    /// `timer.port.testbetterinterval`: ports that were set aside are tried again after so long; 0:
    /// never.
    pub port_retry_interval: Duration,
    /// `network.fallback.any.eth`: where neither the ports of the config nor those that last worked
    /// lead anywhere, every Ethernet interface is tried.
    pub fallback_any_ethernet: bool,
    /// `timer.download.retry`: at most so long between tries of a download.
    pub download_retry: Duration,
    /// `timer.download.stalled`: a download that is silent for so long is given up and tried again.
    /// Kept as told: nothing here obeys it yet.
    pub download_stalled: Duration,
    /// `timer.defer.content.delete`: so long what nobody needs any more is kept.
    pub defer_content_delete: Duration,
    /// `timer.boot.retry`: at most so long between starts of an app that does not stay up.
    /// Kept as told: nothing here obeys it yet.
    pub boot_retry: Duration,
    /// `newlog.allow.fastupload`.
    pub log_fast_upload: bool,
    /// `newlog.gzipfiles.ondisk.maxmegabytes`.
    pub log_quota: Bytes,
    /// `debug.….loglevel`, `agent.….loglevel`.
    pub log_levels: LogLevels,
    /// Keys that were refused, or have no effect here, and why.
    pub problems: BTreeMap<String, Problem>,
}

impl Default for Properties {
    /// The defaults of EVE (config properties table).
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Properties {
            config_interval: seconds(60),
            metric_interval: seconds(60),
            device_info_interval: seconds(600),
            cert_interval: seconds(24 * 3600),
            disk_scan_interval: seconds(300),
            hardware_health_interval: seconds(12 * 3600),
            ntp_sources_interval: seconds(600),
            local_periods: LocalPeriods::default(),
            send_timeout: seconds(120),
            dial_timeout: seconds(10),
            reboot_no_network: seconds(7 * 24 * 3600),
            port_test_duration: seconds(30),
            port_retry_interval: seconds(600),
            fallback_any_ethernet: false,
            download_retry: seconds(600),
            download_stalled: seconds(600),
            defer_content_delete: Duration::ZERO,
            boot_retry: seconds(600),
            log_fast_upload: false,
            log_quota: Bytes::mib(2048),
            log_levels: LogLevels::default(),
            problems: BTreeMap::new(),
        }
    }
}

/// How often a local profile server is asked what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LocalPeriods {
    /// The profile.
    pub profile: Duration,
    /// What apps are told.
    pub app_info: Duration,
    /// What the node is told.
    pub device_info: Duration,
    /// How ports are set up.
    pub network: Duration,
    /// What apps boot from.
    pub app_boot_info: Duration,
    /// Whether radios are silent.
    pub radio: Duration,
}

impl Default for LocalPeriods {
    /// The defaults of EVE (config properties table).
    fn default() -> Self {
        let minute = Duration::from_secs(60);
        LocalPeriods {
            profile: minute,
            app_info: minute,
            device_info: minute,
            network: minute,
            app_boot_info: minute,
            radio: Duration::from_secs(5),
        }
    }
}

/// How grave a line must be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Every line.
    Trace,
    /// What a developer wants to know, and what is graver.
    Debug,
    /// What an operator wants to know.
    #[default]
    Info,
    /// What may become a problem.
    Warning,
    /// What is one.
    Error,
    /// What ends a service or the node.
    Critical,
    /// No line.
    None,
}

impl LogLevel {
    /// Reads the words of EVE's settings: logrus' levels for agents, syslog's for the kernel, `all`
    /// and `none`. Case does not matter. `None`: it is none of them.
    pub fn parse(text: &str) -> Option<LogLevel> {
        Some(match text.trim().to_ascii_lowercase().as_str() {
            "all" | "trace" => LogLevel::Trace,
            "debug" => LogLevel::Debug,
            "info" | "notice" => LogLevel::Info,
            "warn" | "warning" => LogLevel::Warning,
            "err" | "error" => LogLevel::Error,
            "fatal" | "panic" | "crit" | "alert" | "emerg" => LogLevel::Critical,
            "none" => LogLevel::None,
            _ => return None,
        })
    }
}

/// The levels of one speaker. `None`: as all others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OneLevel {
    /// What it says at all.
    pub said: Option<LogLevel>,
    /// What of it goes to the controller.
    pub sent: Option<LogLevel>,
}

/// Which lines of the log are made, and which go to the controller.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLevels {
    /// All services (`debug.default.….loglevel`).
    pub services: OneLevel,
    /// The kernel (`debug.kernel.….loglevel`).
    pub kernel: OneLevel,
    /// Single services by name (`agent.NAME.….loglevel`).
    pub by_service: BTreeMap<String, OneLevel>,
}

impl LogLevels {
    /// What a service is to say. `None`: the settings do not say.
    pub fn said(&self, service: &str) -> Option<LogLevel> {
        let own = self.by_service.get(service).and_then(|level| level.said);
        own.or(self.services.said)
    }

    /// What of a service's lines goes to the controller.
    pub fn sent(&self, service: &str) -> LogLevel {
        let own = self.by_service.get(service).and_then(|level| level.sent);
        own.or(self.services.sent).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_has_its_own_level_or_that_of_all() {
        let quiet = OneLevel { said: Some(LogLevel::Error), sent: Some(LogLevel::None) };
        let levels = LogLevels {
            services: OneLevel { said: None, sent: Some(LogLevel::Warning) },
            by_service: BTreeMap::from([("network".to_owned(), quiet)]),
            ..LogLevels::default()
        };
        assert_eq!((levels.said("network"), levels.said("config")), (Some(LogLevel::Error), None));
        assert_eq!(
            (levels.sent("network"), levels.sent("config")),
            (LogLevel::None, LogLevel::Warning)
        );
        assert_eq!(LogLevels::default().sent("config"), LogLevel::Info);
    }

    #[test]
    fn levels_are_ordered_by_how_grave_they_are() {
        for words in ["trace debug info", "info warn err", "warning error fatal", "crit none"] {
            let levels: Vec<_> = words.split(' ').map(|w| LogLevel::parse(w).unwrap()).collect();
            assert!(levels.is_sorted(), "{words}");
        }
        assert_eq!(LogLevel::parse("loud"), None);
    }
}
