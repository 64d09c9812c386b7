//! The head of a Debian archive: `Release`, its signature, and the indexes that it vouches for.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use host::process::Tool;
use model::{Bytes, Digest};

use super::fetch::{Client, FetchError};
use super::index::Index;
use super::recipe::Arch;

/// Where packages come from: free ones, and the firmware that Debian may pass on.
pub(super) const COMPONENTS: [&str; 2] = ["main", "non-free-firmware"];

/// Trixie's `Release` has 140 KB.
const RELEASE_MAX: Bytes = Bytes::mib(8);
/// Trixie's largest `Packages` has 55 MB.
const PACKAGES_MAX: Bytes = Bytes::mib(512);

/// What makes an archive's head trustworthy.
#[derive(Debug, Clone)]
pub enum Trust {
    /// A signature by one of the keys in this file.
    Keyring(PathBuf),
    /// Nothing: for archives made in tests.
    Unsigned,
}

/// Why an archive's index cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// A file could not be had.
    #[error("cannot read the index of Debian {suite}")]
    Fetch {
        /// Which release.
        suite: String,
        /// Why.
        #[source]
        source: FetchError,
    },
    /// Neither gpgv nor sqv is installed.
    #[error("cannot check the signature of {url}: neither gpgv nor sqv is installed")]
    NoTool {
        /// What.
        url: String,
    },
    /// Nobody we trust has signed it.
    #[error("{url} is not signed by a key in {keyring}: {said}")]
    Unsigned {
        /// What.
        url: String,
        /// Our keys.
        keyring: PathBuf,
        /// What the tool said.
        said: String,
    },
    /// The files for the check could not be kept.
    #[error("cannot keep files for the signature check")]
    Keep(#[from] store::SaveError),
    /// It names no index for what we need, or one that does not unpack.
    #[error("{url}: {what}")]
    Odd {
        /// What.
        url: String,
        /// Why.
        what: String,
    },
}

/// The digests that a `Release` file vouches for, by path.
fn digests(release: &str) -> BTreeMap<&str, (Digest, Bytes)> {
    let lines = release.lines().skip_while(|l| *l != "SHA256:").skip(1);
    let lines = lines.take_while(|l| l.starts_with(' '));
    let entries = lines.filter_map(|line| {
        let mut words = line.split_whitespace();
        let digest = Digest::from_hex(words.next()?).ok()?;
        let size = Bytes(words.next()?.parse().ok()?);
        Some((words.next()?, (digest, size)))
    });
    entries.collect()
}

/// The packages of `suite` for `arch` as the mirror has them now, believed because of `trust`.
/// Indexes are kept by digest in `cache`.
pub(super) fn index(
    client: &Client,
    mirror: &str,
    (suite, arch): (&str, Arch),
    trust: &Trust,
    cache: &Path,
) -> Result<Index, ReleaseError> {
    let paths = COMPONENTS.map(|c| format!("{c}/binary-{arch}/Packages.xz"));
    let mut index = Index::default();
    for text in texts(client, mirror, suite, &paths, trust, cache)? {
        index.add(&text);
    }
    Ok(index)
}

/// Files that the archive's head vouches for, by their paths below the suite, unpacked from xz.
pub(super) fn texts(
    client: &Client,
    mirror: &str,
    suite: &str,
    paths: &[String],
    trust: &Trust,
    cache: &Path,
) -> Result<Vec<String>, ReleaseError> {
    let fetch = |source| ReleaseError::Fetch { suite: suite.to_owned(), source };
    let base = format!("{mirror}/dists/{suite}");
    let url = format!("{base}/Release");
    let release = client.get(&url, RELEASE_MAX).map_err(fetch)?;
    if let Trust::Keyring(keyring) = trust {
        let signature = client.get(&format!("{url}.gpg"), RELEASE_MAX).map_err(fetch)?;
        check_signature(&url, &release, &signature, keyring, cache)?;
    }
    let text = String::from_utf8_lossy(&release);
    let digests = digests(&text);
    let mut texts = Vec::new();
    for path in paths {
        let odd = |what: String| ReleaseError::Odd { url: url.clone(), what };
        let want = *digests
            .get(path.as_str())
            .ok_or_else(|| odd(format!("it names no {path} with a SHA-256 digest")))?;
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let by_hash = format!("{base}/{folder}/by-hash/SHA256/{}", want.0.hex());
        // By digest first: that file stays when the mirror is updated between two requests.
        let kept = match client.keep(&by_hash, want, cache, &mut |_| {}) {
            Err(FetchError::Missing { .. }) => {
                client.keep(&format!("{base}/{path}"), want, cache, &mut |_| {})
            }
            other => other,
        };
        let kept = kept.map_err(fetch)?;
        let mut text = String::new();
        let file = std::fs::File::open(&kept)
            .map_err(|source| fetch(FetchError::Write { path: kept.clone(), source }))?;
        let limit = PACKAGES_MAX.0 + 1;
        liblzma::read::XzDecoder::new(file)
            .take(limit)
            .read_to_string(&mut text)
            .map_err(|e| odd(format!("{path} does not unpack: {e}")))?;
        if text.len() as u64 == limit {
            return Err(odd(format!("{path} unpacks to more than {PACKAGES_MAX}")));
        }
        texts.push(text);
    }
    Ok(texts)
}

fn check_signature(
    url: &str,
    release: &[u8],
    signature: &[u8],
    keyring: &Path,
    cache: &Path,
) -> Result<(), ReleaseError> {
    let id = std::process::id();
    let (body, detached) = (format!("Release.{id}"), format!("Release.{id}.gpg"));
    store::save(cache, &body, release)?;
    store::save(cache, &detached, signature)?;
    let files = [cache.join(&detached), cache.join(&body)];
    let outcome = gpgv(keyring, &files).or_else(|| sqv(keyring, &files));
    store::remove(cache, &body)?;
    store::remove(cache, &detached)?;
    match outcome {
        None => Err(ReleaseError::NoTool { url: url.to_owned() }),
        Some(Ok(())) => Ok(()),
        Some(Err(said)) => {
            let keyring = keyring.to_owned();
            Err(ReleaseError::Unsigned { url: url.to_owned(), keyring, said })
        }
    }
}

/// `None` if gpgv is not installed.
fn gpgv(keyring: &Path, files: &[PathBuf; 2]) -> Option<Result<(), String>> {
    let mut command = Tool::Gpgv.command();
    command.args(["--status-fd", "1", "--keyring"]).arg(keyring).args(files).env("LC_ALL", "C");
    let out = command.output().ok()?;
    let status = String::from_utf8_lossy(&out.stdout).into_owned();
    let says = |word: &str| status.lines().any(|l| l.starts_with(&format!("[GNUPG:] {word} ")));
    // Not the exit code: a further signature by a key we do not know is no fault.
    if says("VALIDSIG") && !says("BADSIG") {
        return Some(Ok(()));
    }
    Some(Err(last_line(&out.stderr)))
}

/// `None` if sqv is not installed.
fn sqv(keyring: &Path, files: &[PathBuf; 2]) -> Option<Result<(), String>> {
    let mut command = Tool::Sqv.command();
    let out = command.arg("--keyring").arg(keyring).args(files).output().ok()?;
    Some(if out.status.success() { Ok(()) } else { Err(last_line(&out.stderr)) })
}

fn last_line(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    text.lines().rfind(|l| !l.trim().is_empty()).unwrap_or("no signature").trim().to_owned()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use sha2::Digest as _;
    use std::collections::BTreeSet;
    use std::fs;

    /// An archive in `root` whose index for amd64 is `packages`.
    pub(crate) fn archive(root: &Path, packages: &str) {
        let mut release = "Origin: Test\nMD5Sum:\n 00 1 x\nSHA256:\n".to_owned();
        for (component, text) in COMPONENTS.into_iter().zip([packages, ""]) {
            let mut xz = Vec::new();
            liblzma::read::XzEncoder::new(text.as_bytes(), 1).read_to_end(&mut xz).unwrap();
            let hex = Digest(sha2::Sha256::digest(&xz).into()).hex();
            let dir = format!("{component}/binary-amd64");
            let folder = root.join("dists/trixie").join(&dir);
            fs::create_dir_all(&folder).unwrap();
            store::save(&folder, "Packages.xz", &xz).unwrap();
            release += &format!(" {hex} {} {dir}/Packages.xz\n", xz.len());
        }
        store::save(&root.join("dists/trixie"), "Release", release.as_bytes()).unwrap();
    }

    fn read(root: &Path, trust: &Trust) -> Result<Index, ReleaseError> {
        let url = format!("file:{}", root.display());
        let cache = tempfile::tempdir().unwrap();
        index(&Client::of_host(), &url, ("trixie", Arch::Amd64), trust, cache.path())
    }

    #[test]
    fn the_index_is_what_the_release_vouches_for() {
        let root = tempfile::tempdir().unwrap();
        archive(root.path(), &super::super::index::tests::stanza("crun", ""));
        let wish = BTreeSet::from(["crun".to_owned()]);
        let none = BTreeSet::new();
        let index = read(root.path(), &Trust::Unsigned).unwrap();
        let found = index.closure(&wish, &none, &none, ("trixie", "amd64")).unwrap();
        assert_eq!(found[0].filename, "pool/crun.deb");
        let folder = root.path().join("dists/trixie/main/binary-amd64");
        store::save(&folder, "Packages.xz", b"other").unwrap();
        assert!(matches!(
            read(root.path(), &Trust::Unsigned),
            Err(ReleaseError::Fetch {
                source: FetchError::TooLong { .. } | FetchError::Wrong { .. },
                ..
            })
        ));
    }

    #[test]
    fn a_signature_by_a_strange_key_or_none_is_refused() {
        let root = tempfile::tempdir().unwrap();
        archive(root.path(), "");
        let trust = Trust::Keyring(repository().join("pkg/debian-archive.gpg"));
        // No signature at all.
        assert!(matches!(read(root.path(), &trust), Err(ReleaseError::Fetch { .. })));
        // Something that is none.
        store::save(&root.path().join("dists/trixie"), "Release.gpg", b"nonsense").unwrap();
        assert!(matches!(read(root.path(), &trust), Err(ReleaseError::Unsigned { .. })));
    }

    fn repository() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
    }
}
