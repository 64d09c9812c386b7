//! Log files, against recorded ones.

use crate::common::{T0, device_id, golden, now, one_of, vector};
use api::newlogs::{self, About, CONTENT_MAX, DeviceLog, Entry, FILE_TARGET, NewlogsError};
use api::{Certificate, Signer, envelope, limits};
use model::Bytes;

fn device_file() -> String {
    one_of("newlogs", "dev.log.", ".gz")
}

fn app_file() -> String {
    one_of("newlogs", "app.", ".gz")
}

fn unpack(name: &str) -> newlogs::LogFile {
    newlogs::unpack(&vector(name), limits::NEWLOGS_UNPACKED).unwrap()
}

fn device_log() -> DeviceLog {
    DeviceLog {
        device: device_id().to_string(),
        image: "IMGA".to_owned(),
        version: "16.0.0-kvm-amd64".to_owned(),
    }
}

#[test]
fn a_file_of_the_node_reads_back() {
    if !golden() {
        return;
    }
    let file = unpack(&device_file());
    assert_eq!(file.about, About::Device(device_log()));
    assert_eq!(file.created.0, now().0 / 1000 * 1000, "to the second");
    assert_eq!(file.text(), vector("newlogs/dev.log.body.ndjson"));
    let entries: Vec<Entry> = file.entries().map(Result::unwrap).collect();
    assert_eq!(entries.len(), 3);
    assert_eq!(entries[0].timestamp.millis(), now());
    assert_ne!(entries[0].timestamp.nanos, 0);
    assert_eq!((entries[0].msgid, entries[0].iid.as_str()), (1, "2073"));
    assert_eq!(entries[2].content, "unicode: \u{e9} \u{6f22}");
    assert_eq!(entries[2].tags["count"], "4");
}

#[test]
fn a_file_of_an_app_reads_back() {
    if !golden() {
        return;
    }
    let file = unpack(&app_file());
    assert!(matches!(&file.about, About::App(name) if !name.is_empty()), "{:?}", file.about);
    assert_eq!(file.text(), vector("newlogs/app.log.body.ndjson"));
    let app = app_file();
    let app = app.split('.').nth(1).unwrap();
    assert!(file.entries().all(|e| e.unwrap().source.starts_with(app)));
    assert_eq!(
        unpack("newlogs/app-nonlatin1-name.gz").about,
        About::App("app-\u{6f22}\u{e9}".to_owned())
    );
}

#[test]
fn uploads_are_the_files_themselves() {
    if !golden() {
        return;
    }
    let device = Certificate::from_pem(&vector("pki/device.cert.pem")).unwrap();
    let signer = Signer::device(&device).unwrap();
    let other = "newlogs/neg-canonical-protojson.gz".to_owned();
    for (upload, file) in [
        ("req-newlogs", device_file()),
        ("req-app-newlogs", app_file()),
        ("neg-req-newlogs-canonical-protojson", other),
    ] {
        let body = vector(&format!("newlogs/{upload}.AuthContainer.pb"));
        let body = envelope::open(&body, limits::NEWLOGS).unwrap();
        assert_eq!(body.verify(&signer).unwrap(), vector(&file));
    }
}

#[test]
fn the_other_json_is_read_too() {
    if !golden() {
        return;
    }
    let file = unpack("newlogs/neg-canonical-protojson.gz");
    let entries: Vec<Entry> = file.entries().map(Result::unwrap).collect();
    assert!(!entries.is_empty());
    assert!(
        entries.iter().all(|e| e.msgid > 0 && e.timestamp.seconds > 1_700_000_000),
        "{entries:?}"
    );
}

#[test]
fn what_we_pack_has_the_recorded_header_and_lines() {
    if !golden() {
        return;
    }
    let (recorded, entries) = (
        vector(&device_file()),
        unpack(&device_file()).entries().map(Result::unwrap).collect::<Vec<_>>(),
    );
    let packed = newlogs::pack(&entries, &About::Device(device_log()), now(), FILE_TARGET).unwrap();
    let [packed] = &packed[..] else { panic!() };
    let header = 10 + serde_json::to_vec(&device_log()).unwrap().len() + 1;
    assert_eq!(packed[..header], recorded[..header]);
    let again = newlogs::unpack(packed, limits::NEWLOGS_UNPACKED).unwrap();
    let lines = |text: &[u8]| -> Vec<serde_json::Value> {
        text.split(|b| *b == b'\n')
            .filter(|l| !l.is_empty())
            .map(|l| serde_json::from_slice(l).unwrap())
            .collect()
    };
    assert_eq!(lines(again.text()), lines(&vector("newlogs/dev.log.body.ndjson")));
}

#[test]
fn members_of_gzip_behind_each_other_are_one_text() {
    let about = About::App("x".to_owned());
    let part = |msgid: u64| {
        let entry = Entry { content: "said".to_owned(), msgid, ..Entry::default() };
        newlogs::pack(&[entry], &about, T0, Bytes::kib(8)).unwrap().remove(0)
    };
    let both = [part(1), part(2)].concat();
    let file = newlogs::unpack(&both, limits::NEWLOGS_UNPACKED).unwrap();
    assert_eq!(file.about, about);
    assert!(file.entries().map(|e| e.unwrap().msgid).eq([1, 2]));
    let tight = Bytes(file.text().len() as u64 - 1);
    assert!(matches!(newlogs::unpack(&both, tight), Err(NewlogsError::TooLong { .. })));
    for odd in [&both[..both.len() - 1], &[&both[..], b"more"].concat()] {
        let refused = newlogs::unpack(odd, limits::NEWLOGS_UNPACKED);
        assert!(matches!(refused, Err(NewlogsError::Unpack { .. })), "{refused:?}");
    }
}

#[test]
fn many_entries_become_several_files_in_order() {
    let entry = |n: u64| Entry {
        content: format!("{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).repeat(3),
        msgid: n,
        ..Entry::default()
    };
    let entries: Vec<Entry> = (1..=2000).map(entry).collect();
    let target = Bytes::kib(8);
    let files = newlogs::pack(&entries, &About::App("x".to_owned()), T0, target).unwrap();
    assert!(files.len() > 1);
    assert!(files.iter().all(|f| f.len() as u64 <= target.0));
    let read = files.iter().flat_map(|f| {
        let file = newlogs::unpack(f, limits::NEWLOGS_UNPACKED).unwrap();
        file.entries().map(|e| e.unwrap().msgid).collect::<Vec<_>>()
    });
    assert!(read.eq(1..=2000));
    assert!(newlogs::pack(&[], &About::App("x".to_owned()), T0, target).unwrap().is_empty());
}

#[test]
fn one_huge_entry_is_cut() {
    let entry = Entry { content: "\u{1}".repeat(100_000), ..Entry::default() };
    let files = newlogs::pack(&[entry], &About::App("x".to_owned()), T0, FILE_TARGET).unwrap();
    let file = newlogs::unpack(&files[0], limits::NEWLOGS_UNPACKED).unwrap();
    assert!(file.text().len() < 65_536, "{} bytes in a line", file.text().len());
    let entry = file.entries().next().unwrap().unwrap();
    assert!(entry.content.ends_with(&format!(" … {} bytes cut", 100_000 - CONTENT_MAX.0)));
}

#[test]
fn a_bomb_is_not_unpacked() {
    let entries = vec![Entry { content: "0".repeat(9000), ..Entry::default() }; 500];
    let files = newlogs::pack(&entries, &About::App("x".to_owned()), T0, FILE_TARGET).unwrap();
    assert!(files[0].len() < 50_000);
    let got = newlogs::unpack(&files[0], Bytes::mib(1));
    assert!(matches!(got, Err(NewlogsError::TooLong { .. })), "{got:?}");
}

#[test]
fn a_bad_line_does_not_hide_the_others() {
    let mut file =
        flate2::GzBuilder::new().filename("x").write(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut file, b"{\"msgid\":1}\nwhat\n\n{\"msgid\":2,\"new\":{}}\n")
        .unwrap();
    let file = newlogs::unpack(&file.finish().unwrap(), Bytes::kib(1)).unwrap();
    let lines: Vec<_> = file.entries().collect();
    assert!(matches!(lines[1], Err(NewlogsError::Line { line: 2, .. })));
    assert_eq!(lines[2].as_ref().unwrap().msgid, 2);
}

#[test]
fn what_is_no_log_file_is_refused() {
    if !golden() {
        return;
    }
    let file = vector(&device_file());
    assert!(newlogs::unpack(b"", Bytes::kib(1)).is_err());
    for end in [1, 9, 11, 60, file.len() - 1] {
        assert!(newlogs::unpack(&file[..end], Bytes::kib(9)).is_err(), "{end}");
    }
}
