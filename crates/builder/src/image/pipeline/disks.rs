//! The last steps: what the slots, volumes and boot loaders come to lie on.

use std::fs;
use std::path::Path;

use formats::fat::Files;
use formats::gpt::Gpt;
use formats::layout::{Purpose, Role, Want};
use formats::slot;
use model::{Bytes, Digest};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::{Run, Slot, System, VERSION};
use crate::image::bios::{self, BiosError, Loader};
use crate::image::disk::{self, Disk, DiskError};
use crate::image::{Format, ImageError, convert, esp, iso, net, source, update};
use crate::pkg;

/// Files of the step that makes a boot loader for BIOS machines.
const BOOT: &str = "boot.img";
const CORE: &str = "core.img";

impl Run<'_> {
    pub(super) fn live_disk(&mut self, slot: &Slot, config: &Files) -> Result<(), ImageError> {
        let loader = self.loader()?;
        let started = self.begin("writing the live disk");
        let (esp, empty) = (self.esp(System::Node, slot, loader.as_ref())?, Files::new());
        let mut disk = Disk::new(self.plan(Purpose::Live, slot, loader.as_ref())?);
        self.fits("live.raw", disk.size())?;
        disk.volume(Role::Esp, &esp, slot.facts.time)?;
        disk.volume(Role::EspB, &empty, slot.facts.time)?;
        disk.volume(Role::Config, config, self.config_time())?;
        disk.image(Role::ImgA, &slot.image)?;
        self.in_front(&mut disk, loader.as_ref())?;
        let raw = self.facts.folder.join("live.raw");
        if self.request.update && raw.exists() {
            let written = update::update(&disk, &raw)?;
            self.progress.line(&format!("live.raw: {written} changed"));
        } else {
            disk::write(&disk, &raw)?;
        }
        self.note("live.raw", disk.size(), None);
        self.end("live.raw", started, false);
        let media = self.request.media.unwrap_or(self.request.profile.media);
        self.convert(&raw, media, slot.facts.time)?;
        self.point_current()
    }

    pub(super) fn installer_disk(
        &mut self,
        system: &Slot,
        config: &Files,
    ) -> Result<(), ImageError> {
        let loader = self.loader()?;
        let started = self.begin("writing the installer");
        let (mut esp, empty) =
            (self.esp(System::Installer, system, loader.as_ref())?, Files::new());
        esp.extend(esp::of_installer(system.facts.digest));
        let mut disk = Disk::new(self.plan(Purpose::Installer, system, loader.as_ref())?);
        disk.volume(Role::Esp, &esp, system.facts.time)?;
        disk.volume(Role::InstallerConfig, config, self.config_time())?;
        disk.image(Role::Installer, &system.image)?;
        disk.volume(Role::Inventory, &empty, system.facts.time)?;
        self.in_front(&mut disk, loader.as_ref())?;
        let raw = self.facts.folder.join("installer.raw");
        disk::write(&disk, &raw)?;
        self.note("installer.raw", disk.size(), None);
        self.end("installer.raw", started, false);
        self.convert(&raw, Bytes(0), system.facts.time)?;
        self.installer_media(system, &esp, config)?;
        self.point_current()
    }

    /// Writes a raw disk in the other formats that were asked for.
    fn convert(&mut self, raw: &Path, size: Bytes, time: u64) -> Result<(), ImageError> {
        for format in &self.request.formats {
            let Format::Disk(format) = *format else { continue };
            if format == formats::disk::Format::Raw {
                continue;
            }
            let started = self.begin(&format!("writing the disk as {format}"));
            let facts = convert::write_as(raw, format, size, time, self.progress)?;
            self.end(&facts.name, started, false);
            self.facts.files.push(facts);
        }
        Ok(())
    }

    /// The installer as ISO and as archive for a boot server, as far as they were asked for.
    fn installer_media(
        &mut self,
        system: &Slot,
        esp: &Files,
        config: &Files,
    ) -> Result<(), ImageError> {
        let wants = |format| self.request.formats.contains(&format);
        let (wants_iso, wants_net) = (wants(Format::Iso), wants(Format::Net));
        if !wants_iso && !wants_net {
            return Ok(());
        }
        let installer = iso::Installer {
            esp,
            config,
            config_size: self.request.profile.config,
            config_time: self.config_time(),
            system: &system.image,
            version: &self.request.version,
            time: system.facts.time,
            seed: Uuid::new_v5(&Uuid::NAMESPACE_OID, &system.facts.digest.0),
        };
        let iso = self.facts.folder.join("installer.iso");
        let started = self.begin("writing the installer as ISO");
        let size = iso::write(&installer, &iso)?;
        self.note("installer.iso", size, None);
        self.end("installer.iso", started, false);
        if wants_net {
            self.installer_net(&installer, system, &iso)?;
        }
        Ok(())
    }

    fn installer_net(
        &mut self,
        installer: &iso::Installer<'_>,
        system: &Slot,
        iso: &Path,
    ) -> Result<(), ImageError> {
        let started = self.begin("writing the installer for a boot server");
        let arch = self.request.arch;
        let ipxe = self.ipxe()?;
        let stub = self.stub()?;
        let uki = fs::read(&system.uki).map_err(ImageError::file("read", &system.uki))?;
        let uki = net::loader(&stub, &uki, &iso::slim(installer)?, system.facts.time)?;
        let archive = self.facts.folder.join("installer.net");
        let boot = net::NetBoot {
            arch,
            iso,
            ipxe: &ipxe,
            script: &net::script(arch, None, &system.facts.cmdline),
            loaders: &[(arch.loader().to_owned(), uki)],
            grub: None,
            time: system.facts.time,
        };
        let size = net::write(&boot, &archive)?;
        self.note("installer.net", size, None);
        self.end("installer.net", started, false);
        Ok(())
    }

    pub(super) fn stub(&self) -> Result<Vec<u8>, ImageError> {
        source::stub(self.request.stub.as_deref(), &self.options, &self.packages)
    }

    /// iPXE for UEFI.
    fn ipxe(&mut self) -> Result<Vec<u8>, ImageError> {
        if let Some(path) = &self.request.ipxe {
            return fs::read(path).map_err(ImageError::file("read", path));
        }
        let names = [source::IPXE_PACKAGE.to_owned()];
        let made = pkg::build(&names, &self.options, self.progress)?;
        let name = net::ipxe_file(self.request.arch);
        source::file(source::IPXE_PACKAGE, &name, &self.options, &made)
    }

    /// The files of an EFI system partition from which this system boots.
    pub(super) fn esp(
        &self,
        system: System,
        slot: &Slot,
        loader: Option<&Loader>,
    ) -> Result<Files, ImageError> {
        let uki = fs::read(&slot.uki).map_err(ImageError::file("read", &slot.uki))?;
        let facts = &slot.facts;
        let config = loader.map(|_| {
            // Behind the file system, its tree, and the descriptor.
            let rootfs = facts.squashfs.round_up(Bytes(slot::BLOCK));
            let at = Bytes(rootfs.0 + facts.verity.0 + slot::BLOCK);
            bios::config(system.role(), &uki, at, &facts.cmdline)
        });
        let config = config.transpose()?;
        let mut files = esp::files(self.request.arch, uki, &self.board);
        files.extend(config);
        Ok(files)
    }

    /// What BIOS machines boot; `None`: there is no GRUB for this build.
    pub(super) fn loader(&mut self) -> Result<Option<Loader>, ImageError> {
        let package = self.packages.get(source::GRUB_PACKAGE);
        let folder = self.request.grub.as_deref();
        if package.is_none() && folder.is_none() {
            return Ok(None);
        }
        let key = match (folder, package) {
            (None, Some(package)) => package.image.clone(),
            _ => {
                let mut hash = Sha256::new();
                for (name, body) in source::grub(folder, &self.options, None)? {
                    hash.update((name.len() as u64).to_le_bytes());
                    hash.update(name);
                    hash.update((body.len() as u64).to_le_bytes());
                    hash.update(body);
                }
                Digest(hash.finalize().into()).hex()
            }
        };
        let made = self.steps.step("grub", &[VERSION, &key], |out| {
            let parts = source::grub(folder, &self.options, package)?;
            let loader = Loader::new(&parts).map_err(BiosError::from)?;
            store::save(out, BOOT, loader.code())?;
            Ok::<_, ImageError>(store::save(out, CORE, loader.core().1)?)
        })?;
        let read = |name: &str| {
            let path = made.folder.join(name);
            fs::read(&path).map_err(ImageError::file("read", &path))
        };
        Ok(Loader::of(&read(BOOT)?, read(CORE)?))
    }

    /// What stands in front of the first partition: the board's firmware, or what a BIOS loads.
    fn in_front<'b>(
        &'b self,
        disk: &mut Disk<'b>,
        loader: Option<&'b Loader>,
    ) -> Result<(), ImageError> {
        if let Some(raw) = &self.board.raw {
            disk.file(raw.at, Bytes(self.board.start.0 - raw.at.0), &raw.path)?;
        }
        if let Some(loader) = loader {
            let (at, core) = loader.core();
            disk.bytes(at, core);
        }
        Ok(())
    }

    /// The table of a disk that this image goes onto.
    /// Refuses a virtual disk that would be smaller than the disk that goes onto it.
    fn fits(&self, name: &'static str, takes: Bytes) -> Result<(), ImageError> {
        match self.request.media {
            Some(asked) if asked < takes => Err(ImageError::Media { asked, name, takes }),
            _ => Ok(()),
        }
    }

    fn plan(
        &self,
        purpose: Purpose,
        image: &Slot,
        loader: Option<&Loader>,
    ) -> Result<Gpt, ImageError> {
        let seed = Uuid::new_v5(&Uuid::NAMESPACE_OID, &image.facts.digest.0);
        let (size, start) = (image.facts.size, self.board.start);
        let want = Want { image: size, start, seed, ..Want::default() };
        let table = self.request.profile.plan(purpose, &want).map_err(DiskError::from)?;
        let record = loader.map(|loader| loader.record(table.mbr()));
        Ok(table.guarded_by(record))
    }
}
