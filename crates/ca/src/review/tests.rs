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

fn reviewer(answer: Result<Value, String>) -> TokenReviewer<Server> {
    TokenReviewer::new(Server { answer, asked: Mutex::default() }, vec!["istio-ca".to_owned()])
}

async fn judged(answer: Result<Value, String>) -> (Result<ServiceAccount, TokenRefusal>, Vec<Value>) {
    let reviewer = reviewer(answer);
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
        assert!(matches!(judged(Ok(changed)).await.0, Err(TokenRefusal::Refused(_))), "{pointer} {value}");
    }
}

#[tokio::test]
async fn without_an_answer_nobody_is_proven_and_the_caller_may_try_again() {
    assert!(matches!(judged(Ok(json!("no object"))).await.0, Err(TokenRefusal::Unavailable(_))));
    let (refusal, _) = judged(Err("unreachable".to_owned())).await;
    assert_eq!(refusal, Err(TokenRefusal::Unavailable("unreachable".to_owned())));
    let status = tonic::Status::from(crate::AuthError::from(refusal.unwrap_err()));
    assert_eq!(status.code(), tonic::Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_token_is_reviewed_once_in_a_while_and_a_refused_one_each_time() {
    let good = reviewer(Ok(answer()));
    for (wait, reviews) in [(0, 1), (9, 1), (2, 2)] {
        tokio::time::advance(Duration::from_secs(wait)).await;
        good.judge("t").await.unwrap().unwrap();
        assert_eq!(good.reviews.asked.lock().unwrap().len(), reviews, "after {wait} s");
    }
    good.judge("another").await.unwrap().unwrap();
    assert_eq!(good.reviews.asked.lock().unwrap().len(), 3);
    let bad = reviewer(Ok(json!({ "status": { "authenticated": false } })));
    for _ in 0..2 {
        bad.judge("t").await.unwrap().unwrap_err();
    }
    assert_eq!(bad.reviews.asked.lock().unwrap().len(), 2);
}

/// An API server that never answers.
struct Silence;

#[tonic::async_trait]
impl Reviews for Silence {
    async fn create(&self, _: Zeroizing<String>) -> Result<String, String> {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_keeps_nobody_waiting_for_long() {
    let reviewer = TokenReviewer::new(Silence, Vec::new());
    let began = Instant::now();
    assert!(matches!(reviewer.judge("t").await.unwrap(), Err(TokenRefusal::Unavailable(_))));
    assert_eq!(began.elapsed(), PATIENCE);
}
