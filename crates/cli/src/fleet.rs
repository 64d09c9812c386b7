//! The commands that drive the operator API of a controller.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use controller::client::{Apply, Client, ClientError};
use controller::objects::{Key, Kind};
use controller::view;
use host::clock;
use model::UnixMillis;

use crate::controller::{data_folder, runtime};
use crate::form::Form;
use crate::out::foreign::json;
use crate::out::{self, OrAdvise, WrongUse};
use crate::{nodes, places, shown};

/// Documents of at most this size; the controller has the same bound.
const DOCUMENTS_MAX: u64 = 1 << 20;
/// `--follow` asks this often.
const FOLLOW_EVERY: Duration = Duration::from_secs(1);

/// `eve fleet|device|app|network|apply|delete|logs …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// How the fleet is: nodes by state, alerts, rollouts in progress
    Fleet {
        #[command(flatten)]
        to: To,
    },
    /// Nodes: list, show, restart; let serial numbers register
    Device {
        #[command(flatten)]
        to: To,
        #[command(subcommand)]
        command: Option<DeviceCommand>,
    },
    /// Apps: list, show, restart, purge
    App {
        #[command(flatten)]
        to: To,
        #[command(subcommand)]
        command: Option<AppCommand>,
    },
    /// Networks: list, show
    Network {
        #[command(flatten)]
        to: To,
        #[command(subcommand)]
        command: Option<NetworkCommand>,
    },
    /// Make objects say what documents say: all of them or none
    #[command(after_long_help = crate::apply::HELP)]
    Apply(Box<crate::apply::Args>),
    /// Remove an object: `eve delete app hello`
    Delete {
        #[command(flatten)]
        to: To,
        /// device, datastore, image, volume, network, app, …
        kind: Kind,
        /// Its name
        name: String,
        /// Also if others refer to it
        #[arg(long)]
        force: bool,
    },
    /// Objects as they were written
    ///
    /// `eve objects app hello -o yaml` is what `eve apply` takes.
    Objects {
        #[command(flatten)]
        to: To,
        /// Only of this kind
        kind: Option<Kind>,
        /// Only this one
        name: Option<String>,
    },
    /// Log lines of a node, or of an app
    ///
    /// `eve logs edge-1` shows what the node's services say, `eve logs edge-1 hello` what the app
    /// says there. For an app that is on one node, `eve logs hello` will do.
    Logs {
        #[command(flatten)]
        to: To,
        /// A node, or an app that is on one node
        #[arg(value_name = "NODE|APP")]
        device: String,
        /// An app of the node
        app: Option<String>,
        /// The newest so many
        #[arg(long, short = 'n', default_value_t = 100, value_name = "LINES")]
        lines: u32,
        /// Go on with what comes
        #[arg(long, short)]
        follow: bool,
    },
    /// What happened in the fleet
    Events {
        #[command(flatten)]
        to: To,
        /// The newest so many
        #[arg(long, short = 'n', default_value_t = 50, value_name = "EVENTS")]
        lines: u32,
        /// Go on with what comes
        #[arg(long, short)]
        follow: bool,
    },
}

/// `eve device …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum DeviceCommand {
    /// All nodes, or those that match a query
    List {
        /// Only these: `key=value, key!=value, key in (a, b), key, !key, name=edge-*, group=NAME`
        #[arg(long = "match", value_name = "QUERY")]
        matching: Option<String>,
    },
    /// One node
    Show {
        /// Name or id
        name: String,
    },
    /// Make a node known before it comes
    ///
    /// `eve device add --serial SN-1` expects a node with this serial number and this controller's
    /// own onboarding certificate. An unmodified EVE device brings one of its own: give it with
    /// --onboard-cert. A device whose certificate is known need not register: --cert.
    Add(AddDevice),
    /// Reboot a node
    Restart {
        /// Name or id
        name: String,
    },
    /// Power a node off
    Shutdown {
        /// Name or id
        name: String,
    },
    /// Take a node's token, so that it has to attest again
    Attest {
        /// Name or id
        name: String,
    },
    /// What the last proof of a node's TPM said, register by register
    Verdict {
        /// Name or id
        name: String,
    },
    /// Trust the state that a node proved last, and no other from now on
    Accept {
        /// Name or id
        name: String,
    },
    /// Ask a node to say everything again
    Resend {
        /// Name or id
        name: String,
    },
    /// Keep a node from its config, whatever it says; its apps go on
    Quarantine {
        /// Name or id
        name: String,
        /// Why, for others
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Let a node out of quarantine
    Release {
        /// Name or id
        name: String,
    },
    /// What a node is told, in the words of the EVE API; or tell it something else
    ///
    /// `eve device config edge-1` shows the EdgeDevConfig that is compiled of the objects. With -f a
    /// node is told the config in a file, JSON or protobuf, and nothing else: objects that would
    /// reach it are refused until `eve device config edge-1 --compiled` gives it back.
    Config {
        /// Name or id
        name: String,
        /// Tell it this EdgeDevConfig from now on; `-` reads standard input
        #[arg(short = 'f', long = "filename", value_name = "FILE", conflicts_with = "compiled")]
        file: Option<PathBuf>,
        /// Tell it what its objects say again
        #[arg(long)]
        compiled: bool,
    },
    /// What is not as it should be, and why
    Drift {
        /// Name or id; all nodes if not said
        name: Option<String>,
    },
    /// What documents would do to a node, before they are applied
    Diff {
        /// Name or id
        name: String,
        /// The documents, as for `eve apply`: files or folders of them; `-` reads standard input
        #[arg(short = 'f', long = "filename", value_name = "FILE|DIR", required = true)]
        files: Vec<PathBuf>,
        /// As if objects of these kinds that are not in the documents were removed
        #[arg(long, value_name = "KIND,…", value_delimiter = ',')]
        prune: Vec<Kind>,
        /// Also if they refer to objects that do not exist
        #[arg(long)]
        allow_missing: bool,
    },
    /// Let a serial number register without an object of its own; `*` is any
    Allow {
        /// Hardware or soft serial number
        serial: String,
    },
    /// Let a serial number register no longer
    Disallow {
        /// As given to `allow`
        serial: String,
    },
}

/// `eve device add …`
#[derive(Debug, clap::Args)]
pub(crate) struct AddDevice {
    /// Its name [default: made of what it is expected by]
    name: Option<String>,
    /// The serial number of its hardware
    #[arg(long, value_name = "TEXT", required_unless_present_any = ["soft_serial", "cert"])]
    serial: Option<String>,
    /// Its soft serial number (/config/soft_serial)
    #[arg(long, value_name = "TEXT")]
    soft_serial: Option<String>,
    /// The onboarding certificate it will come with [default: this controller's own]
    #[arg(long, value_name = "PEM")]
    onboard_cert: Option<PathBuf>,
    /// Its own certificate, if that is known
    #[arg(long, value_name = "PEM", conflicts_with = "onboard_cert")]
    cert: Option<PathBuf>,
}

/// `eve app …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum AppCommand {
    /// All apps
    List,
    /// One app
    Show {
        /// Its name
        name: String,
    },
    /// Stop and start an app on all its nodes
    Restart {
        /// Its name
        name: String,
    },
    /// The same with fresh volumes: what the app wrote is lost
    Purge {
        /// Its name
        name: String,
    },
}

/// `eve network …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum NetworkCommand {
    /// All networks
    List,
    /// One network
    Show {
        /// Its name
        name: String,
    },
}

/// Which controller to talk to, and how to answer.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct To {
    /// The controller [default: that of the current login, else what the data folder on this machine
    /// says]
    #[arg(long, global = true, help_heading = crate::form::HEADING, value_name = "URL", env = "EVE_CONTROLLER")]
    controller: Option<String>,
    /// The token to act with [default: that of the login, or the administrator's in the data folder]
    #[arg(long, global = true, help_heading = crate::form::HEADING, env = "EVE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// The controller's root certificate [default: that of the login or of the data folder]
    #[arg(long, global = true, help_heading = crate::form::HEADING, value_name = "FILE", env = "EVE_CA")]
    ca: Option<PathBuf>,
    /// The controller of this login (`eve context` lists them)
    #[arg(
        long,
        global = true,
        help_heading = crate::form::HEADING,
        value_name = "NAME",
        env = "EVE_CONTEXT"
    )]
    context: Option<String>,
    /// The data folder of a controller on this machine
    #[arg(long, global = true, help_heading = crate::form::HEADING, value_name = "DIR", env = "EVE_CONTROLLER_DATA")]
    data: Option<PathBuf>,
    #[command(flatten)]
    form: Form,
}

pub(crate) fn run(command: Command) -> anyhow::Result<()> {
    runtime()?.block_on(perform(command))
}

async fn perform(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Fleet { to } => crate::overview::run(&to).await,
        Command::Device { to, command } => device(&to, command).await,
        Command::App { to, command } => app(&to, command).await,
        Command::Network { to, command } => network(&to, command).await,
        Command::Apply(args) => crate::apply::run(&args).await,
        Command::Delete { to, kind, name, force } => {
            let client = to.client()?;
            let name = nodes::of_kind(&client, kind.name(), &name).await?;
            client.delete(kind.name(), &name, force).await.or_advise()?;
            to.done(&format!("{} deleted", Key::new(kind, name)))
        }
        Command::Objects { to, kind, name } => objects(&to, kind, name.as_deref()).await,
        Command::Logs { to, device, app, lines, follow } => {
            logs(&to, &device, app.as_deref(), lines, follow).await
        }
        Command::Events { to, lines, follow } => events(&to, lines, follow).await,
    }
}

impl To {
    /// Prints what is asked for in the form that was asked for; again and again if it is to be
    /// watched.
    pub(crate) async fn print<T: serde::Serialize>(
        &self,
        ask: impl AsyncFn() -> anyhow::Result<T>,
        people: impl Fn(&T) -> String,
    ) -> anyhow::Result<()> {
        self.form.print(ask, people).await
    }

    /// Prints what came of something.
    pub(crate) fn told<T: serde::Serialize>(
        &self,
        facts: &T,
        people: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<()> {
        self.form.told(facts, people)
    }

    /// Says that something was done: `{"done": "…"}` as JSON.
    pub(crate) fn done(&self, said: &str) -> anyhow::Result<()> {
        self.form.done(said)
    }

    /// Whether objects are to be documents that `eve apply` takes.
    pub(crate) fn yaml(&self) -> bool {
        self.form.yaml()
    }

    /// The options together, else the login that is named, else the data folder that is named, else
    /// the current login, else a controller on this machine: that of `eve controller serve` or that
    /// of `eve up`, whichever is there. A token or a root certificate that is named takes the place
    /// of the one that is found with the controller.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        Ok(self.found()?.hinting(|hint| say!("note: {hint}")))
    }

    fn found(&self) -> anyhow::Result<Client> {
        let token = self.token.as_deref();
        if token.is_some_and(|t| t.trim().is_empty()) {
            // Not as if there were none: that would be the administrator's on this machine.
            return Err(out::advised(
                "the token is empty",
                "give one with --token or EVE_TOKEN, or leave both away",
            ));
        }
        let ca = self.ca.as_deref().map(read).transpose()?;
        // A variable of the environment that is empty names none.
        let named = self.context.as_deref().filter(|name| !name.is_empty());
        if named.is_some() && self.controller.is_some() {
            let text = "both a controller and a context are named; give --controller (EVE_CONTROLLER) \
                        or --context (EVE_CONTEXT)";
            return Err(WrongUse(text.to_owned()).into());
        }
        let unnamed = self.controller.is_none() && self.data.is_none();
        if named.is_some() || unnamed {
            let contexts = crate::contexts::Contexts::load()?;
            if let Some(context) = contexts.pick(named)? {
                let token = token.unwrap_or(&context.token);
                let ca = ca.as_deref().unwrap_or(&context.ca);
                return Client::new(&context.url, token, ca.as_bytes()).or_advise();
            }
        }
        let data = self.data.clone().or_else(|| {
            let usual = [data_folder(), places::up_state().join("controller")];
            usual.into_iter().find(|d| d.join("endpoint").exists())
        });
        let Some(url) = &self.controller else {
            let data = data.ok_or_else(|| {
                out::advised(
                    "no controller is named, and none has run on this machine",
                    "log in to one with `eve login URL`, start one here with `eve controller serve` or \
                     `eve up`, or give --controller, --token and --ca",
                )
            })?;
            return client_of(&data, token, ca);
        };
        // The token of the controller on this machine is for who its own root vouches for; where
        // another is named, only for its own address.
        let data = data.filter(|d| ca.is_none() || leads_to(d, url));
        let in_data = |name: &str| data.as_ref().map(|d| d.join(name));
        let token = match (token, in_data("admin.token")) {
            (Some(token), _) => token.to_owned(),
            (None, Some(file)) => read(&file)?,
            (None, None) => {
                return Err(out::advised("there is no token", "give it with --token or EVE_TOKEN"));
            }
        };
        let ca = match (ca, &data) {
            (Some(ca), _) => ca,
            (None, Some(data)) => controller::client::trusted_in(data).or_advise()?,
            (None, None) => {
                let text = "there is no root certificate to know the controller by";
                return Err(out::advised(text, "give it with --ca or EVE_CA"));
            }
        };
        Client::new(url, &token, ca.as_bytes()).or_advise()
    }
}

/// Whether the controller of a data folder is reached at this address.
fn leads_to(data: &Path, url: &str) -> bool {
    let plain = |url: &str| url.trim().trim_end_matches('/').to_ascii_lowercase();
    read(&data.join("endpoint")).is_ok_and(|endpoint| plain(&endpoint) == plain(url))
}

/// A client of the controller whose data folder is on this machine. Who names a token acts with it,
/// and need not be allowed to read the administrator's.
fn client_of(data: &Path, token: Option<&str>, ca: Option<String>) -> anyhow::Result<Client> {
    let text = |name: &str| {
        let path = data.join(name);
        std::fs::read_to_string(&path).map_err(|source| ClientError::File { path, source })
    };
    let url = text("endpoint").or_advise()?;
    let ca = match ca {
        Some(ca) => ca,
        None => controller::client::trusted_in(data).or_advise()?,
    };
    let token = match token {
        Some(token) => token.to_owned(),
        None => text("admin.token").or_advise()?,
    };
    Client::new(url.trim(), &token, ca.as_bytes()).or_advise()
}

pub(crate) fn read(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let opened = if path == Path::new("-") {
        Ok(Box::new(std::io::stdin()) as Box<dyn Read>)
    } else {
        std::fs::File::open(path).map(|f| Box::new(f) as Box<dyn Read>)
    };
    opened
        .and_then(|f| f.take(DOCUMENTS_MAX + 1).read_to_string(&mut text))
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text)
}

async fn device(to: &To, command: Option<DeviceCommand>) -> anyhow::Result<()> {
    let client = to.client()?;
    let name = async |name: String| nodes::named(&client, &name).await;
    let said = match command.unwrap_or(DeviceCommand::List { matching: None }) {
        DeviceCommand::List { matching } => {
            let all = async || match &matching {
                Some(query) => client.devices_matching(query).await.or_advise(),
                None => client.devices().await.or_advise(),
            };
            return to.print(all, |all| shown::devices(all)).await;
        }
        DeviceCommand::Show { name: said } => {
            let name = name(said).await?;
            let one = async || client.device(&name).await.or_advise();
            return to.print(one, shown::device).await;
        }
        DeviceCommand::Restart { name: said } => {
            let name = name(said).await?;
            client.restart_device(&name).await.or_advise()?;
            format!("{name} reboots when it next asks for its config")
        }
        DeviceCommand::Add(new) => {
            let pem = |path: Option<PathBuf>| path.map(|p| read(&p)).transpose();
            let new = view::NewDevice {
                name: new.name.unwrap_or_default(),
                serial: new.serial.unwrap_or_default(),
                soft_serial: new.soft_serial.unwrap_or_default(),
                onboard_cert: pem(new.onboard_cert)?,
                certificate: pem(new.cert)?,
            };
            let added = client.add_device(&new).await.or_advise()?;
            return to.told(&added, |added| {
                format!("Device {} is expected; its id is {}", added.name, added.id)
            });
        }
        DeviceCommand::Shutdown { name: said } => {
            let name = name(said).await?;
            client.ask_device(&name, "shutdown").await.or_advise()?;
            format!("{name} powers off when it next asks for its config")
        }
        DeviceCommand::Attest { name: said } => {
            let name = name(said).await?;
            client.ask_device(&name, "attest").await.or_advise()?;
            format!("{name} has to attest again before it gets its config")
        }
        DeviceCommand::Verdict { name: said } => {
            let name = name(said).await?;
            let last = async || client.verdict(&name).await.or_advise();
            return to.print(last, |last| shown::verdict(&name, last)).await;
        }
        DeviceCommand::Accept { name: said } => {
            let name = name(said).await?;
            client.ask_device(&name, "accept").await.or_advise()?;
            format!("{name} has to prove this state from now on")
        }
        DeviceCommand::Resend { name: said } => {
            let name = name(said).await?;
            client.ask_device(&name, "resend").await.or_advise()?;
            format!("{name} says everything again when it next asks for its config")
        }
        DeviceCommand::Quarantine { name: said, reason } => {
            let name = name(said).await?;
            client.quarantine(&name, Some(&reason)).await.or_advise()?;
            format!("{name} gets no config until `eve device release {name}`")
        }
        DeviceCommand::Release { name: said } => {
            let name = name(said).await?;
            client.quarantine(&name, None).await.or_advise()?;
            format!("{name} gets its config again")
        }
        DeviceCommand::Config { name: said, file, compiled } => {
            let name = name(said).await?;
            if compiled {
                client.give_config_back(&name).await.or_advise()?;
                format!("{name} is told what its objects say again")
            } else if let Some(file) = file {
                let given = client.give_config(&name, config_of(&file)?).await.or_advise()?;
                return to.told(&given, |given| {
                    format!("{name} is told version {} from now on", given.version)
                });
            } else {
                let told = async || client.device_config(&name).await.or_advise();
                return to.print(told, |told| json(&format!("{told:#}")).into_owned()).await;
            }
        }
        DeviceCommand::Drift { name } => return crate::history::drift(to, name.as_deref()).await,
        DeviceCommand::Diff { name: said, files, prune, allow_missing } => {
            let name = name(said).await?;
            let how = Apply { prune, allow_missing, ..Apply::default() };
            return crate::history::diff(to, &name, &files, &how).await;
        }
        DeviceCommand::Allow { serial } => {
            client.allow_serial(&serial).await.or_advise()?;
            format!("{serial} may register")
        }
        DeviceCommand::Disallow { serial } => {
            client.disallow_serial(&serial).await.or_advise()?;
            format!("{serial} may no longer register")
        }
    };
    to.done(&said)
}

/// A config of the EVE API in a file; in front of one in JSON nothing stands.
fn config_of(file: &Path) -> anyhow::Result<Vec<u8>> {
    let most = api::limits::CONFIG.0;
    let mut bytes = Vec::new();
    if file == Path::new("-") {
        std::io::stdin()
            .take(most + 1)
            .read_to_end(&mut bytes)
            .context("cannot read standard input")?;
    } else {
        let open = std::fs::File::open(file);
        open.and_then(|f| f.take(most + 1).read_to_end(&mut bytes))
            .with_context(|| format!("cannot read {}", file.display()))?;
    }
    if bytes.len() as u64 > most {
        return Err(out::advised(
            format!("{} has more than {}", file.display(), api::limits::CONFIG),
            "no config is as long; give the file with the EdgeDevConfig",
        ));
    }
    let text = bytes.trim_ascii();
    if text.is_empty() {
        // No bytes are a valid protobuf message, of a node that runs nothing: nobody means that.
        let what = if file == Path::new("-") {
            "standard input".into()
        } else {
            file.display().to_string()
        };
        return Err(out::advised(
            format!("{what} is empty: no config"),
            "give the EdgeDevConfig, JSON or protobuf; look whether what was to write it failed",
        ));
    }
    let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok();
    Ok(if is_json { text.to_vec() } else { bytes })
}

async fn app(to: &To, command: Option<AppCommand>) -> anyhow::Result<()> {
    let client = to.client()?;
    let said = match command.unwrap_or(AppCommand::List) {
        AppCommand::List => {
            let all = async || client.apps().await.or_advise();
            return to.print(all, |all| shown::apps(all)).await;
        }
        AppCommand::Show { name } => {
            let one = async || client.app(&name).await.or_advise();
            return to.print(one, shown::app).await;
        }
        AppCommand::Restart { name } => {
            client.restart_app(&name).await.or_advise()?;
            format!("{name} restarts when its nodes next ask for their config")
        }
        AppCommand::Purge { name } => {
            client.purge_app(&name).await.or_advise()?;
            format!("{name} starts afresh when its nodes next ask for their config")
        }
    };
    to.done(&said)
}

async fn network(to: &To, command: Option<NetworkCommand>) -> anyhow::Result<()> {
    let client = to.client()?;
    match command.unwrap_or(NetworkCommand::List) {
        NetworkCommand::List => {
            let all = async || client.networks().await.or_advise();
            to.print(all, |all| shown::networks(all)).await
        }
        NetworkCommand::Show { name } => {
            let one = async || client.network(&name).await.or_advise();
            to.print(one, shown::network).await
        }
    }
}

/// `eve objects`: of one kind, or one of them.
pub(crate) async fn objects(to: &To, kind: Option<Kind>, name: Option<&str>) -> anyhow::Result<()> {
    let client = to.client()?;
    let name = match (kind, name) {
        (Some(kind), Some(name)) => Some(nodes::of_kind(&client, kind.name(), name).await?),
        (_, name) => name.map(str::to_owned),
    };
    let name = name.as_deref();
    let ask = async || {
        let mut all = client.objects().await.or_advise()?;
        all.retain(|o| kind.is_none_or(|k| o.key.kind == k));
        all.retain(|o| name.is_none_or(|n| o.key.name == n));
        match (kind, name) {
            (Some(kind), Some(name)) if all.is_empty() => {
                let text = format!("there is no {}", Key::new(kind, name));
                Err(out::advised(text, format!("`eve objects {kind}` lists those that there are")))
            }
            _ => Ok(all),
        }
    };
    to.print(ask, |all: &Vec<view::Object>| shown::objects(all)).await
}

async fn logs(
    to: &To,
    device: &str,
    app: Option<&str>,
    lines: u32,
    follow: bool,
) -> anyhow::Result<()> {
    let client = to.client()?;
    let (device, app) = speaker(&client, device, app).await?;
    let (device, app) = (device.as_str(), app.as_deref());
    let mut after = 0;
    let mut limit = lines;
    loop {
        let rows = again(follow, client.logs(device, app, after, limit).await.or_advise())?;
        for row in &rows {
            if to.form.json() {
                out::json_line(row)?;
            } else {
                let at = time(row.at);
                out::line(format_args!("{at} {:<7} {} {}", row.severity, row.source, row.content));
            }
            after = row.id;
        }
        if !follow {
            return Ok(());
        }
        limit = 10_000;
        tokio::time::sleep(FOLLOW_EVERY).await;
    }
}

/// Whose lines are meant: a node of this name comes before an app.
async fn speaker(
    client: &Client,
    name: &str,
    app: Option<&str>,
) -> anyhow::Result<(String, Option<String>)> {
    let as_given = (name.to_owned(), app.map(str::to_owned));
    let nodes = client.devices_named(name).await.or_advise()?;
    if app.is_some() || !nodes.is_empty() {
        return Ok((nodes::named(client, name).await?, as_given.1));
    }
    let apps = client.apps().await.or_advise()?;
    let Some(found) = apps.into_iter().find(|a| a.name == name) else { return Ok(as_given) };
    match found.on.as_slice() {
        [one] => Ok((one.device.clone(), Some(found.name))),
        on => {
            let nodes: Vec<&str> = on.iter().map(|one| one.device.as_str()).collect();
            Err(out::advised(
                format!("the app {name} is on {} nodes: {}", nodes.len(), nodes.join(", ")),
                format!("name one: eve logs NODE {name}"),
            ))
        }
    }
}

/// What was asked for; nothing if it could not be had this time and is asked for again.
fn again<T>(follow: bool, asked: anyhow::Result<Vec<T>>) -> anyhow::Result<Vec<T>> {
    match asked {
        Err(e) if follow && out::may_pass(&e) => {
            out::say_again(&e);
            Ok(Vec::new())
        }
        asked => asked,
    }
}

async fn events(to: &To, lines: u32, follow: bool) -> anyhow::Result<()> {
    let client = to.client()?;
    let mut after = 0;
    let mut limit = lines;
    loop {
        for event in again(follow, client.events(after, limit).await.or_advise())? {
            if to.form.json() {
                out::json_line(&event)?;
            } else {
                out::line(format_args!("{} {}: {}", time(event.at), event.object, event.text));
            }
            after = event.id;
        }
        if !follow {
            return Ok(());
        }
        limit = 10_000;
        tokio::time::sleep(FOLLOW_EVERY).await;
    }
}

/// `5 s ago`.
pub(crate) fn ago(at: Option<UnixMillis>) -> String {
    at.map_or_else(|| "-".to_owned(), |at| controller::words::ago(clock::now(), at))
}

/// In UTC, to the second.
pub(crate) fn time(at: UnixMillis) -> String {
    controller::words::time(at)
}
