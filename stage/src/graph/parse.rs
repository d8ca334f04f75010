//! The text form of a graph, read back through the type rules; [`print`](mod@super::print) shows the grammar.

mod cursor;
mod op;
mod ty;

use super::{Graph, Node, Op, Region, Ty};
use cursor::Cursor;
use std::collections::HashMap;

/// Where a text is no graph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct ParseError {
    /// Line, from 1.
    pub line: usize,
    /// What was expected, or which type rule is broken.
    pub message: String,
}

/// Reads a graph. Empty lines and lines that begin with `;` are skipped.
///
/// # Errors
/// Text that is not of the form, or a node that the type rules or its written type contradict.
pub fn parse(text: &str) -> Result<Graph, ParseError> {
    let mut parser = Parser::default();
    let mut count = 0;
    for (index, line) in text.lines().enumerate() {
        count = index + 1;
        let line = line.trim();
        if !line.is_empty() && !line.starts_with(';') {
            parser.line(line).map_err(|message| ParseError { line: count, message })?;
        }
    }
    match parser.open.last() {
        Some(_) => Err(ParseError { line: count, message: "expected `}` before the end".to_owned() }),
        None => Ok(parser.graph),
    }
}

/// Stands for a node's own rows until its id is known.
const OWN: Node = Node(u32::MAX);

#[derive(Default)]
struct Parser {
    graph: Graph,
    /// Nodes by their number in the text.
    nodes: HashMap<u32, Node>,
    /// Operations whose region is being read, outermost first.
    open: Vec<Open>,
}

struct Open {
    name: u32,
    /// With an empty region.
    op: Op,
    ty: Ty,
    inputs: Vec<Node>,
    region: Region,
}

impl Parser {
    fn line(&mut self, line: &str) -> Result<(), String> {
        let mut cursor = Cursor::new(line);
        if cursor.eat("}") {
            cursor.end()?;
            return self.close();
        }
        if cursor.eat_word("return") {
            return self.results(&mut cursor);
        }
        let name = cursor.node_name()?;
        if self.nodes.contains_key(&name) {
            return Err(format!("v{name} is defined twice"));
        }
        cursor.expect(":")?;
        let ty = ty::ty(&mut cursor, &self.nodes)?;
        cursor.expect("=")?;
        let operation = cursor.dotted()?;
        let inputs = self.inputs(&mut cursor)?;
        let op = op::op(operation, &ty, &mut cursor, &self.nodes)?;
        if let Some(region) = op.region().cloned() {
            cursor.expect("{")?;
            cursor.end()?;
            self.open.push(Open { name, op, ty, inputs, region });
            return Ok(());
        }
        cursor.end()?;
        self.add(name, op, &inputs, &ty)
    }

    fn inputs(&self, cursor: &mut Cursor) -> Result<Vec<Node>, String> {
        let mut inputs = vec![];
        if cursor.at_node() {
            inputs.push(cursor.node(&self.nodes)?);
            while cursor.eat(",") {
                inputs.push(cursor.node(&self.nodes)?);
            }
        }
        Ok(inputs)
    }

    fn add(&mut self, name: u32, op: Op, inputs: &[Node], written: &Ty) -> Result<(), String> {
        let is_param = matches!(op, Op::Param { .. });
        let node = self.graph.add(op, inputs).map_err(|e| e.to_string())?;
        let written = written.map_rows(&|n| if n == OWN { node } else { n });
        if written != *self.graph.ty(node) {
            return Err(format!("expected the type {}, found {written}", self.graph.ty(node)));
        }
        self.nodes.insert(name, node);
        if let Some(open) = self.open.last_mut().filter(|_| is_param) {
            open.region.params.push(node);
        }
        Ok(())
    }

    /// `return v1, v2` in a region, `return "name" v1` outside.
    fn results(&mut self, cursor: &mut Cursor) -> Result<(), String> {
        if self.open.is_empty() {
            let name = cursor.string()?;
            let node = cursor.node(&self.nodes)?;
            self.graph.output(name, node);
            return cursor.end();
        }
        let results = self.inputs(cursor)?;
        if let Some(open) = self.open.last_mut() {
            open.region.results = results;
        }
        cursor.end()
    }

    fn close(&mut self) -> Result<(), String> {
        let Some(mut open) = self.open.pop() else {
            return Err("expected a node or `return`, found `}`".to_owned());
        };
        let index = |node: &Node| match self.graph.op(*node) {
            Op::Param { index, .. } => *index,
            _ => u32::MAX,
        };
        open.region.params.sort_by_key(index);
        self.add(open.name, open.op.with_region(open.region), &open.inputs, &open.ty)
    }
}
