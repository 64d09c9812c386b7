//! The QEMU monitor: JSON lines over a Unix socket (QEMU Machine Protocol).
//!
//! Few commands, tolerant of everything else: events and unknown members are passed over.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::error::QemuError;
use super::machine::shell_word;

/// Our commands have answers of a few hundred bytes.
const LINE_MAX: u64 = 1 << 20;

/// For commands that QEMU answers at once.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// Writing or reading the memory of a guest takes a fraction of a second, on an idle machine.
const MEMORY_LIMIT: Duration = Duration::from_secs(120);

/// A connection to the monitor. QEMU serves one at a time.
#[derive(Debug)]
pub struct Qmp {
    stream: BufReader<UnixStream>,
}

impl Qmp {
    /// Connects, waiting for another client to leave if need be.
    pub fn connect(socket: &Path, limit: Duration) -> Result<Qmp, QemuError> {
        let doing = |source| QemuError::Monitor { doing: "connect".into(), source };
        let until = Instant::now() + limit;
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(e) if Instant::now() >= until => return Err(doing(e)),
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        stream.set_read_timeout(Some(limit)).map_err(doing)?;
        stream.set_write_timeout(Some(ANSWER_LIMIT)).map_err(doing)?;
        let mut qmp = Qmp { stream: BufReader::new(stream) };
        qmp.read("connect")?; // the greeting
        qmp.stream.get_ref().set_read_timeout(Some(ANSWER_LIMIT)).map_err(doing)?;
        qmp.execute("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Runs one command and returns what it returned.
    pub fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value, QemuError> {
        let line = format!("{}\n", json!({ "execute": command, "arguments": arguments }));
        self.stream
            .get_mut()
            .write_all(line.as_bytes())
            .map_err(|source| QemuError::Monitor { doing: format!("send `{command}`"), source })?;
        loop {
            let mut answer = self.read(command)?;
            if let Some(error) = answer.get("error") {
                let said = error["desc"].as_str().unwrap_or("no reason").to_owned();
                return Err(QemuError::Refused { command: command.to_owned(), said });
            }
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            // An event, or something newer than we are.
        }
    }

    /// Presses the power button of the guest.
    pub fn press_power_button(&mut self) -> Result<(), QemuError> {
        self.execute("system_powerdown", &json!({})).map(drop)
    }

    /// Presses the reset button of the guest.
    pub fn reset(&mut self) -> Result<(), QemuError> {
        self.execute("system_reset", &json!({})).map(drop)
    }

    /// Stops the guest and writes its memory and devices to `path`. Disks stay as they are: copy
    /// them before anything runs on. The guest stays stopped.
    pub fn save_memory(&mut self, path: &Path) -> Result<(), QemuError> {
        self.execute("stop", &json!({}))?;
        // No limit on bandwidth: the default is made for networks.
        self.execute("migrate-set-parameters", &json!({ "max-bandwidth": 0 }))?;
        let uri = format!("exec:cat > {}", shell_word(path));
        self.execute("migrate", &json!({ "uri": uri }))?;
        self.wait_until("the memory snapshot", |qmp| {
            let answer = qmp.execute("query-migrate", &json!({}))?;
            match answer["status"].as_str() {
                Some("completed") => Ok(true),
                Some(state @ ("failed" | "cancelled")) => {
                    let said = answer["error-desc"].as_str().unwrap_or(state).to_owned();
                    Err(QemuError::Refused { command: "migrate".into(), said })
                }
                _ => Ok(false),
            }
        })
    }

    /// Lets a guest that comes from a snapshot run, once its memory is in.
    pub fn resume(&mut self) -> Result<(), QemuError> {
        self.wait_until("the return of the memory snapshot", |qmp| {
            let answer = qmp.execute("query-status", &json!({}))?;
            Ok(answer["status"].as_str() != Some("inmigrate"))
        })?;
        self.execute("cont", &json!({})).map(drop)
    }

    /// Ends QEMU: the guest has no say.
    pub fn quit(&mut self) -> Result<(), QemuError> {
        self.execute("quit", &json!({})).map(drop)
    }

    fn wait_until(
        &mut self,
        what: &str,
        mut is_so: impl FnMut(&mut Qmp) -> Result<bool, QemuError>,
    ) -> Result<(), QemuError> {
        let until = Instant::now() + MEMORY_LIMIT;
        while !is_so(self)? {
            if Instant::now() >= until {
                return Err(QemuError::Timeout { what: what.to_owned(), limit: MEMORY_LIMIT });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn read(&mut self, doing: &str) -> Result<Value, QemuError> {
        let failed = |source| QemuError::Monitor { doing: format!("hear about `{doing}`"), source };
        let mut line = Vec::new();
        let n = (&mut self.stream).take(LINE_MAX).read_until(b'\n', &mut line).map_err(failed)?;
        if n == 0 {
            return Err(failed(io::ErrorKind::UnexpectedEof.into()));
        }
        serde_json::from_slice(&line).map_err(|e| failed(e.into()))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// A monitor that says these lines, one set for each thing it hears.
    fn monitor(script: &'static [&'static str]) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qmp");
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut heard = BufReader::new(stream.try_clone().unwrap());
            for lines in script {
                stream.write_all(lines.as_bytes()).unwrap();
                heard.read_line(&mut String::new()).unwrap();
            }
        });
        (dir, path)
    }

    const HELLO: &str = "{\"QMP\":{\"version\":{},\"new\":1}}\n";

    #[test]
    fn events_and_unknown_members_are_passed_over() {
        let (_dir, path) = monitor(&[
            HELLO,
            "{\"return\":{}}\n",
            "{\"event\":\"STOP\"}\n{\"what\":1}\n{\"return\":{\"status\":\"running\"},\"x\":2}\n",
        ]);
        let mut qmp = Qmp::connect(&path, Duration::from_secs(5)).unwrap();
        let status = qmp.execute("query-status", &json!({})).unwrap();
        assert_eq!(status["status"], "running");
    }

    #[test]
    fn a_refusal_names_the_command_and_the_reason() {
        const REFUSAL: &str = "{\"error\":{\"class\":\"X\",\"desc\":\"no button\"}}\n";
        let (_dir, path) = monitor(&[HELLO, "{\"return\":{}}\n", REFUSAL]);
        let mut qmp = Qmp::connect(&path, Duration::from_secs(5)).unwrap();
        let error = qmp.press_power_button().unwrap_err();
        assert_eq!(error.to_string(), "QEMU refuses `system_powerdown`: no button");
    }

    #[test]
    fn nonsense_is_an_error_not_a_panic() {
        for greeting in ["\n", "{\n", "[1,", "\u{0}\n"] {
            let (_dir, path) = monitor(Box::leak(Box::new([greeting])));
            assert!(Qmp::connect(&path, Duration::from_millis(200)).is_err(), "{greeting:?}");
        }
    }
}
