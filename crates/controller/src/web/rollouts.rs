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
use crate::rollout::{Event, Rollout, RolloutDevice, WaveCount};

/// Nodes of one page.
const DEVICES_MAX: usize = 500;
/// Failures that are told above.
const FAILED_MAX: usize = 50;
/// A node's step, as it is shown.
const FAILED: &str = "failed";

impl From<RolloutError> for Trouble {
    fn from(e: RolloutError) -> Trouble {
        match e {
            RolloutError::Unknown(_) => Trouble::Missing,
            RolloutError::Fleet(e) => e.into(),
            e => Trouble::Refused(model::chain(&e)),
        }
    }
}

/// Rollouts, and changes that wait for their time.
pub(super) fn tabs(now: &str) -> Markup {
    frame::tabs("Changes", &[("/rollouts", "Rollouts"), ("/schedules", "Scheduled changes")], now)
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
    let head =
        html! { (frame::head(&[], "Rollouts", words, &Markup::default())) (tabs("/rollouts")) };
    let live = Some("/rollouts".to_owned());
    Ok(answer(
        &part,
        &Page { who: &caller, title: "Rollouts", way: "/rollouts", head, live, part: body },
    ))
}

/// How many of a rollout's nodes are where, over all waves.
struct Sum {
    all: usize,
    waiting: usize,
    taking: usize,
    passed: usize,
    failed: usize,
}

impl Sum {
    fn of(rollout: &Rollout) -> Sum {
        let sum = |pick: fn(&WaveCount) -> usize| rollout.waves.iter().map(pick).sum();
        Sum {
            all: sum(|w| w.devices),
            waiting: sum(|w| w.waiting),
            taking: sum(|w| w.taking),
            passed: sum(|w| w.passed),
            failed: sum(|w| w.failed),
        }
    }

    /// Those that were given the change.
    fn have_it(&self) -> usize {
        self.taking + self.passed + self.failed
    }
}

fn nodes(count: usize) -> String {
    if count == 1 { "1 node".to_owned() } else { format!("{count} nodes") }
}

/// Where it is and why, in a sentence or two.
fn headline(rollout: &Rollout) -> String {
    let sum = Sum::of(rollout);
    let too_many = || {
        format!("{} of {} failed, and at most {} may", sum.failed, nodes(sum.all), rollout.allowed)
    };
    match rollout.phase.as_str() {
        "running" => format!(
            "Wave {} of {}: {} of {} took it and are well.",
            rollout.wave,
            rollout.waves.len(),
            sum.passed,
            nodes(sum.all)
        ),
        "done" if sum.failed == 0 => format!("All of {} took it and are well.", nodes(sum.all)),
        "done" => {
            format!(
                "{} of {} took it and are well; {} failed.",
                sum.passed,
                nodes(sum.all),
                sum.failed
            )
        }
        "stopped" if sum.failed > rollout.allowed => {
            format!("It stopped by itself: {}.", too_many())
        }
        "rolled back" if sum.failed > rollout.allowed && !rollout.why.starts_with("by ") => {
            format!("It took itself back: {}.", too_many())
        }
        // Whoever did it stands in the reason.
        "paused" if !rollout.why.starts_with("by ") => {
            format!("It paused by itself: {}.", rollout.why)
        }
        "stopped" => format!("It was {}.", rollout.why),
        phase => format!("It was {phase} {}.", rollout.why),
    }
}

fn card(rollout: &Rollout, now: UnixMillis) -> Markup {
    html! {
        section.card {
            h2 { a href={ "/rollouts/" (rollout.name) } { (rollout.name) } " " (state(tone(&rollout.phase), &rollout.phase)) }
            p { (headline(rollout)) }
            (about(rollout, now))
            (waves(rollout))
        }
    }
}

fn about(rollout: &Rollout, now: UnixMillis) -> Markup {
    let failures = match rollout.allowed {
        0 => "none may fail".to_owned(),
        n => format!("at most {n} may fail"),
    };
    html! {
        p.soft {
            @for (n, object) in rollout.objects.iter().enumerate() {
                @if n > 0 { ", " }
                a href={ "/objects/" (object.kind.name()) "/" (object.name) } { (object) }
            }
            " · begun by " (rollout.author) " " (when(now, rollout.created)) " · " (failures)
        }
    }
}

/// The waves as bars: well, on the way, not well, and what is left.
fn waves(rollout: &Rollout) -> Markup {
    html! {
        ol.waves {
            @for (n, wave) in rollout.waves.iter().enumerate() {
                @let parts = [("good", wave.passed, "well"), ("wait", wave.taking, "taking it"), ("bad", wave.failed, "failed"), ("idle", wave.waiting, "waiting"), ("idle", wave.back, "back as before")];
                @let said: Vec<String> = parts.iter().filter(|(_, n, _)| *n > 0).map(|(_, n, what)| format!("{n} {what}")).collect();
                li aria-current=[(n + 1 == rollout.wave && !matches!(rollout.phase.as_str(), "done" | "rolled back")).then_some("step")] {
                    span { b { "Wave " (n + 1) } " " span.soft { (nodes(wave.devices)) } }
                    svg.bar viewBox={ "0 0 " (wave.devices.max(1)) " 1" } preserveAspectRatio="none" aria-hidden="true" {
                        @let ends = parts.iter().scan(0, |x, (tone, n, _)| { let at = *x; *x += n; Some((*tone, at, *n)) });
                        @for (tone, at, n) in ends { @if n > 0 { rect class={ "is-" (tone) } x=(at) y="0" width=(n) height="1" {} } }
                    }
                    span.soft { (said.join(", ")) }
                }
            }
        }
    }
}

/// The nodes that failed and why: those of one reason together.
fn failures(rollout: &Rollout, now: UnixMillis) -> Markup {
    let failed: Vec<&RolloutDevice> = rollout.devices.iter().filter(|d| d.step == FAILED).collect();
    if failed.is_empty() {
        return Markup::default();
    }
    html! {
        section.card {
            h2 { "What failed" }
            div.scroll { table.stack {
                thead { tr { th scope="col" { "Node" } th scope="col" { "Why" } th scope="col" { "Wave" } th scope="col" { "Since" } } }
                tbody { @for device in failed.iter().take(FAILED_MAX) { tr {
                    td data-of="" { a.name href={ "/devices/" (device.name) } { (device.name) } }
                    td data-of="Why" { (device.note) }
                    td.tight data-of="Wave" { (device.wave) }
                    td.tight data-of="Since" { (when(now, device.since)) }
                } } }
            } }
            @if failed.len() > FAILED_MAX { p.soft { "and " (failed.len() - FAILED_MAX) " more, in the list below" } }
        }
    }
}

/// What somebody may do now, and what comes of it. What would be refused does not stand here.
fn choices(rollout: &Rollout) -> Markup {
    let sum = Sum::of(rollout);
    let (running, last) = (rollout.phase == "running", rollout.wave >= rollout.waves.len());
    // Otherwise the next wave comes by itself.
    let busy = rollout.waves.iter().take(rollout.wave).any(|w| w.taking + w.waiting > 0);
    let failed_stay = match sum.failed {
        0 => String::new(),
        n => format!(" The failure of {} counts as accepted; one more stops it again.", nodes(n)),
    };
    let left = nodes(sum.waiting);
    html! {
        section.card {
            h2 { "What you can do" }
            ul.choices {
                @if running {
                    li { (choice(rollout, "pause", "Pause", None)) p { "Nobody new gets the change until you resume; those that have it keep it." } }
                } @else {
                    li {
                        (choice(rollout, "resume", "Resume", None))
                        p {
                            @if sum.failed > 0 { "See to what failed first, or live with it." (failed_stay) " " }
                            "It goes on as planned; " (left) " still " (if sum.waiting == 1 { "waits." } else { "wait." })
                        }
                    }
                }
                @if !last && busy {
                    li { (choice(rollout, "promote", "Next wave now", None)) p { "Wave " (rollout.wave + 1) " gets the change without waiting for the rest of this one." } }
                }
                li {
                    (choice(rollout, "rollback", "Roll back", Some(&format!("Roll back {}", nodes(sum.have_it())))))
                    p { "Everybody is told again what was before. What changed on " (nodes(sum.have_it())) " that have the change restarts there; the others notice nothing. It ends the rollout." }
                }
                @if rollout.phase != "stopped" {
                    li { (choice(rollout, "abort", "Abort", Some("Abort here"))) p { "It stops where it is: " (nodes(sum.have_it())) " keep the change, " (left) " do not get it. You can still resume or roll back." } }
                }
            }
            @if rollout.phase == "stopped" { p.soft { "Until you choose, " (nodes(sum.have_it())) " keep the change and " (left) " do not get it." } }
        }
    }
}

/// A button; with `sure` one that asks once more.
fn choice(rollout: &Rollout, wish: &str, name: &str, sure: Option<&str>) -> Markup {
    html! {
        @match sure {
            None => form method="post" action={ "/rollouts/" (rollout.name) } { button name="do" value=(wish) { (name) } },
            Some(sure) => details.menu {
                summary { (name) }
                div { form method="post" action={ "/rollouts/" (rollout.name) } { button.risky name="do" value=(wish) { (sure) } } }
            },
        }
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
    let over = matches!(rollout.phase.as_str(), "done" | "rolled back");
    let note = match tone(&rollout.phase) {
        Tone::Good => "good",
        Tone::Wait => "wait",
        _ => "bad",
    };
    let body = html! {
        p class={ "note " (note) } data-say={ (name) " is " (rollout.phase) } { (state(tone(&rollout.phase), &rollout.phase)) " " b { (headline(&rollout)) } }
        (failures(&rollout, now))
        @if frame::acts(&caller) && !over { (choices(&rollout)) }
        section.card { h2 { "Waves" } (about(&rollout, now)) (waves(&rollout)) }
        section.card {
            h2 { "All its nodes" }
            div.scroll { table.stack {
                thead { tr { th scope="col" { "Node" } th scope="col" { "Wave" } th scope="col" { "State" } th scope="col" { "Since" } } }
                tbody {
                    @for device in rollout.devices.iter().take(DEVICES_MAX) {
                        tr {
                            td data-of="" { a.name href={ "/devices/" (device.name) } { (device.name) } }
                            td.tight data-of="Wave" { (device.wave) }
                            td data-of="State" {
                                @let tone = match device.step.as_str() { "passed" => Tone::Good, FAILED => Tone::Bad, "waiting" => Tone::Idle, _ => Tone::Wait };
                                (state(tone, &device.step))
                                @if !device.note.is_empty() { div.why.mild[tone != Tone::Bad] { (device.note) } }
                            }
                            td.tight data-of="Since" { (when(now, device.since)) }
                        }
                    }
                }
            } }
            @if rollout.devices.len() > DEVICES_MAX { p.soft { "and " (rollout.devices.len() - DEVICES_MAX) " more: eve rollout show " (name) } }
        }
    };
    let head = frame::head(&[("/rollouts", "Rollouts")], &name, "", &Markup::default());
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
