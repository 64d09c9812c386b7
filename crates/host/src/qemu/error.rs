//! What can go wrong around a virtual machine.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use model::{Arch, Diagnose, Diagnosis, Who};

use crate::process::ToolError;

/// Why a virtual machine could not be started, talked to or stopped.
#[derive(Debug, thiserror::Error)]
pub enum QemuError {
    /// A program is missing or failed.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// A file could not be replaced.
    #[error(transparent)]
    Save(#[from] store::SaveError),
    /// No firmware on this machine.
    #[error("no firmware for {arch} virtual machines: looked for {looked}")]
    NoFirmware {
        /// For what.
        arch: Arch,
        /// The files that were tried.
        looked: String,
    },
    /// Another program listens where the guest's port should appear.
    #[error("port {port} on {address} is taken by another program")]
    PortTaken {
        /// The port of this machine.
        port: u16,
        /// The address of this machine.
        address: std::net::IpAddr,
        /// Why it cannot be bound.
        source: io::Error,
    },
    /// A Unix socket's path is longer than the kernel takes.
    #[error("the path of a socket is too long ({} bytes, 107 fit): {path}", path.as_os_str().len())]
    LongPath {
        /// The path.
        path: PathBuf,
    },
    /// QEMU ended before its time.
    #[error("QEMU ended ({status}): {said}")]
    Ended {
        /// How.
        status: String,
        /// The end of what it said.
        said: String,
    },
    /// The QEMU monitor did not answer as it should.
    #[error("cannot {doing} through the monitor of QEMU")]
    Monitor {
        /// The operation.
        doing: String,
        /// Why.
        source: io::Error,
    },
    /// The QEMU monitor refused a command.
    #[error("QEMU refuses `{command}`: {said}")]
    Refused {
        /// The command.
        command: String,
        /// What it said.
        said: String,
    },
    /// Something took too long.
    #[error("{what} did not happen within {} s", limit.as_secs())]
    Timeout {
        /// What was waited for.
        what: String,
        /// For how long.
        limit: Duration,
    },
    /// A file could not be used.
    #[error("cannot {doing} {path}")]
    File {
        /// The operation.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl QemuError {
    /// For `map_err` on file operations.
    pub(super) fn file(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> QemuError {
        let path = path.into();
        move |source| QemuError::File { doing, path, source }
    }
}

impl Diagnose for QemuError {
    fn diagnose(&self) -> Diagnosis {
        use Who::{Developer, Operator};
        match self {
            Self::Tool(ToolError::Spawn { tool, .. }) => {
                Diagnosis::of(Operator, format!("apt install {}", tool.package()))
            }
            Self::NoFirmware { arch, .. } => {
                let package = match arch {
                    Arch::Amd64 => "ovmf",
                    Arch::Arm64 => "qemu-efi-aarch64",
                    Arch::Riscv64 => "u-boot-qemu",
                };
                Diagnosis::of(Operator, format!("apt install {package}"))
            }
            Self::PortTaken { port, .. } => Diagnosis::of(
                Operator,
                format!("stop the program on port {port} (`ss -ltnp`), or choose another port"),
            ),
            Self::LongPath { .. } => {
                Diagnosis::of(Operator, "choose a folder with a shorter path for the state")
            }
            Self::Ended { .. } => Diagnosis::of(Operator, "read the end of QEMU's output above"),
            Self::Timeout { .. } => {
                Diagnosis::of(Operator, "look at the serial log; on a busy machine allow more time")
            }
            Self::File { .. } | Self::Save(_) => {
                Diagnosis::of(Operator, "check the free space and the rights of that folder")
            }
            Self::Tool(_) | Self::Monitor { .. } | Self::Refused { .. } => {
                Diagnosis::of(Developer, "report it with the command line and QEMU's version")
            }
        }
    }
}
