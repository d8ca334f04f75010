//! Cuts the text form into tokens. A `;` starts a comment that runs to the end of the line.

use super::ParseError;
use std::fmt;
use std::iter::Peekable;
use std::str::Chars;

/// A token.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Token {
    /// An identifier: a keyword, an operation, a type or a value.
    Word(String),
    /// An integer, decimal or (after `0x`) hexadecimal.
    Int(i128),
    /// The bits of a float, told from an integer by its point or exponent.
    Float(u64),
    /// A quoted string without its quotes and escapes.
    Str(String),
    /// Punctuation.
    Punct(&'static str),
    /// The end of the text.
    End,
}

/// All punctuation, longest first.
const PUNCT: &[&str] = &["->", "..", "(", ")", "{", "}", ",", ":", "=", "+", "*", "@"];

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Word(word) => write!(f, "`{word}`"),
            Token::Int(i) => write!(f, "`{i}`"),
            Token::Float(bits) => write!(f, "`{:?}`", f64::from_bits(*bits)),
            Token::Str(text) => write!(f, "{text:?}"),
            Token::Punct(p) => write!(f, "`{p}`"),
            Token::End => f.write_str("the end"),
        }
    }
}

/// The tokens of a text, each with its line (from 1); the last one is [`Token::End`].
pub(super) fn lex(text: &str) -> Result<Vec<(Token, usize)>, ParseError> {
    let mut lexer = Lexer { rest: text, line: 1 };
    let mut tokens = vec![];
    loop {
        lexer.skip_blank();
        let line = lexer.line;
        let token = lexer.token()?;
        let end = token == Token::End;
        tokens.push((token, line));
        if end {
            return Ok(tokens);
        }
    }
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Lexer<'a> {
    fn error(&self, expected: &str) -> ParseError {
        let found = self.rest.chars().next().map_or("the end".into(), |c| format!("{c:?}"));
        ParseError { line: self.line, expected: expected.into(), found }
    }

    /// Takes the characters from the start for which `accept` holds.
    fn take(&mut self, accept: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !accept(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn eat(&mut self, text: &str) -> bool {
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn skip_blank(&mut self) {
        loop {
            let blank = self.take(char::is_whitespace);
            self.line += blank.matches('\n').count();
            if !self.rest.starts_with(';') {
                return;
            }
            self.take(|c| c != '\n');
        }
    }

    fn token(&mut self) -> Result<Token, ParseError> {
        let Some(first) = self.rest.chars().next() else { return Ok(Token::End) };
        if first.is_ascii_alphabetic() || first == '_' {
            return Ok(Token::Word(self.take(|c| c.is_ascii_alphanumeric() || c == '_').into()));
        }
        if self.eat("\"") {
            return self.string().map(Token::Str);
        }
        if let Some(punct) = PUNCT.iter().find(|p| self.rest.starts_with(**p)) {
            self.eat(punct);
            return Ok(Token::Punct(punct));
        }
        self.number()
    }

    fn number(&mut self) -> Result<Token, ParseError> {
        let start = self.rest;
        if self.eat("-inf") {
            return Ok(Token::Float(f64::NEG_INFINITY.to_bits()));
        }
        if self.eat("0x") {
            let digits = self.take(|c| c.is_ascii_hexdigit());
            return i128::from_str_radix(digits, 16).map(Token::Int).map_err(|_| self.error("a hexadecimal integer"));
        }
        self.eat("-");
        let digits = self.take(|c| c.is_ascii_digit()).len();
        if digits == 0 {
            self.rest = start;
            return Err(self.error("a token"));
        }
        let float = self.fraction() | self.exponent();
        let text = &start[..start.len() - self.rest.len()];
        let token = if float {
            text.parse().ok().map(|x: f64| Token::Float(x.to_bits()))
        } else {
            text.parse().ok().map(Token::Int)
        };
        token.ok_or_else(|| self.error("a number in range"))
    }

    /// A point counts only before a digit, as `..` may follow a number.
    fn fraction(&mut self) -> bool {
        let mut chars = self.rest.chars();
        let found = chars.next() == Some('.') && chars.next().is_some_and(|c| c.is_ascii_digit());
        if found {
            self.eat(".");
            self.take(|c| c.is_ascii_digit());
        }
        found
    }

    fn exponent(&mut self) -> bool {
        let found = self.eat("e");
        if found {
            self.eat("-");
            self.take(|c| c.is_ascii_digit());
        }
        found
    }

    /// The rest of a string, up to its closing quote.
    fn string(&mut self) -> Result<String, ParseError> {
        let mut chars = self.rest.chars().peekable();
        let mut text = String::new();
        loop {
            match chars.next() {
                Some('"') => break,
                Some('\\') => text.push(escape(&mut chars).ok_or_else(|| self.error("a string with known escapes"))?),
                Some('\n') | None => return Err(self.error("a closing quote on the same line")),
                Some(c) => text.push(c),
            }
        }
        self.rest = &self.rest[self.rest.len() - chars.map(char::len_utf8).sum::<usize>()..];
        Ok(text)
    }
}

/// What follows a backslash; the escapes are those of Rust's `{:?}`, with which strings are printed.
fn escape(chars: &mut Peekable<Chars<'_>>) -> Option<char> {
    Some(match chars.next()? {
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        '0' => '\0',
        'u' => {
            chars.next_if_eq(&'{')?;
            let mut code = 0u32;
            while let Some(digit) = chars.next_if(char::is_ascii_hexdigit).and_then(|c| c.to_digit(16)) {
                code = code.checked_mul(16)?.checked_add(digit)?;
            }
            chars.next_if_eq(&'}')?;
            char::from_u32(code)?
        }
        c @ ('\\' | '"' | '\'') => c,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Vec<Token> {
        lex(text).expect(text).into_iter().map(|(token, _)| token).collect()
    }

    #[test]
    fn numbers_are_told_apart() {
        let float = |x: f64| Token::Float(x.to_bits());
        assert_eq!(
            tokens("-5 0x1f 1.5 1e300 -inf 0..1"),
            [
                Token::Int(-5),
                Token::Int(31),
                float(1.5),
                float(1e300),
                float(f64::NEG_INFINITY),
                Token::Int(0),
                Token::Punct(".."),
                Token::Int(1),
                Token::End
            ]
        );
    }

    #[test]
    fn strings_are_those_of_debug() {
        for text in ["plain", "\"\\\n\t\r\0'", "ü\u{1b}\u{202e}"] {
            assert_eq!(tokens(&format!("{text:?}")), [Token::Str(text.into()), Token::End]);
        }
    }

    #[test]
    fn errors_have_the_line() {
        for text in ["\n#", "; note\n-", "\n\"\\x\"", "\n\"", "\n1e", "\n99999999999999999999999999999999999999999"] {
            assert_eq!(lex(text).map_err(|e| e.line), Err(2), "{text}");
        }
    }
}
