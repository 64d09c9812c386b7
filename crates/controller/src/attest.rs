//! Attestation: whether to believe what a node says of itself.
//!
//! A node with a TPM proves it by a quote; a node without one proves only that it is there and
//! remembers its key. What a proven machine may look like is the policy's matter.

pub(crate) mod policy;

use std::time::Duration;

use api::Certificate;
use api::convert::attest::{Quote, Refusal};
use api::quote::{self, Evidence, QuoteError};
use serde::{Deserialize, Serialize};

pub(crate) use policy::{Findings, Policy};

/// A nonce that is not used within this time is none.
pub(crate) const NONCE_LIFE: Duration = Duration::from_secs(300);
/// Devices take 12 to 32 bytes.
pub(crate) const NONCE_BYTES: usize = 16;

/// What is known of the node that sent a quote.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known<'a> {
    /// The nonce that it was given, if that is still good.
    pub(crate) nonce: Option<&'a [u8]>,
    /// Its certificate for quotes (type 11), PEM as it came. `None`: it sent none.
    pub(crate) attest: Option<&'a [u8]>,
    /// Its own certificate.
    pub(crate) device: Option<&'a Certificate>,
    /// What it must prove.
    pub(crate) policy: &'a Policy,
}

/// What became of a quote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Judgement {
    /// Whether it is believed.
    pub(crate) good: bool,
    /// Whether a TPM proved it. Only then may keys that were given into our care go back.
    pub(crate) proven: bool,
    /// In a sentence.
    pub(crate) summary: String,
    /// What the policy found.
    pub(crate) findings: Findings,
    /// What the node is told; `None` if it is believed.
    #[serde(skip)]
    pub(crate) refusal: Option<Refusal>,
}

impl Judgement {
    fn refused(refusal: Refusal, summary: impl Into<String>) -> Judgement {
        let (good, proven, summary) = (false, false, summary.into());
        let refusal = Some(refusal);
        Judgement { good, proven, summary, findings: Findings::default(), refusal }
    }

    fn of(proven: bool, findings: Findings) -> Judgement {
        let good = findings.against.is_empty();
        let summary = match (findings.against.as_slice(), proven) {
            ([], true) => "the TPM proves what runs, and the policy allows it".to_owned(),
            ([], false) => "the node has no TPM, and the policy allows that".to_owned(),
            ([one], _) => one.clone(),
            ([first, rest @ ..], _) => format!("{first}; and {} more", rest.len()),
        };
        let refusal = (!good).then_some(Refusal::QuoteFailed);
        Judgement { good, proven, summary, findings, refusal }
    }
}

/// Judges a quote, with reasons.
pub(crate) fn examine(quote: &Quote, known: &Known<'_>) -> Judgement {
    let Some(nonce) = known.nonce else {
        let summary = "there is no nonce that is still good; each counts once and not for long";
        return Judgement::refused(Refusal::NonceMismatch, summary);
    };
    // A node without a TPM has nothing to sign with; it may repeat the nonce.
    if quote.signature.is_empty() && quote.registers.is_empty() {
        if !quote.data.is_empty() && quote.data != nonce {
            return Judgement::refused(Refusal::NonceMismatch, Refusal::NonceMismatch.to_string());
        }
        // Else whoever takes a node over would only have to leave the proof out.
        if known.attest.is_some() {
            let summary = "the node has shown a certificate of its TPM, and now says it has none";
            return Judgement::refused(Refusal::QuoteFailed, summary);
        }
        return Judgement::of(false, known.policy.judge_unproven(quote));
    }
    let (Some(attest), Some(device)) = (known.attest, known.device) else {
        let summary = "the node sent a quote, but no certificate to check it with";
        return Judgement::refused(Refusal::NoCertificate, summary);
    };
    let attest = match Certificate::from_pem(attest) {
        Ok(certificate) => certificate,
        Err(e) => return Judgement::refused(Refusal::NoCertificate, model::chain(&e)),
    };
    let (data, signature) = (quote.data.as_slice(), quote.signature.as_slice());
    let registers = quote.registers.as_slice();
    let evidence = Evidence { data, signature, registers, nonce, attest: &attest, device };
    match quote::verify(&evidence) {
        Ok(verified) => Judgement::of(true, known.policy.judge(&verified.registers, quote)),
        Err(e @ QuoteError::Nonce) => Judgement::refused(Refusal::NonceMismatch, model::chain(&e)),
        Err(e) => Judgement::refused(Refusal::QuoteFailed, model::chain(&e)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::PathBuf;

    use api::convert::attest::Register;
    use expect_test::expect;
    use model::Digest;

    use super::policy::{Logged, Standing};
    use super::*;

    /// Judges a quote of a node of which no certificate is at hand.
    fn judge(quote: &Quote, nonce: Option<&[u8]>) -> Result<(), Refusal> {
        let policy = Policy::default();
        let known = Known { nonce, attest: None, device: None, policy: &policy };
        examine(quote, &known).refusal.map_or(Ok(()), Err)
    }

    /// A quote of a real TPM: `crates/api/tests/data/tpm/README.md` says how it was made.
    struct Boot {
        quote: Quote,
        nonce: Vec<u8>,
        attest: Vec<u8>,
        device: Certificate,
    }

    fn boot() -> Boot {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../api/tests/data/tpm");
        let file = |name: &str| std::fs::read(folder.join(name)).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&file("quote.json")).unwrap();
        let bytes = |value: &serde_json::Value| hex::decode(value.as_str().unwrap()).unwrap();
        let values = json["sha256"].as_array().unwrap().iter().map(bytes);
        let register = |(index, value)| Register { index, algorithm: 2, value };
        let quote = Quote {
            data: bytes(&json["attest"]),
            signature: bytes(&json["signature"]),
            registers: (0..).zip(values).map(register).collect(),
            version: "1.2".to_owned(),
            firmware: "maker-3-2026".to_owned(),
            event_log: file("event-log.gz"),
            ..Quote::default()
        };
        let device = Certificate::from_pem(&file("device.cert.pem")).unwrap();
        Boot { quote, nonce: bytes(&json["nonce"]), attest: file("attest.cert.pem"), device }
    }

    impl Boot {
        fn judged(&self, policy: &Policy) -> Judgement {
            let known = Known {
                nonce: Some(&self.nonce),
                attest: Some(&self.attest),
                device: Some(&self.device),
                policy,
            };
            examine(&self.quote, &known)
        }

        fn value(&self, register: usize) -> Digest {
            Digest(self.quote.registers[register].value.as_slice().try_into().unwrap())
        }
    }

    #[test]
    fn a_quote_without_platform_registers_needs_an_outstanding_nonce() {
        let quote = |data: &[u8]| Quote { data: data.to_vec(), ..Quote::default() };
        for (data, nonce, code) in [
            (&b""[..], Some(&b"n"[..]), Ok(())),
            (b"n", Some(b"n"), Ok(())),
            (b"m", Some(b"n"), Err(Refusal::NonceMismatch)),
            (b"", None, Err(Refusal::NonceMismatch)),
        ] {
            assert_eq!(judge(&quote(data), nonce), code, "{data:?} {nonce:?}");
        }
    }

    #[test]
    fn a_quote_that_cannot_be_checked_is_not_believed() {
        let Boot { quote, nonce, attest, device } = boot();
        let policy = Policy::default();
        assert_eq!(judge(&quote, Some(&nonce)), Err(Refusal::NoCertificate));
        let known = |nonce, attest| Known { nonce, attest, device: Some(&device), policy: &policy };
        let refusal = |quote: &Quote, known: &Known<'_>| examine(quote, known).refusal;
        let (given, other) = (Some(nonce.as_slice()), Some(&b"another nonce"[..]));
        let on_file = Some(attest.as_slice());
        assert_eq!(refusal(&quote, &known(given, on_file)), None);
        assert_eq!(refusal(&quote, &known(None, on_file)), Some(Refusal::NonceMismatch));
        assert_eq!(refusal(&quote, &known(other, on_file)), Some(Refusal::NonceMismatch));
        assert_eq!(refusal(&quote, &known(given, None)), Some(Refusal::NoCertificate));
        assert_eq!(refusal(&quote, &known(given, Some(b"x"))), Some(Refusal::NoCertificate));
        // The nonce of a quote that is not signed counts for nothing.
        let unsigned = Quote { signature: Vec::new(), ..quote.clone() };
        assert_eq!(refusal(&unsigned, &known(given, on_file)), Some(Refusal::QuoteFailed));
        let unquoted = Quote { registers: Vec::new(), ..quote };
        assert_eq!(refusal(&unquoted, &known(given, on_file)), Some(Refusal::QuoteFailed));
    }

    #[test]
    fn a_real_boot_is_believed_and_explained() {
        let boot = boot();
        let mut policy = Policy { require_event_log: true, require_tpm: true, ..Policy::default() };
        policy.pcrs.insert(7, BTreeSet::from([boot.value(7), Digest([1; 32])]));
        policy.versions.insert("1.2".to_owned());
        policy.firmware.insert("maker-3-2026".to_owned());
        let judged = boot.judged(&policy);
        assert!(judged.good && judged.proven, "{judged:#?}");
        assert_eq!(judged.findings.pcrs.len(), 16);
        assert_eq!(judged.findings.pcrs[7].standing, Standing::Allowed);
        assert_eq!(judged.findings.pcrs[4].standing, Standing::Unjudged);
        assert_eq!(judged.findings.pcrs[14].log, Logged::Outgrown);
        let lines: Vec<&str> = judged.findings.pcrs.iter().map(|p| p.text.as_str()).collect();
        expect![[r#"
            PCR 0 (firmware) holds what 4 logged events give
            PCR 1 (firmware settings) holds what 6 logged events give
            PCR 2 (drivers of plugged devices) holds what one logged event gives
            PCR 3 (settings of plugged devices) holds what one logged event gives
            PCR 4 (boot loader) holds what 6 logged events give
            PCR 5 (partition table, boot loader settings) holds what 4 logged events give
            PCR 6 (maker's own) holds what one logged event gives
            PCR 7 (Secure Boot) holds what 6 logged events give; its value is allowed
            PCR 8 (commands of GRUB, kernel command line) was never extended
            PCR 9 (files that GRUB read, initrd) holds what 2 logged events give
            PCR 10 (integrity measurements of the kernel) was extended after the event log ended
            PCR 11 (unified kernel image) holds what 12 logged events give
            PCR 12 (overridden kernel command line) was never extended
            PCR 13 (root file system of EVE) was never extended
            PCR 14 (configuration of EVE, machine owner keys) was extended after the event log ended
            PCR 15 (system identity) was never extended"#]]
        .assert_eq(&lines.join("\n"));
    }

    #[test]
    fn a_register_that_is_not_as_it_must_be_is_named_with_what_made_it() {
        let boot = boot();
        let mut policy = Policy::default();
        policy.pcrs.insert(4, BTreeSet::from([Digest([1; 32])]));
        policy.pcrs.insert(23, BTreeSet::from([Digest([1; 32])]));
        policy.versions.insert("1.3".to_owned());
        let judged = boot.judged(&policy);
        assert_eq!(judged.refusal, Some(Refusal::QuoteFailed));
        assert!(judged.proven && !judged.good);
        expect![[r#"
            EVE "1.2" is not one of the allowed versions
            PCR 23 is not quoted
            PCR 4 (boot loader) holds what 6 logged events give; its value c9b242263a7a2bcd178fb742a5eeb6497253d31eb48b58f83186766148f2a7a4 is not an allowed one"#]].assert_eq(&judged.findings.against.join("\n"));
        let events: Vec<&str> =
            judged.findings.pcrs[4].events.iter().map(|e| e.text.as_str()).collect();
        expect![[r#"
            Calling EFI Application from Boot Option
            from here on the boot loader measures
            Returning from EFI Application from Boot Option
            Calling EFI Application from Boot Option
            program PCI root 0/PCI 2.0/partition 1 (ad6871ee-31f9-4cf3-9e09-6f7a25c30051)/\EFI\BOOT\BOOTX64.EFI
            program memory of the boot loader (55c5d1f8-04cd-46b5-8a20-e56cbb3052d0)"#]].assert_eq(&events.join("\n"));
        assert!(judged.findings.pcrs[7].events.is_empty());
        let shown = serde_json::to_value(&judged).unwrap();
        assert_eq!(shown["findings"]["pcrs"][4]["standing"], "forbidden");
    }

    #[test]
    fn a_log_that_does_not_lead_to_the_registers_matters_if_the_policy_says_so() {
        let mut boot = boot();
        boot.quote.event_log.clear();
        let strict = Policy { require_event_log: true, ..Policy::default() };
        assert!(boot.judged(&Policy::default()).good);
        assert_eq!(boot.judged(&strict).summary, "the node sent no event log");
        boot.quote.event_log = b"noise".to_vec();
        assert!(boot.judged(&Policy::default()).good);
        assert!(boot.judged(&strict).summary.starts_with("cannot unpack the event log"));
    }

    #[test]
    fn a_policy_that_asks_for_proof_refuses_a_node_without_a_tpm() {
        let policy = Policy { require_tpm: true, ..Policy::default() };
        let known = Known { nonce: Some(b"n"), attest: None, device: None, policy: &policy };
        let judged = examine(&Quote::default(), &known);
        assert_eq!(judged.summary, "the policy asks for a TPM, the node has no TPM");
        assert!(!judged.proven && judged.refusal == Some(Refusal::QuoteFailed));
        let policy = Policy::default();
        let known = Known { policy: &policy, ..known };
        let judged = examine(&Quote::default(), &known);
        assert!(judged.good && !judged.proven);
        // One that has a TPM cannot do without.
        let judged = examine(&Quote::default(), &Known { attest: Some(b"shown"), ..known });
        assert_eq!(judged.refusal, Some(Refusal::QuoteFailed));
    }
}
