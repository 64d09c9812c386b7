//! Rollouts: how far each is, why it stopped, and how its devices are, wave by wave.

use std::sync::Arc;

use axum::extract::{Form, Path, Query, State};
use axum::response::Response;
use maud::{Markup, html};
use model::UnixMillis;
use serde::Deserialize;

use super::frame::{self, Page, Tone, empty, state, when};
use super::{Part, Trouble, answer, to};
use crate::access::Caller;
use crate::fleet::Fleet;
use crate::rollout::drive::{self, RolloutError};
use crate::rollout::{Event, Rollout};

/// Devices of one page; those that are not well stand first.
const DEVICES_MAX: usize = 500;

impl From<RolloutError> for Trouble {
    fn from(e: RolloutError) -> Trouble {
        match e {
            RolloutError::Unknown(_) => Trouble::Missing,
            RolloutError::Fleet(e) => e.into(),
            e => Trouble::Refused(model::chain(&e)),
        }
    }
}

fn tone(phase: &str) -> Tone {
    match phase {
        "running" | "done" => Tone::Good,
        "paused" => Tone::Wait,
        _ => Tone::Bad,
    }
}

pub(super) async fn list(
    State(fleet): State<Arc<Fleet>>,
    Query(part): Query<Part>,
    caller: Caller,
) -> Result<Response, Trouble> {
    let mut all = Vec::new();
    for row in fleet.db.rollouts(false).await? {
        all.push(drive::record(&fleet, &row.name).await?.shown(false));
    }
    let now = fleet.now();
    let body = html! {
        @if all.is_empty() {
            div.card { (empty("No change is rolled out", "eve rollout begin takes a change to nodes in waves, watches them, and stops by itself when too many are not well.", None)) }
        }
        @for rollout in &all { (card(rollout, now)) }
    };
    let words =
        "Changes that are taken to nodes in waves: the next one begins when all of one are well.";
    let head = frame::head(&[], "Rollouts", words, &Markup::default());
    let live = Some("/rollouts".to_owned());
    Ok(answer(
        &part,
        &Page { who: &caller, title: "Rollouts", way: "/rollouts", head, live, part: body },
    ))
}

fn card(rollout: &Rollout, now: UnixMillis) -> Markup {
    let objects: Vec<String> = rollout.objects.iter().map(ToString::to_string).collect();
    html! {
        section.card {
            h2 { a href={ "/rollouts/" (rollout.name) } { (rollout.name) } " " (state(tone(&rollout.phase), &rollout.phase)) }
            @if !rollout.why.is_empty() { p.why { (rollout.why) } }
            p.soft { (objects.join(", ")) "; begun by " (rollout.author) " " (when(now, rollout.created)) "; up to " (rollout.allowed) " devices may fail" }
            (waves(rollout))
        }
    }
}

fn waves(rollout: &Rollout) -> Markup {
    html! {
        div.scroll { table {
            thead { tr {
                th scope="col" { "Wave" } th scope="col" { "Passed" } th.number scope="col" { "Devices" }
                th.number scope="col" { "Waiting" } th.number scope="col" { "Taking it" } th.number scope="col" { "Well" } th.number scope="col" { "Not well" }
            } }
            tbody {
                @for (n, wave) in rollout.waves.iter().enumerate() {
                    tr {
                        td.tight { @if n + 1 == rollout.wave { b { (n + 1) ", now" } } @else { (n + 1) } }
                        td { meter min="0" max=(wave.devices.max(1)) value=(wave.passed) aria-label={ "Wave " (n + 1) ": passed" } {} }
                        td.number { (wave.devices) }
                        td.number { (wave.waiting) }
                        td.number { (wave.taking) }
                        td.number { (wave.passed) }
                        td.number { (wave.failed) }
                    }
                }
            }
        } }
    }
}

pub(super) async fn one(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
    Query(part): Query<Part>,
    caller: Caller,
) -> Result<Response, Trouble> {
    let rollout = drive::record(&fleet, &name).await?.shown(true);
    let now = fleet.now();
    let actions = html! {
        @if frame::acts(&caller) { details.menu {
            summary { "Act" }
            div { form method="post" action={ "/rollouts/" (name) } {
                p { "What is refused is told, and changes nothing." }
                div.actions {
                    button name="do" value="pause" { "Pause" }
                    button name="do" value="resume" { "Go on" }
                    button name="do" value="promote" { "Next wave now" }
                    button.risky name="do" value="abort" { "Stop" }
                    button.risky name="do" value="rollback" { "Take it back" }
                }
            } }
        } }
    };
    let head = frame::head(&[("/rollouts", "Rollouts")], &name, "", &actions);
    let body = html! {
        div data-say={ (name) " is " (rollout.phase) } { (card(&rollout, now)) }
        section.card {
            h2 { "Its devices" }
            div.scroll { table.stack {
                thead { tr { th scope="col" { "Device" } th scope="col" { "Wave" } th scope="col" { "State" } th scope="col" { "Since" } } }
                tbody {
                    @for device in rollout.devices.iter().take(DEVICES_MAX) {
                        tr {
                            td data-of="" { a.name href={ "/devices/" (device.name) } { (device.name) } }
                            td.tight data-of="Wave" { (device.wave) }
                            td data-of="State" {
                                @let tone = match device.step.as_str() { "passed" => Tone::Good, "failed" => Tone::Bad, "waiting" => Tone::Idle, _ => Tone::Wait };
                                (state(tone, &device.step))
                                @if !device.note.is_empty() { div.why.mild[tone != Tone::Bad] { (device.note) } }
                            }
                            td.tight data-of="Since" { (when(now, device.since)) }
                        }
                    }
                }
            } }
        }
    };
    let live = Some(format!("/rollouts/{name}"));
    Ok(answer(
        &part,
        &Page { who: &caller, title: &name, way: "/rollouts", head, live, part: body },
    ))
}

#[derive(Debug, Deserialize)]
pub(super) struct Told {
    #[serde(default, rename = "do")]
    wish: String,
}

pub(super) async fn tell(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
    caller: Caller,
    Form(Told { wish }): Form<Told>,
) -> Result<Response, Trouble> {
    let by = caller.name;
    let event = match wish.as_str() {
        "pause" => Event::Pause { by },
        "resume" => Event::Resume { by },
        "abort" => Event::Abort { by },
        "promote" => Event::Promote { by, all: false },
        "rollback" => Event::RollBack { by },
        other => return Err(Trouble::Refused(format!("{other:?} is nothing to tell a rollout"))),
    };
    drive::tell(&fleet, &name, event).await?;
    Ok(to(&format!("/rollouts/{name}")))
}
