//! The table that `demo` prints.

use std::fmt;
use std::fmt::Write as _;

/// How a check came out.
pub enum Verdict {
    /// As expected, in these words.
    Good(String),
    /// There is nothing to compare with.
    Unknown,
    /// Not as expected, or no result at all.
    Bad(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Good(words) => f.write_str(words),
            Verdict::Unknown => f.write_str("no reference"),
            Verdict::Bad(problem) => write!(f, "FAILED: {problem}"),
        }
    }
}

/// A row: a program, or something that was set up.
pub struct Row {
    /// What it is.
    pub name: String,
    /// From the graph to machine code.
    pub compile_ms: Option<f64>,
    /// The middle of its runs, or how long setting up took.
    pub run_ms: Option<f64>,
    /// What came out.
    pub verdict: Verdict,
}

impl Row {
    /// Did it fail?
    pub fn is_bad(&self) -> bool {
        matches!(self.verdict, Verdict::Bad(_))
    }
}

/// The rows as text, in columns.
pub fn text(rows: &[Row]) -> String {
    let width = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
    let mut text = format!("{:width$}  {:>10}  {:>10}  check\n", "program", "compile ms", "run ms");
    let _ = writeln!(text, "{}", "-".repeat(width + 40));
    for row in rows {
        let (compile, run) = (ms(row.compile_ms), ms(row.run_ms));
        let _ = writeln!(text, "{:width$}  {compile:>10}  {run:>10}  {}", row.name, row.verdict);
    }
    text
}

fn ms(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let row = |name: &str, run_ms, verdict| Row { name: name.into(), compile_ms: None, run_ms, verdict };
        let rows = [row("Q1", Some(12.34), Verdict::Unknown), row("pictures", None, Verdict::Bad("no".into()))];
        let text = text(&rows);
        let lines: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(
            lines,
            ["Q1                 -        12.3  no reference", "pictures           -           -  FAILED: no"]
        );
        assert!(rows[1].is_bad());
    }
}
