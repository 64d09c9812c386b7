//! Where the golden inputs are.

use std::fs;
use std::path::PathBuf;

use api::onboarding::Named;
use model::{DeviceId, UnixMillis};

/// Some time, for what no vector is asked about: 2026-01-02T03:04:05Z.
pub(crate) const T0: UnixMillis = UnixMillis(1_767_323_045_000);

/// The time the vectors were made for, as they say: when their log file was begun. The certificates
/// are valid then.
#[track_caller]
pub(crate) fn now() -> UnixMillis {
    let name = one_of("newlogs", "dev.log.", ".gz");
    let time = name.trim_end_matches(".gz").rsplit('.').next().and_then(|t| t.parse().ok());
    UnixMillis(time.expect("a file dev.log.<milliseconds>.gz"))
}

/// The one file in a folder of the vectors that starts and ends so: its name holds an id or a time.
#[track_caller]
pub(crate) fn one_of(folder: &str, start: &str, end: &str) -> String {
    let names = fs::read_dir(vectors().join(folder)).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let found: Vec<String> = names.filter(|n| n.starts_with(start) && n.ends_with(end)).collect();
    let [name] = found.as_slice() else { panic!("{folder}: {start}…{end} is {found:?}") };
    format!("{folder}/{name}")
}

/// The device that the vectors were made for, as they say.
#[track_caller]
pub(crate) fn device_id() -> DeviceId {
    Named::from_payload(&vector("envelope/uuidresponse.pb")).unwrap().id
}

const VECTORS: (&str, &str) = ("EVE_API_VECTORS", "../shared/vectors/eve-api");

/// Whether there is a folder of golden vectors beside the checkout, or `$EVE_API_VECTORS`. Who has
/// only the repository has none: a test that needs it then says so and ends.
#[track_caller]
pub(crate) fn golden() -> bool {
    given(VECTORS.0, VECTORS.1).is_some()
}

/// Their folder.
#[track_caller]
pub(crate) fn vectors() -> PathBuf {
    given(VECTORS.0, VECTORS.1).expect("the test asks `golden` first")
}

/// A file among the golden vectors.
#[track_caller]
pub(crate) fn vector(name: &str) -> Vec<u8> {
    read(vectors().join(name))
}

/// What an environment variable names, or else the default, seen from the repository's root. Says so
/// if the default is not there; what somebody names must be.
#[track_caller]
pub(crate) fn given(variable: &str, default: &str) -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let named = std::env::var_os(variable);
    let path = root.join(named.as_ref().map_or_else(|| default.into(), PathBuf::from));
    if path.exists() {
        return Some(path);
    }
    assert!(named.is_none(), "${variable} names {}, which is not there", path.display());
    println!("skipped: there is no {default} beside the checkout, and ${variable} is not set");
    None
}

#[track_caller]
pub(crate) fn read(path: PathBuf) -> Vec<u8> {
    match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) => panic!("cannot read {}: {e}", path.display()),
    }
}
