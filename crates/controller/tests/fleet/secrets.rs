//! Secrets at rest.

use controller::{Settings, Whole, backup, restore, serve};
use serde_json::{Value, json};
use sqlx::Row;

use crate::common::{Home, device, now};

const SECRET: &str = "{kind: Secret, name: wifi, spec: {value: hunter2-at-rest}}";

/// What became of the secret when it is applied again: `unchanged` if it could be read.
async fn again(home: &Home) -> controller::view::Action {
    home.operator().apply(SECRET, false).await.unwrap().changes[0].action
}

async fn stop(home: &mut Home) {
    home.running.take().unwrap().stop().await;
}

async fn database(home: &Home) -> sqlx::AnyPool {
    sqlx::any::install_default_drivers();
    let path = home.data().join("controller.db");
    sqlx::AnyPool::connect(&format!("sqlite://{}", path.display())).await.unwrap()
}

/// All files in a folder but those of the object store.
fn files(dir: &std::path::Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let entries = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    entries.filter(|p| p.is_file()).map(|p| (p.clone(), std::fs::read(p).unwrap())).collect()
}

#[tokio::test]
async fn a_secret_is_on_no_disk_in_clear_and_is_read_again() {
    let mut home = Home::start().await;
    home.operator().apply(SECRET, false).await.unwrap();
    // While it runs, the log of the database is there, too.
    for (path, bytes) in files(&home.data()) {
        let clear = bytes.windows(15).any(|w| w == b"hunter2-at-rest");
        assert!(!clear, "{}", path.display());
    }
    home.again().await;
    assert_eq!(again(&home).await, controller::view::Action::Unchanged);

    let mut file = Vec::new();
    let whole = |home: &Home| Whole { data: home.data(), database: None, blobs: None };
    backup(&whole(&home), &mut file, false, now()).await.unwrap();
    let mut second = Home::stopped();
    restore(file.as_slice(), &whole(&second), now()).await.unwrap();
    second.again().await;
    assert_eq!(again(&second).await, controller::view::Action::Unchanged);

    // Without its key there is nothing to start with, and the error says what to do.
    stop(&mut home).await;
    std::fs::remove_file(home.data().join("pki/secrets.key")).unwrap();
    let e = serve(Settings::new(home.data(), now)).await.unwrap_err();
    assert!(model::chain(&e).contains("pki/secrets.key"), "{}", model::chain(&e));
    let help = format!("{:?}", model::Diagnose::diagnose(&e));
    assert!(help.contains("copy pki/secrets.key"), "{help}");
}

#[tokio::test]
async fn secrets_that_were_stored_in_clear_are_sealed_at_the_next_start() {
    let mut home = Home::start().await;
    home.operator().apply(SECRET, false).await.unwrap();
    stop(&mut home).await;
    // As an older controller left it.
    let db = database(&home).await;
    for table in ["objects", "object_history"] {
        let set = format!("UPDATE {table} SET spec = $1 WHERE kind = 'Secret'");
        let set = sqlx::query(sqlx::AssertSqlSafe(set)).bind("{\"value\":\"hunter2-at-rest\"}");
        assert_eq!(set.execute(&db).await.unwrap().rows_affected(), 1, "{table}");
    }
    sqlx::query("DELETE FROM meta WHERE key LIKE 'secrets-%'").execute(&db).await.unwrap();
    db.close().await;
    home.again().await;
    assert_eq!(again(&home).await, controller::view::Action::Unchanged);
    let db = database(&home).await;
    for table in ["objects", "object_history"] {
        let get = format!("SELECT spec FROM {table} WHERE kind = 'Secret'");
        let row = sqlx::query(sqlx::AssertSqlSafe(get)).fetch_one(&db).await.unwrap();
        let spec: String = row.get(0);
        assert!(spec.starts_with("{\"sealed\":"), "{table}: {spec}");
    }
}

const IN_CLEAR: &str = "hunter2-at-rest";

/// Puts something secret wherever the database keeps it beside objects. Returns the token of a
/// session of EdgeView.
async fn put_secrets(home: &Home) -> String {
    let operator = home.operator();
    let both = device("edge-1", "one") + &device("edge-2", "two");
    operator.apply(&both, false).await.unwrap();
    operator.give_config("edge-1", format!(r#"{{"deviceName": "{IN_CLEAR}"}}"#)).await.unwrap();
    let wanted = json!({"dispatcher": "meet.example:4000", "minutes": 10, "instances": 1});
    let session: Value =
        operator.send("/devices/edge-2/edgeview", &wanted.to_string()).await.unwrap();
    let later = json!({"due": now().0 + 1_000_000_000, "documents": SECRET});
    operator.put("/scheduled/later", &later.to_string()).await.unwrap();
    let rule = json!({
        "rule": {"when": "silent", "minutes": 30, "url": "https://hooks.example/"},
        "secret": IN_CLEAR,
    });
    operator.put("/alert-rules/silent", &rule.to_string()).await.unwrap();
    session["token"].as_str().unwrap().to_owned()
}

async fn read_again(home: &Home) {
    let operator = home.operator();
    assert_eq!(operator.device_config("edge-1").await.unwrap()["deviceName"], IN_CLEAR);
    let given = operator.device("edge-1").await.unwrap().config_given.unwrap();
    assert_eq!(given.version, "1");
    let all: Vec<controller::view::Scheduled> = operator.ask("/scheduled").await.unwrap();
    assert!(all[0].documents.contains("wifi"), "{all:?}");
    let rules: Vec<controller::view::NamedRule> = operator.ask("/alert-rules").await.unwrap();
    assert!(rules[0].has_secret);
}

/// Which columns, and of which rows.
const SEALED: [(&str, &str, &str); 4] = [
    ("devices", "given", "given IS NOT NULL"),
    ("devices", "CAST(view_token AS BLOB)", "view_token IS NOT NULL"),
    ("scheduled", "CAST(documents AS BLOB)", "name = 'later'"),
    ("alert_rules", "secret", "name = 'silent'"),
];

async fn all_sealed(home: &Home) {
    let db = database(home).await;
    for (table, column, rows) in SEALED {
        let get = format!("SELECT {column} FROM {table} WHERE {rows}");
        let row = sqlx::query(sqlx::AssertSqlSafe(get)).fetch_one(&db).await.unwrap();
        let stored: Vec<u8> = row.get(0);
        assert!(stored.starts_with(b"{\"sealed\":"), "{table}.{column}: {stored:?}");
    }
    db.close().await;
}

#[tokio::test]
async fn what_may_hold_a_secret_is_sealed_like_one() {
    let mut home = Home::start().await;
    let token = put_secrets(&home).await;
    for (path, bytes) in files(&home.data()) {
        for clear in [IN_CLEAR, &token] {
            let found = bytes.windows(clear.len()).any(|w| w == clear.as_bytes());
            assert!(!found, "{clear} in {}", path.display());
        }
    }
    home.again().await;
    read_again(&home).await;
    all_sealed(&home).await;

    let mut file = Vec::new();
    let whole = |home: &Home| Whole { data: home.data(), database: None, blobs: None };
    backup(&whole(&home), &mut file, false, now()).await.unwrap();
    let mut second = Home::stopped();
    restore(file.as_slice(), &whole(&second), now()).await.unwrap();
    second.again().await;
    read_again(&second).await;
}

#[tokio::test]
async fn what_older_controllers_stored_in_clear_is_read_and_sealed() {
    let mut home = Home::start().await;
    put_secrets(&home).await;
    stop(&mut home).await;
    let config = api::pb::config::EdgeDevConfig {
        device_name: IN_CLEAR.to_owned(),
        ..api::pb::config::EdgeDevConfig::default()
    };
    let db = database(&home).await;
    for (set, value) in [
        ("devices SET given = $1 WHERE given IS NOT NULL", api::wire::encode(&config)),
        ("devices SET view_token = CAST($1 AS TEXT) WHERE view_token IS NOT NULL", "a.b.c".into()),
        ("scheduled SET documents = CAST($1 AS TEXT)", SECRET.into()),
        ("alert_rules SET secret = $1", IN_CLEAR.into()),
    ] {
        let set = sqlx::query(sqlx::AssertSqlSafe(format!("UPDATE {set}"))).bind(value);
        assert_eq!(set.execute(&db).await.unwrap().rows_affected(), 1);
    }
    let forget = "DELETE FROM meta WHERE key = 'secrets-sealed'";
    assert_eq!(sqlx::query(forget).execute(&db).await.unwrap().rows_affected(), 1);
    db.close().await;
    home.again().await;
    read_again(&home).await;
    all_sealed(&home).await;
}
