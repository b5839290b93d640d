//! What is a valid name: labels, domains, hosts, ports, headers, addresses. Each check says what is wrong.
//!
//! The rules are those of Istio's validation, which allows upper case where Kubernetes does not. No regular
//! expressions.

use std::net::IpAddr;

use crate::problem::nearest;

/// What is wrong with a name, to be read after the field path.
pub type NameError = String;
type Checked = Result<(), NameError>;

/// RFC 1123: at most 63 letters, digits and `-`, a letter or digit at both ends.
pub fn is_dns_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends =
        bytes.first().is_some_and(u8::is_ascii_alphanumeric) && bytes.last().is_some_and(u8::is_ascii_alphanumeric);
    ends && bytes.len() <= 63 && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
}

/// A label, or `*`, or a label after `*` or `*-`.
pub fn is_wildcard_dns_label(text: &str) -> bool {
    match text.strip_prefix('*') {
        Some("") => true,
        Some(rest) => text.len() <= 63 && is_dns_label(rest.strip_prefix('-').unwrap_or(rest)),
        None => is_dns_label(text),
    }
}

/// A namespace, or a port name, or the name of a subset.
pub fn dns_label(text: &str) -> Checked {
    match text {
        "" => Err("must not be empty".into()),
        _ if is_dns_label(text) => Ok(()),
        _ => Err(format!(
            "{text:?} is not a DNS label: up to 63 letters, digits and '-', a letter or digit at both ends"
        )),
    }
}

fn labels(domain: &str, text: &str) -> Checked {
    let mut parts = text.split('.').peekable();
    let last = text.rsplit('.').next().unwrap_or_default();
    if !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("domain name {domain:?} invalid (top level domain {last:?} cannot be all-numeric)"));
    }
    while let Some(part) = parts.next() {
        if part.is_empty() && parts.peek().is_none() {
            // `istio.io.`
            return Ok(());
        }
        if !is_dns_label(part) {
            return Err(format!("domain name {domain:?} invalid (label {part:?} invalid)"));
        }
    }
    Ok(())
}

fn length(domain: &str) -> Checked {
    match domain.len() {
        0 => Err("empty domain name not allowed".into()),
        1..=255 => Ok(()),
        _ => {
            Err(format!("domain name {:?}… is longer than 255 characters", domain.chars().take(32).collect::<String>()))
        }
    }
}

/// A fully qualified domain name, with or without the last dot.
pub fn fqdn(domain: &str) -> Checked {
    length(domain)?;
    labels(domain, domain)
}

/// A domain name whose first label may be or begin with `*`.
pub fn wildcard_domain(domain: &str) -> Checked {
    length(domain)?;
    let (first, rest) = domain.split_once('.').map_or((domain, None), |(f, r)| (f, Some(r)));
    if !is_wildcard_dns_label(first) {
        return Err(format!("domain name {domain:?} invalid (label {first:?} invalid)"));
    }
    rest.map_or(Ok(()), |rest| labels(domain, rest))
}

/// A host of a VirtualService that is bound to gateways only; `sni` allows Istio's `outbound_.80_.v1_.host` form.
pub fn gateway_domain(domain: &str, sni: bool) -> Checked {
    length(domain)?;
    let Some(rest) = domain.strip_prefix("outbound_.") else {
        return wildcard_domain(domain);
    };
    if !sni {
        return Err(format!("domain name {domain:?}: an `outbound_` name needs a TLS match"));
    }
    // outbound_.<port>_.<subset or nothing>_.<host>
    let mut parts = rest.splitn(3, "_.");
    let (number, subset, host) = (parts.next(), parts.next(), parts.next());
    let number_ok = number.and_then(|p| p.parse::<u16>().ok()).is_some_and(|p| p > 0);
    let subset_ok = subset.is_some_and(|s| s.is_empty() || is_dns_label(s));
    match host {
        Some(host) if number_ok && subset_ok => fqdn(host),
        _ => Err(format!("domain name {domain:?} is not of the form outbound_.<port>_.<subset>_.<host>")),
    }
}

/// True if some host matches both patterns.
pub fn hosts_overlap(a: &str, b: &str) -> bool {
    match (a.strip_prefix('*'), b.strip_prefix('*')) {
        (None, None) => a == b,
        (Some(tail), None) => b.len() >= tail.len() && b.ends_with(tail),
        (None, Some(tail)) => a.len() >= tail.len() && a.ends_with(tail),
        (Some(x), Some(y)) => x.ends_with(y) || y.ends_with(x),
    }
}

/// True if every host that `inner` matches is matched by `outer`.
pub fn host_within(inner: &str, outer: &str) -> bool {
    match (inner.strip_prefix('*'), outer.strip_prefix('*')) {
        (Some(i), Some(o)) => i.ends_with(o),
        (None, Some(tail)) => inner.ends_with(tail),
        (Some(_), None) => false,
        (None, None) => inner == outer,
    }
}

/// A TCP port: 1 to 65535.
pub fn port(number: impl Into<i64>) -> Checked {
    match number.into() {
        1..=65535 => Ok(()),
        other => Err(format!("port number {other} must be in the range 1..65535")),
    }
}

/// The name of an HTTP header: RFC 9110 token.
pub fn header_name(name: &str) -> Checked {
    match name {
        "" => Err("header name cannot be empty".into()),
        _ if name.bytes().all(is_token) => Ok(()),
        _ => Err(format!("header name {name:?} is not a valid header name")),
    }
}

/// Letters, digits, `-` and `_` only.
pub fn strict_header_name(name: &str) -> Checked {
    let ok = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if ok {
        Ok(())
    } else {
        Err(format!("header name {name:?} is not a valid header name: letters, digits, '-' and '_'"))
    }
}

/// The name of a header of a probe, as Kubernetes has it: letters, digits and `-` only.
pub fn probe_header_name(name: &str) -> Checked {
    let ok = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if ok { Ok(()) } else { Err(format!("header name {name:?} is not a valid header name: letters, digits and '-'")) }
}

/// A header to match on: a header name, a pseudo-header such as `:authority`, or `@request.auth.claims.<claim>`.
pub fn match_header_name(name: &str) -> Checked {
    if is_jwt_claim(name) {
        return Ok(());
    }
    match name {
        ":method" | ":scheme" | ":authority" | ":path" | ":status" => Ok(()),
        _ => header_name(name),
    }
}

/// The pseudo-header by which a VirtualService routes on a JWT claim: `@request.auth.claims.a.b`, or `[a][b]` after it.
pub fn is_jwt_claim(name: &str) -> bool {
    const START: &str = "@request.auth.claims";
    let Some((start, claim)) = name.split_at_checked(START.len()) else { return false };
    let dotted = claim.starts_with('.') && claim.len() > 1;
    let bracketed = claim.starts_with('[') && claim.ends_with(']') && claim.len() > 2;
    start.eq_ignore_ascii_case(START) && (dotted || bracketed)
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A header value: every `%` is doubled or opens one of Envoy's commands, `%NAME(ARGUMENTS):LENGTH%`.
pub fn header_value(value: &str) -> Checked {
    if value.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t') {
        return Err(format!("header value {value:?} has a control character"));
    }
    let mut rest = value;
    while let Some((_, tail)) = rest.split_once('%') {
        if let Some(after) = tail.strip_prefix('%') {
            rest = after;
            continue;
        }
        rest = command(tail).ok_or_else(|| {
            format!("header value {value:?}: '%' opens no command of the form %NAME%; write %% for a percent sign")
        })?;
    }
    Ok(())
}

/// What follows the command that `text` starts with (after its first `%`).
fn command(text: &str) -> Option<&str> {
    let end = text.find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))?;
    let (name, mut rest) = text.split_at(end);
    if name.is_empty() {
        return None;
    }
    if let Some(arguments) = rest.strip_prefix('(') {
        rest = &arguments[arguments.find(')')? + 1..];
    }
    if let Some(length) = rest.strip_prefix(':') {
        let digits = length.find(|c: char| !c.is_ascii_digit()).unwrap_or(length.len());
        if digits == 0 {
            return None;
        }
        rest = &length[digits..];
    }
    rest.strip_prefix('%')
}

/// An IPv4 or IPv6 address.
pub fn ip(text: &str) -> Checked {
    text.parse::<IpAddr>().map(drop).map_err(|_| format!("{text:?} is not a valid IP address"))
}

/// An address, or a subnet such as `10.0.0.0/8`.
pub fn ip_or_cidr(text: &str) -> Checked {
    if text.contains('/') {
        return text.parse::<ipnet::IpNet>().map(drop).map_err(|_| format!("{text:?} is not a valid CIDR block"));
    }
    ip(text)
}

/// `unix://` with an absolute path, or an abstract socket after `@`.
pub fn unix_address(text: &str) -> Checked {
    let path = text.strip_prefix("unix://").ok_or_else(|| format!("{text:?} is not a unix:// address"))?;
    match path.as_bytes() {
        [] => Err("the unix address must not be empty".into()),
        [b'@', ..] => Ok(()),
        [b'/', .., b'/'] | [b'/'] => Err(format!("{text:?} names a folder")),
        [b'/', ..] => Ok(()),
        _ => Err(format!("{text:?} must be an absolute path or an abstract socket (unix://@name)")),
    }
}

/// `host:port`, the host a domain name or an IP address (IPv6 in brackets).
pub fn host_port(text: &str) -> Checked {
    let (host, number) = text
        .rsplit_once(':')
        .ok_or_else(|| format!("unable to split {text:?}: missing port in address, write host:port"))?;
    port(number.parse::<u16>().map_err(|_| format!("{text:?}: {number:?} is not a port"))?)?;
    match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(v6) => ip(v6),
        None if ip(host).is_ok() && !host.contains(':') => Ok(()),
        None => fqdn(host).map_err(|e| format!("{text:?}: {e}")),
    }
}

/// A SPIFFE trust domain.
pub fn trust_domain(domain: &str) -> Checked {
    if domain.is_empty() {
        return Err("empty domain name not allowed".into());
    }
    let text = domain.strip_suffix('.').unwrap_or(domain);
    for part in text.split('.') {
        if !is_dns_label(part) {
            return Err(format!("trust domain name {domain:?} invalid (label {part:?} invalid)"));
        }
    }
    Ok(())
}

/// A Kubernetes label key: an optional DNS prefix and a name.
pub fn label_key(key: &str) -> Checked {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(p, n)| (Some(p), n));
    if prefix.is_some_and(|p| p.len() > 253 || !p.split('.').all(is_dns_label)) {
        return Err(format!("label key {key:?}: what is before the '/' is not a DNS name"));
    }
    if name.is_empty() || !is_label_text(name) {
        return Err(format!(
            "label key {key:?}: up to 63 letters, digits, '-', '_' and '.', a letter or digit at both ends"
        ));
    }
    Ok(())
}

/// A Kubernetes label value.
pub fn label_value(value: &str) -> Checked {
    if value.is_empty() || is_label_text(value) {
        return Ok(());
    }
    Err(format!("label value {value:?}: up to 63 letters, digits, '-', '_' and '.', a letter or digit at both ends"))
}

fn is_label_text(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends =
        bytes.first().is_some_and(u8::is_ascii_alphanumeric) && bytes.last().is_some_and(u8::is_ascii_alphanumeric);
    ends && bytes.len() <= 63 && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// The name of a service in an extension provider: a host, or `namespace/host`.
pub fn provider_service(service: &str) -> Checked {
    if service.is_empty() {
        return Err("service must not be empty".into());
    }
    match service.split_once('/') {
        Some((_, "")) => Err(format!("{service:?} has no host after the namespace")),
        Some(("*" | ".", host)) => listener_host(host),
        Some((namespace, host)) => {
            dns_label(namespace).map_err(|error| format!("invalid namespace value: {error}"))?;
            listener_host(host)
        }
        None => ip(service).or_else(|_| fqdn(service)),
    }
}

/// The host of a Gateway's server, a Sidecar's listener or a provider: `*`, or a domain name of two labels or more.
pub fn listener_host(host: &str) -> Checked {
    if host == "*" {
        return Ok(());
    }
    if !host.contains('.') {
        return Err(format!("{host:?}: short names (non FQDN) are not allowed"));
    }
    if host.contains('*') && !host.starts_with("*.") {
        return Err(format!("partial wildcard {host:?} not allowed"));
    }
    wildcard_domain(host)
}

/// The protocols of a port, upper case. `None`: not a protocol.
pub fn protocol(text: &str) -> Option<&'static str> {
    let upper = text.to_ascii_uppercase();
    PROTOCOLS.into_iter().find(|k| *k == upper)
}

/// What is wrong with a port's protocol, if it is none, and what was probably meant.
pub fn known_protocol(text: &str) -> Result<(), String> {
    match (protocol(text), nearest(text, PROTOCOLS)) {
        (Some(_), _) => Ok(()),
        (None, Some(meant)) => Err(format!("invalid protocol {text:?}; did you mean `{meant}`?")),
        (None, None) => Err(format!("invalid protocol {text:?}")),
    }
}

const PROTOCOLS: [&str; 12] =
    ["HTTP", "HTTPS", "HTTP2", "GRPC", "GRPC-WEB", "TLS", "TCP", "UDP", "MONGO", "MYSQL", "REDIS", "HTTP_PROXY"];

/// HTTP without TLS, in any of its versions.
pub fn is_plain_http(text: &str) -> bool {
    matches!(protocol(text), Some("HTTP" | "HTTP2" | "GRPC" | "GRPC-WEB" | "HTTP_PROXY"))
}

/// Two hexadecimal digits after each `%`, as in every URL.
pub fn escapes_are_whole(text: &str) -> bool {
    text.split('%').skip(1).all(|after| after.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2)
}

/// What can stand before the path of a request to an external authorizer: nothing, or the beginning of a path.
pub fn is_path_prefix(text: &str) -> bool {
    text.is_empty()
        || text.starts_with('/') && !text.contains(|c: char| c.is_ascii_control()) && escapes_are_whole(text)
}

#[cfg(test)]
mod tests;
