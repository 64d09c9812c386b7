//! Reading lines: from the pipes of services and apps, and from the kernel.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use device::log::Throttle;
use device::log::line::{self, Level, Line};
use host::kmsg::{Kmsg, Record};
use model::services::Service;
use model::{AppId, UnixMillis};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::mpsc::Sender;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::files::Files;
use crate::service::stopped;

/// A longer line is cut into pieces.
const LINE_MAX: usize = 8192;
/// Pipes come and go with apps.
const LOOK: Duration = Duration::from_secs(2);
/// How often the place in the kernel's log is written down.
const KEEP_PLACE: Duration = Duration::from_secs(60);

/// Who said something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Speaker {
    Kernel,
    Service(String),
    App(AppId),
}

/// A line that was said.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) speaker: Speaker,
    pub(super) at: UnixMillis,
    pub(super) line: Line,
    /// Lines of the same speaker lost before it.
    pub(super) lost_before: u64,
}

/// Listens to everyone until it is asked to stop, and then until nothing is left to hear.
pub(super) async fn listen(
    dir: PathBuf,
    files: Arc<Files>,
    to: Sender<Said>,
    mut stop: watch::Receiver<bool>,
) {
    // Aborted with us, whatever the reason.
    let mut kernel = AbortOnDrop(tokio::spawn(kernel(files, to.clone(), stop.clone())));
    let mut pipes: BTreeMap<PathBuf, AbortOnDrop> = BTreeMap::new();
    loop {
        let last = *stop.borrow();
        let found = std::fs::read_dir(&dir).into_iter().flatten().flatten();
        let paths: Vec<PathBuf> = found.map(|e| e.path()).collect();
        pipes.retain(|path, task| paths.contains(path) && !task.0.is_finished());
        for path in paths {
            let Some(speaker) = speaker(&path) else { continue };
            if pipes.contains_key(&path) {
                continue;
            }
            // For writing too: so it does not end when the last writer does.
            match pipe::OpenOptions::new().read_write(true).open_receiver(&path) {
                Ok(pipe) => {
                    let task = tokio::spawn(read_pipe(pipe, speaker, to.clone(), stop.clone()));
                    pipes.insert(path, AbortOnDrop(task));
                }
                Err(e) => tracing::warn!("cannot read {}: {e}", path.display()),
            }
        }
        if last {
            break;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = stopped(&mut stop) => {} // one more look: a pipe may have come since the last
        }
    }
    for task in pipes.values_mut().chain([&mut kernel]) {
        let _ = (&mut task.0).await; // one that panicked has ended too
    }
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Whose pipe it is; ours is read too: what we say is logged like all else.
fn speaker(path: &Path) -> Option<Speaker> {
    let name = path.file_name()?.to_str()?;
    match name.strip_prefix("app.") {
        Some(id) => id.parse().ok().map(Speaker::App),
        None => Service::from_name(name).map(|s| Speaker::Service(s.name().to_owned())),
    }
}

/// Reads until it is asked to stop and the pipe is empty.
async fn read_pipe(
    mut pipe: pipe::Receiver,
    speaker: Speaker,
    to: Sender<Said>,
    mut stop: watch::Receiver<bool>,
) {
    let mut lines = Lines::default();
    let mut throttle = Throttle::default();
    let mut buffer = [0; 4096];
    let mut open = true;
    while open {
        let read = tokio::select! {
            read = pipe.read(&mut buffer) => read,
            () = stopped(&mut stop) => Err(io::ErrorKind::WouldBlock.into()),
        };
        let read = match read {
            // We were asked to stop. The kernel knows better than the runtime if there is more.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                rustix::io::read(&pipe, &mut buffer).map_err(io::Error::from)
            }
            read => read,
        };
        let came = match read {
            Ok(got) if got > 0 => lines.push(&buffer[..got]),
            ended => {
                if let Err(e) = ended.as_ref()
                    && e.kind() != io::ErrorKind::WouldBlock
                {
                    tracing::warn!("cannot read the pipe of {speaker:?}: {e}");
                }
                open = false;
                lines.rest()
            }
        };
        for bytes in came {
            let at = host::clock::now();
            if !throttle.pass(at) {
                continue;
            }
            let line = match speaker {
                Speaker::App(_) => line::app(&bytes),
                _ => line::service(&bytes),
            };
            let lost_before = throttle.take_lost();
            if lost_before > 0 {
                tracing::warn!(lost_before, "{speaker:?} says more than is kept");
            }
            let said = Said { speaker: speaker.clone(), at, line, lost_before };
            if to.send(said).await.is_err() {
                return;
            }
        }
    }
}

/// Bytes cut into lines.
#[derive(Debug, Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// Whole lines among what came; what is longer than [`LINE_MAX`] in pieces.
    fn push(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut whole = Vec::new();
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            self.rest.extend_from_slice(piece);
            if self.rest.last() == Some(&b'\n') || self.rest.len() >= LINE_MAX {
                let mut line = std::mem::take(&mut self.rest);
                while line.last().is_some_and(|b| matches!(b, b'\n' | b'\r')) {
                    line.pop();
                }
                whole.push(line);
            }
        }
        whole
    }

    /// The line that nobody will finish, if there is one.
    fn rest(&mut self) -> Vec<Vec<u8>> {
        let rest = std::mem::take(&mut self.rest);
        if rest.is_empty() { Vec::new() } else { vec![rest] }
    }
}

/// The kernel's records, from where we were in this boot.
async fn kernel(files: Arc<Files>, to: Sender<Said>, mut stop: watch::Receiver<bool>) {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let boot = boot.trim().to_owned();
    let mut kmsg = match Kmsg::open() {
        Ok(kmsg) => kmsg,
        Err(e) => return tracing::warn!("the kernel's log is not read: {e}"),
    };
    let known = files.kernel_place(&boot);
    let mut last = known;
    let mut saved = tokio::time::Instant::now();
    let mut lost = 0;
    loop {
        let next = tokio::select! {
            biased; // what is there is taken before we stop
            next = kmsg.next() => next,
            () = stopped(&mut stop) => break,
        };
        let record = match next {
            Ok(Record::Text(record)) => record,
            Ok(Record::Lost) => {
                lost += 1;
                continue;
            }
            Err(e) => return tracing::warn!("the kernel's log ended: {e}"),
        };
        let number = number_of(record);
        if number.is_none() || number <= known {
            continue;
        }
        last = number.or(last);
        if let Some((line, micros)) = line::kernel(record)
            && line.level > Level::Debug
        {
            let at = line::kernel_time(micros, host::clock::now(), host::clock::since_boot());
            let lost_before = std::mem::take(&mut lost);
            let said = Said { speaker: Speaker::Kernel, at, line, lost_before };
            if to.send(said).await.is_err() {
                return;
            }
        }
        if saved.elapsed() >= KEEP_PLACE {
            saved = tokio::time::Instant::now();
            keep_place(&files, &boot, last);
        }
    }
    keep_place(&files, &boot, last);
}

fn keep_place(files: &Files, boot: &str, last: Option<u64>) {
    if let Some(last) = last
        && let Err(e) = files.save_kernel_place(boot, last)
    {
        tracing::warn!("{}", model::chain(&e));
    }
}

/// The second field of a record.
fn number_of(record: &[u8]) -> Option<u64> {
    let head = record.split(|b| *b == b';').next()?;
    std::str::from_utf8(head).ok()?.split(',').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together_and_long_ones_cut() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(b"one\ntw"), [b"one".to_vec()]);
        assert_eq!(lines.push(b"o\r\n\n"), [b"two".to_vec(), Vec::new()]);
        let long = vec![b'x'; LINE_MAX + 10];
        let cut: usize = long.chunks(4096).flat_map(|c| lines.push(c)).map(|l| l.len()).sum();
        assert!(cut >= LINE_MAX && lines.rest.len() < LINE_MAX);
    }

    #[test]
    fn pipes_tell_whose_they_are() {
        let id = "00000000-0000-4000-8000-000000000060";
        for (name, want) in [
            ("config", Some(Speaker::Service("config".into()))),
            (&format!("app.{id}"), Some(Speaker::App(id.parse().unwrap()))),
            ("app.x", None),
            ("stranger", None),
        ] {
            assert_eq!(speaker(&Path::new("/run/eve/log").join(name)), want, "{name}");
        }
    }

    #[tokio::test]
    async fn what_an_app_writes_arrives() {
        let dir = tempfile::tempdir().unwrap();
        let files = Arc::new(Files::open(dir.path().join("files")).unwrap());
        let logs = dir.path().join("log");
        std::fs::create_dir(&logs).unwrap();
        let path = logs.join("app.00000000-0000-4000-8000-000000000060");
        let mut pipe = host::crun::output_pipe(&path, rustix::process::getuid().as_raw()).unwrap();
        std::io::Write::write_all(&mut pipe, b"hello\nworld\n").unwrap();
        let (to, mut said) = tokio::sync::mpsc::channel(100);
        let (stop, stopping) = watch::channel(false);
        let _listening = AbortOnDrop(tokio::spawn(listen(logs, files, to, stopping)));
        assert_eq!(next_of_an_app(&mut said).await.as_deref(), Some("hello"));
        assert_eq!(next_of_an_app(&mut said).await.as_deref(), Some("world"));

        // Asked to stop, it takes what is in the pipe at that moment, and ends.
        let much: String = (0..500).map(|n| format!("line {n}\n")).collect();
        std::io::Write::write_all(&mut pipe, (much + "unfinished").as_bytes()).unwrap();
        stop.send_replace(true);
        for n in 0..500 {
            assert_eq!(next_of_an_app(&mut said).await, Some(format!("line {n}")));
        }
        assert_eq!(next_of_an_app(&mut said).await.as_deref(), Some("unfinished"));
        assert_eq!(next_of_an_app(&mut said).await, None);
    }

    /// What an app said next; `None` after the end.
    async fn next_of_an_app(said: &mut tokio::sync::mpsc::Receiver<Said>) -> Option<String> {
        loop {
            let wait = Duration::from_secs(10);
            let one =
                tokio::time::timeout(wait, said.recv()).await.expect("someone speaks or ends")?;
            if matches!(one.speaker, Speaker::App(_)) {
                return Some(one.line.text);
            }
        }
    }
}
