//! Compiles `services.toml` into a table, and refuses one that cannot work: an unknown or circular
//! order, two writers of one topic, two services of one user.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    class: String,
    kind: String,
    #[serde(default)]
    image: Option<String>,
    #[serde(default)]
    only_if: Option<String>,
    after: Vec<String>,
    uid: u32,
    rights: Vec<String>,
    #[serde(default)]
    groups: Vec<u32>,
    writes: Vec<String>,
    #[serde(default)]
    state: Vec<String>,
    memory_mib: u64,
    watchdog_s: u64,
}

#[expect(clippy::disallowed_methods, reason = "cargo makes OUT_DIR anew if this fails half-way")]
fn main() {
    // At run time: a build script may be kept while the checkout moves.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo says where the crate is");
    let path = Path::new(&here).join("../../services.toml");
    println!("cargo::rerun-if-changed={}", path.display());
    let text = fs::read_to_string(&path).expect("services.toml stands at the root");
    let all: BTreeMap<String, Entry> = toml::from_str(&text).expect("services.toml parses");
    let order = start_order(&all);
    check_owners(&all);

    let mut out = String::from("/// A service of the node.\n");
    out += "#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]\n#[serde(rename_all = \"kebab-case\")]\npub enum Service {\n";
    for name in &order {
        writeln!(out, "/// `eved {name}`.\n{},", variant(name)).unwrap();
    }
    out += "}\nimpl Service {\n/// The name, as in `services.toml`.\npub const fn name(self) -> &'static str { match self {\n";
    for name in &order {
        writeln!(out, "Service::{} => {name:?},", variant(name)).unwrap();
    }
    out += "} } }\n/// Every service, in an order in which they may start.\npub const ALL: &[Spec] = &[\n";
    for name in &order {
        let e = &all[name];
        let class = match e.class.as_str() {
            "lifeline" => "Lifeline",
            "workload" => "Workload",
            other => panic!("services.toml: {name}: class {other:?} is lifeline or workload"),
        };
        let kind = match e.kind.as_str() {
            "oneshot" => "Oneshot",
            "daemon" => "Daemon",
            other => panic!("services.toml: {name}: kind {other:?} is oneshot or daemon"),
        };
        let image = match e.image.as_deref() {
            None | Some("node") => "Some(Image::Node)",
            Some("installer") => "Some(Image::Installer)",
            Some("any") => "None",
            Some(other) => {
                panic!("services.toml: {name}: image {other:?} is node, installer or any")
            }
        };
        let after: Vec<String> =
            e.after.iter().map(|a| format!("Service::{}", variant(a))).collect();
        writeln!(
            out,
            "Spec {{ service: Service::{}, class: Class::{class}, kind: Kind::{kind}, image: {image}, only_if: {:?}, after: &[{}], uid: {}, rights: &{:?}, groups: &{:?}, writes: &{:?}, state: &{:?}, memory: crate::Bytes::mib({}), watchdog: std::time::Duration::from_secs({}) }},",
            variant(name), e.only_if, after.join(", "), e.uid, e.rights, e.groups, e.writes, e.state, e.memory_mib, e.watchdog_s
        )
        .unwrap();
    }
    out += "];\n";
    let to = Path::new(&env::var("OUT_DIR").unwrap()).join("services.rs");
    fs::write(to, out).unwrap();
}

/// Kahn's order; alphabetical among equals, so that the table is stable.
fn start_order(all: &BTreeMap<String, Entry>) -> Vec<String> {
    let mut done: Vec<String> = Vec::new();
    while done.len() < all.len() {
        let next = all.iter().find(|(name, e)| {
            !done.contains(name)
                && e.after.iter().all(|a| {
                    assert!(all.contains_key(a), "services.toml: {name}: after unknown {a:?}");
                    done.contains(a)
                })
        });
        let (name, _) = next.expect("services.toml: `after` goes round in a circle");
        done.push(name.clone());
    }
    done
}

fn check_owners(all: &BTreeMap<String, Entry>) {
    let (mut topics, mut uids) = (BTreeSet::new(), BTreeSet::new());
    for (name, e) in all {
        for topic in &e.writes {
            assert!(topics.insert(topic), "services.toml: {name}: {topic:?} has two writers");
        }
        assert!(e.uid == 0 || uids.insert(e.uid), "services.toml: {name}: uid {} is taken", e.uid);
    }
}

fn variant(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map(|c| c.to_ascii_uppercase()).into_iter().chain(letters).collect()
}
