use super::*;
use std::time::Duration;

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, 4, 0, 0, 0, 1], payload].concat()
}

/// The integer with a prefix of seven bits, and the text.
fn literal(text: &str) -> Vec<u8> {
    let length = text.len();
    let mut bytes = match length {
        0..0x7f => vec![u8::try_from(length).unwrap()],
        _ if length < 0x7f + 0x80 => vec![0x7f, u8::try_from(length - 0x7f).unwrap()],
        _ => vec![
            0x7f,
            u8::try_from((length - 0x7f) & 0x7f).unwrap() | 0x80,
            u8::try_from((length - 0x7f) >> 7).unwrap(),
        ],
    };
    bytes.extend(text.bytes());
    bytes
}

fn headers(authority: &str) -> Vec<u8> {
    [b"\x83\x86".to_vec(), FIELD.to_vec(), literal(authority), b"\x40\x01x\x03a%b".to_vec()].concat()
}

#[tokio::test]
async fn only_the_authority_of_a_head_is_changed_however_it_is_cut() {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for path in ["localhost", "tmp%2Fa.sock", &"d%2F".repeat(40), &"d%2F".repeat(80)] {
        let (client, server) = UnixStream::pair().unwrap();
        let sent =
            [preface.to_vec(), frame(4, b"%%"), frame(HEADERS, &headers(path)), frame(0, &headers(path))].concat();
        let seen = [
            preface.to_vec(),
            frame(4, b"%%"),
            frame(HEADERS, &headers(&path.replace('%', "-"))),
            frame(0, &headers(path)),
        ]
        .concat();
        let mut mended = mended(server);
        let (mut reader, mut writer) = client.into_split();
        let writing = tokio::spawn(async move {
            for byte in sent {
                writer.write_all(&[byte]).await.unwrap();
            }
            writer
        });
        let mut got = vec![0; seen.len()];
        tokio::time::timeout(Duration::from_secs(20), mended.read_exact(&mut got)).await.unwrap().unwrap();
        assert_eq!(got, seen, "{path}");
        mended.write_all(b"answer").await.unwrap();
        let mut answer = [0; 6];
        reader.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"answer");
        drop(writing.await.unwrap());
        drop(reader);
        assert_eq!(mended.read(&mut got).await.unwrap(), 0, "the end is passed on");
    }
}

#[test]
fn a_head_that_is_cut_short_or_compressed_is_left_alone() {
    let whole = headers("tmp%2Fa.sock");
    for length in 0..whole.len() {
        // No more is asked than that it ends: what is cut short is for the server to refuse.
        mend(&mut whole[..length].to_vec());
    }
    let compressed = [FIELD, &[0x83, b'%', b'%', b'%']].concat();
    let mut same = compressed.clone();
    mend(&mut same);
    assert_eq!(same, compressed);
}

#[tokio::test]
async fn a_frame_that_is_too_large_ends_the_connection() {
    let (mut client, server) = UnixStream::pair().unwrap();
    let mut mended = mended(server);
    client
        .write_all(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &[1, 0, 0, 0, 0, 0, 0, 0, 0]].concat())
        .await
        .unwrap();
    let mut got = Vec::new();
    tokio::time::timeout(Duration::from_secs(20), mended.read_to_end(&mut got)).await.unwrap().unwrap();
    assert_eq!(got.len(), PREFACE_BYTES);
}
