//! `eve volume|image|datastore|…`: objects of one kind, listed, shown and deleted. One
//! implementation for all kinds that have no commands of their own.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use controller::client::{Client, escaped};
use controller::objects::{Key, Kind};
use controller::view::Object;
use serde::Serialize;
use serde_json::Value;

use crate::fleet::{To, ago};
use crate::out::{self, OrAdvise, WrongUse};

/// A cell of a table shows at most so many characters.
const CELL_MAX: usize = 48;
/// A secret of at most this size is read; the controller takes documents of at most 1 MiB.
const SECRET_MAX: u64 = 512 << 10;

/// `eve volume …`, `eve image …`, …
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Disks and folders for apps: list, show, delete
    Volume(Of),
    /// What nodes download: list, show, delete, push
    Image {
        #[command(flatten)]
        to: To,
        #[command(subcommand)]
        command: ImageCommand,
    },
    /// Where images come from: list, show, delete
    Datastore(Of),
    /// Models of boxes: list, show, delete
    Hardware(Of),
    /// Images that nodes themselves run: list, show, delete
    BaseOs(Of),
    /// Values that are shown to nobody: list, set, delete
    Secret {
        #[command(flatten)]
        to: To,
        #[command(subcommand)]
        command: SecretCommand,
    },
    /// Ways to get certificates: list, show, delete
    Enrolment(Of),
    /// Files for apps: list, show, delete
    Patch(Of),
    /// What people and their rights are grouped by: list, show, delete
    Project(Of),
    /// What nodes have in common: list, show, delete
    Template(Of),
}

/// One kind of objects.
#[derive(Debug, clap::Args)]
pub(crate) struct Of {
    #[command(flatten)]
    to: To,
    #[command(subcommand)]
    command: ObjectCommand,
}

/// What is done with objects of a kind.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ObjectCommand {
    /// All of them
    List(Form),
    /// One of them, as it was written
    Show {
        /// Its name
        name: String,
        #[command(flatten)]
        form: Form,
    },
    /// Remove one
    Delete {
        /// Its name
        name: String,
        /// Also if others refer to it
        #[arg(long)]
        force: bool,
    },
}

/// `eve image …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ImageCommand {
    #[command(flatten)]
    Of(ObjectCommand),
    /// Bring a file to the controller, for nodes to download: a disk image, an ISO
    ///
    /// What is there already is not sent again: after an interruption the same command goes on.
    Push {
        /// The file
        file: PathBuf,
        /// Its name there [default: that of the file]
        #[arg(long)]
        name: Option<String>,
    },
    /// The files that are there
    Files(Form),
}

/// `eve secret …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum SecretCommand {
    /// All of them, without their values
    List(Form),
    /// Make one, or give one another value: read from standard input
    ///
    /// `eve secret set wifi < password.txt`. A line break at the end is no part of it.
    Set {
        /// Its name
        name: String,
    },
    /// Remove one
    Delete {
        /// Its name
        name: String,
        /// Also if others refer to it
        #[arg(long)]
        force: bool,
    },
}

/// How facts are printed.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Form {
    /// As what [default: table]; `--json` comes before it
    #[arg(long, short, value_enum, value_name = "FORM")]
    output: Option<Output>,
    /// Print again every so many seconds, until stopped
    #[arg(long, short, value_name = "SECONDS", num_args = 0..=1, require_equals = true,
          default_missing_value = "2", value_parser = clap::value_parser!(u64).range(1..))]
    watch: Option<u64>,
}

/// A form of facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// For people
    Table,
    /// For programs
    Json,
    /// As `eve apply` takes it
    Yaml,
}

pub(crate) fn run(command: Command) -> anyhow::Result<()> {
    crate::controller::runtime()?.block_on(perform(command))
}

async fn perform(command: Command) -> anyhow::Result<()> {
    let (kind, of) = match command {
        Command::Image { to, command: ImageCommand::Push { file, name } } => {
            return crate::push::file(&to, &file, name.as_deref()).await;
        }
        Command::Image { to, command: ImageCommand::Files(form) } => {
            return crate::push::list(&to, &form).await;
        }
        Command::Image { to, command: ImageCommand::Of(command) } => {
            (Kind::Image, Of { to, command })
        }
        Command::Secret { to, command: SecretCommand::Set { name } } => {
            return set_secret(&to, &name).await;
        }
        Command::Secret { to, command: SecretCommand::List(form) } => {
            (Kind::Secret, Of { to, command: ObjectCommand::List(form) })
        }
        Command::Secret { to, command: SecretCommand::Delete { name, force } } => {
            (Kind::Secret, Of { to, command: ObjectCommand::Delete { name, force } })
        }
        Command::Volume(of) => (Kind::Volume, of),
        Command::Datastore(of) => (Kind::Datastore, of),
        Command::Hardware(of) => (Kind::Hardware, of),
        Command::BaseOs(of) => (Kind::BaseOs, of),
        Command::Enrolment(of) => (Kind::Enrolment, of),
        Command::Patch(of) => (Kind::Patch, of),
        Command::Project(of) => (Kind::Project, of),
        Command::Template(of) => (Kind::Template, of),
    };
    let client = of.to.client()?;
    match of.command {
        ObjectCommand::List(form) => {
            form.print(&of.to, async || all(&client, kind).await, |all| table(all)).await
        }
        ObjectCommand::Show { name, form } => {
            let path = format!("/objects/{}/{}", kind.name(), escaped(&name));
            let one = async || client.ask::<Object>(&path).await.or_advise();
            form.print(&of.to, one, shown).await
        }
        ObjectCommand::Delete { name, force } => {
            client.delete(kind.name(), &name, force).await.or_advise()?;
            out::line(format_args!("{} deleted", Key::new(kind, name)));
            Ok(())
        }
    }
}

async fn all(client: &Client, kind: Kind) -> anyhow::Result<Vec<Object>> {
    let mut all = client.objects().await.or_advise()?;
    all.retain(|o| o.key.kind == kind);
    Ok(all)
}

impl Form {
    /// Prints what is asked for in this form; again and again if it is to be watched.
    pub(crate) async fn print<T: Serialize>(
        &self,
        to: &To,
        ask: impl AsyncFn() -> anyhow::Result<T>,
        people: impl Fn(&T) -> String,
    ) -> anyhow::Result<()> {
        let output = if to.json() { Output::Json } else { self.output.unwrap_or(Output::Table) };
        loop {
            let facts = ask().await?;
            let text = match output {
                Output::Table => people(&facts),
                Output::Json => serde_json::to_string_pretty(&facts)?,
                Output::Yaml => yaml(&facts)?,
            };
            let Some(seconds) = self.watch else {
                out::line(text.trim_end());
                return Ok(());
            };
            // A program reads one document after the other; a person one screen.
            match output {
                Output::Table => out::screen(text.trim_end()),
                Output::Json => out::line(text.trim_end()),
                Output::Yaml => out::line(format_args!("---\n{}", text.trim_end())),
            }
            tokio::time::sleep(Duration::from_secs(seconds)).await;
        }
    }
}

/// Objects become documents that `eve apply` takes; everything else what it is.
fn yaml(facts: &impl Serialize) -> anyhow::Result<String> {
    let value = serde_json::to_value(facts)?;
    let all = match value {
        Value::Array(all) => all,
        one => vec![one],
    };
    let document = |value: Value| {
        let value = match (value.get("kind"), value.get("name"), value.get("spec")) {
            (Some(kind), Some(name), Some(spec)) => {
                serde_json::json!({ "kind": kind, "name": name, "spec": spec })
            }
            _ => value,
        };
        serde_saphyr::to_string(&value).context("cannot write YAML")
    };
    let all: Vec<String> = all.into_iter().map(document).collect::<Result<_, _>>()?;
    Ok(all.join("---\n"))
}

/// Name, generation and age, and what each kind says in its fields.
fn table(all: &[Object]) -> String {
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|o| {
            let flaws: Vec<String> =
                o.flaws.iter().map(|f| format!("{}: {}", f.field, f.text)).collect();
            vec![
                o.key.name.clone(),
                o.generation.to_string(),
                ago(Some(o.changed)),
                out::short(&summary(&o.spec), CELL_MAX),
                flaws.join("; "),
            ]
        })
        .collect();
    out::aligned(&["name", "generation", "changed", "says", "problems"], &rows)
}

/// The plain fields of a spec: `size: 1GiB, type: disk`.
fn summary(spec: &Value) -> String {
    let Value::Object(fields) = spec else { return String::new() };
    let plain = fields.iter().filter_map(|(name, value)| match value {
        Value::String(text) => Some(format!("{name}: {text}")),
        Value::Number(number) => Some(format!("{name}: {number}")),
        Value::Bool(is) => Some(format!("{name}: {is}")),
        Value::Array(all) => Some(format!("{name}: {} of them", all.len())),
        Value::Object(_) => Some(format!("{name}: {{…}}")),
        Value::Null => None,
    });
    plain.collect::<Vec<_>>().join(", ")
}

fn shown(one: &Object) -> String {
    let mut text =
        format!("{}, generation {}, changed {}\n", one.key, one.generation, ago(Some(one.changed)));
    for flaw in &one.flaws {
        text.push_str(&format!("problem: {}: {}\n", flaw.field, flaw.text));
    }
    text.push_str(&serde_saphyr::to_string(&one.spec).unwrap_or_else(|_| one.spec.to_string()));
    text
}

async fn set_secret(to: &To, name: &str) -> anyhow::Result<()> {
    use std::io::Read as _;

    let mut value = String::new();
    let read = std::io::stdin().lock().take(SECRET_MAX + 1).read_to_string(&mut value);
    read.context("cannot read the value from standard input")?;
    let document = secret(name, &value)?;
    let applied = to.client()?.apply(&document, false).await.or_advise()?;
    if to.json() {
        return out::json(&applied);
    }
    for change in &applied.changes {
        out::line(format_args!("{} {}", change.key, change.action.name()));
    }
    Ok(())
}

fn secret(name: &str, value: &str) -> Result<String, WrongUse> {
    if value.len() as u64 > SECRET_MAX {
        return Err(WrongUse(format!("the value is larger than {SECRET_MAX} bytes")));
    }
    let value = value.strip_suffix('\n').unwrap_or(value);
    let value = value.strip_suffix('\r').unwrap_or(value);
    if value.is_empty() {
        return Err(WrongUse("there is no value on standard input".to_owned()));
    }
    let spec = serde_json::json!({ "value": value });
    Ok(serde_json::json!({ "kind": "Secret", "name": name, "spec": spec }).to_string())
}

#[cfg(test)]
mod tests {
    use controller::objects;

    use super::*;

    fn object() -> Object {
        let value = serde_json::json!({
            "kind": "Volume", "name": "data", "generation": 3, "changed": 0,
            "spec": {"size": "1GiB", "more": [1, 2], "clear": true, "in": {"a": 1}}, "flaws": [],
        });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_secret_becomes_a_document_whatever_is_in_it() {
        let text = secret("wifi", "it's \"so\": {a}\n- #x\r\n").unwrap();
        let document = objects::read(&text).unwrap().remove(0);
        assert_eq!(document.key, Key::new(Kind::Secret, "wifi"));
        assert_eq!(document.written["value"], "it's \"so\": {a}\n- #x");
        assert!(secret("wifi", "\n").is_err());
        assert!(secret("wifi", &"x".repeat(600 << 10)).is_err());
    }

    #[test]
    fn what_is_printed_as_yaml_can_be_applied() {
        let mut one = object();
        one.spec = serde_json::json!({"size": "1GiB"});
        let mut other = one.clone();
        other.key.name = "more".to_owned();
        let documents = objects::read(&yaml(&[&one, &other]).unwrap()).unwrap();
        let keys: Vec<String> = documents.iter().map(|d| d.key.to_string()).collect();
        assert_eq!(keys, ["Volume data", "Volume more"]);
        assert_eq!(documents[0].written, one.spec);
    }

    #[test]
    fn a_row_says_what_the_spec_says() {
        assert_eq!(summary(&object().spec), "clear: true, in: {…}, more: 2 of them, size: 1GiB");
        let text = table(&[object()]);
        assert!(text.starts_with("NAME  GENERATION"), "{text}");
        assert!(text.contains("data  3 "), "{text}");
        assert!(shown(&object()).starts_with("Volume data, generation 3, changed "));
    }
}
