use super::*;

fn headers(fields: &[(&'static str, &'static str)]) -> Headers {
    fields.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
}

#[test]
fn insert_keeps_the_place_of_the_first_and_drops_the_rest() {
    let mut h = headers(&[("a", "1"), ("b", "2"), ("a", "3"), ("c", "4"), ("a", "5")]);
    h.insert(HeaderName::from_static("a"), HeaderValue::from_static("9"));
    assert_eq!(h, headers(&[("a", "9"), ("b", "2"), ("c", "4")]));
}

#[test]
fn remove_takes_every_occurrence() {
    let mut h = headers(&[("a", "1"), ("b", "2"), ("a", "3")]);
    assert_eq!(h.remove("A"), Some(HeaderValue::from_static("1")));
    assert_eq!(h, headers(&[("b", "2")]));
    assert_eq!(h.remove("a"), None);
}

#[test]
fn joined_values_are_comma_separated() {
    let h = headers(&[("a", "1"), ("b", "2"), ("a", "3")]);
    assert_eq!(h.joined("a").as_deref(), Some(&b"1,3"[..]));
    assert_eq!(h.joined("b").as_deref(), Some(&b"2"[..]));
    assert_eq!(h.joined("x"), None);
}
