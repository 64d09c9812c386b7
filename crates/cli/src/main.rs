//! The `eve` command.
fn main() {}
