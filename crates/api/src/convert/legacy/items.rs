//! `GlobalConfig/global.json`: settings, as EVE keeps them itself.
//!
//! ```json
//! {"GlobalSettings": {"timer.metric.interval":
//!     {"Key": "timer.metric.interval", "ItemType": 1, "IntValue": 88}},
//!  "AgentSettings": {"nim": {"debug.loglevel": {"ItemType": 3, "StrValue": "debug"}}}}
//! ```

use std::collections::BTreeMap;

use serde_json::Value;

use super::fields::{Fields, entries};
use super::{LegacyError, json};
use crate::convert::refuse::{Rejected, no};

/// Settings by key, as a config would write them; whether a key is known and its value good is for
/// [`crate::convert::items::properties`] to say, as with those of a config. The setting `KEY` of agent
/// `NAME` has the key `agent.NAME.KEY`.
///
/// A file that is not of this form is refused as a whole.
pub fn items(file: &[u8]) -> Result<BTreeMap<String, String>, LegacyError> {
    let Some(json) = json(file)? else { return Ok(BTreeMap::new()) };
    let file = Fields::of(String::new(), &json)?;
    let mut items = BTreeMap::new();
    for (key, path, value) in file.map("GlobalSettings")? {
        items.insert(key.to_owned(), item(key, path, value)?);
    }
    for (agent, path, settings) in file.map("AgentSettings")? {
        for (key, path, value) in entries(&path, settings)? {
            items.insert(format!("agent.{agent}.{key}"), item(key, path, value)?);
        }
    }
    Ok(items)
}

fn item(key: &str, path: String, value: &Value) -> Result<String, Rejected> {
    let fields = Fields::of(path, value)?;
    let own = fields.text("Key")?;
    if !own.is_empty() && own != key {
        return Err(no(fields.path("Key"), own, "the key it stands under"));
    }
    Ok(match fields.number("ItemType", u32::MAX)? {
        1 => fields.number("IntValue", u32::MAX)?.to_string(),
        2 => fields.flag("BoolValue")?.to_string(),
        3 => fields.text("StrValue")?.to_owned(),
        4 => match fields.number("TriStateValue", 2)? {
            0 => "none",
            1 => "disabled",
            _ => "enabled",
        }
        .to_owned(),
        other => {
            let kinds = "a number (1), true or false (2), text (3) or one of three (4)";
            return Err(no(fields.path("ItemType"), other, kinds));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(file: &str, text: &str) {
        let why = items(file.as_bytes()).expect_err(file);
        let said = model::chain(&why);
        assert!(said.contains(text), "{said}");
    }

    #[test]
    fn what_eve_writes_is_read_as_a_config_would_write_it() {
        let file = r#"{
            "GlobalSettings": {
                "timer.metric.interval": {
                    "Key": "timer.metric.interval", "ItemType": 1, "IntValue": 88, "StrValue": "",
                    "BoolValue": false, "TriStateValue": 0
                },
                "newlog.allow.fastupload": {"itemtype": 2, "boolValue": true},
                "debug.enable.ssh": {"ItemType": 3, "StrValue": "ssh-ed25519 AAAA"},
                "network.fallback.any.eth": {"ItemType": 4, "TriStateValue": 1},
                "airgap.mode": {"ItemType": 4, "TriStateValue": 2},
                "maintenance.mode": {"ItemType": 4},
                "debug.enable.usb": {"ItemType": 2, "BoolValue": null}
            },
            "AgentSettings": {"nim": {"debug.loglevel": {"ItemType": 3, "StrValue": "warn"}}},
            "Other": 7
        }"#;
        let want = [
            ("agent.nim.debug.loglevel", "warn"),
            ("airgap.mode", "enabled"),
            ("debug.enable.ssh", "ssh-ed25519 AAAA"),
            ("debug.enable.usb", "false"),
            ("maintenance.mode", "none"),
            ("network.fallback.any.eth", "disabled"),
            ("newlog.allow.fastupload", "true"),
            ("timer.metric.interval", "88"),
        ];
        let got = items(file.as_bytes()).unwrap();
        let got: Vec<_> = got.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(got, want);
        for (key, value) in got {
            assert_eq!(crate::convert::items::check_item(key, value), Ok(()), "{key}");
        }
    }

    #[test]
    fn a_file_that_says_nothing_is_no_mistake() {
        for file in ["", " \n", "{}", r#"{"GlobalSettings": null}"#, r#"{"GlobalSettings": {}}"#] {
            assert!(items(file.as_bytes()).unwrap().is_empty(), "{file:?}");
        }
    }

    #[test]
    fn what_is_of_another_form_is_refused_by_the_name_of_its_field() {
        refused("{", "it is no JSON: EOF");
        refused("[]", "the file: it is no object");
        refused(r#"{"GlobalSettings": []}"#, "GlobalSettings: \"[]\" is not an object");
        refused(r#"{"GlobalSettings": {"k": 1}}"#, r#"GlobalSettings["k"]: it is no object"#);
        refused(r#"{"GlobalSettings": {"k": {}}}"#, r#"GlobalSettings["k"].ItemType: "0" is not"#);
        refused(
            r#"{"GlobalSettings": {"k": {"ItemType": 1, "IntValue": -1}}}"#,
            r#"GlobalSettings["k"].IntValue: "-1" is not 0 to"#,
        );
        refused(
            r#"{"GlobalSettings": {"k": {"ItemType": 4, "TriStateValue": 3}}}"#,
            r#"TriStateValue: "3" is not 0 to 2"#,
        );
        refused(
            r#"{"GlobalSettings": {"k": {"ItemType": 1, "Key": "l"}}}"#,
            r#"GlobalSettings["k"].Key: "l" is not the key it stands under"#,
        );
        refused(
            r#"{"GlobalSettings": {"k": {"ItemType": 1, "itemType": 2}}}"#,
            "it is there twice",
        );
        refused(
            r#"{"AgentSettings": {"nim": {"k": {"ItemType": 3, "StrValue": 4}}}}"#,
            r#"AgentSettings["nim"]["k"].StrValue: "4" is not a text"#,
        );
        refused(&"[".repeat(100_000), "recursion limit");
        refused(&" ".repeat(300_000), "more than");
    }
}
