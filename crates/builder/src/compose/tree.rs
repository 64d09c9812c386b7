//! An image's files as members of the archive, changed on the way: some left out, some replaced, some
//! added; and what the kernel's image becomes.

use std::sync::Arc;

use store::ArchiveIndex;
use store::tarball::{Header, Kind, Time, clean_path};

use super::plan::{Content, MTIME, Member, Origin, Place};

/// What the root file system's resolv.conf links to.
pub(super) const RESOLV_LINK: &str = "/run/resolvconf/resolv.conf";

const HOSTS: &str = "127.0.0.1       localhost
::1     localhost ip6-localhost ip6-loopback
fe00::0 ip6-localnet
ff00::0 ip6-mcastprefix
ff02::1 ip6-allnodes
ff02::2 ip6-allrouters
";
const RESOLV: &str = "\n# no resolv.conf configured\n";

/// Files that say something about the machine an image was made on.
const LEFT_OUT: [&[u8]; 6] =
    [b".dockerenv", b"Dockerfile", b"dev/console", b"dev/pts", b"dev/shm", b"etc/hostname"];

const APK_DB: &[u8] = b"lib/apk/db/installed";

/// An image's files below a folder of the archive.
pub(super) struct ImageFiles<'a> {
    origin: &'a Arc<Origin>,
    prefix: &'a str,
    /// `resolv.conf` is a link to here, else a file that says nothing.
    resolv: Option<&'a str>,
    has_mtab: bool,
    out: Vec<Member>,
}

impl<'a> ImageFiles<'a> {
    /// `prefix` is empty or ends with a slash.
    pub(super) fn new(
        origin: &'a Arc<Origin>,
        prefix: &'a str,
        resolv: Option<&'a str>,
    ) -> ImageFiles<'a> {
        let out = Member::dirs(prefix, origin).collect();
        ImageFiles { origin, prefix, resolv, has_mtab: false, out }
    }

    /// Passes a file of the image on.
    pub(super) fn member(&mut self, mut header: Header, content: Content) {
        if LEFT_OUT.contains(&header.path.as_slice()) {
            return;
        }
        let path = header.path.clone();
        header.path.splice(..0, self.prefix.bytes());
        if let Some(text) = self.replacement(&path, &mut header) {
            header.mtime = MTIME;
            self.put(header, Content::text(text));
            return;
        }
        if path == b"etc/mtab" {
            self.has_mtab = true;
            header.mtime = MTIME;
        }
        if header.kind == Kind::HardLink {
            header.link.splice(..0, self.prefix.bytes());
        }
        self.put(header, content);
    }

    /// Adds what every file system of a container must have. The reference looks for these among the
    /// image's files by names that most of them cannot have, so they are there twice.
    pub(super) fn finish(mut self) -> Vec<Member> {
        for path in [
            "dev/",
            "dev/pts/",
            "dev/shm/",
            "etc/",
            "etc/hosts",
            "etc/mtab",
            "etc/resolv.conf",
            "proc/",
            "sys/",
        ] {
            let (kind, mode) = match path {
                "etc/mtab" if self.has_mtab => continue,
                "etc/mtab" => (Kind::Symlink, 0o755),
                _ if path.ends_with('/') => (Kind::Dir, 0o755),
                _ => (Kind::File, 0o644),
            };
            let full = format!("{}{}", self.prefix, path.trim_end_matches('/'));
            let mut header = Header::new(full, kind, mode, MTIME);
            if kind == Kind::Symlink {
                header.link = b"/proc/mounts".to_vec();
            }
            let text = self.replacement(path.as_bytes(), &mut header).unwrap_or_default();
            self.put(header, Content::text(text));
        }
        self.out
    }

    fn put(&mut self, header: Header, content: Content) {
        let origin = Some(Arc::clone(self.origin));
        self.out.push(Member { header, origin, content });
    }

    /// What a file holds instead, the header changed to fit.
    fn replacement(&self, path: &[u8], header: &mut Header) -> Option<&'static str> {
        let text = match (path, self.resolv) {
            (b"etc/hosts", _) => HOSTS,
            (b"etc/resolv.conf", None) => RESOLV,
            (b"etc/resolv.conf", Some(link)) => {
                header.kind = Kind::Symlink;
                header.link = link.into();
                ""
            }
            _ => return None,
        };
        header.size = text.len() as u64;
        if !text.is_empty() && !header.kind.has_body() {
            // The reference fails on an image that has a link here.
            header.kind = Kind::File;
            header.link.clear();
        }
        Some(text)
    }
}

/// What the kernel's image is called on for: names of files in it. An empty one is no name of a file.
pub(super) struct KernelFiles<'a> {
    cmdline: &'a str,
    kernel: &'a str,
    archive: &'a str,
    ucode: &'a str,
}

/// A part of what the kernel's image becomes.
pub(super) enum Part {
    /// A member of the archive.
    Member(Member),
    /// The kernel itself, which may have to be decompressed.
    Kernel(Member),
    /// An archive whose members belong here.
    Archive(Member),
}

impl<'a> KernelFiles<'a> {
    pub(super) fn of(kernel: &'a super::Kernel) -> KernelFiles<'a> {
        KernelFiles {
            cmdline: &kernel.cmdline,
            kernel: if kernel.binary.is_empty() { "kernel" } else { &kernel.binary },
            archive: match kernel.tar.as_deref() {
                None => "kernel.tar",
                Some("none") => "",
                Some(name) => name,
            },
            ucode: kernel.ucode.as_deref().unwrap_or_default(),
        }
    }

    /// Takes kernel, modules and microcode out of the files of a kernel's image, and drops the rest.
    /// The error says what was missing.
    pub(super) fn take(&self, image: Vec<Member>) -> Result<Vec<Part>, String> {
        let mut parts = Vec::new();
        let (mut has_kernel, mut has_archive, mut has_boot) = (false, false, false);
        for from in image {
            let name = String::from_utf8_lossy(&from.header.path).into_owned();
            if name == self.kernel {
                boot(&mut parts, &from, &mut has_boot);
                let cmdline = Header::new("boot/cmdline", Kind::File, 0o644, MTIME);
                parts.push(Part::Member(below(&from, cmdline, Content::text(self.cmdline))));
                let kernel = Header::new("boot/kernel", Kind::File, from.header.mode, MTIME);
                parts.push(Part::Kernel(below(&from, kernel, from.content.clone())));
                has_kernel = true;
            } else if name == self.archive {
                has_archive = true;
                parts.push(Part::Archive(from));
            } else if name == self.ucode {
                boot(&mut parts, &from, &mut has_boot);
                let ucode = Header::new("boot/ucode.cpio", Kind::File, from.header.mode, MTIME);
                parts.push(Part::Member(below(&from, ucode, from.content.clone())));
            }
        }
        if !has_kernel {
            return Err(format!("the kernel's image has no file {:?}", self.kernel));
        }
        if !has_archive && !self.archive.is_empty() {
            let (archive, hint) = (self.archive, "set `tar: none` if it shall have none");
            return Err(format!("the kernel's image has no file {archive:?}; {hint}"));
        }
        Ok(parts)
    }
}

/// The folder, brought by the first file in it.
fn boot(parts: &mut Vec<Part>, from: &Member, there: &mut bool) {
    if !std::mem::replace(there, true) {
        let dir = Header::new("boot", Kind::Dir, 0o755, MTIME);
        parts.push(Part::Member(below(from, dir, Content::none())));
    }
}

/// A member of /boot. All carry the records of the image's file.
fn below(from: &Member, header: Header, content: Content) -> Member {
    let header = Header { size: content.size, records: from.header.records.clone(), ..header };
    Member { header, origin: from.origin.clone(), content }
}

/// The members of an archive in the kernel's image, whose index is known. The error says which of
/// them cannot be unpacked.
pub(super) fn inner(archive: &Member, index: ArchiveIndex) -> Result<Vec<Member>, String> {
    let Place::Layer { layer, at } = archive.content.place else { return Ok(Vec::new()) };
    let mut members = Vec::with_capacity(index.members.len());
    for place in index.members {
        let header = place.header;
        let clean = clean_path(&header.path);
        if clean == b".." || clean.starts_with(b"../") {
            return Err(format!("{:?} leads out of the archive", header.display()));
        }
        let at = model::Bytes(at.0.saturating_add(place.at.0));
        let size = if header.kind.has_body() { header.size } else { 0 };
        let content = Content { size, digest: place.digest, place: Place::Layer { layer, at } };
        members.push(Member { header, origin: archive.origin.clone(), content });
    }
    Ok(members)
}

/// The package databases among the root file system's members as one, if there are several.
pub(super) fn apk_database(members: &[Member]) -> Option<Member> {
    let all: Vec<&Member> = members.iter().filter(|m| m.header.path == APK_DB).collect();
    if all.len() < 2 {
        return None;
    }
    let end = Content::text("\n\n");
    let parts: Vec<Content> = all.iter().flat_map(|m| [m.content.clone(), end.clone()]).collect();
    let size = parts.iter().map(|p| p.size).sum();
    let origin = Origin { location: "init".into(), source: "LINUXKIT.apkinit".into() };
    let header = Header::new(APK_DB, Kind::File, 0o644, Time::default());
    let content = Content { size, digest: None, place: Place::Joined(parts) };
    Some(Member::new(header, &Arc::new(origin), content))
}
