//! The answers' CSV: commas, and double quotes around cells that hold commas or quotes.

/// Rows of cells.
pub(super) fn parse(text: &str) -> Vec<Vec<String>> {
    text.lines().map(parse_line).collect()
}

fn parse_line(line: &str) -> Vec<String> {
    let mut cells = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let last = cells.len() - 1;
        match c {
            '"' if quoted && chars.next_if_eq(&'"').is_some() => cells[last].push('"'),
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(String::new()),
            _ => cells[last].push(c),
        }
    }
    cells
}

#[cfg(test)]
mod tests {
    #[test]
    fn quotes() {
        assert_eq!(super::parse("a,\"b,\"\"c\"\"\",\n"), [["a", "b,\"c\"", ""]]);
    }
}
