use super::*;
use meltemi_proto::envoy::config::bootstrap::v3::Bootstrap as BootstrapProto;
use meltemi_proto::json::from_value;
use serde_json::{Value, json};
use std::path::Path;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn options(document: &Value) -> Result<Options, RunError> {
    Options::new(&from_value::<BootstrapProto>(document).unwrap())
}

fn temporary(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("meltemi-boot-{}-{name}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

/// A listener at a port that the system chooses, which forwards to nobody.
fn listener(address: Value) -> Value {
    json!({ "name": "l", "address": address, "filter_chains": [{ "filters": [{ "name": "tcp", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "s", "cluster": "c" } }] }] })
}

fn at(port: u16) -> Value {
    json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } })
}

async fn ask<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(mut stream: S, path: &str) -> String {
    let head = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// Asks until the answer is as wanted; a proxy needs a moment to start.
async fn until<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..500 {
        if let Some(found) = look().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not come about");
}

async fn ask_path(socket: &Path, path: &str) -> Option<String> {
    let stream = tokio::net::UnixStream::connect(socket).await.ok()?;
    Some(ask(stream, path).await)
}

/// Runs a proxy of one worker for as long as somebody looks at it.
async fn during(mut options: Options, look: impl AsyncFnOnce()) {
    options.concurrency = 1;
    let proxy = Proxy::new(options).unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let looking = async {
        look().await;
        drop(stop);
    };
    let (ended, ()) = tokio::join!(proxy.run(async { drop(stopped.await) }), looking);
    ended.unwrap();
}

#[tokio::test]
async fn the_admin_port_may_be_a_path_and_tells_the_ports_that_were_bound() {
    let socket = temporary("admin.sock");
    // One that an earlier process left.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let document = json!({
        "admin": { "address": { "pipe": { "path": socket } } },
        "static_resources": { "listeners": [listener(at(0))] },
    });
    during(options(&document).unwrap(), async || {
        let port: u16 = until(async || {
            let listeners = ask_path(&socket, "/listeners").await?;
            let port = listeners.trim_end().strip_prefix("l::127.0.0.1:")?.parse().unwrap();
            (port != 0).then_some(port)
        })
        .await;
        tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    })
    .await;
    std::fs::remove_file(&socket).unwrap();
}

#[tokio::test]
async fn the_admin_ports_address_is_written_where_it_is_wanted() {
    let file = temporary("address");
    let mut options = options(&json!({ "admin": { "address": at(0) } })).unwrap();
    options.admin_address_path = Some(file.clone());
    during(options, async || {
        let address = until(async || std::fs::read_to_string(&file).ok().filter(|address| !address.is_empty())).await;
        let stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        assert!(ask(stream, "/server_info").await.contains("\"state\""));
    })
    .await;
    std::fs::remove_file(&file).unwrap();
}

#[tokio::test]
async fn an_error_names_its_path_once() {
    let document = json!({ "static_resources": { "clusters": [{ "name": "" }] } });
    let error = options(&document).err().unwrap();
    assert_eq!(error.to_string(), "bootstrap: static_resources.clusters[0]: name: is required");
    assert!(std::error::Error::source(&error).is_none(), "nothing that a chain of errors would print again");
    let mut other = listener(at(80));
    other["name"] = "other".into();
    let twice = json!({ "static_resources": { "listeners": [listener(at(80)), other] } });
    let error = Proxy::new(options(&twice).unwrap()).err().unwrap().to_string();
    let expected =
        "bootstrap: static_resources.listeners \"other\": has duplicate address 127.0.0.1:80, which listener \"l\" has";
    assert_eq!(error, expected);
}

#[tokio::test]
async fn a_control_plane_that_is_no_cluster_is_refused_unless_another_way_is_given() {
    let document = json!({
        "node": { "id": "a", "cluster": "b" },
        "dynamic_resources": {
            "ads_config": { "api_type": "GRPC", "grpc_services": [{ "envoy_grpc": { "cluster_name": "nobody" } }] },
            "cds_config": { "ads": {} },
        },
    });
    let error = Proxy::new(options(&document).unwrap()).err().unwrap().to_string();
    assert_eq!(error, "bootstrap: dynamic_resources.ads_config: cluster \"nobody\" is not a static cluster");
    let mut options = options(&document).unwrap();
    let target = client::Target::Tcp("127.0.0.1:1".to_owned());
    options.control_plane = Some(client::Options::new(target, Default::default()));
    assert!(Proxy::new(options).is_ok());
}

#[tokio::test]
async fn an_admin_address_that_is_a_name_is_refused() {
    let named = json!({ "admin": { "address": { "socket_address": { "address": "localhost", "port_value": 1 } } } });
    let error = options(&named).err().unwrap().to_string();
    assert!(error.contains("admin.address: localhost:1 is not an IP address"), "{error}");
}
