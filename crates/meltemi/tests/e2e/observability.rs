//! What an operator sees of the sample: Prometheus scraping its proxies and its control plane, and one trace, whole, in a collector
//! of OTLP and of Zipkin.

use crate::mesh::{Mesh, Pod, can_run, settles};
use crate::support::{Process, cache, get, meltemi};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../samples/shop");
const WORKLOADS: [&str; 9] = [
    "istio-ingressgateway",
    "frontend-v1",
    "catalog-v1",
    "catalog-v2",
    "catalog-v3",
    "stock-v1",
    "reviews-v1",
    "reviews-v2",
    "ledger-v1",
];

/// Istio's standard labels of `istio_requests_total`.
const LABELS: [&str; 25] = [
    "reporter",
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_service",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_service_name",
    "destination_service_namespace",
    "destination_cluster",
    "request_protocol",
    "response_code",
    "grpc_response_status",
    "response_flags",
    "connection_security_policy",
];

fn prometheus() -> Result<PathBuf, String> {
    let path = cache().join("prometheus/usr/bin/prometheus");
    if path.exists() {
        Ok(path)
    } else {
        Err("skipped: no Prometheus; scripts/install-test-deps.sh installs it".to_owned())
    }
}

type Labels = BTreeMap<String, String>;

/// A Prometheus in the mesh's network.
struct Prometheus {
    place: Pod,
    _process: Process,
}

impl Prometheus {
    fn start(binary: &Path, mesh: &Mesh, dir: &Path) -> Self {
        let address = |name: &&str| mesh.pod(name).address().to_string();
        let targets = |port: u16| {
            let all: Vec<_> = WORKLOADS.iter().map(|name| format!("'{}:{port}'", address(name))).collect();
            format!("[{}]", all.join(", "))
        };
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n- job_name: envoy-stats\n  metrics_path: /stats/prometheus\n  static_configs: [{{targets: {}}}]\n- job_name: merged\n  metrics_path: /stats/prometheus\n  static_configs: [{{targets: {}}}]\n- job_name: istiod\n  static_configs: [{{targets: ['10.244.0.1:15014']}}]\n",
            targets(15090),
            targets(15020)
        );
        let file = dir.join("prometheus.yaml");
        std::fs::write(&file, config).expect("write");
        let place = mesh.pod("istiod");
        let mut command = place.command(binary);
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", dir.join("tsdb").display()));
        command.arg("--web.listen-address=127.0.0.1:9090");
        Self { _process: Process::start("prometheus", &mut command, dir), place }
    }

    /// The series of an instant query: labels and value.
    fn query(&self, query: &str) -> Result<Vec<(Labels, f64)>, String> {
        let mut command = self.place.command("curl");
        command.args(["-sS", "--max-time", "5", "-G", "http://127.0.0.1:9090/api/v1/query", "--data-urlencode"]);
        let output = command.arg(format!("query={query}")).output().expect("nsenter");
        let answer: Value = serde_json::from_slice(&output.stdout)
            .map_err(|e| format!("{e}: {}", String::from_utf8_lossy(&output.stderr)))?;
        let series = answer["data"]["result"].as_array().ok_or_else(|| answer.to_string())?;
        let labels = |metric: &Value| {
            let all = metric.as_object().into_iter().flatten();
            all.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
        };
        let value = |sample: &Value| sample["value"][1].as_str().and_then(|text| text.parse().ok()).unwrap_or(f64::NAN);
        Ok(series.iter().map(|sample| (labels(&sample["metric"]), value(sample))).collect())
    }

    /// The one series, once there is one.
    fn one(&self, query: &str) -> Labels {
        let mut found = Vec::new();
        settles(|| {
            found = self.query(query)?;
            if found.len() == 1 { Ok(()) } else { Err(format!("{query}: {found:#?}")) }
        })
        .unwrap_or_else(|reason| panic!("{reason}"));
        found.remove(0).0
    }
}

fn expect(series: &Labels, wanted: &[(&str, &str)]) {
    for (label, value) in wanted {
        assert_eq!(series.get(*label).map(String::as_str), Some(*value), "{label} of {series:#?}");
    }
}

#[test]
fn prometheus_scrapes_istios_metrics_from_every_proxy_and_from_discovery() {
    let binary = match can_run().and_then(|()| prometheus()) {
        Ok(binary) => binary,
        Err(reason) => return println!("{reason}"),
    };
    let dir = tempfile::tempdir().expect("folder");
    let mesh = Mesh::over(&mut meltemi(), Path::new(SAMPLES), dir.path());
    for _ in 0..5 {
        assert_eq!(get(mesh.ingress, "shop.example", "/").expect("an answer").status, 200);
    }
    let prometheus = Prometheus::start(&binary, &mesh, dir.path());
    let targets = WORKLOADS.len() * 2 + 1;
    settles(|| {
        let up = prometheus.query("up")?;
        let good = up.iter().filter(|(_, value)| *value == 1.0).count();
        if good == targets { Ok(()) } else { Err(format!("{good} of {targets}: {up:#?}")) }
    })
    .unwrap_or_else(|reason| panic!("{reason}"));
    requests_have_istios_labels(&prometheus);
    grpc_and_tcp_have_theirs(&prometheus);
    for metric in [
        "pilot_xds",
        "pilot_xds_pushes",
        "pilot_services",
        "pilot_virt_services",
        "pilot_proxy_convergence_time_count",
        "citadel_server_csr_count",
    ] {
        let found = prometheus.query(&format!("{metric}{{job=\"istiod\"}}")).expect("an answer");
        assert!(!found.is_empty(), "{metric}");
    }
    println!("up == 1 for {targets} targets");
}

fn requests_have_istios_labels(prometheus: &Prometheus) {
    let of = |reporter: &str| {
        prometheus.one(&format!(
            "istio_requests_total{{job=\"envoy-stats\", reporter=\"{reporter}\", destination_service=\"stock.shop.svc.cluster.local\", source_workload=\"catalog-v1\"}}"
        ))
    };
    let common = [
        ("source_workload", "catalog-v1"),
        ("source_canonical_service", "catalog"),
        ("source_canonical_revision", "v1"),
        ("source_workload_namespace", "shop"),
        ("source_principal", "spiffe://cluster.local/ns/shop/sa/catalog"),
        ("source_app", "catalog"),
        ("source_version", "v1"),
        ("source_cluster", "Kubernetes"),
        ("destination_workload", "stock-v1"),
        ("destination_workload_namespace", "shop"),
        ("destination_principal", "spiffe://cluster.local/ns/shop/sa/stock"),
        ("destination_app", "stock"),
        ("destination_version", "v1"),
        ("destination_service", "stock.shop.svc.cluster.local"),
        ("destination_canonical_service", "stock"),
        ("destination_canonical_revision", "v1"),
        ("destination_service_name", "stock"),
        ("destination_service_namespace", "shop"),
        ("destination_cluster", "Kubernetes"),
        ("request_protocol", "http"),
        ("response_code", "200"),
        ("grpc_response_status", ""),
        ("response_flags", "-"),
    ];
    for (reporter, security) in [("source", "unknown"), ("destination", "mutual_tls")] {
        let series = of(reporter);
        for (label, value) in common {
            // An empty label is the same to Prometheus as none.
            assert_eq!(series.get(label).map_or("", String::as_str), value, "{label} of {series:#?}");
        }
        expect(&series, &[("reporter", reporter), ("connection_security_policy", security)]);
        let own = ["__name__", "instance", "job"];
        let names: BTreeSet<_> = series.keys().map(String::as_str).filter(|name| !own.contains(name)).collect();
        let standard: BTreeSet<_> = LABELS.into_iter().collect();
        assert!(names.is_subset(&standard), "more than Istio's labels: {names:?}");
        for metric in
            ["istio_request_duration_milliseconds_count", "istio_request_bytes_sum", "istio_response_bytes_sum"]
        {
            let query = format!(
                "{metric}{{job=\"merged\", reporter=\"{reporter}\", destination_app=\"stock\", source_workload=\"catalog-v1\"}}"
            );
            prometheus.one(&query);
        }
    }
}

fn grpc_and_tcp_have_theirs(prometheus: &Prometheus) {
    for (reporter, security) in [("source", "unknown"), ("destination", "mutual_tls")] {
        for metric in ["istio_requests_total", "istio_request_messages_total", "istio_response_messages_total"] {
            let sum = format!(
                "sum by (request_protocol, connection_security_policy) ({metric}{{job=\"envoy-stats\", reporter=\"{reporter}\", destination_app=\"reviews\"}})"
            );
            expect(&prometheus.one(&sum), &[("request_protocol", "grpc"), ("connection_security_policy", security)]);
        }
        let status = format!(
            "sum by (grpc_response_status) (istio_requests_total{{job=\"envoy-stats\", reporter=\"{reporter}\", destination_app=\"reviews\"}})"
        );
        expect(&prometheus.one(&status), &[("grpc_response_status", "0")]);
        for metric in [
            "istio_tcp_connections_opened_total",
            "istio_tcp_connections_closed_total",
            "istio_tcp_sent_bytes_total",
            "istio_tcp_received_bytes_total",
        ] {
            let series = prometheus.one(&format!(
                "{metric}{{job=\"envoy-stats\", reporter=\"{reporter}\", destination_service=\"ledger.shop.svc.cluster.local\"}}"
            ));
            expect(
                &series,
                &[
                    ("source_workload", "frontend-v1"),
                    ("source_principal", "spiffe://cluster.local/ns/shop/sa/frontend"),
                    ("destination_workload", "ledger-v1"),
                    ("destination_principal", "spiffe://cluster.local/ns/shop/sa/ledger"),
                    ("destination_service_name", "ledger"),
                    ("request_protocol", "tcp"),
                    ("response_flags", "-"),
                    ("connection_security_policy", security),
                ],
            );
        }
    }
}

fn collector() -> Result<PathBuf, String> {
    let python = cache().join("venv/bin/python");
    let known = std::process::Command::new(&python).args(["-c", "import grpc, opentelemetry.proto"]).output();
    match known {
        Ok(output) if output.status.success() => Ok(python),
        _ => Err("skipped: no opentelemetry-proto; scripts/install-test-deps.sh installs it".to_owned()),
    }
}

#[derive(Debug, Clone, serde::Deserialize)]
struct Span {
    by: String,
    trace: String,
    id: String,
    parent: String,
    name: String,
    kind: String,
    service: String,
    micros: u64,
    tags: BTreeMap<String, String>,
}

fn mesh_config(provider: &str) -> String {
    format!(
        "enableTracing: true\ndefaultConfig: {{tracing: {{sampling: 100}}}}\ndefaultProviders: {{tracing: [{provider}]}}\nextensionProviders:\n- name: otel\n  opentelemetry: {{service: collector.observe.svc.cluster.local, port: 4317}}\n- name: zipkin\n  zipkin: {{service: collector.observe.svc.cluster.local, port: 9411}}\n"
    )
}

#[test]
fn a_trace_is_whole_in_a_collector_of_otlp_and_of_zipkin() {
    let python = match can_run().and_then(|()| collector()) {
        Ok(python) => python,
        Err(reason) => return println!("{reason}"),
    };
    let dir = tempfile::tempdir().expect("folder");
    let spans = dir.path().join("spans.jsonl");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/peers/spans.py");
    let collector = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: observe, labels: {{istio-injection: disabled}}}}\n---\napiVersion: v1\nkind: Service\nmetadata: {{name: collector, namespace: observe}}\nspec: {{selector: {{app: collector}}, ports: [{{name: grpc-otlp, port: 4317}}, {{name: http-zipkin, port: 9411}}]}}\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: collector, namespace: observe}}\nspec:\n  template:\n    metadata: {{labels: {{app: collector}}}}\n    spec: {{containers: [{{name: c, image: collector, command: ['{}', '{script}', '4317', '9411', '{}'], ports: [{{containerPort: 4317}}, {{containerPort: 9411}}]}}]}}\n",
        python.display(),
        spans.display()
    );
    let [namespace, services, routing] = ["namespace.yaml", "services.yaml", "routing.yaml"]
        .map(|file| std::fs::read_to_string(Path::new(SAMPLES).join(file)).expect("text"));
    let settings = dir.path().join("mesh.yaml");
    std::fs::write(&settings, mesh_config("otel")).expect("write");
    let files = [
        ("namespace.yaml", namespace.as_str()),
        ("services.yaml", &services),
        ("routing.yaml", &routing),
        ("collector.yaml", &collector),
    ];
    let mesh = Mesh::start(dir.path(), &files, &["--mesh-config", settings.to_str().expect("text")]);
    for by in ["otlp", "zipkin"] {
        let provider = if by == "otlp" { "otel" } else { by };
        std::fs::write(&settings, mesh_config(provider)).expect("write");
        let result = settles_within(60, || {
            // Proxies take the provider at different times, so a trace may be torn at first. Spans are sent each five seconds.
            let request = b"GET / HTTP/1.1\r\nhost: shop.example\r\nuser-agent: tracer\r\nconnection: close\r\n\r\n";
            let answer = crate::support::exchange(mesh.ingress, request)?;
            let report: Value = serde_json::from_slice(&answer.body).map_err(|e| e.to_string())?;
            let id = trace_of(&report, by).ok_or_else(|| format!("no trace in {report:#}"))?;
            settles_within(12, || whole_trace(&spans, by, &id))
        });
        result.unwrap_or_else(|reason| panic!("{by}: {reason}\n{}", mesh.process.output()));
        println!("{by}: gateway, frontend and catalog in one trace");
    }
}

fn settles_within(seconds: u64, mut holds: impl FnMut() -> Result<(), String>) -> Result<(), String> {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(seconds);
    loop {
        match holds() {
            Err(_) if std::time::Instant::now() < end => std::thread::sleep(std::time::Duration::from_millis(100)),
            outcome => return outcome,
        }
    }
}

/// The trace id in the headers that the application saw.
fn trace_of(report: &Value, by: &str) -> Option<String> {
    let headers = &report["headers"];
    match by {
        "otlp" => headers["traceparent"].as_str()?.split('-').nth(1).map(str::to_owned),
        _ => headers["x-b3-traceid"].as_str().map(str::to_owned),
    }
}

fn whole_trace(file: &Path, by: &str, trace: &str) -> Result<(), String> {
    let text = std::fs::read_to_string(file).map_err(|e| e.to_string())?;
    let all = text.lines().filter_map(|line| serde_json::from_str::<Span>(line).ok());
    let spans: Vec<Span> = all.filter(|span| span.trace == trace && span.by == by).collect();
    let find = |service: &str, kind: &str, name: &str| {
        let found: Vec<_> = spans.iter().filter(|s| s.service == service && s.kind == kind && s.name == name).collect();
        match found[..] {
            [one] => Ok(one),
            _ => Err(format!("{} spans {service} {kind} {name} in {spans:#?}", found.len())),
        }
    };
    // One destination gives its name to the operation; of several it is the rule's host, and both sides of a hop agree.
    let (frontend, catalog) = ("frontend.shop.svc.cluster.local:8080/*", "catalog:8080/*");
    let root = find("istio-ingressgateway.istio-system", "SERVER", frontend)?;
    let sends = "router outbound|8080||frontend.shop.svc.cluster.local; egress";
    let upstream = find("istio-ingressgateway.istio-system", "CLIENT", sends)?;
    let inside = find("frontend.shop", "SERVER", frontend)?;
    let leaves = find("frontend.shop", "CLIENT", catalog)?;
    let arrives = find("catalog.shop", "SERVER", catalog)?;
    let links = [("", root), (&root.id, upstream), (&upstream.id, inside), (&inside.id, leaves), (&leaves.id, arrives)];
    for (parent, span) in links {
        if span.parent != *parent {
            return Err(format!(
                "{} {} has parent {:?}, not {parent:?}: {spans:#?}",
                span.service, span.kind, span.parent
            ));
        }
    }
    for span in [root, inside, leaves, arrives] {
        has_tags(span)?;
    }
    let within = root.micros >= inside.micros && inside.micros >= leaves.micros && leaves.micros >= arrives.micros;
    if within { Ok(()) } else { Err(format!("a span outlives its parent: {spans:#?}")) }
}

fn has_tags(span: &Span) -> Result<(), String> {
    let tag = |name: &str| span.tags.get(name).map(String::as_str).unwrap_or_default();
    let (app, namespace) = span.service.split_once('.').ok_or("a service name without its namespace")?;
    for (name, value) in [
        ("component", "proxy"),
        ("http.method", "GET"),
        ("http.status_code", "200"),
        ("http.protocol", "HTTP/1.1"),
        ("response_flags", "-"),
        ("istio.canonical_service", app),
        ("istio.namespace", namespace),
        ("istio.mesh_id", "cluster.local"),
        ("istio.cluster_id", "Kubernetes"),
        ("user_agent", "tracer"),
    ] {
        if tag(name) != value {
            return Err(format!("{name} is {:?}, not {value:?}, in {span:#?}", tag(name)));
        }
    }
    for name in [
        "node_id",
        "guid:x-request-id",
        "http.url",
        "peer.address",
        "upstream_cluster",
        "upstream_cluster.name",
        "request_size",
        "response_size",
        "istio.canonical_revision",
    ] {
        if tag(name).is_empty() {
            return Err(format!("no {name} in {span:#?}"));
        }
    }
    Ok(())
}
