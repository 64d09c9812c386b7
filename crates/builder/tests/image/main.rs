//! Images made of a small root file system, judged by programs that others wrote.

#[path = "../../../formats/tests/second_opinion/tools.rs"]
mod tools;

mod bad;
mod disks;
mod everywhere;
mod ext4;
mod judged;
mod made;
mod small;
mod truth;
