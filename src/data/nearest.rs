//! "Did you mean": the names nearest to a mistyped one.

/// Text to end an error about the unknown `name`: the nearest of the names there are, or else the first of them.
pub(crate) fn hint<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let mut ranked: Vec<(usize, &str)> = known.map(|k| (distance(name, k), k)).collect();
    if ranked.is_empty() {
        return "; there are none".into();
    }
    ranked.sort_by_key(|(d, _)| *d);
    let limit = name.len() / 3 + 1;
    let near: Vec<String> =
        ranked.iter().take_while(|(d, _)| *d <= limit).take(3).map(|(_, k)| format!("`{k}`")).collect();
    if near.is_empty() {
        let first: Vec<&str> = ranked.iter().take(20).map(|(_, k)| *k).collect();
        let more = if ranked.len() > first.len() { ", ..." } else { "" };
        return format!("; there are {}{more}", first.join(", "));
    }
    format!("; did you mean {}?", near.join(" or "))
}

/// Edits (insert, delete, replace; case is free) from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.to_lowercase().chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replace = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_nearest_or_all() {
        assert_eq!(hint("l_shipdat", ["l_shipdate", "l_tax"].into_iter()), "; did you mean `l_shipdate`?");
        assert_eq!(hint("zzz", ["l_shipdate", "l_tax"].into_iter()), "; there are l_tax, l_shipdate");
        assert_eq!(hint("a", std::iter::empty()), "; there are none");
    }
}
