//! What goes through: a log line every ten seconds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::info;

use crate::server::counters::Counter;
use crate::server::shared::Shared;

/// How often there is a line.
const LINE: Duration = Duration::from_secs(10);

/// Writes the lines, for ever.
pub(super) async fn watch(shared: Arc<Shared>) {
    let (mut last, mut since) = (totals(&shared), Instant::now());
    loop {
        tokio::time::sleep(LINE).await;
        let now = totals(&shared);
        log_line(&shared, &last, &now, since.elapsed());
        (last, since) = (now, Instant::now());
    }
}

/// Bytes in and out, and who is online, of a role.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    received: u64,
    sent: u64,
    viewers: u64,
    sources: u64,
}

fn totals(shared: &Shared) -> Vec<Totals> {
    (0..shared.roles.len())
        .map(|role| {
            shared.counters.iter().map(|counters| &counters[role]).fold(Totals::default(), |sum, own| {
                Totals {
                    received: sum.received + own.bytes_in.get(),
                    sent: sum.sent + own.bytes_out.iter().map(Counter::get).sum::<u64>(),
                    viewers: sum.viewers + own.viewers.iter().map(Counter::get).sum::<u64>(),
                    sources: sum.sources + own.publishers.get() + own.pulls.get(),
                }
            })
        })
        .collect()
}

fn log_line(shared: &Shared, last: &[Totals], now: &[Totals], over: Duration) {
    let millis = u64::try_from(over.as_millis()).unwrap_or(u64::MAX).max(1);
    for ((role, last), now) in shared.roles.iter().zip(last).zip(now) {
        let kbit = |before: u64, after: u64| (after - before) * 8 / millis;
        info!(
            role = role.name,
            streams = role.directory.len(),
            sources = now.sources,
            viewers = now.viewers,
            in_kbps = kbit(last.received, now.received),
            out_kbps = kbit(last.sent, now.sent),
            "traffic"
        );
    }
}
