//! What a person sees, on every console of the machine, and the log of it.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

use install::Progress;
use model::Bytes;

const RED: &str = "\x1b[1;31m";
const PLAIN: &str = "\x1b[0m";

/// Every console, and all that was said.
#[derive(Debug)]
pub(super) struct Console {
    screens: Vec<File>,
    log: RefCell<String>,
    /// What was being done when it was last said how far it is, and how far that was in percent.
    last: RefCell<(String, u64)>,
}

impl Console {
    /// Opens those that the kernel writes to.
    pub(super) fn open() -> Console {
        let active = std::fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
        let open = |name: &str| {
            let path = Path::new("/dev").join(name);
            // It is not to become the terminal of this process.
            let quiet = rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
            let mut options = OpenOptions::new();
            std::os::unix::fs::OpenOptionsExt::custom_flags(
                &mut options,
                i32::try_from(quiet.bits()).unwrap_or_default(),
            );
            options.read(true).write(true).open(path).ok()
        };
        let screens: Vec<File> = active.split_whitespace().filter_map(open).collect();
        let screens =
            if screens.is_empty() { open("console").into_iter().collect() } else { screens };
        Console { screens, log: RefCell::default(), last: RefCell::default() }
    }

    /// A line, or several.
    pub(super) fn say(&self, text: &str) {
        for line in text.lines() {
            self.put(&format!("installer: {line}\n"));
        }
    }

    /// Why nothing is installed, and what to do.
    pub(super) fn alarm(&self, text: &str, advice: &str) {
        self.put(&format!("\n{RED}installer: not installed: {text}{PLAIN}\n"));
        self.put(&format!("{RED}installer: {advice}{PLAIN}\n"));
        self.say("the machine stays on; press its power button to switch it off");
    }

    /// Waits until somebody presses Enter on the console that the kernel prefers.
    pub(super) fn pause(&self, when: &str) {
        self.say(&format!("paused {when}: press Enter to go on"));
        // The last is the one that /dev/console leads to.
        if let Some(mut screen) = self.screens.last() {
            let _ = screen.read(&mut [0; 256]);
        }
    }

    /// All that was said.
    pub(super) fn log(&self) -> String {
        self.log.borrow().replace(RED, "").replace(PLAIN, "")
    }

    fn put(&self, text: &str) {
        self.log.borrow_mut().push_str(text);
        for mut screen in &self.screens {
            // A screen that is gone is no reason to stop.
            let _ = screen.write_all(text.as_bytes());
        }
    }
}

impl Progress for Console {
    /// A line each ten percent, and one for each new thing.
    fn at(&self, what: &str, done: Bytes, total: Bytes) {
        let percent = (done.0 * 100).checked_div(total.0).unwrap_or(100);
        let mut last = self.last.borrow_mut();
        if last.0 == what && percent < last.1 + 10 {
            return;
        }
        *last = (what.to_owned(), percent);
        drop(last);
        self.say(&format!("{percent:3} % {what}"));
    }
}
