//! The node's key for key exchange: what secrets in a config are sealed to.
//!
//! `onboard` makes it once, beside the device key that signs its certificate; `config` hands the
//! certificate to the controller and opens what was sealed. Unlike the device key it may be made
//! anew: the controller then has to seal its secrets again.

use std::path::Path;

use api::cipher::ExchangeKey;
use api::convert::attest::{NodeCertificate, Purpose};
use api::{Certificate, CertificateError, KeyError, SigningKey};
use model::{Bytes, UnixMillis, chain};

/// Names in `/persist/certs`, as EVE has them.
const KEY: &str = "ecdh.key.pem";
const CERTIFICATE: &str = "ecdh.cert.pem";
/// Each takes less than 2 KiB.
const SMALL_MAX: Bytes = Bytes::kib(64);

/// A key and the certificate that the controller knows it by.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) key: ExchangeKey,
    pub(crate) certificate: Certificate,
}

/// Why there is no key for key exchange.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeTrouble {
    #[error("cannot make a key for secrets")]
    Make(#[from] KeyError),
    #[error("cannot keep the key for secrets")]
    Keep(#[from] store::StoreError),
    #[error("cannot read {name}")]
    Read { name: &'static str, source: std::io::Error },
    #[error("{KEY} is no usable key")]
    Key(#[source] KeyError),
    #[error("{CERTIFICATE} is no usable certificate")]
    Certificate(#[from] CertificateError),
    #[error("{CERTIFICATE} is not of {KEY}, or not signed by the device key")]
    Stranger,
}

impl Exchange {
    /// The key of an earlier start, or a fresh one if there is none that is whole and ours.
    pub(crate) fn of(
        dir: &Path,
        device_key: &SigningKey,
        device: &Certificate,
        now: UnixMillis,
    ) -> Result<Exchange, ExchangeTrouble> {
        match Exchange::read(dir, device) {
            Ok(there) => return Ok(there),
            Err(ExchangeTrouble::Read { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound => {}
            Err(why) => tracing::warn!("the key for secrets is made anew: {}", chain(&why)),
        }
        let key = ExchangeKey::generate()?;
        let certificate = api::exchange_certificate(device_key, device, &key, now)?;
        // The certificate last: without it, or with one of another key, all is made anew.
        store::save_with_mode(dir, KEY, key.to_pem()?.as_bytes(), 0o640)?;
        store::save(dir, CERTIFICATE, certificate.pem()).map_err(store::StoreError::from)?;
        tracing::info!("made the key for secrets");
        Ok(Exchange { key, certificate })
    }

    /// Reads what [`Exchange::of`] made.
    pub(crate) fn read(dir: &Path, device: &Certificate) -> Result<Exchange, ExchangeTrouble> {
        let read = |name: &'static str| {
            store::read_bounded(&dir.join(name), SMALL_MAX)
                .map_err(|source| ExchangeTrouble::Read { name, source })
        };
        let key = ExchangeKey::from_pem(&read(KEY)?).map_err(ExchangeTrouble::Key)?;
        let certificate = Certificate::from_pem(&read(CERTIFICATE)?)?;
        if !key.is_of(&certificate) || !certificate.is_signed_by(device)? {
            return Err(ExchangeTrouble::Stranger);
        }
        Ok(Exchange { key, certificate })
    }

    /// The certificate as the controller is told it.
    pub(crate) fn to_tell(&self) -> NodeCertificate {
        let pem = self.certificate.pem().to_vec();
        let hash = api::cipher::CertHash::of(&pem).0.to_vec();
        NodeCertificate { purpose: Purpose::KeyExchange, hash, pem, mutable: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_767_323_045_000);

    fn device() -> (SigningKey, Certificate) {
        let key = SigningKey::generate().unwrap();
        let certificate = api::device_certificate(&key, NOW).unwrap();
        (key, certificate)
    }

    #[test]
    fn it_is_made_once_signed_by_the_device_and_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let (key, certificate) = device();
        let made = Exchange::of(dir.path(), &key, &certificate, NOW).unwrap();
        assert!(made.certificate.is_signed_by(&certificate).unwrap());
        let again = Exchange::of(dir.path(), &key, &certificate, NOW).unwrap();
        assert_eq!(again.certificate.pem(), made.certificate.pem());
        let mode = std::fs::metadata(dir.path().join(KEY)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
    }

    #[test]
    fn one_that_is_broken_or_of_another_device_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (key, certificate) = device();
        let first = Exchange::of(dir.path(), &key, &certificate, NOW).unwrap();
        // The power went between key and certificate.
        std::fs::remove_file(dir.path().join(CERTIFICATE)).unwrap();
        let second = Exchange::of(dir.path(), &key, &certificate, NOW).unwrap();
        assert_ne!(second.certificate, first.certificate);
        store::save(dir.path(), CERTIFICATE, first.certificate.pem()).unwrap();
        assert!(matches!(Exchange::read(dir.path(), &certificate), Err(ExchangeTrouble::Stranger)));
        let third = Exchange::of(dir.path(), &key, &certificate, NOW).unwrap();
        let (other_key, other) = device();
        let fourth = Exchange::of(dir.path(), &other_key, &other, NOW).unwrap();
        assert_ne!(third.certificate, fourth.certificate);
        assert!(fourth.certificate.is_signed_by(&other).unwrap());
    }
}
