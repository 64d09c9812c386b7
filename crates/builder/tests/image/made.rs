//! What the builder itself promises.

use std::fs;
use std::os::unix::fs::MetadataExt;

use builder::image::{self, ImageError, Request};
use model::{Bytes, Diagnose};

use crate::small::{self, read};

const FILES: [&str; 4] = ["slot.img", "config.img", "live.raw", "live.qcow2"];

#[test]
fn the_same_inputs_give_the_same_bytes_with_the_cache_and_without() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for dir in [&one, &two] {
        small::inputs(dir.path());
        image::live(&small::request(dir.path()), &()).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(1100)); // the clock shows another second
    }
    let first = FILES.map(|name| read(one.path(), name));
    let second = FILES.map(|name| read(two.path(), name));
    assert!(first == second, "two clean builds differ");
    let facts = image::live(&small::request(one.path()), &()).unwrap();
    assert!(facts.steps.iter().any(|s| s.cached), "{:?}", facts.steps);
    assert!(first == FILES.map(|name| read(one.path(), name)), "the cached build differs");
}

#[test]
fn two_builds_at_once_give_whole_images() {
    let dir = tempfile::tempdir().unwrap();
    small::inputs(dir.path());
    let request = small::request(dir.path());
    std::thread::scope(|scope| {
        let builds = [(); 3].map(|()| scope.spawn(|| image::live(&request, &()).map(|f| f.slot)));
        let slots: Vec<_> = builds.into_iter().map(|b| b.join().unwrap().unwrap()).collect();
        assert!(slots.windows(2).all(|pair| pair[0] == pair[1]));
    });
}

#[test]
fn free_space_takes_none() {
    let dir = tempfile::tempdir().unwrap();
    small::inputs(dir.path());
    let facts = image::live(&small::request(dir.path()), &()).unwrap();
    let about = fs::metadata(facts.folder.join("live.raw")).unwrap();
    assert_eq!(about.len(), 591 << 20);
    assert!(about.blocks() * 512 < 8 << 20, "{} blocks", about.blocks());
}

#[test]
fn what_the_slot_is_made_of_shows_in_its_bytes() {
    let dir = tempfile::tempdir().unwrap();
    small::inputs(dir.path());
    let base = small::request(dir.path());
    let digest = |request: &Request| image::slot(request, &()).unwrap().slot.unwrap().digest;
    let first = digest(&base);
    let version = Request { version: "1.2.3".into(), ..base.clone() };
    let debug = Request { debug: true, ..base.clone() };
    let time = Request { time: Some(1_500_000_000), ..base.clone() };
    for other in [version, debug, time] {
        assert_ne!(first, digest(&other));
    }
    assert_eq!(first, digest(&base));
}

#[test]
fn a_slot_that_does_not_fit_says_by_how_much_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    small::inputs(dir.path());
    let mut request = small::request(dir.path());
    request.profile.slot = Bytes::kib(1024);
    let error = image::live(&request, &()).unwrap_err();
    let text = model::chain(&error);
    assert!(
        text.contains("a slot of profile small has 1.0 MiB") && text.contains("too much"),
        "{text}"
    );
    assert_eq!(
        error.diagnose().advice,
        "leave packages out, or choose a profile with larger slots"
    );
    let left = fs::read_dir(dir.path().join("dist/amd64").join(small::VERSION)).unwrap();
    let names: Vec<_> = left.flatten().map(|e| e.file_name()).collect();
    assert!(!names.iter().any(|n| n.to_string_lossy().contains("live")), "{names:?}");
}

#[test]
fn a_root_file_system_without_a_kernel_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    small::inputs(dir.path());
    let empty = tar::Builder::new(fs::File::create(dir.path().join("rootfs.tar")).unwrap());
    empty.into_inner().unwrap();
    let error = image::slot(&small::request(dir.path()), &()).unwrap_err();
    assert!(matches!(error, ImageError::Slot(_) | ImageError::Squashfs(_)), "{error:?}");
    assert!(
        model::chain(&error).contains("there is no sbin/eve-init in"),
        "{}",
        model::chain(&error)
    );
}

#[test]
fn the_config_of_a_finished_disk_can_be_changed() {
    let dir = tempfile::tempdir().unwrap();
    small::inputs(dir.path());
    let conf = dir.path().join("conf");
    let below = conf.join("DevicePortConfig");
    fs::create_dir_all(&below).unwrap();
    for (folder, name, text) in
        [(&conf, "server", "default"), (&conf, "README.md", "why"), (&below, "a.json", "{}")]
    {
        store::save(folder, name, text.as_bytes()).unwrap();
    }
    let request = Request { conf: vec![conf], ..small::request(dir.path()) };
    let facts = image::live(&request, &()).unwrap();
    let disk = facts.folder.join("live.raw");
    let before = fs::read(&disk).unwrap();
    let names = |files: &formats::fat::Files| files.keys().cloned().collect::<Vec<_>>();
    let origin = format!("origin.1970-01-01.{}", small::VERSION);
    assert_eq!(
        names(&image::get_config(&disk).unwrap()),
        ["DevicePortConfig/a.json", &origin, "server"]
    );
    let new =
        [("server".to_owned(), b"10.0.2.2:8443".to_vec()), ("soft_serial".into(), b"7".into())];
    image::set_config(&disk, &new.into()).unwrap();
    let files = image::get_config(&disk).unwrap();
    assert_eq!(names(&files), ["DevicePortConfig/a.json", &origin, "server", "soft_serial"]);
    assert_eq!(files["server"], b"10.0.2.2:8443");
    let after = fs::read(&disk).unwrap();
    let (from, to) = (65 << 20, 70 << 20);
    assert!(before[..from] == after[..from] && before[to..] == after[to..]);
    let remove = ["soft_serial".to_owned()];
    image::edit_config(&disk, &Default::default(), &remove, &()).unwrap();
    let files = image::get_config(&disk).unwrap();
    assert_eq!(names(&files), ["DevicePortConfig/a.json", &origin, "server"]);
    let missing = image::edit_config(&disk, &Default::default(), &remove, &()).unwrap_err();
    assert!(missing.to_string().ends_with("has no file soft_serial"), "{missing}");
    let bad = [("server".to_owned(), b"https://a.example".to_vec())];
    let refused = image::set_config(&disk, &bad.into()).unwrap_err();
    assert!(model::chain(&refused).contains("server in the CONFIG partition is not"), "{refused}");
    let slot = facts.folder.join("slot.img");
    let refused = image::set_config(&slot, &Default::default()).unwrap_err();
    assert!(refused.to_string().ends_with("has no partition table that can be used"));
}
