//! What must not change by accident: a text in which the parts of an image show, and its digest.
//! Whoever changes one says why in the commit.

use std::fmt::Write;
use std::io::Cursor;
use std::num::NonZero;

use expect_test::{Expect, expect};
use formats::layout::Profile;
use formats::slot::Descriptor;
use formats::squashfs::{self, Image, Method};
use formats::tree::{Content, InPlace, Kind, Meta, Node, Tree, show as name};
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
        rootfs: Bytes(5000),
        verity_at: Bytes(8192),
        verity: Bytes(tree.bytes.len() as u64),
        uki_at: Bytes(8192 + tree.bytes.len() as u64 + slot::BLOCK),
        uki: Bytes(123),
        rootfs_digest: Digest([1; 32]),
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
        rootfs: Bytes(4096),
        verity_at: Bytes(4096),
        verity: Bytes(8192),
        uki_at: Bytes(16384),
        uki: Bytes(1),
        rootfs_digest: Digest([0; 32]),
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

/// A small tree of everything, its contents in place.
fn tree() -> Tree<Vec<u8>> {
    let mut tree = Tree::new();
    let file = |at: Vec<u8>| Kind::File(Content { size: Bytes(at.len() as u64), digest: None, at });
    // Bytes that no codec packs.
    let noise: Vec<u8> = (1u32..3000)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).rotate_left(9).to_be_bytes())
        .collect();
    let nodes = [
        ("", Kind::Folder),
        ("bin/program", file(b"\x7fELF program ".repeat(1000))),
        ("bin/same", file(b"\x7fELF program ".repeat(1000))),
        ("bin/link", Kind::Same(b"bin/program".to_vec())),
        ("dev/null", Kind::Char { major: 1, minor: 3 }),
        ("dev/disk", Kind::Block { major: 259, minor: 300 }),
        ("etc/hosts", file(b"127.0.0.1 localhost\n".to_vec())),
        ("etc/empty", file(Vec::new())),
        ("holes", file([vec![0; 8192], noise[..5000].to_vec(), vec![0; 9000]].concat())),
        ("lib", Kind::Symlink(b"usr/lib".to_vec())),
        ("noise", file(noise)),
        ("run/pipe", Kind::Fifo),
        ("run/socket", Kind::Socket),
    ];
    for (n, (path, kind)) in (0u16..).zip(nodes) {
        let (mode, mtime) = (0o640 + n, 1_600_000_000 + i64::from(n));
        let meta = Meta { mode, uid: 7, gid: u32::from(n) / 4, mtime, ..Meta::default() };
        tree.insert(path, Node { meta, kind }).unwrap();
    }
    for path in ["bin/program", "noise"] {
        let xattrs = &mut tree.meta_mut(path.as_bytes()).unwrap().xattrs;
        xattrs.insert(b"security.capability".to_vec(), vec![1; 20]);
    }
    tree
}

/// What a squashfs says of itself, a line a path with where its content lies, and the digest of all.
fn show_squashfs(method: Method) -> String {
    let options = squashfs::Options {
        method,
        block: Bytes::kib(4),
        time: 77,
        threads: NonZero::<usize>::MIN,
    };
    let mut out = Cursor::new(Vec::new());
    squashfs::write(&tree(), &InPlace, &options, None, &mut out).unwrap();
    let bytes = out.into_inner();
    let image = Image::open(Cursor::new(&bytes)).unwrap();
    let superblock = image.superblock();
    let tables = superblock.tables;
    let mut text = format!(
        "{} {} in blocks of {}, made {}, inodes {}, fragments {}, owners {}, flags {:x}\n\
         inodes at {} (root {:x}), folders {}, fragments {}, export {}, owners {}, xattrs {}\n",
        superblock.codec.name(),
        superblock.used,
        superblock.block,
        superblock.made,
        superblock.inodes,
        superblock.fragments,
        superblock.ids,
        superblock.flags,
        tables.inodes,
        superblock.root,
        tables.folders,
        tables.fragments,
        tables.export,
        tables.ids,
        tables.xattrs,
    );
    for (path, node) in image.tree().unwrap().iter() {
        let Meta { mode, uid, gid, mtime, xattrs } = &node.meta;
        let what = match &node.kind {
            Kind::File(Content { size, at, .. }) => {
                let (start, packed) = (at.start(), at.packed().0);
                let tail = at.tail(superblock.block).map(|(number, at, size)| (number, at, size.0));
                format!("{} bytes at {start} in {packed}, tail {tail:?}", size.0)
            }
            Kind::Same(to) => format!("is {}", name(to)),
            Kind::Symlink(to) => format!("-> {}", name(to)),
            other => format!("{other:?}"),
        };
        write!(text, "/{} {mode:o} {uid}:{gid} {mtime} {what}", name(path)).unwrap();
        xattrs.keys().for_each(|key| write!(text, " with {}", name(key)).unwrap());
        text.push('\n');
    }
    writeln!(text, "{}", Digest(Sha256::digest(&bytes).into())).unwrap();
    text
}

#[test]
fn a_squashfs_of_each_codec_is_stable() {
    expect![[r#"
        gzip 17.5 KiB in blocks of 4.0 KiB, made 77, inodes 16, fragments 1, owners 5, flags c0
        inodes at 17366 (root 243), folders 17644, fragments 17844, export 17907, owners 17937, xattrs 17993
        / 640 7:0 1600000000 Folder
        /bin 755 0:0 1600000001 Folder
        /bin/link 641 7:0 1600000001 13000 bytes at 96 in 175, tail None with security.capability
        /bin/program 755 0:0 0 is bin/link
        /bin/same 642 7:0 1600000002 13000 bytes at 96 in 175, tail None
        /dev 755 0:0 1600000004 Folder
        /dev/disk 645 7:1 1600000005 Block { major: 259, minor: 300 }
        /dev/null 644 7:1 1600000004 Char { major: 1, minor: 3 }
        /etc 755 0:0 1600000006 Folder
        /etc/empty 647 7:1 1600000007 0 bytes at 0 in 0, tail None
        /etc/hosts 646 7:1 1600000006 20 bytes at 0 in 0, tail Some((0, 0, 20))
        /holes 650 7:2 1600000008 22192 bytes at 271 in 5079, tail None
        /lib 651 7:2 1600000009 -> usr/lib
        /noise 652 7:2 1600000010 11996 bytes at 5350 in 11996, tail None with security.capability
        /run 755 0:0 1600000011 Folder
        /run/pipe 653 7:2 1600000011 Fifo
        /run/socket 654 7:3 1600000012 Socket
        sha256:bb0d8316f9f00f9679e53f5b3821aa5aafe16fb54a0fb440a7191868e3d8dbc9
    "#]].assert_eq(&show_squashfs(Method::Gzip(6)));
    expect![[r#"
        xz 17.9 KiB in blocks of 4.0 KiB, made 77, inodes 16, fragments 1, owners 5, flags 4c0
        inodes at 17606 (root 243), folders 17904, fragments 18152, export 18266, owners 18296, xattrs 18362
        / 640 7:0 1600000000 Folder
        /bin 755 0:0 1600000001 Folder
        /bin/link 641 7:0 1600000001 13000 bytes at 106 in 384, tail None with security.capability
        /bin/program 755 0:0 0 is bin/link
        /bin/same 642 7:0 1600000002 13000 bytes at 106 in 384, tail None
        /dev 755 0:0 1600000004 Folder
        /dev/disk 645 7:1 1600000005 Block { major: 259, minor: 300 }
        /dev/null 644 7:1 1600000004 Char { major: 1, minor: 3 }
        /etc 755 0:0 1600000006 Folder
        /etc/empty 647 7:1 1600000007 0 bytes at 0 in 0, tail None
        /etc/hosts 646 7:1 1600000006 20 bytes at 0 in 0, tail Some((0, 0, 20))
        /holes 650 7:2 1600000008 22192 bytes at 490 in 5100, tail None
        /lib 651 7:2 1600000009 -> usr/lib
        /noise 652 7:2 1600000010 11996 bytes at 5590 in 11996, tail None with security.capability
        /run 755 0:0 1600000011 Folder
        /run/pipe 653 7:2 1600000011 Fifo
        /run/socket 654 7:3 1600000012 Socket
        sha256:60ace0f10f4a785b22395b82afc142609bc8c6870c03c33b0933904487fd9acf
    "#]].assert_eq(&show_squashfs(Method::Xz));
    expect![[r#"
        zstd 17.5 KiB in blocks of 4.0 KiB, made 77, inodes 16, fragments 1, owners 5, flags 4c0
        inodes at 17264 (root 243), folders 17568, fragments 17777, export 17858, owners 17888, xattrs 17950
        / 640 7:0 1600000000 Folder
        /bin 755 0:0 1600000001 Folder
        /bin/link 641 7:0 1600000001 13000 bytes at 102 in 123, tail None with security.capability
        /bin/program 755 0:0 0 is bin/link
        /bin/same 642 7:0 1600000002 13000 bytes at 102 in 123, tail None
        /dev 755 0:0 1600000004 Folder
        /dev/disk 645 7:1 1600000005 Block { major: 259, minor: 300 }
        /dev/null 644 7:1 1600000004 Char { major: 1, minor: 3 }
        /etc 755 0:0 1600000006 Folder
        /etc/empty 647 7:1 1600000007 0 bytes at 0 in 0, tail None
        /etc/hosts 646 7:1 1600000006 20 bytes at 0 in 0, tail Some((0, 0, 20))
        /holes 650 7:2 1600000008 22192 bytes at 225 in 5023, tail None
        /lib 651 7:2 1600000009 -> usr/lib
        /noise 652 7:2 1600000010 11996 bytes at 5248 in 11996, tail None with security.capability
        /run 755 0:0 1600000011 Folder
        /run/pipe 653 7:2 1600000011 Fifo
        /run/socket 654 7:3 1600000012 Socket
        sha256:aad3b02b6758777041cc6f4f559b9d6be36b6b3a6ee4becb3ec96850a00b8441
    "#]].assert_eq(&show_squashfs(Method::Zstd(3)));
}
