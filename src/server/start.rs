//! From a configuration to running loops: listeners, threads, the `ready` line, and the end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::authority::Authority;
use super::certificates;
use super::files::cache::FILES_MAX;
use super::files::proxy::Proxy;
use super::http::access_writer::LogQueue;
use super::http::routes::{FILE_GATEWAY, FLV_GATEWAY, STREAM_PORT, WEB_PORT};
use super::listen::Plan;
use super::reception::{Capacity, Listener, Speaks};
use super::roles::{RoleState, Source, roles};
use super::shared::{Addresses, Message, Phase, Shared};
use super::worker::Worker;
use crate::config::{self, Config, LOOPS_MAX, Role};
use crate::live::key::StreamKey;
use crate::memory::Arena;
use crate::uring::mailbox::{EventFd, Mailbox, Wake, mailbox};
use crate::uring::ring::Uring;
use crate::uring::send::SendPath;
use crate::uring::sockets::Descriptors;

pub use error::StartError;
use rings::Waiting;

mod error;
mod rings;

/// The demo's stream.
const DEMO_KEY: &str = "live/demo";

/// A running server.
#[derive(Debug)]
pub struct Server {
    /// What its loops share.
    pub shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Closed when all loops have dropped their receivers, at their ends.
    running: watch::Sender<()>,
}

/// Binds all listeners of a role and starts its loops. Connections are accepted from here on.
///
/// # Errors
/// [`StartError`], whose message says what to do.
pub fn start(role: Role, mut config: Config) -> Result<Server, StartError> {
    let started = Instant::now();
    let loops = loop_count(config.loops);
    let mut plan = Plan::new(loops);
    let mut addresses = Addresses::default();
    let mut next_role = 0;
    let (for_streams, for_web) = (config.stream_listener(), config.web_listener());
    if role.has_origin() {
        let own = &config.origin;
        let rtmp = listener(&config, next_role, "rtmp", Speaks::Rtmp);
        addresses.rtmp = plan.bind("--rtmp", &own.rtmp, rtmp, &for_streams)?;
        let flv = listener(&config, next_role, "flv", Speaks::Http(&STREAM_PORT));
        addresses.flv = plan.bind("--flv", &own.flv, flv, &for_streams)?;
        let web = listener(&config, next_role, "web", Speaks::Http(&WEB_PORT));
        addresses.web = plan.bind("--web", &own.web, web, &for_web)?;
        next_role += 1;
    }
    if role.has_flv_gateway() {
        let listener = listener(&config, next_role, "flv-gateway", Speaks::Http(&FLV_GATEWAY));
        addresses.gateway = plan.bind("--listen", &config.flv_gateway.listen, listener, &for_streams)?;
        follow_own_origin(&mut config, &addresses.flv);
        next_role += 1;
    }
    if role.has_file_gateway() {
        let listener = listener(&config, next_role, "file-gateway", Speaks::Http(&FILE_GATEWAY));
        let options = config.file_listener();
        addresses.files = plan.bind("--listen", &config.file_gateway.listen, listener, &options)?;
    }
    if matches!(role, Role::Demo { .. }) && config.tls.cert == Config::demo_certificate().0 {
        certificates::make(&config.tls)?;
    }
    let certificates = certificates::load(&config.tls)?;
    let trust = certificates::trust(&config)?;
    let authority = Authority::load(&config.auth)?;
    let arena = Arena::new().map_err(StartError::Memory)?;
    let mut roles = roles(&config, role, &arena);
    open_sites(role, &config, &mut roles)?;
    let (posts, mails, eventfds) = mailboxes(loops)?;
    let shared = Arc::new(Shared::new((config, authority), arena, roles, posts, addresses, started));
    shared.certificates.store(certificates);
    if let Some(trust) = trust {
        shared.trust.set(trust).expect("set once");
    }
    if let Some(path) = &shared.config.access_log.path {
        let queue =
            LogQueue::open(path).map_err(|error| StartError::AccessLog { path: path.clone(), error })?;
        shared.access_log.set(queue).expect("set once");
    }
    let (descriptors, files) = descriptors(loops);
    let connections = match shared.config.limits.connections {
        0 => descriptors.capacity(),
        limit => (limit / loops).clamp(1, descriptors.capacity()),
    };
    let reserve = shared.config.limits.reserved(connections);
    let capacity = Capacity { connections, reserve, files };
    resolve_upstreams(&shared);
    let path = send_path(shared.config.limits.send_path);
    let demo = matches!(role, Role::Demo { .. });
    let mut waiting = Waiting::new(loops);
    let (running, loop_runs) = watch::channel(());
    for (index, ((mail, eventfd), listeners)) in mails.into_iter().zip(eventfds).zip(plan.sockets).enumerate()
    {
        let (shared, kinds) = (Arc::clone(&shared), plan.listeners.clone());
        let ring = move |started| Uring::new(descriptors, path, Arc::clone(&eventfd), started);
        let started = shared.started;
        let runs = loop_runs.clone();
        waiting.spawn(
            index,
            move || ring(started),
            move |mut engine| {
                let _runs = runs;
                for (tag, listener) in listeners {
                    engine.listen(listener, tag);
                }
                let mut worker = Worker::new(engine, index, shared, kinds, mail, capacity);
                if demo && index == 0 {
                    worker.publish_clip(0, &StreamKey::parse(DEMO_KEY).expect("a good name"));
                }
                worker.run();
            },
        )?;
    }
    let threads = waiting.for_all()?;
    shared.enter(Phase::Ready);
    Ok(Server { shared, threads, running })
}

/// A listener of a role; `name` is the one in `tls.required`.
fn listener(config: &Config, role: usize, name: &str, speaks: Speaks) -> Listener {
    Listener { requires_tls: config.tls.requires(name), ..Listener::new(role, speaks) }
}

/// Opens the folders to serve and the one for fetched files. A folder that cannot be opened is an error only
/// for a file gateway that runs alone.
fn open_sites(role: Role, config: &Config, roles: &mut [RoleState]) -> Result<(), StartError> {
    for state in roles {
        let Some(site) = &mut state.files else { continue };
        match site.open() {
            Err(error) if role == Role::FileGateway => {
                return Err(StartError::Root { root: config.file_gateway.root.clone(), error });
            }
            _ => {}
        }
        if matches!(state.source, Source::Nowhere) {
            let cache = || config.file_gateway.cache.clone();
            site.proxy = Proxy::new(&config.file_gateway)
                .map_err(|error| StartError::Cache { cache: cache(), error })?;
        }
    }
    Ok(())
}

/// Resolves the addresses of all servers that are connected to; those that fail keep their last addresses.
pub fn resolve_upstreams(shared: &Shared) {
    for role in &shared.roles {
        let Source::Upstreams(upstreams) = &role.source else { continue };
        upstreams.iter().for_each(|up| resolve(&up.url.host, up.url.port, &up.addresses));
    }
    let config = &shared.config;
    for (forward, addresses) in config.forward.iter().zip(&shared.forwards) {
        resolve(&forward.to.host, forward.to.port, addresses);
    }
    for (pull, addresses) in config.pull.iter().zip(&shared.pulls) {
        resolve(&pull.from.host, pull.from.port, addresses);
    }
}

fn resolve(host: &str, port: u16, addresses: &ArcSwap<Vec<SocketAddr>>) {
    use std::net::ToSocketAddrs;
    match (host, port).to_socket_addrs() {
        Ok(found) => addresses.store(Arc::new(found.collect())),
        Err(error) => tracing::warn!(host, port, %error, "cannot look up a server"),
    }
}

impl Server {
    /// Stops accepting; loops end when their last connection is gone.
    pub fn drain(&self) {
        self.shared.enter(Phase::Draining);
        self.shared.tell_all(|| Message::Drain);
    }

    /// Ends the loops now.
    pub fn stop(&self) {
        self.shared.enter(Phase::Draining);
        self.shared.tell_all(|| Message::Stop);
    }

    /// Waits, as a task, until all loops have ended.
    pub async fn finished(&self) {
        self.running.closed().await;
    }

    /// Waits for the loops.
    pub fn join(self) {
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a loop panicked");
            }
        }
    }
}

fn send_path(configured: config::SendPath) -> SendPath {
    match configured {
        config::SendPath::Auto => SendPath::Auto,
        config::SendPath::Copy => SendPath::Copy,
        config::SendPath::Fixed => SendPath::Fixed,
        config::SendPath::ZeroCopy => SendPath::ZeroCopy,
        config::SendPath::Pages => SendPath::Pages,
    }
}

/// Lets a gateway pull from the origin in the same process, on the port that the origin got.
fn follow_own_origin(config: &mut Config, flv: &[SocketAddr]) {
    let Some(flv) = flv.get(config.origin.flv.nearest()) else { return };
    let own = config.origin.beside();
    if let Some(upstream) = config.flv_gateway.upstream.iter_mut().find(|upstream| **upstream == own) {
        upstream.port = flv.port();
    }
}

/// How many descriptors a loop's sockets may use and from where, by the process's limit, and how many files it
/// may keep open.
fn descriptors(loops: usize) -> (Descriptors, usize) {
    /// Listeners, rings, recordings, the admin listener's connections.
    const RESERVE: u64 = 256;
    /// A limit from here on need not be shared out.
    const PLENTY: u64 = 1 << 18;
    /// With a smaller limit, one descriptor in this many is for files.
    const FILES_SHARE: u64 = 16;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let files = (limit / FILES_SHARE / loops as u64).min(FILES_MAX as u64);
    let share = (limit.saturating_sub(RESERVE) / loops as u64).saturating_sub(files);
    let direct = if limit < PLENTY { limit } else { 0 };
    let descriptors = Descriptors {
        process: usize::try_from(share).unwrap_or(usize::MAX),
        direct: u32::try_from(direct).unwrap_or(0),
    };
    (descriptors, usize::try_from(files).unwrap_or(FILES_MAX).max(8))
}

fn loop_count(configured: usize) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (if configured == 0 { cores() } else { configured }).min(LOOPS_MAX)
}

type Boxes = (Vec<crate::uring::mailbox::Postbox<Message>>, Vec<Mailbox<Message>>, Vec<Arc<EventFd>>);

fn mailboxes(loops: usize) -> io::Result<Boxes> {
    let mut boxes: Boxes = Boxes::default();
    for _ in 0..loops {
        let eventfd = EventFd::new()?;
        let (post, mail) = mailbox(Arc::clone(&eventfd) as Arc<dyn Wake>);
        boxes.0.push(post);
        boxes.1.push(mail);
        boxes.2.push(eventfd);
    }
    Ok(boxes)
}
