use bytes::BytesMut;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use proptest::prelude::*;

use super::{decode::DecodeError, tables::STATIC, *};

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<Field>, DecodeError> {
    let mut fields = Vec::new();
    decoder.decode(block, |field, _| {
        fields.push(field);
        true
    })?;
    Ok(fields)
}

fn field(name: &str, value: &str) -> Field {
    match name {
        ":method" => Field::Method(Method::from_bytes(value.as_bytes()).unwrap()),
        ":scheme" => Field::Scheme(if value == "https" { Scheme::Https } else { Scheme::Http }),
        ":authority" => Field::Authority(value.into()),
        ":path" => Field::Path(value.into()),
        ":status" => Field::Status(StatusCode::from_bytes(value.as_bytes()).unwrap()),
        _ => Field::Header(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap()),
    }
}

/// RFC 7541 Appendix C.2 to C.4: single fields, then requests on one connection, plain and Huffman-coded.
#[test]
fn the_requests_of_the_rfc_decode() {
    let single = [
        ("400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572", ("custom-key", "custom-header")),
        ("040c 2f73 616d 706c 652f 7061 7468", (":path", "/sample/path")),
        ("1008 7061 7373 776f 7264 0673 6563 7265 74", ("password", "secret")),
        ("82", (":method", "GET")),
    ];
    for (hex, (name, value)) in single {
        let fields = decode(&mut Decoder::new(4096), &bytes(hex)).unwrap();
        assert_eq!(fields, [field(name, value)], "{hex}");
        if let Field::Header(_, value) = &fields[0] {
            assert_eq!(value.is_sensitive(), name == "password");
        }
    }
    let plain = [
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ];
    let coded = [
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    ];
    let host = field(":authority", "www.example.com");
    let (get, http, https) = (field(":method", "GET"), field(":scheme", "http"), field(":scheme", "https"));
    for blocks in [plain, coded] {
        let mut decoder = Decoder::new(4096);
        let first = decode(&mut decoder, &bytes(blocks[0])).unwrap();
        assert_eq!(first, [get.clone(), http.clone(), field(":path", "/"), host.clone()]);
        let second = decode(&mut decoder, &bytes(blocks[1])).unwrap();
        let no_cache = field("cache-control", "no-cache");
        assert_eq!(second, [get.clone(), http.clone(), field(":path", "/"), host.clone(), no_cache]);
        let third = decode(&mut decoder, &bytes(blocks[2])).unwrap();
        let custom = field("custom-key", "custom-value");
        assert_eq!(third, [get.clone(), https.clone(), field(":path", "/index.html"), host.clone(), custom]);
    }
}

/// RFC 7541 Appendix C.6: responses that push entries out of a table of 256 bytes.
#[test]
fn the_responses_of_the_rfc_decode_with_evictions() {
    let blocks = [
        "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 \
         8f0b 97c8 e9ae 82ae 43d3",
        "4883 640e ffc1 c0bf",
        "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335 \
         dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
    ];
    let mut decoder = Decoder::new(256);
    let private = field("cache-control", "private");
    let location = field("location", "https://www.example.com");
    let date = field("date", "Mon, 21 Oct 2013 20:13:21 GMT");
    let rest = [private.clone(), date, location.clone()];
    assert_eq!(decode(&mut decoder, &bytes(blocks[0])).unwrap(), [&[field(":status", "302")][..], &rest].concat());
    assert_eq!(decode(&mut decoder, &bytes(blocks[1])).unwrap(), [&[field(":status", "307")][..], &rest].concat());
    let third = [
        field(":status", "200"),
        private,
        field("date", "Mon, 21 Oct 2013 20:13:22 GMT"),
        location,
        field("content-encoding", "gzip"),
        field("set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"),
    ];
    assert_eq!(decode(&mut decoder, &bytes(blocks[2])).unwrap(), third);
    assert_eq!(decode(&mut decoder, &[0x80 | 65]), Err(DecodeError), "three entries are left");
}

#[test]
fn broken_blocks_are_refused() {
    let cases = [
        ("80", "index 0"),
        ("c0", "an index beyond the table"),
        ("ff", "an integer without its end"),
        ("ff ffff ffff ffff ffff 0f", "an integer without a bound"),
        ("41 0f 7777", "a string cut short"),
        ("41", "a literal without value"),
        ("3f e2 1f", "a table larger than allowed"),
        ("82 20", "a change of table size after a field"),
        ("04 84 ffff ffff", "EOS within a string"),
        ("04 81 00", "padding that is not of ones"),
        ("04 82 07 ff", "a byte of padding"),
    ];
    for (hex, what) in cases {
        assert_eq!(decode(&mut Decoder::new(4096), &bytes(hex)), Err(DecodeError), "{what}");
    }
}

/// What no message may contain decodes all the same, keeps its place in the table, and is marked.
#[test]
fn an_invalid_field_is_marked_and_the_table_stays_right() {
    let mut decoder = Decoder::new(4096);
    // Upper case, an unknown pseudo-header, a value with a line break: all with indexing, then a valid one.
    let block = bytes("4001 58 0161 4002 3a78 0161 4001 79 020d0a 4001 7a 0162");
    let fields = decode(&mut decoder, &block).unwrap();
    assert_eq!(fields[..3], [Field::Invalid, Field::Invalid, Field::Invalid]);
    let again = decode(&mut decoder, &[0x80 | 62, 0x80 | 63, 0x80 | 65]).unwrap();
    assert_eq!(again, [field("z", "b"), Field::Invalid, Field::Invalid]);
}

#[test]
fn a_decoder_that_is_told_to_stop_still_keeps_its_table() {
    let mut decoder = Decoder::new(4096);
    let mut seen = 0;
    let block = bytes("4001 61 0161 4001 62 0162 4001 63 0163");
    decoder
        .decode(&block, |_, _| {
            seen += 1;
            false
        })
        .unwrap();
    assert_eq!(seen, 1);
    assert_eq!(decode(&mut decoder, &[0x80 | 62]).unwrap(), [field("c", "c")]);
}

#[test]
fn every_static_name_is_found_and_nothing_else() {
    for (at, entry) in STATIC.iter().enumerate() {
        if let Field::Header(name, _) = entry {
            assert_eq!(usize::from(static_name(name.as_str().as_bytes())), at + 1, "{name}");
        }
    }
    for name in ["", "x", "accept-", "x-request-id", "grpc-status", "te", "hosu"] {
        assert_eq!(static_name(name.as_bytes()), 0, "{name}");
    }
}

fn encode(encoder: &mut Encoder, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = BytesMut::new();
    encoder.begin(&mut out);
    for (name, value) in fields {
        encoder.field(&mut out, static_name(name.as_bytes()), name.as_bytes(), value.as_bytes());
    }
    out.to_vec()
}

/// A value must be seen twice to get into the table, so that ids and times do not empty it.
#[test]
fn a_repeated_field_becomes_an_index_and_a_changing_one_does_not() {
    let mut encoder = Encoder::new();
    let steady = ("content-type", "application/grpc");
    let lengths: Vec<usize> = (0..3).map(|_| encode(&mut encoder, &[steady]).len()).collect();
    assert!(lengths[0] > lengths[1] && lengths[1] > lengths[2] && lengths[2] == 1, "{lengths:?}");
    for n in 0..1000 {
        let id = format!("{n:032}");
        assert!(encode(&mut encoder, &[("x-request-id", &id)]).len() > 40);
    }
    assert_eq!(encode(&mut encoder, &[steady]).len(), 1, "a thousand ids did not push it out");
}

#[test]
fn a_smaller_table_of_the_peer_is_acknowledged_and_obeyed() {
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(4096));
    let field_a = ("a", "some value");
    for _ in 0..3 {
        decode(&mut decoder, &encode(&mut encoder, &[field_a])).unwrap();
    }
    encoder.set_capacity(0);
    encoder.set_capacity(100);
    let block = encode(&mut encoder, &[field_a]);
    assert_eq!(block[..3], [0x20, 0x3f, 100 - 31]);
    assert_eq!(decode(&mut decoder, &block).unwrap(), [field("a", "some value")]);
    for _ in 0..3 {
        let fields = decode(&mut decoder, &encode(&mut encoder, &[field_a])).unwrap();
        assert_eq!(fields, [field("a", "some value")]);
    }
}

#[test]
fn a_sensitive_value_stays_out_of_every_table() {
    let (encoder, mut decoder) = (Encoder::new(), Decoder::new(4096));
    let mut out = BytesMut::new();
    let name = header::AUTHORIZATION;
    encoder.sensitive(&mut out, static_name(b"authorization"), name.as_str().as_bytes(), b"secret");
    assert_eq!(out[..2], [0x1f, 23 - 15]);
    let fields = decode(&mut decoder, &out).unwrap();
    assert!(matches!(&fields[..], [Field::Header(_, value)] if value.is_sensitive()));
    assert_eq!(decode(&mut decoder, &[0x80 | 62]), Err(DecodeError));
}

proptest! {
    #[test]
    fn huffman_round_trip(text in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut coded = BytesMut::new();
        huffman::encode(&text, &mut coded);
        prop_assert_eq!(coded.len(), huffman::encoded_len(&text));
        let mut back = Vec::new();
        prop_assert!(huffman::decode(&coded, &mut back).is_ok());
        prop_assert_eq!(back, text);
    }

    #[test]
    fn any_bytes_decode_or_are_refused(block in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(&mut Decoder::new(4096), &block);
    }

    /// Blocks of one connection, with fields that repeat often: what goes in comes out, whatever the table's size.
    #[test]
    fn round_trip(
        blocks in proptest::collection::vec(
            proptest::collection::vec(("(a|bb|content-type|x-[a-c]{1,20})", "[ -~]{0,3}|[a-b]{0,200}"), 0..12), 1..20),
        capacity in prop_oneof![Just(4096usize), 0usize..400],
    ) {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(4096));
        encoder.set_capacity(capacity);
        for fields in blocks {
            let fields: Vec<(&str, &str)> = fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            let decoded = decode(&mut decoder, &encode(&mut encoder, &fields)).unwrap();
            let expected: Vec<Field> = fields.iter().map(|(n, v)| field(n, v)).collect();
            prop_assert_eq!(decoded, expected);
        }
    }
}
