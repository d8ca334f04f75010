//! Is the result of a run one that the evaluator allows?

use super::{Verdict, kinds};
use quearn::data::Table;
use quearn::eval::{Errors, EvalError, EvalTable, EvalTensor, EvalValue, evaluate_with};
use quearn::prelude::*;
use quearn::rewrite::{RewriteOptions, rewrite};
use quearn::testing::{Case, same_tables, same_tensors};
use std::result::Result;

/// Floats may be summed in another order, `exp` and the like differ in their last places, and what cancels magnifies that.
const FLOAT_TOLERANCE: f64 = 1e-3;

type Answer = Result<Vec<(String, EvalValue)>, EvalError>;

/// What the evaluator says.
pub struct Oracle {
    all: Answer,
    needed: Answer,
}

impl Oracle {
    /// Evaluates the original graph.
    pub fn of(case: &Case) -> Oracle {
        let run = |errors| evaluate_with(&case.graph, &case.inputs, errors);
        Oracle { all: run(Errors::All), needed: run(Errors::Needed) }
    }
}

/// Fails where the evaluator must not, or the other way round, or another answer: an error that says so.
pub fn judge(
    case: &Case,
    oracle: &Oracle,
    rewrites: &RewriteOptions,
    got: Result<Outputs, Error>,
) -> Result<Verdict, String> {
    match (got, &oracle.needed) {
        (Ok(outputs), Ok(expected)) => same(case, expected, &outputs).map(|()| Verdict::Answer),
        (Ok(_), Err(_)) if loses_failures(case, rewrites) => Ok(Verdict::Answer),
        (Ok(_), Err(error)) => Err(format!("the failure \"{error}\" is lost")),
        (Err(Error::Failed { kind, message }), _) if oracle.all.is_ok() => {
            Err(format!("a failure that the evaluator does not have: {}: {message}", kind.name()))
        }
        (Err(Error::Failed { kind, .. }), _) if kinds::is_possible(&case.graph, kind) => Ok(Verdict::Failure),
        (Err(Error::Failed { kind, message }), _) => Err(format!("no operator can fail by {}: {message}", kind.name())),
        (Err(error), _) => Err(format!("an error of another kind: {error}")),
    }
}

/// Rows that a filter drops are not shown to a model, which may have failed on them.
fn loses_failures(case: &Case, rewrites: &RewriteOptions) -> bool {
    let report = rewrite(&case.graph, rewrites).map(|(_, report)| report);
    report.is_ok_and(|report| report.iter().any(|(rule, _)| rule == "filter_before_model"))
}

fn same(case: &Case, expected: &[(String, EvalValue)], got: &Outputs) -> Result<(), String> {
    for ((name, value), &ordered) in expected.iter().zip(&case.ordered) {
        let difference = match value {
            EvalValue::Table(table) => same_tables(table, &answer(got, name)?, ordered, FLOAT_TOLERANCE),
            EvalValue::Tensor(tensor) if got.tensor(name).is_err() => same_scalar(tensor, &answer(got, name)?),
            EvalValue::Tensor(tensor) => {
                same_tensors(tensor, &EvalTensor::from(got.tensor(name).expect("checked")), FLOAT_TOLERANCE)
            }
            EvalValue::Tuple(_) => Err("a tuple as a result".to_owned()),
        };
        difference.map_err(|difference| format!("output {name:?}: expected and found {difference}"))?;
    }
    Ok(())
}

fn answer(got: &Outputs, name: &str) -> Result<EvalTable, String> {
    let batch = got.table(name).map_err(|e| e.to_string())?;
    let table = Table::from_batches(name, std::slice::from_ref(batch)).map_err(|e| e.to_string())?;
    Ok(EvalTable::from(&table))
}

/// A scalar over tables comes as a table of one row and column.
fn same_scalar(expected: &EvalTensor, got: &EvalTable) -> Result<(), String> {
    let [column] = got.columns() else { return Err(format!("one column and {} columns", got.columns().len())) };
    let single = EvalTensor::new(column.elem(), &[], (0..column.len()).map(|i| column.get(i)));
    same_tensors(expected, &single, FLOAT_TOLERANCE)
}
