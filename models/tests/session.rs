//! The programs, compiled and run by each backend, give what PyTorch gives.

use quearn::data::Tensor;
use quearn::eval::{EvalTensor, Inputs, evaluate};
use quearn::{BackendKind, Session};
use quearn_models::check::{Reference, TOLERANCE, check_tensor, references};
use quearn_models::generate::Generator;
use quearn_models::gpt2;
use quearn_models::networks::{Network, SMALL};
use quearn_models::weights::{self, Weights};
use std::collections::BTreeMap;

fn session(backend: BackendKind, threads: usize) -> Session {
    Session::builder().backend(backend).threads(threads).build().unwrap()
}

fn bind(session: &mut Session, weights: Weights) {
    weights.into_iter().for_each(|(name, tensor)| session.bind(name, tensor));
}

/// Runs a network on the inputs of its references and compares the outputs.
fn check_network(backend: BackendKind, threads: usize, network: &Network, wanted: impl Fn(&Reference) -> bool) {
    for reference in references(network).unwrap().into_iter().filter(wanted) {
        let graph = network.graph(&reference.inputs).unwrap();
        let mut session = session(backend, threads);
        bind(&mut session, weights::for_graph(network.name, &graph).unwrap());
        bind(&mut session, reference.inputs.clone());
        let outputs = session.run(&graph).unwrap();
        for (name, want) in &reference.outputs {
            check_tensor(outputs.tensor(name).unwrap(), want, TOLERANCE)
                .unwrap_or_else(|e| panic!("{} {name}: {e}", network.name));
        }
    }
}

/// Checks SqueezeNet on small pictures, or on all there are.
fn squeezenet(backend: BackendKind, threads: usize, small: bool) {
    let network = Network::find("squeezenet1_1").unwrap();
    check_network(backend, threads, network, |r| !small || r.inputs["image"].shape()[2] == 64);
}

/// Checks the networks that have references and few weights.
fn small_networks(backend: BackendKind, threads: usize) {
    let others = ["lenet", "mlp"].map(|name| Network::find(name).unwrap());
    SMALL.iter().chain(others).for_each(|network| check_network(backend, threads, network, |_| true));
}

/// One program for any number of items, on several numbers of them, against the naive evaluator.
fn open_batches(backend: BackendKind, threads: usize, names: &[&str]) {
    for network in names.iter().map(|name| Network::find(name).unwrap()) {
        let seeded = |batch| network.seeded_inputs(batch, &BTreeMap::new()).unwrap();
        let graph = network.open_graph(&seeded(3)).unwrap();
        let weights = weights::for_graph(network.name, &graph).unwrap();
        let mut session = session(backend, threads);
        bind(&mut session, weights.clone());
        let program = session.compile(&graph).unwrap();
        for batch in [1, 2, 7, 16] {
            let inputs = seeded(batch);
            let given = weights.iter().chain(&inputs);
            let given = given.fold(Inputs::new(), |all, (name, tensor)| all.tensor(name, EvalTensor::from(tensor)));
            bind(&mut session, inputs.clone());
            let outputs = program.run(&session).unwrap();
            for (name, value) in evaluate(&network.graph(&inputs).unwrap(), &given).unwrap() {
                let want = Tensor::try_from(&**value.tensor()).unwrap();
                check_tensor(outputs.tensor(&name).unwrap(), &want, TOLERANCE)
                    .unwrap_or_else(|e| panic!("{} batch {batch} {name}: {e}", network.name));
            }
        }
    }
}

#[test]
fn open_batches_are_interpreted() {
    open_batches(BackendKind::Interp, 2, &["bert_tiny"]);
}

#[cfg(any(feature = "llvm", feature = "llvm19"))]
#[test]
fn open_batches_are_compiled() {
    for threads in [1, 2] {
        open_batches(BackendKind::Llvm, threads, &["mlp", "bert_tiny", "resnet_basic_tiny", "lenet"]);
    }
}

#[test]
fn a_batch_that_does_not_lead_cannot_be_open() {
    let network = Network::find("lstm_lm_tiny").unwrap();
    let inputs = network.seeded_inputs(1, &BTreeMap::new()).unwrap();
    let error = network.open_graph(&inputs).unwrap_err().to_string();
    assert_eq!(error, "lstm_lm_tiny: the batch is not the leading dimension of its inputs");
}

/// Writes two texts word by word; the logits are those of the whole texts at once.
fn generation(backend: BackendKind, threads: usize) {
    let network = Network::find("gpt2_tiny").unwrap();
    for reference in references(network).unwrap() {
        let texts = &reference.inputs["input_ids"];
        let (batch, length) = (texts.shape()[0], texts.shape()[1]);
        let mut session = session(backend, threads);
        bind(&mut session, weights::for_graph(network.name, &network.graph(&reference.inputs).unwrap()).unwrap());
        let mut generator = Generator::new(&gpt2::TINY, &session, batch, length).unwrap();
        for at in 0..length as usize {
            let nth = |text: usize| text * length as usize + at;
            let words = (0..batch as usize).map(|text| texts.as_slice::<i64>().unwrap()[nth(text)]).collect::<Vec<_>>();
            let logits = generator.step(&words).unwrap();
            let want = reference.outputs["logits"].as_slice::<f32>().unwrap();
            let width = gpt2::TINY.vocabulary as usize;
            let want = (0..batch as usize).flat_map(|text| want[nth(text) * width..][..width].to_vec()).collect();
            check_tensor(&logits, &Tensor::from_vec(want, logits.shape()).unwrap(), TOLERANCE).unwrap();
        }
        let full = generator.step(&vec![0; batch as usize]).unwrap_err();
        assert_eq!(full.to_string(), "text: there is room for 7 words only");
    }
}

#[cfg(any(feature = "llvm", feature = "llvm19"))]
mod llvm {
    use super::*;

    #[test]
    fn squeezenet_agrees_with_pytorch() {
        for threads in [1, 2] {
            squeezenet(BackendKind::Llvm, threads, false);
        }
    }

    #[test]
    fn small_networks_agree_with_pytorch() {
        [1, 2].into_iter().for_each(|threads| small_networks(BackendKind::Llvm, threads));
    }

    #[test]
    fn words_one_by_one_are_the_whole_text() {
        [1, 2].into_iter().for_each(|threads| generation(BackendKind::Llvm, threads));
    }
}

#[test]
fn squeezenet_agrees_with_pytorch_when_interpreted() {
    squeezenet(BackendKind::Interp, 1, true);
}

#[test]
fn small_networks_agree_with_pytorch_when_interpreted() {
    small_networks(BackendKind::Interp, 2);
}

#[test]
fn words_one_by_one_are_the_whole_text_when_interpreted() {
    generation(BackendKind::Interp, 1);
}
