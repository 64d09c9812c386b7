//! What a node is told of itself: base image, disks, EdgeView, local servers.

use model::Secret;
use model::desired::{
    BaseOs, DiskArray, DiskName, DiskRole, DiskUse, Disks, EdgeView, LocalConsole, LocalServer,
    ObjectKind, Owner, Product, Refused,
};

use super::hardware::{number, word};
use super::refuse::{Rejected, id, no, wrong};
use crate::pb::common::DiskDescription;
use crate::pb::config::{
    AppDebugAccessPolicy, BaseOs as PbBaseOs, DevDebugAccessPolicy, DeviceOpsCmd, DiskConfig,
    DiskConfigType, DisksArrayType, DisksConfig, EdgeDevConfig, EdgeViewConfig,
    ExternalEndPointPolicy, LocConfig,
};

const ROLES: [(DiskRole, DiskConfigType); 7] = [
    (DiskRole::Unspecified, DiskConfigType::Unspecified),
    (DiskRole::System, DiskConfigType::Eveos),
    (DiskRole::Persist, DiskConfigType::Persist),
    (DiskRole::Online, DiskConfigType::ZfsOnline),
    (DiskRole::Offline, DiskConfigType::ZfsOffline),
    (DiskRole::App, DiskConfigType::Appdirect),
    (DiskRole::Unused, DiskConfigType::Unused),
];

const ARRAYS: [(DiskArray, DisksArrayType); 5] = [
    (DiskArray::Unspecified, DisksArrayType::Unspecified),
    (DiskArray::Raid0, DisksArrayType::Raid0),
    (DiskArray::Raid1, DisksArrayType::Raid1),
    (DiskArray::Raid5, DisksArrayType::Raid5),
    (DiskArray::Raid6, DisksArrayType::Raid6),
];

/// Arrays of arrays of arrays exist in no node; protobuf itself would follow a hundred levels.
const DISKS_DEPTH: usize = 4;

/// The value, or a refusal of the node's own in its place.
pub(super) fn or_refuse<T>(
    kind: ObjectKind,
    name: &str,
    read: Option<Result<T, Rejected>>,
    refused: &mut Vec<Refused>,
) -> Option<T> {
    match read? {
        Ok(value) => Some(value),
        Err(why) => {
            refused.push(why.of(kind, name, ""));
            None
        }
    }
}

pub(super) fn read_base_os(p: &PbBaseOs) -> Result<BaseOs, Rejected> {
    if p.base_os_version.is_empty() {
        return Err(wrong("base_os_version", "it is missing"));
    }
    Ok(BaseOs {
        content: id("content_tree_uuid", &p.content_tree_uuid)?,
        version: p.base_os_version.clone(),
        activate: p.activate,
        retry: p.retry_update.as_ref().map_or(0, |c| c.counter),
    })
}

pub(super) fn write_base_os(base: &BaseOs) -> PbBaseOs {
    PbBaseOs {
        content_tree_uuid: base.content.to_string(),
        retry_update: Some(DeviceOpsCmd { counter: base.retry, ..DeviceOpsCmd::default() }),
        activate: base.activate,
        base_os_version: base.version.clone(),
    }
}

/// `None` without a server.
pub(super) fn read_local_server(config: &EdgeDevConfig) -> Option<LocalServer> {
    (!config.local_profile_server.is_empty()).then(|| LocalServer {
        address: config.local_profile_server.clone(),
        token: Secret::new(config.profile_server_token.as_str()),
    })
}

pub(super) fn read_local_console(p: &LocConfig) -> Result<LocalConsole, Rejected> {
    let bundles = p.datastore_collect_info_id.iter().map(|d| id("datastore_collect_info_id", d));
    Ok(LocalConsole { url: p.loc_url.clone(), bundles: bundles.collect::<Result<_, _>>()? })
}

pub(super) fn write_local_console(console: &LocalConsole) -> LocConfig {
    LocConfig {
        loc_url: console.url.clone(),
        datastore_collect_info_id: console.bundles.iter().map(ToString::to_string).collect(),
    }
}

pub(super) fn read_edge_view(p: &EdgeViewConfig) -> Result<EdgeView, Rejected> {
    let pem = p.disp_cert_pem.iter().map(|pem| {
        String::from_utf8(pem.clone()).map_err(|_| wrong("disp_cert_pem", "it is no PEM text"))
    });
    Ok(EdgeView {
        token: Secret::new(p.token.as_str()),
        dispatcher_pem: pem.collect::<Result<_, _>>()?,
        device: p.dev_policy.as_ref().is_some_and(|p| p.allow_dev),
        apps: p.app_policy.as_ref().is_some_and(|p| p.allow_app),
        external: p.ext_policy.as_ref().is_some_and(|p| p.allow_ext),
        generation: p.generation_id,
    })
}

pub(super) fn write_edge_view(view: &EdgeView) -> EdgeViewConfig {
    EdgeViewConfig {
        token: view.token.reveal().to_owned(),
        disp_cert_pem: view.dispatcher_pem.iter().map(|pem| pem.clone().into_bytes()).collect(),
        dev_policy: Some(DevDebugAccessPolicy { allow_dev: view.device }),
        app_policy: Some(AppDebugAccessPolicy { allow_app: view.apps }),
        ext_policy: Some(ExternalEndPointPolicy { allow_ext: view.external }),
        generation_id: view.generation,
    }
}

pub(super) fn read_disks(p: &DisksConfig) -> Result<Disks, Rejected> {
    disks(p, DISKS_DEPTH)
}

fn disks(p: &DisksConfig, depth: usize) -> Result<Disks, Rejected> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(wrong("disks.children", format_args!("more than {DISKS_DEPTH} levels")));
    };
    let name = |d: &DiskDescription| DiskName {
        name: d.name.clone(),
        label: d.logical_name.clone(),
        serial: d.serial.clone(),
    };
    let one = |d: &DiskConfig| {
        let disk = d.disk.as_ref().ok_or_else(|| wrong("disks.disk", "it is missing"))?;
        let role = word(&ROLES, d.disk_config)
            .ok_or_else(|| no("disks.disk_config", d.disk_config, "0 to 6"))?;
        Ok(DiskUse { disk: name(disk), replaces: d.old_disk.as_ref().map(name), role })
    };
    Ok(Disks {
        disks: p.disks.iter().map(one).collect::<Result<_, _>>()?,
        array: word(&ARRAYS, p.array_type)
            .ok_or_else(|| no("disks.array_type", p.array_type, "0 to 4"))?,
        children: p.children.iter().map(|c| disks(c, depth)).collect::<Result<_, _>>()?,
    })
}

pub(super) fn write_disks(disks: &Disks) -> DisksConfig {
    let name = |d: &DiskName| DiskDescription {
        name: d.name.clone(),
        logical_name: d.label.clone(),
        serial: d.serial.clone(),
    };
    DisksConfig {
        disks: disks
            .disks
            .iter()
            .map(|d| DiskConfig {
                disk: Some(name(&d.disk)),
                old_disk: d.replaces.as_ref().map(name),
                disk_config: number(&ROLES, &d.role),
            })
            .collect(),
        array_type: number(&ARRAYS, &disks.array),
        children: disks.children.iter().map(write_disks).collect(),
    }
}

pub(super) fn read_owner(config: &EdgeDevConfig) -> Owner {
    Owner {
        project: config.project_name.clone(),
        project_id: config.project_id.clone(),
        enterprise: config.enterprise_name.clone(),
        enterprise_id: config.enterprise_id.clone(),
    }
}

pub(super) fn read_product(config: &EdgeDevConfig) -> Product {
    Product { manufacturer: config.manufacturer.clone(), name: config.product_name.clone() }
}
