//! Cases of our own, in the form of Istio's: what is not in those, or is to hold where they are not at hand. And that nothing depends
//! on the order in which objects come.
#![allow(clippy::unwrap_used, reason = "a test's own helpers may fail the test")]

use meltemi_config::mesh::MeshConfig;
use meltemi_config::{Object, parse_documents};
use meltemi_gateway_api::case::{DOMAIN, Surroundings, conversion_differences, status_differences};
use meltemi_gateway_api::{Catalogue, Settings, convert, statuses};
use proptest::prelude::*;
use std::path::{Path, PathBuf};

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut cases: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    cases
}

fn read(case: &Path, name: &str) -> String {
    std::fs::read_to_string(case.join(name)).unwrap()
}

#[test]
fn our_own_cases_hold() {
    let alone = Surroundings::default();
    for case in cases() {
        let input = read(&case, "input.yaml");
        let problems = parse_documents("input.yaml", &input).into_iter().flat_map(|document| document.check());
        let errors: Vec<_> = problems.filter(|problem| problem.severity == meltemi_config::Severity::Error).collect();
        assert!(errors.is_empty(), "{}: {errors:?}", case.display());
        let mut differences = status_differences(&alone, &input, &read(&case, "expected-status.yaml")).unwrap();
        differences.extend(conversion_differences(&alone, &input, &read(&case, "expected.yaml")).unwrap());
        assert!(differences.is_empty(), "{}:\n{}", case.display(), differences.join("\n"));
    }
}

/// Every object of every case.
fn objects() -> Vec<Object> {
    let documents = cases().into_iter().flat_map(|case| parse_documents("input.yaml", &read(&case, "input.yaml")));
    documents.filter_map(|document| document.object).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_order_of_objects_and_what_was_there_before_do_not_count(
        shuffled in Just(objects()).prop_shuffle(),
        removed in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let settings = Settings::new(DOMAIN, &MeshConfig::default());
        let around = Surroundings::default();
        let mut straight = Catalogue::default();
        for object in objects() {
            straight.take(&object.key(), Some(&object));
        }
        let mut other = Catalogue::default();
        for object in &shuffled {
            other.take(&object.key(), Some(object));
        }
        for index in removed {
            let object = index.get(&shuffled);
            other.take(&object.key(), None);
            other.take(&object.key(), Some(object));
        }
        prop_assert_eq!(convert(&straight, &settings), convert(&other, &settings));
        prop_assert_eq!(statuses(&straight, &settings, &around), statuses(&other, &settings, &around));
    }
}
