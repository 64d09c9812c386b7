//! Which serial numbers may register without an object of theirs.

use std::collections::BTreeSet;

use super::known::serial_prefix;
use super::{Fleet, FleetError, Known};
use crate::admission::ANY;
use crate::db::Change;

/// So many serial numbers are named to who took back another.
const NAMED: usize = 10;

impl Fleet {
    /// Lets a serial number register with an onboarding certificate (`None`: our own), or no longer.
    pub(crate) async fn allow_serial(
        &self,
        serial: &str,
        with: Option<&api::Certificate>,
        allowed: bool,
        author: &str,
    ) -> Result<(), FleetError> {
        if allowed && serial != ANY && serial.contains(ANY) {
            let text = format!(
                "{serial:?} is no serial number: it is {ANY:?} alone, for any, or a whole serial number; \
                 patterns are not read"
            );
            return Err(FleetError::Serial(text));
        }
        let now = self.now();
        let hash = with.map(|c| c.digest().0.to_vec()).unwrap_or_default();
        self.change(|known| {
            let mut change = Change::by(author, now);
            let there = known.open_serials(&hash);
            if !allowed && !there.iter().any(|s| s == serial) {
                return Err(not_allowed(serial, &there));
            }
            set_serial(known, &mut change, (&hash, serial), allowed);
            if let Some(certificate) = with.filter(|_| allowed) {
                change.onboard_certs.push((hash.clone(), certificate.pem().to_vec()));
            }
            Ok((change, ()))
        })
        .await
    }

    /// Lets these serial numbers register with an onboarding certificate (`None`: our own), and no
    /// others with that; all of it or nothing.
    pub(crate) async fn allow_only(
        &self,
        serials: &BTreeSet<String>,
        with: Option<&api::Certificate>,
        author: &str,
    ) -> Result<(), FleetError> {
        let now = self.now();
        let hash = with.map(|c| c.digest().0.to_vec()).unwrap_or_default();
        self.change(|known| {
            let mut change = Change::by(author, now);
            for serial in serials {
                set_serial(known, &mut change, (&hash, serial), true);
            }
            for old in known.open_serials(&hash).iter().filter(|s| !serials.contains(*s)) {
                set_serial(known, &mut change, (&hash, old), false);
            }
            if let Some(certificate) = with.filter(|_| !serials.is_empty()) {
                change.onboard_certs.push((hash.clone(), certificate.pem().to_vec()));
            }
            Ok((change, ()))
        })
        .await
    }
}

/// Said of a serial number that cannot be taken back. `there`: those that can.
fn not_allowed(serial: &str, there: &[String]) -> FleetError {
    let some: Vec<&str> = there.iter().map(String::as_str).take(NAMED).collect();
    let more = if there.len() > some.len() { ", …" } else { "" };
    let allowed = match some.as_slice() {
        [] => ": none is".to_owned(),
        some => format!("; these are: {}{more}", some.join(", ")),
    };
    FleetError::NotAllowed { serial: serial.to_owned(), allowed }
}

/// Lets a serial number register, or no longer. `of`: the digest of the onboarding certificate (empty:
/// our own) and the number.
fn set_serial(known: &Known, change: &mut Change, of: (&[u8], &str), allowed: bool) {
    let serial = format!("{}{}", serial_prefix(of.0), of.1);
    if known.serials.contains(&serial) != allowed {
        let verb = if allowed { "may register" } else { "may no longer register" };
        change.log(None, format!("serial number {serial}"), verb);
        change.serials.push((serial, allowed));
    }
}
