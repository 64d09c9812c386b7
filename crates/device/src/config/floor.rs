//! What keeps time from running backwards over a reboot: when the newest config ever applied was
//! made.
//!
//! A signed config verifies for ever, so whoever recorded an old one could bring it back. EVE keeps
//! the newest timestamp in memory only; we keep it on the disk, beside the saved config, and for
//! one controller and one id: who takes a new identity begins anew.
//!
//! A controller whose clock once ran ahead would lock its nodes out until that time comes. A person
//! at the node can undo that: each new content of the file [`ORDER`] on the CONFIG partition forgets
//! the timestamp once. The content says nothing; that it was seen is kept, so that a file which
//! stays there does not open the door at each boot.

use model::{DeviceId, UnixMillis};
use serde::{Deserialize, Serialize};

/// On the CONFIG partition; any text, of which the first 64 characters count. Absent or empty:
/// nothing is to be forgotten.
pub const ORDER: &str = "accept-older-config";

/// What outlives a boot. Every version that was ever written loads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "version")]
enum OnDisk {
    #[serde(rename = "1")]
    V1 { server: String, id: DeviceId, newest: Option<UnixMillis>, obeyed: String },
}

/// What outlives a boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "OnDisk", into = "OnDisk")]
pub struct Record {
    /// Whose configs: host and port of the controller.
    pub server: String,
    /// For whom.
    pub id: DeviceId,
    /// When the newest one was made. `None`: none was applied, or its time was forgotten.
    pub newest: Option<UnixMillis>,
    /// The order that was obeyed last; empty: none.
    pub obeyed: String,
}

impl From<OnDisk> for Record {
    fn from(disk: OnDisk) -> Record {
        let OnDisk::V1 { server, id, newest, obeyed } = disk;
        Record { server, id, newest, obeyed }
    }
}

impl From<Record> for OnDisk {
    fn from(Record { server, id, newest, obeyed }: Record) -> OnDisk {
        OnDisk::V1 { server, id, newest, obeyed }
    }
}

/// What can be found out at the start.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    /// The controller: host and port.
    pub server: &'a str,
    /// Who we are.
    pub id: DeviceId,
    /// What an earlier boot recorded.
    pub record: Option<&'a Record>,
    /// When the saved config was made, if there is one that we believe.
    pub saved: Option<UnixMillis>,
    /// What [`ORDER`] says; empty if there is no such file.
    pub order: &'a str,
}

/// The record of this boot. Configs made before its `newest` are refused.
pub fn at_boot(found: Found<'_>) -> Record {
    let order: String = found.order.trim().chars().take(64).collect();
    let ours = found.record.filter(|r| r.server == found.server && r.id == found.id);
    let obeyed = found.record.map(|r| r.obeyed.clone()).unwrap_or_default();
    let begin =
        |newest, obeyed| Record { server: found.server.to_owned(), id: found.id, newest, obeyed };
    if !order.is_empty() && order != obeyed {
        return begin(None, order);
    }
    match ours {
        // A record without a time, and a saved config with one: the order was obeyed, and no newer
        // config came since.
        Some(ours) => begin(ours.newest, obeyed),
        None => begin(found.saved, obeyed),
    }
}

impl Record {
    /// The record once a config made at `timestamp` is in force. `None`: it is as it was.
    pub fn raised(&self, timestamp: Option<UnixMillis>) -> Option<Record> {
        (timestamp > self.newest).then(|| Record { newest: timestamp, ..self.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";

    fn found<'a>(
        record: Option<&'a Record>,
        saved: Option<u64>,
        server: &'a str,
        order: &'a str,
    ) -> Found<'a> {
        let id = ID.parse().unwrap();
        Found { server, id, record, saved: saved.map(UnixMillis), order }
    }

    fn record(newest: Option<u64>, obeyed: &str) -> Record {
        let (server, id) = ("c".to_owned(), ID.parse().unwrap());
        Record { server, id, newest: newest.map(UnixMillis), obeyed: obeyed.to_owned() }
    }

    #[test]
    fn the_record_counts_also_if_the_saved_config_is_lost_or_older() {
        for saved in [None, Some(3)] {
            assert_eq!(
                at_boot(found(Some(&record(Some(5), "")), saved, "c", "")).newest,
                Some(UnixMillis(5))
            );
        }
    }

    #[test]
    fn a_node_of_an_earlier_version_has_the_time_of_its_saved_config() {
        assert_eq!(at_boot(found(None, Some(3), "c", "")), record(Some(3), ""));
        assert_eq!(at_boot(found(None, None, "c", "")), record(None, ""));
    }

    #[test]
    fn another_controller_or_another_id_begins_anew() {
        assert_eq!(at_boot(found(Some(&record(Some(5), "")), None, "d", "")).newest, None);
        let other = Record {
            id: "00000000-0000-4000-8000-000000000001".parse().unwrap(),
            ..record(Some(5), "")
        };
        assert_eq!(at_boot(found(Some(&other), None, "c", "")).newest, None);
    }

    #[test]
    fn an_order_is_obeyed_once() {
        let first = at_boot(found(Some(&record(Some(9), "")), Some(9), "c", "once\n"));
        assert_eq!(first, record(None, "once"));
        // Booted again before a config came: still open, also for the one that is saved.
        let again = at_boot(found(Some(&first), Some(9), "c", "once"));
        assert_eq!(again, first);
        let raised = again.raised(Some(UnixMillis(4))).unwrap();
        assert_eq!(at_boot(found(Some(&raised), Some(4), "c", "once")), record(Some(4), "once"));
        assert_eq!(at_boot(found(Some(&raised), Some(4), "c", "twice")).newest, None);
        // The file is gone: nothing opens, and the same word does not open again.
        let gone = at_boot(found(Some(&raised), Some(4), "c", ""));
        assert_eq!(at_boot(found(Some(&gone), Some(4), "c", "once")).newest, Some(UnixMillis(4)));
    }

    #[test]
    fn it_only_rises() {
        let at = record(Some(5), "");
        assert_eq!(at.raised(Some(UnixMillis(5))), None);
        assert_eq!(at.raised(Some(UnixMillis(4))), None);
        assert_eq!(at.raised(None), None);
        assert_eq!(at.raised(Some(UnixMillis(6))), Some(record(Some(6), "")));
    }

    #[test]
    fn every_record_we_shipped_still_loads() {
        let v1 = format!(r#"{{"version":"1","server":"c","id":"{ID}","newest":5,"obeyed":"x"}}"#);
        let read: Record = serde_json::from_str(&v1).unwrap();
        assert_eq!(read, record(Some(5), "x"));
        assert_eq!(serde_json::to_string(&read).unwrap(), v1);
    }
}
