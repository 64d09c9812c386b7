//! `eve up`, `eve down`, `eve status`: the whole line on this machine.
//!
//! Everything lives in one state folder: the controller's data, the node's disk, the logs, and
//! `state.json`, which says what was started. What outlives the command is found again by process
//! number, start time and boot, so that `eve down` ends what `eve up` started and nothing else.

mod begin;
mod fleet;
mod node;
mod state;
mod summary;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use model::Arch;

use crate::out::{self, Step};
use crate::places;
use state::{Folder, State};

/// Build, boot, onboard and deploy the sample app on this machine
///
/// Builds the image if there is none, starts a controller, boots a node in QEMU, lets it onboard,
/// and runs apps/hello on it until its page answers here. A second `eve up` beside the first starts
/// nothing: it shows what runs, and ends with 0 if the page answers and with 1 if not.
///
/// With CI=true it stops everything again and ends with the verdict.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    eve up\n  \
    eve up --port 9090 --controller-port 9443  when 8080 or 8443 are taken\n  \
    eve up --image live.raw                    boot this image, build nothing\n  \
    eve up --arch arm64                        an ARM node, emulated\n  \
    eve up --fresh                             forget what was there before")]
pub(crate) struct Args {
    /// Where to keep everything [default: eve/up in $XDG_STATE_HOME or ~/.local/state]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Boot this raw disk image instead of building one
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// Build and boot the debug profile: a shell on the debug channel, services on the console
    #[arg(long, conflicts_with = "image")]
    debug: bool,
    /// The processor: amd64, arm64, riscv64 [default: as the image says, else amd64]
    #[arg(long, env = "ZARCH", value_parser = crate::build::arch)]
    arch: Option<Arch>,
    /// The port of this machine for the app's page
    #[arg(long, default_value_t = 8080, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// The port of this machine for the controller
    #[arg(long, default_value_t = 8443, value_parser = clap::value_parser!(u16).range(1..))]
    controller_port: u16,
    /// Memory of the node, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(256..=1_048_576))]
    memory: u64,
    /// Processors of the node [default: 2 with KVM, else 1]
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..))]
    cpus: Option<u8>,
    /// Give the node a TPM 2.0 (in software)
    #[arg(long)]
    tpm: bool,
    /// Start with a new node and a new controller
    #[arg(long)]
    fresh: bool,
    /// Give up when the page has not answered so many seconds after power-on
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

/// Stop what `eve up` started, and nothing else
#[derive(Debug, clap::Args)]
pub(crate) struct DownArgs {
    /// The state folder that `eve up` was given
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Remove the node's disk, the controller's data and the logs, too
    #[arg(long)]
    purge: bool,
}

/// What `eve up` started, and how it is
///
/// Ends with 0 if the app's page answers, else with 1.
#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    /// The state folder that `eve up` was given
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A power button that was not felt is pressed again after this.
const PRESS_AGAIN: Duration = Duration::from_secs(3);
/// A node that is asked to power off gets so long: it stops its apps, then its services.
const POWER_OFF: Duration = Duration::from_secs(60);

/// The controller finishes what is under way.
const CONTROLLER_STOP: Duration = Duration::from_secs(10);

pub(crate) fn up(args: Args) -> anyhow::Result<()> {
    let tear_down = std::env::var("CI").is_ok_and(|v| v == "true" || v == "1");
    let folder = Folder::open(&state_dir(args.state.as_deref()))?;
    let _lock = folder.lock()?;
    let before = folder.load()?;
    if let Some(state) = before.as_ref().filter(|s| s.is_up()) {
        if args.fresh {
            return Err(out::advised(
                "a node runs already, and --fresh would take it away",
                "stop it first: eve down",
            ));
        }
        say!("It is up already; `eve down` stops it.");
        return show(state, &folder, args.json);
    }
    let json = args.json;
    let outcome = begin::begin(args, &folder, before).and_then(|state| show(&state, &folder, json));
    if outcome.is_err() {
        tell_where(&folder);
    }
    if tear_down {
        if let Some(state) = folder.load()? {
            stop(&state, &folder)?;
        }
    } else if outcome.is_err() && folder.load()?.is_some_and(|s| s.runs()) {
        say!("What was started still runs: `eve status` shows it, `eve down` stops it.");
    }
    outcome
}

pub(crate) fn down(args: DownArgs) -> anyhow::Result<()> {
    let folder = Folder::open(&state_dir(args.state.as_deref()))?;
    let _lock = folder.lock()?;
    match folder.load()? {
        Some(state) if state.runs() => stop(&state, &folder)?,
        _ => out::line("Nothing runs."),
    }
    if args.purge {
        folder.clear()?;
        out::line(format!("{} is empty now.", folder.path().display()));
    }
    Ok(())
}

pub(crate) fn status(args: StatusArgs) -> anyhow::Result<()> {
    let folder = Folder::open(&state_dir(args.state.as_deref()))?;
    match folder.load()? {
        Some(state) => show(&state, &folder, args.json),
        None if args.json => {
            out::json(&serde_json::json!({ "up": false }))?;
            anyhow::bail!("`eve up` has started nothing here")
        }
        None => Err(out::advised(
            format!("nothing was started in {}", folder.path().display()),
            "start it with `eve up`",
        )),
    }
}

/// Prints what there is; an error if nothing runs, or the page does not answer.
fn show(state: &State, folder: &Folder, json: bool) -> anyhow::Result<()> {
    let summary = summary::look(state, folder);
    if !json && !state.runs() {
        return Err(out::advised(
            format!("nothing runs of what was started in {}", folder.path().display()),
            "start the same node again with `eve up`",
        ));
    }
    if json {
        out::json(&summary)?;
    } else {
        out::text(summary.text());
    }
    match summary.page_answers {
        true => Ok(()),
        false => Err(out::advised(
            format!("{} does not answer", summary.page),
            "look at the state above; `eve down && eve up` starts over with the same node",
        )),
    }
}

/// Ends the node in an orderly way, then the controller.
fn stop(state: &State, folder: &Folder) -> anyhow::Result<()> {
    if let Some(node) = state.node.as_ref().filter(|n| n.is_alive()) {
        let step = Step::start("stopping the node");
        // Pressed again and again: a node that still boots does not feel the first press.
        let until = std::time::Instant::now() + POWER_OFF;
        let mut off = false;
        while !off && std::time::Instant::now() < until {
            let pressed = host::qemu::Qmp::connect(&folder.qmp(), Duration::from_secs(5))
                .and_then(|mut monitor| monitor.press_power_button());
            off = node.wait(PRESS_AGAIN);
            if pressed.is_err() {
                break;
            }
        }
        if off {
            step.done("it powered itself off");
        } else {
            node.kill().context("cannot end QEMU")?;
            step.done("it did not power itself off, so it was cut off");
        }
    }
    // It ends with the machine that uses it; this is for one whose machine never came.
    if let Some(tpm) = &state.tpm {
        tpm.stop(Duration::from_secs(2)).context("cannot end swtpm")?;
    }
    if let Some(controller) = state.controller.as_ref().filter(|c| c.is_alive()) {
        let step = Step::start("stopping the controller");
        controller.stop(CONTROLLER_STOP).context("cannot end the controller")?;
        step.done("");
    }
    let ended = State { controller: None, node: None, tpm: None, ..state.clone() };
    folder.save(&ended)
}

/// After a failure: the end of the log, and where the rest is.
fn tell_where(folder: &Folder) {
    let tail = node::tail(&folder.serial_log(), 25);
    if !tail.is_empty() {
        say!("");
        say!("the end of the node's serial log:");
        tail.iter().for_each(|line| say!("  {line}"));
    }
    let logs = [folder.serial_log(), folder.qemu_log(), folder.controller_log()];
    let logs: Vec<_> = logs.iter().filter(|log| log.exists()).collect();
    if !logs.is_empty() {
        say!("");
        say!("logs:");
        logs.iter().for_each(|log| say!("  {}", log.display()));
        say!("");
    }
}

fn state_dir(asked: Option<&std::path::Path>) -> PathBuf {
    asked.map_or_else(places::up_state, PathBuf::from)
}
