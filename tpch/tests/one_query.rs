//! Writes `docs/one-query.md`: TPC-H Q6 at every stage. `QUEARN_BLESS=1` writes the file, otherwise it must be up to
//! date in all that does not depend on the processor.

use quearn::{Level, Session};
use quearn_tpch::{catalog, queries};
use std::fmt::Write as _;
use std::path::Path;

const SCALE: f64 = 0.01;
const QUERY: u32 = 6;
const SOURCE: &str = include_str!("../src/queries/q06.rs");

fn section(text: &mut String, title: &str, language: &str, body: &str) {
    writeln!(text, "\n## {title}\n\n```{language}\n{}\n```", body.trim_end()).unwrap();
}

/// What is the same on every machine.
fn portable(session: &Session) -> String {
    let graph = queries::graph(QUERY).unwrap();
    let explain = |level| session.explain(&graph, level).unwrap();
    let mut text = String::from(
        "# One query at every stage\n\nTPC-H Q6 at scale factor 0.01. Written by `tpch/tests/one_query.rs`.\n",
    );
    section(&mut text, "The program", "rust", SOURCE);
    section(&mut text, "The graph", "text", &explain(Level::Graph));
    section(&mut text, "The graph, rewritten, and the rules that fired", "text", &explain(Level::Rewritten));
    section(&mut text, "Pipelines: what is fused, and what is written out", "text", &explain(Level::Pipelines));
    section(&mut text, "The answer", "text", &session.run(&graph).unwrap().to_string());
    text
}

#[test]
fn one_query_is_up_to_date() {
    let mut session = Session::builder().threads(2).build().unwrap();
    catalog::load(SCALE, &|_, _, _| ()).unwrap().into_iter().for_each(|table| session.add_table(table));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/one-query.md");
    let text = portable(&session);
    if std::env::var_os("QUEARN_BLESS").is_some() {
        let mut whole = text.clone();
        let low = session.explain(&queries::graph(QUERY).unwrap(), Level::Low).unwrap();
        section(&mut whole, "The low-level program, on a processor with AVX-512", "text", &low);
        std::fs::write(&path, whole).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(written.starts_with(&text), "docs/one-query.md is out of date: QUEARN_BLESS=1 cargo test -p quearn-tpch");
}
