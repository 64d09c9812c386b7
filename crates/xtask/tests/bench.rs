//! `cargo xtask bench controller` works: its quick mode, with programs that are not optimized. No
//! figure of it is a promise.

use std::path::{Path, PathBuf};
use std::process::Command;

#[expect(clippy::disallowed_methods, reason = "xtask is not part of the product, nor is its test")]
fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    Command::new(program)
}

/// The folder of `eve` and `fleet`: beside xtask, where a build of the whole workspace leaves them.
fn programs() -> PathBuf {
    let folder = Path::new(env!("CARGO_BIN_EXE_xtask")).parent().unwrap();
    if !folder.join("eve").exists() || !folder.join("fleet").exists() {
        let args = ["build", "-q", "-p", "cli", "-p", "testbed", "--bin", "eve", "--bin", "fleet"];
        let built = command(env!("CARGO")).args(args).status().unwrap();
        assert!(built.success());
    }
    folder.to_owned()
}

#[test]
fn a_controller_is_measured() {
    let mut bench = command(env!("CARGO_BIN_EXE_xtask"));
    bench.args(["bench", "controller", "--quick", "--programs"]).arg(programs());
    let out = bench.output().unwrap();
    let (told, said) =
        (String::from_utf8(out.stdout).unwrap(), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{told}\n{said}");
    for line in [
        "enrolled ",
        "memory: ",
        "idle poll, kept",
        "metrics, new",
        "steady: ",
        "a body of",
        "durable: ",
    ] {
        assert!(told.lines().any(|l| l.starts_with(line)), "no {line:?} in:\n{told}");
    }
}
