//! Pages as text. Every value goes through [`E`], which escapes it: what nodes say is not trusted.

use std::fmt::{self, Display, Write};
use std::time::Duration;

use model::{Bytes, UnixMillis};

use crate::db::{Event, LogRow};
use crate::view::{App, AppOnDevice, Device, DeviceState, NetworkOnDevice, Pending, Usage};
use crate::words;

/// A text inside HTML.
struct E<T>(T);

impl<T: Display> Display for E<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.to_string().chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// A page that grows. Writing to a `String` does not fail.
#[derive(Default)]
struct Page(String);

impl Page {
    fn put(&mut self, text: impl Display) {
        let _ = write!(self.0, "{text}");
    }
}

macro_rules! put {
    ($page:expr, $($text:tt)*) => { $page.put(format_args!($($text)*)) };
}

fn frame(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{} · EVE</title><link rel=\"stylesheet\" href=\"/style.css\"></head>\
         <body>{body}</body></html>",
        E(title)
    )
}

/// A whole page around its live part.
pub(super) fn whole(title: &str, path: &str, part: &str) -> String {
    let body = format!(
        "<header><a class=\"brand\" href=\"/\">EVE <span>controller</span></a>\
         <span class=\"space\"></span><span id=\"connection\">connecting</span>\
         <a href=\"/account\">Account</a>\
         <form method=\"post\" action=\"/logout\"><button>Log out</button></form></header>\
         <main id=\"live\" data-path=\"{}\">{part}</main><script src=\"/live.js\"></script>",
        E(path)
    );
    frame(title, &body)
}

/// A page that says one thing.
pub(super) fn message(title: &str, text: &str) -> String {
    let body = format!(
        "<div class=\"login\"><div class=\"card\"><h1>{}</h1><p>{}</p><a href=\"/\">Back</a></div></div>",
        E(title),
        E(text)
    );
    frame(title, &body)
}

/// All nodes, all apps, what happened.
pub(super) fn overview(
    devices: &[Device],
    apps: &[App],
    events: &[Event],
    now: UnixMillis,
) -> String {
    let mut page = Page::default();
    let online = devices.iter().filter(|d| d.state == DeviceState::Online).count();
    let placed: usize = apps.iter().map(|a| a.on.len()).sum();
    let running: usize = apps.iter().flat_map(|a| &a.on).filter(|a| a.running).count();
    let problems: usize = devices.iter().map(|d| d.problems.len()).sum::<usize>()
        + apps.iter().flat_map(|a| &a.on).map(|a| a.problems.len()).sum::<usize>();
    page.put("<h1>Fleet</h1><div class=\"tiles\">");
    for (number, what) in [
        (format!("{online} / {}", devices.len()), "nodes online"),
        (format!("{running} / {placed}"), "apps running"),
        (problems.to_string(), "problems"),
    ] {
        put!(page, "<div class=\"tile\"><b>{number}</b><span>{what}</span></div>");
    }
    page.put("</div><section class=\"card\"><h2>Nodes</h2>");
    if devices.is_empty() {
        page.put(
            "<p class=\"empty\">None yet. Apply a Device object, or let any node in with \
             <code>eve device allow '*'</code>.</p>",
        );
    } else {
        page.put(
            "<table><tr><th>Name<th>State<th>Last seen<th>Version<th>Addresses<th>Apps\
             <th>Services' memory</tr>",
        );
        for device in devices {
            device_row(&mut page, device, now);
        }
        page.put("</table>");
    }
    page.put("</section><section class=\"card\"><h2>Apps</h2>");
    apps_table(&mut page, apps.iter().flat_map(|a| &a.on), now, true);
    for app in apps.iter().filter(|a| a.on.is_empty()) {
        put!(page, "<p class=\"empty\">{} is on no node.</p>", E(&app.name));
    }
    page.put("</section><section class=\"card\"><h2>Events</h2>");
    if events.is_empty() {
        page.put("<p class=\"empty\">Nothing happened yet.</p>");
    } else {
        page.put("<table>");
        for event in events.iter().rev() {
            let device = event
                .device
                .and_then(|id| devices.iter().find(|d| d.id == id))
                .filter(|d| event.object != format!("Device {}", d.name))
                .map(|d| format!(" on {}", d.name))
                .unwrap_or_default();
            put!(
                page,
                "<tr><td class=\"soft tight\" title=\"{}\">{}<td class=\"tight\">{}{}\
                 <td class=\"wide\">{}</tr>",
                words::time(event.at),
                words::ago(now, event.at),
                E(&event.object),
                E(device),
                E(&event.text)
            );
        }
        page.put("</table>");
    }
    page.put("</section>");
    page.0
}

fn device_row(page: &mut Page, device: &Device, now: UnixMillis) {
    let running = device.apps.iter().filter(|a| a.running).count();
    let addresses: Vec<&str> = device
        .ports
        .iter()
        .flat_map(|p| &p.addresses)
        .map(String::as_str)
        .filter(|a| !a.starts_with("fe80"))
        .collect();
    let memory = device.usage.as_ref().map(|u| u.services_total().to_string());
    put!(
        page,
        "<tr><td><a href=\"/devices/{0}\">{0}</a>{1}<td>{2}<td class=\"soft tight\">{3}\
         <td class=\"mono\">{4}<td class=\"mono\">{5}<td class=\"tight\">{running} / {6}\
         <td class=\"tight\">{7}</tr>",
        E(&device.name),
        problems(&device.problems),
        device_state(device.state),
        ago(now, device.seen),
        E(dash(&device.version)),
        E(dash(&addresses.join(" "))),
        device.apps.len(),
        memory.as_deref().unwrap_or("–"),
    );
}

fn apps_table<'a>(
    page: &mut Page,
    apps: impl Iterator<Item = &'a AppOnDevice>,
    now: UnixMillis,
    with_device: bool,
) {
    let apps: Vec<&AppOnDevice> = apps.collect();
    if apps.is_empty() {
        return page
            .put("<p class=\"empty\">None. Apply an App object with <code>eve apply</code>.</p>");
    }
    put!(
        page,
        "<table><tr><th>App{}<th>State<th>Since<th>Ports<th>Addresses<th></tr>",
        if with_device { "<th>Node" } else { "" }
    );
    for app in apps {
        let device = if with_device {
            format!("<td><a href=\"/devices/{0}\">{0}</a>", E(&app.device))
        } else {
            String::new()
        };
        put!(
            page,
            "<tr><td><a href=\"/devices/{}/logs?app={}\" title=\"its log\">{}</a>{}{device}\
             <td>{}<td class=\"soft tight\">{}<td class=\"mono\">{}<td class=\"mono\">{}\
             <td class=\"tight\"><form method=\"post\" action=\"/apps/{}/restart\">\
             <button>Restart</button></form></tr>",
            E(&app.device),
            E(&app.app),
            E(&app.app),
            problems(&app.problems),
            app_state(app),
            ago(now, app.since),
            E(dash(&app.ports.join(" "))),
            E(dash(&app.addresses.join(" "))),
            E(&app.app),
        );
    }
    page.put("</table>");
}

/// One node.
pub(super) fn device(device: &Device, now: UnixMillis) -> String {
    let mut page = Page::default();
    put!(
        page,
        "<h1>{0} {1}<form method=\"post\" action=\"/devices/{0}/restart\"><button>Reboot</button>\
         </form><a class=\"soft\" href=\"/devices/{0}/logs\"><small>Log</small></a></h1>",
        E(&device.name),
        device_state(device.state)
    );
    if !device.problems.is_empty() {
        put!(
            page,
            "<section class=\"card\"><h2>Problems</h2>{}</section>",
            problems(&device.problems)
        );
    }
    page.put("<div class=\"pair\">");
    facts(&mut page, device, now);
    memory(&mut page, device.usage.as_ref());
    page.put("</div>");
    timeline(&mut page, device.boot.as_ref().map_or(&[], |b| &b.timeline));
    page.put("<section class=\"card\"><h2>Apps</h2>");
    apps_table(&mut page, device.apps.iter(), now, false);
    page.put("</section>");
    networks_table(&mut page, &device.networks);
    pending_table(&mut page, &device.pending);
    page.0
}

/// What a node is and where it stands.
fn facts(page: &mut Page, device: &Device, now: UnixMillis) {
    page.put("<section class=\"card\"><h2>Node</h2><dl>");
    let boot = device.boot.clone().unwrap_or_default();
    for (name, value) in [
        ("Last seen", ago(now, device.seen)),
        ("Id", device.id.to_string()),
        ("Serial", device.serial.clone()),
        ("Soft serial", device.soft_serial.clone()),
        ("Hardware", device.hardware.clone()),
        ("Version", [device.version.as_str(), &device.slot].join(" ").trim().to_owned()),
        ("Config in force", device.config_in_force.map(words::time).unwrap_or_default()),
        (
            "Boot",
            if boot.count > 0 {
                format!("number {}, {}", boot.count, ago(now, boot.at))
            } else {
                String::new()
            },
        ),
        ("Reason", boot.reason.clone()),
    ] {
        if !value.is_empty() {
            put!(page, "<dt>{name}<dd>{}", E(value));
        }
    }
    for port in &device.ports {
        let state = if port.up { port.addresses.join(" ") } else { "down".to_owned() };
        put!(page, "<dt>Port {}<dd><span class=\"mono\">{}</span>", E(&port.name), E(dash(&state)));
        page.put(problems(port.problem.as_slice()));
    }
    page.put("</dl></section>");
}

fn memory(page: &mut Page, usage: Option<&Usage>) {
    page.put("<section class=\"card\"><h2>Memory</h2>");
    match usage {
        None => page.put("<p class=\"empty\">The node has not said yet.</p>"),
        Some(usage) => {
            put!(
                page,
                "<p>{} of {} in use; services {}</p><div class=\"bar\">",
                usage.memory_used,
                usage.memory_total,
                usage.services_total()
            );
            let most = usage.services.values().max().copied().unwrap_or(Bytes(1)).0.max(1);
            for (name, bytes) in &usage.services {
                put!(
                    page,
                    "<span>{}</span><meter max=\"{most}\" value=\"{}\"></meter><span>{bytes}</span>",
                    E(name),
                    bytes.0
                );
            }
            page.put("</div>");
        }
    }
    page.put("</section>");
}

/// What happened when since the node's kernel started.
fn timeline(page: &mut Page, timeline: &[(String, u64)]) {
    if timeline.is_empty() {
        return;
    }
    page.put("<section class=\"card\"><h2>This boot</h2><ul class=\"line\">");
    for (what, ms) in timeline {
        let at = Duration::from_millis(*ms).as_secs_f64();
        put!(page, "<li><b>{at:.1} s</b><span>{}</span></li>", E(what));
    }
    page.put("</ul></section>");
}

fn networks_table(page: &mut Page, networks: &[NetworkOnDevice]) {
    if networks.is_empty() {
        return;
    }
    page.put(
        "<section class=\"card\"><h2>Networks</h2><table>\
         <tr><th>Name<th>State<th>Gateway<th>Leases</tr>",
    );
    for network in networks {
        let leases: Vec<&str> = network.leases.iter().map(|(_, a)| a.as_str()).collect();
        let gateway = network.gateway.map(|g| g.to_string()).unwrap_or_default();
        put!(
            page,
            "<tr><td>{}{}<td>{}<td class=\"mono\">{}<td class=\"mono\">{}</tr>",
            E(&network.network),
            problems(&network.problems),
            state(&network.state),
            E(dash(&gateway)),
            E(dash(&leases.join(" "))),
        );
    }
    page.put("</table></section>");
}

/// What is not there yet.
fn pending_table(page: &mut Page, pending: &[Pending]) {
    if pending.is_empty() {
        return;
    }
    page.put("<section class=\"card\"><h2>On the way</h2><table>");
    for pending in pending {
        put!(
            page,
            "<tr><td>{} {}{}<td>{}<td class=\"tight\"><meter max=\"100\" value=\"{}\"></meter></tr>",
            E(&pending.kind),
            E(&pending.name),
            problems(pending.problem.as_slice()),
            state(&pending.state),
            pending.progress.min(100)
        );
    }
    page.put("</table></section>");
}

/// The newest lines of a log.
pub(super) fn logs(device: &Device, app: Option<&str>, lines: &[LogRow]) -> String {
    let mut page = Page::default();
    put!(
        page,
        "<h1>{} <a class=\"soft\" href=\"/devices/{1}\"><small>{1}</small></a></h1>\
         <section class=\"card\">",
        app.map_or_else(|| "Log of the node".to_owned(), |a| format!("Log of {}", E(a))),
        E(&device.name)
    );
    if lines.is_empty() {
        page.put("<p class=\"empty\">No line has come yet.</p>");
    }
    page.put("<div class=\"log\">");
    for line in lines {
        put!(
            page,
            "<div><span class=\"soft\">{}</span><span class=\"{1}\">{1}</span>\
             <span class=\"soft\">{2}</span><span>{3}</span></div>",
            words::time(line.at),
            E(&line.severity),
            E(&line.source),
            E(&line.content)
        );
    }
    page.put("</div></section>");
    page.0
}

fn device_state(state: DeviceState) -> String {
    let class = match state {
        DeviceState::Online => "good",
        DeviceState::Expected | DeviceState::Registered => "wait",
        DeviceState::Silent => "bad",
    };
    format!("<span class=\"state {class}\">{}</span>", state.name())
}

fn app_state(app: &AppOnDevice) -> String {
    if app.running && !app.problems.is_empty() {
        format!("<span class=\"state wait\">{}</span>", E(&app.state))
    } else {
        state(&app.state)
    }
}

fn state(text: &str) -> String {
    let class = match text {
        "running" | "online" => "good",
        "error" => "bad",
        _ => "wait",
    };
    format!("<span class=\"state {class}\">{}</span>", E(text))
}

fn problems(all: &[String]) -> String {
    all.iter().map(|p| format!("<p class=\"problem\">{}</p>", E(p))).collect()
}

fn ago(now: UnixMillis, at: Option<UnixMillis>) -> String {
    at.map_or_else(|| "–".to_owned(), |at| words::ago(now, at))
}

fn dash(text: &str) -> &str {
    if text.is_empty() { "–" } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nodes_say_stays_text() {
        let line = LogRow {
            id: 1,
            at: UnixMillis(0),
            severity: "\" onclick=x".to_owned(),
            source: "<b>".to_owned(),
            content: "<script>alert('x')</script> & more".to_owned(),
        };
        let device = Device {
            id: model::DeviceId::new(uuid::Uuid::nil()),
            name: "edge".to_owned(),
            state: DeviceState::Online,
            seen: None,
            registered: None,
            serial: String::new(),
            soft_serial: String::new(),
            version: String::new(),
            slot: String::new(),
            config_in_force: None,
            hardware: String::new(),
            boot: None,
            ports: Vec::new(),
            usage: None,
            apps: Vec::new(),
            networks: Vec::new(),
            pending: Vec::new(),
            problems: vec!["<img>".to_owned()],
        };
        let text = logs(&device, None, &[line]) + &super::device(&device, UnixMillis(0));
        for foreign in ["<script>", "<b>", "<img>", "\" onclick"] {
            assert!(!text.contains(foreign), "{foreign} in {text}");
        }
        assert!(text.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; more"));
    }
}
