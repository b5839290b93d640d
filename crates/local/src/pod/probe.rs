//! Whether a replica serves: its programs run and answer by their probes or ports, its proxy by `/healthz/ready`.
//!
//! Runs in the replica's network namespace. Costs a few connections over loopback, often while starting and then each
//! second.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::pod::accepts;
use crate::process::Life;
use crate::workload::{Check, Replica, Role};

const WHILE_STARTING: Duration = Duration::from_millis(15);
const WHILE_READY: Duration = Duration::from_secs(1);
const SLOWEST_START: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_secs(1);
/// A start that takes longer is told of.
const LONG_START: Duration = Duration::from_secs(10);
/// What has neither port nor probe serves once it has not ended at once.
const UNCHECKED_RUN: Duration = Duration::from_millis(250);
/// A proxy busy for a moment is not gone: so many misses in a row are.
const MISSES: u32 = 3;
const PROXY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15021);

/// Whether a replica serves; or what it lacks.
pub(crate) type Served = Result<(), String>;

/// Tells of every change until the caller stops waiting, and of a start that takes long. `tell` says whether it was heard; if not it is
/// told again.
pub(crate) async fn watch(serves: impl AsyncFn() -> Served, tell: impl Fn(Served) -> bool) {
    let (mut told, mut misses, mut pause) = (None, 0, WHILE_STARTING);
    let begun = Instant::now();
    loop {
        match serves().await {
            Ok(()) => {
                misses = 0;
                if told != Some(true) && tell(Ok(())) {
                    told = Some(true);
                }
                pause = WHILE_READY;
            }
            Err(lack) => {
                misses += 1;
                let is_news = match told {
                    Some(served) => served && misses >= MISSES,
                    None => begun.elapsed() >= LONG_START,
                };
                if is_news && tell(Err(lack)) {
                    told = Some(false);
                }
                pause = if pause == WHILE_READY { WHILE_STARTING } else { (pause * 5 / 4).min(SLOWEST_START) };
            }
        }
        tokio::time::sleep(pause).await;
    }
}

/// `lives` are those of the containers, in order.
pub(crate) async fn serves(replica: &Replica, address: Ipv4Addr, lives: &[Life]) -> Served {
    for (container, life) in replica.containers.iter().zip(lives) {
        let unchecked = matches!(&container.check, Check::Ports(ports) if ports.is_empty());
        if !life.is_steady(if unchecked { UNCHECKED_RUN } else { Duration::ZERO }) {
            return Err(format!("container {} does not run", container.name));
        }
        match &container.check {
            Check::Ports(ports) => {
                for port in ports {
                    if !accepts(SocketAddr::from((address, *port))).await {
                        return Err(format!("container {} does not listen on its port {port}", container.name));
                    }
                }
            }
            Check::Http { port, path } => {
                if !answers(SocketAddr::from((address, *port)), path).await {
                    return Err(format!("container {} does not answer its probe :{port}{path}", container.name));
                }
            }
        }
    }
    if replica.role == Role::Plain || proxy_is_ready().await {
        Ok(())
    } else {
        Err("its proxy is not ready".to_owned())
    }
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

#[cfg(test)]
mod tests;
