use super::probe::*;
use super::*;
use crate::environment::{Role, Settings, Variables};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::net::SocketAddr;
use tokio::net::TcpListener;

#[test]
fn health_changes_after_so_many_answers_in_a_row() {
    for (success, failure, answers, told) in [
        (0, 0, "y", "h"),
        (0, 0, "nny", "u.h"),
        (2, 3, "yynnnyy", ".h..u.h"),
        // A single answer of the other kind begins anew.
        (2, 3, "ynyynnynnn", "...h.....u"),
        (1, 1, "yyyy", "h..."),
    ] {
        let probe = ReadinessProbe { success_threshold: success, failure_threshold: failure, ..Default::default() };
        let mut judge = Judge::new(&probe);
        let mark = |answer: char| match (judge.take(answer == 'y'), answer) {
            (false, _) => '.',
            (true, 'y') => 'h',
            (true, _) => 'u',
        };
        assert_eq!(answers.chars().map(mark).collect::<String>(), told, "{success} {failure} {answers}");
    }
}

fn settings(address: &str) -> Settings {
    let variables = Variables::from_pairs([("POD_NAME", "vm-1"), ("INSTANCE_IP", address)]);
    Settings::from_variables(Role::Sidecar, None, &variables).unwrap()
}

fn prober(yaml: &str, address: SocketAddr) -> Result<Prober, String> {
    let yaml = yaml.replace("PORT", &address.port().to_string());
    let probe: ReadinessProbe = serde_saphyr::from_str(&yaml).map_err(|e| e.to_string())?;
    Prober::new(&probe, &settings(&address.ip().to_string()))
}

/// Answers HTTP/1 and gRPC: `/ok` with 302, a Host of `other.example` with 204, and `good` as SERVING.
async fn application() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, peer) = listener.accept().await.unwrap();
            assert_eq!(peer.ip().to_string(), "127.0.0.6", "capture rules let this pass");
            tokio::spawn(async move {
                let service = service_fn(answer);
                let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

async fn answer(request: hyper::Request<hyper::body::Incoming>) -> Result<hyper::Response<Full<Bytes>>, hyper::Error> {
    let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let (host, agent, path) = (header("host"), header("user-agent"), request.uri().path().to_owned());
    if path == "/grpc.health.v1.Health/Check" {
        let asked = request.into_body().collect().await?.to_bytes();
        let status = if asked.ends_with(b"good") { 1 } else { 2 };
        let body = Full::new(Bytes::from(vec![0, 0, 0, 0, 2, 0x08, status]));
        return Ok(hyper::Response::builder().header("grpc-status", "0").body(body).unwrap());
    }
    let status = match (path.as_str(), host.as_deref(), agent.as_deref()) {
        ("/ok", Some(host), Some("istio-probe/1.0")) if host.starts_with("127.0.0.1:") => 302,
        ("/", Some("other.example"), Some("mine")) => 204,
        _ => 404,
    };
    Ok(hyper::Response::builder().status(status).body(Full::default()).unwrap())
}

#[tokio::test]
async fn each_method_tells_a_serving_application_from_another() {
    let address = application().await;
    for (yaml, reason) in [
        ("httpGet: {port: PORT, path: /ok}", None),
        ("httpGet: {port: PORT, path: gone}", Some("status 404")),
        (
            "httpGet: {port: PORT, httpHeaders: [{name: Host, value: other.example}, {name: User-Agent, value: mine}]}",
            None,
        ),
        ("httpGet: {port: PORT, scheme: HTTPS, path: /ok}", Some("")),
        ("tcpSocket: {port: PORT}", None),
        ("tcpSocket: {port: PORT, host: 127.0.0.1}", None),
        ("exec: {command: ['true']}", None),
        ("exec: {command: ['false']}", Some("exit status: 1")),
        ("exec: {command: [/nowhere/at/all]}", Some("No such file")),
        ("{timeoutSeconds: 1, exec: {command: [sleep, '30']}}", Some("no answer within 1s")),
        ("grpc: {port: PORT, service: good}", None),
        ("grpc: {port: PORT, service: bad}", Some("not serving")),
    ] {
        let answer = prober(yaml, address).unwrap().ask().await;
        match reason {
            None => assert_eq!(answer, Ok(()), "{yaml}"),
            Some(part) => assert!(answer.as_ref().is_err_and(|reason| reason.contains(part)), "{yaml}: {answer:?}"),
        }
    }
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for yaml in ["httpGet: {port: PORT}", "tcpSocket: {port: PORT}", "grpc: {port: PORT}"] {
        let answer = prober(yaml, closed).unwrap().ask().await;
        assert!(answer.is_err(), "{yaml}");
    }
}

#[test]
fn a_probe_has_one_method() {
    let address = "127.0.0.1:80".parse().unwrap();
    for (yaml, part) in [
        ("{}", "exactly one"),
        ("{tcpSocket: {port: 1}, grpc: {port: 1}}", "exactly one"),
        ("exec: {}", "command"),
        ("udpSocket: {port: 1}", "unknown field"),
    ] {
        let error = prober(yaml, address).err();
        assert!(error.as_ref().is_some_and(|error| error.contains(part)), "{yaml}: {error:?}");
    }
}
