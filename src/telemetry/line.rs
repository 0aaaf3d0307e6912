//! How one log line looks in each format. Pure: time and values come in, text goes out.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use tracing::Level;

use super::LogFormat;

/// A value of a field.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Text(String),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
}

/// What a line says.
#[derive(Debug)]
pub(super) struct Line<'a> {
    pub(super) time: SystemTime,
    pub(super) level: Level,
    pub(super) message: &'a str,
    /// In the order in which they are written; of two with one name the later counts.
    pub(super) fields: &'a [(&'a str, Value)],
}

impl Line<'_> {
    /// The line in `format`, with its newline. Whatever the values hold, it is one line without control characters.
    pub(super) fn render(&self, format: LogFormat) -> String {
        let mut out = String::with_capacity(256);
        begin(self.time, self.level, format, &mut out);
        if format == LogFormat::Json {
            json_string(self.message, &mut out);
        } else {
            escape_text(self.message, &mut out);
        }
        for (name, value) in self.last_of_each() {
            if format == LogFormat::Json && matches!(*name, "time" | "level" | "message") {
                continue;
            }
            field_name(format, name, &mut out);
            match value {
                Value::Text(text) => field_text(format, text, &mut out),
                Value::Unsigned(n) => push_number(*n, &mut out),
                // Writing to a String cannot fail.
                Value::Signed(n) => drop(write!(out, "{n}")),
                Value::Float(n) if format != LogFormat::Json || n.is_finite() => drop(write!(out, "{n}")),
                Value::Float(_) => out.push_str("null"),
                Value::Bool(b) => drop(write!(out, "{b}")),
            }
        }
        end(format, &mut out);
        out
    }

    fn last_of_each(&self) -> impl Iterator<Item = &(&str, Value)> {
        let later = |n: usize| self.fields.get(n + 1..).unwrap_or_default();
        self.fields
            .iter()
            .enumerate()
            .filter(move |(n, (name, _))| !later(*n).iter().any(|l| l.0 == *name))
            .map(|f| f.1)
    }
}

/// Appends what stands before the message.
pub(super) fn begin(time: SystemTime, level: Level, format: LogFormat, out: &mut String) {
    match format {
        LogFormat::Human => {
            push_time(time, 'T', out);
            // Writing to a String cannot fail.
            let _ = write!(out, "Z {:<5} ", level.as_str());
        }
        LogFormat::IotEdge => {
            let (priority, name) = edge_severity(level);
            let _ = write!(out, "<{priority}> ");
            push_time(time, ' ', out);
            let _ = write!(out, " +00:00 [{name}] - ");
        }
        LogFormat::Json => {
            out.push_str("{\"time\":\"");
            push_time(time, 'T', out);
            out.push_str("Z\",\"level\":\"");
            out.push_str(level.as_str());
            out.push_str("\",\"message\":");
        }
    }
}

/// Appends what stands between the field before, or the message, and the value of the field `name`.
pub(super) fn field_name(format: LogFormat, name: &str, out: &mut String) {
    if format == LogFormat::Json {
        out.push(',');
        json_string(name, out);
        out.push(':');
    } else {
        out.push(' ');
        out.push_str(name);
        out.push('=');
    }
}

/// Appends a value that is text.
pub(super) fn field_text(format: LogFormat, text: &str, out: &mut String) {
    match format {
        LogFormat::Json => json_string(text, out),
        _ if is_plain(text) => out.push_str(text),
        _ => {
            out.push('"');
            for c in text.chars() {
                match c {
                    '"' | '\\' => out.extend(['\\', c]),
                    _ => escape_char(c, out),
                }
            }
            out.push('"');
        }
    }
}

/// Appends what ends the line.
pub(super) fn end(format: LogFormat, out: &mut String) {
    out.push_str(if format == LogFormat::Json { "}\n" } else { "\n" });
}

/// Appends a number in decimal digits, several times faster than the formatter does it.
pub(super) fn push_number(number: u64, out: &mut String) {
    out.push_str(itoa::Buffer::new().format(number));
}

/// Appends date and time in UTC, in milliseconds. A time that the calendar cannot hold counts as the epoch.
fn push_time(time: SystemTime, separator: char, out: &mut String) {
    thread_local! {
        /// The text of the second that was asked for last, without milliseconds.
        static LAST: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
    }
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let at = i64::try_from(since.as_secs()).ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    let (seconds, millis) = if at.is_some() { (since.as_secs(), since.subsec_millis()) } else { (0, 0) };
    LAST.with_borrow_mut(|(second, text)| {
        if *second != seconds {
            let at = at.unwrap_or(OffsetDateTime::UNIX_EPOCH);
            let (date, time) = (at.date(), at.time());
            text.clear();
            let _ = write!(text, "{:04}-{:02}-{:02}T", date.year(), u8::from(date.month()), date.day());
            let _ = write!(text, "{:02}:{:02}:{:02}", time.hour(), time.minute(), time.second());
            *second = seconds;
        }
        let (date, time) = text.split_once('T').unwrap_or_default();
        out.push_str(date);
        out.push(separator);
        out.push_str(time);
    });
    out.push('.');
    for divisor in [100, 10, 1] {
        out.push(char::from(b'0' + (millis / divisor % 10) as u8));
    }
}

/// The syslog priority (RFC 5424 section 6.2.1) and the three letters that the IoT Edge hub writes for a level.
fn edge_severity(level: Level) -> (u8, &'static str) {
    match level {
        Level::ERROR => (3, "ERR"),
        Level::WARN => (4, "WRN"),
        Level::INFO => (6, "INF"),
        Level::DEBUG => (7, "DBG"),
        Level::TRACE => (7, "VRB"),
    }
}

/// Whether a value can stand without quotation marks.
fn is_plain(text: &str) -> bool {
    if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'/' | b'_')) {
        return !text.is_empty();
    }
    text.chars().all(|c| !c.is_whitespace() && !is_unprintable(c) && !matches!(c, '"' | '\\' | '='))
}

/// What could break a line, move a terminal's cursor or show text in another order than it stands.
fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{feff}')
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Appends text with what is unprintable escaped.
pub(super) fn escape_text(text: &str, out: &mut String) {
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        out.push_str(text);
        return;
    }
    text.chars().for_each(|c| escape_char(c, out));
}

fn escape_char(c: char, out: &mut String) {
    if is_unprintable(c) {
        let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
    } else {
        out.push(c);
    }
}

fn json_string(text: &str, out: &mut String) {
    out.push('"');
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')) {
        out.push_str(text);
        out.push('"');
        return;
    }
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            // All of them lie in the basic plane, so four digits are enough.
            c if is_unprintable(c) => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn at() -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(1_795_455_765_123)
    }

    #[test]
    fn each_format_looks_as_its_readers_expect() {
        let fields = [
            ("drive", Value::Text("/data/drive 1".to_owned())),
            ("bytes", Value::Unsigned(u64::MAX)),
            ("delta", Value::Signed(-1)),
            ("ratio", Value::Float(0.5)),
            ("ready", Value::Bool(true)),
            ("source", Value::Text("origin".to_owned())),
        ];
        let line = Line { time: at(), level: Level::WARN, message: "drive is back", fields: &fields };
        assert_eq!(
            line.render(LogFormat::Human),
            "2026-11-23T17:42:45.123Z WARN  drive is back drive=\"/data/drive 1\" bytes=18446744073709551615 delta=-1 \
             ratio=0.5 ready=true source=origin\n"
        );
        assert_eq!(
            line.render(LogFormat::IotEdge),
            "<4> 2026-11-23 17:42:45.123 +00:00 [WRN] - drive is back drive=\"/data/drive 1\" \
             bytes=18446744073709551615 delta=-1 ratio=0.5 ready=true source=origin\n"
        );
        assert_eq!(
            line.render(LogFormat::Json),
            "{\"time\":\"2026-11-23T17:42:45.123Z\",\"level\":\"WARN\",\"message\":\"drive is back\",\
             \"drive\":\"/data/drive 1\",\"bytes\":18446744073709551615,\"delta\":-1,\"ratio\":0.5,\"ready\":true,\
             \"source\":\"origin\"}\n"
        );
    }

    #[test]
    fn edge_levels_carry_their_syslog_priority() {
        let rows = [
            (Level::ERROR, "<3> ", "[ERR]"),
            (Level::WARN, "<4> ", "[WRN]"),
            (Level::INFO, "<6> ", "[INF]"),
            (Level::DEBUG, "<7> ", "[DBG]"),
            (Level::TRACE, "<7> ", "[VRB]"),
        ];
        for (level, prefix, name) in rows {
            let line = Line { time: at(), level, message: "m", fields: &[] }.render(LogFormat::IotEdge);
            assert!(line.starts_with(prefix) && line.contains(name), "{line}");
        }
    }

    #[test]
    fn of_two_fields_with_one_name_the_later_counts() {
        let fields = [("a", Value::Unsigned(1)), ("b", Value::Unsigned(2)), ("a", Value::Unsigned(3))];
        let line = Line { time: at(), level: Level::INFO, message: "m", fields: &fields };
        assert!(line.render(LogFormat::Human).ends_with("m b=2 a=3\n"));
        let json: serde_json::Value = serde_json::from_str(&line.render(LogFormat::Json)).unwrap();
        assert_eq!(json["a"], 3);
    }

    #[test]
    fn a_clock_far_in_the_future_is_no_fault() {
        let far = UNIX_EPOCH + Duration::from_secs(u64::MAX / 4);
        let line = Line { time: far, level: Level::INFO, message: "m", fields: &[] };
        assert_eq!(line.render(LogFormat::Human), "1970-01-01T00:00:00.000Z INFO  m\n");
    }

    proptest! {
        #[test]
        fn whatever_is_logged_is_one_line_without_control_characters(
            message: String, text: String, float: f64, format in prop::sample::select(LogFormat::ALL.to_vec()),
        ) {
            let fields = [("text", Value::Text(text.clone())), ("float", Value::Float(float))];
            let line = Line { time: at(), level: Level::INFO, message: &message, fields: &fields }.render(format);
            prop_assert!(line.strip_suffix('\n').is_some_and(|line| !line.chars().any(is_unprintable)));
            if format == LogFormat::Json {
                let json: serde_json::Value = serde_json::from_str(&line).unwrap();
                prop_assert_eq!(&json["message"], &message);
                prop_assert_eq!(&json["text"], &text);
            }
        }
    }
}
