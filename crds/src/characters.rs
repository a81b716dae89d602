//! Characters that nobody sees, or takes for another: what they are called, what was meant, and how a text is shown that
//! has them. They come with text that was copied from a web page or a manual, and from an input method that is still on.
//!
//! Never here: which texts may have them.

use std::borrow::Cow;

/// The characters beside blanks and format characters that look like nothing: fillers and the empty Braille pattern.
const EMPTY: [char; 5] = ['\u{115f}', '\u{1160}', '\u{2800}', '\u{3164}', '\u{ffa0}'];

/// True if nothing is seen where the character stands, or only a blank. ASCII's own blank is not meant, nor are control
/// characters, which no value may have.
pub fn is_unseen(c: char) -> bool {
    !c.is_ascii() && !c.is_control() && (c.is_whitespace() || is_format(c) || EMPTY.contains(&c))
}

/// The format characters of Unicode (category Cf) that occur outside of one script, and the variation selectors.
fn is_format(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e0fff}')
}

/// What a character is called, and what was meant by it; the latter is none where it is to be left out. None for a
/// character that is what it seems.
pub fn disguise(c: char) -> Option<(&'static str, Option<char>)> {
    Some(match c {
        '\u{a0}' => ("a no-break space", Some(' ')),
        '\u{3000}' => ("an ideographic space", Some(' ')),
        '\u{ad}' => ("a soft hyphen", None),
        '\u{200b}' => ("a zero-width space", None),
        '\u{200c}' | '\u{200d}' => ("a zero-width joiner", None),
        '\u{2060}' => ("a word joiner", None),
        '\u{feff}' => ("a byte order mark", None),
        '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            ("a mark of writing direction", None)
        }
        c if is_unseen(c) && c.is_whitespace() => ("a blank of another width", Some(' ')),
        c if is_unseen(c) => ("a character that is not seen", None),
        '\u{ff0c}' => ("a full-width comma", Some(',')),
        '\u{3001}' => ("an ideographic comma", Some(',')),
        '\u{ff1b}' => ("a full-width semicolon", Some(';')),
        '\u{ff1a}' => ("a full-width colon", Some(':')),
        '\u{3002}' | '\u{ff61}' => ("an ideographic full stop", Some('.')),
        '\u{2018}' | '\u{2019}' | '\u{201a}' | '\u{201b}' => ("a curly quotation mark", Some('\'')),
        '\u{201c}'..='\u{201f}' => ("a curly quotation mark", Some('"')),
        '\u{2010}'..='\u{2015}' | '\u{2212}' => ("a dash that is no '-'", Some('-')),
        '\u{2044}' | '\u{2215}' => ("a slash that is no '/'", Some('/')),
        '\u{ff01}'..='\u{ff5e}' => ("a full-width character", ascii_of_full_width(c)),
        _ => return None,
    })
}

/// The full-width forms stand in the order of ASCII.
fn ascii_of_full_width(c: char) -> Option<char> {
    u32::from(c).checked_sub(0xff01 - 0x21).and_then(char::from_u32)
}

/// The text with every character that is not seen written as `<U+00A0>`.
pub fn shown(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unseen) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().fold(String::new(), |mut shown, c| {
        if is_unseen(c) {
            shown.push_str(&format!("<{}>", code_point(c)))
        } else {
            shown.push(c)
        }
        shown
    }))
}

/// `U+00A0`.
pub fn code_point(c: char) -> String {
    format!("U+{:04X}", u32::from(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_seen_is_told_from_what_is() {
        for c in
            ['\u{a0}', '\u{3000}', '\u{200b}', '\u{feff}', '\u{2009}', '\u{2028}', '\u{e0041}', '\u{3164}']
        {
            assert!(is_unseen(c) && disguise(c).is_some(), "{}", code_point(c));
        }
        for c in [' ', '\t', '\n', '\u{1b}', 'a', 'é', '管', '\u{301}', '，', '😀', '\u{85}'] {
            assert!(!is_unseen(c), "{}", code_point(c));
        }
        assert_eq!(shown("/smp\u{a0}/管\u{200b}"), "/smp<U+00A0>/管<U+200B>");
        assert_eq!(shown("/smp/mngt/"), "/smp/mngt/");
    }

    #[test]
    fn every_full_width_form_of_ascii_stands_for_its_own() {
        let meant = |c| disguise(c).and_then(|(_, meant)| meant);
        for ascii in '!'..='~' {
            let full_width = char::from_u32(u32::from(ascii) + 0xfee0).unwrap();
            assert_eq!(meant(full_width), Some(ascii), "{full_width}");
        }
        assert_eq!(
            [meant('。'), meant('、'), meant('“'), meant('—'), meant('\u{200b}')],
            [Some('.'), Some(','), Some('"'), Some('-'), None]
        );
        for plain in ['a', ',', '管', 'ー', 'é'] {
            assert_eq!(disguise(plain), None, "{plain}");
        }
    }
}
