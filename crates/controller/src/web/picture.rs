//! A node's network as a picture: ports at the left, networks between, apps at the right; lines
//! where traffic goes, and on them the rules that let it through.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::fleet::one;
use super::frame::{Tone, empty, tone_of_app};
use crate::fleet::Known;
use crate::objects::{Key, Kind, Outbound, Spec};
use crate::view::{AppOnDevice, Device};

const BOX: (f64, f64) = (210.0, 58.0);
const STEP: f64 = 96.0;
const COLUMNS: [f64; 3] = [10.0, 345.0, 680.0];
/// Longer words do not fit into a box.
const LETTERS: usize = 26;

struct Node {
    title: String,
    line: String,
    tone: Tone,
    y: f64,
}

fn short(text: &str) -> String {
    if text.chars().count() <= LETTERS {
        return text.to_owned();
    }
    text.chars().take(LETTERS - 1).chain(std::iter::once('…')).collect()
}

/// So many boxes above each other, the middle of all at the same height.
fn column(nodes: Vec<(String, String, Tone)>, tallest: usize) -> Vec<Node> {
    let count = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
    let above = (count(tallest) - count(nodes.len())) * STEP / 2.0;
    let node = |(n, (title, line, tone)): (usize, (String, String, Tone))| Node {
        title,
        line,
        tone,
        y: 34.0 + above + count(n) * STEP,
    };
    nodes.into_iter().enumerate().map(node).collect()
}

/// Which networks an app is in, and what may go in and out.
fn uses(known: &Known, app: &str) -> (Vec<String>, String) {
    let stored = known.stored.get(&Key::new(Kind::App, app));
    let Some(Spec::App(spec)) = stored.map(|s| &s.object.spec) else {
        return (Vec::new(), String::new());
    };
    let networks = spec.network.iter().map(|n| n.name().to_owned()).collect();
    let out = match spec.outbound {
        Outbound::Allow => "reaches everything",
        Outbound::Deny => "reaches nothing",
    };
    (networks, out.to_owned())
}

fn way_out(known: &Known, network: &str) -> String {
    let stored = known.stored.get(&Key::new(Kind::Network, network));
    match stored.map(|s| &s.object.spec) {
        Some(Spec::Network(spec)) => spec.port.clone(),
        _ => "uplink".to_owned(),
    }
}

/// The picture, or what to do when there is nothing to draw.
pub(super) fn picture(device: &Device, known: &Known) -> Markup {
    if device.ports.is_empty() && device.networks.is_empty() {
        let text = "Its ports appear when it tells of them, networks when an app of it uses one.";
        return empty("Nothing to draw yet", text, None);
    }
    let tallest = device.ports.len().max(device.networks.len()).max(device.apps.len()).max(1);
    let ports = device.ports.iter().map(|p| {
        let address = p.addresses.first().cloned().unwrap_or_else(|| "no address".to_owned());
        let tone = match (p.up, &p.problem) {
            (true, None) => Tone::Good,
            (true, Some(_)) => Tone::Wait,
            (false, _) => Tone::Bad,
        };
        (p.name.clone(), address, tone)
    });
    let networks = device.networks.iter().map(|n| {
        let gateway = n.gateway.map_or_else(|| "bridged".to_owned(), |g| g.to_string());
        let tone = match n.state.as_str() {
            "online" => Tone::Good,
            "error" => Tone::Bad,
            _ => Tone::Wait,
        };
        (n.network.clone(), format!("{gateway}, {}", n.state), tone)
    });
    // Beside the networks they are in: lines cross less.
    let mut in_order: Vec<&AppOnDevice> = device.apps.iter().collect();
    let place = |a: &AppOnDevice| {
        let first = uses(known, &a.app).0.into_iter().next();
        first.and_then(|n| device.networks.iter().position(|o| o.network == n))
    };
    in_order.sort_by_key(|a| place(a));
    let apps = in_order.iter().map(|a| {
        let address = a.addresses.first().cloned().unwrap_or_else(|| a.state.clone());
        let tone = tone_of_app(&a.state, a.running, !a.problems.is_empty());
        (a.app.clone(), address, tone)
    });
    let (ports, networks, apps) = (
        column(ports.collect(), tallest),
        column(networks.collect(), tallest),
        column(apps.collect(), tallest),
    );
    let at: BTreeMap<&str, &Node> = networks.iter().map(|n| (n.title.as_str(), n)).collect();
    let height = 40.0 + STEP * f64::from(u32::try_from(tallest).unwrap_or(u32::MAX));
    let middle = BOX.1 / 2.0;
    let curve = |from: (f64, f64), to: (f64, f64)| {
        let half = f64::midpoint(from.0, to.0);
        format!(
            "M{} {}C{} {} {} {} {} {}",
            one(from.0),
            one(from.1),
            one(half),
            one(from.1),
            one(half),
            one(to.1),
            one(to.0),
            one(to.1)
        )
    };
    let words = format!(
        "{} ports, {} networks, {} apps; the tables below say the same",
        ports.len(),
        networks.len(),
        apps.len()
    );
    html! {
        svg.picture viewBox={ "0 0 900 " (one(height)) } role="img" aria-label=(words) {
            text.soft x=(COLUMNS[0]) y="18" { "Ports" }
            text.soft x=(COLUMNS[1]) y="18" { "Networks" }
            text.soft x=(COLUMNS[2]) y="18" { "Apps" }
            @for network in &networks {
                @let out = way_out(known, &network.title);
                @for port in ports.iter().filter(|p| leads_out(&out, &p.title)) {
                    path.link d=(curve((COLUMNS[0] + BOX.0, port.y + middle), (COLUMNS[1], network.y + middle))) {}
                }
                @if out != "uplink" && !ports.iter().any(|p| p.title == out) {
                    text.soft x=(COLUMNS[1] - 92.0) y=(one(network.y + middle)) { "out by: " (short(&out)) }
                }
            }
            @for (app, said) in apps.iter().zip(&in_order) {
                @let (into, out) = uses(known, &app.title);
                @for (n, network) in into.iter().filter_map(|n| at.get(n.as_str())).enumerate() {
                    @let rules = n == 0 && !said.ports.is_empty();
                    path class={ "link" @if rules { " rule" } } d=(curve((COLUMNS[1] + BOX.0, network.y + middle), (COLUMNS[2], app.y + middle))) {}
                }
                text.soft x=(COLUMNS[2] + 2.0) y=(one(app.y + BOX.1 + 14.0)) {
                    @if !said.ports.is_empty() { (short(&said.ports.join(", "))) " lead to it; " } (out)
                }
            }
            @for (nodes, x) in [(&ports, COLUMNS[0]), (&networks, COLUMNS[1]), (&apps, COLUMNS[2])] {
                @for node in nodes {
                    rect class={ "box is-" (node.tone.class()) } x=(x) y=(one(node.y)) width=(BOX.0) height=(BOX.1) rx="8" {}
                    text.title x=(x + 12.0) y=(one(node.y + 24.0)) { (short(&node.title)) }
                    text.soft x=(x + 12.0) y=(one(node.y + 43.0)) { (short(&node.line)) }
                }
            }
        }
    }
}

/// Whether a network goes out by a port: by name, or by any that leads to the outside.
fn leads_out(way: &str, port: &str) -> bool {
    matches!(way, "uplink" | "freeuplink") || way == port
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_words_are_cut_at_letters() {
        assert_eq!(short("eth0"), "eth0");
        let long = "ä".repeat(40);
        assert_eq!(short(&long).chars().count(), LETTERS);
    }

    #[test]
    fn networks_go_out_by_the_ports_they_name() {
        assert!(leads_out("uplink", "eth0") && leads_out("eth1", "eth1"));
        assert!(!leads_out("eth1", "eth0") && !leads_out("none", "eth0"));
    }
}
