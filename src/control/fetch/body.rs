//! A file's body on its way from an upstream into the cache's folder.
//!
//! A whole body may take long. It is given up when nothing comes for a while or too little, and some time after the
//! last client that waited for it has gone: not at once, because a client that was told to ask again soon does so, and
//! because most of what has begun to come is there within that time.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use rustix::fs::{Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};

use super::error::{FetchError, UpstreamError};
use super::pending::Askers;
use super::room::Room;
use super::upstream::{Begun, Upstream};
use crate::control::client::ClientError;

/// How long an upstream may say nothing in the middle of a body.
const SILENCE: Duration = Duration::from_secs(10);
/// So many bytes have to come within [`PACE_TIME`].
const PACE_BYTES: u64 = 256 << 10;
const PACE_TIME: Duration = Duration::from_secs(30);
/// How long a body is fetched on that no client waits for any more.
const UNWANTED: Duration = Duration::from_secs(20);

const KEEP_TIME: Timespec = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
/// Leaves a file's time of change as it is, and sets its inode's to now.
pub(super) const KEEP: Timestamps =
    Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_NOW }, last_modification: KEEP_TIME };

/// Writes the whole body of an answer to a file and gives its length.
pub(super) async fn write_to(
    file: &tokio_uring::fs::File,
    (upstream, begun): (&Upstream, Begun),
    limit: u64,
    room: &mut Room<'_>,
    askers: Askers<'_>,
) -> Result<u64, FetchError> {
    let mut body = begun.into_body();
    let mut patience = Patience::new(Instant::now());
    let mut at = 0;
    while let Some(piece) = upstream.note(read(&mut body, &mut patience, askers).await)? {
        patience.came(piece.len(), Instant::now(), || askers.are_there())?;
        let end = at + piece.len() as u64;
        if end > limit {
            return Err(FetchError::TooLarge { limit });
        }
        room.cover(end).await?;
        let (written, _) = file.write_all_at(piece, at).await;
        written?;
        at = end;
    }
    Ok(at)
}

/// The next bytes, and when no client waits for them any more, that is noted; `None`: the body is complete.
async fn read(
    body: &mut Incoming,
    patience: &mut Patience,
    askers: Askers<'_>,
) -> Result<Option<Bytes>, UpstreamError> {
    let reading = async {
        loop {
            tokio::select! {
                frame = body.frame() => match frame.transpose() {
                    Ok(Some(frame)) => match frame.into_data() {
                        Ok(bytes) if !bytes.is_empty() => return Ok(Some(bytes)),
                        Ok(_) | Err(_) => {} // trailers
                    },
                    Ok(None) => return Ok(None),
                    Err(error) => return Err(ClientError::from(error)),
                },
                () = askers.gone(), if !patience.is_unwanted() => patience.unwanted(Instant::now()),
            }
        }
    };
    let read = tokio::time::timeout(SILENCE, reading).await;
    Ok(read.map_err(|_| UpstreamError::Silent(SILENCE))??)
}

/// When a body is given up although it still comes.
#[derive(Debug)]
struct Patience {
    since: Instant,
    bytes: u64,
    /// When the last client that waited has gone.
    unwanted: Option<Instant>,
}

impl Patience {
    fn new(now: Instant) -> Self {
        Self { since: now, bytes: 0, unwanted: None }
    }

    fn is_unwanted(&self) -> bool {
        self.unwanted.is_some()
    }

    fn unwanted(&mut self, now: Instant) {
        self.unwanted = Some(now);
    }

    /// So many bytes have come. `is_wanted`: whether clients wait, if it was not so before.
    fn came(&mut self, len: usize, now: Instant, is_wanted: impl FnOnce() -> bool) -> Result<(), FetchError> {
        self.bytes += len as u64;
        if now.duration_since(self.since) >= PACE_TIME {
            if self.bytes < PACE_BYTES {
                return Err(UpstreamError::TooSlow(PACE_BYTES, PACE_TIME).into());
            }
            (self.since, self.bytes) = (now, 0);
        }
        if self.unwanted.is_some_and(|since| now.duration_since(since) >= UNWANTED) {
            if !is_wanted() {
                return Err(FetchError::Unwanted);
            }
            self.unwanted = None;
        }
        Ok(())
    }
}

/// The time of change that a fetched file gets: its upstream's, with nanoseconds that tell versions of one second
/// apart, the same on every gateway that fetched this version.
pub(super) fn times(modified: u64, etag: Option<&str>) -> Timestamps {
    // FNV-1a: any mixing will do, but it must be the same everywhere.
    let mix = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    let nanos = etag.map_or(0, |etag| etag.bytes().fold(0x811c_9dc5, mix) % 1_000_000_000);
    let modified = i64::try_from(modified).unwrap_or(0);
    Timestamps { last_modification: Timespec { tv_sec: modified, tv_nsec: nanos.into() }, ..KEEP }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_one_second_differ() {
        let nanos = |etag| times(5, etag).last_modification.tv_nsec;
        assert_eq!((nanos(None), times(5, None).last_modification.tv_sec), (0, 5));
        assert_eq!(nanos(Some("\"a\"")), nanos(Some("\"a\"")));
        assert_ne!(nanos(Some("\"a\"")), nanos(Some("\"b\"")));
        assert!((0..1_000_000_000).contains(&nanos(Some("\"some-long-tag\""))));
    }

    #[test]
    fn a_body_may_take_long_and_not_crawl() {
        let start = Instant::now();
        let enough = usize::try_from(PACE_BYTES).unwrap();
        let mut patience = Patience::new(start);
        for round in 1..100 {
            assert!(patience.came(enough, start + PACE_TIME * round, || false).is_ok());
        }
        let late = patience.came(enough - 1, start + PACE_TIME * 100, || false);
        assert!(matches!(late, Err(FetchError::Upstream(UpstreamError::TooSlow(..)))), "{late:?}");
    }

    #[test]
    fn a_body_that_no_client_waits_for_has_a_short_time() {
        let start = Instant::now();
        let mut patience = Patience::new(start);
        patience.unwanted(start);
        let almost = start + UNWANTED - Duration::from_millis(1);
        assert!(patience.came(1, almost, || false).is_ok());
        assert!(patience.came(1, start + UNWANTED, || true).is_ok() && !patience.is_unwanted());
        patience.unwanted(start + UNWANTED);
        let enough = usize::try_from(PACE_BYTES).unwrap();
        let late = patience.came(enough, start + UNWANTED * 2, || false);
        assert!(matches!(late, Err(FetchError::Unwanted)), "{late:?}");
    }
}
