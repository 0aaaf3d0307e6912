//! The table of heads that are refused, those that pass, and the laws of the scanner.

use proptest::prelude::*;

use super::*;

const LIMIT: usize = 32 * 1024;

fn scan(bytes: &[u8]) -> Verdict {
    HeadGate::new(LIMIT).scan(bytes)
}

/// A request with the usual first lines and `fields` behind them.
fn with(fields: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes()
}

#[test]
fn heads_that_pass_and_what_follows_them() {
    let cases: &[(&str, usize, Framing)] = &[
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 0, Framing::None),
        ("GET / HTTP/1.0\r\n\r\n", 0, Framing::None),
        ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 2, Framing::None),
        ("\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 16, Framing::None),
        ("GET http://b/x?y=%20&z=~!$'()*,;:@ HTTP/1.1\r\nhOsT: [::1]:80\r\n\r\n", 0, Framing::None),
        ("CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\n\r\n", 0, Framing::None),
        ("OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n", 0, Framing::None),
        ("BREW / HTTP/1.1\r\nHost: \t a \r\nX:\r\nY: \u{e9}\r\n\r\n", 0, Framing::None),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", 0, Framing::Length(5)),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \t0005 \r\ncontent-length: 5\r\n\r\n", 0, Framing::Length(5)),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 0, Framing::None),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551613\r\n\r\n",
            0,
            Framing::Length(u64::MAX - 2),
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n", 0, Framing::Chunked),
        ("POST / HTTP/1.0\r\nContent-Length: 7\r\n\r\n", 0, Framing::Length(7)),
    ];
    for &(head, start, framing) in cases {
        let input = format!("{head}GET /next HTTP/1.1\r\n");
        assert_eq!(scan(input.as_bytes()), Verdict::Head { start, end: head.len(), framing }, "{head:?}");
        for short in 0..head.len() {
            assert_eq!(scan(&head.as_bytes()[..short]), Verdict::NeedMore, "{head:?} up to {short}");
        }
    }
}

#[test]
fn malformed_heads_are_refused_with_their_reason() {
    let request_lines: &[(&[u8], Refusal)] = &[
        (b"\x16\x03\x01\x02\x00", Refusal::Tls),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", Refusal::ProxyHeaderUnexpected),
        (b"\0\r\n", Refusal::Method),
        (b"\r\n\0\r\nQUIT\n", Refusal::Method),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Refusal::VersionUnsupported),
        (b"GET / HTTP/1.2\r\n", Refusal::VersionUnsupported),
        (b"GET / HTTP/3.0\r\n", Refusal::VersionUnsupported),
        (b"GET / HTTP/0.9\r\n", Refusal::VersionUnsupported),
        (b"GET /\r\n", Refusal::Version),
        (b"GET / \r\n", Refusal::Version),
        (b"GET / HTTP/1.10\r\n", Refusal::Version),
        (b"GET / HTTP/1.1 \r\n", Refusal::Version),
        (b"GET / HTTP/1\r\n", Refusal::Version),
        (b"GET / http/1.1\r\n", Refusal::Version),
        (b"GET / HTTP/1.1\tx\r\n", Refusal::Version),
        (b"GET / x HTTP/1.1\r\n", Refusal::Version),
        (b"GET /  HTTP/1.1\r\n", Refusal::Version),
        (b"GET / HTTP/+1.1\r\n", Refusal::Version),
        (b"GET / HTTPS/1.1\r\n", Refusal::Version),
        (b"GET\r\n", Refusal::Target),
        (b"GET  / HTTP/1.1\r\n", Refusal::Target),
        (b"GET /\t HTTP/1.1\r\n", Refusal::Target),
        (b"GET /a\\b HTTP/1.1\r\n", Refusal::Target),
        (b"GET /\xc3\xa9 HTTP/1.1\r\n", Refusal::Target),
        (b"GET /\x00 HTTP/1.1\r\n", Refusal::Target),
        (b"GET /\x7f HTTP/1.1\r\n", Refusal::Target),
        (b"GET /<a> HTTP/1.1\r\n", Refusal::Target),
        (b"GET /`a HTTP/1.1\r\n", Refusal::Target),
        (b"GET /?\"a HTTP/1.1\r\n", Refusal::Target),
        (b"GET a/b HTTP/1.1\r\n", Refusal::Target),
        (b"GET http:///a HTTP/1.1\r\n", Refusal::Target),
        (b"GET file:///a HTTP/1.1\r\n", Refusal::Target),
        (b"GET /a#b HTTP/1.1\r\n", Refusal::Fragment),
        (b"GET http://h/#b HTTP/1.1\r\n", Refusal::Fragment),
        (b" GET / HTTP/1.1\r\n", Refusal::Method),
        (b"\tGET / HTTP/1.1\r\n", Refusal::Method),
        (b"G(T / HTTP/1.1\r\n", Refusal::Method),
        (b"G\x00T / HTTP/1.1\r\n", Refusal::Method),
        (b"GET\t/ HTTP/1.1\r\n", Refusal::Method),
        (b"G\xc3\xa9T / HTTP/1.1\r\n", Refusal::Method),
        (b"GET / HTTP/1.1\n", Refusal::BareLf),
        (b"\nGET / HTTP/1.1\r\n", Refusal::BareLf),
        (b"GET / HTTP/1.1\r\r\n", Refusal::BareCr),
        (b"GET /\rx HTTP/1.1\r\n", Refusal::BareCr),
        (b"\r\r\n", Refusal::BareCr),
        (b"\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n", Refusal::EmptyLines),
        (b"GET / HTTP/1.1\r\n\r\n", Refusal::HostMissing),
        (b"GET http://h/ HTTP/1.1\r\n\r\n", Refusal::HostMissing),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Refusal::TransferEncoding),
        (b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", Refusal::HostRepeated),
        (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", Refusal::ObsFold),
    ];
    for &(input, refusal) in request_lines {
        assert_eq!(scan(input), Verdict::Refuse(refusal), "{}", input.escape_ascii());
    }
    let fields: &[(&str, Refusal)] = &[
        ("Host: a\r\n", Refusal::HostRepeated),
        ("host: b\r\n", Refusal::HostRepeated),
        ("X: a\n", Refusal::BareLf),
        ("X: a\nY: b\r\n", Refusal::BareLf),
        ("\n", Refusal::BareLf),
        ("X: a\rb\r\n", Refusal::BareCr),
        ("X: a\r\r\n", Refusal::BareCr),
        ("X: a\r\n b\r\n", Refusal::ObsFold),
        ("X: a\r\n\tb\r\n", Refusal::ObsFold),
        ("X : a\r\n", Refusal::SpaceBeforeColon),
        ("Content-Length\t: 3\r\n", Refusal::SpaceBeforeColon),
        (": a\r\n", Refusal::FieldName),
        ("X\r\n", Refusal::FieldName),
        ("X Y: a\r\n", Refusal::FieldName),
        ("X\u{e9}: a\r\n", Refusal::FieldName),
        ("X(: a\r\n", Refusal::FieldName),
        ("X\0: a\r\n", Refusal::FieldName),
        ("Content_Length: 5\r\n", Refusal::FieldName),
        ("transfer_Encoding: chunked\r\n", Refusal::FieldName),
        ("X: a\0\r\n", Refusal::FieldValue),
        ("X: a\u{7}\r\n", Refusal::FieldValue),
        ("X: a\u{7f}\r\n", Refusal::FieldValue),
        ("X: \u{b}a\r\n", Refusal::FieldValue),
        ("Content-Length:\r\n", Refusal::ContentLength),
        ("Content-Length: +5\r\n", Refusal::ContentLength),
        ("Content-Length: -5\r\n", Refusal::ContentLength),
        ("Content-Length: 5, 5\r\n", Refusal::ContentLength),
        ("Content-Length: 5 5\r\n", Refusal::ContentLength),
        ("Content-Length: 0x5\r\n", Refusal::ContentLength),
        ("Content-Length: 5.0\r\n", Refusal::ContentLength),
        ("Content-Length: \u{ff15}\r\n", Refusal::ContentLength),
        ("Content-Length: 18446744073709551614\r\n", Refusal::ContentLength),
        ("Content-Length: 18446744073709551616\r\n", Refusal::ContentLength),
        ("Content-Length: 5\r\nContent-Length: 6\r\n", Refusal::ContentLengthDiffers),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", Refusal::LengthAndEncoding),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", Refusal::LengthAndEncoding),
        ("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", Refusal::LengthAndEncoding),
        ("Transfer-Encoding:\r\n", Refusal::TransferEncoding),
        ("Transfer-Encoding: gzip, chunked\r\n", Refusal::TransferEncoding),
        ("Transfer-Encoding: chunked, chunked\r\n", Refusal::TransferEncoding),
        ("Transfer-Encoding: chunked,\r\n", Refusal::TransferEncoding),
        ("Transfer-Encoding: ,chunked\r\n", Refusal::TransferEncoding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Refusal::TransferEncoding),
        ("Transfer-Encoding: cow\r\nTransfer-Encoding: chunked\r\n", Refusal::TransferEncoding),
        ("Transfer-Encoding: gzip\r\n", Refusal::TransferCodingUnknown),
        ("Transfer-Encoding: identity\r\n", Refusal::TransferCodingUnknown),
        ("Transfer-Encoding: xchunked\r\n", Refusal::TransferCodingUnknown),
        ("Transfer-Encoding: chunked;q=1\r\n", Refusal::TransferCodingUnknown),
        ("Transfer-Encoding: \"chunked\"\r\n", Refusal::TransferCodingUnknown),
    ];
    for &(field, refusal) in fields {
        assert_eq!(scan(&with(field)), Verdict::Refuse(refusal), "{}", field.escape_debug());
    }
    for host in ["a, b", "a b", "a/b", "u@a", "a?b", "a#b", "a\\b", "a\"", "<a>", "\u{e9}"] {
        let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(scan(head.as_bytes()), Verdict::Refuse(Refusal::HostInvalid), "{host}");
    }
}

#[test]
fn lengths_are_limited() {
    let fields = |count: usize| with(&"X: y\r\n".repeat(count.saturating_sub(1)));
    assert!(matches!(scan(&fields(100)), Verdict::Head { .. }));
    assert_eq!(scan(&fields(101)), Verdict::Refuse(Refusal::TooManyFields));

    let target = |length: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(length)).into_bytes();
    let longest = MAX_REQUEST_LINE - "GET / HTTP/1.1\r\n".len();
    assert!(matches!(scan(&target(longest)), Verdict::Head { .. }));
    assert_eq!(scan(&target(longest + 1)), Verdict::Refuse(Refusal::TargetTooLong));

    let sized = |length: usize| with(&format!("X: {}\r\n", "y".repeat(length - with("X: \r\n").len())));
    assert!(matches!(scan(&sized(LIMIT)), Verdict::Head { end: LIMIT, .. }));
    assert_eq!(scan(&sized(LIMIT + 1)), Verdict::Refuse(Refusal::HeadTooLarge));
    assert_eq!(scan(&sized(LIMIT + 1)[..LIMIT]), Verdict::Refuse(Refusal::HeadTooLarge));
}

/// Feeds piece by piece until there is a verdict.
fn feed(bytes: &[u8], mut cuts: Vec<usize>) -> Verdict {
    let mut gate = HeadGate::new(LIMIT);
    cuts.sort_unstable();
    for cut in cuts.into_iter().chain([bytes.len()]) {
        let verdict = gate.scan(&bytes[..cut.min(bytes.len())]);
        if verdict != Verdict::NeedMore {
            return verdict;
        }
    }
    Verdict::NeedMore
}

fn target_like() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"/".to_vec()),
        Just(b"?".to_vec()),
        Just(b"http://".to_vec()),
        Just(b"h".to_vec()),
        Just(b":80".to_vec()),
        proptest::collection::vec(0x21_u8..0x7f, 1..3),
    ];
    proptest::collection::vec(piece, 1..5).prop_map(|pieces| pieces.concat())
}

fn head_like() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"GET ".to_vec()),
        Just(b"/ HTTP/1.1\r\n".to_vec()),
        Just(b"GET / HTTP/1.1\r\n".to_vec()),
        Just(b"Host: a\r\n".to_vec()),
        Just(b"Content-Length: 5\r\n".to_vec()),
        Just(b"Transfer-Encoding: chunked\r\n".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"\r".to_vec()),
        proptest::collection::vec(any::<u8>(), 1..8),
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn anything_gets_a_verdict_that_does_not_depend_on_the_pieces(
        bytes in head_like(),
        cuts in proptest::collection::vec(0_usize..120, 0..8),
    ) {
        let whole = scan(&bytes);
        prop_assert_eq!(feed(&bytes, cuts), whole);
        prop_assert_eq!(feed(&bytes, (0..bytes.len()).collect()), whole);
    }

    #[test]
    fn every_target_that_passes_is_one_for_hyper(target in target_like()) {
        let head = [b"GET ", &target[..], b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
        if let Verdict::Head { .. } = scan(&head) {
            prop_assert!(http::Uri::try_from(&target[..]).is_ok());
        }
    }

    #[test]
    fn what_passes_is_understood_alike_by_hypers_parser(bytes in head_like()) {
        if let Verdict::Head { start, end, .. } = scan(&bytes) {
            let mut fields = [httparse::EMPTY_HEADER; 100];
            let mut request = httparse::Request::new(&mut fields);
            prop_assert_eq!(request.parse(&bytes[start..]), Ok(httparse::Status::Complete(end - start)));
            prop_assert!(request.path.unwrap().parse::<http::Uri>().is_ok());
        }
    }
}
