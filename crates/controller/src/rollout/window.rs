//! Maintenance windows: when the devices of a group may be disturbed.
//!
//! A window opens on its days at a time of day, in its time zone, and stays open for its length. On
//! the day on which that time of day does not exist (clocks go forward), it opens when the clocks
//! have gone forward; where it exists twice, at the first.

use std::time::Duration;

use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use model::UnixMillis;

use crate::objects::{Day, WindowSpec};

/// A week is as long as a window can be.
const LENGTH_MAX_MINUTES: u32 = 7 * 24 * 60;

impl Day {
    const ALL: [(Day, Weekday); 7] = [
        (Day::Mon, Weekday::Monday),
        (Day::Tue, Weekday::Tuesday),
        (Day::Wed, Weekday::Wednesday),
        (Day::Thu, Weekday::Thursday),
        (Day::Fri, Weekday::Friday),
        (Day::Sat, Weekday::Saturday),
        (Day::Sun, Weekday::Sunday),
    ];
}

/// What is wrong with a window.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WindowError {
    #[error("from: {0:?} is no time of day; write 02:00")]
    From(String),
    #[error("zone: {0:?} is no time zone; write a name of the tz database, as Europe/Berlin")]
    Zone(String),
    #[error("minutes: {0} is out of range; a window is open for 1 to {LENGTH_MAX_MINUTES} minutes")]
    Length(u32),
    #[error("match: {0}")]
    Query(#[from] crate::objects::QueryError),
}

/// A window that was understood.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    days: Vec<Weekday>,
    from: Time,
    length: Duration,
    zone: TimeZone,
}

impl Window {
    pub(crate) fn of(spec: &WindowSpec) -> Result<Window, WindowError> {
        let from = spec.from.trim();
        let well_formed = from.len() == 5 && from.as_bytes().get(2) == Some(&b':');
        let from = well_formed.then(|| Time::strptime("%H:%M", from).ok()).flatten();
        if !(1..=LENGTH_MAX_MINUTES).contains(&spec.minutes) {
            return Err(WindowError::Length(spec.minutes));
        }
        let named = |(day, weekday): &(Day, Weekday)| {
            (spec.days.is_empty() || spec.days.contains(day)).then_some(*weekday)
        };
        Ok(Window {
            days: Day::ALL.iter().filter_map(named).collect(),
            from: from.ok_or_else(|| WindowError::From(spec.from.clone()))?,
            length: Duration::from_secs(u64::from(spec.minutes) * 60),
            // Names only: a path would be looked for on this machine.
            zone: jiff::tz::TimeZoneDatabase::bundled()
                .get(&spec.zone)
                .map_err(|_| WindowError::Zone(spec.zone.clone()))?,
        })
    }

    /// When it is or was open around a moment: openings that began up to a week before, and those of
    /// the eight days after. In order.
    fn openings(&self, now: UnixMillis) -> Vec<(UnixMillis, UnixMillis)> {
        let Some(today) = i64::try_from(now.0)
            .ok()
            .and_then(|ms| Timestamp::from_millisecond(ms).ok())
            .map(|t| t.to_zoned(self.zone.clone()).date())
        else {
            return Vec::new();
        };
        let opening = |offset: i64| {
            let date = today.checked_add(offset.days()).ok()?;
            if !self.days.contains(&date.weekday()) {
                return None;
            }
            // `compatible`: what does not exist is moved forward, what exists twice is the first.
            let zoned = self.zone.to_zoned(date.to_datetime(self.from)).ok()?;
            let start = u64::try_from(zoned.timestamp().as_millisecond()).ok().map(UnixMillis)?;
            Some((start, start.after(self.length)))
        };
        (-8..=8).filter_map(opening).collect()
    }

    /// When it closes, if it is open.
    pub(crate) fn open_until(&self, now: UnixMillis) -> Option<UnixMillis> {
        let open = self.openings(now).into_iter().filter(|(from, to)| *from <= now && now < *to);
        open.map(|(_, to)| to).max()
    }

    /// When it opens next.
    pub(crate) fn opens_at(&self, now: UnixMillis) -> Option<UnixMillis> {
        self.openings(now).into_iter().map(|(from, _)| from).find(|from| *from > now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spec(days: &[Day], from: &str, minutes: u32, zone: &str) -> WindowSpec {
        WindowSpec {
            devices: "*".into(),
            days: days.to_vec(),
            from: from.into(),
            minutes,
            zone: zone.into(),
        }
    }

    fn at(text: &str) -> UnixMillis {
        let at: Timestamp = text.parse().unwrap();
        UnixMillis(u64::try_from(at.as_millisecond()).unwrap())
    }

    #[track_caller]
    fn check(spec: &WindowSpec, now: &str, open_until: Option<&str>, next: &str) {
        let window = Window::of(spec).unwrap();
        assert_eq!(window.open_until(at(now)), open_until.map(at), "{now}");
        assert_eq!(window.opens_at(at(now)), Some(at(next)), "{now}");
    }

    #[test]
    fn it_opens_on_its_days_in_its_time_zone() {
        let sunday = spec(&[Day::Sun], "02:00", 120, "Europe/Berlin");
        // In winter Berlin is an hour ahead of UTC, in summer two.
        check(&sunday, "2026-01-10T12:00:00Z", None, "2026-01-11T01:00:00Z");
        let next = "2026-01-18T01:00:00Z";
        check(&sunday, "2026-01-11T01:00:00Z", Some("2026-01-11T03:00:00Z"), next);
        check(&sunday, "2026-01-11T02:59:59Z", Some("2026-01-11T03:00:00Z"), next);
        check(&sunday, "2026-01-11T03:00:00Z", None, next);
        check(&sunday, "2026-07-04T23:59:59Z", None, "2026-07-05T00:00:00Z");
    }

    #[test]
    fn a_window_may_last_over_midnight() {
        let night = spec(&[Day::Sat], "23:00", 180, "UTC");
        let next = "2026-01-17T23:00:00Z";
        check(&night, "2026-01-11T01:30:00Z", Some("2026-01-11T02:00:00Z"), next);
        check(&night, "2026-01-11T02:00:00Z", None, next);
    }

    #[test]
    fn where_clocks_go_forward_it_opens_after_the_gap() {
        // 02:30 does not exist in Berlin on 2026-03-29; clocks go from 02:00 to 03:00 at 01:00 UTC.
        let window = spec(&[Day::Sun], "02:30", 30, "Europe/Berlin");
        let until = Some("2026-03-29T02:00:00Z");
        check(&window, "2026-03-29T01:30:00Z", until, "2026-04-05T00:30:00Z");
    }

    #[test]
    fn what_is_no_window_is_refused() {
        for (spec, want) in [
            (spec(&[], "2:00", 1, "UTC"), "\"2:00\" is no time of day"),
            (spec(&[], "25:00", 1, "UTC"), "is no time of day"),
            (spec(&[], "02:00", 0, "UTC"), "out of range"),
            (spec(&[], "02:00", 10_081, "UTC"), "out of range"),
            (spec(&[], "02:00", 1, "Mars/Olympus"), "is no time zone"),
            (spec(&[], "02:00", 1, "../../etc/localtime"), "is no time zone"),
        ] {
            let error = Window::of(&spec).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
    }

    proptest! {
        #[test]
        fn it_is_open_as_long_as_it_should_be(
            hour in 0u32..24, minutes in 1u32..=1440, day in 0usize..7, ms in 0u64..4_000_000_000_000,
        ) {
            let spec = spec(&[Day::ALL[day].0], &format!("{hour:02}:00"), minutes, "America/New_York");
            let window = Window::of(&spec).unwrap();
            let next = window.opens_at(UnixMillis(ms)).unwrap();
            prop_assert!(next.0 > ms && next.0 - ms <= 8 * 86_400_000);
            let until = window.open_until(next).unwrap();
            prop_assert_eq!(until.since(next), Duration::from_secs(u64::from(minutes) * 60));
            prop_assert_eq!(window.open_until(UnixMillis(until.0 - 1)), Some(until));
            prop_assert!(window.open_until(until).is_none());
        }
    }
}
