//! Inodes and folders to nodes of a tree.

use std::collections::HashMap;
use std::io::{Read, Seek};

use model::Bytes;

use super::table::{Cursor, Source};
use super::{MEMORY_MAX, Place, ReadError, damaged};
use crate::field::{le16, le32, le64};
use crate::squashfs::Superblock;
use crate::squashfs::number::{self, NONE, NOWHERE, XATTR_PREFIXES};
use crate::tree::{Content, Kind, Meta, Node, Tree};

/// The longest target of a symbolic link.
const TARGET_MAX: u32 = 65_536;
/// The longest value of an extended attribute.
const VALUE_MAX: u32 = 65_536;
/// Attributes of one inode.
const XATTRS_MAX: u32 = 65_536;
/// The length of a folder counts this much more than its entries take.
const LENGTH_EXTRA: u64 = 3;

/// Reads everything that is below the root.
pub(super) fn walk<R: Read + Seek>(
    source: &mut Source<R>,
    superblock: &Superblock,
) -> Result<Tree<Place>, ReadError> {
    let ids = (0..superblock.ids).map(|number| {
        let id = source.entry(superblock.tables.ids, number.into())?;
        Ok(u32::from_le_bytes(id))
    });
    let ids = ids.collect::<Result<Vec<u32>, ReadError>>()?;
    let mut walk = Walk { source, superblock, ids, left: MEMORY_MAX.0, first: HashMap::new() };
    let mut tree = Tree::new();
    let (node, listing) = walk.inode(superblock.root)?;
    let listing = listing.ok_or_else(|| damaged("root that is no folder", superblock.root))?;
    tree.insert(Vec::new(), node)?;
    // Each folder is looked into once: an image in which folders contain each other ends.
    walk.first.insert(superblock.root, Vec::new());
    let mut folders = vec![(Vec::new(), listing)];
    while let Some((path, listing)) = folders.pop() {
        for (name, inode) in walk.entries(listing)? {
            let mut path = path.clone();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend(name);
            if tree.get(&path).is_some() {
                return Err(damaged("name that is there twice", inode));
            }
            walk.charge(2 * path.len() as u64 + 200)?;
            if let Some(first) = walk.first.get(&inode) {
                let same = Node { meta: Meta::default(), kind: Kind::Same(first.clone()) };
                tree.insert(path, same)?;
                continue;
            }
            let (node, listing) = walk.inode(inode)?;
            tree.insert(path.clone(), node)?;
            walk.first.insert(inode, path.clone());
            folders.extend(listing.map(|listing| (path, listing)));
        }
    }
    tree.settle_links();
    Ok(tree)
}

/// Where the entries of a folder are.
#[derive(Debug, Clone, Copy)]
struct Listing {
    at: Cursor,
    /// Bytes that they take.
    length: u64,
}

struct Walk<'a, R> {
    source: &'a mut Source<R>,
    superblock: &'a Superblock,
    /// Owners and groups by number.
    ids: Vec<u32>,
    /// Bytes of memory that may still be taken.
    left: u64,
    /// The first path of each inode.
    first: HashMap<u64, Vec<u8>>,
}

/// Fields of an inode as they are read, one after the other.
struct Fields<'f, R> {
    source: &'f mut Source<R>,
    at: Cursor,
}

impl<R: Read + Seek> Fields<'_, R> {
    fn half(&mut self) -> Result<u16, ReadError> {
        Ok(u16::from_le_bytes(self.source.array(&mut self.at)?))
    }

    fn word(&mut self) -> Result<u32, ReadError> {
        Ok(u32::from_le_bytes(self.source.array(&mut self.at)?))
    }

    fn long(&mut self) -> Result<u64, ReadError> {
        Ok(u64::from_le_bytes(self.source.array(&mut self.at)?))
    }

    fn bytes(&mut self, length: u32) -> Result<Vec<u8>, ReadError> {
        self.source.read(&mut self.at, usize::try_from(length).unwrap_or(usize::MAX))
    }
}

impl<R: Read + Seek> Walk<'_, R> {
    fn charge(&mut self, bytes: u64) -> Result<(), ReadError> {
        self.left = self.left.checked_sub(bytes).ok_or(ReadError::TooLarge)?;
        Ok(())
    }

    /// The names in a folder and where their inodes are.
    fn entries(&mut self, listing: Listing) -> Result<Vec<(Vec<u8>, u64)>, ReadError> {
        let Listing { mut at, length } = listing;
        let bad = || damaged("folder", self.superblock.tables.folders);
        let mut left = length;
        let mut entries = Vec::new();
        while left > 0 {
            left = left.checked_sub(12).ok_or_else(bad)?;
            let head: [u8; 12] = self.source.array(&mut at)?;
            let (count, block) = le32(&head, 0).zip(le32(&head, 4)).ok_or_else(bad)?;
            if count >= 256 {
                return Err(bad());
            }
            for _ in 0..=count {
                left = left.checked_sub(8).ok_or_else(bad)?;
                let entry: [u8; 8] = self.source.array(&mut at)?;
                let (offset, length) = le16(&entry, 0).zip(le16(&entry, 6)).ok_or_else(bad)?;
                let length = usize::from(length) + 1;
                left = left.checked_sub(length as u64).ok_or_else(bad)?;
                let name = self.source.read(&mut at, length)?;
                // Of a slash, the tree would make a folder.
                if length > crate::tree::NAME_MAX || name.contains(&b'/') {
                    return Err(bad());
                }
                entries.push((name, u64::from(block) << 16 | u64::from(offset)));
            }
        }
        Ok(entries)
    }

    /// The inode that a reference means; of a folder also where its entries are.
    fn inode(&mut self, reference: u64) -> Result<(Node<Place>, Option<Listing>), ReadError> {
        let bad = || damaged("inode", reference >> 16);
        let at = Cursor::new(self.superblock.tables.inodes, reference)?;
        let mut fields = Fields { source: self.source, at };
        let (kind, mode) = (fields.half()?, fields.half()? & 0o7777);
        let (uid, gid) = (fields.half()?, fields.half()?);
        let mtime = fields.word()?.into();
        let _number = fields.word()?;
        let mut xattr = NOWHERE;
        let mut listing = None;
        let basic = if kind > number::SOCKET { kind - number::MORE } else { kind };
        let more = basic != kind;
        let what = match basic {
            number::FOLDER => {
                let (block, length, offset);
                if more {
                    let _links = fields.word()?;
                    (length, block) = (fields.word()?.into(), fields.word()?);
                    let (_parent, _indexes) = (fields.word()?, fields.half()?);
                    offset = fields.half()?;
                    xattr = fields.word()?;
                } else {
                    block = fields.word()?;
                    let _links = fields.word()?;
                    (length, offset) = (u64::from(fields.half()?), fields.half()?);
                }
                let place = u64::from(block) << 16 | u64::from(offset);
                let at = match length > LENGTH_EXTRA {
                    true => Cursor::new(self.superblock.tables.folders, place)?,
                    false => fields.at, // nothing is read from it
                };
                listing = Some(Listing { at, length: length.saturating_sub(LENGTH_EXTRA) });
                Kind::Folder
            }
            number::FILE => {
                let (start, size, fragment, offset);
                if more {
                    (start, size) = (fields.long()?, fields.long()?);
                    let (_holes, _links) = (fields.long()?, fields.word()?);
                    (fragment, offset) = (fields.word()?, fields.word()?);
                    xattr = fields.word()?;
                } else {
                    start = u64::from(fields.word()?);
                    (fragment, offset) = (fields.word()?, fields.word()?);
                    size = u64::from(fields.word()?);
                }
                let fragment = (fragment != NOWHERE).then_some((fragment, offset));
                let block = self.superblock.block.0;
                let count = match fragment {
                    Some(_) => size / block,
                    None => size.div_ceil(block),
                };
                let length = count.checked_mul(4).ok_or_else(bad)?;
                self.left = self.left.checked_sub(length).ok_or(ReadError::TooLarge)?;
                let list = fields.bytes(u32::try_from(length).map_err(|_| bad())?)?;
                let blocks = list.chunks_exact(4).filter_map(|word| le32(word, 0)).collect();
                let at = Place { start, size, blocks, fragment };
                Kind::File(Content { size: Bytes(size), digest: None, at })
            }
            number::SYMLINK => {
                let _links = fields.word()?;
                let length = fields.word()?;
                if length > TARGET_MAX {
                    return Err(bad());
                }
                self.left = self.left.checked_sub(length.into()).ok_or(ReadError::TooLarge)?;
                Kind::Symlink(fields.bytes(length)?)
            }
            number::BLOCK | number::CHAR => {
                let (_links, device) = (fields.word()?, fields.word()?);
                let (major, minor) = (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xf_ff00);
                match basic {
                    number::BLOCK => Kind::Block { major, minor },
                    _ => Kind::Char { major, minor },
                }
            }
            number::FIFO | number::SOCKET => {
                let _links = fields.word()?;
                if basic == number::FIFO { Kind::Fifo } else { Kind::Socket }
            }
            _ => return Err(bad()),
        };
        if more && !matches!(basic, number::FOLDER | number::FILE) {
            xattr = fields.word()?;
        }
        let (uid, gid) = (self.id(uid)?, self.id(gid)?);
        let mut meta = Meta { mode, uid, gid, mtime, ..Meta::default() };
        if xattr != NOWHERE && self.superblock.tables.xattrs != NONE {
            self.xattrs(xattr, &mut meta)?;
        }
        Ok((Node { meta, kind: what }, listing))
    }

    fn id(&self, number: u16) -> Result<u32, ReadError> {
        let id = self.ids.get(usize::from(number)).copied();
        id.ok_or_else(|| damaged("owner", self.superblock.tables.ids))
    }

    fn xattrs(&mut self, number: u32, meta: &mut Meta) -> Result<(), ReadError> {
        let table = self.superblock.tables.xattrs;
        let bad = || damaged("extended attribute", table);
        let head = self.source.raw(table, 16)?;
        let (values, count) = le64(&head, 0).zip(le32(&head, 8)).ok_or_else(bad)?;
        if number >= count {
            return Err(bad());
        }
        let entry: [u8; 16] = self.source.entry(table.saturating_add(16), number.into())?;
        let (place, count) = le64(&entry, 0).zip(le32(&entry, 8)).ok_or_else(bad)?;
        if count > XATTRS_MAX {
            return Err(bad());
        }
        let mut fields = Fields { source: self.source, at: Cursor::new(values, place)? };
        for _ in 0..count {
            let (kind, length) = (fields.half()?, fields.half()?);
            let prefix = XATTR_PREFIXES.get(usize::from(kind & 0xff)).ok_or_else(bad)?;
            let name = [prefix, &fields.bytes(length.into())?[..]].concat();
            let length = fields.word()?;
            let value = match kind & OUT_OF_LINE {
                0 => value(&mut fields, length, table)?,
                _ => {
                    let place = fields.long()?;
                    let at = Cursor::new(values, place)?;
                    let mut there = Fields { source: &mut *fields.source, at };
                    let length = there.word()?;
                    value(&mut there, length, table)?
                }
            };
            let taken = (name.len() + value.len()) as u64 + 100;
            self.left = self.left.checked_sub(taken).ok_or(ReadError::TooLarge)?;
            meta.xattrs.insert(name, value);
        }
        Ok(())
    }
}

/// In the kind of an attribute: its value is elsewhere.
const OUT_OF_LINE: u16 = 0x100;

fn value<R: Read + Seek>(
    fields: &mut Fields<'_, R>,
    length: u32,
    table: u64,
) -> Result<Vec<u8>, ReadError> {
    if length > VALUE_MAX {
        return Err(damaged("extended attribute", table));
    }
    fields.bytes(length)
}
