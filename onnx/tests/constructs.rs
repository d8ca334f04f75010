//! What is resolved while a model is read: loops, sequences, optionals, texts, tensors without elements, derivatives.

mod common;

use common::{attribute, floats, graph, int_tensor, model, node, port, run, tensor};
use quearn_onnx::proto::{AttributeProto, GraphProto, TensorProto};
use quearn_onnx::tensor::Texts;
use quearn_onnx::{Options, import};

fn body(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto { name: Some(name.into()), g: Some(graph), r#type: Some(5), ..Default::default() }
}

fn texts(name: &str, values: &[&str]) -> AttributeProto {
    let strings = values.iter().map(|s| s.as_bytes().to_vec()).collect();
    AttributeProto { name: Some(name.into()), strings, r#type: Some(8), ..Default::default() }
}

fn results(graph: GraphProto, inputs: &[(&str, quearn::data::Tensor)]) -> Vec<(String, Vec<u64>, Vec<f32>)> {
    let results = run(&model(graph), &Options::default(), inputs).unwrap();
    let plain = |(name, t): (String, quearn::data::Tensor)| (name, t.shape().to_vec(), t.as_slice().unwrap().to_vec());
    results.into_iter().map(plain).collect()
}

#[test]
fn a_half_float_result_is_an_operand_too() {
    // A result is kept in its own type; the product computes in a wider one.
    let nodes = vec![
        node("Cast", &["x"], &["h"], vec![attribute::int("to", 10)]),
        node("Add", &["h", "h"], &["twice"], vec![]),
        node("Transpose", &["twice"], &["turned"], vec![]),
        node("MatMul", &["twice", "turned"], &["product"], vec![]),
        node("Cast", &["product"], &["y"], vec![attribute::int("to", 1)]),
    ];
    let graph = graph(nodes, vec![], vec![port("x", &["2", "2"])], &["twice", "turned", "y"]);
    let x = floats(&[1.0, 2.0, 3.0, 4.0], &[2, 2]);
    let mut results = run(&model(graph), &Options::default(), &[("x", x)]).unwrap();
    assert_eq!(results.remove("y").unwrap().as_slice::<f32>().unwrap(), [20.0, 44.0, 44.0, 100.0]);
}

#[test]
fn a_loop_carries_and_collects() {
    let nodes = vec![
        node("Add", &["a", "x"], &["b"], vec![]),
        node("Mul", &["b", "b"], &["square"], vec![]),
        node("Identity", &["again"], &["go"], vec![]),
    ];
    let inputs = vec![port("round", &[]), port("again", &[]), port("a", &["2"])];
    let inner = graph(nodes, vec![], inputs, &["go", "b", "square"]);
    let repeat = node("Loop", &["trips", "", "x"], &["y", "squares"], vec![body("body", inner)]);
    let outer = graph(vec![repeat], vec![int_tensor("trips", &[], &[3])], vec![port("x", &["2"])], &["y", "squares"]);
    let found = results(outer, &[("x", floats(&[1.0, 2.0], &[2]))]);
    assert_eq!(found[0], ("squares".into(), vec![3, 2], vec![4.0, 16.0, 9.0, 36.0, 16.0, 64.0]));
    assert_eq!(found[1], ("y".into(), vec![2], vec![4.0, 8.0]));
}

#[test]
fn a_loop_without_end_is_an_error() {
    let inner = graph(
        vec![node("Identity", &["again"], &["go"], vec![])],
        vec![],
        vec![port("round", &[]), port("again", &[])],
        &["go"],
    );
    let repeat = node("Loop", &["", "on"], &["y"], vec![body("body", inner)]);
    let on = TensorProto { data_type: Some(9), raw_data: Some(vec![1]), ..int_tensor("on", &[], &[]) };
    let error = import(&model(graph(vec![repeat], vec![on], vec![], &["y"])), None, &Options::default());
    let error = error.err().unwrap().to_string();
    assert!(error.contains("\"y\" (Loop)") || error.contains("\"go\""), "{error}");
    assert!(error.contains("those of loops counted each time"), "{error}");
}

#[test]
fn a_scan_walks_backwards() {
    let nodes = vec![node("Add", &["a", "x"], &["b"], vec![]), node("Identity", &["b"], &["c"], vec![])];
    let inner = graph(nodes, vec![], vec![port("a", &[]), port("x", &[])], &["b", "c"]);
    let attributes = vec![
        body("body", inner),
        attribute::int("num_scan_inputs", 1),
        attribute::ints("scan_input_directions", &[1]),
        attribute::ints("scan_output_directions", &[1]),
    ];
    let scan = node("Scan", &["start", "x"], &["last", "sums"], attributes);
    let outer = graph(vec![scan], vec![tensor("start", &[], &[0.5])], vec![port("x", &["3"])], &["last", "sums"]);
    let found = results(outer, &[("x", floats(&[1.0, 2.0, 3.0], &[3]))]);
    assert_eq!(found[0], ("last".into(), vec![], vec![6.5]));
    assert_eq!(found[1], ("sums".into(), vec![3], vec![6.5, 5.5, 3.5]));
}

#[test]
fn sequences_are_lists_while_a_model_is_read() {
    let nodes = vec![
        node("SplitToSequence", &["x"], &["s"], vec![attribute::int("keepdims", 0)]),
        node("SequenceErase", &["s", "second"], &["t"], vec![]),
        node("SequenceInsert", &["t", "w", "first"], &["u"], vec![]),
        node("ConcatFromSequence", &["u"], &["y"], vec![attribute::int("axis", 0), attribute::int("new_axis", 1)]),
        node("SequenceAt", &["u", "last"], &["z"], vec![]),
    ];
    let constants = vec![
        int_tensor("first", &[], &[0]),
        int_tensor("second", &[], &[1]),
        int_tensor("last", &[], &[-1]),
        tensor("w", &[2], &[7.0, 8.0]),
    ];
    let outer = graph(nodes, constants, vec![port("x", &["3", "2"])], &["y", "z", "t"]);
    let found = results(outer, &[("x", floats(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[3, 2]))]);
    assert_eq!(found[0], ("t.0".into(), vec![2], vec![1.0, 2.0]));
    assert_eq!(found[1], ("t.1".into(), vec![2], vec![5.0, 6.0]));
    assert_eq!(found[2], ("y".into(), vec![3, 2], vec![7.0, 8.0, 1.0, 2.0, 5.0, 6.0]));
    assert_eq!(found[3], ("z".into(), vec![2], vec![5.0, 6.0]));
}

#[test]
fn a_position_outside_a_sequence_is_an_error() {
    let nodes =
        vec![node("SequenceConstruct", &["x"], &["s"], vec![]), node("SequenceAt", &["s", "at"], &["y"], vec![])];
    let outer = graph(nodes, vec![int_tensor("at", &[], &[1])], vec![port("x", &["2"])], &["y"]);
    let error = import(&model(outer), None, &Options::default()).err().unwrap().to_string();
    assert_eq!(error, "node \"y\" (SequenceAt): position 1 lies outside a sequence of 1");
}

#[test]
fn texts_are_known_while_a_model_is_read() {
    let attributes = vec![texts("stopwords", &["Monday"])];
    let normalize = node("StringNormalizer", &["words"], &["y"], attributes);
    let words = TensorProto {
        name: Some("words".into()),
        dims: vec![3],
        data_type: Some(8),
        string_data: ["monday", "Tuesday", "é"].iter().map(|s| s.as_bytes().to_vec()).collect(),
        ..Default::default()
    };
    let made = import(&model(graph(vec![normalize], vec![words], vec![], &["y"])), None, &Options::default()).unwrap();
    assert_eq!(made.texts["y"], Texts { shape: vec![2], items: vec!["Tuesday".into(), "é".into()] });
    assert!(made.graph.outputs().is_empty() && !made.computes("y"));
}

#[test]
fn nothing_is_split_sliced_and_added_up() {
    let nodes = vec![
        node("Split", &["x", "sizes"], &["none", "all"], vec![]),
        node("Slice", &["all", "two", "two"], &["cut"], vec![]),
        node("ReduceSum", &["cut", "zero"], &["sum"], vec![attribute::int("keepdims", 0)]),
        node("Add", &["all", "sum"], &["y"], vec![]),
    ];
    let constants =
        vec![int_tensor("sizes", &[2], &[0, 3]), int_tensor("two", &[1], &[2]), int_tensor("zero", &[1], &[0])];
    let outer = graph(nodes, constants, vec![port("x", &["3", "2"])], &["none", "y"]);
    let found = results(outer, &[("x", floats(&[1.0; 6], &[3, 2]))]);
    assert_eq!(found[0], ("none".into(), vec![0, 2], vec![]));
    assert_eq!(found[1], ("y".into(), vec![3, 2], vec![1.0; 6]));
}

#[test]
fn a_derivative_by_hand() {
    // y = sum(tanh(x) * (x w)), with x [2], w [2, 2].
    let mut gradient = node(
        "Gradient",
        &["x"],
        &["dx"],
        vec![texts("xs", &["x"]), {
            AttributeProto { name: Some("y".into()), s: Some(b"y".to_vec()), r#type: Some(3), ..Default::default() }
        }],
    );
    gradient.domain = Some("ai.onnx.preview.training".into());
    let nodes = vec![
        node("Tanh", &["x"], &["t"], vec![]),
        node("MatMul", &["x", "w"], &["p"], vec![]),
        node("Mul", &["t", "p"], &["m"], vec![]),
        node("ReduceSum", &["m"], &["y"], vec![attribute::int("keepdims", 0)]),
        gradient,
    ];
    let w = tensor("w", &[2, 2], &[1.0, 2.0, 3.0, 4.0]);
    let found = results(graph(nodes, vec![w], vec![port("x", &["2"])], &["dx"]), &[("x", floats(&[0.5, -1.0], &[2]))]);
    let y = |x: [f64; 2]| x[0].tanh() * (x[0] + 3.0 * x[1]) + x[1].tanh() * (2.0 * x[0] + 4.0 * x[1]);
    let step = 1e-6;
    let expected = [
        (y([0.5 + step, -1.0]) - y([0.5 - step, -1.0])) / (2.0 * step),
        (y([0.5, -1.0 + step]) - y([0.5, -1.0 - step])) / (2.0 * step),
    ];
    for (found, expected) in found[0].2.iter().zip(expected) {
        assert!((f64::from(*found) - expected).abs() < 1e-4, "{found} {expected}");
    }
}

#[test]
fn branches_have_tensors_of_their_own() {
    // The same names inside two branches stand for different tensors.
    let inner = |value: f32| {
        let nodes = vec![node("Add", &["x", "w"], &["r"], vec![])];
        graph(nodes, vec![tensor("w", &[2], &[value; 2])], vec![], &["r"])
    };
    let pick = |condition: &str, result: &str| {
        let branches = vec![body("then_branch", inner(1.0)), body("else_branch", inner(10.0))];
        node("If", &[condition], &[result], branches)
    };
    let flag = |name: &str, value: u8| TensorProto {
        data_type: Some(9),
        raw_data: Some(vec![value]),
        ..int_tensor(name, &[], &[])
    };
    let nodes = vec![pick("yes", "a"), pick("no", "b")];
    let outer = graph(nodes, vec![flag("yes", 1), flag("no", 0)], vec![port("x", &["2"])], &["a", "b"]);
    let found = results(outer, &[("x", floats(&[0.0, 1.0], &[2]))]);
    assert_eq!(found[0].2, [1.0, 2.0]);
    assert_eq!(found[1].2, [10.0, 11.0]);
}

#[test]
fn bits_are_those_of_twos_complement() {
    let direction = |way: &str| AttributeProto {
        name: Some("direction".into()),
        s: Some(way.as_bytes().to_vec()),
        r#type: Some(3),
        ..Default::default()
    };
    let narrow = |name: &str, to: &str| node("Cast", &[name], &[to], vec![attribute::int("to", 3)]);
    let wide = |name: &str, to: &str| node("Cast", &[name], &[to], vec![attribute::int("to", 7)]);
    let nodes = vec![
        narrow("x", "a"),
        narrow("y", "b"),
        node("BitShift", &["a", "b"], &["l"], vec![direction("LEFT")]),
        node("BitShift", &["a", "b"], &["r"], vec![direction("RIGHT")]),
        node("BitwiseXor", &["a", "b"], &["e"], vec![]),
        node("BitwiseAnd", &["a", "b"], &["c"], vec![]),
        node("BitwiseOr", &["a", "b"], &["d"], vec![]),
        node("BitwiseNot", &["a"], &["n"], vec![]),
    ];
    let names = [("l", "left"), ("r", "right"), ("e", "xor"), ("c", "and"), ("d", "or"), ("n", "not")];
    let nodes = nodes.into_iter().chain(names.map(|(from, to)| wide(from, to))).collect();
    let inputs = vec![common::int_port("x", &["7"]), common::int_port("y", &["7"])];
    let graph = graph(nodes, vec![], inputs, &names.map(|(_, to)| to));
    let (a, b) = ([5i8, -5, 127, -128, 1, -1, 64], [1i8, 1, 1, 7, 8, -1, 0]);
    let tensor = |values: [i8; 7]| common::ints(&values.map(i64::from), &[7]);
    let mut found = run(&model(graph), &Options::default(), &[("x", tensor(a)), ("y", tensor(b))]).unwrap();
    let mut check = |name: &str, f: fn(i8, i8) -> i8| {
        let expected: Vec<i64> = a.iter().zip(&b).map(|(a, b)| f(*a, *b).into()).collect();
        assert_eq!(found.remove(name).unwrap().as_slice::<i64>().unwrap(), expected, "{name}");
    };
    check("left", |a, b| if (0..8).contains(&b) { ((i32::from(a)) << b) as i8 } else { 0 });
    check("right", |a, b| if (0..8).contains(&b) { a >> b } else { a >> 7 });
    check("xor", |a, b| a ^ b);
    check("and", |a, b| a & b);
    check("or", |a, b| a | b);
    check("not", |a, _| !a);
}

#[test]
fn a_transform_comes_back() {
    let axis = int_tensor("axis", &[], &[1]);
    let there = node("DFT", &["x", "", "axis"], &["f"], vec![attribute::int("onesided", 1)]);
    let back =
        node("DFT", &["f", "", "axis"], &["y"], vec![attribute::int("onesided", 1), attribute::int("inverse", 1)]);
    let mut proto = model(graph(vec![there, back], vec![axis], vec![port("x", &["1", "6", "1"])], &["f", "y"]));
    proto.opset_import[0].version = Some(20);
    let x = [1.0, -2.0, 3.5, 0.0, 4.0, -1.0];
    let mut found = run(&proto, &Options::default(), &[("x", floats(&x, &[1, 6, 1]))]).unwrap();
    let f = found.remove("f").unwrap();
    assert_eq!(f.shape(), [1, 4, 2]);
    assert!((f.as_slice::<f32>().unwrap()[0] - x.iter().sum::<f32>()).abs() < 1e-5);
    for (found, expected) in found.remove("y").unwrap().as_slice::<f32>().unwrap().iter().zip(x) {
        assert!((found - expected).abs() < 1e-5, "{found} {expected}");
    }
}

#[test]
fn an_image_between_its_pixels() {
    // From corner to corner: the centre of four pixels, a pixel, and a place half outside.
    let sample = node("GridSample", &["x", "g"], &["y"], vec![attribute::int("align_corners", 1)]);
    let g = tensor("g", &[1, 1, 3, 2], &[0.0, 0.0, 1.0, -1.0, 2.0, 1.0]);
    let outer = graph(vec![sample], vec![g], vec![port("x", &["1", "1", "2", "2"])], &["y"]);
    let found = results(outer, &[("x", floats(&[1.0, 2.0, 3.0, 4.0], &[1, 1, 2, 2]))]);
    assert_eq!(found[0], ("y".into(), vec![1, 1, 1, 3], vec![2.5, 2.0, 2.0]));
}
