//! `eve controller backup` and `restore`: a whole controller in one file.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use controller::{BlobLocation, Counted, Location, Whole};
use host::clock;

use crate::out::{self, OrAdvise};

/// Where the controller is.
#[derive(Debug, clap::Args)]
pub(crate) struct Place {
    /// Its PostgreSQL database (postgres://USER:PASSWORD@HOST/NAME), if it has one
    #[arg(long, value_name = "URL", env = "EVE_DATABASE", hide_env_values = true)]
    database: Option<String>,
    /// Where its images are, if not in its data folder
    #[arg(long, value_name = "URL", env = "EVE_BLOBS", hide_env_values = true)]
    blobs: Option<BlobLocation>,
}

impl Place {
    fn whole(self, data: PathBuf) -> Whole {
        Whole { data, database: self.database.map(Location::Postgres), blobs: self.blobs }
    }
}

/// Arguments of `eve controller backup`.
#[derive(Debug, clap::Args)]
#[group(id = "backed_up")]
pub(crate) struct Backup {
    #[command(flatten)]
    place: Place,
    /// The file to write; - for standard output. It holds the controller's keys and is not
    /// encrypted: pipe it through a program that does
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// Leave images and other large contents where they are
    #[arg(long)]
    without_blobs: bool,
}

/// Arguments of `eve controller restore`.
#[derive(Debug, clap::Args)]
#[group(id = "restored")]
pub(crate) struct Restore {
    /// The file that `eve controller backup` wrote; - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    place: Place,
}

pub(crate) async fn backup(args: Backup, data: PathBuf) -> anyhow::Result<()> {
    let (whole, blobs) = (args.place.whole(data), !args.without_blobs);
    if args.out == Path::new("-") {
        controller::backup(&whole, std::io::stdout(), blobs, clock::now()).await.or_advise()?;
        return Ok(());
    }
    // Under another name until it is whole, and for nobody else to read.
    let draft = args.out.with_added_extension("partial");
    let open = {
        use std::os::unix::fs::OpenOptionsExt;
        File::options().write(true).create(true).truncate(true).mode(0o600).open(&draft)
    };
    let file = open.with_context(|| format!("cannot write {}", draft.display()))?;
    let mut out = BufWriter::new(file);
    let counted = controller::backup(&whole, &mut out, blobs, clock::now()).await.or_advise()?;
    out.flush().and_then(|()| out.get_ref().sync_all())?;
    std::fs::rename(&draft, &args.out)
        .with_context(|| format!("cannot rename {}", draft.display()))?;
    tell("backed up", &counted);
    Ok(())
}

pub(crate) async fn restore(args: Restore, data: PathBuf) -> anyhow::Result<()> {
    let whole = args.place.whole(data);
    let counted = if args.file == Path::new("-") {
        controller::restore(std::io::stdin().lock(), &whole, clock::now()).await
    } else {
        let file = File::open(&args.file)
            .with_context(|| format!("cannot read {}", args.file.display()))?;
        controller::restore(BufReader::new(file), &whole, clock::now()).await
    };
    tell("restored", &counted.or_advise()?);
    Ok(())
}

fn tell(done: &str, counted: &Counted) {
    let rows: u64 = counted.rows.values().sum();
    let devices = counted.rows.get("devices").copied().unwrap_or_default();
    out::line(format_args!(
        "{done} {rows} rows of {} tables ({devices} devices), {} large contents",
        counted.rows.len(),
        counted.blobs
    ));
}
