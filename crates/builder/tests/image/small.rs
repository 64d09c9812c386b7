//! A root file system with one of everything, and a request that builds it.

use std::fs::File;
use std::io;
use std::path::Path;

use builder::image::{Arch, Format, Packing, Request, RootFormat, Source};
use formats::layout::Profile;
use tar::{Builder, EntryType, Header};

pub(crate) const VERSION: &str = "0.0.0-test-01234567";

/// Writes `rootfs.tar` and `stub.efi` into `dir`.
pub(crate) fn inputs(dir: &Path) {
    let mut tar = Builder::new(File::create(dir.join("rootfs.tar")).unwrap());
    let file = |tar: &mut Builder<File>, path: &str, body: &[u8]| {
        let mut header = header(EntryType::Regular, 0o755);
        header.set_size(body.len() as u64);
        tar.append_data(&mut header, path, body).unwrap();
    };
    let modules = "usr/lib/modules/6.12.0-test";
    file(&mut tar, "boot/cmdline", b"console=ttyS0 panic=30");
    file(&mut tar, "boot/kernel", &b"bzImage ".repeat(100_000));
    file(&mut tar, "usr/sbin/eve-init", &b"\x7fELF init ".repeat(5000));
    file(&mut tar, "usr/lib/os-release", b"ID=eve\nVERSION_ID=test\n");
    file(&mut tar, "usr/lib/eve/initrd-modules", b"dm_verity\nvirtio_blk\n");
    let dep = b"kernel/md/dm-mod.ko:\nkernel/md/dm-verity.ko: kernel/md/dm-mod.ko\n";
    file(&mut tar, &format!("{modules}/modules.dep"), dep);
    file(&mut tar, &format!("{modules}/modules.builtin"), b"kernel/block/virtio_blk.ko\n");
    file(&mut tar, &format!("{modules}/kernel/md/dm-mod.ko"), b"module dm-mod");
    file(&mut tar, &format!("{modules}/kernel/md/dm-verity.ko"), b"module dm-verity");
    let large: Vec<u8> =
        (0u32..200_000).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    file(&mut tar, "usr/bin/eved", &large);
    file(&mut tar, "etc/hosts", b"old");
    file(&mut tar, "etc/hosts", b"127.0.0.1 localhost\n");
    for (link, to) in [("sbin", "usr/sbin"), ("lib", "usr/lib")] {
        tar.append_link(&mut header(EntryType::Symlink, 0o777), link, to).unwrap();
    }
    tar.append_link(&mut header(EntryType::Link, 0o755), "usr/bin/eve", "usr/bin/eved").unwrap();
    let capability = [(
        "SCHILY.xattr.security.capability",
        &b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0"[..],
    )];
    tar.append_pax_extensions(capability).unwrap();
    file(&mut tar, "usr/bin/ping", b"ping");
    tar.into_inner().unwrap();
    std::io::copy(&mut &stub()[..], &mut File::create(dir.join("stub.efi")).unwrap()).unwrap();
}

/// A request that builds the files of [`inputs`] below `dir`, into `dist`, with the cache in
/// `cache`.
pub(crate) fn request(dir: &Path) -> Request {
    Request {
        repository: dir.to_owned(),
        cache: dir.join("cache"),
        out: dir.join("dist"),
        arch: Arch::Amd64,
        hv: "kvm".into(),
        platform: "generic".into(),
        profile: Profile::SMALL,
        firmware: Vec::new(),
        accept_licence: false,
        debug: false,
        kernel: None,
        kernel_image: None,
        version: VERSION.into(),
        source: Source::Tar(dir.join("rootfs.tar")),
        installer: None,
        grub: None,
        stub: Some(dir.join("stub.efi")),
        conf: Vec::new(),
        set: [("server".to_owned(), b"controller.example:8443".to_vec())].into(),
        ipxe: None,
        formats: vec![Format::RAW, Format::QCOW2],
        update: false,
        media: None,
        time: None,
        packing: Packing::Fast,
        root: RootFormat::Squash,
    }
}

fn header(kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_492_533_000);
    header.set_size(0);
    header
}

/// The smallest executable that sections can be added to.
fn stub() -> Vec<u8> {
    let mut pe = vec![0; 2048];
    let fields: [(usize, &[u8]); 16] = [
        (0, b"MZ"),
        (0x3C, &[0x40]),
        (0x40, b"PE\0\0"),
        (0x44, &[0x64, 0x86]),    // x86-64
        (0x46, &[1, 0]),          // sections
        (0x54, &[240, 0]),        // length of the optional header
        (0x56, &[0x06, 0x02]),    // an executable without debug information
        (0x58, &[0x0B, 0x02]),    // PE32+
        (0x78, &[0, 0x10, 0, 0]), // section alignment
        (0x7C, &[0, 2, 0, 0]),    // file alignment
        (0x94, &[0, 4, 0, 0]),    // headers
        (0x9C, &[10, 0]),         // EFI application
        (0xC4, &[16]),            // directories
        (0x148, b".text"),
        (0x150, &[16, 0, 0, 0, 0, 0x10, 0, 0]),
        (0x158, &[0, 4, 0, 0, 0, 4, 0, 0]),
    ];
    for (at, bytes) in fields {
        pe[at..at + bytes.len()].copy_from_slice(bytes);
    }
    pe
}

/// The bytes of a file in the folder that `request` builds.
pub(crate) fn read(dir: &Path, name: &str) -> Vec<u8> {
    let path = dir.join("dist/amd64").join(VERSION).join(name);
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut File::open(&path).unwrap(), &mut bytes).unwrap();
    bytes
}
