//! The local profile server (LPS): someone near the node who may change it without the controller.
//!
//! Plain HTTP, protobuf bodies without an envelope, on `/api/v1/…`. A server proves itself by a token
//! that the controller's config names; an answer with another token is as good as none. Facts:
//! `spec/api.md` §14.
//!
//! Both sides: a node reads answers with [`Answer::read`] and asks [`Executed`] which commands are
//! new; a server writes answers with [`Answer::to_body`] and reads requests as the messages of
//! [`crate::pb::profile`] ([`read_request`]). Changes of which a server tells at once come by
//! [`signal`].

pub mod signal;

use std::collections::BTreeMap;
use std::time::Duration;

use model::{Bytes, Diagnose, Diagnosis, Who};
use prost::Message;
use serde::{Deserialize, Serialize};

use crate::pb::common::BootOrder;
use crate::pb::info::ZInfoLocation;
use crate::pb::profile::{
    AppBootConfig, AppBootConfigList, AppBootInfoList, LocalAppCmdList, LocalAppInfoList,
    LocalDevCmd, LocalDevInfo, LocalNetworkConfig, LocalProfile, NetworkInfo, NetworkPortConfig,
    RadioConfig, RadioStatus, app_command, local_dev_cmd,
};
use crate::wire::{self, WireError};

/// Answers are small; the status of many modems and ports, which a server gets, is not large either.
pub const BODY_MAX: Bytes = Bytes::mib(1);
/// Its port, if the config names none.
pub const PORT: u16 = 8888;

const HOUR: Duration = Duration::from_secs(3600);

/// What a node asks a server. `signal`, which is a stream, has a module of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// Which profile is in force.
    LocalProfile,
    /// Whether radios are to be silent.
    Radio,
    /// Commands to apps.
    AppInfo,
    /// From what apps boot.
    AppBootInfo,
    /// Commands to the node.
    DevInfo,
    /// How ports are set up.
    Network,
    /// Where the node is; nothing comes back.
    Location,
}

impl Call {
    /// All of them.
    pub const ALL: [Call; 7] = [
        Call::LocalProfile,
        Call::Radio,
        Call::AppInfo,
        Call::AppBootInfo,
        Call::DevInfo,
        Call::Network,
        Call::Location,
    ];

    /// The path, from the root of the server.
    pub fn path(self) -> &'static str {
        match self {
            Call::LocalProfile => "/api/v1/local_profile",
            Call::Radio => "/api/v1/radio",
            Call::AppInfo => "/api/v1/appinfo",
            Call::AppBootInfo => "/api/v1/appbootinfo",
            Call::DevInfo => "/api/v1/devinfo",
            Call::Network => "/api/v1/network",
            Call::Location => "/api/v1/location",
        }
    }

    /// GET has no body.
    pub fn method(self) -> &'static str {
        if self == Call::LocalProfile { "GET" } else { "POST" }
    }

    /// How often, unless a config item says otherwise.
    pub fn period(self) -> Duration {
        Duration::from_secs(match self {
            Call::Radio => 5,
            Call::Location => 20,
            _ => 60,
        })
    }

    /// How often while the server answers that it has no such thing (404).
    pub fn slow_period(self) -> Duration {
        match self {
            Call::Radio | Call::Location => Duration::from_secs(300),
            _ => HOUR,
        }
    }
}

/// A command to the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceCommand {
    /// Another value than that of the last command: it is a new one. It orders nothing.
    pub timestamp: u64,
    /// What to do.
    pub action: DeviceAction,
}

/// What a node can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceAction {
    /// Shut all apps down and stay on.
    Shutdown,
    /// Shut all apps down and switch off.
    PowerOff,
    /// Shut all apps down and start anew.
    Reboot,
    /// Send what explains a problem to the datastore for it.
    CollectInfo,
}

impl DeviceCommand {
    /// `None`: there is no command, or one that is newer than we are.
    pub(crate) fn from_wire(command: &LocalDevCmd) -> Option<DeviceCommand> {
        use local_dev_cmd::Command;
        let action = match command.command() {
            Command::Unspecified => return None,
            Command::Shutdown => DeviceAction::Shutdown,
            Command::GracefulPoweroff => DeviceAction::PowerOff,
            Command::GracefulReboot => DeviceAction::Reboot,
            Command::CollectInfo => DeviceAction::CollectInfo,
        };
        Some(DeviceCommand { timestamp: command.timestamp, action })
    }

    pub(crate) fn to_wire(self, token: &str) -> LocalDevCmd {
        use local_dev_cmd::Command;
        let command = match self.action {
            DeviceAction::Shutdown => Command::Shutdown,
            DeviceAction::PowerOff => Command::GracefulPoweroff,
            DeviceAction::Reboot => Command::GracefulReboot,
            DeviceAction::CollectInfo => Command::CollectInfo,
        };
        LocalDevCmd {
            server_token: token.to_owned(),
            timestamp: self.timestamp,
            command: command.into(),
        }
    }
}

/// Which app is meant: by its id, or else by its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Named {
    /// A UUID, as text.
    Id(String),
    /// The display name.
    Name(String),
}

impl Named {
    /// `None`: neither is said.
    fn read(id: &str, name: &str) -> Option<Named> {
        match (id, name) {
            ("", "") => None,
            ("", name) => Some(Named::Name(name.to_owned())),
            (id, _) => Some(Named::Id(id.to_owned())),
        }
    }

    fn split(&self) -> (String, String) {
        match self {
            Named::Id(id) => (id.clone(), String::new()),
            Named::Name(name) => (String::new(), name.clone()),
        }
    }
}

/// A command to an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppCommand {
    /// Which app.
    pub app: Named,
    /// Another value than that of the last command to this app: it is a new one.
    pub timestamp: u64,
    /// What to do.
    pub action: AppAction,
}

/// What an app can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AppAction {
    /// Stop and start with the same volumes.
    Restart,
    /// Stop and start with fresh volumes.
    Purge,
}

impl AppCommand {
    /// `None`: it names no app, or nothing that we can do.
    pub(crate) fn from_wire(command: &crate::pb::profile::AppCommand) -> Option<AppCommand> {
        let action = match command.command() {
            app_command::Command::Unspecified => return None,
            app_command::Command::Restart => AppAction::Restart,
            app_command::Command::Purge => AppAction::Purge,
        };
        let app = Named::read(&command.id, &command.displayname)?;
        Some(AppCommand { app, timestamp: command.timestamp, action })
    }

    pub(crate) fn to_wire(&self) -> crate::pb::profile::AppCommand {
        let (id, displayname) = self.app.split();
        let command = match self.action {
            AppAction::Restart => app_command::Command::Restart,
            AppAction::Purge => app_command::Command::Purge,
        };
        let timestamp = self.timestamp;
        crate::pb::profile::AppCommand { id, displayname, timestamp, command: command.into() }
    }
}

/// From what an app boots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppBoot {
    /// Which app.
    pub app: Named,
    /// `Some(true)`: from USB first; `Some(false)`: never from USB; `None`: the server has no wish.
    pub usb: Option<bool>,
}

impl AppBoot {
    fn from_wire(config: &AppBootConfig) -> Option<AppBoot> {
        let usb = match config.usb_boot() {
            BootOrder::Unspecified => None,
            BootOrder::Usb => Some(true),
            BootOrder::Nousb => Some(false),
        };
        Some(AppBoot { app: Named::read(&config.id, &config.displayname)?, usb })
    }

    fn to_wire(&self) -> AppBootConfig {
        let (id, displayname) = self.app.split();
        let order = match self.usb {
            None => BootOrder::Unspecified,
            Some(true) => BootOrder::Usb,
            Some(false) => BootOrder::Nousb,
        };
        AppBootConfig { id, displayname, usb_boot: order.into() }
    }
}

/// What a server answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// As before (204), or thanks (location).
    NoChange,
    /// The server has no such call (404): ask less often, forget what it said of this.
    NotThere,
    /// The profile in force; empty: the controller's.
    Profile(String),
    /// Whether radios are to be silent.
    Radio {
        /// All of them.
        silence: bool,
    },
    /// Commands to apps; old ones may be repeated.
    Apps(Vec<AppCommand>),
    /// All wishes about what apps boot from: what is not named has none.
    Boots(Vec<AppBoot>),
    /// A command to the node; an old one may be repeated. `None`: there is none.
    Device(Option<DeviceCommand>),
    /// All ports that the server sets up: what is not named is the controller's.
    Ports(Vec<NetworkPortConfig>),
}

impl Answer {
    /// Reads what came of a call. `token` is the one of the config (`profile_server_token`).
    pub fn read(call: Call, status: u16, body: &[u8], token: &str) -> Result<Answer, LpsError> {
        match status {
            200 => {}
            204 => return Ok(Answer::NoChange),
            201 if call == Call::Location => return Ok(Answer::NoChange),
            404 => return Ok(Answer::NotThere),
            status => return Err(LpsError::Status { call, status }),
        }
        Ok(match call {
            Call::LocalProfile => {
                let answer: LocalProfile = read(body)?;
                proven(call, &answer.server_token, token)?;
                Answer::Profile(answer.local_profile)
            }
            Call::Radio => {
                let answer: RadioConfig = read(body)?;
                proven(call, &answer.server_token, token)?;
                Answer::Radio { silence: answer.radio_silence }
            }
            Call::AppInfo => {
                let answer: LocalAppCmdList = read(body)?;
                proven(call, &answer.server_token, token)?;
                Answer::Apps(answer.app_commands.iter().filter_map(AppCommand::from_wire).collect())
            }
            Call::AppBootInfo => {
                let answer: AppBootConfigList = read(body)?;
                proven(call, &answer.server_token, token)?;
                Answer::Boots(answer.app_configs.iter().filter_map(AppBoot::from_wire).collect())
            }
            Call::DevInfo => {
                let answer: LocalDevCmd = read(body)?;
                proven(call, &answer.server_token, token)?;
                Answer::Device(DeviceCommand::from_wire(&answer))
            }
            Call::Network => {
                let answer: LocalNetworkConfig = read(body)?;
                proven(call, &answer.server_token, token)?;
                Answer::Ports(answer.ports)
            }
            Call::Location => Answer::NoChange,
        })
    }

    /// The status and the body that a server with `token` answers with.
    pub fn to_body(&self, token: &str) -> (u16, Vec<u8>) {
        let server_token = token.to_owned();
        let body = match self {
            Answer::NoChange => return (204, Vec::new()),
            Answer::NotThere => return (404, Vec::new()),
            Answer::Profile(profile) => {
                wire::encode(&LocalProfile { local_profile: profile.clone(), server_token })
            }
            Answer::Radio { silence } => {
                wire::encode(&RadioConfig { radio_silence: *silence, server_token })
            }
            Answer::Apps(commands) => wire::encode(&LocalAppCmdList {
                app_commands: commands.iter().map(AppCommand::to_wire).collect(),
                server_token,
            }),
            Answer::Boots(boots) => wire::encode(&AppBootConfigList {
                app_configs: boots.iter().map(AppBoot::to_wire).collect(),
                server_token,
            }),
            Answer::Device(Some(command)) => wire::encode(&command.to_wire(token)),
            Answer::Device(None) => {
                wire::encode(&LocalDevCmd { server_token, ..LocalDevCmd::default() })
            }
            Answer::Ports(ports) => {
                wire::encode(&LocalNetworkConfig { ports: ports.clone(), server_token })
            }
        };
        (200, body)
    }
}

fn read<M: Message + Default>(body: &[u8]) -> Result<M, WireError> {
    wire::decode(body, BODY_MAX)
}

fn proven(call: Call, got: &str, want: &str) -> Result<(), LpsError> {
    if got == want { Ok(()) } else { Err(LpsError::Token { call }) }
}

/// What a node tells a server.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// With GET there is nothing to tell.
    Nothing,
    /// Its radios.
    Radio(RadioStatus),
    /// Its apps.
    Apps(LocalAppInfoList),
    /// From what its apps boot.
    Boots(AppBootInfoList),
    /// Itself.
    Device(LocalDevInfo),
    /// Its ports.
    Network(NetworkInfo),
    /// Where it is.
    Location(ZInfoLocation),
}

impl Told {
    /// The body of the request.
    pub fn to_body(&self) -> Vec<u8> {
        match self {
            Told::Nothing => Vec::new(),
            Told::Radio(message) => wire::encode(message),
            Told::Apps(message) => wire::encode(message),
            Told::Boots(message) => wire::encode(message),
            Told::Device(message) => wire::encode(message),
            Told::Network(message) => wire::encode(message),
            Told::Location(message) => wire::encode(message),
        }
    }
}

/// Reads the body of a request, on the server.
pub fn read_request(call: Call, body: &[u8]) -> Result<Told, WireError> {
    Ok(match call {
        Call::LocalProfile => Told::Nothing,
        Call::Radio => Told::Radio(read(body)?),
        Call::AppInfo => Told::Apps(read(body)?),
        Call::AppBootInfo => Told::Boots(read(body)?),
        Call::DevInfo => Told::Device(read(body)?),
        Call::Network => Told::Network(read(body)?),
        Call::Location => Told::Location(read(body)?),
    })
}

/// Commands that were executed, so that none runs twice: not when a server repeats it, and not after
/// a reboot. Save it *before* acting on what [`Executed::device`] or [`Executed::app`] returns.
///
/// A command is new when its timestamp differs from that of the last one; zero never is one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Executed {
    /// The timestamp of the last command to the node.
    pub device: u64,
    /// And to each app, by its id.
    pub apps: BTreeMap<String, u64>,
}

impl Executed {
    /// What the node is to do now.
    pub fn device(&mut self, command: &DeviceCommand) -> Option<DeviceAction> {
        let new = command.timestamp != self.device && command.timestamp != 0;
        new.then(|| {
            self.device = command.timestamp;
            command.action
        })
    }

    /// What the app with this id is to do now. Who the command means is for the caller to find out:
    /// ids and names are known there.
    pub fn app(&mut self, id: &str, command: &AppCommand) -> Option<AppAction> {
        let last = self.apps.get(id).copied().unwrap_or_default();
        let new = command.timestamp != last && command.timestamp != 0;
        new.then(|| {
            self.apps.insert(id.to_owned(), command.timestamp);
            command.action
        })
    }

    /// Forgets apps that are gone.
    pub fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        self.apps.retain(|id, _| is_there(id));
    }
}

/// An answer that counts as none.
#[derive(Debug, thiserror::Error)]
pub enum LpsError {
    /// Not the message it should be.
    #[error("cannot read the answer of the local profile server")]
    Wire(#[from] WireError),
    /// Another token, or none.
    #[error("the local profile server's answer to {} has another server_token", call.path())]
    Token {
        /// To what.
        call: Call,
    },
    /// Another status than 200, 204 or 404.
    #[error("the local profile server answers {} with status {status}", call.path())]
    Status {
        /// To what.
        call: Call,
        /// Which.
        status: u16,
    },
}

impl Diagnose for LpsError {
    fn diagnose(&self) -> Diagnosis {
        match self {
            Self::Wire(e) => e.diagnose(),
            Self::Token { .. } => Diagnosis::of(
                Who::Operator,
                "give the local profile server the token that the config names",
            ),
            Self::Status { call, .. } => {
                Diagnosis::of(Who::Network, "look at the log of the local profile server")
                    .retry_in(call.period())
            }
        }
    }
}
