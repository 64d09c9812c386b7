//! Disks and file systems.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::num::NonZero;
use std::path::Path;

use expect_test::expect;
use formats::gpt::{self, Gpt};
use formats::layout::{Profile, Role};
use formats::{Extent, fat, squashfs, verity};
use model::Bytes;

use crate::tools::tool;

/// A sparse file with these extents.
pub(crate) fn file(path: &Path, size: Bytes, extents: &[Extent<'_>]) -> File {
    let mut file =
        File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap();
    file.set_len(size.0).unwrap();
    for extent in extents {
        file.seek(SeekFrom::Start(extent.at)).unwrap();
        file.write_all(&extent.bytes).unwrap();
    }
    file
}

/// Bytes without a pattern that a compressor finds; the same each time.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252u64;
    let next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

#[test]
fn sgdisk_finds_no_fault_in_the_live_table() {
    let dir = tempfile::tempdir().unwrap();
    let gpt = Profile::SMALL.live().unwrap();
    file(&dir.path().join("disk"), gpt.size(), &gpt.to_extents());
    let said = tool("sgdisk", "gdisk", dir.path(), &["-v", "disk"]);
    assert!(said.contains("No problems found"), "{said}");
    let table = tool("sgdisk", "gdisk", dir.path(), &["-p", "disk"]);
    let rows: Vec<_> = table.lines().skip_while(|l| !l.starts_with("Number")).collect();
    expect![[r#"
        Number  Start (sector)    End (sector)  Size       Code  Name
           1            2048          133119   64.0 MiB    EF00  EFI System
           2          143360         1191935   512.0 MiB   8500  IMGA
           4          133120          143359   5.0 MiB     FFFF  CONFIG"#]]
    .assert_eq(&rows.join("\n"));
    let info = tool("sgdisk", "gdisk", dir.path(), &["-i", "2", "disk"]);
    expect![[r#"
        Partition GUID code: 5DFBF5F4-2848-4BAC-AA5E-0D9A20B745A6 (Container Linux /usr)
        Partition unique GUID: AD6871EE-31F9-4CF3-9E09-6F7A25C30052
        First sector: 143360 (at 70.0 MiB)
        Last sector: 1191935 (at 582.0 MiB)
        Partition size: 1048576 sectors (512.0 MiB)
        Attribute flags: 0102000000000000
        Partition name: 'IMGA'
    "#]]
    .assert_eq(&info);
}

#[test]
fn sgdisk_finds_no_fault_after_the_disk_grew() {
    let dir = tempfile::tempdir().unwrap();
    let old = Profile::SMALL.live().unwrap();
    let path = dir.path().join("disk");
    file(&path, old.size(), &old.to_extents());
    let grown = Bytes::gib(4);
    let head = std::fs::read(&path).unwrap()[..usize::try_from(gpt::HEAD.0).unwrap()].to_vec();
    let mut gpt = Gpt::parse(&head, grown).unwrap();
    gpt.add_in_largest_gap(3, Role::ImgB.partition(), Some(Profile::SMALL.slot)).unwrap();
    gpt.add_in_largest_gap(9, Role::Persist.partition(), None).unwrap();
    file(&path, grown, &gpt.to_extents());
    let said = tool("sgdisk", "gdisk", dir.path(), &["-v", "disk"]);
    assert!(said.contains("No problems found"), "{said}");
    let table = tool("sgdisk", "gdisk", dir.path(), &["-p", "disk"]);
    let rows: Vec<_> = table.lines().skip_while(|l| !l.starts_with("Number")).collect();
    expect![[r#"
        Number  Start (sector)    End (sector)  Size       Code  Name
           1            2048          133119   64.0 MiB    EF00  EFI System
           2          143360         1191935   512.0 MiB   8500  IMGA
           3         1191936         2240511   512.0 MiB   8500  IMGB
           4          133120          143359   5.0 MiB     FFFF  CONFIG
           9         2240512         8388574   2.9 GiB     FFFF  P3"#]]
    .assert_eq(&rows.join("\n"));
}

#[test]
fn fsck_finds_no_fault_in_volumes_of_every_width() {
    for mib in [1, 5, 16, 32, 64, 300] {
        let dir = tempfile::tempdir().unwrap();
        let size = Bytes::mib(mib);
        let volume = fat::Volume { size, label: "EVE".into(), serial: 1, time: 1_700_000_000 };
        let mut files = fat::Files::new();
        files.insert("EFI/BOOT/BOOTX64.EFI".into(), noise(400_000));
        files.insert("server".into(), b"example.org:443".to_vec());
        files.insert("empty".into(), Vec::new());
        files.insert("folder/".into(), Vec::new());
        for n in 0..60 {
            files.insert(format!("deep/er/a certificate with a long name {n}.pem"), noise(n));
        }
        file(&dir.path().join("fat"), size, &fat::write(&volume, &files).unwrap());
        let said = tool("fsck.fat", "dosfstools", dir.path(), &["-n", "-v", "fat"]);
        for word in ["wrong", "differ", "Dirty", "label"] {
            assert!(!said.contains(word), "{mib} MiB: {said}");
        }
        for path in ["EFI/BOOT/BOOTX64.EFI", "deep/er/a certificate with a long name 59.pem"] {
            let from = format!("::{path}");
            tool("mcopy", "mtools", dir.path(), &["-n", "-i", "fat", &from, "out"]);
            assert_eq!(std::fs::read(dir.path().join("out")).unwrap(), files[path], "{mib} {path}");
            std::fs::remove_file(dir.path().join("out")).unwrap();
        }
    }
}

#[test]
fn a_volume_made_by_mkfs_reads_the_same() {
    let dir = tempfile::tempdir().unwrap();
    for (mib, name) in [(5, "small"), (64, "big")] {
        let size = (mib * 1024).to_string();
        let make = ["-n", "EVE", "-i", "0000abcd", "-C", name, &size];
        tool("mkfs.vfat", "dosfstools", dir.path(), &make);
        let body = noise(123_456);
        file(
            &dir.path().join("body"),
            Bytes(body.len() as u64),
            &[Extent { at: 0, bytes: body.as_slice().into() }],
        );
        tool("mmd", "mtools", dir.path(), &["-i", name, "::folder"]);
        let to = "::folder/A Long Name.bin";
        tool("mcopy", "mtools", dir.path(), &["-i", name, "body", to]);
        let (volume, files) = fat::read(&std::fs::read(dir.path().join(name)).unwrap()).unwrap();
        assert_eq!((volume.label.as_str(), volume.serial), ("EVE", 0xABCD));
        assert!(files == fat::Files::from([("folder/A Long Name.bin".into(), body)]), "{name}");
    }
}

#[test]
fn veritysetup_agrees_at_every_number_of_levels() {
    for blocks in [1, 2, 127, 128, 129, 16384, 16385] {
        let dir = tempfile::tempdir().unwrap();
        let data = noise(blocks * verity::BLOCK);
        let tree_with = |threads| {
            let (uuid, threads) = (uuid::Uuid::from_u128(5), NonZero::new(threads).unwrap());
            verity::tree_of(&mut data.as_slice(), uuid, [9; 32], threads).unwrap()
        };
        let tree = tree_with(1);
        assert_eq!(tree_with(3), tree, "threads show");
        assert_eq!(tree.bytes.len() as u64, tree.superblock.total_blocks() * 4096);
        assert_eq!(verity::Superblock::parse(&tree.bytes), Ok(tree.superblock.clone()));
        let at = data.len() as u64;
        let extents = [
            Extent { at: 0, bytes: data.as_slice().into() },
            Extent { at, bytes: tree.bytes.as_slice().into() },
        ];
        let path = dir.path().join("image");
        let mut image = file(&path, Bytes(at + tree.bytes.len() as u64), &extents);
        let offset = format!("--hash-offset={at}");
        let args = ["verify", "image", "image", &tree.root.hex(), &offset];
        tool("veritysetup", "cryptsetup-bin", dir.path(), &args);
        image.seek(SeekFrom::Start(at - 1)).unwrap();
        image.write_all(&[data[data.len() - 1] ^ 1]).unwrap();
        let out = crate::tools::run("veritysetup", "cryptsetup-bin", dir.path(), &args);
        assert!(!out.status.success(), "{blocks} blocks: a flipped bit was not found");
    }
}

#[test]
fn a_squashfs_of_mksquashfs_says_its_length() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("in")).unwrap();
    file(&dir.path().join("in/file"), Bytes(300_000), &[]);
    let args = ["in", "out", "-comp", "xz", "-mkfs-time", "77", "-no-progress", "-nopad"];
    tool("mksquashfs", "squashfs-tools", dir.path(), &args);
    let bytes = std::fs::read(dir.path().join("out")).unwrap();
    let superblock = squashfs::Superblock::parse(&bytes).unwrap();
    assert_eq!(superblock.used, Bytes(bytes.len() as u64));
    assert_eq!((superblock.inodes, superblock.made), (2, 77));
    assert_eq!(superblock.codec, squashfs::Codec::Xz);
}
