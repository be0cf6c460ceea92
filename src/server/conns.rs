//! The connections of a loop, by the places of their sockets.

use super::conn::Conn;
use crate::uring::Sock;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Conns {
    places: Vec<Option<Conn>>,
    open: usize,
    /// Where the search for an idle connection goes on.
    hand: usize,
}

impl Conns {
    /// How many there are.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// Lists a new connection.
    pub(super) fn add(&mut self, conn: Conn) {
        let place = conn.head.sock.index as usize;
        if self.places.len() <= place {
            self.places.resize_with(place + 1, || None);
        }
        assert!(self.places[place].is_none(), "a socket's name is free before it is used again");
        self.places[place] = Some(conn);
        self.open += 1;
    }

    /// A connection, while it is listed under that very name.
    pub(super) fn get(&self, sock: Sock) -> Option<&Conn> {
        self.places.get(sock.index as usize)?.as_ref().filter(|conn| conn.head.sock == sock)
    }

    /// Takes a connection out, for a handler; [`Conns::put_back`] or [`Conns::closed`] follows.
    pub(super) fn take(&mut self, sock: Sock) -> Option<Conn> {
        self.get(sock)?;
        self.places[sock.index as usize].take()
    }

    /// The handler has returned.
    pub(super) fn put_back(&mut self, conn: Conn) {
        let place = conn.head.sock.index as usize;
        debug_assert!(self.places[place].is_none(), "it was taken out");
        self.places[place] = Some(conn);
    }

    /// A connection that was taken out has ended.
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

    /// One of the connections that `is_idle` holds for, after a bounded search that goes on where the last one
    /// ended.
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
