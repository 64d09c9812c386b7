//! Nodes of other processors, emulated: from the firmware to an app's page.
//!
//! Apart from the other tests, since their images take a compiler for each processor and minutes to
//! build: `cargo xtask machines` makes those and runs this file.

use model::Arch;
use testbed::{Device, Image, Lab, Setup};

#[test]
fn an_arm64_node_onboards_runs_an_app_serves_its_page_and_powers_off() -> anyhow::Result<()> {
    let lab = Lab::of(Arch::Arm64, "arm64")?;
    serving(&lab)?.power_down()
}

#[test]
fn a_riscv64_node_onboards_runs_an_app_and_serves_its_page() -> anyhow::Result<()> {
    // QEMU's board has no power button: it is cut off.
    let lab = Lab::of(Arch::Riscv64, "riscv64")?;
    serving(&lab).map(drop)
}

/// A node of the lab's processor whose app has answered.
fn serving(lab: &Lab) -> anyhow::Result<Device> {
    let arch = lab.arch();
    let mut node = lab.cold_boot(&Image::of(arch)?, &Setup::default())?;
    assert_eq!(node.sh("uname -m")?, arch.uname());
    let mounts = String::from_utf8(node.read("/proc/mounts")?)?;
    assert!(mounts.lines().any(|l| l.starts_with("/dev/dm-") && l.contains(" / squashfs ro")));
    node.onboard()?;
    node.run_hello()?;
    let page = node.app("hello").get("/")?;
    assert_eq!(page.status, 200);
    assert!(page.body.contains(node.name()), "{}", page.body);
    let ready = node.serial().and_then(|serial| serial.find("eve-init: all services ready"));
    println!("{}", ready.map(|line| line.text).unwrap_or_default());
    Ok(node)
}
