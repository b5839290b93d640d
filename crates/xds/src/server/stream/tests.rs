use std::sync::Arc;

use meltemi_proto::Any;
use meltemi_proto::envoy::service::discovery::v3::DiscoveryRequest;

use super::*;
use crate::Resource;
use crate::types::CLUSTER;

fn response(variant: Variant, sizes: &[usize]) -> Response {
    let resources = sizes.iter().enumerate().map(|(i, size)| Resource {
        name: format!("r{i}").into(),
        version: "v".into(),
        body: Arc::new(Any { type_url: CLUSTER.to_owned(), value: vec![i as u8; *size].into() }),
    });
    Response {
        variant,
        type_url: CLUSTER.into(),
        nonce: "n".to_owned(),
        version: "1".to_owned(),
        identifier: "test".into(),
        resources: resources.collect(),
        removed: vec!["gone".into()],
    }
}

/// The blocks of a body and its trailers.
async fn read(mut body: Body) -> (Vec<Bytes>, http::HeaderMap) {
    let mut blocks = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        match frame.into_data() {
            Ok(data) => blocks.push(data),
            Err(frame) => return (blocks, frame.into_trailers().unwrap()),
        }
    }
    panic!("no trailers");
}

async fn sent(responses: Vec<Response>, failure: Option<Status>) -> (Vec<Bytes>, http::HeaderMap) {
    let (sender, receiver) = mpsc::channel(8);
    let (fail, failed) = mpsc::channel(1);
    for response in responses {
        sender.send(response).await.unwrap();
    }
    if let Some(status) = failure {
        fail.send(status).await.unwrap();
    }
    drop((sender, fail));
    read(Body::new(receiver, failed)).await
}

#[tokio::test]
async fn a_response_is_its_message_whatever_the_sizes_of_its_resources() {
    let sizes: [&[usize]; 6] =
        [&[], &[0], &[10; 3], &[BY_REFERENCE - 1, BY_REFERENCE, 5], &[100_000, 1], &[2_000; 100]];
    for sizes in sizes {
        for variant in [Variant::Delta, Variant::StateOfTheWorld] {
            let response = response(variant, sizes);
            let (blocks, trailers) = sent(vec![response.clone()], None).await;
            assert_eq!(trailers["grpc-status"], "0");
            assert!(blocks.iter().all(|block| block.len() <= BLOCK + 512 || sizes.contains(&block.len())));
            let bytes = blocks.concat();
            assert_eq!((&bytes[1..PREFIX]).get_u32() as usize, bytes.len() - PREFIX);
            match variant {
                Variant::Delta => {
                    let found: DeltaDiscoveryResponse = meltemi_proto::decode(&bytes[PREFIX..]).unwrap();
                    assert_eq!(found, response.to_delta());
                }
                Variant::StateOfTheWorld => {
                    let found: DiscoveryResponse = meltemi_proto::decode(&bytes[PREFIX..]).unwrap();
                    assert_eq!(found, response.to_state_of_the_world());
                }
            }
        }
    }
}

#[tokio::test]
async fn large_values_are_not_copied() {
    let response = response(Variant::Delta, &[BY_REFERENCE]);
    let value = response.resources[0].body.value.clone();
    let (blocks, _) = sent(vec![response], None).await;
    assert!(blocks.iter().any(|block| block.as_ptr() == value.as_ptr()));
}

#[tokio::test]
async fn a_failure_is_told_after_what_was_sent_before_it() {
    let first = response(Variant::Delta, &[1]);
    let (blocks, trailers) = sent(vec![first], Some(Status::invalid_argument("too many"))).await;
    assert!(!blocks.is_empty());
    assert_eq!(
        (&trailers["grpc-status"], &trailers["grpc-message"]),
        (&"3".parse().unwrap(), &"too%20many".parse().unwrap())
    );
}

fn framed(message: &DiscoveryRequest) -> Vec<u8> {
    let message = meltemi_proto::encode(message);
    let mut bytes = vec![0];
    bytes.extend_from_slice(&(message.len() as u32).to_be_bytes());
    bytes.extend_from_slice(&message);
    bytes
}

fn requests(bytes: Vec<u8>, piece: usize, max_bytes: usize) -> Requests<DiscoveryRequest> {
    let pieces: Vec<_> =
        bytes.chunks(piece).map(|piece| Ok::<_, Infallible>(Frame::data(Bytes::copy_from_slice(piece)))).collect();
    let body = http_body_util::StreamBody::new(futures_util::stream::iter(pieces));
    Requests::new(tonic::body::Body::new(body), max_bytes)
}

#[tokio::test]
async fn requests_are_found_however_they_are_cut() {
    let ask = |name: &str| DiscoveryRequest { resource_names: vec![name.to_owned()], ..Default::default() };
    let bytes = [framed(&ask("a")), framed(&DiscoveryRequest::default()), framed(&ask("b"))].concat();
    for piece in 1..=bytes.len() {
        let mut requests = requests(bytes.clone(), piece, 1_000);
        for expected in [ask("a"), DiscoveryRequest::default(), ask("b")] {
            assert_eq!(requests.next().await.unwrap().unwrap(), expected);
        }
        assert!(requests.next().await.is_none());
        assert_eq!(requests.buffer.capacity(), 0, "nothing is kept between requests");
    }
}

#[tokio::test]
async fn requests_that_cannot_be_read_end_the_stream() {
    let large = framed(&DiscoveryRequest { type_url: "x".repeat(200), ..Default::default() });
    let mut compressed = framed(&DiscoveryRequest::default());
    compressed[0] = 1;
    for (bytes, code) in [
        (large, tonic::Code::ResourceExhausted),
        (compressed, tonic::Code::Unimplemented),
        (vec![0, 0, 0, 0, 1, 0xff], tonic::Code::Internal),
    ] {
        assert_eq!(requests(bytes, 1_000, 100).next().await.unwrap().unwrap_err().code(), code);
    }
}
