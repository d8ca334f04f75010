//! Other data for the same program: what a compiled program relied on may no longer hold.

use quearn::eval::{Datum, EvalTable, EvalTensor, Inputs};
use quearn::testing::Rng;
use quearn_stage::graph::{Elem, Scalar, literal::int_range};

/// Tables of the same columns: rows left out, repeated and in another order, other numbers and texts, more NULLs.
pub fn varied(inputs: &Inputs, seed: u64) -> Inputs {
    let mut rng = Rng::new(seed);
    let mut names: Vec<&String> = inputs.tables.keys().collect();
    names.sort();
    let mut other = Inputs::new();
    for name in names {
        other = other.table(name.clone(), table(&inputs.tables[name], &mut rng));
    }
    inputs.tensors.iter().for_each(|(name, tensor)| {
        other.tensors.insert(name.clone(), tensor.clone());
    });
    other
}

fn table(table: &EvalTable, rng: &mut Rng) -> EvalTable {
    let rows = if table.rows() == 0 { 0 } else { rng.below(2 * table.rows() + 1) };
    let picked: Vec<usize> = (0..rows).map(|_| rng.below(table.rows())).collect();
    let in_order = rng.percent(30);
    let columns = table.columns().iter().map(|old| {
        let (step, nulls) = (rng.within(0, 3), old.elem().nullable && rng.percent(50));
        let data = picked.iter().enumerate().map(|(i, &row)| match () {
            () if nulls && rng.percent(20) => Datum::Null,
            () => datum(&old.get(if in_order { i % table.rows() } else { row }), old.elem(), step),
        });
        EvalTensor::new(old.elem(), &[rows], data.collect::<Vec<_>>())
    });
    EvalTable::new(table.fields().to_vec(), columns.collect(), rows)
}

/// Something else, if `step` is not 0 and the type holds it.
fn datum(old: &Datum, elem: Elem, step: i64) -> Datum {
    match old {
        Datum::Int(x) => {
            let other = x * (1 + i128::from(step)) - 5 * i128::from(step);
            let fits = match elem.scalar {
                Scalar::Decimal { precision, .. } => other.abs() < 10i128.pow(precision.into()),
                scalar => int_range(scalar).is_none_or(|(low, high)| (low..=high).contains(&other)),
            };
            // Dates and timestamps end where the calendar does.
            let calendar = matches!(elem.scalar, Scalar::Date | Scalar::Timestamp) && x.abs() > i128::from(u32::MAX);
            Datum::Int(if fits && !calendar { other } else { *x })
        }
        Datum::Str(text) if step > 1 => Datum::str(format!("{text}{step}")),
        other => other.clone(),
    }
}
