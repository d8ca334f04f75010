//! Operators of quantised models: products of bytes, with and without zero points.

mod common;

use common::{attribute, byte_tensor, floats, graph, model, node, port, run, tensor, typed_port};
use quearn::data::Tensor;
use quearn_onnx::proto::{ModelProto, NodeProto, TensorProto};
use quearn_onnx::{Options, import};
use quearn_stage::graph::{Graph, Node, Op, Scalar};

const UNSIGNED: i32 = 2;
const SIGNED: i32 = 3;

/// Does the model multiply bytes, and nothing else?
fn multiplies_bytes(graph: &Graph) -> bool {
    let is_product = |n: &Node| matches!(graph.op(*n), Op::MatMul | Op::Conv2d(_));
    let mut products = (0..graph.len() as u32).map(Node).filter(is_product).peekable();
    products.peek().is_some() && products.all(|n| graph.ty(n).as_tensor().unwrap().0.scalar == Scalar::I32)
}

fn check(node: NodeProto, weights: Vec<TensorProto>, x: [u8; 6], signed: bool, expected: &[i32]) {
    let kind = if signed { SIGNED } else { UNSIGNED };
    let inputs = vec![typed_port("x", &["2", "3"], kind)];
    let model: ModelProto = model(graph(vec![node], weights, inputs, &["y"]));
    assert!(multiplies_bytes(&import(&model, None, &Options::default()).unwrap().graph));
    let x = match signed {
        true => Tensor::from_vec(x.map(|x| x as i8).to_vec(), &[2, 3]).unwrap(),
        false => Tensor::from_vec(x.to_vec(), &[2, 3]).unwrap(),
    };
    let y = run(&model, &Options::default(), &[("x", x)]).unwrap().remove("y").unwrap();
    assert_eq!(y.as_slice::<i32>().unwrap(), expected);
}

const X: [u8; 6] = [0, 255, 7, 128, 100, 1];

fn weight() -> TensorProto {
    byte_tensor("w", &[3, 2], SIGNED, &[1, 128, 127, 255, 0, 5])
}

fn product(x: impl Fn(u8) -> i32) -> Vec<i32> {
    let w = [[1, -128], [127, -1], [0, 5]];
    X.chunks(3).flat_map(|row| [0, 1].map(|j| (0..3).map(|k| x(row[k]) * w[k][j]).sum())).collect()
}

#[test]
fn matrices() {
    let zeros = byte_tensor("wz", &[2], SIGNED, &[0, 0]);
    let with = |inputs: &[&str]| node("MatMulInteger", inputs, &["y"], vec![]);
    check(with(&["x", "w"]), vec![weight()], X, false, &product(i32::from));
    check(with(&["x", "w", "", "wz"]), vec![weight(), zeros.clone()], X, false, &product(i32::from));
    check(with(&["x", "w"]), vec![weight()], X, true, &product(|x| i32::from(x as i8)));
    let zero = byte_tensor("z", &[], UNSIGNED, &[9]);
    check(with(&["x", "w", "z", "wz"]), vec![weight(), zeros, zero], X, false, &product(|x| i32::from(x) - 9));
}

#[test]
fn a_quantised_layer_as_exporters_write_it() {
    let scalar = |name: &str, value: f32| tensor(name, &[], &[value]);
    let weights = vec![
        scalar("xs", 0.5),
        byte_tensor("xz", &[], UNSIGNED, &[3]),
        byte_tensor("w", &[2, 1, 1, 1], SIGNED, &[2, 255]),
        tensor("ws", &[2], &[0.25, 2.0]),
        byte_tensor("wz", &[2], SIGNED, &[0, 0]),
        scalar("ys", 0.125),
        byte_tensor("yz", &[], UNSIGNED, &[10]),
    ];
    let nodes = vec![
        node("QuantizeLinear", &["x", "xs", "xz"], &["q"], vec![]),
        node("DequantizeLinear", &["q", "xs", "xz"], &["d"], vec![]),
        node("DequantizeLinear", &["w", "ws", "wz"], &["f"], vec![attribute::int("axis", 0)]),
        node("Conv", &["d", "f"], &["c"], vec![]),
        node("QuantizeLinear", &["c", "ys", "yz"], &["y"], vec![]),
    ];
    let model = model(graph(nodes, weights, vec![port("x", &["1", "1", "1", "4"])], &["y"]));
    let x = [-9.0, 0.3, 1.1, 100.0];
    let y = run(&model, &Options::default(), &[("x", floats(&x, &[1, 1, 1, 4]))]).unwrap().remove("y").unwrap();
    // -1.5, 0.5, 1 and 100 after the first; times 0.5 and -2, and in steps of 0.125 from 10.
    assert_eq!(y.as_slice::<u8>().unwrap(), [4, 12, 14, 255, 34, 2, 0, 0]);
}

#[test]
fn rescaled_products() {
    let scalar = |name: &str, value: f32| tensor(name, &[], &[value]);
    let weights = vec![
        weight(),
        scalar("xs", 0.5),
        byte_tensor("xz", &[], UNSIGNED, &[9]),
        tensor("ws", &[2], &[0.25, 0.125]),
        byte_tensor("wz", &[2], SIGNED, &[0, 0]),
        scalar("ys", 4.0),
        byte_tensor("yz", &[], UNSIGNED, &[128]),
    ];
    let inputs = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"];
    let node = node("QLinearMatMul", &inputs, &["y"], vec![]);
    let model = model(graph(vec![node], weights, vec![typed_port("x", &["2", "3"], UNSIGNED)], &["y"]));
    assert!(multiplies_bytes(&import(&model, None, &Options::default()).unwrap().graph));
    let x = Tensor::from_vec(X.to_vec(), &[2, 3]).unwrap();
    let y = run(&model, &Options::default(), &[("x", x)]).unwrap().remove("y").unwrap();
    let real = product(|x| i32::from(x) - 9).into_iter().enumerate().map(|(i, sum)| {
        let unit = 0.5 * if i % 2 == 0 { 0.25 } else { 0.125 } / 4.0;
        (f64::from(sum) * unit).round_ties_even() + 128.0
    });
    assert_eq!(y.as_slice::<u8>().unwrap(), real.map(|y| y.clamp(0.0, 255.0) as u8).collect::<Vec<_>>());
}
