//! Never panics; what reads and can be written again reads to the same. A volume whose files are
//! replaced reads as before until its boot sector is written, and as the new one from then on.
#![no_main]

use formats::{Extent, fat};
use libfuzzer_sys::fuzz_target;

fn write(volume: &mut [u8], extent: &Extent<'_>) {
    let at = usize::try_from(extent.at).expect("it lies in the volume");
    volume[at..][..extent.bytes.len()].copy_from_slice(&extent.bytes);
}

fuzz_target!(|bytes: &[u8]| {
    let Ok((volume, files)) = fat::read(bytes) else { return };
    if let Ok(again) = fat::render(&volume, &files) {
        let (_, back) = fat::read(&again).expect("our own volume reads");
        assert!(back == files);
    }
    let mut new = files.clone();
    new.insert("NEW.TXT".to_owned(), vec![7; 700]);
    // What the volume claims to be, a file may be shorter than.
    let Ok(size) = usize::try_from(volume.size.0) else { return };
    if size > 1 << 24 {
        return;
    }
    if let Ok(replacement) = fat::replace(bytes, &volume, &new) {
        let mut changed = bytes.to_vec();
        changed.resize(size.max(bytes.len()), 0);
        write(&mut changed, &replacement.body);
        assert!(fat::read(&changed).expect("the old volume still reads").1 == files);
        write(&mut changed, &replacement.switch);
        assert!(fat::read(&changed).expect("the new volume reads").1 == new);
        write(&mut changed, &replacement.wipe);
        assert!(fat::read(&changed).expect("the new volume reads").1 == new);
    }
});
