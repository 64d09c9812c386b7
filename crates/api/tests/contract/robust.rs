//! Foreign bytes: recorded messages with every byte changed, and cut at every place, never do more
//! than fail.

use api::convert::{config, view};
use api::onboarding::{Named, Registration};
use api::pb::config::EdgeDevConfig;
use api::{certs, envelope, limits, newlogs, wire};
use model::Bytes;

use crate::common::{device_id, golden, now, one_of, vector};

/// Calls `read` with every change of the recorded bytes. It says whether it read them; a reader that
/// always or never does is not tested.
#[track_caller]
fn check(name: &str, read: impl Fn(&[u8]) -> bool) {
    let bytes = vector(name);
    let (mut good, mut bad) = (0, 0);
    let mut count = |read: bool| if read { good += 1 } else { bad += 1 };
    for at in 0..bytes.len() {
        count(read(&bytes[..at]));
        for flip in [0x01, 0x08, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[at] ^= flip;
            count(read(&changed));
        }
    }
    assert!(good > 0 && bad > 0, "{name}: {good} read, {bad} refused");
}

#[test]
fn envelopes() {
    if !golden() {
        return;
    }
    check("envelope/req-register.AuthContainer.pb", |bytes| {
        let Ok(received) = envelope::open(bytes, limits::ONBOARDING) else { return false };
        received.sender().is_ok() && received.sender_certificate().is_ok()
    });
}

#[test]
fn an_answer_with_certificates_is_believed_as_it_is_or_not_at_all() {
    if !golden() {
        return;
    }
    let root = vector("pki/root-certificate.pem");
    let body = vector("envelope/resp-certs.AuthContainer.pb");
    let real = certs::learn(&body, &root, now()).unwrap();
    for at in 0..body.len() {
        let mut changed = body.clone();
        changed[at] ^= 1;
        if let Ok(learnt) = certs::learn(&changed, &root, now()) {
            assert_eq!(learnt, real, "byte {at}");
        }
    }
}

#[test]
fn registrations_and_names() {
    if !golden() {
        return;
    }
    check("envelope/zregistermsg.pb", |bytes| Registration::from_payload(bytes).is_ok());
    check("envelope/uuidresponse.pb", |bytes| Named::from_payload(bytes).is_ok());
}

#[test]
fn configs_and_what_is_understood_survives_writing() {
    if !golden() {
        return;
    }
    let own = device_id();
    check("config/container-app.EdgeDevConfig.pb", |bytes| {
        let Ok(message) = wire::decode::<EdgeDevConfig>(bytes, limits::CONFIG) else {
            return false;
        };
        let Ok(mut device) = config::read(&message, own) else { return false };
        device.refused.clear();
        assert_eq!(config::read(&config::write(&device), own).unwrap(), device);
        true
    });
}

#[test]
fn infos() {
    if !golden() {
        return;
    }
    check("telemetry/info-device.ZInfoMsg.pb", |bytes| view::info(bytes).is_ok());
}

#[test]
fn log_files() {
    if !golden() {
        return;
    }
    check(&one_of("newlogs", "dev.log.", ".gz"), |bytes| {
        newlogs::unpack(bytes, Bytes::kib(64)).is_ok_and(|file| file.entries().all(|e| e.is_ok()))
    });
}
