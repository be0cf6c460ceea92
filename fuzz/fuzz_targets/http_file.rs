//! Any request for a file: no panic; paths stay below their folder, ranges within their file, and evaluating a
//! condition twice gives the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use uringcast::protocol::http::conditional::{Validators, evaluate, range_holds};
use uringcast::protocol::http::request::{RequestLimits, RequestReader};
use uringcast::protocol::http::{FileType, Range, RelPath};

fuzz_target!(|input: (u64, &str, &[u8])| {
    let (len, text, head) = input;
    if let Ok(path) = RelPath::parse(text) {
        assert!(!path.as_str().contains(['\0', '\\']));
        assert!(path.as_str().split('/').all(|name| !name.is_empty() && !name.starts_with('.')));
        assert_eq!(RelPath::parse(&format!("/{}", path.as_str())).as_ref(), Ok(&path));
        let _ = FileType::of(path.extension());
    }
    if let Range::Part { first, len: part } = Range::evaluate(text, len) {
        assert!(part > 0 && first.checked_add(part).is_some_and(|end| end <= len));
    }
    let Ok(Some(request)) = RequestReader::new(RequestLimits::new(4096)).push(head) else { return };
    let _ = RelPath::parse(&request.path);
    let validators = Validators { etag: "\"5-a\"", modified: Some(784_111_777) };
    assert_eq!(evaluate(&request.headers, validators), evaluate(&request.headers, validators));
    if range_holds(&request.headers, validators) {
        let _ = Range::evaluate(request.header("range").unwrap_or_default(), len);
    }
});
