//! What a TPM says of the machine it is in: the quote, read and verified.
//!
//! A TPM signs a `TPMS_ATTEST` structure (TPM 2.0 library, part 2, 10.12): the nonce it was asked
//! with, which platform configuration registers (PCR) it quotes, and one hash over their values. The
//! values themselves come beside it and count only if they hash to that. Whether the values are
//! good is not decided here.
//!
//! Unlike the envelope, the signature is ASN.1 DER. Facts: `spec/api.md` §8.

use std::collections::{BTreeMap, BTreeSet};

use model::{Diagnose, Diagnosis, Digest, Who};

use crate::convert::attest::Register;
use crate::cursor::Cursor;
use crate::identity::{Certificate, CertificateError, PublicKey, sha256};
use crate::pb::attest::TpmHashAlgo;

/// `TPM_GENERATED_VALUE`: only a TPM signs with its restricted key what begins so.
const MAGIC: u32 = 0xff54_4347;
/// `TPM_ST_ATTEST_QUOTE`.
const QUOTE: u16 = 0x8018;
/// `TPM_ALG_SHA256`, in the TPM's own numbers.
const SHA256: u16 = 0x000b;
/// Banks that a TPM may have; more than there are hash algorithms is nonsense.
const BANKS_MAX: u32 = 16;
/// Bytes of a bit map of registers: there are 24 registers, four bytes leave room for 32.
const SELECT_MAX: u8 = 4;
/// Registers that a quote must cover: firmware, boot loader, operating system.
const NEEDED: std::ops::Range<u32> = 0..16;

/// A `TPMS_ATTEST` structure of type quote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attest {
    /// The name of the key that signed, as the TPM computes it.
    pub signer: Vec<u8>,
    /// What the quote was asked with: the nonce.
    pub extra_data: Vec<u8>,
    /// Milliseconds that the TPM has had power.
    pub clock: u64,
    /// How often the TPM was reset; a reboot counts.
    pub resets: u32,
    /// How often it was restarted or resumed since.
    pub restarts: u32,
    /// Whether `clock` never went back.
    pub clock_safe: bool,
    /// The version of the TPM's firmware, as its maker counts.
    pub firmware: u64,
    /// Which registers of which bank, by the TPM's number of the hash algorithm.
    pub selection: Vec<(u16, BTreeSet<u32>)>,
    /// The hash over the selected registers, in order.
    pub digest: Vec<u8>,
}

impl Attest {
    /// Reads one, to its last byte.
    pub fn parse(bytes: &[u8]) -> Result<Attest, QuoteError> {
        let mut cursor = Cursor::new(bytes);
        let magic = cursor.be32().ok_or(QuoteError::Cut { field: "magic" })?;
        if magic != MAGIC {
            return Err(QuoteError::Magic { got: magic });
        }
        let kind = cursor.be16().ok_or(QuoteError::Cut { field: "type" })?;
        if kind != QUOTE {
            return Err(QuoteError::Kind { got: kind });
        }
        let signer = sized(&mut cursor, "qualifiedSigner")?;
        let extra_data = sized(&mut cursor, "extraData")?;
        let clock = "clockInfo";
        let attest = Attest {
            signer,
            extra_data,
            clock: cursor.be64().ok_or(QuoteError::Cut { field: clock })?,
            resets: cursor.be32().ok_or(QuoteError::Cut { field: clock })?,
            restarts: cursor.be32().ok_or(QuoteError::Cut { field: clock })?,
            clock_safe: cursor.u8().ok_or(QuoteError::Cut { field: clock })? == 1,
            firmware: cursor.be64().ok_or(QuoteError::Cut { field: "firmwareVersion" })?,
            selection: selection(&mut cursor)?,
            digest: sized(&mut cursor, "pcrDigest")?,
        };
        let more = cursor.rest().len();
        if more > 0 { Err(QuoteError::Longer { more }) } else { Ok(attest) }
    }

    /// As the TPM writes it.
    pub fn to_bytes(&self) -> Result<Vec<u8>, QuoteError> {
        let mut out = [&MAGIC.to_be_bytes()[..], &QUOTE.to_be_bytes()].concat();
        write_sized(&mut out, "qualifiedSigner", &self.signer)?;
        write_sized(&mut out, "extraData", &self.extra_data)?;
        out.extend(self.clock.to_be_bytes());
        out.extend(self.resets.to_be_bytes());
        out.extend(self.restarts.to_be_bytes());
        out.push(u8::from(self.clock_safe));
        out.extend(self.firmware.to_be_bytes());
        let banks = u32::try_from(self.selection.len()).ok().filter(|n| *n <= BANKS_MAX);
        out.extend(banks.ok_or(QuoteError::Selection)?.to_be_bytes());
        for (bank, registers) in &self.selection {
            let mut map = [0_u8; SELECT_MAX as usize];
            for register in registers {
                let byte = usize::try_from(register / 8).ok().and_then(|at| map.get_mut(at));
                *byte.ok_or(QuoteError::Selection)? |= 1 << (register % 8);
            }
            // Three bytes are what every TPM has; the fourth only where it says something.
            let length = if map[3] == 0 { 3 } else { SELECT_MAX };
            out.extend(bank.to_be_bytes());
            out.push(length);
            out.extend(map.iter().take(length.into()));
        }
        write_sized(&mut out, "pcrDigest", &self.digest)?;
        Ok(out)
    }
}

/// Two bytes of length, then the bytes.
fn sized(cursor: &mut Cursor<'_>, field: &'static str) -> Result<Vec<u8>, QuoteError> {
    let bytes = cursor.be16().and_then(|length| cursor.take(length.into()));
    bytes.map(<[u8]>::to_vec).ok_or(QuoteError::Cut { field })
}

fn write_sized(out: &mut Vec<u8>, field: &'static str, bytes: &[u8]) -> Result<(), QuoteError> {
    let length = u16::try_from(bytes.len()).map_err(|_| QuoteError::Cut { field })?;
    out.extend(length.to_be_bytes());
    out.extend(bytes);
    Ok(())
}

/// A `TPML_PCR_SELECTION`.
fn selection(cursor: &mut Cursor<'_>) -> Result<Vec<(u16, BTreeSet<u32>)>, QuoteError> {
    let cut = || QuoteError::Cut { field: "pcrSelect" };
    let banks = cursor.be32().ok_or_else(cut)?;
    if banks > BANKS_MAX {
        return Err(QuoteError::Selection);
    }
    let mut selection = Vec::new();
    for _ in 0..banks {
        let bank = cursor.be16().ok_or_else(cut)?;
        let length = cursor.u8().ok_or_else(cut)?;
        if length > SELECT_MAX {
            return Err(QuoteError::Selection);
        }
        let map = cursor.take(length.into()).ok_or_else(cut)?;
        let bits = (0..u32::from(length) * 8)
            .zip(map.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1)));
        selection.push((bank, bits.filter(|(_, set)| *set).map(|(at, _)| at).collect()));
    }
    Ok(selection)
}

/// A quote that its certificate, its nonce and its values agree with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The quoted registers of the SHA-256 bank: 0 to 15, or more.
    pub registers: BTreeMap<u32, Digest>,
    /// The rest of what the TPM said.
    pub attest: Attest,
}

/// A quote as it came, beside what to check it with.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// The `TPMS_ATTEST`.
    pub data: &'a [u8],
    /// Over `data`; ASN.1 DER.
    pub signature: &'a [u8],
    /// The values of the registers, as the node says.
    pub registers: &'a [Register],
    /// The nonce that the node was given.
    pub nonce: &'a [u8],
    /// The node's certificate for quotes (type 11).
    pub attest: &'a Certificate,
    /// The node's certificate proper, which must have signed `attest`.
    pub device: &'a Certificate,
}

/// Checks, in this order: the certificate and its key, the signature, the structure, the nonce,
/// which registers are quoted, and that the values beside it are the quoted ones.
pub fn verify(evidence: &Evidence<'_>) -> Result<Verified, QuoteError> {
    let key = evidence.attest.key()?;
    if matches!(key, PublicKey::Rsa(_)) {
        return Err(QuoteError::RsaKey);
    }
    if !evidence.attest.is_signed_by(evidence.device)? {
        return Err(QuoteError::Certificate);
    }
    if !key.verifies_der(evidence.data, evidence.signature) {
        return Err(QuoteError::Signature);
    }
    let attest = Attest::parse(evidence.data)?;
    if attest.extra_data != evidence.nonce {
        return Err(QuoteError::Nonce);
    }
    let [(bank, selected)] = attest.selection.as_slice() else {
        return Err(QuoteError::Banks { got: attest.selection.len() });
    };
    if *bank != SHA256 {
        return Err(QuoteError::Bank { got: *bank });
    }
    let missing: Vec<u32> = NEEDED.filter(|r| !selected.contains(r)).collect();
    if !missing.is_empty() {
        return Err(QuoteError::NotQuoted { registers: missing });
    }
    let registers = values(selected, evidence.registers)?;
    let all: Vec<u8> = registers.values().flat_map(|value| value.0).collect();
    if attest.digest != sha256(&all).0 {
        return Err(QuoteError::Digest);
    }
    Ok(Verified { registers, attest })
}

/// The value of each selected register. Values of others, or of other banks, are not looked at: the
/// TPM did not sign them.
fn values(
    selected: &BTreeSet<u32>,
    given: &[Register],
) -> Result<BTreeMap<u32, Digest>, QuoteError> {
    let mut values = BTreeMap::new();
    for register in given.iter().filter(|r| r.algorithm == i32::from(TpmHashAlgo::Sha256)) {
        let index = register.index;
        let got = register.value.len();
        let value: [u8; 32] = register
            .value
            .as_slice()
            .try_into()
            .map_err(|_| QuoteError::ValueSize { register: index, got })?;
        let earlier = values.insert(index, Digest(value));
        if earlier.is_some_and(|earlier| earlier.0 != value) {
            return Err(QuoteError::TwoValues { register: index });
        }
    }
    values.retain(|index, _| selected.contains(index));
    match selected.iter().find(|index| !values.contains_key(index)) {
        Some(register) => Err(QuoteError::NoValue { register: *register }),
        None => Ok(values),
    }
}

/// Why a quote proves nothing.
#[derive(Debug, thiserror::Error)]
pub enum QuoteError {
    /// The certificate cannot be read.
    #[error("the certificate for quotes is unusable")]
    Unreadable(#[from] CertificateError),
    /// It is not one of this node.
    #[error("the certificate for quotes is not signed by the node's own certificate")]
    Certificate,
    /// An RSA key.
    #[error("the certificate for quotes has an RSA key; the API knows ECDSA quotes of P-256 only")]
    RsaKey,
    /// Another key signed, or the quote was changed.
    #[error("ZAttestQuote.signature is not that of the node's key over attestData")]
    Signature,
    /// It ends too early.
    #[error("attestData ends within {field}")]
    Cut {
        /// Where.
        field: &'static str,
    },
    /// Something follows.
    #[error("{more} bytes follow the end of attestData")]
    Longer {
        /// So many.
        more: usize,
    },
    /// Not made by a TPM.
    #[error("attestData begins with {got:#010x}, not with what only a TPM signs")]
    Magic {
        /// The first four bytes.
        got: u32,
    },
    /// A TPM signed something, but no quote.
    #[error("attestData is of type {got:#06x}, not a quote (0x8018)")]
    Kind {
        /// The type.
        got: u16,
    },
    /// More banks or registers than there are.
    #[error("pcrSelect of attestData names more than a TPM has")]
    Selection,
    /// Not one bank.
    #[error("attestData quotes {got} banks of registers, not one")]
    Banks {
        /// So many.
        got: usize,
    },
    /// Another bank than SHA-256.
    #[error("attestData quotes the bank {got:#06x}, not SHA-256 (0x000b)")]
    Bank {
        /// The TPM's number of the hash algorithm.
        got: u16,
    },
    /// Registers are missing in the quote.
    #[error("attestData does not quote the registers {registers:?}")]
    NotQuoted {
        /// Which.
        registers: Vec<u32>,
    },
    /// Another nonce.
    #[error("extraData of attestData is not the nonce that was given")]
    Nonce,
    /// A value of another length.
    #[error("pcr_values: register {register} has {got} bytes, not 32")]
    ValueSize {
        /// Which.
        register: u32,
        /// In bytes.
        got: usize,
    },
    /// Two values.
    #[error("pcr_values: register {register} has two values")]
    TwoValues {
        /// Which.
        register: u32,
    },
    /// No value.
    #[error("pcr_values: register {register} is quoted, but its value is not told")]
    NoValue {
        /// Which.
        register: u32,
    },
    /// The values are not those that the TPM quoted.
    #[error("pcr_values do not hash to pcrDigest of attestData")]
    Digest,
}

impl Diagnose for QuoteError {
    fn diagnose(&self) -> Diagnosis {
        match self {
            Self::Nonce => Diagnosis::of(Who::Nobody, "the node asks for a new nonce"),
            Self::RsaKey => {
                Diagnosis::of(Who::Hardware, "give the node an attestation key of type ECC P-256")
            }
            Self::Unreadable(_) | Self::Certificate | Self::Signature | Self::Digest => {
                Diagnosis::of(
                    Who::Hardware,
                    "find out whether the node's TPM was replaced or its disk moved",
                )
            }
            _ => Diagnosis::of(Who::Developer, "find out what the node put into its quote"),
        }
    }
}
