//! `substring(s, 1, n) = "abc"` is `s like "abc%"`, and `<>` is its negation, where `n` is the length of the literal.
//!
//! Reason: a prefix is compared in place, while a substring is first looked for, character by character.
//!
//! Preconditions: the literal has exactly `n` characters; a shorter text has a shorter substring, which differs from it,
//! and does not match.

use crate::rewrite::Patch;
use quearn_stage::graph::literal::Value;
use quearn_stage::graph::{CompareOp, Graph, Node, Op, UnaryOp};

/// A comparison of the first characters of a text with a literal, as a pattern.
pub fn match_prefix(graph: &Graph, node: Node) -> Option<Patch> {
    let Op::Compare(op @ (CompareOp::Eq | CompareOp::Ne)) = graph.op(node) else { return None };
    let &[a, b] = graph.inputs(node) else { return None };
    let (text, pattern) = prefix(graph, a, b).or_else(|| prefix(graph, b, a))?;
    let mut patch = Patch::new(graph);
    let mut new = patch.add(Op::Like(pattern), &[text]);
    if *op == CompareOp::Ne {
        new = patch.add(Op::Unary(UnaryOp::Not), &[new]);
    }
    Some(patch.replace(node, new))
}

/// The text of which `substring` takes as many characters from the start as `literal` has, and the pattern of those.
fn prefix(graph: &Graph, substring: Node, literal: Node) -> Option<(Node, String)> {
    let (Op::Substring { start: 0 | 1, len }, Op::Const(literal)) = (graph.op(substring), graph.op(literal)) else {
        return None;
    };
    let Value::String(wanted) = literal.value() else { return None };
    if wanted.chars().count() != *len as usize {
        return None;
    }
    let mut pattern = String::new();
    for c in wanted.chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    Some((graph.inputs(substring)[0], pattern))
}
