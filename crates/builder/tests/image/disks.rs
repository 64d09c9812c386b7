//! Disks of other profiles, installers, and finished disks that are changed.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use builder::image::{self, Arch, Format, Request, SlotMark};
use formats::gpt::Gpt;
use formats::layout::{Profile, Role};
use model::installer::Manifest;
use model::{Bytes, Diagnose};

use crate::small::{self, read};
use crate::tools::tool;

fn folder(dir: &Path) -> std::path::PathBuf {
    dir.join("dist/amd64").join(small::VERSION)
}

fn raw(dir: &Path) -> Request {
    Request { formats: vec![Format::RAW], ..small::request(dir) }
}

fn table(disk: &Path) -> Gpt {
    let file = File::open(disk).unwrap();
    let size = Bytes(file.metadata().unwrap().len());
    let mut head = vec![0; usize::try_from(formats::gpt::HEAD.0).unwrap()];
    file.read_exact_at(&mut head, 0).unwrap();
    Gpt::parse(&head, size).unwrap()
}

/// Lists a FAT volume inside a disk with mtools.
fn list(dir: &Path, disk: &str, role: Role) -> String {
    let table = table(&dir.join(disk));
    let at = role.find(&table).unwrap().1.offset().0;
    tool("mdir", "mtools", dir, &["-/", "-b", "-a", "-i", &format!("{disk}@@{at}"), "::"])
}

#[test]
fn a_live_disk_of_the_reference_profile_is_as_large_as_the_references_and_sparse() {
    let dir = tempfile::tempdir().unwrap();
    small::inputs(dir.path());
    let request = Request { profile: Profile::EVE_2026, ..raw(dir.path()) };
    let facts = image::live(&request, &()).unwrap();
    let about = fs::metadata(facts.folder.join("live.raw")).unwrap();
    assert_eq!(about.len(), 15_048_114_176);
    let taken = std::os::unix::fs::MetadataExt::blocks(&about) * 512;
    assert!(taken < 32 << 20, "{taken} bytes");
    let said = tool("sgdisk", "gdisk", &facts.folder, &["-v", "live.raw"]);
    assert!(said.contains("No problems found"), "{said}");
    assert!(list(&facts.folder, "live.raw", Role::Esp).contains("BOOTX64.EFI"));
    let reserve = format!("live.raw@@{}", 4_196_352_u64 * 512);
    let label = tool("mlabel", "mtools", &facts.folder, &["-s", "-i", &reserve, "::"]);
    assert!(label.contains("EVE"), "{label}");
    assert!(list(&facts.folder, "live.raw", Role::Config).contains("server"));
}

#[test]
fn an_installer_brings_what_it_installs_and_can_tell_whether_it_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    small::inputs(dir.path());
    fs::copy(dir.path().join("rootfs.tar"), dir.path().join("installer.tar")).unwrap();
    let installer = Some(dir.path().join("installer.tar"));
    let request = Request { installer, ..raw(dir.path()) };
    let facts = image::installer(&request, &()).unwrap();
    let said = tool("sgdisk", "gdisk", &facts.folder, &["-v", "installer.raw"]);
    assert!(said.contains("No problems found"), "{said}");
    let esp = list(&facts.folder, "installer.raw", Role::Esp);
    for name in ["EFI/BOOT/BOOTX64.EFI", "boot/.boot_repository", "boot/.uuid"] {
        assert!(esp.contains(name), "{esp}");
    }
    assert!(list(&facts.folder, "installer.raw", Role::InstallerConfig).contains("server"));

    let table = table(&facts.folder.join("installer.raw"));
    let (_, partition) = Role::Installer.find(&table).unwrap();
    let disk = File::open(facts.folder.join("installer.raw")).unwrap();
    let mut system = vec![0; usize::try_from(partition.length().0).unwrap()];
    disk.read_exact_at(&mut system, partition.offset().0).unwrap();
    store::save(dir.path(), "system", &system).unwrap();
    let args = ["-no-progress", "-d", "out", "system", "bits"];
    tool("unsquashfs", "squashfs-tools", dir.path(), &args);
    let bits = dir.path().join("out/bits");
    let manifest: Manifest =
        serde_json::from_slice(&fs::read(bits.join("install.json")).unwrap()).unwrap();
    assert_eq!((manifest.profile.as_str(), manifest.version.as_str()), ("small", small::VERSION));
    let names: Vec<_> = manifest.files.keys().map(String::as_str).collect();
    assert_eq!(names, ["config.img", "esp/EFI/BOOT/BOOTX64.EFI", "slot.img"]);
    for (name, about) in &manifest.files {
        let body = fs::read(bits.join(name)).unwrap();
        let digest = <sha2::Sha256 as sha2::Digest>::digest(&body);
        assert_eq!((about.size.0, about.digest.0), (body.len() as u64, digest.into()), "{name}");
    }
    assert!(fs::read(bits.join("slot.img")).unwrap() == read(dir.path(), "slot.img"));
    assert!(fs::read(bits.join("config.img")).unwrap() == read(dir.path(), "config.img"));

    let first = facts.files.last().unwrap().name.clone();
    assert_eq!(first, "installer.raw");
    let before = read(dir.path(), "installer.raw");
    let again = image::installer(&request, &()).unwrap();
    assert_eq!(again.steps.iter().filter(|s| s.cached).count(), 2, "{:?}", again.steps);
    assert!(before == read(dir.path(), "installer.raw"), "the cached build differs");
}

#[test]
fn a_boards_firmware_stands_in_front_of_a_first_partition_that_starts_later() {
    let dir = tempfile::tempdir().unwrap();
    small::inputs(dir.path());
    let table = concat!(env!("CARGO_MANIFEST_DIR"), "/../../images/boards.toml");
    fs::create_dir(dir.path().join("images")).unwrap();
    fs::copy(table, dir.path().join("images/boards.toml")).unwrap();
    let firmware = dir.path().join("firmware");
    fs::create_dir(&firmware).unwrap();
    let blob: Vec<u8> = (0..=250).cycle().take(1_000_000).collect();
    for (name, body) in [
        ("imx8mq_evk-flash.bin", &blob[..]),
        ("imx8mq_evk-flash.conf", b"offset=33\n"),
        ("imx8mq-evk.dtb", b"dtb"),
        ("NXP-EULA-LICENSE.txt", b"terms"),
    ] {
        store::save(&firmware, name, body).unwrap();
    }
    let request = Request {
        arch: Arch::Arm64,
        platform: "imx8mq_evk".into(),
        profile: Profile::EVE_2026,
        firmware: vec![firmware],
        ..raw(dir.path())
    };
    let refused = image::live(&request, &()).unwrap_err();
    assert!(model::chain(&refused).contains("comes under the licence"), "{refused:?}");
    assert!(!dir.path().join("dist").exists(), "something was written before the licence");

    let request = Request { accept_licence: true, ..request };
    let facts = image::live(&request, &()).unwrap();
    let said = tool("sgdisk", "gdisk", &facts.folder, &["-v", "live.raw"]);
    assert!(said.contains("No problems found"), "{said}");
    let disk = facts.folder.join("live.raw");
    let mut found = vec![0; blob.len()];
    File::open(&disk).unwrap().read_exact_at(&mut found, 33 << 10).unwrap();
    assert!(found == blob);
    assert_eq!(Role::Esp.find(&self::table(&disk)).unwrap().1.offset(), Bytes::mib(8));
    let esp = list(&facts.folder, "live.raw", Role::Esp);
    assert!(esp.contains("imx8mq-evk.dtb") && esp.contains("BOOTAA64.EFI"), "{esp}");
}

#[test]
fn a_bios_finds_grub_in_the_gap_and_grub_finds_the_kernel_in_the_slot() {
    let dir = tempfile::tempdir().unwrap();
    small::inputs(dir.path());
    let folder = std::env::var_os("EVE_GRUB").unwrap_or("/usr/lib/grub/i386-pc".into());
    for profile in [Profile::SMALL, Profile::EVE_2026] {
        let request = Request { grub: Some(folder.clone().into()), profile, ..raw(dir.path()) };
        let facts = image::live(&request, &()).unwrap();
        let said = tool("sgdisk", "gdisk", &facts.folder, &["-v", "live.raw"]);
        assert!(said.contains("No problems found"), "{said}");
        let disk = facts.folder.join("live.raw");
        let file = File::open(&disk).unwrap();
        let mut head = vec![0; 2048 * 512];
        file.read_exact_at(&mut head, 0).unwrap();
        assert_eq!((head[92], head[510], head[511]), (34, 0x55, 0xAA));
        assert_eq!(head[446], if profile.hybrid { 0x80 } else { 0 });
        assert_eq!(head[34 * 512 + 500], 35);
        let sectors = u16::from_le_bytes([head[34 * 512 + 508], head[34 * 512 + 509]]);
        assert!(35 + usize::from(sectors) < 2048, "{sectors}");
        assert!(head[(34 + usize::from(sectors)) * 512..][..512].iter().any(|b| *b != 0));

        let table = table(&disk);
        let esp = format!("live.raw@@{}", Role::Esp.find(&table).unwrap().1.offset().0);
        let config = tool("mtype", "mtools", &facts.folder, &["-i", &esp, "::boot/grub/grub.cfg"]);
        let slot = Role::ImgA.find(&table).unwrap().1.offset().0;
        for (word, starts) in [("linux", &b"bzImage bzImage "[..]), ("initrd", b"\x28\xb5\x2f\xfd")]
        {
            let line = config.lines().find(|l| l.starts_with(&format!("{word} "))).unwrap();
            let list = line.split(' ').nth(1).unwrap().strip_prefix("($disk,gpt2)").unwrap();
            let (start, count) = list.split_once('+').unwrap();
            let mut found = vec![0; count.parse::<usize>().unwrap() * 512];
            file.read_exact_at(&mut found, slot + start.parse::<u64>().unwrap() * 512).unwrap();
            assert!(found.starts_with(starts), "{line}: {:02x?}", &found[..16]);
        }
        assert!(config.contains("eve.verity=") && config.contains("eve.slot=IMGA"), "{config}");
    }
}

#[test]
fn a_configuration_stick_is_one_volume_with_just_what_was_given() {
    let dir = tempfile::tempdir().unwrap();
    let set = [("usb.json".to_owned(), b"{}".to_vec()), ("dump/".to_owned(), Vec::new())];
    let request = Request { set: set.into(), ..raw(dir.path()) };
    let facts = image::usb_config(&request, &()).unwrap();
    assert_eq!(facts.files[0].size, Bytes::kib(204_800));
    let said = tool("sgdisk", "gdisk", &facts.folder, &["-v", "usb-config.raw"]);
    assert!(said.contains("No problems found"), "{said}");
    let listed = list(&facts.folder, "usb-config.raw", Role::UsbConfig);
    let names: Vec<_> = listed.lines().map(|l| l.trim_start_matches("::/")).collect();
    assert_eq!(names, ["dump/", "usb.json"]);
}

#[test]
fn the_config_of_an_image_of_another_format_is_changed_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    small::inputs(dir.path());
    let facts = image::live(&small::request(dir.path()), &()).unwrap();
    let set = [("soft_serial".to_owned(), b"7".to_vec())].into();
    for name in ["live.qcow2", "live.raw"] {
        image::set_config(&facts.folder.join(name), &set).unwrap();
        assert_eq!(image::get_config(&facts.folder.join(name)).unwrap()["soft_serial"], b"7");
    }
    let check = tool("qemu-img", "qemu-utils", &facts.folder, &["check", "live.qcow2"]);
    assert!(check.contains("No errors were found"), "{check}");
    let compare = ["compare", "live.raw", "live.qcow2"];
    let said = tool("qemu-img", "qemu-utils", &facts.folder, &compare);
    assert!(said.contains("Images are identical"), "{said}");
    let left = fs::read_dir(&facts.folder).unwrap().flatten().map(|e| e.file_name());
    assert!(left.into_iter().all(|n| !n.to_string_lossy().starts_with('.')));
}

#[test]
fn the_config_of_an_installers_iso_is_changed_in_its_place() {
    let dir = tempfile::tempdir().unwrap();
    small::inputs(dir.path());
    let installer = Some(dir.path().join("rootfs.tar"));
    let request = Request { installer, formats: vec![Format::Iso], ..raw(dir.path()) };
    let facts = image::installer(&request, &()).unwrap();
    let iso = facts.folder.join("installer.iso");
    let before = fs::read(&iso).unwrap();
    image::set_config(&iso, &[("soft_serial".to_owned(), b"17".to_vec())].into()).unwrap();
    let extract = ["-osirrox", "on", "-indev", "installer.iso", "-extract", "/config.img", "c.img"];
    tool("xorriso", "xorriso", &facts.folder, &extract);
    let said = tool("mtype", "mtools", &facts.folder, &["-i", "c.img", "::soft_serial"]);
    assert_eq!(said, "17");
    tool("fsck.fat", "dosfstools", &facts.folder, &["-n", "c.img"]);
    let after = fs::read(&iso).unwrap();
    let differ: Vec<_> = (0..before.len()).filter(|n| before[*n] != after[*n]).collect();
    let config = Role::InstallerConfig.find(&table(&iso)).unwrap().1.clone();
    let (from, to) = (config.offset().0, config.offset().0 + config.length().0);
    assert!(!differ.is_empty() && differ.iter().all(|n| (from..to).contains(&(*n as u64))));
}

#[test]
fn an_update_ends_where_a_clean_build_ends() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    small::inputs(one.path());
    small::inputs(two.path());
    let first = Request { time: Some(1_600_000_000), debug: true, ..raw(one.path()) };
    image::live(&first, &()).unwrap();
    image::live(&raw(two.path()), &()).unwrap();
    let clean = read(two.path(), "live.raw");
    assert!(read(one.path(), "live.raw") != clean, "the test builds two equal disks");

    let update = Request { update: true, ..raw(one.path()) };
    let disk = folder(one.path()).join("live.raw");
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
    let before = inode(&disk);
    image::live(&update, &()).unwrap();
    assert!(read(one.path(), "live.raw") == clean, "an update differs from a clean build");
    assert_eq!(inode(&disk), before, "the disk was made anew");

    // What a cut-off update may leave: parts of it old, its first table torn, too short.
    let file = File::options().write(true).open(&disk).unwrap();
    file.write_all_at(&[7; 9000], 300).unwrap();
    file.write_all_at(&[7; 100_000], 80 << 20).unwrap();
    image::live(&update, &()).unwrap();
    assert!(read(one.path(), "live.raw") == clean, "a cut-off update was not completed");
}

#[test]
fn an_update_does_not_touch_what_is_not_a_fresh_disk_of_ours() {
    let dir = tempfile::tempdir().unwrap();
    small::inputs(dir.path());
    let update = Request { update: true, ..raw(dir.path()) };
    image::live(&update, &()).unwrap();
    let disk = folder(dir.path()).join("live.raw");

    let booted = File::options().read(true).write(true).open(&disk).unwrap();
    booted.set_len(2 << 30).unwrap();
    let mut used = table(&disk);
    used.add_in_largest_gap(9, Role::Persist.partition(), None).unwrap();
    for extent in used.to_extents() {
        booted.write_all_at(&extent.bytes, extent.at).unwrap();
    }
    refused(&update, "has been booted");

    let foreign = Gpt::new(uuid::Uuid::from_u128(1), Bytes::gib(2)).unwrap();
    for extent in foreign.to_extents() {
        booted.write_all_at(&extent.bytes, extent.at).unwrap();
    }
    refused(&update, "has the partition table of another system");

    store::save(disk.parent().unwrap(), "live.raw", &[0; 100_000]).unwrap();
    refused(&update, "has no partition table");
    assert_eq!(fs::metadata(&disk).unwrap().len(), 100_000);
}

#[track_caller]
fn refused(request: &Request, why: &str) {
    let error = image::live(request, &()).unwrap_err();
    let text = model::chain(&error);
    assert!(text.contains("live.raw") && text.contains(why), "{text}");
}

#[test]
fn the_marks_of_slots_are_shown_and_set_and_one_slot_always_boots() {
    let dir = tempfile::tempdir().unwrap();
    small::inputs(dir.path());
    image::live(&raw(dir.path()), &()).unwrap();
    let disk = folder(dir.path()).join("live.raw");
    let file = File::options().write(true).open(&disk).unwrap();
    file.set_len(2 << 30).unwrap();
    let mut grown = table(&disk);
    grown.add_in_largest_gap(3, Role::ImgB.partition(), Some(Bytes::mib(512))).unwrap();
    grown.to_extents().iter().for_each(|e| file.write_all_at(&e.bytes, e.at).unwrap());

    let marks = || -> Vec<_> {
        let slots = image::slots(&disk).unwrap();
        slots.into_iter().map(|s| (s.name, s.mark.unwrap().name(), s.version)).collect()
    };
    let version = || Some(small::VERSION.to_owned());
    let (a, b) = ("IMGA".to_owned(), "IMGB".to_owned());
    assert_eq!(marks(), [(a.clone(), "active", version()), (b.clone(), "unused", None)]);
    let none = image::set_slots(&disk, &[(a.clone(), SlotMark::Unused)]).unwrap_err();
    assert!(none.to_string().ends_with("would boot"), "{none}");
    // Nothing that could boot is in it: also beside one that boots.
    for mark in [SlotMark::Updating, SlotMark::Active, SlotMark::InProgress] {
        let empty = image::set_slots(&disk, &[(b.clone(), mark)]).unwrap_err();
        let said = format!("is empty: nothing in it could be {}", mark.name());
        assert!(
            empty.to_string().contains("the slot IMGB of ") && empty.to_string().ends_with(&said)
        );
    }
    image::set_slots(&disk, &[(b.clone(), SlotMark::Unused)]).unwrap();
    assert_eq!(marks()[1].1, "unused");
    let slot = std::fs::read(folder(dir.path()).join("slot.img")).unwrap();
    let (_, at) = Role::ImgB.find(&table(&disk)).map(|(n, p)| (n, p.offset())).unwrap();
    file.write_all_at(&slot, at.0).unwrap();
    let swap = [(a.clone(), SlotMark::Unused), (b.clone(), SlotMark::Updating)];
    image::set_slots(&disk, &swap).unwrap();
    assert_eq!(marks(), [(a, "unused", version()), (b, "updating", version())]);
    let said = tool("sgdisk", "gdisk", disk.parent().unwrap(), &["-i", "3", "live.raw"]);
    assert!(said.contains("Attribute flags: 0013000000000000"), "{said}");
    let said = tool("sgdisk", "gdisk", disk.parent().unwrap(), &["-v", "live.raw"]);
    assert!(said.contains("No problems found"), "{said}");
    let missing = image::set_slots(&disk, &[("IMGC".to_owned(), SlotMark::Active)]).unwrap_err();
    assert!(missing.to_string().ends_with("has no partition IMGC"), "{missing}");
}

#[test]
fn a_disk_that_is_smaller_than_what_goes_onto_it_is_refused_with_the_size_it_takes() {
    let dir = tempfile::tempdir().unwrap();
    small::inputs(dir.path());
    let request = |media| Request { media: Some(media), ..small::request(dir.path()) };
    let error = image::live(&request(Bytes::mib(10)), &()).unwrap_err();
    let said = error.to_string();
    assert!(said.starts_with("a disk of 10.0 MiB is too small: live.raw takes "), "{said}");
    let advice = error.diagnose().advice;
    let enough = advice.split(' ').find_map(|word| word.parse().ok()).unwrap();
    assert!(!folder(dir.path()).join("live.qcow2").exists());
    // What it says is enough, and no more than that.
    image::live(&request(Bytes::mib(enough)), &()).unwrap();
    assert!(image::live(&request(Bytes::mib(enough - 1)), &()).is_err());
}
