//! The OCI runtime configuration of an app's container (`config.json`, runtime-spec 1.0).
//!
//! The image says what to run, the app how much it may use, the node what it may do: the usual set
//! of a container's capabilities, no new privileges, its own namespaces, masked kernel files.

use model::Bytes;
use model::desired::App;
use serde::Deserialize;
use serde_json::{Value, json};

/// What an image says about its process (OCI image-spec, config.md). Unknown keys are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Process {
    /// `user`, `uid`, `user:group` or `uid:gid`; empty is root.
    pub user: String,
    /// `KEY=VALUE`.
    pub env: Vec<String>,
    /// In front of every command.
    pub entrypoint: Option<Vec<String>>,
    /// The command, or the entrypoint's arguments.
    pub cmd: Option<Vec<String>>,
    /// Where it starts; empty is `/`.
    pub working_dir: String,
    /// The signal that asks it to end: `SIGTERM`, `15`; empty is `SIGTERM`.
    pub stop_signal: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Image {
    config: Option<Process>,
}

/// A user and a group, as numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct User {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Why there is no configuration.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum OciError {
    /// The image's config is not what it should be.
    #[error("the image's config is no JSON of an OCI image: {0}")]
    Config(String),
    /// Nothing to run.
    #[error("the image names no command")]
    NoCommand,
    /// A user or group that the image does not have.
    #[error("the image has no user or group {0:?}")]
    NoUser(String),
}

/// What the node adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place<'a> {
    /// The mounted root.
    pub root: &'a str,
    /// The network namespace. `None`: one of its own, without any interface but `lo`.
    pub namespace: Option<&'a str>,
    /// A file to be seen as `/etc/resolv.conf`.
    pub resolv_conf: &'a str,
    /// A file to be seen as `/etc/hosts`.
    pub hosts: &'a str,
    /// Folders of further volumes and where they appear.
    pub folders: &'a [(String, String)],
    /// The node's name, for `EVE_NODE_NAME`.
    pub node_name: &'a str,
}

/// Docker's default set: what usual images expect.
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// Files of the kernel that tell or do more than an app should know or do.
const MASKED: [&str; 9] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/firmware",
];

const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// System calls no app has business with, whatever its capabilities: they reach the whole node or
/// have long been doors out of containers.
const FORBIDDEN: [&str; 22] = [
    "add_key",
    "bpf",
    "delete_module",
    "finit_module",
    "init_module",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "open_by_handle_at",
    "perf_event_open",
    "pivot_root",
    "quotactl",
    "reboot",
    "request_key",
    "settimeofday",
    "swapoff",
    "swapon",
    "syslog",
    "userfaultfd",
];

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// So many processes and threads an app may have.
const PIDS_MAX: u32 = 4096;

/// Reads the image's config (at most a manifest's size; the reader bounds it).
pub fn process(image_config: &str) -> Result<Process, OciError> {
    let image: Image =
        serde_json::from_str(image_config).map_err(|e| OciError::Config(e.to_string()))?;
    Ok(image.config.unwrap_or_default())
}

/// Who `spec` is, by the image's own `/etc/passwd` and `/etc/group`.
pub fn user(spec: &str, passwd: &str, group: &str) -> Result<User, OciError> {
    let (name, group_name) = spec.split_once(':').map_or((spec, None), |(u, g)| (u, Some(g)));
    let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
    let row = |text: &str, key: &str| {
        text.lines().map(fields).find(|f| f.len() > 2 && (f[0] == key || f[2] == key))
    };
    let number = |text: &str| text.parse::<u32>().ok();
    let unknown = |text: &str| OciError::NoUser(text.chars().take(80).collect());

    let known = row(passwd, name);
    let uid = match (&known, name) {
        (_, "") => 0,
        (Some(f), _) => number(&f[2]).ok_or_else(|| unknown(name))?,
        (None, _) => number(name).ok_or_else(|| unknown(name))?,
    };
    let gid = match group_name.filter(|g| !g.is_empty()) {
        Some(g) => match row(group, g) {
            Some(f) => number(&f[2]).ok_or_else(|| unknown(g))?,
            None => number(g).ok_or_else(|| unknown(g))?,
        },
        None => known.and_then(|f| number(f.get(3)?)).unwrap_or(0),
    };
    Ok(User { uid, gid })
}

/// The signal that asks the process to end, as `crun kill` wants it. What is no signal's name or
/// number is TERM.
pub fn stop_signal(process: &Process) -> String {
    let name = process.stop_signal.trim();
    let name = name.strip_prefix("SIG").unwrap_or(name);
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "+-".contains(c));
    if name.is_empty() || !plain || name.starts_with('-') {
        "TERM".to_owned()
    } else {
        name.to_owned()
    }
}

/// A host name of an app's name: letters, digits and `-`, at most 63.
pub fn host_name(app: &App) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = app.name.chars().map(plain).take(63).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { format!("app-{}", app.id.short()) } else { name.to_owned() }
}

/// The whole configuration.
pub fn config(
    app: &App,
    process: &Process,
    user: User,
    place: &Place<'_>,
) -> Result<Value, OciError> {
    let args: Vec<&String> =
        process.entrypoint.iter().flatten().chain(process.cmd.iter().flatten()).collect();
    if args.is_empty() {
        return Err(OciError::NoCommand);
    }
    let cwd = if process.working_dir.starts_with('/') { &process.working_dir } else { "/" };
    let mut namespaces: Vec<Value> = ["pid", "mount", "ipc", "uts", "cgroup"]
        .iter()
        .map(|kind| json!({ "type": kind }))
        .collect();
    namespaces.push(match place.namespace {
        Some(path) => json!({ "type": "network", "path": path }),
        None => json!({ "type": "network" }),
    });
    Ok(json!({
        "ociVersion": "1.0.2",
        "root": { "path": place.root, "readonly": false },
        "hostname": host_name(app),
        "process": {
            "terminal": false,
            "user": { "uid": user.uid, "gid": user.gid },
            "args": args,
            "env": environment(app, process, place.node_name),
            "cwd": cwd,
            "noNewPrivileges": true,
            "oomScoreAdj": 500, // services of the node outlive apps
            "capabilities": {
                "bounding": CAPABILITIES,
                "effective": CAPABILITIES,
                "permitted": CAPABILITIES,
            },
        },
        "mounts": mounts(place),
        "linux": {
            "cgroupsPath": format!("/eve/apps/{}", app.id),
            "namespaces": namespaces,
            "resources": resources(app),
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
            "seccomp": {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{ "names": FORBIDDEN, "action": "SCMP_ACT_ERRNO", "errnoRet": 1 }],
            },
        },
    }))
}

/// The image's, then ours, then the app's: the last to speak about a key wins.
fn environment(app: &App, process: &Process, node_name: &str) -> Vec<String> {
    let ours = [format!("EVE_NODE_NAME={node_name}"), format!("EVE_APP_NAME={}", app.name)];
    let all = std::iter::once(PATH.to_owned())
        .chain(process.env.iter().cloned())
        .chain(ours)
        .chain(app.environment.iter().cloned())
        // A zero byte would end the entry for the program that reads it.
        .filter(|entry| !entry.contains('\0'));
    let mut kept: Vec<String> = Vec::new();
    for entry in all {
        let key = entry.split('=').next().unwrap_or_default().to_owned() + "=";
        kept.retain(|k| !k.starts_with(&key));
        kept.push(entry);
    }
    kept
}

fn mounts(place: &Place<'_>) -> Vec<Value> {
    let tmpfs = |at: &str, options: &[&str]| json!({ "destination": at, "type": "tmpfs", "source": "tmpfs", "options": options });
    let bind = |from: &str, at: &str, options: &[&str]| json!({ "destination": at, "type": "bind", "source": from, "options": options });
    let mut all = vec![
        json!({ "destination": "/proc", "type": "proc", "source": "proc" }),
        tmpfs("/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        json!({ "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] }),
        json!({ "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
                "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] }),
        json!({ "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
                "options": ["nosuid", "noexec", "nodev"] }),
        json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs",
                "options": ["nosuid", "noexec", "nodev", "ro"] }),
        json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] }),
        tmpfs("/tmp", &["nosuid", "nodev", "mode=1777"]),
        bind(place.resolv_conf, "/etc/resolv.conf", &["bind", "ro"]),
        bind(place.hosts, "/etc/hosts", &["bind", "ro"]),
    ];
    all.extend(place.folders.iter().map(|(from, at)| bind(from, at, &["rbind", "rw", "nodev"])));
    all
}

fn resources(app: &App) -> Value {
    let period = 100_000_u64; // µs, the kernel's own default
    let mut limits = json!({
        "devices": [{ "allow": false, "access": "rwm" }],
        "pids": { "limit": PIDS_MAX },
        "cpu": { "period": period, "quota": period * u64::from(app.vcpus.max(1)) },
    });
    if app.memory > Bytes(0) {
        limits["memory"] = json!({ "limit": app.memory.0, "swap": app.memory.0 });
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::tests::app;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nwww:x:33:34:web:/var/www:/bin/false\n";
    const GROUP: &str = "root:x:0:\nwww:x:34:\nlog:x:50:www\n";

    fn place() -> Place<'static> {
        Place {
            root: "/run/eve-apps/x/rootfs",
            namespace: Some("/run/netns/x"),
            resolv_conf: "/run/eve-apps/x/resolv.conf",
            hosts: "/run/eve-apps/x/hosts",
            folders: &[],
            node_name: "node-1",
        }
    }

    #[test]
    fn users_are_found_as_the_image_knows_them() {
        for (spec, want) in [
            ("", Some((0, 0))),
            ("root", Some((0, 0))),
            ("www", Some((33, 34))),
            ("33", Some((33, 34))),
            ("www:log", Some((33, 50))),
            ("1000", Some((1000, 0))),
            ("1000:1001", Some((1000, 1001))),
            ("nobody", None),
            ("www:none", None),
            ("-1", None),
        ] {
            let got = user(spec, PASSWD, GROUP).ok().map(|u| (u.uid, u.gid));
            assert_eq!(got, want, "{spec:?}");
        }
    }

    #[test]
    fn the_command_is_entrypoint_then_arguments() {
        let text = r#"{"architecture":"amd64","config":{"Entrypoint":["/bin/web"],
            "Cmd":["-p","80"],"Env":["A=1","EVE_APP_NAME=fake"],"WorkingDir":"/srv"}}"#;
        let config = config(&app(), &process(text).unwrap(), User::default(), &place()).unwrap();
        assert_eq!(config["process"]["args"], json!(["/bin/web", "-p", "80"]));
        assert_eq!(config["process"]["cwd"], "/srv");
        let env = config["process"]["env"].as_array().unwrap();
        assert_eq!(
            env.iter().filter(|e| e.as_str().unwrap().starts_with("EVE_APP_NAME=")).count(),
            1
        );
        assert!(env.contains(&json!("EVE_APP_NAME=hello")) && env.contains(&json!("A=1")));
        assert!(env.contains(&json!("EVE_NODE_NAME=node-1")));
    }

    #[test]
    fn an_image_without_a_command_is_refused() {
        for text in ["{}", r#"{"config":null}"#, r#"{"config":{"Env":["A=1"]}}"#] {
            let process = process(text).unwrap();
            let refused = config(&app(), &process, User::default(), &place());
            assert_eq!(refused, Err(OciError::NoCommand), "{text}");
        }
        assert!(matches!(process("7"), Err(OciError::Config(_))));
    }

    #[test]
    fn limits_are_those_of_the_app() {
        let run = Process { cmd: Some(vec!["x".into()]), ..Process::default() };
        let config = config(&app(), &run, User { uid: 33, gid: 34 }, &place()).unwrap();
        let limits = &config["linux"]["resources"];
        assert_eq!(limits["memory"]["limit"], 64 << 20);
        assert_eq!(limits["cpu"]["quota"], 100_000);
        assert_eq!(config["process"]["user"]["uid"], 33);
        assert_eq!(config["linux"]["cgroupsPath"], format!("/eve/apps/{}", app().id));
        let own = config["linux"]["namespaces"].as_array().unwrap();
        assert!(own.contains(&json!({ "type": "network", "path": "/run/netns/x" })));
    }

    #[test]
    fn the_image_names_the_signal_that_ends_it() {
        let of =
            |text: &str| stop_signal(&Process { stop_signal: text.into(), ..Process::default() });
        assert_eq!(
            [of(""), of("SIGQUIT"), of("3"), of("RTMIN+3")],
            ["TERM", "QUIT", "3", "RTMIN+3"]
        );
        assert_eq!([of("-9"), of("x y")], ["TERM", "TERM"]);
    }

    #[test]
    fn host_names_are_names_of_hosts() {
        for (name, want) in
            [("Hello World", "hello-world"), ("--", "app-00000000"), ("é", "app-00000000")]
        {
            assert_eq!(host_name(&App { name: name.into(), ..app() }), want);
        }
    }
}
