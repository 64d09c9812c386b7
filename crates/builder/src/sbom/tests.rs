//! Whole bills, judged by those who define the formats.

use std::path::{Path, PathBuf};

use store::tarball::{Header, Kind as MemberKind, Time, Writer};

use super::*;
use crate::audit::{Crate, Crates};
use crate::contents::Contents;
use crate::pkg::FROM;

const BASE: &str = "docker.io/eve/base:0123";
const EVED: &str = "docker.io/eve/eved:4567";

fn crates() -> Crates {
    let one = |name: &str, source: &str, kind, dependencies: &[usize], root| Crate {
        name: name.to_owned(),
        version: "1.0.0".to_owned(),
        source: source.to_owned(),
        kind,
        dependencies: dependencies.to_vec(),
        root,
        license: Some("MIT/Apache-2.0".to_owned()),
        checksum: (source != "local").then_some(Digest([7; 32])),
    };
    use crate::audit::Kind::{Build, Runtime};
    Crates {
        packages: vec![
            one("cc", "crates.io", Build, &[], false),
            one("eved", "local", Runtime, &[0, 2], true),
            one("serde", "crates.io", Runtime, &[], false),
        ],
        format: 1,
    }
}

/// A root file system of two package images and a file of the build.
fn archive() -> Vec<u8> {
    let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let program = crates().put_into(&program).unwrap();
    let status = "Package: libx1\nSource: x (1.0)\nVersion: 1.0+b1\nArchitecture: amd64\n\
        Status: install ok installed\nMaintainer: X (team) <x@example.org>\nHomepage: https://x.org\n\
        Description: does x\nDistribution: trixie\n\
        SHA256: abababababababababababababababababababababababababababababababab\n";
    let copyright = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n\
        Files: *\nLicense: GPL-2+ or Own\n\nLicense: Own\n Be kind.\n";
    let deb = "libx1_1.0+b1_amd64.deb";
    let members: [(&str, &str, &str, &str, &[u8]); 6] = [
        ("usr/lib/libx.so.1", "init[0]", BASE, deb, b"\x7fELF"),
        ("var/lib/dpkg/status.d/libx1", "init[0]", BASE, deb, status.as_bytes()),
        ("usr/share/doc/libx1/copyright", "init[0]", BASE, deb, copyright.as_bytes()),
        ("etc/passwd", "init[0]", BASE, "pkg/base/passwd", b"root"),
        ("usr/bin/eved", "init[1]", EVED, "cargo eved", &program),
        ("etc/eve-release", "files[0]", "linuxkit.files", "", b"1.2.3\n"),
    ];
    let mut tar = Writer::new(Vec::new());
    for (path, location, source, from, body) in members {
        let mut header = Header::new(path, MemberKind::File, 0o755, Time::seconds(1_767_225_600));
        let records = [("LINUXKIT.location", location), ("LINUXKIT.source", source), (FROM, from)];
        for (key, value) in records.into_iter().filter(|(_, v)| !v.is_empty()) {
            header.records.insert(key.into(), value.into());
        }
        tar.member(&header, body).unwrap();
    }
    tar.finish().unwrap()
}

fn bill() -> Bill {
    let mut scan = Scan::new();
    Contents::of_tar(&archive()[..], |member, origin, header, body| {
        scan.see(member, origin, header.mtime.seconds, body)
    })
    .unwrap();
    scan.finish(About::default())
}

#[test]
fn a_bill_says_what_is_in_an_image_and_who_brought_it() {
    let bill = bill();
    assert_eq!((bill.version.as_str(), bill.created), ("1.2.3", 1_767_225_600));
    let parts: Vec<String> =
        bill.parts.iter().map(|(id, p)| format!("{} {}", id.0, p.purl)).collect();
    let want = [
        "crate-cc-1.0.0 pkg:cargo/cc@1.0.0",
        "crate-eved-1.0.0 ",
        "crate-serde-1.0.0 pkg:cargo/serde@1.0.0",
        "file-etc-eve-release ",
        "file-etc-passwd ",
        "file-usr-bin-eved ",
        "image-docker.io-eve-base-0123 ",
        "image-docker.io-eve-eved-4567 ",
        "package-libx1-1.0-b1 pkg:deb/debian/libx1@1.0%2Bb1?arch=amd64&distro=trixie&upstream=x%401.0",
        "source-x-1.0 pkg:deb/debian/x@1.0?arch=source&distro=trixie",
    ];
    assert_eq!(parts, want);
    let relations: Vec<String> =
        bill.relations.iter().map(|(a, how, b)| format!("{} {how:?} {}", a.0, b.0)).collect();
    for relation in [
        " Contains image-docker.io-eve-base-0123",
        " Contains file-etc-eve-release",
        "image-docker.io-eve-base-0123 Contains package-libx1-1.0-b1",
        "image-docker.io-eve-base-0123 Contains file-etc-passwd",
        "image-docker.io-eve-eved-4567 Contains crate-eved-1.0.0",
        "package-libx1-1.0-b1 MadeFrom source-x-1.0",
        "file-usr-bin-eved MadeFrom crate-eved-1.0.0",
        "crate-eved-1.0.0 DependsOn crate-serde-1.0.0",
        "crate-eved-1.0.0 BuiltWith crate-cc-1.0.0",
    ] {
        assert!(relations.iter().any(|r| r == relation), "{relation} is not in {relations:#?}");
    }
    let licence = bill.parts[&Id("package-libx1-1.0-b1".to_owned())].licence.clone().unwrap();
    assert_eq!(licence.expression, "GPL-2.0-or-later OR LicenseRef-Debian-Own");
    assert_eq!(bill.warnings, Vec::<String>::new());
}

#[test]
fn the_same_image_makes_the_same_document() {
    for (name, format) in Format::ALL {
        assert_eq!(bill().to_bytes(format), bill().to_bytes(format), "{name}");
    }
}

#[test]
fn an_image_that_says_nothing_of_itself_is_told() {
    let mut tar = Writer::new(Vec::new());
    let mut header = Header::new("bin/x", MemberKind::File, 0o755, Time::seconds(1));
    header.records.insert("LINUXKIT.source".into(), "docker.io/other/x:1".into());
    tar.member(&header, b"x").unwrap();
    let mut scan = Scan::new();
    Contents::of_tar(&tar.finish().unwrap()[..], |m, o, _, body| scan.see(m, o, 0, body)).unwrap();
    let warnings = scan.finish(About::default()).warnings;
    assert_eq!(warnings, ["docker.io/other/x:1 does not say what is in it"]);
}

/// A Python that knows the formats: that of `EVE_JUDGES`, or the one that `cargo xtask setup
/// --for-tests` makes. Without it the judgement is left out, and that is said.
fn judge(script: &str, document: &[u8]) {
    let named = std::env::var_os("EVE_JUDGES").map(PathBuf::from);
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/judges");
    let python = named.clone().unwrap_or(ours).join("bin/python");
    if named.is_none() && !python.exists() {
        println!("not judged: there is no {}; `cargo xtask setup --for-tests`", python.display());
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    store::save(dir.path(), "bill.json", document).unwrap();
    #[expect(clippy::disallowed_methods, reason = "it judges our bytes; no product runs it")]
    let out = std::process::Command::new(&python)
        .args(["-c", script, "bill.json"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    let said = [out.stdout, out.stderr].concat();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn spdx_is_what_its_authors_call_valid() {
    let script = "import sys\n\
        from spdx_tools.spdx.parser.parse_anything import parse_file\n\
        from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document\n\
        found = validate_full_spdx_document(parse_file(sys.argv[1]))\n\
        for m in found: print(m.validation_message, m.context.spdx_id)\n\
        sys.exit(len(found) > 0)\n";
    judge(script, &bill().to_bytes(Format::Spdx));
}

#[test]
fn cyclonedx_is_what_its_schema_calls_valid() {
    let script = "import sys\n\
        from cyclonedx.schema import SchemaVersion\n\
        from cyclonedx.validation.json import JsonStrictValidator\n\
        found = JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(sys.argv[1]).read())\n\
        if found: print(found)\n\
        sys.exit(found is not None)\n";
    judge(script, &bill().to_bytes(Format::CycloneDx));
}
