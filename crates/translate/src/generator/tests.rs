use super::*;

fn any(text: &str) -> Any {
    Any { type_url: "t".into(), value: text.to_owned().into() }
}

#[test]
fn equal_inputs_build_once_and_share_the_body() {
    let built = Built::new(8, usize::MAX);
    let mut count = 0;
    let mut get = |name: &str, input: u32| {
        built.get_or_build(name.into(), input, |input| {
            count += 1;
            any(&input.to_string())
        })
    };
    let first = get("a", 1);
    let again = get("b", 1);
    let other = get("a", 2);
    assert_eq!(count, 2);
    assert!(Arc::ptr_eq(&first.body, &again.body));
    assert_eq!(&*again.name, "b");
    assert_ne!(first.version, other.version);
}

#[test]
fn the_cache_is_bounded_and_keeps_what_is_used() {
    let built = Built::new(8, usize::MAX);
    for round in 0..100 {
        built.get_or_build("x".into(), round, |_| any("x"));
        built.get_or_build("kept".into(), u32::MAX, |_| any(&round.to_string()));
        assert!(built.statistics().0 <= 8);
    }
    let kept = built.get_or_build("kept".into(), u32::MAX, |_| any("rebuilt"));
    assert_eq!(&kept.body.value[..], b"0");
}

#[test]
fn large_resources_are_bounded_by_their_bytes() {
    let built = Built::new(1_000, 100);
    let body = "x".repeat(10);
    for round in 0..100 {
        built.get_or_build("x".into(), round, |_| any(&body));
        built.get_or_build("kept".into(), u32::MAX, |_| any(&round.to_string()));
        assert!(built.statistics().0 <= 10);
    }
    let kept = built.get_or_build("kept".into(), u32::MAX, |_| any("rebuilt"));
    assert_eq!(&kept.body.value[..], b"0");
    // Even one that is larger than all may be is there for who asks next.
    let large = built.get_or_build("large".into(), 1_000, |_| any(&"x".repeat(1_000)));
    assert!(Arc::ptr_eq(&large.body, &built.get_or_build("large".into(), 1_000, |_| any("rebuilt")).body));
}
