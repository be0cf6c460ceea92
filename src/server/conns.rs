//! The connections of a loop, indexed by the places of their sockets.

use super::conn::Conn;
use crate::uring::Sock;

/// The connection table; see the module.
#[derive(Debug, Default)]
pub(super) struct Conns {
    places: Vec<Option<Conn>>,
    open: usize,
    /// Where the next search for an idle connection starts.
    hand: usize,
}

impl Conns {
    /// The number of open connections.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// Adds a new connection.
    pub(super) fn add(&mut self, conn: Conn) {
        let place = conn.head.sock.index as usize;
        if self.places.len() <= place {
            self.places.resize_with(place + 1, || None);
        }
        assert!(self.places[place].is_none(), "a socket's name is free before it is used again");
        self.places[place] = Some(conn);
        self.open += 1;
    }

    /// The connection with this socket name, if it is in the table.
    pub(super) fn get(&self, sock: Sock) -> Option<&Conn> {
        self.places.get(sock.index as usize)?.as_ref().filter(|conn| conn.head.sock == sock)
    }

    /// Takes a connection out of the table for a handler; [`Conns::put_back`] or [`Conns::closed`] follows.
    pub(super) fn take(&mut self, sock: Sock) -> Option<Conn> {
        self.get(sock)?;
        self.places[sock.index as usize].take()
    }

    /// Puts a connection back after its handler has returned.
    pub(super) fn put_back(&mut self, conn: Conn) {
        let place = conn.head.sock.index as usize;
        debug_assert!(self.places[place].is_none(), "it was taken out");
        self.places[place] = Some(conn);
    }

    /// Counts a connection that was taken out as ended.
    pub(super) fn closed(&mut self) {
        self.open -= 1;
    }

    /// The name of the socket at a place.
    pub(super) fn at(&self, place: u32) -> Option<Sock> {
        self.places.get(place as usize)?.as_ref().map(|conn| conn.head.sock)
    }

    /// All connections.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Conn> {
        self.places.iter().flatten()
    }

    /// A connection for which `is_idle` holds. The search is bounded and continues where the last one ended.
    pub(super) fn find_idle(&mut self, is_idle: impl Fn(&Conn) -> bool) -> Option<Sock> {
        const STEPS: usize = 256;
        for _ in 0..STEPS.min(self.places.len()) {
            self.hand = (self.hand + 1) % self.places.len();
            if let Some(conn) = self.places[self.hand].as_ref().filter(|conn| is_idle(conn)) {
                return Some(conn.head.sock);
            }
        }
        None
    }
}
