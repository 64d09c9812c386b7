//! Starting a controller and stopping it.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::middleware;
use axum::response::Response;
use axum::routing::{any, get};
use model::{Diagnose, Diagnosis, UnixMillis, Who};
use rustix::fs::{FlockOperation, flock};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::access::client::fingerprint;
use crate::access::limits::Limits;
use crate::access::oidc::{Oidc, OidcSettings};
use crate::access::password::Cost;
use crate::access::{Access, AccessError, random};
use crate::blobs::{BlobError, BlobLocation, Blobs};
use crate::db::{Db, DbError, Location, Vault};
use crate::fleet::{self, Fleet, StartError};
use crate::images::Images;
use crate::listener::{Acme, AcmeError, AcmeSettings, Shown, Source};
use crate::pki::{Pki, PkiError, PkiFiles, make_private, secrets_key};
use crate::registry::{Keeper, Registry};
use crate::retention::Retention;
use crate::{access, adam, blobs, device_api, listener, operator, registry, server, upkeep, web};

/// Asks what time it is.
pub type Clock = fn() -> UnixMillis;

/// The file that says where the controller listens: `https://localhost:8443`.
pub(crate) const ENDPOINT_FILE: &str = "endpoint";
/// What is shown there, PEM, if that is no certificate of our own.
pub(crate) const ENDPOINT_CERT_FILE: &str = "endpoint.cert.pem";
pub(crate) const DATABASE: &str = "controller.db";
pub(crate) const BLOBS: &str = "blobs";
/// Under which the root of a fleet is noted in its database.
const ROOT: &str = "root";

/// What a controller needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The folder of all it keeps; made if it is not there.
    pub data: PathBuf,
    /// Where its database is. `None`: a SQLite file in `data`.
    pub database: Option<Location>,
    /// Certificates to serve instead of its own.
    pub files: PkiFiles,
    /// Where it listens; port 0 takes any free one.
    pub listen: SocketAddr,
    /// The names it is reached by: host names and addresses, for its certificate.
    pub names: Vec<String>,
    /// The OCI layout its registry serves. `None`: no images.
    pub registry: Option<PathBuf>,
    /// Where pushed images, uploaded files and what else is large are kept. `None`: in `data`.
    pub blobs: Option<BlobLocation>,
    /// Whether images are given to everyone who can reach us, also without a token.
    pub open_registry: bool,
    /// How long what nodes say is kept.
    pub retention: Retention,
    /// Host and port under which nodes reach the registry. `None`: as they reach us.
    pub advertise: Option<String>,
    /// Who gives certificates for public names, if somebody does.
    pub acme: Option<AcmeSettings>,
    /// Whether Adam's admin REST is served, for Eden.
    pub adam: bool,
    /// A provider that says who somebody is, beside passwords.
    pub oidc: Option<OidcSettings>,
    /// How much anybody may ask for.
    pub limits: Limits,
    /// What a guess at a password costs.
    pub password_cost: Cost,
    /// The clock.
    pub clock: Clock,
}

impl Settings {
    /// A controller of this machine alone: any free port on loopback, SQLite, certificates of its
    /// own, no images.
    pub fn new(data: PathBuf, clock: Clock) -> Settings {
        Settings {
            data,
            database: None,
            files: PkiFiles::default(),
            listen: (std::net::Ipv4Addr::LOCALHOST, 0).into(),
            names: default_names(None),
            registry: None,
            blobs: None,
            open_registry: true,
            retention: Retention::default(),
            advertise: None,
            acme: None,
            adam: false,
            oidc: None,
            limits: Limits::default(),
            password_cost: Cost::USUAL,
            clock,
        }
    }
}

/// The names a controller is reached by if none are given: this machine, and the host as QEMU's user
/// network shows it to guests.
pub fn default_names(hostname: Option<&str>) -> Vec<String> {
    let fixed = ["localhost", "127.0.0.1", "10.0.2.2", "::1"];
    let mut names: Vec<String> = fixed.map(str::to_owned).to_vec();
    names.extend(hostname.filter(|h| !h.is_empty() && *h != "localhost").map(str::to_owned));
    names
}

/// A controller that runs.
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    /// How people on this machine reach it.
    pub url: String,
    /// SHA-256 of the certificate that it shows to everybody, as browsers print it.
    pub fingerprint: String,
    /// The administrator's token, at the first start only.
    pub first_token: Option<String>,
    /// A link by which the administrator chooses a password, while there is none.
    pub first_link: Option<String>,
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

/// Shows neither the token nor the link.
impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Running { address, url, .. } = self;
        f.debug_struct("Running")
            .field("address", address)
            .field("url", url)
            .finish_non_exhaustive()
    }
}

impl Running {
    /// Lets what is under way finish, closes the database and frees the data folder.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        if let Err(e) = self.serving.await {
            tracing::error!("the controller ended badly: {e}");
        }
    }

    /// Waits until it ends by itself, which it does not.
    pub async fn ended(&mut self) {
        let _ = (&mut self.serving).await;
    }
}

/// Why a controller cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Another controller uses the data folder.
    #[error("another controller runs on {0}")]
    InUse(PathBuf),
    /// A file or folder.
    #[error("cannot {doing} {path}")]
    File {
        /// What was tried.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The port.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Certificates.
    #[error("cannot prepare the certificates")]
    Pki(#[from] PkiError),
    /// There is nothing of a controller in the folder.
    #[error("there is no database of a controller in {0}")]
    NoDatabase(PathBuf),
    /// The database.
    #[error("cannot open what is known of the fleet")]
    Db(#[from] DbError),
    /// Other controllers of the database have another root certificate.
    #[error("the nodes in {0} trust another root certificate than this controller's")]
    OtherRoot(Location),
    /// The object store.
    #[error("cannot open what is kept of images")]
    Blobs(#[from] BlobError),
    /// The token.
    #[error("cannot give access")]
    Access(#[from] AccessError),
    /// Certificates for public names.
    #[error("cannot ask for certificates")]
    Acme(#[from] AcmeError),
    /// The fleet.
    #[error("cannot start")]
    Fleet(#[from] StartError),
    /// TLS.
    #[error("cannot use the TLS certificate")]
    Tls(#[from] rustls::Error),
}

impl Diagnose for ServeError {
    fn diagnose(&self) -> Diagnosis {
        match self {
            ServeError::InUse(_) => {
                Diagnosis::of(Who::Operator, "stop the other one, or choose another --data")
            }
            ServeError::Listen { .. } => Diagnosis::of(
                Who::Operator,
                "stop what uses the port, or choose another with --listen",
            ),
            ServeError::OtherRoot(_) => Diagnosis::of(
                Who::Operator,
                "copy the folder pki/ from the data folder of the controller that was first, or give \
                 the same --ca, --signing-cert and --ecdh-cert",
            ),
            ServeError::Pki(e) => e.diagnose(),
            ServeError::Db(e) => e.diagnose(),
            ServeError::Blobs(e) => e.diagnose(),
            ServeError::NoDatabase(_) => Diagnosis::of(
                Who::Operator,
                "name the controller's data folder with --data; if it keeps everything in \
                 PostgreSQL, name that with --database",
            ),
            ServeError::Tls(_) => {
                Diagnosis::of(Who::Operator, "give the key that belongs to the certificate")
            }
            ServeError::Acme(_) => Diagnosis::of(
                Who::Operator,
                "give a --name that others know, and --acme as `eve controller serve --help` says",
            ),
            ServeError::Access(AccessError::NoUser(_)) => {
                Diagnosis::of(Who::Operator, "`eve user list` shows the users")
            }
            ServeError::Access(AccessError::Random(_)) => {
                Diagnosis::of(Who::Operator, "run the controller where it can read random numbers")
            }
            _ => Diagnosis::of(Who::Operator, "check the controller's data folder"),
        }
    }
}

/// Starts a controller. Returns when it listens.
pub async fn serve(settings: Settings) -> Result<Running, ServeError> {
    let Settings { data, database, files, listen, names, registry, advertise, .. } = settings;
    let (limits, cost, clock) = (settings.limits, settings.password_cost, settings.clock);
    let database = database.unwrap_or_else(|| Location::File(data.join(DATABASE)));
    // Asked first: a start that it refuses leaves nothing behind, and a backup can be restored here.
    let server = match &database {
        Location::Postgres(_) => Some(answering(&database, &data, &files).await?),
        Location::File(_) => None,
    };
    make_private(&data)?;
    let lock = lock(&data)?;
    let now = clock();
    let pki = Pki::open(&data, &files, now)?;
    let shown = Arc::new(Shown::new(pki.tls(&data, &files, &names, now)?)?);
    let fingerprint = shown.leaf().map(|der| fingerprint(&der)).unwrap_or_default();
    let tls = shown.tls()?;
    let acme = settings.acme.map(|acme| Acme::new(acme, &names, &data)).transpose()?;
    let source = Source { data: data.clone(), files, names: names.clone(), acme };
    let mut db = match server {
        Some(db) => db,
        None => Db::open(&database).await?,
    };
    same_root(&db, &database, &pki).await?;
    let fresh = random::<32>().map_err(AccessError::from)?;
    db.keep_secrets(Vault::new(&secrets_key(&data, &fresh)?)?).await?;
    note_root(&db, &database, &pki).await?;
    let first_token = access::first_token(&db, &data, now).await?;

    let listener = server::listen(listen)
        .await
        .map_err(|source| ServeError::Listen { address: listen, source })?;
    let address =
        listener.local_addr().map_err(|source| ServeError::Listen { address: listen, source })?;
    let url = local_url(&names, address);
    listener::note_shown(&shown, &source)?;
    store::save(&data, ENDPOINT_FILE, format!("{url}\n").as_bytes()).map_err(PkiError::Save)?;

    let blobs = settings.blobs.unwrap_or_else(|| {
        // The folder is ours alone: the lock of `data` is held.
        let folder = data.join(BLOBS);
        match blobs::sweep_folder(&folder) {
            Ok(0) => {}
            Ok(gone) => tracing::info!("removed {gone} unfinished files of the last run"),
            Err(e) => tracing::warn!("cannot look for unfinished files: {e}"),
        }
        BlobLocation::Folder(folder)
    });
    let images = Images::open(db.clone(), Blobs::open(&blobs)?).await?;
    let key = random::<32>().map_err(AccessError::from)?;
    let key = db.meta("images-key", || key.to_vec()).await?;
    let keeper = Keeper::new(&key, settings.open_registry);
    let registry = Registry::new(registry.as_deref(), images, keeper);
    let first_link = access::first_link(&db, now).await?.map(|path| format!("{url}{path}"));
    let oidc = settings.oidc.map(Oidc::new).transpose().map_err(AccessError::from)?;
    let access = Access::new(&db, limits, cost, oidc);
    let begin = fleet::Start { data, db, pki, registry, advertise, names, clock, access };
    let fleet = Arc::new(Fleet::start(begin).await?);
    let (stop, stopped) = watch::channel(false);
    let router = router(&fleet, stopped.clone(), settings.adam);
    let serving = tokio::spawn(run(
        fleet,
        listener,
        (tls, shown, source),
        router,
        stopped,
        lock,
        settings.retention,
    ));
    Ok(Running { address, url, fingerprint, first_token, first_link, stop, serving })
}

/// The database of a controller that was there before: without the check, a folder whose controller
/// keeps everything in PostgreSQL would get a database that nobody serves.
async fn open(data: &Path, database: Option<Location>) -> Result<Db, ServeError> {
    let file = data.join(DATABASE);
    if database.is_none() && !file.exists() {
        return Err(ServeError::NoDatabase(data.to_owned()));
    }
    Ok(Db::open(&database.unwrap_or(Location::File(file))).await?)
}

/// Replaces the administrator's token of a data folder whose controller may be running.
pub async fn new_token(
    data: &Path,
    database: Option<Location>,
    clock: Clock,
) -> Result<String, ServeError> {
    let db = open(data, database).await?;
    let token = access::new_token(&db, data, clock()).await?;
    db.close().await;
    Ok(token)
}

/// A link by which a user of a data folder chooses a password, good once and for a quarter of an
/// hour. The controller may be running.
pub async fn new_link(
    data: &Path,
    database: Option<Location>,
    user: &str,
    clock: Clock,
) -> Result<String, ServeError> {
    let db = open(data, database).await?;
    let path = access::new_link(&db, user, clock()).await;
    db.close().await;
    let endpoint = data.join(ENDPOINT_FILE);
    let url = fs::read_to_string(&endpoint).map_err(|source| ServeError::File {
        doing: "read",
        path: endpoint,
        source,
    })?;
    Ok(format!("{}{}", url.trim(), path?))
}

async fn run(
    fleet: Arc<Fleet>,
    listener: tokio::net::TcpListener,
    (tls, shown, source): (Arc<rustls::ServerConfig>, Arc<Shown>, Source),
    router: Router,
    stopped: watch::Receiver<bool>,
    lock: File,
    retention: Retention,
) {
    tokio::select! {
        () = server::run(listener, tls, router, fleet.access.limits, stopped) => {}
        () = listener::keep(&shown, &source, &fleet.pki, fleet.clock()) => {}
        () = fleet.keep() => {}
        () = fleet.access.keep(fleet.clock()) => {}
        () = crate::rollout::drive::keep(&fleet) => {}
        () = upkeep::keep(&fleet, &retention) => {}
        () = crate::alerts::keep(&fleet, &shown) => {}
    }
    if let Err(e) = fleet.store_seen().await {
        tracing::error!("{}", model::chain(&e));
    }
    fleet.db.close().await;
    drop(lock);
}

fn router(fleet: &Arc<Fleet>, stopped: watch::Receiver<bool>, adam: bool) -> Router {
    let mut devices = device_api::routes();
    let mut router = Router::new();
    if adam {
        let requests = adam::Requests::default();
        let noted = (fleet.clone(), requests.clone());
        devices = devices.layer(middleware::from_fn_with_state(noted, adam::note_request));
        router = router.nest("/admin", adam::routes(fleet, requests, stopped.clone()));
    }
    router
        .nest("/api/v2/edgedevice", devices)
        .nest("/api/operator/v1", operator::routes(fleet))
        .route("/healthz", get(upkeep::healthz))
        .route("/readyz", get(upkeep::readyz))
        .layer(axum::Extension(upkeep::Ready::default()))
        .route("/v2", get(registry::ping))
        .route("/v2/", get(registry::ping))
        .route("/v2/token", get(registry::token))
        .route("/images/{*name}", any(registry::file))
        .route("/v2/{*path}", any(registry::serve))
        .merge(web::routes(fleet, stopped))
        .layer(middleware::map_response(hardened))
        .with_state(fleet.clone())
}

/// What every answer says to browsers: guess nothing. No HSTS: on `localhost` it would also hold for
/// the pages of apps, which speak plain HTTP on other ports.
async fn hardened(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A database on a server, if this folder may serve it: one without any keys cannot have the root that
/// the nodes of a fleet trust, nor the key of its secrets.
async fn answering(database: &Location, data: &Path, files: &PkiFiles) -> Result<Db, ServeError> {
    let db = Db::open(database).await?;
    if Pki::is_in(data) {
        return Ok(db);
    }
    if files.ca.is_none() && db.noted(ROOT).await?.is_some() {
        return Err(ServeError::OtherRoot(database.clone()));
    }
    db.has_no_secrets().await?;
    Ok(db)
}

/// All controllers of a PostgreSQL database must have one root: a node that learnt another one would
/// believe only some of them.
async fn same_root(db: &Db, database: &Location, pki: &Pki) -> Result<(), ServeError> {
    let noted = match database {
        Location::Postgres(_) => db.noted(ROOT).await?,
        Location::File(_) => None,
    };
    match noted {
        Some(first) if first != root_of(pki) => Err(ServeError::OtherRoot(database.clone())),
        _ => Ok(()),
    }
}

/// Notes the root of the first one, when nothing speaks against its being that: it stays.
async fn note_root(db: &Db, database: &Location, pki: &Pki) -> Result<(), ServeError> {
    if matches!(database, Location::Postgres(_)) {
        db.meta(ROOT, || root_of(pki)).await?;
        same_root(db, database, pki).await?;
    }
    Ok(())
}

fn root_of(pki: &Pki) -> Vec<u8> {
    pki.root.cert_pem.trim().as_bytes().to_vec()
}

/// One controller a folder.
fn lock(data: &Path) -> Result<File, ServeError> {
    let path = data.join("lock");
    let open = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = open.map_err(|source| ServeError::File { doing: "open", path, source })?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(_) => Err(ServeError::InUse(data.to_owned())),
    }
}

fn local_url(names: &[String], address: SocketAddr) -> String {
    let host = if address.ip().is_loopback() || address.ip().is_unspecified() {
        let local = ["localhost", "127.0.0.1"].into_iter().find(|l| names.iter().any(|n| n == l));
        local.map(str::to_owned).or_else(|| names.first().cloned())
    } else {
        None
    };
    let host = host.unwrap_or_else(|| match address.ip() {
        std::net::IpAddr::V6(v6) => format!("[{v6}]"),
        std::net::IpAddr::V4(v4) => v4.to_string(),
    });
    format!("https://{host}:{}", address.port())
}
