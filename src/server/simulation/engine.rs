//! The engine of a simulated loop: a thin handle on the [`World`].

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use super::net::{EndId, World};
use crate::memory::Segment;
use crate::uring::files::{Folder, OpenFile};
use crate::uring::{Engine, Event, Millis, Payload, Region, Sock};

/// A loop's engine in the simulation.
#[derive(Clone, Debug)]
pub(super) struct SimEngine {
    pub(super) world: Rc<RefCell<World>>,
    pub(super) at: usize,
}

/// The address of a loop's peer, by the loop's end of the connection.
pub(super) fn address_of(end: EndId) -> SocketAddr {
    let port = u16::try_from(10_000 + end % 50_000).expect("in range");
    (Ipv4Addr::LOCALHOST, port).into()
}

impl Engine for SimEngine {
    type Buf = Vec<u8>;

    fn now(&self) -> Millis {
        self.world.borrow().now
    }

    fn cpu_time(&self) -> Duration {
        let world = self.world.borrow();
        if world.busy { Duration::from_millis(world.now) } else { Duration::ZERO }
    }

    fn connect(&mut self, to: SocketAddr) -> Result<Sock, Errno> {
        let mut world = self.world.borrow_mut();
        if world.troubled && world.rng.chance(20) {
            return Err(Errno::MFILE);
        }
        Ok(world.connect(self.at, to.port()))
    }

    fn send(&mut self, sock: Sock, payload: Payload) {
        self.world.borrow_mut().send(self.at, sock, payload);
    }

    fn poll_writable(&mut self, sock: Sock) {
        self.world.borrow_mut().poll(self.at, sock);
    }

    fn shutdown_write(&mut self, sock: Sock) {
        self.world.borrow_mut().shutdown(self.at, sock);
    }

    fn close(&mut self, sock: Sock) {
        self.world.borrow_mut().close(self.at, sock);
    }

    fn peer(&self, sock: Sock) -> Option<SocketAddr> {
        let end = self.world.borrow().end_of(self.at, sock)?;
        Some(address_of(end))
    }

    fn hold(&mut self, segment: &Arc<Segment>) -> Region {
        self.world.borrow_mut().hold(self.at, segment)
    }

    fn release(&mut self, region: Region) {
        self.world.borrow_mut().release(self.at, region);
    }

    fn open_file(&mut self, folder: &Arc<Folder>, path: &str, ticket: u64) {
        let result = folder.open_file(path).map(Rc::new);
        self.world.borrow_mut().later(self.at, Event::Opened { ticket, result });
    }

    fn load_file(&mut self, file: &Rc<OpenFile>, from: u64, len: u32, ticket: u64) {
        let mut bytes = vec![0; len as usize];
        let result = file.read_at(from, &mut bytes).map(|len| {
            bytes.truncate(len);
            bytes.into()
        });
        self.world.borrow_mut().later(self.at, Event::Loaded { ticket, result });
    }

    fn queued(&self, _sock: Sock) -> Option<u32> {
        None
    }

    fn set_send_buffer(&mut self, _sock: Sock, _bytes: u32) {}

    fn set_receiving(&mut self, sock: Sock, on: bool) {
        self.world.borrow_mut().set_receiving(self.at, sock, on);
    }

    fn cold_reads(&self) -> u64 {
        0
    }

    fn resume_accept(&mut self, listener: u32) {
        self.world.borrow_mut().resume_accept(self.at, listener);
    }

    fn stop_accept(&mut self) {
        self.world.borrow_mut().stop_accept(self.at);
    }

    fn wait(&mut self, _until: Option<Millis>) {
        self.world.borrow_mut().take_completions(self.at);
    }

    fn next_event(&mut self) -> Option<Event<Vec<u8>>> {
        let mut world = self.world.borrow_mut();
        let event = world.loops[self.at].events.pop_front()?;
        if let Event::Received { sock, data } = &event {
            // As with the real engine, data received before a close may still be delivered after it.
            if let Some(end) = world.end_of(self.at, *sock).filter(|end| !world.ends[*end].closed) {
                world.ends[end].delivered += data.len() as u64;
            }
        }
        world.log(|| match &event {
            Event::Received { sock, data } => format!("loop {} {sock:?} received {}", self.at, data.len()),
            other => format!("loop {} {other:?}", self.at),
        });
        Some(event)
    }
}
