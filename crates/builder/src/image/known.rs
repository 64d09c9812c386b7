//! What is known of files in the CONFIG partition: mistakes that would strand a node are found before
//! the image is written, not where it is installed. Files that are not known here may hold anything,
//! unless they are called almost like one that is known.

use std::fmt;

use formats::fat::Files;
use model::installer::{ANSWERS, WISHES};

use crate::near::{distance, nearest};

/// What lies in a CONFIG partition has at most so many bytes as a serialized message.
const MESSAGE_MAX: usize = 1 << 20;

/// A file of the CONFIG partition that no node could use.
#[derive(Debug, PartialEq, Eq)]
pub struct Unusable {
    /// Its path.
    pub path: String,
    /// What is wrong with it, as a verb.
    pub what: String,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in the CONFIG partition {}", self.path, self.what)
    }
}

impl std::error::Error for Unusable {}

/// Looks at the files that are known.
pub(super) fn check(files: &Files) -> Result<(), Unusable> {
    for (path, body) in files {
        let checked = check_name(path).and_then(|()| check_one(path, body));
        checked.map_err(|what| Unusable { path: path.clone(), what })?;
    }
    Ok(())
}

/// What EVE and its makers put into a CONFIG partition, and what ours reads there.
const NAMES: [&str; 29] = [
    "DevicePortConfig/override.json",
    "DevicePortConfig/override.json.template",
    "DevicePortConfig/usb.json",
    "GlobalConfig/global.json",
    "accept-older-config",
    "authorized_keys",
    "bootstrap-config.pb",
    "device.cert.pem",
    "device.key.pem",
    "ecdh.cert.pem",
    "ecdh.key.pem",
    "eve.dtb",
    "ftpm.tar.xz",
    "grub.cfg",
    "grub.cfg.tmpl",
    "hosts",
    ANSWERS,
    "onboard.cert.pem",
    "onboard.key.pem",
    "remote_access_disabled",
    "root-certificate.pem",
    "server",
    "soft_serial",
    "tpm_credential",
    "usb.json",
    "v2tlsbaseroot-certificates.pem",
    "wpa_supplicant.conf",
    "dump/",
    "identity/",
];

/// Refuses what is called almost like a file that is known: nobody would read it. Two letters are a
/// slip of the fingers; more are another name.
fn check_name(path: &str) -> Result<(), String> {
    let slip = |known: &str| distance(&path.to_ascii_lowercase(), &known.to_ascii_lowercase()) <= 2;
    match nearest(path, NAMES) {
        Some(known) if known != path && slip(known) => {
            Err(format!("is read by nobody: did you mean {known}?"))
        }
        _ => Ok(()),
    }
}

fn check_one(path: &str, body: &[u8]) -> Result<(), String> {
    let must = |good: bool, what: &str| if good { Ok(()) } else { Err(what.to_owned()) };
    match path {
        ANSWERS => check_answers(body),
        "server" => {
            must(line(body).is_some_and(is_server), "is not one line with a host, or host:port")
        }
        "soft_serial" => must(
            line(body).is_some_and(is_serial),
            "is not one line of 1 to 250 printable ASCII characters",
        ),
        "bootstrap-config.pb" => must(
            is_message(body),
            "is no serialized message: take the file as the controller gives it",
        ),
        _ if path.ends_with(".pem") => must(
            find(body, b"-----BEGIN ") && find(body, b"-----END "),
            "is not PEM: it has no BEGIN and END line",
        ),
        _ if ["usb.json", "GlobalConfig/global.json"].contains(&path)
            || path.starts_with("DevicePortConfig/") && path.ends_with(".json") =>
        {
            let json = serde_json::from_slice::<serde_json::Value>(body);
            must(json.is_ok_and(|v| v.is_object()), "is no JSON object")
        }
        _ => Ok(()),
    }
}

/// The names that the installer would not know. What it makes of the values is its own affair.
fn check_answers(body: &[u8]) -> Result<(), String> {
    let all: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(body).map_err(|e| format!("is no JSON object: {e}"))?;
    for name in all.keys() {
        if WISHES.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            continue;
        }
        let meant = match nearest(name, WISHES) {
            Some(known) => format!("did you mean {known}?"),
            None => format!("there are {}", WISHES.join(", ")),
        };
        return Err(format!(
            "has the name {name:?}, which means nothing to the installer: {meant}"
        ));
    }
    Ok(())
}

/// The only line of a text; a line feed behind it, and blanks around it, do not count.
fn line(body: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(body).ok()?.trim();
    (!text.is_empty() && !text.contains(['\n', '\r'])).then_some(text)
}

/// `host`, `host:port`, `1.2.3.4:port`, `[::1]:port`.
fn is_server(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, port)) if host.parse::<std::net::Ipv6Addr>().is_ok() => (None, port),
            _ => return false,
        },
        None => match text.split_once(':') {
            Some((host, _)) => (Some(host), &text[host.len()..]),
            None => (Some(text), ""),
        },
    };
    let host_is_good = host.is_none_or(|host| {
        let label = |l: &str| {
            !l.is_empty()
                && l.len() <= 63
                && !l.starts_with('-')
                && l.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        };
        host.len() <= 253 && host.strip_suffix('.').unwrap_or(host).split('.').all(label)
    });
    let port_is_good = match port.strip_prefix(':') {
        Some(port) => port.parse::<u16>().is_ok_and(|p| p > 0) && !port.starts_with('+'),
        None => port.is_empty(),
    };
    host_is_good && port_is_good
}

fn is_serial(text: &str) -> bool {
    text.len() <= 250 && text.chars().all(|c| c.is_ascii_graphic() || c == ' ')
}

fn find(body: &[u8], what: &[u8]) -> bool {
    body.windows(what.len()).any(|w| w == what)
}

/// Whether these bytes are fields of a protobuf message, one behind the other to the last byte.
fn is_message(mut body: &[u8]) -> bool {
    if body.is_empty() || body.len() > MESSAGE_MAX {
        return false;
    }
    while !body.is_empty() {
        let Some((tag, rest)) = varint(body) else { return false };
        let skip = match tag & 7 {
            0 => varint(rest).map(|(_, after)| rest.len() - after.len()),
            1 => Some(8),
            2 => varint(rest).and_then(|(length, after)| {
                usize::try_from(length).ok()?.checked_add(rest.len() - after.len())
            }),
            5 => Some(4),
            _ => None,
        };
        let next = skip.filter(|_| tag >> 3 != 0).and_then(|n| rest.get(n..));
        let Some(next) = next else { return false };
        body = next;
    }
    true
}

/// A number of 7 bits a byte, and what is behind it.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (place, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7F) << (place * 7).min(63);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[place + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(path: &str, body: &[u8]) {
        assert!(check_one(path, body).is_err(), "{path} {:?}", String::from_utf8_lossy(body));
    }

    #[track_caller]
    fn taken(path: &str, body: &[u8]) {
        assert_eq!(check_one(path, body), Ok(()), "{path} {:?}", String::from_utf8_lossy(body));
    }

    #[test]
    fn a_server_is_a_host_and_perhaps_a_port() {
        for good in ["localhost", "a.example:8443\n", "10.0.2.2:443", "[fe80::1]:8443", "[::1]"] {
            taken("server", good.as_bytes());
        }
        for bad in ["", "\n", "http://a.example", "a b", "a:0", "a:70000", "a:", "a..b", "a\nb"] {
            refused("server", bad.as_bytes());
        }
        for bad in ["[::1", "[x]:1", "[::1]8", "-a", "a:+1", "a:1:2", "a/b", "\u{e9}.example"] {
            refused("server", bad.as_bytes());
        }
    }

    #[test]
    fn a_serial_number_can_be_printed() {
        taken("soft_serial", b"EVE 2026-0001\n");
        refused("soft_serial", b"tab\there");
        refused("soft_serial", &[b'x'; 251]);
        refused("soft_serial", "\u{fc}".as_bytes());
    }

    #[test]
    fn a_bootstrap_config_is_a_whole_message() {
        let message = b"\x0a\x03abc\x10\x96\x01\x1d\x01\x02\x03\x04";
        taken("bootstrap-config.pb", message);
        for cut in [0, 1, 4, 7, 11] {
            refused("bootstrap-config.pb", &message[..cut]);
        }
        refused("bootstrap-config.pb", b"{\"json\": 1}");
        refused("bootstrap-config.pb", b"\x02\x01a"); // field 0
    }

    #[test]
    fn a_certificate_is_pem_and_a_port_config_is_json() {
        taken(
            "root-certificate.pem",
            b"-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n",
        );
        refused("root-certificate.pem", b"\x30\x82\x01");
        taken("DevicePortConfig/override.json", b"{\"Version\": 1}");
        refused("DevicePortConfig/override.json", b"{");
        taken("DevicePortConfig/override.json.template", b"anything");
        taken("hosts", b"anything");
        refused("GlobalConfig/global.json", b"[]");
    }

    #[test]
    fn what_is_called_almost_like_a_known_file_is_refused_by_the_name_it_should_have() {
        for (path, known) in [
            ("soft_serail", "soft_serial"),
            ("Server", "server"),
            ("onboard.cert.pen", "onboard.cert.pem"),
            ("root-certificates.pem", "root-certificate.pem"),
            ("DevicePortConfig/overide.json", "DevicePortConfig/override.json"),
            ("installer.jsn", "installer.json"),
        ] {
            let said = check_name(path).unwrap_err();
            assert_eq!(said, format!("is read by nobody: did you mean {known}?"), "{path}");
        }
        for path in NAMES.iter().chain(&[
            "notes.txt",
            "origin.2026-11-22.1.0",
            "vendor/site.json",
            "vpn.cert.pem",
        ]) {
            assert_eq!(check_name(path), Ok(()), "{path}");
        }
    }

    #[test]
    fn answers_have_names_that_the_installer_knows() {
        taken(ANSWERS, br#"{"eve_install_disk": "sda", "EVE_REBOOT_AFTER_INSTALL": true}"#);
        taken(ANSWERS, b"{}");
        for (name, meant) in [
            ("eve_install_dsik", "did you mean eve_install_disk?"),
            ("install_disk", "did you mean eve_install_disk?"),
            ("console", "there are eve_blackbox, "),
        ] {
            let answers = serde_json::json!({ name: "sda" }).to_string();
            let said = check_one(ANSWERS, answers.as_bytes()).unwrap_err();
            assert!(said.contains(&format!("{name:?}")) && said.contains(meant), "{said}");
        }
        refused(ANSWERS, b"[]");
        refused(ANSWERS, b"{");
    }
}
