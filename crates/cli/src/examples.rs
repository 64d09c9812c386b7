//! Examples for the help of the commands that drive a controller: a line each as one would type it.
//! A test reads every one of them as the command line does.

use clap::Command;

/// By command.
const EXAMPLES: &[(&str, &[&str])] = &[
    (
        "device",
        &[
            "eve device list --watch",
            "eve device list --match 'site=berlin, !lab'",
            "eve device add edge-1 --serial SN-1 --onboard-cert onboard.cert.pem",
            "eve device show edge-1 -o yaml",
            "eve device diff edge-1 -f change.yml",
            "eve device config edge-1 > edge-1.json",
        ],
    ),
    ("fleet", &["eve fleet", "eve fleet --watch=10"]),
    ("app", &["eve app list", "eve app show hello --watch", "eve app restart hello"]),
    ("network", &["eve network list", "eve network show default -o json"]),
    ("delete", &["eve delete app hello", "eve delete network lab --force"]),
    ("objects", &["eve objects", "eve objects app hello -o yaml > hello.yml"]),
    ("logs", &["eve logs edge-1 --follow", "eve logs edge-1 hello -n 500"]),
    ("events", &["eve events --follow"]),
    ("drift", &["eve drift", "eve drift edge-1 --watch=10"]),
    ("history", &["eve history app hello", "eve history app hello 42"]),
    ("rollback", &["eve rollback app hello 42"]),
    ("backup", &["eve backup -o fleet.tar.zst", "eve controller restore fleet.tar.zst --data new"]),
    ("volume", &["eve volume list", "eve volume show data -o yaml"]),
    (
        "image",
        &[
            "eve image push debian.qcow2",
            "eve image push web.tar.gz",
            "eve image push ./layout web:1.0",
            "docker save web:1.0 | eve image push -",
            "eve image files",
        ],
    ),
    ("datastore", &["eve datastore list", "eve datastore delete mirror"]),
    ("hardware", &["eve hardware show nuc-7 -o yaml"]),
    ("base-os", &["eve base-os list"]),
    ("secret", &["eve secret set wifi < password.txt", "eve secret list"]),
    ("enrolment", &["eve enrolment show lan"]),
    ("patch", &["eve patch list --watch"]),
    ("project", &["eve project list"]),
    ("template", &["eve template show kiosk -o yaml"]),
    (
        "alert",
        &[
            "eve alert list --all",
            "eve alert ack 7",
            "eve alert rule set disk --when disk_full --percent 80",
            "eve alert rule set dead --when silent --minutes 15 --url https://hooks.example/eve",
        ],
    ),
    (
        "login",
        &[
            "eve login https://controller.example:8443 --user ann",
            "eve login https://controller.example:8443 --with-token < token.txt",
        ],
    ),
    ("logout", &["eve logout"]),
    ("whoami", &["eve whoami"]),
    ("context", &["eve context", "eve context controller.example"]),
    ("user", &["eve user set ann --role operator --project berlin", "eve user link ann"]),
    ("token", &["eve token create ci --role viewer --hours 24", "eve token list"]),
    ("audit", &["eve audit --author ann --hours 24", "eve audit -o json -n 1000"]),
    (
        "rollout",
        &[
            "eve rollout start web-2 -f web.yml --waves 1,10%,50% --max-failures 2 --rollback",
            "eve rollout show web-2 --watch",
            "eve rollout abort web-2",
        ],
    ),
    (
        "group",
        &[
            "eve group set berlin 'site=berlin, !lab' --note 'all in Berlin'",
            "eve group show berlin",
        ],
    ),
    (
        "window",
        &["eve window set night 'site=berlin' --from 02:00 --minutes 120 --zone Europe/Berlin"],
    ),
    (
        "schedule",
        &[
            "eve schedule add web-2 -f web.yml --at +90m",
            "eve schedule add web-2 -f site/ --at 2026-12-24T02:00:00+01:00",
            "eve schedule list",
        ],
    ),
    (
        "controller",
        &[
            "eve controller serve --name controller.example",
            "eve controller serve --keep-logs 7,16384 --keep-info 90",
            "eve controller link",
            "eve controller backup -o fleet.tar.zst",
        ],
    ),
];

/// The commands with their examples.
pub(crate) fn taught(mut eve: Command) -> Command {
    for (noun, lines) in EXAMPLES {
        let text: String = lines.iter().map(|line| format!("\n  {line}")).collect();
        eve = eve.mut_subcommand(noun, |c| c.after_help(format!("Examples:{text}")));
    }
    eve
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory;

    use super::*;
    use crate::Eve;

    /// Words as a shell makes them, as far as the examples need it: single quotes, and what comes
    /// from or goes to files, or comes from another program.
    fn words(line: &str) -> Vec<String> {
        let line = line.rsplit('|').next().unwrap_or_default();
        let line = line.split(['<', '>']).next().unwrap_or_default();
        let quoted = line.split('\'').enumerate();
        let mut words = Vec::new();
        for (n, part) in quoted {
            match n % 2 {
                0 => words.extend(part.split_whitespace().map(str::to_owned)),
                _ => words.push(part.to_owned()),
            }
        }
        words
    }

    #[test]
    fn every_example_is_a_command() {
        for line in EXAMPLES.iter().flat_map(|(_, lines)| *lines) {
            let read = Eve::command().try_get_matches_from(words(line));
            assert!(read.is_ok(), "{line}: {}", read.unwrap_err());
        }
    }

    #[test]
    fn every_command_that_talks_to_a_controller_has_an_example() {
        let taught: BTreeSet<&str> = EXAMPLES.iter().map(|(noun, _)| *noun).collect();
        let eve = Eve::command();
        let talks = |c: &&Command| c.get_arguments().any(|a| a.get_id() == "controller");
        for command in eve.get_subcommands().filter(talks) {
            let name = command.get_name();
            assert!(name == "apply" || taught.contains(name), "{name} has no example");
        }
        let text = super::taught(eve).find_subcommand_mut("drift").unwrap().render_help();
        assert!(text.to_string().contains("Examples:\n  eve drift\n"), "{text}");
    }

    #[test]
    fn completion_knows_the_nouns() {
        for shell in [clap_complete::Shell::Bash, clap_complete::Shell::Zsh] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Eve::command(), "eve", &mut script);
            let script = String::from_utf8(script).unwrap();
            for (noun, _) in EXAMPLES {
                assert!(script.contains(noun), "{shell}: {noun}");
            }
        }
    }
}
