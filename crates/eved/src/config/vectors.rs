//! Every config among the golden vectors, as the node takes it: from the envelope to the decision,
//! and to what its networks make of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use api::{Sender, Signer, SigningKey, envelope};
use device::backoff::Jitter;
use device::netinst::numbers::Numbers;
use model::UnixMillis;
use model::desired::{ObjectKind, Port};
use model::reported::{PortStatus, SecretFailure};

use super::fetch::judge;
use super::*;

/// Who the vectors' node is. The set may be another one, with other keys, ids and times.
pub(super) fn own() -> DeviceId {
    minimal().id.unwrap().uuid.parse().unwrap()
}

/// A time at which the vectors' certificates are valid.
pub(super) fn t0() -> UnixMillis {
    let seconds = minimal().config_timestamp.unwrap().seconds;
    UnixMillis(u64::try_from(seconds).unwrap() * 1000)
}

fn minimal() -> api::pb::config::EdgeDevConfig {
    let config = vector("config/minimal-device.EdgeDevConfig.pb");
    api::wire::decode(&config, api::limits::CONFIG).unwrap()
}

/// A folder of golden vectors beside the checkout, or `$EVE_API_VECTORS`. Who has only the
/// repository has none: a test that needs it then says so and ends.
pub(super) fn golden() -> Option<PathBuf> {
    const DEFAULT: &str = "../shared/vectors/eve-api";
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let named = std::env::var_os("EVE_API_VECTORS");
    let folder = root.join(named.as_ref().map_or_else(|| DEFAULT.into(), PathBuf::from));
    if folder.is_dir() {
        return Some(folder);
    }
    let missing = folder.display();
    assert!(named.is_none(), "$EVE_API_VECTORS names {missing}, where is no folder");
    println!("skipped: there is no {DEFAULT} beside the checkout, and $EVE_API_VECTORS is not set");
    None
}

/// A file among the golden vectors.
pub(super) fn vector(name: &str) -> Vec<u8> {
    let path = golden().expect("the test asks `golden` first").join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()))
}

/// A node that speaks with the vectors' controller.
struct Node {
    signer: Signer,
    state: State,
    properties: Properties,
    /// In force.
    device: Option<Box<Device>>,
}

impl Node {
    fn new() -> Node {
        let certs = vector("envelope/resp-certs.AuthContainer.pb");
        let certs = api::certs::learn(&certs, &vector("pki/root-certificate.pem"), t0()).unwrap();
        let mut node = Node {
            signer: certs.signer().clone(),
            state: State::default(),
            properties: Properties::default(),
            device: None,
        };
        node.step(Event::Started { certs: true, saved: None, floor: None });
        node.step(Event::Certs(Ok(())));
        node
    }

    fn step(&mut self, event: Event) -> Vec<Effect> {
        let at = Moment {
            me: own(),
            properties: &self.properties,
            console: false,
            now: t0(),
            jitter: Jitter(1.0),
        };
        let (state, effects) = config::step(std::mem::take(&mut self.state), event, at);
        self.state = state;
        effects
    }

    /// Takes the answer to the question that is open, and asks the next one. What came of it.
    fn takes(&mut self, body: &[u8]) -> String {
        let fetched = match judge(body, own(), &self.state.hash, &self.signer, secrets()) {
            Ok(fetched) => fetched,
            Err(e) => panic!("the envelope is refused: {}", chain(&e)),
        };
        let (answer, device) = match fetched {
            Fetched::Unchanged => (Answer::Unchanged, None),
            Fetched::Unusable(why) => (Answer::Unusable(why), None),
            Fetched::Config { hash, device, .. } => {
                let config = Some(summary(&device, &self.properties));
                (Answer::Config { hash, config }, Some(device))
            }
        };
        let unchanged = answer == Answer::Unchanged;
        let effects = self.step(Event::Config(answer));
        let told = if effects.contains(&Effect::Apply) {
            let device = device.unwrap();
            self.properties =
                api::convert::items::properties(&device.items, &self.properties, t0());
            self.device = Some(device);
            self.step(Event::Applied(Ok(())));
            "applied".to_owned()
        } else if unchanged {
            "unchanged".to_owned()
        } else {
            let why = self.state.problem.as_ref().expect("what is refused is told");
            format!("refused: {}", without_ids(&why.text))
        };
        self.step(Event::Alarm(Alarm::Poll));
        assert!(matches!(self.state.doing, config::Doing::Config), "{:?}", self.state.doing);
        told
    }

    /// What became of a bare config of the vectors.
    fn takes_config(&mut self, name: &str) -> String {
        self.takes(&answer_with(name))
    }

    /// What the node tells of objects of the config in force: refused ones, and apps whose network
    /// lacks something.
    fn troubles(&self) -> String {
        let device = self.device.as_deref().expect("a config is in force");
        let refused = device.refused.iter().map(|r| format!("{:?} {}: {}", r.kind, r.name, r.text));
        let settings = self.properties.problems.iter().map(|(k, p)| format!("{k}: {}", p.text));
        let ports = device.ports.values().map(|p| (p.name.clone(), up(p.clone()))).collect();
        let numbers = Numbers::default().renewed(&device.network_instances, &device.apps);
        let plan = device::netinst::plan(&device::netinst::Inputs {
            networks: &device.network_instances,
            apps: &device.apps,
            ports: &ports,
            numbers: &numbers,
            guests: &BTreeMap::new(),
            namespaces: "/run/netns",
            now: t0(),
        });
        let apps = plan.app_networks.values().filter_map(|app| {
            let name = &device.apps.get(&app.id)?.name;
            app.problem.as_ref().map(|p| format!("{name}: {}", p.text))
        });
        without_ids(&refused.chain(settings).chain(apps).collect::<Vec<_>>().join("\n"))
    }
}

/// The vectors' keys: ours, and the controller's certificate.
fn secrets() -> Secrets {
    let certificate =
        |name: &str| Certificate::from_pem(&vector(&format!("pki/{name}.cert.pem"))).unwrap();
    let key = api::cipher::ExchangeKey::from_pem(&vector("pki/device-ecdh.key.pem")).unwrap();
    let ours = Exchange { key, certificate: certificate("device-ecdh") };
    Secrets::new(Ok(ours), &controller(), t0())
}

/// The controller's certificates for key exchange.
fn controller() -> Vec<Certificate> {
    let certs = vector("envelope/resp-certs.AuthContainer.pb");
    let certs = api::certs::learn(&certs, &vector("pki/root-certificate.pem"), t0()).unwrap();
    certs.exchange().to_vec()
}

/// A port that got an address.
fn up(port: Port) -> PortStatus {
    PortStatus {
        port,
        link: true,
        mac: None,
        addresses: vec!["10.0.2.15/24".parse().unwrap()],
        gateway: None,
        dns: Vec::new(),
        ntp: Vec::new(),
        domain: None,
        lease: None,
        test: None,
        problem: None,
    }
}

/// A text with `<id>` where a UUID stands.
fn without_ids(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if rest.get(..36).is_some_and(|word| word.parse::<uuid::Uuid>().is_ok()) {
            out.push_str("<id>");
            rest = &rest[36..];
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    out
}

/// The answer of the vectors' controller that holds this config; its name is its hash.
fn answer_with(name: &str) -> Vec<u8> {
    let config = vector(&format!("config/{name}.EdgeDevConfig.pb"));
    let config = api::wire::decode(&config, api::limits::CONFIG).unwrap();
    let response =
        api::pb::config::ConfigResponse { config: Some(config), config_hash: name.to_owned() };
    let key = SigningKey::from_pem(&vector("pki/controller-signing.key.pem")).unwrap();
    let zcert = vector("pki/controller-signing.cert.pem");
    let zcert = zcert.strip_suffix(b"\n").unwrap_or(&zcert);
    envelope::sign(&api::wire::encode(&response), &Sender::controller(&key, zcert)).unwrap()
}

#[test]
fn configs_as_a_whole_are_taken_or_refused() {
    if golden().is_none() {
        return;
    }
    let envelope = |name: &str| vector(&format!("config/{name}.ConfigResponse.AuthContainer.pb"));
    for before in [None, Some("container-app")] {
        for (body, want) in [
            (envelope("neg-empty-confighash"), "refused: ConfigResponse.configHash is empty"),
            (
                envelope("neg-hash-without-config"),
                "refused: ConfigResponse.config is missing although configHash changed",
            ),
            (
                answer_with("neg-foreign-device-uuid"),
                "refused: the config is for device <id>, we are <id>",
            ),
            (answer_with("neg-no-device-uuid"), "refused: EdgeDevConfig.id.uuid is missing"),
            (
                answer_with("neg-malformed-device-uuid"),
                "refused: EdgeDevConfig.id.uuid \"not-a-uuid\" is no UUID: ",
            ),
        ] {
            let mut node = Node::new();
            if let Some(name) = before {
                assert_eq!(node.takes(&envelope(name)), "applied");
            }
            let (device, hash) = (node.device.clone(), node.state.hash.clone());
            let got = node.takes(&body);
            assert!(got.starts_with(want), "{got}");
            // What is in force stays, and the same again is judged again.
            assert_eq!((&node.device, &node.state.hash), (&device, &hash));
            assert_eq!(node.takes(&body), got);
            // A good one is taken at once.
            assert_eq!(node.takes(&answer_with("container-app")), "applied");
            assert_eq!(node.state.problem, None);
        }
    }
}

#[test]
fn the_good_ones_are_taken_and_what_is_unchanged_changes_nothing() {
    if golden().is_none() {
        return;
    }
    let envelope = |name: &str| vector(&format!("config/{name}.ConfigResponse.AuthContainer.pb"));
    let mut node = Node::new();
    assert_eq!(node.takes(&envelope("minimal-device")), "applied");
    assert_eq!(node.troubles(), "");
    assert_eq!(node.takes(&envelope("container-app")), "applied");
    assert_eq!(node.troubles(), "");
    let device = node.device.clone();
    assert_eq!(node.takes(&envelope("unchanged")), "unchanged");
    assert_eq!(node.takes(&envelope("container-app")), "unchanged");
    assert_eq!(node.device, device);
}

#[test]
fn a_config_of_an_earlier_time_is_obsolete_also_after_a_reboot() {
    if golden().is_none() {
        return;
    }
    let mut node = Node::new();
    assert_eq!(node.takes_config("container-app"), "applied");
    let old = node.takes_config("neg-old-timestamp");
    assert!(old.starts_with("refused: the config was made at "), "{old}");
    let mut rebooted = Node::new();
    rebooted.state.floor = node.state.floor;
    assert_eq!(rebooted.takes_config("neg-old-timestamp"), old);
    assert_eq!(rebooted.takes_config("container-app"), "applied");
}

#[test]
fn a_reference_that_came_late_heals_without_the_app_being_touched() {
    if golden().is_none() {
        return;
    }
    let mut node = Node::new();
    assert_eq!(node.takes_config("stale-1-app-before-network-instance"), "applied");
    let app = node.device.as_ref().unwrap().apps.clone();
    assert!(node.troubles().contains("nginx"), "{}", node.troubles());
    assert_eq!(node.takes_config("stale-2-network-instance-added"), "applied");
    assert_eq!(node.device.as_ref().unwrap().apps, app, "the app was not touched");
    assert_eq!(node.troubles(), "");
    assert_eq!(node.takes_config("stale-3-app-touched"), "applied");
    assert_eq!(node.troubles(), "");
}

#[test]
fn a_bad_object_is_told_and_the_others_are_in_force() {
    if golden().is_none() {
        return;
    }
    let no_port = "nginx: the node has no port eth0";
    let no_network = "nginx: network <id> of interface indirect is not in the config";
    for (name, want) in [
        ("neg-app-unknown-network-instance", &[no_network][..]),
        (
            "neg-adapter-without-network",
            &["Port : systemAdapterList.networkUUID: a management port needs a network", no_port],
        ),
        (
            "neg-adapter-missing-lower-layer",
            &[
                "Port : systemAdapterList.lowerLayerName: \"eth7\" is not the label of any hardware",
                no_port,
            ],
        ),
        (
            "neg-network-dualv4v6",
            &["Port : networks[<id>].type: \"9\" is not a known network type", no_port],
        ),
        (
            "neg-local-ni-no-subnet",
            &[
                "NetworkInstance local1: ip.subnet: \"\" is not a subnet of IP version 4",
                no_network,
            ],
        ),
        (
            "neg-gateway-in-dhcp-range",
            &[
                "NetworkInstance local1: ip.gateway: \"10.11.12.9\" is not outside the DHCP range",
                no_network,
            ],
        ),
        ("neg-app-without-fixedresources", &["App nginx: fixedresources: it is missing"]),
        (
            "neg-bad-config-items",
            &["no.such.key: unknown key", "timer.config.interval: \"4\" is not 5 to 86400"],
        ),
    ] {
        let mut node = Node::new();
        assert_eq!(node.takes_config(name), "applied", "{name}");
        assert_eq!(node.troubles().lines().collect::<Vec<_>>(), want, "{name}");
    }
}

#[test]
fn sealed_secrets_are_opened_and_a_broken_one_is_an_error_of_its_object() {
    if golden().is_none() {
        return;
    }
    use api::pb::config::{ConfigResponse, EdgeDevConfig};
    let read = |config: &EdgeDevConfig, secrets: Secrets| {
        let response = ConfigResponse { config: Some(config.clone()), config_hash: "h".to_owned() };
        let key = SigningKey::from_pem(&vector("pki/controller-signing.key.pem")).unwrap();
        let zcert = vector("pki/controller-signing.cert.pem");
        let zcert = zcert.strip_suffix(b"\n").unwrap_or(&zcert);
        let sender = Sender::controller(&key, zcert);
        let body = envelope::sign(&api::wire::encode(&response), &sender).unwrap();
        match judge(&body, own(), "", &Node::new().signer, secrets).unwrap() {
            Fetched::Config { device, secrets, .. } => (device, secrets),
            _ => panic!("not taken"),
        }
    };
    let why = |device: &Device, kind: ObjectKind| {
        let found = device.refused.iter().find(|r| r.kind == kind);
        found.map(|r| r.text.clone()).unwrap_or_default()
    };
    let config = vector("config/encrypted-secrets.EdgeDevConfig.pb");
    let config: EdgeDevConfig = api::wire::decode(&config, api::limits::CONFIG).unwrap();

    let (device, opened) = read(&config, secrets());
    assert!(opened.counted.failed.is_empty(), "{:?}", opened.counted);
    assert!(opened.counted.opened >= 2, "{:?}", opened.counted);
    assert_eq!((opened.referred.len(), opened.wants_certs), (1, false));
    assert!(!format!("{device:?}").contains("cipherData"), "{:?}", device.refused);

    // A byte of the datastore's block is changed, and a clear twin stands beside it.
    let mut broken = config.clone();
    let store = broken.datastores.first_mut().unwrap();
    store.api_key = "clear".to_owned();
    store.password = "clear".to_owned();
    store.cipher_data.as_mut().unwrap().cipher_data[0] ^= 1;
    let (device, opened) = read(&broken, secrets());
    assert!(device.datastores.is_empty(), "nothing falls back to the clear password");
    let text = why(&device, ObjectKind::Datastore);
    assert!(text.contains("clearTextSha256"), "{text}");
    assert_eq!(opened.counted.failed.get(&SecretFailure::Decrypt), Some(&1));

    // The controller's certificate is not known: new ones are wanted, and nothing is in the clear.
    let key = api::cipher::ExchangeKey::from_pem(&vector("pki/device-ecdh.key.pem")).unwrap();
    let certificate = Certificate::from_pem(&vector("pki/device-ecdh.cert.pem")).unwrap();
    let (device, opened) =
        read(&config, Secrets::new(Ok(Exchange { key, certificate }), &[], t0()));
    assert!(device.datastores.is_empty() && device.apps.is_empty());
    assert!(opened.wants_certs);
    assert!(opened.counted.failed.contains_key(&SecretFailure::NotReady));
    assert_eq!(opened.counted.opened, 0);

    // Half a block.
    let mut half = config.clone();
    half.datastores.first_mut().unwrap().cipher_data.as_mut().unwrap().cipher_data.clear();
    let (device, _) = read(&half, secrets());
    assert!(why(&device, ObjectKind::Datastore).contains("holds no data"));
}

/// A config of ten megabytes is taken; one over the limit is refused in words.
#[test]
fn a_config_may_be_large_but_not_without_end() {
    if golden().is_none() {
        return;
    }
    let sized = |bytes: usize| {
        let config = vector("config/minimal-device.EdgeDevConfig.pb");
        let mut config: api::pb::config::EdgeDevConfig =
            api::wire::decode(&config, api::limits::CONFIG).unwrap();
        config.device_name = "x".repeat(bytes);
        let config_hash = "large".to_owned();
        let response = api::pb::config::ConfigResponse { config: Some(config), config_hash };
        let key = SigningKey::from_pem(&vector("pki/controller-signing.key.pem")).unwrap();
        let zcert = vector("pki/controller-signing.cert.pem");
        let zcert = zcert.strip_suffix(b"\n").unwrap_or(&zcert);
        envelope::sign(&api::wire::encode(&response), &Sender::controller(&key, zcert)).unwrap()
    };
    assert_eq!(Node::new().takes(&sized(10 << 20)), "applied");
    let node = Node::new();
    let Err(why) = judge(&sized(17 << 20), own(), "", &node.signer, secrets()) else {
        panic!("17 MiB are taken")
    };
    assert!(chain(&why).contains("more than 16.0 MiB"), "{}", chain(&why));
}

/// Any part of an answer, and any answer with a byte changed, is an error and no panic.
#[test]
fn what_is_cut_or_changed_is_an_error() {
    if golden().is_none() {
        return;
    }
    let body = vector("config/container-app.ConfigResponse.AuthContainer.pb");
    let signer = Node::new().signer;
    for cut in (0..body.len()).step_by(7) {
        assert!(judge(&body[..cut], own(), "", &signer, secrets()).is_err(), "cut at {cut}");
        let mut changed = body.clone();
        changed[cut] ^= 1;
        // A byte that no signature covers may change: the envelope's own tags, the sender's name.
        if let Ok(Fetched::Config { device, .. }) = judge(&changed, own(), "", &signer, secrets()) {
            assert_eq!(device.apps.len(), 1);
        }
    }
    // Signed, but nonsense: each is an error in words.
    let key = SigningKey::from_pem(&vector("pki/controller-signing.key.pem")).unwrap();
    let zcert = vector("pki/controller-signing.cert.pem");
    let zcert = zcert.strip_suffix(b"\n").unwrap_or(&zcert);
    let config = vector("config/container-app.ConfigResponse.pb");
    for cut in (1..config.len()).step_by(11) {
        let sender = Sender::controller(&key, zcert);
        let body = envelope::sign(&config[..cut], &sender).unwrap();
        match judge(&body, own(), "", &signer, secrets()) {
            Ok(Fetched::Unusable(why)) => assert!(!why.text.is_empty()),
            Ok(Fetched::Config { .. } | Fetched::Unchanged) => {}
            Err(e) => panic!("the envelope is good: {}", chain(&e)),
        }
    }
}

/// Every setting that EVE knows is obeyed, or says why it has no effect.
#[test]
fn no_setting_is_taken_without_a_word() {
    let fixed: Vec<&str> = device::settings::FIXED.iter().map(|(key, ..)| *key).collect();
    for known in api::convert::items::settings() {
        let (obeyed, fixed) =
            (device::settings::OBEYED.contains(&known.key), fixed.contains(&known.key));
        assert!(obeyed || fixed, "{} is in no table of device::settings", known.key);
    }
    for key in device::settings::OBEYED.iter().chain(&fixed) {
        let known = api::convert::items::settings().any(|known| known.key == *key);
        assert!(known, "{key} is no setting of EVE");
    }
}
