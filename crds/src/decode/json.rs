//! Reads JSON with `//` and `/* */` comments into a tree: the old config.json, and documents in JSON.
//!
//! Never here: accepting anything else that lenient readers take. The text is read leniently all the same, so that
//! every missing comma is named at once and the rest of the document can be judged.

use std::ops::Range;

use jsonc_parser::ast::{Array, Object, ObjectPropName, Value};
use jsonc_parser::common::Ranged;
use jsonc_parser::errors::{ParseError, ParseErrorKind};
use jsonc_parser::tokens::{Token, TokenAndRange};
use jsonc_parser::{CollectOptions, CommentCollectionStrategy, ParseOptions, parse_to_ast};

use super::tree::{DEEPEST, Entry, Placed, Shape, Tree};
use crate::diagnostic::{Code, Finding, quoted};
use crate::path::Path;

/// Returns the tree, as far as `source` could be read, and every fault met on the way.
pub(super) fn read(source: &str) -> (Option<Tree>, Vec<Placed>) {
    let collect = CollectOptions { comments: CommentCollectionStrategy::Off, tokens: true };
    let (strict, lenient) =
        (parse_to_ast(source, &collect, &options(false)), parse_to_ast(source, &collect, &options(true)));
    match (strict, lenient) {
        (Ok(parsed), _) => walk(source, parsed.value.as_ref(), parsed.tokens.unwrap_or_default()),
        (Err(error), Ok(parsed)) => {
            let (tree, mut found) = walk(source, parsed.value.as_ref(), parsed.tokens.unwrap_or_default());
            if found.is_empty() {
                found.push(syntax(source, &error));
            }
            (tree, found)
        }
        (Err(error), Err(lenient)) => {
            let mut found = vec![syntax(source, &error)];
            if lenient.range().start != error.range().start {
                found.push(syntax(source, &lenient));
            }
            (None, found)
        }
    }
}

/// True if the text begins as JSON and has a comment. The old config.json has such comments, and YAML never has.
pub(super) fn has_comments(source: &str) -> bool {
    let begins_a_comment = |text: &str| text.starts_with("//") || text.starts_with("/*");
    let start = source.trim_start();
    if begins_a_comment(start) {
        return true;
    }
    let Some(inner) = start.strip_prefix('{').map(str::trim_start) else { return false };
    if begins_a_comment(inner) {
        return true;
    }
    // With a quotation mark before its first key; in YAML's own braces, '//host/share' is a text.
    let (mut in_text, mut before) = (false, '{');
    inner.starts_with('"')
        && inner.char_indices().any(|(at, c)| {
            match c {
                '"' if before != '\\' => in_text = !in_text,
                '/' if !in_text && before != ':' && begins_a_comment(&inner[at..]) => return true,
                _ => {}
            }
            before = if before == '\\' { ' ' } else { c };
            false
        })
}

fn options(lenient: bool) -> ParseOptions {
    ParseOptions {
        allow_comments: true,
        allow_loose_object_property_names: lenient,
        allow_trailing_commas: lenient,
        allow_missing_commas: lenient,
        allow_single_quoted_strings: lenient,
        allow_hexadecimal_numbers: lenient,
        allow_unary_plus_numbers: lenient,
        allow_bare_decimal_point_numbers: lenient,
        allow_non_finite_numbers: lenient,
        allow_extended_string_escapes: lenient,
    }
}

fn walk(
    source: &str,
    value: Option<&Value<'_>>,
    tokens: Vec<TokenAndRange<'_>>,
) -> (Option<Tree>, Vec<Placed>) {
    let mut walk = Walk { source, tokens, found: Vec::new() };
    let tree = value.and_then(|value| walk.value(value, 0));
    (tree, walk.found)
}

struct Walk<'a> {
    source: &'a str,
    tokens: Vec<TokenAndRange<'a>>,
    found: Vec<Placed>,
}

impl Walk<'_> {
    fn fault(&mut self, code: Code, range: Range<usize>, message: impl Into<String>, hint: &str) {
        self.found.push((Finding::new(code, Path::root(), message).hint(hint), Some(range)));
    }

    fn value(&mut self, value: &Value<'_>, depth: usize) -> Option<Tree> {
        let span = range(value);
        if depth > DEEPEST {
            self.fault(
                Code::TooDeep,
                span.start..span.start + 1,
                format!("must not be nested deeper than {DEEPEST} levels"),
                "see `zsha config-sample FileConf` for the form of a document",
            );
            return None;
        }
        let shape = match value {
            Value::NullKeyword(_) => Shape::Null,
            Value::BooleanLit(literal) => Shape::Bool(literal.value),
            Value::NumberLit(literal) => self.number(literal.value, &span),
            Value::StringLit(literal) => {
                self.string_quotes(&span);
                Shape::Text(literal.value.clone().into_owned())
            }
            Value::Array(array) => self.array(array, depth)?,
            Value::Object(object) => self.object(object, depth)?,
        };
        Some(Tree { span, shape })
    }

    fn number(&mut self, text: &str, span: &Range<usize>) -> Shape {
        serde_json::from_str(text).map_or_else(
            |_| {
                let (what, hint) = if text.parse().is_ok_and(f64::is_infinite) {
                    ("is larger than any number that can be read", "write it in fewer digits")
                } else {
                    (
                        "is not a number of JSON",
                        "write it in decimal digits, without '+' and without leading zeros",
                    )
                };
                self.fault(Code::Syntax, span.clone(), format!("{} {what}", quoted(text)), hint);
                Shape::Text(text.to_owned())
            },
            Shape::Number,
        )
    }

    fn string_quotes(&mut self, span: &Range<usize>) {
        if self.source[span.start..].starts_with('\'') {
            self.fault(
                Code::Syntax,
                span.clone(),
                "a text must be in double quotes",
                "JSON does not know single quotes",
            );
        }
    }

    fn array(&mut self, array: &Array<'_>, depth: usize) -> Option<Shape> {
        let ranges: Vec<_> = array.elements.iter().map(range).collect();
        self.commas(&ranges, range(array).end);
        array.elements.iter().map(|item| self.value(item, depth + 1)).collect::<Option<_>>().map(Shape::List)
    }

    fn object(&mut self, object: &Object<'_>, depth: usize) -> Option<Shape> {
        let ranges: Vec<_> = object.properties.iter().map(range).collect();
        self.commas(&ranges, range(object).end);
        let mut entries = Vec::new();
        for property in &object.properties {
            let key_span = range(&property.name);
            match &property.name {
                ObjectPropName::String(_) => self.string_quotes(&key_span),
                ObjectPropName::Word(word) => {
                    let message = format!("the key {} must be in double quotes", quoted(word.value));
                    self.fault(Code::Syntax, key_span.clone(), message, "JSON does not know bare words");
                }
            }
            let value = self.value(&property.value, depth + 1)?;
            entries.push(Entry { key: property.name.as_str().to_owned(), key_span, value });
        }
        Some(Shape::Map(entries))
    }

    /// Checks the commas: one between neighbours, none after the last.
    fn commas(&mut self, items: &[Range<usize>], end: usize) {
        for pair in items.windows(2) {
            if self.comma_between(pair[0].end, pair[1].start).is_none() {
                let last = self.source[..pair[0].end].char_indices().next_back().map_or(0, |(at, _)| at);
                self.fault(
                    Code::Syntax,
                    last..pair[0].end,
                    "a ',' is missing after this",
                    "put a ',' between one entry and the next, before any comment",
                );
            }
        }
        let trailing = items.last().and_then(|last| self.comma_between(last.end, end));
        if let Some(comma) = trailing {
            self.fault(
                Code::Syntax,
                comma,
                "the last entry must not be followed by a ','",
                "remove this ','",
            );
        }
    }

    fn comma_between(&self, from: usize, to: usize) -> Option<Range<usize>> {
        let first = self.tokens.partition_point(|token| token.range.start < from);
        self.tokens[first..]
            .iter()
            .take_while(|token| token.range.start < to)
            .find(|token| token.token == Token::Comma)
            .map(|token| token.range.start..token.range.end)
    }
}

fn range(of: &impl Ranged) -> Range<usize> {
    of.range().start..of.range().end
}

fn syntax(source: &str, error: &ParseError) -> Placed {
    let start = floor(source, error.range().start);
    // At the end of the text there is no line to show: mark the last character that is not blank.
    let start = if source[start..].trim().is_empty() {
        source[..start].trim_end().char_indices().next_back().map_or(0, |(at, _)| at)
    } else {
        start
    };
    let length = source[start..].chars().next().map_or(0, char::len_utf8);
    let (code, message, hint) = match error.kind() {
        ParseErrorKind::NestingDepthExceeded => (
            Code::TooDeep,
            format!("must not be nested deeper than {DEEPEST} levels"),
            "see `zsha config-sample FileConf` for the form of a document",
        ),
        kind => (
            Code::Syntax,
            format!("this is not JSON: {}", words(kind)),
            hint(kind, &source[..start], &source[start..]),
        ),
    };
    (Finding::new(code, Path::root(), message).hint(hint), Some(start..start + length))
}

/// The parser's words, fitted into a sentence.
fn words(kind: &ParseErrorKind) -> String {
    let text = kind.to_string();
    let mut characters = text.chars();
    match characters.next() {
        Some(first) => first.to_lowercase().chain(characters).collect(),
        None => text,
    }
}

/// Returns what a person should do, by the parser's word and the text it stopped at.
fn hint(kind: &ParseErrorKind, before: &str, rest: &str) -> &'static str {
    let line = before.rsplit('\n').next().into_iter().chain(rest.lines().next());
    match kind {
        _ if rest.starts_with('#') => "a comment begins with '//'",
        _ if rest.starts_with('\u{ff0c}') => "this is a full-width comma; write a ','",
        _ if rest.starts_with('\u{ff1a}') => "this is a full-width colon; write a ':'",
        _ if rest.starts_with(|c: char| c.is_whitespace() && !c.is_ascii()) => {
            "this is no blank, though it looks like one; write a blank"
        }
        _ if line.flat_map(str::chars).any(|c| matches!(c, '\u{2018}'..='\u{201f}' | '\u{ff02}')) => {
            "there is a curly quotation mark on this line; write '\"'"
        }
        ParseErrorKind::UnexpectedToken if before.ends_with('"') => {
            "close the quotation mark on this line or on the one before"
        }
        ParseErrorKind::UnterminatedObject | ParseErrorKind::UnterminatedArray => {
            "close every '{' with '}' and every '[' with ']'"
        }
        ParseErrorKind::UnterminatedCommentBlock => "close the comment with '*/'",
        ParseErrorKind::String(_) => "close the quotation mark on the same line; write a backslash as '\\\\'",
        ParseErrorKind::ExpectedColonAfterObjectKey => "put a ':' between a key and its value",
        ParseErrorKind::MultipleRootJsonValues => "keep one document a file; check for a '}' too many",
        ParseErrorKind::UnexpectedToken if rest.starts_with(char::is_alphabetic) => {
            "put texts in double quotes; true, false and null are written in small letters"
        }
        _ => "check the commas, brackets and quotation marks here and on the line before",
    }
}

fn floor(source: &str, byte: usize) -> usize {
    let mut byte = byte.min(source.len());
    while !source.is_char_boundary(byte) {
        byte -= 1;
    }
    byte
}
