//! Names of fields as an HTTP/1 peer wrote them, for another that minds (Envoy's `preserve_case`).
//!
//! Everywhere else a name is in lower case; the spelling travels beside the fields and is put back over the encoded head, which it
//! leaves as long as it was. Nothing is kept, and nothing is paid, where it is not asked for.

/// The names of one head that were not in lower case; the first spelling of each counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spelling {
    names: Box<[Box<[u8]>]>,
}

impl Spelling {
    /// Of a complete head: a first line, then fields. `None`: all lower case.
    pub(crate) fn of(head: &[u8]) -> Option<Self> {
        let mut names: Vec<Box<[u8]>> = Vec::new();
        for line in fields(head) {
            let name = &head[line];
            let known = names.iter().any(|known| known.eq_ignore_ascii_case(name));
            if !known && name.iter().any(u8::is_ascii_uppercase) {
                names.push(name.into());
            }
        }
        (!names.is_empty()).then(|| Self { names: names.into() })
    }

    /// Spells the names of an encoded head.
    pub(crate) fn restore(&self, head: &mut [u8]) {
        let found: Vec<_> = fields(head).collect();
        for at in found {
            let name = &mut head[at];
            if let Some(spelled) = self.names.iter().find(|spelled| spelled.eq_ignore_ascii_case(name)) {
                name.copy_from_slice(spelled);
            }
        }
    }
}

/// Where the names of a head's fields are.
fn fields(head: &[u8]) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
    let mut at = 0;
    let lines = std::iter::from_fn(move || {
        let end = at + head.get(at..)?.iter().position(|byte| *byte == b'\n')? + 1;
        let line = at..end;
        at = end;
        Some(line)
    });
    lines.skip(1).filter_map(|line| {
        let colon = head[line.clone()].iter().position(|byte| *byte == b':')?;
        Some(line.start..line.start + colon)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelled(from: &str, encoded: &str) -> String {
        let mut head = encoded.as_bytes().to_vec();
        if let Some(spelling) = Spelling::of(from.as_bytes()) {
            spelling.restore(&mut head);
        }
        String::from_utf8(head).unwrap()
    }

    #[test]
    fn names_are_spelled_as_they_came_and_nothing_else_is_touched() {
        let came = "GET /A:b HTTP/1.1\r\nHost: X\r\nX-TraceID: 1\r\nx-traceid: 2\r\nplain: Y\r\n\r\n";
        let sent =
            "GET /A:b HTTP/1.1\r\nhost: X\r\nx-traceid: 1\r\nx-added: Host: 1\r\nx-traceid: 2\r\nplain: Y\r\n\r\n";
        let spells =
            "GET /A:b HTTP/1.1\r\nHost: X\r\nX-TraceID: 1\r\nx-added: Host: 1\r\nX-TraceID: 2\r\nplain: Y\r\n\r\n";
        assert_eq!(spelled(came, sent), spells);
        assert_eq!(spelled("GET / HTTP/1.1\r\nhost: x\r\n\r\n", sent), sent);
        assert_eq!(Spelling::of(b"GET / HTTP/1.1\r\nhost: X\r\n\r\n"), None);
    }
}
