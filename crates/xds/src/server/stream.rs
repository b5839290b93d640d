//! One ADS stream over HTTP/2: requests out of a request's body, responses as a response's body.
//!
//! Owns the framing of gRPC messages. In place of tonic's codec, which keeps for each stream a buffer as large as its largest
//! message: here a response is written block by block as the client reads it, values above [`BY_REFERENCE`] without a copy, and
//! nothing is kept between messages. A stream at rest holds no buffer.

#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Frame};
use meltemi_proto::envoy::service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse};
use meltemi_proto::{prost, splice};
use tokio::sync::mpsc;
use tonic::Status;

use super::Response;
use crate::Variant;

/// Of small resources that are sent together; HTTP/2 cuts it into frames of 16 KiB.
const BLOCK: usize = 32 << 10;
/// A value of this size is handed to the transport as it is. Copying less is cheaper than a frame of its own.
const BY_REFERENCE: usize = 16 << 10;
/// A flag, and the length in four bytes.
const PREFIX: usize = 5;
/// A message longer than its prefix can say.
const MAX_MESSAGE: usize = u32::MAX as usize;

/// Requests of one type out of a body.
pub struct Requests<M> {
    body: tonic::body::Body,
    buffer: BytesMut,
    max_bytes: usize,
    message: PhantomData<fn() -> M>,
}

impl<M: prost::Message + prost::Name + Default> Requests<M> {
    /// Requests larger than `max_bytes` end the stream.
    pub fn new(body: tonic::body::Body, max_bytes: usize) -> Self {
        Self { body, buffer: BytesMut::new(), max_bytes, message: PhantomData }
    }

    /// The next request; `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<Result<M, Status>> {
        loop {
            match self.take() {
                Ok(None) => {}
                Ok(Some(message)) => return Some(Ok(message)),
                Err(status) => return Some(Err(status)),
            }
            match self.body.frame().await? {
                Ok(frame) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Err(status) => return Some(Err(status)),
            }
        }
    }

    fn take(&mut self) -> Result<Option<M>, Status> {
        let Some(prefix) = self.buffer.get(..PREFIX) else { return Ok(None) };
        if prefix[0] != 0 {
            return Err(Status::unimplemented("compressed requests"));
        }
        let length = (&prefix[1..]).get_u32() as usize;
        if length > self.max_bytes {
            return Err(Status::resource_exhausted(format!(
                "a request of {length} bytes; {} are allowed",
                self.max_bytes
            )));
        }
        let Some(message) = self.buffer.get(PREFIX..PREFIX + length) else { return Ok(None) };
        let message = meltemi_proto::decode(message).map_err(|error| Status::internal(error.to_string()))?;
        if self.buffer.len() == PREFIX + length {
            self.buffer = BytesMut::new();
        } else {
            self.buffer.advance(PREFIX + length);
        }
        Ok(Some(message))
    }
}

/// Responses as a body, with the status of the stream at its end.
pub struct Body {
    responses: mpsc::Receiver<Response>,
    /// Why the stream ended, if it failed; closed without a word otherwise.
    failure: mpsc::Receiver<Status>,
    writing: Option<Writing>,
    ended: bool,
}

impl Body {
    pub fn new(responses: mpsc::Receiver<Response>, failure: mpsc::Receiver<Status>) -> Self {
        Self { responses, failure, writing: None, ended: false }
    }

    /// The answer to a call that is served.
    pub fn into_answer(self) -> http::Response<tonic::body::Body> {
        let mut answer = http::Response::new(tonic::body::Body::new(self));
        let grpc = http::HeaderValue::from_static("application/grpc");
        answer.headers_mut().insert(http::header::CONTENT_TYPE, grpc);
        answer
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        loop {
            if let Some(block) = self.writing.as_mut().and_then(Writing::next) {
                return Poll::Ready(Some(Ok(Frame::data(block))));
            }
            self.writing = None;
            if self.ended {
                return Poll::Ready(None);
            }
            match ready!(self.responses.poll_recv(context)) {
                Some(response) => match Writing::new(response) {
                    Ok(writing) => self.writing = Some(writing),
                    Err(status) => return Poll::Ready(Some(Ok(self.end(&status)))),
                },
                None => {
                    let status = ready!(self.failure.poll_recv(context)).unwrap_or_else(|| Status::ok(""));
                    return Poll::Ready(Some(Ok(self.end(&status))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended && self.writing.is_none()
    }
}

impl Body {
    fn end(&mut self, status: &Status) -> Frame<Bytes> {
        self.ended = true;
        let mut trailers = http::HeaderMap::new();
        // What does not fit a header is left out; the code always fits.
        let _ = status.add_header(&mut trailers);
        Frame::trailers(trailers)
    }
}

/// A response that is being sent.
struct Writing {
    response: Response,
    /// The prefix and all but the resources.
    head: Option<Bytes>,
    /// Of the resource that comes next.
    next: usize,
    /// A large value whose resource has begun.
    value: Option<Bytes>,
}

impl Writing {
    fn new(response: Response) -> Result<Self, Status> {
        let head = head(&response);
        let resources: usize = response
            .resources
            .iter()
            .map(|resource| match response.variant {
                Variant::Delta => splice::resource_len(&resource.name, &resource.version, &resource.body),
                Variant::StateOfTheWorld => splice::bare_len(&resource.body),
            })
            .sum();
        let length = head.len() + resources;
        if length > MAX_MESSAGE {
            return Err(Status::resource_exhausted(format!("a response of {length} bytes")));
        }
        let mut start = BytesMut::with_capacity(PREFIX + head.len());
        start.put_u8(0);
        start.put_u32(length as u32);
        start.put_slice(&head);
        Ok(Self { response, head: Some(start.freeze()), next: 0, value: None })
    }

    fn next(&mut self) -> Option<Bytes> {
        if let Some(value) = self.value.take() {
            return Some(value);
        }
        let mut block = self.start()?;
        while let Some(resource) = self.response.resources.get(self.next) {
            let value = &resource.body.value;
            if !block.is_empty() && block.len() + value.len().min(BY_REFERENCE) > BLOCK {
                break;
            }
            self.next += 1;
            match self.response.variant {
                Variant::Delta => {
                    splice::put_resource(&mut block, &resource.name, &resource.version, &resource.body);
                }
                Variant::StateOfTheWorld => splice::put_bare(&mut block, &resource.body),
            }
            if value.len() >= BY_REFERENCE {
                self.value = Some(value.clone());
                break;
            }
            block.put_slice(value);
        }
        Some(block.freeze())
    }

    /// The beginning of the next block; `None` where nothing is left.
    fn start(&mut self) -> Option<BytesMut> {
        let head = self.head.take();
        if head.is_none() && self.next == self.response.resources.len() {
            return None;
        }
        let rest = &self.response.resources[self.next..];
        let sizes = rest.iter().map(|resource| resource.body.value.len().min(BY_REFERENCE) + 256);
        let mut wanted = head.as_ref().map_or(0, Bytes::len);
        for size in sizes {
            if wanted >= BLOCK {
                break;
            }
            wanted += size;
        }
        let mut block = BytesMut::with_capacity(wanted);
        block.put_slice(&head.unwrap_or_default());
        Some(block)
    }
}

/// The message without its resources.
fn head(response: &Response) -> Bytes {
    match response.variant {
        Variant::Delta => meltemi_proto::encode(&DeltaDiscoveryResponse {
            type_url: response.type_url.to_string(),
            nonce: response.nonce.clone(),
            removed_resources: response.removed.iter().map(|name| name.to_string()).collect(),
            control_plane: response.control_plane(),
            ..Default::default()
        }),
        Variant::StateOfTheWorld => meltemi_proto::encode(&DiscoveryResponse {
            version_info: response.version.clone(),
            type_url: response.type_url.to_string(),
            nonce: response.nonce.clone(),
            control_plane: response.control_plane(),
            ..Default::default()
        }),
    }
}
