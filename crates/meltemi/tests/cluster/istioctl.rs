//! What the real istioctl reads from discovery: proxies' status, their configuration, debug pages, versions.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use meltemi_xds::WILDCARD;
use meltemi_xds::types::CLUSTER;
use serde_json::Value;

use crate::client::{Proxy, block_on, certificate, node, secure};
use crate::kubernetes::{Kubernetes, PATIENCE, until};
use crate::process::Discovery;

/// istioctl names itself by an address of this machine that is not its loopback's.
const LINK: &str = "ip link add peers0 type veth peer name peers1 && ip address add 10.98.0.1/24 dev peers0 && \
                    ip link set peers0 up && ip link set peers1 up";

/// Where `MELTEMI_PEERS` says, else beside the cache.
fn program() -> Option<PathBuf> {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/meltemi-peers");
    let folder = std::env::var_os("MELTEMI_PEERS").map_or_else(home, PathBuf::from);
    Some(folder.join("istioctl")).filter(|program| program.exists())
}

struct Istioctl<'a> {
    program: PathBuf,
    cluster: &'a Kubernetes,
    address: String,
}

impl Istioctl<'_> {
    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(&self.program);
        command.args(arguments).args(["--xds-address", &self.address]).stdin(Stdio::null());
        command.env("KUBECONFIG", self.cluster.kubeconfig()).output().expect("istioctl")
    }

    /// What it prints; it must succeed.
    fn text(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "istioctl {}: {errors}", arguments.join(" "));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn page(&self, name: &str) -> Value {
        let text = self.text(&["x", "internal-debug", name]);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}: {text}"))
    }
}

pub fn answers(cluster: &Kubernetes) {
    let Some(program) = program() else {
        println!("skipped: no istioctl in ~/.cache/meltemi-peers (MELTEMI_PEERS)");
        return;
    };
    let linked = Command::new("sh").args(["-c", LINK]).status().expect("ip");
    assert!(linked.success(), "an address of the cluster's network");
    cluster.namespace("peers");
    cluster.ctl(&["create", "serviceaccount", "web", "-n", "peers"]);
    let discovery = Discovery::start(cluster, &[]);
    let istioctl = Istioctl { program, cluster, address: discovery.secure.to_string() };
    let roots = until("the roots", || {
        let map = cluster.get("configmap", "peers", "istio-ca-root-cert")?;
        map["data"]["root-cert.pem"].as_str().map(str::to_owned)
    });
    let token = cluster.token("peers", "web", "istio-ca");
    block_on(async {
        let web = certificate(discovery.secure, &roots, ("peers", "web"), &token).await.expect("a certificate").0;
        let mut proxy = Proxy::connect(secure(discovery.secure, &roots, web).await, node("sidecar", "peers", "web"));
        proxy.subscribe(CLUSTER, &[WILDCARD]);
        proxy.until("clusters", |proxy| proxy.has(CLUSTER, "BlackHoleCluster")).await;
        let end = Instant::now() + PATIENCE;
        let row = |table: &str| table.lines().find(|line| line.starts_with("web-1.peers")).map(str::to_owned);
        while !row(&istioctl.text(&["proxy-status", "-v", "1"])).is_some_and(|row| row.contains("SYNCED")) {
            assert!(Instant::now() < end, "no acknowledgement");
            // Its acknowledgement is sent while it reads.
            proxy.reaches(Duration::from_millis(50), |_| false).await;
        }
        let table = istioctl.text(&["proxy-status"]);
        let row = row(&table).expect("the proxy");
        let row: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(&row[1..3], ["Kubernetes", "istiod.istio-system"], "{table}");
        let json: Value = serde_json::from_str(&istioctl.text(&["proxy-status", "-o", "json"])).expect("JSON");
        assert_eq!(json["resources"][0]["node"]["id"], "web-1.peers", "{json}");

        let pages = istioctl.page("--list");
        for page in pages.as_array().expect("a list").iter().filter_map(Value::as_str) {
            let needs_proxy = matches!(page, "config_dump" | "edsz" | "ndsz" | "ecdsz" | "sidecarz");
            let query = if needs_proxy { format!("{page}?proxyID=web-1.peers") } else { page.to_owned() };
            assert!(!istioctl.page(&query).is_null(), "{page}");
        }
        let asked = istioctl.run(&["x", "internal-debug", "edsz"]);
        assert!(String::from_utf8_lossy(&asked.stderr).contains("You must provide a proxyID"), "{asked:?}");
        let version = istioctl.text(&["x", "version"]);
        assert!(version.contains(&format!("control plane version: {}", env!("CARGO_PKG_VERSION"))), "{version}");
    });
}
