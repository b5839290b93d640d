use super::*;

#[test]
fn domains_match_in_envoys_order() {
    let mut trie = DomainTrie::default();
    for pattern in [
        "www.example.com",
        "*.example.com",
        "*-bar.example.com",
        "foo.*",
        "foo.bar.*",
        "*",
        "UPPER.example.com",
        "*com",
    ] {
        trie.insert(pattern, pattern).unwrap();
    }
    let check = |host: &str, expected: &str| assert_eq!(trie.find(host), Some(&expected), "{host}");
    check("www.example.com", "www.example.com");
    check("WWW.Example.COM", "www.example.com");
    check("upper.example.com", "UPPER.example.com");
    check("a.example.com", "*.example.com");
    check("baz-bar.example.com", "*-bar.example.com");
    check("-bar.example.com", "*.example.com");
    check(".example.com", "*com");
    check("foo.org", "foo.*");
    check("foo.bar.org", "foo.bar.*");
    check("foo.", "*");
    check("com", "*");
    check("", "*");
    check("é.example.com", "*.example.com");
}

#[test]
fn bad_domains_are_refused() {
    let mut trie = DomainTrie::default();
    trie.insert("a.com", 1).unwrap();
    assert_eq!(trie.insert("A.com", 2), Err(DomainError::Duplicate("A.com".into())));
    assert_eq!(trie.insert("a.*.com", 2), Err(DomainError::Wildcard("a.*.com".into())));
    assert_eq!(trie.insert("*.a.*", 2), Err(DomainError::Wildcard("*.a.*".into())));
    assert_eq!(trie.insert("", 2), Err(DomainError::Empty));
    assert_eq!(trie.find("b.com"), None);
}
