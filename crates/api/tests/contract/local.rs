//! What goes without the controller's answer: bootstrap files, local operator consoles, local profile
//! servers, and the token of EdgeView; against recorded bytes of both directions.

use std::time::Duration;

use crate::common::{device_id, golden, now, vector};
use api::bootstrap::{self, BootstrapError};
use api::certs::{self, CertsError};
use api::cipher::{CipherError, ExchangeKey, Opener, Sealer};
use api::convert::config;
use api::edgeview::{self, Claims, EdgeviewError};
use api::envelope::{self, Refusal};
use api::loc::{Commands, Compound, LocError, Request};
use api::lps::signal::{self, Lines, Pace, SignalError};
use api::lps::{
    Answer, AppAction, AppBoot, AppCommand, Call, DeviceAction, DeviceCommand, Executed, LpsError,
    Named, Told, read_request,
};
use api::pb::auth::AuthContainer;
use api::pb::config::{BootstrapConfig, CompoundEdgeDevConfig, EdgeDevConfig};
use api::{Certificate, Sender, Signer, SigningKey, limits, loc, wire};
use model::{Bytes, DeviceId, UnixMillis};
use proptest::prelude::*;

fn pki(name: &str) -> Vec<u8> {
    vector(&format!("pki/{name}"))
}

fn certificate(name: &str) -> Certificate {
    Certificate::from_pem(&pki(&format!("{name}.cert.pem"))).unwrap()
}

fn signing_key() -> SigningKey {
    SigningKey::from_pem(&pki("controller-signing.key.pem")).unwrap()
}

fn controller() -> certs::ControllerCerts {
    let body = vector("envelope/resp-certs.AuthContainer.pb");
    certs::learn(&body, &pki("root-certificate.pem"), now()).unwrap()
}

/// The bytes that the controller publishes as its signing certificate.
fn published() -> Vec<u8> {
    let body = vector("envelope/zcontrollercert.pb");
    let set: api::pb::certs::ZControllerCert = wire::decode(&body, limits::CERTS).unwrap();
    set.certs.into_iter().find(|c| c.r#type == 1).unwrap().cert
}

fn opener() -> Opener {
    let key = ExchangeKey::from_pem(&pki("device-ecdh.key.pem")).unwrap();
    Opener::new(&key, &certificate("device-ecdh"), controller().exchange())
}

// Local operator consoles.

const COMPOUND: &str = "loc/compound-config.CompoundEdgeDevConfig.pb";
const CLEAR: &str = "loc/compound-config.cleartext.ConfigResponse.pb";

#[test]
fn the_recorded_console_hands_out_a_config_of_the_controller() {
    if !golden() {
        return;
    }
    let compound = Compound::open(&vector(COMPOUND)).unwrap();
    let payload = compound.verify(controller().signer(), &opener()).unwrap().unwrap();
    assert_eq!(*payload.expose(), vector(CLEAR));
    let answer = config::read_answer(payload.expose(), device_id(), "").unwrap();
    assert!(matches!(answer, config::Answer::Changed { .. }));
    // What we write is the same message.
    let message = |b: &[u8]| wire::decode::<CompoundEdgeDevConfig>(b, limits::CONFIG).unwrap();
    let (mut recorded, written) = (message(&vector(COMPOUND)), message(&compound.to_body()));
    // Tokens are of no use to a console.
    recorded.dev_cmd.iter_mut().for_each(|c| c.server_token.clear());
    // A command of no kind is none.
    recorded.dev_cmd = recorded.dev_cmd.filter(|c| c.command != 0);
    recorded.app_cmd_list.iter_mut().for_each(|c| c.server_token.clear());
    recorded.radio_config.iter_mut().for_each(|c| c.server_token.clear());
    assert_eq!(written, recorded);
}

#[test]
fn a_node_asks_its_console_as_recorded() {
    if !golden() {
        return;
    }
    let body = vector("loc/req-compound-config.AuthContainer.pb");
    let body = envelope::open(&body, limits::ONBOARDING).unwrap();
    let payload = body.verify(&Signer::device(&certificate("device")).unwrap()).unwrap();
    let request = Request::from_payload(payload).unwrap();
    assert_eq!(Request::from_payload(&request.to_payload()).unwrap(), request);
    assert_eq!(request.to_payload(), payload);
}

#[test]
fn what_is_made_for_a_console_is_believed_sealed_or_not() {
    if !golden() {
        return;
    }
    let (key, zcert, payload) = (signing_key(), published(), vector(CLEAR));
    let sender = Sender::controller(&key, &zcert);
    let recorded: CompoundEdgeDevConfig = wire::decode(&vector(COMPOUND), limits::CONFIG).unwrap();
    let sealed = recorded.protected_config.unwrap();
    let exchange = ExchangeKey::from_pem(&pki("controller-ecdh.key.pem")).unwrap();
    let context = sealed.cipher_context.clone().unwrap();
    let (own, device) = (controller().exchange()[0].clone(), certificate("device-ecdh"));
    let sealer = Sealer::new(&exchange, &own, &device, context.context_id).unwrap();
    let iv = sealed.cipher_data.as_ref().unwrap().initial_value.as_slice().try_into().unwrap();

    let commands = Commands {
        device: Some(DeviceCommand { timestamp: 7, action: DeviceAction::CollectInfo }),
        apps: vec![],
        radio_silence: Some(false),
    };
    for seal in [None, Some((&sealer, iv))] {
        let made = loc::protect(&payload, &sender, seal).unwrap();
        if seal.is_some() {
            let mut container: AuthContainer = wire::decode(&made, limits::CONFIG).unwrap();
            // ECDSA is random; the rest is as recorded.
            container.signature_hash.clone_from(&sealed.signature_hash);
            assert_eq!(container, sealed);
        }
        let compound = Compound::new(5, Some(&made), commands.clone()).unwrap();
        let read = Compound::open(&compound.to_body()).unwrap();
        assert_eq!(read, compound);
        let got = read.verify(controller().signer(), &opener()).unwrap().unwrap();
        assert_eq!(*got.expose(), payload);
    }
    let none = Compound::new(5, None, Commands::default()).unwrap();
    assert_eq!(none.verify(controller().signer(), &opener()).unwrap(), None);
}

#[test]
fn a_config_that_a_console_changed_is_refused() {
    if !golden() {
        return;
    }
    let with = |change: &dyn Fn(&mut AuthContainer)| {
        let mut message: CompoundEdgeDevConfig =
            wire::decode(&vector(COMPOUND), limits::CONFIG).unwrap();
        change(message.protected_config.as_mut().unwrap());
        let compound = Compound::open(&wire::encode(&message)).unwrap();
        compound.verify(controller().signer(), &opener()).unwrap_err()
    };
    let signature = with(&|c| c.signature_hash[40] ^= 1);
    assert!(matches!(signature, LocError::Refused(Refusal::Signature { .. })));
    let sender = with(&|c| c.sender_cert_hash[0] ^= 1);
    assert!(matches!(sender, LocError::Refused(Refusal::UnknownSigner { .. })));
    let data = with(&|c| c.cipher_data.as_mut().unwrap().cipher_data[9] ^= 1);
    assert!(matches!(data, LocError::Cipher(CipherError::ClearText)));
    assert!(matches!(with(&|c| c.cipher_context = None), LocError::NoContext));
    let both = with(&|c| c.protected_payload = Some(Default::default()));
    assert!(matches!(both, LocError::Both));
    let plain = with(&|c| c.cipher_data = None);
    assert!(matches!(plain, LocError::Refused(Refusal::Signature { .. })));
    assert!(matches!(Compound::open(b"\xff"), Err(LocError::Wire(_))));
}

// Bootstrap files.

#[test]
fn the_recorded_bootstrap_file_is_believed_by_its_root_alone() {
    if !golden() {
        return;
    }
    let file = vector("config/bootstrap-config.pb");
    let read = bootstrap::open(&file, &pki("root-certificate.pem"), now()).unwrap();
    assert!(!read.config.networks.is_empty() && !read.config.system_adapter_list.is_empty());
    assert!(!read.config.device_io_list.is_empty() && read.config.config_timestamp.is_some());
    assert_eq!(read.config.id, None);
    let stranger = bootstrap::open(&file, &pki("stranger-root.pem"), now()).unwrap_err();
    assert!(matches!(stranger, BootstrapError::Certs(CertsError::Chain { .. })), "{stranger:?}");
    let early = bootstrap::open(&file, &pki("root-certificate.pem"), UnixMillis(0)).unwrap_err();
    assert!(matches!(early, BootstrapError::Certs(e) if e.is_about_time()));
}

#[test]
fn a_bootstrap_file_of_ours_says_only_what_counts() {
    if !golden() {
        return;
    }
    let whole = vector("config/encrypted-secrets.EdgeDevConfig.pb");
    let whole: EdgeDevConfig = wire::decode(&whole, limits::CONFIG).unwrap();
    assert!(!whole.apps.is_empty());
    let (key, zcert) = (signing_key(), published());
    let sender = Sender::controller(&key, &zcert);
    let file = bootstrap::write(&whole, &sender, &vector("envelope/zcontrollercert.pb")).unwrap();
    let read = bootstrap::open(&file, &pki("root-certificate.pem"), now()).unwrap();
    assert!(!read.had_more);
    assert_eq!(read.config.networks, whole.networks);
    assert_eq!(read.config.vlans, whole.vlans);
    assert_eq!(read.config.config_items, whole.config_items);
    assert!(read.config.apps.is_empty() && read.config.datastores.is_empty());

    let mut message: BootstrapConfig = wire::decode(&file, bootstrap::FILE_MAX).unwrap();
    assert!(message.controller_certs.iter().all(|c| c.r#type != 3), "nothing can be sealed");
    let open = |message: &BootstrapConfig| {
        let file = wire::encode(message);
        bootstrap::open(&file, &pki("root-certificate.pem"), now()).unwrap_err()
    };
    message.signed_config.as_mut().unwrap().protected_payload.as_mut().unwrap().payload.push(0);
    assert!(matches!(open(&message), BootstrapError::Refused(Refusal::Signature { .. })));
    message.signed_config.as_mut().unwrap().cipher_data = Some(Default::default());
    assert!(matches!(open(&message), BootstrapError::Encrypted));
    message.signed_config = None;
    assert!(matches!(open(&message), BootstrapError::Unsigned));
}

#[test]
fn what_a_bootstrap_file_says_beyond_its_sections_is_left_out() {
    if !golden() {
        return;
    }
    let (key, zcert) = (signing_key(), published());
    let payload = vector("config/container-app.EdgeDevConfig.pb");
    let signed = envelope::sign(&payload, &Sender::controller(&key, &zcert)).unwrap();
    let set = vector("envelope/zcontrollercert.pb");
    let set: api::pb::certs::ZControllerCert = wire::decode(&set, limits::CERTS).unwrap();
    let file = wire::encode(&BootstrapConfig {
        signed_config: Some(wire::decode(&signed, limits::CONFIG).unwrap()),
        controller_certs: set.certs,
    });
    let read = bootstrap::open(&file, &pki("root-certificate.pem"), now()).unwrap();
    assert!(read.had_more);
    assert!(read.config.apps.is_empty() && read.config.id.is_none());
}

// EdgeView.

fn recorded_token() -> String {
    String::from_utf8(vector("telemetry/edgeview.jwt")).unwrap().trim().to_owned()
}

#[test]
fn the_recorded_token_opens_a_session() {
    if !golden() {
        return;
    }
    let controller = controller();
    let verify =
        |token: &str, device, now| edgeview::verify(token, controller.signer(), device, now);
    let claims = verify(&recorded_token(), device_id(), now()).unwrap();
    assert_eq!(claims.device, device_id().to_string());
    assert!((1..=5).contains(&claims.instances) && !claims.dispatcher.is_empty());

    let end = UnixMillis(claims.expires * 1000);
    assert!(verify(&recorded_token(), device_id(), UnixMillis(end.0 - 1)).is_ok());
    let late = verify(&recorded_token(), device_id(), end);
    assert!(matches!(late, Err(EdgeviewError::Expired { at }) if at == claims.expires));
    let other: DeviceId = "00000000-0000-4000-8000-000000000001".parse().unwrap();
    let other = verify(&recorded_token(), other, now());
    assert!(matches!(other, Err(EdgeviewError::Device { .. })));
    let mut changed = recorded_token();
    let last = if changed.pop() == Some('A') { 'Q' } else { 'A' };
    changed.push(last);
    let changed = verify(&changed, device_id(), now());
    assert!(matches!(changed, Err(EdgeviewError::Signature | EdgeviewError::Base64 { .. })));
    let stranger = Signer::controller(&pki("stranger-signing.cert.pem")).unwrap();
    let stranger = edgeview::verify(&recorded_token(), &stranger, device_id(), now());
    assert!(matches!(stranger, Err(EdgeviewError::Signature)));
}

#[test]
fn our_token_is_the_recorded_one_but_for_its_signature() {
    if !golden() {
        return;
    }
    let controller = controller();
    let claims =
        edgeview::verify(&recorded_token(), controller.signer(), device_id(), now()).unwrap();
    let ours = edgeview::issue(&claims, &signing_key()).unwrap();
    let signed = |token: &str| token.rsplit_once('.').unwrap().0.to_owned();
    assert_eq!(signed(&ours), signed(&recorded_token()));
    assert_eq!(edgeview::verify(&ours, controller.signer(), device_id(), now()).unwrap(), claims);
}

#[test]
fn tokens_that_say_too_much_or_nonsense_are_refused() {
    if !golden() {
        return;
    }
    use base64::Engine as _;
    let base64 = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let controller = controller();
    let claims = edgeview::verify(&recorded_token(), controller.signer(), device_id(), now());
    let claims = claims.unwrap();
    let say = |header: &str, claims: &str| {
        let signed = format!("{}.{}", base64.encode(header), base64.encode(claims));
        let signature = signing_key().sign(signed.as_bytes()).unwrap();
        let token = format!("{signed}.{}", base64.encode(signature));
        edgeview::verify(&token, controller.signer(), device_id(), now())
    };
    let good = serde_json::to_string(&claims).unwrap();
    let header = r#"{"typ":"JWT","alg":"ES256"}"#;
    assert_eq!(say(header, &good).unwrap(), claims, "the order does not matter");
    for header in [r#"{"alg":"none","typ":"JWT"}"#, r#"{"alg":"ES256","typ":"JWS"}"#] {
        assert!(matches!(say(header, &good), Err(EdgeviewError::Kind { .. })), "{header}");
    }
    for header in [r#"{"alg":"ES256"}"#, r#"{"alg":"ES256","typ":"JWT","jku":"http://x"}"#, "x"] {
        assert!(matches!(say(header, &good), Err(EdgeviewError::Header { .. })), "{header}");
    }
    let with = |change: &dyn Fn(&mut Claims)| {
        let mut claims = claims.clone();
        change(&mut claims);
        assert!(edgeview::issue(&claims, &signing_key()).is_err());
        say(header, &serde_json::to_string(&claims).unwrap()).unwrap_err().to_string()
    };
    assert_eq!(with(&|c| c.instances = 6), "edgeview.token: num is 6, not 1 to 5");
    assert_eq!(with(&|c| c.instances = 0), "edgeview.token: num is 0, not 1 to 5");
    assert_eq!(with(&|c| c.authentication = 3), "edgeview.token: aut is 3, not 0 to 2");
    assert_eq!(with(&|c| c.dispatcher.clear()), "edgeview.token: dep is empty");
    let parts = edgeview::verify("a.b", controller.signer(), device_id(), now());
    assert!(matches!(parts, Err(EdgeviewError::Parts)));
    let long = "x".repeat(9000);
    let long = edgeview::verify(&long, controller.signer(), device_id(), now());
    assert!(matches!(long, Err(EdgeviewError::TooLong { .. })));
}

// Local profile servers.

/// The token that the recorded answers bear.
fn token() -> String {
    let profile = vector("lps/resp-local_profile.LocalProfile.pb");
    let profile: api::pb::profile::LocalProfile = wire::decode(&profile, Bytes::kib(1)).unwrap();
    assert!(!profile.server_token.is_empty());
    profile.server_token
}

#[test]
fn recorded_answers_are_read_and_written_alike() {
    if !golden() {
        return;
    }
    for (call, file) in [
        (Call::LocalProfile, "resp-local_profile.LocalProfile"),
        (Call::Radio, "resp-radio.RadioConfig"),
        (Call::AppInfo, "resp-appinfo.LocalAppCmdList"),
        (Call::AppBootInfo, "resp-appbootinfo.AppBootConfigList"),
        (Call::DevInfo, "resp-devinfo-graceful-reboot.LocalDevCmd"),
        (Call::Network, "resp-network.LocalNetworkConfig"),
    ] {
        let body = vector(&format!("lps/{file}.pb"));
        let answer = Answer::read(call, 200, &body, &token()).unwrap();
        assert_eq!(answer.to_body(&token()), (200, body.clone()), "{file}");
        let wrong = Answer::read(call, 200, &body, "another");
        assert!(matches!(wrong, Err(LpsError::Token { call: c }) if c == call), "{file}");
        let none = Answer::read(call, 200, &body, "");
        assert!(matches!(none, Err(LpsError::Token { .. })), "{file}");
        match answer {
            Answer::Profile(profile) => assert!(!profile.is_empty()),
            Answer::Radio { silence } => assert!(silence),
            Answer::Apps(commands) => assert!(!commands.is_empty()),
            Answer::Boots(boots) => assert!(!boots.is_empty()),
            Answer::Device(command) => assert_eq!(command.unwrap().action, DeviceAction::Reboot),
            Answer::Ports(ports) => assert!(!ports.is_empty()),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn recorded_requests_are_read_and_written_alike() {
    if !golden() {
        return;
    }
    for (call, file) in [
        (Call::Radio, "req-radio.RadioStatus"),
        (Call::AppInfo, "req-appinfo.LocalAppInfoList"),
        (Call::AppBootInfo, "req-appbootinfo.AppBootInfoList"),
        (Call::DevInfo, "req-devinfo.LocalDevInfo"),
        (Call::Network, "req-network.NetworkInfo"),
        (Call::Location, "req-location.ZInfoLocation"),
    ] {
        let body = vector(&format!("lps/{file}.pb"));
        let told = read_request(call, &body).unwrap();
        assert_eq!(told.to_body(), body, "{file}");
    }
    assert_eq!(read_request(Call::LocalProfile, b"").unwrap(), Told::Nothing);
}

#[test]
fn the_recorded_signal_names_calls() {
    if !golden() {
        return;
    }
    let stream = vector("lps/signal.ndjson");
    let said: Vec<Vec<Call>> =
        Lines::default().push(&stream).into_iter().map(Result::unwrap).collect();
    assert_eq!(said, [vec![Call::Radio], vec![Call::AppInfo, Call::Network]]);
    let written: String = [&[Call::Radio][..], &[Call::Network, Call::AppInfo]]
        .iter()
        .map(|calls| signal::line(calls))
        .collect();
    assert_eq!(written.as_bytes(), stream);
}

#[test]
fn statuses_say_what_becomes_of_a_call() {
    let read = |call, status| Answer::read(call, status, b"", "t");
    assert_eq!(read(Call::Radio, 204).unwrap(), Answer::NoChange);
    assert_eq!(read(Call::Network, 404).unwrap(), Answer::NotThere);
    assert_eq!(read(Call::Location, 200).unwrap(), Answer::NoChange);
    let failed = read(Call::AppInfo, 500).unwrap_err().to_string();
    assert_eq!(failed, "the local profile server answers /api/v1/appinfo with status 500");
    assert_eq!(Call::Radio.slow_period(), Duration::from_secs(300));
    assert_eq!(Call::AppInfo.slow_period(), Duration::from_secs(3600));
}

#[test]
fn a_command_runs_once_also_after_a_reboot() {
    let command = |timestamp| DeviceCommand { timestamp, action: DeviceAction::Reboot };
    let mut executed = Executed::default();
    assert_eq!(executed.device(&command(0)), None, "no command");
    assert_eq!(executed.device(&command(7)), Some(DeviceAction::Reboot));
    assert_eq!(executed.device(&command(7)), None);
    let saved = serde_json::to_string(&executed).unwrap();
    let mut executed: Executed = serde_json::from_str(&saved).unwrap();
    assert_eq!(executed.device(&command(7)), None);
    assert_eq!(executed.device(&command(3)), Some(DeviceAction::Reboot), "it orders nothing");

    let app = |timestamp| AppCommand {
        app: Named::Name("web".to_owned()),
        timestamp,
        action: AppAction::Purge,
    };
    assert_eq!(executed.app("a", &app(7)), Some(AppAction::Purge));
    assert_eq!(executed.app("a", &app(7)), None);
    assert_eq!(executed.app("b", &app(7)), Some(AppAction::Purge));
    executed.retain(|id| id == "b");
    assert_eq!(executed.apps.len(), 1);
}

#[test]
fn signals_are_bounded() {
    let say = |line: &str| signal::parse(line.as_bytes());
    assert_eq!(
        say(r#"{"pendingChanges":["CONFIG_ENDPOINT_NEW",2,"x",99],"more":1}"#).unwrap(),
        [Call::Radio]
    );
    assert_eq!(say("{}").unwrap(), []);
    assert!(matches!(say("nonsense"), Err(SignalError::Json { .. })));
    let many = format!(r#"{{"pendingChanges":[{}1]}}"#, "1,".repeat(32));
    assert!(matches!(say(&many), Err(SignalError::Endpoints { got: 33 })));

    let mut lines = Lines::default();
    let long = vec![b' '; signal::LINE_MAX];
    assert!(lines.push(&long).is_empty());
    assert!(lines.push(b" ").is_empty());
    assert!(lines.push(&long).is_empty());
    let said = lines.push(b"x\n\n{\"pendingChanges\":[2]}\n");
    assert!(matches!(said[0], Err(SignalError::Line)));
    assert_eq!(said[1].as_ref().unwrap(), &[Call::Radio]);
    assert_eq!(said.len(), 2);
}

#[test]
fn signals_drive_a_node_only_so_fast() {
    let start = UnixMillis(1_000_000);
    let mut pace = Pace::new(start);
    let at = |seconds| start.after(Duration::from_secs(seconds));
    let let_through: Vec<u64> = (0..20).filter(|s| pace.lets(at(*s))).collect();
    // Three at once would go, too; one a second is still held to one each 3 s in the long run.
    assert_eq!(let_through, [0, 1, 2, 3, 6, 9, 12, 15, 18]);
    assert!((0..3).all(|_| pace.lets(at(100))));
    assert!(!pace.lets(at(100)));
    assert!(pace.lets(UnixMillis(5)), "the clock was set back");
    assert_eq!(
        [0, 1, 2, 3, 5, 6, 99].map(|n| signal::reconnect(n, false).as_secs()),
        [1, 1, 2, 4, 16, 30, 30]
    );
    assert_eq!(signal::reconnect(1, true).as_secs(), 3600);
}

fn any_named() -> impl Strategy<Value = Named> {
    prop_oneof![".{1,9}".prop_map(Named::Id), ".{1,9}".prop_map(Named::Name)]
}

fn any_answer() -> impl Strategy<Value = (Call, Answer)> {
    let app = (any_named(), any::<u64>(), any::<bool>()).prop_map(|(app, timestamp, purge)| {
        let action = if purge { AppAction::Purge } else { AppAction::Restart };
        AppCommand { app, timestamp, action }
    });
    let boot = (any_named(), any::<Option<bool>>()).prop_map(|(app, usb)| AppBoot { app, usb });
    let action = prop_oneof![
        Just(DeviceAction::Shutdown),
        Just(DeviceAction::PowerOff),
        Just(DeviceAction::Reboot),
        Just(DeviceAction::CollectInfo),
    ];
    let device =
        (any::<u64>(), action).prop_map(|(timestamp, action)| DeviceCommand { timestamp, action });
    prop_oneof![
        any::<String>().prop_map(|p| (Call::LocalProfile, Answer::Profile(p))),
        any::<bool>().prop_map(|silence| (Call::Radio, Answer::Radio { silence })),
        prop::collection::vec(app, 0..4).prop_map(|a| (Call::AppInfo, Answer::Apps(a))),
        prop::collection::vec(boot, 0..4).prop_map(|b| (Call::AppBootInfo, Answer::Boots(b))),
        prop::option::of(device).prop_map(|d| (Call::DevInfo, Answer::Device(d))),
        Just((Call::Location, Answer::NoChange)),
    ]
}

proptest! {
    #[test]
    fn answers_survive_the_way((call, answer) in any_answer(), token: String) {
        let (status, body) = answer.to_body(&token);
        prop_assert_eq!(Answer::read(call, status, &body, &token).unwrap(), answer);
    }

    #[test]
    fn no_bytes_make_the_readers_fall(bytes: Vec<u8>, text: String, cut in 1..9_usize) {
        for call in Call::ALL {
            let _ = Answer::read(call, 200, &bytes, "");
            let _ = read_request(call, &bytes);
        }
        let _ = Compound::open(&bytes);
        let _ = bootstrap::open(&bytes, &bytes, UnixMillis(0));
        let _ = Request::from_payload(&bytes);
        let key = SigningKey::generate().unwrap();
        let own = api::device_certificate(&key, UnixMillis(1_767_323_045_000)).unwrap();
        let signer = Signer::device(&own).unwrap();
        let device = "00000000-0000-4000-8000-000000000001".parse().unwrap();
        prop_assert!(edgeview::verify(&text, &signer, device, UnixMillis(0)).is_err());
        let (mut whole, mut pieces) = (Lines::default(), Lines::default());
        let at_once = whole.push(&bytes).len();
        let apart: usize = bytes.chunks(cut).map(|piece| pieces.push(piece).len()).sum();
        prop_assert_eq!(at_once, apart);
        prop_assert_eq!(whole, pieces);
    }
}
