//! How the hardware is doing: memory errors and disks.

use model::{DeviceId, UnixMillis};
use serde::{Deserialize, Serialize};

use super::{ViewError, at, whose};
use crate::limits;
use crate::pb::hardwarehealth::ZHardwareHealth;
use crate::pb::info::StorageDiskInfo;
use crate::wire;

/// A report of hardware health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Whose it says it is: compare it with who signed.
    pub device: DeviceId,
    /// As of when.
    pub at: Option<UnixMillis>,
    /// Memory that corrects errors, by controller.
    pub memory: Vec<MemoryHealth>,
    /// Disks.
    pub disks: Vec<DiskHealth>,
}

/// A memory controller, or a rank of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryHealth {
    /// The controller, or controller and rank.
    pub name: String,
    /// Errors that were corrected.
    pub corrected: i64,
    /// Errors that were not: data was lost.
    pub uncorrected: i64,
}

/// A disk, as it says of itself (SMART).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskHealth {
    /// The kernel's name.
    pub name: String,
    /// Its model.
    pub model: String,
    /// Its serial number.
    pub serial: String,
    /// Why nothing more is known; empty if it is.
    pub error: String,
    /// Attributes that are below what the maker calls good: name, value, threshold.
    pub failing: Vec<(String, u64, u64)>,
    /// All attributes: name and raw value.
    pub attributes: Vec<(String, u64)>,
}

/// Reads the payload of a hardware health message.
pub fn hardware_health(payload: &[u8]) -> Result<Health, ViewError> {
    let message: ZHardwareHealth = wire::decode(payload, limits::INFO)?;
    let mut memory = Vec::new();
    for controller in message.mr.unwrap_or_default().memory_controllers {
        let name = controller.controller_name;
        let ranks = controller.ranks.into_iter().map(|rank| MemoryHealth {
            name: format!("{name}/{}", rank.rank_name),
            corrected: rank.ce_count,
            uncorrected: rank.ue_count,
        });
        let ranks: Vec<MemoryHealth> = ranks.collect();
        let (corrected, uncorrected) = (controller.ce_count, controller.ue_count);
        memory.push(MemoryHealth { name, corrected, uncorrected });
        memory.extend(ranks);
    }
    Ok(Health {
        device: whose(&message.dev_id)?,
        at: at(message.at_time_stamp),
        memory,
        disks: message.disks.into_iter().map(disk).collect(),
    })
}

fn disk(info: StorageDiskInfo) -> DiskHealth {
    // A threshold of zero is none.
    let failing = info.smart_attr.iter().filter(|a| a.thresh > 0 && a.value <= a.thresh);
    DiskHealth {
        failing: failing.map(|a| (a.attribute_name.clone(), a.value, a.thresh)).collect(),
        attributes: info
            .smart_attr
            .iter()
            .map(|a| (a.attribute_name.clone(), a.raw_value))
            .collect(),
        name: info.disk_name,
        model: info.model,
        serial: info.serial_number,
        error: info.collector_errors,
    }
}
