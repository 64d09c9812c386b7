//! `eved debug`: runs what the far end of the debug channel asks for. Only images of the debug
//! profile start it.
//!
//! JSON lines: `{"id":1,"exec":["/bin/sh","-c","…"],"stdin":base64,"timeout_ms":1000}` is answered by
//! `{"id":1,"status":0,"stdout":base64,"stderr":base64}`, a status below zero being the signal that
//! ended it; `{"id":2,"ping":true}` and `{"id":3,"set_clock_ms":…}` by their id alone; what could
//! not be done by `error`.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use host::debug_port;
use model::UnixMillis;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use crate::service::Context;

/// The longest request: a file of 16 MiB in base64, and some.
const REQUEST_MAX: usize = 24 << 20;
/// The most of each stream that is sent back.
const OUTPUT_MAX: usize = 8 << 20;
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
/// How often we look for a port, or for somebody at its far end.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Debug, Deserialize)]
struct Request {
    id: u64,
    #[serde(default)]
    exec: Vec<String>,
    #[serde(default)]
    stdin: String,
    timeout_ms: Option<u64>,
    set_clock_ms: Option<u64>,
}

#[derive(Debug, Default, Serialize)]
struct Answer {
    id: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stdout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stderr: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

pub(crate) async fn run(ctx: Context) -> anyhow::Result<()> {
    ctx.ready();
    let port = loop {
        match debug_port::find().map(|device| debug_port::open(&device)) {
            Some(Ok(port)) => {
                tracing::info!("the debug port is open");
                break port;
            }
            Some(Err(error)) => tracing::warn!("cannot open the debug port: {error}"),
            None => {} // its module may still be loading; a box has none at all
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = ctx.stopped() => return Ok(()),
        }
    };
    let out = Arc::new(Mutex::new(port.try_clone()?));
    let (send, mut requests) = mpsc::channel(16);
    // The port's reads block; a thread of its own waits in them.
    std::thread::spawn(move || read_requests(port, &send));
    loop {
        let request = tokio::select! {
            request = requests.recv() => request,
            () = ctx.stopped() => None,
        };
        let Some(request) = request else { return Ok(()) };
        let out = out.clone();
        tokio::spawn(async move {
            let answer = answer(request).await;
            // A far end that does not read must not stop the service.
            let _ = tokio::task::spawn_blocking(move || send_answer(&out, &answer)).await;
        });
    }
}

fn read_requests(port: File, send: &mpsc::Sender<Request>) {
    let mut port = BufReader::new(port);
    let mut line = Vec::new();
    loop {
        // `take` bounds a line; what is longer is no request and will not parse.
        let mut bounded = std::io::Read::take(&mut port, (REQUEST_MAX - line.len()) as u64);
        match bounded.read_until(b'\n', &mut line) {
            Ok(0) if line.len() >= REQUEST_MAX => line.clear(),
            Ok(0) => std::thread::sleep(LOOK), // nobody is at the far end
            Ok(_) if line.ends_with(b"\n") => {
                match serde_json::from_slice::<Request>(&line) {
                    Ok(request) => {
                        if send.blocking_send(request).is_err() {
                            return; // the service ends
                        }
                    }
                    Err(error) => tracing::warn!("a request that is none: {error}"),
                }
                line.clear();
            }
            Ok(_) => {} // the rest of the line is still to come
            Err(error) => {
                tracing::warn!("cannot read from the debug port: {error}");
                std::thread::sleep(LOOK);
            }
        }
    }
}

fn send_answer(out: &Mutex<File>, answer: &Answer) {
    let Ok(mut line) = serde_json::to_vec(answer) else { return };
    line.push(b'\n');
    if let Ok(mut port) = out.lock()
        && let Err(error) = port.write_all(&line)
    {
        tracing::warn!("cannot write to the debug port: {error}");
    }
}

async fn answer(request: Request) -> Answer {
    let id = request.id;
    let result = if let Some(now) = request.set_clock_ms {
        debug_port::set_clock(UnixMillis(now)).map(|()| Answer::default()).map_err(Into::into)
    } else if request.exec.is_empty() {
        Ok(Answer::default())
    } else {
        exec(&request).await
    };
    let answer = result.unwrap_or_else(|error: anyhow::Error| Answer {
        error: Some(format!("{error:#}")),
        ..Answer::default()
    });
    Answer { id, ..answer }
}

async fn exec(request: &Request) -> anyhow::Result<Answer> {
    let stdin = BASE64.decode(&request.stdin)?;
    let mut command = debug_port::command(&request.exec[0]);
    command
        .args(&request.exec[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own, so that a shell's children end with it.
        .process_group(0);
    let mut child = tokio::process::Command::from(command).kill_on_drop(true).spawn()?;
    let pid = child.id();
    if let Some(mut pipe) = child.stdin.take() {
        tokio::spawn(async move {
            // A program need not read all it is given.
            let _ = pipe.write_all(&stdin).await;
        });
    }
    let limit = request.timeout_ms.map_or(DEFAULT_TIMEOUT, Duration::from_millis);
    match tokio::time::timeout(limit, child.wait_with_output()).await {
        Ok(output) => {
            let output = output?;
            let signal = output.status.signal().map(|s| -s);
            let text = |bytes: &[u8]| Some(BASE64.encode(&bytes[..bytes.len().min(OUTPUT_MAX)]));
            Ok(Answer {
                status: output.status.code().or(signal),
                stdout: text(&output.stdout),
                stderr: text(&output.stderr),
                ..Answer::default()
            })
        }
        Err(_) => {
            pid.into_iter().for_each(debug_port::kill_group);
            anyhow::bail!("it did not end within {} ms", limit.as_millis())
        }
    }
}
