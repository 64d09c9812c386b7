//! The initrd: `eve-init`, the modules that lead to the root file system, and nothing else.
//!
//! `/modules.list` in it names the modules' files, one a line, in the order in which they are to be
//! loaded; its presence also tells `eve-init` that it runs in the initrd.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use formats::cpio::{self, Entry, Kind};
use formats::tree::Content;
use model::{Bytes, Diagnose, Diagnosis, Who};

use super::Arch;
use super::rootfs::{Place, Rootfs, RootfsError};

/// Where the names of the modules stand, one a line, `#` for comments.
pub(super) const LIST: &str = "usr/lib/eve/initrd-modules";
/// Further lists, those of packages beside the kernel's.
const LISTS: &str = "usr/lib/eve/initrd-modules.d";

const INIT: &str = "sbin/eve-init";
const INIT_MAX: Bytes = Bytes::mib(32);
const MODULE_MAX: Bytes = Bytes::mib(128);
const TABLE_MAX: Bytes = Bytes::mib(8);
/// High enough that little more is to be had, and still fast.
const ZSTD_LEVEL: i32 = 15;

/// Why there is no initrd.
#[derive(Debug, thiserror::Error)]
pub enum InitrdError {
    /// Something is missing in the root file system.
    #[error("cannot make the initrd")]
    Rootfs(#[from] RootfsError),
    /// A root file system for other machines.
    #[error("/{INIT} is a program for {is}, and the image is to be for {wanted}")]
    Machine {
        /// What it is for.
        is: Arch,
        /// What the image is for.
        wanted: Arch,
    },
    /// Two kernels, or none.
    #[error("/usr/lib/modules holds {0:?}, not the modules of one kernel")]
    Kernels(Vec<String>),
    /// A module that the initrd is to have and that this kernel does not know.
    #[error("the initrd needs the module {0:?}, which this kernel does not have")]
    Unknown(String),
    /// Modules that need each other in a circle.
    #[error("the module {0:?} needs itself")]
    Circle(String),
    /// It cannot be packed.
    #[error("cannot pack the initrd")]
    Pack(#[source] io::Error),
}

impl Diagnose for InitrdError {
    fn diagnose(&self) -> Diagnosis {
        match self {
            InitrdError::Rootfs(cause) => cause.diagnose(),
            InitrdError::Machine { is, .. } => Diagnosis::of(
                Who::Operator,
                format!("say --arch {is} (ZARCH), or give another root"),
            ),
            InitrdError::Kernels(_) => {
                Diagnosis::of(Who::Operator, "have one kernel package in images/rootfs.yml.in")
            }
            InitrdError::Unknown(_) | InitrdError::Circle(_) => Diagnosis::of(
                Who::Operator,
                format!(
                    "correct the kernel package's lists of modules (/{LIST}, /{LISTS}); an ext4 as \
                     root wants a kernel with that module"
                ),
            ),
            InitrdError::Pack(_) => Diagnosis::of(Who::Developer, "report it"),
        }
    }
}

/// What goes into an initrd.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    rootfs: &'a Rootfs,
    init: &'a Content<Place>,
    /// The kernel's version, if it has modules.
    pub kernel: Option<String>,
    /// Where each module comes to lie, in load order, and what it is in the root file system.
    modules: Vec<(String, &'a Content<Place>)>,
}

impl<'a> Parts<'a> {
    /// Finds them in a root file system for machines of `arch`. Modules with the names in `more` come
    /// along where the kernel has modules at all.
    pub(super) fn of(
        rootfs: &'a Rootfs,
        arch: Arch,
        more: &[&str],
    ) -> Result<Parts<'a>, InitrdError> {
        let init = rootfs.file(INIT, INIT_MAX)?;
        if let Some(is) = machine(&rootfs.bytes(init)?).filter(|is| *is != arch) {
            return Err(InitrdError::Machine { is, wanted: arch });
        }
        let kernel = kernel_version(rootfs)?;
        let mut parts = Parts { rootfs, init, kernel, modules: Vec::new() };
        if let (Some(kernel), true) = (&parts.kernel, rootfs.has(LIST) || !more.is_empty()) {
            let folder = format!("usr/lib/modules/{kernel}");
            let real = if rootfs.has(&folder) { folder } else { format!("lib/modules/{kernel}") };
            let order = tables(rootfs, &real)?.load_order(&list(rootfs, more)?)?;
            for path in order {
                let content = rootfs.file(&format!("{real}/{path}"), MODULE_MAX)?;
                parts.modules.push((format!("lib/modules/{kernel}/{path}"), content));
            }
        }
        Ok(parts)
    }

    /// How many modules it loads.
    pub(super) fn modules(&self) -> usize {
        self.modules.len()
    }

    /// What stands for the initrd: the same for the same bytes.
    pub(super) fn key(&self, time: u64) -> Result<String, InitrdError> {
        let mut key = format!("{ZSTD_LEVEL} {time} {}", self.rootfs.digest(self.init)?);
        for (path, content) in &self.modules {
            key += &format!("\n{path} {}", self.rootfs.digest(content)?);
        }
        Ok(key)
    }

    /// The initrd: a `newc` archive, compressed with Zstandard. All its times are `time`, in seconds
    /// since 1970.
    pub(super) fn pack(&self, time: u64) -> Result<Vec<u8>, InitrdError> {
        let mut files = BTreeMap::new();
        let mut list = String::new();
        for (path, content) in &self.modules {
            let bytes = unpack(path, self.rootfs.bytes(content)?).map_err(InitrdError::Pack)?;
            let plain = path.split_once(".ko").map_or(path.as_str(), |(stem, _)| stem);
            let target = format!("{plain}.ko");
            list += &format!("{target}\n");
            files.insert(target, bytes);
        }
        let init = self.rootfs.bytes(self.init)?;
        let archive = pack(&init, &list, &files, time).map_err(InitrdError::Pack)?;
        zstd::bulk::compress(&archive, ZSTD_LEVEL).map_err(InitrdError::Pack)
    }
}

/// The lists of modules, one after the other, behind the names in `more`.
fn list(rootfs: &Rootfs, more: &[&str]) -> Result<String, RootfsError> {
    let lists = rootfs.list(LISTS).into_iter().map(|name| format!("{LISTS}/{name}"));
    let mut list: String = more.iter().map(|name| format!("{name}\n")).collect();
    let first = rootfs.has(LIST).then(|| LIST.to_owned());
    for path in first.into_iter().chain(lists) {
        list += &String::from_utf8_lossy(&rootfs.read(&path, TABLE_MAX)?);
        list.push('\n');
    }
    Ok(list)
}

/// The tables of the modules in a folder.
fn tables(rootfs: &Rootfs, folder: &str) -> Result<Tables, RootfsError> {
    let table = |name: &str| -> Result<String, RootfsError> {
        let path = format!("{folder}/{name}");
        let bytes = if rootfs.has(&path) { rootfs.read(&path, TABLE_MAX)? } else { Vec::new() };
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    Ok(Tables::new(
        &table("modules.dep")?,
        &table("modules.softdep")?,
        &table("modules.builtin")?,
        &table("modules.alias")?,
    ))
}

/// What machines a program is for. `None`: it is none, or for others.
fn machine(elf: &[u8]) -> Option<Arch> {
    // 64 bits, little-endian; then what e_machine says.
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    match elf.get(18..20)? {
        [62, 0] => Some(Arch::Amd64),
        [183, 0] => Some(Arch::Arm64),
        [243, 0] => Some(Arch::Riscv64),
        _ => None,
    }
}

fn kernel_version(rootfs: &Rootfs) -> Result<Option<String>, InitrdError> {
    let found: BTreeSet<&str> = ["usr/lib/modules", "lib/modules"]
        .into_iter()
        .flat_map(|folder| rootfs.list(folder))
        .collect();
    let mut names = found.iter();
    match (names.next(), names.next()) {
        (first, None) => Ok(first.map(ToString::to_string)),
        _ => Err(InitrdError::Kernels(found.iter().map(ToString::to_string).collect())),
    }
}

/// The tables of a kernel's modules (modules.dep(5)), as `pkg/kernel` wrote them.
#[derive(Debug, Default)]
struct Tables {
    /// By name: the module's file and the files that it needs, each below the version's folder.
    needs: BTreeMap<String, (String, Vec<String>)>,
    /// By name: the modules that should be there first.
    before: BTreeMap<String, Vec<String>>,
    builtin: BTreeSet<String>,
    /// By what somebody may ask for (`crypto-crc32c`): modules that are that.
    aliases: BTreeMap<String, Vec<String>>,
}

impl Tables {
    fn new(dep: &str, softdep: &str, builtin: &str, alias: &str) -> Tables {
        let mut aliases: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in alias.lines().filter_map(|line| line.strip_prefix("alias ")) {
            if let Some((asked, module)) = line.split_once(' ') {
                aliases.entry(canonical(asked)).or_default().push(canonical(module));
            }
        }
        let needs = dep.lines().filter_map(|line| line.split_once(':')).map(|(path, needs)| {
            let needs = needs.split_whitespace().map(ToOwned::to_owned).collect();
            (name_of(path), (path.to_owned(), needs))
        });
        let before = softdep.lines().filter_map(|line| {
            let (name, rest) = line.strip_prefix("softdep ")?.split_once(' ')?;
            let pre = rest.split("post:").next()?.split_once("pre:")?.1;
            Some((canonical(name), pre.split_whitespace().map(canonical).collect()))
        });
        Tables {
            needs: needs.collect(),
            before: before.collect(),
            builtin: builtin.lines().map(name_of).collect(),
            aliases,
        }
    }

    /// The files of the named modules and of all that they need, each after what it needs.
    fn load_order(&self, list: &str) -> Result<Vec<String>, InitrdError> {
        let mut order = Vec::new();
        for line in list.lines() {
            let name = canonical(line.split('#').next().unwrap_or_default().trim());
            if name.is_empty() || self.builtin.contains(&name) {
                continue;
            }
            if !self.needs.contains_key(&name) {
                return Err(InitrdError::Unknown(name));
            }
            self.visit(&name, &mut BTreeSet::new(), &mut order)?;
        }
        Ok(order)
    }

    fn visit(
        &self,
        name: &str,
        open: &mut BTreeSet<String>,
        order: &mut Vec<String>,
    ) -> Result<(), InitrdError> {
        // A soft dependency that was pruned, or is built in, is not missed.
        let Some((path, needs)) = self.needs.get(name) else {
            // By another name it may be there, several times over.
            let modules = self.aliases.get(name).into_iter().flatten();
            let modules = modules.filter(|module| self.needs.contains_key(*module));
            return modules.into_iter().try_for_each(|module| self.visit(module, open, order));
        };
        if order.contains(path) {
            return Ok(());
        }
        if !open.insert(name.to_owned()) {
            return Err(InitrdError::Circle(name.to_owned()));
        }
        // modules.dep lists what is needed last first.
        let needs = needs.iter().rev().map(|path| name_of(path));
        for first in self.before.get(name).into_iter().flatten().cloned().chain(needs) {
            self.visit(&first, open, order)?;
        }
        order.push(path.clone());
        open.remove(name);
        Ok(())
    }
}

/// The kernel takes `-` and `_` in a module's name for the same.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    canonical(file.split(".ko").next().unwrap_or(file))
}

/// A module as the kernel takes it without help: not compressed.
fn unpack(path: &str, bytes: Vec<u8>) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    let limit = MODULE_MAX.0 + 1;
    match path.rsplit('.').next() {
        Some("xz") => {
            liblzma::read::XzDecoder::new(&bytes[..]).take(limit).read_to_end(&mut plain)?
        }
        Some("zst") => {
            zstd::stream::read::Decoder::new(&bytes[..])?.take(limit).read_to_end(&mut plain)?
        }
        _ => return Ok(bytes),
    };
    if plain.len() as u64 == limit {
        return Err(io::Error::other(format!("{path} unpacks to more than {MODULE_MAX}")));
    }
    Ok(plain)
}

fn pack(
    init: &[u8],
    list: &str,
    files: &BTreeMap<String, Vec<u8>>,
    time: u64,
) -> io::Result<Vec<u8>> {
    let folder = |path| Entry { path, mode: 0o755, kind: Kind::Folder };
    let mut entries: Vec<_> = ["dev", "proc", "root", "sys"].map(folder).into();
    let console = Kind::Character { major: 5, minor: 1 };
    entries.push(Entry { path: "dev/console", mode: 0o600, kind: console });
    entries.push(Entry { path: "init", mode: 0o755, kind: Kind::File(init) });
    entries.push(Entry { path: "modules.list", mode: 0o644, kind: Kind::File(list.as_bytes()) });
    let mut folders = BTreeSet::new();
    for (path, body) in files {
        for (at, _) in path.match_indices('/') {
            if folders.insert(&path[..at]) {
                entries.push(folder(&path[..at]));
            }
        }
        entries.push(Entry { path, mode: 0o644, kind: Kind::File(body) });
    }
    let mut archive = Vec::new();
    let time = u32::try_from(time).unwrap_or(u32::MAX);
    cpio::write(&mut archive, &entries, time)?;
    Ok(archive)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "\
kernel/drivers/md/dm-mod.ko.xz:
kernel/drivers/md/dm-bufio.ko.xz: kernel/drivers/md/dm-mod.ko.xz
kernel/drivers/md/dm-verity.ko.xz: kernel/drivers/md/dm-bufio.ko.xz kernel/drivers/md/dm-mod.ko.xz
kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko
kernel/fs/jbd2/jbd2.ko:
kernel/lib/crc32c.ko:
kernel/lib/sum-fast.ko:
kernel/lib/sum-plain.ko:
";

    #[track_caller]
    fn check(list: &str, expect: Result<&[&str], &str>) {
        let softdep = "softdep ext4 pre: crc32c gone post: x\nsoftdep jbd2 pre: crypto-sum\n";
        let alias = "alias crypto-sum sum_fast\nalias crypto-sum sum_plain\nalias crypto-sum no\n";
        let tables = Tables::new(DEP, softdep, "kernel/a/b-c.ko\n", alias);
        let order = tables.load_order(list).map_err(|e| e.to_string());
        let names = order.map(|paths| paths.iter().map(|p| name_of(p)).collect::<Vec<_>>());
        let expect = expect.map(|names| names.iter().map(ToString::to_string).collect());
        assert_eq!(names, expect.map_err(ToOwned::to_owned));
    }

    #[test]
    fn a_program_says_for_what_machine_it_is() {
        let program = |class: u8, e_machine: u16| {
            let mut bytes = [&b"\x7fELF"[..], &[class, 1], &[0; 12]].concat();
            bytes.extend(e_machine.to_le_bytes());
            machine(&bytes)
        };
        assert_eq!(program(2, 62), Some(Arch::Amd64));
        assert_eq!(program(2, 183), Some(Arch::Arm64));
        assert_eq!(program(2, 243), Some(Arch::Riscv64));
        assert_eq!(program(2, 8), None);
        assert_eq!(program(1, 62), None);
        assert_eq!(machine(b"\x7fELF\x02\x01"), None);
    }

    #[test]
    fn each_module_comes_after_what_it_needs() {
        check("dm_verity\n", Ok(&["dm_mod", "dm_bufio", "dm_verity"]));
        check("dm-verity # comment\ndm_mod\n\n", Ok(&["dm_mod", "dm_bufio", "dm_verity"]));
    }

    #[test]
    fn soft_dependencies_come_first_if_they_are_there() {
        check("ext4", Ok(&["crc32c", "sum_fast", "sum_plain", "jbd2", "ext4"]));
    }

    #[test]
    fn built_in_is_fine_and_unknown_is_not() {
        check("b_c", Ok(&[]));
        let text = "the initrd needs the module \"nope\", which this kernel does not have";
        check("nope", Err(text));
    }
}
