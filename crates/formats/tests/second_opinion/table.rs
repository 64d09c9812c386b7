//! Partition tables: what sgdisk says of ours, and ours against what sgdisk writes itself.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use formats::gpt::Gpt;
use formats::layout::{DISK, Profile, Purpose, Role, Want};
use model::Bytes;

use crate::tools::tool;

const PURPOSES: [Purpose; 6] = [
    Purpose::Live,
    Purpose::Installer,
    Purpose::Target,
    Purpose::System,
    Purpose::Data,
    Purpose::UsbConfig,
];

fn write(path: &Path, table: &Gpt) {
    let mut file = File::create(path).unwrap();
    file.set_len(table.size().0).unwrap();
    for extent in table.to_extents() {
        file.seek(SeekFrom::Start(extent.at)).unwrap();
        file.write_all(&extent.bytes).unwrap();
    }
}

fn sgdisk(dir: &Path, args: &[&str]) -> String {
    tool("sgdisk", "gdisk", dir, args)
}

#[test]
fn sgdisk_finds_no_fault_in_a_disk_of_any_profile_and_purpose() {
    let dir = tempfile::tempdir().unwrap();
    for profile in Profile::ALL {
        for purpose in PURPOSES {
            let want = Want { image: Bytes::mib(200), ..Want::default() };
            let table = profile.plan(purpose, &want).unwrap();
            write(&dir.path().join("disk"), &table);
            let said = sgdisk(dir.path(), &["-v", "disk"]);
            assert!(said.contains("No problems found"), "{} {purpose:?} {said}", profile.name);
        }
    }
}

#[test]
fn sgdisk_reads_every_guid_name_and_attribute() {
    let dir = tempfile::tempdir().unwrap();
    for purpose in PURPOSES {
        let want = Want { disk: Some(Bytes::gib(40)), ..Want::default() };
        let table = Profile::EVE_2026.plan(purpose, &want).unwrap();
        write(&dir.path().join("disk"), &table);
        for (number, partition) in table.partitions() {
            let said = sgdisk(dir.path(), &["-i", &number.to_string(), "disk"]);
            for want in [
                format!("GUID code: {}", partition.kind.to_string().to_uppercase()),
                format!("unique GUID: {}", partition.id.to_string().to_uppercase()),
                format!("First sector: {} ", partition.first.0),
                format!("Last sector: {} ", partition.last.0),
                format!("flags: {:016X}", partition.attributes.0),
                format!("name: '{}'", partition.name),
            ] {
                assert!(said.contains(&want), "{purpose:?}: no {want:?} in\n{said}");
            }
        }
    }
}

/// The calls that make a disk of the reference, `--hybrid` with its list at the end.
fn made_by_sgdisk(dir: &Path, table: &Gpt, hybrid: &str) {
    File::create(dir.join("theirs")).unwrap().set_len(table.size().0).unwrap();
    let mut args = vec![format!("--disk-guid={DISK}")];
    for (number, p) in table.partitions() {
        args.extend([
            format!("--new={number}:{}:{}", p.first.0, p.last.0),
            format!("--typecode={number}:{}", p.kind),
            format!("--partition-guid={number}:{}", p.id),
            format!("--change-name={number}:{}", p.name),
        ]);
        let bits = (0..64).filter(|bit| p.attributes.0 >> bit & 1 == 1);
        args.extend(bits.map(|bit| format!("--attributes={number}:set:{bit}")));
    }
    args.extend([format!("--hybrid={hybrid}"), "theirs".to_owned()]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    // Bounds that are no multiples of its alignment are to be taken as they are.
    sgdisk(dir, &[&["--set-alignment=1"][..], &args].concat());
}

#[test]
fn our_table_is_sgdisks_to_the_byte() {
    for (purpose, hybrid, kinds) in [
        (Purpose::Live, "1:EE", &[0x0C][..]),
        (Purpose::Target, "1:EE", &[0x0C][..]),
        (Purpose::Installer, "1:4:5:EE", &[0x0C, 0x07, 0x07][..]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let want = Want { disk: Some(Bytes::gib(40)), image: Bytes::mib(300), ..Want::default() };
        let table = Profile::EVE_2026.plan(purpose, &want).unwrap();
        write(&dir.path().join("ours"), &table);
        made_by_sgdisk(dir.path(), &table, hybrid);
        // What fdisk does afterwards: the first is active and FAT32, as are the types.
        let mut theirs = File::options().write(true).open(dir.path().join("theirs")).unwrap();
        for (place, kind) in (0..).zip(kinds) {
            theirs.seek(SeekFrom::Start(446 + place * 16)).unwrap();
            theirs.write_all(&[if place == 0 { 0x80 } else { 0 }]).unwrap();
            theirs.seek(SeekFrom::Start(446 + place * 16 + 4)).unwrap();
            theirs.write_all(&[*kind]).unwrap();
        }
        let read = |name: &str| {
            let file = File::open(dir.path().join(name)).unwrap();
            let mut bytes = vec![0; 17_408 + 16_896];
            let (head, tail) = bytes.split_at_mut(17_408);
            std::os::unix::fs::FileExt::read_exact_at(&file, head, 0).unwrap();
            let at = table.size().0 - 16_896;
            std::os::unix::fs::FileExt::read_exact_at(&file, tail, at).unwrap();
            bytes
        };
        let (mut ours, mut theirs) = (read("ours"), read("theirs"));
        // The disk's signature, which the reference takes from its boot code.
        ours[440..446].fill(0);
        theirs[440..446].fill(0);
        let differ = ours.iter().zip(&theirs).position(|(a, b)| a != b);
        assert_eq!(differ, None, "{purpose:?}");
        assert!(Role::Esp.find(&table).is_some());
    }
}
