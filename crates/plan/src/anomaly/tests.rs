use super::*;
use serde_json::json;

fn metadata(value: serde_json::Value) -> Metadata {
    Metadata { filters: [(METADATA.into(), value)].into() }
}

#[test]
fn metadata_asks_for_it() {
    let asked = metadata(json!({"sensitivity": "high", "eject": "true", "policy": "shop/calm"}));
    let found = AnomalyDetection::of(Some(&asked)).unwrap().unwrap();
    assert_eq!(found, AnomalyDetection { sensitivity: Sensitivity::High, eject: true, policy: "shop/calm".into() });
    assert_eq!(AnomalyDetection::of(Some(&Metadata::default())).unwrap(), None);
    for (wrong, path) in [
        (json!({"sensitivity": "hihg", "eject": "true"}), "meltemi.anomaly_detection.sensitivity"),
        (json!({"sensitivity": "low", "eject": true}), "meltemi.anomaly_detection.eject"),
    ] {
        let error = AnomalyDetection::of(Some(&metadata(wrong))).unwrap_err().to_string();
        assert!(error.starts_with(path), "{error}");
    }
}

#[test]
fn a_record_is_taken_once() {
    let record = Record::default();
    record.ended(false);
    record.ended(true);
    record.answered(Duration::from_millis(1));
    record.answered(Duration::from_nanos(1));
    let taken = record.take();
    let ln = 1000f64.ln();
    assert_eq!((taken.requests, taken.errors, taken.answers), (2, 1, 2));
    assert!((taken.logs - ln).abs() < 1e-3 && (taken.squares - ln * ln).abs() < 1e-3, "{taken:?}");
    assert_eq!(record.take(), Sample::default());
}
