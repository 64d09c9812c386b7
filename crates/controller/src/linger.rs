//! The end of a connection whose other side may still be sending.
//!
//! An answer that comes before all of a body was read (too large, not allowed, a piece that is there
//! already) must reach who sends it. Closing with bytes unread makes the kernel send a reset, and
//! that lets the other side's kernel throw away the answer (RFC 9112 section 9.6). So the writing
//! half is closed first, and what still comes is thrown away for a while.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// So long the other side may take to see that nobody reads any more.
const PATIENCE: Duration = Duration::from_secs(3);
/// Thrown away at a time.
const PIECE: usize = 16 << 10;

/// A stream whose shutdown waits for the other side's end, for three seconds at most.
pub(crate) struct Linger<S> {
    stream: S,
    /// From when its writing half is closed.
    until: Option<Pin<Box<Sleep>>>,
}

impl<S> Linger<S> {
    pub(crate) fn new(stream: S) -> Linger<S> {
        Linger { stream, until: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Linger<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Linger<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Linger { stream, until } = &mut *self;
        if until.is_none() {
            ready!(Pin::new(&mut *stream).poll_shutdown(cx))?;
        }
        let until = until.get_or_insert_with(|| Box::pin(tokio::time::sleep(PATIENCE)));
        let mut scratch = [std::mem::MaybeUninit::<u8>::uninit(); PIECE];
        loop {
            if until.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut piece = ReadBuf::uninit(&mut scratch);
            match ready!(Pin::new(&mut *stream).poll_read(cx, &mut piece)) {
                Ok(()) if !piece.filled().is_empty() => {}
                // Its end, or a reset: nobody is there to be answered.
                Ok(()) | Err(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// What a sender of 8 MiB, who reads only then, finds of the answer given at once.
    async fn found<S: AsyncRead + AsyncWrite + Unpin>(
        serve: impl FnOnce(TcpStream) -> S,
    ) -> io::Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let sends = async {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(&vec![7; 8 << 20]).await?;
            stream.shutdown().await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            Ok(answer)
        };
        let answers = async {
            let mut stream = serve(listener.accept().await.unwrap().0);
            stream.read_exact(&mut [0; 100]).await.unwrap();
            stream.write_all(b"no").await.unwrap();
            stream.shutdown().await.unwrap();
        };
        tokio::join!(sends, answers).0
    }

    #[tokio::test]
    async fn who_still_sends_sees_the_answer() {
        assert_eq!(found(Linger::new).await.unwrap(), "no");
        assert!(found(|plain| plain).await.is_err(), "it takes more than a close");
    }

    #[tokio::test]
    async fn who_never_ends_is_left() {
        let (mut far, near) = tokio::io::duplex(64);
        let mut near = Linger::new(near);
        let sends = async { while far.write_all(&[7; 64]).await.is_ok() {} };
        let ends = async {
            tokio::time::timeout(PATIENCE * 4, near.shutdown()).await.unwrap().unwrap();
            drop(near);
        };
        tokio::join!(sends, ends);
    }
}
