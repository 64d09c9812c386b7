//! What all pages share: the frame with its ways, states and times in words. Everything that comes
//! from outside goes through `maud`, which escapes it in text and in attributes alike.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use model::UnixMillis;

use crate::access::{Caller, Role};
use crate::view::DeviceState;
use crate::words;

/// A node of the fleet, drawn by three boxes.
const SIGN: &str = r#"<svg viewBox="0 0 16 16" aria-hidden="true"><path fill="currentColor" d="M8 0 15 4v8l-7 4-7-4V4zm0 2.3L3 5.2v5.6l5 2.9 5-2.9V5.2zM8 5l2.6 1.5v3L8 11 5.4 9.5v-3z"/></svg>"#;

/// Where the pages of the frame's navigation are, and for whom.
const WAYS: [(&str, &str, Role); 14] = [
    ("/", "Fleet", Role::Viewer),
    ("/map", "Map", Role::Viewer),
    ("/alerts", "Alerts", Role::Viewer),
    ("/drift", "Drift", Role::Viewer),
    ("/apps", "Apps", Role::Viewer),
    ("/catalogue", "Catalogue", Role::Operator),
    ("/objects", "Objects", Role::Viewer),
    ("/rollouts", "Rollouts", Role::Viewer),
    ("/groups", "Groups and windows", Role::Viewer),
    ("/onboard", "Add a node", Role::Operator),
    ("/events", "Events", Role::Viewer),
    ("/audit", "Audit", Role::Admin),
    ("/users", "Users", Role::Admin),
    ("/settings", "Settings", Role::Viewer),
];

/// The ways of who looks: nobody is led where they are refused.
fn ways(who: &Caller) -> Vec<(&'static str, &'static str)> {
    if !who.projects.all() {
        return vec![("/account", "Your nodes")];
    }
    let open = WAYS.iter().filter(|(_, _, role)| who.role >= *role);
    open.map(|(to, name, _)| (*to, *name)).collect()
}

/// Whether somebody may change what all projects share.
pub(super) fn acts(who: &Caller) -> bool {
    who.role >= Role::Operator && who.projects.all()
}

/// A page as it is put together.
pub(super) struct Page<'a> {
    pub(super) who: &'a Caller,
    pub(super) title: &'a str,
    /// Which way of the navigation it belongs to.
    pub(super) way: &'a str,
    /// Above the live part; forms stand here, where nothing replaces them.
    pub(super) head: Markup,
    /// Where the live part is asked for. `None`: nothing here changes by itself.
    pub(super) live: Option<String>,
    pub(super) part: Markup,
}

fn document(title: &str, body: &Markup) -> String {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · EVE" }
                link rel="icon" href="/icon.svg" type="image/svg+xml";
                link rel="stylesheet" href="/style.css";
            }
            body { (body) }
        }
    }
    .into_string()
}

impl Page<'_> {
    pub(super) fn whole(&self) -> String {
        let body = html! {
            a.skip href="#main" { "To the content" }
            div.frame {
                header.side {
                    a.brand href="/" aria-label="EVE controller: fleet" { (PreEscaped(SIGN)) span { "EVE controller" } }
                    nav aria-label="Main" {
                        ul {
                            @for (to, name) in ways(self.who) {
                                li { a href=(to) aria-current=[(to == self.way).then_some("page")] { (name) } }
                            }
                        }
                    }
                    div.foot {
                        span #connection { "connecting" }
                        a href="/account" aria-current=[(self.way == "/account").then_some("page")] { "Account" }
                        form method="post" action="/logout" { button { "Log out" } }
                    }
                }
                main #main tabindex="-1" {
                    (self.head)
                    div #live data-path=[self.live.as_deref()] { (self.part) }
                    div.hidden #said role="status" aria-live="polite" {}
                }
            }
            script src="/live.js" defer {}
        };
        document(self.title, &body)
    }
}

/// A page that says one thing.
pub(super) fn message(title: &str, text: &str) -> String {
    let body = html! {
        main.door { div.card { h1 { (title) } p { (text) } a href="/" { "Back to the fleet" } } }
    };
    document(title, &body)
}

/// The icon of the pages.
pub(super) fn icon() -> String {
    SIGN.replace("<svg ", "<svg xmlns=\"http://www.w3.org/2000/svg\" ")
        .replace("currentColor", "#2f7fd0")
}

/// The top of a page: where it stands, its title, what can be done.
pub(super) fn head(crumbs: &[(&str, &str)], title: &str, words: &str, actions: &Markup) -> Markup {
    html! {
        div.head {
            div.grow {
                @if !crumbs.is_empty() {
                    nav.crumbs aria-label="Where this is" {
                        @for (to, name) in crumbs { a href=(to) { (name) } " / " }
                    }
                }
                h1 { (title) }
                @if !words.is_empty() { p { (words) } }
            }
            div.actions { (actions) }
        }
    }
}

/// How something is, at a glance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    Wait,
    Bad,
    Idle,
}

impl Tone {
    pub(super) fn class(self) -> &'static str {
        match self {
            Tone::Good => "good",
            Tone::Wait => "wait",
            Tone::Bad => "bad",
            Tone::Idle => "idle",
        }
    }
}

pub(super) fn state(tone: Tone, text: &str) -> Markup {
    html! { span class={ "state " (tone.class()) } { (text) } }
}

pub(super) fn tone_of(state: DeviceState) -> Tone {
    match state {
        DeviceState::Online => Tone::Good,
        DeviceState::Registered => Tone::Wait,
        DeviceState::Silent => Tone::Bad,
        DeviceState::Expected => Tone::Idle,
    }
}

/// Of an app's state in words: it runs, it is on its way, or it stands still for a reason.
pub(super) fn tone_of_app(state: &str, running: bool, problem: bool) -> Tone {
    match (running, problem, state) {
        (_, true, _) => Tone::Bad,
        (true, false, _) => Tone::Good,
        (false, false, "halted" | "installed") => Tone::Idle,
        (false, false, _) => Tone::Wait,
    }
}

/// When something was: how long ago in words, and to the second for who points at it.
pub(super) fn when(now: UnixMillis, at: UnixMillis) -> Markup {
    let exact = words::time(at);
    html! { time datetime=(exact) title=(exact) { (words::ago(now, at)) } }
}

/// The same, of what need not have been.
pub(super) fn when_if(now: UnixMillis, at: Option<UnixMillis>) -> Markup {
    match at {
        Some(at) => when(now, at),
        None => html! { span.soft { "never" } },
    }
}

/// What stands where nothing is: what it means and what to do.
pub(super) fn empty(title: &str, text: &str, way: Option<(&str, &str)>) -> Markup {
    html! {
        div.empty {
            b { (title) }
            (text)
            @if let Some((to, name)) = way { br; a.button href=(to) { (name) } }
        }
    }
}

/// A part of an address: what is no letter, digit or `-._~` is written in percent (RFC 3986).
pub(super) fn part_of_url(text: &str) -> String {
    text.bytes().fold(String::new(), |mut url, b| {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
            url.push(char::from(b));
        } else {
            url.push_str(&format!("%{b:02X}"));
        }
        url
    })
}

/// An address with the fields that say something.
pub(super) fn url(path: &str, fields: &[(&str, &str)]) -> String {
    let said = fields.iter().filter(|(_, value)| !value.is_empty());
    let query: Vec<String> =
        said.map(|(name, value)| format!("{name}={}", part_of_url(value))).collect();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{}", query.join("&")) }
}

/// A button that acts on one thing of many; the name of the thing is for who does not see where it
/// stands.
pub(super) fn press(action: &str, name: &str, about: &str) -> Markup {
    let risky = name == "Delete";
    html! {
        form.inline method="post" action=(action) {
            button.risky[risky] aria-label={ (name) " " (about) } { (name) }
        }
    }
}

/// Pages that belong together.
pub(super) fn tabs(label: &str, all: &[(&str, &str)], now: &str) -> Markup {
    html! {
        nav.tabs aria-label=(label) {
            @for (to, name) in all { a href=(to) aria-current=[(*to == now).then_some("page")] { (name) } }
        }
    }
}

/// A choice of a form.
pub(super) fn choice(
    id: &str,
    name: &str,
    label: &str,
    all: &[(String, String)],
    chosen: &str,
) -> Markup {
    html! {
        div {
            label for=(id) { (label) }
            select id=(id) name=(name) {
                @for (value, text) in all {
                    option value=(value) selected[value == chosen] { (text) }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_so_that_nothing_breaks_out() {
        assert_eq!(url("/", &[("q", "a b&c\"<"), ("state", "")]), "/?q=a%20b%26c%22%3C");
        assert_eq!(url("/x", &[("q", "")]), "/x");
    }

    #[test]
    fn what_comes_from_outside_is_escaped_in_text_and_attributes() {
        let evil = "\"><script>alert(1)</script>";
        let page = head(&[(evil, evil)], evil, evil, &state(Tone::Good, evil)).into_string();
        assert!(!page.contains("<script>"), "{page}");
        assert!(!page.contains("\"\">"), "{page}");
    }
}
