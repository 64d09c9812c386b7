//! Installations onto files: what is there afterwards, and what is there if something goes wrong.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use device::install::{self as mind, Found, Skip, Wish};
use formats::fat::{self, Files};
use formats::gpt::Gpt;
use formats::layout::{Profile, Role};
use host::block::Disk;
use host::target::Target;
use install::{Bios, Blob, InstallError, Payload, Work, look_at};
use model::{Bytes, Digest};

/// A disk with the leavings of a former owner where they would show.
struct Case {
    dir: tempfile::TempDir,
    payload: Payload,
    config: Files,
}

const SLOT: usize = 3 << 20;
fn slot_bytes() -> Vec<u8> {
    (0..SLOT).map(|n| n.to_le_bytes()[1] ^ 0x5a).collect()
}

fn files(all: &[(&str, &[u8])]) -> Files {
    all.iter().map(|(name, body)| ((*name).to_owned(), body.to_vec())).collect()
}

impl Case {
    fn new() -> Case {
        let dir = tempfile::tempdir().unwrap();
        store::save(dir.path(), "slot.img", &slot_bytes()).unwrap();
        let path = dir.path().join("slot.img");
        let payload = Payload {
            version: "1".into(),
            arch: "amd64".into(),
            profile: Profile::SMALL,
            slot: Blob::of(&path).unwrap(),
            esp: files(&[("EFI/BOOT/BOOTX64.EFI", &[7; 100_000])]),
            config: Files::new(),
            bios: Some(Bios { code: vec![0x90; 440], gap: vec![0xab; 50_000] }),
        };
        Case { dir, payload, config: files(&[("server", b"here\n")]) }
    }

    /// A disk full of a former owner, as far as it matters.
    fn disk(&self, size: Bytes) -> PathBuf {
        let path = self.dir.path().join("disk");
        let file = File::create(&path).unwrap();
        file.set_len(size.0).unwrap();
        for mib in (0..size.0 >> 20).step_by(64).chain([1, 2, 65, size.0.div_ceil(1 << 20) - 1]) {
            file.write_all_at(&[0xee; 1 << 19], mib << 20).unwrap();
        }
        path
    }

    fn install(&self, path: &Path, skip: Skip) -> Result<(), InstallError> {
        let wish = Wish { skip, ..Wish::default() };
        let disk = look_at(path).unwrap();
        let bios = self.payload.bios.as_ref().map_or(Bytes(0), |b| Bytes(b.gap.len() as u64));
        let (profile, slot) = (self.payload.profile, self.payload.slot.length);
        let places = mind::Payload { profile, slot, bios };
        let plan = mind::plan(&wish, &disk, std::slice::from_ref(&disk), &places).unwrap();
        let work = Work::new(&plan.disks[0], &self.payload, &self.config, 1_700_000_000)?;
        work.carry_out(&Target::open(path).unwrap(), &())
    }
}

fn table(path: &Path) -> Option<Gpt> {
    Disk::at(path).table().ok()
}

fn bytes(path: &Path, at: u64, length: usize) -> Vec<u8> {
    let mut all = vec![0; length];
    File::open(path).unwrap().read_exact_at(&mut all, at).unwrap();
    all
}

fn content(path: &Path, role: Role) -> Vec<u8> {
    let table = table(path).unwrap();
    let (_, partition) = role.find(&table).unwrap();
    bytes(path, partition.offset().0, usize::try_from(partition.length().0).unwrap())
}

const EVERYTHING: Skip = Skip { rootfs: false, config: false, persist: false };

#[test]
fn a_disk_holds_what_was_installed_and_nothing_of_its_former_owner_where_it_matters() {
    let case = Case::new();
    let path = case.disk(Bytes::mib(1200));
    case.install(&path, EVERYTHING).unwrap();
    let (_, esp) = fat::read(&content(&path, Role::Esp)).unwrap();
    assert!(esp == case.payload.esp);
    let (_, config) = fat::read(&content(&path, Role::Config)).unwrap();
    assert_eq!(config, case.config);
    assert!(content(&path, Role::ImgA)[..SLOT] == slot_bytes());
    let persist = content(&path, Role::Persist);
    let edge = 8 << 20;
    let blank = vec![0; edge];
    assert!(persist[..edge] == blank && persist[persist.len() - edge..] == blank);
    assert_eq!(bytes(&path, 0, 440), [0x90; 440]);
    assert_eq!(bytes(&path, 34 * 512, 50_000), [0xab; 50_000]);
    assert!(matches!(look_at(&path).unwrap().found, Found::Eve(_)));
}

#[test]
fn what_is_skipped_stays_to_the_byte() {
    let mut case = Case::new();
    let path = case.disk(Bytes::mib(1200));
    case.install(&path, EVERYTHING).unwrap();
    let stored = table(&path).unwrap().partitions()[&9].offset().0;
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(b"what the node has stored", stored + 1000).unwrap();
    let (persist, config) = (content(&path, Role::Persist), content(&path, Role::Config));
    let before = table(&path);

    case.payload.esp = files(&[("EFI/BOOT/BOOTX64.EFI", b"newer")]);
    case.config = files(&[("server", b"elsewhere\n")]);
    case.install(&path, Skip { config: true, persist: true, ..EVERYTHING }).unwrap();
    assert!(content(&path, Role::Persist) == persist);
    assert!(content(&path, Role::Config) == config);
    assert_eq!(table(&path), before);
    let (_, esp) = fat::read(&content(&path, Role::Esp)).unwrap();
    assert_eq!(esp["EFI/BOOT/BOOTX64.EFI"], b"newer");
}

#[test]
fn a_cut_off_installation_leaves_a_disk_that_does_not_boot() {
    let case = Case::new();
    let path = case.disk(Bytes::mib(1200));
    case.install(&path, EVERYTHING).unwrap();
    // The medium breaks in the middle of the slot image.
    File::options().write(true).open(&case.payload.slot.path).unwrap().set_len(1 << 20).unwrap();
    let error = case.install(&path, EVERYTHING).unwrap_err();
    assert!(matches!(error, InstallError::Disk(_)), "{error}");
    assert_eq!(table(&path), None);

    // With something kept the table stays, and the boot partition is closed.
    let case = Case::new();
    let path = case.disk(Bytes::mib(1200));
    case.install(&path, EVERYTHING).unwrap();
    File::options().write(true).open(&case.payload.slot.path).unwrap().set_len(1 << 20).unwrap();
    case.install(&path, Skip { persist: true, ..EVERYTHING }).unwrap_err();
    assert!(table(&path).is_some());
    assert!(fat::read(&content(&path, Role::Esp)).is_err());
}

#[test]
fn what_reads_back_differently_gets_no_table() {
    let mut case = Case::new();
    let path = case.disk(Bytes::mib(1200));
    case.payload.slot.digest = Digest([1; 32]);
    let error = case.install(&path, EVERYTHING).unwrap_err();
    assert!(matches!(error, InstallError::ReadBack { what: "the slot image", .. }), "{error}");
    assert_eq!(table(&path), None);
}

#[test]
fn files_that_do_not_fit_are_refused_before_anything_is_written() {
    let mut case = Case::new();
    let path = case.disk(Bytes::mib(1200));
    let before = bytes(&path, 0, 8 << 20);
    case.config = files(&[("large", &vec![1; 6 << 20])]);
    let error = case.install(&path, EVERYTHING).unwrap_err();
    assert!(matches!(error, InstallError::Volume { partition: "CONFIG", .. }), "{error}");
    assert!(bytes(&path, 0, 8 << 20) == before);
}
