//! What a machine is made of (info type 11), how its memory and disks are (`hardwarehealth`), and
//! which blobs a node has (info type 9), as a node tells it.

use std::collections::BTreeMap;

use model::reported::{
    Boot, CardKind, ContentState, ContentStatus, DiskHealth, HardwareHealth, Inventory, Parent,
    PciAddress, UsbAddress,
};
use model::{DeviceId, Digest, UnixMillis};

use super::to_timestamp;
use crate::pb::hardwarehealth::{
    DimmRankInfo, EccMemoryControllerInfo, EccMemoryReport, ZHardwareHealth,
};
use crate::pb::info::z_info_msg::InfoContent;
use crate::pb::info::{
    Bios, BusParent, CanDevice, ContentResources, Cpu, CpuInfo, HardwareInventory, NetworkDevice,
    NetworkDeviceType, PciDevice, SerialPort, SmartAttr, StorageDiskInfo, Tpm, UsageInfo,
    UsbDevice, ZInfoBlob, ZInfoBlobList, ZInfoHardware, ZInfoMsg, ZInfoTypes, ZSwState,
};
use crate::wire;

/// SMART attribute 194 is the temperature of a disk in degrees Celsius.
const SMART_TEMPERATURE: u32 = 194;

/// The payload of a hardware info, as of `at`.
pub fn hardware(own: DeviceId, at: UnixMillis, machine: &Inventory, boot: &Boot) -> Vec<u8> {
    let inventory = HardwareInventory {
        pci_devices: machine.pci.iter().map(pci).collect(),
        usb_devices: machine.usb.iter().map(usb).collect(),
        serial_devices: machine
            .serial
            .iter()
            .map(|port| SerialPort {
                parent: parent(&port.parent),
                ioport_range: port.ports.clone(),
                irq: port.irq,
                devpath: port.path.clone(),
            })
            .collect(),
        network_devices: machine
            .network
            .iter()
            .filter_map(|card| {
                Some(NetworkDevice {
                    parent: parent(&card.parent),
                    ifname: card.interface.clone(),
                    r#type: card_kind(card.kind)?.into(),
                    mac_address: card.mac.clone(),
                    speed_mbps: card.speed.unwrap_or_default(),
                })
            })
            .collect(),
        can_devices: machine
            .network
            .iter()
            .filter(|card| card.kind == CardKind::Can)
            .map(|card| CanDevice { parent: parent(&card.parent), ifname: card.interface.clone() })
            .collect(),
        bios: Some(Bios {
            vendor: machine.firmware_vendor.clone(),
            version: machine.firmware_version.clone(),
            ..Bios::default()
        }),
        cpu_info: Some(CpuInfo {
            cpus: machine
                .processors
                .iter()
                .map(|cpu| Cpu {
                    model: cpu.model.clone(),
                    vendor: cpu.vendor.clone(),
                    id: cpu.id,
                    freq: cpu.mhz,
                })
                .collect(),
        }),
        total_memory_bytes: machine.memory.0,
        total_storage_bytes: machine.storage.0,
        watchdog_present: machine.watchdog,
        tpm: Some(Tpm {
            present: machine.tpm.is_some(),
            spec_version: machine.tpm.clone().unwrap_or_default(),
            ..Tpm::default()
        }),
        misc: machine.other.clone().into_iter().collect(),
        ..HardwareInventory::default()
    };
    let info = ZInfoHardware {
        eve_release: boot.version.clone(),
        inventory: Some(inventory),
        kernel_version: machine.kernel.clone(),
        partition: boot.slot.clone(),
        kernel_cmdline: machine.command_line.clone(),
        ..ZInfoHardware::default()
    };
    message(own, at, ZInfoTypes::ZiHardware, InfoContent::Hwinfo(info))
}

/// The payload of `hardwarehealth`, as of `at`.
pub fn health(own: DeviceId, at: UnixMillis, health: &HardwareHealth) -> Vec<u8> {
    let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let controllers = health.memory.iter().map(|controller| EccMemoryControllerInfo {
        controller_name: controller.name.clone(),
        ce_count: signed(controller.corrected),
        ue_count: signed(controller.uncorrected),
        ranks: controller
            .ranks
            .iter()
            .map(|rank| DimmRankInfo {
                rank_name: rank.name.clone(),
                ce_count: signed(rank.corrected),
                ue_count: signed(rank.uncorrected),
            })
            .collect(),
    });
    let disks = health.disks.iter().map(|disk| StorageDiskInfo {
        disk_name: disk.name.clone(),
        wwn: disk.wwn.clone(),
        serial_number: disk.serial.clone(),
        model: disk.model.clone(),
        collector_errors: disk.trouble.clone(),
        smart_attr: smart(disk),
    });
    wire::encode(&ZHardwareHealth {
        dev_id: own.to_string(),
        at_time_stamp: Some(to_timestamp(at)),
        mr: Some(EccMemoryReport { memory_controllers: controllers.collect() }),
        disks: disks.collect(),
    })
}

/// What a disk says of itself; if it says nothing, its temperature as the kernel measures it.
fn smart(disk: &DiskHealth) -> Vec<SmartAttr> {
    let said = disk.smart.iter().map(|attribute| SmartAttr {
        id: attribute.id.into(),
        value: attribute.value,
        worst: attribute.worst,
        thresh: attribute.threshold,
        when_failed: match attribute.threshold {
            0 => String::new(),
            least if attribute.value <= least => "FAILING_NOW".to_owned(),
            least if (1..=least).contains(&attribute.worst) => "In_the_past".to_owned(),
            _ => String::new(),
        },
        raw_value: attribute.raw,
        attribute_name: attribute.name.clone(),
        ..SmartAttr::default()
    });
    let measured = disk.temperature.and_then(|degrees| u64::try_from(degrees).ok());
    let measured = measured.filter(|_| disk.smart.is_empty()).map(|degrees| SmartAttr {
        id: SMART_TEMPERATURE,
        raw_value: degrees,
        attribute_name: "Temperature_Celsius".to_owned(),
        ..SmartAttr::default()
    });
    said.chain(measured).collect()
}

/// The payload that tells of all blobs, as of `at`: what contents came to, and by how many each is
/// used. The parts of an image are not told one by one.
pub fn blobs<'a>(
    own: DeviceId,
    at: UnixMillis,
    contents: impl IntoIterator<Item = &'a ContentStatus>,
) -> Vec<u8> {
    let mut found: BTreeMap<Digest, (u64, u32)> = BTreeMap::new();
    for content in contents {
        if let ContentState::Loaded { digest, size } = &content.state {
            let blob = found.entry(*digest).or_insert((size.0, 0));
            blob.1 = blob.1.saturating_add(1);
        }
    }
    let blob = found
        .into_iter()
        .map(|(digest, (size, users))| ZInfoBlob {
            sha256: digest.hex(),
            resources: Some(ContentResources { cur_size_bytes: size }),
            usage: Some(UsageInfo { ref_count: users, ..UsageInfo::default() }),
            state: ZSwState::Loaded.into(),
            progress_percentage: 100,
            err: None,
        })
        .collect();
    message(own, at, ZInfoTypes::ZiBlobList, InfoContent::Binfo(ZInfoBlobList { blob }))
}

fn pci(device: &model::reported::PciDevice) -> PciDevice {
    PciDevice {
        parent_pci_device_address: device.parent.map(pci_address),
        driver: device.driver.clone(),
        address: Some(pci_address(device.address)),
        vendor_id: device.vendor.into(),
        device_id: device.device.into(),
        revision: device.revision.into(),
        subsystem_id: device.subsystem.into(),
        // Class, and subclass with interface below it.
        class_id: device.class >> 16,
        subclass_id: (device.class >> 8 & 0xff).into(),
        iommu_group: device.iommu_group.clone(),
    }
}

fn usb(device: &model::reported::UsbDevice) -> UsbDevice {
    UsbDevice {
        parent: parent(&device.parent),
        vendor_id: device.vendor.into(),
        product_id: device.product.into(),
        bus_port: Some(usb_address(&device.address)),
        driver: device.driver.clone(),
        class_id: device.class.into(),
        ..UsbDevice::default()
    }
}

/// `None`: it is in another list.
fn card_kind(kind: CardKind) -> Option<NetworkDeviceType> {
    Some(match kind {
        CardKind::Ethernet => NetworkDeviceType::Ethernet,
        CardKind::EthernetPhysical => NetworkDeviceType::EthPf,
        CardKind::EthernetVirtual => NetworkDeviceType::EthVf,
        CardKind::Wifi => NetworkDeviceType::Wifi,
        CardKind::Cellular => NetworkDeviceType::Wwan,
        CardKind::Can => return None,
    })
}

fn parent(parent: &Parent) -> Option<BusParent> {
    (*parent != Parent::default()).then(|| BusParent {
        pci_parent: parent.pci.map(pci_address),
        usb_parent: parent.usb.as_ref().map(usb_address),
    })
}

fn pci_address(address: PciAddress) -> crate::pb::info::PciAddress {
    crate::pb::info::PciAddress {
        domain: address.domain.into(),
        bus: address.bus.into(),
        device: address.device.into(),
        function: address.function.into(),
    }
}

fn usb_address(address: &UsbAddress) -> crate::pb::info::UsbAddress {
    crate::pb::info::UsbAddress { bus: address.bus, port: address.port.clone() }
}

fn message(own: DeviceId, at: UnixMillis, kind: ZInfoTypes, content: InfoContent) -> Vec<u8> {
    wire::encode(&ZInfoMsg {
        ztype: kind.into(),
        dev_id: own.to_string(),
        info_content: Some(content),
        at_time_stamp: Some(to_timestamp(at)),
    })
}

#[cfg(test)]
mod tests {
    use model::reported::{BootReason, DiskHealth, NetworkCard, SmartAttribute};
    use model::{Bytes, ContentId};

    use super::*;

    const AT: UnixMillis = UnixMillis(5_000);

    fn own() -> DeviceId {
        "6ba7b810-9dad-41d1-80b4-00c04fd430c8".parse().unwrap()
    }

    fn info(payload: &[u8]) -> (i32, InfoContent) {
        let message: ZInfoMsg = wire::decode(payload, Bytes::mib(1)).unwrap();
        assert_eq!(message.dev_id, own().to_string());
        (message.ztype, message.info_content.unwrap())
    }

    #[test]
    fn a_machine_is_told_with_its_buses() {
        let card = |name: &str, kind| NetworkCard {
            interface: name.into(),
            parent: Parent { pci: PciAddress::parse("0000:01:00.0"), usb: None },
            kind,
            mac: "52:54:00:12:34:56".into(),
            speed: Some(1000),
        };
        let machine = Inventory {
            pci: vec![model::reported::PciDevice {
                address: PciAddress::parse("0000:01:00.0").unwrap(),
                parent: PciAddress::parse("0000:00:1c.0"),
                driver: "igb".into(),
                vendor: 0x8086,
                device: 0x1533,
                revision: 3,
                subsystem: 0,
                class: 0x02_80_01,
                iommu_group: "7".into(),
            }],
            network: vec![card("eth0", CardKind::Ethernet), card("can0", CardKind::Can)],
            tpm: Some("2.0".into()),
            memory: Bytes::mib(1),
            ..Inventory::default()
        };
        let boot = Boot {
            reason: BootReason::First,
            detail: String::new(),
            count: 1,
            started: AT,
            timeline: Vec::new(),
            version: "1.2".into(),
            slot: "IMGA".into(),
        };
        let (kind, InfoContent::Hwinfo(told)) = info(&hardware(own(), AT, &machine, &boot)) else {
            panic!()
        };
        assert_eq!(kind, 11);
        assert_eq!((told.eve_release.as_str(), told.partition.as_str()), ("1.2", "IMGA"));
        let told = told.inventory.unwrap();
        assert_eq!((told.pci_devices[0].class_id, told.pci_devices[0].subclass_id), (2, 0x80));
        assert_eq!(told.pci_devices[0].parent_pci_device_address.unwrap().device, 0x1c);
        assert_eq!(told.network_devices.len(), 1);
        assert_eq!(told.can_devices[0].ifname, "can0");
        assert!(told.tpm.unwrap().present);
    }

    #[test]
    fn a_warm_disk_is_told_as_smart_would() {
        let disk = |temperature| DiskHealth {
            name: "/dev/sda".into(),
            model: String::new(),
            serial: "S".into(),
            wwn: String::new(),
            smart: Vec::new(),
            temperature,
            trouble: "no".into(),
        };
        let health_of =
            HardwareHealth { memory: Vec::new(), disks: vec![disk(Some(41)), disk(None)] };
        let told: ZHardwareHealth =
            wire::decode(&health(own(), AT, &health_of), Bytes::mib(1)).unwrap();
        assert_eq!(told.disks[0].smart_attr[0].raw_value, 41);
        assert_eq!((told.disks[0].smart_attr[0].id, told.disks[1].smart_attr.len()), (194, 0));
    }

    #[test]
    fn what_a_disk_says_of_itself_is_told_in_place_of_its_temperature() {
        let attribute = |id, value, worst, threshold| SmartAttribute {
            id,
            name: format!("a{id}"),
            value,
            worst,
            threshold,
            raw: 7,
        };
        let disk = DiskHealth {
            name: "/dev/sda".into(),
            model: String::new(),
            serial: String::new(),
            wwn: String::new(),
            smart: vec![
                attribute(5, 36, 36, 36),
                attribute(9, 90, 20, 36),
                attribute(12, 90, 90, 0),
                attribute(0, 100, 0, 10),
            ],
            temperature: Some(41),
            trouble: String::new(),
        };
        let health_of = HardwareHealth { memory: Vec::new(), disks: vec![disk] };
        let told: ZHardwareHealth =
            wire::decode(&health(own(), AT, &health_of), Bytes::mib(1)).unwrap();
        let told = &told.disks[0].smart_attr;
        let failed: Vec<_> = told.iter().map(|a| a.when_failed.as_str()).collect();
        assert_eq!(failed, ["FAILING_NOW", "In_the_past", "", ""]);
        assert!(told.iter().all(|a| a.raw_value == 7));
        assert_eq!((told[0].id, told[0].thresh, told[0].attribute_name.as_str()), (5, 36, "a5"));
    }

    #[test]
    fn a_blob_is_told_once_with_its_users() {
        let content = |n: u32, state| ContentStatus {
            id: format!("00000000-0000-4000-8000-0000000000{n:02}").parse::<ContentId>().unwrap(),
            name: String::new(),
            state,
            problem: None,
        };
        let loaded = |n: u8| ContentState::Loaded { digest: Digest([n; 32]), size: Bytes(7) };
        let all = [
            content(1, loaded(1)),
            content(2, loaded(1)),
            content(3, loaded(2)),
            content(4, ContentState::Initial),
        ];
        let (kind, InfoContent::Binfo(told)) = info(&blobs(own(), AT, &all)) else { panic!() };
        assert_eq!(kind, i32::from(ZInfoTypes::ZiBlobList));
        let users: Vec<u32> =
            told.blob.iter().map(|b| b.usage.as_ref().unwrap().ref_count).collect();
        assert_eq!(users, [2, 1]);
    }
}
