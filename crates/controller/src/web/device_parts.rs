//! What the pages of a node are put together of.

use maud::{Markup, html};
use model::UnixMillis;

use super::frame::{Tone, acts, empty, state, tone_of_app, url, when, when_if};
use crate::access::{Caller, Role};
use crate::attest::policy::Standing;
use crate::attest::{Findings, Judgement};
use crate::db::{DeviceRow, Verdict, Version};
use crate::fleet::Known;
use crate::logs::Found;
use crate::objects::{Key, Kind, Spec};
use crate::view::{Device, DeviceState};

/// Of kinds of certificates as the EVE API numbers them (certs.proto, ZCertType).
const CERT_KINDS: [(i64, &str); 5] = [
    (1, "controller signing"),
    (10, "onboarding"),
    (20, "restricted signing (attestation key)"),
    (21, "endorsement (of the TPM's maker)"),
    (22, "key exchange (for secrets)"),
];

/// What can be done to a node; each asks before it acts.
pub(super) fn actions(device: &Device, who: &Caller) -> Markup {
    let at = format!("/devices/{}", device.name);
    html! {
        @if who.projects.all() { a.button href={ "/objects/Device/" (device.name) } { @if acts(who) { "Edit" } @else { "Its object" } } }
        @if who.role >= Role::Operator { details.menu {
            summary { "Act" }
            div {
                form method="post" action={ (at) "/restart" } {
                    p { "Its apps stop while it reboots." }
                    button { "Reboot " (device.name) }
                }
                form method="post" action={ (at) "/shutdown" } {
                    p { "It stays off until somebody switches it on by hand." }
                    button.risky { "Power off " (device.name) }
                }
                form method="post" action={ (at) "/quarantine" } {
                    label for="reason" { "Quarantine" }
                    p.hint { "It gets no config and no secrets until it is let out. Say why; leave it empty to let it out." }
                    p { input #reason name="reason" maxlength="300" placeholder="disk was stolen"; }
                    button { "Set quarantine" }
                }
                @if acts(who) { form method="post" action={ (at) "/delete" } {
                    label for="confirm" { "Delete" }
                    p.hint { "It is told that it is no longer known. Write its name to confirm." }
                    p { input #confirm name="name" placeholder=(device.name) autocomplete="off" required; }
                    button.risky { "Delete the node" }
                } }
            }
        } }
    }
}

pub(super) fn problems(device: &Device, quarantine: Option<&str>) -> Markup {
    html! {
        @if let Some(why) = quarantine {
            p.note.wait { b { "In quarantine: " } (why) ". It gets no config until it is let out." }
        }
        @for asked in &device.asked {
            p.note.wait { b { "Asked for: " } (asked) "." }
        }
        @if !device.problems.is_empty() {
            div.note.bad {
                b { "What is wrong" }
                ul { @for problem in &device.problems { li { (problem) } } }
            }
        }
    }
}

pub(super) fn how_to_come(device: &Device, who: &Caller) -> Markup {
    html! {
        div.note {
            b { "Waiting for it. " }
            "It registers with "
            @if !device.serial.is_empty() { "serial number " code { (device.serial) } " " }
            @if !device.soft_serial.is_empty() { "soft serial number " code { (device.soft_serial) } " " }
            "as soon as it is switched on with this controller's configuration. "
            @if acts(who) { a href={ "/onboard/" (device.name) } { "Get its configuration" } }
        }
    }
}

pub(super) fn apps(device: &Device, who: &Caller, now: UnixMillis) -> Markup {
    html! {
        section.card {
            h2 { "Apps" }
            @if device.apps.is_empty() {
                (empty("No app runs here", "Deploy one of the catalogue, or write an app whose device is this one.", acts(who).then_some(("/catalogue", "Catalogue"))))
            } @else {
                div.scroll { table.stack {
                    thead { tr {
                        th scope="col" { "App" } th scope="col" { "State" } th scope="col" { "Since" }
                        th scope="col" { "Reached by" } th scope="col" { span.hidden { "Logs" } }
                    } }
                    tbody {
                        @for app in &device.apps {
                            tr {
                                td data-of="" { @if who.projects.all() { a.name href={ "/apps/" (app.app) } { (app.app) } } @else { b { (app.app) } } }
                                td data-of="State" {
                                    (state(tone_of_app(&app.state, app.running, !app.problems.is_empty()), &app.state))
                                    @for problem in &app.problems { div.why { (problem) } }
                                }
                                td.tight data-of="Since" { @if let Some(at) = app.since { (when(now, at)) } }
                                td data-of="Reached by" {
                                    @for port in &app.ports { span.label { (port) } }
                                    @for address in &app.addresses { span.soft.mono { (address) } " " }
                                }
                                td.tight data-of="" { a href=(url(&format!("/devices/{}/logs", device.name), &[("app", &app.app)])) { "Logs" } }
                            }
                        }
                    }
                } }
            }
        }
    }
}

pub(super) fn pending(device: &Device) -> Markup {
    html! {
        @if !device.pending.is_empty() {
            section.card {
                h2 { "On the way" }
                div.scroll { table {
                    thead { tr { th scope="col" { "What" } th scope="col" { "State" } th scope="col" { "Progress" } } }
                    tbody {
                        @for what in &device.pending {
                            tr {
                                td { (what.kind) " " b { (what.name) } @if let Some(why) = &what.problem { div.why { (why) } } }
                                td.tight { (what.state) }
                                td.tight { meter min="0" max="100" value=(what.progress.min(100)) aria-label={ (what.name) ": progress" } {} " " (what.progress) " %" }
                            }
                        }
                    }
                } }
            }
        }
    }
}

pub(super) fn facts(device: &Device, now: UnixMillis) -> Markup {
    html! {
        section.card {
            h2 { "About" }
            dl {
                dt { "Id" } dd { code { (device.id) } }
                @if !device.hardware.is_empty() { dt { "Hardware" } dd { (device.hardware) } }
                @if !device.serial.is_empty() { dt { "Serial number" } dd { code { (device.serial) } } }
                @if !device.soft_serial.is_empty() { dt { "Soft serial" } dd { code { (device.soft_serial) } } }
                @if !device.labels.is_empty() {
                    dt { "Labels" } dd { @for (key, value) in &device.labels { span.label { (key) "=" (value) } " " } }
                }
                dt { "Registered" } dd { (when_if(now, device.registered)) }
                @if device.state != DeviceState::Expected {
                    dt { "Config in force" }
                    dd { @if let Some(at) = device.config_in_force { "of " (when(now, at)) } @else { span.soft { "it has not said" } } }
                }
            }
        }
    }
}

pub(super) fn ports(device: &Device) -> Markup {
    html! {
        section.card {
            h2 { "Ports" }
            @if device.ports.is_empty() { p.soft { "It has not told of its ports yet." } }
            @else {
                div.scroll { table.stack {
                    thead { tr { th scope="col" { "Port" } th scope="col" { "Link" } th scope="col" { "Addresses" } th scope="col" { "MAC" } } }
                    tbody {
                        @for port in &device.ports {
                            tr {
                                td data-of="" { b { (port.name) } @if let Some(why) = &port.problem { div.why { (why) } } }
                                td.tight data-of="Link" { @if port.up { (state(Tone::Good, "up")) } @else { (state(Tone::Bad, "down")) } }
                                td data-of="Addresses" { @for address in &port.addresses { div.mono { (address) } } @if port.addresses.is_empty() { span.soft { "none" } } }
                                td.tight.mono.soft data-of="MAC" { (port.mac) }
                            }
                        }
                    }
                } }
            }
        }
    }
}

pub(super) fn networks(device: &Device) -> Markup {
    html! {
        @if !device.networks.is_empty() {
            section.card {
                h2 { "Networks" }
                div.scroll { table.stack {
                    thead { tr { th scope="col" { "Network" } th scope="col" { "State" } th scope="col" { "Its address" } th scope="col" { "Addresses given" } } }
                    tbody {
                        @for network in &device.networks {
                            tr {
                                td data-of="" { b { (network.network) } }
                                td.tight data-of="State" {
                                    @let tone = match network.state.as_str() { "online" => Tone::Good, "error" => Tone::Bad, _ => Tone::Wait };
                                    (state(tone, &network.state))
                                    @for why in &network.problems { div.why { (why) } }
                                }
                                td.mono data-of="Address" { @if let Some(gateway) = network.gateway { (gateway) } }
                                td.mono data-of="Given" { @for (mac, address) in &network.leases { div { (address) " " span.soft { (mac) } } } }
                            }
                        }
                    }
                } }
            }
        }
    }
}

pub(super) fn usage(device: &Device, now: UnixMillis) -> Markup {
    html! {
        @if let Some(usage) = &device.usage {
            section.card {
                h2 { "Memory by what uses it" }
                p.soft { (usage.memory_used) " of " (usage.memory_total) " in use, " (when(now, usage.at)) "; its services take " (usage.services_total()) "." }
                @let mut parts: Vec<(&String, &model::Bytes, &str)> = usage.apps.iter().map(|(n, b)| (n, b, "app")).chain(usage.services.iter().map(|(n, b)| (n, b, "service"))).collect();
                @let () = parts.sort_by_key(|(_, b, _)| std::cmp::Reverse(b.0));
                div.scroll { table {
                    thead { tr { th scope="col" { "What" } th scope="col" { span.hidden { "Share" } } th.number scope="col" { "Memory" } } }
                    tbody {
                        @for (name, bytes, kind) in parts.iter().take(12) {
                            tr {
                                td { (name) " " span.soft { (kind) } }
                                td { meter min="0" max=(usage.memory_total.0.max(1)) value=(bytes.0) aria-label={ (name) ": memory" } {} }
                                td.number.tight { (bytes) }
                            }
                        }
                    }
                } }
            }
        }
    }
}

pub(super) fn boot(device: &Device, now: UnixMillis) -> Markup {
    html! {
        @if let Some(boot) = &device.boot {
            section.card {
                h2 { "Last boot" }
                dl {
                    @if let Some(at) = boot.at { dt { "When" } dd { (when(now, at)) } }
                    dt { "Why" } dd { @if boot.reason.is_empty() { "not said" } @else { (boot.reason) } }
                    dt { "Boots so far" } dd { (boot.count) }
                }
                @if !boot.timeline.is_empty() {
                    h3 { "What came when" }
                    div.scroll { table { tbody {
                        @for (what, ms) in &boot.timeline { tr { td { (what) } td.number.tight { (ms / 1000) "." (format!("{:03}", ms % 1000)) " s" } } }
                    } } }
                }
            }
        }
    }
}

pub(super) fn log(found: &Found, words: &str) -> Markup {
    let lines = &found.lines;
    let reach = if found.whole {
        "Lines are searched as far back as they are kept."
    } else {
        "The newest log files were searched; there are more."
    };
    html! {
        div.card {
            @if lines.is_empty() {
                @if words.is_empty() { (empty("No line yet", "Nodes send their logs every minute or so; lines appear here by themselves.", None)) }
                @else { (empty("No line holds these words", reach, None)) }
            } @else {
                @if !found.whole { p.soft { (reach) } }
                div.log.tail {
                    @for line in lines {
                        div class=(line.severity.to_lowercase()) {
                            @let exact = crate::words::time(line.at);
                            time datetime=(exact) title=(exact) { (exact.replace('T', " ").trim_end_matches('Z')) }
                            span { (line.severity) }
                            span.soft title=(line.source) { (line.source) }
                            span { (marked(&line.content, words)) }
                        }
                    }
                }
            }
        }
    }
}

/// A text with the words that were searched made visible.
fn marked(text: &str, words: &str) -> Markup {
    let (small, wanted) = (text.to_lowercase(), words.to_lowercase());
    // Where small letters take other bytes than large ones, places in both do not agree.
    let at =
        (!wanted.is_empty() && small.len() == text.len()).then(|| small.find(&wanted)).flatten();
    let cut = at.and_then(|at| {
        let end = at + wanted.len();
        Some((text.get(..at)?, text.get(at..end)?, text.get(end..)?))
    });
    html! {
        @if let Some((before, found, after)) = cut { (before) mark { (found) } (after) } @else { (text) }
    }
}

/// The objects that show in what a node is told: its own, its apps, their networks.
pub(super) fn objects_of(device: &Device, known: &Known) -> Vec<Key> {
    let mut keys = vec![Key::new(Kind::Device, &device.name)];
    keys.extend(device.apps.iter().map(|a| Key::new(Kind::App, &a.app)));
    keys.extend(device.networks.iter().map(|n| Key::new(Kind::Network, &n.network)));
    keys.retain(|k| known.stored.contains_key(k));
    keys
}

pub(super) fn standing(device: &Device, made: Option<UnixMillis>, now: UnixMillis) -> Markup {
    html! {
        @match (made, device.config_in_force) {
            (None, _) => p.note { "It has not asked for its config yet." },
            (Some(made), Some(force)) if force >= made => p.note.good { "The newest config, made " (when(now, made)) ", is in force." },
            (Some(made), Some(force)) => p.note.wait {
                b { "A change waits. " } "The config made " (when(now, made)) " is not in force yet; that of " (when(now, force)) " is. The node takes it the next time it asks"
                @if device.state == DeviceState::Silent { ", and it has not been heard of " (when_if(now, device.seen)) }
                "."
            },
            (Some(made), None) => p.note.wait { "A config was made " (when(now, made)) "; the node has not said which one is in force." },
        }
    }
}

pub(super) fn told(device: &Device, known: &Known) -> Markup {
    let keys = objects_of(device, known);
    html! {
        section.card {
            h2 { "What it is told is made of" }
            div.scroll { table {
                thead { tr { th scope="col" { "Object" } th scope="col" { "Says" } th.number scope="col" { "Version" } } }
                tbody {
                    @for key in &keys {
                        @if let Some(stored) = known.stored.get(key) {
                            tr {
                                td.tight { a href={ "/objects/" (key.kind) "/" (key.name) } { (key) } }
                                td { (summary(&stored.object.spec)) }
                                td.number { (stored.object.generation) }
                            }
                        }
                    }
                }
            } }
        }
    }
}

/// What an object says, in a few words.
pub(super) fn summary(spec: &Spec) -> String {
    match spec {
        Spec::Device(d) => {
            let ports = match d.ports.len() {
                0 => "every port by DHCP".to_owned(),
                n => format!("{n} ports"),
            };
            format!("{ports}, {} settings", d.settings.len())
        }
        Spec::App(a) => {
            let mut on = a.device.names.join(", ").replace('*', "every node");
            if let Some(query) = &a.device.matching {
                let and = if on.is_empty() { "" } else { " and " };
                on.push_str(&format!("{and}nodes with {query}"));
            }
            if on.is_empty() {
                "no node".clone_into(&mut on);
            }
            format!("runs {} on {on}", a.image)
        }
        Spec::Network(n) => match n.subnet {
            Some(subnet) => format!("{subnet}, out by {}", n.port),
            None => format!("bridged to {}", n.port),
        },
        Spec::Image(i) => i.path.clone(),
        Spec::Datastore(d) => d.host.clone(),
        Spec::Volume(v) => v.size.map_or_else(String::new, |s| s.0.to_string()),
        Spec::Hardware(h) => format!("{} {}", h.manufacturer, h.product),
        Spec::BaseOs(b) => format!("version {} from {}", b.version, b.image),
        // Nothing of it is ever shown.
        Spec::Secret(_) => String::new(),
        Spec::Enrolment(e) => e.url.clone(),
        Spec::Patch(p) => format!("version {} for {}", p.version, p.apps.join(", ")),
        Spec::Project(p) => p.description.clone(),
        Spec::Template(t) => format!("{} variables", t.variables.len()),
        Spec::Group(g) => g.query.clone(),
        Spec::Window(w) => w.devices.clone(),
        Spec::AlertRule(r) => r.devices.clone(),
    }
}

pub(super) fn history(history: &[(Key, Version)], now: UnixMillis) -> Markup {
    html! {
        section.card {
            h2 { "Changes of these objects" }
            @if history.is_empty() { p.soft { "None since histories are kept." } }
            @else {
                div.scroll { table {
                    thead { tr { th scope="col" { "When" } th scope="col" { "Object" } th scope="col" { "By" } th scope="col" { span.hidden { "Compare" } } } }
                    tbody {
                        @for (key, version) in history {
                            tr {
                                td.tight { (when(now, version.at)) }
                                td { (key) @if version.spec.is_none() { " " (state(Tone::Idle, "deleted")) } @else { span.soft { " version " (version.generation) } } }
                                td.tight { (version.author) }
                                td.tight { a href=(url(&format!("/objects/{}/{}/history", key.kind, key.name), &[("new", &version.revision.to_string())])) { "What changed" } }
                            }
                        }
                    }
                } }
            }
        }
    }
}

pub(super) fn certificates(row: Option<&DeviceRow>, kinds: &[i64], now: UnixMillis) -> Markup {
    let digest = row.and_then(|r| r.cert_hash.as_ref()).map(hex::encode);
    html! {
        section.card {
            h2 { "Certificates" }
            dl {
                dt { "Device certificate" }
                dd { @if let Some(digest) = &digest { "SHA-256 " code { (digest) } } @else { span.soft { "none: it has not registered" } } }
                @if let Some(at) = row.and_then(|r| r.registered) { dt { "Registered" } dd { (when(now, at)) } }
                dt { "Further ones" }
                dd {
                    @if kinds.is_empty() { span.soft { "none given" } }
                    @for kind in kinds {
                        @let name = CERT_KINDS.iter().find(|(n, _)| n == kind).map_or("of a kind we do not know", |(_, name)| name);
                        div { (name) " " span.soft { "(kind " (kind) ")" } }
                    }
                }
            }
        }
    }
}

/// What a node's last quote proved; `accept` is where a form says that this state is to be trusted.
pub(super) fn verdict(verdict: Option<&Verdict>, accept: Option<&str>, now: UnixMillis) -> Markup {
    let judged = verdict.map(|v| serde_json::from_str::<Judgement>(&v.verdict));
    html! {
        section.card {
            h2 { "Attestation" }
            @if let Some(verdict) = verdict {
                p {
                    @if verdict.good { (state(Tone::Good, "trusted")) } @else { (state(Tone::Bad, "not trusted")) }
                    " judged " (when(now, verdict.at)) "."
                }
                @match &judged {
                    Some(Ok(judged)) => {
                        p { (judged.summary) "." }
                        (findings(&judged.findings))
                        @if let Some(accept) = accept.filter(|_| judged.proven) {
                            form method="post" action=(accept) {
                                p.hint { "Accept it if you know why the machine is as it is now, as after an update of its firmware. From then on it must prove these values, and no others." }
                                div.actions { button { "Accept this state" } }
                            }
                        }
                    },
                    _ => p.soft { "Another version of the controller judged it; the next quote tells more." },
                }
            } @else {
                p.soft {
                    "It has given no quote. Nodes without a TPM give none; set " code { "attestation: true" }
                    " at its object to hold its config back until a quote was good."
                }
            }
        }
    }
}

fn findings(findings: &Findings) -> Markup {
    html! {
        @if !findings.against.is_empty() { div.note.bad { b { "Why it is refused" } ul { @for why in &findings.against { li { (why) } } } } }
        @if !findings.notes.is_empty() { div.note { b { "Odd, but it does not matter by the policy" } ul { @for note in &findings.notes { li { (note) } } } } }
        @if !findings.pcrs.is_empty() {
            div.scroll { table.stack {
                caption.hidden { "Registers of the TPM" }
                thead { tr { th scope="col" { "Register" } th scope="col" { "For" } th scope="col" { "Standing" } th scope="col" { "What it says" } th scope="col" { "Value" } } }
                tbody {
                    @for pcr in &findings.pcrs {
                        tr {
                            td.tight data-of="Register" { (pcr.register) }
                            td data-of="For" { (pcr.about) }
                            td.tight data-of="Standing" {
                                @match pcr.standing {
                                    Standing::Allowed => (state(Tone::Good, "as accepted")),
                                    Standing::Forbidden => (state(Tone::Bad, "another value")),
                                    Standing::Unjudged => (state(Tone::Idle, "not judged")),
                                }
                            }
                            td data-of="Says" { (pcr.text) }
                            td data-of="Value" { code { (pcr.value) } }
                        }
                    }
                }
            } }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use super::*;
    use crate::attest::policy::{Logged, Pcr};

    #[test]
    fn what_was_searched_is_marked_and_the_rest_escaped() {
        assert_eq!(marked("a <B> c", "<b>").into_string(), "a <mark>&lt;B&gt;</mark> c");
        assert_eq!(marked("<x>", "").into_string(), "&lt;x&gt;");
        // Its small letters take more bytes than the large one.
        assert_eq!(marked("İx", "x").into_string(), "İx");
    }

    #[test]
    fn a_verdict_is_explained_register_by_register_and_escaped() {
        let digest = model::Digest::from_str(&format!("sha256:{}", "ab".repeat(32))).unwrap();
        let pcr = Pcr {
            register: 7,
            about: "Secure Boot".into(),
            value: digest,
            standing: Standing::Forbidden,
            allowed: Vec::new(),
            log: Logged::Missing,
            text: "<script> was measured".into(),
            events: Vec::new(),
        };
        let findings = Findings { pcrs: vec![pcr], ..Findings::default() };
        let judged = serde_json::json!({"good": false, "proven": true, "summary": "no", "findings": findings});
        let row = Verdict { at: UnixMillis(5), good: false, verdict: judged.to_string() };
        let text = verdict(Some(&row), Some("/x/accept"), UnixMillis(9)).into_string();
        for part in [
            "Secure Boot",
            "another value",
            "&lt;script&gt;",
            "action=\"/x/accept\"",
            "not trusted",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("<script>"), "{text}");
        let looks = verdict(Some(&row), None, UnixMillis(9)).into_string();
        assert!(!looks.contains("<form"), "{looks}");
        let other = Verdict { verdict: "[]".into(), ..row };
        let text = verdict(Some(&other), Some("/x/accept"), UnixMillis(9)).into_string();
        assert!(text.contains("Another version") && !text.contains("<form"), "{text}");
    }
}
