//! The disks of a machine, and which of them is meant.

use std::fmt;

use formats::gpt::Gpt;
use formats::layout::Role;
use model::Bytes;
pub use model::installer::Transport;

use super::{Nuke, Refusal, Wish};

/// A disk of the machine, as found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// As the kernel calls it, `sda`; or the path of a file that stands for one.
    pub name: String,
    /// Its size.
    pub size: Bytes,
    /// Bytes of a logical sector.
    pub sector: u32,
    /// How it is attached.
    pub transport: Transport,
    /// Whether it can be written to at all.
    pub read_only: bool,
    /// Whether the installer was booted from it.
    pub medium: bool,
    /// Who has it or a partition of it open, in words.
    pub in_use: Option<String>,
    /// What is on it.
    pub found: Found,
}

/// What is on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Zeroes where a table would stand.
    Blank,
    /// A node.
    Eve(Box<Gpt>),
    /// Something else, in words.
    Other(String),
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Found::Blank => f.write_str("nothing"),
            Found::Eve(_) => f.write_str("an EVE node"),
            Found::Other(what) => f.write_str(what),
        }
    }
}

/// What stands on a disk, from its partition table and its first sectors.
pub fn recognize(table: Option<Gpt>, head: &[u8]) -> Found {
    let Some(table) = table else {
        return match head {
            _ if head.iter().all(|b| *b == 0) => Found::Blank,
            [.., 0x55, 0xaa] if head.len() == 512 => {
                Found::Other("a master boot record without a GPT".to_owned())
            }
            _ => Found::Other("something without a partition table".to_owned()),
        };
    };
    if Role::ImgA.find(&table).is_some() {
        return Found::Eve(Box::new(table));
    }
    let names: Vec<&str> = table.partitions().values().map(|p| p.name.as_str()).collect();
    Found::Other(match names[..] {
        _ if Role::Installer.find(&table).is_some() => "an installer of EVE".to_owned(),
        // The tables of Android boards begin with their boot loader's partitions.
        _ if ["fastboot", "mcuimage", "vrl"].iter().any(|n| names.contains(n)) => {
            "an Android system".to_owned()
        }
        [] => "an empty partition table".to_owned(),
        _ => format!("partitions of another system ({})", listed(&names)),
    })
}

fn listed(names: &[&str]) -> String {
    let shown = names.iter().take(6).map(|n| if n.is_empty() { "unnamed" } else { n });
    let more = if names.len() > 6 { ", …" } else { "" };
    format!("{}{more}", shown.collect::<Vec<_>>().join(", "))
}

impl Disk {
    /// Whether it may be written to.
    pub(super) fn usable(&self) -> Result<(), Refusal> {
        let disk = || self.name.clone();
        if self.medium {
            return Err(Refusal::Medium { disk: disk() });
        }
        if let Some(by) = &self.in_use {
            return Err(Refusal::InUse { disk: disk(), by: by.clone() });
        }
        if self.read_only {
            return Err(Refusal::ReadOnly { disk: disk() });
        }
        if self.sector != 512 {
            return Err(Refusal::Sectors { disk: disk(), sector: self.sector });
        }
        Ok(())
    }
}

/// The disk to install onto: the one that was named, else the only one of the best transport.
pub fn choose<'a>(wish: &Wish, disks: &'a [Disk]) -> Result<&'a Disk, Refusal> {
    if let Some(name) = &wish.disk {
        let disk = named(name, disks)?;
        return disk.usable().map(|()| disk);
    }
    let mut usable: Vec<&Disk> = disks
        .iter()
        .filter(|d| d.transport != Transport::Virtual && d.usable().is_ok())
        .filter(|d| !wish.persist.contains(&d.name))
        .collect();
    usable.sort_by_key(|disk| (disk.transport, disk.name.clone()));
    let best: Vec<&Disk> =
        usable.iter().copied().filter(|d| d.transport == usable[0].transport).collect();
    match best[..] {
        [] => Err(Refusal::NoDisk { seen: seen(disks) }),
        [disk] => Ok(disk),
        _ => {
            let names = best.iter().map(|d| format!("{} ({}, {})", d.name, d.size, d.found));
            Err(Refusal::Several { names: names.collect::<Vec<_>>().join(", ") })
        }
    }
}

/// The disk for P3, if it is another than `system`.
pub(super) fn for_persist<'a>(
    wish: &Wish,
    disks: &'a [Disk],
    system: &Disk,
) -> Result<Option<&'a Disk>, Refusal> {
    match &wish.persist[..] {
        [] => Ok(None),
        [one] if *one == system.name => Ok(None),
        [one] => {
            let disk = named(one, disks)?;
            disk.usable().map(|()| Some(disk))
        }
        several => Err(Refusal::Pool { disks: several.join(", ") }),
    }
}

/// The disks whose tables are to be wiped: those that were named, or all that may be.
pub fn to_nuke<'a>(wish: &Wish, disks: &'a [Disk]) -> Result<Vec<&'a Disk>, Refusal> {
    match &wish.nuke {
        Nuke::No => Ok(Vec::new()),
        Nuke::Disks(names) => names
            .iter()
            .map(|name| named(name, disks).and_then(|d| d.usable().map(|()| d)))
            .collect(),
        Nuke::All => {
            let real = |d: &&Disk| d.transport != Transport::Virtual && d.usable().is_ok();
            Ok(disks.iter().filter(real).collect())
        }
    }
}

fn named<'a>(name: &str, disks: &'a [Disk]) -> Result<&'a Disk, Refusal> {
    let missing = || Refusal::NotThere { name: name.to_owned(), seen: seen(disks) };
    disks.iter().find(|d| d.name == name).ok_or_else(missing)
}

/// Every disk with its size, and what speaks against it.
fn seen(disks: &[Disk]) -> String {
    if disks.is_empty() {
        return "none".to_owned();
    }
    let one = |disk: &Disk| {
        let against = match disk.usable() {
            Err(why) => format!(", {why}"),
            Ok(()) => String::new(),
        };
        format!("{} ({}, {}{against})", disk.name, disk.size, disk.transport)
    };
    disks.iter().map(one).collect::<Vec<_>>().join(", ")
}
