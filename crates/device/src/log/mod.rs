//! Logs: which lines make a file, which files go, which go away.
//!
//! Lines come from pipes and the kernel; [`line`] reads them. A [`Batch`] of one source is closed
//! when it is large or old and becomes one file or more. [`upload`] sends files one at a time,
//! oldest first, ever faster the more there are. Over the quota the oldest files go, sent ones
//! first; what is lost is counted and told.

pub mod counted;
pub mod line;
pub mod upload;

use std::collections::VecDeque;
use std::time::Duration;

use model::desired::{LogLevel, LogLevels};
use model::{AppId, Bytes, UnixMillis};

use line::Level;

/// A batch is closed when its lines take so much (EVE: 400 KB, which makes 50 KB of gzip).
pub const BATCH_MAX: Bytes = Bytes(400_000);
/// … or when its first line is this old.
pub const BATCH_AGE: Duration = Duration::from_secs(300);
/// … and with fast upload when it is this old.
pub const BATCH_AGE_FAST: Duration = Duration::from_secs(10);
/// A source that writes faster is cut off for the rest of the second.
pub const LINES_PER_SECOND: u32 = 2000;

/// Whose lines they are. The node's own come before those of apps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The node: kernel and services.
    Device,
    /// An app.
    App(AppId),
}

/// What becomes of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It goes to the controller.
    Sent,
    /// It stays on the node.
    Kept,
    /// Nobody wants it.
    Dropped,
}

/// What becomes of a line of a service, or of the kernel (`None`), by the settings.
pub fn fate(service: Option<&str>, level: Level, levels: &LogLevels) -> Fate {
    let level = match level {
        Level::Debug => LogLevel::Debug,
        Level::Info | Level::Notice => LogLevel::Info,
        Level::Warning => LogLevel::Warning,
        Level::Error => LogLevel::Error,
        Level::Critical => LogLevel::Critical,
    };
    let (said, sent) = match service {
        // A service sees to it itself; what is not written as it writes has no level of its own.
        Some(name) => (LogLevel::Trace, levels.sent(name)),
        None => {
            (levels.kernel.said.unwrap_or(LogLevel::Trace), levels.kernel.sent.unwrap_or_default())
        }
    };
    if level < said {
        Fate::Dropped
    } else if level < sent {
        Fate::Kept
    } else {
        Fate::Sent
    }
}

/// Lines of one source that wait to become a file.
#[derive(Debug, Clone)]
pub struct Batch<E> {
    entries: Vec<E>,
    size: Bytes,
    first: Option<UnixMillis>,
}

impl<E> Default for Batch<E> {
    fn default() -> Self {
        Batch { entries: Vec::new(), size: Bytes(0), first: None }
    }
}

impl<E> Batch<E> {
    /// Takes an entry of this size.
    pub fn add(&mut self, entry: E, size: Bytes, now: UnixMillis) {
        self.entries.push(entry);
        self.size = Bytes(self.size.0 + size.0);
        self.first.get_or_insert(now);
    }

    /// Whether it is time to make a file of it.
    pub fn is_due(&self, now: UnixMillis, fast: bool) -> bool {
        let age = if fast { BATCH_AGE_FAST } else { BATCH_AGE };
        // A line of the future is one from before the clock was set back.
        let old = |first: UnixMillis| now.since(first) >= age || first > now;
        self.size >= BATCH_MAX || self.first.is_some_and(old)
    }

    /// When it will be, if nothing comes. `None`: it is empty.
    pub fn due(&self, fast: bool) -> Option<UnixMillis> {
        self.first.map(|first| first.after(if fast { BATCH_AGE_FAST } else { BATCH_AGE }))
    }

    /// Empties it.
    pub fn take(&mut self) -> Vec<E> {
        std::mem::take(self).entries
    }
}

/// Lets so many lines a second pass, and counts the others.
#[derive(Debug, Clone, Default)]
pub struct Throttle {
    second: u64,
    passed: u32,
    lost: u64,
}

impl Throttle {
    /// Whether one more line may pass now.
    pub fn pass(&mut self, now: UnixMillis) -> bool {
        let second = now.0 / 1000;
        if second != self.second {
            (self.second, self.passed) = (second, 0);
        }
        let pass = self.passed < LINES_PER_SECOND;
        if pass {
            self.passed += 1;
        } else {
            self.lost += 1;
        }
        pass
    }

    /// Lines lost since this was asked last.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }
}

/// A file that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub source: Source,
    /// When it was made; part of the name.
    pub made: UnixMillis,
    /// Its size.
    pub size: Bytes,
    /// It stays on the node: nobody uploads it.
    pub stays: bool,
}

impl File {
    /// The name of a file: `dev.log.<ms>.gz`, `app.<id>.log.<ms>.gz`, and for one that stays
    /// `app.skipTx.<id>.log.<ms>.gz` (EVE) or `dev.skipTx.log.<ms>.gz`.
    pub fn name_of(source: Source, stays: bool, made: UnixMillis) -> String {
        match (source, stays) {
            (Source::Device, false) => format!("dev.log.{}.gz", made.0),
            (Source::Device, true) => format!("dev.skipTx.log.{}.gz", made.0),
            (Source::App(id), false) => format!("app.{id}.log.{}.gz", made.0),
            (Source::App(id), true) => format!("app.skipTx.{id}.log.{}.gz", made.0),
        }
    }

    /// What a name says. `None`: it is no file of ours.
    pub fn parse(name: &str, size: Bytes) -> Option<File> {
        let rest = name.strip_suffix(".gz")?;
        let (front, millis) = rest.rsplit_once(".log.")?;
        let made = UnixMillis(millis.parse().ok()?);
        let (source, stays) = if front == "dev" {
            (Source::Device, false)
        } else if front == "dev.skipTx" {
            (Source::Device, true)
        } else if let Some(id) = front.strip_prefix("app.skipTx.") {
            (Source::App(id.parse().ok()?), true)
        } else {
            (Source::App(front.strip_prefix("app.")?.parse().ok()?), false)
        };
        Some(File { name: name.to_owned(), source, made, size, stays })
    }
}

/// The files to remove so that all fit into `quota`: the oldest, and of them first those that stay
/// on the node anyway.
pub fn over_quota(files: &[File], quota: Bytes) -> Vec<String> {
    let mut total: u64 = files.iter().map(|f| f.size.0).sum();
    let mut order: VecDeque<&File> = {
        let mut all: Vec<&File> = files.iter().collect();
        all.sort_by_key(|f| (!f.stays, f.made));
        all.into()
    };
    let mut gone = Vec::new();
    while total > quota.0
        && let Some(file) = order.pop_front()
    {
        total -= file.size.0;
        gone.push(file.name.clone());
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;

    const APP: &str = "00000000-0000-4000-8000-000000000060";

    fn at(seconds: u64) -> UnixMillis {
        UnixMillis(seconds * 1000)
    }

    #[test]
    fn a_batch_is_due_when_it_is_large_or_old() {
        let mut batch = Batch::default();
        assert!(!batch.is_due(at(1000), true));
        batch.add("a", Bytes(1), at(0));
        assert!(!batch.is_due(at(299), false) && batch.is_due(at(300), false));
        assert!(batch.is_due(at(10), true));
        assert_eq!(batch.due(false), Some(at(300)));
        let mut later = Batch::default();
        later.add("a", Bytes(1), at(1000));
        assert!(later.is_due(at(999), false), "the clock was set back");
        batch.add("b", BATCH_MAX, at(1));
        assert!(batch.is_due(at(1), false));
        assert_eq!(batch.take(), ["a", "b"]);
        assert_eq!(batch.due(false), None);
    }

    #[test]
    fn who_writes_too_fast_loses_lines_and_they_are_counted() {
        let mut throttle = Throttle::default();
        let passed = (0..LINES_PER_SECOND + 5).filter(|_| throttle.pass(at(7))).count();
        assert_eq!(u32::try_from(passed), Ok(LINES_PER_SECOND));
        assert!(throttle.pass(at(8)));
        assert_eq!((throttle.take_lost(), throttle.take_lost()), (5, 0));
    }

    #[test]
    fn the_settings_say_which_lines_are_sent_kept_or_dropped() {
        use model::desired::OneLevel;
        let quiet = OneLevel { said: None, sent: Some(LogLevel::None) };
        let kernel = OneLevel { said: Some(LogLevel::Info), sent: Some(LogLevel::Error) };
        let levels = LogLevels {
            services: OneLevel { said: Some(LogLevel::Debug), sent: Some(LogLevel::Warning) },
            kernel,
            by_service: [("network".to_owned(), quiet)].into(),
        };
        for (service, level, want) in [
            (Some("config"), Level::Notice, Fate::Kept),
            (Some("config"), Level::Warning, Fate::Sent),
            (Some("network"), Level::Critical, Fate::Kept),
            (None, Level::Debug, Fate::Dropped),
            (None, Level::Warning, Fate::Kept),
            (None, Level::Error, Fate::Sent),
        ] {
            assert_eq!(fate(service, level, &levels), want, "{service:?} {level:?}");
        }
        let usual = LogLevels::default();
        assert_eq!(fate(Some("config"), Level::Info, &usual), Fate::Sent);
        assert_eq!(fate(Some("config"), Level::Debug, &usual), Fate::Kept);
        assert_eq!(fate(None, Level::Debug, &usual), Fate::Kept);
    }

    #[test]
    fn names_read_back() {
        let app = Source::App(APP.parse().unwrap());
        let all = [(Source::Device, false), (Source::Device, true), (app, false), (app, true)];
        for (source, stays) in all {
            let name = File::name_of(source, stays, at(5));
            let file = File::parse(&name, Bytes(1)).unwrap();
            assert_eq!((file.source, file.stays, file.made), (source, stays, at(5)), "{name}");
        }
        for bad in ["", "dev.log.x.gz", ".dev.log.5.gz.new", "app.x.log.5.gz", "dev.log.5"] {
            assert_eq!(File::parse(bad, Bytes(1)), None, "{bad}");
        }
    }

    #[test]
    fn over_the_quota_the_oldest_go_and_first_those_that_stay_anyway() {
        let app = Source::App(APP.parse().unwrap());
        let file = |source, stays, made, size| {
            let name = File::name_of(source, stays, at(made));
            File { name, source, made: at(made), size: Bytes(size), stays }
        };
        let files =
            [file(Source::Device, false, 1, 10), file(app, false, 2, 10), file(app, true, 3, 10)];
        let gone = |quota| over_quota(&files, Bytes(quota));
        assert!(gone(30).is_empty());
        assert_eq!(gone(25), [files[2].name.clone()]);
        assert_eq!(gone(15), [files[2].name.clone(), files[0].name.clone()]);
        assert_eq!(gone(0).len(), 3);
    }
}
