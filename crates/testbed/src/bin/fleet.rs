//! A fleet of simulated devices as a process of its own, for measuring a controller: commands come on
//! stdin, one JSON object a line; each is answered by one line of JSON.
//!
//! ```text
//! fleet full|resumed DATA...
//! {"do":"admit"}                                              any serial number may register
//! {"do":"enrol","devices":1000,"workers":16}                  new devices: onboard, config, info, metrics
//! {"do":"hammer","kind":"poll","kept":false,"workers":4,"seconds":5}
//! {"do":"steady","devices":1000,"interval":60,"workers":64,"seconds":30}
//! {"do":"body","bytes":314572800}                             a body that is far too long
//! {"do":"apply","documents":"..."}                            what an operator writes
//! {"do":"list","query":"site=berlin"}                         devices that fit; all, if it is empty
//! ```
//!
//! DATA is the data folder of a controller on this machine; several are processes of one controller.
//! TLS sessions begin with a full handshake, or are resumed. Times are in microseconds.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use testbed::sim::home::conf_of;
use testbed::sim::http::Session;
use testbed::sim::line::call;
use testbed::sim::load::{Fleet, Kind, Tally};
use testbed::sim::{Conf, Way};

/// All devices come from this seed.
const SEED: u64 = 1;

#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
enum Command {
    Admit,
    Enrol { devices: u32, workers: usize },
    Hammer { kind: Kind, kept: bool, workers: usize, seconds: f64 },
    Steady { devices: usize, interval: u64, workers: usize, seconds: u64 },
    Body { bytes: u64 },
    Apply { documents: String },
    List { query: String },
}

/// An answer; what a command does not measure is zero.
#[derive(Debug, Default, Serialize)]
struct Told {
    seconds: f64,
    requests: usize,
    failed: u64,
    failure: Option<String>,
    p50: u32,
    p99: u32,
    status: u16,
}

impl From<Tally> for Told {
    fn from(mut tally: Tally) -> Told {
        Told {
            requests: tally.good(),
            failed: tally.failed,
            p50: tally.quantile(0.5),
            p99: tally.quantile(0.99),
            failure: tally.first_failure,
            ..Told::default()
        }
    }
}

fn main() -> anyhow::Result<()> {
    let usage = "usage: fleet full|resumed DATA...";
    let mut args = std::env::args().skip(1);
    let session = match args.next().as_deref() {
        Some("full") => Session::Full,
        Some("resumed") => Session::Resumed,
        _ => anyhow::bail!(usage),
    };
    let folders: Vec<PathBuf> = args.map(PathBuf::from).collect();
    let data = folders.first().context(usage)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut confs = Vec::new();
    for folder in &folders {
        confs.push(Arc::new(runtime.block_on(conf_of(folder, session))?));
    }
    let conf = confs.first().context(usage)?.clone();
    let mut fleet = Fleet::new(confs, host::clock::now);
    for line in std::io::stdin().lines() {
        let line = line?;
        let command: Command =
            serde_json::from_str(&line).with_context(|| format!("{line:?} is no command"))?;
        let begin = Instant::now();
        let told = runtime.block_on(obey(command, &mut fleet, &conf, data))?;
        let told = Told { seconds: begin.elapsed().as_secs_f64(), ..told };
        println!("{}", serde_json::to_string(&told)?);
    }
    Ok(())
}

async fn obey(
    command: Command,
    fleet: &mut Fleet,
    conf: &Conf,
    data: &std::path::Path,
) -> anyhow::Result<Told> {
    Ok(match command {
        Command::Admit => {
            controller::client::Client::from_data(data)?.allow_serial("*").await?;
            Told::default()
        }
        Command::Apply { documents } => {
            let client = controller::client::Client::from_data(data)?;
            let applied = client.apply(&documents, false).await?;
            Told { requests: applied.changes.len(), ..Told::default() }
        }
        Command::List { query } => {
            let client = controller::client::Client::from_data(data)?;
            let found = if query.is_empty() {
                client.devices().await?
            } else {
                client.devices_matching(&query).await?
            };
            Told { requests: found.len(), ..Told::default() }
        }
        Command::Enrol { devices, workers } => fleet.enrol(SEED, devices, workers).await.into(),
        Command::Hammer { kind, kept, workers, seconds } => {
            let way = if kept { Way::Kept } else { Way::Close };
            let long = Duration::try_from_secs_f64(seconds)?;
            fleet.hammer(kind, way, workers, long).await.into()
        }
        Command::Steady { devices, interval, workers, seconds } => {
            let (interval, long) = (Duration::from_secs(interval), Duration::from_secs(seconds));
            fleet.steady(devices, interval, workers, long).await.into()
        }
        Command::Body { bytes } => {
            let device = fleet.devices().first().context("enrol a device first")?;
            let call = call("POST", &device.path("newlogs")?, "body", None, Vec::new());
            let mut connection = conf.endpoint().connect().await?;
            let answer = connection.send_zeros(&call, bytes).await;
            // A connection that is cut in the middle is a refusal as good as a status.
            Told { status: answer.map_or(0, |a| a.status), ..Told::default() }
        }
    })
}
