//! Makes the listings of streams and of recordings while they are requested.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::server::listing::{Listed, Listing};
use crate::server::shared::{Message, Shared};
use crate::server::streams_json;

/// Starts a task for each listing.
pub(super) fn start(shared: &Arc<Shared>) {
    tokio_uring::spawn(keep_streams(Arc::clone(shared)));
    for role in 0..shared.roles.len() {
        tokio_uring::spawn(keep_recordings(Arc::clone(shared), role));
    }
}

/// The listing of streams, for this thread: made now if there is none that is fresh enough.
pub(super) fn streams(shared: &Shared) -> Bytes {
    shared.listing.young(shared.now()).unwrap_or_else(|| make_streams(shared)).whole()
}

fn make_streams(shared: &Shared) -> Listed {
    let now = shared.now();
    let listed = streams_json(shared);
    shared.listing.store(now, listed.clone());
    listed
}

async fn keep_streams(shared: Arc<Shared>) {
    loop {
        until_due(&shared, &shared.listing).await;
        make_streams(&shared);
        shared.tell_all(|| Message::Listed);
    }
}

async fn keep_recordings(shared: Arc<Shared>, role: usize) {
    let Some(site) = &shared.roles[role].files else { return };
    loop {
        until_due(&shared, site.recordings()).await;
        let all = Arc::clone(&shared);
        // Walking a folder may take long.
        let walk = tokio::task::spawn_blocking(move || {
            all.roles[role].files.as_ref().inspect(|site| site.list_recordings(all.now()));
        });
        let _ = walk.await;
        shared.tell_all(|| Message::Listed);
    }
}

/// Waits until a listing is wanted and may be made again.
async fn until_due(shared: &Shared, listing: &Listing) {
    listing.until_wanted().await;
    let rest = listing.rest_left(shared.now());
    if rest > 0 {
        tokio::time::sleep(Duration::from_millis(rest)).await;
    }
}
