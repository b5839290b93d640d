use super::*;
use crate::environment::{Role, Settings, Variables};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper::{Response, body::Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, KeyPair};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

fn caller() -> Caller {
    let variables = Variables::from_pairs([("POD_NAME", "app-1"), ("INSTANCE_IP", "127.0.0.1")]);
    Caller::new(&Settings::from_variables(Role::Sidecar, None, &variables).unwrap())
}

fn server_tls(alpn: &[&[u8]]) -> TlsAcceptor {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["nobody.example".to_owned()]).unwrap().self_signed(&key).unwrap();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let config = ServerConfig::builder().with_no_client_auth();
    let mut config = config.with_single_cert(vec![certificate.der().clone()], key.into()).unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

/// An application behind the capture rules; its port.
async fn application(tls: Option<TlsAcceptor>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, peer) = listener.accept().await.unwrap();
            assert_eq!(peer.ip().to_string(), "127.0.0.6", "capture rules let this pass");
            let tls = tls.clone();
            tokio::spawn(async move {
                let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let service = service_fn(move |request| answer(request, port));
                match tls {
                    Some(tls) => {
                        let stream = TokioIo::new(tls.accept(stream).await.unwrap());
                        let _ = builder.serve_connection(stream, service).await;
                    }
                    None => drop(builder.serve_connection(TokioIo::new(stream), service).await),
                }
            });
        }
    });
    port
}

async fn answer(request: Request<Incoming>, port: u16) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let path = request.uri().path().to_owned();
    let header = |name: &str| request.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    let host = request.uri().authority().map_or_else(|| header("host"), ToString::to_string);
    let said = format!("{} {host} {}", header("user-agent"), header("x-asked"));
    let to = |location: String| (302, location, String::new());
    let (status, location, body) = match path.as_str() {
        "/grpc.health.v1.Health/Check" => {
            let asked = request.into_body().collect().await?.to_bytes();
            let status = if asked.ends_with(b"good") { 1 } else { 2 };
            let body = Full::new(Bytes::from(vec![0, 0, 0, 0, 2, 0x08, status]));
            return Ok(Response::builder().header("grpc-status", "0").body(body).unwrap());
        }
        "/said" => (200, String::new(), said),
        "/busy" => (503, String::new(), "busy".to_owned()),
        "/much" => (200, String::new(), "x".repeat(20 << 10)),
        "/here" => to("/said".to_owned()),
        "/relative/page" => to("../busy".to_owned()),
        "/relative/../busy" => (200, String::new(), "relative".to_owned()),
        "/absolute" => to(format!("http://127.0.0.1:{port}/said")),
        "/elsewhere" => to("http://elsewhere.example/gone".to_owned()),
        "/round" => to("/round".to_owned()),
        "/slow" => {
            std::future::pending::<()>().await;
            unreachable!("nobody waits for this");
        }
        _ => (404, String::new(), String::new()),
    };
    let mut response = Response::builder().status(status);
    if !location.is_empty() {
        response = response.header("location", location);
    }
    Ok(response.body(Full::from(body)).unwrap())
}

fn headers(host: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("host", host.parse().unwrap());
    headers.insert("user-agent", "kube-probe/1.36".parse().unwrap());
    headers.insert("connection", "close".parse().unwrap());
    headers.insert("x-asked", "yes".parse().unwrap());
    headers
}

async fn ask(probe: &str, port: u16, host: &str) -> (u16, String) {
    let path = "/app-health/app/readyz";
    let probes = format!("{{\"{path}\": {}}}", probe.replace("PORT", &port.to_string()));
    let probes = AppProbes::parse(&probes).unwrap();
    let (status, body) = probes.ask(&caller(), path, &headers(host), 15020).await;
    (status.as_u16(), String::from_utf8(body).unwrap())
}

#[tokio::test]
async fn the_application_is_asked_as_the_kubelet_would() {
    let port = application(None).await;
    let own = format!("kube-probe/1.36 10.0.0.1:{port} yes");
    let http = |path: &str| format!("{{\"httpGet\": {{\"path\": \"{path}\", \"port\": PORT}}}}");
    for (probe, host, expected) in [
        (http("/said"), "10.0.0.1:15020", (200, own.clone())),
        (http("said"), "app.example", (200, "kube-probe/1.36 app.example yes".to_owned())),
        (http("/busy"), "10.0.0.1:15020", (503, "busy".to_owned())),
        (http("/nowhere"), "10.0.0.1:15020", (404, String::new())),
        (http("/much"), "10.0.0.1:15020", (200, "x".repeat(10 << 10))),
        (http("/here"), "10.0.0.1:15020", (200, own)),
        (http("/relative/page"), "10.0.0.1:15020", (200, "relative".to_owned())),
        (http("/absolute"), "10.0.0.1:15020", (200, format!("kube-probe/1.36 127.0.0.1:{port} yes"))),
        (http("/elsewhere"), "10.0.0.1:15020", (200, String::new())),
        (http("/round"), "10.0.0.1:15020", (500, String::new())),
        (http("/slow"), "10.0.0.1:15020", (500, String::new())),
        (r#"{"tcpSocket": {"port": PORT}}"#.to_owned(), "h", (200, String::new())),
        (r#"{"grpc": {"port": PORT, "service": "good"}}"#.to_owned(), "h", (200, String::new())),
        (r#"{"grpc": {"port": PORT, "service": null}, "timeoutSeconds": 3}"#.to_owned(), "h", (500, String::new())),
    ] {
        assert_eq!(ask(&probe, port, host).await, expected, "{probe}");
    }
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for probe in [http("/said"), r#"{"tcpSocket": {"port": PORT}}"#.to_owned()] {
        assert_eq!(ask(&probe, closed, "h").await.0, 500, "{probe}");
    }
}

#[tokio::test]
async fn a_certificate_is_not_looked_at_and_http2_is_spoken_where_the_application_wants_it() {
    let probe = r#"{"httpGet": {"path": "/said", "port": PORT, "scheme": "HTTPS"}}"#;
    for alpn in [&[][..], &[&b"http/1.1"[..]], &[&b"h2"[..]]] {
        let port = application(Some(server_tls(alpn))).await;
        let expected = (200, format!("kube-probe/1.36 10.0.0.1:{port} yes"));
        assert_eq!(ask(probe, port, "10.0.0.1:15020").await, expected, "{alpn:?}");
    }
}

#[tokio::test]
async fn a_path_that_injection_did_not_name_is_refused() {
    let probes = AppProbes::parse("{}").unwrap();
    let (status, body) = probes.ask(&caller(), "/app-health/app/livez", &HeaderMap::new(), 15020).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(String::from_utf8(body).unwrap().contains("/app-health/app/livez"));
}

#[test]
fn what_injection_does_not_write_is_refused() {
    for (text, part) in [
        (r#"{"/healthz": {"tcpSocket": {"port": 1}}}"#, "not a path"),
        (r#"{"/app-health//livez": {"tcpSocket": {"port": 1}}}"#, "not a path"),
        (r#"{"/app-health/app/ready": {"tcpSocket": {"port": 1}}}"#, "not a path"),
        (r#"{"/app-health/app/livez": {}}"#, "exactly one"),
        (r#"{"/app-health/app/livez": {"tcpSocket": {"port": 1}, "grpc": {"port": 1}}}"#, "exactly one"),
        (r#"{"/app-health/app/livez": {"httpGet": {"port": "http"}}}"#, "invalid type"),
        (r#"{"/app-health/app/livez": {"exec": {}}}"#, "unknown field"),
        ("[]", "invalid type"),
    ] {
        let error = AppProbes::parse(text).err();
        assert!(error.as_ref().is_some_and(|error| error.contains(part)), "{text}: {error:?}");
    }
    let handler =
        r#"{"/app-lifecycle/app/prestopz": {"httpGet": {"path": "/s", "port": 80, "host": "h", "httpHeaders": []}}}"#;
    assert!(AppProbes::parse(handler).is_ok());
}
