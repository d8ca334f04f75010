//! Operators on texts. Programs have no tensors of texts, so all of them are computed at import.

use crate::emit::Fallible;
use crate::fold::zip;
use crate::tensor::{Number, Texts};
use crate::value::{Call, Known};
use quearn_stage::graph::Scalar;
use std::collections::BTreeSet;

/// Computes the results of one operator.
type Compute = fn(&Call) -> Fallible<Vec<Known>>;

/// The operators.
pub const ROWS: &[(&str, Compute)] =
    &[("StringConcat", concat), ("StringNormalizer", normalize), ("StringSplit", split)];

/// An input, and what its values were given for.
fn texts(call: &Call, input: usize) -> Fallible<(Texts, BTreeSet<String>)> {
    let known = call.known(input)?;
    let items = known.items.iter().map(Number::text).collect::<Option<Vec<_>>>();
    let items = items.ok_or_else(|| format!("input {input} must be texts"))?;
    Ok((Texts { shape: known.shape, items }, known.given))
}

fn concat(call: &Call) -> Fallible<Vec<Known>> {
    let (a, b) = (call.known(0)?, call.known(1)?);
    let joined = |n: &[&Number]| Some(Number::Text(n[0].text()? + &n[1].text()?));
    let (shape, items) = zip(&[&a, &b], joined).ok_or("its inputs must be texts of shapes that go together")?;
    let given = a.given.union(&b.given).cloned().collect();
    Ok(vec![Known { given, ..Known::new(Scalar::String, shape, items) }])
}

/// Words without those that are not wanted, all in one case.
fn normalize(call: &Call) -> Fallible<Vec<Known>> {
    let (Texts { mut shape, items }, given) = texts(call, 0)?;
    let exact = call.int("is_case_sensitive", 0) != 0;
    let key = |word: &str| if exact { word.to_owned() } else { word.to_lowercase() };
    let unwanted: BTreeSet<String> = call.texts("stopwords").unwrap_or_default().iter().map(|w| key(w)).collect();
    let case = call.text("case_change_action", "NONE");
    let changed = |word: String| match case.as_str() {
        "LOWER" => Ok(word.to_lowercase()),
        "UPPER" => Ok(word.to_uppercase()),
        "NONE" => Ok(word),
        other => Err(format!("the change of case {other:?} is not supported")),
    };
    let kept = items.into_iter().filter(|word| !unwanted.contains(&key(word)));
    let mut items = kept.map(changed).collect::<Fallible<Vec<String>>>()?;
    if items.is_empty() {
        items.push(String::new());
    }
    match &mut shape[..] {
        [count] | [1, count] => *count = items.len() as u64,
        _ => return Err(format!("its input must have the shape [n] or [1, n], found {shape:?}")),
    }
    Ok(vec![Known { given, ..Known::of_texts(Texts { shape, items }) }])
}

/// The parts of each text, filled up with empty ones to the largest number of parts, and how many there are.
fn split(call: &Call) -> Fallible<Vec<Known>> {
    let (Texts { shape, items }, given) = texts(call, 0)?;
    let (mark, most) = (call.text("delimiter", ""), call.has_attribute("maxsplit").then(|| call.int("maxsplit", 0)));
    let most = most.map_or(usize::MAX, |n| usize::try_from(n).map_or(usize::MAX, |n| n.saturating_add(1)));
    let parts: Vec<Vec<String>> = items.iter().map(|text| parts(text, &mark, most)).collect();
    let width = parts.iter().map(Vec::len).max().unwrap_or(0);
    let counts = parts.iter().map(|parts| Number::Int(parts.len() as i64)).collect();
    let filled = parts.into_iter().flat_map(|mut parts| {
        parts.resize(width, String::new());
        parts
    });
    let wide = [&shape[..], &[width as u64]].concat();
    let made = Known::of_texts(Texts { shape: wide, items: filled.collect() });
    Ok(vec![Known { given: given.clone(), ..made }, Known { given, ..Known::new(Scalar::I64, shape, counts) }])
}

/// At most `most` parts; without a mark a text is split where there is space, and the space around it goes.
fn parts(text: &str, mark: &str, most: usize) -> Vec<String> {
    if text.is_empty() {
        return vec![];
    }
    if !mark.is_empty() {
        return text.splitn(most, mark).map(str::to_owned).collect();
    }
    let mut parts = vec![];
    let mut rest = text.trim();
    while !rest.is_empty() {
        let end = if parts.len() + 1 < most { rest.find(char::is_whitespace) } else { None };
        let (part, behind) = rest.split_at(end.unwrap_or(rest.len()));
        parts.push(part.to_owned());
        rest = behind.trim_start();
    }
    parts
}
