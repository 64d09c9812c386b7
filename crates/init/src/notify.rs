//! Listening to services: the sd_notify protocol (sd_notify(3)), with the sender's process id taken
//! from the kernel and not from the message.

use std::fs;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// Where services send to.
pub(crate) const SOCKET: &str = "/run/eve/notify";

/// What a service may say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    /// `READY=1`
    Ready,
    /// `WATCHDOG=1`
    Alive,
    /// `STATUS=…`
    Status(String),
}

/// The socket.
#[derive(Debug)]
pub(crate) struct Notify(UnixDatagram);

impl Notify {
    /// Opens the socket for every user of the node: who may speak is decided by process.
    pub(crate) fn listen() -> io::Result<Notify> {
        let _ = fs::remove_file(SOCKET);
        let socket = UnixDatagram::bind(SOCKET)?;
        fs::set_permissions(SOCKET, fs::Permissions::from_mode(0o666))?;
        rustix::net::sockopt::set_socket_passcred(&socket, true)?;
        socket.set_nonblocking(true)?;
        Ok(Notify(socket))
    }

    /// Everything said since the last call, and by which process.
    pub(crate) fn take(&self) -> Vec<(i32, Said)> {
        let mut all = Vec::new();
        // Bounded: a service that talks without end must not keep us from our work.
        for _ in 0..256 {
            let mut text = [0_u8; 2048];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut parts = [IoSliceMut::new(&mut text)];
            let got = recvmsg(&self.0, &mut parts, &mut control, RecvFlags::DONTWAIT);
            let Ok(message) = got else { break };
            let sender = control.drain().find_map(|part| match part {
                RecvAncillaryMessage::ScmCredentials(who) => Some(who.pid.as_raw_nonzero().get()),
                _ => None,
            });
            if let Some(pid) = sender {
                all.extend(parse(&text[..message.bytes.min(2048)]).into_iter().map(|s| (pid, s)));
            }
        }
        all
    }
}

impl AsFd for Notify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn parse(message: &[u8]) -> Vec<Said> {
    String::from_utf8_lossy(message)
        .lines()
        .filter_map(|line| match line.split_once('=')? {
            ("READY", "1") => Some(Said::Ready),
            ("WATCHDOG", "1") => Some(Said::Alive),
            ("STATUS", text) => Some(Said::Status(text.chars().take(500).collect())),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_services_say_and_nothing_else() {
        assert_eq!(
            parse(b"READY=1\nSTATUS=up\nMAINPID=1"),
            [Said::Ready, Said::Status("up".to_owned())]
        );
        assert_eq!(parse(b"WATCHDOG=1"), [Said::Alive]);
        assert_eq!(parse(b"WATCHDOG=trigger"), []);
        assert_eq!(parse(b"\xff\xfe"), []);
    }
}
