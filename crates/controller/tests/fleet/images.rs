//! The image store, as clients of registries and nodes see it.

use bytes::Bytes;
use hyper::{HeaderMap, Method, StatusCode};
use sha2::{Digest as _, Sha256};

use crate::common::{Home, Node, device, now};
use crate::device_api::attest;

pub(crate) struct Client {
    pub(crate) node: Node,
    pub(crate) auth: String,
}

impl Client {
    /// Somebody with the administrator's token.
    pub(crate) fn admin(home: &Home) -> Client {
        let token = std::fs::read_to_string(home.data().join("admin.token")).unwrap();
        Client { node: home.node("client"), auth: format!("Bearer {}", token.trim()) }
    }

    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> (StatusCode, HeaderMap, Bytes) {
        let mut headers = headers.to_vec();
        if !self.auth.is_empty() {
            headers.push(("authorization", &self.auth));
        }
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        self.node.http(method, path, &headers, body.into()).await
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Bytes) {
        let (status, _, body) = self.call("GET", path, &[], "").await;
        (status, body)
    }
}

fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn text(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default()
}

/// Pushes a content in three pieces and returns its digest.
pub(crate) async fn push_blob(client: &Client, repository: &str, bytes: &[u8]) -> String {
    let digest = sha256(bytes);
    let (status, head, _) =
        client.call("POST", &format!("/v2/{repository}/blobs/uploads/"), &[], "").await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let place = text(&head, "location");
    let (one, rest) = bytes.split_at(bytes.len() / 3);
    let (status, head, _) = client.call("PATCH", &place, &[], one.to_vec()).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    assert_eq!(text(&head, "range"), format!("0-{}", one.len() - 1));
    let (two, three) = rest.split_at(rest.len() / 2);
    let from = format!("{}-{}", one.len(), one.len() + two.len() - 1);
    let range = [("content-range", from.as_str())];
    let (status, _, _) = client.call("PATCH", &place, &range, two.to_vec()).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    // The same piece again: the answer may have been lost.
    let (status, head, _) = client.call("PATCH", &place, &range, two.to_vec()).await;
    assert_eq!(status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(text(&head, "range"), format!("0-{}", one.len() + two.len() - 1));
    let (status, head, _) = client.call("GET", &place, &[], "").await;
    assert_eq!(status, StatusCode::NO_CONTENT, "what is there is told");
    assert_eq!(text(&head, "range"), format!("0-{}", one.len() + two.len() - 1));
    let end = format!("{place}?digest={digest}");
    let (status, head, _) = client.call("PUT", &end, &[], three.to_vec()).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(text(&head, "location"), format!("/v2/{repository}/blobs/{digest}"));
    digest
}

#[tokio::test]
async fn an_image_is_pushed_pulled_run_and_deleted() {
    let mut home = Home::start().await;
    let client = Client::admin(&home);
    let layer: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    let layer_digest = push_blob(&client, "team/hello", &layer).await;
    let config = br#"{"architecture":"amd64","os":"linux"}"#;
    let config_digest = push_blob(&client, "team/hello", config).await;
    let manifest = |layer: &str| {
        let kind = "application/vnd.oci.image";
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{kind}.manifest.v1+json",
                "config":{{"mediaType":"{kind}.config.v1+json","digest":"{config_digest}","size":37}},
                "layers":[{{"mediaType":"{kind}.layer.v1.tar","digest":"{layer}","size":400000}}]}}"#
        )
    };
    let missing = manifest(&sha256(b"never pushed"));
    let (status, _, why) = client.call("PUT", "/v2/team/hello/manifests/1", &[], missing).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(String::from_utf8_lossy(&why).contains("MANIFEST_BLOB_UNKNOWN"));
    let manifest = manifest(&layer_digest);
    let digest = sha256(manifest.as_bytes());
    let (status, head, _) =
        client.call("PUT", "/v2/team/hello/manifests/1", &[], manifest.clone()).await;
    assert_eq!(
        (status, text(&head, "docker-content-digest")),
        (StatusCode::CREATED, digest.clone())
    );

    // Anyone may pull; also after a restart.
    home.again().await;
    let anyone = Client { node: home.node("x"), auth: String::new() };
    for reference in ["1", digest.as_str()] {
        let (status, head, body) =
            anyone.call("GET", &format!("/v2/team/hello/manifests/{reference}"), &[], "").await;
        assert_eq!((status, body), (StatusCode::OK, Bytes::from(manifest.clone())));
        assert_eq!(text(&head, "content-type"), "application/vnd.oci.image.manifest.v1+json");
    }
    let path = format!("/v2/team/hello/blobs/{layer_digest}");
    assert_eq!(anyone.get(&path).await, (StatusCode::OK, Bytes::from(layer.clone())));
    // A part that lies in two parts of the store.
    let range = [("range", "bytes=130000-140000")];
    let (status, head, body) = anyone.call("GET", &path, &range, "").await;
    assert_eq!((status, &body[..]), (StatusCode::PARTIAL_CONTENT, &layer[130_000..=140_000]));
    assert_eq!(text(&head, "content-range"), "bytes 130000-140000/400000");
    let (_, tags) = anyone.get("/v2/team/hello/tags/list").await;
    assert_eq!(tags, r#"{"name":"team/hello","tags":["1"]}"#);
    // It is an image of ours for apps.
    let operator = home.operator();
    let app = "kind: App\nname: a\nspec: {device: '*', image: 'team/hello:1'}\n";
    operator.apply(app, false).await.unwrap();
    let wrong = app.replace("hello:1", "hello:2");
    let e = operator.apply(&wrong, false).await.unwrap_err().to_string();
    assert!(e.contains("team/hello:1"), "{e}");

    // A layer that is there is mounted, not sent again.
    let client = Client::admin(&home);
    let mount = format!("/v2/other/blobs/uploads/?mount={layer_digest}&from=team/hello");
    assert_eq!(client.call("POST", &mount, &[], "").await.0, StatusCode::CREATED);

    let (status, _, _) = client.call("DELETE", "/v2/team/hello/manifests/1", &[], "").await;
    assert_eq!(status, StatusCode::ACCEPTED);
    assert_eq!(anyone.get("/v2/team/hello/manifests/1").await.0, StatusCode::NOT_FOUND);
    let by_digest = format!("/v2/team/hello/manifests/{digest}");
    assert_eq!(anyone.get(&by_digest).await.0, StatusCode::OK);
    assert_eq!(client.call("DELETE", &by_digest, &[], "").await.0, StatusCode::ACCEPTED);
    assert_eq!(client.call("DELETE", &by_digest, &[], "").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn bad_uploads_are_refused_and_leave_nothing() {
    let home = Home::start().await;
    let client = Client::admin(&home);
    let digest = sha256(b"hello");
    let one = format!("/v2/a/blobs/uploads/?digest={digest}");
    let (status, _, why) = client.call("POST", &one, &[], "other").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(String::from_utf8_lossy(&why).contains("DIGEST_INVALID"));
    assert_eq!(client.get(&format!("/v2/a/blobs/{digest}")).await.0, StatusCode::NOT_FOUND);
    assert_eq!(client.call("POST", &one, &[], "hello").await.0, StatusCode::CREATED);
    assert_eq!(client.get(&format!("/v2/a/blobs/{digest}")).await.1, "hello");

    for path in ["/v2/../blobs/uploads/", "/v2/A/blobs/uploads/", "/v2/a%2f..%2fb/blobs/uploads/"] {
        let status = client.call("POST", path, &[], "").await.0;
        assert!(status.is_client_error(), "{path}: {status}");
    }
    for (reference, body) in [("1", "{}"), ("1", "no json"), ("-bad", "{\"manifests\":[]}")] {
        let path = format!("/v2/a/manifests/{reference}");
        let status = client.call("PUT", &path, &[], body).await.0;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{reference} {body}");
    }
    let nobody = format!("/v2/a/blobs/uploads/{}", uuid::Uuid::from_u128(1));
    assert_eq!(client.call("PATCH", &nobody, &[], "x").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_file_is_uploaded_in_pieces_and_served_in_parts() {
    let home = Home::start().await;
    let client = Client::admin(&home);
    let bytes: Vec<u8> = (0..50_000_u32).flat_map(u32::to_be_bytes).collect();
    let hex = hex::encode(Sha256::digest(&bytes));
    let path = format!("/api/operator/v1/images/debian/disk.qcow2?sha256={hex}");
    assert_eq!(client.get(&path).await.0, StatusCode::NOT_FOUND);
    let piece = |from: usize, to: usize| {
        (format!("bytes {from}-{}/{}", to - 1, bytes.len()), bytes[from..to].to_vec())
    };
    let (range, body) = piece(0, 80_000);
    let (status, _, _) = client.call("PUT", &path, &[("content-range", &range)], body).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let (_, state) = client.get(&path).await;
    assert!(String::from_utf8_lossy(&state).contains("\"have\":80000"), "{state:?}");
    let (range, body) = piece(90_000, 100_000);
    let (status, _, why) = client.call("PUT", &path, &[("content-range", &range)], body).await;
    assert_eq!(status, StatusCode::CONFLICT, "there is a gap");
    assert!(String::from_utf8_lossy(&why).contains("80000 bytes are there"), "{why:?}");
    let (range, body) = piece(80_000, bytes.len());
    let (status, _, _) = client.call("PUT", &path, &[("content-range", &range)], body).await;
    assert_eq!(status, StatusCode::CREATED);

    let anyone = Client { node: home.node("x"), auth: String::new() };
    assert_eq!(anyone.get("/images/debian/disk.qcow2").await.1, bytes);
    let range = [("range", "bytes=-5")];
    let (status, head, body) = anyone.call("GET", "/images/debian/disk.qcow2", &range, "").await;
    assert_eq!((status, &body[..]), (StatusCode::PARTIAL_CONTENT, &bytes[bytes.len() - 5..]));
    assert_eq!(text(&head, "etag"), format!("\"sha256:{hex}\""));
    let stale = [("range", "bytes=-5"), ("if-range", "\"another\"")];
    let (status, _, _) = anyone.call("GET", "/images/debian/disk.qcow2", &stale, "").await;
    assert_eq!(status, StatusCode::OK, "everything, not a part of something else");

    let other = format!("/api/operator/v1/images/other.raw?sha256={}", hex::encode([7; 32]));
    let (status, _, _) = client.call("PUT", &other, &[], "not that").await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let (status, body) = client.get(&other).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "thrown away: {body:?}");
    for name in ["..", "%2e%2e/x", "a//b", ".ssh", "a%5cb", "a%00"] {
        let path = format!("/api/operator/v1/images/{name}?sha256={hex}");
        let status = client.call("PUT", &path, &[], "x").await.0;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{name}");
    }
    let (status, _) = anyone.get(&path).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let plain = "/api/operator/v1/images/debian/disk.qcow2";
    assert_eq!(client.call("DELETE", plain, &[], "").await.0, StatusCode::NO_CONTENT);
    assert_eq!(anyone.get("/images/debian/disk.qcow2").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn who_may_pull_and_push_is_told_by_tokens() {
    let mut home = Home::start().await;
    home.settings = |settings| settings.open_registry = false;
    home.again().await;
    home.operator().apply(&device("edge-1", "soft-1"), false).await.unwrap();
    let admin = Client::admin(&home);
    let digest = sha256(b"hello");
    let push = format!("/v2/a/blobs/uploads/?digest={digest}");
    assert_eq!(admin.call("POST", &push, &[], "hello").await.0, StatusCode::CREATED);
    let blob = format!("/v2/a/blobs/{digest}");

    let anyone = Client { node: home.node("x"), auth: String::new() };
    let (status, head, _) = anyone.call("GET", "/v2/", &[], "").await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let realm = format!("Bearer realm=\"https://localhost:{}/v2/token\"", home.port());
    assert!(text(&head, "www-authenticate").starts_with(&realm), "{head:?}");
    for (method, path) in [("GET", blob.as_str()), ("POST", &push), ("GET", "/v2/token")] {
        let status = anyone.call(method, path, &[], "").await.0;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{method} {path}");
    }
    // With the token as a password, as `docker login` has it.
    let token = admin.auth.strip_prefix("Bearer ").unwrap();
    let basic = base64(&format!("ann:{token}"));
    let login = Client { node: home.node("x"), auth: format!("Basic {basic}") };
    let (status, body) = login.get("/v2/token?service=eve&scope=repository:a:pull,push").await;
    assert_eq!(status, StatusCode::OK);
    let given: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let auth = format!("Bearer {}", given["token"].as_str().unwrap());
    let docker = Client { node: home.node("x"), auth };
    assert_eq!(docker.get("/v2/").await.0, StatusCode::OK);
    assert_eq!(docker.get(&blob).await.1, "hello");
    assert_eq!(docker.call("POST", &push, &[], "hello").await.0, StatusCode::CREATED);
    // It is a token for images, not for the rest.
    assert_eq!(docker.get("/api/operator/v1/devices").await.0, StatusCode::UNAUTHORIZED);
    let wrong = Client { node: home.node("x"), auth: format!("Basic {}", base64("ann:guess")) };
    assert_eq!(wrong.get("/v2/token").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(wrong.get(&blob).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_node_opens_a_closed_registry_with_what_its_config_says() {
    use api::cipher::{CertHash, ExchangeKey, Opener};
    use api::convert::attest::{NodeCertificate, Purpose, Request};
    use api::convert::config::{Answer, Request as ConfigRequest, read_sealed_answer};

    let mut home = Home::start().await;
    home.settings = |settings| settings.open_registry = false;
    home.again().await;
    let digest = sha256(b"hello");
    let push = format!("/v2/a/blobs/uploads/?digest={digest}");
    let admin = Client::admin(&home);
    assert_eq!(admin.call("POST", &push, &[], "hello").await.0, StatusCode::CREATED);
    let app = format!("kind: App\nname: a\nspec: {{device: edge-1, image: 'a@{digest}'}}\n");
    let objects = format!("{}{app}", device("edge-1", "soft-1"));
    home.operator().apply(&objects, false).await.unwrap();

    let node = home.node("soft-1");
    let id = node.onboard().await;
    let key = ExchangeKey::generate().unwrap();
    let own = api::exchange_certificate(&node.key, &node.certificate, &key, now()).unwrap();
    let shown = NodeCertificate {
        purpose: Purpose::KeyExchange,
        hash: CertHash::of(own.pem()).0.to_vec(),
        pem: own.pem().to_vec(),
        mutable: true,
    };
    attest(&node, id, Request::Certificates(vec![shown])).await;

    let asked = ConfigRequest { hash: String::new(), integrity_token: Vec::new() };
    let (status, body) = node.post(&format!("id/{id}/config"), &asked.to_payload()).await;
    assert_eq!(status, StatusCode::OK);
    let payload = node.opened(&body).await;
    let ours = std::fs::read(home.data().join("pki/ecdh.cert.pem")).unwrap();
    let ours = api::Certificate::from_pem(&ours).unwrap();
    let opener = Opener::new(&key, &own, &[ours]);
    let answer = read_sealed_answer(&payload, id, "", &mut |contexts, block| {
        let opener = opener.clone().with_contexts(contexts);
        opener.open(block).map(|plain| plain.expose().clone()).map_err(|e| e.to_string())
    });
    let Answer::Changed { device: told, .. } = answer.unwrap() else { panic!("nothing is told") };
    let datastore = told.datastores.values().next().unwrap();
    let given = datastore.credentials.as_ref().unwrap();
    assert_eq!(given.user.reveal(), id.to_string());
    let clear = given.password.reveal().as_bytes();
    assert!(!payload.windows(clear.len()).any(|w| w == clear), "it is sealed");

    let pair = format!("{}:{}", given.user.reveal(), given.password.reveal());
    let puller = Client { node: home.node("x"), auth: format!("Basic {}", base64(&pair)) };
    assert_eq!(
        puller.get(&format!("/v2/a/blobs/{digest}")).await,
        (StatusCode::OK, "hello".into())
    );
    let status = puller.call("POST", &push, &[], "hello").await.0;
    assert_ne!(status, StatusCode::CREATED, "it opens, and changes nothing");
    home.operator().quarantine("edge-1", Some("stolen")).await.unwrap();
    assert_eq!(puller.get(&format!("/v2/a/blobs/{digest}")).await.0, StatusCode::UNAUTHORIZED);
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// Bytes of memory this process had at most since the last call.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib << 10
}

/// 300 MB through the server, up and down, with both ends in this process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_image_takes_no_memory() {
    const PIECE: usize = 64 << 10;
    const PIECES: usize = 300 * (1 << 20) / PIECE;
    let home = Home::start().await;
    let client = Client::admin(&home);
    // What a first exchange costs is not what we measure.
    let warm = vec![1; 2 << 20];
    let one = format!("/v2/a/blobs/uploads/?digest={}", sha256(&warm));
    assert_eq!(client.call("POST", &one, &[], warm.clone()).await.0, StatusCode::CREATED);
    drop(warm);

    let piece = Bytes::from(vec![42; PIECE]);
    let mut hash = Sha256::new();
    (0..PIECES).for_each(|_| hash.update(&piece));
    let digest = format!("sha256:{}", hex::encode(hash.finalize()));
    std::fs::OpenOptions::new()
        .write(true)
        .open("/proc/self/clear_refs")
        .and_then(|mut f| std::io::Write::write_all(&mut f, b"5"))
        .unwrap();
    let before = peak();
    let path = format!("/v2/a/blobs/uploads/?digest={digest}");
    let auth = [("authorization", client.auth.as_str())];
    let pieces = std::iter::repeat_n(piece, PIECES);
    let (status, _) = client.node.stream(Method::POST, &path, &auth, pieces).await;
    assert_eq!(status, StatusCode::CREATED);
    let up = peak() - before;
    let blob = format!("/v2/a/blobs/{digest}");
    let (status, got) = client.node.stream(Method::GET, &blob, &auth, std::iter::empty()).await;
    assert_eq!((status, got), (StatusCode::OK, (PIECES * PIECE) as u64));
    let down = peak() - before;
    eprintln!("300 MB up: {up} bytes of memory more, and down: {down}");
    assert!(down < 4 << 20, "{up} bytes more for the upload, {down} with the download");
}
