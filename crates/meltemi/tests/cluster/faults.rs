//! What breaks, and that it costs proxies nothing.

use std::time::{Duration, Instant};

use meltemi_xds::WILDCARD;
use meltemi_xds::types::CLUSTER;

use crate::client::{Proxy, block_on, handshake, in_turn, node};
use crate::documents::{service, slice};
use crate::kubernetes::{Kubernetes, PATIENCE};
use crate::process::Discovery;
use crate::registry::{names, watching};
use crate::trust::roots;

pub fn restored(cluster: &Kubernetes) {
    cluster.namespace("restored");
    cluster.apply(&service("restored", "web", &["10.5.0.1"]));
    let discovery = Discovery::start(cluster, &[]);
    let name = "outbound|80||web.restored.svc.cluster.local";
    let late = "outbound|80||late.restored.svc.cluster.local";
    cluster.storage("save");
    block_on(async {
        let mut proxy = watching(&discovery, name);
        proxy.until("what is saved", |proxy| proxy.endpoints(name) == ["10.5.0.1:8080"]).await;
        cluster.apply(&slice("restored", "web", &["10.5.0.2"]));
        cluster.apply(&service("restored", "late", &["10.5.0.3"]));
        proxy
            .until("what is not", |proxy| proxy.has(CLUSTER, late) && proxy.endpoints(name) == ["10.5.0.2:8080"])
            .await;
        cluster.storage("restore");
        // As it was, though nothing tells of the change that undid it.
        proxy
            .until("what was saved", |proxy| !proxy.has(CLUSTER, late) && proxy.endpoints(name) == ["10.5.0.1:8080"])
            .await;
        assert!(!names(&discovery, "Service").contains(&"late".to_owned()));
        // And what happens now is seen, though its versions are those of what is undone.
        cluster.apply(&slice("restored", "web", &["10.5.0.4"]));
        proxy.until("a change", |proxy| proxy.endpoints(name) == ["10.5.0.4:8080"]).await;
    });
}

pub fn expired(cluster: &Kubernetes) {
    /// The life of discovery's own certificate.
    const LIFE: Duration = Duration::from_secs(6);
    let life = format!("{}s", LIFE.as_secs());
    let discovery = Discovery::start(cluster, &["--maxWorkloadCertTTL", &life, "--workloadCertTTL", &life]);
    let roots = roots(cluster, "default");
    block_on(async {
        let begin = Instant::now();
        while begin.elapsed() < LIFE + LIFE / 2 {
            handshake(discovery.secure, &roots).await.expect("a certificate that is renewed before it ends");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        // A machine that sleeps beyond the end of the certificate.
        discovery.pause();
        tokio::time::sleep(LIFE + LIFE / 2).await;
        discovery.resume();
        let end = Instant::now() + LIFE;
        while let Err(error) = handshake(discovery.secure, &roots).await {
            assert!(error.contains("xpired"), "{error}");
            assert!(Instant::now() < end, "it is not replaced: {error}");
        }
    });
}

pub fn killed(cluster: &Kubernetes) {
    const SERVICES: usize = 60;
    const PROXIES: usize = 20;
    cluster.namespace("killed");
    cluster.apply(&service("killed", "base", &["10.6.0.1"]));
    let (first, second) = (Discovery::start(cluster, &[]), Discovery::start(cluster, &[]));
    let name = |service: &str| format!("outbound|80||{service}.killed.svc.cluster.local");
    let many: Vec<String> = (0..SERVICES).map(|number| format!("many-{number}")).collect();
    let documents: Vec<String> = many.iter().map(|service| self::service("killed", service, &["10.6.0.2"])).collect();
    let (base, all): (String, Vec<String>) = (name("base"), many.iter().map(|service| name(service)).collect());
    let (go, told) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            cluster.enter();
            told.recv().expect("word that all are connected");
            cluster.apply(&documents.join("---\n"));
        });
        block_on(async move {
            let target = in_turn(&[first.grpc, second.grpc]);
            let mut proxies = Vec::new();
            for _ in 0..PROXIES {
                let mut proxy = Proxy::connect(target.clone(), node("sidecar", "default", "client"));
                proxy.subscribe(CLUSTER, &[WILDCARD]);
                proxy.until("the first state", |proxy| proxy.has(CLUSTER, &base)).await;
                proxies.push(proxy);
            }
            assert!(connected(&first) > 0 && connected(&second) > 0, "both serve");
            go.send(()).expect("the other thread");
            let begun = |proxy: &Proxy| all.iter().any(|cluster| proxy.has(CLUSTER, cluster));
            proxies[0].until("the beginning of a push", begun).await;
            first.kill();
            for proxy in &mut proxies {
                let whole = |proxy: &Proxy| {
                    assert!(proxy.has(CLUSTER, &base), "what it had it keeps");
                    all.iter().all(|cluster| proxy.has(CLUSTER, cluster))
                };
                proxy.until("all of it, from the other replica", whole).await;
            }
            // Those that had all of it before the end come as well.
            let end = Instant::now() + PATIENCE;
            while connected(&second) < PROXIES {
                assert!(Instant::now() < end, "{} proxies of {PROXIES}", connected(&second));
                for proxy in &mut proxies {
                    proxy.reaches(Duration::from_millis(10), |_| false).await;
                }
            }
        });
    });
}

/// How many proxies a replica serves.
fn connected(discovery: &Discovery) -> usize {
    discovery.json("/debug/syncz").as_array().expect("a list").len()
}

pub fn rebalanced(cluster: &Kubernetes) {
    cluster.namespace("aged");
    cluster.apply(&service("aged", "base", &["10.7.0.1"]));
    let start = || Discovery::start(cluster, &["--keepaliveMaxServerConnectionAge", "2s"]);
    let replicas = [start(), start()];
    let base = "outbound|80||base.aged.svc.cluster.local";
    block_on(async {
        let target = in_turn(&[replicas[0].grpc, replicas[1].grpc]);
        let mut proxy = Proxy::connect(target, node("sidecar", "default", "client"));
        proxy.subscribe(CLUSTER, &[WILDCARD]);
        proxy.until("its first state", |proxy| proxy.has(CLUSTER, base)).await;
        let mut seen = [0, 0];
        let end = Instant::now() + PATIENCE;
        // There, and back again.
        while seen != [2, 2] {
            assert!(Instant::now() < end, "it stays where it is: {seen:?}");
            for (at, replica) in replicas.iter().enumerate() {
                if connected(replica) > 0 && seen[at] <= seen[1 - at] {
                    seen[at] += 1;
                }
            }
            proxy.reaches(Duration::from_millis(100), |proxy| !proxy.has(CLUSTER, base)).await;
            assert!(proxy.has(CLUSTER, base), "nothing is lost on the way");
        }
    });
}
