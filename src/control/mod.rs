//! The side thread, on tokio-uring: signals, the admin listener, metrics, the log line of the traffic, the
//! recorder.
//!
//! It reads what the loops count and sends messages to them. A stall of this thread does not affect a loop.

mod admin;
mod client;
pub mod demo;
mod fetch;
mod file_metrics;
mod hook;
mod listings;
pub mod logging;
pub mod metrics;
mod notify;
mod recorder;
mod sums;
mod traffic;

use std::cell::RefCell;
use std::io::Write;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

use crate::access::load;
use crate::config::load::Sources;
use crate::config::{Auth, Config, Role, Tls};
use crate::server::certificates;
use crate::server::shared::Shared;
use crate::server::start::{Server, resolve_upstreams};
use logging::LogLevel;
use metrics::Metrics;
use notify::{Notifier, Word};
pub use recorder::check_data;

/// How often the names of upstreams are resolved again.
const RESOLVE: Duration = Duration::from_secs(30);
/// How often it is checked whether a served folder has appeared or was replaced.
const FOLDERS: Duration = Duration::from_secs(1);
/// How often it is checked whether the files of certificates and secrets have changed.
const CERTIFICATES: Duration = Duration::from_secs(5);

/// What the side thread works with.
#[derive(Debug)]
pub struct Control {
    /// The loops.
    pub server: Server,
    /// The metrics.
    pub metrics: Metrics,
    /// The sockets of the admin listener, bound but not accepting; none: it is off.
    pub admin: Vec<std::net::TcpListener>,
    /// Changes the log's filter.
    pub log_level: LogLevel,
    /// What is printed once signals are handled: the `ready` line, and hints.
    pub announcement: String,
    /// The role, for a reload.
    pub role: Role,
    /// Where the configuration came from, for a reload.
    pub sources: Sources,
    /// Who may publish and play, as read last.
    pub auth: RefCell<Auth>,
}

/// Binds the admin listener. If the default address is taken, the process runs without one.
///
/// # Errors
/// When one of its configured addresses cannot be bound.
pub fn bind_admin(config: &Config) -> Result<Vec<std::net::TcpListener>, (SocketAddr, std::io::Error)> {
    let Some(listen) = &config.admin else { return Ok(Vec::new()) };
    match admin::bind(listen) {
        Err((address, error)) if !config.admin_explicit => {
            info!(%address, %error, "no admin listener: its default address is taken");
            Ok(Vec::new())
        }
        bound => bound,
    }
}

/// The runtime of the side thread, with its own ring: created before the server reports that it is ready.
///
/// # Errors
/// The error of the ring or of the runtime.
pub fn runtime() -> std::io::Result<tokio_uring::Runtime> {
    tokio_uring::Runtime::new(&tokio_uring::builder())
}

/// Runs until the server has ended.
pub fn run(runtime: &tokio_uring::Runtime, control: Control) {
    // A task of its own: the future that is blocked on is polled whenever any task is.
    let ended = runtime.block_on(async { tokio_uring::spawn(serve(control)).await });
    if let Err(error) = ended {
        std::panic::resume_unwind(error.into_panic());
    }
}

async fn serve(control: Control) {
    let control = Rc::new(control);
    let shared = &control.server.shared;
    let notifier = Notifier::from_environment();
    // A signal that comes before this ends the process at once; it has not reported yet that it is
    // ready.
    let Signals { mut end, hangup, user1 } = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return error!(%error, "cannot listen for signals"),
    };
    let sockets = control.admin.iter().filter_map(|listener| listener.try_clone().ok());
    admin::start(sockets, shared, &control.metrics);
    tokio_uring::spawn(traffic::watch(Arc::clone(shared)));
    tokio_uring::spawn(keep_alive(Rc::clone(&control), notifier.clone()));
    tokio_uring::spawn(resolve(Rc::clone(&control)));
    fetch::start(shared);
    let rules = Rc::clone(&control);
    hook::start(shared, move || rules.auth.borrow().clone());
    listings::start(shared);
    tokio_uring::spawn(watch_folders(Rc::clone(&control)));
    tokio_uring::spawn(reload(Rc::clone(&control), hangup));
    tokio_uring::spawn(watch_certificates(Arc::clone(shared)));
    tokio_uring::spawn(watch_secrets(Rc::clone(&control)));
    tokio_uring::spawn(reopen_logs(Rc::clone(&control), user1));
    let recorder = recorder::Recorder::start(Arc::clone(shared), control.role);
    let _ = writeln!(std::io::stderr(), "{}", control.announcement);
    notifier.tell(Word::Ready);
    until_told_to_end(&control, &notifier, &mut end).await;
    if let Some(recorder) = recorder {
        recorder.stop().await;
    }
}

/// The signals that are handled.
struct Signals {
    end: EndSignals,
    hangup: Signal,
    user1: Signal,
}

/// Those that end the process.
struct EndSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            end: EndSignals {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
            },
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
        })
    }
}

/// Waits for a signal, then drains or stops.
async fn until_told_to_end(control: &Control, notifier: &Notifier, signals: &mut EndSignals) {
    let EndSignals { terminate, interrupt } = signals;
    let drain = tokio::select! {
        _ = terminate.recv() => true,
        _ = interrupt.recv() => false,
        () = control.server.finished() => false,
    };
    notifier.tell(Word::Stopping);
    let config = &control.server.shared.config;
    if drain {
        info!(within = ?config.drain, "draining: no new connections; a second signal ends at once");
        control.server.drain();
        tokio::select! {
            () = control.server.finished() => {}
            () = tokio::time::sleep(config.drain) => info!("the drain took too long"),
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
    info!("stopping");
    control.server.stop();
    // A loop that hangs must not keep the process alive.
    let _ = tokio::time::timeout(Duration::from_secs(3), control.server.finished()).await;
    if let Some(log) = control.server.shared.access_log.get() {
        log.finish();
    }
}

/// Notifies systemd's watchdog for as long as the loops are alive.
async fn keep_alive(control: Rc<Control>, notifier: Notifier) {
    let Some(every) = notifier.watchdog() else { return };
    loop {
        tokio::time::sleep(every / 3).await;
        if admin::hanging_loop(&control.server.shared).is_none() {
            notifier.tell(Word::Alive);
        }
    }
}

/// Resolves the names of upstreams again from time to time.
async fn resolve(control: Rc<Control>) {
    loop {
        tokio::time::sleep(RESOLVE).await;
        let shared = Arc::clone(&control.server.shared);
        let _ = tokio::task::spawn_blocking(move || resolve_upstreams(&shared)).await;
    }
}

/// Opens the access log again at each SIGUSR1, after it was moved away.
async fn reopen_logs(control: Rc<Control>, mut told: Signal) {
    while told.recv().await.is_some() {
        if let Some(log) = control.server.shared.access_log.get() {
            log.reopen();
        }
    }
}

/// Checks that the served folders are those that their names refer to now, and forgets who watches no more.
async fn watch_folders(control: Rc<Control>) {
    loop {
        tokio::time::sleep(FOLDERS).await;
        let shared = Arc::clone(&control.server.shared);
        let _ = tokio::task::spawn_blocking(move || {
            for site in shared.roles.iter().filter_map(|role| role.files.as_ref()) {
                site.refresh();
                site.audience.forget(shared.now());
            }
        })
        .await;
    }
}

/// Reads the configuration again at each SIGHUP. Keys that can change without disturbing clients take effect.
async fn reload(control: Rc<Control>, mut hangup: Signal) {
    while hangup.recv().await.is_some() {
        match control.sources.load(control.role) {
            Ok(config) => {
                if let Err(error) = control.log_level.set(&config.log) {
                    warn!(%error, "cannot change the log's filter");
                }
                load_certificates(&control.server.shared, &config.tls).await;
                *control.auth.borrow_mut() = config.auth.clone();
                load_access(&control).await;
                info!(
                    log = config.log,
                    "reloaded the log's filter, the certificates and [auth]; other keys take effect at a restart"
                );
            }
            Err(error) => error!(%error, "the configuration is wrong and was not reloaded"),
        }
    }
}

/// Reads the certificates again when their files have changed.
async fn watch_certificates(shared: Arc<Shared>) {
    let tls = shared.config.tls.clone();
    if !tls.is_on() {
        return;
    }
    let mut known = certificates::changed(&tls);
    loop {
        tokio::time::sleep(CERTIFICATES).await;
        let changed = certificates::changed(&tls);
        if changed != known {
            known = changed;
            load_certificates(&shared, &tls).await;
        }
    }
}

/// Reads keys and secrets again when their files have changed.
async fn watch_secrets(control: Rc<Control>) {
    let changed = || load::changed(&control.auth.borrow());
    let mut known = changed();
    loop {
        tokio::time::sleep(CERTIFICATES).await;
        if known != changed() {
            known = changed();
            load_access(&control).await;
        }
    }
}

/// Reads keys and secrets; if that fails, the present ones stay.
async fn load_access(control: &Control) {
    let (shared, auth) = (Arc::clone(&control.server.shared), control.auth.borrow().clone());
    match tokio::task::spawn_blocking(move || shared.authority.reload(&auth)).await {
        Ok(Ok(())) => info!("read the keys and the secrets of [auth]"),
        Err(_) => {}
        Ok(Err(error)) => error!(%error, "[auth] was not reloaded; the present keys and secrets stay"),
    }
}

/// Reads the certificates; if that fails, the present ones stay.
async fn load_certificates(shared: &Arc<Shared>, tls: &Tls) {
    if !tls.is_on() || !shared.config.tls.is_on() {
        return; // listeners begin or cease to take TLS at a restart
    }
    let tls = tls.clone();
    match tokio::task::spawn_blocking(move || certificates::load(&tls)).await {
        Ok(Ok(loaded)) => {
            shared.certificates.store(loaded);
            info!("read the certificates; new connections get them");
        }
        Err(_) => {}
        Ok(Err(error)) => error!(%error, "the certificates were not read; the present ones stay"),
    }
}
