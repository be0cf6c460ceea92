//! Scripted viewers, and peers that follow no protocol.

use bytes::Bytes;

use super::check::{Reader, Stage};
use super::media::Library;
use super::net::{Action, EndId, Speed, World};
use super::scenario::speaks_rtmp;
use super::tls::Tls;
use crate::live::stream::Selection;
use crate::media::amf0::Value;
use crate::protocol::rtmp::client::PlaySession;
use crate::uring::Millis;

/// How a viewer behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// Takes everything at once, to the end.
    Fast,
    /// Takes less than is sent, or hardly more.
    Slow,
    /// Reads nothing from the first time to the second.
    Stalls(Millis, Millis),
    /// Leaves at that time.
    Leaves(Millis),
    /// Asks for a pause at the first time and to resume at the second; over RTMP.
    Pauses(Millis, Millis),
}

/// How a viewer's connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    ByServer,
    Reset,
    ByItself,
}

/// The peer.
#[derive(Debug)]
pub(super) struct Viewer {
    pub(super) peer: usize,
    pub(super) key: usize,
    /// The number of gateways between it and the origin.
    pub(super) level: usize,
    pub(super) port: u16,
    pub(super) manner: Manner,
    pub(super) gop: bool,
    pub(super) websocket: bool,
    pub(super) reader: Reader,
    /// `None`: it speaks plainly.
    pub(super) tls: Option<Box<Tls>>,
    pub(super) end: Option<EndId>,
    pub(super) asked: Millis,
    pub(super) ended: Option<(Ended, Millis)>,
    pub(super) pings: usize,
    /// An operator has kicked it.
    pub(super) kicked: bool,
}

impl Viewer {
    pub(super) fn on_timer(&mut self, world: &mut World, libraries: &[Library]) {
        if self.ended.is_some() {
            return;
        }
        let Some(end) = self.end else { return self.connect(world, &libraries[self.key].key) };
        match self.manner {
            Manner::Leaves(at) if world.now >= at => {
                if world.rng.chance(500) {
                    world.hang_up(end)
                } else {
                    world.tear(end)
                }
                self.ended = Some((Ended::ByItself, world.now));
                return;
            }
            _ => {}
        }
        self.pause_or_go_on(world);
        if self.websocket && self.reader.stage == Stage::Tags && world.rng.chance(600) {
            self.pings += 1;
            self.say(world, Bytes::from_static(b"\x89\x83\x01\x02\x03\x04\x72\x6b\x6e"));
            let at = world.now + world.rng.range(50, 3_000);
            world.at(at, Action::Timer(self.peer));
        }
        self.on_read(world, libraries);
    }

    fn connect(&mut self, world: &mut World, key: &str) {
        let slow = self.manner == Manner::Slow;
        let speed = if slow {
            let delay = (5, world.rng.range(10, 80));
            Speed { delay, piece: world.rng.size(200, 4_000) }
        } else {
            Speed { delay: (0, world.rng.pick(&[0, 2, 5])), piece: 64 << 10 }
        };
        let in_cap = if slow { 2_000 } else { world.rng.pick(&[8 << 10, 64 << 10]) };
        let end = world.dial(self.peer, self.port, speed, in_cap);
        self.end = Some(end);
        self.asked = world.now;
        if speaks_rtmp(self.port) {
            let option = match (self.reader.selection, self.gop) {
                (Selection::Audio, _) => "?disableVideo=1",
                (Selection::Video, _) => "?disableAudio",
                (_, false) => "?disableGop=1",
                _ => "",
            };
            let session = PlaySession::new("live", "rtmp://sim/live", &format!("{key}{option}"));
            self.reader.rtmp = Some(Box::new(session));
            self.say_rtmp(world);
            return self.plan(world);
        }
        let mut query = Vec::new();
        match self.reader.selection {
            Selection::All => {}
            Selection::Audio => query.push("disableVideo=1"),
            Selection::Video => query.push("disableAudio=1"),
        }
        if !self.gop {
            query.push("disableGop=1");
        }
        let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let upgrade = if self.websocket { upgrade } else { "" };
        let request =
            format!("GET /live/{key}.flv?{} HTTP/1.1\r\nHost: sim\r\n{upgrade}\r\n", query.join("&"));
        world.log(|| {
            format!("viewer {} asks: {:?}", self.peer, (self.manner, self.port, self.tls.is_some(), &request))
        });
        self.say(world, request.into());
        self.plan(world);
    }

    /// Schedules its next wake-up.
    fn plan(&self, world: &mut World) {
        let times = match self.manner {
            Manner::Leaves(at) | Manner::Stalls(_, at) => vec![at],
            Manner::Pauses(from, to) => vec![from, to, to + 500, to + 2_000],
            _ => vec![],
        };
        for at in times.into_iter().filter(|at| *at < Millis::MAX).chain([world.now + 1_000]) {
            world.at(at.max(world.now), Action::Timer(self.peer));
        }
    }

    fn pause_or_go_on(&mut self, world: &mut World) {
        let (Manner::Pauses(from, to), Some(session)) = (self.manner, &mut self.reader.rtmp) else { return };
        let (pauses, goes_on) = (world.now >= from, world.now >= to);
        if self.reader.stage == Stage::Tags && pauses && self.pings < 1 + usize::from(goes_on) {
            self.pings += 1;
            session.command("pause", &[Value::Boolean(self.pings == 1), 0.0.into()]);
            self.say_rtmp(world);
        }
    }

    /// Sends its session's output.
    fn say_rtmp(&mut self, world: &mut World) {
        if let Some(output) = self.reader.rtmp.as_mut().and_then(|session| session.take_output()) {
            self.say(world, output);
        }
    }

    fn say(&mut self, world: &mut World, bytes: Bytes) {
        let Some(end) = self.end else { return };
        let bytes = self.tls.as_mut().map_or(bytes.clone(), |tls| tls.seal(&bytes));
        world.say(end, bytes);
    }

    pub(super) fn on_read(&mut self, world: &mut World, libraries: &[Library]) {
        let Some(end) = self.end.filter(|_| self.ended.is_none()) else { return };
        if let Manner::Stalls(from, to) = self.manner
            && (from..to).contains(&world.now)
            && !world.ends[end].reset
        {
            return;
        }
        let most = world.rng.pick(&[1_000, usize::MAX]);
        let mut reading = world.read(end, most);
        if let Some(tls) = &mut self.tls {
            world.say(end, tls.open(&mut reading.bytes));
        }
        if let Err(fault) = self.reader.take(&reading.bytes, &libraries[self.key], world.now) {
            panic!("viewer {} ({:?}, level {}): {fault}", self.peer, self.manner, self.level);
        }
        self.say_rtmp(world);
        if reading.finished || reading.reset {
            let how = if reading.reset { Ended::Reset } else { Ended::ByServer };
            world.log(|| format!("viewer {} ended: {how:?} {:?}", self.peer, self.reader.stage));
            self.ended = Some((how, world.now));
            world.hang_up(end);
        } else if reading.more {
            world.at(world.now, Action::Read(self.peer));
        }
    }
}

/// A peer that sends invalid data, or an incomplete request, and waits.
#[derive(Debug)]
pub(super) struct Garbage {
    pub(super) peer: usize,
    pub(super) port: u16,
    pub(super) patient: bool,
    pub(super) end: Option<EndId>,
    pub(super) done: bool,
}

impl Garbage {
    pub(super) fn on_timer(&mut self, world: &mut World) {
        if let Some(end) = self.end {
            if !self.patient && !self.done {
                world.tear(end);
                self.done = true;
            }
            return;
        }
        let end = world.dial(self.peer, self.port, Speed { delay: (0, 5), piece: 1_000 }, 4_000);
        self.end = Some(end);
        let mut noise: Vec<u8> =
            (0..world.rng.size(0, 4_000)).map(|_| world.rng.next().to_le_bytes()[0]).collect();
        let fronts: [&[u8]; 6] = [
            b"",
            b"\x03",
            b"GET /live/a.flv HTTP/1.1\r\n",
            b"GET /live/a.flv HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\r\n",
            b"GET /live/../a.flv HTTP/1.0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            b"POST /live/a.flv HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n",
        ];
        noise.splice(0..0, world.rng.pick(&fronts).iter().copied());
        world.say(end, noise.into());
        let at = world.now + world.rng.range(0, 6_000);
        world.at(at, Action::Timer(self.peer));
    }

    pub(super) fn on_read(&mut self, world: &mut World) {
        let Some(end) = self.end.filter(|_| !self.done) else { return };
        let reading = world.read(end, usize::MAX);
        if reading.finished || reading.reset {
            world.hang_up(end);
            self.done = true;
        }
    }
}
