//! Kernel packages: Debian's kernel as linuxkit wants it (`kernel`, `kernel.tar`), with the modules
//! that a list names and all they need, unpacked, and with the text files that module loading reads.
//!
//! What `depmod` would compute comes from each module's own `.modinfo`, so that the host's kmod does
//! not matter and the order is ours. The binary `modules.*.bin` files are not made: nothing on the
//! node reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::Arc;

use formats::elf::Elf;

use super::recipe::Arch;
use super::record;
use super::tree::{Kind, Node, Tree};

/// The largest module, unpacked, that we accept (amdgpu has 25 MB).
const MODULE_MAX: u64 = 128 << 20;

/// A kernel's file is called so, before its version: the latter where it is not packed.
const IMAGES: [&str; 2] = ["boot/vmlinuz-", "boot/vmlinux-"];

/// Why a kernel package cannot be made.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KernelError {
    /// The .debs hold no kernel, or more than one.
    #[error("the packages hold {found} files /boot/vmlinu?-*, not one")]
    Image {
        /// How many.
        found: usize,
    },
    /// A line of the list names nothing.
    #[error("{list}:{line}: no module or built-in matches {pattern:?}")]
    Unmatched {
        /// The list.
        list: String,
        /// From 1.
        line: usize,
        /// What it says.
        pattern: String,
    },
    /// A module that the initrd needs was left out.
    #[error("{list}:{line}: {module} is in the kernel, but the list of modules leaves it out")]
    NotKept {
        /// The list.
        list: String,
        /// From 1.
        line: usize,
        /// The module.
        module: String,
    },
    /// A module is not what it should be.
    #[error("module {path} cannot be read: {what}")]
    Module {
        /// Which.
        path: String,
        /// Why.
        what: String,
    },
}

/// A list as the recipe names it, with its text.
#[derive(Debug, Clone, Copy)]
pub(super) struct List<'a> {
    /// Its name, for errors.
    pub name: &'a str,
    /// One pattern a line; behind it in brackets the architectures that the line is for, if it is
    /// not for all, as in `sha256_ssse3 [amd64]`; `#` begins a comment.
    pub text: &'a str,
    /// For what the kernel is.
    pub arch: Arch,
}

impl<'a> List<'a> {
    /// The patterns with the numbers of their lines, from 1.
    fn lines(self) -> impl Iterator<Item = (usize, &'a str)> {
        let lines = self.text.lines().enumerate();
        let lines = lines.map(|(at, l)| (at + 1, l.split('#').next().unwrap_or_default().trim()));
        lines.filter(|(_, l)| !l.is_empty()).filter_map(move |(at, l)| {
            let Some((pattern, arches)) = l.strip_suffix(']').and_then(|l| l.rsplit_once(" ["))
            else {
                return Some((at, l));
            };
            let ours = arches.split_whitespace().any(|a| a == self.arch.name());
            ours.then_some((at, pattern.trim_end()))
        })
    }
}

/// What a module says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Info {
    depends: Vec<String>,
    /// `pre:` and `post:` of its soft dependencies, as written.
    soft: Vec<String>,
    aliases: Vec<String>,
}

/// A kept module.
#[derive(Debug)]
struct Module {
    /// Below the version's folder, without `.xz`: `kernel/fs/fat/fat.ko`.
    path: String,
    bytes: Arc<[u8]>,
    mtime: u64,
    /// The .deb that brought it.
    from: String,
    info: Info,
}

/// Turns the tree of Debian's kernel into a kernel package: the modules that `modules` names and
/// what they need, and `initrd` as `/usr/lib/eve/initrd-modules`.
///
/// `modules`: a module's name, or a path below `kernel/` without `.ko`, both with `*`; after `!` what
/// not to take. The last line that matches counts; what a kept module depends on is always kept.
/// `ours` is who brings what is computed here.
pub(super) fn package(
    debian: &Tree,
    modules: List<'_>,
    initrd: List<'_>,
    ours: &str,
    epoch: u64,
) -> Result<Tree, KernelError> {
    let images: Vec<_> = debian
        .iter()
        .filter_map(|(path, image)| {
            Some((IMAGES.iter().find_map(|stem| path.strip_prefix(stem))?, image))
        })
        .collect();
    let [(version, image)] = images[..] else {
        return Err(KernelError::Image { found: images.len() });
    };
    let root = format!("usr/lib/modules/{version}/");
    let all = all_modules(debian, &root);
    let builtin = builtin(debian, &root);
    let wanted = choose(&all, &builtin, modules)?;
    let kept = close(&all, wanted)?;
    for (line, name) in initrd.lines() {
        let (list, name) = (initrd.name.to_owned(), canonical(name));
        if !kept.contains_key(&name) && !builtin.contains(&name) {
            return Err(match all.contains_key(&name) {
                true => KernelError::NotKept { list, line, module: name },
                false => KernelError::Unmatched { list, line, pattern: name },
            });
        }
    }

    let mut inner = Tree::default();
    let mut put = |path: String, node: Node| {
        // Every path here is one of the .deb's, or ours.
        inner.put(&path, node).map_err(|e| KernelError::Module { path, what: e.to_string() })
    };
    for module in kept.values() {
        let node = Node::file(Arc::clone(&module.bytes), 0o644, &*module.from);
        put(format!("{root}{}", module.path), Node { mtime: module.mtime, ..node })?;
    }
    for (name, text) in tables(&kept) {
        put(format!("{root}{name}"), Node::file(text.into_bytes(), 0o644, ours))?;
    }
    for name in ["modules.builtin", "modules.builtin.modinfo"] {
        if let Some(node) = debian.get(&format!("{root}{name}")) {
            put(format!("{root}{name}"), node.clone())?;
        }
    }
    for (path, node) in debian.iter().filter(|(p, _)| p.ends_with("/copyright")) {
        put(path.to_owned(), node.clone())?;
    }
    let used: BTreeSet<&str> =
        kept.values().map(|m| m.from.as_str()).chain([image.from.as_str()]).collect();
    for (path, node) in debian.iter().filter(|(p, _)| p.starts_with(record::FOLDER)) {
        if used.contains(node.from.as_str()) {
            put(path.to_owned(), node.clone())?;
        }
    }
    let names: String = initrd.lines().map(|(_, name)| canonical(name) + "\n").collect();
    put("usr/lib/eve/initrd-modules".to_owned(), Node::file(names.into_bytes(), 0o644, ours))?;

    let tar = inner
        .to_tar(epoch)
        .map_err(|e| KernelError::Module { path: "kernel.tar".to_owned(), what: e.to_string() })?;
    let mut out = Tree::default();
    let nodes = [("kernel", image.clone()), ("kernel.tar", Node::file(tar, 0o644, ours))];
    for (path, node) in nodes {
        out.put(path, Node { mode: 0o644, ..node })
            .map_err(|e| KernelError::Module { path: path.to_owned(), what: e.to_string() })?;
    }
    Ok(out)
}

/// A module's name: the kernel takes `-` and `_` for the same.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// A module's name from its path.
fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    canonical(file.split(".ko").next().unwrap_or(file))
}

/// Every module of the .deb: name to its path below the version's folder and its node.
fn all_modules<'a>(debian: &'a Tree, root: &str) -> BTreeMap<String, (String, &'a Node)> {
    let files = debian.iter().filter_map(|(path, node)| {
        let below = path.strip_prefix(root)?;
        let plain = below.strip_suffix(".xz").unwrap_or(below);
        plain.ends_with(".ko").then(|| (name_of(plain), (below.to_owned(), node)))
    });
    files.collect()
}

fn builtin(debian: &Tree, root: &str) -> BTreeSet<String> {
    let bytes = debian.get(&format!("{root}modules.builtin")).and_then(Node::bytes);
    let text = bytes.map(|b| String::from_utf8_lossy(b).into_owned()).unwrap_or_default();
    text.lines().map(name_of).collect()
}

fn choose(
    all: &BTreeMap<String, (String, &Node)>,
    builtin: &BTreeSet<String>,
    list: List<'_>,
) -> Result<BTreeSet<String>, KernelError> {
    let mut wanted = BTreeSet::new();
    for (line, pattern) in list.lines() {
        let (add, glob) = match pattern.strip_prefix('!') {
            Some(glob) => (false, glob.trim()),
            None => (true, pattern),
        };
        let unmatched = || KernelError::Unmatched {
            list: list.name.to_owned(),
            line,
            pattern: pattern.to_owned(),
        };
        let by_path = glob.contains('/');
        // `**` stands for folders; a module in any of them is meant.
        let any = if glob.ends_with("/**") { "/*" } else { "" };
        let text = if by_path { format!("kernel/{glob}{any}.ko*") } else { canonical(glob) };
        let glob = glob::Pattern::new(&text).map_err(|_| unmatched())?;
        let how = glob::MatchOptions {
            case_sensitive: true,
            require_literal_separator: true,
            require_literal_leading_dot: false,
        };
        let hits = all.iter().filter(|(name, (path, _))| {
            glob.matches_with(if by_path { path } else { name.as_str() }, how)
        });
        let hits: Vec<&String> = hits.map(|(name, _)| name).collect();
        if hits.is_empty() && (by_path || !builtin.iter().any(|b| glob.matches(b))) {
            return Err(unmatched());
        }
        for name in hits {
            if add {
                wanted.insert(name.clone());
            } else {
                wanted.remove(name);
            }
        }
    }
    Ok(wanted)
}

/// The wanted modules and all they need, unpacked.
fn close(
    all: &BTreeMap<String, (String, &Node)>,
    wanted: BTreeSet<String>,
) -> Result<BTreeMap<String, Module>, KernelError> {
    let mut kept = BTreeMap::new();
    let mut open: Vec<String> = wanted.into_iter().collect();
    while let Some(name) = open.pop() {
        if kept.contains_key(&name) {
            continue;
        }
        // What is not here is built in.
        let Some((path, node)) = all.get(&name) else { continue };
        let odd = |what: String| KernelError::Module { path: path.clone(), what };
        let bytes = unpack(path, node).map_err(odd)?;
        let info = info(&bytes).ok_or_else(|| odd("it has no .modinfo section".to_owned()))?;
        let soft = info.soft.iter().flat_map(|s| s.split_whitespace());
        let soft = soft.filter(|word| !word.ends_with(':')).map(canonical);
        open.extend(info.depends.iter().cloned().chain(soft));
        let path = path.strip_suffix(".xz").unwrap_or(path).to_owned();
        let from = node.from.clone();
        kept.insert(name, Module { path, bytes, mtime: node.mtime, from, info });
    }
    Ok(kept)
}

fn unpack(path: &str, node: &Node) -> Result<Arc<[u8]>, String> {
    let Kind::File(bytes) = &node.kind else { return Err("it is no file".to_owned()) };
    if !path.ends_with(".xz") {
        return Ok(Arc::clone(bytes));
    }
    let mut plain = Vec::new();
    let packed = liblzma::read::XzDecoder::new(&bytes[..]);
    let read = packed.take(MODULE_MAX + 1).read_to_end(&mut plain);
    match read {
        Ok(n) if n as u64 > MODULE_MAX => Err("it unpacks to more than 128 MiB".to_owned()),
        Ok(_) => Ok(plain.into()),
        Err(e) => Err(e.to_string()),
    }
}

/// Reads a module's `.modinfo`: `key=value`, each ended by a zero byte. `None` if there is none.
fn info(elf: &[u8]) -> Option<Info> {
    let text = Elf::parse(elf).ok()?.section(".modinfo").ok()??;
    let mut info = Info::default();
    for entry in text.split(|b| *b == 0) {
        let entry = String::from_utf8_lossy(entry);
        match entry.split_once('=') {
            Some(("depends", list)) => {
                info.depends.extend(list.split(',').filter(|n| !n.is_empty()).map(canonical));
            }
            Some(("softdep", text)) => info.soft.push(text.to_owned()),
            Some(("alias", alias)) => info.aliases.push(alias.to_owned()),
            _ => {}
        }
    }
    Some(info)
}

/// The tables beside the modules, in the text forms of modules.dep(5) and modprobe.d(5).
fn tables(kept: &BTreeMap<String, Module>) -> [(&'static str, String); 5] {
    let mut by_path: Vec<(&String, &Module)> = kept.iter().collect();
    by_path.sort_by(|a, b| a.1.path.cmp(&b.1.path));
    let (mut dep, mut alias, mut soft) = (String::new(), String::new(), String::new());
    let (mut order, mut devname) = (String::new(), String::new());
    for (name, module) in by_path {
        let needs = needs(kept, name);
        let paths: Vec<&str> = needs.iter().map(|n| kept[*n].path.as_str()).collect();
        dep += &format!(
            "{}:{}\n",
            module.path,
            paths.iter().map(|p| format!(" {p}")).collect::<String>()
        );
        order += &format!("{}\n", module.path);
        for text in &module.info.aliases {
            alias += &format!("alias {text} {name}\n");
        }
        for text in &module.info.soft {
            soft += &format!("softdep {name} {text}\n");
        }
        devname += &device_node(name, &module.info.aliases).unwrap_or_default();
    }
    [
        ("modules.dep", dep),
        ("modules.alias", alias),
        ("modules.softdep", soft),
        ("modules.order", order),
        ("modules.devname", devname),
    ]
}

/// All that a module needs; loaded from the last to the first, each finds what it needs loaded.
fn needs<'a>(kept: &'a BTreeMap<String, Module>, name: &str) -> Vec<&'a str> {
    fn visit<'a>(kept: &'a BTreeMap<String, Module>, name: &str, done: &mut Vec<&'a str>) {
        for need in kept.get(name).map(|m| m.info.depends.as_slice()).unwrap_or_default() {
            let Some((key, _)) = kept.get_key_value(need) else { continue };
            if !done.contains(&key.as_str()) {
                visit(kept, key, done);
                if !done.contains(&key.as_str()) {
                    done.push(key);
                }
            }
        }
    }
    let mut done = Vec::new();
    visit(kept, name, &mut done);
    done.reverse();
    done
}

/// A line of modules.devname, from the aliases `char-major-10-200` and `devname:net/tun`.
fn device_node(name: &str, aliases: &[String]) -> Option<String> {
    let node = aliases.iter().find_map(|a| a.strip_prefix("devname:"))?;
    let major = aliases.iter().find_map(|a| {
        let (kind, rest) = a.split_once("-major-")?;
        let (major, minor) = rest.split_once('-')?;
        let kind = if kind == "char" { 'c' } else { 'b' };
        Some(format!("{kind}{major}:{minor}"))
    })?;
    Some(format!("{name} {node} {major}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF file with nothing but this `.modinfo`.
    fn elf(modinfo: &str) -> Vec<u8> {
        let names = b"\0.modinfo\0";
        let text = modinfo.replace('\n', "\0");
        let mut out = vec![0; 64];
        out[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let (at_names, at_text) = (64, 64 + names.len());
        out.extend_from_slice(names);
        out.extend_from_slice(text.as_bytes());
        let table = out.len();
        for (name, start, len) in [(0, at_names, names.len()), (1, at_text, text.len())] {
            let mut head = [0; 64];
            head[0] = name;
            head[0x18..0x20].copy_from_slice(&(start as u64).to_le_bytes());
            head[0x20..0x28].copy_from_slice(&(len as u64).to_le_bytes());
            out.extend_from_slice(&head);
        }
        out[0x28..0x30].copy_from_slice(&(table as u64).to_le_bytes());
        out[0x3a] = 64;
        out[0x3c] = 2;
        out
    }

    fn debian() -> Tree {
        let mut tree = Tree::default();
        let root = "usr/lib/modules/6.12/";
        for (path, modinfo) in [
            ("kernel/net/nat.ko", "depends=conntrack,x-tables\n"),
            ("kernel/net/conntrack.ko", "depends=defrag\n"),
            ("kernel/net/defrag.ko", "depends=\n"),
            ("kernel/net/x_tables.ko", "license=GPL\n"),
            ("kernel/drivers/net/tun.ko", "alias=devname:net/tun\nalias=char-major-10-200\n"),
            ("kernel/drivers/net/r8169.ko", "depends=mii\nsoftdep=pre: realtek\n"),
            ("kernel/drivers/net/phy/realtek.ko", "alias=mdio:0\n"),
            ("kernel/drivers/gpu/nouveau.ko", "depends=\n"),
        ] {
            tree.put(&format!("{root}{path}"), Node::file(elf(modinfo), 0o644, "t")).unwrap();
        }
        let builtin = Node::file(&b"kernel/drivers/net/mii.ko\n"[..], 0o644, "t");
        tree.put(&format!("{root}modules.builtin"), builtin).unwrap();
        tree.put("boot/vmlinuz-6.12", Node::file(&b"bzImage"[..], 0o600, "t")).unwrap();
        tree
    }

    /// The members of kernel.tar that are modules, and the text of one table.
    fn make(modules: &str, initrd: &str, table: &str) -> Result<(String, String), KernelError> {
        let list = |name, text| List { name, text, arch: Arch::Amd64 };
        let tree =
            package(&debian(), list("modules.list", modules), list("initrd.list", initrd), "o", 0)?;
        let mut tar = tar::Archive::new(&tree.get("kernel.tar").unwrap().bytes().unwrap()[..]);
        let (mut names, mut text) = (Vec::new(), String::new());
        for entry in tar.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            if path.ends_with(".ko") {
                names.push(name_of(&path));
            }
            if path.ends_with(table) {
                entry.read_to_string(&mut text).unwrap();
            }
        }
        Ok((names.join(" "), text))
    }

    #[test]
    fn what_a_module_needs_comes_along_in_loading_order() {
        let (names, dep) = make("nat", "nat", "modules.dep").unwrap();
        assert_eq!(names, "conntrack defrag nat x_tables");
        let nat = dep.lines().find(|l| l.starts_with("kernel/net/nat.ko:")).unwrap();
        let order: Vec<String> = nat.split(' ').skip(1).map(name_of).collect();
        assert_eq!(order, ["x_tables", "conntrack", "defrag"]);
    }

    #[test]
    fn soft_needs_come_along_and_builtins_are_fine() {
        let (names, soft) =
            make("r8169\nmii # built in", "mii\nrealtek", "modules.softdep").unwrap();
        assert_eq!(names, "realtek r8169");
        assert_eq!(soft, "softdep r8169 pre: realtek\n");
    }

    #[test]
    fn patterns_take_paths_and_the_last_counts() {
        let (names, devname) =
            make("drivers/**\n!drivers/gpu/*\n", "tun", "modules.devname").unwrap();
        assert_eq!(names, "realtek r8169 tun");
        assert_eq!(devname, "tun net/tun c10:200\n");
    }

    #[test]
    fn a_line_for_other_architectures_is_passed_over() {
        let list = "defrag [amd64]\nsdhci_iproc [arm64 riscv64]\ntun [arm64 amd64] # x\n";
        assert_eq!(make(list, "", "-").unwrap().0, "tun defrag");
    }

    #[test]
    fn a_pattern_for_nothing_is_an_error_with_its_line() {
        let unmatched = make("nat\n\n# x\nvirtio_blk\n", "", "-").unwrap_err();
        assert_eq!(
            unmatched.to_string(),
            "modules.list:4: no module or built-in matches \"virtio_blk\""
        );
        let left_out = make("nat\n", "nat\ntun\n", "-").unwrap_err();
        assert!(matches!(left_out, KernelError::NotKept { line: 2, .. }), "{left_out}");
    }

    #[test]
    fn odd_modules_are_refused_without_a_panic() {
        let whole = elf("depends=a\n");
        assert_eq!(info(&whole).unwrap().depends, ["a"]);
        for cut in 0..whole.len() {
            let _ = info(&whole[..cut]);
        }
        let mut wild = whole.clone();
        wild[0x28..0x30].copy_from_slice(&[0xff; 8]);
        assert_eq!(info(&wild), None);
        let mut tree = debian();
        let path = "usr/lib/modules/6.12/kernel/net/defrag.ko";
        tree.put(path, Node::file(&b"not elf"[..], 0o644, "t")).unwrap();
        let list = |text| List { name: "l", text, arch: Arch::Amd64 };
        let error = package(&tree, list("nat"), list(""), "o", 0).unwrap_err();
        assert!(matches!(error, KernelError::Module { .. }), "{error}");
    }
}
