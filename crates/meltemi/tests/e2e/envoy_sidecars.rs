//! Real Envoys as sidecars, under our agent and our discovery: alone, and beside proxies of ours.

use crate::mesh::{Mesh, Pod, Workload, can_run, service, settles};
use crate::support::{Answer, envoy, get, meltemi, signal_process};
use serde_json::Value;
use std::path::{Path, PathBuf};

const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../samples/shop");

/// In the command line of an Envoy under our agent, and of nothing else.
const BOOTSTRAP: &str = "envoy-rev.json";

fn peer() -> Result<PathBuf, String> {
    can_run().and_then(|()| envoy())
}

fn report(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|e| panic!("{e}: {} {}", answer.status, answer.text()))
}

/// The value of a metric's only series, or the sum of all.
fn statistic(pod: &Pod, url: &str, name: &str, label: &str) -> f64 {
    let text = pod.curl(url).expect("metrics").text();
    crate::features::total(&text, name, &[label])
}

#[test]
fn the_sample_runs_with_envoy_sidecars_and_an_envoy_that_crashes_is_started_again() {
    let envoy = match peer() {
        Ok(envoy) => envoy,
        Err(reason) => return println!("{reason}"),
    };
    let dir = tempfile::tempdir().expect("folder");
    let mut command = meltemi();
    command.arg("--envoy").arg(&envoy);
    let mesh = Mesh::over(&mut command, Path::new(SAMPLES), dir.path());
    let served = || -> Result<Value, String> {
        let answer = get(mesh.ingress, "shop.example", "/")?;
        if answer.status != 200 {
            return Err(format!("{} {}", answer.status, answer.text()));
        }
        Ok(report(&answer))
    };
    let first = served().unwrap_or_else(|reason| panic!("{reason}\n{}", mesh.process.output()));
    assert_eq!(first["security"]["mutualTls"], true, "{first:#}");
    let gateway = "spiffe://cluster.local/ns/istio-system/sa/istio-ingressgateway-service-account";
    assert_eq!(first["security"]["peer"], gateway, "{first:#}");
    // HTTP, HTTP/2, gRPC and TCP from sidecar to sidecar.
    let calls = first["calls"].as_array().expect("calls");
    assert_eq!(calls[0]["body"]["security"]["peer"], "spiffe://cluster.local/ns/shop/sa/frontend", "{first:#}");
    assert_eq!(calls[0]["body"]["calls"][0]["body"]["service"], "stock", "{first:#}");
    assert_eq!(calls[1]["grpcStatus"], "0", "{first:#}");
    assert!(calls[2]["body"].as_str().is_some_and(|line| line.starts_with("ledger v1")), "{first:#}");
    // Routing by header, at the second hop.
    let tester = crate::support::exchange(
        mesh.ingress,
        b"GET / HTTP/1.1\r\nhost: shop.example\r\nend-user: tester\r\nconnection: close\r\n\r\n",
    );
    assert_eq!(report(&tester.expect("an answer"))["calls"][0]["body"]["version"], "v3");
    let frontend = mesh.pod("frontend-v1");
    for url in ["http://127.0.0.1:15090/stats/prometheus", "http://127.0.0.1:15020/stats/prometheus"] {
        let count = statistic(
            &frontend,
            url,
            "envoy_cluster_upstream_rq_total",
            "cluster_name=\"outbound|8080|v3|catalog.shop.svc.cluster.local\"",
        );
        assert!(count >= 1.0, "{url}: {count}");
    }
    // A crash.
    let killed = mesh.process_ids("frontend-v1", BOOTSTRAP);
    assert_eq!(killed.len(), 1, "one Envoy a pod");
    signal_process(killed[0], "KILL");
    settles(|| {
        let now = mesh.process_ids("frontend-v1", BOOTSTRAP);
        let anew = now.iter().any(|pid| *pid != killed[0]);
        if anew { served().map(drop) } else { Err(format!("{now:?}\n{}", mesh.process.output())) }
    })
    .expect("started again");
    println!("every hop of the sample serves through Envoys, and again after one crashed");
}

#[test]
fn envoys_and_our_proxies_speak_to_one_another_in_one_mesh() {
    let envoy = match peer() {
        Ok(envoy) => envoy,
        Err(reason) => return println!("{reason}"),
    };
    let dir = tempfile::tempdir().expect("folder");
    let mut text = String::new();
    let args = "[echo, --http, '8080,7070', --tcp, '9000']";
    for kind in ["ours", "theirs"] {
        let annotations = if kind == "ours" { "" } else { "sidecar.istio.io/proxyImage: envoy" };
        for role in ["client", "web"] {
            let (name, labels) = (format!("{role}-{kind}"), format!("app: {role}-{kind}"));
            let ports: &[u16] = &[8080, 7070, 9000];
            text += &Workload {
                name: &name,
                labels: &labels,
                annotations,
                account: role,
                args,
                ports,
                ..Workload::default()
            }
            .yaml();
            let spec = format!(
                "selector: {{{labels}}}, ports: [{{name: http, port: 8080}}, {{name: grpc, port: 7070}}, {{name: tcp, port: 9000}}]"
            );
            text += &service("app", &name, &spec);
        }
    }
    text += "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default, namespace: app}\nspec: {mtls: {mode: STRICT}}\n---\n";
    text += "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: routes, namespace: app}\nspec:\n  hosts: [web-ours]\n  http:\n  - match: [{uri: {prefix: /moved}}]\n    redirect: {uri: /there}\n  - match: [{uri: {prefix: /late/}}]\n    rewrite: {uri: /delay/}\n    timeout: 0.3s\n    route: [{destination: {host: web-ours}}]\n  - headers: {request: {set: {x-route: taken}}}\n    route: [{destination: {host: web-ours}}]\n";
    let image = format!("envoy={}", envoy.display());
    let mesh = Mesh::start(dir.path(), &[("mixed.yaml", &text)], &["--image", &image]);
    for client in ["client-ours", "client-theirs"] {
        let pod = mesh.pod(client);
        assert_eq!(mesh.process_ids(client, BOOTSTRAP).len(), usize::from(client == "client-theirs"), "{client}");
        for server in ["web-ours", "web-theirs"] {
            let urls = format!(
                "http://{server}:8080/|h2://{server}:8080/|grpc://{server}:7070/a.B/Echo|tcp://{server}:9000/word"
            );
            let query: Vec<_> = urls.split('|').map(|url| format!("url={url}")).collect();
            let answer = pod.curl(&format!("'http://localhost:8080/call?{}'", query.join("&")));
            let answer = report(&answer.expect("an answer"));
            let calls = answer["calls"].as_array().expect("calls");
            for call in &calls[..3] {
                let security = &call["body"]["security"];
                assert_eq!(
                    security["peer"], "spiffe://cluster.local/ns/app/sa/client",
                    "{client} to {server}: {call:#}"
                );
                assert_eq!(security["self"], "spiffe://cluster.local/ns/app/sa/web", "{client} to {server}: {call:#}");
            }
            assert!(
                calls[3]["body"].as_str().is_some_and(|line| line.ends_with(": word")),
                "{client} to {server}: {}",
                calls[3]
            );
        }
        // The routes of one document mean the same in both.
        let taken = report(&pod.curl("http://web-ours:8080/").expect("an answer"));
        assert_eq!(taken["headers"]["x-route"], "taken", "{client}: {taken:#}");
        let moved = pod.curl("http://web-ours:8080/moved").expect("an answer");
        assert_eq!((moved.status, moved.header("location")), (301, Some("http://web-ours:8080/there")), "{client}");
        assert_eq!(pod.curl("http://web-ours:8080/late/5s").expect("an answer").status, 504, "{client}");
    }
    println!("2 clients, 2 servers, 4 protocols: all served over mutual TLS");
}
