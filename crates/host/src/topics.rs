//! Topics on the file system: a folder of JSON files, one writer, any reader.
//!
//! See `model::topic` for the layout and `decisions/0001-topics-are-files.md` for why. Limits: a row
//! is at most [`ROW_MAX`]; a reader leaves out what it cannot read and says so in the log.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use model::topic::{Key, Topic};
use model::{Bytes, Diagnose, Diagnosis, Who};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;

/// A row may not be larger: an app with its rules takes a few KiB.
pub const ROW_MAX: Bytes = Bytes::mib(1);

/// Says that the owner has published its first full table.
const COMPLETE: &str = ".complete";

/// Where topics live; tests use a folder of their own.
#[derive(Debug, Clone)]
pub struct Roots {
    /// `/run/eve`
    pub run: PathBuf,
    /// `/persist/status`
    pub persist: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Roots { run: "/run/eve".into(), persist: "/persist/status".into() }
    }
}

impl Roots {
    fn dir<T: Topic>(&self) -> PathBuf {
        if T::PERSISTENT { self.persist.join(T::NAME) } else { self.run.join(T::NAME) }
    }
}

/// A whole table.
pub type Table<T> = BTreeMap<<T as Topic>::Key, <T as Topic>::Value>;

/// Why a topic could not be used.
#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    /// The folder cannot be used.
    #[error("cannot use topic {topic} at {path}")]
    Dir {
        /// Which.
        topic: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A row could not be written.
    #[error("cannot write row {key} of topic {topic}")]
    Write {
        /// Which topic.
        topic: &'static str,
        /// Which row.
        key: String,
        /// Why.
        source: store::SaveError,
    },
    /// A row has no JSON.
    #[error("cannot make JSON of row {key} of topic {topic}")]
    Row {
        /// Which topic.
        topic: &'static str,
        /// Which row.
        key: String,
        /// Why.
        source: serde_json::Error,
    },
}

impl Diagnose for TopicError {
    fn diagnose(&self) -> Diagnosis {
        let cause = match self {
            Self::Row { .. } => return Diagnosis::of(Who::Developer, "report this"),
            Self::Dir { source, .. } => source,
            Self::Write { source, .. } => source.io(),
        };
        if cause.kind() == io::ErrorKind::StorageFull {
            return Diagnosis::of(Who::Operator, "free space on the node's disk, or give it more");
        }
        Diagnosis::of(Who::Hardware, "check the node's disk")
    }
}

/// The right to write a topic: made once, by its owner.
#[derive(Debug)]
pub struct Writer<T: Topic> {
    dir: PathBuf,
    written: Table<T>,
    complete: bool,
}

impl<T: Topic> Writer<T> {
    /// Opens the topic and takes over the rows an earlier run left.
    pub fn open(roots: &Roots) -> Result<Writer<T>, TopicError> {
        let dir = roots.dir::<T>();
        let ready =
            fs::create_dir_all(&dir).and_then(|()| match fs::remove_file(dir.join(COMPLETE)) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other,
            });
        ready.map_err(|source| TopicError::Dir { topic: T::NAME, path: dir.clone(), source })?;
        let written = read_table::<T>(&dir);
        Ok(Writer { dir, written, complete: false })
    }

    /// The rows as they are.
    pub fn table(&self) -> &Table<T> {
        &self.written
    }

    /// Makes the topic hold exactly `table`. Rows that did not change are not touched.
    pub fn publish(&mut self, table: Table<T>) -> Result<(), TopicError> {
        let gone: Vec<T::Key> =
            self.written.keys().filter(|k| !table.contains_key(k)).cloned().collect();
        for key in gone {
            self.remove(&key)?;
        }
        for (key, value) in table {
            self.put(key, value)?;
        }
        self.finish()
    }

    /// Writes one row.
    pub fn put(&mut self, key: T::Key, value: T::Value) -> Result<(), TopicError> {
        if self.written.get(&key) == Some(&value) {
            return Ok(());
        }
        let body = serde_json::to_vec_pretty(&value).map_err(|source| TopicError::Row {
            topic: T::NAME,
            key: key.file_name(),
            source,
        })?;
        let name = format!("{}.json", key.file_name());
        store::save(&self.dir, &name, &body).map_err(|source| TopicError::Write {
            topic: T::NAME,
            key: key.file_name(),
            source,
        })?;
        self.written.insert(key, value);
        Ok(())
    }

    /// Removes one row.
    pub fn remove(&mut self, key: &T::Key) -> Result<(), TopicError> {
        let name = format!("{}.json", key.file_name());
        store::remove(&self.dir, &name).map_err(|source| TopicError::Write {
            topic: T::NAME,
            key: key.file_name(),
            source,
        })?;
        self.written.remove(key);
        Ok(())
    }

    /// Says that the first full table is out, also if it is empty.
    pub fn finish(&mut self) -> Result<(), TopicError> {
        if !self.complete {
            store::save(&self.dir, COMPLETE, &[]).map_err(|source| TopicError::Write {
                topic: T::NAME,
                key: COMPLETE.to_owned(),
                source,
            })?;
            self.complete = true;
        }
        Ok(())
    }
}

/// A view of a topic.
#[derive(Debug)]
pub struct Reader<T: Topic> {
    dir: PathBuf,
    topic: std::marker::PhantomData<fn() -> T>,
}

impl<T: Topic> Clone for Reader<T> {
    fn clone(&self) -> Self {
        Reader { dir: self.dir.clone(), topic: std::marker::PhantomData }
    }
}

impl<T: Topic> Reader<T> {
    /// A view of the topic, whether or not its owner has started.
    pub fn open(roots: &Roots) -> Reader<T> {
        Reader { dir: roots.dir::<T>(), topic: std::marker::PhantomData }
    }

    /// The whole table, now.
    pub fn read(&self) -> Table<T> {
        read_table::<T>(&self.dir)
    }

    /// One row, now.
    pub fn get(&self, key: &T::Key) -> Option<T::Value> {
        read_row::<T>(&self.dir.join(format!("{}.json", key.file_name())))
    }

    /// Whether the owner has published its first full table since it started. Until then a missing
    /// row means nothing.
    pub fn is_complete(&self) -> bool {
        self.dir.join(COMPLETE).exists()
    }

    /// The folder, to be given to [`Watch`].
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

fn read_table<T: Topic>(dir: &Path) -> Table<T> {
    let names = fs::read_dir(dir).into_iter().flatten().flatten();
    names
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let key = T::Key::from_file_name(name.strip_suffix(".json")?)?;
            Some((key, read_row::<T>(&entry.path())?))
        })
        .collect()
}

fn read_row<T: Topic>(path: &Path) -> Option<T::Value> {
    let told = |why: &dyn std::fmt::Display| {
        tracing::warn!(topic = T::NAME, row = %path.display(), "row left out: {why}");
    };
    let body = match store::read_bounded(path, ROW_MAX) {
        Ok(body) => body,
        // The writer took it back between two looks.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return None,
        Err(e) => {
            told(&e);
            return None;
        }
    };
    serde_json::from_slice(&body).inspect_err(|e| told(e)).ok()
}

/// Why changes of topics cannot be waited for.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The kernel gives us no watch.
    #[error("cannot start to watch topics")]
    Start(#[source] io::Error),
    /// A topic's folder cannot be watched.
    #[error("cannot watch {path}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Waiting failed.
    #[error("cannot wait for changes of topics")]
    Wait(#[source] io::Error),
}

/// Wakes up when any of some topics changes. It does not say which: read what you need.
#[derive(Debug)]
pub struct Watch {
    events: AsyncFd<std::os::fd::OwnedFd>,
}

impl Watch {
    /// Watches these folders, making those that are not there yet where that is allowed.
    pub fn new(dirs: &[&Path]) -> Result<Watch, WatchError> {
        let start =
            || inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC);
        let fd = start().map_err(|e| WatchError::Start(e.into()))?;
        for dir in dirs {
            let made = if dir.exists() { Ok(()) } else { fs::create_dir_all(dir) };
            let what = inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::DELETE;
            made.and_then(|()| Ok(inotify::add_watch(&fd, *dir, what)?))
                .map_err(|source| WatchError::Folder { path: dir.to_path_buf(), source })?;
        }
        // SAFETY: `fd` is an OwnedFd: it stays open as long as the AsyncFd that holds it.
        #[expect(unsafe_code, reason = "tokio's registration asks for it")]
        let events = unsafe { AsyncFd::register(fd) }.map_err(|e| WatchError::Start(e.into()))?;
        Ok(Watch { events })
    }

    /// Waits for a change. Changes since the last call count; several are one.
    pub async fn changed(&self) -> Result<(), WatchError> {
        self.emptied().await.map_err(WatchError::Wait)
    }

    async fn emptied(&self) -> io::Result<()> {
        let mut ready = self.events.readable().await?;
        let mut buffer = [0_u8; 4096];
        let fd = self.events.get_ref();
        // Emptied whole: one wake-up for a burst.
        while more(fd)? && rustix::io::read(fd, &mut buffer)? > 0 {}
        ready.clear_ready();
        Ok(())
    }
}

fn more(fd: &std::os::fd::OwnedFd) -> io::Result<bool> {
    let mut polled = [PollFd::new(fd, PollFlags::IN)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    Ok(rustix::event::poll(&mut polled, Some(&now))? > 0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use model::desired::Power;
    use model::topic::{DesiredPower, Only};

    use super::*;

    fn roots(dir: &tempfile::TempDir) -> Roots {
        Roots { run: dir.path().join("run"), persist: dir.path().join("persist") }
    }

    #[tokio::test]
    async fn a_reader_wakes_up_and_sees_the_whole_table() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::<DesiredPower>::open(&roots(&dir)).unwrap();
        let reader = Reader::<DesiredPower>::open(&roots(&dir));
        let watch = Watch::new(&[reader.dir()]).unwrap();
        assert!(!reader.is_complete());

        let power = Power { reboot: Some(3), shutdown: None };
        writer.publish(Table::<DesiredPower>::from([(Only, power)])).unwrap();

        tokio::time::timeout(Duration::from_secs(5), watch.changed()).await.unwrap().unwrap();
        assert_eq!(reader.get(&Only), Some(power));
        assert!(reader.is_complete());
        writer.publish(Table::<DesiredPower>::new()).unwrap();
        assert!(reader.read().is_empty());
    }

    #[derive(Debug, Clone, PartialEq, serde::Deserialize)]
    struct Stubborn;

    impl serde::Serialize for Stubborn {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("it will not"))
        }
    }

    #[derive(Debug)]
    enum Strange {}

    impl Topic for Strange {
        type Key = Only;
        type Value = Stubborn;
        const NAME: &'static str = "strange";
        const OWNER: model::services::Service = model::services::Service::Debug;
    }

    #[test]
    fn a_row_without_json_is_an_error_and_not_an_empty_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::<Strange>::open(&roots(&dir)).unwrap();
        let table = || Table::<Strange>::from([(Only, Stubborn)]);
        for _ in 0..2 {
            assert!(matches!(writer.publish(table()), Err(TopicError::Row { .. })));
        }
        assert!(writer.table().is_empty() && !writer.dir.join("only.json").exists());
    }

    #[test]
    fn a_watch_names_the_folder_that_it_cannot_have() {
        let dir = tempfile::tempdir().unwrap();
        store::save(dir.path(), "file", b"").unwrap();
        let path = dir.path().join("file/below");
        let why = Watch::new(&[&path]).unwrap_err();
        assert!(why.to_string().contains("file/below"), "{why}");
    }

    #[test]
    fn a_row_of_nonsense_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let writer = Writer::<DesiredPower>::open(&roots(&dir)).unwrap();
        store::save(&writer.dir, "only.json", b"{\"reboot\": -").unwrap();
        assert!(Reader::<DesiredPower>::open(&roots(&dir)).read().is_empty());
    }
}
