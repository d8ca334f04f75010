//! Tensor operators on the rows of a pipeline: rows gather in a tile, the operators run on the whole tile, then the
//! pipeline goes on row by row.

use super::env::Env;
use super::pipeline::Consume;
use crate::lower::context::Cx;
use crate::lower::error::{LowerError, Result};
use quearn_stage::graph::Node;
use quearn_stage::low::V;

/// Rows of the source in a tile when the pipeline runs a model: few, as each row is much work.
pub const TILE_ROWS: i64 = 16;

/// The tensor operators behind the columns of a projection whose results are one value a row.
pub fn roots(_cx: &Cx<'_>, _project: Node) -> Vec<Node> {
    vec![]
}

/// Produces the rows of a projection with tensor operators.
pub fn produce<'b>(
    cx: &Cx<'_>,
    _env: &Env<'b>,
    project: Node,
    _tile: (V<'b>, V<'b>),
    _consume: &mut Consume<'_>,
) -> Result<()> {
    Err(LowerError::Internal { node: cx.describe(project), what: "no tensor operators".into() })
}
