//! What a node says of itself. Each type is a row of a topic; `api::convert` makes the wire's
//! messages of them.

mod app;
mod hardware;
mod network;
mod node;
mod usage;

use serde::{Deserialize, Serialize};

pub use app::{AppNetworkStatus, AppState, AppStatus, AppUse, Vif};
pub use hardware::{
    CardKind, DiskHealth, DiskSmart, HardwareHealth, Inventory, MemoryController, MemoryRank,
    NetworkCard, Parent, PciAddress, PciDevice, Processor, SerialPort, SmartAttribute, UsbAddress,
    UsbDevice,
};
pub use network::{DhcpLease, Lease, NetworkInstanceStatus, PortStatus, PortTest};
pub use node::{
    Attestation, Boot, BootReason, ConfigSource, ControllerStatus, Identity, LogStatus,
    Maintenance, Onboarding, OnboardingStep, PortsAside, PortsFrom, Resources, SecretFailure,
    SecretsOpened, ServiceUse, Standing, Storage, TimeSource, TimeSourceState, TimeState,
    TimelineMark,
};
pub use usage::{
    CallCounts, DiskTraffic, LogCounts, LogFiles, ProcessUse, Traffic, UrlCounts, Way,
};

use crate::{Bytes, ContentId, Digest, Problem, VolumeId};

/// A download, as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentStatus {
    /// Which content.
    pub id: ContentId,
    /// For people.
    pub name: String,
    /// How far it is.
    pub state: ContentState,
    /// What stands in the way.
    pub problem: Option<Problem>,
}

/// How far a download is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContentState {
    /// Nothing done yet.
    Initial,
    /// Asking which digest the tag means.
    Resolving,
    /// Bytes are coming in.
    Downloading {
        /// Already here.
        done: Bytes,
        /// In all; zero while unknown.
        total: Bytes,
    },
    /// Digests are being checked.
    Verifying,
    /// All blobs are in the content store (`/persist/content`, an OCI layout).
    Loaded {
        /// The image's manifest, or the file.
        digest: Digest,
        /// In all.
        size: Bytes,
    },
}

/// A volume, as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeStatus {
    /// Which volume.
    pub id: VolumeId,
    /// Which generation.
    pub generation: u64,
    /// For people.
    pub name: String,
    /// How far it is.
    pub state: VolumeState,
    /// What stands in the way.
    pub problem: Option<Problem>,
}

/// How far a volume is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VolumeState {
    /// Its content is not loaded yet.
    AwaitingContent,
    /// It is being made.
    Creating,
    /// It can be used.
    Ready(VolumeKind),
}

/// What a ready volume is on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VolumeKind {
    /// A container's root: an overlay of these two folders.
    Root {
        /// The unpacked image, shared and read-only.
        lower: String,
        /// What the app wrote (`upper/` and `work/` inside).
        writable: String,
        /// The OCI image config (JSON), for command, environment, user and folder.
        image_config: String,
    },
    /// An empty folder.
    Folder {
        /// Where.
        path: String,
    },
}
