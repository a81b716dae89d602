//! Data is never obeyed by the terminal: control characters in names and messages are made visible, and so are those that
//! nobody sees.

use std::borrow::Cow;

use zsha_crds::characters::{code_point, is_unseen};

/// Characters a terminal may act on, or that reorder what is read.
fn acts(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

/// One line of text, safe to print.
pub fn plain(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|c| acts(c) || is_unseen(c)) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().fold(String::new(), |mut safe, c| {
        match c {
            '\n' => safe.push_str("\\n"),
            '\t' => safe.push(' '),
            c if acts(c) => safe.extend(c.escape_unicode()),
            c if is_unseen(c) => safe.push_str(&format!("<{}>", code_point(c))),
            c => safe.push(c),
        }
        safe
    }))
}

/// JSON as serde_json writes it, with the characters it leaves as they are (DEL, C1, bidi) escaped too. They can
/// only stand inside strings.
pub fn json_text(json: &str) -> Cow<'_, str> {
    let left = |c: char| acts(c) && c != '\n';
    if !json.chars().any(left) {
        return Cow::Borrowed(json);
    }
    Cow::Owned(json.chars().fold(String::new(), |mut safe, c| {
        if left(c) {
            safe.push_str(&format!("\\u{:04x}", u32::from(c)))
        } else {
            safe.push(c)
        }
        safe
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_in_data_are_shown_and_not_obeyed() {
        assert_eq!(plain("mnvm"), "mnvm");
        assert_eq!(plain("a\u{1b}[2Jb\u{9b}c\nd"), "a\\u{1b}[2Jb\\u{9b}c\\nd");
        assert_eq!(plain("\u{202e}txt"), "\\u{202e}txt");
        assert_eq!(plain("/smp\u{a0}/mn\u{200b}gt"), "/smp<U+00A0>/mn<U+200B>gt");
    }

    #[test]
    fn json_stays_the_same_json() {
        let value = serde_json::json!({"a": "x\u{7f}\u{9b}\u{1b}\u{202e}y"});
        let text = json_text(&value.to_string()).into_owned();
        assert!(text.chars().all(|c| !acts(c)), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }
}
