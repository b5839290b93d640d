//! Parameters of a path: read decoded, and changed without touching the others.

use std::borrow::Cow;

use meltemi_http::ByteStr;

/// `%XX` decoded; what is no such pair of digits stays.
pub(crate) fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digit = |at: usize| after.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).unwrap_or_default());
                rest = &after[2..];
            }
            _ => {
                out.push(first);
                rest = after;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

/// The path without a parameter; the others stay as they are. `None` where it has none.
pub(crate) fn without(path: &str, name: &str) -> Option<ByteStr> {
    let (before, query) = path.split_once('?')?;
    let (query, fragment) = query.find('#').map_or((query, ""), |at| query.split_at(at));
    let kept: Vec<&str> =
        query.split('&').filter(|pair| decoded(pair.split('=').next().unwrap_or_default()) != *name).collect();
    let mark = if kept.is_empty() { "" } else { "?" };
    Some(ByteStr::from(format!("{before}{mark}{}{fragment}", kept.join("&"))))
}

/// The path with parameters set and others taken out.
pub(crate) fn changed(path: &str, set: &[(String, String)], remove: &[String]) -> ByteStr {
    let (path, fragment) = path.find('#').map_or((path, ""), |at| path.split_at(at));
    let (before, query) = path.split_once('?').unwrap_or((path, ""));
    let known = |pair: &&str| {
        let name = decoded(pair.split('=').next().unwrap_or_default());
        set.iter().map(|(name, _)| name).chain(remove).any(|other| *other == name)
    };
    let mut pairs: Vec<Cow<'_, str>> =
        query.split('&').filter(|pair| !pair.is_empty() && !known(pair)).map(Cow::Borrowed).collect();
    pairs.extend(set.iter().map(|(name, value)| Cow::Owned(format!("{}={}", encoded(name), encoded(value)))));
    let mark = if pairs.is_empty() { "" } else { "?" };
    ByteStr::from(format!("{before}{mark}{}{fragment}", pairs.join("&")))
}

/// Only what would end a parameter, or the path, is encoded.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && !matches!(byte, b'&' | b'=' | b'#' | b'%') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_taken_out_and_the_others_stay() {
        for (path, expected) in [
            ("/a?access_token=t", Some("/a")),
            ("/a?b=%26&access_token=t&c=", Some("/a?b=%26&c=")),
            ("/a?access%5Ftoken=t&access_token=u", Some("/a")),
            ("/a", None),
        ] {
            assert_eq!(without(path, "access_token").as_deref(), expected, "{path}");
        }
        assert_eq!(decoded("a%2Eb%2"), "a.b%2");
    }

    #[test]
    fn parameters_are_set_and_removed() {
        let set = [("b".to_owned(), "x&y".to_owned())];
        let remove = ["c".to_owned()];
        for (path, expected) in [("/a", "/a?b=x%26y"), ("/a?b=1&d=%41&c=2", "/a?d=%41&b=x%26y"), ("/a?c", "/a?b=x%26y")]
        {
            assert_eq!(&*changed(path, &set, &remove), expected, "{path}");
        }
        assert_eq!(&*changed("/a?c=1", &[], &remove), "/a");
    }
}
