//! What a send to a viewer costs in instructions of our own code, without the kernel's: a fan-out on an engine
//! that accepts every send at once and does nothing with it.
//!
//! As a test it checks that every viewer is sent every byte. `scripts/instructions` runs it under callgrind
//! with two numbers of rounds (`URINGCAST_COST_ROUNDS`) and divides the difference by the number of sends.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::io::Errno;

use super::counters::RoleCounters;
use super::transport::Transports;
use super::viewers::fanout::{Fanout, SLICE};
use super::viewers::viewer::{Framing, Policy, Wish};
use crate::live::cursor::{LagLimits, StartAt};
use crate::live::key::StreamKey;
use crate::live::log::Retention;
use crate::live::stream::{Selection, StreamWriter};
use crate::media::tag::{Tag, TagKind};
use crate::memory::{Arena, Segment};
use crate::uring::files::{Folder, OpenFile};
use crate::uring::{Engine, Event, Millis, Payload, Region, Sock};

const VIEWERS: u32 = 1000;

/// Accepts every send whole.
#[derive(Debug, Default)]
struct Taker {
    now: Millis,
    regions: u32,
    sent: Vec<(u32, u32)>,
    bytes: u64,
}

impl Engine for Taker {
    type Buf = Vec<u8>;

    fn now(&self) -> Millis {
        self.now
    }
    fn cpu_time(&self) -> Duration {
        Duration::ZERO
    }
    fn connect(&mut self, _: SocketAddr) -> Result<Sock, Errno> {
        Err(Errno::NOSYS)
    }
    fn send(&mut self, sock: Sock, payload: Payload) {
        let len = match payload {
            Payload::Region { len, .. } => {
                self.bytes += u64::from(len);
                len
            }
            Payload::Bytes(bytes) => u32::try_from(bytes.len()).unwrap(),
            Payload::File { .. } => 0,
        };
        self.sent.push((sock.index, len));
    }
    fn poll_writable(&mut self, _: Sock) {}
    fn shutdown_write(&mut self, _: Sock) {}
    fn close(&mut self, _: Sock) {}
    fn peer(&self, _: Sock) -> Option<SocketAddr> {
        None
    }
    fn hold(&mut self, _: &Arc<Segment>) -> Region {
        self.regions += 1;
        Region(self.regions)
    }
    fn release(&mut self, _: Region) {}
    fn open_file(&mut self, _: &Arc<Folder>, _: &str, _: u64) {}
    fn load_file(&mut self, _: &Rc<OpenFile>, _: u64, _: u32, _: u64) {}
    fn queued(&self, _: Sock) -> Option<u32> {
        None
    }

    fn set_send_buffer(&mut self, _: Sock, _: u32) {}
    fn set_receiving(&mut self, _: Sock, _: bool) {}
    fn cold_reads(&self) -> u64 {
        0
    }
    fn resume_accept(&mut self, _: u32) {}
    fn stop_accept(&mut self) {}
    fn wait(&mut self, _: Option<Millis>) {}
    fn next_event(&mut self) -> Option<Event<Vec<u8>>> {
        None
    }
}

/// Flushes until nothing is due, and reports every send as complete.
fn serve(fanout: &mut Fanout, net: &mut Transports<Taker>, counters: &[RoleCounters]) {
    while fanout.next_flush().is_some_and(|at| at <= net.now()) || !net.engine().sent.is_empty() {
        for (viewer, len) in std::mem::take(&mut net.engine().sent) {
            fanout.sent(net, viewer, Ok(len), counters);
        }
        fanout.flush(net, counters);
    }
}

#[test]
fn every_viewer_is_sent_every_byte() {
    let rounds =
        std::env::var("URINGCAST_COST_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(50u32);
    let retention = Retention { bytes: 1 << 25, frames: 10_000, gop_time: 60_000, history: 10_000 };
    let key = StreamKey::parse("live/cost").unwrap();
    let mut writer = StreamWriter::new(1, key, 1, Arena::new().unwrap(), retention);
    let frame = |n: u32| {
        let mut body = vec![if n.is_multiple_of(50) { 0x17 } else { 0x27 }, 1, 0, 0, 0];
        body.resize(5000, 7);
        Tag { kind: TagKind::Video, timestamp: n * 40, body: body.into() }
    };
    writer.push(&Tag { kind: TagKind::Video, timestamp: 0, body: vec![0x17, 0, 0, 0, 0, 1].into() }).unwrap();
    writer.push(&frame(0)).unwrap();
    writer.publish();

    let lag = LagLimits { bytes: 1 << 23, time: 10_000 };
    let policy = Policy { flush: Some(0), lag, stall: 20_000 };
    let counters = [RoleCounters::new(metrics::Histogram::noop())];
    let (mut fanout, mut net) = (Fanout::new(SLICE), Transports::new(Taker::default()));
    for index in 0..VIEWERS {
        let wish = Wish {
            selection: Selection::All,
            start: StartAt::Newest,
            framing: Framing::Plain,
            answer: Bytes::new(),
            head_only: false,
            since: 0,
        };
        let sock = Sock { index, generation: 0 };
        let id = fanout.join(0, writer.stream(), (0, policy), sock, wish);
        assert_eq!(id, index);
        fanout.welcome(&mut net, id, &counters);
        serve(&mut fanout, &mut net, &counters);
    }
    for n in 1..=rounds {
        net.engine().now += 40;
        writer.push(&frame(n)).unwrap();
        writer.publish();
        fanout.news(writer.stream().id, net.now());
        serve(&mut fanout, &mut net, &counters);
    }
    let tag = u64::try_from(frame(0).encoded_len()).unwrap();
    assert_eq!(net.engine().bytes, u64::from(VIEWERS) * u64::from(rounds + 1) * tag);
}
