//! What compiles our programs for a processor: rustc's name for it, and the C compiler that links.
//!
//! The compiler is the one that the repository uses everywhere else; only its standard library for
//! the other processor, a C cross compiler and a C library are added to a machine. Looked at before
//! cargo starts, because cargo would say it late and in other words.

use std::path::Path;
use std::process::Output;

use host::process::{Tool, ToolError, finish};

use super::binaries::CargoError;
use super::recipe::Arch;

/// What rustc calls the programs of a node.
pub(super) const fn triple(arch: Arch) -> &'static str {
    match arch {
        Arch::Amd64 => "x86_64-unknown-linux-gnu",
        Arch::Arm64 => "aarch64-unknown-linux-gnu",
        Arch::Riscv64 => "riscv64gc-unknown-linux-gnu",
    }
}

/// The variables that make cargo compile for `arch`, once this machine has what that takes.
/// Empty where it is the machine's own.
pub(super) fn variables(
    repository: &Path,
    arch: Arch,
) -> Result<Vec<(String, &'static str)>, CargoError> {
    let host = rustc(repository, &["-vV"])?;
    if host.lines().any(|l| l.strip_prefix("host: ") == Some(triple(arch))) {
        return Ok(Vec::new());
    }
    let library = rustc(repository, &["--print", "target-libdir", "--target", triple(arch)])?;
    if !Path::new(library.trim()).is_dir() {
        return Err(CargoError::NoStd { arch, triple: triple(arch) });
    }
    let gcc = Tool::Gcc(arch);
    // A compiler that does not find the file says its bare name.
    let libc = text(gcc, &["-print-file-name=libc.a"], gcc.command())?;
    if !Path::new(libc.trim()).is_file() {
        return Err(CargoError::NoLibc { arch });
    }
    let lower = triple(arch).replace('-', "_");
    Ok(vec![
        (format!("CARGO_TARGET_{}_LINKER", lower.to_uppercase()), gcc.name()),
        (format!("CC_{lower}"), gcc.name()),
    ])
}

/// From within the repository, so that its choice of tool chain counts.
pub(super) fn rustc(repository: &Path, args: &[&str]) -> Result<String, ToolError> {
    let mut command = Tool::Rustc.command();
    command.current_dir(repository);
    text(Tool::Rustc, args, command)
}

pub(super) fn text(
    tool: Tool,
    args: &[&str],
    mut command: std::process::Command,
) -> Result<String, ToolError> {
    let spawn = |source| ToolError::Spawn { tool, source };
    let out: Output = command.args(args).output().map_err(spawn)?;
    Ok(String::from_utf8_lossy(&finish(tool, args, out)?).into_owned())
}
