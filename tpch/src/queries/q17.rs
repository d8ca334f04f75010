//! Q17: small-quantity-order revenue.

use super::scan;
use crate::schema::{LINEITEM, PART};
use quearn_stage::rep::{F64, Rep, Stage, Table, count, dec, sum};

/// ```sql
/// select sum(l_extendedprice) / 7.0 as avg_yearly
/// from lineitem, part
/// where p_partkey = l_partkey and p_brand = 'Brand#23' and p_container = 'MED BOX'
///   and l_quantity < (select 0.2 * avg(l_quantity) from lineitem where l_partkey = p_partkey)
/// ```
///
/// Lines of one part and quantity are all below the part's limit or all above it: the lines are read once, and the rest
/// is about such groups of them.
pub fn q17(s: &Stage) -> Rep<'_, Table> {
    let boxes = scan(s, PART).filter(|r| r.str("p_brand").eq("Brand#23") & r.str("p_container").eq("MED BOX"));
    let lines = scan(s, LINEITEM)
        .join_semi(boxes, [("l_partkey", "p_partkey")])
        .group_by(["l_partkey", "l_quantity"])
        .agg(|r| [count("lines"), sum("price", r.decimal("l_extendedprice"))]);
    let parts = lines
        .group_by(["l_partkey"])
        .agg(|r| {
            let quantity = r.decimal("l_quantity") * r.i64("lines").cast_decimal(18, 0);
            [sum("part_lines", r.i64("lines")), sum("part_quantity", quantity)]
        })
        .project(|r| {
            let average = r.decimal("part_quantity") / r.i64("part_lines").cast_decimal(18, 0);
            [("partkey", r.col("l_partkey")), ("least", (0.2 * average).dyn_())]
        });
    lines
        .join_inner(parts, [("l_partkey", "partkey")])
        .filter(|r| r.decimal("l_quantity").cast::<F64>().lt(r.f64("least")))
        .aggregate(|r| [sum("price", r.decimal("price"))])
        .project(|r| [("avg_yearly", (r.decimal("price") / dec("7.0")).dyn_())])
}
