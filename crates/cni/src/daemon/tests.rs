use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;
use crate::cluster::fake::Fake;
use crate::decide::tests::injected;
use crate::install::tests::{Node, list};
use crate::invocation::PodName;
use crate::query::{Daemon, PodSource as _};

/// A GET, answered whole.
async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

async fn eventually(mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap();
}

#[tokio::test]
async fn a_node_becomes_ready_is_answered_and_left_clean() {
    let node = Node::new();
    let run_folder = node.folder.path().join("run");
    let options = Options {
        install: node.settings.clone(),
        repair: None,
        run_folder: run_folder.clone(),
        health: ([127, 0, 0, 1], 0).into(),
        metrics: ([127, 0, 0, 1], 0).into(),
        untaint: true,
        cleanup: true,
    };
    let cluster = Arc::new(Fake { pods: vec![injected()], tainted: true, failures: 1.into(), ..Fake::default() });
    let listen = async || TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let (health, metrics) = (listen().await, listen().await);
    let (health_at, metrics_at) = (health.local_addr().unwrap(), metrics.local_addr().unwrap());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(serve_on(options, cluster.clone(), health, metrics, async { drop(stopped.await) }));

    assert!(get(health_at, "/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(get(health_at, "/readyz").await.starts_with("HTTP/1.1 503"));
    let path = node.write("10-bridge.conflist", &list());
    eventually(async || get(health_at, "/readyz").await.starts_with("HTTP/1.1 200")).await;
    assert!(std::fs::read_to_string(&path).unwrap().contains("istio-cni"));
    // The first try is refused.
    eventually(async || cluster.done() == [format!("untaint {TAINT}")]).await;
    let metrics = get(metrics_at, "/metrics").await;
    assert!(!metrics.contains("istio_cni_installs_total{result=\"SUCCESS\"} 0"), "{metrics}");
    assert!(metrics.contains("istio_cni_installs_total{result=\"SUCCESS\"} "), "{metrics}");

    let daemon = Daemon::at(&run_folder);
    let name = PodName { namespace: "shop".into(), name: "web-0".into(), uid: String::new() };
    let pod = tokio::task::spawn_blocking(move || daemon.pod(&name)).await.unwrap().unwrap();
    assert_eq!(pod, Some(injected()));

    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
    assert!(!std::fs::read_to_string(&path).unwrap().contains("istio-cni"));
    assert!(!node.settings.programs.join("istio-cni").exists());
    assert!(!query::socket(&run_folder).exists());
}
