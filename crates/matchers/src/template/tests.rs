use super::*;

#[test]
fn what_a_template_matches() {
    let cases = [
        ("/a/b", &["/a/b"][..], &["/a/b/", "/a", "/a/bc"][..]),
        ("/a/{*}", &["/a/b", "/a/b%2Fc"], &["/a/", "/a/b/c", "/a"]),
        ("/a/{**}", &["/a/", "/a/b", "/a/b/c"], &["/a", "/ab"]),
        ("/a/{*}/c", &["/a/b/c"], &["/a/c", "/a/b/d/c"]),
        ("/{**}/c", &["/a/b/c", "//c"], &["/c", "/a/b"]),
        ("/users/{id}/files/{path=**}", &["/users/1/files/", "/users/1/files/a/b"], &["/users/1/2/files/a"]),
        ("/v/{name=one/*}/x", &["/v/one/two/x"], &["/v/one/x", "/v/two/two/x"]),
        ("/a.b", &["/a.b"], &["/axb"]),
        ("/media/*.png", &["/media/x.png"], &["/media/.png", "/media/x/y.png"]),
    ];
    for (template, yes, no) in cases {
        let compiled = PathTemplate::new(template).unwrap();
        for path in yes {
            assert!(compiled.matches(path), "{template} {path}");
        }
        for path in no {
            assert!(!compiled.matches(path), "{template} {path}");
        }
    }
}

/// CVE-2025-46821: whoever denies `/admin/{*}` means every segment.
#[test]
fn no_character_hides_a_segment() {
    let one = PathTemplate::new("/admin/{*}").unwrap();
    let any = PathTemplate::new("/admin/{**}").unwrap();
    for path in
        ["/admin/*", "/admin/a*b", "/admin/\"x\"", "/admin/[x]", "/admin/a|b", "/admin/`", "/admin/\u{e9}", "/admin/ "]
    {
        assert!(one.matches(path) && any.matches(path), "{path}");
    }
    assert!(!one.matches("/admin/*/x"));
}

#[test]
fn what_is_no_template_is_refused() {
    let cases = [
        ("a", TemplateError::Shape),
        ("/a//b", TemplateError::EmptySegment),
        ("/***", TemplateError::Operator),
        ("/**/a/*", TemplateError::AfterAny),
        ("/{**}/{*}", TemplateError::AfterAny),
        ("/{a", TemplateError::Variable),
        ("/{}", TemplateError::Variable),
        ("/{1a}", TemplateError::Variable),
        ("/{a={b}}", TemplateError::Variable),
        ("/{a}/{a}", TemplateError::Twice("a".into())),
        ("/{a}{b}", TemplateError::Operator),
        ("/{a}/{b}/{c}/{d}/{e}/{f}", TemplateError::Variables),
        ("/a?b", TemplateError::Character('?')),
        ("/ä", TemplateError::Character('ä')),
    ];
    for (template, expected) in cases {
        assert_eq!(PathTemplate::new(template), Err(expected), "{template}");
    }
    assert_eq!(PathTemplate::new(&format!("/{}", "a".repeat(2000))), Err(TemplateError::Shape));
}
