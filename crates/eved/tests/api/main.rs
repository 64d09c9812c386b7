//! The node's side of the EVE API against a controller that follows a script: what a real one does
//! once in a year, and what none should do. At the end, by their names, scenarios of the reference test
//! suites (onboarding, zedagent) that need no node in QEMU.

#[path = "../common/mod.rs"]
mod common;
mod told;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::scripted::{
    Answer, NEXT, SIGNING, Scripted, config, empty, golden, own, sign, told, uuid, vector,
};
use common::{Fleet, Node, eventually};
use model::reported::{ConfigSource, OnboardingStep};
use model::services::Service;
use model::topic::{Controller, DesiredApps, DesiredProperties, Identities, OnboardingState, Only};
use told::device_info;

/// Asked for the config each so many seconds at most.
const FAST: &[(&str, &str)] = &[("timer.config.interval", "5")];

#[tokio::test(flavor = "multi_thread")]
async fn the_id_decides_whatever_register_was_answered() {
    if golden().is_none() {
        return;
    }
    for status in [200, 201, 304, 403, 409, 500] {
        let scripted = Scripted::start(move |asked| {
            (asked.path == "register").then_some(Answer::Status(status))
        })
        .await;
        let node = scripted.node();
        let _services = node.start(&[Service::Onboard]);
        let identity = eventually("an id", || node.get::<Identities>(&Only)).await;
        assert_eq!(identity.id.to_string(), own(), "register said {status}");
        let done = eventually("the end of onboarding", || {
            node.get::<OnboardingState>(&Only).filter(|o| o.step == OnboardingStep::Done)
        })
        .await;
        assert_eq!(done.problem, None, "register said {status}");
        assert_eq!(scripted.asked("certs").len(), 1);
        assert_eq!((scripted.asked("register").len(), scripted.asked("uuid").len()), (1, 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_approved_late_is_onboarded_without_a_reboot() {
    if golden().is_none() {
        return;
    }
    let asked = Arc::new(AtomicUsize::new(0));
    let times = asked.clone();
    let scripted = Scripted::start(move |asked| match asked.path.as_str() {
        "register" => Some(Answer::Status(403)),
        "uuid" if times.fetch_add(1, Ordering::SeqCst) < 3 => Some(Answer::Status(401)),
        _ => None,
    })
    .await;
    let node = scripted.node();
    let _services = node.start(&[Service::Onboard]);
    let why = eventually("the refusal", || node.get::<OnboardingState>(&Only)?.problem).await;
    assert!(why.text.contains("403"), "{}", why.text);
    eventually("an id", || node.get::<Identities>(&Only)).await;
    let times: Vec<_> = scripted.asked("uuid").iter().map(|a| a.at).collect();
    assert_eq!(times.len(), 4);
    let waits: Vec<u128> = times.windows(2).map(|w| (w[1] - w[0]).as_millis()).collect();
    // 1, 2 and 4 s, of which a quarter is left to chance.
    for (wait, least) in waits.iter().zip([750, 1500, 3000]) {
        assert!(*wait >= least, "{waits:?} ms");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_chain_that_is_not_whole_is_believed() {
    if golden().is_none() {
        return;
    }
    for (name, says) in [
        ("empty", "no certificate"),
        ("no-signing", "0 signing certificates"),
        ("two-signing", "2 signing certificates"),
        ("no-ecdh", "key exchange"),
        ("unknown-type", "type"),
        ("missing-intermediate", "certs["),
        ("foreign-root", "certs["),
        ("eku-clientauth-only", "certs["),
    ] {
        let bad = sign(&vector(&format!("envelope/neg-zcontrollercert-{name}.pb")), SIGNING);
        let scripted = Scripted::start(move |asked| {
            (asked.path == "certs").then(|| Answer::Body(bad.clone()))
        })
        .await;
        let node = scripted.node();
        let _services = node.start(&[Service::Onboard]);
        let why = eventually("the refusal", || node.get::<OnboardingState>(&Only)?.problem).await;
        assert!(why.text.contains(says), "{name}: {}", why.text);
        assert_eq!(scripted.asked("uuid").len(), 0, "{name}");
        assert_eq!(scripted.asked("register").len(), 0, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_changes_its_key_costs_one_poll_and_one_fetch() {
    if golden().is_none() {
        return;
    }
    let before = config("h1", empty(1000, FAST));
    let scripted = Scripted::start(move |asked| {
        (asked.path == "{id}/config").then(|| Answer::Signed(before.clone(), SIGNING))
    })
    .await;
    let node = scripted.node();
    let services = node.start(&[Service::Onboard, Service::Config]);
    eventually("the config", || {
        node.get::<Controller>(&Only).filter(|c| c.config == ConfigSource::Controller)
    })
    .await;
    let fetched = scripted.asked("certs").len();

    let items = [FAST, &[("timer.metric.interval", "77")]].concat();
    let after = config("h2", empty(2000, &items));
    scripted.rule(move |asked| match asked.path.as_str() {
        "certs" => Some(Answer::Body(vector("envelope/resp-certs-rotated.AuthContainer.pb"))),
        "{id}/config" => Some(Answer::Signed(after.clone(), NEXT)),
        _ => None,
    });
    eventually("the config under the new key", || {
        node.get::<DesiredProperties>(&Only).filter(|p| p.metric_interval.as_secs() == 77)
    })
    .await;
    eventually("no trouble", || node.get::<Controller>(&Only).filter(|c| c.problem.is_none()))
        .await;
    assert_eq!(scripted.asked("certs").len(), fetched + 1);

    // Without a controller, what is saved is believed by the new chain.
    drop(services);
    node.reboot();
    scripted.rule(|_| Some(Answer::Status(503)));
    let _services = node.start(&[Service::Onboard, Service::Config]);
    eventually("the saved config", || {
        node.get::<Controller>(&Only).filter(|c| c.config == ConfigSource::Saved)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signer_that_nobody_vouches_for_is_looked_up_once_a_poll() {
    if golden().is_none() {
        return;
    }
    let good = config("h1", empty(1000, FAST));
    let bad = config("h2", empty(2000, FAST));
    let scripted = Scripted::start(move |asked| {
        (asked.path == "{id}/config").then(|| Answer::Signed(good.clone(), SIGNING))
    })
    .await;
    let node = scripted.node();
    let _services = node.start(&[Service::Onboard, Service::Config]);
    eventually("the config", || {
        node.get::<Controller>(&Only).filter(|c| c.config == ConfigSource::Controller)
    })
    .await;
    let (certs, polls) = (scripted.asked("certs").len(), scripted.asked("{id}/config").len());
    scripted.rule(move |asked| {
        (asked.path == "{id}/config").then(|| Answer::Signed(bad.clone(), "stranger-signing"))
    });
    eventually("the doubt", || node.get::<Controller>(&Only)?.problem).await;
    eventually("more polls", || (scripted.asked("{id}/config").len() > polls + 5).then_some(()))
        .await;
    let certs = scripted.asked("certs").len() - certs;
    let polls = scripted.asked("{id}/config").len() - polls;
    // Each poll that meets the stranger asks twice: before and after it looked.
    assert!(certs * 2 <= polls + 1, "{certs} fetches and {polls} questions");
    let status = node.get::<Controller>(&Only).unwrap();
    assert_eq!(status.config_timestamp.map(|t| t.0), Some(1_000_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_config_is_refused_after_a_reboot_until_a_person_allows_it_once() {
    if golden().is_none() {
        return;
    }
    let container = config("new", {
        let mut config = told("container-app");
        config.config_items = empty(0, FAST).config_items;
        config
    });
    let scripted = Scripted::start(move |asked| {
        (asked.path == "{id}/config").then(|| Answer::Signed(container.clone(), SIGNING))
    })
    .await;
    let node = scripted.node();
    {
        let _services = node.start(&[Service::Onboard, Service::Config]);
        eventually("the app", || node.table::<DesiredApps>().into_values().next()).await;
    }
    // The saved config is lost; what was in force is not forgotten with it.
    std::fs::remove_file(node.persist().join("checkpoint/lastconfig")).unwrap();
    let old = config("old", empty(1000, FAST));
    scripted.rule(move |asked| {
        (asked.path == "{id}/config").then(|| Answer::Signed(old.clone(), SIGNING))
    });
    node.reboot();
    {
        let _services = node.start(&[Service::Onboard, Service::Config]);
        let why = eventually("the refusal", || node.get::<Controller>(&Only)?.problem).await;
        assert!(why.text.contains("before the one in force"), "{}", why.text);
        assert_eq!(node.get::<Controller>(&Only).unwrap().config, ConfigSource::None);
    }
    store::save(&node.path("config"), device::config::floor::ORDER, b"clock mended").unwrap();
    node.reboot();
    let _services = node.start(&[Service::Onboard, Service::Config]);
    let status = eventually("the older config", || {
        node.get::<Controller>(&Only).filter(|c| c.config == ConfigSource::Controller)
    })
    .await;
    assert_eq!(status.problem, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_controller_moved_onboards_there() {
    if golden().is_none() {
        return;
    }
    const OTHER: &str = "00000000-0000-4000-8000-000000000001";
    let old = Scripted::start(|_| None).await;
    let new = Scripted::start(|asked| (asked.path == "uuid").then(|| uuid(OTHER, SIGNING))).await;
    let node = old.node();
    {
        let _services = node.start(&[Service::Onboard]);
        let identity = eventually("an id", || node.get::<Identities>(&Only)).await;
        assert_eq!(identity.id.to_string(), own());
    }
    new.adopt(&node);
    node.reboot();
    let _services = node.start(&[Service::Onboard]);
    eventually("the id of the new controller", || {
        node.get::<Identities>(&Only).filter(|i| i.id.to_string() == OTHER)
    })
    .await;
    assert_eq!((old.asked("uuid").len(), new.asked("uuid").len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_controller_gets_a_certificate_to_seal_secrets_to() {
    use api::convert::attest::{Purpose, Request};
    if golden().is_none() {
        return;
    }
    let refusals = Arc::new(AtomicUsize::new(0));
    let times = refusals.clone();
    let scripted = Scripted::start(move |asked| match asked.path.as_str() {
        "{id}/attest" if times.fetch_add(1, Ordering::SeqCst) < 2 => Some(Answer::Status(404)),
        "{id}/config" => Some(Answer::Signed(config("h1", empty(1000, FAST)), SIGNING)),
        _ => None,
    })
    .await;
    let node = scripted.node();
    let services = node.start(&[Service::Onboard, Service::Config]);
    let status = eventually("the refusal beside a config in force", || {
        node.get::<Controller>(&Only).filter(|c| {
            c.config == ConfigSource::Controller && c.standing.attestation_problem.is_some()
        })
    })
    .await;
    assert_eq!(status.problem, None, "configs do not wait for it");
    eventually("the certificate taken", || {
        node.get::<Controller>(&Only).filter(|c| c.standing.attestation_problem.is_none())
    })
    .await;
    // At the start, when the controller came to be reached, and 15 to 20 s after that failed.
    let certificates_told = || {
        let mut all = scripted.asked("{id}/attest");
        // Beside these there are nonces asked for.
        let certificates =
            |payload: &[u8]| matches!(Request::from_payload(payload), Ok(Request::Certificates(_)));
        all.retain(|asked| certificates(&asked.payload));
        all
    };
    let told = certificates_told();
    assert_eq!(told.len(), 3);
    let Ok(Request::Certificates(certificates)) = Request::from_payload(&told[2].payload) else {
        panic!("{told:?}")
    };
    let [certificate] = certificates.as_slice() else { panic!("{certificates:?}") };
    assert_eq!((certificate.purpose, certificate.mutable), (Purpose::KeyExchange, true));
    let pem = std::fs::read(node.persist().join("certs/ecdh.cert.pem")).unwrap();
    assert_eq!(certificate.pem, pem);
    let device = std::fs::read(node.persist().join("certs/device.cert.pem")).unwrap();
    let device = api::Certificate::from_pem(&device).unwrap();
    assert!(api::Certificate::from_pem(&pem).unwrap().is_signed_by(&device).unwrap());

    // The next boot tells the same again.
    drop(services);
    node.reboot();
    let _services = node.start(&[Service::Onboard, Service::Config]);
    eventually("the certificate told again", || (certificates_told().len() == 4).then_some(()))
        .await;
    assert_eq!(std::fs::read(node.persist().join("certs/ecdh.cert.pem")).unwrap(), pem);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_maintenance_only_settings_and_counters_count() {
    if golden().is_none() {
        return;
    }
    let with = |seconds: i64, app: bool, items: &[(&str, &str)]| {
        let mut config = if app { told("container-app") } else { empty(0, &[]) };
        config.config_items = empty(0, &[FAST, items].concat()).config_items;
        config.config_timestamp = empty(seconds, &[]).config_timestamp;
        config
    };
    let now = Arc::new(std::sync::Mutex::new(config("h1", with(1000, true, &[]))));
    let answer = now.clone();
    let scripted = Scripted::start(move |asked| {
        (asked.path == "{id}/config")
            .then(|| Answer::Signed(answer.lock().unwrap().clone(), SIGNING))
    })
    .await;
    let node = scripted.node();
    let _services = node.start(&[Service::Onboard, Service::Config]);
    eventually("the app", || node.table::<DesiredApps>().into_values().next()).await;

    let items = [("maintenance.mode", "enabled"), ("timer.metric.interval", "77")];
    *now.lock().unwrap() = config("h2", with(2000, false, &items));
    eventually("the setting", || {
        node.get::<DesiredProperties>(&Only).filter(|p| p.metric_interval.as_secs() == 77)
    })
    .await;
    let status = eventually("maintenance", || {
        node.get::<Controller>(&Only).filter(|c| !c.standing.maintenance.is_empty())
    })
    .await;
    assert_eq!(status.problem, None);
    assert_eq!(node.table::<DesiredApps>().len(), 1, "what runs goes on");

    *now.lock().unwrap() = config("h3", with(3000, false, &[]));
    eventually("the end of the app", || node.table::<DesiredApps>().is_empty().then_some(())).await;
    eventually("the end of maintenance", || {
        node.get::<Controller>(&Only).filter(|c| c.standing.maintenance.is_empty())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_told_and_told_again_when_the_controller_asks() {
    use api::pb::info::{AttestationState, ZInfoMsg, z_info_msg::InfoContent};
    if golden().is_none() {
        return;
    }
    let epoch = Arc::new(AtomicUsize::new(1));
    let asked = epoch.clone();
    let scripted = Scripted::start(move |request| {
        let epoch = i64::try_from(asked.load(Ordering::SeqCst)).unwrap();
        let mut told = empty(1000 + epoch, &[FAST, &[("no.such.key", "1")]].concat());
        told.controller_epoch = epoch;
        let answer = Answer::Signed(config(&format!("h{epoch}"), told), SIGNING);
        (request.path == "{id}/config").then_some(answer)
    })
    .await;
    let node = scripted.node();
    let _services = node.start(&[Service::Onboard, Service::Config]);
    let infos = || -> Vec<ZInfoMsg> {
        let all = scripted.asked("{id}/info");
        let read = |payload: &[u8]| api::wire::decode(payload, model::Bytes::mib(4)).unwrap();
        all.iter().map(|asked| read(&asked.payload)).collect()
    };
    let count = |kind: i32| infos().iter().filter(|info| info.ztype == kind).count();
    // 1 the device, 9 its blobs, 11 its hardware.
    for kind in [1, 9, 11] {
        eventually("each kind of info", || (count(kind) > 0).then_some(())).await;
    }
    let device = eventually("the settings", || {
        infos().into_iter().rev().find_map(|info| match info.info_content {
            Some(InfoContent::Dinfo(device)) if device.config_item_status.is_some() => {
                let items = &device.config_item_status.as_ref()?.config_items;
                items.contains_key("no.such.key").then_some(device)
            }
            _ => None,
        })
    })
    .await;
    let items = device.config_item_status.unwrap().config_items;
    assert_eq!(items["no.such.key"].error, "unknown key");
    assert_eq!(items["timer.config.interval"].error, "");
    assert!(!device.maintenance_mode && device.api_capability > 0);
    eventually("an attestation that nobody asked for", || {
        let complete = i32::from(AttestationState::Complete);
        infos().into_iter().find_map(|info| match info.info_content {
            Some(InfoContent::Dinfo(device)) => {
                (device.attestation_info?.state == complete).then_some(())
            }
            _ => None,
        })
    })
    .await;
    eventually("the hardware's health", || {
        (!scripted.asked("{id}/hardwarehealth").is_empty()).then_some(())
    })
    .await;

    let before = [count(9), count(11)];
    epoch.store(2, Ordering::SeqCst);
    eventually("all of it again", || (count(9) > before[0] && count(11) > before[1]).then_some(()))
        .await;
    assert_eq!(scripted.asked("{id}/hardwarehealth").len(), 1, "that is no info");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sealed_to_the_node_reaches_its_app_also_over_a_change_of_keys() {
    use api::cipher::{ExchangeKey, Sealer, Secrets};
    use api::convert::attest::Request;
    use api::pb::info::{ZInfoMsg, z_info_msg::InfoContent};
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    if golden().is_none() {
        return;
    }
    let told_certificate = Arc::new(std::sync::Mutex::new(None::<Vec<u8>>));
    let word = Arc::new(std::sync::Mutex::new("A=first"));
    let (heard, say) = (told_certificate.clone(), word.clone());
    let answer = move |asked: &common::scripted::Asked| {
        if asked.path == "{id}/attest"
            && let Ok(Request::Certificates(all)) = Request::from_payload(&asked.payload)
        {
            *heard.lock().unwrap() = all.first().map(|c| c.pem.clone());
        }
        if asked.path != "{id}/config" {
            return None;
        }
        let word = *say.lock().unwrap();
        let Some(pem) = heard.lock().unwrap().clone() else {
            return Some(Answer::Signed(config("h0", empty(1000, FAST)), SIGNING));
        };
        let device = api::Certificate::from_pem(&pem).unwrap();
        let key = ExchangeKey::from_pem(&vector("pki/controller-ecdh.key.pem")).unwrap();
        // As ZCert.cert carries it.
        let zcert = vector("pki/controller-ecdh.cert.pem");
        let zcert = zcert.strip_suffix(b"\n").unwrap_or(&zcert);
        let controller = api::Certificate::from_pem(zcert).unwrap();
        let sealer = Sealer::new(&key, &controller, &device, "context-1").unwrap();
        let secrets = Secrets { user_data: STANDARD.encode(word).into(), ..Secrets::default() };
        let mut told = told("container-app");
        told.config_items = empty(0, FAST).config_items;
        told.cipher_contexts = vec![sealer.context().to_wire()];
        let app = told.apps.first_mut().unwrap();
        app.user_data = STANDARD.encode("A=in the clear");
        app.fixedresources.as_mut().unwrap().virtualization_mode = 4;
        let mut block = sealer.seal(&secrets, [7; 16]).unwrap();
        if word == "A=broken" {
            block.cipher_data[0] ^= 1;
        }
        app.cipher_data = Some(block);
        Some(Answer::Signed(config(word, told), SIGNING))
    };
    let scripted = Scripted::start(answer).await;
    let node = scripted.node();
    let services = node.start(&[Service::Onboard, Service::Config]);
    let environment = || {
        let app = node.table::<DesiredApps>().into_values().next()?;
        app.environment.first().cloned()
    };
    eventually("the secret", || environment().filter(|e| e == "A=first")).await;

    // A broken block: the app is refused, and what stands in the clear beside it is not taken.
    *word.lock().unwrap() = "A=broken";
    eventually("the refusal", || {
        let refused = node.get::<Controller>(&Only)?.refused;
        refused.into_iter().find(|r| r.text.contains("cipherData"))
    })
    .await;
    eventually("the app gone", || environment().is_none().then_some(())).await;
    eventually("the error told in the app's info", || {
        let read = |payload: &[u8]| -> Option<String> {
            let info: ZInfoMsg = api::wire::decode(payload, model::Bytes::mib(4)).ok()?;
            let Some(InfoContent::Ainfo(app)) = info.info_content else { return None };
            Some(app.app_err.first()?.description.clone())
        };
        let infos = scripted.asked("{id}/info");
        let told = infos.iter().find_map(|asked| read(&asked.payload))?;
        told.contains("clearTextSha256 is not the hash").then_some(())
    })
    .await;
    *word.lock().unwrap() = "A=second";
    eventually("the next secret", || environment().filter(|e| e == "A=second")).await;

    // Without a controller, what is saved opens with what is saved.
    drop(services);
    node.reboot();
    scripted.rule(|_| Some(Answer::Status(503)));
    let _services = node.start(&[Service::Onboard, Service::Config]);
    eventually("the saved secret", || environment().filter(|e| e == "A=second")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn onboarding_status() {
    if golden().is_none() {
        return;
    }
    let scripted = Scripted::start(|_| None).await;
    let node = scripted.node();
    store::save(&node.path("run/eve"), "serial", b"SN-7\n").unwrap();
    let services = node.start(&[Service::Onboard, Service::Config]);
    let status = eventually("the end of onboarding", || {
        node.get::<OnboardingState>(&Only).filter(|o| o.step == OnboardingStep::Done)
    })
    .await;
    assert_eq!((status.serial.as_str(), status.soft_serial.as_str()), ("SN-7", "soft-1"));
    assert_eq!(status.problem, None);
    let name = device_info(&scripted, |device| Some(device.host_name)).await;
    assert_eq!(name, own());
    // It is on the disk, readable by whoever looks.
    let saved = std::fs::read_dir(node.persist().join("status/identity")).unwrap();
    let saved: Vec<serde_json::Value> = saved
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .map(|path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap())
        .collect();
    let [identity] = saved.as_slice() else { panic!("{saved:?}") };
    assert!(identity.to_string().contains(&own()), "{identity}");
    drop(services);
    node.reboot();
    let _services = node.start(&[Service::Onboard]);
    let identity = eventually("the id", || node.get::<Identities>(&Only)).await;
    assert_eq!(identity.id.to_string(), own());
}

#[tokio::test(flavor = "multi_thread")]
async fn pre_provisioned_uuid() {
    if golden().is_none() {
        return;
    }
    let scripted = Scripted::start(|_| None).await;
    let node = scripted.node();
    {
        let _services = node.start(&[Service::Onboard]);
        eventually("an id", || node.get::<Identities>(&Only)).await;
    }
    let asked = scripted.asked("uuid").len();
    // The next boot has no network at all, as `reboot` would give it.
    std::fs::remove_dir_all(node.path("run")).unwrap();
    std::fs::create_dir_all(node.path("run/eve/log")).unwrap();
    let _services = node.start(&[Service::Onboard]);
    eventually("the end of onboarding", || {
        node.get::<OnboardingState>(&Only).filter(|o| o.step == OnboardingStep::Done)
    })
    .await;
    assert_eq!(node.get::<Identities>(&Only).unwrap().id.to_string(), own());
    assert_eq!(scripted.asked("uuid").len(), asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn server_changes_at_runtime() {
    if golden().is_none() {
        return;
    }
    let scripted = Scripted::start(|_| None).await;
    let node = scripted.node();
    // Somebody else's controller: it listens, but not under a certificate that we believe.
    let other = Fleet::start().await;
    let server = std::fs::read(Node::new(&other).path("config/server")).unwrap();
    store::save(&node.path("config"), "server", &server).unwrap();
    {
        let _services = node.start(&[Service::Onboard]);
        let why = eventually("the refusal", || node.get::<OnboardingState>(&Only)?.problem).await;
        assert!(why.text.contains("certificate"), "{}", why.text);
        assert_eq!(node.get::<Identities>(&Only), None);
    }
    scripted.adopt(&node);
    node.reboot();
    let _services = node.start(&[Service::Onboard]);
    let identity = eventually("an id", || node.get::<Identities>(&Only)).await;
    assert_eq!(identity.id.to_string(), own());
    let status = eventually("no trouble", || {
        node.get::<OnboardingState>(&Only).filter(|o| o.step == OnboardingStep::Done)
    })
    .await;
    assert_eq!(status.problem, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn server_returns_403() {
    if golden().is_none() {
        return;
    }
    let scripted = Scripted::start(|asked| {
        matches!(asked.path.as_str(), "register" | "uuid").then_some(Answer::Status(403))
    })
    .await;
    let node = scripted.node();
    let _services = node.start(&[Service::Onboard]);
    let why = eventually("the refusal", || node.get::<OnboardingState>(&Only)?.problem).await;
    assert!(why.text.contains("403"), "{}", why.text);
    assert_eq!(why.diagnosis.who, model::Who::Operator, "{why:?}");
    assert_eq!(node.get::<Identities>(&Only), None);
    // Who is refused waits 1 s, then 2, 4 and so on, of which a quarter is left to chance.
    tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    let times: Vec<_> = scripted.asked("register").iter().map(|asked| asked.at).collect();
    assert!((2..=4).contains(&times.len()), "{} in 6 s", times.len());
    for (wait, least) in times.windows(2).zip([750, 1500, 3000]) {
        assert!((wait[1] - wait[0]).as_millis() >= least, "{times:?}");
    }
}
