//! Certificates for public names, from Pebble: an ACME server for tests.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use controller::listener::AcmeSettings;

use crate::common::{Home, Node, dial_as};

const NAME: &str = "eve.example.org";

/// A server and the name server that it asks; both end with their value.
struct Pebble {
    programs: [Child; 2],
    port: u16,
    management: u16,
    certificate: String,
}

impl Drop for Pebble {
    fn drop(&mut self) {
        for program in &mut self.programs {
            let _ = program.kill();
            let _ = program.wait();
        }
    }
}

fn port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

impl Pebble {
    /// Starts one that checks names at `tls_port` of this machine. `None`: it is not installed.
    fn start(dir: &std::path::Path, tls_port: u16) -> Option<Pebble> {
        let quiet = |command: &mut Command| {
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
        };
        let (port, management, dns) = (port(), port(), port());
        let mut names = Command::new("pebble-challtestsrv");
        names.args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""]);
        names.args(["-dns01", &format!("127.0.0.1:{dns}"), "-management", "127.0.0.1:0"]);
        let Ok(names) = quiet(&mut names) else {
            assert!(std::env::var_os("EVE_JUDGES").is_none(), "pebble is not installed");
            println!("left out: there is no pebble; `cargo xtask setup --for-tests`");
            return None;
        };
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = own.cert.pem();
        std::fs::write(dir.join("cert.pem"), &certificate).unwrap();
        std::fs::write(dir.join("key.pem"), own.signing_key.serialize_pem()).unwrap();
        let config = serde_json::json!({"pebble": {
            "listenAddress": format!("127.0.0.1:{port}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": dir.join("cert.pem"), "privateKey": dir.join("key.pem"),
            "httpPort": 1, "tlsPort": tls_port,
            "ocspResponderURL": "", "externalAccountBindingRequired": false,
        }});
        std::fs::write(dir.join("pebble.json"), config.to_string()).unwrap();
        let mut pebble = Command::new("pebble");
        pebble.arg("-config").arg(dir.join("pebble.json"));
        pebble.args(["-dnsserver", &format!("127.0.0.1:{dns}")]);
        pebble.env("PEBBLE_VA_NOSLEEP", "1");
        let pebble = quiet(&mut pebble).unwrap();
        let pebble = Pebble { programs: [pebble, names], port, management, certificate };
        for wanted in [port, management] {
            for _ in 0..300 {
                if std::net::TcpStream::connect(("127.0.0.1", wanted)).is_ok() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        Some(pebble)
    }
}

#[tokio::test]
async fn a_public_name_gets_a_certificate_and_other_names_keep_ours() {
    let at = port();
    let mut home = Home::stopped();
    let dir = tempfile::tempdir().unwrap();
    let Some(pebble) = Pebble::start(dir.path(), at) else { return };
    let directory = format!("https://localhost:{}/dir", pebble.port);
    let acme = AcmeSettings {
        directory,
        contact: Some("ops@example.org".to_owned()),
        roots_pem: pebble.certificate.clone().into_bytes(),
    };
    home.again_with(|settings| {
        settings.listen = ([127, 0, 0, 1], at).into();
        settings.names.push(NAME.to_owned());
        settings.acme = Some(acme.clone());
    })
    .await;
    let node = home.node("1");
    let server = Node {
        port: pebble.management,
        root_pem: pebble.certificate.clone().into_bytes(),
        ..home.node("2")
    };
    let (status, root) = server.get("/roots/0").await;
    assert_eq!(status, 200);
    for patience in (0..300).rev() {
        if dial_as(NAME, at, &root).await.is_ok() {
            break;
        }
        assert_ne!(patience, 0, "there is no certificate");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    node.dial().await.expect("who knows us as localhost sees what it trusts");
    dial_as("localhost", at, &root).await.expect_err("that one is for the public name");

    // Kept: it is shown again by the next run, which asks nobody.
    drop((pebble, server));
    home.again_with(|settings| {
        settings.listen = ([127, 0, 0, 1], at).into();
        settings.names.push(NAME.to_owned());
        settings.acme = Some(acme);
    })
    .await;
    let kept = dial_as(NAME, at, &root).await;
    kept.expect("the certificate of the last run");
    for file in ["acme.json", "acme-account.json"] {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(home.data().join("tls").join(file)).unwrap();
        assert_eq!(mode.permissions().mode() & 0o777, 0o600, "{file}");
    }
}

#[tokio::test]
async fn names_that_nobody_knows_are_refused_at_the_start() {
    let home = Home::stopped();
    let acme = AcmeSettings {
        directory: controller::listener::LETS_ENCRYPT.to_owned(),
        contact: None,
        roots_pem: Vec::new(),
    };
    let settings = controller::Settings {
        acme: Some(acme),
        ..controller::Settings::new(home.data(), crate::common::now)
    };
    let e = controller::serve(settings).await.unwrap_err();
    assert!(model::chain(&e).contains("public host name"), "{e:?}");
}
