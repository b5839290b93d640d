//! Recognising TLS and HTTP by their first bytes, to choose a filter chain.
//!
//! Pure functions over what has been read so far. Strict where a field is used (lengths, SNI, ALPN), indifferent elsewhere:
//! the handshake itself is rustls's to judge.

/// The verdict on a prefix of a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Sniffed<T> {
    /// More bytes are needed.
    Incomplete,
    /// It is something else, and no further byte can change that.
    No,
    Yes(T),
}

/// What a TLS client said about itself.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct ClientHello {
    /// Lower case.
    pub server_name: Option<String>,
    pub alpn: Vec<Vec<u8>>,
}

/// The HTTP version of a plaintext connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpVersion {
    Http10,
    Http11,
    Http2,
}

pub const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Envoy's tls_inspector reads at most this much.
pub const MAX_CLIENT_HELLO: usize = 16 * 1024;

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }

    fn number(&mut self, bytes: usize) -> Option<usize> {
        Some(self.take(bytes)?.iter().fold(0, |n, byte| n << 8 | usize::from(*byte)))
    }

    /// A field with a length in front.
    fn vector(&mut self, length_bytes: usize) -> Option<Self> {
        let n = self.number(length_bytes)?;
        self.take(n).map(Self)
    }
}

/// Reads a ClientHello that may be split over several TLS records.
pub fn client_hello(bytes: &[u8]) -> Sniffed<ClientHello> {
    let mut handshake = Vec::new();
    let mut rest = bytes;
    loop {
        if rest.first().is_some_and(|kind| *kind != 22) || rest.get(1).is_some_and(|major| *major != 3) {
            return Sniffed::No;
        }
        let Some(&[_, _, _, high, low]) = rest.first_chunk::<5>() else { return Sniffed::Incomplete };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length == 0 || length > MAX_CLIENT_HELLO {
            return Sniffed::No;
        }
        let fragment = &rest[5..rest.len().min(5 + length)];
        if handshake.is_empty() && fragment.first().is_some_and(|kind| *kind != 1) {
            return Sniffed::No;
        }
        handshake.extend_from_slice(fragment);
        if let Some(&[_, a, b, c]) = handshake.first_chunk::<4>() {
            let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            if length > MAX_CLIENT_HELLO {
                return Sniffed::No;
            }
            if let Some(body) = handshake.get(4..4 + length) {
                return parse_hello(body).map_or(Sniffed::No, Sniffed::Yes);
            }
        }
        if fragment.len() < length {
            return Sniffed::Incomplete;
        }
        rest = &rest[5 + length..];
    }
}

/// Reads a ClientHello that comes without records, as in QUIC: `None` when more is needed, an inner `None` when it is none.
pub fn handshake_hello(bytes: &[u8]) -> Option<Option<ClientHello>> {
    let Some(&[kind, a, b, c]) = bytes.first_chunk::<4>() else {
        return bytes.first().is_some_and(|kind| *kind != 1).then_some(None);
    };
    let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
    if kind != 1 || length > MAX_CLIENT_HELLO {
        return Some(None);
    }
    bytes.get(4..4 + length).map(parse_hello)
}

fn parse_hello(body: &[u8]) -> Option<ClientHello> {
    let mut hello = ClientHello::default();
    let mut reader = Reader(body);
    reader.take(2 + 32)?;
    reader.vector(1)?;
    reader.vector(2)?;
    reader.vector(1)?;
    if reader.0.is_empty() {
        return Some(hello);
    }
    let mut extensions = reader.vector(2)?;
    while !extensions.0.is_empty() {
        let kind = extensions.number(2)?;
        let mut data = extensions.vector(2)?;
        match kind {
            0 => hello.server_name = server_name(data.vector(2)?),
            16 => {
                let mut names = data.vector(2)?;
                while !names.0.is_empty() {
                    hello.alpn.push(names.vector(1)?.0.to_vec());
                }
            }
            _ => {}
        }
    }
    Some(hello)
}

fn server_name(mut list: Reader<'_>) -> Option<String> {
    let kind = list.number(1)?;
    let name = std::str::from_utf8(list.vector(2)?.0).ok()?;
    let valid = kind == 0 && !name.is_empty() && name.len() <= 255 && name.bytes().all(|b| b.is_ascii_graphic());
    valid.then(|| name.to_ascii_lowercase())
}

/// Decides by the HTTP/2 preface or a complete HTTP/1 request line.
pub fn http(bytes: &[u8]) -> Sniffed<HttpVersion> {
    let n = bytes.len().min(H2_PREFACE.len());
    if bytes[..n] == H2_PREFACE[..n] {
        // The preface's first line cannot be a valid HTTP/1 request, so 16 bytes of it decide.
        return if n >= 16 { Sniffed::Yes(HttpVersion::Http2) } else { Sniffed::Incomplete };
    }
    let method = bytes.iter().position(|b| !b.is_ascii_uppercase() && *b != b'-' && *b != b'_');
    match method {
        Some(0) => return Sniffed::No,
        Some(n) if n > 32 || bytes[n] != b' ' => return Sniffed::No,
        None if bytes.len() > 32 => return Sniffed::No,
        None => return Sniffed::Incomplete,
        Some(_) => {}
    }
    let Some(end) = bytes.iter().position(|b| *b == b'\n') else { return Sniffed::Incomplete };
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    if line.ends_with(b" HTTP/1.1") {
        Sniffed::Yes(HttpVersion::Http11)
    } else if line.ends_with(b" HTTP/1.0") {
        Sniffed::Yes(HttpVersion::Http10)
    } else {
        Sniffed::No
    }
}

#[cfg(test)]
mod tests;
