//! Making a container of an app, and clearing it away: bundle, overlay, pipe, `crun`.

use std::fs;
use std::io;
use std::path::PathBuf;

use device::app::oci::{self, OciError};
use host::crun::{
    Crun, CrunError, Known, mount_overlay, output_pipe, read_inside, share_pipe, unmount,
};
use model::desired::App;
use model::reported::{AppNetworkStatus, VolumeKind};
use model::services::Service;
use model::{AppId, Bytes, Diagnose, Diagnosis, UnixMillis, Who};
use serde::{Deserialize, Serialize};

/// An image's passwd or group is read up to here.
const ACCOUNTS_MAX: u64 = 1 << 20;
/// In the bundle: what the container was started with.
const STARTED: &str = "started.json";
/// Not much more than the app's row in the topic, which has 1 MiB at most.
const STARTED_MAX: Bytes = Bytes::mib(2);

/// Where containers are made.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) crun: Crun,
    /// `/run/eve-apps`
    pub(crate) bundles: PathBuf,
    /// `/run/eve/log`
    pub(crate) logs: PathBuf,
}

/// All that a start needs.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) app: App,
    /// In the order of the app's references.
    pub(crate) volumes: Vec<VolumeKind>,
    pub(crate) network: Option<AppNetworkStatus>,
    pub(crate) node_name: String,
    pub(crate) now: UnixMillis,
}

/// What a container was started with. Lives in /run, so every reader is of the same version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Started {
    pub(crate) app: App,
    pub(crate) since: UnixMillis,
    pub(crate) stop_signal: String,
}

/// Why an app could not be started or cleared away.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("cannot {doing} {path}")]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    Save(#[from] store::SaveError),
    #[error(transparent)]
    Keep(#[from] store::StoreError),
    #[error(transparent)]
    Crun(#[from] CrunError),
    #[error("cannot use the app's image")]
    Image(#[from] OciError),
    #[error("volume {0} of the app is not ready")]
    NotReady(usize),
    #[error("volume {at} of the app cannot be mounted at {mount:?}")]
    Mount { at: usize, mount: String },
    #[error("the container ended at once")]
    EndedAtOnce,
    #[error("the work was interrupted")]
    Interrupted,
}

impl Diagnose for StartError {
    fn diagnose(&self) -> Diagnosis {
        match self {
            Self::Io { .. } | Self::Save(_) | Self::Keep(_) => {
                Diagnosis::of(Who::Hardware, "check the node's disk and memory")
            }
            Self::Crun(e) => e.diagnose(),
            Self::Image(_) | Self::EndedAtOnce => {
                Diagnosis::of(Who::Operator, "check the app's image")
            }
            Self::NotReady(_) | Self::Interrupted => {
                Diagnosis::of(Who::Nobody, "it is tried again")
            }
            Self::Mount { .. } => Diagnosis::of(
                Who::Operator,
                "mount blank volumes beside the root, each at a path of its own",
            ),
        }
    }
}

impl Place {
    /// Makes and starts the container; returns its first process too. What a failed start leaves is
    /// cleared away.
    pub(crate) fn start(&self, start: Start) -> Result<(Started, u32), StartError> {
        let id = start.app.id;
        self.clear(id)?; // left-overs of a start that was cut short
        let done = self.try_start(start);
        if done.is_err()
            && let Err(e) = self.clear(id)
        {
            tracing::warn!(app = %id, "a failed start is not cleared away: {e}");
        }
        done
    }

    fn try_start(&self, start: Start) -> Result<(Started, u32), StartError> {
        let (id, bundle) = (start.app.id.to_string(), self.bundle(start.app.id));
        let rootfs = bundle.join("rootfs");
        fs::create_dir_all(&rootfs).map_err(doing("create", &rootfs))?;
        let Some(VolumeKind::Root { lower, writable, image_config }) = start.volumes.first() else {
            return Err(StartError::NotReady(0));
        };
        let writable = PathBuf::from(writable);
        let (upper, work) = (writable.join("upper"), writable.join("work"));
        mount_overlay(lower.as_ref(), &upper, &work, &rootfs)?;

        let process = oci::process(image_config)?;
        let accounts = |path| read_inside(&rootfs, path, ACCOUNTS_MAX).unwrap_or_default();
        let user = oci::user(&process.user, &accounts("/etc/passwd"), &accounts("/etc/group"))?;
        self.write_names(&start)?;
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let (root, resolv, hosts) =
            (text(rootfs), text(bundle.join("resolv.conf")), text(bundle.join("hosts")));
        let place = oci::Place {
            root: &root,
            namespace: start.network.as_ref().map(|n| n.namespace.as_str()),
            resolv_conf: &resolv,
            hosts: &hosts,
            folders: &folders(&start)?,
            node_name: &start.node_name,
        };
        let config = oci::config(&start.app, &process, user, &place)?;
        let config = serde_json::to_vec_pretty(&config).unwrap_or_default();
        // The environment may hold opened secrets: for root alone.
        store::save_with_mode(&bundle, "config.json", &config, 0o600)?;
        let started =
            Started { stop_signal: oci::stop_signal(&process), app: start.app, since: start.now };
        let text = serde_json::to_vec(&started).unwrap_or_default();
        store::save_with_mode(&bundle, STARTED, &text, 0o600)?;

        let pipe = self.log_pipe(started.app.id);
        fs::create_dir_all(&self.logs).map_err(doing("create", &self.logs))?;
        let output = output_pipe(&pipe, Service::Log.spec().uid).map_err(doing("make", &pipe))?;
        self.crun.create(&id, &bundle, &output)?;
        share_pipe(&pipe, Service::Log.spec().uid).map_err(doing("share", &pipe))?;
        self.crun.start(&id)?;
        match self.crun.look(&id)? {
            Known::Running { pid } => Ok((started, pid)),
            _ => Err(StartError::EndedAtOnce),
        }
    }

    /// Removes container, mounts and bundle, whatever is there of them.
    pub(crate) fn clear(&self, id: AppId) -> Result<(), StartError> {
        let bundle = self.bundle(id);
        self.crun.delete(&id.to_string())?;
        unmount(&bundle.join("rootfs"))?;
        match fs::remove_dir_all(&bundle) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(doing("remove", &bundle)),
        }
    }

    /// The apps of which there is a container or a bundle.
    pub(crate) fn all(&self) -> Vec<AppId> {
        let entries = fs::read_dir(&self.bundles).into_iter().flatten().flatten();
        let bundles = entries.filter_map(|e| e.file_name().into_string().ok());
        let mut ids: Vec<AppId> =
            self.crun.all().into_iter().chain(bundles).filter_map(|n| n.parse().ok()).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// What a container was started with; `None` if it never came so far.
    pub(crate) fn started(&self, id: AppId) -> Option<Started> {
        let text = store::read_bounded(&self.bundle(id).join(STARTED), STARTED_MAX).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// The pipe of an app's output.
    pub(crate) fn log_pipe(&self, id: AppId) -> PathBuf {
        self.logs.join(format!("app.{id}"))
    }

    fn bundle(&self, id: AppId) -> PathBuf {
        self.bundles.join(id.to_string())
    }

    /// What the container sees as its resolv.conf and hosts.
    fn write_names(&self, start: &Start) -> Result<(), StartError> {
        let bundle = self.bundle(start.app.id);
        let network = start.network.as_ref();
        let servers = network.map(|n| n.dns.as_slice()).unwrap_or_default();
        let resolv: String = servers.iter().map(|ip| format!("nameserver {ip}\n")).collect();
        let name = oci::host_name(&start.app);
        let own = network.and_then(|n| n.vifs.iter().find_map(|v| v.address));
        let own = own.map(|ip| format!("{ip} {name}\n")).unwrap_or_default();
        let hosts = format!("127.0.0.1 localhost\n::1 localhost\n{own}");
        store::save(&bundle, "resolv.conf", resolv.as_bytes())?;
        store::save(&bundle, "hosts", hosts.as_bytes())?;
        Ok(())
    }
}

/// Volumes beside the root, and where they appear.
fn folders(start: &Start) -> Result<Vec<(String, String)>, StartError> {
    let mut all = Vec::new();
    for (at, wanted) in start.app.volumes.iter().enumerate().skip(1) {
        let mount = &wanted.mount;
        let plain = mount.starts_with('/') && mount.len() > 1 && !mount.contains("..");
        match start.volumes.get(at) {
            Some(VolumeKind::Folder { path }) if plain => all.push((path.clone(), mount.clone())),
            Some(_) => return Err(StartError::Mount { at, mount: mount.clone() }),
            None => return Err(StartError::NotReady(at)),
        }
    }
    Ok(all)
}

fn doing(doing: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> StartError {
    let path = path.to_owned();
    move |source| StartError::Io { doing, path, source }
}
