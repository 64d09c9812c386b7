//! Patch envelopes: `EvePatchEnvelope` and its artifacts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::desired::{Artifact, ArtifactBody, INLINE_MAX, PatchEnvelope};
use prost::Message as _;

use super::refuse::{Rejected, id, no, wrong};
use super::secret::{Opener, Sealer};
use super::{from_timestamp, to_timestamp};
use crate::pb::common::{EncryptionBlock, EncryptionBlockUser};
use crate::pb::config::eve_binary_artifact::BinaryBlob;
use crate::pb::config::{
    EncryptedExternalOpaqueBinaryBlob, EncryptedInlineOpaqueBase64Data, EveBinaryArtifact,
    EveOpaqueObjectCategory, EvePatchEnvelope, EvePatchEnvelopeAction, ExternalOpaqueBinaryBlob,
    InlineOpaqueBase64Data,
};

pub(super) fn read(
    p: &EvePatchEnvelope,
    opener: &mut Opener<'_, '_>,
) -> Result<PatchEnvelope, Rejected> {
    let mut artifacts = Vec::new();
    for (at, a) in p.artifacts.iter().enumerate() {
        let read = artifact(a, opener);
        artifacts.push(read.map_err(|why| why.within(format_args!("artifacts[{at}]")))?);
    }
    let activate = match EvePatchEnvelopeAction::try_from(p.action) {
        Ok(EvePatchEnvelopeAction::Store) => false,
        Ok(EvePatchEnvelopeAction::Activate) => true,
        Err(_) => return Err(no("action", p.action, "STORE (0) or ACTIVATE (1)")),
    };
    let apps = p.app_inst_ids_allowed.iter().map(|a| id("appInstIdsAllowed", a));
    Ok(PatchEnvelope {
        id: id("uuid", &p.uuid)?,
        name: p.display_name.clone(),
        version: p.version.clone().unwrap_or_default(),
        activate,
        artifacts,
        apps: apps.collect::<Result<_, _>>()?,
        created: p.create_time.as_ref().map(from_timestamp),
    })
}

fn artifact(p: &EveBinaryArtifact, opener: &mut Opener<'_, '_>) -> Result<Artifact, Rejected> {
    let blob = p.binary_blob.as_ref().ok_or_else(|| wrong("binaryBlob", "it is missing"))?;
    let broken = |field| wrong(field, "what is sealed in it is not what it should be");
    let (file, body, file_metadata, mut sealed) = match blob {
        BinaryBlob::Inline(data) => inline("inline", data, false)?,
        BinaryBlob::VolumeRef(blob) => external("volumeRef", blob, false)?,
        BinaryBlob::EncryptedInline(block) => {
            const FIELD: &str = "encrypted_inline";
            let bytes = opener.bytes(FIELD, block.cipher_data.as_ref())?;
            let bytes = bytes.ok_or_else(|| wrong(FIELD, "it is empty"))?;
            let data = InlineOpaqueBase64Data::decode(&*bytes).map_err(|_| broken(FIELD))?;
            inline(FIELD, &data, true)?
        }
        BinaryBlob::EncryptedVolumeref(block) => {
            const FIELD: &str = "encrypted_volumeref";
            let bytes = opener.bytes(FIELD, block.cipher_data.as_ref())?;
            let bytes = bytes.ok_or_else(|| wrong(FIELD, "it is empty"))?;
            let blob = ExternalOpaqueBinaryBlob::decode(&*bytes).map_err(|_| broken(FIELD))?;
            external(FIELD, &blob, true)?
        }
    };
    let block = opener.block("metadata_cipher_data", p.metadata_cipher_data.as_ref())?;
    let metadata = match block {
        Some(block) => {
            sealed = true;
            Some(block.encrypted_data)
        }
        None => p.artifact_meta_data.clone(),
    };
    Ok(Artifact { file, body, file_metadata, metadata, sealed })
}

type Body = (String, ArtifactBody, Option<String>, bool);

fn inline(field: &str, p: &InlineOpaqueBase64Data, sealed: bool) -> Result<Body, Rejected> {
    if p.base64_data.len() > INLINE_MAX {
        let got = format_args!("{} bytes", p.base64_data.len());
        let want = format!("{INLINE_MAX} bytes of base64 or less");
        return Err(no(format_args!("{field}.base64Data"), got, &want));
    }
    let bytes = STANDARD
        .decode(p.base64_data.trim())
        .map_err(|_| wrong(format_args!("{field}.base64Data"), "it is not base64"))?;
    let body = ArtifactBody::Inline(bytes);
    Ok((p.file_name_to_use.clone(), body, p.base64_meta_data.clone(), sealed))
}

fn external(field: &str, p: &ExternalOpaqueBinaryBlob, sealed: bool) -> Result<Body, Rejected> {
    let body = ArtifactBody::Volume {
        volume: id(format_args!("{field}.imageId"), &p.image_id)?,
        image: p.image_name.clone(),
    };
    Ok((p.file_name_to_use.clone().unwrap_or_default(), body, p.blob_meta_data.clone(), sealed))
}

pub(super) fn write(patch: &PatchEnvelope, sealer: &mut Sealer<'_, '_>) -> EvePatchEnvelope {
    let action = if patch.activate {
        EvePatchEnvelopeAction::Activate
    } else {
        EvePatchEnvelopeAction::Store
    };
    EvePatchEnvelope {
        display_name: patch.name.clone(),
        uuid: patch.id.to_string(),
        version: Some(patch.version.clone()),
        action: action.into(),
        artifacts: patch.artifacts.iter().map(|a| write_artifact(a, sealer)).collect(),
        app_inst_ids_allowed: patch.apps.iter().map(ToString::to_string).collect(),
        create_time: patch.created.map(to_timestamp),
    }
}

fn write_artifact(artifact: &Artifact, sealer: &mut Sealer<'_, '_>) -> EveBinaryArtifact {
    let mut seal = |bytes: Vec<u8>| if artifact.sealed { sealer.bytes(&bytes) } else { None };
    let (category, blob) = match &artifact.body {
        ArtifactBody::Inline(bytes) => {
            let data = InlineOpaqueBase64Data {
                base64_data: STANDARD.encode(bytes),
                file_name_to_use: artifact.file.clone(),
                base64_meta_data: artifact.file_metadata.clone(),
            };
            let blob = match seal(data.encode_to_vec()) {
                Some(block) => BinaryBlob::EncryptedInline(EncryptedInlineOpaqueBase64Data {
                    cipher_data: Some(block),
                }),
                None => BinaryBlob::Inline(data),
            };
            (EveOpaqueObjectCategory::Base64, blob)
        }
        ArtifactBody::Volume { volume, image } => {
            let data = ExternalOpaqueBinaryBlob {
                image_name: image.clone(),
                file_name_to_use: Some(artifact.file.clone()),
                blob_meta_data: artifact.file_metadata.clone(),
                image_id: volume.to_string(),
            };
            let blob = match seal(data.encode_to_vec()) {
                Some(block) => BinaryBlob::EncryptedVolumeref(EncryptedExternalOpaqueBinaryBlob {
                    cipher_data: Some(block),
                }),
                None => BinaryBlob::VolumeRef(data),
            };
            (EveOpaqueObjectCategory::Binaryblob, blob)
        }
    };
    let metadata = artifact.metadata.clone();
    let block = metadata.as_ref().map(|text| EncryptionBlock {
        user: EncryptionBlockUser::BinaryArtifactMetadata.into(),
        encrypted_data: text.clone(),
        ..EncryptionBlock::default()
    });
    let sealed = block.and_then(|block| seal(block.encode_to_vec()));
    let category = if artifact.sealed { EveOpaqueObjectCategory::Secret } else { category };
    EveBinaryArtifact {
        format: category.into(),
        artifact_meta_data: if sealed.is_some() { None } else { metadata },
        metadata_cipher_data: sealed,
        binary_blob: Some(blob),
    }
}
