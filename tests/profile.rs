//! Profiles: pipelines have their names, their rows add up, and so does the time.

mod session_harness;

use arrow::array::{ArrayRef, Float32Array, Int64Array, RecordBatch};
use quearn::prelude::*;
use quearn::profile::{PipelineProfile, Profile};
use session_harness::backends;
use std::sync::Arc;

const ROWS: i64 = 100_000;
/// Rows of a stored table in a tile.
const TILE: u64 = 1 << 14;

fn session(backend: BackendKind, threads: usize) -> Session {
    let mut session = Session::builder().backend(backend).threads(threads).build().unwrap();
    let table = |name: &str, columns: Vec<(&str, ArrayRef)>| {
        StoredTable::from_batches(name, &[RecordBatch::try_from_iter(columns).unwrap()]).unwrap()
    };
    let ints = |values: Vec<i64>| Arc::new(Int64Array::from(values)) as ArrayRef;
    let x = Float32Array::from_iter_values((0..ROWS).map(|i| (i % 10) as f32));
    let sales = [("key", ints((0..ROWS).map(|i| i % 100).collect())), ("amount", ints((0..ROWS).collect()))];
    let sales = sales.into_iter().chain([("x", Arc::new(x) as ArrayRef)]).collect();
    session.add_table(table("sales", sales));
    session.add_table(table("keys", vec![("id", ints((0..50).map(|i| i * 2).collect()))]));
    session
}

/// Amounts by key, of the keys that there are.
fn join() -> Graph {
    let s = Stage::new();
    let field = |name: &str| Field::new(name, Scalar::I64);
    let keys = s.scan("keys", [field("id")]);
    let sales = s.scan("sales", [field("key"), field("amount")]);
    let joined = sales.join_inner(keys, [("key", "id")]);
    let totals = joined.group_by(["key"]).agg(|r| [sum("total", r.i64("amount"))]);
    s.output("totals", totals.sort([asc("key")]));
    s.finish().unwrap()
}

fn profile(graph: &Graph, session: &Session) -> Profile {
    session.compile(graph).unwrap().profile(session).unwrap()
}

fn scanning<'p>(profile: &'p Profile, table: &str) -> &'p PipelineProfile {
    let scan = format!("scan \"{table}\"");
    profile.pipelines.iter().find(|p| p.fused.first() == Some(&scan)).unwrap_or_else(|| panic!("{scan} in {profile}"))
}

#[test]
fn pipelines_have_names_and_rows() {
    for backend in backends() {
        for threads in [1, 2] {
            let session = session(backend, threads);
            let profile = profile(&join(), &session);
            let build = scanning(&profile, "keys");
            assert!(
                build.name.starts_with("build_") && build.materialised[0].starts_with("build side of"),
                "{profile}"
            );
            assert_eq!((build.items, build.tiles, build.runs), (50, 1, 1));
            let aggregate = scanning(&profile, "sales");
            assert!(aggregate.name.starts_with("aggregate_") && aggregate.fused[1].starts_with("probe"), "{profile}");
            assert_eq!((aggregate.items, aggregate.tiles), (ROWS as u64, (ROWS as u64).div_ceil(TILE)));
            assert_eq!(aggregate.bytes, Some(ROWS as u64 * 16), "key and amount, both shared with Arrow");
            assert_eq!(aggregate.busy_ms.len(), threads);
            assert!((1.0..=threads as f64).contains(&aggregate.imbalance()), "{}", aggregate.imbalance());
            let position = |name: &str| profile.pipelines.iter().position(|p| p.name.starts_with(name)).unwrap();
            assert!(position("build_") < position("aggregate_") && position("aggregate_") < position("sort_"));
            assert_eq!(profile.outputs.table("totals").unwrap().num_rows(), 50);
        }
    }
}

#[test]
fn time_adds_up() {
    for backend in backends() {
        let session = session(backend, 2);
        let profile = profile(&join(), &session);
        let wall: f64 = profile.pipelines.iter().filter_map(|p| p.wall_ms).sum();
        assert!((wall + profile.serial_ms - profile.outputs.run_ms).abs() < 1e-6, "{profile}");
        let most = profile.outputs.run_ms * 2.0;
        assert!(profile.pipelines.iter().map(PipelineProfile::total_busy_ms).sum::<f64>() <= most, "{profile}");
        let calls: f64 = profile.calls.iter().map(|c| c.ms).sum();
        assert!(profile.calls.iter().any(|c| c.name == "qn_alloc") && calls <= profile.serial_ms, "{profile}");
        assert!(profile.compile.iter().any(|(phase, _)| *phase == "lower"));
    }
}

/// A model in a query runs in loops of its own, inside the tiles of the pipeline.
#[test]
fn loops_inside_tiles_are_part_of_their_pipeline() {
    let s = Stage::new();
    let sales = s.scan("sales", [Field::new("x", Scalar::F32)]);
    let doubled = sales.map_rows("y", |_| sales.tensor::<F32>(&["x"]).matmul(s.weight("w", [1, 1])).arg_max(1));
    s.output("largest", doubled.group_by(["y"]).agg(|_| [count("n")]));
    let graph = s.finish().unwrap();
    for backend in backends() {
        for threads in [1, 2] {
            let mut session = session(backend, threads);
            session.bind("w", StoredTensor::from_vec(vec![2.0f32], &[1, 1]).unwrap());
            let profile = profile(&graph, &session);
            let inner: Vec<_> = profile.pipelines.iter().filter(|p| p.wall_ms.is_none()).collect();
            let tile = inner.iter().find(|p| p.name.starts_with("tile_")).unwrap_or_else(|| panic!("{profile}"));
            assert_eq!(tile.items, ROWS as u64, "{profile}");
            assert!(tile.runs > 1 && !tile.fused.is_empty(), "{profile}");
            assert_eq!(scanning(&profile, "sales").items, ROWS as u64);
        }
    }
}

#[test]
fn profiles_can_be_read() {
    let text = profile(&join(), &session(BackendKind::Interp, 1)).to_string();
    for part in ["compiled: rewrite", "outside of parallel loops", "imbalance", "| scan \"sales\"", "=> rel.aggregate"]
    {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}
