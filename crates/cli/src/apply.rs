//! `eve apply`: objects as files say them.
//!
//! Files are read here first: what is wrong is said with FILE:LINE:COLUMN, also if the controller
//! finds it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use controller::client::{Apply, ClientError};
use controller::objects::{self, Key, Kind, Places};
use controller::view::{Action, Applied, DeviceDiff};

use crate::fleet::{To, read};
use crate::out::foreign::one_line;
use crate::out::{self, OrAdvise, WrongUse};

/// Folders in folders, at most.
const DEPTH_MAX: usize = 16;
/// What files of a folder are documents.
const ENDINGS: [&str; 3] = ["json", "yaml", "yml"];

pub(crate) const HELP: &str = "\
Documents have a kind, a name and a spec, and refer to each other by name:

  kind: Device                  # a node, before or after it registers
  name: edge-1
  spec:
    soft_serial: 5f9c1f0a       # or serial: of the hardware
    settings: {timer.config.interval: 10}
  ---
  kind: App
  name: hello
  spec:
    device: edge-1              # or a list, or \"*\" for every node
    image: hello:latest         # from our registry, or datastore: NAME
    ports: [\"8080:80\"]          # port of the node : port of the app
    memory: 128MiB

Further fields of a Device: labels, template, variables, ports, project,
hardware, maintenance, …
Further fields of an App: cpus, disk, network, outbound, volumes,
environment, active, logs, start_delay_seconds, virtualization.
Further kinds: Network, Volume, Image, Datastore, Hardware, BaseOs, Secret,
Enrolment, Patch, Project, Template; and what says how the fleet is run:
Group (query, note), Window (match, days, from, minutes, zone) and AlertRule
(when, match, minutes, percent, days, url, trust, secret). A wrong or unknown
field is refused by its place and name, with those that exist.

Devices that are alike share a Template, and differ by variables. {{ name }}
in a text of a Template, or of an App, stands for the variable of that name
of the Device (its own before its Template's), and {{ device }} for its
name:

  kind: Template
  name: shop
  spec:
    variables: {interval: 60}   # what holds where a Device does not say it
    device: {settings: {timer.config.interval: \"{{ interval }}\"}}
  ---
  kind: Device
  name: edge-2
  spec: {soft_serial: 7d20c1aa, template: shop, variables: {interval: 300}}

What `eve objects -o yaml` prints can be applied: the value of a secret
stands there as (not shown), which keeps the one that there is.";

/// `eve apply …`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    to: To,
    /// Files with documents, or folders of *.yml, *.yaml and *.json; `-` reads standard input
    #[arg(required_unless_present = "more", value_name = "FILE|DIR")]
    files: Vec<PathBuf>,
    /// One more, for fingers that are used to it
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR")]
    more: Vec<PathBuf>,
    /// Also if they refer to objects that do not exist; nodes then report those
    #[arg(long)]
    allow_missing: bool,
    /// Only say what would change
    #[arg(long)]
    dry_run: bool,
    /// Say what nodes would do, too; nothing changes
    #[arg(long)]
    diff: bool,
    /// Remove objects that are not in the documents: of the kinds that are there, or of those named
    #[arg(
        long,
        value_name = "KIND,…",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "",
        value_delimiter = ','
    )]
    prune: Option<Vec<String>>,
    /// Refuse if somebody changed the object since: its generation, or 0 if there must be none
    #[arg(long, value_name = "KIND/NAME@GENERATION")]
    expect: Vec<String>,
}

pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    let Gathered { sources, text: all } = Gathered::read(args.files.iter().chain(&args.more))?;
    let how = Apply {
        allow_missing: args.allow_missing,
        dry_run: args.dry_run || args.diff,
        prune: sources.pruned(args.prune.as_deref())?,
        expected: args.expect.iter().map(|e| expected(e)).collect::<Result<_, _>>()?,
    };
    let client = args.to.client()?;
    let applied = client.apply_as(&all, &how).await;
    let applied = applied.map_err(|e| sources.located(e)).or_advise()?;
    let devices: BTreeMap<String, DeviceDiff> = if args.diff {
        client.send(&format!("/diff{}", how.query()), &all).await.or_advise()?
    } else {
        BTreeMap::new()
    };
    for flaw in &applied.missing {
        say!("{}missing: {flaw}", sources.place(&flaw.key, &flaw.field));
    }
    for flaw in &applied.warnings {
        say!("{}note: {flaw}", sources.place(&flaw.key, &flaw.field));
    }
    if !args.diff {
        return args.to.told(&applied, |applied| show(applied, how.dry_run));
    }
    let both = serde_json::json!({ "applied": applied, "devices": devices });
    args.to.told(&both, |_| {
        let devices = devices.values().map(crate::history::shown_diff);
        show(&applied, how.dry_run) + &devices.collect::<String>()
    })
}

/// The documents of files and folders.
#[derive(Debug)]
pub(crate) struct Gathered {
    sources: Sources,
    /// What the controller is sent.
    pub(crate) text: String,
}

impl Gathered {
    /// Reads what files hold, and files of folders; `-` is standard input.
    pub(crate) fn read<'a>(
        named: impl IntoIterator<Item = &'a PathBuf>,
    ) -> anyhow::Result<Gathered> {
        let named: Vec<&PathBuf> = named.into_iter().collect();
        if named.iter().filter(|f| f.as_path() == Path::new("-")).count() > 1 {
            return Err(WrongUse("standard input can be read once".to_owned()).into());
        }
        let mut files = Vec::new();
        for name in named {
            collect(name, 0, &mut files)?;
        }
        let mut texts = Vec::new();
        for file in files {
            let text = read(&file)?;
            texts.push((file.display().to_string(), text));
        }
        let sources = Sources::read(&texts)?;
        Ok(Gathered { sources, text: joined(&texts) })
    }

    /// The same error, with the places of what is wrong.
    pub(crate) fn located(&self, error: ClientError) -> ClientError {
        self.sources.located(error)
    }
}

/// What was done, a line an object.
pub(crate) fn changes(applied: &Applied) -> String {
    show(applied, false)
}

fn show(applied: &Applied, dry_run: bool) -> String {
    let line = |change: &controller::view::Change| {
        let would = dry_run && change.action != Action::Unchanged;
        let would = if would { "would be " } else { "" };
        let waits = match change.waits.as_slice() {
            [] => String::new(),
            waits => format!(": {}; the others are told at once", waits.join(", ")),
        };
        let overwrites = change.overwrites.iter().map(|what| format!(": overwrites {what}"));
        let overwrites: String = overwrites.collect();
        let notes: String = change.notes.iter().map(|note| format!("; {note}")).collect();
        let line =
            format!("{} {would}{}{waits}{overwrites}{notes}", change.key, change.action.name());
        format!("{}\n", one_line(&line))
    };
    applied.changes.iter().map(line).collect()
}

/// The files that a name means: a file itself; of a folder those that end like documents, by name,
/// folders in it included.
fn collect(name: &Path, depth: usize, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    if !name.is_dir() {
        files.push(name.to_owned());
        return Ok(());
    }
    if depth > DEPTH_MAX {
        return Err(out::advised(
            format!("{}: folders in more than {DEPTH_MAX} folders", name.display()),
            "name the folder with the documents",
        ));
    }
    let entries = std::fs::read_dir(name)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("cannot read the folder {}", name.display()))?;
    let mut inside: Vec<PathBuf> = entries.into_iter().map(|e| e.path()).collect();
    inside.sort();
    for path in inside {
        let hidden = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'));
        let ends = path.extension().is_some_and(|e| ENDINGS.iter().any(|known| e == *known));
        if !hidden && (ends || path.is_dir()) {
            collect(&path, depth + 1, files)?;
        }
    }
    Ok(())
}

/// What the controller is sent.
fn joined(texts: &[(String, String)]) -> String {
    texts.iter().map(|(_, text)| format!("{text}\n---\n")).collect()
}

/// Where objects stand in files.
#[derive(Debug, Default)]
struct Sources(BTreeMap<Key, (String, Places)>);

impl Sources {
    fn read(texts: &[(String, String)]) -> anyhow::Result<Sources> {
        let mut found = Sources::default();
        for (file, text) in texts {
            let documents = objects::read(text).map_err(|e| {
                let text = e.to_string();
                // With a place, it begins with that.
                let space = if text.starts_with(|c: char| c.is_ascii_digit()) { "" } else { " " };
                out::advised(format!("{file}:{space}{text}"), "correct the file")
            })?;
            for document in documents {
                if let Some((other, _)) = found.0.get(&document.key) {
                    let at = place(file, &document.places, "name");
                    let text = format!("{at}{} stands in {other}, too", document.key);
                    return Err(out::advised(text, "leave one of them out"));
                }
                found.0.insert(document.key, (file.clone(), document.places));
            }
        }
        if found.0.is_empty() {
            return Err(out::advised(
                "there is no document in what was named",
                format!("name files, or folders of files that end in {}", ENDINGS.join(", ")),
            ));
        }
        Ok(found)
    }

    /// `FILE:LINE:COLUMN: `, or nothing for an object that is not in the files.
    fn place(&self, key: &Key, field: &str) -> String {
        self.0.get(key).map(|(file, places)| place(file, places, field)).unwrap_or_default()
    }

    /// The same error, with the places of what is wrong.
    fn located(&self, mut error: ClientError) -> ClientError {
        if let ClientError::Refused { failure, .. } = &mut error
            && failure.flaws.iter().any(|f| self.0.contains_key(&f.key))
        {
            let lines = failure.flaws.iter();
            let lines: Vec<String> =
                lines.map(|f| format!("{}{f}", self.place(&f.key, &f.field))).collect();
            failure.error = lines.join("\n");
        }
        error
    }

    /// Kinds to prune: none, those that are named, or those of the documents.
    fn pruned(&self, named: Option<&[String]>) -> Result<Vec<Kind>, WrongUse> {
        let Some(named) = named else { return Ok(Vec::new()) };
        let named: Vec<&String> = named.iter().filter(|n| !n.is_empty()).collect();
        let mut kinds: Vec<Kind> = if named.is_empty() {
            self.0.keys().map(|k| k.kind).collect()
        } else {
            let kind = |n: &String| n.parse().map_err(|e| WrongUse(format!("--prune: {e}")));
            named.into_iter().map(kind).collect::<Result<_, _>>()?
        };
        kinds.sort();
        kinds.dedup();
        Ok(kinds)
    }
}

fn place(file: &str, places: &Places, field: &str) -> String {
    match places.find(field) {
        Some(place) => format!("{file}:{place}: "),
        None => format!("{file}: "),
    }
}

fn expected(text: &str) -> Result<(Key, u64), WrongUse> {
    let read = || {
        let (key, generation) = text.split_once('@')?;
        let (kind, name) = key.split_once('/')?;
        Some((Key::new(kind.parse().ok()?, name), generation.parse().ok()?))
    };
    read().ok_or_else(|| WrongUse(format!("--expect: {text:?} is not KIND/NAME@GENERATION")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(texts: &[(&str, &str)]) -> anyhow::Result<Sources> {
        let texts: Vec<_> = texts.iter().map(|(f, t)| ((*f).to_owned(), (*t).to_owned())).collect();
        Sources::read(&texts)
    }

    #[test]
    fn folders_are_read_in_order_and_by_ending() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("b")).unwrap();
        std::fs::create_dir(dir.path().join(".git")).unwrap();
        for name in ["c.yml", "a.yaml", "b/z.json", "b/note.md", ".hidden.yml", ".git/x.yml"] {
            let path = dir.path().join(name);
            store::save(path.parent().unwrap(), path.file_name().unwrap().to_str().unwrap(), b"")
                .unwrap();
        }
        let mut files = Vec::new();
        collect(dir.path(), 0, &mut files).unwrap();
        let names: Vec<_> =
            files.iter().map(|f| f.strip_prefix(dir.path()).unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["a.yaml", "b/z.json", "c.yml"]);
    }

    #[test]
    fn an_error_says_file_line_and_column() {
        let error = sources(&[("a.yml", "kind: Volume\nname: a\nspec:\n  sice: 1GiB\n")]);
        let text = error.unwrap_err().to_string();
        assert!(text.starts_with("a.yml:4:9: Volume a: "), "{text}");
        let one = "kind: Volume\nname: a\nspec: {size: 1GiB}\n";
        let text = sources(&[("a.yml", one), ("b.yml", one)]).unwrap_err().to_string();
        assert_eq!(text, "b.yml:2:7: Volume a stands in a.yml, too");
        assert!(sources(&[("a.yml", "---\n")]).is_err());
    }

    #[test]
    fn a_flaw_that_the_controller_finds_is_placed() {
        let text = "kind: App\nname: web\nspec:\n  device: edge\n  image: web\n";
        let found = sources(&[("apps/web.yml", text)]).unwrap();
        let key = Key::new(Kind::App, "web");
        assert_eq!(found.place(&key, "spec.device"), "apps/web.yml:4:11: ");
        assert_eq!(found.place(&Key::new(Kind::App, "other"), "spec.device"), "");
    }

    #[test]
    fn what_is_pruned_is_named_or_of_the_documents() {
        let text = "kind: Volume\nname: a\nspec: {size: 1GiB}\n";
        let found = sources(&[("a.yml", text)]).unwrap();
        assert_eq!(found.pruned(None).unwrap(), []);
        assert_eq!(found.pruned(Some(&[String::new()])).unwrap(), [Kind::Volume]);
        let named = ["app".to_owned(), "Network".to_owned(), "app".to_owned()];
        assert_eq!(found.pruned(Some(&named)).unwrap(), [Kind::Network, Kind::App]);
        assert!(found.pruned(Some(&["x".to_owned()])).is_err());
        assert_eq!(expected("app/web@3").unwrap(), (Key::new(Kind::App, "web"), 3));
        assert!(expected("app/web").is_err());
    }
}
