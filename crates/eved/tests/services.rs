//! Services of a node as real processes, against a real controller in this one.
//!
//! What needs a network of its own or a container is the lab's; here is everything between the
//! envelope and the unpacked volume.

mod common;

use std::time::Duration;

use common::{Fleet, Node, eventually};
use model::reported::{ConfigSource, ContentState, OnboardingStep, VolumeKind, VolumeState};
use model::services::Service;
use model::topic::{
    Contents, Controller, DesiredApps, Identities, LogState, OnboardingState, Only, Volumes,
};

const APP: &str =
    "kind: App\nname: hello\nspec: {device: edge-1, image: hello, ports: [\"8080:80\"]}\n";

fn device(settings: &str) -> String {
    format!(
        "kind: Device\nname: edge-1\nspec: {{soft_serial: soft-1, settings: {{{settings}}}}}\n---\n"
    )
}

const FAST: &str = "timer.config.interval: 5, newlog.allow.fastupload: \"true\"";

#[tokio::test(flavor = "multi_thread")]
async fn a_node_onboards_and_unpacks_what_its_app_needs() {
    let fleet = Fleet::start().await;
    let image = fleet.image("hello:latest");
    fleet.operator().apply(&(device(FAST) + APP), false).await.unwrap();
    let node = Node::new(&fleet);
    node.has_a_port();
    let _services = node.start(&[
        Service::Onboard,
        Service::Config,
        Service::Content,
        Service::Volume,
        Service::Log,
    ]);

    let identity = eventually("an id", || node.get::<Identities>(&Only)).await;
    let told = eventually("the config of the controller", || {
        node.get::<Controller>(&Only).filter(|c| c.config == ConfigSource::Controller)
    })
    .await;
    assert_eq!((told.node_name.as_str(), told.problem), ("edge-1", None));
    let content = eventually("the image", || {
        let mut all = node.table::<Contents>().into_values();
        all.find(|c| matches!(c.state, ContentState::Loaded { .. }))
    })
    .await;
    let ContentState::Loaded { digest, .. } = content.state else { unreachable!() };
    assert_eq!(digest, image);
    let kind = eventually("the volume", || {
        node.table::<Volumes>().into_values().find_map(|v| match v.state {
            VolumeState::Ready(kind) => Some(kind),
            _ => None,
        })
    })
    .await;
    let VolumeKind::Root { lower, image_config, .. } = kind else { panic!("{kind:?}") };
    assert_eq!(std::fs::read(format!("{lower}/bin/web")).unwrap(), b"#!web");
    assert!(image_config.contains("/bin/web"));

    // The controller learns of it.
    let operator = fleet.operator();
    let shown = fleet.until("what the node is and has", |d| !d.ports.is_empty()).await;
    assert_eq!(shown.id, identity.id);
    fleet.until("nothing that is on the way", |d| d.pending.is_empty()).await;
    let key = node.persist().join("certs/device.key.pem");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(key).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o640);
    eventually("a log file delivered", || node.get::<LogState>(&Only).filter(|l| l.sent > 0)).await;
    let lines = operator.logs("edge-1", None, 0, 1000).await.unwrap();
    assert!(lines.iter().any(|l| l.content.contains("onboarded")), "{} lines", lines.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_of_wrong_bytes_is_told_by_both_digests_and_never_becomes_a_volume() {
    let fleet = Fleet::start().await;
    fleet.image("hello:latest");
    fleet.operator().apply(&(device(FAST) + APP), false).await.unwrap();
    let (layer, bad) = fleet.spoil_a_layer();
    let node = Node::new(&fleet);
    node.has_a_port();
    let _services =
        node.start(&[Service::Onboard, Service::Config, Service::Content, Service::Volume]);
    let why = eventually("the mismatch", || {
        node.table::<Contents>().into_values().find_map(|c| c.problem)
    })
    .await;
    assert!(why.text.contains(&layer.to_string()), "{}", why.text);
    assert!(why.text.contains(&bad.to_string()), "{}", why.text);
    assert!(why.diagnosis.retry_in.is_some());
    let kept = store::Layout::open(node.persist().join("content")).unwrap();
    assert!(!kept.has(&layer, None) && !kept.has(&bad, None));
    let volumes = node.table::<Volumes>();
    assert!(volumes.values().all(|v| v.state == VolumeState::AwaitingContent), "{volumes:?}");
    fleet
        .until("the trouble", |d| {
            d.pending.iter().any(|p| format!("{p:?}").contains(&layer.to_string()))
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_controller_a_rebooted_node_runs_the_saved_config() {
    let mut fleet = Fleet::start().await;
    fleet.image("hello:latest");
    fleet.operator().apply(&(device(FAST) + APP), false).await.unwrap();
    let node = Node::new(&fleet);
    node.has_a_port();
    {
        let _services = node.start(&[Service::Onboard, Service::Config]);
        eventually("the app", || node.table::<DesiredApps>().into_values().next()).await;
    }
    let key = std::fs::read(node.persist().join("certs/device.key.pem")).unwrap();
    fleet.stop().await;
    node.reboot();
    let _services = node.start(&[Service::Onboard, Service::Config]);
    let status = eventually("the saved config", || {
        node.get::<Controller>(&Only).filter(|c| c.config == ConfigSource::Saved)
    })
    .await;
    assert!(status.problem.is_some() && status.last_contact.is_none());
    assert_eq!(node.table::<DesiredApps>().len(), 1);
    let onboarding = node.get::<OnboardingState>(&Only).unwrap();
    assert_eq!(onboarding.step, OnboardingStep::Done);
    assert_eq!(std::fs::read(node.persist().join("certs/device.key.pem")).unwrap(), key);

    // It comes back under its old address, and the node notices by itself.
    fleet.again().await;
    fleet.operator().delete("App", "hello", false).await.unwrap();
    eventually("the controller's config", || {
        let back = node.get::<Controller>(&Only)?.config == ConfigSource::Controller;
        (back && node.table::<DesiredApps>().is_empty()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tampered_saved_config_is_left_aside() {
    let mut fleet = Fleet::start().await;
    fleet.image("hello:latest");
    fleet.operator().apply(&(device(FAST) + APP), false).await.unwrap();
    let node = Node::new(&fleet);
    node.has_a_port();
    {
        let _services = node.start(&[Service::Onboard, Service::Config]);
        eventually("the app", || node.table::<DesiredApps>().into_values().next()).await;
    }
    fleet.stop().await;
    // Whether a boot without the controller runs the saved config, given the time it needs for that.
    let runs_saved = async || {
        node.reboot();
        let _services = node.start(&[Service::Config]);
        eventually("a failure to reach the controller", || {
            node.get::<Controller>(&Only).filter(|c| c.problem.is_some())
        })
        .await;
        let saved = eventually("the saved config", || {
            node.get::<Controller>(&Only).filter(|c| c.config == ConfigSource::Saved)
        });
        let wait = device::config::PATIENCE + Duration::from_secs(2);
        tokio::time::timeout(wait, saved).await.is_ok()
    };
    assert!(runs_saved().await, "as it was saved it is used");
    assert_eq!(node.table::<DesiredApps>().len(), 1);

    let saved = node.persist().join("checkpoint/lastconfig");
    let mut bytes = std::fs::read(&saved).unwrap();
    let at = bytes.windows(5).position(|w| w == b"hello").unwrap();
    bytes[at] ^= 1;
    store::save(saved.parent().unwrap(), "lastconfig", &bytes).unwrap();
    assert!(!runs_saved().await);
    assert_eq!(node.get::<Controller>(&Only).unwrap().config, ConfigSource::None);
    assert!(node.table::<DesiredApps>().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_the_disk_does_not_take_is_told_and_saved_later() {
    let fleet = Fleet::start().await;
    fleet.operator().apply(&device(FAST), false).await.unwrap();
    let node = Node::new(&fleet);
    node.has_a_port();
    let in_the_way = node.persist().join("status/identity/.only.json.new");
    std::fs::create_dir_all(&in_the_way).unwrap(); // the new file cannot be made
    let _services = node.start(&[Service::Onboard]);
    let told = eventually("the trouble", || {
        node.get::<OnboardingState>(&Only).filter(|o| o.step == OnboardingStep::Done)?.problem
    })
    .await;
    assert!(told.text.contains("identity"), "{}", told.text);
    assert!(told.diagnosis.retry_in.is_some());
    assert_eq!(node.get::<Identities>(&Only), None);

    // Nobody starts it again here: who saves it now is who could not before.
    std::fs::remove_dir(&in_the_way).unwrap();
    node.has_a_port(); // whatever wakes it up makes it try again
    eventually("the identity", || node.get::<Identities>(&Only)).await;
    let problem = || node.get::<OnboardingState>(&Only)?.problem;
    eventually("no trouble", || problem().is_none().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_asks_for_attestation_gets_it() {
    let fleet = Fleet::start().await;
    let text = "kind: Device\nname: edge-1\nspec: {soft_serial: soft-1, attestation: true}\n";
    fleet.operator().apply(text, false).await.unwrap();
    let node = Node::new(&fleet);
    node.has_a_port();
    let _services = node.start(&[Service::Onboard, Service::Config]);
    eventually("the config after attestation", || {
        node.get::<Controller>(&Only).filter(|c| c.config == ConfigSource::Controller)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_reaches_its_app_whichever_side_changes_its_key() {
    let mut fleet = Fleet::start().await;
    fleet.image("hello:latest");
    let objects = |word: &str| {
        let secret = format!("kind: Secret\nname: env\nspec: {{value: WORD={word}}}\n---\n");
        let app = "kind: App\nname: hello\n\
                   spec: {device: edge-1, image: hello, user_data: {secret: env}}\n";
        device(FAST) + &secret + app
    };
    fleet.operator().apply(&objects("first"), false).await.unwrap();
    let node = Node::new(&fleet);
    node.has_a_port();
    let services = node.start(&[Service::Onboard, Service::Config]);
    let environment = |word: &str| {
        let want = format!("WORD={word}");
        let mut apps = node.table::<DesiredApps>().into_values();
        apps.any(|app| app.environment == [want.clone()]).then_some(())
    };
    eventually("the secret", || environment("first")).await;
    let saved = std::fs::read(node.persist().join("checkpoint/lastconfig")).unwrap();
    assert!(!saved.windows(5).any(|w| w == b"first"), "it is saved as it came: sealed");

    // The controller takes another key.
    fleet.stop().await;
    fleet.change_exchange_key();
    fleet.again().await;
    fleet.operator().apply(&objects("second"), false).await.unwrap();
    eventually("the secret, sealed with the other key", || environment("second")).await;

    // The node loses its own, and nobody is there to seal anything anew.
    drop(services);
    fleet.stop().await;
    std::fs::remove_file(node.persist().join("certs/ecdh.key.pem")).unwrap();
    node.reboot();
    let _services = node.start(&[Service::Onboard, Service::Config]);
    let why = eventually("the refusal", || {
        let refused = node.get::<Controller>(&Only)?.refused;
        refused.into_iter().find(|r| r.text.contains("cipherData"))
    })
    .await;
    assert!(!why.text.contains("second"), "{}", why.text);
    assert_eq!(environment("second"), None);
    fleet.again().await;
    eventually("the secret, sealed to the new key", || environment("second")).await;
    fleet.until("no trouble", |d| d.apps.iter().all(|app| app.problems.is_empty())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_deleted_and_added_again_takes_its_new_id() {
    let fleet = Fleet::start().await;
    let operator = fleet.operator();
    operator.apply(&device(FAST), false).await.unwrap();
    let node = Node::new(&fleet);
    node.has_a_port();
    let _services = node.start(&[Service::Onboard, Service::Config]);
    let first = eventually("an id", || node.get::<Identities>(&Only)).await;
    eventually("contact", || node.get::<Controller>(&Only)?.last_contact).await;
    operator.delete("Device", "edge-1", false).await.unwrap();
    operator.apply(&device(FAST), false).await.unwrap();
    let second =
        eventually("another id", || node.get::<Identities>(&Only).filter(|i| i.id != first.id))
            .await;
    eventually("contact under the new id", || {
        node.get::<Controller>(&Only).filter(|c| !c.forgotten && c.problem.is_none())
    })
    .await;
    assert_eq!(operator.device("edge-1").await.unwrap().id, second.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_device_key_is_told_and_never_replaced() {
    let fleet = Fleet::start().await;
    fleet.operator().apply(&device(FAST), false).await.unwrap();
    let node = Node::new(&fleet);
    node.has_a_port();
    {
        let _services = node.start(&[Service::Onboard]);
        eventually("an id", || node.get::<Identities>(&Only)).await;
    }
    let key = node.persist().join("certs/device.key.pem");
    std::fs::remove_file(&key).unwrap();
    node.reboot();
    let _services = node.start(&[Service::Onboard]);
    let told = eventually("the loss", || node.get::<OnboardingState>(&Only)?.problem).await;
    assert!(told.text.contains("device key is gone"), "{}", told.text);
    assert!(!key.exists());
}
