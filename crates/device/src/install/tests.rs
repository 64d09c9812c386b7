//! Plans as text, refusals, and what holds for every plan.

use expect_test::{Expect, expect};
use formats::gpt::Gpt;
use formats::layout::{Profile, Purpose, Role, Want};
use model::Bytes;
use proptest::prelude::*;

use super::*;

fn disk(name: &str, size: Bytes, transport: Transport) -> Disk {
    Disk {
        name: name.to_owned(),
        size,
        sector: 512,
        transport,
        read_only: false,
        medium: false,
        in_use: None,
        found: Found::Blank,
    }
}

/// A disk of a node, of a profile and as large as it takes, or `size`.
fn node(name: &str, profile: Profile, purpose: Purpose, size: Option<Bytes>) -> Disk {
    let table = profile.plan(purpose, &Want { disk: size, ..Want::default() }).unwrap();
    let found = recognize(Some(table.clone()), &[]);
    Disk { found, ..disk(name, table.size(), Transport::Sata) }
}

const PAYLOAD: Payload = Payload { profile: Profile::SMALL, slot: Bytes::mib(100), bios: Bytes(0) };

fn keep(rootfs: bool, config: bool, persist: bool) -> Wish {
    Wish { skip: Skip { rootfs, config, persist }, ..Wish::default() }
}

#[track_caller]
fn check(wish: &Wish, disks: &[Disk], payload: &Payload, want: Expect) {
    let outcome = choose(wish, disks).and_then(|d| plan(wish, d, disks, payload));
    want.assert_eq(&match outcome {
        Ok(plan) => plan.to_string(),
        Err(refusal) => {
            use model::Diagnose;
            format!("{}\n  {}\n", model::chain(&refusal), refusal.diagnose().advice)
        }
    });
}

#[test]
fn a_blank_disk_gets_everything_and_its_table_last() {
    let disks = [disk("vda", Bytes::gib(4), Transport::Virtio)];
    check(
        &Wish::default(),
        &disks,
        &PAYLOAD,
        expect![[r#"
        vda (4.0 GiB, holds nothing)
          wipe the old table: 17.0 KiB at 0 B
          wipe its copy: 16.5 KiB at 3.9 GiB
          wipe the start of P3: 8.0 MiB at 1.0 GiB
          wipe the end of P3: 8.0 MiB at 3.9 GiB
          write partition 4 (CONFIG): 5.0 MiB at 1.0 GiB
          write the slot image to IMGA: 100.0 MiB at 65.0 MiB
          write partition 1 (EFI System): 64.0 MiB at 1.0 MiB
          read everything back
          write the table:
            1 2048 to 133119 (64.0 MiB) EFI System
            2 133120 to 1181695 (512.0 MiB) IMGA
            3 1181696 to 2230271 (512.0 MiB) IMGB
            4 2230272 to 2240511 (5.0 MiB) CONFIG
            9 2240512 to 8388574 (2.9 GiB) P3
    "#]],
    );
}

#[test]
fn a_node_s_disk_keeps_what_is_skipped_and_its_layout() {
    let disks = [node("sda", Profile::EVE_2026, Purpose::Target, Some(Bytes::gib(40)))];
    let wish = keep(false, true, true);
    check(
        &wish,
        &disks,
        &PAYLOAD,
        expect![[r#"
        sda (40.0 GiB, holds an EVE node)
          wipe the start of the old boot partition: 512 B at 1.0 MiB
          write the slot image to IMGA: 100.0 MiB at 4.0 GiB
          write partition 7 (EFI System): 2.0 GiB at 2.0 GiB
          write partition 1 (EFI System): 2.0 GiB at 1.0 MiB
          read everything back
    "#]],
    );
    check(
        &keep(true, false, true),
        &disks,
        &PAYLOAD,
        expect![[r#"
        sda (40.0 GiB, holds an EVE node)
          write partition 4 (CONFIG): 5.0 MiB at 24.0 GiB
          read everything back
    "#]],
    );
}

#[test]
fn p3_may_have_a_disk_of_its_own_and_that_comes_first() {
    let disks = [
        disk("nvme0n1", Bytes::gib(2), Transport::Nvme),
        disk("sda", Bytes::gib(8), Transport::Sata),
    ];
    let wish = Wish { persist: vec!["sda".into()], ..Wish::default() };
    let payload = Payload { bios: Bytes::kib(100), ..PAYLOAD };
    check(
        &wish,
        &disks,
        &payload,
        expect![[r#"
        sda (8.0 GiB, holds nothing)
          wipe the old table: 17.0 KiB at 0 B
          wipe its copy: 16.5 KiB at 7.9 GiB
          wipe the start of P3: 8.0 MiB at 1.0 MiB
          wipe the end of P3: 8.0 MiB at 7.9 GiB
          read everything back
          write the table:
            9 2048 to 16777182 (7.9 GiB) P3
        nvme0n1 (2.0 GiB, holds nothing)
          wipe the old table: 17.0 KiB at 0 B
          wipe its copy: 16.5 KiB at 1.9 GiB
          write partition 4 (CONFIG): 5.0 MiB at 1.0 GiB
          write the slot image to IMGA: 100.0 MiB at 65.0 MiB
          write what a BIOS loads: 100.0 KiB at 17.0 KiB
          write partition 1 (EFI System): 64.0 MiB at 1.0 MiB
          read everything back
          write the table:
            1 2048 to 133119 (64.0 MiB) EFI System
            2 133120 to 1181695 (512.0 MiB) IMGA
            3 1181696 to 2230271 (512.0 MiB) IMGB
            4 2230272 to 2240511 (5.0 MiB) CONFIG
    "#]],
    );
}

#[test]
fn of_several_disks_the_best_attached_is_chosen_and_never_one_of_two() {
    let nvme = disk("nvme0n1", Bytes::gib(8), Transport::Nvme);
    let [a, b] = ["sda", "sdb"].map(|n| disk(n, Bytes::gib(8), Transport::Sata));
    let usb = disk("sdc", Bytes::gib(8), Transport::Usb);
    let ram = disk("ram0", Bytes::gib(8), Transport::Virtual);
    let chosen = |disks: &[Disk]| choose(&Wish::default(), disks).map(|d| d.name.clone());
    assert_eq!(chosen(&[usb.clone(), a.clone(), nvme.clone()]), Ok("nvme0n1".into()));
    assert_eq!(chosen(&[usb.clone(), a.clone()]), Ok("sda".into()));
    let medium = Disk { medium: true, ..a.clone() };
    assert_eq!(chosen(&[usb.clone(), medium]), Ok("sdc".into()));
    check(
        &Wish::default(),
        &[a, b, usb],
        &PAYLOAD,
        expect![[r#"
        several disks would do, and none was named: sda (8.0 GiB, nothing), sdb (8.0 GiB, nothing)
          name one of the disks with eve_install_disk=
    "#]],
    );
    check(
        &Wish::default(),
        &[ram],
        &PAYLOAD,
        expect![[r#"
        there is no disk to install onto; seen: ram0 (8.0 GiB, virtual)
          attach a disk that is not the boot medium
    "#]],
    );
    check(
        &Wish::default(),
        &[],
        &PAYLOAD,
        expect![[r#"
        there is no disk to install onto; seen: none
          attach a disk that is not the boot medium
    "#]],
    );
}

#[test]
fn refusals_name_the_disk_what_is_needed_and_what_is_there() {
    let sda = disk("sda", Bytes::gib(1), Transport::Sata);
    let named = |name: &str| Wish { disk: Some(name.into()), ..Wish::default() };
    let all = |disk: Disk| vec![disk];
    check(
        &Wish::default(),
        &all(sda.clone()),
        &PAYLOAD,
        expect![[r#"
        sda is too small: 1.1 GiB are needed, it has 1.0 GiB, 143.0 MiB too little
          use a larger disk
    "#]],
    );
    check(
        &named("sdb"),
        &all(sda.clone()),
        &PAYLOAD,
        expect![[r#"
        there is no disk sdb; seen: sda (1.0 GiB, SATA)
          name one of the disks with eve_install_disk=
    "#]],
    );
    let used = Disk { in_use: Some("sda1 is mounted at /mnt".into()), ..sda.clone() };
    check(
        &named("sda"),
        &all(used),
        &PAYLOAD,
        expect![[r#"
        sda is in use: sda1 is mounted at /mnt
          unmount it, or stop what uses it
    "#]],
    );
    let medium = Disk { medium: true, ..sda.clone() };
    check(
        &named("sda"),
        &all(medium),
        &PAYLOAD,
        expect![[r#"
        sda is the medium that this installer was booted from
          name one of the disks with eve_install_disk=
    "#]],
    );
    let large = Disk { sector: 4096, ..sda.clone() };
    check(
        &named("sda"),
        &all(large),
        &PAYLOAD,
        expect![[r#"
        sda has sectors of 4096 bytes, tables of ours have sectors of 512
          attach a disk that is not the boot medium
    "#]],
    );
    let image = Payload { slot: Bytes::gib(1), ..PAYLOAD };
    check(
        &Wish::default(),
        &all(sda.clone()),
        &image,
        expect![[r#"
        cannot lay out sda: the slot image takes 1.0 GiB, a slot of profile small has 512.0 MiB: 512.0 MiB too much
          build the installer with another --profile
    "#]],
    );
    check(
        &keep(false, true, false),
        &all(sda),
        &PAYLOAD,
        expect![[r#"
        CONFIG of sda is to be kept, but the disk holds nothing
          install without eve_install_skip_…: everything on the disk will be lost
    "#]],
    );
    let old = node("sda", Profile::SMALL, Purpose::Target, None);
    let image = Payload { slot: Bytes::mib(600), ..PAYLOAD };
    check(
        &keep(false, false, true),
        &all(old),
        &image,
        expect![[r#"
        sda keeps its layout because something on it is to be kept, and its partition IMGA has 512.0 MiB, 600.0 MiB are needed
          install without eve_install_skip_…: everything on the disk will be lost
    "#]],
    );
    let pool = Wish { persist: vec!["sdb".into(), "sdc".into()], ..Wish::default() };
    let disks = [disk("sda", Bytes::gib(8), Transport::Sata)];
    check(
        &pool,
        &disks,
        &PAYLOAD,
        expect![[r#"
        P3 over several disks (sdb, sdc) needs a storage pool, and those cannot be made yet
          name one disk with eve_persist_disk=
    "#]],
    );
}

#[test]
fn what_is_on_a_disk_is_told_by_name() {
    let told = |table: Option<Gpt>, head: &[u8]| recognize(table, head).to_string();
    let profile = Profile::SMALL;
    let made = |purpose| Some(profile.plan(purpose, &Want::default()).unwrap());
    assert_eq!(told(made(Purpose::Live), &[]), "an EVE node");
    assert_eq!(told(made(Purpose::Installer), &[]), "an installer of EVE");
    assert_eq!(
        told(made(Purpose::UsbConfig), &[]),
        "partitions of another system (DevicePortConfig)"
    );
    assert_eq!(told(None, &[0; 512]), "nothing");
    let mut mbr = [1; 512];
    mbr[510..].copy_from_slice(&[0x55, 0xaa]);
    assert_eq!(told(None, &mbr), "a master boot record without a GPT");
    assert_eq!(told(None, &[1; 512]), "something without a partition table");
}

#[test]
fn everything_may_be_nuked_but_the_medium_and_what_is_in_use() {
    let usb = Disk { medium: true, ..disk("sdb", Bytes::gib(8), Transport::Usb) };
    let disks = [disk("sda", Bytes::gib(8), Transport::Sata), usb];
    let names = |nuke| {
        let wish = Wish { nuke, ..Wish::default() };
        to_nuke(&wish, &disks).map(|all| all.iter().map(|d| d.name.clone()).collect::<Vec<_>>())
    };
    assert_eq!(names(Nuke::No), Ok(vec![]));
    assert_eq!(names(Nuke::All), Ok(vec!["sda".to_owned()]));
    assert!(matches!(names(Nuke::Disks(vec!["sdb".into()])), Err(Refusal::Medium { .. })));
    assert!(matches!(names(Nuke::Disks(vec!["sdz".into()])), Err(Refusal::NotThere { .. })));
}

/// Disks of every kind, from too small to large, blank and in use.
fn any_disks() -> impl Strategy<Value = Vec<Disk>> {
    let transport = prop::sample::select(vec![
        Transport::Nvme,
        Transport::Sata,
        Transport::Virtio,
        Transport::Mmc,
        Transport::Usb,
        Transport::Virtual,
    ]);
    let profile = prop::sample::select(Profile::ALL.to_vec());
    let purpose = prop::sample::select(vec![None, Some(Purpose::Live), Some(Purpose::Target)]);
    let one = (0_u64..60 << 30, transport, any::<(bool, bool, bool)>(), profile, purpose);
    prop::collection::vec(one, 0..4).prop_map(|all| {
        let make = |(i, (size, transport, flags, profile, purpose)): (usize, _)| {
            let (read_only, medium, used): (bool, bool, bool) = flags;
            let size = Bytes(size);
            let want = Want { disk: Some(size), ..Want::default() };
            let table =
                Option::<Purpose>::and_then(purpose, |p| Profile::plan(&profile, p, &want).ok());
            let name = format!("sd{}", char::from(b'a' + u8::try_from(i).unwrap()));
            let found = recognize(table, &[0; 512]);
            let in_use = used.then(|| "mounted".to_owned());
            Disk { read_only, medium, in_use, found, ..disk(&name, size, transport) }
        };
        all.into_iter().enumerate().map(make).collect()
    })
}

fn any_wish() -> impl Strategy<Value = Wish> {
    let name = || prop::sample::select(vec!["sda", "sdb", "sdc", "sdd"]).prop_map(str::to_owned);
    let named = prop::option::of(name());
    let persist = prop::collection::vec(name(), 0..2);
    (named, persist, any::<(bool, bool, bool)>()).prop_map(|(disk, persist, skip)| {
        let (rootfs, config, persist_stays) = skip;
        let skip = Skip { rootfs, config, persist: persist_stays };
        Wish { disk, persist, skip, ..Wish::default() }
    })
}

proptest! {
    #[test]
    fn a_plan_stays_on_disks_that_may_be_written_and_writes_no_byte_twice(
        disks in any_disks(),
        wish in any_wish(),
        profile in prop::sample::select(Profile::ALL.to_vec()),
        slot in 1_u64..12 << 30,
        bios in 0_u64..2 << 20,
    ) {
        let payload = Payload { profile, slot: Bytes(slot), bios: Bytes(bios) };
        let Ok(plan) = choose(&wish, &disks).and_then(|d| plan(&wish, d, &disks, &payload)) else {
            return Ok(());
        };
        for planned in &plan.disks {
            let disk = disks.iter().find(|d| d.name == planned.disk).unwrap();
            prop_assert!(!disk.medium && !disk.read_only && disk.in_use.is_none());
            let ranges: Vec<Range> = planned.steps.iter().filter_map(|s| s.range()).collect();
            for (i, range) in ranges.iter().enumerate() {
                prop_assert!(range.end() <= disk.size, "{range} leaves {}", disk.size);
                // Closing the boot partition is the one thing that is written over in the end.
                let closing = |r: &Range| r.length == Bytes(512);
                let others = ranges[i + 1..].iter().filter(|other| !closing(range) && range.meets(**other));
                prop_assert_eq!(others.count(), 0, "{} in\n{}", range, planned);
            }
            keeps_what_it_says(&wish, disk, planned, &ranges)?;
            let table = planned.steps.iter().position(|s| *s == Step::Table);
            prop_assert!(table.is_none_or(|at| at + 1 == planned.steps.len()), "{planned}");
            let check = planned.steps.iter().position(|s| *s == Step::Check).unwrap();
            prop_assert!(planned.steps[check..].iter().all(|s| s.range().is_none()), "{planned}");
        }
    }
}

fn keeps_what_it_says(
    wish: &Wish,
    disk: &Disk,
    planned: &DiskPlan,
    ranges: &[Range],
) -> Result<(), TestCaseError> {
    let Found::Eve(old) = &disk.found else { return Ok(()) };
    for (stays, roles) in [
        (wish.skip.rootfs, &[Role::Esp, Role::EspB, Role::ImgA, Role::ImgB][..]),
        (wish.skip.config, &[Role::Config]),
        (wish.skip.persist, &[Role::Persist]),
    ] {
        for (number, partition) in roles.iter().filter_map(|r| r.find(old)).filter(|_| stays) {
            let own = Range { at: partition.offset(), length: partition.length() };
            prop_assert!(ranges.iter().all(|r| !r.meets(own)), "partition {number}:\n{planned}");
            let after = planned.table.partitions().get(&number);
            prop_assert_eq!(after, Some(partition));
        }
    }
    Ok(())
}
