//! `cargo xtask ci`: everything that must hold before a change goes in, in order of cost.

use std::time::Instant;

use anyhow::bail;

use crate::setup::Arch;
use crate::tool::{self, cargo};
use crate::{layers, licences, setup};

/// Runs everything; stops at the first thing that fails.
pub(crate) fn run() -> anyhow::Result<()> {
    let cargo = cargo();
    if !setup::is_root() {
        bail!(
            "tests make network namespaces and mount file systems: run it as root (sudo -E make test)"
        );
    }
    step("format", || tool::run(&cargo, &["fmt", "--all", "--check"]))?;
    step("layers", layers::run)?;
    step("lints", || {
        tool::run(&cargo, &["clippy", "-q", "--workspace", "--all-targets", "--", "-D", "warnings"])
    })?;
    step("fuzz targets", fuzz_targets)?;
    step("licences", licences::run)?;
    step("the lab's image", || lab_image(Arch::Amd64))?;
    step("tests", || tool::run(&cargo, &["nextest", "run", "--workspace"]))?;
    step("the demo", demo)?;
    step("examples in the documentation", || {
        tool::run(&cargo, &["test", "-q", "--workspace", "--doc"])
    })
}

/// Whether the fuzz targets compile, without the compiler that they run with. They take what the
/// lints left in the target directory: the workspace's profile, told as configuration, is theirs then.
fn fuzz_targets() -> anyhow::Result<()> {
    let args = ["check", "-q", "--locked", "--config", "Cargo.toml"];
    let args: Vec<&str> = args.into_iter().chain(["--manifest-path", "fuzz/Cargo.toml"]).collect();
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or(tool::root().join("target"), Into::into);
    // Nothing is linked: any file may stand for libFuzzer, which would be compiled otherwise.
    let library = tool::root().join("fuzz/Cargo.toml");
    let (target, library) = (target.display().to_string(), library.display().to_string());
    let env = [("CARGO_TARGET_DIR", &*target), ("CUSTOM_LIBFUZZER_PATH", &*library)];
    tool::run_with(&cargo(), &args, &env)
}

/// `eve up`, beside the one that may run on this machine. It ends by itself, and well only if the
/// app's page answered through the node.
fn demo() -> anyhow::Result<()> {
    let args = ["run", "-q", "-p", "cli", "--", "up", "--fresh", "--state", "target/lab/demo"];
    let args: Vec<&str> =
        args.iter().chain(&["--port", "18080", "--controller-port", "18443"]).copied().collect();
    tool::run_with(&cargo(), &args, &[("CI", "true")])
}

/// The debug profile's image, where the lab looks for it; for amd64 also on a disk of EVE's layout, and
/// its installer on all media. All share the steps that take long.
pub(crate) fn lab_image(arch: Arch) -> anyhow::Result<()> {
    const LIVE: &[&str] = &["live", "--format", "raw", "--out", "target/lab/image"];
    const EVE: &[&str] =
        &["live", "--format", "raw", "--out", "target/lab/image/eve-2026", "--profile", "eve-2026"];
    const INSTALLER: &[&str] =
        &["installer", "--format", "raw,iso,net", "--out", "target/lab/image"];
    let builds = match arch {
        Arch::Amd64 => &[LIVE, EVE, INSTALLER][..],
        _ => &[LIVE],
    };
    for build in builds {
        let head = ["run", "-q", "-p", "cli", "--", "build"];
        let tail = ["--debug", "--fast", "--arch", arch.name()];
        let args: Vec<&str> = head.iter().chain(*build).chain(&tail).copied().collect();
        tool::run(&cargo(), &args)?;
    }
    Ok(())
}

/// Nodes of other processors. Not a part of `run`: their programs are compiled once more for each,
/// which takes a small machine as long as everything else.
pub(crate) fn machines(arches: &[Arch]) -> anyhow::Result<()> {
    setup::run(true, arches)?;
    for arch in arches {
        step(&format!("the lab's image for {}", arch.name()), || lab_image(*arch))?;
    }
    step("nodes of other processors", || {
        let args = ["nextest", "run", "--profile", "machines", "-p", "testbed"];
        // Each test is named after its processor.
        let args: Vec<&str> = args.into_iter().chain(arches.iter().map(|a| a.name())).collect();
        tool::run(&cargo(), &args)
    })
}

/// Memory and times of a node, printed with the machine's description.
pub(crate) fn bench_node() -> anyhow::Result<()> {
    lab_image(Arch::Amd64)?;
    tool::run(&cargo(), &["run", "-q", "-p", "testbed", "--bin", "bench-node"])
}

fn step(name: &str, what: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    eprintln!("--- {name}");
    let started = Instant::now();
    what()?;
    eprintln!("--- {name}: {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}
