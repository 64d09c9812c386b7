//! Datastores, content trees, volumes.

use model::desired::{
    Content, Credentials, Datastore, DatastoreKind, ImageFormat, Origin, Volume, VolumeTarget,
};
use model::{Bytes, Digest, Secret};

use super::hardware::{number, word};
use super::refuse::{Rejected, id, no, wrong};
use super::secret::{Opener, Sealer};
use crate::pb::common::EncryptionBlock;
use crate::pb::config::{
    ContentTree, DatastoreConfig, DsType, Format, Target, Volume as PbVolume, VolumeContentOrigin,
    VolumeContentOriginType,
};

const STORES: [(DatastoreKind, DsType); 7] = [
    (DatastoreKind::Http, DsType::DsHttp),
    (DatastoreKind::Https, DsType::DsHttps),
    (DatastoreKind::S3, DsType::DsS3),
    (DatastoreKind::Sftp, DsType::DsSftp),
    (DatastoreKind::Registry, DsType::DsContainerRegistry),
    (DatastoreKind::Azure, DsType::DsAzureBlob),
    (DatastoreKind::Gcs, DsType::DsGoogleStorage),
];

const FORMATS: [(ImageFormat, Format); 9] = [
    (ImageFormat::Raw, Format::Raw),
    (ImageFormat::Qcow, Format::Qcow),
    (ImageFormat::Qcow2, Format::Qcow2),
    (ImageFormat::Vhd, Format::Vhd),
    (ImageFormat::Vmdk, Format::Vmdk),
    (ImageFormat::Ova, Format::Ova),
    (ImageFormat::Vhdx, Format::Vhdx),
    (ImageFormat::Container, Format::Container),
    (ImageFormat::Iso, Format::Iso),
];

/// What is written of a disk is what EVE's controllers write: nothing.
const TARGETS: [(VolumeTarget, Target); 6] = [
    (VolumeTarget::Disk, Target::TgtUnknown),
    (VolumeTarget::Disk, Target::Disk),
    (VolumeTarget::Kernel, Target::Kernel),
    (VolumeTarget::Initrd, Target::Initrd),
    (VolumeTarget::RamDisk, Target::RamDisk),
    (VolumeTarget::Custom, Target::AppCustom),
];

pub(super) fn read_datastore(
    p: &DatastoreConfig,
    opener: &mut Opener<'_, '_>,
) -> Result<Datastore, Rejected> {
    let kind = word(&STORES, p.d_type).ok_or_else(|| no("dType", p.d_type, "1 to 7"))?;
    let (user, password) = match opener.block("cipherData", p.cipher_data.as_ref())? {
        Some(block) => (block.ds_api_key, block.ds_password),
        None => (p.api_key.clone(), p.password.clone()),
    };
    let credentials = (!user.is_empty() || !password.is_empty())
        .then(|| Credentials { user: Secret::new(user), password: Secret::new(password) });
    let host = if kind.is_object_store() {
        endpoint(&p.fqdn)?
    } else {
        let host = p.fqdn.split_once("://").map_or(p.fqdn.as_str(), |(_, host)| host);
        let host = host.trim_end_matches('/');
        let plain = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
        if host.is_empty() || host.len() > 255 || !host.chars().all(plain) {
            return Err(no("fqdn", &p.fqdn, "a host with an optional port"));
        }
        host.to_owned()
    };
    let trust_pem = p.ds_cert_pem.iter().map(|pem| {
        String::from_utf8(pem.clone()).map_err(|_| wrong("dsCertPEM", "it is no PEM text"))
    });
    Ok(Datastore {
        id: id("id", &p.id)?,
        kind,
        host,
        prefix: p.dpath.trim_matches('/').to_owned(),
        trust_pem: trust_pem.collect::<Result<_, _>>()?,
        region: p.region.clone(),
        credentials,
    })
}

/// The endpoint of an object store: nothing (the provider's own), a host, or a URL.
fn endpoint(text: &str) -> Result<String, Rejected> {
    let plain = |c: char| c.is_ascii_graphic() && !"\"'<>\\^`{}|@".contains(c);
    if text.len() > 255 || !text.chars().all(plain) {
        return Err(no("fqdn", text, "a host or the URL of an endpoint"));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

pub(super) fn write_datastore(
    datastore: &Datastore,
    sealer: &mut Sealer<'_, '_>,
) -> DatastoreConfig {
    let scheme = match datastore.kind {
        DatastoreKind::Http => "http://",
        DatastoreKind::Https => "https://",
        DatastoreKind::Registry => "docker://",
        DatastoreKind::Sftp => "sftp://",
        DatastoreKind::S3 | DatastoreKind::Azure | DatastoreKind::Gcs => "",
    };
    let who = datastore.credentials.as_ref();
    let user = who.map(|c| c.user.reveal().to_owned()).unwrap_or_default();
    let password = who.map(|c| c.password.reveal().to_owned()).unwrap_or_default();
    let block = EncryptionBlock {
        ds_api_key: user.clone(),
        ds_password: password.clone(),
        ..EncryptionBlock::default()
    };
    let mut written = DatastoreConfig {
        id: datastore.id.to_string(),
        d_type: number(&STORES, &datastore.kind),
        fqdn: format!("{scheme}{}", datastore.host),
        dpath: datastore.prefix.clone(),
        region: datastore.region.clone(),
        cipher_data: sealer.block(&block),
        ds_cert_pem: datastore.trust_pem.iter().map(|pem| pem.clone().into_bytes()).collect(),
        ..DatastoreConfig::default()
    };
    if written.cipher_data.is_none() {
        (written.api_key, written.password) = (user, password);
    }
    written
}

pub(super) fn read_content(p: &ContentTree) -> Result<Content, Rejected> {
    let format = word(&FORMATS, p.iformat)
        .ok_or_else(|| no("iformat", p.iformat, "1 to 9; others are not supported yet"))?;
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
        generation: generation("generation_count", p.generation_count)?,
        custom_metadata: p.custom_meta_data.clone(),
    })
}

pub(super) fn write_content(content: &Content) -> ContentTree {
    let datastores: Vec<String> = content.datastores.iter().map(ToString::to_string).collect();
    ContentTree {
        uuid: content.id.to_string(),
        // Older devices know one datastore only.
        ds_id: datastores.first().cloned().unwrap_or_default(),
        url: content.url.clone(),
        iformat: number(&FORMATS, &content.format),
        sha256: content.sha256.map(|d| d.hex()).unwrap_or_default(),
        max_size_bytes: content.max_size.map_or(0, |b| b.0),
        display_name: content.name.clone(),
        generation_count: i64::try_from(content.generation).unwrap_or(i64::MAX),
        custom_meta_data: content.custom_metadata.clone(),
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
        clear_text: p.clear_text,
        target: word(&TARGETS, p.target).ok_or_else(|| no("target", p.target, "0 to 5"))?,
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
        clear_text: volume.clear_text,
        target: number(&TARGETS, &volume.target),
        ..PbVolume::default()
    }
}
