//! Services and files that are reached in TLS: the hooks, and the upstreams of a file gateway.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};

use rustls::{ServerConnection, StreamOwned};
use serde_json::Value;

use crate::harness::raw::{Feed, exchange};
use crate::harness::secure::Certificate;
use crate::harness::{Scratch, Server, http, until};

const ANY: &str = "127.0.0.1:0";

/// A service that says yes to everyone except `live/bad`. It keeps its connections.
#[derive(Clone)]
struct Service {
    addr: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    connections: usize,
    documents: Vec<Value>,
}

impl Service {
    fn start(certificate: &Certificate) -> Self {
        let listener = TcpListener::bind(ANY).unwrap();
        let own = Self { addr: listener.local_addr().unwrap(), seen: Arc::default() };
        let (service, config) = (own.clone(), certificate.server());
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
                let (stream, service) = (StreamOwned::new(connection, socket), service.clone());
                std::thread::spawn(move || service.answer(stream));
            }
        });
        own
    }

    fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.addr.port())
    }

    fn answer(&self, stream: StreamOwned<ServerConnection, TcpStream>) {
        let mut stream = BufReader::new(stream);
        for request in 0.. {
            let (mut length, mut line) = (0, String::new());
            while line != "\r\n" {
                line.clear();
                if stream.read_line(&mut line).unwrap_or(0) == 0 {
                    return;
                }
                if let Some(value) = line.strip_prefix("Content-Length: ") {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            let document: Value = serde_json::from_slice(&body).unwrap();
            let status = if document["path"] == "live/bad" { "401 Unauthorized" } else { "204 No Content" };
            let mut seen = self.seen.lock().unwrap();
            seen.connections += usize::from(request == 0);
            seen.documents.push(document);
            drop(seen);
            write!(stream.get_mut(), "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").unwrap();
        }
    }
}

fn origin(scratch: &Scratch, config: &str, more: &[&str]) -> Server {
    let file = scratch.path("origin.toml");
    std::fs::write(&file, config).unwrap();
    let args = ["origin", "--config", file.to_str().unwrap(), "--rtmp", ANY, "--flv", ANY, "--web", ANY];
    Server::start(&scratch.path(""), &[&args[..], &["--admin", ANY, "--gap", "0s"], more].concat())
}

fn publishing(addr: SocketAddr, path: &str) -> String {
    exchange(
        addr,
        format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .as_bytes(),
    )
}

#[test]
fn hooks_are_asked_and_told_in_tls_on_kept_connections() {
    let scratch = Scratch::new("tls-hooks");
    let certificate = Certificate::make(&scratch.path(""), "own");
    let service = Service::start(&certificate);
    let config = format!(
        "[auth]\nhook = {:?}\nhook_cache = \"0s\"\n[recording]\nhook = {:?}\n[tls]\nca = {:?}\n",
        service.url("/auth"),
        service.url("/recorded"),
        certificate.cert
    );
    let mut origin = origin(&scratch, &config, &["--record", "flv"]);
    let addr = origin.addr("flv");
    for _ in 0..10 {
        let refused = publishing(addr, "/live/bad");
        assert!(refused.starts_with("HTTP/1.1 401 ") && refused.contains("auth.hook"), "{refused}");
    }
    drop(Feed::start(addr, "live/good"));
    let told = |field: &str, value: &str| {
        let seen = service.seen.lock().unwrap();
        seen.documents.iter().find(|document| document[field] == value).cloned()
    };
    let question = until("the question", || told("path", "live/good"));
    assert_eq!((&question["action"], &question["protocol"]), (&"publish".into(), &"http".into()));
    let recorded = until("the call for the file", || told("event", "recorded"));
    assert_eq!((&recorded["stream"], &recorded["kind"]), (&"live/good".into(), &"flv".into()));
    let seen = service.seen.lock().unwrap();
    assert!(seen.documents.len() >= 3 && seen.connections < seen.documents.len(), "{}", seen.connections);
    assert!(origin.metric("uringcast_hook_questions_total", "allowed") >= 1.0);
    assert!(origin.metric("uringcast_hook_questions_total", "refused") >= 1.0);
    origin.assert_up();
}

#[test]
fn a_service_whose_certificate_is_not_trusted_is_not_believed() {
    let scratch = Scratch::new("tls-hook-foreign");
    let [own, other] = ["own", "other"].map(|name| Certificate::make(&scratch.path(""), name));
    let service = Service::start(&own);
    let config = format!("[auth]\nhook = {:?}\n[tls]\nca = {:?}\n", service.url("/auth"), other.cert);
    let mut origin = origin(&scratch, &config, &["--record", "none"]);
    let refused = publishing(origin.addr("flv"), "/live/good");
    assert!(refused.starts_with("HTTP/1.1 401 "), "{refused}");
    origin.wait_log("invalid peer certificate");
    assert_eq!(service.seen.lock().unwrap().documents.len(), 0);
    origin.assert_up();
}

#[test]
fn a_file_gateway_fetches_in_tls() {
    let scratch = Scratch::new("tls-files");
    let certificate = Certificate::make(&scratch.path(""), "own");
    let [root, cache] = ["root", "cache"].map(|name| scratch.path(name));
    for dir in [&root, &cache] {
        std::fs::create_dir(dir).unwrap();
    }
    let body: Vec<u8> = (0..3_000_000u32).map(|at| (at % 251) as u8).collect();
    std::fs::write(root.join("film.mp4"), &body).unwrap();
    let gateway = |more: &[&str]| {
        let args = ["file-gateway", "--listen", ANY, "--admin", ANY];
        Server::start(&scratch.path(""), &[&args[..], more].concat())
    };
    let served = ["--root", root.to_str().unwrap()];
    let source = gateway(&[&served[..], &certificate.flags()].concat());
    let upstream = format!("https://localhost:{}", source.addr("listen").port());
    let (file, other) = (scratch.path("gateway.toml"), Certificate::make(&scratch.path(""), "other"));
    for (ca, want) in [(&certificate, 200), (&other, 502)] {
        std::fs::write(&file, format!("[tls]\nca = {:?}\n", ca.cert)).unwrap();
        let folder = cache.join(want.to_string());
        std::fs::create_dir(&folder).unwrap();
        let fetched = ["--config", file.to_str().unwrap(), "--cache", folder.to_str().unwrap()];
        let mut gateway = gateway(&[&fetched[..], &["--upstream", &upstream]].concat());
        let (answer, got) = http(gateway.addr("listen"), "GET", "/film.mp4", "");
        assert_eq!((answer.status, got == body), (want, want == 200));
        assert_eq!(gateway.metric("uringcast_upstream_up", "") == 1.0, want == 200);
        gateway.assert_up();
    }
}

/// The authority asks by plain HTTP, before there is a certificate that it would trust.
#[test]
fn the_challenge_of_an_authority_is_answered_plainly() {
    let scratch = Scratch::new("tls-challenge");
    let certificate = Certificate::make(&scratch.path(""), "own");
    let data = scratch.path("data");
    let challenges = data.join(".well-known/acme-challenge");
    std::fs::create_dir_all(&challenges).unwrap();
    std::fs::write(challenges.join("token-1"), "token-1.print").unwrap();
    let more = [&["--record", "none", "--data", data.to_str().unwrap()][..], &certificate.flags()].concat();
    let origin = origin(&scratch, "[tls]\nrequired = [\"web\"]\n[auth]\nplay = \"deny\"\n", &more);
    let get = |path: &str| http(origin.addr("web"), "GET", path, "");
    let (answer, body) = get("/.well-known/acme-challenge/token-1");
    assert_eq!((answer.status, &body[..]), (200, &b"token-1.print"[..]));
    assert_eq!(get("/.well-known/acme-challenge/token-2").0.status, 404);
    for path in ["/", "/.well-known/security.txt", "/.well-known/acme-challenge/a/b"] {
        assert_eq!(get(path).0.status, 308, "{path}");
    }
}

#[test]
fn a_renewed_certificate_is_handed_over_by_the_deploy_hook() {
    let scratch = Scratch::new("tls-deploy");
    let [lineage, tls] = ["lineage", "tls"].map(|name| scratch.path(name));
    std::fs::create_dir(&lineage).unwrap();
    let renew = || {
        let made = Certificate::make(&scratch.path(""), "made");
        std::fs::copy(&made.cert, lineage.join("fullchain.pem")).unwrap();
        std::fs::copy(&made.key, lineage.join("privkey.pem")).unwrap();
        let hook = concat!(env!("CARGO_MANIFEST_DIR"), "/etc/certbot-deploy.sh");
        let mut command = Command::new(hook);
        command.env("RENEWED_LINEAGE", &lineage).env("URINGCAST_TLS", &tls);
        assert!(command.status().unwrap().success());
        made
    };
    let first = renew();
    let config = format!("[tls]\ncert = {:?}\nkey = {:?}\n", tls.join("cert.pem"), tls.join("key.pem"));
    let origin = origin(&scratch, &config, &["--record", "none"]);
    let healthy = |certificate: &Certificate| {
        let mut stream = certificate.connect(origin.addr("web"));
        let asked = write!(stream, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let mut answer = Vec::new();
        asked.and_then(|()| stream.read_to_end(&mut answer)).is_ok() && answer.starts_with(b"HTTP/1.1 200 ")
    };
    assert!(healthy(&first));
    let second = renew();
    until("the renewed certificate", || healthy(&second).then_some(()));
}
