//! Attestation, as far as a node without a TPM goes: it proves that it is there and remembers its
//! key, nothing about what it runs.
//!
//! A quote with platform registers is answered with "quote failed": this controller cannot check
//! one yet, and must not say that it did.

use std::time::Duration;

use api::convert::attest::{Quote, Refusal};

/// A nonce that is not used within this time is none.
pub(crate) const NONCE_LIFE: Duration = Duration::from_secs(300);
/// Devices take 12 to 32 bytes.
pub(crate) const NONCE_BYTES: usize = 16;

/// Whether to believe a quote. `nonce` is what the node was given, if that is still good.
pub(crate) fn judge(quote: &Quote, nonce: Option<&[u8]>) -> Result<(), Refusal> {
    let nonce = nonce.ok_or(Refusal::NonceMismatch)?;
    let data = quote.data.as_slice();
    let signed = !quote.signature.is_empty() || !quote.registers.is_empty();
    match (signed, qualifying_data(data)) {
        // A node without a TPM has nothing to sign with; it may repeat the nonce.
        (false, _) if data.is_empty() || data == nonce => Ok(()),
        (false, _) => Err(Refusal::NonceMismatch),
        (true, Some(extra)) if extra != nonce => Err(Refusal::NonceMismatch),
        (true, _) => Err(Refusal::QuoteFailed),
    }
}

/// `extraData` of a TPMS_ATTEST structure (TPM 2.0 library, part 2, 10.12.8): magic, type, the
/// signer's name, then the data the quote was asked with; both with 2 bytes of length in front.
fn qualifying_data(attest: &[u8]) -> Option<&[u8]> {
    fn sized(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
        let (length, rest) = bytes.split_first_chunk::<2>()?;
        rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
    }
    let rest = attest.strip_prefix(&[0xff, 0x54, 0x43, 0x47, 0x80, 0x18])?;
    let (_signer, rest) = sized(rest)?;
    sized(rest).map(|(extra, _)| extra)
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_quote_that_we_cannot_check_is_not_believed() {
        let mut data = b"\xff\x54\x43\x47\x80\x18\x00\x01s\x00\x05nonce".to_vec();
        let quote =
            |data: &[u8]| Quote { data: data.to_vec(), signature: vec![1], ..Quote::default() };
        let judged = |data: &[u8], nonce: &[u8]| judge(&quote(data), Some(nonce));
        assert_eq!(judged(&data, b"nonce"), Err(Refusal::QuoteFailed));
        assert_eq!(judged(&data, b"other"), Err(Refusal::NonceMismatch));
        data.truncate(10);
        assert_eq!(judged(&data, b"nonce"), Err(Refusal::QuoteFailed));
    }
}
