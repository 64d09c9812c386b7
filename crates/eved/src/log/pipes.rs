//! Reading lines: from the pipes of services and apps, and from the kernel.

use std::collections::BTreeMap;
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
use tokio::task::JoinHandle;

use super::files::Files;

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

/// Listens to everyone until it is aborted.
pub(super) async fn listen(dir: PathBuf, files: Arc<Files>, to: Sender<Said>) {
    let kernel = tokio::spawn(kernel(files, to.clone()));
    let mut pipes: BTreeMap<PathBuf, JoinHandle<()>> = BTreeMap::new();
    // Aborted with us, whatever the reason.
    let _kernel = AbortOnDrop(kernel);
    loop {
        let found = std::fs::read_dir(&dir).into_iter().flatten().flatten();
        let paths: Vec<PathBuf> = found.map(|e| e.path()).collect();
        pipes.retain(|path, task| {
            let stays = paths.contains(path) && !task.is_finished();
            if !stays {
                task.abort();
            }
            stays
        });
        for path in paths {
            let Some(speaker) = speaker(&path) else { continue };
            if pipes.contains_key(&path) {
                continue;
            }
            // For writing too: so it does not end when the last writer does.
            match pipe::OpenOptions::new().read_write(true).open_receiver(&path) {
                Ok(pipe) => {
                    pipes.insert(path, tokio::spawn(read_pipe(pipe, speaker, to.clone())));
                }
                Err(e) => tracing::warn!("cannot read {}: {e}", path.display()),
            }
        }
        tokio::time::sleep(LOOK).await;
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

async fn read_pipe(mut pipe: pipe::Receiver, speaker: Speaker, to: Sender<Said>) {
    let mut lines = Lines::default();
    let mut throttle = Throttle::default();
    let mut buffer = [0; 4096];
    loop {
        let got = match pipe.read(&mut buffer).await {
            Ok(0) => return,
            Ok(got) => got,
            Err(e) => {
                tracing::warn!("cannot read the pipe of {speaker:?}: {e}");
                return;
            }
        };
        for bytes in lines.push(&buffer[..got]) {
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
}

/// The kernel's records, from where we were in this boot.
async fn kernel(files: Arc<Files>, to: Sender<Said>) {
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
        let record = match kmsg.next().await {
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
        if saved.elapsed() >= KEEP_PLACE
            && let Some(last) = last
        {
            saved = tokio::time::Instant::now();
            if let Err(e) = files.save_kernel_place(&boot, last) {
                tracing::warn!("{}", model::chain(&e));
            }
        }
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
        let _listening = AbortOnDrop(tokio::spawn(listen(logs, files, to)));
        let mut heard = Vec::new();
        while heard.len() < 2 {
            let wait = Duration::from_secs(10);
            let one = tokio::time::timeout(wait, said.recv()).await.unwrap().unwrap();
            if matches!(one.speaker, Speaker::App(_)) {
                heard.push(one.line.text);
            }
        }
        assert_eq!(heard, ["hello", "world"]);
    }
}
