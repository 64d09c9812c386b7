//! The version of what is built: from the repository's tags, branch and state.
//!
//! As EVE's, but for one thing: what is not committed shows as the digest of its content and not as
//! the time of the build. The same state has the same version, however often and wherever it is
//! built; another state has another.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use host::process::{Tool, ToolError, finish};
use model::{Diagnose, Diagnosis, Digest, Who};
use sha2::{Digest as _, Sha256};

use crate::describe::kernel_suffix;

/// What git says of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// `git describe --always --tags`.
    pub describe: String,
    /// The branch; `HEAD` if there is none.
    pub branch: String,
    /// The commit, all of its digits.
    pub commit: String,
    /// `None`: everything is committed. Else the digest of the files that are not as committed:
    /// their names, kinds and contents.
    pub dirty: Option<Digest>,
}

/// What is built, as far as the version tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flavor<'a> {
    /// For developers.
    pub dev: bool,
    /// The image of another kernel than the platform's.
    pub kernel: Option<&'a str>,
    /// The platform.
    pub platform: &'a str,
}

/// Why the state of a repository is not known.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// git is missing, or this is none of its repositories.
    #[error(transparent)]
    Git(#[from] ToolError),
    /// A file that git says has changed.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Diagnose for StateError {
    fn diagnose(&self) -> Diagnosis {
        let advice =
            "say the version with --version (ROOTFS_VERSION), or build in a clone made by git";
        Diagnosis::of(Who::Operator, advice)
    }
}

/// The version: a release's tag, or `0.0.0-<branch>-<commit>`; if something is not committed
/// `-dirty-` and eight digits of its digest; `-dev` for developers. Then what every version has:
/// another kernel, and a platform other than `generic`.
pub fn version(state: &State, flavor: &Flavor) -> String {
    let mut version = match (is_release(&state.describe), &state.dirty) {
        (true, None) => state.describe.clone(),
        (_, dirty) => {
            let commit = state.commit.get(..8).unwrap_or(&state.commit);
            let branch = state.branch.replace('/', "_");
            let dirty = dirty.map(|d| format!("-dirty-{}", &d.hex()[..8])).unwrap_or_default();
            let dev = if flavor.dev { "-dev" } else { "" };
            format!("0.0.0-{branch}-{commit}{dirty}{dev}")
        }
    };
    if let Some(kernel) = flavor.kernel {
        version.push('-');
        version.push_str(&kernel_suffix(kernel));
    }
    if flavor.platform != "generic" {
        version.push('-');
        version.push_str(flavor.platform);
    }
    version
}

/// The version as a node tells it: with the hypervisor and the architecture.
pub fn full_version(version: &str, hv: &str, arch: &str) -> String {
    format!("{version}-{hv}-{arch}")
}

/// Asks git. Fails if it is missing or `repository` is none.
pub fn ask(repository: &Path) -> Result<State, StateError> {
    let git = |args: &[&str]| -> Result<Vec<u8>, ToolError> {
        let tool = Tool::Git;
        let out = tool.command().arg("-C").arg(repository).args(args).output();
        let out = out.map_err(|source| ToolError::Spawn { tool, source })?;
        finish(tool, args, out)
    };
    let line =
        |args: &[&str]| git(args).map(|said| String::from_utf8_lossy(&said).trim().to_owned());
    let changed = ["status", "--porcelain", "-z", "--no-renames", "--untracked-files=all"];
    let changed = git(&changed)?;
    // Two letters and a space, then the name as it is.
    let changed: BTreeSet<&[u8]> =
        changed.split(|b| *b == 0).filter_map(|entry| entry.get(3..)).collect();
    let top = line(&["rev-parse", "--show-toplevel"])?;
    let dirty = (!changed.is_empty()).then(|| digest(Path::new(&top), &changed)).transpose()?;
    Ok(State {
        describe: line(&["describe", "--always", "--tags"])?,
        branch: line(&["rev-parse", "--abbrev-ref", "HEAD"])?,
        commit: line(&["rev-parse", "HEAD"])?,
        dirty,
    })
}

/// The digest of files: their names, kinds and contents, in the order of their names.
fn digest(top: &Path, names: &BTreeSet<&[u8]>) -> Result<Digest, StateError> {
    let mut hash = Sha256::new();
    for name in names {
        let path = top.join(std::ffi::OsStr::from_bytes(name));
        let failed = |source| StateError::Read { path: path.clone(), source };
        let mut field = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        field(name);
        match fs::symlink_metadata(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => field(b"gone"),
            Err(e) => return Err(failed(e)),
            Ok(meta) if meta.is_symlink() => {
                field(b"link");
                field(&fs::read_link(&path).map_err(failed)?.into_os_string().into_vec());
            }
            Ok(meta) if meta.is_file() => {
                field(if meta.permissions().mode() & 0o111 != 0 { b"program" } else { b"file" });
                field(&digest_of_file(&path).map_err(failed)?);
            }
            // A repository within the repository: its name must do.
            Ok(_) => field(b"other"),
        }
    }
    Ok(Digest(hash.finalize().into()))
}

fn digest_of_file(path: &Path) -> io::Result<[u8; 32]> {
    let mut file = fs::File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash.finalize().into()),
            n => hash.update(&buffer[..n]),
        }
    }
}

/// `1.2.3`, `1.2.3-lts`, `1.2.3-rc4`.
fn is_release(tag: &str) -> bool {
    let (numbers, suffix) = tag.split_once('-').map_or((tag, None), |(n, s)| (n, Some(s)));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let parts: Vec<&str> = numbers.split('.').collect();
    let known = suffix.is_none_or(|s| s == "lts" || s.strip_prefix("rc").is_some_and(is_number));
    parts.len() == 3 && parts.into_iter().all(is_number) && known
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Flavor = Flavor { dev: false, kernel: None, platform: "generic" };

    #[track_caller]
    fn check(describe: &str, dirty: bool, flavor: Flavor, expect: &str) {
        let state = State {
            describe: describe.into(),
            branch: "feature/disks".into(),
            commit: "0123456789abcdef".into(),
            dirty: dirty.then_some(Digest([0xab; 32])),
        };
        assert_eq!(version(&state, &flavor), expect);
    }

    #[test]
    fn a_release_has_the_version_of_its_tag() {
        for tag in ["1.2.3", "12.0.0-lts", "1.0.0-rc12"] {
            check(tag, false, PLAIN, tag);
        }
        check("1.2.3", false, Flavor { platform: "rt", ..PLAIN }, "1.2.3-rt");
    }

    #[test]
    fn everything_else_says_branch_and_commit() {
        for tag in ["0123456", "1.2.3-4-g0123456", "v1.2.3", "1.2", "1.2.3-rc", "1.2.3-x"] {
            check(tag, false, PLAIN, "0.0.0-feature_disks-01234567");
        }
    }

    #[test]
    fn a_version_says_what_is_special_in_the_order_of_the_reference() {
        let dev = Flavor { dev: true, ..PLAIN };
        check("x", true, PLAIN, "0.0.0-feature_disks-01234567-dirty-abababab");
        check("1.2.3", true, dev, "0.0.0-feature_disks-01234567-dirty-abababab-dev");
        let kernel =
            "docker.io/lfedge/eve-kernel:eve-kernel-amd64-v6.1-generic-core-5ec53c5d956c-gcc";
        check(
            "x",
            false,
            Flavor { dev: true, kernel: Some(kernel), platform: "rt" },
            "0.0.0-feature_disks-01234567-dev-k-amd64-v6.1-generic-core-5ec53c5d956c-gcc-rt",
        );
        // A slash would make folders, and a colon is the end of a name in many places.
        check(
            "1.2.3",
            false,
            Flavor { kernel: Some("me/kernel:own"), ..PLAIN },
            "1.2.3-me_kernel_own",
        );
    }

    fn git(dir: &Path, args: &[&str]) {
        let mut command = Tool::Git.command();
        command.arg("-C").arg(dir).args(["-c", "user.name=t", "-c", "user.email=t@t"]).args(args);
        let out = command.output().unwrap();
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    }

    #[test]
    fn the_same_changes_have_the_same_version_whenever_and_wherever_they_are_made() {
        let temp = tempfile::tempdir().unwrap();
        let (one, two) = (temp.path().join("one"), temp.path().join("a b"));
        fs::create_dir(&one).unwrap();
        git(&one, &["init", "-q", "-b", "main"]);
        store::save(&one, "a", b"1").unwrap();
        store::save(&one, "b", b"1").unwrap();
        git(&one, &["add", "."]);
        git(&one, &["commit", "-q", "-m", "x"]);
        git(temp.path(), &["clone", "-q", one.to_str().unwrap(), two.to_str().unwrap()]);
        assert_eq!(ask(&one).unwrap().dirty, None);

        let mut seen = BTreeSet::new();
        let mut both = |change: &dyn Fn(&Path)| {
            change(&one);
            change(&two);
            let (one, two) = (ask(&one).unwrap(), ask(&two).unwrap());
            assert_eq!(one, two);
            assert!(seen.insert(one.dirty), "a change that does not show");
        };
        both(&|dir| store::save(dir, "a", b"2").unwrap());
        both(&|dir| store::save(dir, "a", b"3").unwrap());
        both(&|dir| store::save(dir, "new \"é\"", b"").unwrap());
        both(&|dir| fs::remove_file(dir.join("b")).unwrap());
        both(&|dir| fs::set_permissions(dir.join("a"), PermissionsExt::from_mode(0o755)).unwrap());
        both(&|dir| std::os::unix::fs::symlink("a", dir.join("b")).unwrap());
        let before = ask(&one).unwrap();
        git(&one, &["add", "-A"]); // what git knows of it changes nothing
        assert_eq!(ask(&one).unwrap(), before);
    }
}
