use super::*;

fn volume(mib: u64) -> Volume {
    Volume { size: Bytes::mib(mib), label: "EVE".into(), serial: 7, time: 1_700_000_000 }
}

fn files(paths: &[(&str, usize)]) -> Files {
    paths.iter().map(|(path, length)| ((*path).to_owned(), body(path, *length))).collect()
}

/// Bytes that differ from file to file and from place to place.
fn body(seed: &str, length: usize) -> Vec<u8> {
    seed.bytes().cycle().zip(0u8..=250).cycle().map(|(a, b)| a ^ b).take(length).collect()
}

#[track_caller]
fn round_trip(volume: &Volume, files: &Files) {
    let bytes = render(volume, files).unwrap();
    let (have, back) = read(&bytes).unwrap();
    assert_eq!(have, *volume);
    assert!(back == *files, "{:?}", back.keys());
}

#[test]
fn what_is_written_reads_back_at_every_width() {
    let some = files(&[
        ("server", 20),
        ("README.TXT", 0),
        ("DevicePortConfig/override.json", 5000),
        ("EFI/BOOT/BOOTX64.EFI", 300_000),
        ("empty/", 0),
        ("a rather long name, with ünïcode – and a dot.in.it", 4096),
    ]);
    for mib in [1, 5, 16, 64] {
        round_trip(&volume(mib), &some);
    }
}

#[test]
fn long_names_that_begin_alike_stay_apart() {
    let many: Vec<_> = (0..120).map(|n| format!("dir/certificate-{n:03}.pem")).collect();
    round_trip(&volume(5), &many.iter().map(|p| (p.clone(), body(p, 10))).collect());
}

#[test]
fn equal_values_give_equal_bytes() {
    let some = files(&[("b/c", 10), ("a", 3)]);
    assert_eq!(write(&volume(64), &some), write(&volume(64), &some));
}

#[test]
fn extents_ascend_and_do_not_touch_free_space() {
    let some = files(&[("x/y/z", 100_000), ("x/a", 1), ("k", 70_000)]);
    let extents = write(&volume(64), &some).unwrap();
    let mut end = 0;
    for extent in &extents {
        assert!(extent.at >= end, "{} after {end}", extent.at);
        end = extent.at + extent.bytes.len() as u64;
    }
    let written: usize = extents.iter().map(|e| e.bytes.len()).sum();
    assert!(written < 200_000, "{written}");
}

#[test]
fn what_does_not_fit_is_refused_with_numbers() {
    let text = write(&volume(5), &files(&[("big", 6 << 20)])).unwrap_err().to_string();
    assert_eq!(text, "the files take 6.0 MiB, the volume has room for 4.9 MiB");
}

#[test]
fn names_that_cannot_be_are_refused() {
    for bad in ["a:b", "a\\b", "", "dot.", "/a", "a//b", "x/../y", "tab\t"] {
        let one = files(&[(bad, 1)]);
        assert!(matches!(write(&volume(5), &one), Err(WriteError::Path(_))), "{bad:?}");
    }
    for pair in [["a", "A"], ["a", "a/b"]] {
        let two = files(&[(pair[0], 1), (pair[1], 1)]);
        assert!(matches!(write(&volume(5), &two), Err(WriteError::Twice(_))), "{pair:?}");
    }
}

#[test]
fn times_survive() {
    for time in [315_532_800, 951_782_400, 951_868_800, 1_492_533_000, 4_102_444_800] {
        round_trip(&Volume { time, ..volume(1) }, &Files::new());
    }
}

#[test]
fn a_chain_that_runs_in_a_circle_is_refused() {
    let mut bytes = render(&volume(64), &files(&[("a", 5000)])).unwrap();
    // The file has clusters 3 and on; let 4 point back to 3.
    bytes[32 * 512 + 4 * 4] = 3;
    let circle = Err(ReadError::Chain { path: "a".into(), cluster: 3 });
    assert_eq!(read(&bytes).map(|_| ()), circle);
}

fn apply(volume: &mut [u8], extent: &crate::Extent<'_>) {
    let at = usize::try_from(extent.at).unwrap();
    volume[at..at + extent.bytes.len()].copy_from_slice(&extent.bytes);
}

#[test]
fn a_power_cut_at_any_sector_leaves_the_old_files_or_the_new() {
    let about = volume(5);
    let mut bytes = render(&about, &files(&[("server", 20), ("a/long name.pem", 3000)])).unwrap();
    // Several changes one after the other: the content moves to and fro.
    for round in 0..4 {
        let (_, old) = read(&bytes).unwrap();
        let mut new = old.clone();
        new.insert("soft_serial".into(), body("serial", 10 + round));
        new.insert(format!("more/{round}.json"), body("json", 700 * round));
        new.remove("a/long name.pem");
        let change = replace(&bytes, &about, &new).unwrap();
        for (extent, switched) in
            [(&change.body, false), (&change.switch, true), (&change.wipe, true)]
        {
            for cut in (0..extent.bytes.len()).step_by(512) {
                let mut torn = bytes.clone();
                apply(
                    &mut torn,
                    &crate::Extent { at: extent.at, bytes: extent.bytes[..cut].into() },
                );
                let whole = switched && (cut > 0 || extent.at > 0);
                let (_, found) = read(&torn).unwrap();
                assert!(found == if whole { new.clone() } else { old.clone() }, "{round} {cut}");
            }
            apply(&mut bytes, extent);
        }
        let (have, found) = read(&bytes).unwrap();
        assert_eq!(have, about);
        assert!(found == new);
    }
}

#[test]
fn nothing_of_the_old_content_stays() {
    let old = files(&[("secret", 4000)]);
    let mut bytes = render(&volume(5), &old).unwrap();
    let change = replace(&bytes, &volume(5), &files(&[("server", 9)])).unwrap();
    for extent in [&change.body, &change.switch, &change.wipe] {
        apply(&mut bytes, extent);
    }
    let secret = &old["secret"][..64];
    assert!(!bytes.windows(64).any(|w| w == secret));
}

#[test]
fn content_that_does_not_fit_beside_the_old_one_is_refused() {
    let bytes = render(&volume(5), &files(&[("a", 3 << 20)])).unwrap();
    let refused = replace(&bytes, &volume(5), &files(&[("a", 3 << 20), ("b", 1)]));
    assert!(matches!(refused, Err(ReplaceError::Room { .. })), "{refused:?}");
    let large = render(&volume(64), &files(&[("a", 1)])).unwrap();
    assert_eq!(replace(&large, &volume(64), &Files::new()), Err(ReplaceError::Large));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    #[test]
    fn damage_never_panics(at in 0usize..200_000, byte: u8, second in 0usize..20_000) {
        let some = files(&[("long name.txt", 9000), ("d/e/f", 40_000)]);
        let mut bytes = render(&volume(1), &some).unwrap();
        bytes[at] = byte;
        bytes[second] ^= 0x55;
        let _ = read(&bytes);
    }
}
