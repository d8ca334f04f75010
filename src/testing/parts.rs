//! A program in two parts: a query, and what a model and further operators make of its rows. The whole is one program; the
//! parts are two, with a table in Arrow's form between them.

use super::Case;
use super::maker::{Col, Maker, Rel};
use quearn_stage::graph::{Field, Graph, Op, Scalar};

/// The table that the second part reads.
pub const BETWEEN: &str = "between";

/// A program as a whole and in two parts.
#[derive(Debug)]
pub struct Parts {
    /// The whole, with all data.
    pub whole: Case,
    /// The first part; its only result is `between`.
    pub query: Graph,
    /// The second part, which scans the table `between`.
    pub model: Graph,
}

impl Parts {
    /// A random program: joins and filters, then features, a model, and a group-by, a filter or a top-k on its scores.
    pub fn random(seed: u64, size: usize) -> Parts {
        let mut maker = Maker::new(seed, size);
        let mut rel = maker.table();
        for _ in 0..maker.rng.below(3) {
            rel = if maker.rng.percent(60) { maker.join(rel) } else { maker.filter(rel) };
        }
        let rel = maker.without_intervals(rel);
        let mut query = maker.graph.clone();
        query.output(BETWEEN, rel.node);
        let mut second = Maker::new(seed, size);
        let fields = rel.columns.iter().map(|c| Field { name: c.name.clone(), elem: c.elem, shape: vec![] }).collect();
        let node = second.add(Op::Scan { table: BETWEEN.to_owned(), fields }, &[]);
        let between = Rel { node, columns: rel.columns.clone() };
        second.continue_from(&maker);
        let ordered = finish(&mut maker, rel);
        assert_eq!(finish(&mut second, between), ordered, "the same choices");
        Parts { whole: Case::of(maker, seed, vec![ordered]), query, model: second.graph }
    }
}

/// The second part; can its rows come in one order only?
fn finish(maker: &mut Maker, mut rel: Rel) -> bool {
    for _ in 0..maker.rng.below(2) + 1 {
        rel = maker.bridge(rel);
        if maker.rng.percent(40) {
            rel = maker.filter(rel);
        }
    }
    let (rel, ordered) = match maker.rng.below(3) {
        0 => (maker.aggregate(rel), false),
        1 => (maker.top(rel), true),
        _ => (rel, false),
    };
    maker.graph.output("out", rel.node);
    ordered
}

impl Maker {
    /// The columns that any system takes.
    fn without_intervals(&mut self, rel: Rel) -> Rel {
        let kept: Vec<Col> = rel.columns.iter().filter(|c| c.elem.scalar != Scalar::Interval).cloned().collect();
        let columns = kept.into_iter().map(|col| (col.name.clone(), self.column(&rel, &col), col.exact)).collect();
        self.project_as(&rel, columns)
    }

    /// Makes the choices from here on that the other will make.
    fn continue_from(&mut self, other: &Maker) {
        self.rng = other.rng.clone();
        self.names = other.names;
        self.size = other.size;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_part_is_that_of_the_whole() {
        for seed in 0..50 {
            let parts = Parts::random(seed, 3);
            let models = |graph: &Graph| graph.reachable().iter().filter(|n| *graph.op(**n) == Op::MatMul).count();
            // The query may have some of its own, on the right side of a join.
            assert_eq!(models(&parts.whole.graph), models(&parts.query) + models(&parts.model), "seed {seed}");
        }
    }
}
