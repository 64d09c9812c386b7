//! What a run of a program costs, and how that is shown.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, bail};

use crate::tool::command;

/// What a program took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    /// Processor time, in seconds.
    pub cpu: f64,
    /// Time that passed, in seconds.
    pub wall: f64,
    /// Most memory that one of its processes had at any time, in MiB.
    pub memory: f64,
    /// Length of what it made, in bytes.
    pub size: u64,
}

/// A program that is to be measured.
#[derive(Debug)]
pub(super) struct Run<'a> {
    program: &'a str,
    args: &'a [String],
    folder: Option<&'a Path>,
    stdin: Option<&'a Path>,
    env: Vec<(&'a str, String)>,
}

impl<'a> Run<'a> {
    pub(super) fn new(program: &'a str, args: &'a [String]) -> Run<'a> {
        Run { program, args, folder: None, stdin: None, env: Vec::new() }
    }

    /// A file as its standard input.
    pub(super) fn stdin(self, path: &'a Path) -> Run<'a> {
        Run { stdin: Some(path), ..self }
    }

    /// The folder that it runs in.
    pub(super) fn within(self, path: &'a Path) -> Run<'a> {
        Run { folder: Some(path), ..self }
    }

    /// A variable of its environment.
    pub(super) fn env(mut self, name: &'a str, value: impl Into<String>) -> Run<'a> {
        self.env.push((name, value.into()));
        self
    }

    /// Runs it. `image` is what it makes; what is there before goes away.
    pub(super) fn measure(self, image: &Path) -> anyhow::Result<Cost> {
        if image.exists() {
            fs::remove_file(image)?;
        }
        let said = image.with_extension("time");
        let log = image.with_extension("log");
        let mut command = command("time");
        command.args(["-q", "-f", "%U %S %e %M", "-o"]).arg(&said).arg(self.program);
        command.args(self.args).envs(self.env);
        command.stdout(std::process::Stdio::null()).stderr(create(&log)?);
        if let Some(folder) = self.folder {
            command.current_dir(folder);
        }
        if let Some(path) = self.stdin {
            command.stdin(File::open(path)?);
        }
        let status = command.status().context("cannot start `time` (Debian package time)")?;
        if !status.success() {
            let text = fs::read_to_string(&log).unwrap_or_default();
            bail!("`{} {}` ended with {status}:\n{text}", self.program, self.args.join(" "));
        }
        let text = fs::read_to_string(&said)?;
        let numbers: Vec<f64> = text.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        let [user, system, wall, kib] = numbers[..] else { bail!("`time` said {text:?}") };
        Ok(Cost { cpu: user + system, wall, memory: kib / 1024.0, size: size(image)? })
    }
}

/// Runs a program; what it says is told only if it fails.
pub(super) fn succeed(program: &str, args: &[&str]) -> anyhow::Result<()> {
    let out = command(program).args(args).output().with_context(|| program.to_owned())?;
    if out.status.success() {
        return Ok(());
    }
    bail!("{program}: {}", String::from_utf8_lossy(&out.stderr))
}

/// Prints a line of the table.
pub(super) fn show(name: &str, cost: Cost) {
    let Cost { cpu, wall, memory, size } = cost;
    println!("{name:28} {cpu:8.2} {wall:8.2} {memory:8.1} {size:>10}");
}

/// Prints how one compares with another.
#[expect(clippy::cast_precision_loss, reason = "sizes of images are far below 2^52")]
pub(super) fn ratios(ours: Cost, theirs: Cost) {
    let (cpu, wall) = (ours.cpu / theirs.cpu, ours.wall / theirs.wall);
    println!("  CPU {cpu:.2}, wall {wall:.2}, size {:.4}", ours.size as f64 / theirs.size as f64);
}

pub(super) fn size(path: &Path) -> anyhow::Result<u64> {
    Ok(fs::metadata(path).with_context(|| path.display().to_string())?.len())
}

pub(super) fn mib(bytes: u64) -> u64 {
    bytes >> 20
}

fn create(path: &Path) -> anyhow::Result<File> {
    File::create(path).with_context(|| path.display().to_string())
}
