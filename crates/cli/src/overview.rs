//! `eve fleet`: how the fleet is, at a glance.

use controller::view::{Alert, Controller, Rollout};
use serde::Serialize;

use crate::fleet::{To, ago};
use crate::out::OrAdvise;
use crate::shown::Lines;

/// Alerts that are counted, at most.
const ALERTS_MAX: usize = 1000;
/// Alerts that are shown.
const SHOWN: usize = 10;

/// How a fleet is.
#[derive(Debug, Serialize)]
struct Overview {
    url: String,
    #[serde(flatten)]
    controller: Controller,
    /// Those that are not over, the newest first; at most [`ALERTS_MAX`].
    alerts: Vec<Alert>,
    /// Those to which something can still happen.
    rollouts: Vec<Rollout>,
}

pub(crate) async fn run(to: &To) -> anyhow::Result<()> {
    let client = to.client()?;
    let look = async || {
        let alerts = format!("/alerts?open=true&limit={ALERTS_MAX}");
        let mut rollouts: Vec<Rollout> = client.ask("/rollouts").await.or_advise()?;
        rollouts.retain(|r| !["done", "rolled back"].contains(&r.phase.as_str()));
        Ok(Overview {
            url: client.url().to_owned(),
            controller: client.controller().await.or_advise()?,
            alerts: client.ask(&alerts).await.or_advise()?,
            rollouts,
        })
    };
    to.print(look, shown).await
}

fn shown(all: &Overview) -> String {
    let mut text = Lines::default();
    let Controller { version, devices, states, apps, .. } = &all.controller;
    text.fact("controller", format_args!("{}, version {version}", all.url));
    let states: Vec<String> = states.iter().map(|(state, n)| format!("{n} {state}")).collect();
    let states = if states.is_empty() { String::new() } else { format!(": {}", states.join(", ")) };
    text.fact("nodes", format_args!("{devices}{states}"));
    text.fact("apps", apps);
    let more = if all.alerts.len() == ALERTS_MAX { " or more" } else { "" };
    let new = all.alerts.iter().filter(|a| a.acked_by.is_none()).count();
    let seen = if all.alerts.is_empty() { String::new() } else { format!(", {new} of them new") };
    text.fact("alerts", format_args!("{}{more}{seen}", all.alerts.len()));
    text.fact("rollouts", format_args!("{} in progress", all.rollouts.len()));
    let alerts = all.alerts.iter().take(SHOWN).map(|a| {
        let since = ago(Some(a.since));
        vec![a.id.to_string(), since, a.rule.clone(), a.subject.clone(), a.text.clone()]
    });
    text.table(&["alert", "since", "rule", "about", "what"], &alerts.collect::<Vec<_>>());
    if all.alerts.len() > SHOWN {
        text.line("… `eve alert list` has the others");
    }
    let rollouts = all.rollouts.iter().map(|r| {
        let wave = format!("{}/{}", r.wave, r.waves.len());
        vec![r.name.clone(), r.phase.clone(), wave, r.why.clone()]
    });
    text.table(&["rollout", "phase", "wave", "why"], &rollouts.collect::<Vec<_>>());
    text.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glance_tells_what_is_wrong_first() {
        let alert = |id: u64, by: Option<&str>| -> Alert {
            let value = serde_json::json!({
                "id": id, "rule": "dead", "subject": "Device edge-1", "text": "silent",
                "since": 0, "ended": null, "acked_by": by, "acked": null,
            });
            serde_json::from_value(value).unwrap()
        };
        let controller = serde_json::json!({
            "version": "1.2.3", "devices": 3, "online": 2, "states": {"online": 2, "silent": 1},
            "apps": 4, "serials": [], "images": [],
        });
        let mut all = Overview {
            url: "https://c:8443".to_owned(),
            controller: serde_json::from_value(controller).unwrap(),
            alerts: (0..12).map(|id| alert(id, (id == 0).then_some("ann"))).collect(),
            rollouts: Vec::new(),
        };
        let text = shown(&all);
        assert!(text.contains("nodes       3: 2 online, 1 silent\n"), "{text}");
        assert!(text.contains("alerts      12, 11 of them new\n"), "{text}");
        assert_eq!(text.matches("Device edge-1").count(), SHOWN, "{text}");
        all.alerts.clear();
        assert!(shown(&all).contains("alerts      0\n"));
    }
}
