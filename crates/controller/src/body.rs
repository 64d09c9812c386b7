//! Bodies: read with a bound on size and time, and written from files piece by piece.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use tokio::io::AsyncReadExt;

/// So long a sender may take for a whole body, and a reader for a piece of one.
const PATIENCE: Duration = Duration::from_secs(60);
/// Files go out in pieces of this size.
const PIECE: usize = 64 << 10;

/// Reads a body of at most `limit`. The sender's own claim of its size is looked at first: an
/// oversized body is refused without reading any of it.
pub(crate) async fn read(
    headers: &HeaderMap,
    body: Body,
    limit: model::Bytes,
) -> Result<Bytes, StatusCode> {
    let claimed = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok());
    if claimed.is_some_and(|c| c.parse::<u64>().is_ok_and(|c| c > limit.0)) {
        return Err(StatusCode::PAYLOAD_TOO_LARGE);
    }
    let limited = Limited::new(body, usize::try_from(limit.0).unwrap_or(usize::MAX));
    match tokio::time::timeout(PATIENCE, limited.collect()).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(e)) if e.is::<http_body_util::LengthLimitError>() => {
            Err(StatusCode::PAYLOAD_TOO_LARGE)
        }
        Ok(Err(_)) => Err(StatusCode::BAD_REQUEST),
        Err(_) => Err(StatusCode::REQUEST_TIMEOUT),
    }
}

/// So many bytes of a file, from where it stands.
pub(crate) fn from_file(file: std::fs::File, length: u64) -> Body {
    let (mut sender, body) = http_body_util::channel::Channel::<Bytes, std::io::Error>::new(2);
    tokio::spawn(async move {
        let mut rest = tokio::fs::File::from_std(file).take(length);
        loop {
            let mut piece = Vec::with_capacity(PIECE);
            let got = (&mut rest).take(PIECE as u64).read_to_end(&mut piece).await;
            match got {
                Ok(0) if rest.limit() == 0 => return,
                Ok(0) => return sender.abort(short_file()),
                Ok(_) => {}
                Err(e) => return sender.abort(e),
            }
            // A reader that takes nothing for so long is gone.
            let sent = tokio::time::timeout(PATIENCE, sender.send_data(piece.into())).await;
            if !matches!(sent, Ok(Ok(()))) {
                return;
            }
        }
    });
    Body::new(body)
}

fn short_file() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the file is shorter than it was")
}
