//! Where requests go among localities and to endpoints that are new, by our discovery and our proxy as a gateway in `here/a`.

use crate::control_plane::{Discovery, eventually, gateway, start_own_gateway};
use crate::support::{Process, free_address, get, meltemi};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

/// A backend of a locality, which tells its name.
struct Store {
    name: &'static str,
    locality: &'static str,
    address: SocketAddr,
    process: Process,
}

impl Store {
    fn start(dir: &Path, name: &'static str, locality: &'static str) -> Self {
        let address = free_address();
        Self { name, locality, address, process: Self::launch(dir, name, address) }
    }

    fn launch(dir: &Path, name: &'static str, address: SocketAddr) -> Process {
        let mut command = meltemi();
        command.args(["echo", "--address", "127.0.0.1", "--service", name, "--http", &address.port().to_string()]);
        let mut process = Process::start(name, &mut command, dir);
        process.wait_listening(address);
        process
    }

    fn restart(&mut self, dir: &Path) {
        self.process = Self::launch(dir, self.name, self.address);
    }
}

fn entry(stores: &[Store]) -> String {
    let endpoint = |store: &Store| {
        format!("{{address: 127.0.0.1, ports: {{http: {}}}, locality: {}}}", store.address.port(), store.locality)
    };
    let endpoints: Vec<String> = stores.iter().map(endpoint).collect();
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: store, namespace: default}}\nspec: {{hosts: [store.example], resolution: STATIC, ports: [{{number: 80, name: http, protocol: HTTP}}], endpoints: [{}]}}\n",
        endpoints.join(", ")
    )
}

struct Town {
    discovery: Discovery,
    port: SocketAddr,
    _proxy: Process,
}

impl Town {
    /// `policy` is the inside of a DestinationRule's trafficPolicy.
    fn start(dir: &Path, stores: &[Store], policy: &str) -> Self {
        let port = free_address();
        let route = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: store, namespace: default}\nspec: {hosts: [store.example], gateways: [istio-system/gw], http: [{route: [{destination: {host: store.example}}]}]}\n";
        let rule = format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: store, namespace: default}}\nspec: {{host: store.example, trafficPolicy: {{{policy}}}}}\n"
        );
        let files = [("entry.yaml", entry(stores)), ("route.yaml", gateway(port.port(), route)), ("rule.yaml", rule)];
        let discovery = Discovery::start(dir, &files);
        let mut proxy = start_own_gateway(discovery.grpc, dir);
        proxy.wait_listening(port);
        Self { discovery, port, _proxy: proxy }
    }

    /// Who answers so many requests.
    fn counts(&self, requests: u32) -> Result<BTreeMap<String, u32>, String> {
        let mut counts = BTreeMap::new();
        for _ in 0..requests {
            let answer = get(self.port, "store.example", "/")?;
            let body: serde_json::Value =
                serde_json::from_slice(&answer.body).map_err(|e| format!("{e}: {answer:?}"))?;
            let by = body["service"].as_str().map_or_else(|| answer.status.to_string(), str::to_owned);
            *counts.entry(by).or_default() += 1;
        }
        Ok(counts)
    }

    fn only(&self, name: &str) {
        eventually(name, || {
            let counts = self.counts(20)?;
            if counts.len() == 1 && counts.contains_key(name) { Ok(()) } else { Err(format!("{counts:?}")) }
        });
    }
}

#[test]
fn requests_go_to_the_next_locality_when_the_nearest_is_gone_and_come_back() {
    let dir = tempfile::tempdir().expect("folder");
    let [near, beside, far] = [("near", "here/a"), ("beside", "here/b"), ("far", "there/a")];
    let mut stores = [near, beside, far].map(|(name, locality)| Store::start(dir.path(), name, locality));
    let policy = "loadBalancer: {localityLbSetting: {failover: [{from: here, to: there}]}}, outlierDetection: {consecutive5xxErrors: 1, interval: 0.2s, baseEjectionTime: 1s, maxEjectionPercent: 100}";
    let town = Town::start(dir.path(), &stores, policy);
    town.only("near");
    stores[0].process.signal("KILL");
    town.only("beside");
    stores[1].process.signal("KILL");
    town.only("far");
    stores[0].restart(dir.path());
    town.only("near");
}

#[test]
fn requests_are_distributed_among_localities_as_the_rule_says() {
    let dir = tempfile::tempdir().expect("folder");
    let stores = [("near", "here/a"), ("far", "there/a")].map(|(name, at)| Store::start(dir.path(), name, at));
    let policy = "loadBalancer: {localityLbSetting: {distribute: [{from: here/*, to: {here/*: 80, there/*: 20}}]}}, outlierDetection: {}";
    let town = Town::start(dir.path(), &stores, policy);
    town.counts(1).expect("an answer");
    eventually("a fifth", || {
        let counts = town.counts(200)?;
        let far = counts.get("far").copied().unwrap_or_default();
        if counts.values().sum::<u32>() == 200 && (20..=60).contains(&far) {
            Ok(())
        } else {
            Err(format!("{counts:?}"))
        }
    });
}

#[test]
fn a_new_endpoint_warms_up() {
    let dir = tempfile::tempdir().expect("folder");
    let mut stores = vec![Store::start(dir.path(), "old", "here/a")];
    let policy = "loadBalancer: {simple: ROUND_ROBIN, warmup: {duration: 15s, minimumPercent: 10}}";
    let town = Town::start(dir.path(), &stores, policy);
    // The first is new itself; it is alone, so that nothing shows.
    town.only("old");
    stores.push(Store::start(dir.path(), "new", "here/a"));
    // The old one has warmed up by then.
    std::thread::sleep(std::time::Duration::from_secs(16));
    town.discovery.write("entry.yaml", &entry(&stores));
    let share = |requests: u32| {
        let counts = town.counts(requests).expect("answers");
        assert_eq!(counts.values().sum::<u32>(), requests, "{counts:?}");
        assert!(counts.keys().all(|by| by == "old" || by == "new"), "{counts:?}");
        f64::from(counts.get("new").copied().unwrap_or_default()) / f64::from(requests)
    };
    eventually("the new one", || if share(20) > 0.0 { Ok(()) } else { Err("is not asked".to_owned()) });
    let began = std::time::Instant::now();
    let early = share(100);
    if began.elapsed() < std::time::Duration::from_secs(3) {
        assert!(early < 0.35, "{early} of the requests within the first seconds");
    } else {
        println!("skipped: this machine is too busy to tell the first seconds");
    }
    eventually("its share", || {
        let share = share(100);
        if (0.4..0.6).contains(&share) { Ok(()) } else { Err(format!("{share} of the requests")) }
    });
    println!("{early} of the requests at first");
}
