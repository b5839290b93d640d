//! The way from the host's loopback into the gateway: a thread that lives in the fabric's network namespace and accepts
//! on sockets of the host's.
//!
//! A listening socket stays in the namespace where it was made, whoever accepts from it; so the host's process makes the
//! listeners, and this thread, which has entered the other namespace, accepts and dials.
//! Cost: one copy in each direction, at most [`MAX_CONNECTIONS`] connections.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener as AsyncListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};

use crate::error::LocalError;

const MAX_CONNECTIONS: usize = 8192;
/// Pause after a failed accept, which is mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

type Route = (TcpListener, SocketAddr);

/// The thread's other end: what is sent to it is forwarded until it is dropped.
pub(crate) struct Forwarder {
    routes: mpsc::Sender<Route>,
}

impl Forwarder {
    /// Starts the thread in the network namespace of process `pid`.
    pub fn start(pid: i32) -> Result<Self, LocalError> {
        let path = format!("/proc/{pid}/ns/net");
        let namespace = File::open(&path).map_err(LocalError::io(path))?;
        let (routes, receiver) = mpsc::channel(64);
        let (ready, entered) = std::sync::mpsc::sync_channel(1);
        let body = move || {
            let _ = ready.send(setns(&namespace, CloneFlags::CLONE_NEWNET));
            if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() {
                runtime.block_on(serve(receiver));
            }
        };
        thread::Builder::new().name("forward".to_owned()).spawn(body).map_err(LocalError::io("forwarding thread"))?;
        match entered.recv() {
            Ok(Ok(())) => Ok(Forwarder { routes }),
            Ok(Err(errno)) => Err(LocalError::sys("entering the fabric's network")(errno)),
            Err(_) => Err(LocalError::Fabric("the forwarding thread ended".to_owned())),
        }
    }

    /// Forwards what connects to `listener` to `target` inside.
    pub fn forward(&self, listener: TcpListener, target: SocketAddr) -> Result<(), LocalError> {
        listener.set_nonblocking(true).map_err(LocalError::io("listener"))?;
        self.routes.try_send((listener, target)).map_err(|_| LocalError::Fabric("too many published ports".to_owned()))
    }
}

async fn serve(mut routes: mpsc::Receiver<Route>) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    while let Some((listener, target)) = routes.recv().await {
        match AsyncListener::from_std(listener) {
            Ok(listener) => drop(tokio::spawn(accept(listener, target, Arc::clone(&permits)))),
            Err(error) => tracing::warn!(%error, %target, "published port not served"),
        }
    }
}

async fn accept(listener: AsyncListener, target: SocketAddr, permits: Arc<Semaphore>) {
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((client, _)) => drop(tokio::spawn(async move {
                relay(client, target).await;
                drop(permit);
            })),
            Err(error) => {
                tracing::debug!(%error, "accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn relay(mut client: TcpStream, target: SocketAddr) {
    let mut gateway = match TcpStream::connect(target).await {
        Ok(gateway) => gateway,
        Err(error) => return tracing::debug!(%error, %target, "the gateway refuses"),
    };
    let _ = client.set_nodelay(true);
    let _ = gateway.set_nodelay(true);
    let _ = copy_bidirectional(&mut client, &mut gateway).await;
}
