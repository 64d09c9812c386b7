//! What the guest says on its serial port, line by line, with the time at which it was seen.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// QEMU appends to the file; this is how exact the times are.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// A guest that says more than this before its next look is cut: no boot log is so long.
const KEEP_LINES: usize = 50_000;

/// A longer line is broken.
const LINE_MAX: usize = 4096;

/// What a guest says when it cannot go on. `(what to look for, what it means)`.
const FAILURES: [(&str, &str); 7] = [
    ("is corrupt: blocks of", "the root file system is corrupt"),
    ("is corrupted", "dm-verity met a corrupt block"),
    ("cannot use the root file system", "the root file system cannot be used"),
    ("the node stops here", "a service found the node unfit"),
    ("Kernel panic - not syncing", "the kernel panicked"),
    ("BdsDxe: No bootable option", "the firmware found nothing to boot"),
    ("Unable to mount root fs", "the kernel found no root file system"),
];

/// A line and when it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Since the log was opened.
    pub at: Duration,
    /// Without control characters and colours.
    pub text: String,
}

/// Follows a serial log file until it is dropped.
#[derive(Debug)]
pub struct SerialLog {
    shared: Arc<Shared>,
    path: PathBuf,
}

#[derive(Debug)]
struct Shared {
    seen: Mutex<Seen>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct Seen {
    lines: Vec<Line>,
    closed: bool,
}

impl SerialLog {
    /// Follows `path`, which need not exist yet, from its present end. Times count from now.
    pub fn follow(path: &Path) -> SerialLog {
        let shared = Arc::new(Shared { seen: Mutex::default(), news: Condvar::new() });
        let from = std::fs::metadata(path).map_or(0, |m| m.len());
        let (log, theirs) = (path.to_owned(), Arc::clone(&shared));
        let started = Instant::now();
        std::thread::spawn(move || read_on(&log, from, started, &theirs));
        SerialLog { shared, path: path.to_owned() }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every line so far.
    pub fn lines(&self) -> Vec<Line> {
        self.shared.seen.lock().map(|seen| seen.lines.clone()).unwrap_or_default()
    }

    /// The first line that contains `what`.
    pub fn find(&self, what: &str) -> Option<Line> {
        let seen = self.shared.seen.lock().ok()?;
        seen.lines.iter().find(|l| l.text.contains(what)).cloned()
    }

    /// Waits for a line that contains `what`; `None` after `limit`.
    pub fn wait_for(&self, what: &str, limit: Duration) -> Option<Line> {
        let until = Instant::now() + limit;
        let mut seen = self.shared.seen.lock().ok()?;
        let mut looked = 0;
        loop {
            if let Some(line) = seen.lines[looked..].iter().find(|l| l.text.contains(what)) {
                return Some(line.clone());
            }
            looked = seen.lines.len();
            let left = until.checked_duration_since(Instant::now())?;
            seen = self.shared.news.wait_timeout(seen, left).ok()?.0;
        }
    }

    /// The first sign that the guest cannot go on, and what it means.
    pub fn failure(&self) -> Option<(Line, &'static str)> {
        let seen = self.shared.seen.lock().ok()?;
        seen.lines.iter().find_map(|line| Some((line.clone(), failure_in(&line.text)?)))
    }

    /// The last `count` lines.
    pub fn tail(&self, count: usize) -> Vec<Line> {
        let lines = self.lines();
        lines[lines.len().saturating_sub(count)..].to_vec()
    }
}

impl Drop for SerialLog {
    fn drop(&mut self) {
        if let Ok(mut seen) = self.shared.seen.lock() {
            seen.closed = true;
        }
    }
}

fn failure_in(line: &str) -> Option<&'static str> {
    FAILURES.iter().find(|(sign, _)| line.contains(sign)).map(|(_, meaning)| *meaning)
}

fn read_on(path: &Path, from: u64, started: Instant, shared: &Shared) {
    use std::io::{Seek, SeekFrom};
    let mut file: Option<File> = None;
    let mut split = Splitter::default();
    loop {
        if file.is_none() {
            file = File::open(path).ok();
            // A file that cannot be positioned is read from its start: lines too many, none lost.
            let _ = file.as_mut().map(|f| f.seek(SeekFrom::Start(from)));
        }
        let mut chunk = Vec::new();
        if let Some(file) = &mut file {
            // An error now may be none at the next look; the file stays.
            let _ = file.take(1 << 20).read_to_end(&mut chunk);
        }
        let at = started.elapsed();
        let fresh = split.push(&chunk).into_iter().map(|text| Line { at, text });
        let Ok(mut seen) = shared.seen.lock() else { return };
        if seen.closed {
            return;
        }
        let room = KEEP_LINES.saturating_sub(seen.lines.len());
        let before = seen.lines.len();
        seen.lines.extend(fresh.take(room));
        if seen.lines.len() > before {
            shared.news.notify_all();
        }
        drop(seen);
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Cuts bytes into lines of text.
#[derive(Debug, Default)]
struct Splitter {
    rest: Vec<u8>,
}

impl Splitter {
    fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for &byte in bytes {
            if byte == b'\n' || self.rest.len() >= LINE_MAX {
                lines.push(plain(&std::mem::take(&mut self.rest)));
            }
            if byte != b'\n' {
                self.rest.push(byte);
            }
        }
        lines.retain(|line| !line.is_empty());
        lines
    }
}

/// Text without the escape sequences with which firmware paints.
fn plain(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' && chars.peek() == Some(&'[') {
            chars.next();
            // Parameters, then one letter (ECMA-48, control sequences).
            while chars.next().is_some_and(|c| !('\u{40}'..='\u{7e}').contains(&c)) {}
        } else if !c.is_control() {
            plain.push(c);
        }
    }
    plain.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn lines_are_cut_anywhere_and_lose_their_colours() {
        let mut split = Splitter::default();
        assert!(split.push(b"\x1b[2J\x1b[01;01HBds").is_empty());
        assert_eq!(split.push(b"Dxe: x\r\n\r\n[ 0.1] a"), ["BdsDxe: x"]);
        assert_eq!(split.push(b"\xff\n"), ["[ 0.1] a\u{fffd}"]);
    }

    #[test]
    fn a_line_without_end_is_broken() {
        let lines = Splitter::default().push(&vec![b'x'; 3 * LINE_MAX]);
        assert!(lines.iter().all(|l| l.len() == LINE_MAX) && lines.len() == 2);
    }

    #[test]
    fn a_waiter_sees_the_line_and_its_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("serial.log");
        std::fs::File::create(&path).unwrap().write_all(b"eve-init: old\n").unwrap();
        let log = SerialLog::follow(&path);
        let mut file = File::options().append(true).open(&path).unwrap();
        let writer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            file.write_all(b"one\neve-init: services\n").unwrap();
        });
        let line = log.wait_for("eve-init:", Duration::from_secs(5)).unwrap();
        writer.join().unwrap();
        assert_eq!(line.text, "eve-init: services");
        assert!(line.at >= Duration::from_millis(90), "{:?}", line.at);
        assert!(log.wait_for("never", Duration::from_millis(50)).is_none());
        assert_eq!(log.tail(1)[0].text, "eve-init: services");
    }

    #[test]
    fn failures_are_recognised() {
        let meaning = failure_in("[    3.1] Kernel panic - not syncing: VFS: x");
        assert_eq!(meaning, Some("the kernel panicked"));
        for well in ["eve-init: root file system of IMGA on /dev/vda2 checked", "BdsDxe: starting"]
        {
            assert_eq!(failure_in(well), None);
        }
    }
}
