//! What a linuxkit yml file says, as values. [`Description::parse`] makes them of text.
//!
//! `None` means "not said": what is said in a yml file counts more than what an image's label says,
//! field by field, also when it is an empty list.

use std::collections::BTreeMap;

use serde::Serialize;

use super::oci::{IdMapping, Mount, Resources};

/// A whole image: what several files say together.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Description {
    /// Kernel and command line.
    pub kernel: Kernel,
    /// Images that make the root file system, in order.
    #[serde(serialize_with = "go_list")]
    pub init: Vec<String>,
    /// Containers that run one after the other at boot.
    #[serde(serialize_with = "go_list")]
    pub onboot: Vec<Container>,
    /// Containers that run one after the other at shutdown.
    #[serde(serialize_with = "go_list")]
    pub onshutdown: Vec<Container>,
    /// Containers that run until shutdown.
    #[serde(serialize_with = "go_list")]
    pub services: Vec<Container>,
    /// Files put on top of all that.
    #[serde(serialize_with = "go_list")]
    pub files: Vec<FileEntry>,
    /// Folders that containers can mount.
    #[serde(serialize_with = "go_list")]
    pub volumes: Vec<Volume>,
    /// What was read and has no effect, a sentence each.
    #[serde(skip)]
    pub warnings: Vec<String>,
}

/// The kernel's image and what is taken of it. Empty texts are not said.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Kernel {
    /// The image.
    pub image: String,
    /// Command line, written to `/boot/cmdline`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cmdline: String,
    /// The kernel's file in the image; `kernel` if not said.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub binary: String,
    /// An archive in the image that is unpacked at `/`; `kernel.tar` if not said, none if empty or
    /// `none`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tar: Option<String>,
    /// Microcode in the image, put at `/boot/ucode.cpio`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ucode: Option<String>,
}

/// A container: its name, its image and how it runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: String,
    /// How it runs.
    #[serde(flatten)]
    pub run: Run,
}

/// How a container runs, as a yml file or an image's label `org.mobyproject.config` says.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "linuxkit's docs/yaml.md says what each key means")]
pub struct Run {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Vec<String>>,
    #[serde(rename = "capabilities.add", skip_serializing_if = "Option::is_none")]
    pub capabilities_add: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ambient: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mounts: Option<Vec<Mount>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub binds: Option<Vec<String>>,
    #[serde(rename = "binds.add", skip_serializing_if = "Option::is_none")]
    pub binds_add: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub devices: Option<Vec<Device>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tmpfs: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<String>>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cwd: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub net: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ipc: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uts: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub userns: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readonly: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub masked_paths: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readonly_paths: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<Owner>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<Owner>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub additional_gids: Option<Vec<Owner>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_new_privileges: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rootfs_propagation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroups_path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sysctl: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rlimits: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid_mappings: Option<Vec<IdMapping>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid_mappings: Option<Vec<IdMapping>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Runtime>,
}

/// A user or group: a number, or the name of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Owner {
    /// The number itself.
    Id(i64),
    /// The number of the container of that name; `root` and empty: 0.
    Name(String),
}

/// A device node; path `all` allows a whole type instead.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Device {
    /// Its path in the container.
    pub path: String,
    /// `c`, `b`, `a`…
    #[serde(rename = "type")]
    pub kind: String,
    /// Device number.
    pub major: i64,
    /// Device number.
    pub minor: i64,
    /// Octal permissions.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mode: String,
}

/// What is done when a container starts and is not part of its OCI configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "linuxkit's docs/yaml.md says what each key means")]
pub struct Runtime {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroups: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mounts: Option<Vec<Mount>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mkdir: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interfaces: Option<Vec<Interface>>,
    #[serde(rename = "bindNS")]
    pub bind_ns: BindNamespaces,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// Where namespaces are bound to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "one path a namespace")]
pub struct BindNamespaces {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipc: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mnt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub net: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uts: Option<String>,
}

/// A network interface that a container gets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "linuxkit's docs/yaml.md says what each key means")]
pub struct Interface {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub add: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub peer: String,
    pub create_in_root: bool,
}

/// A file, folder or link put on top of everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct FileEntry {
    /// Where.
    pub path: String,
    /// It is a folder.
    pub directory: bool,
    /// It is a link to there.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub symlink: String,
    /// What it holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contents: Option<String>,
    /// The file of this machine that it is a copy of.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// `yaml` or `json`: it holds the description itself.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub metadata: String,
    /// It may be left out if `source` is not there.
    pub optional: bool,
    /// Octal permissions.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mode: String,
    /// Owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<Owner>,
    /// Group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<Owner>,
}

/// A folder that containers can mount by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Volume {
    /// Its name: `a` to `z`, `0` to `9`, `_` and `-`.
    pub name: String,
    /// The image it starts with; empty: it starts empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// Containers may mount it with option `ro` only.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub readonly: bool,
    /// Empty, `filesystem` or `oci`: it holds the image's files, or the image as an OCI layout.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub format: String,
    /// With format `oci`: the platforms it holds (`linux/amd64`); empty: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<String>,
}

/// Go writes a list that was never made as null.
fn go_list<T: Serialize, S: serde::Serializer>(list: &[T], s: S) -> Result<S::Ok, S::Error> {
    if list.is_empty() { s.serialize_none() } else { list.serialize(s) }
}
