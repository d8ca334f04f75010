//! LIKE over stored texts: every backend against the evaluator, for literals of all short lengths, texts shorter and longer than
//! one and two vectors, and an alphabet so small that nearly every position is a candidate.

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use quearn::data::Table as Stored;
use quearn::eval::{EvalTable, EvalValue, Inputs, evaluate};
use quearn::prelude::{BackendKind, Session};
use quearn::testing::{Rng, same_tables};
use quearn_stage::rep::*;
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
    let batch = RecordBatch::try_from_iter_with_nullable([("text", column, false)]).unwrap();
    let table = Stored::from_batches("texts", &[batch]).unwrap();
    let mut patterns: Vec<String> = (1..12).map(|letters| format!("%{}%", word(&mut rng, letters))).collect();
    patterns.extend((1..8).map(|n| format!("%{}%{}%", word(&mut rng, n), word(&mut rng, 8 - n))));
    patterns.extend(["abc%", "%cba", "%", "a%b%c", "%a_c%b%", "%é_é%"].map(str::to_owned));
    for pattern in patterns {
        let s = Stage::new();
        let texts = s.scan(table.name(), table.fields());
        s.output("out", texts.filter(|r| r.str("text").like(pattern.as_str())));
        let graph = s.finish().unwrap();
        let expected = evaluate(&graph, &Inputs::new().table(table.name(), EvalTable::from(&table))).unwrap();
        let EvalValue::Table(expected) = &expected[0].1 else { panic!("expected a table") };
        for kind in [BackendKind::Interp, BackendKind::Auto] {
            let mut session = Session::builder().backend(kind).threads(2).build().unwrap();
            session.add_table(table.clone());
            let outputs = session.run(&graph).unwrap();
            let found = Stored::from_batches("out", std::slice::from_ref(outputs.table("out").unwrap())).unwrap();
            same_tables(expected, &EvalTable::from(&found), false, 0.0)
                .unwrap_or_else(|e| panic!("{pattern} by {kind:?}: {e}"));
        }
    }
}
