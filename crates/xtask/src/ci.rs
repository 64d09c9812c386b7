//! `cargo xtask ci`: everything that must hold before a change goes in, in order of cost.

use std::time::Instant;

use crate::layers;
use crate::tool::{self, cargo, output};

/// Runs everything; stops at the first thing that fails.
pub(crate) fn run() -> anyhow::Result<()> {
    let cargo = cargo();
    step("format", || tool::run(&cargo, &["fmt", "--all", "--check"]))?;
    step("layers", layers::run)?;
    step("lints", || {
        tool::run(&cargo, &["clippy", "-q", "--workspace", "--all-targets", "--", "-D", "warnings"])
    })?;
    step("licences", || {
        if output("cargo-deny", &["--version"]).is_none() {
            eprintln!("NOT CHECKED: cargo-deny is not installed (`cargo install cargo-deny`)");
            return Ok(());
        }
        tool::run(&cargo, &["deny", "--offline", "check", "licenses", "bans", "sources"])
    })?;
    step("the lab's image", lab_image)?;
    step("tests", || tool::run(&cargo, &["nextest", "run", "--workspace"]))?;
    // With CI=true it ends by itself: 0 only if the page of the app answered through the node.
    step("the demo", || tool::run(&cargo, &["run", "-q", "-p", "cli", "--", "up", "--fresh"]))?;
    step("examples in the documentation", || {
        tool::run(&cargo, &["test", "-q", "--workspace", "--doc"])
    })
}

/// The debug profile's image, where the lab looks for it.
pub(crate) fn lab_image() -> anyhow::Result<()> {
    let args =
        ["run", "-q", "-p", "cli", "--", "build", "live", "--debug", "--fast", "--format", "raw"];
    let args: Vec<&str> = args.iter().chain(&["--out", "target/lab/image"]).copied().collect();
    tool::run(&cargo(), &args)
}

/// Memory and times of a node, printed with the machine's description.
pub(crate) fn bench_node() -> anyhow::Result<()> {
    lab_image()?;
    tool::run(&cargo(), &["run", "-q", "-p", "testbed", "--bin", "bench-node"])
}

fn step(name: &str, what: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    eprintln!("--- {name}");
    let started = Instant::now();
    what()?;
    eprintln!("--- {name}: {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}
