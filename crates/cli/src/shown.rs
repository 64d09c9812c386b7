//! Nodes, apps and networks as people read them: texts, made of what the controller says.

use std::fmt::Display;
use std::time::Duration;

use controller::view;

use crate::fleet::ago;
use crate::out::foreign::{json, one_line};
use crate::out::{Seconds, aligned, short};

/// Lines, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Lines(pub(crate) String);

impl Lines {
    /// One line, whatever is in it.
    pub(crate) fn line(&mut self, text: impl Display) {
        self.0.push_str(&one_line(&text.to_string()));
        self.0.push('\n');
    }

    /// A value as JSON, over several lines.
    pub(crate) fn json(&mut self, value: &serde_json::Value) {
        self.0.push_str(&json(&format!("{value:#}\n")));
    }

    /// A name and what it is; nothing of nothing.
    pub(crate) fn fact(&mut self, name: &str, text: impl Display) {
        let text = text.to_string();
        if !text.is_empty() {
            self.line(format_args!("{name:<12}{text}"));
        }
    }

    /// A table, apart from what stands before it; nothing without rows.
    pub(crate) fn table(&mut self, head: &[&str], rows: &[Vec<String>]) {
        if !rows.is_empty() {
            self.0.push('\n');
            self.0.push_str(&aligned(head, rows));
        }
    }
}

/// A cell with labels is cut to so many characters; `eve device show` has all.
const LABELS_MAX: usize = 60;
const NETWORKS: &[&str] = &["network", "device", "state", "gateway", "problems"];
const APPS: &[&str] = &["app", "device", "state", "since", "ports", "addresses", "problems"];

pub(crate) fn devices(all: &[view::Device]) -> String {
    let row = |d: &view::Device| {
        let serials = [d.serial.as_str(), &d.soft_serial];
        let serials: Vec<&str> = serials.into_iter().filter(|s| !s.is_empty()).collect();
        let running = d.apps.iter().filter(|a| a.running).count();
        // The last column: rows without labels end before it, and without any it has no head.
        let labels = (!d.labels.is_empty()).then(|| short(&labels(d), LABELS_MAX));
        let row = vec![
            d.name.clone(),
            d.state.name().to_owned(),
            ago(d.seen),
            format!("{running}/{}", d.apps.len()),
            or_dash(&d.version),
            or_dash(&serials.join(", ")),
        ];
        row.into_iter().chain(labels).collect()
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    let head = ["name", "state", "last seen", "apps", "version", "serial, soft serial", "labels"];
    let labelled = all.iter().any(|d| !d.labels.is_empty());
    aligned(if labelled { &head } else { &head[..6] }, &rows)
}

/// `site=berlin, tier=a`
fn labels(d: &view::Device) -> String {
    let all: Vec<String> = d.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    all.join(", ")
}

pub(crate) fn device(d: &view::Device) -> String {
    let mut text = Lines::default();
    text.fact("name", &d.name);
    text.fact("id", d.id);
    text.fact("state", format_args!("{}, last seen {}", d.state.name(), ago(d.seen)));
    text.fact("serials", [d.serial.as_str(), &d.soft_serial].join(" ").trim());
    text.fact("labels", labels(d));
    let certificates = [("certificate", &d.certificate), ("onboarding", &d.onboard_certificate)];
    for (what, sha256) in certificates {
        if let Some(sha256) = sha256 {
            text.fact(what, format_args!("SHA-256 {sha256}"));
        }
    }
    text.fact("version", [d.version.as_str(), &d.slot].join(" ").trim());
    text.fact("hardware", &d.hardware);
    if let Some(boot) = &d.boot {
        let reason = if boot.reason.is_empty() { "unknown" } else { &boot.reason };
        text.fact("boot", format_args!("number {}, {}: {reason}", boot.count, ago(boot.at)));
        let marks = boot.timeline.iter();
        let marks: Vec<String> = marks
            .map(|(what, ms)| format!("{what} {}", Seconds(Duration::from_millis(*ms))))
            .collect();
        text.fact("timeline", marks.join(", "));
    }
    if let Some(given) = &d.config_given {
        let (version, by) = (&given.version, &given.author);
        let since = ago(Some(given.at));
        text.fact("config", format_args!("given whole by {by} {since}, version {version};"));
        let back = format_args!("eve device config {} --compiled", d.name);
        text.fact("", format_args!("objects do not reach it until `{back}`"));
    }
    for port in &d.ports {
        let state = if port.up { port.addresses.join(" ") } else { "down".to_owned() };
        let problem = port.problem.as_ref().map(|p| format!(" ({p})")).unwrap_or_default();
        text.fact("port", format_args!("{} {state}{problem}", port.name));
    }
    if let Some(usage) = &d.usage {
        text.fact("memory", format_args!("{} of {}", usage.memory_used, usage.memory_total));
        let all = usage.services.iter().map(|(name, bytes)| format!("{name} {bytes}"));
        let all = all.collect::<Vec<_>>().join(", ");
        text.fact("services", format_args!("{} in all: {all}", usage.services_total()));
    }
    for problem in &d.problems {
        text.fact("problem", problem);
    }
    for asked in &d.asked {
        text.fact("asked for", asked);
    }
    for pending in &d.pending {
        let problem = pending.problem.as_ref().map(|p| format!(": {p}")).unwrap_or_default();
        text.fact(&pending.kind, format_args!("{} {}{problem}", pending.name, pending.state));
    }
    text.table(NETWORKS, &d.networks.iter().map(network_row).collect::<Vec<_>>());
    text.table(APPS, &d.apps.iter().map(app_row).collect::<Vec<_>>());
    text.0
}

fn app_row(a: &view::AppOnDevice) -> Vec<String> {
    vec![
        a.app.clone(),
        a.device.clone(),
        a.state.clone(),
        ago(a.since),
        or_dash(&a.ports.join(" ")),
        or_dash(&a.addresses.join(" ")),
        a.problems.join("; "),
    ]
}

pub(crate) fn apps(all: &[view::App]) -> String {
    let row = |a: &view::App| {
        let running = a.on.iter().filter(|o| o.running).count();
        let problems = a.flaws.len() + a.on.iter().map(|o| o.problems.len()).sum::<usize>();
        vec![
            a.name.clone(),
            a.image.clone(),
            format!("{running}/{}", a.on.len()),
            states(&a.on),
            if problems > 0 { problems.to_string() } else { String::new() },
        ]
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    aligned(&["name", "image", "running", "states", "problems"], &rows)
}

pub(crate) fn app(a: &view::App) -> String {
    let mut text = Lines::default();
    text.fact("name", &a.name);
    text.fact("image", &a.image);
    let (generation, restart, purge) = (a.generation, a.restart, a.purge);
    text.fact(
        "counters",
        format_args!("generation {generation}, restart {restart}, purge {purge}"),
    );
    for flaw in &a.flaws {
        text.fact("problem", format_args!("{}: {}", flaw.field, flaw.text));
    }
    text.table(APPS, &a.on.iter().map(app_row).collect::<Vec<_>>());
    text.0
}

/// `running, error`: each state once.
fn states(on: &[view::AppOnDevice]) -> String {
    let all: std::collections::BTreeSet<&str> = on.iter().map(|o| o.state.as_str()).collect();
    or_dash(&all.into_iter().collect::<Vec<_>>().join(", "))
}

pub(crate) fn networks(all: &[view::Network]) -> String {
    let row = |n: &view::Network| {
        let online = n.on.iter().filter(|o| o.state == "online").count();
        let subnet = n.subnet.clone().unwrap_or_default();
        let count = format!("{online}/{}", n.on.len());
        vec![n.name.clone(), n.kind.clone(), or_dash(&subnet), count]
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    aligned(&["name", "type", "subnet", "online"], &rows)
}

pub(crate) fn network(n: &view::Network) -> String {
    let mut text = Lines::default();
    text.fact("name", &n.name);
    text.fact("type", &n.kind);
    text.fact("subnet", n.subnet.as_deref().unwrap_or_default());
    for flaw in &n.flaws {
        text.fact("problem", format_args!("{}: {}", flaw.field, flaw.text));
    }
    text.table(NETWORKS, &n.on.iter().map(network_row).collect::<Vec<_>>());
    for on in &n.on {
        for (mac, address) in &on.leases {
            text.line(format_args!("{}: {address} has {mac}", on.device));
        }
    }
    text.0
}

fn network_row(n: &view::NetworkOnDevice) -> Vec<String> {
    vec![
        n.network.clone(),
        n.device.clone(),
        n.state.clone(),
        n.gateway.map_or_else(|| "-".to_owned(), |g| g.to_string()),
        n.problems.join("; "),
    ]
}

pub(crate) fn objects(all: &[view::Object]) -> String {
    let row = |o: &view::Object| {
        let flaws: Vec<String> =
            o.flaws.iter().map(|f| format!("{}: {}", f.field, f.text)).collect();
        // Of groups, windows and alert rules no generations are kept.
        let counted = o.generation > 0;
        vec![
            o.key.kind.to_string(),
            o.key.name.clone(),
            if counted { o.generation.to_string() } else { "-".to_owned() },
            ago(counted.then_some(o.changed)),
            flaws.join("; "),
        ]
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    aligned(&["kind", "name", "generation", "changed", "problems"], &rows)
}

pub(crate) fn verdict(name: &str, verdict: &view::Verdict) -> String {
    let mut lines = Lines::default();
    let Some(at) = verdict.at else {
        lines.line(format_args!("{name} has proven nothing yet"));
        return lines.0;
    };
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let believed = if verdict.good { "believed" } else { "refused" };
    let summary = text(&verdict.details["summary"]);
    lines.line(format_args!("{believed} {}: {summary}", ago(Some(at))));
    let pcrs = verdict.details["findings"]["pcrs"].as_array().cloned().unwrap_or_default();
    let row = |p: &serde_json::Value| {
        let value: String = text(&p["value"]).chars().take(16).collect();
        vec![p["register"].to_string(), text(&p["standing"]), value, text(&p["text"])]
    };
    let rows: Vec<Vec<String>> = pcrs.iter().map(row).collect();
    lines.table(&["pcr", "standing", "value", "explained"], &rows);
    lines.0
}

pub(crate) fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}
