//! Groups, windows and alert rules as objects: read together, and written with a change.

use std::collections::BTreeMap;

use model::UnixMillis;

use super::alerts::remove_rule;
use super::rollout::{group_query, window_query};
use super::{Db, DbError, Doing, Engine, RuleRow, Tx};
use crate::objects::{GroupSpec, Key, Kind, Spec};

/// All of them.
pub(crate) type Policies = BTreeMap<Key, Policy>;

/// One as it is kept.
#[derive(Clone, PartialEq)]
pub(crate) struct Policy {
    /// A group, a window or an alert rule.
    pub(crate) spec: Spec,
    /// What the webhook of a rule is signed with, if the rule names no secret.
    pub(crate) secret: Option<Vec<u8>>,
}

/// Without the secret.
impl std::fmt::Debug for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policy").field("spec", &self.spec).finish_non_exhaustive()
    }
}

impl Db {
    /// All groups, windows and alert rules; those that cannot be read are left out.
    pub(crate) async fn policies(&self) -> Result<Policies, DbError> {
        let mut all = Policies::new();
        for (name, (query, note)) in self.groups().await? {
            let spec = Spec::Group(GroupSpec { query, note });
            all.insert(Key::new(Kind::Group, name), Policy { spec, secret: None });
        }
        for (name, text) in self.windows().await? {
            let key = Key::new(Kind::Window, name);
            take(&mut all, key, serde_json::from_str(&text).map(Spec::Window), None);
        }
        for RuleRow { name, spec, secret } in self.alert_rules().await? {
            let key = Key::new(Kind::AlertRule, name);
            take(&mut all, key, serde_json::from_str(&spec).map(Spec::AlertRule), secret);
        }
        Ok(all)
    }

    /// Whether all of them are as they were. Nobody else changes one until `tx` has ended: they may
    /// have been read before the revision that `tx` follows, and controllers before this one set them
    /// without a revision.
    pub(super) async fn still(&self, tx: &mut Tx, then: &Policies) -> Result<bool, DbError> {
        // SQLite has one writer, and that is `tx`.
        if self.engine() == Engine::Postgres {
            sqlx::query(
                "LOCK TABLE fleet_groups, windows, alert_rules IN SHARE ROW EXCLUSIVE MODE",
            )
            .execute(&mut **tx)
            .await
            .doing("keep others from changing how the fleet is run")?;
        }
        Ok(self.policies().await? == *then)
    }

    /// Writes one (`Some`), or removes it.
    pub(super) async fn put_policy(
        &self,
        tx: &mut Tx,
        (key, policy): &(Key, Option<Policy>),
        now: UnixMillis,
    ) -> Result<(), DbError> {
        let doing = "store how the fleet is run";
        let name = key.name.as_str();
        match (key.kind, policy.as_ref().map(|p| (&p.spec, &p.secret))) {
            (Kind::Group, None) => group_query(name, None).execute(&mut **tx).await.doing(doing)?,
            (Kind::Window, None) => {
                window_query(name, None).execute(&mut **tx).await.doing(doing)?
            }
            (_, None) => return remove_rule(tx, name, now).await,
            (_, Some((Spec::Group(group), _))) => {
                let query = group_query(name, Some((&group.query, &group.note)));
                query.execute(&mut **tx).await.doing(doing)?
            }
            (_, Some((Spec::Window(window), _))) => {
                let text = json(key, window)?;
                window_query(name, Some(&text)).execute(&mut **tx).await.doing(doing)?
            }
            (_, Some((Spec::AlertRule(rule), secret))) => {
                let (spec, secret) = (json(key, rule)?, secret.clone());
                return self.put_rule(tx, &RuleRow { name: name.to_owned(), spec, secret }).await;
            }
            // Objects of other kinds are written elsewhere.
            (_, Some(_)) => return Ok(()),
        };
        Ok(())
    }
}

fn take(
    all: &mut Policies,
    key: Key,
    spec: Result<Spec, serde_json::Error>,
    secret: Option<Vec<u8>>,
) {
    match spec {
        Ok(spec) => {
            all.insert(key, Policy { spec, secret });
        }
        Err(e) => tracing::warn!("{key} is left out: {e}"),
    }
}

fn json(key: &Key, spec: &impl serde::Serialize) -> Result<String, DbError> {
    let damaged = |e: serde_json::Error| DbError::Damaged {
        what: format!("object {key}"),
        why: e.to_string(),
    };
    serde_json::to_string(spec).map_err(damaged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::{Change, Location, Written};

    fn group(name: &str, query: &str) -> (Key, Option<Policy>) {
        let spec = Spec::Group(GroupSpec { query: query.to_owned(), note: String::new() });
        (Key::new(Kind::Group, name), Some(Policy { spec, secret: None }))
    }

    #[tokio::test]
    async fn what_somebody_set_meanwhile_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&Location::File(dir.path().join("db"))).await.unwrap();
        let by = || Change::by("ann", UnixMillis(1));
        let change = |then: &Policies, query: &str| Change {
            policies: vec![group("shops", query)],
            policies_then: Some(then.clone()),
            ..by()
        };
        let then = db.policies().await.unwrap();
        assert_eq!(db.store(1, &change(&then, "a=1")).await.unwrap(), Written::As(2));
        // The revision is the newest, and what was looked at is not what there is.
        let late = change(&then, "a=2");
        assert_eq!(db.store(2, &late).await.unwrap(), Written::Overtaken);
        // Also a change that writes none of them was decided on with them.
        let admits =
            |then| Change { serials: vec![("s".into(), true)], policies_then: then, ..by() };
        assert_eq!(db.store(2, &admits(Some(then))).await.unwrap(), Written::Overtaken);
        let free = admits(None);
        assert_eq!(db.store(2, &free).await.unwrap(), Written::As(3));
        let set = group_query("bars", Some(("b=1", "")));
        db.write_logged(set, &by()).await.unwrap();
        let now = db.policies().await.unwrap();
        assert_eq!(now.keys().map(|k| k.name.as_str()).collect::<Vec<_>>(), ["bars", "shops"]);
        assert_eq!(now.get(&late.policies[0].0), group("shops", "a=1").1.as_ref());
        assert_eq!(db.store(3, &change(&now, "a=2")).await.unwrap(), Written::As(4));
    }
}
