//! Times in words, for pages and tables alike.

use model::UnixMillis;
use time::OffsetDateTime;
use time::macros::format_description;

/// How long ago something was: `now`, `5 s ago`, `3 min ago`, `2 h ago`, `4 days ago`.
pub fn ago(now: UnixMillis, at: UnixMillis) -> String {
    let seconds = now.since(at).as_secs();
    match seconds {
        0 => "now".to_owned(),
        1..120 => format!("{seconds} s ago"),
        120..7_200 => format!("{} min ago", seconds / 60),
        7_200..172_800 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// A moment, in UTC, to the second: `2026-01-02T03:04:05Z`.
pub fn time(at: UnixMillis) -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    let seconds = i64::try_from(at.0 / 1000).unwrap_or_default();
    let moment = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    moment.format(format).unwrap_or_default()
}

/// A moment as RFC 3339 has it: `2026-01-02T03:04:05Z`, `2026-01-02 04:04+01:00`. `None`: it is none,
/// or before 1970.
pub fn moment(text: &str) -> Option<UnixMillis> {
    let moment: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(moment.as_millisecond()).ok().map(UnixMillis)
}

/// A moment in a zone of the tz database, to the minute: `Fri 2026-01-02 04:04 (Europe/Berlin)`. `None`: there is
/// no such zone.
pub fn time_in(at: UnixMillis, zone: &str) -> Option<String> {
    let known = jiff::tz::TimeZoneDatabase::bundled().get(zone).ok()?;
    let at = jiff::Timestamp::from_millisecond(i64::try_from(at.0).ok()?).ok()?;
    let local = at.to_zoned(known);
    Some(format!("{} ({zone})", local.strftime("%a %Y-%m-%d %H:%M")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_well() {
        let now = UnixMillis(1_767_323_045_678);
        assert_eq!(time(now), "2026-01-02T03:04:05Z");
        assert_eq!(time(UnixMillis(u64::MAX)), "1970-01-01T00:00:00Z");
        for (seconds, text) in [
            (0, "now"),
            (5, "5 s ago"),
            (185, "3 min ago"),
            (9_000, "2 h ago"),
            (400_000, "4 days ago"),
        ] {
            assert_eq!(ago(now, UnixMillis(now.0 - seconds * 1000)), text);
        }
        assert_eq!(ago(now, UnixMillis(now.0 + 1)), "now");
    }

    #[test]
    fn moments_are_read_and_told_where_people_are() {
        let at = moment("2026-07-01T02:00:00+02:00").unwrap();
        assert_eq!(moment("2026-07-01T00:00:00Z"), Some(at));
        assert_eq!(time_in(at, "Europe/Berlin").unwrap(), "Wed 2026-07-01 02:00 (Europe/Berlin)");
        assert_eq!(time_in(at, "Nowhere"), None);
        for wrong in ["", "2026-07-01", "2026-07-01T00:00:00", "1960-01-01T00:00:00Z", "x"] {
            assert_eq!(moment(wrong), None, "{wrong}");
        }
    }
}
