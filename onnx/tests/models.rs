//! Small models made by hand, run through the whole compiler.

mod common;

use common::{attribute, floats, graph, ints, model, node, port, run, tensor};
use quearn_onnx::proto::AttributeProto;
use quearn_onnx::{Options, import};
use quearn_stage::graph::Dim;

#[test]
fn a_layer_with_an_open_batch() {
    let w = tensor("w", &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let b = tensor("b", &[2], &[0.5, -100.0]);
    let gemm = node("Gemm", &["x", "w", "b"], &["y"], vec![attribute::int("transB", 1)]);
    let relu = node("Relu", &["y"], &["z"], vec![]);
    let model = model(graph(vec![gemm, relu], vec![w, b], vec![port("x", &["batch", "3"])], &["z"]));
    let made = import(&model, None, &Options::default()).unwrap();
    assert_eq!(made.inputs[0].shape, [Dim::Named("batch".into()), Dim::Const(3)]);
    for batch in [1u64, 2, 5] {
        let x: Vec<f32> = (0..batch * 3).map(|i| i as f32).collect();
        let z = run(&model, &Options::default(), &[("x", floats(&x, &[batch, 3]))]).unwrap().remove("z").unwrap();
        let expected: Vec<f32> = x
            .chunks(3)
            .flat_map(|r| {
                let dot = |w: [f32; 3]| r[0] * w[0] + r[1] * w[1] + r[2] * w[2];
                [(dot([1.0, 2.0, 3.0]) + 0.5).max(0.0), (dot([4.0, 5.0, 6.0]) - 100.0).max(0.0)]
            })
            .collect();
        assert_eq!(z.as_slice::<f32>().unwrap(), expected);
    }
}

#[test]
fn shapes_are_computed_at_import() {
    // reshape(x, concat(gather(shape(x), 0), [-1])) with an open batch.
    let zero = common::int_tensor("zero", &[], &[0]);
    let open = common::int_tensor("open", &[1], &[-1]);
    let axes = common::int_tensor("axes", &[1], &[0]);
    let nodes = vec![
        node("Shape", &["x"], &["shape"], vec![]),
        node("Gather", &["shape", "zero"], &["n"], vec![]),
        node("Unsqueeze", &["n", "axes"], &["n1"], vec![]),
        node("Concat", &["n1", "open"], &["to"], vec![attribute::int("axis", 0)]),
        node("Reshape", &["x", "to"], &["y"], vec![]),
    ];
    let model = model(graph(nodes, vec![zero, open, axes], vec![port("x", &["n", "2", "3"])], &["y"]));
    let x: Vec<f32> = (0..24).map(|i| i as f32).collect();
    let y = run(&model, &Options::default(), &[("x", floats(&x, &[4, 2, 3]))]).unwrap().remove("y").unwrap();
    assert_eq!((y.shape(), y.as_slice::<f32>().unwrap()), (&[4, 6][..], &x[..]));
}

#[test]
fn a_shape_that_is_an_input_must_be_given() {
    let reshape = node("Reshape", &["x", "to"], &["y"], vec![]);
    let inputs = vec![port("x", &["6"]), common::int_port("to", &["2"])];
    let model = model(graph(vec![reshape], vec![], inputs, &["y"]));
    let error = import(&model, None, &Options::default()).err().unwrap().to_string();
    assert!(error.contains("node \"y\" (Reshape)") && error.contains("must be known at import"), "{error}");
    let to = ints(&[3, 2], &[2]);
    let options = Options { values: [("to".to_owned(), to.clone())].into(), ..Options::default() };
    assert!(import(&model, None, &options).unwrap().given.contains("to"));
    let x = floats(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[6]);
    let y = run(&model, &options, &[("x", x), ("to", to)]).unwrap().remove("y").unwrap();
    assert_eq!(y.shape(), [3, 2]);
}

#[test]
fn windows_with_uneven_padding() {
    // Ones of 2 x 2 over a 3 x 3 image with a line of zeros below and to the right.
    let w = tensor("w", &[1, 1, 2, 2], &[1.0; 4]);
    let conv = node("Conv", &["x", "w"], &["y"], vec![attribute::ints("pads", &[0, 0, 1, 1])]);
    let pool = node(
        "MaxPool",
        &["x"],
        &["z"],
        vec![attribute::ints("kernel_shape", &[2, 2]), attribute::ints("pads", &[1, 0, 0, 1])],
    );
    let model = model(graph(vec![conv, pool], vec![w], vec![port("x", &["1", "1", "3", "3"])], &["y", "z"]));
    let x: Vec<f32> = (1..=9).map(|i| i as f32).collect();
    let mut results = run(&model, &Options::default(), &[("x", floats(&x, &[1, 1, 3, 3]))]).unwrap();
    let y = results.remove("y").unwrap();
    assert_eq!(y.as_slice::<f32>().unwrap(), [12.0, 16.0, 9.0, 24.0, 28.0, 15.0, 15.0, 17.0, 9.0]);
    let z = results.remove("z").unwrap();
    assert_eq!(z.as_slice::<f32>().unwrap(), [2.0, 3.0, 3.0, 5.0, 6.0, 6.0, 8.0, 9.0, 9.0]);
}

#[test]
fn slices_go_backwards_and_results_may_be_scalars() {
    let bounds: Vec<_> = [("from", 3), ("to", -9), ("axes", 0), ("steps", -2)]
        .map(|(name, n)| common::int_tensor(name, &[1], &[n]))
        .into();
    let slice = node("Slice", &["x", "from", "to", "axes", "steps"], &["y"], vec![]);
    let sum = node("ReduceSum", &["y"], &["s"], vec![attribute::int("keepdims", 0)]);
    let model = model(graph(vec![slice, sum], bounds, vec![port("x", &["4"])], &["y", "s"]));
    let mut results = run(&model, &Options::default(), &[("x", floats(&[1.0, 2.0, 3.0, 4.0], &[4]))]).unwrap();
    assert_eq!(results.remove("y").unwrap().as_slice::<f32>().unwrap(), [4.0, 2.0]);
    let s = results.remove("s").unwrap();
    assert_eq!((s.shape(), s.as_slice::<f32>().unwrap()), (&[][..], &[6.0][..]));
}

#[test]
fn a_recurrent_step_by_hand() {
    // One unit, one input: h = tanh(w x + r h + b).
    let (w, r, b) =
        (tensor("w", &[1, 1, 1], &[0.5]), tensor("r", &[1, 1, 1], &[-1.0]), tensor("b", &[1, 2], &[0.1, 0.2]));
    let rnn = node("RNN", &["x", "w", "r", "b"], &["y", "h"], vec![attribute::int("hidden_size", 1)]);
    let model = model(graph(vec![rnn], vec![w, r, b], vec![port("x", &["3", "1", "1"])], &["y", "h"]));
    let mut results = run(&model, &Options::default(), &[("x", floats(&[1.0, 2.0, 3.0], &[3, 1, 1]))]).unwrap();
    let y = results.remove("y").unwrap();
    let mut h = 0f32;
    for (x, y) in [1.0f32, 2.0, 3.0].iter().zip(y.as_slice::<f32>().unwrap()) {
        h = (0.5 * x - h + 0.3).tanh();
        assert!((y - h).abs() < 1e-6, "{y} {h}");
    }
}

#[test]
fn recurrent_networks_walk_both_ways() {
    // h = tanh(w x + r h), from a state that is given, forwards and backwards, over many steps.
    let (w, r) = (tensor("w", &[2, 1, 1], &[0.5, -0.25]), tensor("r", &[2, 1, 1], &[-1.0, 0.75]));
    let (name, way) = (Some("direction".into()), Some(b"bidirectional".to_vec()));
    let both = AttributeProto { name, s: way, r#type: Some(3), ..Default::default() };
    let attributes = vec![attribute::int("hidden_size", 1), both];
    let rnn = node("RNN", &["x", "w", "r", "", "", "begin"], &["y", "h"], attributes);
    let ports = vec![port("x", &["3000", "2", "1"]), port("begin", &["2", "2", "1"])];
    let model = model(graph(vec![rnn], vec![w, r], ports, &["y", "h"]));
    let x: Vec<f32> = (0..6000).map(|i| (i % 7) as f32 / 3.0 - 1.0).collect();
    let begin = [0.5f32, -0.5, 0.25, 1.0];
    let given = [("x", floats(&x, &[3000, 2, 1])), ("begin", floats(&begin, &[2, 2, 1]))];
    let mut results = run(&model, &Options::default(), &given).unwrap();
    let [y, h] = ["y", "h"].map(|name| results.remove(name).unwrap());
    let (y, h) = (y.as_slice::<f32>().unwrap(), h.as_slice::<f32>().unwrap());
    for (way, (w, r)) in [(0.5f32, -1.0f32), (-0.25, 0.75)].into_iter().enumerate() {
        for item in 0..2 {
            let mut state = begin[2 * way + item];
            for step in 0..3000 {
                let at = if way == 0 { step } else { 2999 - step };
                state = (w * x[2 * at + item] + r * state).tanh();
                let found = y[4 * at + 2 * way + item];
                assert!((found - state).abs() < 1e-4, "way {way} step {step}: {found}, expected {state}");
            }
            assert!((h[2 * way + item] - state).abs() < 1e-4);
        }
    }
}
