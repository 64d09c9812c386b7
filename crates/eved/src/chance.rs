//! Chance, drawn here so that decisions can be handed it as a number.

use device::backoff::Jitter;

/// A number from 0 to 1.
pub(crate) fn jitter() -> Jitter {
    let drawn = u32::try_from(uuid::Uuid::new_v4().as_u128() & 0xffff_ffff).unwrap_or_default();
    Jitter(f64::from(drawn) / f64::from(u32::MAX))
}
