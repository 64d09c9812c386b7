use std::fmt::Write as _;

use super::*;

/// A node by a word: `/` a folder, `-> x` a link, `== x` a hard link, else a file with the text.
fn node(word: &str, mtime: i64) -> Node<Vec<u8>> {
    let meta = Meta { mtime, ..Meta::default() };
    let kind = if word == "/" {
        Kind::Folder
    } else if let Some(to) = word.strip_prefix("-> ") {
        Kind::Symlink(to.into())
    } else if let Some(to) = word.strip_prefix("== ") {
        Kind::Same(to.into())
    } else {
        let at = word.as_bytes().to_vec();
        Kind::File(Content { size: Bytes(at.len() as u64), digest: None, at })
    };
    Node { meta, kind }
}

fn tree(nodes: &[(&str, &str)]) -> Result<Tree<Vec<u8>>, InsertError> {
    let mut tree = Tree::new();
    for (time, (path, word)) in (1..).zip(nodes) {
        tree.insert(*path, node(word, time))?;
    }
    Ok(tree)
}

fn dump(tree: &Tree<Vec<u8>>) -> String {
    let mut text = String::new();
    for (path, node) in tree.iter() {
        let what = match &node.kind {
            Kind::Folder => "/".to_owned(),
            Kind::File(content) => show(&content.at).into_owned(),
            Kind::Symlink(to) => format!("-> {}", show(to)),
            Kind::Same(to) => format!("== {}", show(to)),
            other => format!("{other:?}"),
        };
        writeln!(text, "{} {what}", show(path)).unwrap();
    }
    text
}

#[track_caller]
fn check(nodes: &[(&str, &str)], expect: expect_test::Expect) {
    expect.assert_eq(&tree(nodes).map_or_else(|e| e.to_string(), |t| dump(&t)));
}

#[test]
fn what_is_put_last_counts_and_parents_appear_first() {
    check(
        &[("etc/hosts", "old"), ("etc-x", "1"), ("etc", "/"), ("etc/hosts", "new")],
        expect_test::expect![[r#"
             /
            etc /
            etc-x 1
            etc/hosts new
        "#]],
    );
}

#[test]
fn hard_links_lead_to_files_not_to_links() {
    check(
        &[("z", "body"), ("a", "== z"), ("b", "== a")],
        expect_test::expect![[r#"
             /
            a == z
            b == z
            z body
        "#]],
    );
}

#[test]
fn hard_links_keep_what_was_replaced_under_its_other_name() {
    check(
        &[("z", "old"), ("a", "== z"), ("b", "== z"), ("z", "new"), ("c", "== a"), ("a", "== c")],
        expect_test::expect![[r#"
             /
            a old
            b == a
            c == a
            z new
        "#]],
    );
}

#[test]
fn the_first_name_of_a_node_can_be_made_its_place() {
    let mut tree = tree(&[("m", "body"), ("z", "== m"), ("b", "== m"), ("a", "other")]).unwrap();
    tree.settle_links();
    expect_test::expect![[r#"
         /
        a other
        b body
        m == b
        z == b
    "#]]
    .assert_eq(&dump(&tree));
    assert_eq!(tree.links_to(b"b").count(), 2);
}

#[test]
fn what_cannot_be_is_refused() {
    let refused: [&[(&str, &str)]; 7] = [
        &[("lib/x", "m"), ("lib", "-> usr/lib")],
        &[("lib", "-> usr/lib"), ("lib/x", "m")],
        &[("a", "== a")],
        &[("a", "== b"), ("b", "later")],
        &[("d", "/"), ("a", "== d")],
        &[("a/../b", "x")],
        &[("", "file")],
    ];
    let said: Vec<String> =
        refused.iter().map(|nodes| tree(nodes).unwrap_err().to_string()).collect();
    expect_test::expect![[r#"
        "lib" is no folder, but "lib/x" lies in it
        "lib/x" lies below "lib", which is no folder
        "a" is a hard link to "a", which is no file
        "a" is a hard link to "b", which is no file
        "a" is a hard link to "d", which is no file
        "a/../b" is no path
        the root is a folder and nothing else"#]]
    .assert_eq(&said.join("\n"));
    let long = "n".repeat(NAME_MAX + 1);
    assert!(matches!(tree(&[(&long, "x")]), Err(InsertError::Path(_))));
}

#[test]
fn removing_takes_what_is_below_and_leaves_hard_links_whole() {
    let nodes = [("boot/kernel", "k"), ("boot-2", "2"), ("vmlinuz", "== boot/kernel")];
    let mut tree = tree(&nodes).unwrap().without(|path| path == b"boot");
    expect_test::expect![[r#"
         /
        boot-2 2
        vmlinuz k
    "#]]
    .assert_eq(&dump(&tree));
    assert!(tree.remove(b"boot-2") && !tree.remove(b"boot-2"));
    assert!(tree.remove(b""));
    assert_eq!(tree.entries(), 1);
}

#[test]
fn files_are_found_through_links() {
    let tree = tree(&[
        ("usr/sbin/eve-init", "elf"),
        ("sbin", "-> usr/sbin"),
        ("etc/os-release", "-> ../usr/lib/os-release"),
        ("usr/lib/os-release", "ID=eve"),
        ("loop", "-> loop"),
        ("up", "-> ../../usr"),
        ("init", "== sbin"),
    ])
    .unwrap();
    let read = |path: &str| tree.file(path.as_bytes()).map(|c| show(&c.at).into_owned());
    assert_eq!(read("sbin/eve-init").as_deref(), Some("elf"));
    assert_eq!(read("/etc/os-release").as_deref(), Some("ID=eve"));
    assert_eq!(read("up/sbin/eve-init").as_deref(), Some("elf"));
    assert_eq!(read("init/eve-init").as_deref(), Some("elf"));
    assert_eq!(read("loop").or(read("usr")).or(read("usr/none")), None);
    let names: Vec<_> = tree.children(b"usr").map(|(name, _)| show(name)).collect();
    assert_eq!(names, ["lib", "sbin"]);
    assert_eq!(tree.latest(), 7 - 1);
}

#[test]
fn paths_are_cleaned_and_split() {
    assert_eq!(clean(b"./a//b/").as_deref(), Some(&b"a/b"[..]));
    assert_eq!(clean(b"/").as_deref(), Some(&b""[..]));
    assert_eq!(clean(b"a/../b"), None);
    assert_eq!(split(b"a/b/c"), Some((&b"a/b"[..], &b"c"[..])));
    assert_eq!(split(b"a"), Some((&b""[..], &b"a"[..])));
    assert_eq!(split(b""), None);
}
