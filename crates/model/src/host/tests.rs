use super::*;

#[test]
fn patterns_overlap_and_cover() {
    // (a, b, overlap, a covers b)
    for (a, b, overlap, cover) in [
        ("a.com", "a.com", true, true),
        ("a.com", "b.com", false, false),
        ("*", "a.com", true, true),
        ("*", "*.com", true, true),
        ("*.com", "*", true, false),
        ("*.com", "a.com", true, true),
        ("*.com", "com", false, false),
        ("*.a.com", "*.com", true, false),
        ("*.com", "*.a.com", true, true),
        ("*.a.com", "*.b.com", false, false),
        ("a.com", "*.com", true, false),
    ] {
        assert_eq!(overlaps(a, b), overlap, "{a} overlaps {b}");
        assert_eq!(overlaps(b, a), overlap, "{b} overlaps {a}");
        assert_eq!(covers(a, b), cover, "{a} covers {b}");
    }
}

#[test]
fn the_most_specific_pattern_wins() {
    let patterns = ["*", "*.com", "*.a.com", "x.a.com"];
    for (host, expected) in [("x.a.com", "x.a.com"), ("y.a.com", "*.a.com"), ("b.com", "*.com"), ("b.org", "*")] {
        assert_eq!(most_specific(host, patterns), Some(expected), "{host}");
    }
    assert_eq!(most_specific("b.org", ["*.com"]), None);
}

#[test]
fn short_names_are_completed() {
    for (host, namespace, domain, expected) in [
        ("reviews", "default", "cluster.local", "reviews.default.svc.cluster.local"),
        ("reviews", "default", "", "reviews.default"),
        ("reviews.default", "x", "cluster.local", "reviews.default"),
        ("*", "x", "cluster.local", "*"),
        ("::1", "x", "cluster.local", "::1"),
        ("", "x", "cluster.local", ""),
    ] {
        assert_eq!(fqdn(host, namespace, domain), expected);
    }
}
