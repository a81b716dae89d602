//! Logs: one line an event, to stderr, as text or JSON. `info` means that a state changed; a quiet cluster is silent
//! there. It never opens a file: journald, or whoever holds stderr, keeps and rotates.

use std::fmt;
use std::io::IsTerminal;
use std::str::FromStr;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{DefaultFields, Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent};
use tracing_subscriber::registry::LookupSpan;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

impl FromStr for LogFormat {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("must be 'text' or 'json'".to_owned()),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// Checked: [`LogSettings::check_filter`].
    pub filter: String,
    pub format: LogFormat,
}

impl LogSettings {
    pub const DEFAULT_FILTER: &str = "info";

    pub fn check_filter(text: &str) -> Result<String, String> {
        match EnvFilter::try_new(text) {
            Ok(_) => Ok(text.to_owned()),
            Err(error) => Err(format!(
                "must be a level (error, warn, info, debug, trace) or 'target=level' joined by commas: {error}"
            )),
        }
    }
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { filter: Self::DEFAULT_FILTER.to_owned(), format: LogFormat::Text }
    }
}

/// Takes effect for the whole process; an error if something else did so before.
pub fn init(settings: &LogSettings) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&settings.filter)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let outcome = match settings.format {
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
        LogFormat::Text if stderr_is_journal() => builder.event_format(Journal::default()).try_init(),
        LogFormat::Text => builder.with_target(false).with_ansi(colours()).try_init(),
    };
    outcome.map_err(|error| anyhow::anyhow!("setting up the log: {error}"))
}

fn colours() -> bool {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    std::io::stderr().is_terminal() && !no_color
}

fn stderr_is_journal() -> bool {
    let named = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    rustix::fs::fstat(std::io::stderr()).is_ok_and(|stat| is_journal(&named, stat.st_dev, stat.st_ino))
}

/// Whether `JOURNAL_STREAM` means this very file: a child may have inherited the variable and not the stream.
fn is_journal(named: &str, device: u64, inode: u64) -> bool {
    named == format!("{device}:{inode}")
}

/// For journald, which has the time already and reads the level from a prefix.
struct Journal(Format<Full, ()>);

impl Default for Journal {
    fn default() -> Self {
        Self(Format::default().without_time().with_ansi(false).with_target(false).with_level(false))
    }
}

impl<S> FormatEvent<S, DefaultFields> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, DefaultFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        write!(writer, "<{}>", syslog_severity(*event.metadata().level()))?;
        self.0.format_event(context, writer, event)
    }
}

fn syslog_severity(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_cannot_be_read_is_refused_with_what_is_allowed() {
        assert!(LogSettings::check_filter("zsha_controller=debug,info").is_ok());
        let refused = LogSettings::check_filter("zsha=loud").unwrap_err();
        assert!(refused.starts_with("must be a level (error, warn, info, debug, trace)"), "{refused}");
    }

    #[test]
    fn only_the_stream_that_journald_named_is_the_journal() {
        assert!(is_journal("8:1234", 8, 1234));
        assert!(!is_journal("8:1234", 8, 1235));
        assert!(!is_journal("", 0, 0));
    }

    #[test]
    fn levels_become_the_severities_of_syslog() {
        let levels = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];
        assert_eq!(levels.map(syslog_severity), [3, 4, 6, 7, 7]);
    }
}
