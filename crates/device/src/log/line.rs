//! Reading one line: the JSON of our services, the kernel's records, or plain text.

use model::UnixMillis;
use serde::Deserialize;
use serde_json::Value;

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// How grave it is.
    pub level: Level,
    /// What it says.
    pub text: String,
    /// The part of the program that said it; may be empty.
    pub from: String,
    /// Process, if the line says so.
    pub pid: Option<u32>,
}

/// How grave a line is; EVE's words ([`Level::word`]) are those of syslog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// `debug`
    Debug,
    /// `info`
    Info,
    /// `notice`
    Notice,
    /// `warning`
    Warning,
    /// `err`
    Error,
    /// `crit`, and what is worse.
    Critical,
}

impl Level {
    /// The word for it in a log entry.
    pub fn word(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Notice => "notice",
            Level::Warning => "warning",
            Level::Error => "err",
            Level::Critical => "crit",
        }
    }
}

/// A line of our own services: `tracing`'s JSON, flattened.
#[derive(Deserialize)]
struct Traced {
    level: String,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    target: String,
}

/// A line of a service. What is no JSON is text of level info.
pub fn service(bytes: &[u8]) -> Line {
    let plain = || Line { level: Level::Info, text: clean(bytes), from: String::new(), pid: None };
    if !bytes.starts_with(b"{") {
        return plain();
    }
    let Ok(traced) = serde_json::from_slice::<Traced>(bytes) else { return plain() };
    let level = match traced.level.as_str() {
        "TRACE" | "DEBUG" => Level::Debug,
        "WARN" => Level::Warning,
        "ERROR" => Level::Error,
        _ => Level::Info,
    };
    let text = match (traced.message, fields(bytes)) {
        (Some(message), fields) if fields.is_empty() => message,
        (Some(message), fields) => format!("{message} {fields}"),
        (None, fields) => fields,
    };
    Line { level, text, from: traced.target, pid: None }
}

/// A line of an app: text.
pub fn app(bytes: &[u8]) -> Line {
    Line { level: Level::Info, text: clean(bytes), from: String::new(), pid: None }
}

/// A record of `/dev/kmsg` (kernel's Documentation/ABI/testing/dev-kmsg): `<facility and level>,
/// <number>,<µs since boot>,<flags>[,caller=T<pid>];<text>`, then lines that begin with a space.
/// `None`: it is none, or user space wrote it.
pub fn kernel(record: &[u8]) -> Option<(Line, u64)> {
    let text = String::from_utf8_lossy(record);
    let (head, rest) = text.split_once(';')?;
    let mut head = head.split(',');
    let priority: u32 = head.next()?.parse().ok()?;
    let _number = head.next()?;
    let micros: u64 = head.next()?.parse().ok()?;
    // Facility 0 is the kernel. Others wrote into its log, PID 1 among them.
    let from = if priority >> 3 == 0 { "kernel" } else { "init" };
    let level = match priority & 7 {
        0..=2 => Level::Critical,
        3 => Level::Error,
        4 => Level::Warning,
        5 => Level::Notice,
        6 => Level::Info,
        _ => Level::Debug,
    };
    let words = rest.lines().next().unwrap_or_default();
    let line = Line { level, text: clean(words.as_bytes()), from: from.to_owned(), pid: None };
    Some((line, micros))
}

/// When a kernel's record was made, given the wall clock and the time since boot of now.
pub fn kernel_time(micros: u64, now: UnixMillis, since_boot: std::time::Duration) -> UnixMillis {
    let boot = now.0.saturating_sub(u64::try_from(since_boot.as_millis()).unwrap_or(u64::MAX));
    UnixMillis(boot.saturating_add(micros / 1000))
}

/// The other fields of a traced line, as `key=value`.
fn fields(bytes: &[u8]) -> String {
    let Ok(Value::Object(all)) = serde_json::from_slice(bytes) else { return String::new() };
    let known = ["timestamp", "level", "message", "target"];
    let others = all.iter().filter(|(key, _)| !known.contains(&key.as_str()));
    let shown = others.map(|(key, value)| match value {
        Value::String(text) => format!("{key}={text}"),
        other => format!("{key}={other}"),
    });
    shown.collect::<Vec<_>>().join(" ")
}

/// Text without what would play tricks on a terminal, and without white space at its ends.
fn clean(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let shown = text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c });
    shown.collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_service_keeps_its_level_and_fields() {
        let json = br#"{"timestamp":"x","level":"WARN","app":"a1","message":"ended","status":7,"target":"eved::app"}"#;
        let line = service(json);
        assert_eq!((line.level, line.text.as_str()), (Level::Warning, "ended app=a1 status=7"));
        assert_eq!(line.from, "eved::app");
    }

    #[test]
    fn what_is_no_json_is_text() {
        for (bytes, text) in [
            (&b"panicked at x"[..], "panicked at x"),
            (b"{not json", "{not json"),
            (b"\x1b[31mred\xff\r", "\u{fffd}[31mred\u{fffd}\u{fffd}"),
        ] {
            assert_eq!(service(bytes).text, text);
        }
    }

    #[test]
    fn records_of_the_kernel_are_read() {
        let (line, micros) =
            kernel(b"4,339,5140900,-,caller=T1;NET: hello\n SUBSYSTEM=net\n").unwrap();
        assert_eq!(
            (line.level, line.text.as_str(), micros),
            (Level::Warning, "NET: hello", 5_140_900)
        );
        let (line, _) = kernel(b"12,340,5140901,-;eve-init: up").unwrap();
        assert_eq!(line.from, "init");
        for bad in [&b""[..], b";", b"x,1,2,-;y", b"6,1;y"] {
            assert_eq!(kernel(bad), None);
        }
    }

    #[test]
    fn the_kernel_counts_from_the_boot() {
        let now = UnixMillis(100_000);
        let seconds = std::time::Duration::from_secs(40);
        assert_eq!(kernel_time(1_500_000, now, seconds), UnixMillis(61_500));
    }
}
