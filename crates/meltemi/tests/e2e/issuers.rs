//! Tokens that others make: by joserfc with every algorithm that we take, good ones and such as attackers send; and by an
//! oidc-provider whose keys are found through its discovery document and replaced while requests run. Our proxy and Envoy hold
//! them against the same policy.

use crate::control_plane::{Discovery, Gateway, eventually, gateway, python, service, start_gateway};
use crate::static_proxy::{Proxy, any, cluster, http_listener, with_both};
use crate::support::{Backend, Process, cache, exchange, free_address};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What a gateway answers to a token: the status, and the words where it is refused.
fn present(gateway: SocketAddr, token: &str) -> Result<(u16, String), String> {
    let request = format!(
        "GET /private HTTP/1.1\r\nhost: shop.example\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n"
    );
    let answer = exchange(gateway, request.as_bytes())?;
    let words = if answer.status == 200 { String::new() } else { answer.text() };
    Ok((answer.status, words))
}

fn authentication(provider: Value) -> Value {
    let config = json!({
        "providers": { "issuer": provider },
        "rules": [{ "match": { "prefix": "/" }, "requires": { "provider_name": "issuer" } }],
    });
    json!({ "name": "envoy.filters.http.jwt_authn",
        "typed_config": any("extensions.filters.http.jwt_authn.v3.JwtAuthentication", config) })
}

/// A proxy that lets pass only tokens of this provider, over these clusters beside its backend.
fn gate(name: &'static str, dir: &Path, provider: Value, clusters: &[Value]) -> (Proxy, SocketAddr) {
    let (backend, listen) = (Backend::start("b").address, free_address());
    let route = json!({ "match": { "prefix": "/" }, "route": { "cluster": "c" } });
    let routes = json!({ "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [route] }] });
    let listener = http_listener(listen, &[authentication(provider)], json!({ "route_config": routes }));
    let clusters: Vec<Value> = clusters.iter().cloned().chain([cluster("c", backend, json!({}))]).collect();
    (Proxy::start(name, dir, json!([listener]), json!(clusters)), listen)
}

/// Where Envoy is not the measure: it takes a third dot and padding, against RFC 7515 sections 2 and 7.1, and reads single quotes
/// as JSON.
const STRICTER_THAN_ENVOY: [&str; 3] = ["form: a dot at its end", "form: padding", "form: a payload that is no JSON"];

#[test]
fn tokens_of_joserfc_are_taken_and_refused_as_envoy_does() {
    let python = match python() {
        Ok(python) => python,
        Err(reason) => return println!("{reason}"),
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/peers/tokens.py");
    let made = Command::new(python).arg(script).output().expect("python");
    let errors = String::from_utf8_lossy(&made.stderr);
    if errors.contains("No module named 'joserfc'") {
        return println!("skipped: no joserfc; scripts/install-test-deps.sh installs it");
    }
    let made: Value = serde_json::from_slice(&made.stdout).unwrap_or_else(|error| panic!("{error}\n{errors}"));
    let answers: RefCell<BTreeMap<&str, (u16, String)>> = RefCell::default();
    let wrong: RefCell<Vec<String>> = RefCell::default();
    with_both(|name, dir| {
        let provider = json!({ "issuer": "https://issuer.example", "audiences": ["mesh"],
            "local_jwks": { "inline_string": json!({ "keys": made["keys"] }).to_string() } });
        let (_proxy, listen) = gate(name, dir, provider, &[]);
        for case in made["cases"].as_array().expect("a list") {
            let text = |field: &str| case[field].as_str().expect("a text");
            let what = text("name");
            let answer = present(listen, text("token")).expect(what);
            let mut answers = answers.borrow_mut();
            let first = answers.entry(what).or_insert_with(|| answer.clone());
            let lenient = name == "envoy" && STRICTER_THAN_ENVOY.contains(&what);
            if !lenient && (*first != answer || case["status"] != answer.0) {
                wrong.borrow_mut().push(format!("{name}: {what}: {answer:?}, wanted {} or {first:?}", case["status"]));
            }
        }
    });
    assert!(wrong.borrow().is_empty(), "{}", wrong.borrow().join("\n"));
    println!("{} tokens", answers.borrow().len());
}

/// An oidc-provider.
struct Issuer {
    address: SocketAddr,
    _process: Process,
}

/// The modules of Node, or the reason why there is no oidc-provider among them.
fn modules() -> Result<PathBuf, String> {
    let modules = cache().join("node/node_modules");
    let found = modules.join("oidc-provider").exists();
    if found {
        Ok(modules)
    } else {
        Err("skipped: no oidc-provider; scripts/install-test-deps.sh installs it".to_owned())
    }
}

impl Issuer {
    fn start(algorithm: &str, dir: &Path) -> Result<Self, String> {
        let address = free_address();
        let mut command = Command::new("node");
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/peers/oidc.mjs")).arg(modules()?);
        command.args([&address.port().to_string(), algorithm]);
        let mut process = Process::start("oidc", &mut command, dir);
        process.wait_listening(address);
        Ok(Self { address, _process: process })
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn step(&self, name: &str) {
        let request =
            format!("POST /steps/{name} HTTP/1.1\r\nhost: oidc\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(exchange(self.address, request.as_bytes()).expect(name).text(), "done");
    }

    /// A token by the key in force (`/token`), or by the next (`/next/token`).
    fn token(address: SocketAddr, path: &str) -> String {
        let form = "grant_type=client_credentials&scope=read&client_id=load&client_secret=secret";
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{form}",
            form.len()
        );
        let answer = exchange(address, request.as_bytes()).expect("a token").text();
        let answer: Value = serde_json::from_str(&answer).expect(&answer);
        answer["access_token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }
}

/// One token after the other, each presented at once, until dropped.
struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    running: Option<JoinHandle<Result<(), String>>>,
}

impl Load {
    fn start(issuer: SocketAddr, gateway: SocketAddr) -> Self {
        let (stop, served): (Arc<AtomicBool>, Arc<AtomicUsize>) = Default::default();
        let (stopped, count) = (stop.clone(), served.clone());
        let running = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                match present(gateway, &Issuer::token(issuer, "/token"))? {
                    (200, _) => count.fetch_add(1, Ordering::Relaxed),
                    refused => return Err(format!("{refused:?}")),
                };
            }
            Ok(())
        });
        Self { stop, served, running: Some(running) }
    }

    /// Waits for so many more to be served.
    fn go_on(&self, count: usize) {
        let (wanted, end) = (self.served.load(Ordering::Relaxed) + count, Instant::now() + Duration::from_secs(30));
        while self.served.load(Ordering::Relaxed) < wanted {
            let runs = self.running.as_ref().is_some_and(|running| !running.is_finished());
            assert!(runs && Instant::now() < end, "the load has ended, or takes too long");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn end(mut self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.running.take().expect("it runs").join().expect("no panic");
        assert_eq!(ended, Ok(()), "a token of the key in force was refused");
        self.served.load(Ordering::Relaxed)
    }
}

/// Replaces the issuer's key as issuers do: published first, then used, then the former one withdrawn.
fn rotate(issuer: &Issuer, gateway: SocketAddr, what: &str) {
    let token = |path| Issuer::token(issuer.address, path);
    let status = |token: &str| present(gateway, token).map(|(status, _)| status);
    let until = |what: &str, token: &str, expected| {
        eventually(what, || match status(token) {
            Ok(status) if status == expected => Ok(()),
            other => Err(format!("{other:?}")),
        });
    };
    let former = token("/token");
    until("the first key is known", &former, 200);
    let next = token("/next/token");
    assert_eq!(status(&next), Ok(401), "{what}: the next key is not published");
    let load = Load::start(issuer.address, gateway);
    load.go_on(5);
    issuer.step("publish");
    until("the next key is known", &next, 200);
    issuer.step("switch");
    load.go_on(5);
    assert_eq!(status(&former), Ok(200), "{what}: the former key is still published");
    issuer.step("retire");
    until("the former key is known no more", &former, 401);
    load.go_on(5);
    println!("{what}: {} requests served, none refused", load.end());
}

const POLICIES: &str = "
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: jwt, namespace: istio-system}
spec: {jwtRules: [{issuer: '@ISSUER@', audiences: [mesh]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: tokens-only, namespace: istio-system}
spec:
  action: DENY
  rules: [{from: [{source: {notRequestPrincipals: ['@ISSUER@/*']}}]}]
";

const ROUTES: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop, namespace: default}
spec:
  hosts: ['*']
  gateways: [istio-system/gw]
  http: [{route: [{destination: {host: shop}}]}]
";

/// A gateway of our discovery, which finds the keys through the issuer's own discovery document.
fn follows_by_discovery(kind: Gateway, algorithm: &str) -> Result<(), String> {
    let dir = tempfile::tempdir().expect("folder");
    let issuer = Issuer::start(algorithm, dir.path())?;
    let (backend, port) = (Backend::start("shop"), free_address());
    let files = [
        ("services.yaml", service("shop", "http", 80, &[(backend.address, "v1")])),
        ("routes.yaml", gateway(port.port(), ROUTES)),
        ("policies.yaml", POLICIES.replace("@ISSUER@", &issuer.url())),
    ];
    let discovery = Discovery::start_with(dir.path(), &files, &["--jwksRefreshInterval", "500ms"]);
    let mut proxy = start_gateway(kind, discovery.grpc, dir.path())?;
    proxy.wait_listening(port);
    rotate(&issuer, port, &format!("{kind:?} with {algorithm} by discovery"));
    let nobody =
        exchange(port, b"GET / HTTP/1.1\r\nhost: shop.example\r\nconnection: close\r\n\r\n").expect("an answer");
    assert_eq!(nobody.status, 403, "without a token");
    Ok(())
}

#[test]
fn our_gateway_follows_the_keys_of_an_oidc_provider_under_load() {
    for algorithm in ["RS256", "ES256"] {
        if let Err(reason) = follows_by_discovery(Gateway::Ours, algorithm) {
            return println!("{reason}");
        }
    }
}

#[test]
fn an_envoy_gateway_follows_the_keys_of_an_oidc_provider_under_load() {
    if let Err(reason) = follows_by_discovery(Gateway::Envoy("DELTA_GRPC"), "RS256") {
        println!("{reason}");
    }
}

#[test]
fn proxies_that_fetch_keys_themselves_follow_an_oidc_provider_under_load() {
    if let Err(reason) = modules() {
        return println!("{reason}");
    }
    with_both(|name, dir| {
        let issuer = Issuer::start("PS256", dir).expect("an issuer");
        let uri = json!({ "uri": format!("{}/jwks", issuer.url()), "cluster": "oidc", "timeout": "5s" });
        let provider = json!({ "issuer": issuer.url(), "audiences": ["mesh"],
            "remote_jwks": { "http_uri": uri, "cache_duration": "1s", "async_fetch": {} } });
        let (_proxy, listen) = gate(name, dir, provider, &[cluster("oidc", issuer.address, json!({}))]);
        rotate(&issuer, listen, &format!("{name} with PS256 by itself"));
    });
}
