//! Rewrites: every rule takes a graph to an equal one that is cheaper to run.
//!
//! | file | what it holds |
//! |---|---|
//! | `patch` | a change as a value |
//! | `rebuild` | the only place where a change is applied |
//! | `options` | a switch per rule, by name |
//! | `report` | which rule fired how often; what went wrong |
//! | `scatter_rows` | sums scattered over the rows of a table as joins, before the rules |
//! | `narrow_weights` | what a user asks for that changes results |
//! | `known` | what rules may know of the tables |
//! | `rows` | an expression over the rows of one table as one over the rows of another |
//! | [`fails`] | which expressions can fail |
//! | `users`, `needed`, `expression` | questions that several rules ask |
//! | `relational`, `tensor`, `cross` | the rules, one file each |
//!
//! # What "equal" means
//!
//! Outputs keep their names, types and values: tables as bags (after a sort: as sequences), floats up to rounding
//! where a rule says so. With the two ways of counting failures of [`crate::eval::Errors`]:
//!
//! 1. *No new failure.* Where the original runs without any failure (`Errors::All`), so does the rewritten graph.
//! 2. *No lost failure.* Where a result, predicate, key or aggregate of the original fails (`Errors::Needed`), the
//!    rewritten graph fails too.
//! 3. In between (only columns that nobody reads, or rows that are dropped, fail) it may do either.
//!
//! So a predicate that [can fail](quearn_stage::graph::fails::can_fail) stays where it is, and nothing that drops rows moves in front of it.
//! One rule, `filter_before_model`, is exempt from 2: rows that a filter drops are not shown to the model, whether or
//! not the model, or another part of the same predicate, would have failed on them. One, `count_distinct`, is exempt
//! from 1: it sums up in parts, and a part may overflow where the whole does not.

mod cross;
mod expression;
mod known;
mod narrow_weights;
mod needed;
mod options;
mod patch;
mod rebuild;
mod relational;
mod report;
mod rows;
mod scatter_rows;
mod tensor;
mod users;

pub use known::Known;
pub use narrow_weights::narrow_weights;
pub use options::RewriteOptions;
pub use patch::Patch;
pub use report::{RewriteError, RewriteReport};

use crate::data::{Catalog, Fact};
use quearn_stage::graph::{Graph, GraphError, Node, verify};
use rebuild::rebuild;

/// A rule: its name, why it is there and at its place, and the change it proposes.
pub struct Rule {
    /// The name of its file, by which it is switched.
    pub name: &'static str,
    /// Why it is there, and why at this place.
    pub reason: &'static str,
    /// It runs whatever the options say: there are no loops for what it replaces.
    pub required: bool,
    apply: Apply,
}

/// What a rule looks at.
enum Apply {
    /// One node, what is below it, and what is known of the tables. Its changes are made one after the other, since two
    /// may replace one join.
    Tables(fn(&Known<'_>, Node) -> Option<Patch>),
    /// One node and what is below it.
    Node(fn(&Graph, Node) -> Option<Patch>),
    /// The graph as a whole.
    Graph(fn(&Graph) -> Option<Patch>),
}

/// Every rule, in the order of a round.
pub const RULES: &[Rule] = &[
    Rule {
        name: "count_distinct",
        reason: "two groupings count what is distinct; first, since the other rules gain from what it makes",
        required: true,
        apply: Apply::Node(relational::count_distinct),
    },
    Rule {
        name: "fold_constants",
        reason: "what is known now is not computed later; early, since it decides predicates and exposes the rest",
        required: false,
        apply: Apply::Node(relational::fold_constants),
    },
    Rule {
        name: "match_prefix",
        reason: "no substring is looked for where a prefix can be compared; one that is known already is no comparison",
        required: false,
        apply: Apply::Node(relational::match_prefix),
    },
    Rule {
        name: "fuse_elementwise",
        reason: "transposes, reshapes and casts that cancel no longer stand between operators that match each other",
        required: false,
        apply: Apply::Node(tensor::fuse_elementwise),
    },
    Rule {
        name: "turn_product",
        reason: "gradients of weights come out as the weights lie; after transposes have cancelled",
        required: false,
        apply: Apply::Node(tensor::turn_product),
    },
    Rule {
        name: "quantised_product",
        reason: "bytes are multiplied as bytes; before scales have moved to where it does not see them",
        required: false,
        apply: Apply::Node(tensor::quantised_product),
    },
    Rule {
        name: "pool_first",
        reason: "bytes are pooled as bytes, and steps around a pooling meet",
        required: false,
        apply: Apply::Node(tensor::pool_first),
    },
    Rule {
        name: "join_later",
        reason: "what is done to a concatenation is done where its parts are made, by the loops that make them",
        required: false,
        apply: Apply::Node(tensor::join_later),
    },
    Rule {
        name: "join_sums",
        reason: "zeros are not added; before parts are reshaped, since sums of parts are often what is",
        required: false,
        apply: Apply::Node(tensor::join_sums),
    },
    Rule {
        name: "reshape_parts",
        reason: "parts are written where they belong instead of copied there; after sums of parts have become one",
        required: false,
        apply: Apply::Node(tensor::reshape_parts),
    },
    Rule {
        name: "merge_steps",
        reason: "a network walks once for itself and for its derivatives; before anything is moved into one of the bodies",
        required: false,
        apply: Apply::Graph(tensor::merge_steps),
    },
    Rule {
        name: "simplify_arithmetic",
        reason: "numbers that follow each other are one number; after the rules that bring them together",
        required: false,
        apply: Apply::Node(tensor::simplify_arithmetic),
    },
    Rule {
        name: "invert_link",
        reason: "a score is compared before its link function; before filters move, since what is left may move further",
        required: false,
        apply: Apply::Node(cross::invert_link),
    },
    Rule {
        name: "merge_filters",
        reason: "one predicate per place, so that the next two rules see all its parts at once",
        required: false,
        apply: Apply::Node(relational::merge_filters),
    },
    Rule {
        name: "push_filter",
        reason: "rows are dropped before they are joined, sorted or grouped",
        required: false,
        apply: Apply::Node(relational::push_filter),
    },
    Rule {
        name: "resolve_mark",
        reason: "a mark that only picks rows, or that nobody reads, is not made; after filters have come down to its join",
        required: false,
        apply: Apply::Node(relational::resolve_mark),
    },
    Rule {
        name: "drop_zero_weights",
        reason: "features without weight are not computed; before rules that move features, and those that prune",
        required: false,
        apply: Apply::Tables(cross::drop_zero_weights),
    },
    Rule {
        name: "factorise_products",
        reason: "sums over a join are made before it; early, since the joins that it leaves are no longer needed whole",
        required: false,
        apply: Apply::Tables(cross::factorise_products),
    },
    Rule {
        name: "split_linear_over_join",
        reason: "what a linear layer makes of a dimension is made once for each of its rows, not of the join's",
        required: false,
        apply: Apply::Tables(cross::split_linear_over_join),
    },
    Rule {
        name: "gather_one_hot",
        reason: "of an encoded category one row of weights is taken; after what dimensions add has been taken out",
        required: false,
        apply: Apply::Node(cross::gather_one_hot),
    },
    Rule {
        name: "prune_join",
        reason: "a join that changes nothing is not made; after rules that leave its columns unread",
        required: false,
        apply: Apply::Tables(relational::prune_join),
    },
    Rule {
        name: "filter_before_model",
        reason: "rows are dropped before the model runs on them",
        required: false,
        apply: Apply::Node(cross::filter_before_model),
    },
    Rule {
        name: "merge_projections",
        reason: "filters that moved leave projections on top of each other",
        required: false,
        apply: Apply::Node(relational::merge_projections),
    },
    Rule {
        name: "fold_batch_norm",
        reason: "a normalisation by weights becomes part of the weights, once bound; after transposes have cancelled",
        required: false,
        apply: Apply::Node(tensor::fold_batch_norm),
    },
    Rule {
        name: "prune_trees",
        reason: "trees lose the branches that no row takes; after filters have come down, before unread columns go",
        required: false,
        apply: Apply::Node(cross::prune_trees),
    },
    Rule {
        name: "stop_trees",
        reason: "a score that a filter drops is not summed up; after filters have come to where they stay",
        required: false,
        apply: Apply::Node(cross::stop_trees),
    },
    Rule {
        name: "prune_model_inputs",
        reason: "a model output that nobody reads is not computed, and its inputs are not scanned",
        required: false,
        apply: Apply::Graph(cross::prune_model_inputs),
    },
    Rule {
        name: "prune_projection",
        reason: "columns that nobody reads are not kept or scanned; last, since every other rule changes who reads what",
        required: false,
        apply: Apply::Graph(relational::prune_projection),
    },
];

/// Rounds after which rewriting stops although a rule still fires; chains of pushes are as deep as plans, not deeper.
const MAX_ROUNDS: usize = 64;

/// As [`rewrite_for`], of tables of which nothing is known.
pub fn rewrite(graph: &Graph, options: &RewriteOptions) -> Result<(Graph, RewriteReport), RewriteError> {
    rewrite_for(graph, &Catalog::new(), options)
}

/// The graph after all rules that are on, run in rounds until none fires, and which ones fired. It is equal as long as
/// the [facts](RewriteReport::facts) of the report hold for the tables of the catalog.
///
/// # Errors
/// A rule that made something that is no equal graph: a bug of the rule, which the error names.
pub fn rewrite_for(
    graph: &Graph,
    catalog: &Catalog,
    options: &RewriteOptions,
) -> Result<(Graph, RewriteReport), RewriteError> {
    let mut report = RewriteReport::default();
    let mut current = rebuild(graph, &Patch::new(graph)).map_err(|e| RewriteError::rule("rebuild", e))?;
    // Not one of the rules: it makes new rows, and what they replace is still read.
    let scattered = scatter_rows::scatter_rows(&current).map_err(|e| RewriteError::rule("scatter_rows", e))?;
    if let Some((scattered, sums)) = scattered {
        current = scattered;
        report.count("scatter_rows", sums);
    }
    let mut reachable = current.reachable();
    // Rules since the last change that had nothing to propose: once these are all, none would have.
    let mut idle = 0;
    let rules: Vec<&Rule> = RULES.iter().filter(|rule| rule.required || options.is_on(rule.name)).collect();
    for (round, rule) in (0..MAX_ROUNDS).flat_map(|round| rules.iter().map(move |rule| (round, *rule))) {
        if idle == rules.len() {
            return Ok((current, report));
        }
        for _ in 0..rule.repeats() {
            let Some((patch, facts)) = rule.proposal(&current, &reachable, catalog) else {
                idle += 1;
                break;
            };
            report.rely_on(facts);
            current = apply(&current, &patch).map_err(|e| RewriteError::rule(rule.name, e))?;
            tracing::debug!(rule = rule.name, round, changes = patch.len(), nodes = current.len(), "rewrote");
            report.count(rule.name, patch.len());
            (reachable, idle) = (current.reachable(), 0);
        }
    }
    tracing::debug!(MAX_ROUNDS, "stopped rewriting while rules still fired");
    Ok((current, report))
}

impl Rule {
    /// The changes that the rule proposes for the whole graph, of which these nodes are needed, at once, and what they
    /// rely on. Each is an equation between a node and another one made from what is below it, so that together they are
    /// as good as one after the other.
    fn proposal(&self, graph: &Graph, reachable: &[Node], catalog: &Catalog) -> Option<(Patch, Vec<Fact>)> {
        let (patch, facts) = match self.apply {
            Apply::Graph(rule) => (rule(graph)?, vec![]),
            Apply::Node(rule) => {
                let mut all = Patch::new(graph);
                reachable.iter().filter_map(|&node| rule(graph, node)).for_each(|patch| all.merge(patch));
                (all, vec![])
            }
            Apply::Tables(rule) => {
                let known = Known::new(graph, catalog);
                let change = |&node: &Node| {
                    // What was asked in vain is relied on by nobody.
                    drop(known.facts.take());
                    rule(&known, node)
                };
                let patch = reachable.iter().find_map(change)?;
                (patch, known.facts.take())
            }
        };
        (!patch.is_empty()).then_some((patch, facts))
    }

    /// How often the rule is asked in a round, at most.
    fn repeats(&self) -> usize {
        if matches!(self.apply, Apply::Tables(_)) { MAX_ROUNDS } else { 1 }
    }
}

fn apply(graph: &Graph, patch: &Patch) -> Result<Graph, GraphError> {
    let result = rebuild(graph, patch)?;
    if cfg!(debug_assertions) {
        verify(&result)?;
    }
    Ok(result)
}
