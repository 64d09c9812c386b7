//! `eve install`: puts a node onto a disk of this machine, as an installer does on another.

use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;

use device::install::{self as mind, Disk, Found, Plan, Skip, Transport, Wish};
use formats::layout::Profile;
use host::target::Target;
use install::{InstallError, Payload, Progress, Work};
use model::Bytes;

use crate::out::{self, OrAdvise, Step, WrongUse, foreign};
use crate::places;

/// Put a node onto a disk
///
/// Writes what the installer writes on a machine: a partition table, the system, CONFIG; the node makes
/// /persist when it boots. What cannot be done is refused before anything is touched, and a disk that
/// is not blank is written only after a question, or with --yes. The table is written last: a disk
/// that was cut off half-way does not boot.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    eve install --disk /dev/sdX                        the newest image\n  \
    eve install --disk node.raw --from dist/amd64/1.0  onto a file\n  \
    eve install --disk /dev/sdX --from installer.iso   what it would install\n  \
    eve install --disk /dev/sdX --skip persist --yes   keep what was stored\n  \
    eve install --disk /dev/sdX --dry-run              only say what is written")]
pub(crate) struct Args {
    /// The disk: a whole one (/dev/sda), or a file that stands for one
    #[arg(long, value_name = "PATH")]
    disk: PathBuf,
    /// What to install: a raw disk or slot image, an installer (raw or ISO), or a folder of the
    /// builder
    /// [default: dist/amd64/current]
    #[arg(long, value_name = "PATH")]
    from: Option<PathBuf>,
    /// What stays as it is; can be given again
    #[arg(long, value_delimiter = ',', value_name = "PART")]
    skip: Vec<Part>,
    /// The layout of the disk [default: that of the image]
    #[arg(long, value_parser = crate::build::profile)]
    profile: Option<Profile>,
    /// The controller, instead of that in CONFIG
    #[arg(long, value_name = "HOST[:PORT]")]
    server: Option<String>,
    /// The serial number that the node tells [default: that in CONFIG, else a new one]
    #[arg(long, value_name = "TEXT")]
    soft_serial: Option<String>,
    /// Do not ask before erasing what is there
    #[arg(long)]
    yes: bool,
    /// Say what would be written where, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

/// What may stay as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// The system: slots and boot partition
    Rootfs,
    /// CONFIG
    Config,
    /// What the node has stored
    Persist,
}

/// What was done, for programs.
#[derive(Debug, serde::Serialize)]
struct Facts<'a> {
    disk: &'a str,
    size: Bytes,
    version: &'a str,
    profile: &'a str,
    soft_serial: Option<&'a str>,
    written: bool,
    partitions: Vec<PartitionFacts<'a>>,
    plan: String,
}

#[derive(Debug, serde::Serialize)]
struct PartitionFacts<'a> {
    number: u32,
    name: &'a str,
    first: u64,
    last: u64,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let from = places::image_or_newest(args.from.clone())?;
    let mut payload = Payload::from_path(&from).or_advise()?;
    payload.profile = args.profile.unwrap_or(payload.profile);
    let wish = wish(&args)?;
    let disk = install::look_at(&args.disk).or_advise()?;
    let plan = planned(&wish, &disk, &payload)?;
    let (config, serial) = mind::config(payload.config.clone(), &wish, uuid::Uuid::new_v4());
    let told = (!wish.skip.config).then_some(serial.text());
    if args.dry_run {
        return show(&args, &plan, &payload, told);
    }
    // All is made before anything is asked or written.
    let time = host::clock::now().0 / 1000;
    let works: Vec<Work<'_>> = plan
        .disks
        .iter()
        .map(|disk| Work::new(disk, &payload, &config, time))
        .collect::<Result<_, _>>()
        .or_advise()?;
    agree(&args, &disk)?;
    let target = Target::open(&args.disk).map_err(InstallError::from).or_advise()?;
    let step = Step::start(format!("installing {} on {}", payload.version, disk.name));
    for work in &works {
        work.carry_out(&target, &Bar(&step)).or_advise()?;
    }
    step.done(told.map(|text| format!("soft serial {text}")).unwrap_or_default());
    show(&args, &plan, &payload, told)
}

fn wish(args: &Args) -> anyhow::Result<Wish> {
    let has = |part| args.skip.contains(&part);
    let words = [("eve_install_server", &args.server), ("eve_soft_serial", &args.soft_serial)];
    let line: String = words
        .iter()
        .filter_map(|(name, value)| Some(format!("{name}={} ", value.as_ref()?)))
        .collect();
    let wish = mind::read(&line, None).map_err(|e| anyhow::Error::new(WrongUse(e.to_string())))?;
    let skip =
        Skip { rootfs: has(Part::Rootfs), config: has(Part::Config), persist: has(Part::Persist) };
    Ok(Wish { skip, ..wish })
}

fn planned(wish: &Wish, disk: &Disk, payload: &Payload) -> anyhow::Result<Plan> {
    let places = mind::Payload {
        profile: payload.profile,
        slot: payload.slot.length,
        bios: payload.bios.as_ref().map_or(Bytes(0), |bios| Bytes(bios.gap.len() as u64)),
    };
    mind::plan(wish, disk, std::slice::from_ref(disk), &places).or_advise()
}

/// Asks, if there is something to lose.
fn agree(args: &Args, disk: &Disk) -> anyhow::Result<()> {
    if args.yes || disk.found == Found::Blank {
        return Ok(());
    }
    let (name, found) = (&disk.name, &disk.found);
    let stays = match args.skip[..] {
        [] => "all of it will be lost",
        _ => "what is not skipped will be lost",
    };
    let answer = || -> anyhow::Result<String> {
        let mut text = String::new();
        std::io::stdin().lock().read_line(&mut text)?;
        Ok(text)
    };
    if !std::io::stdin().is_terminal() {
        let text = format!("{name} holds {found}, and {stays}");
        return Err(out::advised(text, "say that you mean it with --yes"));
    }
    let size = disk.size;
    let kind = if disk.transport == Transport::Virtual {
        String::new()
    } else {
        format!(", {}", disk.transport)
    };
    let about = format!("{name} ({size}{kind}) holds {found}, and {stays}.");
    out::say_question(&format!("{} Go on? [y/N] ", foreign::one_line(&about)));
    match answer()?.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(out::advised(format!("{name} was left as it is"), "answer y to go on")),
    }
}

fn show(args: &Args, plan: &Plan, payload: &Payload, serial: Option<&str>) -> anyhow::Result<()> {
    let Some(disk) = plan.disks.last() else { return Ok(()) };
    if !args.json {
        if args.dry_run {
            out::text(plan.to_string().trim_end());
        }
        return Ok(());
    }
    let partitions = disk.table.partitions().iter().map(|(number, p)| PartitionFacts {
        number: *number,
        name: &p.name,
        first: p.first.0,
        last: p.last.0,
    });
    out::json(&Facts {
        disk: &disk.disk,
        size: disk.table.size(),
        version: &payload.version,
        profile: payload.profile.name,
        soft_serial: serial,
        written: !args.dry_run,
        partitions: partitions.collect(),
        plan: plan.to_string(),
    })
}

struct Bar<'a>(&'a Step);

impl Progress for Bar<'_> {
    fn at(&self, what: &str, done: Bytes, total: Bytes) {
        self.0.note(what);
        self.0.bytes(done, total);
    }
}
