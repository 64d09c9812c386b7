//! What must not change by accident: a text in which the parts of an image show, and its digest.
//! Whoever changes one says why in the commit.

use std::fmt::Write;

use expect_test::{Expect, expect};
use formats::layout::Profile;
use formats::slot::Descriptor;
use formats::{Extent, fat, gpt, slot, verity};
use model::{Bytes, Digest};
use sha2::{Digest as _, Sha256};

/// Where each extent lies, how long it is and what it hashes to, then the digest of all.
fn show(extents: &[Extent<'_>]) -> String {
    let mut text = String::new();
    let mut all = Sha256::new();
    for extent in extents {
        let digest = Digest(Sha256::digest(&extent.bytes).into());
        writeln!(text, "{:>10} {:>6} {}", extent.at, extent.bytes.len(), &digest.hex()[..16])
            .unwrap();
        all.update(extent.at.to_le_bytes());
        all.update(&extent.bytes);
    }
    writeln!(text, "{}", Digest(all.finalize().into())).unwrap();
    text
}

#[track_caller]
fn check(extents: &[Extent<'_>], expect: Expect) {
    expect.assert_eq(&show(extents));
}

#[test]
fn the_live_table_is_stable() {
    let table = Profile::SMALL.live().unwrap();
    check(
        &table.to_extents(),
        expect![[r#"
         619691520  16896 0170be39db475f84
              1024  16384 8859b948b8903852
                 0   1024 948dd6552b0abcf5
        sha256:d99b3a278f2dbc673c1666672356e203ef0749ed5888698ce745397b7d51eba7
    "#]],
    );
    let head: Vec<u8> =
        [&table.to_extents()[2].bytes[..], &table.to_extents()[1].bytes[..]].concat();
    assert_eq!(gpt::Gpt::parse(&head, table.size()), Ok(table.clone()));
    let tail = &table.to_extents()[0].bytes;
    assert_eq!(gpt::Gpt::parse_backup(tail, table.size()), Ok(table));
}

#[test]
fn a_config_volume_is_stable() {
    let volume =
        fat::Volume { size: Bytes::mib(5), label: "EVE".into(), serial: 0x4556_4500, time: 0 };
    let files = fat::Files::from([
        ("server".into(), b"localhost:8443".to_vec()),
        ("DevicePortConfig/override.json".into(), b"{}".to_vec()),
    ]);
    check(
        &fat::write(&volume, &files).unwrap(),
        expect![[r#"
                 0    512 a07893ac82516a99
               512      9 e51908aff25deef2
              4608      9 e51908aff25deef2
              8704    192 c006c542df65124f
             25088    128 0a1db8b687cc2afd
             27136      2 44136fa355b3678a
             29184     14 37f2d70edadbe8cb
        sha256:ce38efc6de818870b1633c29288184f192e76fbeab74bfdc2c131e2e9f0d98c3
    "#]],
    );
}

#[test]
fn a_slot_descriptor_is_stable_and_found() {
    let mut squashfs = vec![0u8; 5000];
    squashfs[..4].copy_from_slice(b"hsqs");
    squashfs[12..16].copy_from_slice(&131_072u32.to_le_bytes());
    squashfs[20] = 6;
    squashfs[28] = 4;
    squashfs[40..48].copy_from_slice(&5000u64.to_le_bytes());
    squashfs.resize(8192, 0);
    let one = std::num::NonZero::<usize>::MIN;
    let tree = verity::tree_of(&mut squashfs.as_slice(), uuid::Uuid::nil(), [1; 32], one).unwrap();
    let descriptor = Descriptor {
        squashfs: Bytes(5000),
        verity_at: Bytes(8192),
        verity: Bytes(tree.bytes.len() as u64),
        uki_at: Bytes(8192 + tree.bytes.len() as u64 + slot::BLOCK),
        uki: Bytes(123),
        squashfs_digest: Digest([1; 32]),
        uki_digest: Digest([2; 32]),
        root_hash: tree.root,
        arch: "amd64".into(),
        version: "0.0.0-test".into(),
    };
    let bytes = descriptor.to_bytes().unwrap();
    check(
        &[Extent { at: 0, bytes: bytes.as_slice().into() }],
        expect![[r#"
                 0   4096 c4041c13edf92ac1
        sha256:802e220adfabcb81673e2d2ddbd380297e99552a1a5ef62aaa977611251f34b0
    "#]],
    );
    assert_eq!(Descriptor::parse(&bytes), Ok(descriptor.clone()));
    let verity_at = slot::verity_at(&squashfs).unwrap();
    assert_eq!(verity_at, descriptor.verity_at);
    let at = slot::descriptor_at(verity_at, &tree.bytes).unwrap();
    assert_eq!(at, Bytes(descriptor.uki_at.0 - slot::BLOCK));
}

#[test]
fn a_damaged_descriptor_is_refused() {
    let whole = Descriptor {
        squashfs: Bytes(4096),
        verity_at: Bytes(4096),
        verity: Bytes(8192),
        uki_at: Bytes(16384),
        uki: Bytes(1),
        squashfs_digest: Digest([0; 32]),
        uki_digest: Digest([0; 32]),
        root_hash: Digest([0; 32]),
        arch: "amd64".into(),
        version: String::new(),
    };
    let bytes = whole.to_bytes().unwrap();
    for at in [16, 100, 2000, 4095] {
        let mut broken = bytes.clone();
        broken[at] ^= 1;
        assert_eq!(Descriptor::parse(&broken), Err(slot::SlotError::Seal), "{at}");
    }
    let long = Descriptor { arch: "x".repeat(17), ..whole };
    assert!(matches!(long.to_bytes(), Err(slot::SlotError::Field { field: "architecture", .. })));
}
