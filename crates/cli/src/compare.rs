//! `eve compare`: what two images differ in.

use std::path::PathBuf;

use builder::compare::{Difference, compare};

use crate::out::{self, OrAdvise, Step};

/// Say what two images differ in
///
/// Takes both apart as far as it goes: disks, ISOs, partitions, file systems, archives, kernel images.
/// Nothing is mounted; an ext4 is compared by its bytes. Times, signatures, the keys they are checked
/// with, and digests over those do not count as differences; --strict lists and counts them too. Ends
/// with 0 if both are the same, with 1 if not.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The first: a file or a folder
    one: PathBuf,
    /// The second
    two: PathBuf,
    /// List times, signatures, keys and digests too, and count them
    #[arg(long)]
    strict: bool,
    /// Print what was found as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let step = Step::start("comparing");
    let found = compare(&args.one, &args.two).or_advise()?;
    let (files, excused) = (found.files, found.excused.len());
    step.done(format!("{files} files"));
    let mut count = found.differences.len();
    if args.strict {
        count += excused;
    }
    if args.json {
        out::json(&found)?;
    } else {
        found.differences.iter().for_each(show);
        if args.strict {
            found.excused.iter().for_each(show);
        } else if excused > 0 {
            crate::out::say!(
                "{excused} times, signatures, keys and digests differ too: --strict lists them"
            );
        }
    }
    match count {
        0 => Ok(()),
        n => {
            let s = if n == 1 { "" } else { "s" };
            anyhow::bail!("{} and {}: {n} difference{s}", args.one.display(), args.two.display())
        }
    }
}

fn show(difference: &Difference) {
    let Difference { at, what, one, two } = difference;
    let values = match (one.as_str(), two.as_str()) {
        ("", "") => String::new(),
        (one, two) if one == two => one.to_owned(),
        (one, "") => format!(": {one}"),
        ("", two) => format!(": {two}"),
        (one, two) => format!(": {one} -> {two}"),
    };
    out::line(format!("{at}: {}{values}", what.name()));
}
