//! Redis' protocol, as far as a counter speaks it (RESP 2): commands as arrays of strings, replies that are one line or one string.

/// The longest line, and the longest string, of a reply.
const MAX_REPLY_BYTES: usize = 4096;

/// One reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Integer(i64),
    /// `OK` and the like, or a string.
    Text(String),
    Error(String),
    Null,
}

/// Bytes that are no reply to what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RespError {
    #[error("a reply of a kind that was not asked for")]
    Kind,
    #[error("a malformed reply")]
    Malformed,
    #[error("a reply of more than {MAX_REPLY_BYTES} bytes")]
    TooLong,
}

/// The first reply in the bytes, and how many bytes it takes; `None` while it is not complete.
pub fn parse(bytes: &[u8]) -> Result<Option<(Reply, usize)>, RespError> {
    let Some(kind) = bytes.first() else { return Ok(None) };
    if !matches!(kind, b':' | b'+' | b'-' | b'$') {
        return Err(RespError::Kind);
    }
    let Some(end) = bytes.iter().take(MAX_REPLY_BYTES).position(|byte| *byte == b'\n') else {
        return if bytes.len() < MAX_REPLY_BYTES { Ok(None) } else { Err(RespError::TooLong) };
    };
    let line = bytes[1..end].strip_suffix(b"\r").ok_or(RespError::Malformed)?;
    let line = std::str::from_utf8(line).map_err(|_| RespError::Malformed)?;
    let reply = match kind {
        b':' => Reply::Integer(line.parse().map_err(|_| RespError::Malformed)?),
        b'+' => Reply::Text(line.to_owned()),
        b'-' => Reply::Error(line.to_owned()),
        _ => return string(bytes, line, end + 1),
    };
    Ok(Some((reply, end + 1)))
}

/// A string of the length in its first line, which ends at `begin`.
fn string(bytes: &[u8], length: &str, begin: usize) -> Result<Option<(Reply, usize)>, RespError> {
    if length == "-1" {
        return Ok(Some((Reply::Null, begin)));
    }
    let length: usize = length.parse().map_err(|_| RespError::Malformed)?;
    if length > MAX_REPLY_BYTES {
        return Err(RespError::TooLong);
    }
    let end = begin + length;
    let Some(tail) = bytes.get(end..end + 2) else { return Ok(None) };
    if tail != b"\r\n" {
        return Err(RespError::Malformed);
    }
    let text = std::str::from_utf8(&bytes[begin..end]).map_err(|_| RespError::Malformed)?;
    Ok(Some((Reply::Text(text.to_owned()), end + 2)))
}

/// Appends a command.
pub(crate) fn command(out: &mut Vec<u8>, words: &[&str]) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
}

#[cfg(test)]
mod tests;
