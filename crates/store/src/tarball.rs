//! Tar archives, member by member: POSIX ustar and pax, GNU long names and numbers.
//!
//! The reader is for foreign bytes: extended headers are bounded, numbers are checked, nothing is
//! kept but the current header. The writer makes pax archives and keeps what a header carried
//! (owner names, extended records, fractions of a second), field by field as Go's archive/tar does:
//! the reference composer is written in Go, and our archives are compared with its byte for byte.
//! It splits no long names over the ustar prefix field, and knows no sparse files.
//!
//! Formats: POSIX.1-2017 pax "ustar Interchange Format" and "pax Extended Header"; GNU tar manual,
//! "Basic Tar Format".

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

/// The most we read of one extended header or long name. Go's reader has the same limit.
pub const SPECIAL_MAX: u64 = 1 << 20;

/// The type flag of a pax header that is for all members after it.
pub const GLOBAL: u8 = b'g';

/// Size of a tar block.
const BLOCK: usize = 512;

/// What kind of member it is: the type flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// Another name of an earlier member, [`Header::link`].
    HardLink,
    /// A symbolic link to [`Header::link`].
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A folder.
    Dir,
    /// A named pipe.
    Fifo,
    /// Another type flag; such a member has bytes like a file.
    Other(u8),
}

impl Kind {
    /// What a type flag means.
    pub(crate) fn of_flag(flag: u8) -> Kind {
        match flag {
            0 | b'0' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Dir,
            b'6' => Kind::Fifo,
            other => Kind::Other(other),
        }
    }

    pub(crate) fn flag(self) -> u8 {
        match self {
            Kind::File => b'0',
            Kind::HardLink => b'1',
            Kind::Symlink => b'2',
            Kind::CharDevice => b'3',
            Kind::BlockDevice => b'4',
            Kind::Dir => b'5',
            Kind::Fifo => b'6',
            Kind::Other(flag) => flag,
        }
    }

    /// Whether bytes follow the header.
    pub fn has_body(self) -> bool {
        match self {
            Kind::File => true,
            Kind::Other(flag) => flag != GLOBAL,
            _ => false,
        }
    }
}

/// A point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Time {
    /// Seconds since 1970-01-01T00:00:00Z.
    pub seconds: i64,
    /// 0 to 999 999 999 after that.
    pub nanos: u32,
}

impl Time {
    /// A whole second.
    pub const fn seconds(seconds: i64) -> Time {
        Time { seconds, nanos: 0 }
    }
}

/// What stands before a member's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Its path, as stored.
    pub path: Vec<u8>,
    /// Its kind.
    pub kind: Kind,
    /// Permissions, 0 to 0o7777; some writers put more.
    pub mode: i64,
    /// Owner.
    pub uid: i64,
    /// Group.
    pub gid: i64,
    /// Bytes that follow, if its kind has any.
    pub size: u64,
    /// Last change.
    pub mtime: Time,
    /// Last access, where it is said.
    pub atime: Option<Time>,
    /// Last change of the inode, where it is said.
    pub ctime: Option<Time>,
    /// Target of a link.
    pub link: Vec<u8>,
    /// Name of the owner, often empty.
    pub user: Vec<u8>,
    /// Name of the group, often empty.
    pub group: Vec<u8>,
    /// Device numbers.
    pub device: (i64, i64),
    /// Pax records as stored, those included that the fields above were taken from.
    pub records: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Header {
    /// A header with nothing but these.
    pub fn new(path: impl Into<Vec<u8>>, kind: Kind, mode: i64, mtime: Time) -> Header {
        Header {
            path: path.into(),
            kind,
            mode,
            uid: 0,
            gid: 0,
            size: 0,
            mtime,
            atime: None,
            ctime: None,
            link: Vec::new(),
            user: Vec::new(),
            group: Vec::new(),
            device: (0, 0),
            records: BTreeMap::new(),
        }
    }

    /// Extended attributes: name and value.
    pub fn xattrs(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.records
            .iter()
            .filter_map(|(k, v)| Some((k.strip_prefix(b"SCHILY.xattr.")?, v.as_slice())))
    }

    /// The path for a message.
    pub fn display(&self) -> String {
        String::from_utf8_lossy(&self.path).into_owned()
    }
}

/// Reads an archive. After [`Reader::next`], the member's bytes are read from the reader itself.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    /// Bytes of the current member not read yet.
    left: u64,
    padding: u64,
    globals: bool,
}

impl<R: Read> Reader<R> {
    /// Starts at the first header. Global headers are passed over: no writer of layers makes any.
    pub fn new(input: R) -> Reader<R> {
        Reader { input, left: 0, padding: 0, globals: false }
    }

    /// Global headers are members as well: a name and records, and the flag [`GLOBAL`].
    pub fn with_globals(input: R) -> Reader<R> {
        Reader { globals: true, ..Reader::new(input) }
    }

    /// The input, which stands behind the header that was read last or in its bytes.
    pub fn get_ref(&self) -> &R {
        &self.input
    }

    /// The input, wherever it stands.
    pub fn into_inner(self) -> R {
        self.input
    }

    /// Goes to the next member; `None` at the end of the archive. What was not read of the member
    /// before is skipped.
    #[expect(clippy::should_implement_trait, reason = "the body is read through the reader")]
    pub fn next(&mut self) -> io::Result<Option<Header>> {
        let mut records = BTreeMap::new();
        let (mut long_path, mut long_link) = (None, None);
        loop {
            self.skip()?;
            let Some(block) = self.block()? else { return Ok(None) };
            let mut header = parse_header(&block)?;
            match block[156] {
                b'x' => records = parse_records(&self.special(header.size)?)?,
                GLOBAL => {
                    let found = parse_records(&self.special(header.size)?)?;
                    if self.globals {
                        let kind = Kind::Other(GLOBAL);
                        let long = found.get(&b"path"[..]).filter(|path| !path.is_empty());
                        let path = long.cloned().unwrap_or(header.path);
                        let plain = Header::new(path, kind, 0, Time::default());
                        return Ok(Some(Header { records: found, ..plain }));
                    }
                }
                b'L' => long_path = Some(cstr(&self.special(header.size)?).to_vec()),
                b'K' => long_link = Some(cstr(&self.special(header.size)?).to_vec()),
                b'S' => return Err(invalid("sparse files are not supported")),
                flag => {
                    merge(&mut header, records)?;
                    header.path = long_path.unwrap_or(header.path);
                    header.link = long_link.unwrap_or(header.link);
                    // The oldest archives mark a folder by its name only.
                    if flag == 0 && header.path.ends_with(b"/") {
                        header.kind = Kind::Dir;
                    }
                    if header.records.keys().any(|k| k.starts_with(b"GNU.sparse.")) {
                        return Err(invalid("sparse files are not supported"));
                    }
                    self.body(if header.kind.has_body() { header.size } else { 0 });
                    return Ok(Some(header));
                }
            }
        }
    }

    fn body(&mut self, size: u64) {
        self.left = size;
        self.padding = padding(size);
    }

    /// The bytes of an extended header or long name.
    fn special(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > SPECIAL_MAX {
            return Err(invalid("an extended header is longer than 1 MiB"));
        }
        self.body(size);
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn skip(&mut self) -> io::Result<()> {
        let rest = self.left.saturating_add(self.padding);
        let skipped = io::copy(&mut (&mut self.input).take(rest), &mut io::sink())?;
        // Some writers end without padding the last member.
        if skipped < self.left {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.body(0);
        Ok(())
    }

    /// The next block; `None` at the end: two empty blocks, or nothing more.
    fn block(&mut self) -> io::Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        for empty in 0..2 {
            let got = read_full(&mut self.input, &mut block)?;
            match got {
                0 => return Ok(None),
                BLOCK if block == [0; BLOCK] => {}
                BLOCK if empty == 0 => return Ok(Some(block)),
                BLOCK => return Err(invalid("an empty block stands between members")),
                _ => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        Ok(None)
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = (&mut self.input).take(self.left).read(out)?;
        if n == 0 && self.left > 0 && !out.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= n as u64;
        Ok(n)
    }
}

/// Writes an archive.
#[derive(Debug)]
pub struct Writer<W> {
    output: W,
    left: u64,
    padding: u64,
}

impl<W: Write> Writer<W> {
    /// Starts an archive.
    pub fn new(output: W) -> Writer<W> {
        Writer { output, left: 0, padding: 0 }
    }

    /// Starts a member; exactly [`Header::size`] bytes must follow, if its kind has any.
    pub fn header(&mut self, header: &Header) -> io::Result<()> {
        self.end_member()?;
        if header.kind == Kind::File && header.path.ends_with(b"/") {
            return Err(invalid("the path of a file ends with a slash"));
        }
        if header.kind == Kind::Other(GLOBAL) {
            return self.global(header);
        }
        let records = records_of(header)?;
        if !records.is_empty() {
            let body = format_records(&records);
            self.special(&extended_name(&header.path), b'x', &body)?;
        }
        self.output.write_all(&format_header(header, true))?;
        let size = if header.kind.has_body() { header.size } else { 0 };
        (self.left, self.padding) = (size, padding(size));
        Ok(())
    }

    /// A header for all members after it has no header of its own, only records.
    fn global(&mut self, header: &Header) -> io::Result<()> {
        let mut records =
            records_of(&Header::new(header.path.clone(), header.kind, 0, Time::default()))?;
        for (key, value) in &header.records {
            records.entry(key.clone()).or_insert_with(|| value.clone());
        }
        if let Some((key, _)) = records.iter().find(|(k, v)| !valid_record(k, v)) {
            let key = String::from_utf8_lossy(key);
            let why = format!("{key:?} cannot stand in an extended header");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        self.special(&header.path, GLOBAL, &format_records(&records))
    }

    fn special(&mut self, name: &[u8], flag: u8, body: &[u8]) -> io::Result<()> {
        if body.len() as u64 > SPECIAL_MAX {
            return Err(invalid("its extended header is longer than 1 MiB"));
        }
        let mut name = ascii(name);
        name.truncate(100);
        while name.last() == Some(&b'/') {
            name.pop();
        }
        let kind = Kind::Other(flag);
        let special =
            Header { size: body.len() as u64, ..Header::new(name, kind, 0, Time::default()) };
        // Unlike a member, an extended header has no device fields.
        self.output.write_all(&format_header(&special, false))?;
        self.output.write_all(body)?;
        (self.left, self.padding) = (0, padding(body.len() as u64));
        self.end_member()
    }

    /// Starts a member and writes its bytes.
    pub fn member(&mut self, header: &Header, body: &[u8]) -> io::Result<()> {
        let header = Header { size: body.len() as u64, ..header.clone() };
        self.header(&header)?;
        self.write_all(body)
    }

    /// Ends the archive with two empty blocks; the output.
    pub fn finish(mut self) -> io::Result<W> {
        self.end_member()?;
        self.output.write_all(&[0; 2 * BLOCK])?;
        Ok(self.output)
    }

    fn end_member(&mut self) -> io::Result<()> {
        if self.left > 0 {
            return Err(io::Error::other(format!("{} bytes of a member are missing", self.left)));
        }
        let fill = usize::try_from(self.padding).unwrap_or(0);
        self.output.write_all(&[0; BLOCK][..fill])?;
        self.padding = 0;
        Ok(())
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            return Err(io::Error::other("a member has more bytes than its header says"));
        }
        let n = self.output.write(bytes)?;
        self.left -= n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

fn read_full(input: &mut impl Read, out: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < out.len() {
        match input.read(&mut out[got..]) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(got)
}

/// Bytes up to the first NUL.
fn cstr(field: &[u8]) -> &[u8] {
    field.split(|b| *b == 0).next().unwrap_or_default()
}

fn checksum(block: &[u8; BLOCK]) -> i64 {
    let counted = |(at, byte): (usize, &u8)| match at {
        148..156 => i64::from(b' '),
        _ => i64::from(*byte),
    };
    block.iter().enumerate().map(counted).sum()
}

/// A number: octal text, or GNU's base 256 (first bit set).
fn number(field: &[u8]) -> io::Result<i64> {
    let bad = || invalid("a number in a header is no number");
    if let Some((first, rest)) = field.split_first().filter(|(first, _)| *first & 0x80 != 0) {
        let negative = first & 0x40 != 0;
        let start = if negative { i128::from(*first) - 0x100 } else { i128::from(first & 0x7f) };
        let value = rest.iter().try_fold(start, |n, byte| {
            n.checked_mul(256).and_then(|n| n.checked_add(i128::from(*byte)))
        });
        return value.and_then(|n| i64::try_from(n).ok()).ok_or_else(bad);
    }
    let text = std::str::from_utf8(field).map_err(|_| bad())?;
    let text = text.trim_matches([' ', '\0']);
    let text = text.split('\0').next().unwrap_or_default().trim_end();
    if text.is_empty() {
        return Ok(0);
    }
    match i64::from_str_radix(text, 8) {
        Ok(n) if !text.starts_with(['+', '-']) => Ok(n),
        _ => Err(bad()),
    }
}

fn parse_header(block: &[u8; BLOCK]) -> io::Result<Header> {
    if number(&block[148..156]).ok() != Some(checksum(block)) {
        return Err(invalid("the checksum of a header is wrong"));
    }
    let kind = Kind::of_flag(block[156]);
    let size = u64::try_from(number(&block[124..136])?)
        .map_err(|_| invalid("the size of a member is negative"))?;
    let mut header = Header {
        size,
        uid: number(&block[108..116])?,
        gid: number(&block[116..124])?,
        link: cstr(&block[157..257]).to_vec(),
        ..Header::new(
            cstr(&block[..100]),
            kind,
            number(&block[100..108])?,
            Time::seconds(number(&block[136..148])?),
        )
    };
    let (posix, gnu) = (&block[257..263] == b"ustar\0", &block[257..265] == b"ustar  \0");
    if posix || gnu {
        header.user = cstr(&block[265..297]).to_vec();
        header.group = cstr(&block[297..329]).to_vec();
        header.device = (number(&block[329..337])?, number(&block[337..345])?);
    }
    let prefix = cstr(&block[345..500]);
    if posix && !prefix.is_empty() {
        header.path = [prefix, b"/", &header.path].concat();
    }
    if gnu {
        // Old GNU archives keep the two other times here; they are there when not empty.
        let time = |field: &[u8]| match field[0] {
            0 => None,
            _ => number(field).ok().map(Time::seconds),
        };
        header.atime = time(&block[345..357]);
        header.ctime = time(&block[357..369]);
    }
    Ok(header)
}

fn parse_records(mut bytes: &[u8]) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let bad = || invalid("an extended header is malformed");
    let mut records = BTreeMap::new();
    while !bytes.is_empty() {
        // "<length> <key>=<value>\n", the length counts itself.
        let space = bytes.iter().take(20).position(|b| *b == b' ').ok_or_else(bad)?;
        let digits = std::str::from_utf8(&bytes[..space]).map_err(|_| bad())?;
        let length: usize = digits.parse().map_err(|_| bad())?;
        if length > bytes.len() || length < space + 2 || bytes[length - 1] != b'\n' {
            return Err(bad());
        }
        let record = &bytes[space + 1..length - 1];
        let equals = record.iter().position(|b| *b == b'=').ok_or_else(bad)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        if !valid_record(key, value) {
            return Err(bad());
        }
        records.insert(key.to_vec(), value.to_vec());
        bytes = &bytes[length..];
    }
    Ok(records)
}

fn valid_record(key: &[u8], value: &[u8]) -> bool {
    let text = matches!(key, b"path" | b"linkpath" | b"uname" | b"gname");
    !key.is_empty() && !key.contains(&b'=') && !(if text { value } else { key }).contains(&0)
}

/// Lets the records speak for the fields they are about.
fn merge(header: &mut Header, records: BTreeMap<Vec<u8>, Vec<u8>>) -> io::Result<()> {
    let bad = || invalid("an extended header holds no number where one belongs");
    let text = |v: &[u8]| std::str::from_utf8(v).map_err(|_| bad()).map(str::to_owned);
    let whole = |v: &[u8]| text(v)?.parse::<i64>().map_err(|_| bad());
    for (key, value) in &records {
        if value.is_empty() {
            continue; // an empty value leaves the field alone
        }
        match key.as_slice() {
            b"path" => header.path = value.clone(),
            b"linkpath" => header.link = value.clone(),
            b"uname" => header.user = value.clone(),
            b"gname" => header.group = value.clone(),
            b"uid" => header.uid = whole(value)?,
            b"gid" => header.gid = whole(value)?,
            b"mtime" => header.mtime = parse_time(&text(value)?).ok_or_else(bad)?,
            b"atime" => header.atime = Some(parse_time(&text(value)?).ok_or_else(bad)?),
            b"ctime" => header.ctime = Some(parse_time(&text(value)?).ok_or_else(bad)?),
            b"size" => header.size = u64::try_from(whole(value)?).map_err(|_| bad())?,
            _ => {}
        }
    }
    header.records = records;
    Ok(())
}

/// `seconds[.fraction]`; digits beyond the ninth are cut.
fn parse_time(text: &str) -> Option<Time> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos: u32 = format!("{:0<9.9}", fraction).parse().ok()?;
    if whole.starts_with('-') && nanos > 0 {
        return Some(Time { seconds: seconds.checked_sub(1)?, nanos: 1_000_000_000 - nanos });
    }
    Some(Time { seconds, nanos })
}

fn format_time(time: Time) -> String {
    let Time { seconds, nanos } = time;
    if nanos == 0 {
        return seconds.to_string();
    }
    let text = if seconds < 0 {
        format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanos)
    } else {
        format!("{seconds}.{nanos:09}")
    };
    text.trim_end_matches('0').to_owned()
}

fn fits_octal(width: u32, n: i64) -> bool {
    n >= 0 && n < 1_i64 << ((width - 1) * 3)
}

/// The extended header that a member needs. A record of the header about one of its own fields stays
/// only while it agrees with the field; one is added where the field has no room.
fn records_of(header: &Header) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut out: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut field = |key: &[u8], value: Vec<u8>, needed: bool| {
        if needed || header.records.get(key) == Some(&value) {
            out.insert(key.to_vec(), value);
        }
    };
    for (key, value, room) in [
        (&b"path"[..], &header.path, 100),
        (b"linkpath", &header.link, 100),
        (b"uname", &header.user, 32),
        (b"gname", &header.group, 32),
    ] {
        field(key, value.clone(), value.len() > room || !value.is_ascii());
    }
    let size = i64::try_from(header.size).map_err(|_| invalid("its size is too large"))?;
    for (key, value, width) in
        [(&b"uid"[..], header.uid, 8), (b"gid", header.gid, 8), (b"size", size, 12)]
    {
        field(key, value.to_string().into_bytes(), !fits_octal(width, value));
    }
    let fraction = header.mtime.nanos != 0 || !fits_octal(12, header.mtime.seconds);
    field(b"mtime", format_time(header.mtime).into_bytes(), fraction);
    for (key, time) in [(&b"atime"[..], header.atime), (b"ctime", header.ctime)] {
        if let Some(time) = time {
            field(key, format_time(time).into_bytes(), true);
        }
    }
    for (key, value) in &header.records {
        let basic = matches!(
            key.as_slice(),
            b"path"
                | b"linkpath"
                | b"size"
                | b"uid"
                | b"gid"
                | b"uname"
                | b"gname"
                | b"mtime"
                | b"atime"
                | b"ctime"
        );
        if !basic && !key.starts_with(b"GNU.sparse.") {
            out.insert(key.clone(), value.clone());
        }
    }
    if let Some((key, _)) = out.iter().find(|(k, v)| !valid_record(k, v)) {
        let key = String::from_utf8_lossy(key);
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{key:?} cannot stand in an extended header"),
        ));
    }
    Ok(out)
}

fn format_records(records: &BTreeMap<Vec<u8>, Vec<u8>>) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3; // space, equals sign, newline
        let mut length = rest + 1;
        while rest + length.to_string().len() != length {
            length = rest + length.to_string().len();
        }
        out.extend_from_slice(format!("{length} ").as_bytes());
        out.extend_from_slice(key);
        out.push(b'=');
        out.extend_from_slice(value);
        out.push(b'\n');
    }
    out
}

/// `dir/PaxHeaders.0/file`, cleaned.
fn extended_name(path: &[u8]) -> Vec<u8> {
    let cut = path.iter().rposition(|b| *b == b'/').map_or(0, |at| at + 1);
    let joined = [&path[..cut], b"/PaxHeaders.0/", &path[cut..]].concat();
    clean_path(if cut == 0 { &joined[1..] } else { &joined })
}

fn ascii(text: &[u8]) -> Vec<u8> {
    text.iter().copied().filter(|b| b.is_ascii() && *b != 0).collect()
}

fn format_header(header: &Header, device: bool) -> [u8; BLOCK] {
    fn put(block: &mut [u8], text: &[u8]) {
        let n = text.len().min(block.len());
        block[..n].copy_from_slice(&text[..n]);
        // A cut name that ends with a slash would be read as a folder by old readers.
        if text.len() > block.len() && block[block.len() - 1] == b'/' {
            let end = block.iter().rposition(|b| *b != b'/').map_or(0, |at| at + 1);
            block[end] = 0;
        }
    }
    fn octal(block: &mut [u8], n: i64) {
        let width = block.len();
        let fits = fits_octal(u32::try_from(width).unwrap_or(12), n);
        // What does not fit stands in a record; old readers get zero.
        let n = if fits { n } else { 0 };
        put(block, format!("{n:0>fill$o}\0", fill = width - 1).as_bytes());
    }
    let mut block = [0; BLOCK];
    put(&mut block[..100], &ascii(&header.path));
    octal(&mut block[100..108], header.mode);
    octal(&mut block[108..116], header.uid);
    octal(&mut block[116..124], header.gid);
    octal(&mut block[124..136], i64::try_from(header.size).unwrap_or(-1));
    octal(&mut block[136..148], header.mtime.seconds);
    block[156] = header.kind.flag();
    put(&mut block[157..257], &ascii(&header.link));
    put(&mut block[257..265], b"ustar\x0000");
    if device {
        put(&mut block[265..297], &ascii(&header.user));
        put(&mut block[297..329], &ascii(&header.group));
        octal(&mut block[329..337], header.device.0);
        octal(&mut block[337..345], header.device.1);
    }
    let sum = checksum(&block);
    octal(&mut block[148..155], sum);
    block[155] = b' ';
    block
}

/// The shortest path of the same meaning, without asking a file system: no `.`, no empty parts, no
/// trailing slash, `..` only in front. An empty path is `.`.
pub fn clean_path(path: &[u8]) -> Vec<u8> {
    let rooted = path.starts_with(b"/");
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => match parts.last() {
                Some(last) if *last != b".." => drop(parts.pop()),
                _ if rooted => {}
                _ => parts.push(part),
            },
            _ => parts.push(part),
        }
    }
    let joined = parts.join(&b'/');
    match (rooted, joined.is_empty()) {
        (true, _) => [b"/", joined.as_slice()].concat(),
        (false, true) => b".".to_vec(),
        (false, false) => joined,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(header: &Header, body: &[u8]) -> (Header, Vec<u8>) {
        let mut writer = Writer::new(Vec::new());
        writer.member(header, body).unwrap();
        let bytes = writer.finish().unwrap();
        assert_eq!(bytes.len() % BLOCK, 0);
        let mut reader = Reader::new(bytes.as_slice());
        let read = reader.next().unwrap().unwrap();
        let mut got = Vec::new();
        reader.read_to_end(&mut got).unwrap();
        assert!(reader.next().unwrap().is_none());
        (read, got)
    }

    #[test]
    fn what_has_no_room_in_a_header_comes_back() {
        let header = Header {
            uid: 1 << 40,
            size: 3,
            mtime: Time { seconds: -2, nanos: 250_000_000 },
            link: "ziel/ü".into(),
            user: vec![b'u'; 40],
            records: [(b"SCHILY.xattr.user.x".to_vec(), b"a=b\n\0".to_vec())].into(),
            ..Header::new(vec![b'n'; 300], Kind::File, 0o4755, Time::default())
        };
        let (read, body) = round(&header, b"abc");
        assert_eq!(body, b"abc");
        assert_eq!(read.xattrs().collect::<Vec<_>>(), [(&b"user.x"[..], &b"a=b\n\0"[..])]);
        assert_eq!(Header { records: header.records.clone(), ..read }, header);
    }

    #[test]
    fn a_record_that_its_field_contradicts_is_dropped() {
        let records = [
            (b"path".to_vec(), b"old".to_vec()),
            (b"mtime".to_vec(), b"7".to_vec()),
            (b"comment".to_vec(), b"kept".to_vec()),
        ];
        let header = Header {
            records: records.into(),
            ..Header::new("new", Kind::Dir, 0o755, Time::seconds(7))
        };
        let (read, _) = round(&header, b"");
        let kept: Vec<_> = read.records.keys().map(|k| String::from_utf8_lossy(k)).collect();
        assert_eq!(kept, ["comment", "mtime"]);
    }

    #[test]
    fn a_global_header_is_a_member_for_who_asks_for_it() {
        let records = [(b"comment".to_vec(), b"x".to_vec())].into();
        let global = Header::new("pax_global_header", Kind::Other(GLOBAL), 0, Time::default());
        let global = Header { records, ..global };
        let mut writer = Writer::new(Vec::new());
        writer.header(&global).unwrap();
        writer.member(&Header::new("a", Kind::File, 0o644, Time::default()), b"body").unwrap();
        let bytes = writer.finish().unwrap();
        let mut asked = Reader::with_globals(bytes.as_slice());
        assert_eq!(asked.next().unwrap().unwrap(), global);
        assert_eq!(asked.next().unwrap().unwrap().path, b"a");
        assert_eq!(Reader::new(bytes.as_slice()).next().unwrap().unwrap().path, b"a");
    }

    #[test]
    fn times_read_as_they_print() {
        for text in ["0", "-1", "1.5", "-1.5", "-0.25", "1700000000.000000001"] {
            assert_eq!(format_time(parse_time(text).unwrap()), text);
        }
        for bad in ["", "x", "1.x", "1.-5"] {
            assert_eq!(parse_time(bad), None, "{bad}");
        }
    }

    #[test]
    fn paths_are_cleaned() {
        for (path, clean) in [
            ("", "."),
            ("./", "."),
            ("./a//b/", "a/b"),
            ("a/../b", "b"),
            ("../../a", "../../a"),
            ("/../a", "/a"),
            ("a/..", "."),
        ] {
            assert_eq!(clean_path(path.as_bytes()), clean.as_bytes(), "{path}");
        }
    }

    #[test]
    fn damage_is_an_error_and_no_panic() {
        let mut writer = Writer::new(Vec::new());
        let records = [(b"k".to_vec(), b"v".to_vec())].into();
        let header = Header { records, ..Header::new("a", Kind::File, 0o644, Time::default()) };
        writer.member(&header, b"body").unwrap();
        let whole = writer.finish().unwrap();
        let drain = |bytes: &[u8]| -> io::Result<()> {
            let mut reader = Reader::new(bytes);
            while reader.next()?.is_some() {}
            Ok(())
        };
        drain(&whole).unwrap();
        for at in 0..1536 {
            let mut bad = whole.clone();
            bad[at] ^= 0x95;
            let _ = drain(&bad);
            let _ = drain(&whole[..at]);
        }
        let mut bad = whole.clone();
        bad[0] ^= 1;
        assert!(drain(&bad).is_err());
        assert!(drain(&whole[..1538]).is_err());
    }
}
