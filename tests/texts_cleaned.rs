//! Texts that are cleaned and hashed: values by hand, and every backend against the evaluator, with and without a dictionary.

mod session_harness;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray};
use quearn::data::{LoadOptions, Table as Stored};
use quearn::eval::{Datum, EvalTable};
use quearn::prelude::{BackendKind, Level, Session};
use quearn_stage::graph::{Clean, Graph};
use quearn_stage::rep::*;
use session_harness::evaluated;
use std::sync::Arc;

const ALL: Clean = Clean { lower: true, punctuation: true, spaces: true };
const SPACES: Clean = Clean { lower: false, punctuation: false, spaces: true };
const LOWER: Clean = Clean { lower: true, punctuation: false, spaces: false };
const MARKS: Clean = Clean { lower: false, punctuation: true, spaces: false };

/// A table with texts and their numbers.
fn table(name: &str, texts: Vec<Option<String>>) -> Stored {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..texts.len() as i64));
    let texts: ArrayRef = Arc::new(StringArray::from(texts));
    let nullable = texts.null_count() > 0;
    let batch = RecordBatch::try_from_iter_with_nullable([("i", numbers, false), ("text", texts, nullable)]);
    Stored::from_batches_with(name, &[batch.unwrap()], &LoadOptions::COMPACT).unwrap()
}

const SOME: [Option<&str>; 9] = [
    Some("  Hello,  World!  "),
    Some(""),
    None,
    Some("don't"),
    Some("Ärger, ÉTÉ — 7 °C"),
    Some("tab\tand\r\nline\n"),
    Some("..."),
    Some("   "),
    Some("hello world"),
];

/// Few texts that come often, so that there is a dictionary.
fn few() -> Stored {
    table("few", (0..900).map(|i| SOME[i % SOME.len()].map(str::to_owned)).collect())
}

/// Texts that all differ, and are longer than others.
fn many() -> Stored {
    let text = |i: usize| {
        format!("{}No. {i}:\t{} -- {}", " ".repeat(i % 4), "Word, ".repeat(i % 23), SOME[i % 9].unwrap_or("x"))
    };
    table("many", (0..20_000).map(|i| (i % 11 != 3).then(|| text(i))).collect())
}

fn graph(table: &Stored, write: impl for<'s> Fn(Rep<'s, Table>) -> Rep<'s, Table>) -> Graph {
    let s = Stage::new();
    s.output("out", write(s.scan(table.name(), table.fields())));
    s.finish().unwrap_or_else(|e| panic!("{e}"))
}

/// What the evaluator makes of a program; every backend makes the same.
fn check(table: &Stored, write: impl for<'s> Fn(Rep<'s, Table>) -> Rep<'s, Table>) -> EvalTable {
    let graph = graph(table, write);
    evaluated(&graph, std::slice::from_ref(table)).unwrap_or_else(|e| panic!("{e}\n{graph}"))
}

fn texts(table: &EvalTable, column: usize) -> Vec<Option<String>> {
    let text = |datum: Datum| match datum {
        Datum::Str(text) => Some(text.to_string()),
        Datum::Null => None,
        other => panic!("{other:?} is no text"),
    };
    (0..SOME.len()).map(|i| text(table.columns()[column].get(i))).collect()
}

#[test]
fn texts_are_cleaned() {
    let expect = |how: Clean, expected: [&str; 8]| {
        let found = check(&few(), |t| t.with("text", |r| r.str("text").cleaned(how)).select(["text", "i"]));
        let some = texts(&found, 0);
        assert_eq!(some[2], None);
        let some: Vec<String> = some.into_iter().flatten().collect();
        assert_eq!(some, expected, "{how:?}");
    };
    expect(ALL, ["hello world", "", "dont", "Ärger ÉtÉ — 7 °c", "tab and line", "", "", "hello world"]);
    expect(SPACES, ["Hello, World!", "", "don't", "Ärger, ÉTÉ — 7 °C", "tab and line", "...", "", "hello world"]);
    expect(MARKS, ["  Hello  World  ", "", "dont", "Ärger ÉTÉ — 7 °C", "tab\tand\r\nline\n", "", "   ", "hello world"]);
    expect(
        LOWER,
        ["  hello,  world!  ", "", "don't", "Ärger, ÉtÉ — 7 °c", "tab\tand\r\nline\n", "...", "   ", "hello world"],
    );
    expect(Clean::default(), SOME.into_iter().flatten().collect::<Vec<_>>().try_into().unwrap());
}

#[test]
fn texts_without_a_dictionary_are_cleaned() {
    for how in [ALL, SPACES, MARKS, LOWER] {
        check(&many(), |t| t.with("text", |r| r.str("text").cleaned(how)));
    }
    // Of a part, of what is clean, in filters and as a key of groups.
    check(&many(), |t| t.with("text", |r| r.str("text").substring(3, 20).cleaned(ALL).cleaned(SPACES).substring(1, 5)));
    check(&many(), |t| t.filter(|r| r.str("text").cleaned(ALL).like("no 1%word word x")).select(["i"]));
    check(&many(), |t| {
        t.group_by_exprs(|r| [("k", r.str("text").cleaned(ALL).substring(1, 4).dyn_())]).agg(|_| [count("n")])
    });
}

#[test]
fn clean_texts_are_keys_and_features() {
    check(&few(), |t| {
        t.group_by_exprs(|r| [("k", r.str("text").cleaned(ALL).dyn_())]).agg(|r| [count("n"), sum("s", r.i64("i"))])
    });
    check(&few(), |t| t.filter(|r| r.str("text").cleaned(ALL).eq("hello world")).select(["i"]));
    check(&few(), |t| t.with("k", |r| r.str("text").cleaned(ALL).ordinal(["hello world", "dont"])).select(["k", "i"]));
    check(&few(), |t| t.with("k", |r| r.str("text").cleaned(ALL).bucket(16)).select(["k", "i"]));
    check(&few(), |t| {
        let clean = t.with("clean", |r| r.str("text").cleaned(ALL)).select(["clean", "i"]);
        let words = t.with("word", |r| r.str("text").cleaned(SPACES)).rename("i", "j").select(["word", "j"]);
        let words = words.filter(|r| r.i64("j").lt(9));
        clean.join_left(words, [("clean", "word")]).with("h", |r| r.str("word").hash()).select(["i", "j", "h"])
    });
}

#[test]
fn texts_are_hashed() {
    let known = table("few", ["", "a", "foobar"].map(|text| Some(text.to_owned())).to_vec());
    let found = check(&known, |t| t.with("h", |r| r.str("text").hash()).select(["h", "i"]));
    let hashes: Vec<Datum> = (0..3).map(|i| found.columns()[0].get(i)).collect();
    // FNV-1a in 64 bits of the specification's vectors, without the highest bit.
    let words = [0xcbf2_9ce4_8422_2325u64, 0xaf63_dc4c_8601_ec8c, 0x8594_4171_f739_67e8];
    assert_eq!(hashes, words.map(|word| Datum::Int((word & (u64::MAX >> 1)).into())));
    for table in [few(), many()] {
        let found = check(&table, |t| {
            t.with("h", |r| r.str("text").hash()).with("b", |r| r.str("text").bucket(1000)).select(["b", "h", "i"])
        });
        let bucket = |i: usize| match found.columns()[0].get(i) {
            Datum::Int(bucket) => assert!((0..1000).contains(&bucket)),
            other => assert_eq!(other, Datum::Null),
        };
        (0..found.rows()).for_each(bucket);
    }
    let s = Stage::new();
    let few = few();
    s.output("b", s.scan("few", few.fields()).with("b", |r| r.str("text").bucket(0)));
    assert!(s.finish().unwrap_err().error.to_string().contains("needs a bucket"));
}

/// Each entry of a dictionary is cleaned once, whatever is done with it.
#[test]
fn dictionaries_are_cleaned_once() {
    let mut session = Session::builder().backend(BackendKind::Interp).threads(1).build().unwrap();
    session.add_table(few());
    let low = |write: fn(Rep<'_, Table>) -> Rep<'_, Table>| session.explain(&graph(&few(), write), Level::Low).unwrap();
    let rows = low(|t| t.with("text", |r| r.str("text").cleaned(ALL)));
    assert!(rows.contains("func @clean_"), "{rows}");
    let numbers = low(|t| t.with("b", |r| r.str("text").cleaned(ALL).bucket(8)).select(["b"]));
    assert!(numbers.contains("func @tabulate_"), "{numbers}");
}
