//! Loading kernel modules: in the initrd by a list, later by the devices that are there, and for the
//! kernel when it calls `/sbin/modprobe`.
//!
//! It reads the tables that the builder makes beside the modules (`modules.dep`, `.alias`, `.softdep`;
//! `decisions/0003`) and the kernel's own `modules.builtin`, all in depmod's formats (depmod(8),
//! modules.dep(5)). Modules lie uncompressed in the image. No options, no blacklist, no unloading.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::io::Errno;

use crate::console;
use crate::failure::{Doing, Failure};

/// Loads the modules of a list, one path a line, in its order. Returns what failed.
pub(crate) fn load_list(list: &Path, root: &Path) -> Result<Vec<Failure>, Failure> {
    let text = fs::read_to_string(list).doing(|| format!("read {}", list.display()))?;
    Ok(listed(&text)
        .map(|path| root.join(path))
        // Built into this kernel, or pruned from it: what it was for will be missed by name.
        .filter(|path| path.exists())
        .filter_map(|path| insert(&path).err())
        .collect())
}

fn listed(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.trim_start_matches('/'))
}

/// The kernel's `modprobe -q -- NAME`: a module's name or an alias. 0 if all of it is loaded.
pub(crate) fn modprobe(args: &[String]) -> ExitCode {
    let names: Vec<&str> =
        args.iter().map(String::as_str).filter(|a| !a.starts_with('-')).collect();
    let index = match Index::read(&modules_folder()) {
        Ok(index) => index,
        Err(failure) => {
            console::warn(failure);
            return ExitCode::FAILURE;
        }
    };
    // The kernel passes one name; a person may pass several.
    let every = names.iter().map(|name| index.resolve(name)).collect::<Vec<_>>();
    let known = every.iter().all(Option::is_some);
    let failures: Vec<Failure> =
        every.into_iter().flatten().flat_map(|paths| load_all(&index, &paths)).collect();
    for failure in &failures {
        console::note(failure);
    }
    if known && failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Loads what these device aliases ask for; without any, what every device in sysfs asks for, and
/// then what the image asks for.
pub(crate) fn load_for_devices(aliases: &[String]) -> ExitCode {
    let index = match Index::read(&modules_folder()) {
        Ok(index) => index,
        Err(failure) => {
            console::warn(failure);
            return ExitCode::FAILURE;
        }
    };
    let mut done = BTreeSet::new();
    // A driver brings new devices (a bus, a controller), and those ask for drivers in turn.
    for _ in 0..5 {
        let asked: BTreeSet<String> = match aliases {
            [] => sysfs_aliases(Path::new("/sys/devices")),
            some => some.iter().cloned().collect(),
        };
        let new: Vec<String> = asked.difference(&done).cloned().collect();
        if new.is_empty() {
            break;
        }
        let mut paths = Vec::new();
        for alias in &new {
            for path in index.resolve(alias).into_iter().flatten() {
                if !paths.contains(&path) {
                    paths.push(path);
                }
            }
        }
        for failure in load_all(&index, &paths) {
            // A processor without a feature, a device that is not there after all: no news.
            let quiet = [Errno::NODEV, Errno::OPNOTSUPP, Errno::NXIO, Errno::BUSY];
            if !quiet.iter().any(|e| failure.io().raw_os_error() == Some(e.raw_os_error())) {
                console::note(failure);
            }
        }
        done.extend(new);
    }
    if aliases.is_empty() {
        load_wanted(&index, Path::new("/usr/lib/modules-load.d"));
    }
    ExitCode::SUCCESS
}

fn load_all(index: &Index, paths: &[String]) -> Vec<Failure> {
    load_in_order(index, paths, |path| insert(&index.folder.join(path)))
}

/// A module whose needs did not load is not tried: the kernel would only miss their symbols.
fn load_in_order<E>(
    index: &Index,
    paths: &[String],
    mut insert: impl FnMut(&str) -> Result<(), E>,
) -> Vec<E> {
    let mut missing: BTreeSet<&str> = BTreeSet::new();
    let mut failures = Vec::new();
    for path in paths {
        if index.needs(path).any(|need| missing.contains(need)) {
            missing.insert(path);
        } else if let Err(failure) = insert(path) {
            missing.insert(path);
            failures.push(failure);
        }
    }
    failures
}

fn insert(path: &Path) -> Result<(), Failure> {
    // The kernel would read and check all of it before it says that it has it already.
    if is_loaded(path) {
        return Ok(());
    }
    let load = || -> io::Result<()> {
        match rustix::system::finit_module(File::open(path)?, c"", 0) {
            // NODEV: this machine's processor lacks what the module makes use of.
            Ok(()) | Err(Errno::EXIST | Errno::NODEV) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    };
    load().doing(|| format!("load module {}", path.display()))
}

fn is_loaded(path: &Path) -> bool {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().replace('-', "_");
    let state = fs::read(format!("/sys/module/{stem}/initstate"));
    state.is_ok_and(|state| state.starts_with(b"live"))
}

/// Loads what the image asks for by name: modules-load.d(5).
fn load_wanted(index: &Index, folder: &Path) {
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "conf"));
    files.sort();
    for path in files {
        let text = fs::read_to_string(&path).unwrap_or_default();
        for name in listed(&text) {
            match index.resolve(name) {
                Some(paths) => load_all(index, &paths).iter().for_each(console::note),
                None => console::note(format_args!("{} asks for {name}: unknown", path.display())),
            }
        }
    }
}

fn modules_folder() -> PathBuf {
    let uname = rustix::system::uname();
    Path::new("/lib/modules").join(uname.release().to_string_lossy().as_ref())
}

/// The `modalias` of every device under a folder of sysfs.
fn sysfs_aliases(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(entry.path()),
                Ok(kind) if kind.is_file() && entry.file_name() == "modalias" => {
                    let text = fs::read_to_string(entry.path()).unwrap_or_default();
                    if !text.trim().is_empty() {
                        found.insert(text.trim().to_owned());
                    }
                }
                _ => {}
            }
        }
    }
    found
}

/// What the image's tables say of one kernel's modules: the files as they are. They are searched line by line,
/// because most calls look for one name and end.
#[derive(Debug, Default)]
struct Index {
    folder: PathBuf,
    dep: String,
    alias: String,
    softdep: String,
    builtin: String,
}

impl Index {
    fn read(folder: &Path) -> Result<Index, Failure> {
        let text = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).doing(|| format!("read {}", path.display()))
        };
        // Only modules.dep must be there.
        let optional = |name: &str| text(name).unwrap_or_default();
        let dep = text("modules.dep")?;
        let [alias, softdep, builtin] =
            ["modules.alias", "modules.softdep", "modules.builtin"].map(optional);
        Ok(Index { folder: folder.to_owned(), dep, alias: normal(&alias), softdep, builtin })
    }

    /// The paths to load for a module's name or a device's alias, in order. Empty if it is built in;
    /// `None` if nothing answers to it.
    fn resolve(&self, asked: &str) -> Option<Vec<String>> {
        let asked = normal(asked);
        if self.builtin.lines().any(|path| is_named(path, &asked)) {
            return Some(Vec::new());
        }
        if let Some(paths) = self.with_soft(&asked) {
            return Some(paths);
        }
        let mut answers = self.aliases().filter(|(pattern, _)| matches(pattern, &asked)).peekable();
        answers.peek()?;
        let mut paths: Vec<String> = Vec::new();
        for path in answers.filter_map(|(_, module)| self.with_soft(module)).flatten() {
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
        Some(paths)
    }

    /// `alias PATTERN MODULE`
    fn aliases(&self) -> impl Iterator<Item = (&str, &str)> {
        self.alias.lines().filter_map(|line| line.strip_prefix("alias ")?.rsplit_once(' '))
    }

    /// A module with all it needs, and with what `softdep MODULE pre: … post: …` puts before it.
    fn with_soft(&self, module: &str) -> Option<Vec<String>> {
        let own = self.chain(module)?;
        let soft = self.softdep.lines().find_map(|line| {
            let mut words = line.strip_prefix("softdep ")?.split_whitespace();
            (normal(words.next()?) == module).then_some(words)
        });
        let before = soft
            .into_iter()
            .flat_map(|words| words.skip_while(|w| *w != "pre:").skip(1))
            .take_while(|w| *w != "post:")
            .filter_map(|name| self.chain(&normal(name)))
            .flatten();
        Some(before.chain(own).collect())
    }

    /// A module with all it needs, in the order of loading.
    fn chain(&self, module: &str) -> Option<Vec<String>> {
        let (path, needs) = self.entries().find(|(path, _)| is_named(path, module))?;
        // modules.dep lists what is needed last first.
        let needs = needs.split_whitespace().rev().map(str::to_owned);
        Some(needs.chain([path.to_owned()]).collect())
    }

    /// The paths of all that a module needs, also by way of others.
    fn needs(&self, path: &str) -> impl Iterator<Item = &str> {
        let entry = self.entries().find(|(own, _)| *own == path);
        entry.into_iter().flat_map(|(_, needs)| needs.split_whitespace())
    }

    /// `PATH: NEEDED_PATH …`
    fn entries(&self) -> impl Iterator<Item = (&str, &str)> {
        self.dep.lines().filter_map(|line| line.split_once(':'))
    }
}

/// `kernel/drivers/net/virtio-net.ko` is the module `virtio_net`.
fn is_named(path: &str, module: &str) -> bool {
    let file = path.rsplit('/').next().unwrap_or(path);
    let Some(stem) = file.strip_suffix(".ko") else { return false };
    let same = |(a, b): (u8, u8)| a == b || (a == b'-' && b == b'_');
    stem.len() == module.len() && stem.bytes().zip(module.bytes()).all(same)
}

/// `-` and `_` are the same in names, but not inside `[…]`.
fn normal(text: &str) -> String {
    let mut inside = false;
    text.chars()
        .map(|c| {
            inside = (inside || c == '[') && c != ']';
            if c == '-' && !inside { '_' } else { c }
        })
        .collect()
}

/// Shell patterns as in modules.alias: `*`, `?` and `[…]` with ranges.
fn matches(pattern: &str, text: &str) -> bool {
    let (p, t) = (pattern.as_bytes(), text.as_bytes());
    let (mut i, mut j) = (0, 0);
    // Where to go on when what follows the last `*` does not fit.
    let mut retry: Option<(usize, usize)> = None;
    while j < t.len() {
        let fits = match p.get(i) {
            Some(b'*') => {
                retry = Some((i + 1, j));
                i += 1;
                continue;
            }
            Some(b'?') => Some(i + 1),
            Some(b'[') => class(&p[i..], t[j]).map(|length| i + length),
            Some(c) if *c == t[j] => Some(i + 1),
            _ => None,
        };
        match (fits, retry) {
            (Some(next), _) => {
                i = next;
                j += 1;
            }
            (None, Some((after, from))) => {
                retry = Some((after, from + 1));
                (i, j) = (after, from + 1);
            }
            (None, None) => return false,
        }
    }
    p[i..].iter().all(|c| *c == b'*')
}

/// The length of the class at the start of `p`, if `c` is in it.
fn class(p: &[u8], c: u8) -> Option<usize> {
    let end = p.iter().position(|b| *b == b']')?;
    let mut set = &p[1..end];
    let mut inside = false;
    while let Some(first) = set.first() {
        if let [from, b'-', to, ..] = set {
            inside |= (*from..=*to).contains(&c);
            set = &set[3..];
        } else {
            inside |= *first == c;
            set = &set[1..];
        }
    }
    inside.then_some(end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "kernel/net/virtio-net.ko: kernel/net/failover.ko kernel/virtio.ko\n\
                       kernel/net/failover.ko:\nkernel/virtio.ko:\nkernel/r8169.ko:\nkernel/realtek.ko:\n";
    const ALIAS: &str = "# a comment\nalias virtio:d00000001v* virtio_net\nalias fs-ext4 virtio-net\n\
                         alias pci:v000010ECd00008168sv*sd*bc*sc*i* r8169\n";
    const SOFT: &str = "softdep r8169 pre: realtek\n";

    fn index() -> Index {
        Index {
            folder: PathBuf::new(),
            dep: DEP.to_owned(),
            alias: normal(ALIAS),
            softdep: SOFT.to_owned(),
            builtin: "kernel/fs/proc.ko\n".to_owned(),
        }
    }

    #[track_caller]
    fn check(asked: &str, paths: Option<&[&str]>) {
        let index = index();
        let want = paths.map(|all| all.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>());
        assert_eq!(index.resolve(asked), want, "{asked}");
    }

    #[test]
    fn dependencies_come_first() {
        let chain = ["kernel/virtio.ko", "kernel/net/failover.ko", "kernel/net/virtio-net.ko"];
        check("virtio_net", Some(&chain));
        check("virtio-net", Some(&chain));
        check("virtio:d00000001v00001AF4", Some(&chain));
        check("fs-ext4", Some(&chain));
    }

    #[test]
    fn without_what_it_needs_a_module_is_not_tried() {
        let index = index();
        let paths = index.resolve("virtio_net").unwrap();
        let mut tried = Vec::new();
        let failures = load_in_order(&index, &paths, |path| {
            tried.push(path.to_owned());
            if path == "kernel/virtio.ko" { Err("no such device") } else { Ok(()) }
        });
        assert_eq!(failures, ["no such device"]);
        assert_eq!(tried, ["kernel/virtio.ko", "kernel/net/failover.ko"]);
    }

    #[test]
    fn soft_dependencies_come_before() {
        let alias = "pci:v000010ECd00008168sv00001028sd1bc02sc00i00";
        check(alias, Some(&["kernel/realtek.ko", "kernel/r8169.ko"]));
    }

    #[test]
    fn built_in_is_loaded_and_unknown_is_not() {
        check("proc", Some(&[]));
        check("nothing", None);
        check("virtio:d00000002v00001AF4", None);
    }

    #[test]
    fn patterns_match_as_the_shell_does() {
        for (pattern, text, want) in [
            ("a*c", "abbc", true),
            ("a*c", "abcb", false),
            ("*:x*", "p:q:xy", true),
            ("a?c", "abc", true),
            (
                "cpu:type:x86,ven*fam*mod*:feature:*0081*",
                "cpu:type:x86,ven0fam6mod1:feature:,0080,0081,",
                true,
            ),
            ("d[0-9A]", "dA", true),
            ("d[0-9A]", "dB", false),
            ("d[", "d[", false),
            ("", "", true),
            ("*", "", true),
            ("a", "", false),
        ] {
            assert_eq!(matches(pattern, text), want, "{pattern} {text}");
        }
    }

    #[test]
    fn a_list_keeps_its_order_and_may_have_comments() {
        let list = "# for the disk\n/lib/modules/6/a.ko\n\n  lib/b.ko \n";
        assert_eq!(listed(list).collect::<Vec<_>>(), ["lib/modules/6/a.ko", "lib/b.ko"]);
    }
}
