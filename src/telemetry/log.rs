//! Events of `tracing` as log lines on standard output. Access lines are in `access.rs`.

use std::fmt;
use std::io::{self, Write};
use std::time::SystemTime;

use prometheus::IntCounter;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use super::line::{Line, Value};
use super::lines::LineQueue;
use super::{LogFormat, LogSettings};

/// Keeps the log going; when it is dropped the lines that wait are written.
#[must_use = "the log ends when this is dropped"]
#[derive(Debug)]
pub struct LogGuard {
    lines: LineQueue,
}

/// The log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The process has a log already.
    #[error("the log is set up already")]
    Twice,
    /// The system gives no thread for the writer.
    #[error("no thread for the log: {0}")]
    Thread(#[from] io::Error),
}

/// Sends the events of the whole process to standard output, from now on.
///
/// # Errors
/// When it was called before, or the system gives no thread.
pub fn install(settings: &LogSettings) -> Result<LogGuard, InstallError> {
    let (layer, guard) = layer(settings, io::stdout())?;
    let subscriber = tracing_subscriber::registry().with(layer.with_filter(filter(settings.level)));
    tracing::subscriber::set_global_default(subscriber).map_err(|_| InstallError::Twice)?;
    Ok(guard)
}

impl LogGuard {
    /// Blocks until the events so far are written, at most 2 s; false when they are not.
    pub fn flush(&self) -> bool {
        self.lines.flush()
    }
}

/// The level is that of our own events. Of libraries warnings are enough: finer ones tell each frame of a connection, and
/// show paths as they came, with what is secret in them.
fn filter(level: LevelFilter) -> Targets {
    Targets::new().with_target(env!("CARGO_PKG_NAME"), level).with_default(level.min(LevelFilter::WARN))
}

fn layer(settings: &LogSettings, sink: impl Write + Send + 'static) -> io::Result<(EventLines, LogGuard)> {
    // Lost events are told by the next one that finds room, since they belong to no metric.
    let lost = IntCounter::new("lost", "Events lost since the last line").map_err(io::Error::other)?;
    let lines = LineQueue::start(sink, lost.clone())?;
    Ok((EventLines { format: settings.format, lines: lines.clone(), lost }, LogGuard { lines }))
}

/// Turns each event into a line.
struct EventLines {
    format: LogFormat,
    lines: LineQueue,
    lost: IntCounter,
}

/// Fields of a span, for the events within it.
struct SpanFields(Fields);

/// What an event or a span says.
#[derive(Default)]
struct Fields {
    message: String,
    fields: Vec<(&'static str, Value)>,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for EventLines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(SpanFields(fields));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(SpanFields(fields)) = span.extensions_mut().get_mut()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut said = Fields::default();
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(SpanFields(fields)) = span.extensions().get() {
                said.fields.extend(fields.fields.iter().cloned());
            }
        }
        event.record(&mut said);
        let lost = self.lost.get();
        if lost > 0 {
            self.lost.reset();
            said.fields.push(("lines_lost", Value::Unsigned(lost)));
        }
        let level = *event.metadata().level();
        let line = Line { time: SystemTime::now(), level, message: &said.message, fields: &said.fields };
        if !self.lines.push(line.render(self.format).as_bytes()) {
            self.lost.inc_by(lost);
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            name => self.fields.push((name, Value::Text(value.to_owned()))),
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        // The causes, which most `Display` texts leave out.
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            let more = error.to_string();
            if !text.contains(&more) {
                text.push_str(": ");
                text.push_str(&more);
            }
            cause = error.source();
        }
        self.record_str(field, &text);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.fields.push((field.name(), Value::Unsigned(value)));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.fields.push((field.name(), Value::Signed(value)));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.fields.push((field.name(), Value::Float(value)));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.fields.push((field.name(), Value::Bool(value)));
    }
}

#[cfg(test)]
mod tests {
    use super::super::lines::tests::Captured;
    use super::*;

    fn logged(format: LogFormat, level: LevelFilter, events: impl FnOnce()) -> Vec<String> {
        let sink = Captured::default();
        let settings = LogSettings { format, level, access: true };
        let (layer, guard) = layer(&settings, sink.clone()).unwrap();
        let subscriber = tracing_subscriber::registry().with(layer.with_filter(filter(level)));
        tracing::subscriber::with_default(subscriber, events);
        assert!(guard.flush());
        sink.text().lines().map(str::to_owned).collect()
    }

    #[test]
    fn events_become_lines_with_the_fields_of_their_spans() {
        let lines = logged(LogFormat::Json, LevelFilter::INFO, || {
            let span = tracing::info_span!("fill", host = "dl.example.com", attempt = tracing::field::Empty);
            let _inside = span.enter();
            span.record("attempt", 2);
            tracing::warn!(bytes = 7_u64, whole = false, "the source {} stalled", "origin");
            tracing::debug!("too fine to be seen");
        });
        assert_eq!(lines.len(), 1, "{lines:?}");
        let line: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["message"], "the source origin stalled");
        assert_eq!(line["host"], "dl.example.com");
        assert_eq!(line["attempt"], 2);
        assert_eq!(line["bytes"], 7);
        assert_eq!(line["whole"], false);
        assert!(line["time"].as_str().is_some_and(|time| time.ends_with('Z')));
    }

    #[test]
    fn libraries_are_heard_when_they_warn() {
        for (level, expected) in
            [(LevelFilter::TRACE, "lib warns, we debug"), (LevelFilter::WARN, "lib warns"), (LevelFilter::ERROR, "")]
        {
            let lines = logged(LogFormat::Human, level, || {
                tracing::debug!(target: "h2::server", "malformed path /file?sig=secret");
                tracing::warn!(target: "h2::server", "lib warns");
                tracing::debug!("we debug");
            });
            let told: Vec<_> = ["malformed", "lib warns", "we debug"]
                .into_iter()
                .filter(|text| lines.concat().contains(text))
                .collect();
            assert_eq!(told.join(", "), expected, "{level}");
        }
    }

    #[test]
    fn errors_tell_their_causes() {
        let lines = logged(LogFormat::Human, LevelFilter::INFO, || {
            let error = InstallError::Thread(io::Error::other("out of threads"));
            tracing::error!(error = &error as &(dyn std::error::Error + 'static), "no log");
        });
        assert!(lines[0].contains("ERROR no log error=\"no thread for the log: out of threads\""), "{lines:?}");
    }

    #[test]
    fn the_hub_format_carries_the_priority() {
        let lines = logged(LogFormat::IotEdge, LevelFilter::DEBUG, || {
            tracing::info!(port = 8081, "listening");
            tracing::debug!("a\nb");
        });
        assert!(lines[0].starts_with("<6> ") && lines[0].ends_with(" +00:00 [INF] - listening port=8081"), "{lines:?}");
        assert!(lines[1].starts_with("<7> ") && lines[1].ends_with(" +00:00 [DBG] - a\\u{a}b"), "{lines:?}");
    }
}
