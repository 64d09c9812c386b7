//! What stands on an EFI system partition.

use formats::fat::Files;
use model::Digest;

use super::Arch;

/// The files of an EFI system partition whose firmware starts this unified kernel image.
pub(super) fn files(arch: Arch, uki: Vec<u8>) -> Files {
    Files::from([(format!("EFI/BOOT/{}", arch.loader()), uki)])
}

/// What an installer has besides: marks by which boot loaders know a medium of EVE, and this one.
pub(super) fn of_installer(image: Digest) -> Files {
    Files::from([
        ("boot/.boot_repository".to_owned(), Vec::new()),
        ("boot/.uuid".to_owned(), format!("{}\n", &image.hex()[..32]).into_bytes()),
    ])
}
