//! Data and fragment blocks: read in order, packed on all processors, written in order.
//!
//! The caller's thread reads and writes; workers pack. At most a few blocks for each worker are on
//! their way at any time, so that memory does not grow with the tree. A block whose content is kept
//! from an earlier image is neither read nor packed.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use model::Digest;
use sha2::{Digest as _, Sha256};

use super::number::STORED;
use super::pack::{Method, PackError, Packer};
use super::plan::{Plan, Unit};
use super::write::{Options, Source, WriteError};
use crate::tree::Contents;

/// Blocks that were packed before, by a key that stands for the content and the way of packing.
///
/// What [`Blocks::get`] gives must be what [`Blocks::put`] took: nothing checks it here.
pub trait Blocks {
    /// Finds a block. `into` gets its bytes and loses what it held.
    fn get(&mut self, key: &Digest, into: &mut Vec<u8>) -> Option<Form>;

    /// Keeps a block, or does not: that costs time, nothing else.
    fn put(&mut self, key: &Digest, form: Form, bytes: &[u8]);
}

/// How a block stands in an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Packed.
    Packed,
    /// As it is: packing would not make it smaller.
    Stored,
    /// Not at all: it is all zeroes.
    Hole,
}

/// Where a file's content came to lie.
#[derive(Debug, Clone, Default)]
pub(super) struct Placed {
    /// The first block.
    pub start: u64,
    /// Size of each block as the block list says it.
    pub sizes: Vec<u32>,
    /// Number of the fragment block and where it starts there.
    pub fragment: Option<(u32, u32)>,
    /// How many bytes are in holes.
    pub holes: u64,
}

/// A fragment block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fragment {
    pub start: u64,
    pub size: u32,
}

/// What was written.
#[derive(Debug, Default)]
pub(super) struct Data {
    /// For each file; those that are the same as an earlier one have nothing here.
    pub files: Vec<Placed>,
    pub fragments: Vec<Fragment>,
    /// Where the next byte goes.
    pub end: u64,
    /// How many blocks were written, and how many of them had been kept.
    pub blocks: u64,
    pub kept: u64,
}

/// Reads, packs and writes what the plan says; `at` is where `out` stands.
pub(super) fn write<C: Sync>(
    files: &[Source<'_, C>],
    plan: &Plan,
    contents: &dyn Contents<C>,
    options: &Options,
    kept: Option<&mut dyn Blocks>,
    (out, at): (&mut dyn Write, u64),
) -> Result<Data, WriteError> {
    let block = options.block_size()?;
    let threads = options.threads.get();
    let (jobs, waiting_jobs) = channel();
    let (done, finished) = channel();
    let waiting_jobs = Mutex::new(waiting_jobs);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (jobs, done) = (&waiting_jobs, done.clone());
            scope.spawn(move || work(options.method, block, jobs, &done));
        }
        drop(done);
        let data = Data { files: vec![Placed::default(); files.len()], end: at, ..Data::default() };
        // Its end closes the way to the workers, who then end.
        let mut line = Line {
            out,
            data,
            jobs,
            finished,
            queue: VecDeque::new(),
            first: 0,
            limit: in_flight(threads, block),
            spare: Vec::new(),
            kept,
            packing: format!("{} {block}", options.method.key()),
            block: block.into(),
        };
        for unit in &plan.units {
            match unit {
                Unit::Blocks(at) => line.file(*at, &files[*at], contents)?,
                Unit::Group(members) => line.group(members, files, contents)?,
            }
        }
        line.finish()
    })
}

/// How many blocks are on their way: enough for all workers, at most 64 MiB of them beyond that.
fn in_flight(threads: usize, block: u32) -> usize {
    let affordable = (64 << 20) / usize::try_from(block).unwrap_or(usize::MAX);
    (4 * threads + 4).min(affordable).max(2 * threads)
}

struct Job {
    number: u64,
    raw: Vec<u8>,
    /// Zeroes need not be written.
    may_be_hole: bool,
    /// For the result.
    into: Vec<u8>,
}

struct Done {
    number: u64,
    ready: Ready,
    spare: Vec<u8>,
}

struct Ready {
    form: Form,
    bytes: Vec<u8>,
    /// Length before packing.
    length: u64,
    kept: bool,
}

/// A block on its way, in the order of the image.
struct Waiting {
    /// `None` for the next fragment block.
    file: Option<usize>,
    key: Option<Digest>,
    ready: Option<Ready>,
}

fn work(
    method: Method,
    block: u32,
    jobs: &Mutex<Receiver<Job>>,
    done: &Sender<Result<Done, PackError>>,
) {
    let mut packer = match Packer::for_data(method, block) {
        Ok(packer) => packer,
        Err(error) => return drop(done.send(Err(error))),
    };
    loop {
        let Ok(jobs) = jobs.lock() else { return };
        let Ok(Job { number, raw, may_be_hole, mut into }) = jobs.recv() else { return };
        drop(jobs);
        let length = raw.len() as u64;
        let packed = if may_be_hole && is_zero(&raw) {
            into.clear();
            Ok((Form::Hole, into, raw))
        } else {
            packer.pack(&raw, &mut into).map(|shrunk| match shrunk {
                true => (Form::Packed, into, raw),
                false => (Form::Stored, raw, into),
            })
        };
        let packed = packed.map(|(form, bytes, spare)| {
            let ready = Ready { form, bytes, length, kept: false };
            Done { number, ready, spare }
        });
        if done.send(packed).is_err() {
            return; // nobody wants more
        }
    }
}

struct Line<'o, 'k> {
    out: &'o mut dyn Write,
    data: Data,
    jobs: Sender<Job>,
    finished: Receiver<Result<Done, PackError>>,
    queue: VecDeque<Waiting>,
    /// Number of the block at the head of the queue.
    first: u64,
    limit: usize,
    /// Buffers to use again.
    spare: Vec<Vec<u8>>,
    kept: Option<&'k mut dyn Blocks>,
    /// The way of packing, for keys.
    packing: String,
    block: u64,
}

impl Line<'_, '_> {
    fn file<C>(
        &mut self,
        at: usize,
        file: &Source<'_, C>,
        contents: &dyn Contents<C>,
    ) -> Result<(), WriteError> {
        let size = file.content.size.0;
        let mut reader: Option<Box<dyn Read + '_>> = None;
        let mut read = 0;
        for (number, start) in (0..size).step_by(usize_of(self.block)).enumerate() {
            let length = self.block.min(size - start);
            let key = file.digest.filter(|_| self.kept.is_some());
            let key = key.map(|digest| self.block_key(&digest, size, number as u64));
            let ready = self.find(key.as_ref(), length, true);
            if ready.is_some() {
                self.push(Waiting { file: Some(at), key, ready })?;
                continue;
            }
            let reader = match &mut reader {
                Some(reader) => reader,
                none => {
                    let opened = contents.open(&file.content.at);
                    none.insert(opened.map_err(|e| file.cannot_read(e))?)
                }
            };
            let skip = start - read;
            if skip > 0 {
                let skipped = io::copy(&mut reader.by_ref().take(skip), &mut io::sink());
                skipped.map_err(|e| file.cannot_read(e))?;
            }
            let mut raw = self.buffer();
            raw.resize(usize_of(length), 0);
            reader.read_exact(&mut raw).map_err(|e| file.cannot_read(e))?;
            read = start + length;
            self.submit(Waiting { file: Some(at), key, ready: None }, raw)?;
        }
        Ok(())
    }

    fn group<C>(
        &mut self,
        members: &[usize],
        files: &[Source<'_, C>],
        contents: &dyn Contents<C>,
    ) -> Result<(), WriteError> {
        let waiting = self.queue.iter().filter(|waiting| waiting.file.is_none()).count();
        let number = self.data.fragments.len() + waiting;
        let number = u32::try_from(number).map_err(|_| PackError::Metadata)?;
        let mut length = 0;
        for at in members {
            let offset = u32::try_from(length).map_err(|_| PackError::Metadata)?;
            self.data.files[*at].fragment = Some((number, offset));
            length += files[*at].content.size.0;
        }
        let all = members.iter().map(|at| &files[*at]);
        let key = self.kept.is_some().then(|| self.group_key(all.clone()));
        let ready = self.find(key.as_ref(), length, false);
        if ready.is_some() {
            return self.push(Waiting { file: None, key, ready });
        }
        let mut raw = self.buffer();
        raw.resize(usize_of(length), 0);
        let mut rest = raw.as_mut_slice();
        for file in all {
            let (here, later) = rest.split_at_mut(usize_of(file.content.size.0));
            let mut reader = contents.open(&file.content.at).map_err(|e| file.cannot_read(e))?;
            reader.read_exact(here).map_err(|e| file.cannot_read(e))?;
            rest = later;
        }
        self.submit(Waiting { file: None, key, ready: None }, raw)
    }

    fn finish(mut self) -> Result<Data, WriteError> {
        while !self.queue.is_empty() {
            self.take_one()?;
        }
        Ok(self.data)
    }

    fn block_key(&self, digest: &Digest, size: u64, number: u64) -> Digest {
        let hash = Sha256::new_with_prefix(self.packing.as_bytes()).chain_update(b"\0block");
        let hash = hash.chain_update(digest.0).chain_update(size.to_le_bytes());
        Digest(hash.chain_update(number.to_le_bytes()).finalize().into())
    }

    fn group_key<'s, C: 's>(&self, files: impl Iterator<Item = &'s Source<'s, C>>) -> Digest {
        let mut hash = Sha256::new_with_prefix(self.packing.as_bytes()).chain_update(b"\0group");
        for file in files {
            // The plan makes groups of files with known digests only.
            hash.update(file.digest.map(|digest| digest.0).unwrap_or_default());
            hash.update(file.content.size.0.to_le_bytes());
        }
        Digest(hash.finalize().into())
    }

    /// A kept block that can be what we look for.
    fn find(&mut self, key: Option<&Digest>, length: u64, may_be_hole: bool) -> Option<Ready> {
        let key = key?;
        let mut bytes = self.buffer();
        let form = self.kept.as_mut()?.get(key, &mut bytes);
        let packed = bytes.len() as u64;
        let fits = form.is_some_and(|form| match form {
            Form::Packed => packed > 0 && packed < length,
            Form::Stored => packed == length,
            Form::Hole => may_be_hole && packed == 0,
        });
        match form.filter(|_| fits) {
            Some(form) => Some(Ready { form, bytes, length, kept: true }),
            None => {
                self.spare.push(bytes);
                None
            }
        }
    }

    fn submit(&mut self, waiting: Waiting, raw: Vec<u8>) -> Result<(), WriteError> {
        let may_be_hole = waiting.file.is_some();
        self.push(waiting)?;
        // It is in the queue: nothing with no result yet is ever taken out.
        let number = self.first + self.queue.len() as u64 - 1;
        let into = self.buffer();
        let job = Job { number, raw, may_be_hole, into };
        // Workers end early only with an error, which the results tell.
        let _ = self.jobs.send(job);
        Ok(())
    }

    fn push(&mut self, waiting: Waiting) -> Result<(), WriteError> {
        while self.queue.len() >= self.limit {
            self.take_one()?;
        }
        self.queue.push_back(waiting);
        self.write_ready()
    }

    /// Waits for a result, if the head of the queue has none.
    fn take_one(&mut self) -> Result<(), WriteError> {
        if self.queue.front().is_some_and(|head| head.ready.is_none()) {
            let gone = || io::Error::other("all threads that pack blocks have ended");
            let done = self.finished.recv().map_err(|_| WriteError::Threads(gone()))??;
            self.spare.push(done.spare);
            let at = usize_of(done.number - self.first);
            if let Some(waiting) = self.queue.get_mut(at) {
                waiting.ready = Some(done.ready);
            }
        }
        self.write_ready()
    }

    fn write_ready(&mut self) -> Result<(), WriteError> {
        while self.queue.front().is_some_and(|head| head.ready.is_some()) {
            let Some(Waiting { file, key, ready: Some(ready) }) = self.queue.pop_front() else {
                break;
            };
            self.first += 1;
            self.write(file, key, ready)?;
        }
        Ok(())
    }

    fn write(
        &mut self,
        file: Option<usize>,
        key: Option<Digest>,
        ready: Ready,
    ) -> Result<(), WriteError> {
        let size = u32::try_from(ready.bytes.len()).map_err(|_| PackError::Metadata)?;
        let size = match ready.form {
            Form::Packed | Form::Hole => size,
            Form::Stored => size | STORED,
        };
        let start = self.data.end;
        match file.map(|at| &mut self.data.files[at]) {
            Some(placed) => {
                // Holes are nowhere: the first block that is somewhere is the start.
                if placed.holes == placed.sizes.len() as u64 * self.block {
                    placed.start = start;
                }
                placed.sizes.push(size);
                placed.holes += if ready.form == Form::Hole { ready.length } else { 0 };
            }
            None => self.data.fragments.push(Fragment { start, size }),
        }
        self.out.write_all(&ready.bytes).map_err(WriteError::Write)?;
        self.data.end += ready.bytes.len() as u64;
        self.data.blocks += 1;
        self.data.kept += u64::from(ready.kept);
        if let (Some(key), Some(kept), false) = (key, &mut self.kept, ready.kept) {
            kept.put(&key, ready.form, &ready.bytes);
        }
        self.spare.push(ready.bytes);
        Ok(())
    }

    fn buffer(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }
}

/// Compares pages, which is much faster than bytes.
fn is_zero(raw: &[u8]) -> bool {
    const PAGE: [u8; 4096] = [0; 4096];
    raw.chunks(PAGE.len()).all(|piece| *piece == PAGE[..piece.len()])
}

/// Blocks are at most 1 MiB.
fn usize_of(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}
