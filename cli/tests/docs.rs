//! The pages say what is so: every command in them is one that the command line takes, every target is one of the
//! Makefile, every link and path leads somewhere, and every test that the argument cites is there.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use clap::Parser;
use zsha::args::Cli;

#[path = "common/tree.rs"]
mod tree;

use tree::{root, rust_files, text};

struct Page {
    path: PathBuf,
    text: String,
}

impl Page {
    fn read(path: &str) -> Self {
        Self { path: root().join(path), text: text(path) }
    }

    fn name(&self) -> String {
        self.path.strip_prefix(root()).unwrap().display().to_string()
    }

    /// The lines of code blocks, fenced or indented by four spaces (eight within a list).
    fn code_lines(&self) -> Vec<(usize, &str)> {
        let mut fenced = false;
        let mut lines = Vec::new();
        for (at, line) in self.text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                fenced = !fenced;
            } else if fenced || line.starts_with("    ") {
                lines.push((at + 1, line.trim()));
            }
        }
        lines
    }

    /// The words that stand between single backticks.
    fn inline_code(&self) -> Vec<&str> {
        let mut fenced = false;
        let prose = self.text.lines().filter(move |line| {
            fenced ^= line.trim_start().starts_with("```");
            !fenced
        });
        prose.flat_map(|line| line.split('`').skip(1).step_by(2)).collect()
    }

    /// The names that GitHub gives the headings in an address.
    fn anchors(&self) -> BTreeSet<String> {
        let headings = self.text.lines().filter(|line| line.starts_with('#'));
        headings
            .map(|heading| {
                let words = heading.trim_start_matches('#').trim().to_lowercase();
                let kept = words.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
                kept.map(|c| if c == ' ' { '-' } else { c }).collect()
            })
            .collect()
    }
}

fn pages() -> Vec<Page> {
    let mut pages: Vec<_> =
        ["README.md", "README.zh-CN.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "e2e/README.md"]
            .map(Page::read)
            .into();
    for place in ["docs", "docs/zh-CN"] {
        let entries = fs::read_dir(root().join(place)).unwrap().map(|entry| entry.unwrap().path());
        let mut found: Vec<_> =
            entries.filter(|path| path.extension().is_some_and(|end| end == "md")).collect();
        found.sort();
        pages.extend(
            found.iter().map(|path| Page::read(path.strip_prefix(root()).unwrap().to_str().unwrap())),
        );
    }
    pages
}

/// The words of a line of a shell, up to a comment or whatever else than words it has.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, '|' | ';' | '&' | '>' | '<') => break,
            (None, ' ') => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[test]
fn every_command_in_a_page_is_one_that_the_command_line_takes() {
    let (mut tried, mut wrong) = (0, Vec::new());
    for page in pages() {
        for (at, line) in page.code_lines() {
            let words = words(line.trim_start_matches("$ ").trim_start_matches("sudo "));
            if words.first().is_none_or(|first| first != "zsha") {
                continue;
            }
            tried += 1;
            if let Err(error) = Cli::try_parse_from(&words)
                && error.use_stderr()
            {
                wrong.push(format!("{}:{at}: {line}\n{error}", page.name()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(tried > 30, "only {tried} commands were found");
}

#[test]
fn every_command_that_a_page_names_in_passing_is_there() {
    let mut wrong = Vec::new();
    for page in pages() {
        for code in page.inline_code() {
            let Some(command) = code.strip_prefix("zsha ").and_then(|rest| rest.split_whitespace().next())
            else {
                continue;
            };
            // An option, a place holder, or the version of the original: no command.
            if command.starts_with(|c: char| !c.is_ascii_lowercase()) {
                continue;
            }
            let asked = Cli::try_parse_from(["zsha", command, "--help"]).unwrap_err();
            if asked.use_stderr() {
                wrong.push(format!("{}: `{code}`", page.name()));
            }
        }
    }
    assert!(wrong.is_empty(), "no such command: {}", wrong.join(", "));
}

#[test]
fn every_target_that_a_page_names_is_in_the_makefile() {
    let makefile = Page::read("Makefile").text;
    let has = |target: &str| makefile.lines().any(|line| line.starts_with(&format!("{target}:")));
    let mut wrong = Vec::new();
    for page in pages() {
        let blocks = page.code_lines();
        let named = page.inline_code().into_iter().chain(blocks.iter().map(|(_, line)| *line));
        for code in named.filter_map(|code| code.strip_prefix("make ")) {
            let targets =
                words(code).into_iter().filter(|word| !word.contains('=') && !word.starts_with('-'));
            wrong.extend(
                targets.filter(|target| !has(target)).map(|target| format!("{}: {target}", page.name())),
            );
        }
    }
    assert!(wrong.is_empty(), "no such target: {}", wrong.join(", "));
}

#[test]
fn every_link_leads_somewhere() {
    let mut wrong = Vec::new();
    for page in pages() {
        for link in page.text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (file, anchor) =
                link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
            let target =
                if file.is_empty() { page.path.clone() } else { page.path.parent().unwrap().join(file) };
            let leads = target.exists()
                && anchor.is_none_or(|anchor| {
                    let text = fs::read_to_string(&target).unwrap();
                    Page { path: target.clone(), text }.anchors().contains(anchor)
                });
            if !leads {
                wrong.push(format!("{}: {link}", page.name()));
            }
        }
    }
    assert!(wrong.is_empty(), "nothing is there: {}", wrong.join(", "));
}

#[test]
fn every_path_of_the_repository_that_a_page_names_is_there() {
    let mut wrong = Vec::new();
    for page in pages() {
        for code in page.inline_code() {
            let is_path = ["manifests/", "docs/", "controller/", "crds/", "cli/", "e2e/"]
                .iter()
                .any(|top| code.starts_with(top));
            if is_path && !code.contains(['*', '<', '{', ' ']) && !root().join(code).exists() {
                wrong.push(format!("{}: {code}", page.name()));
            }
        }
    }
    assert!(wrong.is_empty(), "nothing is there: {}", wrong.join(", "));
}

#[test]
fn every_test_scenario_and_bug_that_the_argument_cites_is_there() {
    let page = Page::read("docs/never-two-copies.md");
    let rooms = ["controller", "crds", "cli", "e2e"];
    let code: String = rooms.iter().flat_map(|room| rust_files(room)).map(|file| text(&file)).collect();
    let scenarios: Vec<_> = fs::read_dir(root().join("controller/src/sim/scenarios"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let planted = Page::read("controller/examples/planted.txt").text;
    let (mut cited, mut wrong) = (0, Vec::new());
    for named in page.inline_code() {
        let last = named.rsplit("::").next().unwrap();
        let is_word =
            |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let there = if named.contains("::") && is_word(last) && last.contains('_') {
            code.contains(&format!("fn {last}("))
                || code.contains(&format!("{last},"))
                || code.contains(&format!("    {last}\n"))
        } else if named.starts_with(|c: char| c.is_ascii_digit()) && named.contains('-') {
            scenarios
                .iter()
                .any(|file| file.trim_end_matches(".scenario") == named.trim_end_matches(".scenario"))
        } else if named.starts_with("planted:") {
            planted.lines().any(|line| line.split_whitespace().next() == Some(&named["planted:".len()..]))
        } else {
            continue;
        };
        cited += 1;
        if !there {
            wrong.push(named.to_owned());
        }
    }
    assert!(wrong.is_empty(), "cited, and not there: {}", wrong.join(", "));
    assert!(cited > 60, "only {cited} were found");
}

#[test]
fn the_readme_is_read_in_one_go() {
    let words = Page::read("README.md").text.split_whitespace().count();
    assert!(words <= 700, "{words} words: what is not for everybody belongs below docs/");
}
