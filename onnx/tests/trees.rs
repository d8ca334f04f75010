//! Ensembles of trees, with values computed by hand.

mod common;

use common::{attribute, floats, graph, model, node, port, run};
use quearn_onnx::proto::{AttributeProto, NodeProto};
use quearn_onnx::{Options, import};

fn texts(name: &str, values: &[&str]) -> AttributeProto {
    let strings = values.iter().map(|s| s.as_bytes().to_vec()).collect();
    AttributeProto { name: Some(name.into()), strings, r#type: Some(8), ..Default::default() }
}

fn numbers(name: &str, values: &[f32]) -> AttributeProto {
    AttributeProto { name: Some(name.into()), floats: values.to_vec(), r#type: Some(6), ..Default::default() }
}

fn text(name: &str, value: &str) -> AttributeProto {
    AttributeProto { name: Some(name.into()), s: Some(value.into()), r#type: Some(3), ..Default::default() }
}

/// `x0 < 1 ? (1, 10) : x1 >= 2 or missing ? (2, 0) : (4, 0)`, and a tree that adds 0.5 to the second target.
fn trees(mode: &str, children: [i64; 2], more: Vec<AttributeProto>) -> NodeProto {
    let mut attributes = vec![
        attribute::ints("nodes_treeids", &[0, 0, 0, 0, 0, 1]),
        attribute::ints("nodes_nodeids", &[0, 1, 2, 3, 4, 0]),
        attribute::ints("nodes_featureids", &[0, 0, 1, 0, 0, 0]),
        numbers("nodes_values", &[1.0, 0.0, 2.0, 0.0, 0.0, 0.0]),
        texts("nodes_modes", &["BRANCH_LT", "LEAF", mode, "LEAF", "LEAF", "LEAF"]),
        attribute::ints("nodes_truenodeids", &[1, 0, children[0], 0, 0, 0]),
        attribute::ints("nodes_falsenodeids", &[2, 0, children[1], 0, 0, 0]),
        attribute::ints("nodes_missing_value_tracks_true", &[0, 0, 1, 0, 0, 0]),
        attribute::ints("target_treeids", &[0, 0, 0, 0, 1]),
        attribute::ints("target_nodeids", &[1, 1, 3, 4, 0]),
        attribute::ints("target_ids", &[0, 1, 0, 0, 1]),
        numbers("target_weights", &[1.0, 10.0, 2.0, 4.0, 0.5]),
        numbers("base_values", &[100.0, 0.0]),
        attribute::int("n_targets", 2),
    ];
    attributes.extend(more);
    let mut node = node("TreeEnsembleRegressor", &["x"], &["y"], attributes);
    node.domain = Some("ai.onnx.ml".into());
    node
}

fn found(node: NodeProto) -> Vec<f32> {
    let nan = f32::NAN;
    let x = floats(&[0.5, 0.0, 1.0, 2.0, 1.0, 1.0, nan, nan], &[4, 2]);
    let graph = graph(vec![node], vec![], vec![port("x", &["n", "2"])], &["y"]);
    let mut results = run(&model(graph), &Options::default(), &[("x", x)]).unwrap();
    results.remove("y").unwrap().as_slice::<f32>().unwrap().to_vec()
}

#[test]
fn sums_and_means_of_leaves() {
    let sums = [101.0, 10.5, 102.0, 0.5, 104.0, 0.5, 102.0, 0.5];
    assert_eq!(found(trees("BRANCH_GTE", [3, 4], vec![])), sums);
    let means = [100.5, 5.25, 101.0, 0.25, 102.0, 0.25, 101.0, 0.25];
    assert_eq!(found(trees("BRANCH_GTE", [3, 4], vec![text("aggregate_function", "AVERAGE")])), means);
    // `x1 > 2`, and so not 2 itself.
    assert_eq!(found(trees("BRANCH_GT", [3, 4], vec![]))[2], 104.0);
    assert_eq!(found(trees("BRANCH_LEQ", [4, 3], vec![]))[6], 104.0);
}

#[test]
fn what_is_no_tree_is_an_error() {
    let message = |node| {
        let graph = graph(vec![node], vec![], vec![port("x", &["n", "2"])], &["y"]);
        import(&model(graph), None, &Options::default()).err().unwrap().to_string()
    };
    let circle = message(trees("BRANCH_GTE", [3, 0], vec![]));
    assert!(circle.contains("tree 0 has a circle"), "{circle}");
    let missing = message(trees("BRANCH_GTE", [3, 7], vec![]));
    assert!(missing.contains("tree 0 has no node 7"), "{missing}");
    let mode = message(trees("BRANCH_EQ", [3, 4], vec![]));
    assert!(mode.contains("nodes of the mode BRANCH_EQ are not supported"), "{mode}");
    let transform = message(trees("BRANCH_GTE", [3, 4], vec![text("post_transform", "PROBIT")]));
    assert!(transform.contains("the transform PROBIT of the sums is not supported"), "{transform}");
}
