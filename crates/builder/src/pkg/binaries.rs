//! Our own programs for the node: static, small, and the same bytes whatever folder they are built in.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;

use host::process::{Tool, ToolError};

use super::recipe::{Arch, CargoRule};
use super::{Progress, crates, cross};
use crate::audit::AuditError;

/// Why a program could not be built.
#[derive(Debug, thiserror::Error)]
pub enum CargoError {
    /// A tool could not be started, or failed.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// The build failed.
    #[error("`cargo build` of {packages} ended with {status}:\n{said}")]
    Failed {
        /// What.
        packages: String,
        /// How.
        status: ExitStatus,
        /// The end of what it said.
        said: String,
    },
    /// The compiler has no standard library for the other processor.
    #[error("rustc has no standard library for {arch} ({triple})")]
    NoStd {
        /// For what.
        arch: Arch,
        /// rustc's name for it.
        triple: &'static str,
    },
    /// The C cross compiler has no C library.
    #[error("{} finds no C library to link with", Tool::Gcc(*arch))]
    NoLibc {
        /// For what.
        arch: Arch,
    },
    /// The build made no such program.
    #[error("cannot read {path}, which the build should have made")]
    Read {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What a program is made of could not be put into it.
    #[error("cannot say in {program} what it is made of")]
    Audit {
        /// Which.
        program: String,
        /// Why.
        source: AuditError,
    },
    /// What programs are made of could not be kept.
    #[error("cannot keep what programs are made of")]
    Save(#[from] store::SaveError),
}

/// So many lines of a failed build are shown.
const KEEP: usize = 40;

/// Builds the programs of all rules, one at least, in one go and returns their bytes. What has not changed is not
/// built again; that is cargo's part.
pub(super) fn build(
    repository: &Path,
    target: &Path,
    arch: Arch,
    rules: &BTreeSet<CargoRule>,
    progress: &dyn Progress,
) -> Result<BTreeMap<CargoRule, Arc<[u8]>>, CargoError> {
    let packages: BTreeSet<&str> = rules.iter().map(|r| r.package.as_str()).collect();
    let bins: BTreeSet<&str> = rules.iter().map(|r| r.bin.as_str()).collect();
    let names = packages.iter().copied().collect::<Vec<_>>().join(" and ");
    progress.step(&format!("compiling {names} for the node"));

    fs::create_dir_all(target)
        .map_err(|source| CargoError::Read { path: target.to_owned(), source })?;
    let target = target.canonicalize().unwrap_or_else(|_| target.to_owned());
    let triple = cross::triple(arch);
    let variables = cross::variables(repository, arch)?;
    let places = places(repository, &target)?;
    let mut command = Tool::Cargo.command();
    command.current_dir(repository);
    command.args(["build", "--profile", "device", "--target", triple, "--target-dir"]);
    command.arg(&target);
    command.args(packages.iter().flat_map(|p| ["-p", p]));
    command.args(bins.iter().flat_map(|b| ["--bin", b]));
    clean(&mut command);
    command.env("CARGO_ENCODED_RUSTFLAGS", rust_flags(&places).join("\u{1f}"));
    command.env(format!("CFLAGS_{}", triple.replace('-', "_")), c_flags(&places));
    command.envs(variables);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let spawn = |source| ToolError::Spawn { tool: Tool::Cargo, source };
    let mut child = command.spawn().map_err(spawn)?;
    let mut said: Vec<String> = Vec::new();
    for line in child.stderr.take().into_iter().flat_map(|e| BufReader::new(e).lines()) {
        let line = line.map_err(|source| ToolError::Pipe { tool: Tool::Cargo, source })?;
        progress.note(line.trim());
        said.push(line);
    }
    let status = child.wait().map_err(spawn)?;
    if !status.success() {
        let said = said.split_off(said.len().saturating_sub(KEEP)).join("\n");
        return Err(CargoError::Failed { packages: names, status, said });
    }
    let crates = crates::of(repository, &target, triple, &packages)?;
    let folder = target.join(triple).join("device");
    let read = |rule: &CargoRule| {
        let path = folder.join(&rule.bin);
        let mut bytes = fs::read(&path).map_err(|source| CargoError::Read { path, source })?;
        if let Some(list) = crates.get(&rule.package) {
            let failed = |source| CargoError::Audit { program: rule.bin.clone(), source };
            bytes = list.put_into(&bytes).map_err(failed)?;
        }
        Ok((rule.clone(), bytes.into()))
    };
    rules.iter().map(read).collect()
}

/// What the caller's shell says about builds must not change ours.
pub(super) fn clean(command: &mut Command) {
    let foreign = std::env::vars_os().map(|(key, _)| key);
    for key in foreign.filter(|key| key.to_str().is_some_and(changes_builds)) {
        command.env_remove(key);
    }
}

/// Variables that would change what comes out. Those about the network and the number of jobs do not.
fn changes_builds(key: &str) -> bool {
    const KEPT: [&str; 5] =
        ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_BUILD_JOBS"];
    const OURS: [&str; 8] =
        ["CARGO_", "RUSTFLAGS", "RUSTC_", "CFLAGS", "CPPFLAGS", "LDFLAGS", "CC_", "TARGET_"];
    OURS.iter().any(|p| key.starts_with(p)) && !KEPT.iter().any(|p| key.starts_with(p))
}

/// Folders whose names would otherwise be in the programs, and what stands there instead. A later
/// one counts before an earlier one.
fn places(repository: &Path, target: &Path) -> Result<Vec<(PathBuf, &'static str)>, ToolError> {
    let spawn = |source| ToolError::Spawn { tool: Tool::Rustc, source };
    // From within the repository, so that its choice of tool chain counts.
    let args = ["--print", "sysroot"];
    let out = Tool::Rustc.command().current_dir(repository).args(args).output().map_err(spawn)?;
    let sysroot = host::process::finish(Tool::Rustc, &args, out)?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&sysroot).trim());
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    let repository = repository.canonicalize().unwrap_or_else(|_| repository.to_owned());
    let mut places = vec![(sysroot, "/rust"), (repository, "/eve"), (target.to_owned(), "/target")];
    places.extend(home.map(|home| (home, "/cargo")));
    Ok(places)
}

fn rust_flags(places: &[(PathBuf, &str)]) -> Vec<String> {
    // Static: the initrd has no loader. Not position-independent: a static-pie is larger, and the
    // kernel places the rest of the process at random all the same.
    let mut flags: Vec<String> =
        ["-C", "target-feature=+crt-static", "-C", "relocation-model=static"]
            .map(str::to_owned)
            .to_vec();
    flags.extend(
        places.iter().map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display())),
    );
    flags
}

fn c_flags(places: &[(PathBuf, &str)]) -> String {
    let flags =
        places.iter().map(|(from, to)| format!("-ffile-prefix-map={}={to}", from.display()));
    flags.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shell_does_not_change_the_build_but_reaches_the_network() {
        for key in ["RUSTFLAGS", "CARGO_PROFILE_DEVICE_LTO", "CFLAGS", "RUSTC_WRAPPER"] {
            assert!(changes_builds(key), "{key}");
        }
        for key in ["CARGO_HOME", "CARGO_HTTP_PROXY", "CARGO_BUILD_JOBS", "PATH", "http_proxy"] {
            assert!(!changes_builds(key), "{key}");
        }
    }
}
