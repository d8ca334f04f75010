//! Networks that are saved and loaded by another session give the same bits.
#![cfg(any(feature = "llvm", feature = "llvm19"))]

use quearn::{BackendKind, Session, Tensors};
use quearn_models::networks::{Network, SMALL};
use quearn_models::pipelines::{Pipeline, Results};
use quearn_models::weights;
use std::collections::BTreeMap;

fn session(tensors: &[&Tensors]) -> Session {
    let mut session = Session::builder().backend(BackendKind::Llvm).threads(2).build().unwrap();
    for (name, tensor) in tensors.iter().flat_map(|tensors| tensors.iter()) {
        session.bind(name, tensor.clone());
    }
    session
}

#[test]
fn networks_give_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let others = ["squeezenet1_1", "lenet", "mlp"].map(|name| Network::find(name).unwrap());
    for network in SMALL.iter().chain(others) {
        let inputs = network.seeded_inputs(2, &BTreeMap::new()).unwrap();
        let graph = network.graph(&inputs).unwrap();
        let weights = weights::for_graph(network.name, &graph).unwrap();
        let path = folder.path().join(network.name);
        let saved = session(&[&weights, &inputs]);
        let program = saved.compile(&graph).unwrap();
        program.save(&path).unwrap();
        let want = program.run(&saved).unwrap();
        drop((program, saved));

        let fresh = session(&[&weights, &inputs]);
        let program = fresh.load_for(&graph, &path).unwrap();
        let found = program.run(&fresh).unwrap();
        for name in network.outputs {
            assert_eq!(found.tensor(name).unwrap(), want.tensor(name).unwrap(), "{} {name}", network.name);
        }
        let bytes = std::fs::metadata(&path).unwrap().len();
        let (compile, load) = (program.compile_ms(), program.load_ms().unwrap());
        println!("{}: {bytes} bytes, compiled in {compile:.1} ms, loaded in {load:.1} ms", network.name);
    }
}

/// A query with a network in it.
#[test]
fn a_pipeline_gives_the_same_counts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipeline");
    let scale = 0.01;
    let pipeline = Pipeline::find("P9a").unwrap();
    let fresh = || {
        let mut session = session(&[]);
        pipeline.data(scale, &|_| ()).unwrap().bind(&mut session);
        session
    };
    let graph = pipeline.graph(scale).unwrap();
    fresh().compile(&graph).unwrap().save(&path).unwrap();
    let session = fresh();
    let outputs = session.load(&path).unwrap().run(&session).unwrap();
    pipeline.check(&pipeline.answer(&Results::from(&outputs), scale).unwrap(), scale).unwrap();
}
