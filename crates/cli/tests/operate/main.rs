//! What operators type, against a controller in this process.

mod asked;
mod node;

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use controller::{Running, Settings, serve};
use model::UnixMillis;
use tokio::runtime::Runtime;

fn now() -> UnixMillis {
    UnixMillis(1_770_000_000_000)
}

/// A controller, and a folder for files.
struct Site {
    runtime: Runtime,
    running: Option<Running>,
    dir: tempfile::TempDir,
}

impl Site {
    fn start() -> Site {
        let dir = tempfile::tempdir().unwrap();
        let runtime = Runtime::new().unwrap();
        let settings = Settings {
            registry: Some(dir.path().join("images")),
            ..Settings::new(dir.path().join("data"), now)
        };
        let running = runtime.block_on(serve(settings)).unwrap();
        Site { runtime, running: Some(running), dir }
    }

    fn stop(&mut self) {
        let running = self.running.take().unwrap();
        self.runtime.block_on(running.stop());
    }

    fn save(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.dir.path().join(name);
        let folder = path.parent().unwrap();
        std::fs::create_dir_all(folder).unwrap();
        store::save(folder, path.file_name().unwrap().to_str().unwrap(), text.as_ref()).unwrap();
    }

    #[expect(clippy::disallowed_methods, reason = "the program under test, with pipes of our own")]
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_eve"));
        command.args(words).current_dir(self.dir.path());
        command.env("EVE_CONTROLLER_DATA", self.dir.path().join("data"));
        command.env("XDG_CONFIG_HOME", self.dir.path()).env("HOME", self.dir.path());
        command.env("TZ", "Europe/Berlin");
        for name in ["EVE_CONTROLLER", "EVE_TOKEN", "EVE_CA", "EVE_CONTEXT"] {
            command.env_remove(name);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, words: &[&str], input: &str) -> Output {
        let mut child = self.command(words).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// What it prints.
    fn eve(&self, line: &str) -> String {
        let words: Vec<&str> = line.split(' ').collect();
        let output = self.run(&words, "");
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "eve {line}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What it says as it fails, with its exit code.
    fn fails(&self, line: &str) -> (i32, String) {
        let words: Vec<&str> = line.split(' ').collect();
        let output = self.run(&words, "");
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }
}

const FLEET: &str = "kind: Group
name: berlin
spec: {query: site=berlin}
---
kind: Window
name: night
spec:
  match: group=berlin
  from: '02:00'
  minutes: 60
";
const NODES: &str = "kind: Device
name: edge-1
spec: {serial: SN-1, labels: {site: berlin}}
---
kind: Device
name: edge-2
spec: {soft_serial: SN-2}
---
kind: Secret
name: hook
spec: {value: hunter2}
---
kind: AlertRule
name: silent
spec: {when: silent, url: 'https://hooks.example/', secret: {secret: hook}}
---
kind: AlertRule
name: disk
spec: {when: disk_full, url: 'https://hooks.example/', secret: words}
";

#[test]
fn a_folder_is_applied_read_back_and_applied_again() {
    let site = Site::start();
    site.save("site/fleet.yml", FLEET);
    site.save("site/more/nodes.yml", NODES);
    let said = site.eve("apply -f site --dry-run");
    assert_eq!(said.matches("would be created").count(), 7, "{said}");
    assert_eq!(site.eve("apply -f site").matches(" created").count(), 7);
    assert_eq!(site.eve("apply -f site").matches(" unchanged").count(), 7);

    let written = site.eve("objects -o yaml");
    assert!(!written.contains("hunter2") && !written.contains("words"), "{written}");
    let again = site.run(&["apply", "-f", "-"], &written);
    let said = String::from_utf8(again.stdout).unwrap();
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    assert_eq!(said.matches(" unchanged").count(), said.lines().count(), "{said}");
    assert_eq!(said.lines().count(), 7, "{said}");

    // The same things by their own commands.
    assert!(site.eve("group show berlin").contains("edge-1"));
    assert!(site.eve("window list").contains("group=berlin"));
    assert_eq!(site.eve("alert rule list").matches("(signed)").count(), 2);
    for list in ["group list", "group show berlin", "window list", "alert rule list"] {
        let written = site.eve(&format!("{list} -o yaml"));
        let again = site.run(&["apply", "-f", "-"], &written);
        let said = String::from_utf8(again.stdout).unwrap();
        assert!(again.status.success(), "{list}: {}", String::from_utf8_lossy(&again.stderr));
        let all = if list.starts_with("alert") { 2 } else { 1 };
        assert_eq!(
            (said.lines().count(), said.matches(" unchanged").count()),
            (all, all),
            "{said}"
        );
    }
    let said = site.eve("delete window night --json");
    assert_eq!(said.trim(), "{\n  \"done\": \"Window night deleted\"\n}");
    let said = site.eve("apply -f site --prune=Group,Window,AlertRule");
    assert!(said.contains("Window night created"), "{said}");

    site.save("site/fleet.yml", FLEET.replace("02:00", "26:00"));
    let (code, said) = site.fails("apply -f site");
    assert_eq!(code, 1);
    assert!(said.contains("site/fleet.yml:9:9: Window night: spec.from: "), "{said}");
    let (_, said) = site.fails("schedule add later -f site --at +5m");
    assert!(said.contains("site/fleet.yml:9:9: "), "{said}");
    let (_, said) = site.fails("device diff edge-1 -f site/more -f site/fleet.yml");
    assert!(said.contains("site/fleet.yml:9:9: "), "{said}");
    let (_, said) = site.fails("rollout start r -f site/more");
    assert!(said.contains("no device is told of AlertRule"), "{said}");
}

#[test]
fn nodes_are_listed_by_labels_and_found_by_what_is_on_the_box() {
    let site = Site::start();
    site.save("nodes.yml", NODES);
    site.save("fleet.yml", FLEET);
    site.eve("apply nodes.yml fleet.yml");
    let said = site.eve("device list --match group=berlin");
    assert!(said.contains("edge-1") && !said.contains("edge-2"), "{said}");
    assert!(site.eve("device show SN-1").starts_with("name        edge-1\n"));
    // Why it fits is to be seen.
    let said = site.eve("device list");
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].ends_with("LABELS") && lines[1].ends_with("  site=berlin"), "{said}");
    assert!(!site.eve("device list --match name=edge-2").contains("LABELS"));
    assert!(site.eve("device show edge-1").contains("\nlabels      site=berlin\n"));
    let facts = site.eve("device list --match site=berlin --json");
    let facts: serde_json::Value = serde_json::from_str(&facts).unwrap();
    assert_eq!(facts[0]["labels"], serde_json::json!({ "site": "berlin" }));
    assert!(site.eve("device show edge-1 -o yaml").contains("labels:\n  site: berlin\n"));
    let id = site.eve("device show edge-2 --json");
    let id: serde_json::Value = serde_json::from_str(&id).unwrap();
    let said = site.eve(&format!("device restart {}", id["id"].as_str().unwrap()));
    assert!(said.starts_with("edge-2 reboots"), "{said}");
    assert!(site.eve("drift SN-2").contains("edge-2  "));
    let (code, said) = site.fails("device show SN-3");
    assert_eq!(code, 1);
    assert!(said.starts_with("eve: there is no Device SN-3\n  what to do: "), "{said}");
    let (code, said) = site.fails("device list --match a,,b");
    assert!(code == 1 && said.starts_with("eve: match: "), "{said}");

    let said = site.eve("schedule add later -f fleet.yml --at 2126-07-01T02:00:00+02:00");
    let local = "later is due at 2126-07-01T00:00:00Z, here Mon 2126-07-01 02:00 (Europe/Berlin)";
    assert_eq!(said.trim(), local);
    assert_eq!(site.fails("schedule add x -f fleet.yml --at tomorrow").0, 2);
    let (code, said) = site.fails("schedule add x -f fleet.yml --at 2020-01-01T00:00:00Z");
    assert!(code == 1 && said.starts_with("eve: 2020-01-01T00:00:00Z is past: "), "{said}");

    let said = site.eve("fleet");
    assert!(said.contains("nodes       2: 2 expected\n"), "{said}");
    let facts: serde_json::Value = serde_json::from_str(&site.eve("fleet --json")).unwrap();
    assert_eq!((&facts["devices"], &facts["states"]["expected"]), (&2.into(), &2.into()));
}

/// A tar as `docker save` writes it.
fn saved(path: &Path) {
    saved_as(path, "team/web:1.0");
}

fn saved_as(path: &Path, name: &str) {
    let layer = {
        let mut layer = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(5);
        header.set_mode(0o644);
        layer.append_data(&mut header, "hello", &b"hello"[..]).unwrap();
        layer.into_inner().unwrap()
    };
    let config =
        r#"{"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}"#;
    let manifest =
        format!(r#"[{{"Config": "c.json", "RepoTags": ["{name}"], "Layers": ["a/layer.tar"]}}]"#);
    let mut archive = tar::Builder::new(std::fs::File::create(path).unwrap());
    for (name, bytes) in [
        ("a/layer.tar", layer.as_slice()),
        ("c.json", config.as_bytes()),
        ("manifest.json", manifest.as_bytes()),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, bytes).unwrap();
    }
    archive.finish().unwrap();
}

#[test]
fn what_docker_saves_goes_into_the_registry() {
    let site = Site::start();
    let none = site.run(&["image", "tags"], "");
    assert!(none.status.success() && none.stdout.is_empty(), "{none:?}");
    let said = String::from_utf8(none.stderr).unwrap();
    assert!(said.starts_with("the registry holds no image"), "{said}");
    assert_eq!(site.eve("image tags --json"), "[]\n");
    saved(&site.dir.path().join("web.tar"));
    let said = site.eve("image push web.tar");
    assert!(said.starts_with("team/web:1.0 sha256:"), "{said}");
    assert_eq!(site.eve("image tags"), "team/web:1.0\n");
    // Again, and by another name: nothing is sent twice.
    let output = site.run(&["image", "push", "web.tar", "--name", "team/web:2"], "");
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && errors.contains("2 there already"), "{errors}");
    let (code, said) = site.fails("image push web.tar --from other");
    assert!(code == 1 && said.contains("--from one of: team/web:1.0"), "{said}");
    site.save("empty.raw", "");
    let (code, said) = site.fails("image push empty.raw");
    assert!(code == 1 && said.starts_with("eve: empty.raw is empty\n"), "{said}");
    let said = site.eve("image push web.tar --as-file --name web.raw");
    assert!(said.starts_with("web.raw sha256:"), "{said}");
    site.save("app.yml", "kind: App\nname: web\nspec: {device: '*', image: 'team/web:2'}\n");
    assert!(site.eve("apply app.yml").contains("App web created"));
}

/// What an older docker and one that keeps images in containerd call the same image.
const NEU: [&str; 2] = ["neu:3", "docker.io/library/neu:3"];

#[test]
fn an_image_comes_packed_or_through_a_pipe_under_one_name() {
    let site = Site::start();
    let file = |name: &str| site.dir.path().join(name);
    for (at, name) in NEU.into_iter().enumerate() {
        saved_as(&file(&format!("{at}.tar")), name);
        let tar = std::fs::read(file(&format!("{at}.tar"))).unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tar).unwrap();
        site.save(&format!("{at}.tar.gz"), gzip.finish().unwrap());
        site.save(&format!("{at}.zst"), zstd::encode_all(tar.as_slice(), 1).unwrap());
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(&tar).unwrap();
        site.save(&format!("{at}.tar.xz"), xz.finish().unwrap());
    }
    let said = site.eve("image push 0.tar.gz");
    assert!(said.starts_with("neu:3 sha256:"), "{said}");
    for other in ["1.tar.gz", "0.zst", "1.zst", "1.tar.xz", "1.tar --from neu:3"] {
        assert_eq!(site.eve(&format!("image push {other}")), said, "{other}");
    }
    site.save("app.yml", "kind: App\nname: neu\nspec: {device: '*', image: 'neu:3'}\n");
    assert!(site.eve("apply app.yml").contains("App neu created"));

    // As it is and packed; from a pipe and from a file.
    let pushed = |words: &[&str], stdin: Stdio, input: &[u8]| {
        let mut child = site.command(words).stdin(stdin).spawn().unwrap();
        if let Some(mut pipe) = child.stdin.take() {
            // Who refuses reads no further.
            let _ = pipe.write_all(input);
        }
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    for name in ["1.tar", "1.tar.gz"] {
        let bytes = std::fs::read(file(name)).unwrap();
        let (code, out, errors) = pushed(&["image", "push", "-"], Stdio::piped(), &bytes);
        assert!(code == 0 && out == said, "{name}: {out}{errors}");
        let stdin = Stdio::from(std::fs::File::open(file(name)).unwrap());
        let (code, out, errors) = pushed(&["image", "push", "-", "more/neu"], stdin, b"");
        assert!(code == 0 && out.starts_with("more/neu:latest "), "{name}: {out}{errors}");
    }
    assert_eq!(site.eve("image tags"), "more/neu:latest\nneu:3\n");
    let whole = std::fs::read(file("1.tar.gz")).unwrap();
    let cut = &whole[..whole.len() / 2];
    let (code, _, errors) = pushed(&["image", "push", "-"], Stdio::piped(), cut);
    let damaged = "eve: cannot read standard input to its end: ";
    assert!(code == 1 && errors.contains(damaged), "{errors}");
    let (code, _, errors) = pushed(&["image", "push", "-"], Stdio::piped(), b"");
    assert!(code == 1 && errors.contains("standard input is empty\n"), "{errors}");
    let (code, _, errors) = pushed(&["image", "push", "-"], Stdio::piped(), b"disk");
    assert!(code == 2 && errors.contains("give NAME after it"), "{errors}");
    let (code, out, _) = pushed(&["image", "push", "-", "disk.raw"], Stdio::piped(), b"disk");
    assert!(code == 0 && out.starts_with("disk.raw sha256:"), "{out}");
    let (code, errors) = site.fails("image push nothing.tar");
    assert!(code == 1 && errors.starts_with("eve: cannot read nothing.tar: "), "{errors}");
}

/// What a program that goes on says on standard error, until it says this.
fn until(child: &mut Child, want: &str) -> String {
    let mut errors = child.stderr.take().unwrap();
    let mut said = Vec::new();
    let mut piece = [0; 512];
    while !String::from_utf8_lossy(&said).contains(want) {
        let n = errors.read(&mut piece).unwrap();
        assert!(n > 0, "it ended: {}", String::from_utf8_lossy(&said));
        said.extend_from_slice(&piece[..n]);
    }
    child.stderr = Some(errors);
    String::from_utf8(said).unwrap()
}

#[test]
fn who_watches_goes_on_until_it_is_refused() {
    let mut site = Site::start();
    let words = ["device", "list", "--watch=1"];
    let url = std::fs::read_to_string(site.dir.path().join("data/endpoint")).unwrap();
    let mut wrong = site.command(&words);
    let refused = wrong.env("EVE_CONTROLLER", url.trim()).env("EVE_TOKEN", "wrong").output();
    let refused = refused.unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("refuses the token"), "{said}");
    let mut child = site.command(&words).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    site.stop();
    let said = until(&mut child, "trying again");
    // Nobody listens there, or by now the controller of another test.
    let ways = ["eve: cannot reach the controller at ", "eve: cannot talk to the controller at "];
    assert!(ways.iter().any(|way| said.starts_with(way)), "{said}");
    std::thread::sleep(Duration::from_millis(1200));
    assert!(child.try_wait().unwrap().is_none(), "it goes on");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn who_was_handed_a_line_logs_in_with_it() {
    let site = Site::start();
    let password = "correct horse battery\n";
    site.eve("user set ann");
    assert!(site.run(&["user", "password", "ann"], password).status.success());
    let output = site.run(&["user", "link", "ann", "--json"], "");
    let link: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let line = link["login"].as_str().unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains(line), "{line}");
    let own = site.running.as_ref().unwrap().fingerprint.clone();
    let words: Vec<&str> = line.split(' ').collect();
    let (eve, words) = words.split_first().unwrap();
    assert!(*eve == "eve" && words.ends_with(&["--fingerprint", &own]), "{line}");
    let log_in = |words: &[&str], input: &str| {
        let output = site.run(words, input);
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(log_in(words, password), (0, String::new()));

    // The certificate that vouches for it, as the login keeps it; in another writing.
    let known: serde_json::Value = serde_json::from_str(&site.eve("context --json")).unwrap();
    let root = known[0]["fingerprint"].as_str().unwrap();
    assert_ne!(root, own);
    let plain = root.replace(':', "").to_lowercase();
    let words = [&words[..4], &["--fingerprint", &plain]].concat();
    assert_eq!(log_in(&words, password), (0, String::new()));
    let (code, said) = log_in(&[&words[..5], &[&plain[..62]]].concat(), password);
    assert!(code == 1 && said.contains(&format!("another fingerprint: {own}")), "{said}");
    // Who has none is shown both.
    let (code, said) = log_in(&words[..4], "no\n");
    assert!(code == 1 && said.contains(&own) && said.contains(root), "{said}");
    let (code, said) = log_in(&words[..4], &format!("yes\n{password}"));
    assert_eq!(code, 0, "{said}");
}

#[test]
fn what_is_done_to_users_and_logins_is_said_for_programs_too() {
    let site = Site::start();
    let json = |line: &str, input: &str| -> serde_json::Value {
        let words: Vec<&str> = line.split(' ').chain(["--json"]).collect();
        let output = site.run(&words, input);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "eve {line}: {errors}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let said = json("user set ann --role operator", "");
    assert_eq!(said["done"], "ann is operator, projects: all");
    let said = json("user password ann", "correct horse battery\n");
    assert_eq!(said["done"], "ann has a new password");
    let link = json("user link ann", "");
    assert!(link["link"].as_str().unwrap().starts_with("https://"), "{link}");
    assert_eq!(link["minutes"], 15);

    let url = std::fs::read_to_string(site.dir.path().join("data/endpoint")).unwrap();
    let url = url.trim();
    let login = format!("login {url} --user ann --as-context lab --ca data/pki/root.cert.pem");
    let said = json(&login, "correct horse battery\n");
    assert_eq!(said, serde_json::json!({ "context": "lab", "url": url, "user": "ann" }));
    let known = json("context", "");
    assert_eq!(known[0]["context"], "lab");
    assert_eq!((&known[0]["current"], &known[0]["token"]), (&true.into(), &().into()));
    assert!(site.eve("context").contains("*  lab "));
    let said = json("logout", "");
    assert_eq!(said["done"], format!("logged out of {url}"));
    assert_eq!(json("context", ""), serde_json::json!([]));

    let made = json("token create ci --role viewer", "");
    assert!(made["secret"].is_string(), "{made}");
    assert_eq!(json("token delete ci", "")["done"], "token ci ended");
    assert_eq!(json("user delete ann", "")["done"], "user ann deleted");

    let made = json("controller conf --data data --out conf --soft-serial SN-9", "");
    assert_eq!((&made["folder"], &made["soft_serial"]), (&"conf".into(), &"SN-9".into()));
    let files = made["files"].as_array().unwrap();
    assert!(files.iter().all(|f| site.dir.path().join("conf").join(f.as_str().unwrap()).is_file()));
    let done = json("backup --data data --out all.backup", "");
    assert_eq!((&done["done"], &done["devices"]), (&"backed up".into(), &0.into()));
    assert_eq!(site.fails("backup --data data --out - --json").0, 2);
    // What is no file is not replaced by one.
    std::fs::create_dir(site.dir.path().join("taken")).unwrap();
    let (status, why) = site.fails("backup --data data --out taken");
    assert!(status == 1 && why.contains("taken is no file"), "{status}: {why}");
}
