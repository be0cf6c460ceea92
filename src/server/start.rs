//! From a configuration to running loops: listeners, threads, the `ready` line, and the end.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use super::files::cache::FILES_MAX;
use super::files::proxy::Proxy;
use super::http::access_writer::LogQueue;
use super::http::routes::{FILE_GATEWAY, FLV_GATEWAY, STREAM_PORT, WEB_PORT};
use super::listener::{Capacity, Listener, Speaks};
use super::roles::{RoleState, Source, roles};
use super::shared::{Addresses, Message, Phase, Shared};
use super::worker::Worker;
use crate::config::{self, Config, LOOPS_MAX, Role};
use crate::live::key::StreamKey;
use crate::memory::Arena;
use crate::uring::mailbox::{EventFd, Mailbox, Wake, mailbox};
use crate::uring::ring::Uring;
use crate::uring::send::SendPath;
use crate::uring::setup::RingError;
use crate::uring::sockets::Descriptors;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 65_535;
/// After so long without an acknowledgement, or with a window that stays shut, the kernel gives a peer up.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(20);
/// So much later than we would cut a viewer that takes nothing, so that it is we who do and say so.
const AFTER_STALL: Duration = Duration::from_secs(5);
/// What the kernel counts as locked memory may be that of a process that has just ended: so often a ring that finds
/// none is tried again,
const RING_TRIES: u32 = 20;
/// and after so long.
const RING_PAUSE: Duration = Duration::from_millis(50);
/// The demo's stream.
const DEMO_KEY: &str = "live/demo";

/// Why the program could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is in use.
    #[error(
        "{name}: the address {address} is taken by another program; stop it (ss -ltnp shows which it is) \
         or choose another one"
    )]
    Taken {
        /// The flag or key that sets it.
        name: &'static str,
        /// The address.
        address: SocketAddr,
    },
    /// A port below 1024 without the right to it.
    #[error(
        "{name}: no right to listen on {address}: run as root, give the program CAP_NET_BIND_SERVICE, or \
         choose a port above 1023"
    )]
    NoRight {
        /// The flag or key that sets it.
        name: &'static str,
        /// The address.
        address: SocketAddr,
    },
    /// Another failure to listen.
    #[error("{name}: cannot listen on {address}: {error}")]
    Listen {
        /// The flag or key that sets it.
        name: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        error: io::Error,
    },
    /// The file gateway's folder cannot be opened.
    #[error("--root: cannot serve the folder {}: {error}", root.display())]
    Root {
        /// The folder.
        root: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The folder for fetched files cannot be had.
    #[error("file_gateway.cache: cannot use the folder {}: {error}", cache.display())]
    Cache {
        /// The folder.
        cache: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The access log cannot be opened.
    #[error("access_log.path: cannot write {}: {error}", path.display())]
    AccessLog {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A loop has no ring.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The control thread has no ring, or what else its runtime needs.
    #[error("cannot start the control thread: {0}")]
    Control(RingError),
    /// A thread cannot be started.
    #[error(
        "cannot start {loops} loops: {error}; raise the limit of threads (systemd: TasksMax=, LimitNPROC=) or of \
         memory, or use fewer loops (--loops)"
    )]
    Threads {
        /// How many.
        loops: usize,
        /// What the system said.
        error: io::Error,
    },
    /// There is no shared memory.
    #[error("cannot make the memory that streams are kept in (memfd_create): {0}{advice}", advice = memfd_advice(.0))]
    Memory(io::Error),
    /// Anything else.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// What helps where a memfd is refused.
fn memfd_advice(error: &io::Error) -> &'static str {
    match Errno::from_io_error(error) {
        Some(Errno::PERM | Errno::ACCESS | Errno::NOSYS) => {
            "; in a container, allow the system call memfd_create in its seccomp profile"
        }
        Some(Errno::MFILE | Errno::NFILE) => {
            "; raise the limit of descriptors (systemd: LimitNOFILE=1048576)"
        }
        Some(Errno::FBIG) => "; raise the limit of a file's size (systemd: LimitFSIZE=infinity)",
        _ => "",
    }
}

impl StartError {
    /// As `sysexits.h` has it: 75 for what may go away by itself, so that a supervisor tries again, 69 for an io_uring
    /// that is not to be had.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Ring(error) | Self::Control(error) if !error.is_shortage() => 69,
            _ => 75,
        }
    }

    /// Why `address`, which the flag `name` sets, cannot be listened on.
    pub fn listen(name: &'static str, address: SocketAddr, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::AddrInUse => Self::Taken { name, address },
            io::ErrorKind::PermissionDenied => Self::NoRight { name, address },
            _ => Self::Listen { name, address, error },
        }
    }
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    /// What its loops share.
    pub shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// One listener of one loop.
type Listeners = Vec<(u32, TcpListener)>;

/// Binds all listeners of a role and starts its loops. Connections are accepted from here on.
///
/// # Errors
/// [`StartError`], which says what to do.
pub fn start(role: Role, mut config: Config) -> Result<Server, StartError> {
    let started = Instant::now();
    let loops = loop_count(config.loops);
    let mut plan = Plan::default();
    let mut addresses = Addresses::default();
    let mut next_role = 0;
    if role.has_origin() {
        let origin = &config.origin;
        let (rtmp, flv, web) = (origin.rtmp, origin.flv, origin.web);
        addresses.rtmp = Some(plan.bind("--rtmp", rtmp, next_role, Speaks::Rtmp, loops, &config)?);
        addresses.flv =
            Some(plan.bind("--flv", flv, next_role, Speaks::Http(&STREAM_PORT), loops, &config)?);
        let patient = for_files(&config);
        addresses.web = Some(plan.bind("--web", web, next_role, Speaks::Http(&WEB_PORT), loops, &patient)?);
        next_role += 1;
    }
    if role.has_flv_gateway() {
        let listen = config.flv_gateway.listen;
        addresses.gateway =
            Some(plan.bind("--listen", listen, next_role, Speaks::Http(&FLV_GATEWAY), loops, &config)?);
        follow_own_origin(&mut config, addresses.flv);
        next_role += 1;
    }
    if role.has_file_gateway() {
        let listen = config.file_gateway.listen;
        let mut patient = for_files(&config);
        // What the kernel holds of a file are references, and no viewer lags behind: it may take what it likes.
        (patient.limits.sndbuf, patient.limits.notsent_lowat) = (0, usize::MAX);
        addresses.files =
            Some(plan.bind("--listen", listen, next_role, Speaks::Http(&FILE_GATEWAY), loops, &patient)?);
    }
    let arena = Arena::new().map_err(StartError::Memory)?;
    let mut roles = roles(&config, role, &arena);
    open_sites(role, &config, &mut roles)?;
    let (posts, mails, eventfds) = mailboxes(loops)?;
    let shared = Arc::new(Shared::new(config, arena, roles, posts, addresses, started));
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
    for (index, ((mail, eventfd), listeners)) in
        mails.into_iter().zip(eventfds).zip(plan.listeners).enumerate()
    {
        let (shared, doors) = (Arc::clone(&shared), plan.doors.clone());
        let ring = move |started| Uring::new(descriptors, path, Arc::clone(&eventfd), started);
        let started = shared.started;
        waiting.spawn(
            index,
            move || ring(started),
            move |mut engine| {
                for (tag, listener) in listeners {
                    engine.listen(listener, tag);
                }
                let mut worker = Worker::new(engine, index, shared, doors, mail, capacity);
                if demo && index == 0 {
                    worker.publish_clip(0, &StreamKey::parse(DEMO_KEY).expect("a good name"));
                }
                worker.run();
            },
        )?;
    }
    let threads = waiting.for_all()?;
    shared.enter(Phase::Ready);
    Ok(Server { shared, threads })
}

/// Threads of loops that make their rings, each its own, and wait until all have one.
struct Waiting {
    loops: usize,
    threads: Vec<JoinHandle<()>>,
    /// Lets a loop begin; dropped, it ends.
    go: Vec<Sender<()>>,
    report: Sender<Result<(), RingError>>,
    reports: Receiver<Result<(), RingError>>,
}

impl Waiting {
    fn new(loops: usize) -> Self {
        let (report, reports) = channel();
        Self { loops, threads: Vec::new(), go: Vec::new(), report, reports }
    }

    /// Starts a loop's thread: it makes the ring, which no other thread may use, and runs when all have theirs.
    fn spawn<R>(
        &mut self,
        index: usize,
        make: impl Fn() -> Result<R, RingError> + Send + 'static,
        run: impl FnOnce(R) + Send + 'static,
    ) -> Result<(), StartError> {
        let (go, begin) = channel();
        let report = self.report.clone();
        let thread = std::thread::Builder::new().name(format!("loop-{index}"));
        let spawned = thread.spawn(move || {
            let ring = make_ring(make);
            let (ring, made) = match ring {
                Ok(ring) => (Some(ring), Ok(())),
                Err(error) => (None, Err(error)),
            };
            let told = report.send(made);
            drop(report);
            if let (Some(ring), Ok(()), Ok(())) = (ring, told, begin.recv()) {
                run(ring);
            }
        });
        self.threads.push(spawned.map_err(|error| StartError::Threads { loops: self.loops, error })?);
        self.go.push(go);
        Ok(())
    }

    /// Lets the loops run if all have their rings; else they end.
    fn for_all(self) -> Result<Vec<JoinHandle<()>>, StartError> {
        let Self { loops, threads, go, report, reports } = self;
        drop(report);
        let made = reports.iter().collect::<Result<Vec<()>, RingError>>();
        match made {
            Ok(made) => assert_eq!(made.len(), loops, "a loop panicked before it began"),
            Err(error) => {
                drop(go);
                threads.into_iter().for_each(|thread| drop(thread.join()));
                return Err(error.of_rings(loops as u64).into());
            }
        }
        for go in go {
            go.send(()).expect("its loop waits for it");
        }
        Ok(threads)
    }
}

/// Makes a ring; while locked memory is short, several times.
fn make_ring<R>(make: impl Fn() -> Result<R, RingError>) -> Result<R, RingError> {
    for _ in 1..RING_TRIES {
        match make() {
            Err(RingError::LockedMemory { .. }) => std::thread::sleep(RING_PAUSE),
            other => return other,
        }
    }
    make()
}

/// The options of a listener whose clients may take nothing for as long as files may wait.
fn for_files(config: &Config) -> Config {
    let mut config = config.clone();
    config.live.stall = config.live.stall.max(config.limits.send_time);
    config
}

/// Opens the folders that are served and the one for fetched files. Only the file gateway alone has nothing to do
/// without its own.
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

/// Looks up the addresses of all servers that are connected to; those that fail keep what they had.
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
    /// Accepts nobody any more; loops end when their last connection is gone.
    pub fn drain(&self) {
        self.shared.enter(Phase::Draining);
        self.shared.tell_all(|| Message::Drain);
    }

    /// Ends the loops now.
    pub fn stop(&self) {
        self.shared.enter(Phase::Draining);
        self.shared.tell_all(|| Message::Stop);
    }

    /// Whether all loops have ended.
    pub fn is_finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
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

/// All listeners, by loop, and what each is for.
#[derive(Default)]
struct Plan {
    doors: Vec<Listener>,
    listeners: Vec<Listeners>,
}

impl Plan {
    /// Binds an address once for each loop and gives the port that it got.
    fn bind(
        &mut self,
        name: &'static str,
        address: SocketAddr,
        role: usize,
        speaks: Speaks,
        loops: usize,
        config: &Config,
    ) -> Result<SocketAddr, StartError> {
        let tag = u32::try_from(self.doors.len()).expect("a handful of listeners");
        self.doors.push(Listener { role, speaks });
        self.listeners.resize_with(loops, Vec::new);
        let why = |error, address| StartError::listen(name, address, error);
        // SO_REUSEPORT would share a port with a second instance: find that out first.
        drop(bind_one(address, config, false).map_err(|error| why(error, address))?);
        let mut bound = address;
        for listeners in &mut self.listeners {
            let listener = bind_one(bound, config, true).map_err(|error| why(error, bound))?;
            bound = listener.local_addr()?;
            listeners.push((tag, listener));
        }
        Ok(bound)
    }
}

/// Options are set on the listener: accepted sockets inherit them.
fn bind_one(address: SocketAddr, config: &Config, listen: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(listen)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_keepalive(true)?;
    let patience = TCP_USER_TIMEOUT.max(config.live.stall.saturating_add(AFTER_STALL));
    socket.set_tcp_user_timeout(Some(patience))?;
    if config.limits.sndbuf > 0 {
        socket.set_send_buffer_size(config.limits.sndbuf)?;
    }
    if let Ok(lowat) = u32::try_from(config.limits.notsent_lowat) {
        socket.set_tcp_notsent_lowat(lowat)?;
    }
    socket.bind(&address.into())?;
    if listen {
        socket.listen(BACKLOG)?;
    }
    Ok(socket.into())
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

/// A gateway beside an origin in one process pulls from it, whatever port that got.
fn follow_own_origin(config: &mut Config, flv: Option<SocketAddr>) {
    let Some(flv) = flv else { return };
    let own = |upstream: &&mut crate::config::Upstream| {
        upstream.host == "127.0.0.1" && upstream.port == config.origin.flv.port()
    };
    if let Some(upstream) = config.flv_gateway.upstream.iter_mut().find(own) {
        upstream.port = flv.port();
    }
}

/// How many descriptors a loop's sockets may take, and where, by the process's limit; and how many files it may
/// keep open.
fn descriptors(loops: usize) -> (Descriptors, usize) {
    /// Listeners, rings, recordings, the admin's connections.
    const RESERVE: u64 = 256;
    /// A limit that needs no stretching.
    const PLENTY: u64 = 1 << 18;
    /// Of a small limit, so much goes to files.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uring::limits::Lockable;

    fn short() -> RingError {
        RingError::LockedMemory { rings: 1, limit: Lockable(Some(64 << 10)) }
    }

    #[test]
    fn no_loop_runs_unless_all_have_their_rings() {
        let ran = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let spawn = |waiting: &mut Waiting, index: usize, bad: bool| {
            let ran = Arc::clone(&ran);
            let make = move || if bad && index == 2 { Err(short()) } else { Ok(index) };
            waiting.spawn(index, make, move |made| {
                assert_eq!(made, index);
                ran.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            })
        };
        let mut waiting = Waiting::new(4);
        (0..4).for_each(|index| spawn(&mut waiting, index, true).unwrap());
        let error = waiting.for_all().unwrap_err();
        assert!(matches!(error, StartError::Ring(RingError::LockedMemory { rings: 4, .. })), "{error}");
        assert_eq!((error.exit_code(), ran.load(std::sync::atomic::Ordering::Relaxed)), (75, 0));

        let mut waiting = Waiting::new(4);
        (0..4).for_each(|index| spawn(&mut waiting, index, false).unwrap());
        waiting.for_all().unwrap().into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(ran.load(std::sync::atomic::Ordering::Relaxed), 4);
    }

    #[test]
    fn a_ring_is_tried_again_while_locked_memory_is_short() {
        let tries = std::cell::Cell::new(0);
        let made = make_ring(|| {
            tries.set(tries.get() + 1);
            if tries.get() < 3 { Err(short()) } else { Ok(()) }
        });
        assert!(made.is_ok() && tries.get() == 3);
        tries.set(0);
        let forbidden = || RingError::Forbidden(io::Error::from(io::ErrorKind::PermissionDenied));
        let refused = make_ring(|| {
            tries.set(tries.get() + 1);
            Err::<(), _>(forbidden())
        });
        assert!(refused.is_err() && tries.get() == 1);
        assert_eq!(StartError::Ring(forbidden()).exit_code(), 69);
    }

    #[test]
    fn a_refused_memfd_says_what_it_is() {
        for (errno, advice) in [
            (Errno::PERM, "seccomp"),
            (Errno::NOSYS, "seccomp"),
            (Errno::MFILE, "LimitNOFILE"),
            (Errno::FBIG, "LimitFSIZE"),
        ] {
            let text = StartError::Memory(errno.into()).to_string();
            assert!(text.contains("memfd_create") && text.contains(advice), "{text}");
        }
    }

    #[test]
    fn the_kernel_gives_a_peer_up_later_than_we_do() {
        for stall in [1, 20, 60].map(Duration::from_secs) {
            let mut config = Config::default();
            config.live.stall = stall;
            let listener = bind_one(([127, 0, 0, 1], 0).into(), &config, false).unwrap();
            let timeout = socket2::SockRef::from(&listener).tcp_user_timeout().unwrap().unwrap();
            assert!(timeout > stall && timeout >= TCP_USER_TIMEOUT);
        }
    }
}
