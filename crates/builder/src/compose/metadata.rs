//! The description as it is put into the image: `metadata: yaml` and `metadata: json`.
//!
//! Image names are expanded, except those of volumes. In YAML, values that come from the OCI runtime
//! specification have their Go names in lower case and are never left out; everything else has the
//! names of the yml file. Both as the reference does it.

use std::collections::BTreeMap;

use super::description::{
    BindNamespaces, Container, Description, Device, FileEntry, Interface, Kernel, Owner, Run,
    Runtime, Volume,
};
use super::gojson;
use super::goyaml::{self, Tree};
use super::oci::{
    BlockIo, Cpu, DeviceRule, IdMapping, InterfacePriority, Memory, Mount, NetworkRule, Resources,
};

/// The description with full image names.
pub(super) fn expanded(description: &Description) -> Description {
    let mut d = description.clone();
    if !d.kernel.image.is_empty() {
        d.kernel.image = store::name::expand(&d.kernel.image);
    }
    let containers =
        d.onboot.iter_mut().chain(&mut d.onshutdown).chain(&mut d.services).map(|c| &mut c.image);
    for name in d.init.iter_mut().chain(containers) {
        *name = store::name::expand(name);
    }
    d
}

/// As JSON.
pub(super) fn json(description: &Description) -> String {
    gojson::print(&expanded(description), "    ")
}

/// As YAML, names expanded.
pub(super) fn yaml(description: &Description) -> String {
    plain_yaml(&expanded(description))
}

/// As YAML, names as they stand.
pub(super) fn plain_yaml(d: &Description) -> String {
    let entries = Entries::new()
        .always("kernel", kernel(&d.kernel))
        .always("init", texts(&d.init))
        .always("onboot", list(&d.onboot, container))
        .always("onshutdown", list(&d.onshutdown, container))
        .always("services", list(&d.services, container))
        .always("files", list(&d.files, file))
        .always("volumes", list(&d.volumes, volume));
    goyaml::print(&entries.0)
}

/// Entries of a mapping in the making.
struct Entries(Vec<(String, Tree)>);

impl Entries {
    fn new() -> Entries {
        Entries(Vec::new())
    }

    fn always(mut self, key: &str, value: Tree) -> Entries {
        self.0.push((key.to_owned(), value));
        self
    }

    fn said<T>(self, key: &str, value: Option<T>, tree: impl FnOnce(T) -> Tree) -> Entries {
        match value {
            Some(value) => self.always(key, tree(value)),
            None => self,
        }
    }

    /// Left out when empty.
    fn text(self, key: &str, value: &str) -> Entries {
        if value.is_empty() { self } else { self.always(key, text(value)) }
    }

    fn map(self) -> Tree {
        Tree::Map(self.0)
    }
}

fn text(value: &str) -> Tree {
    Tree::Text(value.to_owned())
}

fn list<T>(items: &[T], tree: impl Fn(&T) -> Tree) -> Tree {
    Tree::List(items.iter().map(tree).collect())
}

fn texts(items: &[String]) -> Tree {
    list(items, |item| text(item))
}

fn int(n: impl Into<i128>) -> Tree {
    Tree::Int(n.into())
}

fn or_null<T>(value: &Option<T>, tree: impl FnOnce(&T) -> Tree) -> Tree {
    value.as_ref().map_or(Tree::Null, tree)
}

fn text_map(map: &BTreeMap<String, String>) -> Tree {
    let mut entries: Vec<_> = map.iter().map(|(k, v)| (k.clone(), text(v))).collect();
    entries.sort_by(|(a, _), (b, _)| goyaml::compare_keys(a, b));
    Tree::Map(entries)
}

fn owner(owner: &Owner) -> Tree {
    match owner {
        Owner::Id(n) => int(*n),
        Owner::Name(name) => text(name),
    }
}

fn kernel(k: &Kernel) -> Tree {
    Entries::new()
        .always("image", text(&k.image))
        .text("cmdline", &k.cmdline)
        .text("binary", &k.binary)
        .said("tar", k.tar.as_deref(), text)
        .said("ucode", k.ucode.as_deref(), text)
        .map()
}

fn container(c: &Container) -> Tree {
    let entries = Entries::new().always("name", text(&c.name)).always("image", text(&c.image));
    run(entries, &c.run).map()
}

fn run(entries: Entries, r: &Run) -> Entries {
    let mappings = |m: &Vec<IdMapping>| list(m, id_mapping);
    entries
        .said("capabilities", r.capabilities.as_deref(), texts)
        .said("capabilities.add", r.capabilities_add.as_deref(), texts)
        .said("ambient", r.ambient.as_deref(), texts)
        .said("mounts", r.mounts.as_ref(), |m| list(m, mount))
        .said("binds", r.binds.as_deref(), texts)
        .said("binds.add", r.binds_add.as_deref(), texts)
        .said("devices", r.devices.as_ref(), |d| list(d, device))
        .said("tmpfs", r.tmpfs.as_deref(), texts)
        .said("command", r.command.as_deref(), texts)
        .said("env", r.env.as_deref(), texts)
        .text("cwd", &r.cwd)
        .text("net", &r.net)
        .text("pid", &r.pid)
        .text("ipc", &r.ipc)
        .text("uts", &r.uts)
        .text("userns", &r.userns)
        .text("hostname", &r.hostname)
        .said("readonly", r.readonly, Tree::Bool)
        .said("maskedPaths", r.masked_paths.as_deref(), texts)
        .said("readonlyPaths", r.readonly_paths.as_deref(), texts)
        .said("uid", r.uid.as_ref(), owner)
        .said("gid", r.gid.as_ref(), owner)
        .said("additionalGids", r.additional_gids.as_ref(), |g| list(g, owner))
        .said("noNewPrivileges", r.no_new_privileges, Tree::Bool)
        .said("oomScoreAdj", r.oom_score_adj, int)
        .said("rootfsPropagation", r.rootfs_propagation.as_deref(), text)
        .said("cgroupsPath", r.cgroups_path.as_deref(), text)
        .said("resources", r.resources.as_ref(), resources)
        .said("sysctl", r.sysctl.as_ref(), text_map)
        .said("rlimits", r.rlimits.as_deref(), texts)
        .said("uidMappings", r.uid_mappings.as_ref(), mappings)
        .said("gidMappings", r.gid_mappings.as_ref(), mappings)
        .said("annotations", r.annotations.as_ref(), text_map)
        .said("runtime", r.runtime.as_ref(), runtime)
}

fn mount(m: &Mount) -> Tree {
    Entries::new()
        .always("destination", text(&m.destination))
        .always("type", text(&m.kind))
        .always("source", text(&m.source))
        .always("options", texts(&m.options))
        .always("uidmappings", list(&m.uid_mappings, id_mapping))
        .always("gidmappings", list(&m.gid_mappings, id_mapping))
        .map()
}

fn id_mapping(m: &IdMapping) -> Tree {
    Entries::new()
        .always("containerid", int(m.container_id))
        .always("hostid", int(m.host_id))
        .always("size", int(m.size))
        .map()
}

fn device(d: &Device) -> Tree {
    Entries::new()
        .always("path", text(&d.path))
        .always("type", text(&d.kind))
        .always("major", int(d.major))
        .always("minor", int(d.minor))
        .text("mode", &d.mode)
        .map()
}

fn resources(r: &Resources) -> Tree {
    Entries::new()
        .always("devices", list(&r.devices, device_rule))
        .always("memory", or_null(&r.memory, memory))
        .always("cpu", or_null(&r.cpu, cpu))
        .always("pids", or_null(&r.pids, |p| Entries::new().always("limit", int(p.limit)).map()))
        .always("blockio", or_null(&r.block_io, block_io))
        .always("hugepagelimits", Tree::List(Vec::new()))
        .always("network", or_null(&r.network, network))
        .always("rdma", Tree::Map(Vec::new()))
        .always("unified", Tree::Map(Vec::new()))
        .map()
}

fn device_rule(d: &DeviceRule) -> Tree {
    Entries::new()
        .always("allow", Tree::Bool(d.allow))
        .always("type", text(&d.kind))
        .always("major", or_null(&d.major, |n| int(*n)))
        .always("minor", or_null(&d.minor, |n| int(*n)))
        .always("access", text(&d.access))
        .map()
}

fn memory(m: &Memory) -> Tree {
    let number = |n: &Option<i64>| or_null(n, |n| int(*n));
    Entries::new()
        .always("limit", number(&m.limit))
        .always("reservation", number(&m.reservation))
        .always("swap", number(&m.swap))
        .always("kernel", number(&m.kernel))
        .always("kerneltcp", Tree::Null)
        .always("swappiness", or_null(&m.swappiness, |n| int(*n)))
        .always("disableoomkiller", Tree::Null)
        .always("usehierarchy", Tree::Null)
        .always("checkbeforeupdate", Tree::Null)
        .map()
}

fn cpu(c: &Cpu) -> Tree {
    Entries::new()
        .always("shares", or_null(&c.shares, |n| int(*n)))
        .always("quota", or_null(&c.quota, |n| int(*n)))
        .always("burst", Tree::Null)
        .always("period", or_null(&c.period, |n| int(*n)))
        .always("realtimeruntime", Tree::Null)
        .always("realtimeperiod", Tree::Null)
        .always("cpus", text(&c.cpus))
        .always("mems", text(&c.mems))
        .always("idle", Tree::Null)
        .map()
}

fn block_io(b: &BlockIo) -> Tree {
    let none = || Tree::List(Vec::new());
    Entries::new()
        .always("weight", or_null(&b.weight, |n| int(*n)))
        .always("leafweight", Tree::Null)
        .always("weightdevice", none())
        .always("throttlereadbpsdevice", none())
        .always("throttlewritebpsdevice", none())
        .always("throttlereadiopsdevice", none())
        .always("throttlewriteiopsdevice", none())
        .map()
}

fn network(n: &NetworkRule) -> Tree {
    let priority = |p: &InterfacePriority| {
        Entries::new().always("name", text(&p.name)).always("priority", int(p.priority)).map()
    };
    Entries::new()
        .always("classid", Tree::Null)
        .always("priorities", list(&n.priorities, priority))
        .map()
}

fn runtime(r: &Runtime) -> Tree {
    let entries = Entries::new()
        .said("cgroups", r.cgroups.as_deref(), texts)
        .said("mounts", r.mounts.as_ref(), |m| list(m, mount))
        .said("mkdir", r.mkdir.as_deref(), texts)
        .said("interfaces", r.interfaces.as_ref(), |i| list(i, interface));
    let entries = if r.bind_ns == BindNamespaces::default() {
        entries
    } else {
        entries.always("bindNS", bind_namespaces(&r.bind_ns))
    };
    entries.said("namespace", r.namespace.as_deref(), text).map()
}

fn bind_namespaces(b: &BindNamespaces) -> Tree {
    Entries::new()
        .said("cgroup", b.cgroup.as_deref(), text)
        .said("ipc", b.ipc.as_deref(), text)
        .said("mnt", b.mnt.as_deref(), text)
        .said("net", b.net.as_deref(), text)
        .said("pid", b.pid.as_deref(), text)
        .said("user", b.user.as_deref(), text)
        .said("uts", b.uts.as_deref(), text)
        .map()
}

fn interface(i: &Interface) -> Tree {
    Entries::new()
        .text("name", &i.name)
        .text("add", &i.add)
        .text("peer", &i.peer)
        .always("createInRoot", Tree::Bool(i.create_in_root))
        .map()
}

fn file(f: &FileEntry) -> Tree {
    Entries::new()
        .always("path", text(&f.path))
        .always("directory", Tree::Bool(f.directory))
        .text("symlink", &f.symlink)
        .said("contents", f.contents.as_deref(), text)
        .text("source", &f.source)
        .text("metadata", &f.metadata)
        .always("optional", Tree::Bool(f.optional))
        .text("mode", &f.mode)
        .said("uid", f.uid.as_ref(), owner)
        .said("gid", f.gid.as_ref(), owner)
        .map()
}

fn volume(v: &Volume) -> Tree {
    let entries = Entries::new().always("name", text(&v.name)).text("image", &v.image);
    let entries = if v.readonly { entries.always("readonly", Tree::Bool(true)) } else { entries };
    let entries = entries.text("format", &v.format);
    if v.platforms.is_empty() {
        return entries.map();
    }
    entries.always("platforms", texts(&v.platforms)).map()
}
