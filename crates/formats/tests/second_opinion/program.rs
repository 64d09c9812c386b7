//! Archives and executables.

use formats::cpio::{self, Entry, Kind};
use formats::uki::{Pe, PeError};

use crate::tools::tool;

#[test]
fn cpio_lists_and_unpacks_an_initrd() {
    let dir = tempfile::tempdir().unwrap();
    let entries = [
        Entry { path: "bin", mode: 0o755, kind: Kind::Folder },
        Entry { path: "bin/init", mode: 0o700, kind: Kind::File(b"#!/bin/true") },
        Entry { path: "init", mode: 0o777, kind: Kind::Link("bin/init") },
        Entry { path: "odd", mode: 0o644, kind: Kind::File(b"12345") },
    ];
    let mut bytes = Vec::new();
    cpio::write(&mut bytes, &entries, 1_700_000_000).unwrap();
    let mut archive = tempfile::NamedTempFile::new_in(dir.path()).unwrap();
    std::io::Write::write_all(&mut archive, &bytes).unwrap();
    let name = archive.path().to_str().unwrap();
    let said = tool("cpio", "cpio", dir.path(), &["-tvF", name, "--numeric-uid-gid", "--quiet"]);
    // The columns of date and time depend on the machine's zone.
    let rows: Vec<String> = said
        .lines()
        .map(|l| {
            let words: Vec<_> = l.split_whitespace().collect();
            [&words[..1], &words[2..5], &words[8..]].concat().join(" ")
        })
        .collect();
    expect_test::expect![[r#"
        drwxr-xr-x 0 0 0 bin
        -rwx------ 0 0 11 bin/init
        lrwxrwxrwx 0 0 8 init -> bin/init
        -rw-r--r-- 0 0 5 odd"#]]
    .assert_eq(&rows.join("\n"));
    tool("cpio", "cpio", dir.path(), &["-iF", name, "--quiet"]);
    assert_eq!(std::fs::read(dir.path().join("bin/init")).unwrap(), b"#!/bin/true");
    assert_eq!(std::fs::read(dir.path().join("odd")).unwrap(), b"12345");
}

/// The smallest executable that has what a stub has: headers with room, and one section of code.
fn stub() -> Vec<u8> {
    let mut pe = vec![0; 1024];
    let mut put = |at: usize, bytes: &[u8]| pe[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"MZ");
    put(0x3C, &0x40u32.to_le_bytes());
    put(0x40, b"PE\0\0");
    put(0x44, &0x8664u16.to_le_bytes());
    put(0x46, &1u16.to_le_bytes());
    put(0x54, &240u16.to_le_bytes());
    put(0x56, &0x0206u16.to_le_bytes());
    put(0x58, &0x020Bu16.to_le_bytes());
    put(0x68, &0x1000u32.to_le_bytes()); // entry point
    put(0x78, &4096u32.to_le_bytes()); // section alignment
    put(0x7C, &512u32.to_le_bytes()); // file alignment
    put(0x90, &0x2000u32.to_le_bytes()); // image
    put(0x94, &512u32.to_le_bytes()); // headers
    put(0x9C, &10u16.to_le_bytes()); // EFI application
    put(0xC4, &16u32.to_le_bytes()); // directories
    put(0x148, b".text");
    put(0x150, &16u32.to_le_bytes());
    put(0x154, &0x1000u32.to_le_bytes());
    put(0x158, &512u32.to_le_bytes());
    put(0x15C, &512u32.to_le_bytes());
    put(0x16C, &0x6000_0020u32.to_le_bytes());
    pe
}

#[test]
fn objdump_sees_every_section_of_a_kernel_image() {
    let dir = tempfile::tempdir().unwrap();
    let kernel = b"kernel".repeat(2000);
    let new: [(&str, &[u8]); 3] =
        [(".osrel", b"ID=x"), (".cmdline", b"quiet"), (".linux", &kernel)];
    let uki = Pe::parse(&stub()).unwrap().with_sections(&new).unwrap();
    let parsed = Pe::parse(&uki).unwrap();
    for (name, body) in new {
        assert_eq!(parsed.section(name), Some(body), "{name}");
    }
    let mut file = tempfile::NamedTempFile::new_in(dir.path()).unwrap();
    std::io::Write::write_all(&mut file, &uki).unwrap();
    let said = tool("objdump", "binutils", dir.path(), &["-h", file.path().to_str().unwrap()]);
    let rows: Vec<String> = said
        .lines()
        .filter(|l| l.trim_start().starts_with(|c: char| c.is_ascii_digit()))
        .map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    expect_test::expect![[r#"
        0 .text 00000010 0000000000001000 0000000000001000 00000200 2**4
        1 .osrel 00000004 0000000000002000 0000000000002000 00000400 2**2
        2 .cmdline 00000005 0000000000003000 0000000000003000 00000600 2**2
        3 .linux 00002ee0 0000000000004000 0000000000004000 00000800 2**2"#]]
    .assert_eq(&rows.join("\n"));
}

#[test]
fn a_stub_without_room_or_with_the_section_already_is_refused() {
    let stub = stub();
    let pe = Pe::parse(&stub).unwrap();
    let two = [(".a", &b""[..]), (".a", &b""[..])];
    assert_eq!(pe.with_sections(&two), Err(PeError::Name(".a".into())));
    let names = [".a", ".b", ".c", ".d"];
    let four = names.map(|n| (n, &b""[..]));
    assert_eq!(pe.with_sections(&four), Err(PeError::Full { need: 4, have: 3 }));
}
