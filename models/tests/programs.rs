//! The programs, run by the naive evaluator, give what PyTorch and DuckDB give.

use quearn::data::Tensor;
use quearn::eval::{EvalTable, EvalTensor, EvalValue, Inputs, evaluate};
use quearn_models::check::{Reference, TOLERANCE, check_tensor, references};
use quearn_models::networks::{Network, SMALL};
use quearn_models::pipelines::image_classes::{self, Set, image_classes};
use quearn_models::weights;
use quearn_models::weights::Weights;
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

/// Evaluates a network on the inputs of a reference and compares the outputs.
fn check_network(network: &Network, reference: &Reference) {
    let graph = network.graph(&reference.inputs).unwrap();
    let inputs = with_weights(Inputs::new(), &weights::for_graph(network.name, &graph).unwrap());
    let inputs = with_weights(inputs, &reference.inputs);
    for (name, value) in evaluate(&graph, &inputs).unwrap() {
        let found = Tensor::try_from(&**value.tensor()).unwrap();
        check_tensor(&found, &reference.outputs[&name], TOLERANCE)
            .unwrap_or_else(|e| panic!("{} {name}: {e}", network.name));
    }
}

#[test]
fn squeezenet_agrees_with_pytorch() {
    let squeezenet = Network::find("squeezenet1_1").unwrap();
    let references = references(squeezenet).unwrap();
    check_network(squeezenet, references.iter().find(|r| r.inputs["image"].shape()[2] == 64).unwrap());
}

#[test]
fn small_networks_agree_with_pytorch() {
    let lenet = ["lenet", "mlp"].map(|name| Network::find(name).unwrap());
    for network in SMALL.iter().chain(lenet) {
        references(network).unwrap().iter().for_each(|reference| check_network(network, reference));
    }
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
