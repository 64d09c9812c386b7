//! Why nothing is installed.

use formats::layout::PlanError;
use model::{Bytes, Diagnose, Diagnosis, Who};

/// Why nothing is installed. Nothing was written when it is said.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is nothing to install onto.
    #[error("there is no disk to install onto; seen: {seen}")]
    NoDisk {
        /// Every disk, and what speaks against it.
        seen: String,
    },
    /// The disk that was named is not there.
    #[error("there is no disk {name}; seen: {seen}")]
    NotThere {
        /// The name that was asked for.
        name: String,
        /// Those that are there.
        seen: String,
    },
    /// Nobody named a disk, and more than one would do.
    #[error("several disks would do, and none was named: {names}")]
    Several {
        /// Their names and sizes.
        names: String,
    },
    /// The installer was booted from it.
    #[error("{disk} is the medium that this installer was booted from")]
    Medium {
        /// The disk.
        disk: String,
    },
    /// Somebody has it open.
    #[error("{disk} is in use: {by}")]
    InUse {
        /// The disk.
        disk: String,
        /// How.
        by: String,
    },
    /// It cannot be written to.
    #[error("{disk} is write-protected")]
    ReadOnly {
        /// The disk.
        disk: String,
    },
    /// Its sectors have another size than our tables have.
    #[error("{disk} has sectors of {sector} bytes, tables of ours have sectors of 512")]
    Sectors {
        /// The disk.
        disk: String,
        /// Bytes of its sectors.
        sector: u32,
    },
    /// It is too small.
    #[error("{disk} is too small: {need} are needed, it has {have}, {short} too little")]
    TooSmall {
        /// The disk.
        disk: String,
        /// So much would do.
        need: Bytes,
        /// So much there is.
        have: Bytes,
        /// The difference.
        short: Bytes,
    },
    /// The image does not fit into the layout.
    #[error("cannot lay out {disk}")]
    Layout {
        /// The disk.
        disk: String,
        /// Why not.
        source: PlanError,
    },
    /// What is to be kept is not there.
    #[error("{what} of {disk} is to be kept, but the disk holds {found}")]
    NothingToKeep {
        /// The disk.
        disk: String,
        /// What was to be kept.
        what: &'static str,
        /// What it holds instead.
        found: String,
    },
    /// Something stays, so the layout stays, and the image does not fit into it.
    #[error(
        "{disk} keeps its layout because something on it is to be kept, and its partition \
         {partition} has {have}, {need} are needed"
    )]
    KeptTooSmall {
        /// The disk.
        disk: String,
        /// The partition.
        partition: &'static str,
        /// What must fit.
        need: Bytes,
        /// What there is.
        have: Bytes,
    },
    /// Something is kept, and P3 was to move.
    #[error(
        "{disk} keeps its layout because something on it is to be kept, so P3 stays where it is"
    )]
    KeepsP3 {
        /// The disk.
        disk: String,
    },
    /// P3 over several disks.
    #[error("P3 over several disks ({disks}) needs a storage pool, and those cannot be made yet")]
    Pool {
        /// Their names.
        disks: String,
    },
}

impl Diagnose for Refusal {
    fn diagnose(&self) -> Diagnosis {
        match self {
            Refusal::NoDisk { .. } | Refusal::Sectors { .. } => {
                Diagnosis::of(Who::Hardware, "attach a disk that is not the boot medium")
            }
            Refusal::ReadOnly { .. } => Diagnosis::of(Who::Hardware, "take the protection off"),
            Refusal::TooSmall { .. } => Diagnosis::of(Who::Hardware, "use a larger disk"),
            Refusal::NotThere { .. } | Refusal::Several { .. } | Refusal::Medium { .. } => {
                Diagnosis::of(Who::Operator, "name one of the disks with eve_install_disk=")
            }
            Refusal::InUse { .. } => {
                Diagnosis::of(Who::Operator, "unmount it, or stop what uses it")
            }
            Refusal::Layout { .. } => {
                Diagnosis::of(Who::Operator, "build the installer with another --profile")
            }
            Refusal::NothingToKeep { .. } | Refusal::KeptTooSmall { .. } => Diagnosis::of(
                Who::Operator,
                "install without eve_install_skip_…: everything on the disk will be lost",
            ),
            Refusal::KeepsP3 { .. } => Diagnosis::of(Who::Operator, "leave eve_persist_disk= out"),
            Refusal::Pool { .. } => {
                Diagnosis::of(Who::Operator, "name one disk with eve_persist_disk=")
            }
        }
    }
}
