//! Backups that only who has a passphrase or a key file can read.
//!
//! In front stands a head of 50 bytes: the mark, what opens it (1 a passphrase, 2 a key file), what
//! Argon2id costs (memory in KiB, passes, each 32 bits, little-endian), a salt of 16 bytes, 7 bytes of
//! nonce. Then chunks of 64 KiB, each sealed with AES-256-GCM: its nonce is those 7 bytes, its number
//! (32 bits, big-endian), and 1 for the last chunk, 0 for others. So no chunk can be left out, put
//! elsewhere or cut off unnoticed (STREAM: Hoang, Reyhanitabar, Rogaway, Vizár, 2015). The head is
//! authenticated with every chunk.

use std::fmt;
use std::io::{self, Read, Write};

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf;
use model::{Diagnose, Diagnosis, Secret, Who};

use crate::access::{NoRandomness, random};

const MARK: &[u8; 18] = b"EVE sealed backup\n";
const SALT: usize = 16;
const PREFIX: usize = 7;
const CHUNK: usize = 64 << 10;
const TAG: usize = 16;
/// A file that asks for more of us is no file of ours.
const MEMORY_MAX_KIB: u32 = 1 << 20;
const PASSES_MAX: u32 = 16;
/// A key file has at least so many bytes: they are not stretched.
const KEY_FILE_MIN: usize = 32;

/// What a guess at a passphrase costs: memory in KiB, and passes over it.
const COST: (u32, u32) = (64 << 10, 3);

/// What seals a backup, and opens it.
#[derive(Clone)]
pub enum BackupKey {
    /// Words that somebody remembers.
    Passphrase(Secret),
    /// The bytes of a key file, 32 or more.
    File(Vec<u8>),
}

/// Shows no key.
impl fmt::Debug for BackupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BackupKey::Passphrase(_) => "BackupKey::Passphrase(…)",
            BackupKey::File(_) => "BackupKey::File(…)",
        })
    }
}

/// Why a backup cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// It is sealed, and no key was given.
    #[error("the backup is encrypted")]
    NoKey,
    /// It is sealed with the other kind of key.
    #[error("the backup is encrypted with a {0}")]
    OtherKind(&'static str),
    /// It is not sealed, and a key was given.
    #[error("the backup is not encrypted, but a key was given")]
    NotSealed,
    /// The key does not open it.
    #[error("the passphrase or key is not the one of the backup, or the backup was changed")]
    Wrong,
    /// The key cannot be used.
    #[error("the key cannot be used: {0}")]
    Unusable(String),
    /// The head makes no sense.
    #[error("the head of the encrypted backup is damaged: {0}")]
    Damaged(String),
    /// The file.
    #[error("cannot read or write the encrypted backup")]
    File(#[from] io::Error),
    /// No salt.
    #[error(transparent)]
    Random(#[from] NoRandomness),
}

impl Diagnose for SealError {
    fn diagnose(&self) -> Diagnosis {
        let advice = match self {
            SealError::NoKey => "give --passphrase, --passphrase-file or --key-file",
            SealError::OtherKind("passphrase") => "give --passphrase or --passphrase-file",
            SealError::OtherKind(_) => "give --key-file",
            SealError::NotSealed => {
                "leave the key away if you trust the file; whoever could write it could exchange it"
            }
            SealError::Wrong => "give the passphrase or the key file that the backup was made with",
            SealError::Unusable(_) => {
                "choose a passphrase of some words, or a key file of 32 bytes or more (head -c 32 \
                 /dev/urandom > FILE)"
            }
            SealError::Damaged(_) => "take another backup; this one was changed",
            SealError::File(_) => "check the free space and the rights of the folder",
            SealError::Random(_) => "run it where it can read random numbers",
        };
        Diagnosis::of(Who::Operator, advice)
    }
}

impl BackupKey {
    fn kind(&self) -> u8 {
        match self {
            BackupKey::Passphrase(_) => 1,
            BackupKey::File(_) => 2,
        }
    }

    fn derive(&self, head: &Head) -> Result<LessSafeKey, SealError> {
        let mut raw = [0; 32];
        match self {
            BackupKey::Passphrase(words) if words.reveal().is_empty() => {
                return Err(SealError::Unusable("the passphrase is empty".into()));
            }
            BackupKey::Passphrase(words) => {
                let unusable = |e: argon2::Error| SealError::Damaged(e.to_string());
                let params = Params::new(head.memory, head.passes, 1, Some(raw.len()));
                let argon =
                    Argon2::new(Algorithm::Argon2id, Version::V0x13, params.map_err(unusable)?);
                argon
                    .hash_password_into(words.reveal().as_bytes(), &head.salt, &mut raw)
                    .map_err(unusable)?;
            }
            BackupKey::File(bytes) if bytes.len() < KEY_FILE_MIN => {
                let why = format!("the key file has {} bytes; at least 32 are needed", bytes.len());
                return Err(SealError::Unusable(why));
            }
            BackupKey::File(bytes) => {
                let unusable = |_| SealError::Unusable("no key comes of the key file".into());
                let info: &[&[u8]] = &[b"EVE controller: backup"];
                let derived = hkdf::Salt::new(hkdf::HKDF_SHA256, &head.salt).extract(bytes);
                let okm = derived.expand(info, hkdf::HKDF_SHA256).map_err(unusable)?;
                okm.fill(&mut raw).map_err(unusable)?;
            }
        }
        let key = UnboundKey::new(&AES_256_GCM, &raw);
        Ok(LessSafeKey::new(key.map_err(|_| SealError::Unusable("it is no AES key".into()))?))
    }
}

/// The head of a sealed backup.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Head {
    kind: u8,
    memory: u32,
    passes: u32,
    salt: [u8; SALT],
    prefix: [u8; PREFIX],
}

impl Head {
    fn to_bytes(&self) -> Vec<u8> {
        let cost = [self.memory.to_le_bytes(), self.passes.to_le_bytes()].concat();
        [MARK, &[self.kind][..], &cost, &self.salt, &self.prefix].concat()
    }

    /// Of the bytes behind the mark.
    fn read(from: &mut impl Read) -> Result<Head, SealError> {
        let (mut kind, mut memory, mut passes) = ([0], [0; 4], [0; 4]);
        let (mut salt, mut prefix) = ([0; SALT], [0; PREFIX]);
        for part in [&mut kind[..], &mut memory, &mut passes, &mut salt, &mut prefix] {
            from.read_exact(part)?;
        }
        let [kind] = kind;
        let (memory, passes) = (u32::from_le_bytes(memory), u32::from_le_bytes(passes));
        if memory > MEMORY_MAX_KIB || passes > PASSES_MAX {
            return Err(SealError::Damaged(format!("it asks for {memory} KiB, {passes} times")));
        }
        Ok(Head { kind, memory, passes, salt, prefix })
    }

    fn nonce(&self, number: u32, last: bool) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        let bytes = self.prefix.into_iter().chain(number.to_be_bytes()).chain([u8::from(last)]);
        nonce.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        Nonce::assume_unique_for_key(nonce)
    }
}

/// Seals what is written. What was not [`Sealing::finish`]ed is not whole.
pub struct Sealing<W> {
    out: W,
    key: LessSafeKey,
    head: Head,
    bound: Vec<u8>,
    number: u32,
    chunk: Vec<u8>,
}

/// Shows no key.
impl<W> fmt::Debug for Sealing<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealing").field("number", &self.number).finish_non_exhaustive()
    }
}

impl<W: Write> Sealing<W> {
    /// Begins a sealed backup.
    pub fn new(out: W, key: &BackupKey) -> Result<Sealing<W>, SealError> {
        Sealing::with_cost(out, key, COST)
    }

    fn with_cost(
        mut out: W,
        key: &BackupKey,
        (memory, passes): (u32, u32),
    ) -> Result<Sealing<W>, SealError> {
        let head = Head { kind: key.kind(), memory, passes, salt: random()?, prefix: random()? };
        let key = key.derive(&head)?;
        let bound = head.to_bytes();
        out.write_all(&bound)?;
        Ok(Sealing { out, key, head, bound, number: 0, chunk: Vec::with_capacity(CHUNK + TAG) })
    }

    fn seal(&mut self, last: bool) -> io::Result<()> {
        let nonce = self.head.nonce(self.number, last);
        let sealed =
            self.key.seal_in_place_append_tag(nonce, Aad::from(&self.bound), &mut self.chunk);
        sealed.map_err(|_| io::Error::other("cannot encrypt"))?;
        self.out.write_all(&self.chunk)?;
        self.chunk.clear();
        // 256 TiB: no nonce comes twice.
        let next = self.number.checked_add(1);
        self.number = next.ok_or_else(|| io::Error::other("the backup is too large to encrypt"))?;
        Ok(())
    }

    /// Seals the end, and gives back what it wrote to.
    pub fn finish(mut self) -> Result<W, SealError> {
        self.seal(true)?;
        self.out.flush()?;
        Ok(self.out)
    }
}

impl<W: Write> Write for Sealing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.chunk.len() == CHUNK && !bytes.is_empty() {
            self.seal(false)?;
        }
        let room = bytes.len().min(CHUNK - self.chunk.len());
        self.chunk.extend_from_slice(bytes.get(..room).unwrap_or_default());
        Ok(room)
    }

    /// A chunk is written when it is full.
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A backup, opened if it is sealed. Its first chunk has been checked.
pub fn opened<'a>(
    mut from: impl Read + 'a,
    key: Option<&BackupKey>,
) -> Result<Box<dyn Read + 'a>, SealError> {
    let mut mark = Vec::with_capacity(MARK.len());
    from.by_ref().take(MARK.len() as u64).read_to_end(&mut mark)?;
    match (mark == MARK, key) {
        (true, Some(key)) => Ok(Box::new(Opening::new(from, key)?)),
        (true, None) => Err(SealError::NoKey),
        (false, Some(_)) => Err(SealError::NotSealed),
        (false, None) => Ok(Box::new(io::Cursor::new(mark).chain(from))),
    }
}

struct Opening<R> {
    from: R,
    key: LessSafeKey,
    head: Head,
    bound: Vec<u8>,
    number: u32,
    /// Sealed bytes that are read but not opened: of a chunk, and one more if there is one.
    ahead: Vec<u8>,
    /// Opened bytes, and how many of them were given out.
    open: Vec<u8>,
    given: usize,
    ended: bool,
}

impl<R: Read> Opening<R> {
    fn new(mut from: R, key: &BackupKey) -> Result<Opening<R>, SealError> {
        let head = Head::read(&mut from)?;
        match (head.kind, key) {
            (1, BackupKey::Passphrase(_)) | (2, BackupKey::File(_)) => {}
            (1, _) => return Err(SealError::OtherKind("passphrase")),
            (2, _) => return Err(SealError::OtherKind("key file")),
            (kind, _) => {
                return Err(SealError::Damaged(format!("nobody knows keys of kind {kind}")));
            }
        }
        let (key, bound) = (key.derive(&head)?, head.to_bytes());
        let (ahead, open) = (Vec::with_capacity(CHUNK + TAG + 1), Vec::new());
        let mut opening =
            Opening { from, key, head, bound, number: 0, ahead, open, given: 0, ended: false };
        match opening.next_chunk() {
            Err(e) if e.kind() == io::ErrorKind::InvalidData => Err(SealError::Wrong),
            other => other.map(|()| opening).map_err(SealError::File),
        }
    }

    fn next_chunk(&mut self) -> io::Result<()> {
        let want = (CHUNK + TAG + 1).saturating_sub(self.ahead.len());
        self.from.by_ref().take(want as u64).read_to_end(&mut self.ahead)?;
        // What stands behind a chunk tells that it is not the last.
        let last = self.ahead.len() <= CHUNK + TAG;
        let rest = if last { Vec::new() } else { self.ahead.split_off(CHUNK + TAG) };
        self.open = std::mem::replace(&mut self.ahead, rest);
        let nonce = self.head.nonce(self.number, last);
        let size = match self.key.open_in_place(nonce, Aad::from(&self.bound), &mut self.open) {
            Ok(plain) => plain.len(),
            Err(_) => {
                let why = format!("chunk {} of the encrypted backup was changed", self.number);
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
        };
        self.open.truncate(size);
        (self.given, self.ended) = (0, last);
        let next = self.number.checked_add(1);
        self.number = next.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok(())
    }
}

impl<R: Read> Read for Opening<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.given == self.open.len() && !self.ended {
            self.next_chunk()?;
        }
        let mut rest = self.open.get(self.given..).unwrap_or_default();
        let got = rest.read(into)?;
        self.given += got;
        Ok(got)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: usize = 18 + 1 + 4 + 4 + 16 + 7;

    fn words(text: &str) -> BackupKey {
        BackupKey::Passphrase(Secret::new(text))
    }

    fn sealed(plain: &[u8], key: &BackupKey) -> Vec<u8> {
        let mut out = Sealing::with_cost(Vec::new(), key, (64, 1)).unwrap();
        // In pieces that fit no chunk.
        plain.chunks(50_000).for_each(|piece| out.write_all(piece).unwrap());
        out.finish().unwrap()
    }

    fn open(sealed: &[u8], key: &BackupKey) -> Result<Vec<u8>, String> {
        let mut plain = Vec::new();
        let mut from = opened(sealed, Some(key)).map_err(|e| model::chain(&e))?;
        from.read_to_end(&mut plain).map_err(|e| e.to_string())?;
        Ok(plain)
    }

    #[test]
    fn what_was_sealed_is_opened() {
        for key in [words("correct horse"), BackupKey::File(vec![7; 32])] {
            for size in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 5] {
                let plain: Vec<u8> = (0..=250_u8).cycle().take(size).collect();
                let sealed = sealed(&plain, &key);
                let chunks = size.div_ceil(CHUNK).max(1);
                assert_eq!(sealed.len(), HEAD + size + chunks * TAG);
                assert!(open(&sealed, &key).unwrap() == plain, "{size}");
            }
        }
    }

    #[test]
    fn whatever_is_changed_is_noticed() {
        let key = words("correct horse");
        let plain = vec![42; 3 * CHUNK];
        let good = sealed(&plain, &key);
        let chunk = |n: usize| HEAD + n * (CHUNK + TAG)..HEAD + (n + 1) * (CHUNK + TAG);
        for at in (0..HEAD).chain([HEAD, chunk(0).end - 1, chunk(1).start, chunk(2).end - 1]) {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(open(&bad, &key).is_err(), "byte {at}");
        }
        for cut in [0, 10, HEAD, HEAD + 5, chunk(0).end, chunk(1).end, chunk(2).end - 1] {
            assert!(open(&good[..cut], &key).is_err(), "cut at {cut}");
        }
        let mut moved = good.clone();
        moved[chunk(0)].copy_from_slice(&good[chunk(1)]);
        moved[chunk(1)].copy_from_slice(&good[chunk(0)]);
        assert!(open(&moved, &key).is_err(), "chunks in another order");
        assert!(open(&[&good[..], b"x"].concat(), &key).is_err(), "something behind it");
        let other = sealed(&plain, &key);
        assert!(good[HEAD..] != other[HEAD..], "no two are alike");
    }

    #[test]
    fn another_key_is_told_from_none() {
        let sealed = sealed(b"secret", &words("right"));
        let e = |key: Option<&BackupKey>| opened(&sealed[..], key).map(drop).unwrap_err();
        assert!(matches!(e(Some(&words("wrong"))), SealError::Wrong));
        assert!(matches!(
            e(Some(&BackupKey::File(vec![1; 32]))),
            SealError::OtherKind("passphrase")
        ));
        assert!(matches!(e(None), SealError::NoKey));
        let plain = opened(&b"plain"[..], Some(&words("right"))).map(drop);
        assert!(matches!(plain.unwrap_err(), SealError::NotSealed));
        let mut text = String::new();
        opened(&b"plain"[..], None).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "plain");
        for bad in [words(""), BackupKey::File(vec![1; 31])] {
            let e = Sealing::with_cost(Vec::new(), &bad, (64, 1)).unwrap_err();
            assert!(matches!(e, SealError::Unusable(_)), "{e}");
        }
        // Nobody is made to fill the memory.
        let mut greedy = sealed.clone();
        greedy[19..23].copy_from_slice(&u32::MAX.to_le_bytes());
        let e = opened(&greedy[..], Some(&words("right"))).map(drop).unwrap_err();
        assert!(matches!(e, SealError::Damaged(_)), "{e}");
    }
}
