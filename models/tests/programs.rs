//! The programs, run by the naive evaluator, give what PyTorch and DuckDB give.

use quearn::data::Tensor;
use quearn::eval::{EvalTable, EvalTensor, EvalValue, Inputs, evaluate};
use quearn_models::check::{TOLERANCE, check_tensor};
use quearn_models::pipelines::image_classes::{self, Set, image_classes};
use quearn_models::squeezenet::{CHANNELS, squeezenet1_1};
use quearn_models::weights::Weights;
use quearn_models::{check, weights};
use quearn_stage::rep::{Marker, Rep, Stage};

/// The only output of the program that `write` writes.
fn run<T: Marker>(inputs: &Inputs, write: impl for<'s> FnOnce(&'s Stage) -> Rep<'s, T>) -> EvalValue {
    let s = Stage::new();
    s.output("result", write(&s));
    let mut outputs = evaluate(&s.finish().unwrap(), inputs).unwrap();
    outputs.remove(0).1
}

fn with_weights(inputs: Inputs, weights: &Weights) -> Inputs {
    weights.iter().fold(inputs, |inputs, (name, tensor)| inputs.tensor(name, EvalTensor::from(tensor)))
}

#[test]
fn squeezenet_agrees_with_pytorch() {
    let references = check::squeezenet1_1().unwrap();
    let reference = references.iter().find(|r| r.image.shape()[2] == 64).unwrap();
    let inputs = Inputs::new().tensor("image", EvalTensor::from(&reference.image));
    let inputs = with_weights(inputs, &weights::squeezenet1_1().unwrap());
    let logits = run(&inputs, |s| squeezenet1_1(s, s.input("image", ("batch", CHANNELS as u64, 64, 64))));
    check_tensor(&Tensor::try_from(&**logits.tensor()).unwrap(), &reference.logits, TOLERANCE).unwrap();
}

#[test]
fn image_classes_agree_with_duckdb_and_pytorch() {
    let scale = 0.01;
    let data = image_classes::data(Set::A, scale, &|_| ()).unwrap();
    let inputs = Inputs::new()
        .table("images", EvalTable::from(&data.images))
        .table("cameras", EvalTable::from(&data.cameras))
        .tensor("pixels", EvalTensor::from(&data.pixels));
    let inputs = with_weights(inputs, &data.weights);
    let classes = run(&inputs, |s| image_classes(s, Set::A, scale));
    image_classes::check(Set::A, scale, &classes.table().to_batch().unwrap()).unwrap();
}
