//! `resolution: DYNAMIC_DNS` and `ALLOW_ANY_DYNAMIC_DNS` in a running mesh, from a sidecar of ours and from an Envoy.

use crate::mesh::{Mesh, Pod, Workload, can_run, settles};
use crate::support::envoy;

/// The cluster's DNS knows it, and no proxy of another namespace does.
const HIDDEN: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: legacy, labels: {istio-injection: disabled}}
---
apiVersion: v1
kind: Service
metadata: {name: hidden, namespace: legacy, annotations: {networking.istio.io/exportTo: '.'}}
spec:
  selector: {app: plain}
  ports: [{name: http, port: 8080}, {name: http-alt, port: 8099, targetPort: 8080}, {name: tcp, port: 9443, targetPort: 9000}]
---
";

const ENTRY: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: dynamic, namespace: app}
spec:
  hosts: ['*.legacy.svc.cluster.local']
  ports: [{number: 8080, name: http, protocol: HTTP}, {number: 9443, name: tls, protocol: TLS}]
  resolution: DYNAMIC_DNS
  location: MESH_EXTERNAL
";

const ANY: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: 'outboundTrafficPolicy: {mode: ALLOW_ANY_DYNAMIC_DNS}'}
";

const HOST: &str = "hidden.legacy.svc.cluster.local";

/// A request under a name, by a connection to an address that is nobody's: only the name can lead to a host.
fn ask(client: &Pod, host: &str, port: u16, status: u16, body: &str) -> Result<(), String> {
    let answer = client.curl(&format!("--resolve {host}:{port}:192.0.2.1 http://{host}:{port}/"))?;
    let right = answer.status == status && answer.text().contains(body);
    if right { Ok(()) } else { Err(format!("{} {host}:{port}: {} {}", client.name, answer.status, answer.text())) }
}

/// A TLS greeting comes to the host that it names: what answers there is no TLS, so curl says so, and not that nobody is there.
fn greets(client: &Pod) -> Result<(), String> {
    let to = format!("{HOST}:9443:192.0.2.1");
    let output = client.run("curl", &["-sSk", "--max-time", "10", "--resolve", &to, &format!("https://{HOST}:9443/")]);
    let reason = String::from_utf8_lossy(&output.stderr).into_owned();
    // curl's CURLE_SSL_CONNECT_ERROR, by bytes that are no TLS record.
    let answered = output.status.code() == Some(35) && !reason.contains("reset") && !reason.contains("EOF");
    if answered { Ok(()) } else { Err(format!("{}: {}: {reason}", client.name, output.status)) }
}

fn workloads(with_envoy: bool) -> String {
    let plain = Workload {
        namespace: "legacy",
        name: "plain",
        labels: "app: plain",
        args: "[echo, --http, '8080', --tcp, '9000']",
        ports: &[8080, 9000],
        ..Workload::default()
    };
    let client = Workload { name: "ours", labels: "app: ours", ..Workload::default() };
    let annotations = "sidecar.istio.io/proxyImage: envoy";
    let envoy = Workload { name: "theirs", labels: "app: theirs", annotations, ..Workload::default() };
    let envoy = if with_envoy { envoy.yaml() } else { String::new() };
    [HIDDEN.to_owned(), plain.yaml(), client.yaml(), envoy].concat()
}

#[test]
fn hosts_that_requests_name_are_resolved_in_a_running_mesh() {
    if let Err(reason) = can_run() {
        return println!("{reason}");
    }
    let dir = tempfile::tempdir().expect("folder");
    let envoy = envoy();
    let image = envoy.as_ref().map_or_else(|_| String::new(), |path| format!("envoy={}", path.display()));
    let arguments: &[&str] = if image.is_empty() { &[] } else { &["--image", &image] };
    let mesh = Mesh::start(dir.path(), &[("town.yaml", &workloads(envoy.is_ok())), ("case.yaml", ENTRY)], arguments);
    let mut clients = vec![mesh.pod("ours")];
    match &envoy {
        Ok(_) => clients.push(mesh.pod("theirs")),
        Err(reason) => println!("{reason}"),
    }
    let holds = |what: &str, check: &dyn Fn() -> Result<(), String>| {
        let outcome = settles(check);
        assert!(outcome.is_ok(), "{what}: {outcome:?}\n{}", mesh.process.output());
    };
    for client in &clients {
        holds("DYNAMIC_DNS", &|| ask(client, HOST, 8080, 200, "\"plain\""));
        holds("a failure", &|| ask(client, "nobody.legacy.svc.cluster.local", 8080, 503, "DNS resolution failure"));
        holds("by SNI", &|| greets(client));
    }
    mesh.write("case.yaml", ANY);
    for client in &clients {
        // On a port that some listener has, and on one that none has.
        for port in [8080, 8099] {
            holds("ALLOW_ANY_DYNAMIC_DNS", &|| ask(client, HOST, port, 200, "\"plain\""));
        }
        holds("a failure", &|| ask(client, "nobody.legacy.svc.cluster.local", 8080, 503, "DNS resolution failure"));
    }
}
