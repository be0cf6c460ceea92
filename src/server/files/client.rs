//! A connection of a file client: its requests, answered one after the other.

use std::net::IpAddr;

use bytes::Bytes;

use super::answer::Answer;
use super::entry::Entry;
use super::log::{Log, Record};
use super::lookup::Found;
use crate::protocol::http::request::{HttpError, Method, Request, RequestLimits, RequestReader};
use crate::protocol::http::response::{error_page_with, preflight};
use crate::protocol::http::{BodyLength, FileKind, RelPath, error_page};
use crate::server::api;
use crate::server::conn::{Conn, Fate, Kind};
use crate::server::shared::Phase;
use crate::server::worker::Worker;
use crate::uring::Engine;

/// What the resources here allow.
const METHODS: &str = "GET, HEAD, OPTIONS";
/// Bytes of further requests that wait for an answer to be read.
const HELD_MAX: usize = 256 << 10;
/// How often a request may be put off because another file has to be looked at: the file, its compressed forms,
/// and some of them again if they change meanwhile.
const LOOKS_MAX: u8 = 12;

/// A connection that asks for files.
#[derive(Debug)]
pub(in crate::server) struct Client {
    reader: RequestReader,
    /// A request whose file is being looked at, and how often it was put off.
    asked: Option<(Box<Request>, u8)>,
    /// What is being sent.
    pub(super) answer: Option<Answer>,
    /// What the access log will say of it.
    pub(super) record: Option<Box<Record>>,
    /// Bytes of a file that the last send was given.
    pub(super) offered: u32,
    /// What the kernel held for it when it had taken nothing for long.
    queued: Option<u32>,
    /// Who is connected, once somebody has asked.
    peer: Option<IpAddr>,
    /// Part of a head has come, and its time runs.
    begun: bool,
    /// It will not send any more.
    finished: bool,
}

impl Client {
    pub(in crate::server) fn new(limits: RequestLimits) -> Self {
        let reader = RequestReader::new(limits);
        Self {
            reader,
            asked: None,
            answer: None,
            record: None,
            offered: 0,
            queued: None,
            peer: None,
            begun: false,
            finished: false,
        }
    }

    /// Whether an answer is on its way.
    pub(in crate::server) fn is_answered(&self) -> bool {
        self.answer.is_some()
    }

    /// Whether a request of its is being answered.
    fn is_busy(&self) -> bool {
        self.asked.is_some() || self.answer.is_some()
    }

    /// Whether it has sent nothing that is not answered.
    fn is_idle(&self) -> bool {
        !self.is_busy() && self.reader.is_empty()
    }
}

impl<E: Engine> Worker<E> {
    pub(in crate::server) fn client_received(&mut self, conn: &mut Conn, data: &[u8]) -> Fate {
        let Kind::Client(client) = &mut conn.kind else { unreachable!("asked by kind") };
        if conn.out.last_words {
            return Fate::Keep; // answered; what follows means nothing
        }
        if client.is_busy() {
            client.reader.hold(data);
            if client.reader.held() > HELD_MAX {
                return Fate::Refuse("it asks and does not read the answers".to_owned());
            }
            return Fate::Keep;
        }
        self.next_request(conn, data)
    }

    /// The peer sends no more. What it asked for before is still answered.
    pub(in crate::server) fn client_finished(&mut self, conn: &mut Conn) -> Fate {
        let Kind::Client(client) = &mut conn.kind else { unreachable!("asked by kind") };
        if client.is_busy() {
            client.finished = true;
            return Fate::Keep;
        }
        Fate::Close("the peer hung up".to_owned())
    }

    pub(in crate::server) fn client_deadline(&mut self, conn: &mut Conn) -> Fate {
        let Kind::Client(client) = &mut conn.kind else { unreachable!("asked by kind") };
        if client.answer.is_some() {
            // The kernel may hold so much that it asks for more but seldom: what it holds tells more.
            let queued = self.engine.queued(conn.sock);
            if queued.is_some() && std::mem::replace(&mut client.queued, queued) != queued {
                self.deadline(conn.sock, self.send_time());
                return Fate::Keep;
            }
            Fate::Close("it takes nothing of its answer".to_owned())
        } else if client.is_idle() {
            Fate::Close("no request came in time".to_owned())
        } else if client.asked.is_some() {
            Fate::Close("its file could not be opened in time".to_owned())
        } else {
            Fate::Refuse("its request did not end in time".to_owned())
        }
    }

    /// The server goes down: who asks for nothing is let go.
    pub(in crate::server) fn client_drain(&mut self, conn: &mut Conn) -> Fate {
        match &conn.kind {
            Kind::Client(client) if client.is_idle() && !conn.out.last_words => {
                self.say_last(conn, Bytes::new())
            }
            _ => Fate::Keep,
        }
    }

    /// The connection is closed: an answer that was under way counts as far as it came.
    pub(in crate::server) fn client_closed(&mut self, role: usize, client: &mut Client) {
        if let Some(answer) = client.answer.take() {
            self.account(role, &answer, client.record.take());
        }
    }

    /// Takes the next request, if it is there.
    pub(super) fn next_request(&mut self, conn: &mut Conn, data: &[u8]) -> Fate {
        let Kind::Client(client) = &mut conn.kind else { unreachable!("asked by kind") };
        match client.reader.push(data) {
            Ok(Some(request)) => {
                client.begun = false;
                self.deadline(conn.sock, self.request_time());
                self.serve(conn, request)
            }
            Ok(None) if client.finished => self.say_last(conn, Bytes::new()),
            Ok(None) => {
                if client.reader.is_empty() && self.shared.phase() == Phase::Draining {
                    return self.say_last(conn, Bytes::new());
                } else if client.reader.is_empty() {
                    self.deadline(conn.sock, self.idle_time());
                } else if !std::mem::replace(&mut client.begun, true) {
                    self.deadline(conn.sock, self.request_time());
                }
                Fate::Keep
            }
            Err(error) => self.refuse_request(conn, &error),
        }
    }

    fn refuse_request(&mut self, conn: &mut Conn, error: &HttpError) -> Fate {
        let (role, peer) = (self.role(conn.role).name, self.peer(conn.sock));
        self.counters[conn.role].bad_peers.add(1);
        tracing::warn!(role, peer, reason = %error, "refused a request");
        if self.files.log.as_mut().is_some_and(Log::wants) {
            let (peer, now) = (self.peer_of(conn), self.engine.now());
            let Kind::Client(client) = &mut conn.kind else { unreachable!("asked by kind") };
            client.record = Some(Record::of_nonsense(peer, now));
        }
        self.begin_answer(conn, Answer::of_page(error.status(), error.page(), false))
    }

    fn serve(&mut self, conn: &mut Conn, request: Request) -> Fate {
        if self.files.log.as_mut().is_some_and(Log::wants) {
            let (viewer, now) = (self.viewer_of(conn, &request), self.engine.now());
            let Kind::Client(client) = &mut conn.kind else { unreachable!("asked by kind") };
            client.record = Some(Record::of_request(&request, viewer, now));
        }
        let keep = self.keeps(&request);
        if request.method == Method::Options {
            let asked = request.header("access-control-request-headers");
            return self.begin_answer(conn, Answer::of_page(204, preflight(METHODS, asked, keep), keep));
        }
        let bodiless = matches!(request.body_length(), BodyLength::None | BodyLength::Length(0));
        if let Err(error) = request.allow(&[Method::Get, Method::Head], METHODS) {
            let (status, message, keep) = (error.status(), error.to_string(), keep && bodiless);
            let page = error_page_with(status, &message, &[("Allow", METHODS)], false, keep);
            return self.begin_answer(conn, Answer::of_page(status, page, keep));
        }
        if !bodiless {
            let page = error_page(413, "This resource takes no body.", false, false);
            return self.begin_answer(conn, Answer::of_page(413, page, false));
        }
        if request.path == "/api/v1/streams" {
            let body = self.shared.listing.fresh(self.shared.now());
            let body = body.unwrap_or_else(|| api::streams_json(&self.shared).into());
            return self.answer_json(conn, &request, body);
        }
        if request.path == "/api/v1/recordings" {
            let site = self.role(conn.role).files.as_ref().expect("its listener is for files");
            let body = site.library.at_once(self.shared.now());
            return self.answer_json(conn, &request, body);
        }
        if let Some(path) = self.live_path(conn.role, &request.path) {
            return self.answer_play(conn, &request, path);
        }
        self.serve_file(conn, Box::new(request), 0)
    }

    /// The stream that a path of an origin's web listener names; `/flv/…` are recordings.
    fn live_path<'a>(&self, role: usize, path: &'a str) -> Option<&'a str> {
        let site = self.role(role).files.as_ref().filter(|site| site.pages_first())?;
        let name = path.strip_suffix(".flv")?;
        let file = RelPath::parse(path).is_ok_and(|path| site.shows(&path));
        (!file).then_some(name)
    }

    fn answer_json(&mut self, conn: &mut Conn, request: &Request, body: Bytes) -> Fate {
        let keep = self.keeps(request);
        let mut page = crate::protocol::http::Head::new(200)
            .header("Content-Type", "application/json")
            .header("Content-Length", body.len())
            .header("Cache-Control", "no-cache")
            .header("X-Content-Type-Options", "nosniff")
            .cors()
            .connection(keep)
            .encode();
        if request.method != Method::Head {
            page.extend_from_slice(&body);
        }
        self.begin_answer(conn, Answer::of_page(200, page, keep))
    }

    /// The address of the peer.
    fn peer_of(&self, conn: &mut Conn) -> Option<IpAddr> {
        let Kind::Client(client) = &mut conn.kind else { unreachable!("asked by kind") };
        if client.peer.is_none() {
            client.peer = self.engine.peer(conn.sock).map(|peer| peer.ip().to_canonical());
        }
        client.peer
    }

    /// The address of who asks: the peer's, or what a proxy that is believed says.
    fn viewer_of(&self, conn: &mut Conn, request: &Request) -> Option<IpAddr> {
        let peer = self.peer_of(conn)?;
        let believed = self.shared.config.access_log.proxies.contains(&peer);
        let told = request.header("x-real-ip").filter(|_| believed).and_then(|text| text.trim().parse().ok());
        Some(told.unwrap_or(peer))
    }

    /// Notes who watches what.
    fn note_viewer(&mut self, conn: &mut Conn, request: &Request, path: &RelPath, entry: &Entry) {
        if !matches!(entry.kind, FileKind::Playlist | FileKind::Segment) {
            return;
        }
        let viewer = (self.viewer_of(conn, request), request.header("user-agent"));
        let now = self.engine.now();
        let Some(site) = &self.shared.roles[conn.role].files else { return };
        let notes = self.files.notes.entry(conn.role).or_default();
        notes.note(&site.audience, path, entry.kind, viewer, entry.target, now);
    }

    /// Whether the connection stays open behind the answer to a request.
    fn keeps(&self, request: &Request) -> bool {
        request.keep_alive() && self.shared.phase() != Phase::Draining
    }

    /// A file that the request had to wait for is there, or is not.
    pub(super) fn client_ask_again(&mut self, conn: &mut Conn) -> Fate {
        let Kind::Client(client) = &mut conn.kind else { return Fate::Keep };
        match client.asked.take() {
            Some((request, looks)) => self.serve_file(conn, request, looks),
            None => Fate::Keep,
        }
    }

    fn serve_file(&mut self, conn: &mut Conn, request: Box<Request>, looks: u8) -> Fate {
        let role = conn.role;
        let site = self.role(role).files.as_ref().expect("its listener is for files");
        let pages_first = site.pages_first();
        let path = if request.path == "/" { "/index.html" } else { &request.path };
        let path = RelPath::parse(path).ok().filter(|path| site.shows(path));
        let page = if pages_first { self.find_page(&request.path) } else { None };
        let found = match (page, &path) {
            (Some(page), _) => Found::Entry(page),
            (None, Some(path)) => self.find_file(role, path, &request, conn.sock),
            (None, None) => Found::Missing,
        };
        if let (Found::Entry(entry), Some(path)) = (&found, &path) {
            self.note_viewer(conn, &request, path, entry);
        }
        let found = match found {
            Found::Missing if !pages_first => {
                self.find_page(&request.path).map_or(Found::Missing, Found::Entry)
            }
            found => found,
        };
        let keep = self.keeps(&request);
        let head_only = request.method == Method::Head;
        let date = self.files.date.now();
        let error = |status, message| {
            let page = error_page_with(status, message, &[("Date", date)], head_only, keep);
            Answer::of_page(status, page, keep)
        };
        let answer = match found {
            Found::Entry(entry) => Answer::of_entry(&request, &entry, date, keep),
            Found::Missing => error(404, "Nothing here. The live player is at /index.html."),
            Found::Later if looks < LOOKS_MAX => {
                let Kind::Client(client) = &mut conn.kind else { unreachable!("asked by kind") };
                client.asked = Some((request, looks + 1));
                self.deadline(conn.sock, self.send_time()); // an upstream may take its time
                return Fate::Keep;
            }
            Found::Unreachable => error(502, "No upstream could say whether there is such a file."),
            Found::Later | Found::Busy => error(503, "Too many files are being opened; ask again soon."),
        };
        self.begin_answer(conn, answer)
    }
}
