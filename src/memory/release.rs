//! Returns memory to the system: a separate thread unmaps and punches, so that no loop stalls on gigabytes.
//!
//! One thread serves all arenas. Its queue is bounded by the mappings that a process may have
//! (`vm.max_map_count`): each entry is one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use super::file::Mapping;

/// The stack of the thread, in bytes; it needs little.
const STACK: usize = 64 << 10;

/// Bytes of an arena that wait to be released.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    bytes: AtomicU64,
    /// The threads that released memory.
    #[cfg(test)]
    threads: Mutex<std::collections::HashSet<std::thread::ThreadId>>,
}

impl Leaving {
    /// How many bytes wait.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    #[cfg(test)]
    pub(super) fn threads(&self) -> std::collections::HashSet<std::thread::ThreadId> {
        self.threads.lock().unwrap().clone()
    }
}

struct Queue {
    waiting: Vec<(Mapping, Arc<Leaving>)>,
    /// Whether the thread is running.
    served: bool,
}

static QUEUE: Mutex<Queue> = Mutex::new(Queue { waiting: Vec::new(), served: false });
static FILLED: Condvar = Condvar::new();

fn queue() -> MutexGuard<'static, Queue> {
    QUEUE.lock().expect("no thread panics while it holds this lock")
}

/// Starts the thread, unless it is running or cannot be started.
pub(super) fn start() {
    let mut queue = queue();
    if !queue.served {
        let thread = std::thread::Builder::new().name("memory".to_owned()).stack_size(STACK);
        queue.served = thread.spawn(serve).is_ok();
    }
}

/// Hands memory to the thread; without a thread it is released here.
pub(super) fn release(mapping: Mapping, leaving: &Arc<Leaving>) {
    leaving.bytes.fetch_add(mapping.capacity as u64, Ordering::Relaxed);
    let mut queue = queue();
    if !queue.served {
        drop(queue);
        return finish(mapping, leaving);
    }
    queue.waiting.push((mapping, Arc::clone(leaving)));
    drop(queue);
    FILLED.notify_one();
}

fn serve() {
    loop {
        let mut queue = queue();
        while queue.waiting.is_empty() {
            queue = FILLED.wait(queue).expect("no thread panics while it holds this lock");
        }
        let waiting = std::mem::take(&mut queue.waiting);
        drop(queue);
        waiting.into_iter().for_each(|(mapping, leaving)| finish(mapping, &leaving));
    }
}

fn finish(mapping: Mapping, leaving: &Leaving) {
    let bytes = mapping.capacity as u64;
    drop(mapping);
    #[cfg(test)]
    leaving.threads.lock().unwrap().insert(std::thread::current().id());
    leaving.bytes.fetch_sub(bytes, Ordering::Release);
}
