//! The config of a device: what a controller sends, and what a node understands of it.
//!
//! Not understood yet, and left aside without a word: clusters. Obsolete, and left aside as EVE
//! does: `base`, `backup`.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Debug;

use model::desired::{Device, ObjectKind, Power, Refused};
use model::{DeviceId, Diagnose, Diagnosis, Id, Who};

use super::node::or_refuse;
use super::ports::Below;
use super::refuse::{Rejected, wrong};
use super::secret::{Open, Opener, Seal, Sealer};
use super::{
    app, content, enrol, from_timestamp, hardware, netinst, node, patch, ports, to_timestamp,
};
use crate::identity::sha256;
use crate::limits;
use crate::pb::common::{CipherBlock, CipherContext};
use crate::pb::config::{
    ConfigItem, ConfigRequest, ConfigResponse, DeviceOpsCmd, EdgeDevConfig, UuiDandVersion,
};
use crate::wire::{self, WireError};

/// What a node asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// The hash of the last answer in this boot; empty at first.
    pub hash: String,
    /// From the last attestation; empty without one.
    pub integrity_token: Vec<u8>,
}

impl Request {
    /// The payload of the request.
    pub fn to_payload(&self) -> Vec<u8> {
        wire::encode(&ConfigRequest {
            config_hash: self.hash.clone(),
            integrity_token: self.integrity_token.clone(),
        })
    }

    /// Reads the payload of the request.
    pub fn from_payload(payload: &[u8]) -> Result<Request, WireError> {
        let request: ConfigRequest = wire::decode(payload, limits::ONBOARDING)?;
        Ok(Request { hash: request.config_hash, integrity_token: request.integrity_token })
    }
}

/// What a controller answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// The config is still the one the node has.
    Unchanged,
    /// Another config.
    Changed {
        /// To ask with next time.
        hash: String,
        /// What it says.
        device: Box<Device>,
    },
}

/// Reads the payload of an answer. `own` is who we are, `have` the hash we asked with.
///
/// Whether the config is older than the one in force is for the caller to compare
/// ([`Device::timestamp`]).
pub fn read_answer(payload: &[u8], own: DeviceId, have: &str) -> Result<Answer, ConfigError> {
    read_sealed_answer(payload, own, have, &mut no_key)
}

/// The same for whoever has the key to what is sealed ([`read_sealed`]).
pub fn read_sealed_answer(
    payload: &[u8],
    own: DeviceId,
    have: &str,
    open: &mut Open<'_>,
) -> Result<Answer, ConfigError> {
    let response: ConfigResponse = wire::decode(payload, limits::CONFIG)?;
    let hash = response.config_hash;
    if hash.is_empty() {
        return Err(ConfigError::NoHash);
    }
    if hash == have {
        return Ok(Answer::Unchanged);
    }
    let config = response.config.ok_or(ConfigError::NoConfig)?;
    Ok(Answer::Changed { hash, device: Box::new(read_sealed(&config, own, open)?) })
}

/// The payload of an answer: the config, and the hash that stands for it. `have` is the hash of the
/// request; if nothing changed, the answer says only that.
///
/// The hash covers the whole config, its timestamp and the hash of the controller's certificates
/// included: set the timestamp when the config changes, not when it is asked for.
pub fn write_answer(device: &Device, have: &str) -> (String, Vec<u8>) {
    let config = write(device);
    let hash = hash(&config);
    let config = (hash != have).then_some(config);
    let payload = wire::encode(&ConfigResponse { config, config_hash: hash.clone() });
    (hash, payload)
}

/// The answer to a request for a config under a hash of the caller's own, with every secret sealed
/// as in [`write_sealed`].
pub fn write_sealed_answer(
    device: &Device,
    hash: &str,
    contexts: Vec<CipherContext>,
    seal: &mut Seal<'_>,
) -> Vec<u8> {
    let config = Some(write_sealed(device, contexts, seal));
    wire::encode(&ConfigResponse { config, config_hash: hash.to_owned() })
}

/// A config as a whole that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not protobuf, or too long.
    #[error("cannot read the config")]
    Wire(#[from] WireError),
    /// The answer has no hash.
    #[error("ConfigResponse.configHash is empty")]
    NoHash,
    /// The answer has another hash, but no config.
    #[error("ConfigResponse.config is missing although configHash changed")]
    NoConfig,
    /// It does not say whom it is for.
    #[error("EdgeDevConfig.id.uuid is missing")]
    NoId,
    /// It is not clear whom it is for.
    #[error("EdgeDevConfig.id.uuid {uuid:?} is no UUID")]
    BadId {
        /// As on the wire, cut.
        uuid: String,
        /// Why not.
        source: uuid::Error,
    },
    /// It is for another device.
    #[error("the config is for device {got}, we are {own}")]
    Foreign {
        /// For whom it is.
        got: DeviceId,
        /// Who we are.
        own: DeviceId,
    },
}

impl Diagnose for ConfigError {
    fn diagnose(&self) -> Diagnosis {
        match self {
            Self::Wire(wire) => wire.diagnose(),
            Self::NoHash | Self::NoConfig => {
                Diagnosis::of(Who::Developer, "repair the controller's answer to config")
            }
            Self::NoId | Self::BadId { .. } => {
                Diagnosis::of(Who::Operator, "set the node's UUID in its config")
            }
            Self::Foreign { .. } => Diagnosis::of(
                Who::Operator,
                "find out which hardware the UUID belongs to and give the other one its own",
            ),
        }
    }
}

/// What a node of id `own` understands of a config. Objects that it does not are in
/// [`Device::refused`]; references may point nowhere. Objects with sealed secrets are refused; see
/// [`read_sealed`].
pub fn read(config: &EdgeDevConfig, own: DeviceId) -> Result<Device, ConfigError> {
    read_sealed(config, own, &mut no_key)
}

fn no_key(_: &[CipherContext], _: &CipherBlock) -> Result<Vec<u8>, String> {
    Err("it is sealed, and no key to open it is at hand".to_owned())
}

/// The same for whoever has the key: `open` gives the plain bytes of a block, or says why not. An
/// object whose block does not open is refused, also if a clear twin stands beside it.
pub fn read_sealed(
    config: &EdgeDevConfig,
    own: DeviceId,
    open: &mut Open<'_>,
) -> Result<Device, ConfigError> {
    let id = whom(config)?;
    if id != own {
        return Err(ConfigError::Foreign { got: id, own });
    }
    let opener = &mut Opener { contexts: &config.cipher_contexts, open };
    let mut refused = Vec::new();
    let counter = |c: &Option<DeviceOpsCmd>| c.as_ref().map(|c| c.counter);
    let mut device = Device::new(id);
    device.timestamp = config.config_timestamp.as_ref().map(from_timestamp);
    device.name = config.device_name.clone();
    device.epoch = config.controller_epoch;
    device.controller_certs_hash = config.controllercert_confighash.clone();
    device.product = node::read_product(config);
    device.owner = node::read_owner(config);
    device.maintenance = config.maintenance_mode;
    device.profile = config.global_profile.clone();
    device.local_server = node::read_local_server(config);
    let console = config.loc_config.as_ref().filter(|p| !p.loc_url.is_empty());
    let console = console.map(node::read_local_console);
    device.local_console = or_refuse(ObjectKind::Node, "loc_config", console, &mut refused);
    let base = config.baseos.as_ref().map(node::read_base_os);
    device.base_os = or_refuse(ObjectKind::BaseOs, "baseos", base, &mut refused);
    let view = config.edgeview.as_ref().map(node::read_edge_view);
    device.edge_view = or_refuse(ObjectKind::Node, "edgeview", view, &mut refused);
    let disks = config.disks.as_ref().map(node::read_disks);
    device.disks = or_refuse(ObjectKind::Node, "disks", disks, &mut refused);
    device.hardware = hardware::read(config, &mut refused);
    device.bonds = hardware::read_bonds(config, &device.hardware, &mut refused);
    device.vlans = hardware::read_vlans(config, &device.hardware, &device.bonds, &mut refused);
    let below = Below { hardware: &device.hardware, vlans: &device.vlans, bonds: &device.bonds };
    device.ports = ports::read(config, below, opener, &mut refused);
    device.enrolments = enrol::read(&config.scep_profiles, opener, &mut refused);
    device.port_access = enrol::read_access(&config.pnacs, &mut refused);
    device.datastores = table(&config.datastores, &mut refused, |p| {
        let named = (ObjectKind::Datastore, p.id.as_str(), p.fqdn.as_str());
        (named, content::read_datastore(p, opener).map(|d| (d.id, d)))
    });
    device.contents = table(&config.content_info, &mut refused, |p| {
        let named = (ObjectKind::Content, p.uuid.as_str(), p.display_name.as_str());
        (named, content::read_content(p).map(|c| (c.id, c)))
    });
    device.volumes = table(&config.volumes, &mut refused, |p| {
        let named = (ObjectKind::Volume, p.uuid.as_str(), p.display_name.as_str());
        (named, content::read_volume(p).map(|v| (v.id, v)))
    });
    device.network_instances = table(&config.network_instances, &mut refused, |p| {
        let named = (ObjectKind::NetworkInstance, uuid(p.uuidandversion.as_ref()), &*p.displayname);
        (named, netinst::read(p).map(|n| (n.id, n)))
    });
    device.apps = table(&config.apps, &mut refused, |p| {
        let named = (ObjectKind::App, uuid(p.uuidandversion.as_ref()), &*p.displayname);
        (named, app::read(p, opener).map(|a| (a.id, a)))
    });
    device.patches = table(&config.patch_envelopes, &mut refused, |p| {
        let named = (ObjectKind::Patch, p.uuid.as_str(), p.display_name.as_str());
        (named, patch::read(p, opener).map(|e| (e.id, e)))
    });
    device.items = config.config_items.iter().map(|i| (i.key.clone(), i.value.clone())).collect();
    device.power = Power { reboot: counter(&config.reboot), shutdown: counter(&config.shutdown) };
    device.refused = refused;
    Ok(device)
}

/// The config that says `device`, with secrets in clear where the wire has a place for that; those
/// of access points and enrolments are left out. What was refused is not in it.
pub fn write(device: &Device) -> EdgeDevConfig {
    write_with(device, Sealer { seal: None })
}

/// The same with every secret sealed: `seal` makes a block of plain bytes, with an initial value
/// that is never used twice, and `contexts` say how.
pub fn write_sealed(
    device: &Device,
    contexts: Vec<CipherContext>,
    seal: &mut Seal<'_>,
) -> EdgeDevConfig {
    let mut config = write_with(device, Sealer { seal: Some(seal) });
    config.cipher_contexts = contexts;
    config
}

fn write_with(device: &Device, mut sealer: Sealer<'_, '_>) -> EdgeDevConfig {
    let sealer = &mut sealer;
    let counter = |c: Option<u32>| c.map(|counter| DeviceOpsCmd { counter, ..Default::default() });
    let server = device.local_server.as_ref();
    let mut config = EdgeDevConfig {
        id: Some(UuiDandVersion { uuid: device.id.to_string(), version: String::new() }),
        apps: device.apps.values().map(|a| app::write(a, sealer)).collect(),
        datastores: device
            .datastores
            .values()
            .map(|d| content::write_datastore(d, sealer))
            .collect(),
        reboot: counter(device.power.reboot),
        config_items: device
            .items
            .iter()
            .map(|(key, value)| ConfigItem { key: key.clone(), value: value.clone() })
            .collect(),
        manufacturer: device.product.manufacturer.clone(),
        product_name: device.product.name.clone(),
        network_instances: device.network_instances.values().map(netinst::write).collect(),
        content_info: device.contents.values().map(content::write_content).collect(),
        volumes: device.volumes.values().map(content::write_volume).collect(),
        controllercert_confighash: device.controller_certs_hash.clone(),
        maintenance_mode: device.maintenance,
        controller_epoch: device.epoch,
        baseos: device.base_os.as_ref().map(node::write_base_os),
        global_profile: device.profile.clone(),
        local_profile_server: server.map(|s| s.address.clone()).unwrap_or_default(),
        profile_server_token: server.map(|s| s.token.reveal().to_owned()).unwrap_or_default(),
        edgeview: device.edge_view.as_ref().map(node::write_edge_view),
        disks: device.disks.as_ref().map(node::write_disks),
        shutdown: counter(device.power.shutdown),
        device_name: device.name.clone(),
        project_name: device.owner.project.clone(),
        project_id: device.owner.project_id.clone(),
        enterprise_name: device.owner.enterprise.clone(),
        enterprise_id: device.owner.enterprise_id.clone(),
        config_timestamp: device.timestamp.map(to_timestamp),
        loc_config: device.local_console.as_ref().map(node::write_local_console),
        patch_envelopes: device.patches.values().map(|p| patch::write(p, sealer)).collect(),
        pnacs: device.port_access.values().map(enrol::write_access).collect(),
        scep_profiles: device.enrolments.values().map(|e| enrol::write(e, sealer)).collect(),
        ..EdgeDevConfig::default()
    };
    ports::write(device, &mut config, sealer);
    config
}

/// A hash that changes when the config does: SHA-256 over its bytes, in hexadecimal.
fn hash(config: &EdgeDevConfig) -> String {
    sha256(&wire::encode(config)).hex()
}

fn whom(config: &EdgeDevConfig) -> Result<DeviceId, ConfigError> {
    let uuid = uuid(config.id.as_ref());
    if uuid.is_empty() {
        return Err(ConfigError::NoId);
    }
    uuid.parse()
        .map_err(|source| ConfigError::BadId { uuid: uuid.chars().take(80).collect(), source })
}

fn uuid(named: Option<&UuiDandVersion>) -> &str {
    named.map(|n| n.uuid.as_str()).unwrap_or_default()
}

/// Reads the objects of one kind. What is refused, or has the id of an earlier one, is left out.
fn table<'a, P, K, V: Debug>(
    objects: &'a [P],
    refused: &mut Vec<Refused>,
    mut read: impl FnMut(&'a P) -> ((ObjectKind, &'a str, &'a str), Result<(Id<K>, V), Rejected>),
) -> BTreeMap<Id<K>, V> {
    let mut table = BTreeMap::new();
    for object in objects {
        let ((kind, id, name), read) = read(object);
        match read {
            Ok((key, value)) => match table.entry(key) {
                Entry::Vacant(free) => {
                    free.insert(value);
                }
                Entry::Occupied(_) => {
                    refused.push(wrong("uuid", "another object has it too").of(kind, id, name));
                }
            },
            Err(why) => refused.push(why.of(kind, id, name)),
        }
    }
    table
}
