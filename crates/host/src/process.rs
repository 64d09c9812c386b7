//! The one door to other programs.

use std::fmt;
use std::io;
use std::process::{Command, ExitStatus, Output, Stdio};

use model::Arch;

/// Every program we start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tool {
    /// Applies packet filter rules (nftables).
    Nft,
    /// Starts containers.
    Crun,
    /// Makes ext4 file systems (e2fsprogs).
    Mke2fs,
    /// Checks ext4 file systems (e2fsprogs).
    E2fsck,
    /// Changes ext4 file systems without mounting them (e2fsprogs).
    Debugfs,
    /// Virtual machines of an architecture.
    Qemu(Arch),
    /// Disk images (qemu-utils).
    QemuImg,
    /// A TPM 2.0 in software.
    Swtpm,
    /// Our own builds of node programs.
    Cargo,
    /// Where the compiler lives.
    Rustc,
    /// The C compiler for an architecture, which links.
    Gcc(Arch),
    /// Signatures of Debian's archive.
    Gpgv,
    /// The same, on systems without gpgv (Debian 13 and later).
    Sqv,
    /// The version of what is being built.
    Git,
    /// The debug profile's shell.
    Shell,
}

impl Tool {
    /// The program's name, found through `PATH`.
    pub const fn name(self) -> &'static str {
        match self {
            Tool::Nft => "nft",
            Tool::Crun => "crun",
            Tool::Mke2fs => "mke2fs",
            Tool::E2fsck => "e2fsck",
            Tool::Debugfs => "debugfs",
            Tool::Qemu(Arch::Amd64) => "qemu-system-x86_64",
            Tool::Qemu(Arch::Arm64) => "qemu-system-aarch64",
            Tool::Qemu(Arch::Riscv64) => "qemu-system-riscv64",
            Tool::QemuImg => "qemu-img",
            Tool::Swtpm => "swtpm",
            Tool::Cargo => "cargo",
            Tool::Rustc => "rustc",
            Tool::Gcc(Arch::Amd64) => "x86_64-linux-gnu-gcc",
            Tool::Gcc(Arch::Arm64) => "aarch64-linux-gnu-gcc",
            Tool::Gcc(Arch::Riscv64) => "riscv64-linux-gnu-gcc",
            Tool::Gpgv => "gpgv",
            Tool::Sqv => "sqv",
            Tool::Git => "git",
            Tool::Shell => "sh",
        }
    }

    /// The Debian package that holds it.
    pub const fn package(self) -> &'static str {
        match self {
            Tool::Nft => "nftables",
            Tool::Crun => "crun",
            Tool::Mke2fs | Tool::E2fsck | Tool::Debugfs => "e2fsprogs",
            Tool::Qemu(Arch::Amd64) => "qemu-system-x86",
            Tool::Qemu(Arch::Arm64) => "qemu-system-arm",
            Tool::Qemu(Arch::Riscv64) => "qemu-system-misc",
            Tool::QemuImg => "qemu-utils",
            Tool::Swtpm => "swtpm",
            Tool::Cargo => "cargo",
            Tool::Rustc => "rustc",
            Tool::Gcc(Arch::Amd64) => "gcc-x86-64-linux-gnu",
            Tool::Gcc(Arch::Arm64) => "gcc-aarch64-linux-gnu",
            Tool::Gcc(Arch::Riscv64) => "gcc-riscv64-linux-gnu",
            Tool::Gpgv => "gpgv",
            Tool::Sqv => "sqv",
            Tool::Git => "git",
            Tool::Shell => "busybox-static",
        }
    }

    /// A command to be completed and started by the caller. `/usr/sbin` and `/sbin` are searched
    /// too: Debian's users have neither in `PATH`.
    #[expect(clippy::disallowed_methods, reason = "this is the door that the lint points to")]
    pub fn command(self) -> Command {
        let mut command = Command::new(self.name());
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:/usr/sbin:/sbin:/usr/bin:/bin"));
        // They are for the service itself. crun would wait for its container to call there.
        command.env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC");
        command
    }
}

/// A command that starts this very program once more, to be completed by the caller.
#[expect(clippy::disallowed_methods, reason = "this is the door that the lint points to")]
pub fn this_program() -> io::Result<Command> {
    Ok(Command::new(std::env::current_exe()?))
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What became of a program.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It could not be started.
    #[error("cannot start {tool} (Debian package {})", tool.package())]
    Spawn {
        /// Which.
        tool: Tool,
        /// Why.
        source: io::Error,
    },
    /// It could not be fed or read.
    #[error("cannot talk to {tool}")]
    Pipe {
        /// Which.
        tool: Tool,
        /// Why.
        source: io::Error,
    },
    /// It ended badly.
    #[error("`{cmdline}` ended with {status}: {stderr}")]
    Failed {
        /// As typed.
        cmdline: String,
        /// How.
        status: ExitStatus,
        /// The end of what it said.
        stderr: String,
    },
}

/// So much of what a program said is kept for an error.
const KEEP: usize = 2000;

/// Runs a program to its end and returns what it printed.
pub fn run<S: AsRef<std::ffi::OsStr>>(tool: Tool, args: &[S]) -> Result<Vec<u8>, ToolError> {
    run_with_input(tool, args, &[])
}

/// Runs a program to its end, with `input` on its standard input.
pub fn run_with_input<S: AsRef<std::ffi::OsStr>>(
    tool: Tool,
    args: &[S],
    input: &[u8],
) -> Result<Vec<u8>, ToolError> {
    use std::io::Write;

    let mut child = tool
        .command()
        .args(args)
        .stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| ToolError::Spawn { tool, source })?;
    let feed = child.stdin.take();
    // Fed from a thread of its own: a program that prints while it reads must not block us.
    let out = std::thread::scope(|scope| {
        scope.spawn(move || {
            // A program that ends without reading all says why itself.
            feed.and_then(|mut pipe| pipe.write_all(input).err())
        });
        child.wait_with_output()
    })
    .map_err(|source| ToolError::Pipe { tool, source })?;
    finish(tool, args, out)
}

/// The output of a program that ended well, else the error that shows how it was called.
pub fn finish<S: AsRef<std::ffi::OsStr>>(
    tool: Tool,
    args: &[S],
    out: Output,
) -> Result<Vec<u8>, ToolError> {
    if out.status.success() {
        return Ok(out.stdout);
    }
    let words = args.iter().map(|a| a.as_ref().to_string_lossy());
    let cmdline = std::iter::once(tool.name().into()).chain(words).collect::<Vec<_>>().join(" ");
    let said = String::from_utf8_lossy(&out.stderr);
    let from = said.len().saturating_sub(KEEP);
    let stderr = said.get(from..).unwrap_or(&said).trim().to_owned();
    Err(ToolError::Failed { cmdline, status: out.status, stderr })
}
