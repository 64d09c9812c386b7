//! Facts of this machine: for the report, for its boot menu.

use std::fs;
use std::path::Path;

use device::install::DiskPlan;
use formats::efi::LoadOption;
use formats::fat::Files;
use formats::layout::Role;
use install::Payload;
use model::Sector512;
use uuid::Uuid;

/// As the firmware's menu shows a node.
const NAME: &str = "EVE-OS";

/// What the report says of the machine.
pub(super) fn describe() -> Files {
    let mut files = Files::new();
    let disks = serde_json::to_vec_pretty(&host::disks::all()).unwrap_or_default();
    files.insert("disks.json".to_owned(), disks);
    let words = ["sys_vendor", "product_name", "product_serial", "board_name", "bios_version"];
    let mut board = String::new();
    for word in words {
        let path = Path::new("/sys/class/dmi/id").join(word);
        let text = fs::read_to_string(path).unwrap_or_default();
        board += &format!("{word}: {}\n", text.trim());
    }
    files.insert("board.txt".to_owned(), board.into_bytes());
    for (name, path) in [("cpu.txt", "/proc/cpuinfo"), ("memory.txt", "/proc/meminfo")] {
        files.insert(name.to_owned(), fs::read(path).unwrap_or_default());
    }
    files
}

/// A number that nobody has had yet.
pub(super) fn new_uuid() -> Uuid {
    Uuid::new_v4()
}

/// The menu's entry for a disk that was installed.
pub(super) fn entry(disk: &DiskPlan, payload: &Payload) -> Option<LoadOption> {
    let (number, partition) = Role::Esp.find(&disk.table)?;
    let is_loader = |path: &&String| {
        let path = path.to_ascii_uppercase();
        path.starts_with("EFI/BOOT/BOOT") && path.ends_with(".EFI")
    };
    let loader = payload.esp.keys().find(is_loader)?;
    Some(LoadOption {
        name: NAME.to_owned(),
        partition: number,
        first: partition.first,
        sectors: Sector512(partition.last.0 - partition.first.0 + 1),
        id: partition.id,
        path: format!(r"\{}", loader.replace('/', r"\")),
    })
}
