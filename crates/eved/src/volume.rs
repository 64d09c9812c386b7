//! `eved volume`: unpacks images, makes volumes and removes them.
//!
//! `device::volume` plans; this file does one operation after the other. Whatever is on the disk
//! under its name is whole: things are made and taken down under names that begin with a dot, which
//! the next start sweeps. Quotas are not enforced yet. As it may ask disks it also asks them how they are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use device::backoff::Backoff;
use device::volume::{Have, Lacks, Op, VolumeKey, Want, plan};
use host::topics::{Reader, Table, Watch, Writer};
use model::reported::{VolumeKind, VolumeState, VolumeStatus};
use model::topic::{
    Apps, Contents, DesiredProperties, DesiredVolumes, DiskSmarts, Only, VolumeUse, Volumes,
};
use model::{Bytes, Diagnose, Diagnosis, Digest, Problem, Who, chain};
use serde::{Deserialize, Serialize};
use store::{Descriptor, Image, Limits, MANIFEST_MAX, StoreError, media_type};
use tokio::time::{Instant, sleep_until};

use crate::chance::jitter;
use crate::service::Context;

/// Between tries of an operation that failed.
const BACKOFF: Backoff =
    Backoff { first: Duration::from_secs(5), longest: Duration::from_secs(600) };
/// Read again even if nothing woke us.
const RESYNC: Duration = Duration::from_secs(60);
/// Between questions to disks; the controller is told each twelve hours, or six.
const ASK_DISKS: Duration = Duration::from_secs(3600);
/// Beside the volume's data: what it was made of.
const ORIGIN: &str = "origin.json";
/// Beside it, for the root of a container: how the image wants to be run.
const IMAGE_CONFIG: &str = "image-config.json";
/// A volume's origin is a few hundred bytes.
const ORIGIN_MAX: Bytes = Bytes::kib(64);

/// What a volume was made of. Every version that was ever written loads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "version")]
enum OriginFile {
    /// The first: the image's manifest; none for a blank folder.
    #[serde(rename = "1")]
    V1 { image: Option<Digest> },
}

#[derive(Debug, thiserror::Error)]
enum VolumeError {
    #[error("cannot {doing} {path}")]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot use image {digest}")]
    Image { digest: Digest, source: StoreError },
    #[error(transparent)]
    Save(#[from] store::SaveError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the work was interrupted")]
    Interrupted,
}

impl Diagnose for VolumeError {
    fn diagnose(&self) -> Diagnosis {
        let full = |e: &io::Error| e.kind() == io::ErrorKind::StorageFull;
        match self {
            Self::Io { source, .. } if full(source) => space(),
            Self::Save(e) if full(e.io()) => space(),
            Self::Io { .. } | Self::Save(_) => {
                Diagnosis::of(Who::Hardware, "check the node's disk")
            }
            Self::Image { source, .. } | Self::Store(source) => source.diagnose(),
            Self::Interrupted => Diagnosis::of(Who::Nobody, "it is done again"),
        }
    }
}

fn space() -> Diagnosis {
    Diagnosis::of(Who::Operator, "free space on the node's disk, or give it more")
}

pub(crate) async fn run(ctx: Context) -> anyhow::Result<()> {
    let roots = ctx.roots();
    let root = ctx.paths.persist.join("volumes");
    let mut keeper = Keeper { disk: Disk::open(&root)?, trouble: BTreeMap::new() };
    let (volumes, contents, apps) = (
        Reader::<DesiredVolumes>::open(&roots),
        Reader::<Contents>::open(&roots),
        Reader::<Apps>::open(&roots),
    );
    let mut statuses = Writer::<Volumes>::open(&roots)?;
    let watch = Watch::new(&[volumes.dir(), contents.dir(), apps.dir()])?;
    tokio::spawn(ask_disks(Writer::open(&roots)?));
    let settings = Reader::<DesiredProperties>::open(&roots);
    tokio::spawn(measure(keeper.disk.clone(), Writer::open(&roots)?, settings));
    ctx.ready();
    loop {
        let wanted = volumes.is_complete().then(|| volumes.read());
        let in_use: Option<BTreeSet<VolumeKey>> = apps.is_complete().then(|| {
            let mounted = apps.read().into_values().flat_map(|a| a.mounted);
            mounted.map(|v| VolumeKey { id: v.volume, generation: v.generation }).collect()
        });
        let known = contents.read();
        let want = Want { volumes: wanted.as_ref(), contents: &known, in_use: in_use.as_ref() };
        let plan = plan(&keeper.disk.have()?, &want, host::clock::now());
        keeper.forget_others(&plan.ops);
        let now = Instant::now();
        let op = plan.ops.iter().find(|op| keeper.may_try(op, now)).cloned();
        if let Some(wanted) = &wanted {
            statuses.publish(keeper.report(wanted, &plan.waiting))?;
        }
        if let Some(op) = op {
            let persist = ctx.paths.persist.clone();
            tokio::select! {
                () = ctx.stopped() => return Ok(()),
                () = keeper.execute(op, persist) => continue,
            }
        }
        tokio::select! {
            () = ctx.stopped() => return Ok(()),
            changed = watch.changed() => changed?,
            () = sleep_until(keeper.next_try(&plan.ops).unwrap_or(now + RESYNC)) => {}
        }
    }
}

/// Publishes what disks say of their own health, for as long as the service runs.
async fn ask_disks(mut said: Writer<DiskSmarts>) {
    loop {
        // A dead disk takes its time.
        match tokio::task::spawn_blocking(host::smart::look).await {
            Ok(disks) => {
                let published = said.publish(Table::<DiskSmarts>::from([(Only, disks)]));
                if let Err(e) = published {
                    tracing::warn!("what disks say of their health is not told: {}", chain(&e));
                }
            }
            Err(e) => tracing::warn!("disks are not asked for their health: {e}"),
        }
        tokio::time::sleep(ASK_DISKS).await;
    }
}

/// Publishes what volumes take, for as long as the service runs.
async fn measure(disk: Disk, mut told: Writer<VolumeUse>, settings: Reader<DesiredProperties>) {
    loop {
        let here = disk.clone();
        // It takes as long as there are files.
        match tokio::task::spawn_blocking(move || here.used()).await {
            Ok(used) => {
                if let Err(e) = told.publish(used) {
                    tracing::warn!("what volumes take is not told: {}", chain(&e));
                }
            }
            Err(e) => tracing::warn!("volumes are not measured: {e}"),
        }
        let pause = settings.get(&Only).unwrap_or_default().disk_scan_interval;
        tokio::time::sleep(pause).await;
    }
}

struct Keeper {
    disk: Disk,
    trouble: BTreeMap<Op, Trouble>,
}

struct Trouble {
    failures: u32,
    again: Instant,
    problem: Problem,
}

impl Keeper {
    /// Trouble with what is not planned any more is over: its volume was deleted, for one.
    fn forget_others(&mut self, planned: &[Op]) {
        self.trouble.retain(|op, _| planned.contains(op));
    }

    fn may_try(&self, op: &Op, now: Instant) -> bool {
        !self.lacks_image(op) && self.trouble.get(op).is_none_or(|t| t.again <= now)
    }

    /// A volume waits for its image, which is an operation of its own.
    fn lacks_image(&self, op: &Op) -> bool {
        matches!(op, Op::Create(_, Some(image)) if !self.disk.image(image).exists())
    }

    /// When the first of what failed may be tried again. What only time does not help is not waited
    /// for: its moment would lie in the past, and the loop would turn without a pause.
    fn next_try(&self, planned: &[Op]) -> Option<Instant> {
        let waiting = planned.iter().filter(|op| !self.lacks_image(op));
        let tries = waiting.filter_map(|op| Some(self.trouble.get(op)?.again));
        tries.min().map(|at| at.min(Instant::now() + RESYNC))
    }

    async fn execute(&mut self, op: Op, persist: PathBuf) {
        let (disk, todo) = (self.disk.clone(), op.clone());
        // Unpacking takes long; the thread that answers the watchdog must stay free.
        let done = tokio::task::spawn_blocking(move || disk.execute(&todo, &persist)).await;
        match done.unwrap_or(Err(VolumeError::Interrupted)) {
            Ok(()) => {
                tracing::info!("{op:?} done");
                self.trouble.remove(&op);
            }
            Err(why) => {
                tracing::warn!("{op:?}: {}", chain(&why));
                let failures = self.trouble.get(&op).map_or(0, |t| t.failures) + 1;
                let wait = BACKOFF.after(failures, jitter());
                let mut problem = why.problem(host::clock::now());
                problem.diagnosis.retry_in = Some(wait);
                let trouble = Trouble { failures, again: Instant::now() + wait, problem };
                self.trouble.insert(op, trouble);
            }
        }
    }

    fn report(
        &self,
        wanted: &Table<DesiredVolumes>,
        waiting: &BTreeMap<model::VolumeId, Lacks>,
    ) -> Table<Volumes> {
        let status = |volume: &model::desired::Volume| {
            let key = VolumeKey { id: volume.id, generation: volume.generation };
            let (state, problem) = match (self.disk.ready(key), waiting.get(&volume.id)) {
                (Some(kind), _) => (VolumeState::Ready(kind), None),
                (None, Some(Lacks::Content)) => (VolumeState::AwaitingContent, None),
                (None, Some(Lacks::Help(why))) => (VolumeState::AwaitingContent, Some(why.clone())),
                (None, None) => (VolumeState::Creating, self.problem_of(key)),
            };
            VolumeStatus {
                id: volume.id,
                generation: volume.generation,
                name: volume.name.clone(),
                state,
                problem,
            }
        };
        wanted.iter().map(|(id, v)| (*id, status(v))).collect()
    }

    /// The trouble of a volume, or of any image: few nodes have several that fail at once.
    fn problem_of(&self, key: VolumeKey) -> Option<Problem> {
        let own = |op: &Op| matches!(op, Op::Create(k, _) if *k == key);
        let found = self.trouble.iter().find(|(op, _)| own(op));
        let image = || self.trouble.iter().find(|(op, _)| matches!(op, Op::Unpack(_)));
        found.or_else(image).map(|(_, t)| t.problem.clone())
    }
}

/// The folder of all volumes.
#[derive(Debug, Clone)]
struct Disk {
    root: PathBuf,
}

impl Disk {
    /// Opens it and sweeps what an earlier run left unfinished.
    fn open(root: &Path) -> Result<Disk, VolumeError> {
        let disk = Disk { root: root.to_owned() };
        let images = root.join("images");
        fs::create_dir_all(&images).map_err(io("create", &images))?;
        for dir in [root, &images] {
            for name in names(dir)? {
                if name.starts_with('.') {
                    let path = dir.join(&name);
                    tracing::info!("removing {}, left unfinished", path.display());
                    store::remove_tree(&path)?;
                }
            }
        }
        Ok(disk)
    }

    fn have(&self) -> Result<Have, VolumeError> {
        let mut have = Have::default();
        for name in names(&self.root)? {
            let Ok(key) = name.parse::<VolumeKey>() else { continue };
            match self.origin(key) {
                Ok(OriginFile::V1 { image }) => drop(have.volumes.insert(key, image)),
                // Not ours to judge, let alone to remove: it may hold someone's data.
                Err(why) => tracing::warn!("volume {key} is left alone: {}", chain(&why)),
            }
        }
        for name in names(&self.root.join("images"))? {
            have.images.extend(Digest::from_hex(&name).ok());
        }
        Ok(have)
    }

    /// What each volume takes beside the image that it shares with others.
    fn used(&self) -> Table<VolumeUse> {
        let names = names(&self.root).unwrap_or_default();
        let keys = names.iter().filter_map(|name| name.parse::<VolumeKey>().ok());
        // While one generation takes the place of another both are here.
        let mut all = Table::<VolumeUse>::new();
        for key in keys {
            let sum = all.entry(key.id).or_default();
            *sum = Bytes(sum.0.saturating_add(host::usage::tree(&self.volume(key)).0));
        }
        all
    }

    fn origin(&self, key: VolumeKey) -> Result<OriginFile, VolumeError> {
        let path = self.volume(key).join(ORIGIN);
        let text = store::read_bounded(&path, ORIGIN_MAX).map_err(io("read", &path))?;
        serde_json::from_slice(&text).map_err(|e| io("read", &path)(io::Error::other(e)))
    }

    fn ready(&self, key: VolumeKey) -> Option<VolumeKind> {
        let dir = self.volume(key);
        let OriginFile::V1 { image } = self.origin(key).ok()?;
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let Some(image) = image else {
            return Some(VolumeKind::Folder { path: text(dir.join("data")) });
        };
        let config = store::read_bounded(&dir.join(IMAGE_CONFIG), MANIFEST_MAX).ok()?;
        self.image(&image).is_dir().then(|| VolumeKind::Root {
            lower: text(self.image(&image)),
            writable: text(dir),
            image_config: String::from_utf8_lossy(&config).into_owned(),
        })
    }

    fn execute(&self, op: &Op, persist: &Path) -> Result<(), VolumeError> {
        match op {
            Op::Remove(key) => self.remove(&self.volume(*key)),
            Op::RemoveImage(image) => self.remove(&self.image(image)),
            Op::Unpack(image) => {
                let failed = |source| VolumeError::Image { digest: *image, source };
                let (layout, found) = open_image(persist, *image).map_err(failed)?;
                let target = self.image(image);
                store::unpack(&layout, &found.manifest, &target, &Limits::default())
                    .map(drop)
                    .map_err(failed)
            }
            Op::Create(key, image) => self.create(*key, *image, persist),
        }
    }

    fn create(
        &self,
        key: VolumeKey,
        image: Option<Digest>,
        persist: &Path,
    ) -> Result<(), VolumeError> {
        let new = self.root.join(format!(".{key}.new"));
        store::remove_tree(&new)?;
        make_dir(&new)?;
        match image {
            None => make_dir(&new.join("data"))?,
            Some(digest) => {
                let failed = |source| VolumeError::Image { digest, source };
                let (layout, found) = open_image(persist, digest).map_err(failed)?;
                let config =
                    layout.read(&found.manifest.config.digest, MANIFEST_MAX).map_err(failed)?;
                store::save(&new, IMAGE_CONFIG, &config)?;
                // The root of the container is the upper folder's: root's, for all to enter.
                make_dir(&new.join("upper"))?;
                make_dir(&new.join("work"))?;
            }
        }
        let origin = serde_json::to_vec(&OriginFile::V1 { image }).unwrap_or_default();
        store::save(&new, ORIGIN, &origin)?; // syncs the folder too
        let name = self.volume(key);
        fs::rename(&new, &name).map_err(io("create", &name))?;
        sync(&self.root)
    }

    /// First out of sight, then away: a power cut leaves no half volume under its name.
    fn remove(&self, path: &Path) -> Result<(), VolumeError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let dir = path.parent().unwrap_or(&self.root);
        let gone = dir.join(format!(".{name}.gone"));
        store::remove_tree(&gone)?;
        fs::rename(path, &gone).map_err(io("remove", path))?;
        sync(dir)?;
        Ok(store::remove_tree(&gone)?)
    }

    fn volume(&self, key: VolumeKey) -> PathBuf {
        self.root.join(key.to_string())
    }

    /// Without the algorithm: a colon separates folders in the options of an overlay.
    fn image(&self, digest: &Digest) -> PathBuf {
        self.root.join("images").join(digest.hex())
    }
}

fn open_image(persist: &Path, digest: Digest) -> Result<(store::Layout, Image), StoreError> {
    let layout = crate::content::open(persist)?;
    let (_, size) = layout.open_blob(&digest)?;
    let image = Image::read(&layout, &Descriptor::new(media_type::MANIFEST, digest, size))?;
    Ok((layout, image))
}

/// Root's, 0755: what an app sees as the owner of its folders.
fn make_dir(path: &Path) -> Result<(), VolumeError> {
    use std::os::unix::fs::PermissionsExt;
    fs::create_dir(path).map_err(io("create", path))?;
    std::os::unix::fs::chown(path, Some(0), Some(0)).map_err(io("give root", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(io("open", path))
}

fn names(dir: &Path) -> Result<Vec<String>, VolumeError> {
    let entries = fs::read_dir(dir).map_err(io("list", dir))?;
    let names = entries.filter_map(|e| e.ok()?.file_name().into_string().ok());
    Ok(names.collect())
}

fn sync(dir: &Path) -> Result<(), VolumeError> {
    fs::File::open(dir).and_then(|d| d.sync_all()).map_err(io("sync", dir))
}

fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> VolumeError {
    let path = path.to_owned();
    move |source| VolumeError::Io { doing, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "00000000-0000-4000-8000-000000000040.3";

    fn image_in(persist: &Path) -> Digest {
        let layout = store::Layout::create(persist.join("content")).unwrap();
        let mut image = store::ImageBuilder::new(&layout, store::Platform::linux("amd64"));
        image.config().cmd = vec!["/bin/web".into()];
        image.finish().unwrap().digest
    }

    #[test]
    fn a_volume_is_made_whole_read_back_and_removed() {
        let persist = tempfile::tempdir().unwrap();
        let image = image_in(persist.path());
        let disk = Disk::open(&persist.path().join("volumes")).unwrap();
        let key: VolumeKey = KEY.parse().unwrap();
        for op in [Op::Unpack(image), Op::Create(key, Some(image))] {
            disk.execute(&op, persist.path()).unwrap();
        }
        let have = disk.have().unwrap();
        assert_eq!(have.volumes, BTreeMap::from([(key, Some(image))]));
        assert_eq!(have.images, BTreeSet::from([image]));
        let Some(VolumeKind::Root { image_config, lower, .. }) = disk.ready(key) else { panic!() };
        assert!(image_config.contains("/bin/web") && !lower.contains(':'));
        for op in [Op::Remove(key), Op::RemoveImage(image)] {
            disk.execute(&op, persist.path()).unwrap();
        }
        assert_eq!(disk.have().unwrap(), Have::default());
        assert_eq!(disk.ready(key), None);
    }

    #[test]
    fn what_is_unfinished_is_swept_and_what_is_strange_is_left_alone() {
        let persist = tempfile::tempdir().unwrap();
        let root = persist.path().join("volumes");
        let strange = root.join(KEY);
        for dir in
            [root.join(format!(".{KEY}.new/upper")), root.join("images/.x.new"), strange.clone()]
        {
            fs::create_dir_all(dir).unwrap();
        }
        let disk = Disk::open(&root).unwrap();
        assert!(!root.join(format!(".{KEY}.new")).exists());
        assert!(!root.join("images/.x.new").exists());
        assert_eq!(disk.have().unwrap(), Have::default());
        assert!(strange.exists());
    }

    #[test]
    fn an_image_that_is_not_there_is_named() {
        let persist = tempfile::tempdir().unwrap();
        image_in(persist.path());
        let disk = Disk::open(&persist.path().join("volumes")).unwrap();
        let missing = Digest([7; 32]);
        let why = disk.execute(&Op::Unpack(missing), persist.path()).unwrap_err();
        assert!(chain(&why).contains(&missing.to_string()), "{}", chain(&why));
    }

    #[tokio::test]
    async fn a_try_is_waited_for_only_while_it_is_planned_and_may_run() {
        let persist = tempfile::tempdir().unwrap();
        let disk = Disk::open(&persist.path().join("volumes")).unwrap();
        let mut keeper = Keeper { disk, trouble: BTreeMap::new() };
        let image = Digest([7; 32]); // there is none: unpacking it fails
        let create = Op::Create(KEY.parse().unwrap(), Some(image));
        let planned = [Op::Unpack(image), create.clone()];
        for op in planned.clone() {
            keeper.execute(op, persist.path().to_owned()).await;
        }
        assert_eq!(keeper.trouble.len(), 2);
        // Its image is gone since: its next try lies in the past for as long as that is so.
        keeper.trouble.get_mut(&create).unwrap().again = Instant::now();
        let now = Instant::now();
        assert!(planned.iter().all(|op| !keeper.may_try(op, now)));
        assert!(keeper.next_try(&planned).is_some_and(|at| at > now));

        keeper.forget_others(std::slice::from_ref(&create)); // and now no app wants the image
        assert_eq!(keeper.trouble.keys().collect::<Vec<_>>(), [&create]);
        assert_eq!(keeper.next_try(&[create]), None);
        keeper.forget_others(&[]);
        assert!(keeper.trouble.is_empty());
    }

    #[test]
    fn what_the_first_version_wrote_loads() {
        let text = format!(r#"{{"version":"1","image":"{}"}}"#, Digest([1; 32]));
        let origin: OriginFile = serde_json::from_str(&text).unwrap();
        assert_eq!(origin, OriginFile::V1 { image: Some(Digest([1; 32])) });
        let blank: OriginFile = serde_json::from_str(r#"{"version":"1","image":null}"#).unwrap();
        assert_eq!(blank, OriginFile::V1 { image: None });
    }
}
