use super::*;
use crate::testing::Ca;

fn root(name: &str) -> CaCertificate {
    CaCertificate::all("root", &Ca::root(name).pem()).unwrap().remove(0)
}

#[test]
fn what_is_written_reads_the_same_and_what_is_not_that_is_refused() {
    let now = SystemTime::now();
    let former = [FormerRoot::new(root("a"), now), FormerRoot::new(root("b"), now + 3 * GRAIN)];
    assert!(former[0].until >= now && former[0].until < now + GRAIN);
    let text = FormerRoot::to_text(&former);
    assert_eq!(FormerRoot::from_text(&text).unwrap(), former);
    assert!(FormerRoot::from_text("[]").unwrap().is_empty());
    let long = "x".repeat(MAX_FILE_BYTES as usize + 1);
    for wrong in ["", "{}", r#"[{"root": "x", "until": 1}]"#, r#"[{"root": "x"}]"#, &long] {
        FormerRoot::from_text(wrong).expect_err(&wrong[..wrong.len().min(40)]);
    }
    FormerRoot::from_text(&text.replace("until", "other")).expect_err("a field that nobody knows");
}

#[test]
fn each_root_is_kept_for_the_longest_that_anybody_needs_it() {
    let now = SystemTime::now();
    let (a, b, ended) = (root("a"), root("b"), root("ended"));
    let own = [FormerRoot::new(a.clone(), now + GRAIN), FormerRoot::new(ended, now - 2 * GRAIN)];
    let others = [FormerRoot::new(a.clone(), now + 5 * GRAIN), FormerRoot::new(b.clone(), now + GRAIN)];
    let expected = [FormerRoot::new(a, now + 5 * GRAIN), FormerRoot::new(b, now + GRAIN)];
    assert_eq!(FormerRoot::union(&own, &others, now), expected);
}
