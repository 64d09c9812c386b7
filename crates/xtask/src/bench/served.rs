//! A controller and a fleet as processes, and what the kernel says the controller takes.

use std::fs;
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::tool::{command, output};

/// So long a controller may take until it listens.
const START: Duration = Duration::from_secs(60);

/// A controller; it is ended when this is dropped.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    data: PathBuf,
    /// Ticks of the processor's clock in a second.
    ticks: f64,
}

impl Server {
    /// Starts `eve controller serve` with its data in `data`, on a free port of this machine.
    pub(super) fn start(eve: &Path, data: &Path, database: Option<&str>) -> anyhow::Result<Server> {
        fs::create_dir_all(data)?;
        let log = fs::File::create(data.with_extension("log"))?;
        let mut serve = command(&eve.display().to_string());
        serve.args(["controller", "serve", "--listen", "127.0.0.1:0", "--data"]).arg(data);
        serve.arg("--registry").arg(data.with_extension("images"));
        if let Some(url) = database {
            serve.args(["--database", url]);
        }
        let child = serve.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let ticks = output("getconf", &["CLK_TCK"]).and_then(|t| t.trim().parse().ok());
        let mut server = Server { child, data: data.to_owned(), ticks: ticks.unwrap_or(100.0) };
        let until = Instant::now() + START;
        while !data.join("endpoint").exists() {
            if let Some(status) = server.child.try_wait()? {
                let said = fs::read_to_string(data.with_extension("log")).unwrap_or_default();
                bail!("the controller ended with {status}:\n{said}");
            }
            if Instant::now() > until {
                bail!("the controller does not listen after {} s", START.as_secs());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }

    pub(super) fn data(&self) -> &Path {
        &self.data
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn proc(&self, file: &str) -> anyhow::Result<String> {
        let path = format!("/proc/{}/{file}", self.child.id());
        fs::read_to_string(&path).with_context(|| format!("{path}: has the controller ended?"))
    }

    /// Processor seconds so far, of all its threads (proc(5): utime and stime).
    pub(super) fn cpu(&self) -> anyhow::Result<f64> {
        let stat = self.proc("stat")?;
        // The name stands in parentheses and may hold anything; behind it comes field 3.
        let after = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
        let fields: Vec<f64> =
            after.split_whitespace().skip(11).take(2).flat_map(str::parse).collect();
        let [user, system] = fields[..] else { bail!("/proc/PID/stat says {stat:?}") };
        Ok((user + system) / self.ticks)
    }

    /// Resident memory in KiB, and the most it was since [`Server::forget_peak`].
    pub(super) fn memory(&self) -> anyhow::Result<(u64, u64)> {
        let status = self.proc("status")?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        let both = (field("VmRSS:"), field("VmHWM:"));
        let (Some(now), Some(peak)) = both else { bail!("/proc/PID/status says {status:?}") };
        Ok((now, peak))
    }

    /// From now on the peak of memory is counted anew (proc(5): clear_refs).
    pub(super) fn forget_peak(&self) -> anyhow::Result<()> {
        let path = format!("/proc/{}/clear_refs", self.child.id());
        let mut file = fs::OpenOptions::new().write(true).open(&path).context(path)?;
        Ok(file.write_all(b"5")?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended; its data is thrown away.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A fleet; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Fleet {
    child: Child,
    commands: Option<ChildStdin>,
    answers: Lines<BufReader<ChildStdout>>,
}

/// What a fleet tells of a command (`crates/testbed/src/bin/fleet.rs`); times in microseconds.
#[derive(Debug, Deserialize)]
pub(super) struct Told {
    pub(super) seconds: f64,
    pub(super) requests: u64,
    pub(super) failed: u64,
    pub(super) failure: Option<String>,
    pub(super) p50: u32,
    pub(super) p99: u32,
    pub(super) status: u16,
}

impl Fleet {
    pub(super) fn start(fleet: &Path, servers: &[Server]) -> anyhow::Result<Fleet> {
        let mut start = command(&fleet.display().to_string());
        start.arg("full").args(servers.iter().map(Server::data));
        let mut child = start.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let commands = child.stdin.take();
        let answers = child.stdout.take().context("the fleet has no stdout")?;
        Ok(Fleet { child, commands, answers: BufReader::new(answers).lines() })
    }

    /// Gives a command and waits for what it tells.
    pub(super) fn ask(&mut self, command: &serde_json::Value) -> anyhow::Result<Told> {
        let commands = self.commands.as_mut().context("the fleet has no stdin")?;
        writeln!(commands, "{command}")?;
        commands.flush()?;
        let line =
            self.answers.next().with_context(|| format!("the fleet ended at {command}"))??;
        let told: Told = serde_json::from_str(&line).with_context(|| line.clone())?;
        if let Some(why) = &told.failure {
            println!("  {} requests failed; the first: {why}", told.failed);
        }
        Ok(told)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        drop(self.commands.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
