use proptest::prelude::*;

use super::*;

const LIMITS: RequestLimits = RequestLimits { head: 4096, line: 1024 };

fn parse(text: &str) -> Result<Request, HttpError> {
    RequestReader::new(LIMITS).push(text.as_bytes()).map(|request| request.expect("a whole head"))
}

/// A GET of `target` with further field lines.
fn get(target: &str, fields: &str) -> Result<Request, HttpError> {
    parse(&format!("GET {target} HTTP/1.1\r\nHost: h\r\n{fields}\r\n"))
}

fn status(text: &str) -> u16 {
    parse(text).unwrap_err().status()
}

#[test]
fn a_request_split_at_any_point_reads_the_same() {
    let text = b"\r\nGET /live/a%20b.flv?disableAudio=1&x=%41+b&y HTTP/1.1\r\nHost: h:1\r\n\
        User-Agent: curl\r\nEmpty:\r\nACCEPT: */*\r\n\r\nrest";
    let whole = RequestReader::new(LIMITS).push(text).unwrap().unwrap();
    assert_eq!((whole.method, whole.path.as_str(), whole.version11), (Method::Get, "/live/a b.flv", true));
    assert_eq!(whole.target, "/live/a%20b.flv?disableAudio=1&x=%41+b&y");
    assert_eq!((whole.query("disableAudio"), whole.query("x")), (Some("1"), Some("A b")));
    assert_eq!((whole.query("y"), whole.query("z")), (Some(""), None));
    assert_eq!(
        (whole.header("accept"), whole.header("empty"), whole.headers.len()),
        (Some("*/*"), Some(""), 4)
    );
    for split in 0..text.len() {
        let mut reader = RequestReader::new(LIMITS);
        let first = reader.push(&text[..split]).unwrap();
        let second = reader.push(&text[split..]).unwrap();
        assert_eq!(first.or(second).as_ref(), Some(&whole), "split at {split}");
        assert_eq!(reader.take_rest(), &b"rest"[..]);
    }
    let mut reader = RequestReader::new(LIMITS);
    let requests = text.iter().filter_map(|byte| reader.push(&[*byte]).unwrap());
    assert_eq!(requests.collect::<Vec<_>>(), [whole]);
}

#[test]
fn pipelined_requests_come_one_by_one() {
    let mut reader = RequestReader::new(LIMITS);
    let two = b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\nGET /3";
    assert_eq!(reader.push(two).unwrap().unwrap().path, "/1");
    assert_eq!(reader.push(&[]).unwrap().unwrap().path, "/2");
    assert_eq!(reader.push(&[]).unwrap(), None);
    assert_eq!(reader.push(b" HTTP/1.0\r\n\r\n").unwrap().unwrap().path, "/3");
}

#[test]
fn paths_are_decoded_once_and_checked() {
    for (target, path) in [
        ("/", "/"),
        ("/a..b/...", "/a..b/..."),
        ("/%252e%252e/x", "/%2e%2e/x"),
        ("http://other:1/x/y?q", "/x/y"),
        ("http://other", "/"),
        ("/%E4%BD%A0", "/你"),
        ("//x", "//x"),
    ] {
        assert_eq!(get(target, "").unwrap().path, path);
    }
    for target in [
        "/../x",
        "/a/..",
        "/%2e%2E/x",
        "/..%2fx",
        "/a%5c..",
        "/a\\b",
        "/%00",
        "/%0d%0a",
        "/%",
        "/%4",
        "/%zz",
        "/%ff",
        "/x#y",
        "x",
        "*",
        "ftp://x/",
        "http://",
        "/%7f",
    ] {
        assert!(matches!(get(target, "").map_err(|e| e.status()), Err(400)), "{target}");
    }
    assert_eq!(parse("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n").unwrap().path, "/");
}

#[test]
fn keep_alive_depends_on_version_and_connection() {
    let cases = [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: foo, CLOSE\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
    ];
    for (version, field, keep) in cases {
        let request = parse(&format!("GET / HTTP/{version}\r\nHost: h\r\n{field}\r\n")).unwrap();
        assert_eq!(request.keep_alive(), keep, "{version} {field}");
    }
    assert!(get("/", "Expect: 100-Continue\r\n").unwrap().expects_continue());
}

#[test]
fn bodies_are_delimited_in_one_way_only() {
    let body = |fields: &str| get("/", fields).map(|request| request.body_length());
    assert_eq!(body(""), Ok(BodyLength::None));
    assert_eq!(body("Content-Length: 12\r\n"), Ok(BodyLength::Length(12)));
    assert_eq!(body("Content-Length: 5\r\ncontent-length: 5, 5\r\n"), Ok(BodyLength::Length(5)));
    assert_eq!(body("Transfer-Encoding: Chunked\r\n"), Ok(BodyLength::Chunked));
    let fault = |fields: &str| match body(fields) {
        Err(HttpError::Head(fault)) => fault,
        other => panic!("{fields}: {other:?}"),
    };
    assert_eq!(fault("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"), HeadFault::LengthAndCoding);
    assert_eq!(
        fault("Content-Length: 1\r\nContent-Length: 2\r\n"),
        HeadFault::LengthsDiffer { first: 1, second: 2 }
    );
    for length in ["", "+1", "-1", "0x1", "1 2", "18446744073709551616", "1,", "\u{e9}"] {
        assert_eq!(fault(&format!("Content-Length: {length}\r\n")), HeadFault::BadLength);
    }
    for coding in ["gzip", "gzip, chunked", "chunked, chunked", "identity", "", "xchunked", "\u{e9}"] {
        assert_eq!(fault(&format!("Transfer-Encoding: {coding}\r\n")), HeadFault::UnknownCoding);
    }
    assert_eq!(
        fault("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        HeadFault::UnknownCoding
    );
    assert_eq!(status("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
}

#[test]
fn smuggling_shapes_are_refused() {
    for text in [
        "GET / HTTP/1.1\nHost: h\n\n",
        "GET / HTTP/1.1\r\nHost: h\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\rX: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\n X: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : h\r\n\r\n",
        "GET / HTTP/1.1\r\n: h\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET /\r\n\r\n",
    ] {
        assert_eq!(status(text), 400, "{text:?}");
    }
}

#[test]
fn each_refusal_has_its_status() {
    assert_eq!(status("GET / HTTP/2.0\r\nHost: h\r\n\r\n"), 505);
    assert_eq!(status("GET / x HTTP/1.1\r\nHost: h\r\n\r\n"), 505);
    assert_eq!(status("CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n"), 501);
    assert_eq!(status(&format!("GET /{} HTTP/1.1\r\n", "a".repeat(1024))), 414);
    assert_eq!(status(&format!("GET / HTTP/1.1\r\nHost: h\r\n{}", "X: yyyyyyyy\r\n".repeat(400))), 431);
    assert_eq!(status(&format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "X: y\r\n".repeat(64))), 431);
    let brew = parse("BREW / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    assert_eq!(brew.allow(&[Method::Get], "GET").unwrap_err().status(), 501);
    let put = parse("PUT / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    assert_eq!(put.allow(&[Method::Get], "GET").unwrap_err().status(), 405);
    let wrong = get("/", "").unwrap().allow(&[Method::Post], "POST").unwrap_err();
    assert_eq!(wrong.status(), 405);
    let page = String::from_utf8(wrong.page()).unwrap();
    assert!(page.starts_with("HTTP/1.1 405 Method Not Allowed\r\n") && page.contains("Allow: POST\r\n"));
}

#[test]
fn a_host_is_a_name_or_an_address() {
    let status_of = |host: &str| match parse(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")) {
        Ok(_) => 200,
        Err(error) => error.status(),
    };
    for good in ["a.example", "a.example:80", "127.0.0.1:8501", "[::1]", "[::1]:8501", "", "a_b", "x:"] {
        assert_eq!(status_of(good), 200, "{good:?}");
    }
    for bad in ["a b", "a/b", "a@b", "a:b", "[::1", "[x]", "::1", "a:80x", "\u{e9}", "a\"b", "[::1]x", "<a>"]
    {
        assert_eq!(status_of(bad), 400, "{bad:?}");
    }
}

#[test]
fn a_length_of_zero_means_no_body() {
    let none = get("/", "Content-Length: 0\r\n").unwrap();
    assert!(!none.has_body() && get("/", "Content-Length: 1\r\n").unwrap().has_body());
}

#[test]
fn other_protocols_are_recognised_by_their_first_byte() {
    for byte in [0x03, 0x16, 0x00, b' ', b'/', 0xff] {
        let error = RequestReader::new(LIMITS).push(&[byte]).unwrap_err();
        assert_eq!(error, HttpError::Head(HeadFault::NotHttp { byte }));
    }
    assert!(RequestReader::new(LIMITS).push("\r\n".repeat(5).as_bytes()).is_err());
}

#[test]
fn websocket_upgrades_are_checked() {
    let key = "dGhlIHNhbXBsZSBub25jZQ==";
    let full = format!(
        "Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
    );
    assert_eq!(get("/", &full).unwrap().websocket_key(), Ok(Some(key.to_owned())));
    assert_eq!(get("/", "").unwrap().websocket_key(), Ok(None));
    let fails = |from: &str, to: &str| {
        get("/", &full.replace(from, to)).unwrap().websocket_key().unwrap_err().status()
    };
    assert_eq!(fails("Version: 13", "Version: 8"), 426);
    assert_eq!(fails(", Upgrade", ""), 400);
    assert_eq!(fails(key, "c2hvcnQ="), 400);
    assert_eq!(fails(key, "!!!"), 400);
    assert_eq!(fails("Sec-WebSocket-Key", "X-Key"), 400);
    let post = parse(&format!("POST / HTTP/1.1\r\nHost: h\r\n{full}\r\n")).unwrap();
    assert_eq!(post.websocket_key().unwrap_err().status(), 400);
}

proptest! {
    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = RequestReader::new(LIMITS).push(&bytes);
        let _ = RequestReader::new(LIMITS).push(&[b"GET / HTTP/1.1\r\n", bytes.as_slice()].concat());
    }

    /// The result, refusals included, does not depend on where the bytes are split.
    #[test]
    fn splits_change_nothing(
        parts in proptest::collection::vec(
            prop_oneof![
                Just("GET / HTTP/1.1\r\n".to_owned()), Just("\r\n".to_owned()), Just("Host: h\r\n".to_owned()),
                Just("\n".to_owned()), Just("\r".to_owned()), Just(" ".to_owned()),
                Just("Content-Length: 3\r\n".to_owned()), "[ -~]{0,30}",
            ],
            0..12,
        ),
        split in 0usize..200,
    ) {
        let text = parts.concat();
        let (first, second) = text.as_bytes().split_at(split.min(text.len()));
        let whole = RequestReader::new(LIMITS).push(text.as_bytes());
        let mut reader = RequestReader::new(LIMITS);
        let pieces = match reader.push(first) {
            Ok(None) => reader.push(second),
            outcome => outcome,
        };
        prop_assert_eq!(pieces, whole);
    }

    #[test]
    fn nearly_http_never_panics(
        target in "[ -~]{0,40}", fields in proptest::collection::vec("[!-~]{1,9}:? ?[ -~]{0,20}", 0..6)
    ) {
        let text = format!("GET /{target} HTTP/1.1\r\nHost: h\r\n{}\r\n\r\n", fields.join("\r\n"));
        if let Ok(Some(request)) = RequestReader::new(LIMITS).push(text.as_bytes()) {
            prop_assert!(request.path.starts_with('/'));
            prop_assert!(request.path.split('/').all(|part| part != ".."));
        }
    }
}

#[test]
fn a_token_stands_in_front_of_the_path_or_in_a_field_or_in_the_query() {
    let token = |target: &str, fields: &str| {
        let request = get(target, fields).unwrap();
        (request.token().map(str::to_owned), request.path)
    };
    let found = |token: &str, path: &str| (Some(token.to_owned()), path.to_owned());
    assert_eq!(token("/~a.b-c_d/hls/x?token=e", "Authorization: Bearer f\r\n"), found("a.b-c_d", "/hls/x"));
    assert_eq!(token("/%7Ea/x", ""), found("a", "/x"));
    assert_eq!(token("/~a/", ""), found("a", "/"));
    assert_eq!(token("/~a/~b/x", ""), found("a", "/~b/x"));
    assert_eq!(token("/~a//x", ""), found("a", "//x"));
    assert_eq!(token("/x?token=e&token=g", "authorization: bearer  f\r\n"), found("f", "/x"));
    assert_eq!(token("/x?y&token=e%2Ef", "Authorization: Basic f\r\n"), found("e.f", "/x"));
    for plain in ["/x", "/~a", "/x/~a/y"] {
        assert_eq!(token(plain, ""), (None, plain.to_owned()));
    }
    for bad in ["/~a/../x", "/~a/%2e%2e/x", "/..%2f~a/x", "/~a/%2E./x"] {
        assert!(get(bad, "").is_err(), "{bad}");
    }
}
