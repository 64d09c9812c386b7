//! Archives of the reference composer, byte for byte.
//!
//! They are in a folder of golden vectors beside the checkout, or `$EVE_COMPOSE_VECTORS`. Every
//! `NAME.yml` with a `NAME.tar` is a case; images are all `images/*.oci.tar`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use builder::compose::{Description, Options, compose};
use store::tarball::{Header, Reader};
use store::{Layout, import_tar};

/// `None`, and says so, if nobody names a folder and the usual one is not there: who has only the
/// repository has none.
fn folder() -> Option<PathBuf> {
    const DEFAULT: &str = "../shared/vectors/linuxkit";
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let named = std::env::var_os("EVE_COMPOSE_VECTORS");
    let folder = root.join(named.as_ref().map_or_else(|| DEFAULT.into(), PathBuf::from));
    if folder.is_dir() {
        return Some(folder);
    }
    let missing = folder.display();
    assert!(named.is_none(), "$EVE_COMPOSE_VECTORS names {missing}, where is no folder");
    println!(
        "skipped: there is no {DEFAULT} beside the checkout, and $EVE_COMPOSE_VECTORS is not set"
    );
    None
}

fn sorted(dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut paths: Vec<_> = entries.map(|e| e.unwrap().path()).collect();
    paths.retain(|p| p.to_string_lossy().ends_with(suffix));
    paths.sort();
    paths
}

fn images(dir: &Path) -> (tempfile::TempDir, Layout) {
    let temp = tempfile::tempdir().unwrap();
    let layout = Layout::create(temp.path()).unwrap();
    for path in sorted(&dir.join("images"), ".oci.tar") {
        import_tar(&layout, File::open(&path).unwrap(), &path).unwrap();
    }
    (temp, layout)
}

/// One line a member, so that a difference can be read.
fn listing(archive: &[u8]) -> Vec<String> {
    let mut reader = Reader::new(archive);
    let mut lines = Vec::new();
    while let Some(header) = reader.next().unwrap() {
        let mut body = Vec::new();
        std::io::Read::read_to_end(&mut reader, &mut body).unwrap();
        let Header { kind, mode, uid, gid, size, mtime, .. } = &header;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let records: Vec<_> =
            header.records.iter().map(|(k, v)| format!("{}={}", text(k), text(v))).collect();
        let shown = if body.len() < 20_000 { text(&body) } else { String::new() };
        lines.push(format!(
            "{} {kind:?} {mode:o} {uid}:{gid} {size} {} {} {records:?} {shown}",
            header.display(),
            mtime.seconds,
            text(&header.link),
        ));
    }
    lines
}

#[test]
fn archives_equal_the_reference_byte_for_byte() {
    let Some(dir) = folder() else { return };
    let (_temp, layout) = images(&dir);
    let mut cases = 0;
    for yml in sorted(&dir, ".yml") {
        let Ok(want) = fs::read(yml.with_extension("tar")) else { continue };
        let name = yml.display().to_string();
        let text = fs::read_to_string(&yml).unwrap();
        let none = |path: &str| Err(format!("{path} is no package of a vector"));
        let description = Description::parse(&[(&name, &text)], &none).unwrap();
        let options = Options { arch: "amd64".to_owned(), ..Options::default() };
        let mut got = Vec::new();
        let facts = compose(&description, &layout, &options, &mut got).unwrap();
        assert_eq!(facts.size.0, got.len() as u64);
        if got != want {
            let (got_lines, want_lines) = (listing(&got), listing(&want));
            for (n, (got, want)) in got_lines.iter().zip(&want_lines).enumerate() {
                assert_eq!(got, want, "{name}, member {n}");
            }
            assert_eq!(got_lines.len(), want_lines.len(), "{name}: number of members");
            let at = got.iter().zip(&want).position(|(a, b)| a != b);
            panic!("{name}: headers differ at byte {at:?}");
        }
        cases += 1;
    }
    assert!(cases > 0, "no case in {}", dir.display());
}
