//! Routes of the Gateway API in a running mesh: for its sidecars, and at the gateway that a Gateway names. Each case replaces the
//! file `routes.yaml` while the mesh runs, and holds soon after.

use crate::features::{make_certificates, secret};
use crate::mesh::{Mesh, Pod, Workload, can_run, service, settles};
use crate::support::{Answer, read_answer};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

type Outcome = Result<(), String>;

struct Town {
    mesh: Mesh,
    client: Pod,
    /// With the certificate of the authority.
    folder: PathBuf,
}

const GATEWAY: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: town, namespace: istio-system}
spec:
  gatewayClassName: istio
  addresses: [{type: Hostname, value: istio-ingressgateway}]
  listeners:
  - {name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}
  - name: https
    port: 443
    protocol: HTTPS
    hostname: shop.example
    tls: {certificateRefs: [{name: shop}]}
    allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {kubernetes.io/metadata.name: app}}}}
  - {name: tcp, port: 31400, protocol: TCP, allowedRoutes: {namespaces: {from: All}}}
---
";

/// A route in the namespace of the applications; `spec` is YAML.
fn route(kind: &str, name: &str, spec: &str) -> String {
    let version = if kind == "TCPRoute" { "v1alpha2" } else { "v1" };
    let mut text = format!(
        "apiVersion: gateway.networking.k8s.io/{version}\nkind: {kind}\nmetadata: {{name: {name}, namespace: app}}\nspec:\n"
    );
    for line in spec.lines() {
        text += &format!("  {line}\n");
    }
    text + "---\n"
}

const MESH: &str = "parentRefs: [{group: '', kind: Service, name: web}]\n";
const INGRESS: &str = "parentRefs: [{name: town, namespace: istio-system}]\n";

fn check(holds: bool, what: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(what()) }
}

fn served_by(answer: &Answer) -> &str {
    answer.header("x-served-by").unwrap_or("- -").split(' ').next().unwrap_or_default()
}

fn report(answer: &Answer) -> Result<Value, String> {
    serde_json::from_slice(&answer.body).map_err(|error| format!("{error}: {} {}", answer.status, answer.text()))
}

impl Town {
    /// From the pod with a sidecar: status, and which workload served.
    fn expect(&self, curl: &str, status: u16, by: &str) -> Outcome {
        let answer = self.client.curl(curl)?;
        check((answer.status, served_by(&answer)) == (status, by), || {
            format!("{curl}: not {status} by {by}: {answer:?}")
        })
    }

    fn reported(&self, curl: &str) -> Result<Value, String> {
        report(&self.client.curl(curl)?)
    }

    /// Of 80 requests at least some are each workload's, and the first has more.
    fn shares(&self, curl: &str) -> Outcome {
        let counts = self.client.served_by(curl)?;
        let of = |workload: &str| counts.get(workload).copied().unwrap_or_default();
        check(of("web-v1") + of("web-v2") == 80 && of("web-v1") > of("web-v2") && of("web-v2") > 0, || {
            format!("{counts:?}")
        })
    }

    /// curl from outside, to the listener with TLS.
    fn secure(&self, name: &str) -> Result<Answer, String> {
        let at = self.mesh.gateway(443);
        let mut command = Command::new("curl");
        command.args(["-sS", "-i", "--raw", "--max-time", "10", "--cacert"]).arg(self.folder.join("ca.pem"));
        command.arg("--resolve").arg(format!("{name}:{}:{}", at.port(), at.ip()));
        let output = command.arg(format!("https://{name}:{}/path", at.port())).output().expect("curl");
        if !output.status.success() {
            return Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim()));
        }
        read_answer(&mut &output.stdout[..], false)
    }
}

struct Case {
    name: &'static str,
    routes: String,
    holds: fn(&Town) -> Outcome,
}

fn case(name: &'static str, routes: String, holds: fn(&Town) -> Outcome) -> Case {
    Case { name, routes, holds }
}

fn in_the_mesh() -> Vec<Case> {
    vec![
        case(
            "mesh: backends by weight",
            route(
                "HTTPRoute",
                "web",
                &format!(
                    "{MESH}rules: [{{backendRefs: [{{name: web-v1, port: 8080, weight: 3}}, {{name: web-v2, port: 8080, weight: 1}}]}}]"
                ),
            ),
            |t| t.shares("'http://web:8080/?n=[1-80]'"),
        ),
        case(
            "mesh: the more specific match first, wherever it stands, and prefixes of whole segments",
            route(
                "HTTPRoute",
                "web",
                &format!(
                    "{MESH}rules:
- {{matches: [{{path: {{value: /a}}}}], backendRefs: [{{name: web-v1, port: 8080}}]}}
- {{matches: [{{path: {{value: /a}}, headers: [{{name: x-color, value: blue}}]}}], backendRefs: [{{name: web-v2, port: 8080}}]}}
- {{matches: [{{path: {{type: Exact, value: /a/exact}}}}], backendRefs: [{{name: web-v2, port: 8080}}]}}
- {{matches: [{{path: {{value: /gone}}}}], backendRefs: [{{name: nobody, port: 8080}}]}}
- {{matches: [{{path: {{value: /none}}}}]}}"
                ),
            ),
            |t| {
                t.expect("http://web:8080/a/b", 200, "web-v1")?;
                t.expect("-H 'x-color: blue' http://web:8080/a/b", 200, "web-v2")?;
                t.expect("http://web:8080/a/exact", 200, "web-v2")?;
                // No match, a backend that is not there, and no backend at all.
                t.expect("http://web:8080/ab", 404, "-")?;
                t.expect("http://web:8080/gone", 500, "-")?;
                t.expect("http://web:8080/none", 500, "-")
            },
        ),
        case(
            "mesh: filters",
            route(
                "HTTPRoute",
                "web",
                &format!(
                    "{MESH}rules:
- matches: [{{path: {{value: /old}}}}]
  filters:
  - {{type: RequestHeaderModifier, requestHeaderModifier: {{set: [{{name: x-set, value: one}}], add: [{{name: x-add, value: two}}], remove: [x-gone]}}}}
  - {{type: ResponseHeaderModifier, responseHeaderModifier: {{set: [{{name: x-answer, value: three}}]}}}}
  - {{type: URLRewrite, urlRewrite: {{hostname: other.example, path: {{type: ReplacePrefixMatch, replacePrefixMatch: /}}}}}}
  backendRefs: [{{name: web-v1, port: 8080}}]
- matches: [{{path: {{value: /moved}}}}]
  filters: [{{type: RequestRedirect, requestRedirect: {{hostname: new.example, statusCode: 307, path: {{type: ReplacePrefixMatch, replacePrefixMatch: /here}}}}}}]
- matches: [{{path: {{value: /cors}}}}]
  filters: [{{type: CORS, cors: {{allowOrigins: ['https://*.example'], allowMethods: [GET]}}}}]
  backendRefs: [{{name: web-v2, port: 8080}}]"
                ),
            ),
            |t| {
                let answer = t.client.curl("-H 'x-gone: x' -H 'x-set: x' http://web:8080/old/page")?;
                check(answer.header("x-answer") == Some("three"), || format!("{answer:?}"))?;
                let seen = report(&answer)?;
                let headers = &seen["headers"];
                check(
                    seen["path"] == "/page"
                        && headers["x-set"] == "one"
                        && headers["x-add"] == "two"
                        && headers["x-gone"].is_null(),
                    || seen.to_string(),
                )?;
                check(t.reported("http://web:8080/old")?["path"] == "/", || "the prefix alone".to_owned())?;
                let moved = t.client.curl("http://web:8080/moved/on")?;
                check(
                    (moved.status, moved.header("location")) == (307, Some("http://new.example:8080/here/on")),
                    || format!("{moved:?}"),
                )?;
                let origin = |name: &str| t.client.curl(&format!("-H 'origin: {name}' http://web:8080/cors"));
                let (ours, theirs) = (origin("https://a.example")?, origin("https://a.invalid")?);
                let allowed = |answer: &Answer| answer.header("access-control-allow-origin").map(str::to_owned);
                check(
                    allowed(&ours).as_deref() == Some("https://a.example") && allowed(&theirs).is_none(),
                    || format!("{ours:?} {theirs:?}"),
                )
            },
        ),
        case(
            "mesh: calls of gRPC by service",
            route(
                "GRPCRoute",
                "web",
                &format!(
                    "{MESH}rules:
- {{matches: [{{method: {{service: shop.Reviews}}}}], backendRefs: [{{name: web-v2, port: 7070}}]}}
- {{backendRefs: [{{name: web-v1, port: 7070}}]}}"
                ),
            ),
            |t| {
                for (service, workload) in [("shop.Reviews", "web-v2"), ("shop.Orders", "web-v1")] {
                    let answer = t.reported(&format!("'http://localhost:8080/call?url=grpc://web:7070/{service}/Echo'"))?;
                    check(answer["calls"][0]["body"]["service"] == workload, || answer.to_string())?;
                }
                Ok(())
            },
        ),
    ]
}

fn at_the_gateway() -> Vec<Case> {
    vec![
        case(
            "gateway: hosts, paths, weights and filters",
            route(
                "HTTPRoute",
                "shop",
                &format!(
                    "{INGRESS}hostnames: [shop.example]
rules:
- matches: [{{path: {{value: /two}}}}]
  filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{add: [{{name: x-gate, value: town}}]}}}}]
  backendRefs: [{{name: web-v2, port: 8080}}]
- backendRefs: [{{name: web-v1, port: 8080}}]"
                ),
            ),
            |t| {
                let two = t.mesh.get("shop.example", "/two")?;
                check(served_by(&two) == "web-v2" && report(&two)?["headers"]["x-gate"] == "town", || {
                    format!("{two:?}")
                })?;
                let rest = t.mesh.get("shop.example", "/twofold")?;
                check(served_by(&rest) == "web-v1", || format!("{rest:?}"))?;
                let other = t.mesh.get("other.example", "/")?;
                check(other.status == 404, || format!("{other:?}"))?;
                let secure = t.secure("shop.example")?;
                check(served_by(&secure) == "web-v1", || format!("{secure:?}"))?;
                check(t.secure("pass.example").is_err(), || "a host of no listener".to_owned())
            },
        ),
        case(
            "gateway: the rules of several routes for one host together, in their order",
            route(
                "HTTPRoute",
                "all",
                &format!(
                    "{INGRESS}hostnames: [shop.example]\nrules: [{{backendRefs: [{{name: web-v1, port: 8080}}]}}]"
                ),
            ) + &route(
                "HTTPRoute",
                "part",
                &format!(
                    "{INGRESS}hostnames: [shop.example]\nrules: [{{matches: [{{path: {{value: /part}}}}], backendRefs: [{{name: web-v2, port: 8080}}]}}]"
                ),
            ),
            |t| {
                for (path, workload) in [("/", "web-v1"), ("/part/of", "web-v2")] {
                    let answer = t.mesh.get("shop.example", path)?;
                    check(served_by(&answer) == workload, || format!("{path}: {answer:?}"))?;
                }
                Ok(())
            },
        ),
        case(
            "gateway: another namespace's backend needs a grant, and fails with 500 without one",
            route(
                "HTTPRoute",
                "shop",
                &format!(
                    "{INGRESS}hostnames: [shop.example]\nrules: [{{backendRefs: [{{name: far, namespace: other, port: 8080}}]}}]"
                ),
            ),
            |t| {
                let refused = t.mesh.get("shop.example", "/")?;
                check(refused.status == 500, || format!("{refused:?}"))?;
                t.mesh.write(
                    "grant.yaml",
                    "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {name: g, namespace: other}\n\
                     spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: app}], to: [{group: '', kind: Service}]}\n",
                );
                let granted = settles(|| {
                    let answer = t.mesh.get("shop.example", "/")?;
                    check(served_by(&answer) == "far", || format!("{answer:?}"))
                });
                t.mesh.write("grant.yaml", "");
                granted
            },
        ),
        case(
            "gateway: TCP",
            route(
                "TCPRoute",
                "text",
                "parentRefs: [{name: town, namespace: istio-system, sectionName: tcp}]\nrules: [{backendRefs: [{name: web-v1, port: 9000}]}]",
            ),
            |t| {
                let mut stream = std::net::TcpStream::connect(t.mesh.gateway(31400)).map_err(|e| e.to_string())?;
                stream.set_read_timeout(Some(Duration::from_secs(5))).map_err(|e| e.to_string())?;
                stream.write_all(b"word\n").map_err(|e| e.to_string())?;
                let mut line = String::new();
                let read = BufReader::new(stream).read_line(&mut line);
                check(read.is_ok() && line.ends_with(": word\n"), || format!("{read:?} {line:?}"))
            },
        ),
    ]
}

fn town() -> String {
    let mut text = String::new();
    let client = Workload { name: "client", labels: "app: client", account: "client", ..Workload::default() };
    text += &client.yaml();
    let args = "[echo, --http, '8080,7070', --tcp, '9000']";
    let ports: &[u16] = &[8080, 7070, 9000];
    let all = "ports: [{name: http, port: 8080}, {name: grpc, port: 7070}, {name: tcp, port: 9000}]";
    for version in ["v1", "v2"] {
        let (name, labels) = (format!("web-{version}"), format!("app: web, version: {version}"));
        text += &Workload { name: &name, labels: &labels, account: "web", args, ports, ..Workload::default() }.yaml();
        text += &service("app", &name, &format!("selector: {{version: {version}}}, {all}"));
    }
    text += &Workload { namespace: "other", name: "far", labels: "app: far", ..Workload::default() }.yaml();
    text += &service("other", "far", "selector: {app: far}, ports: [{name: http, port: 8080}]");
    text += &service("app", "client", "selector: {app: client}, ports: [{name: http, port: 8080}]");
    text += "apiVersion: v1\nkind: Namespace\nmetadata: {name: app}\n---\n";
    text + &service("app", "web", &format!("selector: {{app: web}}, {all}"))
}

/// The Gateway's status, as the control plane shows it.
fn gateway_is_programmed(t: &Town) -> Outcome {
    let output = t.mesh.process.output();
    let page = output.lines().find_map(|line| line.trim().strip_prefix("control plane: http://"));
    let address = page.and_then(|page| page.split('/').next()?.parse().ok()).ok_or("no control plane")?;
    let objects = report(&crate::support::get(address, "discovery", "/debug/configz")?)?;
    let is_ours = |object: &&Value| object["kind"] == "Gateway" && object["metadata"]["name"] == "town";
    let gateway = objects.as_array().into_iter().flatten().find(is_ours).ok_or("no Gateway")?;
    let programmed = gateway["status"]["conditions"][1].clone();
    check(programmed["type"] == "Programmed" && programmed["status"] == "True", || gateway.to_string())
}

#[test]
fn routes_of_the_gateway_api_hold_in_a_running_mesh() {
    if let Err(reason) = can_run() {
        return println!("{reason}");
    }
    let dir = tempfile::tempdir().expect("folder");
    let (certificate, key) = make_certificates(dir.path());
    let gateway = GATEWAY.to_owned() + &secret("shop", &certificate, &key);
    let files = [("town.yaml", town()), ("gateway.yaml", gateway), ("routes.yaml", String::new())];
    let files: Vec<_> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let mesh = Mesh::start(dir.path(), &files, &[]);
    let town = Town { client: mesh.pod("client"), folder: dir.path().to_owned(), mesh };
    let mut failures = Vec::new();
    for case in in_the_mesh().into_iter().chain(at_the_gateway()) {
        town.mesh.write("routes.yaml", &case.routes);
        let outcome = settles(|| (case.holds)(&town));
        println!("{}: {outcome:?}", case.name);
        failures.extend(outcome.err().map(|reason| format!("{}: {reason}", case.name)));
    }
    failures.extend(settles(|| gateway_is_programmed(&town)).err());
    assert!(failures.is_empty(), "{}\n{}", failures.join("\n"), town.mesh.process.output());
}
