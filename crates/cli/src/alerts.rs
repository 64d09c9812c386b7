//! `eve alert …`: what is wrong in the fleet, who has seen it, and the rules that find it.

use std::path::PathBuf;

use controller::alerts::{RuleSpec, When};
use controller::client::escaped;
use controller::objects::Kind;
use controller::view::{Alert, NamedRule};

use crate::fleet::{To, ago, objects, read, time};
use crate::out::foreign::one_line;
use crate::out::{self, OrAdvise, WrongUse};

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
    /// Make a rule, or change one: what is not said stays as it is
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
    /// What it looks at; a new rule needs it
    #[arg(long, value_parser = When::ALL.map(When::name))]
    when: Option<String>,
    /// Which nodes, as a query over labels [of a new rule: *]
    #[arg(long = "match", value_name = "QUERY")]
    devices: Option<String>,
    /// For how long something must be so [of a new rule: 10]
    #[arg(long, value_name = "MINUTES")]
    minutes: Option<u64>,
    /// How full a disk may become, for disk_full [of a new rule: 90]
    #[arg(long, value_name = "PERCENT")]
    percent: Option<u8>,
    /// How long before its end a certificate is spoken of, for certificate_ends [of a new rule: 30]
    #[arg(long, value_name = "DAYS")]
    days: Option<u32>,
    /// Who is told: an https address that takes a POST
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Tell nobody any more: the rule's alerts are only listed
    #[arg(long, conflicts_with_all = ["url", "trust", "secret"])]
    no_url: bool,
    /// A certificate that the webhook may present beyond the system's
    #[arg(long, value_name = "PEM")]
    trust: Option<PathBuf>,
    /// A file with the secret that calls of the webhook are signed with; `-` reads standard input
    #[arg(long, value_name = "FILE")]
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
            let all = client.ask::<Vec<NamedRule>>("/alert-rules").await.or_advise()?;
            let before = all.into_iter().find(|r| r.name == set.name).map(|r| r.rule);
            client.put(&rule(&set.name), &body(&set, before)?).await.or_advise()?;
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

/// The rule as it is to be: what is not said is as `before`, or as in documents that do not say it.
fn body(set: &SetRule, before: Option<RuleSpec>) -> anyhow::Result<String> {
    let trust = set.trust.as_deref().map(read).transpose()?;
    let secret = set.secret.as_deref().map(read).transpose()?;
    let secret = secret.as_deref().map(|s| s.trim_end_matches(['\n', '\r']));
    let mut rule = serde_json::Map::new();
    match before {
        Some(before) => {
            if let serde_json::Value::Object(before) = serde_json::to_value(before)? {
                rule = before;
            }
        }
        None if set.when.is_none() => {
            let text = format!("there is no alert rule {} yet; say --when to make it", set.name);
            return Err(WrongUse(text).into());
        }
        None => {}
    }
    let said = serde_json::json!({
        "when": set.when,
        "match": set.devices,
        "minutes": set.minutes,
        "percent": set.percent,
        "days": set.days,
        "url": set.url,
        "trust": trust,
    });
    if let serde_json::Value::Object(said) = said {
        rule.extend(said.into_iter().filter(|(_, value)| !value.is_null()));
    }
    // The controller keeps the one that there is, unless another is said beside the rule.
    rule.remove("secret");
    if set.no_url {
        rule.remove("url");
        rule.remove("trust");
    }
    let told = rule.get("url").is_some_and(|url| !url.is_null());
    if !told && (trust.is_some() || secret.is_some()) {
        let text =
            format!("the alert rule {} tells nobody; --trust and --secret need --url", set.name);
        return Err(WrongUse(text).into());
    }
    Ok(serde_json::json!({ "rule": rule, "secret": secret }).to_string())
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

    fn set() -> SetRule {
        SetRule {
            name: "x".to_owned(),
            when: None,
            devices: None,
            minutes: None,
            percent: None,
            days: None,
            url: None,
            no_url: false,
            trust: None,
            secret: None,
        }
    }

    fn rule(set: &SetRule, before: Option<&RuleSpec>) -> RuleSpec {
        let body: serde_json::Value =
            serde_json::from_str(&body(set, before.cloned()).unwrap()).unwrap();
        serde_json::from_value(body["rule"].clone()).unwrap()
    }

    #[test]
    fn every_word_for_when_is_one_that_rules_know() {
        for when in When::ALL.map(When::name) {
            let (percent, days) = (Some(80), Some(7));
            let set = SetRule { when: Some(when.to_owned()), percent, days, ..set() };
            let rule = rule(&set, None);
            assert_eq!(serde_json::to_value(rule.when).unwrap(), when);
            assert_eq!((rule.percent, rule.days, rule.minutes), (80, 7, 10));
        }
    }

    #[test]
    fn what_is_not_said_of_a_rule_stays() {
        let url = || Some("https://hooks.example/".to_owned());
        let first = SetRule { when: Some("silent".to_owned()), url: url(), ..set() };
        let mut first = rule(&first, None);
        first.trust = Some("PEM".to_owned());
        let changed = rule(&SetRule { minutes: Some(20), ..set() }, Some(&first));
        assert_eq!(changed, RuleSpec { minutes: 20, ..first.clone() });
        let untold = rule(&SetRule { no_url: true, ..set() }, Some(&changed));
        assert_eq!((&untold.url, &untold.trust, untold.minutes), (&None, &None, 20));

        let refused = |set: &SetRule, before: Option<&RuleSpec>| {
            body(set, before.cloned()).unwrap_err().to_string()
        };
        assert!(refused(&set(), None).contains("say --when"));
        let mut secret = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut secret, b"words\n").unwrap();
        let secret = SetRule { secret: Some(secret.path().to_owned()), ..set() };
        assert!(refused(&secret, Some(&untold)).contains("tells nobody"));
        assert!(body(&secret, Some(changed)).unwrap().contains(r#""secret":"words""#));
    }
}
