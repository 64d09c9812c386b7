//! Nodes in QEMU, from the firmware to an app's page. They need the image that
//! `cargo xtask lab-image` builds.

use std::time::Duration;

use testbed::{Image, Lab, Setup};

#[test]
fn a_node_boots_verified_and_answers() -> anyhow::Result<()> {
    let lab = Lab::new("boots")?;
    let mut node = lab.cold_boot(&Image::current()?, &Setup::default())?;
    assert_eq!(node.sh("cat /proc/1/comm")?, "eve-init");
    let mounts = String::from_utf8(node.read("/proc/mounts")?)?;
    let mounted = |at: &str, kind: &str, how: &str| {
        mounts.lines().any(|line| {
            let f: Vec<&str> = line.split(' ').collect();
            f[1] == at && f[2] == kind && f[3].split(',').any(|o| o == how)
        })
    };
    assert!(mounted("/", "squashfs", "ro"), "{mounts}");
    assert!(mounted("/persist", "ext4", "rw"), "{mounts}");
    assert!(mounted("/config", "tmpfs", "ro"), "{mounts}");
    assert!(node.sh("echo x > /etc/x").is_err(), "the root file system can be written to");
    node.power_down()
}

#[test]
fn a_snapshot_is_the_test_s_own_and_its_clock_is_right() -> anyhow::Result<()> {
    let image = Image::current()?;
    let lab = Lab::new("snapshot")?;
    drop(lab.boot(&image)?); // makes the snapshot, if no test before did
    for _ in 0..3 {
        // A clock of the snapshot would show a time before this.
        let earliest = host::clock::now().0 / 1000;
        let mut node = lab.boot(&image)?;
        assert_eq!(node.sh("cat /persist/mine 2>/dev/null || echo none")?, "none");
        node.sh("echo yes > /persist/mine && sync")?;
        let shown: u64 = node.sh("date +%s")?.parse()?;
        let latest = host::clock::now().0 / 1000 + 1;
        assert!((earliest..=latest).contains(&shown), "{shown} is not in {earliest}..={latest}");
    }
    Ok(())
}

#[test]
fn a_flipped_byte_in_the_root_file_system_stops_the_node() -> anyhow::Result<()> {
    let lab = Lab::new("flipped_byte")?;
    let mut node = lab.prepare(&Image::current()?, &Setup::default())?;
    flip_in_root(&node.base_disk())?;
    let error = node.start().expect_err("the node came up with a corrupt root file system");
    let text = format!("{error:#}");
    assert!(text.contains("corrupt"), "it stopped, but did not say why: {text}");
    Ok(())
}

/// Flips a bit early in the slot: the superblock of the squashfs is read at once.
fn flip_in_root(disk: &std::path::Path) -> anyhow::Result<()> {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::options().read(true).write(true).open(disk)?;
    let size = model::Bytes(file.metadata()?.len());
    let mut head = vec![0; usize::try_from(formats::gpt::HEAD.0)?];
    file.read_exact_at(&mut head, 0)?;
    let table = formats::gpt::Gpt::parse(&head, size)?;
    let (_, slot) = table.by_name("IMGA").expect("the disk has a slot A");
    let at = slot.offset().0 + 100;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    file.write_all_at(&[byte[0] ^ 1], at)?;
    Ok(())
}

#[test]
fn a_node_onboards_runs_an_app_and_serves_its_page() -> anyhow::Result<()> {
    let lab = Lab::new("hello")?;
    let mut node = lab.boot(&Image::current()?)?;
    node.onboard()?;
    node.run_hello()?;
    assert_eq!(node.app("hello").get("/healthz")?.body.trim(), "ok");
    let page = node.app("hello").get("/")?;
    assert_eq!(page.status, 200);
    assert!(page.body.contains("hello"), "{}", page.body);
    assert!(page.body.contains(node.name()), "{}", page.body);
    node.app("hello").running()?;
    // Its output comes by the node's log, as newlogs.
    node.app("hello").says("hello: start 1 of hello on ")?;
    Ok(())
}

#[test]
fn after_power_cuts_the_same_node_comes_back_with_its_app() -> anyhow::Result<()> {
    let lab = Lab::new("power_cuts")?;
    let mut node = lab.prepare(&Image::current()?, &Setup::default())?;
    node.onboard()?;
    node.run_hello()?;
    let id = node.view()?.id;
    let number = |name, otherwise| {
        std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok()).unwrap_or(otherwise)
    };
    let (cuts, seed) = (number("EVE_LAB_CUTS", 3), number("EVE_LAB_SEED", 2));
    let span = lab.patience(Duration::from_secs(2));
    for cut in 0..cuts {
        // Anywhere between power-on and some seconds after the app is there; the first cuts of
        // many may fall into the same boot phase, so each has a stretch of its own.
        let share = (cut as f64 + random(seed ^ (cut << 32))) / cuts as f64;
        let moment = span.mul_f64(share);
        println!("cut {cut}: {:.1} s after power-on", moment.as_secs_f64());
        node.power_cut();
        node.power_on()?;
        std::thread::sleep(moment);
        node.power_cut();
        node.start()?;
        let health = node.app("hello").get("/healthz")?;
        assert_eq!(health.status, 200, "cut {cut}");
        assert_eq!(node.view()?.id, id, "cut {cut}: it has another identity");
        let said = std::fs::read_to_string(lab.dir().join("serial.log"))?;
        assert!(!said.contains("UNEXPECTED INCONSISTENCY"), "cut {cut}: fsck asks\n{said}");
    }
    Ok(())
}

/// A number from 0 to 1, always the same for the same seed (splitmix64).
fn random(seed: u64) -> f64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}
