//! Chromium without a window, and one page in it.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use base64::Engine as _;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Browser {
    child: Child,
    commands: File,
    said: Receiver<Value>,
    session: String,
    next: u64,
    /// Errors on the console, exceptions, and breaches of the content security policy.
    pub(crate) complaints: Vec<String>,
    _dir: tempfile::TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Browser {
    pub(crate) fn start() -> Browser {
        let dir = tempfile::tempdir().unwrap();
        let (into, out) = (dir.path().join("in"), dir.path().join("out"));
        for pipe in [&into, &out] {
            mknodat(CWD, pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        }
        // The browser reads commands from descriptor 3 and answers on 4.
        let script = r#"exec chromium --headless --remote-debugging-pipe --no-sandbox --disable-gpu \
            --disable-dev-shm-usage --hide-scrollbars --no-first-run --disable-extensions \
            --disable-background-networking --ignore-certificate-errors --user-data-dir="$DIR" \
            about:blank 3<"$IN" 4>"$OUT""#;
        #[expect(
            clippy::disallowed_methods,
            reason = "the controller has no hands; its tests have a browser"
        )]
        let child = Command::new("sh")
            .args(["-c", script])
            .env("DIR", dir.path().join("profile"))
            .env("IN", &into)
            .env("OUT", &out)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let commands = File::options().write(true).open(&into).unwrap();
        let answers = BufReader::new(File::open(&out).unwrap());
        let (sender, said) = channel();
        std::thread::spawn(move || {
            for message in answers.split(0) {
                let Ok(message) = message else { return };
                let message = serde_json::from_slice(&message).unwrap();
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let mut browser = Browser {
            child,
            commands,
            said,
            session: String::new(),
            next: 1,
            complaints: Vec::new(),
            _dir: dir,
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let wish = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", wish);
        browser.session = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    pub(crate) fn call(&mut self, method: &str, parameters: Value) -> Value {
        let id = self.next;
        self.next += 1;
        let mut message = json!({"id": id, "method": method, "params": parameters});
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        let missing = "chromium does not run; install it: cargo xtask setup --for-tests";
        self.commands.write_all(&bytes).expect(missing);
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let said =
                self.said.recv_timeout(left).unwrap_or_else(|e| panic!("{method}: {e}; {missing}"));
            if said["id"] == json!(id) {
                assert!(said["error"].is_null(), "{method}: {}", said["error"]);
                return said["result"].clone();
            }
            self.note(&said);
        }
    }

    fn note(&mut self, said: &Value) {
        let parameters = &said["params"];
        let complaint = match said["method"].as_str() {
            Some("Runtime.exceptionThrown") => parameters["exceptionDetails"].to_string(),
            Some("Runtime.consoleAPICalled") if parameters["type"] == "error" => {
                parameters["args"].to_string()
            }
            Some("Log.entryAdded") if parameters["entry"]["level"] == "error" => {
                parameters["entry"].to_string()
            }
            _ => return,
        };
        self.complaints.push(complaint);
    }

    /// Opens a page and waits until it is there.
    pub(crate) fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({"url": url}));
        let path = url.splitn(4, '/').nth(3).unwrap_or_default().to_owned();
        let there = format!(
            "decodeURI(location.href).endsWith(decodeURI({})) && document.readyState === 'complete'",
            json!(format!("/{path}"))
        );
        self.wait(&there);
    }

    pub(crate) fn eval(&mut self, script: &str) -> Value {
        let wish = json!({"expression": script, "returnByValue": true, "awaitPromise": true});
        let said = self.call("Runtime.evaluate", wish);
        assert!(said["exceptionDetails"].is_null(), "{script}: {said}");
        said["result"]["value"].clone()
    }

    /// Waits until a script says true.
    pub(crate) fn wait(&mut self, script: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            // While a page goes and another comes there is nothing to ask.
            let wish = json!({"expression": script, "returnByValue": true});
            let said = self.call("Runtime.evaluate", wish);
            if said["result"]["value"] == true {
                return;
            }
            if Instant::now() > end {
                let place = self.eval("location.href + '\\n' + document.body.innerText");
                panic!("never true: {script}\n{}", place.as_str().unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(40));
        }
    }

    pub(crate) fn wait_for_text(&mut self, text: &str) {
        self.wait(&format!(
            "document.readyState === 'complete' && document.body.innerText.includes({})",
            json!(text)
        ));
    }

    pub(crate) fn size(&mut self, width: u32, height: u32) {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.call("Emulation.setDeviceMetricsOverride", metrics);
    }

    pub(crate) fn colours(&mut self, scheme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features}));
    }

    /// A picture of the whole page, into `target/screenshots`.
    pub(crate) fn picture(&mut self, name: &str) {
        let height = self.eval("Math.min(document.documentElement.scrollHeight, 2400)");
        let width = self.eval("innerWidth");
        let clip = json!({"x": 0, "y": 0, "width": width, "height": height, "scale": 1});
        let wish = json!({"format": "png", "captureBeyondViewport": true, "clip": clip});
        let said = self.call("Page.captureScreenshot", wish);
        let data = said["data"].as_str().unwrap();
        let bytes = base64::engine::general_purpose::STANDARD.decode(data).unwrap();
        let dir = screenshots();
        std::fs::create_dir_all(&dir).unwrap();
        store::save(&dir, &format!("{name}.png"), &bytes).unwrap();
    }

    /// A key, pressed and let go: `Tab`, `Enter`, `Escape`, or a space.
    pub(crate) fn key(&mut self, key: &str) {
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            "Escape" => (27, ""),
            " " => (32, " "),
            other => panic!("no key {other}"),
        };
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({"type": kind, "key": key, "windowsVirtualKeyCode": code});
            if kind == "keyDown" && !text.is_empty() {
                event["text"] = json!(text);
            }
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// Writes where the focus is, over what is selected.
    pub(crate) fn write(&mut self, text: &str) {
        self.call("Input.insertText", json!({"text": text}));
    }

    /// Goes on by Tab until the focus is on what is called so, and sees to it that one can see where.
    pub(crate) fn tab_to(&mut self, name: &str) {
        let mut passed = Vec::new();
        for _ in 0..120 {
            self.key("Tab");
            let focus = self.eval(
                "(() => { const e = document.activeElement; const s = getComputedStyle(e);
                  const name = e.getAttribute('aria-label') || e.labels?.[0]?.innerText || e.innerText || e.value || '';
                  return [name.trim(), s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) > 0, e.tagName]; })()",
            );
            let found = focus[0].as_str().unwrap_or_default().to_owned();
            if focus[2] != "BODY" {
                assert_eq!(focus[1], true, "the focus on {found:?} cannot be seen");
            }
            if found == name {
                return;
            }
            passed.push(found);
        }
        panic!("Tab never comes to {name:?}; it passes {passed:?}");
    }
}

pub(crate) fn screenshots() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let beside = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target"));
    target.unwrap_or_else(beside).join("screenshots")
}
