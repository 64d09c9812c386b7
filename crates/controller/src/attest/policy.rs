//! What a machine may look like, and what is said of one that looks otherwise. Values in, words out.

use std::collections::{BTreeMap, BTreeSet};

use api::convert::attest::Quote;
use api::eventlog::{self, Account, EventLog, Told};
use model::Digest;
use serde::{Deserialize, Serialize};

/// Registers that grow after the event log has ended: 10 by the kernel's integrity measurements, 14
/// when EVE measures its configuration. That the log does not lead to them says nothing.
const UNLOGGED: [u32; 2] = [10, 14];

/// What a node must prove. The default believes whatever a node's own TPM says, and nodes without
/// one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Policy {
    /// Values that a register may have, by its number. One that is not named may have any.
    pub(crate) pcrs: BTreeMap<u32, BTreeSet<Digest>>,
    /// Versions of EVE that may run. Empty: any.
    pub(crate) versions: BTreeSet<String>,
    /// Versions of firmware that may run. Empty: any.
    pub(crate) firmware: BTreeSet<String>,
    /// Whether there must be an event log, and it must lead to the registers.
    pub(crate) require_event_log: bool,
    /// Whether there must be a TPM.
    pub(crate) require_tpm: bool,
}

/// How a register fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Standing {
    /// It has one of the values that it may have.
    Allowed,
    /// It has another one.
    Forbidden,
    /// The policy does not name it.
    Unjudged,
}

/// What the log says of a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Logged {
    /// It leads to the value.
    Agrees,
    /// It leads to another value.
    Differs,
    /// It ends before the register is done.
    Outgrown,
    /// There is no log of it.
    Missing,
}

/// One register, explained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pcr {
    /// Which, 0 to 23.
    pub(crate) register: u32,
    /// What it is for.
    pub(crate) about: String,
    /// What it holds, proven by the quote.
    pub(crate) value: Digest,
    /// Whether that may be.
    pub(crate) standing: Standing,
    /// What it may hold.
    pub(crate) allowed: Vec<Digest>,
    /// Whether the log leads to it.
    pub(crate) log: Logged,
    /// All that in a sentence.
    pub(crate) text: String,
    /// What was measured into it, if anything is wrong with it.
    pub(crate) events: Vec<Told>,
}

/// What the policy says of a node, with reasons.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Findings {
    /// Why it is refused, a sentence each. Empty: it is not.
    pub(crate) against: Vec<String>,
    /// What is odd but does not matter by the policy.
    pub(crate) notes: Vec<String>,
    /// Every quoted register. None of a node without a TPM.
    pub(crate) pcrs: Vec<Pcr>,
}

impl Policy {
    /// Judges registers that a quote proved, and what the node says beside them.
    pub(crate) fn judge(&self, registers: &BTreeMap<u32, Digest>, quote: &Quote) -> Findings {
        let mut findings = self.about_versions(quote);
        let accounts = self.read_log(registers, quote, &mut findings);
        for register in self.pcrs.keys().filter(|r| !registers.contains_key(r)) {
            findings.against.push(format!("PCR {register} is not quoted"));
        }
        for (register, value) in registers {
            let account = accounts.get(register);
            let pcr = self.explain(*register, *value, account);
            if pcr.standing == Standing::Forbidden {
                findings.against.push(pcr.text.clone());
            } else if pcr.log == Logged::Differs {
                let to = if self.require_event_log {
                    &mut findings.against
                } else {
                    &mut findings.notes
                };
                to.push(pcr.text.clone());
            }
            findings.pcrs.push(pcr);
        }
        findings
    }

    /// Judges a node that has no TPM: only what it says of itself.
    pub(crate) fn judge_unproven(&self, quote: &Quote) -> Findings {
        let mut findings = self.about_versions(quote);
        let needs = [
            (self.require_tpm, "a TPM"),
            (!self.pcrs.is_empty(), "certain PCR values"),
            (self.require_event_log, "an event log"),
        ];
        for (_, what) in needs.into_iter().filter(|(needed, _)| *needed) {
            findings.against.push(format!("the policy asks for {what}, the node has no TPM"));
        }
        findings.notes.push("nothing of what runs is proven: the node has no TPM".to_owned());
        findings
    }

    fn about_versions(&self, quote: &Quote) -> Findings {
        let mut findings = Findings::default();
        for (what, got, allowed) in
            [("EVE", &quote.version, &self.versions), ("firmware", &quote.firmware, &self.firmware)]
        {
            if !allowed.is_empty() && !allowed.contains(got) {
                let got: String = got.chars().take(80).collect();
                findings.against.push(format!("{what} {got:?} is not one of the allowed versions"));
            }
        }
        findings
    }

    /// What the log says of each register.
    fn read_log(
        &self,
        registers: &BTreeMap<u32, Digest>,
        quote: &Quote,
        findings: &mut Findings,
    ) -> BTreeMap<u32, Account> {
        let read = if quote.event_log.is_empty() {
            Err("the node sent no event log".to_owned())
        } else {
            EventLog::unpack(&quote.event_log).map_err(|e| model::chain(&e)).and_then(|log| {
                let none = "the event log does not tell of the SHA-256 bank";
                log.compare(registers).ok_or_else(|| none.to_owned())
            })
        };
        match read {
            Ok(accounts) => accounts.into_iter().map(|a| (a.register, a)).collect(),
            Err(why) if self.require_event_log => {
                findings.against.push(why);
                BTreeMap::new()
            }
            Err(why) => {
                findings.notes.push(why);
                BTreeMap::new()
            }
        }
    }

    fn explain(&self, register: u32, value: Digest, account: Option<&Account>) -> Pcr {
        let allowed = self.pcrs.get(&register);
        let standing = match allowed {
            None => Standing::Unjudged,
            Some(values) if values.contains(&value) => Standing::Allowed,
            Some(_) => Standing::Forbidden,
        };
        let log = match account {
            None => Logged::Missing,
            Some(account) if account.agrees() => Logged::Agrees,
            Some(_) if UNLOGGED.contains(&register) => Logged::Outgrown,
            Some(_) => Logged::Differs,
        };
        let about = eventlog::purpose(register);
        let said = match (account, log) {
            (_, Logged::Outgrown) => {
                format!("PCR {register} ({about}) was extended after the event log ended")
            }
            (Some(account), _) => account.describe(),
            (None, _) => format!("PCR {register} ({about}) is quoted, without a log"),
        };
        let text = match standing {
            Standing::Allowed => format!("{said}; its value is allowed"),
            Standing::Unjudged => said,
            Standing::Forbidden => {
                format!("{said}; its value {} is not an allowed one", value.hex())
            }
        };
        let wrong = standing == Standing::Forbidden || log == Logged::Differs;
        let events = account.filter(|_| wrong).map(|a| a.events.clone()).unwrap_or_default();
        let allowed = allowed.into_iter().flatten().copied().collect();
        Pcr { register, about: about.to_owned(), value, standing, allowed, log, text, events }
    }
}
