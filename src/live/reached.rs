//! One reader's wait for a log to grow; `waiters` explains why no wake-up is lost.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::log::Log;
use super::waiters::Mark;

/// Waits until a log reaches a mark or ends. Dropping it cancels the wait.
#[derive(Debug)]
pub struct Reached {
    log: Arc<Log>,
    mark: Mark,
    id: Option<u64>,
}

impl Reached {
    /// Waits until `log` reaches `mark`.
    pub fn new(log: Arc<Log>, mark: Mark) -> Self {
        Self { log, mark, id: None }
    }

    fn is_due(&self) -> bool {
        let mark = self.mark;
        // The head first: loading it makes the other two visible.
        let head = self.log.head();
        head >= mark.head
            || self.log.head_time() >= mark.time
            || (mark.start < head
                && self.log.index().newest_start(head, false).is_some_and(|last| last.at >= mark.start))
    }
}

impl Future for Reached {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.is_due() {
            return Poll::Ready(());
        }
        self.id = self.log.waiters().enter(self.id, self.mark, context.waker());
        // The mark may have been reached after the check above and before it was entered.
        if self.id.is_none() || self.is_due() { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Reached {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.log.waiters().leave(id);
        }
    }
}
