//! Virtual machines and hardware given to apps: `VmConfig`, `Adapter`.

use model::desired::{
    App, Assigned, BootMode, BootOrder, HardwareKind, Machine, MachineMode, Virtualization, Vnc,
};
use model::{Bytes, Secret};

use super::hardware::{function, kind, kind_number, number, word, write_function};
use super::refuse::{Rejected, no, wrong};
use super::secret::text;
use crate::pb::common as pb;
use crate::pb::config::{Adapter, VmBootMode, VmConfig, VmMode};

const MODES: [(MachineMode, VmMode); 4] = [
    (MachineMode::Hvm, VmMode::Hvm),
    (MachineMode::Pv, VmMode::Pv),
    (MachineMode::Fml, VmMode::Fml),
    (MachineMode::Legacy, VmMode::Legacy),
];

const BOOTS: [(BootMode, VmBootMode); 3] = [
    (BootMode::Unspecified, VmBootMode::Unspecified),
    (BootMode::Legacy, VmBootMode::Legacy),
    (BootMode::Uefi, VmBootMode::Uefi),
];

const ORDERS: [(BootOrder, pb::BootOrder); 3] = [
    (BootOrder::Unspecified, pb::BootOrder::Unspecified),
    (BootOrder::Usb, pb::BootOrder::Usb),
    (BootOrder::NoUsb, pb::BootOrder::Nousb),
];

/// What is said of a machine beside processors and memory.
pub(super) fn read(p: &VmConfig, resolution: &str) -> Result<Machine, Rejected> {
    Ok(Machine {
        // A container has none; what is said is the default then.
        mode: word(&MODES, p.virtualization_mode).unwrap_or_default(),
        boot: word(&BOOTS, p.boot_mode)
            .ok_or_else(|| no("fixedresources.boot_mode", p.boot_mode, "0 to 2"))?,
        boot_order: word(&ORDERS, p.boot_order)
            .ok_or_else(|| no("fixedresources.boot_order", p.boot_order, "0 to 2"))?,
        vnc: p
            .enable_vnc
            .then(|| Vnc { display: p.vnc_display, password: Secret::some(&p.vnc_passwd) }),
        vnc_shim: p.enable_vnc_shim_vm,
        tpm: !p.disable_vtpm,
        pin_cpus: p.pin_cpu,
        vmm_memory: (p.vmm_maxmem > 0).then(|| Bytes::kib(p.vmm_maxmem.into())),
        enforce_order: p.enforce_network_interface_order,
        oem_licence: p.enable_oem_win_license_key,
        resolution: resolution.to_owned(),
    })
}

/// The fixed resources of an app.
pub(super) fn write(app: &App) -> VmConfig {
    let machine = &app.machine;
    let kib = |b: Bytes| u32::try_from(b.0.div_ceil(1024)).unwrap_or(u32::MAX);
    let memory = kib(app.memory);
    let mode = match app.virtualization {
        Virtualization::Container => VmMode::Nohyper.into(),
        Virtualization::Vm => number(&MODES, &machine.mode),
    };
    VmConfig {
        memory,
        maxmem: memory,
        vcpus: app.vcpus.into(),
        maxcpus: app.vcpus.into(),
        virtualization_mode: mode,
        enable_vnc: machine.vnc.is_some(),
        vnc_display: machine.vnc.as_ref().map_or(0, |v| v.display),
        vnc_passwd: text(machine.vnc.as_ref().and_then(|v| v.password.as_ref())),
        disable_logs: app.disable_logs,
        pin_cpu: machine.pin_cpus,
        vmm_maxmem: machine.vmm_memory.map_or(0, kib),
        enable_vnc_shim_vm: machine.vnc_shim,
        boot_mode: number(&BOOTS, &machine.boot),
        enforce_network_interface_order: machine.enforce_order,
        enable_oem_win_license_key: machine.oem_licence,
        disable_vtpm: !machine.tpm,
        boot_order: number(&ORDERS, &machine.boot_order),
        ..VmConfig::default()
    }
}

/// Hardware given to an app.
pub(super) fn adapter(p: &Adapter) -> Result<Assigned, Rejected> {
    if p.name.is_empty() {
        return Err(wrong("name", "it is missing"));
    }
    let kind = match p.r#type {
        // Old controllers name the group only.
        0 => HardwareKind::Other,
        number => kind("type", number)?,
    };
    let vf = p.eth_vf.as_ref().filter(|_| kind == HardwareKind::EthernetVf);
    let function = vf.map(|vf| function(vf).map_err(|why| why.within("eth_vf"))).transpose()?;
    Ok(Assigned { kind, name: p.name.clone(), function, order: p.interface_order })
}

pub(super) fn write_adapter(assigned: &Assigned) -> Adapter {
    Adapter {
        r#type: kind_number(assigned.kind),
        name: assigned.name.clone(),
        eth_vf: assigned.function.as_ref().map(write_function),
        interface_order: assigned.order,
    }
}
