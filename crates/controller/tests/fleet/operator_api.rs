//! The operator API, the registry and the data folder.

use crate::common::{Home, device, now};
use bytes::Bytes;
use controller::client::{Apply, Client, ClientError};
use controller::objects::{Key, Kind};
use controller::view::DeviceDiff;
use controller::{ServeError, Settings, new_token, serve};
use hyper::{Method, StatusCode};
use model::Digest;
use sha2::{Digest as _, Sha256};

#[tokio::test]
async fn without_the_token_nothing_is_told() {
    let home = Home::start().await;
    let node = home.node("x");
    for path in ["", "/devices", "/objects", "/logs?device=x", "/nothing"] {
        let path = format!("/api/operator/v1{path}");
        assert_eq!(node.get(&path).await.0, StatusCode::UNAUTHORIZED, "{path}");
    }
    let root = node.root_pem.clone();
    let url = home.operator().url().to_owned();
    let wrong = Client::new(&url, "guess", &root).unwrap();
    assert!(matches!(wrong.devices().await, Err(ClientError::Token { .. })));
    assert_eq!(home.operator().controller().await.unwrap().devices, 0);
}

#[tokio::test]
async fn the_token_is_told_once_and_can_be_replaced() {
    let mut home = Home::start().await;
    let first = home.running.as_ref().unwrap().first_token.clone().unwrap();
    let old = home.operator();
    home.again().await;
    assert_eq!(home.running.as_ref().unwrap().first_token, None);
    let file = std::fs::read_to_string(home.data().join("admin.token")).unwrap();
    assert_eq!(file.trim(), first);
    let database = std::fs::read(home.data().join("controller.db")).unwrap();
    assert!(!database.windows(first.len()).any(|w| w == first.as_bytes()), "kept as a hash only");
    new_token(&home.data(), None, now).await.unwrap();
    let url = home.operator().url().to_owned();
    let old = Client::new(&url, &first, &home.node("x").root_pem).unwrap_or(old);
    assert!(matches!(old.devices().await, Err(ClientError::Token { .. })));
    assert!(home.operator().devices().await.is_ok());
}

#[tokio::test]
async fn one_controller_a_folder() {
    let home = Home::start().await;
    let settings = Settings { registry: None, ..Settings::new(home.data(), now) };
    assert!(matches!(serve(settings).await, Err(ServeError::InUse(_))));
}

#[tokio::test]
async fn documents_are_applied_all_or_none_and_again_without_effect() {
    let home = Home::start().await;
    let operator = home.operator();
    let text = device("edge-1", "one") + "kind: Volume\nname: data\nspec: {size: 1GiB}\n";
    let actions = |applied: controller::view::Applied| {
        applied.changes.iter().map(|c| c.action.name()).collect::<Vec<_>>()
    };
    assert_eq!(actions(operator.apply(&text, false).await.unwrap()), ["created", "created"]);
    assert_eq!(actions(operator.apply(&text, false).await.unwrap()), ["unchanged", "unchanged"]);
    let grown = text.replace("1GiB", "2GiB");
    assert_eq!(actions(operator.apply(&grown, false).await.unwrap()), ["unchanged", "changed"]);

    let wrong = "kind: Volume\nname: more\nspec: {size: 1GiB}\n---\nkind: Volume\nname: bad\nspec: {sice: 1}\n";
    let refused = operator.apply(wrong, false).await.unwrap_err().to_string();
    assert!(
        refused.contains("Volume bad: spec.sice: unknown field `sice`, expected one of"),
        "{refused}"
    );
    assert_eq!(operator.objects().await.unwrap().len(), 2);

    let again = controller::view::NewDevice { serial: "one".to_owned(), ..Default::default() };
    let refused = operator.add_device(&again).await.unwrap_err().to_string();
    assert!(refused.contains("\"one\" is already that of Device edge-1"), "{refused}");
}

#[tokio::test]
async fn a_dry_run_a_prune_and_an_expectation_do_what_they_say() {
    let home = Home::start().await;
    let operator = home.operator();
    let volume = |name: &str, size: &str| {
        format!("kind: Volume\nname: {name}\nspec: {{size: {size}}}\n---\n")
    };
    let both = volume("a", "1GiB") + &volume("b", "1GiB");
    let dry = Apply { dry_run: true, ..Apply::default() };
    let would = operator.apply_as(&both, &dry).await.unwrap();
    assert_eq!(would.changes.len(), 2);
    assert!(operator.objects().await.unwrap().is_empty(), "a dry run stores nothing");

    operator.apply_as(&both, &Apply::default()).await.unwrap();
    let prune = Apply { prune: vec![Kind::Volume], ..Apply::default() };
    let text = device("edge-1", "one") + &volume("a", "1GiB");
    let pruned = operator.apply_as(&text, &prune).await.unwrap();
    let actions: Vec<_> =
        pruned.changes.iter().map(|c| format!("{} {}", c.key, c.action.name())).collect();
    assert_eq!(actions, ["Device edge-1 created", "Volume a unchanged", "Volume b removed"]);
    assert_eq!(operator.objects().await.unwrap().len(), 2);

    let key = Key::new(Kind::Volume, "a");
    let at = |generation| Apply { expected: vec![(key.clone(), generation)], ..Apply::default() };
    operator.apply_as(&volume("a", "2GiB"), &at(1)).await.unwrap();
    let late = operator.apply_as(&volume("a", "3GiB"), &at(1)).await.unwrap_err();
    assert!(matches!(&late, ClientError::Refused { status: 409, .. }), "{late}");
    assert!(late.to_string().contains("it is at generation 2, not 1"), "{late}");
    for query in ["prune=Nothing", "expect=Volume/a", "expect=a@1", "expect=Volume/a@x"] {
        let refused = operator.send::<serde_json::Value>(&format!("/objects?{query}"), &both).await;
        assert!(matches!(refused, Err(ClientError::Refused { status: 422, .. })), "{query}");
    }
}

#[tokio::test]
async fn what_is_used_is_not_deleted_by_accident() {
    let home = Home::start().await;
    let operator = home.operator();
    let text = device("edge-1", "one")
        + "kind: Datastore\nname: far\nspec: {type: registry, host: registry.example}\n---\n"
        + "kind: Network\nname: lab\nspec: {subnet: 10.9.0.0/24}\n---\n"
        + "kind: App\nname: web\nspec: {device: edge-1, image: \"a:1\", datastore: far, network: lab}\n";
    operator.apply(&text, false).await.unwrap();
    let refused = operator.delete("network", "lab", false).await.unwrap_err().to_string();
    assert!(refused.contains("Network lab is still used: App web: spec.network[0]"), "{refused}");
    operator.delete("network", "lab", true).await.unwrap();
    assert_eq!(operator.app("web").await.unwrap().flaws.len(), 1);
    let gone = operator.delete("network", "lab", false).await.unwrap_err().to_string();
    assert_eq!(gone, "there is no Network lab");
}

#[tokio::test]
async fn counters_grow_with_what_needs_them() {
    let home = Home::start().await;
    let operator = home.operator();
    let app = |rest: &str| {
        device("edge-1", "one")
            + "kind: Datastore\nname: far\nspec: {type: registry, host: registry.example}\n---\n"
            + &format!("kind: App\nname: web\nspec: {{device: edge-1, datastore: far, {rest}}}\n")
    };
    let counters = async || {
        let app = operator.app("web").await.unwrap();
        (app.restart, app.purge)
    };
    operator.apply(&app("image: \"a:1\""), false).await.unwrap();
    assert_eq!(counters().await, (0, 0));
    operator.apply(&app("image: \"a:1\", memory: 64MiB"), false).await.unwrap();
    assert_eq!(counters().await, (1, 0), "resources need a restart");
    operator.apply(&app("image: \"a:2\", memory: 64MiB"), false).await.unwrap();
    assert_eq!(counters().await, (1, 1), "another image needs a fresh root");
    operator.apply(&app("image: \"a:2\", memory: 64MiB, ports: [\"1:1\"]"), false).await.unwrap();
    assert_eq!(counters().await, (1, 1), "rules apply live");
    operator.restart_app("web").await.unwrap();
    operator.purge_app("web").await.unwrap();
    assert_eq!(counters().await, (2, 2));
    assert!(operator.restart_app("nothing").await.is_err());
    let events = operator.events(0, 100).await.unwrap();
    assert!(events.iter().any(|e| e.object == "App web" && e.text == "restart asked for"));
}

#[tokio::test]
async fn images_are_pulled_by_tag_digest_and_range() {
    let home = Home::start().await;
    let operator = home.operator();
    operator.apply(&device("edge-1", "one"), false).await.unwrap();
    let app = "kind: App\nname: hello\nspec: {device: edge-1, image: hello}\n";
    let refused = operator.apply(app, false).await.unwrap_err().to_string();
    assert!(
        refused.contains("there is no hello:latest in the registry (it has nothing)"),
        "{refused}"
    );

    let layout = store::Layout::create(&home.images).unwrap();
    let (blob, _) = layout.put(b"0123456789").unwrap();
    let mut image = store::ImageBuilder::new(&layout, store::Platform::linux("amd64"));
    image.label("a", "b");
    let target = image.finish().unwrap();
    layout.tag("docker.io/library/hello:latest", &target).unwrap();
    operator.apply(app, false).await.unwrap();

    let node = home.node("x");
    let get = async |method: Method, path: &str, range: &[(&str, &str)]| {
        node.http(method, &format!("/v2/{path}"), range, Bytes::new()).await
    };
    assert_eq!(get(Method::GET, "", &[]).await.0, StatusCode::UNAUTHORIZED, "sent for a token");
    let digest = target.digest.to_string();
    for reference in ["latest", &digest] {
        let path = format!("hello/manifests/{reference}");
        let (status, headers, body) = get(Method::GET, &path, &[]).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        assert_eq!(headers["docker-content-digest"], digest.as_str());
        assert_eq!(headers["content-type"], "application/vnd.oci.image.manifest.v1+json");
        assert_eq!(Digest(Sha256::digest(&body).into()), target.digest);
        let (status, headers, none) = get(Method::HEAD, &path, &[]).await;
        assert_eq!((status, none.len()), (StatusCode::OK, 0));
        assert_eq!(headers["content-length"], body.len().to_string().as_str());
    }
    let path = format!("hello/blobs/{blob}");
    assert_eq!(get(Method::GET, &path, &[]).await.2, "0123456789");
    let (status, headers, part) = get(Method::GET, &path, &[("range", "bytes=4-")]).await;
    assert_eq!((status, &part[..]), (StatusCode::PARTIAL_CONTENT, &b"456789"[..]));
    assert_eq!(headers["content-range"], "bytes 4-9/10");
    let (status, ..) = get(Method::GET, &path, &[("range", "bytes=10-")]).await;
    assert_eq!(status, StatusCode::RANGE_NOT_SATISFIABLE);
    let (_, _, tags) = get(Method::GET, "hello/tags/list", &[]).await;
    assert_eq!(tags, r#"{"name":"hello","tags":["latest"]}"#);
    for path in ["hello/manifests/other", "none/manifests/latest", "hello/blobs/sha256:00", "../x"]
    {
        let (status, ..) = get(Method::GET, path, &[]).await;
        assert!(status.is_client_error(), "{path}: {status}");
    }
    let (status, ..) = get(Method::PUT, "hello/manifests/latest", &[]).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_diff_is_of_what_apply_would_do() {
    let home = Home::start().await;
    let operator = home.operator();
    let far = "kind: Datastore\nname: far\nspec: {type: registry, host: registry.example}\n---\n";
    let app = |name: &str| {
        format!(
            "kind: App\nname: {name}\nspec: {{device: edge-1, image: \"a:1\", datastore: far}}\n---\n"
        )
    };
    let all = device("edge-1", "soft-1") + far + &app("web") + &app("old");
    operator.apply(&all, false).await.unwrap();
    let diff = async |documents: &str, how: &Apply| {
        let path = format!("/devices/edge-1/diff{}", how.query());
        let found = operator.send::<DeviceDiff>(&path, documents).await;
        found.map(|d| d.consequences.iter().map(|c| c.subject.clone()).collect::<Vec<_>>())
    };
    let plain = Apply::default();
    assert!(diff(&app("web"), &plain).await.unwrap().is_empty());
    let prune = Apply { prune: vec![Kind::App], ..Apply::default() };
    let pruned = diff(&app("web"), &prune).await.unwrap();
    assert!(pruned.iter().any(|s| s == "App old"), "{pruned:?}");
    let missing = app("new").replace("far", "nowhere");
    assert!(diff(&missing, &plain).await.is_err());
    let lenient = Apply { allow_missing: true, ..Apply::default() };
    assert!(diff(&missing, &lenient).await.is_ok());
    let stale = Apply { expected: vec![(Key::new(Kind::App, "web"), 7)], ..Apply::default() };
    assert!(diff(&app("web"), &stale).await.is_err());
}

#[tokio::test]
async fn refusals_about_nodes_name_what_is_meant() {
    let home = Home::start().await;
    let operator = home.operator();
    let refused = operator.allow_serial("SN-9*").await.unwrap_err().to_string();
    assert!(refused.contains("patterns are not read"), "{refused}");
    operator.allow_serial("*").await.unwrap();
    operator.allow_serial("SN-1").await.unwrap();
    let unknown = operator.disallow_serial("SN-2").await.unwrap_err();
    assert!(matches!(&unknown, ClientError::Refused { status: 404, .. }), "{unknown}");
    let said = unknown.to_string();
    assert!(said.contains("SN-2 was not allowed to register; these are: *, SN-1"), "{said}");
    operator.disallow_serial("SN-1").await.unwrap();
    operator.disallow_serial("*").await.unwrap();
    let said = operator.disallow_serial("*").await.unwrap_err().to_string();
    assert!(said.contains("* was not allowed to register: none is"), "{said}");

    let node = home.node("A1");
    let pem = String::from_utf8(node.certificate.pem().to_vec()).unwrap();
    let new = |name: &str| controller::view::NewDevice {
        name: name.to_owned(),
        certificate: Some(pem.clone()),
        ..Default::default()
    };
    operator.add_device(&new("edge-5")).await.unwrap();
    let said = operator.add_device(&new("edge-6")).await.unwrap_err().to_string();
    assert!(said.contains("Device edge-6: this certificate is that of Device edge-5"), "{said}");

    // No node could sign with this one.
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let odd = rcgen::CertificateParams::default().self_signed(&key).unwrap().pem();
    for (new, field) in [
        (controller::view::NewDevice { certificate: Some(odd.clone()), ..new("p") }, "certificate"),
        (controller::view::NewDevice { onboard_cert: Some(odd), ..new("p") }, "onboard_cert"),
    ] {
        let said = operator.add_device(&new).await.unwrap_err().to_string();
        assert!(said.contains(&format!("{field}: the certificate has a key of type")), "{said}");
    }
    let with_onboard = controller::view::NewDevice {
        serial: "SN-7".to_owned(),
        onboard_cert: Some(pem),
        ..Default::default()
    };
    operator.add_device(&with_onboard).await.unwrap();
    let again = controller::view::NewDevice { name: "other".to_owned(), ..with_onboard };
    let said = operator.add_device(&again).await.unwrap_err().to_string();
    assert!(said.contains("is already that of Device node-sn-7"), "{said}");
    assert!(said.contains("add this one by its own certificate"), "{said}");
}

#[tokio::test]
async fn what_a_node_was_asked_for_is_shown_until_it_says_so() {
    use api::pb::info::{ZInfoDevice, ZInfoMsg, ZInfoTypes, z_info_msg::InfoContent};

    let home = Home::start().await;
    let operator = home.operator();
    operator.allow_serial("*").await.unwrap();
    let node = home.node("A1");
    let id = node.onboard().await;
    let name = operator.device(&id.to_string()).await.unwrap().name;
    let asked = async || operator.device(&name).await.unwrap().asked;
    assert!(asked().await.is_empty());
    operator.restart_device(&name).await.unwrap();
    operator.ask_device(&name, "shutdown").await.unwrap();
    let both = [
        "a reboot: it has not said that it knows of it",
        "a shutdown: it has not said that it knows of it",
    ];
    assert_eq!(asked().await, both);
    let told = node.config(id, "", b"").await.unwrap().unwrap().1.power;
    assert_eq!((told.reboot, told.shutdown), (Some(1), Some(1)));
    assert_eq!(asked().await, both, "it was told, which says nothing");
    let said = ZInfoDevice { reboot_config_counter: 1, ..ZInfoDevice::default() };
    let info = ZInfoMsg {
        ztype: ZInfoTypes::ZiDevice.into(),
        dev_id: id.to_string(),
        info_content: Some(InfoContent::Dinfo(said)),
        ..ZInfoMsg::default()
    };
    let (status, why) = node.post(&format!("id/{id}/info"), &api::wire::encode(&info)).await;
    assert_eq!(status, StatusCode::CREATED, "{why:?}");
    assert_eq!(asked().await, both[1..]);
}

#[tokio::test]
async fn the_audit_log_tells_dry_runs() {
    let home = Home::start().await;
    let operator = home.operator();
    let text = device("edge-1", "one");
    let dry = Apply { dry_run: true, ..Apply::default() };
    operator.apply_as(&text, &dry).await.unwrap();
    operator.apply_as("kind: Volume\nname: x\nspec: {sice: 1}\n", &dry).await.unwrap_err();
    operator.apply_as(&text, &Apply::default()).await.unwrap();
    let which = controller::AuditFilter { action: "POST".to_owned(), ..Default::default() };
    let lines = operator.audit(&which).await.unwrap();
    let outcomes: Vec<&str> = lines.iter().map(|l| l.outcome.as_str()).collect();
    assert_eq!(outcomes, ["dry run, nothing changed", "dry run, refused: 422", "done"]);
    // Who only says so makes no dry run of what knows none.
    operator.remove("/objects/Device/edge-1?dry_run=true").await.unwrap();
    let deletes = controller::AuditFilter { action: "DELETE".to_owned(), ..which };
    let lines = operator.audit(&deletes).await.unwrap();
    assert_eq!(lines.iter().map(|l| l.outcome.as_str()).collect::<Vec<_>>(), ["done"]);
}
