//! Image making, side by side with the tools that others use: CPU time, wall time, memory, size.
//!
//! Runs take turns (ours, theirs, ours, theirs), so that whatever else the machine does meets both.
//! Of several runs the one with the least CPU time counts.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::chain;
use super::cost::{Cost, Run, mib, ratios, show, size, succeed};
use crate::tool::{self, cargo, command};

const ROUNDS: usize = 2;
/// Where the tree comes from, and the largest file of it: programs, libraries, texts, data.
const SOURCES: [&str; 6] = [
    "usr/bin",
    "usr/sbin",
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/python3",
    "usr/share/perl",
    "usr/share/zoneinfo",
];
const LARGEST: &str = "-5000k";
/// xz is slow: it gets one file in so many.
const FEWER: usize = 8;

/// Measures and prints a table.
pub(crate) fn run() -> anyhow::Result<()> {
    let eve = program()?;
    let folder = tool::root().join("target/bench");
    fs::create_dir_all(&folder)?;
    let (all, few) = trees(&folder)?;
    head(size(&all)?);
    println!("for xz: {} MiB", mib(size(&few)?));
    for (name, tar, ours, theirs) in [
        ("gzip", &all, &["--comp", "gzip"][..], &["-comp", "gzip"][..]),
        ("zstd", &all, &["--comp", "zstd"], &["-comp", "zstd", "-Xcompression-level", "15"]),
        ("xz", &few, &["--comp", "xz"], &["-comp", "xz", "-Xbcj", "x86,arm"]),
    ] {
        let image = folder.join("image");
        let mut best: [Option<Cost>; 2] = [None, None];
        for _ in 0..ROUNDS {
            let ours = Run::new(&eve, &mkfs(ours, &image)).stdin(tar).measure(&image)?;
            let theirs = mksquashfs(theirs, &image);
            let theirs = Run::new("mksquashfs", &theirs).stdin(tar).measure(&image)?;
            for (best, cost) in best.iter_mut().zip([ours, theirs]) {
                if best.is_none_or(|best| cost.cpu < best.cpu) {
                    *best = Some(cost);
                }
            }
        }
        let [Some(ours), Some(theirs)] = best else { bail!("there were no rounds") };
        show(&format!("squashfs {name}: eve"), ours);
        show(&format!("squashfs {name}: mksquashfs"), theirs);
        ratios(ours, theirs);
    }
    one_file(&eve, &all, &folder)?;
    chain::run(&eve, &all, &folder.join("chain"))
}

/// Measures the whole way only.
pub(crate) fn disk() -> anyhow::Result<()> {
    let eve = program()?;
    let folder = tool::root().join("target/bench");
    fs::create_dir_all(&folder)?;
    let (all, _) = trees(&folder)?;
    head(size(&all)?);
    chain::run(&eve, &all, &folder.join("chain"))
}

fn head(size: u64) {
    println!("tree: {} MiB", mib(size));
    println!("{:28} {:>8} {:>8} {:>8} {:>10}", "", "CPU s", "wall s", "MiB", "bytes");
}

/// One changed file, with the blocks of the image before it kept.
fn one_file(eve: &str, all: &Path, folder: &Path) -> anyhow::Result<()> {
    let (image, kept, changed) =
        (folder.join("image"), folder.join("kept"), folder.join("changed.tar"));
    if kept.exists() {
        fs::remove_dir_all(&kept)?;
    }
    fs::copy(all, &changed)?;
    let kept_text = kept.display().to_string();
    let args = mkfs(&["--comp", "zstd", "--keep", &kept_text], &image);
    let cold = Run::new(eve, &args).stdin(all).measure(&image)?;
    // What a tar says twice, the last time counts.
    let file = folder.join("usr/bin/env");
    fs::create_dir_all(file.parent().unwrap_or(folder))?;
    fs::copy("/usr/bin/id", &file)?;
    let (at, folder) = (changed.display().to_string(), folder.display().to_string());
    succeed("tar", &["-rf", &at, "-C", &folder, "usr/bin/env"])?;
    let warm = Run::new(eve, &args).stdin(&changed).measure(&image)?;
    show("squashfs zstd, cold, kept", cold);
    show("one file changed", warm);
    println!("  wall {:.3} of cold", warm.wall / cold.wall);
    let clean = folder.clone() + "/clean";
    let clean = Path::new(&clean);
    Run::new(eve, &mkfs(&["--comp", "zstd"], clean)).stdin(&changed).measure(clean)?;
    if fs::read(clean)? == fs::read(&image)? {
        println!("  the same bytes as without kept blocks");
        Ok(())
    } else {
        bail!("with kept blocks the image has other bytes")
    }
}

/// `eve`, compiled for speed; or what `EVE_BENCH_PROGRAM` names.
fn program() -> anyhow::Result<String> {
    if let Ok(program) = std::env::var("EVE_BENCH_PROGRAM") {
        return Ok(program);
    }
    tool::run(&cargo(), &["build", "-q", "--release", "-p", "cli"])?;
    let target = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".to_owned());
    Ok(tool::root().join(target).join("release/eve").display().to_string())
}

/// Tars of this machine's files: all of them, and one in several.
fn trees(folder: &Path) -> anyhow::Result<(PathBuf, PathBuf)> {
    let mut args = SOURCES.to_vec();
    args.extend(["(", "-type", "f", "-size", LARGEST, "-o", "-type", "l", ")", "-print0"]);
    let found = command("find").current_dir("/").args(&args).output().context("find")?;
    let mut names: Vec<&[u8]> = found.stdout.split(|b| *b == 0).filter(|n| !n.is_empty()).collect();
    names.sort_unstable();
    let few = names.iter().step_by(FEWER).copied().collect::<Vec<_>>();
    let mut made = Vec::new();
    for (name, names) in [("all", names), ("few", few)] {
        let (list, tar) = (folder.join(name), folder.join(format!("{name}.tar")));
        let mut body = names.join(&0);
        body.push(0);
        write(&list, &body)?;
        let (list, to) = (list.display().to_string(), tar.display().to_string());
        let args = ["-cf", &to, "-C", "/", "--null", "--no-recursion", "-T", &list];
        succeed("tar", &args)?;
        made.push(tar);
    }
    let mut made = made.into_iter();
    made.next().zip(made.next()).context("no tars were made")
}

pub(super) fn write(path: &Path, body: &[u8]) -> anyhow::Result<()> {
    let mut file = fs::File::create(path)?;
    Ok(std::io::Write::write_all(&mut file, body)?)
}

fn mkfs(more: &[&str], image: &Path) -> Vec<String> {
    let image = image.display().to_string();
    let args = ["mkfs", "squashfs", "--block", "128K", "--time", "1", "-o", &image];
    args.iter().chain(more).map(|arg| (*arg).to_owned()).collect()
}

fn mksquashfs(more: &[&str], image: &Path) -> Vec<String> {
    let image = image.display().to_string();
    let args = ["-", &image, "-tar", "-b", "128K", "-noappend", "-quiet", "-no-progress"];
    args.iter().chain(more).map(|arg| (*arg).to_owned()).collect()
}
