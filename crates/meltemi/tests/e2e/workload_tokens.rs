//! SPIFFE's tokens of workloads (JWT-SVID) in a mesh of `meltemi up`: the package `spiffe`, as an application beside a proxy, gets one
//! from the agent, verifies it by the mesh's keys, and has it validated.

use crate::control_plane::python;
use crate::mesh::{Mesh, Workload, can_run, settles};
use serde_json::{Value, json};
use std::process::Command;

const PEER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/peers/workload.py");

#[test]
fn an_application_gets_tokens_that_name_it_and_verify_by_the_meshs_keys() {
    let python = match can_run().and_then(|()| python()) {
        Ok(python) => python,
        Err(reason) => return println!("{reason}"),
    };
    if !Command::new(&python).args(["-c", "import spiffe"]).output().expect("python").status.success() {
        return println!("skipped: no package spiffe; scripts/install-test-deps.sh installs it");
    }
    let folder = tempfile::tempdir().expect("folder");
    let socket = folder.path().join("workload.sock").display().to_string();
    let config = json!({ "proxyMetadata": { "MELTEMI_WORKLOAD_API_SOCKET": socket } }).to_string();
    let annotations = format!("proxy.istio.io/config: '{config}'");
    let town =
        Workload { name: "web", labels: "app: web", annotations: &annotations, account: "web", ..Workload::default() };
    let mesh = Mesh::start(folder.path(), &[("town.yaml", &town.yaml())], &[]);
    let pod = mesh.pod("web");
    let ask = || -> Result<Value, String> {
        let output = pod.command(&python).args([PEER, "tokens", &socket, "bank"]).output().expect("nsenter");
        let said = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&said).map_err(|_| format!("{said}{}", String::from_utf8_lossy(&output.stderr)))
    };
    let mut told = Value::Null;
    settles(|| ask().map(|answer| told = answer))
        .unwrap_or_else(|reason| panic!("{reason}\n{}", mesh.process.output()));
    let id = "spiffe://cluster.local/ns/app/sa/web";
    assert_eq!((&told["id"], &told["audience"]), (&id.into(), &json!(["bank"])));
    assert_eq!((&told["verified"], &told["validated"]), (&id.into(), &id.into()), "{told}");
    assert_eq!(told["elsewhere"], "InvalidTokenError", "{told}");
    assert_ne!(told["refused"], id, "{told}");
    assert_ne!(told["another"], "spiffe://cluster.local/ns/app/sa/admin", "{told}");
    let output = mesh.process.output();
    assert!(!output.contains("eyJ"), "tokens are not logged");
}
