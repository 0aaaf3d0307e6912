//! Why the wire refuses a request or a connection, and the literal answer for each reason. These answers
//! are written without hyper, since a refused request never reaches it.

use std::fmt::Write as _;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};

/// A reason to answer without asking the service. The connection is closed afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The head did not arrive in time.
    HeadTimeout,
    /// The head is longer than allowed.
    HeadTooLarge,
    /// More than 100 header fields.
    TooManyFields,
    /// The request line is longer than allowed.
    TargetTooLong,
    /// A TLS handshake on the plain port.
    Tls,
    /// A request in the clear on the TLS port.
    PlainHttp,
    /// A line ends in LF without CR (RFC 9112 section 2.2).
    BareLf,
    /// CR without LF (RFC 9112 section 2.2).
    BareCr,
    /// More empty lines before the request than a confused client sends (RFC 9112 section 2.2).
    EmptyLines,
    /// The method is missing or no token (RFC 9110 section 9.1).
    Method,
    /// The request target is missing or holds a byte that RFC 3986 does not allow there.
    Target,
    /// The request target has a fragment (RFC 9112 section 3.2).
    Fragment,
    /// The version is missing or malformed (RFC 9112 section 2.3).
    Version,
    /// A well-formed version that is not spoken here, HTTP/2 with prior knowledge included.
    VersionUnsupported,
    /// A field name is empty or no token, or a field line has no colon (RFC 9112 section 5); or the name is one of framing to
    /// those who read `_` as `-`.
    FieldName,
    /// Whitespace between field name and colon (RFC 9112 section 5.1).
    SpaceBeforeColon,
    /// A field value with a control character (RFC 9110 section 5.5).
    FieldValue,
    /// A line that continues the one before, or whitespace before the first field (RFC 9112 sections 2.2, 5.2).
    ObsFold,
    /// No Host in an HTTP/1.1 request (RFC 9112 section 3.2).
    HostMissing,
    /// More than one Host (RFC 9112 section 3.2).
    HostRepeated,
    /// A Host that cannot be an authority (RFC 9112 section 3.2).
    HostInvalid,
    /// Content-Length is no number, or beyond what can be counted (RFC 9112 section 6.3).
    ContentLength,
    /// Several Content-Length that differ (RFC 9112 section 6.3).
    ContentLengthDiffers,
    /// Content-Length beside Transfer-Encoding, the sign of request smuggling (RFC 9112 section 6.3).
    LengthAndEncoding,
    /// Transfer-Encoding other than exactly one coding, or in HTTP/1.0 (RFC 9112 section 6.1).
    TransferEncoding,
    /// A transfer coding other than `chunked` (RFC 9112 section 6.1).
    TransferCodingUnknown,
    /// Faulty chunk framing in a request body (RFC 9112 section 7.1).
    Chunk,
    /// In HTTP/2 a Host that is not the `:authority` (RFC 9113 section 8.3.1).
    HostDiffers,
    /// In HTTP/2 a `:scheme` that is neither http nor https.
    Scheme,
    /// CONNECT in HTTP/2.
    TunnelVersion,
    /// More HTTP/2 frames than the requests need (RFC 9113 section 10.5).
    Frames,
    /// A PROXY protocol header where none is taken: its sender is no trusted proxy, or none is expected.
    ProxyHeaderUnexpected,
    /// A trusted proxy did not begin with a PROXY protocol header of version 2.
    ProxyHeaderMissing,
    /// A PROXY protocol header that is none.
    ProxyHeaderMalformed,
    /// A PROXY protocol header that is longer than allowed.
    ProxyHeaderTooLong,
    /// A PROXY protocol header that did not arrive in time.
    ProxyHeaderTimeout,
    /// The connection ended in the middle of a PROXY protocol header.
    ProxyHeaderCut,
    /// The client's address is not on the allow list.
    ClientNotAllowed,
    /// Neither the client's address nor a name in its certificate is on the allow list.
    ClientNotNamed,
    /// The client has too many connections already.
    TooManyConnections,
    /// No descriptors left for another connection.
    NoDescriptors,
    /// The process is about to end.
    Draining,
}

impl Refusal {
    /// A stable name for metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HeadTimeout => "head-timeout",
            Self::HeadTooLarge => "head-too-large",
            Self::TooManyFields => "too-many-fields",
            Self::TargetTooLong => "target-too-long",
            Self::Tls => "tls",
            Self::PlainHttp => "plain-http",
            Self::BareLf => "bare-lf",
            Self::BareCr => "bare-cr",
            Self::EmptyLines => "empty-lines",
            Self::Method => "method",
            Self::Target => "target",
            Self::Fragment => "fragment",
            Self::Version => "version",
            Self::VersionUnsupported => "version-unsupported",
            Self::FieldName => "field-name",
            Self::SpaceBeforeColon => "space-before-colon",
            Self::FieldValue => "field-value",
            Self::ObsFold => "obs-fold",
            Self::HostMissing => "host-missing",
            Self::HostRepeated => "host-repeated",
            Self::HostInvalid => "host-invalid",
            Self::ContentLength => "content-length",
            Self::ContentLengthDiffers => "content-length-differs",
            Self::LengthAndEncoding => "length-and-encoding",
            Self::TransferEncoding => "transfer-encoding",
            Self::TransferCodingUnknown => "transfer-coding-unknown",
            Self::Chunk => "chunk",
            Self::HostDiffers => "host-differs",
            Self::Scheme => "scheme",
            Self::TunnelVersion => "tunnel-version",
            Self::Frames => "frames",
            Self::ProxyHeaderUnexpected => "proxy-header-unexpected",
            Self::ProxyHeaderMissing => "proxy-header-missing",
            Self::ProxyHeaderMalformed => "proxy-header-malformed",
            Self::ProxyHeaderTooLong => "proxy-header-too-long",
            Self::ProxyHeaderTimeout => "proxy-header-timeout",
            Self::ProxyHeaderCut => "proxy-header-cut",
            Self::ClientNotAllowed => "clients",
            Self::ClientNotNamed => "client-names",
            Self::TooManyConnections => "connections_per_client",
            Self::NoDescriptors => "descriptors",
            Self::Draining => "draining",
        }
    }

    /// The status line without its version.
    fn status(self) -> &'static str {
        match self {
            Self::HeadTimeout | Self::ProxyHeaderTimeout => "408 Request Timeout",
            Self::HeadTooLarge | Self::TooManyFields => "431 Request Header Fields Too Large",
            Self::TargetTooLong => "414 URI Too Long",
            Self::TransferCodingUnknown | Self::TunnelVersion => "501 Not Implemented",
            Self::VersionUnsupported => "505 HTTP Version Not Supported",
            Self::ClientNotAllowed | Self::ClientNotNamed => "403 Forbidden",
            Self::TooManyConnections | Self::NoDescriptors | Self::Draining => "503 Service Unavailable",
            _ => "400 Bad Request",
        }
    }

    /// The status.
    pub fn status_code(self) -> u16 {
        self.status().split(' ').next().and_then(|code| code.parse().ok()).unwrap_or_default()
    }

    /// One line for whoever reads the answer; empty for those that are meant for machines alone.
    fn explanation(self) -> &'static str {
        match self {
            Self::HeadTimeout => "the request head took too long",
            Self::HeadTooLarge => "the request head is too long",
            Self::TooManyFields => "more than 100 header fields",
            Self::TargetTooLong => "the request line is too long",
            Self::Tls => "this port speaks plain HTTP, not TLS",
            Self::PlainHttp => "this port speaks TLS: ask by https, or use the port for plain HTTP",
            Self::BareLf => "a line of the request head ends in LF without CR",
            Self::BareCr => "CR without LF in the request head",
            Self::EmptyLines => "too many empty lines before the request",
            Self::Method => "the method is missing or malformed",
            Self::Target => "the request target is missing or holds a byte that must be percent-encoded",
            Self::Fragment => "the request target has a fragment",
            Self::Version => "the HTTP version is missing or malformed",
            Self::VersionUnsupported => "only HTTP/1.0 and HTTP/1.1 are spoken here",
            Self::FieldName => "a header field has no valid name",
            Self::SpaceBeforeColon => "whitespace between a field name and its colon",
            Self::FieldValue => "a control character in a header field",
            Self::ObsFold => "a header field is continued on the next line",
            Self::HostMissing => "the Host field is missing",
            Self::HostRepeated => "more than one Host field",
            Self::HostInvalid => "the Host field is malformed",
            Self::ContentLength => "Content-Length is not a valid number",
            Self::ContentLengthDiffers => "several Content-Length fields that differ",
            Self::LengthAndEncoding => "both Content-Length and Transfer-Encoding",
            Self::TransferEncoding => "Transfer-Encoding must be exactly one coding, in HTTP/1.1 only",
            Self::TransferCodingUnknown => "the only transfer coding known here is chunked",
            Self::Chunk => "the chunks of the request body are malformed",
            Self::HostDiffers => "the Host field is not the :authority",
            Self::Scheme => "the :scheme must be http or https",
            Self::TunnelVersion => "tunnels (CONNECT) are there in HTTP/1.1 only",
            Self::Frames => "more frames than the requests need",
            Self::ProxyHeaderUnexpected => "a PROXY protocol header is not taken from this address",
            Self::ProxyHeaderMissing => "connections of this proxy must begin with a PROXY protocol header, version 2",
            Self::ProxyHeaderMalformed => "the PROXY protocol header is malformed",
            Self::ProxyHeaderTooLong => "the PROXY protocol header is too long",
            Self::ProxyHeaderTimeout => "the PROXY protocol header took too long",
            Self::ProxyHeaderCut => "the PROXY protocol header is cut off",
            Self::ClientNotAllowed => "this client address may not use this port",
            Self::ClientNotNamed => "neither this client's address nor a name in its certificate may use this port",
            Self::TooManyConnections | Self::NoDescriptors | Self::Draining => "",
        }
    }

    /// Whether a limit or the drain is the reason, rather than what the client sent.
    pub fn is_own_limit(self) -> bool {
        matches!(
            self,
            Self::ClientNotAllowed
                | Self::ClientNotNamed
                | Self::TooManyConnections
                | Self::NoDescriptors
                | Self::Draining
        )
    }

    /// Length of the answer's content in bytes.
    pub(in crate::serve) fn content_length(self) -> u64 {
        let explanation = self.explanation();
        if explanation.is_empty() { 0 } else { explanation.len() as u64 + 1 }
    }

    /// The answer where the library writes it.
    pub(in crate::serve) fn answer(self) -> Response<Bytes> {
        let explanation = self.explanation();
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = StatusCode::from_u16(self.status_code()).unwrap_or(StatusCode::BAD_REQUEST);
        if explanation.is_empty() {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        } else {
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
            *response.body_mut() = Bytes::from(format!("{explanation}\n"));
        }
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(self.content_length()));
        response
    }

    /// The whole answer, head and body. A 503 has no body and asks for a retry: the Delivery Optimization
    /// agent keeps a connection's error without body for what it is and comes back.
    pub fn response(self, now: SystemTime) -> String {
        let explanation = self.explanation();
        let mut response = format!("HTTP/1.1 {}\r\nDate: {}\r\n", self.status(), httpdate::fmt_http_date(now));
        // Writing to a String cannot fail.
        let _ = if explanation.is_empty() {
            write!(response, "Content-Length: 0\r\nRetry-After: 1\r\nConnection: close\r\n\r\n")
        } else {
            let length = self.content_length();
            write!(
                response,
                "Content-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{explanation}\n"
            )
        };
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_tells_its_reason_and_its_exact_length() {
        let response = Refusal::BareLf.response(SystemTime::UNIX_EPOCH);
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, "a line of the request head ends in LF without CR\n");
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n"), "{head}");
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
        let answer = Refusal::BareLf.answer();
        assert_eq!((answer.status(), &**answer.body()), (StatusCode::BAD_REQUEST, body.as_bytes()));
        assert_eq!(answer.headers()[CONTENT_LENGTH], body.len().to_string());
        assert!(head.contains("\r\nContent-Type: text/plain\r\n") && head.ends_with("\r\nConnection: close"), "{head}");
    }

    #[test]
    fn a_503_has_no_body_and_asks_for_a_retry() {
        let response = Refusal::Draining.response(SystemTime::UNIX_EPOCH);
        assert!(response.starts_with("HTTP/1.1 503 "), "{response}");
        assert!(response.ends_with("Content-Length: 0\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"), "{response}");
    }
}
