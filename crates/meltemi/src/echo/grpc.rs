//! gRPC over hyper, by hand: length-prefixed messages in, the same out.
//!
//! A method called `Echo` answers each message with a message whose field 1 is the report as JSON (the shape of
//! `message EchoResponse { string message = 1; }`); every other method sends each message back as it came. The request's
//! metadata `x-echo-grpc-status` sets the status. [`super::health`] is answered apart.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use serde_json::Value;
use tokio::sync::mpsc;

use super::server::Body;

#[cfg(test)]
mod tests;

/// gRPC's usual limit.
const MAX_MESSAGE: usize = 4 << 20;
const PREFIX: usize = 5;

/// The first whole message of `buffer`, taken from it.
pub fn take_message(buffer: &mut BytesMut) -> Result<Option<Bytes>, &'static str> {
    if buffer.len() < PREFIX {
        return Ok(None);
    }
    let length = u32::from_be_bytes([buffer[1], buffer[2], buffer[3], buffer[4]]) as usize;
    if buffer[0] != 0 {
        return Err("compressed messages are not understood");
    }
    if length > MAX_MESSAGE {
        return Err("the message is too long");
    }
    if buffer.len() < PREFIX + length {
        return Ok(None);
    }
    buffer.advance(PREFIX);
    Ok(Some(buffer.split_to(length).freeze()))
}

/// A message with its prefix.
pub fn framed(message: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(PREFIX + message.len());
    out.put_u8(0);
    out.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    out.extend_from_slice(message);
    out.freeze()
}

/// A protobuf message whose field 1 is `text`.
pub fn string_message(text: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(text.len() + 6);
    out.put_u8(0x0A);
    let mut length = text.len();
    while length >= 0x80 {
        out.put_u8((length & 0x7F) as u8 | 0x80);
        length >>= 7;
    }
    out.put_u8(length as u8);
    out.extend_from_slice(text.as_bytes());
    out.freeze()
}

/// Field 1 of a message that holds nothing else.
pub fn string_field(message: &[u8]) -> Option<&str> {
    let (0x0A, mut rest) = (*message.first()?, message.get(1..)?) else { return None };
    let (mut length, mut shift) = (0usize, 0u32);
    loop {
        let byte = *rest.first()?;
        rest = rest.get(1..)?;
        length |= usize::from(byte & 0x7F).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            break;
        }
        shift += 7;
        if shift > 28 {
            return None;
        }
    }
    (rest.len() == length).then(|| std::str::from_utf8(rest).ok())?
}

pub type Outgoing = mpsc::Sender<Result<Frame<Bytes>, hyper::Error>>;

/// How a call ends.
#[derive(Debug)]
pub struct Status {
    code: HeaderValue,
    message: Option<&'static str>,
}

impl Status {
    pub fn ok() -> Self {
        Status { code: HeaderValue::from_static("0"), message: None }
    }

    pub fn not_found(message: &'static str) -> Self {
        Status { code: HeaderValue::from_static("5"), message: Some(message) }
    }

    pub fn unimplemented(message: &'static str) -> Self {
        Status { code: HeaderValue::from_static("12"), message: Some(message) }
    }

    pub fn internal(message: &'static str) -> Self {
        Status { code: HeaderValue::from_static("13"), message: Some(message) }
    }

    fn trailers(self) -> HeaderMap {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", self.code);
        if let Some(message) = self.message {
            trailers.insert("grpc-message", HeaderValue::from_static(message));
        }
        trailers
    }
}

/// Answers as the messages come.
pub fn serve(request: Request<Incoming>, report: Value) -> Response<Body> {
    let reports = request.uri().path().ends_with("/Echo");
    let code = request.headers().get("x-echo-grpc-status").cloned();
    respond(move |frames| async move {
        let answer = reports.then(|| string_message(&report.to_string()));
        match exchange(request.into_body(), answer, &frames).await {
            Ok(()) => code.map_or_else(Status::ok, |code| Status { code, message: None }),
            Err(message) => Status::internal(message),
        }
    })
}

/// Sends what `call` gives to be sent, and then the status that it comes to.
pub fn respond<F>(call: impl FnOnce(Outgoing) -> F) -> Response<Body>
where
    F: Future<Output = Status> + Send + 'static,
{
    let (frames, outgoing) = mpsc::channel(16);
    let call = call(frames.clone());
    tokio::spawn(async move {
        let status = call.await;
        let _ = frames.send(Ok(Frame::trailers(status.trailers()))).await;
    });
    let stream = futures_util::stream::unfold(outgoing, |mut outgoing| async move {
        let frame = outgoing.recv().await?;
        Some((frame, outgoing))
    });
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(stream)));
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

async fn exchange(mut body: Incoming, answer: Option<Bytes>, frames: &Outgoing) -> Result<(), &'static str> {
    let mut buffer = BytesMut::new();
    while let Some(message) = next_message(&mut body, &mut buffer).await? {
        let reply = framed(answer.as_ref().unwrap_or(&message));
        if frames.send(Ok(Frame::data(reply))).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// The first message of a request that has one.
pub async fn first_message(body: &mut Incoming) -> Result<Option<Bytes>, &'static str> {
    next_message(body, &mut BytesMut::new()).await
}

/// The next message; `buffer` holds what has come of those after it. `None` at the end of the request.
async fn next_message(body: &mut Incoming, buffer: &mut BytesMut) -> Result<Option<Bytes>, &'static str> {
    loop {
        if let Some(message) = take_message(buffer)? {
            return Ok(Some(message));
        }
        match body.frame().await {
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    buffer.extend_from_slice(&data);
                }
            }
            Some(Err(_)) => return Err("the request broke off"),
            None if buffer.is_empty() => return Ok(None),
            None => return Err("the last message is not whole"),
        }
    }
}
