//! QUIC sockets, and a client's way from its first packet to its requests.
//!
//! Owns accepting within limits, the choice of a filter chain by ClientHello, and what is known of a connection. One worker has
//! the socket and all its connections, so that a client may change its address; more cores would come by handing accepted
//! connections to other workers, not by more sockets. Must never hold anything for a client that has not shown that it gets what
//! is sent to its address, once more than a few are at it.

use std::{
    cell::Cell,
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
};

use meltemi_filters::{ConnectionInfo, TlsInfo};
use meltemi_http::h3::{self, Arrival, Choice, Choose, Endpoint, Established, Handshake, ServerConnection};
use meltemi_net::{Address, ListenOptions, sniff::ClientHello, stream::unmapped};
use meltemi_plan::{ConnectionFacts, Hcm, listener::Quic};
use meltemi_tls::ServerTls;

use super::{ConnectionHandle, Failure, LiveChain, LiveListener, Worker, listeners::Acceptor, live};
use crate::{admission, chain, hcm, world::ActiveListener};

/// Handshakes in progress at which a client must prove its address first.
const PROOF_FROM: usize = 64;
/// Handshakes in progress at which clients are refused.
const MAX_HANDSHAKES: usize = 1024;
/// Connections of a listener that says nothing of it.
const MAX_CONNECTIONS: usize = 16 * 1024;

pub(super) fn start(acceptor: Acceptor, options: &ListenOptions) -> io::Result<Address> {
    let socket = meltemi_net::bind_udp(options)?;
    let endpoint = Endpoint::new(socket, ServerTls::nobody().map_err(io::Error::other)?)?;
    let address = endpoint.local_addr()?;
    tokio::task::spawn_local(accept(acceptor, endpoint, address));
    Ok(Address::Socket(address))
}

async fn accept(acceptor: Acceptor, endpoint: Endpoint, bound: SocketAddr) {
    let handshakes = Rc::new(Cell::new(0));
    while !acceptor.is_stopped() {
        let arrival = tokio::select! {
            biased;
            arrival = endpoint.accept() => arrival,
            () = acceptor.stopped() => break,
        };
        let Some(arrival) = arrival else { return };
        let listener = acceptor.listener();
        let Some(quic) = listener.plan.quic else {
            arrival.refuse();
            continue;
        };
        match verdict(&quic, handshakes.get(), acceptor.connections.len(), arrival.is_validated()) {
            Verdict::Refuse => arrival.refuse(),
            Verdict::Prove => arrival.retry(),
            Verdict::Take => {
                let Some(handle) = acceptor.admit(&listener, Some(unmapped(arrival.remote()).ip())) else {
                    arrival.refuse();
                    continue;
                };
                let client = Client { worker: Rc::clone(&acceptor.worker), listener, quic, bound };
                let counted = InProgress::new(&handshakes);
                tokio::task::spawn_local(serve(client, arrival, handle, counted));
            }
        }
    }
    endpoint.close();
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Take,
    /// The client is asked to show that its address is its own.
    Prove,
    Refuse,
}

fn verdict(quic: &Quic, handshakes: usize, connections: usize, validated: bool) -> Verdict {
    let most = quic.max_connections.map_or(MAX_CONNECTIONS, |most| most as usize);
    if !quic.accepts || connections >= most {
        Verdict::Refuse
    } else if handshakes >= PROOF_FROM && !validated {
        Verdict::Prove
    } else if handshakes >= MAX_HANDSHAKES {
        Verdict::Refuse
    } else {
        Verdict::Take
    }
}

/// Counts a handshake for as long as it takes.
struct InProgress(Rc<Cell<usize>>);

impl InProgress {
    fn new(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(Rc::clone(count))
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

struct Client {
    worker: Rc<Worker>,
    listener: Rc<LiveListener>,
    quic: Quic,
    /// Of the socket.
    bound: SocketAddr,
}

async fn serve(client: Client, arrival: Arrival, handle: ConnectionHandle, counted: InProgress) {
    // Boxed: what it takes to get a connection ready is gone by the time that it serves.
    let ready = Box::pin(prepare(client, arrival, handle)).await;
    drop(counted);
    if let Some((context, connection)) = ready {
        hcm::http3::serve(context, connection).await;
    }
}

/// Everything up to the first request; `None` if the client was refused or failed.
async fn prepare(
    client: Client,
    arrival: Arrival,
    handle: ConnectionHandle,
) -> Option<(Rc<hcm::Context>, ServerConnection)> {
    let Client { worker, listener, quic, bound } = client;
    let remote = unmapped(arrival.remote());
    let local = local_address(arrival.local_ip(), bound);
    let choose = Arc::new(ByName { active: Arc::clone(&listener.active), remote, local });
    let mut options = options(&quic);
    let handshake = tokio::time::timeout(quic.handshake_timeout, arrival.handshake(choose, &options)).await;
    let established = match handshake.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(established) => established,
        Err(error) => {
            tracing::debug!(listener = %listener.plan.name, %remote, %error, "QUIC handshake failed");
            handle.fails(Failure::Handshake);
            return None;
        }
    };
    let chain = listener.chain(established.handshake.index)?;
    handle.set_chain(chain.plan.fingerprint);
    let http = Rc::clone(chain.http.as_ref()?);
    limit_heads(&mut options, &http.plan);
    let info = connection_info(&worker, &listener, chain, &established, (remote, local));
    let connection = admission::admitted(&worker, info, chain).await?;
    let start = ServerConnection::start(established, &options);
    let serving = tokio::time::timeout(quic.handshake_timeout, start).await.ok()?.ok()?;
    Some((Rc::new(hcm::Context { worker, http, connection, handle }), serving))
}

fn local_address(ip: Option<IpAddr>, bound: SocketAddr) -> SocketAddr {
    unmapped(SocketAddr::new(ip.unwrap_or(bound.ip()), bound.port()))
}

fn options(quic: &Quic) -> h3::Options {
    h3::Options {
        max_concurrent_streams: quic.max_concurrent_streams,
        stream_window: quic.stream_window,
        connection_window: quic.connection_window,
        idle_timeout: quic.idle_timeout,
        keepalive_interval: quic.keepalive_interval,
        ..h3::Options::default()
    }
}

/// What the connection manager says of requests, once it is known which.
fn limit_heads(options: &mut h3::Options, plan: &Hcm) {
    options.max_header_bytes = plan.max_request_headers_bytes;
    options.max_fields = plan.max_headers_count;
    options.allow_connect = plan.http3_connect;
}

/// Finds the filter chain by what the ClientHello says.
struct ByName {
    active: Arc<ActiveListener>,
    remote: SocketAddr,
    local: SocketAddr,
}

impl Choose for ByName {
    fn choose(&self, hello: &ClientHello) -> Option<Choice> {
        let alpn: Vec<&str> = hello.alpn.iter().filter_map(|name| std::str::from_utf8(name).ok()).collect();
        let facts = ConnectionFacts {
            destination: Some(self.local),
            source: Some(self.remote),
            direct_source: Some(self.remote),
            server_name: hello.server_name.as_deref().unwrap_or_default(),
            transport_protocol: "quic",
            application_protocols: &alpn,
        };
        let (index, chain) = self.active.choose(&facts)?;
        Some(Choice { config: chain.tls.as_ref()?.config(), index })
    }
}

fn connection_info(
    worker: &Worker,
    listener: &LiveListener,
    chain: &LiveChain,
    established: &Established,
    (remote, local): (SocketAddr, SocketAddr),
) -> ConnectionInfo {
    let mut info = ConnectionInfo::new(Address::Socket(remote), Address::Socket(local));
    info.id = worker.next_connection_id();
    info.listener = Arc::clone(&listener.plan.name);
    info.filter_chain = Arc::clone(&chain.plan.name);
    info.direction = live::direction(&listener.plan);
    info.tls = Some(tls_info(&established.handshake, chain));
    info.requested_server_name = established.handshake.server_name.as_deref().map(Arc::from);
    info
}

fn tls_info(handshake: &Handshake, chain: &LiveChain) -> TlsInfo {
    let name = handshake.server_name.as_deref();
    let local = chain.tls.as_ref().and_then(|tls| tls.local(name));
    TlsInfo {
        // QUIC has no other.
        version: Some("TLSv1.3"),
        cipher: handshake.cipher.and_then(|suite| suite.as_str()).map(chain::openssl_name),
        alpn: handshake.alpn.as_deref().and_then(|alpn| std::str::from_utf8(alpn).ok()).map(Arc::from),
        sni: name.map(Arc::from),
        peer: chain.tls.as_ref().zip(handshake.certificates.as_deref()).and_then(|(tls, shown)| tls.peer(shown)),
        local_subject: local.as_ref().map(|identity| identity.info().subject.as_str().into()),
        local_uri_sans: local.map(|identity| identity.info().uri_sans.as_slice().into()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_handshakes_must_prove_its_addresses_and_is_bounded() {
        let quic = Quic {
            accepts: true,
            max_concurrent_streams: 1,
            stream_window: 1,
            connection_window: 1,
            idle_timeout: std::time::Duration::from_secs(1),
            handshake_timeout: std::time::Duration::from_secs(1),
            keepalive_interval: None,
            max_connections: Some(2000),
        };
        let cases = [
            (0, 0, false, Verdict::Take),
            (PROOF_FROM, 100, false, Verdict::Prove),
            (PROOF_FROM, 100, true, Verdict::Take),
            (MAX_HANDSHAKES, 1100, false, Verdict::Prove),
            (MAX_HANDSHAKES, 1100, true, Verdict::Refuse),
            (0, 2000, true, Verdict::Refuse),
        ];
        for (handshakes, connections, validated, expected) in cases {
            assert_eq!(verdict(&quic, handshakes, connections, validated), expected, "{handshakes} {connections}");
        }
        assert_eq!(verdict(&Quic { accepts: false, ..quic }, 0, 0, true), Verdict::Refuse);
    }
}
