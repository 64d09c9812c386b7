//! The TCG event log: what the firmware, the boot loader and the kernel measured before the
//! operating system ran, in order.
//!
//! Each event extended one platform configuration register (PCR): new value = hash(old value ‖
//! digest). Replaying the log must therefore lead to the registers that the TPM quotes; where it
//! does, the log's digests are as good as the TPM's word. The *data* of an event is a different
//! matter: it explains the digest, and is proven only if it hashes to it
//! ([`Event::data_is_measured`]).
//!
//! Format: TCG PC Client Platform Firmware Profile, 1.05, section 10. The first event is always in
//! the old form of TPM 1.2 (`TCG_PCR_EVENT`, SHA-1); if it is a `Spec ID Event03`, all others are
//! `TCG_PCR_EVENT2` with a digest a bank. All numbers are little endian.

mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

use aws_lc_rs::digest::{self, Algorithm};
use model::{Bytes, Diagnose, Diagnosis, Digest, Who};
use serde::{Deserialize, Serialize};

use crate::cursor::Cursor;

/// EVE leaves logs out that are longer than 126,976 bytes; we unpack up to this.
pub const LOG_MAX: Bytes = Bytes::mib(1);
/// Banks that a TPM may have.
const BANKS_MAX: u32 = 16;
/// Registers that a TPM for PCs has.
const REGISTERS: u32 = 24;
/// Registers of a later, dynamic start: all ones until then.
const DYNAMIC: std::ops::RangeInclusive<u32> = 17..=22;

const EV_NO_ACTION: u32 = 3;

/// A bank of registers, by its hash algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bank {
    /// 20 bytes; too weak to prove anything, still found in logs.
    Sha1,
    /// 32 bytes: the one that nodes quote.
    Sha256,
    /// 48 bytes.
    Sha384,
    /// 64 bytes.
    Sha512,
}

impl Bank {
    /// From the TPM's number of the algorithm. `None`: one that we do not compute.
    fn of(number: u16) -> Option<Bank> {
        match number {
            0x0004 => Some(Bank::Sha1),
            0x000b => Some(Bank::Sha256),
            0x000c => Some(Bank::Sha384),
            0x000d => Some(Bank::Sha512),
            _ => None,
        }
    }

    fn algorithm(self) -> &'static Algorithm {
        match self {
            Bank::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Bank::Sha256 => &digest::SHA256,
            Bank::Sha384 => &digest::SHA384,
            Bank::Sha512 => &digest::SHA512,
        }
    }

    /// Bytes of a digest.
    pub fn size(self) -> usize {
        self.algorithm().output_len()
    }

    fn hash(self, parts: &[&[u8]]) -> Vec<u8> {
        let mut context = digest::Context::new(self.algorithm());
        parts.iter().for_each(|part| context.update(part));
        context.finish().as_ref().to_vec()
    }
}

/// One measurement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its place in the log, from 0.
    pub number: usize,
    /// Which register it extended, 0 to 23.
    pub register: u32,
    /// What kind it is, in the numbers of the profile.
    pub kind: u32,
    /// What the register was extended with, by bank. Banks that we do not know are left out.
    pub digests: BTreeMap<Bank, Vec<u8>>,
    /// What it says of itself.
    pub data: Vec<u8>,
}

impl Event {
    /// What happened, in words; foreign text in it is cut and made harmless.
    pub fn describe(&self) -> String {
        words::describe(self.kind, self.register, &self.data)
    }

    /// Whether the data is what was measured, so that the words can be believed as much as the
    /// digest. Of a program the digest is that of the program, and the data only its place.
    pub fn data_is_measured(&self) -> bool {
        // The bank that is quoted, or else the strongest.
        let quoted = self.digests.get_key_value(&Bank::Sha256);
        let Some((bank, digest)) = quoted.or(self.digests.last_key_value()) else { return false };
        let hashes_to = |data: &[u8]| bank.hash(&[data]) == *digest;
        hashes_to(&self.data)
            || words::measured_part(self.kind, &self.data).any(|part| hashes_to(&part))
    }

    /// Whether it extended its register: informative events do not.
    pub fn extends(&self) -> bool {
        self.kind != EV_NO_ACTION
    }
}

/// A whole log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventLog {
    /// In the order in which things happened, informative ones too.
    pub events: Vec<Event>,
    banks: BTreeSet<Bank>,
    /// The locality that the TPM was started from, which is in register 0 from the start.
    locality: u8,
}

impl EventLog {
    /// Reads `ZAttestQuote.tpm_binary_event_log`: gzip of a log of at most [`LOG_MAX`].
    pub fn unpack(gzip: &[u8]) -> Result<EventLog, LogError> {
        let mut raw = Vec::new();
        let mut reader = flate2::read::GzDecoder::new(gzip).take(LOG_MAX.0 + 1);
        reader.read_to_end(&mut raw).map_err(|source| LogError::Unpack { source })?;
        EventLog::parse(&raw)
    }

    /// Reads a log, to its last byte.
    pub fn parse(raw: &[u8]) -> Result<EventLog, LogError> {
        if raw.len() as u64 > LOG_MAX.0 {
            return Err(LogError::TooLong);
        }
        let mut cursor = Cursor::new(raw);
        let first = old_event(&mut cursor, 0)?;
        let mut log = EventLog { events: Vec::new(), banks: BTreeSet::new(), locality: 0 };
        match sizes(&first)? {
            Some(sizes) => {
                log.banks.extend(sizes.keys().filter_map(|number| Bank::of(*number)));
                log.take(first);
                while !cursor.is_empty() {
                    let event = event(&mut cursor, log.events.len(), &sizes)?;
                    log.take(event);
                }
            }
            None => {
                log.banks.insert(Bank::Sha1);
                log.take(first);
                while !cursor.is_empty() {
                    let event = old_event(&mut cursor, log.events.len())?;
                    log.take(event);
                }
            }
        }
        Ok(log)
    }

    fn take(&mut self, event: Event) {
        // `TCG_EfiStartupLocalityEvent`.
        if event.kind == EV_NO_ACTION
            && let Some([locality]) = event.data.strip_prefix(b"StartupLocality\0")
        {
            self.locality = *locality;
        }
        self.events.push(event);
    }

    /// The banks that it tells of.
    pub fn banks(&self) -> &BTreeSet<Bank> {
        &self.banks
    }

    /// The values that registers 0 to 23 of a bank have if just this happened. `None`: the log does
    /// not tell of that bank.
    pub fn replay(&self, bank: Bank) -> Option<BTreeMap<u32, Vec<u8>>> {
        if !self.banks.contains(&bank) {
            return None;
        }
        let mut values: BTreeMap<u32, Vec<u8>> = (0..REGISTERS)
            .map(|r| (r, vec![if DYNAMIC.contains(&r) { 0xff } else { 0 }; bank.size()]))
            .collect();
        if let Some(last) = values.get_mut(&0).and_then(|v| v.last_mut()) {
            *last = self.locality;
        }
        for event in self.events.iter().filter(|e| e.extends()) {
            if let (Some(value), Some(digest)) =
                (values.get_mut(&event.register), event.digests.get(&bank))
            {
                *value = bank.hash(&[value, digest]);
            }
        }
        Some(values)
    }

    /// Compares the log with quoted registers of the SHA-256 bank. `None`: the log has no such bank.
    pub fn compare(&self, quoted: &BTreeMap<u32, Digest>) -> Option<Vec<Account>> {
        let values = self.replay(Bank::Sha256)?;
        let account = |(register, quoted): (&u32, &Digest)| {
            let events: Vec<Told> = self
                .events
                .iter()
                .filter(|e| e.register == *register && e.extends())
                .map(Told::of)
                .collect();
            let value = values.get(register).map(Vec::as_slice);
            let quoted = *quoted;
            let replayed = value.and_then(|v| v.try_into().ok()).map_or(Digest([0; 32]), Digest);
            Account { register: *register, quoted, replayed, events }
        };
        Some(quoted.iter().map(account).collect())
    }
}

/// What the log says of one register.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Which, 0 to 23.
    pub register: u32,
    /// What the TPM says that it holds.
    pub quoted: Digest,
    /// What it would hold after the events of the log.
    pub replayed: Digest,
    /// The events that extended it, in order.
    pub events: Vec<Told>,
}

impl Account {
    /// Whether the log leads to what was quoted.
    pub fn agrees(&self) -> bool {
        self.quoted == self.replayed
    }

    /// In one sentence.
    pub fn describe(&self) -> String {
        let about = words::register(self.register);
        let what = match self.events.len() {
            1 => "one logged event gives".to_owned(),
            n => format!("{n} logged events give"),
        };
        let said = match (self.agrees(), self.events.is_empty()) {
            (true, true) => "was never extended".to_owned(),
            (true, false) => format!("holds what {what}"),
            (false, true) => "was extended, but the log has no event of it".to_owned(),
            (false, false) => format!(
                "does not hold what {what}: something else was measured, or the log was changed"
            ),
        };
        format!("PCR {} ({about}) {said}", self.register)
    }
}

/// An event, told to a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Its place in the log, from 0.
    pub number: usize,
    /// The name of its kind.
    pub kind: String,
    /// What happened.
    pub text: String,
    /// Whether the words are proven by the digest.
    pub proven: bool,
    /// What the register of the SHA-256 bank was extended with.
    pub digest: Option<Digest>,
}

impl Told {
    fn of(event: &Event) -> Told {
        let digest = event.digests.get(&Bank::Sha256).map(Vec::as_slice);
        Told {
            number: event.number,
            kind: words::kind(event.kind),
            text: event.describe(),
            proven: event.data_is_measured(),
            digest: digest.and_then(|d| d.try_into().ok()).map(Digest),
        }
    }
}

/// What a register is for.
pub fn purpose(register: u32) -> &'static str {
    words::register(register)
}

/// A `TCG_PCR_EVENT`.
fn old_event(cursor: &mut Cursor<'_>, number: usize) -> Result<Event, LogError> {
    let at = cursor.at();
    let cut = || LogError::Cut { number, at };
    let register = cursor.le32().ok_or_else(cut)?;
    let kind = cursor.le32().ok_or_else(cut)?;
    let digest = cursor.take(Bank::Sha1.size()).ok_or_else(cut)?.to_vec();
    let data = data(cursor).ok_or_else(cut)?;
    checked(Event { number, register, kind, digests: [(Bank::Sha1, digest)].into(), data })
}

/// A `TCG_PCR_EVENT2`, whose digests have `sizes`.
fn event(
    cursor: &mut Cursor<'_>,
    number: usize,
    sizes: &BTreeMap<u16, usize>,
) -> Result<Event, LogError> {
    let at = cursor.at();
    let cut = || LogError::Cut { number, at };
    let register = cursor.le32().ok_or_else(cut)?;
    let kind = cursor.le32().ok_or_else(cut)?;
    let count = cursor.le32().ok_or_else(cut)?;
    if count > BANKS_MAX {
        return Err(LogError::Digests { number, got: count });
    }
    let mut digests = BTreeMap::new();
    for _ in 0..count {
        let algorithm = cursor.le16().ok_or_else(cut)?;
        let size = *sizes.get(&algorithm).ok_or(LogError::Algorithm { number, algorithm })?;
        let digest = cursor.take(size).ok_or_else(cut)?;
        if let Some(bank) = Bank::of(algorithm)
            && digests.insert(bank, digest.to_vec()).is_some()
        {
            return Err(LogError::TwoDigests { number, bank });
        }
    }
    let data = data(cursor).ok_or_else(cut)?;
    checked(Event { number, register, kind, digests, data })
}

fn data(cursor: &mut Cursor<'_>) -> Option<Vec<u8>> {
    let length = cursor.le32()?;
    cursor.take_u64(length.into()).map(<[u8]>::to_vec)
}

fn checked(event: Event) -> Result<Event, LogError> {
    // Informative events of some firmware name no register: all ones.
    if event.extends() && event.register >= REGISTERS {
        return Err(LogError::Register { number: event.number, register: event.register });
    }
    Ok(event)
}

/// How long the digests of each bank are, by the TPM's number of the algorithm, if the first event
/// is a `TCG_EfiSpecIDEvent` of version 2; `None` if the log is one of SHA-1 alone.
fn sizes(first: &Event) -> Result<Option<BTreeMap<u16, usize>>, LogError> {
    if first.kind != EV_NO_ACTION || !first.data.starts_with(b"Spec ID Event03\0") {
        return Ok(None);
    }
    let mut cursor = Cursor::new(&first.data);
    // Signature, platform class, version minor and major, errata, size of UINTN.
    let count = cursor.take(16 + 4 + 4).and_then(|_| cursor.le32()).ok_or(LogError::SpecId)?;
    if count > BANKS_MAX {
        return Err(LogError::SpecId);
    }
    let mut sizes = BTreeMap::new();
    for _ in 0..count {
        let algorithm = cursor.le16().ok_or(LogError::SpecId)?;
        let size = usize::from(cursor.le16().ok_or(LogError::SpecId)?);
        // A wrong size would shift all that follows, and its digests would not be any.
        if Bank::of(algorithm).is_some_and(|bank| bank.size() != size) {
            return Err(LogError::SpecId);
        }
        sizes.insert(algorithm, size);
    }
    Ok(Some(sizes))
}

/// A log that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Not gzip, or cut short.
    #[error("cannot unpack the event log")]
    Unpack {
        /// Why not.
        source: std::io::Error,
    },
    /// More than we read.
    #[error("the event log is longer than {LOG_MAX}")]
    TooLong,
    /// It ends within an event.
    #[error("the event log ends within event {number}, which begins at byte {at}")]
    Cut {
        /// Which event, from 0.
        number: usize,
        /// Where it begins.
        at: usize,
    },
    /// The first event says nonsense about the others.
    #[error("the event log's header (Spec ID Event03) is broken")]
    SpecId,
    /// More digests than there are algorithms.
    #[error("event {number} has {got} digests")]
    Digests {
        /// Which event.
        number: usize,
        /// So many.
        got: u32,
    },
    /// An algorithm that the header does not name.
    #[error("event {number} has a digest of algorithm {algorithm:#06x}, which the header lacks")]
    Algorithm {
        /// Which event.
        number: usize,
        /// The TPM's number.
        algorithm: u16,
    },
    /// Two digests for one bank.
    #[error("event {number} has two digests for {bank:?}")]
    TwoDigests {
        /// Which event.
        number: usize,
        /// Which bank.
        bank: Bank,
    },
    /// A register that does not exist.
    #[error("event {number} extends register {register}, which does not exist")]
    Register {
        /// Which event.
        number: usize,
        /// Which register.
        register: u32,
    },
}

impl Diagnose for LogError {
    fn diagnose(&self) -> Diagnosis {
        Diagnosis::of(Who::Developer, "look at the event log that the node sent")
    }
}
