//! Opening a partition through dm-verity, by the device-mapper's ioctl interface (version 4;
//! `linux/dm-ioctl.h`, Documentation/admin-guide/device-mapper/verity.rst).

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::ioctl::{Direction, Opcode, Updater, opcode};

use crate::cmdline::Verity;
use crate::console;
use crate::failure::{Doing, Failure};

/// The name of the device in the device-mapper.
const NAME: &str = "eve-root";

/// What the kernel does when a block does not hash to what the tree says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnCorruption {
    /// The read fails with EIO: for the time in which we look ourselves and can say what it means.
    Fail,
    /// The kernel panics: for good, so that no program runs on half a root.
    Panic,
}

/// Creates the device, read-only. Its table is that of [`OnCorruption::Fail`].
pub(crate) fn open(partition: &Path, verity: &Verity) -> Result<PathBuf, Failure> {
    let control = control()?;
    let mut create = Request::new(0);
    create.call::<{ op(3) }>(&control).doing(|| format!("create device {NAME}"))?;
    let minor = create.minor();
    load(&control, partition, verity, OnCorruption::Fail)?;
    Ok(PathBuf::from(format!("/dev/dm-{minor}")))
}

/// Makes the kernel panic from now on when it reads a corrupt block. The device may be in use.
pub(crate) fn harden(partition: &Path, verity: &Verity) -> Result<(), Failure> {
    load(&control()?, partition, verity, OnCorruption::Panic)
}

/// Removes the device.
pub(crate) fn close() -> Result<(), Failure> {
    Request::new(0).call::<{ op(4) }>(&control()?).doing(|| format!("remove device {NAME}"))
}

/// Reads all of the root file system's device, slowly and as the least important program. A block
/// that nobody uses is checked this way too; the kernel panics at a bad one.
pub(crate) fn check_root() -> ExitCode {
    match read_root() {
        Ok(bytes) => {
            console::note(format_args!("all {} MiB of the root file system checked", bytes >> 20));
            ExitCode::SUCCESS
        }
        Err(failure) => {
            console::warn(failure);
            ExitCode::FAILURE
        }
    }
}

fn read_root() -> Result<u64, Failure> {
    let _ = rustix::process::nice(19);
    let read = || -> io::Result<u64> {
        let device = rustix::fs::stat("/")?.st_dev;
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let uevent = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/uevent"))?;
        let name = uevent.lines().find_map(|line| line.strip_prefix("DEVNAME="));
        let name = name.ok_or_else(|| io::Error::other("/ is on no block device"))?;
        let mut file = File::open(Path::new("/dev").join(name))?;
        let (mut buffer, mut done) = (vec![0; 256 << 10], 0);
        loop {
            let length = file.read(&mut buffer)? as u64;
            if length == 0 {
                return Ok(done);
            }
            // What others need in memory must not make room for what is read once.
            let part = std::num::NonZeroU64::new(length);
            let _ = rustix::fs::fadvise(&file, done, part, rustix::fs::Advice::DontNeed);
            done += length;
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    };
    read().doing(|| "check the root file system".to_owned())
}

fn control() -> Result<File, Failure> {
    let path = "/dev/mapper/control";
    File::options().read(true).write(true).open(path).doing(|| format!("open {path}"))
}

/// Loads a table and makes it the live one.
fn load(
    control: &File,
    partition: &Path,
    verity: &Verity,
    on: OnCorruption,
) -> Result<(), Failure> {
    const READ_ONLY: u32 = 1;
    let mut table = Request::new(READ_ONLY);
    table.add_target(verity.data_blocks * 8, "verity", &parameters(partition, verity, on));
    table
        .call::<{ op(9) }>(control)
        .doing(|| format!("load the verity table over {}", partition.display()))?;
    // "Suspend" without its flag is "resume", and resuming takes up the table just loaded.
    Request::new(READ_ONLY).call::<{ op(6) }>(control).doing(|| format!("start device {NAME}"))
}

/// The parameters of a verity target, as the kernel documents them.
fn parameters(partition: &Path, verity: &Verity, on: OnCorruption) -> String {
    let device = partition.display();
    let Verity { root, data_blocks, hash_start, salt } = verity;
    let options = match on {
        OnCorruption::Fail => "",
        OnCorruption::Panic => " 1 panic_on_corruption",
    };
    format!(
        "1 {device} {device} 4096 4096 {data_blocks} {hash_start} sha256 {root} {salt}{options}"
    )
}

/// `struct dm_ioctl` has this size on every architecture.
const HEADER: usize = 312;
/// Header, one target and its parameters.
const WORDS: usize = 256;

const fn op(number: u8) -> Opcode {
    opcode::from_components(Direction::ReadWrite, 0xfd, number, HEADER)
}

/// A `struct dm_ioctl` with room for a target behind it. Words, because the kernel wants it aligned.
struct Request([u64; WORDS]);

impl Request {
    fn new(flags: u32) -> Request {
        let mut request = Request([0; WORDS]);
        let size = u32::try_from(WORDS * 8).unwrap_or(u32::MAX);
        let header = u32::try_from(HEADER).unwrap_or(u32::MAX);
        // version 4.0.0, data_size, data_start
        for (at, word) in [(0, 4), (12, size), (16, header), (28, flags)] {
            request.put(at, &u32::to_ne_bytes(word));
        }
        request.put(48, NAME.as_bytes());
        request
    }

    /// `struct dm_target_spec` and its parameters.
    fn add_target(&mut self, sectors: u64, kind: &str, parameters: &str) {
        self.put(20, &1_u32.to_ne_bytes()); // target_count
        self.put(HEADER + 8, &sectors.to_ne_bytes());
        self.put(HEADER + 24, kind.as_bytes());
        self.put(HEADER + 40, parameters.as_bytes());
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        // Parameters are bounded by what `cmdline` lets through; the last byte stays zero.
        for (i, byte) in bytes.iter().enumerate().take(WORDS * 8 - 1 - at) {
            let (word, shift) = ((at + i) / 8, (at + i) % 8);
            let mut raw = self.0[word].to_ne_bytes();
            raw[shift] = *byte;
            self.0[word] = u64::from_ne_bytes(raw);
        }
    }

    /// The minor number that the kernel gave (`dev`, in its packed form).
    fn minor(&self) -> u64 {
        let dev = self.0[5];
        (dev & 0xff) | ((dev >> 12) & 0xfff_ff00)
    }

    fn call<const OP: Opcode>(&mut self, control: &File) -> io::Result<()> {
        // SAFETY: every OP is a device-mapper request, which reads and writes a `struct dm_ioctl` of
        // `data_size` bytes; that is the size of the array.
        #[expect(unsafe_code, reason = "the device-mapper is spoken to by ioctl")]
        unsafe { rustix::ioctl::ioctl(control, Updater::<OP, [u64; WORDS]>::new(&mut self.0)) }
            .map_err(io::Error::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_the_kernel_documents() {
        let verity = Verity {
            root: "ab".repeat(32),
            data_blocks: 100,
            hash_start: 101,
            salt: "00ff".to_owned(),
        };
        let table = parameters(Path::new("/dev/vda2"), &verity, OnCorruption::Panic);
        let root = &verity.root;
        assert_eq!(
            table,
            format!(
                "1 /dev/vda2 /dev/vda2 4096 4096 100 101 sha256 {root} 00ff 1 panic_on_corruption"
            )
        );
    }

    #[test]
    fn a_request_is_laid_out_as_the_kernel_reads_it() {
        let mut request = Request::new(1);
        request.add_target(800, "verity", "1 x");
        let bytes: Vec<u8> = request.0.iter().flat_map(|w| w.to_ne_bytes()).collect();
        assert_eq!(bytes[0..4], 4_u32.to_ne_bytes());
        assert_eq!(bytes[12..16], 2048_u32.to_ne_bytes());
        assert_eq!(bytes[16..20], 312_u32.to_ne_bytes());
        assert_eq!(bytes[20..24], 1_u32.to_ne_bytes());
        assert_eq!(&bytes[48..57], b"eve-root\0");
        assert_eq!(bytes[320..328], 800_u64.to_ne_bytes());
        assert_eq!(&bytes[336..343], b"verity\0");
        assert_eq!(&bytes[352..356], b"1 x\0");
    }
}
