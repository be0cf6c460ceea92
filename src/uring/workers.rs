//! The kernel threads that serve what a ring cannot do without blocking (io-wq). The kernel keeps them for each thread
//! that submits, whatever its rings: one limit holds for all of them.

use io_uring::IoUring;

use super::ring::WORKERS_MAX;

/// Limits the kernel threads of the calling thread, for rings that it has or will have. On failure the kernel's own
/// limit applies: a few for each core, or as many processes as the user may have.
pub fn limit_workers() {
    // The limit outlives this ring.
    let ring = IoUring::new(2);
    let _ = ring.and_then(|ring| ring.submitter().register_iowq_max_workers(&mut [WORKERS_MAX; 2]));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_holds_for_rings_that_are_made_later() {
        let told = std::thread::spawn(|| {
            limit_workers();
            let later = IoUring::new(2).unwrap();
            let mut told = [0; 2]; // zero: tell, and change nothing
            later.submitter().register_iowq_max_workers(&mut told).unwrap();
            told
        });
        assert_eq!(told.join().unwrap(), [WORKERS_MAX; 2]);
    }
}
