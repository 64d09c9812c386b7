//! Nodes of other processors, emulated: from the firmware to an app's page.
//!
//! Apart from the other tests, since their images take a compiler for each processor and minutes to
//! build: `cargo xtask machines` makes those and runs this file.

use model::Arch;
use testbed::{Image, Lab, Setup};

#[test]
fn an_arm64_node_onboards_runs_an_app_and_serves_its_page() -> anyhow::Result<()> {
    serves(Arch::Arm64)
}

#[test]
fn a_riscv64_node_onboards_runs_an_app_and_serves_its_page() -> anyhow::Result<()> {
    serves(Arch::Riscv64)
}

fn serves(arch: Arch) -> anyhow::Result<()> {
    let lab = Lab::of(arch, arch.name())?;
    let mut node = lab.cold_boot(&Image::of(arch)?, &Setup::default())?;
    assert_eq!(node.sh("uname -m")?, arch.uname());
    let mounts = String::from_utf8(node.read("/proc/mounts")?)?;
    assert!(mounts.lines().any(|l| l.starts_with("/dev/dm-") && l.contains(" / squashfs ro")));
    node.onboard()?;
    node.run_hello()?;
    let page = node.app("hello").get("/")?;
    assert_eq!(page.status, 200);
    assert!(page.body.contains(node.name()), "{}", page.body);
    let serial = node.serial().expect("it is on").find("eve-init: all services ready");
    println!("{}", serial.map(|line| line.text).unwrap_or_default());
    node.power_down()
}
