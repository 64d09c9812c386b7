//! Which node is meant: by its name, its id or one of its serial numbers.

use controller::client::Client;
use controller::objects::{Key, Kind};
use controller::view;

use crate::out::{self, OrAdvise};

/// The name of the node that a person means. A name comes before an id, that before serial numbers;
/// several nodes with one serial number are refused.
pub(crate) async fn named(client: &Client, text: &str) -> anyhow::Result<String> {
    chosen(text, &client.devices_named(text).await.or_advise()?)
}

/// The same for an object of any kind: others have only names.
pub(crate) async fn of_kind(client: &Client, kind: &str, name: &str) -> anyhow::Result<String> {
    if kind.parse() != Ok(Kind::Device) {
        return Ok(name.to_owned());
    }
    // One that was removed is known by its name only.
    let found = client.devices_named(name).await.or_advise()?;
    if found.is_empty() { Ok(name.to_owned()) } else { chosen(name, &found) }
}

fn chosen(text: &str, found: &[view::Device]) -> anyhow::Result<String> {
    match found {
        [one] => Ok(one.name.clone()),
        [] => Err(out::advised(
            format!("there is no {}", Key::new(Kind::Device, text)),
            "name a node by its name, id or serial number; `eve device list` has them",
        )),
        several => {
            let names: Vec<&str> = several.iter().map(|d| d.name.as_str()).collect();
            Err(out::advised(
                format!("{text:?} is the serial number of {}", names.join(" and of ")),
                "name one of them",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> view::Device {
        let value = serde_json::json!({
            "id": "00000000-0000-4000-8000-000000000001", "name": name, "state": "online",
            "seen": null, "registered": null, "serial": "SN", "soft_serial": "", "version": "",
            "slot": "", "config_in_force": null, "hardware": "", "boot": null, "ports": [],
            "usage": null, "apps": [], "networks": [], "pending": [], "problems": [],
        });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn one_node_is_meant_or_those_that_could_be_are_named() {
        assert_eq!(chosen("SN", &[node("edge-1")]).unwrap(), "edge-1");
        let none = chosen("SN", &[]).unwrap_err().to_string();
        assert_eq!(none, "there is no Device SN");
        let several = chosen("SN", &[node("edge-1"), node("edge-2")]).unwrap_err().to_string();
        assert_eq!(several, "\"SN\" is the serial number of edge-1 and of edge-2");
    }
}
