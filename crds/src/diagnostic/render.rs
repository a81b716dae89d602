//! Diagnostics as a person reads them: the line, a mark under the fault, what is allowed, what to do.
//!
//! Never here: whether to colour; the caller knows its terminal.

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Element, Group, Level, Renderer, Snippet};

use super::{Diagnostic, Diagnostics, Severity};

/// How diagnostics are to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// ASCII, no escape sequences.
    Plain,
    Coloured,
}

impl Diagnostics {
    /// Returns the text for people. It ends in a newline unless there is nothing to say.
    pub fn render(&self, look: Look) -> String {
        let renderer = match look {
            Look::Plain => Renderer::plain().decor_style(DecorStyle::Ascii),
            Look::Coloured => Renderer::styled().decor_style(DecorStyle::Ascii),
        };
        self.items.iter().fold(String::new(), |mut text, item| {
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(&renderer.render(&[self.group(item)]));
            text.push('\n');
            text
        })
    }

    fn group<'a>(&'a self, item: &'a Diagnostic) -> Group<'a> {
        let level = match item.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(item.message.as_str()).id(item.code.as_str());
        let snippet = item.span.map(|span| {
            let annotation = AnnotationKind::Primary.span(span.start..span.end);
            let snippet = Snippet::source(self.source.as_str()).line_start(1).annotation(annotation);
            Element::from(snippet.path(self.file.as_deref()))
        });
        // Said once is enough.
        let unsaid = item.allowed.as_ref().filter(|allowed| !item.message.contains(allowed.as_str()));
        let allowed = unsaid.map(|text| Level::NOTE.message(format!("allowed: {text}")).into());
        let hint = item.hint.as_ref().map(|text| Level::HELP.message(text.as_str()).into());
        title.elements([snippet, allowed, hint].into_iter().flatten())
    }
}
