//! `eve controller`: serve one on this machine, and what belongs to its data folder.

use std::io::{IsTerminal, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use controller::access::Role;
use controller::access::oidc::OidcSettings;
use controller::listener::{AcmeSettings, LETS_ENCRYPT};
use controller::pki::PkiFiles;
use controller::{BlobLocation, Limit, Location, Retention, Settings, Versions, default_names};
use host::clock;

use crate::backup;
use crate::out::{self, OrAdvise};
use crate::places;

/// A controller on this machine: serve, link, token, backup, restore
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Serve nodes, operators, browsers and image pulls on one TLS port, until interrupted
    Serve(Box<Serve>),
    /// Write the files that a node's CONFIG partition needs to find this controller
    Conf(Conf),
    /// Make a new token for the administrator; the old one is refused from then on
    Token {
        #[command(flatten)]
        data: Data,
        /// The database of the controller, if it is not in the data folder
        #[arg(long, value_name = "URL", env = "EVE_DATABASE", hide_env_values = true)]
        database: Option<String>,
    },
    /// Print a link by which a user chooses a password, good once and for 15 minutes
    Link {
        #[command(flatten)]
        data: Data,
        /// The database of the controller, if it is not in the data folder
        #[arg(long, value_name = "URL", env = "EVE_DATABASE", hide_env_values = true)]
        database: Option<String>,
        /// The user's name
        #[arg(default_value = controller::access::ADMIN)]
        user: String,
    },
    /// Write everything of a controller into one file, while it runs
    #[command(after_long_help = backup::HOLDS)]
    Backup(Backup),
    /// Make a controller of a backup, in an empty folder and an empty database of either kind
    Restore {
        #[command(flatten)]
        data: Data,
        #[command(flatten)]
        args: backup::Restore,
    },
}

/// `eve backup`, `eve controller backup`
#[derive(Debug, clap::Args)]
pub(crate) struct Backup {
    #[command(flatten)]
    data: Data,
    #[command(flatten)]
    args: backup::Backup,
}

pub(crate) fn back_up(line: Backup) -> anyhow::Result<()> {
    let Backup { data, args } = line;
    runtime()?.block_on(backup::backup(args, data.folder()))
}

#[derive(Debug, clap::Args)]
struct Data {
    /// The controller's data folder [default: eve/controller in $XDG_STATE_HOME or ~/.local/state]
    #[arg(long, value_name = "DIR", env = "EVE_CONTROLLER_DATA")]
    data: Option<PathBuf>,
}

impl Data {
    fn folder(&self) -> PathBuf {
        self.data.clone().unwrap_or_else(data_folder)
    }
}

/// Where a controller keeps its data if nobody says where: beside what `eve up` keeps.
pub(crate) fn data_folder() -> PathBuf {
    places::up_state().with_file_name("controller")
}

#[derive(Debug, clap::Args)]
struct Serve {
    #[command(flatten)]
    data: Data,
    /// Keep everything in this PostgreSQL database (postgres://USER:PASSWORD@HOST/NAME) instead of a
    /// SQLite file in the data folder; several controllers may share it
    #[arg(long, value_name = "URL", env = "EVE_DATABASE", hide_env_values = true)]
    database: Option<String>,
    /// Root certificate that nodes trust, and intermediates; instead of one of its own, together
    /// with --signing-cert and --ecdh-cert
    #[arg(long, value_name = "PEM")]
    ca: Option<PathBuf>,
    /// Certificate (chain) of the listener
    #[arg(long, value_name = "PEM")]
    tls_cert: Option<PathBuf>,
    /// Its key [default: in the same file, or beside it: X.key.pem for X.cert.pem]
    #[arg(long, value_name = "PEM", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Ask an ACME server for a certificate for the public ones of the names, and for the next ones;
    /// this accepts its terms of service. It calls the name at port 443, which must lead here (one
    /// controller behind a name) [default server: Let's Encrypt]
    #[arg(
        long,
        value_name = "DIRECTORY",
        num_args = 0..=1,
        default_missing_value = LETS_ENCRYPT,
        conflicts_with = "tls_cert"
    )]
    acme: Option<String>,
    /// A mail address that the ACME server may write to
    #[arg(long, value_name = "MAIL", requires = "acme")]
    acme_contact: Option<String>,
    /// Certificates that vouch for the ACME server, beside the system's
    #[arg(long, value_name = "PEM", requires = "acme")]
    acme_ca: Option<PathBuf>,
    /// Certificate (chain) that signs what nodes are told
    #[arg(long, value_name = "PEM")]
    signing_cert: Option<PathBuf>,
    /// Its key [default: as for --tls-key]
    #[arg(long, value_name = "PEM", requires = "signing_cert")]
    signing_key: Option<PathBuf>,
    /// Certificate (chain) for key exchange with nodes, P-256
    #[arg(long, value_name = "PEM")]
    ecdh_cert: Option<PathBuf>,
    /// Its key [default: as for --tls-key]
    #[arg(long, value_name = "PEM", requires = "ecdh_cert")]
    ecdh_key: Option<PathBuf>,
    /// Let people log in by this OpenID provider, too: its issuer URL
    #[arg(long, value_name = "URL", env = "EVE_OIDC_ISSUER", requires = "oidc_client_id")]
    oidc_issuer: Option<String>,
    /// Who this controller is there
    #[arg(long, value_name = "ID", env = "EVE_OIDC_CLIENT_ID")]
    oidc_client_id: Option<String>,
    /// A file with its secret there [default: a public client without one]
    #[arg(long, value_name = "FILE", env = "EVE_OIDC_CLIENT_SECRET_FILE")]
    oidc_client_secret_file: Option<PathBuf>,
    /// The claim that says a person's role
    #[arg(long, value_name = "CLAIM", env = "EVE_OIDC_ROLE_CLAIM", default_value = "roles")]
    oidc_role_claim: String,
    /// What a value of that claim means, as in edge-admins=admin; give several times [default:
    /// viewer, operator and admin mean themselves]
    #[arg(long = "oidc-role", value_name = "VALUE=ROLE", value_parser = meaning)]
    oidc_roles: Vec<(String, Role)>,
    /// Certificates that vouch for the provider
    #[arg(long, value_name = "PEM", default_value = "/etc/ssl/certs/ca-certificates.crt")]
    oidc_ca: PathBuf,
    /// Where to listen
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "[::]:8443")]
    listen: SocketAddr,
    /// A name or address it is reached by, for its certificate; give several times: the first is
    /// the one that it calls itself by, and `eve` on this machine [default: localhost, 127.0.0.1,
    /// 10.0.2.2, ::1 and the name of this machine]
    #[arg(long = "name", value_name = "HOST")]
    names: Vec<String>,
    /// The OCI layout whose images nodes may pull [default: the one `eve pkg build` fills]
    #[arg(long, value_name = "DIR")]
    registry: Option<PathBuf>,
    /// Where pushed images and what else is large are kept: file:///FOLDER,
    /// s3://BUCKET/PREFIX?endpoint=URL&region=NAME, gs://BUCKET/PREFIX or
    /// az://CONTAINER/PREFIX?account=NAME; keys come from the environment, as AWS_ACCESS_KEY_ID and
    /// AWS_SECRET_ACCESS_KEY, or from a file of such lines (…&keys=/FILE) [default: the folder blobs
    /// in --data]
    #[arg(long, value_name = "URL", env = "EVE_BLOBS", hide_env_values = true)]
    blobs: Option<BlobLocation>,
    /// Give images to everyone who reaches the port, also without a token
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    open_registry: bool,
    /// Also serve the admin REST of Adam, EVE's test controller, under /admin: for Eden and scripts.
    /// It asks for an administrator's token, as a bearer or as the password in the URL; for Eden:
    /// adam.ip: eden:TOKEN@ADDRESS and adam.remote.redis: false
    #[arg(long, env = "EVE_ADAM")]
    adam: bool,
    /// Host and port under which nodes pull images, if not the one by which they reach us
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    // The last: what comes behind it would stand under its heading.
    #[command(flatten)]
    keep: Keep,
}

/// How much is kept of what nodes say: DAYS, or DAYS,MIB; 0 is no bound. Whichever is reached first.
#[derive(Debug, clap::Args)]
#[command(
    next_help_heading = "How much is kept: DAYS or DAYS,MIB, whichever is reached first; 0 is no bound"
)]
struct Keep {
    /// What nodes said about themselves before
    #[arg(long, value_name = "DAYS,MIB", value_parser = limit, default_value = "30,8192")]
    keep_info: Limit,
    /// Log files and their lines
    #[arg(long, value_name = "DAYS,MIB", value_parser = limit, default_value = "14,32768")]
    keep_logs: Limit,
    /// Flows and hardware health
    #[arg(long, value_name = "DAYS,MIB", value_parser = limit, default_value = "14,4096")]
    keep_messages: Limit,
    /// What happened in the fleet
    #[arg(long, value_name = "DAYS,MIB", value_parser = limit, default_value = "365,2048")]
    keep_events: Limit,
    /// Points of charts
    #[arg(long, value_name = "DAYS", default_value_t = 30)]
    keep_charts: u32,
    /// Who did what: the audit log
    #[arg(long, value_name = "DAYS,MIB", value_parser = limit, default_value = "400,4096")]
    keep_audit: Limit,
    /// What objects said within so many days, and so many versions of each that is there in any case;
    /// deleted devices can be rolled back for as many days
    #[arg(long, value_name = "DAYS,VERSIONS", value_parser = versions, default_value = "180,20")]
    keep_history: Versions,
    /// Rollouts and scheduled changes that are over
    #[arg(long, value_name = "DAYS", default_value_t = 90)]
    keep_over: u32,
}

impl Keep {
    fn retention(&self) -> Retention {
        Retention {
            info_history: self.keep_info,
            logs: self.keep_logs,
            messages: self.keep_messages,
            events: self.keep_events,
            points_days: self.keep_charts,
            audit: self.keep_audit,
            versions: self.keep_history,
            over_days: self.keep_over,
        }
    }
}

/// `14` or `14,32768`
fn limit(text: &str) -> Result<Limit, String> {
    let (days, mib) = text.split_once(',').unwrap_or((text, "0"));
    let wrong = || format!("write DAYS or DAYS,MIB as in 14 or 14,32768; {text:?} is neither");
    let days = days.trim().parse().map_err(|_| wrong())?;
    Ok(Limit { days, mib: mib.trim().parse().map_err(|_| wrong())? })
}

/// `180` or `180,20`
fn versions(text: &str) -> Result<Versions, String> {
    let (days, newest) = text.split_once(',').unwrap_or((text, "20"));
    let wrong = || format!("write DAYS or DAYS,VERSIONS as in 180 or 180,20; {text:?} is neither");
    let days = days.trim().parse().map_err(|_| wrong())?;
    Ok(Versions { days, newest: newest.trim().parse().map_err(|_| wrong())? })
}

#[derive(Debug, clap::Args)]
struct Conf {
    #[command(flatten)]
    data: Data,
    /// The folder to write to; made if it is not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Host and port by which the node reaches the controller
    #[arg(long, value_name = "HOST:PORT", default_value = "10.0.2.2:8443")]
    server: String,
    /// The node's soft serial number [default: a random one]
    #[arg(long, value_name = "TEXT")]
    soft_serial: Option<String>,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Serve(args) => runtime()?.block_on(serve(*args)),
        Command::Conf(args) => conf(&args),
        Command::Backup(args) => back_up(args),
        Command::Restore { data, args } => {
            runtime()?.block_on(backup::restore(args, data.folder()))
        }
        Command::Token { data, database } => {
            let database = database.map(Location::Postgres);
            let folder = data.folder();
            let token = controller::new_token(&folder, database, clock::now);
            out::line(runtime()?.block_on(token).or_advise()?);
            Ok(())
        }
        Command::Link { data, database, user } => {
            let database = database.map(Location::Postgres);
            let folder = data.folder();
            let link = controller::new_link(&folder, database, &user, clock::now);
            out::line(runtime()?.block_on(link).or_advise()?);
            Ok(())
        }
    }
}

/// The runtime of commands that talk or serve.
pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

/// `edge-admins=admin`
fn meaning(text: &str) -> Result<(String, Role), String> {
    let (value, role) = text.rsplit_once('=').ok_or("write VALUE=ROLE")?;
    Ok((value.to_owned(), role.parse()?))
}

/// The OpenID provider that was named.
fn provider(args: &Serve) -> anyhow::Result<Option<OidcSettings>> {
    use anyhow::Context;

    let Some(issuer) = &args.oidc_issuer else { return Ok(None) };
    let read = |path: &Path| {
        std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let secret = match &args.oidc_client_secret_file {
        Some(file) => {
            let text = String::from_utf8(read(file)?);
            let text = text.with_context(|| format!("{} is no text", file.display()))?;
            Some(text.trim().to_owned())
        }
        None => None,
    };
    // One on this machine, over plain HTTP, needs nobody to vouch for it.
    let roots_pem = if issuer.starts_with("https://") { read(&args.oidc_ca)? } else { Vec::new() };
    Ok(Some(OidcSettings {
        issuer: issuer.clone(),
        client_id: args.oidc_client_id.clone().unwrap_or_default(),
        client_secret: secret,
        role_claim: args.oidc_role_claim.clone(),
        roles: args.oidc_roles.iter().cloned().collect(),
        roots_pem,
    }))
}

/// The ACME server that was named.
fn acme(args: &Serve) -> anyhow::Result<Option<AcmeSettings>> {
    use anyhow::Context;

    let Some(directory) = args.acme.clone() else { return Ok(None) };
    let roots = args
        .acme_ca
        .as_ref()
        .map(|path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display())));
    let (contact, roots_pem) = (args.acme_contact.clone(), roots.transpose()?.unwrap_or_default());
    Ok(Some(AcmeSettings { directory, contact, roots_pem }))
}

async fn serve(args: Serve) -> anyhow::Result<()> {
    let oidc = provider(&args)?;
    let acme = acme(&args)?;
    let names =
        if args.names.is_empty() { default_names(hostname().as_deref()) } else { args.names };
    let data = args.data.folder();
    let mut link_again = "eve controller link".to_owned();
    if data != data_folder() {
        link_again += &format!(" --data {}", data.display());
    }
    if args.database.is_some() {
        link_again += " --database URL";
    }
    let settings = Settings {
        database: args.database.map(Location::Postgres),
        files: PkiFiles {
            ca: args.ca,
            tls_cert: args.tls_cert,
            tls_key: args.tls_key,
            signing_cert: args.signing_cert,
            signing_key: args.signing_key,
            ecdh_cert: args.ecdh_cert,
            ecdh_key: args.ecdh_key,
        },
        listen: args.listen,
        names,
        registry: Some(args.registry.unwrap_or_else(|| places::cache().join("oci"))),
        blobs: args.blobs,
        open_registry: args.open_registry,
        advertise: args.advertise,
        acme,
        adam: args.adam,
        retention: args.keep.retention(),
        oidc,
        ..Settings::new(data.clone(), clock::now)
    };
    let mut running = controller::serve(settings).await.or_advise()?;
    out::line(format_args!("controller at {}, data in {}", running.url, data.display()));
    out::line("its certificate has the SHA-256 fingerprint (`eve login URL --fingerprint …`)");
    out::line(format_args!("  {}", running.fingerprint));
    if let Some(link) = &running.first_link {
        if std::io::stdout().is_terminal() {
            out::line("choose the administrator's password here, within 15 minutes:");
            out::line(link);
        } else {
            out::line(format_args!(
                "`{link_again}` prints a link to choose the administrator's password"
            ));
        }
    }
    if let Some(token) = &running.first_token {
        let file = data.join(controller::access::TOKEN_FILE);
        if std::io::stdout().is_terminal() {
            out::line(format_args!("the administrator's token, also in {}:", file.display()));
            out::line(token);
        } else {
            // What is no terminal may be a log that others read.
            out::line(format_args!("the administrator's token is in {}", file.display()));
        }
    }
    let mut end = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = end.recv() => {}
        () = running.ended() => anyhow::bail!("the controller ended by itself; its log says why"),
    }
    running.stop().await;
    Ok(())
}

fn hostname() -> Option<String> {
    let mut text = String::new();
    let file = std::fs::File::open("/proc/sys/kernel/hostname").ok()?;
    file.take(256).read_to_string(&mut text).ok()?;
    Some(text.trim().to_owned())
}

fn conf(args: &Conf) -> anyhow::Result<()> {
    let serial = args.soft_serial.clone().unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    let files = controller::conf(&args.data.folder(), &args.server, &serial).or_advise()?;
    write_private(&args.out, &files)?;
    if args.json {
        let names: Vec<&String> = files.keys().collect();
        let facts =
            serde_json::json!({ "folder": args.out, "files": names, "soft_serial": serial });
        return out::json(&facts);
    }
    out::line(format_args!("wrote {} files to {}", files.len(), args.out.display()));
    out::line(format_args!("soft serial: {serial}"));
    Ok(())
}

/// Writes files into a folder; keys for their owner only.
fn write_private(
    dir: &Path,
    files: &std::collections::BTreeMap<String, Vec<u8>>,
) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;

    use anyhow::Context;

    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    for (name, body) in files {
        store::save(dir, name, body)?;
        if name.contains("key") {
            let path = dir.join(name);
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
                .with_context(|| format!("cannot protect {}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        keep: Keep,
    }

    #[test]
    fn what_is_kept_is_said_by_time_and_size() {
        let read = |line: &[&str]| {
            Line::try_parse_from([&["eve"], line].concat()).map(|l| l.keep.retention())
        };
        assert_eq!(read(&[]).unwrap(), Retention::default(), "the help says what is so");
        let some = read(&["--keep-logs", "7", "--keep-events=0,100"]).unwrap();
        assert_eq!(some.logs, Limit { days: 7, mib: 0 });
        assert_eq!(some.events, Limit { days: 0, mib: 100 });
        let some = read(&["--keep-history", "30,5", "--keep-over=7"]).unwrap();
        assert_eq!((some.versions, some.over_days), (Versions { days: 30, newest: 5 }, 7));
        assert!(read(&["--keep-history", "30,x"]).is_err());
        assert!(read(&["--keep-logs", "7,"]).is_err() && read(&["--keep-logs", "x"]).is_err());
    }
}
