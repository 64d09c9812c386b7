//! A port of this machine that leads into a guest, and asking a web page through it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::error::QemuError;

/// A page may not be larger: these are health checks and hello pages.
const PAGE_MAX: u64 = 1 << 20;

/// A port of this machine that leads to a port of the guest.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Forward {
    /// Where this machine listens.
    pub at: SocketAddr,
    /// The guest's port.
    pub guest_port: u16,
}

/// A web server's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The HTTP status.
    pub status: u16,
    /// The body, text or not, with replacement characters.
    pub body: String,
}

impl Forward {
    /// From this machine's loopback only.
    pub fn local(port: u16, guest_port: u16) -> Forward {
        Forward { at: ([127, 0, 0, 1], port).into(), guest_port }
    }

    /// Whether nobody else listens there now.
    pub fn check_free(&self) -> Result<(), QemuError> {
        let (port, address) = (self.at.port(), self.at.ip());
        match TcpListener::bind(self.at) {
            Ok(_) => Ok(()),
            Err(source) => Err(QemuError::PortTaken { port, address, source }),
        }
    }

    /// Asks for `path` by plain HTTP, once. QEMU accepts a connection even if nobody listens in
    /// the guest, so only an answer proves anything.
    pub fn get(&self, path: &str, limit: Duration) -> io::Result<Page> {
        let until = Instant::now() + limit;
        let mut stream = TcpStream::connect_timeout(&self.at, limit)?;
        stream.set_write_timeout(Some(limit))?;
        let host = self.at;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        let mut chunk = [0_u8; 4096];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            stream.set_read_timeout(Some(left))?;
            let n = (&stream).take(PAGE_MAX).read(&mut chunk)?;
            if n == 0 {
                return parse(&answer);
            }
            answer.extend_from_slice(&chunk[..n]);
            if answer.len() as u64 > PAGE_MAX {
                return Err(io::Error::other("the page is larger than 1 MiB"));
            }
        }
    }
}

fn parse(answer: &[u8]) -> io::Result<Page> {
    let no = || io::Error::new(io::ErrorKind::InvalidData, "not an HTTP answer");
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(no)?;
    let status = head.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).ok_or_else(no)?;
    Ok(Page { status: status.parse().map_err(|_| no())?, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_status_and_a_body() {
        let page = parse(b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\nok\n").unwrap();
        assert_eq!(page, Page { status: 200, body: "ok\n".into() });
    }

    #[test]
    fn nonsense_is_an_error_not_a_panic() {
        for nonsense in
            ["", "HTTP/1.", "HTTP/1.1 2\r\n\r\n", "SSH-2.0\r\n\r\n", "HTTP/1.é00\r\n\r\n"]
        {
            assert!(parse(nonsense.as_bytes()).is_err(), "{nonsense}");
        }
    }

    #[test]
    fn a_taken_port_is_named() {
        let other = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = other.local_addr().unwrap().port();
        let error = Forward::local(port, 80).check_free().unwrap_err();
        assert!(error.to_string().contains(&format!("port {port} on 127.0.0.1")), "{error}");
    }
}
