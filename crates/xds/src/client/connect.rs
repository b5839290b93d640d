//! How a channel to the control plane is made.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tonic::transport::{Channel, Endpoint, Error};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A peer that died without a word is noticed after an interval and a timeout.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

pub type ConnectError = Box<dyn std::error::Error + Send + Sync>;
type Connecting = Pin<Box<dyn Future<Output = Result<Channel, ConnectError>> + Send>>;

/// Makes a channel anew for each stream, so that certificates and addresses may have changed.
pub type Connect = Arc<dyn Fn() -> Connecting + Send + Sync>;

/// Where the control plane is.
#[derive(Clone)]
pub enum Target {
    /// `host:port`, without TLS.
    Tcp(String),
    Unix(PathBuf),
    /// Whatever the caller makes, such as mTLS.
    Custom(Connect),
}

impl Target {
    pub(super) async fn connect(&self) -> Result<Channel, ConnectError> {
        match self {
            Self::Tcp(authority) => Ok(endpoint(&format!("http://{authority}"))?.connect().await?),
            // tonic ignores the authority of a Unix path; gRPC servers expect one.
            Self::Unix(path) => Ok(endpoint(&format!("unix:{}", path.display()))?.connect().await?),
            Self::Custom(connect) => connect().await,
        }
    }
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(authority) => write!(f, "{authority}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Custom(_) => f.write_str("custom"),
        }
    }
}

fn endpoint(uri: &str) -> Result<Endpoint, Error> {
    Ok(Endpoint::from_shared(uri.to_owned())?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true))
}
