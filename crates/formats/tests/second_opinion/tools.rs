//! The programs that judge. One that is missing fails the test and says what to install.

use std::path::Path;
use std::process::{Command, Output};

/// Runs a program in `dir` and returns what it printed; fails the test if it is not content.
#[track_caller]
pub(crate) fn tool(name: &str, package: &str, dir: &Path, args: &[&str]) -> String {
    let out = run(name, package, dir, args);
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    let complained = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{name} {args:?}: {}\n{said}\n{complained}", out.status);
    said
}

#[track_caller]
#[expect(
    clippy::disallowed_methods,
    reason = "these programs judge our bytes; no product runs them"
)]
pub(crate) fn run(name: &str, package: &str, dir: &Path, args: &[&str]) -> Output {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let command = Command::new(name).args(args).current_dir(dir).env("PATH", path).output();
    command.unwrap_or_else(|e| panic!("{name}: {e}; apt install {package}"))
}
