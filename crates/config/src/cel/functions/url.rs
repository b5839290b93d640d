//! URLs, as Go reads those of requests: absolute, or a path from the root.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cel::evaluate::{Budget, Failure, Outcome};
use crate::cel::value::{Key, Value};
use crate::names::escapes_are_whole;

pub(super) const FUNCTIONS: &[&str] = &["isURL", "url"];
pub(super) const METHODS: &[&str] = &["getEscapedPath", "getHost", "getHostname", "getPort", "getQuery", "getScheme"];

/// The parts of a URL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Url {
    pub text: String,
    /// In lower case; empty if it has none.
    pub scheme: String,
    /// With its port.
    pub host: String,
    pub path: String,
    pub query: String,
}

pub(super) fn function(name: &str, arguments: &[Value], _: &Budget) -> Option<Outcome> {
    let [Value::Text(text)] = arguments else { return None };
    let url = Url::parse(text);
    Some(match name {
        "isURL" => Ok(Value::Bool(url.is_some())),
        _ => match url {
            Some(url) => Ok(Value::Url(Arc::new(url))),
            None => Err(Failure(format!("URL parse error during conversion from string: {text:?} is no URL"))),
        },
    })
}

pub(super) fn method(name: &str, arguments: &[Value], _: &Budget) -> Option<Outcome> {
    let [Value::Url(url)] = arguments else { return None };
    let (hostname, port) = url.host_and_port();
    let text = match name {
        "getScheme" => &url.scheme,
        "getHost" => &url.host,
        "getHostname" => hostname,
        "getPort" => port,
        "getEscapedPath" => &url.path,
        _ => return Some(Ok(url.query())),
    };
    Some(Ok(Value::text(text)))
}

impl Url {
    /// Reads a URL; `None` if it is none. What a request asks for has no fragment, so that a URL must be one with its
    /// fragment as part of the rest; its parts are then without.
    pub fn parse(text: &str) -> Option<Self> {
        Self::read(text)?;
        let bare = text.split_once('#').map_or(text, |(bare, _)| bare);
        Self::read(bare).map(|url| Self { text: text.to_owned(), ..url })
    }

    fn read(text: &str) -> Option<Self> {
        if text.is_empty() || text.contains(|c: char| c.is_ascii_control()) {
            return None;
        }
        let (scheme, rest) = scheme(text)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut url = Self { text: text.to_owned(), scheme: scheme.to_ascii_lowercase(), ..Self::default() };
        query.clone_into(&mut url.query);
        if !rest.starts_with('/') {
            // `mailto:a`: opaque, and allowed where there is a scheme.
            return (!scheme.is_empty()).then_some(url);
        }
        let authority = if scheme.is_empty() { None } else { rest.strip_prefix("//") };
        let path = match authority {
            Some(after) => {
                let end = after.find('/').unwrap_or(after.len());
                url.host = host(&after[..end])?.to_owned();
                &after[end..]
            }
            None => rest,
        };
        path.clone_into(&mut url.path);
        escapes_are_whole(path).then_some(url)
    }

    fn host_and_port(&self) -> (&str, &str) {
        if let Some(inner) = self.host.strip_prefix('[') {
            let (host, after) = inner.split_once(']').unwrap_or((inner, ""));
            return (host, after.strip_prefix(':').unwrap_or_default());
        }
        self.host.rsplit_once(':').unwrap_or((&self.host, ""))
    }

    fn query(&self) -> Value {
        let mut found: BTreeMap<Key, Vec<Value>> = BTreeMap::new();
        for pair in self.query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if let (Some(name), Some(value)) = (unescaped(name), unescaped(value)) {
                found.entry(Key::from(&*name)).or_default().push(Value::text(&value));
            }
        }
        Value::Map(Arc::new(found.into_iter().map(|(name, values)| (name, Value::List(values.into()))).collect()))
    }
}

/// The scheme, empty if there is none, and what follows; `None` where a colon comes first.
fn scheme(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))).unwrap_or(text.len());
    match text[end..].strip_prefix(':') {
        Some(_) if end == 0 => None,
        Some(rest) if text.starts_with(|c: char| c.is_ascii_alphabetic()) => Some((&text[..end], rest)),
        _ if text.starts_with('/') => Some(("", text)),
        // Neither absolute nor from the root.
        _ => None,
    }
}

/// The host and port of an authority, if it can be one.
fn host(authority: &str) -> Option<&str> {
    let (user, host) = authority.rsplit_once('@').map_or(("", authority), |(user, host)| (user, host));
    let userinfo = |c: char| c.is_ascii_alphanumeric() || "-._:~!$&'()*+,;=%@".contains(c);
    if !user.chars().all(userinfo) || !escapes_are_whole(user) {
        return None;
    }
    let port = match host.strip_prefix('[') {
        Some(inner) => inner.split_once(']')?.1,
        None => host.find(':').map_or("", |at| &host[at..]),
    };
    let digits = port.is_empty() || port.strip_prefix(':').is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit()));
    let allowed = |c: char| !c.is_ascii() || c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:[]<>\"%".contains(c);
    (digits && host.chars().all(allowed) && (host.starts_with('[') || !host.contains('%'))).then_some(host)
}

fn unescaped(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
                out.push(u8::from_str_radix(digits, 16).ok()?);
                rest = &rest[2..];
            }
            other => out.push(*other),
        }
    }
    String::from_utf8(out).ok()
}
