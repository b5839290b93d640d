//! The TLS ports. Nobody is accepted before there is a certificate to be known by.

mod certificate;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use anyhow::Result;
use futures_util::Stream;
use meltemi_ca::PeerCertificate;
use meltemi_config::mesh::MeshConfig;
use meltemi_tls::{CertSlot, PeerInfo, ServerOptions, ServerTls, TrustAnchors, TrustSlot, Validation};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use self::certificate::Life;
use crate::options::Options;
use crate::{State, authority};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes under way at once; more wait in the accept queue.
const MAX_HANDSHAKES: usize = 512;
/// How often the mesh configuration and the clock are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A listener that hands out connections whose handshake is done.
pub(crate) struct SecureListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    renewal: Renewal,
}

struct Renewal {
    slot: Arc<CertSlot>,
    /// The certificate is not ours to renew.
    is_given: bool,
    anchors: Arc<TrustSlot>,
    /// Of the authority, and of the roots that are given.
    changes: watch::Receiver<u64>,
    given: watch::Receiver<u64>,
    state: Arc<State>,
}

impl SecureListener {
    /// For gRPC.
    pub(crate) fn new(listener: TcpListener, state: Arc<State>) -> Result<Self> {
        Self::speaking(b"h2", listener, state)
    }

    /// For webhooks.
    pub(crate) fn of_http(listener: TcpListener, state: Arc<State>) -> Result<Self> {
        Self::speaking(b"http/1.1", listener, state)
    }

    fn speaking(protocol: &[u8], listener: TcpListener, state: Arc<State>) -> Result<Self> {
        let options = &state.options;
        let changes = options.authority.subscribe();
        let given = options.given.certificate();
        let is_given = given.is_some();
        let slot = given.unwrap_or_else(CertSlot::empty);
        let anchors = TrustSlot::new(anchors(options, &state.pusher.snapshot().mesh)?);
        let tls = ServerTls::new(ServerOptions {
            certificates: vec![slot.clone()],
            // A workload without a certificate yet proves itself by token.
            validation: Some(Validation { anchors: anchors.clone(), ..Validation::default() }),
            require_client_certificate: false,
            alpn: vec![protocol.to_vec()],
            ..ServerOptions::default()
        })?;
        let given = options.given.subscribe();
        let renewal = Renewal { slot, is_given, anchors, changes, given, state };
        Ok(Self { listener, acceptor: TlsAcceptor::from(tls.config()), renewal })
    }

    /// Accepts for as long as the stream is held.
    pub(crate) fn incoming(self) -> impl Stream<Item = io::Result<SecureStream>> {
        let (sender, mut accepted) = mpsc::channel(16);
        let Self { listener, acceptor, renewal } = self;
        tokio::spawn(async move {
            let serving = async {
                renewal.first().await;
                tokio::join!(accept(listener, acceptor, &sender), renewal.run());
            };
            tokio::select! {
                () = serving => {}
                () = sender.closed() => {}
            }
        });
        futures_util::stream::poll_fn(move |context| accepted.poll_recv(context))
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, sender: &mpsc::Sender<io::Result<SecureStream>>) {
    let limit = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    loop {
        let Ok(permit) = limit.clone().acquire_owned().await else { return };
        let (stream, remote) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (acceptor, sender) = (acceptor.clone(), sender.clone());
        tokio::spawn(async move {
            let _permit = permit;
            let _ = stream.set_nodelay(true);
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => {
                    let peer = PeerInfo::of(stream.get_ref().1).map(Arc::new);
                    // Closed: the server is going away.
                    let _ = sender.send(Ok(SecureStream { stream, remote, peer })).await;
                }
                Ok(Err(error)) => tracing::debug!(%remote, %error, "TLS handshake"),
                Err(_) => tracing::debug!(%remote, "TLS handshake took too long"),
            }
        });
    }
}

impl Renewal {
    /// Until there is a certificate; whoever connects meanwhile waits.
    async fn first(&self) {
        while self.slot.current().is_none() && !self.renew().await {
            tokio::time::sleep(certificate::RETRY).await;
        }
    }

    async fn renew(&self) -> bool {
        match certificate::issue(&self.state.options, &self.state.trust_domain).await {
            Ok(identity) => {
                self.slot.set(identity);
                true
            }
            Err(error) => {
                tracing::error!("the certificate of the secure port is not renewed: {error:#}");
                false
            }
        }
    }

    /// What is left of the certificate in force.
    fn life(&self) -> Life {
        Life::of(self.slot.current().as_deref(), SystemTime::now())
    }

    /// Renews in time, and whenever the authority or the mesh configuration has it otherwise.
    async fn run(mut self) {
        let (mut mesh, mut life) = (self.state.pusher.snapshot().mesh.clone(), self.life());
        loop {
            let (changed, others) = tokio::select! {
                // Both senders are in the options that we hold.
                _ = self.changes.changed() => (true, false),
                _ = self.given.changed() => (false, true),
                () = tokio::time::sleep(LOOK_EVERY) => (false, false),
            };
            let current = self.state.pusher.snapshot().mesh.clone();
            if changed || others || current != mesh {
                mesh = current;
                match anchors(&self.state.options, &mesh) {
                    Ok(current) => self.anchors.set(current),
                    Err(error) => tracing::error!(%error, "the roots of the secure port stay as they are"),
                }
            }
            if !self.is_given && (changed || life.is_over(SystemTime::now())) {
                life = if self.renew().await { self.life() } else { Life::of(None, SystemTime::now()) };
            }
        }
    }
}

/// What clients are verified by.
fn anchors(options: &Options, mesh: &MeshConfig) -> Result<TrustAnchors> {
    Ok(authority::anchors(&options.authority.bundle(), &options.given.roots(), mesh)?)
}

/// A connection and whom its certificate names.
pub(crate) struct SecureStream {
    stream: TlsStream<TcpStream>,
    remote: SocketAddr,
    peer: Option<Arc<PeerInfo>>,
}

/// What requests of a TLS connection carry.
#[derive(Debug, Clone)]
pub(crate) struct SecureInfo {
    pub remote: SocketAddr,
    pub peer: Option<PeerCertificate>,
}

impl Connected for SecureStream {
    type ConnectInfo = SecureInfo;

    fn connect_info(&self) -> SecureInfo {
        SecureInfo { remote: self.remote, peer: self.peer.clone().map(PeerCertificate) }
    }
}

impl AsyncRead for SecureStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for SecureStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
