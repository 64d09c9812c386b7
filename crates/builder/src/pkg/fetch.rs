//! Getting files from a mirror: checked while they are written, resumed when the line breaks.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use model::{Bytes, Digest};
use sha2::{Digest as _, Sha256};

/// Why a file could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The mirror has no such file (any more).
    #[error("{url} is not there")]
    Missing {
        /// What.
        url: String,
    },
    /// The mirror does not answer, or not as it should.
    #[error("cannot get {url}")]
    Unreachable {
        /// What.
        url: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The mirror sent something else.
    #[error("{url} has SHA-256 {got}, not {want}")]
    Wrong {
        /// What.
        url: String,
        /// What it should be.
        want: Digest,
        /// What it is.
        got: Digest,
    },
    /// It is longer than it may be.
    #[error("{url} is longer than {max}")]
    TooLong {
        /// What.
        url: String,
        /// What it may be.
        max: Bytes,
    },
    /// The file could not be kept here.
    #[error("cannot write {path}")]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Connecting may take so long.
const CONNECT: Duration = Duration::from_secs(15);
/// The first byte of an answer may take so long.
const ANSWER: Duration = Duration::from_secs(30);
/// One answer may take so long; the rest is then asked for anew.
const PATIENCE: Duration = Duration::from_secs(60);
/// After so many answers without a byte we give up.
const TRIES: u32 = 3;

/// A text from the web, whole. Refuses what is longer than `max` or no UTF-8.
pub fn fetch_text(url: &str, max: Bytes) -> Result<String, FetchError> {
    let bytes = Client::of_host().get(url, max)?;
    String::from_utf8(bytes)
        .map_err(|source| FetchError::Unreachable { url: url.to_owned(), source: source.into() })
}

/// A client for mirrors. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Client {
    agent: ureq::Agent,
}

impl Client {
    /// A client that trusts the host's certificates and uses its proxies: `http_proxy` and its kin,
    /// else those of apt.
    pub(super) fn of_host() -> Client {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let roots = fs::read("/etc/ssl/certs/ca-certificates.crt").unwrap_or_default();
        let roots = ureq::tls::parse_pem(&roots).filter_map(|item| match item {
            Ok(ureq::tls::PemItem::Certificate(cert)) => Some(cert),
            _ => None,
        });
        let tls = ureq::tls::TlsConfig::builder()
            .provider(ureq::tls::TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(provider)
            .root_certs(ureq::tls::RootCerts::new_with_certs(&roots.collect::<Vec<_>>()))
            .build();
        let proxy = ureq::Proxy::try_from_env().or_else(|| {
            let apt = super::mirror::proxy_of_host(Path::new("/etc/apt"), "http")?;
            ureq::Proxy::new(&apt).ok()
        });
        let config = ureq::Agent::config_builder()
            .tls_config(tls)
            .proxy(proxy)
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(ANSWER))
            .user_agent("eve-pkg")
            .build();
        Client { agent: config.new_agent() }
    }

    /// A small file, whole.
    pub(super) fn get(&self, url: &str, max: Bytes) -> Result<Vec<u8>, FetchError> {
        let mut bytes = Vec::new();
        self.read(url, max, &mut bytes, &mut |_| {})?;
        Ok(bytes)
    }

    /// A file of known content into `dir/<digest>`, where it appears only when it is whole. One
    /// that is there is not fetched again. `seen` hears how many bytes arrived.
    pub(super) fn keep(
        &self,
        url: &str,
        (want, size): (Digest, Bytes),
        dir: &Path,
        seen: &mut dyn FnMut(Bytes),
    ) -> Result<PathBuf, FetchError> {
        let path = dir.join(want.hex());
        let write = |source| FetchError::Write { path: path.clone(), source };
        if path.exists() {
            return Ok(path);
        }
        fs::create_dir_all(dir).map_err(write)?;
        let part = dir.join(format!(".{}.part", want.hex()));
        let mut out = Part::open(&part).map_err(write)?;
        if path.exists() {
            return Ok(path); // somebody else was faster while we waited for the lock
        }
        let outcome = self.read(url, size, &mut out, seen).and_then(|()| {
            let got = Digest(out.hash.clone().finalize().into());
            if got != want {
                return Err(FetchError::Wrong { url: url.to_owned(), want, got });
            }
            out.file.sync_all().map_err(write)?;
            fs::rename(&part, &path).map_err(write)?;
            File::open(dir).and_then(|d| d.sync_all()).map_err(write)
        });
        match outcome {
            // What came so far is good, and the next try goes on from there.
            Err(e @ FetchError::Unreachable { .. }) => Err(e),
            Err(e) => {
                let _ = fs::remove_file(&part); // the first error is the one to tell
                Err(e)
            }
            Ok(()) => Ok(path),
        }
    }

    fn read(
        &self,
        url: &str,
        max: Bytes,
        out: &mut dyn Sink,
        seen: &mut dyn FnMut(Bytes),
    ) -> Result<(), FetchError> {
        if let Some(path) = url.strip_prefix("file:") {
            return read_file(url, Path::new(path), max, out, seen);
        }
        let mut patience = PATIENCE;
        let mut failed = 0;
        loop {
            let before = out.have();
            let error = match self.once(url, max, out, seen, patience) {
                Ok(()) => return Ok(()),
                Err(Stop::For(error)) => return Err(error),
                Err(Stop::Restarted(error)) => {
                    patience *= 2; // a mirror that cannot resume needs longer answers
                    error
                }
                Err(Stop::Again(error)) => error,
            };
            failed = if out.have() > before { 0 } else { failed + 1 };
            if failed >= TRIES {
                return Err(FetchError::Unreachable { url: url.to_owned(), source: error });
            }
            std::thread::sleep(Duration::from_millis(250 << failed));
        }
    }

    /// One request for what is still missing.
    fn once(
        &self,
        url: &str,
        max: Bytes,
        out: &mut dyn Sink,
        seen: &mut dyn FnMut(Bytes),
        patience: Duration,
    ) -> Result<(), Stop> {
        let have = out.have();
        let mut request = self.agent.get(url);
        if have.0 > 0 {
            request = request.header("Range", format!("bytes={}-", have.0));
        }
        let request = request.config().timeout_recv_body(Some(patience)).build();
        let mut answer = request.call().map_err(|e| match e {
            ureq::Error::BadUri(_) | ureq::Error::Tls(_) => Stop::For(unreachable(url, e)),
            e => Stop::Again(Box::new(e)),
        })?;
        let restarted = match answer.status().as_u16() {
            200 if have.0 > 0 => {
                out.restart().map_err(|e| Stop::For(unreachable(url, e)))?;
                true
            }
            200 | 206 => false,
            // Nothing is left to send: the part is whole, or too long, which the digest tells.
            416 if have.0 > 0 => return Ok(()),
            404 | 410 => return Err(Stop::For(FetchError::Missing { url: url.to_owned() })),
            status @ (429 | 500..=599) => {
                return Err(Stop::Again(format!("the mirror answers {status}").into()));
            }
            status => {
                let source = format!("the mirror answers {status}").into();
                return Err(Stop::For(FetchError::Unreachable { url: url.to_owned(), source }));
            }
        };
        match copy(url, max, answer.body_mut().as_reader(), out, seen) {
            Err(Stop::Again(error)) if restarted => Err(Stop::Restarted(error)),
            other => other,
        }
    }
}

/// Why one request was not the last, or was.
#[derive(Debug)]
enum Stop {
    /// Nothing would help.
    For(FetchError),
    /// The line broke.
    Again(Box<dyn std::error::Error + Send + Sync>),
    /// The line broke, and the mirror had begun from the start.
    Restarted(Box<dyn std::error::Error + Send + Sync>),
}

fn unreachable(url: &str, e: impl std::error::Error + Send + Sync + 'static) -> FetchError {
    FetchError::Unreachable { url: url.to_owned(), source: Box::new(e) }
}

fn copy(
    url: &str,
    max: Bytes,
    mut body: impl Read,
    out: &mut dyn Sink,
    seen: &mut dyn FnMut(Bytes),
) -> Result<(), Stop> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let n = match body.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(Stop::Again(Box::new(e))),
        };
        if out.have().0 + n as u64 > max.0 {
            return Err(Stop::For(FetchError::TooLong { url: url.to_owned(), max }));
        }
        out.put(&buffer[..n])
            .map_err(|source| Stop::For(FetchError::Write { path: out.place(), source }))?;
        seen(Bytes(n as u64));
    }
}

fn read_file(
    url: &str,
    path: &Path,
    max: Bytes,
    out: &mut dyn Sink,
    seen: &mut dyn FnMut(Bytes),
) -> Result<(), FetchError> {
    let file = File::open(path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => FetchError::Missing { url: url.to_owned() },
        _ => unreachable(url, e),
    })?;
    out.restart().map_err(|e| unreachable(url, e))?;
    copy(url, max, BufReader::new(file), out, seen).map_err(|stop| match stop {
        Stop::For(error) => error,
        Stop::Again(source) | Stop::Restarted(source) => {
            FetchError::Unreachable { url: url.to_owned(), source }
        }
    })
}

/// Where bytes go.
trait Sink {
    fn have(&self) -> Bytes;
    fn put(&mut self, bytes: &[u8]) -> io::Result<()>;
    fn restart(&mut self) -> io::Result<()>;
    fn place(&self) -> PathBuf;
}

impl Sink for Vec<u8> {
    fn have(&self) -> Bytes {
        Bytes(self.len() as u64)
    }
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.extend_from_slice(bytes);
        Ok(())
    }
    fn restart(&mut self) -> io::Result<()> {
        self.clear();
        Ok(())
    }
    fn place(&self) -> PathBuf {
        PathBuf::from("memory")
    }
}

/// A file that is not whole yet, locked against others who want the same.
struct Part {
    path: PathBuf,
    file: File,
    hash: Sha256,
    have: Bytes,
}

impl Part {
    /// Opens or goes on with it.
    fn open(path: &Path) -> io::Result<Part> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        file.lock()?;
        let mut part = Part { path: path.to_owned(), file, hash: Sha256::new(), have: Bytes(0) };
        let mut buffer = vec![0; 64 << 10];
        loop {
            let n = part.file.read(&mut buffer)?;
            if n == 0 {
                return Ok(part);
            }
            part.hash.update(&buffer[..n]);
            part.have.0 += n as u64;
        }
    }
}

impl Sink for Part {
    fn have(&self) -> Bytes {
        self.have
    }
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hash.update(bytes);
        self.have.0 += bytes.len() as u64;
        Ok(())
    }
    fn restart(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.hash = Sha256::new();
        self.have = Bytes(0);
        Ok(())
    }
    fn place(&self) -> PathBuf {
        self.path.clone()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io::BufRead;
    use std::net::TcpListener;

    /// A server on loopback that gives each request to `answer` (its path and where its range
    /// begins) and writes what comes back. It lives as long as the test process.
    pub(crate) fn serve(
        answer: impl Fn(&str, usize) -> Vec<u8> + Send + Sync + 'static,
    ) -> io::Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}", listener.local_addr()?);
        let answer = Arc::new(answer);
        std::thread::spawn(move || {
            for stream in listener.incoming().filter_map(Result::ok) {
                let answer = Arc::clone(&answer);
                std::thread::spawn(move || {
                    let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
                    let first = lines.next().unwrap_or_default();
                    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
                    let head: Vec<String> = lines.take_while(|l| !l.is_empty()).collect();
                    let range = head.iter().find_map(|l| {
                        let (key, value) = l.split_once(": bytes=")?;
                        key.eq_ignore_ascii_case("range")
                            .then(|| value.trim_end_matches('-').parse())
                    });
                    let from = range.and_then(Result::ok).unwrap_or(0);
                    let _ = (&stream).write_all(&answer(&path, from));
                });
            }
        });
        Ok(url)
    }

    /// An answer that promises `len` bytes and sends `body`.
    pub(crate) fn http(status: &str, len: usize, body: &[u8]) -> Vec<u8> {
        let mut out =
            format!("HTTP/1.1 {status}\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n")
                .into_bytes();
        out.extend_from_slice(body);
        out
    }

    fn digest(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }

    #[track_caller]
    fn keep(url: &str, body: &[u8], dir: &Path) -> Result<PathBuf, FetchError> {
        let want = (digest(body), Bytes(body.len() as u64));
        Client::of_host().keep(&format!("{url}/x"), want, dir, &mut |_| {})
    }

    #[test]
    fn a_broken_line_is_resumed_and_the_whole_is_right() {
        let body: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
        let full = body.clone();
        let url = serve(move |_, from| {
            // Each answer breaks off after 150,000 bytes.
            let end = (from + 150_000).min(full.len());
            let status = if from == 0 { "200 OK" } else { "206 Partial Content" };
            http(status, full.len() - from, &full[from..end])
        })
        .unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = keep(&url, &body, dir.path()).unwrap();
        assert_eq!(fs::read(path).unwrap(), body);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_kept_is_not_asked_for_again() {
        let dir = tempfile::tempdir().unwrap();
        store::save(dir.path(), &digest(b"abc").hex(), b"abc").unwrap();
        keep("http://127.0.0.1:1", b"abc", dir.path()).unwrap();
    }

    #[test]
    fn another_content_is_refused_and_leaves_nothing() {
        let url = serve(|_, _| http("200 OK", 3, b"abd")).unwrap();
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(keep(&url, b"abc", dir.path()), Err(FetchError::Wrong { .. })));
        let url = serve(|_, _| http("200 OK", 4, b"abcd")).unwrap();
        assert!(matches!(keep(&url, b"abc", dir.path()), Err(FetchError::TooLong { .. })));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_is_gone_is_told_from_a_mirror_that_is() {
        let url = serve(|_, _| http("404 Not Found", 0, b"")).unwrap();
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(keep(&url, b"abc", dir.path()), Err(FetchError::Missing { .. })));
        let dead = "http://127.0.0.1:1";
        assert!(matches!(keep(dead, b"abc", dir.path()), Err(FetchError::Unreachable { .. })));
    }
}
