//! The lab: nodes in QEMU, snapshots, scenarios.
