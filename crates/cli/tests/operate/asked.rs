//! What an operator names, and what is found for what is not named.

use super::Site;

#[test]
fn who_names_a_token_acts_with_it() {
    let site = Site::start();
    let made: serde_json::Value =
        serde_json::from_str(&site.eve("token create ro --role viewer --json")).unwrap();
    let token = made["secret"].as_str().unwrap();
    assert!(site.eve("whoami").contains("admin"));
    let said = site.eve(&format!("whoami --token {token}"));
    assert!(said.contains("viewer"), "{said}");
    let (code, said) = site.fails(&format!("token create x --token {token} --role admin"));
    assert!(code == 1, "{said}");
    let (code, said) = site.fails("device list --token abc");
    assert!(code == 1 && said.contains("refuses the token"), "{said}");
    let by_variable = site.command(&["device", "list"]).env("EVE_TOKEN", "abc").output().unwrap();
    let said = String::from_utf8(by_variable.stderr).unwrap();
    assert!(!by_variable.status.success() && said.contains("refuses the token"), "{said}");
    // A variable that was to hold one makes nobody the administrator.
    let (code, said) = site.fails("device list --token=");
    assert!(code == 1 && said.starts_with("eve: the token is empty\n"), "{said}");
    // Nobody's file is needed for it.
    std::fs::remove_file(site.dir.path().join("data/admin.token")).unwrap();
    assert!(site.eve(&format!("whoami --token {token} --data data")).contains("viewer"));
    let (code, said) = site.fails("whoami");
    assert!(code == 1 && said.contains("admin.token"), "{said}");
}

#[test]
fn the_root_certificate_that_is_named_is_the_one_that_counts() {
    let site = Site::start();
    let own = site.dir.path().join("data/root-certificate.pem");
    let root = if own.exists() { own } else { site.dir.path().join("data/pki/root.cert.pem") };
    std::fs::copy(root, site.dir.path().join("root.pem")).unwrap();
    site.eve("device list --ca root.pem");
    let other = Site::start();
    let folder = other.dir.path().join("data/pki/root.cert.pem");
    let (code, said) = site.fails(&format!("device list --data data --ca {}", folder.display()));
    assert!(code == 1 && said.contains("--ca"), "{said}");
}

#[test]
fn the_token_of_this_machine_is_told_to_no_other_controller() {
    let (site, other) = (Site::start(), Site::start());
    let root = other.dir.path().join("data/pki/root.cert.pem");
    let url = std::fs::read_to_string(other.dir.path().join("data/endpoint")).unwrap();
    let words = format!("device list --controller {} --ca {}", url.trim(), root.display());
    let (code, said) = site.fails(&words);
    assert!(code == 1 && said.contains("there is no token"), "{said}");
}

#[test]
fn an_empty_context_is_none() {
    let site = Site::start();
    let run = |words: &[&str], context: &str| {
        let output = site.command(words).env("EVE_CONTEXT", context).output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(run(&["device", "list"], ""), (true, String::new()));
    let (done, said) = run(&["device", "list"], "lab");
    assert!(!done && said.contains("there is no context lab"), "{said}");
    let named = ["device", "list", "--controller", "https://127.0.0.1:1"];
    let (_, said) = run(&named, "");
    assert!(said.contains("cannot reach the controller"), "{said}");
    let (done, said) = run(&named, "lab");
    assert!(!done && said.contains("both a controller and a context"), "{said}");
    let nowhere = site.command(&["whoami"]).env_remove("EVE_CONTROLLER_DATA").output().unwrap();
    let said = String::from_utf8(nowhere.stderr).unwrap();
    assert!(said.contains("eve login URL"), "{said}");
}

#[test]
fn nothing_is_no_config() {
    let site = Site::start();
    site.eve("device add edge-1 --serial SN-1");
    for empty in ["", "\n"] {
        let output = site.run(&["device", "config", "edge-1", "-f", "-"], empty);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.starts_with("eve: standard input is empty: no config\n"), "{said}");
    }
}

#[test]
fn what_is_set_again_keeps_what_is_not_said() {
    let site = Site::start();
    site.eve("group set berlin site=berlin --note Mitte");
    site.eve("group set berlin site=spandau");
    let said = site.eve("group show berlin");
    assert!(said.contains("site=spandau") && said.contains("Mitte"), "{said}");
    site.eve("window set night group=berlin --days sat,sun --from 02:00 --zone Europe/Berlin");
    site.eve("window set night --minutes 60");
    let said = site.eve("objects window night -o yaml");
    site.save(
        "late.yml",
        "kind: Window\nname: late\nspec: {match: a=b, from: 10:30, minutes: 60}\n",
    );
    site.eve("apply late.yml");
    assert!(site.eve("objects window late -o yaml").contains("from: \"10:30\""));
    for want in ["group=berlin", "- sat", "02:00", "minutes: 60", "Europe/Berlin"] {
        assert!(said.contains(want), "{want}: {said}");
    }
    site.save("words", "hunter2\n");
    let url = "https://hooks.example/";
    site.eve(&format!("alert rule set h1 --when silent --url {url} --secret words"));
    site.eve("alert rule set h1 --minutes 20");
    let said = site.eve("alert rule list");
    assert!(said.contains(&format!("20       {url} (signed)")), "{said}");
    for (line, want) in [
        ("group set new --note x", "say its query"),
        ("window set new", "say its query"),
        ("window set new a=b", "say --from"),
        ("alert rule set new --minutes 5", "say --when"),
    ] {
        let (code, said) = site.fails(line);
        assert!(code == 2 && said.contains(want), "{line}: {said}");
    }
}

#[test]
fn the_documents_of_the_help_can_be_applied() {
    let site = Site::start();
    let help = site.eve("apply --help");
    let documents = help.split("\n\n").filter_map(|part| {
        let part = part.strip_prefix("  kind: ")?;
        Some(format!("  kind: {part}\n  ---\n"))
    });
    let documents: String = documents.collect();
    assert_eq!(documents.matches("  kind: ").count(), 4, "{help}");
    let documents = documents.replace("\n  ", "\n");
    super::saved(&site.dir.path().join("hello.tar"));
    site.eve("image push hello.tar --name hello:latest");
    site.save("help.yml", documents.trim().trim_end_matches("---"));
    let said = site.eve("apply help.yml");
    assert_eq!(said.matches(" created").count(), 4, "{said}");
    let said = site.eve("device config edge-2");
    assert!(said.contains("timer.config.interval") && said.contains("\"300\""), "{said}");
}

/// These need no controller, only a folder where nothing was ever built.
#[test]
fn without_an_image_the_tools_say_what_they_looked_for() {
    let site = Site::start();
    let here = site.dir.path().canonicalize().unwrap();
    for line in ["sizes", "explain /etc/passwd", "sbom", "sources"] {
        let output = site.command(&line.split(' ').collect::<Vec<_>>());
        let output = { output }.env("ZARCH", "arm64").output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        let want = format!("there is no dist/arm64/current in {} or above\n", here.display());
        assert_eq!(output.status.code(), Some(1), "{line}: {said}");
        assert!(said.contains(&want) && said.contains("eve build live"), "{line}: {said}");
    }
    let (code, said) = site.fails("sizes nothing.raw");
    assert!(code == 1 && said.contains("nothing.raw"), "{said}");
}

#[test]
fn what_the_installer_could_not_use_is_refused_before_an_image_is_made() {
    let site = Site::start();
    let build = |answers: &str| {
        site.save("installer.json", answers);
        site.save("rootfs.tar", "");
        let words = ["build", "config", "--rootfs", "rootfs.tar", "--version", "1.0"];
        site.run(&[&words[..], &["--file", "installer.json", "--out", "dist"]].concat(), "")
    };
    for (answers, want) in [
        (r#"{"eve_install_dsik": "sda"}"#, "did you mean eve_install_disk?"),
        (r#"{"eve_install_disk": "../sda"}"#, "that is no name of a disk"),
        (r#"{"eve_nuke_all_disks": "maybe"}"#, "1 or 0"),
        ("{", "JSON object"),
    ] {
        let output = build(answers);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("installer.json") && said.contains(want), "{said}");
    }
    let output = build(r#"{"eve_install_disk": "sda", "eve_install_skip_persist": true}"#);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let words = ["--rootfs", "rootfs.tar", "--version", "1.0", "--set", "soft_serail=17"];
    let (code, said) = site.fails(&format!("build config {}", words.join(" ")));
    assert!(code == 1 && said.contains("did you mean soft_serial?"), "{said}");
}

#[test]
fn wrong_use_ends_with_2_and_says_what_is_meant() {
    let site = Site::start();
    for (line, want) in [
        ("list device", "did you mean `eve device list`?"),
        ("devices show edge-1", "did you mean `eve device show edge-1`?"),
        ("device shwo edge-1", "'show'"),
        ("device show", "<NAME>"),
        ("device list --mach a=b", "'--match'"),
        ("rollout start r", "--filename <FILE|DIR>"),
        ("rollout start -f x.yml", "<NAME>"),
        ("slot set live.raw IMGA=on", "SLOT=MARK"),
        ("image push", "<FILE>"),
    ] {
        let (code, said) = site.fails(line);
        assert!(code == 2 && said.contains(want), "{line}: {said}");
    }
    // What was meant well and failed.
    for (line, want) in [
        ("apply nothing.yml", "eve: cannot read nothing.yml: "),
        ("device show edge-9", "eve: there is no Device edge-9"),
        ("mkfs ext4 -o nothing/x.img", "eve: there is no folder nothing for the image"),
        ("cache export x -o x.tar", "nothing was built or imported"),
        ("login https://127.0.0.1:1 --user ann", "cannot reach the controller"),
        ("convert --to vdi nothing.raw x.vdi", "cannot open nothing.raw: "),
        ("slot show nothing.raw", "cannot open nothing.raw: "),
        ("slot set nothing.raw IMGA=unused", "cannot open nothing.raw: "),
        ("build live", "is not in a clone of the repository"),
    ] {
        let (code, said) = site.fails(line);
        assert!(code == 1 && said.contains(want), "{line}: {said}");
    }
}
