//! Adam's admin REST, as Eden and scripts with curl use it, and a node at the other end.

use api::convert::config::Request as ConfigRequest;
use api::pb::config::{ConfigResponse, EdgeDevConfig};
use api::wire::{decode, encode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use controller::client::ClientError;
use http_body_util::BodyExt;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use sha2::Digest as _;

use crate::common::{Home, Node, device, now, wait_ms};

const JSON: &str = "application/json";
const PROTO: &str = "application/x-proto-binary";

struct Site {
    home: Home,
    token: String,
    /// Only a connection.
    wire: Node,
}

impl Site {
    async fn start() -> Site {
        let mut home = Home { settings: |s| s.adam = true, ..Home::stopped() };
        home.again().await;
        let token = std::fs::read_to_string(home.data().join("admin.token")).unwrap();
        let wire = home.node("nobody");
        Site { home, token: token.trim().to_owned(), wire }
    }

    /// As Go's client does with `https://eden:TOKEN@…`.
    fn basic(&self) -> String {
        format!("Basic {}", STANDARD.encode(format!("eden:{}", self.token)))
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: impl Into<Bytes>,
    ) -> (StatusCode, Bytes) {
        let basic = self.basic();
        let headers = [("authorization", basic.as_str()), ("content-type", kind), ("accept", kind)];
        let (status, _, body) =
            self.wire.http(method, &format!("/admin{path}"), &headers, body.into()).await;
        (status, body)
    }

    async fn get(&self, path: &str) -> String {
        let (status, body) = self.call(Method::GET, path, JSON, "").await;
        assert_eq!(status, StatusCode::OK, "{path}: {body:?}");
        String::from_utf8(body.to_vec()).unwrap()
    }

    async fn lines(&self, path: &str) -> Vec<Value> {
        let text = self.get(path).await;
        text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }

    async fn onboarding(&self, node: &Node, serial: &str) -> StatusCode {
        let body = json!({ "Cert": STANDARD.encode(node.onboard.pem()), "Serial": serial });
        self.call(Method::POST, "/onboard", JSON, body.to_string()).await.0
    }
}

/// A node with an onboarding certificate of its own, as EVE's images have one.
fn eve(home: &Home, serial: &str) -> Node {
    let mut node = home.node(serial);
    node.onboard_key = api::SigningKey::generate().unwrap();
    node.onboard = api::device_certificate(&node.onboard_key, now()).unwrap();
    node
}

/// What the node is told, to the byte, if it is anything new.
async fn told(node: &Node, id: model::DeviceId, have: &str) -> Option<ConfigResponse> {
    let request = ConfigRequest { hash: have.to_owned(), integrity_token: Vec::new() };
    let (status, body) = node.post(&format!("id/{id}/config"), &request.to_payload()).await;
    if status == StatusCode::NOT_MODIFIED {
        return None;
    }
    assert_eq!(status, StatusCode::OK);
    Some(decode(&node.opened(&body).await, api::limits::CONFIG).unwrap())
}

#[tokio::test]
async fn eden_onboards_a_node_and_tells_it_a_config() {
    let site = Site::start().await;
    let node = eve(&site.home, "SN-7");
    assert_eq!(node.register().await, StatusCode::FORBIDDEN);
    assert_eq!(site.onboarding(&node, "SN-1,SN-7").await, StatusCode::CREATED);
    let name = "EVE";
    assert_eq!(site.get("/onboard").await, name);
    let shown: Value = serde_json::from_str(&site.get(&format!("/onboard/{name}")).await).unwrap();
    assert_eq!(shown["Serial"], "SN-1,SN-7");
    assert_eq!(shown["Cert"], STANDARD.encode(node.onboard.pem()));

    let id = node.onboard().await;
    assert_eq!(site.get("/device").await, id.to_string());
    let shown: Value = serde_json::from_str(&site.get(&format!("/device/{id}")).await).unwrap();
    assert_eq!(shown["Cert"], STANDARD.encode(node.certificate.pem()));
    assert_eq!(shown["Onboard"], STANDARD.encode(node.onboard.pem()));
    assert_eq!(shown["Serial"], "SN-7");

    // As it is, compiled, for Eden to begin with.
    let path = format!("/device/{id}/config");
    let (status, bytes) = site.call(Method::GET, &path, PROTO, "").await;
    let mut config: EdgeDevConfig = decode(&bytes, api::limits::CONFIG).unwrap();
    assert_eq!((status, config.id.clone().unwrap().uuid), (StatusCode::OK, id.to_string()));

    config.device_name = "from eden".into();
    config.id.as_mut().unwrap().version = "5".into();
    config.config_timestamp = None;
    let mut bytes = encode(&config);
    // A field of number 1000, which nobody knows.
    bytes.extend([0xc2, 0x3e, 0x02, b'h', b'i']);
    assert_eq!(site.call(Method::PUT, &path, PROTO, bytes.clone()).await.0, StatusCode::OK);
    let first = told(&node, id, "").await.unwrap();
    let got = first.config.clone().unwrap();
    assert_eq!((got.device_name.as_str(), got.id.unwrap().version.as_str()), ("from eden", "5"));
    assert!(!got.controllercert_confighash.is_empty());
    assert!(told(&node, id, &first.config_hash).await.is_none(), "it has it");
    let (_, kept) = site.call(Method::GET, &path, PROTO, "").await;
    assert_eq!(kept, bytes, "to the byte");
    let drift = site.home.operator().device(&id.to_string()).await.unwrap();
    assert_eq!(drift.config_given.unwrap().version, "5");

    // Without a version it counts on; the clock was set back, and the time still moves forward.
    crate::common::back_ms(60_000);
    let text =
        json!({ "deviceName": "again", "deviceIoList": [{ "ptype": 1, "logicallabel": "e" }] });
    assert_eq!(site.call(Method::PUT, &path, JSON, text.to_string()).await.0, StatusCode::OK);
    let second = told(&node, id, &first.config_hash).await.unwrap().config.unwrap();
    assert_eq!((second.device_name.as_str(), second.id.unwrap().version.as_str()), ("again", "6"));
    let before = first.config.unwrap().config_timestamp.unwrap();
    let after = second.config_timestamp.unwrap();
    assert!((after.seconds, after.nanos) > (before.seconds, before.nanos), "{before:?} {after:?}");
    let shown: Value = serde_json::from_str(&site.get(&path).await).unwrap();
    assert_eq!(shown["deviceIoList"][0]["ptype"], "PhyIoNetEth");

    // What is wrong is said, and changes nothing.
    for (wrong, kind) in [
        (r#"{"id": {"uuid": "00000000-0000-4000-8000-000000000000"}}"#, JSON),
        (r#"{"aps": []}"#, JSON),
        ("\u{7f}", PROTO),
    ] {
        let (status, why) = site.call(Method::PUT, &path, kind, wrong).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{wrong}: {why:?}");
        assert!(!why.is_empty());
    }
    let unknown = "/device/00000000-0000-4000-8000-000000000000/config";
    assert_eq!(site.call(Method::PUT, unknown, JSON, "{}").await.0, StatusCode::NOT_FOUND);
    assert_eq!(site.call(Method::DELETE, "/onboard/none", JSON, "").await.0, StatusCode::NOT_FOUND);

    // Forgotten.
    assert_eq!(
        site.call(Method::DELETE, &format!("/device/{id}"), JSON, "").await.0,
        StatusCode::OK
    );
    assert_eq!(site.get("/device").await, "");
    assert_eq!(site.call(Method::DELETE, "/onboard", JSON, "").await.0, StatusCode::OK);
    assert_eq!(site.get("/onboard").await, "");
    assert_eq!(node.register().await, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_node_with_a_whole_config_is_out_of_reach_for_objects_until_given_back() {
    let site = Site::start().await;
    let operator = site.home.operator();
    operator.apply(&device("edge-1", "soft-1"), false).await.unwrap();
    let node = site.home.node("soft-1");
    let id = node.onboard().await;
    let compiled = told(&node, id, "").await.unwrap();

    let given = operator.give_config("edge-1", r#"{"deviceName": "mine"}"#).await.unwrap();
    assert_eq!((given.version.as_str(), given.author.as_str()), ("1", "admin"));
    let again = operator.give_config("edge-1", r#"{"deviceName": "mine"}"#).await.unwrap();
    assert_eq!(again.version, "2", "it says no version: it counts on");
    let mine = told(&node, id, &compiled.config_hash).await.unwrap();
    assert_eq!(mine.config.unwrap().device_name, "mine");

    // An object that would show on it is refused and says what to do; one that would not is taken.
    let item = "kind: Device\nname: edge-1\nspec:\n  soft_serial: soft-1\n  \
                settings: {timer.config.interval: '77'}\n";
    let Err(ClientError::Refused { failure, status: 422 }) = operator.apply(item, false).await
    else {
        panic!("an object that cannot reach its node was taken");
    };
    assert!(failure.flaws[0].text.contains("eve device config edge-1 --compiled"), "{failure:?}");
    operator.apply(&device("edge-2", "soft-2"), false).await.unwrap();
    // So are a restart, fresh volumes, a reboot, and to remove what would go from it.
    operator.give_config_back("edge-1").await.unwrap();
    let app = "kind: App\nname: hello\nspec: {device: \"*\", image: \"apps/hello\", datastore: far}\n\
               ---\nkind: Datastore\nname: far\nspec: {type: registry, host: registry.example}\n---\n";
    operator.apply(app, false).await.unwrap();
    operator.give_config("edge-1", r#"{"deviceName": "mine"}"#).await.unwrap();
    let mut tried = Vec::new();
    tried.push(operator.restart_app("hello").await);
    tried.push(operator.purge_app("hello").await);
    tried.push(operator.restart_device("edge-1").await);
    tried.push(operator.ask_device("edge-1", "shutdown").await);
    tried.push(operator.delete("App", "hello", false).await);
    let prune = controller::client::Apply {
        prune: vec![controller::objects::Kind::App],
        ..controller::client::Apply::default()
    };
    tried.push(operator.apply_as(&device("edge-2", "soft-2"), &prune).await.map(drop));
    for (n, outcome) in tried.into_iter().enumerate() {
        let Err(ClientError::Refused { failure, status: 422 }) = outcome else {
            panic!("{n} cannot reach its node and was taken: {outcome:?}");
        };
        assert!(
            failure.flaws[0].text.contains("eve device config edge-1 --compiled"),
            "{n}: {failure:?}"
        );
    }
    // Of another node all that goes; and this one by itself.
    operator.restart_device("edge-2").await.unwrap();
    operator.delete("App", "hello", true).await.unwrap();

    operator.give_config_back("edge-1").await.unwrap();
    assert!(operator.device("edge-1").await.unwrap().config_given.is_none());
    operator.apply(item, false).await.unwrap();
    let back = told(&node, id, &mine.config_hash).await.unwrap().config.unwrap();
    assert!(back.config_items.iter().any(|i| i.key == "timer.config.interval" && i.value == "77"));
}

#[tokio::test]
async fn what_nodes_say_comes_out_as_lines_and_as_a_stream() {
    let site = Site::start().await;
    let node = eve(&site.home, "SN-1");
    site.onboarding(&node, "*").await;
    let id = node.onboard().await;
    let info = |version: &str| {
        use api::pb::info::{ZInfoDevice, ZInfoMsg, ZInfoTypes, z_info_msg::InfoContent};
        let device = ZInfoDevice { machine_arch: version.into(), ..ZInfoDevice::default() };
        encode(&ZInfoMsg {
            ztype: ZInfoTypes::ZiDevice.into(),
            dev_id: id.to_string(),
            info_content: Some(InfoContent::Dinfo(device)),
            ..ZInfoMsg::default()
        })
    };
    let path = format!("id/{id}/info");
    assert_eq!(node.post(&path, &info("amd64")).await.0, StatusCode::CREATED);
    let base = format!("/device/{id}");
    let lines = site.lines(&format!("{base}/info")).await;
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["ztype"], "ZiDevice");
    assert_eq!(lines[0]["dinfo"]["machineArch"], "amd64");

    // Only what comes from now on.
    let basic = site.basic();
    let headers = [("authorization", basic.as_str()), ("x-stream", "true")];
    let stream = site.wire.opened_stream(&format!("/admin{base}/info"), &headers).await;
    let (mut stream, connection) = stream;
    wait_ms(1_000);
    assert_eq!(node.post(&path, &info("arm64")).await.0, StatusCode::CREATED);
    let mut text = Vec::new();
    while !text.ends_with(b"\n") {
        let frame = tokio::time::timeout(std::time::Duration::from_secs(20), stream.frame()).await;
        text.extend(frame.unwrap().unwrap().unwrap().into_data().unwrap());
    }
    let line: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(line["dinfo"]["machineArch"], "arm64", "the one before is not told again");
    connection.abort();

    let metrics = api::pb::metrics::ZMetricMsg {
        dev_id: id.to_string(),
        ..api::pb::metrics::ZMetricMsg::default()
    };
    assert_eq!(
        node.post(&format!("id/{id}/metrics"), &encode(&metrics)).await.0,
        StatusCode::CREATED
    );
    let lines = site.lines(&format!("{base}/metrics")).await;
    assert_eq!(lines[0]["devID"], id.to_string());

    let requests = site.lines(&format!("{base}/requests")).await;
    let urls: Vec<&str> = requests.iter().map(|r| r["url"].as_str().unwrap()).collect();
    let info_url = format!("/api/v2/edgedevice/id/{id}/info");
    assert_eq!(urls.iter().filter(|u| **u == info_url).count(), 2, "{urls:?}");
    assert_eq!(requests[0]["uuid"], id.to_string());
    assert_eq!(requests[0]["client-ip"], "127.0.0.1");

    let entry = api::newlogs::Entry {
        severity: "info".into(),
        source: "pillar".into(),
        content: "it \"says\" so".into(),
        timestamp: api::newlogs::Stamp { seconds: 1_770_000_000, nanos: 5_000_000 },
        ..api::newlogs::Entry::default()
    };
    let about = api::newlogs::About::Device(api::newlogs::DeviceLog::default());
    let most = model::Bytes::kib(50);
    let file = api::newlogs::pack(&[entry], &about, now(), most).unwrap().remove(0);
    assert_eq!(node.post(&format!("id/{id}/newlogs"), &file).await.0, StatusCode::CREATED);
    let lines = site.lines(&format!("{base}/logs")).await;
    assert_eq!(
        lines,
        [json!({ "severity": "info", "source": "pillar", "content": "it \"says\" so",
                 "timestamp": "2026-02-02T02:40:00.005Z" })]
    );
    let flow = api::pb::flowlog::FlowMessage {
        dev_id: id.to_string(),
        ..api::pb::flowlog::FlowMessage::default()
    };
    let sent = node.post(&format!("id/{id}/flowlog"), &encode(&flow)).await;
    assert_eq!(sent.0, StatusCode::CREATED);
    assert_eq!(site.lines(&format!("{base}/flowlogs")).await[0]["devId"], id.to_string());

    // What is too large for a row is shown as well, behind what came before.
    let long = "w".repeat(100_000);
    assert_eq!(node.post(&path, &info(&long)).await.0, StatusCode::CREATED);
    let lines = site.lines(&format!("{base}/info")).await;
    assert_eq!(lines.last().unwrap()["dinfo"]["machineArch"], long);
    let entries: Vec<api::newlogs::Entry> = (0..400)
        .map(|n: u64| api::newlogs::Entry {
            content: hex::encode(sha2::Sha256::digest(n.to_be_bytes())),
            timestamp: api::newlogs::Stamp { seconds: 1_770_000_001, nanos: 0 },
            ..api::newlogs::Entry::default()
        })
        .collect();
    for file in api::newlogs::pack(&entries, &about, now(), most).unwrap() {
        assert!(file.len() > 10_000, "as large as this test wants it");
        assert_eq!(node.post(&format!("id/{id}/newlogs"), &file).await.0, StatusCode::CREATED);
    }
    let lines = site.lines(&format!("{base}/logs")).await;
    let contents: Vec<&Value> = lines.iter().skip(1).map(|l| &l["content"]).collect();
    assert_eq!(contents, entries.iter().map(|e| &e.content).collect::<Vec<_>>());
    let dns = api::pb::flowlog::DnsRequest {
        host_name: "host.example".repeat(1_000),
        ..api::pb::flowlog::DnsRequest::default()
    };
    let flow = api::pb::flowlog::FlowMessage { dns_reqs: vec![dns.clone()], ..flow };
    let sent = node.post(&format!("id/{id}/flowlog"), &encode(&flow)).await;
    assert_eq!(sent.0, StatusCode::CREATED);
    let flows = site.lines(&format!("{base}/flowlogs")).await;
    assert_eq!(flows[1]["dnsReqs"][0]["hostName"], dns.host_name);

    let app = format!("app/{}/logs", uuid::Uuid::nil());
    for (path, empty) in [(app.as_str(), true), ("app/x/logs", false), ("nothing", false)] {
        let (status, body) = site.call(Method::GET, &format!("{base}/{path}"), JSON, "").await;
        assert_eq!(status.is_success(), empty, "{path}");
        assert!(!empty || body.is_empty(), "{path}: {body:?}");
    }
    // It has shown no certificates, and proven nothing.
    assert_eq!(
        site.call(Method::GET, &format!("{base}/certs"), JSON, "").await.0,
        StatusCode::NOT_FOUND
    );
    let options: Value = serde_json::from_str(&site.get(&format!("{base}/options")).await).unwrap();
    assert_eq!(options["attested"], false);
    let (status, why) =
        site.call(Method::PUT, "/options", JSON, r#"{"enforceTemplateAttestation": true}"#).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(String::from_utf8_lossy(&why).contains("eve device accept"));
}

#[tokio::test]
async fn nobody_comes_in_without_an_administrators_token() {
    let site = Site::start().await;
    let get = |auth: &str| {
        let auth = auth.to_owned();
        let wire = &site.wire;
        async move {
            let headers = [("authorization", auth.as_str())];
            wire.http(Method::GET, "/admin/device", &headers, Bytes::new()).await
        }
    };
    assert_eq!(site.wire.get("/admin/device").await.0, StatusCode::UNAUTHORIZED);
    let (status, headers, _) = get(&format!("Basic {}", STANDARD.encode("eden:wrong"))).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert_eq!(headers["www-authenticate"], "Bearer", "browsers are not to ask for a password");
    assert_eq!(get(&format!("Bearer {}", site.token)).await.0, StatusCode::OK);

    let operator = site.home.operator();
    let spec = json!({ "role": "operator" }).to_string();
    operator.put("/users/ops", &spec).await.unwrap();
    let made: Value = operator.send("/users/ops/tokens", r#"{"name": "t"}"#).await.unwrap();
    let weak = made["secret"].as_str().unwrap();
    assert_eq!(get(&format!("Bearer {weak}")).await.0, StatusCode::FORBIDDEN);

    // And nothing is there without the flag.
    let plain = Home::start().await;
    let token = std::fs::read_to_string(plain.data().join("admin.token")).unwrap();
    let bearer = format!("Bearer {}", token.trim());
    let headers = [("authorization", bearer.as_str())];
    let node = plain.node("x");
    let (status, ..) = node.http(Method::GET, "/admin/device", &headers, Bytes::new()).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_node_is_made_known_by_its_certificate() {
    let site = Site::start().await;
    let node = eve(&site.home, "SN-1");
    let body = json!({ "Cert": STANDARD.encode(node.certificate.pem()),
        "Onboard": STANDARD.encode(node.onboard.pem()), "Serial": "SN-1" });
    // Eden says text/plain.
    let made = site.call(Method::POST, "/device", "text/plain", body.to_string()).await;
    assert_eq!(made.0, StatusCode::CREATED, "{made:?}");
    let id = node.uuid().await.unwrap();
    let shown: Value = serde_json::from_str(&site.get(&format!("/device/{id}")).await).unwrap();
    assert_eq!(shown, body);
    let again = site.call(Method::POST, "/device", JSON, body.to_string()).await;
    assert_eq!(again.0, StatusCode::CONFLICT);
    for wrong in [json!({ "Cert": "!" }), json!({ "Cert": "AAAA" }), json!({}), json!([])] {
        let (status, why) = site.call(Method::POST, "/device", JSON, wrong.to_string()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{wrong}: {why:?}");
    }
    // Taken away, the token has to be earned again.
    let path = format!("/device/{id}/options");
    let put = site.call(Method::PUT, &path, JSON, r#"{"integrityToken": "mine"}"#).await;
    assert_eq!(put.0, StatusCode::OK);
    let options: Value = serde_json::from_str(&site.get(&path).await).unwrap();
    assert_eq!(options["integrityToken"], "", "nobody chooses a token");
    assert_eq!(site.call(Method::DELETE, "/device", JSON, "").await.0, StatusCode::OK);
    assert_eq!(site.get("/device").await, "");
    assert!(node.uuid().await.is_err());
}
