//! `eve history|rollback`, `eve device drift|diff`: what objects said before, what nodes would get,
//! and what they have not got yet.

use std::path::PathBuf;

use controller::client::{Apply, escaped};
use controller::view::{Applied, Compared, DeviceDiff, DeviceDrift, Version};

use crate::apply::Gathered;
use crate::controller::runtime;
use crate::fleet::{To, ago, time};
use crate::nodes;
use crate::out::{self, OrAdvise};
use crate::shown::Lines;

/// `eve history …`, `eve rollback …`, `eve drift …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// What an object said before: `eve history app web`
    History {
        #[command(flatten)]
        to: To,
        /// device, datastore, image, volume, network, app, …
        kind: String,
        /// Its name
        name: String,
        /// One version, and what is other now
        revision: Option<u64>,
    },
    /// What is not as it should be on nodes, and why
    ///
    /// The same as `eve device drift`.
    Drift {
        #[command(flatten)]
        to: To,
        /// A node; all if not said
        name: Option<String>,
    },
    /// Make an object say again what it said in a revision
    Rollback {
        #[command(flatten)]
        to: To,
        /// device, datastore, image, volume, network, app, …
        kind: String,
        /// Its name
        name: String,
        /// As `eve history` lists it
        revision: u64,
    },
}

pub(crate) fn run(command: Command) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        match command {
            Command::History { to, kind, name, revision: None } => list(&to, &kind, &name).await,
            Command::History { to, kind, name, revision: Some(revision) } => {
                show(&to, &kind, &name, revision).await
            }
            Command::Drift { to, name } => drift(&to, name.as_deref()).await,
            Command::Rollback { to, kind, name, revision } => {
                restore(&to, &kind, &name, revision).await
            }
        }
    })
}

fn path(kind: &str, name: &str) -> String {
    format!("/objects/{}/{}/history", escaped(kind), escaped(name))
}

async fn list(to: &To, kind: &str, name: &str) -> anyhow::Result<()> {
    let client = to.client()?;
    let path = path(kind, &nodes::of_kind(&client, kind, name).await?);
    to.print(async || client.ask::<Vec<Version>>(&path).await.or_advise(), |all| versions(all))
        .await
}

fn versions(all: &[Version]) -> String {
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|v| {
            let what = if v.spec.is_none() { "deleted" } else { "" };
            let counters = format!("{}/{}", v.restart, v.purge);
            let (revision, generation) = (v.revision.to_string(), v.generation.to_string());
            vec![revision, time(v.at), v.author.clone(), generation, counters, what.to_owned()]
        })
        .collect();
    out::aligned(&["revision", "at", "by", "generation", "restart/purge", ""], &rows)
}

async fn show(to: &To, kind: &str, name: &str, revision: u64) -> anyhow::Result<()> {
    let client = to.client()?;
    let path = format!("{}/{revision}", path(kind, &nodes::of_kind(&client, kind, name).await?));
    let one: Compared = client.ask(&path).await.or_advise()?;
    to.told(&one, |one| compared(kind, name, one))
}

fn compared(kind: &str, name: &str, one: &Compared) -> String {
    let mut text = Lines::default();
    let by = if one.version.author.is_empty() { "somebody" } else { &one.version.author };
    text.line(format_args!("{kind} {name} by {by} at {}:", time(one.version.at)));
    match &one.version.spec {
        Some(spec) => text.json(spec),
        None => text.line("deleted"),
    }
    for line in &one.since {
        text.line(line);
    }
    text.0
}

async fn restore(to: &To, kind: &str, name: &str, revision: u64) -> anyhow::Result<()> {
    let client = to.client()?;
    let path = format!("{}/{revision}", path(kind, &nodes::of_kind(&client, kind, name).await?));
    let applied: Applied = client.send(&path, "").await.or_advise()?;
    to.told(&applied, crate::apply::changes)
}

/// Devices that are asked for at once.
const DRIFT_PAGE: usize = 500;

/// `eve device drift [NAME]`
pub(crate) async fn drift(to: &To, name: Option<&str>) -> anyhow::Result<()> {
    let client = to.client()?;
    let name = match name {
        Some(name) => Some(nodes::named(&client, name).await?),
        None => None,
    };
    let ask = async || {
        if let Some(name) = &name {
            let path = format!("/devices/{}/drift", escaped(name));
            return Ok(vec![client.ask(&path).await.or_advise()?]);
        }
        let mut all: Vec<DeviceDrift> = Vec::new();
        loop {
            let after = all.last().map(|d| escaped(&d.device)).unwrap_or_default();
            let path = format!("/drift?limit={DRIFT_PAGE}&after={after}");
            let page: Vec<DeviceDrift> = client.ask(&path).await.or_advise()?;
            let last = page.len() < DRIFT_PAGE;
            all.extend(page);
            if last {
                return Ok(all);
            }
        }
    };
    to.print(ask, |all: &Vec<DeviceDrift>| drifts(all)).await
}

fn drifts(all: &[DeviceDrift]) -> String {
    let rows: Vec<Vec<String>> = all
        .iter()
        .flat_map(|device| device.drift.iter().map(move |d| (device, d)))
        .map(|(device, d)| {
            vec![
                device.device.clone(),
                d.subject.clone(),
                d.desired.clone(),
                d.reported.clone(),
                ago(d.since),
                d.reason.clone(),
            ]
        })
        .collect();
    if rows.is_empty() {
        return "all is as it should be".to_owned();
    }
    out::aligned(&["node", "subject", "desired", "reported", "since", "reason"], &rows)
}

/// `eve device diff NAME -f FILE`
pub(crate) async fn diff(
    to: &To,
    name: &str,
    files: &[PathBuf],
    how: &Apply,
) -> anyhow::Result<()> {
    let documents = Gathered::read(files)?;
    let path = format!("/devices/{}/diff{}", escaped(name), how.query());
    let one = to.client()?.send(&path, &documents.text).await;
    let one: DeviceDiff = one.map_err(|e| documents.located(e)).or_advise()?;
    to.told(&one, |one| match one.consequences.as_slice() {
        [] => format!("{} is told nothing new", one.device),
        _ => shown_diff(one),
    })
}

/// What a node would do: `!` marks what interrupts something that works.
pub(crate) fn shown_diff(one: &DeviceDiff) -> String {
    let mut text = Lines::default();
    text.line(format_args!("{}:", one.device));
    for consequence in &one.consequences {
        let mark = if consequence.disrupts { "!" } else { " " };
        text.line(format_args!("{mark} {consequence}"));
    }
    if let Some(waits) = &one.waits {
        text.line(format_args!("  {waits}"));
    }
    text.0
}
