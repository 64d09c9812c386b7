//! Changes that wait for their time, and what became of those that did.

use std::sync::Arc;

use axum::extract::{Form, Path, Query, State};
use axum::response::Response;
use maud::{Markup, html};
use model::UnixMillis;
use serde::Deserialize;

use super::frame::{self, Page, Tone, acts, empty, press, state, when};
use super::{Caller, Part, Trouble, answer, rollouts, to};
use crate::fleet::Fleet;
use crate::operator::{all_scheduled, cancel_scheduled, put_scheduled};
use crate::words::time;

/// Changes of one page, the newest first.
const CHANGES_MAX: usize = 200;

pub(super) async fn page(
    State(fleet): State<Arc<Fleet>>,
    Query(part): Query<Part>,
    caller: Caller,
) -> Result<Response, Trouble> {
    let mut all = all_scheduled(&fleet).await?;
    all.sort_by_key(|s| std::cmp::Reverse(s.due));
    let (now, may) = (fleet.now(), acts(&caller));
    let waiting = all.iter().filter(|s| s.state == WAITING).count();
    let body = html! {
        div.card data-say={ (waiting) " changes wait for their time" } {
            @if all.is_empty() { (empty("No change waits for its time", "A change that is written today can be made at night: it is checked now and made once.", None)) }
            @else {
                div.scroll { table.stack {
                    thead { tr { th scope="col" { "Change" } th scope="col" { "When" } th scope="col" { "State" } th scope="col" { "What became of it" } th scope="col" { span.hidden { "Act" } } } }
                    tbody { @for change in all.iter().take(CHANGES_MAX) { tr {
                        td data-of="" {
                            b { (change.name) } div.soft { "by " (change.author) }
                            details { summary { "What it says" } pre { (change.documents) } }
                        }
                        td.tight data-of="When" { (time(change.due)) }
                        td.tight data-of="State" { (state(tone(&change.state), &change.state)) }
                        td data-of="Outcome" {
                            @if let Some(at) = change.done { (when(now, at)) " " }
                            span.why[change.state == FAILED] { (change.outcome) }
                        }
                        td.tight data-of="" { @if may && change.state == WAITING { (press(&format!("/schedules/{}/cancel", change.name), "Cancel", &change.name)) } }
                    } } }
                } }
            }
        }
    };
    let words = "Changes that are made at their time, once, also over a restart of the controller.";
    let head = html! {
        (frame::head(&[("/rollouts", "Rollouts")], TITLE, words, &html! { span.soft { "It is " (time(now)) } }))
        (rollouts::tabs("/schedules"))
        @if may { (form()) }
    };
    let live = Some("/schedules".to_owned());
    let page = Page { who: &caller, title: TITLE, way: "/rollouts", head, live, part: body };
    Ok(answer(&part, &page))
}

const TITLE: &str = "Scheduled changes";
const WAITING: &str = "waiting";
const FAILED: &str = "failed";

fn tone(state: &str) -> Tone {
    match state {
        WAITING => Tone::Wait,
        "done" => Tone::Good,
        FAILED => Tone::Bad,
        _ => Tone::Idle,
    }
}

fn form() -> Markup {
    html! {
        details.card {
            summary { "Schedule a change" }
            form method="post" action="/schedules" {
                div.filters {
                    div { label for="change" { "Name" } input #change name="name" required maxlength="63" autocomplete="off"; }
                    div { label for="due" { "When (UTC)" } input #due name="due" type="datetime-local" required; }
                }
                div.field { label for="documents" { "Objects, as YAML" } textarea #documents.mono name="documents" rows="10" required spellcheck="false" {} }
                button { "Schedule it" }
                p.hint { "It is checked now; what is wrong is told at once." }
            }
        }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct NewChange {
    name: String,
    due: String,
    documents: String,
}

/// A time as browsers write it (`2026-02-03T04:00`, seconds may follow), in UTC.
fn due(text: &str) -> Option<UnixMillis> {
    let civil: jiff::civil::DateTime = text.trim().parse().ok()?;
    let at = civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
    u64::try_from(at.as_millisecond()).ok().map(UnixMillis)
}

pub(super) async fn set(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
    Form(new): Form<NewChange>,
) -> Result<Response, Trouble> {
    let wrong = || {
        let text = format!("when: {:?} is no time; write 2026-02-03T04:00", new.due);
        Trouble::Refused(text)
    };
    let due = due(&new.due).ok_or_else(wrong)?;
    put_scheduled(&fleet, new.name.trim(), due, new.documents, &caller.name).await?;
    Ok(to("/schedules"))
}

pub(super) async fn cancel(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
    caller: Caller,
) -> Result<Response, Trouble> {
    cancel_scheduled(&fleet, &name, &caller.name).await?;
    Ok(to("/schedules"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_browsers_write_them() {
        let at = Some(UnixMillis(1_770_091_200_000));
        assert_eq!(due("2026-02-03T04:00"), at);
        assert_eq!(due("2026-02-03T04:00:00"), at);
        for text in ["", "tomorrow", "2026-02-30T04:00", "1960-01-01T00:00"] {
            assert_eq!(due(text), None, "{text}");
        }
    }
}
