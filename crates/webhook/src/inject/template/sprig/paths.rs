//! Of paths, with slashes wherever this runs, and of URLs.

use std::collections::BTreeMap;
use std::sync::Arc;

use gotmpl::{Result, Value};

use super::super::functions::{Function, map, text};
use super::bool_of;

pub const FUNCTIONS: &[(&str, Function)] = &[
    ("base", |args| Ok(base(&text(args, 0)?).into())),
    ("clean", |args| Ok(clean(&text(args, 0)?).into())),
    ("dir", |args| {
        let path = text(args, 0)?;
        Ok(clean(path.rfind('/').map_or("", |end| &path[..=end])).into())
    }),
    ("ext", |args| {
        let path = text(args, 0)?;
        let name = path.rsplit('/').next().unwrap_or_default();
        Ok(name.rfind('.').map_or("", |start| &name[start..]).into())
    }),
    ("isAbs", |args| bool_of(text(args, 0)?.starts_with('/'))),
    ("urlJoin", joined),
    ("urlParse", parsed),
];

/// Go's `path.Base`.
fn base(path: &str) -> &str {
    let trimmed = path.trim_end_matches('/');
    match (trimmed.is_empty(), path.is_empty()) {
        (true, true) => ".",
        (true, false) => "/",
        _ => trimmed.rsplit('/').next().unwrap_or_default(),
    }
}

/// Go's `path.Clean`.
fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        match parts.last() {
            Some(last) if part == ".." && *last != ".." => drop(parts.pop()),
            None if part == ".." && rooted => {}
            _ => parts.push(part),
        }
    }
    match (rooted, parts.join("/")) {
        (true, rest) => format!("/{rest}"),
        (false, rest) if rest.is_empty() => ".".to_owned(),
        (false, rest) => rest,
    }
}

/// What a URL is made of, as sprig names it.
fn parsed(args: &[Value]) -> Result<Value> {
    let url = text(args, 0)?;
    let (rest, fragment) = url.split_once('#').unwrap_or((&url, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let is_scheme = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    };
    let (scheme, rest) = rest.split_once(':').filter(|(scheme, _)| is_scheme(scheme)).unwrap_or(("", rest));
    let (authority, path, opaque) = match rest.strip_prefix("//") {
        Some(rest) => {
            let end = rest.find('/').unwrap_or(rest.len());
            (&rest[..end], &rest[end..], "")
        }
        None if !scheme.is_empty() && !rest.starts_with('/') => ("", "", rest),
        None => ("", rest, ""),
    };
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    let hostname = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let scheme = scheme.to_ascii_lowercase();
    let fields = [
        ("scheme", &*scheme),
        ("host", host),
        ("hostname", hostname),
        ("path", path),
        ("query", query),
        ("opaque", opaque),
        ("fragment", fragment),
        ("userinfo", user),
    ];
    Ok(fields
        .map(|(name, value)| (Arc::from(name), Value::from(value)))
        .into_iter()
        .collect::<BTreeMap<Arc<str>, _>>()
        .into())
}

/// The other way round.
fn joined(args: &[Value]) -> Result<Value> {
    let fields = map(args, 0)?;
    let field = |name: &str| fields.get(name).map(Value::to_string).unwrap_or_default();
    let mut url = String::new();
    let (scheme, host, user, opaque) = (field("scheme"), field("host"), field("userinfo"), field("opaque"));
    if !scheme.is_empty() {
        url += &format!("{scheme}:");
    }
    if opaque.is_empty() {
        if !scheme.is_empty() || !host.is_empty() || !user.is_empty() {
            url += "//";
        }
        if !user.is_empty() {
            url += &format!("{user}@");
        }
        url += &host;
        let path = field("path");
        if !path.is_empty() && !path.starts_with('/') && !host.is_empty() {
            url.push('/');
        }
        url += &path;
    } else {
        url += &opaque;
    }
    for (sign, name) in [('?', "query"), ('#', "fragment")] {
        let part = field(name);
        if !part.is_empty() {
            url.push(sign);
            url += &part;
        }
    }
    Ok(url.into())
}
