//! Sidecars that ask for hosts and clusters when traffic first needs them: ours as they come, and a real Envoy told to.

use crate::mesh::{Mesh, Pod, Workload, can_run, service, settles};
use crate::support::{Answer, envoy};
use std::collections::BTreeSet;

const OTHERS: usize = 300;

fn metadata(pairs: &str) -> String {
    format!("proxy.istio.io/config: 'proxyMetadata: {{{pairs}}}'")
}

fn town(envoys: &str) -> String {
    let mut text = String::new();
    let workload = |name: &str, annotations: &str| {
        let args = "[echo, --http, '8080', --tcp, '9000']";
        let labels = format!("app: {name}");
        Workload { name, labels: &labels, annotations, args, ports: &[8080, 9000], ..Workload::default() }.yaml()
    };
    text += &workload("asking", &metadata("ON_DEMAND_IDLE_SECONDS: \"3\""));
    text += &workload("classic", &metadata("ISTIO_META_ON_DEMAND: \"false\""));
    text += envoys;
    for name in ["one", "two"] {
        text += &workload(name, "");
        text += &service(
            "app",
            name,
            &format!("selector: {{app: {name}}}, ports: [{{name: http, port: 8080}}, {{name: tcp, port: 9000}}]"),
        );
    }
    for number in 0..OTHERS {
        text += &service("app", &format!("other-{number}"), "selector: {app: one}, ports: [{name: http, port: 8080}]");
    }
    text
}

fn route(to: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: moving, namespace: app}}\nspec: {{hosts: [one], http: [{{route: [{{destination: {{host: {to}}}}}]}}]}}\n"
    )
}

/// Names of the outbound clusters that a sidecar has.
fn outbound(pod: &Pod) -> BTreeSet<String> {
    let text = pod.curl("http://127.0.0.1:15000/clusters").expect("clusters").text();
    let names = text.lines().filter_map(|line| line.split("::").next());
    names.filter(|name| name.starts_with("outbound|")).map(str::to_owned).collect()
}

fn served_by(answer: &Answer) -> String {
    let pod = answer.header("x-served-by-pod").unwrap_or_default();
    pod.split('-').next().unwrap_or_default().to_owned()
}

fn cluster(name: &str, port: u16) -> String {
    format!("outbound|{port}||{name}.app.svc.cluster.local")
}

fn line_from(pod: &Pod, host: &str) -> String {
    let output = pod.run("bash", &["-c", &format!("exec 3<>/dev/tcp/{host}/9000; echo hello >&3; head -n 1 <&3")]);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What one client sees, whichever proxy it has.
fn first_needs_are_met(pod: &Pod) {
    assert_eq!(outbound(pod), BTreeSet::new(), "{}: nothing was asked for", pod.name);
    let answer = pod.curl("http://one:8080/").expect("an answer");
    assert_eq!((answer.status, &*served_by(&answer)), (200, "one"), "{}: {}", pod.name, answer.text());
    assert_eq!(outbound(pod), [cluster("one", 8080)].into(), "{}", pod.name);
    // The same service by another name, and a host that nobody serves.
    let answer = pod.curl("http://one.app.svc.cluster.local:8080/").expect("an answer");
    assert_eq!(answer.status, 200, "{}: {}", pod.name, answer.text());
    let answer = pod.curl("-H 'host: unknown.example' http://one:8080/").expect("an answer");
    assert_eq!(answer.status, 200, "{}: to the address that was asked for: {}", pod.name, answer.text());
    // A connection.
    let line = line_from(pod, "two");
    assert!(line.contains("hello"), "{}: {line:?}", pod.name);
    assert_eq!(outbound(pod), [cluster("one", 8080), cluster("two", 9000)].into(), "{}", pod.name);
}

#[test]
fn a_sidecar_has_what_its_traffic_needs_and_nothing_else() {
    if let Err(reason) = can_run() {
        return println!("{reason}");
    }
    let dir = tempfile::tempdir().expect("folder");
    let (theirs, image) = match envoy() {
        Ok(path) => {
            let annotations =
                format!("sidecar.istio.io/proxyImage: envoy, {}", metadata("ISTIO_META_ON_DEMAND: \"true\""));
            let client =
                Workload { name: "theirs", labels: "app: theirs", annotations: &annotations, ..Workload::default() };
            (client.yaml(), Some(format!("envoy={}", path.display())))
        }
        Err(reason) => {
            println!("{reason}");
            (String::new(), None)
        }
    };
    let files = [("town.yaml", &*town(&theirs)), ("route.yaml", &*route("one"))];
    let images: Vec<&str> = image.iter().flat_map(|image| ["--image", image]).collect();
    let mesh = Mesh::start(dir.path(), &files, &images);
    let asking = mesh.pod("asking");
    first_needs_are_met(&asking);
    if image.is_some() {
        first_needs_are_met(&mesh.pod("theirs"));
        println!("Envoy asked for what it needed");
    }
    let classic = outbound(&mesh.pod("classic"));
    assert!(classic.len() >= OTHERS + 4, "{} clusters", classic.len());

    a_rule_moves_without_a_failure(&mesh, &asking);
    // What is not used any more is given up, and had again when it is needed.
    settles(|| {
        let left = outbound(&asking);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .expect("given up");
    assert_eq!(asking.curl("http://two:8080/").expect("an answer").status, 200);
    println!("asked, served, given up and had again, among {} services", OTHERS + 2);
}

/// The rule's new destination is a cluster that the sidecar has never heard of.
fn a_rule_moves_without_a_failure(mesh: &Mesh, pod: &Pod) {
    for (to, number) in ["two", "one", "two"].iter().zip(0..) {
        mesh.write("route.yaml", &route(to));
        settles(|| {
            let answer = pod.curl(&format!("http://one:8080/{number}"))?;
            assert_eq!(answer.status, 200, "on the way to {to}: {}", answer.text());
            if served_by(&answer) == *to { Ok(()) } else { Err(served_by(&answer)) }
        })
        .expect(to);
    }
}
