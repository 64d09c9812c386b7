//! Secrets from an operator's object to the node that opens them, over changes of keys on both sides.

use api::cipher::{CertHash, CipherError, ExchangeKey, Opener, Secrets};
use api::pb::certs::{ZCert, ZCertAttr, ZCertType};
use api::pb::common::{CipherBlock, HashAlgorithm};
use api::pb::config::EdgeDevConfig;
use api::{Certificate, wire};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::UnixMillis;
use testbed::sim::{Device, Line, Polled, Way};

use crate::rotation::Authority;

/// Every place that a node of ours takes a secret from.
const OBJECTS: &str = r##"
{kind: Secret, name: data, spec: {value: "#cloud-config swordfish-data"}}
---
{kind: Secret, name: shop, spec: {value: swordfish-shop}}
---
{kind: Secret, name: radio, spec: {value: swordfish-radio}}
---
kind: Device
name: edge-1
spec:
  soft_serial: SIM-1-1
  ports:
    - {name: eth0}
    - {name: wlan0, management: false, wifi: [{ssid: corp, password: {secret: radio}}]}
---
{kind: Datastore, name: shop, spec: {type: https, host: shop.example, user: buyer, password: {secret: shop}}}
---
{kind: Image, name: guest, spec: {datastore: shop, path: guest.qcow2, format: qcow2, max_size: 1GiB}}
---
{kind: App, name: guest, spec: {device: edge-1, image: guest, virtualization: vm, user_data: {secret: data}}}
"##;

fn now() -> UnixMillis {
    host::clock::now()
}

/// A node's key for key exchange, with its certificate.
struct Own {
    key: ExchangeKey,
    certificate: Certificate,
}

impl Own {
    fn of(device: &mut Device) -> Own {
        let key = ExchangeKey::generate().unwrap();
        let own = device.certificate(now()).unwrap().clone();
        let signer = device.key().unwrap();
        let certificate = api::exchange_certificate(signer, &own, &key, now()).unwrap();
        Own { key, certificate }
    }

    async fn show(&self, device: &mut Device, line: &mut Line) {
        let pem = self.certificate.pem().to_vec();
        let shown = ZCert {
            hash_algo: HashAlgorithm::Sha25616bytes.into(),
            cert_hash: CertHash::of(&pem).0.to_vec(),
            r#type: ZCertType::CertTypeDeviceEcdhExchange.into(),
            cert: pem,
            // EVE says no more of a key in a file.
            attributes: Some(ZCertAttr { is_mutable: false, is_tpm: false }),
            ..ZCert::default()
        };
        let status = device.show_these(line, vec![shown], now()).await.unwrap();
        assert!(matches!(status, 200 | 201), "{status}");
    }

    fn opener(&self, controller: &[Certificate], config: &EdgeDevConfig) -> Opener {
        let opener = Opener::new(&self.key, &self.certificate, controller);
        opener.with_contexts(&config.cipher_contexts)
    }
}

/// The blocks of a config: of the app, of the datastore, of the port.
fn blocks(config: &EdgeDevConfig) -> [CipherBlock; 3] {
    let app = config.apps[0].cipher_data.clone().unwrap();
    let shop = config.datastores.iter().find_map(|d| d.cipher_data.clone()).unwrap();
    let wifi = config.networks.iter().flat_map(|n| &n.wireless).flat_map(|w| &w.wifi_cfg);
    let radio = wifi.filter_map(|w| w.cipher_data.clone()).next().unwrap();
    [app, shop, radio]
}

#[track_caller]
fn opens(opener: &Opener, config: &EdgeDevConfig) {
    let clear = wire::encode(config);
    assert!(!clear.windows(9).any(|w| w == b"swordfish"), "a secret stands in clear");
    let [app, shop, radio] = blocks(config).map(|block| opener.open_secrets(&block).unwrap());
    let data = STANDARD.encode("#cloud-config swordfish-data");
    assert_eq!(app, Secrets { user_data: data.into(), ..Secrets::default() });
    let (key, password) = ("buyer".to_owned().into(), "swordfish-shop".to_owned().into());
    let want = Secrets { datastore_key: key, datastore_password: password, ..Secrets::default() };
    assert_eq!(shop, want);
    assert_eq!(radio.wifi_password.expose(), "swordfish-radio");
}

#[tokio::test]
async fn app_user_data() {
    let authority = Authority::new();
    let site = authority.begin().await;
    site.operator.apply(OBJECTS, false).await.unwrap();
    let conf = site.conf.clone();
    let mut line = Line::new(conf.clone(), Way::Close);

    let mut device = Device::new(1, 1);
    device.onboard(&mut line, now()).await.unwrap();
    let own = Own::of(&mut device);
    own.show(&mut device, &mut line).await;
    assert_eq!(device.poll(&mut line, now()).await.unwrap(), Polled::Applied);
    let first = device.node.told().unwrap().clone();
    let known = conf.certs().unwrap().exchange().to_vec();
    opens(&own.opener(&known, &first), &first);

    // The controller takes another key: what it seals from now on opens with that, and what it had
    // sealed opens as long as its old certificate is kept.
    let site = site.change(authority.files("signing", "ecdh-next")).await;
    assert_eq!(device.poll(&mut line, now()).await.unwrap(), Polled::Applied);
    let second = device.node.told().unwrap().clone();
    let next = conf.certs().unwrap().exchange().to_vec();
    assert_ne!(next, known);
    opens(&own.opener(&next, &second), &second);
    opens(&own.opener(&[known, next.clone()].concat(), &first), &first);
    let refused = own.opener(&next, &first).open(&blocks(&first)[0]).unwrap_err();
    assert!(
        matches!(refused, CipherError::UnknownCertificate { side: "controller", .. }),
        "{refused}"
    );

    // The node was installed anew: all is sealed again, to its new key, and the old one is worthless.
    let anew = Own::of(&mut device);
    anew.show(&mut device, &mut line).await;
    assert_eq!(device.poll(&mut line, now()).await.unwrap(), Polled::Applied);
    let third = device.node.told().unwrap().clone();
    opens(&anew.opener(&next, &third), &third);
    let refused = own.opener(&next, &third).open(&blocks(&third)[0]).unwrap_err();
    assert!(matches!(refused, CipherError::UnknownCertificate { side: "device", .. }), "{refused}");

    // No initial value comes twice: it would give the key stream away.
    let values = [first, second, third].map(|c| blocks(&c).map(|b| b.initial_value));
    let distinct: std::collections::BTreeSet<_> = values.iter().flatten().collect();
    assert_eq!(distinct.len(), 9);
    site.running.stop().await;
}
