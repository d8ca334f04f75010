//! Programs that are compiled once for many literals.

use arrow::array::{Array, Date32Array, Decimal128Array, Int64Array, RecordBatch};
use quearn::data::Table;
use quearn::prelude::*;
use quearn_stage::graph::{Graph, Literal};
use std::sync::Arc;

const ROWS: i64 = 5000;

fn price(i: i64) -> i128 {
    i128::from((i * 37) % 10_000)
}

fn day(i: i64) -> i32 {
    9000 + (i % 700) as i32
}

fn table() -> Table {
    let id = Int64Array::from_iter_values(0..ROWS);
    let price = Decimal128Array::from_iter_values((0..ROWS).map(price)).with_precision_and_scale(15, 2).unwrap();
    let day = Date32Array::from_iter_values((0..ROWS).map(day));
    let batch = RecordBatch::try_from_iter([
        ("id", Arc::new(id) as Arc<dyn Array>),
        ("price", Arc::new(price)),
        ("day", Arc::new(day)),
    ]);
    Table::from_batches("t", &[batch.unwrap()]).unwrap()
}

fn sessions() -> Vec<Session> {
    let session = |backend, threads| {
        let mut session = Session::builder().backend(backend).threads(threads).build().unwrap();
        session.add_table(table());
        session
    };
    vec![session(BackendKind::Interp, 1), session(BackendKind::Auto, 2)]
}

fn fields() -> Vec<Field> {
    let price = Scalar::decimal(15, 2);
    vec![Field::new("id", Scalar::I64), Field::new("price", price), Field::new("day", Scalar::Date)]
}

/// Rows below a price, from a day on, with another id, and in one of the ways that no vector evaluates.
fn program(below: Literal, from: i32, not: i64) -> Graph {
    let s = Stage::new();
    let t = s.scan("t", fields());
    let rows = t.filter(|r| {
        let cheap = r.decimal("price").lt(s.constant(below).typed::<Decimal>());
        let late = r.date("day").ge(s.constant(Literal::date(from)).typed::<Date>());
        let twice = (r.i64("id") + r.i64("id")).ne(1);
        cheap & late & r.i64("id").ne(not) & twice
    });
    s.output("n", rows.aggregate(|_| [count("n")]));
    s.finish().unwrap()
}

fn expected(below: i128, from: i32, not: i64) -> i64 {
    (0..ROWS).filter(|&i| price(i) < below && day(i) >= from && i != not).count() as i64
}

fn number(outputs: &Outputs) -> i64 {
    let batch = outputs.table("n").unwrap();
    batch.column(0).as_any().downcast_ref::<Int64Array>().unwrap().value(0)
}

#[test]
fn other_literals_do_not_compile_again() {
    let literals = [
        (5000, 2, 9300, 17),
        (1, 2, 9699, 4999),
        // All rows, no row, and values that no row can have, on both sides.
        (10_000, 2, 9000, -1),
        (0, 2, 9000, 0),
        (-5, 2, 9100, 0),
        (1_000_000_000_000, 2, i32::MIN, i64::MIN),
        (9_999, 2, i32::MAX, i64::MAX),
    ];
    for session in sessions() {
        for (i, (below, scale, from, not)) in literals.into_iter().enumerate() {
            let below_literal = Literal::decimal(below, 15, scale).unwrap();
            let compiled = session.compile(&program(below_literal, from, not)).unwrap();
            assert_eq!(compiled.is_cached(), i > 0, "{below} {from} {not}");
            assert_eq!(number(&compiled.run(&session).unwrap()), expected(below, from, not), "{below} {from} {not}");
        }
    }
}

#[test]
fn a_literal_of_another_type_is_another_program() {
    for session in sessions() {
        let fine = Literal::decimal(1234, 15, 2).unwrap();
        let coarse = Literal::decimal(12, 15, 0).unwrap();
        let finer = Literal::decimal(12_345, 15, 3).unwrap();
        for (literal, below) in [(fine, 1234), (coarse, 1200), (finer, 1235)] {
            let compiled = session.compile(&program(literal, 9000, -1)).unwrap();
            assert!(!compiled.is_cached());
            assert_eq!(number(&compiled.run(&session).unwrap()), expected(below, 9000, -1));
        }
    }
}

#[test]
fn programs_keep_their_own_literals() {
    for session in sessions() {
        let literal = |x| Literal::decimal(x, 15, 2).unwrap();
        let first = session.compile(&program(literal(100), 9000, -1)).unwrap();
        let second = session.compile(&program(literal(7000), 9200, 3)).unwrap();
        assert!(second.is_cached());
        for _ in 0..2 {
            assert_eq!(number(&first.run(&session).unwrap()), expected(100, 9000, -1));
            assert_eq!(number(&second.run(&session).unwrap()), expected(7000, 9200, 3));
        }
    }
}

#[test]
fn changed_tables_are_compiled_for() {
    for mut session in sessions() {
        let graph = program(Literal::decimal(5000, 15, 2).unwrap(), 9000, -1);
        let compiled = session.compile(&graph).unwrap();
        assert_eq!(number(&compiled.run(&session).unwrap()), expected(5000, 9000, -1));
        // Values outside all ranges that the code was made for.
        let id = Int64Array::from(vec![i64::MAX / 2, -7]);
        let price = Decimal128Array::from(vec![-1, 99_999_999_999]).with_precision_and_scale(15, 2).unwrap();
        let columns: [(&str, Arc<dyn Array>); 3] =
            [("id", Arc::new(id)), ("price", Arc::new(price)), ("day", Arc::new(Date32Array::from(vec![20_000, -3])))];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        session.add_table(Table::from_batches("t", &[batch]).unwrap());
        assert_eq!(number(&compiled.run(&session).unwrap()), 1);
        let again = session.compile(&graph).unwrap();
        assert!(again.is_cached());
        assert_eq!(number(&again.run(&session).unwrap()), 1);
    }
}

#[test]
fn the_same_literal_twice_is_two_parameters() {
    let program = |a: i64, b: i64| {
        let s = Stage::new();
        let rows = s.scan("t", fields()).filter(|r| r.i64("id").ge(a) & r.i64("id").ne(b));
        s.output("n", rows.aggregate(|_| [count("n")]));
        s.finish().unwrap()
    };
    for session in sessions() {
        for (a, b) in [(10, 10), (10, 20), (20, 10)] {
            let out = session.run(&program(a, b)).unwrap();
            assert_eq!(number(&out), (a..ROWS).filter(|&i| i != b).count() as i64, "{a} {b}");
        }
    }
}
