//! The debug channel: JSON lines over the virtio-serial port `org.lfedge.eve.debug`.
//!
//! Requests carry an id and answers repeat it; an answer to an older request is passed over. The
//! node's end is `eved debug`, in images of the debug profile only.

use std::io::{self, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

/// The longest answer: a command's output of 16 MiB in base64, and some.
const ANSWER_MAX: usize = 24 << 20;

/// How long one read waits before it is asked whether the node still lives.
const PATIENCE: Duration = Duration::from_millis(100);

/// What a command on the node said and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The exit status; negative: ended by this signal.
    pub status: i64,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

/// Our end of the channel.
#[derive(Debug)]
pub(crate) struct DebugPort {
    stream: BufReader<UnixStream>,
    next: u64,
    rest: Vec<u8>,
}

impl DebugPort {
    /// Connects to QEMU's end. That works long before the node listens.
    pub(crate) fn connect(socket: &Path) -> anyhow::Result<DebugPort> {
        let stream = UnixStream::connect(socket).context("cannot open the debug channel")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(Duration::from_secs(10)))?;
        // Ids of another connection may still come in: start where they are not.
        let next = u64::from(std::process::id()) << 16;
        Ok(DebugPort { stream: BufReader::new(stream), next, rest: Vec::new() })
    }

    /// Asks for a sign of life until one comes. Asks again and again: what is sent before the node
    /// has opened its end may be lost.
    pub(crate) fn wait_for_node(
        &mut self,
        limit: Duration,
        alive: &mut dyn FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let until = Instant::now() + limit;
        loop {
            let id = self.send(json!({ "ping": true }))?;
            if self.answer(id, Duration::from_secs(1), alive)?.is_some() {
                return Ok(());
            }
            if Instant::now() >= until {
                bail!("no answer on the debug channel within {} s", limit.as_secs());
            }
        }
    }

    /// Runs a program on the node.
    pub(crate) fn exec(
        &mut self,
        program: &[&str],
        stdin: &[u8],
        limit: Duration,
        alive: &mut dyn FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<Output> {
        let limit_ms = u64::try_from(limit.as_millis())?;
        let mut request = json!({ "exec": program, "timeout_ms": limit_ms });
        if !stdin.is_empty() {
            request["stdin"] = BASE64.encode(stdin).into();
        }
        let id = self.send(request)?;
        // The node ends the program in time and says so; the rest is for the way.
        let answer = self.answer(id, limit + Duration::from_secs(10), alive)?;
        let answer = answer.ok_or_else(|| anyhow!("no answer within {} s", limit.as_secs()))?;
        parse(&answer)
    }

    /// Sets the node's clock: after a snapshot it is as old as the snapshot.
    pub(crate) fn set_clock(
        &mut self,
        now: model::UnixMillis,
        alive: &mut dyn FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let id = self.send(json!({ "set_clock_ms": now.0 }))?;
        let answer = self.answer(id, Duration::from_secs(10), alive)?;
        let answer = answer.context("the node did not say that its clock is set")?;
        match answer.get("error").and_then(Value::as_str) {
            Some(error) => bail!("the node cannot set its clock: {error}"),
            None => Ok(()),
        }
    }

    fn send(&mut self, mut request: Value) -> anyhow::Result<u64> {
        self.next += 1;
        request["id"] = self.next.into();
        let sent = self.stream.get_mut().write_all(format!("{request}\n").as_bytes());
        sent.context("cannot write to the debug channel")?;
        Ok(self.next)
    }

    /// `None`: it did not come in time.
    fn answer(
        &mut self,
        id: u64,
        limit: Duration,
        alive: &mut dyn FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<Option<Value>> {
        let until = Instant::now() + limit;
        loop {
            while let Some(line) = self.line()? {
                // Other things may come out of a port whose far end has just been restarted.
                match serde_json::from_slice::<Value>(&line) {
                    Ok(answer) if answer["id"] == id => return Ok(Some(answer)),
                    _ => {}
                }
            }
            alive()?;
            if Instant::now() >= until {
                return Ok(None);
            }
        }
    }

    /// The next whole line; `None` if there is none within [`PATIENCE`].
    fn line(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
                let tail = self.rest.split_off(end + 1);
                return Ok(Some(std::mem::replace(&mut self.rest, tail)));
            }
            let mut chunk = [0_u8; 1 << 16];
            match self.stream.read(&mut chunk) {
                Ok(0) => bail!("the debug channel was closed"),
                Ok(n) => self.rest.extend_from_slice(&chunk[..n]),
                Err(e)
                    if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) =>
                {
                    return Ok(None);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e).context("cannot read from the debug channel"),
            }
            if self.rest.len() > ANSWER_MAX {
                bail!("an answer on the debug channel is longer than {ANSWER_MAX} bytes");
            }
        }
    }
}

fn parse(answer: &Value) -> anyhow::Result<Output> {
    if let Some(error) = answer.get("error").and_then(Value::as_str) {
        bail!("the node could not run it: {error}");
    }
    let bytes = |name: &str| {
        let text = answer.get(name).and_then(Value::as_str).unwrap_or_default();
        BASE64.decode(text).with_context(|| format!("`{name}` of an answer is not base64"))
    };
    let status = answer["status"].as_i64().context("an answer without a status")?;
    Ok(Output { status, stdout: bytes("stdout")?, stderr: bytes("stderr")? })
}

#[cfg(test)]
mod tests {
    use std::io::BufRead;
    use std::os::unix::net::UnixListener;

    use super::*;

    /// A node that runs what it is told on this machine's shell, and talks some nonsense first.
    fn node() -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("debug");
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            stream.write_all(b"boot noise\n{\"id\":1,\"status\":9}\n").unwrap();
            for line in lines.map_while(Result::ok) {
                let request: Value = serde_json::from_str(&line).unwrap();
                let mut answer = json!({ "id": request["id"], "status": 0 });
                if let Some(words) = request["exec"].as_array() {
                    let words: Vec<&str> = words.iter().map(|w| w.as_str().unwrap()).collect();
                    let out = host::process::run(host::process::Tool::Shell, &words[1..]);
                    match out {
                        Ok(out) => answer["stdout"] = BASE64.encode(out).into(),
                        Err(_) => answer["status"] = 1.into(),
                    }
                }
                // In two pieces: a line may arrive like that.
                let text = format!("{answer}\n");
                let (a, b) = text.split_at(text.len() / 2);
                stream.write_all(a.as_bytes()).unwrap();
                std::thread::sleep(Duration::from_millis(150));
                stream.write_all(b.as_bytes()).unwrap();
            }
        });
        (dir, path)
    }

    #[test]
    fn answers_are_found_among_noise_and_in_pieces() {
        let (_dir, path) = node();
        let mut port = DebugPort::connect(&path).unwrap();
        let limit = Duration::from_secs(5);
        port.wait_for_node(limit, &mut || Ok(())).unwrap();
        let out = port.exec(&["/bin/sh", "-c", "echo a; echo b"], b"", limit, &mut || Ok(()));
        assert_eq!(out.unwrap().stdout, b"a\nb\n");
        let out = port.exec(&["/bin/sh", "-c", "exit 3"], b"", limit, &mut || Ok(()));
        assert_eq!(out.unwrap().status, 1);
    }

    #[test]
    fn a_dead_node_ends_the_wait_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("debug");
        let _silent = UnixListener::bind(&path).unwrap();
        let mut port = DebugPort::connect(&path).unwrap();
        let started = Instant::now();
        let mut dead = || bail!("the kernel panicked");
        let error = port.wait_for_node(Duration::from_secs(60), &mut dead).unwrap_err();
        assert_eq!(error.to_string(), "the kernel panicked");
        assert!(started.elapsed() < Duration::from_secs(30), "not only at the limit");
    }
}
