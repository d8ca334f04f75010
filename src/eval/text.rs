//! LIKE and SUBSTRING.

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

/// `len` characters from the 1-based position `start`.
pub fn substring(text: &str, start: u32, len: u32) -> String {
    text.chars().skip(start.saturating_sub(1) as usize).take(len as usize).collect()
}
