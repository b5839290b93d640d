//! Ways around a policy that Istio's and Envoy's security bulletins and their kin are about: requests whose path, host or fields
//! can be read in two ways. Each is sent to our proxy and to Envoy in front of a backend that tells what it saw: both answer the
//! same, and what a rule denies never reaches the backend in any spelling that the backend takes for it.

use crate::h2::{self, END_HEADERS, END_STREAM, HEADERS, SETTINGS, frame};
use crate::static_proxy::{Proxy, any, cluster, http_listener, with_both};
use crate::support::{Answer, Backend, exchange, free_address};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

/// Denies `/admin` and below, `/closed/{*}`, the host `secret.example`, and whoever says `x-role: admin`, in the terms of Istio's
/// translation.
fn rules() -> Value {
    let path = |matcher: Value| json!({ "url_path": { "path": matcher } });
    let header = |name: &str, matcher: Value| json!({ "header": { "name": name, "string_match": matcher } });
    let template =
        any("extensions.path.match.uri_template.v3.UriTemplateMatchConfig", json!({ "path_template": "/closed/*" }));
    let secret = r"(?i)secret\.example(:[0-9]+)?";
    let permissions = json!([
        path(json!({ "exact": "/admin" })),
        path(json!({ "prefix": "/admin/" })),
        { "uri_template": { "name": "uri-template", "typed_config": template } },
        header(":authority", json!({ "safe_regex": { "regex": secret } })),
        header("x-role", json!({ "exact": "admin" })),
    ]);
    let policy = json!({ "permissions": [{ "or_rules": { "rules": permissions } }], "principals": [{ "any": true }] });
    let config = json!({ "rules": { "action": "DENY", "policies": { "ns[a]-policy[p]-rule[0]": policy } } });
    json!({ "name": "envoy.filters.http.rbac", "typed_config": any("extensions.filters.http.rbac.v3.RBAC", config) })
}

struct Bench {
    proxy: Proxy,
    listen: SocketAddr,
}

impl Bench {
    /// A proxy that normalises paths in this way, as Istio's `pathNormalization` has it.
    fn new(name: &'static str, dir: &Path, normalization: Value) -> Self {
        let (backend, listen) = (Backend::start("b").address, free_address());
        let route = json!({ "match": { "prefix": "/" }, "route": { "cluster": "c" } });
        let routes = json!({ "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [route] }] });
        let mut manager = json!({ "route_config": routes, "strip_trailing_host_dot": true,
            "upgrade_configs": [{ "upgrade_type": "websocket" }] });
        let Value::Object(normalization) = normalization else { panic!("an object") };
        manager.as_object_mut().expect("an object").extend(normalization);
        let listener = http_listener(listen, &[rules()], manager);
        Self { proxy: Proxy::start(name, dir, json!([listener]), json!([cluster("c", backend, json!({}))])), listen }
    }

    fn ask(&self, request: &str) -> Answer {
        let answer = exchange(self.listen, request.as_bytes());
        answer.unwrap_or_else(|error| panic!("{}: {request:?}: {error}", self.proxy.name))
    }
}

/// The path that the backend got, if it got the request.
fn seen(answer: &Answer) -> Option<String> {
    let text = answer.text();
    let line = text.strip_prefix("backend b\n")?.lines().next()?;
    line.split(' ').nth(1).map(str::to_owned)
}

/// What a server makes of a path that decodes, merges and resolves everything: the most that any backend would do.
fn resolved(path: &str) -> String {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let mut decoded = Vec::new();
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        let hex = |bytes: &mut std::str::Bytes<'_>| (bytes.next()? as char).to_digit(16);
        match byte {
            b'%' => {
                let mut rest = bytes.clone();
                match hex(&mut rest).zip(hex(&mut rest)) {
                    Some((high, low)) => {
                        decoded.push((high * 16 + low) as u8);
                        bytes = rest;
                    }
                    None => decoded.push(byte),
                }
            }
            b'\\' => decoded.push(b'/'),
            other => decoded.push(other),
        }
    }
    let decoded = String::from_utf8_lossy(&decoded).into_owned();
    let mut parts = Vec::new();
    for part in decoded.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Paths that are, or may be taken for, one below `/admin`.
const PATHS: &[&str] = &[
    "/admin",
    "/admin/",
    "/admin/x",
    "//admin",
    "///admin//x",
    "/./admin",
    "/x/../admin",
    "/x/./../admin/y",
    "/../admin",
    "/%61dmin",
    "/%61%64%6d%69%6e",
    "/x/%2e%2e/admin",
    "/x/%2E%2E/admin",
    "/x/.%2e/admin",
    "/%2e/admin",
    "/%2fadmin",
    "/x%2f..%2fadmin",
    "/x%2F..%2Fadmin",
    "/x/..%2fadmin",
    "/admin%2f",
    "/admin%2fx",
    "/x\\..\\admin",
    "/\\admin",
    "/x%5c..%5cadmin",
    "/admin?x",
    "/admin/?x=/../..",
    "/x?/../admin",
    "/admin#f",
    "/x#/../admin",
    "/x/..;/admin",
    "/..;/admin",
    "/admin;a=b",
    "/x//..//admin",
    "/%252e%252e/admin",
    "/x/%252e%252e/admin",
    "/admin%00",
    "/admin%20",
    "/admin/.",
    "/admin/..",
    "/admin/../admin",
    "/.//admin",
];

/// Istio's `DECODE_AND_MERGE_SLASHES`, the one that it recommends with policies on paths.
fn strictest() -> Value {
    json!({ "normalize_path": true, "merge_slashes": true, "path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD" })
}

#[test]
fn no_spelling_of_a_path_gets_around_a_rule() {
    let answers = std::sync::Mutex::new(Vec::<(&str, &str, u16)>::new());
    with_both(|name, dir| {
        let bench = Bench::new(name, dir, strictest());
        for path in PATHS {
            let answer = bench.ask(&format!("GET {path} HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n"));
            if let Some(seen) = seen(&answer) {
                let resolved = resolved(&seen);
                // What is encoded twice is a name of its own; decoding it again is the backend's doing.
                assert!(resolved != "/admin" && !resolved.starts_with("/admin/"), "{name}: {path} came as {seen}");
            }
            answers.lock().expect("no panic").push((name, path, answer.status));
        }
    });
    same(&answers.into_inner().expect("no panic"));
}

#[test]
fn what_is_normalised_is_what_a_rule_sees_in_every_setting() {
    let settings = [
        ("NONE", json!({})),
        ("BASE", json!({ "normalize_path": true })),
        ("MERGE_SLASHES", json!({ "normalize_path": true, "merge_slashes": true })),
        ("REJECT", json!({ "normalize_path": true, "path_with_escaped_slashes_action": "REJECT_REQUEST" })),
    ];
    for (setting, options) in settings {
        println!("{setting}");
        let answers = std::sync::Mutex::new(Vec::<(&str, &str, u16)>::new());
        with_both(|name, dir| {
            let bench = Bench::new(name, dir, options.clone());
            for path in PATHS {
                let answer = bench.ask(&format!("GET {path} HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n"));
                if let Some(seen) = seen(&answer) {
                    let path = seen.split('?').next().unwrap_or_default();
                    let is_denied = path == "/admin" || path.starts_with("/admin/");
                    assert!(!is_denied, "{setting}, {name}: the backend got {seen}, which the rule denies");
                }
                answers.lock().expect("no panic").push((name, path, answer.status));
            }
        });
        same(&answers.into_inner().expect("no panic"));
    }
}

/// Where we are stricter than Envoy.
#[test]
fn user_information_and_dot_segments_that_hide_are_seen_through() {
    let dir = tempfile::tempdir().expect("folder");
    let bench = Bench::new("ours", dir.path(), strictest());
    let cases = [
        ("http://a.example@secret.example/", "a.example", 400),
        ("/", "a.example@secret.example", 400),
        ("/x/%2e%2e;a=b/admin", "a.example", 403),
        ("/x\\..;\\admin", "a.example", 403),
    ];
    for (target, host, expected) in cases {
        let answer = bench.ask(&format!("GET {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"));
        assert_eq!((answer.status, seen(&answer)), (expected, None), "{target} at {host}");
    }
}

/// Envoy makes one host of two `Host` fields, which no rule then knows; the rest it refuses as we do.
#[test]
fn hosts_methods_and_fields_are_read_in_one_way() {
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let close = "connection: close\r\n";
    let get = |host: &str, more: &str| format!("GET / HTTP/1.1\r\nhost: {host}\r\n{close}{more}\r\n");
    let requests = [
        ("host", get("secret.example", ""), &[403][..]),
        ("case of the host", get("SeCReT.eXample", ""), &[403]),
        ("port", get("secret.example:80", ""), &[403]),
        ("trailing dot", get("secret.example.", ""), &[403]),
        ("trailing dot and port", get("secret.example.:8080", ""), &[403]),
        ("two hosts", get("a.example", "host: secret.example\r\n"), &[400]),
        ("no host", format!("GET / HTTP/1.1\r\n{close}\r\n"), &[400]),
        ("absolute form", format!("GET http://secret.example/ HTTP/1.1\r\nhost: a.example\r\n{close}\r\n"), &[403]),
        (
            "absolute form, denied path",
            format!("GET http://a.example/admin HTTP/1.1\r\nhost: a.example\r\n{close}\r\n"),
            &[403],
        ),
        ("lower case method", format!("get /admin HTTP/1.1\r\nhost: a.example\r\n{close}\r\n"), &[400, 403]),
        ("another method", format!("PROPFIND /admin HTTP/1.1\r\nhost: a.example\r\n{close}\r\n"), &[403]),
        ("upgrade", format!("GET /admin HTTP/1.1\r\nhost: a.example\r\n{upgrade}\r\n"), &[403]),
        ("CONNECT", "CONNECT secret.example:80 HTTP/1.1\r\nhost: secret.example:80\r\n\r\n".to_owned(), &[403, 404]),
        ("field", get("a.example", "x-role: admin\r\n"), &[403]),
        ("a repeated field", get("a.example", "x-role: user\r\nx-role: admin\r\n"), &[403]),
        ("a repeated field, in another order", get("a.example", "x-role: admin\r\nx-role: user\r\n"), &[403]),
        ("a segment of a template", format!("GET /closed/x HTTP/1.1\r\nhost: a.example\r\n{close}\r\n"), &[403]),
        ("a star for a segment", format!("GET /closed/* HTTP/1.1\r\nhost: a.example\r\n{close}\r\n"), &[403]),
        ("what no segment should have", format!("GET /closed/[\"] HTTP/1.1\r\nhost: a.example\r\n{close}\r\n"), &[403]),
        ("case of a field", get("a.example", "X-ROLE: admin\r\n"), &[403]),
        ("space around a value", get("a.example", "x-role:  admin \r\n"), &[403]),
        ("space before the colon", get("a.example", "x-role : admin\r\n"), &[400]),
        ("folded", get("a.example", "x-role:\r\n admin\r\n"), &[400, 403]),
        ("a field with NUL", get("a.example", "x-role: admin\0\r\n"), &[400]),
        ("bare carriage return", get("a.example", "x-a: b\rx-role: admin\r\n"), &[400]),
        (
            "framing in two ways",
            format!(
                "POST /a HTTP/1.1\r\nhost: a.example\r\n{close}content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
            ),
            &[400],
        ),
        (
            "two lengths",
            format!("POST /a HTTP/1.1\r\nhost: a.example\r\n{close}content-length: 0\r\ncontent-length: 5\r\n\r\n"),
            &[400],
        ),
        (
            "unknown coding",
            format!("POST /a HTTP/1.1\r\nhost: a.example\r\n{close}transfer-encoding: xchunked\r\n\r\n0\r\n\r\n"),
            &[400, 501],
        ),
    ];
    let dir = tempfile::tempdir().expect("folder");
    let bench = Bench::new("ours", dir.path(), strictest());
    for (what, request, expected) in &requests {
        let answer = bench.ask(request);
        assert!(expected.contains(&answer.status), "{what}: {answer:?}");
        assert_eq!(seen(&answer), None, "{what}: it came to the backend");
    }
    assert_eq!(bench.ask(&get("a.example", "")).status, 200);
}

/// HPACK: a literal without indexing, its name in the static table (below 15) or spelled out.
fn literal(name: &[u8], value: &[u8]) -> Vec<u8> {
    [&[0, name.len() as u8], name, &[value.len() as u8], value].concat()
}

/// How a request of HTTP/2 ended: its status by HPACK's static table or spelled out, or that it was refused.
fn ask_h2(listen: SocketAddr, head: &[u8]) -> String {
    const RST_STREAM: u8 = 3;
    let mut stream = TcpStream::connect(listen).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let request = frame(HEADERS, END_HEADERS | END_STREAM, 1, head);
    let all = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &[]), request].concat();
    stream.write_all(&all).expect("write");
    loop {
        let mut frame_head = [0; 9];
        if stream.read_exact(&mut frame_head).is_err() {
            return "refused".to_owned();
        }
        let length = u32::from_be_bytes([0, frame_head[0], frame_head[1], frame_head[2]]);
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload).expect("a payload");
        match frame_head[3] {
            HEADERS if payload[0] == h2::OK => return "200".to_owned(),
            HEADERS if payload[0] == 0x8d => return "404".to_owned(),
            HEADERS if payload[0] == 0x8c => return "400".to_owned(),
            HEADERS => return "403".to_owned(),
            RST_STREAM | h2::GOAWAY => return "refused".to_owned(),
            _ => {}
        }
    }
}

#[test]
fn pseudo_header_fields_of_http2_are_read_in_one_way() {
    let get = |path: &[u8], authority: &[u8]| {
        [b"\x82\x86".to_vec(), literal(b":path", path), literal(b":authority", authority)].concat()
    };
    let ordinary = get(b"/", b"a.example");
    let with = |more: Vec<u8>| [ordinary.clone(), more].concat();
    let refused = &["refused", "400"][..];
    let cases = [
        ("ordinary", ordinary.clone(), &["200"][..]),
        ("denied path", get(b"/admin", b"a.example"), &["403"]),
        ("denied host", get(b"/", b"SECRET.example"), &["403"]),
        ("a fragment", get(b"/admin#x", b"a.example"), &["403", "refused", "400"]),
        ("two paths", with(literal(b":path", b"/admin")), refused),
        ("two authorities", with(literal(b":authority", b"secret.example")), refused),
        ("two methods", with(literal(b":method", b"POST")), refused),
        (
            "a pseudo-header field after others",
            [ordinary.clone(), literal(b"a", b"b"), literal(b":x", b"y")].concat(),
            refused,
        ),
        ("an unknown pseudo-header field", with(literal(b":admin", b"y")), refused),
        ("a response's", with(literal(b":status", b"200")), refused),
        ("no path", [b"\x82\x86".to_vec(), literal(b":authority", b"a.example")].concat(), refused),
        ("an empty path", get(b"", b"a.example"), refused),
        ("a path without a slash", get(b"admin", b"a.example"), refused),
        ("upper case", with(literal(b"X-Role", b"admin")), refused),
        ("a field of the connection", with(literal(b"connection", b"close")), refused),
        ("a coding", with(literal(b"transfer-encoding", b"chunked")), refused),
        ("a line break in a value", with(literal(b"x-a", b"b\r\nx-role: admin")), refused),
        ("a line break in the path", get(b"/x HTTP/1.1\r\nhost: b", b"a.example"), refused),
        ("a NUL in a value", with(literal(b"x-a", b"b\0")), refused),
        ("a denied field", with(literal(b"x-role", b"admin")), &["403"]),
    ];
    with_both(|name, dir| {
        let mut options = strictest();
        options["codec_type"] = json!("AUTO");
        let bench = Bench::new(name, dir, options);
        for (what, head, expected) in &cases {
            let found = ask_h2(bench.listen, head);
            assert!(expected.contains(&&*found), "{name}: {what}: {found}");
        }
    });
}

/// Ours and Envoy's answers are the same, where Envoy was there.
fn same(answers: &[(&str, &str, u16)]) {
    let of = |wanted: &str| -> Vec<_> {
        let own = answers.iter().filter(|(name, ..)| *name == wanted);
        own.map(|(_, path, status)| (*path, *status)).collect()
    };
    let (ours, theirs) = (of("ours"), of("envoy"));
    let different: Vec<_> = ours.iter().zip(&theirs).filter(|(ours, theirs)| ours != theirs).collect();
    assert!(different.is_empty(), "path, ours and Envoy's: {different:?}");
}
