//! The DNS server of the proxy (15053): answers the mesh's names from discovery's name table and passes the rest to the
//! resolvers of the host.
//!
//! Must never answer a name of the table with another's address, and never waits without a limit: an upstream answer has
//! [`UPSTREAM_TIMEOUT`], and at most [`MAX_PENDING`] questions are under way.

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use meltemi_proto::istio::networking::nds::v1::NameTable;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};

/// Istio's agent answers from its table with this time to live, in seconds.
const TTL_SECONDS: u32 = 30;
const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_PENDING: usize = 1024;
/// The largest UDP message taken; EDNS senders use 4096 at most.
const MAX_UDP_BYTES: usize = 4096;
const MAX_TCP_IDLE: Duration = Duration::from_secs(30);

/// Names with their addresses, all lower case without the final dot.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Names {
    exact: HashMap<Box<str>, Arc<[IpAddr]>>,
    /// Kubernetes services, as `<service>.<namespace>`.
    services: HashMap<Box<str>, Arc<[IpAddr]>>,
    /// `*.suffix` names, by suffix.
    wildcard: HashMap<Box<str>, Arc<[IpAddr]>>,
    own_namespace: Box<str>,
}

impl Names {
    /// Each Kubernetes name is also known by the short forms that a resolver's search list would have made (`<service>`, for the
    /// node's own namespace, `<service>.<namespace>`, `<service>.<namespace>.svc`).
    pub fn from_table(table: &NameTable, own_namespace: &str) -> Self {
        let mut names = Self { own_namespace: own_namespace.into(), ..Self::default() };
        for (host, info) in &table.table {
            let addresses: Arc<[IpAddr]> = info.ips.iter().filter_map(|ip| ip.parse().ok()).collect();
            let host = host.trim_end_matches('.').to_ascii_lowercase();
            if let Some(suffix) = host.strip_prefix("*.") {
                names.wildcard.insert(suffix.into(), addresses);
                continue;
            }
            if !info.shortname.is_empty() {
                let service = format!("{}.{}", info.shortname, info.namespace).to_ascii_lowercase();
                names.services.entry(service.into()).or_insert_with(|| addresses.clone());
            }
            names.exact.insert(host.into(), addresses);
        }
        names
    }

    /// None: not a name of ours. An empty list: ours, without addresses of any kind.
    pub fn find(&self, name: &str) -> Option<&[IpAddr]> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let found = self.exact.get(&*name).or_else(|| self.service(&name)).or_else(|| {
            let parents = name.match_indices('.').map(|(dot, _)| &name[dot + 1..]);
            parents.filter_map(|parent| self.wildcard.get(parent)).next()
        });
        found.map(|addresses| &**addresses)
    }

    fn service(&self, name: &str) -> Option<&Arc<[IpAddr]>> {
        if !name.contains('.') {
            return self.services.get(&*format!("{name}.{}", self.own_namespace));
        }
        self.services.get(name).or_else(|| self.services.get(name.strip_suffix(".svc")?))
    }
}

/// A DNS server over a table that changes.
#[derive(Clone)]
pub struct Server {
    names: watch::Receiver<Arc<Names>>,
    upstreams: Arc<[SocketAddr]>,
    pending: Arc<Semaphore>,
    socket_mark: Option<u32>,
}

impl Server {
    /// `upstreams` are asked in turn for what the table does not know; `socket_mark` keeps those questions out of capture.
    pub fn new(names: watch::Receiver<Arc<Names>>, upstreams: Vec<SocketAddr>, socket_mark: Option<u32>) -> Self {
        Self { names, upstreams: upstreams.into(), pending: Arc::new(Semaphore::new(MAX_PENDING)), socket_mark }
    }

    /// Serves UDP and TCP on `address` until dropped.
    pub async fn serve(self, address: SocketAddr) -> io::Result<()> {
        let udp = Arc::new(UdpSocket::bind(address).await?);
        if let Some(mark) = self.socket_mark {
            // Capture puts answers into the queries' zone of connection tracking by the mark.
            nix::sys::socket::setsockopt(&*udp, nix::sys::socket::sockopt::Mark, &mark)?;
        }
        let tcp = TcpListener::bind(address).await?;
        tokio::select! {
            done = self.clone().serve_udp(udp) => done,
            done = self.serve_tcp(tcp) => done,
        }
    }

    async fn serve_udp(self, socket: Arc<UdpSocket>) -> io::Result<()> {
        let mut buffer = vec![0; MAX_UDP_BYTES];
        loop {
            let (length, peer) = socket.recv_from(&mut buffer).await?;
            // A resolver asks again when an answer stays out, so a question over the limit is dropped.
            let Ok(permit) = self.pending.clone().try_acquire_owned() else { continue };
            let (question, socket, server) = (buffer[..length].to_vec(), socket.clone(), self.clone());
            tokio::spawn(async move {
                if let Some(answer) = server.answer(&question).await
                    && let Err(e) = socket.send_to(&answer, peer).await
                {
                    tracing::debug!(error = %e, "dns answer not sent");
                }
                drop(permit);
            });
        }
    }

    async fn serve_tcp(self, listener: TcpListener) -> io::Result<()> {
        loop {
            let (stream, _) = listener.accept().await?;
            let Ok(permit) = self.pending.clone().try_acquire_owned() else { continue };
            let server = self.clone();
            tokio::spawn(async move {
                if let Err(e) = server.serve_stream(stream).await {
                    tracing::debug!(error = %e, "dns connection");
                }
                drop(permit);
            });
        }
    }

    async fn serve_stream(&self, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let length = match tokio::time::timeout(MAX_TCP_IDLE, stream.read_u16()).await {
                Ok(Ok(length)) => usize::from(length),
                _ => return Ok(()),
            };
            let mut question = vec![0; length];
            let read = tokio::time::timeout(MAX_TCP_IDLE, stream.read_exact(&mut question)).await;
            read.map_err(io::Error::other)??;
            let Some(answer) = self.answer(&question).await else { return Ok(()) };
            let Ok(length) = u16::try_from(answer.len()) else { return Ok(()) };
            stream.write_u16(length).await?;
            stream.write_all(&answer).await?;
        }
    }

    /// The answer to one message; None for what is no question.
    async fn answer(&self, question: &[u8]) -> Option<Vec<u8>> {
        let message = Message::from_vec(question).ok()?;
        if message.metadata.message_type != MessageType::Query {
            return None;
        }
        let local = {
            let names = self.names.borrow();
            local_answer(&message, &names)
        };
        if let Some(answer) = local {
            return answer.to_vec().ok();
        }
        match self.forward(question).await {
            Some(answer) => Some(answer),
            None => failure(&message, ResponseCode::ServFail).to_vec().ok(),
        }
    }

    async fn forward(&self, question: &[u8]) -> Option<Vec<u8>> {
        for upstream in self.upstreams.iter() {
            match tokio::time::timeout(UPSTREAM_TIMEOUT, self.ask(*upstream, question)).await {
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(e)) => tracing::debug!(%upstream, error = %e, "dns upstream"),
                Err(_) => tracing::debug!(%upstream, "dns upstream timed out"),
            }
        }
        None
    }

    async fn ask(&self, upstream: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
        if let Some(mark) = self.socket_mark {
            nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::Mark, &mark)?;
        }
        socket.connect(upstream).await?;
        socket.send(question).await?;
        let mut answer = vec![0; MAX_UDP_BYTES];
        loop {
            let length = socket.recv(&mut answer).await?;
            // The identifier tells an answer to this question from a stray or forged one.
            if length >= 2 && answer[..2] == question[..2] {
                answer.truncate(length);
                return Ok(answer);
            }
        }
    }
}

fn failure(question: &Message, code: ResponseCode) -> Message {
    let mut response = Message::response(question.metadata.id, OpCode::Query);
    response.metadata.recursion_desired = question.metadata.recursion_desired;
    response.metadata.recursion_available = true;
    response.metadata.response_code = code;
    response.add_queries(question.queries.iter().cloned());
    response
}

/// None where the name is not one of the table's.
fn local_answer(message: &Message, names: &Names) -> Option<Message> {
    let [query] = &message.queries[..] else { return Some(failure(message, ResponseCode::FormErr)) };
    if query.query_class() != DNSClass::IN {
        return None;
    }
    let addresses = names.find(&query.name().to_ascii())?;
    let mut response = failure(message, ResponseCode::NoError);
    response.metadata.authoritative = true;
    for record in records(query.name(), query.query_type(), addresses) {
        response.add_answer(record);
    }
    Some(response)
}

fn records(name: &Name, wanted: RecordType, addresses: &[IpAddr]) -> Vec<Record> {
    let data = addresses.iter().filter_map(|ip| match (ip, wanted) {
        (IpAddr::V4(v4), RecordType::A) => Some(RData::A((*v4).into())),
        (IpAddr::V6(v6), RecordType::AAAA) => Some(RData::AAAA((*v6).into())),
        _ => None,
    });
    data.map(|data| Record::from_rdata(name.clone(), TTL_SECONDS, data)).collect()
}

/// The `nameserver` lines of a resolv.conf.
pub fn nameservers(resolv_conf: &str) -> Vec<SocketAddr> {
    let lines = resolv_conf.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    lines.filter_map(|rest| rest.trim().parse::<IpAddr>().ok()).map(|ip| SocketAddr::new(ip, 53)).collect()
}

#[cfg(test)]
mod tests;
