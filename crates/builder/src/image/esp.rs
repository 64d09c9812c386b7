//! What stands on an EFI system partition.

use formats::fat::Files;
use model::Digest;

use super::{Arch, Board};

/// The files of an EFI system partition whose firmware starts this unified kernel image, and what the
/// board wants besides.
pub(super) fn files(arch: Arch, uki: Vec<u8>, board: &Board) -> Files {
    let mut files = board.esp.clone();
    files.insert(format!("EFI/BOOT/{}", arch.loader()), uki);
    files
}

/// What an installer has besides: marks by which boot loaders know a medium of EVE, and this one.
pub(super) fn of_installer(image: Digest) -> Files {
    Files::from([
        ("boot/.boot_repository".to_owned(), Vec::new()),
        ("boot/.uuid".to_owned(), format!("{}\n", &image.hex()[..32]).into_bytes()),
    ])
}
