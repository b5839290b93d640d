use super::*;
use crate::testing::{self, Answering};
use meltemi_http::name;

fn answer(body: &[u8], trailers: &[(&str, &str)]) -> Answer {
    let body = Bytes::copy_from_slice(body);
    Answer { status: StatusCode::OK, headers: Headers::new(), body, trailers: testing::headers(trailers) }
}

async fn ask(answer: Result<Answer, CallError>) -> (Result<Bytes, RpcError>, Vec<Call>) {
    let caller = Answering::new(move |_| answer.clone());
    let cluster = Arc::from("authz");
    let timeout = Duration::from_millis(250);
    let rpc = Rpc { cluster: &cluster, authority: "", path: "/a.B/C", metadata: &[], timeout };
    (rpc.call(&caller, b"hello").await, caller.calls())
}

#[tokio::test]
async fn a_procedure_sends_one_message_and_takes_one() {
    let (message, calls) = ask(Ok(answer(b"\0\0\0\0\x02ok", &[("grpc-status", "0")]))).await;
    assert_eq!(message, Ok(Bytes::from_static(b"ok")));
    let call = &calls[0];
    assert_eq!((&*call.head.authority, &*call.head.path), ("authz", "/a.B/C"));
    assert_eq!(call.head.headers.get_str(&name::GRPC_TIMEOUT), Some("250m"));
    assert_eq!(call.body, b"\0\0\0\0\x05hello"[..]);
}

#[tokio::test]
async fn what_is_no_answer_is_an_error() {
    let cases = [
        (Err(CallError::Timeout), RpcError::Call(CallError::Timeout)),
        (Ok(Answer { status: StatusCode::NOT_FOUND, ..answer(b"", &[]) }), RpcError::Http(404)),
        (Ok(answer(b"", &[("grpc-status", "14")])), RpcError::Status(14)),
        (Ok(answer(b"", &[("grpc-status", "nonsense")])), RpcError::Status(2)),
        (Ok(answer(b"\0\0\0\0\x02ok", &[])), RpcError::Malformed),
        (Ok(answer(b"\0\0\0\0\x03ok", &[("grpc-status", "0")])), RpcError::Malformed),
        (Ok(answer(b"\x01\0\0\0\x02ok", &[("grpc-status", "0")])), RpcError::Malformed),
        (Ok(answer(b"\0\0", &[("grpc-status", "0")])), RpcError::Malformed),
    ];
    for (given, expected) in cases {
        assert_eq!(ask(given).await.0, Err(expected));
    }
}

#[test]
fn the_early_body_is_cut_where_it_is_asked_to_be() {
    let early = Early {
        frames: vec![
            Frame::Data(Bytes::from_static(b"abc")),
            Frame::Data(Bytes::from_static(b"de")),
            Frame::Trailers(Headers::new()),
        ],
        complete: true,
    };
    assert_eq!(early.byte_size(), 5);
    for (most, expected) in [(0, ""), (2, "ab"), (4, "abcd"), (9, "abcde")] {
        assert_eq!(early.bytes(most), expected.as_bytes());
    }
}
