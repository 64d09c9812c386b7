//! Squashfs images, whoever writes them.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use host::process::{Tool, ToolError, finish};
use model::{Bytes, Diagnose, Diagnosis, Who};

use super::rootfs::RootfsError;

/// How an image is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Compression.
    pub codec: Codec,
    /// Size of data blocks: a power of two from 4 KiB to 1 MiB.
    pub block: Bytes,
    /// The image's time and that of its root folder, in seconds since 1970. Files with a later
    /// time get this one.
    pub time: u64,
}

impl Options {
    /// The options as text, for keys of cached steps.
    pub(super) fn key(&self) -> String {
        format!("{:?} {} {}", self.codec, self.block.0, self.time)
    }
}

/// Compression methods that the node's kernel reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// Zstandard with this level: 1 to 22.
    Zstd(u8),
    /// xz.
    Xz,
}

/// What feeds a writer: it writes a tar with each path once, folders before what is in them.
pub type Feed<'a> = dyn Fn(&mut dyn Write) -> Result<(), RootfsError> + Sync + 'a;

/// Whoever makes a squashfs of a tar. The same tar and options give the same bytes.
pub trait Writer {
    /// Who writes, with a version: another one may give other bytes.
    fn name(&self) -> Result<String, SquashfsError>;

    /// Writes the image to `path`, which does not exist yet.
    fn write(&self, feed: &Feed<'_>, options: &Options, path: &Path) -> Result<(), SquashfsError>;
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum SquashfsError {
    /// The program said no.
    #[error("cannot write the squashfs")]
    Tool(#[from] ToolError),
    /// The root file system could not be read.
    #[error("cannot write the squashfs")]
    Feed(#[source] RootfsError),
    /// The program reads no tar.
    #[error("{0} does not read tar archives; 4.5 and later do")]
    Old(String),
    /// It is not there although the program was content.
    #[error("mksquashfs left no image at {0}")]
    Missing(PathBuf),
}

impl Diagnose for SquashfsError {
    fn diagnose(&self) -> Diagnosis {
        match self {
            SquashfsError::Feed(cause) => cause.diagnose(),
            SquashfsError::Tool(ToolError::Spawn { .. }) | SquashfsError::Old(_) => {
                Diagnosis::of(Who::Operator, "apt install squashfs-tools")
            }
            _ => {
                Diagnosis::of(Who::Operator, "see what mksquashfs says; a full disk is one reason")
            }
        }
    }
}

/// Debian's `mksquashfs`.
#[derive(Debug, Clone, Copy)]
pub struct Mksquashfs;

impl Writer for Mksquashfs {
    fn name(&self) -> Result<String, SquashfsError> {
        let args = ["-version"];
        let ask = Tool::Mksquashfs.command().args(args).output();
        let out = ask.map_err(|source| ToolError::Spawn { tool: Tool::Mksquashfs, source })?;
        // Its exit status is 1 or 0, depending on the version.
        let said = String::from_utf8_lossy(&out.stdout);
        let first = said.lines().next().unwrap_or_default();
        let number = first.split_whitespace().nth(2).unwrap_or_default();
        let parts: Vec<u32> = number.split('.').map_while(|n| n.parse().ok()).collect();
        if parts < vec![4, 5] {
            return Err(SquashfsError::Old(format!("{first:?}")));
        }
        Ok(format!("mksquashfs {number}"))
    }

    fn write(&self, feed: &Feed<'_>, options: &Options, path: &Path) -> Result<(), SquashfsError> {
        let tool = Tool::Mksquashfs;
        let block = options.block.0.to_string();
        let target = path.to_string_lossy();
        let mut args: Vec<&str> = vec!["-", &target, "-tar", "-noappend", "-exit-on-error"];
        args.extend(["-quiet", "-no-progress", "-root-mode", "755", "-b", &block]);
        let level;
        match options.codec {
            Codec::Zstd(n) => {
                level = n.to_string();
                args.extend(["-comp", "zstd", "-Xcompression-level", &level]);
            }
            Codec::Xz => args.extend(["-comp", "xz", "-Xbcj", "x86"]),
        }
        let mut child = tool
            .command()
            .args(&args)
            // The only way to set the time of the root folder when reading a tar.
            .env("SOURCE_DATE_EPOCH", options.time.to_string())
            .env("TZ", "UTC")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| ToolError::Spawn { tool, source })?;
        let mut pipe = child.stdin.take();
        let (fed, out) = std::thread::scope(|scope| {
            let feeder = scope.spawn(move || match &mut pipe {
                Some(pipe) => feed(&mut io::BufWriter::with_capacity(1 << 20, pipe)),
                None => Ok(()),
            });
            let out = child.wait_with_output();
            (feeder.join(), out)
        });
        let out = out.map_err(|source| ToolError::Pipe { tool, source })?;
        let fed = fed.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match (finish(tool, &args, out), fed) {
            // A program that gave up closed the pipe: what it said is the reason.
            (Err(said), Ok(()) | Err(RootfsError::Write(_))) => Err(said.into()),
            (_, Err(cause)) => {
                let _ = std::fs::remove_file(path);
                Err(SquashfsError::Feed(cause))
            }
            (Ok(_), Ok(())) if path.is_file() => Ok(()),
            (Ok(_), Ok(())) => Err(SquashfsError::Missing(path.to_owned())),
        }
    }
}

/// Reads the first bytes of an image.
pub(super) fn head<R: Read>(from: &mut R) -> io::Result<Vec<u8>> {
    let mut head = vec![0; formats::squashfs::SUPERBLOCK];
    from.read_exact(&mut head)?;
    Ok(head)
}
