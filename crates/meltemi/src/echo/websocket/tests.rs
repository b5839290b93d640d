use super::*;

#[test]
fn the_handshake_of_the_rfc() {
    assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

#[tokio::test]
async fn frames_are_unmasked_and_bounded() {
    // RFC 6455, section 5.7: a masked "Hello".
    let hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(read_frame(&mut &hello[..]).await.unwrap(), (0x81, b"Hello".to_vec()));
    assert!(read_frame(&mut &[0x81, 0x05, b'H', b'e', b'l', b'l', b'o'][..]).await.is_err(), "not masked");
    let huge = [0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    assert!(read_frame(&mut &huge[..]).await.is_err(), "4 GiB");
    for (length, head) in [(5, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
        assert_eq!(frame(0x82, &vec![0; length]).len(), head + length);
    }
}
