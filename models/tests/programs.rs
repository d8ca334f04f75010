//! The programs, run by the naive evaluator, give what PyTorch gives.

use quearn::data::Tensor;
use quearn::eval::{EvalTensor, Inputs, evaluate};
use quearn_models::check::{Reference, TOLERANCE, check_tensor, references};
use quearn_models::networks::{Network, SMALL};
use quearn_models::weights;
use quearn_models::weights::Weights;

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
