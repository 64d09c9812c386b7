//! Changes that are taken to devices in waves, when devices may be disturbed, and changes that wait
//! for their time.
//!
//! A rollout applies its change to the objects at once, and holds it back from every device that it
//! touches ([`crate::fleet`]'s overlay): such a device is told of the objects as they were. When its
//! wave comes, it is let go.
//!
//! [`machine`] decides, [`plan`] divides, [`judge`] says how a device is, [`window`]
//! when and for how long; none of them asks a clock or a database. [`drive`] has the hands.

pub(crate) mod calendar;
pub(crate) mod drive;
mod judge;
mod machine;
mod plan;
mod record;
pub(crate) mod schedule;
mod window;

pub use crate::objects::{Day, WindowSpec};
pub(crate) use machine::Event;
pub use machine::{Limits, Member, Phase, Refused, State, Step};
pub use plan::{Gate, Plan, Share, Wave};
pub(crate) use record::base_of;
pub use record::{Rollout, RolloutDevice, WaveCount};
pub use schedule::Scheduled;
