//! No request is lost while configuration changes under load: routes flip a hundred times, endpoints come and go.

use crate::control_plane::{Discovery, eventually, gateway, service, start_own_gateway};
use crate::support::{Answer, Backend, get, read_answer};
use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

const FLIPS: usize = 100;
const CLIENTS: usize = 4;

/// Clients that keep their connections and count what is not 200.
struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(target: SocketAddr) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let client = |_| {
            let (stop, sent) = (stop.clone(), sent.clone());
            std::thread::spawn(move || run_client(target, &stop, &sent))
        };
        Self { clients: (0..CLIENTS).map(client).collect(), stop, sent }
    }

    /// How many requests there were, and those that failed.
    fn finish(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let failures = self.clients.into_iter().flat_map(|client| client.join().expect("no panic")).collect();
        (self.sent.load(Ordering::Relaxed), failures)
    }
}

fn run_client(target: SocketAddr, stop: &AtomicBool, sent: &AtomicU64) -> Vec<String> {
    let mut failures = Vec::new();
    let mut connection: Option<BufReader<TcpStream>> = None;
    while !stop.load(Ordering::Relaxed) {
        let mut reader =
            connection.take().unwrap_or_else(|| BufReader::new(TcpStream::connect(target).expect("connect")));
        sent.fetch_add(1, Ordering::Relaxed);
        match ask(&mut reader) {
            Ok(answer) if answer.status == 200 => {
                if answer.header("connection") != Some("close") {
                    connection = Some(reader);
                }
            }
            Ok(answer) => failures.push(format!("{} {}", answer.status, answer.text())),
            Err(reason) => failures.push(reason),
        }
    }
    failures
}

fn ask(reader: &mut BufReader<TcpStream>) -> Result<Answer, String> {
    let request = b"GET / HTTP/1.1\r\nhost: shop.example\r\n\r\n";
    reader.get_mut().write_all(request).map_err(|e| format!("write: {e}"))?;
    read_answer(reader, false)
}

/// A VirtualService before its subset, by turns to one of two subsets that are made and dropped with it.
fn route(subset: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: shop, namespace: default}}\nspec:\n  hosts: [shop.example]\n  gateways: [istio-system/gw]\n  http: [{{route: [{{destination: {{host: shop, subset: {subset}}}}}]}}]\n---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: shop, namespace: default}}\nspec:\n  host: shop\n  subsets: [{{name: {subset}, labels: {{app: shop}}}}]\n"
    )
}

#[test]
fn no_request_is_lost_while_routes_flip_a_hundred_times_and_endpoints_come_and_go() {
    let dir = tempfile::tempdir().expect("folder");
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let port = crate::support::free_address();
    let both = service("shop", "http", 80, &[(one.address, "v1"), (two.address, "v2")]);
    let only = service("shop", "http", 80, &[(one.address, "v1")]);
    let files = [("services.yaml", both.clone()), ("routes.yaml", gateway(port.port(), &route("a0")))];
    let discovery = Discovery::start(dir.path(), &files);
    let mut proxy = start_own_gateway(discovery.grpc, dir.path());
    proxy.wait_listening(port);
    eventually("first answer", || match get(port, "shop.example", "/") {
        Ok(answer) if answer.status == 200 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let load = Load::start(port);
    for flip in 0..FLIPS {
        discovery.write("services.yaml", if flip % 2 == 0 { &only } else { &both });
        discovery.write("routes.yaml", &gateway(port.port(), &route(&format!("a{}", flip % 5))));
        // Longer than the debounce of two changes, so that most flips are pushes of their own.
        std::thread::sleep(std::time::Duration::from_millis(180));
    }
    let (sent, failures) = load.finish();
    println!("{sent} requests during {FLIPS} flips, {} failed", failures.len());
    assert!(sent > 1000, "{sent}");
    assert!(failures.is_empty(), "{} of {sent}: {:#?}", failures.len(), &failures[..failures.len().min(5)]);
}
