//! What `eve up` and `eve status` show.

use std::fmt::Write as _;
use std::time::Duration;

use controller::view;
use host::detached::Detached;
use model::Bytes;
use serde::Serialize;

use super::fleet::{self, Fleet};
use super::node;
use super::state::{Folder, Mark, State};
use crate::out::Seconds;
use crate::out::foreign::one_line;

/// The page has this long to answer.
const PAGE_LIMIT: Duration = Duration::from_secs(5);

/// How everything is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Summary {
    /// Whether controller and node run.
    pub up: bool,
    /// The app's page.
    pub page: String,
    /// Whether it answers.
    pub page_answers: bool,
    /// The controller's page. `None`: it does not answer.
    pub web: Option<String>,
    /// What to log in there with.
    pub token: Option<String>,
    /// The node, as the controller knows it.
    pub node: Option<view::Device>,
    /// What runs the guest, and why.
    pub accel: String,
    /// The image the node runs.
    pub image: String,
    /// The size of its slot image.
    pub slot: Option<Bytes>,
    /// The serial log.
    pub serial_log: String,
    /// The controller's log.
    pub controller_log: String,
    /// The boot, as seen from outside, in milliseconds since power-on.
    pub timeline: Vec<Mark>,
}

/// Looks at everything now.
pub(super) fn look(state: &State, folder: &Folder) -> Summary {
    let fleet = Fleet::open(folder).ok().filter(|_| state.is_up());
    let page = node::page(state);
    let node_lives = state.node.as_ref().is_some_and(Detached::is_alive);
    let answers = node_lives && page.get("/healthz", PAGE_LIMIT).is_ok_and(|p| p.status == 200);
    Summary {
        up: state.is_up(),
        page: format!("http://localhost:{}/", state.page_port),
        page_answers: answers,
        web: fleet.as_ref().map(|f| f.url().to_owned()),
        token: fleet::token(folder),
        node: fleet.as_ref().and_then(|f| f.node().ok()),
        accel: format!("{}: {}", state.accel, state.accel_why),
        image: state.image.display().to_string(),
        slot: state.slot_bytes.map(Bytes),
        serial_log: folder.serial_log().display().to_string(),
        controller_log: folder.controller_log().display().to_string(),
        timeline: state.timeline.clone(),
    }
}

impl Summary {
    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let mut row = |name: &str, value: &str| {
            let _ = writeln!(text, "{name:12}{}", one_line(value));
        };
        let does = if self.page_answers { "answers" } else { "does not answer" };
        row("page", &format!("{}  {does}", self.page));
        match &self.web {
            Some(url) => row("controller", url),
            None => row("controller", "does not answer"),
        }
        if let Some(token) = self.token.as_ref().filter(|_| self.web.is_some()) {
            row("log in with", token);
        }
        if let Some(node) = &self.node {
            row("node", &format!("{}, {} ({})", node.name, node.state.name(), node.id));
            for app in &node.apps {
                let problems = app.problems.iter().map(|p| format!(": {p}")).collect::<String>();
                row("app", &format!("{}, {}{problems}", app.app, app.state));
            }
            for problem in &node.problems {
                row("problem", problem);
            }
        }
        row("runs with", &self.accel);
        row("image", &self.image);
        if let Some(slot) = self.slot {
            row("slot image", &slot.to_string());
        }
        row("serial log", &self.serial_log);
        row("log", &self.controller_log);
        text.push_str(&self.timeline_text());
        text.push_str(&self.memory_text());
        text.trim_end().to_owned()
    }

    fn timeline_text(&self) -> String {
        let mut text = String::new();
        if !self.timeline.is_empty() {
            text.push_str("\nboot, since power-on\n");
        }
        for Mark { what, at_ms } in &self.timeline {
            let _ = writeln!(
                text,
                "  {:24}{:>10}",
                what,
                Seconds(Duration::from_millis(*at_ms)).to_string()
            );
        }
        let inside = self.node.as_ref().and_then(|n| n.boot.as_ref()).map(|b| &b.timeline);
        if let Some(inside) = inside.filter(|t| !t.is_empty()) {
            text.push_str("as the node tells it, since the kernel started\n");
            for (what, at_ms) in inside {
                let _ = writeln!(
                    text,
                    "  {:24}{:>10}",
                    what,
                    Seconds(Duration::from_millis(*at_ms)).to_string()
                );
            }
        }
        text
    }

    fn memory_text(&self) -> String {
        let Some(usage) = self.node.as_ref().and_then(|n| n.usage.as_ref()) else {
            return String::new();
        };
        let mut text = String::new();
        if !usage.services.is_empty() {
            let _ = writeln!(text, "\nmemory of the node's services: {}", usage.services_total());
        }
        let mut services: Vec<_> = usage.services.iter().collect();
        services.sort_by_key(|(name, bytes)| (std::cmp::Reverse(bytes.0), (*name).clone()));
        for (name, bytes) in services {
            let _ = writeln!(text, "  {:24}{:>10}", name, bytes.to_string());
        }
        if usage.memory_total.0 > 0 {
            let _ = writeln!(
                text,
                "all of the node: {} of {} used",
                usage.memory_used, usage.memory_total
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::up::state::tests::example;

    #[test]
    fn a_summary_of_what_is_down_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let text = look(&example(), &folder).text();
        let first: Vec<&str> = text.lines().take(2).collect();
        assert_eq!(
            first,
            ["page        http://localhost:8080/  does not answer", "controller  does not answer"]
        );
        assert!(text.contains("slot image  60.0 MiB\n"), "{text}");
        assert!(
            text.ends_with("boot, since power-on\n  kernel                       2.5 s"),
            "{text}"
        );
    }
}
