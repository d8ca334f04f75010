//! Columns of features, as models want them.

use quearn_stage::rep::{F64, Rep, Row, Table, avg};

/// The table with these columns moved and scaled, as f64, to mean 0 and deviation 1 over all rows.
pub(super) fn standardised<'s>(table: Rep<'s, Table>, names: &[&str]) -> Rep<'s, Table> {
    let moments = table.aggregate(|r| {
        names.iter().flat_map(move |name| [avg(mean(name), of(r, name)), avg(square(name), of(r, name) * of(r, name))])
    });
    names.iter().fold(table, |scaled, name| {
        let [mean, square] = [mean(name), square(name)].map(|name| moments.single::<F64>(&name).coalesce(0.0));
        let deviation = (square - mean * mean).sqrt();
        scaled.with(name, |r| (of(r, name) - mean) / deviation)
    })
}

fn of<'s>(row: Row<'s>, name: &str) -> Rep<'s, F64> {
    row.col(name).cast::<F64>().typed()
}

fn mean(name: &str) -> String {
    format!("{name}_mean")
}

fn square(name: &str) -> String {
    format!("{name}_square")
}
