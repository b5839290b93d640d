//! Hosts that are served over TLS alone: whoever comes in plaintext is sent to the same host over TLS, and whoever has come so is
//! served, by our proxy and by Envoy.

use crate::static_proxy::{Proxy, http_listener, with_both};
use crate::support::{Answer, free_address, read_answer};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::process::Command;

fn listener(at: SocketAddr, hops: u32) -> Value {
    let route = json!({ "match": { "prefix": "/" }, "direct_response": { "status": 211 },
        "response_headers_to_add": [{ "header": { "key": "strict-transport-security", "value": "max-age=1" } }] });
    let hosts =
        json!({ "virtual_hosts": [{ "name": "all", "domains": ["*"], "require_tls": "ALL", "routes": [route] }] });
    http_listener(at, &[], json!({ "route_config": hosts, "use_remote_address": true, "xff_num_trusted_hops": hops }))
}

fn curl(at: SocketAddr, path: &str, words: &[&str]) -> Answer {
    let mut command = Command::new("curl");
    command.args(["-sS", "-i", "--raw", "--max-time", "10"]).args(words);
    let output = command.arg(format!("http://{at}{path}")).output().expect("curl");
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    read_answer(&mut &output.stdout[..], false).expect("an answer")
}

fn redirected(answer: &Answer) -> Option<&str> {
    answer.header("location").filter(|_| answer.status == 301)
}

#[test]
fn plaintext_is_sent_to_tls_on_the_same_host_and_what_came_by_tls_is_served() {
    with_both(|name, dir| {
        let (open, behind) = (free_address(), free_address());
        let _proxy = Proxy::start(name, dir, json!([listener(open, 0), listener(behind, 1)]), json!([]));
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            let ask = |at, path, words: &[&str]| curl(at, path, &[&[version], words].concat());
            for (path, words, location) in [
                ("/a?b=c", &["-H", "host: a.example"][..], "https://a.example/a?b=c"),
                ("/", &["-H", "host: a.example:8080"], "https://a.example:8080/"),
                (
                    "/",
                    // Of HTTP/2 curl takes it for an error that nobody wants the body that it has not sent yet.
                    if version == "--http1.1" {
                        &["-H", "host: a.example", "-d", "x"][..]
                    } else {
                        &["-H", "host: a.example"]
                    },
                    "https://a.example/",
                ),
                // Nothing is exempt.
                (
                    "/.well-known/acme-challenge/x",
                    &["-H", "host: a.example"],
                    "https://a.example/.well-known/acme-challenge/x",
                ),
                // Nobody is believed who has no proxies before it.
                ("/", &["-H", "host: a.example", "-H", "x-forwarded-proto: https"], "https://a.example/"),
            ] {
                let answer = ask(open, path, words);
                assert_eq!(redirected(&answer), Some(location), "{name} {version} {words:?}: {answer:?}");
                assert_eq!(answer.header("strict-transport-security"), None, "{name}: RFC 6797 section 7.2");
            }
            let host = ["-H", "host: a.example"];
            let served = ask(behind, "/", &[&host[..], &["-H", "x-forwarded-proto: https"]].concat());
            assert_eq!(served.status, 211, "{name} {version}: {served:?}");
            let plain = ask(behind, "/", &[&host[..], &["-H", "x-forwarded-proto: http"]].concat());
            assert_eq!(redirected(&plain), Some("https://a.example/"), "{name} {version}: {plain:?}");
            let of_port = ask(open, "/", &["-H", "host: a.example:80"]);
            let expected = if name == "ours" { "https://a.example/" } else { "https://a.example:80/" };
            assert_eq!(redirected(&of_port), Some(expected), "{name} {version}: {of_port:?}");
        }
    });
}
