//! The tables of every kind of disk, sector by sector.

use std::fmt::Write;

use expect_test::{Expect, expect};
use formats::gpt::{self, Gpt};
use formats::layout::{PlanError, Profile, Purpose, Role, Want};
use model::Bytes;

/// Number, first and last sector, attributes and name, in the order in which they lie; then the
/// size.
fn show(table: &Gpt) -> String {
    let mut rows: Vec<_> = table.partitions().iter().collect();
    rows.sort_by_key(|(_, p)| p.first);
    let mut text = String::new();
    for (number, p) in rows {
        let (first, last) = (p.first.0, p.last.0);
        writeln!(text, "{number} {first:>9} {last:>9} {:016x} {}", p.attributes.0, p.name).unwrap();
    }
    let sectors = table.size().0 / 512;
    writeln!(text, "{sectors} sectors").unwrap();
    text
}

#[track_caller]
fn check(profile: &str, purpose: Purpose, want: Want, expect: Expect) {
    let profile = Profile::by_name(profile).unwrap();
    expect.assert_eq(&show(&profile.plan(purpose, &want).unwrap()));
}

fn on(disk: Bytes) -> Want {
    Want { disk: Some(disk), ..Want::default() }
}

#[test]
fn a_live_disk_has_the_sectors_of_the_reference() {
    let want = Want { image: Bytes::mib(270), ..Want::default() };
    check(
        "eve-2026",
        Purpose::Live,
        want,
        expect![[r#"
            1      2048   4196351 0000000000000004 EFI System
            7   4196352   8390655 0000000000000000 EFI System
            4   8390656   8400895 0000000000000000 CONFIG
            2   8400896  29372415 0102000000000000 IMGA
            29390848 sectors
        "#]],
    );
}

#[test]
fn a_slot_of_the_reference_grows_with_its_image() {
    let want = Want { image: Bytes(Bytes::gib(11).0 + 1), ..Want::default() };
    let table = Profile::EVE_2026.plan(Purpose::Live, &want).unwrap();
    assert_eq!(Role::ImgA.find(&table).unwrap().1.length(), Bytes::mib(11 * 1024 + 1));
}

#[test]
fn an_installer_has_the_sectors_of_the_reference() {
    let want = Want { image: Bytes(Bytes::mib(500).0 + 1), ..Want::default() };
    check(
        "eve-2026",
        Purpose::Installer,
        want,
        expect![[r#"
            1      2048   4196351 0000000000000004 EFI System
            4   4196352   4206591 0000000000000000 CONFIG
            6   4206592   5234687 0102000000000000 INSTALLER
            5   5234688   5316607 0000000000000000 INVENTORY
            5335040 sectors
        "#]],
    );
}

#[test]
fn an_installed_disk_has_the_sectors_of_the_reference() {
    check(
        "eve-2026",
        Purpose::Target,
        on(Bytes::gib(40)),
        expect![[r#"
            1      2048   4196351 0000000000000004 EFI System
            7   4196352   8390655 0000000000000000 EFI System
            2   8390656  29362175 0102000000000000 IMGA
            3  29362176  50333695 0000000000000000 IMGB
            4  50333696  50343935 0000000000000000 CONFIG
            9  50343936  83886046 0000000000000000 P3
            83886080 sectors
        "#]],
    );
}

#[test]
fn p3_may_have_a_disk_of_its_own() {
    check(
        "small",
        Purpose::System,
        on(Bytes::gib(2)),
        expect![[r#"
            1      2048    133119 0000000000000004 EFI System
            2    133120   1181695 0102000000000000 IMGA
            3   1181696   2230271 0000000000000000 IMGB
            4   2230272   2240511 0000000000000000 CONFIG
            4194304 sectors
        "#]],
    );
    check(
        "small",
        Purpose::Data,
        on(Bytes::gib(1)),
        expect![[r#"
            9      2048   2097118 0000000000000000 P3
            2097152 sectors
        "#]],
    );
}

#[test]
fn a_configuration_stick_is_one_partition_to_the_last_usable_sector() {
    check(
        "small",
        Purpose::UsbConfig,
        on(Bytes::kib(204_800)),
        expect![[r#"
            1      2048    409566 0000000000000000 DevicePortConfig
            409600 sectors
        "#]],
    );
}

#[test]
fn layouts_that_are_in_the_field_stay_as_they_were() {
    let mut text = String::new();
    for profile in Profile::ALL {
        let table = profile.plan(Purpose::Target, &on(Bytes::gib(64))).unwrap();
        let places = table.partitions().iter().map(|(n, p)| format!("{n}:{}", p.first.0));
        writeln!(text, "{:<11} {}", profile.name, places.collect::<Vec<_>>().join(" ")).unwrap();
    }
    expect![[r#"
        small       1:2048 2:133120 3:1181696 4:2230272 9:2240512
        eve-2026    1:2048 2:8390656 3:29362176 4:50333696 7:4196352 9:50343936
        eve-2026-05 1:2048 2:4196352 3:25167872 4:46139392 9:46149632
        eve-2026-04 1:2048 2:4196352 3:12584960 4:20973568 9:20983808
        eve-10.2    1:2048 2:75776 3:1124352 4:2172928 9:2174976
        eve-10.2-k  1:2048 2:75776 3:2172928 4:4270080 9:4272128
        eve-9       1:2048 2:75776 3:690176 4:1304576 9:1306624
    "#]]
    .assert_eq(&text);
}

#[test]
fn a_board_that_keeps_something_in_front_starts_later() {
    let want = Want { start: Bytes::mib(8), ..Want::default() };
    let table = Profile::EVE_2026.plan(Purpose::Live, &want).unwrap();
    assert_eq!(Role::Esp.find(&table).unwrap().1.first.0, 16384);
    assert_eq!(table.size(), Bytes::mib(14351 + 8));
}

#[test]
fn a_disk_that_is_too_small_is_refused_by_how_much() {
    let refused = Profile::EVE_2026.plan(Purpose::Target, &on(Bytes::gib(20)));
    let text = refused.unwrap_err().to_string();
    assert_eq!(
        text,
        "a disk of a node of profile eve-2026 takes 24.0 GiB, the disk has 20.0 GiB: 4.0 GiB too little"
    );
    for (purpose, need) in [(Purpose::Target, 24592), (Purpose::Live, 14351)] {
        let least = Bytes::mib(need);
        assert_eq!(Profile::EVE_2026.need(purpose, &Want::default()), Ok(least));
        assert!(Profile::EVE_2026.plan(purpose, &on(least)).is_ok());
        let refused = Profile::EVE_2026.plan(purpose, &on(Bytes(least.0 - 512)));
        assert!(matches!(refused, Err(PlanError::TooSmall { short: Bytes(512), .. })));
    }
}

#[test]
fn an_image_that_is_larger_than_its_slot_is_refused_by_how_much() {
    let want = Want { image: Bytes::mib(513), ..Want::default() };
    let refused = Profile::SMALL.plan(Purpose::Live, &want).unwrap_err();
    assert!(matches!(refused, PlanError::TooBig { over: Bytes(1_048_576), .. }));
}

/// The bytes of the entries in sector 0, one a line.
fn record(table: &Gpt) -> String {
    let entries = table.mbr().bytes()[446..].chunks(16);
    let hex = |e: &[u8]| e.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ");
    entries.map(hex).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_hybrid_record_has_the_bytes_of_the_reference() {
    let live = Profile::EVE_2026.live().unwrap();
    expect![[r#"
        80 20 21 00 0c 35 70 05 00 08 00 00 00 00 40 00
        00 00 02 00 ee 20 20 00 01 00 00 00 ff 07 00 00
        00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00
        00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00
        55 aa"#]]
    .assert_eq(&record(&live));
    let installer = Profile::EVE_2026.plan(Purpose::Installer, &Want::default()).unwrap();
    let kinds: Vec<_> = installer.mbr().entries().iter().map(|e| (e.kind, e.active)).collect();
    assert_eq!(kinds, [(0x0C, true), (0x07, false), (0x07, false), (0xEE, false)]);
    assert_eq!(Profile::SMALL.live().unwrap().mbr().entries().len(), 1);
}

#[test]
fn a_record_and_its_code_survive_a_change_of_the_table() {
    let code = [0xEB; 446];
    for profile in [Profile::SMALL, Profile::EVE_2026] {
        let made = profile.live().unwrap();
        let made = made.clone().guarded_by(Some(made.mbr().clone().with_code(&code)));
        let grown = Bytes(made.size().0 * 2);
        let extents = made.to_extents();
        let head = [&extents[2].bytes[..], &extents[1].bytes[..]].concat();
        let mut read = Gpt::parse(&head, grown).unwrap();
        read.add_in_largest_gap(9, Role::Persist.partition(), None).unwrap();
        assert_eq!(read.mbr().bytes()[..446], code);
        let guard = read.mbr().entries().pop().unwrap();
        let want = if profile.hybrid { 2047 } else { grown.0 / 512 - 1 };
        assert_eq!(u64::from(guard.sectors), want);
        // From the backup the record is not known; whoever has it puts it back.
        let backup = gpt::Gpt::parse_backup(&read.to_extents()[0].bytes, grown).unwrap();
        assert_eq!(backup.guarded_by(Some(read.mbr().clone())), read);
    }
}

#[test]
fn guids_that_are_not_fixed_come_from_the_seed() {
    let with = |seed: u128| {
        let want = Want { seed: uuid::Uuid::from_u128(seed), ..Want::default() };
        Profile::EVE_2026.plan(Purpose::Installer, &want).unwrap()
    };
    let id = |table: &Gpt, role: Role| role.find(table).unwrap().1.id;
    for role in [Role::InstallerConfig, Role::Inventory] {
        assert_ne!(id(&with(1), role), id(&with(2), role));
        assert_eq!(id(&with(1), role), id(&with(1), role));
    }
    assert_ne!(id(&with(1), Role::InstallerConfig), id(&with(1), Role::Inventory));
    assert_eq!(id(&with(1), Role::Esp), id(&with(2), Role::Esp));
}

#[test]
fn a_role_is_found_whatever_profile_made_the_disk() {
    for profile in Profile::ALL {
        for purpose in [Purpose::Live, Purpose::Installer, Purpose::Target, Purpose::UsbConfig] {
            let table = profile.plan(purpose, &on(Bytes::gib(40))).unwrap();
            let have = profile.roles(purpose);
            for role in Role::ALL {
                let found = role.find(&table).map(|(number, _)| number);
                let want = have.contains(&role).then(|| role.number());
                assert_eq!(found, want, "{} {purpose:?} {role:?}", profile.name);
            }
        }
    }
}
