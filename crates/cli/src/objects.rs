//! `eve volume|image|datastore|…`: objects of one kind, listed, shown and deleted. One
//! implementation for all kinds that have no commands of their own.

use anyhow::Context;
use controller::client::{Client, escaped};
use controller::objects::{Key, Kind};
use controller::view::Object;
use serde_json::Value;

use crate::fleet::{To, ago};
use crate::out::foreign::one_line;
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
    List,
    /// One of them, as it was written
    Show {
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

/// `eve image …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ImageCommand {
    #[command(flatten)]
    Of(ObjectCommand),
    /// Bring an image to the controller, for nodes to download: a disk image, an ISO, or a container
    /// image
    ///
    /// `eve image push disk.qcow2` is told to nodes as an Image. A container image goes into the
    /// registry, for apps with `image: web:1.0`: what `docker save` writes, packed (gzip, zstd, xz)
    /// or not, the folder of an OCI image layout (`eve image push ./layout web:1.0`), or the same
    /// in a tar. What is there already is not sent again: after an interruption the same command
    /// goes on. `docker save web:1.0 | eve image push -` needs no file.
    Push(crate::push::Args),
    /// The files that are there
    Files,
    /// What the controller's registry holds, as NAME:TAG
    Tags,
}

/// `eve secret …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum SecretCommand {
    /// All of them, without their values
    List,
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

pub(crate) fn run(command: Command) -> anyhow::Result<()> {
    crate::controller::runtime()?.block_on(perform(command))
}

async fn perform(command: Command) -> anyhow::Result<()> {
    let (kind, of) = match command {
        Command::Image { to, command: ImageCommand::Push(args) } => {
            return crate::push::run(&to, &args).await;
        }
        Command::Image { to, command: ImageCommand::Files } => {
            return crate::push::list(&to).await;
        }
        Command::Image { to, command: ImageCommand::Tags } => {
            return crate::push::tags(&to).await;
        }
        Command::Image { to, command: ImageCommand::Of(command) } => {
            (Kind::Image, Of { to, command })
        }
        Command::Secret { to, command: SecretCommand::Set { name } } => {
            return set_secret(&to, &name).await;
        }
        Command::Secret { to, command: SecretCommand::List } => {
            (Kind::Secret, Of { to, command: ObjectCommand::List })
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
        ObjectCommand::List => {
            of.to.print(async || all(&client, kind).await, |all| table(all)).await
        }
        ObjectCommand::Show { name } => {
            let path = format!("/objects/{}/{}", kind.name(), escaped(&name));
            let one = async || client.ask::<Object>(&path).await.or_advise();
            of.to.print(one, shown).await
        }
        ObjectCommand::Delete { name, force } => {
            client.delete(kind.name(), &name, force).await.or_advise()?;
            of.to.done(&format!("{} deleted", Key::new(kind, name)))
        }
    }
}

async fn all(client: &Client, kind: Kind) -> anyhow::Result<Vec<Object>> {
    let mut all = client.objects().await.or_advise()?;
    all.retain(|o| o.key.kind == kind);
    Ok(all)
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
        let problem = format!("problem: {}: {}", flaw.field, flaw.text);
        text.push_str(&format!("{}\n", one_line(&problem)));
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
    to.told(&applied, crate::apply::changes)
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
    fn a_row_says_what_the_spec_says() {
        assert_eq!(summary(&object().spec), "clear: true, in: {…}, more: 2 of them, size: 1GiB");
        let text = table(&[object()]);
        assert!(text.starts_with("NAME  GENERATION"), "{text}");
        assert!(text.contains("data  3 "), "{text}");
        assert!(shown(&object()).starts_with("Volume data, generation 3, changed "));
    }
}
