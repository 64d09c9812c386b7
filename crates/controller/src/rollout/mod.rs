//! Changes that are taken to devices in waves, and when devices may be disturbed.
//!
//! [`machine`] decides, [`plan`] divides, [`window`] and [`select`] say when and whom; none of them
//! asks a clock or a database.

mod machine;
mod plan;
mod select;
mod window;

pub use machine::{Limits, Member, Phase, Refused, State, Step};
pub use plan::{Gate, Plan, Share, Wave};
pub use window::{Day, WindowSpec};
