//! From a profile to the table of one disk.

use model::{Bytes, Sector512};
use uuid::Uuid;

use super::{DISK, Profile, Purpose, Role};
use crate::gpt::{AddError, Gpt, Partition};
use crate::mbr::{Entry, Mbr};

/// Sizes are whole MiB, and the first partition starts behind the first one.
const UNIT: Bytes = Bytes::mib(1);
/// What a disk has beyond its partitions: for the tables, and to be on the safe side.
const SPARE: Bytes = Bytes::mib(10);
/// The same on a stick, which is small and has nothing that might grow.
const SPARE_ON_STICK: Bytes = Bytes::mib(2);
/// The least that a stick may have: FAT16 takes no less in some readers.
const STICK: Bytes = Bytes::mib(8);

/// What is asked of a disk besides its profile and purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// The disk that is there. `None`: one that is just large enough.
    pub disk: Option<Bytes>,
    /// The image that its slot or its INSTALLER partition must hold.
    pub image: Bytes,
    /// Where the first partition starts: 1 MiB, or further behind if a board keeps something in
    /// front.
    pub start: Bytes,
    /// GUIDs that are not fixed are made from it.
    pub seed: Uuid,
}

impl Default for Want {
    fn default() -> Want {
        Want { disk: None, image: Bytes(0), start: UNIT, seed: DISK }
    }
}

/// Why there is no table.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The disk is too small.
    #[error(
        "a {purpose} of profile {profile} takes {need}, the disk has {have}: {short} too little"
    )]
    TooSmall {
        /// What it was to become.
        purpose: &'static str,
        /// The profile's name.
        profile: &'static str,
        /// So much would do.
        need: Bytes,
        /// So much there is.
        have: Bytes,
        /// The difference.
        short: Bytes,
    },
    /// The image does not fit into its slot.
    #[error("the slot image takes {need}, a slot of profile {profile} has {have}: {over} too much")]
    TooBig {
        /// The profile's name.
        profile: &'static str,
        /// The image.
        need: Bytes,
        /// The slot.
        have: Bytes,
        /// The difference.
        over: Bytes,
    },
    /// The parts do not make a table.
    #[error("the profile {profile} makes no partition table")]
    Table {
        /// The profile's name.
        profile: &'static str,
        /// Why not.
        source: AddError,
    },
}

impl Profile {
    /// The table of a disk of this profile. Sizes are checked before anything else: whoever has a
    /// table may write.
    pub fn plan(&self, purpose: Purpose, want: &Want) -> Result<Gpt, PlanError> {
        let need = self.need(purpose, want)?;
        let have = want.disk.unwrap_or(need);
        if have < need {
            let short = Bytes(need.0 - have.0);
            let (purpose, profile) = (purpose.name(), self.name);
            return Err(PlanError::TooSmall { purpose, profile, need, have, short });
        }
        self.lay_out(purpose, want, have)
            .map_err(|source| PlanError::Table { profile: self.name, source })
    }

    /// The table of the smallest live disk, whose image fits into a slot as it is.
    pub fn live(&self) -> Result<Gpt, PlanError> {
        self.plan(Purpose::Live, &Want::default())
    }

    /// The size that such a disk has at least.
    pub fn need(&self, purpose: Purpose, want: &Want) -> Result<Bytes, PlanError> {
        let mut sum = match purpose {
            Purpose::UsbConfig => SPARE_ON_STICK,
            _ => SPARE,
        };
        // The reference counts what lies in front of the first partition only where that is unusual.
        if want.start > UNIT {
            sum.0 += want.start.0;
        }
        for role in self.roles(purpose) {
            sum.0 += match self.length(*role, want.image)? {
                Length::Of(size) => size.0,
                Length::RestFrom(least) => least.0,
            };
        }
        Ok(sum.round_up(UNIT))
    }

    fn lay_out(&self, purpose: Purpose, want: &Want, size: Bytes) -> Result<Gpt, AddError> {
        let mut table = Gpt::new(DISK, size)?;
        let mut first = want.start.0 / 512;
        for role in self.roles(purpose) {
            let length = self.length(*role, want.image);
            let last = match length.unwrap_or(Length::RestFrom(Bytes(0))) {
                Length::Of(size) => first + size.round_up(UNIT).0 / 512 - 1,
                Length::RestFrom(_) => table.usable().1,
            };
            let own = || Uuid::new_v5(&want.seed, role.name().as_bytes());
            let id = role.id().unwrap_or_else(own);
            let (start, end) = (Sector512(first), Sector512(last));
            table.add(
                role.number(),
                Partition { id, first: start, last: end, ..role.partition() },
            )?;
            first = last + 1;
        }
        let mbr = self.hybrid_record(purpose, &table);
        Ok(table.guarded_by(mbr))
    }

    fn hybrid_record(&self, purpose: Purpose, table: &Gpt) -> Option<Mbr> {
        let shown: Vec<Entry> = self
            .roles(purpose)
            .iter()
            .filter_map(|role| {
                let partition = table.partitions().get(&role.number())?;
                Some(Entry {
                    active: *role == Role::Esp,
                    kind: role.hybrid()?,
                    first: u32::try_from(partition.first.0).ok()?,
                    sectors: u32::try_from(partition.length().0 / 512).ok()?,
                })
            })
            .collect();
        (self.hybrid && !shown.is_empty()).then(|| Mbr::hybrid(&shown))
    }

    fn length(&self, role: Role, image: Bytes) -> Result<Length, PlanError> {
        Ok(Length::Of(match role {
            Role::Esp | Role::EspB => self.esp,
            Role::ImgA | Role::ImgB if image <= self.slot => self.slot,
            Role::ImgA | Role::ImgB if self.slot_grows => image.round_up(UNIT),
            Role::ImgA | Role::ImgB => {
                let (need, have) = (image, self.slot);
                let over = Bytes(need.0 - have.0);
                return Err(PlanError::TooBig { profile: self.name, need, have, over });
            }
            Role::Config | Role::InstallerConfig => self.config,
            Role::Inventory => self.inventory,
            Role::Installer => Bytes(image.0 + UNIT.0).round_up(UNIT),
            Role::Persist => return Ok(Length::RestFrom(self.persist)),
            Role::UsbConfig => return Ok(Length::RestFrom(STICK)),
        }))
    }
}

/// How long a partition is.
#[derive(Debug, Clone, Copy)]
enum Length {
    /// So long.
    Of(Bytes),
    /// All that is left, and at least so much.
    RestFrom(Bytes),
}
