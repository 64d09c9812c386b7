//! Datastores, content trees, volumes.

use model::desired::{Content, Datastore, DatastoreKind, ImageFormat, Origin, Volume};
use model::{Bytes, Digest};

use super::refuse::{Rejected, id, no, wrong};
use crate::pb::config::{
    ContentTree, DatastoreConfig, DsType, Format, Volume as PbVolume, VolumeContentOrigin,
    VolumeContentOriginType,
};

pub(super) fn read_datastore(p: &DatastoreConfig) -> Result<Datastore, Rejected> {
    let kind = match DsType::try_from(p.d_type) {
        Ok(DsType::DsHttp) => DatastoreKind::Http,
        Ok(DsType::DsHttps) => DatastoreKind::Https,
        Ok(DsType::DsContainerRegistry) => DatastoreKind::Registry,
        _ => {
            let want = "http (1), https (2) or registry (5); others are not supported yet";
            return Err(no("dType", p.d_type, want));
        }
    };
    // A download without them would fail far from here, with a word about permissions.
    if p.cipher_data.is_some() {
        return Err(wrong("cipherData", "sealed passwords are not supported yet"));
    }
    if !p.api_key.is_empty() || !p.password.is_empty() {
        return Err(wrong("apiKey", "datastores with passwords are not supported yet"));
    }
    let host = p.fqdn.split_once("://").map_or(p.fqdn.as_str(), |(_, host)| host);
    let host = host.trim_end_matches('/');
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    if host.is_empty() || host.len() > 255 || !host.chars().all(plain) {
        return Err(no("fqdn", &p.fqdn, "a host with an optional port"));
    }
    let trust_pem = p.ds_cert_pem.iter().map(|pem| {
        String::from_utf8(pem.clone()).map_err(|_| wrong("dsCertPEM", "it is no PEM text"))
    });
    Ok(Datastore {
        id: id("id", &p.id)?,
        kind,
        host: host.to_owned(),
        prefix: p.dpath.trim_matches('/').to_owned(),
        trust_pem: trust_pem.collect::<Result<_, _>>()?,
    })
}

pub(super) fn write_datastore(datastore: &Datastore) -> DatastoreConfig {
    let (kind, scheme) = match datastore.kind {
        DatastoreKind::Http => (DsType::DsHttp, "http"),
        DatastoreKind::Https => (DsType::DsHttps, "https"),
        DatastoreKind::Registry => (DsType::DsContainerRegistry, "docker"),
    };
    DatastoreConfig {
        id: datastore.id.to_string(),
        d_type: kind.into(),
        fqdn: format!("{scheme}://{}", datastore.host),
        dpath: datastore.prefix.clone(),
        ds_cert_pem: datastore.trust_pem.iter().map(|pem| pem.clone().into_bytes()).collect(),
        ..DatastoreConfig::default()
    }
}

pub(super) fn read_content(p: &ContentTree) -> Result<Content, Rejected> {
    let format = match Format::try_from(p.iformat) {
        Ok(Format::Raw) => ImageFormat::Raw,
        Ok(Format::Qcow2) => ImageFormat::Qcow2,
        Ok(Format::Container) => ImageFormat::Container,
        Ok(Format::Iso) => ImageFormat::Iso,
        _ => {
            let want = "RAW (1), QCOW2 (3), CONTAINER (8) or ISO (9); others are not supported yet";
            return Err(no("iformat", p.iformat, want));
        }
    };
    // Some controllers fill both; the list is the newer one.
    let datastores = if p.ds_ids_list.is_empty() {
        vec![id("dsId", &p.ds_id)?]
    } else {
        p.ds_ids_list.iter().map(|d| id("ds_ids_list", d)).collect::<Result<_, _>>()?
    };
    if p.url.is_empty() {
        return Err(wrong("URL", "it is missing"));
    }
    let sha256 = match p.sha256.as_str() {
        "" => None,
        hex => Some(
            Digest::from_hex(hex.strip_prefix("sha256:").unwrap_or(hex))
                .map_err(|_| no("sha256", hex, "64 hexadecimal digits"))?,
        ),
    };
    Ok(Content {
        id: id("uuid", &p.uuid)?,
        name: p.display_name.clone(),
        datastores,
        url: p.url.clone(),
        format,
        sha256,
        max_size: (p.max_size_bytes > 0).then_some(Bytes(p.max_size_bytes)),
    })
}

pub(super) fn write_content(content: &Content) -> ContentTree {
    let format = match content.format {
        ImageFormat::Raw => Format::Raw,
        ImageFormat::Qcow2 => Format::Qcow2,
        ImageFormat::Container => Format::Container,
        ImageFormat::Iso => Format::Iso,
    };
    let datastores: Vec<String> = content.datastores.iter().map(ToString::to_string).collect();
    ContentTree {
        uuid: content.id.to_string(),
        // Older devices know one datastore only.
        ds_id: datastores.first().cloned().unwrap_or_default(),
        url: content.url.clone(),
        iformat: format.into(),
        sha256: content.sha256.map(|d| d.hex()).unwrap_or_default(),
        max_size_bytes: content.max_size.map_or(0, |b| b.0),
        display_name: content.name.clone(),
        ds_ids_list: datastores,
        ..ContentTree::default()
    }
}

pub(super) fn read_volume(p: &PbVolume) -> Result<Volume, Rejected> {
    let origin = p.origin.as_ref().ok_or_else(|| wrong("origin", "it is missing"))?;
    let origin = match VolumeContentOriginType::try_from(origin.r#type) {
        Ok(VolumeContentOriginType::VcotBlank) => Origin::Blank,
        Ok(VolumeContentOriginType::VcotDownload) => {
            Origin::Content(id("origin.downloadContentTreeID", &origin.download_content_tree_id)?)
        }
        _ => return Err(no("origin.type", origin.r#type, "blank (1) or download (2)")),
    };
    let max_size =
        u64::try_from(p.maxsizebytes).map_err(|_| no("maxsizebytes", p.maxsizebytes, "a size"))?;
    Ok(Volume {
        id: id("uuid", &p.uuid)?,
        generation: generation("generationCount", p.generation_count)?,
        name: p.display_name.clone(),
        origin,
        max_size: (max_size > 0).then_some(Bytes(max_size)),
        readonly: p.readonly,
    })
}

/// The wire's counters have a sign; they never use it.
pub(super) fn generation(field: &str, count: i64) -> Result<u64, Rejected> {
    u64::try_from(count).map_err(|_| no(field, count, "0 or more"))
}

pub(super) fn write_volume(volume: &Volume) -> PbVolume {
    let origin = match volume.origin {
        Origin::Blank => VolumeContentOrigin {
            r#type: VolumeContentOriginType::VcotBlank.into(),
            download_content_tree_id: String::new(),
        },
        Origin::Content(content) => VolumeContentOrigin {
            r#type: VolumeContentOriginType::VcotDownload.into(),
            download_content_tree_id: content.to_string(),
        },
    };
    PbVolume {
        uuid: volume.id.to_string(),
        origin: Some(origin),
        generation_count: i64::try_from(volume.generation).unwrap_or(i64::MAX),
        maxsizebytes: volume.max_size.map_or(0, |b| i64::try_from(b.0).unwrap_or(i64::MAX)),
        readonly: volume.readonly,
        display_name: volume.name.clone(),
        ..PbVolume::default()
    }
}
