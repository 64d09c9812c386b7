//! Sending log files to the controller, one at a time.

use std::sync::Arc;
use std::time::Duration;

use device::log::upload::{Outcome, State, Then, next, pause, step};
use device::log::{File, Source};
use host::topics::Reader;
use model::reported::LogCounts;
use model::topic::{DesiredProperties, Identities, Only};
use model::{Diagnose, Problem, chain};
use tokio::sync::watch;
use tokio::time::Instant;

use super::files::Files;
use crate::chance::jitter;
use crate::link::{CallError, Link};
use crate::service::Context;

/// Without an identity, or without anything to send, we look again this often.
const LOOK_AGAIN: Duration = Duration::from_secs(3);

/// How sending goes, for the status.
#[derive(Debug, Clone, Default)]
pub(super) struct Sending {
    pub(super) sent: u64,
    pub(super) problem: Option<Problem>,
    /// As far as sending goes.
    pub(super) counts: LogCounts,
}

/// Sends until it is aborted.
pub(super) async fn run(ctx: Context, files: Arc<Files>, told: watch::Sender<Sending>) {
    let roots = ctx.roots();
    let identities = Reader::<Identities>::open(&roots);
    let properties = Reader::<DesiredProperties>::open(&roots);
    let mut state = State::default();
    let mut link: Option<Link> = None;
    loop {
        let waiting = files.list();
        let id = identities.get(&Only).map(|i| i.id);
        if link.is_none() && id.is_some() {
            link = Link::open(&ctx.paths).inspect_err(|e| tracing::warn!("{}", chain(e))).ok();
        }
        let (Some(file), Some(id), Some(open)) = (next(&waiting), id, &link) else {
            tokio::time::sleep(LOOK_AGAIN).await;
            continue;
        };
        open.obey(&properties.get(&Only).unwrap_or_default());
        let begun = Instant::now();
        let sent = send(open, id, &files, file).await;
        let spent = begun.elapsed();
        let outcome = match &sent {
            Ok((outcome, _)) => *outcome,
            Err(_) => Outcome::Unavailable,
        };
        let (after, then) = step(state, outcome);
        state = after;
        let done = match then {
            Then::Remove => files.remove(file),
            Then::SetAside => {
                tracing::warn!(name = file.name, "set aside: the controller does not take it");
                files.set_aside(file)
            }
            Then::Keep => Ok(()),
        };
        if let Err(e) = done {
            tracing::warn!("{}", chain(&e));
        }
        told.send_modify(|s| {
            s.sent += u64::from(outcome == Outcome::Delivered);
            let status = sent.as_ref().ok().and_then(|(_, status)| *status);
            let now = host::clock::now();
            device::log::counted::sent(&mut s.counts, file, (outcome, status), spent, now);
            s.counts.calls = open.counted();
            s.problem = sent.err().map(|e| e.problem(host::clock::now()));
        });
        rest(&state, waiting.len(), &properties, &told).await;
    }
}

/// Waits for the next file's turn. It comes sooner when the settings say so meanwhile: the first file
/// of a boot goes before the first config comes.
async fn rest(
    state: &State,
    waiting: usize,
    properties: &Reader<DesiredProperties>,
    told: &watch::Sender<Sending>,
) {
    let (started, chance) = (Instant::now(), jitter());
    loop {
        let fast = properties.get(&Only).is_some_and(|p| p.log_fast_upload);
        let pause = pause(state, waiting, fast, chance);
        told.send_modify(|s| s.counts.pause_s = pause.as_secs());
        let left = pause.saturating_sub(started.elapsed());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LOOK_AGAIN)).await;
    }
}

/// What became of it, and the answer's status if there was one.
async fn send(
    link: &Link,
    id: model::DeviceId,
    files: &Files,
    file: &File,
) -> Result<(Outcome, Option<u16>), CallError> {
    let bytes = match files.read(file) {
        Ok(bytes) => bytes,
        Err(e) => {
            // It cannot be read, so it cannot be sent: let others pass.
            tracing::warn!("{}", chain(&e));
            return Ok((Outcome::Refused, None));
        }
    };
    let path = match file.source {
        Source::Device => "newlogs".to_owned(),
        Source::App(app) => format!("apps/instanceid/{app}/newlogs"),
    };
    let answer = link.post(id, &path, &bytes, api::limits::NEWLOGS).await?;
    let outcome = Outcome::of_status(answer.status);
    if outcome != Outcome::Delivered {
        tracing::info!(name = file.name, status = answer.status, "the log file waits");
    }
    Ok((outcome, Some(answer.status)))
}
