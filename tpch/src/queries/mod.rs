//! The queries, one file each, with the parameters of the specification's validation run.
//!
//! A query is a function from a [`Stage`] to a table. Joins are ordered by hand: the filtered, smaller side is on the
//! right, where the hash table is built. A rewrite that orders joins by statistics comes later; then the order here
//! does not matter.

mod q01;
mod q03;
mod q04;
mod q06;
mod q09;
mod q12;
mod q13;
mod q14;
mod q18;
mod q19;

use crate::schema;
use crate::{Error, Result};
use quearn_stage::graph::Graph;
use quearn_stage::rep::{Decimal, Rep, Row, Stage, Table};

/// A query written into a stage.
pub type Query = for<'s> fn(&'s Stage) -> Rep<'s, Table>;

/// All queries, with their numbers.
pub const QUERIES: &[(u32, Query)] = &[
    (1, q01::q01),
    (3, q03::q03),
    (4, q04::q04),
    (6, q06::q06),
    (9, q09::q09),
    (12, q12::q12),
    (13, q13::q13),
    (14, q14::q14),
    (18, q18::q18),
    (19, q19::q19),
];

/// Name of the result in the program that [`graph`] gives.
pub const RESULT: &str = "result";

/// The numbers of the queries that there are.
pub fn numbers() -> Vec<u32> {
    QUERIES.iter().map(|(number, _)| *number).collect()
}

/// A query as a program with one result, [`RESULT`].
pub fn graph(query: u32) -> Result<Graph> {
    let found = QUERIES.iter().find(|(number, _)| *number == query);
    let (_, write) = found.ok_or_else(|| Error::UnknownQuery { query, known: numbers() })?;
    let s = Stage::new();
    s.output(RESULT, write(&s));
    Ok(s.finish().map_err(quearn::Error::from)?)
}

/// A table with all of its columns; a compiled query reads only those that it uses.
#[track_caller]
fn scan<'s>(s: &'s Stage, table: &str) -> Rep<'s, Table> {
    s.scan(table, schema::fields(table))
}

/// What a line item brings in after its discount.
#[track_caller]
fn revenue(line: Row<'_>) -> Rep<'_, Decimal> {
    line.decimal("l_extendedprice") * (1 - line.decimal("l_discount"))
}
