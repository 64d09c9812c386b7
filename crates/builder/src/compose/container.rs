//! What a yml file, a label and an image's own configuration say, settled into one container.
//!
//! Values in, values out. The file's word counts more than the label's, field by field; command,
//! environment and folder may come from the image as well.

use std::collections::{BTreeMap, BTreeSet};

use store::RunConfig;

use super::description::{BindNamespaces, Device, Owner, Run, Runtime, Volume};
use super::oci::{
    Capabilities, DeviceRule, Linux, LinuxDevice, Mount, Namespace, OCI_VERSION, Process,
    Resources, Rlimit, Root, Spec, User,
};

/// Numbers of containers by their names, for owners given by name.
pub(super) type Ids = BTreeMap<String, u32>;

/// Volumes by their names.
pub(super) type Volumes<'a> = BTreeMap<&'a str, &'a Volume>;

/// Where a volume's files are in the finished system.
pub(super) fn volume_dir(name: &str, part: &str) -> String {
    format!("containers/volumes/{name}/{part}")
}

/// Replaces the names of volumes by their folders in `binds` and `binds.add`. The long form `mounts`
/// is checked, but keeps the name: so does the reference.
pub(super) fn with_volumes(run: &Run, volumes: &Volumes<'_>) -> Result<Run, String> {
    let volume = |name: &str| {
        volumes.get(name).ok_or_else(|| format!("there is no volume {name:?} to mount"))
    };
    let writable = |name: &str| format!("volume {name:?} is read-only: mount it with option ro");
    let replace = |bind: &String| {
        let mut parts: Vec<&str> = bind.split(':').collect();
        if parts[0].starts_with('/') {
            return Ok(bind.clone());
        }
        let (name, dir) = (parts[0], volume_dir(parts[0], "merged"));
        if volume(name)?.readonly && parts.get(2) != Some(&"ro") {
            return Err(writable(name));
        }
        let dir = format!("/{dir}");
        parts[0] = &dir;
        Ok(parts.join(":"))
    };
    let all = |binds: &Option<Vec<String>>| {
        binds.as_ref().map(|b| b.iter().map(replace).collect::<Result<_, _>>()).transpose()
    };
    for mount in run.mounts.iter().flatten() {
        if mount.kind != "bind" || mount.source.starts_with('/') {
            continue;
        }
        let said = mount.options.iter().find(|o| *o == "rw" || *o == "ro");
        if volume(&mount.source)?.readonly && said.is_none_or(|o| o == "rw") {
            return Err(writable(&mount.source));
        }
    }
    Ok(Run { binds: all(&run.binds)?, binds_add: all(&run.binds_add)?, ..run.clone() })
}

/// Settles a container. The error says what makes no sense.
pub(super) fn settle(
    yml: &Run,
    label: &Run,
    image: &RunConfig,
    ids: &Ids,
) -> Result<(Spec, Runtime), String> {
    let own_command = || [image.entrypoint.as_slice(), &image.cmd].concat();
    let args = said(&yml.command, &label.command).unwrap_or_else(own_command);
    let env = said(&yml.env, &label.env).unwrap_or_else(|| image.env.clone());
    let cwd = first_text([&yml.cwd, &label.cwd, &image.working_dir], "/");
    let readonly = yml.readonly.or(label.readonly).unwrap_or_default();
    let mut resources = said(&yml.resources, &label.resources).unwrap_or_default();
    let devices = devices(&said(&yml.devices, &label.devices).unwrap_or_default(), &mut resources)?;
    let additional = said(&yml.additional_gids, &label.additional_gids).unwrap_or_default();
    let owner =
        |o: &Option<Owner>, other: &Option<Owner>| number(o.as_ref().or(other.as_ref()), ids);
    let spec = Spec {
        oci_version: OCI_VERSION,
        process: Process {
            user: User {
                uid: owner(&yml.uid, &label.uid)?,
                gid: owner(&yml.gid, &label.gid)?,
                additional_gids: additional
                    .iter()
                    .map(|o| number(Some(o), ids))
                    .collect::<Result<_, _>>()?,
            },
            args,
            env,
            cwd,
            capabilities: capabilities(yml, label)?,
            rlimits: rlimits(&said(&yml.rlimits, &label.rlimits).unwrap_or_default())?,
            no_new_privileges: yml
                .no_new_privileges
                .or(label.no_new_privileges)
                .unwrap_or_default(),
            oom_score_adj: yml.oom_score_adj.or(label.oom_score_adj),
        },
        root: Root { path: "rootfs", readonly },
        hostname: first_text([&yml.hostname, &label.hostname], ""),
        mounts: mounts(yml, label, readonly)?,
        annotations: said(&yml.annotations, &label.annotations).unwrap_or_default(),
        linux: Linux {
            uid_mappings: said(&yml.uid_mappings, &label.uid_mappings).unwrap_or_default(),
            gid_mappings: said(&yml.gid_mappings, &label.gid_mappings).unwrap_or_default(),
            sysctl: said(&yml.sysctl, &label.sysctl).unwrap_or_default(),
            resources,
            cgroups_path: said(&yml.cgroups_path, &label.cgroups_path).unwrap_or_default(),
            namespaces: namespaces(yml, label),
            devices,
            rootfs_propagation: said(&yml.rootfs_propagation, &label.rootfs_propagation)
                .unwrap_or_default(),
            masked_paths: said(&yml.masked_paths, &label.masked_paths).unwrap_or_default(),
            readonly_paths: said(&yml.readonly_paths, &label.readonly_paths).unwrap_or_default(),
        },
    };
    Ok((spec, runtime(yml.runtime.as_ref(), label.runtime.as_ref())))
}

/// The number of a user or group; nobody said one: 0.
pub(super) fn number(owner: Option<&Owner>, ids: &Ids) -> Result<u32, String> {
    match owner {
        None => Ok(0),
        // The reference cuts the number to its lowest 32 bits; we refuse what does not fit.
        Some(Owner::Id(n)) => u32::try_from(*n).map_err(|_| format!("{n} is no user or group")),
        Some(Owner::Name(name)) if name.is_empty() || name == "root" => Ok(0),
        Some(Owner::Name(name)) => ids
            .get(name)
            .copied()
            .ok_or_else(|| format!("no container is named {name:?}: its number is unknown")),
    }
}

fn said<T: Clone>(yml: &Option<T>, label: &Option<T>) -> Option<T> {
    yml.as_ref().or(label.as_ref()).cloned()
}

fn first_text<const N: usize>(texts: [&String; N], default: &str) -> String {
    let found = texts.into_iter().find(|t| !t.is_empty());
    found.map_or(default, String::as_str).to_owned()
}

/// The label's list and what the yml adds to it; counts only if the yml says no list of its own.
/// Nothing is taken out when it stands there twice.
fn with_added(
    yml: &Option<Vec<String>>,
    label: &Option<Vec<String>>,
    added: &Option<Vec<String>>,
) -> Vec<String> {
    match yml {
        Some(list) => list.clone(),
        None => label.iter().chain(added).flatten().cloned().collect(),
    }
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

fn mounts(yml: &Run, label: &Run, readonly: bool) -> Result<Vec<Mount>, String> {
    let mut all: BTreeMap<String, Mount> = BTreeMap::new();
    let mut add = |destination: &str, kind: &str, source: &str, options: Vec<String>| {
        let mount = Mount {
            destination: destination.to_owned(),
            kind: kind.to_owned(),
            source: source.to_owned(),
            options,
            ..Mount::default()
        };
        all.insert(destination.to_owned(), mount);
    };
    let ro = |options: &[&str]| {
        let mut options = words(options);
        options.extend(readonly.then(|| "ro".to_owned()));
        options
    };
    let pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    let cgroup = ["nosuid", "noexec", "nodev", "relatime", "ro"];
    add("/proc", "proc", "proc", words(&["nosuid", "nodev", "noexec", "relatime"]));
    add("/dev", "tmpfs", "tmpfs", ro(&["nosuid", "strictatime", "mode=755", "size=65536k"]));
    add("/dev/pts", "devpts", "devpts", words(&pts));
    add("/sys", "sysfs", "sysfs", ro(&["nosuid", "noexec", "nodev"]));
    add("/sys/fs/cgroup", "cgroup", "cgroup", words(&cgroup));
    for tmpfs in said(&yml.tmpfs, &label.tmpfs).unwrap_or_default() {
        let parts: Vec<&str> = tmpfs.split(':').collect();
        let options = match parts[1..] {
            [] => Vec::new(),
            [options] => options.split(',').map(str::to_owned).collect(),
            _ => return Err(format!("tmpfs {tmpfs:?} has more than one colon")),
        };
        add(parts[0], "tmpfs", "tmpfs", options);
    }
    for bind in with_added(&yml.binds, &label.binds, &yml.binds_add) {
        let parts: Vec<&str> = bind.split(':').collect();
        let options = match parts[..] {
            [_, _] => words(&["rw", "rbind", "rshared"]),
            [_, _, options] => options.split(',').chain(["rbind"]).map(str::to_owned).collect(),
            [_] => return Err(format!("bind {bind:?} has no colon: write SOURCE:DESTINATION")),
            _ => return Err(format!("bind {bind:?} has more than two colons")),
        };
        add(parts[1], "bind", parts[0], options);
    }
    for mount in said(&yml.mounts, &label.mounts).unwrap_or_default() {
        let (destination, kind, source) = complete(&mount)?;
        add(&destination, &kind, &source, mount.options);
    }
    Ok(all.into_values().collect())
}

/// Destination, type and source of a mount that may have left out what goes without saying.
fn complete(mount: &Mount) -> Result<(String, String, String), String> {
    let kind = match (mount.kind.as_str(), mount.source.as_str()) {
        ("", source @ ("mqueue" | "devpts" | "proc" | "sysfs" | "cgroup")) => source,
        ("", _) if mount.destination == "/dev" => "tmpfs",
        ("", _) => return Err(format!("the mount at {:?} has no type", mount.destination)),
        (kind, _) => kind,
    };
    let source = if mount.source.is_empty() { kind } else { &mount.source };
    let destination = match (mount.destination.as_str(), kind) {
        ("", "proc") => "/proc",
        ("", "devpts") => "/dev/pts",
        ("", "sysfs") => "/sys",
        ("", "cgroup") => "/sys/fs/cgroup",
        ("", "mqueue") => "/dev/mqueue",
        ("", _) => return Err(format!("a mount of type {kind} has no destination")),
        (destination, _) => destination,
    };
    Ok((destination.to_owned(), kind.to_owned(), source.to_owned()))
}

fn namespaces(yml: &Run, label: &Run) -> Vec<Namespace> {
    let mut list = Vec::new();
    let mut add = |kind, yml: &String, label: &String, default, none| {
        let path = match first_text([yml, label], default).as_str() {
            "host" | "root" => return,
            "new" => String::new(),
            "none" if none => String::new(),
            path => path.to_owned(),
        };
        list.push(Namespace { kind, path });
    };
    add("network", &yml.net, &label.net, "root", true);
    add("ipc", &yml.ipc, &label.ipc, "root", false);
    add("uts", &yml.uts, &label.uts, "root", false);
    add("pid", &yml.pid, &label.pid, "", false);
    add("user", &yml.userns, &label.userns, "root", false);
    list.push(Namespace { kind: "mount", path: String::new() });
    list
}

fn capabilities(yml: &Run, label: &Run) -> Result<Capabilities, String> {
    let expand = |list: Vec<String>| -> Result<Vec<String>, String> {
        if let [one] = list.as_slice() {
            match one.to_lowercase().as_str() {
                "none" => return Ok(Vec::new()),
                "all" => return Ok(words(&CAPABILITIES)),
                _ => {}
            }
        }
        match list.iter().find(|c| !CAPABILITIES.contains(&c.as_str())) {
            Some(unknown) => Err(format!("there is no capability {unknown:?}")),
            None => Ok(list),
        }
    };
    let declared = with_added(&yml.capabilities, &label.capabilities, &yml.capabilities_add);
    let effective = expand(declared)?;
    let ambient = expand(said(&yml.ambient, &label.ambient).unwrap_or_default())?;
    let union: BTreeSet<&String> = effective.iter().chain(&ambient).collect();
    let union: Vec<String> = union.into_iter().cloned().collect();
    Ok(Capabilities {
        bounding: union.clone(),
        effective,
        inheritable: union.clone(),
        permitted: union,
        ambient,
    })
}

fn rlimits(list: &[String]) -> Result<Vec<Rlimit>, String> {
    let value = |text: &str| match text {
        t if t.eq_ignore_ascii_case("unlimited") => Ok(u64::MAX),
        t if t.bytes().all(|b| b.is_ascii_digit()) => {
            t.parse().map_err(|_| format!("rlimit value {t:?} is no number"))
        }
        t => Err(format!("rlimit value {t:?} is no number")),
    };
    list.iter()
        .map(|limit| {
            let parts: Vec<&str> = limit.splitn(3, ',').map(str::trim).collect();
            let [name, soft, hard] = parts[..] else {
                return Err(format!("rlimit {limit:?} is not NAME,SOFT,HARD"));
            };
            let name = name.to_uppercase();
            let name = name.strip_prefix("RLIMIT_").unwrap_or(&name);
            if !RLIMITS.contains(&name) {
                return Err(format!("there is no rlimit {name:?}"));
            }
            let kind = format!("RLIMIT_{name}");
            Ok(Rlimit { kind, hard: value(hard)?, soft: value(soft)? })
        })
        .collect()
}

/// Device nodes, and in `resources` the permission to use them.
fn devices(list: &[Device], resources: &mut Resources) -> Result<Vec<LinuxDevice>, String> {
    let mut nodes = Vec::new();
    for device in list {
        let rule = DeviceRule {
            allow: true,
            kind: device.kind.clone(),
            access: "rwm".to_owned(),
            ..DeviceRule::default()
        };
        if device.path == "all" {
            resources.devices.push(rule);
            continue;
        }
        let file_mode = octal(&device.mode)
            .ok_or_else(|| format!("mode {:?} of {} is not octal", device.mode, device.path))?;
        let (major, minor) = (device.major, device.minor);
        resources.devices.push(DeviceRule { major: Some(major), minor: Some(minor), ..rule });
        let (path, kind) = (device.path.clone(), device.kind.clone());
        nodes.push(LinuxDevice { path, kind, major, minor, file_mode });
    }
    Ok(nodes)
}

/// Octal digits as a number below 2³¹.
pub(super) fn octal(text: &str) -> Option<u32> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    u32::from_str_radix(text, 8).ok().filter(|n| digits && *n < 1 << 31)
}

fn runtime(yml: Option<&Runtime>, label: Option<&Runtime>) -> Runtime {
    let none = Runtime::default();
    let (yml, label) = (yml.unwrap_or(&none), label.unwrap_or(&none));
    let (y, l) = (&yml.bind_ns, &label.bind_ns);
    let text = |y: &Option<String>, l: &Option<String>| Some(said(y, l).unwrap_or_default());
    Runtime {
        cgroups: Some(said(&yml.cgroups, &label.cgroups).unwrap_or_default()),
        mounts: Some(said(&yml.mounts, &label.mounts).unwrap_or_default()),
        mkdir: Some(said(&yml.mkdir, &label.mkdir).unwrap_or_default()),
        interfaces: Some(said(&yml.interfaces, &label.interfaces).unwrap_or_default()),
        bind_ns: BindNamespaces {
            cgroup: text(&y.cgroup, &l.cgroup),
            ipc: text(&y.ipc, &l.ipc),
            mnt: text(&y.mnt, &l.mnt),
            net: text(&y.net, &l.net),
            pid: text(&y.pid, &l.pid),
            user: text(&y.user, &l.user),
            uts: text(&y.uts, &l.uts),
        },
        namespace: text(&yml.namespace, &label.namespace),
    }
}

const RLIMITS: [&str; 16] = [
    "CPU",
    "FSIZE",
    "DATA",
    "STACK",
    "CORE",
    "RSS",
    "NPROC",
    "NOFILE",
    "MEMLOCK",
    "AS",
    "LOCKS",
    "SIGPENDING",
    "MSGQUEUE",
    "NICE",
    "RTPRIO",
    "RTTIME",
];

/// In the order of their numbers (include/uapi/linux/capability.h).
const CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(list: &[&str]) -> Option<Vec<String>> {
        Some(words(list))
    }

    fn settled(yml: Run, label: Run) -> Result<Spec, String> {
        let ids = Ids::from([("svc".to_owned(), 102)]);
        settle(&yml, &label, &RunConfig::default(), &ids).map(|(spec, _)| spec)
    }

    #[test]
    fn the_file_replaces_the_label_and_additions_append_to_it() {
        let label = Run {
            capabilities: strings(&["CAP_SYS_ADMIN", "CAP_CHOWN"]),
            binds: strings(&["/a:/a"]),
            net: "new".to_owned(),
            ..Run::default()
        };
        let yml = Run {
            capabilities_add: strings(&["CAP_CHOWN", "CAP_BPF"]),
            binds: Some(Vec::new()),
            binds_add: strings(&["/b:/b"]),
            net: "/run/netns/x".to_owned(),
            uid: Some(Owner::Name("svc".to_owned())),
            ..Run::default()
        };
        let spec = settled(yml, label).unwrap();
        let caps = spec.process.capabilities;
        assert_eq!(caps.effective, ["CAP_SYS_ADMIN", "CAP_CHOWN", "CAP_CHOWN", "CAP_BPF"]);
        assert_eq!(caps.bounding, ["CAP_BPF", "CAP_CHOWN", "CAP_SYS_ADMIN"]);
        assert!(spec.mounts.iter().all(|m| m.kind != "bind"));
        assert_eq!(spec.linux.namespaces[0].path, "/run/netns/x");
        assert_eq!(spec.process.user.uid, 102);
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        let list = |f: fn(&mut Run, Option<Vec<String>>), words: &[&str]| {
            let mut run = Run::default();
            f(&mut run, strings(words));
            settled(run, Run::default()).unwrap_err()
        };
        for (got, want) in [
            (list(|r, l| r.capabilities = l, &["CAP_X"]), "no capability \"CAP_X\""),
            (list(|r, l| r.binds = l, &["/a"]), "has no colon"),
            (list(|r, l| r.binds = l, &["/a:/b:c:d"]), "more than two colons"),
            (list(|r, l| r.tmpfs = l, &["/a:b:c"]), "more than one colon"),
            (list(|r, l| r.rlimits = l, &["nofile,1"]), "not NAME,SOFT,HARD"),
            (list(|r, l| r.rlimits = l, &["x,1,2"]), "no rlimit \"X\""),
            (list(|r, l| r.rlimits = l, &["nofile,+1,2"]), "no number"),
        ] {
            assert!(got.contains(want), "{got}");
        }
        let run = Run { gid: Some(Owner::Name("who".to_owned())), ..Run::default() };
        assert!(settled(run, Run::default()).unwrap_err().contains("no container is named"));
    }

    #[test]
    fn a_read_only_volume_is_mounted_read_only() {
        let volume = Volume { name: "v".to_owned(), readonly: true, ..Volume::default() };
        let volumes = Volumes::from([("v", &volume)]);
        let bind = |bind: &str| {
            let run = Run { binds: strings(&[bind]), ..Run::default() };
            with_volumes(&run, &volumes).map(|r| r.binds.unwrap().remove(0))
        };
        assert_eq!(bind("v:/x:ro").unwrap(), "/containers/volumes/v/merged:/x:ro");
        assert_eq!(bind("/v:/x").unwrap(), "/v:/x");
        assert!(bind("v:/x").is_err() && bind("w:/x").is_err());
    }
}
