//! Connections in TLS: what waits for each socket, sealed and not, and the handshakes under way.
//!
//! A payload is sealed when nothing else of its socket waits, at most [`SEAL_MAX`] bytes at a time, and then
//! counts as taken: what a full socket leaves of the ciphertext is kept here and goes first. So every nonce is
//! used once, and no session has to make the same bytes twice.

use std::collections::{HashMap, VecDeque};
use std::ops::Deref;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use rustix::io::Errno;

use crate::memory::Segment;
use crate::protocol::tls::error::{TlsError, alert};
use crate::protocol::tls::handshake::{Established, Handshake};
use crate::protocol::tls::record::{OVERHEAD_MAX, TEXT_MAX};
use crate::uring::{Engine, Event, FrameHead, Payload, Region, SendError, Sock};

/// The most plaintext that is sealed at a time: three full records.
const SEAL_MAX: usize = 3 * TEXT_MAX;
/// How many handshakes go on in one turn of the loop: each costs about 0.1 ms, and viewers wait meanwhile.
const HANDSHAKES_A_TURN: usize = 8;
/// The most bytes of a handshake that wait for its turn.
const PENDING_MAX: usize = 64 << 10;
/// How many sends are under way at a time; the others wait unsealed. So the buffers for ciphertext are few and stay in
/// the processor's cache, however many viewers a flush serves.
const UNDER_WAY_MAX: usize = 8;
/// The tickets of reads for TLS: those of the file cache are counted up from zero.
const TICKET: u64 = 1 << 63;
/// The first byte of a TLS handshake; no other protocol of a listener begins with it.
const HANDSHAKE: u8 = 22;

/// The stage of a connection.
#[derive(Debug)]
enum Stage {
    /// The first byte tells whether it is TLS.
    Unknown,
    /// `pending` bytes of the peer wait for a turn.
    Shaking {
        handshake: Handshake,
        pending: Vec<u8>,
        is_queued: bool,
        is_client: bool,
    },
    Open(Box<Established>),
    /// It has failed, why; what waits is still sent.
    Failed(TlsError),
}

/// One connection.
#[derive(Debug)]
struct Secure {
    sock: Sock,
    stage: Stage,
    /// Ciphertext that the socket is to take next.
    rest: Bytes,
    /// Ciphertext after it: of handshakes, alerts, key updates.
    control: Vec<u8>,
    /// What the session wants to send.
    queued: Option<Payload>,
    /// How many bytes of a payload the ciphertext under way stands for, until that was reported.
    covers: u32,
    /// A send of the engine is under way.
    sending: bool,
    /// It waits until fewer sends are.
    waits: bool,
    /// A part of a file is being read; this goes in front of it.
    reading: Option<Bytes>,
    /// The engine was asked when the socket has capacity again.
    polling: bool,
    /// The session wants to know that.
    asked: bool,
    /// The socket was full at the last send: one record at a time.
    tight: bool,
    /// The session sends no more.
    finishing: bool,
    /// The peer has said that it sends no more.
    closed: bool,
}

impl Secure {
    fn new(sock: Sock, stage: Stage) -> Self {
        Self {
            sock,
            stage,
            rest: Bytes::new(),
            control: Vec::new(),
            queued: None,
            covers: 0,
            sending: false,
            waits: false,
            reading: None,
            polling: false,
            asked: false,
            tight: false,
            finishing: false,
            closed: false,
        }
    }

    fn held(&self) -> usize {
        let stage = match &self.stage {
            Stage::Shaking { handshake, pending, .. } => handshake.held() + pending.capacity(),
            Stage::Open(open) => size_of::<Established>() + open.opener.held(),
            Stage::Unknown | Stage::Failed(_) => 0,
        };
        size_of::<Self>() + stage + self.rest.len() + self.control.capacity()
    }
}

/// All connections of a loop that are or may become TLS; see the module.
#[derive(Debug)]
pub(super) struct Secures<B> {
    places: Vec<Option<Box<Secure>>>,
    /// The memory of regions, to seal from.
    segments: HashMap<Region, Arc<Segment>>,
    /// What sessions are to be told.
    ready: VecDeque<Event<B>>,
    /// Connections whose handshake can go on.
    shaking: VecDeque<Sock>,
    /// Sends under way, connections that wait to seal, and buffers for them.
    under_way: usize,
    waiting: VecDeque<Sock>,
    scratch: Vec<Vec<u8>>,
    accepts: Option<Arc<rustls::ServerConfig>>,
    /// Handshakes and connections that failed.
    failures: u64,
}

impl<B: Deref<Target = [u8]> + From<Vec<u8>>> Secures<B> {
    pub(super) fn new() -> Self {
        Self {
            places: Vec::new(),
            segments: HashMap::new(),
            ready: VecDeque::new(),
            shaking: VecDeque::new(),
            under_way: 0,
            waiting: VecDeque::new(),
            scratch: Vec::new(),
            accepts: None,
            failures: 0,
        }
    }

    /// The certificates for new connections from now on.
    pub(super) fn accept_with(&mut self, config: Option<Arc<rustls::ServerConfig>>) {
        self.accepts = config;
    }

    /// A socket that was accepted may speak TLS.
    pub(super) fn accepted(&mut self, sock: Sock) {
        if self.accepts.is_some() {
            self.put(Box::new(Secure::new(sock, Stage::Unknown)));
        }
    }

    /// A socket that connects will speak TLS.
    pub(super) fn connecting(&mut self, sock: Sock, handshake: Handshake) {
        let stage = Stage::Shaking { handshake, pending: Vec::new(), is_queued: false, is_client: true };
        self.put(Box::new(Secure::new(sock, stage)));
    }

    /// Whether a connection travels in TLS, or is to.
    pub(super) fn is_secure(&self, sock: Sock) -> bool {
        self.at(sock).is_some_and(|secure| !matches!(secure.stage, Stage::Unknown))
    }

    /// Whether a connection needs this module; the others go to the engine at once.
    pub(super) fn has(&self, sock: Sock) -> bool {
        self.at(sock).is_some()
    }

    fn at(&self, sock: Sock) -> Option<&Secure> {
        self.places.get(sock.index as usize)?.as_deref().filter(|secure| secure.sock == sock)
    }

    fn put(&mut self, secure: Box<Secure>) {
        let place = secure.sock.index as usize;
        if self.places.len() <= place {
            self.places.resize_with(place + 1, || None);
        }
        self.places[place] = Some(secure);
    }

    /// Takes a connection out for `work` and puts it back, unless it turns out to travel plain.
    fn with(&mut self, sock: Sock, work: impl FnOnce(&mut Self, &mut Secure)) {
        if !self.has(sock) {
            return;
        }
        let mut secure = self.places[sock.index as usize].take().expect("asked above");
        work(self, &mut secure);
        self.put(secure);
    }

    /// The socket is being closed: nothing more is sent.
    pub(super) fn forget(&mut self, sock: Sock) {
        if self.has(sock) {
            let secure = self.places[sock.index as usize].take().expect("asked above");
            self.under_way -= usize::from(secure.sending);
        }
    }

    /// Bytes that are held for a connection.
    pub(super) fn held(&self, sock: Sock) -> usize {
        self.at(sock).map_or(0, Secure::held)
    }

    /// What the peer of a connection that has failed did wrong.
    pub(super) fn fault(&self, sock: Sock) -> Option<&TlsError> {
        match &self.at(sock)?.stage {
            Stage::Failed(fault) => Some(fault),
            Stage::Unknown | Stage::Shaking { .. } | Stage::Open(_) => None,
        }
    }

    /// Ciphertext that the socket has not taken.
    pub(super) fn unsent(&self, sock: Sock) -> usize {
        self.at(sock).map_or(0, |secure| secure.rest.len() + secure.control.len())
    }

    /// How many connections have failed since the last call.
    pub(super) fn take_failures(&mut self) -> u64 {
        std::mem::take(&mut self.failures)
    }

    /// A segment's memory is sent from.
    pub(super) fn hold(&mut self, region: Region, segment: &Arc<Segment>) {
        self.segments.insert(region, Arc::clone(segment));
    }

    pub(super) fn release(&mut self, region: Region) {
        self.segments.remove(&region);
    }

    /// Whether there is work that no event of the engine brings.
    pub(super) fn is_ready(&self) -> bool {
        let admits = self.under_way < UNDER_WAY_MAX && !self.waiting.is_empty();
        admits || !self.ready.is_empty() || !self.shaking.is_empty()
    }

    /// The next event for a session that this module has made.
    pub(super) fn next(&mut self) -> Option<Event<B>> {
        self.ready.pop_front()
    }

    /// A session sends before the peer has: the connection travels plain.
    #[inline]
    pub(super) fn is_plain(&mut self, sock: Sock) -> bool {
        if self.places.is_empty() {
            return true; // no connection was ever to speak TLS
        }
        if matches!(self.at(sock), Some(Secure { stage: Stage::Unknown, .. })) {
            self.places[sock.index as usize] = None;
        }
        !self.has(sock)
    }

    /// A session sends.
    pub(super) fn send<E: Engine<Buf = B>>(&mut self, engine: &mut E, sock: Sock, payload: Payload) {
        self.with(sock, |own, secure| {
            debug_assert!(secure.queued.is_none() && secure.covers == 0, "one send at a time");
            if matches!(secure.stage, Stage::Failed(_)) {
                own.ready.push_back(Event::Sent { sock, result: Err(SendError::Broken(Errno::PIPE)) });
                return;
            }
            secure.queued = Some(payload);
            own.drive(engine, secure);
        });
    }

    /// A session wants to know when its socket has capacity again.
    pub(super) fn poll_writable<E: Engine<Buf = B>>(&mut self, engine: &mut E, sock: Sock) {
        self.with(sock, |_, secure| {
            secure.asked = true;
            if !secure.polling && !secure.sending {
                secure.polling = true;
                engine.poll_writable(sock);
            }
        });
    }

    /// A session sends no more.
    pub(super) fn finish<E: Engine<Buf = B>>(&mut self, engine: &mut E, sock: Sock) {
        self.with(sock, |own, secure| {
            if let Stage::Open(open) = &mut secure.stage {
                open.sealer.alert(alert::CLOSE_NOTIFY, &mut secure.control);
            }
            secure.finishing = true;
            own.drive(engine, secure);
        });
    }

    /// An event of the engine, which becomes none, one or several for the session.
    pub(super) fn take<E: Engine<Buf = B>>(&mut self, engine: &mut E, sock: Sock, event: Event<B>) {
        let is_unknown = matches!(self.at(sock), Some(Secure { stage: Stage::Unknown, .. }));
        if let Event::Received { data, .. } = &event
            && is_unknown
            && data.first() != Some(&HANDSHAKE)
        {
            self.places[sock.index as usize] = None;
            return self.ready.push_back(event);
        }
        self.with(sock, |own, secure| match event {
            Event::Received { data, .. } => own.received(engine, secure, &data),
            Event::Sent { result, .. } => own.sent(engine, secure, result),
            Event::Writable { .. } => {
                secure.polling = false;
                own.drive(engine, secure);
            }
            Event::Connected { result: Ok(()), .. } => own.shake(engine, secure),
            Event::Finished { .. } if secure.closed => {}
            other => own.ready.push_back(other),
        });
        self.admit(engine);
    }

    /// Lets connections seal that have waited for others.
    fn admit<E: Engine<Buf = B>>(&mut self, engine: &mut E) {
        while self.under_way < UNDER_WAY_MAX {
            let Some(sock) = self.waiting.pop_front() else { return };
            self.with(sock, |own, secure| {
                secure.waits = false;
                own.drive(engine, secure);
            });
        }
    }

    /// A part of a file was read; `false`: not for this module.
    pub(super) fn loaded<E: Engine<Buf = B>>(
        &mut self,
        engine: &mut E,
        ticket: u64,
        result: &Result<Bytes, Errno>,
    ) -> bool {
        if ticket & TICKET == 0 {
            return false;
        }
        #[expect(clippy::cast_possible_truncation, reason = "as `ticket_of` has packed them")]
        let sock = Sock { index: ticket as u32, generation: (ticket & !TICKET).wrapping_shr(32) as u32 };
        let Some(sock) = self.places.get(sock.index as usize).and_then(|place| {
            let own = place.as_deref()?.sock;
            (own.generation & 0x7fff_ffff == sock.generation).then_some(own)
        }) else {
            return true;
        };
        self.with(sock, |own, secure| {
            let Some(head) = secure.reading.take() else { return };
            match result {
                Ok(bytes) if !bytes.is_empty() => own.seal(secure, [&head, bytes]),
                result => {
                    let error = result.as_ref().err().copied().unwrap_or(Errno::IO);
                    own.ready.push_back(Event::Sent { sock, result: Err(SendError::Broken(error)) });
                }
            }
            own.drive(engine, secure);
        });
        true
    }

    /// Lets some handshakes go on, and sends that have waited for connections that were closed.
    pub(super) fn turn<E: Engine<Buf = B>>(&mut self, engine: &mut E) {
        self.admit(engine);
        for _ in 0..HANDSHAKES_A_TURN {
            let Some(sock) = self.shaking.pop_front() else { return };
            self.with(sock, |own, secure| own.shake(engine, secure));
        }
    }

    fn received<E: Engine<Buf = B>>(&mut self, engine: &mut E, secure: &mut Secure, data: &[u8]) {
        if matches!(secure.stage, Stage::Unknown) {
            let config = self.accepts.as_ref().expect("only then a stage is unknown");
            match Handshake::accept(config) {
                Ok(handshake) => {
                    let pending = Vec::new();
                    secure.stage = Stage::Shaking { handshake, pending, is_queued: false, is_client: false };
                }
                Err(error) => return self.fail(engine, secure, error),
            }
        }
        match &mut secure.stage {
            Stage::Shaking { pending, is_queued, .. } => {
                if pending.len() + data.len() > PENDING_MAX {
                    return self.fail(engine, secure, TlsError::HandshakeTooLong(PENDING_MAX));
                }
                pending.extend_from_slice(data);
                if !std::mem::replace(is_queued, true) {
                    self.shaking.push_back(secure.sock);
                }
            }
            Stage::Open(_) => self.open(engine, secure, data),
            Stage::Unknown | Stage::Failed(_) => {}
        }
    }

    /// The next step of a handshake.
    fn shake<E: Engine<Buf = B>>(&mut self, engine: &mut E, secure: &mut Secure) {
        let Stage::Shaking { handshake, pending, is_queued, is_client } = &mut secure.stage else { return };
        let (bytes, is_client) = (std::mem::take(pending), *is_client);
        *is_queued = false;
        let consumed = match handshake.push(&bytes, &mut secure.control) {
            Ok(consumed) if handshake.is_done() => consumed,
            Ok(_) => return self.drive(engine, secure),
            Err(error) => return self.fail(engine, secure, error),
        };
        let Stage::Shaking { handshake, .. } = std::mem::replace(&mut secure.stage, Stage::Unknown) else {
            return;
        };
        match handshake.finish() {
            Ok(established) => secure.stage = Stage::Open(Box::new(established)),
            Err(error) => return self.fail(engine, secure, error),
        }
        if is_client {
            self.ready.push_back(Event::Connected { sock: secure.sock, result: Ok(()) });
        }
        self.open(engine, secure, &bytes[consumed..]);
    }

    /// Opens records of the peer.
    fn open<E: Engine<Buf = B>>(&mut self, engine: &mut E, secure: &mut Secure, data: &[u8]) {
        let Stage::Open(open) = &mut secure.stage else { return };
        let mut plain = Vec::with_capacity(data.len());
        let opened = open.opener.push(data, &mut plain);
        let sock = secure.sock;
        if !plain.is_empty() {
            self.ready.push_back(Event::Received { sock, data: plain.into() });
        }
        match opened {
            Ok(wants) => {
                // A peer that asks again before it has read the answer gets one.
                if wants.key_update && secure.control.is_empty() {
                    open.sealer.update_key(&mut secure.control);
                }
                if wants.closed && !std::mem::replace(&mut secure.closed, true) {
                    self.ready.push_back(Event::Finished { sock, error: None });
                }
                self.drive(engine, secure);
            }
            Err(error) => self.fail(engine, secure, error),
        }
    }

    /// The connection ends because of its peer.
    fn fail<E: Engine<Buf = B>>(&mut self, engine: &mut E, secure: &mut Secure, error: TlsError) {
        self.failures += 1;
        let code = error.alert();
        let was = std::mem::replace(&mut secure.stage, Stage::Failed(error));
        if let (Stage::Open(mut open), Some(code)) = (was, code) {
            open.sealer.alert(code, &mut secure.control);
        }
        let sock = secure.sock;
        (secure.finishing, secure.closed) = (true, true);
        if secure.queued.take().is_some() || secure.reading.take().is_some() {
            self.ready.push_back(Event::Sent { sock, result: Err(SendError::Broken(Errno::PROTO)) });
        }
        self.drive(engine, secure);
        self.ready.push_back(Event::Finished { sock, error: Some(Errno::PROTO) });
    }

    /// The engine has sent ciphertext.
    fn sent<E: Engine<Buf = B>>(
        &mut self,
        engine: &mut E,
        secure: &mut Secure,
        result: Result<u32, SendError>,
    ) {
        secure.sending = false;
        self.under_way -= 1;
        let (sock, covers) = (secure.sock, std::mem::take(&mut secure.covers));
        match result {
            Ok(bytes) => {
                secure.rest.advance(bytes as usize);
                secure.tight = !secure.rest.is_empty();
            }
            Err(SendError::Full) => {
                (secure.tight, secure.polling) = (true, true);
                engine.poll_writable(sock);
            }
            Err(SendError::Broken(_)) => {
                secure.rest.clear();
                secure.control.clear();
                if covers > 0 || secure.queued.take().is_some() {
                    self.ready.push_back(Event::Sent { sock, result });
                }
                return;
            }
        }
        if covers > 0 {
            // It is sealed: what the socket did not take is sent before anything else.
            self.ready.push_back(Event::Sent { sock, result: Ok(covers) });
        }
        self.drive(engine, secure);
    }

    /// Sends what can be sent now.
    fn drive<E: Engine<Buf = B>>(&mut self, engine: &mut E, secure: &mut Secure) {
        let sock = secure.sock;
        while !secure.sending && secure.reading.is_none() {
            if secure.rest.is_empty() {
                self.recycle(std::mem::take(&mut secure.rest));
                secure.rest = std::mem::take(&mut secure.control).into();
            }
            if !secure.rest.is_empty() {
                if !secure.polling {
                    secure.sending = true;
                    self.under_way += 1;
                    engine.send(sock, Payload::Bytes(secure.rest.clone()));
                } else if secure.queued.take().is_some() {
                    self.ready.push_back(Event::Sent { sock, result: Err(SendError::Full) });
                }
                return;
            }
            match secure.queued.take() {
                Some(payload) if matches!(secure.stage, Stage::Open(_)) => {
                    if self.under_way >= UNDER_WAY_MAX {
                        secure.queued = Some(payload);
                        if !std::mem::replace(&mut secure.waits, true) {
                            self.waiting.push_back(sock);
                        }
                        return;
                    }
                    self.begin(engine, secure, payload)
                }
                Some(payload) => {
                    secure.queued = Some(payload); // after the handshake
                    return;
                }
                None => {
                    if secure.asked && !secure.polling {
                        secure.asked = false;
                        self.ready.push_back(Event::Writable { sock });
                    } else if std::mem::take(&mut secure.finishing) {
                        engine.shutdown_write(sock);
                    }
                    return;
                }
            }
        }
    }

    /// Seals a payload, or as much of it as goes at a time.
    fn begin<E: Engine<Buf = B>>(&mut self, engine: &mut E, secure: &mut Secure, payload: Payload) {
        let most = if secure.tight { TEXT_MAX } else { SEAL_MAX };
        match payload {
            Payload::Bytes(bytes) => self.seal(secure, [&bytes[..bytes.len().min(most)], &[]]),
            Payload::Region { head, region, from, len } => {
                let segment =
                    Arc::clone(self.segments.get(&region).expect("regions are held while sent from"));
                let (from, len) =
                    (from as usize, (len as usize).min(most - FrameHead::as_slice(&head).len()));
                self.seal(secure, [head.as_slice(), &segment.bytes()[from..from + len]]);
            }
            Payload::File { head, file, from, len } => {
                let head = head.slice(..head.len().min(most));
                let space = u32::try_from(most - head.len()).expect("a few records");
                if space == 0 {
                    return self.seal(secure, [&head, &[]]);
                }
                secure.reading = Some(head);
                engine.load_file(&file, from, len.min(space), ticket_of(secure.sock));
            }
        }
    }

    fn seal(&mut self, secure: &mut Secure, parts: [&[u8]; 2]) {
        let Stage::Open(open) = &mut secure.stage else { return };
        let len = parts[0].len() + parts[1].len();
        let mut out = self
            .scratch
            .pop()
            .unwrap_or_else(|| Vec::with_capacity(SEAL_MAX + (SEAL_MAX / TEXT_MAX + 1) * OVERHEAD_MAX));
        open.sealer.seal(parts, &mut out);
        secure.rest = out.into();
        secure.covers = u32::try_from(len).expect("a few records");
    }

    /// Keeps the buffer of ciphertext that was sent.
    fn recycle(&mut self, sent: Bytes) {
        if self.scratch.len() < UNDER_WAY_MAX && sent.is_unique() {
            let mut buffer = Vec::from(sent);
            if buffer.capacity() >= SEAL_MAX {
                buffer.clear();
                self.scratch.push(buffer);
            }
        }
    }
}

fn ticket_of(sock: Sock) -> u64 {
    TICKET | u64::from(sock.generation & 0x7fff_ffff) << 32 | u64::from(sock.index)
}
