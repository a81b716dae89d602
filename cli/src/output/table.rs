//! Tables as kubectl's: upper-case headers, columns three spaces apart, nothing drawn around them.

use zsha_crds::tone::Tone;

use super::escape::plain;

/// A word in its tone, for those who see colours.
pub fn paint(tone: Tone, text: &str, colour: bool) -> String {
    let code = match tone {
        Tone::Neutral => None,
        Tone::Good => Some("32"),
        Tone::Doubtful => Some("33"),
        Tone::Bad => Some("31"),
    };
    match code.filter(|_| colour) {
        Some(code) => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
        None => text.to_owned(),
    }
}

#[derive(Debug, Clone)]
pub struct Cell {
    text: String,
    tone: Tone,
}

/// A cell in a tone.
pub fn toned(text: impl Into<String>, tone: Tone) -> Cell {
    let text = text.into();
    Cell { text: plain(&text).into_owned(), tone }
}

/// A cell; absent is `<none>`.
pub fn cell(text: impl Into<String>) -> Cell {
    toned(text, Tone::Neutral)
}

pub fn or_none(text: Option<impl ToString>) -> Cell {
    cell(text.map_or_else(|| "<none>".to_owned(), |text| text.to_string()))
}

#[derive(Debug)]
pub struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub fn new(header: &[&'static str]) -> Self {
        Self { header: header.to_vec(), rows: Vec::new() }
    }

    pub fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.header.len());
        self.rows.push(cells);
    }

    pub fn render(&self, colour: bool) -> String {
        let width = |at: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.text.chars().count());
            cells.chain(self.header.get(at).map(|title| title.len())).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..self.header.len()).map(width).collect();
        let header: Vec<Cell> = self.header.iter().map(|title| cell(*title)).collect();
        std::iter::once(&header).chain(&self.rows).fold(String::new(), |mut text, row| {
            let line = row.iter().zip(&widths).fold(String::new(), |mut line, (cell, width)| {
                let pad = width.saturating_sub(cell.text.chars().count()) + 3;
                line.push_str(&paint(cell.tone, &cell.text, colour));
                line.push_str(&" ".repeat(pad));
                line
            });
            text.push_str(line.trim_end());
            text.push('\n');
            text
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_with_and_without_colour() {
        let mut table = Table::new(&["NAME", "STATE", "NOTE"]);
        table.row(vec![cell("mnvm"), toned("Running", Tone::Good), cell("")]);
        table.row(vec![cell("x"), toned("Unknown", Tone::Doubtful), cell("a\u{7}b")]);
        assert_eq!(table.render(false), "NAME   STATE     NOTE\nmnvm   Running\nx      Unknown   a\\u{7}b\n");
        assert!(table.render(true).contains("mnvm   \u{1b}[32mRunning\u{1b}[0m"));
    }
}
