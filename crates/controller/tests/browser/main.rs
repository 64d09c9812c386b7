//! The web pages in a real browser: what they look like, whether they can be used by keyboard alone,
//! whether anybody can read them. Chromium is driven by its own debugging protocol over two pipes.
//!
//! Pictures of all pages go to `target/screenshots`.

mod browser;
#[path = "../fleet/common.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod common;
#[path = "../fleet/edges.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod edges;
mod fleet;
mod looks;
mod rollout;
mod walk;
