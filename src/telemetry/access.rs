//! The access log: one line for each request. The caller gives a target that is redacted already; nothing here
//! knows which parts of one are secret.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use prometheus::IntCounter;
use tracing::Level;

use super::line;
use super::lines::LineQueue;
use super::throttle::Throttle;
use super::{LogFormat, LogSettings, Metrics, RequestResult};

/// Longest host, target, range and user agent in a line, in characters; more is cut and marked with `…`.
const HOST_LIMIT: usize = 255;
const TARGET_LIMIT: usize = 2048;
const RANGE_LIMIT: usize = 128;
const USER_AGENT_LIMIT: usize = 200;
const CUT_LIMIT: usize = 200;

/// Lines about refused request heads at once, and the time that brings back one: 12 MB a day at most, however fast
/// somebody sends nonsense.
const REFUSALS: u32 = 100;
const REFUSAL_EACH: Duration = Duration::from_secs(1);

/// Where access lines go. Cheap to clone; when the last clone is dropped the lines that wait are written.
#[derive(Debug, Clone)]
pub struct AccessLog {
    /// Nothing when access lines are switched off.
    open: Option<(LineQueue, LogFormat)>,
    refusals: Arc<Mutex<Throttle>>,
    refusals_unlogged: IntCounter,
}

/// One request and its answer, as it ended.
#[derive(Debug, Clone, Copy)]
pub struct AccessLine<'a> {
    /// When the request head was complete.
    pub time: SystemTime,
    /// Who asked; behind a trusted proxy the address that it tells.
    pub client: IpAddr,
    /// Request method.
    pub method: &'a str,
    /// Host of the origin, or what the request named when none was found.
    pub host: &'a str,
    /// Path and query without secrets.
    pub target: &'a str,
    /// Status of the answer.
    pub status: u16,
    /// Body bytes handed to the connection.
    pub bytes: u64,
    /// Bytes of the client that were passed on, in a tunnel.
    pub received: Option<u64>,
    /// From the complete request head to the end of the answer.
    pub duration: Duration,
    /// How it was answered.
    pub result: RequestResult,
    /// How the request named its origin.
    pub form: &'a str,
    /// Value of the `Range` field that was used.
    pub range: Option<&'a [u8]>,
    /// Value of the `User-Agent` field.
    pub user_agent: Option<&'a [u8]>,
    /// Why there is no content in the answer, if there is none.
    pub reason: Option<&'a str>,
    /// Why the answer ended before its end, if it did.
    pub cut: Option<&'a str>,
}

impl AccessLog {
    /// An access log on standard output; one that does nothing when `settings.access` is off. Lines that find no room,
    /// because whoever reads standard output is too slow, are counted in `log_lines_dropped`.
    ///
    /// # Errors
    /// When the system gives no thread for the writer.
    pub fn new(settings: &LogSettings, metrics: &Metrics) -> io::Result<Self> {
        Self::to_sink(settings, metrics, io::stdout())
    }

    /// As [`AccessLog::new`], to `sink`.
    ///
    /// # Errors
    /// When the system gives no thread for the writer.
    pub fn to_sink(settings: &LogSettings, metrics: &Metrics, sink: impl Write + Send + 'static) -> io::Result<Self> {
        let open = if settings.access {
            Some((LineQueue::start(sink, metrics.log_lines_dropped.clone())?, settings.format))
        } else {
            None
        };
        let refusals = Throttle::new(REFUSALS, REFUSAL_EACH, Instant::now());
        let refusals_unlogged = metrics.refusals_unlogged.clone();
        Ok(Self { open, refusals: Arc::new(Mutex::new(refusals)), refusals_unlogged })
    }

    /// Writes `line` soon. Never waits for the reader of the log.
    pub fn log(&self, line: &AccessLine<'_>) {
        if let Some((lines, format)) = &self.open {
            thread_local! {
                static LINE: RefCell<String> = const { RefCell::new(String::new()) };
            }
            LINE.with_borrow_mut(|text| {
                text.clear();
                line.render(*format, text);
                lines.push(text.as_bytes());
            });
        }
    }

    /// As [`AccessLog::log`], for a request that was refused before it was understood: anybody can send any number of
    /// them at no cost, so lines beyond a bound are counted only.
    pub fn log_refusal(&self, line: &AccessLine<'_>) {
        if self.open.is_some() && !self.refusals.lock().allows(Instant::now()) {
            self.refusals_unlogged.inc();
            return;
        }
        self.log(line);
    }

    /// Blocks until the lines so far are written, at most 2 s; false when they are not.
    pub fn flush(&self) -> bool {
        self.open.as_ref().is_none_or(|(lines, _)| lines.flush())
    }
}

impl AccessLine<'_> {
    /// Appends the line in `format`, with its newline.
    pub fn render(&self, format: LogFormat, out: &mut String) {
        line::begin(self.time, Level::INFO, format, out);
        match format {
            LogFormat::Json => {
                out.push_str("\"request\"");
                text_field(format, "client", &self.client.to_string(), usize::MAX, out);
                text_field(format, "method", self.method, usize::MAX, out);
                text_field(format, "host", self.host, HOST_LIMIT, out);
                text_field(format, "target", self.target, TARGET_LIMIT, out);
                number_field(format, "status", self.status.into(), out);
            }
            LogFormat::Human | LogFormat::IotEdge => {
                match self.client {
                    IpAddr::V4(client) => {
                        for (n, octet) in client.octets().into_iter().enumerate() {
                            if n > 0 {
                                out.push('.');
                            }
                            line::push_number(octet.into(), out);
                        }
                    }
                    // Writing to a String cannot fail.
                    IpAddr::V6(client) => drop(write!(out, "{client}")),
                }
                out.push(' ');
                line::escape_text(self.method, out);
                out.push(' ');
                push_word(self.host, HOST_LIMIT, out);
                out.push(' ');
                push_word(self.target, TARGET_LIMIT, out);
                out.push(' ');
                line::push_number(self.status.into(), out);
            }
        }
        number_field(format, "bytes", self.bytes, out);
        if let Some(received) = self.received {
            number_field(format, "received", received, out);
        }
        number_field(format, "ms", u64::try_from(self.duration.as_millis()).unwrap_or(u64::MAX), out);
        text_field(format, "result", self.result.as_str(), usize::MAX, out);
        text_field(format, "form", self.form, usize::MAX, out);
        let mut foreign = |name, value: Option<&[u8]>, limit| {
            if let Some(value) = value {
                text_field(format, name, &String::from_utf8_lossy(value), limit, out);
            }
        };
        foreign("reason", self.reason.map(str::as_bytes), CUT_LIMIT);
        foreign("range", self.range, RANGE_LIMIT);
        foreign("agent", self.user_agent, USER_AGENT_LIMIT);
        foreign("cut", self.cut.map(str::as_bytes), CUT_LIMIT);
        line::end(format, out);
    }
}

fn number_field(format: LogFormat, name: &str, value: u64, out: &mut String) {
    line::field_name(format, name, out);
    line::push_number(value, out);
}

fn text_field(format: LogFormat, name: &str, value: &str, limit: usize, out: &mut String) {
    line::field_name(format, name, out);
    line::field_text(format, &bounded(value, limit), out);
}

/// A space in a word of the message would let a request write fields of its own.
fn push_word(text: &str, limit: usize, out: &mut String) {
    if text.len() <= limit && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        out.push_str(text);
        return;
    }
    line::escape_text(&bounded(text, limit).replace(char::is_whitespace, "\\u{20}"), out);
}

/// At most `limit` characters of `text`.
fn bounded(text: &str, limit: usize) -> Cow<'_, str> {
    if text.len() <= limit {
        return text.into();
    }
    match text.char_indices().nth(limit) {
        None => text.into(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::UNIX_EPOCH;

    use super::super::lines::tests::Captured;
    use super::*;

    fn line() -> AccessLine<'static> {
        AccessLine {
            time: UNIX_EPOCH + Duration::from_millis(1_795_455_765_123),
            client: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7)),
            method: "GET",
            host: "dl.example.com",
            target: "/p/a.swu?sig=***",
            status: 206,
            bytes: 1_048_576,
            received: None,
            duration: Duration::from_micros(12_900),
            result: RequestResult::Partial,
            form: "connected-cache",
            range: Some(b"bytes=0-1048575"),
            user_agent: Some(b"Microsoft-Delivery-Optimization/10.0"),
            reason: None,
            cut: None,
        }
    }

    fn written(format: LogFormat, access: bool, lines: &[AccessLine<'_>]) -> String {
        let (metrics, sink) = (Metrics::new().unwrap(), Captured::default());
        let settings = LogSettings { format, access, ..LogSettings::default() };
        let log = AccessLog::to_sink(&settings, &metrics, sink.clone()).unwrap();
        lines.iter().for_each(|line| log.log(line));
        assert!(log.flush());
        assert_eq!(metrics.log_lines_dropped.get(), 0);
        sink.text()
    }

    #[test]
    fn each_format_tells_the_whole_request() {
        assert_eq!(
            written(LogFormat::Human, true, &[line()]),
            "2026-11-23T17:42:45.123Z INFO  10.0.0.7 GET dl.example.com /p/a.swu?sig=*** 206 bytes=1048576 ms=12 \
             result=partial form=connected-cache range=\"bytes=0-1048575\" agent=Microsoft-Delivery-Optimization/10.0\n"
        );
        assert_eq!(
            written(LogFormat::IotEdge, true, &[AccessLine { range: None, user_agent: None, ..line() }]),
            "<6> 2026-11-23 17:42:45.123 +00:00 [INF] - 10.0.0.7 GET dl.example.com /p/a.swu?sig=*** 206 \
             bytes=1048576 ms=12 result=partial form=connected-cache\n"
        );
        let json: serde_json::Value = serde_json::from_str(&written(LogFormat::Json, true, &[line()])).unwrap();
        let expected = serde_json::json!({
            "time": "2026-11-23T17:42:45.123Z", "level": "INFO", "message": "request", "client": "10.0.0.7",
            "method": "GET", "host": "dl.example.com", "target": "/p/a.swu?sig=***", "status": 206, "bytes": 1_048_576,
            "ms": 12, "result": "partial", "form": "connected-cache", "range": "bytes=0-1048575",
            "agent": "Microsoft-Delivery-Optimization/10.0",
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn foreign_text_cannot_break_the_line_or_make_it_endless() {
        let target = format!("/{}", "é".repeat(10_000));
        let agent = [b"curl\r\n\x1b[2J\xff\" x=".as_slice(), &[b'a'; 10_000]].concat();
        for format in LogFormat::ALL {
            let text = written(format, true, &[AccessLine { target: &target, user_agent: Some(&agent), ..line() }]);
            assert_eq!(text.lines().count(), 1, "{text}");
            assert!(!text.contains(['\r', '\x1b']), "{text}");
            assert!(text.chars().count() < 3000 && text.contains('…'), "{}", text.len());
        }
    }

    #[test]
    fn a_host_with_spaces_cannot_write_fields() {
        let text = written(LogFormat::Human, true, &[AccessLine { host: "a / 200 bytes=0", ..line() }]);
        assert!(text.contains(" a\\u{20}/\\u{20}200\\u{20}bytes=0 /p/a.swu"), "{text}");
    }

    #[test]
    fn nothing_is_written_when_access_lines_are_off() {
        assert_eq!(written(LogFormat::Human, false, &[line()]), "");
    }

    #[test]
    fn every_request_of_a_burst_has_its_line() {
        let lines = vec![line(); 10_000];
        assert_eq!(written(LogFormat::Json, true, &lines).lines().count(), 10_000);
    }

    #[test]
    fn refusals_cannot_fill_the_log() {
        let (metrics, sink) = (Metrics::new().unwrap(), Captured::default());
        let log = AccessLog::to_sink(&LogSettings::default(), &metrics, sink.clone()).unwrap();
        let refusal = AccessLine { status: 400, reason: Some("bare-lf"), ..line() };
        (0..1000).for_each(|_| log.clone().log_refusal(&refusal));
        log.log(&line());
        assert!(log.flush());
        let written = sink.text().lines().filter(|line| line.contains(" reason=bare-lf")).count();
        assert!((100..120).contains(&written), "{written}");
        assert_eq!(metrics.refusals_unlogged.get(), 1000 - written as u64);
        assert!(sink.text().lines().last().unwrap().contains(" 206 "), "others are not held up");
    }
}
