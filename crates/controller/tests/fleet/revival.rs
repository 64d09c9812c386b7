//! Devices that were deleted, and who they are when they come back.

use controller::client::ClientError;
use controller::view::{Applied, NewDevice, Version};
use hyper::StatusCode;

use crate::common::{Home, Node, device, now};
use crate::postgres::Postgres;

fn pem(certificate: &api::Certificate) -> Option<String> {
    Some(String::from_utf8(certificate.pem().to_vec()).unwrap())
}

/// Rolls a device back to its newest version that is no deletion.
async fn roll_back(home: &Home, name: &str) -> Result<Applied, ClientError> {
    let path = format!("/objects/device/{name}/history");
    let versions: Vec<Version> = home.operator().ask(&path).await.unwrap();
    let last = versions.iter().find(|v| v.spec.is_some()).unwrap();
    home.operator().send(&format!("{path}/{}", last.revision), "").await
}

async fn rolled_back(home: &Home, name: &str) -> Applied {
    roll_back(home, name).await.unwrap()
}

fn notes(applied: &Applied) -> String {
    applied.changes.iter().flat_map(|c| &c.notes).cloned().collect::<Vec<_>>().join("; ")
}

async fn answer(node: &Node, id: model::DeviceId) -> Option<StatusCode> {
    node.config(id, "", b"").await.err()
}

async fn a_deleted_device_comes_back_by_a_rollback_alone(mut home: Home) {
    let operator = home.operator();
    // By its own certificate, and without any serial number.
    let mut node = home.node("A1");
    let new = NewDevice {
        name: "edge-1".into(),
        certificate: pem(&node.certificate),
        ..NewDevice::default()
    };
    let id = operator.add_device(&new).await.unwrap().id;
    let told = node.config(id, "", b"").await.unwrap().unwrap();
    operator.ask_device("edge-1", "restart").await.unwrap();
    operator.delete("device", "edge-1", false).await.unwrap();
    assert_eq!(answer(&node, id).await, Some(StatusCode::NOT_FOUND));

    // A document of its name makes another node, and says so.
    let applied = operator.apply(&device("edge-1", "A1"), false).await.unwrap();
    assert!(notes(&applied).contains("eve rollback device edge-1"), "{applied:?}");
    assert_eq!(answer(&node, id).await, Some(StatusCode::NOT_FOUND));
    assert_ne!(operator.device("edge-1").await.unwrap().id, id);
    // Also a rollback of that one to what the other said.
    let path = "/objects/device/edge-1/history";
    let versions: Vec<Version> = operator.ask(path).await.unwrap();
    let first = versions.last().unwrap().revision;
    let applied: Applied = operator.send(&format!("{path}/{first}"), "").await.unwrap();
    assert!(notes(&applied).contains("of another node"), "{applied:?}");
    assert_eq!(answer(&node, id).await, Some(StatusCode::NOT_FOUND));
    operator.delete("device", "edge-1", false).await.unwrap();

    let applied: Applied = operator.send(&format!("{path}/{first}"), "").await.unwrap();
    assert!(notes(&applied).contains("its id and its certificate count again"), "{applied:?}");
    assert_eq!(operator.device("edge-1").await.unwrap().id, id);
    let (_, again) = node.config(id, "", b"").await.unwrap().unwrap();
    assert!(again.timestamp > told.1.timestamp, "configs do not go back in time");
    assert_ne!(again.power.reboot, told.1.power.reboot);
    assert!(again.power.reboot.is_some());
    let lines = operator.audit(&controller::AuditFilter::default()).await.unwrap();
    let said = |l: &controller::AuditRow| l.detail.contains("its certificate count again");
    assert!(lines.iter().any(said), "{lines:?}");

    // Somebody lets it in as a new node meanwhile.
    operator.delete("device", "edge-1", false).await.unwrap();
    operator.allow_serial("A1").await.unwrap();
    let other = node.onboard().await;
    assert_ne!(other, id);
    let name = operator.device(&other.to_string()).await.unwrap().name;
    let said = roll_back(&home, "edge-1").await.unwrap_err().to_string();
    assert!(said.contains(&format!("its certificate is that of Device {name} now")), "{said}");
    assert_eq!(node.uuid().await, Ok(other), "that one goes on");
    assert!(operator.device("edge-1").await.is_err(), "nothing is half back");
    // As the answer says, also after a start.
    operator.delete("device", &name, false).await.unwrap();
    home.again().await;
    node.port = home.port();
    let said = notes(&rolled_back(&home, "edge-1").await);
    assert!(said.contains("count again"), "{said}");
    assert_eq!(node.uuid().await, Ok(id));
}

async fn one_that_never_came_keeps_its_onboarding_certificate(home: Home) {
    let operator = home.operator();
    let mut node = home.node("B1");
    node.onboard_key = api::SigningKey::generate().unwrap();
    node.onboard = api::device_certificate(&node.onboard_key, now()).unwrap();
    let new = NewDevice {
        name: "edge-2".into(),
        soft_serial: "B1".into(),
        onboard_cert: pem(&node.onboard),
        ..NewDevice::default()
    };
    let id = operator.add_device(&new).await.unwrap().id;
    let shown = operator.device("edge-2").await.unwrap();
    let digest = hex::encode(node.onboard.digest().0);
    assert_eq!((shown.certificate, shown.onboard_certificate), (None, Some(digest)));
    operator.delete("device", "edge-2", false).await.unwrap();
    assert_eq!(node.register().await, StatusCode::FORBIDDEN);
    let applied = rolled_back(&home, "edge-2").await;
    assert_eq!(notes(&applied), "");
    assert_eq!(node.onboard().await, id);
    let shown = operator.device("edge-2").await.unwrap();
    assert_eq!(shown.certificate, Some(hex::encode(node.certificate.digest().0)));

    // Of one that nothing is kept of nothing is lost but what its object does not say.
    operator.apply(&device("edge-3", "C1"), false).await.unwrap();
    operator.delete("device", "edge-3", false).await.unwrap();
    assert_eq!(notes(&rolled_back(&home, "edge-3").await), "");
    let third = home.node("C1");
    third.onboard().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_device_comes_back_by_a_rollback_alone_sqlite() {
    a_deleted_device_comes_back_by_a_rollback_alone(Home::start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_device_comes_back_by_a_rollback_alone_postgres() {
    let server = Postgres::start();
    let home = Home::on(Some(server.location())).await;
    a_deleted_device_comes_back_by_a_rollback_alone(home).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_never_came_keeps_its_onboarding_certificate_sqlite() {
    one_that_never_came_keeps_its_onboarding_certificate(Home::start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_never_came_keeps_its_onboarding_certificate_postgres() {
    let server = Postgres::start();
    let home = Home::on(Some(server.location())).await;
    one_that_never_came_keeps_its_onboarding_certificate(home).await;
}
