//! What the controller said, kept as received, and believed again only after verification.
//!
//! A checkpoint was judged when it was written, so it is judged again as of that time: a node that
//! boots with a wrong clock, or years later, still runs its apps. The certificates that verify the
//! saved config are kept beside newer ones (`controllercerts.old`) as long as it is in use.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use api::certs::ControllerCerts;
use api::cipher::CertHash;
use api::convert::config as wire;
use api::convert::secret::Open;
use api::{Certificate, Signer};
use device::config::floor::{self, Found, Record};
use model::desired::Device;
use model::{Bytes, DeviceId, Digest, UnixMillis, chain};
use store::SaveError;

use crate::link::{CallError, Link, read_checkpoint};

const CERTS: &str = "controllercerts";
const OLD_CERTS: &str = "controllercerts.old";
pub(super) const CONFIG: &str = "lastconfig";
const FLOOR: &str = "newest";
/// The controller's certificates for key exchange, old ones that are still referred to among them.
const EXCHANGE: &str = "exchange";
const EXCHANGE_MAX: Bytes = Bytes::mib(1);
/// The record takes some 200 bytes; an order is cut to 64 characters.
const SMALL_MAX: Bytes = Bytes::kib(4);

/// Certificates as PEM, to the byte: their hashes are names. Every version that was ever written
/// loads.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(tag = "version")]
enum Kept {
    #[serde(rename = "1")]
    V1 { certificates: Vec<String> },
}

/// The folder `/persist/checkpoint`.
#[derive(Debug)]
pub(super) struct Checkpoint {
    dir: PathBuf,
    /// Who signed the saved config.
    config_signer: std::cell::Cell<Option<Digest>>,
}

/// Whose signature is believed.
#[derive(Debug, Clone)]
pub(super) struct Signers {
    certs: ControllerCerts,
}

impl Signers {
    pub(super) fn new(certs: ControllerCerts) -> Signers {
        Signers { certs }
    }

    /// From when on the signing certificate is valid.
    pub(super) fn since(&self) -> UnixMillis {
        self.certs.since()
    }

    pub(super) fn signer(&self) -> &Signer {
        self.certs.signer()
    }

    /// The certificates for key exchange that the controller publishes, by the names that configs
    /// use for them.
    pub(super) fn exchange(&self) -> BTreeMap<CertHash, Certificate> {
        let all = self.certs.exchange().iter();
        all.map(|c| (CertHash::of(c.pem()), c.clone())).collect()
    }
}

impl Checkpoint {
    pub(super) fn open(dir: PathBuf) -> Checkpoint {
        Checkpoint { dir, config_signer: std::cell::Cell::new(None) }
    }

    /// The certificates last in use, if they verify.
    pub(super) fn certs(&self, link: &Link) -> Option<Signers> {
        self.read_certs(link, CERTS)
    }

    /// The saved config, if a controller whose certificates we keep signed it, for us.
    pub(super) fn config(
        &self,
        link: &Link,
        own: DeviceId,
        open: &mut Open<'_>,
    ) -> Option<Box<Device>> {
        let (body, _) = self.read(CONFIG)?;
        let limit = api::limits::CONFIG;
        let believed = [CERTS, OLD_CERTS].iter().find_map(|name| {
            let signers = self.read_certs(link, name)?;
            let payload = crate::link::verify("config", &body, signers.signer(), limit).ok()?;
            Some((signers.signer().hash(), payload))
        });
        let Some((signer, payload)) = believed else {
            tracing::warn!("the saved config is left aside: nobody we believe signed it");
            return None;
        };
        match wire::read_sealed_answer(&payload, own, "", open) {
            Ok(wire::Answer::Changed { mut device, .. }) => {
                device::able::limit(&mut device);
                self.config_signer.set(Some(signer));
                Some(device)
            }
            Ok(wire::Answer::Unchanged) => None,
            Err(e) => {
                tracing::warn!("the saved config is left aside: {}", chain(&e));
                None
            }
        }
    }

    /// Keeps new certificates; and the ones before, if the saved config needs them.
    pub(super) fn save_certs(
        &self,
        before: Option<&Signers>,
        new: &ControllerCerts,
        body: &[u8],
    ) -> Result<(), SaveError> {
        let needed = before.map(|b| b.signer().hash()).filter(|h| *h != new.signer().hash());
        if needed.is_some()
            && needed == self.config_signer.get()
            && let Some((old, _)) = self.read(CERTS)
        {
            store::save(&self.dir, OLD_CERTS, &old)?;
        }
        store::save(&self.dir, CERTS, body)
    }

    /// Keeps a config, as received.
    pub(super) fn save_config(
        &self,
        body: &[u8],
        signers: Option<&Signers>,
    ) -> Result<(), SaveError> {
        store::save(&self.dir, CONFIG, body)?;
        self.config_signer.set(signers.map(|s| s.signer().hash()));
        Ok(())
    }

    /// Before which time no config may have been made, as of this boot. `saved` is that of the saved
    /// config; `conf` the folder with the files of the CONFIG partition.
    pub(super) fn floor(
        &self,
        server: &str,
        id: DeviceId,
        saved: Option<UnixMillis>,
        conf: &Path,
    ) -> Record {
        let text = store::read_bounded(&self.dir.join(FLOOR), SMALL_MAX);
        let record = text.ok().and_then(|text| {
            let read = serde_json::from_slice(&text);
            read.inspect_err(|e| tracing::warn!("the time of the newest config is lost: {e}")).ok()
        });
        let order = store::read_bounded(&conf.join(floor::ORDER), SMALL_MAX).unwrap_or_default();
        let order = String::from_utf8_lossy(&order);
        let found = Found { server, id, record: record.as_ref(), saved, order: &order };
        let new = floor::at_boot(found);
        if record.as_ref().is_some_and(|r| r.obeyed != new.obeyed) {
            tracing::warn!("told to accept configs older than the one in force, once");
        }
        if record.as_ref() != Some(&new)
            && let Err(e) = self.save_floor(&new)
        {
            tracing::error!("the time of the newest config is not saved: {}", chain(&e));
        }
        new
    }

    /// Keeps it.
    pub(super) fn save_floor(&self, record: &Record) -> Result<(), SaveError> {
        store::save(&self.dir, FLOOR, &serde_json::to_vec(record).unwrap_or_default())
    }

    /// The controller's certificates for key exchange, as last kept.
    pub(super) fn exchange(&self) -> BTreeMap<CertHash, Certificate> {
        let Ok(text) = store::read_bounded(&self.dir.join(EXCHANGE), EXCHANGE_MAX) else {
            return BTreeMap::new();
        };
        let read = serde_json::from_slice(&text);
        let Kept::V1 { certificates } = read.unwrap_or_else(|e| {
            tracing::warn!("the controller's old certificates for secrets are lost: {e}");
            Kept::V1 { certificates: Vec::new() }
        });
        let read = certificates.iter().filter_map(|c| Certificate::from_pem(c.as_bytes()).ok());
        read.map(|c| (CertHash::of(c.pem()), c)).collect()
    }

    /// Keeps them.
    pub(super) fn save_exchange(
        &self,
        known: &BTreeMap<CertHash, Certificate>,
    ) -> Result<(), SaveError> {
        let pem = |c: &Certificate| String::from_utf8(c.pem().to_vec()).ok();
        let kept = Kept::V1 { certificates: known.values().filter_map(pem).collect() };
        store::save(&self.dir, EXCHANGE, &serde_json::to_vec(&kept).unwrap_or_default())
    }

    fn read_certs(&self, link: &Link, name: &str) -> Option<Signers> {
        let (body, written) = self.read(name)?;
        match link.check_certs(&body, written) {
            Ok(certs) => Some(Signers::new(certs)),
            Err(e) => {
                tracing::warn!("saved certificates are left aside: {}", chain(&e));
                None
            }
        }
    }

    fn read(&self, name: &str) -> Option<(Vec<u8>, model::UnixMillis)> {
        match read_checkpoint(&self.dir.join(name)) {
            Ok(read) => Some(read),
            Err(CallError::File { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                None
            }
            Err(e) => {
                tracing::warn!("{}", chain(&e));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::vectors::{golden, own, t0, vector};
    use crate::service::Paths;

    /// A node of the vectors' controller, and an empty checkpoint.
    fn node() -> (tempfile::TempDir, Link, Checkpoint) {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for (folder, name, bytes) in [
            ("config", "server", b"controller".to_vec()),
            ("config", "root-certificate.pem", vector("pki/root-certificate.pem")),
            ("persist/certs", crate::link::DEVICE_KEY, vector("pki/device.key.pem")),
            ("persist/certs", crate::link::DEVICE_CERTIFICATE, vector("pki/device.cert.pem")),
        ] {
            std::fs::create_dir_all(path(folder)).unwrap();
            store::save(&path(folder), name, &bytes).unwrap();
        }
        let paths = Paths { run: path("run"), persist: path("persist"), config: path("config") };
        let link = Link::open(&paths).unwrap();
        std::fs::create_dir_all(path("checkpoint")).unwrap();
        let checkpoint = Checkpoint::open(path("checkpoint"));
        (dir, link, checkpoint)
    }

    /// Nothing is sealed in these.
    fn shut(
        _: &[api::pb::common::CipherContext],
        _: &api::pb::common::CipherBlock,
    ) -> Result<Vec<u8>, String> {
        Err("sealed".to_owned())
    }

    fn certs(link: &Link, name: &str) -> (ControllerCerts, Vec<u8>) {
        let body = vector(&format!("envelope/{name}.AuthContainer.pb"));
        (link.check_certs(&body, t0()).unwrap(), body)
    }

    /// The files were written now; what they hold is of 2026.
    fn date(checkpoint: &Checkpoint) {
        let then = std::time::UNIX_EPOCH + std::time::Duration::from_millis(t0().0);
        for entry in std::fs::read_dir(&checkpoint.dir).unwrap().flatten() {
            let file = std::fs::File::options().write(true).open(entry.path()).unwrap();
            file.set_modified(then).unwrap();
        }
    }

    #[test]
    fn a_saved_config_outlives_new_certificates_however_often_they_change() {
        if golden().is_none() {
            return;
        }
        let (_dir, link, checkpoint) = node();
        let (first, first_body) = certs(&link, "resp-certs");
        let (second, second_body) = certs(&link, "resp-certs-rotated");
        checkpoint.save_certs(None, &first, &first_body).unwrap();
        let signers = Signers::new(first);
        let config = vector("config/container-app.ConfigResponse.AuthContainer.pb");
        checkpoint.save_config(&config, Some(&signers)).unwrap();
        checkpoint.save_certs(Some(&signers), &second, &second_body).unwrap();
        let new = Signers::new(second.clone());
        // Fetched again, the same: those the config needs must not be pushed out.
        checkpoint.save_certs(Some(&new), &second, &second_body).unwrap();
        date(&checkpoint);

        let rebooted = Checkpoint::open(checkpoint.dir.clone());
        assert_eq!(rebooted.certs(&link).unwrap().signer(), second.signer());
        assert_eq!(rebooted.config(&link, own(), &mut shut).unwrap().apps.len(), 1);
    }

    #[test]
    fn a_saved_config_of_another_node_or_of_nobody_we_believe_is_left_aside() {
        if golden().is_none() {
            return;
        }
        let (_dir, link, checkpoint) = node();
        let config = vector("config/container-app.ConfigResponse.AuthContainer.pb");
        checkpoint.save_config(&config, None).unwrap();
        assert!(checkpoint.config(&link, own(), &mut shut).is_none(), "no certificates");
        let (first, body) = certs(&link, "resp-certs");
        checkpoint.save_certs(None, &first, &body).unwrap();
        date(&checkpoint);
        let other = "00000000-0000-4000-8000-000000000001".parse().unwrap();
        assert!(checkpoint.config(&link, other, &mut shut).is_none(), "another node");
        assert!(checkpoint.config(&link, own(), &mut shut).is_some());
    }

    #[test]
    fn the_time_of_the_newest_config_is_kept_and_forgotten_on_order() {
        let (own, told) = (DeviceId::new(uuid::Uuid::from_u128(7)), UnixMillis(1_767_323_045_000));
        let dir = tempfile::tempdir().unwrap();
        let checkpoint = Checkpoint::open(dir.path().to_owned());
        let boot = || checkpoint.floor("c", own, None, dir.path());
        let first = boot();
        assert_eq!(first.newest, None);
        checkpoint.save_floor(&first.raised(Some(told)).unwrap()).unwrap();
        assert_eq!(boot().newest, Some(told));
        store::save(dir.path(), floor::ORDER, b"the clock was wrong").unwrap();
        assert_eq!(boot().newest, None);
        checkpoint.save_floor(&boot().raised(Some(UnixMillis(7))).unwrap()).unwrap();
        assert_eq!(boot().newest, Some(UnixMillis(7)), "one order forgets once");
        store::save(dir.path(), FLOOR, b"{").unwrap();
        assert_eq!(checkpoint.floor("c", own, Some(told), dir.path()).newest, None);
    }
}
