//! Are the rules in force? Asked of the kernel, not of the rules.
//!
//! Owns: connections to an address of this host on a port where nobody listens. Where traffic is captured they arrive at
//! the proxy's port, for which this stands in, before the proxy starts. Like the proxy it must run as the proxy's user,
//! whose calls to its own workload are captured. Cost: a few connections on loopback.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::select_all;
use meltemi_net::Stream;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Between two connections; one in flight when rules appear may hang.
const PAUSE: Duration = Duration::from_millis(200);

pub struct Probe {
    /// Where captured connections go: outbound and inbound.
    pub proxy_ports: [u16; 2],
    /// The port where nobody listens.
    pub port: u16,
    pub timeout: Duration,
    pub ipv6: bool,
}

impl Probe {
    pub fn run(&self) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            self.one(Ipv4Addr::LOCALHOST.into(), Ipv4Addr::new(127, 0, 0, 6).into()).await?;
            if self.ipv6 {
                self.one(Ipv6Addr::LOCALHOST.into(), Ipv6Addr::from(6).into()).await?;
            }
            Ok(())
        })
    }

    /// Sends connections to `asked`, an address that is captured, until one arrives at a proxy's port on `loopback`.
    async fn one(&self, loopback: IpAddr, asked: IpAddr) -> anyhow::Result<()> {
        let mut listeners = Vec::new();
        for port in self.proxy_ports {
            let address = SocketAddr::from((loopback, port));
            listeners.push(TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?);
        }
        let asked = SocketAddr::from((asked, self.port));
        let arriving = listeners
            .iter()
            .map(|listener| -> Pin<Box<dyn Future<Output = ()> + '_>> { Box::pin(arrival(listener, self.port)) });
        let arrived = async {
            tokio::select! {
                _ = select_all(arriving) => {}
                () = connect_again_and_again(loopback, asked) => {}
            }
        };
        tokio::time::timeout(self.timeout, arrived).await.map_err(|_| {
            anyhow::anyhow!(
                "a connection to {asked} did not arrive at the proxy: this workload's traffic is not captured, or this \
                 process is not the proxy's user.\nWith the CNI plugin a pod that starts before its node is ready has no \
                 rules: the node's repair deletes or mends it, else delete it by hand"
            )
        })
    }
}

/// Returns when a connection has arrived that was going to `port`.
async fn arrival(listener: &TcpListener, port: u16) {
    loop {
        // What cannot be accepted is as good as not arrived.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let original = meltemi_net::original_dst::original_dst(&Stream::from(stream));
        if original.is_some_and(|address| address.port() == port) {
            return;
        }
    }
}

/// From `loopback`: what comes from the asked address itself is the proxy's own, and passes.
async fn connect_again_and_again(loopback: IpAddr, asked: SocketAddr) {
    loop {
        // What is refused or hangs, as without rules or while they appear, is tried again.
        let _ = tokio::time::timeout(PAUSE, connect(loopback, asked)).await;
        tokio::time::sleep(PAUSE).await;
    }
}

async fn connect(loopback: IpAddr, asked: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = if loopback.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind((loopback, 0).into())?;
    socket.connect(asked).await
}
