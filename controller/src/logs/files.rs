//! The log files: `PROGRAM.log` in one directory, cut when a day of UTC ends and when it has grown too long. A file
//! that was cut keeps the moment of the cut in its name; the oldest goes when all of a program's files exceed the
//! total. This file sets up no log and starts no thread: its caller writes from a thread that no other waits for.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Unit};

const MIB: u64 = 1024 * 1024;
/// The size of all files of one program. The original's logs grew by 10 GB a year and filled disks.
pub const DEFAULT_TOTAL_MIB: u64 = 1024;
/// The part of the total that one file may be, so that cutting away the oldest leaves most of the history.
const PARTS: u64 = 16;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFileSettings {
    pub directory: PathBuf,
    /// The size of all files, in bytes; at least [`LogFileSettings::LEAST_TOTAL`].
    pub total: u64,
}

impl LogFileSettings {
    pub const LEAST_TOTAL: u64 = 16 * MIB;

    pub fn new(directory: PathBuf) -> Self {
        Self { directory, total: DEFAULT_TOTAL_MIB * MIB }
    }

    /// Reads the total from a number of MiB.
    pub fn total_of(text: &str) -> Result<u64, String> {
        match text.parse::<u64>().ok().and_then(|mib| mib.checked_mul(MIB)) {
            Some(total) if total >= Self::LEAST_TOTAL => Ok(total),
            _ => Err(format!("must be a whole number of MiB, {} or more", Self::LEAST_TOTAL / MIB)),
        }
    }
}

/// The files as one thread writes to them. A line is never torn between two files if it is written by one call.
#[derive(Debug)]
pub(super) struct LogFiles<C> {
    settings: LogFileSettings,
    program: String,
    clock: C,
    open: Option<Open>,
    /// True if it was said that the file cannot be written, and no write has succeeded since.
    complained: bool,
}

#[derive(Debug)]
struct Open {
    file: File,
    /// The day of its first line, or of the last line from before a restart.
    day: Date,
    size: u64,
}

impl LogFiles<fn() -> Timestamp> {
    /// Makes it, and touches nothing yet: a disk that is full or read-only keeps no program from starting.
    pub(super) fn new(settings: LogFileSettings, program: &str) -> Self {
        Self::with_clock(settings, program, zsha_runtime::clock::wall_now)
    }
}

impl<C: Fn() -> Timestamp> LogFiles<C> {
    fn with_clock(settings: LogFileSettings, program: &str, clock: C) -> Self {
        Self { settings, program: program.to_owned(), clock, open: None, complained: false }
    }

    fn path(&self) -> PathBuf {
        self.settings.directory.join(format!("{}.log", self.program))
    }

    fn open(&mut self) -> io::Result<&mut Open> {
        fs::DirBuilder::new().recursive(true).mode(0o750).create(&self.settings.directory)?;
        let file = OpenOptions::new().append(true).create(true).mode(0o640).open(self.path())?;
        let metadata = file.metadata()?;
        let day = match metadata.len() {
            0 => day((self.clock)()),
            _ => day(Timestamp::try_from(metadata.modified()?).map_err(io::Error::other)?),
        };
        Ok(self.open.insert(Open { file, day, size: metadata.len() }))
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let now = (self.clock)();
        let longest = self.settings.total / PARTS;
        let open = match &mut self.open {
            Some(open) => open,
            None => self.open()?,
        };
        let too_long = open.size > 0 && open.size + line.len() as u64 > longest;
        let open = if day(now) != open.day || too_long {
            self.cut(now)?;
            self.open()?
        } else {
            open
        };
        open.file.write_all(line)?;
        open.size += line.len() as u64;
        Ok(())
    }

    fn cut(&mut self, now: Timestamp) -> io::Result<()> {
        self.open = None;
        fs::rename(self.path(), self.name_of_cut(now)?)?;
        let mut past = Vec::new();
        for entry in fs::read_dir(&self.settings.directory)? {
            let entry = entry?;
            if let Some(name) = entry.file_name().to_str().filter(|name| is_cut(&self.program, name)) {
                past.push((name.to_owned(), entry.metadata()?.len()));
            }
        }
        for name in surplus(past, self.settings.total - self.settings.total / PARTS) {
            fs::remove_file(self.settings.directory.join(name))?;
        }
        Ok(())
    }

    /// A name that is free, and later than that of every earlier cut that this clock made.
    fn name_of_cut(&self, now: Timestamp) -> io::Result<PathBuf> {
        let moment = now.round(Unit::Millisecond).map_err(io::Error::other)?.strftime("%Y%m%dT%H%M%S.%3fZ");
        for number in 0..1000 {
            let name = match number {
                0 => format!("{}.{moment}.log", self.program),
                number => format!("{}.{moment}-{number:03}.log", self.program),
            };
            let path = self.settings.directory.join(name);
            if !path.try_exists()? {
                return Ok(path);
            }
        }
        Err(io::Error::other(format!("a thousand files were cut at {moment}")))
    }
}

impl<C: Fn() -> Timestamp> Write for LogFiles<C> {
    /// Writes a line. An error is said once on stderr, where every line goes as well, and the file is opened anew with
    /// the next line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.append(line) {
            Ok(()) => self.complained = false,
            Err(error) => {
                self.open = None;
                if !self.complained {
                    self.complained = true;
                    eprintln!("the log file {} cannot be written: {error}", self.path().display());
                }
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn day(at: Timestamp) -> Date {
    at.to_zoned(TimeZone::UTC).date()
}

/// True if a file was cut from this program's log, by its name.
fn is_cut(program: &str, name: &str) -> bool {
    let moment =
        Path::new(name).file_stem().and_then(|stem| stem.to_str()?.strip_prefix(program)?.strip_prefix('.'));
    name.ends_with(".log") && moment.is_some_and(|moment| moment.starts_with(|c: char| c.is_ascii_digit()))
}

/// The files among those that were cut that have to go, oldest first, so that the rest is at most `limit` bytes.
fn surplus(mut past: Vec<(String, u64)>, limit: u64) -> Vec<String> {
    past.sort();
    let mut sum: u64 = past.iter().map(|(_, size)| size).sum();
    let mut gone = Vec::new();
    for (name, size) in past {
        if sum <= limit {
            break;
        }
        sum -= size;
        gone.push(name);
    }
    gone
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    fn settings(directory: &Path, total: u64) -> LogFileSettings {
        LogFileSettings { directory: directory.to_owned(), total }
    }

    /// Files as `at` sets their time.
    fn files(
        settings: LogFileSettings,
        at: &str,
    ) -> (LogFiles<impl Fn() -> Timestamp + use<>>, Rc<Cell<Timestamp>>) {
        let now = Rc::new(Cell::new(at.parse::<Timestamp>().unwrap()));
        let clock = Rc::clone(&now);
        (LogFiles::with_clock(settings, "zsha-keeper", move || clock.get()), now)
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_day_that_ends_cuts_the_file_and_no_line_is_lost() {
        let directory = tempfile::tempdir().unwrap();
        let (mut files, now) = files(settings(directory.path(), 1024), "2026-11-28T23:59:59Z");
        files.write_all(b"one\n").unwrap();
        now.set("2026-11-29T00:00:01Z".parse().unwrap());
        files.write_all(b"two\n").unwrap();
        files.write_all(b"three\n").unwrap();
        let cut = "zsha-keeper.20261129T000001.000Z.log";
        assert_eq!(names(directory.path()), [cut, "zsha-keeper.log"]);
        assert_eq!(fs::read_to_string(directory.path().join(cut)).unwrap(), "one\n");
        assert_eq!(fs::read_to_string(directory.path().join("zsha-keeper.log")).unwrap(), "two\nthree\n");
    }

    #[test]
    fn a_restart_goes_on_with_the_file_of_the_day_and_cuts_that_of_another() {
        let directory = tempfile::tempdir().unwrap();
        let today = zsha_runtime::clock::wall_now().to_string();
        let (mut before, _) = files(settings(directory.path(), 1024), &today);
        before.write_all(b"one\n").unwrap();
        let (mut after, now) = files(settings(directory.path(), 1024), &today);
        after.write_all(b"two\n").unwrap();
        assert_eq!(names(directory.path()), ["zsha-keeper.log"]);
        drop(after);
        now.set(now.get() + jiff::SignedDuration::from_hours(48));
        let (mut late, _) = files(settings(directory.path(), 1024), &now.get().to_string());
        late.write_all(b"three\n").unwrap();
        assert_eq!(names(directory.path()).len(), 2);
        assert_eq!(fs::read_to_string(directory.path().join("zsha-keeper.log")).unwrap(), "three\n");
    }

    #[test]
    fn all_files_together_stay_below_the_total_and_those_of_others_are_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        for other in ["zsha-controller.20200101T000000.000Z.log", "zsha-keeper.notes.log", "zsha-keeper.txt"]
        {
            fs::write(directory.path().join(other), vec![b'x'; 4096]).unwrap();
        }
        let (mut files, now) = files(settings(directory.path(), 1600), "2026-11-28T12:00:00Z");
        for number in 0..400 {
            if number % 7 == 0 {
                now.set(now.get() + jiff::SignedDuration::from_millis(3));
            }
            files.write_all(format!("line {number:04}\n").as_bytes()).unwrap();
        }
        let ours: Vec<String> =
            names(directory.path()).into_iter().filter(|name| is_cut("zsha-keeper", name)).collect();
        let sizes = ours.iter().map(|name| fs::metadata(directory.path().join(name)).unwrap().len());
        let cut: u64 = sizes.sum();
        assert!((1200..=1500).contains(&cut), "{cut} bytes in {ours:?}");
        let mut text: String =
            ours.iter().map(|name| fs::read_to_string(directory.path().join(name)).unwrap()).collect();
        text += &fs::read_to_string(directory.path().join("zsha-keeper.log")).unwrap();
        let numbers: Vec<u32> = text.lines().map(|line| line[5..].parse().unwrap()).collect();
        let first = numbers[0];
        assert_eq!(numbers, (first..400).collect::<Vec<_>>(), "the oldest went, and nothing between");
        assert!(directory.path().join("zsha-controller.20200101T000000.000Z.log").exists());
        assert!(directory.path().join("zsha-keeper.notes.log").exists());
    }

    #[test]
    fn a_directory_that_cannot_be_written_costs_lines_and_ends_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("z");
        fs::write(&inner, "no directory").unwrap();
        let (mut files, _) = files(settings(&inner, 1024), "2026-11-28T12:00:00Z");
        assert_eq!(files.write(b"lost\n").unwrap(), 5);
        assert!(files.complained);
        fs::remove_file(&inner).unwrap();
        files.write_all(b"there again\n").unwrap();
        assert!(!files.complained);
        assert_eq!(fs::read_to_string(inner.join("zsha-keeper.log")).unwrap(), "there again\n");
    }

    #[test]
    fn a_total_is_a_number_of_mebibytes() {
        assert_eq!(LogFileSettings::total_of("16"), Ok(16 * MIB));
        for wrong in ["15", "-1", "1G", "", "99999999999999999999", "18446744073709551615"] {
            let must = LogFileSettings::total_of(wrong).unwrap_err();
            assert_eq!(must, "must be a whole number of MiB, 16 or more", "{wrong}");
        }
    }
}
