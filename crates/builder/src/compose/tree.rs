//! An image's files as members of the archive, changed on the way: some left out, some replaced, some
//! added; and what the kernel's image becomes.

use std::io::{self, Read, Write};

use store::tarball::{Header, Kind, Reader, Time, Writer};

/// Time of everything that no image brought: 2017-04-18T16:30:00Z, linuxkit's.
pub(super) const MTIME: Time = Time::seconds(1_492_533_000);

const SOURCE: &[u8] = b"LINUXKIT.source";
const LOCATION: &[u8] = b"LINUXKIT.location";

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
const LEFT_OUT: [&str; 6] =
    [".dockerenv", "Dockerfile", "dev/console", "dev/pts", "dev/shm", "etc/hostname"];

const APK_DB: &str = "lib/apk/db/installed";
/// The most we keep of package databases. Alpine's with a thousand packages has 2 MiB.
const APK_DB_MAX: u64 = 64 << 20;

/// Where members go.
pub(super) trait Members {
    /// Takes a member whose body has `header.size` bytes, if its kind has any.
    fn add(&mut self, header: &Header, body: &mut dyn Read) -> io::Result<()>;
}

impl<W: Write> Members for Writer<W> {
    fn add(&mut self, header: &Header, body: &mut dyn Read) -> io::Result<()> {
        self.header(header)?;
        if header.kind.has_body() {
            io::copy(&mut body.take(header.size), self)?;
        }
        Ok(())
    }
}

/// What members belong to: a place in the description and an image.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    pub(super) location: String,
    pub(super) source: String,
}

impl Origin {
    /// Marks a member.
    pub(super) fn mark(&self, header: &mut Header) {
        header.records.insert(SOURCE.to_vec(), self.source.clone().into_bytes());
        header.records.insert(LOCATION.to_vec(), self.location.clone().into_bytes());
    }

    /// A member of our own.
    pub(super) fn header(&self, path: &str, kind: Kind, mode: i64) -> Header {
        let mut header = Header::new(path, kind, mode, MTIME);
        self.mark(&mut header);
        header
    }

    /// Writes a folder.
    pub(super) fn dir(&self, out: &mut dyn Members, path: &str) -> io::Result<()> {
        out.add(&self.header(path, Kind::Dir, 0o755), &mut io::empty())
    }

    /// Writes a file.
    pub(super) fn file(&self, out: &mut dyn Members, path: &str, text: &str) -> io::Result<()> {
        let header = Header { size: text.len() as u64, ..self.header(path, Kind::File, 0o644) };
        out.add(&header, &mut text.as_bytes())
    }

    /// Writes every folder of a path that ends with a slash, or nothing for an empty one.
    pub(super) fn dirs(&self, out: &mut dyn Members, path: &str) -> io::Result<()> {
        let ends = path.match_indices('/').map(|(at, _)| at);
        ends.filter(|at| *at > 0).try_for_each(|at| self.dir(out, &path[..at]))
    }
}

/// An image's files below a folder of the archive.
pub(super) struct ImageFiles<'a> {
    origin: &'a Origin,
    prefix: &'a str,
    /// `resolv.conf` is a link to here, else a file that says nothing.
    resolv: Option<&'a str>,
    has_mtab: bool,
}

impl<'a> ImageFiles<'a> {
    /// `prefix` is empty or ends with a slash.
    pub(super) fn new(
        origin: &'a Origin,
        prefix: &'a str,
        resolv: Option<&'a str>,
    ) -> ImageFiles<'a> {
        ImageFiles { origin, prefix, resolv, has_mtab: false }
    }

    /// Passes a file of the image on.
    pub(super) fn member(
        &mut self,
        out: &mut dyn Members,
        mut header: Header,
        body: &mut dyn Read,
    ) -> io::Result<()> {
        let path = String::from_utf8_lossy(&header.path).into_owned();
        if LEFT_OUT.contains(&path.as_str()) {
            return Ok(());
        }
        self.origin.mark(&mut header);
        header.path.splice(..0, self.prefix.bytes());
        if let Some(text) = self.replacement(&path, &mut header) {
            header.mtime = MTIME;
            return out.add(&header, &mut text.as_bytes());
        }
        if path == "etc/mtab" {
            self.has_mtab = true;
            header.mtime = MTIME;
        }
        if header.kind == Kind::HardLink {
            header.link.splice(..0, self.prefix.bytes());
        }
        out.add(&header, body)
    }

    /// Writes what every file system of a container must have. The reference looks for these among the
    /// image's files by names that most of them cannot have, so they are there twice.
    pub(super) fn finish(self, out: &mut dyn Members) -> io::Result<()> {
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
            let mut header = self.origin.header(&full, kind, mode);
            if kind == Kind::Symlink {
                header.link = b"/proc/mounts".to_vec();
            }
            let text = self.replacement(path, &mut header).unwrap_or_default();
            out.add(&header, &mut text.as_bytes())?;
        }
        Ok(())
    }

    /// What a file holds instead, the header changed to fit.
    fn replacement(&self, path: &str, header: &mut Header) -> Option<&'static str> {
        let text = match (path, self.resolv) {
            ("etc/hosts", _) => HOSTS,
            ("etc/resolv.conf", None) => RESOLV,
            ("etc/resolv.conf", Some(link)) => {
                header.kind = Kind::Symlink;
                header.link = link.into();
                ""
            }
            _ => return None,
        };
        header.size = text.len() as u64;
        if !text.is_empty() {
            // The reference fails on an image that has a link here.
            header.kind = Kind::File;
            header.link.clear();
        }
        Some(text)
    }
}

/// Takes kernel, modules and microcode out of the files of a kernel's image, and drops the rest.
pub(super) struct KernelFiles<'a, M> {
    out: &'a mut M,
    origin: &'a Origin,
    cmdline: &'a str,
    /// Names in the image. An empty one is no name of a file.
    kernel: &'a str,
    archive: &'a str,
    ucode: &'a str,
    has_kernel: bool,
    has_archive: bool,
    has_ucode: bool,
}

impl<'a, M: Members> KernelFiles<'a, M> {
    pub(super) fn new(
        out: &'a mut M,
        origin: &'a Origin,
        kernel: &'a super::Kernel,
    ) -> KernelFiles<'a, M> {
        let archive = match kernel.tar.as_deref() {
            None => "kernel.tar",
            Some("none") => "",
            Some(name) => name,
        };
        KernelFiles {
            out,
            origin,
            cmdline: &kernel.cmdline,
            kernel: if kernel.binary.is_empty() { "kernel" } else { &kernel.binary },
            archive,
            ucode: kernel.ucode.as_deref().unwrap_or_default(),
            has_kernel: false,
            has_archive: false,
            has_ucode: false,
        }
    }

    /// Says what was missing.
    pub(super) fn finish(self) -> Result<(), String> {
        if !self.has_kernel {
            return Err(format!("the kernel's image has no file {:?}", self.kernel));
        }
        if !self.has_archive && !self.archive.is_empty() {
            let (archive, hint) = (self.archive, "set `tar: none` if it shall have none");
            return Err(format!("the kernel's image has no file {archive:?}; {hint}"));
        }
        Ok(())
    }

    /// A file below /boot; the first brings the folder. All carry the records of the image's file.
    fn boot(&mut self, from: &Header, file: Header, body: &mut dyn Read) -> io::Result<()> {
        let records = || from.records.clone();
        if !self.has_kernel && !self.has_ucode {
            let dir = Header::new("boot", Kind::Dir, 0o755, MTIME);
            self.out.add(&Header { records: records(), ..dir }, &mut io::empty())?;
        }
        self.out.add(&Header { records: records(), ..file }, body)
    }
}

impl<M: Members> Members for KernelFiles<'_, M> {
    fn add(&mut self, header: &Header, body: &mut dyn Read) -> io::Result<()> {
        let name = String::from_utf8_lossy(&header.path);
        let size = if header.kind.has_body() { header.size } else { 0 };
        if name == self.kernel {
            let text = self.cmdline;
            let cmdline = Header {
                size: text.len() as u64,
                ..Header::new("boot/cmdline", Kind::File, 0o644, MTIME)
            };
            self.boot(header, cmdline, &mut text.as_bytes())?;
            self.has_kernel = true;
            let kernel = Header::new("boot/kernel", Kind::File, header.mode, MTIME);
            self.boot(header, Header { size, ..kernel }, body)
        } else if name == self.archive {
            self.has_archive = true;
            let mut archive = Reader::new(body);
            while let Some(mut member) = archive.next()? {
                if member.path.split(|b| *b == b'/').any(|part| part == b"..") {
                    let why = format!("{:?} leads out of the archive", member.display());
                    return Err(io::Error::new(io::ErrorKind::InvalidData, why));
                }
                self.origin.mark(&mut member);
                self.out.add(&member, &mut archive)?;
            }
            Ok(())
        } else if name == self.ucode {
            let ucode = Header::new("boot/ucode.cpio", Kind::File, header.mode, MTIME);
            self.boot(header, Header { size, ..ucode }, body)?;
            self.has_ucode = true;
            Ok(())
        } else {
            Ok(())
        }
    }
}

/// Passes everything on, and keeps the package databases that it sees: one a package.
pub(super) struct ApkDatabases<'a, M> {
    out: &'a mut M,
    seen: Vec<Vec<u8>>,
}

impl<'a, M: Members> ApkDatabases<'a, M> {
    pub(super) fn new(out: &'a mut M) -> ApkDatabases<'a, M> {
        ApkDatabases { out, seen: Vec::new() }
    }

    /// If there were several, writes them as one.
    pub(super) fn finish(self) -> io::Result<()> {
        if self.seen.len() < 2 {
            return Ok(());
        }
        let mut all = Vec::new();
        for database in &self.seen {
            all.extend_from_slice(database);
            all.extend_from_slice(b"\n\n");
        }
        let origin = Origin { location: "init".into(), source: "LINUXKIT.apkinit".into() };
        let mut header = origin.header(APK_DB, Kind::File, 0o644);
        header.mtime = Time::default();
        header.size = all.len() as u64;
        self.out.add(&header, &mut all.as_slice())
    }
}

impl<M: Members> Members for ApkDatabases<'_, M> {
    fn add(&mut self, header: &Header, body: &mut dyn Read) -> io::Result<()> {
        if header.path != APK_DB.as_bytes() {
            return self.out.add(header, body);
        }
        let kept: u64 = self.seen.iter().map(|db| db.len() as u64).sum();
        if kept.saturating_add(header.size) > APK_DB_MAX {
            return Err(io::Error::other("the package databases are larger than 64 MiB"));
        }
        let mut database = Vec::new();
        body.read_to_end(&mut database)?;
        self.out.add(header, &mut database.as_slice())?;
        self.seen.push(database);
        Ok(())
    }
}
