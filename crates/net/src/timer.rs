//! A deadline that is moved often and reached rarely.
//!
//! Owned by one task. Moving it later costs nothing: the timer that is armed fires, sees that it is early and is armed again.
//! So a keep-alive connection with a 15 s route timeout touches tokio's timer once in 15 s, not once a request.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::time::{Instant, Sleep};

#[derive(Default)]
pub struct Deadline {
    sleep: Option<Pin<Box<Sleep>>>,
    due: Option<Instant>,
    /// Whom the armed timer wakes.
    waker: Option<Waker>,
}

impl Deadline {
    pub const fn new() -> Self {
        Self { sleep: None, due: None, waker: None }
    }

    pub fn set(&mut self, due: Option<Instant>) {
        self.due = due;
    }

    pub fn set_after(&mut self, now: Instant, delay: Option<Duration>) {
        self.due = delay.and_then(|delay| now.checked_add(delay));
    }

    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Ready once the deadline has passed; it stays ready until it is set again. Never ready without a deadline.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(due) = self.due else { return Poll::Pending };
        if self.is_armed_for(due, cx.waker()) {
            return Poll::Pending;
        }
        self.waker = Some(cx.waker().clone());
        loop {
            let sleep = match &mut self.sleep {
                Some(sleep) => {
                    if sleep.deadline() > due || sleep.is_elapsed() && sleep.deadline() < due {
                        sleep.as_mut().reset(due);
                    }
                    sleep
                }
                None => self.sleep.insert(Box::pin(tokio::time::sleep_until(due))),
            };
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if sleep.deadline() >= due {
                return Poll::Ready(());
            }
        }
    }

    /// A timer is running that will wake this task at `due` or before: most polls are for another reason, and asking the timer
    /// again would take 120 instructions.
    fn is_armed_for(&self, due: Instant, waker: &Waker) -> bool {
        let runs = self.sleep.as_ref().is_some_and(|sleep| sleep.deadline() <= due && !sleep.is_elapsed());
        runs && self.waker.as_ref().is_some_and(|known| known.will_wake(waker))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn a_deadline_moved_later_is_reached_later_and_moved_earlier_earlier() {
        let start = Instant::now();
        let mut deadline = Deadline::new();
        let (short, long) = (Duration::from_millis(20), Duration::from_millis(60));
        deadline.set(Some(start + short));
        assert!(poll_fn(|cx| Poll::Ready(deadline.poll(cx))).await.is_pending());
        deadline.set(Some(start + long));
        poll_fn(|cx| deadline.poll(cx)).await;
        assert!(start.elapsed() >= long);
        deadline.set(Some(start + Duration::from_secs(100)));
        assert!(poll_fn(|cx| Poll::Ready(deadline.poll(cx))).await.is_pending());
        deadline.set(Some(start + long + short));
        poll_fn(|cx| deadline.poll(cx)).await;
        assert!(start.elapsed() >= long + short && start.elapsed() < Duration::from_secs(50));
    }
}
