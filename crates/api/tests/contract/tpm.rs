//! Quotes and event logs, against those of a real boot (`tests/data/tpm/README.md`) and the recorded
//! ones.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::PathBuf;

use crate::common::{golden, read, vector};
use api::convert::attest::{self, Register, Request};
use api::eventlog::{Bank, EventLog, LogError};
use api::quote::{self, Attest, Evidence, QuoteError, Verified};
use api::{Certificate, envelope, limits};
use expect_test::expect;
use model::Digest;
use proptest::prelude::*;
use serde_json::Value;

fn file(name: &str) -> Vec<u8> {
    read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/tpm").join(name))
}

fn certificate(name: &str) -> Certificate {
    Certificate::from_pem(&file(&format!("{name}.cert.pem"))).unwrap()
}

/// What the node of the real boot sent, ready to be changed.
#[derive(Clone)]
struct Boot {
    data: Vec<u8>,
    signature: Vec<u8>,
    registers: Vec<Register>,
    nonce: Vec<u8>,
    attest: Certificate,
    device: Certificate,
}

impl Boot {
    fn real() -> Boot {
        let quote: Value = serde_json::from_slice(&file("quote.json")).unwrap();
        let bytes = |v: &Value| hex::decode(v.as_str().unwrap()).unwrap();
        let bank = |name: &str, algorithm| {
            let values = quote[name].as_array().unwrap().iter().map(bytes).collect::<Vec<_>>();
            (0..).zip(values).map(move |(index, value)| Register { index, algorithm, value })
        };
        Boot {
            data: bytes(&quote["attest"]),
            signature: bytes(&quote["signature"]),
            // The numbers of the API for SHA-1 and SHA-256. Registers over 15 are not quoted.
            registers: bank("sha1", 1).chain(bank("sha256", 2)).collect(),
            nonce: bytes(&quote["nonce"]),
            attest: certificate("attest"),
            device: certificate("device"),
        }
    }

    fn verify(&self) -> Result<Verified, QuoteError> {
        quote::verify(&Evidence {
            data: &self.data,
            signature: &self.signature,
            registers: &self.registers,
            nonce: &self.nonce,
            attest: &self.attest,
            device: &self.device,
        })
    }

    /// What is said of it after a change.
    fn with(change: impl FnOnce(&mut Boot)) -> String {
        let mut boot = Boot::real();
        change(&mut boot);
        boot.verify().unwrap_err().to_string()
    }
}

fn log() -> EventLog {
    EventLog::unpack(&file("event-log.gz")).unwrap()
}

fn raw_log() -> Vec<u8> {
    let mut raw = Vec::new();
    let packed = file("event-log.gz");
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&*packed), &mut raw).unwrap();
    raw
}

#[test]
fn the_quote_of_a_real_tpm_is_verified() {
    let verified = Boot::real().verify().unwrap();
    assert_eq!(verified.registers.len(), 16);
    assert_eq!(verified.registers[&8], Digest([0; 32]));
    let attest = verified.attest;
    assert_eq!(attest.to_bytes().unwrap(), Boot::real().data);
    assert_eq!(attest.selection, [(0x000b, (0..16).collect::<BTreeSet<u32>>())]);
    assert!(attest.clock > 0 && attest.clock_safe);
}

#[test]
fn a_quote_that_proves_nothing_says_why() {
    let value = |boot: &mut Boot, index: u32| -> usize {
        boot.registers.iter().position(|r| r.index == index && r.algorithm == 2).unwrap()
    };
    for (got, want) in [
        (
            Boot::with(|b| b.nonce[0] ^= 1),
            "extraData of attestData is not the nonce that was given",
        ),
        (
            Boot::with(|b| b.data[70] ^= 1),
            "ZAttestQuote.signature is not that of the node's key over attestData",
        ),
        (
            Boot::with(|b| b.signature.clear()),
            "ZAttestQuote.signature is not that of the node's key over attestData",
        ),
        (
            // The key is the same: whoever takes the node's own certificate for both is caught.
            Boot::with(|b| b.device = b.attest.clone()),
            "the certificate for quotes is not signed by the node's own certificate",
        ),
        (
            Boot::with(|b| b.attest = certificate("attest-rsa")),
            "the certificate for quotes has an RSA key; the API knows ECDSA quotes of P-256 only",
        ),
        (
            Boot::with(|b| {
                let at = value(b, 7);
                b.registers[at].value[3] ^= 1;
            }),
            "pcr_values do not hash to pcrDigest of attestData",
        ),
        (
            Boot::with(|b| {
                let at = value(b, 7);
                b.registers.remove(at);
            }),
            "pcr_values: register 7 is quoted, but its value is not told",
        ),
        (
            Boot::with(|b| {
                let at = value(b, 7);
                b.registers[at].value.pop();
            }),
            "pcr_values: register 7 has 31 bytes, not 32",
        ),
        (
            Boot::with(|b| {
                let at = value(b, 7);
                b.registers.push(Register { value: vec![0; 32], ..b.registers[at].clone() });
            }),
            "pcr_values: register 7 has two values",
        ),
    ] {
        assert_eq!(got, want);
    }
}

#[test]
fn values_that_the_tpm_did_not_quote_are_not_taken_from_the_node() {
    let mut boot = Boot::real();
    let at = boot.registers.iter().position(|r| r.index == 23 && r.algorithm == 2).unwrap();
    boot.registers[at].value = vec![9; 32];
    assert!(!boot.verify().unwrap().registers.contains_key(&23));
}

#[test]
fn a_structure_that_is_no_quote_is_refused_by_field() {
    let real = Boot::real().data;
    let parse = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = real.clone();
        change(&mut bytes);
        Attest::parse(&bytes).unwrap_err().to_string()
    };
    assert!(parse(&|b| b[0] = 0).contains("begins with 0x00544347"));
    assert_eq!(parse(&|b| b[5] = 0x17), "attestData is of type 0x8017, not a quote (0x8018)");
    assert_eq!(parse(&|b| b.push(0)), "1 bytes follow the end of attestData");
    for end in 0..real.len() {
        let cut = parse(&|b| b.truncate(end));
        assert!(cut.starts_with("attestData ends within"), "{end}: {cut}");
    }
    // How many banks: 4 bytes; which: 2; bytes of the map: 1, 3; length of the digest: 2, 32.
    let banks = real.len() - 44;
    let nonsense = "pcrSelect of attestData names more than a TPM has";
    assert_eq!(parse(&|b| b[banks] = 1), nonsense);
    assert_eq!(parse(&|b| b[banks + 6] = 5), nonsense);
}

#[test]
fn a_quote_of_too_little_or_of_another_bank_is_refused() {
    let key = api::SigningKey::generate().unwrap();
    let own = api::device_certificate(&key, model::UnixMillis(1_767_323_045_000)).unwrap();
    let say = |selection: Vec<(u16, BTreeSet<u32>)>| {
        let real = Attest::parse(&Boot::real().data).unwrap();
        let data = Attest { selection, ..real }.to_bytes().unwrap();
        let mut boot = Boot { attest: own.clone(), device: own.clone(), ..Boot::real() };
        boot.signature = der(&key.sign(&data).unwrap());
        boot.data = data;
        boot.verify().unwrap_err().to_string()
    };
    let all: BTreeSet<u32> = (0..16).collect();
    let some: BTreeSet<u32> = (1..15).collect();
    assert_eq!(say(vec![]), "attestData quotes 0 banks of registers, not one");
    assert_eq!(say(vec![(11, some)]), "attestData does not quote the registers [0, 15]");
    assert_eq!(
        say(vec![(4, all.clone())]),
        "attestData quotes the bank 0x0004, not SHA-256 (0x000b)"
    );
    let both = vec![(11, all.clone()), (4, all)];
    assert_eq!(say(both), "attestData quotes 2 banks of registers, not one");
}

/// An ECDSA signature in ASN.1 DER, of r and s.
fn der(fixed: &[u8; 64]) -> Vec<u8> {
    let integer = |number: &[u8]| {
        let start = number.iter().position(|b| *b != 0).unwrap_or(31);
        let mut digits = number[start..].to_vec();
        if digits[0] >= 0x80 {
            digits.insert(0, 0);
        }
        [&[2, u8::try_from(digits.len()).unwrap()], &digits[..]].concat()
    };
    let both = [integer(&fixed[..32]), integer(&fixed[32..])].concat();
    [&[0x30, u8::try_from(both.len()).unwrap()], &both[..]].concat()
}

#[test]
fn the_log_of_a_real_boot_leads_to_its_registers() {
    let log = log();
    assert_eq!(log.banks().iter().copied().collect::<Vec<_>>(), REAL_BANKS);
    let quoted = Boot::real().verify().unwrap().registers;
    let accounts = log.compare(&quoted).unwrap();
    let apart: Vec<u32> = accounts.iter().filter(|a| !a.agrees()).map(|a| a.register).collect();
    assert_eq!(apart, [10, 14], "extended by kernel and initrd, after the log");
    for account in accounts.iter().filter(|a| !a.agrees()) {
        assert!(account.describe().ends_with("was extended, but the log has no event of it"));
    }
}

const REAL_BANKS: [Bank; 4] = [Bank::Sha1, Bank::Sha256, Bank::Sha384, Bank::Sha512];

#[test]
fn every_event_of_a_real_boot_is_told_in_words() {
    let log = log();
    let line = |e: &api::eventlog::Event| {
        let proven = if e.data_is_measured() { '=' } else { ' ' };
        format!("{:2} {:2}{proven} {}", e.number, e.register, e.describe())
    };
    let lines: Vec<String> = log.events.iter().map(line).collect();
    expect![[r#"
         0  0  the log begins
         1  0= version of the firmware's root of trust: not said
         2  0  firmware at 0x820000, 917504 bytes
         3  0  firmware at 0x900000, 12582912 bytes
         4  7= UEFI variable SecureBoot: off
         5  7= UEFI variable PK: empty
         6  7= UEFI variable KEK: empty
         7  7= UEFI variable db: empty
         8  7= UEFI variable dbx: empty
         9  7= from here on the boot loader measures
        10  1= UEFI variable BootOrder: 0000, 0001, 0002, 0003
        11  1= UEFI variable Boot0000: "UiApp" firmware volume 7cb8bdc9-f8eb-4f34-aaea-3ee4af6516a1/firmware file 462caa21-7614-4503-836e-8ab6f4662331
        12  1= UEFI variable Boot0001: "UEFI QEMU DVD-ROM QM00005" PCI root 0/PCI 1f.2/SATA port 2
        13  1= UEFI variable Boot0002: "UEFI Misc Device" PCI root 0/PCI 2.0
        14  1= UEFI variable Boot0003: "EFI Internal Shell" firmware volume 7cb8bdc9-f8eb-4f34-aaea-3ee4af6516a1/firmware file 7c04a583-9e3e-4f1c-ad65-e05268d0b4d1
        15  4= Calling EFI Application from Boot Option
        16  0= from here on the boot loader measures
        17  1= from here on the boot loader measures
        18  2= from here on the boot loader measures
        19  3= from here on the boot loader measures
        20  4= from here on the boot loader measures
        21  5= from here on the boot loader measures
        22  6= from here on the boot loader measures
        23  4= Returning from EFI Application from Boot Option
        24  4= Calling EFI Application from Boot Option
        25  5= disk ad6871ee-31f9-4cf3-9e09-6f7a25c30050 with 3 partitions: EFI System, IMGA, CONFIG
        26  4  program PCI root 0/PCI 2.0/partition 1 (ad6871ee-31f9-4cf3-9e09-6f7a25c30051)/\EFI\BOOT\BOOTX64.EFI
        27 11= section .linux of the unified kernel image
        28 11  section .linux of the unified kernel image
        29 11= section .osrel of the unified kernel image
        30 11  section .osrel of the unified kernel image
        31 11= section .cmdline of the unified kernel image
        32 11  section .cmdline of the unified kernel image
        33 11= section .initrd of the unified kernel image
        34 11  section .initrd of the unified kernel image
        35 11= section .uname of the unified kernel image
        36 11  section .uname of the unified kernel image
        37 11= section .sbat of the unified kernel image
        38 11  section .sbat of the unified kernel image
        39  4  program memory of the boot loader (55c5d1f8-04cd-46b5-8a20-e56cbb3052d0)
        40  9  command line of the kernel (LOADED_IMAGE::LoadOptions)
        41  9  initial file system of the kernel (Linux initrd)
        42  5= Exit Boot Services Invocation
        43  5= Exit Boot Services Returned with Success"#]].assert_eq(&lines.join("\n"));
}

#[test]
fn an_event_that_was_changed_shows_in_its_register() {
    let quoted = Boot::real().verify().unwrap().registers;
    let mut changed = log();
    let event = changed.events.iter_mut().rfind(|e| e.register == 4 && e.extends()).unwrap();
    event.digests.get_mut(&Bank::Sha256).unwrap()[0] ^= 1;
    let accounts = changed.compare(&quoted).unwrap();
    let account = &accounts[4];
    assert!(!account.agrees());
    assert!(account.describe().starts_with("PCR 4 (boot loader) does not hold what"));
    assert_eq!(account.events.last().unwrap().digest.unwrap().0[0] ^ 1, {
        let log = log();
        let event = log.events.iter().rfind(|e| e.register == 4 && e.extends()).unwrap();
        event.digests[&Bank::Sha256][0]
    });
}

/// A log made by hand, as the profile has it.
struct Made(Vec<u8>);

impl Made {
    fn new(banks: &[(u16, u16)]) -> Made {
        let mut data = b"Spec ID Event03\0\0\0\0\0\0\x02\0\x02".to_vec();
        data.extend(u32::try_from(banks.len()).unwrap().to_le_bytes());
        for (bank, size) in banks {
            data.extend(bank.to_le_bytes());
            data.extend(size.to_le_bytes());
        }
        data.push(0);
        let mut log = Made(Vec::new());
        log.old(0, 3, [0; 20], &data);
        log
    }

    fn old(&mut self, register: u32, kind: u32, digest: [u8; 20], data: &[u8]) {
        self.0.extend(register.to_le_bytes());
        self.0.extend(kind.to_le_bytes());
        self.0.extend(digest);
        self.0.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
        self.0.extend(data);
    }

    fn event(&mut self, register: u32, kind: u32, digests: &[(u16, &[u8])], data: &[u8]) {
        self.0.extend(register.to_le_bytes());
        self.0.extend(kind.to_le_bytes());
        self.0.extend(u32::try_from(digests.len()).unwrap().to_le_bytes());
        for (bank, digest) in digests {
            self.0.extend(bank.to_le_bytes());
            self.0.extend(*digest);
        }
        self.0.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
        self.0.extend(data);
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref().try_into().unwrap()
}

#[test]
fn the_locality_that_a_tpm_starts_from_is_in_its_first_register() {
    let mut made = Made::new(&[(11, 32)]);
    made.event(0, 3, &[(11, &[0; 32])], b"StartupLocality\0\x03");
    let digest = sha256(b"firmware");
    made.event(0, 8, &[(11, &digest)], b"firmware");
    let values = EventLog::parse(&made.0).unwrap().replay(Bank::Sha256).unwrap();
    let mut start = [0; 32];
    start[31] = 3;
    assert_eq!(values[&0], sha256(&[start, digest].concat()));
    assert_eq!(values[&1], [0; 32]);
    assert_eq!(values[&17], [0xff; 32]);
}

#[test]
fn what_grub_and_shim_measure_is_told_and_proven() {
    let mut made = Made::new(&[(11, 32)]);
    let command = b"linux /boot/kernel root=PARTUUID=7";
    let said = [b"grub_cmd: ", &command[..], b"\0"].concat();
    made.event(8, 0xd, &[(11, &sha256(command))], &said);
    made.event(8, 0xd, &[(11, &sha256(b"another command"))], &said);
    let name: Vec<u8> = "MokList".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut variable = 0x605d_ab50_u32.to_le_bytes().to_vec();
    variable.extend([0x46, 0xe0, 0x00, 0x43, 0xab, 0xb6, 0x3d, 0xd8, 0x10, 0xdd, 0x8b, 0x23]);
    variable.extend(7_u64.to_le_bytes());
    variable.extend(3_u64.to_le_bytes());
    variable.extend(&name);
    variable.extend([1, 2, 3]);
    made.event(14, 0x8000_0002, &[(11, &sha256(&[1, 2, 3]))], &variable);
    made.event(5, 0x7777_7777, &[(11, &[0; 32])], &[1; 9]);
    made.event(4, 5, &[(11, &[0; 32])], b"Booting\x1b[2J\0");
    let log = EventLog::parse(&made.0).unwrap();
    let told: Vec<(String, bool)> =
        log.events.iter().skip(1).map(|e| (e.describe(), e.data_is_measured())).collect();
    let words = |text: &str| text.to_owned();
    assert_eq!(
        told,
        [
            (words("grub_cmd: linux /boot/kernel root=PARTUUID=7"), true),
            (words("grub_cmd: linux /boot/kernel root=PARTUUID=7"), false),
            (words("UEFI variable MokList of shim: 3 bytes"), true),
            (words("event type 0x77777777 with 9 bytes"), false),
            (words("Booting\u{fffd}[2J"), false),
        ]
    );
}

#[test]
fn a_log_of_the_old_form_tells_of_sha1_alone() {
    let mut made = Made(Vec::new());
    made.old(7, 4, [5; 20], &[0; 4]);
    let log = EventLog::parse(&made.0).unwrap();
    assert_eq!(log.banks().iter().copied().collect::<Vec<_>>(), [Bank::Sha1]);
    assert_eq!(log.compare(&BTreeMap::from([(7, Digest([0; 32]))])), None);
    assert_ne!(log.replay(Bank::Sha1).unwrap()[&7], [0; 20]);
}

#[test]
fn logs_that_make_no_sense_are_refused_by_event() {
    let say = |make: &dyn Fn(&mut Made)| {
        let mut made = Made::new(&[(11, 32), (0x77, 9)]);
        make(&mut made);
        EventLog::parse(&made.0).unwrap_err().to_string()
    };
    assert_eq!(
        say(&|m| m.event(0, 4, &[(4, &[0; 20])], b"")),
        "event 1 has a digest of algorithm 0x0004, which the header lacks"
    );
    assert_eq!(
        say(&|m| m.event(0, 4, &[(11, &[0; 32]), (11, &[0; 32])], b"")),
        "event 1 has two digests for Sha256"
    );
    assert_eq!(
        say(&|m| m.event(24, 4, &[], b"")),
        "event 1 extends register 24, which does not exist"
    );
    assert_eq!(
        say(&|m| m.0.extend([0; 8].into_iter().chain([0xff; 4]))),
        "event 1 has 4294967295 digests"
    );
    let broken = EventLog::parse(&Made::new(&[(11, 20)]).0).unwrap_err();
    assert_eq!(broken.to_string(), "the event log's header (Spec ID Event03) is broken");
    let raw = raw_log();
    let mut read = 0;
    for end in 0..raw.len() {
        // A log may end after any event.
        match EventLog::parse(&raw[..end]) {
            Ok(_) => read += 1,
            Err(e) => assert!(matches!(e, LogError::Cut { .. } | LogError::SpecId), "{end}: {e}"),
        }
    }
    assert_eq!(read, log().events.len() - 1);
}

#[test]
fn a_bomb_is_not_unpacked() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&vec![0; 64 << 20]).unwrap();
    let bomb = gzip.finish().unwrap();
    assert!(bomb.len() < 100_000);
    assert!(matches!(EventLog::unpack(&bomb), Err(LogError::TooLong)));
    assert!(matches!(EventLog::unpack(b"what"), Err(LogError::Unpack { .. })));
}

#[test]
fn recorded_quotes_are_verified_or_refused() {
    if !golden() {
        return;
    }
    let pki = |name: &str| Certificate::from_pem(&vector(&format!("pki/{name}.cert.pem"))).unwrap();
    let (attest, device) = (pki("device-attest"), pki("device"));
    let signer = api::Signer::device(&device).unwrap();
    let payload = |name: &str| {
        let body = vector(&format!("attest/{name}.AuthContainer.pb"));
        envelope::open(&body, limits::ATTEST).unwrap().unverified_payload().to_vec()
    };
    let attest::Answer::Nonce(nonce) =
        attest::Answer::from_payload(&payload("2-resp-nonce")).unwrap()
    else {
        panic!()
    };
    let judge = |name: &str| {
        let body = vector(&format!("attest/{name}.AuthContainer.pb"));
        let body = envelope::open(&body, limits::ATTEST).unwrap();
        let Request::Quote(quote) = Request::from_payload(body.verify(&signer).unwrap()).unwrap()
        else {
            panic!()
        };
        quote::verify(&Evidence {
            data: &quote.data,
            signature: &quote.signature,
            registers: &quote.registers,
            nonce: &nonce,
            attest: &attest,
            device: &device,
        })
    };
    let verified = judge("3-req-quote").unwrap();
    assert_eq!(verified.registers.len(), 16);
    assert!(matches!(judge("neg-3-req-quote-wrong-nonce"), Err(QuoteError::Nonce)));
    assert!(matches!(judge("3-req-quote-no-tpm"), Err(QuoteError::Signature)));
    let raw = vector("attest/3-tpms_attest.bin");
    assert_eq!(verified.attest, Attest::parse(&raw).unwrap());
    assert_eq!(verified.attest.to_bytes().unwrap(), raw);
}

proptest! {
    #[test]
    fn no_bytes_make_the_readers_fall(bytes: Vec<u8>, at: prop::sample::Index, with: u8) {
        let _ = Attest::parse(&bytes);
        let _ = EventLog::unpack(&bytes);
        for mut whole in [Boot::real().data, raw_log()] {
            let at = at.index(whole.len());
            whole[at] = with;
            let _ = Attest::parse(&whole);
            if let Ok(log) = EventLog::parse(&whole) {
                for event in &log.events {
                    prop_assert!(event.describe().chars().count() < 6000);
                    event.data_is_measured();
                }
                let _ = log.compare(&BTreeMap::from([(0, Digest([0; 32]))]));
            }
        }
    }
}
