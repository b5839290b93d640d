use super::*;
use proptest::prelude::*;

fn tree(keys: &[&str], ignore_case: bool) -> PrefixTree<Vec<String>> {
    let mut tree = PrefixTree::<Vec<String>>::new(ignore_case);
    for key in keys {
        tree.entry(key).push((*key).to_owned());
    }
    tree
}

fn found(tree: &PrefixTree<Vec<String>>, text: &str) -> Vec<(usize, Vec<String>)> {
    tree.prefixes_of(text.as_bytes()).map(|(length, keys)| (length, keys.clone())).collect()
}

#[test]
fn every_key_that_a_text_begins_with_is_found_shortest_first() {
    let tree = tree(&["/", "/api", "/api/v1", "/apis", "", "/api"], false);
    let check = |text: &str, expected: &[&[&str]]| {
        let lists: Vec<Vec<String>> = found(&tree, text).into_iter().map(|(_, keys)| keys).collect();
        assert_eq!(lists, expected, "{text}");
    };
    check("", &[&[""]]);
    check("x", &[&[""]]);
    check("/ap", &[&[""], &["/"]]);
    check("/api", &[&[""], &["/"], &["/api", "/api"]]);
    check("/api/v1/x", &[&[""], &["/"], &["/api", "/api"], &["/api/v1"]]);
    check("/apis", &[&[""], &["/"], &["/api", "/api"], &["/apis"]]);
    check("/API", &[&[""], &["/"]]);
}

proptest! {
    #[test]
    fn it_finds_what_a_look_at_each_key_finds(
        keys in prop::collection::vec("[abA/é]{0,5}", 0..30),
        text in "[abA/é]{0,8}",
        ignore_case in any::<bool>(),
    ) {
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let begins = |key: &str| text.as_bytes().get(..key.len()).is_some_and(|head| {
            if ignore_case { head.eq_ignore_ascii_case(key.as_bytes()) } else { head == key.as_bytes() }
        });
        let mut expected: Vec<&str> = keys.iter().copied().filter(|key| begins(key)).collect();
        expected.sort_by_key(|key| key.len());
        let found = found(&tree(&keys, ignore_case), &text);
        prop_assert!(found.iter().all(|(length, keys)| keys.iter().all(|key| key.len() == *length)));
        prop_assert!(found.is_sorted_by(|left, right| left.0 < right.0));
        let mut found: Vec<String> = found.into_iter().flat_map(|(_, keys)| keys).collect();
        let mut expected: Vec<String> = expected.into_iter().map(str::to_owned).collect();
        found.sort();
        expected.sort();
        prop_assert_eq!(found, expected);
    }
}
