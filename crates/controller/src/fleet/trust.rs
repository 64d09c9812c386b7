//! Which state of a machine is trusted: the one that an operator accepted.
//!
//! A node whose object asks for attestation gets its config only while its TPM proves the registers
//! that were accepted for it. The first proof of such a node is kept and refused until somebody has
//! looked at it and accepts it.

use std::collections::{BTreeMap, BTreeSet};

use api::Certificate;
use api::convert::attest::{Quote, Refusal};
use uuid::Uuid;

use super::{Fleet, FleetError};
use crate::attest::{Judgement, Known, NONCE_LIFE, Policy, examine};
use crate::db::{DbError, Verdict};
use crate::objects::{Key, Kind, Spec};

/// What EVE seals to, and the measurement of its configuration: firmware, its settings, boot loader,
/// kernel, root file system; not what grows while a machine runs.
const JUDGED: [u32; 11] = [0, 1, 2, 3, 4, 6, 7, 8, 9, 13, 14];
/// The number that the API has for the certificates that sign quotes.
const RESTRICTED_SIGNING: i32 = 11;

impl Fleet {
    /// Judges a quote, and keeps the outcome with its reasons.
    pub(crate) async fn judge(&self, id: Uuid, quote: &Quote) -> Result<Judgement, DbError> {
        let nonce = self.db.take_nonce(id, self.now(), NONCE_LIFE).await?;
        let attest = self.db.device_cert(id, RESTRICTED_SIGNING).await?;
        let (pem, demanded) = self.look(|known| {
            let spec = known.object_of(id).map(|o| &o.object.spec);
            let demanded = matches!(spec, Some(Spec::Device(d)) if d.attestation);
            (known.device(id).and_then(|d| d.cert_pem.clone()), demanded)
        });
        let device = pem.and_then(|pem| Certificate::from_pem(&pem).ok());
        let baseline = self.db.baseline(id).await?;
        let policy = baseline.clone().unwrap_or_default();
        let known = Known {
            nonce: nonce.as_deref(),
            attest: attest.as_deref(),
            device: device.as_ref(),
            policy: &policy,
        };
        let mut judgement = examine(quote, &known);
        if judgement.good && judgement.proven && demanded && baseline.is_none() {
            judgement.good = false;
            judgement.refusal = Some(Refusal::QuoteFailed);
            "the TPM proves what runs, but nobody has accepted this state of the machine yet"
                .clone_into(&mut judgement.summary);
        }
        if nonce.is_some() {
            // Not for a quote without a nonce: anybody can repeat an old one.
            let verdict = Verdict {
                at: self.now(),
                good: judgement.good,
                // Values of ours: there is nothing in it that JSON could refuse.
                verdict: serde_json::to_string(&judgement).unwrap_or_default(),
            };
            self.db.put_verdict(id, &verdict).await?;
        }
        Ok(judgement)
    }

    /// Accepts the state that a node proved last: from now on it must prove this one.
    pub(crate) async fn accept(&self, name: &str, author: &str) -> Result<(), FleetError> {
        let key = Key::new(Kind::Device, name);
        let id = self.look(|known| known.device_object(name).map(|o| o.object.uid));
        let id = id.ok_or_else(|| FleetError::NoObject(key.clone()))?;
        let verdict = self.db.verdict(id).await?;
        let judged = verdict.and_then(|v| serde_json::from_str::<Judgement>(&v.verdict).ok());
        let proven = judged.filter(|j| j.proven).ok_or(FleetError::NothingProven(key))?;
        let pcrs = proven.findings.pcrs.into_iter().filter(|p| JUDGED.contains(&p.register));
        let pcrs: BTreeMap<u32, _> =
            pcrs.map(|p| (p.register, BTreeSet::from([p.value]))).collect();
        let policy = Policy { pcrs, require_tpm: true, ..Policy::default() };
        self.db.set_baseline(id, &policy, author, self.now()).await?;
        // The config is due as soon as it attests again; the journal and the audit log tell.
        self.note_device(name, "state accepted", author).await
    }
}
