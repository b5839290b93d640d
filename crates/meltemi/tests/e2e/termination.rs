//! What Kubernetes asks of a proxy beside its application, in a running mesh: the application's probes and metrics, a drain
//! before the end, an end when no client is left, and an end at once. Nothing that is served is lost by it.

use crate::mesh::{Mesh, Pod, Workload, can_run, service, settles};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// So long that nobody who waits for it passes.
const DRAIN: &str = "terminationDrainDuration: 300s";
const PROBES: &str = r#"{"/app-health/app/readyz":{"httpGet":{"path":"/ready","port":8080}},"/app-health/app/livez":{"tcpSocket":{"port":8080}},"/app-health/app/startupz":{"tcpSocket":{"port":9}}}"#;
const SCRAPING: &str = r#"{"scrape":"true","path":"/of-the-application","port":"8080"}"#;

fn workload(name: &str, config: &str) -> String {
    let labels = format!("app: {name}");
    let annotations = format!("proxy.istio.io/config: '{{{}}}'", config.replace('\'', "''"));
    let deployment = Workload { name, labels: &labels, annotations: &annotations, ..Workload::default() };
    let selects = format!("selector: {{{labels}}}, ports: [{{name: http, port: 80, targetPort: 8080}}]");
    deployment.yaml() + &service("app", name, &selects)
}

fn start(dir: &Path) -> Mesh {
    let metadata = format!("ISTIO_KUBE_APP_PROBERS: '{PROBES}', ISTIO_PROMETHEUS_ANNOTATIONS: '{SCRAPING}'");
    let drained = format!("{DRAIN}, proxyMetadata: {{{metadata}}}");
    let unused =
        format!("{DRAIN}, proxyMetadata: {{EXIT_ON_ZERO_ACTIVE_CONNECTIONS: 'true', MINIMUM_DRAIN_DURATION: 1s}}");
    let files = [
        ("client.yaml", workload("client", "")),
        ("drained.yaml", workload("drained", &drained)),
        ("unused.yaml", workload("unused", &unused)),
        ("quit.yaml", workload("quit", DRAIN)),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, &**text)).collect();
    Mesh::start(dir, &files, &[])
}

/// The proxy of the only pod of a workload.
fn proxy(mesh: &Mesh, workload: &str) -> u32 {
    let found = mesh.process_ids(workload, "proxy sidecar");
    *found.first().unwrap_or_else(|| panic!("no proxy of {workload}:\n{}", mesh.process.output()))
}

fn is_running(process: u32) -> bool {
    // What has ended but was not waited for is a zombie, without a command line.
    std::fs::read(format!("/proc/{process}/cmdline")).is_ok_and(|line| !line.is_empty())
}

fn ends(process: u32) -> Result<(), String> {
    settles(|| if is_running(process) { Err(format!("{process} still runs")) } else { Ok(()) })
}

/// Requests on one connection, over several seconds.
fn load(client: &Pod, host: &str) -> Child {
    let mut command = client.command("curl");
    command.args(["-sS", "-o", "/dev/null", "--max-time", "60", "--rate", "20/s", "-w", "%{http_code}\n"]);
    command.arg(format!("http://{host}/[1-120]")).stdout(Stdio::piped()).spawn().expect("nsenter")
}

fn all_served(load: Child) {
    let output = load.wait_with_output().expect("curl");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(text.lines().filter(|code| *code == "200").count(), 120, "{text}");
}

fn status(pod: &Pod, arguments: &str) -> Result<u16, String> {
    pod.curl(arguments).map(|answer| answer.status)
}

#[test]
fn a_proxy_serves_until_its_end_and_answers_for_its_application() {
    if let Err(reason) = can_run() {
        return println!("{reason}");
    }
    let dir = tempfile::tempdir().expect("folder");
    let mesh = start(dir.path());
    let client = mesh.pod("client");
    for host in ["drained.app", "unused.app", "quit.app"] {
        let serves = settles(|| match status(&client, &format!("http://{host}/")) {
            Ok(200) => Ok(()),
            other => Err(format!("{other:?}")),
        });
        assert!(serves.is_ok(), "{host}: {serves:?}\n{}", mesh.process.output());
    }
    answers_for_its_application(&mesh, &client);
    drains_at_an_order_of_its_own_pod(&mesh, &client);
    ends_when_no_client_is_left(&mesh, &client);
    quits_at_once(&mesh, &client);
}

fn answers_for_its_application(mesh: &Mesh, client: &Pod) {
    let agent = format!("http://{}:15020", mesh.pod("drained").address());
    for (probe, expected) in [("readyz", 200), ("livez", 200), ("startupz", 500), ("nothing", 400)] {
        assert_eq!(status(client, &format!("{agent}/app-health/app/{probe}")), Ok(expected), "{probe}");
    }
    let metrics = client.curl(&format!("{agent}/stats/prometheus")).expect("metrics").text();
    for part in ["istio_agent_scrapes_total 1", "# TYPE envoy_", "/of-the-application"] {
        assert!(metrics.contains(part), "no {part}");
    }
}

fn drains_at_an_order_of_its_own_pod(mesh: &Mesh, client: &Pod) {
    let (pod, process) = (mesh.pod("drained"), proxy(mesh, "drained"));
    let foreign = format!("-X POST http://{}:15020/drain", pod.address());
    assert_eq!(status(client, &foreign), Ok(403));

    let load = load(client, "drained.app");
    assert_eq!(status(&pod, "-X POST http://127.0.0.1:15020/drain"), Ok(200));
    // Those who come are served, until the application is gone.
    let after = settles(|| match status(client, "http://drained.app/") {
        Ok(200) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert!(after.is_ok(), "{after:?}");
    all_served(load);
    assert!(is_running(process));
    let began = Instant::now();
    crate::support::signal_process(process, "TERM");
    ends(process).expect("an end without a wait");
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
}

/// A request that takes longer than a drained proxy gives what is open.
fn ends_when_no_client_is_left(mesh: &Mesh, client: &Pod) {
    let (pod, process) = (mesh.pod("unused"), proxy(mesh, "unused"));
    let mut slow = client.command("curl");
    slow.args(["-sS", "-o", "/dev/null", "--max-time", "60", "-w", "%{http_code}", "http://unused.app/delay/9s"]);
    let slow = slow.stdout(Stdio::piped()).spawn().expect("nsenter");
    let in_flight = settles(|| {
        let stats = pod.curl("http://127.0.0.1:15000/stats?filter=inbound.*downstream_rq_active")?.text();
        if stats.lines().any(|line| line.ends_with(": 1")) { Ok(()) } else { Err(stats) }
    });
    assert!(in_flight.is_ok(), "{in_flight:?}");
    crate::support::signal_process(process, "TERM");
    let output = slow.wait_with_output().expect("curl");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "200");
    ends(process).expect("an end when nobody is connected");
}

fn quits_at_once(mesh: &Mesh, client: &Pod) {
    let (pod, process) = (mesh.pod("quit"), proxy(mesh, "quit"));
    let foreign = format!("-X POST http://{}:15020/quitquitquit", pod.address());
    assert_eq!(status(client, &foreign), Ok(403));
    assert_eq!(status(&pod, "http://127.0.0.1:15020/quitquitquit"), Ok(405));
    assert!(is_running(process));
    assert_eq!(status(&pod, "-X POST http://127.0.0.1:15020/quitquitquit"), Ok(200));
    ends(process).expect("an end at once");
}
