//! What is counted of lines and files. One part is counted where lines are taken, the other where
//! files are sent; [`all`] puts them together.

use std::time::Duration;

use model::reported::{LogCounts, LogFiles};
use model::{Bytes, UnixMillis};

use super::upload::Outcome;
use super::{File, Source};

/// So many who say something are told apart until the ten who say most are told.
const SPEAKERS_MAX: usize = 256;
/// So many of them are told.
const TOLD: usize = 10;

fn of(counts: &mut LogCounts, source: Source) -> &mut LogFiles {
    match source {
        Source::Device => &mut counts.device,
        Source::App(_) => &mut counts.apps,
    }
}

fn add(sum: &mut Bytes, more: Bytes) {
    *sum = Bytes(sum.0.saturating_add(more.0));
}

/// A line came from `speaker`.
pub fn line(counts: &mut LogCounts, source: Source, speaker: &str, size: Bytes) {
    let own = of(counts, source);
    own.lines = own.lines.saturating_add(1);
    add(&mut own.line_bytes, size);
    let by = &mut counts.by_source;
    if by.len() < SPEAKERS_MAX || by.contains_key(speaker) {
        *by.entry(speaker.to_owned()).or_default() += 1;
    }
}

/// A file was made.
pub fn made(counts: &mut LogCounts, source: Source, size: Bytes, now: UnixMillis) {
    counts.largest = counts.largest.max(size);
    let own = of(counts, source);
    own.made = own.made.saturating_add(1);
    add(&mut own.made_bytes, size);
    own.last_made = Some(now);
}

/// A file was sent, or not; `status` is that of the answer, if there was one.
pub fn sent(
    counts: &mut LogCounts,
    file: &File,
    (outcome, status): (Outcome, Option<u16>),
    spent: Duration,
    now: UnixMillis,
) {
    counts.refused += u64::from(status.is_some_and(|s| (400..500).contains(&s)));
    counts.too_many += u64::from(status == Some(429));
    if outcome != Outcome::Delivered {
        counts.failing_since.get_or_insert(now);
        let own = of(counts, file.source);
        own.retried = own.retried.saturating_add(1);
        return;
    }
    let spent = u64::try_from(spent.as_millis()).unwrap_or(u64::MAX);
    let first = counts.device.sent == 0 && counts.apps.sent == 0;
    counts.least_ms = if first { spent } else { counts.least_ms.min(spent) };
    counts.most_ms = counts.most_ms.max(spent);
    counts.all_ms = counts.all_ms.saturating_add(spent);
    counts.last_ms = spent;
    counts.failing_since = None;
    add(&mut counts.sent_bytes, file.size);
    let own = of(counts, file.source);
    own.sent = own.sent.saturating_add(1);
    own.last_sent = Some(now);
}

/// Both parts, and the files that are here.
pub fn all(taken: &LogCounts, sending: &LogCounts, files: &[File]) -> LogCounts {
    let kind = |taken: &LogFiles, sending: &LogFiles, device: bool| {
        let own = |stays| {
            let own = files.iter().filter(|f| (f.source == Source::Device) == device);
            u64::try_from(own.filter(|f| f.stays == stays).count()).unwrap_or(u64::MAX)
        };
        LogFiles {
            sent: sending.sent,
            last_sent: sending.last_sent,
            retried: sending.retried,
            waiting: own(false),
            kept: own(true),
            ..*taken
        }
    };
    let mut most: Vec<(&String, &u64)> = taken.by_source.iter().collect();
    most.sort_by_key(|(name, lines)| (std::cmp::Reverse(**lines), *name));
    let device = files.iter().filter(|f| f.source == Source::Device);
    LogCounts {
        device: kind(&taken.device, &sending.device, true),
        apps: kind(&taken.apps, &sending.apps, false),
        by_source: most.into_iter().take(TOLD).map(|(n, l)| (n.clone(), *l)).collect(),
        kept_bytes: Bytes(files.iter().map(|f| f.size.0).sum()),
        oldest: device.map(|f| f.made).min(),
        largest: taken.largest,
        removed: taken.removed,
        ..sending.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const APP: &str = "00000000-0000-4000-8000-000000000060";

    fn file(source: Source, stays: bool, made: u64, size: u64) -> File {
        let made = UnixMillis(made);
        let name = File::name_of(source, stays, made);
        File { name, source, made, size: Bytes(size), stays }
    }

    #[test]
    fn lines_and_files_of_the_node_and_of_apps_are_counted_apart() {
        let app = Source::App(APP.parse().unwrap());
        let mut taken = LogCounts::default();
        for n in 0..30 {
            line(&mut taken, Source::Device, &format!("s{}", n % 12), Bytes(10));
        }
        line(&mut taken, app, "a", Bytes(5));
        made(&mut taken, Source::Device, Bytes(100), UnixMillis(7));
        let mut sending = LogCounts::default();
        let (mine, theirs) = (file(Source::Device, false, 1, 100), file(app, false, 2, 50));
        let s = Duration::from_secs;
        sent(&mut sending, &mine, (Outcome::Busy, Some(429)), s(1), UnixMillis(10));
        sent(&mut sending, &mine, (Outcome::Unavailable, None), s(1), UnixMillis(11));
        assert_eq!(sending.failing_since, Some(UnixMillis(10)), "since the first of them");
        sent(&mut sending, &mine, (Outcome::Delivered, Some(201)), s(2), UnixMillis(12));
        sent(&mut sending, &theirs, (Outcome::Delivered, Some(201)), s(4), UnixMillis(13));
        let here = [file(Source::Device, true, 3, 9), file(app, false, 2, 50)];
        let all = all(&taken, &sending, &here);
        assert_eq!((all.device.lines, all.device.line_bytes, all.apps.lines), (30, Bytes(300), 1));
        assert_eq!(
            (all.device.made, all.device.made_bytes, all.largest),
            (1, Bytes(100), Bytes(100))
        );
        assert_eq!((all.device.retried, all.device.sent, all.apps.sent), (2, 1, 1));
        assert_eq!((all.device.waiting, all.device.kept, all.apps.waiting), (0, 1, 1));
        assert_eq!((all.refused, all.too_many, all.failing_since), (1, 1, None));
        let times = (all.least_ms, all.most_ms, all.all_ms, all.last_ms);
        assert_eq!(times, (2000, 4000, 6000, 4000));
        assert_eq!((all.sent_bytes, all.kept_bytes), (Bytes(150), Bytes(59)));
        assert_eq!((all.oldest, all.by_source.len()), (Some(UnixMillis(3)), 10));
        assert_eq!(all.by_source["s0"], 3);
    }
}
