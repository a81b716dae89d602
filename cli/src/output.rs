//! Where a command writes: results to `out`, everything else to `err`, each with its own word on colour.

pub mod age;
pub mod escape;
pub mod file;
pub mod form;
pub mod list;
pub mod provenance;
pub mod table;

use std::io::{self, Write};

use serde::Serialize;

use crate::exit::Exit;
use crate::failure::Failure;

/// The abilities of the thing behind a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    pub terminal: bool,
    pub colour: bool,
}

impl Look {
    pub const PIPE: Self = Self { terminal: false, colour: false };
}

/// A stream whose reader may go away, as `head` does. What is written then is written to nobody, and the command goes
/// on: what it does, and how it ends, does not depend on who reads along.
pub struct Stream<'a> {
    to: &'a mut dyn Write,
    reader_is_gone: bool,
}

impl std::fmt::Debug for Stream<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("reader_is_gone", &self.reader_is_gone).finish_non_exhaustive()
    }
}

impl<'a> Stream<'a> {
    pub fn new(to: &'a mut dyn Write) -> Self {
        Self { to, reader_is_gone: false }
    }

    pub fn reader_is_gone(&self) -> bool {
        self.reader_is_gone
    }

    fn unless_gone<T>(&mut self, done: io::Result<T>, otherwise: T) -> io::Result<T> {
        match done {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.reader_is_gone = true;
                Ok(otherwise)
            }
            done => done,
        }
    }
}

impl Write for Stream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let done = if self.reader_is_gone { Ok(bytes.len()) } else { self.to.write(bytes) };
        self.unless_gone(done, bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let done = if self.reader_is_gone { Ok(()) } else { self.to.flush() };
        self.unless_gone(done, ())
    }
}

/// The two streams of a command.
pub struct Output<'a> {
    pub out: Stream<'a>,
    pub err: Stream<'a>,
    pub out_look: Look,
    pub err_look: Look,
}

impl std::fmt::Debug for Output<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Output").field("out_look", &self.out_look).field("err_look", &self.err_look).finish()
    }
}

impl Output<'_> {
    /// A line of the result.
    pub fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")
    }

    /// Text of the result that brings its own newlines.
    pub fn text(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())
    }

    /// A line to the person.
    pub fn tell(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.err, "{text}")
    }

    pub fn json<T: Serialize>(&mut self, value: &T) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value).map_err(unwritable)?;
        Ok(self.line(&escape::json_text(&text))?)
    }

    /// One line, for streams of objects.
    pub fn json_line<T: Serialize>(&mut self, value: &T) -> Result<(), Failure> {
        let text = serde_json::to_string(value).map_err(unwritable)?;
        self.line(&escape::json_text(&text))?;
        Ok(self.out.flush()?)
    }

    pub fn yaml<T: Serialize>(&mut self, value: &T) -> Result<(), Failure> {
        let text = serde_yaml::to_string(value).map_err(unwritable)?;
        Ok(self.text(&text)?)
    }
}

fn unwritable(error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::General, "Output", format!("the result cannot be written: {error}"))
}
