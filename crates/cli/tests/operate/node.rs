//! A node that says what it likes, as operators read it.

use api::newlogs::{About, DeviceLog, Entry, pack};
use api::onboarding::{Named, Registration};
use api::pb::info::z_info_msg::InfoContent;
use api::pb::info::{ErrorInfo, ZInfoApp, ZInfoMsg, ZInfoTypes, ZSwState};
use api::{Certificate, Sender, SigningKey, envelope, limits, wire};
use host::http::{Client, Request, Resolver, Trust};
use model::{Bytes, DeviceId};

use crate::{Site, now};

/// It registers with a certificate of the controller's own.
struct Node<'a> {
    site: &'a Site,
    client: Client,
    url: String,
    key: SigningKey,
    certificate: Certificate,
}

impl Node<'_> {
    fn onboarded<'a>(site: &'a Site, serial: &str) -> (Node<'a>, DeviceId) {
        let data = site.dir.path().join("data");
        let files = controller::conf(&data, "localhost", serial).unwrap();
        let root = String::from_utf8(files["root-certificate.pem"].clone()).unwrap();
        let trust = Trust { system: false, pem: vec![root] };
        let key = SigningKey::generate().unwrap();
        let certificate = api::device_certificate(&key, now()).unwrap();
        let node = Node {
            site,
            client: Client::new(&trust, Resolver::default()).unwrap(),
            url: std::fs::read_to_string(data.join("endpoint")).unwrap().trim().to_owned(),
            key,
            certificate: certificate.clone(),
        };
        let own = Registration { certificate, serial: String::new(), soft_serial: serial.into() };
        let onboard_key = SigningKey::from_pem(&files["onboard.key.pem"]).unwrap();
        let onboard = Certificate::from_pem(&files["onboard.cert.pem"]).unwrap();
        let sender = Sender::onboarding(&onboard_key, &onboard);
        let (status, _) =
            node.post("register", envelope::sign(&own.to_payload(), &sender).unwrap());
        assert_eq!(status, 201);
        let (status, answer) = node.say("uuid", &[]);
        assert_eq!(status, 200);
        let named = envelope::open(&answer, limits::ONBOARDING).unwrap();
        let id = Named::from_payload(named.unverified_payload()).unwrap().id;
        (node, id)
    }

    fn post(&self, path: &str, body: Vec<u8>) -> (u16, Vec<u8>) {
        let url = format!("{}/api/v2/edgedevice/{path}", self.url);
        let request = Request {
            method: "POST".parse().unwrap(),
            body: body.into(),
            ..Request::get(url, 1 << 20).header("content-type", "application/x-proto-binary")
        };
        let answer = self.site.runtime.block_on(self.client.send(request)).unwrap();
        (answer.status, answer.body.to_vec())
    }

    fn say(&self, path: &str, payload: &[u8]) -> (u16, Vec<u8>) {
        let sender = Sender::device(&self.key, &self.certificate);
        self.post(path, envelope::sign(payload, &sender).unwrap())
    }
}

const APP: &str = "kind: App
name: web
spec: {device: edge-2, image: 'web:1', datastore: far}
---
kind: Datastore
name: far
spec: {type: registry, host: registry.example}
";
const HOSTILE: &str = "\x1b[31m\x1b]0;pwn\x07\u{9b}2J\u{202e}a\tb\r\nforged  row";

/// Nothing but lines, with tabs in them.
fn steers_nothing(text: &str) -> bool {
    let bidi = ['\u{200e}', '\u{200f}', '\u{202a}', '\u{202e}', '\u{2066}', '\u{2069}'];
    let control = |c: char| c.is_control() && c != '\n' && c != '\t';
    !text.contains(control) && !text.contains(bidi)
}

#[test]
fn what_a_node_says_does_not_steer_the_terminal() {
    let site = Site::start();
    site.save("nodes.yml", crate::NODES);
    site.save("app.yml", APP);
    site.eve("apply nodes.yml app.yml");
    let (node, id) = Node::onboarded(&site, "SN-2");
    let entry = Entry {
        severity: "info".to_owned(),
        source: HOSTILE.to_owned(),
        content: HOSTILE.to_owned(),
        timestamp: now().into(),
        ..Entry::default()
    };
    let about = About::Device(DeviceLog::default());
    let file = pack(&[entry], &about, now(), Bytes::kib(50)).unwrap().remove(0);
    assert_eq!(node.say(&format!("id/{id}/newlogs"), &file).0, 201);
    let told: serde_json::Value = serde_json::from_str(&site.eve("device config edge-2")).unwrap();
    let app = told["apps"][0]["uuidandversion"]["uuid"].as_str().unwrap().to_owned();
    let info = ZInfoMsg {
        ztype: ZInfoTypes::ZiApp.into(),
        dev_id: id.to_string(),
        info_content: Some(InfoContent::Ainfo(ZInfoApp {
            app_id: app,
            app_name: HOSTILE.to_owned(),
            state: ZSwState::Error.into(),
            app_err: vec![ErrorInfo { description: HOSTILE.to_owned(), ..ErrorInfo::default() }],
            ..ZInfoApp::default()
        })),
        ..ZInfoMsg::default()
    };
    assert_eq!(node.say(&format!("id/{id}/info"), &wire::encode(&info)).0, 201);

    let seen = r"\u{1b}[31m\u{1b}]0;pwn\u{7}\u{9b}2J\u{202e}a";
    let logs = site.eve("logs edge-2");
    assert!(steers_nothing(&logs), "{logs:?}");
    assert_eq!(logs.matches(&format!("{seen}\tb\\r\\nforged  row")).count(), 2, "{logs}");
    assert_eq!(logs.lines().count(), 1, "{logs}");
    for line in ["device show edge-2", "app show web", "drift edge-2", "events"] {
        let said = site.eve(line);
        assert!(steers_nothing(&said), "{line}: {said:?}");
        assert!(said.contains(seen), "{line}: {said}");
        assert!(!said.lines().any(|l| l.starts_with("forged")), "{line}: {said}");
    }

    // The same for programs, with its meaning.
    let line: serde_json::Value = serde_json::from_str(&site.eve("logs edge-2 --json")).unwrap();
    assert_eq!(line["content"], HOSTILE);
    assert!(steers_nothing(&site.eve("logs edge-2 --json")));

    // What is quoted in errors: of a file, and of what was typed.
    site.save(
        "bad.yml",
        format!("kind: Volume\nname: data\nspec: {{\"{}\": 1}}\n", r"\e[31m\x9bx"),
    );
    for line in ["apply bad.yml", "device show \x1b[31m", "device list --match \u{9b}a,,b"] {
        let (code, said) = site.fails(line);
        assert!(code == 1 && steers_nothing(&said), "{line:?}: {said:?}");
        assert!(said.contains(r"\u{"), "{line:?}: {said}");
    }
}
