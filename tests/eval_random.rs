//! Random programs are well-typed, run on the naive evaluator, and are seldom trivial.

use quearn::eval::{Errors, EvalError, EvalValue, evaluate, evaluate_with};
use quearn::testing::{Case, same_tables, same_tensors};
use quearn_stage::graph::{parse, verify};

fn value_or_failure(case: &Case, errors: Errors) -> Result<Vec<(String, EvalValue)>, EvalError> {
    let result = evaluate_with(&case.graph, &case.inputs, errors);
    if let Err(error) = &result {
        assert!(error.kind().is_some(), "{error}\n{case}");
    }
    result
}

fn same(a: &EvalValue, b: &EvalValue) -> Result<(), String> {
    match (a, b) {
        (EvalValue::Table(a), EvalValue::Table(b)) => same_tables(a, b, true, 0.0),
        (EvalValue::Tensor(a), EvalValue::Tensor(b)) => same_tensors(a, b, 0.0),
        _ => Err("a table and a tensor".into()),
    }
}

#[test]
fn cases_run() {
    let (mut failed, mut empty) = (0, 0);
    let count = 600;
    for seed in 0..count {
        let case = Case::random(seed, 1 + seed as usize % 8);
        verify(&case.graph).unwrap_or_else(|e| panic!("{e}\n{case}"));
        match value_or_failure(&case, Errors::All) {
            Ok(outputs) => {
                empty += u32::from(matches!(&outputs[0].1, EvalValue::Table(t) if t.rows() == 0));
                let needed = value_or_failure(&case, Errors::Needed).unwrap_or_else(|e| panic!("{e}\n{case}"));
                let all_same = outputs.iter().zip(&needed).try_for_each(|(a, b)| same(&a.1, &b.1));
                all_same.unwrap_or_else(|e| panic!("{e}\n{case}"));
            }
            Err(_) => failed += 1,
        }
    }
    println!("{count} cases: {failed} failed, {empty} empty");
    assert!(failed > 0 && failed < count / 5, "{failed} of {count} cases fail");
    assert!(u64::from(empty) < count / 2, "{empty} of {count} cases have no rows");
}

#[test]
fn cases_repeat_and_survive_the_text_form() {
    for seed in 0..60 {
        let case = Case::random(seed, 4);
        assert_eq!(case.to_string(), Case::random(seed, 4).to_string());
        let text = case.graph.to_string();
        let reread = parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        assert_eq!(reread.to_string(), text);
        let (a, b) = (evaluate(&case.graph, &case.inputs), evaluate(&reread, &case.inputs));
        if let (Ok(a), Ok(b)) = (&a, &b) {
            a.iter().zip(b).try_for_each(|(a, b)| same(&a.1, &b.1)).unwrap_or_else(|e| panic!("{e}\n{case}"));
        }
        assert_eq!(a.is_ok(), b.is_ok(), "{case}");
    }
}

#[test]
fn answers_survive_arrow() {
    for seed in 0..60 {
        let case = Case::query(seed, 4);
        let Ok(outputs) = evaluate(&case.graph, &case.inputs) else { continue };
        let EvalValue::Table(table) = &outputs[0].1 else { continue };
        let batch = table.to_batch().unwrap_or_else(|e| panic!("{e}\n{case}"));
        quearn::testing::same_rows(&batch, &batch, case.ordered[0], 0.0).unwrap_or_else(|e| panic!("{e}\n{case}"));
    }
}
