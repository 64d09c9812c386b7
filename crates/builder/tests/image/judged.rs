//! What other programs say of what we made.

use std::path::Path;

use builder::image;
use formats::slot::{self, Descriptor};
use formats::uki::Pe;
use model::Bytes;

use crate::small::{self, read};
use crate::tools::tool;

fn build() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    small::inputs(dir.path());
    image::live(&small::request(dir.path()), &()).unwrap();
    dir
}

fn folder(dir: &Path) -> std::path::PathBuf {
    dir.join("dist/amd64/current")
}

/// The descriptor of a slot image, found as a loader finds it.
fn descriptor(slot: &[u8]) -> Descriptor {
    let at = |n: Bytes| usize::try_from(n.0).unwrap();
    let verity = slot::verity_at(slot).unwrap();
    let found = slot::descriptor_at(verity, &slot[at(verity)..]).unwrap();
    Descriptor::parse(&slot[at(found)..]).unwrap()
}

#[test]
fn partitions_volumes_and_formats_are_clean() {
    let dir = build();
    let folder = folder(dir.path());
    let said = tool("sgdisk", "gdisk", &folder, &["-v", "live.raw"]);
    assert!(said.contains("No problems found"), "{said}");
    tool("fsck.fat", "dosfstools", &folder, &["-n", "config.img"]);
    let esp = ["if=live.raw", "of=esp.img", "bs=1M", "skip=1", "count=64", "status=none"];
    tool("dd", "coreutils", &folder, &esp);
    tool("fsck.fat", "dosfstools", &folder, &["-n", "esp.img"]);
    tool("mcopy", "mtools", &folder, &["-n", "-i", "esp.img", "::EFI/BOOT/BOOTX64.EFI", "uki"]);
    tool("mcopy", "mtools", &folder, &["-n", "-i", "config.img", "::server", "server"]);
    assert_eq!(read(dir.path(), "server"), b"controller.example:8443");
    let check = tool("qemu-img", "qemu-utils", &folder, &["check", "live.qcow2"]);
    assert!(check.contains("No errors were found"), "{check}");
    let said = tool("qemu-img", "qemu-utils", &folder, &["compare", "live.raw", "live.qcow2"]);
    assert!(said.contains("Images are identical"), "{said}");
    let info = tool("qemu-img", "qemu-utils", &folder, &["info", "live.qcow2"]);
    assert!(info.contains("4 GiB (4294967296 bytes)"), "{info}");
    let uki = read(dir.path(), "uki");
    let objdump = tool("objdump", "binutils", &folder, &["-h", "uki"]);
    for section in [".osrel", ".cmdline", ".uname", ".initrd", ".linux"] {
        assert!(objdump.contains(section), "{objdump}");
    }
    let slot = read(dir.path(), "slot.img");
    let found = descriptor(&slot);
    let at = usize::try_from(found.uki_at.0).unwrap();
    assert!(slot[at..].starts_with(&uki), "the slot holds what the firmware starts");
}

#[test]
fn the_root_file_system_is_whole_and_verity_guards_all_of_it() {
    let dir = build();
    let folder = folder(dir.path());
    let said = tool("unsquashfs", "squashfs-tools", &folder, &["-s", "slot.img"]);
    assert!(said.contains("Found a valid SQUASHFS 4:0 superblock"), "{said}");
    let listed = tool("unsquashfs", "squashfs-tools", &folder, &["-lln", "-UTC", "slot.img"]);
    let rows: Vec<String> = listed
        .lines()
        .filter(|l| l.contains("squashfs-root"))
        .map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    expect_test::expect![[r#"
        drwxr-xr-x 0/0 72 2017-04-18 16:30 squashfs-root
        drwxr-xr-x 0/0 30 2017-04-18 16:30 squashfs-root/boot
        -rwxr-xr-x 0/0 22 2017-04-18 16:30 squashfs-root/boot/cmdline
        drwxr-xr-x 0/0 28 2017-04-18 16:30 squashfs-root/etc
        -rwxr-xr-x 0/0 20 2017-04-18 16:30 squashfs-root/etc/hosts
        lrwxrwxrwx 0/0 7 2017-04-18 16:30 squashfs-root/lib -> usr/lib
        lrwxrwxrwx 0/0 8 2017-04-18 16:30 squashfs-root/sbin -> usr/sbin
        drwxr-xr-x 0/0 49 2017-04-18 16:30 squashfs-root/usr
        drwxr-xr-x 0/0 50 2017-04-18 16:30 squashfs-root/usr/bin
        -rwxr-xr-x 0/0 800000 2017-04-18 16:30 squashfs-root/usr/bin/eve
        -rwxr-xr-x 0/0 800000 2017-04-18 16:30 squashfs-root/usr/bin/eved
        -rwxr-xr-x 0/0 4 2017-04-18 16:30 squashfs-root/usr/bin/ping
        drwxr-xr-x 0/0 59 2017-04-18 16:30 squashfs-root/usr/lib
        drwxr-xr-x 0/0 37 2017-04-18 16:30 squashfs-root/usr/lib/eve
        -rwxr-xr-x 0/0 21 2017-04-18 16:30 squashfs-root/usr/lib/eve/initrd-modules
        drwxr-xr-x 0/0 34 2017-04-18 16:30 squashfs-root/usr/lib/modules
        drwxr-xr-x 0/0 71 2017-04-18 16:30 squashfs-root/usr/lib/modules/6.12.0-test
        drwxr-xr-x 0/0 25 2017-04-18 16:30 squashfs-root/usr/lib/modules/6.12.0-test/kernel
        drwxr-xr-x 0/0 52 2017-04-18 16:30 squashfs-root/usr/lib/modules/6.12.0-test/kernel/md
        -rwxr-xr-x 0/0 13 2017-04-18 16:30 squashfs-root/usr/lib/modules/6.12.0-test/kernel/md/dm-mod.ko
        -rwxr-xr-x 0/0 16 2017-04-18 16:30 squashfs-root/usr/lib/modules/6.12.0-test/kernel/md/dm-verity.ko
        -rwxr-xr-x 0/0 27 2017-04-18 16:30 squashfs-root/usr/lib/modules/6.12.0-test/modules.builtin
        -rwxr-xr-x 0/0 65 2017-04-18 16:30 squashfs-root/usr/lib/modules/6.12.0-test/modules.dep
        -rwxr-xr-x 0/0 23 2017-04-18 16:30 squashfs-root/usr/lib/os-release
        drwxr-xr-x 0/0 31 2017-04-18 16:30 squashfs-root/usr/sbin
        -rwxr-xr-x 0/0 50000 2017-04-18 16:30 squashfs-root/usr/sbin/eve-init"#]].assert_eq(&rows.join("\n"));
    let out = ["-q", "-n", "-no", "-d", "out", "slot.img"];
    tool("unsquashfs", "squashfs-tools", &folder, &out);
    assert_eq!(read(dir.path(), "out/etc/hosts"), b"127.0.0.1 localhost\n");

    let slot = read(dir.path(), "slot.img");
    let found = descriptor(&slot);
    let offset = format!("--hash-offset={}", found.verity_at.0);
    let root = found.root_hash.hex();
    let args = ["verify", "slot.img", "slot.img", &root, &offset];
    tool("veritysetup", "cryptsetup-bin", &folder, &args);

    let uki = &slot[usize::try_from(found.uki_at.0).unwrap()..];
    let cmdline = String::from_utf8(Pe::parse(uki).unwrap().section(".cmdline").unwrap().to_vec());
    let blocks = found.verity_at.0 / 4096;
    let cmdline = cmdline.unwrap();
    let expect =
        format!("console=ttyS0 panic=30 eve.slot=IMGA eve.verity={root}:{blocks}:{}:", blocks + 1);
    assert!(cmdline.starts_with(&expect), "{cmdline}");
    assert_eq!((found.arch.as_str(), found.version.as_str()), ("amd64", small::VERSION));
}

#[test]
fn the_initrd_loads_its_modules_in_order() {
    let dir = build();
    let folder = folder(dir.path());
    let slot = read(dir.path(), "slot.img");
    let found = descriptor(&slot);
    let uki = &slot[usize::try_from(found.uki_at.0).unwrap()..];
    let initrd = Pe::parse(uki).unwrap().section(".initrd").unwrap().to_vec();
    let cpio = zstd::stream::decode_all(&initrd[..]).unwrap();
    std::io::copy(&mut &cpio[..], &mut std::fs::File::create(folder.join("initrd")).unwrap())
        .unwrap();
    let said = tool("cpio", "cpio", &folder, &["-tF", "initrd", "--quiet"]);
    expect_test::expect![[r#"
        dev
        proc
        root
        sys
        dev/console
        init
        modules.list
        lib
        lib/modules
        lib/modules/6.12.0-test
        lib/modules/6.12.0-test/kernel
        lib/modules/6.12.0-test/kernel/md
        lib/modules/6.12.0-test/kernel/md/dm-mod.ko
        lib/modules/6.12.0-test/kernel/md/dm-verity.ko
    "#]]
    .assert_eq(&said);
    tool("cpio", "cpio", &folder, &["-iF", "initrd", "--quiet", "modules.list"]);
    let list = String::from_utf8(read(dir.path(), "modules.list")).unwrap();
    expect_test::expect![[r#"
        lib/modules/6.12.0-test/kernel/md/dm-mod.ko
        lib/modules/6.12.0-test/kernel/md/dm-verity.ko
    "#]]
    .assert_eq(&list);
}
