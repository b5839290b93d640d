use super::*;

#[test]
fn bytes_are_counted_as_istiod_does() {
    for (bytes, expected) in [
        (0, "0B"),
        (999, "999B"),
        (1000, "1.0kB"),
        (1960, "2.0kB"),
        (123_456, "123.5kB"),
        (2_500_000, "2.5MB"),
        (7_000_000_000, "7.0GB"),
    ] {
        assert_eq!(byte_count(bytes), expected);
    }
}
