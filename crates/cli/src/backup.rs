//! `eve controller backup` and `restore`: a whole controller in one file.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use controller::{BackupKey, BlobLocation, Counted, Location, Sealing, Whole};
use host::clock;
use model::Secret;

use crate::access::ask;
use crate::out::{self, OrAdvise, WrongUse};

/// What `eve controller backup --help` ends with.
pub(crate) const HOLDS: &str = "\
What a backup holds:
  the database: devices, objects with their history, secrets, users and
  tokens, the audit log, what nodes said and their logs; the images and
  other contents of the object store, unless --without-blobs; and the keys
  of the controller: pki/ (root, signing and exchange keys, and secrets.key,
  which opens the secrets), tls/ and admin.token.

Who may read it:
  nobody but you. Whoever can, can be the controller to every node, and read
  every secret. The file is written for its owner only (mode 0600). Encrypt
  it before it leaves the machine: --passphrase, --passphrase-file or
  --key-file (AES-256-GCM; Argon2id makes the key of a passphrase). Keep the
  passphrase or the key file elsewhere, and keep it: without it nobody
  restores the backup.

Examples:
  eve controller backup -o fleet.tar.zst
  head -c 32 /dev/urandom > /root/backup.key
  eve backup --key-file /root/backup.key -o - | ssh vault 'cat > fleet.sealed'
  eve controller restore --key-file /root/backup.key --data new fleet.sealed
";

/// A key file is read up to here.
const KEY_FILE_MAX: u64 = 64 << 10;

/// What a backup is encrypted with.
#[derive(Debug, clap::Args)]
#[group(id = "sealed", multiple = false)]
pub(crate) struct Key {
    /// Encrypted with a passphrase, which is asked for
    #[arg(long)]
    passphrase: bool,
    /// Encrypted with the passphrase in the first line of this file
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Encrypted with the bytes of this file, 32 or more
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

impl Key {
    /// `twice`: it is a new one.
    fn read(&self, twice: bool) -> anyhow::Result<Option<BackupKey>> {
        let bytes = |path: &Path| {
            let mut bytes = Vec::new();
            let file = File::open(path);
            file.and_then(|f| f.take(KEY_FILE_MAX).read_to_end(&mut bytes))
                .with_context(|| format!("cannot read the key in {}", path.display()))?;
            anyhow::Ok(bytes)
        };
        if let Some(path) = &self.key_file {
            return Ok(Some(BackupKey::File(bytes(path)?)));
        }
        if let Some(path) = &self.passphrase_file {
            let text = String::from_utf8(bytes(path)?)
                .with_context(|| format!("{} is no text", path.display()))?;
            let line = text.lines().next().unwrap_or_default();
            return Ok(Some(BackupKey::Passphrase(Secret::new(line))));
        }
        if !self.passphrase {
            return Ok(None);
        }
        let words = ask("passphrase of the backup: ")?;
        if twice && std::io::IsTerminal::is_terminal(&std::io::stdin()) && ask("again: ")? != words
        {
            return Err(WrongUse("those were two different passphrases".into()).into());
        }
        Ok(Some(BackupKey::Passphrase(Secret::new(words))))
    }
}

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
    /// The file to write; - for standard output. It holds the controller's keys
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    key: Key,
    /// Leave images and other large contents where they are
    #[arg(long)]
    without_blobs: bool,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

/// Arguments of `eve controller restore`.
#[derive(Debug, clap::Args)]
#[group(id = "restored")]
pub(crate) struct Restore {
    /// The file that `eve controller backup` wrote; - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    key: Key,
    #[command(flatten)]
    place: Place,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

/// Writes a backup, encrypted if there is a key; gives back what it wrote to.
async fn write<W: Write>(
    whole: &Whole,
    mut out: W,
    key: Option<&BackupKey>,
    blobs: bool,
) -> anyhow::Result<(Counted, W)> {
    let Some(key) = key else {
        let counted = controller::backup(whole, &mut out, blobs, clock::now()).await.or_advise()?;
        return Ok((counted, out));
    };
    let mut sealing = Sealing::new(out, key).or_advise()?;
    let counted = controller::backup(whole, &mut sealing, blobs, clock::now()).await.or_advise()?;
    Ok((counted, sealing.finish().or_advise()?))
}

pub(crate) async fn backup(args: Backup, data: PathBuf) -> anyhow::Result<()> {
    let (whole, blobs) = (args.place.whole(data), !args.without_blobs);
    let key = args.key.read(true)?;
    if args.out == Path::new("-") {
        if args.json {
            let why = "the backup itself goes to standard output, where --json would print";
            return Err(WrongUse(why.into()).into());
        }
        write(&whole, std::io::stdout(), key.as_ref(), blobs).await?;
        return Ok(());
    }
    // A device or a pipe would be replaced by a file of its name.
    if std::fs::metadata(&args.out).is_ok_and(|there| !there.is_file()) {
        bail!("{} is no file: name one, or `-` for standard output", args.out.display());
    }
    // Under another name until it is whole, and for nobody else to read.
    let draft = args.out.with_added_extension("partial");
    let open = {
        use std::os::unix::fs::OpenOptionsExt;
        File::options().write(true).create(true).truncate(true).mode(0o600).open(&draft)
    };
    let file = open.with_context(|| format!("cannot write {}", draft.display()))?;
    let (counted, mut out) = write(&whole, BufWriter::new(file), key.as_ref(), blobs).await?;
    out.flush().and_then(|()| out.get_ref().sync_all())?;
    std::fs::rename(&draft, &args.out)
        .with_context(|| format!("cannot rename {}", draft.display()))?;
    tell("backed up", &counted, args.json)
}

pub(crate) async fn restore(args: Restore, data: PathBuf) -> anyhow::Result<()> {
    let whole = args.place.whole(data);
    let from: Box<dyn Read> = if args.file == Path::new("-") {
        if args.key.passphrase {
            let why = "the backup comes from standard input, and so would the passphrase: give \
                       --passphrase-file";
            return Err(WrongUse(why.into()).into());
        }
        Box::new(std::io::stdin().lock())
    } else {
        let file = File::open(&args.file)
            .with_context(|| format!("cannot read {}", args.file.display()))?;
        Box::new(BufReader::new(file))
    };
    let key = args.key.read(false)?;
    let from = controller::opened(from, key.as_ref()).or_advise()?;
    let counted = controller::restore(from, &whole, clock::now()).await;
    tell("restored", &counted.or_advise()?, args.json)
}

fn tell(done: &str, counted: &Counted, json: bool) -> anyhow::Result<()> {
    let rows: u64 = counted.rows.values().sum();
    let devices = counted.rows.get("devices").copied().unwrap_or_default();
    let (tables, blobs) = (counted.rows.len(), counted.blobs);
    if json {
        return out::json(&serde_json::json!({
            "done": done, "rows": rows, "tables": tables, "devices": devices, "blobs": blobs,
        }));
    }
    out::line(format_args!(
        "{done} {rows} rows of {tables} tables ({devices} devices), {blobs} large contents"
    ));
    Ok(())
}
