//! TLS on every listener, as a server and as a client of other servers.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::harness::ffmpeg::{make_clip, publish};
use crate::harness::flv::{self, Brief};
use crate::harness::process::Guard;
use crate::harness::secure::Certificate;
use crate::harness::{Flavor, Scratch, Server, Watch, http, need_ffmpeg, until};

const ANY: &str = "127.0.0.1:0";

pub(crate) fn origin(scratch: &Scratch, certificate: &Certificate, config: &str, more: &[&str]) -> Server {
    let file = scratch.path(&format!("{}.toml", config.len()));
    std::fs::write(&file, config).unwrap();
    let args = ["origin", "--config", file.to_str().unwrap(), "--rtmp", ANY, "--flv", ANY, "--web", ANY];
    let args = [&args[..], &["--admin", ANY, "--wait", "20s", "--gap", "3s"], more];
    Server::start(&scratch.path(""), &[&args.concat()[..], &certificate.flags()].concat())
}

fn clip() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("web/demo/clip.flv")
}

pub(crate) fn push(url: &str, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_uringcast"));
    command.arg("push").arg(clip()).arg(url).args(more);
    command
}

fn media(tags: &[Brief]) -> Vec<u64> {
    tags.iter().filter(|tag| tag.kind != flv::SCRIPT).map(|tag| tag.hash).collect()
}

/// The media of a stream that is played over HTTPS to its end.
fn play(certificate: &Certificate, addr: SocketAddr, path: &str) -> Vec<u64> {
    let answer = certificate.get(addr, path);
    let head = answer.windows(4).position(|part| part == b"\r\n\r\n").unwrap() + 4;
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer[..head]));
    media(&flv::read(&answer[head..]))
}

#[test]
fn streams_are_pushed_and_played_in_tls_byte_for_byte() {
    let scratch = Scratch::new("tls-push");
    let certificate = Certificate::make(&scratch.path(""), "own");
    let origin = origin(&scratch, &certificate, "", &[]);
    let want = media(&flv::read(&std::fs::read(clip()).unwrap()));
    let ca = certificate.cert.to_str().unwrap();
    for (scheme, port) in [("rtmps", "rtmp"), ("https", "flv"), ("wss", "flv"), ("https", "web")] {
        let (addr, key) = (origin.addr(port), format!("live/{scheme}-{port}"));
        let path: &str = Box::leak(format!("/{key}.flv").into_boxed_str());
        let plain = Watch::early(origin.addr("flv"), path, Flavor::Http);
        std::thread::scope(|scope| {
            let secure = scope.spawn(|| play(&certificate, origin.addr("flv"), path));
            std::thread::sleep(Duration::from_millis(500));
            let url = format!("{scheme}://localhost:{}/{key}", addr.port());
            let mut pusher = Guard::spawn("push", &mut push(&url, &["--ca", ca, "--speed", "4"]));
            assert!(pusher.wait(), "{url}: {:?}", pusher.log());
            assert!(secure.join().unwrap() == want, "{url} in TLS");
        });
        let plain = plain.join().unwrap().unwrap();
        plain.wait_end();
        assert!(media(&plain.tags()) == want, "{url} plain", url = scheme);
    }
    // Whom nobody has told to trust it does not send a byte of the stream.
    let url = format!("rtmps://localhost:{}/live/none", origin.addr("rtmp").port());
    let status = push(&url, &[]).output().unwrap();
    let told = String::from_utf8_lossy(&status.stderr).into_owned();
    assert!(status.status.code() == Some(77) && told.contains("--ca FILE"), "{told}");
}

/// More than may seal at a time, on one loop, while some leave in the middle of it.
#[test]
fn three_hundred_viewers_are_served_at_a_time() {
    let scratch = Scratch::new("tls-crowd");
    let certificate = Certificate::make(&scratch.path(""), "own");
    let mut origin = origin(&scratch, &certificate, "", &["--loops", "1", "--flush", "100ms"]);
    let _pusher = Guard::spawn("push", &mut push(&origin.rtmp("live/crowd"), &["--loop"]));
    let url = format!("https://{}/live/crowd.flv", origin.addr("flv"));
    let stress = |viewers: &str, duration: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_uringcast"));
        command.args(["stress", &url, "--insecure", "--json", "--quiet", "--ramp", "1"]);
        command.args(["--viewers", viewers, "--duration", duration]);
        command
    };
    let watch = Watch::start(origin.addr("flv"), "/live/crowd.flv", Flavor::Http);
    let mut leavers = Guard::spawn("leavers", &mut stress("100", "60"));
    origin.wait_metric("uringcast_viewers", "origin", |viewers| viewers > 100.0);
    let stayers = std::thread::scope(|scope| {
        let stayers = scope.spawn(|| stress("300", "6").output().unwrap());
        origin.wait_metric("uringcast_viewers", "origin", |viewers| viewers > 350.0);
        leavers.kill();
        stayers.join().unwrap()
    });
    let report = String::from_utf8_lossy(&stayers.stdout).into_owned();
    assert!(stayers.status.success() && report.contains("\"connected\":300"), "{report}");
    watch.assert_well();
    origin.assert_up();
}

/// It is not made where a certificate was named, and no supervisor tries again in vain.
#[test]
fn a_certificate_that_is_not_there_ends_the_start() {
    let scratch = Scratch::new("tls-missing");
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| scratch.path(name));
    for role in ["demo", "origin"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_uringcast"));
        command
            .args([role, "--rtmp", ANY, "--flv", ANY, "--web", ANY, "--admin", ANY])
            .current_dir(scratch.path(""));
        let output = command.arg("--tls-cert").arg(&cert).arg("--tls-key").arg(&key).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(78) && told.contains("cert.pem"), "{role}: {told}");
    }
    assert!(!cert.exists() && !key.exists());
}

#[test]
fn gateways_and_relays_reach_other_servers_in_tls() {
    let scratch = Scratch::new("tls-relay");
    let certificate = Certificate::make(&scratch.path(""), "own");
    let ca = format!("[tls]\nca = {:?}\n", certificate.cert);
    let sink = origin(&scratch, &certificate, "", &[]);
    let (rtmp, flv) = (sink.addr("rtmp").port(), sink.addr("flv").port());
    let config = format!(
        "[[forward]]\nstream = \"live/*\"\nto = \"rtmps://localhost:{rtmp}/copy/{{name}}-rtmp\"\n\
         [[forward]]\nstream = \"live/*\"\nto = \"https://localhost:{flv}/copy/{{name}}-http\"\n{ca}"
    );
    let source = origin(&scratch, &certificate, &config, &[]);
    let (rtmp, flv) = (source.addr("rtmp").port(), source.addr("flv").port());
    let config = format!(
        "[[pull]]\nstream = \"far/rtmp\"\nfrom = \"rtmps://localhost:{rtmp}/live/show\"\n\
         [[pull]]\nstream = \"far/http\"\nfrom = \"https://localhost:{flv}/live/show.flv\"\n{ca}"
    );
    let fetcher = origin(&scratch, &certificate, &config, &[]);
    let file = scratch.path("gateway.toml");
    std::fs::write(&file, &ca).unwrap();
    let upstream = format!("https://localhost:{flv}");
    let args = ["flv-gateway", "--config", file.to_str().unwrap(), "--listen", ANY, "--upstream", &upstream];
    let gateway = Server::start(&scratch.path(""), &[&args[..], &["--admin", ANY, "--wait", "20s"]].concat());
    let want = media(&flv::read(&std::fs::read(clip()).unwrap()));
    let places = [
        (sink.addr("flv"), "/copy/show-rtmp.flv"),
        (sink.addr("flv"), "/copy/show-http.flv"),
        (fetcher.addr("flv"), "/far/rtmp.flv"),
        (fetcher.addr("flv"), "/far/http.flv"),
        (gateway.addr("listen"), "/live/show.flv"),
    ];
    let early = places.map(|(addr, path)| (path, Watch::early(addr, path, Flavor::Http)));
    std::thread::sleep(Duration::from_millis(800));
    let url = source.rtmp("live/show");
    let mut pusher = Guard::spawn("push", &mut push(&url, &["--speed", "2"]));
    assert!(pusher.wait(), "{:?}", pusher.log());
    for (path, early) in early {
        let watch = early.join().unwrap().unwrap_or_else(|error| panic!("{path}: {error}"));
        watch.wait_end();
        assert!(media(&watch.tags()) == want, "{path}");
    }
}

#[test]
fn ffmpeg_pushes_and_plays_and_openssl_checks_the_versions() {
    need_ffmpeg!();
    let scratch = Scratch::new("tls-ffmpeg");
    let certificate = Certificate::make(&scratch.path(""), "own");
    let file = scratch.path("clip.flv");
    make_clip(&file, 4, "320x180");
    let origin = origin(&scratch, &certificate, "", &[]);
    let _publisher = publish(&file, &format!("rtmps://{}/live/show", origin.addr("rtmp")), true);
    let watch = Watch::start(origin.addr("flv"), "/live/show.flv", Flavor::Ws);
    watch.wait_pictures_after(0);
    let played = scratch.path("played.flv");
    let url = format!("https://{}/live/show.flv", origin.addr("flv"));
    let arguments = ["-v", "error", "-tls_verify", "0", "-i", &url, "-t", "2", "-c", "copy"];
    let status = Command::new("ffmpeg").args(arguments).arg(&played).status().unwrap();
    assert!(status.success() && std::fs::metadata(&played).unwrap().len() > 10_000);

    let check = |flags: &[&str]| {
        let addr = origin.addr("flv").to_string();
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", &addr, "-CAfile", certificate.cert.to_str().unwrap()]);
        let output = command.args(flags).stdin(std::process::Stdio::null()).output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    for (flags, want) in [
        (&["-tls1_3"][..], "Cipher is TLS_AES_128_GCM_SHA256"),
        (&["-tls1_2"], "Cipher is ECDHE-ECDSA-AES128-GCM-SHA256"),
        (&["-tls1_3", "-alpn", "http/1.1"], "ALPN protocol: http/1.1"),
        (&["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], "Cipher is (NONE)"),
        (&["-tls1_2", "-cipher", "AES128-SHA:@SECLEVEL=0"], "Cipher is (NONE)"),
        (&["-verify_return_error", "-verify_hostname", "localhost"], "Verify return code: 0 (ok)"),
    ] {
        let told = check(flags);
        assert!(told.contains(want), "{flags:?}: {told}");
    }
}

#[test]
fn a_renewed_certificate_is_taken_and_a_broken_one_is_not() {
    let scratch = Scratch::new("tls-renew");
    let certificate = Certificate::make(&scratch.path(""), "own");
    let origin = origin(&scratch, &certificate, "", &[]);
    let mut first = certificate.connect(origin.addr("flv"));
    write!(first, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut byte = [0];
    first.read_exact(&mut byte).unwrap();
    let old = certificate.der();
    certificate.renew();
    assert!(old != certificate.der());
    origin.guard.signal("HUP");
    until("the new certificate", || {
        let mut stream = certificate.connect(origin.addr("flv"));
        let written = write!(stream, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
        written.is_ok().then(|| stream.read_exact(&mut byte).ok()).flatten()
    });
    std::fs::write(&certificate.cert, "no certificate").unwrap();
    origin.guard.signal("HUP");
    origin.wait_log("the present ones stay");
    // The first connection does not notice.
    write!(first, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    first.read_exact(&mut byte).unwrap();
}

#[test]
fn a_listener_that_requires_tls_takes_nothing_else() {
    let scratch = Scratch::new("tls-required");
    let certificate = Certificate::make(&scratch.path(""), "own");
    let config = "[tls]\nrequired = [\"rtmp\", \"flv\", \"web\"]\n";
    let origin = origin(&scratch, &certificate, config, &["--record", "none"]);
    for port in ["flv", "web"] {
        let (answer, _) = http(origin.addr(port), "GET", "/index.html?a=b", "");
        assert_eq!(
            (answer.status, answer.header("location").map(str::to_owned)),
            (308, Some(format!("https://{}/index.html?a=b", host_of(&origin, port))))
        );
        let (answer, body) = http(origin.addr(port), "POST", "/live/x", "Content-Length: 3\r\n");
        assert!(answer.status == 403 && String::from_utf8_lossy(&body).contains("TLS only"), "{body:?}");
        assert!(certificate.get(origin.addr(port), "/index.html").starts_with(b"HTTP/1.1 200 "));
    }
    let mut pusher = Guard::spawn("push", &mut push(&origin.rtmp("live/x"), &["--no-reconnect"]));
    assert!(!pusher.wait());
    let url = format!("rtmps://localhost:{}/live/x", origin.addr("rtmp").port());
    let ca = certificate.cert.to_str().unwrap();
    let mut pusher = Guard::spawn("push", &mut push(&url, &["--ca", ca, "--speed", "20"]));
    assert!(pusher.wait(), "{:?}", pusher.log());
}

/// What the harness sends as `Host`.
fn host_of(origin: &Server, port: &str) -> String {
    let (answer, _) = http(origin.addr(port), "GET", "/", "");
    let location = answer.header("location").unwrap();
    location.trim_start_matches("https://").trim_end_matches('/').to_owned()
}

/// Writes pieces until the server closes; returns what it said.
pub(crate) fn pester(addr: SocketAddr, pieces: &[&[u8]]) -> Vec<u8> {
    let mut socket = TcpStream::connect(addr).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    for piece in pieces {
        if socket.write_all(piece).is_err() {
            break;
        }
    }
    let mut said = Vec::new();
    match socket.read_to_end(&mut said) {
        Err(error) if !matches!(error.kind(), ErrorKind::ConnectionReset) => panic!("{error}"),
        _ => said,
    }
}

#[test]
fn peers_that_break_tls_are_answered_and_nobody_else_notices() {
    let scratch = Scratch::new("tls-hostile");
    let certificate = Certificate::make(&scratch.path(""), "own");
    let mut origin = origin(&scratch, &certificate, "[limits]\nrequest_time = \"2s\"\n", &[]);
    let _pusher = Guard::spawn("push", &mut push(&origin.rtmp("live/show"), &["--loop"]));
    let watch = Watch::start(origin.addr("flv"), "/live/show.flv", Flavor::Http);
    let mut secure = certificate.connect_with(origin.addr("flv"), &[&rustls::version::TLS12]);
    write!(secure, "GET /live/show.flv HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    // A first record of the wrong version, one that is too long, one that is no handshake, and plain bytes.
    for addr in ["flv", "rtmp", "web"].map(|port| origin.addr(port)) {
        for bytes in
            [&[22, 9, 9, 0, 5, 1, 2, 3, 4, 5][..], &[22, 3, 1, 0xff, 0xff, 1], b"\x16\x03\x01\x00\x05GET /"]
        {
            let said = pester(addr, &[bytes]);
            assert!(said.is_empty() || said[0] == 21, "an alert or nothing: {said:?}");
        }
    }
    // A handshake that comes byte by byte is served.
    let mut hello = Vec::new();
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let config = certificate.client(&[&rustls::version::TLS13]);
    let mut client = rustls::ClientConnection::new(config, name).unwrap();
    client.write_tls(&mut hello).unwrap();
    let mut socket = TcpStream::connect(origin.addr("flv")).unwrap();
    socket.set_nodelay(true).unwrap();
    for byte in &hello {
        socket.write_all(&[*byte]).unwrap();
    }
    while client.is_handshaking() {
        client.complete_io(&mut socket).unwrap();
    }
    // Handshakes that stop half-way are ended, and held by their time limit only.
    let half: Vec<TcpStream> = (0..200)
        .map(|at| {
            let mut socket = TcpStream::connect(origin.addr("flv")).unwrap();
            socket.write_all(&hello[..1 + at % hello.len()]).unwrap();
            socket
        })
        .collect();
    for mut socket in half {
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut said = Vec::new();
        let _ = socket.read_to_end(&mut said);
    }
    let mark = watch.count();
    watch.wait_pictures_after(mark);
    watch.assert_well();
    let mut piece = [0; 4096];
    for _ in 0..20 {
        secure.read_exact(&mut piece).unwrap();
    }
    origin.assert_up();
}
