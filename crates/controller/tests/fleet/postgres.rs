//! What several controllers on one PostgreSQL database do.

use std::time::Duration;

use api::convert::attest::{Answer as AttestAnswer, Quote, Request as AttestRequest};
use controller::Location;
use controller::view::Action;
use hyper::StatusCode;
use sqlx::Connection as _;

use crate::common::Home;
use crate::device_api::attest;
pub(crate) use crate::postgres_server::Postgres;
use crate::stores::log_file;

impl Postgres {
    pub(crate) fn location(&self) -> Location {
        Location::Postgres(self.url())
    }
}

const APP: &str = "kind: App\nname: hello\nspec: {device: \"*\", image: \"apps/hello\", datastore: far}\n\
                   ---\nkind: Datastore\nname: far\nspec: {type: registry, host: registry.example}\n";

#[tokio::test(flavor = "multi_thread")]
async fn two_controllers_serve_one_fleet() {
    let server = Postgres::start();
    let one = Home::on(Some(server.location())).await;
    let two = one.twin().await;
    std::fs::copy(one.data().join("admin.token"), two.data().join("admin.token")).unwrap();
    one.operator().allow_serial("*").await.unwrap();

    // Registers with one, is known to the other at once.
    let mut node = one.node("A1");
    assert_eq!(node.register().await, StatusCode::CREATED);
    node.port = two.port();
    let id = node.uuid().await.unwrap();
    assert_eq!(node.register().await, StatusCode::OK);

    // A nonce of one, a quote to the other, once.
    node.port = one.port();
    let AttestAnswer::Nonce(nonce) = attest(&node, id, AttestRequest::Nonce).await else {
        panic!()
    };
    node.port = two.port();
    let quote = || AttestRequest::Quote(Quote { data: nonce.clone(), ..Quote::default() });
    let AttestAnswer::Quote(Ok(admission)) = attest(&node, id, quote()).await else { panic!() };
    node.port = one.port();
    assert!(matches!(attest(&node, id, quote()).await, AttestAnswer::Quote(Err(_))));
    assert!(node.config(id, "", &admission.token).await.unwrap().is_some());

    // Groups lie in the database only: where one stopped, the other goes on.
    for (home, query, action) in [
        (&one, "site=a", Action::Created),
        (&two, "site=b", Action::Changed),
        (&one, "site=b", Action::Unchanged),
    ] {
        let group = format!("kind: Group\nname: shops\nspec: {{query: '{query}'}}\n");
        let applied = home.operator().apply(&group, false).await.unwrap();
        assert_eq!(applied.changes[0].action, action, "{query}");
    }

    // What is applied at one is told by the other; both tell the same.
    one.operator().apply(APP, false).await.unwrap();
    let mut told = Vec::new();
    for home in [&one, &two] {
        node.port = home.port();
        let mut config = node.config(id, "", &admission.token).await.unwrap().unwrap();
        for _ in 0..50 {
            if config.1.apps.len() == 1 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            config = node.config(id, "", &admission.token).await.unwrap().unwrap();
        }
        told.push(config);
    }
    assert_eq!(told[0].1.apps.len(), 1);
    assert_eq!(told[0], told[1], "one hash and one time stamp, whichever controller tells");

    // A token that is taken away at one is believed by neither, though the other remembers it.
    one.operator().ask_device(&id.to_string(), "attest").await.unwrap();
    for home in [&one, &two] {
        node.port = home.port();
        let mut answer = node.config(id, "", &admission.token).await;
        for _ in 0..50 {
            if answer.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            answer = node.config(id, "", &admission.token).await;
        }
        assert_eq!(answer.map(|_| ()), Err(StatusCode::FORBIDDEN));
    }
    let lines = one.operator().audit(&controller::AuditFilter::default()).await.unwrap();
    assert!(lines.iter().any(|l| l.action == "asked to attest again"), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_with_another_root_does_not_start() {
    let server = Postgres::start();
    let one = Home::on(Some(server.location())).await;
    let dir = tempfile::tempdir().unwrap();
    let settings = controller::Settings {
        database: one.database.clone(),
        ..controller::Settings::new(dir.path().join("data"), crate::common::now)
    };
    let refused = controller::serve(settings).await.unwrap_err();
    assert!(refused.to_string().contains("another root certificate"), "{refused}");
    assert!(!dir.path().join("data").exists(), "a backup can be restored there");
    // Nor does a server that is not there leave anything.
    let nowhere = Location::Postgres("postgres://eve@localhost/x?host=/nowhere".to_owned());
    let settings = controller::Settings {
        database: Some(nowhere),
        ..controller::Settings::new(dir.path().join("data"), crate::common::now)
    };
    let refused = controller::serve(settings).await.unwrap_err();
    assert!(model::chain(&refused).contains("cannot open the database"), "{refused:?}");
    assert!(!dir.path().join("data").exists());
}

/// A fleet without controllers on another machine: who comes with another folder leaves no trace.
#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_serve_a_fleet_notes_nothing_in_it() {
    let server = Postgres::start();
    let mut one = Home::on(Some(server.location())).await;
    one.running.take().unwrap().stop().await;
    let url = match server.location() {
        controller::Location::Postgres(url) => url,
        controller::Location::File(_) => unreachable!("it is PostgreSQL"),
    };
    // As after a restore, which brings the secrets and no root.
    let mut raw = sqlx::AnyConnection::connect(&url).await.unwrap();
    sqlx::query("DELETE FROM meta WHERE key = 'root'").execute(&mut raw).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let settings = controller::Settings {
        database: one.database.clone(),
        ..controller::Settings::new(dir.path().join("data"), crate::common::now)
    };
    let refused = controller::serve(settings).await.unwrap_err();
    assert!(model::chain(&refused).contains("sealed with key"), "{refused:?}");
    one.again().await;
}

/// Who reads on behind the last id of one controller while another still writes a smaller one.
#[tokio::test(flavor = "multi_thread")]
async fn who_reads_on_misses_nothing_that_ends_late() {
    let server = Postgres::start();
    let one = Home::on(Some(server.location())).await;
    let two = one.twin().await;
    std::fs::copy(one.data().join("admin.token"), two.data().join("admin.token")).unwrap();
    one.operator().allow_serial("*").await.unwrap();
    let mut node = one.node("A1");
    let id = node.onboard().await.to_string();
    node.port = two.port();
    let path = format!("id/{id}/newlogs");
    assert_eq!(node.post(&path, &log_file(1, 1)).await.0, StatusCode::CREATED);

    let operator = one.operator();
    let event = operator.events(0, 100).await.unwrap().last().unwrap().id;
    let all = controller::AuditFilter::default();
    let audited = operator.audit(&all).await.unwrap().last().unwrap().id;
    let line = operator.logs(&id, None, 0, 100).await.unwrap().last().unwrap().id;

    // A transaction as of another controller, that takes its ids and ends late.
    let Location::Postgres(url) = server.location() else { panic!() };
    let mut late = sqlx::AnyConnection::connect(&url).await.unwrap();
    let write = "BEGIN;
        INSERT INTO events (at_ms, object, text) VALUES (1, 'late', 'late');
        INSERT INTO audit (at_ms, author, action, object, detail) VALUES (1, 'late', '', '', '');
        INSERT INTO log_bundles (device, app, digest, received_ms, raw, blob, size)
            SELECT device, app, '\\x00', received_ms, raw, blob, size FROM log_bundles";
    sqlx::raw_sql(write).execute(&mut late).await.unwrap();
    two.operator().apply(APP, false).await.unwrap();
    assert_eq!(node.post(&path, &log_file(2, 1)).await.0, StatusCode::CREATED);

    let which = controller::AuditFilter { after: audited, ..all };
    let mut readers = Vec::new();
    for home in [&one, &two] {
        let (operator, which, id) = (home.operator(), which.clone(), id.clone());
        readers.push(tokio::spawn(async move {
            let events = operator.events(event, 100).await.unwrap();
            let audit = operator.audit(&which).await.unwrap();
            let lines = operator.logs(&id, None, line, 100).await.unwrap();
            (
                events.iter().map(|e| e.text.clone()).collect::<Vec<_>>(),
                audit.iter().map(|l| l.author.clone()).collect::<Vec<_>>(),
                lines.iter().map(|l| l.content[..6].to_owned()).collect::<Vec<_>>(),
            )
        }));
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    sqlx::raw_sql("COMMIT").execute(&mut late).await.unwrap();
    for reader in readers {
        let (events, audit, lines) = reader.await.unwrap();
        assert_eq!(events[0], "late", "{events:?}");
        assert!(events.len() > 1, "{events:?}");
        assert_eq!(audit[0], "late", "{audit:?}");
        assert!(audit.len() > 1, "{audit:?}");
        assert_eq!(lines, ["file 1", "file 2"]);
    }

    // One that does not end holds up who reads on, and nobody else; nothing is skipped.
    let event = operator.events(0, 100).await.unwrap().last().unwrap().id;
    sqlx::raw_sql("BEGIN; INSERT INTO events (at_ms, object, text) VALUES (1, 'later', 'later')")
        .execute(&mut late)
        .await
        .unwrap();
    two.operator().delete("App", "hello", false).await.unwrap();
    assert_eq!(operator.events(event, 100).await.unwrap(), []);
    assert!(operator.events(0, 100).await.unwrap().last().unwrap().id > event);
    sqlx::raw_sql("ROLLBACK").execute(&mut late).await.unwrap();
    let news = operator.events(event, 100).await.unwrap();
    assert!(news.iter().all(|e| e.text == "deleted") && !news.is_empty(), "{news:?}");
}

/// Two processes that hear of the same nodes must lock their rows in the same order.
#[tokio::test(flavor = "multi_thread")]
async fn notes_of_who_was_seen_are_written_in_one_order() {
    let server = Postgres::start();
    let one = Home::on(Some(server.location())).await;
    one.operator().allow_serial("*").await.unwrap();
    let mut nodes = Vec::new();
    for n in 0..16 {
        let node = one.node(&format!("A{n}"));
        let id = node.onboard().await;
        nodes.push((node, id));
    }
    let poll = async || {
        for (node, id) in &nodes {
            node.config(*id, "", b"").await.unwrap();
        }
    };
    let Location::Postgres(url) = server.location() else { panic!() };
    let mut other = sqlx::AnyConnection::connect(&url).await.unwrap();
    let mut count = 0;
    for _ in 0..300 {
        let row = sqlx::query("SELECT COUNT(*) FROM seen").fetch_one(&mut other).await.unwrap();
        count = sqlx::Row::get::<i64, _>(&row, 0);
        if count == 16 {
            break;
        }
        poll().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(count, 16);
    // As another process that has written the first of them.
    let first = "BEGIN; SELECT 1 FROM seen ORDER BY device LIMIT 1 FOR UPDATE";
    sqlx::raw_sql(first).execute(&mut other).await.unwrap();
    poll().await;
    let waits = "SELECT COUNT(*) FROM pg_locks WHERE NOT granted";
    for _ in 0..300 {
        let row = sqlx::query(waits).fetch_one(&mut other).await.unwrap();
        count = sqlx::Row::get::<i64, _>(&row, 0);
        if count > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(count > 0, "nobody waits for the first");
    let rest = "SET LOCAL lock_timeout = '500ms'; SELECT 1 FROM seen FOR UPDATE; COMMIT";
    sqlx::raw_sql(rest).execute(&mut other).await.unwrap();
}
