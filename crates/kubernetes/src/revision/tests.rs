use super::*;

fn marks(present: &[(&str, &str)]) -> Marks {
    let mark = |(tag, revision): &(&str, &str)| Mark { tag: (*tag).to_owned(), revision: (*revision).to_owned() };
    let present = present.iter().enumerate().map(|(at, given)| (at.to_string(), mark(given))).collect();
    Marks { present, listing: None, listed: true }
}

/// Of a revision, with tags of webhooks and of services, and the revision of the default validator.
fn names(revision: &str, webhooks: &[(&str, &str)], services: &[(&str, &str)], validator: &str) -> Names {
    let validators = marks(&[("", validator)]);
    Known { webhooks: marks(webhooks), services: marks(services), validators }.names(revision).unwrap()
}

#[test]
fn a_tag_leads_to_the_revision_that_carries_it() {
    let tags = [("stable", "1-26"), ("next", "1-27")];
    for (given, label, expected) in [
        (names("1-26", &tags, &[], ""), Some("stable"), true),
        (names("1-26", &[], &tags, ""), Some("stable"), true),
        (names("1-26", &tags, &[], ""), Some("1-26"), true),
        (names("1-26", &tags, &[], ""), Some("next"), false),
        (names("1-26", &tags, &[], ""), None, true),
        (names("", &[("stable", "default")], &[], ""), Some("stable"), true),
        (names("", &[], &[], ""), Some("default"), true),
        (names("", &tags, &[], ""), Some("stable"), false),
    ] {
        assert_eq!(given.read(label), expected, "{given:?} {label:?}");
    }
}

#[test]
fn of_what_names_no_revision_the_default_one_writes() {
    let moved = [("default", "1-26")];
    for (given, label, expected) in [
        (names("", &[], &[], ""), "", true),
        (names("1-26", &[], &[], ""), "", false),
        (names("1-26", &[], &[], "1-26"), "", true),
        (names("1-26", &moved, &[], ""), "", true),
        (names("1-27", &moved, &[], "1-27"), "", false),
        (names("1-27", &moved, &[], "1-27"), "1-27", true),
        (names("1-27", &moved, &[], "1-27"), "1-26", false),
    ] {
        assert_eq!(given.write(label), expected, "{given:?} {label:?}");
    }
}

#[test]
fn names_are_known_when_all_is_listed_and_a_new_list_takes_tags_away() {
    let mut known = Known::default();
    assert_eq!(known.names("1-26"), None);
    let webhook = || {
        let labels = [(TAG, "stable"), (REVISION, "1-26")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut object = MutatingWebhookConfiguration::default();
        object.metadata.name = Some("istio-revision-tag-stable".to_owned());
        object.metadata.labels = Some(labels.into());
        object
    };
    for event in [Event::Init, Event::InitApply(webhook()), Event::InitDone] {
        known.webhooks.take(event);
    }
    known.services.take(Event::<Service>::InitDone);
    assert_eq!(known.names("1-26"), None, "one of three is not known");
    known.validators.take(Event::<ValidatingWebhookConfiguration>::InitDone);
    assert!(known.names("1-26").unwrap().read(Some("stable")));
    known.webhooks.take(Event::<MutatingWebhookConfiguration>::Init);
    assert!(known.names("1-26").unwrap().read(Some("stable")), "until the list is whole");
    known.webhooks.take(Event::<MutatingWebhookConfiguration>::InitDone);
    assert!(!known.names("1-26").unwrap().read(Some("stable")));
    known.webhooks.take(Event::Apply(webhook()));
    assert!(known.names("1-26").unwrap().read(Some("stable")));
    known.webhooks.take(Event::Delete(webhook()));
    assert!(!known.names("1-26").unwrap().read(Some("stable")));
}
