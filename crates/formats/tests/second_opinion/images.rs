//! Images of virtual disks, ours judged by `qemu-img` and its judged by us.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read};
use std::num::NonZero;
use std::path::Path;

use formats::disk::{self, Disk, Format, Grown, HEAD, Raw};
use formats::qcow2::{self, Editor, Packing};
use formats::{Extent, gcp, parallels, vdi, vhdx, vmdk};
use model::Bytes;

use crate::disk::{file, noise};
use crate::tools::tool;

/// Every way in which we write an image, what `qemu-img` calls it, and what of it tells our ways
/// apart.
const WAYS: [(&str, &str); 8] = [
    ("qcow2", "qcow2"),
    ("qcow2 zlib", "qcow2"),
    ("qcow2 zstd", "qcow2"),
    ("vdi", "vdi"),
    ("vmdk", "vmdk"),
    ("vmdk stream", "vmdk"),
    ("vhdx", "vhdx"),
    ("parallels", "parallels"),
];

/// Zeroes, text that compresses, noise that does not, and an end that is no whole block.
fn sample(path: &Path) -> Bytes {
    let text = "all work and no play makes a node a dull node\n".repeat(60_000);
    let size = Bytes((9 << 20) + 512);
    let extents = [
        Extent { at: 100, bytes: b"start"[..].into() },
        Extent { at: 1 << 20, bytes: text.as_bytes().into() },
        Extent { at: 3_900_000, bytes: noise(900_000).into() },
        Extent { at: 7 << 20, bytes: vec![0; 1 << 20].into() },
        Extent { at: size.0 - 3, bytes: b"end"[..].into() },
    ];
    file(path, size, &extents);
    size
}

fn write(way: &str, disk: &mut dyn Disk, path: &Path, threads: usize) {
    let out = BufWriter::new(File::create(path).unwrap());
    let threads = NonZero::new(threads).unwrap();
    match way {
        "qcow2" => qcow2::write(disk, out, Packing::Plain, threads),
        "qcow2 zlib" => qcow2::write(disk, out, Packing::Zlib, threads),
        "qcow2 zstd" => qcow2::write(disk, out, Packing::Zstd, threads),
        "vdi" => vdi::write(disk, out),
        "vmdk" => vmdk::write(disk, out, "disk.vmdk"),
        "vmdk stream" => vmdk::write_stream(disk, out, "disk.vmdk", threads),
        "vhdx" => vhdx::write(disk, out),
        "parallels" => parallels::write(disk, out).map(|_| ()),
        _ => panic!("no way {way}"),
    }
    .unwrap();
}

fn raw(path: &Path, size: Bytes) -> impl Disk {
    Grown::new(Raw::new(File::open(path).unwrap(), None).unwrap(), size).unwrap()
}

/// Whether two disks hold the same, apart from zeroes behind the end of one.
fn same(one: &mut dyn Disk, two: &mut dyn Disk) -> bool {
    let mut buf = [vec![0; 1 << 20], vec![0; 1 << 20]];
    let mut at = 0;
    loop {
        let next = [one.next_data(at).unwrap(), two.next_data(at).unwrap()];
        let Some(start) = next.iter().flatten().map(|data| data.start).min() else { return true };
        one.read_at(start, &mut buf[0]).unwrap();
        two.read_at(start, &mut buf[1]).unwrap();
        if buf[0] != buf[1] {
            return false;
        }
        at = start + (1 << 20);
    }
}

/// The disk in an image whose format we find ourselves.
fn image(path: &Path) -> Box<dyn Disk> {
    let mut head = vec![0; HEAD];
    let mut file = File::open(path).unwrap();
    file.read_exact(&mut head).unwrap();
    disk::open(Format::of(&head).unwrap(), BufReader::new(file), None).unwrap()
}

fn qemu_img(dir: &Path, args: &[&str]) -> String {
    tool("qemu-img", "qemu-utils", dir, args)
}

#[test]
fn qemu_img_finds_no_fault_and_the_same_disk() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let size = sample(&dir.join("raw"));
    for (way, format) in WAYS {
        for grown in [size, Bytes::gib(3)] {
            write(way, &mut raw(&dir.join("raw"), grown), &dir.join("image"), 2);
            let check = qemu_img(dir, &["check", "-f", format, "image"]);
            assert!(check.contains("No errors were found"), "{way}: {check}");
            let compare = ["compare", "-f", "raw", "-F", format, "raw", "image"];
            let said = qemu_img(dir, &compare);
            assert!(said.contains("Images are identical"), "{way}: {said}");
            let info = qemu_img(dir, &["info", "-f", format, "--output", "json", "image"]);
            let virtual_size = format!("\"virtual-size\": {},", grown.0);
            assert!(info.contains(&virtual_size), "{way}: {info}");
            let mut ours = image(&dir.join("image"));
            assert_eq!(ours.size(), grown);
            assert!(same(&mut ours, &mut raw(&dir.join("raw"), size)), "{way}");
        }
    }
}

#[test]
fn what_shrinks_is_packed_and_what_does_not_stays() {
    let dir = tempfile::tempdir().unwrap();
    let size = sample(&dir.path().join("raw"));
    for (way, max) in
        [("qcow2 zlib", 1_600_000), ("qcow2 zstd", 1_600_000), ("vmdk stream", 1_100_000)]
    {
        write(way, &mut raw(&dir.path().join("raw"), size), &dir.path().join("image"), 2);
        let length = std::fs::metadata(dir.path().join("image")).unwrap().len();
        assert!(length < max, "{way}: {length}");
    }
}

#[test]
fn any_number_of_threads_and_any_holes_give_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    let size = sample(&dir.path().join("raw"));
    for (way, _) in WAYS {
        write(way, &mut raw(&dir.path().join("raw"), size), &one, 1);
        // 7 MiB to 8 MiB are zero: whether a map says so or the bytes do.
        let map = vec![0..7 << 20, 8 << 20..size.0];
        let file = File::open(dir.path().join("raw")).unwrap();
        write(way, &mut Raw::new(file, Some(map)).unwrap(), &two, 5);
        assert!(std::fs::read(&one).unwrap() == std::fs::read(&two).unwrap(), "{way}");
    }
}

#[test]
fn images_of_qemu_img_read_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let size = sample(&dir.join("raw"));
    for args in [
        &["-O", "qcow2"][..],
        &["-O", "qcow2", "-c"],
        &["-O", "qcow2", "-c", "-o", "compression_type=zstd"],
        &["-O", "qcow2", "-o", "compat=0.10,cluster_size=4096"],
        &["-O", "vdi"],
        &["-O", "vdi", "-o", "static=on"],
        &["-O", "vmdk"],
        &["-O", "vmdk", "-o", "subformat=streamOptimized"],
        &["-O", "vhdx"],
        &["-O", "vhdx", "-o", "block_size=16M"],
        &["-O", "parallels"],
        &["-O", "parallels", "-o", "cluster_size=65536"],
    ] {
        let head = ["convert", "-t", "unsafe", "-f", "raw"];
        qemu_img(dir, &[&head[..], args, &["raw", "image"]].concat());
        let mut theirs = image(&dir.join("image"));
        assert_eq!(theirs.size(), size);
        assert!(same(&mut theirs, &mut raw(&dir.join("raw"), size)), "{args:?}");
    }
}

#[test]
fn images_that_stand_on_others_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    qemu_img(dir, &["create", "-q", "-f", "qcow2", "base", "8M"]);
    qemu_img(dir, &["create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "image"]);
    let opened = disk::open(Format::Qcow2, File::open(dir.join("image")).unwrap(), None);
    let Err(error) = opened else { panic!("it was opened") };
    assert!(error.to_string().contains("stands on another image"), "{error}");
}

#[test]
fn a_large_empty_disk_is_a_small_image_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raw");
    let extents = [(0, b"first"), (15 << 30, b"other"), ((20 << 30) - 5, b"final")];
    let extents = extents.map(|(at, bytes)| Extent { at, bytes: bytes[..].into() });
    let size = Bytes::gib(20);
    file(&path, size, &extents);
    let data = vec![0..4096, 15 << 30..(15 << 30) + 4096, (20 << 30) - 4096..20 << 30];
    for (way, format) in WAYS {
        let mut disk = Raw::new(File::open(&path).unwrap(), Some(data.clone())).unwrap();
        let start = std::time::Instant::now();
        write(way, &mut disk, &dir.path().join("image"), 2);
        let took = start.elapsed();
        assert!(took.as_millis() < 2000, "{way} took {took:?}");
        // Comparing 20 GiB takes `qemu-img` a long time; that it and we agree is shown elsewhere.
        qemu_img(dir.path(), &["check", "-q", "-f", format, "image"]);
        assert!(same(&mut image(&dir.path().join("image")), &mut disk), "{way}");
    }
}

#[test]
fn an_empty_disk_is_an_image_too() {
    let dir = tempfile::tempdir().unwrap();
    for (way, format) in WAYS {
        let nothing = Raw::new(std::io::Cursor::new(Vec::new()), None).unwrap();
        let mut disk = Grown::new(nothing, Bytes::gib(64)).unwrap();
        write(way, &mut disk, &dir.path().join("image"), 2);
        let check = qemu_img(dir.path(), &["check", "-f", format, "image"]);
        assert!(check.contains("No errors were found"), "{way}: {check}");
        let length = std::fs::metadata(dir.path().join("image")).unwrap().len();
        assert!(length < 40 << 20, "{way}: {length}");
    }
}

#[test]
fn tar_unpacks_the_disk_for_google_holes_and_all() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let path = dir.join("raw");
    // More stretches than the headers before them have room for, and numbers of more than 33 bits.
    let mut extents: Vec<_> = (0..30)
        .map(|n| Extent { at: n * (200 << 10), bytes: format!("stretch {n}").into_bytes().into() })
        .collect();
    extents.push(Extent { at: 9 << 30, bytes: noise(100_000).into() });
    let size = Bytes::gib(10);
    file(&path, size, &extents);
    let data = vec![0..8 << 20, 9 << 30..(9 << 30) + (1 << 20)];
    let [one, two] = [1, 3].map(|threads| {
        let mut out = Vec::new();
        let mut disk = Raw::new(File::open(&path).unwrap(), Some(data.clone())).unwrap();
        let threads = NonZero::new(threads).unwrap();
        gcp::write(&mut disk, &mut out, 1_700_000_000, threads).unwrap();
        out
    });
    assert!(one == two);
    file(&dir.join("tgz"), Bytes(0), &[Extent { at: 0, bytes: one.into() }]);
    let listed = tool("tar", "tar", dir, &["--utc", "--full-time", "-tvzf", "tgz"]);
    assert_eq!(
        listed.trim(),
        "-rw-r--r-- root/root 10737418240 2023-11-14 22:13:20 disk.raw",
        "{listed}"
    );
    tool("tar", "tar", dir, &["-xzSf", "tgz", "disk.raw"]);
    let said = qemu_img(dir, &["compare", "-f", "raw", "-F", "raw", "raw", "disk.raw"]);
    assert!(said.contains("Images are identical"), "{said}");
}

#[test]
fn an_edited_qcow2_is_without_fault_and_holds_what_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let size = sample(&dir.join("raw"));
    let edits = [
        Extent { at: 1_000_000, bytes: noise(300_000).into() }, // packed and absent clusters
        Extent { at: 4_000_000, bytes: noise(70_000).into() },  // plain ones
        Extent { at: 5_999_999, bytes: b"x"[..].into() },
        Extent { at: size.0 - 1, bytes: b"!"[..].into() },
    ];
    for way in ["qcow2", "qcow2 zlib", "qcow2 zstd"] {
        write(way, &mut raw(&dir.join("raw"), Bytes::gib(2)), &dir.join("image"), 2);
        let image = File::options().read(true).write(true).open(dir.join("image")).unwrap();
        let mut editor = Editor::open(image).unwrap();
        for _ in 0..2 {
            for edit in &edits {
                editor.write_at(edit.at, &edit.bytes).unwrap();
            }
        }
        // A second table, whose first cluster the image has not seen yet; and zeroes, which it has.
        editor.write_at(1 << 30, b"far away").unwrap();
        editor.write_at(700 << 20, &[0; 4096]).unwrap();
        assert!(editor.write_at(2 << 30, b"outside").is_err());
        editor.finish().unwrap();
        let check = qemu_img(dir, &["check", "-f", "qcow2", "image"]);
        assert!(check.contains("No errors were found"), "{way}: {check}");
        assert!(!check.contains("leaked"), "{way}: {check}");

        std::fs::copy(dir.join("raw"), dir.join("edited")).unwrap();
        file(&dir.join("edited"), Bytes::gib(2), &edits);
        let far = Extent { at: 1 << 30, bytes: b"far away"[..].into() };
        file(&dir.join("edited"), Bytes::gib(2), &[far]);
        let compare = ["compare", "-f", "raw", "-F", "qcow2", "edited", "image"];
        let said = qemu_img(dir, &compare);
        assert!(said.contains("Images are identical"), "{way}: {said}");
    }
}
