//! LIKE over stored texts: every backend against the evaluator, for literals of all short lengths, texts shorter and longer than
//! one and two vectors, and an alphabet so small that nearly every position is a candidate.

mod session_harness;

use arrow::array::{ArrayRef, StringArray};
use quearn::testing::Rng;
use quearn_stage::rep::*;
use session_harness::evaluated;
use std::sync::Arc;

const LETTERS: [&str; 4] = ["a", "b", "c", "é"];

fn word(rng: &mut Rng, letters: usize) -> String {
    (0..letters).map(|_| LETTERS[rng.below(LETTERS.len())]).collect()
}

#[test]
fn patterns_on_every_backend() {
    let mut rng = Rng::new(17);
    let texts: Vec<String> = (0..600).map(|i| word(&mut rng, i % 190)).collect();
    let column: ArrayRef = Arc::new(StringArray::from(texts));
    let table = session_harness::table("texts", vec![("text", column)]);
    let mut patterns: Vec<String> = (1..12).map(|letters| format!("%{}%", word(&mut rng, letters))).collect();
    patterns.extend((1..8).map(|n| format!("%{}%{}%", word(&mut rng, n), word(&mut rng, 8 - n))));
    patterns.extend(["abc%", "%cba", "%", "a%b%c", "%a_c%b%", "%é_é%"].map(str::to_owned));
    for pattern in patterns {
        let s = Stage::new();
        let texts = s.scan(table.name(), table.fields());
        s.output("out", texts.filter(|r| r.str("text").like(pattern.as_str())));
        let graph = s.finish().unwrap();
        evaluated(&graph, std::slice::from_ref(&table)).unwrap_or_else(|e| panic!("{pattern} by {e}"));
    }
}
