//! What the machine is made of, and how its memory and disks are.

use std::collections::BTreeMap;

use crate::Bytes;

/// The address of a PCI function: `0000:00:1f.2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PciAddress {
    /// Domain, 0 on nearly all machines.
    pub domain: u16,
    /// Bus.
    pub bus: u8,
    /// Device, 0 to 31.
    pub device: u8,
    /// Function, 0 to 7.
    pub function: u8,
}

impl PciAddress {
    /// Reads what sysfs calls it. `None`: it is no such address.
    pub fn parse(text: &str) -> Option<PciAddress> {
        let (domain, rest) = text.split_once(':')?;
        let (bus, rest) = rest.split_once(':')?;
        let (device, function) = rest.split_once('.')?;
        let device = u8::from_str_radix(device, 16).ok().filter(|d| *d < 32)?;
        let function = u8::from_str_radix(function, 16).ok().filter(|f| *f < 8)?;
        Some(PciAddress {
            domain: u16::from_str_radix(domain, 16).ok()?,
            bus: u8::from_str_radix(bus, 16).ok()?,
            device,
            function,
        })
    }
}

/// Where a USB device is plugged in: bus 3, port `1.4`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UsbAddress {
    /// The bus, from 1.
    pub bus: u32,
    /// Ports from the root hub on, with dots between.
    pub port: String,
}

impl UsbAddress {
    /// Reads what sysfs calls it: `3-1.4`. `None`: a root hub, an interface, or something else.
    pub fn parse(text: &str) -> Option<UsbAddress> {
        let (bus, port) = text.split_once('-')?;
        let digits = |t: &str| !t.is_empty() && t.chars().all(|c| c.is_ascii_digit() || c == '.');
        let bus = bus.parse().ok()?;
        digits(port).then(|| UsbAddress { bus, port: port.to_owned() })
    }
}

/// What a device hangs on: both, if a USB controller on PCI is between.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parent {
    /// The nearest PCI function above.
    pub pci: Option<PciAddress>,
    /// The nearest USB device above.
    pub usb: Option<UsbAddress>,
}

/// A PCI function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PciDevice {
    /// Where.
    pub address: PciAddress,
    /// The bridge above. `None`: it is on a root bus.
    pub parent: Option<PciAddress>,
    /// The kernel's driver; empty: none.
    pub driver: String,
    /// Vendor number.
    pub vendor: u16,
    /// Device number.
    pub device: u16,
    /// Revision.
    pub revision: u8,
    /// Subsystem's device number.
    pub subsystem: u16,
    /// Class, subclass and interface: 24 bits.
    pub class: u32,
    /// IOMMU group; empty: none.
    pub iommu_group: String,
}

/// A USB device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsbDevice {
    /// Where.
    pub address: UsbAddress,
    /// What it hangs on.
    pub parent: Parent,
    /// Vendor number.
    pub vendor: u16,
    /// Product number.
    pub product: u16,
    /// The kernel's driver; empty: none.
    pub driver: String,
    /// Class of the device; 0: its interfaces say.
    pub class: u8,
}

/// A network interface of hardware.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkCard {
    /// Its name.
    pub interface: String,
    /// What it hangs on.
    pub parent: Parent,
    /// What kind.
    pub kind: CardKind,
    /// Hardware address, as sysfs shows it; empty: none.
    pub mac: String,
    /// In Mbit/s. `None`: there is no link, or nobody says.
    pub speed: Option<u32>,
}

/// Kinds of network interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CardKind {
    /// Ethernet.
    Ethernet,
    /// Ethernet that can be split into functions.
    EthernetPhysical,
    /// A function of such a card.
    EthernetVirtual,
    /// Wireless LAN.
    Wifi,
    /// Mobile network.
    Cellular,
    /// CAN bus.
    Can,
}

/// A serial port of hardware.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SerialPort {
    /// `/dev/ttyS0`
    pub path: String,
    /// What it hangs on.
    pub parent: Parent,
    /// Its I/O ports, `3f8-3ff`; empty: none.
    pub ports: String,
    /// Its interrupt; 0: none.
    pub irq: u64,
}

/// A processor as the kernel counts them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Processor {
    /// Its number.
    pub id: u32,
    /// Its maker.
    pub vendor: String,
    /// What its maker calls it.
    pub model: String,
    /// Its highest frequency, in MHz; 0: nobody says.
    pub mhz: u64,
}

/// What the machine is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// PCI functions by address.
    pub pci: Vec<PciDevice>,
    /// USB devices by address, root hubs left out.
    pub usb: Vec<UsbDevice>,
    /// Network interfaces by name.
    pub network: Vec<NetworkCard>,
    /// Serial ports by name.
    pub serial: Vec<SerialPort>,
    /// Processors.
    pub processors: Vec<Processor>,
    /// Maker of the firmware.
    pub firmware_vendor: String,
    /// Version of the firmware.
    pub firmware_version: String,
    /// All memory.
    pub memory: Bytes,
    /// All disks together.
    pub storage: Bytes,
    /// There is a hardware watchdog.
    pub watchdog: bool,
    /// The TPM's version, `2.0`. `None`: there is none.
    pub tpm: Option<String>,
    /// The processor can run virtual machines.
    pub virtualization: bool,
    /// Hardware can be given to virtual machines.
    pub io_virtualization: bool,
    /// Version of the kernel.
    pub kernel: String,
    /// Its command line.
    pub command_line: String,
    /// What else is worth knowing, by name.
    pub other: BTreeMap<String, String>,
}

/// How memory and disks are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HardwareHealth {
    /// Memory controllers that count errors; none on most machines.
    pub memory: Vec<MemoryController>,
    /// Disks by name.
    pub disks: Vec<DiskHealth>,
}

/// A memory controller's counts since the kernel started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryController {
    /// Its name.
    pub name: String,
    /// Errors that were corrected.
    pub corrected: u64,
    /// Errors that were not.
    pub uncorrected: u64,
    /// The same by rank or module.
    pub ranks: Vec<MemoryRank>,
}

/// Counts of a rank or module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryRank {
    /// Its label, or the kernel's name of it.
    pub name: String,
    /// Errors that were corrected.
    pub corrected: u64,
    /// Errors that were not.
    pub uncorrected: u64,
}

/// A disk, as far as sysfs tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskHealth {
    /// `/dev/sda`
    pub name: String,
    /// What its maker calls it.
    pub model: String,
    /// Its serial number.
    pub serial: String,
    /// Its world wide name; may be empty.
    pub wwn: String,
    /// In degrees Celsius. `None`: nobody says.
    pub temperature: Option<i64>,
    /// What it says of itself.
    pub smart: Vec<SmartAttribute>,
    /// What stood in the way of looking closer; empty: nothing.
    pub trouble: String,
}

/// What one disk says of itself (SMART).
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DiskSmart {
    /// `/dev/sda`
    pub disk: String,
    /// Its attributes, in its order; none if there is trouble.
    pub attributes: Vec<SmartAttribute>,
    /// Why it says nothing; empty: it does.
    pub trouble: String,
}

/// An attribute of SMART.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SmartAttribute {
    /// Its number (ATA); 0 where there is none.
    pub id: u8,
    /// What the number means to most makers.
    pub name: String,
    /// How good it is, as the maker counts: the more the better. 0: not said.
    pub value: u64,
    /// The least that the value ever was. 0: not said.
    pub worst: u64,
    /// At this value, or below, the disk is about to fail. 0: it never is for this.
    pub threshold: u64,
    /// As counted: hours, sectors, degrees Celsius.
    pub raw: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_sysfs_writes_them() {
        let address = PciAddress { domain: 0, bus: 0x3a, device: 0x1f, function: 2 };
        assert_eq!(PciAddress::parse("0000:3a:1f.2"), Some(address));
        for bad in ["", "pci0000:00", "0000:00:20.0", "0000:00:1f.8", "0000:00:1f"] {
            assert_eq!(PciAddress::parse(bad), None, "{bad}");
        }
        let address = UsbAddress { bus: 3, port: "1.4".into() };
        assert_eq!(UsbAddress::parse("3-1.4"), Some(address));
        for bad in ["usb3", "3-1.4:1.0", "3-", "-1"] {
            assert_eq!(UsbAddress::parse(bad), None, "{bad}");
        }
    }
}
