//! The PROXY protocol, versions 1 and 2 (haproxy's `proxy-protocol.txt`): who a connection is really from.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Longest v1 line with its CRLF.
const MAX_V1: usize = 107;
/// Longest v2 header accepted, with its TLVs; Envoy's limit is the same order.
const MAX_V2: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Addresses {
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

/// What the first bytes of a connection turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A header of `len` bytes. `addresses` is `None` for LOCAL, UNKNOWN and unspecified families: use the socket's own.
    Header {
        len: usize,
        addresses: Option<Addresses>,
    },
    Incomplete,
    /// Not the PROXY protocol at all.
    Absent,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("PROXY protocol: {0}")]
pub struct Invalid(&'static str);

pub fn parse(bytes: &[u8]) -> Result<Parsed, Invalid> {
    let n = bytes.len().min(SIGNATURE.len());
    if bytes[..n] == SIGNATURE[..n] {
        return if n < SIGNATURE.len() { Ok(Parsed::Incomplete) } else { parse_v2(bytes) };
    }
    let n = bytes.len().min(6);
    if bytes[..n] == b"PROXY "[..n] {
        return if n < 6 { Ok(Parsed::Incomplete) } else { parse_v1(bytes) };
    }
    Ok(Parsed::Absent)
}

fn parse_v1(bytes: &[u8]) -> Result<Parsed, Invalid> {
    let window = &bytes[..bytes.len().min(MAX_V1)];
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() >= MAX_V1 { Err(Invalid("line too long")) } else { Ok(Parsed::Incomplete) };
    };
    let line = std::str::from_utf8(&window[..end]).map_err(|_| Invalid("not text"))?;
    let len = end + 2;
    let mut words = line.split(' ').skip(1);
    let family = words.next().ok_or(Invalid("no family"))?;
    if family == "UNKNOWN" {
        return Ok(Parsed::Header { len, addresses: None });
    }
    let mut word = || words.next().ok_or(Invalid("missing field"));
    let (source, destination, source_port, destination_port) = (word()?, word()?, word()?, word()?);
    if words.next().is_some() {
        return Err(Invalid("extra field"));
    }
    let address = |ip: &str, port: &str| -> Result<SocketAddr, Invalid> {
        let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        let port: u16 = port.parse().ok().filter(|_| digits).ok_or(Invalid("port"))?;
        match family {
            "TCP4" => Ok((ip.parse::<Ipv4Addr>().map_err(|_| Invalid("address"))?, port).into()),
            "TCP6" => Ok((ip.parse::<Ipv6Addr>().map_err(|_| Invalid("address"))?, port).into()),
            _ => Err(Invalid("family")),
        }
    };
    let addresses =
        Addresses { source: address(source, source_port)?, destination: address(destination, destination_port)? };
    Ok(Parsed::Header { len, addresses: Some(addresses) })
}

fn parse_v2(bytes: &[u8]) -> Result<Parsed, Invalid> {
    let Some(&[version_command, family, high, low]) = bytes.get(12..16).and_then(|b| b.first_chunk::<4>()) else {
        return Ok(Parsed::Incomplete);
    };
    let len = 16 + usize::from(u16::from_be_bytes([high, low]));
    if version_command >> 4 != 2 {
        return Err(Invalid("version"));
    }
    if len > MAX_V2 {
        return Err(Invalid("header too long"));
    }
    let local = match version_command & 0xf {
        0 => true,
        1 => false,
        _ => return Err(Invalid("command")),
    };
    let Some(body) = bytes.get(16..len) else { return Ok(Parsed::Incomplete) };
    if local {
        return Ok(Parsed::Header { len, addresses: None });
    }
    let addresses = match family {
        0x11 => {
            let b = body.first_chunk::<12>().ok_or(Invalid("address block too short"))?;
            let ip = |at: usize| Ipv4Addr::new(b[at], b[at + 1], b[at + 2], b[at + 3]);
            Some(Addresses {
                source: (ip(0), u16::from_be_bytes([b[8], b[9]])).into(),
                destination: (ip(4), u16::from_be_bytes([b[10], b[11]])).into(),
            })
        }
        0x21 => {
            let b = body.first_chunk::<36>().ok_or(Invalid("address block too short"))?;
            let ip = |at: usize| {
                let mut octets = [0; 16];
                octets.copy_from_slice(&b[at..at + 16]);
                Ipv6Addr::from(octets)
            };
            Some(Addresses {
                source: (ip(0), u16::from_be_bytes([b[32], b[33]])).into(),
                destination: (ip(16), u16::from_be_bytes([b[34], b[35]])).into(),
            })
        }
        0x00 | 0x12 | 0x22 | 0x31 | 0x32 => None,
        _ => return Err(Invalid("family")),
    };
    Ok(Parsed::Header { len, addresses })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    V1,
    V2,
}

/// The header of a connection that we have opened, for somebody or, without `addresses`, for ourselves: version 2 can say so,
/// version 1 names the connection's own ends.
pub fn encode(version: Version, addresses: Option<&Addresses>, stream: &crate::Stream) -> Vec<u8> {
    match (version, addresses) {
        (Version::V1, Some(addresses)) => encode_v1(addresses),
        (Version::V2, Some(addresses)) => encode_v2(addresses),
        (Version::V1, None) => match (stream.local_addr().socket(), stream.peer_addr().socket()) {
            (Some(source), Some(destination)) => encode_v1(&Addresses { source, destination }),
            _ => b"PROXY UNKNOWN\r\n".to_vec(),
        },
        (Version::V2, None) => {
            let mut local = SIGNATURE.to_vec();
            local.extend_from_slice(&[0x20, 0, 0, 0]);
            local
        }
    }
}

/// A version 2 header for a connection we open on behalf of `addresses.source`.
pub fn encode_v2(addresses: &Addresses) -> Vec<u8> {
    let mut out = SIGNATURE.to_vec();
    out.push(0x21);
    match (addresses.source, addresses.destination) {
        (SocketAddr::V4(source), SocketAddr::V4(destination)) => {
            out.extend_from_slice(&[0x11, 0, 12]);
            out.extend_from_slice(&source.ip().octets());
            out.extend_from_slice(&destination.ip().octets());
        }
        (source, destination) => {
            let v6 = |ip: std::net::IpAddr| match ip {
                std::net::IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                std::net::IpAddr::V6(v6) => v6.octets(),
            };
            out.extend_from_slice(&[0x21, 0, 36]);
            out.extend_from_slice(&v6(source.ip()));
            out.extend_from_slice(&v6(destination.ip()));
        }
    }
    out.extend_from_slice(&addresses.source.port().to_be_bytes());
    out.extend_from_slice(&addresses.destination.port().to_be_bytes());
    out
}

/// A version 1 line for the same purpose.
pub fn encode_v1(addresses: &Addresses) -> Vec<u8> {
    let (source, destination) = (addresses.source, addresses.destination);
    let family = if source.is_ipv4() && destination.is_ipv4() { "TCP4" } else { "TCP6" };
    format!("PROXY {family} {} {} {} {}\r\n", source.ip(), destination.ip(), source.port(), destination.port())
        .into_bytes()
}

#[cfg(test)]
mod tests;
