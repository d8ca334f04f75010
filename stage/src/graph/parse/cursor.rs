//! A position in one line of text.

use crate::graph::Node;
use std::collections::HashMap;
use std::str::FromStr;

pub(super) struct Cursor<'t> {
    rest: &'t str,
}

impl<'t> Cursor<'t> {
    pub(super) fn new(line: &'t str) -> Cursor<'t> {
        Cursor { rest: line.trim() }
    }

    fn take(&mut self, bytes: usize) -> &'t str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.rest = rest.trim_start();
        taken
    }

    /// What is left, for messages.
    fn found(&self) -> String {
        match self.rest.chars().take(20).collect::<String>() {
            rest if rest.is_empty() => "the end of the line".to_owned(),
            rest => format!("`{rest}`"),
        }
    }

    pub(super) fn expected<T>(&self, what: &str) -> Result<T, String> {
        Err(format!("expected {what}, found {}", self.found()))
    }

    pub(super) fn end(&self) -> Result<(), String> {
        if self.rest.is_empty() { Ok(()) } else { self.expected("the end of the line") }
    }

    pub(super) fn eat(&mut self, symbol: &str) -> bool {
        let found = self.rest.starts_with(symbol);
        if found {
            self.take(symbol.len());
        }
        found
    }

    pub(super) fn expect(&mut self, symbol: &str) -> Result<(), String> {
        if self.eat(symbol) { Ok(()) } else { self.expected(&format!("`{symbol}`")) }
    }

    fn run(&self, belongs: impl Fn(char) -> bool) -> usize {
        self.rest.find(|c| !belongs(c)).unwrap_or(self.rest.len())
    }

    fn word_length(&self) -> usize {
        self.run(|c| c.is_ascii_alphanumeric() || c == '_')
    }

    pub(super) fn eat_word(&mut self, word: &str) -> bool {
        let length = self.word_length();
        let found = self.rest[..length] == *word;
        if found {
            self.take(length);
        }
        found
    }

    pub(super) fn expect_word(&mut self, word: &str) -> Result<(), String> {
        if self.eat_word(word) { Ok(()) } else { self.expected(&format!("`{word}`")) }
    }

    pub(super) fn word(&mut self) -> Result<&'t str, String> {
        match self.word_length() {
            0 => self.expected("a name"),
            length => Ok(self.take(length)),
        }
    }

    /// Words joined by dots.
    pub(super) fn dotted(&mut self) -> Result<&'t str, String> {
        match self.run(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.') {
            0 => self.expected("an operation"),
            length => Ok(self.take(length)),
        }
    }

    /// Text up to a character that is not part of it.
    pub(super) fn until(&mut self, stop: char) -> &'t str {
        let length = self.run(|c| c != stop);
        self.take(length)
    }

    pub(super) fn number<T: FromStr>(&mut self) -> Result<T, String> {
        let length = self.run(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
        match self.rest[..length].parse() {
            Ok(number) => {
                self.take(length);
                Ok(number)
            }
            Err(_) => self.expected("a number"),
        }
    }

    pub(super) fn at_string(&self) -> bool {
        self.rest.starts_with('"')
    }

    /// Text in quotes, with the escapes that Rust prints.
    pub(super) fn string(&mut self) -> Result<String, String> {
        if !self.at_string() {
            return self.expected("text in quotes");
        }
        let mut text = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.take(at + 1);
                    return Ok(text);
                }
                '\\' => text.push(unescape(&mut chars.by_ref().map(|(_, c)| c))?),
                _ => text.push(c),
            }
        }
        self.expected("a closing quote")
    }

    /// Is a `v` and a number next?
    pub(super) fn at_node(&self) -> bool {
        let word = &self.rest[..self.word_length()];
        word.strip_prefix('v').is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
    }

    pub(super) fn node_name(&mut self) -> Result<u32, String> {
        let length = self.word_length();
        match self.rest[..length].strip_prefix('v').map(str::parse) {
            Some(Ok(name)) if self.at_node() => {
                self.take(length);
                Ok(name)
            }
            _ => self.expected("a node such as v0"),
        }
    }

    pub(super) fn node(&mut self, nodes: &HashMap<u32, Node>) -> Result<Node, String> {
        let name = self.node_name()?;
        nodes.get(&name).copied().ok_or_else(|| format!("v{name} is not defined above"))
    }

    /// `[item, item]`.
    pub(super) fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Result<T, String>) -> Result<Vec<T>, String> {
        self.expect("[")?;
        self.rest_of_list("]", &mut item)
    }

    /// Items with commas between them, and what closes them.
    pub(super) fn rest_of_list<T>(
        &mut self,
        close: &str,
        mut item: impl FnMut(&mut Self) -> Result<T, String>,
    ) -> Result<Vec<T>, String> {
        let mut items = vec![];
        if self.eat(close) {
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            if !self.eat(",") {
                self.expect(close)?;
                return Ok(items);
            }
        }
    }
}

fn unescape(chars: &mut impl Iterator<Item = char>) -> Result<char, String> {
    match chars.next() {
        Some('n') => Ok('\n'),
        Some('r') => Ok('\r'),
        Some('t') => Ok('\t'),
        Some('0') => Ok('\0'),
        Some(c @ ('\\' | '"' | '\'')) => Ok(c),
        Some('u') => {
            let code: String = chars.skip_while(|c| *c == '{').take_while(|c| *c != '}').collect();
            let code = u32::from_str_radix(&code, 16).ok().and_then(char::from_u32);
            code.ok_or_else(|| "expected a character code such as \\u{7f}".to_owned())
        }
        _ => Err("expected an escape such as \\n".to_owned()),
    }
}
