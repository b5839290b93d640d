//! What processes of ours keep of root's powers, as the kernel shows it.

use crate::static_proxy::{Proxy, http_listener};
use crate::support::{Process, free_address, get, meltemi};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;

const NOTHING: u64 = 0;
const BIND: u64 = 1 << 10;
const NETWORK: u64 = 1 << 12 | 1 << 13;

/// Of `/proc/<id>/status`.
struct Status(BTreeMap<String, String>);

impl Status {
    fn of(id: u32) -> Self {
        let text = std::fs::read_to_string(format!("/proc/{id}/status")).expect("a running process");
        let line = |line: &str| line.split_once(':').map(|(key, value)| (key.to_owned(), value.trim().to_owned()));
        Self(text.lines().filter_map(line).collect())
    }

    fn capabilities(&self, set: &str) -> u64 {
        u64::from_str_radix(&self.0[set], 16).expect("hexadecimal")
    }

    /// Nothing but these, and no way to more.
    fn holds_only(&self, kept: u64) {
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            assert_eq!(self.capabilities(set), kept, "{set}: {:?}", self.0);
        }
        assert_eq!((self.capabilities("CapInh"), self.capabilities("CapAmb")), (NOTHING, NOTHING));
        assert_eq!(self.0["NoNewPrivs"], "1");
    }

    fn ids(&self, key: &str) -> Vec<&str> {
        self.0[key].split_whitespace().collect()
    }
}

/// Root of the machine, and not of a namespace.
fn is_root() -> Result<(), String> {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let whole = map.split_whitespace().eq(["0", "0", "4294967295"]);
    let capable = Status::of(std::process::id()).capabilities("CapEff") & (BIND | NETWORK) == BIND | NETWORK;
    if whole && capable { Ok(()) } else { Err("skipped: only root has privileges to give up".to_owned()) }
}

fn low_address() -> SocketAddr {
    let mut ports = (600..1000).map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    ports.find(|at| TcpListener::bind(at).is_ok()).expect("a free port")
}

fn listener(at: SocketAddr, rest: &Value) -> Value {
    let route = json!({ "match": { "prefix": "/" }, "direct_response": { "status": 211 } });
    let hosts = json!({ "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [route] }] });
    let mut listener = http_listener(at, &[], json!({ "route_config": hosts }));
    listener.as_object_mut().expect("an object").extend(rest.as_object().expect("an object").clone());
    listener
}

fn bootstrap(dir: &Path, listener: &Value) -> std::path::PathBuf {
    let file = dir.join("bootstrap.json");
    std::fs::write(&file, json!({ "static_resources": { "listeners": [listener] } }).to_string()).expect("write");
    file
}

#[test]
fn a_proxy_that_root_starts_serves_a_low_port_as_somebody_else() {
    if let Err(reason) = is_root() {
        return println!("{reason}");
    }
    for (rest, kept) in [(json!({}), BIND), (json!({ "transparent": true }), BIND | NETWORK)] {
        let (dir, at) = (tempfile::tempdir().expect("folder"), low_address());
        let mut command = meltemi();
        command
            .args(["proxy", "--user", "1337", "--group", "1338", "-c"])
            .arg(bootstrap(dir.path(), &listener(at, &rest)));
        let mut process = Process::start("meltemi", &mut command, dir.path());
        process.wait_listening(at);
        assert_eq!(get(at, "any.example", "/").expect("an answer").status, 211);
        let status = Status::of(process.id());
        assert_eq!((status.ids("Uid"), status.ids("Gid")), (vec!["1337"; 4], vec!["1338"; 4]));
        assert!(status.ids("Groups").is_empty());
        status.holds_only(kept);
    }
}

#[test]
fn a_proxy_keeps_its_user_and_no_capabilities_unless_it_is_told() {
    if let Err(reason) = is_root() {
        return println!("{reason}");
    }
    let (dir, at) = (tempfile::tempdir().expect("folder"), free_address());
    let proxy = Proxy::start("ours", dir.path(), json!([listener(at, &json!({}))]), json!([]));
    let status = Status::of(proxy.process.id());
    assert_eq!(status.ids("Uid"), ["0"; 4]);
    status.holds_only(BIND);
}

#[test]
fn discovery_has_no_capabilities() {
    if let Err(reason) = is_root() {
        return println!("{reason}");
    }
    let dir = tempfile::tempdir().expect("folder");
    let discovery = crate::control_plane::Discovery::start(dir.path(), &[]);
    Status::of(discovery.process.id()).holds_only(NOTHING);
}

#[test]
fn whoever_cannot_become_another_user_does_not_start() {
    if let Err(reason) = crate::mesh::can_run() {
        return println!("{reason}");
    }
    // Of this namespace only one id is known.
    let dir = tempfile::tempdir().expect("folder");
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--"]).arg(meltemi().get_program());
    command.args(["proxy", "--user", "1337", "-c"]).arg(bootstrap(dir.path(), &listener(free_address(), &json!({}))));
    let output = command.output().expect("unshare");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("cannot go on as user 1337, group 1337"), "{told}");
}
