//! What the controller said, kept as received, and believed again only after verification.
//!
//! A checkpoint was judged when it was written, so it is judged again as of that time: a node that
//! boots with a wrong clock, or years later, still runs its apps. The certificates that verify the
//! saved config are kept beside newer ones (`controllercerts.old`) as long as it is in use.

use std::path::PathBuf;

use api::Signer;
use api::certs::ControllerCerts;
use api::convert::config as wire;
use model::desired::Device;
use model::{DeviceId, Digest, chain};
use store::SaveError;

use crate::link::{CallError, Link, read_checkpoint};

const CERTS: &str = "controllercerts";
const OLD_CERTS: &str = "controllercerts.old";
const CONFIG: &str = "lastconfig";

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

    pub(super) fn signer(&self) -> &Signer {
        self.certs.signer()
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
    pub(super) fn config(&self, link: &Link, own: DeviceId) -> Option<Box<Device>> {
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
        match wire::read_answer(&payload, own, "") {
            Ok(wire::Answer::Changed { device, .. }) => {
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
