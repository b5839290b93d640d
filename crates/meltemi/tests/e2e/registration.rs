//! Workloads that register themselves with a WorkloadGroup, in a running mesh: they appear, are left out while their probe
//! fails, and disappear.

use crate::mesh::{Mesh, Pod, Workload, can_run, settles};
use crate::support::meltemi;
use std::path::Path;

/// The group's template and the ServiceEntry that selects what registers by a label that only the template has.
const GROUP: &str = "
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: machines, namespace: app}
spec:
  metadata: {labels: {of: machines}}
  template: {ports: {http: 8080}, serviceAccount: machine}
  probe: {periodSeconds: 1, exec: {command: [test, -e, FLAG]}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: machines, namespace: app}
spec:
  hosts: [machines.example]
  addresses: [10.96.77.77]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}]
  workloadSelector: {labels: {of: machines}}
---
";

fn machine(account: &str) -> String {
    let registers = "proxy.istio.io/config: '{proxyMetadata: {ISTIO_META_AUTO_REGISTER_GROUP: machines}}'";
    let machine =
        Workload { name: "machine", labels: "app: machine", annotations: registers, account, ..Workload::default() };
    machine.yaml()
}

/// Whether the client is served by the machine.
fn served(client: &Pod, expected: u16) -> Result<(), String> {
    let answer = client.curl("http://machines.example/")?;
    let by = answer.header("x-served-by").unwrap_or_default().to_owned();
    let right = answer.status == expected && (expected != 200 || by.starts_with("machine "));
    if right { Ok(()) } else { Err(format!("{} by {by:?}, not {expected}: {}", answer.status, answer.text())) }
}

/// What discovery says of its objects.
fn entry(mesh: &Mesh, there: bool) -> Result<(), String> {
    let answer = mesh.pod("istiod").curl("http://10.244.0.1:8080/debug/configz")?;
    let found = answer.text().contains("machines-10.244.");
    if found == there { Ok(()) } else { Err(format!("an entry: {found}, not {there}: {}", answer.text())) }
}

/// Whether discovery has refused a registration.
fn refused(mesh: &Mesh) -> Result<(), String> {
    let answer = mesh.pod("istiod").curl("http://10.244.0.1:15014/metrics")?;
    let text = answer.text();
    let errors = text.lines().find_map(|line| line.strip_prefix("auto_registration_errors_total "));
    if errors.is_some_and(|count| count != "0") { Ok(()) } else { Err("no registration was refused".to_owned()) }
}

fn start(dir: &Path, flag: &Path) -> Mesh {
    let client = Workload { name: "client", labels: "app: client", account: "client", ..Workload::default() };
    let group = GROUP.replace("FLAG", &flag.display().to_string());
    let mut command = meltemi();
    command.env("PILOT_WORKLOAD_ENTRY_GRACE_PERIOD", "1s");
    let files = [("client.yaml", &*client.yaml()), ("group.yaml", &group), ("machine.yaml", &machine("machine"))];
    Mesh::start_by(command, dir, &files)
}

#[test]
fn a_workload_that_registers_itself_is_there_while_it_is_connected_and_healthy() {
    if let Err(reason) = can_run() {
        return println!("{reason}");
    }
    let dir = tempfile::tempdir().expect("folder");
    let flag = dir.path().join("healthy");
    let mesh = start(dir.path(), &flag);
    let client = mesh.pod("client");
    let step = |name: &str, outcome: Result<(), String>| {
        assert!(outcome.is_ok(), "{name}: {outcome:?}\n{}", mesh.process.output());
    };
    step("before its first good answer", settles(|| served(&client, 503)));
    std::fs::write(&flag, "").expect("write");
    step("healthy", settles(|| served(&client, 200)));
    step("known to discovery", settles(|| entry(&mesh, true)));
    std::fs::remove_file(&flag).expect("remove");
    step("unhealthy", settles(|| served(&client, 503)));
    std::fs::write(&flag, "").expect("write");
    step("healthy again", settles(|| served(&client, 200)));
    mesh.write("machine.yaml", "");
    step("gone", settles(|| served(&client, 503).and_then(|()| entry(&mesh, false))));
    step("nobody refused so far", refused(&mesh).map_or(Ok(()), |()| Err("an error".to_owned())));
    // A workload of another service account may not take part.
    mesh.write("machine.yaml", &machine("stranger"));
    step("refused", settles(|| refused(&mesh)));
    step("not taken in", served(&client, 503).and_then(|()| entry(&mesh, false)));
    mesh.write("machine.yaml", &machine("machine"));
    step("back", settles(|| served(&client, 200)));
}
