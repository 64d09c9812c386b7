//! What an archive holds and where, so that it need not be read again to know: every member's
//! header, the place of its bytes, and their digest.
//!
//! An index is kept beside content that never changes, under the digest of that content. One that
//! is damaged or of another version is none: whoever asked makes it anew. Numbers are LEB128, the
//! last 32 bytes are the SHA-256 of all before them.

use std::collections::BTreeMap;
use std::io::{self, Read};

use model::{Bytes, Digest};
use sha2::{Digest as _, Sha256};

use crate::tarball::{Header, Kind, Reader, Time};

/// What every index starts with. The number changes with the format, or with what a reader of
/// archives makes of one.
const MAGIC: &[u8] = b"EVE archive index 1\n";

/// More members than any archive of ours will have.
const MEMBERS_MAX: usize = 4_000_000;

/// What an archive holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveIndex {
    /// The members in their order.
    pub members: Vec<Place>,
    /// The size of the whole archive.
    pub size: Bytes,
}

/// A member and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The header.
    pub header: Header,
    /// Where its bytes begin in the archive.
    pub at: Bytes,
    /// SHA-256 of its bytes, if its kind has any.
    pub digest: Option<Digest>,
}

impl ArchiveIndex {
    /// Reads a plain archive to its end.
    pub fn of(archive: impl Read) -> io::Result<ArchiveIndex> {
        let mut archive = Reader::with_globals(Counted { input: archive, read: 0 });
        let mut members = Vec::new();
        while let Some(header) = archive.next()? {
            let at = Bytes(archive.get_ref().read);
            members.push(Place::read(header, at, &mut archive)?);
            if members.len() > MEMBERS_MAX {
                return Err(io::Error::other("an archive with so many members is not read"));
            }
        }
        let mut rest = archive.into_inner();
        io::copy(&mut rest, &mut io::sink())?;
        Ok(ArchiveIndex { members, size: Bytes(rest.read) })
    }

    /// As bytes: the same for the same index.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Out(MAGIC.to_vec());
        out.number(self.size.0);
        out.number(self.members.len() as u64);
        for place in &self.members {
            out.place(place);
        }
        let sum = Sha256::digest(&out.0);
        out.0.extend_from_slice(&sum);
        out.0
    }

    /// Reads what [`ArchiveIndex::encode`] wrote; `None` if it is damaged or of another version.
    pub fn decode(bytes: &[u8]) -> Option<ArchiveIndex> {
        let (body, sum) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
        if Sha256::digest(body).as_slice() != sum {
            return None;
        }
        ArchiveIndex::parse(body)
    }

    /// Without the sum at the end.
    fn parse(body: &[u8]) -> Option<ArchiveIndex> {
        let mut input = In(body.strip_prefix(MAGIC)?);
        let size = Bytes(input.number()?);
        let count = usize::try_from(input.number()?).ok()?;
        // A member takes more than 16 bytes: a count of millions needs millions of bytes.
        if count > MEMBERS_MAX || count > input.0.len() / 16 {
            return None;
        }
        let members = (0..count).map(|_| input.place()).collect::<Option<_>>()?;
        input.0.is_empty().then_some(ArchiveIndex { members, size })
    }
}

impl Place {
    /// Reads a member's bytes to their end.
    pub(crate) fn read(header: Header, at: Bytes, body: &mut dyn Read) -> io::Result<Place> {
        let digest = if header.kind.has_body() { Some(digest_of(body)?) } else { None };
        Ok(Place { header, at, digest })
    }
}

fn digest_of(body: &mut dyn Read) -> io::Result<Digest> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match body.read(&mut buffer) {
            Ok(0) => return Ok(Digest(hash.finalize().into())),
            Ok(n) => hash.update(&buffer[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Knows how far it was read.
struct Counted<R> {
    input: R,
    read: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(out)?;
        self.read += n as u64;
        Ok(n)
    }
}

struct Out(Vec<u8>);

impl Out {
    fn number(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.0.push(n.to_le_bytes()[0] | 0x80);
            n >>= 7;
        }
        self.0.push(n.to_le_bytes()[0]);
    }

    /// Small numbers of either sign stay small.
    fn signed(&mut self, n: i64) {
        self.number(((n << 1) ^ (n >> 63)).cast_unsigned());
    }

    fn text(&mut self, text: &[u8]) {
        self.number(text.len() as u64);
        self.0.extend_from_slice(text);
    }

    fn time(&mut self, time: Option<Time>) {
        match time {
            None => self.number(0),
            Some(time) => {
                self.number(u64::from(time.nanos) + 1);
                self.signed(time.seconds);
            }
        }
    }

    fn place(&mut self, place: &Place) {
        let h = &place.header;
        self.text(&h.path);
        self.0.push(h.kind.flag());
        for n in [h.mode, h.uid, h.gid, h.device.0, h.device.1] {
            self.signed(n);
        }
        self.number(h.size);
        for time in [Some(h.mtime), h.atime, h.ctime] {
            self.time(time);
        }
        for text in [&h.link, &h.user, &h.group] {
            self.text(text);
        }
        self.number(h.records.len() as u64);
        for (key, value) in &h.records {
            self.text(key);
            self.text(value);
        }
        self.number(place.at.0);
        let digest = place.digest.as_ref().map_or(&[][..], |d| &d.0);
        self.text(digest);
    }
}

struct In<'a>(&'a [u8]);

impl<'a> In<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self) -> Option<u64> {
        let mut n = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                return None;
            }
            n |= part << shift;
            if byte < 0x80 {
                return Some(n);
            }
        }
        None
    }

    fn signed(&mut self) -> Option<i64> {
        let n = self.number()?;
        Some((n >> 1).cast_signed() ^ -(n & 1).cast_signed())
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(text)
    }

    fn time(&mut self) -> Option<Option<Time>> {
        let Some(nanos) = self.number()?.checked_sub(1) else { return Some(None) };
        let nanos = u32::try_from(nanos).ok().filter(|n| *n < 1_000_000_000)?;
        Some(Some(Time { seconds: self.signed()?, nanos }))
    }

    fn place(&mut self) -> Option<Place> {
        let path = self.text()?.to_vec();
        let kind = Kind::of_flag(self.byte()?);
        let (mode, uid, gid) = (self.signed()?, self.signed()?, self.signed()?);
        let device = (self.signed()?, self.signed()?);
        let size = self.number()?;
        let mtime = self.time()??;
        let (atime, ctime) = (self.time()?, self.time()?);
        let mut text = || self.text().map(<[u8]>::to_vec);
        let (link, user, group) = (text()?, text()?, text()?);
        let mut records = BTreeMap::new();
        for _ in 0..self.number()? {
            let key = self.text()?.to_vec();
            records.insert(key, self.text()?.to_vec());
        }
        let at = Bytes(self.number()?);
        let digest = match self.text()? {
            [] => None,
            digest => Some(Digest(digest.try_into().ok()?)),
        };
        let header = Header {
            uid,
            gid,
            size,
            atime,
            ctime,
            link,
            user,
            group,
            device,
            records,
            ..Header::new(path, kind, mode, mtime)
        };
        Some(Place { header, at, digest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tarball::Writer;

    fn archive() -> Vec<u8> {
        let mut out = Writer::new(Vec::new());
        let time = Time { seconds: -5, nanos: 7 };
        let odd = Header {
            uid: -1,
            link: b"to \xff".to_vec(),
            device: (5, 1 << 20),
            atime: Some(Time::seconds(3)),
            records: [(b"SCHILY.xattr.user.x".to_vec(), b"\0=".to_vec())].into(),
            ..Header::new(vec![b'n'; 300], Kind::Symlink, 0o777, time)
        };
        out.member(&Header::new("a", Kind::File, 0o644, Time::seconds(1)), b"first").unwrap();
        out.header(&odd).unwrap();
        out.member(&Header::new("b", Kind::File, 0o644, Time::seconds(1)), &[7; 1000]).unwrap();
        out.finish().unwrap()
    }

    #[test]
    fn members_are_found_where_the_index_says() {
        let archive = archive();
        let index = ArchiveIndex::of(archive.as_slice()).unwrap();
        assert_eq!(index.size.0, archive.len() as u64);
        let bodies: Vec<_> = index
            .members
            .iter()
            .filter_map(|p| {
                let at = usize::try_from(p.at.0).unwrap();
                let body = &archive[at..at + usize::try_from(p.header.size).unwrap()];
                let right = p.digest == Some(Digest(Sha256::digest(body).into()));
                p.digest.map(|_| (p.header.display(), body.len(), right))
            })
            .collect();
        assert_eq!(bodies, [("a".to_owned(), 5, true), ("b".to_owned(), 1000, true)]);
    }

    #[test]
    fn what_was_kept_is_read_back_and_damage_is_seen() {
        let index = ArchiveIndex::of(archive().as_slice()).unwrap();
        let bytes = index.encode();
        assert_eq!(ArchiveIndex::decode(&bytes).as_ref(), Some(&index));
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x40;
            assert_eq!(ArchiveIndex::decode(&bad), None, "{at}");
            // Also without the sum nothing panics.
            let _ = ArchiveIndex::parse(&bad[..bad.len() - 32]);
            let _ = ArchiveIndex::parse(&bytes[..at.min(bytes.len() - 32)]);
        }
    }
}
