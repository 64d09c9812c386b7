//! Who may end this boot: a service through /run/eve/power, the power button, ctrl-alt-del.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use model::boot::{POWER_REQUEST, PowerRequest};

use crate::console;

/// The folder in which `eved health` leaves its request before it sends SIGTERM.
const RUN: &str = "/run/eve";

/// What a service asked for; `None` if there is nothing that could be understood.
pub(crate) fn requested() -> Option<PowerRequest> {
    let mut text = String::new();
    let file = File::open(Path::new(RUN).join(POWER_REQUEST)).ok()?;
    file.take(4096).read_to_string(&mut text).ok()?;
    PowerRequest::parse(&text)
}

/// Leaves a request that no service made where services look for one: they tell a shutdown of the
/// node from their own restart by it.
pub(crate) fn announce(request: &PowerRequest) {
    if requested().is_none() {
        let _ = File::create(Path::new(RUN).join(POWER_REQUEST))
            .and_then(|mut file| file.write_all(request.text().as_bytes()));
    }
}

/// The power buttons of the machine.
#[derive(Debug, Default)]
pub(crate) struct Buttons(Vec<(String, File)>);

impl Buttons {
    /// Opens buttons that came since the last call: their drivers load while services start.
    pub(crate) fn look(&mut self) {
        for entry in fs::read_dir("/sys/class/input").into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let known = self.0.iter().any(|(open, _)| *open == name);
            if known || !name.starts_with("event") || !is_power_button(&entry.path()) {
                continue;
            }
            let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
            let path = Path::new("/dev/input").join(&name);
            match File::options().read(true).custom_flags(nonblocking).open(&path) {
                Ok(file) => {
                    console::note(format_args!("listening to the power button {name}"));
                    self.0.push((name, file));
                }
                Err(error) => {
                    console::note(format_args!("cannot open {}: {error}", path.display()))
                }
            }
        }
    }

    /// Whether one was pressed since the last call.
    pub(crate) fn pressed(&mut self) -> bool {
        let mut any = false;
        let mut buffer = [0; EVENT * 16];
        for (_, file) in &mut self.0 {
            while let Ok(length) = file.read(&mut buffer) {
                if length == 0 {
                    break;
                }
                any |= buffer[..length].chunks_exact(EVENT).any(is_press);
            }
        }
        any
    }

    pub(crate) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().map(|(_, file)| file.as_fd())
    }
}

/// `struct input_event` on 64-bit machines: two words of time, type, code, value.
const EVENT: usize = 24;

fn is_press(event: &[u8]) -> bool {
    const EV_KEY: u16 = 1;
    const KEY_POWER: u16 = 116;
    let half = |at: usize| u16::from_ne_bytes([event[at], event[at + 1]]);
    half(16) == EV_KEY && half(18) == KEY_POWER && event[20] == 1
}

fn is_power_button(device: &Path) -> bool {
    fs::read_to_string(device.join("device/name")).is_ok_and(|name| name.contains("Power Button"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pressing_the_power_key_counts() {
        let mut event = [0_u8; EVENT];
        event[16..18].copy_from_slice(&1_u16.to_ne_bytes());
        event[18..20].copy_from_slice(&116_u16.to_ne_bytes());
        assert!(!is_press(&event), "released");
        event[20] = 1;
        assert!(is_press(&event));
        event[18] = 1;
        assert!(!is_press(&event), "another key");
    }
}
