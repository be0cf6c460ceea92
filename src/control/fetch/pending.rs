//! The files that are to be fetched, and the loops whose clients wait for them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::protocol::http::RelPath;
use crate::server::files::proxy::Wanted;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Pending {
    files: RefCell<HashMap<RelPath, Fetch>>,
}

#[derive(Debug, Default)]
struct Fetch {
    /// The loops that are told, each once.
    loops: Vec<usize>,
    /// One for each loop with clients that wait.
    wanted: Vec<Wanted>,
    /// It is fetched although no client waits: an old version is being served meanwhile.
    unasked: bool,
    running: bool,
}

impl Fetch {
    /// Whether a client waits. The calling task is woken when one of those who wait now does not any more.
    fn poll_unwanted(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.wanted.retain_mut(|wanted| Pin::new(wanted).poll(context).is_pending());
        if self.wanted.is_empty() && !self.unasked { Poll::Ready(()) } else { Poll::Pending }
    }

    fn is_wanted(&mut self) -> bool {
        use tokio::sync::oneshot::error::TryRecvError;
        self.wanted.retain_mut(|wanted| wanted.try_recv() == Err(TryRecvError::Empty));
        !self.wanted.is_empty() || self.unasked
    }
}

impl Pending {
    /// A loop wants a file. `true`: it was not wanted before.
    pub(super) fn add(&self, path: &RelPath, at: usize, wanted: Option<Wanted>) -> bool {
        let mut files = self.files.borrow_mut();
        let is_new = !files.contains_key(path);
        let fetch = files.entry(path.clone()).or_default();
        if !fetch.loops.contains(&at) {
            fetch.loops.push(at);
        }
        fetch.unasked |= wanted.is_none();
        fetch.wanted.extend(wanted);
        is_new
    }

    /// Whether a file waits for its turn.
    pub(super) fn is_queued(&self, path: &RelPath) -> bool {
        self.files.borrow().get(path).is_some_and(|fetch| !fetch.running)
    }

    /// Whether a file waits for its turn and a client for it; if none does it is forgotten.
    pub(super) fn is_due(&self, path: &RelPath) -> bool {
        let mut files = self.files.borrow_mut();
        let Some(fetch) = files.get_mut(path).filter(|fetch| !fetch.running) else { return false };
        let wanted = fetch.is_wanted();
        if !wanted {
            files.remove(path);
        }
        wanted
    }

    /// A fetch begins.
    pub(super) fn start(&self, path: &RelPath) {
        let mut files = self.files.borrow_mut();
        let fetch = files.get_mut(path).expect("only what is wanted is begun");
        assert!(!std::mem::replace(&mut fetch.running, true), "a file is fetched once at a time");
    }

    /// A fetch was given up. `true`: it has become wanted again meanwhile, and waits for its turn.
    pub(super) fn give_up(&self, path: &RelPath) -> bool {
        let mut files = self.files.borrow_mut();
        let fetch = files.get_mut(path).expect("a fetch stays until its end");
        fetch.running = false;
        let wanted = fetch.is_wanted();
        if !wanted {
            files.remove(path);
        }
        wanted
    }

    /// A file is wanted no more; gives the loops that are to be told what became of it.
    pub(super) fn end(&self, path: &RelPath) -> Vec<usize> {
        self.files.borrow_mut().remove(path).map_or_else(Vec::new, |fetch| fetch.loops)
    }
}

/// Those who wait for one fetch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Askers<'a> {
    pub(super) pending: &'a Pending,
    pub(super) path: &'a RelPath,
}

impl Askers<'_> {
    /// Waits until no client waits any more.
    pub(super) async fn gone(&self) {
        poll_fn(|context| {
            let mut files = self.pending.files.borrow_mut();
            files.get_mut(self.path).map_or(Poll::Ready(()), |fetch| fetch.poll_unwanted(context))
        })
        .await;
    }

    /// Whether a client waits.
    pub(super) fn are_there(&self) -> bool {
        self.pending.files.borrow_mut().get_mut(self.path).is_some_and(Fetch::is_wanted)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot::channel;

    use super::*;

    fn path(name: &str) -> RelPath {
        RelPath::parse(name).unwrap()
    }

    #[test]
    fn an_order_goes_with_those_who_wait() {
        let (pending, file) = (Pending::default(), path("/a"));
        let (first, wanted) = channel();
        assert!(pending.add(&file, 0, Some(wanted)));
        let (second, wanted) = channel();
        assert!(!pending.add(&file, 1, Some(wanted)));
        drop(first);
        assert!(pending.is_due(&file) && pending.is_queued(&file));
        drop(second);
        assert!(!pending.is_due(&file) && !pending.is_queued(&file));
        assert!(pending.files.borrow().is_empty());
        // Nobody waits for a newer version of what is served meanwhile.
        assert!(pending.add(&file, 3, None) && !pending.add(&file, 3, None));
        assert!(pending.is_due(&file));
        pending.start(&file);
        assert!(!pending.is_due(&file), "it is under way");
        assert_eq!(pending.end(&file), [3]);
    }

    #[tokio::test]
    async fn a_fetch_hears_when_the_last_one_has_gone() {
        let (pending, file) = (Pending::default(), path("/a"));
        let (first, wanted) = channel();
        pending.add(&file, 0, Some(wanted));
        pending.start(&file);
        let askers = Askers { pending: &pending, path: &file };
        let (second, wanted) = channel();
        let others = async {
            tokio::task::yield_now().await;
            pending.add(&file, 1, Some(wanted));
            drop(first);
            tokio::task::yield_now().await;
            assert!(askers.are_there());
            drop(second);
        };
        tokio::join!(askers.gone(), others);
        assert!(!askers.are_there());
        let (_third, wanted) = channel();
        pending.add(&file, 1, Some(wanted));
        assert!(pending.give_up(&file), "it has become wanted again");
        assert!(pending.is_queued(&file) && pending.is_due(&file));
    }
}
