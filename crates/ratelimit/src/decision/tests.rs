use super::*;
use crate::stats::Stats;

struct Case {
    stats: Stats,
    limit: Limit,
}

const WINDOW: Window = Window { requests: 10, unit: RateLimitUnit::Minute };

fn case(shadow: bool, quota: bool) -> Case {
    let stats = Stats::new();
    let limit = Limit {
        window: Some(WINDOW),
        name: "own".into(),
        replaces: Vec::new(),
        shadow,
        quota,
        stats: stats.limit("shop", ["user"]),
    };
    Case { stats, limit }
}

impl Case {
    fn counted(&self, after: u64, hits: u64) -> Judged<'_> {
        Judged::Counted { limit: &self.limit, window: WINDOW, count: Count { after, hits } }
    }

    fn counts(&self) -> [u64; 4] {
        ["over_limit", "near_limit", "within_limit", "shadow_mode"].map(|name| {
            self.stats
                .registry
                .total(&format!("ratelimit_service_rate_limit_{name}"), &[("domain", "shop"), ("key1", "user")])
        })
    }
}

#[test]
fn hits_are_over_near_or_within_the_limit_each_for_itself() {
    for (after, hits, over, near, within) in [
        (1, 1, 0, 0, 1),
        (8, 1, 0, 0, 1),
        (9, 1, 0, 1, 1),
        (10, 3, 0, 2, 3),
        (11, 1, 1, 0, 0),
        (12, 5, 2, 2, 0),
        (30, 5, 5, 0, 0),
        (10, 0, 0, 0, 0),
    ] {
        let case = case(false, false);
        respond(&[case.counted(after, hits)], 0, false);
        assert_eq!(case.counts(), [over, near, within, 0], "{hits} to {after}");
    }
}

#[test]
fn a_status_says_the_limit_what_remains_and_until_when() {
    let case = case(false, false);
    let response = respond(&[case.counted(4, 1), Judged::Free, Judged::Unlimited], 130, false);
    assert_eq!(response.overall_code, Code::Ok as i32);
    let [counted, free, unlimited] = &response.statuses[..] else { panic!("three statuses") };
    let limit = counted.current_limit.as_ref().expect("a limit");
    assert_eq!((limit.requests_per_unit, limit.unit, &*limit.name), (10, Unit::Minute as i32, "own"));
    assert_eq!((counted.limit_remaining, counted.duration_until_reset.map(|d| d.seconds)), (6, Some(50)));
    assert_eq!((free.limit_remaining, free.current_limit.is_some()), (0, false));
    assert_eq!(unlimited.limit_remaining, u32::MAX);
    assert!(response.response_headers_to_add.is_empty(), "only where asked for");
}

#[test]
fn one_limit_that_is_exceeded_refuses_the_request() {
    let case = case(false, false);
    let response = respond(&[case.counted(1, 1), case.counted(11, 1)], 0, true);
    assert_eq!(response.overall_code, Code::OverLimit as i32);
    assert_eq!(response.statuses[1].limit_remaining, 0);
    let headers: Vec<_> = response.response_headers_to_add.iter().map(|h| (&*h.key, &*h.value)).collect();
    assert_eq!(headers, [("RateLimit-Limit", "10"), ("RateLimit-Remaining", "0"), ("RateLimit-Reset", "60")]);
}

#[test]
fn a_shadow_counts_and_never_refuses() {
    let case = case(true, false);
    let response = respond(&[case.counted(12, 3)], 0, false);
    assert_eq!((response.overall_code, response.statuses[0].code), (Code::Ok as i32, Code::Ok as i32));
    assert_eq!(case.counts(), [2, 1, 0, 2]);
}

#[test]
fn quotas_refuse_when_all_of_them_are_exceeded() {
    let case = case(false, true);
    let code = |afters: [u64; 2]| respond(&afters.map(|after| case.counted(after, 1)), 0, false).overall_code;
    assert_eq!(code([11, 1]), Code::Ok as i32);
    assert_eq!(code([11, 11]), Code::OverLimit as i32);
}
