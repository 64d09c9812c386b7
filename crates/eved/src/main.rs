//! Every device service, one process each: `eved <service>`.
fn main() {}
