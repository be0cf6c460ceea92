//! From a seed to a run: the processes, the limits, the publishers and the viewers.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::check::Reader;
use super::client::{Client, ROOT};
use super::engine::SimEngine;
use super::media::{Library, Taste, Tracks};
use super::net::{Action, World};
use super::operator::Operator;
use super::publisher::{Going, Plan, Publisher};
use super::rng::Rng;
use super::tls::{self, Tls};
use super::viewer::{Garbage, Manner, Viewer};
use super::{Peer, Simulation};
use crate::config::{Config, Flush, Forward, Policy, Pull, Remote, Role, Upstream};
use crate::live::stream::Selection;
use crate::memory::Arena;
use crate::server::authority::Authority;
use crate::server::http::routes::{FILE_GATEWAY, FLV_GATEWAY, STREAM_PORT};
use crate::server::reception::{Capacity, Listener, Speaks};
use crate::server::roles::{RoleState, Source, roles};
use crate::server::shared::{Addresses, Phase, Shared};
use crate::server::viewers::fanout::SLICE;
use crate::server::worker::Worker;
use crate::uring::Millis;
use crate::uring::mailbox::{Wake, mailbox};

const RTMP: u16 = 1935;
const FLV: u16 = 8501;
/// The first gateway; each further one listens on the next port.
const GATEWAY: u16 = 8080;
/// The file gateway.
const FILES: u16 = 8100;
/// The far origin, which gets its streams by relays.
const FAR_RTMP: u16 = 1936;
const FAR_FLV: u16 = 8502;
/// A port without a listener.
const NOWHERE: u16 = 9;

/// The streams that may be published.
const KEYS: [&str; 2] = ["a", "b"];
/// How long a stream outlives its publisher, everywhere.
const GAP: Millis = 4_000;
/// How long a publisher may be silent.
const SILENCE: Millis = 2_000;

/// Whether the listener at a port speaks RTMP.
pub(super) fn speaks_rtmp(port: u16) -> bool {
    matches!(port, RTMP | FAR_RTMP)
}

/// Whether a connection leads to the far origin.
pub(super) fn is_far(port: u16) -> bool {
    matches!(port, FAR_RTMP | FAR_FLV)
}

/// Builds a run.
pub(super) fn build(seed: u64, trace: bool) -> Simulation {
    let mut world = World::new(seed, trace);
    let rng = &mut world.rng;
    let troubled = rng.chance(500);
    let wide = rng.chance(300);
    let calm = rng.range(3_000, 9_000);
    let gateways = rng.pick(&[0, 1, 1, 2]);
    let together = gateways > 0 && rng.chance(500);
    let mut config = config(rng, wide);
    config.auth.publish = Policy::Open;
    let (forwards, pulls) = if rng.chance(400) { relays(rng) } else { (Vec::new(), Vec::new()) };
    let far = !forwards.is_empty() || !pulls.is_empty();
    world.out_cap = world.rng.pick(&[4 << 10, 16 << 10, 64 << 10]);
    world.troubled = troubled;
    world.busy = world.rng.chance(300);
    world.log(|| {
        format!(
            "gateways {gateways}, together {together}, wide {wide}, troubled {troubled}, forwards {:?}, pulls {:?} {:?}",
            forwards.len(),
            pulls.len(),
            config.live
        )
    });
    let mut simulation = Simulation {
        world: Rc::new(RefCell::new(world)),
        processes: Vec::new(),
        workers: Vec::new(),
        paused: Vec::new(),
        peers: Vec::new(),
        libraries: Vec::new(),
        calm,
        troubled,
        wide,
        far: far.then_some(usize::from(gateways) + 1),
    };
    config.forward = forwards;
    for level in 0..=gateways {
        if !(level == 1 && together) {
            simulation.add_process(&config, level, level == 0 && together);
        }
    }
    if far {
        config.forward.clear();
        config.pull = pulls;
        simulation.add_far_origin(config.clone());
        config.pull.clear();
    }
    simulation.add_publishers();
    simulation.add_viewers(gateways);
    if simulation.world.borrow_mut().rng.chance(400) {
        simulation.add_file_gateway(&config);
    }
    if troubled {
        let mut world = simulation.world.borrow_mut();
        for _ in 0..world.rng.size(0, 4) {
            let at = world.rng.range(1_000, calm);
            world.at(at, Action::Fault);
        }
    }
    simulation
}

fn flush(rng: &mut Rng) -> Flush {
    let every = |millis| Flush::Every(Duration::from_millis(millis));
    rng.pick(&[Flush::Auto, every(0), every(40), every(350)])
}

fn config(rng: &mut Rng, wide: bool) -> Config {
    let millis = Duration::from_millis;
    let mut config = Config::default();
    config.live.gop_bytes = if wide { 8 << 20 } else { rng.pick(&[64 << 10, 256 << 10, 1 << 20]) };
    config.live.gop_frames = if wide { 6_000 } else { rng.pick(&[100, 1_000]) };
    config.live.gop_time = millis(rng.pick(&[3_000, 60_000]));
    config.live.lag_bytes = if wide { 8 << 20 } else { rng.pick(&[32 << 10, 128 << 10, 1 << 20]) };
    config.live.lag_time = millis(if wide { 60_000 } else { rng.pick(&[1_000, 3_000]) });
    config.live.stall = millis(rng.pick(&[3_000, 20_000]));
    config.live.flush_max = millis(rng.pick(&[0, 20, 500]));
    config.limits.request_time = millis(2_000);
    config.origin.flush = flush(rng);
    config.origin.wait = millis(3_000);
    config.origin.gap = millis(GAP);
    config.origin.silence = millis(SILENCE);
    config.origin.stale = millis(rng.pick(&[500, 1_500, 15_000]));
    config.flv_gateway.flush = flush(rng);
    config.flv_gateway.wait = millis(3_000);
    config.flv_gateway.gap = millis(GAP);
    config.flv_gateway.silence = millis(rng.pick(&[1_500, 15_000]));
    config.flv_gateway.linger = millis(rng.pick(&[500, 3_000]));
    config
}

/// The relays that take the streams of the origin to the far one. If two of them lead to the same name there,
/// one of them gets it.
fn relays(rng: &mut Rng) -> (Vec<Forward>, Vec<Pull>) {
    let remote = |rtmp: bool, port: u16, path: &str| {
        let (host, path) = ("127.0.0.1".to_owned(), path.to_owned());
        Remote { rtmp, secure: false, authority: format!("{host}:{port}"), host, port, path }
    };
    let (mut forwards, mut pulls) = (Vec::new(), Vec::new());
    for _ in 0..rng.pick(&[1, 1, 2]) {
        let rtmp = rng.chance(500);
        if rng.chance(500) {
            let to = remote(rtmp, if rtmp { FAR_RTMP } else { FAR_FLV }, "/live/{name}");
            forwards.push(Forward { stream: "live/*".to_owned(), to });
            continue;
        }
        let (port, ending) = if rtmp { (RTMP, "") } else { (FLV, ".flv") };
        for key in KEYS {
            let from = remote(rtmp, port, &format!("/live/{key}{ending}"));
            pulls.push(Pull { stream: format!("live/{key}"), from });
        }
    }
    (forwards, pulls)
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

impl Simulation {
    /// A process of one to three loops: the origin (`level` 0), one that includes a gateway, or a gateway
    /// alone.
    fn add_process(&mut self, config: &Config, level: u16, with_gateway: bool) {
        let mut config = config.clone();
        let gateway = if level == 0 { 1 } else { level };
        let from = if gateway == 1 { FLV } else { GATEWAY + gateway - 2 };
        let upstream =
            |port| Upstream { secure: false, host: "127.0.0.1".to_owned(), port, prefix: String::new() };
        config.flv_gateway.upstream = vec![upstream(from)];
        if self.world.borrow_mut().rng.chance(200) {
            config.flv_gateway.upstream.insert(0, upstream(NOWHERE));
        }
        let arena = Arena::new().expect("memory");
        let role = match (level, with_gateway) {
            (0, false) => Role::Origin,
            (0, true) => Role::Demo { gateway: true },
            _ => Role::FlvGateway,
        };
        let roles = roles(&config, role, &arena);
        for role in &roles {
            let Source::Upstreams(upstreams) = &role.source else { continue };
            upstreams.iter().for_each(|up| up.addresses.store(Arc::new(vec![local(up.url.port)])));
        }
        let mut listeners = Vec::new();
        if level == 0 {
            listeners.push((Listener::new(0, Speaks::Rtmp), RTMP));
            listeners.push((Listener::new(0, Speaks::Http(&STREAM_PORT)), FLV));
        }
        if level > 0 || with_gateway {
            listeners
                .push((Listener::new(roles.len() - 1, Speaks::Http(&FLV_GATEWAY)), GATEWAY + gateway - 1));
        }
        self.start(config, arena, roles, &listeners);
    }

    /// A process that gets its streams by relays, sometimes over a slow line.
    fn add_far_origin(&mut self, config: Config) {
        let arena = Arena::new().expect("memory");
        let roles = roles(&config, Role::Origin, &arena);
        {
            let mut world = self.world.borrow_mut();
            if world.rng.chance(200) {
                world.slow_from = world.loops.len();
            }
        }
        let rtmp = (Listener::new(0, Speaks::Rtmp), FAR_RTMP);
        self.start(config, arena, roles, &[rtmp, (Listener::new(0, Speaks::Http(&STREAM_PORT)), FAR_FLV)]);
    }

    /// A process that serves files, and its clients.
    fn add_file_gateway(&mut self, config: &Config) {
        let mut config = config.clone();
        config.file_gateway.root = ROOT.into();
        let arena = Arena::new().expect("memory");
        let roles = roles(&config, Role::FileGateway, &arena);
        for site in roles.iter().filter_map(|role| role.files.as_ref()) {
            site.open().expect("this package has a folder");
        }
        self.start(config, arena, roles, &[(Listener::new(0, Speaks::Http(&FILE_GATEWAY)), FILES)]);
        let world = Rc::clone(&self.world);
        let mut world = world.borrow_mut();
        for _ in 0..world.rng.size(1, 8) {
            let peer = self.peers.len();
            let client = Client::new(peer, FILES, &mut world.rng);
            self.peers.push(Peer::Client(Box::new(client)));
            let at = world.rng.range(0, self.calm);
            world.at(at, Action::Timer(peer));
        }
    }

    fn start(
        &mut self,
        config: Config,
        arena: Arc<Arena>,
        roles: Vec<RoleState>,
        listeners: &[(Listener, u16)],
    ) {
        let loops = self.world.borrow_mut().rng.size(1, 3);
        let tags: Vec<(u32, u16)> = (0u32..).zip(listeners).map(|(tag, (_, port))| (tag, *port)).collect();
        let (mut posts, mut mails) = (Vec::new(), Vec::new());
        for _ in 0..loops {
            let at = self.world.borrow_mut().add_loop(&tags);
            let call = Arc::clone(&self.world.borrow().loops[at].called);
            let (post, mail) = mailbox(call as Arc<dyn Wake>);
            posts.push(post);
            mails.push((at, mail));
        }
        let authority = Authority::load(&config.auth).expect("no files");
        let shared =
            Shared::new((config, authority), arena, roles, posts, Addresses::default(), Instant::now());
        let shared = Arc::new(shared);
        let forwards = shared.forwards.iter().zip(shared.config.forward.iter().map(|forward| &forward.to));
        let pulls = shared.pulls.iter().zip(shared.config.pull.iter().map(|pull| &pull.from));
        forwards.chain(pulls).for_each(|(slot, remote)| slot.store(Arc::new(vec![local(remote.port)])));
        shared.certificates.store(Some(tls::server()));
        shared.enter(Phase::Ready);
        for (index, (at, mail)) in mails.into_iter().enumerate() {
            let capacity = Capacity { connections: usize::MAX, reserve: 0, files: 4 };
            let engine = SimEngine { world: Rc::clone(&self.world), at };
            let listeners = listeners.iter().map(|(listener, _)| *listener).collect();
            let mut worker = Worker::new(engine, index, Arc::clone(&shared), listeners, mail, capacity);
            worker.serve_in_one_step(self.world.borrow_mut().rng.pick(&[1, 2, SLICE]));
            self.workers.push(worker);
            self.paused.push(0);
        }
        self.processes.push(shared);
    }

    fn add_publishers(&mut self) {
        let world = Rc::clone(&self.world);
        let mut world = world.borrow_mut();
        let keys = world.rng.pick(&[1, 1, 2]);
        for (key, name) in KEYS.iter().enumerate().take(keys) {
            let tracks =
                world.rng.pick(&[Tracks::Both, Tracks::Both, Tracks::Both, Tracks::Audio, Tracks::Video]);
            let (crawls, sessions) = (world.rng.chance(100), Vec::new());
            self.libraries.push(Library {
                key: (*name).to_owned(),
                tracks,
                crawls,
                sessions,
                versions: [0; 3],
            });
            let taste = Taste {
                gop: world.rng.pick(&[(3, 20), (20, 40), (25, 25), (20, 150)]),
                inter: world.rng.pick(&[300, 2_000, 5_000]),
                key: world.rng.pick(&[2_000, 20_000, 60_000]),
                huge: world.rng.pick(&[0, 0, 50]),
            };
            let plans = self.plans(&mut world.rng);
            let peer = self.peers.len();
            let port = if world.rng.chance(500) { RTMP } else { FLV };
            let publisher = Publisher::new(peer, key, port, taste, plans);
            self.peers.push(Peer::Publisher(Box::new(publisher)));
            let at = world.rng.range(0, 2_000);
            world.at(at, Action::Timer(peer));
        }
    }

    fn plans(&self, rng: &mut Rng) -> VecDeque<Plan> {
        let sessions = rng.size(1, 3);
        (1..=sessions)
            .map(|number| {
                let last = number == sessions || rng.chance(200);
                // After the last one, so long that the stream is over however it ended.
                let pause = if last { GAP + SILENCE + 3_000 } else { rng.range(0, 1_500) };
                let until = if number == sessions { self.calm + 5_000 } else { 0 };
                let goings = [Going::Clean, Going::Clean, Going::HangsUp, Going::Torn, Going::Silent];
                let going = rng.pick(&goings);
                Plan { length: rng.range(500, 5_000), at_least_until: until, going, pause, last }
            })
            .collect()
    }

    fn add_viewers(&mut self, gateways: u16) {
        let world = Rc::clone(&self.world);
        let mut world = world.borrow_mut();
        let storm = world.rng.chance(100).then(|| world.rng.range(500, 6_000));
        let count = if storm.is_some() { 40 } else { world.rng.size(3, 10) };
        for _ in 0..count {
            let rng = &mut world.rng;
            let at = storm.unwrap_or_else(|| rng.range(0, self.calm + 4_000));
            let peer = self.peers.len();
            let levels = self.far.unwrap_or(usize::from(gateways));
            let level = rng.size(0, levels);
            let far = self.far == Some(level);
            let (rtmp_port, port) = match u16::try_from(level).expect("few") {
                _ if far => (FAR_RTMP, FAR_FLV),
                0 => (RTMP, FLV),
                level => (RTMP, GATEWAY + level - 1),
            };
            if rng.chance(100) {
                let port = if rng.chance(500) { rtmp_port } else { port };
                let patient = rng.chance(500);
                self.peers.push(Peer::Garbage(Garbage { peer, port, patient, end: None, done: false }));
                world.at(at, Action::Timer(peer));
                continue;
            }
            let rtmp = (level == 0 || far) && rng.chance(300);
            let port = if rtmp { rtmp_port } else { port };
            let websocket = !rtmp && rng.chance(400);
            let selection = rng.pick(&[
                Selection::All,
                Selection::All,
                Selection::All,
                Selection::Audio,
                Selection::Video,
            ]);
            let from = at + rng.range(0, 5_000);
            let manner = match rng.range(0, 9) {
                0..=1 if rtmp => Manner::Pauses(from, from + rng.range(0, 4_000)),
                0..=4 => Manner::Fast,
                5..=6 => Manner::Slow,
                7 => Manner::Stalls(from, from + rng.range(200, 6_000)),
                8 => Manner::Stalls(from, Millis::MAX),
                _ => Manner::Leaves(from),
            };
            let mut reader = Reader::new(websocket, selection);
            reader.may_repeat = far;
            let tls = rng.chance(250).then(|| Box::new(Tls::new()));
            let viewer = Viewer {
                peer,
                key: rng.size(0, self.libraries.len() - 1),
                level,
                port,
                manner,
                gop: rng.chance(800),
                websocket,
                reader,
                tls,
                end: None,
                asked: 0,
                ended: None,
                pings: 0,
                kicked: false,
            };
            self.peers.push(Peer::Viewer(Box::new(viewer)));
            world.at(at, Action::Timer(peer));
            if world.rng.chance(150) {
                let operator = self.peers.len();
                self.peers.push(Peer::Operator(Operator::new(operator, peer)));
                let at = at + world.rng.range(0, 6_000);
                world.at(at, Action::Timer(operator));
            }
        }
    }
}
