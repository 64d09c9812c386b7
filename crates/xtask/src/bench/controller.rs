//! A controller under a simulated fleet: the server is a process of its own, the fleet another, and
//! processor time is that of the server alone.
//!
//! Phases are short and interleaved, because what else this machine does changes from minute to
//! minute. The reference figures are those of the open controller in Go with EC keys, on a machine
//! of the same kind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::json;

use super::served::{Fleet, Server, Told};
use crate::tool::{self, cargo, command, root};

/// Milliseconds of processor per idle poll, on a new TLS connection and on a kept one.
const REFERENCE: [f64; 2] = [1.7, 0.6];
/// What we promise for the same.
const PROMISED: [f64; 2] = [0.6, 0.15];
/// Per core of the controller.
const STEADY_DEVICES: u32 = 20_000;
const BODY: u64 = 300 << 20;
/// Devices in one folder of documents.
const WRITTEN: u32 = 1000;

/// How to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Devices to enrol
    #[arg(long, default_value_t = 100_000)]
    devices: u32,
    /// An empty database in which the controller keeps its data: postgres://… [default: SQLite in its folder]
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// Processes of the controller, side by side; more than one takes --database
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    processes: u8,
    /// Some 20 seconds with a few hundred devices: shows that it works, and no figures to go by
    #[arg(long)]
    quick: bool,
    /// Take the programs `eve` and `fleet` from here instead of building them
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
}

/// What a mode does.
struct Scale {
    devices: u32,
    rounds: usize,
    /// Seconds of a phase.
    phase: f64,
    steady: u32,
    interval: u64,
    steady_seconds: u64,
}

impl Options {
    fn scale(&self) -> Scale {
        if self.quick {
            let devices = self.devices.min(300);
            Scale {
                devices,
                rounds: 1,
                phase: 1.0,
                steady: devices,
                interval: 5,
                steady_seconds: 5,
            }
        } else {
            Scale {
                devices: self.devices,
                rounds: 3,
                phase: 5.0,
                steady: self.devices.min(STEADY_DEVICES * u32::from(self.processes)),
                interval: 60,
                steady_seconds: 60,
            }
        }
    }
}

/// Measures and prints.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let programs = match &options.programs {
        Some(folder) => folder.clone(),
        None => build()?,
    };
    let folder = root().join("target/bench/controller");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    let mut servers: Vec<Server> = Vec::new();
    for n in 0..options.processes {
        let data = folder.join(format!("data-{n}"));
        if let Some(first) = servers.first() {
            // Processes of one controller have the same certificates.
            fs::create_dir_all(&data)?;
            let copied =
                command("cp").arg("-a").arg(first.data().join("pki")).arg(&data).status()?;
            ensure!(copied.success(), "cannot copy the controller's certificates");
        }
        let server = Server::start(&programs.join("eve"), &data, options.database.as_deref())?;
        servers.push(server);
    }
    let fleet = Fleet::start(&programs.join("fleet"), &servers)?;
    let scale = options.scale();
    let database = options.database.is_some();
    Bench { servers, fleet, scale, folder, database }.all()
}

/// Builds both programs, optimized; where they are.
fn build() -> anyhow::Result<PathBuf> {
    let args =
        ["build", "--release", "-p", "cli", "-p", "testbed", "--bin", "eve", "--bin", "fleet"];
    tool::run(&cargo(), &args)?;
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    Ok(target.join("release"))
}

struct Bench {
    servers: Vec<Server>,
    fleet: Fleet,
    scale: Scale,
    folder: PathBuf,
    /// Whether a database server keeps the data.
    database: bool,
}

impl Bench {
    fn all(&mut self) -> anyhow::Result<()> {
        self.enrol()?;
        self.interleaved()?;
        self.steady()?;
        self.operators()?;
        self.body()?;
        self.durable()
    }

    /// Processor seconds of all processes of the controller while the fleet does something.
    fn measured(&mut self, command: &serde_json::Value) -> anyhow::Result<(Told, f64)> {
        let cpu = |servers: &[Server]| servers.iter().map(Server::cpu).sum::<anyhow::Result<f64>>();
        let before = cpu(&self.servers)?;
        let told = self.fleet.ask(command)?;
        Ok((told, cpu(&self.servers)? - before))
    }

    /// Resident memory of all processes, in KiB.
    fn memory(&self) -> anyhow::Result<u64> {
        Ok(self
            .servers
            .iter()
            .map(Server::memory)
            .collect::<anyhow::Result<Vec<_>>>()?
            .iter()
            .map(|m| m.0)
            .sum())
    }

    fn enrol(&mut self) -> anyhow::Result<()> {
        let devices = self.scale.devices;
        let empty = self.memory()?;
        self.fleet.ask(&json!({"do": "admit"}))?;
        let (told, cpu) =
            self.measured(&json!({"do": "enrol", "devices": devices, "workers": 16}))?;
        ensure!(
            told.requests == u64::from(devices),
            "{} of {devices} devices enrolled",
            told.requests
        );
        let full = self.memory()?;
        println!(
            "enrolled {devices} devices in {:.1} s: {:.0} a second, {:.2} ms of processor each",
            told.seconds,
            f64::from(devices) / told.seconds,
            cpu * 1000.0 / f64::from(devices),
        );
        println!(
            "memory: {} KiB empty, {full} KiB with them: {:.1} KiB a device (promised: 10)",
            empty,
            kib(full.saturating_sub(empty)) / f64::from(devices),
        );
        Ok(())
    }

    /// Processor time of each kind of request, round about.
    fn interleaved(&mut self) -> anyhow::Result<()> {
        let kinds = [
            ("idle poll, new TLS connection", "poll", false),
            ("idle poll, kept connection", "poll", true),
            ("metrics, new TLS connection", "metrics", false),
            ("metrics, kept connection", "metrics", true),
        ];
        let mut costs: [Vec<f64>; 4] = Default::default();
        let mut times: [Vec<(u32, u32)>; 4] = Default::default();
        for _ in 0..self.scale.rounds {
            for (n, (_, kind, kept)) in kinds.iter().enumerate() {
                let (told, cpu) = self.measured(&json!({
                    "do": "hammer", "kind": kind, "kept": kept, "workers": 4,
                    "seconds": self.scale.phase,
                }))?;
                ensure!(told.requests > 0, "no request of a phase went well");
                costs[n].push(cpu * 1000.0 / count(told.requests));
                times[n].push((told.p50, told.p99));
            }
        }
        println!("{:32} {:>9} {:>9} {:>9}", "", "CPU ms", "p50 ms", "p99 ms");
        for (n, (name, _, _)) in kinds.iter().enumerate() {
            let cost = median(&mut costs[n]);
            times[n].sort_unstable();
            let (p50, p99) = times[n].get(times[n].len() / 2).copied().unwrap_or_default();
            print!("{name:32} {cost:9.3} {:9.2} {:9.2}", millis(p50), millis(p99));
            match (REFERENCE.get(n), PROMISED.get(n)) {
                (Some(reference), Some(promised)) => {
                    println!("  {:.2} of the reference, promised {promised} ms", cost / reference);
                }
                _ => println!(),
            }
        }
        Ok(())
    }

    fn steady(&mut self) -> anyhow::Result<()> {
        let Scale { steady, interval, steady_seconds, .. } = self.scale;
        let (told, cpu) = self.measured(&json!({
            "do": "steady", "devices": steady, "interval": interval, "workers": 64,
            "seconds": steady_seconds,
        }))?;
        println!(
            "steady: {steady} devices polling and sending metrics each {interval} s for {:.0} s: {} \
             requests, {} failed, p50 {:.2} ms, p99 {:.2} ms (promised: 50), {:.2} cores",
            told.seconds,
            told.requests,
            told.failed,
            millis(told.p50),
            millis(told.p99),
            cpu / told.seconds,
        );
        ensure!(told.failed == 0, "requests of the steady load failed");
        Ok(())
    }

    /// What operators ask for beside all these devices.
    fn operators(&mut self) -> anyhow::Result<()> {
        let many = self.scale.devices.min(WRITTEN);
        let template = |interval: u32| {
            let items = format!("timer.config.interval: \"{interval}\"");
            format!("kind: Template\nname: bench\nspec: {{device: {{settings: {{{items}}}}}}}\n")
        };
        let device = |n: u32, site: &str| {
            let labels = format!("labels: {{site: {site}}}, template: bench");
            format!("---\nkind: Device\nname: bench-{n}\nspec: {{serial: bench-{n}, {labels}}}\n")
        };
        let all = |site: &str| (0..many).map(|n| device(n, site)).collect::<String>();
        let apply = |documents: String| json!({"do": "apply", "documents": documents});
        let list = |query: &str| json!({"do": "list", "query": query});
        println!("{:32} {:>9} {:>9} {:>9}", "", "CPU ms", "took ms", "objects");
        for (name, command) in [
            (format!("apply {many} new devices"), apply(template(60) + &all("berlin"))),
            ("apply the same again".to_owned(), apply(template(60) + &all("berlin"))),
            ("apply one changed device".to_owned(), apply(device(0, "oslo"))),
            ("apply their changed template".to_owned(), apply(template(90))),
            ("list those of a query".to_owned(), list("site=berlin")),
            ("list all devices".to_owned(), list("")),
        ] {
            for server in &self.servers {
                server.forget_peak()?;
            }
            let before = self.memory()?;
            let (told, cpu) = self.measured(&command)?;
            let (cpu, took) = (cpu * 1000.0, told.seconds * 1000.0);
            let mut peak = 0;
            for server in &self.servers {
                peak += server.memory()?.1;
            }
            let more = peak.saturating_sub(before);
            println!("{name:32} {cpu:9.1} {took:9.1} {:9}  {more} KiB more memory", told.requests);
        }
        Ok(())
    }

    fn body(&mut self) -> anyhow::Result<()> {
        let before = self.memory()?;
        for server in &self.servers {
            server.forget_peak()?;
        }
        let told = self.fleet.ask(&json!({"do": "body", "bytes": BODY}))?;
        let peaks = self.servers.iter().map(Server::memory).collect::<anyhow::Result<Vec<_>>>()?;
        let peak: u64 = peaks.iter().map(|m| m.1).sum();
        println!(
            "a body of {} MiB: status {}, {} KiB more memory at most (promised: 4096)",
            BODY >> 20,
            told.status,
            peak.saturating_sub(before),
        );
        Ok(())
    }

    /// Whether the controller asks the kernel to make things durable while it acknowledges.
    fn durable(&mut self) -> anyhow::Result<()> {
        if self.database {
            println!("durable: as the database is told to be (synchronous_commit)");
            return Ok(());
        }
        let trace = self.folder.join("syncs");
        let Some(server) = self.servers.first() else { bail!("there is no controller") };
        let mut strace = command("strace");
        strace.args(["-f", "-q", "-e", "trace=fsync,fdatasync,sync_file_range", "-o"]).arg(&trace);
        strace.arg("-p").arg(server.pid().to_string());
        let Ok(mut strace) = strace.stderr(Stdio::null()).spawn() else {
            println!("durable: not looked at, `strace` is not installed");
            return Ok(());
        };
        std::thread::sleep(Duration::from_millis(500)); // it must have attached
        let hammer =
            json!({"do": "hammer", "kind": "metrics", "kept": true, "workers": 4, "seconds": 2.0});
        let told = self.fleet.ask(&hammer);
        // An interrupt makes it let go; a kill would leave the controller stopped.
        let pid = strace.id().to_string();
        command("kill").args(["-INT", &pid]).status()?;
        strace.wait()?;
        let told = told?;
        let syncs = syncs(&trace)?;
        println!("durable: {syncs} syncs for {} acknowledged metrics", told.requests);
        Ok(())
    }
}

fn syncs(trace: &Path) -> anyhow::Result<usize> {
    let text = fs::read_to_string(trace).with_context(|| trace.display().to_string())?;
    Ok(text.lines().filter(|l| l.contains("sync(") || l.contains("sync_file_range(")).count())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn millis(micros: u32) -> f64 {
    f64::from(micros) / 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "requests of a phase")]
fn count(requests: u64) -> f64 {
    requests as f64
}

#[expect(clippy::cast_precision_loss, reason = "memory of a process in KiB")]
fn kib(kib: u64) -> f64 {
    kib as f64
}
