//! Which nodes are not as they should be, and why, over the whole fleet.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::response::Response;
use maud::{Markup, html};
use model::UnixMillis;
use serde::Deserialize;

use super::frame::{self, Page, empty, url, when_if};
use super::{Caller, Part, Trouble, answer};
use crate::fleet::Fleet;
use crate::operator::{DeviceDrift, DriftPage, drift_after};

/// Nodes that differ, on one page.
const DIFFER: usize = 100;
/// Nodes that are looked at for one page: what each says is read from the database.
const LOOKED_AT: usize = 2_000;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Which {
    /// The name of the last node of the page before.
    after: String,
}

pub(super) async fn page(
    State(fleet): State<Arc<Fleet>>,
    Query(which): Query<Which>,
    Query(part): Query<Part>,
    caller: Caller,
) -> Result<Response, Trouble> {
    let DriftPage { found, looked, next } =
        drift_after(&fleet, &which.after, DIFFER, LOOKED_AT).await?;
    let body = part_of(&found, looked, next.as_deref(), fleet.now());
    let words = "Nodes that are not as the objects say: what differs, since when, and why.";
    let head = frame::head(&[], "Drift", words, &Markup::default());
    let page = Page { who: &caller, title: "Drift", way: "/drift", head, live: None, part: body };
    Ok(answer(&part, &page))
}

fn part_of(found: &[DeviceDrift], looked: usize, next: Option<&str>, now: UnixMillis) -> Markup {
    html! {
        p.soft { (found.len()) " of " (looked) " nodes differ" @if next.is_some() { "; there are more nodes" } "." }
        div.card {
            @if found.is_empty() { (empty("All are as they should be", "Every node that was looked at is what its objects say.", None)) }
            @else {
                div.scroll { table.stack {
                    thead { tr {
                        th scope="col" { "Node" } th scope="col" { "What" } th scope="col" { "Should be" }
                        th scope="col" { "Is" } th scope="col" { "Since" } th scope="col" { "Why" }
                    } }
                    tbody {
                        @for device in found {
                            @for (n, drift) in device.drift.iter().enumerate() {
                                tr {
                                    td data-of="" { @if n == 0 { a.name href={ "/devices/" (device.device) } { (device.device) } } }
                                    td data-of="What" { (drift.subject) }
                                    td data-of="Should be" { (drift.desired) }
                                    td data-of="Is" { (drift.reported) }
                                    td.tight data-of="Since" { @if drift.since.is_some() { (when_if(now, drift.since)) } @else { span.soft { "–" } } }
                                    td data-of="Why" { div.why.mild[drift.reported != "error"] { (drift.reason) } }
                                }
                            }
                        }
                    }
                } }
            }
            @if let Some(next) = next { nav.pager aria-label="Pages" { span {} a.button href=(url("/drift", &[("after", next)])) rel="next" { "Next" } } }
        }
    }
}
