//! Fetching content into a store: OCI images from a registry (OCI distribution spec, pull), files
//! from a web server.
//!
//! Anonymous or as a user, with bearer tokens where a registry wants them. A connection that breaks is taken up
//! where it broke. Bytes go straight into a [`BlobWriter`], which shows a blob only when its digest
//! is right; what was announced bounds what is read.

use std::io::Write;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::desired::Credentials;
use model::{Bytes, Diagnose, Diagnosis, Digest, Who};
use serde::Deserialize;
use store::{
    BlobWriter, Descriptor, Index, Layout, MANIFEST_MAX, Manifest, Platform, StoreError, media_type,
};
use tokio::sync::Mutex;

use crate::http::{Client, Download, HttpError, Request, Response, shown};

/// A broken transfer is taken up so often in a row without a new byte.
const TRIES: u32 = 5;
/// Before it is taken up; doubles.
const PAUSE: Duration = Duration::from_millis(300);
/// A token is a signed text; registries' take 1 to 6 KiB.
const TOKEN_MAX: usize = 64 << 10;

/// One registry, spoken to over TLS.
#[derive(Debug)]
pub struct Registry {
    client: Client,
    host: String,
    login: Option<Credentials>,
    /// What proves us, as the header has it.
    proof: Mutex<Option<String>>,
}

/// What to pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// `library/nginx`
    pub repository: String,
    /// A tag, or `sha256:…`.
    pub reference: String,
}

/// What an image must fulfil.
#[derive(Debug, Clone)]
pub struct Demands {
    /// For which machine.
    pub platform: Platform,
    /// What its manifest (or the index in front of it) must hash to.
    pub digest: Option<Digest>,
    /// All its blobs together, as stored.
    pub max: Bytes,
}

/// Why content could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The text names no image.
    #[error("{0:?} is no name of an image (repository:tag or repository@sha256:…)")]
    Name(String),
    /// The server could not be spoken to.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The server says no.
    #[error("{host} answers {what} with {reason}")]
    Status {
        /// Which server.
        host: String,
        /// What was asked for.
        what: String,
        /// Its status.
        status: u16,
        /// In words.
        reason: String,
    },
    /// The registry wants a token and gives none.
    #[error("{host} gives no token: {why}")]
    Token {
        /// Which registry.
        host: String,
        /// What is wrong.
        why: String,
    },
    /// The content is not what it should be, or could not be stored.
    #[error("cannot store {what}")]
    Store {
        /// What was being fetched.
        what: String,
        /// Why.
        source: StoreError,
    },
    /// It could not be written.
    #[error("cannot write {what}")]
    Write {
        /// What was being fetched.
        what: String,
        /// Why.
        source: std::io::Error,
    },
    /// More bytes than announced, or than allowed.
    #[error("{what} is larger than {limit}")]
    TooLarge {
        /// What was being fetched.
        what: String,
        /// The most we take.
        limit: Bytes,
    },
    /// The index has no manifest for this machine.
    #[error("image {image} has no manifest for {want}")]
    NoPlatform {
        /// Which image.
        image: String,
        /// What this machine is.
        want: String,
    },
}

impl Diagnose for FetchError {
    fn diagnose(&self) -> Diagnosis {
        use Who::{Network, Operator};
        match self {
            Self::Name(_) => Diagnosis::of(Operator, "correct the content's url"),
            Self::Http(e) => e.diagnose(),
            Self::Status { status: 404, .. } => {
                Diagnosis::of(Operator, "correct the image's name, or push the image")
            }
            Self::Status { status: 401 | 403, .. } | Self::Token { .. } => {
                Diagnosis::of(Operator, "let the node read from this datastore")
            }
            Self::Status { .. } => Diagnosis::of(Network, "look at the datastore"),
            Self::Store { source, .. } => source.diagnose(),
            Self::Write { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                Diagnosis::of(Operator, "free space on the node's disk, or give it more")
            }
            Self::Write { .. } => Diagnosis::of(Who::Hardware, "check the node's disk"),
            Self::TooLarge { .. } => {
                Diagnosis::of(Operator, "allow a larger size, or use a smaller image")
            }
            Self::NoPlatform { .. } => {
                Diagnosis::of(Operator, "choose an image built for this architecture")
            }
        }
    }
}

impl Name {
    /// Reads `repository:tag` or `repository@sha256:…`; without either the tag is `latest`.
    pub fn parse(text: &str) -> Result<Name, FetchError> {
        let bad = || FetchError::Name(text.chars().take(200).collect());
        let (repository, reference) = if let Some((repository, digest)) = text.split_once('@') {
            digest.parse::<Digest>().map_err(|_| bad())?;
            // A tag beside a digest is for people.
            let repository = repository.rsplit_once(':').map_or(repository, |(r, _)| r);
            (repository, digest)
        } else {
            match text.rsplit_once(':') {
                Some((repository, tag)) if !tag.contains('/') => (repository, tag),
                _ => (text, "latest"),
            }
        };
        let repository = repository.trim_matches('/');
        let plain = |t: &str| t.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c));
        let tag = reference.split_once(':').map_or(reference, |(_, hex)| hex);
        if repository.is_empty() || tag.is_empty() || repository.contains("..") {
            return Err(bad());
        }
        if !plain(repository) || !plain(tag) || text.len() > 1024 {
            return Err(bad());
        }
        Ok(Name { repository: repository.to_owned(), reference: reference.to_owned() })
    }
}

impl Registry {
    /// The registry at `host`, which may name a port.
    pub fn new(client: Client, host: impl Into<String>) -> Registry {
        Registry { client, host: host.into(), login: None, proof: Mutex::new(None) }
    }

    /// The same for someone whom the registry knows. What proves us is sent over TLS only, and when
    /// the registry asks for it: to itself, or to the token service that it names.
    #[must_use]
    pub fn known_as(self, login: Option<Credentials>) -> Registry {
        Registry { login, ..self }
    }

    /// Fetches an image, all blobs, and returns its manifest's descriptor and its size as stored.
    /// The caller names it ([`Layout::tag`]), lest its blobs be garbage. `progress` is told bytes
    /// that are here and bytes in all.
    pub async fn pull(
        &self,
        layout: &Layout,
        name: &Name,
        demands: &Demands,
        progress: &(dyn Fn(Bytes, Bytes) + Sync),
    ) -> Result<(Descriptor, Bytes), FetchError> {
        let target = self.manifest(layout, name, &name.reference, demands.digest).await?;
        let of_platform = if media_type::is_index(&target.media_type) {
            let index = read(layout, &target, Index::parse)?;
            let fits =
                |d: &&Descriptor| d.platform.as_ref().is_some_and(|p| demands.platform.runs(p));
            let found =
                index.manifests.iter().find(fits).ok_or_else(|| FetchError::NoPlatform {
                    image: format!("{}:{}", name.repository, name.reference),
                    want: demands.platform.to_string(),
                })?;
            let digest = found.digest;
            self.manifest(layout, name, &digest.to_string(), Some(digest)).await?
        } else {
            target
        };
        let manifest = read(layout, &of_platform, Manifest::parse)?;
        let total = manifest.stored_size();
        if total > demands.max {
            let what = format!("image {}", name.repository);
            return Err(FetchError::TooLarge { what, limit: demands.max });
        }
        let mut before = Bytes(0);
        progress(before, total);
        for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
            if !layout.has(&blob.digest, Some(blob.size)) {
                self.blob(layout, name, blob, &|here| progress(Bytes(before.0 + here.0), total))
                    .await?;
            }
            before = Bytes(before.0 + blob.size.0);
            progress(before, total);
        }
        // An image without an index says only in its configuration for whom it is.
        let what = format!("{}:{}", name.repository, name.reference);
        let fits = layout.for_platform(&what, &of_platform, &demands.platform);
        fits.map(|target| (target, total)).map_err(|source| FetchError::Store { what, source })
    }

    async fn manifest(
        &self,
        layout: &Layout,
        name: &Name,
        reference: &str,
        expected: Option<Digest>,
    ) -> Result<Descriptor, FetchError> {
        let path = format!("{}/manifests/{reference}", name.repository);
        let accept = [
            media_type::INDEX,
            media_type::MANIFEST,
            media_type::DOCKER_INDEX,
            media_type::DOCKER_MANIFEST,
        ];
        let answer = self.get(&path, &[("accept", accept.join(", "))]).await?;
        let kind = answer.headers.get("content-type").and_then(|v| v.to_str().ok());
        let kind = kind.unwrap_or(media_type::MANIFEST).to_owned();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_owned();
        let limit = usize::try_from(MANIFEST_MAX.0).unwrap_or(usize::MAX);
        let bytes = answer.whole(limit).await?;

        let what = format!("manifest {}:{reference}", name.repository);
        let stored = |source| FetchError::Store { what: what.clone(), source };
        let write = |source| FetchError::Write { what: what.clone(), source };
        let mut writer = layout.blob_writer().map_err(stored)?;
        writer.write_all(&bytes).map_err(write)?;
        // A reference by digest is a promise as good as that of the config.
        let expected = expected.or_else(|| reference.parse().ok());
        let (digest, size) = commit(writer, expected, MANIFEST_MAX).await.map_err(stored)?;
        Ok(Descriptor::new(&kind, digest, size))
    }

    async fn blob(
        &self,
        layout: &Layout,
        name: &Name,
        blob: &Descriptor,
        progress: &(dyn Fn(Bytes) + Sync),
    ) -> Result<(), FetchError> {
        let path = format!("{}/blobs/{}", name.repository, blob.digest);
        let what = format!("blob {}", blob.digest);
        let source = Source::Registry { registry: self, path: &path };
        let writer = transfer(layout, &what, blob.size, &source, progress).await?;
        let committed = commit(writer, Some(blob.digest), blob.size).await;
        committed.map(drop).map_err(|source| FetchError::Store { what, source })
    }

    async fn get(
        &self,
        path: &str,
        headers: &[(&'static str, String)],
    ) -> Result<Download, FetchError> {
        let url = format!("https://{}/v2/{path}", self.host);
        let mut asked_for_token = false;
        loop {
            let mut request = Request::get(url.as_str(), 0);
            request.headers.extend(headers.iter().cloned());
            if let Some(proof) = self.proof.lock().await.as_ref() {
                request = request.header("authorization", proof.clone());
            }
            let answer = self.client.open(request).await?;
            match answer.status {
                200 | 206 => return Ok(answer),
                401 if !asked_for_token => {
                    asked_for_token = true;
                    let challenge = answer.headers.get("www-authenticate");
                    let challenge = challenge.and_then(|v| v.to_str().ok()).unwrap_or_default();
                    let proof = match (&self.login, is_basic(challenge)) {
                        (Some(login), true) => basic(login),
                        _ => format!("Bearer {}", self.ask_token(challenge).await?),
                    };
                    *self.proof.lock().await = Some(proof);
                }
                status => return Err(refused(&self.host, path, status)),
            }
        }
    }

    /// A token as the challenge says (`Bearer realm="…",service="…",scope="…"`).
    async fn ask_token(&self, challenge: &str) -> Result<String, FetchError> {
        #[derive(Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
        }
        let none = |why: String| FetchError::Token { host: self.host.clone(), why };
        let url = token_url(challenge)
            .ok_or_else(|| none(format!("its challenge is {:?}", first(challenge))))?;
        let mut request = Request::get(url, TOKEN_MAX);
        if let Some(login) = &self.login {
            request = request.header("authorization", basic(login));
        }
        let answer: Response = self.client.send(request).await?;
        if answer.status != 200 {
            return Err(none(format!("the token service answers {}", answer.reason())));
        }
        let read: Answer = serde_json::from_slice(&answer.body).map_err(|e| none(e.to_string()))?;
        read.token.or(read.access_token).ok_or_else(|| none("the answer holds none".to_owned()))
    }
}

/// Whether a challenge asks for user and password themselves (RFC 7617).
fn is_basic(challenge: &str) -> bool {
    challenge.split_whitespace().next().is_some_and(|scheme| scheme.eq_ignore_ascii_case("basic"))
}

fn basic(login: &Credentials) -> String {
    let pair = format!("{}:{}", login.user.reveal(), login.password.reveal());
    format!("Basic {}", STANDARD.encode(pair))
}

/// A file on a web server, and who we are to it.
#[derive(Debug, Clone, Copy)]
pub struct WebFile<'a> {
    /// Where.
    pub url: &'a str,
    /// Sent as the value of `Authorization`: user, a space, password (so EVE does, where the user of
    /// such a datastore is the name of a scheme). Only over TLS.
    pub login: Option<&'a Credentials>,
}

/// Fetches one file into the store. `expected` and `max` as for a blob.
pub async fn fetch_file(
    client: &Client,
    layout: &Layout,
    file: WebFile<'_>,
    expected: Option<Digest>,
    max: Bytes,
    progress: &(dyn Fn(Bytes) + Sync),
) -> Result<(Digest, Bytes), FetchError> {
    let (source, what) = (Source::Web { client, file }, shown(file.url));
    let writer = transfer(layout, &what, max, &source, progress).await?;
    let stored = commit(writer, expected, max).await;
    stored.map_err(|source| FetchError::Store { what, source })
}

/// Where a body comes from.
enum Source<'a> {
    /// A path of a registry.
    Registry { registry: &'a Registry, path: &'a str },
    /// An address of a web server.
    Web { client: &'a Client, file: WebFile<'a> },
}

impl Source<'_> {
    /// The body from this byte on; from the start if the server knows no ranges.
    async fn open(&self, from: u64) -> Result<Download, FetchError> {
        let range = (from > 0).then(|| ("range", format!("bytes={from}-")));
        match self {
            Source::Registry { registry, path } => registry.get(path, range.as_slice()).await,
            Source::Web { client, file: WebFile { url, login } } => {
                let mut request = Request::get(*url, 0);
                request.headers.extend(range);
                if let Some(login) = login.filter(|_| url.starts_with("https://")) {
                    let proof = format!("{} {}", login.user.reveal(), login.password.reveal());
                    request = request.header("authorization", proof.trim());
                }
                let answer = client.open(request).await?;
                match answer.status {
                    200 | 206 => Ok(answer),
                    status => Err(refused("the server", &shown(url), status)),
                }
            }
        }
    }
}

/// Reads a body to its end, taking it up where it broke.
async fn transfer(
    layout: &Layout,
    what: &str,
    max: Bytes,
    source: &Source<'_>,
    progress: &(dyn Fn(Bytes) + Sync),
) -> Result<BlobWriter, FetchError> {
    let fresh = || {
        let stored = |source| FetchError::Store { what: what.to_owned(), source };
        layout.blob_writer().map_err(stored)
    };
    let mut writer = fresh()?;
    let mut tries = 0;
    loop {
        let had = writer.size();
        let broke = match source.open(had.0).await {
            Ok(mut answer) => {
                // Who does not know ranges begins anew; so do we.
                if had.0 > 0 && answer.status == 200 {
                    writer = fresh()?;
                }
                match copy(&mut answer, &mut writer, what, max, progress).await {
                    Ok(()) => return Ok(writer),
                    Err(e) => e,
                }
            }
            Err(e) => e,
        };
        tries = if writer.size() > had { 1 } else { tries + 1 };
        let again = matches!(broke, FetchError::Http(_))
            || matches!(broke, FetchError::Status { status: 500.., .. });
        if !again || tries >= TRIES {
            return Err(broke);
        }
        tracing::info!(what, at = writer.size().0, "the transfer broke and is taken up: {broke}");
        tokio::time::sleep(PAUSE * 2_u32.pow(tries - 1)).await;
    }
}

async fn copy(
    answer: &mut Download,
    writer: &mut BlobWriter,
    what: &str,
    max: Bytes,
    progress: &(dyn Fn(Bytes) + Sync),
) -> Result<(), FetchError> {
    while let Some(piece) = answer.chunk().await? {
        if writer.size().0 + piece.len() as u64 > max.0 {
            return Err(FetchError::TooLarge { what: what.to_owned(), limit: max });
        }
        let write = |source| FetchError::Write { what: what.to_owned(), source };
        writer.write_all(&piece).map_err(write)?;
        progress(writer.size());
    }
    Ok(())
}

/// Waiting for the disk must not stop everything else in this thread.
async fn commit(
    writer: BlobWriter,
    expected: Option<Digest>,
    max: Bytes,
) -> Result<(Digest, Bytes), StoreError> {
    let done = tokio::task::spawn_blocking(move || writer.commit(expected, max)).await;
    done.unwrap_or_else(|e| {
        let source = std::io::Error::other(e);
        Err(StoreError::Io { doing: "finish", path: "a blob".into(), source })
    })
}

fn read<T>(
    layout: &Layout,
    of: &Descriptor,
    parse: impl Fn(&[u8], &str) -> Result<T, StoreError>,
) -> Result<T, FetchError> {
    let what = format!("manifest {}", of.digest);
    let read = layout.read(&of.digest, MANIFEST_MAX).and_then(|bytes| parse(&bytes, &what));
    read.map_err(|source| FetchError::Store { what, source })
}

fn refused(host: &str, what: &str, status: u16) -> FetchError {
    let known = hyper::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason());
    let reason = format!("{status} {}", known.unwrap_or_default()).trim_end().to_owned();
    FetchError::Status { host: host.to_owned(), what: what.to_owned(), status, reason }
}

/// Where a bearer challenge sends us.
fn token_url(challenge: &str) -> Option<String> {
    let rest = challenge.trim().strip_prefix("Bearer ")?;
    let value = |key: &str| {
        let at = rest.find(&format!("{key}=\""))? + key.len() + 2;
        rest[at..].split('"').next()
    };
    let realm = value("realm").filter(|r| r.starts_with("https://"))?;
    let query: Vec<String> = ["service", "scope"]
        .iter()
        .filter_map(|key| Some(format!("{key}={}", escape(value(key)?))))
        .collect();
    let mark = if realm.contains('?') { '&' } else { '?' };
    Some(format!("{realm}{mark}{}", query.join("&")))
}

/// Percent-encoding of everything but the unreserved characters of RFC 3986, and `/` and `:`.
fn escape(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/:".contains(&b);
    let one = |b: u8| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") };
    text.bytes().map(one).collect()
}

fn first(text: &str) -> String {
    text.chars().take(120).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex as Seen;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use model::Secret;

    use super::*;
    use crate::http::{Resolver, Trust};

    #[test]
    fn names_are_read_as_registries_mean_them() {
        let hex = "0a".repeat(32);
        for (text, repository, reference) in [
            ("hello", "hello", "latest"),
            ("library/nginx:1.27", "library/nginx", "1.27"),
            (&format!("a/b@sha256:{hex}"), "a/b", &format!("sha256:{hex}")),
            (&format!("a/b:1@sha256:{hex}"), "a/b", &format!("sha256:{hex}")),
        ] {
            let name = Name::parse(text).unwrap();
            assert_eq!(
                (name.repository.as_str(), name.reference.as_str()),
                (repository, reference)
            );
        }
        for bad in ["", ":x", "a b", "a@md5:00", "../x:1", "a:x?y"] {
            assert!(Name::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn challenges_lead_to_the_token_service_over_tls_only() {
        let challenge = r#"Bearer realm="https://auth.example/token",service="r",scope="repository:a/b:pull,x""#;
        let want = "https://auth.example/token?service=r&scope=repository:a/b:pull%2Cx";
        assert_eq!(token_url(challenge).as_deref(), Some(want));
        for bad in ["", "Basic realm=\"x\"", "Bearer realm=\"http://auth.example/\"", "Bearer "] {
            assert_eq!(token_url(bad), None, "{bad}");
        }
    }

    /// A server that sends `body`, but breaks after `piece` bytes of each answer. Returns its
    /// address and what it was asked for.
    async fn breaking(
        body: &'static [u8],
        piece: usize,
        ranges: bool,
    ) -> (String, std::sync::Arc<Seen<Vec<String>>>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/file", listener.local_addr().unwrap());
        let seen = std::sync::Arc::new(Seen::new(Vec::new()));
        let log = seen.clone();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut asked = vec![0; 4096];
                let n = stream.read(&mut asked).await.unwrap();
                let text = String::from_utf8_lossy(&asked[..n]).into_owned();
                let range = text.lines().find_map(|l| l.strip_prefix("range: bytes="));
                let from: usize = range
                    .and_then(|r| r.trim_end_matches('-').parse().ok())
                    .filter(|_| ranges)
                    .unwrap_or(0);
                log.lock().unwrap().push(range.unwrap_or("all").to_owned());
                let status = if from > 0 { "206 Partial" } else { "200 OK" };
                let head =
                    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", body.len() - from);
                let _ = stream.write_all(head.as_bytes()).await;
                let end = (from + piece).min(body.len());
                let _ = stream.write_all(&body[from..end]).await;
            }
        });
        (url, seen)
    }

    fn parts() -> (tempfile::TempDir, Layout, Client) {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(dir.path()).unwrap();
        let client = Client::new(&Trust::default(), Resolver::of("/nonexistent")).unwrap();
        (dir, layout, client)
    }

    fn web(url: &str) -> WebFile<'_> {
        WebFile { url, login: None }
    }

    #[test]
    fn who_we_are_is_written_as_servers_want_it() {
        let login =
            Credentials { user: Secret::new("Aladdin"), password: Secret::new("open sesame") };
        // The example of RFC 7617.
        assert_eq!(basic(&login), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert!(is_basic("Basic realm=\"x\"") && is_basic("basic"));
        assert!(!is_basic("Bearer realm=\"https://a\"") && !is_basic(""));
        let client = Client::new(&Trust::default(), Resolver::of("/nonexistent")).unwrap();
        let registry = Registry::new(client, "r").known_as(Some(login));
        assert!(!format!("{registry:?}").contains("sesame"));
    }

    const BODY: &[u8] = b"0123456789abcdef";

    fn digest() -> Digest {
        use sha2::Digest as _;
        Digest(sha2::Sha256::digest(BODY).into())
    }

    #[tokio::test]
    async fn a_broken_transfer_goes_on_where_it_broke() {
        let (_dir, layout, client) = parts();
        let (url, seen) = breaking(BODY, 6, true).await;
        let got = fetch_file(&client, &layout, web(&url), Some(digest()), Bytes(16), &|_| ()).await;
        assert_eq!(got.unwrap(), (digest(), Bytes(16)));
        assert_eq!(*seen.lock().unwrap(), ["all", "6-", "12-"]);
        assert!(layout.has(&digest(), Some(Bytes(16))));
    }

    #[tokio::test]
    async fn wrong_bytes_are_never_visible_and_are_told_by_both_digests() {
        let (_dir, layout, client) = parts();
        let (url, _) = breaking(BODY, 99, true).await;
        let want = Digest([7; 32]);
        let wrong = fetch_file(&client, &layout, web(&url), Some(want), Bytes(16), &|_| ()).await;
        let told = model::chain(&wrong.unwrap_err());
        assert!(told.contains(&want.to_string()) && told.contains(&digest().to_string()), "{told}");
        assert!(!layout.has(&want, None) && !layout.has(&digest(), None));
    }

    #[tokio::test]
    async fn more_than_allowed_is_refused() {
        let (_dir, layout, client) = parts();
        let (url, _) = breaking(BODY, 99, true).await;
        let refused = fetch_file(&client, &layout, web(&url), None, Bytes(15), &|_| ()).await;
        assert!(matches!(refused, Err(FetchError::TooLarge { .. })));
    }

    #[tokio::test]
    async fn a_server_without_ranges_is_given_up_after_some_tries() {
        let (_dir, layout, client) = parts();
        let (url, seen) = breaking(BODY, 6, false).await;
        let broken = fetch_file(&client, &layout, web(&url), None, Bytes(16), &|_| ()).await;
        assert!(matches!(broken, Err(FetchError::Http(_))));
        assert_eq!(seen.lock().unwrap().len(), usize::try_from(TRIES).unwrap());
    }
}
