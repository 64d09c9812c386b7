//! Every recorded file, whatever its keys, ids and times: it is read as what its name says, written
//! again the same, and believed or not. What a file means is tested elsewhere, by name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use api::newlogs::{self, Entry, ServerMetrics};
use api::pb::auth::AuthContainer;
use api::{Certificate, Sender, Signer, SigningKey, certs, envelope, limits, wire};
use model::Bytes;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};

use crate::common::{golden, now, vector, vectors};

/// The tests, to see whether they name a file.
const TESTS: &str = concat!(
    include_str!("attest.rs"),
    include_str!("cipher.rs"),
    include_str!("config.rs"),
    include_str!("envelope.rs"),
    include_str!("info.rs"),
    include_str!("local.rs"),
    include_str!("newlogs.rs"),
    include_str!("telemetry.rs"),
    include_str!("tpm.rs"),
);

fn pool() -> DescriptorPool {
    let bytes = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.pb"));
    DescriptorPool::decode(bytes.as_slice()).unwrap()
}

/// Paths from the folder of the vectors, sorted.
fn files() -> BTreeSet<String> {
    fn walk(root: &Path, folder: &Path, into: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(root, &path, into);
            } else {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap();
                into.insert(name.to_owned());
            }
        }
    }
    let root = vectors();
    let mut all = BTreeSet::new();
    walk(&root, &root, &mut all);
    all
}

/// What a file is, by its name.
#[derive(Debug, PartialEq)]
enum Kind {
    Prose,
    Certificate,
    Key,
    Envelope,
    /// The short name of the message.
    Message(String),
    /// A readable twin of these files.
    Twin(Vec<String>),
    LogFile,
    LogLines,
    ServerMetrics,
    /// Only the tests that name it know.
    Named,
}

fn kind(path: &str, all: &BTreeSet<String>) -> Option<Kind> {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    if name.ends_with(".md") {
        return Some(Kind::Prose);
    }
    if name.ends_with(".key.pem") {
        return Some(Kind::Key);
    }
    if name.ends_with(".pem") {
        return Some(Kind::Certificate);
    }
    if name.ends_with(".AuthContainer.pb") {
        return Some(Kind::Envelope);
    }
    if let Some(stem) = name.strip_suffix(".pb") {
        // Either the message is in the name, or the name is all of it.
        let message = match stem.rsplit_once('.') {
            Some((_, message)) => message,
            None if stem.contains("zcontrollercert") => "ZControllerCert",
            None => match stem {
                "zregistermsg" => "ZRegisterMsg",
                "configrequest" => "ConfigRequest",
                "uuidresponse" => "UuidResponse",
                "ciphercontext" => "CipherContext",
                "bootstrap-config" => "BootstrapConfig",
                _ => return None,
            },
        };
        return Some(Kind::Message(message.to_owned()));
    }
    if name == "server-metrics-response.json" {
        return Some(Kind::ServerMetrics);
    }
    if let Some(stem) = name.strip_suffix(".json") {
        let twins = all.iter().filter(|twin| {
            let twin = twin.strip_prefix(folder).and_then(|t| t.strip_prefix('/'));
            twin.is_some_and(|t| {
                let t = t.strip_prefix("req-").unwrap_or(t);
                t.strip_prefix(stem).is_some_and(|end| end.starts_with('.') && end.ends_with(".pb"))
            })
        });
        let twins: Vec<String> = twins.cloned().collect();
        return Some(if twins.is_empty() { Kind::Named } else { Kind::Twin(twins) });
    }
    if name.ends_with(".gz") {
        return Some(Kind::LogFile);
    }
    if folder == "newlogs" && name.ends_with(".ndjson") {
        return Some(Kind::LogLines);
    }
    [".bin", ".der", ".jwt", ".ndjson"].iter().any(|end| name.ends_with(end)).then_some(Kind::Named)
}

fn descriptor(pool: &DescriptorPool, short: &str) -> MessageDescriptor {
    let found: Vec<MessageDescriptor> = pool.all_messages().filter(|m| m.name() == short).collect();
    let [found] = found.as_slice() else { panic!("{} messages are called {short}", found.len()) };
    found.clone()
}

/// Which message the payload of an envelope is. `None`: none, or a text made for its signature.
fn payload_of(path: &str) -> Option<&'static str> {
    let name = path.rsplit_once('/')?.1;
    let name = name.strip_prefix("neg-").or(name.strip_prefix("ok-")).unwrap_or(name);
    if path.starts_with("attest/") {
        return Some(if name.contains("-req-") { "ZAttestReq" } else { "ZAttestResponse" });
    }
    [
        ("req-config", "ConfigRequest"),
        ("req-uuid", "UuidRequest"),
        ("req-register", "ZRegisterMsg"),
        ("resp-uuid", "UuidResponse"),
        ("resp-certs", "ZControllerCert"),
        ("req-compound-config", "CompoundEdgeDevConfigRequest"),
        ("req-info", "ZInfoMsg"),
        ("req-metrics", "ZMetricMsg"),
        ("req-flowlog", "FlowMessage"),
        ("req-hardwarehealth", "ZHardwareHealth"),
    ]
    .into_iter()
    .find(|(start, _)| name.starts_with(start))
    .map(|(_, message)| message)
    .or(name.contains(".ConfigResponse.").then_some("ConfigResponse"))
}

/// Whose signature it should bear.
fn signer(path: &str) -> Signer {
    let pem = |name: &str| Certificate::from_pem(&vector(&format!("pki/{name}.cert.pem"))).unwrap();
    let name = path.rsplit_once('/').unwrap().1;
    if name.contains("req-register") {
        Signer::device(&pem("onboard")).unwrap()
    } else if name.contains("req-") {
        Signer::device(&pem("device")).unwrap()
    } else {
        let answer = if name.contains("rotated") { "resp-certs-rotated" } else { "resp-certs" };
        let answer = vector(&format!("envelope/{answer}.AuthContainer.pb"));
        let root = vector("pki/root-certificate.pem");
        certs::learn(&answer, &root, now()).unwrap().signer().clone()
    }
}

fn check_message(pool: &DescriptorPool, short: &str, bytes: &[u8]) -> DynamicMessage {
    let message = DynamicMessage::decode(descriptor(pool, short), bytes).unwrap();
    assert_eq!(message.unknown_fields().count(), 0, "fields that our {short} lacks");
    message
}

fn check_envelope(pool: &DescriptorPool, path: &str) {
    let bytes = vector(path);
    let container: AuthContainer = wire::decode(&bytes, limits::CONFIG).unwrap();
    let received = envelope::open(&bytes, limits::CONFIG).unwrap();
    let verified = received.verify(&signer(path)).map(<[u8]>::to_vec);
    // Elsewhere it is the payload that must be refused.
    if path.starts_with("envelope/neg-") {
        assert!(verified.is_err());
        return;
    }
    let payload = verified.unwrap();
    assert_eq!(payload, container.protected_payload.unwrap_or_default().payload);
    if let Some(short) = payload_of(path) {
        check_message(pool, short, &payload);
    }
}

fn check_key(path: &str) {
    let key = SigningKey::from_pem(&vector(path)).unwrap();
    let stem = path.strip_suffix(".key.pem").unwrap();
    let of = if stem.ends_with("/root") {
        format!("{stem}-certificate.pem")
    } else {
        format!("{stem}.cert.pem")
    };
    let certificate = Certificate::from_pem(&vector(&of)).unwrap();
    let body = envelope::sign(b"x", &Sender::device(&key, &certificate)).unwrap();
    let received = envelope::open(&body, limits::ONBOARDING).unwrap();
    received.verify(&Signer::device(&certificate).unwrap()).unwrap();
}

/// The JSON of proto3 says the same as one of the files it is the twin of.
fn check_twin(pool: &DescriptorPool, path: &str, twins: &[String]) {
    let text = vector(path);
    let mut alike = 0;
    for twin in twins {
        let (bytes, short) = match kind(twin, &files()).unwrap() {
            Kind::Message(short) => (vector(twin), short),
            Kind::Envelope => {
                let received = envelope::open(&vector(twin), limits::CONFIG).unwrap();
                let Some(short) = payload_of(twin) else { continue };
                (received.unverified_payload().to_vec(), short.to_owned())
            }
            other => panic!("{twin} is {other:?}"),
        };
        let mut json = serde_json::Deserializer::from_slice(&text);
        let Ok(said) = DynamicMessage::deserialize(descriptor(pool, &short), &mut json) else {
            continue; // the twin of another file of that name
        };
        if said == check_message(pool, &short, &bytes) {
            alike += 1;
        }
    }
    assert!(alike > 0, "{path} says something else than {twins:?}");
}

#[test]
fn every_file_is_what_its_name_says() {
    if !golden() {
        return;
    }
    let (pool, all) = (pool(), files());
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for path in &all {
        println!("{path}"); // seen when it fails
        let kind = kind(path, &all).unwrap_or_else(|| panic!("no test knows what {path} is"));
        let name = format!("{kind:?}");
        *seen.entry(name.split('(').next().unwrap().to_owned()).or_default() += 1;
        match kind {
            Kind::Prose => {}
            Kind::Certificate => drop(Certificate::from_pem(&vector(path)).unwrap()),
            Kind::Key => check_key(path),
            Kind::Envelope => check_envelope(&pool, path),
            Kind::Message(short) => drop(check_message(&pool, &short, &vector(path))),
            Kind::Twin(twins) => check_twin(&pool, path, &twins),
            Kind::LogFile => {
                let file = newlogs::unpack(&vector(path), limits::NEWLOGS_UNPACKED).unwrap();
                assert!(file.entries().count() > 0 && file.entries().all(|e| e.is_ok()));
            }
            Kind::LogLines => {
                for line in String::from_utf8(vector(path)).unwrap().lines() {
                    serde_json::from_str::<Entry>(line).unwrap();
                }
            }
            Kind::ServerMetrics => {
                let metrics = ServerMetrics::from_body(&vector(path)).unwrap();
                let written = metrics.to_body().unwrap();
                assert_eq!(ServerMetrics::from_body(&written).unwrap(), metrics);
                assert_ne!(metrics, ServerMetrics::default());
            }
            Kind::Named => {
                let name = path.rsplit('/').next().unwrap();
                assert!(TESTS.contains(name), "no test names {path}");
            }
        }
    }
    assert!(seen.len() >= 10 && all.len() > 150, "the folder is not whole: {seen:?}");
}

#[test]
fn every_file_that_must_be_refused_or_is_odd_is_named_by_a_test() {
    if !golden() {
        return;
    }
    let unnamed: Vec<String> = files()
        .into_iter()
        .filter(|path| {
            let name = path.rsplit('/').next().unwrap();
            let odd = ["neg-", "ok-", "stale-"].iter().any(|start| name.starts_with(start));
            // `neg-old-timestamp.EdgeDevConfig.pb`, and its JSON.
            let stem = name.split('.').next().unwrap();
            // Tests take the start from a list, or write the name in one.
            let short = stem.trim_start_matches("neg-").trim_start_matches("zcontrollercert-");
            odd && !TESTS.contains(stem) && !TESTS.contains(&format!("-{short}"))
        })
        .collect();
    assert!(unnamed.is_empty(), "no test names {unnamed:?}");
}

#[test]
fn messages_are_written_as_they_were_recorded() {
    if !golden() {
        return;
    }
    let types: BTreeMap<String, crate::messages::RoundTrip> =
        crate::messages::all().into_iter().collect();
    let (pool, all) = (pool(), files());
    let mut tried = 0;
    for path in &all {
        let (short, bytes) = match kind(path, &all) {
            Some(Kind::Message(short)) => (short, vector(path)),
            Some(Kind::Envelope) => ("AuthContainer".to_owned(), vector(path)),
            _ => continue,
        };
        let name = descriptor(&pool, &short).full_name().to_owned();
        let written = types[&name](&bytes).unwrap();
        // The recorder wrote fields by number, as we do, and maps are rare: the bytes are the same.
        assert!(written == bytes, "{path}: {} bytes became {}", bytes.len(), written.len());
        tried += 1;
    }
    assert!(tried > 80, "only {tried}");
    assert!(wire::decode::<AuthContainer>(&[0; 9], Bytes(8)).is_err());
}
