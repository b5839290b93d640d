//! Whether a replica serves: its programs run and answer by their probes or ports, its proxy by `/healthz/ready`.
//!
//! Runs in the replica's network namespace. Costs a few connections over loopback, often while starting and then each
//! second.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::pod::accepts;
use crate::process::Life;
use crate::workload::{Check, Replica, Role};

const WHILE_STARTING: Duration = Duration::from_millis(15);
const WHILE_READY: Duration = Duration::from_secs(1);
const SLOWEST_START: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_secs(1);
/// What has neither port nor probe serves once it has not ended at once.
const UNCHECKED_RUN: Duration = Duration::from_millis(250);
/// A proxy busy for a moment is not gone: so many misses in a row are.
const MISSES: u32 = 3;
const PROXY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15021);

/// Tells of every change until the caller stops waiting. `lives` are those of the containers, in order. `tell` says
/// whether it was heard; if not it is told again.
pub(crate) async fn watch(replica: &Replica, address: Ipv4Addr, lives: &[Life], tell: impl Fn(bool) -> bool) {
    let (mut told, mut misses, mut pause) = (false, 0, WHILE_STARTING);
    loop {
        if serves(replica, address, lives).await {
            misses = 0;
            told = told || tell(true);
            pause = WHILE_READY;
        } else {
            misses += 1;
            if told && misses >= MISSES {
                told = !tell(false);
            }
            pause = if pause == WHILE_READY { WHILE_STARTING } else { (pause * 5 / 4).min(SLOWEST_START) };
        }
        tokio::time::sleep(pause).await;
    }
}

async fn serves(replica: &Replica, address: Ipv4Addr, lives: &[Life]) -> bool {
    for (container, life) in replica.containers.iter().zip(lives) {
        let unchecked = matches!(&container.check, Check::Ports(ports) if ports.is_empty());
        let serves = match &container.check {
            _ if !life.is_steady(if unchecked { UNCHECKED_RUN } else { Duration::ZERO }) => false,
            Check::Ports(ports) => {
                let mut all = true;
                for port in ports {
                    all = all && accepts(SocketAddr::from((address, *port))).await;
                }
                all
            }
            Check::Http { port, path } => answers(SocketAddr::from((address, *port)), path).await,
        };
        if !serves {
            return false;
        }
    }
    replica.role == Role::Plain || proxy_is_ready().await
}

/// Whether the proxy in this network namespace says that it serves.
pub(crate) async fn proxy_is_ready() -> bool {
    answers(PROXY, "/healthz/ready").await
}

/// Whether a GET is answered with 200 to 399.
async fn answers(address: SocketAddr, path: &str) -> bool {
    let get = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {address}\r\nuser-agent: kube-probe/meltemi\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut head = [0u8; 12];
        stream.read_exact(&mut head).await?;
        std::io::Result::Ok(head)
    };
    match tokio::time::timeout(PATIENCE, get).await {
        Ok(Ok(head)) => head.starts_with(b"HTTP/1.") && matches!(head[9], b'2' | b'3'),
        _ => false,
    }
}
