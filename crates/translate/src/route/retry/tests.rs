use super::*;
use std::time::Duration;

#[test]
fn istio_s_default_applies_without_a_policy_and_zero_attempts_turn_it_off() {
    let default = outbound(None, false).unwrap();
    assert_eq!(default.num_retries, Some(2));
    assert_eq!(default.retry_on, DEFAULT_OUTBOUND);
    assert_eq!(default.retry_host_predicate.len(), 1);
    assert!(outbound(None, true).unwrap().retry_host_predicate.is_empty());
    assert_eq!(outbound(Some(&HttpRetry::default()), false), None);
    assert_eq!(inbound(None).unwrap().retry_on, "reset-before-request");
}

#[test]
fn status_codes_are_split_from_conditions() {
    let cases = [
        ("5xx", "5xx", vec![]),
        ("gateway-error, 503,504", "gateway-error,retriable-status-codes", vec![503, 504]),
        ("retriable-status-codes,418", "retriable-status-codes", vec![418]),
        ("999", "999", vec![]),
    ];
    for (list, on, codes) in cases {
        let retry = HttpRetry { attempts: 3, retry_on: list.into(), ..HttpRetry::default() };
        let policy = outbound(Some(&retry), false).unwrap();
        assert_eq!((policy.retry_on.as_str(), policy.retriable_status_codes), (on, codes), "{list}");
        assert_eq!(policy.num_retries, Some(3));
    }
}

#[test]
fn every_field_is_honoured() {
    let retry = HttpRetry {
        attempts: 1,
        per_try_timeout: Some(Duration::from_secs(2)),
        retry_remote_localities: Some(true),
        retry_ignore_previous_hosts: Some(false),
        backoff: Some(Duration::from_millis(30)),
        ..HttpRetry::default()
    };
    let policy = outbound(Some(&retry), false).unwrap();
    assert_eq!(policy.per_try_timeout.unwrap().seconds, 2);
    assert!(policy.retry_priority.is_some());
    assert!(policy.retry_host_predicate.is_empty());
    assert_eq!(policy.retry_back_off.unwrap().base_interval.unwrap().nanos, 30_000_000);
}
