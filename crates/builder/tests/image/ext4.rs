//! A node whose root file system is an ext4, judged by e2fsprogs and veritysetup.

use std::path::Path;

use builder::image::{self, Request, RootFormat};
use formats::slot::{self, Descriptor};
use formats::uki::Pe;
use model::Bytes;

use crate::small::{self, read};
use crate::tools::tool;

fn request(dir: &Path) -> Request {
    let source = image::Source::Tar(dir.join("with-ext4.tar"));
    Request { root: RootFormat::Ext4, source, formats: Vec::new(), ..small::request(dir) }
}

/// The small root file system, and a kernel that has ext4 as a module.
fn inputs(dir: &Path) {
    small::inputs(dir);
    let mut tar = tar::Builder::new(std::fs::File::create(dir.join("with-ext4.tar")).unwrap());
    let mut from = tar::Archive::new(std::fs::File::open(dir.join("rootfs.tar")).unwrap());
    let modules = "usr/lib/modules/6.12.0-test";
    for entry in from.entries().unwrap() {
        let mut entry = entry.unwrap();
        if let Some(records) = entry.pax_extensions().unwrap() {
            let records: Vec<(String, Vec<u8>)> = records
                .map(|r| r.unwrap())
                .map(|r| (r.key().unwrap().to_owned(), r.value_bytes().to_vec()))
                .collect();
            tar.append_pax_extensions(records.iter().map(|(k, v)| (k.as_str(), &v[..]))).unwrap();
        }
        let header = entry.header().clone();
        if entry.path_bytes().ends_with(b"modules.dep") {
            let mut text = String::new();
            std::io::Read::read_to_string(&mut entry, &mut text).unwrap();
            text += "kernel/fs/ext4.ko:\n";
            for (path, body) in [("modules.dep", text.as_str()), ("kernel/fs/ext4.ko", "ext4")] {
                let mut header = header.clone();
                header.set_size(body.len() as u64);
                let path = format!("{modules}/{path}");
                tar.append_data(&mut header, path, body.as_bytes()).unwrap();
            }
        } else if let Some(to) = entry.link_name().unwrap() {
            tar.append_link(&mut header.clone(), entry.path().unwrap(), to).unwrap();
        } else {
            let path = entry.path().unwrap().into_owned();
            tar.append_data(&mut header.clone(), path, &mut entry).unwrap();
        }
    }
    tar.into_inner().unwrap();
}

fn parts(slot: &[u8]) -> (Descriptor, Pe<'_>) {
    let verity = slot::verity_at(slot).unwrap();
    let at = |n: Bytes| usize::try_from(n.0).unwrap();
    let found = slot::descriptor_at(verity, &slot[at(verity)..]).unwrap();
    let found = Descriptor::parse(&slot[at(found)..]).unwrap();
    let uki = Pe::parse(&slot[at(found.uki_at)..]).unwrap();
    (found, uki)
}

#[test]
fn a_root_in_ext4_is_whole_guarded_and_the_same_each_time() {
    let (dir, again) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for dir in [&dir, &again] {
        inputs(dir.path());
        image::live(&request(dir.path()), &()).unwrap();
    }
    let slot = read(dir.path(), "slot.img");
    assert!(slot == read(again.path(), "slot.img"));
    assert!(read(dir.path(), "live.raw") == read(again.path(), "live.raw"));
    let folder = dir.path().join("dist/amd64/current");
    let (found, uki) = parts(&slot);
    let offset = format!("--hash-offset={}", found.verity_at.0);
    let args = ["verify", "slot.img", "slot.img", &found.root_hash.hex(), &offset];
    tool("veritysetup", "cryptsetup-bin", &folder, &args);
    assert!(found.rootfs <= Bytes::mib(8), "{} for 2 MB of files", found.rootfs);

    let length = found.rootfs.0.to_string();
    tool("cp", "coreutils", &folder, &["slot.img", "root.ext4"]);
    tool("truncate", "coreutils", &folder, &["-s", &length, "root.ext4"]);
    tool("e2fsck", "e2fsprogs", &folder, &["-fn", "root.ext4"]);
    let said = tool("dumpe2fs", "e2fsprogs", &folder, &["-h", "root.ext4"]);
    assert!(said.contains("eve_rootfs") && !said.contains("has_journal"), "{said}");
    let ask = |request: &str| tool("debugfs", "e2fsprogs", &folder, &["-R", request, "root.ext4"]);
    assert_eq!(ask("cat /etc/hosts"), "127.0.0.1 localhost\n");
    assert!(ask("ls /boot").contains("cmdline"));
    assert!(!ask("ls /boot").contains("kernel"), "the kernel is beside the root file system");
    assert!(ask("stat /usr/bin/eve").contains("Links: 2"));
    assert!(ask("ea_list /usr/bin/ping").contains("security.capability"));

    let initrd = zstd::stream::decode_all(uki.section(".initrd").unwrap()).unwrap();
    let names = formats::cpio::read(&initrd).unwrap();
    assert!(names.iter().any(|m| m.path.ends_with(b"kernel/fs/ext4.ko")));
}

#[test]
fn a_kernel_that_cannot_mount_it_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    small::inputs(dir.path());
    let source = image::Source::Tar(dir.path().join("rootfs.tar"));
    let request = Request { source, ..request(dir.path()) };
    let mut error: &dyn std::error::Error = &image::slot(&request, &()).unwrap_err();
    while let Some(source) = error.source() {
        error = source;
    }
    let wanted = "the initrd needs the module \"ext4\", which this kernel does not have";
    assert_eq!(error.to_string(), wanted);
}
