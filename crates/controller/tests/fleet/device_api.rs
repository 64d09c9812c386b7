//! The device API, from a node's side of a real connection.

use crate::common::{Home, Node, device, now, wait_ms};
use api::convert::attest::{Answer, Quote, Refusal, Request};
use api::{Sender, envelope, limits};
use hyper::StatusCode;
use model::desired::{Action, Origin};
use model::{Bytes, DeviceId};

#[tokio::test]
async fn a_node_onboards_gets_its_config_and_reports() {
    let home = Home::start().await;
    let operator = home.operator();
    operator.apply(&device("edge-1", "soft-1"), false).await.unwrap();
    let node = home.node("soft-1");
    assert_eq!(node.get("/api/v2/edgedevice/ping").await.0, StatusCode::OK);
    assert_eq!(node.uuid().await, Err(StatusCode::UNAUTHORIZED));
    let id = node.onboard().await;
    assert_eq!(node.register().await, StatusCode::OK, "again is fine");

    let (hash, told) = node.config(id, "", b"").await.unwrap().unwrap();
    assert_eq!((told.id, told.name.as_str()), (id, "edge-1"));
    assert!(!hash.is_empty() && told.timestamp.is_some());
    assert_eq!(node.config(id, &hash, b"").await, Ok(None), "304 for what it has");

    let shown = operator.device("edge-1").await.unwrap();
    assert_eq!(shown.id, id);
    assert_eq!(shown.state, controller::view::DeviceState::Online);
    wait_ms(3_600_000);
    let shown = operator.device("edge-1").await.unwrap();
    assert_eq!(shown.state, controller::view::DeviceState::Silent);
}

#[tokio::test]
async fn of_two_that_come_at_once_for_one_place_one_gets_it() {
    let home = Home::start().await;
    let text = "kind: Device\nname: edge-1\nspec: {serial: hard, soft_serial: soft}\n";
    home.operator().apply(text, false).await.unwrap();
    let (one, other) = (home.node("hard"), home.node("soft"));
    // While the first ones are decided on, the others come together.
    let strangers = [home.node("x"), home.node("y"), home.node("z")];
    let (_, first, second) = tokio::join!(
        futures_util::future::join_all(strangers.iter().map(|s| s.register())),
        one.register(),
        other.register(),
    );
    let taken = [(&one, first), (&other, second)];
    let taken: Vec<_> = taken.into_iter().filter(|(_, s)| *s == StatusCode::CREATED).collect();
    assert_eq!(taken.len(), 1, "{first} {second}");
    taken[0].0.uuid().await.expect("what was acknowledged holds");
}

#[tokio::test]
async fn who_may_register_is_decided_by_serial_and_certificate() {
    let home = Home::start().await;
    let operator = home.operator();
    let node = home.node("soft-1");
    assert_eq!(node.register().await, StatusCode::FORBIDDEN, "nobody expects it");
    operator.apply(&device("edge-1", "soft-1"), false).await.unwrap();
    assert_eq!(node.register().await, StatusCode::CREATED, "late approval needs no reboot");
    let twin = home.node("soft-1");
    assert_eq!(twin.register().await, StatusCode::CONFLICT, "another certificate, the same serial");
    let guest = home.node("guest");
    operator.allow_serial("*").await.unwrap();
    let id = guest.onboard().await;
    let named = operator.device(&id.to_string()).await.unwrap().name;
    assert_eq!(named, format!("node-{}", id.short()));
    // An onboarding certificate of somebody else's.
    let stranger = Home::start().await.node("guest");
    let mut forged = home.node("forged");
    forged.onboard = stranger.onboard;
    forged.onboard_key = stranger.onboard_key;
    assert_eq!(forged.register().await, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_message_counts_only_for_the_node_that_signed_it() {
    let home = Home::start().await;
    home.operator().allow_serial("*").await.unwrap();
    let (one, two, stranger) = (home.node("one"), home.node("two"), home.node("three"));
    let (id, other) = (one.onboard().await, two.onboard().await);

    assert_eq!(one.config(other, "", b"").await, Err(StatusCode::FORBIDDEN), "another's path");
    assert_eq!(stranger.config(id, "", b"").await, Err(StatusCode::UNAUTHORIZED), "unknown");
    let path = format!("id/{id}/config");
    let mut tampered = one.signed(b"payload");
    let at = tampered.windows(7).position(|w| w == b"payload").unwrap();
    tampered[at] ^= 1;
    assert_eq!(one.post_raw(&path, tampered).await.0, StatusCode::UNAUTHORIZED, "tampered");
    let onboarding = Sender::onboarding(&one.onboard_key, &one.onboard);
    let signed = envelope::sign(&[], &onboarding).unwrap();
    for path in [path.as_str(), "uuid"] {
        let status = one.post_raw(path, signed.clone()).await.0;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "the onboarding certificate on {path}");
    }
    let device = Sender::device(&one.key, &one.certificate);
    let signed = envelope::sign(&one.registration(), &device).unwrap();
    let status = one.post_raw("register", signed).await.0;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "register without a certificate");
    for garbage in [&b"\xff\xff\xff"[..], b"hello"] {
        let status = one.post_raw(&path, garbage.to_vec()).await.0;
        assert!(status == StatusCode::UNPROCESSABLE_ENTITY || status == StatusCode::UNAUTHORIZED);
    }
    for path in ["id/x/config", "id/00000000-0000-0000-0000-000000000000/config"] {
        assert_eq!(one.post(path, &[]).await.0, StatusCode::FORBIDDEN, "{path}");
    }
    assert_eq!(one.get("/api/v1/edgedevice/ping").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_oversized_body_is_refused_by_its_size() {
    let home = Home::start().await;
    home.operator().allow_serial("*").await.unwrap();
    let node = home.node("one");
    let id = node.onboard().await;
    let large = vec![0; usize::try_from(limits::NEWLOGS.0).unwrap() + 1];
    let (status, _) = node.post_raw(&format!("id/{id}/newlogs"), large).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
}

pub(crate) async fn attest(node: &Node, id: DeviceId, request: Request) -> Answer {
    let (status, body) = node.post(&format!("id/{id}/attest"), &request.to_payload()).await;
    assert_eq!(status, StatusCode::CREATED);
    Answer::from_payload(&node.opened(&body).await).unwrap()
}

#[tokio::test]
async fn a_node_without_tpm_attests_with_a_nonce_that_counts_once() {
    let home = Home::start().await;
    let text = "kind: Device\nname: edge-1\nspec: {soft_serial: one, attestation: true}\n";
    home.operator().apply(text, false).await.unwrap();
    let node = home.node("one");
    let id = node.onboard().await;
    assert_eq!(node.config(id, "", b"").await, Err(StatusCode::FORBIDDEN), "attest first");

    let none = attest(&node, id, Request::Certificates(Vec::new())).await;
    assert_eq!(none, Answer::Certificates);
    let Answer::Nonce(nonce) = attest(&node, id, Request::Nonce).await else { panic!("no nonce") };
    assert_eq!(nonce.len(), 16);
    let quote = || Request::Quote(Quote::default());
    let Answer::Quote(Ok(admission)) = attest(&node, id, quote()).await else { panic!("no token") };
    let token = admission.token;
    let again = attest(&node, id, quote()).await;
    assert_eq!(again, Answer::Quote(Err(Refusal::NonceMismatch)), "the nonce was used up");

    assert!(node.config(id, "", &token).await.unwrap().is_some());
    assert_eq!(node.config(id, "", b"wrong").await, Err(StatusCode::FORBIDDEN));
}

#[tokio::test]
async fn who_fails_to_prove_itself_again_loses_what_it_proved_before() {
    let home = Home::start().await;
    let text = "kind: Device\nname: edge-1\nspec: {soft_serial: one, attestation: true}\n";
    home.operator().apply(text, false).await.unwrap();
    let node = home.node("one");
    let id = node.onboard().await;
    let ask = async |quote: Quote| {
        attest(&node, id, Request::Nonce).await;
        attest(&node, id, Request::Quote(quote)).await
    };
    let Answer::Quote(Ok(admission)) = ask(Quote::default()).await else { panic!("no token") };
    assert!(node.config(id, "", &admission.token).await.unwrap().is_some());
    let stale = attest(&node, id, Request::Quote(Quote::default())).await;
    assert_eq!(stale, Answer::Quote(Err(Refusal::NonceMismatch)));
    assert!(node.config(id, "", &admission.token).await.is_ok(), "one that comes twice is nothing");

    let signed = Quote { signature: vec![1], ..Quote::default() };
    let Answer::Quote(Err(refusal)) = ask(signed).await else { panic!("believed") };
    assert_ne!(refusal, Refusal::NonceMismatch);
    assert_eq!(node.config(id, "", &admission.token).await, Err(StatusCode::FORBIDDEN));
}

#[tokio::test]
async fn log_files_are_kept_once_and_never_block_the_queue() {
    let home = Home::start().await;
    let operator = home.operator();
    operator.allow_serial("*").await.unwrap();
    let node = home.node("one");
    let id = node.onboard().await;
    let entry = |content: &str| api::newlogs::Entry {
        severity: "info".into(),
        source: "config".into(),
        content: content.into(),
        timestamp: now().into(),
        ..api::newlogs::Entry::default()
    };
    let about = api::newlogs::About::Device(api::newlogs::DeviceLog::default());
    let file =
        api::newlogs::pack(&[entry("a"), entry("b")], &about, now(), Bytes::kib(50)).unwrap();
    let path = format!("id/{id}/newlogs");
    for _ in 0..2 {
        assert_eq!(node.post(&path, &file[0]).await.0, StatusCode::CREATED);
    }
    assert_eq!(node.post(&path, b"no gzip").await.0, StatusCode::CREATED, "kept and flagged");
    let lines = operator.logs(&id.to_string(), None, 0, 100).await.unwrap();
    let said: Vec<&str> = lines.iter().map(|l| l.content.as_str()).collect();
    assert_eq!(said, ["a", "b"], "a duplicate is stored once");
    let after = operator.logs(&id.to_string(), None, lines[0].id, 100).await.unwrap();
    assert_eq!(after.len(), 1, "only what is new");
    let shown = operator.device(&id.to_string()).await.unwrap();
    assert!(
        shown.problems.iter().any(|p| p.contains("1 of its log files")),
        "{:?}",
        shown.problems
    );

    let app = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";
    let path = format!("id/{id}/apps/instanceid/{app}/newlogs");
    assert_eq!(node.post(&path, &file[0]).await.0, StatusCode::CREATED);
    let lines = operator.logs(&id.to_string(), Some(app), 0, 100).await.unwrap();
    assert_eq!(lines.len(), 2);
    // Whatever is refused comes again, and nothing behind it.
    let other = api::newlogs::pack(&[entry("e")], &about, now(), Bytes::kib(50)).unwrap();
    let nobody = node.post(&format!("id/{id}/apps/instanceid/x/newlogs"), &other[0]).await;
    assert_eq!(nobody.0, StatusCode::CREATED);
    let shown = operator.device(&id.to_string()).await.unwrap();
    assert!(
        shown.problems.iter().any(|p| p.contains("2 of its log files")),
        "{:?}",
        shown.problems
    );
    assert_eq!(operator.logs(&id.to_string(), None, 0, 100).await.unwrap().len(), 2);

    // One line that is no entry hides none of the others, nor itself.
    let text = b"{\"content\":\"c\"}\n{half\n{\"content\":\"d\"}\n";
    let path = format!("id/{id}/newlogs");
    assert_eq!(node.post(&path, &stored(text)).await.0, StatusCode::CREATED);
    let lines = operator.logs(&id.to_string(), None, 0, 100).await.unwrap();
    let said: Vec<&str> = lines.iter().map(|l| l.content.as_str()).collect();
    assert_eq!(said[2..], ["c", "{half", "d"]);
}

/// A text as gzip with a name, in one block that is not compressed (RFC 1951, 3.2.4; RFC 1952).
fn stored(text: &[u8]) -> Vec<u8> {
    let bit = |crc: u32, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1));
    let crc = text.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), bit));
    let length = u16::try_from(text.len()).unwrap();
    let mut file = vec![0x1f, 0x8b, 8, 0x08, 0, 0, 0, 0, 0, 255, b'x', 0, 1];
    file.extend(length.to_le_bytes());
    file.extend((!length).to_le_bytes());
    file.extend(text);
    file.extend((!crc).to_le_bytes());
    file.extend(u32::from(length).to_le_bytes());
    file
}

#[tokio::test]
async fn every_line_is_told_however_many_files_it_takes() {
    const FILES: usize = 510;
    let home = Home::start().await;
    let operator = home.operator();
    operator.allow_serial("*").await.unwrap();
    let node = home.node("one");
    let id = node.onboard().await;
    let path = format!("id/{id}/newlogs");
    let about = api::newlogs::About::Device(api::newlogs::DeviceLog::default());
    let numbers: Vec<usize> = (0..FILES).collect();
    for some in numbers.chunks(30) {
        let sent = some.iter().map(async |n| {
            let entry = api::newlogs::Entry {
                content: format!("line {n}"),
                timestamp: now().into(),
                ..api::newlogs::Entry::default()
            };
            let file = api::newlogs::pack(&[entry], &about, now(), Bytes::kib(50)).unwrap();
            assert_eq!(node.post(&path, &file[0]).await.0, StatusCode::CREATED);
        });
        futures_util::future::join_all(sent).await;
    }
    let lines = operator.logs(&id.to_string(), None, 0, 10_000).await.unwrap();
    let said: std::collections::BTreeSet<&str> = lines.iter().map(|l| &*l.content).collect();
    assert_eq!((lines.len(), said.len()), (FILES, FILES));
}

#[tokio::test]
async fn a_deleted_node_is_told_so_and_may_come_back() {
    let home = Home::start().await;
    let operator = home.operator();
    operator.apply(&device("edge-1", "one"), false).await.unwrap();
    let node = home.node("one");
    let id = node.onboard().await;
    operator.delete("device", "edge-1", false).await.unwrap();
    assert_eq!(node.config(id, "", b"").await, Err(StatusCode::NOT_FOUND));
    assert_eq!(node.uuid().await, Err(StatusCode::UNAUTHORIZED));
    assert_eq!(node.register().await, StatusCode::FORBIDDEN);
    operator.apply(&device("edge-2", "one"), false).await.unwrap();
    let again = node.onboard().await;
    assert_ne!(again, id);
    assert_eq!(node.config(id, "", b"").await, Err(StatusCode::FORBIDDEN), "the old path");
    assert!(node.config(again, "", b"").await.unwrap().is_some());
}

#[tokio::test]
async fn a_restart_forgets_nothing_that_was_acknowledged() {
    let mut home = Home::start().await;
    let text = device("edge-1", "one") + "kind: Network\nname: lab\nspec: {subnet: 10.9.0.0/24}\n";
    home.operator().apply(&text, false).await.unwrap();
    let mut node = home.node("one");
    let id = node.onboard().await;
    let (hash, told) = node.config(id, "", b"").await.unwrap().unwrap();
    let signer = node.signer().await;

    home.again().await;
    node.port = home.port();
    assert_eq!(node.signer().await, signer, "the same certificates");
    assert_eq!(node.uuid().await, Ok(id));
    // The same bytes, with the same time stamp, although another process signed them; the name the
    // node used before is remembered as well.
    let (same, again) = node.config(id, "", b"").await.unwrap().unwrap();
    assert_eq!((same, again), (hash, told));
    assert_eq!(home.operator().objects().await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_config_only_moves_forward_and_only_when_something_changed() {
    let home = Home::start().await;
    let operator = home.operator();
    operator.apply(&device("edge-1", "one"), false).await.unwrap();
    let node = home.node("one");
    let id = node.onboard().await;
    let (hash, first) = node.config(id, "", b"").await.unwrap().unwrap();
    wait_ms(1000);
    // Something else in the fleet changed.
    operator
        .apply("kind: Network\nname: other\nspec: {subnet: 10.8.0.0/24}\n", false)
        .await
        .unwrap();
    assert_eq!(node.config(id, &hash, b"").await, Ok(None));
    operator.restart_device("edge-1").await.unwrap();
    let (hash, second) = node.config(id, &hash, b"").await.unwrap().unwrap();
    assert!(second.timestamp > first.timestamp);
    assert_eq!((first.power.reboot, second.power.reboot), (Some(0), Some(1)));
    let text = "kind: Device\nname: edge-1\nspec: {soft_serial: one, settings: {timer.config.interval: 7}}\n";
    operator.apply(text, false).await.unwrap();
    let (_, third) = node.config(id, &hash, b"").await.unwrap().unwrap();
    assert!(third.timestamp > second.timestamp, "also within the same millisecond");
    assert_eq!(third.items["timer.config.interval"], "7");
}

#[tokio::test]
async fn an_app_with_a_missing_network_is_an_object_error_and_others_go_on() {
    let home = Home::start().await;
    let operator = home.operator();
    let layout = store::Layout::create(&home.images).unwrap();
    let mut image = store::ImageBuilder::new(&layout, store::Platform::linux("amd64"));
    image.label("test", "yes");
    let target = image.finish().unwrap();
    layout.tag("hello:latest", &target).unwrap();
    operator.apply(&device("edge-1", "one"), false).await.unwrap();
    let app = |name: &str, rest: &str| {
        format!("kind: App\nname: {name}\nspec: {{device: edge-1, image: hello, {rest}}}\n---\n")
    };
    let good = app("good", "ports: [\"8080:80\"]");
    let bad = app("bad", "network: nowhere");
    let refused = operator.apply(&(good.clone() + &bad), false).await.unwrap_err().to_string();
    assert!(refused.contains("App bad: spec.network[0]: there is no Network nowhere"), "{refused}");
    assert!(operator.apps().await.unwrap().is_empty(), "all or none");

    let applied = operator.apply(&(good + &bad), true).await.unwrap();
    assert_eq!(applied.missing.len(), 1);
    let shown = operator.app("bad").await.unwrap();
    assert_eq!(shown.flaws[0].field, "spec.network[0]");

    let node = home.node("one");
    let id = node.onboard().await;
    let (hash, told) = node.config(id, "", b"").await.unwrap().unwrap();
    let find = |name: &str| told.apps.values().find(|a| a.name == name).unwrap();
    assert_eq!(told.apps.len(), 2, "both are sent; refused: {:?}", told.refused);
    let (good, bad) = (find("good"), find("bad"));
    assert!(told.network_instances.contains_key(&good.interfaces[0].network));
    assert!(!told.network_instances.contains_key(&bad.interfaces[0].network));
    // The short app became everything it needs, from the registry under the name the node used.
    let volume = &told.volumes[&good.volumes[0].volume];
    let Origin::Content(content) = volume.origin else { panic!("a root has content") };
    let content = &told.contents[&content];
    assert_eq!(content.sha256, Some(target.digest), "pinned to what the tag meant");
    let datastore = &told.datastores[&content.datastores[0]];
    assert_eq!(datastore.host, format!("localhost:{}", home.port()));
    let maps = good.interfaces[0].rules.iter();
    assert!(maps.clone().any(|r| r.action == Action::PortMap { app_port: 80 }));

    // When the network comes, the app's own bytes change too: EVE looks again only then.
    operator
        .apply("kind: Network\nname: nowhere\nspec: {subnet: 10.7.0.0/24}\n", false)
        .await
        .unwrap();
    let (_, healed) = node.config(id, &hash, b"").await.unwrap().unwrap();
    let now = healed.apps.values().find(|a| a.name == "bad").unwrap();
    assert!(healed.network_instances.contains_key(&now.interfaces[0].network));
    assert_ne!(now.version, bad.version);
    assert!(operator.app("bad").await.unwrap().flaws.is_empty());
}

/// What a killed process leaves: the files as they are, nothing closed.
fn as_if_killed(home: &Home) -> Home {
    let copy = Home::stopped();
    for folder in ["", "pki", "tls"] {
        std::fs::create_dir_all(copy.data().join(folder)).unwrap();
        for entry in std::fs::read_dir(home.data().join(folder)).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                let to = copy.data().join(folder).join(entry.file_name());
                std::fs::copy(entry.path(), to).unwrap();
            }
        }
    }
    copy
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_kill() {
    let home = Home::start().await;
    home.operator().apply(&device("edge-1", "one"), false).await.unwrap();
    let mut node = home.node("one");
    assert_eq!(node.register().await, StatusCode::CREATED);
    let mut registered = as_if_killed(&home);
    let id = node.uuid().await.unwrap();
    let (hash, _) = node.config(id, "", b"").await.unwrap().unwrap();
    let entry = api::newlogs::Entry { content: "last words".into(), ..Default::default() };
    let about = api::newlogs::About::Device(api::newlogs::DeviceLog::default());
    let file = api::newlogs::pack(&[entry], &about, now(), Bytes::kib(50)).unwrap();
    assert_eq!(node.post(&format!("id/{id}/newlogs"), &file[0]).await.0, StatusCode::CREATED);
    let mut reported = as_if_killed(&home);

    registered.again().await;
    node.port = registered.port();
    assert_eq!(node.uuid().await, Ok(id));

    reported.again().await;
    node.port = reported.port();
    assert_eq!(
        node.config(id, &hash, b"").await,
        Ok(None),
        "the config it has is still its config"
    );
    let lines = reported.operator().logs("edge-1", None, 0, 10).await.unwrap();
    assert_eq!(lines[0].content, "last words");
}
