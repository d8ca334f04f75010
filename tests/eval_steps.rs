//! Steps along an axis, as the naive evaluator takes them, against values computed by hand.

use quearn::eval::{EvalTensor, Inputs, evaluate};
use quearn_stage::graph::{Scalar, parse};

/// The last sums, and the sums before each step.
fn run(steps: &str) -> [Vec<f64>; 2] {
    let text = format!(
        "v0: [3, 3] f32 = tensor.input \"x\"
         v1: [3] f32 = tensor.input \"begin\"
         v2: ([3] f32, [3, 3] f32) = control.steps v1, v0 count 3 carried 1 {steps} {{
           v3: [3] f32 = control.param region 0 index 0
           v4: [3] f32 = control.param region 0 index 1
           v5: [3] f32 = scalar.add v3, v4
           return v5, v3
         }}
         v6: [3] f32 = control.item v2 at 0
         v7: [3, 3] f32 = control.item v2 at 1
         return \"last\" v6
         return \"before\" v7"
    );
    let x = vec![1.0, 2.0, 3.0, 10.0, 20.0, 30.0, 100.0, 200.0, 300.0];
    let inputs = Inputs::new()
        .tensor("x", EvalTensor::floats(Scalar::F32, &[3, 3], x))
        .tensor("begin", EvalTensor::floats(Scalar::F32, &[3], vec![0.0, 0.0, 0.5]));
    let values = evaluate(&parse(&text).unwrap(), &inputs).unwrap();
    [0, 1].map(|i: usize| values[i].1.tensor().as_floats().to_vec())
}

#[test]
fn forwards_backwards_and_along_another_axis() {
    let [last, before] = run("axis 0");
    assert_eq!(last, [111.0, 222.0, 333.5]);
    assert_eq!(before, [0.0, 0.0, 0.5, 1.0, 2.0, 3.5, 11.0, 22.0, 33.5]);
    let [last, before] = run("axis 0 back");
    assert_eq!(last, [111.0, 222.0, 333.5]);
    assert_eq!(before, [110.0, 220.0, 330.5, 100.0, 200.0, 300.5, 0.0, 0.0, 0.5]);
    let [last, before] = run("axis 1");
    assert_eq!(last, [6.0, 60.0, 600.5]);
    assert_eq!(before, [0.0, 1.0, 3.0, 0.0, 10.0, 30.0, 0.5, 100.5, 300.5]);
}
