use http::{HeaderName, HeaderValue, Method};

use super::*;

fn decoded(section: &[u8]) -> Result<Vec<Field>, DecodeError> {
    let mut found = Vec::new();
    decode(section, |field, _| {
        found.push(field);
        true
    })?;
    Ok(found)
}

fn header(name: &'static str, value: &'static str) -> Field {
    Field::Header(HeaderName::from_static(name), HeaderValue::from_static(value))
}

#[test]
fn fields_by_index_by_name_and_in_full() {
    let section = [
        &[0, 0, 0xc0 | 17, 0xc0 | 23, 0xc1][..],
        // `:authority` (0) by name, `x-a` in full, `user-agent` (95) by name, `cookie` (5) that nobody may keep.
        &[0x50, 1, b'a', 0x23, b'x', b'-', b'a', 1, b'b', 0x5f, 80, 1, b'u', 0x75, 1, b'c'],
        // Huffman: `x-a` with `a` as its value.
        &[0x23, b'x', b'-', b'a', 0x81, 0x1f],
    ]
    .concat();
    let found = decoded(&section).unwrap();
    let first = [Field::Method(Method::GET), Field::Scheme(crate::Scheme::Https), Field::Path("/".into())];
    assert_eq!(found[..3], first);
    assert_eq!(found[3..6], [Field::Authority("a".into()), header("x-a", "b"), header("user-agent", "u")]);
    assert_eq!(found[6..], [header("cookie", "c"), header("x-a", "a")]);
    assert!(matches!(&found[6], Field::Header(_, value) if value.is_sensitive()));
}

#[test]
fn what_needs_a_dynamic_table_or_is_cut_short_is_refused() {
    let cases: [&[u8]; 9] = [
        &[],
        &[0],
        // A Required Insert Count, then each kind of reference to the dynamic table.
        &[1, 0, 0xd1],
        &[0, 0, 0x80],
        &[0, 0, 0x40, 1, b'a'],
        &[0, 0, 0x10],
        &[0, 0, 0x00, 1, b'a'],
        // Beyond the static table; a value that is not all there.
        &[0, 0, 0xff, 36],
        &[0, 0, 0x50, 2, b'a'],
    ];
    for section in cases {
        assert_eq!(decoded(section), Err(DecodeError), "{section:?}");
    }
    assert_eq!(decoded(&[0, 0, 0xff, 35]).unwrap(), [header("x-frame-options", "sameorigin")]);
}

#[test]
fn a_name_that_no_message_may_have_is_invalid_and_no_more() {
    assert_eq!(decoded(&[0, 0, 0x21, b'A', 0]).unwrap(), [Field::Invalid]);
    assert_eq!(decoded(&[0, 0, 0x22, b':', b'x', 0]).unwrap(), [Field::Invalid]);
}

#[test]
fn what_is_written_is_read_back() {
    let mut headers = Headers::new();
    let fields = [
        ("content-type", "text/plain"),
        ("content-type", "text/odd"),
        ("access-control-allow-headers", "*"),
        ("x-own", "value"),
        ("connection", "close"),
    ];
    for (name, value) in fields {
        headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let mut secret = HeaderValue::from_static("s");
    secret.set_sensitive(true);
    headers.append(http::header::AUTHORIZATION, secret);
    for (status, bytes) in [(200, 1), (404, 1), (500, 2), (418, 6)] {
        let status = StatusCode::from_u16(status).unwrap();
        let mut section = BytesMut::new();
        response(status, &Headers::new(), &mut section);
        assert_eq!(section.len(), 2 + bytes, "{status}");
        section.clear();
        response(status, &headers, &mut section);
        let found = decoded(&section).unwrap();
        assert_eq!(found[0], Field::Status(status));
        assert_eq!(found[1..3], [header("content-type", "text/plain"), header("content-type", "text/odd")]);
        assert_eq!(found[3..5], [header("access-control-allow-headers", "*"), header("x-own", "value")]);
        assert_eq!(found[5..], [header("authorization", "s")], "connection is not sent");
        assert!(matches!(&found[5], Field::Header(_, value) if value.is_sensitive()));
    }
}
