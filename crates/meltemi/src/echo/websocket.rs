//! WebSocket (RFC 6455), as much as an echo needs: every message comes back, pings are answered, a close is returned.

use base64::Engine;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::sha1;

#[cfg(test)]
mod tests;

const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const MAX_FRAME: u64 = 1 << 20;
const OPCODE: u8 = 0x0F;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

/// `Sec-WebSocket-Accept` for a client's key.
pub fn accept(key: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(sha1::digest(format!("{key}{GUID}").as_bytes()))
}

/// Echoes until the client closes or breaks the protocol.
pub async fn serve(upgraded: Upgraded) {
    let mut stream = TokioIo::new(upgraded);
    while let Ok((head, payload)) = read_frame(&mut stream).await {
        let reply = match head & OPCODE {
            PONG => continue,
            PING => (head & !OPCODE) | PONG,
            _ => head,
        };
        let written = stream.write_all(&frame(reply, &payload)).await;
        if written.is_err() || stream.flush().await.is_err() || head & OPCODE == CLOSE {
            break;
        }
    }
    let _ = stream.shutdown().await;
}

/// One frame's first byte and its payload, unmasked. A client must mask; a frame beyond [`MAX_FRAME`] is an error.
async fn read_frame(stream: &mut (impl AsyncReadExt + Unpin)) -> std::io::Result<(u8, Vec<u8>)> {
    let invalid = || std::io::Error::from(std::io::ErrorKind::InvalidData);
    let head = stream.read_u8().await?;
    let second = stream.read_u8().await?;
    let length = match second & 0x7F {
        126 => u64::from(stream.read_u16().await?),
        127 => stream.read_u64().await?,
        short => u64::from(short),
    };
    if second & 0x80 == 0 || length > MAX_FRAME || head & 0x70 != 0 {
        return Err(invalid());
    }
    let mut mask = [0; 4];
    stream.read_exact(&mut mask).await?;
    let mut payload = vec![0; usize::try_from(length).map_err(|_| invalid())?];
    stream.read_exact(&mut payload).await?;
    for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    Ok((head, payload))
}

/// A server's frame: not masked.
fn frame(head: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![head];
    match payload.len() {
        length @ 0..126 => frame.push(length as u8),
        length @ 126..65_536 => {
            frame.push(126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}
