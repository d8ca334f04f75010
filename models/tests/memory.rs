//! The memory that intermediate tensors share is hardly larger than what of them is live at once.

use quearn::{Level, Session};
use quearn_models::networks::{NETWORKS, Network, SMALL};
use std::collections::BTreeMap;

/// Largest size of an arena beside what is live in it at once.
const MOST: f64 = 1.10;

/// The ratios that `explain` prints for a network.
fn ratios(network: &Network, batch: u64) -> Vec<f64> {
    let session = Session::builder().threads(1).build().unwrap();
    let graph = network.graph(&network.seeded_inputs(batch, &BTreeMap::new()).unwrap()).unwrap();
    let text = session.explain(&graph, Level::Pipelines).unwrap();
    let lines = text.lines().filter(|line| line.starts_with("arena: "));
    lines.filter_map(|line| line.split_once(": ratio ")).map(|(_, ratio)| ratio.parse().unwrap()).collect()
}

#[test]
fn arenas_are_not_much_larger_than_what_is_live() {
    for network in NETWORKS.iter().chain(SMALL) {
        for batch in [1, 3] {
            let ratios = ratios(network, batch);
            println!("{} batch {batch}: {ratios:?}", network.name);
            assert!(ratios.iter().all(|ratio| *ratio <= MOST), "{} batch {batch}: {ratios:?}", network.name);
        }
    }
    // Programs whose tensors never leave registers have no arena; most do.
    assert!(NETWORKS.iter().filter(|network| !ratios(network, 1).is_empty()).count() > NETWORKS.len() / 2);
}
