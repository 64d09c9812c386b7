//! Changes that are made at their time, once.

use model::UnixMillis;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::calendar::Calendar;
use crate::db::{Also, Change, DbError, ScheduledRow};
use crate::fleet::{Fleet, FleetError, How, policies};
use crate::objects;

/// A change that waits for its time, or did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduled {
    /// Its name.
    pub name: String,
    /// When it is to be made.
    pub due: UnixMillis,
    /// Who wants it.
    pub author: String,
    /// YAML or JSON documents, without the values of secrets.
    pub documents: String,
    /// `waiting`, `done`, `failed` or `cancelled`.
    pub state: String,
    /// What became of it, in words.
    pub outcome: String,
    /// When that was.
    pub done: Option<UnixMillis>,
}

impl From<ScheduledRow> for Scheduled {
    fn from(row: ScheduledRow) -> Scheduled {
        let ScheduledRow { name, due, author, documents, state, outcome, done } = row;
        let documents = hidden(documents);
        Scheduled { name, due, author, documents, state, outcome, done }
    }
}

/// Documents as they were written; as JSON lines without the values if secrets are among them.
fn hidden(documents: String) -> String {
    let Ok(all) = objects::read(&documents) else {
        return "(not shown: no documents any more that this controller reads)".to_owned();
    };
    if all.iter().all(|d| objects::shown(d.key.kind, &d.written) == d.written) {
        return documents;
    }
    let one = |d: &objects::Document| {
        let spec = objects::shown(d.key.kind, &d.written);
        let document = json!({"kind": d.key.kind.name(), "name": d.key.name, "spec": spec});
        format!("{document}\n")
    };
    all.iter().map(one).collect::<Vec<_>>().join("---\n")
}

/// Makes the changes whose time has come. Each in one step with the note that it was made: also when
/// the controller ends in between, it is made once.
pub(crate) async fn run_due(fleet: &Fleet) -> Result<(), DbError> {
    for row in fleet.db.scheduled(Some(fleet.now())).await? {
        let mut said = Change::by(&row.author, fleet.now());
        let object = format!("Schedule {}", row.name);
        match make(fleet, &row).await {
            Ok(true) | Err(FleetError::Faster) => {}
            Ok(false) => {
                let outcome = "it was so already";
                said.log(None, &object, outcome);
                fleet.db.end_scheduled(&row.name, "done", outcome, &said).await?;
            }
            // The database will be back; the change stays due.
            Err(FleetError::Db(e)) => return Err(e),
            Err(e) => {
                let outcome = model::chain(&e);
                said.log(None, &object, &format!("failed: {outcome}"));
                fleet.db.end_scheduled(&row.name, "failed", &outcome, &said).await?;
            }
        }
    }
    Ok(())
}

/// False if there was nothing to change.
async fn make(fleet: &Fleet, row: &ScheduledRow) -> Result<bool, FleetError> {
    let documents = objects::read(&row.documents)?;
    let policies = fleet.db.policies().await?;
    let now = fleet.now();
    let done = fleet.change(|known| {
        let by = (row.author.as_str(), now);
        let (mut change, applied) =
            fleet.applied(known, &policies, &documents, &How::default(), by)?;
        let calendar = Calendar::of(&policies::after(&policies, &change));
        calendar.hold_back(fleet, known, &mut change);
        let made: Vec<String> =
            applied.changes.iter().map(|c| format!("{} {}", c.key, c.action.name())).collect();
        let (name, outcome) = (row.name.clone(), made.join(", "));
        change.also.push(Also::Scheduled { name, outcome });
        change.log(None, format!("Schedule {}", row.name), "made");
        let empty = change.is_empty();
        Ok((change, !empty))
    });
    done.await
}
