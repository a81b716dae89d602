//! Which part of a text breaks its form, and what to write instead. The form itself is a pattern, and a pattern only says
//! that the whole does not match.
//!
//! Never here: whether a text is of its form.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use crate::characters::{code_point, disguise};
use crate::diagnostic::quoted;
use crate::document::{BridgeName, MonAddress, Node, OptionalPerNode, PerNode, TextForm, TimeServer};

/// A part of a text that breaks its form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// The bytes of the text that are at fault.
    pub(super) at: Range<usize>,
    /// What is wrong there, as the end of a sentence.
    pub(super) wrong: String,
    pub(super) hint: String,
}

impl Part {
    fn new(at: Range<usize>, wrong: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { at, wrong: wrong.into(), hint: hint.into() }
    }
}

/// A word of a text, and the byte it begins at.
#[derive(Debug, Clone, Copy)]
struct Word<'a> {
    at: usize,
    text: &'a str,
}

impl Word<'_> {
    fn bytes(&self) -> Range<usize> {
        self.at..self.at + self.text.len()
    }

    fn is_address(&self) -> bool {
        self.text.parse::<Ipv4Addr>().is_ok()
    }
}

const BLANKS: [char; 2] = [' ', '\t'];

/// Finds the part of `text` for which it is not of the form whose sentence is `must`. None where no single part can be
/// named.
pub(super) fn broken(must: &str, text: &str) -> Option<Part> {
    let is = |form: &str| form == must;
    let has_form = is(Node::MUST) || is(TimeServer::MUST) || is(MonAddress::MUST) || is(BridgeName::MUST);
    if let Some(part) = disguised(text) {
        return Some(part);
    }
    // `Netmask` has the form of `Ipaddr`, and a sentence of its own.
    let by_node = is(PerNode::<Ipv4Addr>::MUST) || is(OptionalPerNode::MUST) || must.contains("MASK@NODE");
    if (has_form || by_node) && text.trim().contains('\n') {
        let one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        return Some(Part::new(
            0..text.len(),
            "it has more than one line",
            format!("write it on one: {}", quoted(&one_line)),
        ));
    }
    if text.trim() != text {
        return None;
    }
    match () {
        () if is(Node::MUST) => node(text),
        () if is(TimeServer::MUST) => time_server(text),
        () if is(MonAddress::MUST) => monitor(text),
        () if is(BridgeName::MUST) => bridge(text),
        () if is(Ipv4Addr::MUST) => address(Word { at: 0, text }),
        () if by_node => per_node(text),
        () => None,
    }
}

/// A character that is not what it seems.
pub(super) fn disguised(text: &str) -> Option<Part> {
    text.char_indices().find_map(|(at, c)| {
        let (name, meant) = disguise(c)?;
        let wrong = format!("it has {}, {name}", code_point(c));
        let hint = match meant {
            Some(' ') => "write a blank, or remove it".to_owned(),
            Some(meant) => format!("write {}", quoted(&meant.to_string())),
            None => "remove it: it cannot be seen, and counts all the same".to_owned(),
        };
        Some(Part::new(at..at + c.len_utf8(), wrong, hint))
    })
}

fn words(text: &str) -> Vec<Word<'_>> {
    let of = |word: &'_ str| word.as_ptr() as usize - text.as_ptr() as usize;
    text.split(BLANKS).filter(|word| !word.is_empty()).map(|word| Word { at: of(word), text: word }).collect()
}

/// `IP HOSTNAME`.
fn node(text: &str) -> Option<Part> {
    let words = words(text);
    let (first, second) = match words.as_slice() {
        [] => return None,
        [one] => return Some(half_a_node(*one)),
        [first, second, ..] => (*first, *second),
    };
    if !first.is_address() && second.is_address() {
        let right = format!("{} {}", second.text, first.text);
        return Some(Part::new(
            0..text.len(),
            "the address comes first",
            format!("write {}", quoted(&right)),
        ));
    }
    if let Some(wrong) = address(first) {
        return Some(wrong);
    }
    if second.is_address() {
        let hint = "a host name must follow the address, not another address";
        return Some(Part::new(second.bytes(), "there are two addresses", hint));
    }
    if let Some(wrong) = host(second, Instead::Name) {
        return Some(wrong);
    }
    let further = words.get(2)?;
    let hint =
        format!("write {}: a node has one name here", quoted(&format!("{} {}", first.text, second.text)));
    Some(Part::new(further.at..text.len(), "something follows the host name", hint))
}

fn half_a_node(one: Word<'_>) -> Part {
    let parts = one.text.split_once([',', ';', '@', '=', '|']);
    if let Some((a, b)) = parts.filter(|(a, _)| a.parse::<Ipv4Addr>().is_ok()) {
        return Part::new(
            one.bytes(),
            "a blank stands between address and host name",
            format!("write {}", quoted(&format!("{a} {b}"))),
        );
    }
    match address(one) {
        None => Part::new(
            one.bytes(),
            "the host name is missing",
            format!("write for instance {}", quoted(&format!("{} nfs-1", one.text))),
        ),
        Some(part) if one.text.starts_with(|c: char| c.is_ascii_digit()) => part,
        Some(_) => Part::new(
            one.bytes(),
            "the address is missing",
            format!("write for instance {}", quoted(&format!("192.168.10.11 {}", one.text))),
        ),
    }
}

/// Says why a word is no IPv4 address; none where it is one.
fn address(word: Word<'_>) -> Option<Part> {
    if word.is_address() {
        return None;
    }
    let text = word.text;
    let part = |wrong: &str, hint: String| Some(Part::new(word.bytes(), wrong, hint));
    let unbracketed = text.trim_start_matches('[').split(['%', ']', '/']).next().unwrap_or_default();
    if unbracketed.parse::<Ipv6Addr>().is_ok() {
        return part("IPv6 is not taken here", "give the IPv4 address".to_owned());
    }
    for (mark, what) in [('/', "no prefix length belongs to it"), (':', "no port belongs to it")] {
        if let Some((before, _)) =
            text.split_once(mark).filter(|(before, _)| before.parse::<Ipv4Addr>().is_ok())
        {
            let at = word.at + before.len()..word.at + text.len();
            return Some(Part::new(at, what, format!("write {}", quoted(before))));
        }
    }
    let numbers: Vec<&str> = text.split('.').collect();
    let are_numbers =
        numbers.iter().all(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()));
    if !are_numbers {
        return part(
            &format!("{} is no IPv4 address", quoted(text)),
            "write four numbers from 0 to 255 with '.' between them".to_owned(),
        );
    }
    if let Some(number) = numbers.iter().find(|number| number.len() > 1 && number.starts_with('0')) {
        let plain = numbers.iter().map(|number| number.trim_start_matches('0'));
        let plain =
            plain.map(|number| if number.is_empty() { "0" } else { number }).collect::<Vec<_>>().join(".");
        let hint = format!(
            "write {}, if that is meant: some programs read {number} as a number to base 8",
            quoted(&plain)
        );
        return part(&format!("{number} begins with a 0"), hint);
    }
    if let Some(number) = numbers.iter().find(|number| number.parse::<u8>().is_err()) {
        return part(&format!("{number} is greater than 255"), "write four numbers from 0 to 255".to_owned());
    }
    part(
        &format!("four numbers make an address, not {}", numbers.len()),
        "write four numbers from 0 to 255".to_owned(),
    )
}

/// What to write in the place of a host name that cannot be taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Instead {
    /// Another name: the document's name for a node need not be what the host calls itself.
    Name,
    /// The host's address.
    Address,
}

/// Says why a word is no host name; none where it is one.
fn host(word: Word<'_>, instead: Instead) -> Option<Part> {
    const LONGEST: usize = 63;
    let text = word.text;
    let is_taken = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    if let Some((at, c)) = text.char_indices().find(|(_, c)| !is_taken(*c)) {
        let at = word.at + at..word.at + at + c.len_utf8();
        let other: String = text.chars().map(|c| if c == '_' { '-' } else { c }).collect();
        let hint = match instead {
            Instead::Name if c == '_' && other.chars().all(is_taken) => {
                format!(
                    "call it {} here: the host itself may go on to call itself {}",
                    quoted(&other),
                    quoted(text)
                )
            }
            Instead::Address if c == '_' => "give its IPv4 address".to_owned(),
            _ => "letters, digits, '-' and '.' are taken".to_owned(),
        };
        let why = if c == '_' { ", which no name of DNS has" } else { "" };
        return Some(Part::new(
            at,
            format!("{} may not be in a host name{why}", quoted(&c.to_string())),
            hint,
        ));
    }
    let breaks_off = |label: &&str| label.is_empty() || label.starts_with('-') || label.ends_with('-');
    if text.split('.').find(breaks_off).is_some() {
        let hint = "each part of a host name, between dots, must begin and end with a letter or digit";
        return Some(Part::new(word.bytes(), "a part of the host name breaks off", hint));
    }
    if !word.is_address() && text.chars().all(|c| c == '.' || c.is_ascii_digit()) {
        let hint = "digits and dots alone are an IPv4 address, which has four numbers from 0 to 255";
        return Some(Part::new(word.bytes(), "a host name has a letter in it", hint));
    }
    (text.len() > LONGEST).then(|| {
        let wrong = format!("the host name has {} characters, and {LONGEST} are taken", text.len());
        Part::new(
            word.bytes(),
            wrong,
            match instead {
                Instead::Name => {
                    "call it by a shorter name here: the host itself may go on to call itself otherwise"
                }
                Instead::Address => "give its IPv4 address",
            },
        )
    })
}

/// `A@nfs-1, B@nfs-2`, or one address.
fn per_node(text: &str) -> Option<Part> {
    if !text.contains(['@', ',', ';']) {
        return address(Word { at: 0, text });
    }
    let mut at = 0;
    let mut entries = Vec::new();
    for piece in text.split(',') {
        let blanks = piece.len() - piece.trim_start_matches(BLANKS).len();
        entries.push(Word { at: at + blanks, text: piece.trim_matches(BLANKS) });
        at += piece.len() + 1;
    }
    if let Some(last) = entries.last().filter(|last| last.text.is_empty()) {
        let comma = text[..last.at].rfind(',').unwrap_or_default();
        return Some(Part::new(comma..comma + 1, "nothing follows the last comma", "remove the comma"));
    }
    entries.into_iter().find_map(entry)
}

/// `IP@NODE`.
fn entry(entry: Word<'_>) -> Option<Part> {
    let text = entry.text;
    let part = |wrong: &str, hint: String| Some(Part::new(entry.bytes(), wrong, hint));
    if text.is_empty() {
        return Some(Part::new(
            entry.at.saturating_sub(1)..entry.at,
            "nothing stands between two commas",
            "remove one of them",
        ));
    }
    if let Some(at) = text.find([';', '|']) {
        return Some(Part::new(
            entry.at + at..entry.at + at + 1,
            "entries are separated by ','",
            "write ','",
        ));
    }
    let Some((before, after)) = text.split_once('@') else {
        return match address(entry) {
            Some(wrong) => Some(wrong),
            None => part(
                "the node is missing",
                format!("write {} for each node, or one address for all", quoted(&format!("{text}@NODE"))),
            ),
        };
    };
    if after.contains('@') {
        return part("a ',' is missing between two entries", "write 'IP@NODE, IP@NODE, ...'".to_owned());
    }
    if before.ends_with(BLANKS) || after.starts_with(BLANKS) {
        return part(
            "a blank stands beside the '@'",
            format!("write {}", quoted(&format!("{}@{}", before.trim(), after.trim()))),
        );
    }
    let (before, after) =
        (Word { at: entry.at, text: before }, Word { at: entry.at + before.len() + 1, text: after });
    if !before.is_address() && after.is_address() {
        return part(
            "the address stands before the '@'",
            format!("write {}", quoted(&format!("{}@{}", after.text, before.text))),
        );
    }
    address(before).or_else(|| host(after, Instead::Name))
}

fn time_server(text: &str) -> Option<Part> {
    let words = words(text);
    let is_directive = |word: &Word<'_>| ["server", "pool", "peer"].contains(&word.text);
    let named = words.iter().find(|word| !is_directive(word)).or(words.first())?;
    if text.contains([',', ';']) {
        return each_its_own(text);
    }
    if words.len() > 1 {
        let rest = if named.at > 0 { 0..named.at } else { named.text.len()..text.len() };
        let hint = format!("write {}: zsha sets the options", quoted(named.text));
        return Some(Part::new(rest, "only the host stands here", hint));
    }
    machine(*named)
}

fn monitor(text: &str) -> Option<Part> {
    if text.starts_with('[') && (text.contains("v1:") || text.contains("v2:")) {
        let first = text.split("v2:").nth(1).or(text.split("v1:").nth(1)).unwrap_or_default();
        let first = first.split([',', ']', '/']).next().unwrap_or_default();
        let host = first.rsplit_once(':').map_or(first, |(host, _)| host);
        let hint = format!("write {}, or with its port {}", quoted(host), quoted(first));
        return Some(Part::new(0..text.len(), "one address of the monitor is enough", hint));
    }
    if text.contains([',', ';', ' ']) {
        return each_its_own(text);
    }
    if let Some((before, _)) =
        text.split_once('/').filter(|(_, nonce)| nonce.bytes().all(|b| b.is_ascii_digit()))
    {
        return Some(Part::new(
            before.len()..text.len(),
            "no '/' follows the address",
            format!("write {}", quoted(before)),
        ));
    }
    match text.split_once(':') {
        Some((before, port)) if !port.contains(':') => {
            let is_port = !port.is_empty()
                && port.len() <= 5
                && port.bytes().all(|b| b.is_ascii_digit())
                && !port.starts_with('0');
            machine(Word { at: 0, text: before }).or_else(|| {
                let at = before.len() + 1..text.len();
                (!is_port).then(|| {
                    Part::new(
                        at,
                        "a port is a number from 1 to 65535",
                        "Ceph's monitors listen on 3300 and 6789",
                    )
                })
            })
        }
        _ => machine(Word { at: 0, text }),
    }
}

/// A list in one text.
fn each_its_own(text: &str) -> Option<Part> {
    let entries: Vec<String> =
        text.split([',', ';', ' ']).filter(|word| !word.is_empty()).map(quoted).collect();
    let hint = format!("write [{}]", entries.join(", "));
    Some(Part::new(0..text.len(), "each is an entry of the list", hint))
}

/// Says why a word is neither an address nor a host name.
fn machine(word: Word<'_>) -> Option<Part> {
    let looks_like_address = word.text.contains(':')
        || word.text.contains('/')
        || word.text.chars().all(|c| c == '.' || c.is_ascii_digit());
    if looks_like_address { address(word) } else { host(word, Instead::Address) }
}

fn bridge(text: &str) -> Option<Part> {
    const LONGEST: usize = 15;
    let is_taken = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if let Some((at, c)) = text.char_indices().find(|(_, c)| !is_taken(*c)) {
        let wrong = format!("{} may not be in it", quoted(&c.to_string()));
        return Some(Part::new(at..at + c.len_utf8(), wrong, "give one name, as `ip link` shows it"));
    }
    (text.len() > LONGEST).then(|| {
        let wrong = format!("it has {} characters, and Linux takes {LONGEST}", text.len());
        Part::new(0..text.len(), wrong, "give the name as `ip link` shows it")
    })
}
