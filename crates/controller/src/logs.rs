//! Log lines, read from the files in which nodes sent them.
//!
//! A file is kept as it came: small ones in their row, others in the object store. Its lines are
//! unpacked when somebody asks. A line's id is its file's id, and behind that its place in it, so that
//! ids grow as lines come.

use uuid::Uuid;

use crate::db::{Kept, LogFilter, LogRow, NewLog, Series};
use crate::images::{ImageError, Images};
use crate::reports;

/// The bits of a line's id that tell its place in its file. A file of 16 MiB has fewer lines.
const PLACE_BITS: u32 = 20;
/// Files that one search looks at.
const FILES_MAX: usize = 500;
/// Files whose rows are read at once.
const ROWS: u32 = 50;

/// Lines that were found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Oldest first.
    pub(crate) lines: Vec<LogRow>,
    /// Whether all there is was looked at, as far as lines were wanted.
    pub(crate) whole: bool,
}

/// The newest lines of a filter that hold `words` (letter case does not count; empty: all).
pub(crate) async fn lines(
    images: &Images,
    filter: &LogFilter,
    words: &str,
) -> Result<Found, ImageError> {
    let words = words.trim().to_lowercase();
    let limit = usize::try_from(filter.limit).unwrap_or(usize::MAX);
    // Who wants all lines finds some in every file; who searches may find none in any.
    let most = if words.is_empty() { limit.max(FILES_MAX) } else { FILES_MAX };
    let (mut newest, mut before, mut looked) = (Vec::new(), None, 0);
    'files: while newest.len() < limit {
        let files = images.db.log_files(filter, filter.after >> PLACE_BITS, before, ROWS).await?;
        if files.is_empty() {
            break;
        }
        for file in files {
            if looked == most {
                newest.reverse();
                return Ok(Found { lines: newest, whole: false });
            }
            looked += 1;
            before = Some(file.id);
            newest.extend(of_file(images, file, filter.after, &words).await?);
            if newest.len() >= limit {
                break 'files;
            }
            // Unpacking is work of milliseconds; others have theirs.
            tokio::task::yield_now().await;
        }
    }
    newest.truncate(limit);
    let rest = u32::try_from(limit.saturating_sub(newest.len())).unwrap_or(u32::MAX);
    newest.reverse();
    // Lines that older versions of this controller kept one by one.
    let filter = LogFilter { limit: rest, ..filter.clone() };
    let mut lines = match (rest, words.as_str()) {
        (0, _) => Vec::new(),
        (_, "") => images.db.logs(&filter).await?,
        (_, words) => images.db.logs_with(&filter, words).await?,
    };
    lines.append(&mut newest);
    Ok(Found { lines, whole: true })
}

/// Lines of a node (`app` empty) or of an app there, oldest first: those of the file that came after
/// the file `after`, and its id. `None`: none came yet.
pub(crate) async fn after(
    images: &Images,
    device: Uuid,
    app: &str,
    after: u64,
) -> Result<Option<(u64, Vec<NewLog>)>, ImageError> {
    let files = images.db.said_after(device, Series::Logs(app), after, 1).await?;
    let Some(file) = files.into_iter().next() else { return Ok(None) };
    Ok(Some((file.id, lines_of(images, file).await?)))
}

/// The wanted lines of a file, newest first.
async fn of_file(
    images: &Images,
    file: Kept,
    after: u64,
    words: &str,
) -> Result<Vec<LogRow>, ImageError> {
    let id = file.id;
    let row = |(at, line): (usize, NewLog)| LogRow {
        id: (id << PLACE_BITS) | at as u64,
        at: line.at,
        severity: line.severity,
        source: line.source,
        content: line.content,
    };
    let wanted = |row: &LogRow| {
        let holds = |text: &str| text.to_lowercase().contains(words);
        row.id > after && (words.is_empty() || holds(&row.content) || holds(&row.source))
    };
    let lines = lines_of(images, file).await?.into_iter().enumerate();
    let mut rows: Vec<LogRow> = lines.map(row).filter(wanted).collect();
    rows.reverse();
    Ok(rows)
}

/// The lines of a file; none if it is gone.
async fn lines_of(images: &Images, file: Kept) -> Result<Vec<NewLog>, ImageError> {
    let id = file.id;
    let Some(raw) = images.laid(file, api::limits::NEWLOGS.0).await? else { return Ok(Vec::new()) };
    // It could be read when it came.
    Ok(reports::read_logs(&raw).unwrap_or_else(|why| {
        tracing::error!(file = id, "a log file that was kept cannot be read: {why}");
        Vec::new()
    }))
}
