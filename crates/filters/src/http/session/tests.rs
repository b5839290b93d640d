use super::*;
use crate::testing;
use meltemi_http::StatusCode;

fn cookie(path: &str, ttl: u64) -> SessionState {
    let attributes = vec![("SameSite".into(), "Strict".into())];
    SessionState::Cookie { name: "mine".into(), path: path.into(), ttl: Duration::from_secs(ttl), attributes }
}

fn header() -> SessionState {
    SessionState::Header(::http::HeaderName::from_static("x-mine"))
}

fn filter(state: Option<SessionState>, strict: bool) -> StatefulSession {
    StatefulSession::new(Arc::new(Config { state, strict }))
}

const HOST: &str = "10.0.0.1:80";

/// What a client that sends these headers wants.
fn wanted(state: SessionState, headers: &[(&str, &str)]) -> Option<Option<String>> {
    let mut info = testing::info();
    filter(Some(state), true).on_request("f", &testing::request(headers), &mut info);
    let wanted = info.upstream.session.as_ref()?.wanted()?;
    assert!(wanted.strict);
    Some(wanted.address.as_ref().map(ToString::to_string))
}

/// What a client gets that wanted this, and was served by that.
fn told(state: SessionState, headers: &[(&str, &str)], served: &str) -> Vec<String> {
    let mut info = testing::info();
    filter(Some(state), false).on_request("f", &testing::request(headers), &mut info);
    info.upstream.host = Some(Address::Socket(served.parse().unwrap()));
    let mut head = ResponseHead::new(StatusCode::OK);
    StatefulSession::on_response(&mut head, &info);
    let names = [header::SET_COOKIE, ::http::HeaderName::from_static("x-mine")];
    let values = names.iter().flat_map(|name| head.headers.get_all(name));
    values.map(|value| value.to_str().unwrap().to_owned()).collect()
}

fn encoded(expires: u64) -> String {
    let kept = SessionCookie { address: HOST.to_owned(), expires };
    format!("a=b; mine=\"{}\"", STANDARD.encode(meltemi_proto::encode(&kept)))
}

#[test]
fn a_client_wants_the_host_that_it_was_told() {
    let host = Some(Some(HOST.to_owned()));
    // One that no reader takes for a message by chance.
    let old_host = "127.0.0.1:8080";
    let old = format!("mine={}", STANDARD.encode(old_host));
    let expired = encoded(1_000);
    let valid = encoded(u64::MAX);
    for (cookies, expected) in [
        (&encoded(0)[..], host.clone()),
        (&valid[..], host.clone()),
        (&expired[..], None),
        (&old[..], Some(Some(old_host.to_owned()))),
        ("mine=????", None),
        ("other=1", None),
        ("mine=aGVsbG8=", Some(None)),
    ] {
        assert_eq!(wanted(cookie("/", 0), &[("cookie", cookies)]), expected, "{cookies}");
    }
    assert_eq!(wanted(header(), &[("x-mine", &STANDARD.encode(HOST))]), host);
    assert_eq!(wanted(header(), &[("x-mine", "")]), None);
    assert_eq!(wanted(header(), &[("x-mine", &"A".repeat(MAX_VALUE + 4))]), None);
}

#[test]
fn a_client_is_told_where_its_host_is_new_to_it() {
    let told_cookie = told(cookie("/", 0), &[], HOST);
    let value = STANDARD.encode(meltemi_proto::encode(&SessionCookie { address: HOST.to_owned(), expires: 0 }));
    assert_eq!(told_cookie, [format!("mine=\"{value}\"; Path=/; SameSite=Strict; HttpOnly")]);
    assert_eq!(told(cookie("/", 0), &[("cookie", &encoded(0))], HOST), Vec::<String>::new());
    assert_eq!(told(cookie("/", 0), &[("cookie", &encoded(0))], "10.0.0.2:80").len(), 1);
    assert!(told(cookie("/", 90), &[], HOST)[0].contains("; Max-Age=90; Path=/;"));
    assert_eq!(told(header(), &[], HOST), [STANDARD.encode(HOST)]);
    assert_eq!(told(header(), &[("x-mine", &STANDARD.encode(HOST))], HOST), Vec::<String>::new());
}

#[test]
fn a_cookie_is_for_its_path() {
    for (path, target, is) in [
        ("", "/a", true),
        ("/", "/a", true),
        ("/a", "/a?b", true),
        ("/a", "/a/b", true),
        ("/a", "/ab", false),
        ("/a/", "/a/b", true),
        ("/a/", "/a", false),
        ("/b", "/a", false),
    ] {
        assert_eq!(is_for(&cookie(path, 0), target), is, "{path} {target}");
    }
    assert!(is_for(&header(), "/a"));
}

#[test]
fn an_override_says_how_and_a_filter_without_state_does_nothing() {
    let mut info = testing::info();
    filter(None, false).on_request("f", &testing::request(&[]), &mut info);
    assert!(info.upstream.session.is_none());
}
