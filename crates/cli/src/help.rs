//! The list of all commands, by what they are for.

use clap::Command;
use clap::builder::styling::Styles;

/// Every command stands in one of these; a test looks.
const GROUPS: &[(&str, &[&str])] = &[
    (
        "Make images",
        &[
            "build", "cache", "compose", "convert", "describe", "matrix", "mkfs", "pkg", "slot",
            "version",
        ],
    ),
    ("Look into images", &["compare", "explain", "sbom", "sizes", "sources"]),
    ("Put them onto machines", &["install", "run", "up", "down", "status"]),
    (
        "Run a controller, and talk to one",
        &["controller", "backup", "login", "logout", "context", "whoami", "user", "token", "audit"],
    ),
    (
        "Work with a fleet",
        &[
            "fleet", "device", "app", "network", "image", "apply", "delete", "objects", "history",
            "rollback", "drift", "logs", "events", "alert", "group", "rollout", "window",
            "schedule",
        ],
    ),
    (
        "Objects that apps and nodes are made of",
        &[
            "base-os",
            "datastore",
            "enrolment",
            "hardware",
            "patch",
            "project",
            "secret",
            "template",
            "volume",
        ],
    ),
    ("Else", &["completion"]),
];

/// The commands with a help that lists them by [`GROUPS`]: a list of fifty is read by nobody.
pub(crate) fn grouped(eve: Command) -> Command {
    let styles = Styles::styled();
    let (header, literal) = (styles.get_header(), styles.get_literal());
    let longest = eve.get_subcommands().map(|c| c.get_name().len()).max().unwrap_or_default();
    let mut list = String::new();
    for (title, names) in GROUPS {
        list += &format!("\n{header}{title}:{header:#}\n");
        for command in names.iter().filter_map(|name| eve.find_subcommand(name)) {
            let (name, about) = (command.get_name(), command.get_about());
            let about = about.map(ToString::to_string).unwrap_or_default();
            list += &format!("  {literal}{name:<longest$}{literal:#}  {about}\n");
        }
    }
    let help = "`eve help device add` says more of a command";
    eve.help_template(format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n{list}\n\
         {header}Options:{header:#}\n{{options}}\n\n{help}\n"
    ))
}

/// `eve device list` of `eve list device` and of `eve devices list`: what somebody means whose first
/// word is no command.
pub(crate) fn swapped(eve: &Command, words: &[String]) -> Option<String> {
    let (first, rest) = words.split_first()?;
    let (second, others) = match rest.split_first() {
        Some((second, others)) => (Some(second.as_str()), others),
        None => (None, rest),
    };
    let has = |noun: &str, verb: &str| {
        eve.find_subcommand(noun).is_some_and(|c| c.find_subcommand(verb).is_some())
    };
    let single = |word: &str| word.strip_suffix('s').unwrap_or(word).to_owned();
    let mut meant = match second.map(single) {
        Some(noun) if has(&noun, first) => vec!["eve".to_owned(), noun, first.clone()],
        _ if eve.find_subcommand(first).is_some() => return None,
        _ if eve.find_subcommand(single(first)).is_some() => {
            let mut meant = vec!["eve".to_owned(), single(first)];
            meant.extend(second.map(str::to_owned));
            meant
        }
        _ => return None,
    };
    meant.extend(others.iter().cloned());
    Some(meant.join(" "))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory;

    use super::*;
    use crate::Eve;

    #[test]
    fn every_command_stands_in_one_group_on_one_line() {
        let listed: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| *names).copied().collect();
        let eve = Eve::command();
        let there: BTreeSet<&str> = eve.get_subcommands().map(Command::get_name).collect();
        assert_eq!(listed.iter().copied().collect::<BTreeSet<_>>(), there);
        assert_eq!(listed.len(), there.len(), "none stands in two");
        let help = crate::taught().render_help().to_string();
        for name in there {
            let line = help.lines().find(|l| l.trim_start().split(' ').next() == Some(name));
            let line = line.unwrap_or_else(|| panic!("{name} is not in {help}"));
            assert!(line.chars().count() <= 80 && line.len() > 20, "{line}");
        }
        assert!(help.contains("\nLook into images:\n  compare "), "{help}");
    }
    #[test]
    fn words_in_another_order_are_understood() {
        let eve = Eve::command();
        for (line, meant) in [
            ("list device", Some("eve device list")),
            ("list devices", Some("eve device list")),
            ("show device edge-1 --json", Some("eve device show edge-1 --json")),
            ("push image web.tar", Some("eve image push web.tar")),
            ("devices", Some("eve device")),
            ("apps show web", Some("eve app show web")),
            ("show slot live.raw", Some("eve slot show live.raw")),
            ("device shwo edge-1", None),
            ("list", None),
            ("list nothing", None),
            ("s", None),
            ("", None),
        ] {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            assert_eq!(swapped(&eve, &words).as_deref(), meant, "{line}");
        }
        assert_eq!(swapped(&eve, &[]), None);
    }
}
