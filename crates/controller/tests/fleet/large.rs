//! The pages of a hundred thousand nodes: what they hold and how much they send.

use std::collections::BTreeMap;
use std::time::Instant;

use api::convert::info;
use controller::{Settings, serve};
use hyper::{Method, StatusCode};
use model::desired::{Power, Properties};
use model::reported::{Boot, BootReason, ConfigSource, ControllerStatus, Standing};
use model::{DeviceId, Diagnosis, Problem, Who};
use sqlx::Connection as _;

use crate::access::{Site, cookie};
use crate::common::now;

const NODES: i64 = 100_000;
/// What one page may send: a hundred rows and a few hundred choices.
const PAGE_MAX: usize = 150_000;
/// Dots of nodes that stand close together are one.
const MAP_MAX: usize = 1_000_000;

/// Nodes of five sites: one of ten is silent, one of a thousand refuses a setting, and all
/// of one site say where they stand.
const FILL: &str = "
    CREATE TEMP TABLE n AS
        WITH RECURSIVE count(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM count WHERE i < $NODES)
        SELECT i, CAST(substr('0000000000000000' || i, -16) AS BLOB) AS id FROM count;
    INSERT INTO objects SELECT 'Device', printf('node-%06d', i), id, json_object(
            'soft_serial', 's' || i,
            'labels', json_object(
                'site', CASE i % 5 WHEN 0 THEN 'berlin' WHEN 1 THEN 'lyon' WHEN 2 THEN 'oslo' WHEN 3 THEN 'milan' ELSE 'madrid' END,
                'rack', 'r' || (i % 997),
                CASE i % 5 WHEN 0 THEN 'location' ELSE 'floor' END,
                CASE i % 5 WHEN 0 THEN printf('%.2f,%.2f', 45 + (i % 1000) / 100.0, 5 + (i % 1300) / 100.0) ELSE 'f1' END)),
        1, 0, 0, NULL, $NOW FROM n;
    INSERT INTO devices (id, serial, soft_serial, wildcard, registered_ms, reboots)
        SELECT id, '', 's' || i, 0, $NOW, 0 FROM n;
    INSERT INTO seen SELECT id, CASE WHEN i % 10 = 0 THEN $NOW - 9000000 ELSE $NOW - i % 60000 END, NULL FROM n;
    INSERT INTO infos (device, kind, subject, at_ms, received_ms, payload)
        SELECT id, 'device', '', $NOW, $NOW - i, CASE WHEN i % 1000 = 7 THEN x'$BROKEN' ELSE x'$WELL' END FROM n;
    DROP TABLE n;
";

/// What a node says of itself.
fn said(version: &str, interval: &str) -> Vec<u8> {
    let boot = Boot {
        reason: BootReason::PowerFail,
        detail: String::new(),
        count: 1,
        started: now(),
        timeline: Vec::new(),
        version: version.into(),
        slot: "IMGA".into(),
    };
    let controller = ControllerStatus {
        server: "localhost".into(),
        last_contact: None,
        problem: None,
        config: ConfigSource::Controller,
        config_timestamp: None,
        refused: Vec::new(),
        node_name: "edge".into(),
        forgotten: false,
        standing: Standing::default(),
    };
    let key = "timer.config.interval".to_owned();
    let items = BTreeMap::from([(key.clone(), interval.to_owned())]);
    let mut properties = Properties::default();
    if interval.parse::<u32>().is_err() {
        let advice = Diagnosis::of(Who::Operator, "write seconds");
        properties.problems.insert(key, Problem::new("no number", advice, now()));
    }
    let facts = info::DeviceFacts {
        machine: &info::Machine::default(),
        boot: &boot,
        ports: &[],
        controller: &controller,
        properties: &properties,
        items: &items,
        power: Power { reboot: Some(0), shutdown: None },
    };
    info::device(DeviceId::new(uuid::Uuid::nil()), now(), &facts)
}

async fn site() -> Site {
    let mut site = Site::start().await;
    site.home.running.take().unwrap().stop().await;
    let text = FILL
        .replace("$NODES", &NODES.to_string())
        .replace("$NOW", &now().0.to_string())
        .replace("$WELL", &hex::encode(said("1.0.0", "60")))
        .replace("$BROKEN", &hex::encode(said("0.9.4", "never")));
    let url = format!("sqlite://{}", site.home.data().join("controller.db").display());
    let mut db = sqlx::AnyConnection::connect(&url).await.unwrap();
    let text = format!("BEGIN; {text} COMMIT;");
    sqlx::raw_sql(sqlx::AssertSqlSafe(text)).execute(&mut db).await.unwrap();
    db.close().await.unwrap();
    site.home.running = Some(serve(Settings::new(site.home.data(), now)).await.unwrap());
    site.node.port = site.home.port();
    site
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_a_hundred_thousand_nodes_are_small() {
    let began = Instant::now();
    let site = site().await;
    println!("filled and started in {:?}", began.elapsed());
    let form = format!("token={}", site.root);
    let (status, headers, _) = site.browse(Method::POST, "/login", "", &form).await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    let cookie = cookie(&headers);
    for (path, holds, rows, most) in [
        // The first one reads what all nodes said.
        ("/", "10000 silent", 100, PAGE_MAX),
        ("/", "90000</b>online", 100, PAGE_MAX),
        ("/?part=1", "page 1 of 1000", 100, PAGE_MAX),
        ("/?part=1&page=1000", "node-100000", 100, PAGE_MAX),
        ("/?part=1&q=node-04242", "10 nodes", 10, PAGE_MAX),
        ("/?part=1&q=no+such+node", "No node is so", 0, PAGE_MAX),
        ("/?part=1&state=silent", "10000 nodes", 100, PAGE_MAX),
        ("/?part=1&state=problem&sort=problems", "100 nodes", 100, PAGE_MAX),
        ("/?part=1&version=0.9.4", "100 nodes", 100, PAGE_MAX),
        ("/?part=1&label=site%3Dberlin%2C+rack+in+(r1%2C+r2)", "40 nodes", 40, PAGE_MAX),
        ("/?part=1&sort=-seen", "page 1 of 1000", 100, PAGE_MAX),
        ("/map", "nodes do not say where they stand", 0, MAP_MAX),
    ] {
        let began = Instant::now();
        let (status, _, page) = site.browse(Method::GET, path, &cookie, "").await;
        let took = began.elapsed();
        let kib = page.len() / 1024;
        println!("{path}: {took:?}, {kib} KiB");
        assert_eq!(status, StatusCode::OK, "{path}");
        assert!(page.contains(holds), "{path} does not say {holds:?}: {page:.2000}");
        assert_eq!(page.matches("class=\"name\"").count(), rows, "{path}");
        assert!(page.len() < most, "{path} sends {kib} KiB");
    }
}
