//! Joins and groups by every structure that statistics can choose, against the naive evaluator.

use arrow::array::{Array, DictionaryArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Int8Type;
use quearn::data::Table;
use quearn::eval::{EvalTable, EvalValue, Inputs, evaluate};
use quearn::prelude::*;
use quearn::testing::same_tables;
use std::sync::Arc;

const FACTS: i64 = 6000;
const DIMS: i64 = 5000;
const MANY: i64 = 150_000;

fn table(name: &str, columns: Vec<(&str, Arc<dyn Array>)>) -> Table {
    Table::from_batches(name, &[RecordBatch::try_from_iter(columns).unwrap()]).unwrap()
}

fn ints(values: impl Iterator<Item = i64>) -> Arc<dyn Array> {
    Arc::new(Int64Array::from_iter_values(values))
}

fn some_ints(values: impl Iterator<Item = Option<i64>>) -> Arc<dyn Array> {
    Arc::new(Int64Array::from_iter(values))
}

/// A number that looks random.
fn noise(i: i64) -> i64 {
    (i * 7919 + 13) % 104_729
}

fn tables() -> Vec<Table> {
    let code: DictionaryArray<Int8Type> =
        (0..FACTS).map(|i| ["red", "green", "blue"][(noise(i) % 3) as usize]).collect();
    let facts = vec![
        ("f_id", ints(0..FACTS)),
        // Sorted, with gaps, several rows each.
        ("f_order", ints((0..FACTS).map(|i| i / 4 * 3 + 7))),
        // Some have no partner.
        ("f_dim", ints((0..FACTS).map(|i| noise(i) % (DIMS + 20) - 5))),
        ("f_far", some_ints((0..FACTS).map(|i| (i % 11 != 0).then(|| noise(i) % 900 * 300)))),
        ("f_amount", ints((0..FACTS).map(|i| noise(i * 3) % 1000 - 300))),
        ("f_code", Arc::new(code) as _),
    ];
    // The key counts the rows up.
    let dims = vec![("d_key", ints(5..DIMS + 5)), ("d_size", ints((0..DIMS).map(|i| noise(i) % 50)))];
    // Few keys far apart: once each, and three times each with some that are NULL.
    let once =
        vec![("o_key", ints((0..500).map(|i| noise(i) % 1000 * 300 + i % 2))), ("o_x", ints((0..500).map(noise)))];
    let thrice = vec![
        ("t_key", some_ints((0..1500).map(|i| (i % 17 != 0).then(|| noise(i / 3) % 900 * 300)))),
        ("t_tag", ints((0..1500).map(|i| i % 3))),
        ("t_x", ints((0..1500).map(|i| noise(i) % 777))),
    ];
    // Two rows of most keys, far from one another, and many of one.
    let far = |i: i64| if i % 5 == 0 { 77 } else { noise(i % (MANY / 2)) };
    let many = vec![
        ("m_far", ints((0..MANY).map(|i| far(i) << 33))),
        ("m_some", some_ints((0..MANY).map(|i| (i % 13 != 0).then(|| far(i))))),
        ("m_text", Arc::new(StringArray::from_iter_values((0..MANY).map(|i| format!("text {}", far(i))))) as _),
        ("m_x", ints((0..MANY).map(noise))),
    ];
    vec![table("facts", facts), table("dims", dims), table("once", once), table("thrice", thrice), table("many", many)]
}

fn fields(table: &str) -> Vec<Field> {
    let name = |name: &str| Field::new(name, Scalar::I64);
    let null = |name: &str| Field::nullable(name, Scalar::I64);
    match table {
        "facts" => {
            let ints = ["f_id", "f_order", "f_dim"].map(name).into_iter();
            ints.chain([null("f_far"), name("f_amount"), Field::new("f_code", Scalar::String)]).collect()
        }
        "dims" => ["d_key", "d_size"].map(name).to_vec(),
        "once" => ["o_key", "o_x"].map(name).to_vec(),
        "many" => vec![name("m_far"), null("m_some"), Field::new("m_text", Scalar::String), name("m_x")],
        _ => vec![null("t_key"), name("t_tag"), name("t_x")],
    }
}

fn scan<'s>(s: &'s Stage, table: &str) -> Rep<'s, quearn_stage::rep::Table> {
    s.scan(table, fields(table))
}

/// Runs a program on both backends with one and two threads. Its pipelines show all `words`.
#[track_caller]
fn check(words: &[&str], program: impl for<'s> Fn(&'s Stage) -> Rep<'s, quearn_stage::rep::Table>) {
    check_rows(false, words, program);
}

/// As [`check`]; do the rows have to come in the same order?
#[track_caller]
fn check_rows(ordered: bool, words: &[&str], program: impl for<'s> Fn(&'s Stage) -> Rep<'s, quearn_stage::rep::Table>) {
    let s = Stage::new();
    s.output("out", program(&s));
    let graph = s.finish().unwrap();
    let tables = tables();
    let mut inputs = Inputs::default();
    for table in &tables {
        inputs.tables.insert(table.name().to_owned(), EvalTable::from(table));
    }
    let expected = evaluate(&graph, &inputs).unwrap();
    let [(_, EvalValue::Table(expected))] = &expected[..] else { panic!("one table") };
    for (backend, threads) in [(BackendKind::Interp, 1), (BackendKind::Auto, 1), (BackendKind::Auto, 2)] {
        let mut session = Session::builder().backend(backend).threads(threads).build().unwrap();
        tables.iter().for_each(|t| session.add_table(t.clone()));
        let plan = session.explain(&graph, Level::Pipelines).unwrap();
        for word in words {
            assert!(plan.contains(word), "no \"{word}\" in\n{plan}");
        }
        let outputs = session.run(&graph).unwrap();
        let batch = outputs.table("out").unwrap().clone();
        let got = EvalTable::from(&Table::from_batches("out", &[batch]).unwrap());
        assert!(got.rows() > 0, "a test of nothing");
        same_tables(expected, &got, ordered, 0.0)
            .unwrap_or_else(|e| panic!("{backend:?}, {threads} threads: {e}\n{plan}"));
    }
}

/// One pipeline for three groupings of the same pairs, one of them of some pairs only.
#[test]
fn groupings_of_the_same_rows() {
    check(&["aggregates", "bytes a worker; "], |s| {
        let joined = scan(s, "facts").join_inner(scan(s, "dims"), [("f_dim", "d_key")]);
        let all = joined.group_by(["f_code"]).agg(|r| [count("n"), sum("size", r.i64("d_size"))]);
        let some = joined.filter(|r| r.i64("f_amount").gt(500) & r.i64("d_size").lt(40));
        let some = some.group_by(["f_code"]).agg(|r| [sum("amount", r.i64("f_amount"))]);
        let pairs = joined.group_by(["f_code", "d_size"]).agg(|r| [count("of_size"), sum("ids", r.i64("f_id"))]);
        pairs.join_inner(all, [("f_code", "f_code")]).join_inner(some, [("f_code", "f_code")])
    });
    check(&["aggregates"], |s| {
        let joined = scan(s, "facts").join_inner(scan(s, "dims"), [("f_dim", "d_key")]);
        let all = joined.group_by(["f_code"]).agg(|r| [count("n"), sum("size", r.i64("d_size"))]);
        let some = joined.filter(|r| r.i64("f_amount").gt(500)).group_by(["f_code"]).agg(|_| [count("many")]);
        all.join_inner(some, [("f_code", "f_code")])
    });
}

/// A grouping of rows that another one picks cannot share a pipeline with it.
#[test]
fn groupings_that_need_each_other() {
    check(&[], |s| {
        let joined = scan(s, "facts").join_inner(scan(s, "dims"), [("f_dim", "d_key")]);
        let sizes =
            joined.group_by(["d_size"]).agg(|r| [sum("amount", r.i64("f_amount"))]).filter(|r| r.i64("amount").gt(100));
        joined.join_semi(sizes, [("d_size", "d_size")]).group_by(["f_code"]).agg(|_| [count("n")])
    });
}

#[test]
fn a_key_that_counts_rows_up_is_the_row() {
    check(&[], |s| {
        let joined = scan(s, "facts").join_inner(scan(s, "dims"), [("f_dim", "d_key")]);
        joined.select(["f_id", "d_size", "d_key"])
    });
    check(&[], |s| scan(s, "facts").join_semi(scan(s, "dims"), [("f_dim", "d_key")]).select(["f_id"]));
    check(&[], |s| scan(s, "facts").join_anti(scan(s, "dims"), [("f_dim", "d_key")]).select(["f_id"]));
    check(&[], |s| scan(s, "facts").join_mark(scan(s, "dims"), [("f_dim", "d_key")], "m").select(["f_id", "m"]));
    check(&[], |s| {
        let keys = [("f_dim", "d_key")];
        let pairs =
            scan(s, "facts").join_if(scan(s, "dims"), JoinKind::Inner, keys, |r| r.i64("d_size").lt(r.i64("f_amount")));
        pairs.select(["f_id", "d_size"])
    });
}

#[test]
fn rows_are_placed_by_the_rank_of_their_keys() {
    check(&["placed by rank"], |s| {
        let joined = scan(s, "facts").join_inner(distinct(s), [("f_far", "o_key")]);
        joined.select(["f_id", "f_far", "n"])
    });
    check(&["placed by rank"], |s| scan(s, "facts").join_left(distinct(s), [("f_far", "o_key")]).select(["f_id", "n"]));
}

/// One row for each key of `once`.
fn distinct(s: &Stage) -> Rep<'_, quearn_stage::rep::Table> {
    scan(s, "once").group_by(["o_key"]).agg(|r| [sum("n", r.i64("o_x"))])
}

#[test]
fn rows_are_grouped_by_the_rank_of_their_keys() {
    for kind in [JoinKind::Inner, JoinKind::Left] {
        check(&["grouped by rank"], |s| {
            scan(s, "facts").join(scan(s, "thrice"), kind.clone(), [("f_far", "t_key")]).select(["f_id", "t_x"])
        });
    }
    for kind in [JoinKind::Semi, JoinKind::Anti] {
        check(&["grouped by rank"], |s| {
            let (facts, keys) = (scan(s, "facts"), [("f_far", "t_key")]);
            let kind = kind.clone();
            facts.join_if(scan(s, "thrice"), kind, keys, |r| r.i64("t_x").gt(r.i64("f_amount"))).select(["f_id"])
        });
    }
    check(&["grouped by rank", "rel.join_mark"], |s| {
        let (facts, keys) = (scan(s, "facts"), [("f_far", "t_key")]);
        let kind = JoinKind::Mark("m".into());
        let marked = facts.join_if(scan(s, "thrice"), kind, keys, |r| r.i64("t_x").gt(r.i64("f_amount")));
        marked.filter(|r| r.bool("m") | r.i64("f_id").lt(20)).select(["f_id", "m"])
    });
}

#[test]
fn one_of_two_keys_is_the_position() {
    for kind in [JoinKind::Inner, JoinKind::Left, JoinKind::Semi, JoinKind::Anti] {
        check(&["grouped by rank"], |s| {
            let tagged = scan(s, "facts").with("tag", |r| r.i64("f_id") % 4);
            tagged.join(scan(s, "thrice"), kind.clone(), [("f_far", "t_key"), ("tag", "t_tag")]).select(["f_id", "tag"])
        });
    }
}

/// EXISTS under OR, under NOT, and as a value: by key flags and bits, a hash table, two marks at once, into groups and other
/// joins.
#[test]
fn marks_are_columns() {
    fn some(s: &Stage) -> Rep<'_, quearn_stage::rep::Table> {
        scan(s, "thrice").filter(|r| r.i64("t_x").gt(300))
    }
    check(&["key bits", "rel.join_mark"], |s| {
        let marked = scan(s, "facts").join_mark(some(s), [("f_far", "t_key")], "m");
        marked.filter(|r| !r.bool("m") | r.i64("f_amount").gt(600)).select(["f_id", "m"])
    });
    check(&["bytes of key flags", "rel.join_mark"], |s| {
        let numbered = scan(s, "facts").with("x", |r| r.i64("f_id") % 900);
        numbered.join_mark(some(s), [("x", "t_x")], "m").select(["f_id", "m"])
    });
    check(&["hash table", "rel.join_mark"], |s| {
        let tagged = scan(s, "facts").with("tag", |r| r.i64("f_id") % 1000 * 1_000_000_007);
        let far = some(s).with("tag", |r| r.i64("t_x") * 1_000_000_007);
        tagged.join_mark(far, [("tag", "tag")], "m").select(["f_id", "m"])
    });
    check(&["key bits", "rel.join_mark"], |s| {
        let once = scan(s, "facts").join_mark(some(s), [("f_far", "t_key")], "m");
        let twice = once.join_mark(scan(s, "once"), [("f_far", "o_key")], "n");
        twice
            .filter(|r| r.bool("m") | !r.bool("n"))
            .join_inner(scan(s, "dims"), [("f_dim", "d_key")])
            .select(["f_id", "m", "n", "d_size"])
    });
    check(&["key bits", "rel.join_mark"], |s| {
        let marked = scan(s, "facts").join_mark(some(s), [("f_far", "t_key")], "m");
        marked.group_by(["f_order", "m"]).agg(|r| [count("n"), sum("s", r.i64("f_amount"))])
    });
    // The mark differs among the rows of one order.
    check(&["rel.join_mark"], |s| {
        let (kind, keys) = (JoinKind::Mark("m".into()), [("f_order", "d_key")]);
        let marked =
            scan(s, "facts").join_if(scan(s, "dims"), kind, keys, |r| r.i64("d_size").lt(r.i64("f_amount") % 40));
        marked.group_by(["f_order", "m"]).agg(|_| [count("n")])
    });
    // No row on the right side.
    check(&["rel.join_mark"], |s| {
        let none = scan(s, "thrice").filter(|r| r.i64("t_x").gt(900));
        scan(s, "facts").join_mark(none, [("f_far", "t_key")], "m").select(["f_id", "m"])
    });
}

/// A column of the right side has the name of one that the stored table on the left has, and nobody reads there.
#[test]
fn names_of_unread_columns_say_nothing() {
    check(&[], |s| {
        let left = s.scan("dims", [Field::new("d_size", Scalar::I64)]);
        let right = scan(s, "dims").project(|r| [("key", r.col("d_key")), ("d_key", r.col("d_size"))]);
        let pairs = left.join_inner(right, [("d_size", "key")]);
        pairs.join_left(scan(s, "facts"), [("d_key", "f_dim")]).group_by(["d_key"]).agg(|r| [sum("s", r.i64("f_id"))])
    });
}

/// The rows of one order differ in what they have on the right side, although that has one row for each order.
#[test]
fn conditions_on_pairs_tell_rows_of_a_key_apart() {
    check(&[], |s| {
        let (kind, keys) = (JoinKind::Left, [("f_order", "d_key")]);
        let pairs =
            scan(s, "facts").join_if(scan(s, "dims"), kind, keys, |r| r.i64("d_size").lt(r.i64("f_amount") % 40));
        pairs.group_by(["f_order", "d_size"]).agg(|_| [count("n")])
    });
}

#[test]
fn both_sides_may_read_one_table() {
    check(&[], |s| {
        let other = scan(s, "dims").project(|r| [("key", r.col("d_key")), ("size", r.col("d_size"))]);
        other.join_inner(scan(s, "dims"), [("size", "d_key")]).select(["key", "size", "d_size"])
    });
    check(&["build side"], |s| {
        let other = scan(s, "facts").project(|r| [("id", r.col("f_id")), ("far", r.col("f_far"))]);
        let some = scan(s, "facts").filter(|r| r.i64("f_amount").lt(-250));
        other.join_left(some, [("far", "f_far")]).select(["id", "f_id", "f_far"])
    });
}

#[test]
fn groups_are_the_rows_of_the_left_side() {
    check(&["as a group-join"], |s| {
        let pairs = scan(s, "dims").join_left(scan(s, "facts"), [("d_key", "f_dim")]);
        let groups = pairs.group_by(["d_key", "d_size"]);
        groups.agg(|r| {
            let (amount, far) = (r.i64("f_amount"), r.i64("f_far"));
            [count_of("n", amount), sum("sum", amount), min("least", far), count_of("far", far), avg("mean", amount)]
        })
    });
    check(&["as a group-join"], |s| {
        let pairs = scan(s, "dims").join_inner(scan(s, "facts"), [("d_key", "f_dim")]);
        pairs.group_by(["d_key"]).agg(|r| [count("n"), sum("s", r.i64("f_amount") * 2 + r.i64("f_id"))])
    });
    // Keys far apart: the groups are in a hash table, some rows have no key.
    check(&["as a group-join"], |s| {
        let pairs = distinct(s).join_left(scan(s, "thrice"), [("o_key", "t_key")]);
        pairs.group_by(["o_key"]).agg(|r| [count_of("c", r.i64("t_x")), max("m", r.i64("t_x"))])
    });
}

#[test]
fn groups_that_follow_one_another() {
    check(&["in order"], |s| {
        let groups = scan(s, "facts").group_by(["f_order"]).agg(|r| [count("n"), sum("s", r.i64("f_amount"))]);
        groups.filter(|r| r.i64("s").gt(0))
    });
    check(&["in order"], |s| {
        let some = scan(s, "facts").filter(|r| r.i64("f_amount").gt(-200));
        some.group_by(["f_order"])
            .agg(|r| [min("a", r.i64("f_far")), max("b", r.str("f_code")), avg("c", r.i64("f_id"))])
    });
    // Few rows of most groups, and none of many.
    check(&["in order"], |s| {
        let few = scan(s, "facts").filter(|r| r.i64("f_amount").gt(600));
        few.group_by(["f_order"]).agg(|r| [count("n"), sum("s", r.i64("f_amount"))])
    });
    // Groups probe a table on their way.
    check(&["in order"], |s| {
        let groups = scan(s, "facts").group_by(["f_order"]).agg(|r| [sum("s", r.i64("f_amount"))]);
        groups.join_inner(scan(s, "dims"), [("f_order", "d_key")]).select(["s", "d_size"])
    });
}

#[test]
fn few_groups_by_vectors() {
    // Keys that do not fit a lane, sums that might not fit 64 bits, and what is wider only in between.
    check(&["facts"], |s| {
        let keyed = scan(s, "facts").with("far", |r| r.i64("f_id") * s.constant(0i64) + 5_000_000_000);
        keyed.group_by(["far"]).agg(|r| [count("n"), sum("s", r.i64("f_amount"))])
    });
    check(&["facts"], |s| {
        let groups = scan(s, "facts").group_by(["f_code"]);
        groups.agg(|r| [count("n"), sum("m", r.i64("f_amount") * r.i64("f_id") * 2_000_000_000)])
    });
    check(&["facts"], |s| {
        let groups = scan(s, "facts").group_by(["f_code"]);
        groups.agg(|r| [sum("z", r.i64("f_amount") * r.i64("f_id") * 2_100_000_000_000 * s.constant(0i64))])
    });
    check(&["facts"], |s| {
        let some = scan(s, "facts").filter(|r| r.i64("f_amount").lt(500));
        some.group_by(["f_code"]).agg(|r| {
            let (amount, id) = (r.i64("f_amount"), r.i64("f_id"));
            [count("n"), sum("a", amount), sum("b", amount * (7 - id)), sum("c", amount * id * 100_000), avg("d", id)]
        })
    });
    // Small numbers share a word with the number of rows, and three of these do not fit one.
    check(&["facts", "by vectors"], |s| {
        let all = scan(s, "facts").group_by(["f_code"]);
        all.agg(|r| [sum("i", r.i64("f_id")), sum("o", r.i64("f_order")), sum("s", r.i64("f_id") + 1), count("n")])
    });
    check(&["facts"], |s| {
        scan(s, "facts").aggregate(|r| [count("n"), sum("a", r.i64("f_amount")), avg("b", r.i64("f_id"))])
    });
    check(&["facts"], |s| {
        let none = scan(s, "facts").filter(|r| r.i64("f_amount").lt(5) & r.i64("f_amount").gt(3) & r.i64("f_id").lt(2));
        none.aggregate(|r| [count("n"), sum("a", r.i64("f_amount"))])
    });
}

#[test]
fn many_groups_are_partitioned() {
    check(&["partitions"], |s| {
        scan(s, "many").group_by(["m_far"]).agg(|r| [count("n"), sum("s", r.i64("m_x")), min("a", r.i64("m_some"))])
    });
    check(&["partitions"], |s| {
        scan(s, "many").group_by(["m_some", "m_far"]).agg(|r| [count_of("n", r.i64("m_some")), max("b", r.i64("m_x"))])
    });
    check(&["partitions"], |s| scan(s, "many").group_by(["m_far"]).agg(|r| [count_distinct("n", r.i64("m_some"))]));
    check(&["partitions"], |s| {
        let groups =
            scan(s, "many").group_by(["m_text"]).agg(|r| [avg("mean", r.i64("m_x")), max("t", r.str("m_text"))]);
        groups.filter(|r| r.str("t").like("%7%"))
    });
}

#[test]
fn keys_in_no_order_are_flags_of_each_worker() {
    check(&["104729 bytes of key flags a worker"], |s| scan(s, "facts").join_semi(scan(s, "many"), [("f_id", "m_x")]));
    check(&["104729 bytes of key flags a worker"], |s| scan(s, "facts").join_anti(scan(s, "many"), [("f_dim", "m_x")]));
}

#[test]
fn keys_of_known_ranges_share_a_word() {
    // Four words in one; what does not fit has one of its own; an order of groups with keys that can be NULL.
    check_rows(true, &["of which 8 bytes of keys"], |s| {
        let facts = scan(s, "facts").select(["f_far", "f_amount", "f_code", "f_id"]);
        facts.sort([desc("f_far"), asc("f_amount"), desc("f_code"), asc("f_id")])
    });
    check_rows(true, &["of which 24 bytes of keys"], |s| {
        let many = scan(s, "many").select(["m_x", "m_far", "m_some"]);
        many.sort([desc("m_x"), desc("m_far"), asc("m_some").nulls_first()])
    });
}

#[test]
fn first_rows_of_many() {
    for count in [1, 10, 3000] {
        check(&["the first"], |s| {
            let keys = scan(s, "many").select(["m_some", "m_x", "m_far"]);
            keys.sort([desc("m_some").nulls_first(), asc("m_x"), desc("m_far")]).limit(count)
        });
        check(&["the first"], |s| {
            let keys = scan(s, "many").select(["m_some", "m_x", "m_far"]);
            keys.sort([desc("m_x"), asc("m_some"), asc("m_far")]).limit(count)
        });
    }
}

fn dims(s: &Stage) -> Rep<'_, quearn_stage::rep::Table> {
    scan(s, "dims").project(|r| [("k", r.i64("d_key").dyn_()), ("x", r.i64("d_size").dyn_())])
}

#[test]
fn rows_of_several_tables() {
    check(&["union"], |s| {
        let once = scan(s, "once").project(|r| [("k", r.i64("o_key").dyn_()), ("x", r.i64("o_x").dyn_())]);
        let all = dims(s).filter(|r| r.i64("x").gt(40)).union([once, dims(s)]);
        all.group_by(["x"]).agg(|r| [count("n"), max("k", r.i64("k"))])
    });
    // A column that may be NULL in one of them, texts with and without a dictionary, a column that nobody reads.
    check(&["union"], |s| {
        let many = scan(s, "many").filter(|r| r.i64("m_x").lt(100));
        let many = many
            .project(|r| [("k", r.i64("m_some").dyn_()), ("t", r.str("m_text").dyn_()), ("x", r.i64("m_x").dyn_())]);
        let facts = scan(s, "facts")
            .project(|r| [("x", r.i64("f_amount").dyn_()), ("t", r.str("f_code").dyn_()), ("k", r.i64("f_id").dyn_())]);
        many.union([facts]).filter(|r| r.str("t").gt("g")).select(["t", "k"])
    });
    // Joined, sorted, and of no rows at all.
    check(&["union"], |s| {
        let none = dims(s).filter(|r| r.i64("k").lt(0));
        none.union([dims(s)]).join_inner(scan(s, "facts"), [("k", "f_dim")]).select(["k", "x", "f_id"]).sort([asc("k")])
    });
}

#[test]
fn tables_of_other_columns_have_no_union() {
    let s = Stage::new();
    s.output("out", scan(&s, "dims").union([scan(&s, "once")]));
    let error = s.finish().unwrap_err().to_string();
    assert!(error.contains("d_key") || error.contains("o_key"), "{error}");
}

/// Of no column, after a table of no rows, with a text that only one of them computes.
#[test]
fn unions_of_little() {
    check(&["union"], |s| dims(s).union([dims(s)]).aggregate(|_| [count("n")]));
    check(&["union"], |s| dims(s).limit(0).union([dims(s)]).select(["k"]));
    check(&["union"], |s| {
        let one = dims(s).with("t", |_| s.constant("one"));
        let many = scan(s, "many").filter(|r| r.i64("m_x").lt(50));
        let many =
            many.project(|r| [("k", r.i64("m_x").dyn_()), ("x", r.i64("m_x").dyn_()), ("t", r.str("m_text").dyn_())]);
        one.union([many]).group_by(["t"]).agg(|r| [count("n"), min("k", r.i64("k"))])
    });
}

#[test]
fn random_numbers_of_rows() {
    check(&[], |s| {
        let random = s.random(7i64, 1i64);
        let drawn = scan(s, "facts").filter(|r| random.at::<F32>(r.i64("f_id")).as_column().lt(0.25f32));
        let drawn =
            drawn.with("r", |r| random.at::<F64>(r.i64("f_id"))).with("i", |r| random.at::<I64>(r.i64("f_dim")));
        drawn.select(["f_id", "r", "i"])
    });
}
