//! LIKE, SUBSTRING, cleaning, hashing.

use quearn_stage::graph::Clean;

/// One step of a LIKE pattern.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Run,
    One,
    Char(char),
}

/// A LIKE pattern, ready to match.
#[derive(Debug)]
pub struct Pattern(Vec<Step>);

impl Pattern {
    /// Reads `%`, `_` and `\`.
    pub fn new(pattern: &str) -> Pattern {
        let mut steps = Vec::new();
        let mut chars = pattern.chars();
        while let Some(c) = chars.next() {
            steps.push(match c {
                '%' => Step::Run,
                '_' => Step::One,
                '\\' => Step::Char(chars.next().unwrap_or('\\')),
                other => Step::Char(other),
            });
        }
        Pattern(steps)
    }

    /// Does the whole text match?
    pub fn matches(&self, text: &str) -> bool {
        // `reach[i]`: the steps so far can match the first `i` characters.
        let text: Vec<char> = text.chars().collect();
        let mut reach = vec![false; text.len() + 1];
        reach[0] = true;
        for step in &self.0 {
            reach = advance(*step, &text, &reach);
        }
        reach[text.len()]
    }
}

fn advance(step: Step, text: &[char], reach: &[bool]) -> Vec<bool> {
    match step {
        Step::Run => {
            let first = reach.iter().position(|&r| r).unwrap_or(reach.len());
            (0..reach.len()).map(|i| i >= first).collect()
        }
        Step::One => (0..reach.len()).map(|i| i > 0 && reach[i - 1]).collect(),
        Step::Char(c) => (0..reach.len()).map(|i| i > 0 && reach[i - 1] && text[i - 1] == c).collect(),
    }
}

/// A text without what is not wanted.
pub fn clean(text: &str, how: Clean) -> String {
    let mut text = text.to_owned();
    if how.lower {
        text = text.to_ascii_lowercase();
    }
    if how.punctuation {
        text.retain(|c| !c.is_ascii_punctuation());
    }
    if how.spaces {
        let is_space = |c: char| matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c');
        text = text.split(is_space).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    }
    text
}

/// FNV-1a in 64 bits, without the highest bit.
pub fn hash(text: &str) -> i64 {
    let hash = text
        .bytes()
        .fold(0xCBF2_9CE4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3));
    (hash & (u64::MAX >> 1)) as i64
}

/// `len` characters from the 1-based position `start`.
pub fn substring(text: &str, start: u32, len: u32) -> String {
    text.chars().skip(start.saturating_sub(1) as usize).take(len as usize).collect()
}
