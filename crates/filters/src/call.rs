//! A filter's own requests to clusters, and the part of a request's body that a filter asked to see.
//!
//! Filters open no connections: whoever runs them gives a [`Caller`]. Every call has a deadline and a bound on its answer.

mod grpc;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use meltemi_http::{Frame, Headers, RequestHead, StatusCode};

pub use grpc::Rpc;
#[cfg(test)]
use grpc::RpcError;

/// A request of a filter's own.
#[derive(Clone, Debug)]
pub struct Call {
    pub cluster: Arc<str>,
    pub head: RequestHead,
    pub body: Bytes,
    /// For the whole of it.
    pub timeout: Duration,
    /// Bytes of body that the answer may have.
    pub limit: usize,
}

/// What came back, in whole.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: Headers,
    pub body: Bytes,
    pub trailers: Headers,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    #[error("no cluster of that name")]
    NoCluster,
    #[error("no healthy host")]
    NoHost,
    #[error("a circuit breaker is open")]
    Overflow,
    #[error("no connection")]
    Connect,
    #[error("the connection ended before the answer did")]
    Reset,
    #[error("no answer in time")]
    Timeout,
    #[error("the answer is too large")]
    TooLarge,
}

/// An answer to come.
pub type Calling = Pin<Box<dyn Future<Output = Result<Answer, CallError>>>>;

/// Sends a filter's requests, over the clusters and connections of whoever runs the filters.
pub trait Caller {
    fn call(&self, call: Call) -> Calling;
}

/// The beginning of a request's body, read before the request goes anywhere.
#[derive(Clone, Debug, Default)]
pub struct Early {
    /// As they came; to be sent before what follows.
    pub frames: Vec<Frame>,
    /// Nothing follows.
    pub complete: bool,
}

impl Early {
    pub fn byte_size(&self) -> usize {
        self.frames.iter().map(size).sum()
    }

    /// At most the first `most` bytes.
    pub fn bytes(&self, most: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(most.min(self.byte_size()));
        for frame in &self.frames {
            if let Frame::Data(data) = frame {
                out.extend_from_slice(&data[..data.len().min(most - out.len())]);
            }
        }
        out
    }
}

fn size(frame: &Frame) -> usize {
    match frame {
        Frame::Data(data) => data.len(),
        Frame::Trailers(_) => 0,
    }
}

/// What a filter may use of the exchange around it.
#[derive(Clone, Copy)]
pub struct Around<'a> {
    pub caller: &'a dyn Caller,
    /// `None`: no filter has asked for it yet.
    pub early: Option<&'a Early>,
}

impl std::fmt::Debug for Around<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Around").field("early", &self.early).finish_non_exhaustive()
    }
}
