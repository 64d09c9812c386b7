//! The files that the description itself puts on top of everything.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::Digest;
use sha2::{Digest as _, Sha256};
use store::tarball::{Header, Kind};

use super::container::{Ids, number, octal};
use super::plan::{Content, MTIME, Member, Origin, Place};
use super::{ComposeError, Description, FileEntry, metadata};

/// What makes the archive an image that docker can run.
const DOCKERFILE: &str = "\nFROM scratch\n\nCOPY . ./\n\nENTRYPOINT [\"/bin/rc.init\"]\n";

/// All files of `description`. A source is a path of this machine, `~/` in front is `home`.
pub(super) fn members(
    description: &Description,
    ids: &Ids,
    home: Option<&Path>,
) -> Result<Vec<Member>, ComposeError> {
    let mut known = HashSet::new();
    let mut members = Vec::new();
    for (n, file) in description.files.iter().enumerate() {
        let location = format!("files[{n}]");
        let nonsense = |why| ComposeError::Nonsense { location: location.clone(), why };
        let plan = plan(file, ids).map_err(nonsense)?;
        let Some(content) = content(description, file, &location, home)? else {
            continue; // optional, and not there
        };
        let source = "linuxkit.files".to_owned();
        let origin = Arc::new(Origin { location: location.clone(), source });
        let mut put = |path: &str, kind, mode: u32, content| {
            let mut header = Header::new(path, kind, mode.into(), MTIME);
            (header.uid, header.gid) = (plan.uid.into(), plan.gid.into());
            if kind == Kind::Symlink {
                header.link = file.symlink.clone().into_bytes();
            }
            members.push(Member::new(header, &origin, content));
        };
        for dir in above(&plan.path) {
            if known.insert(dir.clone()) {
                put(&dir, Kind::Dir, plan.dir_mode, Content::none());
            }
        }
        known.insert(plan.path.clone());
        let kind = match plan.kind {
            // Nothing under the name of a folder is a folder.
            Kind::File if plan.path.ends_with('/') && content.size == 0 => Kind::Dir,
            kind => kind,
        };
        if kind == Kind::File && plan.path.ends_with('/') {
            return Err(nonsense(format!("{:?} ends with a slash and has contents", plan.path)));
        }
        put(&plan.path, kind, plan.mode, content);
    }
    Ok(members)
}

/// The member that turns the archive into one for `docker build`.
pub(super) fn dockerfile() -> Member {
    own("Dockerfile", DOCKERFILE)
}

/// A member that says nothing of where it comes from.
pub(super) fn own(path: &str, text: &str) -> Member {
    let content = Content::text(text);
    let header = Header::new(path, Kind::File, 0o644, MTIME);
    let header = Header { size: content.size, ..header };
    Member { header, origin: None, content }
}

/// What becomes of an entry, but for its bytes.
struct Plan {
    path: String,
    kind: Kind,
    mode: u32,
    /// Of folders above it.
    dir_mode: u32,
    uid: u32,
    gid: u32,
}

fn plan(file: &FileEntry, ids: &Ids) -> Result<Plan, String> {
    // Archives have no absolute paths.
    let path = file.path.strip_prefix('/').unwrap_or(&file.path).to_owned();
    if path.is_empty() {
        return Err("a file needs a path".to_owned());
    }
    if path.split('/').any(|part| part == "..") {
        return Err(format!("{:?} leads out of the image", file.path));
    }
    let kind = match (file.directory, file.symlink.is_empty()) {
        (true, _) => Kind::Dir,
        (false, false) => Kind::Symlink,
        (false, true) => Kind::File,
    };
    if file.directory && file.contents.is_some() {
        return Err(format!("{path} is a directory and has contents"));
    }
    let given = [!file.source.is_empty(), !file.metadata.is_empty()].iter().filter(|g| **g).count();
    let own = file.directory || !file.symlink.is_empty() || file.contents.is_some();
    match (own, given) {
        (true, 0) | (false, 1) => {}
        (false, 0) => return Err(format!("{path}: say contents, source or metadata")),
        _ => return Err(format!("{path}: contents, source and metadata exclude each other")),
    }
    let mode = match file.mode.as_str() {
        "" if file.directory => 0o700,
        "" => 0o600,
        text => octal(text).ok_or_else(|| format!("mode {text:?} of {path} is not octal"))?,
    };
    // Whoever may do anything with the file may enter the folders above it.
    let enter = [0o700, 0o070, 0o007].map(|who| if mode & who != 0 { who & 0o111 } else { 0 });
    Ok(Plan {
        kind,
        mode,
        dir_mode: enter.iter().fold(mode, |mode, bit| mode | bit),
        uid: number(file.uid.as_ref(), ids)?,
        gid: number(file.gid.as_ref(), ids)?,
        path,
    })
}

/// Folders above a path, uppermost first.
fn above(path: &str) -> Vec<String> {
    let cleaned = |end| {
        let parts: Vec<&str> =
            path[..end].split('/').filter(|p| !p.is_empty() && *p != ".").collect();
        parts.join("/")
    };
    let mut dirs: Vec<String> = path.match_indices('/').map(|(at, _)| cleaned(at)).collect();
    dirs.retain(|dir| !dir.is_empty());
    dirs.dedup();
    dirs
}

/// What a file holds; `None` if it may be left out and is not there.
fn content(
    description: &Description,
    file: &FileEntry,
    location: &str,
    home: Option<&Path>,
) -> Result<Option<Content>, ComposeError> {
    if file.directory || !file.symlink.is_empty() {
        return Ok(Some(Content::none()));
    }
    if let Some(contents) = &file.contents {
        return Ok(Some(Content::text(contents)));
    }
    match file.metadata.as_str() {
        "" => {}
        "yaml" => return Ok(Some(Content::text(metadata::yaml(description)))),
        "json" => return Ok(Some(Content::text(metadata::json(description)))),
        other => {
            let why = format!("metadata {other:?} is neither yaml nor json");
            return Err(ComposeError::Nonsense { location: location.to_owned(), why });
        }
    }
    let path = match (file.source.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(&file.source),
    };
    if file.optional && fs::metadata(&path).is_err() {
        return Ok(None);
    }
    let read = read(&path);
    let fail =
        |source| ComposeError::Source { location: location.to_owned(), path: path.clone(), source };
    let (size, digest) = read.map_err(fail)?;
    Ok(Some(Content { size, digest: Some(digest), place: Place::File(path) }))
}

/// Size and digest of a file.
fn read(path: &Path) -> io::Result<(u64, Digest)> {
    let mut file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let (mut size, mut hash) = (0, Sha256::new());
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((size, Digest(hash.finalize().into()))),
            Ok(n) => {
                size += n as u64;
                hash.update(&buffer[..n]);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(yml: &str) -> Result<Vec<String>, String> {
        let description = Description::parse(&[("x", yml)], &|_| Err(String::new())).unwrap();
        let ids = Ids::from([("svc".to_owned(), 101)]);
        let home = Some(Path::new("/nowhere"));
        let members = members(&description, &ids, home).map_err(|e| e.to_string())?;
        let show = |Member { header: h, .. }: &Member| {
            format!("{} {:o} {}:{} {}", h.display(), h.mode, h.uid, h.gid, h.size)
        };
        Ok(members.iter().map(show).collect())
    }

    #[test]
    fn folders_above_a_file_come_once_and_with_its_rights() {
        let yml = "files:\n- {path: /a/b/c, contents: xy, mode: '0640', uid: svc}\n\
                   - {path: a/b/d, contents: '', gid: 5}\n- {path: a/e, directory: true}\n\
                   - {path: l, symlink: /x}\n- {path: f/g, source: /nowhere/x, optional: true}\n";
        let want = ["a 750 101:0 0", "a/b 750 101:0 0", "a/b/c 640 101:0 2", "a/b/d 600 0:5 0"];
        let more = ["a/e 700 0:0 0", "l 600 0:0 0"];
        assert_eq!(list(yml).unwrap(), [&want[..], &more].concat());
    }

    #[test]
    fn entries_that_contradict_themselves_are_refused() {
        for (entry, want) in [
            ("{path: ''}", "needs a path"),
            ("{path: /}", "needs a path"),
            ("{path: a/../../b, contents: x}", "leads out of the image"),
            ("{path: a}", "say contents, source or metadata"),
            ("{path: a, contents: x, source: y}", "exclude each other"),
            ("{path: a, metadata: toml}", "neither yaml nor json"),
            ("{path: a, directory: true, contents: x}", "is a directory and has contents"),
            ("{path: a, contents: x, mode: '9'}", "is not octal"),
            ("{path: a, contents: x, uid: nobody}", "no container is named"),
            ("{path: a, source: ~/x}", "cannot read /nowhere/x"),
            ("{path: a/, contents: x}", "ends with a slash and has contents"),
        ] {
            let error = list(&format!("files: [{entry}]")).unwrap_err();
            assert!(error.starts_with("files[0]: ") && error.contains(want), "{error}");
        }
    }
}
