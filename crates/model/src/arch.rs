//! Processor architectures that nodes have.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A processor architecture, as Debian, OCI and Go name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    /// x86-64.
    Amd64,
    /// ARMv8.
    Arm64,
    /// RISC-V, 64 bit.
    Riscv64,
}

impl Arch {
    /// All.
    pub const ALL: [Arch; 3] = [Arch::Amd64, Arch::Arm64, Arch::Riscv64];

    /// That of the machine this program was compiled for; `None`: one that no node has.
    pub fn of_host() -> Option<Arch> {
        Arch::ALL.into_iter().find(|a| a.uname() == std::env::consts::ARCH)
    }

    /// Debian's name.
    pub const fn name(self) -> &'static str {
        match self {
            Arch::Amd64 => "amd64",
            Arch::Arm64 => "arm64",
            Arch::Riscv64 => "riscv64",
        }
    }

    /// The architecture of this name.
    pub fn from_name(name: &str) -> Option<Arch> {
        Arch::ALL.into_iter().find(|a| a.name() == name)
    }

    /// The kernel's and GCC's name, with which QEMU's programs end, too.
    pub const fn uname(self) -> &'static str {
        match self {
            Arch::Amd64 => "x86_64",
            Arch::Arm64 => "aarch64",
            Arch::Riscv64 => "riscv64",
        }
    }

    /// What the firmware of a machine looks for in `EFI/BOOT` (UEFI specification, 3.5.1.1).
    pub const fn loader(self) -> &'static str {
        match self {
            Arch::Amd64 => "BOOTX64.EFI",
            Arch::Arm64 => "BOOTAA64.EFI",
            Arch::Riscv64 => "BOOTRISCV64.EFI",
        }
    }

    /// The short name in that, as systemd and GRUB use it: `x64`.
    pub const fn efi(self) -> &'static str {
        match self {
            Arch::Amd64 => "x64",
            Arch::Arm64 => "aa64",
            Arch::Riscv64 => "riscv64",
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
