//! `eve convert`: a disk image into another format.

use std::path::PathBuf;

use builder::image::convert::{Conversion, convert};
use builder::pkg::Progress as _;
use formats::disk::Format;
use model::Bytes;

use crate::out::{self, OrAdvise, WrongUse};
use crate::steps::Steps;

/// Convert a disk image into another format
///
/// The format of IN is found by what it starts with; --from says it where that
/// could mislead. Zeroes take no room in OUT, and holes in IN take no time. The
/// same disk gives the same bytes.
///
///   raw          byte for byte
///   qcow2        QEMU, compressed
///   vdi          VirtualBox
///   vmdk         VMware, Workstation and others
///   vmdk-stream  VMware, compressed, for import (OVA)
///   vhdx         Hyper-V
///   parallels    Parallels: a folder, or one file if OUT is .hds
///   gcp          Google Cloud: disk.raw in a tar.gz, rounded up to whole GiB
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// The new format
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    to: Format,
    /// The format of IN
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    from: Option<Format>,
    /// The size of the new disk, with K, M, G or T: 32G. By default that of the old one; it cannot be
    /// smaller
    #[arg(long, value_parser = size)]
    size: Option<Bytes>,
    /// Times in archives, in seconds since 1970
    #[arg(long, env = "SOURCE_DATE_EPOCH", value_name = "SECONDS", default_value_t = 0)]
    time: u64,
    /// Print what was converted as JSON
    #[arg(long)]
    json: bool,
    /// The image, or the folder of one of Parallels
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// Where the new image goes; one that is there is replaced
    #[arg(value_name = "OUT")]
    output: PathBuf,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let conversion = Conversion {
        from: args.input,
        from_format: args.from,
        to: args.to,
        size: args.size,
        time: args.time,
    };
    let steps = Steps::default();
    steps.step(&format!("converting {} to {}", conversion.from.display(), args.to));
    let made = convert(&conversion, &args.output, &steps).or_advise()?;
    steps.done();
    if args.json {
        return out::json(&made);
    }
    out::line(format!(
        "{}: {} of {}, {} on disk",
        made.path.display(),
        made.to,
        made.size,
        made.stored
    ));
    Ok(())
}

fn format(text: &str) -> Result<Format, WrongUse> {
    let known: Vec<&str> = Format::ALL.iter().map(|f| f.name()).collect();
    Format::by_name(text)
        .ok_or_else(|| WrongUse(format!("no such format; there are {}", known.join(", "))))
}

/// A number with a unit: `32G`, `8192M`, `1048576`.
pub(crate) fn size(text: &str) -> Result<Bytes, WrongUse> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => Some(0),
        "K" | "KIB" => Some(10),
        "M" | "MIB" => Some(20),
        "G" | "GIB" => Some(30),
        "T" | "TIB" => Some(40),
        _ => None,
    };
    let bytes = digits.parse::<u64>().ok().zip(shift);
    let bytes = bytes.and_then(|(n, shift)| n.checked_mul(1 << shift));
    let wrong = || WrongUse("no such size; 32G, 8192M and 1048576 are some".to_owned());
    bytes.map(Bytes).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in
            [("512", 512), ("8192M", 8 << 30), ("32G", 32 << 30), ("1TiB", 1 << 40)]
        {
            assert_eq!(size(text).unwrap(), Bytes(bytes), "{text}");
        }
        for text in ["", "G", "1.5G", "-1", "3X", "99999999T"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
