//! The file gateway and the origin's web listener beside nginx: the same requests, the same answers, or a
//! difference that is listed here with its reason.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use crate::harness::nginx::{self, Nginx};
use crate::harness::{Scratch, Server};

/// What an answer says that matters to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    status: u16,
    length: Option<String>,
    range: Option<String>,
    body: Vec<u8>,
    /// The connection takes another request.
    open: bool,
}

/// One request as it goes over the wire; `{etag}` and `{date}` stand for the file's own.
struct Case {
    request: String,
    /// Why the answers may differ: nginx's status and ours.
    differs: Option<(u16, u16)>,
}

fn answer(addr: SocketAddr, request: &[u8]) -> Seen {
    let mut socket = TcpStream::connect(addr).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    socket.write_all(request).unwrap();
    let head_only = request.starts_with(b"HEAD ");
    let seen = read_answer(&mut socket, head_only);
    // Another request tells whether the connection is still good.
    let again = socket.write_all(b"GET /a.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let mut rest = Vec::new();
    let open = again.is_ok() && socket.read_to_end(&mut rest).is_ok() && rest.starts_with(b"HTTP/1.1 200");
    Seen { open, ..seen }
}

fn read_answer(socket: &mut TcpStream, head_only: bool) -> Seen {
    let mut raw = Vec::new();
    let mut byte = [0];
    while !raw.ends_with(b"\r\n\r\n") {
        assert_eq!(socket.read(&mut byte).unwrap(), 1, "no whole head: {:?}", String::from_utf8_lossy(&raw));
        raw.push(byte[0]);
    }
    let text = String::from_utf8(raw).unwrap();
    let status = text.split(' ').nth(1).unwrap().parse().unwrap();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")));
        line.map(|line| line.split_once(':').unwrap().1.trim().to_owned())
    };
    let (length, range) = (field("content-length"), field("content-range"));
    let none = head_only || [204, 304].contains(&status);
    let len = if none { 0 } else { length.as_deref().map_or(0, |len| len.parse().unwrap()) };
    let mut body = vec![0; len];
    socket.read_exact(&mut body).unwrap();
    Seen { status, length, range, body, open: false }
}

/// The entity tag and the date of a file.
fn validators(addr: SocketAddr, path: &str) -> (String, String) {
    let (answer, _) = crate::harness::http(addr, "HEAD", path, "");
    (answer.header("etag").unwrap().to_owned(), answer.header("last-modified").unwrap().to_owned())
}

fn get(path: &str, fields: &str) -> Case {
    Case { request: format!("GET {path} HTTP/1.1\r\nHost: x\r\n{fields}\r\n"), differs: None }
}

fn raw(request: &str) -> Case {
    Case { request: request.to_owned(), differs: None }
}

impl Case {
    fn differs(self, nginx: u16, ours: u16) -> Self {
        Self { differs: Some((nginx, ours)), ..self }
    }
}

/// Asks both servers the same and compares what comes back.
fn compare(nginx: SocketAddr, ours: SocketAddr, cases: &[Case]) {
    let [of_nginx, of_ours] = [nginx, ours].map(|addr| validators(addr, "/a.txt"));
    let mut wrong = Vec::new();
    for case in cases {
        let fill = |(etag, date): &(String, String)| {
            case.request.replace("{etag}", etag).replace("{date}", date).into_bytes()
        };
        let theirs = answer(nginx, &fill(&of_nginx));
        let own = answer(ours, &fill(&of_ours));
        let agreed = match case.differs {
            Some(statuses) => statuses == (theirs.status, own.status),
            None if theirs.status >= 300 => {
                (theirs.status, theirs.range.clone(), theirs.open)
                    == (own.status, own.range.clone(), own.open)
            }
            None => theirs == own,
        };
        if !agreed {
            let cut =
                |seen: &Seen| Seen { body: seen.body[..seen.body.len().min(20)].to_vec(), ..seen.clone() };
            wrong.push(format!("{:?}\n  nginx {:?}\n  ours  {:?}", case.request, cut(&theirs), cut(&own)));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// A folder with files of all sorts, and a secret beside it.
fn fill(root: &Path) {
    std::fs::create_dir_all(root.join("hls/live/a@2026-11-21")).unwrap();
    let bytes: Vec<u8> = (0..300_000u32).map(|n| u8::try_from(n % 253).unwrap()).collect();
    std::fs::write(root.join("a.txt"), b"0123456789").unwrap();
    std::fs::write(root.join("empty.txt"), b"").unwrap();
    std::fs::write(root.join("b c+d.txt"), b"blank").unwrap();
    std::fs::write(root.join("segment.ts"), &bytes).unwrap();
    std::fs::write(root.join("hls/live/a@2026-11-21/segment_1.ts"), &bytes[..20_000]).unwrap();
    std::fs::write(root.join("page.html"), b"<p>").unwrap();
    std::fs::write(root.join(".secret"), b"hidden").unwrap();
    std::fs::write(root.with_extension("sibling"), b"not yours").unwrap();
    std::os::unix::fs::symlink("a.txt", root.join("link.txt")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", root.join("passwd.txt")).unwrap();
    std::os::unix::fs::symlink("..", root.join("up")).unwrap();
}

/// An nginx and a file gateway on the same folder.
fn both(scratch: &Scratch) -> (Nginx, Server) {
    let root = scratch.path("root");
    fill(&root);
    let server = format!("root {};\nif_modified_since before;\ngzip_static on;", root.display());
    (Nginx::start(&scratch.path(""), "", &server), gateway(scratch, &[]))
}

fn gateway(scratch: &Scratch, args: &[&str]) -> Server {
    let root = scratch.path("root");
    let own = ["file-gateway", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--root"];
    Server::start(&scratch.path(""), &[&own[..], &[root.to_str().unwrap()], args].concat())
}

#[test]
fn ranges_and_conditions_agree_with_nginx() {
    if !nginx::available() {
        return;
    }
    let scratch = Scratch::new("files-ranges");
    let (nginx, mut ours) = both(&scratch);
    let mut cases = Vec::new();
    for path in ["/a.txt", "/segment.ts", "/empty.txt"] {
        for range in [
            "0-0",
            "0-4",
            "5-",
            "-3",
            "-99999999",
            "0-99999999",
            "9-9",
            "10-10",
            "300000-",
            "-0",
            "5-2",
            "",
            "-",
            "x-y",
            "0-4x",
            "99999999999999999999999-",
            " 0-4",
            "0 - 4",
        ] {
            cases.push(get(path, &format!("Range: bytes={range}\r\n")));
        }
        if path != "/empty.txt" {
            // An end beyond 64 bits is an end beyond the file like any other (RFC 9110, 14.1.2).
            let range = "Range: bytes=0-99999999999999999999999\r\n";
            cases.push(get(path, range).differs(416, 206));
        }
        for range in ["items=0-4", "bytes", "BYTES=0-4", "bytes 0-4"] {
            cases.push(get(path, &format!("Range: {range}\r\n")));
        }
    }
    // nginx hangs up behind a 412; the next request has nothing to do with it.
    for condition in ["If-Match: \"x\"", "If-Unmodified-Since: Thu, 01 Jan 1970 00:00:00 GMT"] {
        cases.push(get("/a.txt", &format!("{condition}\r\n")).differs(412, 412));
    }
    for condition in [
        "If-None-Match: {etag}",
        "If-None-Match: W/{etag}",
        "If-None-Match: \"x\", {etag}",
        "If-None-Match: *",
        "If-None-Match: \"x\"",
        "If-Modified-Since: {date}",
        "If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT",
        "If-Modified-Since: nonsense",
        "If-Match: {etag}",
        "If-Match: *",
        "If-Unmodified-Since: {date}",
        "Range: bytes=2-3\r\nIf-Range: {etag}",
        "Range: bytes=2-3\r\nIf-Range: {date}",
        "Range: bytes=2-3\r\nIf-Range: \"x\"",
        "Range: bytes=2-3\r\nIf-Range: Thu, 01 Jan 1970 00:00:00 GMT",
        "Range: bytes=2-3\r\nIf-None-Match: {etag}",
        "Range: bytes=99-\r\nIf-None-Match: {etag}",
        "Range: bytes=99-\r\nIf-Range: \"x\"",
    ] {
        cases.push(get("/a.txt", &format!("{condition}\r\n")));
        let head = format!("HEAD /a.txt HTTP/1.1\r\nHost: x\r\n{condition}\r\n\r\n");
        cases.push(raw(&head));
    }
    compare(nginx.addr, ours.addr("listen"), &cases);
    ours.assert_up();
}

#[test]
fn paths_agree_with_nginx() {
    if !nginx::available() {
        return;
    }
    let scratch = Scratch::new("files-paths");
    let (nginx, mut ours) = both(&scratch);
    let cases = [
        get("/a.txt", ""),
        get("/a.txt?x=1&y", ""),
        get("//a.txt", ""),
        get("/%61.txt", ""),
        get("/a%2Etxt", ""),
        get("/b%20c+d.txt", ""),
        get("/hls/live/a@2026-11-21/segment_1.ts", ""),
        get("/hls/live/a%402026-11-21/segment_1.ts", ""),
        get("/hls%2Flive/a@2026-11-21/segment_1.ts", ""),
        get("/none.txt", ""),
        get("/a.txt/", ""),
        get("/a.txt/b", ""),
        get("/link.txt", ""),
        get("/%00", ""),
        get("/a.txt%00.ts", ""),
        get("/%", ""),
        get("/%zz", ""),
        get("http://x/a.txt", ""),
        raw("GET /a.txt HTTP/1.0\r\n\r\n"),
        raw("GET /a.txt HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
        raw("HEAD /segment.ts HTTP/1.1\r\nHost: x\r\n\r\n"),
        raw("HEAD /none HTTP/1.1\r\nHost: x\r\n\r\n"),
        raw("\r\nGET /a.txt HTTP/1.1\r\nHost: x\r\n\r\n"),
    ];
    compare(nginx.addr, ours.addr("listen"), &cases);
    let listed = [
        // nginx follows a link out of its root, and serves what is hidden; neither is ours to give.
        get("/passwd.txt", "").differs(200, 404),
        get("/up/root/a.txt", "").differs(200, 404),
        get("/up/root.sibling", "").differs(200, 404),
        get("/.secret", "").differs(200, 404),
        get("/%2esecret", "").differs(200, 404),
        get("/./a.txt", "").differs(200, 404),
        // A path that climbs is refused, even where it would come down again within the root.
        get("/hls/../a.txt", "").differs(200, 400),
        get("/hls/%2e%2e/a.txt", "").differs(200, 400),
        get("/hls%2f..%2fa.txt", "").differs(200, 400),
        get("/../root.sibling", "").differs(400, 400),
        get("/..%2froot.sibling", "").differs(400, 400),
        // A backslash is in no name of ours, and a separator elsewhere.
        get("/a.txt\\", "").differs(404, 400),
        get("/..\\a.txt", "").differs(404, 400),
        // nginx sends a browser on to the folder with a slash and refuses that; nothing is listed either way.
        get("/hls", "").differs(301, 404),
        get("/hls/", "").differs(403, 404),
        // The embedded page.
        get("/", "").differs(403, 200),
    ];
    compare(nginx.addr, ours.addr("listen"), &listed);
    ours.assert_up();
}

#[test]
fn malformed_requests_agree_with_nginx() {
    if !nginx::available() {
        return;
    }
    let scratch = Scratch::new("files-malformed");
    let (nginx, mut ours) = both(&scratch);
    let long = "x".repeat(20_000);
    let cases = [
        raw("GET /a.txt HTTP/1.1\r\n\r\n"),
        raw("GET /a.txt HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n"),
        raw("GET a.txt HTTP/1.1\r\nHost: x\r\n\r\n"),
        raw("GET /a.txt HTTP/2.0\r\nHost: x\r\n\r\n"),
        // Two blanks in the first line: RFC 9112, 3 has one.
        raw("GET  /a.txt  HTTP/1.1\r\nHost: x\r\n\r\n").differs(200, 400),
        raw("POST /a.txt HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"),
        raw("DELETE /a.txt HTTP/1.1\r\nHost: x\r\n\r\n"),
        raw("GET /a.txt HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"),
        raw("GET /a.txt HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n"),
        raw("GET /a.txt HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"),
        raw("GET /a.txt HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"),
        raw("GET /a.txt HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n"),
        raw(&format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n")),
        // nginx says 400 where RFC 6585 has a status of its own.
        raw(&format!("GET /a.txt HTTP/1.1\r\nHost: x\r\nX: {long}{long}\r\n\r\n")).differs(400, 431),
        // nginx reads the body of a GET and throws it away; a cache in between may think it is a request.
        raw("GET /a.txt HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody").differs(200, 413),
        // A browser's preflight: nginx would need a configuration for it.
        raw("OPTIONS /a.txt HTTP/1.1\r\nHost: x\r\n\r\n").differs(405, 204),
        // Nobody here has such a method (RFC 9110, 15.6.2).
        raw("BREW /a.txt HTTP/1.1\r\nHost: x\r\n\r\n").differs(405, 501),
    ];
    compare(nginx.addr, ours.addr("listen"), &cases);
    ours.assert_up();
}
