//! Upstreams that are frozen, gone, or have nothing: the next one serves, and nothing goes on for clients that left.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::harness::raw::{Feed, connect};
use crate::harness::{Flavor, Scratch, Server, Watch, http, nobody, until};

/// A gateway of one loop that pulls from these, in this order.
fn gateway(scratch: &Scratch, upstreams: &[SocketAddr], more: &str) -> Server {
    let file = scratch.path("gateway.toml");
    let upstreams: Vec<String> = upstreams.iter().map(|addr| format!("http://{addr}")).collect();
    std::fs::write(&file, format!("loops = 1\n[flv_gateway]\nupstream = {upstreams:?}\n{more}")).unwrap();
    let any = "127.0.0.1:0";
    let args = ["flv-gateway", "--listen", any, "--admin", any, "--config", file.to_str().unwrap()];
    Server::start(&scratch.path(""), &args)
}

fn label(upstream: SocketAddr) -> String {
    format!("upstream=\"http://{upstream}\"")
}

/// The kernel takes connections for it, and it never answers.
fn frozen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

/// The kernel drops every SYN to it: its queue is full of connections that nobody accepts.
struct Deaf {
    addr: SocketAddr,
    _listener: Socket,
    _queue: Vec<TcpStream>,
}

impl Deaf {
    fn new() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let addr = listener.local_addr().unwrap().as_socket().unwrap();
        let connected = || TcpStream::connect_timeout(&addr, Duration::from_millis(300)).ok();
        let queue: Vec<_> = std::iter::from_fn(connected).take(10).collect();
        assert!((1..10).contains(&queue.len()), "{} connections fit into no queue", queue.len());
        Self { addr, _listener: listener, _queue: queue }
    }
}

#[test]
fn the_second_upstream_serves_when_the_first_is_frozen_deaf_or_gone() {
    let scratch = Scratch::new("second");
    let origin = Server::origin(&scratch.path(""), "1s");
    let _feed = Feed::start(origin.addr("flv"), "live/second");
    let (stuck, deaf) = (frozen(), Deaf::new());
    for first in [stuck.local_addr().unwrap(), deaf.addr, nobody()] {
        // With its default wait.
        let mut gateway = gateway(&scratch, &[first, origin.addr("flv")], "");
        for _ in 0..3 {
            let watch = Watch::start(gateway.addr("listen"), "/live/second.flv", Flavor::Http);
            watch.wait("a picture", |tags| tags.iter().any(|tag| tag.key));
        }
        gateway.wait_metric("uringcast_upstream_up", &label(first), |up| up == 0.0);
        gateway.wait_metric("uringcast_upstream_up", &label(origin.addr("flv")), |up| up == 1.0);
        assert_eq!(http(gateway.addr("admin"), "GET", "/readyz", "").0.status, 200);
        gateway.assert_up();
    }
}

/// Nobody watches: the gateway looks for itself, and an open port alone is not "up".
#[test]
fn an_upstream_is_up_when_it_has_answered() {
    let scratch = Scratch::new("answers");
    let (stuck, addr) = (frozen(), nobody());
    let upstreams = [stuck.local_addr().unwrap(), addr];
    let mut gateway = gateway(&scratch, &upstreams, "");
    let up = |upstream: SocketAddr| gateway.metric("uringcast_upstream_up", &label(upstream)) > 0.0;
    let (any, flv) = ("127.0.0.1:0", addr.to_string());
    assert!(!up(upstreams[0]) && !up(upstreams[1]));
    let _origin = Server::origin_at(&scratch.path(""), "1s", [any, &flv, any, any]);
    until("the second to be up", || up(upstreams[1]).then_some(()));
    assert!(!up(upstreams[0]));
    gateway.assert_up();
}

/// An upstream that has nothing, and counts how often it is asked.
fn empty_upstream() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (addr, asked) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let len = socket.read(&mut [0; 4096]).unwrap_or(0);
            count.fetch_add(usize::from(len > 0), Ordering::Relaxed);
            let _ =
                socket.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    (addr, asked)
}

/// Asks for so many streams and hangs up at once each time.
fn ask_and_hang_up(addr: SocketAddr, count: usize) {
    for turn in 0..count {
        let mut socket = connect(addr);
        write!(socket, "GET /live/none{turn}.flv HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    }
}

#[test]
fn clients_that_hang_up_leave_no_pulls() {
    const CLIENTS: usize = 1_000;
    let scratch = Scratch::new("hung-up");
    let (empty, asked) = empty_upstream();
    let stuck = frozen();
    for upstream in [empty, stuck.local_addr().unwrap()] {
        let mut gateway = gateway(&scratch, &[upstream], "");
        ask_and_hang_up(gateway.addr("listen"), CLIENTS);
        gateway.wait_metric("uringcast_accepted_total", "", |accepted| accepted >= 1_000.0);
        gateway.wait_metric("uringcast_pulls", "", |pulls| pulls == 0.0);
        gateway.wait_metric("uringcast_connections", "", |open| open == 0.0);
        gateway.wait_metric("uringcast_streams", "", |streams| streams == 0.0);
        let lines = gateway.guard.log().len();
        assert!(lines < 200, "{lines} lines are logged");
        gateway.assert_up();
    }
    let asked = asked.load(Ordering::Relaxed);
    assert!(asked <= 2 * CLIENTS, "the upstream is asked {asked} times for {CLIENTS} names");
}

/// Many ask for one name that nobody has: the upstream is asked now and then, not for each of them.
#[test]
fn a_name_that_nobody_has_is_asked_for_now_and_then() {
    let scratch = Scratch::new("negative");
    let (empty, asked) = empty_upstream();
    let mut gateway = gateway(&scratch, &[empty], "wait = \"1s\"\nnegative = \"20s\"\n");
    for _ in 0..3 {
        let clients: Vec<_> = (0..50)
            .map(|_| {
                let addr = gateway.addr("listen");
                std::thread::spawn(move || http(addr, "GET", "/live/nobody.flv", "").0.status)
            })
            .collect();
        assert!(clients.into_iter().all(|client| client.join().unwrap() == 404));
    }
    let asked = asked.load(Ordering::Relaxed);
    assert!(asked <= 30, "asked {asked} times by 150 clients");
    gateway.assert_up();
}
