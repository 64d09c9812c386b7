//! `eve alert …`: what is wrong in the fleet, who has seen it, and the rules that find it.

use std::path::PathBuf;

use controller::alerts::When;
use controller::client::escaped;
use controller::objects::Kind;
use controller::view::{Alert, NamedRule};

use crate::fleet::{To, ago, objects, read, time};
use crate::out::foreign::one_line;
use crate::out::{self, OrAdvise};

/// `eve alert …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// What is wrong: list, ack; rules that find it
    Alert {
        #[command(flatten)]
        to: To,
        #[command(subcommand)]
        command: AlertCommand,
    },
}

/// What is done with alerts.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum AlertCommand {
    /// Alerts, newest first: those that are not over
    List {
        /// Those that are over, too
        #[arg(long)]
        all: bool,
        /// At most so many
        #[arg(long, short = 'n', default_value_t = 50, value_name = "ALERTS")]
        lines: u32,
    },
    /// Say that somebody has seen one
    Ack {
        /// As `eve alert list` shows it
        id: u64,
    },
    /// Rules: list, set, test, delete
    Rule {
        #[command(subcommand)]
        command: RuleCommand,
    },
}

/// `eve alert rule …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum RuleCommand {
    /// All rules
    List,
    /// Make a rule, or change one
    Set(SetRule),
    /// Tell the webhook of a rule that this is a test
    Test {
        /// Its name
        name: String,
    },
    /// Remove a rule; its alerts are over
    Delete {
        /// Its name
        name: String,
    },
}

/// `eve alert rule set …`
#[derive(Debug, clap::Args)]
pub(crate) struct SetRule {
    /// Its name
    name: String,
    /// What it looks at
    #[arg(long, value_parser = When::ALL.map(When::name))]
    when: String,
    /// Which nodes, as a query over labels
    #[arg(long = "match", value_name = "QUERY", default_value = "*")]
    devices: String,
    /// For how long something must be so
    #[arg(long, default_value_t = 10, value_name = "MINUTES")]
    minutes: u64,
    /// How full a disk may become, for disk_full
    #[arg(long, default_value_t = 90, value_name = "PERCENT")]
    percent: u8,
    /// How long before its end a certificate is spoken of, for certificate_ends
    #[arg(long, default_value_t = 30, value_name = "DAYS")]
    days: u32,
    /// Who is told: an https address that takes a POST
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// A certificate that the webhook may present beyond the system's
    #[arg(long, value_name = "PEM", requires = "url")]
    trust: Option<PathBuf>,
    /// A file with the secret that calls of the webhook are signed with; `-` reads standard input
    #[arg(long, value_name = "FILE", requires = "url")]
    secret: Option<PathBuf>,
}

pub(crate) fn run(command: Command) -> anyhow::Result<()> {
    let Command::Alert { to, command } = command;
    crate::controller::runtime()?.block_on(perform(&to, command))
}

async fn perform(to: &To, command: AlertCommand) -> anyhow::Result<()> {
    let client = to.client()?;
    let rule = |name: &str| format!("/alert-rules/{}", escaped(name));
    match command {
        AlertCommand::List { all, lines } => {
            let path = format!("/alerts?open={}&limit={lines}", !all);
            let ask = async || client.ask::<Vec<Alert>>(&path).await.or_advise();
            to.print(ask, |all| alerts(all)).await
        }
        AlertCommand::Ack { id } => {
            client.ack_alert(id).await.or_advise()?;
            to.done(&format!("alert {id} is seen"))
        }
        AlertCommand::Rule { command: RuleCommand::List } if to.yaml() => {
            objects(to, Some(Kind::AlertRule), None).await
        }
        AlertCommand::Rule { command: RuleCommand::List } => {
            let ask = async || client.ask::<Vec<NamedRule>>("/alert-rules").await.or_advise();
            to.print(ask, |all| rules(all)).await
        }
        AlertCommand::Rule { command: RuleCommand::Set(set) } => {
            client.put(&rule(&set.name), &body(&set)?).await.or_advise()?;
            to.done(&format!("alert rule {} set", set.name))
        }
        AlertCommand::Rule { command: RuleCommand::Test { name } } => {
            let path = format!("{}/test", rule(&name));
            let told: serde_json::Value = client.send(&path, "").await.or_advise()?;
            to.told(&told, |told| one_line(told["told"].as_str().unwrap_or_default()).into_owned())
        }
        AlertCommand::Rule { command: RuleCommand::Delete { name } } => {
            client.remove(&rule(&name)).await.or_advise()?;
            to.done(&format!("alert rule {name} deleted"))
        }
    }
}

fn body(set: &SetRule) -> anyhow::Result<String> {
    let trust = set.trust.as_deref().map(read).transpose()?;
    let secret = set.secret.as_deref().map(read).transpose()?;
    let secret = secret.as_deref().map(|s| s.trim_end_matches(['\n', '\r']));
    let body = serde_json::json!({
        "rule": {
            "when": set.when,
            "match": set.devices,
            "minutes": set.minutes,
            "percent": set.percent,
            "days": set.days,
            "url": set.url,
            "trust": trust,
        },
        "secret": secret,
    });
    Ok(body.to_string())
}

fn alerts(all: &[Alert]) -> String {
    let row = |a: &Alert| {
        let state = match (a.ended, &a.acked_by) {
            (Some(at), _) => format!("over {}", ago(Some(at))),
            (None, Some(by)) => format!("seen by {by}"),
            (None, None) => "new".to_owned(),
        };
        let (id, since) = (a.id.to_string(), time(a.since));
        vec![id, since, state, a.rule.clone(), a.subject.clone(), a.text.clone()]
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    out::aligned(&["id", "since", "state", "rule", "about", "what"], &rows)
}

fn rules(all: &[NamedRule]) -> String {
    let row = |r: &NamedRule| {
        let when = serde_json::to_value(r.rule.when).ok();
        let when = when.as_ref().and_then(|w| w.as_str()).unwrap_or_default().to_owned();
        let told = match (&r.rule.url, r.has_secret) {
            (None, _) => "-".to_owned(),
            (Some(url), true) => format!("{url} (signed)"),
            (Some(url), false) => url.clone(),
        };
        vec![r.name.clone(), when, r.rule.devices.clone(), r.rule.minutes.to_string(), told]
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    out::aligned(&["name", "when", "nodes", "minutes", "tells"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_of_an_alert_reads_differently() {
        let alert = |ended: Option<u64>, by: Option<&str>| -> Alert {
            let value = serde_json::json!({
                "id": 7, "rule": "dead", "subject": "Device edge-1", "text": "silent",
                "since": 0, "ended": ended, "acked_by": by, "acked": by.map(|_| 1),
            });
            serde_json::from_value(value).unwrap()
        };
        let all = [alert(None, None), alert(None, Some("ann")), alert(Some(5), Some("ann"))];
        let text = alerts(&all);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains(" new "), "{text}");
        assert!(lines[2].contains(" seen by ann "), "{text}");
        assert!(lines[3].contains(" over "), "{text}");
    }

    #[test]
    fn every_word_for_when_is_one_that_rules_know() {
        for when in When::ALL.map(When::name) {
            let set = SetRule {
                name: "x".to_owned(),
                when: when.to_owned(),
                devices: "*".to_owned(),
                minutes: 1,
                percent: 80,
                days: 7,
                url: None,
                trust: None,
                secret: None,
            };
            let body: serde_json::Value = serde_json::from_str(&body(&set).unwrap()).unwrap();
            let rule: controller::alerts::RuleSpec =
                serde_json::from_value(body["rule"].clone()).unwrap();
            assert_eq!(serde_json::to_value(rule.when).unwrap(), when);
            assert_eq!((rule.percent, rule.days), (80, 7));
        }
    }
}
