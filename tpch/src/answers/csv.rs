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

/// A row as a line, which [`parse`] reads back.
pub(super) fn line(row: &[String]) -> String {
    let quoted = |cell: &String| match cell.contains([',', '"']) {
        true => format!("\"{}\"", cell.replace('"', "\"\"")),
        false => cell.clone(),
    };
    row.iter().map(quoted).collect::<Vec<_>>().join(",") + "\n"
}

#[cfg(test)]
mod tests {
    #[test]
    fn lines() {
        let row = ["a", "b,c", "d\"e", ""].map(String::from).to_vec();
        assert_eq!(super::parse(&super::line(&row)), [row]);
    }

    #[test]
    fn quotes() {
        assert_eq!(super::parse("a,\"b,\"\"c\"\"\",\n"), [["a", "b,\"c\"", ""]]);
    }
}
