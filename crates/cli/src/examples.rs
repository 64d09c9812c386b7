//! Examples for the help of the commands: a line each as one would type it. A test reads every one of
//! them as the command line does.

use clap::Command;

/// By command.
const EXAMPLES: &[(&str, &[&str])] = &[
    (
        "build",
        &[
            "eve build live --set soft_serial=12345",
            "eve build live --profile eve-2026 --format vdi,vhdx",
            "eve build installer --arch arm64",
            "eve build config --in installer.raw --set server=controller.example",
        ],
    ),
    ("cache", &["eve cache ls", "eve cache export eve/crun -o crun.tar"]),
    ("cache ls", &["eve cache ls", "eve cache ls --cache ~/.linuxkit/cache"]),
    ("cache import", &["eve cache import kernel.tar", "docker save me/web:1 | eve cache import -"]),
    ("cache export", &["eve cache export eve/crun -o crun.tar"]),
    ("compose", &["eve compose -o rootfs.tar images/rootfs.yml.in"]),
    (
        "convert",
        &[
            "eve convert --to vdi live.raw live.vdi",
            "eve convert --to qcow2 --size 32G live.raw live.qcow2",
        ],
    ),
    ("matrix", &["eve matrix", "eve matrix --arch arm64 --hv kvm"]),
    ("version", &["eve version", "eve version --full --arch arm64"]),
    ("mkfs", &["eve mkfs squashfs --comp xz -o rootfs.squashfs < rootfs.tar"]),
    ("pkg", &["eve pkg build", "eve pkg show crun"]),
    ("pkg build", &["eve pkg build", "eve pkg build crun --locked"]),
    ("pkg tag", &["eve pkg tag crun"]),
    ("pkg ls", &["eve pkg ls"]),
    ("pkg show", &["eve pkg show crun"]),
    ("pkg lock", &["eve pkg lock", "eve pkg lock --update crun"]),
    ("slot", &["eve slot show live.raw"]),
    ("slot show", &["eve slot show live.raw", "eve slot show /dev/sdX --json"]),
    ("slot set", &["eve slot set live.raw IMGB=active IMGA=unused"]),
    ("sbom", &["eve sbom -o sbom.spdx.json", "eve sbom live.raw --format cyclonedx"]),
    (
        "sources",
        &["eve sources -o manifest.csv", "eve sources --check sbom.json --manifest manifest.csv"],
    ),
    ("compare", &["eve compare dist/amd64/1.0.0/live.raw dist/amd64/current/live.raw"]),
    ("explain", &["eve explain /usr/bin/crun", "eve explain live.raw /etc/passwd"]),
    ("sizes", &["eve sizes --parts", "eve sizes live.raw --since dist/amd64/1.0.0"]),
    ("down", &["eve down", "eve down --purge"]),
    ("status", &["eve status", "eve status --json"]),
    (
        "controller",
        &[
            "eve controller serve --name controller.example",
            "eve controller link",
            "eve controller backup -o fleet.tar.zst",
        ],
    ),
    (
        "controller serve",
        &[
            "eve controller serve --name controller.example",
            "eve controller serve --name localhost --listen 127.0.0.1:8443",
            "eve controller serve --database postgres://eve:word@db.example/eve",
            "eve controller serve --keep-logs 7,16384 --keep-info 90",
        ],
    ),
    ("controller conf", &["eve controller conf --server controller.example:8443 --out conf"]),
    ("controller token", &["eve controller token"]),
    ("controller link", &["eve controller link", "eve controller link ann"]),
    ("controller backup", &["eve controller backup -o fleet.tar.zst"]),
    ("controller restore", &["eve controller restore fleet.tar.zst --data new"]),
    ("backup", &["eve backup -o fleet.tar.zst", "eve controller restore fleet.tar.zst --data new"]),
    (
        "device",
        &[
            "eve device list --watch",
            "eve device add edge-1 --serial SN-1 --onboard-cert onboard.cert.pem",
            "eve device show edge-1 -o yaml",
            "eve device diff edge-1 -f change.yml",
            "eve device config edge-1 > edge-1.json",
        ],
    ),
    ("device list", &["eve device list --watch", "eve device list --match 'site=berlin, !lab'"]),
    ("device show", &["eve device show edge-1", "eve device show SN-1 --json"]),
    (
        "device add",
        &[
            "eve device add --serial SN-1",
            "eve device add edge-1 --serial SN-1 --onboard-cert onboard.cert.pem",
            "eve device add edge-2 --cert device.cert.pem",
        ],
    ),
    ("device restart", &["eve device restart edge-1"]),
    ("device shutdown", &["eve device shutdown edge-1"]),
    ("device attest", &["eve device attest edge-1"]),
    ("device verdict", &["eve device verdict edge-1"]),
    ("device accept", &["eve device accept edge-1"]),
    ("device resend", &["eve device resend edge-1"]),
    ("device quarantine", &["eve device quarantine edge-1 --reason 'stolen from Berlin'"]),
    ("device release", &["eve device release edge-1"]),
    (
        "device config",
        &[
            "eve device config edge-1 > edge-1.json",
            "eve device config edge-1 -f edge-1.json",
            "eve device config edge-1 --compiled",
        ],
    ),
    ("device drift", &["eve device drift", "eve device drift edge-1 --watch=10"]),
    ("device diff", &["eve device diff edge-1 -f change.yml"]),
    ("device allow", &["eve device allow SN-1", "eve device allow '*'"]),
    ("device disallow", &["eve device disallow SN-1"]),
    ("fleet", &["eve fleet", "eve fleet --watch=10"]),
    ("app", &["eve app list", "eve app show hello --watch", "eve app restart hello"]),
    ("app list", &["eve app list", "eve app list --json"]),
    ("app show", &["eve app show hello --watch"]),
    ("app restart", &["eve app restart hello"]),
    ("app purge", &["eve app purge hello"]),
    ("network", &["eve network list", "eve network show default -o json"]),
    ("network list", &["eve network list"]),
    ("network show", &["eve network show default -o json"]),
    ("delete", &["eve delete app hello", "eve delete network lab --force"]),
    ("objects", &["eve objects", "eve objects app hello -o yaml > hello.yml"]),
    ("logs", &["eve logs edge-1 --follow", "eve logs edge-1 hello -n 500"]),
    ("events", &["eve events --follow"]),
    ("drift", &["eve drift", "eve drift edge-1 --watch=10"]),
    ("history", &["eve history app hello", "eve history app hello 42"]),
    ("rollback", &["eve rollback app hello 42"]),
    (
        "image",
        &[
            "eve image push debian.qcow2",
            "eve image push web.tar.gz",
            "eve image tags",
            "eve image files",
        ],
    ),
    ("image list", &["eve image list"]),
    ("image show", &["eve image show debian -o yaml"]),
    ("image delete", &["eve image delete debian"]),
    (
        "image push",
        &[
            "eve image push debian.qcow2",
            "eve image push web.tar.gz",
            "eve image push ./layout web:1.0",
            "docker save web:1.0 | eve image push -",
        ],
    ),
    ("image files", &["eve image files"]),
    ("image tags", &["eve image tags"]),
    ("volume", &["eve volume list", "eve volume show data -o yaml"]),
    ("volume list", &["eve volume list"]),
    ("volume show", &["eve volume show data -o yaml"]),
    ("volume delete", &["eve volume delete data"]),
    ("datastore", &["eve datastore list", "eve datastore delete mirror"]),
    ("datastore list", &["eve datastore list"]),
    ("datastore show", &["eve datastore show mirror -o yaml"]),
    ("datastore delete", &["eve datastore delete mirror"]),
    ("hardware", &["eve hardware show nuc-7 -o yaml"]),
    ("hardware list", &["eve hardware list"]),
    ("hardware show", &["eve hardware show nuc-7 -o yaml"]),
    ("hardware delete", &["eve hardware delete nuc-7"]),
    ("base-os", &["eve base-os list"]),
    ("base-os list", &["eve base-os list"]),
    ("base-os show", &["eve base-os show eve-13 -o yaml"]),
    ("base-os delete", &["eve base-os delete eve-13"]),
    ("secret", &["eve secret set wifi < password.txt", "eve secret list"]),
    ("secret list", &["eve secret list"]),
    ("secret set", &["eve secret set wifi < password.txt"]),
    ("secret delete", &["eve secret delete wifi"]),
    ("enrolment", &["eve enrolment show lan"]),
    ("enrolment list", &["eve enrolment list"]),
    ("enrolment show", &["eve enrolment show lan -o yaml"]),
    ("enrolment delete", &["eve enrolment delete lan"]),
    ("patch", &["eve patch list --watch"]),
    ("patch list", &["eve patch list --watch"]),
    ("patch show", &["eve patch show web-data -o yaml"]),
    ("patch delete", &["eve patch delete web-data"]),
    ("project", &["eve project list"]),
    ("project list", &["eve project list"]),
    ("project show", &["eve project show berlin"]),
    ("project delete", &["eve project delete berlin"]),
    ("template", &["eve template show kiosk -o yaml"]),
    ("template list", &["eve template list"]),
    ("template show", &["eve template show kiosk -o yaml > kiosk.yml"]),
    ("template delete", &["eve template delete kiosk"]),
    (
        "alert",
        &[
            "eve alert list --all",
            "eve alert ack 7",
            "eve alert rule set disk --when disk_full --percent 80",
        ],
    ),
    ("alert list", &["eve alert list", "eve alert list --all --watch"]),
    ("alert ack", &["eve alert ack 7"]),
    ("alert rule", &["eve alert rule list", "eve alert rule set dead --when silent"]),
    ("alert rule list", &["eve alert rule list"]),
    (
        "alert rule set",
        &[
            "eve alert rule set disk --when disk_full --percent 80",
            "eve alert rule set dead --when silent --url https://hooks.example/eve",
            "eve alert rule set dead --minutes 15",
        ],
    ),
    ("alert rule test", &["eve alert rule test dead"]),
    ("alert rule delete", &["eve alert rule delete dead"]),
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
    ("user list", &["eve user list"]),
    (
        "user set",
        &["eve user set ann --role operator --project berlin", "eve user set ann --all-projects"],
    ),
    ("user delete", &["eve user delete ann"]),
    ("user password", &["eve user password", "eve user password ann < password.txt"]),
    ("user link", &["eve user link ann"]),
    ("token", &["eve token create ci --role viewer --hours 24", "eve token list"]),
    ("token list", &["eve token list"]),
    ("token create", &["eve token create ci --role viewer --hours 24 > token.txt"]),
    ("token delete", &["eve token delete ci"]),
    ("audit", &["eve audit --author ann --hours 24", "eve audit -o json -n 1000"]),
    (
        "rollout",
        &[
            "eve rollout start web-2 -f web.yml --max-failures 2 --rollback",
            "eve rollout show web-2 --watch",
            "eve rollout abort web-2",
        ],
    ),
    ("rollout list", &["eve rollout list"]),
    ("rollout show", &["eve rollout show web-2 --watch"]),
    (
        "rollout start",
        &[
            "eve rollout start web-2 -f web.yml --dry-run",
            "eve rollout start web-2 -f web.yml --waves 1,10%,50% --rollback",
            "eve rollout start web-2 -f web.yml --canary site=lab",
        ],
    ),
    ("rollout pause", &["eve rollout pause web-2"]),
    ("rollout resume", &["eve rollout resume web-2"]),
    ("rollout abort", &["eve rollout abort web-2"]),
    ("rollout promote", &["eve rollout promote web-2"]),
    ("rollout rollback", &["eve rollout rollback web-2"]),
    ("rollout forget", &["eve rollout forget web-2"]),
    (
        "group",
        &[
            "eve group set berlin 'site=berlin, !lab' --note 'all in Berlin'",
            "eve group show berlin",
        ],
    ),
    ("group list", &["eve group list"]),
    ("group show", &["eve group show berlin"]),
    ("group set", &["eve group set berlin 'site=berlin, !lab' --note 'all in Berlin'"]),
    ("group delete", &["eve group delete berlin"]),
    ("window", &["eve window set night site=berlin --from 02:00 --zone Europe/Berlin"]),
    ("window list", &["eve window list"]),
    (
        "window set",
        &[
            "eve window set night site=berlin --from 02:00 --zone Europe/Berlin",
            "eve window set weekend group=shops --days sat,sun --from 00:00",
        ],
    ),
    ("window delete", &["eve window delete night"]),
    ("schedule", &["eve schedule add web-2 -f web.yml --at +90m", "eve schedule list"]),
    ("schedule list", &["eve schedule list"]),
    (
        "schedule add",
        &[
            "eve schedule add web-2 -f web.yml --at +90m",
            "eve schedule add web-2 -f site/ --at 2026-12-24T02:00:00+01:00",
        ],
    ),
    ("schedule cancel", &["eve schedule cancel web-2"]),
    ("completion", &["eve completion bash > ~/.local/share/bash-completion/completions/eve"]),
];

/// The commands with their examples.
pub(crate) fn taught(eve: Command) -> Command {
    EXAMPLES.iter().fold(eve, |eve, (path, lines)| {
        let words: Vec<&str> = path.split(' ').collect();
        let text: String = lines.iter().map(|line| format!("\n  {line}")).collect();
        below(eve, &words, &format!("Examples:{text}"))
    })
}

/// Puts a text at the end of the help of the command that is found by these names.
fn below(command: Command, path: &[&str], text: &str) -> Command {
    match path.split_first() {
        Some((name, rest)) => command.mut_subcommand(*name, |c| below(c, rest, text)),
        None => command.after_help(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
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
            assert!(line.chars().count() <= 78, "{line} breaks on a terminal of 80 columns");
        }
    }

    #[test]
    fn every_command_has_an_example() {
        fn look(command: &Command, path: &str) {
            let has = command.get_after_help().is_some_and(|t| t.to_string().contains("Examples:"));
            // `eve apply` has documents, too.
            let long = command.get_after_long_help();
            let has = has || long.is_some_and(|t| t.to_string().contains("kind: "));
            assert!(has || path.is_empty(), "{path} has no example");
            for inner in command.get_subcommands() {
                look(inner, format!("{path} {}", inner.get_name()).trim());
            }
        }
        look(&taught(Eve::command()), "");
        let mut eve = taught(Eve::command());
        let text = eve.find_subcommand_mut("drift").unwrap().render_help().to_string();
        assert!(text.contains("Examples:\n  eve drift\n"), "{text}");
    }

    /// A text with a command's name takes the place of that with its arguments, and hides it.
    #[test]
    fn the_long_texts_of_commands_are_shown() {
        let mut eve = Eve::command();
        for (name, words) in [
            ("build", "Steps whose inputs did not change"),
            ("convert", "VirtualBox"),
            ("mkfs", "what the tar says twice"),
            ("install", "The table is written last"),
            ("run", "Type Ctrl-a x"),
            ("up", "With CI=true"),
            ("slot", "two slots, IMGA and IMGB"),
        ] {
            let help = eve.find_subcommand_mut(name).unwrap().render_long_help().to_string();
            let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(help.contains(words), "{name}: {help}");
        }
    }

    /// What is broken into lines by hand is broken once more by a terminal that is narrower.
    #[test]
    fn lines_that_are_broken_by_hand_fit_a_terminal() {
        fn look(command: &Command) {
            let texts = [command.get_after_help(), command.get_after_long_help()];
            let mut parts: Vec<String> =
                texts.into_iter().flatten().map(|t| t.to_string()).collect();
            // A paragraph on one line is broken by whoever prints it.
            let long = command.get_long_about().map(|t| t.to_string()).unwrap_or_default();
            let by_hand = |p: &&str| p.contains('\n');
            parts.extend(long.split("\n\n").filter(by_hand).map(str::to_owned));
            for line in parts.iter().flat_map(|part| part.lines()) {
                assert!(line.chars().count() <= 80, "{}: {line}", command.get_name());
            }
            command.get_subcommands().for_each(look);
        }
        look(&crate::taught());
    }

    #[test]
    fn completion_knows_the_nouns() {
        for shell in [clap_complete::Shell::Bash, clap_complete::Shell::Zsh] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Eve::command(), "eve", &mut script);
            let script = String::from_utf8(script).unwrap();
            for (noun, _) in EXAMPLES.iter().filter(|(path, _)| !path.contains(' ')) {
                assert!(script.contains(noun), "{shell}: {noun}");
            }
        }
    }
}
