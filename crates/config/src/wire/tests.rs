use super::*;

#[test]
fn durations_are_read_as_go_writes_them() {
    for (text, expected) in [
        ("10s", Some(Duration::from_secs(10))),
        ("1m30s", Some(Duration::from_secs(90))),
        ("1h1m1s1ms1us1ns", Some(Duration::new(3661, 1_001_001))),
        ("1.5s", Some(Duration::from_millis(1500))),
        (".5s", Some(Duration::from_millis(500))),
        ("2.000000001s", Some(Duration::new(2, 1))),
        ("0", Some(Duration::ZERO)),
        ("0s", Some(Duration::ZERO)),
        ("3\u{b5}s", Some(Duration::from_micros(3))),
        ("", None),
        ("10", None),
        ("s", None),
        ("1x", None),
        ("-1s", None),
        ("1..5s", None),
        ("1s ", None),
        ("9999999999999999999h", None),
        ("300000h", Some(Duration::from_secs(300_000 * 3600))),
        ("99999999999999999999s", None),
    ] {
        assert_eq!(parse_duration(text).ok(), expected, "{text:?}");
    }
}

#[test]
fn a_duration_written_is_the_duration_read() {
    for duration in [Duration::ZERO, Duration::from_millis(250), Duration::from_secs(45), Duration::new(1, 1)] {
        assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
    }
    assert_eq!(format_duration(Duration::from_millis(1500)), "1.5s");
}

#[test]
fn base64_is_read_in_both_alphabets_and_refused_when_cut() {
    for (text, expected) in [
        ("", Some(&b""[..])),
        ("aGVsbG8=", Some(b"hello")),
        ("aGVsbG8", Some(b"hello")),
        ("aGVs\nbG8=", Some(b"hello")),
        ("-_8=", Some(b"\xfb\xff")),
        ("+/8=", Some(b"\xfb\xff")),
        ("aGVsbG9=", None),
        ("a", None),
        ("a=b", None),
        ("a*bc", None),
    ] {
        assert_eq!(base64_decode(text).as_deref(), expected, "{text:?}");
    }
    for bytes in [&b""[..], b"a", b"ab", b"abc", b"abcd"] {
        assert_eq!(base64_decode(&base64_encode(bytes)).as_deref(), Some(bytes));
    }
}

#[test]
fn doubles_are_equal_when_their_numbers_are() {
    assert_eq!(Double::new(-0.0), Double::new(0.0));
    assert_eq!(Double::new(1.5).value(), 1.5);
    assert_ne!(Double::new(1.5), Double::new(1.25));
}

#[test]
fn what_may_be_a_key_is_not_shown() {
    let bytes = Base64Bytes((*b"secret").into());
    assert_eq!(format!("{bytes:?}"), "<6 bytes>");
    let secret = crate::kube::Secret {
        string_data: [("k".into(), crate::kube::SecretText("secret".into()))].into(),
        ..Default::default()
    };
    assert!(!format!("{secret:?}").contains("secret\""), "{secret:?}");
}
