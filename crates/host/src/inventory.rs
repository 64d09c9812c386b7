//! What the machine is made of and how it is, as sysfs and /proc show it to anyone.
//!
//! Nothing here needs rights. What cannot be read is left empty: an inventory with a hole is better
//! than none. Formats: the kernel's Documentation/ABI/testing/sysfs-*, proc(5).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use model::Bytes;
use model::reported::{
    CardKind, DiskHealth, HardwareHealth, Inventory, MemoryController, MemoryRank, NetworkCard,
    Parent, PciAddress, PciDevice, Processor, SerialPort, UsbAddress, UsbDevice,
};

use crate::disks;

/// So many devices of a kind at most: what a message can hold.
const DEVICES_MAX: usize = 1024;
/// A text of sysfs is cut here.
const TEXT_MAX: usize = 256;

/// Everything that can be seen below `root`, which is `/` on a node.
pub fn look(root: &Path) -> Inventory {
    let sys = root.join("sys");
    let dmi = |name: &str| word(&sys.join("class/dmi/id").join(name));
    let cpus = text(&root.join("proc/cpuinfo"));
    let flags = cpus.lines().filter(|l| l.starts_with("flags")).flat_map(str::split_whitespace);
    let virtualization = flags.clone().any(|f| f == "vmx" || f == "svm");
    let mut other = BTreeMap::new();
    for name in ["board_vendor", "board_name", "product_family", "product_sku", "bios_date"] {
        let value = dmi(name);
        if !value.is_empty() {
            other.insert(name.to_owned(), value);
        }
    }
    Inventory {
        pci: pci(&sys),
        usb: usb(&sys),
        network: network(&sys),
        serial: serial(&sys),
        processors: processors(&sys, &cpus),
        firmware_vendor: dmi("bios_vendor"),
        firmware_version: dmi("bios_version"),
        memory: memory(&text(&root.join("proc/meminfo"))),
        storage: Bytes(disks::under(root).iter().fold(0, |all, d| all.saturating_add(d.size.0))),
        watchdog: !names(&sys.join("class/watchdog")).is_empty(),
        tpm: names(&sys.join("class/tpm")).first().map(|tpm| {
            let major = word(&sys.join("class/tpm").join(tpm).join("tpm_version_major"));
            if major.is_empty() { major } else { format!("{major}.0") }
        }),
        virtualization: virtualization || root.join("dev/kvm").exists(),
        io_virtualization: !names(&sys.join("kernel/iommu_groups")).is_empty(),
        kernel: word(&root.join("proc/sys/kernel/osrelease")),
        command_line: cut(text(&root.join("proc/cmdline")).trim(), 4096),
        other,
    }
}

/// How memory and disks are.
pub fn health(root: &Path) -> HardwareHealth {
    let mc = root.join("sys/devices/system/edac/mc");
    let memory = names(&mc).into_iter().filter(|n| n.starts_with("mc")).map(|name| {
        let at = mc.join(&name);
        let ranks =
            names(&at).into_iter().filter(|n| n.starts_with("dimm") || n.starts_with("rank"));
        MemoryController {
            name: or(word(&at.join("mc_name")), &name),
            corrected: number(&at.join("ce_count")),
            uncorrected: number(&at.join("ue_count")),
            ranks: ranks
                .map(|rank| MemoryRank {
                    name: or(word(&at.join(&rank).join("dimm_label")), &rank),
                    corrected: number(&at.join(&rank).join("dimm_ce_count")),
                    uncorrected: number(&at.join(&rank).join("dimm_ue_count")),
                })
                .collect(),
        }
    });
    let disks = disks::under(root).into_iter().map(|disk| {
        let at = root.join("sys/block").join(&disk.name);
        let mut wwn = [word(&at.join("device/wwid")), word(&at.join("wwid"))].into_iter();
        DiskHealth {
            name: disk.path().display().to_string(),
            model: disk.model,
            serial: disk.serial,
            wwn: wwn.find(|w| !w.is_empty()).unwrap_or_default(),
            temperature: temperature(&at),
            smart: Vec::new(),
            trouble: "only what sysfs tells: SMART is not read yet".to_owned(),
        }
    });
    HardwareHealth { memory: memory.collect(), disks: disks.collect() }
}

/// In degrees: sysfs has thousandths (hwmon ABI), below the device of a disk or one further up.
fn temperature(disk: &Path) -> Option<i64> {
    for below in ["device", "device/device"] {
        for hwmon in [disk.join(below).join("hwmon"), disk.join(below)] {
            for name in names(&hwmon).iter().filter(|n| n.starts_with("hwmon")) {
                let value = word(&hwmon.join(name).join("temp1_input"));
                if let Ok(thousandths) = value.parse::<i64>() {
                    return Some(thousandths / 1000);
                }
            }
        }
    }
    None
}

fn pci(sys: &Path) -> Vec<PciDevice> {
    let all = sys.join("bus/pci/devices");
    let mut found: Vec<PciDevice> = names(&all)
        .iter()
        .filter_map(|name| {
            let at = all.join(name);
            let short = |file: &str| hex(&at.join(file)).and_then(|n| u16::try_from(n).ok());
            Some(PciDevice {
                address: PciAddress::parse(name)?,
                parent: above(&at).pci,
                driver: link(&at.join("driver")),
                vendor: short("vendor")?,
                device: short("device")?,
                revision: hex(&at.join("revision")).and_then(|n| n.try_into().ok()).unwrap_or(0),
                subsystem: short("subsystem_device").unwrap_or(0),
                class: hex(&at.join("class")).unwrap_or(0),
                iommu_group: link(&at.join("iommu_group")),
            })
        })
        .take(DEVICES_MAX)
        .collect();
    found.sort_by_key(|d| d.address);
    found
}

fn usb(sys: &Path) -> Vec<UsbDevice> {
    let all = sys.join("bus/usb/devices");
    let mut found: Vec<UsbDevice> = names(&all)
        .iter()
        .filter_map(|name| {
            let at = all.join(name);
            // Without 0x in front, unlike PCI.
            let short = |file: &str| u16::from_str_radix(&word(&at.join(file)), 16).ok();
            Some(UsbDevice {
                address: UsbAddress::parse(name)?,
                parent: above(&at),
                vendor: short("idVendor")?,
                product: short("idProduct")?,
                driver: link(&at.join("driver")),
                class: short("bDeviceClass").and_then(|n| n.try_into().ok()).unwrap_or(0),
            })
        })
        .take(DEVICES_MAX)
        .collect();
    found.sort_by(|a, b| a.address.cmp(&b.address));
    found
}

/// Interfaces with a device below them: bridges and the like have none.
fn network(sys: &Path) -> Vec<NetworkCard> {
    let all = sys.join("class/net");
    let cards = names(&all).into_iter().filter(|name| all.join(name).join("device").exists());
    cards
        .take(DEVICES_MAX)
        .map(|interface| {
            let at = all.join(&interface);
            // ARPHRD_CAN of linux/if_arp.h.
            let can = word(&at.join("type")) == "280";
            let has = |name: &str| at.join(name).exists();
            let kind = match interface.get(..4) {
                _ if can => CardKind::Can,
                _ if has("wireless") || has("phy80211") => CardKind::Wifi,
                Some("wwan" | "wwp0") => CardKind::Cellular,
                _ if has("device/physfn") => CardKind::EthernetVirtual,
                _ if number(&at.join("device/sriov_totalvfs")) > 0 => CardKind::EthernetPhysical,
                _ => CardKind::Ethernet,
            };
            NetworkCard {
                parent: on(&at.join("device")),
                kind,
                mac: word(&at.join("address")),
                // −1 or an error without a link.
                speed: word(&at.join("speed")).parse().ok(),
                interface,
            }
        })
        .collect()
}

/// Ports with a UART: the kernel makes more names than there are ports.
fn serial(sys: &Path) -> Vec<SerialPort> {
    let all = sys.join("class/tty");
    let ports = names(&all).into_iter().filter(|name| {
        name.starts_with("ttyS")
            && !["", "0"].contains(&word(&all.join(name).join("type")).as_str())
            || name.starts_with("ttyUSB")
    });
    ports
        .take(DEVICES_MAX)
        .map(|name| {
            let at = all.join(&name);
            let first = word(&at.join("port"));
            let first = first.strip_prefix("0x").and_then(|n| u32::from_str_radix(n, 16).ok());
            SerialPort {
                path: format!("/dev/{name}"),
                parent: on(&at.join("device")),
                // A UART has eight of them.
                ports: first.filter(|n| *n > 0).map_or_else(String::new, |first| {
                    format!("{first:x}-{:x}", first.saturating_add(7))
                }),
                irq: number(&at.join("irq")),
            }
        })
        .collect()
}

fn processors(sys: &Path, cpuinfo: &str) -> Vec<Processor> {
    let mut found = Vec::new();
    for block in cpuinfo.split("\n\n") {
        let field = |name: &str| {
            let pairs = block.lines().filter_map(|line| line.split_once(':'));
            let value = pairs.filter(|(key, _)| key.trim() == name).map(|(_, v)| v.trim()).next();
            cut(value.unwrap_or_default(), TEXT_MAX)
        };
        let Ok(id) = field("processor").parse::<u32>() else { continue };
        let at = sys.join(format!("devices/system/cpu/cpu{id}/cpufreq/cpuinfo_max_freq"));
        // In kHz; machines without cpufreq say what it runs at now.
        let now = field("cpu MHz");
        let now = now.split('.').next().and_then(|n| n.parse().ok()).unwrap_or(0);
        let mhz = Some(number(&at) / 1000).filter(|n| *n > 0).unwrap_or(now);
        let vendor = or(field("vendor_id"), &field("CPU implementer"));
        let model = or(field("model name"), &field("uarch"));
        found.push(Processor { id, vendor, model, mhz });
    }
    found.truncate(DEVICES_MAX);
    found
}

/// `MemTotal` of proc(5), which counts KiB.
fn memory(meminfo: &str) -> Bytes {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse().ok());
    Bytes::kib(kib.unwrap_or(0))
}

/// What the device at this link hangs on.
fn above(link: &Path) -> Parent {
    fs::canonicalize(link).map(|at| way(at.parent().unwrap_or(&at))).unwrap_or_default()
}

/// What a device at the end of this link is, or hangs on.
fn on(link: &Path) -> Parent {
    fs::canonicalize(link).map(|at| way(&at)).unwrap_or_default()
}

/// The nearest addresses on a path of sysfs: `…/pci0000:00/0000:00:14.0/usb3/3-1/3-1.4`.
fn way(path: &Path) -> Parent {
    let names: Vec<&str> = path.iter().rev().filter_map(|n| n.to_str()).collect();
    Parent {
        pci: names.iter().find_map(|n| PciAddress::parse(n)),
        usb: names.iter().find_map(|n| UsbAddress::parse(n)),
    }
}

/// Names in a folder, in order; none if there is no such folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|e| e.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// The last part of what a link points to.
fn link(path: &Path) -> String {
    let target: Option<PathBuf> = fs::read_link(path).ok();
    let name = target.as_ref().and_then(|t| t.file_name()).and_then(|n| n.to_str());
    name.unwrap_or_default().to_owned()
}

fn text(path: &Path) -> String {
    fs::read(path).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
}

fn word(path: &Path) -> String {
    cut(text(path).trim(), TEXT_MAX)
}

fn cut(text: &str, most: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(most).collect()
}

fn or(text: String, other: &str) -> String {
    if text.is_empty() { other.to_owned() } else { text }
}

/// 0 if there is none.
fn number(path: &Path) -> u64 {
    word(path).parse().unwrap_or(0)
}

fn hex(path: &Path) -> Option<u32> {
    u32::from_str_radix(word(path).strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    struct Machine(tempfile::TempDir);

    impl Machine {
        fn new() -> Machine {
            Machine(tempfile::tempdir().unwrap())
        }

        fn file(&self, path: &str, text: &str) -> &Machine {
            let at = self.0.path().join(path);
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            store::save(
                at.parent().unwrap(),
                at.file_name().unwrap().to_str().unwrap(),
                text.as_bytes(),
            )
            .unwrap();
            self
        }

        /// A link with its target, which is made; both below the root.
        fn link(&self, path: &str, to: &str) -> &Machine {
            let (at, to) = (self.0.path().join(path), self.0.path().join(to));
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            fs::create_dir_all(&to).unwrap();
            symlink(to, at).unwrap();
            self
        }
    }

    #[test]
    fn a_machine_is_read_from_sysfs() {
        let machine = Machine::new();
        let nic = "sys/devices/pci0000:00/0000:00:1c.0/0000:01:00.0";
        let stick = "sys/devices/pci0000:00/0000:00:14.0/usb3/3-1/3-1.4";
        machine
            .link("sys/bus/pci/devices/0000:01:00.0", nic)
            .file(&format!("{nic}/vendor"), "0x8086\n")
            .file(&format!("{nic}/device"), "0x1533\n")
            .file(&format!("{nic}/class"), "0x020000\n")
            .file(&format!("{nic}/revision"), "0x03\n")
            .link(&format!("{nic}/driver"), "sys/bus/pci/drivers/igb")
            .link(&format!("{nic}/iommu_group"), "sys/kernel/iommu_groups/7")
            .link("sys/class/net/eth0/device", nic)
            .file("sys/class/net/eth0/address", "52:54:00:12:34:56\n")
            .file("sys/class/net/eth0/speed", "1000\n")
            .file("sys/class/net/lo/address", "00:00:00:00:00:00\n")
            .link("sys/bus/usb/devices/3-1.4", stick)
            .file(&format!("{stick}/idVendor"), "0951\n")
            .file(&format!("{stick}/idProduct"), "1666\n")
            .file("sys/class/tty/ttyS0/type", "4\n")
            .file("sys/class/tty/ttyS0/port", "0x3F8\n")
            .file("sys/class/tty/ttyS0/irq", "4\n")
            .file("sys/class/tty/ttyS1/type", "0\n")
            .file("sys/class/tpm/tpm0/tpm_version_major", "2\n")
            .file("proc/meminfo", "MemTotal:        2048 kB\nMemFree: 1 kB\n")
            .file(
                "proc/cpuinfo",
                "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: A CPU\ncpu MHz\t\t: 2400.5\n\
                 flags\t\t: fpu vmx\n\nprocessor\t: 1\nmodel name\t: A CPU\n\n",
            );
        let found = look(machine.0.path());
        let pci = &found.pci[0];
        assert_eq!(pci.address, PciAddress::parse("0000:01:00.0").unwrap());
        assert_eq!(pci.parent, PciAddress::parse("0000:00:1c.0"));
        assert_eq!((pci.vendor, pci.device, pci.class), (0x8086, 0x1533, 0x02_0000));
        assert_eq!((pci.driver.as_str(), pci.iommu_group.as_str()), ("igb", "7"));
        let [card] = found.network.as_slice() else { panic!("{:?}", found.network) };
        assert_eq!((card.interface.as_str(), card.speed), ("eth0", Some(1000)));
        assert_eq!((card.parent.pci, card.kind), (Some(pci.address), CardKind::Ethernet));
        let usb = &found.usb[0];
        assert_eq!((usb.vendor, usb.product), (0x0951, 0x1666));
        assert_eq!(usb.parent.usb, UsbAddress::parse("3-1"));
        assert_eq!(usb.parent.pci, PciAddress::parse("0000:00:14.0"));
        let [port] = found.serial.as_slice() else { panic!("{:?}", found.serial) };
        assert_eq!((port.ports.as_str(), port.irq), ("3f8-3ff", 4));
        assert_eq!(found.processors.len(), 2);
        assert_eq!(found.processors[0].mhz, 2400);
        assert_eq!(found.memory, Bytes::mib(2));
        assert_eq!(found.tpm.as_deref(), Some("2.0"));
        assert!(found.virtualization && found.io_virtualization && !found.watchdog);
    }

    #[test]
    fn nothing_is_found_where_nothing_is() {
        let machine = Machine::new();
        assert_eq!(look(machine.0.path()), Inventory::default());
        assert_eq!(health(machine.0.path()), HardwareHealth::default());
    }

    #[test]
    fn memory_errors_and_temperatures_are_told() {
        let machine = Machine::new();
        let mc = "sys/devices/system/edac/mc/mc0";
        let disk = "sys/devices/pci0000:00/0000:00:1f.2/nvme/nvme0/nvme0n1";
        machine
            .file(&format!("{mc}/mc_name"), "ie31200\n")
            .file(&format!("{mc}/ce_count"), "5\n")
            .file(&format!("{mc}/ue_count"), "0\n")
            .file(&format!("{mc}/dimm0/dimm_label"), "DIMM A\n")
            .file(&format!("{mc}/dimm0/dimm_ce_count"), "5\n")
            .link("sys/block/nvme0n1", disk)
            .file(&format!("{disk}/size"), "2048\n")
            .file(&format!("{disk}/wwid"), "eui.1\n")
            .file(&format!("{disk}/device/model"), "Fast\n")
            .file(&format!("{disk}/device/hwmon1/temp1_input"), "41850\n");
        let found = health(machine.0.path());
        let controller = &found.memory[0];
        assert_eq!((controller.name.as_str(), controller.corrected), ("ie31200", 5));
        assert_eq!(controller.ranks[0].name, "DIMM A");
        let disk = &found.disks[0];
        assert_eq!((disk.name.as_str(), disk.wwn.as_str()), ("/dev/nvme0n1", "eui.1"));
        assert_eq!((disk.temperature, disk.model.as_str()), (Some(41), "Fast"));
    }

    /// This machine, whatever it is, has a processor and memory.
    #[test]
    fn this_machine_can_be_looked_at() {
        let found = look(Path::new("/"));
        assert!(!found.processors.is_empty() && found.memory > Bytes(0));
        assert!(!found.kernel.is_empty());
        health(Path::new("/"));
    }
}
