use super::*;
use crate::environment::{Role, Variables};
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request};
use std::sync::atomic::AtomicU32;
use tower::ServiceExt;

#[derive(Default)]
struct Fake {
    drains: AtomicU32,
}

impl ProxyState for Fake {
    fn ready(&self) -> Told<'_, Result<(), String>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn metrics(&self) -> Told<'_, String> {
        Box::pin(std::future::ready("proxy 1\n".to_owned()))
    }

    fn connections(&self) -> Told<'_, Result<u64, String>> {
        Box::pin(std::future::ready(Ok(0)))
    }

    fn drain(&self) -> Told<'_, ()> {
        self.drains.fetch_add(1, Ordering::Relaxed);
        Box::pin(std::future::ready(()))
    }

    fn ending(&self) {}
}

fn status() -> (Arc<Fake>, Arc<Status>) {
    let variables = Variables::from_pairs([("POD_NAME", "app-1"), ("INSTANCE_IP", "10.0.0.1")]);
    let settings = Settings::from_variables(Role::Sidecar, None, &variables).unwrap();
    let fake = Arc::new(Fake::default());
    let proxy: Arc<dyn ProxyState> = Arc::clone(&fake) as _;
    (fake, Status::new(proxy, &settings))
}

async fn ask(routes: Router, method: Method, path: &str, peer: &str) -> (u16, String) {
    let mut request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
    request.extensions_mut().insert(ConnectInfo(SocketAddr::new(peer.parse().unwrap(), 4000)));
    let response = routes.oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    (status, String::from_utf8(to_bytes(response.into_body(), 1 << 20).await.unwrap().to_vec()).unwrap())
}

#[tokio::test]
async fn orders_are_taken_from_this_pod_alone() {
    for (method, peer, expected, drains) in [
        (Method::POST, "127.0.0.1", 200, 1),
        (Method::POST, "::1", 200, 1),
        // As a listener of both families tells of it.
        (Method::POST, "::ffff:127.0.0.1", 200, 1),
        (Method::GET, "127.0.0.1", 405, 0),
        (Method::POST, "10.0.0.1", 403, 0),
        (Method::POST, "10.0.0.9", 403, 0),
        // What a proxy passes on, whoever sent it.
        (Method::POST, "127.0.0.6", 403, 0),
        (Method::POST, "::ffff:127.0.0.6", 403, 0),
        (Method::POST, "::6", 403, 0),
    ] {
        let (fake, status) = status();
        let (answer, _) = ask(all(Arc::clone(&status)), method.clone(), "/drain", peer).await;
        assert_eq!((answer, fake.drains.load(Ordering::Relaxed)), (expected, drains), "{method} {peer}");
        let (answer, _) = ask(all(Arc::clone(&status)), method, "/quitquitquit", peer).await;
        assert_eq!(answer, expected, "{peer}");
        let due = status.termination.due(std::future::pending());
        let quits = tokio::time::timeout(std::time::Duration::from_millis(10), due).await.is_ok();
        assert_eq!(quits, expected == 200, "{peer}");
    }
}

#[tokio::test]
async fn only_the_status_port_knows_of_the_application() {
    let (_, status) = status();
    let (_, text) = ask(all(Arc::clone(&status)), Method::GET, "/metrics", "10.0.0.9").await;
    assert!(text.starts_with("# TYPE istio_agent_scrapes_total counter\nistio_agent_scrapes_total 1\n"), "{text}");
    assert!(text.ends_with("proxy 1\n"), "{text}");
    let unknown = ask(all(Arc::clone(&status)), Method::GET, "/app-health/app/livez", "10.0.0.9").await;
    assert_eq!(unknown.0, 400, "{}", unknown.1);
    for path in ["/app-health/app/livez", "/drain", "/quitquitquit"] {
        let (answer, _) = ask(proxys_own(Arc::clone(&status.proxy)), Method::POST, path, "127.0.0.1").await;
        assert_eq!(answer, 404, "{path}");
    }
    let own = ask(proxys_own(Arc::clone(&status.proxy)), Method::GET, "/stats/prometheus", "10.0.0.9").await;
    assert_eq!(own, (200, "proxy 1\n".to_owned()));
}

#[tokio::test]
async fn both_families_are_served() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let listener = listen(port).await.unwrap();
    tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    if listener.local_addr().unwrap().is_ipv6() {
        tokio::net::TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await.unwrap();
    }
}
