//! For tests: programs that speak as S3 and Azure do, from `cargo xtask setup --for-tests`, and one
//! way to reach them that can be cut. Tests of this crate and those from outside share this file.
//!
//! For Google Cloud Storage there is none that knows multi-part uploads of its XML API; S3's emulator
//! stands in, as that API is S3's but for the way one logs in.

#![expect(clippy::disallowed_methods, reason = "tests start servers of others")]

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;

/// Whose store is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    S3,
    Google,
    Azure,
}

/// The account that Azure's emulator makes, and its key, which its documentation prints.
const ACCOUNT: &str = "devstoreaccount1";
const ACCOUNT_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Makes a container at Azure's emulator: this request must be signed.
const CONTAINER: &str = r#"
import base64, email.utils, hashlib, hmac, http.client, sys
port, account, key = int(sys.argv[1]), sys.argv[2], base64.b64decode(sys.argv[3])
date, path = email.utils.formatdate(usegmt=True), f"/{account}/bucket"
headers = {"x-ms-date": date, "x-ms-version": "2021-12-02", "Content-Length": "0"}
said = f"x-ms-date:{date}\nx-ms-version:2021-12-02\n/{account}{path}\nrestype:container"
mac = hmac.new(key, ("PUT" + "\n" * 12 + said).encode(), hashlib.sha256).digest()
headers["Authorization"] = f"SharedKey {account}:{base64.b64encode(mac).decode()}"
connection = http.client.HTTPConnection("127.0.0.1", port)
connection.request("PUT", path + "?restype=container", headers=headers)
sys.exit(connection.getresponse().status not in (201, 409))
"#;

/// An emulator that runs. Ends with its value.
#[derive(Debug)]
pub(crate) struct Emulator {
    store: Store,
    program: Child,
    gate: Gate,
    dir: PathBuf,
}

impl Emulator {
    /// Starts one that keeps what it needs in `dir`, with an empty bucket. `None`: its program is not
    /// there, and the test is left out; with `EVE_JUDGES` set that is a failure.
    pub(crate) fn start(store: Store, dir: &Path) -> Option<Emulator> {
        let named = std::env::var_os("EVE_JUDGES").map(PathBuf::from);
        let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/judges");
        let judges = named.clone().unwrap_or(ours);
        let program = match store {
            Store::S3 | Store::Google => judges.join("bin/moto_server"),
            Store::Azure => judges.join("node_modules/.bin/azurite-blob"),
        };
        if named.is_none() && !program.exists() {
            println!(
                "left out: there is no {}; `cargo xtask setup --for-tests`",
                program.display()
            );
            return None;
        }
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let at = port.to_string();
        let mut command = Command::new(&program);
        match store {
            Store::S3 | Store::Google => command.args(["-H", "127.0.0.1", "-p", &at]),
            Store::Azure => command
                .args(["--silent", "--skipApiVersionCheck", "--blobHost", "127.0.0.1"])
                .args(["--blobPort", &at, "--location"])
                .arg(dir.join("azurite")),
        };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let program = command.spawn().unwrap();
        let emulator = Emulator { store, program, gate: Gate::before(port), dir: dir.to_owned() };
        for _ in 0..600 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        match store {
            Store::S3 | Store::Google => put_bucket(port).unwrap(),
            Store::Azure => {
                let python = judges.join("bin/python");
                let made = Command::new(python)
                    .args(["-c", CONTAINER, &at, ACCOUNT, ACCOUNT_KEY])
                    .status();
                assert!(made.unwrap().success(), "cannot make a container");
            }
        }
        Some(emulator)
    }

    /// What `--blobs` takes.
    pub(crate) fn url(&self) -> String {
        let endpoint = format!("http://127.0.0.1:{}", self.gate.port);
        let (url, keys) = match self.store {
            Store::S3 => (
                format!("s3://bucket/eve/one?endpoint={endpoint}&region=us-east-1"),
                "AWS_ACCESS_KEY_ID=tester\nAWS_SECRET_ACCESS_KEY=secret\n".to_owned(),
            ),
            Store::Google => (
                format!("gs://bucket/eve/one?endpoint={endpoint}"),
                format!("GOOGLE_SERVICE_ACCOUNT_KEY={}\n", service_account()),
            ),
            Store::Azure => (
                format!("az://bucket/eve/one?account={ACCOUNT}&endpoint={endpoint}/{ACCOUNT}"),
                format!("AZURE_STORAGE_ACCOUNT_KEY={ACCOUNT_KEY}\n"),
            ),
        };
        let file = self.dir.join("keys");
        std::fs::write(&file, keys).unwrap();
        format!("{url}&keys={}", file.display())
    }

    /// Nobody reaches it any more; connections break where they are.
    pub(crate) fn cut(&self) {
        self.gate.open.store(false, Ordering::SeqCst);
        for stream in self.gate.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// It can be reached again.
    pub(crate) fn mend(&self) {
        self.gate.open.store(true, Ordering::SeqCst);
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

/// A service account of Google's with a new key: it signs, and nobody looks at that.
fn service_account() -> String {
    use aws_lc_rs::encoding::AsDer;
    let key = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> = key.as_der().unwrap();
    let key = base64::engine::general_purpose::STANDARD.encode(der.as_ref());
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{key}\n-----END PRIVATE KEY-----\n");
    serde_json::json!({"private_key": pem, "private_key_id": "1", "client_email": "tester@example"})
        .to_string()
}

fn put_bucket(port: u16) -> io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(
        b"PUT /bucket HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(io::Error::other(answer)) }
}

/// A port that leads to another, while it is open.
#[derive(Debug)]
struct Gate {
    port: u16,
    open: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Gate {
    fn before(to: u16) -> Gate {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (open, streams) = (Arc::new(AtomicBool::new(true)), Arc::default());
        let gate = Gate { port, open: Arc::clone(&open), streams: Arc::clone(&streams) };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // One that comes while the gate is shut is dropped.
                if open.load(Ordering::SeqCst) {
                    let _ = stream.and_then(|from| join(from, to, &streams));
                }
            }
        });
        gate
    }
}

fn join(from: TcpStream, to: u16, streams: &Mutex<Vec<TcpStream>>) -> io::Result<()> {
    let to = TcpStream::connect(("127.0.0.1", to))?;
    streams.lock().unwrap().extend([from.try_clone()?, to.try_clone()?]);
    for (mut a, mut b) in [(from.try_clone()?, to.try_clone()?), (to, from)] {
        std::thread::spawn(move || {
            let _ = io::copy(&mut a, &mut b);
            let _ = b.shutdown(Shutdown::Write);
        });
    }
    Ok(())
}
