use std::path::Path;

use meltemi_proto::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use meltemi_proto::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use meltemi_proto::envoy::service::ratelimit::v3::RateLimitRequest;
use meltemi_proto::envoy::service::ratelimit::v3::rate_limit_service_client::RateLimitServiceClient;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::oneshot;

use super::*;

fn write(folder: &Path, requests: u32) {
    let text = format!(
        "domain: shop\ndescriptors:\n- key: user\n  rate_limit: {{unit: year, requests_per_unit: {requests}}}\n"
    );
    std::fs::write(folder.join("next"), text).unwrap();
    std::fs::rename(folder.join("next"), folder.join("limits.yaml")).unwrap();
}

fn options(folder: &Path) -> Options {
    let loopback = "127.0.0.1:0".parse().unwrap();
    Options {
        source: Source { paths: vec![folder.to_owned()], policies: Vec::new() },
        grpc: loopback,
        http: loopback,
        on_failure: OnFailure::Error,
        headers: false,
        shadow: false,
    }
}

async fn page(address: SocketAddr, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn changed_files_are_in_force_and_broken_ones_are_not() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), 1000);
    let server = RateLimitServer::bind(options(folder.path()), Backend::Memory { keys: 64 }).await.unwrap();
    let addresses = server.addresses().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve(async move { drop(stopped.await) }));
    let mut client = RateLimitServiceClient::connect(format!("http://{}", addresses.grpc)).await.unwrap();
    let entries = vec![Entry { key: "user".into(), value: "ann".into() }];
    let descriptors = vec![RateLimitDescriptor { entries, ..Default::default() }];
    let request = RateLimitRequest { domain: "shop".into(), descriptors, hits_addend: 0 };
    let mut limit = async || {
        let response = client.should_rate_limit(request.clone()).await.unwrap().into_inner();
        response.statuses[0].current_limit.as_ref().map(|limit| limit.requests_per_unit)
    };
    assert_eq!(limit().await, Some(1000));

    write(folder.path(), 50_000);
    while limit().await != Some(50_000) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    std::fs::write(folder.path().join("limits.yaml"), "domain: [").unwrap();
    let broken = "ratelimit_service_config_load_error 1";
    while !page(addresses.http, "/metrics").await.contains(broken) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(limit().await, Some(50_000), "the last good limits stay");
    assert!(page(addresses.http, "/healthcheck").await.ends_with("OK"));
    let metrics = page(addresses.http, "/metrics").await;
    assert!(metrics.contains("ratelimit_service_rate_limit_total_hits{domain=\"shop\",key1=\"user\"}"), "{metrics}");
    drop(client);
    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn it_does_not_start_with_a_wrong_configuration() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("limits.yaml"), "descriptors: []\n").unwrap();
    let error = RateLimitServer::bind(options(folder.path()), Backend::Memory { keys: 64 }).await.err().unwrap();
    assert!(error.to_string().contains("domain: required"), "{error}");
}

#[tokio::test]
async fn a_connection_too_many_waits_until_another_ends() {
    use futures_util::StreamExt as _;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut accepted = Box::pin(connections::accept(listener, 1));
    let _clients = [
        tokio::net::TcpStream::connect(address).await.unwrap(),
        tokio::net::TcpStream::connect(address).await.unwrap(),
    ];
    let first = accepted.next().await.unwrap().unwrap();
    let waiting = tokio::time::timeout(Duration::from_millis(50), accepted.next()).await;
    assert!(waiting.is_err(), "there is one place");
    drop(first);
    accepted.next().await.unwrap().unwrap();
}
