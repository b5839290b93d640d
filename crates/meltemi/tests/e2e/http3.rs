//! HTTP/3 by a foreign client, aioquic: our proxy, and Envoy under the same configuration; and a gateway of the fabric, whose
//! listener comes from our discovery.

use crate::h2::{self, DATA, END_HEADERS, END_STREAM, HEADERS, OK, frame};
use crate::mesh::{Mesh, Workload, can_run, service, settles};
use crate::support::{Backend, Process, VOLATILE, any, cache, envoy, free_address, meltemi};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const CLIENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/peers/http3.py");

/// A Python with aioquic, or the reason why there is none.
fn python() -> Result<PathBuf, String> {
    let python = cache().join("venv/bin/python");
    let has = Command::new(&python).args(["-c", "import aioquic"]).stderr(Stdio::null()).status();
    match has {
        Ok(status) if status.success() => Ok(python),
        _ => Err("skipped: no aioquic; scripts/install-test-deps.sh installs it".to_owned()),
    }
}

/// What the client tells of one connection.
fn ask(mut client: Command, spec: &Value) -> Value {
    let output = client.arg(CLIENT).arg(spec.to_string()).output().expect("python");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let told = text.lines().last().and_then(|line| serde_json::from_str(line).ok());
    told.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}

/// A port that is free for UDP as well.
pub fn free() -> SocketAddr {
    std::iter::repeat_with(free_address).take(100).find(|at| UdpSocket::bind(at).is_ok()).expect("a free port")
}

/// An authority, and certificates of it for `a.test`, `mutual.test` and a client.
pub struct Files(tempfile::TempDir);

impl Files {
    pub fn new() -> Self {
        use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
        let files = Self(tempfile::tempdir().expect("folder"));
        let key = KeyPair::generate().expect("key");
        let mut authority = CertificateParams::new(Vec::new()).expect("names");
        authority.distinguished_name.push(DnType::CommonName, "root of this test");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        std::fs::write(files.path("ca.pem"), authority.self_signed(&key).expect("root").pem()).expect("write");
        let issuer = Issuer::new(authority, key);
        for name in ["a.test", "mutual.test", "client.test"] {
            let own = KeyPair::generate().expect("key");
            let mut params = CertificateParams::new(vec![name.to_owned()]).expect("names");
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
            let certificate = params.signed_by(&own, &issuer).expect("certificate");
            std::fs::write(files.path(&format!("{name}.pem")), certificate.pem()).expect("write");
            std::fs::write(files.path(&format!("{name}.key")), own.serialize_pem()).expect("write");
        }
        files
    }

    pub fn dir(&self) -> &Path {
        self.0.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("read")
    }
}

fn at(address: SocketAddr, protocol: &str) -> Value {
    json!({ "socket_address": { "address": "127.0.0.1", "port_value": address.port(), "protocol": protocol } })
}

const LOG: &str = "%PROTOCOL% %RESPONSE_CODE% %RESPONSE_FLAGS% %REQ(:PATH)% %DOWNSTREAM_TLS_VERSION% %REQUESTED_SERVER_NAME% %DOWNSTREAM_PEER_SUBJECT% %DOWNSTREAM_LOCAL_ADDRESS%\n";

/// A connection manager for HTTP/3 that logs into `log`.
fn manager(log: &Path) -> Value {
    let format = json!({ "text_format_source": { "inline_string": LOG } });
    let log =
        any("envoy.extensions.access_loggers.file.v3.FileAccessLog", json!({ "path": log, "log_format": format }));
    any(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        json!({
            "stat_prefix": "h3", "codec_type": "HTTP3", "http3_protocol_options": {}, "use_remote_address": true,
            "forward_client_cert_details": "SANITIZE_SET", "set_current_client_cert_details": { "subject": true },
            "access_log": [{ "name": "log", "typed_config": log }],
            "http_filters": [{ "name": "router", "typed_config": any("envoy.extensions.filters.http.router.v3.Router", json!({})) }],
            "route_config": { "validate_clusters": false, "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [
                { "match": { "prefix": "/direct" }, "direct_response": { "status": 203, "body": { "inline_string": "direct" } } },
                { "match": { "prefix": "/trailers" }, "route": { "cluster": "trailers" } },
                { "match": { "prefix": "/nowhere" }, "route": { "cluster": "nowhere" } },
                { "match": { "prefix": "/" }, "route": { "cluster": "backend" } },
            ] }] },
        }),
    )
}

/// Serves `a.test`, and `mutual.test` to clients with a certificate.
fn bootstrap(files: &Files, log: &Path, [listen, backend, trailers]: [SocketAddr; 3]) -> Value {
    let chain = |name: &str, mutual: bool| {
        let file = |name: String| json!({ "filename": files.path(&name) });
        let certificate =
            json!({ "certificate_chain": file(format!("{name}.pem")), "private_key": file(format!("{name}.key")) });
        let mut context =
            json!({ "common_tls_context": { "alpn_protocols": ["h3"], "tls_certificates": [certificate] } });
        if mutual {
            context["require_client_certificate"] = json!(true);
            context["common_tls_context"]["validation_context"] = json!({ "trusted_ca": file("ca.pem".into()) });
        }
        let transport = any(
            "envoy.extensions.transport_sockets.quic.v3.QuicDownstreamTransport",
            json!({ "downstream_tls_context": context }),
        );
        json!({
            "filter_chain_match": { "server_names": [name] },
            "transport_socket": { "name": "envoy.transport_sockets.quic", "typed_config": transport },
            "filters": [{ "name": "hcm", "typed_config": manager(log) }],
        })
    };
    let cluster = |name: &str, address: SocketAddr, http2: bool| {
        let version = if http2 { "http2_protocol_options" } else { "http_protocol_options" };
        let options = any(
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            json!({ "explicit_http_config": { version: {} } }),
        );
        json!({
            "name": name, "type": "STATIC", "connect_timeout": "2s",
            "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options },
            "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": at(address, "TCP") } }] }] },
        })
    };
    json!({ "static_resources": {
        "listeners": [{
            "name": "udp", "address": at(listen, "UDP"),
            "udp_listener_config": { "downstream_socket_config": {}, "quic_options": {} },
            "filter_chains": [chain("a.test", false), chain("mutual.test", true)],
        }],
        "clusters": [cluster("backend", backend, false), cluster("trailers", trailers, true)],
    } })
}

/// A program that serves that configuration.
struct Proxy {
    process: Process,
    listen: SocketAddr,
    log: PathBuf,
}

impl Proxy {
    fn start(name: &'static str, mut command: Command, files: &Files, [backend, trailers]: [SocketAddr; 2]) -> Self {
        let (listen, log) = (free(), files.path(&format!("{name}-access.log")));
        let config = files.path(&format!("{name}.json"));
        let text = bootstrap(files, &log, [listen, backend, trailers]).to_string();
        std::fs::write(&config, text).expect("write");
        command.arg("-c").arg(config);
        Self { process: Process::start(name, &mut command, files.dir()), listen, log }
    }

    fn ours(files: &Files, backends: [SocketAddr; 2]) -> Self {
        let mut command = meltemi();
        command.args(["proxy", "--concurrency", "2", "--drain-time-s", "5"]);
        Self::start("proxy", command, files, backends)
    }

    fn envoy(program: &Path, files: &Files, backends: [SocketAddr; 2]) -> Self {
        let mut command = Command::new(program);
        command.args(["--use-dynamic-base-id", "--concurrency", "2", "-l", "error"]);
        Self::start("envoy", command, files, backends)
    }

    /// A connection's spec with more to say. Until the socket is bound the client's first packets are repeated.
    fn spec(&self, more: Value) -> Value {
        let mut spec = json!({ "address": "127.0.0.1", "port": self.listen.port() });
        for (key, value) in more.as_object().expect("an object") {
            spec[key] = value.clone();
        }
        spec
    }

    fn ask(&self, python: &Path, more: Value) -> Value {
        ask(Command::new(python), &self.spec(more))
    }

    /// The log's lines, once there are so many.
    fn logged(&self, lines: usize) -> Vec<String> {
        let read = || std::fs::read_to_string(&self.log).unwrap_or_default();
        let all = || read().lines().map(str::to_owned).collect::<Vec<_>>();
        let enough = || if all().len() >= lines { Ok(()) } else { Err(read()) };
        settles(enough).unwrap_or_else(|log| panic!("{lines} lines are not in\n{log}"));
        all()
    }
}

/// An HTTP/2 server that answers each request with a body and trailers.
fn trailing_backend() -> SocketAddr {
    let answer = |id| {
        let trailers = b"\x00\x0bgrpc-status\x010";
        let head = frame(HEADERS, END_HEADERS, id, &[OK]);
        [head, frame(DATA, 0, id, b"body"), frame(HEADERS, END_HEADERS | END_STREAM, id, trailers)].concat()
    };
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || h2::serve(stream, answer));
        }
    });
    address
}

/// An answer without what two programs may rightly say differently; `None` where the stream or the connection broke.
fn comparable(response: &Value) -> Option<Value> {
    let status = response["status"].as_u64()?;
    let pairs = |value: &Value| -> Vec<(String, String)> { serde_json::from_value(value.clone()).unwrap_or_default() };
    let mut headers = pairs(&response["headers"]);
    headers.retain(|(name, _)| !VOLATILE.contains(&name.as_str()));
    headers.sort();
    Some(
        json!({ "status": status, "headers": headers, "body": response["body"], "length": response["length"], "trailers": response["trailers"] }),
    )
}

/// Each on a connection of its own, since a broken one may take the connection with it.
fn requests() -> Vec<(&'static str, Value)> {
    let big = |fields: usize| (0..fields).map(|n| json!([format!("x-big-{n}"), "b".repeat(8000)])).collect::<Vec<_>>();
    vec![
        ("get", json!({ "path": "/a?b=c" })),
        ("head", json!({ "method": "HEAD" })),
        ("a local answer", json!({ "path": "/direct" })),
        ("no cluster", json!({ "path": "/nowhere" })),
        ("a status", json!({ "headers": [["x-want-status", "404"]] })),
        ("a body", json!({ "method": "POST", "body": 3000 })),
        ("a large body", json!({ "method": "POST", "body": 2_000_000 })),
        ("crumbs of a cookie", json!({ "headers": [["cookie", "a=1"], ["cookie", "b=2"]] })),
        ("two fields of a name", json!({ "headers": [["x-a", "1"], ["x-a", "2"], ["x_b", "3"]] })),
        ("trailers of a response", json!({ "path": "/trailers" })),
        (
            "trailers of a request",
            json!({ "path": "/trailers", "method": "POST", "body": 10, "trailers": [["x-end", "1"]] }),
        ),
        ("many header bytes", json!({ "headers": big(6) })),
        ("too many header bytes", json!({ "headers": big(12) })),
        ("a field of HTTP/1", json!({ "headers": [["connection", "close"]] })),
        ("a name in capitals", json!({ "headers": [["X-A", "1"]] })),
        ("a length that is not kept", json!({ "method": "POST", "body": 10, "headers": [["content-length", "11"]] })),
    ]
}

#[test]
fn requests_are_answered_as_envoy_answers_them() {
    let python = match python() {
        Ok(python) => python,
        Err(reason) => return println!("{reason}"),
    };
    let files = Files::new();
    let backends = [Backend::start("one").address, trailing_backend()];
    let ours = Proxy::ours(&files, backends);
    let theirs = match envoy() {
        Ok(program) => Some(Proxy::envoy(&program, &files, backends)),
        Err(reason) => {
            println!("{reason}");
            None
        }
    };
    let mut wrong = Vec::new();
    for (name, request) in requests() {
        let spec = json!({ "ca": files.path("ca.pem"), "requests": [request] });
        let told = ours.ask(&python, spec.clone());
        let own = comparable(&told["responses"][0]);
        if let Some(theirs) = &theirs {
            let expected = theirs.ask(&python, spec);
            // Envoy resets the stream right after its 431, which then need not arrive.
            let excessive =
                expected["responses"][0]["reset"] == 0x107 && own.as_ref().is_some_and(|own| own["status"] == 431);
            if comparable(&expected["responses"][0]) != own && !excessive {
                wrong.push(format!("{name}: we say {told:#}, Envoy {expected:#}"));
            }
        }
        let statuses = [
            ("get", 200),
            ("a local answer", 203),
            ("no cluster", 503),
            ("trailers of a response", 200),
            ("too many header bytes", 431),
        ];
        let known = statuses.iter().find(|(known, _)| *known == name);
        if known.is_some_and(|(_, status)| own.as_ref().is_none_or(|own| own["status"] != *status)) {
            wrong.push(format!("{name}: {told:#}"));
        }
    }
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), ours.process.output());
}

#[test]
fn a_hundred_streams_share_a_connection() {
    let python = match python() {
        Ok(python) => python,
        Err(reason) => return println!("{reason}"),
    };
    let files = Files::new();
    let ours = Proxy::ours(&files, [Backend::start("one").address, trailing_backend()]);
    let many = json!([
        { "times": 60, "headers": [["x-want-delay-ms", "100"]] },
        { "times": 30, "method": "POST", "body": 100_000 },
        { "times": 10, "path": "/trailers" },
    ]);
    let told = ours.ask(&python, json!({ "requests": many }));
    let responses = told["responses"].as_array().expect("responses");
    assert_eq!(responses.len(), 100);
    for (n, response) in responses.iter().enumerate() {
        assert_eq!(response["status"], 200, "{n}: {response:#}\n{}", ours.process.output());
        let length = response["length"].as_u64().expect("a length");
        match n {
            60..90 => assert!(length > 100_000, "{n}: {response:#}"),
            90.. => assert_eq!((length, &response["trailers"]), (4, &json!([["grpc-status", "0"]]))),
            _ => assert!(length > 0),
        }
    }
    let log = ours.logged(100);
    let expected = format!("HTTP/3 200 - /trailers TLSv1.3 a.test - {}", ours.listen);
    assert_eq!(log.iter().filter(|line| **line == expected).count(), 10, "{log:#?}");
}

#[test]
fn names_choose_certificates_and_clients_show_theirs() {
    let python = match python() {
        Ok(python) => python,
        Err(reason) => return println!("{reason}"),
    };
    let files = Files::new();
    let backends = [Backend::start("one").address, trailing_backend()];
    let mut proxies = vec![Proxy::ours(&files, backends)];
    match envoy() {
        Ok(program) => proxies.push(Proxy::envoy(&program, &files, backends)),
        Err(reason) => println!("{reason}"),
    }
    for proxy in &proxies {
        let own = json!({ "certificate": files.path("client.test.pem"), "key": files.path("client.test.key") });
        let ask = |name: &str, with: &Value| {
            let mut spec = json!({ "sni": name, "ca": files.path("ca.pem"), "requests": [{}] });
            for (key, value) in with.as_object().expect("an object") {
                spec[key] = value.clone();
            }
            proxy.ask(&python, spec)
        };
        let told = ask("a.test", &json!({}));
        assert_eq!(told["responses"][0]["status"], 200, "{told:#}\n{}", proxy.process.output());
        let told = ask("mutual.test", &own);
        assert_eq!(told["responses"][0]["status"], 200, "{told:#}\n{}", proxy.process.output());
        let body = told["responses"][0]["body"].as_str().expect("a body");
        assert!(body.contains("x-forwarded-client-cert: Hash=") && body.contains("CN=client.test"), "{body}");
        for (name, with) in [("mutual.test", json!({})), ("other.test", json!({ "patience": 5 }))] {
            let told = ask(name, &with);
            let refused = told["responses"].as_array().is_some_and(|all| all.iter().all(|one| one["status"].is_null()));
            assert!(refused, "{name}: {told:#}");
        }
        let log = proxy.logged(2);
        let expected = format!("HTTP/3 200 - / TLSv1.3 mutual.test CN=client.test {}", proxy.listen);
        assert!(log.contains(&expected), "{log:#?}");
        assert_eq!(log.len(), 2, "{log:#?}");
    }
}

/// A client that holds its connection.
struct Held(Child, BufReader<std::process::ChildStdout>);

impl Held {
    fn start(python: &Path, spec: &Value) -> Self {
        let mut command = Command::new(python);
        let mut child = command.arg(CLIENT).arg(spec.to_string()).stdout(Stdio::piped()).spawn().expect("python");
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        output.read_line(&mut line).expect("a line");
        assert_eq!(line, "ready\n");
        Self(child, output)
    }

    fn told(mut self) -> Value {
        let mut text = String::new();
        self.1.read_to_string(&mut text).expect("text");
        self.0.wait().expect("our child");
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"))
    }
}

#[test]
fn a_proxy_that_leaves_says_goaway_and_serves_what_was_asked() {
    let python = match python() {
        Ok(python) => python,
        Err(reason) => return println!("{reason}"),
    };
    let files = Files::new();
    let mut ours = Proxy::ours(&files, [Backend::start("one").address, trailing_backend()]);
    // What is sent right after the first GOAWAY is still served.
    let slow = json!([{ "headers": [["x-want-delay-ms", "300"]] }]);
    let spec = ours.spec(json!({ "hold": true, "requests": [{}], "late": slow }));
    let held = Held::start(&python, &spec);
    ours.process.signal("TERM");
    let told = held.told();
    assert_eq!(told["responses"][0]["status"], 200, "{told:#}");
    // A slow client may be too late even so, and is told that it may ask elsewhere.
    let (served, rejected) = (json!([200, null]), json!([null, 0x10b]));
    let late = json!([told["late"][0]["status"], told["late"][0]["reset"]]);
    let next = if late == served { 8 } else { 4 };
    assert!(late == served || late == rejected, "{told:#}\n{}", ours.process.output());
    assert_eq!(told["goaways"], json!([(1u64 << 62) - 4, next]), "{told:#}");
    ours.process.wait(Duration::from_secs(20));
}

const GATEWAY: &str = "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: web, namespace: app}\nspec:\n  selector: {istio: ingressgateway}\n  servers:\n  - {port: {number: 443, name: https, protocol: HTTPS}, hosts: [a.test], tls: {mode: SIMPLE, credentialName: a}}\n  - {port: {number: 443, name: mutual, protocol: HTTPS}, hosts: [mutual.test], tls: {mode: MUTUAL, credentialName: mutual}}\n---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web, namespace: app}\nspec:\n  hosts: [a.test, mutual.test]\n  gateways: [web]\n  http: [{route: [{destination: {host: web}}]}]\n---\n";

fn secret(files: &Files, name: &str, server: &str) -> String {
    let block = |file: &str| files.text(file).trim().replace('\n', "\n    ");
    format!(
        "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata: {{name: {name}, namespace: istio-system}}\nstringData:\n  tls.crt: |\n    {}\n  tls.key: |\n    {}\n  ca.crt: |\n    {}\n---\n",
        block(&format!("{server}.pem")),
        block(&format!("{server}.key")),
        block("ca.pem"),
    )
}

#[test]
fn a_gateway_of_the_mesh_serves_http3_and_says_so_over_https() {
    let python = match python().and_then(|python| can_run().map(|()| python)) {
        Ok(python) => python,
        Err(reason) => return println!("{reason}"),
    };
    let files = Files::new();
    let ingress = "selector: {istio: ingressgateway}, type: LoadBalancer, ports: [{name: https, port: 443, targetPort: 8443}, {name: h3, port: 443, targetPort: 8443, protocol: UDP}]";
    let documents = Workload { name: "web", labels: "app: web", ..Workload::default() }.yaml()
        + &Workload { name: "client", labels: "app: client", ..Workload::default() }.yaml()
        + &service("app", "web", "selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]")
        + &service("istio-system", "istio-ingressgateway", ingress)
        + GATEWAY;
    let secrets = secret(&files, "a", "a.test") + &secret(&files, "mutual", "mutual.test");
    let mut command = meltemi();
    command.env("PILOT_ENABLE_QUIC_LISTENERS", "true");
    let mesh = Mesh::start_by(command, files.dir(), &[("mesh.yaml", &documents), ("secrets.yaml", &secrets)]);
    let gateway = mesh.pod("istio-ingressgateway");
    let address = gateway.address().to_string();
    let ask = |more: Value| {
        let mut spec = json!({ "address": address, "port": 8443, "ca": files.path("ca.pem"), "requests": [{}] });
        for (key, value) in more.as_object().expect("an object") {
            spec[key] = value.clone();
        }
        ask(gateway.command(&python), &spec)
    };
    let served = |more: &Value| {
        let told = ask(more.clone());
        if told["responses"][0]["status"] == 200 { Ok(()) } else { Err(format!("{told:#}")) }
    };
    settles(|| served(&json!({}))).unwrap_or_else(|told| panic!("{told}\n{}", mesh.process.output()));
    // Whoever comes over TCP is told.
    let resolve = format!("a.test:8443:{address}");
    let ca = files.path("ca.pem").display().to_string();
    let answer = gateway.curl(&format!("--cacert {ca} --resolve {resolve} https://a.test:8443/")).expect("an answer");
    assert_eq!((answer.status, answer.header("alt-svc")), (200, Some("h3=\":443\"; ma=86400")));
    // A server that wants certificates wants them here too.
    let own = json!({ "sni": "mutual.test", "certificate": files.path("client.test.pem"), "key": files.path("client.test.key") });
    settles(|| served(&own)).unwrap_or_else(|told| panic!("{told}\n{}", mesh.process.output()));
    let told = ask(json!({ "sni": "mutual.test" }));
    assert!(served(&json!({ "sni": "mutual.test" })).is_err(), "{told:#}");
    // A new certificate is shown on the next connection.
    let before = ask(json!({}))["certificate"].clone();
    let renewed = Files::new();
    mesh.write("secrets.yaml", &(secret(&renewed, "a", "a.test") + &secret(&files, "mutual", "mutual.test")));
    let shown = || {
        let told = ask(json!({ "ca": renewed.path("ca.pem") }));
        let fine = told["responses"][0]["status"] == 200 && told["certificate"] != before;
        if fine { Ok(()) } else { Err(format!("{told:#}")) }
    };
    settles(shown).unwrap_or_else(|told| panic!("{told}\n{}", mesh.process.output()));
}
