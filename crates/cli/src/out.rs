//! The manners of the command line: progress, tables, JSON, errors, the log.
//!
//! Facts go to standard output; progress, errors and the log go to standard error, so that
//! `eve … --json | jq` always works. It decides nothing.
//!
//! Nothing that is printed for people steers the terminal, whoever wrote it: see [`foreign`].

pub(crate) mod foreign;

use std::error::Error;
use std::fmt;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use model::{Bytes, Diagnose, Diagnosis, Who};

/// Prints a line for people to standard error.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::out::say_text(&$crate::out::foreign::one_line(&format!($($text)*)))
    };
}

pub(crate) use say;

/// Prints lines for people to standard error. Who closed that does not want to know; the work goes
/// on.
pub(crate) fn say_text(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", foreign::text(text));
}

/// Asks a person: the question, with no line break after it.
pub(crate) fn say_question(text: &str) {
    let mut stderr = std::io::stderr();
    let _ = write!(stderr, "{}", foreign::text(text)).and_then(|()| stderr.flush());
}

/// Where a plain line of progress is worth printing again: not more often than this.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

/// One long step. On a terminal a spinner or bar with the time; elsewhere a line when it starts,
/// one now and then, and one when it ends. Dropped without [`Step::done`] it counts as failed.
#[derive(Debug)]
pub(crate) struct Step {
    name: String,
    started: Instant,
    /// `None`: not on a terminal.
    bar: Option<ProgressBar>,
    plain: Mutex<Plain>,
    ended: bool,
}

#[derive(Debug)]
struct Plain {
    last: Instant,
    note: String,
}

impl Step {
    /// Starts a step. `name` says what is being done, as in `booting the node`.
    pub(crate) fn start(name: impl Into<String>) -> Step {
        let name = foreign::one_line(&name.into()).into_owned();
        let now = Instant::now();
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_style(style("{spinner} {prefix}  {elapsed}  {wide_msg}"));
            bar.set_prefix(name.clone());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        if bar.is_none() {
            say!("{name} ...");
        }
        let plain = Mutex::new(Plain { last: now, note: String::new() });
        Step { name, started: now, bar, plain, ended: false }
    }

    /// Says what it is doing just now.
    pub(crate) fn note(&self, text: impl Into<String>) {
        let text = foreign::one_line(&text.into()).into_owned();
        match &self.bar {
            Some(bar) => bar.set_message(text),
            None => self.plain_note(text),
        }
    }

    /// Says how far it is. `total` of 0 means that it is not known.
    pub(crate) fn bytes(&self, done: Bytes, total: Bytes) {
        match &self.bar {
            Some(bar) if total.0 > 0 => {
                if bar.length() != Some(total.0) {
                    bar.set_length(total.0);
                    bar.set_style(style(
                        "{spinner} {prefix}  {elapsed}  {bar:24} {bytes}/{total_bytes}  {msg}",
                    ));
                }
                bar.set_position(done.0);
            }
            _ if total.0 > 0 => self.plain_note(format!("{done} of {total}")),
            _ => self.note(done.to_string()),
        }
    }

    /// Lines above the progress, kept.
    pub(crate) fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say_text(text)),
            None => say_text(text),
        }
    }

    /// It ended well; `facts` may be empty.
    pub(crate) fn done(mut self, facts: impl fmt::Display) {
        self.ended = true;
        self.end("done", &facts.to_string());
    }

    fn plain_note(&self, text: String) {
        let Ok(mut plain) = self.plain.lock() else { return };
        if plain.note != text && plain.last.elapsed() >= PLAIN_EVERY {
            say!("  {}: {text} ({})", self.name, Seconds(self.started.elapsed()));
            plain.last = Instant::now();
        }
        plain.note = text;
    }

    fn end(&self, how: &str, facts: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let comma = if facts.is_empty() { "" } else { ", " };
        say!("{}: {how} in {}{comma}{facts}", self.name, Seconds(self.started.elapsed()));
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.ended {
            self.end("failed", "");
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// A time span as people say it: `0.4 s`, `12 s`, `3 min 05 s`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seconds(pub(crate) Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.0.as_secs();
        match whole {
            0..10 => write!(f, "{:.1} s", self.0.as_secs_f64()),
            10..60 => write!(f, "{whole} s"),
            _ => write!(f, "{} min {:02} s", whole / 60, whole % 60),
        }
    }
}

/// Prints one line of facts, whatever is in it.
pub(crate) fn line(facts: impl fmt::Display) {
    raw(foreign::one_line(&facts.to_string()));
}

/// Prints lines of facts. What others wrote and may be of several lines has to be on one already.
pub(crate) fn text(facts: impl fmt::Display) {
    raw(foreign::text(&facts.to_string()));
}

/// Prints what programs read, as it is, and a line break. A reader that went away
/// (`eve … | head`) is no error.
pub(crate) fn raw(document: impl fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{document}");
}

/// Prints facts for programs: one JSON document, indented.
pub(crate) fn json(facts: &impl serde::Serialize) -> anyhow::Result<()> {
    raw(json_text(facts)?);
    Ok(())
}

/// Prints facts for programs that read one after the other: one JSON document on a line.
pub(crate) fn json_line(facts: &impl serde::Serialize) -> anyhow::Result<()> {
    raw(foreign::json(&serde_json::to_string(facts)?));
    Ok(())
}

/// Facts as JSON, indented.
pub(crate) fn json_text(facts: &impl serde::Serialize) -> anyhow::Result<String> {
    Ok(foreign::json(&serde_json::to_string_pretty(facts)?).into_owned())
}

/// Prints rows under a head, columns aligned. Rows may be shorter than the head.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) {
    text(aligned(head, rows).trim_end());
}

/// Text on one line, cut to so many characters.
pub(crate) fn short(text: &str, most: usize) -> String {
    let line = foreign::cell(text);
    match line.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.into_owned(),
    }
}

/// Prints a screen of facts in place of the one before; where there is no terminal, after it.
pub(crate) fn screen(text: &str) {
    // ED and CUP of ECMA-48: clear the screen, go to its upper left corner.
    let clear = if std::io::stdout().is_terminal() { "\x1b[2J\x1b[H" } else { "" };
    raw(format_args!("{clear}{}", foreign::text(text)));
}

/// Rows under a head as text, columns aligned, a line break after each.
pub(crate) fn aligned(head: &[&str], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = head.iter().map(|h| h.to_uppercase()).collect();
    let all = std::iter::once(&head).chain(rows);
    let all: Vec<Vec<_>> = all.map(|row| row.iter().map(|c| foreign::cell(c)).collect()).collect();
    let columns = all.iter().map(|r| r.len()).max().unwrap_or(0);
    let width = |c: usize| {
        all.iter().filter_map(|r| r.get(c)).map(|t| t.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in all {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Wrong use of a command, found after the arguments were parsed: exit code 2.
#[derive(Debug)]
pub(crate) struct WrongUse(pub(crate) String);

impl fmt::Display for WrongUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for WrongUse {}

/// An error that carries its diagnosis to [`report`].
#[derive(Debug)]
struct Diagnosed {
    error: Box<dyn Error + Send + Sync>,
    diagnosis: Diagnosis,
}

impl fmt::Display for Diagnosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl Error for Diagnosed {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}

/// Keeps what an error knows about who can act, on its way to the person.
pub(crate) trait OrAdvise<T> {
    /// The error with its diagnosis.
    fn or_advise(self) -> anyhow::Result<T>;
}

impl<T, E: Diagnose + Send + Sync + 'static> OrAdvise<T> for Result<T, E> {
    fn or_advise(self) -> anyhow::Result<T> {
        self.map_err(|error| {
            let diagnosis = error.diagnose();
            anyhow::Error::new(Diagnosed { error: Box::new(error), diagnosis })
        })
    }
}

/// Whether what failed is a call of a controller that may do better a little later.
pub(crate) fn may_pass(error: &anyhow::Error) -> bool {
    let told = error.chain().filter_map(|e| e.downcast_ref::<Diagnosed>());
    let mut calls = told.filter_map(|d| d.error.downcast_ref::<controller::client::ClientError>());
    calls.any(controller::client::ClientError::may_pass)
}

/// Says why something did not work that is tried again.
pub(crate) fn say_again(error: &anyhow::Error) {
    let chain: Vec<String> = error.chain().map(ToString::to_string).collect();
    say!("eve: {}; trying again", chain.join(": "));
}

/// An error of our own with advice for whoever types.
pub(crate) fn advised(text: impl Into<String>, advice: impl Into<String>) -> anyhow::Error {
    let diagnosis = Diagnosis::of(Who::Operator, advice);
    anyhow::Error::new(Diagnosed { error: text.into().into(), diagnosis })
}

/// Prints an error: the chain on one line, then what can be done. The exit code is 2 for wrong
/// use, else 1.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    say_text(explain(error).trim_end());
    let wrong_use = error.chain().any(|e| e.is::<WrongUse>());
    ExitCode::from(if wrong_use { 2 } else { 1 })
}

fn explain(error: &anyhow::Error) -> String {
    // The further lines of a message are not to be taken for the advice.
    let inner = |text: &str| text.trim_end().replace('\n', "\n    ");
    let chain: Vec<String> = error.chain().map(ToString::to_string).collect();
    let mut text = format!("eve: {}\n", inner(&chain.join(": ")));
    for diagnosis in error.chain().filter_map(|e| e.downcast_ref::<Diagnosed>()) {
        let who = match diagnosis.diagnosis.who {
            Who::Operator => "what to do",
            Who::Network => "who runs the network can",
            Who::Hardware => "who can touch the machine can",
            Who::Developer => "this is a bug",
            Who::Nobody => "nothing needs to be done",
        };
        text.push_str(&format!("  {who}: {}\n", inner(&diagnosis.diagnosis.advice)));
    }
    text
}

/// Sends the log to standard error: warnings, and which certificates the controller's listener gets and
/// shows; or what `EVE_LOG` says (`EVE_LOG=debug`).
pub(crate) fn start_log() {
    use tracing_subscriber::EnvFilter;
    let usual = || EnvFilter::new("warn,controller::listener=info");
    let filter = EnvFilter::try_from_env("EVE_LOG").unwrap_or_else(|_| usual());
    // A second start in one process (tests) keeps the first.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .try_init();
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[derive(Debug)]
    struct Full(std::io::Error);
    impl fmt::Display for Full {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("cannot write the disk")
        }
    }
    impl Error for Full {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }
    impl Diagnose for Full {
        fn diagnose(&self) -> Diagnosis {
            Diagnosis::of(Who::Operator, "free 2 GiB in /tmp")
        }
    }

    #[test]
    fn an_error_shows_its_causes_once_and_the_advice() {
        let failed: Result<(), _> = Err(Full(std::io::Error::other("no space left")));
        let error = failed.or_advise().context("cannot build the image").unwrap_err();
        assert_eq!(
            explain(&error),
            "eve: cannot build the image: cannot write the disk: no space left\n  \
             what to do: free 2 GiB in /tmp\n"
        );
    }

    #[test]
    fn further_lines_of_an_error_are_not_taken_for_advice() {
        let error = advised("it says:\n  what to do: obey\n", "look\ntwice");
        assert_eq!(
            explain(&error),
            "eve: it says:\n      what to do: obey\n  what to do: look\n    twice\n"
        );
    }

    #[test]
    fn wrong_use_is_told_from_failure() {
        let wrong = anyhow::Error::new(WrongUse("no such format".into()));
        assert_eq!(report(&wrong.context("x")), ExitCode::from(2));
        assert_eq!(report(&anyhow::anyhow!("it broke")), ExitCode::from(1));
    }

    #[test]
    fn columns_are_aligned_and_lines_have_no_tail() {
        let rows = vec![vec!["edge-1".into(), "online".into()], vec!["e2".into()]];
        assert_eq!(aligned(&["name", "state"], &rows), "NAME    STATE\nedge-1  online\ne2\n");
        let rows = vec![vec!["\x1b[m\n".into(), "x".into()], vec!["e2".into(), "y".into()]];
        let text = "A           B\n\\u{1b}[m\\n  x\ne2          y\n";
        assert_eq!(aligned(&["a", "b"], &rows), text);
    }

    #[test]
    fn times_read_well() {
        for (ms, text) in [(400, "0.4 s"), (12_300, "12 s"), (185_000, "3 min 05 s")] {
            assert_eq!(Seconds(Duration::from_millis(ms)).to_string(), text);
        }
    }
}
