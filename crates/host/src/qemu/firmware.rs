//! The firmware of this machine's distribution, for guests of each architecture.

use std::path::{Path, PathBuf};

use model::Arch;

use super::error::QemuError;
use super::machine::{DiskFormat, Flash};

/// What starts a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firmware {
    /// Shared by all guests.
    pub code: PathBuf,
    /// The variables to start from, copied for each guest. `None`: it keeps none in flash, and QEMU
    /// loads `code` like a kernel (U-Boot).
    pub vars: Option<PathBuf>,
}

/// Where distributions put it, code beside its variables.
const PLACES: [(Arch, &str, Option<&str>); 9] = {
    use Arch::{Amd64, Arm64, Riscv64};
    [
        // Debian and Ubuntu, new and old; Fedora; Arch.
        (Amd64, "/usr/share/OVMF/OVMF_CODE_4M.fd", Some("/usr/share/OVMF/OVMF_VARS_4M.fd")),
        (Amd64, "/usr/share/OVMF/OVMF_CODE.fd", Some("/usr/share/OVMF/OVMF_VARS.fd")),
        (Amd64, "/usr/share/edk2/ovmf/OVMF_CODE.fd", Some("/usr/share/edk2/ovmf/OVMF_VARS.fd")),
        (Amd64, "/usr/share/edk2/x64/OVMF_CODE.4m.fd", Some("/usr/share/edk2/x64/OVMF_VARS.4m.fd")),
        (
            Arm64,
            "/usr/share/AAVMF/AAVMF_CODE.no-secboot.fd",
            Some("/usr/share/AAVMF/AAVMF_VARS.fd"),
        ),
        (Arm64, "/usr/share/AAVMF/AAVMF_CODE.fd", Some("/usr/share/AAVMF/AAVMF_VARS.fd")),
        (
            Arm64,
            "/usr/share/edk2/aarch64/QEMU_EFI-pflash.raw",
            Some("/usr/share/edk2/aarch64/vars-template-pflash.raw"),
        ),
        // With OpenSBI, which QEMU brings. EDK II for RISC-V needs QEMU 8.
        (Riscv64, "/usr/lib/u-boot/qemu-riscv64_smode/u-boot.bin", None),
        (Riscv64, "/usr/share/u-boot/qemu-riscv64_smode/u-boot.bin", None),
    ]
};

impl Firmware {
    /// Looks where distributions put it.
    pub fn find(arch: Arch) -> Result<Firmware, QemuError> {
        let is_there = |path: &str| Path::new(path).exists();
        let ours = || PLACES.iter().filter(|(a, ..)| *a == arch);
        let found = ours().find(|(_, code, vars)| is_there(code) && vars.is_none_or(is_there));
        match found {
            Some((_, code, vars)) => {
                Ok(Firmware { code: code.into(), vars: vars.map(PathBuf::from) })
            }
            None => {
                let looked = ours().map(|(_, code, _)| *code).collect::<Vec<_>>().join(", ");
                Err(QemuError::NoFirmware { arch, looked })
            }
        }
    }

    /// Where it would be if it were installed: the first place that is looked into.
    pub fn expected(arch: Arch) -> Firmware {
        let ours = PLACES.iter().find(|(a, ..)| *a == arch);
        let (code, vars) = ours.map_or(("", None), |(_, code, vars)| (*code, *vars));
        Firmware { code: code.into(), vars: vars.map(PathBuf::from) }
    }

    /// It as a part of a machine whose own variables are in a folder, as `vars.fd`: copied there the
    /// first time.
    pub fn in_folder(self, dir: &Path) -> Result<Flash, QemuError> {
        let own = dir.join("vars.fd");
        if let Some(vars) = self.vars.as_ref().filter(|_| !own.exists()) {
            std::fs::copy(vars, &own).map_err(QemuError::file("make", &own))?;
        }
        Ok(self.with_vars(own, DiskFormat::Raw))
    }

    /// It as a part of a machine whose own variables are in `vars`.
    pub fn with_vars(self, vars: PathBuf, vars_format: DiskFormat) -> Flash {
        match self.vars {
            Some(_) => Flash::Code { code: self.code, vars, vars_format },
            None => Flash::Loader(self.code),
        }
    }
}
