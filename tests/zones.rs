//! Tiles that a filter skips: clustered tables under every comparison, against the naive evaluator.

use arrow::array::{Array, Date32Array, Decimal128Array, Int64Array, RecordBatch};
use quearn::data::{Column, LoadOptions, Table as Stored, ZONE_ROWS};
use quearn::eval::{EvalTable, EvalValue, Inputs, evaluate};
use quearn::io::{ReadOptions, read_parquet, write_parquet};
use quearn::prelude::*;
use quearn::testing::{Rng, same_tables};
use quearn_stage::graph::{CompareOp, Graph, Literal};
use std::sync::Arc;

const SIZE: i64 = ZONE_ROWS as i64;
/// The last block is a short one.
const ROWS: i64 = 11 * SIZE + 100;

fn day(i: i64) -> i32 {
    9000 + (i / 700) as i32
}

/// Sorted but for some rows that are NULL, all of the third block among them.
fn key(i: i64) -> Option<i64> {
    (i % 5 != 0 && i / SIZE != 2).then_some(i * 3 - 70_000)
}

/// Rows in an order: `n` counts them up, `day` and `key` grow, `price` falls, `noise` is spread all over.
fn batch(order: impl Fn(i64) -> i64, rows: i64) -> RecordBatch {
    let at = || (0..rows).map(&order);
    let price = Decimal128Array::from_iter_values(at().map(|i| i128::from(5_000_000 - i * 7)));
    RecordBatch::try_from_iter_with_nullable([
        ("n", Arc::new(Int64Array::from_iter_values(at())) as Arc<dyn Array>, false),
        ("day", Arc::new(Date32Array::from_iter_values(at().map(day))), false),
        ("key", Arc::new(Int64Array::from_iter(at().map(key))), true),
        ("price", Arc::new(price.with_precision_and_scale(10, 2).unwrap()), false),
        ("noise", Arc::new(Int64Array::from_iter_values(at().map(|i| i * 7919 % 10_007))), false),
    ])
    .unwrap()
}

fn table(order: impl Fn(i64) -> i64, rows: i64, options: &LoadOptions) -> Stored {
    Stored::from_batches_with("t", &[batch(order, rows)], options).unwrap()
}

fn clustered() -> Stored {
    table(|i| i, ROWS, &LoadOptions::COMPACT)
}

fn fields() -> Vec<Field> {
    vec![
        Field::new("n", Scalar::I64),
        Field::new("day", Scalar::Date),
        Field::nullable("key", Scalar::I64),
        Field::new("price", Scalar::decimal(10, 2)),
        Field::new("noise", Scalar::I64),
    ]
}

type Condition<'c> = dyn for<'s> Fn(&'s Stage, Row<'s>) -> Rep<'s, Bool> + 'c;

/// The number of rows that pass, and the sum of their numbers.
fn program(condition: &Condition<'_>) -> Graph {
    let s = Stage::new();
    let rows = s.scan("t", fields()).filter(|r| condition(&s, r));
    s.output("out", rows.aggregate(|r| [count("rows"), sum("sum", r.i64("n"))]));
    s.finish().unwrap()
}

fn sessions(table: &Stored) -> Vec<Session> {
    let session = |backend, threads| {
        let mut session = Session::builder().backend(backend).threads(threads).build().unwrap();
        session.add_table(table.clone());
        session
    };
    vec![session(BackendKind::Interp, 1), session(BackendKind::Auto, 1), session(BackendKind::Auto, 2)]
}

fn expected(graph: &Graph, table: &EvalTable) -> EvalTable {
    let inputs = Inputs::new().table("t", table.clone());
    let answers = evaluate(graph, &inputs).unwrap();
    let [(_, EvalValue::Table(answer))] = &answers[..] else { panic!("one table") };
    answer.as_ref().clone()
}

#[track_caller]
fn same(expected: &EvalTable, outputs: &Outputs, what: &str) {
    let batch = outputs.table("out").unwrap().clone();
    let got = EvalTable::from(&Stored::from_batches("out", &[batch]).unwrap());
    same_tables(expected, &got, false, 0.0).unwrap_or_else(|e| panic!("{what}: {e}"));
}

/// The zones that the plan shows.
fn shown(session: &Session, graph: &Graph) -> String {
    let plan = session.explain(graph, Level::Pipelines).unwrap();
    let line = plan.lines().find_map(|line| line.trim().strip_prefix("| zones "));
    line.unwrap_or_default().to_owned()
}

/// Runs on a clustered table; the plan shows these zones.
#[track_caller]
fn check(zones: &str, condition: &Condition<'_>) {
    let (table, graph) = (clustered(), program(condition));
    let expected = expected(&graph, &EvalTable::from(&table));
    for session in sessions(&table) {
        assert_eq!(shown(&session, &graph), zones, "{graph}");
        same(&expected, &session.run(&graph).unwrap(), &graph.to_string());
    }
}

#[test]
fn every_type_and_combination() {
    check("day", &|s, r| r.date("day").ge(s.constant(Literal::date(9210)).typed::<Date>()));
    check("key", &|_, r| r.i64("key").gt(200_000));
    check("key", &|_, r| r.i64("key").eq(200_003));
    check("price", &|_, r| r.decimal("price").lt(40_000));
    check("n, price", &|_, r| r.i64("n").between(SIZE - 1, SIZE) & r.decimal("price").ne(49_999));
    // Either side of an OR must be known; one side of an AND is enough.
    check("n, key", &|_, r| r.i64("n").lt(50) | r.i64("key").gt(490_000));
    check("n", &|_, r| r.i64("n").lt(50) & (r.i64("key").gt(490_000) | r.i64("noise").eq(3)));
    check("", &|_, r| r.i64("n").lt(50) | r.i64("noise").eq(3));
    check("", &|_, r| r.i64("noise").lt(5));
    check("n", &|_, r| r.i64("n").is_in([5, SIZE, 3 * SIZE + 1]));
    // Rows are tested one by one.
    check("n", &|_, r| r.i64("n").lt(SIZE + 5) & (r.i64("n") % 3).eq(1));
}

/// A predicate that can fail sees every row.
#[test]
fn failures_are_not_skipped() {
    let graph = program(&|_, r| (r.i64("n") / (r.i64("n") - (ROWS - 1))).ne(1) & r.i64("n").lt(50));
    for session in sessions(&clustered()) {
        assert_eq!(shown(&session, &graph), "");
        assert!(matches!(session.run(&graph), Err(Error::Failed { .. })));
    }
    // It cannot, for the values that there are.
    check("n", &|_, r| {
        (r.i64("n") / (r.i64("n") + 1)).eq(0) & (r.i64("n") * 2 + r.i64("noise")).lt(500) & r.i64("n").lt(50)
    });
}

fn compared<'s>(op: CompareOp, a: Rep<'s, Dyn>, b: Rep<'s, Dyn>) -> Rep<'s, Bool> {
    let result = match op {
        CompareOp::Eq => a.eq(b),
        CompareOp::Ne => a.ne(b),
        CompareOp::Lt => a.lt(b),
        CompareOp::Le => a.le(b),
        CompareOp::Gt => a.gt(b),
        CompareOp::Ge => a.ge(b),
    };
    result.typed()
}

fn compare(op: CompareOp, literal: i64, literal_first: bool) -> Graph {
    program(&|s, r| {
        let (n, literal) = (r.i64("n").dyn_(), s.constant(literal).dyn_());
        if literal_first { compared(op, literal, n) } else { compared(op, n, literal) }
    })
}

/// One program for all literals: those at the ends of blocks and of the table, and far outside of it.
#[test]
fn every_comparison_at_the_ends_of_blocks() {
    let literals = [i64::MIN, -1, 0, 1, SIZE - 1, SIZE, SIZE + 1, 11 * SIZE, ROWS - 1, ROWS, i64::MAX];
    for session in sessions(&clustered()) {
        for &op in CompareOp::ALL {
            for (i, &literal) in literals.iter().enumerate() {
                for literal_first in [false, true] {
                    let graph = compare(op, literal, literal_first);
                    let program = session.compile(&graph).unwrap();
                    assert!(i == 0 || program.is_cached());
                    let passes = |n: i64| match if literal_first { op.flipped() } else { op } {
                        CompareOp::Eq => n == literal,
                        CompareOp::Ne => n != literal,
                        CompareOp::Lt => n < literal,
                        CompareOp::Le => n <= literal,
                        CompareOp::Gt => n > literal,
                        CompareOp::Ge => n >= literal,
                    };
                    let outputs = program.run(&session).unwrap();
                    let rows = outputs.table("out").unwrap().column(0).as_any().downcast_ref::<Int64Array>().unwrap();
                    let expected = (0..ROWS).filter(|&n| passes(n)).count() as i64;
                    assert_eq!(rows.value(0), expected, "{op:?} {literal} {literal_first}");
                }
            }
        }
    }
}

#[test]
fn random_predicates() {
    let table = clustered();
    let rows = EvalTable::from(&table);
    let sessions = sessions(&table);
    let mut rng = Rng::new(7);
    let mut skipping = 0;
    for _ in 0..25 {
        let literals: Vec<i64> = (0..4).map(|_| rng.below(ROWS as usize) as i64).collect();
        let (ops, shape) = ([0; 4].map(|_| *rng.pick(CompareOp::ALL)), rng.below(4));
        let graph = program(&|s, r| {
            let compared =
                |at: usize, column: &str, literal: Literal| compared(ops[at], r.col(column), s.constant(literal));
            let n = compared(0, "n", Literal::int(Scalar::I64, literals[0].into()).unwrap());
            let key = compared(1, "key", Literal::int(Scalar::I64, (literals[1] * 3 - 70_000).into()).unwrap());
            let price = Literal::decimal(i128::from(5_000_000 - literals[2] * 7), 10, 2).unwrap();
            let price = compared(2, "price", price);
            let day = compared(3, "day", Literal::date(day(literals[3])));
            match shape {
                0 => n & key & price & day,
                1 => (n | key) & (price | day),
                2 => n & (key | price | day),
                _ => !(n & key) & (price | day),
            }
        });
        let expected = expected(&graph, &rows);
        for session in &sessions {
            skipping += usize::from(!shown(session, &graph).is_empty());
            same(&expected, &session.run(&graph).unwrap(), &graph.to_string());
        }
    }
    assert!(skipping >= 60, "{skipping}");
}

/// With the zones of another table whole tiles are left out: it is they that decide, not the values.
#[test]
fn zones_decide_what_is_read() {
    let swapped = |column: &Column, other: &Column| Column { zones: other.zones.clone(), ..column.clone() };
    let (ahead, table) = (table(|i| (i + 6 * SIZE) % ROWS, ROWS, &LoadOptions::COMPACT), clustered());
    let columns = table.columns().iter().zip(ahead.columns()).map(|(c, other)| swapped(c, other));
    let lying = Stored::new("t", columns.collect()).unwrap();
    let graph = compare(CompareOp::Lt, SIZE, false);
    for session in sessions(&lying) {
        let outputs = session.run(&graph).unwrap();
        let rows = outputs.table("out").unwrap().column(0).as_any().downcast_ref::<Int64Array>().unwrap();
        assert_eq!(rows.value(0), 0);
    }
}

type Above = dyn for<'s> Fn(Rep<'s, Table>) -> Rep<'s, Table>;

/// Into groups by vectors, groups in order, joins, and rows as they are.
#[test]
fn whatever_lies_above() {
    let table = clustered();
    let rows = EvalTable::from(&table);
    let programs: [&Above; 4] = [
        &|t| t.group_by(["day"]).agg(|r| [count("n"), sum("s", r.i64("noise"))]),
        &|t| t.with("k", |r| r.i64("noise") % 4).group_by(["k"]).agg(|_| [count("n")]),
        &|t| t.select(["n", "price"]),
        &|t| t.join_semi(t.filter(|r| r.i64("noise").lt(900)), [("key", "n")]).select(["n"]),
    ];
    for program in programs {
        let s = Stage::new();
        let some = s.scan("t", fields()).filter(|r| r.i64("n").between(2 * SIZE - 9, 2 * SIZE + 2000));
        s.output("out", program(some));
        let graph = s.finish().unwrap();
        let expected = expected(&graph, &rows);
        for session in sessions(&table) {
            let plan = session.explain(&graph, Level::Pipelines).unwrap();
            assert!(plan.contains("zones n"), "{plan}");
            same(&expected, &session.run(&graph).unwrap(), &plan);
        }
    }
}

#[test]
fn programs_outlive_their_tables() {
    let graph = program(&|_, r| r.i64("n").between(3 * SIZE, 3 * SIZE + 40) & r.i64("key").gt(0));
    let tables = [
        clustered(),
        table(|i| i * 7919 % ROWS, ROWS, &LoadOptions::COMPACT),
        table(|i| ROWS - 1 - i, ROWS, &LoadOptions::SHARE),
        table(|i| i, 3 * SIZE + 20, &LoadOptions::COMPACT),
        table(|i| i, 0, &LoadOptions::COMPACT),
    ];
    for mut session in sessions(&tables[0]) {
        let program = session.compile(&graph).unwrap();
        for table in tables.iter().chain([&tables[0]]) {
            session.add_table(table.clone());
            let expected = expected(&graph, &EvalTable::from(table));
            same(&expected, &program.run(&session).unwrap(), &format!("{} rows", table.rows()));
        }
    }
}

#[test]
fn files_and_batches_have_the_same_zones() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.parquet");
    write_parquet(&path, &[batch(|i| i, ROWS)]).unwrap();
    let read = read_parquet(&path, &ReadOptions::default()).unwrap();
    let shared = table(|i| i, ROWS, &LoadOptions::SHARE);
    for (a, b) in read.columns().iter().zip(shared.columns()) {
        // Decimals as Arrow has them take 128 bits, unless they are stored compactly.
        assert!(a.zones.is_some() && (b.zones.is_none() == (a.name == "price")), "{}", a.name);
        assert!(b.zones.is_none() || a.zones == b.zones, "{}", a.name);
    }
}
