//! Secrets at rest.

use controller::{Settings, Whole, backup, restore, serve};
use sqlx::Row;

use crate::common::{Home, now};

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
    sqlx::query("DELETE FROM meta WHERE key = 'secrets-key'").execute(&db).await.unwrap();
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
