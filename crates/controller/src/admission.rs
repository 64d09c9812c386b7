//! Who may register: decided from what is known, without a look at any clock or database.

use crate::db::DeviceRow;

/// Any serial number.
pub(crate) const ANY: &str = "*";

/// What a node says of itself when it registers; the onboarding certificate has been checked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Applicant<'a> {
    /// SHA-256 of its certificate.
    pub(crate) cert_hash: &'a [u8],
    pub(crate) serial: &'a str,
    pub(crate) soft_serial: &'a str,
    /// SHA-256 of its onboarding certificate; empty: our own.
    pub(crate) onboard: &'a [u8],
}

/// What becomes of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission<'a> {
    /// It is registered already, with this certificate.
    Known(&'a DeviceRow),
    /// It is the node that was expected.
    Expected(&'a DeviceRow),
    /// It may come, and is a new node.
    New,
    /// Its serial number belongs to a node with another certificate.
    Conflict(&'a DeviceRow),
    /// Nobody expects it.
    Unknown,
}

/// Looks for the node among those that are known. `serials` may register without an object of theirs.
///
/// The serial number comes before the soft serial number (EVE API, identity). Neither alone is
/// unique among virtual machines: a node that came by a serial number open to many is told from
/// another by both together.
pub(crate) fn admit<'a>(
    devices: &'a [DeviceRow],
    serials: &[String],
    applicant: Applicant<'_>,
) -> Admission<'a> {
    let here = || devices.iter().filter(|d| d.gone.is_none());
    if let Some(known) = here().find(|d| d.cert_hash.as_deref() == Some(applicant.cert_hash)) {
        return Admission::Known(known);
    }
    let mine = [applicant.serial, applicant.soft_serial].map(str::trim);
    for serial in mine.into_iter().filter(|s| !s.is_empty()) {
        let named = |d: &&DeviceRow| {
            let its = d.serial == serial || d.soft_serial == serial;
            // Neither the serial number nor the onboarding certificate is unique alone.
            its && !d.wildcard && d.onboard == applicant.onboard
        };
        let (free, taken): (Vec<_>, Vec<_>) =
            here().filter(named).partition(|d| d.cert_hash.is_none());
        if let Some(expected) = free.first() {
            return Admission::Expected(expected);
        }
        if let Some(other) = taken.first() {
            return Admission::Conflict(other);
        }
    }
    let both = |d: &&DeviceRow| {
        let same = [d.serial.as_str(), d.soft_serial.as_str()] == mine;
        same && d.wildcard && d.onboard == applicant.onboard
    };
    if mine.iter().any(|s| !s.is_empty())
        && let Some(other) = here().find(both)
    {
        return Admission::Conflict(other);
    }
    let open = |s: &String| s == ANY || (!s.is_empty() && mine.contains(&s.as_str()));
    if serials.iter().any(open) { Admission::New } else { Admission::Unknown }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn row(n: u128, serial: &str, soft: &str, cert: Option<&[u8]>) -> DeviceRow {
        DeviceRow {
            id: Uuid::from_u128(n),
            serial: serial.into(),
            soft_serial: soft.into(),
            wildcard: false,
            cert_pem: None,
            cert_hash: cert.map(<[u8]>::to_vec),
            registered: None,
            onboard: Vec::new(),
            reboots: 0,
            shutdowns: 0,
            epoch: 0,
            quarantine: None,
            views: 0,
            view: None,
            given: None,
            token: None,
            gone: None,
            changed: 0,
        }
    }

    #[track_caller]
    fn check(devices: &[DeviceRow], serials: &[&str], who: (&str, &str, &[u8]), want: &str) {
        let serials: Vec<String> = serials.iter().map(|s| (*s).to_owned()).collect();
        let (serial, soft_serial, cert_hash) = who;
        let got = match admit(
            devices,
            &serials,
            Applicant { cert_hash, serial, soft_serial, onboard: &[] },
        ) {
            Admission::Known(d) => format!("known {}", d.id.as_u128()),
            Admission::Expected(d) => format!("expected {}", d.id.as_u128()),
            Admission::New => "new".into(),
            Admission::Conflict(d) => format!("conflict {}", d.id.as_u128()),
            Admission::Unknown => "unknown".into(),
        };
        assert_eq!(got, want);
    }

    #[test]
    fn a_node_is_expected_by_its_serial_or_else_its_soft_serial() {
        let devices = [row(1, "HW1", "", None), row(2, "", "soft2", None)];
        check(&devices, &[], ("HW1", "x", b"c"), "expected 1");
        check(&devices, &[], ("HW9", "soft2", b"c"), "expected 2");
        check(&devices, &[], ("HW9", "soft9", b"c"), "unknown");
        check(&devices, &[], ("", "", b"c"), "unknown");
    }

    #[test]
    fn registering_again_is_recognised_by_the_certificate() {
        let devices = [row(1, "HW1", "", Some(b"c"))];
        check(&devices, &[], ("HW1", "", b"c"), "known 1");
        check(&devices, &[], ("other", "", b"c"), "known 1");
        check(&devices, &["*"], ("HW1", "", b"d"), "conflict 1");
    }

    #[test]
    fn an_open_serial_lets_new_nodes_in_and_tells_them_apart() {
        check(&[], &["*"], ("", "", b"c"), "new");
        check(&[], &["HW1"], ("HW1", "", b"c"), "new");
        check(&[], &["HW1"], ("HW2", "", b"c"), "unknown");
        let mut came = row(1, "VM", "a", Some(b"c"));
        came.wildcard = true;
        check(&[came.clone()], &["*"], ("VM", "b", b"d"), "new");
        check(&[came], &["*"], ("VM", "a", b"d"), "conflict 1");
    }

    #[test]
    fn a_deleted_node_holds_no_serial() {
        let mut gone = row(1, "HW1", "", Some(b"c"));
        gone.gone = Some(model::UnixMillis(1));
        check(&[gone.clone(), row(2, "HW1", "", None)], &[], ("HW1", "", b"c"), "expected 2");
        check(&[gone], &[], ("HW1", "", b"c"), "unknown");
    }
}
