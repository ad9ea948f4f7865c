//! Logs: one JSON object a line on standard output, fields flat and named as [O3] names them.
//!
//! Fields of the enclosing spans (request id, turn id, tenant) are written with every line inside them. Secrets are
//! types whose Debug prints nothing; a field that bears a secret's name is struck out as well. What is counted is the
//! [`Recorder`]'s.

mod recorder;

use std::{
    fmt::{self, Write as _},
    io::Write as _,
};

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    span,
};
use tracing_subscriber::{
    EnvFilter, Layer,
    layer::{Context, SubscriberExt as _},
    registry::LookupSpan,
    util::SubscriberInitExt as _,
};

pub use self::recorder::Recorder;
use crate::config::Config;

/// Starts logging for this process, once: later calls change nothing. Panics are logged as lines of their own.
pub fn start(service: &'static str, config: &Config) {
    let filter = EnvFilter::try_new(&config.log_level).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = JsonLines { service, write: write_to_stdout };
    if tracing_subscriber::registry().with(lines.with_filter(filter)).try_init().is_err() {
        return;
    }
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("no message");
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(location, "panic: {message}");
    }));
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
}

/// One write for each line; a reader that went away is nobody's problem here.
fn write_to_stdout(line: &str) {
    let _ = std::io::stdout().lock().write_all(line.as_bytes());
}

/// Names whose values are never written, whatever their type.
const STRUCK_OUT: &[&str] = &[
    "access_token",
    "refresh_token",
    "authorization",
    "cookie",
    "set_cookie",
    "set-cookie",
    "fernet_key",
    "api_key",
    "session_token",
    "db_url",
    "password",
];

/// A field's name and its value as JSON text.
type Fields = Vec<(&'static str, String)>;

struct SpanFields(Fields);

struct JsonLines<W> {
    service: &'static str,
    write: W,
}

impl<S, W> Layer<S> for JsonLines<W>
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
    W: Fn(&str) + 'static,
{
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = FieldWriter::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(SpanFields(fields.0));
        }
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(SpanFields(known)) = span.extensions_mut().get_mut::<SpanFields>()
        {
            let mut fields = FieldWriter::default();
            values.record(&mut fields);
            known.retain(|(name, _)| fields.0.iter().all(|(new, _)| new != name));
            known.append(&mut fields.0);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = FieldWriter::default();
        event.record(&mut fields);
        let mut fields = fields.0;
        // The innermost span wins over outer ones, and the event over all.
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(SpanFields(outer)) = span.extensions().get::<SpanFields>() {
                for (name, value) in outer {
                    if fields.iter().all(|(known, _)| known != name) {
                        fields.push((name, value.clone()));
                    }
                }
            }
        }
        let mut line = String::with_capacity(320);
        let now = chrono::Utc::now().format("%Y-%m-%dT%H:%M:%S%.3fZ");
        // Writing to a String cannot fail.
        let _ = write!(
            line,
            r#"{{"ts":"{now}","level":"{}","service":"{}","target":"{}""#,
            event.metadata().level().as_str().to_ascii_lowercase(),
            self.service,
            event.metadata().target(),
        );
        for (name, value) in &fields {
            let _ = write!(line, r#","{name}":{value}"#);
        }
        line.push_str("}\n");
        (self.write)(&line);
    }
}

#[derive(Default)]
struct FieldWriter(Fields);

impl FieldWriter {
    fn push(&mut self, field: &Field, value: String) {
        let name = field.name();
        let value = if STRUCK_OUT.contains(&name) { r#""[struck out]""#.to_owned() } else { value };
        self.0.push((name, value));
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

impl Visit for FieldWriter {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, quoted(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, value.to_string());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, value.to_string());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, value.to_string());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push(field, serde_json::Value::from(value).to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push(field, quoted(&format!("{value:?}")));
    }

    /// An error with its chain of causes, as nobody else writes those.
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(cause) = source {
            let _ = write!(text, ": {cause}");
            source = cause.source();
        }
        self.push(field, quoted(&text));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::Value;

    use super::*;

    #[test]
    fn a_line_carries_its_spans_fields_flat_and_no_secret() {
        let lines = Arc::new(Mutex::new(Vec::<String>::new()));
        let sink = Arc::clone(&lines);
        let layer =
            JsonLines { service: "api", write: move |line: &str| sink.lock().unwrap().push(line.to_owned()) };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let outer = tracing::info_span!("request", request_id = "r1", tenant_id = tracing::field::Empty)
                .entered();
            outer.record("tenant_id", "t1");
            let inner = tracing::info_span!("turn", request_id = "r2", turn_id = %7).entered();
            let error = crate::Error::internal("the cause");
            tracing::error!(
                authorization = "Bearer x",
                status = 500,
                error = &error as &dyn std::error::Error,
                "it \"broke\""
            );
            drop(inner);
            tracing::info!(duration_ms = 1.5, "done");
        });
        let lines = lines.lock().unwrap();
        let line: Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(line["message"], r#"it "broke""#);
        assert_eq!(
            (&line["request_id"], &line["tenant_id"], &line["turn_id"]),
            (&"r2".into(), &"t1".into(), &"7".into())
        );
        assert_eq!((&line["level"], &line["status"]), (&"error".into(), &500.into()));
        assert!(line["error"].as_str().unwrap().ends_with(": the cause"));
        assert!(!lines[0].contains("Bearer"));
        let line: Value = serde_json::from_str(&lines[1]).unwrap();
        assert_eq!((&line["request_id"], &line["duration_ms"]), (&"r1".into(), &1.5.into()));
        assert!(line["ts"].as_str().unwrap().ends_with('Z'));
    }
}
