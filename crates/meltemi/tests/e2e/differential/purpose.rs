//! What may differ, and why. Nothing else may.
//!
//! Below is what is compared in a changed form. Not generated at all, because the two differ:
//! - server names in upper case: Envoy compares them as they are, we as DNS names (RFC 6066 section 3);
//! - TLS without a protocol in common: Envoy goes on without one, we refuse (RFC 7301 section 3.2);
//! - upstream TLS without a maximum version: Envoy stops at 1.2, we at 1.3;
//! - names to match together with `ACCEPT_UNTRUSTED`: Envoy lets everybody in, we still want the name;
//! - the name of the server asked for (`auto_san_validation`) beside the validator for SPIFFE: Envoy does not compare it, we do;
//! - a certificate of two URIs under that validator: Envoy goes by the first, we refuse it;
//! - network RBAC before a TCP proxy: Envoy applies it to the first bytes and has connected upstream by then, we at once;
//! - HTTP/0.9, HTTP/1.2, an absolute target without Host, chunks in HTTP/1.0: Envoy serves them, we refuse (RFC 9112 sections 2.3, 3.2,
//!   6.1);
//! - user information in an HTTP/1 host, two `Host` fields, dot segments whose dots are encoded and that have parameters: Envoy serves
//!   them, we refuse or resolve them (`bulletins.rs`);
//! - the end of one direction of a tunnel over HTTP/1: Envoy cannot pass it on, we do;
//! - `OPTIONS *`: Envoy logs no scheme for it;
//! - a token without key id, of a set with an Ed25519 key: Envoy refuses signatures of another length, we try the next key;
//! - tokens of two issuers in one request, the keys of both yet to be fetched: Envoy takes those of the first for the second's;
//! - a provider whose own JWKS has no usable key: Envoy refuses the listener, we the provider's tokens;
//! - HEAD with an underscore that is refused: Envoy sends the body (RFC 9110 section 9.3.2 forbids it);
//! - a 100 Continue for a body of no bytes: Envoy sends it, we do not (RFC 9110 section 10.1.1 lets a server);
//! - access logs of listeners and of failed handshakes, CORS policies of route and host merged field by field, `grpc-timeout`
//!   from `max_stream_duration`, and `tls_context.validated` of clients let in unverified: not done here (NOTES.md).

/// A connection that nobody served: whether it ends with FIN, RST or a TLS alert is a matter of what the peer had sent by then.
pub fn unserved(lines: &[String]) -> bool {
    let served =
        ["status ", "tls version", "tls refused", "log ", "arrived", "tcp hello", "tcp direct", "tcp HTTP", "no end"];
    !lines.iter().any(|line| served.iter().any(|start| line.starts_with(start)))
}

/// Without a connection to a host, or a service's leave, Envoy has read what was there of the request, and we have not begun: so
/// it may keep the client's connection, and we close it.
pub fn unread(lines: &mut Vec<String>) {
    let refused = |line: &String| ["UF", "UAEX", "RL"].iter().any(|flag| line.contains(flag));
    // The other way round with a body that is too long to be told: we have read enough of it to know.
    let too_long = |line: &String| line == "log RESPONSE_CODE_DETAILS=request_payload_too_large";
    if lines.iter().any(|line| line.starts_with("log RESPONSE_FLAGS=") && refused(line) || too_long(line)) {
        let unread = ["closed true", "header connection: close", "log BYTES_RECEIVED=", "log REQUEST_DURATION="];
        lines.retain(|line| !unread.iter().any(|start| line.starts_with(start)));
    }
}

/// A request that is refused before it is routed: what is known of it by then is a matter of the parser's order. The status, the
/// body and the connection are compared.
pub fn refused(lines: &mut Vec<String>) {
    const RULES: &[&str] = &["http1.", "http.", "missing_host_header", "path_normalization_failed", "low_version"];
    let details = lines.iter().find_map(|line| line.strip_prefix("log RESPONSE_CODE_DETAILS="));
    if details.is_some_and(|details| RULES.iter().any(|rule| details.starts_with(rule))) {
        let unknown = [
            "log REQ(",
            "log PATH(",
            "log REQUEST_",
            "log PROTOCOL=",
            "log RESPONSE_CODE_DETAILS=",
            "log BYTES_RECEIVED=",
            "log UPSTREAM_",
        ];
        lines.retain(|line| !unknown.iter().any(|start| line.starts_with(start)));
    }
}

/// The line as it is compared; empty if it is not.
pub fn alike(line: &str) -> String {
    // The framing of a body is each proxy's own choice (RFC 9112 section 6).
    if line == "header transfer-encoding: chunked" || line.starts_with("header keep-alive: ") {
        return String::new();
    }
    // rustls goes by its own preference, BoringSSL by the client's: what matters is that one was agreed on.
    if let Some((operator, _)) = line.split_once("TLS_CIPHER=") {
        return format!("{operator}TLS_CIPHER");
    }
    // Envoy lists flags in the order in which it met them, we in one order.
    if let Some((operator, flags)) =
        line.split_once('=').filter(|(operator, _)| operator.starts_with("log RESPONSE_FLAGS"))
    {
        let mut flags: Vec<&str> = flags.split(',').collect();
        flags.sort_unstable();
        return format!("{operator}={}", flags.join(","));
    }
    // An option of a connection is compared without regard to case (RFC 9110 section 7.6.1).
    if line.contains("connection: Upgrade") {
        return line.replace("connection: Upgrade", "connection: upgrade");
    }
    // One digit more or less of `x-envoy-upstream-service-time`.
    if line.starts_with("log RESPONSE_HEADERS_BYTES=") && !line.ends_with("=0") {
        return "log RESPONSE_HEADERS_BYTES".to_owned();
    }
    // With bytes unread the kernel resets where it would else end in order, and a client sees the one or the other.
    if ["tcp: connection reset", "tcp: broken pipe", "connect: connection reset"].contains(&line) {
        return String::new();
    }
    // The TLS libraries' own words.
    if let Some((before, _)) = line.split_once("TLS_error:") {
        return before.to_owned();
    }
    // Each side has a port of its own.
    if line.starts_with("body x-forwarded-port: ") {
        return "body x-forwarded-port".to_owned();
    }
    if line.starts_with("tcp date: ") {
        return "tcp date".to_owned();
    }
    line.to_owned()
}
