//! What PID 1 and the services agree on beside topics: names of files, how they are written, and words
//! of the kernel's command line. What was ever written is read for ever.

use crate::reported::BootReason;

/// In `/run/eve`: the wish to end this boot, as [`PowerRequest`] is written. Services that see it know
/// that the node goes down, not only they.
pub const POWER_REQUEST: &str = "power";

/// In `/run/eve`: the moments of a boot, one [`mark`] a line.
pub const BOOT_MARKS: &str = "boot-marks";

/// The mark that PID 1 sets when the hardware says that its watchdog reset the machine.
pub const WATCHDOG_MARK: &str = "hardware-watchdog-fired";

/// In `/persist/health`: why the next boot will have happened, as [`reason_text`] writes it.
pub const REBOOT_REASON: &str = "reboot-reason";

/// Whether this kernel command line starts the node to be debugged: `eve.debug` or `eve.debug=1`.
pub fn debug(command_line: &str) -> bool {
    command_line.split_ascii_whitespace().any(|word| word == "eve.debug" || word == "eve.debug=1")
}

/// A line of [`BOOT_MARKS`]: what was reached, and milliseconds since the kernel started.
pub fn mark(what: &str, at_ms: u64) -> String {
    format!("{what} {at_ms}\n")
}

/// Reads what [`mark`] writes. `None`: it is something else.
pub fn read_mark(line: &str) -> Option<(&str, u64)> {
    let (what, at) = line.rsplit_once(' ')?;
    Some((what, at.parse().ok()?))
}

/// The text of [`REBOOT_REASON`]: two lines, the reason and words.
pub fn reason_text(reason: BootReason, words: &str) -> String {
    format!("{}\n{}\n", reason.name(), one_line(words))
}

/// Reads what [`reason_text`] writes. What is not understood is [`BootReason::Unknown`].
pub fn read_reason(text: &str) -> (BootReason, String) {
    let mut lines = text.lines();
    let reason = lines.next().and_then(BootReason::from_name).unwrap_or(BootReason::Unknown);
    (reason, lines.next().unwrap_or_default().to_owned())
}

/// What becomes of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerKind {
    /// It starts anew.
    Reboot,
    /// It stays off.
    PowerOff,
}

impl PowerKind {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            PowerKind::Reboot => "reboot",
            PowerKind::PowerOff => "poweroff",
        }
    }
}

/// A wish to end this boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PowerRequest {
    /// How.
    pub kind: PowerKind,
    /// Why, for the next boot to tell.
    pub reason: BootReason,
    /// More about why, for people.
    pub words: String,
}

impl PowerRequest {
    /// A wish.
    pub fn new(kind: PowerKind, reason: BootReason, words: impl Into<String>) -> PowerRequest {
        PowerRequest { kind, reason, words: words.into() }
    }

    /// As [`POWER_REQUEST`] holds it: the kind, then a line `<boot reason>: <words>`.
    pub fn text(&self) -> String {
        let words = one_line(&self.words);
        format!("{}\n{}: {words}\n", self.kind.name(), self.reason.name())
    }

    /// Reads what [`PowerRequest::text`] writes. `None`: it does not say what is to become of the
    /// machine. A reason that is not understood is no reason to stay up.
    pub fn parse(text: &str) -> Option<PowerRequest> {
        let mut lines = text.lines();
        let kind = match lines.next()?.trim() {
            "reboot" => PowerKind::Reboot,
            "poweroff" => PowerKind::PowerOff,
            _ => return None,
        };
        let why = lines.next().unwrap_or("unknown: no reason given").trim();
        let named =
            why.split_once(": ").and_then(|(n, words)| Some((BootReason::from_name(n)?, words)));
        let (reason, words) = named.unwrap_or((BootReason::Unknown, why));
        Some(PowerRequest::new(kind, reason, words))
    }
}

fn one_line(words: &str) -> String {
    words.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_reads_as_it_is_written() {
        let request = PowerRequest::new(
            PowerKind::PowerOff,
            BootReason::PoweroffCommand,
            "counter 3: told\nby the controller",
        );
        assert_eq!(
            request.text(),
            "poweroff\npoweroff_command: counter 3: told by the controller\n"
        );
        let read = PowerRequest::parse(&request.text()).unwrap();
        assert_eq!(read, PowerRequest { words: request.words.replace('\n', " "), ..request });
    }

    #[test]
    fn a_request_of_whatever_reason_is_understood_and_one_of_no_kind_is_none() {
        let unknown =
            |words: &str| Some(PowerRequest::new(PowerKind::Reboot, BootReason::Unknown, words));
        assert_eq!(PowerRequest::parse("reboot\n"), unknown("no reason given"));
        assert_eq!(PowerRequest::parse("reboot\nI: must\n"), unknown("I: must"));
        assert_eq!(PowerRequest::parse("rebooty\nfatal: x\n"), None);
        assert_eq!(PowerRequest::parse(""), None);
    }

    #[test]
    fn the_reason_that_any_version_left_is_read() {
        let written = reason_text(BootReason::OutOfMemory, "config\nagain");
        assert_eq!(written, "out_of_memory\nconfig again\n");
        let read = (BootReason::OutOfMemory, "config again".to_owned());
        assert_eq!(read_reason(&written), read);
        assert_eq!(read_reason("of a later version\nw\n"), (BootReason::Unknown, "w".to_owned()));
        assert_eq!(read_reason(""), (BootReason::Unknown, String::new()));
    }

    #[test]
    fn a_mark_reads_as_it_is_written() {
        assert_eq!(read_mark(mark("app of mine", 1200).trim_end()), Some(("app of mine", 1200)));
        assert_eq!(read_mark("init"), None);
    }

    #[test]
    fn only_a_clear_word_makes_a_boot_one_for_debugging() {
        for (line, wanted) in [
            ("a eve.debug b", true),
            ("eve.debug=1", true),
            ("eve.debug=0", false),
            ("eve.debugger a=eve.debug", false),
            ("", false),
        ] {
            assert_eq!(debug(line), wanted, "{line}");
        }
    }
}
