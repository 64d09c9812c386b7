//! The UEFI firmware of this machine's distribution.

use std::path::{Path, PathBuf};

use super::error::QemuError;

/// Firmware for x86 guests: code, and the variables to start from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firmware {
    /// Shared by all guests.
    pub code: PathBuf,
    /// Copied for each guest.
    pub vars: PathBuf,
}

/// Where distributions put it (Debian and Ubuntu; Fedora; Arch), code beside its variables.
const PLACES: [(&str, &str); 4] = [
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
    ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
];

impl Firmware {
    /// Looks where distributions put it.
    pub fn find() -> Result<Firmware, QemuError> {
        let there = PLACES.iter().find(|(c, v)| Path::new(c).exists() && Path::new(v).exists());
        match there {
            Some((code, vars)) => Ok(Firmware { code: code.into(), vars: vars.into() }),
            None => {
                let looked = PLACES.map(|(code, _)| code).join(", ");
                Err(QemuError::NoFirmware { looked })
            }
        }
    }
}
