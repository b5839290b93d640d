//! Policies end to end: a gateway under our discovery holds requests against AuthorizationPolicies and RequestAuthentications,
//! with tokens of an issuer that rotates its keys.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PublicKeyData as _, SigningKey as _};
use serde_json::{Value, json};

use crate::control_plane::{Discovery, Gateway, eventually, gateway, python, service, start_gateway};
use crate::support::{Backend, exchange, free_address};

/// One key of an issuer.
struct Key {
    id: &'static str,
    pair: KeyPair,
}

impl Key {
    fn new(id: &'static str) -> Self {
        Self { id, pair: KeyPair::generate().expect("a key") }
    }

    /// RFC 7517, of the uncompressed point.
    fn public(&self) -> Value {
        let (x, y) = self.pair.der_bytes()[1..].split_at(32);
        let [x, y] = [x, y].map(|number| URL_SAFE_NO_PAD.encode(number));
        json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": self.id, "x": x, "y": y})
    }

    /// A token of issuer `one` with these claims besides.
    fn token(&self, claims: &Value) -> String {
        let mut payload = json!({"iss": "one", "sub": "someone", "exp": 4_000_000_000_u64});
        let own = claims.as_object().cloned().unwrap_or_default();
        payload.as_object_mut().expect("an object").extend(own);
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&json!({"alg": "ES256", "kid": self.id})), part(&payload));
        let signature = self.pair.sign(signed.as_bytes()).expect("a signature");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(fixed_width(&signature)))
    }
}

/// The two numbers of a signature in DER as RFC 7518 has them, of 32 bytes each.
fn fixed_width(der: &[u8]) -> Vec<u8> {
    let mut rest = &der[2..];
    let mut both = Vec::new();
    for _ in 0..2 {
        let length = usize::from(rest[1]);
        let number = &rest[2..2 + length];
        let digits = number.strip_prefix(&[0]).unwrap_or(number);
        both.extend(std::iter::repeat_n(0, 32 - digits.len()).chain(digits.iter().copied()));
        rest = &rest[2 + length..];
    }
    both
}

/// Answers each connection's one request, by its head, with what follows the version in a response.
fn server(answer: impl Fn(&str) -> String + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && client.read(&mut byte).is_ok_and(|count| count == 1) {
                head.extend(byte);
            }
            let _ = write!(client, "HTTP/1.1 {}", answer(&String::from_utf8_lossy(&head)));
        }
    });
    address
}

fn key_server(keys: Arc<Mutex<Value>>) -> SocketAddr {
    server(move |_| {
        let body = keys.lock().expect("no panic").to_string();
        format!("200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    })
}

/// Lets pass what says so, and tells whom it is from; tells others why they may not.
fn authorizer() -> SocketAddr {
    server(|head| {
        let allowed =
            head.starts_with("GET /check/ask") && head.contains("x-pass: yes") && head.contains("x-mesh: here");
        let (status, header) = if allowed { ("200 OK", "x-user: known") } else { ("403 No", "x-reason: unknown") };
        format!("{status}\r\n{header}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
    })
}

const MESH: &str = "
enableAutoMtls: false
extensionProviders:
- name: asked
  envoyExtAuthzHttp:
    service: authorizer.default.svc.cluster.local
    port: 80
    timeout: 2s
    pathPrefix: /check
    includeRequestHeadersInCheck: [x-pass]
    includeAdditionalHeadersInCheck: {x-mesh: here}
    headersToUpstreamOnAllow: [x-user]
    headersToDownstreamOnDeny: [x-reason]
";

fn policies(keys: SocketAddr) -> String {
    format!(
        "
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: jwt, namespace: istio-system}}
spec:
  selector: {{matchLabels: {{istio: ingressgateway}}}}
  jwtRules:
  - {{issuer: one, jwksUri: 'http://{keys}/', outputClaimToHeaders: [{{header: x-sub, claim: sub}}]}}
  - {{issuer: broken, jwksUri: 'http://127.0.0.1:1/'}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: deny, namespace: istio-system}}
spec:
  action: DENY
  rules:
  - to: [{{operation: {{paths: [/private*]}}}}]
    from: [{{source: {{notRequestPrincipals: [one/*]}}}}]
  - to: [{{operation: {{paths: ['/items/{{*}}/secret']}}}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: allow, namespace: istio-system}}
spec:
  selector: {{matchLabels: {{istio: ingressgateway}}}}
  rules:
  - to: [{{operation: {{methods: [GET], hosts: [shop.example, staff.example]}}}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: ask, namespace: istio-system}}
spec: {{action: CUSTOM, provider: {{name: asked}}, rules: [{{to: [{{operation: {{paths: [/ask*]}}}}]}}]}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: of-another, namespace: istio-system}}
spec:
  action: DENY
  selector: {{matchLabels: {{app: another}}}}
  rules: [{{}}]
"
    )
}

const ROUTES: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop, namespace: default}
spec:
  hosts: ['*']
  gateways: [istio-system/gw]
  http:
  - match: [{headers: {'@request.auth.claims[groups]': {exact: staff}}}]
    route: [{destination: {host: staff}}]
  - route: [{destination: {host: shop}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: staff-alone, namespace: default}
spec:
  hosts: [staff.example]
  gateways: [istio-system/gw]
  http:
  - match: [{headers: {'@request.auth.claims[groups]': {exact: staff}}}]
    route: [{destination: {host: staff}}]
";

/// The status, and the first line of what a backend said.
fn ask(port: SocketAddr, start: &str, host: &str, token: Option<&str>) -> (u16, String) {
    let token = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    let text = format!("{start} HTTP/1.1\r\nhost: {host}\r\n{token}connection: close\r\n\r\n");
    let answer = exchange(port, text.as_bytes()).expect("an answer");
    (answer.status, answer.text())
}

fn policies_are_enforced(kind: Gateway) -> Result<(), String> {
    let dir = tempfile::tempdir().expect("folder");
    let (shop, staff) = (Backend::start("shop"), Backend::start("staff"));
    let (first, second) = (Key::new("first"), Key::new("second"));
    let served = Arc::new(Mutex::new(json!({"keys": [first.public()]})));
    let keys = key_server(served.clone());
    let port = free_address();
    let services = [("shop", shop.address), ("staff", staff.address), ("authorizer", authorizer())]
        .map(|(name, address)| service(name, "http", 80, &[(address, "v1")]));
    let files = [
        ("services.yaml", services.join("---\n")),
        ("routes.yaml", gateway(port.port(), ROUTES)),
        ("policies.yaml", policies(keys)),
    ];
    let mesh = dir.path().join("policies-mesh.yaml");
    std::fs::write(&mesh, MESH).expect("write");
    let mesh = mesh.display().to_string();
    let discovery = Discovery::start_with(dir.path(), &files, &["--jwksRefreshInterval", "1s", "--meshConfig", &mesh]);
    let mut proxy = start_gateway(kind, discovery.grpc, dir.path())?;
    proxy.wait_listening(port);
    let host = "shop.example";
    let told = |what: &(u16, String)| format!("{what:?}\n{}\n{}", proxy.output(), discovery.process.output());
    let token = first.token(&json!({}));
    eventually("a valid token", || match ask(port, "GET /private", host, Some(&token)) {
        (200, text) if text.contains("x-sub: someone") => Ok(()),
        other => Err(told(&other)),
    });
    let status = |start: &str, host: &str, token: Option<&str>| ask(port, start, host, token).0;
    assert_eq!(status("GET /public", host, None), 200);
    assert_eq!(status("GET /private", host, None), 403);
    assert_eq!(status("GET /x/../private", host, None), 403);
    assert_eq!(status("GET /items/7/secret", host, Some(&token)), 403);
    assert_eq!(status("GET /items/7/8/secret", host, Some(&token)), 200);
    assert_eq!(status("POST /public", host, None), 403);
    assert_eq!(status("GET /public", "other.example", None), 403);
    let forged = second.token(&json!({}));
    assert_eq!(status("GET /public", host, Some(&forged)), 401);
    assert_eq!(status("GET /public", host, Some(&first.token(&json!({"iss": "broken"})))), 401);
    assert_eq!(status("GET /public", host, Some(&first.token(&json!({"exp": 1})))), 401);
    let staff_token = first.token(&json!({"groups": ["guests", "staff"]}));
    assert!(ask(port, "GET /public", host, Some(&staff_token)).1.starts_with("backend staff"));
    assert!(ask(port, "GET /public", host, Some(&token)).1.starts_with("backend shop"));
    // Before the token is read there is no route at all.
    assert!(ask(port, "GET /public", "staff.example", Some(&staff_token)).1.starts_with("backend staff"));
    assert_eq!(status("GET /public", "staff.example", Some(&token)), 404);
    assert_eq!(status("GET /public", "staff.example", None), 404);
    let asked = |headers: &str| {
        let text = format!("GET /ask HTTP/1.1\r\nhost: {host}\r\n{headers}connection: close\r\n\r\n");
        exchange(port, text.as_bytes()).expect("an answer")
    };
    let passed = asked("x-pass: yes\r\n");
    assert!(passed.status == 200 && passed.text().contains("x-user: known"), "{}", passed.text());
    let refused = asked("");
    assert_eq!((refused.status, refused.header("x-reason")), (403, Some("unknown")));
    // The issuer's next key is known within moments, and the old one is no more.
    *served.lock().expect("no panic") = json!({"keys": [second.public()]});
    eventually("the key after rotation", || match ask(port, "GET /private", host, Some(&forged)) {
        (200, _) => Ok(()),
        other => Err(told(&other)),
    });
    assert_eq!(status("GET /public", host, Some(&token)), 401);
    Ok(())
}

#[test]
fn our_proxy_enforces_policies_of_our_discovery() {
    policies_are_enforced(Gateway::Ours).expect("our proxy is always there");
}

#[test]
fn envoy_enforces_policies_of_our_discovery() {
    if let Err(reason) = policies_are_enforced(Gateway::Envoy("DELTA_GRPC")) {
        println!("{reason}");
    }
}

const OF_ECHO: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny, namespace: default}
spec: {action: DENY, rules: [{to: [{operation: {paths: [/echo.Echo/Denied]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: allow, namespace: default}
spec: {selector: {matchLabels: {app: echo}}, rules: [{to: [{operation: {paths: [/echo.Echo/Denied, /echo.Echo/Echo]}}]}]}
";

/// What becomes of calls to a grpcio server that our discovery tells how to serve, by method.
fn served_by_grpcio(methods: &[&str]) -> Result<Value, String> {
    let python = python()?;
    let dir = tempfile::tempdir().expect("folder");
    let address = free_address();
    let services = service("echo", "grpc", 7070, &[(address, "v1")]);
    let files = [("services.yaml", services), ("policies.yaml", OF_ECHO.to_owned())];
    let discovery = Discovery::start(dir.path(), &files);
    let metadata = json!({"GENERATOR": "grpc", "NAMESPACE": "default", "LABELS": {"app": "echo"}});
    let bootstrap = json!({
        "xds_servers": [{"server_uri": discovery.grpc.to_string(), "channel_creds": [{"type": "insecure"}],
            "server_features": ["xds_v3"]}],
        "server_listener_resource_name_template": "xds.istio.io/grpc/lds/inbound/%s",
        "node": {"id": "sidecar~127.0.0.1~echo-1.default~default.svc.cluster.local", "cluster": "c", "metadata": metadata},
    });
    let file = dir.path().join("grpc.json");
    std::fs::write(&file, bootstrap.to_string()).expect("write");
    let output = Command::new(python)
        .args([concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/peers/peers.py"), "grpc-xds-server"])
        .arg(address.port().to_string())
        .args(methods)
        .env("GRPC_XDS_BOOTSTRAP", &file)
        .output()
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    Ok(serde_json::from_str(text.trim()).unwrap_or_else(|_| panic!("{text}\n{errors}\n{}", discovery.process.output())))
}

#[test]
fn grpcio_serves_as_policies_of_our_discovery_say() {
    match served_by_grpcio(&["/echo.Echo/Echo", "/echo.Echo/Denied", "/echo.Echo/Other"]) {
        Ok(calls) => assert_eq!(
            calls,
            json!({"/echo.Echo/Echo": "served", "/echo.Echo/Denied": "PERMISSION_DENIED", "/echo.Echo/Other": "PERMISSION_DENIED"})
        ),
        Err(reason) => println!("{reason}"),
    }
}
