//! A file that is to be pushed, as one that can be read at any place: itself, what is packed in it
//! (gzip, zstd, xz), or what standard input gives.
//!
//! What is not a file yet becomes one without a name in the folder for temporary files, as far as
//! its size and the space there allow.

use std::fs::File;
use std::io::{self, BufReader, IsTerminal, Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use model::Bytes;

use crate::out::{self, Step, WrongUse};

/// No image is unpacked to more: a file of a gigabyte can be made to unpack to a thousand.
const MOST: Bytes = Bytes(256 << 30);
/// So much is left to others on the file system.
const SPARE: Bytes = Bytes::mib(256);
/// The space that is left is looked at after so much.
const PART: u64 = 16 << 20;
/// Unpacking zstd takes up to 2^27 bytes of memory, as the `zstd` program does unless asked.
const ZSTD_WINDOW_LOG: u32 = 27;
/// Unpacking xz takes up to 65 MiB of memory for what `xz -9` wrote.
const XZ_MEMORY: u64 = 128 << 20;

/// How a file is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
    /// The .xz format.
    Xz,
}

impl Packing {
    /// By how it begins.
    pub(crate) fn of(head: &[u8]) -> Option<Packing> {
        match head {
            [0x1f, 0x8b, ..] => Some(Packing::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Packing::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Packing::Xz),
            _ => None,
        }
    }

    /// What is packed in it, one part after the other if there are several.
    fn reader<'a>(self, from: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
        let from = BufReader::new(from);
        Ok(match self {
            Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(from)),
            Packing::Zstd => {
                let mut plain = zstd::Decoder::with_buffer(from)?;
                plain.window_log_max(ZSTD_WINDOW_LOG)?;
                Box::new(plain)
            }
            Packing::Xz => {
                use liblzma::stream::{CONCATENATED, Stream};
                let stream = Stream::new_stream_decoder(XZ_MEMORY, CONCATENATED)?;
                Box::new(liblzma::bufread::XzDecoder::new_stream(from, stream))
            }
        })
    }
}

/// What is to be pushed.
#[derive(Debug)]
pub(crate) struct Input {
    file: File,
    shown: String,
    /// `None`: it has no name of its own.
    name: Option<String>,
}

impl Input {
    /// Opens a file; `-` is standard input.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Input> {
        if path == Path::new("-") {
            return Input::standard();
        }
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        let name = path.file_name().and_then(|n| n.to_str()).map(str::to_owned);
        Ok(Input { file, shown: path.display().to_string(), name })
    }

    fn standard() -> anyhow::Result<Input> {
        let stdin = io::stdin();
        if stdin.is_terminal() {
            let text =
                "nothing comes from standard input: `docker save web:1.0 | eve image push -`";
            return Err(WrongUse(text.to_owned()).into());
        }
        let owned = stdin.as_fd().try_clone_to_owned().context("cannot read standard input")?;
        let mut file = File::from(owned);
        let shown = "standard input".to_owned();
        let is_file = file.metadata().is_ok_and(|about| about.is_file());
        if !(is_file && file.stream_position().is_ok_and(|at| at == 0)) {
            let step = Step::start("reading standard input");
            let (copy, size) = keep(file, &shown, MOST, &step)?;
            step.done(size);
            file = copy;
        }
        Ok(Input { file, shown, name: None })
    }

    /// How messages call it.
    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    /// Its own name, without folders.
    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// At its beginning.
    pub(crate) fn start(&mut self) -> anyhow::Result<&mut File> {
        self.file.rewind().with_context(|| self.cannot())?;
        Ok(&mut self.file)
    }

    /// The file itself.
    pub(crate) fn into_file(self) -> File {
        self.file
    }

    /// Its first bytes; fewer if there are no more.
    pub(crate) fn head(&mut self, most: usize) -> anyhow::Result<Vec<u8>> {
        let cannot = self.cannot();
        let head = head(self.start()?, most);
        head.context(cannot)
    }

    /// The first bytes of what is packed in it; none where that is damaged so early.
    pub(crate) fn head_within(&mut self, packing: Packing, most: usize) -> anyhow::Result<Vec<u8>> {
        let file = self.start()?;
        Ok(packing.reader(file).and_then(|mut plain| head(&mut plain, most)).unwrap_or_default())
    }

    /// What is packed in it, in place of it.
    pub(crate) fn unpacked(mut self, packing: Packing) -> anyhow::Result<Input> {
        let shown = self.shown.clone();
        let step = Step::start(format!("unpacking {shown}"));
        let plain = packing.reader(self.start()?).with_context(|| format!("cannot unpack {shown}"));
        let (file, size) = keep(plain?, &shown, MOST, &step)?;
        step.done(size);
        Ok(Input { file, shown, name: self.name })
    }

    fn cannot(&self) -> String {
        format!("cannot read {}", self.shown)
    }
}

fn head(from: &mut dyn Read, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(most as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// All that `from` gives, in a file without a name, and how much that is. `what` names it.
fn keep(
    mut from: impl Read,
    what: &str,
    most: Bytes,
    step: &Step,
) -> anyhow::Result<(File, Bytes)> {
    let folder = std::env::temp_dir();
    let mut file =
        nameless(&folder).with_context(|| format!("cannot write {}", folder.display()))?;
    let mut size = 0;
    loop {
        let full = || {
            let text = format!(
                "{} is full: {what} has more than {} so far",
                folder.display(),
                Bytes(size),
            );
            out::advised(text, "free space there, or name a folder with more of it in TMPDIR")
        };
        if rustix::fs::fstatvfs(&file)
            .is_ok_and(|s| s.f_bavail.saturating_mul(s.f_frsize) < SPARE.0)
        {
            return Err(full());
        }
        let mut part = from.by_ref().take(PART.min(most.0.saturating_sub(size) + 1));
        let moved = match copy(&mut part, &mut file) {
            Ok(moved) => moved,
            Err(Moving::Write(e)) if e.kind() == io::ErrorKind::StorageFull => return Err(full()),
            Err(Moving::Write(e)) => {
                return Err(e).with_context(|| format!("cannot write {}", folder.display()));
            }
            Err(Moving::Read(e)) => {
                let text = format!("cannot read {what} to its end: {e}");
                let advice = "it is damaged or was cut short: write it anew";
                return Err(out::advised(text, advice));
            }
        };
        if moved == 0 {
            return Ok((file, Bytes(size)));
        }
        size += moved;
        if size > most.0 {
            let text = format!("{what} has more than {most}");
            return Err(out::advised(text, "no image is as large: look at what wrote it"));
        }
        step.bytes(Bytes(size), Bytes(0));
    }
}

/// Which side failed.
enum Moving {
    Read(io::Error),
    Write(io::Error),
}

fn copy(from: &mut dyn Read, to: &mut dyn Write) -> Result<u64, Moving> {
    let mut buffer = vec![0; 256 << 10];
    let mut moved = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(moved),
            Ok(n) => {
                to.write_all(buffer.get(..n).unwrap_or_default()).map_err(Moving::Write)?;
                moved += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Moving::Read(e)),
        }
    }
}

/// A file that nobody finds, and that goes away with this program. Images may hold secrets.
fn nameless(folder: &Path) -> io::Result<File> {
    let path: PathBuf = folder.join(format!(".eve-{}", uuid::Uuid::new_v4()));
    let mut options = File::options();
    let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Bytes as each of the packings has them.
    pub(crate) fn packed(bytes: &[u8]) -> [(Packing, Vec<u8>); 3] {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(bytes).unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(bytes).unwrap();
        [
            (Packing::Gzip, gzip.finish().unwrap()),
            (Packing::Zstd, zstd::encode_all(bytes, 1).unwrap()),
            (Packing::Xz, xz.finish().unwrap()),
        ]
    }

    fn input(bytes: &[u8]) -> Input {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Input { file, shown: "it".to_owned(), name: None }
    }

    fn text(mut input: Input) -> Vec<u8> {
        input.head(1 << 20).unwrap()
    }

    #[test]
    fn what_is_packed_comes_out_whole() {
        let bytes: Vec<u8> = (0..100_000_u32).flat_map(|i| (i / 7).to_le_bytes()).collect();
        for (packing, packed) in packed(&bytes) {
            assert_eq!(Packing::of(&packed), Some(packing));
            // Several parts one behind the other are one, as with the programs.
            let twice = [packed.clone(), packed.clone()].concat();
            let plain = text(input(&twice).unpacked(packing).unwrap());
            assert!(plain == [bytes.clone(), bytes.clone()].concat(), "{packing:?}");
            assert_eq!(input(&packed).head_within(packing, 5).unwrap(), &bytes[..5]);

            let cut = &packed[..packed.len() - 9];
            let said = input(cut).unpacked(packing).unwrap_err().to_string();
            assert!(said.starts_with("cannot read it to its end: "), "{packing:?}: {said}");
            assert!(input(&packed[..7]).head_within(packing, 5).unwrap().is_empty());
        }
        assert_eq!(Packing::of(b"\x1f"), None);
        assert_eq!(Packing::of(&[7; 6]), None);
    }

    #[test]
    fn what_unpacks_to_too_much_is_not_kept() {
        let bomb = vec![0; 40 << 20];
        let step = Step::start("unpacking");
        for (packing, packed) in packed(&bomb) {
            assert!(packed.len() < 1 << 20);
            let plain = packing.reader(packed.as_slice()).unwrap();
            let said = keep(plain, "bomb", Bytes::mib(20), &step).unwrap_err().to_string();
            assert_eq!(said, "bomb has more than 20.0 MiB");
            let plain = packing.reader(packed.as_slice()).unwrap();
            assert_eq!(keep(plain, "it", Bytes::mib(40), &step).unwrap().1, Bytes::mib(40));
        }
    }

    #[test]
    fn a_window_that_takes_the_memory_is_refused() {
        let mut wide = zstd::Encoder::new(Vec::new(), 1).unwrap();
        wide.window_log(28).unwrap();
        wide.write_all(&[1; 4096]).unwrap();
        let wide = wide.finish().unwrap();
        assert!(input(&wide).unpacked(Packing::Zstd).is_err());
    }
}
