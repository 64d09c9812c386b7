//! Devices that were deleted and come back.
//!
//! Who a deleted node was stays in the database for as long as the versions of its object do. A rollback
//! of that very object brings it back: its id, its certificate, what it was told last. A document that
//! merely has its name makes another node: what was deleted because it was stolen must not come back
//! because somebody applies a folder of documents.

use api::{Certificate, SenderHash};
use uuid::Uuid;

use super::{Fleet, FleetError, Known};
use crate::db::{DeviceRow, StoredObject, Version};
use crate::objects::{Flaw, Key, Kind, Spec};
use crate::view;
use crate::words::time;

/// Of so many devices that documents make at once it is looked up whether they were deleted before.
const LOOKED_UP: usize = 50;
/// Versions in which the last deletion is looked for.
const VERSIONS: u32 = 20;

/// Who the node of a rolled back object is from now on, and what is to be said of that. Refused if
/// somebody else has its certificate now.
pub(super) fn revived(
    known: &Known,
    stored: &StoredObject,
    before: Option<&DeviceRow>,
) -> Result<(Option<DeviceRow>, Vec<String>), Flaw> {
    let Spec::Device(spec) = &stored.object.spec else { return Ok((None, Vec::new())) };
    let name = &stored.object.key.name;
    let Some(before) = before else {
        let lost = format!(
            "nothing is kept of the certificate it had, and it has no serial number to be expected by: \
             `eve delete device {name}`, then `eve device add {name} --cert FILE`"
        );
        let nameless = spec.serial.is_empty() && spec.soft_serial.is_empty();
        return Ok((None, if nameless { vec![lost] } else { Vec::new() }));
    };
    let refused = |text| {
        let (key, field) = (stored.object.key.clone(), "spec".to_owned());
        Flaw { key, field, text, missing: false }
    };
    let cert_hash = certificate(known, before).map_err(refused)?;
    let mut notes = Vec::new();
    if cert_hash.is_some() {
        notes.push("it is the node that it was: its id and its certificate count again".to_owned());
    } else if !before.onboard.is_empty()
        && !known.onboard_certs.iter().any(|c| c.digest().0 == *before.onboard)
    {
        notes.push(format!(
            "the onboarding certificate it was to come with is no longer known: `eve delete device \
             {name}`, then `eve device add {name} --onboard-cert FILE` with its serial number"
        ));
    }
    let row = DeviceRow {
        cert_hash,
        gone: None,
        token: None,
        view: None,
        // What it said went with its object.
        epoch: before.epoch.wrapping_add(1),
        ..before.clone()
    };
    Ok((Some(row), notes))
}

/// The digest of a node's certificate, if it has one. An error: why it cannot have it back.
fn certificate(known: &Known, row: &DeviceRow) -> Result<Option<Vec<u8>>, String> {
    let Some(pem) = &row.cert_pem else { return Ok(None) };
    let certificate = Certificate::from_pem(pem)
        .map_err(|e| format!("its certificate is damaged: {}", model::chain(&e)))?;
    let digest = certificate.digest();
    let holder = known.sender(&SenderHash::Full(digest));
    let other = holder.filter(|d| d.row.id != row.id && d.row.gone.is_none());
    match other.and_then(|d| known.object_of(d.row.id)) {
        None => Ok(Some(digest.0.to_vec())),
        Some(other) => {
            let other = &other.object.key;
            Err(format!(
                "its certificate is that of {other} now, which came since: delete that one, and roll \
                 back again; or apply the document, which makes a new node of this name"
            ))
        }
    }
}

impl Fleet {
    /// The id that a rolled back version of a device gets: the one it had, if its object is not there.
    pub(super) async fn id_again(
        &self,
        key: &Key,
        version: &Version,
    ) -> Result<Option<Uuid>, FleetError> {
        if key.kind != Kind::Device {
            return Ok(None);
        }
        Ok(self.db.uid_of_version(key, version.revision).await?)
    }

    /// Says of devices that documents have made that they are not those which had their names.
    pub(super) async fn tell_deleted(&self, applied: &mut view::Applied) -> Result<(), FleetError> {
        let made =
            |c: &&mut view::Change| c.key.kind == Kind::Device && c.action == view::Action::Created;
        for change in applied.changes.iter_mut().filter(made).take(LOOKED_UP) {
            let versions = self.db.versions(&change.key, u64::MAX, VERSIONS).await?;
            let mut versions = versions.iter().skip_while(|v| v.spec.is_some());
            let (Some(deleted), Some(last)) = (versions.next(), versions.next()) else { continue };
            let Some(id) = self.db.uid_of_version(&change.key, last.revision).await? else {
                continue;
            };
            let was_there = |row: &DeviceRow| row.gone.is_some() && row.cert_pem.is_some();
            if !self.look(|known| known.device(id).is_some_and(was_there)) {
                continue;
            }
            let (name, at) = (&change.key.name, time(deleted.at));
            change.notes.push(format!(
                "it is a new node; the one of this name that was deleted at {at} is not let in again \
                 (it would be by `eve delete device {name}` and `eve rollback device {name} {}`)",
                last.revision
            ));
        }
        Ok(())
    }
}

/// Said when a version of a deleted node is put into the object of another.
pub(super) fn another(
    known: &Known,
    stored: Option<&StoredObject>,
    id: Option<Uuid>,
) -> Option<String> {
    let (stored, id) = (stored?, id?);
    let was = known.device(id).filter(|row| row.gone.is_some())?;
    (stored.object.uid != id && was.cert_pem.is_some()).then(|| {
        format!(
            "that version was of another node, which was deleted and is not let in again: for that one \
             delete {} first, and roll back again",
            stored.object.key
        )
    })
}
