//! What is written where, in which order.

use std::fmt;

use formats::gpt::{Attributes, Gpt, Partition};
use formats::layout::{PlanError, Profile, Purpose, Role, Want};
use model::Bytes;

use super::disks::for_persist;
use super::{Disk, Found, Refusal, Skip, Wish};
use crate::storage::ELSEWHERE;

/// Sectors at the start of a disk that hold its boot record and table.
const TABLE: Bytes = Bytes(34 * 512);
/// Those at its end: the other copy of the table.
const BACKUP: Bytes = Bytes(33 * 512);
/// So much at either end of P3 is wiped: where file systems and volume managers leave their traces.
/// The node makes its file system only where it finds nothing.
const EDGE: Bytes = Bytes::mib(8);

/// What is to be installed, as far as places matter.
#[derive(Debug, Clone, Copy)]
pub struct Payload {
    /// The layout.
    pub profile: Profile,
    /// The slot image's length.
    pub slot: Bytes,
    /// The length of what a BIOS loads from in front of the first partition; 0 if there is nothing.
    pub bios: Bytes,
}

/// Everything that an installation does to disks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// One after the other: the disk that boots comes last.
    pub disks: Vec<DiskPlan>,
}

/// What happens to one disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskPlan {
    /// Which.
    pub disk: String,
    /// What is on it now.
    pub found: Found,
    /// The table that it has in the end.
    pub table: Gpt,
    /// In this order, each durable before the next.
    pub steps: Vec<Step>,
}

/// Where something is, in bytes from the start of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first byte.
    pub at: Bytes,
    /// How many.
    pub length: Bytes,
}

impl Range {
    /// The first byte behind it.
    pub fn end(self) -> Bytes {
        Bytes(self.at.0 + self.length.0)
    }

    /// Whether they share a byte.
    pub fn meets(self, other: Range) -> bool {
        self.at < other.end() && other.at < self.end()
    }
}

/// A step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Zeroes, so that nothing is found there.
    Wipe(Range, &'static str),
    /// The slot image.
    Slot(Range),
    /// A FAT volume of this role.
    Volume(Role, Range),
    /// What a BIOS loads, in the gap in front of the first partition.
    Bios(Range),
    /// Everything so far is read back and compared.
    Check,
    /// The table, both copies.
    Table,
}

impl Step {
    /// What it writes to, besides the table.
    pub fn range(self) -> Option<Range> {
        match self {
            Step::Wipe(range, _)
            | Step::Slot(range)
            | Step::Volume(_, range)
            | Step::Bios(range) => Some(range),
            Step::Check | Step::Table => None,
        }
    }
}

/// Plans an installation onto `disk`, one of `disks`.
pub fn plan(wish: &Wish, disk: &Disk, disks: &[Disk], payload: &Payload) -> Result<Plan, Refusal> {
    disk.usable()?;
    let data = for_persist(wish, disks, disk)?;
    let mut plans = Vec::new();
    if let Some(data) = data.filter(|_| !wish.skip.persist) {
        plans.push(fresh(data, Purpose::Data, payload)?);
    }
    plans.push(match (&disk.found, wish.skip) {
        (Found::Eve(table), skip) if keeps(table, skip) => match data {
            Some(_) => return Err(Refusal::KeepsP3 { disk: disk.name.clone() }),
            None => kept(disk, table, payload, skip)?,
        },
        (found, Skip { rootfs, config, .. }) if rootfs || config => {
            let what = if rootfs { "the system" } else { "CONFIG" };
            let (disk, found) = (disk.name.clone(), found.to_string());
            return Err(Refusal::NothingToKeep { disk, what, found });
        }
        _ if data.is_some() => fresh(disk, Purpose::System, payload)?,
        _ => fresh(disk, Purpose::Target, payload)?,
    });
    Ok(Plan { disks: plans })
}

/// Whether a disk of a node has what is to be kept.
fn keeps(table: &Gpt, skip: Skip) -> bool {
    skip.rootfs || skip.config || (skip.persist && Role::Persist.find(table).is_some())
}

/// A new layout: nothing of what was there stays.
fn fresh(disk: &Disk, purpose: Purpose, payload: &Payload) -> Result<DiskPlan, Refusal> {
    let want = Want { disk: Some(disk.size), image: payload.slot, ..Want::default() };
    let mut table = payload.profile.plan(purpose, &want).map_err(|source| match source {
        PlanError::TooSmall { need, have, short, .. } => {
            Refusal::TooSmall { disk: disk.name.clone(), need, have, short }
        }
        source => Refusal::Layout { disk: disk.name.clone(), source },
    })?;
    if purpose == Purpose::System {
        table.set_attributes(Role::Config.number(), Attributes(ELSEWHERE));
    }
    // Whole sectors only: what a table reaches.
    let end = table.size().0;
    let mut steps = vec![
        Step::Wipe(Range { at: Bytes(0), length: TABLE }, "the old table"),
        Step::Wipe(Range { at: Bytes(end - BACKUP.0), length: BACKUP }, "its copy"),
    ];
    steps.extend(contents(&table, Skip::default(), payload));
    steps.extend([Step::Check, Step::Table]);
    Ok(DiskPlan { disk: disk.name.clone(), found: disk.found.clone(), table, steps })
}

/// The layout that is there, with part of its content replaced.
fn kept(disk: &Disk, old: &Gpt, payload: &Payload, skip: Skip) -> Result<DiskPlan, Refusal> {
    let mut table = old.clone();
    let mut steps = Vec::new();
    if !skip.rootfs {
        let boot = need(disk, old, Role::Esp, Bytes(1))?;
        need(disk, old, Role::ImgA, payload.slot)?;
        // From here to its rewriting the disk does not boot: half a system must not.
        let first = Range { at: boot.at, length: Bytes(512) };
        steps.push(Step::Wipe(first, "the start of the old boot partition"));
        for (role, state) in [(Role::ImgA, Attributes::ACTIVE), (Role::ImgB, Attributes::NONE)] {
            if let Some((number, _)) = role.find(old) {
                table.set_attributes(number, state);
            }
        }
    }
    if !skip.config {
        need(disk, old, Role::Config, Bytes(1))?;
    }
    steps.extend(contents(&table, skip, payload));
    steps.push(Step::Check);
    if table != *old {
        steps.push(Step::Table);
    }
    Ok(DiskPlan { disk: disk.name.clone(), found: disk.found.clone(), table, steps })
}

/// The place of a role that must be there and hold so much.
fn need(disk: &Disk, table: &Gpt, role: Role, need: Bytes) -> Result<Range, Refusal> {
    let place = place(table, role).unwrap_or(Range { at: Bytes(0), length: Bytes(0) });
    if place.length >= need {
        return Ok(place);
    }
    let (disk, partition) = (disk.name.clone(), role.name());
    Err(Refusal::KeptTooSmall { disk, partition, need, have: place.length })
}

fn place(table: &Gpt, role: Role) -> Option<Range> {
    let (_, partition) = role.find(table)?;
    Some(Range { at: partition.offset(), length: partition.length() })
}

/// What goes into the partitions of a table: the boot partition last.
fn contents(table: &Gpt, skip: Skip, payload: &Payload) -> Vec<Step> {
    let mut steps = Vec::new();
    if let Some(range) = place(table, Role::Persist).filter(|_| !skip.persist) {
        let edge = Bytes(range.length.0.min(EDGE.0));
        steps.push(Step::Wipe(Range { at: range.at, length: edge }, "the start of P3"));
        if range.length.0 >= 2 * EDGE.0 {
            let end = Range { at: Bytes(range.end().0 - EDGE.0), length: EDGE };
            steps.push(Step::Wipe(end, "the end of P3"));
        } else if range.length > edge {
            let rest =
                Range { at: Bytes(range.at.0 + edge.0), length: Bytes(range.length.0 - edge.0) };
            steps.push(Step::Wipe(rest, "the rest of P3"));
        }
    }
    if let Some(range) = place(table, Role::Config).filter(|_| !skip.config) {
        steps.push(Step::Volume(Role::Config, range));
    }
    if !skip.rootfs {
        if let Some(range) = place(table, Role::ImgA) {
            steps.push(Step::Slot(Range { length: payload.slot, ..range }));
        }
        let gap = Range { at: TABLE, length: payload.bios };
        let first = table.partitions().values().map(Partition::offset).min().unwrap_or_default();
        let boots = place(table, Role::Esp).is_some();
        if payload.bios.0 > 0 && gap.end() <= first && boots {
            steps.push(Step::Bios(gap));
        }
        for role in [Role::EspB, Role::Esp] {
            steps.extend(place(table, role).map(|range| Step::Volume(role, range)));
        }
    }
    steps
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.disks.iter().try_for_each(|disk| disk.fmt(f))
    }
}

/// A line a step, for whoever wants to know beforehand.
impl fmt::Display for DiskPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} ({}, holds {})", self.disk, self.table.size(), self.found)?;
        for step in &self.steps {
            match step {
                Step::Wipe(range, what) => writeln!(f, "  wipe {what}: {range}")?,
                Step::Slot(range) => writeln!(f, "  write the slot image to IMGA: {range}")?,
                Step::Volume(role, range) => {
                    let number = role.number();
                    writeln!(f, "  write partition {number} ({}): {range}", role.name())?;
                }
                Step::Bios(range) => writeln!(f, "  write what a BIOS loads: {range}")?,
                Step::Check => writeln!(f, "  read everything back")?,
                Step::Table => {
                    writeln!(f, "  write the table:")?;
                    for (number, p) in self.table.partitions() {
                        let (first, last) = (p.first.0, p.last.0);
                        let name = &p.name;
                        writeln!(f, "    {number} {first} to {last} ({}) {name}", p.length())?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.length, self.at)
    }
}
