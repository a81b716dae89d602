//! A few lines of the terminal, drawn over and over in the same place; what was there before stays above them.
//! The terminal is as it was when this is dropped.

use std::io::{self, Write};

use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use crossterm::terminal::{self, Clear, ClearType};
use crossterm::{cursor, event, queue};
use tokio::sync::mpsc;

/// The keys and changes of the terminal that matter while watching.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Quit,
    Interrupt,
    Resized,
}

/// Holds the terminal in raw mode.
pub(super) struct Screen {
    /// Lines drawn last, the cursor standing below them.
    drawn: u16,
}

impl Screen {
    pub(super) fn open() -> io::Result<(Self, mpsc::UnboundedReceiver<Key>)> {
        terminal::enable_raw_mode()?;
        let (keys, received) = mpsc::unbounded_channel();
        // A blocking read of the keyboard cannot be called off: the thread ends with the process, or when a key
        // finds nobody listening.
        std::thread::Builder::new().name("keyboard".to_owned()).spawn(move || {
            while let Ok(event) = event::read() {
                if let Some(key) = meaning(&event)
                    && keys.send(key).is_err()
                {
                    return;
                }
            }
        })?;
        Ok((Self { drawn: 0 }, received))
    }

    /// Draws `text` in the place of what was drawn before, cut to the terminal's size.
    pub(super) fn draw(&mut self, out: &mut dyn Write, text: &str) -> io::Result<()> {
        // A terminal that does not know its size says 0 by 0.
        let size = terminal::size().ok().filter(|(columns, rows)| *columns > 0 && *rows > 0);
        let (columns, rows) = size.unwrap_or((80, 24));
        let lines: Vec<&str> = text.lines().take(usize::from(rows.saturating_sub(1)).max(1)).collect();
        let mut frame = Vec::new();
        queue!(frame, cursor::Hide, cursor::MoveToColumn(0))?;
        // A narrower terminal may have wrapped what was drawn; what scrolled away cannot be reached.
        let up = self.drawn.min(rows.saturating_sub(1));
        if up > 0 {
            queue!(frame, cursor::MoveUp(up))?;
        }
        for line in &lines {
            frame.extend_from_slice(cut(line, usize::from(columns)).as_bytes());
            queue!(frame, Clear(ClearType::UntilNewLine))?;
            frame.extend_from_slice(b"\r\n");
        }
        queue!(frame, Clear(ClearType::FromCursorDown))?;
        out.write_all(&frame)?;
        self.drawn = u16::try_from(lines.len()).unwrap_or(u16::MAX);
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Nothing more can be done for a terminal that is gone.
        let _ = terminal::disable_raw_mode();
        let _ = crossterm::execute!(io::stderr(), cursor::Show);
    }
}

fn meaning(event: &Event) -> Option<Key> {
    match event {
        Event::Resize(..) => Some(Key::Resized),
        Event::Key(KeyEvent { code, modifiers, kind: KeyEventKind::Press, .. }) => match code {
            KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => Some(Key::Interrupt),
            KeyCode::Char('q') | KeyCode::Esc => Some(Key::Quit),
            _ => None,
        },
        _ => None,
    }
}

/// The first `columns` characters that show; colour sequences, the only ones of ours, take no room.
fn cut(line: &str, columns: usize) -> String {
    let mut cut = String::with_capacity(line.len());
    let (mut shown, mut in_sequence) = (0, false);
    for c in line.chars() {
        match (in_sequence, c) {
            (false, '\u{1b}') => in_sequence = true,
            (true, 'm') => {
                in_sequence = false;
                cut.push(c);
                continue;
            }
            (true, _) => {}
            (false, _) if shown >= columns => continue,
            (false, _) => shown += 1,
        }
        cut.push(c);
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_to_the_terminal_and_its_colours_stay_whole() {
        assert_eq!(cut("abcdef", 4), "abcd");
        assert_eq!(cut("a\u{1b}[32mbcdef\u{1b}[0m", 3), "a\u{1b}[32mbc\u{1b}[0m");
    }

    #[test]
    fn a_frame_goes_up_over_the_one_before_and_clears_what_it_leaves() {
        let mut screen = Screen { drawn: 0 };
        let mut out = Vec::new();
        screen.draw(&mut out, "one\ntwo\n").unwrap();
        assert_eq!(screen.drawn, 2);
        let mut out = Vec::new();
        screen.draw(&mut out, "three\n").unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.contains("\u{1b}[2A") && text.contains("three") && text.contains("\u{1b}[J"),
            "{text:?}"
        );
        std::mem::forget(screen);
    }

    #[test]
    fn q_ends_it_and_control_c_interrupts_it() {
        let key = |code, modifiers| meaning(&Event::Key(KeyEvent::new(code, modifiers)));
        assert_eq!(key(KeyCode::Char('q'), KeyModifiers::NONE), Some(Key::Quit));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Key::Interrupt));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::NONE), None);
        assert_eq!(meaning(&Event::Resize(80, 24)), Some(Key::Resized));
    }
}
