use super::*;

#[test]
fn replies_are_read_where_they_are_complete() {
    for (bytes, expected) in [
        (&b""[..], Ok(None)),
        (b":12", Ok(None)),
        (b":12\r\n:13\r\n", Ok(Some((Reply::Integer(12), 5)))),
        (b":-1\r\n", Ok(Some((Reply::Integer(-1), 5)))),
        (b"+OK\r\n", Ok(Some((Reply::Text("OK".into()), 5)))),
        (b"-ERR no\r\n", Ok(Some((Reply::Error("ERR no".into()), 9)))),
        (b"$-1\r\n", Ok(Some((Reply::Null, 5)))),
        (b"$2\r\nab\r\n", Ok(Some((Reply::Text("ab".into()), 8)))),
        (b"$2\r\nab\r", Ok(None)),
        (b"$2\r\nabc\r\n", Err(RespError::Malformed)),
        (b"$-2\r\n", Err(RespError::Malformed)),
        (b"$99999999999\r\n", Err(RespError::TooLong)),
        (b":1x\r\n", Err(RespError::Malformed)),
        (b":1\n", Err(RespError::Malformed)),
        (b"*1\r\n:1\r\n", Err(RespError::Kind)),
        (b"HTTP/1.1 400", Err(RespError::Kind)),
    ] {
        assert_eq!(parse(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
    }
    assert_eq!(parse(&[b'+'; MAX_REPLY_BYTES]), Err(RespError::TooLong));
}

#[test]
fn a_command_is_an_array_of_strings() {
    let mut out = Vec::new();
    command(&mut out, &["INCRBY", "a b", "1"]);
    assert_eq!(out, b"*3\r\n$6\r\nINCRBY\r\n$3\r\na b\r\n$1\r\n1\r\n");
}
