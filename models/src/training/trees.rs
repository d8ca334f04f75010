//! Trees of any shape in three classes, by a rule that has to be followed up the tree.
//!
//! Some words are good, some bad, and some turn what they stand before into its opposite. The sense of a node is the sum of its
//! children's, unless its left child is such a word.

use super::lesson::{Problem, Settings, accuracy, batch_of, only_seeded, scalar};
use crate::Result;
use crate::treelstm::{self, TreeLstm, Trees};
use quearn::data::Tensor;
use quearn::training::{Draw, Plan, Recipe};
use quearn::{Session, Tensors};
use quearn_stage::graph::Graph;
use quearn_stage::rep::I64;

/// The network.
const NETWORK: TreeLstm = TreeLstm { vocabulary: 20, width: 16, hidden: 24, classes: 3 };
/// Trees to train on, and trees to test with.
const COUNTS: [usize; 2] = [1024, 256];
/// What the number of a word says by what is left of it over this.
const KINDS: i32 = 5;

/// Trees with their classes.
struct Planted {
    /// All batches: the inputs of a plan, with a leading dimension.
    train: Tensors,
    test: Tensors,
    tester: Graph,
    /// Levels above the leaves.
    levels: usize,
    batches: u64,
    batch: u64,
}

/// Seeded trees.
pub(super) fn begin(settings: &Settings) -> Result<Box<dyn Problem>> {
    only_seeded("treelstm", settings)?;
    let [train, test] = ["train", "test"].map(|part| format!("trees.{}.{part}", settings.seed));
    let batch = batch_of(COUNTS[0] as u64, settings)?;
    let trees = Trees::seeded(&train, COUNTS[0], NETWORK.vocabulary);
    let parts: Vec<Trees> = trees.chunks(batch as usize).filter(|part| part.len() == batch as usize).collect();
    let extents = common(&parts)?;
    let planned = |part: &Trees| {
        let mut inputs = treelstm::padded(part, &extents)?;
        inputs.insert("target".to_owned(), target(part)?);
        Result::Ok(inputs)
    };
    let train = stacked(&parts.iter().map(planned).collect::<Result<Vec<_>>>()?)?;
    let trees = Trees::seeded(&test, COUNTS[1], NETWORK.vocabulary);
    let mut test = treelstm::plan(&trees)?;
    test.insert("target".to_owned(), target(&trees)?);
    let tester = accuracy(&test, |s| NETWORK.planned(s, &test))?;
    Ok(Box::new(Planted { train, test, tester, levels: extents.len() - 1, batches: parts.len() as u64, batch }))
}

/// Extents of levels that all parts fit into.
fn common(parts: &[Trees]) -> Result<Vec<usize>> {
    parts.iter().try_fold(vec![], |mut most: Vec<usize>, part| {
        let extents = treelstm::extents(part)?;
        most.resize(most.len().max(extents.len()), 0);
        most.iter_mut().zip(extents).for_each(|(most, extent)| *most = extent.max(*most));
        Ok(most)
    })
}

/// Tensors of equal shapes, side by side in a new leading dimension.
fn stacked(parts: &[Tensors]) -> Result<Tensors> {
    let Some(first) = parts.first() else { return Ok(Tensors::new()) };
    let whole = |name: &String| {
        let mut values: Vec<i64> = vec![];
        for part in parts {
            values.extend(part[name].as_slice::<i64>()?);
        }
        Ok((name.clone(), Tensor::from_vec(values, &[parts.len() as u64, first[name].len() as u64])?))
    };
    first.keys().map(whole).collect()
}

/// The classes of trees: bad, neither, good.
fn target(trees: &Trees) -> Result<Tensor> {
    let mut senses: Vec<i64> = vec![];
    let mut classes = vec![];
    for tree in trees.offsets.windows(2) {
        let first = tree[0] as usize;
        for node in first..tree[1] as usize {
            let [left, right] = [&trees.left, &trees.right].map(|child| first + child[node].max(0) as usize);
            let sense = match trees.left[node] {
                ..0 => [1, 1, -1, -1, 0][(trees.word[node] % KINDS) as usize],
                _ if turns(trees, left) => -senses[right],
                _ => (senses[left] + senses[right]).clamp(-2, 2),
            };
            senses.push(sense);
        }
        classes.push(senses[senses.len() - 1].signum() + 1);
    }
    let count = classes.len() as u64;
    Ok(Tensor::from_vec(classes, &[count])?)
}

/// Is a node a word that turns what comes behind it?
fn turns(trees: &Trees, node: usize) -> bool {
    trees.left[node] < 0 && trees.word[node] % KINDS == KINDS - 1
}

impl Problem for Planted {
    fn inputs(&self) -> &Tensors {
        &self.train
    }

    fn rows(&self) -> u64 {
        self.batches * self.batch
    }

    fn batch(&self) -> u64 {
        self.batch
    }

    fn steps(&self) -> u64 {
        self.batches
    }

    fn plan(&self, recipe: Recipe) -> Result<Plan> {
        Ok(Plan::new(recipe, |s| {
            let draw = Draw::new(s, self.batches, 1);
            let one = |name: &str| {
                let shape = self.train.get(name).map_or(&[][..], Tensor::shape);
                draw.rows(s.input::<I64>(name, shape.to_vec())).reshape(shape[1..].to_vec())
            };
            NETWORK.named(s, self.levels, one).cross_entropy(one("target"))
        })?)
    }

    fn measured(&self, session: &Session, weights: Tensors) -> Result<f64> {
        let given = weights.into_iter().chain(self.test.clone()).collect();
        scalar(session, &self.tester, &given, "accuracy")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ((turn good) bad), a word, (good good).
    #[test]
    fn senses_go_up_the_tree() {
        let trees = Trees {
            offsets: vec![0, 5, 6, 9],
            left: vec![-1, -1, 0, -1, 2, -1, -1, -1, 0],
            right: vec![-1, -1, 1, -1, 3, -1, -1, -1, 1],
            word: vec![9, 0, -1, 7, -1, 4, 0, 6, -1],
        };
        assert_eq!(target(&trees).unwrap().as_slice::<i64>().unwrap(), [0, 1, 2]);
    }
}
