//! An HTTP client: its requests are answered one after the other. Pipelined requests wait, up to a limit.

use std::net::IpAddr;

use bytes::Bytes;

use super::access_log::Record;
use super::answer::Answer;
use super::live;
use super::players;
use super::routes::{Locked, Resource, Routes};
use super::transfer::{Progress, Transfer};
use super::web::Web;
use crate::access::{Action, Denied, Grant, Streams};
use crate::protocol::http::RelPath;
use crate::protocol::http::request::{HttpError, Method, Request, RequestLimits, RequestReader};
use crate::protocol::http::response::preflight;
use crate::protocol::ws;
use crate::server::authority::{Ungranted, asker_of, question_of_request, unix_time};
use crate::server::core::Core;
use crate::server::files::lookup::{Found, HUNG_UP};
use crate::server::head::{ConnHead, Next};
use crate::server::log_limit::LineKind;
use crate::uring::{Engine, SendError};

/// The largest number of bytes of further requests that wait while an answer is sent.
const HELD_MAX: usize = 256 << 10;
/// The same while the hook decides: the beginning of a push.
const UNDECIDED_MAX: usize = 1 << 20;
/// How often a request may be put off because another file has to be looked up: the file, its compressed forms,
/// and some of them again if they change meanwhile.
const LOOKS_MAX: u8 = 12;

/// The text for clients about whom the hook has not decided in time.
const NO_VERDICT: &str = "The service that decides about this has not answered. Try again soon.";
/// The text for clients whose listing was not made in time.
const NO_LISTING: &str = "The list of streams is not ready. Try again soon.";
/// The text for clients that are turned away because the server is full.
pub(in crate::server) const SERVER_FULL: &str =
    "This server is full; ask another one, or this one again soon.";

/// See the module.
#[derive(Debug)]
pub(in crate::server) struct Connection {
    routes: &'static Routes,
    reader: RequestReader,
    /// A request whose file is being looked up, and how often it was put off.
    asked: Option<(Box<Request>, u8)>,
    /// Its client was granted what it asks for.
    granted: bool,
    transfer: Transfer,
    /// Part of a head has been received; its time limit runs.
    begun: bool,
    /// The client has said that it sends nothing after this request.
    is_last: bool,
    /// It travels plain where TLS is required.
    insecure: bool,
}

impl Connection {
    pub(in crate::server) fn new(routes: &'static Routes, limits: RequestLimits) -> Self {
        Self {
            routes,
            reader: RequestReader::new(limits),
            asked: None,
            granted: false,
            transfer: Transfer::default(),
            begun: false,
            is_last: false,
            insecure: false,
        }
    }

    /// It travels plain where TLS is required: its requests are redirected.
    pub(in crate::server) fn require_tls(&mut self) {
        self.insecure = true;
    }

    /// Whether an answer is being sent; other bytes go through the outbox.
    pub(in crate::server) fn is_answering(&self) -> bool {
        self.transfer.is_active()
    }

    /// Whether a request of the client is being answered.
    fn is_busy(&self) -> bool {
        self.asked.is_some() || self.is_answering()
    }

    /// Whether every request of the client has been answered.
    pub(in crate::server) fn is_idle(&self) -> bool {
        !self.is_busy() && self.reader.is_empty()
    }

    /// Bytes of memory held by its requests and its answer.
    pub(in crate::server) fn held(&self) -> usize {
        self.reader.held() + self.transfer.held()
    }

    /// Bytes from the client.
    pub(in crate::server) fn received<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        web: &mut Web,
        head: &mut ConnHead,
        data: &[u8],
    ) -> Next {
        if !self.is_busy() {
            return self.next_request(core, web, head, data);
        }
        self.reader.hold(data);
        let waits = self.asked.is_some() && !self.granted;
        if self.reader.held() > if waits { UNDECIDED_MAX } else { HELD_MAX } {
            return Next::refuse("it sends requests and does not read the answers");
        }
        Next::Stay
    }

    /// The client sends no more. The requests that were received are still answered, unless one waits for an upstream.
    pub(in crate::server) fn finished(&self, web: &mut Web, head: &ConnHead) -> Next {
        if self.asked.is_some() && web.files.client_half_closed(head.sock) {
            return Next::close(HUNG_UP);
        }
        if self.is_busy() { Next::Stay } else { Next::close("the peer closed the connection") }
    }

    /// Its deadline has passed.
    pub(in crate::server) fn deadline<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        web: &mut Web,
        head: &mut ConnHead,
    ) -> Next {
        if self.is_answering() {
            if self.transfer.is_stuck(core, head) {
                return Next::close("it does not take its answer");
            }
            core.deadline(head.sock, core.send_time());
            Next::Stay
        } else if self.is_idle() {
            Next::close("no request came in time")
        } else if let Some((request, looks)) = self.asked.take() {
            // The next answer is the last, made with what is known by now.
            match looks {
                ..LOOKS_MAX => self.respond(core, web, head, request, LOOKS_MAX),
                _ => Next::close("its file could not be opened in time"),
            }
        } else {
            Next::refuse("its request did not end in time")
        }
    }

    /// The server is shutting down: an idle client is disconnected.
    pub(in crate::server) fn drain<E: Engine>(&mut self, core: &mut Core<E>, head: &mut ConnHead) -> Next {
        if self.is_idle() && !head.out.is_closed() {
            return core.say_last(head, Bytes::new());
        }
        Next::Stay
    }

    /// The connection is closed: an answer under way is counted up to the bytes that were sent.
    pub(in crate::server) fn closed<E: Engine>(&mut self, core: &Core<E>, web: &mut Web, head: &ConnHead) {
        web.files.client_left(head.sock);
        self.transfer.end(core, &mut web.responder, head.role);
    }

    /// Handles the next request, if one is complete.
    fn next_request<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        web: &mut Web,
        head: &mut ConnHead,
        data: &[u8],
    ) -> Next {
        match self.reader.push(data) {
            Ok(Some(request)) => {
                self.begun = false;
                core.deadline(head.sock, core.request_time());
                self.serve(core, web, head, request)
            }
            Ok(None) if head.finished => core.say_last(head, Bytes::new()),
            Ok(None) => {
                if self.reader.is_empty() && core.is_draining() {
                    return core.say_last(head, Bytes::new());
                } else if self.reader.is_empty() {
                    core.deadline(head.sock, core.idle_time());
                } else if !std::mem::replace(&mut self.begun, true) {
                    core.deadline(head.sock, core.request_time());
                }
                Next::Stay
            }
            Err(error) => self.refuse(core, web, head, &error),
        }
    }

    fn refuse<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        web: &mut Web,
        head: &ConnHead,
        error: &HttpError,
    ) -> Next {
        core.counters[head.role].bad_peers.add(1);
        if core.may_log(LineKind::Request) {
            let (role, peer) = (core.role(head.role).name, core.peer(head.sock));
            tracing::warn!(role, peer, reason = %error, "refused a request");
        }
        if web.responder.wants_record() {
            self.transfer.record = Some(Record::of_nonsense(head.address, core.now()));
        }
        self.answer(core, web, head, Answer::of_page(error.status(), error.page(), false))
    }

    /// Whether the end of the answer closes the connection at once. With bytes that were not read a close would reset it,
    /// and with it the end of the answer.
    fn closes_at_end<E: Engine>(&self, core: &Core<E>, head: &ConnHead) -> bool {
        self.is_last && self.reader.is_empty() && !core.net.is_secure(head.sock)
    }

    fn answer<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        web: &mut Web,
        head: &ConnHead,
        answer: Answer,
    ) -> Next {
        if self.closes_at_end(core, head) {
            core.net.set_receiving(head.sock, false);
        }
        self.transfer.begin(core, &mut web.responder, head, answer);
        Next::Stay
    }

    fn serve<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        web: &mut Web,
        head: &mut ConnHead,
        request: Request,
    ) -> Next {
        let learned = core.learn_forwarded(head, &request);
        if web.responder.wants_record() {
            let client = Self::client_address(core, head, &request);
            self.transfer.record = Some(Record::of_request(&request, client, core.now()));
        }
        let counted = learned.and_then(|()| core.shared.address_limits.request(head.address, core.now()));
        if let Err(why) = counted {
            core.count_refusal(head.role, why);
            let answer = Answer::of_error(why.status(), &why.to_string(), &[], false, false);
            return self.answer(core, web, head, answer);
        }
        let is_challenge = || RelPath::parse(&request.path).is_ok_and(|path| path.is_challenge());
        if self.insecure && !is_challenge() {
            let answer = to_tls(&request);
            return self.answer(core, web, head, answer);
        }
        self.granted = false;
        self.is_last = !request.keep_alive() && !request.has_body();
        self.respond(core, web, head, Box::new(request), 0)
    }

    /// Answers a request, or puts it off until more is known; `looks` counts how often it was put off.
    fn respond<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        web: &mut Web,
        head: &mut ConnHead,
        request: Box<Request>,
        looks: u8,
    ) -> Next {
        let keep = keeps(core, &request) && (!request.has_body() || request.method != Method::Options);
        let (head_only, now) = (request.method == Method::Head, core.now());
        let granted = &mut self.granted;
        let found = self.routes.find(&request).map(|locked| open(core, head, &request, locked, granted));
        let answer = match found {
            Ok(Err(Ungranted::Denied(denied))) => refusal(&request, denied, keep),
            Ok(Err(Ungranted::Later)) if looks < LOOKS_MAX => {
                self.asked = Some((request, looks + 1));
                core.deadline(head.sock, core.hook_time());
                return Next::Stay;
            }
            Ok(Err(Ungranted::Later)) => Answer::of_error(503, NO_VERDICT, &[], head_only, false),
            Ok(Ok((Resource::Push(_), grant))) => {
                core.end_at(head.sock, grant.end);
                return Next::Push(Box::new((*request, grant)), self.reader.take_rest());
            }
            Ok(Ok((Resource::Health, _))) => health(core, head_only, keep),
            Ok(Ok(_)) if head.reserved => Answer::of_error(503, SERVER_FULL, &[], head_only, false),
            Ok(Ok((Resource::Preflight, _))) => {
                let asked = request.header("access-control-request-headers");
                Answer::of_page(204, preflight(self.routes.methods(), asked, keep), keep)
            }
            Ok(Ok((Resource::Play(name), grant))) => match live::play(core, head.role, &request, name) {
                Ok(play) => {
                    core.end_at(head.sock, grant.end);
                    return Next::Play(Box::new(play));
                }
                Err(refusal) => Answer::of_page(refusal.status, refusal.page, false),
            },
            Ok(Ok((Resource::Streams, _))) => match core.shared.listing.fresh(now) {
                Some(list) => Answer::of_json(list.of(&playable(core, head, &request)), head_only, keep),
                None if looks < LOOKS_MAX => {
                    return self.wait_for_listing(core, web, head, request, looks);
                }
                None => Answer::of_error(503, NO_LISTING, &[], head_only, keep),
            },
            Ok(Ok((Resource::Recordings, _))) => match &core.role(head.role).files {
                Some(site) if site.recordings().fresh(now).is_none() && looks < LOOKS_MAX => {
                    return self.wait_for_listing(core, web, head, request, looks);
                }
                Some(site) => {
                    let list = site.library.at_once(now, &playable(core, head, &request));
                    Answer::of_json(list, head_only, keep)
                }
                None => Answer::of_error(404, self.routes.hint, &[], head_only, keep),
            },
            Ok(Ok((Resource::Page, _))) => match web.files.find_page(&request.path) {
                Some(page) => Answer::of_entry(&request, &page, web.responder.date.now(), keep),
                None => Answer::of_error(404, self.routes.hint, &[], head_only, keep),
            },
            Ok(Ok((Resource::File, _))) => return self.serve_file(core, web, head, request, looks),
            Ok(Ok((Resource::Missing, _))) => Answer::of_error(404, self.routes.hint, &[], head_only, keep),
            Err(error) => {
                let (status, message) = (error.status(), error.to_string());
                let keep = keep && !request.has_body();
                Answer::of_error(status, &message, &[("Allow", self.routes.methods())], head_only, keep)
            }
        };
        self.answer(core, web, head, answer)
    }

    /// Waits for the control thread to make the requested list.
    fn wait_for_listing<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        web: &mut Web,
        head: &ConnHead,
        request: Box<Request>,
        looks: u8,
    ) -> Next {
        self.asked = Some((request, looks + 1));
        web.responder.wait_for_listing(head.sock);
        core.deadline(head.sock, core.request_time());
        Next::Stay
    }

    /// The client's address: the peer's, or the one that a trusted proxy gives.
    fn client_address<E: Engine>(core: &Core<E>, head: &ConnHead, request: &Request) -> Option<IpAddr> {
        let peer = head.address?;
        let believed = core.shared.config.access_log.proxies.contains(&peer);
        let told = request.header("x-real-ip").filter(|_| believed).and_then(|text| text.trim().parse().ok());
        Some(told.unwrap_or(peer))
    }

    /// What a request waited for is there, or could not be had.
    pub(in crate::server) fn ask_again<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        web: &mut Web,
        head: &mut ConnHead,
    ) -> Next {
        match self.asked.take() {
            Some((request, looks)) => self.respond(core, web, head, request, looks),
            None => Next::Stay,
        }
    }

    fn serve_file<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        web: &mut Web,
        head: &mut ConnHead,
        request: Box<Request>,
        looks: u8,
    ) -> Next {
        let (keep, head_only) = (keeps(core, &request), request.method == Method::Head);
        let found = Self::find_file(core, web, head, &request, looks);
        let date = web.responder.date.now();
        let error = |status, message| Answer::of_error(status, message, &[("Date", date)], head_only, keep);
        let answer = match found {
            Found::Entry(entry) => Answer::of_entry(&request, &entry, date, keep),
            Found::Missing => error(404, self.routes.hint),
            Found::Later if looks < LOOKS_MAX => {
                self.asked = Some((request, looks + 1));
                core.deadline(head.sock, core.send_time()); // an upstream may take its time
                if head.finished && web.files.client_half_closed(head.sock) {
                    return Next::close(HUNG_UP);
                }
                return Next::Stay;
            }
            Found::Unreachable => error(502, "No upstream could say whether there is such a file."),
            Found::NoSpace => {
                error(507, "The file is too large to be kept by this gateway, or its disk is full.")
            }
            Found::Refused(why) => error(why.status(), &why.to_string()),
            Found::Later | Found::Busy => error(503, "Too many files are being opened; ask again soon."),
        };
        self.answer(core, web, head, answer)
    }

    /// The file or the page that a request names.
    fn find_file<E: Engine>(
        core: &mut Core<E>,
        web: &mut Web,
        head: &ConnHead,
        request: &Request,
        looks: u8,
    ) -> Found {
        let shared = std::sync::Arc::clone(&core.shared);
        let Some(site) = &shared.roles[head.role].files else { return Found::Missing };
        let name = if request.path == "/" { "/index.html" } else { &request.path };
        let path = RelPath::parse(name).ok().filter(|path| site.shows(path));
        let page = if site.pages_first() { web.files.find_page(&request.path) } else { None };
        let found = match (page, &path) {
            (Some(page), _) => Found::Entry(page),
            (None, Some(path)) => match web.files.find_live(core, head, path, looks >= LOOKS_MAX) {
                Some(found) => found,
                None => web.files.find(core, head, path, request),
            },
            (None, None) => Found::Missing,
        };
        if let (Found::Entry(entry), Some(path)) = (&found, &path) {
            let viewer = (Self::client_address(core, head, request), request.header("user-agent"));
            if let Err(why) = players::admit(core, web, head.role, viewer, (path, entry)) {
                core.count_refusal(head.role, why);
                return Found::Refused(why);
            }
        }
        match found {
            Found::Missing if !site.pages_first() => {
                web.files.find_page(&request.path).map_or(Found::Missing, Found::Entry)
            }
            found => found,
        }
    }

    /// Sends the next slice of its file; returns its length.
    pub(in crate::server) fn send_slice<E: Engine>(&mut self, core: &mut Core<E>, head: &ConnHead) -> u32 {
        self.transfer.send_slice(core, head)
    }

    /// A send of its answer has ended.
    pub(in crate::server) fn sent<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        web: &mut Web,
        head: &mut ConnHead,
        result: Result<u32, SendError>,
    ) -> Next {
        match self.transfer.sent(core, &mut web.responder, head, result) {
            Progress::Going => Next::Stay,
            Progress::Broken(error) => Next::close(error),
            Progress::Done { keep: true } => self.next_request(core, web, head, &[]),
            Progress::Done { keep: false } if self.closes_at_end(core, head) => {
                Next::close("it was answered")
            }
            Progress::Done { keep: false } => core.say_last(head, Bytes::new()),
        }
    }

    /// A full socket has capacity again.
    pub(in crate::server) fn writable<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        web: &mut Web,
        head: &ConnHead,
    ) {
        self.transfer.writable(core, &mut web.responder, head);
    }
}

/// Whether the connection stays open after the answer to a request.
fn keeps<E: Engine>(core: &Core<E>, request: &Request) -> bool {
    request.keep_alive() && !core.is_draining()
}

/// Whether the process is healthy and accepts work.
fn health<E: Engine>(core: &Core<E>, head_only: bool, keep: bool) -> Answer {
    match core.shared.ailment() {
        None => Answer::of_text(200, "ok\n", head_only, keep),
        Some(ailment) => Answer::of_text(503, &format!("{ailment}\n"), head_only, keep),
    }
}

/// Gives out what a request asks for, if its client may have it; `granted` keeps that for a request that is put off.
fn open<'a, E: Engine>(
    core: &mut Core<E>,
    head: &ConnHead,
    request: &Request,
    locked: Locked<'a>,
    granted: &mut bool,
) -> Result<(Resource<'a>, Grant), Ungranted> {
    let lasting = locked.is_file();
    locked.open(|action, stream| {
        if *granted {
            return Ok(Grant::default());
        }
        let asker = asker_of(head, request);
        let is_upgrade = request.headers.has_token("upgrade", "websocket");
        let protocol = if lasting {
            "hls"
        } else if is_upgrade {
            "ws"
        } else {
            "http"
        };
        let question = || question_of_request((action, stream), &asker, request, protocol);
        let grant = core.authorise(head, (action, stream), &asker, lasting, question)?;
        *granted = true;
        Ok(grant)
    })
}

/// The streams that a client may play, and so sees in lists.
fn playable<E: Engine>(core: &Core<E>, head: &ConnHead, request: &Request) -> Streams {
    let asker = asker_of(head, request);
    core.shared.authority.rules().streams(Action::Play, &asker, unix_time())
}

/// The answer to a client without the right to what it asks for. A script cannot see why an upgrade is refused, so
/// the reason is sent in a close frame.
fn refusal(request: &Request, denied: Denied, keep: bool) -> Answer {
    let (status, reason) = (denied.status(), denied.to_string());
    if let Ok(Some(key)) = request.websocket_key() {
        let protocol = request.header("sec-websocket-protocol").and_then(ws::first_protocol);
        let upgrade = ws::upgrade_response(&key, protocol);
        let close = ws::close_frame(ws::code::POLICY, &reason);
        return Answer::of_page(status, [upgrade.as_slice(), &close].concat(), false);
    }
    let asks: &[(&str, &str)] = if status == 401 { &[("WWW-Authenticate", "Bearer")] } else { &[] };
    let keep = keep && !request.has_body();
    Answer::of_error(status, &reason, asks, request.method == Method::Head, keep)
}

/// Where a plain request finds what it asks for. What it wanted to send is not repeated unasked.
fn to_tls(request: &Request) -> Answer {
    const MESSAGE: &str = "This listener takes TLS only: use https:// or wss://.";
    let head_only = request.method == Method::Head;
    match request.header("host").filter(|_| matches!(request.method, Method::Get | Method::Head)) {
        Some(host) => {
            let location = format!("https://{host}{}", request.target);
            Answer::of_error(308, MESSAGE, &[("Location", &location)], head_only, false)
        }
        None => Answer::of_error(403, MESSAGE, &[], head_only, false),
    }
}
