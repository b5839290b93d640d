//! Connections of gRPC's C core (Python, Ruby, PHP, C++) over a Unix socket, made readable for our gRPC server.
//!
//! The C core names the socket's path as the authority, with each slash as `%2F`. RFC 3986 allows that in a host, but the library that
//! reads requests here ends the stream with a protocol error. What passes through is therefore looked at frame by frame, and in the
//! authority of a HEADERS frame `%` becomes `-`, which changes no length. Nothing here asks for the authority. Costs one copy.

#[cfg(test)]
mod tests;

use std::io;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream};
use tokio::net::UnixStream;

/// RFC 9113 section 3.4.
const PREFACE_BYTES: usize = 24;
const HEADER_BYTES: usize = 9;
/// The largest frame that a client may send who was told nothing else (RFC 9113 section 6.5.2).
const MAX_FRAME_BYTES: usize = 16 * 1024;
const HEADERS: u8 = 1;
/// A literal field with a new name that is not compressed, as the C core writes it (RFC 7541 section 6.2.1).
const FIELD: &[u8] = b"\x40\x0a:authority";
/// Frames that wait for the server.
const BUFFER_BYTES: usize = 64 * 1024;

/// The connection as the server is to see it. The work is done beside it and ends with either side.
pub(super) fn mended(connection: UnixStream) -> DuplexStream {
    let (near, far) = tokio::io::duplex(BUFFER_BYTES);
    tokio::spawn(async move {
        let (mut from_client, mut to_client) = connection.into_split();
        let (mut from_server, mut to_server) = tokio::io::split(far);
        // Whatever the reason, the connection is over.
        tokio::select! {
            _ = forward(&mut from_client, &mut to_server) => {}
            _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
        }
    });
    near
}

async fn forward(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    let mut frame = vec![0; PREFACE_BYTES];
    from.read_exact(&mut frame).await?;
    to.write_all(&frame).await?;
    loop {
        frame.resize(HEADER_BYTES, 0);
        from.read_exact(&mut frame).await?;
        let length = u32::from_be_bytes([0, frame[0], frame[1], frame[2]]);
        let length = usize::try_from(length).ok().filter(|length| *length <= MAX_FRAME_BYTES);
        let length = length.ok_or_else(|| io::Error::other("a frame that is too large"))?;
        frame.resize(HEADER_BYTES + length, 0);
        from.read_exact(&mut frame[HEADER_BYTES..]).await?;
        if frame[3] == HEADERS {
            mend(&mut frame[HEADER_BYTES..]);
        }
        to.write_all(&frame).await?;
    }
}

/// Of a block of fields: the authority, if it is written as the C core does.
pub fn mend(block: &mut [u8]) {
    let Some(start) = block.windows(FIELD.len()).position(|window| window == FIELD) else { return };
    let Some((from, length)) = text(&block[start + FIELD.len()..]) else { return };
    let value = block.get_mut(start + FIELD.len() + from..).and_then(|rest| rest.get_mut(..length));
    for byte in value.unwrap_or_default().iter_mut().filter(|byte| **byte == b'%') {
        *byte = b'-';
    }
}

/// Where a text that is not compressed begins, and its length (RFC 7541 sections 5.1 and 5.2).
fn text(bytes: &[u8]) -> Option<(usize, usize)> {
    let first = usize::from(*bytes.first()?);
    match first {
        0..0x7f => Some((1, first)),
        // A path of a socket has at most 108 bytes, of which each may become three.
        0x7f => {
            let more = usize::from(*bytes.get(1)?);
            let high = if more & 0x80 == 0 { 0 } else { usize::from(*bytes.get(2)?) << 7 };
            Some((if high == 0 { 2 } else { 3 }, 0x7f + (more & 0x7f) + high))
        }
        _ => None,
    }
}
