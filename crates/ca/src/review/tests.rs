use super::*;
use serde_json::{Value, json};
use std::sync::Mutex;

/// An API server that answers one thing and remembers what it was asked.
struct Server {
    answer: Result<Value, String>,
    asked: Mutex<Vec<Value>>,
}

#[tonic::async_trait]
impl Reviews for Server {
    async fn create(&self, review: Zeroizing<String>) -> Result<String, String> {
        self.asked.lock().unwrap().push(serde_json::from_str(&review).unwrap());
        self.answer.clone().map(|answer| answer.to_string())
    }
}

fn answer() -> Value {
    json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {},
        "spec": { "token": "t", "audiences": ["istio-ca"] },
        "status": {
            "authenticated": true,
            "audiences": ["istio-ca"],
            "user": {
                "username": "system:serviceaccount:shop:catalog",
                "uid": "1",
                "groups": ["system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated"],
                "extra": { "authentication.kubernetes.io/pod-name": ["catalog-1"] },
            },
        },
    })
}

async fn judged(answer: Result<Value, String>) -> (Result<ServiceAccount, String>, Vec<Value>) {
    let reviewer = TokenReviewer::new(Server { answer, asked: Mutex::default() });
    let judged = reviewer.judge("t").await.unwrap();
    (judged, reviewer.reviews.asked.into_inner().unwrap())
}

#[tokio::test]
async fn the_api_server_is_asked_for_our_audience_and_its_answer_names_the_account() {
    let (account, asked) = judged(Ok(answer())).await;
    assert_eq!(account.unwrap(), ServiceAccount { namespace: "shop".to_owned(), name: "catalog".to_owned() });
    let expected = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "spec": { "token": "t", "audiences": ["istio-ca"] },
    });
    assert_eq!(asked, [expected]);
}

#[tokio::test]
async fn an_answer_that_does_not_prove_a_service_account_is_a_refusal() {
    for (pointer, value) in [
        ("/status/authenticated", json!(false)),
        ("/status/error", json!("token expired")),
        ("/status/audiences", json!(["https://kubernetes.default.svc"])),
        ("/status/audiences", json!([])),
        ("/status/user/groups", json!(["system:authenticated"])),
        ("/status/user/username", json!("alice")),
        ("/status", json!({})),
    ] {
        let mut changed = answer();
        changed["status"]["error"] = json!("");
        *changed.pointer_mut(pointer).unwrap() = value.clone();
        assert!(judged(Ok(changed)).await.0.is_err(), "{pointer} {value}");
    }
    assert!(judged(Ok(json!("no object"))).await.0.is_err());
    assert_eq!(judged(Err("unreachable".to_owned())).await.0, Err("unreachable".to_owned()));
}
