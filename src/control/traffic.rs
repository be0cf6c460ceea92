//! What goes through: a log line every ten seconds, and each stream's bit rate.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tracing::info;

use super::Control;
use crate::server::counters::Counter;
use crate::server::shared::{RoleState, Shared};

/// How often bit rates are measured.
const SAMPLE: Duration = Duration::from_secs(2);
/// Samples to a log line.
const SAMPLES_A_LINE: u32 = 5;

/// Measures for ever.
pub(super) async fn watch(control: Rc<Control>) {
    let shared = &control.server.shared;
    let mut rates = Rates::default();
    let mut last = totals(shared);
    let mut since = Instant::now();
    for sample in 1u32.. {
        tokio::time::sleep(SAMPLE).await;
        shared.roles.iter().for_each(|role| rates.sample(role));
        rates.forget_the_gone();
        if sample % SAMPLES_A_LINE == 0 {
            let now = totals(shared);
            log_line(shared, &last, &now, since.elapsed());
            (last, since) = (now, Instant::now());
        }
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

/// The byte counts of the streams at the last sample.
#[derive(Debug, Default)]
struct Rates {
    seen: HashMap<u64, (u64, Instant, bool)>,
}

impl Rates {
    fn sample(&mut self, role: &RoleState) {
        let now = Instant::now();
        for (stream, _) in role.directory.list() {
            let bytes = stream.bytes_in.load(Ordering::Relaxed);
            let before = self.seen.insert(stream.id, (bytes, now, true));
            if let Some((old, since, _)) = before {
                let millis = u64::try_from((now - since).as_millis()).unwrap_or(u64::MAX).max(1);
                stream.bitrate.store((bytes - old) * 8 * 1000 / millis, Ordering::Relaxed);
            }
        }
    }

    fn forget_the_gone(&mut self) {
        self.seen.retain(|_, (_, _, there)| std::mem::replace(there, false));
    }
}
