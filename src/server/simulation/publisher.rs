//! A scripted publisher: sessions one after the other, each with its own kind of end.

use std::collections::VecDeque;

use super::media::{Library, Script, Session, Taste};
use super::net::{EndId, Speed, World};
use super::scenario::speaks_rtmp;
use super::speech::Speech;
use crate::media::tag::Tag;
use crate::uring::Millis;

/// How a publisher's session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Going {
    /// With the protocol's own end.
    Clean,
    /// It closes the connection inside a tag.
    HangsUp,
    /// Its connection is reset inside a tag.
    Torn,
    /// It goes silent inside a tag, and stays connected.
    Silent,
}

/// The plan of one session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// Milliseconds; the session lasts at least until that time.
    pub(super) length: Millis,
    pub(super) at_least_until: Millis,
    pub(super) going: Going,
    /// The pause after it, and whether the stream is over by then.
    pub(super) pause: Millis,
    pub(super) last: bool,
}

/// The peer.
#[derive(Debug)]
pub(super) struct Publisher {
    /// Its index among the peers, and its key's among the libraries.
    peer: usize,
    key: usize,
    port: u16,
    taste: Taste,
    plans: VecDeque<Plan>,
    link: Option<Link>,
}

#[derive(Debug)]
struct Link {
    end: EndId,
    session: Speech,
    said: u64,
    /// The session's number, and its tags to come.
    publishing: Option<(usize, VecDeque<(Millis, Tag)>)>,
    gone: bool,
}

impl Publisher {
    pub(super) fn new(peer: usize, key: usize, port: u16, taste: Taste, plans: VecDeque<Plan>) -> Self {
        Self { peer, key, port, taste, plans, link: None }
    }

    pub(super) fn is_done(&self) -> bool {
        self.plans.is_empty() && self.link.is_none()
    }

    pub(super) fn on_timer(&mut self, world: &mut World, libraries: &mut [Library]) {
        let library = &mut libraries[self.key];
        let Some(link) = &mut self.link else {
            if !self.plans.is_empty() {
                self.connect(world, library);
            }
            return;
        };
        let Some((number, tags)) = &mut link.publishing else { return };
        let session = &mut library.sessions[*number];
        let elapsed = world.now - session.began;
        while tags.front().is_some_and(|(due, _)| *due <= elapsed) {
            let (_, tag) = tags.pop_front().expect("looked at");
            link.session.write_tag(&tag, &mut world.rng);
            let output = link.session.take_output().expect("a tag");
            let going = self.plans[0].going;
            let tail = link.session.tail();
            if tags.is_empty() && going != Going::Clean {
                let cut = world.rng.size(1, output.len() - tail - 1);
                world.say(link.end, output.slice(..cut));
            } else {
                link.said += output.len() as u64;
                session.ends.push(link.said - tail as u64);
                world.say(link.end, output);
            }
        }
        match tags.front() {
            Some((due, _)) => {
                // Now and then several tags come together.
                let late = if world.rng.chance(50) { 200 } else { 0 };
                let at = (session.began + due + late).max(world.now);
                world.at(at, super::net::Action::Timer(self.peer));
            }
            None => self.go(world),
        }
    }

    fn connect(&mut self, world: &mut World, library: &Library) {
        let speed = Speed { delay: (0, 5), piece: 4_000 };
        let end = world.dial(self.peer, self.port, speed, 64 << 10);
        world.ends[end].speed = if library.crawls {
            // The largest frame takes longer than a publisher may be silent, but less than four times as long,
            // which is what a server bears without media.
            Speed { delay: (0, 40), piece: 2_000 }
        } else {
            Speed { delay: (0, world.rng.pick(&[1, 5, 10])), piece: world.rng.pick(&[32 << 10, 64 << 10]) }
        };
        let mut session = Speech::new(speaks_rtmp(self.port), &library.key, &mut world.rng);
        let hello = session.take_output().expect("the handshake");
        let said = hello.len() as u64;
        world.say(end, hello);
        self.link = Some(Link { end, session, said, publishing: None, gone: false });
    }

    /// Everything is sent: ends as planned.
    fn go(&mut self, world: &mut World) {
        let Some(link) = self.link.as_mut().filter(|link| !link.gone) else { return };
        link.gone = true;
        let (end, plan) = (link.end, self.plans[0]);
        world.log(|| format!("publisher {} goes: {:?}", self.peer, plan.going));
        match plan.going {
            Going::Clean => {
                link.session.unpublish();
                if let Some(output) = link.session.take_output() {
                    world.say(end, output);
                }
                world.finish(end);
            }
            Going::HangsUp => world.finish(end),
            Going::Torn => {
                world.tear(end);
                self.next(world);
            }
            Going::Silent => {}
        }
    }

    /// The session is over: the next one begins after the pause.
    fn next(&mut self, world: &mut World) {
        self.link = None;
        let plan = self.plans.pop_front().expect("the session was under way");
        let at = world.now + plan.pause;
        world.at(at, super::net::Action::Timer(self.peer));
    }

    pub(super) fn on_read(&mut self, world: &mut World, libraries: &mut [Library]) {
        let Some(link) = &mut self.link else { return };
        let reading = world.read(link.end, usize::MAX);
        let refused = link.session.input(&reading.bytes).is_err();
        if let Some(output) = link.session.take_output() {
            link.said += output.len() as u64;
            world.say(link.end, output);
        }
        if refused && !link.gone || (link.publishing.is_none() && (reading.finished || reading.reset)) {
            // The previous session still has the name: try again.
            world.log(|| format!("publisher {} was refused", self.peer));
            world.hang_up(link.end);
            self.link = None;
            let at = world.now + 300;
            world.at(at, super::net::Action::Timer(self.peer));
        } else if reading.finished || reading.reset {
            assert!(link.gone, "the server closed a publisher that did nothing wrong");
            world.hang_up(link.end);
            self.next(world);
        } else if link.session.is_publishing() && link.publishing.is_none() {
            self.begin(world, &mut libraries[self.key]);
        }
    }

    fn begin(&mut self, world: &mut World, library: &mut Library) {
        let link = self.link.as_mut().expect("the caller has checked");
        let plan = self.plans[0];
        let number = library.sessions.len();
        let length = plan.length.max(plan.at_least_until.saturating_sub(world.now));
        let script = Script::new(&mut world.rng, number, library.tracks, &mut library.versions, self.taste);
        let tags = script.write(length);
        library.sessions.push(Session {
            tags: tags.iter().map(|(_, tag)| tag.clone()).collect(),
            ends: Vec::new(),
            end: link.end,
            began: world.now,
            clean: plan.going == Going::Clean,
            last: plan.last,
        });
        link.publishing = Some((number, tags.into()));
        world.log(|| format!("publisher {} begins session {number} of {}", self.peer, library.key));
        world.at(world.now, super::net::Action::Timer(self.peer));
    }
}
