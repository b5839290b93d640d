use std::time::Duration;

use super::*;

const CONFIG: plan::TokenBucket =
    plan::TokenBucket { max_tokens: 1, tokens_per_fill: 1, fill_interval: Duration::from_secs(60) };

fn values(most: usize, now: Instant) -> Values {
    let entries = vec![("user".into(), "".into()), ("rule".into(), "a".into())];
    match Buckets::new(&LocalDescriptor { entries, bucket: CONFIG }, most, now) {
        Buckets::ForEach(values) => values,
        Buckets::One(_) => panic!("an empty value stands for each"),
    }
}

fn descriptor(user: &str) -> Descriptor {
    vec![("user".into(), user.to_owned()), ("rule".into(), "a".to_owned())]
}

#[test]
fn each_value_has_its_bucket() {
    let now = Instant::now();
    let values = values(8, now);
    let take = |user: &str| values.bucket(&descriptor(user), CONFIG, now).take(now);
    assert_eq!(["ann", "ann", "bob", "bob", ""].map(take), [true, false, true, false, true]);
}

#[test]
fn the_least_recently_used_gives_way() {
    let now = Instant::now();
    let values = values(2, now);
    let take = |user: &str| values.bucket(&descriptor(user), CONFIG, now).take(now);
    assert_eq!(["ann", "bob", "ann"].map(take), [true, true, false]);
    assert_eq!(["eve", "ann", "bob"].map(take), [true, false, true], "bob was forgotten, ann was not");
    for user in 0..1000 {
        take(&user.to_string());
    }
    let recent = values.recent.lock();
    assert_eq!((recent.buckets.len(), recent.by_use.len()), (2, 2));
}
