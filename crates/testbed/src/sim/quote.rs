//! A TPM as far as attestation sees one: registers, and quotes over them.
//!
//! The layout of a quote is TPMS_ATTEST of the TPM 2.0 library (part 2, 10.12.8): magic, type, name
//! of the signer, the caller's data, clock, firmware, selection of registers, digest over them.

use api::SigningKey;
use api::pb::attest::{TpmHashAlgo, TpmPcrValue, ZAttestQuote};
use sha2::{Digest as _, Sha256};

use super::keys::der_signature;

/// Registers 0 to 15 are quoted.
pub const REGISTERS: usize = 16;

/// Platform configuration registers of the SHA-256 bank, and the key that quotes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tpm {
    registers: [[u8; 32]; REGISTERS],
    /// How often the machine was reset.
    resets: u32,
}

impl Tpm {
    /// A machine that measured a boot of `version`: each register is extended with its number and
    /// that.
    pub fn booted(version: &str) -> Tpm {
        let mut tpm = Tpm { registers: [[0; 32]; REGISTERS], resets: 1 };
        for index in 0..REGISTERS {
            tpm.extend(index, format!("{index} {version}").as_bytes());
        }
        tpm
    }

    /// Measures something into a register; one beyond the quoted ones is ignored.
    pub fn extend(&mut self, index: usize, measured: &[u8]) {
        if let Some(register) = self.registers.get_mut(index) {
            let next = Sha256::digest([&register[..], &Sha256::digest(measured)].concat());
            register.copy_from_slice(&next);
        }
    }

    /// What the registers hold.
    pub fn registers(&self) -> &[[u8; 32]; REGISTERS] {
        &self.registers
    }

    /// TPMS_ATTEST over all registers with the caller's `nonce`.
    pub fn attest(&self, nonce: &[u8]) -> Vec<u8> {
        let sized = |bytes: &[u8]| {
            let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
            [&length.to_be_bytes()[..], bytes].concat()
        };
        let name = [&[0x00, 0x0b][..], &Sha256::digest(b"attest key")].concat();
        let mut out = vec![0xff, 0x54, 0x43, 0x47, 0x80, 0x18];
        out.extend(sized(&name));
        out.extend(sized(nonce));
        out.extend(1_000u64.to_be_bytes()); // clock, in milliseconds
        out.extend(self.resets.to_be_bytes());
        out.extend(0u32.to_be_bytes()); // restarts
        out.push(1); // the clock is safe
        out.extend(0x2020_0101_0000_0000u64.to_be_bytes()); // firmware
        out.extend(1u32.to_be_bytes()); // one selection: SHA-256, three bytes, registers 0 to 15
        out.extend([0x00, 0x0b, 3, 0xff, 0xff, 0x00]);
        out.extend(sized(&Sha256::digest(self.registers.concat())));
        out
    }

    /// A quote with `nonce`, signed by the attestation key.
    pub fn quote(&self, nonce: &[u8], key: &SigningKey) -> anyhow::Result<ZAttestQuote> {
        let data = self.attest(nonce);
        let signature = der_signature(&key.sign(&data)?);
        let values = self.registers.iter().zip(0..).map(|(value, index)| TpmPcrValue {
            index,
            hash_algo: TpmHashAlgo::Sha256.into(),
            value: value.to_vec(),
        });
        Ok(ZAttestQuote {
            attest_data: data,
            signature,
            pcr_values: values.collect(),
            ..ZAttestQuote::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_a_quote_is_that_of_the_registers() {
        let tpm = Tpm::booted("1.0");
        let data = tpm.attest(b"0123456789ab");
        assert!(data.ends_with(&Sha256::digest(tpm.registers().concat())));
        assert!(data.windows(14).any(|w| w == b"\x00\x0c0123456789ab"));
        let mut other = tpm.clone();
        other.extend(4, b"another kernel");
        assert_ne!(other.attest(b"0123456789ab"), data);
    }
}
