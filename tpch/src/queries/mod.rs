//! The queries, one file each, with the parameters of the specification's validation run.
//!
//! A query is a function from a [`Stage`] to a table. Joins are ordered by hand: the filtered, smaller side is on the
//! right, where the hash table is built. A rewrite that orders joins by statistics comes later; then the order here
//! does not matter.

mod q01;
mod q02;
mod q03;
mod q04;
mod q05;
mod q06;
mod q07;
mod q08;
mod q09;
mod q10;
mod q11;
mod q12;
mod q13;
mod q14;
mod q15;
mod q16;
mod q17;
mod q18;
mod q19;
mod q20;
mod q21;
mod q22;

use crate::schema::{self, NATION, REGION};
use crate::{Error, Result};
use quearn_stage::graph::Graph;
use quearn_stage::rep::{Decimal, Rep, Row, Stage, Table};

/// A query written into a stage.
pub type Query = for<'s> fn(&'s Stage) -> Rep<'s, Table>;

/// All queries, with their numbers.
pub const QUERIES: &[(u32, Query)] = &[
    (1, q01::q01),
    (2, q02::q02),
    (3, q03::q03),
    (4, q04::q04),
    (5, q05::q05),
    (6, q06::q06),
    (7, q07::q07),
    (8, q08::q08),
    (9, q09::q09),
    (10, q10::q10),
    (11, q11::q11),
    (12, q12::q12),
    (13, q13::q13),
    (14, q14::q14),
    (15, q15::q15),
    (16, q16::q16),
    (17, q17::q17),
    (18, q18::q18),
    (19, q19::q19),
    (20, q20::q20),
    (21, q21::q21),
    (22, q22::q22),
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

/// The nations of a region.
#[track_caller]
fn nations_of<'s>(s: &'s Stage, region: &str) -> Rep<'s, Table> {
    let region = scan(s, REGION).filter(|r| r.str("r_name").eq(region));
    scan(s, NATION).join_semi(region, [("n_regionkey", "r_regionkey")])
}
