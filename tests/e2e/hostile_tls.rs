//! Peers that use TLS against the server.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConnection, ServerConfig, ServerConnection, version};

use crate::harness::process::Guard;
use crate::harness::raw::{FILE_HEADER, exchange, picture, video_header};
use crate::harness::secure::Certificate;
use crate::harness::{Flavor, Scratch, Server, Watch, until};
use crate::tls::{origin, pester, push};

const ASK: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// A server that shows a stream to a viewer in plain.
fn server(scratch: &Scratch, certificate: &Certificate, config: &str) -> (Server, Guard, Watch) {
    let origin = origin(scratch, certificate, config, &["--record", "none"]);
    let pusher = Guard::spawn("push", &mut push(&origin.rtmp("live/show"), &["--loop"]));
    let watch = Watch::start(origin.addr("flv"), "/live/show.flv", Flavor::Http);
    watch.wait_pictures_after(0);
    (origin, pusher, watch)
}

/// The stream goes on, and the server as well.
fn goes_on(origin: &mut Server, watch: &Watch) {
    watch.wait_pictures_after(watch.count());
    watch.assert_well();
    origin.assert_up();
}

fn client(certificate: &Certificate, of: &'static rustls::SupportedProtocolVersion) -> ClientConnection {
    let config = certificate.client(&[of]);
    ClientConnection::new(config, ServerName::try_from("localhost").unwrap()).unwrap()
}

/// The first message of a handshake, as one record.
fn hello(certificate: &Certificate) -> Vec<u8> {
    let mut bytes = Vec::new();
    client(certificate, &version::TLS13).write_tls(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_client_hello_may_come_in_records_of_one_byte() {
    let scratch = Scratch::new("hostile-tls-records");
    let certificate = Certificate::make(&scratch.path(""), "own");
    let (mut origin, _pusher, watch) = server(&scratch, &certificate, "");
    for of in [&version::TLS13, &version::TLS12] {
        let mut client = client(&certificate, of);
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        let records: Vec<u8> = hello[5..].iter().flat_map(|byte| [22, 3, 1, 0, 1, *byte]).collect();
        for split in [1, 7, records.len()] {
            let mut socket = TcpStream::connect(origin.addr("flv")).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            socket.set_nodelay(true).unwrap();
            records.chunks(split).for_each(|part| socket.write_all(part).unwrap());
            // The server's first flight answers it; the transcript is the same as of one record.
            let mut answer = [0; 6];
            socket.read_exact(&mut answer).unwrap();
            assert_eq!((answer[0], answer[5]), (22, 2), "a ServerHello: {answer:?}");
        }
        let mut socket = TcpStream::connect(origin.addr("flv")).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket.write_all(&records).unwrap();
        while client.is_handshaking() {
            client.complete_io(&mut socket).unwrap();
        }
        client.writer().write_all(ASK).unwrap();
        let mut answer = [0; 12];
        rustls::Stream::new(&mut client, &mut socket).read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
    // Empty records do not go on for ever, nor does a message whose end never comes.
    let empty: Vec<u8> = [22, 3, 1, 0, 0].repeat(20_000);
    pester(origin.addr("flv"), &[&empty]);
    let mut endless = vec![22, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff];
    endless.extend([[22, 3, 1, 0x40, 0].to_vec(), vec![0; 0x4000]].concat().repeat(20));
    pester(origin.addr("flv"), &[&endless]);
    goes_on(&mut origin, &watch);
}

#[test]
fn many_half_handshakes_hold_little_and_viewers_go_on() {
    // The long form of this: 10,000, with a limit of 20,000 descriptors or more.
    let count: usize = std::env::var("HALF_HANDSHAKES").map_or(2_000, |count| count.parse().unwrap());
    let scratch = Scratch::new("hostile-tls-half");
    let certificate = Certificate::make(&scratch.path(""), "own");
    let config = "loops = 1\n[limits]\nrequest_time = \"12s\"\n";
    let (mut origin, _pusher, watch) = server(&scratch, &certificate, config);
    let before = origin.settled_memory();
    let hello = hello(&certificate);
    let addr = origin.addr("flv");
    // The first byte alone, all but the last byte, and a whole hello that is never followed up.
    let parts = [&hello[..1], &hello[..hello.len() - 1], &hello];
    let half: Vec<TcpStream> = (0..count)
        .map(|turn| {
            let mut socket = TcpStream::connect(addr).unwrap();
            socket.write_all(parts[turn % parts.len()]).unwrap();
            socket
        })
        .collect();
    origin.wait_metric("uringcast_connections", "", |now| now >= f64::from(u32::try_from(count).unwrap()));
    // Those that have sent a whole hello are answered, however many wait with them.
    for mut socket in half.iter().skip(2).step_by(parts.len()) {
        socket.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
        socket.read_exact(&mut [0; 5]).unwrap();
    }
    let each = origin.memory().saturating_sub(before) / count as u64;
    eprintln!("{count} half handshakes: {each} bytes each");
    assert!(each < 24 << 10, "{each} bytes each");
    goes_on(&mut origin, &watch);
    assert!(certificate.get(addr, "/healthz").starts_with(b"HTTP/1.1 200 "), "others come in meanwhile");
    for mut socket in half {
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let _ = socket.read_to_end(&mut Vec::new()); // closed by the time limit
    }
    origin.wait_metric("uringcast_connections", "", |now| now < 10.0);
    goes_on(&mut origin, &watch);
}

/// What `openssl s_client` says, with something to type.
fn openssl(addr: SocketAddr, certificate: &Certificate, flags: &[&str], types: &[u8]) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &addr.to_string(), "-servername", "localhost"]);
    command.args(["-CAfile", certificate.cert.to_str().unwrap()]).args(flags);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let _ = stdin.write_all(types);
    let reads = std::thread::spawn(move || child.wait_with_output().unwrap());
    if !types.is_empty() {
        // It goes on reading what is typed until the connection ends, or this does.
        until("s_client to end", || {
            let _ = stdin.write_all(b"\n");
            reads.is_finished().then_some(())
        });
    }
    drop(stdin);
    let output = reads.join().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[test]
fn openssl_gets_good_versions_and_suites_only_and_no_renegotiation() {
    let scratch = Scratch::new("hostile-tls-openssl");
    let certificate = Certificate::make(&scratch.path(""), "own");
    let (mut origin, _pusher, watch) = server(&scratch, &certificate, "");
    for port in ["flv", "rtmp", "web"] {
        let check = |flags: &[&str]| openssl(origin.addr(port), &certificate, flags, b"");
        for (version, suite, shown) in [
            ("-tls1_3", "TLS_AES_256_GCM_SHA384", "TLS_AES_256_GCM_SHA384"),
            ("-tls1_3", "TLS_CHACHA20_POLY1305_SHA256", "TLS_CHACHA20_POLY1305_SHA256"),
            ("-tls1_2", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES256-GCM-SHA384"),
            ("-tls1_2", "ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-ECDSA-CHACHA20-POLY1305"),
        ] {
            let option = if version == "-tls1_3" { "-ciphersuites" } else { "-cipher" };
            let told = check(&[version, option, suite]);
            assert!(told.contains(&format!("Cipher is {shown}")), "{port} {suite}: {told}");
            assert!(told.contains("Compression: NONE"), "{told}");
        }
        let weak = "@SECLEVEL=0";
        for flags in [
            &["-tls1", "-cipher", "ALL:@SECLEVEL=0"][..],
            &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
            &["-tls1_2", "-cipher", &format!("kRSA:{weak}")],
            &["-tls1_2", "-cipher", &format!("kDHE:{weak}")],
            &["-tls1_2", "-cipher", &format!("SHA1:{weak}")],
            &["-tls1_2", "-cipher", &format!("SHA256:!AESGCM:!CHACHA20:{weak}")],
            &["-tls1_2", "-cipher", &format!("aNULL:eNULL:{weak}")],
        ] {
            let told = check(flags);
            assert!(told.contains("Cipher is (NONE)"), "{port} {flags:?}: {told}");
        }
        // A downgrade from a client that could do better is refused.
        let told = check(&["-tls1_2", "-fallback_scsv"]);
        assert!(!told.contains("Cipher is ECDHE") || told.contains("inappropriate fallback"), "{told}");
    }
    // "R" renegotiates in TLS 1.2; "K" asks for new keys in TLS 1.3, which is a right.
    let renegotiates = openssl(origin.addr("flv"), &certificate, &["-tls1_2"], b"R\n");
    assert!(renegotiates.contains("RENEGOTIATING"), "{renegotiates}");
    assert!(renegotiates.contains("error") || renegotiates.contains("alert"), "{renegotiates}");
    goes_on(&mut origin, &watch);
}

#[test]
fn a_connection_that_breaks_off_ends_as_it_was_left() {
    let scratch = Scratch::new("hostile-tls-close");
    let certificate = Certificate::make(&scratch.path(""), "own");
    let (mut origin, _pusher, watch) = server(&scratch, &certificate, "[limits]\nrequest_time = \"1s\"\n");
    let addr = origin.addr("flv");
    // A push without an end: the peer closes, and says nothing of it (no close_notify).
    let mut publisher = certificate.connect(addr);
    let body = [FILE_HEADER, &video_header(0), &picture(true, 0, 2_000)].concat();
    write!(publisher, "POST /live/cut HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        .unwrap();
    write!(publisher, "{:x}\r\n", body.len() + 100).unwrap();
    publisher.write_all(&body).unwrap();
    publisher.flush().unwrap();
    origin.wait_log("publisher came");
    origin.wait_metric("uringcast_publishers", "", |now| now == 2.0);
    publisher.sock.shutdown(Shutdown::Both).unwrap();
    origin.wait_metric("uringcast_publishers", "", |now| now == 1.0);
    // A viewer that is gone the same way, and one whose connection turns plain.
    for breaks in [
        |socket: &TcpStream| socket.shutdown(Shutdown::Both).unwrap(),
        |mut socket: &TcpStream| {
            socket.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        },
    ] {
        let mut viewer = certificate.connect(addr);
        write!(viewer, "GET /live/show.flv HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        viewer.read_exact(&mut [0; 4096]).unwrap();
        origin.wait_metric("uringcast_viewers", "", |now| now == 2.0);
        breaks(&viewer.sock);
        origin.wait_metric("uringcast_viewers", "", |now| now == 1.0);
    }
    // Half a request, and then the end.
    let mut half = certificate.connect(addr);
    half.write_all(&ASK[..20]).unwrap();
    half.flush().unwrap();
    half.sock.shutdown(Shutdown::Write).unwrap();
    let _ = half.sock.read_to_end(&mut Vec::new());
    // First bytes that never come, before and after the handshake.
    for port in ["flv", "rtmp", "web"] {
        assert!(!pester(origin.addr(port), &[]).starts_with(b"HTTP/1.1 200"), "{port}");
        let mut silent = certificate.connect(origin.addr(port));
        while silent.conn.is_handshaking() {
            silent.conn.complete_io(&mut silent.sock).unwrap();
        }
        let _ = silent.sock.read_to_end(&mut Vec::new());
    }
    origin.wait_metric("uringcast_connections", "", |now| now <= 3.0);
    goes_on(&mut origin, &watch);
}

/// A chain of so many authorities, each signed by the next, and its last one, which the client trusts.
fn chain(length: usize) -> (Arc<ServerConfig>, String) {
    let mut issuer = rcgen::Issuer::new(authority(length), KeyPair::generate().unwrap());
    let root = authority(length).self_signed(issuer.key()).unwrap();
    let mut certificates = Vec::new();
    for turn in (1..length).rev() {
        let key = KeyPair::generate().unwrap();
        certificates.push(authority(turn).signed_by(&key, &issuer).unwrap().der().clone());
        issuer = rcgen::Issuer::new(authority(turn), key);
    }
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(["localhost".to_owned()]).unwrap();
    certificates.push(leaf.signed_by(&key, &issuer).unwrap().der().clone());
    certificates.reverse();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = config.with_no_client_auth().with_single_cert(certificates, key).unwrap();
    (Arc::new(config), root.pem())
}

fn authority(turn: usize) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, format!("authority {turn}"));
    params
}

/// Answers each connection with `answer`; returns the address, and how many connections have ended.
fn serve(answer: impl Fn(TcpStream) + Send + Sync + 'static) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (addr, ended) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
    let (answer, count) = (Arc::new(answer), Arc::clone(&ended));
    std::thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let (answer, count) = (Arc::clone(&answer), Arc::clone(&count));
            std::thread::spawn(move || {
                answer(socket);
                count.fetch_add(1, Ordering::Relaxed);
            });
        }
    });
    (addr, ended)
}

/// A server of TLS 1.2 whose message of certificates claims to have so many bytes, and which sends more; or half of them,
/// and then nothing.
fn endless(mut socket: TcpStream, claims: u32, goes_on: bool) {
    let _ = socket.read(&mut [0; 4 << 10]);
    let suite = [0xc0, 0x2b]; // ECDHE, ECDSA, AES-128-GCM
    let hello = [&[2, 0, 0, 38, 3, 3][..], &[7; 32], &[0], &suite, &[0]].concat();
    let record = |text: &[u8]| {
        let len = u16::try_from(text.len()).unwrap().to_be_bytes();
        [&[22, 3, 3][..], &len, text].concat()
    };
    let begun = [&[11][..], &claims.to_be_bytes()[1..]].concat();
    let _ = socket.write_all(&[record(&hello), record(&begun)].concat());
    let part = record(&[0; 0x4000]);
    if goes_on {
        // More than sockets hold: that it is closed is what counts as the end of this connection.
        assert!((0..4_096).any(|_| socket.write_all(&part).is_err()), "64 MiB were taken");
    } else {
        let _ = socket.write_all(&part.repeat(2));
        let _ = socket.read_to_end(&mut Vec::new());
    }
}

/// The two clients, that of the control thread (for hooks) and that of the loops (for pulls), end such connections, say
/// why, and hold no more than before.
#[test]
fn a_server_with_giant_certificates_is_refused() {
    let scratch = Scratch::new("hostile-tls-chain");
    let handshake = |config: Arc<ServerConfig>| {
        move |mut socket: TcpStream| {
            let mut server = ServerConnection::new(Arc::clone(&config)).unwrap();
            while server.is_handshaking() && server.complete_io(&mut socket).is_ok() {}
            let _ = socket.read(&mut [0]);
        }
    };
    // Some 50 KiB, which fit into one message, and some 130 KiB, which do not.
    let [(long, root), (longer, other)] = [150, 400].map(chain);
    let roots = scratch.path("roots.pem");
    std::fs::write(&roots, [root, other].concat()).unwrap();
    for (name, (addr, ended), why) in [
        ("long", serve(handshake(long)), "cannot connect: invalid peer certificate"),
        ("longer", serve(handshake(longer)), "cannot connect: received corrupt message"),
        (
            "endless",
            serve(|socket| endless(socket, 0xff_ffff, true)),
            "cannot connect: received corrupt message",
        ),
        ("filled", serve(|socket| endless(socket, 0xfff0, true)), "cannot connect: "),
        ("silent", serve(|socket| endless(socket, 0xfff0, false)), "the hook (auth.hook) gave no verdict"),
    ] {
        let port = addr.port();
        let config = format!(
            "[auth]\nhook = \"https://localhost:{port}/\"\n[tls]\nca = {roots:?}\n\
             [[pull]]\nstream = \"far/rtmp\"\nfrom = \"rtmps://localhost:{port}/live/show\"\n\
             [[pull]]\nstream = \"far/http\"\nfrom = \"https://localhost:{port}/live/show.flv\"\n"
        );
        let home = scratch.path(name);
        std::fs::create_dir(&home).unwrap();
        let mut origin = Server::origin_with(&home, &config, &["--record", "none"]);
        let wait_ended = |count| {
            until("connections to be ended", || (ended.load(Ordering::Relaxed) >= count).then_some(()));
        };
        wait_ended(2);
        let before = origin.settled_memory();
        for _ in 0..4 {
            let post =
                "POST /live/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            let answer = exchange(origin.addr("flv"), post.as_bytes());
            assert!(answer.starts_with("HTTP/1.1 401 "), "{name}: {answer}");
        }
        wait_ended(ended.load(Ordering::Relaxed) + 2);
        let more = origin.memory().saturating_sub(before);
        // The loops' receive buffers, some 20 MiB in all, are written to for the first time.
        assert!(more < 48 << 20, "{name}: {more} bytes more");
        origin.wait_log(why);
        if name != "silent" {
            origin.wait_log("reason=\"TLS ");
        }
        origin.assert_up();
    }
}
