//! Tokens that were changed, paths that climb around them, and services that do not decide as they should.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;

use crate::access::{origin, secrets, sign};
use crate::harness::raw::{Feed, connect, rest};
use crate::harness::{Flavor, Scratch, Server, Watch, http, nobody, until};

const ANY: &str = "127.0.0.1:0";

/// A file gateway with recordings of two streams, and a file beside its root. All that is in them is their name.
fn files(scratch: &Scratch) -> Server {
    for stream in ["a", "b"] {
        let folder = scratch.path("root/hls/live").join(stream);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("segment_0.ts"), stream).unwrap();
    }
    std::fs::write(scratch.path("outside"), "outside").unwrap();
    let file = secrets(scratch, "may:the-first-secret-of-all\n");
    let args = ["file-gateway", "--listen", ANY, "--admin", ANY, "--root", "root", "--auth-play", "deny"];
    let more = ["--auth-secret-file", file.to_str().unwrap(), "--access-log", "access.log"];
    Server::start(&scratch.path(""), &[&args[..], &more].concat())
}

/// The answer to a request for any target, on a connection of its own: its status and its body.
fn get(addr: SocketAddr, target: &str) -> (u16, String) {
    let mut socket = connect(addr);
    write!(socket, "GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let answer = rest(&mut socket);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{target}: {answer:?}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// All bytes percent-encoded.
fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

#[test]
fn a_token_that_was_changed_anywhere_is_none() {
    let scratch = Scratch::new("hostile-token");
    let mut gateway = files(&scratch);
    let addr = gateway.addr("listen");
    let token = sign(&scratch, "play", "live/a", &[]);
    let path = "/hls/live/a/segment_0.ts";
    let shown = |token: &str| get(addr, &format!("{path}?token={token}")).0;
    assert_eq!(shown(&token), 200);
    for cut in 1..token.len() {
        assert_ne!(shown(&token[..cut]), 200, "the first {cut} bytes");
        assert_ne!(shown(&token[cut..]), 200, "without the first {cut} bytes");
        // Another letter of the same alphabet, in bits that are not used as well.
        let other = if token.as_bytes()[cut] == b'A' { "B" } else { "A" };
        assert_ne!(shown(&format!("{}{other}{}", &token[..cut], &token[cut + 1..])), 200, "{other} at {cut}");
    }
    let next = |byte: u8| char::from(if byte == b'z' { b'0' } else { byte + 1 });
    let last = next(*token.as_bytes().last().unwrap());
    assert_ne!(shown(&format!("{}{last}", &token[..token.len() - 1])), 200, "the bits that are left over");
    let parts: Vec<&str> = token.split('.').collect();
    let (claims, signature) = (parts[1], parts[2]);
    let header = |text: &str| BASE64.encode(text);
    for changed in [
        format!("{token}%3d"),
        format!("{token}%00"),
        format!("{token}%0a"),
        format!("{token}%20"),
        format!("%20{token}"),
        format!("{token}."),
        format!(".{token}"),
        format!("{token}.{signature}"),
        format!("{}.{claims}.", header("{\"alg\":\"none\"}")),
        format!("{}.{claims}.{signature}", header("{\"alg\":\"none\"}")),
        format!("{}.{claims}.{signature}", header("{\"alg\":\"HS256\"}")),
        format!("{}.{claims}.{signature}", header("{\"alg\":\"hs256\",\"kid\":\"may\"}")),
        format!(
            "{}.{}.{signature}",
            parts[0],
            header("{\"action\":\"play\",\"stream\":\"*\",\"exp\":9999999999}")
        ),
        format!("{claims}.{}.{signature}", parts[0]),
        token.to_uppercase(),
        "x".repeat(8_000),
        "..".to_owned(),
    ] {
        assert_ne!(shown(&changed), 200, "{changed}");
    }
    // The same token in other letters is the same token, for the same stream.
    for (target, status) in [
        (format!("{path}?token={}", encoded(&token)), 200),
        (format!("{path}?%74oken={token}"), 200),
        (format!("/%7e{}{path}", encoded(&token)), 200),
        (format!("/~{token}{}", path.replace('a', "%61")), 200),
        (format!("/~{token}{}", path.replace("/a/", "/%62/")), 403),
        (format!("{}?token={}", path.replace("/a/", "/b/"), encoded(&token)), 403),
    ] {
        assert_eq!(get(addr, &target).0, status, "{target}");
    }
    // None of these ways writes it to the log.
    let log = until("the log", || {
        std::fs::read_to_string(scratch.path("access.log")).ok().filter(|log| log.contains("/%62/"))
    });
    let whole = [signature.to_owned(), encoded(signature)];
    assert!(!log.lines().any(|line| whole.iter().any(|part| line.contains(part.as_str()))), "{log}");
    gateway.assert_up();
}

#[test]
fn no_path_climbs_from_one_stream_to_another_around_a_token() {
    let scratch = Scratch::new("hostile-path");
    let mut gateway = files(&scratch);
    let addr = gateway.addr("listen");
    let token = sign(&scratch, "play", "live/a", &[]);
    assert_eq!(get(addr, &format!("/~{token}/hls/live/a/segment_0.ts")), (200, "a".to_owned()));
    let other = "/hls/live/b/segment_0.ts";
    let mut targets: Vec<String> = [
        "/~T/hls/live/b/segment_0.ts",
        "/~T//hls/live/b/segment_0.ts",
        "//~T/hls/live/b/segment_0.ts",
        "/./~T/hls/live/b/segment_0.ts",
        "/x/../~T/hls/live/b/segment_0.ts",
        "/~T/~T/hls/live/b/segment_0.ts",
        "/~x/~T/hls/live/b/segment_0.ts",
        "/~T%2fhls/live/b/segment_0.ts",
        "/~T%2f..%2fhls/live/b/segment_0.ts",
        "/~T/..%2fhls/live/b/segment_0.ts",
        "/~/hls/live/b/segment_0.ts?token=T",
        "/~../hls/live/b/segment_0.ts?token=T",
        "/hls/~T/live/b/segment_0.ts",
        "/hls/live/b/~T/segment_0.ts",
        "/hls/live/b/segment_0.ts/~T",
        "/hls/live/b/../../~T/live/b/segment_0.ts",
        "/~T/hls/live/B/segment_0.ts",
        "/~T/hls/live/b%00/segment_0.ts",
        "/~T/hls/live/b/segment_0.ts%00",
        "/~T/hls/live/b/segment_0.ts?stream=live/a",
        "/~T/hls/live/b/segment_0.ts?/live/a/segment_0.ts",
        "http://localhost/~T/hls/live/b/segment_0.ts",
        "http://localhost@/~T/hls/live/b/segment_0.ts",
        "/~T/hls/live/a/b/segment_0.ts",
        "/~T/hls/live/a%2fb/segment_0.ts",
        "/~T/hls/live%2fb/segment_0.ts",
        "/~T/hls%2flive/b/segment_0.ts",
    ]
    .map(|target| target.replace('T', &token))
    .into();
    for up in ["..", "%2e%2e", ".%2e", "%2E.", "%252e%252e", "..;", "..%00", "...", ". .", "%c0%ae%c0%ae"] {
        for slash in ["/", "%2f", "%2F", "\\", "%5c", "//", "/./", "%252f", "%c0%af"] {
            let (climb, start) = (format!("{slash}{up}{slash}"), format!("/~{token}"));
            targets.push(format!("{start}/hls/live/a{climb}b/segment_0.ts"));
            targets.push(format!("{start}/hls/live/a/segment_0.ts{climb}..{slash}b/segment_0.ts"));
            targets.push(format!("{start}{climb}hls/live/b/segment_0.ts"));
            targets.push(format!("{start}{climb}..{slash}outside"));
            targets.push(format!("{start}/hls/live/a{climb}..{slash}..{slash}..{slash}outside"));
        }
    }
    for target in targets {
        let (status, body) = get(addr, &target);
        assert!(body != "b" && body != "outside", "{target}: {status}");
        assert!(status >= 400, "{target}: {status} {body}");
    }
    assert_eq!(get(addr, &format!("/~{}{other}", sign(&scratch, "play", "live/b", &[]))).0, 200);
    gateway.assert_up();
}

type Step = fn(&mut TcpStream, usize);

/// A service that does with every connection what `step` does, which is told how often it has done so before.
fn service(step: Step) -> SocketAddr {
    let listener = TcpListener::bind(ANY).unwrap();
    let addr = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let mut open: Vec<(TcpStream, usize)> = Vec::new();
        loop {
            for (socket, _) in std::iter::from_fn(|| listener.accept().ok()) {
                socket.set_nonblocking(true).unwrap();
                open.push((socket, 0));
            }
            for (socket, turn) in &mut open {
                let _ = socket.read(&mut [0; 4096]);
                step(socket, *turn);
                *turn += 1;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    addr
}

/// What services do that do not decide.
const FAULTS: [(&str, Step); 5] = [
    ("silent", |_, _| {}),
    ("closing", |socket, _| drop(socket.shutdown(std::net::Shutdown::Both))),
    ("trickling", |socket, turn| {
        let answer = b"HTTP/1.1 200 OK\r\nX-Slow: ";
        let _ = socket.write(&[*answer.get(turn).unwrap_or(&b'x')]);
    }),
    ("endless in its head", |socket, turn| {
        let status: &[u8] = if turn == 0 { b"HTTP/1.1 200 OK\r\n" } else { b"" };
        let _ = socket.write(&[status, &b"X-More: more\r\n".repeat(100)].concat());
    }),
    ("endless in its body", |socket, turn| {
        let head: &[u8] =
            if turn == 0 { b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n{\"end\":" } else { b"" };
        let _ = socket.write(&[head, &b"1".repeat(1_000)].concat());
    }),
];

#[test]
fn a_service_that_does_not_decide_opens_nothing_and_holds_nobody_up() {
    let dead = [("dead", nobody())].into_iter();
    for (fault, hook) in dead.chain(FAULTS.map(|(fault, step)| (fault, service(step)))) {
        let scratch = Scratch::new("hostile-hook");
        let text = format!(
            "[auth]\nhook = \"http://{hook}\"\nhook_timeout = \"1s\"\nsecret_file = \"SECRETS\"\n\
             hook_down_play = \"deny\"\n"
        );
        let mut origin = origin(&scratch, &text, &["--record", "none", "--wait", "0s"]);
        let addr = origin.addr("flv");
        let _feed = Feed::start(addr, &format!("live/a?token={}", sign(&scratch, "publish", "live/a", &[])));
        let path = format!("/live/a.flv?token={}", sign(&scratch, "play", "live/a", &[]));
        let watch = Watch::start(addr, Box::leak(path.into_boxed_str()), Flavor::Http);
        watch.wait_pictures_after(0);
        // More questions at a time than are kept, each of another client.
        let ask = |turn: usize| {
            let mut socket = connect(addr);
            let method = if turn.is_multiple_of(2) { "GET" } else { "POST" };
            let head = format!("{method} /live/{turn}.flv?token=t{turn} HTTP/1.1\r\nHost: localhost\r\n");
            write!(socket, "{head}Connection: close\r\nContent-Length: {}\r\n\r\n", turn % 2).unwrap();
            socket
        };
        let mut asking: Vec<TcpStream> = (0..1_200).map(ask).collect();
        let mark = watch.count();
        watch.wait_pictures_after(mark);
        for (turn, socket) in asking.iter_mut().enumerate() {
            let mut status = [0; 12];
            socket.read_exact(&mut status).unwrap();
            assert!(
                [&b"HTTP/1.1 401"[..], b"HTTP/1.1 403", b"HTTP/1.1 503"].contains(&&status[..]),
                "{fault}, {turn}: {}",
                String::from_utf8_lossy(&status)
            );
        }
        let (_, list) = http(origin.addr("admin"), "GET", "/api/v1/streams", "");
        assert_eq!(String::from_utf8(list).unwrap().matches("\"key\":").count(), 1, "{fault}");
        assert!(origin.memory() < 256 << 20, "{fault}: {} bytes", origin.memory());
        watch.assert_well();
        origin.assert_up();
    }
}
