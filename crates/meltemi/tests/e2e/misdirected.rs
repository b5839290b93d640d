//! Connections that a client shares between hosts of one certificate, at a gateway where the hosts are different servers': answered
//! with 421, so that the client opens another, by our proxy and by Envoy.

use crate::features::{make_certificates, secret};
use crate::mesh::{Mesh, Workload, can_run, settles};
use crate::support::{envoy, meltemi, read_answer};
use std::path::Path;
use std::process::Command;

const SERVERS: &str = "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: town, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}
  - {port: {number: 443, name: shop, protocol: HTTPS}, hosts: [shop.example], tls: {mode: SIMPLE, credentialName: shop}}
  - {port: {number: 443, name: all, protocol: HTTPS}, hosts: ['*.example'], tls: {mode: SIMPLE, credentialName: shop}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop, namespace: istio-system}
spec: {hosts: [shop.example], gateways: [town], http: [{directResponse: {status: 211}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: pass, namespace: istio-system}
spec: {hosts: [pass.example], gateways: [town], http: [{directResponse: {status: 212}}]}
---
";

/// What is answered to a request for one host on a connection whose greeting names another.
fn status(mesh: &Mesh, folder: &Path, name: &str, host: &str, version: &str) -> Result<u16, String> {
    let at = mesh.gateway(443);
    let mut command = Command::new("curl");
    command.args(["-sS", "-i", "--raw", "--max-time", "10", version, "--cacert"]).arg(folder.join("ca.pem"));
    command.arg("--resolve").arg(format!("{name}:{}:{}", at.port(), at.ip()));
    command.arg("-H").arg(format!("Host: {host}"));
    let output = command.arg(format!("https://{name}:{}/path", at.port())).output().expect("curl");
    if !output.status.success() {
        return Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    read_answer(&mut &output.stdout[..], false).map(|answer| answer.status)
}

fn every_server_answers_for_its_own_hosts(arguments: &[&str]) {
    let dir = tempfile::tempdir().expect("folder");
    let (certificate, key) = make_certificates(dir.path());
    let web = Workload { name: "web", labels: "app: web", ..Workload::default() };
    let documents = web.yaml() + SERVERS + &secret("shop", &certificate, &key);
    let mut command = meltemi();
    command.args(arguments);
    let mesh = Mesh::start_by(command, dir.path(), &[("town.yaml", &documents)]);
    let of = |name, host, version| status(&mesh, dir.path(), name, host, version);
    let ready = settles(|| {
        match (of("shop.example", "shop.example", "--http2"), of("pass.example", "pass.example", "--http2")) {
            (Ok(211), Ok(212)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    ready.unwrap_or_else(|reason| panic!("{reason}\n{}", mesh.process.output()));
    for version in ["--http1.1", "--http2"] {
        for (name, host, expected) in [
            ("shop.example", "pass.example", 421),
            ("shop.example", "unrouted.example", 421),
            ("shop.example", "nobody.org", 404),
            ("pass.example", "shop.example", 421),
            ("pass.example", "shop.example:443", 421),
            // Of the same server as the greeting.
            ("pass.example", "unrouted.example", 404),
            ("pass.example", "nobody.org", 404),
        ] {
            assert_eq!(
                of(name, host, version),
                Ok(expected),
                "{arguments:?}: {host} on a connection to {name}, {version}"
            );
        }
    }
}

#[test]
fn a_request_for_a_host_of_another_server_is_misdirected() {
    if let Err(reason) = can_run() {
        return println!("{reason}");
    }
    every_server_answers_for_its_own_hosts(&[]);
    match envoy() {
        Ok(envoy) => every_server_answers_for_its_own_hosts(&["--envoy", &envoy.display().to_string()]),
        Err(reason) => println!("{reason}"),
    }
}
