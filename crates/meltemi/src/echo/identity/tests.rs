use super::*;

#[test]
fn the_nearest_client_is_named() {
    let check = |text: &str, expected: Value| {
        let mut headers = HeaderMap::new();
        if !text.is_empty() {
            headers.insert("x-forwarded-client-cert", text.parse().unwrap());
        }
        assert_eq!(security(&headers), expected, "{text}");
    };
    check("", json!({"mutualTls": false}));
    check(
        "By=spiffe://a/b;Hash=00;URI=spiffe://far,By=spiffe://a/c;Hash=ff;Subject=\"CN=x, O=y;z\";URI=spiffe://near",
        json!({"mutualTls": true, "self": "spiffe://a/c", "certificateHash": "ff", "subject": "CN=x, O=y;z",
            "peer": "spiffe://near"}),
    );
}

#[test]
fn repeated_headers_are_a_list() {
    let mut map = HeaderMap::new();
    map.append("a", "1".parse().unwrap());
    map.append("a", "2".parse().unwrap());
    map.append("b", "3".parse().unwrap());
    assert_eq!(headers(&map), json!({"a": ["1", "2"], "b": "3"}));
}
