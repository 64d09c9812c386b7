//! Object encryption, against recorded blocks of both directions.

use crate::common::{golden, vector};
use api::cipher::{
    CertHash, CipherError, Context, ExchangeKey, Opener, Sealer, Secrets, SharedKey,
};
use api::pb::common::{CipherBlock, CipherContext, EncryptionBlock};
use api::pb::config::EdgeDevConfig;
use api::{Certificate, SigningKey, certs, device_certificate, limits, wire};
use base64::Engine as _;
use model::UnixMillis;
use proptest::prelude::*;
use serde_json::Value;

const BLOCKS: [&str; 5] = ["datastore", "wifi", "userdata", "cellular", "cluster"];

fn key(name: &str) -> ExchangeKey {
    ExchangeKey::from_pem(&vector(&format!("pki/{name}.key.pem"))).unwrap()
}

fn device_certificate_of_vectors() -> Certificate {
    Certificate::from_pem(&vector("pki/device-ecdh.cert.pem")).unwrap()
}

/// The controller's certificates for key exchange as it publishes them, which is another text than
/// that of its file.
fn published() -> Vec<Certificate> {
    let answer = vector("envelope/resp-certs.AuthContainer.pb");
    let root = vector("pki/root-certificate.pem");
    certs::learn(&answer, &root, crate::common::now()).unwrap().exchange().to_vec()
}

fn context() -> CipherContext {
    wire::decode(&vector("cipher/ciphercontext.pb"), limits::CONFIG).unwrap()
}

fn block(name: &str) -> CipherBlock {
    wire::decode(&vector(&format!("cipher/{name}.CipherBlock.pb")), limits::CONFIG).unwrap()
}

fn plain(name: &str) -> Vec<u8> {
    vector(&format!("cipher/{name}.EncryptionBlock.pb"))
}

fn opener() -> Opener {
    Opener::new(&key("device-ecdh"), &device_certificate_of_vectors(), &published())
        .with_contexts(&[context()])
}

fn sealer() -> Sealer {
    let device = device_certificate_of_vectors();
    Sealer::new(&key("controller-ecdh"), &published()[0], &device, context().context_id).unwrap()
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&vector(name)).unwrap()
}

fn bytes<const N: usize>(hex: &Value) -> [u8; N] {
    hex::decode(hex.as_str().unwrap()).unwrap().try_into().unwrap()
}

/// A private key as SEC 1 PEM of the bare number.
fn pem_of(scalar: [u8; 32]) -> Vec<u8> {
    let curve = [0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    let der = [&[0x30, 0x31, 0x02, 0x01, 0x01, 0x04, 0x20][..], &scalar, &curve].concat();
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN EC PRIVATE KEY-----\n{text}\n-----END EC PRIVATE KEY-----\n").into_bytes()
}

#[test]
fn recorded_blocks_open_on_the_node() {
    if !golden() {
        return;
    }
    for name in BLOCKS {
        let opened = opener().open(&block(name)).unwrap();
        assert_eq!(*opened.expose(), plain(name), "{name}");
        let secrets = opener().open_secrets(&block(name)).unwrap();
        assert_eq!(*secrets.to_payload().expose(), plain(name), "{name}");
    }
}

#[test]
fn what_the_controller_seals_is_what_was_recorded() {
    if !golden() {
        return;
    }
    assert_eq!(sealer().context().to_wire(), context());
    for name in BLOCKS {
        let recorded = block(name);
        let iv = recorded.initial_value.as_slice().try_into().unwrap();
        let secrets = Secrets::from_payload(&plain(name)).unwrap();
        assert_eq!(sealer().seal(&secrets, iv).unwrap(), recorded, "{name}");
    }
}

#[test]
fn the_recorded_point_gives_the_key() {
    if !golden() {
        return;
    }
    let manifest = json("cipher/manifest.json");
    let point = ["shared_point_x", "shared_point_y"].map(|c| bytes(&manifest[c]));
    let shared = SharedKey::from_point(&point[0], &point[1]);
    for (name, want) in manifest["blocks"].as_object().unwrap() {
        let plain = hex::decode(want["plaintext_protobuf"].as_str().unwrap()).unwrap();
        let sealed = shared.seal("c", &plain, bytes(&want["iv"])).unwrap();
        assert_eq!(hex::encode(sealed.cipher_data), want["ciphertext"].as_str().unwrap(), "{name}");
    }
}

#[test]
fn zeros_in_front_of_a_coordinate_count() {
    if !golden() {
        return;
    }
    let vectors = json("cipher/leading-zero-vectors.json");
    let vectors = vectors.as_array().unwrap();
    assert!(vectors.len() >= 2);
    for v in vectors {
        let [controller, device] = ["controller", "device"].map(|side| {
            let pem = pem_of(bytes(&v[format!("{side}_private_scalar").as_str()]));
            let signing = SigningKey::from_pem(&pem).unwrap();
            let certificate = device_certificate(&signing, crate::common::now()).unwrap();
            (ExchangeKey::from_pem(&pem).unwrap(), certificate)
        });
        let x = bytes::<32>(&v["controller_pub_x"]);
        assert_eq!(controller.0.public_point()[1..33], x);
        let sealer = Sealer::new(&controller.0, &controller.1, &device.1, "c").unwrap();
        let plain = hex::decode(v["plaintext"].as_str().unwrap()).unwrap();
        let sealed = sealer.seal_bytes(&plain, bytes(&v["iv"])).unwrap();
        let ciphertext = hex::encode(&sealed.cipher_data);
        assert_eq!(ciphertext, v["ciphertext"].as_str().unwrap(), "{v}");
        let opener = Opener::new(&device.0, &device.1, &[controller.1])
            .with_contexts(&[sealer.context().to_wire()]);
        assert_eq!(*opener.open(&sealed).unwrap().expose(), plain);
    }
}

#[test]
fn broken_blocks_are_refused_by_name() {
    if !golden() {
        return;
    }
    let open = |block: &CipherBlock| opener().open(block).map(|_| ()).unwrap_err();
    assert_eq!(open(&block("neg-cleartext-hash-mismatch")), CipherError::ClearText);
    assert_eq!(open(&block("neg-empty-iv")), CipherError::InitialValue { got: 0 });

    let good = block("wifi");
    let id = good.cipher_context_id.clone();
    let with = |change: fn(&mut CipherBlock)| {
        let mut changed = good.clone();
        change(&mut changed);
        open(&changed)
    };
    assert_eq!(with(|b| b.cipher_data[0] ^= 1), CipherError::ClearText);
    assert_eq!(with(|b| b.clear_text_sha256.clear()), CipherError::ClearText);
    assert_eq!(with(|b| b.cipher_data.clear()), CipherError::Incomplete { field: "cipherData" });
    assert_eq!(
        with(|b| b.cipher_context_id.clear()),
        CipherError::Incomplete { field: "cipherContextId" }
    );
    assert_eq!(
        with(|b| b.cipher_context_id = "x".to_owned()),
        CipherError::UnknownContext { id: "x".to_owned() }
    );

    let within = |change: fn(&mut CipherContext)| {
        let mut changed = context();
        change(&mut changed);
        opener().with_contexts(&[changed]).open(&good).map(|_| ()).unwrap_err()
    };
    let scheme = |field, value| CipherError::Scheme { id: id.clone(), field, value };
    assert_eq!(within(|c| c.hash_scheme = 2), scheme("hashScheme", 2));
    assert_eq!(within(|c| c.key_exchange_scheme = 0), scheme("keyExchangeScheme", 0));
    assert_eq!(within(|c| c.encryption_scheme = 9), scheme("encryptionScheme", 9));
    let (field, got) = ("deviceCertHash", 15);
    assert_eq!(
        within(|c| c.device_cert_hash.truncate(15)),
        CipherError::HashSize { id: id.clone(), field, got }
    );
    let text = |e: CipherError| e.to_string();
    assert!(
        text(within(|c| c.device_cert_hash[0] ^= 1)).contains("names the device's certificate")
    );
    let other = within(|c| c.controller_cert_hash[0] ^= 1);
    assert!(text(other).contains("names the controller's certificate"));
}

#[test]
fn a_config_with_secrets_opens_with_its_own_contexts() {
    if !golden() {
        return;
    }
    let config = vector("config/encrypted-secrets.EdgeDevConfig.pb");
    let config: EdgeDevConfig = wire::decode(&config, limits::CONFIG).unwrap();
    let device = device_certificate_of_vectors();
    let opener = Opener::new(&key("device-ecdh"), &device, &published())
        .with_contexts(&config.cipher_contexts);
    let store = config.datastores[0].cipher_data.as_ref().unwrap();
    let app = config.apps[0].cipher_data.as_ref().unwrap();
    let wifi = config.networks.iter().find_map(|n| n.wireless.as_ref()).unwrap();
    let wifi = wifi.wifi_cfg[0].cipher_data.as_ref().unwrap();
    let opened = opener.open_secrets(store).unwrap();
    assert!(!opened.datastore_key.expose().is_empty());
    assert!(!opened.datastore_password.expose().is_empty());
    assert!(!opener.open_secrets(wifi).unwrap().wifi_password.expose().is_empty());
    let user_data = opener.open_secrets(app).unwrap().user_data.expose().clone();
    let text = base64::engine::general_purpose::STANDARD.decode(user_data).unwrap();
    assert!(text.starts_with(b"#cloud-config"), "{text:?}");
}

#[test]
fn certificates_are_named_as_recorded() {
    if !golden() {
        return;
    }
    let hashes = json("pki/hashes.json");
    let of = |start: &str| {
        let all = hashes.as_object().unwrap();
        all.iter().find(|(k, _)| k.starts_with(start)).unwrap().1.as_str().unwrap().to_owned()
    };
    let device = CertHash::of(device_certificate_of_vectors().pem());
    assert_eq!(device.to_string(), of("device_ecdh ZCert.certHash"));
    let controller = CertHash::of(published()[0].pem());
    assert_eq!(controller.to_string(), of("controller_ecdh ZCert.certHash"));
    let context = Context::from_wire(&context()).unwrap();
    assert_eq!((context.device, context.controller), (device, controller));
}

#[test]
fn a_key_that_is_not_the_certificates_seals_nothing() {
    let now = UnixMillis(1_767_323_045_000);
    let certificate = |_| device_certificate(&SigningKey::generate().unwrap(), now).unwrap();
    let [controller, device] = [0, 1].map(certificate);
    let key = ExchangeKey::generate().unwrap();
    let got = Sealer::new(&key, &controller, &device, "c");
    assert_eq!(got.unwrap_err(), CipherError::OwnCertificate);
}

fn any_secrets() -> impl Strategy<Value = Secrets> {
    let text = || any::<String>().prop_map(Into::into);
    (
        (text(), text(), text(), text(), text(), text()),
        (text(), text(), text(), text(), any::<Vec<u8>>(), text()),
        proptest::option::of(text()),
    )
        .prop_map(|(a, b, artifact_metadata)| Secrets {
            datastore_key: a.0,
            datastore_password: a.1,
            wifi_user: a.2,
            wifi_password: a.3,
            user_data: a.4,
            cellular_user: a.5,
            cellular_password: b.0,
            cellular_attach_user: b.1,
            cellular_attach_password: b.2,
            cluster_token: b.3,
            cluster_manifest: b.4.into(),
            scep_challenge: b.5,
            artifact_metadata,
        })
}

proptest! {
    #[test]
    fn secrets_survive_the_way(secrets in any_secrets(), iv: [u8; 16], point: ([u8; 32], [u8; 32])) {
        let payload = secrets.to_payload();
        prop_assert_eq!(&Secrets::from_payload(payload.expose()).unwrap(), &secrets);
        let shared = SharedKey::from_point(&point.0, &point.1);
        match shared.seal("c", payload.expose(), iv) {
            Ok(sealed) => {
                prop_assert_eq!(shared.open(&sealed).unwrap(), payload);
                let other = SharedKey::from_point(&point.1, &[7; 32]);
                prop_assert_eq!(other.open(&sealed).unwrap_err(), CipherError::ClearText);
            }
            Err(e) => {
                prop_assert!(payload.expose().is_empty());
                prop_assert_eq!(e, CipherError::Incomplete { field: "cipherData" });
            }
        }
    }

    #[test]
    fn nothing_of_a_secret_is_printed(word in "[a-z]{12,20}") {
        let secrets = Secrets { wifi_password: word.clone().into(), ..Secrets::default() };
        let block = EncryptionBlock { wifi_password: word.clone(), ..EncryptionBlock::default() };
        let shared = SharedKey::from_point(&[1; 32], &[2; 32]);
        for text in [
            format!("{secrets:?}"),
            format!("{block:#?}"),
            format!("{:?}", secrets.to_payload()),
            format!("{shared:?}"),
            format!("{:?}", ExchangeKey::generate().unwrap()),
        ] {
            prop_assert!(text.contains("ecret") && !text.contains(&word), "{}", text);
        }
    }
}
