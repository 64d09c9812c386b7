//! The controller's own trouble: what a look at its parts found, and for how long.

use std::collections::BTreeMap;
use std::time::Duration;

use model::UnixMillis;

use crate::fleet::Fleet;

/// Database and object store answer in milliseconds where all is well.
pub(super) const SLOW: Duration = Duration::from_secs(2);
/// After so long they count as failed.
const PATIENCE: Duration = Duration::from_secs(8);

/// A part of the controller that can be in trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Database,
    Store,
    Messages,
}

impl Part {
    pub(super) fn subject(self) -> &'static str {
        match self {
            Part::Database => "Controller database",
            Part::Store => "Controller object store",
            Part::Messages => "Controller messages",
        }
    }
}

/// How long an answer took, or why there was none.
pub(super) type Answer = Result<Duration, String>;

/// Asks database and object store, and looks whether messages of devices wait.
pub(super) async fn look(fleet: &Fleet) -> BTreeMap<Part, String> {
    let database = async { fleet.db.check().await.map_err(|e| model::chain(&e)) };
    let images = fleet.registry().images();
    let store = async { images.blobs.check().await.map_err(|e| model::chain(&e)) };
    judged(timed(database).await, timed(store).await, fleet.ingest.is_full())
}

async fn timed(question: impl Future<Output = Result<(), String>>) -> Answer {
    let began = tokio::time::Instant::now();
    match tokio::time::timeout(PATIENCE, question).await {
        Ok(answer) => answer.map(|()| began.elapsed()),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

fn judged(database: Answer, store: Answer, full: bool) -> BTreeMap<Part, String> {
    let mut all = BTreeMap::new();
    for (part, answer) in [(Part::Database, database), (Part::Store, store)] {
        match answer {
            Err(why) => {
                all.insert(part, why);
            }
            Ok(took) if took > SLOW => {
                all.insert(part, format!("slow: an answer took {} ms", took.as_millis()));
            }
            Ok(_) => {}
        }
    }
    if full {
        let text = "devices say more than the database takes: their messages wait";
        all.insert(Part::Messages, text.to_owned());
    }
    all
}

/// What is wrong, since when.
#[derive(Debug, Default)]
pub(super) struct Own(BTreeMap<Part, (UnixMillis, String)>);

impl Own {
    /// Takes over what a look found: trouble that goes on keeps its beginning.
    pub(super) fn take(&mut self, found: BTreeMap<Part, String>, now: UnixMillis) {
        let since = |part: &Part| self.0.get(part).map_or(now, |(since, _)| *since);
        self.0 = found.into_iter().map(|(part, text)| (part, (since(&part), text))).collect();
    }

    /// Subject and words of what has been wrong for so many minutes.
    pub(super) fn troubles(&self, minutes: u64, now: UnixMillis) -> Vec<(&'static str, String)> {
        let long = |since: &UnixMillis| now.since(*since).as_secs() >= minutes.saturating_mul(60);
        let all = self.0.iter().filter(|(_, (since, _))| long(since));
        all.map(|(part, (_, text))| (part.subject(), text.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_or_is_slow_is_trouble_and_the_rest_is_not() {
        let well = || Ok(Duration::from_millis(3));
        assert!(judged(well(), well(), false).is_empty());
        let found = judged(Err("disk full".into()), Ok(SLOW * 2), true);
        let texts: Vec<&str> = found.values().map(String::as_str).collect();
        assert_eq!(texts[..2], ["disk full", "slow: an answer took 4000 ms"]);
        assert!(found.contains_key(&Part::Messages));
    }

    #[test]
    fn trouble_counts_from_its_beginning_and_ends_with_a_good_look() {
        let minute = |n: u64| UnixMillis(n * 60_000);
        let trouble = || BTreeMap::from([(Part::Database, "gone".to_owned())]);
        let mut own = Own::default();
        own.take(trouble(), minute(1));
        own.take(trouble(), minute(5));
        assert_eq!(own.troubles(5, minute(5)), []);
        assert_eq!(own.troubles(5, minute(6)), [("Controller database", "gone".to_owned())]);
        own.take(BTreeMap::new(), minute(7));
        own.take(trouble(), minute(8));
        assert_eq!(own.troubles(5, minute(9)), [], "it began anew");
    }
}
