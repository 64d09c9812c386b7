//! Every route that the sources name, asked without credentials and with each role: the table is
//! the golden. A new route that is not in it fails the test.

use expect_test::expect_file;
use hyper::{Method, StatusCode};
use serde_json::Value;

use crate::access::{Site, cookie, password};

/// The routes of a file: path and methods, as its `.route(…)` lines say.
fn routes(source: &str, base: &str) -> Vec<(String, Vec<Method>)> {
    let mut found = Vec::new();
    for part in source.split(".route(").skip(1) {
        let Some((path, rest)) =
            part.trim_start().strip_prefix('"').and_then(|p| p.split_once('"'))
        else {
            continue;
        };
        // Until the next call of the chain, or its end.
        let handlers = rest.split("\n        .").next().unwrap_or_default();
        let handlers = handlers.split("\n}").next().unwrap_or_default();
        let named = [
            ("get(", Method::GET),
            ("post(", Method::POST),
            ("put(", Method::PUT),
            ("patch(", Method::PATCH),
            ("delete(", Method::DELETE),
        ];
        let is = |word: &str| {
            handlers
                .match_indices(word)
                .any(|(at, _)| !handlers[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
        };
        let methods: Vec<Method> =
            named.into_iter().filter(|(word, _)| is(word)).map(|(_, m)| m).collect();
        assert!(!methods.is_empty(), "{path}: no method on its line");
        let path = if path == "/" && !base.is_empty() { "" } else { path };
        found.push((format!("{base}{path}"), methods));
    }
    found
}

/// All routes of the operator API and of the pages.
pub(crate) fn all() -> Vec<(String, Vec<Method>)> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    let mut found = Vec::new();
    for (folder, base) in [("operator", "/api/operator/v1"), ("web", "")] {
        let mut files: Vec<_> = std::fs::read_dir(format!("{source}/{folder}"))
            .unwrap()
            .map(|f| f.unwrap().path())
            .filter(|p| p.extension().is_some_and(|e| e == "rs"))
            .collect();
        files.sort();
        for file in files {
            found.extend(routes(&std::fs::read_to_string(file).unwrap(), base));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    // One path may stand in several places.
    found.dedup_by(|b, a| a.0 == b.0 && a.1 == b.1);
    found
}

/// The path with a name for each placeholder.
fn filled(path: &str) -> String {
    let parts = path.split('/').map(|p| match p {
        "{kind}" => "volume",
        p if p.starts_with('{') => "none",
        p => p,
    });
    parts.collect::<Vec<_>>().join("/")
}

#[tokio::test]
async fn each_role_may_do_what_the_table_says() {
    let site = Site::start().await;
    let mut who = vec![("nobody".to_owned(), String::new(), String::new())];
    for (name, role, projects) in [
        ("limited", "operator", &["a"][..]),
        ("viewer-1", "viewer", &[]),
        ("operator-1", "operator", &[]),
        ("admin-1", "admin", &[]),
    ] {
        site.user(name, role, projects).await;
        who.push((name.to_owned(), String::new(), String::new()));
    }
    let mut table = String::from("# method path: status for");
    for (name, ..) in &who {
        table.push(' ');
        table.push_str(name);
    }
    table.push('\n');
    for (path, methods) in all() {
        // Its answer does not end.
        for method in methods.into_iter().filter(|_| path != "/live") {
            table.push_str(&format!("{method} {path}:"));
            for (name, token, session) in &mut who {
                // Some calls end what they come with.
                let ended = ["/me", "/account", "/log"].iter().any(|part| path.contains(part));
                if name != "nobody" && token.is_empty() {
                    *token = site.token(name).await;
                    let form = format!("name={name}&password={}", password(name).replace(' ', "+"));
                    let entered = site.browse(Method::POST, "/login", "", &form).await;
                    assert_eq!(entered.0, StatusCode::SEE_OTHER, "{name}");
                    *session = cookie(&entered.1);
                }
                let path = filled(&path);
                let status = match path.strip_prefix("/api/operator/v1") {
                    Some(path) => site.call(token, method.clone(), path, Value::Null).await.0,
                    None => site.browse(method.clone(), &path, session, "").await.0.as_u16(),
                };
                if ended {
                    token.clear();
                }
                table.push_str(&format!(" {status}"));
            }
            table.push('\n');
        }
    }
    expect_file!["routes.txt"].assert_eq(&table);
}

#[test]
fn routes_are_found_in_sources() {
    let source = r#"
        .route("/", get(root))
        .route("/a/{b}", get(one).put(two).delete(three))
        .route_layer(x)
        .route(
            "/long",
            post(four),
        )
}
        get("no route of ours")
    "#;
    let found = routes(source, "/base");
    assert_eq!(
        found,
        [
            ("/base".to_owned(), vec![Method::GET]),
            ("/base/a/{b}".to_owned(), vec![Method::GET, Method::PUT, Method::DELETE]),
            ("/base/long".to_owned(), vec![Method::POST]),
        ]
    );
    assert_eq!(filled("/a/{b}/c"), "/a/none/c");
}
