//! What disks know of their own health (SMART), asked by ioctl.
//!
//! NVMe: log page 2 of the NVM Express base specification ("SMART / Health Information"). SATA: SMART
//! READ DATA and READ THRESHOLDS of ACS-3, carried by ATA PASS-THROUGH (16) of SAT. The first needs
//! CAP_SYS_ADMIN, the second CAP_SYS_RAWIO. Disks of other kinds have none and say so.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use model::reported::{DiskSmart, SmartAttribute};
use rustix::ffi::c_void;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, Updater, ioctl, opcode};

use crate::disks;

/// So long a disk may take to answer.
const PATIENCE_MS: u32 = 10_000;
/// Both kinds of pages are so long.
const PAGE: usize = 512;

/// Why a disk does not tell.
#[derive(Debug, thiserror::Error)]
enum Silent {
    #[error("the disk has no SMART: it is neither NVMe nor SATA")]
    Kind,
    #[error("the disk cannot be asked")]
    Ask(#[from] io::Error),
    #[error("the disk refuses with status {0:#x}")]
    Status(u32),
    #[error("the disk's answer has a wrong checksum")]
    Checksum,
}

/// What every disk of this machine says. Blocks until all have answered; a dead one takes 10 s a
/// question.
pub fn look() -> Vec<DiskSmart> {
    let disks = disks::all().into_iter();
    let told = disks.map(|disk| {
        let found = ask(&disk.name, &disk.path());
        let (attributes, trouble) = match found {
            Ok(attributes) => (attributes, String::new()),
            Err(why) => (Vec::new(), model::chain(&why)),
        };
        DiskSmart { disk: disk.path().display().to_string(), attributes, trouble }
    });
    told.collect()
}

fn ask(name: &str, path: &Path) -> Result<Vec<SmartAttribute>, Silent> {
    if name.starts_with("nvme") {
        let page = nvme(&File::open(path)?)?;
        return Ok(read_nvme(&page));
    }
    // As libata presents its disks to the rest of the kernel.
    let vendor = fs::read_to_string(format!("/sys/block/{name}/device/vendor"));
    if vendor.unwrap_or_default().trim() != "ATA" {
        return Err(Silent::Kind);
    }
    let disk = File::open(path)?;
    let values = ata(&disk, READ_DATA)?;
    // Without thresholds nobody can say what is too low; the values count all the same.
    let thresholds = ata(&disk, READ_THRESHOLDS).unwrap_or([0; PAGE]);
    Ok(read_ata(&values, &thresholds))
}

/// `struct nvme_passthru_cmd` of linux/nvme_ioctl.h.
#[repr(C)]
#[derive(Default)]
struct NvmeCommand {
    opcode: u8,
    flags: u8,
    reserved: u16,
    namespace: u32,
    word2: u32,
    word3: u32,
    metadata: u64,
    data: u64,
    metadata_length: u32,
    data_length: u32,
    words: [u32; 6],
    timeout_ms: u32,
    result: u32,
}

/// `NVME_IOCTL_ADMIN_CMD` of linux/nvme_ioctl.h. It gives the status that the disk answered with: a
/// disk that refuses is no error to the kernel.
struct Admin<'a>(&'a mut NvmeCommand);

// SAFETY: the opcode is that of the structure, which lives as long as the value; the kernel writes to
// it.
#[expect(unsafe_code, reason = "rustix's own patterns drop what an ioctl returns")]
unsafe impl Ioctl for Admin<'_> {
    type Output = u32;

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        opcode::read_write::<NvmeCommand>(b'N', 0x41)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::from_mut(self.0).cast()
    }

    unsafe fn output_from_ptr(status: IoctlOutput, _: *mut c_void) -> rustix::io::Result<u32> {
        Ok(u32::try_from(status).unwrap_or(u32::MAX))
    }
}

fn nvme(disk: &File) -> Result<[u8; PAGE], Silent> {
    const GET_LOG_PAGE: u8 = 2;
    const HEALTH: u32 = 2;
    // In units of four bytes, less one.
    const LENGTH: u32 = 512 / 4 - 1;
    let mut page = [0_u8; PAGE];
    let mut command = NvmeCommand {
        opcode: GET_LOG_PAGE,
        // Of the disk as a whole.
        namespace: u32::MAX,
        data: page.as_mut_ptr().expose_provenance() as u64,
        data_length: 512,
        words: [HEALTH | LENGTH << 16, 0, 0, 0, 0, 0],
        timeout_ms: PATIENCE_MS,
        ..NvmeCommand::default()
    };
    // SAFETY: the kernel reads the command and writes at most `data_length` bytes to `data`; both
    // live until it returns, and `page` is that long.
    #[expect(unsafe_code, reason = "NVMe disks are asked by ioctl")]
    let status = unsafe { ioctl(disk, Admin(&mut command)) }.map_err(io::Error::from)?;
    // Else a page that was never filled would count as that of a disk in good health.
    if status == 0 { Ok(page) } else { Err(Silent::Status(status)) }
}

/// `struct sg_io_hdr` of scsi/sg.h.
#[repr(C)]
struct SgHeader {
    interface: i32,
    direction: i32,
    command_length: u8,
    sense_length: u8,
    pieces: u16,
    data_length: u32,
    data: *mut u8,
    command: *const u8,
    sense: *mut u8,
    timeout_ms: u32,
    flags: u32,
    id: i32,
    user: *mut u8,
    status: u8,
    masked_status: u8,
    message_status: u8,
    sense_written: u8,
    host_status: u16,
    driver_status: u16,
    left: i32,
    duration: u32,
    info: u32,
}

/// Features of the ATA command SMART.
const READ_DATA: u8 = 0xd0;
const READ_THRESHOLDS: u8 = 0xd1;

fn ata(disk: &File, feature: u8) -> Result<[u8; PAGE], Silent> {
    const SG_IO: Opcode = 0x2285;
    const FROM_DEVICE: i32 = -3;
    let mut page = [0_u8; PAGE];
    let mut sense = [0_u8; 32];
    // PIO data-in; the length is in the sector count, in blocks.
    let command: [u8; 16] =
        [0x85, 4 << 1, 0x0e, 0, feature, 0, 1, 0, 0, 0, 0x4f, 0, 0xc2, 0, 0xb0, 0];
    let mut header = SgHeader {
        interface: i32::from(b'S'),
        direction: FROM_DEVICE,
        command_length: 16,
        sense_length: 32,
        pieces: 0,
        data_length: 512,
        data: page.as_mut_ptr(),
        command: command.as_ptr(),
        sense: sense.as_mut_ptr(),
        timeout_ms: PATIENCE_MS,
        flags: 0,
        id: 0,
        user: std::ptr::null_mut(),
        status: 0,
        masked_status: 0,
        message_status: 0,
        sense_written: 0,
        host_status: 0,
        driver_status: 0,
        left: 0,
        duration: 0,
        info: 0,
    };
    // SAFETY: the kernel reads header and command and writes the header, at most `data_length` bytes
    // to `data` and `sense_length` to `sense`; all four live until it returns and are that long.
    #[expect(unsafe_code, reason = "SATA disks are asked by ioctl")]
    unsafe { ioctl(disk, Updater::<SG_IO, SgHeader>::new(&mut header)) }
        .map_err(io::Error::from)?;
    if header.status != 0 || header.host_status != 0 {
        let status = u32::from(header.host_status) << 8 | u32::from(header.status);
        return Err(Silent::Status(status));
    }
    let sum = page.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    if sum != 0 { Err(Silent::Checksum) } else { Ok(page) }
}

/// A number of the NVMe page, little endian; what is larger than we count is the most we do.
fn number(page: &[u8; PAGE], at: usize, length: usize) -> u64 {
    let bytes = page.get(at..at.saturating_add(length)).unwrap_or_default();
    let all = bytes.iter().rev().fold(0_u128, |n, byte| n << 8 | u128::from(*byte));
    u64::try_from(all).unwrap_or(u64::MAX)
}

/// Numbers are those of ATA where it has the same attribute; else 0.
fn read_nvme(page: &[u8; PAGE]) -> Vec<SmartAttribute> {
    let raw = |id, name: &str, raw| SmartAttribute {
        id,
        name: name.to_owned(),
        raw,
        ..SmartAttribute::default()
    };
    // In kelvins; 0 is none.
    let kelvin = number(page, 1, 2);
    let warm =
        (kelvin > 0).then(|| raw(TEMPERATURE, "Temperature_Celsius", kelvin.saturating_sub(273)));
    let spare = SmartAttribute {
        value: number(page, 3, 1),
        threshold: number(page, 4, 1),
        ..raw(0, "Available_Spare", number(page, 3, 1))
    };
    let mut found = vec![raw(0, "Critical_Warning", number(page, 0, 1))];
    found.extend(warm);
    found.extend([
        spare,
        raw(0, "Percentage_Used", number(page, 5, 1)),
        raw(0, "Data_Units_Read", number(page, 32, 16)),
        raw(0, "Data_Units_Written", number(page, 48, 16)),
        raw(12, "Power_Cycle_Count", number(page, 112, 16)),
        raw(9, "Power_On_Hours", number(page, 128, 16)),
        raw(0, "Unsafe_Shutdowns", number(page, 144, 16)),
        raw(0, "Media_Errors", number(page, 160, 16)),
        raw(0, "Error_Log_Entries", number(page, 176, 16)),
    ]);
    found
}

/// 194 of ATA: in degrees Celsius.
const TEMPERATURE: u8 = 194;

/// Thirty places of twelve bytes, from the third byte on; a place with number 0 is empty.
fn read_ata(values: &[u8; PAGE], thresholds: &[u8; PAGE]) -> Vec<SmartAttribute> {
    const PLACES: usize = 30;
    const SIZE: usize = 12;
    let places = |page: &'_ [u8; PAGE]| {
        let body = page.get(2..2 + PLACES * SIZE).unwrap_or_default();
        body.chunks_exact(SIZE).filter_map(|c| <[u8; SIZE]>::try_from(c).ok()).collect::<Vec<_>>()
    };
    let lowest = places(thresholds);
    let attributes = places(values).into_iter().filter(|[id, ..]| *id != 0).map(
        // The second and third are flags.
        |[id, _, _, value, worst, a, b, c, d, e, f, _]| {
            let threshold = lowest.iter().find(|[other, ..]| *other == id);
            let raw = [a, b, c, d, e, f, 0, 0];
            // Makers put the lowest and highest temperature beside the one now.
            let raw = if id == TEMPERATURE { u64::from(a) } else { u64::from_le_bytes(raw) };
            SmartAttribute {
                id,
                name: ata_name(id).to_owned(),
                value: value.into(),
                worst: worst.into(),
                threshold: threshold.map_or(0, |[_, lowest, ..]| u64::from(*lowest)),
                raw,
            }
        },
    );
    attributes.collect()
}

/// What most makers mean by a number.
fn ata_name(id: u8) -> &'static str {
    match id {
        1 => "Raw_Read_Error_Rate",
        3 => "Spin_Up_Time",
        4 => "Start_Stop_Count",
        5 => "Reallocated_Sector_Ct",
        7 => "Seek_Error_Rate",
        9 => "Power_On_Hours",
        10 => "Spin_Retry_Count",
        12 => "Power_Cycle_Count",
        177 => "Wear_Leveling_Count",
        187 => "Reported_Uncorrect",
        188 => "Command_Timeout",
        190 => "Airflow_Temperature_Cel",
        192 => "Power-Off_Retract_Count",
        193 => "Load_Cycle_Count",
        TEMPERATURE => "Temperature_Celsius",
        196 => "Reallocated_Event_Count",
        197 => "Current_Pending_Sector",
        198 => "Offline_Uncorrectable",
        199 => "UDMA_CRC_Error_Count",
        231 => "SSD_Life_Left",
        241 => "Total_LBAs_Written",
        242 => "Total_LBAs_Read",
        _ => "Unknown_Attribute",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(found: &[SmartAttribute], name: &str) -> u64 {
        found.iter().find(|a| a.name == name).unwrap_or_else(|| panic!("no {name}: {found:?}")).raw
    }

    #[test]
    fn the_kernels_structures_have_their_sizes() {
        assert_eq!(size_of::<NvmeCommand>(), 72);
        assert_eq!(size_of::<SgHeader>(), 88);
    }

    #[test]
    fn an_nvme_page_is_read_by_its_places() {
        let mut page = [0; PAGE];
        page[0] = 4;
        page[1..3].copy_from_slice(&(273_u16 + 41).to_le_bytes());
        (page[3], page[4], page[5]) = (100, 10, 7);
        page[112] = 9;
        page[128..136].copy_from_slice(&70_000_u64.to_le_bytes());
        page[160..176].copy_from_slice(&u128::MAX.to_le_bytes());
        let found = read_nvme(&page);
        assert_eq!((raw(&found, "Critical_Warning"), raw(&found, "Percentage_Used")), (4, 7));
        assert_eq!(raw(&found, "Temperature_Celsius"), 41);
        assert_eq!((raw(&found, "Power_Cycle_Count"), raw(&found, "Power_On_Hours")), (9, 70_000));
        assert_eq!(raw(&found, "Media_Errors"), u64::MAX);
        let spare = found.iter().find(|a| a.name == "Available_Spare").unwrap();
        assert_eq!((spare.value, spare.threshold), (100, 10));
        // A disk that does not measure it has no temperature.
        assert!(read_nvme(&[0; PAGE]).iter().all(|a| a.id != TEMPERATURE));
    }

    #[test]
    fn an_ata_page_is_read_with_its_thresholds() {
        let (mut values, mut thresholds) = ([0; PAGE], [0; PAGE]);
        // Number, flags, value, worst, six bytes raw, one reserved.
        values[2..14].copy_from_slice(&[5, 0x33, 0, 98, 97, 3, 1, 0, 0, 0, 0, 0]);
        values[26..38].copy_from_slice(&[194, 0x22, 0, 64, 50, 36, 0, 20, 0, 60, 0, 0]);
        thresholds[2] = 5;
        thresholds[3] = 36;
        let found = read_ata(&values, &thresholds);
        let [sectors, warm] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((sectors.name.as_str(), sectors.raw), ("Reallocated_Sector_Ct", 259));
        assert_eq!((sectors.value, sectors.worst, sectors.threshold), (98, 97, 36));
        assert_eq!((warm.raw, warm.threshold), (36, 0));
    }

    /// Whatever disks this machine has, each is told of, with attributes or with why not.
    #[test]
    fn who_cannot_be_asked_is_told_with_the_reason() {
        for disk in look() {
            assert!(disk.attributes.is_empty() != disk.trouble.is_empty(), "{disk:?}");
        }
        assert!(matches!(ask("vda", Path::new("/nowhere")), Err(Silent::Kind)));
        assert!(matches!(ask("nvme9n1", Path::new("/nowhere")), Err(Silent::Ask(_))));
    }
}
