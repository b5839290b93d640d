use super::*;

#[test]
fn a_request_says_what_to_do() {
    let check = |path: &str, query: &str, expected: Result<Wish, &str>| {
        assert_eq!(Wish::parse(path, query), expected.map_err(str::to_owned), "{path}?{query}");
    };
    check("/", "", Ok(Wish::default()));
    check("/status/503", "", Ok(Wish { status: Some(503), ..Wish::default() }));
    check("/delay/1.5s", "bytes=7", Ok(Wish { delay: Duration::from_millis(1500), bytes: Some(7), ..Wish::default() }));
    let urls = vec!["http://a/?x=1".to_owned(), "tcp://b:9".to_owned()];
    check("/call", "url=http%3A%2F%2Fa%2F%3Fx%3D1&call=tcp://b:9", Ok(Wish { calls: urls, ..Wish::default() }));
    check("/", "status=many", Err("status=many: not understood"));
    check("/delay/1000s", "", Err("delay=1000s: not understood"));
    check("/", "delay=-1s", Err("delay=-1s: not understood"));
}
