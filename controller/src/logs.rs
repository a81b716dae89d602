//! Writes the logs, one line an event, as text or JSON. They go to stderr (journald, or whatever holds it), and also to
//! files where a directory is named. `info` means that a state changed; a quiet cluster is silent there. No caller ever
//! waits for a file: a thread of its own writes them.

mod files;

use std::fmt;
use std::io::IsTerminal;
use std::str::FromStr;

use tracing::{Event, Level, Subscriber};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt::format::{DefaultFields, Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt as lines};

use files::LogFiles;
pub use files::{DEFAULT_TOTAL_MIB, LogFileSettings};

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
    /// The filter, checked by [`LogSettings::check_filter`].
    pub filter: String,
    pub format: LogFormat,
    /// The files beside stderr, if any.
    pub files: Option<LogFileSettings>,
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
        Self { filter: Self::DEFAULT_FILTER.to_owned(), format: LogFormat::Text, files: None }
    }
}

/// Writes what is on its way to a file when it is dropped. It is kept for as long as the process logs.
#[must_use]
#[derive(Debug)]
pub struct Logging {
    _files: Option<WorkerGuard>,
}

/// Begins to log for the whole process, with `program` as its name. It is an error if another log was begun before.
pub fn init(settings: &LogSettings, program: &str) -> anyhow::Result<Logging> {
    let filter = EnvFilter::try_new(&settings.filter)?;
    let to_stderr = lines::layer().with_writer(std::io::stderr);
    let to_stderr = match settings.format {
        LogFormat::Json => to_stderr.json().flatten_event(true).with_current_span(false).boxed(),
        LogFormat::Text if stderr_is_journal() => to_stderr.event_format(Journal::default()).boxed(),
        LogFormat::Text => to_stderr.with_target(false).with_ansi(colours()).boxed(),
    };
    let mut layers = vec![to_stderr];
    let mut guard = None;
    if let Some(wanted) = &settings.files {
        let files = LogFiles::new(wanted.clone(), program);
        let (writer, files) =
            NonBlockingBuilder::default().lossy(true).thread_name("log-files").finish(files);
        guard = Some(files);
        let to_files = lines::layer().with_writer(writer).with_ansi(false);
        layers.push(match settings.format {
            LogFormat::Json => to_files.json().flatten_event(true).with_current_span(false).boxed(),
            LogFormat::Text => to_files.with_target(false).boxed(),
        });
    }
    let outcome = tracing_subscriber::registry().with(layers).with(filter).try_init();
    outcome.map_err(|error| anyhow::anyhow!("setting up the log: {error}"))?;
    Ok(Logging { _files: guard })
}

fn colours() -> bool {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    std::io::stderr().is_terminal() && !no_color
}

fn stderr_is_journal() -> bool {
    let named = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    rustix::fs::fstat(std::io::stderr()).is_ok_and(|stat| is_journal(&named, stat.st_dev, stat.st_ino))
}

/// True if `JOURNAL_STREAM` means this very file: a child may have inherited the variable and not the stream.
fn is_journal(named: &str, device: u64, inode: u64) -> bool {
    named == format!("{device}:{inode}")
}

/// The format for journald, which has the time already and reads the level from a prefix.
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
