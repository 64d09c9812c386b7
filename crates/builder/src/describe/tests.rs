use super::*;

fn text(name: &str, text: &str) -> Text {
    Text { name: name.to_owned(), text: text.to_owned() }
}

fn request(template: &str, modifiers: &[&str]) -> Request {
    Request {
        template: text("t.yml.in", template),
        modifiers: modifiers.iter().map(|m| text("m.yq", m)).collect(),
        hv: None,
        platform: None,
        version: None,
        variant: Variant::default(),
        words: Words::default(),
    }
}

/// A template, a modifier and the yml that comes of them; an error stands for itself.
#[track_caller]
fn check(template: &str, modifier: &str, want: &str) {
    let got = match describe(&request(template, &[modifier])) {
        Ok(described) => described.yml(),
        Err(error) => error.to_string(),
    };
    assert_eq!(got.trim_end(), want.trim_end());
}

#[test]
fn paths_lead_to_values_and_make_what_is_missing() {
    check("a: {b: [x, y]}", ".a.b[1] = \"z\"", "a:\n  b:\n    - x\n    - \"z\"");
    check("a: {b: [x, y]}", ".a.b[-1] |= \"z\"", "a:\n  b:\n    - x\n    - \"z\"");
    check("a: 1", ".b.c |= \"z\"", "a: 1\nb:\n  c: \"z\"");
    check("a: 1", ".[\"b c\"] = 2", "a: 1\nb c: 2");
    check("a: 1", ".\"b c\" = 2", "a: 1\nb c: 2");
    check("a: []", ".a[0].k = \"x\"", "a:\n  - k: \"x\"");
    check("a: [x, y, z]", ".a |= .[1:]", "a:\n  - y\n  - z");
    check("a: [x, y, z]", ".a |= .[:-1]", "a:\n  - x\n  - y");
    check("a: [x, y, z]", ".a |= .[1:2]", "a:\n  - y");
}

#[test]
fn a_list_grows_by_lists_and_by_single_values() {
    check("a: [x]", ".a += [\"y\", \"z\"]", "a:\n  - x\n  - \"y\"\n  - \"z\"");
    check("a: [x]", ".a += \"y\"", "a:\n  - x\n  - \"y\"");
    check("b: 1", ".a += [\"y\"]", "b: 1\na:\n  - \"y\"");
    check("a: [x, y]", ".a -= [\"x\"]", "a:\n  - y");
    check("a: {p: 1}", ".a += {\"p\": 2, q: -3}", "a:\n  p: 2\n  q: -3");
    check("a: \"x\"", ".a += \" y\"", "a: \"x y\"");
    check("a: 5", ".a += 1 - 2", "a: 4");
}

#[test]
fn only_what_is_selected_is_deleted_or_changed() {
    let list = "l:\n  - {k: a, v: 1}\n  - {k: b, v: 1}\n  - {v: 1}\n";
    check(list, "del(.l[] | select(.k != \"a\"))", "l:\n  - k: a\n    v: 1");
    check(list, "del(.l[] | select(.k == \"a\")) | del(.l[0])", "l:\n  - v: 1");
    check(list, "(.l[] | select(.k == \"b\").v) |= 2 | .l |= .[1:2]", "l:\n  - k: b\n    v: 2");
    check(list, "del(.l[].v, .l[2])", "l:\n  - k: a\n  - k: b");
    check("l: [ab, cd, ef]", "del(.l[] | select(test(\"^a|f$\") != true))", "l:\n  - ab\n  - ef");
    check("l: [ab]", "del(.none[] | select(.n == \"x\"))", "l:\n  - ab");
    check("l: [aXb, ab, ba]", "del(.l[] | select(. == \"a*b\"))", "l:\n  - ba");
    check("l: [yes, no]", "del(.l[] | select(. == \"yes\" or . == \"no\"))", "l: []");
}

#[test]
fn what_stood_without_quotes_means_the_same_afterwards() {
    check(
        "a: {mode: \"0644\", raw: 0644, on: yes, nothing: , text: '5'}",
        ".b = .a.mode",
        "a:\n  mode: \"0644\"\n  raw: 0644\n  \"on\": yes\n  nothing: ~\n  text: \"5\"\n\
         b: \"0644\"",
    );
}

#[test]
fn variables_and_entries_find_a_place() {
    check(
        "s:\n  - name: a\n  - name: b\n  - name: c\n",
        "limit(1; .s | to_entries[] | select(.value.name == \"b\") | .key + 1) as $i\n\
         | .s |= .[0:$i] + [{name: \"x\", env: [\"E=1\"]}] + .[$i:]",
        "s:\n  - name: a\n  - name: b\n  - name: \"x\"\n    env:\n      - \"E=1\"\n  - name: c",
    );
    check("m: {a: 1, b: 2}", ".m |= with_entries(select(.key != \"a\"))", "m:\n  b: 2");
    check(
        "m: {a: 1}",
        ".k = (.m | keys) | .c = (.m | length) | .h = (.m | has(\"a\"))",
        "m:\n  a: 1\nk:\n  - \"a\"\nc: 1\nh: true",
    );
    check(
        "l: [1, 2]",
        ".l |= map(. + 1) | .f = (.l | first) | .x = (.none // \"d\")",
        "l:\n  - 2\n  - 3\nf: 2\nx: \"d\"",
    );
}

#[test]
fn signs_bind_as_in_yq_and_not_as_in_jq() {
    // A comma binds weaker than a pipe, and comparing as weakly as assigning.
    check("a: {x: 1}", ".l = [.a, .a | .x]", "a:\n  x: 1\nl:\n  - x: 1\n  - 1");
    check("a: 1", ".b = 1 + 1 # two\n| .c = (.b == 2)", "a: 1\nb: 2\nc: true");
}

#[test]
fn mistakes_have_a_place_and_a_reason() {
    for (modifier, want) in [
        (".a |=", "m.yq:1:6: expected a value, found the end"),
        (".a = 1 |\n  frob(.)", "m.yq:2:3: there is no function frob; there are select, del, test"),
        ("select()", "m.yq:1:8: expected a value, found `)`"),
        ("limit(1)", "m.yq:1:1: limit takes 2 arguments (separated by ;), not 1"),
        (".a = \"x", "m.yq:1:6: this text has no end"),
        (".a = \"\\q\"", "m.yq:1:7: only \\n, \\t"),
        (".a ? 1", "m.yq:1:4: '?' means nothing here"),
        (".a 1", "m.yq:1:4: `1` does not fit here"),
        (".a = $x", "m.yq:1:6: $x has no value here"),
        (".a[] = 1 | .l.n = 2", "m.yq:1:14: a list has numbers, not names: use [] or [0]"),
        ("del(.l[] + 1)", "m.yq:1:10: this makes a new value; only a part"),
        ("del(.)", "m.yq:1:1: the whole cannot be deleted"),
        (".l[] | select(test(\"[\"))", "m.yq:1:20: "),
        (".l | test(\"x\")", "m.yq:1:6: this takes text, not a list"),
        (".a += {}", "m.yq:1:4: cannot add a mapping to a number"),
        (".l[]", "m.yq:1:3: it gives 2 values where one description is needed"),
        (".a", "m.yq: a description is a mapping, not a number"),
        ("empty", "m.yq:1:1: it gives 0 values"),
        ("\"\\", "m.yq:1:2: only"),
    ] {
        let error = describe(&request("a: 1\nl: [x, y]\n", &[modifier])).unwrap_err().to_string();
        assert!(error.starts_with(want), "{modifier}\n{error}");
    }
}

#[test]
fn a_template_that_an_option_cannot_change_is_told_by_the_option() {
    let template = "onboot: []\nservices:\n  - [PILLAR_TAG]\n";
    let variant = Variant { dev: true, k: false };
    let error = describe(&Request { variant, ..request(template, &[]) }).unwrap_err().to_string();
    let want = "the variant of the version: a list has numbers, not names: use [] or [0]";
    assert_eq!(error, want);
}

#[test]
fn a_modifier_cannot_run_for_ever_or_overflow_the_stack() {
    let doubling = vec![". += {\"a\": [.a, .a]}"; 40].join(" | ");
    let deep = "(".repeat(300) + "." + &")".repeat(300);
    let long = vec!["."; 5000].join("|");
    for (modifier, want) in
        [(doubling, "too much work"), (deep, "too deep"), (long, "more than 1000 words")]
    {
        let error = describe(&request("a: 1\n", &[&modifier])).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
}

#[test]
fn every_value_tells_where_it_came_from() {
    let mut words = Words::default();
    words.say("BASE_TAG", "base:1", "tags.toml");
    words.say("KUBE_TAG", "kube:2", "--tag");
    let request = Request {
        modifiers: vec![text("hv/k.yq", ".services +=\n  [{\"image\": \"KUBE_TAG\"}]")],
        hv: Some("k".into()),
        words,
        ..request("init:\n  - BASE_TAG\nservices: []\nfiles:\n  - contents: 'EVE_HV'\n", &[])
    };
    let rows: Vec<String> = describe(&request)
        .unwrap()
        .explain()
        .into_iter()
        .map(|said| format!("{} = {} ({})", said.path, said.value, said.origin))
        .collect();
    expect_test::expect![[r#"
        .init[0] = base:1 (t.yml.in:2:5; BASE_TAG is "base:1" (tags.toml))
        .services[0].image = kube:2 (hv/k.yq:2:14; KUBE_TAG is "kube:2" (--tag))
        .files[0].contents = k (the hypervisor; instead of "EVE_HV" from t.yml.in:5:15)"#]]
    .assert_eq(&rows.join("\n"));
}

#[test]
fn a_variant_takes_its_own_pillar() {
    let template =
        "onboot:\n  - image: PILLAR_TAG\nservices:\n  - image: PILLAR_TAG\n  - image: x\n";
    for (dev, k, want) in [
        (false, false, "PILLAR_TAG"),
        (true, false, "PILLAR_DEV_TAG"),
        (false, true, "PILLAR_K_TAG"),
        (true, true, "PILLAR_K_DEV_TAG"),
    ] {
        let described =
            describe(&Request { variant: Variant { dev, k }, ..request(template, &[]) }).unwrap();
        let unknown: Vec<&str> = described.unknown.iter().map(|u| u.word.as_str()).collect();
        assert_eq!(unknown, [want, want]);
        assert_eq!(described.yml().matches(want).count(), 2);
    }
}
