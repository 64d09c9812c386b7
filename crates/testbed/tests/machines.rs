//! Nodes of other processors, emulated: from the firmware to an app's page, and to PID 1.
//!
//! Apart from the other tests, since their images take a compiler for each processor and minutes to
//! build: `cargo xtask machines` makes those and runs this file.

use std::time::Duration;

use model::Arch;
use testbed::{Image, Lab, Setup};

#[test]
fn an_arm64_node_onboards_runs_an_app_and_serves_its_page() -> anyhow::Result<()> {
    let lab = Lab::of(Arch::Arm64, "arm64")?;
    let mut node = lab.cold_boot(&Image::of(Arch::Arm64)?, &Setup::default())?;
    assert_eq!(node.sh("uname -m")?, "aarch64");
    let mounts = String::from_utf8(node.read("/proc/mounts")?)?;
    assert!(mounts.lines().any(|l| l.starts_with("/dev/dm-") && l.contains(" / squashfs ro")));
    node.onboard()?;
    node.run_hello()?;
    let page = node.app("hello").get("/")?;
    assert_eq!(page.status, 200);
    assert!(page.body.contains(node.name()), "{}", page.body);
    node.power_down()
}

#[test]
fn a_riscv64_node_reaches_our_init() -> anyhow::Result<()> {
    let lab = Lab::of(Arch::Riscv64, "riscv64")?;
    let mut node = lab.prepare(&Image::of(Arch::Riscv64)?, &Setup::default())?;
    node.power_on()?;
    // The initrd's, and behind it that of the verified root file system.
    for said in ["eve-init: initrd after", "eve-init: init after"] {
        let serial = node.serial().expect("it is on");
        let found = serial.wait_for(said, lab.patience(Duration::from_secs(15)));
        let tail = || serial.tail(20).into_iter().map(|l| l.text).collect::<Vec<_>>().join("\n");
        assert!(found.is_some(), "it never said {said:?}, but:\n{}", tail());
    }
    node.check_alive()
}
