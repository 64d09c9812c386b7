//! From a plan to a disk.

use std::io;
use std::path::PathBuf;

use device::install::{DiskPlan, Range, Step};
use formats::fat::{self, Files};
use formats::gpt::{self, Gpt};
use formats::layout::Role;
use formats::mbr;
use host::block::BlockError;
use host::target::Target;
use model::{Bytes, Diagnose, Diagnosis, Who};

use crate::payload::{Blob, Payload};

/// Behind its last piece a volume is wiped this far, so that its last folder ends where it says.
const BEHIND: u64 = 1 << 20;

/// Where a person sees how far it is.
pub trait Progress {
    /// `what` is being done; so much of all of it is.
    fn at(&self, what: &str, done: Bytes, total: Bytes);
}

impl Progress for () {
    fn at(&self, _: &str, _: Bytes, _: Bytes) {}
}

/// Why a disk is not installed. The disk does not boot then, unless it is said that nothing was
/// written.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The files make no volume; nothing was written.
    #[error("cannot make the files of {partition}")]
    Volume {
        /// The partition.
        partition: &'static str,
        /// Why not.
        source: fat::WriteError,
    },
    /// What is installed can no longer be read.
    #[error("cannot read {path}")]
    Payload {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The disk cannot be used.
    #[error(transparent)]
    Disk(#[from] BlockError),
    /// The disk changed since it was looked at.
    #[error("{path} had {planned} when this was planned and has {now} now")]
    Changed {
        /// The disk.
        path: PathBuf,
        /// Its size then.
        planned: Bytes,
        /// Its size now.
        now: Bytes,
    },
    /// The disk does not give back what was written.
    #[error("{path} does not hold what was written: {what} reads back differently")]
    ReadBack {
        /// The disk.
        path: PathBuf,
        /// What part of it.
        what: &'static str,
    },
}

impl Diagnose for InstallError {
    fn diagnose(&self) -> Diagnosis {
        match self {
            InstallError::Volume { .. } => {
                Diagnosis::of(Who::Operator, "leave files out, or choose a larger profile")
            }
            InstallError::Payload { .. } => {
                Diagnosis::of(Who::Operator, "write the installer to its medium anew")
            }
            InstallError::Changed { .. } => Diagnosis::of(Who::Operator, "start again"),
            InstallError::Disk(_) => {
                Diagnosis::of(Who::Operator, "see that nobody uses the disk, and that it works")
            }
            InstallError::ReadBack { .. } => Diagnosis::of(Who::Hardware, "use another disk"),
        }
    }
}

/// Everything that will be written to one disk.
#[derive(Debug)]
pub struct Work<'a> {
    table: Gpt,
    size: Bytes,
    items: Vec<Item<'a>>,
    total: Bytes,
}

/// One thing that is written, and read back when all of them are.
#[derive(Debug)]
enum Item<'a> {
    Wipe(Range, &'static str),
    Slot(Range, &'a Blob),
    Volume(Role, Range, Vec<formats::Extent<'a>>),
    Bios(Range, &'a [u8]),
    Check,
    Table,
}

static NO_FILES: Files = Files::new();

impl<'a> Work<'a> {
    /// Makes what `plan` writes of `payload` and the files of CONFIG. `time` is that of all files in
    /// FAT volumes, in seconds since 1970.
    pub fn new(
        plan: &DiskPlan,
        payload: &'a Payload,
        config: &'a Files,
        time: u64,
    ) -> Result<Work<'a>, InstallError> {
        let mut items = Vec::new();
        for step in &plan.steps {
            items.push(match *step {
                Step::Wipe(range, what) => Item::Wipe(range, what),
                Step::Slot(range) => Item::Slot(range, &payload.slot),
                Step::Volume(role, range) => {
                    let files = match role {
                        Role::Esp => &payload.esp,
                        Role::Config => config,
                        _ => &NO_FILES,
                    };
                    Item::Volume(role, range, volume(role, range, files, time)?)
                }
                Step::Bios(range) => {
                    Item::Bios(range, payload.bios.as_ref().map_or(&[], |bios| &bios.gap))
                }
                Step::Check => Item::Check,
                Step::Table => Item::Table,
            });
        }
        let code = payload.bios.as_ref().and_then(|bios| bios.code.first_chunk::<440>());
        let table = match code {
            Some(code) if items.iter().any(|item| matches!(item, Item::Bios(..))) => {
                let record = plan.table.mbr().clone();
                let mut all = [0; mbr::CODE];
                all.copy_from_slice(&record.bytes()[..mbr::CODE]);
                all[..code.len()].copy_from_slice(code);
                plan.table.clone().guarded_by(Some(record.with_code(&all)))
            }
            _ => plan.table.clone(),
        };
        // Written once, read back once.
        let total = items.iter().map(|item| 2 * item.weight().0).sum();
        Ok(Work { table, size: plan.table.size(), items, total: Bytes(total) })
    }

    /// Writes it all, each step durable before the next, and reads it back.
    pub fn carry_out(&self, target: &Target, progress: &dyn Progress) -> Result<(), InstallError> {
        // A table is planned in whole sectors.
        let now = Bytes(target.size().0 / 512 * 512);
        if now != self.size {
            let path = target.path().to_owned();
            return Err(InstallError::Changed { path, planned: self.size, now });
        }
        let mut done = Bytes(0);
        for (at, item) in self.items.iter().enumerate() {
            let mut tell = |what: &str, more: Bytes| {
                done.0 += more.0;
                progress.at(what, done, self.total);
            };
            tell(item.name(), Bytes(0));
            match item {
                Item::Check => {
                    for written in &self.items[..at] {
                        self.check(written, target, &mut |n| tell("reading back", n))?;
                    }
                }
                Item::Table => self.write_table(target)?,
                other => other.write(target, &mut |n| tell(other.name(), n))?,
            }
            target.sync()?;
        }
        progress.at("done", self.total, self.total);
        Ok(())
    }

    fn write_table(&self, target: &Target) -> Result<(), InstallError> {
        for extent in self.table.to_extents() {
            target.write(Bytes(extent.at), &extent.bytes)?;
            target.sync()?;
        }
        let head = target.read(Bytes(0), usize::try_from(gpt::HEAD.0).unwrap_or_default())?;
        if Gpt::parse(&head, target.size()).as_ref() != Ok(&self.table) {
            return Err(differs(target, "the partition table"));
        }
        Ok(target.announce()?)
    }

    fn check(
        &self,
        item: &Item<'_>,
        target: &Target,
        tell: &mut dyn FnMut(Bytes),
    ) -> Result<(), InstallError> {
        let same = match item {
            // The start of a boot partition is closed first and written last.
            Item::Wipe(range, _) => {
                self.is_rewritten(*range) || target.is_zero(range.at, range.length)?
            }
            Item::Slot(range, blob) => target.digest(range.at, blob.length, tell)? == blob.digest,
            Item::Volume(_, range, extents) => {
                let mut same = true;
                for extent in extents {
                    let at = Bytes(range.at.0 + extent.at);
                    same &= target.read(at, extent.bytes.len())? == *extent.bytes;
                    tell(Bytes(extent.bytes.len() as u64));
                }
                for gap in gaps(*range, extents) {
                    same &= target.is_zero(gap.at, gap.length)?;
                }
                same
            }
            Item::Bios(range, bytes) => target.read(range.at, bytes.len())? == *bytes,
            Item::Check | Item::Table => true,
        };
        if same { Ok(()) } else { Err(differs(target, item.name())) }
    }

    fn is_rewritten(&self, range: Range) -> bool {
        let volumes = self.items.iter().filter_map(|item| match item {
            Item::Volume(_, own, _) => Some(*own),
            _ => None,
        });
        volumes.into_iter().any(|own| own.meets(range))
    }
}

impl Item<'_> {
    fn name(&self) -> &'static str {
        match self {
            Item::Wipe(_, what) => what,
            Item::Slot(..) => "the slot image",
            Item::Volume(Role::Config, ..) => "CONFIG",
            Item::Volume(..) => "the boot partition",
            Item::Bios(..) => "what a BIOS loads",
            Item::Check => "reading back",
            Item::Table => "the partition table",
        }
    }

    /// The bytes that take time.
    fn weight(&self) -> Bytes {
        match self {
            Item::Slot(_, blob) => blob.length,
            Item::Volume(_, _, extents) => {
                Bytes(extents.iter().map(|e| e.bytes.len() as u64).sum())
            }
            _ => Bytes(0),
        }
    }

    fn write(&self, target: &Target, tell: &mut dyn FnMut(Bytes)) -> Result<(), InstallError> {
        match self {
            Item::Wipe(range, _) => target.wipe(range.at, range.length)?,
            Item::Slot(range, blob) => {
                let from = blob
                    .open()
                    .map_err(|source| InstallError::Payload { path: blob.path.clone(), source })?;
                target.copy(range.at, blob.length, from, tell)?;
            }
            Item::Volume(_, range, extents) => {
                for gap in gaps(*range, extents) {
                    target.wipe(gap.at, gap.length)?;
                }
                // The boot sector comes first in the volume and last here: until then it is none.
                for extent in extents.iter().rev() {
                    target.write(Bytes(range.at.0 + extent.at), &extent.bytes)?;
                    tell(Bytes(extent.bytes.len() as u64));
                }
            }
            Item::Bios(range, bytes) => target.write(range.at, bytes)?,
            Item::Check | Item::Table => {}
        }
        Ok(())
    }
}

fn volume<'a>(
    role: Role,
    range: Range,
    files: &'a Files,
    time: u64,
) -> Result<Vec<formats::Extent<'a>>, InstallError> {
    let failed = |source| InstallError::Volume { partition: role.name(), source };
    match role.volume(range.length, time) {
        Some(volume) => fat::write(&volume, files).map_err(failed),
        None => Ok(Vec::new()),
    }
}

/// What lies between the pieces of a volume, up to a bit behind the last one. All that is said to be
/// zero lies in there: tables in front of the files, the rest of the last folder behind them.
fn gaps(range: Range, extents: &[formats::Extent<'_>]) -> Vec<Range> {
    let mut gaps = Vec::new();
    let mut free = 0;
    let spans = extents.iter().map(|e| (e.at, e.at + e.bytes.len() as u64));
    let last = spans.clone().map(|(_, end)| end).max().unwrap_or(0);
    let end = (last + BEHIND).min(range.length.0);
    for (from, to) in spans.chain([(end, end)]) {
        if from > free {
            gaps.push(Range { at: Bytes(range.at.0 + free), length: Bytes(from - free) });
        }
        free = free.max(to);
    }
    gaps
}

fn differs(target: &Target, what: &'static str) -> InstallError {
    InstallError::ReadBack { path: target.path().to_owned(), what }
}
