//! A new node: it is expected under a name, and its configuration goes onto a stick or disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Form, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::json;

use super::frame::{self, Page, when_if};
use super::{Caller, Trouble, html as page_of, objects, to};
use crate::fleet::{Fleet, How};
use crate::objects::{Key, Kind};
use crate::{access, conf, reports};

/// Files of a tar: its blocks (POSIX ustar).
const BLOCK: usize = 512;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct New {
    name: String,
    /// `soft` or `serial`.
    by: String,
    serial: String,
    labels: String,
}

pub(super) async fn page(caller: Caller) -> Result<Response, Trouble> {
    let new = New { by: "soft".to_owned(), ..New::default() };
    Ok(page_of(StatusCode::OK, form(&caller, &new, &Markup::default())))
}

fn form(who: &Caller, new: &New, said: &Markup) -> String {
    let words = "A node is expected under a name first. Then its configuration is written onto the \
                 stick or disk that it boots.";
    let head = frame::head(&[("/", "Fleet")], "Add a node", words, &Markup::default());
    let part = html! {
        (said)
        form.card method=[frame::acts(who).then_some("post")] action="/onboard" {
            div.field {
                label for="name" { "Name" }
                input #name name="name" value=(new.name) required maxlength="63" pattern="[a-z0-9]([a-z0-9\\-]*[a-z0-9])?" autocomplete="off" aria-describedby="name-hint";
                p.hint #name-hint { "Small letters, digits and hyphens, as berlin-gate-3" }
            }
            fieldset.field {
                legend { b { "How it is recognised when it comes" } }
                p { label { input type="radio" name="by" value="soft" checked[new.by != "serial"]; "By a secret number that only its configuration holds; it works once" } }
                p { label { input type="radio" name="by" value="serial" checked[new.by == "serial"]; "By the serial number of its hardware" } }
            }
            div.field {
                label for="serial" { "Serial number of the hardware" }
                input #serial name="serial" value=(new.serial) maxlength="128" autocomplete="off" aria-describedby="serial-hint";
                p.hint #serial-hint { "Only needed when it is recognised by it: as its firmware says (dmidecode -s system-serial-number)" }
            }
            @if frame::acts(who) { div.actions { button.first { "Add the node" } } }
            @else { p.note { "Adding a node needs the role operator." } }
        }
    };
    Page { who, title: "Add a node", way: "/onboard", head, live: None, part }.whole()
}

pub(super) async fn add(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
    Form(new): Form<New>,
) -> Result<Response, Trouble> {
    let name = new.name.trim();
    let serial = new.serial.trim();
    let wrong = |why: &str| {
        let said = html! { p.note.bad role="alert" { (why) } };
        Ok(page_of(StatusCode::UNPROCESSABLE_ENTITY, form(&caller, &new, &said)))
    };
    let spec = match (new.by.as_str(), serial) {
        ("serial", "") => {
            return wrong("Write the serial number of the hardware, or choose a secret number.");
        }
        ("serial", serial) => json!({"serial": serial}),
        _ => json!({"soft_serial": hex::encode(access::random::<12>()?)}),
    };
    let document = json!({"kind": "Device", "name": name, "spec": spec}).to_string();
    // A node of this name that is there already is not to be changed by a form for new ones.
    let expected = vec![(Key::new(Kind::Device, name), 0)];
    let how = How { expected, ..How::default() };
    match fleet.apply(&document, &how, &caller.name).await {
        Ok(_) => Ok(to(&format!("/onboard/{name}"))),
        Err(crate::fleet::FleetError::Overtaken { .. }) => {
            wrong(&format!("There is a node {name} already; choose another name."))
        }
        Err(e) => {
            let said = objects::refusal(e)?;
            Ok(page_of(StatusCode::UNPROCESSABLE_ENTITY, form(&caller, &new, &said)))
        }
    }
}

fn host(headers: &HeaderMap) -> &str {
    headers.get(header::HOST).and_then(|v| v.to_str().ok()).unwrap_or_default()
}

pub(super) async fn added(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    caller: Caller,
) -> Result<Response, Trouble> {
    let device = reports::device(&fleet, &name).await?.ok_or(Trouble::Missing)?;
    let name = &device.name;
    let files = "--file server --file root-certificate.pem --file onboard.cert.pem --file onboard.key.pem --file soft_serial";
    let now = fleet.now();
    let part = html! {
        @if device.registered.is_some() {
            p.note.good { b { "It has come. " } "It registered " (when_if(now, device.registered)) ". " a href={ "/devices/" (name) } { "Look at it" } }
        }
        section.card {
            h2 { "1. Get its configuration" }
            p.soft { "Five small files: whom to call, whom to trust, and what to register with. They hold a key; keep them as you keep a password." }
            @if !frame::acts(&caller) { p { "Getting it needs the role operator." } }
            @else { form method="post" action={ "/onboard/" (name) "/config.tar" } {
                div.field {
                    label for="server" { "Host and port under which the node reaches this controller" }
                    input #server name="server" value=(host(&headers)) required pattern="\\S+" autocomplete="off" aria-describedby="server-hint";
                    p.hint #server-hint { "Must be one of the names that Settings lists" }
                }
                button.first { "Download " (name) ".tar" }
            } }
        }
        section.card {
            h2 { "2. Put it onto an installer or a disk" }
            pre { code {
                "mkdir " (name) " && tar xf " (name) ".tar -C " (name) " && cd " (name) "\n"
                "eve build installer                # once, if there is none yet\n"
                "eve build config --in installer.raw " (files) "\n"
            } }
            p.soft { "Then write installer.raw onto a stick. The machine that boots it installs the node and switches itself off; from then on it starts by itself." }
        }
        section.card {
            h2 { "3. Switch it on" }
            p {
                @if device.soft_serial.is_empty() { "It registers with serial number " code { (device.serial) } }
                @else { "It registers with soft serial number " code { (device.soft_serial) } ", which then belongs to it alone" }
                ", and appears at its page: " a href={ "/devices/" (name) } { (name) } "."
            }
        }
    };
    let crumbs = [("/", "Fleet"), ("/onboard", "Add a node")];
    let title = format!("Configuration of {name}");
    let head = frame::head(&crumbs, &title, "", &Markup::default());
    let page = Page { who: &caller, title: &title, way: "/onboard", head, live: None, part };
    Ok(page_of(StatusCode::OK, page.whole()))
}

#[derive(Debug, Deserialize)]
pub(super) struct Server {
    server: String,
}

pub(super) async fn tar(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
    _: Caller,
    Form(Server { server }): Form<Server>,
) -> Result<Response, Trouble> {
    let server = server.trim();
    if server.is_empty()
        || server.len() > 255
        || server.contains(|c: char| c.is_whitespace() || c.is_control())
    {
        let why = format!(
            "{server:?} is no host and port; write controller.example or controller.example:8443."
        );
        return Err(Trouble::Refused(why));
    }
    let device =
        fleet.known().device_object(&name).map(|s| (s.object.key.name.clone(), s.object.uid));
    let (name, id) = device.ok_or(Trouble::Missing)?;
    let soft =
        fleet.look(|known| known.device(id).map(|d| d.soft_serial.clone())).unwrap_or_default();
    let files = conf(&fleet.data, server, &soft).map_err(|e| Trouble::Own(model::chain(&e)))?;
    let archive = archive(&files, fleet.now().0 / 1000);
    let headers = [
        (header::CONTENT_TYPE, "application/x-tar".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}.tar\"")),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    Ok((headers, archive).into_response())
}

/// Files as a tar (POSIX.1-2001, ustar): readable by their owner only. Names and sizes are our own
/// and small.
fn archive(files: &BTreeMap<String, Vec<u8>>, seconds: u64) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, bytes) in files {
        let mut head = Vec::with_capacity(BLOCK);
        let mut field = |text: String, width: usize| {
            let mut bytes = text.into_bytes();
            bytes.resize(width, 0);
            head.append(&mut bytes);
        };
        field(name.clone(), 100);
        field("0000600".to_owned(), 8);
        field("0000000".to_owned(), 8);
        field("0000000".to_owned(), 8);
        field(format!("{:011o}", bytes.len()), 12);
        field(format!("{seconds:011o}"), 12);
        // The sum is taken with spaces in its own place.
        field(" ".repeat(8), 8);
        field("0".to_owned(), 1);
        field(String::new(), 100);
        field("ustar\u{0}00".to_owned(), 8);
        field(String::new(), BLOCK - 265);
        let sum: u64 = head.iter().map(|b| u64::from(*b)).sum();
        head.splice(148..156, format!("{sum:06o}\u{0} ").into_bytes());
        out.extend_from_slice(&head);
        out.extend_from_slice(bytes);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
    }
    // Two empty blocks end it.
    out.resize(out.len() + 2 * BLOCK, 0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tars_are_made_of_whole_blocks_with_a_true_sum() {
        let files = BTreeMap::from([("server".to_owned(), b"a:1\n".to_vec())]);
        let tar = archive(&files, 1_000);
        assert_eq!(tar.len(), 4 * BLOCK);
        assert_eq!(&tar[..7], b"server\0");
        assert_eq!(&tar[257..265], b"ustar\x0000");
        assert_eq!(&tar[124..136], b"00000000004\0");
        let mut head = tar[..BLOCK].to_vec();
        let said = String::from_utf8(head[148..154].to_vec()).unwrap();
        head[148..156].copy_from_slice(b"        ");
        let sum: u64 = head.iter().map(|b| u64::from(*b)).sum();
        assert_eq!(u64::from_str_radix(&said, 8).unwrap(), sum);
        assert_eq!(&tar[BLOCK..BLOCK + 4], b"a:1\n");
    }
}
