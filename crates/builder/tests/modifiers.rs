//! Modifiers, evaluated a second time: by Debian's `yq`, which hands them to jq.
//!
//! Its language is jq's. EVE's own modifiers and most of what modifiers are written with mean the same
//! in both; where mikefarah's yq differs, which descriptions are written for, jq cannot judge: which of
//! `,`, `|`, `=` and `+` binds first without parentheses, wildcards in `==`, adding a single value to a
//! list, `[]` of nothing, the order of `keys`. `describe`'s own tests say what those mean.

use std::path::Path;

use builder::describe::{Request, Text, Variant, Words, describe};

#[path = "../../formats/tests/second_opinion/tools.rs"]
mod tools;

/// A description with what EVE's have: names are its, the rest is made up.
const TEMPLATE: &str = r#"
kernel:
  image: KERNEL_TAG
  cmdline: "rootdelay=3"
init:
  - linuxkit/init:8f1e6a0d1acbb4ebf4b8b2a1b4dd8b53bed7eb86
  - RUNC_TAG
  - DOM0ZTOOLS_TAG
  - GRUB_TAG
  - FW_TAG
  - XEN_TAG
  - GPTTOOLS_TAG
onboot:
  - name: rngd
    image: RNGD_TAG
    command: ["/sbin/rngd", "-1"]
  - name: sysctl
    image: linuxkit/sysctl:v0.5
    binds:
      - /etc/sysctl.d:/etc/sysctl.d
    capabilities:
      - CAP_SYS_ADMIN
  - name: storage-init
    image: PILLAR_TAG
services:
  - name: newlogd
    image: NEWLOGD_TAG
    cgroupsPath: /eve/services/newlogd
    oomScoreAdj: -999
  - name: edgeview
    image: EDGEVIEW_TAG
    cgroupsPath: /eve/services/eve-edgeview
    oomScoreAdj: -800
  - name: debug
    image: DEBUG_TAG
    cgroupsPath: /eve/services/debug
    oomScoreAdj: -999
  - name: pillar
    image: PILLAR_TAG
    cgroupsPath: /eve/services/pillar
    oomScoreAdj: -999
    readonly: true
files:
  - path: /etc/eve-release
    contents: EVE_VERSION
  - path: /etc/eve-hv-type
    contents: EVE_HV
  - path: /etc/eve-platform
    contents: EVE_PLATFORM
  - path: /etc/empty
    directory: true
    mode: "0755"
"#;

/// What EVE's own modifiers do, of each kind there is.
const OF_EVE: [&str; 9] = [
    // A hypervisor that brings a service.
    r#".services += [{"name": "kube", "image": "KUBE_TAG", "cgroupsPath": "/eve/services/kube",
       "oomScoreAdj": -999}]"#,
    // One that leaves nearly everything out.
    r#"del(.init[] | select(test("linuxkit/init:|RUNC_TAG|GRUB_TAG") != true))
       | del(.onboot[] | select(.name != "rngd"))
       | del(.services[] | select(.name != "debug"))
       | .kernel.image |= "NEW_KERNEL_TAG""#,
    // A platform that brings packages.
    r#".init += ["NVIDIA_TAG", "OPTEE_CLIENT_TAG"]"#,
    // One that puts a service behind another.
    r#"limit(1; .services | to_entries[] | select(.value.name == "newlogd") | .key + 1) as $idx
       | .services |= .[0:$idx] + [{"name": "adam", "image": "ADAM_TAG"}] + .[$idx:]"#,
    // What the reference's script does itself.
    r#"(.files[] | select(.contents == "EVE_HV")).contents |= "kvm""#,
    r#"(.files[] | select(.contents == "EVE_PLATFORM")).contents |= "generic""#,
    r#"(.onboot[] | select(.image == "PILLAR_TAG").image) |= "PILLAR_DEV_TAG""#,
    r#"(.services[] | select(.image == "PILLAR_TAG").image) |= "PILLAR_DEV_TAG""#,
    r#"((.onboot[], .services[]) | select(.image == "PILLAR_TAG").image) |= "PILLAR_K_TAG""#,
];

/// More of what modifiers can be written with.
const MORE: [&str; 26] = [
    ".",
    r#".kernel.cmdline += " quiet""#,
    r#".kernel.cmdline |= . + " quiet" | .kernel.new.deep = 1"#,
    r#".onboot[1].binds[-1] = "x""#,
    r#".onboot[0].command |= .[1:]"#,
    r#".init |= .[2:-1]"#,
    r#".init |= .[:2] + .[-2:]"#,
    r#"del(.onboot[0], .onboot[2])"#,
    r#"del(.services[].oomScoreAdj, .services[1], .kernel)"#,
    r#"del(.services[] | select(.readonly))"#,
    r#"del(.services[] | select(.readonly | not))"#,
    r#"del(.files[] | select(has("directory")))"#,
    r#"del(.services[] | select(.name == "pillar" or .oomScoreAdj == -800))"#,
    r#"del(.services[] | select(.name != "pillar" and .oomScoreAdj != -800))"#,
    r#"del(.init[] | select(test("^[A-Z0-9]+_TAG$")))"#,
    r#".services |= map(select(.name != "debug"))"#,
    r#".services |= map(.oomScoreAdj += 100)"#,
    r#".services[].oomScoreAdj -= 1"#,
    r#".init -= ["RUNC_TAG", "NONE"]"#,
    r#".kernel += {"cmdline": "other", "tar": "kernel.tar"}"#,
    r#".kernel |= with_entries(select(.key != "image"))"#,
    r#".kernel |= (to_entries | map(.value += "!") | from_entries)"#,
    r#".count = (.services | length) | .long = (.kernel.image | length)"#,
    r#".first = (.init | first) | .one = (first(.services[] | select(.oomScoreAdj == -999)).name)"#,
    r#".none = (.kernel.none // "otherwise") | .there = (.kernel.image // "otherwise")"#,
    r#".init[2] as $x | .onboot[0].image as $y | .both = [$x, $y, ($x == $y), ($x != $y)]"#,
];

/// Expressions of small parts, chosen by a sequence that is the same each time. Everything that binds
/// differently in the two languages is in parentheses.
fn made(count: usize) -> Vec<String> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut pick = move |list: &[&'static str]| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        list[usize::try_from(state >> 33).unwrap_or(0) % list.len()]
    };
    let lists =
        [".init", ".onboot", ".services", ".files", ".onboot[0].command", ".new", ".kernel.new"];
    let maps = [".kernel", ".services[0]", ".services[-1]", ".onboot[1]", ".files[3]"];
    let keys = ["image", "name", "contents", "oomScoreAdj", "readonly", "other"];
    let words = ["\"PILLAR_TAG\"", "\"debug\"", "-999", "-800", "true", "\"EVE_HV\"", "null"];
    let operators = ["==", "!="];
    let items = ["\"A_TAG\"", "7", "{\"name\": \"made\", \"image\": \"M_TAG\"}", "[]", "true"];
    let mut made = Vec::new();
    for n in 0..count {
        let condition = |pick: &mut dyn FnMut(&[&'static str]) -> &'static str| {
            let (key, operator, word) = (pick(&keys), pick(&operators), pick(&words));
            let plain = format!("(.{key} {operator} {word})");
            match pick(&["plain", "not", "and", "or", "has"]) {
                "not" => format!("({plain} | not)"),
                "and" => format!("({plain} and (.{} != {word}))", pick(&keys)),
                "or" => format!("({plain} or (.{} == {}))", pick(&keys), pick(&words)),
                "has" => format!("has(\"{key}\")"),
                _ => plain,
            }
        };
        let structs = [".onboot", ".services", ".files"];
        let one = |pick: &mut dyn FnMut(&[&'static str]) -> &'static str| match n % 8 {
            0 => format!("del({}[] | select({}))", pick(&structs), condition(pick)),
            1 => format!(
                "(({}[] | select({})) | .{}) |= {}",
                pick(&structs),
                condition(pick),
                pick(&keys),
                pick(&items)
            ),
            2 => format!("{} += [{}, {}]", pick(&lists), pick(&items), pick(&items)),
            3 => {
                let (from, to) = (pick(&["", "0", "1", "-2", "9"]), pick(&["2", "-1", "3", "-9"]));
                format!("{} |= .[{from}:{to}]", pick(&lists[..5]))
            }
            4 => format!("{}.{} = {}", pick(&maps), pick(&keys), pick(&items)),
            5 => format!("{} |= map(select({}))", pick(&structs), condition(pick)),
            6 => format!(
                "{} |= with_entries(select(.key {} \"{}\"))",
                pick(&maps),
                pick(&operators),
                pick(&keys)
            ),
            _ => format!(
                "(first({}[] | select({}))) as $x | .made = [$x, ({} | length)]",
                pick(&structs),
                condition(pick),
                pick(&lists)
            ),
        };
        let (first, second) = (one(&mut pick), one(&mut pick));
        made.push(format!("({first}) | ({second})"));
    }
    made
}

/// What we make of the template; `None`: an error.
fn ours(modifier: &str) -> Option<String> {
    let text = |name: &str, text: &str| Text { name: name.to_owned(), text: text.to_owned() };
    let request = Request {
        template: text("template", TEMPLATE),
        modifiers: vec![text("modifier", modifier)],
        hv: None,
        platform: None,
        version: None,
        variant: Variant::default(),
        words: Words::default(),
    };
    describe(&request).ok().map(|described| described.yml())
}

/// A line of JSON for each modifier: what each of us makes of the template, `null` for an error.
fn judged(modifiers: &[String]) -> Vec<(String, String)> {
    let dir = tempfile::tempdir().unwrap();
    let yq = |file: &str, filter: &str| {
        let said = tools::tool("yq", "yq", dir.path(), &["-c", filter, file]);
        said.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    save(dir.path(), "template", TEMPLATE);
    // What gives nothing is no description either.
    let tries: Vec<_> =
        modifiers.iter().map(|m| format!("([try ({m}) catch null] | .[0])")).collect();
    let theirs = yq("template", &tries.join(",\n"));
    let documents: Vec<_> =
        modifiers.iter().map(|m| ours(m).unwrap_or("null\n".to_owned())).collect();
    save(dir.path(), "ours", &documents.join("---\n"));
    let ours = yq("ours", ".");
    assert_eq!((ours.len(), theirs.len()), (modifiers.len(), modifiers.len()));
    ours.into_iter().zip(theirs).collect()
}

fn save(dir: &Path, name: &str, text: &str) {
    store::save(dir, name, text.as_bytes()).unwrap();
}

#[test]
fn another_evaluator_makes_the_same_of_eves_modifiers_and_of_more() {
    let modifiers: Vec<String> = OF_EVE.into_iter().chain(MORE).map(str::to_owned).collect();
    for (modifier, (ours, theirs)) in modifiers.iter().zip(judged(&modifiers)) {
        assert_ne!(ours, "null", "{modifier}");
        assert_eq!(ours, theirs, "{modifier}");
    }
}

#[test]
fn another_evaluator_makes_the_same_of_what_chance_writes() {
    let modifiers = made(400);
    let mut both = 0;
    for (modifier, (ours, theirs)) in modifiers.iter().zip(judged(&modifiers)) {
        // Where one of them finds a mistake, the other may take it for nothing: `[]` of null.
        if ours != "null" && theirs != "null" {
            assert_eq!(ours, theirs, "{modifier}");
            both += 1;
        }
    }
    assert!(both > modifiers.len() / 2, "only {both} of {} were judged", modifiers.len());
}
