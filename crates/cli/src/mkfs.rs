//! `eve mkfs`: a file system of a tar.

use std::fs::File;
use std::io::{self, IsTerminal, Seek};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::Context;
use builder::mkfs::{FileSystem, make, spool};
use formats::squashfs::Method;
use model::Bytes;

use crate::convert::size;
use crate::out::{self, OrAdvise, Step, WrongUse};

/// Make a file system of a tar: squashfs, ext4, FAT
///
/// The tar comes from standard input. Owners, rights, times, devices, links and
/// extended attributes are kept, without root: what the tar says twice, the last
/// time counts. The same tar and options give the same bytes.
///
///   squashfs   for reading only; packed on all processors
///   ext4       takes mke2fs and debugfs (Debian package e2fsprogs)
///   fat        FAT12, FAT16 or FAT32 by size; files and folders only
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// The file system
    #[arg(value_enum)]
    kind: Kind,
    /// Where the image goes; one that is there is replaced
    #[arg(short, long, value_name = "IMG")]
    output: PathBuf,
    /// squashfs: how it is packed. xz takes filters for x86 and ARM programs where they help
    #[arg(long, value_enum, default_value_t = Comp::Zstd)]
    comp: Comp,
    /// squashfs: the effort of gzip (1 to 12, 7 if not given) or zstd (1 to 22, 15 if not given)
    #[arg(long, value_name = "N")]
    level: Option<u8>,
    /// squashfs: size of a block, a power of two from 4K to 1M. Larger packs better, smaller reads
    /// less to find a page
    #[arg(long, default_value = "128K", value_parser = size)]
    block: Bytes,
    /// squashfs: keep packed blocks in this folder, and take them from there
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// ext4, fat: size of the image, with K, M, G or T: 512M. By default a tenth more than the tar
    /// takes
    #[arg(long, value_parser = size)]
    size: Option<Bytes>,
    /// ext4, fat: the label
    #[arg(long, value_name = "TEXT")]
    label: Option<String>,
    /// The time of the file system itself, in seconds since 1970; by default the latest in the tar
    #[arg(long, env = "SOURCE_DATE_EPOCH", value_name = "SECONDS")]
    time: Option<u64>,
    /// Print what was made as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    Squashfs,
    Ext4,
    Fat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Comp {
    Gzip,
    Xz,
    Zstd,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let file_system = file_system(&args)?;
    let tar = standard_input(&args.output)?;
    let step = Step::start("making the file system");
    let made = make(tar, "standard input", &file_system, args.time, &args.output).or_advise()?;
    step.done(format!("{} with {} entries", made.size, made.entries));
    if args.json { out::json(&made) } else { Ok(()) }
}

fn file_system(args: &Args) -> Result<FileSystem, WrongUse> {
    let label = |otherwise: &str| args.label.clone().unwrap_or_else(|| otherwise.to_owned());
    let size = args.size;
    Ok(match args.kind {
        Kind::Squashfs => {
            let sized = size.is_some() || args.label.is_some();
            if sized {
                let why = "a squashfs is as large as it gets, and has no label: leave out --size \
                           and --label";
                return Err(WrongUse(why.to_owned()));
            }
            let known = args.block.0.is_power_of_two() && (4096..=1 << 20).contains(&args.block.0);
            if !known {
                let why = "--block is a power of two from 4K to 1M";
                return Err(WrongUse(why.to_owned()));
            }
            let (method, keep) = (method(args.comp, args.level)?, args.keep.clone());
            FileSystem::Squashfs { method, block: args.block, keep }
        }
        Kind::Ext4 => FileSystem::Ext4 { size, label: label("") },
        Kind::Fat => FileSystem::Fat { size, label: label("EVE") },
    })
}

fn method(comp: Comp, level: Option<u8>) -> Result<Method, WrongUse> {
    match (comp, level) {
        (Comp::Gzip, None) => Ok(Method::Gzip(7)),
        (Comp::Gzip, Some(level @ 1..=12)) => Ok(Method::Gzip(level)),
        (Comp::Zstd, None) => Ok(Method::Zstd(15)),
        (Comp::Zstd, Some(level @ 1..=22)) => Ok(Method::Zstd(level)),
        (Comp::Xz, None) => Ok(Method::Xz),
        (Comp::Xz, Some(_)) => Err(WrongUse("xz takes no --level".to_owned())),
        (_, Some(_)) => Err(WrongUse("gzip has levels 1 to 12, zstd 1 to 22".to_owned())),
    }
}

/// Standard input as a file that can be read at any place: itself, if it is one that stands at its
/// start, else a copy beside the output.
fn standard_input(output: &Path) -> anyhow::Result<File> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        let text = "nothing comes from standard input: give it the tar, `< rootfs.tar`";
        return Err(WrongUse(text.to_owned()).into());
    }
    let folder = output.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        let text = format!("there is no folder {} for the image", folder.display());
        return Err(out::advised(text, "make it, or give another --output"));
    }
    let owned = stdin.as_fd().try_clone_to_owned().context("cannot read standard input")?;
    let mut file = File::from(owned);
    let is_file = file.metadata().is_ok_and(|about| about.is_file());
    if is_file && file.stream_position().is_ok_and(|at| at == 0) {
        return Ok(file);
    }
    spool(file, folder).or_advise()
}
