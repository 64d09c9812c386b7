//! Log files: one gzip member of NDJSON, as EVE's log service uploads them.
//!
//! Who wrote the file stands in the gzip header: for the node JSON in the comment, for an app its
//! name as the file name. A line is a `logs.LogEntry` in the shape of Go's `encoding/json`, which is
//! not proto3 JSON: `msgid` is a number, `timestamp` an object, empty fields are left out.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};

use flate2::bufread::GzDecoder;
use flate2::{Compression, GzBuilder};
use model::{Bytes, Diagnose, Diagnosis, UnixMillis, Who};
use serde::{Deserialize, Deserializer, Serialize};

/// What a file should have at most; EVE's hard limit is 65,536.
pub const FILE_TARGET: Bytes = Bytes(50_000);

/// A longer text of one entry is cut: some controllers read lines of at most 64 KiB, and JSON may
/// write a byte as six.
pub const CONTENT_MAX: Bytes = Bytes(10_000);

/// Whose log it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum About {
    /// The node's own.
    Device(DeviceLog),
    /// That of an app, by its display name.
    App(String),
}

/// What the header of a node's file says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceLog {
    /// The node.
    #[serde(rename = "devID")]
    pub device: String,
    /// The slot it runs from: IMGA or IMGB.
    pub image: String,
    /// The version it runs.
    #[serde(rename = "eveVersion")]
    pub version: String,
}

/// A line of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Entry {
    /// `emerg` … `debug`, or empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub severity: String,
    /// Which service; of an app `<app id>.<version>.<n>`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Which process.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub iid: String,
    /// What it said; of services often JSON text.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub content: String,
    /// Counts up, so that gaps show.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "number_or_text")]
    pub msgid: u64,
    /// More about it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// When.
    #[serde(deserialize_with = "object_or_text")]
    pub timestamp: Stamp,
    /// Where in the source.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub filename: String,
    /// Where in the source.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub function: String,
}

/// A time with nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct Stamp {
    /// Since 1970.
    #[serde(skip_serializing_if = "is_zero_signed")]
    pub seconds: i64,
    /// 0 to 999,999,999.
    #[serde(skip_serializing_if = "is_zero_small")]
    pub nanos: i32,
}

impl From<UnixMillis> for Stamp {
    fn from(at: UnixMillis) -> Stamp {
        let wire = crate::convert::to_timestamp(at);
        Stamp { seconds: wire.seconds, nanos: wire.nanos }
    }
}

impl Stamp {
    /// Without what is finer than a millisecond; 1970 for what lies before.
    pub fn millis(&self) -> UnixMillis {
        let wire = prost_types::Timestamp { seconds: self.seconds, nanos: self.nanos };
        crate::convert::from_timestamp(&wire)
    }
}

/// Packs entries into files of at most `target` each, in order; an entry that alone is larger gets a
/// file of its own. The same arguments give the same bytes.
pub fn pack(
    entries: &[Entry],
    about: &About,
    created: UnixMillis,
    target: Bytes,
) -> Result<Vec<Vec<u8>>, NewlogsError> {
    if entries.is_empty() {
        return Ok(Vec::new());
    }
    let file = pack_one(entries, about, created)?;
    if entries.len() == 1 || file.len() as u64 <= target.0 {
        return Ok(vec![file]);
    }
    let (first, second) = entries.split_at(entries.len() / 2);
    let mut files = pack(first, about, created, target)?;
    files.append(&mut pack(second, about, created, target)?);
    Ok(files)
}

fn pack_one(
    entries: &[Entry],
    about: &About,
    created: UnixMillis,
) -> Result<Vec<u8>, NewlogsError> {
    let failed = |source| NewlogsError::Json { source };
    let builder = GzBuilder::new()
        .mtime(u32::try_from(created.0 / 1000).unwrap_or(u32::MAX))
        // "Unknown", as Go's gzip writes.
        .operating_system(255);
    let builder = match about {
        About::Device(log) => {
            builder.comment(to_latin1(&serde_json::to_string(log).map_err(failed)?))
        }
        About::App(name) => builder.filename(to_latin1(name)),
    };
    let mut gzip = builder.write(Vec::new(), Compression::best());
    let pack = |source| NewlogsError::Pack { source };
    for entry in entries {
        let mut line = if entry.content.len() as u64 > CONTENT_MAX.0 {
            serde_json::to_vec(&Entry { content: cut(&entry.content), ..entry.clone() })
        } else {
            serde_json::to_vec(entry)
        }
        .map_err(failed)?;
        line.push(b'\n');
        gzip.write_all(&line).map_err(pack)?;
    }
    gzip.finish().map_err(pack)
}

/// A log file, unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFile {
    /// Whose it is.
    pub about: About,
    /// When it was begun, to the second. Zero: not said.
    pub created: UnixMillis,
    text: Vec<u8>,
}

/// Unpacks a log file of at most `limit` unpacked bytes. Nodes write one gzip member; if more follow,
/// their text does (RFC 1952, 2.2), and the header of the first counts.
pub fn unpack(file: &[u8], limit: Bytes) -> Result<LogFile, NewlogsError> {
    let (mut rest, mut text, mut first) = (file, Vec::new(), None);
    loop {
        let mut gzip = GzDecoder::new(rest);
        let room = limit.0.saturating_sub(text.len() as u64).saturating_add(1);
        let read = gzip.by_ref().take(room).read_to_end(&mut text);
        read.map_err(|source| NewlogsError::Unpack { source })?;
        if text.len() as u64 > limit.0 {
            return Err(NewlogsError::TooLong { limit });
        }
        if first.is_none() {
            first = gzip.header().cloned();
        }
        rest = gzip.into_inner();
        if rest.is_empty() {
            break;
        }
    }
    let header = first.ok_or(NewlogsError::NoHeader)?;
    let about = match (header.filename(), header.comment()) {
        (Some(name), _) => About::App(from_latin1(name)),
        (None, Some(comment)) => {
            let comment: String = comment.iter().map(|b| char::from(*b)).collect();
            let log = serde_json::from_str(&comment);
            About::Device(log.map_err(|source| NewlogsError::Comment { source })?)
        }
        (None, None) => return Err(NewlogsError::NoHeader),
    };
    let created = UnixMillis(u64::from(header.mtime()) * 1000);
    Ok(LogFile { about, created, text })
}

impl LogFile {
    /// Its entries in order; lines that are none are errors of their own. One line is parsed at a
    /// time.
    pub fn entries(&self) -> impl Iterator<Item = Result<Entry, NewlogsError>> + '_ {
        self.text
            .split(|b| *b == b'\n')
            .enumerate()
            .filter(|(_, line)| !line.trim_ascii().is_empty())
            .map(|(at, line)| {
                serde_json::from_slice(line)
                    .map_err(|source| NewlogsError::Line { line: at + 1, source })
            })
    }

    /// The unpacked text.
    pub fn text(&self) -> &[u8] {
        &self.text
    }
}

/// What a controller may answer to a node's log file: plain JSON, without an envelope. A node only
/// reports it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerMetrics {
    /// How busy the controller is, in percent.
    pub cpu_percentage: f32,
    /// How far it is behind with logs, in milliseconds.
    pub log_process_delay_msec: u32,
}

impl ServerMetrics {
    /// The body of the answer.
    pub fn to_body(&self) -> Result<Vec<u8>, NewlogsError> {
        serde_json::to_vec(self).map_err(|source| NewlogsError::Json { source })
    }

    /// Reads the body of an answer; members that we do not know are ignored.
    pub fn from_body(body: &[u8]) -> Result<ServerMetrics, NewlogsError> {
        if body.len() > SERVER_METRICS_MAX {
            let limit = Bytes(SERVER_METRICS_MAX as u64);
            return Err(NewlogsError::TooLong { limit });
        }
        serde_json::from_slice(body).map_err(|source| NewlogsError::ServerMetrics { source })
    }
}

/// The longest answer to a log file that we read.
const SERVER_METRICS_MAX: usize = 64 << 10;

/// A log file that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum NewlogsError {
    /// The answer to a log file is not JSON of two numbers.
    #[error("the answer to a log file is no ServerMetrics")]
    ServerMetrics {
        /// Why not.
        source: serde_json::Error,
    },
    /// Not gzip, or cut short.
    #[error("cannot unpack the log file")]
    Unpack {
        /// Why not.
        source: std::io::Error,
    },
    /// More than we read: a bomb, or not ours.
    #[error("the log file unpacks to more than {limit}")]
    TooLong {
        /// What we read.
        limit: Bytes,
    },
    /// The header does not say whose log it is.
    #[error("the gzip header of the log file has neither name nor comment")]
    NoHeader,
    /// The comment is not the JSON it should be.
    #[error("the gzip comment of the log file is not JSON of devID, image and eveVersion")]
    Comment {
        /// Why not.
        source: serde_json::Error,
    },
    /// One line is not an entry; the others may be.
    #[error("line {line} is no log entry")]
    Line {
        /// From 1.
        line: usize,
        /// Why not.
        source: serde_json::Error,
    },
    /// An entry cannot be written as JSON.
    #[error("cannot write a log entry as JSON")]
    Json {
        /// Why not.
        source: serde_json::Error,
    },
    /// The compressor failed.
    #[error("cannot pack the log file")]
    Pack {
        /// Why not.
        source: std::io::Error,
    },
}

impl Diagnose for NewlogsError {
    fn diagnose(&self) -> Diagnosis {
        Diagnosis::of(Who::Developer, "look at the stored log file")
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
fn is_zero_signed(n: &i64) -> bool {
    *n == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
fn is_zero_small(n: &i32) -> bool {
    *n == 0
}

/// Go writes a number, proto3 JSON a text. We send the first and read both.
fn number_or_text<'de, D: Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(u64),
        Text(String),
    }
    match Either::deserialize(d)? {
        Either::Number(n) => Ok(n),
        Either::Text(text) => text.parse().map_err(serde::de::Error::custom),
    }
}

/// Go writes an object, proto3 JSON RFC 3339. We send the first and read both.
fn object_or_text<'de, D: Deserializer<'de>>(d: D) -> Result<Stamp, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Object(Stamp),
        Text(String),
    }
    match Either::deserialize(d)? {
        Either::Object(stamp) => Ok(stamp),
        Either::Text(text) => {
            let format = &time::format_description::well_known::Rfc3339;
            let at = time::OffsetDateTime::parse(&text, format);
            let at = at.map_err(serde::de::Error::custom)?;
            let nanos = i32::try_from(at.nanosecond()).unwrap_or(0);
            Ok(Stamp { seconds: at.unix_timestamp(), nanos })
        }
    }
}

/// The start of a text that is too long, and how much is missing.
fn cut(content: &str) -> String {
    let mut end = usize::try_from(CONTENT_MAX.0).unwrap_or(usize::MAX).min(content.len());
    while !content.is_char_boundary(end) {
        end -= 1;
    }
    format!("{} … {} bytes cut", &content[..end], content.len() - end)
}

/// gzip headers are Latin-1 and end at a zero: what does not fit becomes `\uXXXX`, by UTF-16 units.
fn to_latin1(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for c in text.chars() {
        match u8::try_from(u32::from(c)) {
            Ok(byte) if byte != 0 => out.push(byte),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
                }
            }
        }
    }
    out
}

/// The other way. Only escapes of what Latin-1 lacks are undone; others are the text itself.
fn from_latin1(bytes: &[u8]) -> String {
    let mut units = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, after @ ..] = rest {
        let escaped = rest
            .strip_prefix(b"\\u")
            .and_then(|hex| std::str::from_utf8(hex.get(..4)?).ok())
            .filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|hex| u16::from_str_radix(hex, 16).ok())
            .filter(|unit| *unit > 0xff);
        match escaped {
            Some(unit) => {
                units.push(unit);
                rest = &rest[6..];
            }
            None => {
                units.push(u16::from(*first));
                rest = after;
            }
        }
    }
    String::from_utf16_lossy(&units)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_the_header() {
        for name in ["", "web", "caf\u{e9}", "app-\u{6f22}", "\u{1f600}!", "C:\\users", "\\u0041"] {
            assert_eq!(from_latin1(&to_latin1(name)), name);
        }
        assert_eq!(to_latin1("a\u{6f22}"), b"a\\u6f22");
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let text = cut(&"\u{6f22}".repeat(5000));
        assert!(text.ends_with("\u{6f22} … 5001 bytes cut"), "{}", &text[text.len() - 40..]);
    }
}
