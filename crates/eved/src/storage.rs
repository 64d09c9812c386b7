//! `eved storage`: /persist is there before anything else starts.
//!
//! It ends well once /persist is mounted. If it must not go on (a partition that is not ours, no
//! room), it says so on the console and stays: a restart would change nothing, and a person has to
//! look.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use device::storage::{
    ELSEWHERE, Op, Persist, Refused, Seen, UNFINISHED, elsewhere, is_ext4, plan,
};
use formats::gpt::{Attributes, Gpt, Partition};
use formats::layout::Role;
use host::block::{self, Disk};
use host::topics::{Table, Writer};
use model::reported::Storage;
use model::topic::{Only, StorageState};
use model::{Bytes, Diagnose, chain};

use crate::service::Context;

/// A disk that is not there after this long is not there.
const DISK_PATIENCE: Duration = Duration::from_secs(15);

pub(crate) async fn run(ctx: Context) -> anyhow::Result<()> {
    let disk = match disk_of_persist(Disk::booted_from()?).await? {
        Ok(disk) => disk,
        Err(refused) => {
            let advice = refused.diagnose().advice;
            return stay(&ctx, &format!("{}; {advice}", chain(&refused))).await;
        }
    };
    let seen = look(&disk)?;
    tracing::info!(disk = %disk.path().display(), found = ?seen, "looked at the disk");
    let steps = match plan(&seen) {
        Ok(steps) => steps,
        Err(refused) => {
            let advice = refused.diagnose().advice;
            return stay(&ctx, &format!("{}; {advice}", chain(&refused))).await;
        }
    };
    let mut done = Storage {
        device: disk.partition(Role::Persist.number()).display().to_string(),
        created: steps.contains(&Op::Format),
        repaired: String::new(),
    };
    for step in steps {
        tracing::info!("/persist: {step:?}");
        if let Err(error) = apply(step, &disk, &ctx.paths.persist, &mut done) {
            if step == Op::Check {
                let text = chain(&error);
                return stay(&ctx, &format!("/persist cannot be repaired by itself: {text}")).await;
            }
            return Err(error.into());
        }
    }
    if !done.repaired.is_empty() {
        tracing::warn!("/persist was repaired: {}", done.repaired);
    }
    let table = Table::<StorageState>::from([(Only, done)]);
    Writer::<StorageState>::open(&ctx.roots())?.publish(table)?;
    Ok(())
}

/// The disk that P3 is on, or will be: the one we booted from, unless its installer said otherwise.
async fn disk_of_persist(boot: Disk) -> anyhow::Result<Result<Disk, Refused>> {
    let table = boot.table()?;
    let says = |p: &Partition| p.attributes.0 & ELSEWHERE != 0;
    if !Role::Config.find(&table).is_some_and(|(_, p)| says(p)) {
        return Ok(Ok(boot));
    }
    let others = || -> Vec<String> {
        let has_p3 = |disk: &Disk| disk.table().is_ok_and(|t| Role::Persist.find(&t).is_some());
        let all = host::disks::all().into_iter().map(|seen| Disk::at(seen.path()));
        all.filter(|disk| disk.path() != boot.path() && has_p3(disk))
            .map(|disk| disk.path().display().to_string())
            .collect()
    };
    // Its driver may come later than that of the boot disk.
    let until = tokio::time::Instant::now() + DISK_PATIENCE;
    let mut found = others();
    while found.is_empty() && tokio::time::Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(200)).await;
        found = others();
    }
    Ok(elsewhere(found).map(Disk::at))
}

fn look(disk: &Disk) -> anyhow::Result<Seen> {
    let table = disk.table()?;
    let slot = table.by_name(Role::ImgA.name()).map_or(Bytes(0), |(_, p)| p.length());
    let persist = match table.partitions().get(&Role::Persist.number()) {
        None => Persist::Missing,
        Some(partition) => {
            let number = Role::Persist.number();
            disk.announce(number, partition.first, partition.length())?;
            if partition.attributes.0 & UNFINISHED != 0 {
                Persist::Unfinished
            } else {
                match block::look(&disk.partition(number))? {
                    (_, true) => Persist::Blank,
                    (head, _) if is_ext4(&head) => Persist::Ext4,
                    (head, _) => Persist::Other(device::storage::describe(&head).to_owned()),
                }
            }
        }
    };
    let other_slot = table.partitions().contains_key(&Role::ImgB.number());
    Ok(Seen { slot, other_slot, persist, free: largest_gap(&table) })
}

/// The size that one more partition could have.
fn largest_gap(table: &Gpt) -> Bytes {
    let mut trial = table.clone();
    let number = Role::Persist.number();
    trial
        .add_in_largest_gap(number, Role::Persist.partition(), None)
        .map_or(Bytes(0), Partition::length)
}

fn apply(
    step: Op,
    disk: &Disk,
    persist: &Path,
    done: &mut Storage,
) -> Result<(), block::BlockError> {
    let number = Role::Persist.number();
    let device = disk.partition(number);
    match step {
        Op::AddPartitions => add_partitions(disk),
        Op::MarkUnfinished => mark(disk, true),
        Op::MarkFinished => mark(disk, false),
        Op::Format => block::make_ext4(&device),
        Op::Check => {
            done.repaired = block::check_ext4(&device)?;
            Ok(())
        }
        Op::Mount => block::mount_ext4(&device, persist),
    }
}

fn add_partitions(disk: &Disk) -> Result<(), block::BlockError> {
    let mut table = disk.table()?;
    let no_room = |error: formats::gpt::AddError| block::BlockError::Io {
        doing: "add partitions to",
        path: disk.path().to_owned(),
        source: std::io::Error::other(error),
    };
    if !table.partitions().contains_key(&Role::ImgB.number()) {
        let size = table.by_name(Role::ImgA.name()).map(|(_, p)| p.length());
        let number = Role::ImgB.number();
        table.add_in_largest_gap(number, Role::ImgB.partition(), size).map_err(no_room)?;
    }
    let mut persist = Role::Persist.partition();
    persist.attributes = Attributes(UNFINISHED);
    table.add_in_largest_gap(Role::Persist.number(), persist, None).map_err(no_room)?;
    disk.write_table(&table)?;
    for role in [Role::ImgB, Role::Persist] {
        if let Some(partition) = table.partitions().get(&role.number()) {
            disk.announce(role.number(), partition.first, partition.length())?;
        }
    }
    Ok(())
}

/// Sets or takes the mark; everything else of the table stays.
fn mark(disk: &Disk, unfinished: bool) -> Result<(), block::BlockError> {
    let mut table = disk.table()?;
    let number = Role::Persist.number();
    if let Some(have) = table.partitions().get(&number).map(|p| p.attributes) {
        let mark = if unfinished { UNFINISHED } else { 0 };
        table.set_attributes(number, Attributes(have.0 & !UNFINISHED | mark));
    }
    disk.write_table(&table)
}

/// Says why on the console and waits for the end of the node.
async fn stay(ctx: &Context, why: &str) -> anyhow::Result<()> {
    tracing::error!("{why}");
    ctx.status(&format!("stopped: {why}"));
    // The log's service waits for us, so the console is the only place where a person can read it.
    let line = format!("\neved storage: {why}\neved storage: the node stops here\n");
    let _ = OpenOptions::new()
        .write(true)
        .open("/dev/console")
        .and_then(|mut console| console.write_all(line.as_bytes()));
    ctx.stopped().await;
    anyhow::bail!("there is no /persist: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk as the builder leaves it: system partition, one slot, CONFIG; the rest is free.
    fn fresh(dir: &tempfile::TempDir) -> Disk {
        let (path, size) = (dir.path().join("disk"), Bytes::mib(256));
        std::fs::File::create(&path).unwrap().set_len(size.0).unwrap();
        let mut table = Gpt::new(formats::layout::DISK, size).unwrap();
        for (role, mib) in [(Role::Esp, 8), (Role::ImgA, 32), (Role::Config, 5)] {
            table
                .add_in_largest_gap(role.number(), role.partition(), Some(Bytes::mib(mib)))
                .unwrap();
        }
        let disk = Disk::at(path);
        disk.write_table(&table).unwrap();
        disk
    }

    #[test]
    fn the_first_boot_adds_the_other_slot_and_persist_and_keeps_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let disk = fresh(&dir);
        let before = disk.table().unwrap();
        // A file cannot be announced to the kernel; the table is written before that.
        let _ = add_partitions(&disk);
        let after = disk.table().unwrap();
        for (number, partition) in before.partitions() {
            assert_eq!(after.partitions().get(number), Some(partition));
        }
        assert_eq!(after.partitions()[&3].length(), Bytes::mib(32));
        assert!(after.partitions()[&9].length() > Bytes::mib(150));
        assert_eq!(after.partitions()[&9].attributes.0, UNFINISHED);

        mark(&disk, false).unwrap();
        assert_eq!(disk.table().unwrap().partitions()[&9].attributes.0, 0);
        assert_eq!(largest_gap(&after), Bytes(0));
    }
}
