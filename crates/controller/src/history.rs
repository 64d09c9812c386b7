//! How two versions of an object differ, field by field, in words.

use std::collections::BTreeSet;

use serde_json::Value;

/// Longer values are cut: what differs is the point, not all of it.
const VALUE_MAX: usize = 120;

/// How `now` differs from `then`, as `memory: "64MiB", now "128MiB"`. `None`: not there.
pub(crate) fn differences(then: Option<&Value>, now: Option<&Value>) -> Vec<String> {
    let mut all = Vec::new();
    match (then, now) {
        (None, None) => {}
        (None, Some(_)) => all.push("did not exist, exists now".to_owned()),
        (Some(_), None) => all.push("existed, does not now".to_owned()),
        (Some(then), Some(now)) => differ("", then, now, &mut all),
    }
    all
}

fn differ(path: &str, then: &Value, now: &Value, all: &mut Vec<String>) {
    if then == now {
        return;
    }
    let below =
        |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match (then, now) {
        (Value::Object(then), Value::Object(now)) => {
            let names: BTreeSet<&String> = then.keys().chain(now.keys()).collect();
            for name in names {
                let path = below(name);
                match (then.get(name), now.get(name)) {
                    (Some(then), Some(now)) => differ(&path, then, now, all),
                    (Some(then), None) => {
                        all.push(format!("{path}: {}, now not said", short(then)))
                    }
                    (None, Some(now)) => all.push(format!("{path}: not said, now {}", short(now))),
                    (None, None) => {}
                }
            }
        }
        (Value::Array(then), Value::Array(now)) if then.len() == now.len() => {
            for (at, (then, now)) in then.iter().zip(now).enumerate() {
                differ(&format!("{path}[{at}]"), then, now, all);
            }
        }
        _ => {
            let path = if path.is_empty() { "spec" } else { path };
            all.push(format!("{path}: {}, now {}", short(then), short(now)));
        }
    }
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= VALUE_MAX {
        return text;
    }
    let cut: String = text.chars().take(VALUE_MAX).collect();
    format!("{cut}…")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_field_that_differs_is_named() {
        let then = json!({"image": "a:1", "ports": ["80:80"], "env": {"A": "1", "B": "2"}, "x": 1});
        let now =
            json!({"image": "a:2", "ports": ["80:81"], "env": {"A": "1"}, "x": [1], "y": true});
        assert_eq!(
            differences(Some(&then), Some(&now)),
            [
                "env.B: \"2\", now not said",
                "image: \"a:1\", now \"a:2\"",
                "ports[0]: \"80:80\", now \"80:81\"",
                "x: 1, now [1]",
                "y: not said, now true",
            ]
        );
        assert!(differences(Some(&then), Some(&then)).is_empty());
        assert_eq!(differences(None, Some(&now)), ["did not exist, exists now"]);
        assert_eq!(differences(Some(&now), None), ["existed, does not now"]);
    }

    #[test]
    fn long_values_are_cut() {
        let long = json!({"a": "é".repeat(1000)});
        let all = differences(Some(&long), Some(&json!({})));
        assert!(all.iter().all(|line| line.chars().count() < 150), "{all:?}");
    }
}
