//! How facts are printed: tables for people, JSON and YAML for programs, once or again and again.

use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use serde_json::Value;

use crate::out::{self, foreign::one_line};

/// Over the options that every command has which talks to a controller: below its own.
pub(crate) const HEADING: &str = "Which controller, and how it is shown";

/// `-o`, `--json`, `--watch`: of every command that talks to a controller.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Form {
    /// Facts as a table for people, as JSON, or as YAML: objects as `eve apply` takes them
    /// [default: table]
    #[arg(long, short, global = true, help_heading = HEADING, value_enum, value_name = "FORM")]
    output: Option<Output>,
    /// Facts as JSON: the same as -o json
    #[arg(long, global = true, help_heading = HEADING, conflicts_with = "output")]
    json: bool,
    /// Show facts again every so many seconds, until stopped; also after the controller was away
    #[arg(long, short, global = true, help_heading = HEADING, value_name = "SECONDS", num_args = 0..=1,
          require_equals = true, default_missing_value = "2",
          value_parser = clap::value_parser!(u64).range(1..))]
    watch: Option<u64>,
}

/// A form of facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
// What they are is said with the option: texts here would take a screen in the help of each command.
pub(crate) enum Output {
    Table,
    Json,
    Yaml,
}

impl Form {
    fn output(&self) -> Output {
        if self.json { Output::Json } else { self.output.unwrap_or(Output::Table) }
    }

    /// Whether objects are to be documents that `eve apply` takes.
    pub(crate) fn yaml(&self) -> bool {
        self.output() == Output::Yaml
    }

    /// Whether lines of a stream are to be JSON.
    pub(crate) fn json(&self) -> bool {
        self.output() == Output::Json
    }

    /// Prints what is asked for; again and again if it is to be watched.
    pub(crate) async fn print<T: Serialize>(
        &self,
        ask: impl AsyncFn() -> anyhow::Result<T>,
        people: impl Fn(&T) -> String,
    ) -> anyhow::Result<()> {
        loop {
            let facts = match (ask().await, self.watch) {
                (Ok(facts), _) => facts,
                // Who watches wants to see it come back.
                (Err(e), Some(seconds)) if out::may_pass(&e) => {
                    out::say_again(&e);
                    tokio::time::sleep(Duration::from_secs(seconds)).await;
                    continue;
                }
                (Err(e), _) => return Err(e),
            };
            let text = self.text(&facts, &people)?;
            let Some(seconds) = self.watch else {
                self.show(&text);
                return Ok(());
            };
            // A program reads one document after the other; a person one screen.
            match self.output() {
                Output::Table => out::screen(text.trim_end()),
                Output::Json => out::raw(text.trim_end()),
                Output::Yaml => out::raw(format_args!("---\n{}", text.trim_end())),
            }
            tokio::time::sleep(Duration::from_secs(seconds)).await;
        }
    }

    /// Prints what came of something: it happens once, whatever is to be watched.
    pub(crate) fn told<T: Serialize>(
        &self,
        facts: &T,
        people: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<()> {
        self.show(&self.text(facts, people)?);
        Ok(())
    }

    /// Says that something was done: `{"done": "…"}` as JSON.
    pub(crate) fn done(&self, said: &str) -> anyhow::Result<()> {
        self.told(&serde_json::json!({ "done": said }), |_| one_line(said).into_owned())
    }

    /// Nothing rather than an empty line.
    fn show(&self, text: &str) {
        match (text.trim_end(), self.output()) {
            ("", _) => {}
            (text, Output::Table) => out::text(text),
            (text, Output::Json | Output::Yaml) => out::raw(text),
        }
    }

    fn text<T: Serialize>(
        &self,
        facts: &T,
        people: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<String> {
        Ok(match self.output() {
            Output::Table => people(facts),
            Output::Json => out::json_text(facts)?,
            Output::Yaml => yaml(facts)?,
        })
    }
}

/// Objects become documents that `eve apply` takes; everything else what it is.
fn yaml(facts: &impl Serialize) -> anyhow::Result<String> {
    let value = serde_json::to_value(facts)?;
    let write = |value: &Value| serde_saphyr::to_string(value).context("cannot write YAML");
    let document = |value: &Value| match (value.get("kind"), value.get("name"), value.get("spec")) {
        (Some(kind), Some(name), Some(spec)) => {
            Some(serde_json::json!({ "kind": kind, "name": name, "spec": spec }))
        }
        _ => None,
    };
    let documents: Option<Vec<Value>> = match &value {
        Value::Array(all) => all.iter().map(document).collect(),
        one => document(one).map(|one| vec![one]),
    };
    match documents.filter(|all| !all.is_empty()) {
        Some(all) => Ok(all.iter().map(write).collect::<Result<Vec<_>, _>>()?.join("---\n")),
        None => write(&value),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use controller::objects;
    use serde_json::json;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        form: Form,
    }

    fn form(line: &[&str]) -> Result<Form, clap::Error> {
        Line::try_parse_from([&["eve"], line].concat()).map(|l| l.form)
    }

    #[test]
    fn one_form_is_chosen() {
        assert_eq!(form(&[]).unwrap().output(), Output::Table);
        assert!(form(&["--json"]).unwrap().json() && form(&["-o", "json"]).unwrap().json());
        assert!(form(&["--json", "-o", "yaml"]).is_err());
        assert_eq!(form(&["-w"]).unwrap().watch, Some(2));
        assert_eq!(form(&["--watch=9"]).unwrap().watch, Some(9));
        assert!(form(&["--watch=0"]).is_err());
        let text = form(&["-o", "json"]).unwrap().text(&7, |_| "seven".to_owned()).unwrap();
        assert_eq!(text, "7");
        assert_eq!(Form::default().text(&7, |_| "seven".to_owned()).unwrap(), "seven");
    }

    #[test]
    fn what_is_printed_as_yaml_can_be_applied() {
        let object = |name: &str| {
            json!({ "kind": "Volume", "name": name, "generation": 3, "changed": 0,
                    "spec": { "size": "1GiB" }, "flaws": [] })
        };
        let text = yaml(&[object("data"), object("more")]).unwrap();
        let documents = objects::read(&text).unwrap();
        let keys: Vec<String> = documents.iter().map(|d| d.key.to_string()).collect();
        assert_eq!(keys, ["Volume data", "Volume more"]);
        assert_eq!(documents[0].written, json!({ "size": "1GiB" }));
    }

    /// Readers of YAML 1.1, PyYAML and Ruby's among them, see numbers, times and truths in more
    /// texts than those of 1.2.
    #[test]
    fn texts_that_other_readers_take_for_more_are_quoted() {
        for text in [
            "10:30",
            "1:30:00",
            "0012",
            "012",
            "1_000",
            "0x1f",
            "0o17",
            "0b1",
            "1e3",
            "1.5",
            ".5",
            "+1",
            "yes",
            "No",
            "on",
            "OFF",
            "y",
            "n",
            "true",
            "null",
            "~",
            "",
            ".inf",
            "=",
            "<<",
            "2026-12-24",
            "2026-12-24T02:00:00+01:00",
            "- x",
            "a: b",
            "a #b",
            " a",
        ] {
            let written = yaml(&json!({ "value": text })).unwrap();
            let value = written.trim_end().strip_prefix("value: ").unwrap();
            assert!(value.starts_with(['"', '\'']), "{written}");
            let written = yaml(&json!({ text: 1 })).unwrap();
            assert!(written.starts_with(['"', '\'']), "{written}");
        }
        for text in ["edge-1", "10.0.0.0/24", "web:1.0", "1GiB", "a b"] {
            assert_eq!(yaml(&json!({ "value": text })).unwrap(), format!("value: {text}\n"));
        }
    }

    #[test]
    fn a_list_of_facts_stays_a_list() {
        let text = yaml(&json!([{ "name": "edge-1" }, { "name": "edge-2" }])).unwrap();
        let read: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(read, json!([{ "name": "edge-1" }, { "name": "edge-2" }]));
        let none: Value = serde_saphyr::from_str(&yaml(&json!([])).unwrap()).unwrap();
        assert_eq!(none, json!([]));
    }
}
