//! Comparison of rows of text under the rules of [`super`].

type Row = Vec<String>;

const NULL: &str = "\\N";

/// Compares rows that are ordered by the columns `keys` (a bag of rows if there are none).
pub(super) fn compare(want: &[Row], got: &[Row], decimal: &[bool], keys: &[usize]) -> Result<(), String> {
    if want.len() != got.len() {
        return Err(format!("{} rows, expected {}", got.len(), want.len()));
    }
    let columns: Vec<usize> = (0..decimal.len()).collect();
    let same = |w: &Row, g: &Row, columns: &[usize]| columns.iter().all(|&c| same_cell(&w[c], &g[c], decimal[c]));
    if want.iter().zip(got).all(|(w, g)| same(w, g, &columns)) {
        return Ok(());
    }
    let mut start = 0;
    while start < want.len() {
        let ties = want[start..].iter().take_while(|row| same(&want[start], row, keys)).count();
        let end = start + ties;
        for row in start..end {
            if !same(&want[row], &got[row], keys) {
                let pick = |r: &Row| keys.iter().map(|&k| r[k].clone()).collect::<Vec<_>>();
                return Err(format!("row {row}: sort keys {:?}, expected {:?}", pick(&got[row]), pick(&want[row])));
            }
        }
        same_bag(&want[start..end], &got[start..end], |w, g| same(w, g, &columns))
            .map_err(|(w, g)| format!("rows {start} to {}: found {g:?}, expected {w:?}", end - 1))?;
        start = end;
    }
    Ok(())
}

/// Pairs equal rows; a pair that is left over otherwise.
fn same_bag<'a>(want: &'a [Row], got: &'a [Row], same: impl Fn(&Row, &Row) -> bool) -> Result<(), (&'a Row, &'a Row)> {
    let ordered = |rows: &'a [Row]| {
        let mut rows: Vec<&Row> = rows.iter().collect();
        rows.sort_by_cached_key(|row| row.iter().map(|cell| canonical(cell)).collect::<Vec<_>>());
        rows
    };
    let (want, got) = (ordered(want), ordered(got));
    let (mut left_want, mut left_got): (Vec<&Row>, Vec<&Row>) =
        want.into_iter().zip(got).filter(|(w, g)| !same(w, g)).unzip();
    // Numbers that round differently may have sorted apart.
    while let Some(w) = left_want.pop() {
        match left_got.iter().position(|g| same(w, g)) {
            Some(at) => drop(left_got.swap_remove(at)),
            None => return Err((w, left_got[left_got.len() - 1])),
        }
    }
    Ok(())
}

fn canonical(cell: &str) -> String {
    number(cell).map_or_else(|| cell.trim_end().to_string(), |n| format!("{n:.5e}"))
}

fn number(cell: &str) -> Option<f64> {
    // `parse` would take words such as "inf" too.
    let numeric = cell.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
    cell.parse().ok().filter(|_| numeric)
}

fn same_cell(want: &str, got: &str, decimal: bool) -> bool {
    if want == got {
        return true;
    }
    if want == NULL || got == NULL {
        return false;
    }
    let (Some(a), Some(b)) = (number(want), number(got)) else { return want.trim_end() == got.trim_end() };
    let difference = (a - b).abs();
    // Sums of floats that cancel to nearly zero differ by less than 1e-9.
    difference <= 1e-6 * a.abs().max(b.abs()) || difference <= 1e-9 || (decimal && difference <= last_digit(got))
}

/// One unit of the last digit of a decimal with at least four digits after the point, else 0.
fn last_digit(cell: &str) -> f64 {
    let scale = cell.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    // A little more, because the difference itself is rounded.
    if scale >= 4 { 10f64.powi(-(scale as i32)) * (1.0 + 1e-6) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[&[&str]]) -> Vec<Row> {
        rows.iter().map(|r| r.iter().map(|c| c.to_string()).collect()).collect()
    }

    #[test]
    fn cells() {
        assert!(same_cell("1.50", "1.5", false) && same_cell("a", "a  ", false));
        assert!(same_cell("1000000", "1000000.5", false) && !same_cell("1000", "1000.5", false));
        assert!(same_cell("0.00014", "0.0001", true) && !same_cell("0.00014", "0.0001", false));
        assert!(!same_cell(NULL, "0", false) && !same_cell("inf", "INF", false));
    }

    #[test]
    fn ties_may_swap() {
        let want = rows(&[&["1", "a"], &["1", "b"], &["2", "c"]]);
        let swapped = rows(&[&["1", "b"], &["1", "a"], &["2", "c"]]);
        assert!(compare(&want, &swapped, &[false; 2], &[0]).is_ok());
        assert!(compare(&want, &swapped, &[false; 2], &[0, 1]).is_err());
        assert!(compare(&want, &swapped, &[false; 2], &[]).is_ok());
        let other = rows(&[&["1", "b"], &["1", "b"], &["2", "c"]]);
        assert!(compare(&want, &other, &[false; 2], &[0]).is_err());
    }
}
