//! How long a node may be silent: that follows from how often it was told to speak.

use std::time::Duration;

use crate::objects::DeviceSpec;

/// EVE's default of both intervals, seconds.
const INTERVAL: u64 = 60;
/// So many intervals may pass without a word: one message may be lost, and one be late.
const MISSED: u64 = 3;
/// For what a message takes on its way.
const ON_THE_WAY: Duration = Duration::from_secs(5);

/// How long a node may be silent and still count as online: three of the shorter of its two
/// intervals (`timer.config.interval`, `timer.metric.interval`) and a little. Intervals out of
/// range (5 s to a day) are taken as the nearest in range, unreadable ones as the default.
pub(crate) fn patience(spec: Option<&DeviceSpec>) -> Duration {
    let asked = |key: &str| -> Option<u64> { spec?.settings.get(key)?.trim().parse().ok() };
    let config = asked("timer.config.interval").unwrap_or(INTERVAL);
    let metric = asked("timer.metric.interval").unwrap_or(INTERVAL);
    Duration::from_secs(config.min(metric).clamp(5, 86_400) * MISSED) + ON_THE_WAY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_follows_the_shorter_interval() {
        for (config, metric, seconds) in [
            ("", "", 185),
            ("10", "", 35),
            ("600", "", 185),
            ("600", "300", 905),
            ("1", "1", 20),
            ("99999999", "99999999", 3 * 86_400 + 5),
            ("soon", " 20 ", 65),
            ("-5", "", 185),
        ] {
            let mut spec = DeviceSpec::default();
            for (key, value) in [("config", config), ("metric", metric)] {
                if !value.is_empty() {
                    spec.settings.insert(format!("timer.{key}.interval"), value.to_owned());
                }
            }
            let want = Duration::from_secs(seconds);
            assert_eq!(patience(Some(&spec)), want, "{config:?} {metric:?}");
        }
        assert_eq!(patience(None), Duration::from_secs(185));
    }
}
