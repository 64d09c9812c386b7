//! Text to [`Description`]: every key checked, every mistake with file, line and column.
//!
//! The keys are those of linuxkit's schema. Where that is stricter than its decoder by accident we
//! take both: `yes`, `no`, `on`, `off` are booleans where one belongs, and a `mode` may stand without
//! quotes and keeps its digits.

use std::collections::{BTreeMap, HashMap};

use super::ComposeError;
use super::description::{
    BindNamespaces, Container, Description, Device, FileEntry, Interface, Kernel, Owner, Run,
    Runtime, Volume,
};
use super::oci::{
    BlockIo, Cpu, DeviceRule, IdMapping, InterfacePriority, Memory, Mount, NetworkRule, Pids,
    Resources,
};
use super::yaml::{self, Key, Meaning, Node, Place, Value};

/// Finds the tag of the package that `@pkg:<path>` names. The error says why it cannot.
pub type PackageTag<'a> = dyn Fn(&str) -> std::result::Result<String, String> + 'a;

type Result<T> = std::result::Result<T, ComposeError>;

impl Description {
    /// Reads files, `(name, text)` each, as one description: lists append, of the kernel's fields
    /// the last one said counts.
    pub fn parse(files: &[(&str, &str)], package: &PackageTag<'_>) -> Result<Description> {
        let mut whole = Description::default();
        let mut names = Names::default();
        for (file, text) in files {
            let mut root = yaml::parse(file, text)?;
            let mut warnings = Vec::new();
            fill_packages(file, &mut root, package, &mut warnings)?;
            let reader = Reader { file, warnings };
            append(&mut whole, reader.description(&root)?);
            names.take(file, &root)?;
        }
        Ok(whole)
    }
}

/// Where the names stand that must differ from each other, in all files: of services and volumes.
#[derive(Default)]
struct Names(HashMap<(&'static str, String), (String, Place)>);

impl Names {
    fn take(&mut self, file: &str, root: &Node) -> Result<()> {
        for what in ["services", "volumes"] {
            for name in names(root, what) {
                let Value::Scalar { text, .. } = &name.value else { continue };
                let here = (file.to_owned(), name.at);
                let Some((other, at)) = self.0.insert((what, text.clone()), here) else { continue };
                let other = format!("{other}:{}:{}", at.line, at.column);
                let why = format!("two {what} are named {text:?}, the other one at {other}");
                return Err(ComposeError::at(file, name.at, &why));
            }
        }
        Ok(())
    }
}

/// The names in a list of mappings.
fn names<'n>(root: &'n Node, list: &str) -> impl Iterator<Item = &'n Node> {
    fn get<'n>(node: &'n Node, key: &str) -> Option<&'n Node> {
        let Value::Map(entries) = &node.value else { return None };
        entries.iter().find(|(k, _)| k.text == key).map(|(_, node)| node)
    }
    let items = match get(root, list).map(|node| &node.value) {
        Some(Value::List(items)) => items.as_slice(),
        _ => &[],
    };
    items.iter().filter_map(|item| get(item, "name"))
}

/// Reads the label `org.mobyproject.config` of `image`.
pub(super) fn label(image: &str, text: &str) -> Result<Run> {
    let file = format!("label org.mobyproject.config of {image}");
    let root = yaml::parse(&file, text)?;
    let mut reader = Reader { file: &file, warnings: Vec::new() };
    let fields = reader.map(&root, "the label", &RUN_KEYS)?;
    reader.run(&fields)
}

fn append(whole: &mut Description, mut more: Description) {
    let kernel = &mut whole.kernel;
    for (old, new) in [
        (&mut kernel.image, more.kernel.image),
        (&mut kernel.cmdline, more.kernel.cmdline),
        (&mut kernel.binary, more.kernel.binary),
    ] {
        if !new.is_empty() {
            *old = new;
        }
    }
    kernel.tar = more.kernel.tar.or(kernel.tar.take());
    kernel.ucode = more.kernel.ucode.or(kernel.ucode.take());
    whole.init.append(&mut more.init);
    whole.onboot.append(&mut more.onboot);
    whole.onshutdown.append(&mut more.onshutdown);
    whole.services.append(&mut more.services);
    whole.files.append(&mut more.files);
    whole.volumes.append(&mut more.volumes);
    whole.warnings.append(&mut more.warnings);
}

/// Replaces every scalar `@pkg:<path>` by what the caller makes of the path. The reference makes
/// nothing of any other text that starts with `@`, and so do we.
fn fill_packages(
    file: &str,
    node: &mut Node,
    package: &PackageTag<'_>,
    warnings: &mut Vec<String>,
) -> Result<()> {
    match &mut node.value {
        Value::Scalar { text, plain } => {
            if let Some(path) = text.strip_prefix("@pkg:") {
                let tag = package(path);
                *text = tag.map_err(|why| {
                    ComposeError::at(file, node.at, &format!("@pkg:{path}: {why}"))
                })?;
                *plain = false;
            } else if text.starts_with('@') {
                let line = node.at.line;
                let why = "text that starts with @ counts as empty, as in linuxkit";
                warnings.push(format!("{file}:{line}: {why}"));
                text.clear();
                *plain = false;
            }
            Ok(())
        }
        Value::List(items) => {
            items.iter_mut().try_for_each(|n| fill_packages(file, n, package, warnings))
        }
        Value::Map(entries) => {
            entries.iter_mut().try_for_each(|(_, n)| fill_packages(file, n, package, warnings))
        }
    }
}

/// The keys of a container that are not its name and image.
const RUN_KEYS: [&str; 34] = [
    "capabilities",
    "capabilities.add",
    "ambient",
    "mounts",
    "binds",
    "binds.add",
    "devices",
    "tmpfs",
    "command",
    "env",
    "cwd",
    "net",
    "pid",
    "ipc",
    "uts",
    "userns",
    "readonly",
    "maskedPaths",
    "readonlyPaths",
    "uid",
    "gid",
    "additionalGids",
    "noNewPrivileges",
    "hostname",
    "oomScoreAdj",
    "rootfsPropagation",
    "cgroupsPath",
    "resources",
    "sysctl",
    "rlimits",
    "uidMappings",
    "gidMappings",
    "annotations",
    "runtime",
];

struct Reader<'a> {
    file: &'a str,
    warnings: Vec<String>,
}

/// The entries of a mapping whose keys were checked.
struct Fields<'n> {
    entries: &'n [(Key, Node)],
}

impl<'n> Fields<'n> {
    fn get(&self, key: &str) -> Option<&'n Node> {
        self.entries.iter().find(|(k, _)| k.text == key).map(|(_, node)| node)
    }
}

impl Reader<'_> {
    fn description(mut self, root: &Node) -> Result<Description> {
        let keys =
            ["kernel", "init", "onboot", "onshutdown", "services", "trust", "files", "volumes"];
        let f = self.map(root, "the file", &keys)?;
        if let Some(trust) = f.get("trust") {
            // Read and ignored: signatures of images were checked by a service that is gone.
            let f = self.map(trust, "trust", &["image", "org"])?;
            self.strings(f.get("image"))?;
            self.strings(f.get("org"))?;
        }
        let kernel = match f.get("kernel") {
            Some(node) => self.kernel(node)?,
            None => Kernel::default(),
        };
        Ok(Description {
            kernel,
            init: self.strings(f.get("init"))?.unwrap_or_default(),
            onboot: self.each(f.get("onboot"), Self::container)?.unwrap_or_default(),
            onshutdown: self.each(f.get("onshutdown"), Self::container)?.unwrap_or_default(),
            services: self.each(f.get("services"), Self::container)?.unwrap_or_default(),
            files: self.each(f.get("files"), Self::file)?.unwrap_or_default(),
            volumes: self.each(f.get("volumes"), Self::volume)?.unwrap_or_default(),
            warnings: self.warnings,
        })
    }

    fn kernel(&mut self, node: &Node) -> Result<Kernel> {
        let f = self.map(node, "kernel", &["image", "cmdline", "binary", "tar", "ucode"])?;
        Ok(Kernel {
            image: self.string(f.get("image"))?.unwrap_or_default(),
            cmdline: self.string(f.get("cmdline"))?.unwrap_or_default(),
            binary: self.string(f.get("binary"))?.unwrap_or_default(),
            tar: self.string(f.get("tar"))?,
            ucode: self.string(f.get("ucode"))?,
        })
    }

    fn container(&mut self, node: &Node) -> Result<Container> {
        let keys: Vec<&str> = ["name", "image"].into_iter().chain(RUN_KEYS).collect();
        let f = self.map(node, "a container", &keys)?;
        let required = |key: &str| {
            f.get(key).ok_or_else(|| self.fail(node, &format!("a container needs the key {key:?}")))
        };
        let (name, image) = (required("name")?, required("image")?);
        Ok(Container { name: self.text(name)?, image: self.text(image)?, run: self.run(&f)? })
    }

    fn run(&mut self, f: &Fields<'_>) -> Result<Run> {
        let text = |key| self.string(f.get(key)).map(Option::unwrap_or_default);
        let (cwd, net, pid, ipc) = (text("cwd")?, text("net")?, text("pid")?, text("ipc")?);
        let (uts, userns, hostname) = (text("uts")?, text("userns")?, text("hostname")?);
        Ok(Run {
            capabilities: self.strings(f.get("capabilities"))?,
            capabilities_add: self.strings(f.get("capabilities.add"))?,
            ambient: self.strings(f.get("ambient"))?,
            mounts: self.each(f.get("mounts"), Self::mount)?,
            binds: self.strings(f.get("binds"))?,
            binds_add: self.strings(f.get("binds.add"))?,
            devices: self.each(f.get("devices"), Self::device)?,
            tmpfs: self.strings(f.get("tmpfs"))?,
            command: self.strings(f.get("command"))?,
            env: self.strings(f.get("env"))?,
            cwd,
            net,
            pid,
            ipc,
            uts,
            userns,
            hostname,
            readonly: self.bool(f.get("readonly"))?,
            masked_paths: self.strings(f.get("maskedPaths"))?,
            readonly_paths: self.strings(f.get("readonlyPaths"))?,
            uid: self.one(f.get("uid"), Self::owner)?,
            gid: self.one(f.get("gid"), Self::owner)?,
            additional_gids: self.each(f.get("additionalGids"), Self::owner)?,
            no_new_privileges: self.bool(f.get("noNewPrivileges"))?,
            oom_score_adj: self.int(f.get("oomScoreAdj"))?,
            rootfs_propagation: self.string(f.get("rootfsPropagation"))?,
            cgroups_path: self.string(f.get("cgroupsPath"))?,
            resources: self.one(f.get("resources"), Self::resources)?,
            sysctl: self.one(f.get("sysctl"), Self::text_map)?,
            rlimits: self.strings(f.get("rlimits"))?,
            uid_mappings: self.each(f.get("uidMappings"), Self::id_mapping)?,
            gid_mappings: self.each(f.get("gidMappings"), Self::id_mapping)?,
            annotations: self.one(f.get("annotations"), Self::text_map)?,
            runtime: self.one(f.get("runtime"), Self::runtime)?,
        })
    }

    fn mount(&mut self, node: &Node) -> Result<Mount> {
        let keys = ["destination", "type", "source", "options", "uidmappings", "gidmappings"];
        let f = self.map(node, "a mount", &keys)?;
        Ok(Mount {
            destination: self.string(f.get("destination"))?.unwrap_or_default(),
            kind: self.string(f.get("type"))?.unwrap_or_default(),
            source: self.string(f.get("source"))?.unwrap_or_default(),
            options: self.strings(f.get("options"))?.unwrap_or_default(),
            uid_mappings: self.each(f.get("uidmappings"), Self::id_mapping)?.unwrap_or_default(),
            gid_mappings: self.each(f.get("gidmappings"), Self::id_mapping)?.unwrap_or_default(),
        })
    }

    fn id_mapping(&mut self, node: &Node) -> Result<IdMapping> {
        let f = self.map(node, "an id mapping", &["hostID", "containerID", "size"])?;
        for key in ["hostID", "containerID"] {
            self.int::<u32>(f.get(key))?;
            self.ignored(&f, key);
        }
        let size = self.int(f.get("size"))?.unwrap_or_default();
        Ok(IdMapping { size, ..IdMapping::default() })
    }

    fn device(&mut self, node: &Node) -> Result<Device> {
        let f = self.map(node, "a device", &["path", "type", "major", "minor", "mode"])?;
        Ok(Device {
            path: self.string(f.get("path"))?.unwrap_or_default(),
            kind: self.string(f.get("type"))?.unwrap_or_default(),
            major: self.int(f.get("major"))?.unwrap_or_default(),
            minor: self.int(f.get("minor"))?.unwrap_or_default(),
            mode: self.digits(f.get("mode"))?,
        })
    }

    fn resources(&mut self, node: &Node) -> Result<Resources> {
        let keys = ["devices", "memory", "cpu", "pids", "blockio", "hugepageLimits", "network"];
        let f = self.map(node, "resources", &keys)?;
        if let Some(limits) = f.get("hugepageLimits") {
            self.each(Some(limits), |reader, node| {
                let f = reader.map(node, "a huge page limit", &["pageSize", "limit"])?;
                reader.int::<i64>(f.get("pageSize"))?;
                reader.int::<u64>(f.get("limit"))
            })?;
            self.ignored(&f, "hugepageLimits");
        }
        Ok(Resources {
            devices: self.each(f.get("devices"), Self::device_rule)?.unwrap_or_default(),
            memory: self.one(f.get("memory"), Self::memory)?,
            cpu: self.one(f.get("cpu"), Self::cpu)?,
            pids: self.one(f.get("pids"), |reader, node| {
                let f = reader.map(node, "pids", &["limit"])?;
                Ok(Pids { limit: reader.int(f.get("limit"))?.unwrap_or_default() })
            })?,
            block_io: self.one(f.get("blockio"), Self::block_io)?,
            network: self.one(f.get("network"), Self::network)?,
        })
    }

    fn device_rule(&mut self, node: &Node) -> Result<DeviceRule> {
        let keys = ["allow", "type", "major", "minor", "access"];
        let f = self.map(node, "a device rule", &keys)?;
        Ok(DeviceRule {
            allow: self.bool(f.get("allow"))?.unwrap_or_default(),
            kind: self.string(f.get("type"))?.unwrap_or_default(),
            major: self.int(f.get("major"))?,
            minor: self.int(f.get("minor"))?,
            access: self.string(f.get("access"))?.unwrap_or_default(),
        })
    }

    fn memory(&mut self, node: &Node) -> Result<Memory> {
        let keys = [
            "limit",
            "reservation",
            "swap",
            "kernel",
            "kernelTCP",
            "swappiness",
            "disableOOMKiller",
        ];
        let f = self.map(node, "memory", &keys)?;
        self.int::<i64>(f.get("kernelTCP"))?;
        self.bool(f.get("disableOOMKiller"))?;
        self.ignored(&f, "kernelTCP");
        self.ignored(&f, "disableOOMKiller");
        Ok(Memory {
            limit: self.int(f.get("limit"))?,
            reservation: self.int(f.get("reservation"))?,
            swap: self.int(f.get("swap"))?,
            kernel: self.int(f.get("kernel"))?,
            swappiness: self.int(f.get("swappiness"))?,
        })
    }

    fn cpu(&mut self, node: &Node) -> Result<Cpu> {
        let keys =
            ["shares", "quota", "period", "realtimeRuntime", "realtimePeriod", "cpus", "mems"];
        let f = self.map(node, "cpu", &keys)?;
        for key in ["realtimeRuntime", "realtimePeriod"] {
            self.int::<i64>(f.get(key))?;
            self.ignored(&f, key);
        }
        Ok(Cpu {
            shares: self.int(f.get("shares"))?,
            quota: self.int(f.get("quota"))?,
            period: self.int(f.get("period"))?,
            cpus: self.string(f.get("cpus"))?.unwrap_or_default(),
            mems: self.string(f.get("mems"))?.unwrap_or_default(),
        })
    }

    fn block_io(&mut self, node: &Node) -> Result<BlockIo> {
        const RATES: [&str; 4] = [
            "throttleReadBpsDevice",
            "throttleWriteBpsDevice",
            "throttleReadIOPSDevice",
            "throttleWriteIOPSDevice",
        ];
        let keys: Vec<&str> =
            ["weight", "leafWeight", "weightDevice"].into_iter().chain(RATES).collect();
        let f = self.map(node, "blockio", &keys)?;
        self.int::<u16>(f.get("leafWeight"))?;
        let numbers = |reader: &mut Self, list: Option<&Node>, keys: &[&str]| {
            reader.each(list, |reader, node| {
                let f = reader.map(node, "a device", keys)?;
                keys.iter().try_for_each(|key| reader.int::<u64>(f.get(key)).map(drop))
            })
        };
        let weights = ["major", "minor", "weight", "leafWeight"];
        numbers(self, f.get("weightDevice"), &weights)?;
        for key in RATES {
            numbers(self, f.get(key), &["major", "minor", "rate"])?;
        }
        for key in &keys[1..] {
            self.ignored(&f, key);
        }
        Ok(BlockIo { weight: self.int(f.get("weight"))? })
    }

    fn network(&mut self, node: &Node) -> Result<NetworkRule> {
        let f = self.map(node, "network", &["classID", "priorities"])?;
        self.int::<u32>(f.get("classID"))?;
        self.ignored(&f, "classID");
        let priorities = self.each(f.get("priorities"), |reader, node| {
            let f = reader.map(node, "a priority", &["name", "priority"])?;
            Ok(InterfacePriority {
                name: reader.string(f.get("name"))?.unwrap_or_default(),
                priority: reader.int(f.get("priority"))?.unwrap_or_default(),
            })
        })?;
        Ok(NetworkRule { priorities: priorities.unwrap_or_default() })
    }

    fn runtime(&mut self, node: &Node) -> Result<Runtime> {
        let keys = ["cgroups", "mounts", "mkdir", "interfaces", "bindNS", "namespace"];
        let f = self.map(node, "runtime", &keys)?;
        Ok(Runtime {
            cgroups: self.strings(f.get("cgroups"))?,
            mounts: self.each(f.get("mounts"), Self::mount)?,
            mkdir: self.strings(f.get("mkdir"))?,
            interfaces: self.each(f.get("interfaces"), Self::interface)?,
            bind_ns: self.one(f.get("bindNS"), Self::bind_namespaces)?.unwrap_or_default(),
            namespace: self.string(f.get("namespace"))?,
        })
    }

    fn interface(&mut self, node: &Node) -> Result<Interface> {
        let f = self.map(node, "an interface", &["name", "add", "peer", "createInRoot"])?;
        Ok(Interface {
            name: self.string(f.get("name"))?.unwrap_or_default(),
            add: self.string(f.get("add"))?.unwrap_or_default(),
            peer: self.string(f.get("peer"))?.unwrap_or_default(),
            create_in_root: self.bool(f.get("createInRoot"))?.unwrap_or_default(),
        })
    }

    fn bind_namespaces(&mut self, node: &Node) -> Result<BindNamespaces> {
        let keys = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];
        let f = self.map(node, "bindNS", &keys)?;
        Ok(BindNamespaces {
            cgroup: self.string(f.get("cgroup"))?,
            ipc: self.string(f.get("ipc"))?,
            mnt: self.string(f.get("mnt"))?,
            net: self.string(f.get("net"))?,
            pid: self.string(f.get("pid"))?,
            user: self.string(f.get("user"))?,
            uts: self.string(f.get("uts"))?,
        })
    }

    fn file(&mut self, node: &Node) -> Result<FileEntry> {
        let keys = [
            "path",
            "directory",
            "symlink",
            "contents",
            "source",
            "metadata",
            "optional",
            "mode",
            "uid",
            "gid",
        ];
        let f = self.map(node, "a file", &keys)?;
        Ok(FileEntry {
            path: self.string(f.get("path"))?.unwrap_or_default(),
            directory: self.bool(f.get("directory"))?.unwrap_or_default(),
            symlink: self.string(f.get("symlink"))?.unwrap_or_default(),
            contents: self.string(f.get("contents"))?,
            source: self.string(f.get("source"))?.unwrap_or_default(),
            metadata: self.string(f.get("metadata"))?.unwrap_or_default(),
            optional: self.bool(f.get("optional"))?.unwrap_or_default(),
            mode: self.digits(f.get("mode"))?,
            uid: self.one(f.get("uid"), Self::owner)?,
            gid: self.one(f.get("gid"), Self::owner)?,
        })
    }

    fn volume(&mut self, node: &Node) -> Result<Volume> {
        let keys = ["name", "image", "readonly", "format", "platforms"];
        let f = self.map(node, "a volume", &keys)?;
        let volume = Volume {
            name: self.string(f.get("name"))?.unwrap_or_default(),
            image: self.string(f.get("image"))?.unwrap_or_default(),
            readonly: self.bool(f.get("readonly"))?.unwrap_or_default(),
            format: self.string(f.get("format"))?.unwrap_or_default(),
            platforms: self.strings(f.get("platforms"))?.unwrap_or_default(),
        };
        let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
        if let Some(name) = f.get("name").filter(|_| !volume.name.chars().all(known)) {
            return Err(self.fail(name, "a volume's name has only a to z, 0 to 9, _ and -"));
        }
        let known = ["oci", "filesystem"].contains(&volume.format.as_str());
        if let Some(format) = f.get("format").filter(|_| !known) {
            return Err(self.fail(format, "allowed are \"filesystem\" and \"oci\""));
        }
        Ok(volume)
    }

    fn owner(&mut self, node: &Node) -> Result<Owner> {
        if let Meaning::Int(_) = node.meaning() {
            return Ok(Owner::Id(self.int(Some(node))?.unwrap_or_default()));
        }
        self.text(node).map(Owner::Name)
    }

    fn text_map(&mut self, node: &Node) -> Result<BTreeMap<String, String>> {
        let Value::Map(entries) = &node.value else {
            return Err(self.wrong(node, "a mapping"));
        };
        entries.iter().map(|(key, node)| Ok((key.text.clone(), self.text(node)?))).collect()
    }

    fn map<'n>(&self, node: &'n Node, what: &str, allowed: &[&str]) -> Result<Fields<'n>> {
        let Value::Map(entries) = &node.value else {
            return Err(self.wrong(node, "a mapping"));
        };
        match entries.iter().find(|(key, _)| !allowed.contains(&key.text.as_str())) {
            Some((key, _)) => Err(ComposeError::at(
                self.file,
                key.at,
                &format!("{what} has no key {:?}; allowed are {}", key.text, allowed.join(", ")),
            )),
            None => Ok(Fields { entries }),
        }
    }

    fn one<T>(
        &mut self,
        node: Option<&Node>,
        read: impl FnOnce(&mut Self, &Node) -> Result<T>,
    ) -> Result<Option<T>> {
        node.map(|node| read(self, node)).transpose()
    }

    fn each<T>(
        &mut self,
        node: Option<&Node>,
        mut read: impl FnMut(&mut Self, &Node) -> Result<T>,
    ) -> Result<Option<Vec<T>>> {
        let Some(node) = node else { return Ok(None) };
        let Value::List(items) = &node.value else {
            return Err(self.wrong(node, "a list"));
        };
        items.iter().map(|item| read(self, item)).collect::<Result<_>>().map(Some)
    }

    fn strings(&mut self, node: Option<&Node>) -> Result<Option<Vec<String>>> {
        self.each(node, |reader, node| reader.text(node))
    }

    fn string(&self, node: Option<&Node>) -> Result<Option<String>> {
        node.map(|node| self.text(node)).transpose()
    }

    fn text(&self, node: &Node) -> Result<String> {
        match (&node.value, node.meaning()) {
            (Value::Scalar { text, .. }, Meaning::Text) => Ok(text.clone()),
            (Value::Scalar { text, .. }, _) if !text.is_empty() => {
                let why = format!("text belongs here, not {}: write \"{text}\"", node.kind());
                Err(self.fail(node, &why))
            }
            _ => Err(self.wrong(node, "text")),
        }
    }

    /// Octal digits, with or without quotes.
    fn digits(&self, node: Option<&Node>) -> Result<String> {
        match node {
            None => Ok(String::new()),
            Some(Node { value: Value::Scalar { text, .. }, .. }) if !text.is_empty() => {
                Ok(text.clone())
            }
            Some(node) => self.text(node),
        }
    }

    fn bool(&self, node: Option<&Node>) -> Result<Option<bool>> {
        let Some(node) = node else { return Ok(None) };
        if let Meaning::Bool(b) = node.meaning() {
            return Ok(Some(b));
        }
        let old = match &node.value {
            Value::Scalar { text, plain: true } => match text.as_str() {
                "yes" | "Yes" | "YES" | "y" | "Y" | "on" | "On" | "ON" => Some(true),
                "no" | "No" | "NO" | "n" | "N" | "off" | "Off" | "OFF" => Some(false),
                _ => None,
            },
            _ => None,
        };
        old.map(Some).ok_or_else(|| self.wrong(node, "true or false"))
    }

    fn int<T: TryFrom<i128>>(&self, node: Option<&Node>) -> Result<Option<T>> {
        let Some(node) = node else { return Ok(None) };
        let n = match (node.meaning(), &node.value) {
            (Meaning::Int(n), _) => n,
            // JSON schema says that 5.0 is a whole number.
            (Meaning::Float, Value::Scalar { text, .. }) if whole(text).is_some() => {
                whole(text).unwrap_or_default()
            }
            _ => return Err(self.wrong(node, "a whole number")),
        };
        let too_large = |_| self.fail(node, &format!("{n} is out of range"));
        T::try_from(n).map(Some).map_err(too_large)
    }

    fn ignored(&mut self, fields: &Fields<'_>, key: &str) {
        if let Some(node) = fields.get(key) {
            let (file, line) = (self.file, node.at.line);
            self.warnings.push(format!("{file}:{line}: {key} has no effect, as in linuxkit"));
        }
    }

    fn wrong(&self, node: &Node, want: &str) -> ComposeError {
        self.fail(node, &format!("{want} belongs here, not {}", node.kind()))
    }

    fn fail(&self, node: &Node, why: &str) -> ComposeError {
        ComposeError::at(self.file, node.at, why)
    }
}

/// `5.0`, `-7.` and the like.
fn whole(text: &str) -> Option<i128> {
    let (number, fraction) = text.split_once('.')?;
    fraction.bytes().all(|b| b == b'0').then(|| number.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Description> {
        Description::parse(&[("x.yml", text)], &|path| match path {
            "pkg/a" => Ok("org/a:1".to_owned()),
            _ => Err("no such package".to_owned()),
        })
    }

    #[track_caller]
    fn refused(text: &str, want: &str) {
        assert_eq!(read(text).unwrap_err().to_string(), want);
    }

    #[test]
    fn mistakes_are_told_with_place_and_remedy() {
        refused(
            "kernel:\n  image: a/b\n  cmdlin: x\n",
            "x.yml:3:3: kernel has no key \"cmdlin\"; allowed are image, cmdline, binary, tar, ucode",
        );
        refused("init: a/b:1\n", "x.yml:1:7: a list belongs here, not text");
        refused("init:\n", "x.yml:1:5: a list belongs here, not nothing");
        refused("services:\n  - image: a/b\n", "x.yml:2:5: a container needs the key \"name\"");
        refused(
            "services:\n  - {name: a, image: b, env: [1.5]}\n",
            "x.yml:2:31: text belongs here, not a fraction: write \"1.5\"",
        );
        refused(
            "services:\n  - {name: a, image: b, oomScoreAdj: '5'}\n",
            "x.yml:2:38: a whole number belongs here, not text",
        );
        refused(
            "volumes: [{name: A}]",
            "x.yml:1:18: a volume's name has only a to z, 0 to 9, _ and -",
        );
        refused("init: ['@pkg:pkg/b']", "x.yml:1:8: @pkg:pkg/b: no such package");
        refused(
            "services: [{name: a, image: b}, {name: a, image: c}]",
            "x.yml:1:40: two services are named \"a\", the other one at x.yml:1:19",
        );
        let files = [("1", "volumes: [{name: v}]"), ("2", "\nvolumes:\n- name: v\n")];
        let error = Description::parse(&files, &|_| Err(String::new())).unwrap_err();
        let want = "2:3:9: two volumes are named \"v\", the other one at 1:1:18";
        assert_eq!(error.to_string(), want);
    }

    #[test]
    fn modes_and_old_booleans_are_taken_as_they_stand() {
        let d = read(
            "files: [{path: /a, contents: x, mode: 0666, optional: yes}]\n\
             services: [{name: a, image: '@pkg:pkg/a', readonly: off, uid: 0x10, gid: svc}]",
        )
        .unwrap();
        assert_eq!((d.files[0].mode.as_str(), d.files[0].optional), ("0666", true));
        let service = &d.services[0];
        assert_eq!(service.image, "org/a:1");
        assert_eq!(service.run.readonly, Some(false));
        assert_eq!(service.run.uid, Some(Owner::Id(16)));
        assert_eq!(service.run.gid, Some(Owner::Name("svc".to_owned())));
        let d = read("services: [{name: a, image: '@x', oomScoreAdj: -5.0}]").unwrap();
        assert_eq!(d.services[0].run.oom_score_adj, Some(-5));
        assert_eq!(d.services[0].image, "");
        let want = ["x.yml:1: text that starts with @ counts as empty, as in linuxkit"];
        assert_eq!(d.warnings, want);
    }

    #[test]
    fn files_append_and_the_last_kernel_counts() {
        let files = [
            ("1", "kernel: {image: a/k:1, cmdline: x, tar: none}\ninit: [i1]\n"),
            ("2", "kernel: {cmdline: y}\ninit: [i2]\ntrust: {org: [linuxkit]}\n"),
        ];
        let d = Description::parse(&files, &|_| Err(String::new())).unwrap();
        assert_eq!(d.init, ["i1", "i2"]);
        let k = &d.kernel;
        let said = (k.image.as_str(), k.cmdline.as_str(), k.tar.as_deref());
        assert_eq!(said, ("a/k:1", "y", Some("none")));
    }

    #[test]
    fn what_linuxkit_drops_is_dropped_with_a_warning() {
        let d = read(
            "services:\n- name: a\n  image: b\n  uidMappings: [{hostID: 5, containerID: 6, size: 7}]\n  \
             resources: {cpu: {shares: 1, realtimePeriod: 2}}\n",
        )
        .unwrap();
        let run = &d.services[0].run;
        assert_eq!(run.uid_mappings, Some(vec![IdMapping { size: 7, ..Default::default() }]));
        assert_eq!(d.warnings.len(), 3);
        let want = "x.yml:4: hostID has no effect, as in linuxkit";
        assert!(d.warnings.iter().any(|w| w == want), "{:?}", d.warnings);
    }

    #[test]
    fn a_label_may_be_one_long_line_of_json() {
        let binds: Vec<String> = (0..500).map(|n| format!("/some/path/{n}:/other/{n}")).collect();
        let json = serde_json::json!({"env": ["A=x/y\"\\ \u{e9}\n"], "binds": binds, "uid": 0});
        let run = label("a/b", &json.to_string()).unwrap();
        assert_eq!(run.binds, Some(binds));
        assert_eq!(run.env.unwrap(), ["A=x/y\"\\ \u{e9}\n"]);
        let slashes = label("a/b", r#"{"cwd":"\/a\/b","sysctl":{"x":"<&>"}}"#).unwrap();
        assert_eq!(slashes.cwd, "/a/b");
    }

    #[test]
    fn comments_document_marks_and_line_ends_of_windows_are_nothing() {
        let d = read("# x\r\n---\r\ninit: # y\r\n  - a/b:1\r\n# z\r\n...\r\n").unwrap();
        assert_eq!(d.init, ["a/b:1"]);
    }

    #[test]
    fn a_label_must_not_name_the_container() {
        assert!(label("a/b", r#"{"binds": ["/a:/b"]}"#).unwrap().binds.is_some());
        let error = label("a/b", r#"{"name": "x"}"#).unwrap_err().to_string();
        assert!(error.contains("a/b:1:2: the label has no key \"name\""), "{error}");
    }
}
