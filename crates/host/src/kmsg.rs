//! The kernel's log, record by record.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The kernel never hands out more at once (CONSOLE_EXT_LOG_MAX).
const RECORD_MAX: usize = 8192;

/// `/dev/kmsg`, read from its oldest record on.
#[derive(Debug)]
pub struct Kmsg {
    log: AsyncFd<OwnedFd>,
    record: [u8; RECORD_MAX],
}

/// What came.
#[derive(Debug)]
pub enum Record<'a> {
    /// A record as the kernel writes it (Documentation/ABI/testing/dev-kmsg).
    Text(&'a [u8]),
    /// Records were overwritten before we came to read them.
    Lost,
}

impl Kmsg {
    /// Opens it; that may need CAP_SYSLOG.
    pub fn open() -> io::Result<Kmsg> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::open("/dev/kmsg", flags, Mode::empty())?;
        // SAFETY: the AsyncFd owns the descriptor: it is open as long as it is registered.
        #[expect(unsafe_code, reason = "tokio's registration asks for it")]
        let log = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?;
        Ok(Kmsg { log, record: [0; RECORD_MAX] })
    }

    /// Waits for the next record.
    pub async fn next(&mut self) -> io::Result<Record<'_>> {
        loop {
            let mut ready = self.log.readable().await?;
            let record = &mut self.record;
            match ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), record)?)) {
                Ok(Ok(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(Ok(got)) => return Ok(Record::Text(&self.record[..got])),
                Ok(Err(e)) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(Record::Lost),
                Ok(Err(e)) => return Err(e),
                Err(_would_block) => {}
            }
        }
    }
}
