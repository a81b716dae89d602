//! Where a command writes: results to `out`, everything else to `err`, each with its own word on colour.

pub mod age;
pub mod escape;
pub mod list;
pub mod table;

use std::io::{self, Write};

use serde::Serialize;

use crate::failure::Failure;

/// What the thing behind a stream can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    pub terminal: bool,
    pub colour: bool,
}

impl Look {
    pub const PIPE: Self = Self { terminal: false, colour: false };
}

/// The two streams of a command.
pub struct Output<'a> {
    pub out: &'a mut dyn Write,
    pub err: &'a mut dyn Write,
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
    Failure::new(crate::Exit::General, "Output", format!("the result cannot be written: {error}"))
}
