//! What a server hands out so that machines install themselves over the network: the ISO, and what
//! their firmware loads before it.
//!
//! The boot program carries the installer inside its initrd, so that nothing is asked of the network
//! once it runs, and whoever checks the program has checked all of it. Firmware that boots over HTTP
//! can load it without iPXE.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use formats::cpio;
use formats::uki::{Pe, PeError};
use model::installer::ISO_IN_MEMORY;
use model::{Bytes, Diagnose, Diagnosis, Who};
use tar::{EntryType, Header};

use super::Arch;
use super::disk::{DiskError, whole};

/// The name of the ISO in the archive; boot loaders ask for it.
const ISO: &str = "installer.iso";
const FOLDER: &str = "EFI/BOOT";
/// What iPXE does, under the name that the reference's iPXE asks for.
const SCRIPT: &str = "ipxe.efi.cfg";
/// The name that every other iPXE asks for, in the folder that it came from.
const AUTOEXEC: &str = "autoexec.ipxe";
/// Leads from one to the other. A DHCP server that names iPXE itself to whoever asks needs it: without,
/// iPXE would load itself for ever.
const LEADS_ON: &str = "#!ipxe\n\
    # iPXE asks for this file; what it does then stands in ipxe.efi.cfg.\n\
    dhcp || echo no answer from DHCP, going on\n\
    chain ipxe.efi.cfg\n";
const CHUNK: usize = 1 << 20;

/// What a server hands out. Members stand in this order in the archive.
#[derive(Debug)]
pub struct NetBoot<'a> {
    /// Which machines it is for.
    pub arch: Arch,
    /// The installer.
    pub iso: &'a Path,
    /// iPXE as a program of UEFI.
    pub ipxe: &'a [u8],
    /// What iPXE does: `ipxe.efi.cfg`, to which `autoexec.ipxe` leads.
    pub script: &'a str,
    /// Programs in `EFI/BOOT`, by name, that iPXE or the firmware starts.
    pub loaders: &'a [(String, Vec<u8>)],
    /// `EFI/BOOT/grub.cfg`, if one of the programs is GRUB.
    pub grub: Option<&'a str>,
    /// All times, in seconds since 1970.
    pub time: u64,
}

/// Why there is no archive.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// A program whose name is no plain name.
    #[error("{0:?} cannot be the name of a boot program")]
    Name(String),
    /// The boot program cannot be made.
    #[error("cannot put the installer into the boot program")]
    Program(#[from] PeError),
    /// The installer does not fit into an initrd.
    #[error("cannot put the installer into the initrd")]
    Initrd(#[source] io::Error),
    /// A file.
    #[error(transparent)]
    File(#[from] DiskError),
}

impl Diagnose for NetError {
    fn diagnose(&self) -> Diagnosis {
        match self {
            NetError::Name(_) => Diagnosis::of(Who::Developer, "correct the name"),
            NetError::Program(_) | NetError::Initrd(_) => {
                Diagnosis::of(Who::Operator, "leave packages out: memory must hold all of it")
            }
            NetError::File(cause) => cause.diagnose(),
        }
    }
}

/// The name under which iPXE is asked for.
pub const fn ipxe_name(arch: Arch) -> &'static str {
    match arch {
        Arch::Amd64 | Arch::Arm64 => "ipxe.efi",
        Arch::Riscv64 => "ipxe.riscv64",
    }
}

/// How the path of iPXE for UEFI ends in Debian's package.
pub(super) fn ipxe_file(arch: Arch) -> String {
    format!("/ipxe-{arch}.efi")
}

/// The installer's boot program `uki`, which was made of `stub`, with this ISO in its initrd.
pub(super) fn loader(stub: &[u8], uki: &[u8], iso: &[u8], time: u64) -> Result<Vec<u8>, NetError> {
    let (stub, old) = (Pe::parse(stub)?, Pe::parse(uki)?);
    let mut initrd = old.section(".initrd").unwrap_or_default().to_vec();
    initrd.resize(initrd.len().next_multiple_of(4), 0); // archives start at whole words
    let path = ISO_IN_MEMORY.trim_start_matches('/');
    let entry = cpio::Entry { path, mode: 0o444, kind: cpio::Kind::File(iso) };
    let time = u32::try_from(time).unwrap_or(u32::MAX);
    cpio::write(&mut initrd, &[entry], time).map_err(NetError::Initrd)?;
    let ours = old.sections().iter().map(|section| section.name.as_str());
    let ours = ours.filter(|name| stub.section(name).is_none());
    let sections: Vec<(&str, &[u8])> = ours
        .map(|name| match name {
            ".initrd" => (name, &initrd[..]),
            _ => (name, old.section(name).unwrap_or_default()),
        })
        .collect();
    Ok(stub.with_sections(&sections)?)
}

/// What iPXE does when nobody wrote a script: it starts the boot program that lies beside it, from
/// wherever iPXE itself came. `url` is a folder on a server, with a slash at its end; `None`: the one
/// that iPXE was loaded from. `cmdline` is that of the boot program's kernel: iPXE gives a program at
/// least its own name for one, and the program takes that in the place of its own.
pub fn script(arch: Arch, url: Option<&str>, cmdline: &str) -> String {
    let from = url.unwrap_or("${cwduri}");
    let loader = arch.loader();
    format!(
        "#!ipxe\n\
         # The folder that holds {ISO} and {FOLDER}; HTTP is far faster than TFTP.\n\
         set url {from}\n\
         # The kernel's command line. What the installer is to do may be said behind it.\n\
         set args {cmdline}\n\
         dhcp || echo no answer from DHCP, going on\n\
         chain ${{url}}{FOLDER}/{loader} ${{args}}\n"
    )
}

/// Writes the archive to `path`. It appears there only when it is whole; the same parts give the same
/// bytes.
pub fn write(boot: &NetBoot<'_>, path: &Path) -> Result<Bytes, NetError> {
    let odd = |name: &str| name.is_empty() || name.contains(['/', '\0']) || name.starts_with('.');
    if let Some((name, _)) = boot.loaders.iter().find(|(name, _)| odd(name)) {
        return Err(NetError::Name(name.clone()));
    }
    let failed = DiskError::file("write", path);
    whole(path, |file| {
        let mut archive = tar::Builder::new(BufWriter::with_capacity(CHUNK, file));
        let read = DiskError::file("read", boot.iso);
        let iso = File::open(boot.iso).map_err(&read)?;
        let size = iso.metadata().map_err(&read)?.len();
        member(&mut archive, boot.time, ISO, size, iso).map_err(&failed)?;
        let mut small = vec![
            (ipxe_name(boot.arch).to_owned(), boot.ipxe),
            (SCRIPT.to_owned(), boot.script.as_bytes()),
            (AUTOEXEC.to_owned(), LEADS_ON.as_bytes()),
        ];
        let loaders = boot.loaders.iter();
        small.extend(loaders.map(|(name, body)| (format!("{FOLDER}/{name}"), &body[..])));
        small.extend(boot.grub.map(|text| (format!("{FOLDER}/grub.cfg"), text.as_bytes())));
        for (name, body) in small {
            member(&mut archive, boot.time, &name, body.len() as u64, body).map_err(&failed)?;
        }
        let mut out = archive.into_inner().map_err(&failed)?;
        out.flush().map_err(&failed)?;
        Ok::<_, NetError>(())
    })?;
    let about = std::fs::metadata(path).map_err(DiskError::file("look at", path))?;
    Ok(Bytes(about.len()))
}

fn member(
    archive: &mut tar::Builder<impl Write>,
    time: u64,
    name: &str,
    size: u64,
    body: impl io::Read,
) -> io::Result<()> {
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(time);
    header.set_size(size);
    archive.append_data(&mut header, PathBuf::from(name), body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_stand_in_the_order_of_the_reference_and_one_more() {
        let dir = tempfile::tempdir().unwrap();
        store::save(dir.path(), "some.iso", b"an image").unwrap();
        let (iso, path) = (dir.path().join("some.iso"), dir.path().join("installer.net"));
        let loaders = [("BOOTX64.EFI".to_owned(), b"a program".to_vec())];
        let boot = NetBoot {
            arch: Arch::Amd64,
            iso: &iso,
            ipxe: b"ipxe",
            script: &script(Arch::Amd64, None, "quiet"),
            loaders: &loaders,
            grub: Some("set isnetboot=true\n"),
            time: 7,
        };
        write(&boot, &path).unwrap();
        let mut archive = tar::Archive::new(File::open(&path).unwrap());
        let members = archive.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            let header = entry.header();
            assert_eq!((header.mode().unwrap(), header.mtime().unwrap()), (0o644, 7));
            entry.path().unwrap().to_string_lossy().into_owned()
        });
        assert_eq!(
            members.collect::<Vec<_>>().join(" "),
            "installer.iso ipxe.efi ipxe.efi.cfg autoexec.ipxe EFI/BOOT/BOOTX64.EFI \
             EFI/BOOT/grub.cfg"
        );
        let once = std::fs::read(&path).unwrap();
        write(&boot, &path).unwrap();
        assert!(std::fs::read(&path).unwrap() == once);
        let odd = [("../x".to_owned(), Vec::new())];
        let refused = write(&NetBoot { loaders: &odd, ..boot }, &path);
        assert!(matches!(refused, Err(NetError::Name(_))));
    }

    #[test]
    fn the_script_starts_what_lies_beside_it_or_on_a_server() {
        let text = script(Arch::Arm64, Some("http://10.0.0.1/eve/"), "eve.slot=INSTALLER quiet");
        assert!(text.starts_with("#!ipxe\n"));
        assert!(text.contains("set url http://10.0.0.1/eve/\n"));
        assert!(text.contains("set args eve.slot=INSTALLER quiet\n"));
        assert!(text.ends_with("chain ${url}EFI/BOOT/BOOTAA64.EFI ${args}\n"));
    }
}
