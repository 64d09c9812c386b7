//! The archive of sources: the manifest first, then each source under its path.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use model::{Bytes, Digest};
use sha2::{Digest as _, Sha256};
use store::tarball::{Header, Kind, Time, Writer};

use super::{Manifest, Row, SourcesError};
use crate::pkg::{self, Options, Progress, SourceFile};

/// The manifest's name in the archive: the reference's.
const MANIFEST: &str = "collected_sources_manifest.csv";
/// crates.io takes crates of 10 MiB.
const CRATE_MAX: Bytes = Bytes::mib(256);

/// What was collected.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Collected {
    /// The sources, with what says exactly which they are.
    #[serde(skip)]
    pub manifest: Manifest,
    /// How many files.
    pub files: usize,
    /// Bytes of all.
    pub size: Bytes,
    /// What could not be had: type, name and version.
    pub missing: Vec<String>,
}

/// A file on its way into the archive.
struct Part {
    path: String,
    from: PathBuf,
    size: u64,
}

/// Writes an archive of the sources in `manifest`, with `time` (seconds since 1970) on every file,
/// behind gzip if `packed`. With [`Options::locked`] a source that cannot be had is an error, else it
/// is left out and named.
pub fn collect(
    manifest: &Manifest,
    (time, packed): (u64, bool),
    options: &Options,
    progress: &dyn Progress,
    out: &mut dyn Write,
) -> Result<Collected, SourcesError> {
    let mut missing = Vec::new();
    let mut rows = BTreeSet::new();
    let mut parts = Vec::new();
    let mut fetch: Vec<(Row, SourceFile)> = Vec::new();
    let known = debian(manifest, options, progress)?;
    let crates = crates();
    for row in &manifest.rows {
        let files = known.get(&(row.name.clone(), row.version.clone()));
        match (row.kind.as_str(), files) {
            ("debian" | "kernel", Some(files)) if !files.is_empty() => {
                let dsc = files.iter().find(|f| f.path.ends_with(".dsc"));
                let commit = dsc.map(|f| f.sha256.hex()).unwrap_or_default();
                let row = Row { commit, ..row.clone() };
                fetch.extend(files.iter().map(|f| (row.clone(), f.clone())));
                rows.insert(row);
            }
            ("rust", _) => match crate_file(&crates, row) {
                Some(part) => {
                    parts.push(part);
                    rows.insert(row.clone());
                }
                None => missing.push(row.display()),
            },
            _ => missing.push(row.display()),
        }
    }
    let refuse = |missing: &[String]| match options.locked && !missing.is_empty() {
        true => Err(SourcesError::Missing { names: missing.to_vec() }),
        false => Ok(()),
    };
    refuse(&missing)?; // before gigabytes come
    let files: Vec<SourceFile> = fetch.iter().map(|(_, f)| f.clone()).collect();
    let kept = match files.is_empty() {
        true => Vec::new(),
        false => pkg::fetch_sources(&files, options, progress)?,
    };
    let (had, half) = whole(&fetch, kept);
    parts.extend(had);
    missing.extend(half.iter().map(|row| row.display()));
    missing.sort();
    refuse(&missing)?;
    rows.retain(|row| !half.contains(row));
    parts.sort_by(|a, b| a.path.cmp(&b.path));
    parts.dedup_by(|a, b| a.path == b.path);
    let manifest = Manifest { rows };
    progress.step("writing the archive of sources");
    if packed {
        // Most of it is packed already.
        let mut out = GzEncoder::new(out, Compression::fast());
        write(&manifest, &parts, time, &mut out)?;
        let path = PathBuf::from(MANIFEST);
        let ended = out.finish().map(drop);
        ended.map_err(|source| SourcesError::File {
            doing: "end the archive with",
            path,
            source,
        })?;
    } else {
        write(&manifest, &parts, time, out)?;
    }
    let size = Bytes(parts.iter().map(|p| p.size).sum());
    Ok(Collected { manifest, files: parts.len(), size, missing })
}

/// The files of packages that are all there, and the packages that are not: without one of its files
/// a source package is none.
fn whole(fetch: &[(Row, SourceFile)], kept: Vec<Option<PathBuf>>) -> (Vec<Part>, BTreeSet<&Row>) {
    let files = || fetch.iter().zip(&kept);
    let half: BTreeSet<&Row> =
        files().filter(|(_, kept)| kept.is_none()).map(|((row, _), _)| row).collect();
    let mut parts = Vec::new();
    for ((row, file), from) in fetch.iter().zip(kept) {
        let Some(from) = from.filter(|_| !half.contains(row)) else { continue };
        let name = file.path.rsplit('/').next().unwrap_or(&file.path);
        parts.push(Part { path: format!("{}/{name}", row.path), from, size: file.size.0 });
    }
    (parts, half)
}

type Known = BTreeMap<(String, String), Vec<SourceFile>>;

/// The files of all source packages of Debian in a manifest. Nothing is asked if there are none.
fn debian(
    manifest: &Manifest,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Known, SourcesError> {
    let debian = |row: &&Row| matches!(row.kind.as_str(), "debian" | "kernel");
    let wanted: BTreeSet<(String, String)> =
        manifest.rows.iter().filter(debian).map(|r| (r.name.clone(), r.version.clone())).collect();
    match wanted.is_empty() {
        true => Ok(Known::new()),
        false => Ok(pkg::source_files(&wanted, options, progress)?),
    }
}

fn write(
    manifest: &Manifest,
    parts: &[Part],
    time: u64,
    out: &mut dyn Write,
) -> Result<(), SourcesError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| SourcesError::File { doing: "put into the archive", path, source }
    };
    let time = Time::seconds(i64::try_from(time).unwrap_or(i64::MAX));
    let header = |path: &str| Header::new(path, Kind::File, 0o644, time);
    let mut tar = Writer::new(out);
    let about = Path::new(MANIFEST);
    tar.member(&header(MANIFEST), manifest.print().as_bytes()).map_err(failed(about))?;
    for part in parts {
        let mut put = || {
            tar.header(&Header { size: part.size, ..header(&part.path) })?;
            io::copy(&mut File::open(&part.from)?, &mut tar)
        };
        put().map_err(failed(&part.from))?;
    }
    tar.finish().map(drop).map_err(failed(about))
}

/// The folders in which cargo keeps what it downloaded.
fn crates() -> Vec<PathBuf> {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    let cache = home.unwrap_or_default().join("registry/cache");
    let folders = fs::read_dir(cache).into_iter().flatten().filter_map(Result::ok);
    let mut folders: Vec<PathBuf> = folders.map(|e| e.path()).collect();
    folders.sort();
    folders
}

/// A crate of cargo's cache, if it is there and has the checksum.
fn crate_file(folders: &[PathBuf], row: &Row) -> Option<Part> {
    let name = format!("{}-{}.crate", row.name, row.version);
    folders.iter().find_map(|folder| {
        let from = folder.join(&name);
        let bytes = store::read_bounded(&from, CRATE_MAX).ok()?;
        let right = Digest(Sha256::digest(&bytes).into()).hex() == row.commit;
        right.then(|| Part { path: row.path.clone(), from, size: bytes.len() as u64 })
    })
}

#[cfg(test)]
mod tests {
    use store::tarball::Reader;

    use super::*;

    #[test]
    fn a_source_package_without_one_of_its_files_is_left_out_whole() {
        let row = |name: &str| Row {
            kind: "debian".to_owned(),
            name: name.to_owned(),
            version: "1".to_owned(),
            commit: String::new(),
            path: format!("debian/{name}_1"),
        };
        let file = |name: &str| SourceFile {
            path: format!("pool/main/x/{name}"),
            sha256: Digest([0; 32]),
            size: Bytes(1),
        };
        let fetch = [
            (row("a"), file("a_1.dsc")),
            (row("b"), file("b_1.dsc")),
            (row("b"), file("b_1.orig.tar.xz")),
            (row("a"), file("a_1.tar.xz")),
        ];
        let have = |name: &str| Some(PathBuf::from(name));
        let (parts, half) = whole(&fetch, vec![have("1"), have("2"), None, have("3")]);
        let paths: Vec<&str> = parts.iter().map(|p| p.path.as_str()).collect();
        assert_eq!(paths, ["debian/a_1/a_1.dsc", "debian/a_1/a_1.tar.xz"]);
        assert_eq!(half, BTreeSet::from([&row("b")]));
    }

    #[test]
    fn the_archive_is_the_same_for_the_same_sources() {
        let dir = tempfile::tempdir().unwrap();
        store::save(dir.path(), "a-1.crate", b"source").unwrap();
        let sum = Digest(Sha256::digest(b"source").into()).hex();
        let row = |commit: &str| Row {
            kind: "rust".to_owned(),
            name: "a".to_owned(),
            version: "1".to_owned(),
            commit: commit.to_owned(),
            path: "rust/a-1.crate".to_owned(),
        };
        let folders = [dir.path().to_owned()];
        assert!(crate_file(&folders, &row("00")).is_none(), "another checksum is another crate");
        let pack = || {
            let part = crate_file(&folders, &row(&sum)).unwrap();
            let manifest = Manifest { rows: BTreeSet::from([row(&sum)]) };
            let mut out = Vec::new();
            write(&manifest, &[part], 7, &mut out).unwrap();
            out
        };
        let archive = pack();
        assert_eq!(pack(), archive);
        let mut reader = Reader::new(&archive[..]);
        let mut paths = Vec::new();
        while let Some(header) = reader.next().unwrap() {
            assert_eq!(header.mtime, Time::seconds(7));
            paths.push(header.display());
        }
        assert_eq!(paths, [MANIFEST, "rust/a-1.crate"]);
    }
}
