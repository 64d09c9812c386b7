//! What a node costs and how fast it comes up, measured in QEMU with apps/hello running:
//! `cargo xtask bench node`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context;
use model::Bytes;
use model::reported::{Boot, Resources};
use testbed::{Device, Image, Lab, Setup};

/// For so long the services are watched while the app runs.
const WATCH: Duration = Duration::from_secs(60);

fn main() -> anyhow::Result<()> {
    let lab = Lab::new("bench-node")?;
    let image = Image::current()?;
    let mut node = lab.prepare(&image, &Setup::default())?;
    let started = Instant::now();
    node.onboard()?;
    let onboarded = started.elapsed();
    node.run_hello()?;
    let page = started.elapsed();

    let mut peaks: BTreeMap<String, Bytes> = BTreeMap::new();
    let mut peak = Bytes(0);
    let until = Instant::now() + WATCH;
    while Instant::now() < until {
        let now = services(&mut node)?;
        peak = peak.max(Bytes(now.values().map(|b| b.0).sum()));
        for (name, pss) in now {
            let most = peaks.entry(name).or_default();
            *most = pss.max(*most);
        }
        std::thread::sleep(Duration::from_secs(2));
    }
    let boot: Boot = topic(&mut node, "boot")?;
    let resources: Resources = topic(&mut node, "resources")?;

    drop(node);
    let restored = restore(&image)?;

    print_machine(&lab)?;
    println!("image        {}", image.path().display());
    println!("\nseconds since power-on");
    println!("  {:20} {:>8.1}", "onboarded", onboarded.as_secs_f64());
    println!("  {:20} {:>8.1}", "page answers", page.as_secs_f64());
    println!("seconds since the kernel started, as the node tells");
    for mark in &boot.timeline {
        println!("  {:20} {:>8.1}", mark.what, Duration::from_millis(mark.at_ms).as_secs_f64());
    }
    println!("seconds to restore a booted node: {:.2}, the best of five", restored.as_secs_f64());
    println!("\nservices together, PSS, at their peak: {peak}");
    let mut rows: Vec<_> = peaks.into_iter().collect();
    rows.sort_by_key(|(_, pss)| std::cmp::Reverse(*pss));
    for (name, pss) in rows {
        println!("  {name:20} {:>10}", pss.to_string());
    }
    let used = resources.memory_total.0.saturating_sub(resources.memory_available.0);
    println!("all of the node: {} of {} used", Bytes(used), resources.memory_total);
    Ok(())
}

/// From nothing to an answer of a node that was booted before: the best of five.
fn restore(image: &Image) -> anyhow::Result<Duration> {
    let lab = Lab::new("bench-snapshot")?;
    drop(lab.boot(image)?); // makes the snapshot
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let started = Instant::now();
        let mut node = lab.boot(image)?;
        node.sh("true")?;
        best = best.min(started.elapsed());
    }
    Ok(best)
}

/// The proportional set size of PID 1 and of each service, its children included, now.
fn services(node: &mut Device) -> anyhow::Result<BTreeMap<String, Bytes>> {
    // One line a process: name, KiB.
    let script = r#"
        pss() { awk '/^Pss:/ {print $2}' "/proc/$1/smaps_rollup" 2>/dev/null; }
        echo "eve-init $(pss 1)"
        for dir in /sys/fs/cgroup/eve/services/*/; do
            for pid in $(cat "$dir/cgroup.procs"); do
                echo "$(basename "$dir") $(pss "$pid")"
            done
        done"#;
    let mut sum: BTreeMap<String, Bytes> = BTreeMap::new();
    for line in node.sh(script)?.lines() {
        // A process that ended between two looks has no number.
        if let Some((name, kib)) = line.split_once(' ')
            && let Ok(kib) = kib.trim().parse()
        {
            // The lab's own way in is not part of a node.
            if name != "debug" {
                sum.entry(name.to_owned()).or_default().0 += Bytes::kib(kib).0;
            }
        }
    }
    Ok(sum)
}

fn topic<T: serde::de::DeserializeOwned>(node: &mut Device, name: &str) -> anyhow::Result<T> {
    let body = node.read(&format!("/run/eve/{name}/only.json"))?;
    serde_json::from_slice(&body).with_context(|| format!("the node's topic {name}"))
}

fn print_machine(lab: &Lab) -> anyhow::Result<()> {
    let info = std::fs::read_to_string("/proc/cpuinfo")?;
    let field = |name: &str| {
        let line = info.lines().find(|l| l.starts_with(name));
        line.and_then(|l| l.split_once(": ")).map_or("unknown", |(_, value)| value).to_owned()
    };
    let processors = info.lines().filter(|l| l.starts_with("processor")).count();
    let setup = Setup::default();
    println!("machine      {processors} x {}", field("model name"));
    println!("runs with    {}, {}", lab.accel(), host::qemu::probe::version(lab.arch())?);
    let cpus = setup.cpus.unwrap_or(lab.accel().cpus());
    println!("node         processors: {cpus}, memory: {}", setup.memory);
    Ok(())
}
