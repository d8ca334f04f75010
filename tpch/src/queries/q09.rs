//! Q9: product type profit measure.

use super::{revenue, scan};
use crate::schema::{LINEITEM, NATION, ORDERS, PART, PARTSUPP, SUPPLIER};
use quearn_stage::rep::{Rep, Stage, Table, asc, desc, sum};

/// ```sql
/// select nation, o_year, sum(amount) as sum_profit
/// from (select n_name as nation, extract(year from o_orderdate) as o_year,
///              l_extendedprice * (1 - l_discount) - ps_supplycost * l_quantity as amount
///       from part, supplier, lineitem, partsupp, orders, nation
///       where s_suppkey = l_suppkey
///         and ps_suppkey = l_suppkey and ps_partkey = l_partkey and p_partkey = l_partkey
///         and o_orderkey = l_orderkey and s_nationkey = n_nationkey
///         and p_name like '%green%') as profit
/// group by nation, o_year
/// order by nation, o_year desc
/// ```
pub fn q09(s: &Stage) -> Rep<'_, Table> {
    let green = scan(s, PART).filter(|r| r.str("p_name").like("%green%"));
    let supplies = scan(s, PARTSUPP).join_semi(green, [("ps_partkey", "p_partkey")]);
    let suppliers = scan(s, SUPPLIER).join_inner(scan(s, NATION), [("s_nationkey", "n_nationkey")]);
    let profit = scan(s, LINEITEM)
        .join_inner(supplies, [("l_partkey", "ps_partkey"), ("l_suppkey", "ps_suppkey")])
        .join_inner(suppliers, [("l_suppkey", "s_suppkey")])
        .with("amount", |r| revenue(r) - r.decimal("ps_supplycost") * r.decimal("l_quantity"));
    scan(s, ORDERS)
        .join_inner(profit, [("o_orderkey", "l_orderkey")])
        .group_by_exprs(|r| [("nation", r.col("n_name")), ("o_year", r.date("o_orderdate").year().dyn_())])
        .agg(|r| [sum("sum_profit", r.decimal("amount"))])
        .sort([asc("nation"), desc("o_year")])
}
