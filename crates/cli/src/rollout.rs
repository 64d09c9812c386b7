//! `eve rollout|group|window|schedule`: changes in waves, groups of nodes, when nodes may be
//! disturbed, changes that wait for their time.

use std::path::PathBuf;

use controller::client::escaped;
use controller::objects::{Kind, WindowSpec};
use controller::view::{Group, NamedWindow, Rollout, Scheduled};
use model::UnixMillis;

use crate::apply::Gathered;
use crate::controller::runtime;
use crate::fleet::{To, ago, objects, time};
use crate::out::foreign::one_line;
use crate::out::{self, OrAdvise, WrongUse};
use crate::shown::Lines;

/// A moment may have passed by so many milliseconds while it was typed, or by another clock.
const LATE_MAX: u64 = 60_000;

/// `eve rollout …`, `eve group …`, `eve window …`, `eve schedule …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Changes that are taken to nodes in waves: start, show, promote, …
    Rollout {
        #[command(flatten)]
        to: To,
        #[command(subcommand)]
        command: Option<RolloutCommand>,
    },
    /// Groups of nodes: queries over labels
    Group {
        #[command(flatten)]
        to: To,
        #[command(subcommand)]
        command: Option<GroupCommand>,
    },
    /// Maintenance windows: when nodes may be disturbed
    Window {
        #[command(flatten)]
        to: To,
        #[command(subcommand)]
        command: Option<WindowCommand>,
    },
    /// Changes that wait for their time
    Schedule {
        #[command(flatten)]
        to: To,
        #[command(subcommand)]
        command: Option<ScheduleCommand>,
    },
}

/// `eve rollout …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum RolloutCommand {
    /// All rollouts
    List,
    /// One rollout, with its waves and nodes
    Show {
        /// Its name
        name: String,
    },
    /// Take a change to the nodes it touches, in waves
    Start(Box<StartArgs>),
    /// Hold one: nodes that have the change keep it
    Pause {
        /// Its name
        name: String,
    },
    /// Let one go on, with what failed so far accepted
    Resume {
        /// Its name
        name: String,
    },
    /// Stop one: nodes that have the change keep it, the others wait for your word
    Abort {
        /// Its name
        name: String,
    },
    /// Begin the next wave without waiting for the current one
    Promote {
        /// Its name
        name: String,
        /// All waves that are left
        #[arg(long)]
        all: bool,
    },
    /// Take the change back from all nodes
    Rollback {
        /// Its name
        name: String,
    },
    /// Forget one that is over
    Forget {
        /// Its name
        name: String,
    },
}

/// `eve rollout start …`
#[derive(Debug, clap::Args)]
pub(crate) struct StartArgs {
    /// A name for it
    name: String,
    /// The change, as for `eve apply`: files or folders of them; `-` reads standard input
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR", required = true)]
    files: Vec<PathBuf>,
    /// Sizes of the waves: numbers of nodes or shares of all; the rest comes last
    #[arg(long, value_delimiter = ',', default_value = "1,10%,50%", value_name = "SIZES")]
    waves: Vec<controller::rollout::Share>,
    /// First the nodes that match this query
    #[arg(long, value_name = "QUERY")]
    canary: Option<String>,
    /// Refuse if the change touches nodes that do not match this query
    #[arg(long = "match", value_name = "QUERY", default_value = "*")]
    devices: String,
    /// So many nodes may fail before it stops: a number or a share
    #[arg(long, value_name = "NUMBER", default_value = "0")]
    max_failures: controller::rollout::Share,
    /// Take the change back when it stops
    #[arg(long)]
    rollback: bool,
    /// All must be well on a node for so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    steady: u64,
    /// What is wrong may be so for so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    tolerate: u64,
    /// A node that is not well after so many minutes has failed
    #[arg(long, value_name = "MINUTES", default_value_t = 60)]
    limit: u64,
    /// The version that nodes must run afterwards
    #[arg(long)]
    version_is: Option<String>,
    /// Only say which nodes it would touch, in which wave
    #[arg(long)]
    dry_run: bool,
}

/// `eve group …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum GroupCommand {
    /// All groups
    List,
    /// The nodes of one
    Show {
        /// Its name
        name: String,
    },
    /// Make or change one: `eve group set berlin 'site=berlin, !lab'`
    ///
    /// What is not said of one that exists stays as it is.
    Set {
        /// Its name
        name: String,
        /// Its query: `key=value, key!=value, key in (a, b), key, !key, name=edge-*`; a new group
        /// needs it
        query: Option<String>,
        /// What it is for
        #[arg(long)]
        note: Option<String>,
    },
    /// Remove one
    Delete {
        /// Its name
        name: String,
    },
}

/// `eve window …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum WindowCommand {
    /// All windows
    List,
    /// Make or change one: `eve window set night 'group=berlin' --days sat,sun --from 02:00`
    ///
    /// What is not said of one that exists stays as it is.
    Set(SetWindow),
    /// Remove one; what waits for it is told at once
    Delete {
        /// Its name
        name: String,
    },
}

/// `eve window set …`
#[derive(Debug, clap::Args)]
pub(crate) struct SetWindow {
    /// Its name
    name: String,
    /// Which nodes, as a query; a new window needs it
    query: Option<String>,
    /// The days on which it opens, as sat,sun [of a new window: every day]
    #[arg(long, value_delimiter = ',', value_name = "DAYS")]
    days: Vec<String>,
    /// Open it on every day
    #[arg(long, conflicts_with = "days")]
    every_day: bool,
    /// When it opens; a new window needs it
    #[arg(long, value_name = "HH:MM")]
    from: Option<String>,
    /// How long it stays open [of a new window: 120]
    #[arg(long, value_name = "MINUTES")]
    minutes: Option<u32>,
    /// Its time zone, as Europe/Berlin [of a new window: UTC]
    #[arg(long)]
    zone: Option<String>,
}

/// `eve schedule …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ScheduleCommand {
    /// All of them
    List,
    /// Apply documents later
    Add {
        /// A name for it
        name: String,
        /// The documents, as for `eve apply`: files or folders of them; `-` reads standard input
        #[arg(short = 'f', long = "filename", value_name = "FILE|DIR", required = true)]
        files: Vec<PathBuf>,
        /// When: a moment as `2026-01-02T03:00:00+01:00` (RFC 3339), seconds since 1970, or so many
        /// minutes from now as `+90m`
        #[arg(long, value_name = "TIME")]
        at: String,
    },
    /// Do not do it
    Cancel {
        /// Its name
        name: String,
    },
}

pub(crate) fn run(command: Command) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        match command {
            Command::Rollout { to, command } => {
                rollout(&to, command.unwrap_or(RolloutCommand::List)).await
            }
            Command::Group { to, command } => {
                group(&to, command.unwrap_or(GroupCommand::List)).await
            }
            Command::Window { to, command } => {
                window(&to, command.unwrap_or(WindowCommand::List)).await
            }
            Command::Schedule { to, command } => {
                schedule(&to, command.unwrap_or(ScheduleCommand::List)).await
            }
        }
    })
}

async fn rollout(to: &To, command: RolloutCommand) -> anyhow::Result<()> {
    let client = to.client()?;
    let path = |name: &str, rest: &str| format!("/rollouts/{}{rest}", escaped(name));
    let tell = match command {
        RolloutCommand::List => {
            let all = async || client.ask::<Vec<Rollout>>("/rollouts").await.or_advise();
            return to.print(all, |all| rollouts(all)).await;
        }
        RolloutCommand::Forget { name } => {
            client.remove(&path(&name, "")).await.or_advise()?;
            return to.done(&format!("rollout {name} forgotten"));
        }
        RolloutCommand::Show { name } => {
            let path = path(&name, "");
            let one = async || client.ask::<Rollout>(&path).await.or_advise();
            return to.print(one, shown_rollout).await;
        }
        RolloutCommand::Start(args) => {
            let documents = Gathered::read(&args.files)?;
            let plan = start_plan(&args, &documents.text)?;
            let path = path(&args.name, &format!("?dry_run={}", args.dry_run));
            let one = client.send(&path, &plan).await;
            let one: Rollout = one.map_err(|e| documents.located(e)).or_advise()?;
            return to.told(&one, shown_rollout);
        }
        RolloutCommand::Pause { name } => path(&name, "/pause"),
        RolloutCommand::Resume { name } => path(&name, "/resume"),
        RolloutCommand::Abort { name } => path(&name, "/abort"),
        RolloutCommand::Promote { name, all } => path(&name, &format!("/promote?all={all}")),
        RolloutCommand::Rollback { name } => path(&name, "/rollback"),
    };
    let one: Rollout = client.send(&tell, "").await.or_advise()?;
    to.told(&one, |one| {
        let why = if one.why.is_empty() { String::new() } else { format!(": {}", one.why) };
        one_line(&format!("rollout {} is {}{why}", one.name, one.phase)).into_owned()
    })
}

fn rollouts(all: &[Rollout]) -> String {
    let row = |r: &Rollout| {
        let passed: usize = r.waves.iter().map(|w| w.passed).sum();
        let failed: usize = r.waves.iter().map(|w| w.failed).sum();
        let count: usize = r.waves.iter().map(|w| w.devices).sum();
        vec![
            r.name.clone(),
            r.phase.clone(),
            format!("{}/{}", r.wave, r.waves.len()),
            format!("{passed}/{count}"),
            failed.to_string(),
            ago(Some(r.created)),
            r.why.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    out::aligned(&["name", "phase", "wave", "passed", "failed", "begun", "why"], &rows)
}

fn start_plan(args: &StartArgs, documents: &str) -> anyhow::Result<String> {
    let mut waves: Vec<serde_json::Value> = Vec::new();
    waves.extend(args.canary.as_ref().map(|query| serde_json::json!({ "match": query })));
    for share in &args.waves {
        waves.push(serde_json::to_value(share)?);
    }
    let plan = serde_json::json!({
        "documents": documents,
        "match": args.devices,
        "waves": waves,
        "max_failures": args.max_failures,
        "rollback": args.rollback,
        "gate": {
            "steady_seconds": args.steady,
            "tolerate_seconds": args.tolerate,
            "limit_minutes": args.limit,
            "version": args.version_is,
        },
    });
    Ok(plan.to_string())
}

fn shown_rollout(one: &Rollout) -> String {
    let mut text = Lines::default();
    let why = if one.why.is_empty() { String::new() } else { format!(": {}", one.why) };
    text.fact(&one.phase, format_args!("{}{why}", one.name));
    let objects: Vec<String> = one.objects.iter().map(ToString::to_string).collect();
    text.fact("takes out", objects.join(", "));
    text.fact("failures", format_args!("{} may fail", one.allowed));
    let rows: Vec<Vec<String>> = one
        .waves
        .iter()
        .zip(1..)
        .map(|(w, n)| {
            let mark = if n == one.wave { "now" } else { "" };
            let counts = [w.devices, w.waiting, w.taking, w.passed, w.failed, w.back];
            let counts = counts.iter().map(ToString::to_string);
            [n.to_string()].into_iter().chain(counts).chain([mark.to_owned()]).collect()
        })
        .collect();
    text.table(&["wave", "nodes", "waiting", "taking", "passed", "failed", "back", ""], &rows);
    let rows: Vec<Vec<String>> = one
        .devices
        .iter()
        .map(|d| {
            let (wave, since) = (d.wave.to_string(), ago(Some(d.since)));
            vec![d.name.clone(), wave, d.step.clone(), since, d.note.clone()]
        })
        .collect();
    text.table(&["node", "wave", "step", "since", "note"], &rows);
    text.0
}

async fn group(to: &To, command: GroupCommand) -> anyhow::Result<()> {
    let client = to.client()?;
    let path = |name: &str| format!("/groups/{}", escaped(name));
    match command {
        GroupCommand::List if to.yaml() => objects(to, Some(Kind::Group), None).await,
        GroupCommand::List => {
            let all = async || client.ask::<Vec<Group>>("/groups").await.or_advise();
            to.print(all, |all| groups(all)).await
        }
        GroupCommand::Show { name } if to.yaml() => {
            objects(to, Some(Kind::Group), Some(&name)).await
        }
        GroupCommand::Show { name } => {
            let path = path(&name);
            let one = async || client.ask::<Group>(&path).await.or_advise();
            to.print(one, shown_group).await
        }
        GroupCommand::Set { name, query, note } => {
            let all = client.ask::<Vec<Group>>("/groups").await.or_advise()?;
            let before = all.into_iter().find(|g| g.name == name);
            let (was, noted) = before.map(|g| (g.query, g.note)).unzip();
            let query = query.or(was).ok_or_else(|| {
                WrongUse(format!("there is no group {name} yet; say its query to make it"))
            })?;
            let body =
                serde_json::json!({ "query": query, "note": note.or(noted).unwrap_or_default() });
            client.put(&path(&name), &body.to_string()).await.or_advise()?;
            to.done(&format!("group {name} set"))
        }
        GroupCommand::Delete { name } => {
            client.remove(&path(&name)).await.or_advise()?;
            to.done(&format!("group {name} deleted"))
        }
    }
}

fn shown_group(one: &Group) -> String {
    let mut text = Lines::default();
    text.fact("name", &one.name);
    text.fact("query", &one.query);
    text.fact("note", &one.note);
    for device in &one.devices {
        text.fact("node", device);
    }
    text.0
}

async fn window(to: &To, command: WindowCommand) -> anyhow::Result<()> {
    let client = to.client()?;
    let path = |name: &str| format!("/windows/{}", escaped(name));
    match command {
        WindowCommand::List if to.yaml() => objects(to, Some(Kind::Window), None).await,
        WindowCommand::List => {
            let all = async || client.ask::<Vec<NamedWindow>>("/windows").await.or_advise();
            to.print(all, |all| windows(all)).await
        }
        WindowCommand::Set(set) => {
            let all = client.ask::<Vec<NamedWindow>>("/windows").await.or_advise()?;
            let before = all.into_iter().find(|w| w.name == set.name).map(|w| w.spec);
            let body = window_body(&set, before)?;
            client.put(&path(&set.name), &body.to_string()).await.or_advise()?;
            to.done(&format!("window {} set", set.name))
        }
        WindowCommand::Delete { name } => {
            client.remove(&path(&name)).await.or_advise()?;
            to.done(&format!("window {name} deleted"))
        }
    }
}

/// The window as it is to be: what is not said is as `before`, or as a new one has it.
fn window_body(set: &SetWindow, before: Option<WindowSpec>) -> anyhow::Result<serde_json::Value> {
    let was = before.as_ref();
    let needed =
        |what| WrongUse(format!("there is no window {} yet; say {what} to make it", set.name));
    let query = set.query.as_ref().or(was.map(|w| &w.devices));
    let query = query.ok_or_else(|| needed("its query"))?;
    let from = set.from.as_ref().or(was.map(|w| &w.from)).ok_or_else(|| needed("--from"))?;
    let days = match was {
        Some(was) if set.days.is_empty() && !set.every_day => serde_json::to_value(&was.days)?,
        _ => serde_json::to_value(&set.days)?,
    };
    let minutes = set.minutes.or(was.map(|w| w.minutes)).unwrap_or(120);
    let zone = set.zone.as_deref().or(was.map(|w| w.zone.as_str())).unwrap_or("UTC");
    Ok(serde_json::json!({
        "match": query, "days": days, "from": from, "minutes": minutes, "zone": zone,
    }))
}

fn groups(all: &[Group]) -> String {
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|g| {
            let count = g.devices.len().to_string();
            vec![g.name.clone(), g.query.clone(), count, g.note.clone()]
        })
        .collect();
    out::aligned(&["name", "query", "nodes", "note"], &rows)
}

fn windows(all: &[NamedWindow]) -> String {
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|w| {
            let state = match (w.open_until, w.opens_at) {
                (Some(at), _) => format!("open until {}", time(at)),
                (None, Some(at)) => format!("opens at {}", time(at)),
                (None, None) => "never opens".to_owned(),
            };
            vec![w.name.clone(), w.spec.devices.clone(), state, w.spec.zone.clone()]
        })
        .collect();
    out::aligned(&["name", "nodes", "state", "zone"], &rows)
}

fn due(all: &[Scheduled]) -> String {
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|s| {
            let (due, by) = (time(s.due), s.author.clone());
            vec![s.name.clone(), due, s.state.clone(), by, s.outcome.clone()]
        })
        .collect();
    out::aligned(&["name", "due", "state", "by", "outcome"], &rows)
}

async fn schedule(to: &To, command: ScheduleCommand) -> anyhow::Result<()> {
    let client = to.client()?;
    let path = |name: &str| format!("/scheduled/{}", escaped(name));
    match command {
        ScheduleCommand::List => {
            let all = async || client.ask::<Vec<Scheduled>>("/scheduled").await.or_advise();
            to.print(all, |all| due(all)).await
        }
        ScheduleCommand::Add { name, files, at } => {
            let due = due_at(&at, host::clock::now())?;
            let documents = Gathered::read(&files)?;
            let body = serde_json::json!({ "due": due, "documents": documents.text });
            let put = client.put(&path(&name), &body.to_string()).await;
            put.map_err(|e| documents.located(e)).or_advise()?;
            let local = here().and_then(|zone| controller::words::time_in(due, &zone));
            let local = local.map(|l| format!(", here {l}")).unwrap_or_default();
            let facts = serde_json::json!({ "name": name, "due": due });
            to.told(&facts, |_| format!("{name} is due at {}{local}", time(due)))
        }
        ScheduleCommand::Cancel { name } => {
            client.remove(&path(&name)).await.or_advise()?;
            to.done(&format!("{name} cancelled"))
        }
    }
}

/// The time zone of this machine by its name in the tz database, as `TZ` or the system says.
fn here() -> Option<String> {
    let said = std::env::var("TZ").ok().filter(|zone| !zone.is_empty());
    let said = said.map(|zone| zone.trim_start_matches(':').to_owned());
    said.or_else(|| {
        let link = std::fs::read_link("/etc/localtime").ok()?;
        let zone = link.to_str()?.split_once("zoneinfo/")?.1.to_owned();
        Some(zone)
    })
}

/// When a change is due; what is past by more than [`LATE_MAX`] is a slip of the pen.
fn due_at(text: &str, now: UnixMillis) -> anyhow::Result<UnixMillis> {
    let due = moment(text, now)?;
    if due.0.saturating_add(LATE_MAX) < now.0 {
        return Err(out::advised(
            format!("{text} is past: that was {}, and it is {}", time(due), time(now)),
            "give a moment to come; `eve apply` does it at once",
        ));
    }
    Ok(due)
}

/// A moment as it is written after `--at`.
fn moment(text: &str, now: UnixMillis) -> anyhow::Result<UnixMillis> {
    let ms = match text.strip_prefix('+').map(|t| t.strip_suffix('m')) {
        Some(minutes) => minutes
            .and_then(|m| m.parse::<u64>().ok())
            .and_then(|m| m.checked_mul(60_000))
            .and_then(|m| now.0.checked_add(m)),
        None => match text.parse::<u64>() {
            Ok(seconds) => seconds.checked_mul(1000),
            Err(_) => controller::words::moment(text).map(|at| at.0),
        },
    };
    ms.map(UnixMillis).ok_or_else(|| {
        let text = format!("{text:?} is no time; write 2026-01-02T03:00:00+01:00 (RFC 3339), seconds since 1970, or +90m");
        WrongUse(text).into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_of_a_window_stays() {
        let set = || SetWindow {
            name: "night".to_owned(),
            query: None,
            days: Vec::new(),
            every_day: false,
            from: None,
            minutes: None,
            zone: None,
        };
        let is = |set: &SetWindow, before: Option<&WindowSpec>| -> WindowSpec {
            serde_json::from_value(window_body(set, before.cloned()).unwrap()).unwrap()
        };
        let (query, from) = (Some("group=berlin".to_owned()), Some("02:00".to_owned()));
        assert!(window_body(&SetWindow { query: query.clone(), ..set() }, None).is_err());
        assert!(window_body(&SetWindow { from: from.clone(), ..set() }, None).is_err());
        let days = vec!["sat".to_owned(), "sun".to_owned()];
        let zone = Some("Europe/Berlin".to_owned());
        let first = is(&SetWindow { query, from, days, zone, ..set() }, None);
        assert_eq!((first.minutes, first.days.len()), (120, 2));
        let longer = is(&SetWindow { minutes: Some(60), ..set() }, Some(&first));
        assert_eq!(longer, WindowSpec { minutes: 60, ..first.clone() });
        let daily = is(&SetWindow { every_day: true, ..set() }, Some(&first));
        assert_eq!(daily, WindowSpec { days: Vec::new(), ..first });
    }

    #[test]
    fn moments_are_seconds_or_minutes_from_now() {
        let now = UnixMillis(5_000);
        assert_eq!(moment("1770000000", now).unwrap(), UnixMillis(1_770_000_000_000));
        let winter = moment("2026-02-02T03:40:00+01:00", now).unwrap();
        assert_eq!(winter, UnixMillis(1_770_000_000_000));
        assert_eq!(moment("+90m", now).unwrap(), UnixMillis(5_000 + 90 * 60_000));
        for wrong in [
            "",
            "soon",
            "+90",
            "+m",
            "-5",
            "99999999999999999999",
            "2026-02-02",
            "2026-02-02T03:40:00",
        ] {
            assert!(moment(wrong, now).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_past_is_not_due() {
        let now = UnixMillis(1_770_000_000_000);
        assert_eq!(due_at("1769999940", now).unwrap(), UnixMillis(now.0 - 60_000));
        assert_eq!(due_at("+0m", now).unwrap(), now);
        let said = due_at("2020-01-01T00:00:00Z", now).unwrap_err().to_string();
        let want = "2020-01-01T00:00:00Z is past: that was 2020-01-01T00:00:00Z, and it is ";
        assert_eq!(said, format!("{want}2026-02-02T02:40:00Z"));
    }
}
