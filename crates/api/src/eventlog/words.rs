//! Events in words.
//!
//! Formats: TCG PC Client Platform Firmware Profile, 1.05, section 10 (events); UEFI 2.10, sections
//! 3.1.3 (load options), 5.3 (GPT), 10.3 (device paths). What cannot be read is described by its
//! kind and size.

use uuid::Uuid;

use crate::cursor::Cursor;

/// Foreign text is cut here.
const SHOWN: usize = 200;
/// Nodes of a device path that are looked at; real ones have fewer than ten.
const NODES_MAX: usize = 64;
/// Partitions that are named; a table has room for 128, a disk some ten.
const PARTITIONS_SHOWN: usize = 16;

const EV_POST_CODE: u32 = 1;
const EV_NO_ACTION: u32 = 3;
const EV_SEPARATOR: u32 = 4;
const EV_ACTION: u32 = 5;
const EV_EVENT_TAG: u32 = 6;
const EV_S_CRTM_VERSION: u32 = 8;
const EV_IPL: u32 = 0xd;
const EV_VARIABLE_DRIVER_CONFIG: u32 = 0x8000_0001;
const EV_VARIABLE_BOOT: u32 = 0x8000_0002;
const EV_BOOT_SERVICES_APPLICATION: u32 = 0x8000_0003;
const EV_BOOT_SERVICES_DRIVER: u32 = 0x8000_0004;
const EV_RUNTIME_SERVICES_DRIVER: u32 = 0x8000_0005;
const EV_GPT: u32 = 0x8000_0006;
const EV_EFI_ACTION: u32 = 0x8000_0007;
const EV_FIRMWARE_BLOB: u32 = 0x8000_0008;
const EV_FIRMWARE_BLOB2: u32 = 0x8000_000a;
const EV_HANDOFF_TABLES2: u32 = 0x8000_000b;
const EV_VARIABLE_BOOT2: u32 = 0x8000_000c;
const EV_GPT2: u32 = 0x8000_000d;
const EV_VARIABLE_AUTHORITY: u32 = 0x8000_00e0;

/// The name of a kind of event.
pub(super) fn kind(number: u32) -> String {
    let name = match number {
        0 => "EV_PREBOOT_CERT",
        EV_POST_CODE => "EV_POST_CODE",
        EV_NO_ACTION => "EV_NO_ACTION",
        EV_SEPARATOR => "EV_SEPARATOR",
        EV_ACTION => "EV_ACTION",
        EV_EVENT_TAG => "EV_EVENT_TAG",
        7 => "EV_S_CRTM_CONTENTS",
        EV_S_CRTM_VERSION => "EV_S_CRTM_VERSION",
        9 => "EV_CPU_MICROCODE",
        0xa => "EV_PLATFORM_CONFIG_FLAGS",
        0xb => "EV_TABLE_OF_DEVICES",
        0xc => "EV_COMPACT_HASH",
        EV_IPL => "EV_IPL",
        0xe => "EV_IPL_PARTITION_DATA",
        0xf => "EV_NONHOST_CODE",
        0x10 => "EV_NONHOST_CONFIG",
        0x11 => "EV_NONHOST_INFO",
        0x12 => "EV_OMIT_BOOT_DEVICE_EVENTS",
        0x13 => "EV_POST_CODE2",
        EV_VARIABLE_DRIVER_CONFIG => "EV_EFI_VARIABLE_DRIVER_CONFIG",
        EV_VARIABLE_BOOT => "EV_EFI_VARIABLE_BOOT",
        EV_BOOT_SERVICES_APPLICATION => "EV_EFI_BOOT_SERVICES_APPLICATION",
        EV_BOOT_SERVICES_DRIVER => "EV_EFI_BOOT_SERVICES_DRIVER",
        EV_RUNTIME_SERVICES_DRIVER => "EV_EFI_RUNTIME_SERVICES_DRIVER",
        EV_GPT => "EV_EFI_GPT_EVENT",
        EV_EFI_ACTION => "EV_EFI_ACTION",
        EV_FIRMWARE_BLOB => "EV_EFI_PLATFORM_FIRMWARE_BLOB",
        0x8000_0009 => "EV_EFI_HANDOFF_TABLES",
        EV_FIRMWARE_BLOB2 => "EV_EFI_PLATFORM_FIRMWARE_BLOB2",
        EV_HANDOFF_TABLES2 => "EV_EFI_HANDOFF_TABLES2",
        EV_VARIABLE_BOOT2 => "EV_EFI_VARIABLE_BOOT2",
        EV_GPT2 => "EV_EFI_GPT_EVENT2",
        0x8000_0010 => "EV_EFI_HCRTM_EVENT",
        EV_VARIABLE_AUTHORITY => "EV_EFI_VARIABLE_AUTHORITY",
        0x8000_00e1 => "EV_EFI_SPDM_FIRMWARE_BLOB",
        0x8000_00e2 => "EV_EFI_SPDM_FIRMWARE_CONFIG",
        _ => return format!("event type {number:#x}"),
    };
    name.to_owned()
}

/// What a register is for: the profile up to 7, then GRUB (8, 9), the kernel's integrity
/// measurements (10), unified kernel images (11, 12), and EVE (13, 14).
pub(super) fn register(number: u32) -> &'static str {
    match number {
        0 => "firmware",
        1 => "firmware settings",
        2 => "drivers of plugged devices",
        3 => "settings of plugged devices",
        4 => "boot loader",
        5 => "partition table, boot loader settings",
        6 => "maker's own",
        7 => "Secure Boot",
        8 => "commands of GRUB, kernel command line",
        9 => "files that GRUB read, initrd",
        10 => "integrity measurements of the kernel",
        11 => "unified kernel image",
        12 => "overridden kernel command line",
        13 => "root file system of EVE",
        14 => "configuration of EVE, machine owner keys",
        15 => "system identity",
        16 => "debugging",
        17..=22 => "dynamic start",
        23 => "applications",
        _ => "unknown",
    }
}

pub(super) fn describe(kind_number: u32, register: u32, data: &[u8]) -> String {
    let known = match kind_number {
        EV_NO_ACTION => Some(no_action(data)),
        EV_SEPARATOR => Some(separator(register, data)),
        EV_POST_CODE | EV_ACTION | EV_EFI_ACTION => Some(text(data)),
        EV_S_CRTM_VERSION => {
            let version = Some(text(data)).filter(|v| !v.is_empty());
            let version = version.unwrap_or_else(|| "not said".to_owned());
            Some(format!("version of the firmware's root of trust: {version}"))
        }
        EV_IPL => Some(match (utf16(data), register) {
            (Some(section), 11) => {
                format!("section {} of the unified kernel image", plain(&section))
            }
            _ => text(data),
        }),
        EV_EVENT_TAG => tagged(data),
        EV_VARIABLE_DRIVER_CONFIG | EV_VARIABLE_BOOT | EV_VARIABLE_BOOT2 => variable(data),
        EV_VARIABLE_AUTHORITY => variable(data).map(|v| format!("what vouched for a program: {v}")),
        EV_BOOT_SERVICES_APPLICATION => image(data).map(|path| format!("program {path}")),
        EV_BOOT_SERVICES_DRIVER => image(data).map(|path| format!("driver {path}")),
        EV_RUNTIME_SERVICES_DRIVER => image(data).map(|path| format!("runtime driver {path}")),
        EV_GPT | EV_GPT2 => partitions(data),
        EV_FIRMWARE_BLOB => blob(&mut Cursor::new(data)),
        EV_FIRMWARE_BLOB2 => {
            let mut cursor = Cursor::new(data);
            let name = cursor.u8().and_then(|length| cursor.take(length.into())).map(text);
            name.zip(blob(&mut cursor)).map(|(name, blob)| format!("{name}: {blob}"))
        }
        EV_HANDOFF_TABLES2 => {
            let mut cursor = Cursor::new(data);
            let name = cursor.u8().and_then(|length| cursor.take(length.into()));
            name.map(|name| format!("firmware table {}", text(name)))
        }
        _ => None,
    };
    match known {
        Some(words) if !words.is_empty() => words,
        _ => format!("{} with {} bytes", kind(kind_number), data.len()),
    }
}

/// Parts of an event's data, or forms of it, that may be what was hashed instead of all of it.
pub(super) fn measured_part(kind: u32, data: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let mut parts: Vec<Vec<u8>> = Vec::new();
    match kind {
        // Older firmware hashes the value alone.
        EV_VARIABLE_DRIVER_CONFIG
        | EV_VARIABLE_BOOT
        | EV_VARIABLE_BOOT2
        | EV_VARIABLE_AUTHORITY => {
            parts.extend(Variable::read(data).map(|v| v.value.to_vec()));
        }
        EV_IPL => {
            let ended = data.strip_suffix(b"\0").unwrap_or(data);
            parts.push(ended.to_vec());
            // GRUB writes what it is about in front: `grub_cmd: set root=…`.
            if let Some(at) = ended.windows(2).position(|w| w == b": ") {
                parts.push(ended[at + 2..].to_vec());
            }
            // systemd-stub hashes a section's name in ASCII with its zero, and logs it in UTF-16.
            if let Some(wide) = utf16(data) {
                parts.push(wide.into_bytes());
                parts.extend(parts.last().map(|ascii| [ascii, &b"\0"[..]].concat()));
            }
        }
        _ => {}
    }
    parts.into_iter()
}

fn no_action(data: &[u8]) -> String {
    if data.starts_with(b"Spec ID Event0") {
        "the log begins".to_owned()
    } else if let Some([locality]) = data.strip_prefix(b"StartupLocality\0") {
        format!("the TPM was started from locality {locality}")
    } else {
        format!("note: {}", text(data.split(|b| *b == 0).next().unwrap_or_default()))
    }
}

fn separator(register: u32, data: &[u8]) -> String {
    match data {
        [0, 0, 0, 0] | [0xff, 0xff, 0xff, 0xff] if register <= 7 => {
            "from here on the boot loader measures".to_owned()
        }
        [1, 0, 0, 0] => "the firmware failed to measure".to_owned(),
        [0, 0, 0, 0] => "separator".to_owned(),
        other => format!("separator {}", text(other)),
    }
}

/// `TCG_PCClientTaggedEvent`. The kernel's EFI stub has two.
fn tagged(data: &[u8]) -> Option<String> {
    let mut cursor = Cursor::new(data);
    let (id, length) = (cursor.le32()?, cursor.le32()?);
    let words = text(cursor.take_u64(length.into())?);
    Some(match id {
        0x8f3b_22ec => format!("initial file system of the kernel ({words})"),
        0x8f3b_22ed => format!("command line of the kernel ({words})"),
        _ => format!("tag {id:#x}: {words}"),
    })
}

/// `UEFI_VARIABLE_DATA`.
struct Variable<'a> {
    vendor: Uuid,
    name: String,
    value: &'a [u8],
}

impl Variable<'_> {
    fn read(data: &[u8]) -> Option<Variable<'_>> {
        let mut cursor = Cursor::new(data);
        let vendor = Uuid::from_bytes_le(cursor.array()?);
        let (characters, bytes) = (cursor.le64()?, cursor.le64()?);
        let name = wide(cursor.take_u64(characters.checked_mul(2)?)?);
        Some(Variable { vendor, name, value: cursor.take_u64(bytes)? })
    }
}

fn variable(data: &[u8]) -> Option<String> {
    let Variable { vendor, name, value } = Variable::read(data)?;
    // Those of the UEFI specification need no telling whose they are.
    let whose = match vendor.as_u128() {
        0x8be4df61_93ca_11d2_aa0d_00e098032b8c | 0xd719b2cb_3d3a_4596_a3bc_dad00e67656f => {
            String::new()
        }
        0x605dab50_e046_4300_abb6_3dd810dd8b23 => " of shim".to_owned(),
        _ => format!(" of {vendor}"),
    };
    let is = match (name.as_str(), value) {
        ("SecureBoot", [0]) => "off".to_owned(),
        ("SecureBoot", [1]) => "on".to_owned(),
        (_, []) => "empty".to_owned(),
        ("BootOrder", order) => {
            let two = |pair: &[u8]| Some(u16::from_le_bytes(pair.try_into().ok()?));
            let order: Vec<String> = order
                .chunks(2)
                .filter_map(|pair| Some(format!("{:04X}", two(pair)?)))
                .take(PARTITIONS_SHOWN)
                .collect();
            order.join(", ")
        }
        (name, option) if is_boot_option(name) => match load_option(option) {
            Some(described) => described,
            None => format!("{} bytes", option.len()),
        },
        (_, [byte]) => byte.to_string(),
        (_, value) => format!("{} bytes", value.len()),
    };
    Some(format!("UEFI variable {}{whose}: {is}", plain(&name)))
}

/// `Boot0001`.
fn is_boot_option(name: &str) -> bool {
    name.strip_prefix("Boot")
        .is_some_and(|n| n.len() == 4 && n.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// `EFI_LOAD_OPTION`: attributes, length of the path list, a name that ends with zero, the path.
fn load_option(data: &[u8]) -> Option<String> {
    let mut cursor = Cursor::new(data);
    cursor.le32()?;
    let path_length = cursor.le16()?;
    let rest = cursor.rest();
    let end = rest.chunks_exact(2).position(|unit| unit == [0, 0])? * 2;
    let name = wide(cursor.take(end)?);
    cursor.le16()?;
    let path = device_path(cursor.take(path_length.into())?);
    Some(format!("{:?} {path}", plain(&name)))
}

/// `UEFI_IMAGE_LOAD_EVENT`.
fn image(data: &[u8]) -> Option<String> {
    let mut cursor = Cursor::new(data);
    let (_place, size, _link) = (cursor.le64()?, cursor.le64()?, cursor.le64()?);
    let length = cursor.le64()?;
    let path = device_path(cursor.take_u64(length)?);
    Some(if path.is_empty() { format!("of {size} bytes from memory") } else { path })
}

/// `UEFI_PLATFORM_FIRMWARE_BLOB`.
fn blob(cursor: &mut Cursor<'_>) -> Option<String> {
    let (base, length) = (cursor.le64()?, cursor.le64()?);
    Some(format!("firmware at {base:#x}, {length} bytes"))
}

/// `UEFI_GPT_DATA`: the header of the table, a count, the entries in use.
fn partitions(data: &[u8]) -> Option<String> {
    let mut cursor = Cursor::new(data);
    if cursor.take(8)? != b"EFI PART" {
        return None;
    }
    // Up to the disk's id; then where the entries are, how many, how long.
    cursor.take(48)?;
    let disk = Uuid::from_bytes_le(cursor.array()?);
    cursor.take(12)?;
    let size = cursor.le32()?;
    cursor.take(4)?;
    let count = cursor.le64()?;
    let mut names = Vec::new();
    for _ in 0..count.min(PARTITIONS_SHOWN as u64) {
        let mut entry = Cursor::new(cursor.take_u64(size.into())?);
        // Type, id, first and last sector, attributes.
        entry.take(16)?;
        let id = Uuid::from_bytes_le(entry.array()?);
        entry.take(24)?;
        let name = plain(&wide(entry.take(72)?));
        names.push(if name.is_empty() { id.to_string() } else { name });
    }
    if count > PARTITIONS_SHOWN as u64 {
        names.push("…".to_owned());
    }
    Some(format!("disk {disk} with {count} partitions: {}", names.join(", ")))
}

/// A device path in short: where the file is, and which.
fn device_path(data: &[u8]) -> String {
    let mut cursor = Cursor::new(data);
    let mut nodes = Vec::new();
    while nodes.len() < NODES_MAX {
        let (Some(kind), Some(sub), Some(length)) = (cursor.u8(), cursor.u8(), cursor.le16())
        else {
            break;
        };
        let body = usize::from(length).checked_sub(4).and_then(|length| cursor.take(length));
        let (false, Some(body)) = (kind == 0x7f, body) else { break };
        nodes.push(node(kind, sub, body));
    }
    nodes.join("/")
}

fn node(kind: u8, sub: u8, body: &[u8]) -> String {
    let guid = |at: usize| -> Option<Uuid> {
        Some(Uuid::from_bytes_le(body.get(at..at + 16)?.try_into().ok()?))
    };
    let words = match (kind, sub, body) {
        (1, 1, [function, device]) => Some(format!("PCI {device:x}.{function}")),
        (2, 1, [0xd0, 0x41, 0x03, 0x0a, uid @ ..]) => {
            Some(format!("PCI root {}", uid.first().copied().unwrap_or_default()))
        }
        (3, 1, _) => Some("ATA".to_owned()),
        (3, 2, _) => Some("SCSI".to_owned()),
        (3, 5, [port, ..]) => Some(format!("USB port {port}")),
        (3, 11, mac) => mac.get(..6).map(|mac| format!("network card {}", spelled(mac))),
        (3, 12 | 13, _) => Some("IP address".to_owned()),
        (3, 18, [low, high, ..]) => {
            Some(format!("SATA port {}", u16::from_le_bytes([*low, *high])))
        }
        (3, 23, _) => Some("NVMe".to_owned()),
        (3, 24, uri) => Some(text(uri)),
        // A partition: number, start, size, id, kind of table, kind of id.
        (4, 1, [number, ..]) => match (guid(20), body.get(37)) {
            (Some(id), Some(2)) => Some(format!("partition {number} ({id})")),
            _ => Some(format!("partition {number}")),
        },
        // Systemd's stub starts the kernel from memory and gives it such a path.
        (4, 3, _) => guid(0).map(|id| format!("memory of the boot loader ({id})")),
        (4, 4, path) => Some(plain(&wide(path))),
        (4, 6, _) => guid(0).map(|id| format!("firmware file {id}")),
        (4, 7, _) => guid(0).map(|id| format!("firmware volume {id}")),
        (4, 8, _) => Some("part of an option ROM".to_owned()),
        _ => None,
    };
    words.unwrap_or_else(|| format!("device {kind}.{sub}"))
}

fn spelled(mac: &[u8]) -> String {
    mac.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":")
}

/// Text of either width, cut and harmless.
fn text(data: &[u8]) -> String {
    plain(&utf16(data).unwrap_or_else(|| String::from_utf8_lossy(data).into_owned()))
}

/// UTF-16 if it looks like that: whole units, and the first one an ASCII character.
fn utf16(data: &[u8]) -> Option<String> {
    match data {
        [first, 0, ..] if *first != 0 && data.len().is_multiple_of(2) => Some(wide(data)),
        _ => None,
    }
}

/// UTF-16 up to its zeros.
fn wide(data: &[u8]) -> String {
    let units =
        data.chunks_exact(2).filter_map(|unit| Some(u16::from_le_bytes(unit.try_into().ok()?)));
    let text: String =
        char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    text.trim_end_matches('\0').to_owned()
}

/// Cut, and without what a terminal would act on.
fn plain(text: &str) -> String {
    let text = text.trim_end_matches(['\0', '\n', ' ']);
    let mut shown: String =
        text.chars().take(SHOWN).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}
