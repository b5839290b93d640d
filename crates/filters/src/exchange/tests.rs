use super::*;

fn node() -> LocalNode {
    let metadata =
        serde_json::json!({ "NAMESPACE": "books", "WORKLOAD_NAME": "reviews-v1", "LABELS": { "app": "reviews" } });
    LocalNode::new("sidecar~10.0.0.1~p.books~books.svc.cluster.local", "reviews", &metadata)
}

#[test]
fn an_introduction_is_read_back_at_any_split() {
    let sent = introduction(&node());
    assert_eq!(sent[..4], [0x3D, 0x23, 0x04, 0x67]);
    for end in 0..sent.len() {
        assert_eq!(read(&sent[..end]), Exchange::More, "{end}");
    }
    let mut with_data = sent.to_vec();
    with_data.extend_from_slice(b"hello");
    let expected = Exchange::Done { peer: Some(node().peer), length: sent.len() };
    assert_eq!(read(&with_data), expected);
}

#[test]
fn what_is_no_introduction() {
    let check = |bytes: &[u8], expected| assert_eq!(read(bytes), expected, "{bytes:?}");
    check(b"GET / HTTP/1.1", Exchange::Absent);
    check(&[0x3D, 0x23, 0x05], Exchange::Absent);
    check(&[0x3D, 0x23, 0x04, 0x67, 0xff, 0, 0, 0], Exchange::TooLarge);
    check(&[0x3D, 0x23, 0x04, 0x67, 0, 0, 0, 2, 0xff, 0xff], Exchange::Done { peer: None, length: 10 });
    check(&[0x3D, 0x23, 0x04, 0x67, 0, 0, 0, 0], Exchange::Done { peer: None, length: 8 });
}

#[test]
fn no_bytes_panic() {
    let sent = introduction(&node());
    for i in 0..20_000 {
        let mut bytes = sent.to_vec();
        for _ in 0..=i % 4 {
            let at = rand::random::<u32>() as usize % bytes.len();
            bytes[at] = rand::random();
        }
        bytes.truncate(rand::random::<u32>() as usize % (bytes.len() + 1));
        if let Exchange::Done { length, .. } = read(&bytes) {
            assert!(length <= bytes.len());
        }
        Peer::from_header(&bytes);
    }
}
