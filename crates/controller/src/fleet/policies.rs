//! Groups, windows and alert rules among documents: decided on together with the objects that nodes
//! are told of, and written in the same step.

use std::collections::{BTreeMap, BTreeSet};

use super::change::done;
use super::{Fleet, FleetError, How, Known};
use crate::alerts;
use crate::db::{Change, Policies, Policy};
use crate::objects::{
    Document, Flaw, Key, Kind, NOT_SHOWN, Objects, Query, QueryError, Spec, TextOrSecret,
};
use crate::rollout::calendar;
use crate::view;

impl Fleet {
    /// Makes, changes (`Some`) or removes one of them, as `decide` says of what there is. It is asked
    /// again if somebody changes one, or an object, before that is written. If it refuses, nothing is
    /// written.
    pub(crate) async fn set_policy<E>(
        &self,
        key: &Key,
        author: &str,
        decide: impl Fn(&Known, &Policies) -> Result<Option<Policy>, E>,
    ) -> Result<Result<(), E>, FleetError> {
        let now = self.now();
        self.with_policies(|known, policies| {
            let mut change = Change::by(author, now);
            let policy = match decide(known, policies) {
                Ok(policy) => policy,
                Err(refused) => return Ok((change, Err(refused))),
            };
            change.log(None, key, if policy.is_some() { "set" } else { "deleted" });
            change.policies.push((key.clone(), policy));
            Ok((change, Ok(())))
        })
        .await
    }
}

/// What is decided of the policies among some documents.
#[derive(Debug, Default)]
pub(super) struct Decided {
    /// What is to be written.
    pub(super) writes: Vec<(Key, Option<Policy>)>,
    pub(super) changes: Vec<view::Change>,
    pub(super) missing: Vec<Flaw>,
}

/// Decides what documents and `how` make of policies; `next`: the objects as they are to be.
pub(super) fn decide(
    known: &Known,
    policies: &Policies,
    documents: &[&Document],
    how: &How,
    next: &Objects,
) -> Result<Decided, FleetError> {
    if let Some((key, _)) = how.expected.iter().find(|(key, _)| key.kind.is_policy()) {
        let text = "it has no generations; leave it out of what is expected";
        return Err(FleetError::Flawed(vec![flaw(key, "kind", text)]));
    }
    if let Some(document) = documents.first().filter(|_| !how.within.all()) {
        let why = "it is for the whole fleet, and your projects are not".to_owned();
        return Err(FleetError::OtherProject { key: document.key.clone(), why });
    }
    let mut decided = Decided::default();
    for document in documents {
        let (key, old) = (&document.key, policies.get(&document.key));
        let policy = policy(document, old)?;
        let action = match old {
            None => view::Action::Created,
            Some(old) if *old == policy => view::Action::Unchanged,
            Some(_) => view::Action::Changed,
        };
        decided.changes.push(done(key.clone(), action));
        if action != view::Action::Unchanged {
            decided.writes.push((key.clone(), Some(policy)));
        }
    }
    let named: BTreeSet<&Key> = documents.iter().map(|d| &d.key).collect();
    let pruned = policies.keys().filter(|k| how.within.all() && how.prune.contains(&k.kind));
    for key in pruned.filter(|k| !named.contains(k)) {
        let action = view::Action::Removed;
        decided.changes.push(done(key.clone(), action));
        decided.writes.push((key.clone(), None));
    }
    let after = with(policies, &decided.writes);
    let new = new_flaws((policies, &known.objects), (&after, next), &named);
    let (missing, wrong): (Vec<Flaw>, Vec<Flaw>) = new.into_iter().partition(|f| f.missing);
    if !wrong.is_empty() {
        return Err(FleetError::Flawed(wrong));
    }
    if !missing.is_empty() && !how.allow_missing {
        return Err(FleetError::Flawed(missing));
    }
    decided.missing = missing;
    Ok(decided)
}

/// Policies as they are after a change.
pub(crate) fn after(policies: &Policies, change: &Change) -> Policies {
    with(policies, &change.policies)
}

fn with(policies: &Policies, writes: &[(Key, Option<Policy>)]) -> Policies {
    let mut all = policies.clone();
    for (key, policy) in writes {
        match policy {
            Some(policy) => all.insert(key.clone(), policy.clone()),
            None => all.remove(key),
        };
    }
    all
}

/// The queries of groups, by name.
pub(crate) fn groups(policies: &Policies) -> BTreeMap<String, String> {
    let group = |(key, policy): (&Key, &Policy)| match &policy.spec {
        Spec::Group(group) => Some((key.name.clone(), group.query.clone())),
        _ => None,
    };
    policies.iter().filter_map(group).collect()
}

/// What may be shown of a policy: its fields as `eve apply` takes them, without the secret.
pub(crate) fn shown(policy: &Policy) -> serde_json::Value {
    let written = match &policy.spec {
        Spec::Group(spec) => serde_json::to_value(spec),
        Spec::Window(spec) => serde_json::to_value(spec),
        Spec::AlertRule(spec) => serde_json::to_value(spec),
        _ => Ok(serde_json::Value::Null),
    };
    let mut written = written.unwrap_or_default();
    if let Some(fields) = written.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
        // A rule may have one from before it named a Secret, which counts.
        if policy.secret.is_some() && !fields.contains_key("secret") {
            fields.insert("secret".to_owned(), NOT_SHOWN.into());
        }
    }
    written
}

/// What is wrong with policies, in the order of their keys.
pub(crate) fn flaws(policies: &Policies, objects: &Objects) -> Vec<Flaw> {
    let groups = groups(policies);
    let mut all = Vec::new();
    for (key, policy) in policies {
        let told = match &policy.spec {
            Spec::Group(group) => {
                Query::of_group(&group.query).map(drop).map_err(|e| (format!("query: {e}"), false))
            }
            Spec::Window(window) => calendar::understood(window, &groups)
                .map(drop)
                .map_err(|e| (e.to_string(), names_nobody(&window.devices, &groups))),
            Spec::AlertRule(rule) => {
                if let Some(TextOrSecret::Secret(named)) = &rule.secret
                    && !objects.contains_key(&Key::new(Kind::Secret, &named.secret))
                {
                    let text = format!("there is no {}", Key::new(Kind::Secret, &named.secret));
                    all.push(Flaw { missing: true, ..flaw(key, "spec.secret", &text) });
                }
                alerts::check(rule, &groups)
                    .map_err(|e| (e.to_string(), names_nobody(&rule.devices, &groups)))
            }
            _ => continue,
        };
        // Errors of all three begin with the field; those of rules say whose it is.
        if let Err((said, missing)) = told {
            let said = said.strip_prefix("rule.").unwrap_or(&said);
            let (field, text) = said.split_once(": ").unwrap_or(("", said));
            all.push(Flaw { missing, ..flaw(key, &format!("spec.{field}"), text) });
        }
    }
    all
}

/// Whether a query is wrong only because its group is not there.
fn names_nobody(query: &str, groups: &BTreeMap<String, String>) -> bool {
    matches!(Query::parse(query, groups), Err(QueryError::Group(_)))
}

/// What is wrong after a change and was not before, and all that is wrong with what is named.
pub(super) fn new_flaws(
    before: (&Policies, &Objects),
    after: (&Policies, &Objects),
    named: &BTreeSet<&Key>,
) -> Vec<Flaw> {
    let old = flaws(before.0, before.1);
    let mut new = flaws(after.0, after.1);
    new.retain(|f| !old.contains(f) || named.contains(&f.key));
    new
}

/// What a document makes of a policy. The mark for what is not shown keeps the secret that is there.
fn policy(document: &Document, old: Option<&Policy>) -> Result<Policy, FleetError> {
    let (mut spec, mut secret) = (document.spec.clone(), None);
    if let Spec::AlertRule(rule) = &mut spec
        && let Some(TextOrSecret::Text(text)) = &rule.secret
    {
        if text == NOT_SHOWN {
            secret = old.and_then(|old| old.secret.clone());
            if secret.is_none() {
                let text = "no value is kept for it; write the value, or {secret: NAME}";
                return Err(FleetError::Flawed(vec![flaw(&document.key, "spec.secret", text)]));
            }
        } else {
            secret = Some(text.clone().into_bytes());
        }
        rule.secret = None;
    }
    Ok(Policy { spec, secret })
}

fn flaw(key: &Key, field: &str, text: &str) -> Flaw {
    Flaw { key: key.clone(), field: field.to_owned(), text: text.to_owned(), missing: false }
}
